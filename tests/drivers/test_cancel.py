"""Cancel means stop: from any thread or task, in every phase, the call ends and its socket closes at once.

A call runs in a thread of its own (with an event loop of its own for asyncio); the test waits until it is in
the phase, pulls the token, and measures. The design allows 50 ms; `SCHEDULING` is what a busy machine may
take to let a thread run. When a socket closed is seen from the server's side.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest
from callers import WAYS
from memory import Loop, World, answer, async_client
from places import black_hole, endless_lookup, listening, timed
from verdicts import Outcome, recorded

from sidestream import (
    AsyncClient,
    Cancel,
    Cancelled,
    Client,
    DeadlineExceeded,
    Policy,
    Recovering,
    Route,
    TextDelta,
    Timeouts,
)
from sidestream.lab import Fault, Lab, Plan, Request, Script, script
from sidestream.net import sync

STOP = 0.05
SCHEDULING = 0.15
PATIENCE = 5.0
TEXT = "The stream that was cut came back whole."
MID = 8  # events: created, in_progress, item and part added, four words
PLAIN = next(stream for stream in recorded("responses") if stream.name == "responses-plain-text")

Labs = Callable[..., Lab]
Measure = Callable[[str, float], None]
by_way = pytest.mark.parametrize("way", WAYS)
by_loop = pytest.mark.parametrize("way", ["sync-held", "async-held"])


def in_thread(way: str, ask: dict[str, Any], **options: Any) -> Future[Outcome]:
    """A call that runs while the test goes on."""
    future: Future[Outcome] = Future()
    threading.Thread(target=lambda: future.set_result(timed(way, ask, **options)[0])).start()
    return future


@dataclass
class Phase:
    """Where a call gets stuck: the route there, how to know it has arrived, when its socket closed."""

    route: Route
    arrived: Callable[[], object]
    closed: Callable[[], float | None] = lambda: None
    requests: Callable[[], int] = lambda: 0
    notices: threading.Event = field(default_factory=threading.Event)

    def notify(self, _notice: Recovering) -> None:
        self.notices.set()


@contextlib.contextmanager
def looking_up(patch: pytest.MonkeyPatch, _labs: Labs) -> Iterator[Phase]:
    with endless_lookup(patch) as asked:
        yield Phase(Route("http://nowhere.test/v1", "model-1"), lambda: asked.wait(PATIENCE))


@contextlib.contextmanager
def connecting(patch: pytest.MonkeyPatch, _labs: Labs) -> Iterator[Phase]:
    begun = threading.Event()
    real, real_async = sync._await_connect, asyncio.SelectorEventLoop.sock_connect

    def connect(*args: Any) -> Any:
        begun.set()
        return real(*args)

    def connect_async(*args: Any) -> Any:
        begun.set()
        return real_async(*args)

    patch.setattr(sync, "_await_connect", connect)
    patch.setattr(asyncio.SelectorEventLoop, "sock_connect", connect_async)
    with black_hole() as place:
        yield Phase(Route(f"http://{place}/v1", "model-1"), lambda: begun.wait(PATIENCE))


@contextlib.contextmanager
def shaking_hands(_patch: pytest.MonkeyPatch, _labs: Labs) -> Iterator[Phase]:
    with listening(1) as server, contextlib.ExitStack() as held:
        peers: list[socket.socket] = []

        def arrived() -> None:
            server.settimeout(PATIENCE)
            peers.append(held.enter_context(server.accept()[0]))
            peers[0].settimeout(PATIENCE)
            peers[0].recv(65536)

        def closed() -> float:
            with contextlib.suppress(ConnectionError):
                while peers[0].recv(65536):
                    pass
            return time.monotonic()

        place = f"127.0.0.1:{server.getsockname()[1]}"
        yield Phase(Route(f"https://{place}/v1", "model-1"), arrived, closed)


def _in_lab(running: Lab, arrived: Callable[[], object]) -> Phase:
    return Phase(
        Route(running.url, "model-1"),
        arrived,
        lambda: running.wait_closed(0).closed_at,
        lambda: len(running.requests),
    )


@contextlib.contextmanager
def awaiting_headers(_patch: pytest.MonkeyPatch, labs: Labs) -> Iterator[Phase]:
    running = labs(plan=Plan.always(Fault.hang()))
    yield _in_lab(running, lambda: running.wait_request(0))


@contextlib.contextmanager
def in_the_stream(_patch: pytest.MonkeyPatch, labs: Labs) -> Iterator[Phase]:
    running = labs(script.responses_text(TEXT), plan=Plan.always(Fault.stall(after_event=MID)))
    yield _in_lab(running, lambda: running.wait_sent(0, MID))


@contextlib.contextmanager
def in_a_stream_that_ends_by_closing(_patch: pytest.MonkeyPatch, labs: Labs) -> Iterator[Phase]:
    answers = script.responses_text(TEXT, framing="close")
    running = labs(answers, plan=Plan.always(Fault.stall(after_event=MID)))
    yield _in_lab(running, lambda: running.wait_sent(0, MID))


@contextlib.contextmanager
def in_tls(patch: pytest.MonkeyPatch, labs: Labs) -> Iterator[Phase]:
    answers, plan = script.responses_text(TEXT), Plan.always(Fault.stall(after_event=MID))
    running = labs(answers, plan=plan, tls=True)
    yield _in_lab(running, lambda: running.wait_sent(0, MID))


@contextlib.contextmanager
def backing_off(_patch: pytest.MonkeyPatch, labs: Labs) -> Iterator[Phase]:
    running = labs(script.error(503, "later", headers={"Retry-After": "20"}))
    phase = _in_lab(running, lambda: phase.notices.wait(PATIENCE))
    yield phase


PHASES = (
    looking_up,
    connecting,
    shaking_hands,
    awaiting_headers,
    in_the_stream,
    in_a_stream_that_ends_by_closing,
    in_tls,
    backing_off,
)


@by_way
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
def test_a_cancel_stops_a_call_in_every_phase(
    phase: Callable[..., Any],
    way: str,
    lab: Labs,
    monkeypatch: pytest.MonkeyPatch,
    measure: Measure,
    tmp_path: Any,
) -> None:
    """From another thread: the call ends with `Cancelled`, the socket closes at once, nothing is retried."""
    token = Cancel()
    running: list[Lab] = []

    def labs(*args: Any, **options: Any) -> Lab:
        running.append(lab(*args, **options))
        return running[-1]

    with phase(monkeypatch, labs) as stuck:
        options: dict[str, Any] = {"routes": [stuck.route]}
        if stuck.route.scheme == "https" and running:
            (tmp_path / "ca.pem").write_bytes(running[0].ca_pem)
            options["cafile"] = str(tmp_path / "ca.pem")
        call = in_thread(way, {"input": "hi", "cancel": token, "notify": stuck.notify}, **options)
        stuck.arrived()
        begun = time.monotonic()
        token.cancel()
        outcome = call.result(PATIENCE)
        ended, closed = time.monotonic() - begun, stuck.closed()
        assert isinstance(outcome.error, Cancelled), repr(outcome.error)
        assert outcome.error.kind == "cancel"
        assert len(outcome.error.attempts) == 1
        assert ended <= STOP + SCHEDULING
        measure(f"cancel ends the call ({way[:-5]})", ended)
        if closed is not None and phase is not backing_off:
            assert closed - begun <= STOP + SCHEDULING
            measure(f"cancel closes the socket ({way[:-5]})", closed - begun)
        assert stuck.requests() <= 1


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_cancel_carries_what_had_arrived(way: str, lab: Labs) -> None:
    """The partial reply is in `Cancelled`, and it is what the consumer has read."""
    running = lab(script.responses_text(TEXT), plan=Plan.always(Fault.stall(after_event=MID)))
    token = Cancel()

    def read() -> str:
        seen = ""
        with Client(routes=[Route(running.url, "model-1")]).stream("hi", cancel=token) as stream:
            for event in stream:
                seen += event.delta  # type: ignore[union-attr]
                if len(seen.split()) == 4:
                    threading.Timer(0.01, token.cancel).start()
        return seen

    async def aread() -> str:
        seen = ""
        async with AsyncClient(routes=[Route(running.url, "model-1")]).stream("hi", cancel=token) as stream:
            async for event in stream:
                seen += event.delta  # type: ignore[union-attr]
                if len(seen.split()) == 4:
                    asyncio.get_running_loop().call_later(0.01, token.cancel)
        return seen

    with pytest.raises(Cancelled) as caught:
        read() if way == "sync" else asyncio.run(aread())
    assert caught.value.reply is not None
    assert caught.value.reply.text == "The stream that was"
    assert caught.value.reply.status == "dropped"
    assert len(caught.value.reply.attempts) == 1


def test_a_cancel_closes_the_socket_while_the_consumer_holds_the_stream(lab: Labs, measure: Measure) -> None:
    """Even if the consumer is busy elsewhere, the provider stops at once; the consumer learns it later."""
    running = lab(script.responses_text(script.words(400), pace=0.005))
    with Client(routes=[Route(running.url, "model-1")]).stream("hi") as stream:
        events = iter(stream)
        next(events)
        begun = time.monotonic()
        threading.Thread(target=stream.cancel).start()
        closed = running.wait_closed(0).closed_at or 0.0
        with pytest.raises(Cancelled):
            list(events)
    measure("cancel closes the socket (sync, held by the consumer)", closed - begun)
    assert closed - begun <= STOP + SCHEDULING
    assert len(running.requests) == 1


def test_a_cancel_closes_the_socket_while_an_asyncio_consumer_holds_the_stream(
    lab: Labs, measure: Measure
) -> None:
    """In asyncio, too; and the consumer's own wait is not disturbed."""
    running = lab(script.responses_text(script.words(400), pace=0.005))

    async def read() -> float:
        async with AsyncClient(routes=[Route(running.url, "model-1")]).stream("hi") as stream:
            events = aiter(stream)
            await anext(events)
            begun = time.monotonic()
            threading.Thread(target=stream.cancel).start()
            closed = (await asyncio.to_thread(running.wait_closed, 0)).closed_at or 0.0
            with pytest.raises(Cancelled):
                await drained(events)
        return closed - begun

    seconds = asyncio.run(read())
    measure("cancel closes the socket (async, held by the consumer)", seconds)
    assert seconds <= STOP + SCHEDULING
    assert len(running.requests) == 1


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_cancel_stops_what_has_arrived_already(way: str, lab: Labs) -> None:
    """When the whole answer is here and the consumer cancels over its first word, it gets no other."""
    running = lab(script.responses_text(TEXT, burst=True))
    route = Route(running.url, "model-1")
    seen = ""

    def read() -> None:
        nonlocal seen
        with Client(routes=[route]) as client, client.stream("hi") as stream:
            for event in stream:
                seen += event.delta  # type: ignore[union-attr]
                stream.cancel()

    async def aread() -> None:
        nonlocal seen
        async with AsyncClient(routes=[route]).stream("hi") as stream:
            async for event in stream:
                seen += event.delta  # type: ignore[union-attr]
                stream.cancel()

    with pytest.raises(Cancelled) as caught:
        read() if way == "sync" else asyncio.run(aread())
    assert caught.value.reply is not None
    assert seen == "The"
    assert caught.value.reply.text == TEXT  # what arrived is kept, though nobody was given it
    assert len(running.requests) == 1


async def drained(events: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in events]


@by_way
def test_a_cancelled_token_stops_calls_before_they_send(way: str, lab: Labs) -> None:
    """A token stays cancelled: later calls end without so much as a connection."""
    running, token = lab(), Cancel()
    token.cancel()
    outcome, _ = timed(way, {"input": "hi", "cancel": token}, routes=[Route(running.url, "model-1")])
    assert isinstance(outcome.error, Cancelled)
    assert running.accepted == 0


# Interrupts.


@by_way
@pytest.mark.parametrize(("atomic", "stops"), [(True, False), (False, True)])
def test_an_interrupt_stops_a_call_unless_it_is_atomic(
    way: str, lab: Labs, atomic: bool, stops: bool
) -> None:
    """A plain interrupt ends what runs; an atomic call does not hear it."""
    plan = Plan.always(Fault.stall(after_event=MID, seconds=0.3))
    running, token = lab(script.responses_text(TEXT), plan=plan), Cancel()
    ask = {"input": "hi", "cancel": token, "atomic": atomic}
    call = in_thread(way, ask, routes=[Route(running.url, "model-1")])
    running.wait_sent(0, MID)
    token.interrupt()
    outcome = call.result(PATIENCE)
    if stops:
        assert isinstance(outcome.error, Cancelled)
        assert outcome.error.kind == "interrupt"
    else:
        assert outcome.error is None
        assert outcome.reply is not None
        assert outcome.reply.text == TEXT
    assert len(running.requests) == 1


@by_way
def test_a_cancel_stops_an_atomic_call(way: str, lab: Labs) -> None:
    """Atomic masks interrupts, never cancels."""
    running = lab(script.responses_text(TEXT), plan=Plan.always(Fault.stall(after_event=MID)))
    token = Cancel()
    ask = {"input": "hi", "cancel": token, "atomic": True}
    call = in_thread(way, ask, routes=[Route(running.url, "model-1")])
    running.wait_sent(0, MID)
    token.interrupt()
    token.cancel()
    outcome = call.result(PATIENCE)
    assert isinstance(outcome.error, Cancelled)
    assert outcome.error.kind == "cancel"


@by_loop
def test_an_interrupt_passes(way: str, lab: Labs) -> None:
    """An interrupt stops what runs now; the next call with the same token is none of its business."""
    running, token = lab(script.responses_text(TEXT)), Cancel()
    token.interrupt()
    outcome, _ = timed(way, {"input": "hi", "cancel": token}, routes=[Route(running.url, "model-1")])
    assert outcome.error is None


# Two sessions, one client, one tick.

LONG = script.words(80)
IDLE = 0.05
ROUNDS = 12


def two_answers(request: Request) -> Script:
    """A stream that goes on and on, or one that is silent after its first event."""
    if b"long" in request.body:
        return script.responses_text(LONG, pace=0.01)
    return script.responses_text(TEXT, pace=10.0)


def tick(number: int) -> float:
    """Around the moment at which the clock rings."""
    return IDLE + (number - ROUNDS // 2) * 0.0005


def test_cancel_and_timeout_at_once_give_one_outcome(lab: Labs) -> None:
    """A cancel as the clock rings ends that call once; another thread's call on this client goes on."""
    running = lab(two_answers)
    other: Future[Any] = Future()
    with Client(routes=[Route(running.url, "model-1")], policy=Policy(recoveries=0)) as client:
        threading.Thread(target=lambda: other.set_result(client.complete("long"))).start()
        running.wait_request(0)
        for number in range(ROUNDS):
            token = Cancel()
            timer = threading.Timer(tick(number), token.cancel)
            timer.start()
            with pytest.raises((Cancelled, DeadlineExceeded)):
                client.complete("short", cancel=token, timeout=Timeouts(first=IDLE))
            timer.join()
        assert other.result(PATIENCE).text == LONG
    assert len(running.requests) <= 1 + ROUNDS


def test_cancel_and_timeout_at_once_give_one_outcome_in_asyncio(lab: Labs) -> None:
    """The same for tasks of one loop; and no stray cancellation is left behind."""
    running = lab(two_answers)

    async def calls() -> None:
        async with AsyncClient(routes=[Route(running.url, "model-1")], policy=Policy(recoveries=0)) as client:
            other = asyncio.create_task(client.complete("long"))
            for number in range(ROUNDS):
                token = Cancel()
                asyncio.get_running_loop().call_later(tick(number), token.cancel)
                with pytest.raises((Cancelled, DeadlineExceeded)):
                    await client.complete("short", cancel=token, timeout=Timeouts(first=IDLE))
                task = asyncio.current_task()
                assert task is not None
                assert task.cancelling() == 0
                await asyncio.sleep(0.01)
            assert (await other).text == LONG

    asyncio.run(calls())
    assert len(running.requests) <= 1 + ROUNDS


@pytest.mark.parametrize("first", ["cancel", "task", "timeout", "all"])
def test_whatever_ends_an_asyncio_call_at_the_same_tick_ends_it_once(first: str) -> None:
    """Token, task cancellation and clock at one virtual instant: one outcome, and nothing is swallowed."""
    world = World()
    world.play(answer(*PLAIN.events[:5], ending="stall"))
    token, loop = Cancel(), Loop(world)
    options = {"timeout": Timeouts(idle=60), "policy": Policy(recoveries=0)}

    async def call() -> Any:
        return await async_client(world, [PLAIN.route], **options).complete("hi", cancel=token)

    async def main() -> BaseException | None:
        task = asyncio.create_task(call())
        if first in ("cancel", "all"):
            loop.call_later(60, token.cancel)
        if first in ("task", "all"):
            loop.call_later(60, task.cancel)
        await asyncio.wait([task])
        if task.cancelled():
            return asyncio.CancelledError()
        return task.exception()

    ended = loop.run_until_complete(main())
    loop.close()
    allowed = {
        "cancel": (Cancelled, DeadlineExceeded),
        "task": (asyncio.CancelledError,),
        "timeout": (DeadlineExceeded,),
        "all": (asyncio.CancelledError,),
    }
    assert isinstance(ended, allowed[first]), repr(ended)
    assert world.open == 0


# Leaving early.


def test_leaving_a_stream_closes_its_socket(lab: Labs, measure: Measure) -> None:
    """Nobody reads on: the provider is told at once."""
    running = lab(script.responses_text(script.words(400), pace=0.005))
    with Client(routes=[Route(running.url, "model-1")]).stream("hi") as stream:
        next(iter(stream))
        begun = time.monotonic()
    closed = running.wait_closed(0)
    measure("leaving a stream closes the socket (sync)", closed.closed_at - begun)
    assert closed.ended_by == "client"
    assert closed.closed_at - begun <= STOP + SCHEDULING
    assert stream.reply.status == "dropped"


def test_leaving_an_asyncio_stream_closes_its_socket(lab: Labs, measure: Measure) -> None:
    """Also in asyncio."""
    running = lab(script.responses_text(script.words(400), pace=0.005))

    async def read() -> float:
        async with AsyncClient(routes=[Route(running.url, "model-1")]).stream("hi") as stream:
            await anext(aiter(stream))
            begun = time.monotonic()
        closed = await asyncio.to_thread(running.wait_closed, 0)
        return closed.closed_at - begun

    seconds = asyncio.run(read())
    measure("leaving a stream closes the socket (async)", seconds)
    assert seconds <= STOP + SCHEDULING


def test_a_forgotten_stream_closes_its_socket(lab: Labs) -> None:
    """A stream that was neither read to its end nor left is closed by the garbage collector."""
    running = lab(script.responses_text(script.words(400), pace=0.005))
    stream = Client(routes=[Route(running.url, "model-1")]).stream("hi")
    next(iter(stream.__enter__()))
    del stream
    gc.collect()
    assert running.wait_closed(0).ended_by == "client"


def test_a_forgotten_asyncio_stream_closes_its_socket(lab: Labs) -> None:
    """Also in asyncio, while the loop runs."""
    running = lab(script.responses_text(script.words(400), pace=0.005))

    async def forget() -> None:
        stream = AsyncClient(routes=[Route(running.url, "model-1")]).stream("hi")
        await anext(aiter(await stream.__aenter__()))

    async def main() -> str:
        await forget()
        gc.collect()
        return (await asyncio.to_thread(running.wait_closed, 0)).ended_by

    assert asyncio.run(main()) == "client"


def test_an_exception_of_the_consumer_closes_the_socket(lab: Labs) -> None:
    """The consumer's own error passes through untouched and ends the exchange."""
    running = lab(script.responses_text(script.words(400), pace=0.005))

    def read() -> None:
        with Client(routes=[Route(running.url, "model-1")]).stream("hi") as stream:
            for _ in stream:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read()
    assert running.wait_closed(0).ended_by == "client"


# asyncio's own ways to stop.


@pytest.mark.parametrize(
    "phase", [connecting, awaiting_headers, in_the_stream, backing_off], ids=lambda phase: phase.__name__
)
def test_cancelling_the_task_stops_the_call(
    phase: Callable[..., Any], lab: Labs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`task.cancel()` is asyncio's business: CancelledError passes through and the socket is closed."""
    with phase(monkeypatch, lab) as stuck:

        async def main() -> float:
            client = AsyncClient(routes=[stuck.route])
            task = asyncio.create_task(client.complete("hi", notify=stuck.notify))
            await asyncio.to_thread(stuck.arrived)
            begun = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return time.monotonic() - begun

        assert asyncio.run(main()) <= STOP + SCHEDULING
        stuck.closed()
        assert stuck.requests() <= 1


def test_wait_for_around_a_step_ends_the_stream(lab: Labs) -> None:
    """A step that takes too long for `asyncio.wait_for` is cancelled, and its socket closed."""
    running = lab(script.responses_text(TEXT), plan=Plan.always(Fault.stall(after_event=MID)))

    async def read() -> str:
        async with AsyncClient(routes=[Route(running.url, "model-1")]).stream("hi") as stream:
            events = aiter(stream)
            seen = [await asyncio.wait_for(anext(events), 5) for _ in range(4)]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), 0.2)
            await asyncio.to_thread(running.wait_closed, 0)
            with pytest.raises(StopAsyncIteration):
                await anext(events)
        return "".join(event.delta for event in seen)  # type: ignore[union-attr]

    assert asyncio.run(read()) == "The stream that was"
    assert len(running.requests) == 1


def test_every_step_may_run_in_a_task_of_its_own() -> None:
    """A consumer that wraps each step in another task gets the whole answer, recovery included."""
    world = World()
    world.play(answer(*PLAIN.events[:5], ending="stall"), answer(*PLAIN.events))

    async def read() -> str:
        text = ""
        async with async_client(world, [PLAIN.route]).stream("hi") as stream:
            events = aiter(stream)
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    event = await asyncio.create_task(_step(events))
                    text += event.delta if isinstance(event, TextDelta) else ""
        return text

    loop = Loop(world)
    assert loop.run_until_complete(read()) == PLAIN.expect["text"]
    loop.close()


async def _step(events: Any) -> Any:
    return await anext(events)
