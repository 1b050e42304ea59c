"""Calls that wait for their turn: at a route, among a task's; in threads and tasks, and how they leave."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from callers import WAYS, aheld, held
from roads import AT_ONCE, TEXT, Labs, asked, bearer, by_key, keys_at, to
from verdicts import Outcome

from sidestream import AsyncClient, BudgetExhausted, Cancel, Cancelled, Client, Route, TaskConfig, Timeouts
from sidestream.drivers import System
from sidestream.lab import Fault, Lab, Plan, script
from sidestream.recovery.queues import Place, Queues

by_way = pytest.mark.parametrize("way", WAYS)
by_loop = pytest.mark.parametrize("way", ["sync-held", "async-held"])
PATIENCE = 10.0
BOUND = 0.05 + 0.15


class Watched(Queues):
    """Queues that tell when somebody waits."""

    def __init__(self) -> None:
        super().__init__(lock=threading.RLock())
        self.entered = threading.Semaphore(0)

    def enter(self, name: str, limit: int, priority: int = 0) -> Place | None:
        place = super().enter(name, limit, priority)
        self.entered.release()
        return place

    def arrived(self, count: int = 1) -> None:
        """Wait until so many more have entered."""
        for _ in range(count):
            assert self.entered.acquire(timeout=PATIENCE)


def name_of(route: Route) -> str:
    return " ".join(route.part("route"))


def options(queues: Queues, **more: Any) -> dict[str, Any]:
    return {"system": System(queues=queues), **more}


def in_thread(way: str, routes: list[Route], queues: Queues, *, ask: Any = None, **more: Any) -> Future[Any]:
    """A call that runs while the test goes on; its outcome, and when it returned."""
    future: Future[tuple[Outcome, float]] = Future()

    def work() -> None:
        (outcome,) = asked(way, routes, client=options(queues, **more), **(ask or {}))
        future.set_result((outcome, time.monotonic()))

    threading.Thread(target=work).start()
    return future


@by_way
def test_a_call_waits_until_another_has_left(lab: Labs, way: str) -> None:
    """And goes at once then."""
    here, queues = lab(script.say(TEXT)), Watched()
    route = to(here, concurrency=1)
    before = queues.enter(name_of(route), 1)
    assert before is not None
    future = in_thread(way, [route], queues)
    queues.arrived(2)
    assert queues.waiting(name_of(route)) == (1, 1)
    assert len(here.requests) == 0
    before.leave()
    outcome, _ = future.result(PATIENCE)
    assert outcome.error is None
    assert queues._queues == {}


@by_way
def test_a_cancel_while_waiting_returns_at_once(lab: Labs, way: str) -> None:
    """No request is made, and the place in the queue is free."""
    here, queues, cancel = lab(script.say(TEXT)), Watched(), Cancel()
    route = to(here, concurrency=1)
    before = queues.enter(name_of(route), 1)
    assert before is not None
    future = in_thread(way, [route], queues, ask={"cancel": cancel})
    queues.arrived(2)
    stopped = time.monotonic()
    cancel.cancel()
    outcome, returned = future.result(PATIENCE)
    assert isinstance(outcome.error, Cancelled)
    assert returned - stopped < BOUND
    assert queues.waiting(name_of(route)) == (1, 0)
    before.leave()
    assert queues._queues == {}
    assert len(here.requests) == 0


def test_a_task_that_is_cancelled_leaves_the_queue(lab: Labs) -> None:
    """asyncio's own cancel, too."""
    here, queues = lab(script.say(TEXT)), Watched()
    route = to(here, concurrency=1)
    before = queues.enter(name_of(route), 1)
    assert before is not None

    async def run() -> None:
        async with AsyncClient(routes=[route], **options(queues)) as client:
            task = asyncio.ensure_future(client.complete("hi"))
            await asyncio.to_thread(queues.arrived, 2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert queues.waiting(name_of(route)) == (1, 0)

    asyncio.run(run())
    before.leave()
    assert queues._queues == {}


@by_way
def test_waiting_ends_with_the_calls_time(lab: Labs, way: str) -> None:
    """Then it is an error that names the queue and what to do."""
    here, queues = lab(script.say(TEXT)), Watched()
    route = to(here, name="busy", concurrency=1)
    assert queues.enter(name_of(route), 1) is not None
    (outcome,) = asked(way, [route], client=options(queues), timeout=Timeouts(total=0.2))
    assert outcome.error is not None
    assert "busy" in str(outcome.error)
    assert outcome.error.attempts == ()  # type: ignore[attr-defined]
    assert queues.waiting(name_of(route)) == (1, 0)


@by_way
def test_a_busy_key_is_waited_for_its_share_and_then_another_is_asked(lab: Labs, way: str) -> None:
    """Keys of one endpoint have a queue each."""
    here, queues = lab(by_key()), Watched()
    routes = [to(here, key, concurrency=1) for key in ("key-one", "key-two")]
    assert queues.enter(name_of(routes[0]), 1) is not None
    (outcome,) = asked(way, routes, client=options(queues), timeout=Timeouts(total=1.0))
    assert outcome.reply is not None
    assert keys_at(here) == bearer("key-two")
    assert "no turn came up at key-one" in outcome.reply.attempts[0].why[0]


def crowd(way: str, count: int, client: Callable[[], Any], **ask: Any) -> list[Outcome]:
    """So many calls at once, on one client."""
    ask = {"input": "hi", **ask}
    if way.startswith("sync"):
        with client() as blocking:
            outcomes: list[Outcome] = []
            threads = [
                threading.Thread(target=lambda: outcomes.append(held(blocking, ask))) for _ in range(count)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            return outcomes

    async def run() -> list[Outcome]:
        async with client() as patient:
            return await asyncio.gather(*(aheld(patient, ask) for _ in range(count)))

    return asyncio.run(run())


class Gauge:
    """How many requests were under way at once, as the server saw it."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    @property
    def most(self) -> int:
        moments = []
        for number in range(len(self._lab.requests)):
            request = self._lab.wait_ended(number)  # a caller has its answer before the lab has noted the end
            assert request.ended_at is not None
            moments += [(request.received_at, 1), (request.ended_at, -1)]
        under_way = most = 0
        for _, step in sorted(moments, key=lambda moment: (moment[0], moment[1])):
            under_way += step
            most = max(most, under_way)
        return most


@by_loop
@pytest.mark.parametrize("what", ["route", "task"])
def test_no_more_than_the_limit_are_under_way(lab: Labs, way: str, what: str) -> None:
    """Twelve calls at once, two at a time, everybody's turn comes; breaks and retries included."""
    plan = Plan([Fault.cut(after_event=3), None, Fault.close(), None])
    here, queues = lab(script.say(TEXT), plan=plan), Queues(lock=threading.RLock())
    route = to(here, concurrency=2 if what == "route" else None)
    tasks = {"side": TaskConfig(concurrency=2 if what == "task" else None)}
    kind = Client if way.startswith("sync") else AsyncClient
    outcomes = crowd(
        way, 12, lambda: kind(routes=[route], tasks=tasks, policy=AT_ONCE, **options(queues)), task="side"
    )
    assert [outcome.error for outcome in outcomes] == [None] * 12
    assert Gauge(here).most <= 2
    assert queues._queues == {}


@by_loop
def test_the_users_turn_goes_before_side_tasks(lab: Labs, way: str) -> None:
    """Two side calls wait, then the main one comes: it is the next."""
    queues = Watched()
    order: list[str] = []

    def answer(request: Any) -> script.Script:
        order.append(request.fields()["messages"][-1]["content"])
        return script.say(TEXT)(request)

    here = lab(answer)
    route = to(here, concurrency=1)
    before = queues.enter(name_of(route), 1)
    assert before is not None
    tasks = {"side": TaskConfig()}
    futures = []
    for words, task in (("side one", "side"), ("side two", "side"), ("main", None)):
        futures.append(in_thread(way, [route], queues, ask={"input": words, "task": task}, tasks=tasks))
        queues.arrived(2 if words == "side one" else 1)
    before.leave()
    for future in futures:
        assert future.result(PATIENCE)[0].error is None
    assert order == ["main", "side one", "side two"]


@by_way
def test_a_stream_that_is_closed_early_frees_its_place(lab: Labs, way: str) -> None:
    """A consumer that goes away leaves the queue."""
    here, queues = lab(script.say(TEXT)), Queues(lock=threading.RLock())
    route = to(here, concurrency=1)
    if way.startswith("sync"):
        with Client(routes=[route], **options(queues)) as client, client.stream("hi") as stream:
            for _ in stream:
                break
    else:

        async def run() -> None:
            client = AsyncClient(routes=[route], **options(queues))
            async with client, client.stream("hi") as stream:
                async for _ in stream:
                    break

        asyncio.run(run())
    assert queues._queues == {}


@by_way
@pytest.mark.parametrize(
    "plan", [Plan.always(Fault.close()), Plan.always(Fault.cut(after_event=3))], ids=["close", "cut"]
)
def test_a_call_that_fails_frees_its_place(lab: Labs, way: str, plan: Plan) -> None:
    """However it ends."""
    here, queues = lab(script.say(TEXT), plan=plan), Queues(lock=threading.RLock())
    route = replace(to(here, concurrency=1), continuation="none")
    (outcome,) = asked(way, [route], client=options(queues))
    assert outcome.error is not None
    assert queues._queues == {}


@by_way
def test_a_task_without_a_turn_is_an_error_at_its_deadline(lab: Labs, way: str) -> None:
    """No route is asked in its place."""
    here, other, queues = lab(script.say(TEXT)), lab(script.say(TEXT)), Watched()
    assert queues.enter("task side", 1) is not None
    tasks = {"side": TaskConfig(concurrency=1, timeout=0.2)}
    (outcome,) = asked(way, [to(here), to(other)], client=options(queues, tasks=tasks), task="side")
    assert isinstance(outcome.error, BudgetExhausted)
    assert outcome.error.budget == "queue"
    assert (len(here.requests), len(other.requests)) == (0, 0)
