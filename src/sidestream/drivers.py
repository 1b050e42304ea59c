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
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace

from .cancel import Cancel, Kind
from .errors import Cancelled, SidestreamError
from .net import sync
from .net.common import FAILURES, CallClock, Errand
from .recovery.clocks import Meter
from .recovery.exchange import Batch, Exchange
from .recovery.faults import from_exception
from .recovery.flow import (
    Action,
    Broke,
    Call,
    Dismiss,
    Ended,
    Outcome,
    Queue,
    Rejected,
    Renew,
    Renewed,
    Send,
    Sleep,
    Stopped,
    Tell,
    Woke,
    flow,
)
from .recovery.origins import Origins
from .recovery.queues import Queues
from .reply import Reply
from .route import Credential, Route
from .telemetry import Observer, Stopwatch, tell
from .wire.events import Recovering

if TYPE_CHECKING:
    from .net import aio  # loaded with the first AsyncClient: asyncio is heavy, and a sync program has no use

__all__ = ["PROCESS", "AsyncRun", "Run", "System"]

Notify = Callable[[Recovering], None]
Batches = Generator[Batch, None, None]
AsyncBatches = AsyncGenerator[Batch, None]

# Seconds and chunks a finished answer's body gets to end, so that its connection can be kept.
_DRAIN_SECONDS = 0.01
_DRAIN_CHUNKS = 16


# The one thing all clients of a process share: a storm is stopped together or not at all (R4).
PROCESS = Origins(time.monotonic, lock=threading.RLock())
TURNS = Queues(lock=threading.RLock())
# Seconds that telling a provider to drop a job may take.
_DISMISS_SECONDS = 2.0


class System(Struct, frozen=True):
    """What a client takes from the world, so that tests can be the world.

    `clock` is monotonic seconds for the sync client (asyncio keeps its own), `unix_time` the wall,
    `random` draws from [0, 1). `origins` is what is known of each endpoint, by every client of the process,
    and `queues` is where their calls wait for their turn.
    """

    clock: Callable[[], float] = time.monotonic
    unix_time: Callable[[], float] = time.time
    random: Callable[[], float] = field(default_factory=lambda: random.Random().random)
    origins: Origins = field(default_factory=lambda: PROCESS)
    queues: Queues = field(default_factory=lambda: TURNS)


class Orders(Struct, frozen=True):
    """What goes with a call besides its content: who may stop it, who hears of recoveries and of its end."""

    cancel: Cancel | None = None
    atomic: bool = False
    notify: Notify | None = None
    observers: tuple[Observer, ...] = ()

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


def renewal(action: Renew) -> Errand[Route | None]:
    """Have a key renewed in a thread of its own: it ends its work even if the call is cancelled."""
    credential, route = action.route.credential, action.route
    if credential is None:
        raise RuntimeError("only a route with a credential can be renewed")
    return Errand(lambda: credential.renew(route, action.seconds))


def _why_not(error: BaseException | None, credential: Credential | None) -> str:
    """Why there is no other key, for people. Our own errors never quote one; others are only named."""
    if isinstance(error, SidestreamError):
        return f"{error}: {error.hint}" if error.hint else str(error)
    if error is not None:
        return f"the credential failed with {type(error).__name__}"
    return str(getattr(credential, "problem", "") or "")


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

    @property
    def torn(self) -> bool:
        """Whether the last exchange ended before its body did."""
        return isinstance(self._outcome, Broke)

    @property
    def so_far(self) -> Reply:
        """The reply as it stands; its status is "dropped" until the call has ended."""
        if self.exchange is None:
            return Reply("dropped")
        return self.reply or self.exchange.assembler.reply("dropped")

    def stop(self, kind: Kind = "cancel") -> None:
        """End the call, from any thread."""
        self._brake.stop(kind)

    def strict(self) -> None:
        """The consumer cannot be told that the answer begins anew. To be said before the first event."""
        self._call = replace(self._call, strict=True)

    def _story(self) -> Generator[Action, Outcome, Reply]:
        system = self._system
        self._times = Stopwatch(system.clock, system.unix_time)
        return flow(
            self._call,
            now=self._clock.now(),
            unix_time=system.unix_time(),
            random=system.random,
            origins=system.origins,
            queues=system.queues,
        )

    @staticmethod
    def _briefly(clock: CallClock) -> Meter:
        """What telling the provider to drop a job may take."""
        return Meter.of(_DISMISS_SECONDS, clock.now())

    def _finish(self, error: BaseException | None = None) -> None:
        """The call has ended, with this error or none: tell who wants to know."""
        tell(self._orders.observers, self._call, self._times, self.reply, error)

    def _came_of(self) -> Outcome:
        """What came of the last action."""
        if self._outcome is None:
            raise RuntimeError("an action ends with an outcome")
        return self._outcome

    def _renewal(self, errand: Errand[Route | None], action: Renew) -> Outcome:
        """What came of having a key renewed."""
        if stopped := self._stopped():
            return stopped
        if not errand.ready:
            return Renewed(None, f"no other key in {action.seconds:.0f} s", self._clock.now())
        return Renewed(errand.value, _why_not(errand.error, action.route.credential), self._clock.now())

    def _stopped(self) -> Stopped | None:
        return Stopped(self._brake.stopped, self._clock.now()) if self._brake.stopped else None

    def _broke(self, error: Exception, meter: Meter) -> Outcome:
        return self._stopped() or Broke(from_exception(error, clock=meter.clock), self._clock.now())

    def _progress(self, exchange: Exchange, meter: Meter) -> None:
        """Output arrived."""
        now = self._clock.now()
        meter.progress(now)
        if exchange.first_at is None:
            exchange.output_began(now)
            self._brake.rearm()  # what was awaited so far may have had more time than what comes next

    def _close(self, exchange: Exchange, meter: Meter) -> Batch:
        """Let the wire have its last word; nonsense there matters only if nothing else went wrong."""
        try:
            return exchange.close()
        except FAILURES as error:
            if isinstance(self._outcome, Ended):
                self._outcome = self._broke(error, meter)
            return []


class Run(_Common):
    """One call, driven by the thread that iterates `events`; after the last event `reply` is the reply.

    Events are those of a live consumer (`StreamEvent`), or the bytes of the call's relay.
    """

    def __init__(self, call: Call, pool: sync.AnyPool, system: System, orders: Orders) -> None:
        self._pool = pool
        self._watch = sync.Watch(CallClock(system.clock))
        super().__init__(call, system, orders, self._watch)

    def events(self) -> Generator[Any, None, None]:
        story = self._story()
        unsubscribe = self._orders.listen(self.stop)
        try:
            action = next(story)
            while True:
                with contextlib.closing(self._perform(action)) as batches:
                    for batch in batches:
                        self._clock.pause()
                        for event in batch:
                            yield event
                            if self._watch.stopped:
                                break
                        self._clock.resume()
                action = story.send(self._came_of())
        except StopIteration as end:
            self.reply = end.value
            self._finish()
        except (SidestreamError, Cancelled) as error:
            self.reply = error.reply
            self._finish(error)
            raise
        except BaseException as why:  # the consumer went away
            self._abandon(story, why)
            raise
        finally:
            unsubscribe()
            story.close()

    def _abandon(self, story: Generator[Action, Outcome, Reply], why: BaseException) -> None:
        """The consumer went away: what the story still wants done is done without one."""
        try:
            action = story.send(Stopped("cancel", self._clock.now()))
            while isinstance(action, Dismiss):
                self._dismiss(action)
                action = story.send(Woke(self._clock.now()))
        except Cancelled as stopped:
            self.reply = stopped.reply
        except StopIteration:
            pass  # the story itself broke off
        finally:
            self._finish(why)

    def _dismiss(self, action: Dismiss) -> None:
        """Tell a provider that nobody waits for its job, whatever it answers."""
        watch = sync.Watch(CallClock(self._system.clock))
        watch.meter = self._briefly(watch.clock)
        with contextlib.suppress(*FAILURES):
            lane = self._pool.open(action.route, watch)
            with contextlib.closing(lane):
                lane.send(action.route, b"", target=action.target)

    def _perform(self, action: Action) -> Batches:
        if isinstance(action, Send):
            self._times.send()
            return self._exchange(action)
        return self._between(action)

    def _between(self, action: Sleep | Queue | Renew | Tell | Dismiss) -> Batches:
        if isinstance(action, Dismiss):
            self._dismiss(action)
        elif isinstance(action, Sleep):
            self._watch.sleep(action.seconds)
        elif isinstance(action, Queue):
            self._watch.wait(action.place, action.seconds)
        elif isinstance(action, Renew):
            errand = renewal(action)
            self._watch.wait(errand, action.seconds)
            self._outcome = self._renewal(errand, action)
            return
        else:
            self._orders.tell(action.notice)
            if self._call.live and self._call.relay is None:
                yield [action.notice]
        self._outcome = self._stopped() or Woke(self._clock.now())

    def _exchange(self, send: Send) -> Batches:
        self.exchange = exchange = send.exchange
        meter = self._watch.meter = Meter(send.clocks, self._clock.now())
        lane: sync.AnyLane | None = None
        try:
            lane = self._pool.open(send.route, self._watch)
            meter.connected(self._clock.now())
            opened = lane.send(send.route, send.body, "GET" if send.target else "POST", send.target)
            if not 200 <= opened.status < 300:
                self._outcome = Rejected(opened.status, opened.headers, lane.rest(), self._clock.now())
                return
            yield exchange.opened(opened.headers)
            chunks = lane.chunks()
            for chunk in chunks:
                batch = exchange.feed(chunk)
                if exchange.has_progressed():
                    self._progress(exchange, meter)
                if batch:
                    yield batch
                    if self._watch.stopped:
                        self._watch.check()
                if exchange.done:
                    break
                if exchange.over:
                    meter.over(self._clock.now())
                    self._watch.rearm()
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
        self._watch.rearm()
        with contextlib.suppress(*FAILURES):
            return any(next(chunks, None) is None for _ in range(_DRAIN_CHUNKS))
        return False


class AsyncRun(_Common):
    """One call, driven by the task that iterates `events`; after the last event `reply` is the reply."""

    def __init__(self, call: Call, pool: aio.AnyPool, system: System, orders: Orders) -> None:
        self._pool = pool
        self._alarm = pool.alarm()
        super().__init__(call, system, orders, self._alarm)

    async def events(self) -> AsyncGenerator[Any, None]:
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
                            if self._alarm.stopped:
                                break
                        self._alarm.resume()
                action = story.send(self._came_of())
        except StopIteration as end:
            self.reply = end.value
            self._finish()
        except (SidestreamError, Cancelled) as error:
            self.reply = error.reply
            self._finish(error)
            raise
        except BaseException as why:  # the consumer went away, or its task was cancelled
            await self._abandon(story, why)
            raise
        finally:
            unsubscribe()
            story.close()

    async def _abandon(self, story: Generator[Action, Outcome, Reply], why: BaseException) -> None:
        """The consumer went away: what the story still wants done is done without one."""
        try:
            action = story.send(Stopped("cancel", self._clock.now()))
            while isinstance(action, Dismiss):
                await self._dismiss(action)
                action = story.send(Woke(self._clock.now()))
        except Cancelled as stopped:
            self.reply = stopped.reply
        except StopIteration:
            pass  # the story itself broke off
        finally:
            self._finish(why)

    async def _dismiss(self, action: Dismiss) -> None:
        """Tell a provider that nobody waits for its job, whatever it answers. It is told even if this task is
        cancelled again meanwhile, as a scope of anyio does with every wait."""
        import asyncio  # loaded with the client

        await asyncio.shield(asyncio.ensure_future(self._told(action)))

    async def _told(self, action: Dismiss) -> None:
        alarm = self._pool.alarm()
        with contextlib.suppress(*FAILURES), alarm.guard(self._briefly(alarm.clock)):
            lane = await self._pool.open(action.route, alarm)
            async with contextlib.aclosing(lane):
                await lane.send(action.route, b"", target=action.target)

    def _perform(self, action: Action) -> AsyncBatches:
        if isinstance(action, Send):
            self._times.send()
            return self._exchange(action)
        return self._between(action)

    async def _between(self, action: Sleep | Queue | Renew | Tell | Dismiss) -> AsyncBatches:
        if isinstance(action, Dismiss):
            await self._dismiss(action)
        elif isinstance(action, Sleep):
            with contextlib.suppress(*FAILURES), self._alarm.guard(None):
                await self._alarm.sleep(action.seconds)
        elif isinstance(action, Queue):
            with contextlib.suppress(*FAILURES), self._alarm.guard(None):
                await self._alarm.wait(action.place, action.seconds)
        elif isinstance(action, Renew):
            errand = renewal(action)
            with contextlib.suppress(*FAILURES), self._alarm.guard(None):
                await self._alarm.wait(errand, action.seconds)
            self._outcome = self._renewal(errand, action)
            return
        else:
            self._orders.tell(action.notice)
            if self._call.live and self._call.relay is None:
                yield [action.notice]
        self._outcome = self._stopped() or Woke(self._clock.now())

    async def _exchange(self, send: Send) -> AsyncBatches:
        self.exchange = exchange = send.exchange
        meter = Meter(send.clocks, self._clock.now())
        lane: aio.AnyLane | None = None
        try:
            with self._alarm.guard(meter):
                lane = await self._pool.open(send.route, self._alarm)
                meter.connected(self._clock.now())
                self._alarm.rearm()
                method = "GET" if send.target else "POST"
                opened = await lane.send(send.route, send.body, method, send.target)
                if not 200 <= opened.status < 300:
                    body = await lane.rest()
                    self._outcome = Rejected(opened.status, opened.headers, body, self._clock.now())
                    return
                yield exchange.opened(opened.headers)
                async with contextlib.aclosing(lane.chunks()) as chunks:
                    async for chunk in chunks:
                        batch = exchange.feed(chunk)
                        if exchange.has_progressed():
                            self._progress(exchange, meter)
                        if batch:
                            yield batch
                            if self._alarm.stopped:
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
                await lane.aclose()
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
