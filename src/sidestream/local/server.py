"""The parent's side: start the child, wait until it answers, and never leave it behind.

The child is a script in a fresh interpreter. Settings and key go in through its stdin, the address comes
out of its stdout, and closing stdin is the signal to leave, which also covers a parent that was killed. What
it prints to stderr is kept, bounded, for the one moment it matters: when the child dies, `REASONS` turns exit
code and last words into an error that says what to install or change. llama.cpp is never imported here.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import secrets
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, Self

from sidestream.errors import ConfigError, UsageError

from .weights import WEIGHTS, fetch_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["LocalModel"]

CHILD = Path(__file__).with_name("child.py")
START_SECONDS = 60.0
LEAVE_SECONDS, DRAIN_SECONDS = 1.0, 0.4  # to leave by itself, else it is killed; for each pipe to end
LOG_LINES, LOG_LINE_CHARS = 200, 2_000
TAIL_LINES, TAIL_CHARS = 3, 400  # of the log, in an error message
CONTEXT = range(256, 8_193)  # tokens; the upper end is what the weights were trained for
OTHER_HINT = "use a configured provider, or a model server built for this machine"
MOST_PROMPT_THREADS = 4  # more cores do not help a model this small


class Reason(NamedTuple):
    """Why a child ended: what its exit code or last words look like, and what to do about it."""

    pattern: str
    message: str
    hint: str


# Searched in "exit code N" followed by the log; the first match wins.
REASONS = (
    Reason(
        r"No module named '?xllamacpp",
        "the local model needs the xllamacpp package",
        "pip install 'sidestream[local]'",
    ),
    Reason(r"libgomp\.so", "the system library libgomp.so.1 is missing", "apt install libgomp1"),
    Reason(r"libstdc\+\+\.so", "the system library libstdc++.so.6 is missing", "apt install libstdc++6"),
    Reason(
        r"^exit code (-4|3221225501|-1073741795)\b",  # SIGILL, and what Windows calls it
        "this CPU cannot run the local model: llama.cpp's wheel needs AVX2",
        OTHER_HINT,
    ),
    Reason(
        r"bad_alloc|failed to allocate|out of memory|MemoryError|^exit code -9\b",
        "the local model ran out of memory",
        "free about 500 MB, or start it with a smaller ctx",
    ),
    Reason(
        r"failed to load model|invalid magic|corrupted or incomplete|error loading model",
        "the model file cannot be loaded",
        "delete it; the default weights are fetched again on the next start",
    ),
)


class LocalModel:
    """A small real model behind an OpenAI-compatible endpoint on the loopback interface.

    ::

        with LocalModel() as model:
            client = sidestream.Client(
                base_url=model.url, api_key=model.api_key, model=model.model, continuation="trailing"
            )

    Args:
        ctx: context window in tokens, 256 to 8192.
        path: a GGUF file of your own; by default `WEIGHTS`, fetched on first use.
        progress: called with one line for each slow step of a first start.
        start_timeout: seconds the child may take to load the model; the download is not counted.

    Raises (on start):
        ConfigError: the model cannot run here; `hint` says what to install or change.
        UsageError: `ctx` makes no sense.

    Thread-safe to use, not to start or close from two threads at once. The server answers one request at a
    time and queues the others. It is a process, so async code can use the endpoint as it is; only `start` and
    `close` block, for about a second and at most two.
    """

    def __init__(
        self,
        *,
        ctx: int = 4096,
        path: str | Path | None = None,
        progress: Callable[[str], None] | None = None,
        start_timeout: float = START_SECONDS,
    ) -> None:
        if ctx not in CONTEXT:
            raise UsageError(f"ctx must be from {CONTEXT[0]} to {CONTEXT[-1]} tokens, not {ctx}")
        self.api_key = secrets.token_urlsafe(32)
        self.model = WEIGHTS.model if path is None else Path(path).stem
        self._ctx = ctx
        self._path = None if path is None else Path(path)
        self._progress = progress
        self._start_timeout = start_timeout
        self._child: _Child | None = None

    def __repr__(self) -> str:
        return f"<LocalModel {self.model} {self.url if self.running else 'not running'}>"

    @property
    def url(self) -> str:
        """The endpoint's base URL, for example `http://127.0.0.1:40913/v1`."""
        if self._child is None:
            raise UsageError(
                "the local model is not started", hint="use it inside `with LocalModel() as model:`"
            )
        return f"{self._child.address}/v1"

    @property
    def running(self) -> bool:
        """Whether the child process is alive."""
        return self._child is not None and self._child.alive

    @property
    def log(self) -> str:
        """The end of what the child said: its warnings and errors, at most 200 lines, without the key."""
        return "" if self._child is None else self._child.log()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the child and wait until it answers requests. Does nothing when it is running."""
        if self.running:
            return
        self.close()
        path = fetch_weights(progress=self._progress) if self._path is None else self._path
        if not path.is_file():
            raise ConfigError(f"there is no model file at {path}", hint="give the path of a GGUF file")
        child = _Child(self.api_key)
        try:
            child.start(self._settings(path), self._start_timeout)
        except BaseException:  # Ctrl-C while loading included: no child stays behind
            child.leave()
            raise
        self._child = child

    def close(self) -> None:
        """Stop the child, also in the middle of an answer, within two seconds. May be called twice."""
        child, self._child = self._child, None
        if child is not None:
            child.leave()

    def _settings(self, path: Path) -> dict[str, object]:
        return {
            "path": str(path),
            "model": self.model,
            "api_key": self.api_key,
            "ctx": self._ctx,
            "prompt_threads": min(MOST_PROMPT_THREADS, os.cpu_count() or 1),
        }


class _Child:
    """One child process, from spawn to exit, with the two threads that read its pipes."""

    def __init__(self, secret: str) -> None:
        self.address = ""
        self._secret = secret
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._process = _spawn()
        self._readers = [
            threading.Thread(target=reader, daemon=True, name="sidestream-local")
            for reader in (self._read_answer, self._read_log)
        ]
        for reader in self._readers:
            reader.start()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        return "\n".join(tuple(self._log))

    def start(self, settings: dict[str, object], timeout: float) -> None:
        """Hand over the settings and wait for the address, or say why there is none."""
        with contextlib.suppress(OSError):  # dead already: the missing answer below says so
            pipe = _pipe(self._process.stdin)
            pipe.write(json.dumps(settings).encode() + b"\n")
            pipe.flush()
        try:
            answer = self._answers.get(timeout=timeout)
        except queue.Empty:
            raise ConfigError(
                f"the local model did not start within {timeout:g} s", hint="allow more with start_timeout"
            ) from None
        if not answer:
            self.leave()
            raise explain(self._process.returncode, self.log())
        self.address = json.loads(answer)["address"]

    def leave(self) -> None:
        """Close stdin, which ends the child; kill it if that takes too long. Then collect what is left."""
        with contextlib.suppress(OSError):  # a settings line it never read
            _pipe(self._process.stdin).close()
        try:
            self._process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join(DRAIN_SECONDS)

    def _read_answer(self) -> None:
        with _pipe(self._process.stdout) as pipe:
            self._answers.put(pipe.readline(LOG_LINE_CHARS))

    def _read_log(self) -> None:
        with _pipe(self._process.stderr) as pipe:
            while line := pipe.readline(LOG_LINE_CHARS):
                self._log.append(line.decode(errors="replace").rstrip().replace(self._secret, "***"))


def _spawn() -> subprocess.Popen[bytes]:
    # OpenMP's waiting threads spin by default: with one busy core beside it the model slows down thirtyfold.
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    try:
        return subprocess.Popen(  # noqa: S603  (our own script, no shell)
            [sys.executable, "-P", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise ConfigError(f"cannot start a Python process for the local model: {error}") from error


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise AssertionError("the child is always started with three pipes")
    return pipe


def explain(exit_code: int, log: str) -> ConfigError:
    """The error for a child that ended before it answered."""
    evidence = f"exit code {exit_code}\n{log}"
    for reason in REASONS:
        if re.search(reason.pattern, evidence, re.IGNORECASE):
            return ConfigError(f"{reason.message} ({_last_words(exit_code, log)})", hint=reason.hint)
    return ConfigError(f"the local model did not start ({_last_words(exit_code, log)})", hint=OTHER_HINT)


def _last_words(exit_code: int, log: str) -> str:
    tail = " | ".join(line.strip() for line in log.splitlines()[-TAIL_LINES:] if line.strip())
    return f"exit code {exit_code}: {tail[-TAIL_CHARS:]}" if tail else f"exit code {exit_code}"
