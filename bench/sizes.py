"""How long a part of the benchmarks runs, what it aims at, and its command line when it runs alone.

A part is a module with `NAME`, `measure(size)` and `tables(record)`, and if it has them `plots(record)` and
`targets(record)`. Its record holds every single figure and is JSON; the rest is made from the record alone,
so that a page can be made anew, and checked, without measuring again.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

Size = Literal["smoke", "short", "full"]
SIZES: tuple[Size, ...] = get_args(Size)


class Part(Protocol):
    """What `run_alone`, `bench/run` and `bench/report.py` ask of a part's module."""

    NAME: str

    def measure(self, size: Size) -> dict[str, Any]:
        """Every single figure. Says on stderr how far it is."""
        ...

    def tables(self, record: dict[str, Any]) -> str:
        """Markdown between the part's markers."""
        ...


@dataclass(frozen=True)
class Target:
    """An aim and what was measured: one line of the page's first table. `targets(record)` gives a list.

    Attributes:
        what: what is measured, with its unit.
        limit: at most this much, or at least.
        measured: what was measured; None where that was not possible.
        at_least: more is better.
    """

    what: str
    limit: float
    measured: float | None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """None: it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that every part has; the first line of `doc` describes it."""
    made = argparse.ArgumentParser(description=(doc or "").strip().partition("\n")[0])
    made.add_argument("--size", choices=SIZES, default="short", help="smoke: whether it runs; full: the page")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the record there")
    return made


def write(record: dict[str, Any], path: Path) -> None:
    """Write a record as the repository keeps it: one line for each of its fields."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in record.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def run_alone(module: str) -> int:
    """Be a part's `main`, given its `__name__`: measure, write the record, print the tables.

    A part with options besides these makes them with `parser`.
    """
    part = cast("Part", sys.modules[module])
    options = parser(sys.modules[module].__doc__).parse_args()
    record = part.measure(options.size)
    if options.json:
        write(record, options.json)
    print(part.tables(record))
    return 0
