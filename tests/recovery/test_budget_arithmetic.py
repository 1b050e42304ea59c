"""Random configurations against dead and half-dead routes: what a call may cost is what it declares.

The flow is driven by hand in a world of plain values: time is a number, a route a list of habits. Three sums
are checked for every call. Its time never exceeds the declared total, whatever is silent, slow, queued for or
renewed. Its requests never exceed the declared attempts: the first, each recovery, and what is mended on the
spot (`worst_of` is the bound of a call, `mends` that of a route). And while nobody says anything, each route
that is asked may be silent for at least its part of the total, the last one included.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from sidestream.errors import CallFailed, SidestreamError
from sidestream.recovery.actions import Queue, Renew, Renewed
from sidestream.recovery.clocks import Meter, Timeouts
from sidestream.recovery.faults import Fault, FaultKind
from sidestream.recovery.flow import Broke, Call, Ended, Outcome, Rejected, Send, Sleep, Tell, Woke, flow
from sidestream.recovery.origins import Origins
from sidestream.recovery.policy import Policy
from sidestream.recovery.queues import Place, Queues
from sidestream.recovery.worst import worst_of
from sidestream.reply import Reply
from sidestream.route import Route, RouteClocks, Secret
from sidestream.wire.events import Recovering
from sidestream.wire.prompt import Request
from streams import named

K = FaultKind
NEVER = math.inf
WHOLE = {wire: named(f"{wire}/plain-text").data for wire in ("chat", "responses", "messages")}
WORD = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
PARAMS = {"temperature": 0, "top_p": 1, "max_output_tokens": 4000}
# Float sums of a call are this exact.
EXACT = 1e-6


@dataclass(frozen=True)
class Habit:
    """What a route does on one attempt. Times are seconds; `NEVER` is silence.

    Attributes:
        connect: until the connection stands; refused then, if `refuses`.
        head: from there to the head of the answer.
        rejects: status, headers and body of an answer that is none.
        gap: before each piece of the answer.
        pieces: how many pieces of it come, in bytes of `step`; then `end`.
        end: "whole" (all of it), "drop", "silence" or "for ever" (words without end).
    """

    name: str
    connect: float = 0.0
    refuses: bool = False
    head: float = 0.0
    rejects: tuple[int, dict[str, str], bytes] | None = None
    gap: float = 0.0
    pieces: int = 0
    end: str = "whole"

    @property
    def silent(self) -> bool:
        """No output comes of it."""
        speaks = self.end in ("whole", "for ever") or self.pieces > 0
        return self.refuses or self.rejects is not None or NEVER in (self.connect, self.head) or not speaks


@dataclass
class Key:
    """A credential that takes its time. The world plays it; the flow only asks whether there is one."""

    seconds: float
    works: bool
    label: str = "a sign-in"

    def apply(self, route: Route) -> Route:
        return route

    def renew(self, *_: object) -> Route | None:
        raise AssertionError("the flow renews nothing itself")


@dataclass
class World:
    """A configuration: a call, what its routes do, and who is in the way."""

    call: Call
    habits: dict[str, tuple[Habit, ...]]
    busy: dict[str, float] = field(default_factory=dict)  # queue -> until when its one place is taken
    jitter: float = 0.5

    @property
    def total(self) -> float:
        return self.call.timeouts.total

    @property
    def silent(self) -> bool:
        """Nobody ever says a word."""
        return all(habit.silent for habits in self.habits.values() for habit in habits)


@dataclass
class Course:
    """How a call went."""

    sends: list[tuple[float, Send]] = field(default_factory=list)
    tells: list[tuple[float, int, Recovering]] = field(default_factory=list)  # when, after how many requests
    turn: float = 0.0  # when the call's own turn had come
    ended: float = 0.0
    reply: Reply | None = None
    error: SidestreamError | None = None

    def to(self, name: str) -> list[tuple[float, Send]]:
        return [(at, send) for at, send in self.sends if send.route.name == name]

    def began(self, name: str) -> float:
        """When the call turned to a route."""
        return next(
            (at for at, _, told in self.tells if told.rung == "reroute" and told.next_route == name),
            self.turn,
        )


def run(world: World, origins: Origins | None = None, since: float = 0.0) -> Course:
    """Drive one call to its end, in virtual time that begins at `since`."""
    course, now = Course(turn=since), [since]
    queues = Queues()
    others: dict[str, Place] = {}
    for name in world.busy:
        place = queues.enter(name, 1)
        assert place is not None
        others[name] = place
    story = flow(
        world.call,
        now=since,
        unix_time=1000.0 + since,
        random=lambda: world.jitter,
        origins=origins or Origins(lambda: now[0]),
        queues=queues,
    )
    outcome: Outcome | None = None
    asked: dict[str, int] = {}
    try:
        while True:
            action = story.send(outcome) if outcome else next(story)
            if isinstance(action, Send):
                course.sends.append((now[0], action))
                habits = world.habits[action.route.name]
                number = asked.get(action.route.name, 0)
                asked[action.route.name] = number + 1
                outcome = _Exchange(action, now[0]).play(habits[min(number, len(habits) - 1)])
            elif isinstance(action, Sleep):
                outcome = Woke(now[0] + action.seconds)
            elif isinstance(action, Renew):
                outcome = _renewal(action, now[0])
            elif isinstance(action, Queue):
                outcome = Woke(_wait(action, world, others, now[0]))
                if action.place._queue.name.startswith("task "):
                    course.turn = outcome.at
            else:
                if isinstance(action, Tell):
                    course.tells.append((now[0], len(course.sends), action.notice))
                outcome = Woke(now[0])
            now[0] = outcome.at
    except StopIteration as end:
        course.reply = end.value
    except SidestreamError as error:
        course.error = error
    course.ended = now[0] - since
    course.sends = [(at - since, send) for at, send in course.sends]
    return course


def _renewal(action: Renew, now: float) -> Renewed:
    key = action.route.credential
    assert isinstance(key, Key)
    assert action.seconds > 0
    if key.seconds > action.seconds:
        return Renewed(None, f"no other key in {action.seconds:.0f} s", now + action.seconds)
    fresh = replace(action.route, api_key=Secret("renewed-key"), expires=None)
    return Renewed(fresh if key.works else None, "", now + key.seconds)


def _wait(action: Queue, world: World, others: dict[str, Place], now: float) -> float:
    """The moment somebody leaves, or that at which waiting has been too long."""
    name = action.place._queue.name
    free = max(now, world.busy[name])
    if free > now + action.seconds:
        return now + action.seconds
    others[name].leave()
    assert action.place.ready
    return free


class _Exchange:
    """One attempt as a driver makes it: it holds the clocks it was given, to the second."""

    def __init__(self, send: Send, now: float) -> None:
        self.send = send
        self.at = now
        self.meter = Meter(send.clocks, now)

    def wait(self, seconds: float) -> bool:
        """Whether so much time may pass; if not, the clock has run out."""
        if self.at + seconds > self.meter.due:
            self.at = max(self.at, self.meter.due)
            return False
        self.at += seconds
        return True

    def timeout(self) -> Broke:
        kind = K.DEADLINE if self.meter.clock == "total" else K.STALLED
        return Broke(Fault(kind, "silent", clock=self.meter.clock), self.at)

    def play(self, habit: Habit) -> Outcome:
        if not self.wait(habit.connect):
            return self.timeout()
        if habit.refuses:
            return Broke(Fault(K.CONNECT, "refused"), self.at)
        self.meter.connected(self.at)
        if not self.wait(habit.head):
            return self.timeout()
        if habit.rejects is not None:
            status, headers, body = habit.rejects
            return Rejected(status, headers, body, self.at)
        self.send.exchange.opened({})
        return self.read(habit)

    def read(self, habit: Habit) -> Outcome:
        exchange = self.send.exchange
        for piece in _pieces(habit, self.send.route.wire):
            if not self.wait(habit.gap):
                return self.timeout()
            exchange.feed(piece)
            if exchange.has_progressed():
                self.meter.progress(self.at)
                if exchange.first_at is None:
                    exchange.output_began(self.at)
            if exchange.done:
                exchange.close()
                return Ended(self.at)
        if habit.end == "drop":
            exchange.close()
            return Broke(Fault(K.DROPPED, "cut"), self.at)
        self.wait(NEVER)
        return self.timeout()


def _pieces(habit: Habit, wire: str) -> Iterable[bytes]:
    if habit.end == "for ever" and wire == "chat":
        while True:
            yield WORD
    data, step = WHOLE[wire], 97
    cut = len(data) if habit.end in ("whole", "for ever") else min(habit.pieces * step, len(data) // 2)
    yield from (data[start : min(start + step, cut)] for start in range(0, cut, step))


# Habits.

SECONDS = st.sampled_from([0.0, 0.01, 0.3, 1.0, 7.0, 45.0])


def rejection(status: int, message: str, code: str = "", **headers: str) -> tuple[int, dict[str, str], bytes]:
    body = f'{{"error":{{"message":"{message}","code":"{code}"}}}}'
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, body.encode()


REJECTIONS = [
    rejection(500, "failed"),
    rejection(503, "later", retry_after="2"),
    rejection(503, "later", retry_after="90"),
    rejection(429, "slow down", retry_after="1"),
    rejection(429, "slow down", retry_after="6"),
    rejection(429, "slow down", retry_after="3600"),
    rejection(429, "slow down"),
    rejection(429, "no money", "insufficient_quota"),
    rejection(401, "no", "token_expired"),
    rejection(404, "nothing here"),
    rejection(403, "no"),
    rejection(402, "can only afford 1000"),
]
DROPS = [rejection(400, f"Unsupported parameter: {name}") for name in ("temperature", "top_p", "max_tokens")]


@st.composite
def dead(draw: st.DrawFn) -> Habit:
    """A route that never says a word."""
    word = draw(
        st.sampled_from(["refuses", "no connection", "silent", "silent after headers", "rejects", "cut"])
    )
    took = draw(SECONDS)
    return {
        "refuses": Habit(word, took, refuses=True),
        "no connection": Habit(word, NEVER),
        "silent": Habit(word, took, head=NEVER),
        "silent after headers": Habit(word, took, end="silence"),
        "rejects": Habit(word, 0.0, head=took, rejects=draw(st.sampled_from([*REJECTIONS, *DROPS]))),
        "cut": Habit(word, took, end="drop"),
    }[word]


@st.composite
def half_dead(draw: st.DrawFn) -> Habit:
    """A route that says something, and may break at any place."""
    end = draw(st.sampled_from(["drop", "silence", "whole", "for ever"]))
    return Habit(f"{end} after words", 0.0, head=draw(SECONDS), gap=draw(SECONDS) or 0.05,
                 pieces=draw(st.integers(1, 8)), end=end)  # fmt: skip


# Configurations.

CLOCK = st.sampled_from([None, 0.2, 2.0, 20.0, 200.0])


@st.composite
def routes(draw: st.DrawFn, number: int) -> Route:
    """A route among few endpoints, models and keys, so that some share one or the other."""
    own = RouteClocks(draw(CLOCK), draw(CLOCK), draw(CLOCK), draw(CLOCK)) if draw(st.booleans()) else None
    renews = draw(st.sampled_from([None, None, Key(0.5, True), Key(50.0, True), Key(3.0, False)]))
    return Route(
        f"http://host{draw(st.integers(1, 3))}.localhost:1/v1",
        draw(st.sampled_from(["m1", "m2"])),
        "chat",
        Secret(draw(st.sampled_from(["key-one", "key-two"]))),
        f"r{number}",
        continuation=draw(st.sampled_from([None, "none", "anchor"])),
        credential=renews,
        expires=1000.0 if renews and draw(st.booleans()) else None,
        concurrency=draw(st.sampled_from([None, None, 1])),
        clocks=own,
        params=draw(st.sampled_from([{}, {"seed": 1}])),
        guessed=draw(st.booleans()),
    )


@st.composite
def worlds(
    draw: st.DrawFn, habit: Callable[[], st.SearchStrategy[Habit]] = dead, queued: bool = True
) -> World:
    found = tuple(draw(routes(number)) for number in range(draw(st.integers(1, 5))))
    found = found if queued else tuple(replace(route, concurrency=None) for route in found)
    timeouts = Timeouts(
        total=draw(st.sampled_from([0.5, 5.0, 60.0, 1800.0])),
        first=draw(st.sampled_from([None, 0.3, 10.0])),
        idle=draw(st.sampled_from([0.3, 5.0, 60.0])),
        connect=draw(st.sampled_from([0.1, 10.0])),
    )
    task = draw(st.sampled_from([None, 1])) if queued else None
    call = Call(
        Request(({"role": "user", "content": "hi"},), params=draw(st.sampled_from([{}, PARAMS]))),
        found,
        timeouts,
        Policy(tries=draw(st.integers(1, 4)), recoveries=draw(st.integers(0, 9)), queue=20.0),
        live=draw(st.booleans()),
        empty_is_failure=draw(st.booleans()),
        task="t",
        concurrency=task,
    )
    taken = [" ".join(route.part("route")) for route in found if route.concurrency]
    taken += ["task t"] if task else []
    return World(
        call,
        {route.name: tuple(draw(st.lists(habit(), min_size=1, max_size=4))) for route in found},
        {name: draw(SECONDS) for name in taken},
        draw(st.sampled_from([0.0, 0.5, 0.999])),
    )


def anything() -> st.SearchStrategy[Habit]:
    return dead() | half_dead()


# The sums.


def mends(world: World, route: Route) -> int:
    """What a route is asked again for at once: each field that it rejects, a limit that the account cannot
    pay, the other wires if its own is a guess, another key."""
    fields = len({*world.call.request.params, *route.params})
    return fields + 1 + (2 if route.guessed else 0) + (1 if route.credential else 0)


def check_time(world: World, course: Course) -> None:
    assert course.ended <= world.total + EXACT
    assert all(at < world.total for at, _ in course.sends)


def check_requests(world: World, course: Course) -> None:
    policy = world.call.policy
    assert len(course.tells) <= policy.recoveries
    assert len(course.sends) <= worst_of(world.call).requests
    for route in world.call.routes:
        times = course.to(route.name)
        if all(habit.silent for habit in world.habits[route.name]):
            assert len(times) <= policy.tries + mends(world, route)


@given(worlds(anything))
def test_time_and_requests_are_what_is_declared(world: World) -> None:
    """Whatever the routes do, the call ends by its deadline and within its attempts, with a reply or an error
    that names a fault."""
    course = run(world)
    check_time(world, course)
    check_requests(world, course)
    assert (course.reply is None) != (course.error is None)
    assert course.error is None or isinstance(course.error, CallFailed)


@given(worlds(anything), st.sampled_from([0.0, 5.0, 700.0]))
def test_the_next_call_is_bounded_likewise(world: World, later: float) -> None:
    """What the process remembers of the call before (budgets, breakers, what is parked) changes the order of
    the routes and never adds to what a call may cost."""
    now = [0.0]
    origins = Origins(lambda: now[0])
    first = run(world, origins)
    now[0] = since = first.ended + later
    second = run(world, origins, since)
    check_time(world, second)
    check_requests(world, second)


@given(worlds(dead))
def test_each_route_may_be_silent_for_its_part(world: World) -> None:
    """With n routes, none of which says a word, each that is asked has its n-th part of the time from the
    moment the call turned to it, queueing and renewing included; less only if its own clock says so."""
    course = run(world)
    own = {route.name: route.clocks.total if route.clocks else None for route in world.call.routes}
    for name in {send.route.name for _, send in course.sends}:
        at, send = course.to(name)[0]
        part = (world.total - course.turn) / len(world.call.routes)
        has = min(send.clocks.until, send.clocks.deadline) - course.began(name)
        assert has >= min(part, own[name] or NEVER) - EXACT
        assert at <= course.began(name) + has


@given(worlds(dead), st.integers(1, 99))
def test_a_last_route_that_answers_within_its_part_is_heard(world: World, percent: int) -> None:
    """However the others fail, a route of its own that answers within its part of the time is heard."""
    call, number = world.call, len(world.call.routes) + 1
    last = Route("http://last.localhost:1/v1", "m", "chat", Secret("another-key"), "last")
    patient = Timeouts(total=world.total, first=world.total, idle=world.total, connect=world.total)
    enough = replace(call.policy, recoveries=call.policy.tries * number)
    call = structs.replace(
        call, routes=(*call.routes, last), timeouts=patient, policy=enough, concurrency=None
    )
    part = percent / 100 * world.total / number
    course = run(World(call, world.habits | {"last": (Habit("late", head=part),)}, world.busy, world.jitter))
    assert course.reply is not None, course.error
    assert course.reply.attempts[-1].route == "last"
    assert len(course.to("last")) == 1


@given(worlds(anything))
def test_what_shares_the_failure_is_not_asked(world: World) -> None:
    """Once a call has turned away from a route, no route is asked that shares what failed there."""
    kinds = {kind.word: kind for kind in K}
    named_ = {route.name: route for route in world.call.routes}
    course = run(world)
    for _, asked, told in course.tells:
        if told.rung != "reroute" or told.fault == "withheld":  # whose queue is full has not failed
            continue
        scope = kinds[told.fault].scope
        gone = named_[told.route].part(scope)
        later = [named_[send.route.name] for _, send in course.sends[asked:]]
        assert all(route.part(scope) != gone for route in later)


def test_what_is_mended_is_no_try() -> None:
    """A route that rejected a field twice and its key once still has its one retry after a 503."""
    route = Route("http://h.localhost:1/v1", "m", "chat", Secret("key-one"), "r", credential=Key(0.5, True))
    request = Request(({"role": "user", "content": "hi"},), params=PARAMS)
    rejected = [*DROPS[:2], rejection(401, "no", "token_expired"), rejection(503, "later")]
    habits = (*(Habit("rejects", rejects=each) for each in rejected), Habit("whole"))
    course = run(World(Call(request, (route,), Timeouts(total=60.0), Policy(tries=2)), {"r": habits}))
    assert course.reply is not None
    ends = [attempt.ended for attempt in course.reply.attempts]
    assert ends == ["parameter", "parameter", "auth", "overloaded", "complete"]
    assert course.ended < 2.0


def test_nothing_is_sent_again_without_recoveries() -> None:
    """With recoveries=0 the first request is the only one, whatever could be mended."""
    request = Request(({"role": "user", "content": "hi"},), params=PARAMS)
    for each in (DROPS[0], rejection(401, "no", "token_expired"), rejection(402, "can only afford 1000")):
        key = Key(0.5, True)
        route = Route("http://h.localhost:1/v1", "m", "chat", None, "r", credential=key, guessed=True)
        call = Call(request, (route,), policy=Policy(recoveries=0))
        course = run(World(call, {"r": (Habit("rejects", rejects=each),)}))
        assert len(course.sends) == 1
        assert course.error is not None


def test_a_wait_for_ones_turn_is_no_routes_silence() -> None:
    """What a call waits among the calls of its task comes off the whole, not off the first route's part."""
    first, second = (
        Route(f"http://{name}.localhost:1/v1", "m", "chat", None, name) for name in ("first", "second")
    )
    request = Request(({"role": "user", "content": "hi"},))
    call = Call(request, (first, second), Timeouts(total=10.0), task="t", concurrency=1)
    silent = (Habit("silent", head=NEVER),)
    course = run(World(call, {"first": silent, "second": silent}, {"task t": 6.0}))
    assert [(at, send.route.name) for at, send in course.sends] == [(6.0, "first"), (8.0, "second")]
    assert course.ended == 10.0
