"""The page of the benchmarks is what its records make: bench/report.py, with a part of the test's own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
RUN = {
    "date": "2026-11-23",
    "commit": "0123456789",
    "python": "CPython 3.11.7",
    "machine": {"model": "Lab CPU", "cores": 2, "system": "Linux"},
    "versions": {"": {"sidestream": "0.1.0"}, "frameworks": {"openai": "3.54.0"}},
    "size": "full",
    "seconds": 90.0,
    "load": [0.1, 1.25],
}
EMPTY = "".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in ("setting", "targets", "cpu", "cold"))


def load(name: str) -> ModuleType:
    """A file of `bench`, under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


report, sizes = load("report"), load("sizes")


@pytest.fixture(autouse=True)
def _two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "PARTS", ("cpu", "cold"))


def result(name: str = "cpu", *, plots: bool = False, **changes: Any) -> Any:
    """A part's result: one row, one target that is met and one that is not."""
    module = SimpleNamespace(
        tables=lambda record: f"| rows | {record['rows']} |\n",
        targets=lambda _: [sizes.Target("speed", 1.1, 1.0), sizes.Target("ratio", 6, 2.345, at_least=True)],
    )
    if plots:
        module.plots = lambda _: {"bars_of_cpu": print}
    return report.Result(name, module, {"run": {**RUN, **changes}, "rows": 3}, "abc")


def test_a_part_stands_between_its_markers_with_its_source() -> None:
    """Tables and figures of a part are on the page, with the record, size, date and load they are from."""
    made = report.page(EMPTY, {"cpu": result(plots=True)})
    section = made.split("<!-- cpu -->\n")[1].split("<!-- /cpu -->")[0]
    source = (
        "From [bench/results/cpu.json](../bench/results/cpu.json): `bench/run cpu --size full`, 2026-11-23, "
        "1.5 minutes, load average 0.1 before and 1.2 after, commit 0123456789."
    )
    assert section.split("\n\n") == [
        "| rows | 3 |",
        "![bars of cpu](figures/bars_of_cpu.svg)",
        f"{source}\n",
    ]


def test_a_part_without_a_record_says_so() -> None:
    """What was never run is not left as it stood."""
    old = EMPTY.replace("<!-- cold -->\n", "<!-- cold -->\nold figures\n")
    made = report.page(old, {"cpu": result()})
    assert "old figures" not in made
    assert f"<!-- cold -->\n{report.NOTHING}\n<!-- /cold -->" in made


def test_making_a_page_twice_changes_nothing() -> None:
    """A page is made of its records alone."""
    once = report.page(EMPTY, {"cpu": result()})
    assert report.page(once, {"cpu": result()}) == once


def test_a_page_without_a_place_is_refused() -> None:
    """A part that has no markers on the page is named."""
    with pytest.raises(SystemExit, match="no place for targets"):
        report.page(EMPTY.replace("<!-- targets -->\n", ""), {})


def test_targets_are_told_met_or_missed() -> None:
    """Each target has its aim, its measure and a verdict, whichever way it is aimed."""
    rows = report.targets([result()]).splitlines()[2:]
    assert rows == ["| speed | ≤ 1.1 | 1 | met |", "| ratio | ≥ 6 | 2.35 | **missed** |"]
    assert report.verdict(sizes.Target("speed", 1.1, None)) == "not measured"


def test_parts_that_were_run_alike_share_a_setting() -> None:
    """Versions and machine are told once, and by part as soon as they differ."""
    alike = report.setting([result(), result("cold", date="2026-11-24")])
    assert alike.splitlines() == [
        "Lab CPU, 2 cores, Linux; CPython 3.11.7.",
        "`.venv`: sidestream 0.1.0.",
        "`.cache/frameworks`: openai 3.54.0.",
    ]
    apart = report.setting([result(), result("cold", python="CPython 3.14.0")])
    assert apart.startswith("cpu: Lab CPU")
    assert "\n\ncold: Lab CPU" in apart


def test_a_figure_of_another_record_is_found(tmp_path: Path) -> None:
    """A figure is stale if it is missing or names another record than the one that is there."""
    found, path = result(plots=True), tmp_path / "bars_of_cpu.svg"
    assert report.stale([found], tmp_path) == [path.name]
    path.write_text("<svg/>\n<!-- cpu.json sha256:abc -->\n")
    assert report.stale([found], tmp_path) == []
    path.write_text("<svg/>\n<!-- cpu.json sha256:abd -->\n")
    assert report.stale([found], tmp_path) == [path.name]


def test_a_record_is_written_a_line_for_each_field(tmp_path: Path) -> None:
    """Records are JSON whose lines can be compared."""
    sizes.write({"run": {"a": 1}, "rows": [1, 2, 3]}, tmp_path / "deep" / "cpu.json")
    text = (tmp_path / "deep" / "cpu.json").read_text()
    assert text.splitlines() == ["{", '"run": {"a": 1},', '"rows": [1, 2, 3]', "}"]
    assert json.loads(text) == {"run": {"a": 1}, "rows": [1, 2, 3]}


def test_the_committed_page_is_what_its_records_make() -> None:
    """docs/benchmarks.md and its figures are those of bench/results."""
    command = [sys.executable, BENCH / "report.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_command_says_what_it_takes() -> None:
    """`bench/run --help` works without an environment, and a part that is not there is named."""
    told = subprocess.run(
        [sys.executable, BENCH / "run", "--help"], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0
    assert "--no-install" in told.stdout
    wrong = subprocess.run(
        [sys.executable, BENCH / "run", "speed"], capture_output=True, text=True, timeout=60
    )
    assert wrong.returncode == 2
    assert "no part named speed" in wrong.stderr
