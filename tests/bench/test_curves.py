"""What a call counts as and how sure a figure is: the pure half of bench/curves.py."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
TEXT = "The Nile is long."


@pytest.fixture(scope="module")
def curves() -> Iterator[Any]:
    """The module; it and what it imports are found by their plain names, and forgotten afterwards."""
    before, path = set(sys.modules), list(sys.path)
    sys.path.insert(0, str(BENCH))
    try:
        yield importlib.import_module("curves")
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCH)):
                del sys.modules[name]


def point(name: str, way: str, x: float, came: list[str], generated: list[int]) -> dict[str, Any]:
    ones = [1] * len(came)
    columns = {"came": came, "asks": ones, "generated": generated, "requests": ones, "reread": ones}
    return {"name": name, "way": way, "x": x, **columns}


@pytest.mark.parametrize(
    ("text", "whole", "kept", "expected"),
    [
        (TEXT, True, "", "exact"),
        ("The Nile", True, "", "short"),
        ("", True, "", "short"),
        ("The Rhine", True, "", "wrong"),
        (TEXT + TEXT, True, "", "wrong"),
        ("The Nile", False, "", "kept"),
        ("", False, "The Nile", "kept"),
        ("", False, "", "lost"),
    ],
)
def test_only_the_very_answer_called_whole_is_exact(
    curves: Any, text: str, whole: bool, kept: str, expected: str
) -> None:
    """Exact is the answer itself, called whole; everything else has a name of its own."""
    answer = {"text": text, "whole": whole, "kept": kept}
    assert sys.modules["stand"].judged(answer, TEXT) == expected


def test_the_share_of_whole_streams_that_break_is_the_one_asked_for(curves: Any) -> None:
    """The risk per event of each wire comes to the share of whole streams."""
    stand = sys.modules["stand"]
    for wire in ("responses", "chat", "messages"):
        events = stand.events_of(stand.COUNTS[wire], 200)
        assert 1 - (1 - stand.risk(0.3, wire, 200)) ** events == pytest.approx(0.3)
    assert stand.risk(0.0, "chat", 200) == 0


def test_an_interval_of_a_share_is_not_empty_at_its_ends(curves: Any) -> None:
    """None and all of ten calls leave room for chance."""
    assert curves.wilson(10, 10) == (pytest.approx(0.7225, abs=1e-4), 1)
    assert curves.wilson(0, 10) == (pytest.approx(0), pytest.approx(0.2775, abs=1e-4))
    low, high = curves.wilson(5, 10)
    assert (low, high) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))


def test_the_cost_of_a_whole_answer_counts_what_failures_cost(curves: Any) -> None:
    """Tokens of failed calls are paid by the whole ones; without any there is no figure."""
    mixed = point("peer", "cut", 0.3, ["exact", "lost"] * 10, [100, 50] * 10)
    assert curves.cost(mixed, 100).value == 0.75
    assert curves.cost_of_whole(mixed, 100).value == 1.5
    assert math.isinf(curves.cost_of_whole(point("peer", "cut", 0.3, ["lost"], [50]), 100).value)


def test_intervals_are_the_same_for_the_same_record(curves: Any) -> None:
    """The bootstrap is seeded, so a page can be made again from its record."""
    mixed = point("peer", "cut", 0.3, ["exact", "lost"] * 10, [100, 50] * 10)
    assert curves.cost(mixed, 100) == curves.cost(mixed, 100)
    assert curves.cost(mixed, 100).low < 0.75 < curves.cost(mixed, 100).high


def test_a_restart_costs_nothing_more_where_nothing_breaks_and_grows_from_there(curves: Any) -> None:
    """The closed form is 1 at no risk and e - 1 at one break per answer."""
    assert curves.restart_form(1, 1_000_000) == pytest.approx(1)
    assert curves.restart_form(800, 800) == pytest.approx(math.e - 1)


def test_tables_name_every_peer_and_who_is_missing(curves: Any) -> None:
    """Tables come from the record alone and hide nobody; without growth there is no table of it."""
    points = [point("one", way, 0.3, ["exact", "short"], [200, 90]) for way in curves.WAYS]
    record = {
        "seed": 1, "tokens": 200, "prompt": 1000, "between": 800, "settings": {"one": "as it comes"},
        "skipped": ["two"], "points": points,
    }  # fmt: skip
    made = curves.tables(record)
    assert "| one | 50 [9, 91] |" in made
    assert "| one | as it comes |" in made
    assert "left out: two" in made
    assert "Cost growth: " not in made.split("- ")[0]
    assert "curves-growth" not in curves.plots(record)


def test_each_call_is_made_by_one_process(curves: Any) -> None:
    """Splitting calls among processes loses and repeats none."""
    for calls in (1, 4, 12, 61):
        parts = curves.split(calls, 6)
        assert sorted(number for part in parts for number in part) == list(range(calls))
