"""Documents with secrets: read whole or not at all, written whole or not at all, one writer at a time."""

import importlib.util
import json
import os
import stat
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

from sidestream import ConfigError
from sidestream.routes.vault import LIMIT, Document, FileVault, KeyringVault, locked, parse

CANARY = "rt-canary-0123456789"
posix = pytest.mark.skipif(sys.platform == "win32", reason="modes and links are those of POSIX")


def vault(path: Path, **settings: Any) -> FileVault:
    return FileVault(path, **{"hint": "sign in", "sleep": lambda _: None} | settings)


def shown(error: BaseException) -> str:
    """All that a crash reporter could show of it."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def test_a_document_shows_nothing_of_itself() -> None:
    """No text form has a field; only who asks for the fields gets them."""
    document = Document({"token": CANARY})
    assert repr([document]) == "[Document(***)]"
    assert CANARY not in f"{document} {document!r}"
    assert document.reveal() == {"token": CANARY}
    assert json.loads(document.text()) == {"token": CANARY}


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"7", b"\xff\xfe", b'{"a": NaN', b"[" * 200_000, b"9" * 5000, b" " * (LIMIT + 1)],
)
def test_what_is_no_object_of_a_sensible_size_is_no_document(data: bytes) -> None:
    """Torn, foreign, endless or deep data are None, and no exception leaves."""
    assert parse(data) is None


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    """No file, no folder, and a link that leads nowhere: there is no document."""
    assert vault(tmp_path / "auth.json").read() is None
    assert vault(tmp_path / "none" / "auth.json").read() is None
    (tmp_path / "auth.json").symlink_to(tmp_path / "gone")
    assert vault(tmp_path / "auth.json").read() is None


def test_a_file_that_is_being_written_is_read_again(tmp_path: Path) -> None:
    """A torn file is looked at once more, after a pause; what it is by then counts."""
    path = tmp_path / "auth.json"
    path.write_text("")
    states = iter(['{"tok', '{"token": 1}'])
    found = vault(path, sleep=lambda _: path.write_text(next(states)) and None).read()
    assert found is not None
    assert found.reveal() == {"token": 1}


def test_a_damaged_file_is_a_config_error_that_shows_nothing(tmp_path: Path) -> None:
    """It names the file and what to do; neither message nor traceback has a piece of the content."""
    path = tmp_path / "auth.json"
    path.write_text(f'{{"refresh_token": "{CANARY}"')
    with pytest.raises(ConfigError, match=r"auth\.json is damaged: it is no JSON object") as caught:
        vault(path).read()
    assert caught.value.hint == "sign in"
    assert CANARY not in shown(caught.value)


@posix
def test_what_is_no_readable_file_is_a_config_error(tmp_path: Path) -> None:
    """A folder or a pipe in its place is refused at once, and so is more than a document may have."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").write_bytes(b" " * (LIMIT + 1))
    for name, words in (
        ("folder", "not a regular file"),
        ("pipe", "not a regular file"),
        ("huge", "damaged"),
    ):
        with pytest.raises(ConfigError, match=words):
            vault(tmp_path / name).read()


@posix
def test_writing_replaces_the_file_as_a_whole(tmp_path: Path) -> None:
    """The new file has mode 0600 whatever the old one had, and nothing is left beside it."""
    path = tmp_path / "auth.json"
    path.write_text("{}")
    path.chmod(0o644)
    assert vault(path).is_open_to_others()
    with path.open("rb") as old, vault(path).pen() as write:
        assert stat.S_IMODE((tmp_path / ".auth.json.sidestream.draft").stat().st_mode) == 0o600
        write(Document({"a": "é"}))
        assert old.read() == b"{}"
    assert json.loads(path.read_bytes()) == {"a": "é"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not vault(path).is_open_to_others()
    assert [entry.name for entry in tmp_path.iterdir()] == ["auth.json"]


@posix
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """Writing through a symbolic link changes the file it leads to, and locks beside that."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").mkdir()
    target, link = tmp_path / "real" / "a.json", tmp_path / "link" / "auth.json"
    target.write_text("{}")
    link.symlink_to(target)
    with vault(link).pen() as write:
        write(Document({"a": 1}))
    assert link.is_symlink()
    assert json.loads(target.read_bytes()) == {"a": 1}
    assert vault(link).lock == vault(target).lock == tmp_path / "real" / ".a.json.sidestream.lock"


@posix
def test_what_a_killed_writer_left_goes_away(tmp_path: Path) -> None:
    """The draft of a process that was killed is removed by the next one that writes, link or not."""
    path, draft = tmp_path / "auth.json", tmp_path / ".auth.json.sidestream.draft"
    path.write_text("{}")
    (tmp_path / "precious").write_text("mine")
    for leave in (lambda: draft.write_text(CANARY), lambda: draft.symlink_to(tmp_path / "precious")):
        leave()
        with vault(path).pen():
            pass
        assert not draft.is_symlink()
        assert not draft.exists()
    assert (tmp_path / "precious").read_text() == "mine"


@posix
def test_a_folder_that_cannot_be_written_is_noticed_before_anything_is_done(tmp_path: Path) -> None:
    """Taking the pen fails; nobody has to find out with a new token in the hand."""
    with pytest.raises(OSError, match="No such file"), vault(tmp_path / "gone" / "auth.json").pen():
        pytest.fail("the pen was handed out")


def test_one_holds_the_lock_and_the_others_wait_in_vain(tmp_path: Path) -> None:
    """A second holder waits so long and no longer; when the first lets go, the next one has it."""
    path, now = tmp_path / "lock", [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def taken(seconds: float) -> bool:
        with locked(path, seconds, clock=lambda: now[0], sleep=sleep) as held:
            return held

    with locked(path, 1.0, clock=lambda: now[0], sleep=sleep) as held:
        assert held
        assert not taken(2.0)
        assert now[0] == pytest.approx(2.0)
        assert not taken(0.0)
    assert taken(0.0)
    assert path.stat().st_size == 0


def test_threads_take_turns(tmp_path: Path) -> None:
    """Eight threads that each add to a number under the lock lose no addition."""
    path, total = tmp_path / "n", [0]
    path.write_text("0")

    def add() -> None:
        for _ in range(5):
            with locked(
                tmp_path / "lock", 60, clock=lambda: 0.0, sleep=lambda s: threading.Event().wait(s) and None
            ):
                path.write_text(str(int(path.read_text()) + 1))
                total[0] += 1

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (int(path.read_text()), total[0]) == (40, 40)


# The system's keyring.

needs_keyring = pytest.mark.skipif(importlib.util.find_spec("keyring") is None, reason="needs keyring")


def test_without_the_package_there_is_nothing_in_the_keyring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading finds nothing; writing says why not."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    safe = KeyringVault("Codex Auth", "cli|x", tmp_path / "lock", hint="sign in")
    assert safe.read() is None
    with pytest.raises(OSError, match="keyring is not installed"), safe.pen():
        pytest.fail("the pen was handed out")


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A keyring in memory, of the package's own kind."""
    keyring = pytest.importorskip("keyring")
    backend = pytest.importorskip("keyring.backend")
    errors = pytest.importorskip("keyring.errors")

    class Memory(backend.KeyringBackend):  # type: ignore[misc, name-defined]
        priority = 1

        def __init__(self) -> None:
            super().__init__()
            self.kept: dict[tuple[str, str], str] = {}
            self.locked = False

        def get_password(self, service: str, username: str) -> str | None:
            if self.locked:
                raise errors.KeyringLocked(f"cannot show {CANARY}")
            return self.kept.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            if self.locked:
                raise errors.PasswordSetError(f"cannot set {password}")
            self.kept[service, username] = password

        def delete_password(self, service: str, username: str) -> None:
            del self.kept[service, username]

    before, memory = keyring.get_keyring(), Memory()
    keyring.set_keyring(memory)
    yield memory
    keyring.set_keyring(before)


def test_a_document_in_the_keyring_is_read_and_replaced(ring: Any, tmp_path: Path) -> None:
    """What is written is what is read next."""
    safe = KeyringVault("Codex Auth", "cli|x", tmp_path / "lock", hint="sign in")
    assert safe.read() is None
    with safe.pen() as write:
        write(Document({"a": 1}))
    found = safe.read()
    assert found is not None
    assert found.reveal() == {"a": 1}
    assert list(ring.kept) == [("Codex Auth", "cli|x")]


def test_a_keyring_that_does_not_give_or_take_is_an_error_that_shows_nothing(
    ring: Any, tmp_path: Path
) -> None:
    """Locked or damaged: the error says so, and has nothing of what the backend said."""
    safe = KeyringVault("Codex Auth", "cli|x", tmp_path / "lock", hint="sign in")
    ring.kept["Codex Auth", "cli|x"] = f'{{"refresh_token": "{CANARY}'
    with pytest.raises(ConfigError, match="is damaged") as damaged:
        safe.read()
    ring.locked = True
    with pytest.raises(ConfigError, match="KeyringLocked") as closed:
        safe.read()
    with pytest.raises(OSError, match="did not take it") as refused, safe.pen() as write:
        write(Document({"refresh_token": CANARY}))
    for caught in (damaged, closed, refused):
        assert CANARY not in shown(caught.value)
