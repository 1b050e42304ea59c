"""Reading what a user names, never more than a limit; writing whole or not at all.

A file is written beside its place, flushed to disk and renamed; what is no regular file (a device, a pipe) is
written to and never replaced. What the bytes mean is not known here.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path

from ..errors import ConfigError, UsageError

__all__ = ["STDIN", "read_bytes", "read_text", "write_whole"]

STDIN = Path("-")


def read_bytes(path: Path, limit: int, hint: str = "") -> bytes:
    """The file's bytes, or stdin's for "-".

    Raises:
        UsageError: it cannot be read, or is larger than `limit`.
    """
    name = "stdin" if path == STDIN else str(path)
    try:
        if path == STDIN:
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                data = file.read(limit + 1) if size <= limit else bytes(limit + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read {name}: {reason}", hint=hint) from None
    if len(data) > limit:
        raise UsageError(f"{name} is larger than {limit // 1024**2} MiB", hint="split it, or send less")
    return data


def read_text(path: Path, limit: int, hint: str = "") -> str:
    """The same as UTF-8 text.

    Raises:
        UsageError: as for `read_bytes`, or it is not UTF-8.
    """
    data = read_bytes(path, limit, hint)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        name = "stdin" if path == STDIN else str(path)
        what = f"{name} is not UTF-8 text (byte {error.start + 1})"
        raise UsageError(what, hint="convert it first, for example: iconv -t UTF-8") from None


def write_whole(path: Path, data: bytes) -> None:
    """Make the file appear complete or not at all; a device or pipe is simply written to.

    An existing file keeps its permissions, a new one is its owner's alone: conversations are private.

    Raises:
        ConfigError: it cannot be written; nothing is left behind.
    """
    try:
        target = path.resolve()
        mode = target.stat().st_mode if target.exists() else None
        if mode is None or stat.S_ISREG(mode):
            _replace(target, data, mode)
        else:
            with target.open("wb", buffering=0) as device:
                device.write(data)
    except OSError as error:
        hint = "check that its folder exists, can be written and has room"
        raise ConfigError(f"cannot write {path}: {error.strerror or error}", hint=hint) from None


def _replace(target: Path, data: bytes, mode: int | None) -> None:
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".sidestream-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            Path(name).chmod(stat.S_IMODE(mode))
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
