"""bench/run in a small checkout whose parts are the test's own: what fails, is kept, is written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOOD = """
import json, sys
NAME = "good"
def tables(record):
    return f"| rows | {record['rows']} |"
if __name__ == "__main__":
    path = sys.argv[sys.argv.index("--json") + 1]
    open(path, "w").write(json.dumps({"rows": sys.argv[sys.argv.index("--size") + 1]}))
"""
BAD = "raise SystemExit(3)"
WAITS = "import sys\nprint('it waits', file=sys.stderr, flush=True)\nsys.stdin.read()"
FACTS: dict[str, Any] = {
    "date": "2026-11-23",
    "commit": "",
    "python": "CPython",
    "machine": {"model": "Lab CPU", "cores": 2, "system": "Linux"},
    "versions": {},
}
ENVIRONMENT = f"def surroundings():\n    return {FACTS!r}\ndef load():\n    return 0.5\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """run.py, the benchmarks' own machinery and page, and three parts."""
    shutil.copy(ROOT / "run.py", tmp_path)
    for folder in ("bench", "docs", "recipes"):
        (tmp_path / folder).mkdir()
    for name in ("run", "report.py", "sizes.py"):
        shutil.copy(ROOT / "bench" / name, tmp_path / "bench")
    shutil.copy(ROOT / "docs" / "benchmarks.md", tmp_path / "docs")
    parts = {"cpu": BAD, "streams": GOOD, "cold": WAITS, "environment": ENVIRONMENT}
    for name, code in parts.items():
        (tmp_path / "bench" / f"{name}.py").write_text(code)
    return tmp_path


def command(checkout: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(checkout / "bench" / "run"), "--no-install", *arguments]


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(checkout, *arguments), capture_output=True, text=True, timeout=60)


def record(checkout: Path, name: str = "streams") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((checkout / "bench" / "results" / f"{name}.json").read_text())
    return found


def test_a_part_that_fails_does_not_stop_the_others(checkout: Path) -> None:
    """The others run and are on the page; the exit code and one line tell which failed."""
    done = run(checkout, "cpu", "streams", "--size", "short")
    assert done.returncode == 1
    assert "error: cpu ended with exit code 3" in done.stderr
    assert record(checkout)["rows"] == "short"
    assert "| rows | short |" in (checkout / "docs" / "benchmarks.md").read_text()
    assert not (checkout / "bench" / "results" / "cpu.json").exists()


def test_a_record_says_where_it_is_from(checkout: Path) -> None:
    """Size, machine, load and time of a run stand in each record."""
    assert run(checkout, "streams", "--no-write").returncode == 0
    made = record(checkout)["run"]
    assert made.pop("seconds") >= 0
    assert made == {**FACTS, "size": "full", "load": [0.5, 0.5]}


@pytest.mark.parametrize("arguments", [("--size", "smoke"), ("--no-write", "--out", "elsewhere")])
def test_the_page_can_be_left_alone(checkout: Path, arguments: tuple[str, ...]) -> None:
    """A smoke run, and one with its own folder, leave page and records of the checkout as they are."""
    before = (checkout / "docs" / "benchmarks.md").read_bytes()
    options = [str(checkout / word) if word == "elsewhere" else word for word in arguments]
    assert run(checkout, "streams", *options).returncode == 0
    assert (checkout / "docs" / "benchmarks.md").read_bytes() == before
    assert not (checkout / "bench" / "results").exists()
    assert (checkout / "elsewhere").exists() == ("--out" in arguments)


def test_a_smoke_run_fails_if_a_part_does(checkout: Path) -> None:
    """CI sees a benchmark that no longer runs."""
    assert run(checkout, "cpu", "--size", "smoke").returncode == 1


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C as a signal to a process group")
def test_an_interrupt_keeps_what_had_ended(checkout: Path) -> None:
    """After Ctrl-C in the second part the record of the first is there, and the exit code is 130."""
    with subprocess.Popen(
        command(checkout, "streams", "cold"),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as child:
        assert child.stderr
        for line in child.stderr:
            if "it waits" in line:
                break
        os.killpg(child.pid, signal.SIGINT)
        rest = child.stderr.read()
    assert child.returncode == 130
    assert "what had ended is recorded" in rest
    assert record(checkout)["rows"] == "full"
