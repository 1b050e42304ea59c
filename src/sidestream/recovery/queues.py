"""Who may go now, where only so many may at once. Pure.

Strategy: a queue has a name (a route, a task) and a limit. Whoever enters gets a `Place`, ready at once or
when enough others have left; smaller priorities go first, equals in order of arrival. Nobody waits in here: a
driver asks to be called when a place is ready, and gives up when its own time is over. A place is left once,
whatever happens, waiting or ready. Numbers are bounded: a queue with more than `LONGEST` waiting turns away.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

__all__ = ["LONGEST", "Place", "Queues"]

LONGEST = 1000


class Place:
    """A place in a queue."""

    __slots__ = ("_callback", "_left", "_queue", "_queues", "ready")

    def __init__(self, queues: Queues, queue: _Queue) -> None:
        self._queues = queues
        self._queue = queue
        self._callback: Callable[[], None] | None = None
        self._left = False
        self.ready = False

    def when_ready(self, callback: Callable[[], None]) -> None:
        """Call this once when the place is ready, from whichever thread frees it; at once if it is."""
        with self._queues._lock:
            if not self.ready:
                self._callback = callback
                return
        callback()

    def leave(self) -> None:
        """Go, or stop waiting. Once is enough; more does no harm."""
        self._queues._leave(self)


class _Queue:
    __slots__ = ("active", "limit", "name", "waiting")

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.active = 0
        self.waiting: list[tuple[int, int, Place]] = []


class Queues:
    """The queues of a process.

    Args:
        lock: held by every method; as in `Origins`, threads need an RLock.
    """

    def __init__(self, *, lock: AbstractContextManager[object] | None = None) -> None:
        self._lock = lock or nullcontext()
        self._queues: dict[str, _Queue] = {}
        self._arrivals = 0

    def enter(self, name: str, limit: int, priority: int = 0) -> Place | None:
        """A place in the queue of that name, of which `limit` may be ready at once; None if it is full.

        The limit given last counts.
        """
        with self._lock:
            queue = self._queues.setdefault(name, _Queue(name, limit))
            queue.limit = limit
            woken: list[Callable[[], None]] = []
            if len(queue.waiting) >= LONGEST:
                woken = self._advance(queue)  # the limit may be higher than it was
                queue.waiting = [entry for entry in queue.waiting if not entry[2]._left]
                heapq.heapify(queue.waiting)
            place = None
            if len(queue.waiting) < LONGEST:
                place = Place(self, queue)
                self._arrivals += 1
                heapq.heappush(queue.waiting, (priority, self._arrivals, place))
                woken += self._advance(queue)
        self._call(woken)
        return place

    def waiting(self, name: str) -> tuple[int, int]:
        """How many are ready, and how many wait."""
        with self._lock:
            queue = self._queues.get(name)
            return (queue.active, sum(not place._left for *_, place in queue.waiting)) if queue else (0, 0)

    def _leave(self, place: Place) -> None:
        with self._lock:
            if place._left:
                return
            place._left = True
            queue = place._queue
            if place.ready:
                queue.active -= 1
            woken = self._advance(queue)
            if not queue.active and not queue.waiting:
                self._queues.pop(queue.name, None)
        self._call(woken)

    def _advance(self, queue: _Queue) -> list[Callable[[], None]]:
        """Make ready whoever may go; returns what to call once the lock is free."""
        woken = []
        while queue.waiting and (queue.waiting[0][2]._left or queue.active < queue.limit):
            place = heapq.heappop(queue.waiting)[2]
            if place._left:
                continue
            queue.active += 1
            place.ready = True
            if place._callback is not None:
                woken.append(place._callback)
        return woken

    @staticmethod
    def _call(woken: list[Callable[[], None]]) -> None:
        for callback in woken:
            callback()
