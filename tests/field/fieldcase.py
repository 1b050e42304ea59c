"""A field case: what a server did in the field, as data, and the loops that play it.

`load` reads `cases/*.toml` (unknown keys are errors, so a slip of the pen never passes for a check). `labs`
starts one real server per route of a case, and `ask` and `ask_async` put the case's question to a `Client`
and an `AsyncClient`, held or live, and bring back an `Outcome` to compare with `[expect]`. How to write a
case is told in README.md.
"""

from __future__ import annotations

import contextlib
import json
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
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

Wire = Literal["responses", "chat"]


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
        say = script.chat_text if wire == "chat" else script.responses_text
        return say(self.text or "", pace=self.pace)

    def plan(self) -> tuple[Fault, ...]:
        return tuple(map(Fault.parse, self.faults))


class Server(Strict):
    """One route and what its server does, attempt by attempt; the last answer repeats.

    `continuation` is the route's; left out, the provider table decides, which knows no such server.
    """

    name: str
    answers: tuple[Answer, ...]
    wire: Wire | None = None
    continuation: Continuation | None = None


class Ask(Strict):
    """How the question is put. `tools` maps a tool's name to its required arguments."""

    timeouts: dict[str, float] = {}
    policy: dict[str, float] = {}
    tools: dict[str, tuple[str, ...]] = {}
    params: dict[str, Any] = {}
    empty_is_failure: bool = False

    def limits(self) -> Timeouts:
        return Timeouts(**TIMEOUTS | self.timeouts)

    def options(self) -> dict[str, Any]:
        tools = [_tool(name, required) for name, required in self.tools.items()]
        return {"tools": tools, "empty_is_failure": self.empty_is_failure, **self.params}


class Expect(Strict):
    """What is required. Fields without a default value of None are always compared.

    `requests` counts per route; `attempts` is the ledger, one "route rung ended" per exchange; `restarts`
    counts the `Restarted` events of a live call; `seconds` are bounds of the call's wall time.
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
    seconds: tuple[float, float] | None = None
    closed_in_order: bool = False


class Case(Strict):
    """One file. With `test` it describes functions of test_process.py, those whose name begins so.

    `live = false` leaves out the two live runs, where they would only take time.
    """

    number: int
    title: str
    sources: tuple[str, ...]
    server: str
    ancestor: str
    sidestream: str
    note: str = ""
    test: str = ""
    wire: Wire = "responses"
    live: bool = True
    route: tuple[Server, ...] = ()
    call: Ask = Ask()
    expect: Expect | None = None


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

    def end(self) -> None:
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
    """One running server per route."""
    with contextlib.ExitStack() as running:
        yield [running.enter_context(_lab(server, server.wire or case.wire)) for server in case.route]


def _lab(server: Server, wire: Wire) -> Lab:
    faults = [answer.plan() for answer in server.answers]
    return Lab([answer.script(wire) for answer in server.answers], plan=Plan(faults[:-1], rest=faults[-1]))


def key(server: Server) -> str:
    """The credential of a route: another one for each."""
    return f"key-of-{server.name}"


def settings(case: Case, running: list[Lab]) -> dict[str, Any]:
    """The arguments of a client for these servers."""
    routes = [
        Route(
            lab.url,
            "lab-1",
            server.wire or case.wire,
            Secret(key(server)),
            server.name,
            continuation=server.continuation,
        )
        for server, lab in zip(case.route, running, strict=True)
    ]
    numbers = {name: int(n) if name in ("tries", "recoveries") else n for name, n in case.call.policy.items()}
    policy = Policy(**numbers, backoff=Backoff(base=0, throttled_base=0))  # type: ignore[arg-type]
    return {"routes": routes, "policy": policy}


def ask(case: Case, running: list[Lab], *, live: bool) -> Outcome:
    """The case's question, put by a thread."""
    outcome = Outcome()
    try:
        with Client(**settings(case, running), timeout=case.call.limits()) as client:
            if not live:
                outcome.reply = client.complete(QUESTION, **case.call.options())
            else:
                with client.stream(QUESTION, **case.call.options()) as stream:
                    outcome.events.extend(stream)
                    outcome.reply = stream.reply
            outcome.end()
    except SidestreamError as error:
        outcome.end()
        outcome.error = error
    return outcome


async def ask_async(case: Case, running: list[Lab], *, live: bool) -> Outcome:
    """The case's question, put by a task."""
    outcome = Outcome()
    try:
        async with AsyncClient(**settings(case, running), timeout=case.call.limits()) as client:
            if not live:
                outcome.reply = await client.complete(QUESTION, **case.call.options())
            else:
                async with client.stream(QUESTION, **case.call.options()) as stream:
                    async for event in stream:
                        outcome.events.append(event)
                    outcome.reply = stream.reply
            outcome.end()
    except SidestreamError as error:
        outcome.end()
        outcome.error = error
    return outcome
