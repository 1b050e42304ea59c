"""What can go wrong in one answer, and where. Values only; `play` makes them happen.

`KINDS` is the one table of faults: K-number, phase and meaning. A `Fault` is a kind with its position and
parameters, built by the method named after its kind, or from one line of text by `parse`.

Positions count what the client sees: whole events (`after_event`), or bytes of the body before framing and
compression (`at_byte`, which may fall inside a UTF-8 sequence). No position means the end of the stream, in
place of its proper end. A position past the end never strikes.

Not here: K9 needs HTTP/2, which the lab does not speak; K14 to K18 are answers to a resume, so `Background`
gives them (or `Script.since` and `script.error` do).
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, cast, get_args

from ..errors import UsageError
from . import shapes

if TYPE_CHECKING:
    from .record import Wire

__all__ = ["KINDS", "Fault", "Kind", "LineEnds", "Marker", "Phase", "Row", "Then"]

LineEnds = Literal["lf", "cr", "crlf", "mixed"]
Marker = Literal["finish", "usage", "done"]
Then = Literal["end", "cut", "reset", "stall", "pings", "continue"]


class Kind(StrEnum):
    """The name of a fault, as it stands in records and on a command line."""

    END = "end"
    CUT = "cut"
    RESET = "reset"
    EOF = "eof"
    SHORT = "short"
    STALL = "stall"
    KEEPALIVE = "keepalive"
    NO_CLOSE_NOTIFY = "no_close_notify"
    ERROR_EVENT = "error_event"
    SPLICE = "splice"
    GZIP_CUT = "gzip_cut"
    SLICER = "slicer"
    DROP_TERMINAL = "drop_terminal"
    REPEAT_TERMINAL = "repeat_terminal"
    LINE_ENDS = "line_ends"
    BOM = "bom"
    HUGE_EVENT = "huge_event"
    DRIP = "drip"
    HANG = "hang"
    CLOSE = "close"
    HEADERS_ONLY = "headers_only"
    REFUSE = "refuse"


class Phase(StrEnum):
    """When a fault acts. One attempt has at most one of `BEFORE` and `AT`, and any number of others."""

    BEFORE = "before the response head"
    AT = "at a position in the body"
    EVENTS = "on every event"
    WRITES = "on every write"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the fault table. `number` is the K-number, or "" for kinds outside that list."""

    number: str
    phase: Phase
    meaning: str


KINDS: dict[Kind, Row] = {
    Kind.END: Row("K1", Phase.AT, "the body ends early but legally: zero chunk, matching length"),
    Kind.CUT: Row("K2", Phase.AT, "FIN inside a chunk: its length was announced, only a part of it arrives"),
    Kind.RESET: Row("K3", Phase.AT, "RST: the connection is reset"),
    Kind.EOF: Row("K4", Phase.AT, "no length and no chunks; the body ends where the connection closes"),
    Kind.SHORT: Row("K5", Phase.AT, "FIN before as many bytes as Content-Length promised"),
    Kind.STALL: Row("K6", Phase.AT, "silence with the socket open, for ever or for some seconds"),
    Kind.KEEPALIVE: Row("K7", Phase.AT, "no progress, only keep-alives, for ever or for some seconds"),
    Kind.NO_CLOSE_NOTIFY: Row("K8", Phase.AT, "TLS: FIN without close_notify"),
    Kind.ERROR_EVENT: Row("K10", Phase.AT, "an error event in the stream of a 200 answer"),
    Kind.SPLICE: Row("K11", Phase.AT, "an HTML or JSON error page spliced into the stream"),
    Kind.GZIP_CUT: Row(
        "K12", Phase.AT, "a gzip body that stops before its trailer, inside a legal HTTP body"
    ),
    Kind.SLICER: Row("K13", Phase.WRITES, "every byte of the response in a write of its own"),
    Kind.DROP_TERMINAL: Row("K19", Phase.EVENTS, "everything but the terminal markers, then a clean end"),
    Kind.REPEAT_TERMINAL: Row("K20", Phase.EVENTS, "each terminal marker twice"),
    Kind.LINE_ENDS: Row("K21", Phase.EVENTS, "other line ends: CR, CRLF or a mixture"),
    Kind.BOM: Row("K21", Phase.EVENTS, "a byte order mark before the first event"),
    Kind.HUGE_EVENT: Row("K22", Phase.EVENTS, "one event of 10 MiB among the others"),
    Kind.DRIP: Row("K23", Phase.WRITES, "one byte per interval"),
    Kind.HANG: Row("K24", Phase.BEFORE, "the request is accepted and no response head comes"),
    Kind.CLOSE: Row("", Phase.BEFORE, "FIN in place of a response"),
    Kind.HEADERS_ONLY: Row("", Phase.AT, "FIN right after the response head"),
    Kind.REFUSE: Row("", Phase.BEFORE, "the server goes away: RST, and new connections are refused"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. Build it with the method named after its kind.

    Attributes:
        kind: which fault.
        after_event: strike when this many whole events have been sent.
        at_byte: strike when this many bytes of the body have been sent.
        seconds: how long a pause lasts; None for ever (until the client leaves or the lab's limit).
        interval: seconds between keep-alives, or between the writes of a drip.
        data: the bytes to inject; none: those that the wire has by default, see `on`.
        then: what follows the injected bytes.
        size: bytes: of the huge event, of a slice, of the torn event sent (-1: half of it).
        style: line ends.
        markers: which terminal markers.
    """

    kind: Kind
    after_event: int | None = None
    at_byte: int | None = None
    seconds: float | None = None
    interval: float = 0.0
    data: bytes = b""
    then: Then = "end"
    size: int = -1
    style: LineEnds = "lf"
    markers: tuple[Marker, ...] = ()

    def __post_init__(self) -> None:
        if self.after_event is not None and self.at_byte is not None:
            raise UsageError(
                f"{self.kind}: after_event and at_byte are two positions", hint="give one of them"
            )
        if any(isinstance(at, float) for at in (self.after_event, self.at_byte, self.size)):
            raise UsageError(
                f"{self.kind}: positions and sizes are whole numbers", hint="for example after_event=3"
            )
        if not all(math.isfinite(seconds) for seconds in (self.interval, self.seconds or 0)):
            raise UsageError(f"{self.kind}: a time is a finite number", hint="leave seconds out for ever")
        if min(self.after_event or 0, self.at_byte or 0, self.interval, self.seconds or 0) < 0:
            raise UsageError(f"{self.kind}: positions and times cannot be negative", hint="count from 0")

    @property
    def row(self) -> Row:
        """This fault's line of the table."""
        return KINDS[self.kind]

    def at(self, *, after_event: int | None = None, at_byte: int | None = None) -> Fault:
        """The same fault at another position."""
        return dataclasses.replace(self, after_event=after_event, at_byte=at_byte)

    def on(self, wire: Wire) -> Fault:
        """The same fault with the keep-alive or error event of this wire, where none was chosen."""
        table = {Kind.KEEPALIVE: shapes.KEEPALIVE_OF, Kind.ERROR_EVENT: shapes.ERROR_OF}.get(self.kind)
        return self if table is None or self.data else dataclasses.replace(self, data=table[wire])

    @classmethod
    def parse(cls, text: str) -> Fault:
        """A fault from one line: its kind, then `:` and the arguments, as in `cut:after_event=3,tail=0`.

        Raises:
            UsageError: no such kind or argument.
        """
        name, _, rest = text.partition(":")
        name = name.strip()
        if name not in set(Kind):
            raise UsageError(f"no fault named {name!r}", hint=f"one of {', '.join(Kind)}")
        known = cls.arguments(Kind(name))
        words = [word.strip() for word in rest.split(",") if word.strip()]
        plain = [_value(word) for word in words if "=" not in word]
        named = {
            key.strip(): value for key, _, value in (word.partition("=") for word in words if "=" in word)
        }
        hint = f"{name} takes {', '.join(known) or 'no arguments'}"
        if unknown := [key for key in named if key not in known]:
            raise UsageError(f"{text!r}: {name} has no argument {unknown[0]!r}", hint=hint)
        try:
            made = getattr(cls, name)(*plain, **{key: _value(value) for key, value in named.items()})
        except TypeError:  # too many of them, or a word where a number belongs
            raise UsageError(f"{text!r}: these arguments make no sense", hint=hint) from None
        return cast("Fault", made)

    @classmethod
    def arguments(cls, kind: Kind) -> tuple[str, ...]:
        """The names of the arguments that a kind takes."""
        return tuple(inspect.signature(getattr(cls, kind.value)).parameters)

    @classmethod
    def end(cls, *, after_event: int | None = None, at_byte: int | None = None) -> Fault:
        """K1. The body ends here, legally, whatever was still to come."""
        return cls(Kind.END, after_event, at_byte)

    @classmethod
    def cut(cls, *, after_event: int | None = None, at_byte: int | None = None, tail: int = -1) -> Fault:
        """K2. FIN inside a chunk.

        `tail`: bytes of the next event that still go out with `after_event`; -1: half of it; 0: none, so the
        FIN comes between two chunks. With `at_byte` the position says it all.
        """
        return cls(Kind.CUT, after_event, at_byte, size=tail)

    @classmethod
    def reset(cls, *, after_event: int | None = None, at_byte: int | None = None) -> Fault:
        """K3. RST, once what was sent before has been handed to the client's side."""
        return cls(Kind.RESET, after_event, at_byte)

    @classmethod
    def eof(cls, *, after_event: int | None = None, at_byte: int | None = None) -> Fault:
        """K4. A body without length or chunks that ends with the connection."""
        return cls(Kind.EOF, after_event, at_byte)

    @classmethod
    def short(cls, *, after_event: int | None = None, at_byte: int | None = None) -> Fault:
        """K5. Content-Length announces the whole body, or one byte more if no position is given; FIN here."""
        return cls(Kind.SHORT, after_event, at_byte)

    @classmethod
    def stall(
        cls,
        *,
        after_event: int | None = None,
        at_byte: int | None = None,
        seconds: float | None = None,
    ) -> Fault:
        """K6. Silence with the socket open. With `seconds`, the stream goes on afterwards."""
        return cls(Kind.STALL, after_event, at_byte, seconds)

    @classmethod
    def keepalive(
        cls,
        form: str | bytes = "",
        *,
        after_event: int | None = None,
        at_byte: int | None = None,
        interval: float = 0.05,
        seconds: float | None = None,
    ) -> Fault:
        """K7. Only keep-alives: a name from `shapes.KEEPALIVES` or exact bytes.

        By default pings on the Messages wire and comments on the others. With `seconds`, the stream goes on
        afterwards.
        """
        data = shapes.named(shapes.KEEPALIVES, form) if form else b""
        return cls(Kind.KEEPALIVE, after_event, at_byte, seconds, interval, data)

    @classmethod
    def no_close_notify(cls, *, after_event: int | None = None, at_byte: int | None = None) -> Fault:
        """K8. FIN between two chunks without the TLS farewell. Needs `Lab(tls=True)`."""
        return cls(Kind.NO_CLOSE_NOTIFY, after_event, at_byte)

    @classmethod
    def error_event(
        cls,
        shape: str | bytes = "",
        *,
        after_event: int | None = None,
        at_byte: int | None = None,
        then: Then = "end",
    ) -> Fault:
        """K10. An error event: a name from `shapes.ERRORS` or exact bytes; `then` says what follows.

        By default an overloaded or broken server in the words of the wire.
        """
        data = shapes.named(shapes.ERRORS, shape) if shape else b""
        return cls(Kind.ERROR_EVENT, after_event, at_byte, data=data, then=_then(then))

    @classmethod
    def splice(
        cls,
        page: str | bytes = "html",
        *,
        after_event: int | None = None,
        at_byte: int | None = None,
        then: Then = "end",
    ) -> Fault:
        """K11. A page in the middle of the stream: a name from `shapes.PAGES` or exact bytes."""
        return cls(Kind.SPLICE, after_event, at_byte, data=shapes.named(shapes.PAGES, page), then=_then(then))

    @classmethod
    def gzip_cut(cls, *, after_event: int | None = None, at_byte: int | None = None) -> Fault:
        """K12. `Content-Encoding: gzip`, and the compressed stream stops here without its trailer."""
        return cls(Kind.GZIP_CUT, after_event, at_byte)

    @classmethod
    def slicer(cls, size: int = 1) -> Fault:
        """K13. The response, head included, in writes of `size` bytes."""
        return cls(Kind.SLICER, size=_positive(size, "size"))

    @classmethod
    def drop_terminal(cls, *markers: Marker) -> Fault:
        """K19. Terminal markers are left out: "finish", "usage", "done", by default all of them."""
        return cls(Kind.DROP_TERMINAL, markers=_markers(markers))

    @classmethod
    def repeat_terminal(cls, *markers: Marker) -> Fault:
        """K20. Terminal markers come twice: "finish", "usage", "done", by default all of them."""
        return cls(Kind.REPEAT_TERMINAL, markers=_markers(markers))

    @classmethod
    def line_ends(cls, style: LineEnds) -> Fault:
        """K21. Every line end becomes "cr", "crlf" or "lf", or all three in turn ("mixed")."""
        if style not in get_args(LineEnds):
            raise UsageError(f"no line ends named {style!r}", hint=f"one of {', '.join(get_args(LineEnds))}")
        return cls(Kind.LINE_ENDS, style=style)

    @classmethod
    def bom(cls) -> Fault:
        """K21. The stream opens with a UTF-8 byte order mark."""
        return cls(Kind.BOM)

    @classmethod
    def huge_event(cls, *, after_event: int = 1, size: int = 10 * 1024 * 1024) -> Fault:
        """K22. One unknown event of about `size` bytes is inserted after `after_event` events."""
        return cls(Kind.HUGE_EVENT, after_event, size=_positive(size, "size"))

    @classmethod
    def drip(cls, *, interval: float = 0.01, size: int = 1) -> Fault:
        """K23. The response in writes of `size` bytes, `interval` seconds apart."""
        return cls(Kind.DRIP, interval=interval, size=_positive(size, "size"))

    @classmethod
    def hang(cls, *, seconds: float | None = None) -> Fault:
        """K24. No response head. With `seconds`, the answer comes after all, that much later."""
        return cls(Kind.HANG, seconds=seconds)

    @classmethod
    def close(cls) -> Fault:
        """FIN in place of a response."""
        return cls(Kind.CLOSE)

    @classmethod
    def headers_only(cls) -> Fault:
        """The response head, then FIN."""
        return cls(Kind.HEADERS_ONLY, after_event=0)

    @classmethod
    def refuse(cls, *, seconds: float | None = None) -> Fault:
        """RST, and for `seconds` (None: until `Lab.accept()`) new connections are refused."""
        return cls(Kind.REFUSE, seconds=seconds)


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _then(value: Then) -> Then:
    if value not in get_args(Then):
        raise UsageError(f"then={value!r} is not known", hint=f"one of {', '.join(get_args(Then))}")
    return value


def _markers(markers: tuple[Marker, ...]) -> tuple[Marker, ...]:
    known = get_args(Marker)
    if unknown := [m for m in markers if m not in known]:
        raise UsageError(f"no terminal marker named {unknown[0]!r}", hint=f"one of {', '.join(known)}")
    return markers or known


def _positive(value: int, name: str) -> int:
    if value < 1:
        raise UsageError(f"{name} must be at least 1, not {value}")
    return value
