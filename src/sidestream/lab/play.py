"""Plays one answer on one connection, with its faults: the only place where misbehaving happens.

`Player` walks through the events, keeps the position, and calls the one small function per fault from
`_STRIKES` when its position is reached. A strike returns what is left of the answer after it (`Left`).
"""

from __future__ import annotations

import asyncio
import time
from enum import Enum
from typing import TYPE_CHECKING

from .body import Body
from .faults import Fault, Kind, Phase
from .rewrite import rewriters, rewritten

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from .connection import Connection
    from .record import Wire
    from .script import Framing, Script

__all__ = ["Left", "Player"]

_UNKNOWN_LENGTH = 1 << 30


class Left(Enum):
    """What is left of an answer after a strike."""

    REST = "the rest of the stream"
    REUSE = "nothing; the body ended legally, so the connection may be used again"
    CLOSED = "nothing, not even the connection"


class Player:
    """One attempt: a script's head, its events, and the faults that strike on the way."""

    def __init__(
        self,
        link: Connection,
        script: Script,
        faults: tuple[Fault, ...],
        *,
        note: Callable[..., None],
        limit: float,
        http10: bool,
        refuse: Callable[[float | None], None],
        wire: Wire,
    ) -> None:
        faults = tuple(fault.on(wire) for fault in faults)
        self.link = link
        self.script = script
        self.note = note
        self.limit = limit
        self.refuse = refuse
        self.wire = wire
        self.events = 0  # position: whole events of the stream sent
        self.offset = 0  # position: bytes of the stream sent
        self._struck: list[str] = []
        self._chain = rewriters(faults)
        self._whole_stream = [f for f in faults if f.row.phase in (Phase.EVENTS, Phase.WRITES)]
        self._before = next((f for f in faults if f.row.phase is Phase.BEFORE), None)
        self._pending = next((f for f in faults if f.row.phase is Phase.AT), None)
        kind = self._pending.kind if self._pending else None
        self.body = Body(
            link,
            _framing(script.framing, kind, http10=http10),
            manner=next((f for f in faults if f.row.phase is Phase.WRITES), None),
            gzip=kind is Kind.GZIP_CUT,
            burst=script.burst,
        )

    async def play(self, events: AsyncIterator[bytes] | None = None) -> bool:
        """Answer with the script, or with its head and `events`. True: the connection may be used again."""
        for fault in self._whole_stream:
            self._strikes(fault)
        if self._before is not None and await self._strike(self._before, b"", 0) is not Left.REST:
            return False
        planned = None
        if events is None:
            planned = [out for event in self.script.events for out in rewritten(event, self._chain)]
        await self.body.head(self.script.status, self._headers(planned))
        self.count()
        async for event in self._paced(planned) if planned is not None else self._live(events):
            left = await self._send(event)
            if left is not Left.REST:
                return self._reusable(left)
        return self._reusable(await self._end())

    def _reusable(self, left: Left) -> bool:
        return left is Left.REUSE and self.body.framing != "close"

    async def _paced(self, planned: list[bytes]) -> AsyncIterator[bytes]:
        for number, event in enumerate(planned):
            if number and self.script.pace:
                await asyncio.sleep(self.script.pace)
            yield event

    async def _live(self, events: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
        if events is not None:
            async for event in events:
                for out in rewritten(event, self._chain):
                    yield out

    async def _send(self, event: bytes) -> Left:
        """One event, interrupted by the fault if its position lies in it."""
        rest = event
        split = self._split(event)
        if split is not None and self._pending is not None:
            left = await self._strike(self._pending, event, split)
            if left is not Left.REST:
                return left
            rest = event[split:]
        await self.body.piece(rest)
        self.events += 1
        self.offset += len(event)
        self.count()
        return Left.REST

    def _split(self, event: bytes) -> int | None:
        """Where in this event the pending fault strikes: before byte 0 … n-1 of it; None: not in this one."""
        fault = self._pending
        if fault is None:
            return None
        if fault.after_event is not None:
            return 0 if fault.after_event == self.events else None
        inside = -1 if fault.at_byte is None else fault.at_byte - self.offset
        return inside if 0 <= inside < len(event) else None

    async def _end(self) -> Left:
        fault = self._pending
        if fault is not None and _at_end(fault, self.events, self.offset):
            left = await self._strike(fault, b"", 0)
            if left is not Left.REST:
                return left
        await self.body.finish()
        return Left.REUSE

    async def _strike(self, fault: Fault, event: bytes, split: int) -> Left:
        if fault is self._pending:
            self._pending = None
        self._strikes(fault)
        left = await _STRIKES[fault.kind](self, fault, event, split)
        self.count()
        return left

    def _strikes(self, fault: Fault) -> None:
        self._struck.append(str(fault.kind))
        self.note(fault="+".join(self._struck))

    def count(self) -> None:
        """Note in the record how far the answer has got."""
        self.note(first_byte_at=self.body.started_at, events_sent=self.events, bytes_sent=self.body.sent)

    def _headers(self, planned: list[bytes] | None) -> list[tuple[str, str]]:
        headers = [("Content-Type", self.script.content_type), *self.script.headers]
        if self._pending is not None and self._pending.kind is Kind.GZIP_CUT:
            headers.append(("Content-Encoding", "gzip"))
        if self.body.framing == "chunked":
            headers.append(("Transfer-Encoding", "chunked"))
        elif self.body.framing == "length":
            headers.append(("Content-Length", str(_length(planned, self._pending))))
        else:
            headers.append(("Connection", "close"))
        return headers


def _framing(wanted: Framing, kind: Kind | None, *, http10: bool) -> Framing:
    if kind is Kind.SHORT:
        return "length"
    if kind is Kind.EOF or (http10 and wanted == "chunked"):
        return "close"
    return "chunked" if kind is Kind.GZIP_CUT and wanted == "length" else wanted


def _at_end(fault: Fault, events: int, offset: int) -> bool:
    if fault.after_event is not None:
        return fault.after_event == events
    return fault.at_byte is None or fault.at_byte == offset


def _length(planned: list[bytes] | None, fault: Fault | None) -> int:
    """What Content-Length says: the body as planned, or as the fault will leave it if that ends legally."""
    if planned is None:
        return _UNKNOWN_LENGTH
    total = sum(map(len, planned))
    if fault is None:
        return total
    if fault.kind is Kind.SHORT:
        return total + (fault.after_event is None and fault.at_byte is None)
    here = _offset_of(fault, planned)
    if here is None:
        return total
    if fault.kind is Kind.END:
        return here
    if fault.kind in (Kind.ERROR_EVENT, Kind.SPLICE):
        return len(fault.data) + (total if fault.then == "continue" else here)
    return total


def _offset_of(fault: Fault, planned: list[bytes]) -> int | None:
    total = sum(map(len, planned))
    if fault.after_event is not None:
        return sum(map(len, planned[: fault.after_event])) if fault.after_event <= len(planned) else None
    return min(fault.at_byte, total) if fault.at_byte is not None else total


# The strikes, one per fault. `event` comes next; `split` bytes of it still go out before the fault.
# After `Left.REST` the stream goes on with `event[split:]`.


async def _end(player: Player, _fault: Fault, event: bytes, split: int) -> Left:
    await player.body.piece(event[:split])
    await player.body.finish()
    return Left.REUSE


async def _cut(player: Player, fault: Fault, event: bytes, split: int) -> Left:
    by_byte = fault.at_byte is not None
    tail = split if by_byte else len(event) // 2 if fault.size < 0 else fault.size
    await player.body.torn(event, tail)
    await player.body.flush()
    await player.link.close()
    return Left.CLOSED


async def _reset(player: Player, _fault: Fault, event: bytes, split: int) -> Left:
    await player.body.torn(event, split)
    await player.body.flush()
    await player.link.reset()
    return Left.CLOSED


async def _close_after(player: Player, _fault: Fault, event: bytes, split: int) -> Left:
    await player.body.piece(event[:split])
    await player.body.flush()
    await player.link.close()
    return Left.CLOSED


async def _stall(player: Player, fault: Fault, event: bytes, split: int) -> Left:
    await player.body.piece(event[:split])
    await player.body.flush()
    player.count()
    if fault.seconds is not None:
        await asyncio.sleep(fault.seconds)
        return Left.REST
    await asyncio.sleep(player.limit)
    await player.link.close()
    return Left.CLOSED


async def _keepalive(player: Player, fault: Fault, event: bytes, split: int) -> Left:
    await player.body.piece(event[:split])
    lasting = player.limit if fault.seconds is None else fault.seconds
    until = time.monotonic() + lasting
    number = player.events
    while time.monotonic() < until:
        await player.body.piece(fault.data.replace(b"{n}", b"%d" % number))
        await player.body.flush()
        player.count()
        number += 1
        await asyncio.sleep(min(fault.interval, max(0.0, until - time.monotonic())))
    if fault.seconds is not None:
        return Left.REST
    await player.link.close()
    return Left.CLOSED


async def _no_close_notify(player: Player, _fault: Fault, event: bytes, split: int) -> Left:
    await player.body.piece(event[:split])
    await player.body.flush()
    await player.link.vanish()
    return Left.CLOSED


async def _inject(player: Player, fault: Fault, event: bytes, split: int) -> Left:
    await player.body.piece(event[:split])
    await player.body.piece(fault.data)
    await player.body.flush()
    player.count()
    if fault.then == "continue":
        return Left.REST
    return await _STRIKES[_THEN[fault.then]](player, _after(fault).on(player.wire), b"", 0)


def _after(fault: Fault) -> Fault:
    return Fault.keepalive(interval=0.05) if fault.then == "pings" else Fault.end()


async def _gzip_cut(player: Player, _fault: Fault, event: bytes, split: int) -> Left:
    await player.body.piece(event[:split])
    await player.body.finish(trailer=False)
    return Left.REUSE


async def _hang(player: Player, fault: Fault, _event: bytes, _split: int) -> Left:
    if fault.seconds is not None:
        await asyncio.sleep(fault.seconds)
        return Left.REST
    await asyncio.sleep(player.limit)
    await player.link.close()
    return Left.CLOSED


async def _close(player: Player, _fault: Fault, _event: bytes, _split: int) -> Left:
    await player.link.close()
    return Left.CLOSED


async def _refuse(player: Player, fault: Fault, _event: bytes, _split: int) -> Left:
    player.refuse(fault.seconds)
    await player.link.reset()
    return Left.CLOSED


_THEN = {"end": Kind.END, "cut": Kind.CUT, "reset": Kind.RESET, "stall": Kind.STALL, "pings": Kind.KEEPALIVE}

_STRIKES: dict[Kind, Callable[[Player, Fault, bytes, int], Awaitable[Left]]] = {
    Kind.END: _end,
    Kind.CUT: _cut,
    Kind.RESET: _reset,
    Kind.EOF: _close_after,
    Kind.SHORT: _close_after,
    Kind.STALL: _stall,
    Kind.KEEPALIVE: _keepalive,
    Kind.NO_CLOSE_NOTIFY: _no_close_notify,
    Kind.ERROR_EVENT: _inject,
    Kind.SPLICE: _inject,
    Kind.GZIP_CUT: _gzip_cut,
    Kind.HANG: _hang,
    Kind.CLOSE: _close,
    Kind.HEADERS_ONLY: _close_after,
    Kind.REFUSE: _refuse,
}
