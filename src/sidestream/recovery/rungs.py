"""The ways back after a fault, best first: the ladder. Pure.

Strategy: a rung looks at a `Situation` and answers with a `Step`, or with `No` and its reason. `LADDER` is
the order; the first `Step` is taken, and when all say no the call gives up. The reasons of the rungs above go
into the ledger. A new rung is one function and one line in the table.

Three of them bring the same answer on instead of asking for another: by the provider's own cursor, by a
prefilled turn, or by a user turn with an anchor. They differ in what they need, not in what limits them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from msgspec import Struct, structs

from .faults import Fault, FaultKind
from .policy import Policy

__all__ = ["LADDER", "No", "Situation", "Step", "Ways", "next_step"]


class Ways(Struct, frozen=True):
    """Why an answer cannot be continued on a route by this rung; "" where it can."""

    prefill: str = "nothing says that this route can"
    anchor: str = "nothing says that this route can"


class Situation(Struct, frozen=True):
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
        share: seconds of it that this route may still use.
        random: one draw from [0, 1) for jitter.
        cursor: why the provider cannot send the rest of the same response; "" if it can.
        unstreamed: it can only be asked for the whole of it, once it is done.
        here, there: how the answer could be continued on this route, and on the next one.
        spent: which limit on tokens or money forbids another attempt, or "".
        at_once: the last attempt closed a rung instead of failing: the next one need not wait.
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
    cursor: str = "the provider keeps no cursor for this call"
    unstreamed: bool = False
    here: Ways = Ways()
    there: Ways = Ways()
    spent: str = ""
    at_once: bool = False
    share: float = math.inf


class Step(Struct, frozen=True):
    """Take this rung, after `delay` seconds; `how` it asks ("restart" for a new answer); `why` no other."""

    rung: str
    delay: float = 0.0
    how: str = "restart"
    why: tuple[str, ...] = ()


class No(Struct, frozen=True):
    """This rung is not open, because of `reason`."""

    reason: str


def settle(s: Situation) -> Step | No:
    """The answer was all there; only the end marker is missing."""
    if s.fault.kind not in (FaultKind.DROPPED, FaultKind.STALLED, FaultKind.DEADLINE):
        return No("the stream did not just stop")
    if s.tools:
        return No("tools were offered: a call could still have followed")
    return Step("settle") if s.whole else No("something announced was not finished")


def reconnect(s: Situation) -> Step | No:
    """The same response, from where it broke off: nothing is generated twice."""
    return No(s.cursor) if s.cursor else _same_route(s, "reconnect", "poll" if s.unstreamed else "reconnect")


def prefill(s: Situation) -> Step | No:
    """The same answer, its beginning put into the model's mouth."""
    return No(s.here.prefill) if s.here.prefill else _same_route(s, "prefill", "prefill")


def anchor(s: Situation) -> Step | No:
    """The same answer, continued on request: the model repeats the last words first."""
    return No(s.here.anchor) if s.here.anchor else _same_route(s, "anchor", "anchor")


def restart(s: Situation) -> Step | No:
    """Ask the same route again."""
    return _same_route(s, "restart", "restart")


def _same_route(s: Situation, rung: str, how: str) -> Step | No:
    """What every further attempt on the same route has to pass."""
    if not s.fault.may_ask_again:
        return No("asking again cannot help")
    if s.recoveries >= s.policy.recoveries:
        return No(f"all {s.policy.recoveries} recoveries are used up")
    if s.tries >= s.policy.tries:
        return No(f"{s.tries} attempts in a row brought nothing")
    if s.fault.retried and s.tries:
        return No(f"it was retried on the way already ({s.fault.retried} times)")
    if s.repeated:
        return No("the same fault at the same place twice is no accident")
    if s.spent:
        return No(s.spent)
    delay = 0.0 if s.at_once else _delay(s)
    asked = s.fault.retry_after or 0.0
    if asked > s.policy.longest_wait or delay >= s.remaining:
        return No(f"it would take {max(asked, delay):.0f} s of waiting")
    if delay >= s.share:
        return No("its share of the time is used up")
    if s.routes_left and asked > s.policy.patience:
        return No("another route is nearer than the wait asked for")
    return Step(rung, delay, how)


def _delay(s: Situation) -> float:
    """A server that seems to be away gets a moment to come back, if nobody else is there to ask: the longest
    of three draws, from twice as long."""
    retry = max(0, s.tries - 1)
    away = s.fault.kind is FaultKind.CONNECT or (s.fault.kind is FaultKind.DROPPED and s.tries > 0)
    if not away or s.routes_left:
        return s.policy.backoff.delay(s.fault, retry, s.random)
    late = max(s.random() for _ in range(3))
    return s.policy.backoff.delay(s.fault, retry + 1, lambda: late)


def reroute(s: Situation) -> Step | No:
    """Ask the next configured route: for the rest of the answer if it can continue one."""
    if not s.fault.elsewhere:
        return No("another route cannot help")
    if not s.routes_left:
        return No("no further route is configured")
    if s.recoveries >= s.policy.recoveries:
        return No(f"all {s.policy.recoveries} recoveries are used up")
    if s.remaining <= 0:
        return No("no time is left")
    if s.spent:
        return No(s.spent)
    how = "prefill" if not s.there.prefill else "anchor" if not s.there.anchor else "restart"
    return Step("reroute", how=how)


LADDER: tuple[Callable[[Situation], Step | No], ...] = (settle, reconnect, prefill, anchor, restart, reroute)


def next_step(situation: Situation) -> Step | tuple[No, ...]:
    """The first rung that is open, or every reason why none is."""
    refusals: list[No] = []
    for rung in LADDER:
        answer = rung(situation)
        if isinstance(answer, Step):
            return structs.replace(answer, why=tuple(no.reason for no in refusals))
        refusals.append(No(f"{rung.__name__}: {answer.reason}"))
    return tuple(refusals)
