"""What one process knows of each endpoint, shared by all its clients. Pure.

Strategy: jitter only moves load in time; what ends a storm is a budget. Three of them answer with `Denied`:

- per origin a bucket (gRPC A6): failures that are the provider's take a token, output gives a tenth back, and
  recoveries stop at half. A process with little traffic would never earn its way back, so time refills too;
- per origin a limit on recoveries under way, a share of the active streams (Envoy's retry budget);
- per origin and model a breaker: open, then half-open with one probe at a time.

Beside these, what is known to be of no use for a while is *parked*: a key without quota, a key that was not
accepted, a model that throttles. Parking forbids nothing: a parked route is asked after those that are not
(`in_order`), so that who has only one route is never refused by a memory. Success ends it.

First attempts ask the breaker alone (`admit`), every further attempt asks all three (`recover`). An attempt
that goes out is a `Stream` until it ends. What was learned about a route (`learn`) is kept beside. Tokens and
times are integers inside, so that nothing drifts; every table has a limit. What to do about a refusal, and
how long to wait, is for `flow`.

Sources: https://github.com/grpc/proposal/blob/master/A6-client-retries.md,
https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/cluster/v3/circuit_breaker.proto
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol, TypeVar

from msgspec import Struct

from ..errors import UsageError
from ..route import Route, Scope
from .faults import one_line

__all__ = [
    "BreakerState",
    "Denied",
    "Learned",
    "OriginState",
    "Origins",
    "Parked",
    "Permit",
    "StormRules",
    "Stream",
    "StreamOutcome",
]

# What came of an attempt: it brought output (even if it broke later); it brought none and that is the
# provider's fault; or it says nothing about the provider's health: a cancel, a 4xx, throttled, quota.
StreamOutcome = Literal["output", "nothing", "neutral"]
_TICKS = 1_000_000  # to a second
_PARKABLE: tuple[Scope, ...] = ("route", "credential", "model", "endpoint")


class StormRules(Struct, frozen=True):
    """The numbers. Times are seconds.

    Attributes:
        tokens: what a bucket holds; recoveries need more than half of it.
        successes_per_token: attempts with output that make up for one without (gRPC's tokenRatio 0.1).
        seconds_per_token: time that does the same; None for never, as in gRPC, which counts on volume. Two
            seconds let a recovery out again before the next probe of a breaker is due, so that an endpoint
            that was gone for a moment gets back the answers it broke; 10.2 s after an outage recovery is
            back at the latest, and while it lasts about 30 attempts a minute are allowed.
        least_recovering: recoveries that may be under way at an origin, however few streams are active.
        recovering_percent: the same as a share of the active streams, if that is more.
        busy_wait: when to ask again while too many are under way.
        in_a_row: attempts without output one after another that open a breaker.
        window, window_least, window_most: a breaker also opens when half of the last attempts brought
            nothing: at least `window_least` of them and at most `window_most`, none older than `window`.
        open_for: how long a breaker stays open.
        probe_for: how long a half-open breaker waits for its probe before it lets another one go. Longer
            than most first outputs take; a late one still counts, if it is good news.
        origins: endpoints remembered; the one used least recently goes first, those in use last.
        models, facts: breakers, and facts learned, remembered for each of them.

    Raises:
        UsageError: a number is not finite and above 0.
    """

    tokens: int = 10
    successes_per_token: int = 10
    seconds_per_token: float | None = 2.0
    least_recovering: int = 3
    recovering_percent: int = 20
    busy_wait: float = 1.0
    in_a_row: int = 5
    window: float = 60.0
    window_least: int = 20
    window_most: int = 100
    open_for: float = 4.0
    probe_for: float = 30.0
    origins: int = 1000
    models: int = 100
    facts: int = 100

    def __post_init__(self) -> None:
        for name, kind in type(self).__annotations__.items():
            value = getattr(self, name)
            if value is None and name == "seconds_per_token":
                continue
            if not math.isfinite(value) or value <= 0 or (kind == "int" and value != int(value)):
                raise UsageError(f"{name} is {value!r}, and every storm rule is a finite number above 0")
        if self.window_least > self.window_most:
            raise UsageError("window_least is at most window_most")


class Denied(Struct, frozen=True):
    """Not now.

    Attributes:
        budget: whose word this is: "breaker" (the model at this origin is down), "origin" (too many attempts
            there brought nothing), "busy" (too many recoveries are under way), "queue" (no turn came up).
        reason: one line for people, without credentials.
        retry_in: seconds after which asking again makes sense. breaker: until it is half-open, or, while a
            probe is under way, one more open time or until the probe expires. origin: until time alone has
            refilled the bucket. busy: a fixed wait. None: waiting does not help.
    """

    budget: Literal["origin", "breaker", "busy", "queue"]
    reason: str
    retry_in: float | None


class BreakerState(Struct, frozen=True):
    """A breaker, for people. `reason` says why it is not closed; `retry_in` is seconds until half-open."""

    model: str
    state: Literal["closed", "open", "half-open"]
    reason: str
    retry_in: float


class Learned(Struct, frozen=True):
    """A fact learned about a route with this model: what, and why."""

    model: str
    what: str
    reason: str


class Parked(Struct, frozen=True):
    """A part of an endpoint that is of no use for a while. `what` is the scope and, for a model, its name."""

    what: str
    reason: str
    retry_in: float


class OriginState(Struct, frozen=True):
    """An endpoint, for people.

    Attributes:
        tokens: what its bucket holds now.
        active: streams that began and have not ended.
        recovering: recoveries under way.
        may_recover: how many may be.
        breakers, learned, parked: the ones used most recently last.
    """

    origin: str
    tokens: float
    active: int
    recovering: int
    may_recover: int
    breakers: tuple[BreakerState, ...]
    learned: tuple[Learned, ...]
    parked: tuple[Parked, ...] = ()


class _Bucket:
    """Tokens, counted in units of one success."""

    __slots__ = ("_full", "_since", "_step", "_token", "units")

    def __init__(self, rules: StormRules, now: int) -> None:
        per_token = rules.seconds_per_token
        self._token = rules.successes_per_token
        self._full = self.units = rules.tokens * self._token
        self._step = None if per_token is None else max(1, _ticks(per_token / self._token))
        self._since = now

    def refill(self, now: int) -> None:
        """Add what time has earned; a full bucket saves no token up."""
        if self._step is None:
            return
        earned = (now - self._since) // self._step
        self.units = min(self._full, self.units + earned)
        self._since += earned * self._step

    def take(self, now: int) -> None:
        self.refill(now)
        self.units = max(0, self.units - self._token)

    def give(self, now: int) -> None:
        self.refill(now)
        self.units = min(self._full, self.units + 1)

    @property
    def tokens(self) -> float:
        return self.units / self._token

    @property
    def above_half(self) -> bool:
        return self.units * 2 > self._full

    def wait(self, now: int) -> float | None:
        """Seconds until it is above half by time alone. Refill first."""
        if self._step is None:
            return None
        missing = self._full // 2 + 1 - self.units
        return (self._since + missing * self._step - now) / _TICKS


class _Breaker:
    """Closed, open for a while, then half-open: one probe at a time decides.

    `generation` changes whenever it opens or closes. An attempt that began in an earlier one is old news:
    streams that hung through an outage and die after it must not open the breaker again.
    """

    __slots__ = (
        "_begun",
        "_failed",
        "_in_a_row",
        "_label",
        "_opened",
        "_probe",
        "_probe_until",
        "_probes",
        "_recent",
        "_rules",
        "_until",
        "_why",
        "active",
        "generation",
    )

    def __init__(self, rules: StormRules, label: str) -> None:
        self._rules = rules
        self._label = label
        self._why = ""
        self.active = 0
        self.generation = 0
        self._opened = False
        self._until = 0  # when open: half-open from here
        self._probe = 0  # the probe under way, 0 for none
        self._probes = 0
        self._probe_until = 0
        self._begun = False
        self._in_a_row = 0
        self._recent: deque[int] = deque()  # instant * 2, plus 1 if it brought nothing
        self._failed = 0

    @property
    def idle(self) -> bool:
        return self.active == 0

    def ask(self, now: int) -> Denied | None:
        """Whether an attempt may go out. Takes nothing."""
        if not self._opened:
            return None
        if now < self._until:
            return self._denied("is open", self._until - now)
        if self._probe and now < self._probe_until:
            wait = min(self._probe_until - now, _ticks(self._rules.open_for))
            return self._denied("waits for a probe", wait)
        return None

    def _denied(self, state: str, wait: int) -> Denied:
        return Denied("breaker", f"the breaker of {self._label} {state}: {self._why}", wait / _TICKS)

    def take_probe(self, now: int) -> int:
        """The number of the probe that goes out now, 0 if none is needed. Ask first."""
        if not self._opened:
            return 0
        self._probes += 1
        self._probe = self._probes
        self._probe_until = now + _ticks(self._rules.probe_for)
        self._begun = False
        return self._probe

    def begin(self, probe: int) -> int:
        """Which probe an attempt is that goes out now. Without a permit (0) it is the one that waits to
        begin: if an attempt admitted before the breaker opened is quicker, the two change roles."""
        probe = probe or (0 if self._begun else self._probe)
        self._begun = self._begun or (probe != 0 and probe == self._probe)
        return probe

    def give_back(self, probe: int, *, unless_begun: bool = False) -> None:
        """The probe will not tell; the next attempt may be one."""
        if probe and probe == self._probe and not (unless_begun and self._begun):
            self._probe = 0

    def worked(self, generation: int, probe: int, now: int) -> None:
        """An attempt brought output. A probe that was given up for lost counts all the same."""
        if generation != self.generation:
            return
        if not self._opened:
            self._in_a_row = 0
            self._note(now, failed=0)
        elif probe:
            self._turn(opened=False)

    def failed(self, generation: int, probe: int, now: int) -> None:
        """An attempt brought nothing."""
        if generation != self.generation:
            return
        if self._opened:
            if probe and probe == self._probe:
                self._open(now, self._why)
            return
        self._in_a_row += 1
        self._note(now, failed=1)
        total = len(self._recent)
        if self._in_a_row >= self._rules.in_a_row:
            self._open(now, f"{self._in_a_row} attempts in a row brought nothing")
        elif total >= self._rules.window_least and self._failed * 2 >= total:
            self._open(now, f"{self._failed} of the last {total} attempts brought nothing")

    def _note(self, now: int, *, failed: int) -> None:
        oldest = now - _ticks(self._rules.window)
        recent = self._recent
        while recent and (recent[0] // 2 <= oldest or len(recent) >= self._rules.window_most):
            self._failed -= recent.popleft() % 2
        recent.append(now * 2 + failed)
        self._failed += failed

    def _open(self, now: int, why: str) -> None:
        self._why = why
        self._until = now + _ticks(self._rules.open_for)
        self._turn(opened=True)

    def _turn(self, *, opened: bool) -> None:
        self._opened = opened
        self.generation += 1
        self._probe = 0
        self._in_a_row = self._failed = 0
        self._recent.clear()

    def state(self, model: str, now: int) -> BreakerState:
        if not self._opened:
            return BreakerState(model, "closed", "", 0.0)
        wait = max(0, self._until - now) / _TICKS
        return BreakerState(model, "open" if wait else "half-open", self._why, wait)


class _Origin:
    """One endpoint: its bucket, its streams, and a breaker for each model."""

    __slots__ = ("_rules", "active", "breakers", "bucket", "facts", "name", "parked", "recovering")

    def __init__(self, rules: StormRules, name: str, now: int) -> None:
        self._rules = rules
        self.name = one_line(name)
        self.bucket = _Bucket(rules, now)
        self.active = 0
        self.recovering = 0
        self.breakers: OrderedDict[str, _Breaker] = OrderedDict()
        self.facts: OrderedDict[tuple[str, str, str], str] = OrderedDict()
        self.parked: OrderedDict[tuple[str, ...], tuple[int, str]] = OrderedDict()  # part -> until, why

    @property
    def idle(self) -> bool:
        return self.active == 0 and self.recovering == 0

    @property
    def may_recover(self) -> int:
        return max(self._rules.least_recovering, self.active * self._rules.recovering_percent // 100)

    def breaker(self, model: str) -> _Breaker:
        def make() -> _Breaker:
            return _Breaker(self._rules, one_line(f"{model} at {self.name}"))

        return _kept(self.breakers, model, self._rules.models, make)

    def ask(self, now: int) -> Denied | None:
        """Whether a recovery may start, as far as the whole origin is concerned. Takes nothing."""
        bucket = self.bucket
        bucket.refill(now)
        if not bucket.above_half:
            left = f"{bucket.tokens:g} of {self._rules.tokens} tokens left, recovering takes more than half"
            return Denied("origin", f"too much failed at {self.name}: {left}", bucket.wait(now))
        if self.recovering >= self.may_recover:
            reason = f"{self.recovering} recoveries of {self.may_recover} are under way at {self.name}"
            return Denied("busy", reason, self._rules.busy_wait)
        return None

    def learn(self, fact: tuple[str, str, str], reason: str) -> None:
        self.facts[fact] = reason
        self.facts.move_to_end(fact)
        if len(self.facts) > self._rules.facts:
            self.facts.popitem(last=False)

    def park(self, part: tuple[str, ...], until: int, reason: str) -> None:
        self.parked[part] = until, reason
        self.parked.move_to_end(part)
        if len(self.parked) > self._rules.facts:
            self.parked.popitem(last=False)

    def why_parked(self, route: Route, now: int) -> Parked | None:
        for scope in _PARKABLE if self.parked else ():
            until, reason = self.parked.get(route.part(scope), (0, ""))
            if until > now:
                return Parked(scope, reason, (until - now) / _TICKS)
        return None

    def state(self, now: int) -> OriginState:
        self.bucket.refill(now)
        return OriginState(
            origin=self.name,
            tokens=self.bucket.tokens,
            active=self.active,
            recovering=self.recovering,
            may_recover=self.may_recover,
            breakers=tuple(breaker.state(model, now) for model, breaker in self.breakers.items()),
            learned=tuple(Learned(model, what, why) for (_, model, what), why in self.facts.items()),
            parked=tuple(
                Parked(" ".join((part[0], *part[3:4])), why, (until - now) / _TICKS)
                for part, (until, why) in self.parked.items()
                if until > now
            ),
        )


class Permit:
    """A recovery that may go out. It is under way until `release`: at its first output, or at its end.

    Pass it to `Origins.began` and the stream releases it; who never begins releases it himself.
    """

    __slots__ = ("_breaker", "_home", "_origin", "_probe", "_released")

    def __init__(self, home: Origins, origin: _Origin, breaker: _Breaker, probe: int) -> None:
        self._home = home
        self._origin = origin
        self._breaker = breaker
        self._probe = probe
        self._released = False

    def release(self) -> None:
        """The recovery is not under way any more. Once is enough; more does no harm."""
        if not self._released:
            self._home._release(self)


class Stream:
    """An attempt that went out: active until it has ended. Its owner ends it, whatever happens."""

    __slots__ = ("_breaker", "_counted", "_generation", "_home", "_origin", "_over", "_permit", "_probe")

    def __init__(
        self, home: Origins, origin: _Origin, breaker: _Breaker, probe: int, permit: Permit | None
    ) -> None:
        self._home = home
        self._origin = origin
        self._breaker = breaker
        self._generation = breaker.generation
        self._probe = probe
        self._permit = permit
        self._counted = False
        self._over = False

    def progress(self) -> None:
        """The first output arrived: that the provider is alive is known now, not minutes later when the
        answer ends, and a probe closes its breaker. Releases the permit. Only the first time counts."""
        if not self._counted:
            self._home._progress(self)

    def ended(self, outcome: StreamOutcome) -> None:
        """It is over. Only the first time counts; after `progress` the outcome is known to be "output".

        Args:
            outcome: "output" if it brought any, even if it broke later; "nothing" if it did not and that is
                the provider's fault (no connection, a drop or a stall before output, 5xx, overloaded);
                "neutral" for the rest: a cancel, a 4xx, throttled, quota, an attempt that was abandoned.
        """
        if not self._over:
            self._home._ended(self, outcome)


_NO_LOCK: AbstractContextManager[object] = nullcontext()
_RULES = StormRules()


class Origins:
    """What this process knows of each endpoint. Every call takes the lock once and the same short time.

    Args:
        clock: seconds, monotonic; steps back count as no time.
        lock: held by every method. Threads need `threading.RLock()`, not a plain lock: a generator that was
            abandoned may end its stream from inside the garbage collector, which may run while the same
            thread holds the lock. The default does nothing.
        rules: the numbers.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        lock: AbstractContextManager[object] = _NO_LOCK,
        rules: StormRules = _RULES,
    ) -> None:
        self._clock = clock
        self._lock = lock
        self._rules = rules
        self._read = _ticks(clock())
        self._now = 0
        self._origins: OrderedDict[str, _Origin] = OrderedDict()

    def admit(self, route: Route) -> Denied | None:
        """Ask before the first attempt of a call on a route. None means go, and then `began` at once: the
        attempt may be the probe of a half-open breaker."""
        with self._lock:
            now = self._tick()
            breaker = self._origin(route, now).breaker(route.model)
            denied = breaker.ask(now)
            if denied is None:
                breaker.take_probe(now)
            return denied

    def recover(self, route: Route) -> Permit | Denied:
        """Ask before every further attempt of a call on a route, after any wait. A refusal costs nothing."""
        with self._lock:
            now = self._tick()
            origin = self._origin(route, now)
            breaker = origin.breaker(route.model)
            denied = breaker.ask(now) or origin.ask(now)
            if denied is not None:
                return denied
            origin.recovering += 1
            return Permit(self, origin, breaker, breaker.take_probe(now))

    def began(self, route: Route, permit: Permit | None = None) -> Stream:
        """An attempt goes out on a route that was admitted, or with the permit of a recovery."""
        with self._lock:
            if permit is None:
                origin = self._origin(route, self._tick())
                breaker, probe = origin.breaker(route.model), 0
            else:
                origin, breaker, probe = permit._origin, permit._breaker, permit._probe
            origin.active += 1
            breaker.active += 1
            return Stream(self, origin, breaker, breaker.begin(probe), permit)

    def learn(self, route: Route, what: str, reason: str) -> None:
        """Remember a fact about a route, such as that it refuses "prefill". `reason` is one line for people;
        the route's credentials are taken out."""
        reason = one_line(route.without_credentials(reason)) or what
        with self._lock:
            self._origin(route, self._tick()).learn((route.target, route.model, what), reason)

    def learned(self, route: Route, what: str) -> str:
        """The reason, or "" if no such fact is known of this endpoint, wire and model."""
        with self._lock:
            origin = self._origins.get(route.origin)
            return origin.facts.get((route.target, route.model, what), "") if origin else ""

    def park(self, route: Route, scope: Scope, seconds: float, reason: str) -> None:
        """This part of a route is of no use for so long. `reason` as in `learn`."""
        reason = one_line(route.without_credentials(reason)) or scope
        with self._lock:
            now = self._tick()
            self._origin(route, now).park(route.part(scope), now + _ticks(seconds), reason)

    def unpark(self, route: Route) -> None:
        """The route answered."""
        with self._lock:
            origin = self._origins.get(route.origin)
            if origin is not None and origin.parked:
                for scope in _PARKABLE:
                    origin.parked.pop(route.part(scope), None)

    def parked(self, route: Route) -> Parked | None:
        """Why this route is asked after others, None if it is not."""
        with self._lock:
            origin = self._origins.get(route.origin)
            return origin.why_parked(route, self._tick()) if origin else None

    def in_order(self, routes: Iterable[Route]) -> tuple[Route, ...]:
        """The same routes, those that are parked last."""
        return tuple(sorted(routes, key=lambda route: self.parked(route) is not None))

    def state(self) -> tuple[OriginState, ...]:
        """Every endpoint as it stands now, the one used most recently last."""
        with self._lock:
            now = self._tick()
            return tuple(origin.state(now) for origin in self._origins.values())

    def _origin(self, route: Route, now: int) -> _Origin:
        name = route.origin
        return _kept(self._origins, name, self._rules.origins, lambda: _Origin(self._rules, name, now))

    def _tick(self) -> int:
        """Ticks since the start. Called first: nothing is half done if the clock calls back."""
        read = _ticks(self._clock())
        self._now += max(0, read - self._read)
        self._read = read
        return self._now

    def _release(self, permit: Permit) -> None:
        with self._lock:
            self._free(permit)

    def _free(self, permit: Permit | None) -> None:
        if permit is None or permit._released:
            return
        permit._released = True
        permit._origin.recovering -= 1
        permit._breaker.give_back(permit._probe, unless_begun=True)

    def _progress(self, stream: Stream) -> None:
        with self._lock:
            self._count(stream, "output", self._tick())

    def _ended(self, stream: Stream, outcome: StreamOutcome) -> None:
        with self._lock:
            now = self._tick()
            if stream._over:
                return
            stream._over = True
            stream._origin.active -= 1
            stream._breaker.active -= 1
            self._count(stream, outcome, now)

    def _count(self, stream: Stream, outcome: StreamOutcome, now: int) -> None:
        """Book what came of an attempt, once."""
        self._free(stream._permit)
        if stream._counted:
            return
        stream._counted = True
        if outcome == "output":
            stream._origin.bucket.give(now)
            stream._breaker.worked(stream._generation, stream._probe, now)
        elif outcome == "nothing":
            stream._origin.bucket.take(now)
            stream._breaker.failed(stream._generation, stream._probe, now)
        else:
            stream._breaker.give_back(stream._probe)


class _Keepable(Protocol):
    @property
    def idle(self) -> bool: ...


_T = TypeVar("_T", bound=_Keepable)


def _kept(table: OrderedDict[str, _T], key: str, limit: int, make: Callable[[], _T]) -> _T:
    """The table's value, made if it is not there. A full table forgets the idle one used least recently, or
    the least recent of all if none is idle; only then does a call look at more than one row."""
    found = table.get(key)
    if found is not None:
        table.move_to_end(key)
        return found
    if len(table) >= limit:
        oldest = next(iter(table))
        del table[next((name for name, value in table.items() if value.idle), oldest)]
    made = table[key] = make()
    return made


def _ticks(seconds: float) -> int:
    return round(seconds * _TICKS)
