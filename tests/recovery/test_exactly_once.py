"""Exactly once, over random calls: `world` runs them and checks the promises at every step.

Every run plays the same seeds, `SIDESTREAM_SEEDS` of them (20,000) from `SIDESTREAM_FIRST_SEED` (0) on; more
of them, or others, are for a nightly run. A failure shows its scenario, its story and the line that repeats
it. The hypothesis test below draws its own and shrinks what it finds.
"""

import os
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from provider import BREAKS, Strike
from world import DELIVERIES, Scenario, draw, play

from sidestream.recovery.policy import Policy

SEEDS = int(os.environ.get("SIDESTREAM_SEEDS", "20000"))
FIRST = int(os.environ.get("SIDESTREAM_FIRST_SEED", "0"))
BLOCKS = 20
RUNGS = ("send", "reconnect", "prefill", "anchor", "restart", "reroute")


@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_seed_keeps_every_promise(block: int) -> None:
    """Whatever breaks, in whatever order: one whole answer once, or a typed error with its beginning."""
    for seed in range(FIRST + block, FIRST + SEEDS, BLOCKS):
        play(seed)


@given(st.randoms(use_true_random=False), st.integers(0, 2**32))
@settings(max_examples=100)
def test_any_scenario_keeps_every_promise(numbers: random.Random, seed: int) -> None:
    """The same over scenarios that hypothesis draws, and makes small when one fails."""
    play(seed, draw(numbers, seed))


def test_the_same_seed_tells_the_same_story() -> None:
    """Time and randomness come from outside: a seed is all that is needed to see a failure again."""
    for seed in range(FIRST, FIRST + 40):
        assert play(seed).story == play(seed).story


def test_every_break_meets_every_rung() -> None:
    """Sometimes: each break strikes an attempt of each rung in each delivery, and each ending is reached."""
    struck: Counter[tuple[str, str, str]] = Counter()
    ends: Counter[tuple[str, str]] = Counter()
    taken: Counter[tuple[str, str]] = Counter()
    for seed in range(4000):
        world = play(seed, _even(seed))
        struck.update(world.cells)
        ends.update(world.ends)
        taken.update(world.taken)
    print(_table("rung of the attempt", RUNGS, BREAKS, struck))  # noqa: T201 - the report of this test
    print(_lines("ends", ends))  # noqa: T201
    print(_lines("after", taken))  # noqa: T201
    print("fewest:", min(struck.values()))  # noqa: T201
    missing = {(r, b, d) for r in RUNGS for b in BREAKS for d in DELIVERIES} - set(struck)
    assert not missing, sorted(missing)
    for ending in ("complete", "incomplete", "settled", "StreamDropped", "BudgetExhausted", "Cancelled"):
        assert all(ends[ending, delivery] for delivery in DELIVERIES), ending
    assert all(taken["drop", rung] for rung in RUNGS[1:])


def _even(seed: int) -> Scenario:
    """The scenario of a seed with the rare breaks and the second route as frequent as the others."""
    scenario = draw(random.Random(seed), seed)
    strikes = (*scenario.strikes, Strike("drop"), Strike(), Strike())
    first, later = strikes[0], strikes[1:]
    kinds = (replace(strike, kind=BREAKS[(seed + 5 * n) % len(BREAKS)]) for n, strike in enumerate(later))
    even = replace(scenario, strikes=(first, *kinds), for_ever=False, failed_before=0, busy=0)
    if seed % 3:
        return even
    routes = (scenario.routes[0], scenario.routes[-1] if seed % 2 else ("chat", "anchor", 1))
    return replace(even, routes=routes, policy=Policy(tries=1), stop=None if seed % 2 else even.stop)


def _table(
    title: str, rows: Iterable[str], columns: Iterable[str], counts: Counter[tuple[str, str, str]]
) -> str:
    """How often each break struck an attempt of each rung: held/live/strict."""
    wide = 14
    columns = tuple(columns)
    lines = [f"{title:20}" + "".join(f"{name:>{wide}}" for name in columns)]
    for row in rows:
        cells = ("/".join(str(counts[row, name, d]) for d in DELIVERIES) for name in columns)
        lines.append(f"{row:20}" + "".join(f"{cell:>{wide}}" for cell in cells))
    return "\n".join(lines)


def _lines(title: str, counts: Counter[tuple[str, str]]) -> str:
    return f"{title}: " + ", ".join(f"{one} {two} {n}" for (one, two), n in sorted(counts.items()))
