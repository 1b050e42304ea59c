"""Who may go now: limits, order, leaving while waiting, threads, and a machine that tries everything."""

import itertools
import random
import threading
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from sidestream.recovery.queues import LONGEST, Place, Queues


@pytest.fixture
def queues() -> Queues:
    return Queues()


def enter(queues: Queues, name: str = "q", limit: int = 1, priority: int = 0) -> Place:
    place = queues.enter(name, limit, priority)
    assert place is not None
    return place


def ready(*places: Place) -> list[bool]:
    return [place.ready for place in places]


def test_as_many_as_the_limit_go_at_once(queues: Queues) -> None:
    """The others wait until one of them leaves."""
    places = [enter(queues, limit=2) for _ in range(4)]
    assert ready(*places) == [True, True, False, False]
    assert queues.waiting("q") == (2, 2)
    places[1].leave()
    assert ready(*places[2:]) == [True, False]
    assert queues.waiting("q") == (2, 1)


def test_smaller_priorities_go_first_and_equals_as_they_came(queues: Queues) -> None:
    """The user's own turn goes before side tasks that have waited longer."""
    first = enter(queues)
    waiting = {name: enter(queues, priority=p) for name, p in (("a", 1), ("b", 1), ("main", 0), ("c", 1))}
    order = []
    last = first
    for _ in range(4):
        last.leave()
        ((name, last),) = [(name, place) for name, place in waiting.items() if place.ready]
        order.append(name)
        del waiting[name]
    assert order == ["main", "a", "b", "c"]


def test_names_do_not_share_a_limit(queues: Queues) -> None:
    """Each queue is its own."""
    assert ready(enter(queues, "a"), enter(queues, "b")) == [True, True]


def test_who_leaves_while_waiting_is_never_ready(queues: Queues) -> None:
    """And takes nobody's turn."""
    first, second, third = (enter(queues) for _ in range(3))
    second.leave()
    assert queues.waiting("q") == (1, 1)
    first.leave()
    assert ready(second, third) == [False, True]


def test_leaving_twice_frees_one_place(queues: Queues) -> None:
    """Once is enough; more does no harm."""
    places = [enter(queues) for _ in range(3)]
    places[0].leave()
    places[0].leave()
    assert ready(*places[1:]) == [True, False]
    assert queues.waiting("q") == (1, 1)


def test_nothing_is_left_when_all_have_left(queues: Queues) -> None:
    """A queue that nobody is in is forgotten: names may be many."""
    for number in range(1000):
        places = [enter(queues, f"q{number}") for _ in range(3)]
        for place in (places[1], places[0], places[2]):
            place.leave()
    assert queues._queues == {}


def test_the_limit_given_last_counts(queues: Queues) -> None:
    """A higher one lets those who wait go at once, a lower one waits until enough have left."""
    places = [enter(queues, limit=1) for _ in range(3)]
    places.append(enter(queues, limit=3))
    assert ready(*places) == [True, True, True, False]
    places.append(enter(queues, limit=1))
    places[0].leave()
    places[1].leave()
    assert ready(*places[3:]) == [False, False]
    places[2].leave()
    assert ready(*places[3:]) == [True, False]


def test_who_is_ready_is_called_at_once(queues: Queues) -> None:
    """And who is not when he is, once."""
    first, second = enter(queues), enter(queues)
    called: list[str] = []
    first.when_ready(lambda: called.append("first"))
    second.when_ready(lambda: called.append("second"))
    assert called == ["first"]
    first.leave()
    assert called == ["first", "second"]
    second.leave()
    assert called == ["first", "second"]


def test_who_left_is_not_called(queues: Queues) -> None:
    """Nobody waits there any more."""
    first, second = enter(queues), enter(queues)
    second.when_ready(lambda: pytest.fail("he has left"))
    second.leave()
    first.leave()


def test_a_callback_may_use_the_queues(queues: Queues) -> None:
    """No lock is held: who is ready may leave at once, enter again, or look."""
    first, second, third = (enter(queues) for _ in range(3))
    seen: list[tuple[int, int]] = []
    second.when_ready(lambda: (second.leave(), seen.append(queues.waiting("q")))[0])
    first.leave()
    assert third.ready
    assert seen == [(1, 0)]


def test_a_full_queue_turns_away(queues: Queues) -> None:
    """A thousand may wait; whoever left in the meantime makes room."""
    first = enter(queues)
    waiting = [enter(queues) for _ in range(LONGEST)]
    assert queues.enter("q", 1) is None
    assert queues.enter("q", 1, priority=-1) is None
    waiting[500].leave()
    assert enter(queues, priority=-1) is not None
    assert queues.enter("q", 1) is None
    first.leave()
    assert queues.waiting("q") == (1, LONGEST - 1)


def test_a_full_queue_heeds_a_higher_limit(queues: Queues) -> None:
    """That lets others go, so that there is room."""
    first = enter(queues)
    waiting = [enter(queues) for _ in range(LONGEST)]
    latest = enter(queues, limit=2)
    assert ready(first, waiting[0], waiting[1], latest) == [True, True, False, False]


def test_a_queue_nobody_is_in(queues: Queues) -> None:
    """Nobody is ready, nobody waits."""
    assert queues.waiting("q") == (0, 0)


@pytest.mark.parametrize("limit", [1, 3])
def test_threads(limit: int, rng: random.Random) -> None:
    """From many threads: never more than the limit at once, everybody's turn comes, nothing is left over."""
    queues = Queues(lock=threading.RLock())
    inside, most, done = 0, 0, 0
    lock = threading.Lock()
    impatient = [rng.random() < 0.3 for _ in range(300)]
    numbers = itertools.count()

    def work() -> None:
        nonlocal inside, most, done
        while (number := next(numbers)) < len(impatient):
            place = enter(queues, limit=limit, priority=number % 3)
            rung = threading.Event()
            place.when_ready(rung.set)
            if impatient[number] and not place.ready:
                place.leave()
                continue
            assert rung.wait(30)
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1
                done += 1
            place.leave()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert 1 <= most <= limit
    assert done >= impatient.count(False)
    assert queues._queues == {}


class Machine(RuleBasedStateMachine):
    """Anything in any order, beside a model: a list of who waits and a set of who goes."""

    places = Bundle("places")

    def __init__(self) -> None:
        super().__init__()
        self.queues = Queues()
        self.limit = 1
        self.going: list[Place] = []
        self.waiting: list[tuple[int, int, Place]] = []
        self.rung: list[Place] = []
        self.arrivals = 0

    @rule(target=places, limit=st.integers(1, 4), priority=st.integers(-1, 2), listen=st.booleans())
    def enter(self, limit: int, priority: int, *, listen: bool) -> Place:
        place = self.queues.enter("q", limit, priority)
        assert place is not None
        self.limit = limit
        self.arrivals += 1
        self.waiting.append((priority, self.arrivals, place))
        self.advance()
        if listen:
            place.when_ready(self.bell(place))
            assert (place in self.rung) is place.ready
        return place

    def bell(self, place: Place) -> Callable[[], None]:
        def ring() -> None:
            assert place not in self.rung, "twice"
            assert place.ready
            self.rung.append(place)

        return ring

    @rule(target=places, place=consumes(places), twice=st.booleans())
    def leave(self, place: Place, *, twice: bool) -> Place:
        place.leave()
        if place in self.going:
            self.going.remove(place)
        self.waiting = [entry for entry in self.waiting if entry[2] is not place]
        self.advance()
        return place if twice else multiple()  # type: ignore[return-value]

    def advance(self) -> None:
        self.waiting.sort(key=lambda entry: entry[:2])
        while self.waiting and len(self.going) < self.limit:
            self.going.append(self.waiting.pop(0)[2])

    @invariant()
    def same(self) -> None:
        assert all(place.ready for place in self.going)
        assert not any(place.ready for *_, place in self.waiting)
        assert self.queues.waiting("q") == (len(self.going), len(self.waiting))
        assert bool(self.queues._queues) is bool(self.going)


TestMachine = Machine.TestCase
TestMachine.settings = settings(stateful_step_count=40)
