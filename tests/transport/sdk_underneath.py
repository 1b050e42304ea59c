"""A pytest plugin for `sdk_suites.py`: every client that an SDK's test makes stands on our transport.

    pytest -p sdk_underneath --sidestream-sdk openai --sidestream-results FILE [--sidestream-under]

Strategy: the common base of the SDK's clients, Azure and Bedrock among them, hands each new client to
`sidestream.wrap`. A test's own http client or mock stays where it is, below our transport. Without
`--sidestream-under` nothing is changed and only the results are written, so that both runs are told alike.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

import sidestream
from sidestream.telemetry import CallRecord

_CALLS = "calls that sidestream watched"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sidestream-sdk", required=True)
    parser.addoption("--sidestream-results", type=Path, required=True)
    parser.addoption("--sidestream-under", action="store_true")


def pytest_configure(config: pytest.Config) -> None:
    calls = Calls()
    if config.getoption("--sidestream-under"):
        base = importlib.import_module(f"{config.getoption('--sidestream-sdk')}._base_client")
        for client in (base.SyncAPIClient, base.AsyncAPIClient):
            client.__init__ = _and_wrapped(client.__init__, calls)
    config.pluginmanager.register(calls)
    if not hasattr(config, "workerinput"):  # the workers of pytest-xdist report to one place
        config.pluginmanager.register(Results(config.getoption("--sidestream-results")))


def _and_wrapped(make: Callable[..., None], calls: Calls) -> Callable[..., None]:
    @functools.wraps(make)
    def init(client: Any, *args: Any, **options: Any) -> None:
        make(client, *args, **options)
        sidestream.wrap(client, observe=calls.count)

    return init


class Calls:
    """Counts the watched calls of the test that runs."""

    def __init__(self) -> None:
        self.ended = 0

    def count(self, _: CallRecord) -> None:
        self.ended += 1

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        report = yield
        if call.when == "teardown":
            report.user_properties.append((_CALLS, self.ended))
            self.ended = 0
        return report


class Results:
    """Each test's outcome, why it failed, and how many of its calls were watched; written at the end."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self._tests.setdefault(report.nodeid, {"outcome": "passed", "why": "", "calls": 0})
        if report.outcome != "passed" and test["outcome"] == "passed":
            test["outcome"] = report.outcome
            test["why"] = report.longreprtext if report.failed else ""
        test["calls"] = dict(report.user_properties).get(_CALLS, test["calls"])

    def pytest_sessionfinish(self) -> None:
        self._file.write_text(json.dumps(self._tests))
