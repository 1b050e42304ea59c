"""run.py's own decisions, without installing: when an environment is ready, what is run, what is said."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, its paths turned to a small checkout of its own; starting a process is a failure."""
    spec = importlib.util.spec_from_file_location("run_py", ROOT / "run.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "requirements").mkdir()
    for name in ("pyproject.toml", "requirements/runtime.txt", "requirements/test.txt"):
        (tmp_path / name).write_text(f"# {name}\n")
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    places = {"ROOT": tmp_path, "VENV": venv, "CACHE": tmp_path / ".cache", "BIN": venv / "bin"}
    places |= {"STAMP": venv / "sidestream-stamp.json", "PYTHON": venv / "bin" / "python"}
    for name, value in places.items():
        monkeypatch.setattr(module, name, value)

    def nothing_starts(*_args: Any, **_options: Any) -> None:
        raise AssertionError("a process would be started")

    monkeypatch.setattr(module.subprocess, "run", nothing_starts)
    monkeypatch.setattr(module.os, "execve", nothing_starts)
    return module


def stamped(run: ModuleType, monkeypatch: pytest.MonkeyPatch, level: str, works: bool = True) -> None:
    """An environment of that level, installed from what is there now."""
    run.STAMP.write_text(json.dumps({"digest": run.digest(), "level": level}))
    monkeypatch.setattr(run, "venv_works", lambda: works)


@pytest.mark.parametrize(
    ("has", "wants", "ready"),
    [
        ("runtime", "runtime", True),
        ("runtime", "test", False),
        ("test", "runtime", True),
        ("test", "test", True),
    ],
)
def test_a_wider_environment_serves_all(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, has: str, wants: str, ready: bool
) -> None:
    """An environment is ready for its own level and every narrower one."""
    stamped(run, monkeypatch, has)
    assert run.is_ready(wants) is ready


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements/runtime.txt", "requirements/test.txt"])
def test_a_changed_file_asks_for_a_new_installation(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A change to the project's metadata or to a lock makes the environment stale."""
    stamped(run, monkeypatch, "test")
    (run.ROOT / name).write_text("changed\n")
    assert not run.is_ready("runtime")


def test_a_moved_checkout_is_not_ready(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest depends on the folder, because an environment holds absolute paths."""
    before = run.digest()
    other = run.ROOT / "moved"
    other.mkdir()
    for name in ("pyproject.toml", "requirements/runtime.txt", "requirements/test.txt"):
        (other / name).parent.mkdir(exist_ok=True)
        (other / name).write_bytes((run.ROOT / name).read_bytes())
    monkeypatch.setattr(run, "ROOT", other)
    assert run.digest() != before


@pytest.mark.parametrize(
    "stamp", ["", "{", "[]", "null", "{}", '{"level": "test"}', '{"level": "huge", "digest": "x"}', "\x00"]
)
def test_a_damaged_stamp_is_not_ready(run: ModuleType, monkeypatch: pytest.MonkeyPatch, stamp: str) -> None:
    """Whatever stands in the stamp, the answer is no and not an exception."""
    monkeypatch.setattr(run, "venv_works", lambda: True)
    run.STAMP.write_text(stamp)
    assert not run.is_ready("runtime")
    run.STAMP.unlink()
    assert not run.is_ready("runtime")


def test_a_broken_interpreter_is_not_ready(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A matching stamp is not enough when the environment's interpreter is gone."""
    stamped(run, monkeypatch, "test", works=False)
    assert not run.is_ready("runtime")


def test_a_missing_interpreter_does_not_work(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that cannot be started, or is another version, does not count."""
    monkeypatch.setattr(run.subprocess, "run", _failing)
    assert not run.venv_works()
    monkeypatch.setattr(run.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess((), 0, "2 7\n"))
    assert not run.venv_works()
    here = f"{sys.version_info[0]} {sys.version_info[1]}\n"
    monkeypatch.setattr(run.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess((), 0, here))
    assert run.venv_works()


def _failing(*_args: Any, **_options: Any) -> None:
    raise FileNotFoundError


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help(run: ModuleType, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Help needs no environment and names every command of its own."""
    assert run.main(arguments) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {word}" in out for word in ("demo", "test", "lint", "ask"))


@pytest.mark.parametrize(
    ("arguments", "level", "command"),
    [
        (["demo"], "runtime", ["bin/sidestream", "demo"]),
        (["ask", "why", "--json"], "runtime", ["bin/sidestream", "ask", "why", "--json"]),
        (["help"], "runtime", ["bin/sidestream", "--help"]),
        (["test", "-k", "x"], "test", ["bin/python", "-m", "pytest"]),
    ],
)
def test_what_is_run(
    run: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    level: str,
    command: list[str],
) -> None:
    """Each word prepares its level and hands over to its command, arguments included."""
    prepared: list[str] = []
    handed: list[list[str]] = []
    monkeypatch.setattr(run, "prepare", prepared.append)
    monkeypatch.setattr(run, "fetch_model", lambda: None)
    monkeypatch.setattr(run, "EXE", "")
    monkeypatch.setattr(run, "hand_over", lambda argv: handed.append([str(part) for part in argv]) or 7)
    assert run.main(arguments) == 7
    assert prepared == [level]
    assert handed[0][: len(command)] == [str(run.VENV / command[0]), *command[1:]]
    assert handed[0][-1] == ("--help" if arguments == ["help"] else arguments[-1])


def test_lint_runs_every_check(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed check does not hide the next one, and the first failure is the exit code."""
    ran: list[str] = []

    def check(argv: list[Any], **_options: Any) -> subprocess.CompletedProcess[str]:
        ran.append(argv[2])
        return subprocess.CompletedProcess(argv, {"ruff": 0, "mypy": 3}[argv[2]])

    monkeypatch.setattr(run, "prepare", lambda _level: None)
    monkeypatch.setattr(run.subprocess, "run", check)
    assert run.main(["lint"]) == 3
    assert ran == ["ruff", "ruff", "mypy"]


def test_a_ready_environment_is_left_alone(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """When everything is there, preparing starts nothing and writes nothing."""
    stamped(run, monkeypatch, "test")
    before = sorted(run.ROOT.rglob("*"))
    run.prepare("test")
    assert sorted(run.ROOT.rglob("*")) == before


def test_an_interrupted_installation_is_not_ready(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stamp of the old environment goes before pip begins, so a failure leaves none."""
    stamped(run, monkeypatch, "runtime")

    def failing(*_arguments: str) -> None:
        assert not run.STAMP.exists()
        raise run.Stop("pip could not install everything", "again", 3)

    monkeypatch.setattr(run, "make_venv", lambda: None)
    monkeypatch.setattr(run, "pip", failing)
    with pytest.raises(run.Stop):
        run.prepare("test")
    assert not run.is_ready("runtime")


def test_pip_installs_by_hash_and_wheel_only(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages come with hashes and as wheels; the project itself comes without dependencies."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(run, "make_venv", lambda: None)
    monkeypatch.setattr(run, "pip", lambda *arguments: calls.append(arguments))
    run.prepare("test")
    packages, project = calls
    assert "--require-hashes" in packages
    assert packages[2:4] == ("--only-binary", ":all:")
    assert packages[-1].endswith("test.txt")
    assert "--no-deps" in project
    assert json.loads(run.STAMP.read_text()) == {"digest": run.digest(), "level": "test"}


def test_pip_failing_says_how_to_go_on(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip's failure becomes one line with a hint and pip's exit code."""
    monkeypatch.setattr(run.subprocess, "run", lambda argv, **_: subprocess.CompletedProcess(argv, 9))
    with pytest.raises(run.Stop, match="pip could not install") as stop:
        run.pip("install", "x")
    assert (stop.value.code, "Running again continues" in stop.value.hint) == (9, True)


def test_a_python_without_venv_says_what_to_install(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the venv module the hint names the package."""
    monkeypatch.setattr(run, "venv_works", lambda: False)
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(run.Stop, match="no venv module") as stop:
        run.make_venv()
    assert "apt install python3" in stop.value.hint


def test_the_environment_of_a_command(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache is in the checkout unless the user chose one; what turns Python elsewhere is left out."""
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("PYTHONHOME", "/elsewhere")
    monkeypatch.delenv("SIDESTREAM_CACHE_DIR", raising=False)
    passed = run.environment()
    assert passed["SIDESTREAM_CACHE_DIR"] == str(run.CACHE)
    assert not {"PYTHONPATH", "PYTHONHOME"} & set(passed)
    monkeypatch.setenv("SIDESTREAM_CACHE_DIR", "/chosen")
    assert run.environment()["SIDESTREAM_CACHE_DIR"] == "/chosen"


def test_two_at_once_wait_for_each_other(run: ModuleType) -> None:
    """The lock is held inside and free afterwards."""
    fcntl = pytest.importorskip("fcntl")
    with run.one_at_a_time(), (run.CACHE / "run.lock").open("a") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (run.CACHE / "run.lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_help_as_a_stranger_runs_it(tmp_path: Path) -> None:
    """`python3 run.py` from any folder prints help on stdout and makes nothing."""
    before = {path.name for path in ROOT.iterdir()}
    argv = [sys.executable, str(ROOT / "run.py")]
    done = subprocess.run(argv, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python3 run.py COMMAND")
    assert {path.name for path in ROOT.iterdir()} <= before | {"__pycache__"}
