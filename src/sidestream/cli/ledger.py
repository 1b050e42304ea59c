"""The ledger of a call as lines of text: what every HTTP exchange took, and all of them together.

Pure. Where the table does not fit, the route is shortened first; where even that is too wide, each exchange
becomes a line of words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..reply import Attempt

__all__ = ["ledger"]

_HEAD = ("attempt", "route", "rung", "ended", "tokens", "kept", "wasted", "seconds")
_NUMBERS = 4  # from this column on, aligned to the right
_GAP = "  "
_SHORTEST_ROUTE = 8
_ESTIMATED = "~ estimated from the text, four characters to a token"


def ledger(attempts: Iterable[Attempt], width: int | None = None) -> list[str]:
    """The lines, headline first; none without attempts. `width` in characters, None if it does not matter."""
    rows = list(attempts)
    if not rows:
        return []
    cells = [_cells(str(number), row) for number, row in enumerate(rows, 1)]
    if len(rows) > 1:
        cells.append(("all", "", "", "", *_sums(rows)))
    excess = sum(_widths([_HEAD, *cells])) + len(_GAP) * (len(_HEAD) - 1) - width if width else 0
    longest = max(len(row.route) for row in rows)
    if excess <= 0:
        lines = _table(cells)
    elif longest - excess >= _SHORTEST_ROUTE:
        lines = _table([(n, _shortened(route, longest - excess), *rest) for n, route, *rest in cells])
    else:
        lines = ["attempts:", *map(_sentence, cells)]
    return lines if all(row.reported or not row.tokens for row in rows) else [*lines, _ESTIMATED]


def _cells(number: str, row: Attempt) -> tuple[str, ...]:
    return (number, row.route, row.rung, row.ended, *_sums([row]))


def _sums(rows: Sequence[Attempt]) -> tuple[str, ...]:
    """Tokens, kept, wasted and seconds; estimates are marked."""

    def total(counts: Iterable[tuple[int, bool]]) -> str:
        counted = [(count, reported) for count, reported in counts if count]
        about = "" if all(reported for _, reported in counted) else "~"
        return f"{about}{sum(count for count, _ in counted)}"

    return (
        total((row.tokens, row.reported) for row in rows),
        total((row.kept, row.reported) for row in rows),
        total((row.wasted, row.reported) for row in rows),
        f"{sum(row.seconds for row in rows):.2f}",
    )


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _table(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = _widths([_HEAD, *cells])
    return [
        _GAP.join(
            cell.rjust(width) if column >= _NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (_HEAD, *cells)
    ]


def _sentence(cells: Sequence[str]) -> str:
    number, _, rung, ended, tokens, kept, _, seconds = cells
    what = f"{number} {rung} → {ended}" if rung else number
    return f"{what}, {kept} of {tokens} tokens kept, {seconds} s"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
