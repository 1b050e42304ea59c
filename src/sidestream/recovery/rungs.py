"""The ways back after a fault, best first: the ladder. Pure.

Strategy: a rung looks at a `Situation` and answers with a `Step`, or with `No` and its reason. `LADDER` is
the order; the first `Step` is taken, and when all say no the call gives up. A rung that continues the same
answer (by cursor, by prefill, by anchor) belongs between `settle` and `restart`: one function, one line in
the table, and nothing else has to know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .faults import Fault, FaultKind
from .policy import Policy

__all__ = ["LADDER", "No", "Situation", "Step", "next_step"]


@dataclass(frozen=True, slots=True)
class Situation:
    """What a rung may look at.

    Attributes:
        fault: what just happened.
        whole: nothing more could follow in this stream: all announced items done, a final message there.
        tools: tools were offered, so a call could still have followed.
        tries: attempts without progress in a row on this route, the last one included.
        repeated: the last two attempts on this route ended with the same fault at the same character.
        recoveries: recoveries taken so far.
        routes_left: configured routes not asked yet.
        remaining: seconds until the deadline.
        random: one draw from [0, 1) for jitter.
    """

    fault: Fault
    policy: Policy
    whole: bool
    tools: bool
    tries: int
    repeated: bool
    recoveries: int
    routes_left: int
    remaining: float
    random: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Step:
    """Take this rung, after `delay` seconds."""

    rung: str
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class No:
    """This rung is not open, because of `reason`."""

    reason: str


def settle(s: Situation) -> Step | No:
    """The answer was all there; only the end marker is missing."""
    if s.fault.kind not in (FaultKind.DROPPED, FaultKind.STALLED, FaultKind.DEADLINE):
        return No("the stream did not just stop")
    if s.tools:
        return No("tools were offered: a call could still have followed")
    return Step("settle") if s.whole else No("something announced was not finished")


def restart(s: Situation) -> Step | No:
    """Ask the same route again."""
    if not s.fault.kind.again:
        return No("asking again cannot help")
    if s.recoveries >= s.policy.recoveries:
        return No(f"all {s.policy.recoveries} recoveries are used up")
    if s.tries >= s.policy.tries:
        return No(f"{s.tries} attempts in a row brought nothing")
    if s.repeated:
        return No("the same fault at the same place twice is no accident")
    delay = s.policy.backoff.delay(s.fault, max(0, s.tries - 1), s.random)
    asked = s.fault.retry_after or 0.0
    if asked > s.policy.longest_wait or delay >= s.remaining:
        return No(f"it would take {max(asked, delay):.0f} s of waiting")
    if s.routes_left and asked > s.policy.patience:
        return No("another route is nearer than the wait asked for")
    return Step("restart", delay)


def reroute(s: Situation) -> Step | No:
    """Ask the next configured route."""
    if not s.fault.kind.elsewhere:
        return No("another route cannot help")
    if not s.routes_left:
        return No("no further route is configured")
    if s.recoveries >= s.policy.recoveries:
        return No(f"all {s.policy.recoveries} recoveries are used up")
    if s.remaining <= 0:
        return No("no time is left")
    return Step("reroute")


LADDER: tuple[Callable[[Situation], Step | No], ...] = (settle, restart, reroute)


def next_step(situation: Situation) -> Step | tuple[No, ...]:
    """The first rung that is open, or every reason why none is."""
    refusals: list[No] = []
    for rung in LADDER:
        answer = rung(situation)
        if isinstance(answer, Step):
            return answer
        refusals.append(No(f"{rung.__name__}: {answer.reason}"))
    return tuple(refusals)
