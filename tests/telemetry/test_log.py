"""The log: one line a call on the logger "sidestream", at a level that says whether to look."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from callers import WAYS, caller

from sidestream import AsyncClient, Attempt, Client, Fault, FaultKind, Reply, Route, StreamDropped
from sidestream.lab import Fault as Break
from sidestream.lab import Lab, Plan, script
from sidestream.recovery.flow import Call
from sidestream.telemetry import CallRecord, Stopwatch, log_calls
from sidestream.wire.prompt import Request

SRC = Path(__file__).parents[2] / "src"
TEXT = "Qanswer: the quick brown fox jumps over the lazy dog."
KEY = "Canary0d41d8cd98f00b204"
ways = pytest.mark.parametrize("way", WAYS)


def lines_of(caplog: pytest.LogCaptureFixture, way: str, loop: Any, lab: Lab) -> list[tuple[int, str]]:
    """What one call in this way, with a key and content that must not show, writes to the log."""
    route = Route(lab.url, "m", "chat", name="main", headers={"X-Key": KEY})
    call = caller(way, lambda: Client(routes=[route]), lambda: AsyncClient(routes=[route]), loop)
    with caplog.at_level(logging.DEBUG):
        call({"input": "Qprompt", "instructions": "Qinstructions", "stop": ["Qstop"]})
    assert "Q" not in caplog.text
    assert KEY not in caplog.text
    return [(line.levelno, line.getMessage()) for line in caplog.records if line.name == "sidestream"]


@ways
def test_a_call_that_goes_through_is_a_detail(way: str, loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A clean call is one line at DEBUG: route, end, seconds, tokens."""
    with Lab(script.say(TEXT)) as lab:
        ((level, line),) = lines_of(caplog, way, loop, lab)
    assert level == logging.DEBUG
    assert line.startswith("main: complete in 0.")
    assert line.endswith(" s; 10 tokens kept, 0 wasted")


@ways
def test_a_recovery_is_news(way: str, loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A call that was mended is one line at INFO, with the fault and the rung."""
    with Lab(script.say(TEXT), plan=Plan([Break.cut(after_event=5)])) as lab:
        ((level, line),) = lines_of(caplog, way, loop, lab)
    assert level == logging.INFO
    assert line.startswith("main: complete in ")
    assert " s after dropped; " in line
    assert " tokens kept, " in line


@ways
def test_a_failure_is_a_warning(way: str, loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A call that failed is one line at WARNING, with the name of its error."""
    with Lab(script.error(401, f"no, Qwords {KEY}")) as lab:
        ((level, line),) = lines_of(caplog, way, loop, lab)
    assert level == logging.WARNING
    assert line.startswith("main: failed (AuthFailed) in 0.")
    assert " s after auth; " in line


ROWS = (
    Attempt("main", "send", "dropped", tokens=7),
    Attempt("main", "more", "stalled", tokens=3),
    Attempt("b", "reroute", "complete", tokens=9, kept=9, confidence="reported"),
)


@pytest.mark.parametrize(
    ("reply", "error", "line"),
    [
        (
            Reply("complete").with_attempts(ROWS),
            None,
            "main → b: complete in 1.00 s after dropped, stalled; more, reroute; ~9 tokens kept, ~10 wasted",
        ),
        (
            None,
            StreamDropped("Qwords", fault=Fault(FaultKind.DROPPED, "Qwords"), attempts=ROWS[:1]),
            "main: failed (StreamDropped) in 1.00 s after dropped; 0 tokens kept, ~7 wasted",
        ),
        (
            Reply("dropped").with_attempts((Attempt("main", "send", "cancel", tokens=None),)),
            GeneratorExit(),
            "main: abandoned in 1.00 s; ? tokens kept, ? wasted",
        ),
        (None, KeyboardInterrupt(), "main: cancelled (KeyboardInterrupt) in 1.00 s; ? tokens kept, ? wasted"),
    ],
)
def test_the_line(
    reply: Reply | None, error: BaseException | None, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who was asked and who answered, how it ended, what broke, what was done, what it took."""
    call = Call(Request(()), (Route("http://h.test/v1", "m", name="main"),))
    watch = Stopwatch(iter((0.0, 1.0)).__next__, lambda: 0.0)
    with caplog.at_level(logging.DEBUG):
        log_calls()(CallRecord.of(call, watch, reply, error))
    assert [record.getMessage() for record in caplog.records] == [line]


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_a_program_without_logging_sees_nothing() -> None:
    """A failure writes nothing to stderr where nobody configured logging: the error itself says it."""
    with Lab(script.error(401, "no")) as lab:
        code = (
            "import contextlib, sidestream\n"
            f"client = sidestream.Client({lab.url!r}, model='m')\n"
            "with contextlib.suppress(sidestream.AuthFailed):\n"
            "    client.complete('hi')\n"
        )
        done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_loads_no_logging() -> None:
    """The package, and telemetry itself, are imported without the logging of the standard library."""
    code = "import sys, sidestream; print('logging' in sys.modules)"
    assert run(code).stdout.split() == ["False"]
    code = "import sys, sidestream.telemetry; print('logging' in sys.modules)"
    assert run(code).stdout.split() == ["False"]


def test_many_clients_make_one_handler() -> None:
    """However many clients there are, the logger gets one handler, which says nothing."""
    observers: list[Callable[[CallRecord], object]] = [log_calls() for _ in range(3)]
    assert len(observers) == 3
    assert len(logging.getLogger("sidestream").handlers) == 1
