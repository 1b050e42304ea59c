"""The ledger of a call as lines of text: what every HTTP exchange took, and all of them together.

Strategy: a column of figures is a function of rows, one row or all of them, so the last line is made as the
others are. Columns that would be empty are left out. Where the table does not fit, the route is shortened
first; where even that is too wide, each exchange becomes a line of words. What nobody knows is "?", a sum
that lacks such a part "≥", an estimate "~". Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..reply import Attempt

__all__ = ["ledger"]

Rows = Sequence[Attempt]

_WORDS = ("attempt", "route", "rung", "ended")  # aligned to the left, figures to the right
_FIGURES: dict[str, Callable[[Rows], str]] = {
    "tokens": lambda rows: _sum((row.tokens, row) for row in rows),
    "kept": lambda rows: _sum((row.kept, row) for row in rows),
    "wasted": lambda rows: _sum((row.wasted, row) for row in rows),
    "reread": lambda rows: _sum((row.reread, row) for row in rows),
    "cost": lambda rows: _sum(((row.cost, row) for row in rows), "{:.4f}"),
    "seconds": lambda rows: f"{sum(row.seconds for row in rows):.2f}",
}
_RARE: dict[str, Callable[[Attempt], bool]] = {
    "reread": lambda row: bool(row.reread),
    "cost": lambda row: row.cost is not None,
}
_GAP = "  "
_SHORTEST_ROUTE = 8
_NOTES = {
    "~": "~ estimated from the text, four characters to a token",
    "?": "? nobody knows",
    "≥": "≥ without what nobody knows",
}


def ledger(attempts: Iterable[Attempt], width: int | None = None) -> list[str]:
    """The lines, headline first; none without attempts. `width` in characters, None if it does not matter."""
    rows = list(attempts)
    if not rows:
        return []
    figures = [name for name in _FIGURES if name not in _RARE or any(map(_RARE[name], rows))]
    head = (*_WORDS, *figures)
    cells = [
        (str(number), row.route, row.rung, row.ended, *(_FIGURES[name]([row]) for name in figures))
        for number, row in enumerate(rows, 1)
    ]
    if len(rows) > 1:
        cells.append(("all", "", "", "", *(_FIGURES[name](rows) for name in figures)))
    excess = sum(_widths([head, *cells])) + len(_GAP) * (len(head) - 1) - width if width else 0
    longest = max(len(row.route) for row in rows)
    if excess <= 0:
        lines = _table([head, *cells])
    elif longest - excess >= _SHORTEST_ROUTE:
        short = [(n, _shortened(route, longest - excess), *rest) for n, route, *rest in cells]
        lines = _table([head, *short])
    else:
        lines = ["attempts:", *(_sentence(dict(zip(head, row, strict=True))) for row in cells)]
    said = "".join(figure for row in cells for figure in row[len(_WORDS) :])
    return [*lines, *(note for mark, note in _NOTES.items() if mark in said)]


def _sum(counts: Iterable[tuple[float | None, Attempt]], form: str = "{}") -> str:
    """All of these together, marked by how well they are known."""
    counted = list(counts)
    known = [(count, row) for count, row in counted if count is not None]
    if not known:
        return "?"
    mark = "~" if any(count and row.confidence != "reported" for count, row in known) else ""
    return ("≥" if len(known) < len(counted) else mark) + form.format(sum(count for count, _ in known))


def _widths(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _table(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = _widths(cells)
    return [
        _GAP.join(
            cell.rjust(width) if column >= len(_WORDS) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _sentence(cells: dict[str, str]) -> str:
    what = f"{cells['attempt']} {cells['rung']} → {cells['ended']}" if cells["rung"] else cells["attempt"]
    more = "".join(f", {name} {cells[name]}" for name in _RARE if name in cells)
    return f"{what}, {cells['kept']} of {cells['tokens']} tokens kept{more}, {cells['seconds']} s"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
