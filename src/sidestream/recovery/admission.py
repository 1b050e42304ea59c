"""Whether a call may go on now: its turn, its place among the process's attempts. Pure.

Strategy: before each attempt the flow asks here. A call stands in a queue where its task or its route allows
only so many at once, and the endpoint's budgets and breaker have a word on every attempt (`origins`). What is
held here, a turn, a place and a permit, is given back once, whatever becomes of the call. A refusal is a
`Denied`, and a fault of kind WITHHELD once it is final. Nothing waits here: the flow yields the waits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..route import Scope
from .actions import Call, Queue
from .faults import Fault, FaultKind
from .origins import Denied, Origins, Permit, Stream
from .queues import Place, Queues
from .routing import Routing
from .rungs import Step

__all__ = ["Admission"]

# A recovery that has to wait for its place asks again after at most this: others may bring good news.
_ASK_AGAIN = 4.0


class Admission:
    """The turns, places and permits of one call.

    Args:
        deadline: call time by which everything is over; `wall` is Unix time minus call time.
        random: draws from [0, 1).

    Attributes:
        denied: the last word of a limit that forbade an attempt for good.
    """

    def __init__(
        self,
        call: Call,
        routing: Routing,
        origins: Origins,
        queues: Queues,
        *,
        deadline: float,
        wall: float,
        random: Callable[[], float],
    ) -> None:
        self._call = call
        self._routing = routing
        self._origins = origins
        self._queues = queues
        self._deadline = deadline
        self._wall = wall
        self._random = random
        self._turn: Place | None = None  # of the task, for the whole call
        self._place: Place | None = None  # at the route that is asked
        self._permit: Permit | None = None
        self.denied: Denied | None = None

    # Its turn.

    def enter_task(self, now: float) -> Queue | None:
        """Stand in the queue of the call's task, once; the wait, if any, bounded by the call."""
        call = self._call
        if call.concurrency is None or self._turn is not None:
            return None
        self._turn = self._queues.enter(f"task {call.task}", call.concurrency, call.priority)
        return self._wait(self._turn, self._deadline - now)

    def enter_route(self, now: float) -> Queue | None:
        """The same at the route that is asked. Bounded by its share of the call."""
        route = self._routing.route
        if route.concurrency is None or self._place is not None:
            return None
        name = " ".join(route.part("route"))
        self._place = self._queues.enter(name, route.concurrency, self._call.priority)
        return self._wait(self._place, self._routing.turn(now))

    @staticmethod
    def _wait(place: Place | None, seconds: float) -> Queue | None:
        return None if place is None or place.ready else Queue(place, max(0.0, seconds))

    def no_turn(self, now: float) -> Fault | None:
        """Why the call may not go on: nobody left in time, or too many wait."""
        route = self._routing.route
        if self._call.concurrency is not None and not (self._turn and self._turn.ready):
            reason = f"no turn came up among the calls of task {self._call.task}"
            return self.withheld(Denied("queue", reason, None), now, "request")
        if route.concurrency is not None and not (self._place and self._place.ready):
            self.leave_route()
            return self.withheld(Denied("queue", f"no turn came up at {route.name}", None), now)
        return None

    # Its place among the attempts of this process.

    def ask(self, step: Step) -> Denied | None:
        """Ask for one."""
        if step.rung == "send":
            return self._origins.admit(self._routing.route)
        self._free()
        answer = self._origins.recover(self._routing.route)
        if isinstance(answer, Denied):
            return answer
        self._permit = answer
        return None

    def patience(self, denied: Denied, step: Step, waited: float, now: float) -> float | None:
        """Seconds to wait before asking again; None to give up on it."""
        if denied.retry_in is None or step.rung == "send" or self._routing.following(_fault(denied)):
            return None
        seconds = min(denied.retry_in, _ASK_AGAIN) * (0.5 + self._random())  # not all at once
        if waited + seconds > self._call.policy.queue or now + seconds >= self._deadline:
            return None
        return seconds

    def withheld(self, denied: Denied, now: float, about: Scope | None = None) -> Fault:
        """The fault of a refusal that is final; `about` if it speaks of more than its budget does."""
        self.denied = denied
        fault = _fault(denied).at(now + self._wall)
        return replace(fault, about=about or fault.about)

    def began(self) -> Stream:
        """The attempt that was allowed goes out."""
        permit, self._permit = self._permit, None
        return self._origins.began(self._routing.route, permit)

    # The end.

    def leave_route(self) -> None:
        """Another route is asked: the place at this one is free."""
        if self._place is not None:
            self._place.leave()
            self._place = None

    def leave(self) -> None:
        """The call is over, in whatever way: all it held is free."""
        self._free()
        self.leave_route()
        if self._turn is not None:
            self._turn.leave()

    def _free(self) -> None:
        if self._permit is not None:
            self._permit.release()
            self._permit = None


def _fault(denied: Denied) -> Fault:
    return Fault(FaultKind.WITHHELD, denied.reason, retry_after=denied.retry_in, about=_SHUT[denied.budget])


# What is shut while one of our own limits says no.
_SHUT: dict[str, Scope] = {"breaker": "model", "origin": "endpoint", "busy": "endpoint", "queue": "route"}
