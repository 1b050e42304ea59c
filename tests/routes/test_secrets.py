"""Keys in variables, files and the keyring: read when they are used, and never shown."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import stat
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sidestream
from sidestream import ConfigError, Route, Secret
from sidestream.lab import Lab, script
from sidestream.routes.config import parse
from sidestream.routes.secrets import (
    LONGEST,
    EnvKey,
    FileKey,
    FixedKey,
    Kept,
    KeyringKey,
    credentials_of,
    headers_of,
)

CANARY = "sk-canary-0123456789abcdef"
ROUTE = Route("https://h.test/v1", "m", name="main")
posix = pytest.mark.skipif(sys.platform == "win32", reason="permissions are another thing there")


def key_file(folder: Path, text: str | bytes = CANARY, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


class Ring:
    """What stands in a keyring: the part of the `keyring` package that is used."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str], str] = {}
        self.looked = 0
        self.fails: Exception | None = None

    def get(self, service: str, user: str) -> str | None:
        self.looked += 1
        if self.fails:
            raise self.fails
        return self.keys.get((service, user))


@pytest.fixture
def ring() -> Any:
    """A keyring of our own behind the real package, by its own plug-in interface."""
    keyring = pytest.importorskip("keyring")
    backend = pytest.importorskip("keyring.backend")
    held = Ring()

    class Backend(backend.KeyringBackend):  # type: ignore[misc]
        priority = 1

        def get_password(self, service: str, username: str) -> str | None:
            return held.get(service, username)

        def set_password(self, service: str, username: str, password: str) -> None:
            held.keys[service, username] = password

    before = keyring.get_keyring()
    keyring.set_keyring(Backend())
    yield held
    keyring.set_keyring(before)


def places(folder: Path) -> list[tuple[Kept, Callable[[str], None]]]:
    """Credentials, each with the way to put another key in its place."""
    env = {"KEY": CANARY}
    path = key_file(folder)
    return [(EnvKey("KEY", env), lambda key: env.update(KEY=key)), (FileKey(str(path)), path.write_text)]  # type: ignore[list-item]


def test_a_key_is_read_when_it_is_used(tmp_path: Path) -> None:
    """A key that was replaced in the environment or its file is what the next call uses."""
    for credential, put in places(tmp_path):
        assert credential.apply(ROUTE).api_key == Secret(CANARY)
        put("sk-another")
        assert credential.apply(ROUTE).api_key == Secret("sk-another")
        assert credential.apply(credential.apply(ROUTE)).api_key == Secret("sk-another")


def test_another_key_is_worth_a_try_and_the_same_is_not(tmp_path: Path) -> None:
    """After a rejection `renew` has the route with a new key, or None if it is the rejected one or gone."""
    for credential, put in places(tmp_path):
        used = credential.apply(ROUTE)
        assert credential.renew(used, 1) is None
        put("sk-another")
        renewed = credential.renew(used, 1)
        assert renewed is not None
        assert renewed.api_key == Secret("sk-another")
        assert (renewed.name, renewed.base_url) == (used.name, used.base_url)
        put("")
        assert credential.renew(used, 1) is None


def test_a_fixed_key_stays(tmp_path: Path) -> None:
    """There is no other key where one was handed over."""
    credential = FixedKey(Secret(CANARY), "argument api_key")
    assert credential.label == "argument api_key"
    used = credential.apply(ROUTE)
    assert used.api_key == Secret(CANARY)
    assert credential.renew(used, 1) is None


def test_space_around_a_key_is_no_part_of_it(tmp_path: Path) -> None:
    """Editors and `echo` end a file with a line break."""
    assert FileKey(str(key_file(tmp_path, f"  {CANARY}\r\n"))).read() == Secret(CANARY)
    assert EnvKey("KEY", {"KEY": f" {CANARY}\n"}).read() == Secret(CANARY)


def test_a_file_may_stand_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "~" is the home directory of today."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    key_file(tmp_path)
    assert FileKey("~/key").read() == Secret(CANARY)


def broken(folder: Path) -> list[tuple[Kept, str, str]]:
    """Places without a usable key, with what is said and advised."""
    long = folder / "long"
    long.write_text("x" * (LONGEST + 1))
    lines = folder / "lines"
    lines.write_text(f"{CANARY}\n{CANARY}\n")
    odd = folder / "odd"
    odd.write_bytes(CANARY.encode() + b"\xff")
    empty = folder / "empty"
    empty.write_text(" \n")
    return [
        (EnvKey("KEY", {}), "KEY is not set", "export KEY"),
        (EnvKey("KEY", {"KEY": ""}), "KEY is not set", "export KEY"),
        (EnvKey("KEY", {"KEY": " "}), "KEY is empty", "KEY"),
        (EnvKey("KEY", {"KEY": f"{CANARY}\n{CANARY}"}), "KEY holds characters that cannot be sent", "KEY"),
        (EnvKey("KEY", {"KEY": f"{CANARY}ß"}), "KEY holds characters that cannot be sent", "KEY"),
        (FileKey(str(folder / "none")), "No such file", "api_key_file"),
        (FileKey(str(folder)), "", ""),
        (FileKey(str(empty)), "is empty", "one line"),
        (FileKey(str(long)), "is larger than 16 KiB", "one line"),
        (FileKey(str(lines)), "holds characters that cannot be sent", "one line"),
        (FileKey(str(odd)), "it is not plain text", "api_key_file"),
    ]


def test_what_is_no_key_is_an_error_with_a_hint(tmp_path: Path) -> None:
    """Missing, empty, too long or not to be sent: said with the place, never with what is there."""
    for credential, message, hint in broken(tmp_path):
        with pytest.raises(ConfigError) as caught:
            credential.apply(ROUTE)
        assert message in str(caught.value)
        assert hint in caught.value.hint
        assert "canary" not in "".join(traceback.format_exception(caught.value))
        assert credential.renew(ROUTE, 1) is None


@posix
def test_a_pipe_does_not_keep_a_call_waiting(tmp_path: Path) -> None:
    """A key file is a regular file: a pipe without a writer would never answer."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is not a regular file"):
        FileKey(str(tmp_path / "pipe")).read()


@posix
def test_a_file_that_others_can_read_is_used_and_remarked_upon(tmp_path: Path) -> None:
    """Containers hand keys over like that; people are told, calls are not held up."""
    shared = FileKey(str(key_file(tmp_path, mode=0o644)))
    assert shared.read() == Secret(CANARY)
    assert shared.remark == "everybody can read it"
    assert FileKey(str(key_file(tmp_path, mode=0o600))).remark == ""


@posix
def test_a_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """Whoever can write it decides whose account the conversations go to."""
    path = key_file(tmp_path, mode=0o622)
    with pytest.raises(ConfigError, match="everybody can write") as caught:
        FileKey(str(path)).read()
    assert caught.value.hint == f"chmod 600 {path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o622


# The keyring.


def test_a_key_of_the_keyring_is_read_once_and_again_after_a_rejection(ring: Ring) -> None:
    """The keyring may ask its owner for a password, so calls do not look each time."""
    ring.keys["sidestream/work", "me"] = CANARY
    credential = KeyringKey("sidestream/work", "me")
    used = credential.apply(ROUTE)
    assert used.api_key == Secret(CANARY)
    assert credential.apply(ROUTE) == used
    assert ring.looked == 1
    assert credential.renew(used, 1) is None
    ring.keys["sidestream/work", "me"] = "sk-another"
    assert credential.apply(ROUTE).api_key == Secret(CANARY)
    renewed = credential.renew(used, 1)
    assert renewed is not None
    assert renewed.api_key == credential.apply(ROUTE).api_key == Secret("sk-another")


def test_a_keyring_without_the_key_says_so(ring: Ring) -> None:
    """With the command that puts it there."""
    with pytest.raises(ConfigError, match="the keyring has no key s/u") as caught:
        KeyringKey("s", "u").apply(ROUTE)
    assert "keyring set s u" in caught.value.hint


def test_a_locked_keyring_says_so(ring: Ring) -> None:
    """Only the kind of the failure is repeated: what the keyring says is not ours to show."""
    from keyring.errors import KeyringLocked

    ring.fails = KeyringLocked(CANARY)
    with pytest.raises(ConfigError, match="cannot be read: KeyringLocked") as caught:
        KeyringKey("s", "u").apply(ROUTE)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """`keyring` is an extra."""
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ConfigError, match="s/u is in the keyring") as caught:
        KeyringKey("s", "u").apply(ROUTE)
    assert "sidestream[keyring]" in caught.value.hint


# Never shown.


def test_no_credential_shows_or_pickles_its_key(tmp_path: Path) -> None:
    """Neither repr nor label nor pickle nor copy has the value."""
    fixed = FixedKey(Secret(CANARY))
    for credential, _ in places(tmp_path):
        again = pickle.loads(pickle.dumps(credential))  # noqa: S301
        assert again == credential
        assert CANARY.encode() not in pickle.dumps(credential)
        shown = repr(credential) + str(credential) + credential.label + credential.remark
        assert CANARY not in shown
    assert CANARY not in repr(fixed) + fixed.label
    for copying in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            copying(fixed)


def test_a_keyring_key_pickles_as_its_place(ring: Ring) -> None:
    """What was read does not travel."""
    ring.keys["s", "u"] = CANARY
    credential = KeyringKey("s", "u")
    credential.apply(ROUTE)
    assert CANARY.encode() not in pickle.dumps(credential)
    assert pickle.loads(pickle.dumps(credential)) == credential  # noqa: S301
    assert CANARY not in repr(credential)


def test_a_route_shows_no_key_of_its_credential(tmp_path: Path) -> None:
    """With a key applied, a route's repr is as silent as without."""
    for credential, _ in places(tmp_path):
        assert CANARY not in repr(credential.apply(Route("https://h.test", "m", credential=credential)))


# From the configuration.


def test_several_keys_are_a_pool_in_their_order() -> None:
    """Variables, then files, then the keyring."""
    config = parse(
        "[routes.a]\nmodel='m'\nprovider='p'\napi_key_env=['A','B']\napi_key_file='/k'\n"
        "api_key_keyring='x/y/z'",
        "c.toml",
    )
    found = credentials_of(config.routes["a"], {"A": "1"})
    assert found == (EnvKey("A"), EnvKey("B"), FileKey("/k"), KeyringKey("x/y", "z"))
    assert [credential.label for credential in found] == ["env A", "env B", "file /k", "keyring x/y/z"]
    assert [credential.there for credential in found[:3]] == [True, False, False]


def test_headers_from_variables_are_read_when_asked_for() -> None:
    """Beside those that stand in the file; a missing one is an error, not an empty header."""
    config = parse("[routes.a]\nmodel='m'\nprovider='p'\nheaders={X-A='1'}\nheader_env={X-B='ORG'}", "c.toml")
    assert headers_of(config.routes["a"], {"ORG": CANARY}) == {"X-A": "1", "X-B": CANARY}
    with pytest.raises(ConfigError, match="ORG is not set"):
        headers_of(config.routes["a"], {})


def test_a_key_that_is_rotated_in_its_file_is_sent_by_the_next_request(tmp_path: Path) -> None:
    """What arrives at a server is the key that is in the file now (field case 49)."""
    path = key_file(tmp_path, "sk-old-key")
    credential = FileKey(str(path))
    with Lab(script.say("Yes.")) as lab:
        route = Route(lab.url, "lab-1", "chat")
        for key in ("sk-old-key", "sk-new-key"):
            path.write_text(key)
            with sidestream.Client(routes=[credential.apply(route)]) as client:
                client.complete("?")
        seen = [dict(request.headers)["authorization"] for request in lab.requests]
    assert seen == [seen_by_the_lab("Bearer sk-old-key"), seen_by_the_lab("Bearer sk-new-key")]


def seen_by_the_lab(value: str) -> str:
    """The lab keeps credentials as fingerprints."""
    return f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:12]}"
