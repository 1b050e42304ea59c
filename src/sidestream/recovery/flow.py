"""The story of a call, from the first request to the reply or the error. Pure.

Strategy: `flow` is a generator. It yields a few coarse actions, `Send` for an attempt, `Sleep` for a wait,
`Tell` for a notice, `Dismiss` for a job nobody waits for any more, and is sent what came of each. The driver
that runs it owns the sockets, the clock and the threads; the bytes of an attempt go through its `Exchange`
and never through here. After each attempt the flow looks at what the assembler has: an answer that is
complete by the rules of its wire is the reply, everything else is a fault, and the ladder in `rungs` says
which way back is open. `_Story` is what it remembers in between: above all the `trunk`, the answer so far
that a continuation goes on with (for a live consumer: exactly what was delivered).

Print the actions and you have the story. Drive it with plain values to test it: no loop, no mocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import NoReturn

from msgspec import structs

from .. import errors
from ..assembler import Assembler
from ..reply import Attempt, Reply
from ..route import Route
from ..wire._json import dumps, mapping
from ..wire.events import Recovering
from ..wire.prompt import Request, size
from .actions import (
    Action,
    Broke,
    Call,
    Dismiss,
    Ended,
    Outcome,
    Queue,
    Rejected,
    Renew,
    Renewed,
    Send,
    Sleep,
    Stopped,
    Tell,
    Woke,
)
from .admission import Admission
from .bill import Bill, output_limit
from .clocks import Clocks
from .continuing import OUTPUT_LIMITS, continued, ways
from .delivery import Gate, Said
from .ending import exhausted, failed
from .exchange import WIRES, Exchange
from .faults import Fault, FaultKind, one_line
from .origins import Origins, Stream, StreamOutcome
from .queues import Queues
from .routing import Routing
from .rungs import No, Situation, Step, Ways, next_step
from .splice import Splice
from .verdict import fault_of, partial_status, status_of

__all__ = [
    "Action",
    "Broke",
    "Call",
    "Dismiss",
    "Ended",
    "Outcome",
    "Queue",
    "Rejected",
    "Renew",
    "Renewed",
    "Send",
    "Sleep",
    "Stopped",
    "Tell",
    "Woke",
    "flow",
    "poll_delay",
]


def flow(
    call: Call,
    *,
    now: float,
    unix_time: float,
    random: Callable[[], float],
    origins: Origins | None = None,
    queues: Queues | None = None,
) -> Generator[Action, Outcome, Reply]:
    """Run a call to its end.

    Args:
        call: what was asked.
        now: the call time at which it starts; `unix_time` is the same moment on the wall.
        random: draws from [0, 1), for jitter.
        origins: what the process knows of each endpoint; by default nothing.
        queues: where its calls wait for their turn; by default it is alone.

    Returns:
        a reply that is complete, or incomplete because of a token limit.

    Raises:
        StreamDropped, ProviderError, DeadlineExceeded, BudgetExhausted, NoRoute, Cancelled: with the partial
            reply and the ledger.
    """
    if not call.routes:
        raise call.nowhere or errors.NoRoute(
            "there is no route to send the call to",
            hint="pass base_url= and model=, or set them in the environment",
        )
    story = _Story(call, now, unix_time, random, origins or Origins(lambda: 0.0), queues or Queues())
    step = Step("send", why=story.passed_over())
    try:
        while True:
            if story.must_renew():
                yield from _renew(story)
            fault = (yield from _permission(story, step)) or story.too_late()
            if fault is None:
                action = story.send(step)
                outcome = yield action
                if isinstance(outcome, Stopped):
                    story.book(action, "stopped on request", step, outcome)
                    yield from _stop(story, outcome)
                verdict = story.judge(action, outcome, step)
                if isinstance(verdict, Reply):
                    return verdict
                if verdict is None:
                    step = yield from _sleep(story, story.next_poll(), Step("reconnect", how="poll"))
                    continue
                fault = verdict
            mended = yield from _mended(story, fault, step)
            if isinstance(mended, Step):
                step = mended
                continue
            found = next_step(story.situation(mended))
            if not isinstance(found, Step):
                story.give_up(mended, found)
            if found.rung == "settle":
                return story.settled()
            step = yield from _taken(story, found, mended)
    finally:
        story.leave()


_Rest = Generator[Action, Outcome, Step]


def _mended(story: _Story, fault: Fault, step: Step) -> Generator[Action, Outcome, Step | Fault]:
    """The step that asks the same again, but for what the route objected to; else the fault stands."""
    if story.change_request(fault):
        return story.again(step, fault.detail)
    if story.may_renew(fault) and (yield from _renew(story)):
        return story.again(step, "the key was renewed")
    return story.not_renewed(fault)


def _taken(story: _Story, step: Step, fault: Fault) -> _Rest:
    """Tell of a step, and wait before it."""
    story.take(step, fault)
    step = story.explained(step, fault)
    yield from _done(story, Tell(story.notice(fault, step)))
    return (yield from _sleep(story, step.delay, step))


def _renew(story: _Story) -> Generator[Action, Outcome, bool]:
    """Have another key found for the route; whether there is one."""
    return story.renewed((yield from _done(story, story.renew())))


def _sleep(story: _Story, seconds: float, step: Step) -> _Rest:
    """Wait before `step`."""
    if seconds > 0:
        yield from _done(story, Sleep(seconds))
    return step


def _permission(story: _Story, step: Step) -> Generator[Action, Outcome, Fault | None]:
    """None once the step may be sent; waits for that within limits. The fault if it may not."""
    admission = story.admission
    if wait := admission.enter_task(story.now):
        yield from _done(story, wait)
        story.share_anew()
    if wait := admission.enter_route(story.now):
        yield from _done(story, wait)
    if no_turn := admission.no_turn(story.now):
        return no_turn
    waited = 0.0
    while (denied := admission.ask(step)) is not None:
        seconds = admission.patience(denied, step, waited, story.now)
        if seconds is None:
            return admission.withheld(denied, story.now)
        yield from _sleep(story, seconds, step)
        waited += seconds
    return None


def _done(story: _Story, action: Action) -> Generator[Action, Outcome, Outcome]:
    """What came of an action that is no attempt; a stop ends the call."""
    outcome = yield action
    if isinstance(outcome, Stopped):
        yield from _stop(story, outcome)
    story.now = outcome.at
    return outcome


def _stop(story: _Story, outcome: Stopped) -> Generator[Action, Outcome, NoReturn]:
    """The caller wants no more: neither does the provider's job need to go on."""
    story.now = outcome.at
    for job in story.jobs():
        story.now = (yield job).at
    story.stop(outcome)


class _Story:
    """What the flow remembers of a call between two attempts."""

    def __init__(
        self,
        call: Call,
        now: float,
        unix_time: float,
        random: Callable[[], float],
        origins: Origins,
        queues: Queues,
    ) -> None:
        self.call = call
        self.now = now
        self._deadline = now + call.timeouts.total
        self._wall = unix_time - now
        self._random = random
        self._origins = origins
        self._routing = Routing(
            call.routes, call.request, origins, now, self._deadline, verbatim=call.original is not None
        )
        self.admission = Admission(
            call, self._routing, origins, queues, deadline=self._deadline, wall=self._wall, random=random
        )
        self._needs_arguments = _needing_arguments(call.request)
        self._prompt_chars = size(call.request)
        self._left = call.routes[0]  # the route the last fault happened on
        self._asked = 0  # the number of the route of the last exchange
        self._behind: list[Dismiss] = []  # jobs that are not waited for any more, and may go on
        self._tries = 0
        self._recoveries = 0
        self._bill = Bill()
        self._trunk: Assembler | None = None
        self._said = Said()  # what a live consumer has
        self._exchange: Exchange | None = None
        self._best: Reply | None = None
        self._best_of: Assembler | None = None
        self._broke: Fault | None = None  # the last fault that was not of our own making
        self._last: tuple[object, ...] | None = None
        self._repeated = False
        self._closed: dict[tuple[int, str], str] = {}  # route and rung -> why it is closed for this call
        self._at_once = False
        self._polls = 0
        self._stream: Stream | None = None

    @property
    def route(self) -> Route:
        return self._routing.route

    @property
    def _request(self) -> Request:
        """The caller's request in the words of the route that is asked."""
        return self._routing.request()

    @property
    def _route(self) -> int:
        return self._routing.at

    def passed_over(self) -> tuple[str, ...]:
        """Why the first route is not the one that is asked first."""
        first = self.call.routes[0]
        parked = self._origins.parked(first) if self.route is not first else None
        return (f"{first.name} is parked: {parked.reason}",) if parked else ()

    # With which key?

    def must_renew(self) -> bool:
        return self._routing.must_renew(self.now + self._wall) and self._routing.remaining(self.now) > 0

    def may_renew(self, fault: Fault) -> bool:
        """Whether another key could help against this fault, and there is time to find one."""
        if fault.kind is not FaultKind.AUTH or not self.call.policy.recoveries:
            return False
        return self._routing.may_renew() and self._routing.remaining(self.now) > 0

    def renew(self) -> Renew:
        return Renew(self.route, min(_RENEWAL, self._routing.turn(self.now)))

    def renewed(self, outcome: Outcome) -> bool:
        """Book what came of a renewal; whether there is another key."""
        came = outcome if isinstance(outcome, Renewed) else Renewed(None, "", outcome.at)
        self._routing.renewed(came.route, self._routing.without_credentials(came.why))
        return came.route is not None

    def not_renewed(self, fault: Fault) -> Fault:
        """The fault, with why there is no other key, if one was looked for."""
        why = self._routing.not_renewed() if fault.kind is FaultKind.AUTH else ""
        if not why:
            return fault
        self._broke = replace(fault, detail=one_line(f"{fault.detail}; {why}".lstrip("; ")))
        return self._broke

    def again(self, step: Step, why: str) -> Step:
        """The step that takes the last one again. That the endpoint objected is no failure of the route."""
        self._tries = max(0, self._tries - 1)
        return Step("reconnect" if step.how == "poll" else step.how, how=step.how, why=(why,))

    # Is there time?

    def share_anew(self) -> None:
        """The wait for the task's turn was for no route: what is left is shared anew."""
        self._routing.begin(self.now)

    def too_late(self) -> Fault | None:
        """The time was used up before the request could be sent: by a queue, or by the search for a key."""
        if self._routing.remaining(self.now) > 0:
            return None
        before = f", after: {self._broke}" if self._broke else ""
        why = f"there was no time left to ask {self.route.name}{before}"
        over = self.now >= self._deadline
        self._broke = Fault(
            FaultKind.DEADLINE if over else FaultKind.STALLED, why, clock="total" if over else "route"
        )
        return self._broke

    def leave(self) -> None:
        """The call is over, in whatever way: its places are free."""
        if self._stream is not None:
            self._stream.ended("neutral")
        self.admission.leave()

    # An attempt.

    def send(self, step: Step) -> Send:
        """The next attempt."""
        self._stream = self.admission.began()
        if step.how in ("reconnect", "poll"):
            return self._resume(step.how)
        self._asked = self._route
        for what in ("stream", "job"):  # of the response before this one
            self._closed.pop((self._route, what), None)
        request, exchange = self._continuation(step.how) or self._beginning()
        self._exchange = exchange
        body = self._encoded(request)
        return Send(self.route, body, self._clocks(len(body)), exchange)

    def _encoded(self, request: Request) -> bytes:
        original = self.call.original
        if original is not None and request is self.call.request:
            return original.data
        body = WIRES[self.route.wire].encode(request, self.route.model)
        return dumps(body) if original is None else original.with_turns(request, body)

    def _clocks(self, prompt_chars: int) -> Clocks:
        return self._routing.clocks(self.call.timeouts, self.now, prompt_chars)

    def _beginning(self) -> tuple[Request, Exchange]:
        """Ask for the answer from its beginning."""
        relay = self.call.relay
        passes = relay is not None and not relay.started  # untouched: there is nothing to compare
        gate = Gate(self._said, strict=self.call.strict) if self.call.live and not passes else None
        return self._request, self._new_exchange(gate)

    def _continuation(self, how: str) -> tuple[Request, Exchange] | None:
        """Ask for the rest of the answer; None if `how` is not a way to do that."""
        if how not in ("prefill", "anchor") or self._trunk is None:
            return None
        live = self.call.live
        request, splice = continued(self._trunk, self._request, self.route, how, live=live)
        gate = Gate(Said(), strict=self.call.strict) if live else None
        return request, self._new_exchange(gate, self._trunk, splice)

    def _new_exchange(
        self, gate: Gate | None, assembler: Assembler | None = None, splice: Splice | None = None
    ) -> Exchange:
        return Exchange(
            self.route.wire,
            self._request.choices,
            gate,
            self._needs_arguments,
            self.call.limits,
            assembler=assembler,
            splice=splice,
            relay=self.call.relay,
            on_output=self._stream.progress if self._stream else None,
        )

    def _resume(self, how: str) -> Send:
        """Go on with the provider's own response."""
        if self._exchange is None or self._stream is None:
            raise RuntimeError("nothing was sent yet")
        exchange, on_output = self._exchange, self._stream.progress
        if how == "poll":
            target = self.job_target("")
        else:
            target = self.job_target("", stream="true", starting_after=str(exchange.cursor))
        self._exchange = exchange.resumed(on_output)
        return Send(self.route, b"", self._clocks(self._prompt_chars), self._exchange, target)

    def job_target(self, action: str, **query: str) -> str:
        """Where the provider's job of this call is; "" if there is none at work."""
        exchange = self._exchange
        if exchange is None or self._request.params.get("background") is not True:
            return ""
        name, finished = exchange.assembler.id, exchange.assembler.finished
        route = self._routing.routes[self._asked]
        if route.wire != "responses" or not name or finished is not None:
            return ""
        return route.below(name, action, **query)

    def jobs(self) -> list[Dismiss]:
        """What the provider may still be working on: the response under way, and those given up before it."""
        target = self.job_target("cancel")
        now = [Dismiss(self._routing.routes[self._asked], target)] if target else []
        return [*now, *(job for job in self._behind if job not in now)]

    def next_poll(self) -> float:
        """Seconds until the next look at a response that is still at work."""
        self._polls += 1
        return min(poll_delay(self._polls), max(0.0, self._deadline - self.now))

    # What came of it.

    def judge(self, action: Send, outcome: Outcome, step: Step) -> Reply | Fault | None:
        """What an attempt came to: the reply, the fault that ended it, or None if it is still at work.

        Books it in the ledger.
        """
        exchange = action.exchange
        if exchange.pending and outcome.at < self._deadline:
            self._end_stream(None, exchange)
            self.now = outcome.at
            self._tries, self._last = 0, None  # the provider is well, and so is the job
            return None
        fault = fault_of(
            exchange,
            outcome,
            date=outcome.at + self._wall,
            refuses=self.call.original is None,  # who speaks the wire finds a refusal there
            empty_is_failure=self.call.empty_is_failure,
        )
        self._end_stream(fault, exchange)
        if fault is None:
            self._routing.worked()
            reply = exchange.assembler.reply(status_of(exchange))
            self._trunk = exchange.assembler
            self.book(action, "", step, outcome, ended=reply.status)
            return self._with_ledger(reply, exchange.assembler)
        plain = self._routing.without_credentials
        fault = replace(
            fault,
            detail=plain(fault.detail),
            code=plain(fault.code),
            param=plain(fault.param),
            request_id=plain(exchange.request_id or fault.request_id),
        ).at(outcome.at + self._wall)
        if self._routing.is_own_end(fault, outcome.at):
            fault = replace(fault, kind=FaultKind.STALLED, clock="route")
        self._routing.remember(fault)
        fault = self._closing(exchange, fault, outcome, step)
        partial = exchange.assembler.reply(partial_status(fault))
        self.book(action, fault.detail, step, outcome, fault=fault)
        self._remember(exchange, partial, fault)
        return fault

    def _end_stream(self, fault: Fault | None, exchange: Exchange) -> None:
        """Tell the process how the provider did."""
        if self._stream is not None:
            blamed = fault is not None and fault.kind in _PROVIDERS_FAULT
            silent = exchange.first_at is None and not exchange.arrived
            outcome: StreamOutcome = "nothing" if blamed and silent else "neutral" if silent else "output"
            self._stream.ended(outcome if fault else "output")

    @staticmethod
    def _is_useless(exchange: Exchange, fault: Fault) -> bool:
        """Whether a resumed stream was no stream to go on with: torn, or silent while the job is at work."""
        silent = fault.kind is FaultKind.STALLED and exchange.answered and not exchange.arrived
        return silent or fault.kind is FaultKind.GARBLED

    def _closing(self, exchange: Exchange, fault: Fault, outcome: Outcome, step: Step) -> Fault:
        """A continuation that was refused, or did not join, closes its rung: it is no answer to the call."""
        self._at_once = False
        refused = isinstance(outcome, Rejected) and fault.kind in _REFUSALS and step.how != "restart"
        refused = refused and not self._routing.is_ours(fault)
        if not refused and fault.kind is not FaultKind.DIVERGED:
            self._broke = fault
            if step.how == "reconnect" and self._is_useless(exchange, fault):
                self._closed[self._route, "stream"] = str(fault)
                self._at_once = True
            elif step.how == "poll" and exchange.done:
                self._closed[self._route, "job"] = f"the provider's response ended: {fault}"
            return fault
        self._at_once = step.how != "restart"  # which is never closed, only tried so often
        if step.how == "reconnect" and fault.status not in (404, 410):
            self._closed[self._route, "stream"] = fault.detail
        else:
            self._closed[self._route, "reconnect" if step.how == "poll" else step.how] = fault.detail
        if step.how == "prefill" and refused and re.search(_PREFILL_WORDS, fault.detail):
            self._origins.learn(self.route, "prefill", fault.detail)
        return replace(fault, kind=FaultKind.DIVERGED, retry_after=None, again=None)

    def book(
        self,
        action: Send,
        detail: str,
        step: Step,
        outcome: Outcome,
        *,
        ended: str = "",
        fault: Fault | None = None,
    ) -> None:
        """Add an exchange that is over to the ledger."""
        exchange = action.exchange
        stopped = Fault(FaultKind.DROPPED, detail) if isinstance(outcome, Stopped) else None
        word = outcome.kind if isinstance(outcome, Stopped) else fault.kind.word if fault else ""
        draft = Attempt(
            route=action.route.name,
            rung=step.rung,
            ended=ended or word,
            detail=detail,
            status=fault.status if fault and fault.status is not None else 200 if exchange.answered else None,
            request_id=self._routing.without_credentials(exchange.request_id),
            seconds=outcome.at - self.now,
            first=exchange.first_at - self.now if exchange.first_at is not None else None,
            events=exchange.events,
            why=step.why,
            dropped_calls=exchange.assembler.unconfirmed if fault else (),
        )
        asked = len(action.body)
        self._bill.book(action.route, exchange, draft, asked=asked, fault=fault or stopped)
        self.now = outcome.at

    def _remember(self, exchange: Exchange, partial: Reply, fault: Fault) -> None:
        """Keep the best of what arrived, what the consumer has, and whether this fault repeats itself."""
        arrived = exchange.arrived + exchange.new_calls
        here = (self._route, fault.kind, exchange.assembler.size(), arrived)
        self._repeated = here == self._last and arrived > 0 and not self._at_once
        self._last = here
        if not self._at_once:
            went_on = arrived and fault.kind is not FaultKind.DIVERGED
            self._tries = 0 if went_on else self._tries + 1
            if went_on:
                self._routing.share(self.now)
        self._keep(exchange, partial)
        gate = exchange.gate
        if gate is not None and gate.matching:
            return
        if self._trunk is None or gate is not None or exchange.assembler.size() >= self._trunk.size():
            self._trunk = exchange.assembler
            if self.call.live:
                relay, trunk = self.call.relay, self._trunk
                self._said = Said(*(relay.said(trunk) if relay else (trunk.channels(), trunk.calls())))

    def _keep(self, exchange: Exchange, partial: Reply) -> None:
        """What an error hands over: the most that arrived; to a live consumer, what was delivered."""
        gate = exchange.gate
        if gate is not None and gate.matching:
            return  # the consumer has more than this attempt came to
        if self._best is None or gate is not None or _weight(partial) >= _weight(self._best):
            self._best, self._best_of = partial, exchange.assembler

    # What next?

    def situation(self, fault: Fault) -> Situation:
        exchange = self._exchange
        whole = exchange is not None and exchange.assembler.could_settle
        if exchange is not None and exchange.gate is not None:
            whole = whole and exchange.gate.covers(exchange.assembler)
        following = self._routing.following(fault)
        return Situation(
            fault=fault,
            policy=self.call.policy,
            whole=whole,
            tools=bool(self._request.tools),
            tries=self._tries,
            repeated=self._repeated,
            recoveries=self._recoveries,
            routes_left=len(following),
            remaining=self._deadline - self.now,
            share=self._routing.remaining(self.now),
            random=self._random,
            cursor=self._cursor(),
            unstreamed=(self._route, "stream") in self._closed,
            here=self._ways(self._route, fault),
            there=self._ways(following[0], fault) if following else Ways(),
            spent=self._spent(),
            at_once=self._at_once,
        )

    def _cursor(self) -> str:
        """Why the provider cannot send the rest of its response, or ""."""
        for what in ("reconnect", "job"):
            if closed := self._closed.get((self._route, what)):
                return closed
        if self._request.params.get("background") is not True or self.route.wire != "responses":
            return "the response is not kept: it was not created in the background"
        if not self.job_target("") or self._asked != self._route:
            return "no response is under way"
        if self._exchange is not None and self._exchange.cursor is None:
            self._closed.setdefault((self._route, "stream"), "the events have no numbers")
        return ""

    def _ways(self, number: int, fault: Fault) -> Ways:
        """How the answer so far could be continued on a route."""
        if fault.kind is FaultKind.EMPTY:
            return Ways(_NO_ANSWER, _NO_ANSWER)
        route = self._routing.routes[number]
        closed = {
            rung: self._closed.get((number, rung)) or self._origins.learned(route, rung)
            for rung in ("prefill", "anchor")
        }
        return ways(self._trunk, self._routing.request(number), route, closed, live=self.call.live)

    def _spent(self) -> str:
        """Which limit on tokens or money is used up, or ""."""
        policy = self.call.policy
        if policy.max_cost is not None and self._bill.cost >= policy.max_cost:
            return f"the call has cost {self._bill.cost:.4f} of at most {policy.max_cost:g}"
        limit = output_limit(self._request.params.get(name) for name in OUTPUT_LIMITS)
        wasted = self._bill.wasted(self._trunk)
        if wasted > policy.extra_output * limit:
            return f"{wasted} output tokens were wasted, {policy.extra_output:g} times {limit} are allowed"
        return ""

    def change_request(self, fault: Fault) -> bool:
        """What a route objects to is left out, or said on another wire, and it is asked again at once."""
        if not self.call.policy.recoveries or self.now >= self._deadline:
            return False
        return self._routing.drop(fault) or self._routing.rewire(fault)

    def take(self, step: Step, fault: Fault) -> None:
        self._left = self.route
        self._recoveries += 1
        if step.how not in ("reconnect", "poll"):
            self._behind = self.jobs()
        if step.rung == "reroute":
            self.admission.leave_route()
            self._routing.move(fault, self.now)
            self._tries = 0
            self._last = None

    @staticmethod
    def explained(step: Step, fault: Fault) -> Step:
        """The step, with the reason of a fault that no exchange in the ledger stands for."""
        withheld = fault.kind is FaultKind.WITHHELD
        return structs.replace(step, why=(str(fault), *step.why)) if withheld else step

    def notice(self, fault: Fault, step: Step) -> Recovering:
        return Recovering(
            fault.kind.word, str(fault), step.rung, self._left.name, self.route.name, step.delay
        )

    # The end.

    def settled(self) -> Reply:
        """The last attempt's answer, complete but for its end marker."""
        if self._exchange is None:
            raise RuntimeError("nothing was sent yet")
        answer = self._exchange.assembler
        self._bill.settle()
        return self._with_ledger(answer.reply("complete", settled=True), answer)

    def _with_ledger(self, reply: Reply, answer: Assembler | None) -> Reply:
        counts = answer.counts if answer else None
        return reply.with_attempts(self._bill.rows(answer), counts.reasoning_tokens if counts else None)

    def stop(self, outcome: Stopped) -> NoReturn:
        if self._exchange is not None:
            self._keep(self._exchange, self._exchange.assembler.reply("dropped"))
        reply = self._with_ledger(self._best, self._best_of) if self._best else None
        raise errors.Cancelled(
            f"the call was stopped ({outcome.kind})",
            kind=outcome.kind,
            reply=reply,
            attempts=reply.attempts if reply else self._bill.rows(None),
        )

    def give_up(self, fault: Fault, refusals: tuple[No, ...]) -> NoReturn:
        reply = self._with_ledger(self._best, self._best_of) if self._best else None
        attempts = reply.attempts if reply else self._bill.rows(None)
        broke = self._broke or fault
        denied = self.admission.denied
        if denied is not None and fault.kind is FaultKind.WITHHELD:
            raise exhausted(
                denied.budget, str(fault), self.route.name, broke, fault.retry_at, reply, attempts
            )
        if (spent := self._spent()) and broke.may_ask_again:
            raise exhausted("cost", spent, self.route.name, broke, None, reply, attempts)
        left_out = (f"left out: {each}" for each in self.call.skipped)
        reasons = "; ".join([*(no.reason for no in refusals), *left_out])
        raise failed(broke, self.route.name, self.call.timeouts, reasons, reply, attempts)


# Faults that say the provider is unwell, if no output came.
_PROVIDERS_FAULT = frozenset(
    {
        FaultKind.CONNECT,
        FaultKind.DROPPED,
        FaultKind.STALLED,
        FaultKind.GARBLED,
        FaultKind.SERVER,
        FaultKind.OVERLOADED,
    }
)
# What an endpoint answers to a continuation that it does not take.
_REFUSALS = frozenset(
    {FaultKind.BAD_REQUEST, FaultKind.PARAMETER, FaultKind.NOT_FOUND, FaultKind.CONTEXT_LENGTH}
)
_PREFILL_WORDS = (
    r"(?i)prefill|end with a user message|continue_final_message|model turn|final assistant|last message"
)
_NO_ANSWER = "what arrived was whole, and no answer"
_FIRST_POLL, _SLOWEST_POLL = 0.5, 10.0
# Seconds that finding another key may take.
_RENEWAL = 30.0


def poll_delay(number: int) -> float:
    """Seconds before a response in the background is looked at for the `number`-th time."""
    return min(_SLOWEST_POLL, _FIRST_POLL * 1.5 ** min(number, 20))


def _weight(reply: Reply) -> int:
    return (
        sum(map(len, reply.texts)) + len(reply.reasoning) + len(reply.commentary) + 40 * len(reply.tool_calls)
    )


def _needing_arguments(request: Request) -> frozenset[str]:
    """Names of the offered tools whose schema requires at least one argument."""
    needing: set[str] = set()
    for tool in request.tools:
        function = mapping(tool.get("function")) or tool
        parameters = function.get("parameters") or function.get("input_schema")
        if isinstance(parameters, dict) and parameters.get("required"):
            needing.add(str(function.get("name", "")))
    return frozenset(needing)
