"""The two loops that do what the flow says: one for threads, one for asyncio, alike line by line.

Strategy: a run takes actions from `recovery.flow`, performs them and sends back what came of them. An
attempt's bytes go from the connection into its `Exchange`; what comes out of a chunk goes to the consumer as
one batch, and the call's clock stands still while the consumer has it. A run is a generator: closing it, for
whatever reason, closes the connection. After the last word of an answer the connection gets a moment to end
cleanly, so that it can be used again.

Not here: decisions. If a line here asks what a fault means, it is in the wrong file.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .cancel import Cancel, Kind
from .errors import Cancelled, SidestreamError
from .net import sync
from .net.common import FAILURES, CallClock
from .recovery.clocks import Meter
from .recovery.exchange import Exchange
from .recovery.faults import from_exception
from .recovery.flow import (
    Action,
    Broke,
    Call,
    Ended,
    Outcome,
    Rejected,
    Send,
    Sleep,
    Stopped,
    Tell,
    Woke,
    flow,
)
from .reply import Reply
from .wire.events import Recovering, StreamEvent

if TYPE_CHECKING:
    from .net import aio  # loaded with the first AsyncClient: asyncio is heavy, and a sync program has no use

__all__ = ["AsyncRun", "Run", "System"]

Notify = Callable[[Recovering], None]
Batches = Generator[list[StreamEvent], None, None]
AsyncBatches = AsyncGenerator[list[StreamEvent], None]

# Seconds and chunks a finished answer's body gets to end, so that its connection can be kept.
_DRAIN_SECONDS = 0.01
_DRAIN_CHUNKS = 16


@dataclass(frozen=True)
class System:
    """What a client takes from the world, so that tests can be the world.

    `clock` is monotonic seconds for the sync client (asyncio keeps its own), `unix_time` the wall,
    `random` draws from [0, 1).
    """

    clock: Callable[[], float] = time.monotonic
    unix_time: Callable[[], float] = time.time
    random: Callable[[], float] = field(default_factory=lambda: random.Random().random)


@dataclass(frozen=True, slots=True)
class Orders:
    """What goes with a call besides its content: who may stop it, who wants to hear of recoveries."""

    cancel: Cancel | None = None
    atomic: bool = False
    notify: Notify | None = None

    def listen(self, stop: Callable[[Kind], None]) -> Callable[[], None]:
        """Pass stops on to `stop`; returns what ends that."""
        if self.cancel is None:
            return lambda: None

        def heard(kind: Kind) -> None:
            if kind == "cancel" or not self.atomic:
                stop(kind)

        return self.cancel.subscribe(heard)

    def tell(self, notice: Recovering) -> None:
        if self.notify is not None:
            self.notify(notice)


class _Common:
    """What both loops share: the parts of a call, and what came of an action."""

    def __init__(self, call: Call, system: System, orders: Orders, brake: sync.Watch | aio.Alarm) -> None:
        self._call = call
        self._system = system
        self._orders = orders
        self._brake = brake
        self._clock = brake.clock
        self._outcome: Outcome | None = None
        self.exchange: Exchange | None = None
        self.reply: Reply | None = None

    def stop(self, kind: Kind = "cancel") -> None:
        """End the call, from any thread."""
        self._brake.stop(kind)

    def _story(self) -> Generator[Action, Outcome, Reply]:
        now, unix_time = self._clock.now(), self._system.unix_time()
        return flow(self._call, now=now, unix_time=unix_time, random=self._system.random)

    def _came_of(self) -> Outcome:
        """What came of the last action."""
        if self._outcome is None:
            raise RuntimeError("an action ends with an outcome")
        return self._outcome

    def _stopped(self) -> Stopped | None:
        return Stopped(self._brake.stopped, self._clock.now()) if self._brake.stopped else None

    def _broke(self, error: Exception, meter: Meter) -> Outcome:
        return self._stopped() or Broke(from_exception(error, clock=meter.clock), self._clock.now())

    def _close(self, exchange: Exchange, meter: Meter) -> list[StreamEvent]:
        """Let the wire have its last word; nonsense there matters only if nothing else went wrong."""
        try:
            return exchange.close()
        except FAILURES as error:
            if isinstance(self._outcome, Ended):
                self._outcome = self._broke(error, meter)
            return []


class Run(_Common):
    """One call, driven by the thread that iterates `events`; after the last event `reply` is the reply."""

    def __init__(self, call: Call, pool: sync.Pool, system: System, orders: Orders) -> None:
        self._pool = pool
        self._watch = sync.Watch(CallClock(system.clock))
        super().__init__(call, system, orders, self._watch)

    def events(self) -> Generator[StreamEvent, None, None]:
        story = self._story()
        unsubscribe = self._orders.listen(self.stop)
        try:
            action = next(story)
            while True:
                with contextlib.closing(self._perform(action)) as batches:
                    for batch in batches:
                        self._clock.pause()
                        yield from batch
                        self._clock.resume()
                action = story.send(self._came_of())
        except StopIteration as end:
            self.reply = end.value
        except (SidestreamError, Cancelled) as error:
            self.reply = error.reply
            raise
        finally:
            unsubscribe()
            story.close()

    def _perform(self, action: Send | Sleep | Tell) -> Batches:
        if isinstance(action, Send):
            return self._exchange(action)
        return self._between(action)

    def _between(self, action: Sleep | Tell) -> Batches:
        if isinstance(action, Sleep):
            self._watch.sleep(action.seconds)
        else:
            self._orders.tell(action.notice)
            if self._call.live:
                yield [action.notice]
        self._outcome = self._stopped() or Woke(self._clock.now())

    def _exchange(self, send: Send) -> Batches:
        self.exchange = exchange = send.exchange
        meter = self._watch.meter = Meter(send.clocks, self._clock.now())
        lane: sync.Lane | None = None
        try:
            lane = self._pool.open(send.route, self._watch)
            meter.connected(self._clock.now())
            opened = lane.post(send.route, send.body)
            if not 200 <= opened.status < 300:
                self._outcome = Rejected(opened.status, opened.headers, lane.rest(), self._clock.now())
                return
            exchange.opened(opened.headers)
            chunks = lane.chunks()
            for chunk in chunks:
                batch = exchange.feed(chunk)
                if exchange.has_progressed():
                    meter.progress(self._clock.now())
                if batch:
                    yield batch
                    self._watch.check()
                if exchange.done:
                    break
                if exchange.over:
                    meter.over(self._clock.now())
            if self._ends(chunks, meter) and lane.finish():
                self._pool.keep(lane)
                lane = None
            self._outcome = Ended(self._clock.now())
        except FAILURES as error:
            self._outcome = self._broke(error, meter)
        finally:
            self._watch.attach(None)
            if lane is not None:
                lane.close()
        if last := self._close(exchange, meter):
            yield last

    def _ends(self, chunks: Iterator[bytes], meter: Meter) -> bool:
        """Whether the body ends right after the answer did."""
        meter.drain(self._clock.now(), _DRAIN_SECONDS)
        with contextlib.suppress(*FAILURES):
            return any(next(chunks, None) is None for _ in range(_DRAIN_CHUNKS))
        return False


class AsyncRun(_Common):
    """One call, driven by the task that iterates `events`; after the last event `reply` is the reply."""

    def __init__(self, call: Call, pool: aio.Pool, system: System, orders: Orders) -> None:
        self._pool = pool
        self._alarm = pool.alarm()
        super().__init__(call, system, orders, self._alarm)

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        story = self._story()
        unsubscribe = self._orders.listen(self.stop)
        try:
            action = next(story)
            while True:
                async with contextlib.aclosing(self._perform(action)) as batches:
                    async for batch in batches:
                        self._alarm.pause()
                        for event in batch:
                            yield event
                        self._alarm.resume()
                action = story.send(self._came_of())
        except StopIteration as end:
            self.reply = end.value
        except (SidestreamError, Cancelled) as error:
            self.reply = error.reply
            raise
        finally:
            unsubscribe()
            story.close()

    def _perform(self, action: Send | Sleep | Tell) -> AsyncBatches:
        if isinstance(action, Send):
            return self._exchange(action)
        return self._between(action)

    async def _between(self, action: Sleep | Tell) -> AsyncBatches:
        if isinstance(action, Sleep):
            with contextlib.suppress(*FAILURES), self._alarm.guard(None):
                await self._alarm.sleep(action.seconds)
        else:
            self._orders.tell(action.notice)
            if self._call.live:
                yield [action.notice]
        self._outcome = self._stopped() or Woke(self._clock.now())

    async def _exchange(self, send: Send) -> AsyncBatches:
        self.exchange = exchange = send.exchange
        meter = Meter(send.clocks, self._clock.now())
        lane: aio.Lane | None = None
        try:
            with self._alarm.guard(meter):
                lane = await self._pool.open(send.route, self._alarm)
                meter.connected(self._clock.now())
                self._alarm.rearm()
                opened = await lane.post(send.route, send.body)
                if not 200 <= opened.status < 300:
                    body = await lane.rest()
                    self._outcome = Rejected(opened.status, opened.headers, body, self._clock.now())
                    return
                exchange.opened(opened.headers)
                async with contextlib.aclosing(lane.chunks()) as chunks:
                    async for chunk in chunks:
                        batch = exchange.feed(chunk)
                        if exchange.has_progressed():
                            meter.progress(self._clock.now())
                            self._alarm.rearm()
                        if batch:
                            yield batch
                            self._alarm.check()
                        if exchange.done:
                            break
                        if exchange.over:
                            meter.over(self._clock.now())
                            self._alarm.rearm()
                    if await self._ends(chunks, meter) and await lane.finish():
                        self._pool.keep(lane)
                        lane = None
            self._outcome = Ended(self._clock.now())
        except FAILURES as error:
            self._outcome = self._broke(error, meter)
        finally:
            self._alarm.attach(None)
            if lane is not None:
                lane.close()
        if last := self._close(exchange, meter):
            yield last

    async def _ends(self, chunks: AsyncIterator[bytes], meter: Meter) -> bool:
        """Whether the body ends right after the answer did."""
        meter.drain(self._clock.now(), _DRAIN_SECONDS)
        self._alarm.rearm()
        with contextlib.suppress(*FAILURES):
            for _ in range(_DRAIN_CHUNKS):
                if await anext(chunks, None) is None:
                    return True
        return False
