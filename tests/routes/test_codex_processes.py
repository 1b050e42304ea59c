"""One token, several processes: none is lost, no file is ever torn, and a killed process leaves no mess."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from codexhome import read_auth, route, sign_in, write_auth

from sidestream.lab import Codex, Fault, Lab

CHILD = Path(__file__).with_name("codex_child.py")


def start(home: Path, lab: Lab, count: int) -> subprocess.Popen[str]:
    """A process that renews so often; 0: until it is killed."""
    command = [sys.executable, str(CHILD), str(home), Codex.base_url(lab), Codex.token_url(lab), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


class Reader:
    """A third party that reads the file all the time, as any program would: once, and as it is."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self.reads, self.torn, self.modes = 0, 0, set[int]()

    def _read(self) -> None:
        while not self._over.is_set():
            try:
                tokens = json.loads(self._file.read_bytes())["tokens"]
                self.torn += tokens.keys() != {"id_token", "access_token", "refresh_token", "account_id"}
            except (ValueError, KeyError, OSError):
                self.torn += 1
            self.modes.add(self._file.stat().st_mode & 0o777)
            self.reads += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_two_processes_renew_one_token_five_hundred_times_each(
    lab: Callable[..., Lab], tmp_path: Path
) -> None:
    """Every renewal of both finds another key; the chain of single-use tokens is unbroken; a reader never
    sees half a file or an open one."""
    codex = Codex()
    running = lab(codex)
    file = write_auth(tmp_path / "codex", codex.auth() | {"kept": "as it was"})
    with Reader(file) as reader:
        children = [start(tmp_path / "codex", running, 500) for _ in range(2)]
        said = [child.communicate()[0].split("\n")[:-1] for child in children]
    assert [set(lines) for lines in said] == [{"new"}, {"new"}]
    assert [len(lines) for lines in said] == [500, 500]
    assert codex.asked == codex.rotated >= 500
    assert codex.reused == 0
    assert read_auth(tmp_path / "codex")["tokens"].items() >= codex.tokens.items()
    assert read_auth(tmp_path / "codex")["kept"] == "as it was"
    assert (reader.torn, reader.modes) == (0, {0o600})
    assert reader.reads > 100


def test_killed_processes_leave_a_whole_file(lab: Callable[..., Lab], tmp_path: Path) -> None:
    """Six times a process is killed in the middle of renewing. The file is whole each time; its token is
    good, or the endpoint has used it up for the process that was killed, and the next one says that somebody
    has to sign in. The lock is free and no draft stays."""
    codex = Codex()
    running = lab(codex)
    home = tmp_path / "codex"
    write_auth(home, codex.auth())
    for killed_after in (1, 2, 3, 5, 8, 13):
        child = start(home, running, 0)
        running.wait_request(codex.asked + killed_after, timeout=30)
        child.kill()
        child.communicate()
        assert read_auth(home)["tokens"].keys() == codex.auth()["tokens"].keys()
        signed = sign_in(home, running)
        if signed.renew(signed.apply(route(running)), 30) is None:
            assert codex.reused
            assert signed.problem.endswith("(refresh_token_reused): sign in with `codex login`")
            codex.login()
            write_auth(home, codex.auth())
        assert {p.name for p in home.iterdir()} == {"auth.json", ".auth.json.sidestream.lock"}


def test_a_process_killed_between_asking_and_writing_loses_the_token_and_nothing_else(
    lab: Callable[..., Lab], tmp_path: Path
) -> None:
    """The endpoint has used the token up, and who asked is gone before the answer: the file is whole and old,
    and the next process learns it, once, and says what to do."""
    codex = Codex(token_plan=[Fault.hang()])
    running = lab(codex)
    home = tmp_path / "codex"
    write_auth(home, codex.auth())
    before = read_auth(home)
    child = start(home, running, 1)
    running.wait_request(0, timeout=30)
    child.kill()
    child.communicate()
    assert read_auth(home) == before
    signed = sign_in(home, running)
    applied = signed.apply(route(running))
    for _ in range(2):
        assert signed.renew(applied, 30) is None
        assert signed.problem.endswith("(refresh_token_reused): sign in with `codex login`")
    assert (codex.rotated, codex.reused) == (1, 1)


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_no_token_is_in_the_arguments_environment_or_files_of_a_process(
    lab: Callable[..., Lab], tmp_path: Path
) -> None:
    """While it renews, its command line, environment and open files' names have no token, and its folder has
    none but in the document."""
    codex = Codex(token_plan=[Fault.hang()])
    running = lab(codex)
    home = tmp_path / "codex"
    write_auth(home, codex.auth())
    tokens = [*codex.tokens.values()]
    child = start(home, running, 1)
    running.wait_request(0, timeout=30)
    process = Path(f"/proc/{child.pid}")
    names = [str(entry.readlink()) for entry in (process / "fd").iterdir()]
    shown = (process / "cmdline").read_text() + (process / "environ").read_text(errors="replace") + str(names)
    others = "".join(p.read_text() for p in home.iterdir() if p.name != "auth.json")
    child.kill()
    said: Any = child.communicate()[0]
    assert not [token for token in tokens if token in shown + others + said]
    assert re.search(r"auth\.json\.sidestream\.draft", str(names))
