"""Nothing is left behind: not by thousands of broken calls, not by loops that come and go, not by threads.

And a connection is closed by the thread that uses it and by no other (a descriptor closed under a blocked
thread is soon another file, and somebody's database gets a TLS record): the stress below lets threads stop
calls in the middle of a read while other threads write files and look at them.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import select
import socket
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidestream import (
    AsyncClient,
    Cancel,
    Cancelled,
    Client,
    DeadlineExceeded,
    Policy,
    Route,
    StreamDropped,
    Timeouts,
)
from sidestream.lab import Fault, Lab, Limits, Plan, script
from sidestream.net import sync

CALLS = 2000
LOOPS = 500
STRESS = 4.0
TEXT = "The stream that was cut came back whole."
ONCE = Policy(recoveries=0)
BROKEN = Plan([Fault.reset(after_event=4), Fault.cut(after_event=4), Fault.close()] * CALLS)

Labs = Callable[..., Lab]
Count = Callable[[str, int], None]


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def nowhere() -> Route:
    """A port of this machine at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return Route(f"http://127.0.0.1:{bound.getsockname()[1]}/v1", "model-1")


def settled(lab: Lab) -> tuple[int, int]:
    """Descriptors and threads once the lab has seen its last connection close."""
    lab.wait_closed(len(lab.requests) - 1)
    gc.collect()
    return descriptors(), threading.active_count()


def test_broken_calls_leave_nothing_behind(lab: Labs, count: Count) -> None:
    """After 2,000 calls that broke there are as many descriptors and threads as after the first."""
    running = lab(script.responses_text(TEXT), plan=BROKEN, limits=Limits(records=8192))
    clients = [Client(routes=[route], policy=ONCE) for route in (Route(running.url, "model-1"), nowhere())]

    def calls(number: int) -> None:
        for turn in range(number):
            with pytest.raises(StreamDropped):
                clients[turn % 4 == 3].complete("hi")

    calls(4)
    before = settled(running)
    calls(CALLS)
    assert settled(running) == before
    count("calls broken for leaks", CALLS)


def test_broken_asyncio_calls_leave_nothing_behind(lab: Labs, count: Count) -> None:
    """In asyncio neither, tasks included; a call in ten is left in the middle."""
    running = lab(script.responses_text(TEXT), plan=BROKEN, limits=Limits(records=8192))

    async def call(client: AsyncClient, turn: int) -> None:
        if turn % 10:
            with pytest.raises(StreamDropped):
                await client.complete("hi")
        else:
            async with client.stream("hi") as stream:
                with pytest.raises(StreamDropped):
                    await anext(aiter(stream))

    async def calls(number: int) -> int:
        routes = (Route(running.url, "model-1"), nowhere())
        clients = [AsyncClient(routes=[route], policy=ONCE) for route in routes]
        for turn in range(number):
            await call(clients[turn % 4 == 3], turn)
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    asyncio.run(calls(4))
    before = settled(running)
    assert asyncio.run(calls(CALLS)) == 1
    assert settled(running) == before
    count("calls broken for leaks", CALLS)


def test_streams_left_in_the_middle_leave_nothing_behind(lab: Labs) -> None:
    """Two hundred streams of which only the first word was read, sync and async."""
    running = lab(script.responses_text(script.words(200)), limits=Limits(records=8192))
    route = Route(running.url, "model-1")

    def read(number: int) -> None:
        for _ in range(number):
            with Client(routes=[route]).stream("hi") as stream:
                next(iter(stream))

    async def aread(number: int) -> int:
        for _ in range(number):
            async with AsyncClient(routes=[route]).stream("hi") as stream:
                await anext(aiter(stream))
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    read(2)
    asyncio.run(aread(2))
    before = settled(running)
    read(100)
    assert asyncio.run(aread(100)) == 1
    assert settled(running) == before


def test_loops_may_come_and_go(lab: Labs) -> None:
    """One client serves 500 event loops, each closed at once after its call, without a warning or a leak."""
    running = lab(script.responses_text(TEXT), plan=Plan([None, Fault.cut(after_event=4)] * LOOPS))
    client = AsyncClient(routes=[Route(running.url, "model-1")], policy=ONCE)

    def calls(number: int) -> None:
        for turn in range(number):
            loop = asyncio.new_event_loop()
            if turn % 2:
                with pytest.raises(StreamDropped):
                    loop.run_until_complete(client.complete("hi"))
            else:
                assert loop.run_until_complete(client.complete("hi")).text == TEXT
            loop.close()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calls(2)
        before = settled(running)
        calls(LOOPS)
        assert settled(running) == before


def test_a_loop_may_end_over_an_unread_stream(lab: Labs) -> None:
    """`asyncio.run` with a stream that nobody finished or left ends cleanly and closes its socket."""
    running = lab(script.responses_text(script.words(400), pace=0.005))

    async def forget() -> Any:
        stream = AsyncClient(routes=[Route(running.url, "model-1")]).stream("hi")
        await anext(aiter(await stream.__aenter__()))
        return stream

    forgotten = asyncio.run(forget())
    assert running.wait_closed(0).ended_by == "client"
    del forgotten
    gc.collect()


def test_a_client_that_is_dropped_closes_its_connections(lab: Labs) -> None:
    """An idle connection does not outlive the last reference to its client."""
    running = lab(script.responses_text(TEXT))
    client = Client(routes=[Route(running.url, "model-1")])
    assert client.complete("hi").text == TEXT
    assert running.open_connections == 1
    del client
    gc.collect()
    assert running.wait_closed(0).closed_at is not None


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_timed_out_call_does_not_poison_its_client(way: str, lab: Labs) -> None:
    """After a call that timed out, the next one of that client succeeds, on another connection."""
    running = lab(script.responses_text(TEXT), plan=Plan([None, Fault.hang()]))
    options = {"routes": [Route(running.url, "model-1")], "policy": ONCE}
    short = Timeouts(total=0.15)

    def calls() -> str:
        with Client(**options) as client:
            client.complete("hi")
            with pytest.raises(DeadlineExceeded):
                client.complete("hi", timeout=short)
            return client.complete("hi").text

    async def acalls() -> str:
        async with AsyncClient(**options) as client:
            await client.complete("hi")
            with pytest.raises(DeadlineExceeded):
                await client.complete("hi", timeout=short)
            return (await client.complete("hi")).text

    assert (calls() if way == "sync" else asyncio.run(acalls())) == TEXT
    first, second, third = running.requests
    assert first.connection == second.connection != third.connection


# Threads, descriptors, processes.


def test_only_the_driving_thread_closes(lab: Labs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timeouts, cancels and breaks: whoever causes the end, the thread that made the call closes."""
    closed: list[tuple[int, int]] = []
    real_init, real_close = sync.Stream.__init__, sync.Stream.close

    def init(self: Any, *args: Any) -> None:
        real_init(self, *args)
        self.owner = threading.get_ident()

    def close(self: Any) -> None:
        closed.append((self.owner, threading.get_ident()))
        real_close(self)

    monkeypatch.setattr(sync.Stream, "__init__", init)
    monkeypatch.setattr(sync.Stream, "close", close)
    plan = Plan([Fault.stall(after_event=4), Fault.reset(after_event=4), Fault.stall(after_event=4)] * 8)
    running = lab(script.responses_text(TEXT), plan=plan)

    def calls() -> None:
        client = Client(routes=[Route(running.url, "model-1")], policy=ONCE)
        for _ in range(6):
            token = Cancel()
            threading.Timer(0.03, token.cancel).start()
            with pytest.raises((Cancelled, StreamDropped)):
                client.complete("hi", cancel=token)

    run_all([threading.Thread(target=calls) for _ in range(4)])
    assert len(closed) >= 24
    assert all(owner == closer for owner, closer in closed)


def run_all(threads: list[threading.Thread], timeout: float = 30.0) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
        assert not thread.is_alive()


class Stress:
    """Calls that are stopped in the middle of a read, beside threads whose files nobody else may touch."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.until = time.monotonic() + STRESS
        self.foreign: list[str] = []
        self.files = self.calls = 0
        self._folder = folder
        self._seed = seed

    def call(self, client: Client, number: int) -> None:
        rng = random.Random(f"{self._seed} {number}")
        while time.monotonic() < self.until:
            token = Cancel()
            timer = threading.Timer(rng.uniform(0.001, 0.03), token.cancel)
            timer.start()
            try:
                client.complete("hi", cancel=token)
            except (Cancelled, StreamDropped):
                self.calls += 1
            timer.join()

    def write(self, number: int) -> None:
        pattern = bytes([65 + number]) * 4096
        path = self._folder / f"file-{number}"
        while time.monotonic() < self.until:
            with path.open("w+b", buffering=0) as file:
                for _ in range(8):
                    file.write(pattern)
                file.seek(0)
                seen = file.read()
            if seen != pattern * 8:
                self.foreign.append(f"{path.name}: {seen.strip(pattern[:1])[:80]!r}")
            self.files += 1


def test_stopping_a_read_never_touches_a_foreign_file(
    lab: Labs, tmp_path: Path, rng: random.Random, count: Count
) -> None:
    """Plain and TLS calls are stopped by other threads all the time; no file ever holds a foreign byte."""
    stress = Stress(tmp_path, rng.randrange(2**32))
    answers = script.responses_text(script.words(300), pace=0.001)
    plain, tls = lab(answers, limits=Limits(records=64)), lab(answers, tls=True, limits=Limits(records=64))
    (tmp_path / "ca.pem").write_bytes(tls.ca_pem)
    clients = [
        Client(routes=[Route(plain.url, "model-1")], policy=ONCE),
        Client(routes=[Route(tls.url, "model-1")], policy=ONCE, cafile=str(tmp_path / "ca.pem")),
    ]
    callers = [threading.Thread(target=stress.call, args=(clients[n % 2], n)) for n in range(6)]
    run_all([*callers, *(threading.Thread(target=stress.write, args=(n,)) for n in range(3))])
    for client in clients:
        client.close()
    assert stress.foreign == []
    assert stress.calls > 50
    assert stress.files > 50
    count("reads stopped beside files", stress.calls)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_use_its_parents_connections(lab: Labs) -> None:
    """A child opens connections of its own, and the parent's still serves the parent."""
    running = lab(script.responses_text(TEXT))
    client = Client(routes=[Route(running.url, "model-1")])
    assert client.complete("hi").text == TEXT
    said, saying = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # this process has threads (the lab's), and the child needs none of them
        child = os.fork()
    if child == 0:
        text = b"nothing"
        try:
            text = client.complete("hi").text.encode()
        finally:
            os.write(saying, text)
            os._exit(0)
    os.close(saying)
    ready, _, _ = select.select([said], [], [], 10)
    answer = os.read(said, 1024) if ready else b"it hangs"
    os.close(said)
    os.waitpid(child, 0)
    assert answer.decode() == TEXT
    assert client.complete("hi").text == TEXT
    first, in_child, last = running.requests
    assert first.connection == last.connection != in_child.connection
    client.close()
