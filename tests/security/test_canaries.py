"""Credentials are seen by their own endpoint and by nobody else, whatever happens to a call.

Each kind of credential holds a canary: a word that looks like no key, so that only knowing it keeps it out.
Calls succeed, fail in every way there is, retry, fall back, are redirected, renew and probe; endpoints quote
the canary back wherever they can. `Witness` then looks at everything a person or a program might keep: the
log at DEBUG, warnings, notices, records, errors with their causes, tracebacks with local variables, pickles,
files, the arguments of programs, the output of commands. And the servers tell which keys they have seen.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import gc
import io
import json
import logging
import os
import pickle
import random
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from callers import WAYS
from codexhome import write_auth
from commands import PROGRAM, environment, sidestream
from roads import AT_ONCE, Renewing, asked

from sidestream import AsyncClient, Client, ConfigError, Limits, Route, Secret, Timeouts
from sidestream.drivers import System
from sidestream.lab import Codex, Fault, Lab, Plan, Request, Script, fingerprint, script
from sidestream.net import sync
from sidestream.net.common import CallClock
from sidestream.recovery.clocks import Clocks, Meter
from sidestream.recovery.faults import FaultKind
from sidestream.recovery.origins import Origins, StormRules
from sidestream.routes.codex import CodexSignIn
from sidestream.routes.config import parse
from sidestream.routes.detect import detect
from sidestream.routes.plan import Choice, Planner
from sidestream.routes.secrets import EnvKey, FileKey, FixedKey

Labs = Callable[..., Lab]
K = FaultKind
TEXT = "The whole answer, nothing less than that."
ANSWER = script.say(TEXT)
by_way = pytest.mark.parametrize("way", WAYS)
by_loop = pytest.mark.parametrize("way", ["sync-held", "async-live"])
SHOWN = 8  # characters of a credential that may not stand anywhere


def canary(kind: str) -> str:
    """A credential that looks like none: no prefix, no shape."""
    return f"{kind.capitalize()}Canary{random.Random(kind).getrandbits(64):016x}"


def forms(secret: str) -> Iterator[str]:
    """What gives a credential away: itself, the most of it, and what it is in base64."""
    yield secret
    yield secret[-SHOWN:]
    tail = secret[len(secret) // 2 :]
    for shift in range(3):
        yield base64.b64encode(b"x" * shift + tail.encode()).decode().rstrip("=")[4:-4]


class Witness(logging.Handler):
    """Keeps what a process lets out, and says where a canary is in it."""

    def __init__(self, home: Path) -> None:
        super().__init__(logging.DEBUG)
        self.home = home
        self.secrets: set[str] = set()
        self.places: list[tuple[str, str]] = []
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    def secret(self, kind: str) -> str:
        found = canary(kind)
        self.secrets.add(found)
        return found

    def emit(self, record: logging.LogRecord) -> None:
        self.saw(f"log {record.name}", self.format(record), repr(record.__dict__))

    def saw(self, place: str, *values: Any) -> None:
        self.places += [(place, value if isinstance(value, str) else repr(value)) for value in values]

    def saw_error(self, error: BaseException | None) -> None:
        """All there is of an error: itself, its causes, its traceback with local variables, its pickle."""
        while error is not None:
            self.saw(type(error).__name__, str(error), repr(error), repr(vars(error)), repr(error.args))
            lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
            self.saw(f"traceback of {type(error).__name__}", "".join(lines))
            for name in ("fault", "attempts", "reply", "hint"):
                value = getattr(error, name, None)
                self.saw(f"{type(error).__name__}.{name}", str(value), repr(value))
            self.saw_pickle(error)
            error = error.__cause__ or error.__context__

    def saw_pickle(self, value: Any) -> None:
        with contextlib.suppress(Exception):  # what cannot be pickled lets nothing out
            self.saw(f"pickle of {type(value).__name__}", pickle.dumps(value).decode("latin-1"))

    def saw_outcome(self, outcome: Any) -> None:
        self.saw("outcome", outcome, outcome.reply, outcome.view)
        self.saw_pickle(outcome.reply)
        self.saw_error(outcome.error)

    def saw_record(self, record: Any) -> None:
        """An observer."""
        self.saw("record", record, str(record), repr(dataclasses.asdict(record)))
        self.saw_pickle(record)

    def check(self) -> None:
        """No place has a canary."""
        for path in self.home.rglob("*"):
            given = any(part.startswith("given-") for part in path.parts)
            if path.is_file() and not given:
                self.saw(f"file {path}", path.read_bytes().decode("latin-1"))
        for place, text in self.places:
            for secret in self.secrets:
                for form in forms(secret):
                    assert form not in text, f"{place} has {form}: {text[:2000]}"


_AUDITED: list[Callable[[str, Any], None]] = []


def _audit(event: str, details: Any) -> None:
    for see in _AUDITED:
        if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system"):
            see(event, details[:2])  # the program and its arguments; the environment is where keys may be


sys.addaudithook(_audit)


@pytest.fixture
def witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Witness]:
    """Somebody who sees it all, in a home of its own; at the end nothing was let out."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(home))
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "SIDESTREAM_", "CODEX_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    seen = Witness(home)
    root = logging.getLogger()
    before = root.level
    root.addHandler(seen)
    root.setLevel(logging.DEBUG)
    _AUDITED.append(lambda event, details: seen.saw(event, repr(details)))
    printed = io.StringIO()
    with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stderr(printed):
        warnings.simplefilter("always")
        yield seen
        gc.collect()
    _AUDITED.pop()
    root.removeHandler(seen)
    root.setLevel(before)
    seen.saw("warnings", *(str(each) for each in warned))
    seen.saw("stderr", printed.getvalue())
    seen.check()


# What servers have seen.


def variants(secret: str) -> set[str]:
    return {secret, fingerprint(secret), fingerprint(f"Bearer {secret}"), f"Bearer {secret}"}


def seen_at(lab: Lab, secrets: Iterable[str]) -> set[str]:
    """Which of these credentials a lab has been sent, wherever in a request."""
    found = set()
    for request in lab.requests:
        values = {value for _, value in request.headers}
        raw = f"{request.path} {request.body.decode('latin-1')} {values}"
        found |= {secret for secret in secrets if values & variants(secret) or secret in raw}
    return found


class Raw:
    """A server that keeps the bytes it is sent and answers each request with the same ones."""

    def __init__(self, answer: bytes) -> None:
        self.received: list[bytes] = []
        self._answer = answer
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            client, _ = self._server.accept()
            with client:
                client.settimeout(5)
                data = b""
                with contextlib.suppress(OSError):
                    while b"\r\n\r\n" not in data and (more := client.recv(65536)):
                        data += more
                if data == b"stop\r\n\r\n":
                    return
                self.received.append(data)
                with contextlib.suppress(OSError):
                    client.sendall(self._answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as last:
            last.sendall(b"stop\r\n\r\n")
        self._thread.join(5)
        self._server.close()


# Kinds of credentials.


@dataclasses.dataclass
class Street:
    """An endpoint for each kind of credential, and the configuration that names them."""

    labs: dict[str, Lab]
    secrets: dict[str, set[str]]
    planner: Planner
    file: Path
    environ: dict[str, str]

    @property
    def all(self) -> set[str]:
        return set().union(*self.secrets.values())

    def check(self) -> None:
        """Each endpoint has seen its own credentials and no other."""
        for kind, lab in self.labs.items():
            assert seen_at(lab, self.all) <= self.secrets[kind], kind


KINDS = ("env", "file", "fixed", "header", "codex", "pool")


def street(lab: Labs, witness: Witness, answers: dict[str, Any] | None = None) -> Street:
    """All kinds, each at an endpoint of its own."""
    answers = answers or {}
    codex = Codex(TEXT)
    labs = {kind: lab(codex if kind == "codex" else answers.get(kind, ANSWER)) for kind in KINDS}
    secrets = {kind: {witness.secret(kind)} for kind in KINDS}
    secrets["pool"].add(witness.secret("second"))
    tokens = {value for name, value in codex.tokens.items() if name != "id_token"}
    secrets["codex"] = tokens
    witness.secrets.update(tokens)
    key_file = witness.home / "given-key"
    key_file.write_text(canary("file") + "\n")
    key_file.chmod(0o600)
    folder = write_auth(witness.home / "given-codex", codex.auth())
    environ = {
        "KEY_ENV": canary("env"),
        "KEY_HEADER": canary("header"),
        "KEY_POOL": canary("pool"),
        "KEY_SECOND": canary("second"),
        "CODEX_HOME": str(folder.parent),
        "CODEX_REFRESH_TOKEN_URL_OVERRIDE": Codex.token_url(labs["codex"]),
    }
    text = 'main = "env"\nfallbacks = ["file", "header", "pool", "codex"]\n'
    for kind in KINDS:
        if kind == "fixed":
            continue
        url = Codex.base_url(labs[kind]) if kind == "codex" else labs[kind].url
        wire = "responses" if kind == "codex" else "chat"
        text += f'[routes.{kind}]\nbase_url = "{url}"\nmodel = "m-{kind}"\nwire = "{wire}"\n'
        text += {
            "env": 'api_key_env = "KEY_ENV"\n',
            "file": f'api_key_file = "{key_file}"\n',
            "header": 'header_env = { X-Lab-Token = "KEY_HEADER" }\n',
            "pool": 'api_key_env = ["KEY_POOL", "KEY_SECOND"]\n',
            "codex": 'sign_in = "codex"\nprovider = "codex"\n',
        }[kind]
    file = witness.home / "config.toml"
    file.write_text(text)
    planner = Planner(parse(text, str(file)), environ=environ)
    return Street(labs, secrets, planner, file, environ)


def client_of(here: Street, witness: Witness, **more: Any) -> dict[str, Any]:
    """What a client of that street takes."""
    return {"observe": [witness.saw_record], "policy": AT_ONCE, **more}


def run(way: str, here: Street, witness: Witness, calls: int = 1, **ask: Any) -> list[Any]:
    """Calls along all the routes of the street."""
    fixed = Route(here.labs["fixed"].url, "m-fixed", "chat", Secret(canary("fixed")), name="fixed")
    plan = here.planner.plan(Choice())
    witness.saw("plan", plan, plan.routes, plan.skipped)
    routes = [plan.routes[0], fixed, *plan.routes[1:]]
    settings = client_of(here, witness, **ask.pop("client", {}))
    outcomes = asked(
        way, routes, calls=calls, client=settings, notify=lambda n: witness.saw("notice", n), **ask
    )
    for outcome in outcomes:
        witness.saw_outcome(outcome)
    return outcomes


@by_way
def test_a_call_that_succeeds(lab: Labs, witness: Witness, way: str) -> None:
    """The first route answers; the others are not told that there is a call."""
    here = street(lab, witness)
    (outcome,) = run(way, here, witness)
    assert outcome.error is None
    assert seen_at(here.labs["env"], here.all) == {canary("env")}
    assert all(not here.labs[kind].requests for kind in KINDS if kind != "env")


@by_way
def test_a_call_along_every_route(lab: Labs, witness: Witness, way: str) -> None:
    """All of them refuse their key and quote it; each sees its own, the last one answers with its sign-in."""

    def quoting(*secrets: str) -> Script:
        said = " and ".join(secrets)
        return script.error(401, {"error": {"message": f"bad key {said}", "code": secrets[0], "param": said}})

    answers = {kind: quoting(canary(kind), canary("second")) for kind in KINDS}
    here = street(lab, witness, answers)
    (outcome,) = run(way, here, witness)
    assert outcome.error is None, outcome.error
    assert len(outcome.reply.attempts) == 7
    for kind in KINDS:
        assert seen_at(here.labs[kind], here.all) & here.secrets[kind], kind
    here.check()


# Every kind of fault, quoting what it knows.

LONG = script.chat_text(
    "This is a long answer that goes on for a while, and it is cut before its end is here."
)
OTHER = script.chat_text("Something else entirely, which has nothing to do with what was said before.")


def quoted(status: int, code: str | None, key: str, words: str = "") -> Script:
    """An error that quotes a key in each field, and one that is cut within it."""
    body = {
        "error": {
            "message": f"{words or 'no'}: {key} {'x' * 460}{key}",
            "code": code,
            "type": key,
            "param": key,
        }
    }
    return script.error(status, body, headers={"Retry-After": "600", "x-request-id": key})


@dataclasses.dataclass(frozen=True)
class Scene:
    """How a fault of one kind comes about at an endpoint."""

    answer: Callable[[str], Any] = lambda _: script.chat_text(TEXT)
    plan: Plan = dataclasses.field(default_factory=Plan)
    ask: dict[str, Any] = dataclasses.field(default_factory=dict)
    client: dict[str, Any] = dataclasses.field(default_factory=dict)
    gone: bool = False


FAST = {"timeout": Timeouts(total=1.0, first=0.1, idle=0.1)}
SCENES: dict[FaultKind, Scene] = {
    K.CONNECT: Scene(gone=True),
    K.DROPPED: Scene(plan=Plan.always(Fault.close())),
    K.STALLED: Scene(plan=Plan.always(Fault.hang()), ask=FAST),
    K.DEADLINE: Scene(plan=Plan.always(Fault.stall(after_event=1)), ask={"timeout": 0.1}),
    K.GARBLED: Scene(lambda key: Script((f"data: {key} {{\n\n".encode(),))),
    K.DIVERGED: Scene(lambda _: [LONG, OTHER], plan=Plan([Fault.cut(after_event=14)])),
    K.OVERSIZE: Scene(
        lambda key: Script((f"data: {key * 500}\n\n".encode(),)), client={"limits": Limits(line=2000)}
    ),
    K.EMPTY: Scene(lambda _: script.chat_text(""), ask={"empty_is_failure": True}),
    K.SERVER: Scene(lambda key: quoted(500, None, key)),
    K.OVERLOADED: Scene(lambda key: quoted(503, None, key)),
    K.THROTTLED: Scene(lambda key: quoted(429, None, key)),
    K.QUOTA: Scene(lambda key: quoted(402, "insufficient_quota", key)),
    K.AUTH: Scene(lambda key: quoted(401, "invalid_api_key", key)),
    K.BLOCKED: Scene(
        lambda key: script.error(403, f"<html><title>Just a moment... {key}</title>{key}</html>")
    ),
    K.NOT_FOUND: Scene(lambda key: quoted(404, "model_not_found", key)),
    K.CONTEXT_LENGTH: Scene(lambda key: quoted(400, "context_length_exceeded", key)),
    K.REFUSED: Scene(lambda key: quoted(400, "content_filter", key)),
    K.PARAMETER: Scene(lambda key: quoted(400, "unsupported_parameter", key)),
    K.BAD_REQUEST: Scene(lambda key: quoted(400, None, key)),
    K.WITHHELD: Scene(lambda key: quoted(500, None, key)),
}


def test_every_kind_of_fault_has_its_scene() -> None:
    """A new kind comes with one."""
    assert SCENES.keys() == set(K)


@by_loop
@pytest.mark.parametrize("keyed", ["key", "header"])
@pytest.mark.parametrize("kind", SCENES, ids=lambda kind: kind.word)
def test_no_fault_lets_a_key_out(lab: Labs, witness: Witness, way: str, keyed: str, kind: FaultKind) -> None:
    """Quoted in the message, in the code, in an id, in the stream, torn at the end of what is kept."""
    secret, scene = witness.secret("env"), SCENES[kind]
    here = lab(scene.answer(secret), plan=scene.plan)
    sent: dict[str, Any] = (
        {"api_key": Secret(secret)} if keyed == "key" else {"headers": {"X-Lab-Token": secret}}
    )
    route = Route(here.url, "m", "chat", name="main", **sent)
    if kind is K.DIVERGED:
        route = dataclasses.replace(route, continuation="anchor")
    if scene.gone:
        here.stop()
    origins = Origins(time.monotonic, lock=threading.RLock())
    calls = 6 if kind is K.WITHHELD else 1
    settings = {
        "observe": [witness.saw_record],
        "policy": AT_ONCE,
        "system": System(origins=origins, random=lambda: 0.0),
        **scene.client,
    }
    notify = lambda notice: witness.saw("notice", notice)  # noqa: E731
    outcomes = asked(way, [route], calls=calls, client=settings, notify=notify, **scene.ask)
    faults = set()
    for outcome in outcomes:
        witness.saw_outcome(outcome)
        ended = outcome.reply if outcome.error is None else outcome.error
        faults |= {attempt.ended for attempt in ended.attempts}  # type: ignore[union-attr]
        faults |= {getattr(getattr(outcome.error, "budget", None) and K.WITHHELD, "word", "")}
    witness.saw("origins", origins.state(), *(str(each) for each in origins.state()))
    assert kind.word in faults


@by_loop
def test_an_answer_that_carries_the_key_in_its_headers(lab: Labs, witness: Witness, way: str) -> None:
    """The id of an exchange is the provider's word, and the ledger keeps it."""
    secret = witness.secret("env")
    here = lab(script.chat_text(TEXT).sent(headers=(("x-request-id", f"req-{secret}"),)))
    route = Route(here.url, "m", "chat", Secret(secret))
    (outcome,) = asked(way, [route], client={"policy": AT_ONCE, "observe": [witness.saw_record]})
    witness.saw_outcome(outcome)
    assert outcome.reply is not None
    assert outcome.reply.attempts[0].request_id == "req-***"


# Redirects.


@by_way
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_no_redirect_is_followed(lab: Labs, witness: Witness, way: str, status: int) -> None:
    """Wherever it leads: the other endpoint is not asked, and the error does not quote the address's key."""
    secret = witness.secret("env")
    other = lab(ANSWER)
    place = f"{other.url}/chat/completions?key={secret}"
    here = lab(script.error(status, f"go to {place}", headers={"Location": place}))
    (outcome,) = asked(way, [Route(here.url, "m", "chat", Secret(secret))], client={"policy": AT_ONCE})
    witness.saw_outcome(outcome)
    assert outcome.error is not None
    assert (len(here.requests), len(other.requests)) == (1, 0)


@by_loop
def test_a_token_endpoint_that_redirects_gets_nobody_a_token(lab: Labs, witness: Witness, way: str) -> None:
    """The refresh token goes to the token endpoint, and not where that points."""
    codex = Codex(TEXT, manners=["redirect"])
    here, other = lab(codex), lab(ANSWER)
    witness.secrets.update(value for name, value in codex.tokens.items() if name != "id_token")
    given = codex.auth()
    codex.revoke()
    home = write_auth(witness.home / "given-codex", given).parent
    signed = CodexSignIn(
        home,
        endpoints=[Codex.base_url(here)],
        token_url=Codex.token_url(here),
        environ={},
        sleep=lambda _: None,
    )
    route = signed.apply(Route(Codex.base_url(here), "gpt-5-codex", params={"instructions": "Be brief."}))
    route = dataclasses.replace(route, credential=signed)
    (outcome,) = asked(way, [route], client={"policy": AT_ONCE})
    witness.saw_outcome(outcome)
    assert outcome.error is not None
    assert len(other.requests) == 0


# Renewals.


@by_loop
def test_a_renewal_lets_neither_key_out(lab: Labs, witness: Witness, way: str) -> None:
    """The old one is rejected with a quotation, and so is the new one."""
    old, new = witness.secret("old"), witness.secret("new")
    here = lab([script.error(401, f"not {old}"), script.error(401, f"neither {old} nor {new}")])
    other = lab(ANSWER)
    credential = Renewing(old, new)
    third = witness.secret("other")
    routes = [
        Route(here.url, "m", "chat", Secret(old), credential=credential, name="renewing"),
        Route(other.url, "m", "chat", Secret(third), name="other"),
    ]
    (outcome,) = asked(way, routes, client={"policy": AT_ONCE, "observe": [witness.saw_record]})
    witness.saw_outcome(outcome)
    assert seen_at(here, witness.secrets) == {old, new}
    assert seen_at(other, witness.secrets) == {third}


@by_loop
def test_what_a_credential_raises_is_not_quoted(lab: Labs, witness: Witness, way: str) -> None:
    """Whatever stands in the text of somebody's exception."""
    old, refresh = witness.secret("old"), witness.secret("refresh")
    here = lab(script.problem(401, "who?"))
    credential = Renewing(old, fails=ValueError(f"the refresh token {refresh} is no good"))
    route = Route(here.url, "m", "chat", Secret(old), credential=credential)
    (outcome,) = asked(way, [route], client={"policy": AT_ONCE})
    error = outcome.error
    assert error is not None
    witness.saw("error", str(error), repr(error), repr(vars(error)))


# Probes.


def test_a_probe_asks_its_own_endpoint_only(lab: Labs, witness: Witness) -> None:
    """Every question goes to the route's origin with the route's key; a redirect is not followed."""
    secret = witness.secret("env")
    other = lab(ANSWER)
    moved = script.error(307, "", headers={"Location": f"{other.url}/models"})
    here = lab(lambda request: moved if request.attempt >= 0 else script.error(404, "no"))
    route = Route(here.url, "m", "chat", Secret(secret), guessed=True)

    def ask(to: Route, method: str, target: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        assert to.origin == route.origin
        watch = sync.Watch(CallClock(time.monotonic))
        watch.meter = Meter(Clocks(5, 5, 5, watch.clock.now() + 5), watch.clock.now())
        with contextlib.closing(sync.Pool().open(to, watch)) as lane:
            opened = lane.send(to, body, method, target)
            return opened.status, opened.headers, lane.rest()

    origins = Origins(time.monotonic)
    found = detect(route, ask, origins, clock=time.monotonic)
    witness.saw("found", found, origins.state())
    assert len(here.requests) >= 1
    assert len(other.requests) == 0


@by_loop
def test_a_wire_that_is_guessed_is_looked_for_at_its_own_endpoint(
    lab: Labs, witness: Witness, way: str
) -> None:
    """Three paths of one origin, and never the next route's key."""
    first, second = witness.secret("env"), witness.secret("second")
    here, other = lab(script.error(404, "404 page not found")), lab(ANSWER)
    routes = [
        Route(here.url, "m", "chat", Secret(first), guessed=True, name="guess"),
        Route(other.url, "m", "chat", Secret(second), name="other"),
    ]
    (outcome,) = asked(way, routes, client={"policy": AT_ONCE})
    witness.saw_outcome(outcome)
    assert outcome.error is None
    assert [request.wire for request in here.requests] == ["chat", "messages", "responses"]
    assert seen_at(here, witness.secrets) == {first}
    assert seen_at(other, witness.secrets) == {second}


# Proxies.


@by_loop
def test_a_proxy_gets_no_key(witness: Witness, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an https endpoint it learns the host; its own password stands in no error."""
    secret, password = witness.secret("env"), witness.secret("proxy")
    refusal = f"HTTP/1.1 407 {password}\r\ncontent-length: 0\r\n\r\n".encode()
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Raw(refusal) as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:{password}@127.0.0.1:{proxy.port}")
        (outcome,) = asked(
            way, [Route("https://there.test/v1", "m", "chat", Secret(secret))], client={"policy": AT_ONCE}
        )
        assert proxy.received
        assert all(data.startswith(b"CONNECT there.test:443 ") for data in proxy.received)
        assert not any(secret.encode() in data for data in proxy.received)
    assert outcome.error is not None
    witness.saw("error", str(outcome.error), repr(outcome.error), repr(vars(outcome.error)))


# All of it at random.


@by_loop
def test_keys_keep_to_their_endpoints_whatever_happens(
    lab: Labs, witness: Witness, way: str, rng: Any
) -> None:
    """Forty calls along six endpoints that fail at random: retries, keys, models, endpoints, renewals."""
    statuses = [200, 200, 401, 402, 429, 500, 503, 404, 400, 302]

    def unsteady(kind: str) -> Callable[[Request], Script]:
        def answer(request: Request) -> Script:
            status = rng.choice(statuses)
            if status == 200:
                return ANSWER(request)
            return script.error(
                status, f"{canary(kind)} {canary('second')}", headers={"Location": "http://127.0.0.1:1/"}
            )

        return answer

    here = street(lab, witness, {kind: unsteady(kind) for kind in KINDS})
    rules = StormRules(tokens=10**6, in_a_row=10**6, window_least=10**6, window_most=10**6)
    system = System(origins=Origins(time.monotonic, lock=threading.RLock(), rules=rules), random=lambda: 0.0)
    outcomes = run(way, here, witness, calls=40, client={"system": system}, temperature=1)
    assert sum(outcome.error is None for outcome in outcomes) > 10
    here.check()


# The command line.


def test_the_commands_print_no_key(lab: Labs, witness: Witness) -> None:
    """What is configured and where each value comes from; questions, answers and errors."""
    here = street(lab, witness, {"env": quoted(401, None, canary("env"))})
    env = here.environ | {"SIDESTREAM_CONFIG": str(here.file), "HOME": str(witness.home)}
    commands = (
        ("config",), ("config", "show"), ("config", "check"), ("config", "--json"),
        ("config", "show", "--json"),
        ("doctor",), ("doctor", "--json"), ("doctor", "--live"), ("ask", "hi"), ("ask", "hi", "--json"),
        ("ask", "hi", "--live"),
    )  # fmt: skip
    codes = []
    for command in commands:
        done = sidestream(*command, env=env)
        codes.append(done.code)
        witness.saw(" ".join(command), done.out, done.err)
    assert 0 in codes
    here.check()


def test_a_program_of_its_own_shows_no_key(lab: Labs, witness: Witness) -> None:
    """Neither its output, nor its arguments, nor what it leaves behind; DEBUG or not."""
    release = threading.Event()
    running = threading.Event()

    def held(request: Request) -> Script:
        running.set()
        return ANSWER(request)

    here = street(lab, witness, {"env": held})
    env = environment(here.environ | {"SIDESTREAM_CONFIG": str(here.file), "HOME": str(witness.home)})
    env |= {"PYTHONWARNINGS": "always", "PYTHONDEVMODE": "1"}
    command = [*PROGRAM, "ask", "hi", "--held"]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=witness.home
    ) as child:
        assert running.wait(30)
        proc = Path(f"/proc/{child.pid}/cmdline")
        if proc.exists():
            with contextlib.suppress(OSError):
                witness.saw("arguments", proc.read_bytes().decode("latin-1"))
        release.set()
        out, err = child.communicate(timeout=60)
    witness.saw("program", out.decode(), err.decode())
    assert child.returncode == 0, err.decode()
    assert TEXT in out.decode()
    here.check()


# Values that hold a credential.


def test_values_with_a_credential_show_none(witness: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Routes, keys, credentials, clients, plans: as text, as a pickle, as a dict of their fields."""
    secret = witness.secret("env")
    monkeypatch.setenv("THE_KEY", secret)
    file = witness.home / "given-file"
    file.write_text(secret)
    file.chmod(0o600)
    route = Route("https://a.test/v1", "m", api_key=Secret(secret), headers={"X-Token": secret})
    credentials = [EnvKey("THE_KEY"), FileKey(str(file)), FixedKey(Secret(secret))]
    applied = [each.apply(route) for each in credentials]
    values: list[Any] = [Secret(secret), route, *credentials, *applied, Planner(routes=[route])]
    with Client(routes=[route]) as client:
        values += [client, client.routes, client.plan()]
        for value in values:
            witness.saw(
                type(value).__name__, str(value), repr(value), f"{value}", json.dumps(value, default=str)
            )
            witness.saw_pickle(value)
        witness.saw("fingerprint", route.account, str(route.part("route")))
    for each in credentials:
        witness.saw("label", each.label, each.remark)


@pytest.mark.parametrize("broken", ["line\nbreak", "snow☃man", "nul\0byte"])
def test_a_key_that_cannot_be_sent_is_not_quoted(witness: Witness, broken: str) -> None:
    """The error says what is wrong with it, and not what it is."""
    secret = witness.secret("env")
    with pytest.raises(ConfigError) as caught:
        Route("https://a.test/v1", "m", api_key=Secret(f"{secret}{broken}{secret}"))
    error = caught.value
    witness.saw("error", str(error), repr(error), error.hint)
    with pytest.raises(ConfigError) as caught:
        Route("https://a.test/v1", "m", headers={"X-Token": f"{secret}{broken}"})
    witness.saw("error", str(caught.value), repr(caught.value), caught.value.hint)
    with pytest.raises(ConfigError) as caught:
        Route(f"https://user:{secret}@a.test/v1", "m")
    witness.saw("error", str(caught.value), repr(caught.value), caught.value.hint)
    with pytest.raises(ConfigError) as caught:
        Route("http://a.test/v1", "m", api_key=Secret(secret))
    witness.saw("error", str(caught.value), repr(caught.value), caught.value.hint)


def test_a_client_in_a_task_of_its_own(lab: Labs, witness: Witness) -> None:
    """What asyncio says in its debug mode about tasks and slow callbacks."""
    secret = witness.secret("env")
    here = lab(script.problem(401, f"bad {secret}"))

    async def ask() -> None:
        async with AsyncClient(
            routes=[Route(here.url, "m", "chat", Secret(secret))], policy=AT_ONCE
        ) as client:
            task = asyncio.ensure_future(client.complete("hi"))
            await asyncio.wait([task])
            witness.saw("task", task, task.exception())

    asyncio.run(ask(), debug=True)
