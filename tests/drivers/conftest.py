"""Counts cases, of which a test here has thousands, and keeps measured bounds; both are shown at the end.

They travel with the reports of their tests, so that pytest-xdist adds them up, too.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from memory import PATIENT

from sidestream import drivers
from sidestream.recovery.origins import Origins

_CASES, _SECONDS = "cases: ", "seconds: "


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls break here by the thousand, at one endpoint: the usual rules would hold them back."""
    origins = Origins(time.monotonic, lock=threading.RLock(), rules=PATIENT)
    monkeypatch.setattr(drivers, "PROCESS", origins)


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """`count(kind, cases)`: add so many cases to the total of their kind."""
    return lambda kind, cases: record_property(_CASES + kind, cases)


@pytest.fixture
def measure(record_property: Callable[[str, object], None]) -> Callable[[str, float], None]:
    """`measure(what, seconds)`: remember how long something took; the median and the worst are shown."""
    return lambda what, seconds: record_property(_SECONDS + what, seconds)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    totals: Counter[str] = Counter()
    times: dict[str, list[float]] = defaultdict(list)
    for name, value in _properties(terminalreporter):
        if name.startswith(_CASES):
            totals[name.removeprefix(_CASES)] += value
        elif name.startswith(_SECONDS):
            times[name.removeprefix(_SECONDS)].append(value)
    for kind, cases in sorted(totals.items()):
        terminalreporter.write_line(f"{cases:,} {kind}")
    for what, seconds in sorted(times.items()):
        median, worst = sorted(seconds)[len(seconds) // 2], max(seconds)
        terminalreporter.write_line(
            f"{what}: median {median * 1000:.1f} ms, worst {worst * 1000:.1f} ms of {len(seconds)}"
        )


def _properties(terminalreporter: Any) -> Iterator[tuple[str, Any]]:
    """The properties of every test, once: the report of its teardown has them all."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "teardown":
                yield from report.user_properties
