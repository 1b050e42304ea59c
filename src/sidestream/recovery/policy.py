"""How often, how long: the numbers of recovery, as frozen values. Pure.

Strategy: `Policy` holds the limits of one call, `Backoff` turns an attempt's number and a random draw into
seconds; nothing here sleeps or counts. Full jitter after Brooker (AWS, 2015): a crowd of clients that broke
together does not come back together. A provider's `Retry-After` is a floor under the jitter, not the delay.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import UsageError
from .faults import Fault, FaultKind

__all__ = ["Backoff", "Policy"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: uniform in [0, min(cap, base * 2**n)] seconds; `throttled_base` after a rate limit."""

    base: float = 0.5
    throttled_base: float = 1.0
    cap: float = 8.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(n) and n >= 0 for n in (self.base, self.throttled_base, self.cap)):
            raise UsageError("backoff times are finite numbers of seconds, 0 or more")

    def delay(self, fault: Fault, retry: int, random: Callable[[], float]) -> float:
        """Seconds before the `retry`-th retry (0 is the first); `random()` draws from [0, 1)."""
        base = self.throttled_base if fault.kind is FaultKind.THROTTLED else self.base
        return (fault.retry_after or 0.0) + random() * min(self.cap, base * 2.0 ** min(retry, 16))


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits of one call.

    Attributes:
        tries: attempts in a row without progress on one route, before the next route (default 2).
        recoveries: recoveries in all; 0 means detect and report, without a further request (default 8).
        longest_wait: seconds of `Retry-After` that are still waited for (default 120); a longer one ends
            the route at once, and the error says when to come back.
        patience: with another route configured, seconds of `Retry-After` worth waiting for on this one.
        queue: seconds a recovery may wait for its place while too much fails at an endpoint (default 20).
        backoff: the waiting between attempts.
        extra_output: output tokens that may be thrown away, as a multiple of the call's output limit, or of
            32,000 tokens if it has none (default 1.0).
        max_cost: money the whole call may take, in the currency of the routes' prices; None: no such limit.
            It holds back recoveries, not the first attempt, and needs routes with prices.
    """

    tries: int = 2
    recoveries: int = 8
    longest_wait: float = 120.0
    patience: float = 8.0
    queue: float = 20.0
    backoff: Backoff = field(default_factory=Backoff)
    extra_output: float = 1.0
    max_cost: float | None = None

    def __post_init__(self) -> None:
        caps = (self.extra_output, 0.0 if self.max_cost is None else self.max_cost)
        if not all(math.isfinite(cap) and cap >= 0 for cap in caps):
            raise UsageError("extra_output and max_cost are finite numbers, 0 or more")
        if not 1 <= self.tries <= 100 or not 0 <= self.recoveries <= 100:
            raise UsageError("tries is 1 to 100 and recoveries is 0 to 100: there is no retrying for ever")
        waits = (self.longest_wait, self.queue)
        if not all(math.isfinite(wait) and wait >= 0 for wait in waits) or not self.patience >= 0:
            raise UsageError("waiting times are finite numbers of seconds, 0 or more")
