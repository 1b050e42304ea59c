"""The OpenAI Responses wire: stream and body to events, a request to its JSON body.

Strategy: text-like deltas are nearly all of a stream, so those are read with one small Struct (`_Peek`) and
nothing else of the event is looked at. Every other event is rare: it is read as plain JSON and goes through
a table, type -> method. Servers disagree on ids, so `_Items` maps each event to an item number by call id,
then item id, then output index, then "the newest that fits".

Tolerated: no `response.created`, foreign events before it, unknown types, null or absent terminal `output`
(which is never read while streaming), keepalives, any error shape. Strict: only `response.completed` and
`response.incomplete` end an answer. Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec
from msgspec import Struct

from ._json import UNREADABLE, NotJSON, integer, loads, mapping, sequence, string
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
    RefusalDelta,
    Started,
    TextDelta,
    TextDone,
    UsageReport,
)
from .prompt import Request, any_choice, any_tool, plain_text, system_text, to_items
from .sse import ServerSentEvent
from .usage import read_usage

__all__ = ["Decoder", "encode", "read_body"]

PATH = "/responses"
# field here -> chat's names for it
RENAMED = {
    "text": ("response_format",),
    "max_output_tokens": ("max_tokens", "max_completion_tokens"),
    "reasoning": ("reasoning_effort",),
}


class _Peek(Struct, gc=False):
    type: str = ""
    delta: str | None = None
    output_index: int | None = None
    item_id: str | None = None
    content_index: int = 0
    sequence_number: int | None = None


_peek = msgspec.json.Decoder(_Peek).decode

# type of the delta -> (event, type of item it belongs to)
_DELTAS: dict[str, tuple[Callable[[str, int, int], Event], str]] = {
    "response.output_text.delta": (TextDelta, "message"),
    "response.text.delta": (TextDelta, "message"),
    "response.refusal.delta": (RefusalDelta, "message"),
    "response.reasoning_text.delta": (ReasoningDelta, "reasoning"),
    "response.reasoning.delta": (ReasoningDelta, "reasoning"),
    "response.reasoning_summary_text.delta": (ReasoningDelta, "reasoning"),
    "response.function_call_arguments.delta": (lambda d, i, _: ArgumentsDelta(d, i), "function_call"),
    "response.custom_tool_call_input.delta": (lambda d, i, _: ArgumentsDelta(d, i), "custom_tool_call"),
    "response.mcp_call_arguments.delta": (lambda d, i, _: ArgumentsDelta(d, i), "mcp_call"),
}

# type of the done event -> (field, kind, type of item)
_DONES: dict[str, tuple[str, Any, str]] = {
    "response.output_text.done": ("text", "text", "message"),
    "response.refusal.done": ("refusal", "refusal", "message"),
    "response.function_call_arguments.done": ("arguments", "arguments", "function_call"),
    "response.custom_tool_call_input.done": ("input", "arguments", "custom_tool_call"),
}

# Output that is not text: proves progress, is taken whole from `output_item.done`.
_PROGRESS = frozenset(
    {
        "response.output_text.annotation.added",
        "response.code_interpreter_call_code.delta",
        "response.image_generation_call.partial_image",
        "response.shell_call_command.added",
        "response.shell_call_command.delta",
        "response.shell_call_output_content.delta",
        "response.audio.delta",
        "response.audio.transcript.delta",
    }
)

CALL_TYPES = frozenset({"function_call", "custom_tool_call"})
_CONTENT = CALL_TYPES | {"message"}


def _is_torn(item: dict[str, Any]) -> bool:
    """Whether this is a call that a limit cut in two: its arguments are no arguments."""
    return string(item.get("type")) in CALL_TYPES and item.get("status") == "incomplete"


def _odd_number(data: bytes) -> tuple[str, int | None]:
    """Type and number of an event whose fields have unexpected kinds: the number may be a string."""
    try:
        body = mapping(loads(data))
    except NotJSON:
        return "", None
    number = body.get("sequence_number")
    if isinstance(number, str) and number.isdecimal() and len(number) < 16:
        number = int(number)
    return string(body.get("type")), integer(number)


class _Items:
    """Which item an event belongs to, however the server names it this time."""

    def __init__(self) -> None:
        self.types: list[str] = []
        self._by_call: dict[str, int] = {}
        self._by_id: dict[str, int] = {}
        self._by_index: dict[int, int] = {}
        self._done: set[int] = set()

    def open(self, kind: str, item_id: str, call_id: str, output_index: int | None) -> int:
        key = len(self.types)
        self.types.append(kind)
        self.name(key, item_id, call_id, output_index)
        return key

    def name(self, key: int, item_id: str, call_id: str, output_index: int | None) -> None:
        if call_id:
            self._by_call[call_id] = key
        if item_id:
            self._by_id[item_id] = key
        if output_index is not None:
            self._by_index[output_index] = key

    def of_delta(self, kind: str, item_id: str, output_index: int | None) -> int | None:
        key = self._by_id.get(item_id) if item_id else None
        if key is None and output_index is not None:
            key = self._by_index.get(output_index)
        if key is None and output_index is None:
            key = self._newest(kind)
        return key if key is not None and self.types[key] == kind else None

    def of_done(self, kind: str, item_id: str, call_id: str, output_index: int | None) -> int | None:
        found = [
            self._by_call.get(call_id) if call_id else None,
            self._by_id.get(item_id) if item_id else None,
            self._by_index.get(output_index) if output_index is not None else None,
        ]
        for key in found:
            if key is not None and self.types[key] == kind and key not in self._done:
                return key
        return None if call_id or output_index is not None else self._newest(kind)

    def _newest(self, kind: str) -> int | None:
        newest = range(len(self.types) - 1, -1, -1)
        return next((k for k in newest if self.types[k] == kind and k not in self._done), None)

    def close(self, key: int) -> None:
        self._done.add(key)

    def is_known(self, call_id: str) -> bool:
        return call_id in self._by_call

    def of_polled(self, kind: str, item_id: str, call_id: str, place: int) -> int | None:
        """The item at that place of a whole response: by its names, or, where they change, by the place."""
        key = self._by_call.get(call_id, self._by_id.get(item_id))
        if key is None:
            key = self._by_index.get(place) if self._by_index else place
        return key if key is not None and key < len(self.types) and self.types[key] == kind else None

    def is_done(self, key: int) -> bool:
        return key in self._done

    def has_open(self, kinds: Collection[str]) -> bool:
        """Whether an item of these types was begun and not finished."""
        return any(kind in kinds and key not in self._done for key, kind in enumerate(self.types))


class Decoder(StreamDecoder):
    """Events of one streamed response.

    `over` is True once the answer is complete or failed by the rules. `broken` is set by the first event that
    is not JSON, or does not follow on what a resumed stream had. Nothing after either counts.
    """

    def __init__(self, choices: int = 1) -> None:
        del choices  # the wire has one answer per response
        super().__init__()
        self._number = -1  # of the last event
        self._counts = True
        self._after: int | None = None  # after a resume: the cursor, until the first event beyond it
        self._items = _Items()
        self._last: tuple[str, str | None, int | None] | None = None
        self._last_key = 0
        self._last_part = 0

    def _feed(self, frames: Iterable[ServerSentEvent], events: list[Event]) -> None:
        for frame in frames:
            if self.over or self.broken:
                return
            try:
                peek = _peek(frame.data)
            except UNREADABLE:
                if self._is_next(*_odd_number(frame.data)):
                    self._read(frame, events)
                continue
            number = peek.sequence_number
            if number is not None and self._after is None and number > self._number:
                self._number = number
            elif not self._is_next(peek.type, number):
                continue
            shape = _DELTAS.get(peek.type)
            if shape is None or peek.delta is None:
                self._read(frame, events)
                continue
            here = (peek.type, peek.item_id, peek.output_index)
            if here != self._last:
                self._last_key = self._find(shape[1], peek.item_id or "", peek.output_index, events)
                self._last = here
            self._last_part = peek.content_index
            events.append(shape[0](peek.delta, self._last_key, peek.content_index))

    def piece(self, data: bytes) -> str | None:
        try:
            peek = _peek(data)
        except UNREADABLE:
            return None
        number, last = peek.sequence_number, self._last
        if last is None or last[0] != peek.type or last[1] != peek.item_id or last[2] != peek.output_index:
            return None
        if peek.content_index != self._last_part or self._after is not None or not peek.delta:
            return None
        if number is not None:
            if number <= self._number:
                return None
            self._number = number
        return peek.delta

    def resume(self) -> None:
        """The same response goes on in another stream, from the cursor: what is sent again is left out."""
        self.over = False
        self.broken = None
        self._last = None
        self._after = self.cursor

    @property
    def cursor(self) -> int | None:
        """Number of the last event; None if the server does not count them, one by one and upwards."""
        return self._number if self._number >= 0 and self._counts else None

    def _is_next(self, kind: str, number: int | None) -> bool:
        """Whether an event is to be read, by its number; the cursor moves to it.

        Raises:
            NotJSON: in a resumed stream, it does not follow on what there was.
        """
        after = self._after
        if number is None:
            if after is not None and kind.startswith("response."):
                raise NotJSON("the resumed stream does not number its events")
            return True
        if after is None:
            self._counts = self._counts and number > self._number
        elif number > after + 1:
            raise NotJSON(f"the resumed stream leaves out events {after + 1} to {number - 1}")
        elif number <= after:
            return False
        self._after = None
        self._number = number
        return True

    def read_poll(self, data: bytes) -> list[Event] | None:
        """Events of the response object as it stands on the server, after what was streamed of it; None while
        it is still at work.

        Raises:
            NotJSON: the body is not a response object, or not the whole of what was streamed.
        """
        body = mapping(loads(data))
        status = string(body.get("status"))
        if status in ("queued", "in_progress"):
            return None
        if body.get("object") != "response" or status not in _ENDS:
            raise NotJSON("the body is JSON, but not a response object")
        events: list[Event] = []
        for number, item in enumerate(map(mapping, sequence(body.get("output")))):
            if item:
                self._polled(item, number, events)
        if status == "completed" and self._items.has_open(_CONTENT):
            self.broken = NotJSON("the response is completed, and what was streamed of it is not")
            raise self.broken
        self._terminal({"type": f"response.{status}", "response": body}, events)
        return events

    def _polled(self, item: dict[str, Any], number: int, events: list[Event]) -> None:
        kind, item_id, call_id = (string(item.get(name)) for name in ("type", "id", "call_id"))
        key = self._items.of_polled(kind, item_id, call_id, number)
        if key is None:
            key = self._items.open(kind, item_id, call_id, number)
            events.append(ItemStarted(key, item))
        if not self._items.is_done(key) and not _is_torn(item):
            self._items.close(key)
            events.append(ItemDone(key, item))

    def close(self) -> list[Event]:
        """The body ended. This wire says its end inside the stream, so there is nothing to add.

        Raises:
            NotJSON: it did not, because an event's data was not JSON.
        """
        if self.broken and not self.over:
            raise self.broken
        return []

    def _find(self, kind: str, item_id: str, output_index: int | None, events: list[Event]) -> int:
        key = self._items.of_delta(kind, item_id, output_index)
        if key is None:
            key = self._items.open(kind, item_id, "", output_index)
            events.append(ItemStarted(key, {"type": kind, **({"id": item_id} if item_id else {})}))
        return key

    def _read(self, frame: ServerSentEvent, events: list[Event]) -> None:
        if frame.data.strip() in (b"", b"[DONE]"):
            return
        try:
            body = mapping(loads(frame.data))
        except NotJSON:
            if frame.type == "message" or frame.type.startswith("response."):
                raise
            body = {"message": frame.text[:2000]} if frame.type == "error" else {}
        kind = string(body.get("type")) or (frame.type if frame.type != "message" else "")
        self._last = None
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, body, events)
        elif kind in _DONES:
            self._text_done(kind, body, events)
        elif kind in _DELTAS:
            self._odd_delta(kind, body, events)
        elif frame.type == "error" or (not kind.startswith(("response.", "codex.")) and read_error(body)):
            self._error(body, events)
        else:
            events.append(Other(kind, progress=kind in _PROGRESS))

    def _started(self, body: dict[str, Any], events: list[Event]) -> None:
        response = mapping(body.get("response"))
        events.append(Started(string(response.get("id")) or None, string(response.get("model")) or None))

    def _item_added(self, body: dict[str, Any], events: list[Event]) -> None:
        item = mapping(body.get("item"))
        if not item:
            return
        key = self._items.open(
            string(item.get("type")),
            string(item.get("id")),
            string(item.get("call_id")),
            integer(body.get("output_index")),
        )
        events.append(ItemStarted(key, item))

    def _item_done(self, body: dict[str, Any], events: list[Event]) -> None:
        item = mapping(body.get("item"))
        if not item:
            return
        names = (string(item.get("id")), string(item.get("call_id")), integer(body.get("output_index")))
        kind = string(item.get("type"))
        key = self._items.of_done(kind, *names)
        if key is None:
            if kind in CALL_TYPES and self._items.is_known(names[1]):
                return  # the same call once more
            key = self._items.open(kind, *names)
            events.append(ItemStarted(key, item))
        self._items.name(key, *names)
        if not _is_torn(item):
            self._items.close(key)
            events.append(ItemDone(key, item))

    def _odd_delta(self, kind: str, body: dict[str, Any], events: list[Event]) -> None:
        """A delta whose other fields have unexpected kinds: its text counts all the same."""
        if delta := string(body.get("delta")):
            event, item_type = _DELTAS[kind]
            key = self._find(
                item_type, string(body.get("item_id")), integer(body.get("output_index")), events
            )
            events.append(event(delta, key, integer(body.get("content_index")) or 0))

    def _text_done(self, kind: str, body: dict[str, Any], events: list[Event]) -> None:
        name, sort, item_type = _DONES[kind]
        text = body.get(name)
        if not isinstance(text, str):
            return
        key = self._find(item_type, string(body.get("item_id")), integer(body.get("output_index")), events)
        events.append(TextDone(text, sort, key, integer(body.get("content_index")) or 0))

    def _terminal(self, body: dict[str, Any], events: list[Event]) -> None:
        response = mapping(body.get("response"))
        self._started(body, events)
        if usage := read_usage(response.get("usage"), "input", "output"):
            events.append(UsageReport(usage))
        events.append(finish(string(body.get("type")).removeprefix("response."), response))
        self.over = True

    def _error(self, body: dict[str, Any], events: list[Event]) -> None:
        error = read_error(body) or ErrorInfo(
            message=string(body.get("message")) or "an error without a message"
        )
        events.append(Finished("failed", error=error))
        self.over = True


_HANDLERS: dict[str, Callable[[Decoder, dict[str, Any], list[Event]], None]] = {
    "response.created": Decoder._started,
    "response.in_progress": Decoder._started,
    "response.queued": Decoder._started,
    "response.output_item.added": Decoder._item_added,
    "response.output_item.done": Decoder._item_done,
    "response.completed": Decoder._terminal,
    "response.done": Decoder._terminal,
    "response.incomplete": Decoder._terminal,
    "response.failed": Decoder._terminal,
    "response.cancelled": Decoder._terminal,
    "response.error": Decoder._error,
    "error": Decoder._error,
}

_ENDS = ("completed", "incomplete", "failed", "cancelled")
_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}


def finish(status: str, response: dict[str, Any]) -> Finished:
    """The verdict of a terminal event or of a whole response object."""
    if status in ("failed", "cancelled"):
        error = read_error({"error": response.get("error")})
        return Finished("failed", error=error or ErrorInfo(code=status, message=f"the response was {status}"))
    if status == "incomplete":
        said = string(mapping(response.get("incomplete_details")).get("reason"))
        return Finished("incomplete", reason=_REASONS.get(said, said) or None)
    return Finished("completed")


def read_body(data: bytes) -> list[Event]:
    """Events of a whole (not streamed) response object: for servers that ignore `stream`.

    Raises:
        NotJSON: the body is not a JSON object of this wire.
    """
    body = mapping(loads(data))
    if body.get("object") != "response" and not isinstance(body.get("output"), list):
        if error := read_error(body):
            return [Finished("failed", error=error)]
        raise NotJSON("the body is JSON, but not a response object")
    events: list[Event] = [Started(string(body.get("id")) or None, string(body.get("model")) or None)]
    for key, item in enumerate(filter(None, map(mapping, sequence(body.get("output"))))):
        events += [ItemStarted(key, item), ItemDone(key, item)]
    if usage := read_usage(body.get("usage"), "input", "output"):
        events.append(UsageReport(usage))
    status = string(body.get("status")) or "completed"
    if status not in ("completed", "incomplete", "failed", "cancelled"):
        raise NotJSON(f"the response is {status!r}, which is no end")
    events.append(finish(status, body))
    return events


def encode(request: Request, model: str) -> dict[str, Any]:
    """The JSON body of a streamed request."""
    background = request.params.get("background") is True  # and kept, or nobody could come back for it
    body: dict[str, Any] = {"model": model, "stream": True, "store": background}
    said, messages = _instructions(request)
    if said:
        body["instructions"] = said
    body["input"] = to_items(messages)
    if request.tools:
        body["tools"] = [_tool(any_tool(tool)) for tool in request.tools]
    for name, value in request.params.items():
        if name in ("response_format", "text"):
            text = mapping(value) if name == "text" else {"format": _format(value)}
            body["text"] = {**mapping(body.get("text")), **text}
        elif name == "tool_choice":
            body["tool_choice"] = _tool_choice(any_choice(value))
        elif name in ("max_tokens", "max_completion_tokens"):
            body["max_output_tokens"] = value
        elif name == "reasoning_effort":
            body["reasoning"] = {**mapping(body.get("reasoning")), "effort": value}
        elif name not in ("n", "stop", "stop_sequences", "seed", "system", "instructions"):
            body[name] = value
    return body


def _instructions(request: Request) -> tuple[str, tuple[dict[str, Any], ...]]:
    """The field of that name, and the other messages.

    A route whose own fields have `instructions` needs some, and takes what the system says there and nowhere
    else ("System messages are not allowed"); its own words stand in where nobody else says any.
    """
    said, own = system_text(request), string(request.params.get("instructions"))
    if not own:
        return said, request.messages
    system = [entry for entry in request.messages if entry.get("role") in ("system", "developer")]
    others = tuple(entry for entry in request.messages if entry not in system)
    words = "\n\n".join(filter(None, (said, *(plain_text(entry.get("content")) for entry in system))))
    return words or own, others or ({"role": "user", "content": ""},)


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") == "function" and isinstance(tool.get("function"), dict):
        return {"type": "function", **tool["function"]}
    return tool


def _tool_choice(choice: object) -> object:
    inner = mapping(mapping(choice).get("function"))
    return {"type": "function", "name": inner["name"]} if "name" in inner else choice


def _format(value: object) -> object:
    inner = mapping(mapping(value).get("json_schema"))
    return {"type": "json_schema", **inner} if inner else value
