"""95 % confidence intervals: Wilson's for shares, a seeded bootstrap for means. `statistics` has neither."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean
from typing import TypeVar

Item = TypeVar("Item")

Z = NormalDist().inv_cdf(0.975)
RESAMPLES = 1000


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Where the probability lies, after `hits` of `n`; it holds for 0 and for n as well."""
    share, z2 = hits / n, Z * Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(
    items: Sequence[Item], figure: Callable[[Sequence[Item]], float], *, seed: int = 1
) -> tuple[float, float]:
    """Where `figure` lies if the items are drawn again and again from themselves."""
    rng = random.Random(seed)
    drawn = sorted(figure(rng.choices(items, k=len(items))) for _ in range(RESAMPLES))
    return drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES) - 1]


def of_mean(values: Sequence[float]) -> tuple[float, float]:
    """Where the mean lies."""
    return bootstrap(values, fmean)
