"""A crowd of calls in simulated time: the real flows, the real `Origins`, and no driver.

Whatever happens is an entry of a heap; the clock jumps from one to the next. A call is a `flow` generator
whose actions are answered as a driver would; the bytes of an attempt go through its exchange. A provider is
an endpoint with the lab's model behind it: it says known answers at a steady pace, goes on with them where it
is asked to, and refuses connections and breaks its streams while it is dead. Draws depend on the seed, the
provider and the number of the call, so that one provider never changes what happens to another.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from sidestream import Route
from sidestream.errors import BudgetExhausted, CallFailed
from sidestream.lab import Continuing, script
from sidestream.lab import Request as Asked
from sidestream.recovery.faults import Fault, FaultKind
from sidestream.recovery.flow import Action, Broke, Call, Ended, Outcome, Send, Sleep, Tell, Woke, flow
from sidestream.recovery.origins import Origins, StormRules
from sidestream.recovery.policy import Policy
from sidestream.reply import Reply
from sidestream.wire.prompt import Request

TEXT = script.words(30)
# Rules that never say no: what happens without storm control.
NO_CONTROL = StormRules(
    tokens=10**9, least_recovering=10**9, in_a_row=10**9, window_least=10**9, window_most=10**9
)


@dataclass
class Provider:
    """An endpoint.

    Attributes:
        dead: when it refuses connections, and breaks what it was saying.
        drops: the share of its streams that break anyway, at a place of their own.
        first, lasts: seconds to the first output, and from there to the end of a whole answer.
        refuses_after: seconds until a connection is refused.
        sent: when attempts reached it.
    """

    host: str
    dead: tuple[float, float] = (0.0, 0.0)
    drops: float = 0.0
    first: float = 0.5
    lasts: float = 5.0
    refuses_after: float = 0.05
    sent: list[float] = field(default_factory=list)

    @property
    def route(self) -> Route:
        return Route(f"https://{self.host}.test/v1", "m", "chat", continuation="trailing")

    def is_dead(self, now: float) -> bool:
        return self.dead[0] <= now < self.dead[1]

    def events(self, send: Send) -> tuple[bytes, ...]:
        """What it says to a request."""
        return answered(send.body)

    def pace(self) -> float:
        return self.lasts / len(answered(b"{}"))


@cache
def answered(body: bytes) -> tuple[bytes, ...]:
    asked = Asked(0, 0, 0, "POST", "/v1/chat/completions", (), body, 0.0)
    return Continuing(TEXT)(asked).events


@dataclass
class Result:
    """What came of a call: when it was made and when it ended, and its reply or its error."""

    started: float
    ended: float
    reply: Reply | None
    error: CallFailed | None
    attempts: int

    @property
    def how(self) -> str:
        """ "at once", "recovered", or the error's name, with the budget where there is one."""
        if self.error is None:
            return "at once" if self.attempts == 1 else "recovered"
        name = type(self.error).__name__
        return f"{name} ({self.error.budget})" if isinstance(self.error, BudgetExhausted) else name

    @property
    def partial(self) -> str:
        """The text that the caller has."""
        held = self.reply or (self.error.reply if self.error else None)
        return held.text if held else ""


class Storm:
    """Calls at providers that share one `Origins`."""

    def __init__(self, seed: int, rules: StormRules | None = None) -> None:
        self.now = 0.0
        self.seed = seed
        self.origins = Origins(lambda: self.now, rules=rules or StormRules())
        self.results: dict[str, list[Result]] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._order), act))

    def call(self, provider: Provider, at: Iterable[float], policy: Policy | None = None) -> None:
        """Calls that start at these moments."""
        for moment in at:
            results = self.results.setdefault(provider.host, [])
            rng = random.Random(f"{self.seed} {provider.host} {len(results)}")
            results.append(Result(moment, -1.0, None, None, 0))
            one = _OneCall(self, provider, results[-1], rng, policy or Policy())
            self.later(moment - self.now, one.start)

    def run(self) -> None:
        """To the end of the last call."""
        while self._due:
            self.now, _, act = heapq.heappop(self._due)
            act()


class _OneCall:
    """One call, and what answers its actions."""

    def __init__(
        self, storm: Storm, provider: Provider, result: Result, rng: random.Random, policy: Policy
    ) -> None:
        self._storm = storm
        self._provider = provider
        self._result = result
        self._rng = rng
        request = Request(({"role": "user", "content": "hi"},))
        self._call = Call(request, (provider.route,), policy=policy)
        self._going: Generator[Action, Outcome, Reply] | None = None

    def start(self) -> None:
        now = self._storm.now
        self._going = flow(
            self._call, now=now, unix_time=now, random=self._rng.random, origins=self._storm.origins
        )
        self._take(lambda going: next(going))

    def answer(self, outcome: Outcome) -> None:
        self._take(lambda going: going.send(outcome))

    def _take(self, step: Callable[[Generator[Action, Outcome, Reply]], Action]) -> None:
        assert self._going is not None
        try:
            action = step(self._going)
        except StopIteration as end:
            self._end(end.value, None)
        except CallFailed as error:
            self._end(None, error)
        else:
            if isinstance(action, Send):
                self._send(action)
            else:
                seconds = action.seconds if isinstance(action, Sleep) else 0.0
                assert isinstance(action, Sleep | Tell)
                self._storm.later(seconds, lambda: self.answer(Woke(self._storm.now)))

    def _end(self, reply: Reply | None, error: CallFailed | None) -> None:
        self._result.ended, self._result.reply, self._result.error = self._storm.now, reply, error
        if reply is not None:
            assert reply.text == TEXT, f"seed {self._storm.seed}: {reply.text!r}"

    def _send(self, send: Send) -> None:
        provider, storm = self._provider, self._storm
        self._result.attempts += 1
        provider.sent.append(storm.now)
        drawn = self._rng.random() < provider.drops, self._rng.random()
        if provider.is_dead(storm.now):
            refused = Fault(FaultKind.CONNECT, "connection refused")
            storm.later(provider.refuses_after, lambda: self.answer(Broke(refused, storm.now)))
            return
        events, pace = provider.events(send), provider.pace()
        length = provider.first + len(events) * pace
        if drawn[0]:
            length *= drawn[1]
        death = provider.dead[0] - storm.now
        broken = drawn[0] or 0 <= death < length
        length = min(length, death) if death >= 0 else length
        heard = max(0, int((length - provider.first) / pace)) if broken else len(events)
        if heard >= 2:  # the role, then output
            storm.later(provider.first, lambda: self._feed(send, events[:2]))
        storm.later(length, lambda: self._finish(send, events[2:heard], broken=broken))

    def _feed(self, send: Send, events: Sequence[bytes]) -> None:
        exchange = send.exchange
        if not exchange.answered:
            exchange.opened({})
        for event in events:
            exchange.feed(event)
        if exchange.has_progressed() and exchange.first_at is None:
            exchange.output_began(self._storm.now)

    def _finish(self, send: Send, events: Sequence[bytes], *, broken: bool) -> None:
        self._feed(send, events)
        send.exchange.close()
        now = self._storm.now
        dropped = Fault(FaultKind.DROPPED, "connection reset")
        self.answer(Broke(dropped, now) if broken else Ended(now))


def told(results: Iterable[Result]) -> dict[str, int]:
    """How many calls came to what."""
    return dict(sorted(Counter(result.how for result in results).items()))
