"""The Chat Completions wire: stream and body to events, a request to its JSON body.

Strategy: a chunk is read with typed Structs of just the fields that matter; what does not fit (content as a
list, numbers as strings) is normalised and read again. Chat announces no items, so the decoder makes them:
one message per choice, one item for reasoning, one per tool call. Calls are finished when their choice has a
finish reason, or when a later call has begun and their arguments are a whole JSON object.

The answer is over when every choice asked for has a finish reason; `[DONE]`, the usage chunk or the end of
the body only confirm it. Without any finish reason `[DONE]`, or a last chunk of nothing but usage, counts if
output arrived (Ollama, some gateways); an end with none of them is a drop. Sources: https://platform.openai.com/docs/api-reference/chat-streaming,
https://openrouter.ai/docs/api/reference/streaming, https://docs.vllm.ai
"""

from __future__ import annotations

from collections.abc import Iterable
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
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    UsageReport,
)
from .prompt import Request, any_choice, any_tool, is_json_object, system_text, to_messages
from .sse import ServerSentEvent
from .usage import read_usage

__all__ = ["Decoder", "encode", "read_body"]

PATH = "/chat/completions"
# field here -> Responses' name for it
RENAMED = {
    "max_tokens": ("max_output_tokens",),
    "reasoning_effort": ("reasoning",),
    "response_format": ("text",),
    "verbosity": ("text",),
    "stop": ("stop_sequences",),
}
_CHOICES = 128  # no server offers more alternatives


class _Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_text: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None


class _Choice(Struct, gc=False):
    index: int | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None
    error: Any = None


class _Chunk(Struct, gc=False):
    id: str | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None
    object: str | None = None
    code: Any = None
    type: str | None = None


_chunk = msgspec.json.Decoder(_Chunk).decode

# finish reason of any server -> (status, the field's word)
_FINISH: dict[str, tuple[str, str]] = {
    "stop": ("completed", "stop"),
    "eos": ("completed", "stop"),
    "end_turn": ("completed", "stop"),
    "stop_sequence": ("completed", "stop"),
    "tool_calls": ("completed", "tool_calls"),
    "function_call": ("completed", "tool_calls"),
    "length": ("incomplete", "length"),
    "max_tokens": ("incomplete", "length"),
    "model_length": ("incomplete", "length"),
    "content_filter": ("incomplete", "content_filter"),
    "safety": ("incomplete", "content_filter"),
    "error": ("failed", "error"),
    "error_finish": ("failed", "error"),
    "abort": ("failed", "error"),
    "insufficient_system_resource": ("failed", "insufficient_system_resource"),
}


class _Fragments(Struct):
    """A tool call being put together. `item` numbers its output item."""

    item: int
    slot: int
    id: str = ""
    name: str = ""
    arguments: list[str] = []
    done: bool = False


class _ChoiceState:
    """One alternative answer: its item numbers, its calls, why it ended."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.message: int | None = None
        self.reasoning: int | None = None
        self.calls: list[_Fragments] = []
        self.finish: str | None = None


class Decoder(StreamDecoder):
    """Events of one streamed completion of `choices` alternatives.

    `over` is True once every choice has its finish reason, or the stream has failed: what follows can add
    usage, nothing else. `broken` is set by the first event that is not JSON: nothing after it counts.
    """

    def __init__(self, choices: int = 1) -> None:
        super().__init__()
        self._wanted = choices
        self._choices: dict[int, _ChoiceState] = {}
        self._items = 0
        self._named: str | None = None
        self._saw_done = False
        self._counted = False  # the last chunk was usage alone, which is sent when all is said
        self._verdict = False
        self._groq_error: ErrorInfo | None = None
        self._last: tuple[int, bool] | None = None  # choice of the last delta, and whether it was reasoning

    def _feed(self, frames: Iterable[ServerSentEvent], events: list[Event]) -> None:
        for frame in frames:
            if self._verdict or self.broken:
                return
            data = frame.data
            if data[:6] == b"[DONE]":
                self._saw_done = True
                events += self.close()
                continue
            try:
                chunk = _chunk(data)
            except UNREADABLE:
                if not data.strip():
                    continue
                chunk = _chunk(dumps(_normalise(loads(data))))
            suspect = frame.type == "error" or chunk.error is not None or chunk.choices is None
            if suspect and self._failed(frame, chunk, events):
                continue
            if chunk.id is not None and chunk.id != self._named:
                self._named = chunk.id
                events.append(Started(chunk.id or None, chunk.model))
            for choice in chunk.choices or ():
                self._choice(choice, events)
            if chunk.usage is not None or chunk.x_groq is not None:
                self._extras(chunk, events)

    def piece(self, data: bytes) -> str | None:
        try:
            chunk = _chunk(data)
        except UNREADABLE:
            return None
        choices = chunk.choices
        if not choices or len(choices) != 1 or chunk.error is not None or chunk.usage is not None:
            return None
        choice = choices[0]
        delta, index = choice.delta, choice.index or 0
        if delta is None or choice.finish_reason or choice.error is not None or chunk.x_groq is not None:
            return None
        if delta.tool_calls or delta.function_call or delta.refusal or chunk.id not in (None, self._named):
            return None
        text, thought = delta.content, delta.reasoning_content or delta.reasoning or delta.reasoning_text
        if (text and thought) or self._last != (index, not text):
            return None
        return text or thought

    def close(self) -> list[Event]:
        """The body ended or said `[DONE]`: the verdict, if there is one.

        Raises:
            NotJSON: there is none, because an event's data was not JSON.
        """
        if self._verdict:
            return []
        if self.over or ((self._saw_done or self._counted) and self._items > 0):
            self._verdict = self.over = True
            events: list[Event] = []
            for state in self._choices.values():
                self._finish_calls(state, events)
            events.append(self._finished())
            return events
        if self._saw_done:
            self._verdict = self.over = True
            return [Finished("completed", confirmed=False)]
        if self.broken:
            raise self.broken
        return []

    def _finished(self) -> Finished:
        reasons = [state.finish for state in self._choices.values() if state.finish]
        worst = max(reasons, key=lambda said: _ORDER[_finish(said)[0]], default=None)
        if worst is None:
            calls = any(state.calls for state in self._choices.values())
            return Finished("completed", reason="tool_calls" if calls else None, confirmed=False)
        status, reason = _finish(worst)
        if status == "failed":
            return Finished("failed", reason=reason, error=self._groq_error or ErrorInfo(code=worst))
        return Finished("incomplete" if status == "incomplete" else "completed", reason=reason)

    def _failed(self, frame: ServerSentEvent, chunk: _Chunk, events: list[Event]) -> bool:
        body = loads(frame.data)
        error = read_error(body)
        if error is None and frame.type == "error":
            error = read_error({"error": body}) or ErrorInfo(message=frame.text[:2000])
        if error is None:
            return False
        reason = next((c.finish_reason for c in chunk.choices or () if c.finish_reason), None)
        if reason not in (None, "error", "error_finish"):
            error = msgspec.structs.replace(error, type=error.type or reason)
        self._verdict = self.over = True
        events.append(Finished("failed", reason="error", error=error))
        return True

    def _extras(self, chunk: _Chunk, events: list[Event]) -> None:
        usage = chunk.usage
        if chunk.x_groq is not None:
            groq = mapping(chunk.x_groq)
            usage = usage or groq.get("usage")
            if said := string(groq.get("error")):
                self._groq_error = ErrorInfo(message=said)
        if found := read_usage(usage, "prompt", "completion"):
            events.append(UsageReport(found))
            self._counted = not chunk.choices
        if self._groq_error and not self._verdict:
            self._verdict = self.over = True
            events.append(Finished("failed", reason="error", error=self._groq_error))

    def _choice(self, choice: _Choice, events: list[Event]) -> None:
        self._counted = False
        index = choice.index or 0
        state = self._choices.get(index) or self._begin(index)
        delta = choice.delta
        if delta is not None:
            if delta.content:
                if state.message is None:
                    state.message = self._open(state, "message", events)
                events.append(TextDelta(delta.content, state.message))
                self._last = (index, False)
            thought = delta.reasoning_content or delta.reasoning or delta.reasoning_text
            if thought:
                if state.reasoning is None:
                    state.reasoning = self._open(state, "reasoning", events)
                events.append(ReasoningDelta(thought, state.reasoning))
                self._last = (index, True)
            if delta.refusal:
                if state.message is None:
                    state.message = self._open(state, "message", events)
                events.append(RefusalDelta(delta.refusal, state.message, 1))
            if delta.tool_calls or delta.function_call:
                self._calls(state, delta, events)
        if choice.error is not None and (error := read_error({"error": choice.error})):
            self._verdict = self.over = True
            events.append(Finished("failed", reason="error", error=error))
        elif choice.finish_reason and state.finish is None:
            self._finish_choice(state, choice.finish_reason, events)

    def _begin(self, index: int) -> _ChoiceState:
        if not 0 <= index < _CHOICES:
            raise NotJSON(f"a choice has the number {index}")
        state = self._choices[index] = _ChoiceState(index)
        return state

    def _open(self, state: _ChoiceState, kind: str, events: list[Event], **fields: str) -> int:
        key = self._items
        self._items += 1
        item: dict[str, Any] = {"type": kind, **fields}
        if kind == "message":
            item["role"] = "assistant"
        events.append(ItemStarted(key, item, state.index))
        return key

    def _calls(self, state: _ChoiceState, delta: _Delta, events: list[Event]) -> None:
        pieces = delta.tool_calls or []
        if delta.function_call:  # the deprecated single call has neither id nor index
            pieces = [*pieces, _Call(index=0, id="call_0", function=delta.function_call)]
        for piece in pieces:
            function = piece.function or _Function()
            call = self._call_of(state, piece)
            if call is None:
                slot = piece.index if piece.index is not None else len(state.calls)
                item = self._open(
                    state, "function_call", events, call_id=piece.id or "", name=function.name or ""
                )
                call = _Fragments(item, slot)
                self._finish_earlier(state, events)
                state.calls.append(call)
            call.id = call.id or piece.id or ""
            call.name = call.name or function.name or ""
            if function.arguments:
                call.arguments.append(function.arguments)
                events.append(ArgumentsDelta(function.arguments, call.item))

    def _call_of(self, state: _ChoiceState, piece: _Call) -> _Fragments | None:
        """The call this fragment continues, or None if it begins a new one."""
        new_id = piece.id and all(call.id != piece.id for call in state.calls)
        if piece.index is not None:
            same = [call for call in state.calls if call.slot == piece.index]
            if same and not (new_id and same[-1].id and piece.function and piece.function.name):
                return same[-1]
            return None
        if piece.id:
            return next((call for call in state.calls if call.id == piece.id), None)
        if piece.function and piece.function.name:
            return None
        return state.calls[-1] if state.calls else None

    def _finish_earlier(self, state: _ChoiceState, events: list[Event]) -> None:
        for call in state.calls:
            if not call.done and is_json_object("".join(call.arguments)):
                self._finish_call(state, call, events)

    def _finish_choice(self, state: _ChoiceState, reason: str, events: list[Event]) -> None:
        state.finish = reason
        status, _ = _finish(reason)
        if status == "failed":
            if reason != "error_finish" or not self._verdict:
                self._verdict = self.over = True
                error = ErrorInfo(code=reason, message=f"the provider ended the stream with {reason!r}")
                events.append(Finished("failed", reason="error", error=error))
            return
        self._finish_calls(state, events)
        finished = sum(1 for each in self._choices.values() if each.finish)
        self.over = finished >= max(self._wanted, len(self._choices))

    def _finish_calls(self, state: _ChoiceState, events: list[Event]) -> None:
        """Confirm the calls of a choice that has ended. Cut by its length limit, only whole ones count."""
        cut = state.finish is None or _finish(state.finish)[0] != "completed"
        for call in state.calls:
            if not call.done and (not cut or is_json_object("".join(call.arguments))):
                self._finish_call(state, call, events)

    def _finish_call(self, state: _ChoiceState, call: _Fragments, events: list[Event]) -> None:
        call.done = True
        item = {
            "type": "function_call",
            "call_id": call.id or f"call_{call.item}",
            "name": call.name,
            "arguments": "".join(call.arguments),
        }
        events.append(ItemDone(call.item, item, state.index))


_ORDER = {"completed": 0, "incomplete": 1, "failed": 2}


def _finish(reason: str) -> tuple[str, str]:
    return _FINISH.get(reason.lower(), ("completed", reason))


def _normalise(value: object) -> dict[str, Any]:
    """A chunk whose fields have unexpected kinds, reduced to what the typed reader takes."""
    body = mapping(value)
    if not body:
        raise NotJSON("a chunk is a JSON object")
    plain = {name: body[name] for name in ("usage", "error", "x_groq", "code") if body.get(name) is not None}
    for name in ("id", "model", "object", "type"):
        plain[name] = string(body.get(name)) or None
    if isinstance(body.get("choices"), list):
        plain["choices"] = [_normal_choice(mapping(choice)) for choice in body["choices"]]
    return plain


def _normal_choice(choice: dict[str, Any]) -> dict[str, Any]:
    delta = mapping(choice.get("delta")) or mapping(choice.get("message"))
    content = delta.get("content")
    thought = next(
        (d for d in map(delta.get, ("reasoning_content", "reasoning", "reasoning_text", "thinking")) if d), ""
    )
    text = content if isinstance(content, str) else ""
    for part in map(mapping, sequence(content)):
        if part.get("type") == "thinking":
            inner = part.get("thinking")
            thought = string(thought) + (
                inner
                if isinstance(inner, str)
                else "".join(string(mapping(p).get("text")) for p in sequence(inner))
            )
        else:
            text += string(part.get("text"))
    return {
        "index": integer(choice.get("index")),
        "finish_reason": string(choice.get("finish_reason")) or None,
        "error": choice.get("error"),
        "delta": {
            "content": text,
            "reasoning_content": string(thought),
            "refusal": string(delta.get("refusal")) or None,
            "tool_calls": [_normal_call(mapping(call)) for call in sequence(delta.get("tool_calls"))],
        },
    }


def _normal_call(call: dict[str, Any]) -> dict[str, Any]:
    function = mapping(call.get("function"))
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        arguments = dumps(arguments).decode()
    return {
        "index": integer(call.get("index")),
        "id": string(call.get("id")) or None,
        "function": {"name": string(function.get("name")) or None, "arguments": arguments},
    }


def read_body(data: bytes) -> list[Event]:
    """Events of a whole (not streamed) completion: for servers that ignore `stream`.

    Raises:
        NotJSON: the body is not a JSON object of this wire.
    """
    body = mapping(loads(data))
    if not isinstance(body.get("choices"), list):
        if error := read_error(body):
            return [Finished("failed", error=error)]
        raise NotJSON("the body is JSON, but not a chat completion")
    decoder = Decoder(len(body["choices"]))
    frames = [ServerSentEvent("message", dumps(_normalise(body)), b"")]
    return [*decoder.feed(frames), *decoder.feed([ServerSentEvent("message", b"[DONE]", b"")])]


def encode(request: Request, model: str) -> dict[str, Any]:
    """The JSON body of a streamed request."""
    body: dict[str, Any] = {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    messages = to_messages(request.messages)
    if said := system_text(request):
        messages = [{"role": "system", "content": said}, *messages]
    body["messages"] = messages
    if request.tools:
        body["tools"] = [_tool(any_tool(tool)) for tool in request.tools]
    for name, value in request.params.items():
        if name == "max_output_tokens":
            body["max_tokens"] = value
        elif name == "reasoning":
            body["reasoning_effort"] = mapping(value).get("effort", value)
        elif name == "text":
            body |= _text(mapping(value))
        elif name == "tool_choice":
            body["tool_choice"] = _tool_choice(any_choice(value))
        elif name == "stop_sequences":
            body["stop"] = value
        elif name not in ("store", "include", "background", "truncation", "system"):
            body[name] = value
    return body


def _text(text: dict[str, Any]) -> dict[str, Any]:
    """Responses' text settings in chat's fields."""
    fields = {name: value for name, value in text.items() if name == "verbosity"}
    layout = mapping(text.get("format"))
    if layout.get("type") == "json_schema" and "json_schema" not in layout:
        schema = {name: value for name, value in layout.items() if name != "type"}
        layout = {"type": "json_schema", "json_schema": schema}
    return {**fields, "response_format": layout} if layout else fields


def _tool_choice(choice: object) -> object:
    name = mapping(choice).get("name")
    if mapping(choice).get("type") == "function" and isinstance(name, str):
        return {"type": "function", "function": {"name": name}}
    return choice


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") == "function" and "function" not in tool:
        return {"type": "function", "function": {name: tool[name] for name in tool if name != "type"}}
    return tool
