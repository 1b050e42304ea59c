"""One tiny real call to every route of a client, a few at a time.

Strategy: it is a call like any other, with the route's own recovery, so that what works here works there.
Where nobody says which wire an endpoint speaks, the endpoint is asked first, which costs nothing; both are
remembered by the process. What a call changes about health and wires is in the report.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ..cancel import Cancel
from ..client import AsyncClient, Client
from ..errors import SidestreamError, UsageError
from ..net import sync
from ..net.common import CallClock
from ..recovery.clocks import Meter
from ..reply import Reply
from ..route import Route
from ..routes.detect import SECONDS as PROBE
from ..routes.detect import Answer, adetect, as_found, detect
from ..routes.plan import Known
from ..routes.providers import Found
from .examining import QUESTION, AnyClient, examine, route_report, task_report
from .report import Live, Report

__all__ = ["AT_ONCE", "SECONDS", "acheck", "check"]

SECONDS, AT_ONCE = 30.0, 4
_TOO_LITTLE = 0.001  # seconds


def check(
    client: Client, *, task: str | None = None, seconds: float = SECONDS, at_once: int = AT_ONCE
) -> Report:
    """As `examine`, and one tiny call to every route that can be used. It costs a few tokens each.

    Args:
        seconds: for one route, the question for its wire included, which gets half of it at most.
        at_once: calls under way at the same time, 1 to 32.
    """
    report = examine(client, task=task)
    stop, known = Cancel(), client._planner.known(task)

    def one(each: Known) -> Live | None:
        return _live(client, each.ready, seconds, stop) if each.ready else None

    with ThreadPoolExecutor(_bounded(at_once), thread_name_prefix="sidestream-doctor") as threads:
        try:
            lives = list(threads.map(one, known))
        except BaseException:  # Ctrl-C: nobody waits any more
            stop.cancel()
            raise
    return _with_lives(client, report, known, lives)


async def acheck(
    client: AsyncClient, *, task: str | None = None, seconds: float = SECONDS, at_once: int = AT_ONCE
) -> Report:
    """As `check`."""
    import asyncio  # a sync program need not load it

    report = examine(client, task=task)
    known = client._planner.known(task)
    turns = asyncio.Semaphore(_bounded(at_once))

    async def one(each: Known) -> Live | None:
        async with turns:
            return await _alive(client, each.ready, seconds) if each.ready else None

    return _with_lives(client, report, known, await asyncio.gather(*map(one, known)))


def _bounded(at_once: int) -> int:
    if not 1 <= at_once <= 32:
        raise UsageError(f"at_once is {at_once}, and has to be 1 to 32")
    return at_once


def _with_lives(
    client: AnyClient, report: Report, known: tuple[Known, ...], lives: list[Live | None]
) -> Report:
    """The report after the calls: their outcome, and what they have changed about health and wires."""
    routes = [route_report(client, each) for each in known]
    return replace(
        report,
        routes=tuple(replace(route, live=live) for route, live in zip(routes, lives, strict=True)),
        tasks=tuple(task_report(client, each.name) for each in report.tasks),
    )


_ASKED: dict[str, Any] = {"max_output_tokens": 16, "empty_is_failure": False}


def _live(client: Client, route: Route, seconds: float, stop: Cancel) -> Live:
    system, found = client._system, None
    left, probe = _time(client, seconds), min(PROBE, seconds / 2)
    with _timed(client) as took:
        if route.guessed:
            ask = _asker(client, stop, _time(client, probe))
            found = detect(route, ask, system.origins, clock=system.clock, seconds=probe)
            route = as_found(route, found)
        try:
            reply = client.complete(QUESTION, route=route, timeout=left(), cancel=stop, **_ASKED)
        except SidestreamError as error:
            return _failure(error, took(), found)
        return _success(reply, took(), found)


async def _alive(client: AsyncClient, route: Route, seconds: float) -> Live:
    system, found = client._system, None
    left, probe = _time(client, seconds), min(PROBE, seconds / 2)
    with _timed(client) as took:
        if route.guessed:
            ask = _aasker(client, _time(client, probe))
            found = await adetect(route, ask, system.origins, clock=system.clock, seconds=probe)
            route = as_found(route, found)
        try:
            reply = await client.complete(QUESTION, route=route, timeout=left(), **_ASKED)
        except SidestreamError as error:
            return _failure(error, took(), found)
        return _success(reply, took(), found)


def _time(client: AnyClient, seconds: float) -> Callable[[], float]:
    """What is left of so many seconds from now on; with nothing left, too little for anything."""
    clock = client._system.clock
    until = clock() + seconds
    return lambda: max(until - clock(), _TOO_LITTLE)


@contextlib.contextmanager
def _timed(client: AnyClient) -> Iterator[Any]:
    begun = client._system.clock()
    yield lambda: client._system.clock() - begun


def _success(reply: Reply, seconds: float, found: Found | None) -> Live:
    last = reply.attempts[-1]
    return Live(
        True,
        len(reply.attempts),
        seconds,
        last.first,
        reply.status,
        reply.model,
        last.input_tokens,
        last.tokens,
        found=found.why if found else "",
    )


def _failure(error: SidestreamError, seconds: float, found: Found | None) -> Live:
    return Live(
        False,
        len(error.attempts),
        seconds,
        error=type(error).__name__,
        message=str(error),
        hint=error.hint,
        found=found.why if found else "",
    )


# The questions of a probe.

_EACH_SECONDS = 5.0


def _asker(client: Client, stop: Cancel, left: Callable[[], float]) -> Any:
    def ask(route: Route, method: str, target: str, body: bytes) -> Answer:
        watch = sync.Watch(CallClock(client._system.clock))
        watch.meter = Meter.of(min(_EACH_SECONDS, left()), watch.clock.now())
        unsubscribe = stop.subscribe(watch.stop)
        try:
            with contextlib.closing(client._pool.open(route, watch)) as lane:
                opened = lane.send(route, body, method, target)
                return opened.status, opened.headers, lane.rest()
        finally:
            unsubscribe()

    return ask


def _aasker(client: AsyncClient, left: Callable[[], float]) -> Any:
    async def ask(route: Route, method: str, target: str, body: bytes) -> Answer:
        alarm = client._pool.alarm()
        with alarm.guard(Meter.of(min(_EACH_SECONDS, left()), alarm.clock.now())):
            lane = await client._pool.open(route, alarm)
            async with contextlib.aclosing(lane):
                opened = await lane.send(route, body, method, target)
                return opened.status, opened.headers, await lane.rest()

    return ask
