"""Tasks of a program's own: configured, asked held or live, masked, and taking turns; over the lab's sockets.

Nothing here sleeps to win a race: an answer begins and then holds until its call is stopped, the queues say
who waits, and the lab's record says when each request arrived and when it was over.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import pytest
from ways import QUICK, both

from sidestream import (
    AsyncClient,
    BudgetExhausted,
    Cancel,
    Cancelled,
    Client,
    Reply,
    Route,
    TextDelta,
    UsageError,
)
from sidestream.drivers import System
from sidestream.lab import Fault, Lab, Plan, Request, script
from sidestream.recovery.queues import Queues
from sidestream.routes.config import TaskConfig, parse

ONE = TaskConfig(concurrency=1)


class Crowd:
    """Many calls at once, by threads or by tasks of one loop; `ask` begins one and returns its future."""

    def __init__(self, way: str, **settings: Any) -> None:
        self.queues = Queues(lock=threading.RLock())
        self._settings = {"policy": QUICK, "system": System(queues=self.queues), **settings}
        self._way = way

    def __enter__(self) -> Self:
        if self._way == "sync":
            self._client: Any = Client(**self._settings)
            self._threads = ThreadPoolExecutor(32)
            return self
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._enter(), self._loop).result(5)
        return self

    async def _enter(self) -> None:
        self._client = await AsyncClient(**self._settings).__aenter__()

    def __exit__(self, *_: object) -> None:
        if self._way == "sync":
            self._threads.shutdown()
            self._client.close()
            return
        asyncio.run_coroutine_threadsafe(self._client.__aexit__(None, None, None), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def ask(self, words: str = "hi", **options: Any) -> Future[Reply]:
        if self._way == "sync":
            return self._threads.submit(self._client.complete, words, **options)
        return asyncio.run_coroutine_threadsafe(self._client.complete(words, **options), self._loop)


def ended(future: Future[Reply]) -> BaseException | None:
    """How a call ended, within five seconds."""
    return future.exception(5)


def until(condition: Callable[[], bool]) -> None:
    """Return as soon as it holds; fail if it does not within five seconds."""
    give_up = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < give_up, "waited too long"
        time.sleep(0.002)


def holding() -> Lab:
    """A lab whose first answer begins and then says no more, until its client leaves; others are quick."""
    return Lab(script.say("One two three four."), plan=Plan([Fault.stall(after_event=2)]))


def place(route: Route) -> str:
    """The name of the queue at a route."""
    return " ".join(route.part("route"))


def overlaps(lab: Lab, since: int = 0) -> int:
    """How many requests were under way at the most, by when they arrived and were over."""
    moments: list[tuple[float, int]] = []
    for number in range(since, len(lab.requests)):
        request = lab.wait_ended(number)  # the caller has its answer before the lab has noted the end
        assert request.ended_at is not None
        moments += [(request.received_at, 1), (request.ended_at, -1)]
    under_way = most = 0
    for _, step in sorted(moments):
        under_way += step
        most = max(most, under_way)
    return most


def said(request: Request) -> str:
    """What a request asked."""
    return str(request.json()["messages"][-1]["content"])


# Asked like any other.


CONFIG = """
main = "big"
[routes.big]
base_url = "{url}"
model = "big"
wire = "chat"
[routes.small]
base_url = "{url}"
model = "small"
wire = "chat"
[tasks.rank]
route = "small"
only = true
instructions = "Rank them."
params = {{ temperature = 0 }}
"""


@both
@pytest.mark.parametrize("live", [False, True], ids=["held", "live"])
@pytest.mark.parametrize("where", ["file", "argument"])
def test_a_task_of_ones_own_is_asked_by_its_name(way: str, live: bool, where: str) -> None:
    """A task in the configuration or given to the client has its route, fields and words, held and live."""
    with Lab(script.say("b, a")) as lab:
        settings: dict[str, Any] = {"config": parse(CONFIG.format(url=lab.url), "c.toml")}
        if where == "argument":
            rank = TaskConfig(model="small", instructions="Rank them.", params={"temperature": 0})
            settings = {"base_url": lab.url, "model": "big", "wire": "chat", "tasks": {"rank": rank}}
        assert ask(way, settings, live=live, task="rank") == "b, a"
        body = lab.requests[0].json()
    assert (body["model"], body["temperature"]) == ("small", 0)
    assert body["messages"][0] == {"role": "system", "content": "Rank them."}


def ask(way: str, settings: dict[str, Any], *, live: bool, **options: Any) -> str:
    """One call, held or live; its text."""
    if way == "sync":
        with Client(**settings) as client:
            if not live:
                return client.complete("a, b", **options).text
            with client.stream("a, b", **options) as stream:
                return "".join(event.delta for event in stream if isinstance(event, TextDelta))

    async def call() -> str:
        async with AsyncClient(**settings) as client:
            if not live:
                return (await client.complete("a, b", **options)).text
            async with client.stream("a, b", **options) as stream:
                return "".join([event.delta async for event in stream if isinstance(event, TextDelta)])

    return asyncio.run(call())


@both
def test_a_task_that_nobody_knows_is_the_callers_mistake(way: str) -> None:
    """An unknown task is an error with the name that was meant, before anything is sent."""
    with Lab() as lab, pytest.raises(UsageError, match="no task 'titel'") as caught:
        ask(way, {"base_url": lab.url, "model": "m"}, live=False, task="titel")
    assert "'title'" in caught.value.hint
    assert not lab.requests


@both
def test_an_atomic_task_hides_from_interrupts(way: str) -> None:
    """An interrupt ends a call of a task, unless the task is atomic; a cancel ends that, too."""
    tasks = {"plain": TaskConfig(), "atomic": TaskConfig(atomic=True)}
    for task, stop, kind in (("plain", "interrupt", "interrupt"), ("atomic", "cancel", "cancel")):
        with Lab(plan=Plan([Fault.stall(after_event=2)])) as lab, Crowd(
            way, base_url=lab.url, model="m", tasks=tasks
        ) as crowd:  # fmt: skip
            token = Cancel()
            call = crowd.ask(task=task, cancel=token)
            lab.wait_sent(0, 2)
            if task == "atomic":
                token.interrupt()
                assert not call.done()
            getattr(token, stop)()
            error = ended(call)
            assert isinstance(error, Cancelled)
            assert error.kind == kind
            assert len(lab.requests) == 1


@both
def test_an_atomic_task_goes_on_after_an_interrupt(way: str) -> None:
    """An interrupt in the middle of an atomic task's answer changes nothing about it."""
    tasks = {"atomic": TaskConfig(atomic=True)}
    slow = script.chat_text("One two three four.", pace=0.02)
    with Lab(slow) as lab, Crowd(way, base_url=lab.url, model="m", tasks=tasks) as crowd:
        token = Cancel()
        call = crowd.ask(task="atomic", cancel=token)
        lab.wait_sent(0, 2)
        token.interrupt()
        assert call.result(5).text == "One two three four."


# Taking turns.


@both
@pytest.mark.parametrize("limited", ["task", "route"])
def test_as_many_calls_as_allowed_are_under_way(way: str, limited: str) -> None:
    """Of 24 calls at once, the server never sees more than the limit at a time, and all are answered."""
    for limit in (1, 3):
        with Lab(script.chat_text("One two three.", pace=0.002)) as lab:
            route = Route(lab.url, "m", "chat", concurrency=limit if limited == "route" else None)
            tasks = {"side": TaskConfig(concurrency=limit if limited == "task" else None)}
            with Crowd(way, routes=[route], tasks=tasks) as crowd:
                calls = [crowd.ask(task="side") for _ in range(24)]
                assert {call.result(30).text for call in calls} == {"One two three."}
            assert len(lab.requests) == 24
            assert overlaps(lab) <= limit
        assert crowd.queues.waiting("task side") == crowd.queues.waiting(place(route)) == (0, 0)


@both
def test_without_a_limit_calls_do_overlap(way: str) -> None:
    """What the test before measures is there to be measured: calls without a limit overlap."""
    with Lab(script.chat_text("One two three.", pace=0.02)) as lab:
        with Crowd(way, base_url=lab.url, model="m", wire="chat") as crowd:
            for call in [crowd.ask() for _ in range(8)]:
                call.result(30)
        assert overlaps(lab) > 1


@both
def test_the_users_own_turn_goes_before_side_tasks(way: str) -> None:
    """At a route with one place, a call that is for no task overtakes the side tasks that wait already."""
    with holding() as lab:
        route = Route(lab.url, "m", "chat", concurrency=1)
        with Crowd(way, routes=[route], tasks={"side": TaskConfig()}) as crowd:
            stop = Cancel()
            first = crowd.ask("first", task="side", cancel=stop)
            lab.wait_sent(0, 2)
            sides = []
            for number in range(3):
                sides.append(crowd.ask(f"side {number}", task="side"))
                until(lambda waiting=number + 1: crowd.queues.waiting(place(route)) == (1, waiting))
            main = crowd.ask("main")
            until(lambda: crowd.queues.waiting(place(route)) == (1, 4))
            stop.cancel()
            assert isinstance(ended(first), Cancelled)
            for call in (main, *sides):
                call.result(5)
        assert [said(request) for request in lab.requests] == ["first", "main", "side 0", "side 1", "side 2"]
        assert overlaps(lab, since=1) == 1


@both
def test_whoever_is_cancelled_while_waiting_leaves_at_once(way: str) -> None:
    """A cancelled waiter ends without having asked anything, and the next one gets its turn."""
    with holding() as lab:
        with Crowd(way, base_url=lab.url, model="m", tasks={"side": ONE}) as crowd:
            stop, other = Cancel(), Cancel()
            first = crowd.ask("first", task="side", cancel=stop)
            lab.wait_sent(0, 2)
            second = crowd.ask("second", task="side", cancel=other)
            until(lambda: crowd.queues.waiting("task side") == (1, 1))
            third = crowd.ask("third", task="side")
            until(lambda: crowd.queues.waiting("task side") == (1, 2))
            other.cancel()
            error = ended(second)
            assert isinstance(error, Cancelled)
            assert error.attempts == ()
            assert crowd.queues.waiting("task side") == (1, 1)
            stop.cancel()
            ended(first)
            assert third.result(5).text
        assert [said(request) for request in lab.requests] == ["first", "third"]


@pytest.mark.parametrize("limited", ["task", "route"])
def test_a_task_of_asyncio_that_is_cancelled_leaves_its_place(limited: str) -> None:
    """`task.cancel()` on a waiter, or on the call that has the place, frees it for the next."""

    async def scenario(lab: Lab) -> None:
        queues = Queues(lock=threading.RLock())
        route = Route(lab.url, "m", "chat", concurrency=1 if limited == "route" else None)
        tasks = {"side": TaskConfig(concurrency=1 if limited == "task" else None)}
        name = "task side" if limited == "task" else place(route)
        async with AsyncClient(routes=[route], tasks=tasks, system=System(queues=queues)) as client:
            first = asyncio.create_task(client.complete("first", task="side"))
            await asyncio.to_thread(lab.wait_sent, 0, 2)
            second = asyncio.create_task(client.complete("second", task="side"))
            await asyncio.to_thread(until, lambda: queues.waiting(name) == (1, 1))
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            assert queues.waiting(name) == (1, 0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert queues.waiting(name) == (0, 0)
            assert (await client.complete("third", task="side")).text

    with holding() as lab:
        asyncio.run(scenario(lab))
        assert [said(request) for request in lab.requests] == ["first", "third"]


@both
@pytest.mark.parametrize("limited", ["task", "route"])
def test_waiting_ends_with_the_calls_own_time(way: str, limited: str) -> None:
    """A call whose turn does not come up within its total ends as BudgetExhausted, without having asked."""
    with holding() as lab:
        route = Route(lab.url, "m", "chat", concurrency=1 if limited == "route" else None)
        tasks = {"side": TaskConfig(concurrency=1 if limited == "task" else None)}
        with Crowd(way, routes=[route], tasks=tasks) as crowd:
            stop = Cancel()
            first = crowd.ask("first", task="side", cancel=stop)
            lab.wait_sent(0, 2)
            error = ended(crowd.ask("second", task="side", timeout=0.05))
            assert isinstance(error, BudgetExhausted)
            assert (error.budget, error.attempts) == ("queue", ())
            assert "concurrency" in error.hint
            stop.cancel()
            ended(first)
        assert [said(request) for request in lab.requests] == ["first"]


@both
def test_a_busy_route_is_passed_over_for_a_free_one(way: str) -> None:
    """Who waits in vain at a route, for its share of the time, is answered by the next one."""
    with holding() as lab, Lab(script.say("From the other.")) as other:
        busy, free = Route(lab.url, "busy", "chat", concurrency=1), Route(other.url, "free", "chat")
        with Crowd(way, routes=[busy, free]) as crowd:
            stop = Cancel()
            first = crowd.ask("first", cancel=stop)
            lab.wait_sent(0, 2)
            assert crowd.ask("second", timeout=0.2).result(5).text == "From the other."
            stop.cancel()
            ended(first)
        assert len(lab.requests) == len(other.requests) == 1


@both
def test_a_recovery_keeps_its_turn(way: str) -> None:
    """A call that breaks and comes back is one call: nobody goes in between, and the place is left once."""
    with (
        Lab(script.say("One two three."), plan=Plan([Fault.cut(after_event=2)])) as lab,
        Crowd(way, base_url=lab.url, model="m", wire="chat", tasks={"side": ONE}) as crowd,
    ):
        calls = [crowd.ask(f"call {number}", task="side") for number in range(4)]
        for call in calls:
            call.result(5)
        assert len(lab.requests) == 5
        assert overlaps(lab) == 1
        asked = [lab.requests[0].json()["messages"][0], lab.requests[1].json()["messages"][0]]
        assert asked[0] == asked[1]
        assert crowd.queues.waiting("task side") == (0, 0)
