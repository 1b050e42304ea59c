"""What all wires share of relaying: when bytes pass, when they wait, and what the consumer has. Pure.

Strategy: the first stream passes through untouched, frame by frame (`raw`). Two things wait: the frames from
the beginning of a tool call until every open call is whole, because half a call is no call; and the frames of
the end, because an end is believed only after the flow has judged it. When a stream breaks, what waits is
dropped, and from then on the relay writes: an answer that goes on, or is begun again and says what has been
said, arrives as events, and each wire's subclass spells them as frames that follow on what was delivered.

A relay lives as long as a call; an exchange tells it that it begins (`begin`), shows it every frame that is
not a plain delta before its events are taken (`look`), and asks what to deliver (`take` in raw, `write`
after). `end` is the rest once the flow has its reply. Not here: whether an answer is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from msgspec import Struct

from ..assembler import Assembler
from ..reply import Reply, Usage
from ..wire._json import NotJSON, dumps, loads, mapping
from ..wire.errorinfo import read_error
from ..wire.events import (
    Event,
    Finished,
    ItemDone,
    ItemStarted,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCall,
)
from ..wire.prompt import Request
from ..wire.sse import ServerSentEvent

__all__ = ["Original", "Relay", "frame", "payload"]

CALLS = frozenset({"function_call", "custom_tool_call"})
_PLAIN = (TextDelta, ReasoningDelta)
Channels = dict[tuple[str, int], str]


class Original(Struct, frozen=True):
    """The request as the consumer wrote it: sent as it is, or with the turns of a continuation.

    Attributes:
        data: its bytes.
        body: the same as JSON.
        field: where its conversation stands, "input" or "messages".
    """

    data: bytes
    body: Mapping[str, Any]
    field: str

    def with_turns(self, request: Request, encoded: Mapping[str, Any]) -> bytes:
        """The same request with the conversation of `encoded`, and what changed of its parameters."""
        changed = {
            name: value for name, value in request.params.items() if self.body.get(name, encoded) != value
        }
        return dumps({**self.body, **changed, self.field: encoded[self.field]})


class Relay:
    """What the consumer of one call is given.

    Attributes:
        live: the consumer reads along; otherwise nothing passes before the end.
        raw: the stream under way passes as it is.
        started: something has been delivered.
        sums: the client is told the tokens of all exchanges; else those of the answer, as if it came in one.
        ignores: channels that a repeated answer need not repeat.
    """

    ignores: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, body: Mapping[str, Any], *, live: bool = True, sums: bool = True) -> None:
        self.body = body
        self.live = live
        self.sums = sums
        self.raw = live
        self.started = False
        self._held: list[tuple[ServerSentEvent, Sequence[Event]]] = []  # raw frames that wait
        self._waits = False
        self._open: set[int] = set()  # calls that have begun
        self._ended = False  # the frames of the end have begun
        self._failed = False  # and they say that the answer failed
        self._kept: tuple[Channels, tuple[ToolCall, ...]] | None = None  # what was said when it began to wait
        self._resumed = False
        self.last: bytes | None = None  # data of the last raw frame that passed without a note

    # An exchange.

    def begin(self, *, goes_on: bool) -> None:
        """A new exchange begins: with a new answer, or it goes on with the one there is."""
        self._held, self._waits, self._open = [], False, set()
        self._ended = self._failed = self._resumed = False
        self._kept = None
        self.raw = self.live and not self.started
        self.begun(goes_on=goes_on)

    def resume(self) -> None:
        """The same response goes on in another exchange, from its cursor."""
        raw = self.raw and not self._ended
        self._held = self._held if raw else []
        self._ended = self._failed = False
        self._resumed = True
        self.raw = raw

    def translate(self) -> None:
        """What comes is no stream of frames that could pass."""
        self.raw = False

    def is_plain(self, events: Sequence[Event]) -> bool:
        """Whether these events of a frame are one delta that passes at once."""
        return len(events) == 1 and type(events[0]) in _PLAIN and not self._waits

    @property
    def passes(self) -> bool:
        """Whether the next delta passes at once, as it is."""
        return self.raw and not self._waits and not self._held

    def look(
        self, frame: ServerSentEvent | None, events: Sequence[Event], assembler: Assembler, *, over: bool
    ) -> None:
        """A frame that is more than a delta, before the assembler gets its events."""
        # A client stops reading here: passed on too early it would hide what comes of the call.
        over = over or (frame is not None and frame.data.strip() == b"[DONE]")
        begun = [event.index for event in events if isinstance(event, ItemStarted) and self._waits_for(event)]
        if self.raw and not self._waits and (over or begun):
            self._waits = True
            self._kept = assembler.channels(), assembler.calls()
        self._open.update(begun)
        for event in events:
            if isinstance(event, ItemDone):
                self._open.discard(event.index)
            elif isinstance(event, Finished):
                self._failed = event.status == "failed"
        self._ended = self._ended or over
        if frame is not None and (over or not self.raw):
            self.glimpse(payload(frame))
            if not self.raw and self._ended:
                self._held.append((frame, events))
        if self._waits and not self._open and not self._ended:
            self._waits, self._kept = False, None

    def _waits_for(self, event: ItemStarted) -> bool:
        kind = event.item.get("type")
        return isinstance(kind, str) and self.is_call(kind)

    def take(self, frame: ServerSentEvent, events: Sequence[Event], *, plain: bool) -> bytes:
        """What of a raw frame passes now, with what waited before it."""
        if self._resumed and not events and frame.data:
            return b""  # sent again
        if self._waits:
            self._held.append((frame, events))
            return b""
        self.started = True
        if plain and not self._held:
            self.last = frame.data
            return frame.raw
        return self._release([*self._held, (frame, events)])

    def _release(self, frames: Sequence[tuple[ServerSentEvent, Sequence[Event]]]) -> bytes:
        self._held = []
        for frame, events in frames:
            if frame.data:
                self.note(payload(frame), events)
        return b"".join(frame.raw for frame, _ in frames)

    def said(self, assembler: Assembler) -> tuple[Channels, tuple[ToolCall, ...]]:
        """What of this answer the consumer has: text by (channel, choice), and calls."""
        channels, calls = self._kept or (assembler.channels(), assembler.calls())
        return {key: text for key, text in channels.items() if key[0] not in self.ignores}, calls

    def write(self, events: Iterable[StreamEvent], assembler: Assembler) -> bytes:
        """Frames for what an answer said, after what was delivered before."""
        if not self.live:
            return b""
        data = b"".join(self.spell(event, assembler) for event in events)
        self.started = self.started or bool(data)
        return data

    # The end.

    def end(self, reply: Reply, assembler: Assembler, *, torn: bool = False) -> bytes:
        """The rest of the stream, now that the reply is there; an error that came after it is no part of it.
        `torn`: its body broke off after the answer."""
        if not self.raw or reply.settled:
            return self.close(reply, assembler)
        kept, self._held = self._held, []
        held = [(frame, events) for frame, events in kept if events or not read_error(payload(frame))]
        usage = self.tokens(reply) if len(reply.attempts) > 1 else None
        frames = [frame.raw if usage is None else self._counted(frame, usage) for frame, _ in held]
        return b"".join(frames) + (self.last_frame([frame for frame, _ in held]) if torn else b"")

    def tokens(self, reply: Reply) -> Usage | None:
        """The tokens that the client is told."""
        if self.sums or reply.usage is None:
            return reply.usage
        first = next((row for row in reply.attempts if row.input_tokens is not None), None)
        read, cached = (first.input_tokens, first.cached_tokens) if first else (None, None)
        written = reply.usage.kept_tokens
        return replace(reply.usage, input_tokens=read, cached_tokens=cached, output_tokens=written)

    def last_words(self) -> bytes:
        """The provider's own frames that say why it failed, if that is how it ended; b"" if not."""
        return b"".join(frame.raw for frame, _ in self._held) if self._failed else b""

    def _counted(self, sent: ServerSentEvent, usage: Usage) -> bytes:
        """A frame of the end, with the tokens of all exchanges if it tells any."""
        body = payload(sent)
        if not body or not self.count(body, usage):
            return sent.raw
        return frame(body, "" if sent.type == "message" else sent.type)

    # What a wire says for itself.

    def begun(self, *, goes_on: bool) -> None:
        """A new exchange begins."""

    def is_call(self, kind: str) -> bool:
        """Whether an item of this type may be shown only when it is whole."""
        return kind in CALLS

    def note(self, body: Mapping[str, Any], events: Sequence[Event]) -> None:
        """A frame with this payload was delivered: remember what is needed to write others after it."""
        raise NotImplementedError

    def glimpse(self, body: Mapping[str, Any]) -> None:
        """A frame, or a whole answer, that is not delivered as it is: keep what the end needs of it."""
        raise NotImplementedError

    def spell(self, event: StreamEvent, assembler: Assembler) -> bytes:
        """Frames for one event."""
        raise NotImplementedError

    def close(self, reply: Reply, assembler: Assembler) -> bytes:
        """Frames that end the stream."""
        raise NotImplementedError

    def last_frame(self, sent: Sequence[ServerSentEvent]) -> bytes:
        """The frame that closes the stream, if the answer was over with these and it was torn off."""
        del sent
        return b""

    def count(self, body: dict[str, Any], usage: Usage) -> bool:
        """Put the tokens of the whole call into a payload, if it has a place for them."""
        raise NotImplementedError

    def whole(self, reply: Reply, assembler: Assembler) -> bytes:
        """The JSON of the whole answer, as it comes without streaming."""
        raise NotImplementedError


def frame(body: object, event: str = "") -> bytes:
    """One server-sent event."""
    head = f"event: {event}\n".encode() if event else b""
    return b"".join((head, b"data: ", dumps(body), b"\n\n"))


def payload(sent: ServerSentEvent) -> dict[str, Any]:
    """The JSON object of a frame; {} if it holds none."""
    return read(sent.data)


def read(data: bytes) -> dict[str, Any]:
    """The JSON object in the data of a frame; {} if there is none."""
    try:
        return mapping(loads(data))
    except NotJSON:
        return {}
