"""The two loops that do what the flow says: one for threads, one for asyncio, alike line by line.

Strategy: a run takes actions from `recovery.flow`, performs them and sends back what came of them. An
attempt's bytes go from the connection into its `Exchange`, and what comes out of that is yielded on; while
the consumer has it, the call's clock stands still. A run is a generator: closing it, for whatever reason,
closes the connection. After the last word of an answer the connection gets a moment to end cleanly, so that
it can be used again.

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
from .net import sync
from .net.common import FAILURES, CallClock
from .recovery.clocks import Meter
from .recovery.exchange import Exchange
from .recovery.faults import from_exception
from .recovery.flow import Broke, Call, Ended, Outcome, Rejected, Send, Sleep, Stopped, Tell, Woke, flow
from .reply import Reply
from .wire.events import Recovering, StreamEvent

if TYPE_CHECKING:
    from .net import aio  # loaded with the first AsyncClient: asyncio is heavy, and a sync program has no use

__all__ = ["AsyncRun", "Run", "System"]

Notify = Callable[[Recovering], None]

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


class Run:
    """One call, driven by the thread that iterates `events`."""

    def __init__(self, call: Call, pool: sync.Pool, system: System, orders: Orders) -> None:
        self._call = call
        self._pool = pool
        self._system = system
        self._orders = orders
        self._clock = CallClock(system.clock)
        self._watch = sync.Watch(self._clock)
        self.exchange: Exchange | None = None
        self.reply: Reply | None = None

    def stop(self, kind: Kind = "cancel") -> None:
        """End the call, from any thread."""
        self._watch.stop(kind)

    def events(self) -> Generator[StreamEvent, None, Reply]:
        story = flow(
            self._call,
            now=self._clock.now(),
            unix_time=self._system.unix_time(),
            random=self._system.random,
        )
        unsubscribe = self._orders.listen(self.stop)
        try:
            action = next(story)
            while True:
                action = story.send((yield from self._perform(action)))
        except StopIteration as end:
            self.reply = end.value
            return end.value  # type: ignore[no-any-return]  # the flow's return value is a Reply
        finally:
            unsubscribe()
            story.close()

    def _perform(self, action: Send | Sleep | Tell) -> Generator[StreamEvent, None, Outcome]:
        if isinstance(action, Send):
            return (yield from self._exchange(action))
        if isinstance(action, Sleep):
            self._watch.sleep(action.seconds)
        else:
            self._orders.tell(action.notice)
            if self._call.live:
                yield from self._hand_over([action.notice])
        now = self._clock.now()
        return Stopped(self._watch.stopped, now) if self._watch.stopped else Woke(now)

    def _hand_over(self, events: list[StreamEvent]) -> Generator[StreamEvent, None, None]:
        """The consumer's turn: its time does not count."""
        self._clock.pause()
        yield from events
        self._clock.resume()

    def _exchange(self, send: Send) -> Generator[StreamEvent, None, Outcome]:
        self.exchange = send.exchange
        meter = self._watch.meter = Meter(send.clocks, self._clock.now())
        lane: sync.Lane | None = None
        try:
            lane = self._pool.open(send.route, self._watch)
            meter.connected(self._clock.now())
            opened = lane.post(send.route, send.body)
            if not 200 <= opened.status < 300:
                return Rejected(opened.status, opened.headers, lane.rest(), self._clock.now())
            send.exchange.opened(opened.headers)
            chunks = lane.chunks()
            yield from self._read(send.exchange, chunks, meter)
            if self._ends(chunks, meter) and lane.finish():
                self._pool.keep(lane)
                lane = None
            outcome: Outcome = Ended(self._clock.now())
        except FAILURES as error:
            outcome = self._broke(error, meter)
        finally:
            self._watch.attach(None)
            if lane is not None:
                lane.close()
        return (yield from self._close(send.exchange, outcome, meter))

    def _read(
        self, exchange: Exchange, chunks: Iterator[bytes], meter: Meter
    ) -> Generator[StreamEvent, None, None]:
        now = self._clock.now
        for chunk in chunks:
            events = exchange.feed(chunk)
            if exchange.progressed:
                meter.progress(now())
            if events:
                yield from self._hand_over(events)
            if exchange.over:
                if exchange.done:
                    return
                meter.over(now())

    def _ends(self, chunks: Iterator[bytes], meter: Meter) -> bool:
        """Whether the body ends right after the answer did."""
        meter.drain(self._clock.now(), _DRAIN_SECONDS)
        with contextlib.suppress(*FAILURES):
            return any(next(chunks, None) is None for _ in range(_DRAIN_CHUNKS))
        return False

    def _close(
        self, exchange: Exchange, outcome: Outcome, meter: Meter
    ) -> Generator[StreamEvent, None, Outcome]:
        """Let the wire have its last word; nonsense there matters only if nothing else went wrong."""
        try:
            last = exchange.close()
        except FAILURES as error:
            return self._broke(error, meter) if isinstance(outcome, Ended) else outcome
        if last:
            yield from self._hand_over(last)
        return outcome

    def _broke(self, error: Exception, meter: Meter) -> Outcome:
        now = self._clock.now()
        if self._watch.stopped:
            return Stopped(self._watch.stopped, now)
        return Broke(from_exception(error, clock=meter.clock), now)


class AsyncRun:
    """One call, driven by the task that iterates `events`. An async generator cannot return, so the reply
    is in `reply`."""

    def __init__(self, call: Call, pool: aio.Pool, system: System, orders: Orders) -> None:
        self._call = call
        self._pool = pool
        self._system = system
        self._orders = orders
        self._alarm = pool.alarm()
        self._clock = self._alarm.clock
        self._outcome: Outcome | None = None
        self.exchange: Exchange | None = None
        self.reply: Reply | None = None

    def stop(self, kind: Kind = "cancel") -> None:
        """End the call, from any thread."""
        self._alarm.stop(kind)

    async def events(self) -> AsyncGenerator[StreamEvent, None]:
        story = flow(
            self._call,
            now=self._clock.now(),
            unix_time=self._system.unix_time(),
            random=self._system.random,
        )
        unsubscribe = self._orders.listen(self.stop)
        try:
            action = next(story)
            while True:
                async with contextlib.aclosing(self._perform(action)) as events:
                    async for event in events:
                        yield event
                if self._outcome is None:
                    raise RuntimeError("an action ends with an outcome")
                action = story.send(self._outcome)
        except StopIteration as end:
            self.reply = end.value
        finally:
            unsubscribe()
            story.close()

    async def _perform(self, action: Send | Sleep | Tell) -> AsyncGenerator[StreamEvent, None]:
        if isinstance(action, Send):
            async with contextlib.aclosing(self._exchange(action)) as events:
                async for event in events:
                    yield event
            return
        if isinstance(action, Sleep):
            with contextlib.suppress(*FAILURES), self._alarm.guard(None):
                await self._alarm.sleep(action.seconds)
        else:
            self._orders.tell(action.notice)
            if self._call.live:
                self._clock.pause()
                yield action.notice
                self._clock.resume()
        now = self._clock.now()
        self._outcome = Stopped(self._alarm.stopped, now) if self._alarm.stopped else Woke(now)

    async def _exchange(self, send: Send) -> AsyncGenerator[StreamEvent, None]:
        self.exchange = send.exchange
        meter = Meter(send.clocks, self._clock.now())
        lane: aio.Lane | None = None
        try:
            with self._alarm.guard(meter):
                lane = await self._pool.open(send.route, self._alarm)
                meter.connected(self._clock.now())
                self._alarm.rearm()
                opened = await lane.post(send.route, send.body)
                if not 200 <= opened.status < 300:
                    self._outcome = Rejected(
                        opened.status, opened.headers, await lane.rest(), self._clock.now()
                    )
                    return
                send.exchange.opened(opened.headers)
                chunks = lane.chunks()
                async for event in self._read(send.exchange, chunks, meter):
                    yield event
                if await self._ends(chunks, meter) and await lane.finish():
                    self._pool.keep(lane)
                    lane = None
            outcome: Outcome = Ended(self._clock.now())
        except FAILURES as error:
            outcome = self._broke(error, meter)
        finally:
            self._alarm.attach(None)
            if lane is not None:
                lane.close()
        self._outcome = outcome
        for event in self._close(send.exchange, outcome, meter):
            self._clock.pause()
            yield event
            self._clock.resume()

    async def _read(
        self, exchange: Exchange, chunks: AsyncIterator[bytes], meter: Meter
    ) -> AsyncGenerator[StreamEvent, None]:
        now = self._clock.now
        async for chunk in chunks:
            events = exchange.feed(chunk)
            if exchange.progressed:
                meter.progress(now())
                self._alarm.rearm()
            if events:
                self._clock.pause()
                for event in events:
                    yield event
                self._alarm.resume()
            if exchange.over:
                if exchange.done:
                    return
                meter.over(now())
                self._alarm.rearm()

    async def _ends(self, chunks: AsyncIterator[bytes], meter: Meter) -> bool:
        """Whether the body ends right after the answer did."""
        meter.drain(self._clock.now(), _DRAIN_SECONDS)
        self._alarm.rearm()
        with contextlib.suppress(*FAILURES):
            for _ in range(_DRAIN_CHUNKS):
                if await anext(chunks, None) is None:
                    return True
        return False

    def _close(self, exchange: Exchange, outcome: Outcome, meter: Meter) -> list[StreamEvent]:
        """Let the wire have its last word; nonsense there matters only if nothing else went wrong."""
        try:
            return exchange.close()
        except FAILURES as error:
            if isinstance(outcome, Ended):
                self._outcome = self._broke(error, meter)
            return []

    def _broke(self, error: Exception, meter: Meter) -> Outcome:
        now = self._clock.now()
        if self._alarm.stopped:
            return Stopped(self._alarm.stopped, now)
        return Broke(from_exception(error, clock=meter.clock), now)
