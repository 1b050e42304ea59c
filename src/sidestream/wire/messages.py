"""The Anthropic Messages wire: stream and body to events, a request to its JSON body.

Strategy: an answer is a row of content blocks, and each is one output item, numbered as announced. Text,
thinking and the input of tools arrive as deltas, which are nearly all of a stream: those are read with one
small Struct (`_Peek`). Every other event is rare: it is read as plain JSON and goes through a table. Blocks
of a type that nobody here has to understand are items that pass as they are.

A text block says where it ends but not why: the token limit stops it in the same way. So a finished text, and
a call without any input, count as done when something follows or the stop reason says so, and not before.

The answer is over when a stop reason has been said and every block has stopped; `message_stop`, or the end of
the body, only confirms it. An end without either is a drop. Source:
https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Struct

from ._json import UNREADABLE, NotJSON, dumps, integer, loads, mapping, sequence, string
from .decoding import StreamDecoder
from .errorinfo import read_error
from .events import (
    ArgumentsDelta,
    ErrorInfo,
    Event,
    Finished,
    ItemDone,
    ItemStarted,
    Other,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenCounts,
    UsageReport,
)
from .prompt import Request, is_json_object
from .sse import ServerSentEvent
from .turns import to_turns

__all__ = ["DEFAULT_MAX_TOKENS", "Decoder", "encode", "read_body"]

PATH = "/messages"
# field here -> what others call it
RENAMED = {
    "max_tokens": ("max_output_tokens", "max_completion_tokens"),
    "stop_sequences": ("stop",),
}
DEFAULT_MAX_TOKENS = 8192  # the wire has no requests without a limit


class _Delta(Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None


class _Peek(Struct, gc=False):
    type: str = ""
    index: int | None = None
    delta: _Delta | None = None


_peek = msgspec.json.Decoder(_Peek).decode

# type of a block -> type of its item; every other block is an item as it is
_KINDS = {
    "text": "message",
    "thinking": "reasoning",
    "redacted_thinking": "reasoning",
    "tool_use": "function_call",
}

# type of a delta -> type of the item it belongs to
_DELTAS = {
    "text_delta": "message",
    "citations_delta": "message",
    "thinking_delta": "reasoning",
    "signature_delta": "reasoning",
    "input_json_delta": "function_call",
}

# stop reason -> (status, the field's word); another one is a proper end in its own word
_FINISH: dict[str, tuple[str, str]] = {
    "end_turn": ("completed", "stop"),
    "stop_sequence": ("completed", "stop"),
    "tool_use": ("completed", "tool_calls"),
    "refusal": ("completed", "refusal"),
    "max_tokens": ("incomplete", "length"),
    "model_context_window_exceeded": ("incomplete", "length"),
    "pause_turn": ("incomplete", "pause_turn"),
}


class _Block:
    """A content block being put together. `item` numbers its output item, `kind` is that item's type."""

    __slots__ = ("block", "item", "kind", "notes", "pieces", "signature", "stopped")

    def __init__(self, item: int, kind: str, block: dict[str, Any]) -> None:
        self.item = item
        self.kind = kind
        self.block = block
        self.pieces: list[str] = []
        self.notes: list[Any] = []
        self.signature = ""
        self.stopped = False

    @property
    def said(self) -> str:
        return "".join(self.pieces)

    @property
    def is_sure(self) -> bool:
        """Whether its end alone says that it is whole: a limit stops a text, or an empty input, just so."""
        if self.kind == "function_call":
            return bool(self.said.strip() or mapping(self.block.get("input")))
        return self.kind != "message"


class Decoder(StreamDecoder):
    """Events of one streamed message.

    `over` is True once the answer is complete or failed by the rules: what follows can add usage, nothing
    else. `broken` is set by the first event that is not JSON: nothing after it counts.
    """

    def __init__(self, choices: int = 1) -> None:
        del choices  # the wire has one answer per message
        super().__init__()
        self._blocks: list[_Block] = []
        self._by_index: dict[int, _Block] = {}
        self._unsure: list[_Block] = []  # have stopped, and may have been cut
        self._last: _Block | None = None  # the text or thinking that the last event was a piece of
        self._last_index: int | None = None
        self._stop = ""
        self._details: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._verdict = False

    def _feed(self, frames: Iterable[ServerSentEvent], events: list[Event]) -> None:
        for frame in frames:
            if self._verdict or self.broken:
                return
            try:
                peek = _peek(frame.data)
            except UNREADABLE:
                self._read(frame, events)
                continue
            delta = peek.delta
            if delta is None or self.over or (peek.type or frame.type) != "content_block_delta":
                self._read(frame, events)
                continue
            text, last = delta.text, self._last if delta.type == "text_delta" else None
            if last is None or text is None or peek.index != self._last_index or last.kind != "message":
                self._delta(frame, peek.index, delta, events)
                continue
            last.pieces.append(text)
            events.append(TextDelta(text, last.item))

    def piece(self, data: bytes) -> str | None:
        try:
            peek = _peek(data)
        except UNREADABLE:
            return None
        delta, last = peek.delta, self._last
        if last is None or delta is None or peek.index != self._last_index:
            return None
        if peek.type != "content_block_delta" or _DELTAS.get(delta.type) != last.kind:
            return None
        text = delta.text if last.kind == "message" else delta.thinking
        if text:
            last.pieces.append(text)
        return text

    def close(self) -> list[Event]:
        """The body ended: the verdict, if there is one.

        Raises:
            NotJSON: there is none, because an event's data was not JSON.
        """
        if self._verdict:
            return []
        if self.over:
            return self._finished()
        if self.broken:
            raise self.broken
        return []

    # Deltas.

    def _delta(self, frame: ServerSentEvent, index: int | None, delta: _Delta, events: list[Event]) -> None:
        """A delta that is not the next piece of the text before it."""
        self._last = None
        if delta.type == "text_delta" and delta.text is not None:
            self._piece(self._goes_on(self._find("message", index, events), index), delta.text, events)
        elif delta.type == "thinking_delta" and delta.thinking is not None:
            self._piece(self._goes_on(self._find("reasoning", index, events), index), delta.thinking, events)
        elif delta.type == "input_json_delta" and delta.partial_json is not None:
            self._piece(self._find("function_call", index, events), delta.partial_json, events)
        else:
            self._rare_delta(mapping(loads(frame.data)), events)

    def _goes_on(self, block: _Block, index: int | None) -> _Block:
        """The same block; the next delta is expected to go on with it."""
        if block.kind in ("message", "reasoning"):
            self._last, self._last_index = block, index
        return block

    def _piece(self, block: _Block, piece: str, events: list[Event]) -> None:
        """The next piece of what a block says."""
        block.pieces.append(piece)
        if block.kind == "message":
            events.append(TextDelta(piece, block.item))
        elif block.kind == "reasoning":
            events.append(ReasoningDelta(piece, block.item))
        elif block.kind == "function_call":
            events.append(ArgumentsDelta(piece, block.item))
        else:
            events.append(Other(string(block.block.get("type")), progress=bool(piece)))

    def _rare_delta(self, body: dict[str, Any], events: list[Event]) -> None:
        """A signature, a citation, a delta nobody knows, or one whose fields have unexpected kinds."""
        delta = mapping(body.get("delta"))
        kind, index = string(delta.get("type")), integer(body.get("index"))
        if (said := _PIECES.get(kind)) is not None:
            if piece := string(delta.get(said)):
                self._piece(self._find(_DELTAS[kind], index, events), piece, events)
            return
        if kind in _DELTAS:
            block = self._find(_DELTAS[kind], index, events)
            if kind == "signature_delta":
                block.signature = string(delta.get("signature")) or block.signature
            elif citation := mapping(delta.get("citation")):
                block.notes.append(citation)
        elif kind == "compaction_delta" and (found := self._open_at(index)) and not found.kind:
            found.block = {**found.block, **{name: delta[name] for name in delta if name != "type"}}
        events.append(Other(kind, progress=len(delta) > 1))

    # Blocks.

    def _find(self, kind: str, index: int | None, events: list[Event]) -> _Block:
        """The block that a delta belongs to; one that was not announced is begun."""
        block = self._open_at(index) if index is not None else self._newest(kind)
        if block is None or block.kind not in (kind, ""):
            block = self._open(kind, index, {}, events)
        return block

    def _open_at(self, index: int | None) -> _Block | None:
        block = self._by_index.get(index) if index is not None else None
        return block if block is not None and not block.stopped else None

    def _newest(self, kind: str) -> _Block | None:
        newest = (block for block in reversed(self._blocks) if not block.stopped)
        return next((block for block in newest if block.kind in (kind, "")), None)

    def _open(self, kind: str, index: int | None, content: dict[str, Any], events: list[Event]) -> _Block:
        self._sure(events)
        self._last = None
        block = _Block(len(self._blocks), kind, content)
        self._blocks.append(block)
        if index is not None:
            self._by_index[index] = block
        events.append(ItemStarted(block.item, _announced(block)))
        return block

    def _block_start(self, body: dict[str, Any], events: list[Event]) -> None:
        content = mapping(body.get("content_block"))
        if not content or self.over:
            return
        kind = _KINDS.get(string(content.get("type")), "")
        block = self._open(kind, integer(body.get("index")), content, events)
        block.signature = string(content.get("signature"))
        block.notes += [note for note in sequence(content.get("citations")) if mapping(note)]
        name = {"message": "text", "reasoning": "thinking"}.get(kind, "")
        if text := string(content.get(name)):
            self._piece(block, text, events)

    def _block_delta(self, body: dict[str, Any], events: list[Event]) -> None:
        if not self.over:
            self._last = None
            self._rare_delta(body, events)

    def _block_stop(self, body: dict[str, Any], events: list[Event]) -> None:
        index = integer(body.get("index"))
        open_blocks = (block for block in reversed(self._blocks) if not block.stopped)
        block = self._open_at(index) if index is not None else next(open_blocks, None)
        if block is None or self.over:
            return
        block.stopped = True
        self._last = None
        if block.is_sure:
            self._done(block, events)
        else:
            self._unsure.append(block)
        self._check_over(events)

    def _sure(self, events: list[Event], *, cut: bool = False) -> None:
        """What has stopped is whole, for something follows; or the limit may have `cut` it."""
        unsure, self._unsure = self._unsure, []
        for block in unsure:
            self._done(block, events, cut=cut and block is self._blocks[-1])

    def _done(self, block: _Block, events: list[Event], *, cut: bool = False) -> None:
        item = _WHOLE[block.kind](block)
        if block.kind == "message" and cut:
            item["status"] = "incomplete"
        if item and not (block.kind == "function_call" and cut):
            events.append(ItemDone(block.item, item))

    # The message.

    def _started(self, body: dict[str, Any], events: list[Event]) -> None:
        message = mapping(body.get("message"))
        if self.over:
            return
        events.append(Started(string(message.get("id")) or None, string(message.get("model")) or None))
        self._count(message.get("usage"), events)

    def _message_delta(self, body: dict[str, Any], events: list[Event]) -> None:
        delta = mapping(body.get("delta"))
        if stop := string(delta.get("stop_reason")):
            self._stop = stop
            self._details = mapping(delta.get("stop_details"))
        self._check_over(events)
        self._count(body.get("usage"), events)

    def _message_stop(self, body: dict[str, Any], events: list[Event]) -> None:
        del body
        events += self._finished()

    def _check_over(self, events: list[Event]) -> None:
        if self._stop and not self.over and all(block.stopped for block in self._blocks):
            self.over = True
            self._sure(events, cut=_FINISH.get(self._stop, ("", ""))[1] == "length")

    def _finished(self) -> list[Event]:
        """The last word: the answer ended, as its stop reason says."""
        events: list[Event] = []
        status, reason = _FINISH.get(self._stop, ("completed", self._stop))
        self._sure(events, cut=reason == "length")
        self._verdict = self.over = True
        if not self._stop:
            calls = any(block.kind == "function_call" for block in self._blocks)
            return [*events, Finished("completed", "tool_calls" if calls else None, confirmed=False)]
        error = _declined(self._details) if reason == "refusal" else None
        return [*events, Finished("incomplete" if status == "incomplete" else "completed", reason, error)]

    def _count(self, value: object, events: list[Event]) -> None:
        """Later figures replace earlier ones, field by field. What was written is known at the end: the first
        figure is that of the first token."""
        said = {name: count for name, count in mapping(value).items() if count is not None}
        if said:
            self._usage |= said
            events.append(UsageReport(_tokens(self._usage, ended=bool(self._stop))))

    # Everything else.

    def _read(self, frame: ServerSentEvent, events: list[Event]) -> None:
        if frame.data.strip() in (b"", b"[DONE]"):
            return
        try:
            body = mapping(loads(frame.data))
        except NotJSON:
            if frame.type == "message" or (frame.type in _HANDLERS and frame.type != "error"):
                raise
            body = {"message": frame.text[:2000]} if frame.type == "error" else {}
        kind = string(body.get("type")) or (frame.type if frame.type != "message" else "")
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, body, events)
        elif frame.type == "error" or (not kind and read_error(body)):
            self._error(body, events)
        else:
            events.append(Other(kind))

    def _error(self, body: dict[str, Any], events: list[Event]) -> None:
        if self.over:
            return  # the answer was all there
        error = read_error(body) or read_error({"error": body})
        self._verdict = self.over = True
        events.append(Finished("failed", error=error or ErrorInfo(message="an error without a message")))


_HANDLERS: dict[str, Callable[[Decoder, dict[str, Any], list[Event]], None]] = {
    "message_start": Decoder._started,
    "content_block_start": Decoder._block_start,
    "content_block_delta": Decoder._block_delta,
    "content_block_stop": Decoder._block_stop,
    "message_delta": Decoder._message_delta,
    "message_stop": Decoder._message_stop,
    "error": Decoder._error,
}
# type of a delta -> its field with the next piece
_PIECES = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


# Items.


def _announced(block: _Block) -> dict[str, Any]:
    """The item as it is when its block begins."""
    if block.kind == "message":
        return {"type": "message", "role": "assistant"}
    if block.kind == "reasoning":
        return {"type": "reasoning", "summary": []}
    if block.kind == "function_call":
        said = {"call_id": block.block.get("id"), "name": block.block.get("name")}
        return {"type": "function_call", **{name: string(value) for name, value in said.items()}}
    return {**block.block}


def _message(block: _Block) -> dict[str, Any]:
    part = {"type": "output_text", "text": block.said, "annotations": block.notes}
    return {"type": "message", "role": "assistant", "status": "completed", "content": [part]}


def _reasoning(block: _Block) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "reasoning", "summary": []}
    if block.block.get("type") == "redacted_thinking":
        return {**item, "encrypted_content": string(block.block.get("data"))}
    item["content"] = [{"type": "reasoning_text", "text": block.said}]
    return {**item, "signature": block.signature} if block.signature else item


def _call(block: _Block) -> dict[str, Any]:
    """The call, or {} if it is none: its input is no whole JSON object, or it has no name."""
    given = mapping(block.block.get("input"))
    arguments = block.said if block.said.strip() else dumps(given).decode()
    name = string(block.block.get("name"))
    if not name or not is_json_object(arguments):
        return {}
    call_id = string(block.block.get("id")) or f"call_{block.item}"
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def _other(block: _Block) -> dict[str, Any]:
    """A block of another type as it is, with the input that was streamed for it."""
    if is_json_object(block.said):
        return {**block.block, "input": loads(block.said)}
    return {**block.block}


_WHOLE: dict[str, Callable[[_Block], dict[str, Any]]] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _call,
    "": _other,
}


def _declined(details: dict[str, Any]) -> ErrorInfo:
    """Why the model declined, as far as it says so."""
    said = string(details.get("explanation"))[:2000]
    return ErrorInfo(code=string(details.get("category"))[:100], message=said, type="refusal")


def _tokens(usage: dict[str, Any], *, ended: bool) -> TokenCounts:
    """The figures in the one way of counting: `input_tokens` is the whole prompt, cached or not."""
    read, cached, new = (
        integer(usage.get(name))
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )
    prompt = None if read is None else read + (cached or 0) + (new or 0)
    written = integer(usage.get("output_tokens")) if ended else None
    return TokenCounts(
        input_tokens=prompt,
        output_tokens=written,
        total_tokens=None if prompt is None or written is None else prompt + written,
        cached_tokens=cached,
        reasoning_tokens=integer(mapping(usage.get("output_tokens_details")).get("thinking_tokens")),
    )


def read_body(data: bytes) -> list[Event]:
    """Events of a whole (not streamed) message: for servers that ignore `stream`.

    Raises:
        NotJSON: the body is not a JSON object of this wire.
    """
    body = mapping(loads(data))
    if body.get("type") != "message" or not isinstance(body.get("content"), list):
        if error := read_error(body):
            return [Finished("failed", error=error)]
        raise NotJSON("the body is JSON, but not a message")
    said: list[dict[str, Any]] = [{"type": "message_start", "message": {**body, "usage": None}}]
    for index, block in enumerate(body["content"]):
        said.append({"type": "content_block_start", "index": index, "content_block": block})
        said.append({"type": "content_block_stop", "index": index})
    said += [{"type": "message_delta", "delta": body, "usage": body.get("usage")}, {"type": "message_stop"}]
    return Decoder().feed(ServerSentEvent("message", dumps(event), b"") for event in said)


# Requests.

# What other wires know, and this one does not. Reasoning is asked for by `thinking`.
_UNKNOWN = frozenset(
    {
        "background", "frequency_penalty", "include", "logit_bias", "logprobs", "n", "presence_penalty",
        "reasoning", "reasoning_effort", "response_format", "seed", "store", "stream_options", "text",
        "top_logprobs", "truncation", "verbosity",
    }
)  # fmt: skip
_CHOICES = {"auto": "auto", "none": "none", "required": "any", "any": "any"}


def encode(request: Request, model: str) -> dict[str, Any]:
    """The JSON body of a streamed request.

    The wire takes no request without an output limit: one that names none gets DEFAULT_MAX_TOKENS, and its
    budget for thinking besides. Reasoning settings of other wires are left out, and so is a layout.
    """
    params = request.params
    system, turns = to_turns(request.messages, request.instructions, params.get("system"))
    body: dict[str, Any] = {"model": model, "stream": True, "max_tokens": _default_limit(params)}
    if system:
        body["system"] = system
    body["messages"] = turns
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if choice := _tool_choice(params):
            body["tool_choice"] = choice
    for name, value in params.items():
        if name in ("max_tokens", "max_output_tokens", "max_completion_tokens"):
            body["max_tokens"] = body["max_tokens"] if value is None else value
        elif name == "stop":
            if value is not None:
                body["stop_sequences"] = [value] if isinstance(value, str) else value
        elif name not in _UNKNOWN and name not in ("system", "tool_choice", "parallel_tool_calls"):
            body[name] = value
    return body


def _default_limit(params: dict[str, Any]) -> int:
    return DEFAULT_MAX_TOKENS + (integer(mapping(params.get("thinking")).get("budget_tokens")) or 0)


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A function in this wire's form; its own tools and the provider's as they are."""
    if tool.get("type") != "function":
        return tool
    function = mapping(tool.get("function")) or {name: tool[name] for name in tool if name != "type"}
    schema = mapping(function.get("parameters")) or {"type": "object", "properties": {}}
    kept = {name: function[name] for name in ("name", "description", "strict") if function.get(name)}
    return {**kept, "input_schema": schema}


def _tool_choice(params: dict[str, Any]) -> object:
    choice = params.get("tool_choice")
    if isinstance(choice, str):
        choice = {"type": _CHOICES.get(choice, choice)}
    elif (kind := mapping(choice).get("type")) in ("function", "custom"):
        choice = {
            "type": "tool",
            "name": {**mapping(choice), **mapping(mapping(choice).get(kind))}.get("name"),
        }
    if params.get("parallel_tool_calls") is False:
        choice = choice or {"type": "auto"}
        if isinstance(choice, dict) and choice.get("type") != "none":
            choice = {**choice, "disable_parallel_tool_use": True}
    return choice
