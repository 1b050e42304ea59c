"""One record for each call, however it ended, with what it took and without what was said."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from callers import WAYS
from verdicts import Outcome

from sidestream import (
    AsyncClient,
    Attempt,
    BudgetExhausted,
    Cancel,
    Cancelled,
    Client,
    Fault,
    FaultKind,
    NoRoute,
    Refused,
    Reply,
    Route,
    Secret,
    StreamDropped,
    Usage,
    UsageError,
)
from sidestream.lab import Fault as Break
from sidestream.lab import Lab, Plan, script
from sidestream.recovery.flow import Call
from sidestream.telemetry import PROVIDERS, CallRecord, Counts, Stopwatch, observers_of
from sidestream.wire.prompt import Request

Make = Callable[..., tuple[Outcome, CallRecord]]

TEXT = "The quick brown fox jumps over the lazy dog."
CUT = Break.cut(after_event=5)
KEY = "Canary0d41d8cd98f00b204"  # looks like no key: only knowing it keeps it out

ways = pytest.mark.parametrize("way", WAYS)
live_ways = pytest.mark.parametrize("way", ["sync-live", "async-live"])


@ways
def test_a_whole_answer(way: str, make: Make) -> None:
    """A call that went through: where to, what was asked, how it ended, when, and what it took."""
    asked = {"max_output_tokens": 50, "temperature": 0, "top_p": 0.5, "stop": ["###", "END"]}
    before = time.time()
    with Lab(script.say(TEXT)) as lab:
        outcome, record = make(way, lab.url, asked)
    reply = outcome.reply
    assert reply is not None
    assert (record.route, record.host, record.port) == (f"127.0.0.1:{lab.port}/m", "127.0.0.1", lab.port)
    assert (record.provider, record.model, record.operation) == ("127.0.0.1", "m", "chat")
    assert (record.ended, record.status, record.error, record.fault) == ("complete", "complete", "", "")
    assert record.live is way.endswith("live")
    assert (record.max_tokens, record.temperature, record.top_p) == (50, 0.0, 0.5)
    assert (record.stop_count, record.choices) == (2, 1)
    assert (record.finish_reason, record.response_id, record.response_model) == (
        "stop",
        reply.id,
        reply.model,
    )
    assert (record.usage, record.attempts) == (reply.usage, reply.attempts)
    assert before <= record.started <= time.time()
    assert 0 < record.attempts[0].seconds <= record.seconds
    assert (record.recovered, record.rungs, record.faults) == (False, (), ())


@ways
def test_a_recovered_answer(way: str, make: Make) -> None:
    """A call that broke and was mended: every attempt with its moment, the fault and the way back."""
    with Lab(script.say(TEXT), plan=Plan([CUT])) as lab:
        outcome, record = make(way, lab.url)
    assert outcome.reply is not None
    assert outcome.reply.text == TEXT
    assert (record.ended, record.recovered, record.faults) == ("complete", True, ("dropped",))
    assert record.rungs == tuple(row.rung for row in outcome.reply.attempts[1:])
    assert len(record.rungs) == 1
    first, second = record.sent
    # An attempt's time begins with the decision to send it, a moment before the request goes out.
    assert 0 <= first < record.attempts[0].seconds <= second < record.seconds
    assert record.counts.recovered == 1


@ways
def test_a_lost_answer(way: str, make: Make) -> None:
    """A call that failed: the error's name, the fault, and the ledger of what was tried."""
    with Lab(script.say(TEXT), plan=Plan.always(CUT)) as lab:
        outcome, record = make(way, lab.url)
    assert isinstance(outcome.error, StreamDropped)
    assert (record.ended, record.error, record.fault) == ("failed", "StreamDropped", "dropped")
    assert record.attempts == outcome.error.attempts
    assert len(record.sent) == len(record.attempts) >= 2
    assert record.counts.gave_up == {"dropped": 1}
    assert record.counts.recovered == 0


@ways
def test_a_provider_that_says_no(way: str, make: Make) -> None:
    """A refusal to serve is a failed call with the error's own name."""
    with Lab(script.error(401, "no")) as lab:
        _, record = make(way, lab.url)
    assert (record.ended, record.error, record.fault) == ("failed", "AuthFailed", "auth")
    assert [row.status for row in record.attempts] == [401]


@ways
def test_a_cancelled_call(way: str, make: Make) -> None:
    """A call that was stopped: the attempt it was in, and no failure."""
    stop = Cancel()

    def answer(request: Any) -> Any:
        stop.cancel()
        return script.say(TEXT)(request)

    with Lab(answer, plan=Plan.always(Break.stall(after_event=3))) as lab:
        outcome, record = make(way, lab.url, {"cancel": stop})
    assert isinstance(outcome.error, Cancelled)
    assert (record.ended, record.error, record.fault) == ("cancelled", "Cancelled", "")
    assert [row.ended for row in record.attempts] == ["cancel"]
    assert record.counts.gave_up == {}


def test_a_task_that_is_cancelled(loop: asyncio.AbstractEventLoop) -> None:
    """asyncio's own cancelling is a cancelled call, and its ledger is kept."""
    told: list[CallRecord] = []
    tasks: list[asyncio.Task[Reply]] = []

    def answer(request: Any) -> Any:
        loop.call_soon_threadsafe(lambda: tasks[0].cancel())
        return script.say(TEXT)(request)

    async def ask(url: str) -> None:
        client = AsyncClient(base_url=url, model="m", observe=told.append)
        tasks.append(asyncio.ensure_future(client.complete("hi")))
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]

    with Lab(answer, plan=Plan.always(Break.stall(after_event=3))) as lab:
        loop.run_until_complete(ask(lab.url))
    (record,) = told
    assert (record.ended, record.error) == ("cancelled", "CancelledError")
    assert [row.rung for row in record.attempts] == ["send"]


# Streams that are left.


def leave(way: str, url: str, told: list[CallRecord], loop: asyncio.AbstractEventLoop) -> Reply:
    """Read a stream's first event and no more; the reply as it stands then."""

    async def leave_async() -> Reply:
        client = AsyncClient(base_url=url, model="m", observe=told.append)
        async with client.stream("hi") as stream:
            await anext(aiter(stream))
        return stream.reply

    if way.startswith("async"):
        return loop.run_until_complete(leave_async())
    with Client(base_url=url, model="m", observe=told.append).stream("hi") as stream:
        next(iter(stream))
    return stream.reply


@live_ways
def test_an_abandoned_stream(way: str, loop: asyncio.AbstractEventLoop) -> None:
    """A stream closed before its end is abandoned, not failed; its one attempt is in the ledger."""
    told: list[CallRecord] = []
    with Lab(script.say(TEXT)) as lab:
        reply = leave(way, lab.url, told, loop)
    (record,) = told
    assert (record.ended, record.status, record.error) == ("abandoned", "dropped", "")
    assert [(row.rung, row.ended) for row in record.attempts] == [("send", "cancel")]
    assert (reply.status, reply.attempts) == ("dropped", record.attempts)
    assert TEXT.startswith(reply.text)
    assert record.counts == Counts(calls=1, attempts=1, wasted_tokens=record.counts.wasted_tokens)


def test_a_stream_that_its_reader_breaks() -> None:
    """If the reader's own code fails, the call is abandoned, and the reader's error stays the reader's."""
    told: list[CallRecord] = []
    with Lab(script.say(TEXT)) as lab:
        client = Client(base_url=lab.url, model="m", observe=told.append)
        with pytest.raises(ZeroDivisionError), client.stream("hi") as stream:
            any(1 / 0 for _ in stream)
    assert [record.ended for record in told] == ["abandoned"]


@live_ways
def test_a_stream_that_is_never_read_is_no_call(way: str, loop: asyncio.AbstractEventLoop) -> None:
    """Where no request was made there is nothing to tell."""
    told: list[CallRecord] = []

    async def enter() -> None:
        async with AsyncClient(base_url=lab.url, model="m", observe=told.append).stream("hi"):
            pass

    with Lab(script.say(TEXT)) as lab:
        if way == "async-live":
            loop.run_until_complete(enter())
        else:
            with Client(base_url=lab.url, model="m", observe=told.append).stream("hi"):
                pass
        assert not lab.requests
    assert told == []


# Observers.


@ways
def test_an_observer_that_raises_breaks_nothing(
    way: str, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer comes, the other observers are told, and the log has one line with the traceback."""

    def broken(record: CallRecord) -> None:
        raise ValueError(f"no room for {record.route}")

    with Lab(script.say(TEXT)) as lab:
        outcome, record = make(way, lab.url, observe=[broken])
    assert outcome.error is None
    assert record.ended == "complete"
    (line,) = [line for line in caplog.records if line.name == "sidestream"]
    assert line.levelno == logging.ERROR
    assert line.exc_info is not None


def test_what_observe_takes() -> None:
    """None is the log, () is nothing, one function or several are themselves; anything else is refused."""
    assert len(observers_of(None)) == 1
    assert observers_of(()) == ()
    assert observers_of(print) == (print,)
    assert observers_of([print, repr]) == (print, repr)
    with pytest.raises(UsageError, match="observe="):
        observers_of(["sidestream"])  # type: ignore[list-item]


def test_an_observer_runs_in_the_context_of_the_call() -> None:
    """Context variables are those of the moment the call began, wherever it is closed."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    seen: list[str] = []
    with Lab(script.say(TEXT)) as lab:
        client = Client(base_url=lab.url, model="m", observe=lambda _: seen.append(name.get()))
        name.set("at the start")
        with client.stream("hi") as stream:
            next(iter(stream))
            name.set("at the end")
    assert seen == ["at the start"]


# What is in a record, from plain values.

FIRST = Attempt("main", "send", "dropped", seconds=2.0, tokens=7)
SECOND = Attempt("main", "restart", "complete", seconds=3.0, first=0.5, tokens=9, kept=9, reread=40)


def a_call(*routes: Route, **params: Any) -> Call:
    return Call(Request(({"role": "user", "content": "hi"},), params=params), routes)


def record_of(
    reply: Reply | None, error: BaseException | None = None, call: Call | None = None
) -> CallRecord:
    """A record made by a clock that moves one second whenever it is looked at."""
    watch = Stopwatch(itertools.count(100.0).__next__, lambda: 1_790_000_000.0)
    for _ in reply.attempts if reply else ():
        watch.send()
    return CallRecord.of(call or a_call(Route("https://api.openai.com/v1", "m")), watch, reply, error)


def test_times_are_counted_from_the_start() -> None:
    """`first` has the failed attempts and waits before it; without any output there is none."""
    record = record_of(Reply("complete").with_attempts((FIRST, SECOND)))
    assert (record.started, record.sent, record.seconds) == (1_790_000_000.0, (1.0, 2.0), 3.0)
    assert record.first == 2.5
    assert record_of(Reply("complete").with_attempts((FIRST,))).first is None


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, (None, None, None, None, 1)),
        ({"max_tokens": 5, "stop": "x", "n": 3}, (5, None, None, 1, 3)),
        ({"max_completion_tokens": 6, "temperature": 1}, (6, 1.0, None, None, 1)),
        ({"temperature": "hot", "top_p": None, "max_tokens": "many", "stop": 3}, (None, None, None, None, 1)),
    ],
)
def test_figures_of_the_request(params: dict[str, Any], said: tuple[object, ...]) -> None:
    """The request's figures are read under every name they have; what is no figure is left out."""
    record = record_of(None, call=a_call(Route("http://h.test/v1", "m"), **params))
    figures = record.max_tokens, record.temperature, record.top_p, record.stop_count, record.choices
    assert figures == said


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        *PROVIDERS.items(),
        ("api.openai.com", "openai"),
        ("me.openai.azure.com", "azure.ai.openai"),
        ("bedrock-runtime.eu-west-1.amazonaws.com", "aws.bedrock"),
        ("notopenai.com", "notopenai.com"),
        ("openai.com.evil.test", "openai.com.evil.test"),
        ("localhost", "localhost"),
    ],
)
def test_providers_go_by_the_end_of_the_host(host: str, provider: str) -> None:
    """A provider is known by its domain; any other host stands for itself."""
    assert record_of(None, call=a_call(Route(f"https://{host}/v1", "m"))).provider == provider


def test_a_budget_that_refuses() -> None:
    """A call that a budget ended counts as given up, and as a refusal of that budget."""
    error = BudgetExhausted("no", budget="origin", fault=Fault(FaultKind.DROPPED), attempts=(FIRST,))
    record = record_of(None, error)
    assert (record.ended, record.error, record.fault, record.budget) == (
        "failed", "BudgetExhausted", "dropped", "origin",
    )  # fmt: skip
    assert record.attempts == (FIRST,)
    assert record.usage == Usage.of((FIRST,))
    assert record.counts.refusals == {"origin": 1}


def test_counts_add_up() -> None:
    """Counts of many calls are the sum of theirs; what nobody knows is counted as such, not as 0."""
    unknown = replace(FIRST, tokens=None, confidence="unknown")
    records = [
        record_of(Reply("complete").with_attempts((FIRST, SECOND))),
        record_of(None, StreamDropped("x", fault=Fault(FaultKind.DROPPED), attempts=(unknown,))),
        record_of(None, NoRoute("x")),
    ]
    assert sum((record.counts for record in records), Counts()) == Counts(
        calls=3,
        attempts=3,
        recovered=1,
        gave_up={"dropped": 1, "NoRoute": 1},
        wasted_tokens=7,
        reread_tokens=40,
        uncounted=1,
    )


def test_a_settled_answer_is_recovered() -> None:
    """An answer whose end marker never came was recovered by the rung that took it as it was."""
    record = record_of(Reply("complete", settled=True).with_attempts((replace(SECOND, rung="send"),)))
    assert (record.recovered, record.rungs) == (True, ("settle",))


def test_a_record_names_its_task() -> None:
    """Who pays can see which side task it was for."""
    told: list[CallRecord] = []
    with Lab(script.say(TEXT)) as lab, Client(lab.url, model="m", observe=told.append) as client:
        client.complete("hi", task="title")
        client.complete("hi")
    assert [record.task for record in told] == ["title", ""]


def test_a_call_without_a_route() -> None:
    """Even a call that had nowhere to go leaves a record."""
    told: list[CallRecord] = []
    with Client(routes=(), observe=told.append) as client, pytest.raises(NoRoute):
        client.complete("hi")
    assert [(record.ended, record.error, record.route) for record in told] == [("failed", "NoRoute", "")]


# What is not in it.


@ways
def test_a_record_has_no_content(way: str, make: Make) -> None:
    """Neither prompt, instructions, stop words nor answer are in a record."""
    asked = {"input": "Qprompt", "instructions": "Qinstructions", "stop": ["Qstop"]}
    with Lab(script.say("Qanswer is what was said."), plan=Plan([CUT])) as lab:
        outcome, record = make(way, lab.url, asked)
    assert outcome.error is None
    assert "Q" not in repr(record)


@ways
@pytest.mark.parametrize("status", [200, 400, 429, 500])
def test_a_record_has_no_credential(way: str, status: int, make: Make) -> None:
    """A server that quotes the credentials back, wherever it can, cannot get them into a record."""
    quoted = f"{KEY} and header-{KEY}"
    error = script.error(
        status, {"error": {"message": quoted, "code": quoted}}, headers={"X-Request-Id": quoted}
    )
    whole = {"id": quoted, "model": quoted, "object": "chat.completion", "choices": [
        {"index": 0, "finish_reason": quoted, "message": {"role": "assistant", "content": "hello"}}
    ]}  # fmt: skip
    answer = script.json(whole, headers={"X-Request-Id": quoted}) if status == 200 else error
    with Lab(answer) as lab:
        route = Route(lab.url, "m", "chat", Secret(KEY), headers={"X-Extra": f"header-{KEY}"})
        _, record = make(way, None, routes=[route])
        assert lab.requests[0].header("authorization") is not None
    assert record.attempts
    assert KEY not in repr(record)


def test_a_refusal_is_recorded_by_name() -> None:
    """What a model said when it refused is no part of the record's own fields."""
    fault = Fault(FaultKind.REFUSED, "Qwords")
    record = record_of(Reply("refused", refusal="Qwords"), Refused("Qwords", fault=fault))
    assert (record.error, record.fault, record.status) == ("Refused", "refused", "refused")
    assert "Q" not in repr(record)
