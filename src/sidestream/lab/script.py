"""What the server says: a `Script` is a status and the exact bytes of each event.

Scripts come from text (`responses_text`, `chat_text`, `messages_text`), from items (`responses`, `chat`,
`chat_call`, `messages`), from a recording (`from_sse`), or are plain HTTP answers (`error`, `json`). They
are immutable and always the same bytes; the small editing methods return new ones. What goes wrong on the
way out is not here but in `plan`.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from ..errors import UsageError
from . import items, sse
from .blocks import messages_events
from .items import Item, call, message, reasoning, refusal
from .whole import folded

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .record import Request

__all__ = [
    "Framing",
    "Item",
    "Script",
    "as_asked",
    "call",
    "chat",
    "chat_call",
    "chat_text",
    "error",
    "from_sse",
    "json",
    "message",
    "messages",
    "messages_problem",
    "messages_text",
    "problem",
    "reasoning",
    "refusal",
    "responses",
    "responses_text",
    "say",
    "words",
]

Framing = Literal["chunked", "length", "close"]
Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Script:
    """One HTTP answer.

    Attributes:
        events: the body in the pieces that positions count; of a stream, each event with its blank line.
        status: HTTP status.
        content_type: value of Content-Type.
        headers: further response headers, sent as they are.
        pace: seconds between two events.
        framing: "chunked" (one event per chunk), "length" (Content-Length) or "close" (ends with it).
        burst: the whole answer in one write.
    """

    events: tuple[bytes, ...]
    status: int = 200
    content_type: str = "text/event-stream"
    headers: Headers = ()
    pace: float = 0.0
    framing: Framing = "chunked"
    burst: bool = False

    def __post_init__(self) -> None:
        if self.framing not in get_args(Framing):
            raise UsageError(
                f"no framing named {self.framing!r}", hint=f"one of {', '.join(get_args(Framing))}"
            )
        if self.pace < 0:
            raise UsageError("pace is in seconds and cannot be negative")

    @property
    def body(self) -> bytes:
        """All events joined."""
        return b"".join(self.events)

    def sent(self, **changes: Any) -> Script:
        """The same answer sent differently: `pace=`, `framing=`, `burst=`, `headers=`, `status=` …"""
        return dataclasses.replace(self, **changes)

    def take(self, count: int) -> Script:
        """Only the first `count` events."""
        return dataclasses.replace(self, events=self.events[:count])

    def without(self, needle: bytes) -> Script:
        """Without the events that contain `needle`."""
        return dataclasses.replace(self, events=tuple(e for e in self.events if needle not in e))

    def insert(self, index: int, *events: bytes) -> Script:
        """With `events` before event number `index`; negative counts from the end."""
        return dataclasses.replace(self, events=(*self.events[:index], *events, *self.events[index:]))

    def replaced(self, old: bytes, new: bytes) -> Script:
        """With `old` replaced by `new` in every event."""
        return dataclasses.replace(self, events=tuple(e.replace(old, new) for e in self.events))

    def since(self, cursor: int, *, overlap: int = 0) -> Script:
        """What a resume from `starting_after=cursor` gets: the events with a higher sequence number.

        `overlap` events before that are sent again; a negative one leaves a gap.
        """
        later = [number > cursor for number in map(_sequence_number, self.events)]
        first = later.index(True) if True in later else len(later)
        return dataclasses.replace(self, events=self.events[max(0, first - overlap) :])


def _sequence_number(event: bytes) -> int:
    payload = sse.decode(event)
    return int(payload.get("sequence_number", -1)) if isinstance(payload, dict) else -1


def responses(
    *parts: Item,
    model: str = "lab-1",
    usage: bool = True,
    response_id: str = "resp_lab",
    ending: items.Ending = "completed",
    details: dict[str, Any] | None = None,
    background: bool = False,
    spent: tuple[int, int] | None = None,
    **sent: Any,
) -> Script:
    """A Responses stream of these output items.

    Args:
        parts: `message(...)`, `reasoning(...)`, `call(...)`, `refusal(...)`.
        model: the model's name in the answer.
        usage: whether the terminal event reports tokens.
        response_id: id of the response.
        ending: the terminal event, or "none" to leave it out.
        details: laid over the final response object, such as `{"error": {...}}` or `{"output": None}`.
        background: the response is queued first, and its objects say `"background": true`.
        spent: tokens of prompt and output that usage reports; by default 10 and one per delta.
        sent: how to send it, see `Script`.
    """
    events = items.responses_events(
        parts,
        model=model,
        response_id=response_id,
        usage=usage,
        ending=ending,
        details=details,
        background=background,
        spent=spent,
    )
    return Script(tuple(sse.encode(event, event["type"]) for event in events), **sent)


def responses_text(
    text: str,
    *,
    tokens: int | None = None,
    model: str = "lab-1",
    usage: bool = True,
    response_id: str = "resp_lab",
    **sent: Any,
) -> Script:
    """A Responses stream that answers `text` in `tokens` deltas (default: one per word)."""
    return responses(message(text, tokens=tokens), model=model, usage=usage, response_id=response_id, **sent)


def chat(
    *deltas: dict[str, Any],
    model: str = "lab-1",
    usage: bool = True,
    completion_id: str = "chatcmpl-lab",
    finish: str | None = "stop",
    done: bool = True,
    spent: tuple[int, int] | None = None,
    **sent: Any,
) -> Script:
    """A Chat Completions stream of these deltas.

    Args:
        deltas: what goes into `choices[0].delta` of each chunk after the role chunk.
        model: the model's name in the answer.
        usage: whether a usage chunk follows.
        completion_id: id of every chunk.
        finish: the finish reason, or None to leave the finish chunk out.
        done: whether `[DONE]` is sent.
        spent: tokens of prompt and output that usage reports; by default 10 and one per delta.
        sent: how to send it, see `Script`.
    """
    chunks = items.chat_chunks(
        deltas, model=model, completion_id=completion_id, usage=usage, finish=finish, spent=spent
    )
    events = [sse.encode(chunk) for chunk in chunks]
    return Script((*events, sse.DONE) if done else tuple(events), **sent)


def chat_text(text: str, *, tokens: int | None = None, **options: Any) -> Script:
    """A Chat stream that answers `text` in `tokens` chunks (default: one per word). Options: see `chat`."""
    return chat(*({"content": piece} for piece in items.pieces(text, tokens)), **options)


def chat_call(
    name: str, arguments: str, *, call_id: str = "call_lab_0", tokens: int | None = None, **options: Any
) -> Script:
    """A Chat stream with one function call, its arguments in `tokens` fragments. Options: see `chat`."""
    opening = {"index": 0, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
    fragments = items.pieces(arguments, tokens) if arguments else []
    rest = ({"index": 0, "function": {"arguments": piece}} for piece in fragments)
    deltas: Sequence[dict[str, Any]] = [{"tool_calls": [part]} for part in (opening, *rest)]
    return chat(*deltas, **{"finish": "tool_calls"} | options)


def messages(
    *parts: Item,
    model: str = "lab-1",
    usage: bool = True,
    message_id: str = "msg_lab",
    stop_reason: str | None = "",
    stop: bool = True,
    details: dict[str, Any] | None = None,
    spent: tuple[int, int] | None = None,
    headers: Headers = (("request-id", "req_lab"),),
    **sent: Any,
) -> Script:
    """A Messages stream of these output items, each of them a content block.

    Args:
        parts: `message(...)`, `reasoning(...)`, `call(...)`, `refusal(...)`; a refusal is no block, but the
            reason to stop and its explanation.
        model: the model's name in the answer.
        usage: whether tokens are reported: the prompt's first, the output's at the end.
        message_id: id of the message.
        stop_reason: why it stops, by default "refusal", "tool_use" or "end_turn", as the items say; None
            leaves `message_delta` out.
        stop: whether `message_stop` is sent.
        details: laid over the delta of `message_delta`, such as `{"stop_sequence": "END"}`.
        spent: tokens of prompt and output that usage reports; by default 10 and one per delta.
        headers: response headers, by default the request id that this provider sends.
        sent: how to send it, see `Script`.
    """
    events = messages_events(
        parts,
        model=model,
        message_id=message_id,
        usage=usage,
        stop_reason=stop_reason,
        details=details,
        spent=spent,
    )
    events += [{"type": "message_stop"}] if stop else []
    return Script(tuple(sse.encode(event, event["type"]) for event in events), headers=headers, **sent)


def messages_text(text: str, *, tokens: int | None = None, **options: Any) -> Script:
    """A Messages stream that answers `text` in `tokens` deltas (default: one per word). See `messages`."""
    return messages(message(text, tokens=tokens), **options)


def from_sse(source: str | Path | bytes, **sent: Any) -> Script:
    """A recorded stream, from a file or from bytes, split into its events; the bytes stay exact."""
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    return Script(sse.split_events(data), **sent)


def error(
    status: int,
    body: Any = "",
    *,
    headers: Iterable[tuple[str, str]] | dict[str, str] = (),
    content_type: str = "",
) -> Script:
    """An HTTP answer that is no stream: text or bytes are sent as they are, anything else as JSON.

    The content type follows the body (JSON, HTML or plain text) unless it is given.
    """
    pairs = tuple(headers.items() if isinstance(headers, dict) else headers)
    raw = body.encode() if isinstance(body, str) else body
    if not isinstance(raw, bytes):
        raw, guessed = msgspec.json.encode(raw), "application/json"
    else:
        guessed = "text/html" if raw.lstrip().startswith(b"<") else "text/plain"
    return Script((raw,) if raw else (), status, content_type or guessed, pairs, framing="length")


def json(body: Any, *, headers: Iterable[tuple[str, str]] | dict[str, str] = ()) -> Script:
    """200 with `body` as JSON."""
    return error(200, body, headers=headers, content_type="application/json")


def problem(status: int, message: str, *, code: str | int | None = None) -> Script:
    """An HTTP error as OpenAI words them: `{"error": {"message": …, "type": "invalid_request_error", …}}`."""
    body = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return error(status, {"error": body})


_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def messages_problem(
    status: int, message: str, *, kind: str = "", headers: Headers = (), request_id: str = "req_lab"
) -> Script:
    """An HTTP error as Anthropic words them. `kind` is its type, by default that of the status."""
    inner = {"type": kind or _KINDS.get(status, "api_error"), "message": message}
    body = {"type": "error", "error": inner, "request_id": request_id}
    return error(status, body, headers=(("request-id", request_id), *headers))


_TELLS: dict[str, Callable[..., Script]] = {"chat": chat_text, "messages": messages_text}


def say(text: str, *, tokens: int | None = None, **options: Any) -> Callable[[Request], Script]:
    """An answer function: says `text` on the wire it is asked on; as JSON where no stream is asked for."""

    def answer(request: Request) -> Script:
        make: Callable[..., Script] = _TELLS.get(request.wire, responses_text)
        return as_asked(make(text, tokens=tokens, **options), request)

    return answer


def as_asked(stream: Script, request: Request) -> Script:
    """The stream, or for a request without `"stream": true` the same answer as one JSON object.

    A request without fields gets the stream, and so does whoever asks for an answer that has no end.
    """
    fields = request.fields()
    if not fields or fields.get("stream") is True or not stream.content_type.startswith("text/event-stream"):
        return stream
    whole = folded(stream.events)
    return stream if whole is None else json(whole, headers=stream.headers)


_WORDS = (
    "stream",
    "ends",
    "where",
    "the",
    "wire",
    "says",
    "and",
    "café",
    "naïve",
    "数据",
    "token",
    "🙂",
    "keeps",
    "order",
    "after",
    "every",
)


def words(count: int, *, seed: int = 0) -> str:
    """Prose of `count` words, some outside ASCII, every eighth a number, so that long passages occur once."""
    rng = random.Random(f"words:{seed}")
    return " ".join(f"({i})" if i % 8 == 7 else rng.choice(_WORDS) for i in range(count))
