"""What is printed of figures taken in rounds: medians, quartiles, ratios within a round; Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median


def per_round(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the rounds' own ratios: what disturbs a round disturbs both."""
    return median(a / b for a, b in zip(above, below, strict=True))


def quantile(figures: Sequence[float], share: float) -> float:
    """The figure that `share` of them do not exceed."""
    return sorted(figures)[min(len(figures) - 1, int(len(figures) * share))]


def spread(figures: Sequence[float], spec: str = ".1f") -> str:
    """The median and, in brackets, the quartiles."""
    low, high = quantile(figures, 0.25), quantile(figures, 0.75)
    return f"{median(figures):{spec}} ({low:{spec}}–{high:{spec}})"  # noqa: RUF001


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, its first column to the left."""
    lines = [list(heads), ["---", *["--:"] * (len(heads) - 1)], *map(list, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
