"""The data plane of one attempt: bytes in, what the consumer sees out. Pure.

Strategy: a driver pushes every chunk of the body into `feed` and yields on what comes back; `over` tells it
to stop reading. The body is looked at before it is believed: a server that ignores `stream` answers with
JSON, a proxy with HTML. After the end, clean or not, `close` gives the last word of the wire, and the flow
reads the verdict from the assembler. The flow itself never sees a byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from ..assembler import Assembler
from ..wire import chat, responses
from ..wire._json import NotJSON
from ..wire.coding import Inflater
from ..wire.events import Event, Restarted, StreamEvent, TextDelta
from ..wire.sse import Decoder, LimitExceeded, Limits
from .delivery import Gate

__all__ = ["WIRES", "Exchange"]

WIRES: dict[str, ModuleType] = {"responses": responses, "chat": chat}

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
    """One HTTP exchange being decoded. `gate` is None when nothing is delivered before the end (held)."""

    def __init__(
        self,
        wire: str,
        choices: int,
        gate: Gate | None,
        needs_arguments: frozenset[str] = frozenset(),
        limits: Limits | None = None,
    ) -> None:
        self.assembler = Assembler(needs_arguments)
        self.gate = gate
        self.over = False
        self.request_id = ""
        self._wire = WIRES[wire]
        self._decoder = self._wire.Decoder(choices)
        self._limits = limits or Limits()
        self._sse = Decoder(self._limits, error_field=True)
        self._inflater: Inflater | None = None
        self._sniffed = False
        self._whole: list[bytes] | None = None
        self._held = 0

    def opened(self, headers: Mapping[str, str]) -> None:
        """The answer's headers arrived (names in lower case).

        Raises:
            BadCoding: the body is compressed in an unknown way.
        """
        self.request_id = next((headers[name][:200] for name in _REQUEST_IDS if name in headers), "")
        coding = headers.get("content-encoding", "").strip().lower()
        if coding not in ("", "identity"):
            self._inflater = Inflater(coding)

    @property
    def done(self) -> bool:
        """The last word has been said: there is nothing more to read."""
        return self.assembler.finished is not None or self._decoder.broken is not None

    def has_progressed(self) -> bool:
        """Whether output arrived since this was last asked."""
        progressed = self.assembler.progressed
        self.assembler.progressed = False
        return progressed

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """Take the next bytes of the body, return what the consumer gets.

        Raises:
            NotJSON: the body is a web page. (What is no JSON inside a stream ends it, and `close` raises.)
            LimitExceeded: it is larger than allowed.
            BadCoding: it is not compressed as its header says.
        """
        if self._inflater is not None:
            chunk = self._inflater.feed(chunk)
        if not self._sniffed:
            self._sniff(chunk)
        if self._whole is not None:
            self._hold(chunk)
            return []
        frames = self._sse.feed(chunk)
        return self._push(self._decoder.feed(frames)) if frames else []

    def close(self) -> list[StreamEvent]:
        """The body ended, cleanly or not: the last word of the wire, and what the consumer still gets.

        Raises:
            NotJSON: the body is not in the wire's format, and no answer came before that.
        """
        events: list[Event] = []
        if self._whole is not None:
            body, self._whole = b"".join(self._whole).lstrip(_SPACE), None
            events = self._wire.read_body(body)
        else:
            events = self._decoder.close()
        return self._push(events)

    def _push(self, events: list[Event]) -> list[StreamEvent]:
        gate, push = self.gate, self.assembler.push
        out: list[StreamEvent] = []
        if gate is None:
            for event in events:
                push(event)
        elif not gate.matching:
            for event in events:
                out += push(event)
                if self.assembler.revised and type(event) is not TextDelta:
                    out = self._revise(gate, out)
        else:
            for event in events:
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
