"""What a process knows of its endpoints: rule by rule, at random, by threads, and in a storm."""

import gc
import heapq
import itertools
import random
import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sidestream import Route, Secret
from sidestream.errors import UsageError
from sidestream.recovery.origins import (
    BreakerState,
    Denied,
    Learned,
    Origins,
    OriginState,
    Parked,
    Permit,
    StormRules,
    Stream,
    StreamOutcome,
)
from sidestream.route import Scope

KEY = "canary-0123456789"
A = Route("https://a.test/v1", "m", api_key=Secret(KEY))
A_OTHER_MODEL = Route("https://a.test/v1", "n")
B = Route("https://b.test/v1", "m")
AT_A = "https://a.test:443"
# Rules without a breaker, to see the other two budgets, and with a token in ten seconds, to see it grow.
UNBROKEN = StormRules(seconds_per_token=10.0, in_a_row=10**9, window_least=10**9, window_most=10**9)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def origins(clock: Clock) -> Origins:
    return Origins(clock)


def attempt(origins: Origins, outcome: StreamOutcome, route: Route = A, times: int = 1) -> None:
    for _ in range(times):
        origins.began(route).ended(outcome)


def row(origins: Origins, route: Route = A) -> OriginState:
    return next(state for state in origins.state() if state.origin == route.origin)


def breaker(origins: Origins, route: Route = A) -> BreakerState:
    return next(state for state in row(origins, route).breakers if state.model == route.model)


def permit(origins: Origins, route: Route = A) -> Permit:
    answer = origins.recover(route)
    assert isinstance(answer, Permit)
    return answer


def denied(origins: Origins, route: Route = A) -> Denied:
    answer = origins.recover(route)
    assert isinstance(answer, Denied)
    return answer


# The bucket.


def test_an_origin_never_seen_starts_full(origins: Origins) -> None:
    """The first recovery at an origin is allowed at once, from ten tokens."""
    permit(origins).release()
    assert row(origins) == OriginState(AT_A, 10.0, 0, 0, 3, (BreakerState("m", "closed", "", 0.0),), ())


def test_recoveries_stop_at_half(clock: Clock) -> None:
    """Each attempt that brought nothing takes a token; with five of ten left there is no recovery."""
    origins = Origins(clock, rules=UNBROKEN)
    attempt(origins, "nothing", times=4)
    permit(origins).release()
    attempt(origins, "nothing")
    assert denied(origins) == Denied(
        "origin",
        f"too much failed at {AT_A}: 5 of 10 tokens left, recovering takes more than half",
        1.0,
    )
    attempt(origins, "nothing", times=100)
    assert row(origins).tokens == 0.0
    assert denied(origins).retry_in == 51.0


def test_output_gives_a_tenth_back_exactly(clock: Clock) -> None:
    """Ten attempts with output make up for one without, to the last tenth and never above ten."""
    origins = Origins(clock, rules=UNBROKEN)
    attempt(origins, "output")
    assert row(origins).tokens == 10.0
    attempt(origins, "nothing", times=10)
    for tenth in range(1, 51):
        attempt(origins, "output")
        assert row(origins).tokens == tenth / 10
        denied(origins)
    attempt(origins, "output")
    assert row(origins).tokens == 5.1
    permit(origins)
    attempt(origins, "output", times=100)
    assert row(origins).tokens == 10.0


def test_time_refills_a_token_in_ten_seconds(clock: Clock) -> None:
    """A process without traffic gets its recoveries back: a tenth a second, up to ten tokens."""
    origins = Origins(clock, rules=UNBROKEN)
    attempt(origins, "nothing", times=10)
    for seconds, tokens in ((0.9, 0.0), (0.1, 0.1), (9.0, 1.0), (40.0, 5.0), (0.999, 5.0), (0.001, 5.1)):
        clock.now += seconds
        assert row(origins).tokens == tokens
    permit(origins)
    clock.now += 1e6
    assert row(origins).tokens == 10.0
    attempt(origins, "nothing")
    assert row(origins).tokens == 9.0, "a full bucket saves nothing up"


def test_waiting_as_long_as_told_is_enough(clock: Clock) -> None:
    """Just before `retry_in` is over the bucket still refuses, and then it does not."""
    origins = Origins(clock, rules=UNBROKEN)
    attempt(origins, "nothing", times=7)
    clock.now += 0.25
    assert denied(origins).retry_in == 20.75
    clock.now += 20.7
    assert denied(origins).retry_in == 0.05
    clock.now += 0.05
    permit(origins)


def test_without_refill_waiting_does_not_help(clock: Clock) -> None:
    """gRPC's own bucket can be had; then no time is named."""
    origins = Origins(clock, rules=StormRules(seconds_per_token=None, in_a_row=100))
    attempt(origins, "nothing", times=5)
    clock.now += 1e9
    assert denied(origins).retry_in is None
    attempt(origins, "output", times=1000)
    assert row(origins).tokens == 10.0


def test_what_is_not_the_providers_fault_costs_nothing(origins: Origins) -> None:
    """Cancels, 4xx and throttles change neither bucket nor breaker, however many."""
    before = row(origins) if attempt(origins, "neutral") is None else None
    attempt(origins, "neutral", times=500)
    assert row(origins) == before
    assert origins.admit(A) is None


def test_a_refusal_costs_nothing(clock: Clock) -> None:
    """Asking again and again changes no token and takes no place."""
    origins = Origins(clock, rules=UNBROKEN)
    attempt(origins, "nothing", times=5)
    before = origins.state()
    for _ in range(100):
        assert denied(origins).budget == "origin"
    assert origins.state() == before


def test_attempts_count_once(origins: Origins) -> None:
    """An attempt is active from its beginning to its first end, and books one outcome, the first."""
    stream = origins.began(A)
    assert row(origins).active == 1
    for outcome in ("nothing", "nothing", "output", "neutral"):
        stream.ended(outcome)
    stream.progress()
    assert (row(origins).active, row(origins).tokens) == (0, 9.0)
    stream = origins.began(A)
    for _ in range(20):
        stream.progress()
    assert (row(origins).active, row(origins).tokens) == (1, 9.1)
    stream.ended("nothing")
    assert (row(origins).active, row(origins).tokens) == (0, 9.1)


# Recoveries under way.


@pytest.mark.parametrize(
    ("active", "limit"), [(0, 3), (1, 3), (19, 3), (20, 4), (24, 4), (25, 5), (1000, 200)]
)
def test_recoveries_under_way_are_a_fifth_of_the_streams(origins: Origins, active: int, limit: int) -> None:
    """Three recoveries are always allowed at an origin, and then 20 % of its active streams."""
    for _ in range(active):
        origins.began(A)
    permits = [permit(origins) for _ in range(limit)]
    refusal = denied(origins)
    assert refusal == Denied("busy", f"{limit} recoveries of {limit} are under way at {AT_A}", 1.0)
    assert denied(origins, A_OTHER_MODEL).budget == "busy", "models of an origin share it"
    permit(origins, B)
    permits[0].release()
    permits[0].release()
    permit(origins)
    denied(origins)


@pytest.mark.parametrize("end", [Stream.progress, lambda stream: stream.ended("neutral")])
def test_a_stream_releases_its_permit(origins: Origins, end: Callable[[Stream], None]) -> None:
    """The first output, or the end, of a recovery makes room for the next one."""
    streams = [origins.began(A, permit(origins)) for _ in range(3)]
    assert (row(origins).active, row(origins).recovering) == (3, 3)
    denied(origins)
    end(streams[0])
    end(streams[0])
    assert row(origins).recovering == 2
    permit(origins)


def test_a_permit_may_be_released_by_hand(origins: Origins) -> None:
    """A permit that no stream was given for is released by who holds it, before or after the end."""
    held = permit(origins)
    stream = origins.began(A)
    held.release()
    stream.ended("output")
    held.release()
    assert row(origins).recovering == 0


# The breaker.


def test_five_in_a_row_open_the_breaker(clock: Clock, origins: Origins) -> None:
    """Five attempts without output open it for four seconds, for first attempts and recoveries alike."""
    attempt(origins, "nothing", times=4)
    attempt(origins, "output")
    attempt(origins, "nothing", times=4)
    attempt(origins, "neutral", times=9)
    assert origins.admit(A) is None
    attempt(origins, "nothing")
    reason = f"the breaker of m at {AT_A} is open: 5 attempts in a row brought nothing"
    assert origins.admit(A) == denied(origins) == Denied("breaker", reason, 4.0)
    clock.now += 3.75
    assert origins.admit(A) == Denied("breaker", reason, 0.25)
    assert breaker(origins) == BreakerState("m", "open", "5 attempts in a row brought nothing", 0.25)


def test_a_breaker_is_for_one_model_of_one_origin(origins: Origins) -> None:
    """Another model there, and the same model elsewhere, are still asked; the bucket is the origin's."""
    attempt(origins, "nothing", times=5)
    assert origins.admit(A) is not None
    assert origins.admit(A_OTHER_MODEL) is None
    assert origins.admit(B) is None
    assert denied(origins, A_OTHER_MODEL).budget == "origin"
    permit(origins, B)


def test_half_of_the_last_twenty_open_the_breaker(clock: Clock, origins: Origins) -> None:
    """A model that fails every other time is opened at its twentieth attempt, and not before."""
    for _ in range(9):
        attempt(origins, "output")
        attempt(origins, "nothing")
    attempt(origins, "output")
    assert origins.admit(A) is None
    attempt(origins, "nothing")
    refusal = origins.admit(A)
    assert refusal is not None
    assert refusal.reason.endswith(": 10 of the last 20 attempts brought nothing")


def test_less_than_half_does_not_open_the_breaker(origins: Origins) -> None:
    """Two failures in five, for ever, leave it closed."""
    for _ in range(200):
        attempt(origins, "nothing", times=2)
        attempt(origins, "output", times=3)
        assert origins.admit(A) is None


def test_the_window_forgets_after_a_minute(clock: Clock, origins: Origins) -> None:
    """Failures a minute old do not count, so rare ones never add up."""
    for _ in range(100):
        attempt(origins, "output")
        attempt(origins, "nothing")
        assert breaker(origins).state == "closed"
        clock.now += 7.0


@pytest.mark.parametrize(("seconds", "state"), [(59.75, "open"), (60.0, "closed")])
def test_the_window_is_a_minute(clock: Clock, origins: Origins, seconds: float, state: str) -> None:
    """An attempt counts for less than sixty seconds."""
    attempt(origins, "output")
    clock.now += seconds
    for _ in range(9):
        attempt(origins, "nothing")
        attempt(origins, "output")
    attempt(origins, "nothing")
    assert breaker(origins).state == state


def test_a_breaker_that_closed_starts_from_nothing(clock: Clock, origins: Origins) -> None:
    """What was counted before it opened is forgotten: the same history opens it again at the same point."""
    for _ in range(3):
        for _ in range(9):
            attempt(origins, "nothing")
            attempt(origins, "output")
        attempt(origins, "output")
        assert breaker(origins).state == "closed"
        attempt(origins, "nothing")
        assert breaker(origins).reason == "10 of the last 20 attempts brought nothing"
        clock.now += 4.0
        assert origins.admit(A) is None
        origins.began(A).progress()


def test_the_window_holds_a_hundred_attempts(origins: Origins) -> None:
    """A long good past does not hide a bad present: only the last hundred attempts are looked at."""
    attempt(origins, "output", times=5000)
    for _ in range(49):
        attempt(origins, "output")
        attempt(origins, "nothing")
    assert origins.admit(A) is None
    attempt(origins, "output")
    attempt(origins, "nothing")
    refusal = origins.admit(A)
    assert refusal is not None
    assert refusal.reason.endswith(": 50 of the last 100 attempts brought nothing")


def half_open(clock: Clock, origins: Origins) -> None:
    attempt(origins, "nothing", times=5)
    clock.now += 4.0
    assert breaker(origins) == BreakerState("m", "half-open", "5 attempts in a row brought nothing", 0.0)


def test_half_open_admits_one_probe(clock: Clock, origins: Origins) -> None:
    """After four seconds exactly one attempt is let through; the others are told to wait another four."""
    half_open(clock, origins)
    assert origins.admit(A) is None
    reason = f"the breaker of m at {AT_A} waits for a probe: 5 attempts in a row brought nothing"
    assert [origins.admit(A) for _ in range(50)] == [Denied("breaker", reason, 4.0)] * 50
    assert denied(origins) == Denied("breaker", reason, 4.0)
    origins.began(A)
    assert origins.admit(A) == Denied("breaker", reason, 4.0)


def test_a_probe_with_output_closes_the_breaker(clock: Clock, origins: Origins) -> None:
    """The first output of the probe lets everyone in, while it is still being read."""
    half_open(clock, origins)
    assert origins.admit(A) is None
    probe = origins.began(A)
    probe.progress()
    assert [origins.admit(A) for _ in range(50)] == [None] * 50
    probe.ended("nothing")
    attempt(origins, "nothing", times=4)
    assert origins.admit(A) is None, "it starts from nothing"


def test_a_probe_without_output_opens_it_again(clock: Clock, origins: Origins) -> None:
    """It stays open for another four seconds from there: constant, whatever the count."""
    half_open(clock, origins)
    for _ in range(20):
        assert origins.admit(A) is None
        probe = origins.began(A)
        clock.now += 1.0
        probe.ended("nothing")
        refusal = origins.admit(A)
        assert refusal is not None
        assert refusal.retry_in == 4.0
        clock.now += 4.0


def test_a_probe_that_cannot_tell_gives_its_place_back(clock: Clock, origins: Origins) -> None:
    """A cancelled probe neither opens nor closes; the next attempt is the probe."""
    half_open(clock, origins)
    for _ in range(3):
        assert origins.admit(A) is None
        probe = origins.began(A)
        assert origins.admit(A) is not None
        probe.ended("neutral")
        assert breaker(origins).state == "half-open"


def test_a_permit_that_never_begins_gives_the_probe_back(clock: Clock, origins: Origins) -> None:
    """A recovery may be the probe; released before its attempt began, the next one may be."""
    half_open(clock, origins)
    clock.now += 60.0
    held = permit(origins)
    assert origins.admit(A) is not None
    held.release()
    assert origins.admit(A) is None


def test_a_permit_released_by_hand_keeps_the_probe_once_begun(clock: Clock, origins: Origins) -> None:
    """Releasing a permit at the first output does not end the attempt it was for."""
    half_open(clock, origins)
    clock.now += 60.0
    held = permit(origins)
    stream = origins.began(A, held)
    held.release()
    assert origins.admit(A) is not None
    stream.ended("nothing")
    assert breaker(origins).state == "open"


def test_a_refused_recovery_does_not_use_up_the_probe(clock: Clock, origins: Origins) -> None:
    """With the bucket empty, the probe is left to the next first attempt."""
    half_open(clock, origins)
    attempt(origins, "nothing", times=5)
    assert denied(origins).budget == "origin"
    assert origins.admit(A) is None


@pytest.mark.parametrize("begins", [True, False])
def test_a_probe_that_vanished_expires(clock: Clock, origins: Origins, begins: bool) -> None:
    """After thirty seconds without a word from the probe another one goes, whether it ever began or not."""
    half_open(clock, origins)
    assert origins.admit(A) is None
    if begins:
        origins.began(A)
    clock.now += 27.0
    refusal = origins.admit(A)
    assert refusal is not None
    assert refusal.retry_in == 3.0
    clock.now += 3.0
    assert origins.admit(A) is None
    assert origins.admit(A) is not None


def test_a_late_probe_is_good_news_only(clock: Clock, origins: Origins) -> None:
    """Given up for lost, a probe without output changes nothing, and one with output closes the breaker."""
    half_open(clock, origins)
    probes = []
    for _ in range(3):
        assert origins.admit(A) is None
        probes.append(origins.began(A))
        clock.now += 30.0
    probes[0].ended("nothing")
    assert breaker(origins).state == "half-open"
    probes[1].progress()
    assert breaker(origins).state == "closed"
    probes[2].ended("nothing")
    attempt(origins, "nothing", times=4)
    assert breaker(origins).state == "closed"


def test_only_the_probe_decides(clock: Clock, origins: Origins) -> None:
    """Attempts that were admitted before the breaker opened and begin beside the probe change nothing, and
    neither does a probe that was given up for lost and then cancelled."""
    half_open(clock, origins)
    assert origins.admit(A) is None
    lost = origins.began(A)
    clock.now += 30.0
    assert origins.admit(A) is None
    probe = origins.began(A)
    for outcome in OUTCOMES:
        origins.began(A).ended(outcome)
        assert breaker(origins).state == "half-open"
        assert origins.admit(A) is not None, "the probe is still under way"
    lost.ended("neutral")
    assert origins.admit(A) is not None
    probe.ended("output")
    assert breaker(origins).state == "closed"


def test_news_of_an_earlier_outage_is_not_of_this_one(clock: Clock, origins: Origins) -> None:
    """Output of a stream or probe that began before the breaker last turned neither closes it nor makes its
    count start again."""
    early = [origins.began(A)]
    half_open(clock, origins)
    for _ in range(2):
        assert origins.admit(A) is None
        early.append(origins.began(A))
        clock.now += 30.0
    early.pop().ended("nothing")
    clock.now += 4.0
    early.pop().ended("output")
    assert breaker(origins).state == "half-open"
    assert origins.admit(A) is None
    origins.began(A).ended("output")
    attempt(origins, "nothing", times=4)
    early.pop().ended("output")
    attempt(origins, "nothing")
    assert breaker(origins).state == "open"


def test_streams_of_before_the_outage_are_old_news(clock: Clock, origins: Origins) -> None:
    """What hung through the outage and dies after it does not open the breaker again, nor close it."""
    hung = [origins.began(A) for _ in range(21)]
    half_open(clock, origins)
    hung.pop().ended("output")
    assert breaker(origins).state == "half-open"
    assert origins.admit(A) is None
    origins.began(A).progress()
    for stream in hung:
        stream.ended("nothing")
    assert origins.admit(A) is None
    assert row(origins).tokens == 0.0, "the bucket counts them"


# What was learned.


def test_what_was_learned_is_for_one_endpoint_wire_and_model(origins: Origins) -> None:
    """A fact about a route holds for the same endpoint, wire and model, under whatever name or key."""
    origins.learn(A, "prefill", "HTTP 400: no\ntrailing assistant turn")
    reason = "HTTP 400: no trailing assistant turn"
    assert origins.learned(A, "prefill") == reason
    assert origins.learned(Route(A.base_url, "m", name="again"), "prefill") == reason
    for other in (B, A_OTHER_MODEL, Route(A.base_url, "m", "chat"), Route("https://a.test/v2", "m")):
        assert origins.learned(other, "prefill") == ""
    assert origins.learned(A, "background") == ""
    assert row(origins).learned == (Learned("m", "prefill", reason),)
    origins.learn(A, "prefill", "")
    assert origins.learned(A, "prefill") == "prefill"


def test_no_credential_is_kept_or_told(clock: Clock, origins: Origins) -> None:
    """A provider that quotes the key back gets it into no fact, no refusal and no snapshot."""
    origins.learn(A, "prefill", f"your key {KEY} may not")
    attempt(origins, "nothing", times=5)
    texts = [origins.learned(A, "prefill"), str(denied(origins)), str(origins.state())]
    assert "your key *** may not" in texts[0]
    assert not any(KEY in text for text in texts)


# Limits.


def at(number: int, model: str = "m") -> Route:
    return Route(f"https://h{number}.test/v1", model)


def test_origins_are_bounded(origins: Origins) -> None:
    """A thousand endpoints are remembered; the idle one used least recently goes first."""
    busy = origins.began(at(0))
    for number in range(1, 1000):
        attempt(origins, "nothing", at(number))
    origins.admit(at(1))
    attempt(origins, "nothing", at(1000))
    names = [state.origin for state in origins.state()]
    assert len(names) == 1000
    assert names[0] == at(0).origin
    assert at(1).origin in names
    assert at(2).origin not in names
    for number in range(1001, 5000):
        origins.learn(at(number), "prefill", "no")
    assert len(origins.state()) == 1000
    assert row(origins, at(0)).active == 1
    busy.ended("nothing")
    assert (row(origins, at(0)).active, row(origins, at(0)).tokens) == (0, 9.0)


def test_a_table_full_of_streams_is_bounded_too(clock: Clock) -> None:
    """When every endpoint is in use, the least recent one is forgotten; its stream may still end."""
    origins = Origins(clock, rules=StormRules(origins=2))
    streams = [origins.began(at(number)) for number in range(3)]
    held = permit(origins, at(3))
    assert [state.origin for state in origins.state()] == [at(2).origin, at(3).origin]
    for stream in streams:
        stream.ended("nothing")
    held.release()
    assert [(state.active, state.tokens) for state in origins.state()] == [(0, 9.0), (0, 10.0)]
    assert permit(origins, at(0)), "and when it comes back it is new"


def test_an_origin_with_a_recovery_under_way_is_in_use(clock: Clock) -> None:
    """A permit keeps its endpoint remembered before its attempt begins."""
    origins = Origins(clock, rules=StormRules(origins=2))
    held = permit(origins, at(0))
    for number in range(1, 9):
        attempt(origins, "output", at(number))
    assert row(origins, at(0)).recovering == 1
    held.release()
    attempt(origins, "output", at(9))
    assert [state.origin for state in origins.state()] == [at(8).origin, at(9).origin]


def test_models_and_facts_are_bounded(origins: Origins) -> None:
    """A hundred models and a hundred facts are remembered for each endpoint."""
    stream = origins.began(at(0, "busy"))
    for number in range(1000):
        attempt(origins, "output", at(0, f"m{number}"))
        origins.learn(at(0, f"m{number}"), "prefill", "no")
    state = row(origins, at(0))
    assert [b.model for b in state.breakers] == ["busy", *(f"m{n}" for n in range(901, 1000))]
    assert [fact.model for fact in state.learned] == [f"m{n}" for n in range(900, 1000)]
    origins.learn(at(0, "m900"), "prefill", "still no")
    origins.learn(at(0, "new"), "prefill", "no")
    assert origins.learned(at(0, "m900"), "prefill") == "still no"
    assert origins.learned(at(0, "m901"), "prefill") == ""
    stream.ended("output")


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", sorted(StormRules.__annotations__))
def test_rules_are_finite_numbers_above_zero(name: str, value: float) -> None:
    """Storm control cannot be switched off by a number that makes no sense."""
    with pytest.raises(UsageError):
        StormRules(**{name: value})  # type: ignore[arg-type]


def test_rules_that_contradict_each_other_are_refused() -> None:
    """Counts are whole, and the window can hold what it waits for."""
    for nonsense in ({"tokens": 2.5}, {"window_least": 101}, {"window_most": 19}):
        with pytest.raises(UsageError):
            StormRules(**nonsense)  # type: ignore[arg-type]


def test_the_numbers_are_those_of_the_documentation() -> None:
    """Ten tokens, a tenth a success, one in two seconds; three or 20 %; five in a row or half of twenty."""
    assert StormRules() == StormRules(10, 10, 2.0, 3, 20, 1.0, 5, 60.0, 20, 100, 4.0, 30.0, 1000, 100, 100)
    with pytest.raises(AttributeError):
        Denied("busy", "", None).reason = "x"  # type: ignore[misc]


# Clocks and threads.


def test_a_clock_that_steps_back_costs_no_time(clock: Clock, origins: Origins) -> None:
    """After a step back time runs on from where it was: nothing is early, nothing waits for the old hour."""
    attempt(origins, "nothing", times=5)
    clock.now -= 1e6
    refusal = origins.admit(A)
    assert refusal is not None
    assert refusal.retry_in == 4.0
    clock.now += 3.0
    assert breaker(origins).retry_in == 1.0
    clock.now += 1.0
    assert origins.admit(A) is None
    assert row(origins).tokens == 7.0


def test_a_stream_may_be_ended_while_its_thread_holds_the_lock() -> None:
    """Garbage collection may close an abandoned call in the middle of ours: with a lock that can be taken
    again, nothing hangs and nothing is lost."""
    abandoned: list[Stream] = []

    def clock() -> float:
        while abandoned:
            abandoned.pop().ended("neutral")
        return 0.0

    origins = Origins(clock, lock=threading.RLock())
    for act in (origins.admit, origins.recover, origins.began):
        streams = [origins.began(A) for _ in range(5)]
        abandoned += streams
        act(A)
    again = origins.began(A)
    abandoned.append(again)
    again.ended("nothing")
    assert (row(origins).active, row(origins).recovering, row(origins).tokens) == (1, 1, 10.0)


@pytest.mark.parametrize("lock", [threading.Lock, threading.RLock])
def test_threads_lose_no_count(lock: Callable[[], Any]) -> None:
    """Eight threads at once: every end is booked once, every place given back, no limit exceeded."""
    origins = Origins(Clock(), lock=lock(), rules=UNBROKEN)
    for route in (A, B):
        attempt(origins, "nothing", route, times=10)
    ready = threading.Barrier(8)
    granted: list[int] = []
    errors: list[BaseException] = []

    def hammer(seed: int) -> None:
        rng = random.Random(seed)
        ready.wait()
        try:
            for turn in range(500):
                route = rng.choice((A, B))
                origins.admit(route)
                answer = origins.recover(route)
                held = answer if isinstance(answer, Permit) else None
                stream = origins.began(route, held)
                if turn % 10 == 0:
                    stream.ended("output")
                    granted.append(route is A)
                else:
                    stream.ended("neutral")
                stream.ended("nothing")
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [(s.active, s.recovering) for s in origins.state()] == [(0, 0), (0, 0)]
    assert row(origins, A).tokens == min(100, sum(granted)) / 10
    assert row(origins, B).tokens == min(100, len(granted) - sum(granted)) / 10


def test_one_probe_among_threads(clock: Clock) -> None:
    """Of eight threads that ask a half-open breaker at once, one is let through."""
    origins = Origins(clock, lock=threading.RLock())
    half_open(clock, origins)
    ready = threading.Barrier(8)
    admitted: list[bool] = []

    def ask() -> None:
        ready.wait()
        admitted.extend(origins.admit(A) is None for _ in range(200))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(admitted), sum(admitted)) == (1600, 1)


def test_every_call_takes_the_lock_once(clock: Clock) -> None:
    """Whatever reads or changes what is shared does so in one piece."""

    class Counting:
        def __init__(self) -> None:
            self.taken = 0
            self.inside = False

        def __enter__(self) -> None:
            assert not self.inside
            self.inside = True
            self.taken += 1

        def __exit__(self, *_: object) -> None:
            self.inside = False

    lock = Counting()
    origins = Origins(clock, lock=lock)  # type: ignore[arg-type]
    held, stream = permit(origins), origins.began(A)
    assert lock.taken == 2
    acts: tuple[Callable[[], object], ...] = (
        lambda: origins.admit(A),
        lambda: origins.recover(A),
        lambda: origins.began(A),
        lambda: origins.learn(A, "prefill", "no"),
        lambda: origins.learned(A, "prefill"),
        origins.state,
        held.release,
        stream.progress,
        lambda: stream.ended("output"),
    )
    for number, act in enumerate(acts, 3):
        act()
        assert lock.taken == number
    for act in (held.release, stream.progress, lambda: stream.ended("output")):
        act()
    assert lock.taken == 2 + len(acts), "what is over needs no lock"


def test_the_default_lock_does_nothing(clock: Clock) -> None:
    """One thread or one event loop needs no lock, and any context manager will do."""
    origins = Origins(clock, lock=nullcontext())
    assert origins.admit(A) is None
    assert [state.origin for state in Origins(clock).state()] == []


def test_what_is_over_is_not_kept(origins: Origins) -> None:
    """Streams and permits that ended are not held by the tables."""
    for _ in range(100):
        origins.began(A, permit(origins)).ended("output")
    gc.collect()
    kept = [o for o in gc.get_objects() if isinstance(o, Stream | Permit) and o._home is origins]
    assert kept == []


# Anything, in any order.

ROUTES = tuple(Route(f"https://{host}.test/v1", model) for host in "ab" for model in ("m", "n"))
OUTCOMES: tuple[StreamOutcome, ...] = ("output", "nothing", "nothing", "neutral")
routes = st.sampled_from(ROUTES)
spans = st.sampled_from((0.0, 0.1, 1.0, 3.9, 4.0, 10.0, 29.9, 30.0, 61.0, -5.0))


@dataclass
class Probe:
    """The one attempt a half-open breaker has let in: until when it counts, and who it turned out to be."""

    until: float
    held: Permit | None
    streams: list[Stream] = field(default_factory=list)


class Anything(RuleBasedStateMachine):
    """Calls that ask, begin, bring output, end and vanish, at two origins with two models each."""

    @initialize()
    def start(self) -> None:
        self.clock = Clock()
        self.origins = Origins(self.clock)
        self.live: list[tuple[Route, Stream, Permit | None]] = []
        self.unbegun: list[tuple[Route, Permit | None]] = []
        self.elapsed = 0.0
        self.probes: dict[str, Probe] = {}
        self.were_probes: list[Permit] = []

    def state_of(self, route: Route) -> str:
        rows = {s.origin: {b.model: b.state for b in s.breakers} for s in self.origins.state()}
        return rows.get(route.origin, {}).get(route.model, "closed")

    def let_in(self, route: Route, before: str, held: Permit | None) -> None:
        """Whoever is let in at a half-open breaker is its probe, and alone."""
        assert before != "open"
        if before == "half-open":
            last = self.probes.get(route.name)
            assert last is None or self.elapsed >= last.until - 1e-6, "two probes at once"
            self.probes[route.name] = Probe(self.elapsed + 30.0, held)
            self.were_probes += [held] if held else []
        self.unbegun.append((route, held))

    def begin_one(self, route: Route, passed: Permit | None) -> Stream:
        stream, probe = self.origins.began(route, passed), self.probes.get(route.name)
        own = passed is not None and any(passed is held for held in self.were_probes)
        if probe and (passed is probe.held if own else not probe.streams):
            probe.streams.append(stream)
        return stream

    def after(self, route: Route, stream: Stream, outcome: StreamOutcome) -> None:
        """A probe is over when it decided, or when it ended and could not."""
        probe = self.probes.get(route.name)
        if probe and (
            (outcome == "neutral" and stream in probe.streams) or self.state_of(route) != "half-open"
        ):
            del self.probes[route.name]

    @rule(route=routes)
    def admit(self, route: Route) -> None:
        before = self.state_of(route)
        answer = self.origins.admit(route)
        if answer is None:
            self.let_in(route, before, None)
        else:
            assert answer.budget == "breaker"
            assert answer.retry_in is not None
            assert 0 < answer.retry_in <= 4.0
            assert before == "open" or self.probes[route.name].until > self.elapsed - 1e-6

    @rule(route=routes)
    def recover(self, route: Route) -> None:
        before, rows = self.state_of(route), {s.origin: s for s in self.origins.state()}
        answer = self.origins.recover(route)
        now = row(self.origins, route)
        was = rows.get(route.origin)
        if isinstance(answer, Permit):
            self.let_in(route, before, answer)
            assert now.tokens > 5
            assert now.recovering <= max(3, now.active // 5)
        else:
            assert was is not None, "an origin never seen refuses nothing"
            assert (now.tokens, now.active, now.recovering) == (was.tokens, was.active, was.recovering)
            assert {"breaker": before != "closed", "origin": now.tokens <= 5, "busy": now.recovering >= 3}[
                answer.budget
            ]

    @precondition(lambda self: self.unbegun)
    @rule(data=st.data(), passes=st.booleans())
    def begin(self, data: st.DataObject, passes: bool) -> None:
        route, held = self.unbegun.pop(data.draw(st.integers(0, len(self.unbegun) - 1)))
        self.live.append((route, self.begin_one(route, held if passes else None), held))

    @precondition(lambda self: self.unbegun)
    @rule()
    def never_begin(self) -> None:
        route, held = self.unbegun.pop()
        probe = self.probes.get(route.name)
        if held is not None:
            held.release()
            if probe and probe.held is held and not probe.streams:
                del self.probes[route.name]

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def progress(self, data: st.DataObject) -> None:
        route, stream, held = data.draw(st.sampled_from(self.live))
        stream.progress()
        if held is not None:
            held.release()
        self.after(route, stream, "output")

    @precondition(lambda self: self.live)
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES))
    def end(self, data: st.DataObject, outcome: StreamOutcome) -> None:
        route, stream, held = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
        stream.ended(outcome)
        if held is not None:
            held.release()
        self.after(route, stream, outcome)

    @rule(route=routes, outcomes=st.lists(st.sampled_from(OUTCOMES), max_size=12))
    def burst(self, route: Route, outcomes: list[StreamOutcome]) -> None:
        self.play(route, outcomes)

    def play(self, route: Route, outcomes: list[StreamOutcome]) -> None:
        for outcome in outcomes:
            stream = self.begin_one(route, None)
            stream.ended(outcome)
            self.after(route, stream, outcome)

    @rule(route=routes)
    def outage(self, route: Route) -> None:
        self.play(route, ["nothing"] * 5)
        self.clock.now += 4.0
        self.elapsed += 4.0

    @rule(seconds=spans)
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.elapsed += max(0.0, seconds)

    @invariant()
    def counts_are_what_happened(self) -> None:
        for state in self.origins.state():
            assert 0 <= state.tokens <= 10
            assert (state.tokens * 10) == int(state.tokens * 10 + 0.5)
            assert state.active == sum(route.origin == state.origin for route, _, _ in self.live)
            assert state.recovering >= 0
            for one in state.breakers:
                assert (one.state == "open") == (one.retry_in > 0)
                assert (one.state == "closed") == (one.reason == "")


Anything.TestCase.settings = settings(stateful_step_count=50)
TestAnything = Anything.TestCase

Act = tuple[Literal["admit", "recover", "nothing", "output", "neutral", "learn"], Route, float]
acts: st.SearchStrategy[list[Act]] = st.lists(
    st.tuples(
        st.sampled_from(("admit", "recover", "nothing", "output", "neutral", "learn")),
        routes,
        st.sampled_from((0.0, 0.0, 0.5, 2.0, 5.0)),
    ),
    max_size=80,
)


def answers(script: Iterable[Act], only: str = "") -> list[object]:
    """What origin b answers when the script is played, all of it or only what concerns one origin."""
    clock = Clock()
    origins = Origins(clock)
    said: list[object] = []
    for word, route, seconds in script:
        clock.now += seconds
        if only and route.origin != only:
            continue
        answer: object = None
        if word == "admit":
            answer = origins.admit(route)
        elif word == "recover":
            got = origins.recover(route)
            answer = "permit" if isinstance(got, Permit) else got
        elif word == "learn":
            origins.learn(route, "prefill", "no")
        else:
            attempt(origins, word, route)
        if route.origin == B.origin:
            said.append((answer, row(origins, route), origins.learned(route, "prefill")))
    return said


@given(acts)
def test_origins_do_not_know_each_other(script: list[Act]) -> None:
    """Whatever happens at one origin, another one answers as if it had not."""
    assert answers(script) == answers(script, only=B.origin)


# A storm, in simulated time.


@dataclass
class Endpoint:
    """An endpoint of the simulation: dead in between, or dropping a share of its streams half-way."""

    host: str
    models: int = 1
    dead: tuple[float, float] = (0.0, 0.0)
    drops: float = 0.0
    fails_after: float = 0.05
    patience: float = 0.0
    attempts: int = 0
    calls: dict[int, str] = field(default_factory=dict)
    denials: list[tuple[float, Denied]] = field(default_factory=list)

    def route(self, call: int) -> Route:
        return Route(f"https://{self.host}.test/v1", f"m{call % self.models}")


class Storm:
    """Calls spread over a minute, each with two retries where permitted, and no driver: events in a heap.

    An attempt at a living endpoint brings output after 0.5 s and ends after 5 s, or is dropped after 2 s; one
    at a dead endpoint fails after `fails_after`, and streams it was sending break when it dies. A call that
    is denied gives up, or with `patience` asks again, at most 4 s later, until it has waited so long.
    """

    def __init__(self, endpoints: tuple[Endpoint, ...], calls: int, over: float, seed: int) -> None:
        self.clock = Clock(0.0)
        self.origins = Origins(self.clock)
        self.rng = {e.host: random.Random(f"{seed} {e.host}") for e in endpoints}
        self.order = itertools.count()
        self.due: list[tuple[float, int, Callable[[], None]]] = []
        for e in endpoints:
            for call in range(calls):
                self.later(over * call / calls, self.starter(e, call))

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.due, (self.clock.now + seconds, next(self.order), act))

    def run(self) -> None:
        while self.due:
            self.clock.now, _, act = heapq.heappop(self.due)
            act()

    def starter(self, e: Endpoint, call: int) -> Callable[[], None]:
        return lambda: self.start(e, call, self.clock.now)

    def start(self, e: Endpoint, call: int, since: float) -> None:
        refusal = self.origins.admit(e.route(call))
        if refusal is None:
            self.send(e, call, None, retries=2)
        else:
            self.deny(e, call, refusal, since, lambda: self.start(e, call, since))

    def deny(self, e: Endpoint, call: int, refusal: Denied, since: float, again: Callable[[], None]) -> None:
        e.denials.append((self.clock.now, refusal))
        e.calls[call] = "denied"
        if self.clock.now - since < e.patience:
            self.later(min(refusal.retry_in or 0.0, 4.0) + self.rng[e.host].random(), again)

    def send(self, e: Endpoint, call: int, held: Permit | None, retries: int) -> None:
        e.attempts += 1
        stream, now = self.origins.began(e.route(call), held), self.clock.now
        drawn = self.rng[e.host].random() < e.drops
        if e.dead[0] <= now < e.dead[1]:
            self.later(e.fails_after, lambda: self.broke(e, call, stream, "nothing", retries))
            return
        length = 2.0 if drawn else 5.0
        killed = now < e.dead[0] < now + length
        length = min(length, e.dead[0] - now) if killed else length
        if length > 0.5:
            self.later(0.5, stream.progress)
        if killed or drawn:
            self.later(
                length, lambda: self.broke(e, call, stream, "output" if length > 0.5 else "nothing", retries)
            )
        else:
            self.later(length, lambda: self.done(e, call, stream, "at once" if retries == 2 else "recovered"))

    def done(self, e: Endpoint, call: int, stream: Stream, how: str) -> None:
        stream.ended("output")
        e.calls[call] = how

    def broke(self, e: Endpoint, call: int, stream: Stream, outcome: StreamOutcome, retries: int) -> None:
        stream.ended(outcome)
        e.calls[call] = "broke"
        if retries:
            since = self.clock.now
            self.later(0.5 * self.rng[e.host].random(), lambda: self.again(e, call, retries - 1, since))

    def again(self, e: Endpoint, call: int, retries: int, since: float) -> None:
        answer = self.origins.recover(e.route(call))
        if isinstance(answer, Permit):
            self.send(e, call, answer, retries)
        else:
            self.deny(e, call, answer, since, lambda: self.again(e, call, retries, since))


FLOOR = 5  # the recoveries that half a bucket pays for


@pytest.mark.parametrize("models", [1, 10, 1000])
def test_a_storm_stays_small_and_ends(models: int) -> None:
    """A thousand calls through a 30 s outage make at most a fifth more attempts than calls, with breakers or
    with so many models that only the bucket is left; five seconds later every call succeeds at once; and a
    second origin that drops three streams in ten refuses nothing."""
    first = Endpoint("first", models, dead=(15.0, 45.0))
    second = Endpoint("second", models, drops=0.3)
    storm = Storm((first, second), calls=1000, over=60.0, seed=20261122)
    storm.run()
    assert first.attempts <= 1.2 * 1000 + FLOOR
    assert {how for call, how in first.calls.items() if call * 0.06 > 50} == {"at once"}
    assert {how for call, how in first.calls.items() if call * 0.06 < 10} == {"at once"}
    if models == 1:
        assert first.attempts < 600, "the breaker spared the endpoint most of the outage"
    assert second.denials == []
    assert sum(how == "recovered" for how in second.calls.values()) > 200
    assert [(s.active, s.recovering) for s in storm.origins.state()] == [(0, 0), (0, 0)]

    alone = Endpoint("second", models, drops=0.3)
    Storm((alone,), calls=1000, over=60.0, seed=20261122).run()
    assert (alone.calls, alone.attempts) == (second.calls, second.attempts)


@pytest.mark.parametrize("models", [1, 10, 1000])
def test_an_endpoint_that_hangs_is_left_alone_too(models: int) -> None:
    """Where every attempt of the outage hangs for ten seconds, the same bound holds, and once the last hung
    probe has failed and four seconds have passed, every call succeeds at once."""
    first = Endpoint("first", models, dead=(15.0, 45.0), fails_after=10.0)
    Storm((first,), calls=1000, over=90.0, seed=7).run()
    assert first.attempts <= 1.2 * 1000 + FLOOR
    assert {how for call, how in first.calls.items() if call * 0.09 > 45 + 10 + 4.5} == {"at once"}


@pytest.mark.parametrize("models", [1, 1000])
def test_a_thousand_parallel_calls_against_a_dead_endpoint(models: int) -> None:
    """R4: all at once and all failing, they make no more than the bucket's few recoveries."""
    first = Endpoint("first", models, dead=(0.0, 1e9))
    Storm((first,), calls=1000, over=0.0, seed=1).run()
    assert 1000 <= first.attempts <= 1000 + FLOOR


@pytest.mark.parametrize("models", [1, 10, 1000])
def test_a_short_outage_costs_no_answer_to_who_waits(models: int) -> None:
    """When an endpoint drops everything and is back after 0.2 s, the many recoveries it needs exceed every
    budget at once; calls that wait when they are told to all get their answer, with few further attempts."""
    first = Endpoint("first", models, dead=(15.0, 15.2), patience=60.0)
    Storm((first,), calls=1000, over=60.0, seed=7).run()
    assert set(first.calls.values()) == {"at once", "recovered"}
    assert first.attempts <= 1.2 * 1000
    assert {denial.budget for _, denial in first.denials} >= {"origin"}


# What is parked.


def test_parking_ends_by_time(origins: Origins, clock: Clock) -> None:
    """To the second; until then the shorter one does not hide the longer one."""
    origins.park(A, "credential", 10.0, "no money")
    assert origins.parked(A) == Parked("credential", "no money", 10.0)
    clock.now += 4.0
    assert row(origins).parked == (Parked("credential", "no money", 6.0),)
    clock.now += 6.0
    assert origins.parked(A) is None
    assert row(origins).parked == ()


@pytest.mark.parametrize(
    ("scope", "shared"),
    [
        ("route", ["same"]),
        ("credential", ["same", "other model"]),
        ("model", ["same", "other key"]),
        ("endpoint", ["same", "other model", "other key", "other path"]),
    ],
)
def test_parking_is_for_what_shares_the_part(origins: Origins, scope: Scope, shared: list[str]) -> None:
    """And for nobody else."""
    origins.park(A, scope, 10.0, "why")
    others = {
        "same": A,
        "other model": replace(A, model="n"),
        "other key": replace(A, api_key=Secret("canary-9876543210")),
        "other path": replace(A, base_url="https://a.test/v2", model="n", api_key=None),
        "other host": replace(A, base_url="https://b.test/v1"),
    }
    assert [name for name, route in others.items() if origins.parked(route)] == shared


def test_parked_routes_keep_their_order_among_themselves(origins: Origins) -> None:
    """Parked last, else as they were; nobody is left out."""
    routes = [replace(A, api_key=Secret(f"canary-{n}")) for n in range(5)]
    for number in (3, 0):
        origins.park(routes[number], "credential", 10.0, "why")
    assert origins.in_order(routes) == tuple(routes[number] for number in (1, 2, 4, 0, 3))
    assert origins.in_order(routes[:1]) == (routes[0],)
    assert origins.in_order([]) == ()


def test_an_answer_ends_what_is_parked_there(origins: Origins) -> None:
    """Every part of the route that answered, and no other."""
    other = replace(A, api_key=Secret("canary-9876543210"))
    for scope in ("route", "credential", "model", "endpoint"):
        origins.park(A, scope, 10.0, "why")
    origins.park(other, "credential", 10.0, "why")
    origins.unpark(A)
    assert origins.parked(A) is None
    assert origins.parked(other) is not None
    origins.unpark(B)


def test_a_reason_to_park_shows_no_key(origins: Origins) -> None:
    """Neither whole nor cut short, and on one line."""
    origins.park(A, "credential", 10.0, f"the key\n{KEY} is out " + "x" * 1000)
    origins.park(B, "credential", 10.0, "")
    parked = origins.parked(A)
    assert parked is not None
    assert parked.reason.startswith("the key *** is out xxx")
    assert KEY not in repr(origins.state())
    assert origins.parked(B) == Parked("credential", "credential", 10.0)


def test_what_is_parked_is_bounded(clock: Clock) -> None:
    """So many parts for each endpoint; the one that was parked first is forgotten first."""
    origins = Origins(clock, rules=StormRules(facts=3))
    routes = [replace(A, api_key=Secret(f"canary-{n}")) for n in range(5)]
    for route in (*routes[:3], routes[0], *routes[3:]):
        origins.park(route, "credential", 10.0, "why")
    assert [origins.parked(route) is not None for route in routes] == [True, False, False, True, True]


def test_asking_what_is_parked_remembers_nothing(origins: Origins) -> None:
    """Looking leaves no trace."""
    assert origins.parked(A) is None
    origins.unpark(A)
    origins.in_order([A, B])
    assert origins.state() == ()
