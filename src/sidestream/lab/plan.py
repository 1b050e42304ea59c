"""Which faults hit which attempt. A plan is a value and a pure function of the attempt number.

A hazard draws from a generator of its own, seeded with the plan's seed and the attempt number, so a failing
run can be played again and two attempts never depend on each other's timing.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UsageError
from .faults import Fault, Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Entry", "Plan"]

Entry = Fault | tuple[Fault, ...] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Which faults hit which attempt: `Plan([Fault.cut(after_event=3)])` cuts the first and lets the rest be.

    An entry is one fault, a tuple of faults that act together, or None. Attempts are requests to a model
    endpoint, counted from 0.

    Attributes:
        entries: the faults of attempt 0, 1, 2 …
        rest: the faults of every attempt after those.
        p: probability per event with which the positioned fault of `rest` strikes; 0: at its own position.
        seed: fixes the draws, together with the attempt number.
    """

    entries: Sequence[Entry] = ()
    rest: tuple[Fault, ...] = ()
    p: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise UsageError(f"a probability lies between 0 and 1, not at {self.p}")
        object.__setattr__(self, "entries", tuple(_together(entry) for entry in self.entries))
        _together(self.rest)

    @classmethod
    def always(cls, *faults: Fault) -> Plan:
        """The same faults on every attempt."""
        return cls(rest=faults)

    @classmethod
    def hazard(cls, p: float, *, seed: int, fault: Fault | None = None, also: tuple[Fault, ...] = ()) -> Plan:
        """Before each event the fault strikes with probability `p`; the same seed strikes at the same events.

        Args:
            p: probability per event, 0 to 1.
            seed: together with the attempt number it fixes the position.
            fault: what strikes, by default `Fault.cut()`; its own position is ignored.
            also: faults of the whole stream that act on every attempt besides.
        """
        struck = fault or Fault.cut()
        if struck.row.phase is not Phase.AT:
            raise UsageError(f"{struck.kind} has no position to draw", hint="pass it as also=")
        return cls(rest=(struck, *also) if p else also, p=p, seed=seed)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Every fault this plan may bring, in order."""
        return (*(fault for entry in self.entries for fault in _together(entry)), *self.rest)

    def at(self, attempt: int) -> tuple[Fault, ...]:
        """The faults of attempt number `attempt`, from 0."""
        if attempt < len(self.entries):
            return _together(self.entries[attempt])
        if not self.p:
            return self.rest
        drawn = _first_hit(self.p, random.Random(f"{self.seed}:{attempt}"))
        return tuple(f.at(after_event=drawn) if f.row.phase is Phase.AT else f for f in self.rest)


def _together(entry: Entry) -> tuple[Fault, ...]:
    faults = () if entry is None else (entry,) if isinstance(entry, Fault) else tuple(entry)
    final = [fault for fault in faults if fault.row.phase in (Phase.BEFORE, Phase.AT)]
    if len(final) > 1:
        raise UsageError(
            f"{final[0].kind} and {final[1].kind} cannot both end one answer",
            hint="give them to two attempts of the plan",
        )
    return faults


def _first_hit(p: float, rng: random.Random) -> int:
    """How many events pass before the first hit: a geometric draw."""
    return 0 if p == 1 else int(math.log(1 - rng.random()) / math.log1p(-p))
