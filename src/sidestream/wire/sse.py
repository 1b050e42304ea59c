"""Server-sent events: bytes in, events out, by WHATWG HTML section 9.2.6.

Strategy: push chunks of any size into `Decoder.feed`; it returns the events that are now complete. Nothing
is dispatched before its blank line, and what has no blank line at the end of the body is never dispatched:
`pending` tells that something was torn off. Bodies without a carriage return (all real ones) are cut at
empty lines, which is fast; the first carriage return switches that stream to the line reader, whose result
is the same. A partial event is kept as a list of pieces and joined once, so a huge event costs linear time.
Nearly all chunks are one whole event, of the shape of the event before: `alike` reads those at sight.

Not here: what an event means. Limits: one line, one event and the whole body each have one (`Limits`).
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Decoder", "LimitExceeded", "Limits", "ServerSentEvent"]

_BOM = b"\xef\xbb\xbf"
_LF, _CR = 10, 13
MIB = 1024 * 1024


class Limits(Struct, frozen=True):
    """Sizes in bytes above which a body is given up rather than buffered.

    `line` counts a line without its end, `event` all raw bytes of an event (a 15 MiB base64 image passes),
    and `total` bounds one HTTP response.
    """

    line: int = 16 * MIB
    event: int = 16 * MIB
    total: int = 256 * MIB


class LimitExceeded(Exception):
    """A line, an event or the body grew past its limit."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"the {what} is larger than the limit of {limit:,} bytes")
        self.what = what
        self.limit = limit


class ServerSentEvent(Struct, frozen=True, gc=False):
    """One dispatched event.

    `raw` holds the bytes of its lines and the blank line that dispatched it (of a CRLF there, the CR only:
    the event is out before the LF is seen). `id` is the last event id in force.
    """

    type: str
    data: bytes
    raw: bytes
    id: str = ""

    @property
    def text(self) -> str:
        """The data as text; invalid UTF-8 becomes U+FFFD."""
        return self.data.decode("utf-8", "replace")


class Decoder:
    """Incremental decoder of one body. Not thread-safe; one per HTTP response.

    The standard ignores fields it does not know. With `error_field` an `error:` field counts as an event of
    type "error" with that data: llama.cpp wrote its errors so until late 2025. With `blanks` what has no data
    (comments, keep-alives) comes as an event without data, for those who pass the bytes on.
    """

    def __init__(
        self, limits: Limits | None = None, *, error_field: bool = False, blanks: bool = False
    ) -> None:
        self._limits = limits or Limits()
        self._error_field = error_field
        self._blanks = blanks
        self._total = 0
        self._bom: bytes | None = b""  # what was seen of a possible BOM; None once decided
        self._by_line = False
        self._tail: list[bytes] = []  # pieces of the unfinished event (or, by line, of the unfinished line)
        self._last = b""  # the last whole event, if it came so
        self._head: bytes | None = b""  # how it begins, up to its one line of data, b"" if it does not, or
        # something was begun after it; None: not looked at yet
        self._head_type = ""
        self._usual = min(self._limits.line, self._limits.event, self._limits.total)  # no limit is nearer
        self._held = 0
        self._line_held = 0
        self._skip_lf = False
        self._raw: list[bytes] = []  # by line: finished lines of the unfinished event
        self._raw_size = 0
        self._type = ""
        self._data: list[bytes] = []
        self.last_event_id = ""
        self.retry_ms: int | None = None

    @property
    def pending(self) -> bytes:
        """What was received since the last dispatched event, at most 4 KiB of it."""
        return b"".join([*self._raw, *self._tail])[:4096]

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Take the next bytes, return the events they complete.

        Raises:
            LimitExceeded: a line, an event or the body is too large. The decoder is then unusable.
        """
        self._total += len(chunk)
        if self._total > self._limits.total:
            raise LimitExceeded("body", self._limits.total)
        if self._bom is not None:
            chunk = self._strip_bom(chunk)
        if not chunk:
            return []
        if self._by_line:
            return self._feed_lines(chunk)
        if _CR in chunk:
            self._by_line = True
            return self._leave_blocks(chunk)
        return self._feed_blocks(chunk)

    def alike(self, chunk: bytes) -> bytes | None:
        """The data of the next bytes, if they are one whole event that begins like the one before, with one
        line of data: they are taken, and `event` makes it of them. None: they are not, `feed` does that."""
        head = self._head
        if head is None:
            head, self._head_type = _head(self._last)
            self._head = head
        start = len(head)
        data = chunk[start:-2]
        if not start or chunk[:start] != head or chunk[-2:] != b"\n\n" or _LF in data or _CR in data:
            return None
        total = self._total + len(chunk)
        if total > self._usual:
            return None
        self._total = total
        return data

    def event(self, data: bytes, raw: bytes) -> ServerSentEvent:
        """The event that `alike` has seen in these bytes."""
        return ServerSentEvent(self._head_type, data, raw, self.last_event_id)

    def _strip_bom(self, chunk: bytes) -> bytes:
        seen = (self._bom or b"") + chunk
        if len(seen) < len(_BOM) and _BOM.startswith(seen):
            self._bom = seen
            return b""
        self._bom = None
        return seen.removeprefix(_BOM)

    # Whole blocks: the fast way, for bodies without carriage returns.

    def _feed_blocks(self, chunk: bytes) -> list[ServerSentEvent]:
        tail = self._tail
        if tail:
            joins = chunk[0] == _LF and tail[-1][-1] == _LF
            tail.append(chunk)
            if not joins and b"\n\n" not in chunk:
                self._hold(chunk)
                return []
            chunk = b"".join(tail)
        blocks = chunk.split(b"\n\n")
        last = blocks.pop()
        self._tail = [last] if last else []
        self._held = self._line_held = 0
        if last:
            self._head = b""
            self._hold(last)
        elif blocks:
            self._last, self._head = blocks[-1], None
        oversize = min(self._limits.event, self._limits.line) < len(chunk)
        events: list[ServerSentEvent] = []
        for block in blocks:
            if oversize:
                self._check_block(block)
            head, _, rest = block.partition(b"\n")
            if rest[:6] == b"data: " and head[:7] == b"event: " and _LF not in rest:
                events.append(
                    ServerSentEvent(
                        head[7:].decode("utf-8", "replace") or "message",
                        rest[6:],
                        block + b"\n\n",
                        self.last_event_id,
                    )
                )
            elif not rest and head[:6] == b"data: ":
                events.append(ServerSentEvent("message", head[6:], block + b"\n\n", self.last_event_id))
            elif block:
                self._block(block.lstrip(b"\n"), events)
            elif self._blanks:
                events.append(ServerSentEvent("message", b"", b"\n\n", self.last_event_id))
        return events

    def _block(self, block: bytes, events: list[ServerSentEvent]) -> None:
        for line in block.split(b"\n"):
            self._field(line)
        self._dispatch(block + b"\n\n", events)

    def _hold(self, piece: bytes) -> None:
        self._held += len(piece)
        cut = piece.rfind(b"\n")
        self._line_held = self._line_held + len(piece) if cut < 0 else len(piece) - cut - 1
        if self._held > self._limits.event:
            raise LimitExceeded("event", self._limits.event)
        if self._line_held > self._limits.line:
            raise LimitExceeded("line", self._limits.line)

    def _check_block(self, block: bytes) -> None:
        if len(block) + 2 > self._limits.event:
            raise LimitExceeded("event", self._limits.event)
        if max(map(len, block.split(b"\n"))) > self._limits.line:
            raise LimitExceeded("line", self._limits.line)

    # Line by line: any mix of CR, LF and CRLF, split anywhere.

    def _leave_blocks(self, chunk: bytes) -> list[ServerSentEvent]:
        held = b"".join(self._tail)
        self._tail, self._head = [], b""
        self._held = self._line_held = 0
        return self._feed_lines(held + chunk)

    def _feed_lines(self, chunk: bytes) -> list[ServerSentEvent]:
        events: list[ServerSentEvent] = []
        if self._skip_lf:
            self._skip_lf = False
            if chunk[0] == _LF:
                if self._raw:
                    self._raw[-1] += b"\n"
                    self._raw_size += 1
                elif self._blanks:
                    events.append(ServerSentEvent("message", b"", b"\n", self.last_event_id))
                chunk = chunk[1:]
        if _LF not in chunk and _CR not in chunk:
            if chunk:
                self._tail.append(chunk)
                self._hold(chunk)
            return events
        self._tail.append(chunk)
        lines = b"".join(self._tail).splitlines(keepends=True)
        self._tail = []
        if lines[-1][-1] not in (_LF, _CR):
            self._tail = [lines.pop()]
        self._skip_lf = lines[-1][-1] == _CR and not self._tail
        for line in lines:
            self._line(line, events)
        self._held = self._raw_size
        self._line_held = 0
        for piece in self._tail:
            self._hold(piece)
        return events

    def _line(self, line: bytes, events: list[ServerSentEvent]) -> None:
        content = line.rstrip(b"\r\n")
        if len(content) > self._limits.line:
            raise LimitExceeded("line", self._limits.line)
        if content:
            self._raw.append(line)
            self._raw_size += len(line)
            self._field(content)
            return
        blank = line if self._blanks else line[:1]
        raw = b"".join(self._raw) + blank
        self._raw, self._raw_size = [], 0
        if len(raw) > self._limits.event:
            raise LimitExceeded("event", self._limits.event)
        self._dispatch(raw, events)

    # The rules of 9.2.6.

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self.last_event_id = value.decode("utf-8", "replace")
        elif name == b"retry":
            if value.isdigit() and len(value) <= 9:
                self.retry_ms = int(value)
        elif name == b"error" and self._error_field:
            self._type = "error"
            self._data.append(value)

    def _dispatch(self, raw: bytes, events: list[ServerSentEvent]) -> None:
        data, kind = self._data, self._type
        self._data, self._type = [], ""
        if data or self._blanks:
            events.append(ServerSentEvent(kind or "message", b"\n".join(data), raw, self.last_event_id))


def _head(block: bytes) -> tuple[bytes, str]:
    """How an event begins that has one line of data, and before it perhaps its type, and that type; b"" for
    every other."""
    head, _, rest = block.partition(b"\n")
    if head.startswith(b"data: "):
        return b"data: ", "message"
    if head.startswith(b"event: ") and rest.startswith(b"data: "):
        return head + b"\ndata: ", head[7:].decode("utf-8", "replace") or "message"
    return b"", ""
