"""When waiting has been too long. Pure: the time arrives as data.

Strategy: all times here are *call time*, which a driver stops while the consumer has the stream, so that a
slow reader is never taken for a stalled provider. `Timeouts` is what the caller sets, `Clocks` what one
attempt gets, and a `Meter` follows the attempt: connect, then first output, then gaps between outputs, all
inside the total. Only output re-arms it; keep-alives, lifecycle events and empty deltas do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from ..errors import UsageError
from ..route import RouteClocks

__all__ = ["Clock", "Clocks", "Meter", "Timeouts"]

Clock = Literal["connect", "first", "idle", "total"]

# After the answer is over there may still come usage and an end marker, for this long.
LINGER = 1.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds of waiting for the provider; the consumer's own time does not count.

    Attributes:
        total: the whole call: every attempt, wait and continuation.
        first: from the request to the first output of an attempt. None: 90 s, plus a second for every
            2,000 characters of prompt.
        idle: between two outputs of an attempt.
        connect: until the connection stands, TLS included.

    Raises:
        UsageError: a value is not a finite number above 0 (`first` may be None).
    """

    total: float = 1800.0
    first: float | None = None
    idle: float = 60.0
    connect: float = 10.0

    def __post_init__(self) -> None:
        for name in ("total", "first", "idle", "connect"):
            value = getattr(self, name)
            if name == "first" and value is None:
                continue
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not math.isfinite(value)
                or value <= 0
            ):
                raise UsageError(
                    f"timeout.{name} is {value!r}",
                    hint="a timeout is a number of seconds above 0; there is no 'none'",
                )

    @classmethod
    def of(cls, value: Timeouts | float | None) -> Timeouts:
        """From what a caller passes as `timeout=`: total seconds, `Timeouts`, or None for the defaults."""
        if value is None:
            return cls()
        return value if isinstance(value, Timeouts) else cls(total=value)

    def clocks(
        self,
        now: float,
        deadline: float,
        prompt_chars: int,
        until: float = math.inf,
        own: RouteClocks | None = None,
    ) -> Clocks:
        """What an attempt starting now gets. Silence may last `until`, the end of this route's share, so that
        the last route always has its own; output is never cut short. The route's `own` clocks win."""
        own = own or RouteClocks()
        first = own.first or self.first or 90.0 + prompt_chars / 2000.0
        share = max(0.0, until - now)
        return Clocks(
            connect=min(own.connect or self.connect, share),
            first=min(first, share),
            idle=min(own.idle or self.idle, share),
            deadline=deadline,
            until=until,
        )


class Clocks(Struct, frozen=True):
    """Limits of one attempt: seconds, and two instants of call time: the call's deadline, and until when
    there may be no output at all."""

    connect: float
    first: float
    idle: float
    deadline: float
    until: float = math.inf


class Meter:
    """Follows one attempt.

    Attributes:
        due: the instant of call time at which waiting has been too long.
        clock: which clock that is.
    """

    __slots__ = ("_clocks", "_lingers", "_phase", "due")

    def __init__(self, clocks: Clocks, now: float) -> None:
        self._clocks = clocks
        self._lingers = False
        self._wait("connect", min(now + clocks.connect, clocks.until))

    @classmethod
    def of(cls, seconds: float, now: float) -> Meter:
        """Of something that takes so many seconds in all."""
        return cls(Clocks(seconds, seconds, seconds, now + seconds), now)

    def _wait(self, phase: Clock, limit: float) -> None:
        self._phase: Clock = phase
        self.due = min(limit, self._clocks.deadline)

    @property
    def clock(self) -> Clock:
        return self._phase if self.due < self._clocks.deadline else "total"

    def connected(self, now: float) -> None:
        """The connection stands; now the first output is awaited."""
        self._wait("first", min(now + self._clocks.first, self._clocks.until))

    def progress(self, now: float) -> None:
        """Output arrived."""
        self._lingers = False
        self._wait("idle", now + self._clocks.idle)

    def over(self, now: float) -> None:
        """The answer is over; only the end of the body is awaited. What else arrives prolongs nothing."""
        if not self._lingers:
            self._lingers = True
            self._wait("idle", now + min(LINGER, self._clocks.idle))

    def drain(self, now: float, seconds: float) -> None:
        """Nothing is awaited any more but the end of the body."""
        self._wait(self._phase, now + seconds)
