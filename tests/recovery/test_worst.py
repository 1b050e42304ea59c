"""The bounds of a call, against calls that do their worst."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hands import Play, broke, cut, reject, whole
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from sidestream.errors import Cancelled, SidestreamError
from sidestream.recovery.clocks import Timeouts
from sidestream.recovery.faults import FaultKind
from sidestream.recovery.flow import Broke, Call, Outcome, Renew, Renewed, Send, Sleep, Woke, flow
from sidestream.recovery.policy import Backoff, Policy
from sidestream.recovery.worst import Worst, worst_of
from sidestream.route import Route, Secret
from sidestream.wire.prompt import Request
from streams import GOOD

ANSWERS = {
    wire: next(stream for stream in GOOD if stream.wire == wire and not stream.verdict.get("tools"))
    for wire in ("chat", "responses")
}
ANSWER = ANSWERS["chat"]
REQUEST = Request(({"role": "user", "content": "hi"},), params={"temperature": 0, "top_p": 1})
QUICK = Backoff(base=0, throttled_base=0)


@dataclass(frozen=True)
class Keys:
    """A credential with one more key."""

    label: str = "test"

    def apply(self, route: Route) -> Route:
        return route

    def renew(self, route: Route, seconds: float) -> Route | None:  # noqa: ARG002
        raise AssertionError("the test answers for it")


def route(number: int, **more: Any) -> Route:
    return Route(f"https://h{number}.test/v1", "m", "chat", Secret(f"key-{number}"), **more)


def rejecting(name: str) -> Play:
    return reject(400, {"error": {"message": "m", "code": "unsupported_parameter", "param": name}})


UNAUTHORIZED = reject(401)
NOTHING_THERE = reject(404)
CAN_AFFORD = reject(402, {"error": {"message": "You requested 9000 tokens, but can only afford 2000"}})


@dataclass
class Course:
    """How a call went: when it ended, and what it asked."""

    sends: list[Send] = field(default_factory=list)
    ended: float = 0.0
    error: BaseException | None = None


def play(call: Call, plays: list[Play], *, seconds: float = 0.0, clocks: bool = False) -> Course:
    """Run a call; the last play comes again and again. With `clocks`, what breaks takes as long as it may."""
    course, now = Course(), 0.0
    going = flow(call, now=now, unix_time=1000.0, random=lambda: 0.5)
    outcome: Outcome | None = None
    try:
        while True:
            action = going.send(outcome) if outcome else next(going)
            if isinstance(action, Send):
                course.sends.append(action)
                assert len(course.sends) < 10_000, "this call does not end"
                begun = now
                now += min(seconds, max(0.0, action.clocks.deadline - now))
                _, outcome = plays[min(len(course.sends), len(plays)) - 1](action.exchange, now)
                if clocks and isinstance(outcome, Broke):
                    now = min(begun + action.clocks.first, action.clocks.deadline, action.clocks.until)
                    outcome = structs.replace(outcome, at=now)
            elif isinstance(action, Renew):
                key = Secret(f"renewed {len(course.sends)}")
                outcome = Renewed(replace(action.route, api_key=key), "", now)
            else:
                now += action.seconds if isinstance(action, Sleep) else 0.0
                outcome = Woke(now)
    except StopIteration:
        pass
    except (SidestreamError, Cancelled) as error:
        course.error = error
    course.ended = now
    return course


def breaking(count: int, wire: str = "chat") -> list[Play]:
    """Attempts that bring output and break in ever another way: no rule but the limit ends them."""
    stream = ANSWERS[wire]
    kinds = (FaultKind.DROPPED, FaultKind.STALLED)
    return [cut(stream, len(stream.data) * 2 // 3, kinds[number % 2]) for number in range(count)]


@pytest.mark.parametrize("recoveries", [0, 1, 8])
def test_every_recovery_is_one_request(recoveries: int) -> None:
    """Attempts that bring output and break go on until the recoveries are used up, and not one more."""
    policy = Policy(recoveries=recoveries, extra_output=100, backoff=QUICK)
    call = Call(REQUEST, (route(0, continuation="none"),), policy=policy)
    course = play(call, breaking(recoveries + 2))
    assert len(course.sends) == worst_of(call).attempts == recoveries + 1


def test_the_bound_is_reached() -> None:
    """One route that needs everything mended, and then breaks as often as it can, is asked just so often."""
    one = route(0, guessed=True, credential=Keys(), params={"seed": 7}, continuation="none")
    call = Call(REQUEST, (one,), policy=Policy(recoveries=3, extra_output=100, backoff=QUICK))
    mending = [
        NOTHING_THERE, NOTHING_THERE, UNAUTHORIZED, CAN_AFFORD,
        *(rejecting(name) for name in ("temperature", "top_p", "seed", "max_output_tokens")),
    ]  # fmt: skip
    worst = worst_of(call)
    assert worst == Worst(1800.0, 4, len(mending))
    course = play(call, [*mending, *breaking(9, "responses")])  # the last of the three wires
    assert len(course.sends) == worst.requests == 12


def test_what_is_somebody_elses_is_not_mended() -> None:
    """With no recoveries allowed, nothing is tried again, not even another key."""
    one = route(0, guessed=True, credential=Keys())
    call = Call(REQUEST, (one, route(1)), policy=Policy(recoveries=0))
    assert worst_of(call) == Worst(1800.0, 1, 0)
    for rejection in (NOTHING_THERE, UNAUTHORIZED, CAN_AFFORD, rejecting("temperature")):
        assert len(play(call, [rejection]).sends) == 1


PLAYS: dict[str, Play] = {
    "whole": whole(ANSWER),
    "401": UNAUTHORIZED,
    "404": NOTHING_THERE,
    "402": CAN_AFFORD,
    "429": reject(429, retry_after="1"),
    "500": reject(500),
    "400": reject(400),
    "dropped": broke(FaultKind.DROPPED),
    "stalled": broke(FaultKind.STALLED, clock="first"),
    **{name: rejecting(name) for name in ("temperature", "top_p", "seed", "max_output_tokens", "user")},
}


@st.composite
def calls(draw: st.DrawFn) -> tuple[Call, list[Play]]:
    routes = tuple(
        route(
            draw(st.integers(0, 3)),
            name=f"r{number}",
            guessed=draw(st.booleans()),
            credential=Keys() if draw(st.booleans()) else None,
            params=draw(st.sampled_from([{}, {"seed": 1}, {"temperature": 1, "user": "u"}])),
        )
        for number in range(draw(st.integers(1, 4)))
    )
    policy = Policy(
        tries=draw(st.integers(1, 4)), recoveries=draw(st.integers(0, 9)), extra_output=100, backoff=QUICK
    )
    total = draw(st.sampled_from([5.0, 100.0, 1800.0]))
    plays = [PLAYS[name] for name in draw(st.lists(st.sampled_from(sorted(PLAYS)), max_size=40))]
    mixed = [each for pair in zip(plays, breaking(40), strict=False) for each in pair]
    kept = mixed if draw(st.booleans()) else plays
    last = PLAYS[draw(st.sampled_from(sorted(PLAYS)))]
    live = draw(st.booleans())
    return Call(REQUEST, routes, Timeouts(total=total), policy, live=live), [*kept, last]


@given(calls())
def test_no_call_asks_more_often(case: tuple[Call, list[Play]]) -> None:
    """Whatever providers answer, in whatever order: a call sends no more requests than its bound."""
    call, plays = case
    course = play(call, plays)
    assert len(course.sends) <= worst_of(call).requests


@given(calls(), st.sampled_from([0.0, 0.5, 7.0, 60.0]))
def test_no_call_takes_longer(case: tuple[Call, list[Play]], seconds: float) -> None:
    """Dead routes and slow answers: a call has ended when its total is over, waits included."""
    call, plays = case
    for clocks in (False, True):
        course = play(call, plays, seconds=seconds, clocks=clocks)
        assert course.ended <= worst_of(call).seconds + 1e-9


@given(st.integers(1, 6), st.floats(1, 1000), st.integers(0, 2**32))
def test_dead_routes_leave_the_last_one_its_turn(count: int, total: float, seed: int) -> None:
    """With a recovery for each of them, the last of several silent routes is asked while there is time."""
    rng = random.Random(seed)
    routes = tuple(route(number, concurrency=rng.choice([None, 1])) for number in range(count))
    call = Call(REQUEST, routes, Timeouts(total=total), Policy(tries=1, recoveries=count, backoff=QUICK))
    course = play(call, [broke(FaultKind.STALLED, clock="first")], clocks=True)
    assert [send.route.base_url for send in course.sends] == [route.base_url for route in routes]
    assert all(send.clocks.first > 0 for send in course.sends)
    assert len(course.sends) <= worst_of(call).requests


@pytest.mark.parametrize("total", [0.5, 1.0, 60.0, 1800.0, 100_000.0])
def test_looks_at_a_background_response_are_counted(total: float) -> None:
    """A response that never gets ready is looked at no more often than the bound says."""
    from sidestream.recovery.flow import poll_delay

    one = Route("https://h.test/v1", "m", "responses")
    call = Call(Request(REQUEST.messages, params={"background": True}), (one,), Timeouts(total=total))
    at, polls = 0.0, 0
    while at < total:
        polls += 1
        at += min(poll_delay(polls), total - at)
    assert polls <= worst_of(call).polls <= polls + 1
    assert worst_of(Call(REQUEST, (one,))).polls == 0
