"""The Codex sign-in: which route gets which key and headers, and how tokens are renewed, against the lab."""

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from codexhome import MODEL, paths, read_auth, route, sign_in, write_auth

from sidestream import ConfigError, Route, Secret
from sidestream.lab import Codex, Fault, Lab
from sidestream.route import Credential
from sidestream.routes import codex as module
from sidestream.routes.codex import API_URL, BASE_URL, CodexSignIn

OFFICIAL = Route(BASE_URL, MODEL)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_auth(tmp_path / "codex", Codex().auth())
    return tmp_path / "codex"


# Where it is found.


def test_the_folder_is_an_argument_or_in_the_environment(tmp_path: Path) -> None:
    """The argument, CODEX_AUTH_HOME, CODEX_HOME, then the user's own."""
    env = {"CODEX_AUTH_HOME": "/a", "CODEX_HOME": "/b"}
    assert sign_in(tmp_path, environ=env).home == tmp_path
    assert CodexSignIn(environ=env).home == Path("/a")
    assert CodexSignIn(environ={"CODEX_HOME": "/b"}).home == Path("/b")
    assert CodexSignIn(environ={}).home == Path.home() / ".codex"


def test_it_is_a_credential_and_shows_no_key(home: Path) -> None:
    """It fits the protocol, and neither its label nor its repr has a token."""
    credential: Credential = sign_in(home)
    assert credential.label == f"Codex sign-in in {home}"
    assert repr(credential) == f"CodexSignIn({str(home)!r})"


def test_nobody_signed_in_says_how_to_sign_in(tmp_path: Path) -> None:
    """No folder, no file, no key in it: a config error with the file and the command."""
    for content in (None, "", "{", "{}", "[]"):
        if content is not None:
            write_auth(tmp_path / "codex", content)
        with pytest.raises(ConfigError, match=r"auth\.json") as caught:
            sign_in(tmp_path / "codex").apply(route())
        assert caught.value.hint == "sign in with `codex login`"


def test_a_file_that_others_can_read_is_used_and_told_of_once(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It works, one warning names the file, and doctor finds the same words; the next renewal closes it."""
    signed = sign_in(home)
    assert signed.remark == ""
    (home / "auth.json").chmod(0o640)
    with caplog.at_level(logging.WARNING, "sidestream"):
        signed.apply(route())
        signed.apply(route())
    assert caplog.messages == [signed.remark]
    assert signed.remark == f"{home / 'auth.json'} is open to other users of this machine: chmod 600 it"


# What a route gets.


def test_a_route_to_the_backend_gets_token_and_identity(tmp_path: Path) -> None:
    """The access token as its key, who we are in headers, the end of the token, the session for the cache."""
    codex = Codex(residency="eu", lifetime=1000, clock=lambda: 1_800_000_000.0)
    write_auth(tmp_path / "codex", codex.auth())
    signed = sign_in(tmp_path / "codex", session="s-1")
    applied = signed.apply(OFFICIAL)
    assert applied.api_key == Secret(codex.tokens["access_token"])
    assert applied.expires == 1_800_000_900.0
    assert applied.credential is signed
    assert applied.params == {"prompt_cache_key": "s-1"}
    assert applied.headers == {
        "originator": "sidestream_py",
        "User-Agent": "sidestream_py",
        "session-id": "s-1",
        "thread-id": "s-1",
        "ChatGPT-Account-ID": "acct-lab",
        "x-openai-internal-codex-residency": "eu",
    }


def test_required_headers_win_over_the_callers_whatever_their_case(home: Path) -> None:
    """A header of the caller's that is ours goes; others stay; his own cache key stays, too."""
    given = {"ORIGINATOR": "me", "chatgpt-account-id": "mine", "user-agent": "me", "X-Mine": "1"}
    applied = sign_in(home).apply(replace(OFFICIAL, headers=given, params={"prompt_cache_key": "k"}))
    sent = {name.lower(): value for name, value in applied.request_headers().items()}
    assert (sent["originator"], sent["chatgpt-account-id"], sent["x-mine"]) == (
        "sidestream_py",
        "acct-lab",
        "1",
    )
    assert len(sent) == len(applied.request_headers())
    assert applied.params == {"prompt_cache_key": "k"}


def test_a_malformed_token_leaves_headers_out(tmp_path: Path) -> None:
    """No account and no residency to be read: no such headers, and no crash."""
    write_auth(tmp_path / "codex", {"tokens": {"access_token": "opaque", "account_id": "a\nb"}})
    applied = sign_in(tmp_path / "codex").apply(replace(OFFICIAL, headers={"ChatGPT-Account-ID": "mine"}))
    assert sorted(applied.headers) == ["User-Agent", "originator", "session-id", "thread-id"]
    assert applied.expires is None


def test_a_token_that_cannot_be_sent_is_refused_without_showing_it(tmp_path: Path) -> None:
    """A token with a line break is a config error that does not quote it."""
    write_auth(tmp_path / "codex", {"tokens": {"access_token": "canary\r\nX: y"}})
    with pytest.raises(ConfigError) as caught:
        sign_in(tmp_path / "codex").apply(OFFICIAL)
    assert "canary" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://chatgpt.com/backend-api/codex", True),
        ("https://chatgpt.com/backend-api/codex/", True),
        ("https://chatgpt.com:443/backend-api/codex", True),
        ("https://CHATGPT.com/backend-api/codex/v2", True),
        ("https://chatgpt.com:8443/backend-api/codex", False),
        ("https://chatgpt.com/backend-api/codexx", False),
        ("https://chatgpt.com/backend-api", False),
        ("https://chatgpt.com/", False),
        ("https://chatgpt.com/backend-api/codex/../evil", False),
        ("https://chatgpt.com/backend-api/codex/%2e%2e/evil", False),
        ("https://chatgpt.com//backend-api/codex", False),
        ("https://chatgpt.com.evil.test/backend-api/codex", False),
        ("https://evil.test/backend-api/codex", False),
        ("https://api.chatgpt.com/backend-api/codex", False),
        ("https://chatgpt.com./backend-api/codex", False),
        ("https://api.openai.com/v1", False),
        ("http://127.0.0.1:9/backend-api/codex", False),
        ("http://127.0.0.1:8/mine", True),
        ("http://127.0.0.1:8/mine/v1", True),
        ("http://127.0.0.1:8/other", False),
        ("http://localhost:8/mine", False),
    ],
)
def test_the_token_goes_to_its_own_endpoint_and_to_those_named(home: Path, url: str, allowed: bool) -> None:
    """Origin and path decide, exactly; everywhere else the route is refused and has no token."""
    signed = sign_in(home, endpoints=["http://127.0.0.1:8/mine"])
    if allowed:
        assert signed.apply(Route(url, MODEL, "responses")).headers["originator"] == "sidestream_py"
        return
    with pytest.raises(ConfigError, match=r"the key of the Codex sign-in is for https://chatgpt\.com"):
        signed.apply(Route(url, MODEL, "responses"))


def test_an_endpoint_that_is_no_address_takes_no_token(home: Path) -> None:
    """Nonsense among `endpoints` names nothing; the token still goes where it belongs, and nowhere else."""
    signed = sign_in(home, endpoints=["http://127.0.0.1:port/mine", "http://[::1/mine", "nonsense"])
    assert signed.apply(OFFICIAL).api_key
    with pytest.raises(ConfigError, match=r"the key of the Codex sign-in is for https://chatgpt\.com"):
        signed.apply(Route("http://127.0.0.1:8/mine", MODEL, "responses"))


def test_the_backend_speaks_one_wire(home: Path) -> None:
    """Another wire on this endpoint is a config error that names the right one."""
    with pytest.raises(ConfigError, match="does not speak 'chat'") as caught:
        sign_in(home).apply(replace(OFFICIAL, wire="chat"))
    assert caught.value.hint == 'wire="responses"'


def test_an_api_key_goes_to_openai_alone(tmp_path: Path) -> None:
    """With an API key in the document the endpoint is OpenAI's API, without identity headers; the ChatGPT
    backend gets nothing."""
    write_auth(tmp_path / "codex", {"OPENAI_API_KEY": "sk-1"})
    signed = sign_in(tmp_path / "codex")
    assert signed.base_url == API_URL
    applied = signed.apply(Route(signed.base_url, "gpt-5"))
    assert (applied.api_key, applied.headers, applied.expires) == (Secret("sk-1"), {}, None)
    for each in (signed, sign_in(tmp_path / "codex", endpoints=[BASE_URL])):
        with pytest.raises(ConfigError, match=r"is for https://api\.openai\.com/v1"):
            each.apply(OFFICIAL)
    assert signed.renew(applied, 5) is None
    assert signed.problem == "an API key is not renewed: put another key in its place with `codex login`"
    write_auth(tmp_path / "codex", {"OPENAI_API_KEY": "sk-2"})
    renewed = signed.renew(applied, 5)
    assert renewed is not None
    assert renewed.api_key == Secret("sk-2")


# The token endpoint.


def test_tokens_are_renewed_at_openai_unless_told_otherwise(home: Path) -> None:
    """The default, the environment's override, the argument: in this order, the last wins."""
    env = {"CODEX_REFRESH_TOKEN_URL_OVERRIDE": "https://b.test/t"}
    assert repr(CodexSignIn(home, environ={})._token_endpoint) == "TokenEndpoint(https://auth.openai.com:443)"
    assert repr(CodexSignIn(home, environ=env)._token_endpoint) == "TokenEndpoint(https://b.test:443)"
    given = CodexSignIn(home, environ=env, token_url="https://c.test/t")
    assert repr(given._token_endpoint) == "TokenEndpoint(https://c.test:443)"


@pytest.mark.parametrize(
    "url",
    ["http://evil.test/oauth/token", "ftp://a.test/", "https://u:p@a.test/", "nonsense", "https://a.test:x/"],
)
def test_a_refresh_token_is_not_sent_in_the_open(home: Path, url: str) -> None:
    """Plain http to another machine, and what is no URL, is refused before there is anything to send."""
    with pytest.raises(ConfigError):
        CodexSignIn(home, environ={"CODEX_REFRESH_TOKEN_URL_OVERRIDE": url})


# Renewing.


class World:
    """A lab that plays Codex, a folder that is signed in to it, and a route with today's token."""

    def __init__(self, lab: Callable[..., Lab], tmp_path: Path, **settings: Any) -> None:
        self.codex = Codex(**settings)
        self.lab = lab(self.codex)
        self.home = tmp_path / "codex"
        self.auth = self.codex.auth()
        write_auth(self.home, self.auth)
        self.signed = sign_in(self.home, self.lab)
        self.route = self.signed.apply(route(self.lab))

    def renew(self, seconds: float = 10) -> Route | None:
        return self.signed.renew(self.route, seconds)

    @property
    def saved(self) -> dict[str, str]:
        return {name: read_auth(self.home)["tokens"][name] for name in self.codex.tokens}


def test_a_renewed_token_is_used_and_written_down(lab: Callable[..., Lab], tmp_path: Path) -> None:
    """One request; three new tokens in the file, closed to others, every other field as it was."""
    world = World(lab, tmp_path)
    write_auth(world.home, world.auth | {"agent_identity": {"x": [1, "é"]}, "new": 1.5}).chmod(0o644)
    renewed = world.renew()
    assert renewed is not None
    assert renewed.api_key == Secret(world.codex.tokens["access_token"])
    assert renewed == replace(world.route, api_key=renewed.api_key, expires=renewed.expires)
    assert world.signed.problem == ""
    after = read_auth(world.home)
    assert world.saved == world.codex.tokens
    assert {n: v for n, v in after.items() if n not in ("tokens", "last_refresh")} == {
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": None,
        "agent_identity": {"x": [1, "é"]},
        "new": 1.5,
    }
    assert after["last_refresh"] > world.auth["last_refresh"]
    assert (world.home / "auth.json").stat().st_mode & 0o777 == 0o600
    sent = world.lab.requests[0]
    assert (sent.method, sent.path, sent.header("authorization")) == ("POST", "/oauth/token", None)
    assert sorted(sent.fields()) == ["client_id", "grant_type", "refresh_token"]
    assert sent.fields()["client_id"] == module.CLIENT_ID


def test_another_ones_new_token_is_taken_without_asking(lab: Callable[..., Lab], tmp_path: Path) -> None:
    """Somebody else has renewed it: his token is there, so the endpoint is not asked."""
    world = World(lab, tmp_path)
    world.codex.login()
    write_auth(world.home, world.codex.auth())
    renewed = world.renew()
    assert renewed is not None
    assert renewed.api_key == Secret(world.codex.tokens["access_token"])
    assert world.lab.requests == ()


def test_another_ones_token_that_has_expired_is_renewed(lab: Callable[..., Lab], tmp_path: Path) -> None:
    """What is there is another token, and of no use: it is renewed in its turn."""
    world = World(lab, tmp_path, lifetime=0.001)
    renewed = world.signed.renew(replace(world.route, api_key=Secret("older")), 10)
    assert renewed is not None
    assert world.codex.rotated == 1


@pytest.mark.parametrize("manner", ["keep", "rotate"])
def test_a_token_that_is_not_in_the_answer_stays(
    lab: Callable[..., Lab], tmp_path: Path, manner: Any
) -> None:
    """Without a new refresh token the old one is kept and works again."""
    world = World(lab, tmp_path, manners=[manner])
    first = world.renew()
    assert first is not None
    assert (world.saved["refresh_token"] == world.auth["tokens"]["refresh_token"]) is (manner == "keep")
    assert world.signed.renew(first, 10) is not None
    assert world.codex.reused == 0


def test_without_a_new_access_token_what_came_is_saved_all_the_same(
    lab: Callable[..., Lab], tmp_path: Path
) -> None:
    """The refresh token in the answer is the only one that is good from now on: it is in the file."""
    world = World(lab, tmp_path, manners=["no_access"])
    assert world.renew() is None
    assert world.signed.problem == "127.0.0.1 gave no other access token"
    assert world.saved["refresh_token"] == world.codex.tokens["refresh_token"]
    assert world.renew() is not None


@pytest.mark.parametrize("manner", ["expired", "invalidated", "reused"])
def test_a_refusal_is_for_good_until_somebody_signs_in(
    lab: Callable[..., Lab], tmp_path: Path, manner: Any
) -> None:
    """401: no other key, with the reason and the command; the same token is not sent again. After
    `codex login` all is well."""
    world = World(lab, tmp_path, manners=[manner])
    words = f"127.0.0.1 answered 401 (refresh_token_{manner}): sign in with `codex login`"
    for _ in range(2):
        assert world.renew() is None
        assert world.signed.problem == words
    assert world.codex.asked == 1
    assert read_auth(world.home) == world.auth
    world.codex.login()
    write_auth(world.home, world.codex.auth())
    assert world.renew() is not None
    assert world.signed.problem == ""


def test_a_token_that_somebody_just_used_is_looked_for_again(lab: Callable[..., Lab], tmp_path: Path) -> None:
    """The CLI takes no lock: it used the token first and is still writing. Its token is taken."""
    world = World(lab, tmp_path, manners=["reused"])
    world.codex.login()
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            write_auth(world.home, world.codex.auth())

    signed = sign_in(world.home, world.lab, sleep=sleep)
    renewed = signed.renew(world.route, 10)
    assert renewed is not None
    assert renewed.api_key == Secret(world.codex.tokens["access_token"])
    assert (pauses, world.codex.asked) == ([0.0, 0.1, 0.3], 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"manners": ["error"]}, "127.0.0.1 answered 500 (internal_error)"),
        ({"manners": ["redirect"]}, "127.0.0.1 answered 307 (a redirect, which is not followed)"),
    ],
)
def test_a_failure_of_the_endpoint_is_for_now(
    lab: Callable[..., Lab], tmp_path: Path, settings: Any, words: str
) -> None:
    """No other key this time, the file untouched; the next time it is asked again."""
    world = World(lab, tmp_path, **settings)
    assert world.renew() is None
    assert world.signed.problem == words
    assert read_auth(world.home) == world.auth
    assert world.renew() is not None
    assert paths(world.lab) == ["token", "token"]


def test_an_endpoint_that_is_not_there_is_for_now(lab: Callable[..., Lab], tmp_path: Path) -> None:
    """Refused connections: no other key this time, and the token was not used."""
    world = World(lab, tmp_path)
    world.lab.refuse()
    assert world.renew() is None
    assert "refused" in world.signed.problem.lower()
    world.lab.accept()
    assert world.renew() is not None


@pytest.mark.parametrize("fault", [Fault.close(), Fault.reset(at_byte=40), Fault.short(at_byte=40)])
def test_an_answer_that_is_lost_loses_the_token(
    lab: Callable[..., Lab], tmp_path: Path, fault: Fault
) -> None:
    """The endpoint used the token up and its answer did not arrive: nobody has the new one. The file stays
    whole, and the next renewal learns that somebody has to sign in."""
    world = World(lab, tmp_path, token_plan=[fault])
    assert world.renew() is None
    assert world.signed.problem
    assert "login" not in world.signed.problem
    assert read_auth(world.home) == world.auth
    assert world.renew() is None
    assert world.signed.problem.endswith("(refresh_token_reused): sign in with `codex login`")


def test_a_caller_who_does_not_wait_loses_nothing(lab: Callable[..., Lab], tmp_path: Path) -> None:
    """The endpoint is slow and the caller gives up: the answer is written down all the same, and found."""
    world = World(lab, tmp_path, token_plan=[Fault.hang(seconds=0.4)])
    assert world.renew(0.05) is None
    assert world.signed.problem == "127.0.0.1 has not answered within 0.05 s"
    renewal = next(t for t in threading.enumerate() if t.name == "sidestream-renew")
    assert not renewal.daemon
    renewal.join(10)
    assert world.saved == world.codex.tokens
    assert world.signed.apply(world.route).api_key == Secret(world.codex.tokens["access_token"])
    assert world.codex.asked == 1


def test_many_threads_renew_once(lab: Callable[..., Lab], tmp_path: Path) -> None:
    """Ten calls whose token was rejected at the same moment: one request, ten routes with the new token."""
    world = World(lab, tmp_path)
    world.signed = sign_in(world.home, world.lab, sleep=time.sleep)
    found: list[Route | None] = []
    threads = [threading.Thread(target=lambda: found.append(world.renew())) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.api_key for each in found if each} == {Secret(world.codex.tokens["access_token"])}
    assert (len(found), world.codex.asked) == (10, 1)


def test_another_account_is_not_used_for_a_call_that_began_with_this_one(
    lab: Callable[..., Lab], tmp_path: Path
) -> None:
    """Somebody signed in anew meanwhile: this call gets no key of that account, the next one does."""
    world = World(lab, tmp_path)
    write_auth(world.home, Codex(account="acct-other").auth())
    assert world.renew() is None
    assert (
        world.signed.problem == f"{world.home / 'auth.json'} is of another account by now: begin a new call"
    )
    assert world.signed.apply(route(world.lab)).headers["ChatGPT-Account-ID"] == "acct-other"
    assert world.lab.requests == ()


def test_without_a_refresh_token_there_is_no_other_key(lab: Callable[..., Lab], tmp_path: Path) -> None:
    """Nothing is asked; the reason names the file."""
    world = World(lab, tmp_path)
    tokens = {"access_token": world.codex.tokens["access_token"]}
    write_auth(world.home, world.auth | {"tokens": tokens})
    assert world.renew() is None
    assert world.signed.problem.endswith("auth.json holds no refresh token: sign in with `codex login`")
    assert world.lab.requests == ()


def test_signing_out_meanwhile_is_no_crash(lab: Callable[..., Lab], tmp_path: Path) -> None:
    """The file is gone when the key is to be renewed: None, and why."""
    world = World(lab, tmp_path)
    (world.home / "auth.json").unlink()
    assert world.renew() is None
    assert world.signed.problem.startswith("nobody is signed in")


def test_a_folder_that_cannot_be_written_is_noticed_before_the_token_is_used(
    lab: Callable[..., Lab], tmp_path: Path
) -> None:
    """The draft's place is taken by a folder: nothing is asked, so nothing is lost."""
    world = World(lab, tmp_path)
    (world.home / ".auth.json.sidestream.draft").mkdir()
    assert world.renew() is None
    assert "cannot be written" in world.signed.problem
    assert world.lab.requests == ()


def test_a_token_that_cannot_be_saved_serves_this_process(
    lab: Callable[..., Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after the exchange: calls of this process go on with the new token, it says so, and
    the next renewal, with the new refresh token, is saved."""
    world = World(lab, tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("sidestream.routes.vault._replace", full)
        renewed = world.renew()
    assert renewed is not None
    assert world.signed.problem == "the renewed token could not be saved: No space left on device"
    assert read_auth(world.home) == world.auth
    assert (
        world.signed.apply(world.route).api_key
        == renewed.api_key
        == Secret(world.codex.tokens["access_token"])
    )
    again = world.signed.renew(renewed, 10)
    assert again is not None
    assert world.codex.reused == 0
    assert world.saved == world.codex.tokens
    assert sorted(p.name for p in world.home.iterdir()) == [".auth.json.sidestream.lock", "auth.json"]


def test_who_does_not_get_the_lock_says_so(lab: Callable[..., Lab], tmp_path: Path) -> None:
    """Another process holds the lock for longer than the caller has: None, and nothing is asked."""
    from sidestream.routes.vault import locked

    world = World(lab, tmp_path)
    signed = sign_in(world.home, world.lab, sleep=time.sleep)
    with locked(
        world.home / ".auth.json.sidestream.lock", 1, clock=lambda: 0.0, sleep=lambda _: None
    ) as held:
        assert held
        assert signed.renew(world.route, 0.05) is None
    assert signed.problem.startswith(("another process", "127.0.0.1 has not answered"))
    assert world.lab.requests == ()


def test_the_keyring_is_used_where_there_is_no_file(lab: Callable[..., Lab], tmp_path: Path) -> None:
    """Codex's own service and account name; read, renewed and written back, and no file appears."""
    keyring = pytest.importorskip("keyring")
    backend = pytest.importorskip("keyring.backend")

    class Memory(backend.KeyringBackend):  # type: ignore[misc, name-defined]
        priority = 1

        def __init__(self) -> None:
            super().__init__()
            self.kept: dict[tuple[str, str], str] = {}

        def get_password(self, service: str, username: str) -> str | None:
            return self.kept.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            self.kept[service, username] = password

    before, memory = keyring.get_keyring(), Memory()
    keyring.set_keyring(memory)
    try:
        world = World(lab, tmp_path)
        (world.home / "auth.json").unlink()
        (tmp_path / "link").symlink_to(world.home)
        name = f"cli|{hashlib.sha256(os.fsencode(world.home.resolve())).hexdigest()[:16]}"
        memory.kept["Codex Auth", name] = json.dumps(world.auth)
        renewed = sign_in(tmp_path / "link", world.lab).renew(world.route, 10)
        assert renewed is not None
        assert json.loads(memory.kept["Codex Auth", name])["tokens"].items() >= world.codex.tokens.items()
        assert [p.name for p in world.home.iterdir()] == [".auth.json.sidestream.lock"]
    finally:
        keyring.set_keyring(before)
