"""What a flow and its driver say to each other, and the call they speak of: values. Pure.

Strategy: an action is answered with one of the outcomes its docstring names; both are frozen and hold no
socket, clock or thread. `Call` is what the caller asked, once. Not here: what any of them leads to (flow.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field

from ..errors import NoRoute
from ..route import Route
from ..wire.events import Recovering
from ..wire.prompt import Request
from ..wire.sse import Limits
from .clocks import Clocks, Timeouts
from .exchange import Exchange
from .faults import Fault
from .policy import Policy
from .queues import Place

if TYPE_CHECKING:
    from ..relay.base import Original, Relay  # loaded with the first SDK: nobody else has a use for them

__all__ = [
    "Action",
    "Broke",
    "Call",
    "Dismiss",
    "Ended",
    "Outcome",
    "Queue",
    "Rejected",
    "Renew",
    "Renewed",
    "Send",
    "Sleep",
    "Stopped",
    "Tell",
    "Woke",
]

# What the flow asks of its driver.


class Send(Struct, frozen=True):
    """Make one HTTP exchange with `route`, push the answer through `exchange`, within `clocks`: a POST of
    `body` to the route's own target, or a GET of another `target`. Answered with Ended, Broke, Rejected or
    Stopped."""

    route: Route
    body: bytes
    clocks: Clocks
    exchange: Exchange
    target: str = ""


class Sleep(Struct, frozen=True):
    """Wait so many seconds. Answered with Woke or Stopped."""

    seconds: float


class Queue(Struct, frozen=True):
    """Wait until `place` is ready, so many seconds at most. Answered with Woke or Stopped."""

    place: Place
    seconds: float


class Renew(Struct, frozen=True):
    """Have the route's credential find another key, in so many seconds at most. Answered with Renewed or
    Stopped."""

    route: Route
    seconds: float


class Tell(Struct, frozen=True):
    """Pass a notice on to whoever listens. Answered with Woke or Stopped."""

    notice: Recovering


class Dismiss(Struct, frozen=True):
    """The call was stopped: tell the provider to stop the job at `target`, whatever it answers. Answered with
    Woke."""

    route: Route
    target: str


# What the driver answers. `at` is call time in seconds.


class Ended(Struct, frozen=True):
    """The body ended cleanly, or the answer is over and nobody read on."""

    at: float


class Broke(Struct, frozen=True):
    """The exchange broke, or a clock ran out."""

    fault: Fault
    at: float


@dataclasses.dataclass(frozen=True, slots=True)
class Rejected:
    """The answer was not a 2xx. Header names are lower case; the body may be cut short. Neither shows in a
    repr: some providers quote the credential."""

    status: int
    headers: Mapping[str, str] = dataclasses.field(repr=False)
    body: bytes = dataclasses.field(repr=False)
    at: float


class Renewed(Struct, frozen=True):
    """What came of a `Renew`: the route with another key, or None and why not."""

    route: Route | None
    why: str
    at: float


class Woke(Struct, frozen=True):
    """The wait is over, the notice is passed on."""

    at: float


class Stopped(Struct, frozen=True):
    """The caller wants no more."""

    kind: Literal["cancel", "interrupt"]
    at: float


Action = Send | Sleep | Queue | Renew | Tell | Dismiss
Outcome = Ended | Broke | Rejected | Renewed | Woke | Stopped


class Call(Struct, frozen=True):
    """What the caller asked, once, and within which limits.

    Attributes:
        live: whether a consumer reads along.
        strict: that consumer cannot be told that the answer begins anew: fail rather than do that.
        original: the request as somebody else's client wrote it, to be sent as it is.
        relay: makes that client's stream of what arrives.
        empty_is_failure: treat a complete but empty answer as a fault.
        task: the side task it is for, "" for none.
        concurrency: calls of that task that may be under way at once, None for any number.
        priority: who goes first where calls wait for their turn; smaller is sooner.
        skipped: routes that are configured and were left out, with why, for people.
        nowhere: why there are no routes, if there are none.
    """

    request: Request
    routes: tuple[Route, ...]
    timeouts: Timeouts = field(default_factory=Timeouts)
    policy: Policy = field(default_factory=Policy)
    live: bool = False
    strict: bool = False
    original: Original | None = None
    relay: Relay | None = None
    empty_is_failure: bool = False
    limits: Limits = field(default_factory=Limits)
    task: str = ""
    concurrency: int | None = None
    priority: int = 0
    skipped: tuple[str, ...] = ()
    nowhere: NoRoute | None = None
