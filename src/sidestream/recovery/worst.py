"""The worst a call can come to, known before it is made: its time, and how often providers are asked. Pure.

Strategy: the numbers follow from the call alone. Its total bounds every attempt, wait and continuation. The
ladder takes so many recoveries, whichever routes they go to. Beside them a route is asked again at once where
that mends the request: without a field it rejects, with a smaller limit, on another wire, with a renewed key;
each of these once, so that their number is bounded, too. A response in the background is looked at in growing
intervals. Tests play calls against this that do their worst.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import get_args

from ..route import Route, Wire
from .actions import Call
from .flow import poll_delay

__all__ = ["Worst", "worst_of"]


@dataclass(frozen=True, slots=True)
class Worst:
    """The bounds of a call.

    Attributes:
        seconds: until it has ended, in whatever way; the time a consumer takes does not count.
        attempts: the first request, and one for each recovery.
        mending: further requests if everything that can be mended has to be.
        polls: looks at a response in the background.
    """

    seconds: float
    attempts: int
    mending: int
    polls: int = 0

    @property
    def requests(self) -> int:
        """All of them together. What cancels a job in the background comes on top."""
        return self.attempts + self.mending + self.polls


def worst_of(call: Call) -> Worst:
    """The bounds of this call."""
    attempts = 1 + call.policy.recoveries
    mending = heapq.nlargest(attempts, (_mending(route, call) for route in call.routes))
    return Worst(call.timeouts.total, attempts, sum(mending), _polls(call))


def _mending(route: Route, call: Call) -> int:
    """How often this route is asked again at once, at most."""
    if not call.policy.recoveries:
        return 0
    renewals = 1 if route.credential is not None else 0
    if call.original is not None:
        return renewals
    fields = {*call.request.params, *route.params, "max_output_tokens"}  # the last for one smaller limit
    other_wires = len(get_args(Wire)) - 1 if route.guessed else 0
    return renewals + len(fields) + 1 + other_wires


def _polls(call: Call) -> int:
    fields = [call.request.params, *(route.params for route in call.routes)]
    if not any(params.get("background") is True for params in fields):
        return 0
    waited, polls = 0.0, 0
    while waited < call.timeouts.total and polls < _MOST_COUNTED:
        polls += 1
        waited += poll_delay(polls)
    left = max(0.0, call.timeouts.total - waited)
    return polls + math.ceil(left / poll_delay(polls))


_MOST_COUNTED = 1000  # from there on they are all alike
