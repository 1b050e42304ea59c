"""A field case: what a server did in the field, as data, and the loops that play it.

`load` reads `cases/*.toml` (unknown keys are errors, so a slip of the pen never passes for a check). `labs`
starts the real servers of a case, and `ask` and `ask_async` put its question to a `Client` or `AsyncClient`,
held or live, as often as there are expectations, and bring back an `Outcome` for each. How to write a case is
told in README.md.
"""

from __future__ import annotations

import contextlib
import json
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from sidestream import (
    AsyncClient,
    Backoff,
    Client,
    Policy,
    Reply,
    Restarted,
    Route,
    RouteClocks,
    Secret,
    SidestreamError,
    TextDelta,
    Timeouts,
    ToolCall,
)
from sidestream.lab import Fault, Lab, Plan, Script, script
from sidestream.route import Continuation
from sidestream.wire.events import StreamEvent

FOLDER = Path(__file__).parent / "cases"
CORPUS = Path(__file__).parent.parent / "corpus"
QUESTION = "What is the answer?"
# No case may hang: what a case does not set is short.
TIMEOUTS = {"total": 10.0, "first": 5.0, "idle": 5.0, "connect": 5.0}

Wire = Literal["responses", "chat", "messages"]
SAY = {"chat": script.chat_text, "responses": script.responses_text, "messages": script.messages_text}
# The value of a field that must not be there.
ABSENT = "(absent)"


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a case file."""


class Http(Strict):
    """An answer that is no stream."""

    status: int
    body: str = ""
    headers: dict[str, str] = {}


class Answer(Strict):
    """What a route does on one attempt: one of `text`, `events`, `sse`, `corpus`, `http`, and its faults."""

    text: str | None = None
    events: str | None = None
    sse: str | None = None
    corpus: str | None = None
    http: Http | None = None
    wire: Wire | None = None
    faults: tuple[str, ...] = ()
    pace: float = 0.0

    def script(self, wire: Wire) -> Script:
        if self.http is not None:
            return script.error(self.http.status, self.http.body, headers=self.http.headers)
        if self.corpus is not None:
            return script.from_sse(CORPUS / self.corpus, pace=self.pace)
        if self.sse is not None:
            return script.from_sse(self.sse.encode(), pace=self.pace)
        if self.events is not None:
            return Script(tuple(map(_event, self.events.strip().splitlines())), pace=self.pace)
        return SAY[self.wire or wire](self.text or "", pace=self.pace)

    def plan(self) -> tuple[Fault, ...]:
        return tuple(map(Fault.parse, self.faults))


class Server(Strict):
    """One route and what its server does, attempt by attempt; the last answer repeats.

    `server` names another route that has the same server, in place of `answers`; `key` is its credential, if
    that is not one of its own. `renews` are the keys that renewals bring, one after the other; "" is none.
    The rest is the route's; `continuation` left out, the provider table decides, which knows no such server.
    """

    name: str
    answers: tuple[Answer, ...] = ()
    server: str = ""
    model: str = "lab-1"
    key: str = ""
    renews: tuple[str, ...] = ()
    wire: Wire | None = None
    guessed: bool = False
    window: int | None = None
    clocks: dict[str, float] = {}
    params: dict[str, Any] = {}
    continuation: Continuation | None = None

    @property
    def secret(self) -> str:
        return self.key or f"key-of-{self.name}"


class Ask(Strict):
    """How the question is put. `tools` maps a tool's name to its required arguments; `times` repeats the
    question, for a long prompt."""

    timeouts: dict[str, float] = {}
    policy: dict[str, float] = {}
    tools: dict[str, tuple[str, ...]] = {}
    params: dict[str, Any] = {}
    empty_is_failure: bool = False
    task: str | None = None
    times: int = 1

    @property
    def question(self) -> str:
        return " ".join([QUESTION] * self.times)

    def limits(self) -> Timeouts:
        return Timeouts(**TIMEOUTS | self.timeouts)

    def options(self) -> dict[str, Any]:
        tools = [_tool(name, required) for name, required in self.tools.items()]
        given = {"tools": tools, "empty_is_failure": self.empty_is_failure or None, "task": self.task}
        return given | self.params


class Expect(Strict):
    """What is required. Fields without a default value of None are always compared.

    `requests` counts per server, over all calls so far; `attempts` is the ledger, one "route rung ended" per
    exchange; `sent` are fields of the bodies a server got so far, `keys` whose credentials, `paths` where to;
    `restarts` counts the `Restarted` events of a live call; `seconds` are bounds of the call's wall time.
    """

    status: str
    requests: tuple[int, ...]
    attempts: tuple[str, ...] = ()
    text: str = ""
    reasoning: str = ""
    commentary: str = ""
    refusal: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    settled: bool = False
    restarts: int = 0
    error: str = ""
    fault: str = ""
    code: str | None = None
    clock: str | None = None
    retry_at: float | None = None
    message: tuple[str, ...] = ()
    finish_reason: str | None = None
    output_tokens: int | None = None
    dropped_calls: tuple[str, ...] = ()
    sent: dict[str, tuple[dict[str, Any], ...]] = {}
    keys: dict[str, tuple[str, ...]] = {}
    paths: dict[str, tuple[str, ...]] = {}
    seconds: tuple[float, float] | None = None
    closed_in_order: bool = False


class Case(Strict):
    """One file. With `test` it describes functions of test_process.py, those whose name begins so, or of
    another file, written as "tests/….py::test_name".

    `live = false` leaves out the two live runs, where they would only take time. Each `then` is a further
    call of the same client, and what is required of it. `also` names further tests that prove it.
    """

    number: int
    title: str
    sources: tuple[str, ...]
    server: str
    ancestor: str
    sidestream: str
    note: str = ""
    test: str = ""
    also: tuple[str, ...] = ()
    wire: Wire = "responses"
    live: bool = True
    route: tuple[Server, ...] = ()
    call: Ask = Ask()
    expect: Expect | None = None
    then: tuple[Expect, ...] = ()

    @property
    def servers(self) -> tuple[Server, ...]:
        """The routes that have a server of their own."""
        return tuple(route for route in self.route if not route.server)

    def home(self, route: Server) -> int:
        """The number of a route's server."""
        names = [server.name for server in self.servers]
        return names.index(route.server or route.name)

    @property
    def expected(self) -> tuple[Expect, ...]:
        return () if self.expect is None else (self.expect, *self.then)


def load() -> dict[str, Case]:
    """Every case by the name of its file, in the order of the numbers."""
    cases = {path.stem: _read(path) for path in FOLDER.glob("*.toml")}
    return dict(sorted(cases.items(), key=lambda pair: (pair[1].number, len(pair[0]), pair[0])))


def _read(path: Path) -> Case:
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Case)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def _event(line: str) -> bytes:
    """One line of `events`: a JSON object or `[DONE]`, named by its type as the Responses wire does."""
    if line == "[DONE]":
        return b"data: [DONE]\n\n"
    name = json.loads(line).get("type")
    return (f"event: {name}\n" if name else "").encode() + f"data: {line}\n\n".encode()


def _tool(name: str, required: tuple[str, ...]) -> dict[str, Any]:
    properties = {argument: {"type": "string"} for argument in required}
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "name": name, "description": name, "parameters": schema}


@dataclass
class Outcome:
    """What came of a call: the reply or the error, what a live consumer was given, and how long it took."""

    reply: Reply | None = None
    error: SidestreamError | None = None
    events: list[StreamEvent] = field(default_factory=list)
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """What happens inside is this call, its error included."""
        self.started = time.monotonic()
        try:
            yield
        except SidestreamError as error:
            self.error = error
        self.seconds = time.monotonic() - self.started

    @property
    def partial(self) -> Reply | None:
        return self.reply or (self.error.reply if self.error else None)

    @property
    def restarts(self) -> int:
        return sum(isinstance(event, Restarted) for event in self.events)

    @property
    def delivered(self) -> tuple[str, tuple[ToolCall, ...]]:
        """Text and calls a live consumer holds in the end."""
        text: list[str] = []
        calls: list[ToolCall] = []
        for event in self.events:
            if isinstance(event, Restarted):
                text, calls = [], []
            elif isinstance(event, TextDelta):
                text.append(event.delta)
            elif isinstance(event, ToolCall):
                calls.append(event)
        return "".join(text), tuple(calls)


@contextlib.contextmanager
def labs(case: Case) -> Iterator[list[Lab]]:
    """The running servers."""
    with contextlib.ExitStack() as running:
        yield [running.enter_context(_lab(server, server.wire or case.wire)) for server in case.servers]


def _lab(server: Server, wire: Wire) -> Lab:
    faults = [answer.plan() for answer in server.answers]
    return Lab([answer.script(wire) for answer in server.answers], plan=Plan(faults[:-1], rest=faults[-1]))


@dataclass
class Renewing:
    """A credential with a key that runs out, and the keys that come after it."""

    keys: list[str]
    label: str = "a sign-in of this test"

    def apply(self, route: Route) -> Route:
        return route

    def renew(self, route: Route, seconds: float) -> Route | None:  # noqa: ARG002
        key = self.keys.pop(0) if self.keys else ""
        return replace(route, api_key=Secret(key)) if key else None


def route_to(case: Case, server: Server, lab: Lab) -> Route:
    """A route of a case."""
    return Route(
        lab.url,
        server.model,
        server.wire or case.wire,
        Secret(server.secret),
        server.name,
        continuation=server.continuation,
        credential=Renewing(list(server.renews)) if server.renews else None,
        window=server.window,
        params=server.params,
        clocks=RouteClocks(**server.clocks) if server.clocks else None,
        guessed=server.guessed,
    )


def settings(case: Case, running: list[Lab]) -> dict[str, Any]:
    """The arguments of a client for these servers."""
    routes = [route_to(case, server, running[case.home(server)]) for server in case.route]
    numbers = {name: int(n) if name in ("tries", "recoveries") else n for name, n in case.call.policy.items()}
    policy = Policy(**numbers, backoff=Backoff(base=0, throttled_base=0))  # type: ignore[arg-type]
    return {"routes": routes, "policy": policy}


def ask(case: Case, running: list[Lab], *, live: bool) -> list[Outcome]:
    """The case's question, put by a thread."""
    outcomes: list[Outcome] = []
    try:
        with Client(**settings(case, running), timeout=case.call.limits()) as client:
            for _ in case.expected:
                outcomes.append(Outcome())
                with outcomes[-1].kept():
                    _once(client, case.call, outcomes[-1], live=live)
    except SidestreamError as error:  # of the settings
        outcomes.append(Outcome(error=error))
    return outcomes


def _once(client: Client, call: Ask, outcome: Outcome, *, live: bool) -> None:
    if not live:
        outcome.reply = client.complete(call.question, **call.options())
        return
    with client.stream(call.question, **call.options()) as stream:
        outcome.events.extend(stream)
        outcome.reply = stream.reply


async def ask_async(case: Case, running: list[Lab], *, live: bool) -> list[Outcome]:
    """The case's question, put by a task."""
    outcomes: list[Outcome] = []
    try:
        async with AsyncClient(**settings(case, running), timeout=case.call.limits()) as client:
            for _ in case.expected:
                outcomes.append(Outcome())
                with outcomes[-1].kept():
                    await _once_async(client, case.call, outcomes[-1], live=live)
    except SidestreamError as error:  # of the settings
        outcomes.append(Outcome(error=error))
    return outcomes


async def _once_async(client: AsyncClient, call: Ask, outcome: Outcome, *, live: bool) -> None:
    if not live:
        outcome.reply = await client.complete(call.question, **call.options())
        return
    async with client.stream(call.question, **call.options()) as stream:
        async for event in stream:
            outcome.events.append(event)
        outcome.reply = stream.reply
