#!/usr/bin/env python3
"""One line from a fresh checkout to a running sidestream. Needs Python 3.11 or newer, nothing else.

`python3 run.py demo` and `python3 run.py test` make `.venv` inside the checkout, install what `requirements/`
locks (hash-checked, wheels only, nothing is compiled) and the project itself, then hand over to the command.
The next run reuses the environment when its stamp still matches. The lock files are nested (`runtime` is part
of `test`, with equal versions), so one environment serves every command in any order.

Only the standard library is used here, and nothing outside the checkout is written but pip's own cache.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  (said before newer syntax or a failing install says it worse)
    names = ("python3.14", "python3.13", "python3.12", "python3.11")
    newer = next((name for name in names if shutil.which(name)), "")
    remedy = (
        f"{newer} {' '.join(sys.argv)}" if newer else "install one from your package manager or python.org"
    )
    sys.exit(f"error: Python 3.11 or newer is needed, this is {sys.version.split()[0]}\nhint: {remedy}")

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
CACHE = ROOT / ".cache"
STAMP = VENV / "sidestream-stamp.json"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
EXE = ".exe" if os.name == "nt" else ""
PYTHON = BIN / f"python{EXE}"
LEVELS = ("runtime", "test")  # each lock file holds all of the one before it

HELP = """usage: python3 run.py COMMAND [ARGUMENTS]

  demo              break streams on purpose and watch them finish (on a first run: install, then run)
  test [ARGS]       the whole test suite; ARGS go to pytest
  lint              ruff check, ruff format --check, mypy
  ask "...", ...    any other word goes to the sidestream command; all of them: python3 run.py help

Everything is installed into .venv and .cache inside this checkout; delete both to start over."""


class Stop(Exception):
    """Ends the run with one friendly line, a hint and an exit code."""

    def __init__(self, message: str, hint: str, code: int = 1) -> None:
        super().__init__(message)
        self.hint, self.code = hint, code


def say(text: str) -> None:
    print(f"run.py: {text}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("--help", "-h"):
        print(HELP)
        return 0
    prepare("test" if command in ("test", "lint") else "runtime")
    if command == "test":
        fetch_model()
        return hand_over([PYTHON, "-m", "pytest", "-n", "auto", "--dist", "loadgroup", *rest])
    if command == "lint":
        return lint()
    return hand_over([BIN / f"sidestream{EXE}", *(["--help"] if command == "help" else [command]), *rest])


def lint() -> int:
    """Run every check even after one failed; the first failure's exit code is the answer."""
    codes = []
    for check in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]):
        say(" ".join(check))
        done = subprocess.run([PYTHON, "-m", *check], cwd=ROOT, env=environment(), check=False)
        codes.append(done.returncode)
    return next(filter(None, codes), 0)


# the environment


def prepare(level: str) -> None:
    """Make `.venv` hold at least the packages of `level`; one interpreter start when it already does."""
    if is_ready(level):
        return
    with one_at_a_time():
        if is_ready(level):
            return
        make_venv()
        STAMP.unlink(missing_ok=True)  # an interrupted installation is not a ready one
        lock = ROOT / "requirements" / f"{level}.txt"
        count = sum(line[:1].isalnum() for line in lock.read_text().splitlines())
        say(f"installing {count} locked packages from requirements/{lock.name}")
        pip("install", "--require-hashes", "--only-binary", ":all:", "-r", str(lock))
        say("installing sidestream itself from this checkout")
        pip("install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
        STAMP.write_text(json.dumps({"digest": digest(), "level": level}))


def is_ready(level: str) -> bool:
    try:
        stamp = json.loads(STAMP.read_text())
        wide_enough = LEVELS.index(stamp["level"]) >= LEVELS.index(level)
        unchanged = stamp["digest"] == digest()
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return wide_enough and unchanged and venv_works()


def digest() -> str:
    """What the environment depends on: the locks, the project's metadata, the interpreter, the folder."""
    state = hashlib.sha256(f"{sys.version_info[:3]} {sys.platform} {ROOT}".encode())
    for name in ("pyproject.toml", *(f"requirements/{level}.txt" for level in LEVELS)):
        state.update((ROOT / name).read_bytes())
    return state.hexdigest()


def venv_works() -> bool:
    """Whether the environment's interpreter still starts, has pip, and is the version that runs this."""
    probe = [str(PYTHON), "-c", "import sys, pip; print(*sys.version_info[:2])"]
    try:
        answer = subprocess.run(probe, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.stdout.split() == [str(part) for part in sys.version_info[:2]]


def make_venv() -> None:
    if venv_works():
        return
    if not (importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip")):
        versioned = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        raise Stop("this Python has no venv module", f"apt install python3-venv  (or {versioned})")
    say(f"{'replacing' if VENV.exists() else 'creating'} .venv inside the checkout")
    import venv

    try:  # in this process, where Ctrl-C ends in silence; `-m venv` would print a traceback
        venv.EnvBuilder(clear=True, with_pip=True, symlinks=os.name == "posix").create(VENV)
    except subprocess.CalledProcessError as error:
        said = (error.output or b"").decode(errors="replace").strip().splitlines()
        raise Stop("could not make .venv", said[-1] if said else str(error)) from error


def pip(*arguments: str) -> None:
    """Run the environment's pip with the user's own index settings; its progress bars need a terminal."""
    quiet = () if sys.stderr.isatty() else ("--quiet",)
    command = [PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input", *quiet, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(), stdout=sys.stderr, check=False)
    if done.returncode:
        hint = "its reason is above; a first run needs the package index. Running again continues"
        raise Stop("pip could not install everything", hint, done.returncode)


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold a lock that the system releases even if this process is killed."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "run.lock").open("a") as held:
        if os.name == "posix":
            import fcntl

            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another run.py to finish installing")
                fcntl.flock(held, fcntl.LOCK_EX)
        yield


# handing over


def environment() -> dict[str, str]:
    """The command's environment: its cache stays inside the checkout unless the user chose a place."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "PYTHONPATH")}
    return {"SIDESTREAM_CACHE_DIR": str(CACHE)} | inherited


def fetch_model() -> None:
    """Download the embedded model where its progress can be seen; without it the tests that need it skip."""
    code = "import sys; from sidestream.local.weights import main; sys.exit(main())"
    quiet = subprocess.DEVNULL  # stdout carries the path; the steps are on stderr
    done = subprocess.run([PYTHON, "-c", code], cwd=ROOT, env=environment(), stdout=quiet, check=False)
    if done.returncode:
        say("the embedded model is not available (see above); its tests will be skipped")


def hand_over(command: list[str | Path]) -> int:
    """Become the command, so that signals, Ctrl-C and the exit code are its own."""
    argv = [str(part) for part in command]
    sys.stderr.flush()
    if os.name == "posix":
        if argv[1:2] == ["-m"]:
            os.chdir(ROOT)
        os.execve(argv[0], argv, environment())  # noqa: S606  (no shell is the point)
    return subprocess.run(argv, env=environment(), check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except Stop as stop:
        print(f"error: {stop}\nhint: {stop.hint}", file=sys.stderr)
        sys.exit(stop.code)
    except OSError as error:
        print(f"error: {error}\nhint: is this checkout complete and writable?", file=sys.stderr)
        sys.exit(1)
