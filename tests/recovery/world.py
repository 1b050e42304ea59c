"""A world for one call: a provider that says known answers and breaks in every way, and a clock of its own.

`draw` makes a `Scenario` from random numbers, `play` runs it: it performs the flow's actions as a driver
does, pushes real bytes through the exchange in random pieces, and checks the promises at every step. What
is promised is in `_Consumer` (what was delivered), `_Limits` (attempts, recoveries, time) and the `_check_…`
methods of `World` (how it ended). A broken promise is an AssertionError with the seed and the story.

The provider is the lab's, without its sockets: scripts, continuations and background jobs.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, get_args

from provider import (
    ANSWERS,
    BREAKS,
    ENDS,
    ERRORS,
    GARBAGE,
    MANNERS,
    OTHER,
    OTHER_CALL,
    REJECTIONS,
    Answer,
    Model,
    Strike,
    Truth,
    truth,
)

from sidestream.errors import Cancelled, SidestreamError
from sidestream.lab import shapes, sse
from sidestream.lab.background import Background
from sidestream.lab.record import Request as Asked
from sidestream.lab.script import Script
from sidestream.recovery.clocks import Meter, Timeouts
from sidestream.recovery.exchange import Exchange
from sidestream.recovery.faults import Fault, FaultKind, from_exception
from sidestream.recovery.flow import (
    Action,
    Broke,
    Call,
    Dismiss,
    Ended,
    Outcome,
    Rejected,
    Send,
    Sleep,
    Stopped,
    Tell,
    Woke,
    flow,
)
from sidestream.recovery.origins import Origins, Permit
from sidestream.recovery.policy import Backoff, Policy
from sidestream.reply import Reply
from sidestream.route import Continuation, Route
from sidestream.wire.events import (
    CommentaryDelta,
    ReasoningDelta,
    Restarted,
    StreamEvent,
    TextDelta,
    ToolCall,
)
from sidestream.wire.prompt import Request
from streams import FAILURES, tool

__all__ = ["DELIVERIES", "Scenario", "World", "draw", "play"]

Delivery = Literal["held", "live", "strict"]
DELIVERIES: tuple[Delivery, ...] = get_args(Delivery)
K = FaultKind


@dataclass(frozen=True)
class Job:
    """How a provider keeps its responses, if it does."""

    polls: int = 0
    overlap: int = 0
    gap: int = 0
    resumes: int | None = None  # streams are resumed so often, None: always
    gone: int | None = None


@dataclass(frozen=True)
class Scenario:
    """A call and what will happen to it."""

    seed: int
    answer: Answer
    delivery: Delivery
    routes: tuple[tuple[str, Continuation, int], ...]  # wire, continuation, number of the origin
    strikes: tuple[Strike, ...]
    for_ever: bool = False  # the last strike comes again and again
    job: Job | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    policy: Policy = field(default_factory=Policy)
    params: tuple[tuple[str, Any], ...] = ()
    tools: bool = False
    failed_before: int = 0  # attempts of other calls at the same origin
    busy: int = 0  # recoveries of other calls under way there
    stop: int | None = None  # the action at which the caller stops

    def call(self) -> Call:
        names = self.answer.tools or ({"f"} if self.tools else set())
        params = dict(self.params) | ({"background": True} if self.job else {})
        request = Request(
            ({"role": "user", "content": "hi"},),
            tools=tuple(tool(name, "q" if name == "find" else "") for name in sorted(names)),
            params=params,
        )
        routes = tuple(route(n, *spec) for n, spec in enumerate(self.routes))
        return Call(
            request, routes, self.timeouts, self.policy,
            live=self.delivery != "held", strict=self.delivery == "strict",
        )  # fmt: skip


@cache
def route(number: int, wire: Any, continuation: Continuation, origin: int) -> Route:
    url = f"http://127.0.0.1:{1 + origin}/{number}"
    thinks = wire != "messages"  # as in the provider table
    return Route(url, "m", wire, name=f"r{number}", continuation=continuation, prefill_thinking=thinks)


_OPENAI: tuple[Continuation, ...] = (
    "anchor", "anchor", "trailing", "prefix", "prefix_echoed", "partial", "continue_final_message", "none",
)  # fmt: skip
# Claude up to 4.5 takes a trailing turn, later ones an anchor.
_ANTHROPIC: tuple[Continuation, ...] = ("trailing", "trailing", "trailing", "anchor", "anchor", "none")
_FORMS = {"chat": _OPENAI, "responses": _OPENAI, "messages": _ANTHROPIC}
_WIRES = tuple(_FORMS)
_BREAK_WEIGHTS = (4, 5, 8, 4, 3, 3, 2, 2, 2, 2, 1, 1, 0.8, 0.8, 0.8, 0.8)


def draw(rng: random.Random, seed: int) -> Scenario:
    """A random scenario; `seed` decides what is not worth shrinking: chunks and times."""
    answer = rng.choice(ANSWERS)
    count = rng.choice((0, 1, 2, 2, 3, 3, 4, 5, 7, 10, 12))
    wire = rng.choice(_WIRES)
    routes = [(wire, rng.choice(_FORMS[wire]), 0)]
    if rng.random() < 0.4:
        other = rng.choice((wire, *_WIRES))
        routes.append((other, rng.choice(_FORMS[other]), rng.randrange(2)))
    moody = rng.random() < 0.3
    params: list[tuple[str, Any]] = [("temperature", 0)]
    if rng.random() < 0.1:
        params.append(rng.choice([("reasoning_effort", "low"), ("response_format", {"type": "json_object"})]))
    if wire == "messages" and rng.random() < 0.1:
        params.append(("thinking", {"type": "enabled", "budget_tokens": 1024}))
        params.append(("max_output_tokens", rng.choice((None, 1100, 4000))))
    elif rng.random() < 0.1:
        params.append(("max_output_tokens", rng.choice((1, 200, 4000))))
    return Scenario(
        seed=seed,
        answer=answer,
        delivery=rng.choice(DELIVERIES),
        routes=tuple(routes),
        strikes=tuple(_strike(rng, moody=moody) for _ in range(count)),
        for_ever=bool(count) and rng.random() < 0.1,
        job=_job(rng) if wire == "responses" and rng.random() < 0.6 else None,
        timeouts=Timeouts(
            total=rng.choice((4.0, 60.0, 1800.0, 1800.0)),
            first=rng.choice((None, 5.0)),
            idle=rng.choice((3.0, 60.0)),
        ),
        policy=Policy(
            tries=rng.choice((1, 2, 2, 3)),
            recoveries=rng.choice((0, 1, 3, 8, 8, 8, 20)),
            backoff=Backoff() if rng.random() < 0.7 else Backoff(0, 0, 0),
            longest_wait=rng.choice((1.0, 120.0)),
        ),
        params=tuple(params),
        tools=rng.random() < 0.2,
        failed_before=rng.choice((3, 4, 6)) if rng.random() < 0.1 else 0,
        busy=rng.choice((2, 3)) if rng.random() < 0.08 else 0,
        stop=rng.randrange(12) if rng.random() < 0.12 else None,
    )


def _strike(rng: random.Random, *, moody: bool) -> Strike:
    return Strike(
        kind=rng.choices(BREAKS, _BREAK_WEIGHTS)[0],
        where=rng.choice((rng.random(), rng.random(), -rng.randrange(2, 9), 0.9 + 0.1 * rng.random())),
        offset=rng.choice((0.0, rng.random())),
        variant=rng.randrange(6),
        manner=rng.choice(MANNERS) if rng.random() < 0.4 else "obedient",
        other=moody and rng.random() < 0.5,
        aside=rng.random() < 0.2,
        grain=rng.choice((0, 0, 1, 2, 5, 11, 40)),
        pieces=rng.choice((0, 1, 1, 2, 2, 5, 12, -1)),
        pace=rng.choice((0.001, 0.05, 0.3)),
        usage=rng.random() < 0.6,
    )


def _job(rng: random.Random) -> Job:
    odd = rng.random()
    return Job(
        polls=rng.choice((0, 1, 3, 10**6)) if odd < 0.5 else 0,
        overlap=rng.choice((1, 2, 50)) if odd < 0.3 else 0,
        gap=rng.choice((1, 3)) if 0.3 <= odd < 0.4 else 0,
        resumes=rng.choice((0, 1, 2)) if rng.random() < 0.4 else None,
        gone=rng.choice((404, 410, 400)) if rng.random() < 0.15 else None,
    )


# What a consumer has.


_CHANNELS: dict[type, str] = {
    TextDelta: "text",
    CommentaryDelta: "commentary",
    ReasoningDelta: "reasoning",
}


class _Consumer:
    """Checks every event: what was delivered is, at every moment, the beginning of one answer."""

    def __init__(self, scenario: Scenario) -> None:
        wires = {wire for wire, *_ in scenario.routes}
        answers = {scenario.answer}
        if any(strike.other for strike in scenario.strikes):
            answers.add(OTHER_CALL if scenario.answer.tools else OTHER)
        self._all = [truth(answer, wire) for answer in answers for wire in wires]
        self._alone = len(self._all) == 1 or not any(t.channels != self._all[0].channels for t in self._all)
        self._delivery = scenario.delivery
        self.fits = self._all
        self.channels: dict[str, str] = {}
        self.calls: list[ToolCall] = []
        self.restarts = 0
        self._messages = sum(part[0] == "text" for part in scenario.answer.parts)

    def take(self, events: list[StreamEvent]) -> None:
        assert not (events and self._delivery == "held"), "a held call delivered something"
        for event in events:
            if isinstance(event, Restarted):
                self._restarted()
            elif isinstance(event, ToolCall):
                self._call(event)
            else:
                self._text(event)

    def _restarted(self) -> None:
        assert self._delivery != "strict", "a strict consumer was told that the answer begins anew"
        assert not self._alone, "the answer began anew although nobody said anything else"
        self.restarts += 1
        self.fits, self.channels, self.calls = self._all, {}, []

    def _text(self, event: Any) -> None:
        name = _CHANNELS[type(event)]
        said = self.channels.get(name, "") + event.delta
        self.channels[name] = said
        fits = [truth for truth in self.fits if truth.channels.get(name, "").startswith(said)]
        assert fits, f"{name} is no beginning of an answer: …{said[-80:]!r}"
        self.fits = fits

    def _call(self, call: ToolCall) -> None:
        number = len(self.calls)
        self.calls.append(call)
        said = (call.name, call.arguments)
        self.fits = [t for t in self.fits if number < len(t.calls) and t.calls[number] == said]
        assert self.fits, f"this call is not the next one: {call}"
        assert len({call.call_id for call in self.calls}) == len(self.calls), "an id came twice"

    def check_reply(self, reply: Reply) -> None:
        """The reply is one of the answers, and whole; a live consumer has exactly that.

        A settled one may be the first of two messages: that a second was to come, nobody could know.
        """
        fits = [t for t in self.fits if _same(t, reply)]
        if reply.settled and not fits and self._messages > 1:
            fits = [t for t in self.fits if t.channels["text"].startswith(reply.text)]
        assert fits, f"the reply is no whole answer: {reply.text!r} {reply.tool_calls}"
        assert (reply.status == "incomplete") is fits[0].short, reply.status
        if self._delivery != "held":
            assert self.channels == _said(reply), "the reply is not what was delivered"
            assert tuple(self.calls) == reply.tool_calls, "the calls are not those that were delivered"

    def check_partial(self, partial: Reply) -> None:
        """What an error carries is the beginning of an answer."""
        said = _said(partial)
        calls = tuple((call.name, call.arguments) for call in partial.tool_calls)
        assert any(
            all(t.channels.get(name, "").startswith(text) for name, text in said.items())
            and t.calls[: len(calls)] == calls
            for t in self._all
        ), f"the partial is no beginning of an answer: {partial}"
        if self._delivery != "held":
            assert said == self.channels, f"the partial is not what was delivered: {said}"
        assert partial.status in ("dropped", "failed", "refused")


def _said(reply: Reply) -> dict[str, str]:
    said = {"text": reply.text, "reasoning": reply.reasoning, "commentary": reply.commentary}
    return {name: text for name, text in said.items() if text}


def _same(truth: Truth, reply: Reply) -> bool:
    calls = tuple((call.name, call.arguments) for call in reply.tool_calls)
    return truth.channels == _said(reply) and truth.calls == calls


class _Limits:
    """Checks every request: attempts, recoveries and time stay within what was allowed."""

    def __init__(self, scenario: Scenario) -> None:
        self._policy = scenario.policy
        self._total = scenario.timeouts.total
        self.recoveries = 0
        self.slept = 0.0
        self._fruitless: Counter[str] = Counter()

    def send(self, send: Send, at: float) -> None:
        assert at <= self._total, f"an attempt at {at}, after the deadline"
        assert send.clocks.deadline == self._total
        count = self._fruitless[send.route.name]
        assert count < self._policy.tries, f"{count} attempts in a row brought nothing, and one more"

    def came(self, send: Send, *, output: bool, closed: bool) -> None:
        """A rung that closes itself is no attempt in a row: it is not taken again."""
        if output:
            self._fruitless[send.route.name] = 0
        elif not closed:
            self._fruitless[send.route.name] += 1

    def tell(self) -> None:
        self.recoveries += 1
        assert self.recoveries <= self._policy.recoveries, "more recoveries than allowed"

    def sleep(self, seconds: float, at: float) -> None:
        assert seconds > 0
        self.slept += seconds
        assert self.slept <= self._total
        assert at + seconds <= self._total, "it slept beyond the deadline"


# The world itself.


@dataclass
class _Known:
    """A job that the client has been told of."""

    route: Route
    job_id: str
    over: bool = False


class World:
    """Performs the actions of one call."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.now = self._began = 0.0
        self._total = scenario.timeouts.total
        self._rng = random.Random(scenario.seed)
        self._notes: list[tuple[Any, ...]] = []
        self.cells: set[tuple[str, str, str]] = set()  # (rung of the attempt, what struck it, delivery)
        self.ends: set[tuple[str, str]] = set()  # (how it ended, delivery)
        self.taken: set[tuple[str, str]] = set()  # (what struck, the rung that was taken)
        self._last_strike = ""
        self._consumer = _Consumer(scenario)
        self._limits = _Limits(scenario)
        self._model = Model(scenario.answer)
        self._jobs: dict[str, Background] = {}
        self._known: list[_Known] = []
        self._new_job = False
        self._rung = "send"
        self._actions = self._sends = self._pending = 0
        self._read_so_far = b""
        self._stopped = False
        self._dismissed: list[_Known] = []
        self._silent: list[bool] = []  # of each exchange: it was answered, and no event of it arrived
        self._origins = Origins(lambda: self.now)

    def _note(self, *what: Any) -> None:
        self._notes.append((self.now, *what))

    @property
    def story(self) -> str:
        """What happened, a line for each action."""
        return "\n".join(" ".join(map(str, note)) for note in self._notes)

    def run(self) -> None:
        """To the end, checking all the way."""
        call = self.scenario.call()
        for _ in range(self.scenario.failed_before):
            self._origins.began(call.routes[0]).ended("nothing")
        others = [self._origins.recover(call.routes[0]) for _ in range(self.scenario.busy)]
        permits = [other for other in others if isinstance(other, Permit)]
        going = flow(call, now=0.0, unix_time=1e9, random=self._rng.random, origins=self._origins)
        try:
            action = next(going)
            while True:
                action = going.send(self._perform(action))
        except StopIteration as end:
            self._check_reply(end.value)
        except Cancelled as error:
            self._check_stop(error)
        except SidestreamError as error:
            self._check_error(error)
        for permit in permits:
            permit.release()
        for origin in self._origins.state():
            assert (origin.active, origin.recovering) == (0, 0), f"places are still taken: {origin}"

    # Actions.

    def _perform(self, action: Action) -> Outcome:
        number, self._actions = self._actions, self._actions + 1
        assert number < 400, "it goes on for ever"
        assert not self._stopped or isinstance(action, Dismiss), "something was done after the stop"
        stops = number == self.scenario.stop
        if isinstance(action, Send):
            return self._send(action, stops=stops)
        if isinstance(action, Dismiss):
            return self._dismiss(action)
        if isinstance(action, Sleep):
            self._note("sleep", action.seconds)
            self._limits.sleep(action.seconds, self.now)
            self.now += action.seconds * (self._rng.random() if stops else 1)
        else:
            self._tell(action)
        return self._stop() if stops else Woke(self.now)

    def _tell(self, action: Tell) -> None:
        notice = action.notice
        self._note("tell", notice)
        self._limits.tell()
        self._rung = notice.rung
        self.taken.add((self._last_strike, notice.rung))

    def _stop(self) -> Stopped:
        self._stopped = True
        self._note("the caller stops")
        return Stopped("cancel", self.now)

    def _dismiss(self, action: Dismiss) -> Outcome:
        self._note("dismiss", action.target, "at", action.route.name)
        assert self._stopped, "a job was cancelled that the caller may still want"
        job = next((j for j in self._known if f"/{j.job_id}/cancel" in action.target), None)
        assert job is not None, "no job was made with this id"
        assert job.route is action.route, f"the job is at {job.route.name}"
        assert not job.over, "that job is over"
        assert job not in self._dismissed, "once is enough"
        self._dismissed.append(job)
        self._background(action.route)(self._asked("POST", action.target))
        return Woke(self.now)

    # An exchange.

    def _send(self, send: Send, *, stops: bool) -> Outcome:
        self._limits.send(send, self.now)
        strikes = self.scenario.strikes
        last = strikes[-1] if self.scenario.for_ever else Strike(pace=0.001)
        strike = strikes[self._sends] if self._sends < len(strikes) else last
        self._sends += 1
        self._model.strike, self._model.number = strike, self._sends
        self._model.form = send.route.continuation or "none"
        self._began = started = self.now
        calls = len(send.exchange.assembler.calls())
        outcome = self._exchange(send, strike, stops=stops)
        exchange = send.exchange
        assert self.now == outcome.at
        pending = exchange.pending and not isinstance(outcome, Stopped) and self.now < self._total
        self._pending += pending
        output = exchange.arrived > 0 or len(exchange.assembler.calls()) > calls
        output = output and not exchange.astray
        if not pending:
            silent = exchange.answered and not send.target and not exchange.events
            self._silent.append(silent)
        self._limits.came(send, output=output or pending, closed=self._closes(send, outcome))
        asked = send.target or self._model.asked_how
        has = (exchange.assembler.channels(), exchange.assembler.calls())
        self._note(started, "sent", send.route.name, asked, self._rung, strike, "->", outcome, "has", *has)
        return outcome

    def _exchange(self, send: Send, strike: Strike, *, stops: bool) -> Outcome:
        meter = Meter(send.clocks, self.now)
        self._new_job = self._new_job or not send.target
        if strike.kind == "refused":
            self._struck(strike)
            self.now += 0.01
            return Broke(Fault(K.CONNECT, "refused"), self.now)
        if strike.kind == "unreachable":
            self._struck(strike)
            return self._timed_out(meter)
        self.now += self._rng.random() * strike.pace
        if self.now >= meter.due:
            return self._timed_out(meter)
        meter.connected(self.now)
        if rejection := REJECTIONS[send.route.wire].get(strike.kind):
            self._struck(strike)
            status, headers, body = rejection
            return Rejected(status, headers, body, self.now)
        answer = self._answer(send)
        if answer.status != 200:
            return Rejected(answer.status, {}, answer.body, self.now)
        chunks, ending = self._broken(answer, strike, send.route.wire)
        return self._read(send, chunks, ending, meter, strike, stops=stops)

    def _closes(self, send: Send, outcome: Outcome) -> bool:
        """Whether this way back has shown that it is none."""
        if isinstance(outcome, Rejected):
            return outcome.status in (400, 404, 405, 410)
        torn = isinstance(outcome, Broke) and outcome.fault.kind in (K.GARBLED, K.STALLED)
        astray = bool(send.exchange.astray) and (send.target != "" or self._model.asked_how != "fresh")
        return astray or (torn and "stream=true" in send.target)

    def _timed_out(self, meter: Meter) -> Broke:
        self.now = max(self._began, meter.due)
        kind = K.DEADLINE if meter.clock == "total" else K.STALLED
        return Broke(Fault(kind, "timed out", clock=meter.clock), self.now)

    def _read(
        self, send: Send, chunks: list[bytes], ending: str, meter: Meter, strike: Strike, *, stops: bool
    ) -> Outcome:
        """What a driver does with a body."""
        exchange = send.exchange
        self._read_so_far = b""
        exchange.opened({"x-request-id": f"req-{self._sends}"})
        outcome: Outcome | None = None
        stop_at = self._rng.randrange(len(chunks) + 1) if stops else -1
        pace, rnd = 2 * strike.pace, self._rng.random
        try:
            for number, chunk in enumerate(chunks):
                self.now += pace * rnd()
                if number == stop_at:
                    outcome = self._stop()
                    break
                if self.now >= meter.due:
                    outcome = self._timed_out(meter)
                    break
                self._read_so_far += chunk
                batch = exchange.feed(chunk)
                if exchange.has_progressed():
                    meter.progress(self.now)
                    if exchange.first_at is None:
                        exchange.output_began(self.now)
                if batch:
                    self._consumer.take(batch)
                if exchange.done:
                    outcome = Ended(self.now)
                    break
                if exchange.over:
                    meter.over(self.now)
        except FAILURES as error:
            outcome = Broke(from_exception(error, clock=meter.clock), self.now)
        if outcome is None:
            outcome = self._came_of(ending, meter)
        if not isinstance(outcome, Stopped):
            self._struck(strike)
        outcome = self._close(exchange, outcome)
        self._learn_job(send)
        return outcome

    def _came_of(self, ending: str, meter: Meter) -> Outcome:
        if self._actions - 1 == self.scenario.stop:
            return self._stop()
        if ending == "stall":
            return self._timed_out(meter)
        return Broke(Fault(K.DROPPED, "cut"), self.now) if ending == "drop" else Ended(self.now)

    def _close(self, exchange: Exchange, outcome: Outcome) -> Outcome:
        try:
            if batch := exchange.close():
                self._consumer.take(batch)
        except FAILURES as error:
            if isinstance(outcome, Ended):
                return Broke(from_exception(error), self.now)
        return outcome

    def _struck(self, strike: Strike) -> None:
        self._last_strike = strike.kind
        self.cells.add((self._rung, strike.kind, self.scenario.delivery))

    # The provider's side.

    def _background(self, route: Route) -> Background:
        if route.name not in self._jobs:
            job = self.scenario.job or Job()
            self._jobs[route.name] = Background(
                self._model,
                polls=job.polls,
                overlap=job.overlap,
                gap=job.gap,
                stream_gone=None if job.resumes is None else Background.TOO_OLD,
                resumes=job.resumes or 0,
                gone=job.gone,
            )
        return self._jobs[route.name]

    def _asked(self, method: str, path: str, body: bytes = b"") -> Asked:
        return Asked(self._sends, self._sends, 0, method, path, (), body, self.now)

    def _answer(self, send: Send) -> Script:
        if send.target:
            return self._background(send.route)(self._asked("GET", send.target))
        request = self._asked("POST", send.route.target, send.body)
        if self.scenario.job and send.route.wire == "responses":
            return self._background(send.route)(request)
        return self._model(request)

    def _learn_job(self, send: Send) -> None:
        """What the client knows of the provider's jobs by now."""
        if self.scenario.job is None or send.route.wire != "responses":
            return
        if self._new_job and send.exchange.events:
            job_id = next(reversed(self._background(send.route)._jobs))
            self._known.append(_Known(send.route, job_id))
            self._new_job = False
        if self._known and not self._new_job:
            self._known[-1].over = send.exchange.assembler.finished is not None

    def _broken(self, answer: Script, strike: Strike, wire: str) -> tuple[list[bytes], str]:
        """The answer's bytes in pieces, as far as they come, and how they end."""
        events = list(answer.events)
        kind = strike.kind
        if kind in ("none", "lost", "twice", "html"):
            tail = _tail(events, strike)
            if kind == "lost":
                events = events[: len(events) - tail]
            elif kind == "twice":
                events += events[len(events) - tail :]
            elif kind == "html":
                events = [shapes.PAGES["html"]]
            return self._pieces(events, strike), "end"
        at = int(-strike.where if strike.where < 0 else strike.where * len(events))
        at = max(0, min(at, len(events) - 1))
        kept = events[:at]
        if kind == "error":
            choices = ERRORS[wire]
            error = choices[strike.variant % len(choices)]
            kept.append(error.replace(b'"sequence_number":2', b'"sequence_number":%d' % at))
            return self._pieces(kept, strike), "end"
        kept += [event[: int(strike.offset * len(event))] for event in events[at : at + 1]]
        if kind == "garbage":
            kept += [GARBAGE[strike.variant % len(GARBAGE)], *events[at:]]
        return self._pieces(kept, strike), kind

    def _pieces(self, events: list[bytes], strike: Strike) -> list[bytes]:
        if not strike.pieces:
            return events
        data = b"".join(events)
        count = min(strike.pieces, len(data)) if strike.pieces > 0 else min(len(data), 40)
        start = self._rng.randrange(len(data) + 1) if strike.pieces < 0 else 0
        if strike.pieces < 0:  # byte by byte, for a while
            middle = [data[at : at + 1] for at in range(start, min(len(data), start + count))]
            return [data[:start], *middle, data[start + count :]]
        cuts = sorted(self._rng.choices(range(len(data) + 1), k=count - 1))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    # How it ended.

    def _check_reply(self, reply: Reply) -> None:
        self.ends.add(("settled" if reply.settled else reply.status, self.scenario.delivery))
        self._note("ends with", reply)
        assert not self._stopped
        assert reply.status in ("complete", "incomplete")
        self._consumer.check_reply(reply)
        assert self._ended_by_word() or reply.settled, "complete, and the provider never said so"
        self._check_ledger(reply)

    def _ended_by_word(self) -> bool:
        """Whether the last exchange brought the end marker of its wire."""
        whole = (
            self._read_so_far if self._read_so_far[:1] == b"{" else self._read_so_far.rpartition(b"\n\n")[0]
        )
        return ENDS.search(whole + b"\n\n") is not None

    def _check_error(self, error: SidestreamError) -> None:
        self.ends.add((type(error).__name__, self.scenario.delivery))
        self._note("ends with", error, error.reply)
        assert not self._stopped
        if self._sends == 0:
            assert error.reply is None
            return
        assert error.reply is not None
        self._consumer.check_partial(error.reply)
        assert error.attempts == error.reply.attempts
        self._check_ledger(error.reply)

    def _check_stop(self, error: Cancelled) -> None:
        self.ends.add(("Cancelled", self.scenario.delivery))
        self._note("ends with", error, error.reply)
        assert self._stopped, "cancelled, and nobody stopped"
        left = [job for job in self._known if not job.over and job not in self._dismissed]
        assert not left, f"the caller stopped, and these go on: {left}"
        if error.reply is not None:
            self._consumer.check_partial(error.reply)
            self._check_ledger(error.reply)

    def _check_ledger(self, reply: Reply) -> None:
        rows, usage = reply.attempts, reply.usage
        assert len(rows) == self._sends - self._pending, "an exchange is not in the ledger"
        assert usage is not None
        known = [row.tokens for row in rows if row.tokens is not None]
        assert usage.output_tokens == (sum(known) if known else None)
        assert (usage.confidence == "unknown") is (len(known) < len(rows))
        if all(row.confidence == "estimated" for row in rows):
            # A share of each row is rounded; words that were cut for a continuation were kept once.
            assert sum(row.kept for row in rows) >= _size(reply) / 4 - len(rows), (
                "what was kept is not counted"
            )
        for row, silent in zip(rows, self._silent, strict=True):
            assert not silent or row.tokens is None, "nobody can know what an exchange without a word cost"
            assert 0 <= (row.first or 0.0) <= row.seconds, row
            if row.tokens is None:
                assert (row.wasted, row.kept, row.confidence) == (None, 0, "unknown")
            else:
                assert row.kept + (row.wasted or 0) == row.tokens
                assert row.kept >= 0
                assert row.confidence != "unknown"


def _size(reply: Reply) -> int:
    return sum(map(len, _said(reply).values())) + sum(len(call.arguments) for call in reply.tool_calls)


def _tail(events: list[bytes], strike: Strike) -> int:
    """How many events at the end say that it is over; on Messages the last of them says it once more."""
    count = 0
    for event in reversed(events):
        payload = sse.decode(event)
        if isinstance(payload, dict) and payload.get("type") == "message_stop" and strike.variant:
            count += 1
            continue
        if isinstance(payload, dict) and payload.get("choices"):
            return count + (1 if payload["choices"][0]["finish_reason"] else 0)
        if isinstance(payload, dict) and payload.get("object") is None:
            return count + 1
        count += 1
    return count


_AGAIN = (
    "seed {seed}, again: SIDESTREAM_FIRST_SEED={seed} SIDESTREAM_SEEDS=1 "
    "pytest tests/recovery/test_exactly_once.py -k every_seed"
)


def play(seed: int, scenario: Scenario | None = None) -> World:
    """Run the scenario of that seed. A broken promise tells its seed and its story."""
    scenario = scenario or draw(random.Random(seed), seed)
    world = World(scenario)
    try:
        world.run()
    except Exception as error:
        error.add_note(f"{scenario}\n{world.story}\n{_AGAIN.format(seed=seed)}")
        raise
    return world
