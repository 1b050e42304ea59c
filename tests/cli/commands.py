"""Running the command line: in this process, in one of its own, and on a terminal.

Every way starts without the caller's models and keys, so that a test says all there is in its environment.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "src" / "sidestream" / "tasks" / "compression" / "samples" / "agent-session.json"
CANARY = "Canary0d41d8cd98f00b204"  # looks like no key: only knowing it keeps it out
PROGRAM = [sys.executable, "-c", "from sidestream.cli import main; main()"]
_FOREIGN = ("OPENAI_", "SIDESTREAM_", "FORCE_COLOR", "TTY_", "COLUMNS", "NO_COLOR")


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def environment(extra: Mapping[str, str | None] = {}) -> dict[str, str]:
    """What a command sees; a variable that is None is not set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    cache = {name: os.environ[name] for name in ("SIDESTREAM_CACHE_DIR",) if name in os.environ}
    own = {"PYTHONPATH": str(ROOT / "src"), "SIDESTREAM_CONFIG": ""}
    return {name: value for name, value in {**kept, **cache, **own, **extra}.items() if value is not None}


def sidestream(*arguments: object, stdin: bytes = b"", env: Mapping[str, str | None] = {}) -> Done:
    """Run a command in this process, its streams no terminal."""
    from sidestream.cli.app import run

    streams = [io.TextIOWrapper(io.BytesIO(data), "utf-8", write_through=True) for data in (stdin, b"", b"")]
    names = ("sys.stdin", "sys.stdout", "sys.stderr")
    with mock.patch.dict(os.environ, environment(env), clear=True), _patched(names, streams):
        code = run([str(argument) for argument in arguments])
    out, err = (stream.buffer.getvalue().decode() for stream in streams[1:])  # type: ignore[attr-defined]
    return Done(code, out, err)


@contextlib.contextmanager
def _patched(names: Iterable[str], values: Iterable[object]) -> Iterator[None]:
    with contextlib.ExitStack() as patches:
        for name, value in zip(names, values, strict=True):
            patches.enter_context(mock.patch(name, value))
        yield


def process(*arguments: object, env: Mapping[str, str] = {}, **options: Any) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    pipes: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    argv = [*PROGRAM, *map(str, arguments)]
    return subprocess.Popen(argv, env=environment(env), text=True, **{**pipes, **options})


def on_terminal(
    *arguments: object,
    env: Mapping[str, str] = {},
    columns: int = 100,
    type_when: Mapping[str, bytes] = {},
    timeout: float = 30.0,
) -> Done:
    """Run a command whose three streams are one terminal; what it shows is in `out`.

    `type_when`: what to type once the screen holds a text.
    """
    import fcntl
    import pty
    import select
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-c", _OWN_TERMINAL, *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment({"TERM": "xterm-256color", **env}),
        start_new_session=True,
    )
    os.close(theirs)
    screen, typing, give_up = b"", dict(type_when), time.monotonic() + timeout
    while time.monotonic() < give_up:
        if select.select([ours], [], [], 0.05)[0]:
            try:
                screen += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
        for text in [text for text in typing if text.encode() in screen]:
            os.write(ours, typing.pop(text))
    child.kill() if time.monotonic() >= give_up else None
    os.close(ours)
    return Done(child.wait(), screen.decode().replace("\r\n", "\n"), "")


_OWN_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from sidestream.cli import main
main()
"""


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return as soon as it holds; fail when it does not within `seconds`."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "waited too long"
        time.sleep(0.01)
