"""A response on its way out: HTTP framing, gzip, and the manner of writing (sliced, dripping, a burst).

Can be told to announce more than it sends (`torn`) and to stop anywhere; why and where is not known here.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import Connection
    from .faults import Fault
    from .script import Framing

__all__ = ["Body", "head_bytes"]

_REASONS = {200: "OK", 402: "Payment Required", 404: "Not Found", 429: "Too Many Requests"}
_GZIP = 31


def head_bytes(status: int, headers: list[tuple[str, str]]) -> bytes:
    """A response head."""
    lines = [
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}",
        *(f"{n}: {v}" for n, v in headers),
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1")


class Body:
    """A response on its way out: framing, compression and the manner of writing.

    Attributes:
        sent: bytes of the body sent so far, before framing and compression.
        started_at: when the first byte was written, or None.
    """

    def __init__(
        self, link: Connection, framing: Framing, *, manner: Fault | None, gzip: bool, burst: bool
    ) -> None:
        self.sent = 0
        self.started_at: float | None = None
        self.framing = framing
        self._link = link
        self._manner = manner
        self._gzip = zlib.compressobj(wbits=_GZIP) if gzip else None
        self._burst = burst
        self._waits = False  # before each write but the first, so that the end is the end
        self._held = bytearray()

    async def head(self, status: int, headers: list[tuple[str, str]]) -> None:
        """The status line and headers."""
        await self._write(head_bytes(status, headers))

    async def piece(self, data: bytes) -> None:
        """Some of the body, in legal framing."""
        if data:
            await self._write(self._framed(self._encoded(data)))
            self.sent += len(data)

    async def torn(self, data: bytes, keep: int) -> None:
        """Announce a chunk of `data` and send only `keep` bytes of it."""
        if keep > 0:
            whole = self._encoded(data)
            framed = self._framed(whole)
            kept = min(keep, len(whole) - 1)
            await self._write(framed[: framed.index(whole) + kept])
            self.sent += kept

    async def finish(self, *, trailer: bool = True) -> None:
        """End the body legally. Without `trailer` a gzip stream stays unfinished."""
        if self._gzip is not None and trailer:
            await self._write(self._framed(self._gzip.flush()))
        if self.framing == "chunked":
            await self._write(b"0\r\n\r\n")
        await self.flush()

    async def flush(self) -> None:
        """Let go of what a burst holds back."""
        held, self._held = bytes(self._held), bytearray()
        await self._out(held)

    def _encoded(self, data: bytes) -> bytes:
        if self._gzip is None:
            return data
        return self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self.framing == "chunked" else data

    async def _write(self, data: bytes) -> None:
        if self._burst:
            self._held += data
        else:
            await self._out(data)

    async def _out(self, data: bytes) -> None:
        if data and self.started_at is None:
            self.started_at = time.monotonic()
        if self._manner is None:
            await self._link.send(data)
            return
        for start in range(0, len(data), self._manner.size):
            if self._waits:
                await asyncio.sleep(self._manner.interval)
            self._waits = True
            await self._link.send(data[start : start + self._manner.size])
