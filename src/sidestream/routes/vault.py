"""A small JSON document with secrets that several programs share: never torn, never lost, never shown.

Strategy: whoever changes it holds a lock that all processes see, reads it again under that lock, and puts a
whole new file in the place of the old one: written beside it with 0600, synced, renamed. Readers take no
lock; a file that somebody else is in the middle of writing (the Codex CLI truncates it first) is read again.
The pen is taken before anything irrevocable happens elsewhere: a folder that cannot be written is noticed.

`Document` keeps the fields out of every repr and traceback, and no exception from here has one in its chain.
A system keyring holds the same document as a text. What the fields mean is not here.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import ConfigError

__all__ = ["Document", "FileVault", "KeyringVault", "Pen", "Vault", "locked", "parse"]

LIMIT = 1024 * 1024
_WINDOWS = os.name == "nt"
# Pauses in seconds after which a file that makes no sense is read again: it may be being written.
_AGAIN = (0.01, 0.04, 0.2)
_POLL = (0.001, 0.02)  # seconds between two looks at a lock: the first, and the longest
_REPLACE_TRIES = 50  # Windows: a file that somebody reads cannot be replaced at that moment


class Document:
    """The fields of a JSON object that holds secrets. Only `reveal` shows them."""

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def reveal(self) -> dict[str, Any]:
        """The fields themselves."""
        return self._fields

    def text(self) -> str:
        """The document as it is stored."""
        return json.dumps(self._fields, indent=2)

    def __repr__(self) -> str:
        return "Document(***)"


def parse(data: bytes | str) -> Document | None:
    """The document in these bytes; None if they are not a JSON object of a sensible size."""
    if len(data) > LIMIT:
        return None
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError, and so are endless numbers
        return None
    return Document(fields) if isinstance(fields, dict) else None


Pen = Callable[[Document], None]


class Vault(Protocol):
    """Where the document is.

    Attributes:
        where: for people.
        lock: the file that whoever changes it locks.
    """

    @property
    def where(self) -> str: ...

    @property
    def lock(self) -> Path: ...

    def read(self) -> Document | None:
        """The document; None if there is none.

        Raises:
            ConfigError: it cannot be read, or is damaged.
        """

    def pen(self) -> contextlib.AbstractContextManager[Pen]:
        """What replaces the document. Only under the lock.

        Raises:
            OSError: it cannot be written; as early as that can be known.
        """


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look at a file found: nothing there, no sense, or the document."""

    missing: bool = False
    document: Document | None = None


class FileVault:
    """The document as a file; a symbolic link to it stays one."""

    def __init__(self, path: Path, *, hint: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self.path = path
        self.where = str(path)
        self._hint = hint
        self._sleep = sleep

    @property
    def lock(self) -> Path:
        """Beside the file itself: two links to one file share it."""
        return self._beside("lock")

    def _beside(self, suffix: str) -> Path:
        target = Path(os.path.realpath(self.path))
        return target.with_name(f".{target.name}.sidestream.{suffix}")

    def read(self) -> Document | None:
        for pause in (*_AGAIN, None):
            seen = self._look()
            if seen.missing or seen.document is not None:
                return seen.document
            if pause is not None:
                self._sleep(pause)
        raise ConfigError(f"{self.path} is damaged: it is no JSON object", hint=self._hint)

    def _look(self) -> _Seen:
        try:
            fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a FIFO must not block us
        except FileNotFoundError:
            return _Seen(missing=True)
        except OSError as error:
            raise ConfigError(f"cannot read {self.path}: {error.strerror}", hint=self._hint) from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError(f"{self.path} is not a regular file", hint=self._hint)
            with os.fdopen(fd, "rb", closefd=False) as file:
                return _Seen(document=parse(file.read(LIMIT + 1)))
        finally:
            os.close(fd)

    def is_open_to_others(self) -> bool:
        """Whether other users of this machine may read or write the file. Never so on Windows."""
        with contextlib.suppress(OSError):
            return sys.platform != "win32" and bool(self.path.stat().st_mode & 0o077)
        return False

    @contextlib.contextmanager
    def pen(self) -> Iterator[Pen]:
        target, draft = Path(os.path.realpath(self.path)), self._beside("draft")
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()  # of a process that was killed; nobody else is at work, for we hold the lock
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        fd = os.open(draft, flags, 0o600)
        _keep_owner(fd, target)
        try:
            with os.fdopen(fd, "wb") as file:

                def write(document: Document) -> None:
                    file.write(document.text().encode())
                    file.flush()
                    os.fsync(fd)
                    file.close()
                    _replace(draft, target, self._sleep)

                yield write
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()


def _keep_owner(fd: int, target: Path) -> None:
    """With `sudo`, the file stays that of its user."""
    if sys.platform != "win32" and os.geteuid() == 0:
        with contextlib.suppress(OSError):
            had = target.stat()
            os.fchown(fd, had.st_uid, had.st_gid)


def _replace(draft: Path, target: Path, sleep: Callable[[float], None]) -> None:
    for left in range(_REPLACE_TRIES, -1, -1):
        try:
            draft.replace(target)
            break
        except PermissionError:
            if not (_WINDOWS and left):
                raise
            sleep(_POLL[1])
    if sys.platform != "win32":
        with contextlib.suppress(OSError):  # some file systems cannot; the name is safe a little later there
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


class KeyringVault:
    """The document as a password in the system's keyring, if the package `keyring` is installed."""

    def __init__(self, service: str, account: str, lock: Path, *, hint: str) -> None:
        self.where = f"the system's keyring ({service!r})"
        self.lock = lock
        self._service, self._account = service, account
        self._hint = hint

    def read(self) -> Document | None:
        keyring = _keyring()
        if keyring is None:
            return None
        seen = self._look(keyring)
        if not seen.missing and seen.document is None:
            raise ConfigError(f"{self.where} is damaged: its entry is no JSON object", hint=self._hint)
        return seen.document

    def _look(self, keyring: Any) -> _Seen:
        try:
            found = keyring.get_password(self._service, self._account)
        except keyring.errors.NoKeyringError:
            return _Seen(missing=True)
        except keyring.errors.KeyringError as error:
            reason = type(error).__name__  # what a backend says may quote anything
            raise ConfigError(f"cannot read {self.where}: {reason}", hint=self._hint) from None
        return _Seen(missing=True) if found is None else _Seen(document=parse(found))

    @contextlib.contextmanager
    def pen(self) -> Iterator[Pen]:
        keyring = _keyring()
        if keyring is None:
            raise OSError("the package keyring is not installed")

        def write(document: Document) -> None:
            try:
                keyring.set_password(self._service, self._account, document.text())
            except keyring.errors.KeyringError as error:
                raise OSError(f"the keyring did not take it ({type(error).__name__})") from None

        yield write


def _keyring() -> Any:
    try:
        module = importlib.import_module("keyring")
        importlib.import_module("keyring.errors")
    except ImportError:
        return None
    return module


@contextlib.contextmanager
def locked(
    path: Path, seconds: float, *, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Iterator[bool]:
    """Hold the lock of that file against all threads and processes; False if it was not to be had in time.

    The file stays: taking a lock file away lets two hold it. A holder that dies lets go.

    Raises:
        OSError: the file cannot be made.
    """
    until, pause = clock() + seconds, _POLL[0]
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        while not (held := _try_lock(fd)) and clock() < until:
            sleep(min(pause, max(0.0, until - clock())))
            pause = min(pause * 1.5, _POLL[1])
        try:
            yield held
        finally:
            if held:
                _unlock(fd)  # said aloud: a child that was forked meanwhile has this descriptor, too
    finally:
        os.close(fd)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(fd: int) -> bool:
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)
