"""One thread that ends the reads of an httpx connection when a call's clock runs out.

Our own connections ask the clock before each read; a read inside httpx cannot. So the owner of a response
asks the watchdog to look after it. The thread sleeps until the earliest limit, looks whether it has moved (it
moves with every output) and, if it has not, shuts the socket down; the owner, whose read ends, then closes.
A limit that comes nearer wakes it, if it would sleep longer. Without anything to watch it sleeps a while, so
that the next call need not start another thread, and then ends. A fork's child has none and starts its own.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ..net.common import Severable
from ..net.sync import Watch

__all__ = ["WATCHDOG", "Watchdog"]


@dataclass(eq=False, slots=True)
class Entry:
    """One response under watch; `rang` once its time was up."""

    watch: Watch
    stream: Severable
    over: bool = False
    rang: bool = False


class Watchdog:
    """Looks after any number of responses with one thread, which lives while there are some, and a little
    longer."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: after a fork the thread, and what it watched, are the parent's."""
        self._changed = threading.Condition()
        self._queue: list[tuple[float, int, Entry]] = []
        self._ticks = itertools.count()
        self._running = False
        self._wakes = 0.0  # the monotonic instant until which the thread sleeps

    @contextlib.contextmanager
    def guard(self, watch: Watch, stream: Severable) -> Iterator[Entry]:
        """While inside, `stream` is severed when the watch's meter is due."""
        entry = Entry(watch, stream)
        watch.hurry = lambda: self._add(entry)
        self._add(entry)
        try:
            yield entry
        finally:
            watch.hurry = None
            with self._changed:
                entry.over = True

    def _add(self, entry: Entry) -> None:
        """Look after an entry from now on, or sooner than was planned."""
        with self._changed:
            left = self._left(entry)
            self._plan(entry, left)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="sidestream-watchdog", daemon=True).start()
            elif time.monotonic() + left < self._wakes:
                self._changed.notify()

    def _plan(self, entry: Entry, left: float) -> None:
        heapq.heappush(self._queue, (entry.watch.clock.real() + left, next(self._ticks), entry))

    @staticmethod
    def _left(entry: Entry) -> float:
        meter, clock = entry.watch.meter, entry.watch.clock
        return 0.0 if meter is None else meter.due - clock.now()

    def _run(self) -> None:
        with self._changed:
            while True:
                while self._queue and self._queue[0][2].over:
                    heapq.heappop(self._queue)
                if not self._queue:
                    self._sleep(_KEPT)
                    if self._queue:
                        continue
                    self._running = False
                    return
                at, _, entry = self._queue[0]
                wait = at - entry.watch.clock.real()
                if wait > 0:
                    self._sleep(min(wait, _LONGEST))
                else:
                    heapq.heappop(self._queue)
                    self._look(entry)

    def _sleep(self, seconds: float) -> None:
        """Until then, or until a limit comes nearer."""
        self._wakes = time.monotonic() + seconds
        self._changed.wait(seconds)

    def _look(self, entry: Entry) -> None:
        """An entry's time is up, unless it has moved."""
        paused = entry.watch.clock.paused
        left = _WHILE_PAUSED if paused else self._left(entry)
        if left > 0:
            self._plan(entry, left)
        elif not entry.rang:
            entry.rang = True
            entry.stream.sever()  # under the lock: a connection that was given back is somebody else's


_LONGEST = 60.0
# How soon to look again at a call whose consumer has the stream: its clock stands still.
_WHILE_PAUSED = 1.0

# How long the thread waits for something to watch.
_KEPT = 10.0

WATCHDOG = Watchdog()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WATCHDOG.forget)
