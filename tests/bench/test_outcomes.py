"""What a call is worth to its user, and how the matrix tells it: the pure half of bench/outcomes.py."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
TEXT = "The Nile is long."


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Any]:
    """The module; it and what it imports are found by their plain names, and forgotten afterwards."""
    before, path = set(sys.modules), list(sys.path)
    sys.path.insert(0, str(BENCH))
    try:
        yield importlib.import_module("outcomes")
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCH)):
                del sys.modules[name]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"text": TEXT, "whole": True}, "whole"),
        ({"text": TEXT, "whole": False}, "unmarked"),
        ({"text": "The Nile", "whole": False}, "partial"),
        ({"text": "", "whole": False}, "partial"),
        ({"text": "The Nile", "whole": True}, "short"),
        ({"text": "", "whole": True}, "short"),
        ({"text": "The The Nile is long.", "whole": True}, "wrong"),
        ({"text": "The The Nile", "whole": False}, "wrong"),
        ({"text": "", "whole": False, "error": "Dropped", "kept": "The Nile"}, "kept"),
        ({"text": "", "whole": False, "error": "Dropped", "kept": ""}, "error"),
        ({"hang": True, "seconds": 15.0}, "hang"),
    ],
)
def test_an_answer_is_judged_by_what_the_user_has_in_hand(
    outcomes: Any, answer: dict[str, Any], expected: str
) -> None:
    """What counts is the text, whether it is said to be whole, and what an error carries."""
    assert outcomes.judged({"error": "", "kept": "", **answer}, TEXT) == expected


def test_every_outcome_has_a_symbol_a_meaning_a_name_and_a_colour(outcomes: Any) -> None:
    """No outcome can come that a table or a figure does not know."""
    tables = (outcomes.SYMBOLS, outcomes.MEANINGS, outcomes.NAMES, outcomes.COLOURS)
    assert {frozenset(table) for table in tables} == {frozenset(outcomes.Class.__args__)}


def test_half_an_answer_called_whole_is_loud_and_what_did_not_apply_is_empty(outcomes: Any) -> None:
    """Tables are made from the record alone, and count only what applied."""
    table = outcomes.tables(record(outcomes))
    assert "| a peer | ✓ | **½!** 2 |  |" in table
    assert "| a peer | 1 |  |  |  |  |  | 1 |  | 1.50 | 0.75 | 0.30 | 0.4 |" in table
    assert "left out: absent." in table


def test_a_peer_is_the_same_kind_of_thing_in_every_part(outcomes: Any) -> None:
    """Names are unique, those the matrix mentions exist, and every peer has its child."""
    names = [peer.name for peer in outcomes.PEERS]
    assert len(set(names)) == len(names)
    assert outcomes.LEFT_OUT | outcomes.UNSTREAMED | set(outcomes.SMOKE) <= set(names)
    children = {path.stem for path in (BENCH / "children").glob("*.py")}
    assert {peer.child for peer in outcomes.PEERS} <= children


def record(outcomes: Any) -> dict[str, Any]:
    """Three cells of one peer."""
    cells = [
        outcomes.Cell("a peer", "no fault", False, "whole", 17, 1, 4, 0.2),
        outcomes.Cell("a peer", "end", False, "short", 8, 2, 2, 0.4),
        outcomes.Cell("a peer", "gzip cut", False, "whole", 17, 1, 4, 0.2, applies=False),
    ]
    return {
        "tokens": 4,
        "columns": ["no fault", "end", "gzip cut"],
        "always": [],
        "peers": {"a peer": {"settings": "as it comes", "wire": "chat", "ours": False}},
        "skipped": ["absent"],
        "failed": {},
        "cells": [asdict(cell) for cell in cells],
    }
