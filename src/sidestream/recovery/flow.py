"""The story of a call, from the first request to the reply or the error. Pure.

Strategy: `flow` is a generator. It yields a few coarse actions, `Send` for an attempt, `Sleep` for a wait,
`Tell` for a notice, and is sent what came of each. The driver that runs it owns the sockets, the clock and
the threads; the bytes of an attempt go through its `Exchange` and never through here. After each attempt the
flow looks at what the assembler has: an answer that is complete by the rules of its wire is the reply,
everything else is a fault, and the ladder in `rungs` says which way back is open.

Print the actions and you have the story. Drive it with plain values to test it: no loop, no mocks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Literal, NoReturn

from .. import errors
from ..reply import Attempt, Reply
from ..route import Route
from ..wire._json import dumps, mapping
from ..wire.events import Recovering
from ..wire.prompt import Request, size
from ..wire.sse import Limits
from .clocks import Clocks, Timeouts
from .delivery import Gate, Said
from .exchange import WIRES, Exchange
from .faults import Fault, FaultKind, from_error, from_rejection, one_line
from .policy import Policy
from .rungs import No, Situation, Step, next_step

__all__ = [
    "Action",
    "Broke",
    "Call",
    "Ended",
    "Outcome",
    "Rejected",
    "Send",
    "Sleep",
    "Stopped",
    "Tell",
    "Woke",
    "flow",
]


# What the flow asks of its driver.


@dataclass(frozen=True, slots=True)
class Send:
    """Make one HTTP exchange: POST `body` to `route`, push the answer through `exchange`, within `clocks`.
    Answered with Ended, Broke, Rejected or Stopped."""

    route: Route
    body: bytes
    clocks: Clocks
    exchange: Exchange


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait so many seconds. Answered with Woke or Stopped."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Tell:
    """Pass a notice on to whoever listens. Answered with Woke or Stopped."""

    notice: Recovering


# What the driver answers. `at` is call time in seconds.


@dataclass(frozen=True, slots=True)
class Ended:
    """The body ended cleanly, or the answer is over and nobody read on."""

    at: float


@dataclass(frozen=True, slots=True)
class Broke:
    """The exchange broke, or a clock ran out."""

    fault: Fault
    at: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """The answer was not a 2xx. Header names are lower case; the body may be cut short."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Woke:
    """The wait is over, the notice is passed on."""

    at: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """The caller wants no more."""

    kind: Literal["cancel", "interrupt"]
    at: float


Action = Send | Sleep | Tell
Outcome = Ended | Broke | Rejected | Woke | Stopped


@dataclass(frozen=True, slots=True)
class Call:
    """What the caller asked, once, and within which limits.

    Attributes:
        live: whether a consumer reads along.
        empty_is_failure: treat a complete but empty answer as a fault.
    """

    request: Request
    routes: tuple[Route, ...]
    timeouts: Timeouts = field(default_factory=Timeouts)
    policy: Policy = field(default_factory=Policy)
    live: bool = False
    empty_is_failure: bool = False
    limits: Limits = field(default_factory=Limits)


def flow(
    call: Call, *, now: float, unix_time: float, random: Callable[[], float]
) -> Generator[Action, Outcome, Reply]:
    """Run a call to its end.

    Args:
        call: what was asked.
        now: the call time at which it starts; `unix_time` is the same moment on the wall.
        random: draws from [0, 1), for jitter.

    Returns:
        a reply that is complete, or incomplete because of a token limit.

    Raises:
        StreamDropped, ProviderError, DeadlineExceeded, NoRoute, Cancelled: with partial reply and ledger.
    """
    if not call.routes:
        raise errors.NoRoute(
            "there is no route to send the call to",
            hint="pass base_url= and model=, or set them in the environment",
        )
    story = _Story(call, now, unix_time)
    rung = "send"
    while True:
        action = story.send()
        outcome = yield action
        verdict = story.judge(action, outcome, rung)
        if isinstance(verdict, Reply):
            return verdict
        if story.drop_parameter(verdict):
            rung = "restart"
            continue
        step = next_step(story.situation(verdict, outcome.at, random))
        if not isinstance(step, Step):
            story.give_up(verdict, step)
        if step.rung == "settle":
            return story.settled()
        rung = step.rung
        story.take(step)
        outcome = yield Tell(story.notice(verdict, step))
        if step.delay > 0 and not isinstance(outcome, Stopped):
            outcome = yield Sleep(step.delay)
        if isinstance(outcome, Stopped):
            story.stop(outcome)
        story.now = outcome.at


class _Story:
    """What the flow remembers of a call between two attempts."""

    def __init__(self, call: Call, now: float, unix_time: float) -> None:
        self.call = call
        self.now = now
        self._deadline = now + call.timeouts.total
        self._wall = unix_time - now
        self._request = call.request
        self._needs_arguments = _needing_arguments(call.request)
        self._prompt_chars = size(call.request)
        self._route = 0
        self._left = 0  # the route the last fault happened on
        self._tries = 0
        self._recoveries = 0
        self._said = Said()
        self._attempts: list[Attempt] = []
        self._exchange: Exchange | None = None
        self._best: Reply | None = None
        self._last: tuple[int, FaultKind, int] | None = None
        self._repeated = False
        self._announced: frozenset[str] = frozenset()

    @property
    def route(self) -> Route:
        return self.call.routes[self._route]

    @property
    def _routes_left(self) -> int:
        return len(self.call.routes) - self._route - 1

    def send(self) -> Send:
        """The next attempt."""
        route, request = self.route, self._request
        gate = Gate(self._said) if self.call.live else None
        self._exchange = Exchange(route.wire, request.choices, gate, self._needs_arguments, self.call.limits)
        body = dumps(WIRES[route.wire].encode(request, route.model))
        clocks = self.call.timeouts.clocks(self.now, self._deadline, self._prompt_chars, self._routes_left)
        return Send(route, body, clocks, self._exchange)

    def judge(self, action: Send, outcome: Outcome, rung: str) -> Reply | Fault:
        """What an attempt came to: the reply, or the fault that ended it. Books it in the ledger."""
        started, self.now = self.now, outcome.at
        exchange = action.exchange
        if isinstance(outcome, Stopped):
            self._book(
                action, exchange.assembler.reply("dropped"), rung, started, outcome.kind, "stopped on request"
            )
            self.stop(outcome)
        fault = self._fault(exchange, outcome)
        if fault is None:
            reply = exchange.assembler.reply(_status(exchange))
            self._book(action, reply, rung, started, reply.status, "", kept=True)
            return reply.with_attempts(tuple(self._attempts))
        detail = action.route.without_credentials(fault.detail)
        fault = replace(fault, detail=detail, request_id=exchange.request_id).at(self.now + self._wall)
        partial = exchange.assembler.reply(_partial_status(fault))
        self._book(action, partial, rung, started, fault.kind.word, fault.detail, status=fault.status)
        self._remember(exchange, partial, fault)
        return fault

    def _fault(self, exchange: Exchange, outcome: Outcome) -> Fault | None:
        """None if the answer is whole by the rules of its wire, whatever happened to the connection."""
        if isinstance(outcome, Rejected):
            date = formatdate(outcome.at + self._wall, usegmt=True)  # for a Retry-After that is a date
            return from_rejection(outcome.status, {"date": date, **outcome.headers}, outcome.body)
        assembler = exchange.assembler
        finished = assembler.finished
        if finished is None:
            if isinstance(outcome, Broke):
                return outcome.fault
            return Fault(FaultKind.DROPPED, "the body ended without the end of the answer")
        if finished.status == "failed":
            return from_error(finished.error) if finished.error else Fault(FaultKind.SERVER)
        partial = assembler.reply("complete")
        if finished.reason == "content_filter" and not assembler.has_final_answer:
            return Fault(FaultKind.REFUSED, "a content filter ended the answer", code="content_filter")
        if partial.refusal and not partial.text:
            return Fault(FaultKind.REFUSED, one_line(partial.refusal)[:200])
        if finished.status == "completed" and assembler.unconfirmed:
            return Fault(
                FaultKind.GARBLED,
                f"the call of {assembler.unconfirmed[0]!r} was announced and never finished",
            )
        if partial.is_empty and (self.call.empty_is_failure or not finished.confirmed):
            return Fault(FaultKind.EMPTY)
        return None

    def _book(
        self,
        action: Send,
        reply: Reply,
        rung: str,
        started: float,
        ended: str,
        detail: str,
        *,
        status: int | None = None,
        kept: bool = False,
    ) -> None:
        tokens = reply.usage.output_tokens if reply.usage and reply.usage.output_tokens is not None else None
        count = tokens if tokens is not None else _estimate(reply)
        self._attempts.append(
            Attempt(
                route=action.route.name,
                rung=rung,
                ended=ended,
                detail=detail,
                status=status if status is not None else (200 if action.exchange.assembler.events else None),
                request_id=action.exchange.request_id,
                seconds=self.now - started,
                events=action.exchange.assembler.events,
                tokens=count,
                kept=count if kept else 0,
                reported=tokens is not None,
            )
        )

    def _remember(self, exchange: Exchange, partial: Reply, fault: Fault) -> None:
        """Keep the best of what arrived, what the consumer has, and whether this fault repeats itself."""
        arrived = sum(map(len, exchange.assembler.channels().values())) + len(partial.tool_calls)
        here = (self._route, fault.kind, arrived)
        self._repeated = here == self._last and arrived > 0
        self._last = here
        self._tries = 0 if arrived else self._tries + 1
        if exchange.gate is not None:
            self._said = exchange.gate.said(exchange.assembler)
        forget = exchange.gate is not None and exchange.gate.restarted
        if self._best is None or forget or _weight(partial) >= _weight(self._best):
            self._best = partial

    def situation(self, fault: Fault, now: float, random: Callable[[], float]) -> Situation:
        exchange = self._exchange
        whole = exchange is not None and exchange.assembler.could_settle
        if exchange is not None and exchange.gate is not None:
            whole = whole and exchange.gate.covers(exchange.assembler)
        return Situation(
            fault=fault,
            policy=self.call.policy,
            whole=whole,
            tools=bool(self._request.tools),
            tries=self._tries,
            repeated=self._repeated,
            recoveries=self._recoveries,
            routes_left=self._routes_left,
            remaining=self._deadline - now,
            random=random,
        )

    def drop_parameter(self, fault: Fault) -> bool:
        """A rejected parameter is left out once, and the same route asked again at once."""
        name = fault.param.split(".")[0].split("[")[0]
        names = (name, *WIRES[self.route.wire].RENAMED.get(name, ()))
        given = next((name for name in names if name in self._request.params), None)
        if fault.kind is not FaultKind.PARAMETER or given is None:
            return False
        if not self.call.policy.recoveries or self.now >= self._deadline:
            return False
        self._request = self._request.without(given)
        return True

    def take(self, step: Step) -> None:
        self._left = self._route
        self._recoveries += 1
        if step.rung == "reroute":
            self._route += 1
            self._tries = 0
            self._last = None

    def notice(self, fault: Fault, step: Step) -> Recovering:
        left = self.call.routes[self._left].name
        return Recovering(fault.kind.word, str(fault), step.rung, left, self.route.name, step.delay)

    def settled(self) -> Reply:
        """The last attempt's answer, complete but for its end marker."""
        if self._exchange is None:
            raise RuntimeError("nothing was sent yet")
        reply = self._exchange.assembler.reply("complete", settled=True)
        last = self._attempts[-1]
        self._attempts[-1] = replace(last, kept=last.tokens, ended="settled")
        return reply.with_attempts(tuple(self._attempts))

    def stop(self, outcome: Stopped) -> NoReturn:
        partial = self._exchange.assembler.reply("dropped") if self._exchange else None
        if self._best and (partial is None or _weight(self._best) > _weight(partial)):
            partial = self._best
        attempts = tuple(self._attempts)
        raise errors.Cancelled(
            f"the call was stopped ({outcome.kind})",
            kind=outcome.kind,
            reply=partial.with_attempts(attempts) if partial else None,
            attempts=attempts,
        )

    def give_up(self, fault: Fault, refusals: tuple[No, ...]) -> NoReturn:
        attempts = tuple(self._attempts)
        reply = self._best.with_attempts(attempts) if self._best else None
        raise _error(fault, self.route, self.call.timeouts, refusals, reply, attempts)


def _error(
    fault: Fault,
    route: Route,
    timeouts: Timeouts,
    refusals: tuple[No, ...],
    reply: Reply | None,
    attempts: tuple[Attempt, ...],
) -> errors.SidestreamError:
    tried = f"; {len(attempts)} attempts" if len(attempts) > 1 else ""
    message = f"{route.name}: {fault}{tried}"
    hint = _HINTS.get(fault.kind, "") or "; ".join(no.reason for no in refusals)
    if fault.kind.error == "DeadlineExceeded":
        setting = f"timeout.{fault.clock}"
        value = getattr(timeouts, fault.clock, None)
        shown = f" = {value:g} s" if isinstance(value, (int, float)) else ""
        return errors.DeadlineExceeded(
            f"{message} ({setting}{shown})",
            clock=fault.clock,
            fault=fault,
            reply=reply,
            attempts=attempts,
            hint=f"raise {setting} if the provider needs longer",
        )
    cls: type[errors.CallFailed] = getattr(errors, fault.kind.error)
    return cls(message, fault=fault, hint=hint, reply=reply, attempts=attempts)


_HINTS: dict[FaultKind, str] = {
    FaultKind.CONNECT: "check the base URL and the network",
    FaultKind.AUTH: "check the API key and that it belongs to this endpoint",
    FaultKind.QUOTA: "raise the quota or configure another route",
    FaultKind.NOT_FOUND: "check the model name, the base URL and the wire",
    FaultKind.CONTEXT_LENGTH: "send less, or compress the conversation first",
    FaultKind.REFUSED: "the words of the refusal are in reply.refusal",
}


def _status(exchange: Exchange) -> Literal["complete", "incomplete"]:
    finished = exchange.assembler.finished
    if finished is None or finished.status != "incomplete":
        return "complete"
    said_whole = finished.reason in (None, "content_filter") and exchange.assembler.has_final_answer
    return "complete" if said_whole else "incomplete"


def _partial_status(fault: Fault) -> Literal["refused", "failed", "dropped"]:
    if fault.kind is FaultKind.REFUSED:
        return "refused"
    return "dropped" if fault.kind.error in ("StreamDropped", "DeadlineExceeded") else "failed"


def _weight(reply: Reply) -> int:
    return (
        sum(map(len, reply.texts)) + len(reply.reasoning) + len(reply.commentary) + 40 * len(reply.tool_calls)
    )


def _estimate(reply: Reply) -> int:
    """Output tokens from the text: four characters to a token, rounded up."""
    chars = sum(map(len, reply.texts)) + len(reply.commentary) + len(reply.reasoning) + len(reply.refusal)
    chars += sum(len(call.arguments) + len(call.name) for call in reply.tool_calls)
    return -(-chars // 4)


def _needing_arguments(request: Request) -> frozenset[str]:
    """Names of the offered tools whose schema requires at least one argument."""
    needing: set[str] = set()
    for tool in request.tools:
        function = mapping(tool.get("function")) or tool
        parameters = function.get("parameters")
        if isinstance(parameters, dict) and parameters.get("required"):
            needing.add(str(function.get("name", "")))
    return frozenset(needing)
