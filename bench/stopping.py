"""How fast a call stops: from the cancel until its socket is closed, and until the caller has control back.

A call gets stuck in a phase (no connection is made; no response head comes; the stream falls silent; it waits
before another attempt), and another thread or the event loop cancels it as its library documents. The lab
notes when the socket closed. What is not back within the limit counts as that, and is tried thrice only.
Part of reaction.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from openai import AsyncOpenAI, OpenAI

import sidestream
from sidestream import AsyncClient, Cancel, Client, Policy, Route
from sidestream.drivers import System
from sidestream.lab import Fault, Lab, Plan, script
from sidestream.recovery.origins import Origins
from sizes import Size, Target

ROUNDS: dict[Size, int] = {"smoke": 1, "short": 5, "full": 20}
HOPELESS: dict[Size, int] = {"smoke": 1, "short": 1, "full": 3}  # rounds of what never came back
LIMIT: dict[Size, float] = {"smoke": 0.2, "short": 1.0, "full": 1.0}  # seconds; slower is not stopped
SETTLE = 0.03  # seconds between "it is in the phase" and the cancel
PATIENCE = 5.0
TEXT = "The stream that fell silent was cancelled by its reader."
MID = 8  # events: four before the text, four words


@dataclass(frozen=True)
class Stuck:
    """Where a call gets stuck: the base URL, how to wait until it is there, and for its socket to close."""

    url: str
    arrived: Callable[[], object]
    closed: Callable[[float], float | None] = lambda _: None


@contextlib.contextmanager
def connecting() -> Iterator[Stuck]:
    """A listening socket whose backlog is full: nobody answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as held:
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield Stuck(f"http://127.0.0.1:{server.getsockname()[1]}/v1", lambda: time.sleep(2 * SETTLE))


@contextlib.contextmanager
def before_headers() -> Iterator[Stuck]:
    with Lab(script.responses_text(TEXT), plan=Plan.always(Fault.hang())) as lab:
        yield Stuck(lab.url, lambda: lab.wait_request(0, PATIENCE), lambda limit: _closed(lab, limit))


@contextlib.contextmanager
def mid_stream() -> Iterator[Stuck]:
    with Lab(script.responses_text(TEXT), plan=Plan.always(Fault.stall(after_event=MID))) as lab:
        yield Stuck(lab.url, lambda: lab.wait_sent(0, MID, PATIENCE), lambda limit: _closed(lab, limit))


@contextlib.contextmanager
def in_backoff() -> Iterator[Stuck]:
    with Lab(script.error(503, "later", headers={"Retry-After": "20"})) as lab:
        yield Stuck(lab.url, lambda: lab.wait_ended(0, PATIENCE))


def _closed(lab: Lab, limit: float) -> float | None:
    with contextlib.suppress(TimeoutError):
        return lab.wait_closed(0, limit).closed_at
    return math.inf


PHASES = {
    "connecting": connecting,
    "before the headers": before_headers,
    "mid-stream": mid_stream,
    "in backoff": in_backoff,
}


# The callers.


@dataclass
class Running:
    """A call in a thread of its own, and the way to stop it from this one."""

    body: Callable[[], None]
    stop: Callable[[], None]
    ended: threading.Event = field(default_factory=threading.Event)
    ended_at: float = math.inf

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(BaseException):  # that it ended is all that counts here
            self.body()
        self.ended_at = time.monotonic()
        self.ended.set()


def client_token(url: str) -> Running:
    """`Client.stream(cancel=token)`, `token.cancel()` in another thread."""
    client, token = _ours(Client, url), Cancel()

    def body() -> None:
        with client, client.stream("hi", cancel=token) as stream:
            for _ in stream:
                pass

    return Running(body, token.cancel)


def async_client_token(url: str) -> Running:
    """`AsyncClient.stream(cancel=token)`, `token.cancel()` in another thread."""
    client, token = _ours(AsyncClient, url), Cancel()
    return Running(lambda: asyncio.run(_read_ours(client, token)), token.cancel)


def async_client_task(url: str) -> Running:
    """`AsyncClient.stream()`, `task.cancel()` in its loop."""
    client = _ours(AsyncClient, url)
    return _as_task(lambda: _read_ours(client, None))


def openai_close(url: str, *, wrapped: bool = False) -> Running:
    """`OpenAI()`: `stream.close()`, or `client.close()` before there is one, in another thread."""
    client = OpenAI(base_url=url, api_key="k")
    if wrapped:
        client = sidestream.wrap(client, observe=())
    streams: list[Any] = []

    def body() -> None:
        streams.append(client.responses.create(model="lab-1", input="hi", stream=True))
        for _ in streams[0]:
            pass

    def stop() -> None:
        (streams[0] if streams else client).close()

    return Running(body, stop)


def openai_task(url: str, *, wrapped: bool = False) -> Running:
    """`AsyncOpenAI()`, `task.cancel()` in its loop."""
    client = AsyncOpenAI(base_url=url, api_key="k")
    if wrapped:
        client = sidestream.wrap(client, observe=())

    async def read() -> None:
        async with client:
            async for _ in await client.responses.create(model="lab-1", input="hi", stream=True):
                pass

    return _as_task(read)


CALLERS: dict[str, tuple[Callable[[str], Running], bool]] = {  # and whether it is held to our promise
    "`Client`, token": (client_token, True),
    "`AsyncClient`, token": (async_client_token, True),
    "`AsyncClient`, `task.cancel()`": (async_client_task, True),
    "`wrap(AsyncOpenAI)`, `task.cancel()`": (partial(openai_task, wrapped=True), True),
    "`wrap(OpenAI)`, `close()`": (partial(openai_close, wrapped=True), False),
    "`AsyncOpenAI`, `task.cancel()`": (openai_task, False),
    "`OpenAI`, `close()`": (openai_close, False),
}


def _ours(kind: Any, url: str) -> Any:
    system = System(origins=Origins(time.monotonic, lock=threading.RLock()))
    return kind(routes=[Route(url, "lab-1")], policy=Policy(), observe=(), system=system)


async def _read_ours(client: AsyncClient, token: Cancel | None) -> None:
    async with client, client.stream("hi", cancel=token) as stream:
        async for _ in stream:
            pass


def _as_task(read: Callable[[], Awaitable[None]]) -> Running:
    """A coroutine as the one task of a loop in a thread of its own."""
    made: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []

    async def main() -> None:
        task = asyncio.ensure_future(read())
        made.append((asyncio.get_running_loop(), task))
        await task

    def stop() -> None:
        loop, task = made[0]
        loop.call_soon_threadsafe(task.cancel)

    return Running(lambda: asyncio.run(main()), stop)


# What is measured.


@dataclass(frozen=True)
class Stop:
    """Milliseconds until control was back and until the socket was closed; None: not within the limit, or,
    for the socket, there was none to see (`visible`)."""

    back: float | None
    closed: float | None
    visible: bool


def stopped(caller: str, phase: str, limit: float) -> Stop:
    """One call that gets stuck, and is stopped."""
    with PHASES[phase]() as stuck:
        running = CALLERS[caller][0](stuck.url)
        running.start()
        stuck.arrived()
        time.sleep(SETTLE)
        if running.ended.is_set():
            raise RuntimeError(f"{caller}, {phase}: the call ended before it was stopped")
        begun = time.monotonic()
        threading.Thread(target=running.stop, daemon=True).start()
        running.ended.wait(limit)
        back, closed = running.ended_at - begun, stuck.closed(limit)
    return Stop(_ms(back, limit), None if closed is None else _ms(closed - begun, limit), closed is not None)


def _ms(seconds: float, limit: float) -> float | None:
    return round(1000 * seconds, 3) if seconds <= limit else None


def measure(size: Size) -> dict[str, Any]:
    """Milliseconds of every stop, by caller and phase."""
    rows, limit = [], LIMIT[size]
    for caller, (_, promised) in CALLERS.items():
        for phase in PHASES:
            print(f"reaction: cancel, {caller}, {phase}", file=sys.stderr)
            made: list[Stop] = []
            if size != "smoke":  # what is loaded with the first call is not counted
                stopped(caller, phase, limit)
            while len(made) < ROUNDS[size] and sum(each.back is None for each in made) < HOPELESS[size]:
                made.append(stopped(caller, phase, limit))
            rows.append(
                {
                    "caller": caller,
                    "phase": phase,
                    "promised": promised,
                    "back_ms": [each.back for each in made],
                    "closed_ms": [each.closed for each in made if each.visible],
                }
            )
    return {"limit_ms": 1000 * limit, "rows": rows}


def targets(record: dict[str, Any]) -> list[Target]:
    """The worst single stop that is promised."""
    ours = [row for row in record["rows"] if row["promised"]]
    every = [value for row in ours for value in (*row["back_ms"], *row["closed_ms"])]
    worst = max(record["limit_ms"] if value is None else value for value in every)
    return [
        Target("cancel to closed socket and control back, ms: worst of all stops and phases", 50.0, worst)
    ]


def tables(record: dict[str, Any]) -> str:
    """A row for each caller and phase."""
    limit = record["limit_ms"]
    titles = ("stopped", "phase", "stops", "control back: median", "worst", "socket closed: median", "worst")
    rows = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in record["rows"]:
        cells = [row["caller"], row["phase"], str(len(row["back_ms"]))]
        cells += [*_spread(row["back_ms"], limit), *_spread(row["closed_ms"], limit)]
        rows.append(f"| {' | '.join(cells)} |")
    table = "\n".join(rows)
    return f"""\
Milliseconds from a cancel until the caller has control back, and until the lab sees the socket closed:

{table}

`> {limit:.0f}`: not within that time; such a row is cut short. The blocking client of the openai SDK
documents no way to stop a call from another thread: `stream.close()`, or `client.close()` before there is a
stream, is the nearest, wrapped or not. While connecting and in a backoff there is no socket to be seen."""


def _spread(values: list[float | None], limit: float) -> tuple[str, str]:
    if not values:
        return "", ""
    known = [math.inf if value is None else value for value in values]
    return _told(statistics.median(known), limit), _told(max(known), limit)


def _told(value: float, limit: float) -> str:
    return f"> {limit:.0f}" if math.isinf(value) else f"{value:.1f}"


def quantile(values: list[float], share: float) -> float:
    """The smallest value that this share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
