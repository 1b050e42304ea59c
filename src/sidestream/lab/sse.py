"""Server-sent events as bytes: encode one, split a stream into its events without changing a byte.

PURE. An *event* here is the exact bytes up to and including its blank line, because the lab replays and cuts
bytes; it never needs to understand them beyond finding that line and reading the JSON inside.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

__all__ = ["DONE", "EventSplitter", "decode", "encode", "split_events"]

DONE = b"data: [DONE]\n\n"
# Two line ends in a row. Atomic, so that one CRLF is never taken for CR + LF.
_BLANK = re.compile(rb"(?>\r\n|\n|\r){2}")
_LINE = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


def encode(payload: Any, name: str = "") -> bytes:
    """One event: `payload` as UTF-8 JSON in one `data:` line, after an `event:` line if `name` is given."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + msgspec.json.encode(payload) + b"\n\n"


def decode(event: bytes) -> Any:
    """The JSON of an event's data lines; the data as text when it is not JSON; None without any data line."""
    lines = [line for line in _LINE.split(event.removeprefix(_BOM)) if line.startswith(b"data:")]
    if not lines:
        return None
    data = b"\n".join(line[5:].removeprefix(b" ") for line in lines)
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return data.decode("utf-8", "replace")


class EventSplitter:
    """Cuts a byte stream after each blank line. `limit`: bytes held back before they go as they are."""

    def __init__(self, limit: int = 64 * 1024 * 1024) -> None:
        self._limit = limit
        self._held = bytearray()
        self._scanned = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The events that `data` completes, in order."""
        self._held += data
        events: list[bytes] = []
        while (end := self._next_end()) is not None:
            events.append(bytes(self._held[:end]))
            del self._held[:end]
            self._scanned = 0
        if len(self._held) > self._limit:
            events += self.rest()
        return events

    def rest(self) -> list[bytes]:
        """What is left at the end of the stream: a final event without its blank line, or nothing."""
        left, self._held, self._scanned = bytes(self._held), bytearray(), 0
        return [left] if left else []

    def _next_end(self) -> int | None:
        found = _BLANK.search(self._held, max(0, self._scanned - 3))
        if found is None:
            self._scanned = len(self._held)
            return None
        if found.end() == len(self._held) and self._held.endswith(b"\r"):
            return None  # the LF of a CRLF may still be on its way
        return found.end()


def split_events(data: bytes) -> tuple[bytes, ...]:
    """Every event of a whole stream; joined again they are `data`, byte for byte."""
    splitter = EventSplitter(limit=len(data) + 1)
    return (*splitter.feed(data), *splitter.rest())
