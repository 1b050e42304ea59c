"""Clocks hold on real sockets: no call waits longer than it was allowed, whatever keeps it waiting.

These are bounds, not benchmarks. `total` may be exceeded by 50 ms and `idle` by a tenth, as the design
promises, plus `SCHEDULING`: what a busy machine may take to let a thread or a loop run at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from callers import WAYS
from memory import Loop, World, answer, async_client, client
from places import black_hole, endless_lookup, mute, timed
from verdicts import recorded

from sidestream import DeadlineExceeded, Policy, RateLimited, Route, Timeouts
from sidestream.lab import Fault, Lab, Plan, script

SCHEDULING = 0.15
OVER_TOTAL = 0.05
TOTAL = 0.4
IDLE = 0.5
ONCE = Policy(recoveries=0)
TEXT = "The stream that was cut came back whole."
ASK = {"input": "hi"}

Labs = Callable[..., Lab]
Measure = Callable[[str, float], None]
by_way = pytest.mark.parametrize("way", WAYS)
by_loop = pytest.mark.parametrize("way", ["sync-held", "async-held"])


def patient(**clocks: float) -> Timeouts:
    """Clocks that do not ring, except those given."""
    return Timeouts(**{"total": 30.0, "first": 30.0, "idle": 30.0, "connect": 30.0, **clocks})


# The idle clock.


@by_loop
@pytest.mark.parametrize(
    ("wire", "form"),
    [
        ("responses", "comment"),
        ("responses", "event"),
        ("responses", "in_progress"),
        ("responses", "responses_delta"),
        ("responses", "ping"),
        ("chat", "openrouter"),
        ("chat", "chat_delta"),
        ("chat", "blank"),
    ],
)
def test_signs_of_life_are_no_progress(lab: Labs, way: str, wire: str, form: str, measure: Measure) -> None:
    """Keep-alives, lifecycle events and empty deltas do not reset the idle clock."""
    plan = Plan.always(Fault.keepalive(form, after_event=8 if wire == "responses" else 3, interval=0.02))
    running = lab(script.say(TEXT), plan=plan)
    route = Route(running.url, "model-1", wire)  # type: ignore[arg-type]
    outcome, seconds = timed(way, ASK, routes=[route], timeout=patient(idle=IDLE), policy=ONCE)
    assert_rang(outcome.error, "idle")
    measure(f"idle exceeded by ({way[:-5]})", seconds - IDLE)
    assert IDLE <= seconds <= IDLE * 1.1 + SCHEDULING
    assert running.wait_closed(0).ended_by == "client"


@by_loop
def test_silence_is_no_progress(lab: Labs, way: str) -> None:
    """Nor does silence; and the partial comes with the error."""
    running = lab(script.responses_text(TEXT), plan=Plan.always(Fault.stall(after_event=8)))
    outcome, seconds = timed(
        way, ASK, routes=[Route(running.url, "model-1")], timeout=patient(idle=IDLE), policy=ONCE
    )
    assert_rang(outcome.error, "idle")
    assert IDLE <= seconds <= IDLE * 1.1 + SCHEDULING
    assert isinstance(outcome.error, DeadlineExceeded)
    assert outcome.error.reply is not None
    assert TEXT.startswith(outcome.error.reply.text.rstrip() or "nothing")


@by_way
def test_output_is_progress_however_slow(lab: Labs, way: str) -> None:
    """A stream that says a word within every idle limit is never given up."""
    running = lab(script.responses_text(TEXT, pace=0.1))
    outcome, seconds = timed(
        way, ASK, routes=[Route(running.url, "model-1")], timeout=patient(idle=0.6), policy=ONCE
    )
    assert outcome.error is None
    assert seconds > 1.0


@by_loop
def test_the_first_output_has_its_own_clock(lab: Labs, way: str) -> None:
    """Lifecycle events do not count as the first output, either."""
    running = lab(
        script.responses_text(TEXT), plan=Plan.always(Fault.keepalive("in_progress", after_event=2))
    )
    outcome, seconds = timed(
        way, ASK, routes=[Route(running.url, "model-1")], timeout=patient(first=IDLE), policy=ONCE
    )
    assert_rang(outcome.error, "first")
    assert IDLE <= seconds <= IDLE * 1.1 + SCHEDULING


@by_loop
def test_each_attempt_has_its_own_idle_clock(lab: Labs, way: str) -> None:
    """The second attempt's silence is measured from its own last output."""
    plan = Plan.always(Fault.stall(after_event=8))
    running = lab(script.responses_text(TEXT), plan=plan)
    outcome, seconds = timed(
        way,
        ASK,
        routes=[Route(running.url, "model-1")],
        timeout=patient(idle=0.2),
        policy=Policy(),
    )
    assert_rang(outcome.error, "idle")
    assert len(running.requests) == 2
    backoff = 0.5
    assert 0.4 <= seconds <= 0.44 + backoff + SCHEDULING


# The total.


STUCK = {
    "headers": Fault.hang(),
    "a head that drips": Fault.drip(interval=0.1),
    "silence in the middle": Fault.stall(after_event=8),
    "keep-alives in the middle": Fault.keepalive(after_event=8, interval=0.02),
    "silence after the end": Fault.stall(after_event=10**6),
}


@by_loop
@pytest.mark.parametrize("phase", STUCK)
def test_total_holds_while_the_provider_lets_wait(lab: Labs, way: str, phase: str, measure: Measure) -> None:
    """The call's total time is kept in every phase of an exchange."""
    running = lab(script.responses_text(TEXT), plan=Plan.always(STUCK[phase]))
    outcome, seconds = timed(way, ASK, routes=[Route(running.url, "model-1")], timeout=patient(total=TOTAL))
    measure(f"total exceeded by ({way[:-5]})", seconds - TOTAL)
    assert seconds <= TOTAL + OVER_TOTAL + SCHEDULING
    if phase == "silence after the end":
        assert outcome.error is None
    else:
        assert_rang(outcome.error, "total")
    assert running.wait_closed(0).closed_at is not None


@by_way
def test_total_holds_while_all_is_well(lab: Labs, way: str) -> None:
    """A healthy stream is ended by the total, too, and what it said until then is in the error."""
    running = lab(script.responses_text(TEXT, pace=0.05))
    outcome, seconds = timed(way, ASK, routes=[Route(running.url, "model-1")], timeout=patient(total=0.7))
    assert_rang(outcome.error, "total")
    assert seconds <= 0.7 + OVER_TOTAL + SCHEDULING
    assert outcome.error.reply.text


@by_loop
def test_total_holds_while_connecting(way: str, measure: Measure) -> None:
    """A place that never answers a connection costs the total and no more."""
    with black_hole() as place:
        route = Route(f"http://{place}/v1", "model-1")
        outcome, seconds = timed(way, ASK, routes=[route], timeout=patient(total=TOTAL))
    assert_rang(outcome.error, "total")
    measure(f"total exceeded by ({way[:-5]})", seconds - TOTAL)
    assert TOTAL <= seconds <= TOTAL + OVER_TOTAL + SCHEDULING


@by_loop
def test_total_holds_in_a_handshake(way: str, measure: Measure) -> None:
    """A TLS handshake that nobody answers costs the total and no more."""
    with mute() as place:
        route = Route(f"https://{place}/v1", "model-1")
        outcome, seconds = timed(way, ASK, routes=[route], timeout=patient(total=TOTAL))
    assert_rang(outcome.error, "total")
    measure(f"total exceeded by ({way[:-5]})", seconds - TOTAL)
    assert TOTAL <= seconds <= TOTAL + OVER_TOTAL + SCHEDULING


@by_loop
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_connecting_has_its_own_clock(way: str, scheme: str) -> None:
    """The connection, TLS included, has to stand within `connect`."""
    with black_hole() if scheme == "http" else mute() as place:
        route = Route(f"{scheme}://{place}/v1", "model-1")
        outcome, seconds = timed(way, ASK, routes=[route], timeout=patient(connect=TOTAL), policy=ONCE)
    assert_rang(outcome.error, "connect")
    assert TOTAL <= seconds <= TOTAL * 1.1 + SCHEDULING


@by_loop
def test_total_holds_in_a_name_lookup(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that hangs costs the total and no more."""
    with endless_lookup(monkeypatch):
        route = Route("http://nowhere.test/v1", "model-1")
        outcome, seconds = timed(way, ASK, routes=[route], timeout=patient(total=TOTAL))
    assert_rang(outcome.error, "total")
    assert TOTAL <= seconds <= TOTAL + OVER_TOTAL + SCHEDULING


@by_loop
def test_total_holds_in_a_backoff(lab: Labs, way: str) -> None:
    """A wait that the total does not leave room for is not begun; the error says when to come back."""
    refusal = script.error(429, {"error": {"message": "slow down"}}, headers={"Retry-After": "0.3"})
    running = lab(refusal)
    outcome, seconds = timed(way, ASK, routes=[Route(running.url, "model-1")], timeout=patient(total=TOTAL))
    assert isinstance(outcome.error, RateLimited)
    assert outcome.error.fault.retry_after == 0.3
    assert seconds <= TOTAL + OVER_TOTAL + SCHEDULING
    assert len(running.requests) <= 2


@by_way
def test_a_fallback_always_has_time_left(lab: Labs, way: str) -> None:
    """A silent first route may use its share of the total only; the second still answers within it."""
    silent, well = lab(plan=Plan.always(Fault.hang())), lab(script.responses_text(TEXT))
    routes = [Route(silent.url, "model-1"), Route(well.url, "model-2")]
    outcome, seconds = timed(way, ASK, routes=routes, timeout=patient(total=1.0), policy=Policy(tries=1))
    assert outcome.reply is not None
    assert outcome.reply.text == TEXT
    assert 0.5 <= seconds <= 1.0


# Whose time it is. No sockets: the clock is virtual.

PLAIN = next(stream for stream in recorded("responses") if stream.name == "responses-plain-text")


def test_a_slow_consumer_is_no_stall() -> None:
    """Hours that the consumer takes over an event count neither for the idle clock nor for the total."""
    world = World()
    world.play(answer(*PLAIN.events))
    text = ""
    with client(world, [PLAIN.route]).stream(**PLAIN.ask) as stream:
        for event in stream:
            text += event.delta  # type: ignore[union-attr]
            world.clock.advance(10_000)
    assert text == PLAIN.expect["text"]
    assert len(world.requests) == 1


def test_a_slow_asyncio_consumer_is_no_stall() -> None:
    """In asyncio, too; and its own waits are never cancelled."""
    world = World()
    world.play(answer(*PLAIN.events))

    async def read() -> str:
        text = ""
        async with async_client(world, [PLAIN.route]).stream(**PLAIN.ask) as stream:
            async for event in stream:
                text += event.delta  # type: ignore[union-attr]
                await asyncio.sleep(10_000)
        return text

    loop = Loop(world)
    assert loop.run_until_complete(read()) == PLAIN.expect["text"]
    loop.close()
    assert len(world.requests) == 1


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_stall_after_a_slow_consumer_is_a_stall(way: str) -> None:
    """When the consumer is back and the provider says nothing more, the idle clock rings after its time."""
    world, gave_back = World(), 0.0
    world.play(answer(*PLAIN.events[:5], ending="stall"))
    options = {"timeout": Timeouts(idle=60), "policy": ONCE}

    def read() -> None:
        nonlocal gave_back
        with client(world, [PLAIN.route], **options).stream(**PLAIN.ask) as stream:
            for _ in stream:
                world.clock.advance(10_000)
                gave_back = world.clock()

    async def aread() -> None:
        nonlocal gave_back
        async with async_client(world, [PLAIN.route], **options).stream(**PLAIN.ask) as stream:
            async for _ in stream:
                await asyncio.sleep(10_000)
                gave_back = world.clock()

    loop = Loop(world)
    with pytest.raises(DeadlineExceeded) as caught:
        read() if way == "sync" else loop.run_until_complete(aread())
    loop.close()
    assert caught.value.clock == "idle"
    assert world.clock() - gave_back == pytest.approx(60, abs=0.01)


def assert_rang(error: BaseException | None, clock: str) -> None:
    """That a call ended with this clock."""
    assert isinstance(error, DeadlineExceeded), repr(error)
    assert error.clock == clock
    assert f"timeout.{clock}" in str(error)
