"""The parent's side of the child process, with a stand-in for llama.cpp that can fail in every way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from sidestream.errors import ConfigError, UsageError
from sidestream.local import LocalModel
from sidestream.local.server import CONTEXT, LOG_LINES, explain

if TYPE_CHECKING:
    from collections.abc import Callable

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

STAND_IN = """
import os, signal, sys, threading, time, types

class CommonParams:
    def __init__(self):
        self.model = types.SimpleNamespace()
        self.cpuparams = types.SimpleNamespace()
        self.cpuparams_batch = types.SimpleNamespace()

ggml_type = types.SimpleNamespace(GGML_TYPE_Q8_0=8)

class Server:
    listening_address = "http://127.0.0.1:9"
    def __init__(self, params):
        self.params = params
        load(params)
"""


class Fake(Protocol):
    """Puts the stand-in in place; returns the path of a model file for it."""

    def __call__(self, loading: str = "pass", at_import: str = "") -> Path: ...


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put a stand-in `xllamacpp` before the real one; the given lines run while it loads the model."""

    def install(loading: str = "pass", at_import: str = "") -> Path:
        package = tmp_path / "fake"
        package.mkdir(exist_ok=True)
        body = textwrap.indent(textwrap.dedent(loading), "    ")
        (package / "xllamacpp.py").write_text(f"{STAND_IN}\ndef load(params):\n{body}\n{at_import}\n")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")]))
        (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
        return tmp_path / "tiny.gguf"

    return install


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def gone(pid: int, within: float = 10.0) -> bool:
    give_up = time.monotonic() + within
    while is_alive(pid) and time.monotonic() < give_up:
        time.sleep(0.02)
    return not is_alive(pid)


def child_pid(model: LocalModel) -> int:
    assert model._child is not None
    return model._child._process.pid


def test_importing_the_package_loads_no_model_code() -> None:
    """`import sidestream.local` must not import llama.cpp: on an old CPU that would end the process."""
    code = "import sys, sidestream.local; sys.exit('xllamacpp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_context_manager_starts_and_ends_the_child(fake: Fake) -> None:
    """Inside there is a URL, a key and a model name; afterwards there is no child."""
    with LocalModel(path=fake()) as model:
        assert model.url == "http://127.0.0.1:9/v1"
        assert (model.model, model.running) == ("tiny", True)
        pid = child_pid(model)
    assert not model.running
    assert gone(pid)
    model.close()


def test_a_closed_model_starts_again(fake: Fake) -> None:
    """The same object may be started again; starting a running one changes nothing."""
    model = LocalModel(path=fake())
    with model:
        first = child_pid(model)
        model.start()
        assert child_pid(model) == first
    with model:
        assert child_pid(model) != first


def test_before_the_start_there_is_no_url() -> None:
    """Asking for the URL too early is the caller's mistake and says what to write."""
    with pytest.raises(UsageError) as caught:
        _ = LocalModel().url
    assert "with LocalModel()" in caught.value.hint


@pytest.mark.parametrize("ctx", [0, CONTEXT[0] - 1, CONTEXT[-1] + 1])
def test_a_context_window_the_model_does_not_have_is_refused(ctx: int) -> None:
    """`ctx` is checked before anything is started."""
    with pytest.raises(UsageError, match="ctx must be"):
        LocalModel(ctx=ctx)


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    """A path without a file is a configuration error with that path."""
    with pytest.raises(ConfigError, match=r"absent\.gguf"):
        LocalModel(path=tmp_path / "absent.gguf").start()


@linux
def test_the_key_is_nowhere_to_be_read(fake: Fake) -> None:
    """Not in the child's argv or environment, not in repr, and not in the log even if the child prints it."""
    with LocalModel(path=fake("print('my key is', params.api_keys[0], file=sys.stderr)")) as model:
        process = Path(f"/proc/{child_pid(model)}")
        for place in ("cmdline", "environ"):
            assert model.api_key.encode() not in (process / place).read_bytes()
        assert model.api_key not in repr(model)
        wait_for(lambda: "my key is ***" in model.log)
        assert model.api_key not in model.log
    assert len({LocalModel().api_key for _ in range(8)}) == 8


def test_the_server_is_closed_to_everyone_else(fake: Fake) -> None:
    """One loopback address, a key, no CORS, no web page, one slot, no growing cache."""
    checks = """
        assert params.hostnames == ["127.0.0.1"] and params.port == 0
        assert len(params.api_keys) == 1 and len(params.api_keys[0]) > 30
        assert params.cors_origins == "" and params.ui is False
        assert params.n_parallel == 1 and params.cache_ram_mib == 0 and params.n_ctx == 512
        assert params.cache_type_k == params.cache_type_v == 8
        assert os.environ["OMP_WAIT_POLICY"] == "passive"
    """
    with LocalModel(path=fake(checks), ctx=512) as model:
        assert model.running


FAILURES = {
    "not installed": ("raise ModuleNotFoundError(\"No module named 'xllamacpp'\")", "sidestream[local]"),
    "no libgomp": (
        "raise ImportError('libgomp.so.1: cannot open shared object file')",
        "apt install libgomp1",
    ),
    "no libstdc++": ("raise ImportError('libstdc++.so.6: cannot open')", "apt install libstdc++6"),
    "old CPU": ("os.kill(os.getpid(), signal.SIGILL)", "configured provider"),
    "killed for memory": ("os.kill(os.getpid(), signal.SIGKILL)", "smaller ctx"),
    "no memory": ("raise MemoryError('std::bad_alloc')", "smaller ctx"),
    "damaged file": ("raise RuntimeError('failed to load model')", "delete it"),
    "anything else": ("raise RuntimeError('the moon is full')", "configured provider"),
}


@posix
@pytest.mark.parametrize(("at_import", "hint"), FAILURES.values(), ids=FAILURES)
def test_a_child_that_cannot_start_is_explained(fake: Fake, at_import: str, hint: str) -> None:
    """Every way to fail becomes a ConfigError with a hint; the caller's process never dies of it."""
    model = LocalModel(path=fake(at_import=at_import))
    with pytest.raises(ConfigError, match="exit code") as caught:
        model.start()
    assert hint in caught.value.hint
    assert not model.running


def test_the_last_words_of_the_child_are_in_the_error(fake: Fake) -> None:
    """What the child said last, and only that, is part of the message."""
    model = LocalModel(
        path=fake("sys.stderr.write('noise\\n' * 500); raise RuntimeError('the moon is full')")
    )
    with pytest.raises(ConfigError, match="RuntimeError: the moon is full") as caught:
        model.start()
    assert len(str(caught.value)) < 600


def test_a_child_that_never_answers_is_ended(fake: Fake) -> None:
    """Waiting for the model to load is bounded, names its setting, and leaves no child."""
    path = fake("open(params.model.path + '.pid', 'w').write(str(os.getpid())); time.sleep(600)")
    with pytest.raises(ConfigError, match=r"did not start within 1\.5 s") as caught:
        LocalModel(path=path, start_timeout=1.5).start()
    assert "start_timeout" in caught.value.hint
    assert gone(int(Path(f"{path}.pid").read_text()))


def test_a_child_that_will_not_leave_is_killed(fake: Fake) -> None:
    """close() is bounded even when the child ignores the closed pipe."""
    with LocalModel(path=fake("os._exit = lambda code: time.sleep(600)")) as model:
        pid = child_pid(model)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert gone(pid)


def test_a_chatty_child_neither_blocks_nor_fills_the_memory(fake: Fake) -> None:
    """The log is drained while it is written, and only its end is kept."""
    with LocalModel(
        path=fake("for n in range(20_000): print('line', n, 'x' * 50, file=sys.stderr)")
    ) as model:
        wait_for(lambda: "line 19999" in model.log)
        assert len(model.log.splitlines()) <= LOG_LINES


def test_output_on_stdout_does_not_disturb_the_handshake(fake: Fake) -> None:
    """Whatever native code prints to stdout lands in the log, not in the answer."""
    with LocalModel(path=fake("os.write(1, b'native noise\\n')")) as model:
        assert model.url == "http://127.0.0.1:9/v1"
        wait_for(lambda: "native noise" in model.log)


@posix
def test_a_child_that_dies_later_is_noticed(fake: Fake) -> None:
    """`running` and repr tell the truth after a crash, and close() still works."""
    with LocalModel(path=fake()) as model:
        os.kill(child_pid(model), signal.SIGKILL)
        wait_for(lambda: not model.running)
        assert "not running" in repr(model)


PARENT = """
import os, sys, time
from sidestream.local import LocalModel
model = LocalModel(path=sys.argv[1])
model.start()
if sys.argv[2] == "fork" and os.fork() == 0:
    time.sleep(20)
    os._exit(0)
print(model._child._process.pid, flush=True)
time.sleep(600)
"""


@posix
@pytest.mark.parametrize("how", ["plain", "fork"])
def test_a_killed_parent_leaves_no_child(fake: Fake, how: str) -> None:
    """The child leaves when the parent is killed, even while a fork of the parent holds the pipe open."""
    command = [sys.executable, "-W", "ignore", "-c", PARENT, str(fake()), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
        parent.wait(10)
        assert gone(pid)
        parent.stdout.close()


@posix
def test_ctrl_c_in_the_terminal_is_the_parents_business(fake: Fake) -> None:
    """The interrupt that reaches the whole process group does not end the child behind its parent's back."""
    with LocalModel(path=fake()) as model:
        os.kill(child_pid(model), signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            model._child._process.wait(0.3)  # type: ignore[union-attr]
        assert model.running


def test_without_a_python_to_start_the_error_is_typed(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that cannot be started is a ConfigError, not an OSError."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ConfigError, match="cannot start a Python process"):
        LocalModel(path=fake()).start()


def test_windows_exit_code_of_an_old_cpu_is_known() -> None:
    """STATUS_ILLEGAL_INSTRUCTION means the same as SIGILL."""
    assert "AVX2" in str(explain(3221225501, ""))


def wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)
