"""Which way back is open, rung by rung and as a ladder."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from sidestream.recovery.faults import Fault, FaultKind
from sidestream.recovery.policy import Backoff, Policy
from sidestream.recovery.rungs import (
    LADDER,
    No,
    Situation,
    Step,
    Ways,
    anchor,
    next_step,
    prefill,
    reconnect,
    reroute,
    restart,
    settle,
)

K = FaultKind


def situation(kind: FaultKind = K.DROPPED, *, retry_after: float | None = None, **changes: Any) -> Situation:
    values: dict[str, Any] = {
        "policy": Policy(backoff=Backoff(0.25, 1.0, 8.0)),
        "whole": False,
        "tools": False,
        "tries": 1,
        "repeated": False,
        "recoveries": 0,
        "routes_left": 0,
        "remaining": 1000.0,
        "random": lambda: 0.5,
    }
    return Situation(fault=Fault(kind, retry_after=retry_after), **values | changes)


def test_the_ladder_is_in_its_order() -> None:
    """What costs least comes first: nothing, the same response, the same answer, another, elsewhere."""
    assert (settle, reconnect, prefill, anchor, restart, reroute) == LADDER


@pytest.mark.parametrize("kind", FaultKind)
def test_settle_needs_a_stream_that_just_stopped(kind: FaultKind) -> None:
    """A whole answer settles after a drop, a stall or the deadline, and after nothing else."""
    stopped = kind in (K.DROPPED, K.STALLED, K.DEADLINE)
    assert isinstance(settle(situation(kind, whole=True)), Step) is stopped


@pytest.mark.parametrize(("whole", "tools"), [(False, False), (True, True), (False, True)])
def test_settle_is_denied_while_something_could_follow(whole: bool, tools: bool) -> None:
    """With an unfinished item, or tools that could still be called, nothing is settled."""
    assert isinstance(settle(situation(whole=whole, tools=tools)), No)


@pytest.mark.parametrize("kind", FaultKind)
def test_restart_and_reroute_follow_the_table(kind: FaultKind) -> None:
    """The same route is asked again, and another one, only where the kind of fault allows it."""
    assert isinstance(restart(situation(kind)), Step) is kind.again
    assert isinstance(reroute(situation(kind, routes_left=1)), Step) is kind.elsewhere


REFUSALS: list[tuple[Callable[[Situation], Step | No], dict[str, Any], str]] = [
    (restart, {"recoveries": 8}, "all 8 recoveries"),
    (restart, {"tries": 2}, "2 attempts in a row"),
    (restart, {"repeated": True}, "same place twice"),
    (restart, {"remaining": 0.25}, "of waiting"),
    (restart, {"remaining": 0.0}, "of waiting"),
    (restart, {"remaining": -1.0}, "of waiting"),
    (restart, {"retry_after": 121.0}, "121 s of waiting"),
    (restart, {"retry_after": 60.0, "remaining": 50.0}, "s of waiting"),
    (restart, {"retry_after": 9.0, "routes_left": 1}, "another route is nearer"),
    (reroute, {"routes_left": 0}, "no further route"),
    (reroute, {"routes_left": 1, "recoveries": 8}, "all 8 recoveries"),
    (reroute, {"routes_left": 1, "remaining": 0.0}, "no time"),
]


@pytest.mark.parametrize(("rung", "changes", "reason"), REFUSALS)
def test_a_rung_that_is_closed_says_why(
    rung: Callable[[Situation], Step | No], changes: dict[str, Any], reason: str
) -> None:
    """Each limit closes its rung and is named in the reason."""
    answer = rung(situation(**changes))
    assert isinstance(answer, No)
    assert reason in answer.reason


@pytest.mark.parametrize(
    ("changes", "delay"),
    [
        ({}, 0.25),
        ({"tries": 0}, 0.125),  # it was well a moment ago
        ({"routes_left": 1}, 0.125),  # somebody else is there
        ({"random": iter((0.1, 0.9, 0.5)).__next__}, 0.45),
        ({"tries": 2, "policy": Policy(tries=5, backoff=Backoff(0.25))}, 0.5),
        ({"tries": 4, "policy": Policy(tries=5, backoff=Backoff(0.25))}, 2.0),
        ({"retry_after": 120.0}, 120.25),
        ({"retry_after": 8.0, "routes_left": 1}, 8.125),
    ],
)
def test_restart_waits_by_the_policy(changes: dict[str, Any], delay: float) -> None:
    """The wait is jittered backoff on top of what the provider asked for."""
    assert restart(situation(**changes)) == Step("restart", delay)


def test_a_throttled_route_waits_longer() -> None:
    """After a rate limit the backoff begins at a second."""
    assert restart(situation(K.THROTTLED)) == Step("restart", 0.5)


def test_when_all_rungs_are_closed_every_reason_is_given() -> None:
    """Giving up names each rung and why it was not taken."""
    refusals = next_step(situation(K.REFUSED))
    assert isinstance(refusals, tuple)
    assert [no.reason.split(":")[0] for no in refusals] == [rung.__name__ for rung in LADDER]


# What is open -> the rung that is taken, and how it asks.
OPEN: dict[str, tuple[dict[str, Any], Step]] = {
    "everything": ({"cursor": "", "here": Ways("", "")}, Step("reconnect", 0.25, "reconnect")),
    "only polling": ({"cursor": "", "unstreamed": True}, Step("reconnect", 0.25, "poll")),
    "prefill and anchor": ({"here": Ways("", "")}, Step("prefill", 0.25, "prefill")),
    "an anchor alone": ({"here": Ways("no", "")}, Step("anchor", 0.25, "anchor")),
    "nothing of it": ({}, Step("restart", 0.25, "restart")),
    "whole, without tools": ({"whole": True, "cursor": "", "here": Ways("", "")}, Step("settle")),
    "a rung closed itself": ({"at_once": True, "here": Ways("no", "")}, Step("anchor", 0.0, "anchor")),
    "the next route, prefilled": (
        {"tries": 2, "routes_left": 1, "there": Ways("", "")},
        Step("reroute", how="prefill"),
    ),
    "the next route, anchored": (
        {"tries": 2, "routes_left": 1, "there": Ways("no", "")},
        Step("reroute", how="anchor"),
    ),
    "the next route, anew": ({"tries": 2, "routes_left": 1}, Step("reroute")),
}


@pytest.mark.parametrize("name", OPEN)
def test_the_cheapest_open_rung_is_taken(name: str) -> None:
    """Of what is open the first rung is taken, and the step says why the ones above it were not."""
    changes, wanted = OPEN[name]
    step = next_step(situation(**changes))
    assert isinstance(step, Step)
    assert (step.rung, step.delay, step.how) == (wanted.rung, wanted.delay, wanted.how)
    above = [rung.__name__ for rung in LADDER[: [rung.__name__ for rung in LADDER].index(step.rung)]]
    assert [reason.split(":")[0] for reason in step.why] == above


@pytest.mark.parametrize("rung", [reconnect, prefill, anchor, restart])
@pytest.mark.parametrize(
    "changes",
    [{"recoveries": 8}, {"tries": 2}, {"repeated": True}, {"remaining": 0.0}, {"spent": "spent"}],
)
def test_every_rung_on_the_same_route_keeps_the_same_limits(
    rung: Callable[[Situation], Step | No], changes: dict[str, Any]
) -> None:
    """A way back that costs less is no way around the budget."""
    open_ways: dict[str, Any] = {"cursor": "", "here": Ways("", "")}
    assert isinstance(rung(situation(**open_ways)), Step)
    assert isinstance(rung(situation(**open_ways | changes)), No)


@given(
    st.sampled_from(FaultKind), st.booleans(), st.booleans(), st.integers(0, 3), st.booleans(),
    st.integers(0, 9), st.integers(0, 2), st.floats(-10, 1000), st.none() | st.floats(0, 1e6),
    st.tuples(*[st.sampled_from(["", "closed"])] * 5), st.booleans(),
)  # fmt: skip
def test_no_step_breaks_a_limit(
    kind: FaultKind, whole: bool, tools: bool, tries: int, repeated: bool,
    recoveries: int, routes_left: int, remaining: float, asked: float | None,
    ways: tuple[str, str, str, str, str], at_once: bool,
) -> None:  # fmt: skip
    """Whatever the situation, a step costs no recovery above the limit and no time beyond the deadline."""
    step = next_step(
        situation(
            kind, retry_after=asked, whole=whole, tools=tools, tries=tries, repeated=repeated,
            recoveries=recoveries, routes_left=routes_left, remaining=remaining,
            cursor=ways[0], here=Ways(*ways[1:3]), there=Ways(*ways[3:]), at_once=at_once,
        )
    )  # fmt: skip
    if isinstance(step, Step) and step.rung != "settle":
        assert recoveries < 8
        assert 0 <= step.delay < remaining
        assert step.delay <= 120 + 8
        assert step.rung != "reroute" or routes_left
        open_here = {"reconnect": ways[0], "prefill": ways[1], "anchor": ways[2]}
        assert not open_here.get(step.rung)


# What its share of the time, and the scope of a fault, leave open.


@pytest.mark.parametrize(("share", "is_open"), [(0.0, False), (0.25, False), (0.26, True)])
def test_a_wait_has_to_fit_into_the_share(share: float, *, is_open: bool) -> None:
    """What a route may still use of the time: a wait that uses it up is none."""
    assert isinstance(restart(situation(share=share)), Step) is is_open
    assert isinstance(reroute(situation(share=share, routes_left=1)), Step)


def test_a_used_up_share_ends_a_route_without_a_wait_too() -> None:
    """Also the attempt that need not wait."""
    answer = restart(situation(share=0.0, at_once=True))
    assert answer == No("its share of the time is used up")


@pytest.mark.parametrize("about", ["route", "credential", "model", "endpoint", "request"])
def test_a_fault_may_say_itself_what_failed(about: Any) -> None:
    """Then that counts, not its kind: what is the request's, another route cannot help."""
    fault = Fault(K.WITHHELD, about=about)
    here = structs.replace(situation(routes_left=1), fault=fault)
    assert isinstance(reroute(here), Step) is (about != "request")
