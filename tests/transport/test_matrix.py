"""Every call of the installed SDKs against every fault of the lab: wrapped, nothing is short, half, twice."""

from __future__ import annotations

import json
from typing import Any

import matrix
import openai
import pytest
from make_sdks import COUNTS, GROUPS, PAGE, SIGNS, page
from matrix import Seen

from sidestream.lab import KINDS, Fault

NEWEST: dict[str, Any] = json.loads(COUNTS.read_text(encoding="utf-8"))["newest"]


@pytest.mark.parametrize("colour", matrix.COLOURS)
@pytest.mark.parametrize("shape", matrix.SHAPES, ids=lambda shape: shape.name)
def test_a_wrapped_client_finishes_or_says_so(shape: matrix.Shape, colour: str) -> None:
    """Struck once, the answer comes whole; struck every time, the SDK's own error has the partial."""
    results = matrix.matrix(shape, colour)
    assert matrix.broken_promises(results) == []
    assert sum(result.cell.wrapped for result in results) > 50
    if matrix.versions() == NEWEST["sdks"]:
        kept = NEWEST["rows"][shape.name][colour]
        assert matrix.steady(matrix.counted(results)) == matrix.steady(kept)


HALF_OF_IT = {0: [matrix.NAME, '{"city": "Pa']}
ALL_OF_IT = [matrix.NAME, json.dumps(matrix.ARGUMENTS)]


@pytest.mark.parametrize(
    ("answer", "seen", "mark"),
    [
        ("text", Seen(matrix.TEXT, ended=True), "whole"),
        ("text", Seen(matrix.TEXT), "short"),
        ("text", Seen(matrix.TEXT[:40], ended=True), "short"),
        ("text", Seen(matrix.TEXT, ended=True, final=(matrix.TEXT[:9], [])), "short"),
        ("text", Seen(matrix.TEXT[:40] + matrix.TEXT[30:], ended=True), "twice"),
        ("text", Seen(matrix.TEXT[:40], error=ValueError()), "foreign"),
        ("text", Seen(matrix.TEXT[:40], error=openai.OpenAIError()), "error"),
        ("text", Seen(matrix.TEXT[:40], told=True), "error"),
        ("call", Seen(matrix.BEFORE, {0: ALL_OF_IT}, ended=True), "whole"),
        ("call", Seen(matrix.BEFORE, {0: ALL_OF_IT, 1: ALL_OF_IT}, ended=True), "twice"),
        ("call", Seen(matrix.BEFORE, HALF_OF_IT, ended=True), "half"),
        ("call", Seen(matrix.BEFORE, HALF_OF_IT, error=openai.OpenAIError()), "half"),
        ("call", Seen(matrix.BEFORE, ended=True), "short"),
    ],
)
def test_a_run_counts_as_the_worst_that_happened(answer: str, seen: Seen, mark: str) -> None:
    """What reached the program decides, not how it ended alone."""
    strike = matrix.Strike(Fault.cut(), "at the end")
    cell = matrix.Cell(matrix.SHAPES[0], "sync", answer, strike, wrapped=False)
    assert matrix.mark(cell, seen, hung=False) == mark
    assert matrix.mark(cell, seen, hung=True) == "hang"


@pytest.mark.parametrize("age", ["newest", "oldest"])
def test_the_matrix_can_fail(age: str) -> None:
    """The same check finds every kind of trouble in the bare SDKs, so that it would find ours."""
    rows = json.loads(COUNTS.read_text(encoding="utf-8"))[age]["rows"]
    found = [
        row["bare"]
        for call in rows.values()
        for faults in call.values()
        for row in faults.values()
        if "bare" in row
    ]
    assert {mark for row in found for mark in row} >= set(SIGNS) - {"twice"}


def test_every_fault_of_the_lab_is_struck() -> None:
    """A fault that the lab learns has to be given a place here, and one in a group of the page."""
    shape = matrix.SHAPES[0]
    struck = {cell.strike.fault.kind for cell in matrix.cells(shape, "sync")}
    assert struck == set(KINDS)
    assert {kind for group in GROUPS.values() for kind in group} == {str(kind) for kind in KINDS}


def test_the_page_is_current() -> None:
    """docs/sdks.md shows what was counted: `python tests/transport/make_sdks.py` makes it so."""
    assert PAGE.read_text(encoding="utf-8") == page()
