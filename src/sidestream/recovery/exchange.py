"""The data plane of one attempt: bytes in, what the consumer sees out. Pure.

Strategy: a driver pushes every chunk of the body into `feed` and yields on what comes back; `over` tells it
to stop reading. An exchange begins an answer, or goes on with one: through a `Splice` if another stream
continues it, or with the decoder it had if the same response is resumed (`resumed`). The body is
looked at before it is believed: a server that ignores `stream` answers with JSON, a proxy with HTML. After
the end, clean or not, `close` gives the last word of the wire, and the flow reads the verdict from the
assembler. The flow itself never sees a byte.

Nearly all chunks are one frame with the next piece of the text before. While nothing is compared and nothing
waits, such a piece goes straight from the decoder to its place in the assembler (`_goes_on`), and the chunk
to the consumer of a relay. Whatever else comes takes the long way, which looks anew whether that is still so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from types import ModuleType
from typing import TYPE_CHECKING

from ..assembler import Assembler
from ..wire import chat, messages, responses
from ..wire._json import NotJSON, loads, mapping
from ..wire.coding import Inflater
from ..wire.events import Event, ReasoningDelta, Restarted, StreamEvent, TextDelta
from ..wire.sse import Decoder, LimitExceeded, Limits, ServerSentEvent
from .delivery import Gate
from .splice import Splice

if TYPE_CHECKING:
    from ..relay.base import Relay

__all__ = ["WIRES", "Batch", "Exchange"]

# What a consumer gets at once: events, or the bytes that a relay makes of them.
Batch = Sequence[StreamEvent] | Sequence[bytes]

WIRES: dict[str, ModuleType] = {"responses": responses, "chat": chat, "messages": messages}

_REQUEST_IDS = (
    "x-request-id",
    "request-id",
    "x-oai-request-id",
    "x-generation-id",
    "apim-request-id",
    "cf-ray",
)
_SPACE = b" \t\r\n\xef\xbb\xbf"


class Exchange:
    """One HTTP exchange being decoded. `gate` is None when nothing is delivered before the end (held).

    Attributes:
        assembler: what has arrived of the answer, in this and earlier exchanges.
        over: the answer is over; at most usage and the end of the body are awaited.
        request_id: the provider's id of this exchange.
        first_at: instant of call time of the first output.
        pending: a poll found the response still at work.
        answered: the answer began, with 2xx.
        events: decoded events of this exchange.
    """

    def __init__(
        self,
        wire: str,
        choices: int,
        gate: Gate | None,
        needs_arguments: frozenset[str] = frozenset(),
        limits: Limits | None = None,
        *,
        assembler: Assembler | None = None,
        splice: Splice | None = None,
        relay: Relay | None = None,
        on_output: Callable[[], None] | None = None,
    ) -> None:
        self.assembler = assembler or Assembler(needs_arguments)
        self.gate = gate
        self.assembler.fixed = gate is not None and gate.strict
        self.over = False
        self.request_id = ""
        self.first_at: float | None = None
        self.pending = False
        self.answered = False
        self.events = 0
        self._splice = splice
        self.relay = relay
        if relay is not None:
            relay.begin(goes_on=assembler is not None)
        self._on_output = on_output
        self._before = self.assembler.size() if assembler else 0
        self._calls_before = len(self.assembler.calls()) if assembler else 0
        self._wire = WIRES[wire]
        self._decoder = self._wire.Decoder(choices)
        self._limits = limits or Limits()
        self._sse = self._frames()
        self._inflater: Inflater | None = None
        self._sniffed = False
        self._polls = False  # a whole body is the response as it stands
        self._seen = 0  # of the splice, by earlier exchanges
        self._whole: list[bytes] | None = None
        self._held = 0
        self._goes_on: Callable[[str], None] | None = None  # takes the next piece of the last delta's text
        self._shape: Callable[[str, int, int], StreamEvent] = TextDelta  # what a live consumer sees of it
        self._place = 0, 0

    def resumed(self, on_output: Callable[[], None] | None = None) -> Exchange:
        """The exchange in which the same response goes on: from its cursor, or as a whole if that comes."""
        self._decoder.resume()
        self.assembler.reopen()
        if self.relay is not None:
            self.relay.resume()
        again = copy(self)
        again.over, again.request_id, again.first_at, again.pending = False, "", None, False
        again.answered, again.events = False, 0
        again._on_output = on_output
        again._before = self.assembler.size()
        again._calls_before = len(self.assembler.calls())
        again._sse = self._frames()
        again._inflater, again._sniffed, again._whole, again._held = None, False, None, 0
        again._polls = True
        again._goes_on = None
        again._seen = self._splice.seen if self._splice else 0
        return again

    @property
    def cursor(self) -> int | None:
        """Number of the last event that arrived, if the server counts them."""
        cursor: int | None = self._decoder.cursor
        return cursor

    @property
    def astray(self) -> str:
        """Why the new stream does not go on with the answer, or ""."""
        return (self._splice.failed if self._splice else "") or (self.gate.diverged if self.gate else "")

    @property
    def gained(self) -> int:
        """Characters by which this exchange brought the answer on."""
        return max(0, self.assembler.size() - self._before)

    @property
    def new_calls(self) -> int:
        """Calls that this exchange finished."""
        return len(self.assembler.calls()) - self._calls_before

    @property
    def arrived(self) -> int:
        """Characters of output that arrived, kept or not."""
        seen = self._splice.seen - self._seen if self._splice else 0
        return max(seen, self.gained)  # what comes whole was not seen piece by piece

    def _frames(self) -> Decoder:
        return Decoder(self._limits, error_field=True, blanks=self.relay is not None)

    def opened(self, headers: Mapping[str, str]) -> Batch:
        """The answer's headers arrived (names in lower case): what the consumer gets of that.

        Raises:
            BadCoding: the body is compressed in an unknown way.
        """
        self.answered = True
        self.request_id = next((headers[name][:200] for name in _REQUEST_IDS if name in headers), "")
        coding = headers.get("content-encoding", "").strip().lower()
        if coding not in ("", "identity"):
            self._inflater = Inflater(coding)
        return [b""] if self.relay is not None and self.relay.live else []

    @property
    def done(self) -> bool:
        """The last word has been said: there is nothing more to read."""
        if self._goes_on is not None:
            return False
        if self.assembler.finished is not None or self._decoder.broken is not None:
            return True
        return (self.gate is not None or self._splice is not None) and bool(self.astray)

    def has_progressed(self) -> bool:
        """Whether output arrived since this was last asked."""
        progressed = self.assembler.progressed
        self.assembler.progressed = False
        if self._splice is not None:
            progressed = progressed or self._splice.progressed
            self._splice.progressed = False
        return progressed

    def output_began(self, now: float) -> None:
        """Its first output arrived at that instant of call time."""
        self.first_at = now
        if self._on_output is not None:
            self._on_output()

    def feed(self, chunk: bytes) -> Batch:
        """Take the next bytes of the body, return what the consumer gets: events, or bytes of a relay.

        Raises:
            NotJSON: the body is a web page. (What is no JSON inside a stream ends it, and `close` raises.)
            LimitExceeded: it is larger than allowed.
            BadCoding: it is not compressed as its header says.
        """
        if self._inflater is not None:
            chunk = self._inflater.feed(chunk)
        if (goes_on := self._goes_on) is None or (data := self._sse.alike(chunk)) is None:
            return self._fed(chunk)
        text = self._decoder.piece(data)
        if not text:
            return self._taken([self._sse.event(data, chunk)])
        goes_on(text)
        self.assembler.progressed = True
        self.events += 1
        if self.relay is not None:
            self.relay.last = data
            return (chunk,)
        return (self._shape(text, *self._place),) if self.gate is not None else ()

    def _fed(self, chunk: bytes) -> Batch:
        """What the consumer gets of any bytes."""
        if not self._sniffed:
            self._sniff(chunk)
        if self._whole is not None:
            self._hold(chunk)
            return ()
        frames = self._sse.feed(chunk)
        return self._taken(frames) if frames else ()

    def _taken(self, frames: Sequence[ServerSentEvent]) -> Batch:
        """What the consumer gets of some frames."""
        self._goes_on = None
        if self.relay is not None:
            return self._relayed(self.relay, frames)
        events = self._decoder.feed(frames)
        out = self._push(events)
        self._follow(events)
        return out

    def _follow(self, events: Sequence[Event]) -> None:
        """After these events: whether the text goes on as it is, and where."""
        last = events[-1] if events else None
        if not isinstance(last, (TextDelta, ReasoningDelta)) or self.over or self._splice is not None:
            return
        gate, relay = self.gate, self.relay
        if (gate is not None and (gate.matching or gate.diverged)) or (
            relay is not None and not relay.passes
        ):
            return
        if found := self.assembler.open_text(last):
            pieces, self._shape = found
            self._goes_on, self._place = pieces.append, (last.index, last.part)

    def _relayed(self, relay: Relay, frames: Iterable[ServerSentEvent]) -> Batch:
        """What the consumer gets of some frames, one after the other."""
        out: list[bytes] = []
        events: list[Event] = []
        decoder = self._decoder
        compared = self.gate is not None or self._splice is not None
        for frame in frames:
            if compared and self.astray:
                break
            events = decoder.feed((frame,))
            plain = relay.is_plain(events)
            if plain and relay.raw and not compared:  # nearly all frames of nearly all streams
                self.events += 1
                self.assembler.push(events[0])
                self.over = decoder.over
                out.append(relay.take(frame, events, plain=True))
                continue
            if not plain:
                if decoder.broken is not None:
                    self._push(events)
                    break
                relay.look(frame, events, self.assembler, over=decoder.over)
            seen = self._push(events)
            if data := (
                relay.take(frame, events, plain=plain) if relay.raw else relay.write(seen, self.assembler)
            ):
                out.append(data)
        self._follow(events)
        return out if len(out) < 2 else [b"".join(out)]

    def close(self) -> Batch:
        """The body ended, cleanly or not: the last word of the wire, and what the consumer still gets.

        Raises:
            NotJSON: the body is not in the wire's format, and no answer came before that.
        """
        events: list[Event] = []
        if self._whole is not None:
            body, self._whole = b"".join(self._whole).lstrip(_SPACE), None
            events = self._poll(body) if self._polls else self._wire.read_body(body)
            if self.relay is not None and events:
                self.relay.translate()
                self.relay.glimpse(mapping(loads(body)))
        else:
            events = self._decoder.close()
        if self.relay is None:
            return self._push(events)
        if events:
            self.relay.look(None, events, self.assembler, over=self._decoder.over)
        seen = self._push(events)
        data = b"" if self.relay.raw else self.relay.write(seen, self.assembler)
        return [data] if data else []

    def _poll(self, body: bytes) -> list[Event]:
        events: list[Event] | None = self._decoder.read_poll(body)
        self.pending = events is None
        return events or []

    def _push(self, events: list[Event]) -> list[StreamEvent]:
        self.events += len(events)
        if self._splice is not None:
            events = self._splice.push(events)
        gate, push = self.gate, self.assembler.push
        out: list[StreamEvent] = []
        if gate is not None and gate.diverged:
            return out
        if gate is None:
            for event in events:
                push(event)
        elif not gate.matching:
            for event in events:
                out += push(event)
                if self.assembler.revised and type(event) is not TextDelta:
                    out = self._revise(gate, out)
                    if gate.diverged:
                        break
        else:
            for event in events:
                if gate.diverged:
                    break
                out += self._match(gate, event)
        self.over = self._decoder.over or self._decoder.broken is not None
        finished = self.assembler.finished
        if gate is not None and finished is not None and finished.status != "failed":
            out += gate.end(self.assembler)
        return out

    def _match(self, gate: Gate, event: Event) -> list[StreamEvent]:
        seen = self.assembler.push(event)
        if self.assembler.revised:
            return self._revise(gate, [])
        if gate.matching:
            return gate.admit(seen, self.assembler)
        return list(seen)

    def _revise(self, gate: Gate, out: list[StreamEvent]) -> list[StreamEvent]:
        """The provider's finished item contradicts its own deltas: tell the consumer once."""
        self.assembler.revised = False
        if any(isinstance(event, Restarted) for event in out):
            out = []
        return [*out, *gate.restart(self.assembler, "the provider revised what it had streamed")]

    def _sniff(self, chunk: bytes) -> None:
        start = chunk.lstrip(_SPACE)[:1]
        if not start:
            return
        self._sniffed = True
        if start in (b"{", b"["):
            self._whole = []
        elif start == b"<":
            raise NotJSON("the body is a web page, not a stream")

    def _hold(self, chunk: bytes) -> None:
        if self._whole is None:
            return
        self._held += len(chunk)
        if self._held > self._limits.event:
            raise LimitExceeded("body", self._limits.event)
        self._whole.append(chunk)
