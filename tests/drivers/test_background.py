"""Responses in the background: after a break the same response goes on, by cursor or by polls, for one POST.

Everything here goes through the lab's `Background`, a provider that keeps jobs; the plan breaks POSTs,
resumes and polls alike. The rule of the second half: a network error never cancels the job, the caller's own
stop always does, in every phase, and the socket is closed before the provider is told.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import pytest
from callers import WAYS, caller
from places import listening
from verdicts import Outcome

from sidestream import (
    AsyncClient,
    Backoff,
    Cancel,
    Cancelled,
    Client,
    DeadlineExceeded,
    Policy,
    Recovering,
    Reply,
    Route,
    Secret,
    ServerError,
    StreamDropped,
    TextDelta,
    Timeouts,
    ToolCall,
)
from sidestream.drivers import _DISMISS_SECONDS
from sidestream.lab import Background, Fault, Lab, Plan, Request, Script, script
from sidestream.lab.sse import decode
from sidestream.net.sync import LOOK
from sidestream.recovery.exchange import Exchange

TEXT = "The answer was told once, in full: naïve 数据 🙂  and so on."
THOUGHT = "Let me think about rivers."
CALL = ToolCall("call_lab_2", "look_up", '{"river":"Glomma"}')
PARTS = (script.reasoning(THOUGHT), script.message(TEXT), script.call(CALL.name, CALL.arguments))
ANSWER = script.responses(*PARTS, background=True)
EVENTS = len(ANSWER.events)
REPORTED = (10, sum(item.tokens for item in PARTS))
TOOLS = [{"type": "function", "name": CALL.name, "parameters": {"type": "object"}}]
ASK: dict[str, Any] = {"input": "hi", "background": True, "tools": TOOLS}
PLAIN: dict[str, Any] = {"input": "hi", "background": True}
JOB = "resp_lab_0"
GONE = Background.TOO_OLD
FEED = Exchange.feed
STOP, SCHEDULING, PATIENCE = 0.05, 0.15, 5.0
AT_ONCE = Policy(recoveries=30, backoff=Backoff(0.0, 0.0, 0.0))

Labs = Callable[..., Lab]
by_way = pytest.mark.parametrize("way", WAYS)
by_loop = pytest.mark.parametrize("loop", ["sync", "async"])


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Polls follow each other at once, where a test does not say otherwise."""
    monkeypatch.setattr("sidestream.recovery.flow._FIRST_POLL", 0.001)


def number_of(needle: bytes, events: tuple[bytes, ...] = ANSWER.events) -> int:
    """How many events pass up to the first that contains it, that one included."""
    return next(number for number, event in enumerate(events, 1) if needle in event)


MID = number_of(b'"delta":" told"')


def cut(after_event: int) -> Fault:
    return Fault.cut(after_event=after_event, tail=0)


def route_to(running: Lab, **options: Any) -> Route:
    """A route there that continues nothing: what is not resumed starts anew."""
    return Route(running.url, "model-1", continuation="none", **options)


@contextlib.contextmanager
def calling(way: str, running: Lab, **options: Any) -> Iterator[Callable[[Any], Outcome]]:
    """A client of that way."""
    made: dict[str, Any] = {"routes": [route_to(running)], "policy": AT_ONCE} | options
    with contextlib.closing(asyncio.new_event_loop()) as loop, Client(**made) as client:
        yield caller(way, lambda: client, lambda: AsyncClient(**made), loop)


def ask(way: str, running: Lab, asked: dict[str, Any] = ASK, **options: Any) -> Outcome:
    """One call."""
    with calling(way, running, **options) as call:
        return call(asked)


def posts(running: Lab) -> int:
    """How many answers were asked for."""
    return sum(r.method == "POST" and not r.path.endswith("/cancel") for r in running.requests)


def whole(outcome: Outcome, text: str = TEXT, calls: tuple[ToolCall, ...] = (CALL,)) -> Reply:
    """The reply, which is the whole answer, and which a live consumer has read exactly once."""
    assert outcome.error is None, repr(outcome.error)
    reply = outcome.reply
    assert reply is not None
    assert (reply.status, reply.text, reply.tool_calls) == ("complete", text, calls)
    if outcome.view is not None:
        assert outcome.view.void == []
        assert "".join(outcome.view.text.values()) == text
        assert tuple(outcome.view.calls) == calls
        assert outcome.view.reasoning == reply.reasoning
    return reply


def costs_one_answer(reply: Reply) -> None:
    """The ledger of one response, in however many exchanges: what it reported, nothing twice."""
    usage = reply.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == REPORTED
    assert (usage.reread_tokens, usage.wasted_tokens) == (0, 0)
    assert usage.kept_tokens == REPORTED[1]


# The same response goes on.


@by_way
def test_the_request_is_kept_unless_the_caller_says_otherwise(way: str, lab: Labs) -> None:
    """`background` asks for `store`, and an explicit `store` wins."""
    running = lab(Background(TEXT))
    with calling(way, running) as call:
        for asked in (PLAIN, PLAIN | {"store": False}, {"input": "hi"}, {"input": "hi", "background": False}):
            whole(call(asked), calls=())
    sent = [(r.fields().get("background"), r.fields()["store"]) for r in running.requests]
    assert sent == [(True, True), (True, False), (None, False), (False, False)]


@by_way
def test_cut_after_any_event_the_response_goes_on(way: str, lab: Labs) -> None:
    """Wherever the stream breaks, the rest follows from the cursor: every event once, for a single POST."""
    first = range(1, EVENTS)
    plan = Plan([fault for at in first for fault in (cut(at), None)])
    running = lab(Background(ANSWER), plan=plan)
    with calling(way, running) as call:
        for at in first:
            reply = whole(call(ASK))
            assert reply.reasoning == THOUGHT
            assert [(row.rung, row.status) for row in reply.attempts] == [("send", 200), ("reconnect", 200)]
            costs_one_answer(reply)
            assert running.requests[-1].path.endswith(
                f"/resp_lab_{at - 1}?stream=true&starting_after={at - 1}"
            )
    assert posts(running) == len(first)


@by_way
@pytest.mark.parametrize(
    "fault",
    [Fault.end, Fault.reset, Fault.eof, Fault.cut, lambda **at: Fault.splice("html", **at)],
    ids=["end", "reset", "eof", "cut", "splice"],
)
def test_however_it_breaks_the_response_goes_on(way: str, lab: Labs, fault: Callable[..., Fault]) -> None:
    """A clean early end, a reset, a torn event and an error page inside are all just breaks."""
    running = lab(Background(ANSWER), plan=Plan([fault(after_event=MID)]))
    costs_one_answer(whole(ask(way, running)))
    assert (posts(running), len(running.requests)) == (1, 2)


@by_way
@pytest.mark.parametrize("cuts", [2, 10])
def test_an_answer_survives_many_cuts(way: str, lab: Labs, cuts: int) -> None:
    """The reconnects break, too, as often as the policy allows: still one POST and nothing twice."""
    text = script.words(80)
    running = lab(Background(text), plan=Plan([cut(7)] * cuts))
    reply = whole(ask(way, running, PLAIN), text, ())
    assert [row.rung for row in reply.attempts] == ["send"] + ["reconnect"] * cuts
    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.wasted_tokens) == (10, 80, 0)
    assert reply.usage.reread_tokens == 0
    assert posts(running) == 1


@by_way
def test_a_reconnect_that_brings_nothing_is_tried_again(way: str, lab: Labs) -> None:
    """One reconnect that breaks before its first event costs a try, and not the answer."""
    running = lab(Background(ANSWER), plan=Plan([cut(MID), Fault.close()]))
    costs_one_answer(whole(ask(way, running)))
    assert (posts(running), len(running.requests)) == (1, 3)


@by_way
def test_before_the_id_is_known_it_is_asked_again(way: str, lab: Labs) -> None:
    """Without an id there is nothing to come back for: the call is asked again."""
    running = lab(Background(ANSWER), plan=Plan([cut(0)]))
    reply = whole(ask(way, running))
    assert [row.rung for row in reply.attempts] == ["send", "restart"]
    assert posts(running) == 2


@by_way
@pytest.mark.parametrize("overlap", [1, 2, 3, 4, 5, EVENTS])
def test_events_that_come_again_are_left_out(way: str, lab: Labs, overlap: int) -> None:
    """A resume that begins before the cursor, even at the very first event, delivers nothing twice."""
    plan = Plan([fault for at in range(1, EVENTS) for fault in (cut(at), None)])
    running = lab(Background(ANSWER, overlap=overlap), plan=plan)
    with calling(way, running) as call:
        for _ in range(1, EVENTS):
            costs_one_answer(whole(call(ASK)))
    assert posts(running) == EVENTS - 1


@by_way
@pytest.mark.parametrize("polls", [0, 2])
@pytest.mark.parametrize("gap", [1, 3])
def test_a_gap_is_never_joined(way: str, lab: Labs, gap: int, polls: int) -> None:
    """A resume that leaves events out is not believed: the whole response is polled for."""
    job = Background(ANSWER, gap=gap, polls=polls)
    running = lab(job, plan=Plan([cut(MID)]))
    reply = whole(ask(way, running))
    assert (posts(running), job.resumes, job.polls) == (1, 1, polls + 1)
    costs_one_answer(reply)


# Polling.


@by_way
@pytest.mark.parametrize("at", [1, 3, number_of(b'"delta":" think"'), MID, EVENTS - 2, EVENTS - 1])
def test_when_the_stream_is_gone_the_response_is_polled(way: str, lab: Labs, at: int) -> None:
    """After five minutes only polling is left; a live consumer gets the rest, and nothing of it twice."""
    job = Background(ANSWER, stream_gone=GONE, polls=3)
    running = lab(job, plan=Plan([cut(at)]))
    reply = whole(ask(way, running))
    assert reply.reasoning == THOUGHT
    assert (posts(running), job.resumes, job.polls) == (1, 1, 4)
    costs_one_answer(reply)


@by_way
def test_a_resumed_stream_can_grow_too_old(way: str, lab: Labs) -> None:
    """Some reconnects work, then the window closes: polling takes over in the middle."""
    job = Background(ANSWER, stream_gone=GONE, resumes=2, polls=1)
    running = lab(job, plan=Plan([cut(MID), cut(2), cut(2)]))
    costs_one_answer(whole(ask(way, running)))
    assert (posts(running), job.resumes, job.polls) == (1, 3, 2)


@by_way
def test_events_without_numbers_are_polled_for(way: str, lab: Labs) -> None:
    """A provider that counts no events keeps no cursor: it is polled, and never asked to resume."""
    bare = Script(tuple(re.sub(rb'"sequence_number":\d+,?', b"", event) for event in ANSWER.events))
    job = Background(bare, polls=1)
    running = lab(job, plan=Plan([cut(MID)]))
    costs_one_answer(whole(ask(way, running)))
    assert (posts(running), job.resumes, job.polls) == (1, 0, 2)


@by_way
def test_a_server_that_answers_a_resume_with_the_object_is_understood(way: str, lab: Labs) -> None:
    """Some servers ignore `stream=true` there: the object they give counts as a poll."""
    job = Background(ANSWER, polls=2)

    def unstreamed(request: Request) -> Script:
        return job(dataclasses.replace(request, path=request.path.partition("?")[0]))

    running = lab(unstreamed, plan=Plan([cut(MID)]))
    costs_one_answer(whole(ask(way, running)))
    assert (posts(running), job.polls) == (1, 3)


@by_way
def test_a_resumed_stream_that_is_silent_is_polled(way: str, lab: Labs) -> None:
    """A job may think for longer than any clock: silence after a resume is no reason to give it up."""
    job = Background(ANSWER, polls=2)
    running = lab(job, plan=Plan([cut(3), Fault.stall(after_event=1)]))
    costs_one_answer(whole(ask(way, running, timeout=Timeouts(first=0.3))))
    assert (posts(running), job.resumes, job.polls) == (1, 1, 3)
    assert job.cancelled == ()


@by_way
def test_polls_that_fail_in_between_are_borne(way: str, lab: Labs) -> None:
    """A poll that breaks is no news of the job: as long as others succeed, the answer is waited for."""
    job = Background(ANSWER, stream_gone=GONE, polls=6)
    ill = script.error(503, "later")

    def answer(request: Request) -> Script:
        said = job(request)
        return ill if request.method == "GET" and job.polls % 2 else said

    running = lab(answer, plan=Plan([cut(MID)]))
    costs_one_answer(whole(ask(way, running)))
    assert posts(running) == 1
    assert job.cancelled == ()


@by_way
def test_a_job_that_ended_without_its_end_is_polled(way: str, lab: Labs) -> None:
    """A stream that has everything but its terminal event: with tools offered only the provider can say."""
    job = Background(ANSWER, stream_gone=GONE)
    running = lab(job, plan=Plan([Fault.drop_terminal()]))
    costs_one_answer(whole(ask(way, running)))
    assert posts(running) == 1


def object_of(events: tuple[bytes, ...] = ANSWER.events) -> dict[str, Any]:
    """The response object of the terminal event."""
    return dict(decode(events[-1])["response"])


def polled(**fields: Any) -> Callable[[Request], Script]:
    """A provider whose stream is gone after the POST, and whose poll shows the answer with other fields."""
    made: list[int] = []

    def answer(request: Request) -> Script:
        if request.method == "POST":
            made.append(1)
            return ANSWER if len(made) == 1 else script.responses(*PARTS, response_id="resp_other")
        if "stream=true" in request.path:
            return script.problem(*GONE)
        return script.json(object_of() | fields)

    return answer


def said(text: str) -> list[dict[str, Any]]:
    """The output of the answer, its message saying something else."""
    output = object_of()["output"]
    part = output[1]["content"][0] | {"text": text}
    return [output[0], output[1] | {"content": [part]}, output[2]]


OTHER = "The answer was never told like that."


@by_way
def test_a_polled_answer_that_contradicts_the_stream_is_announced(way: str, lab: Labs) -> None:
    """If the finished response says something else, a live consumer is told and gets that, from its start."""
    running = lab(polled(output=said(OTHER)), plan=Plan([cut(MID)]))
    outcome = ask(way, running)
    assert outcome.error is None
    assert outcome.reply is not None
    assert (outcome.reply.status, outcome.reply.text) == ("complete", OTHER)
    if outcome.view is not None:
        assert "".join(outcome.view.text.values()) == OTHER
        assert [void.texts(1) for void in outcome.view.void] == [("The answer was told",)]
        assert (outcome.view.calls, outcome.view.reasoning) == ([CALL], THOUGHT)
    assert posts(running) == 1


@by_loop
@pytest.mark.parametrize("again", [TEXT, OTHER])
def test_text_alone_cannot_show_a_contradiction(loop: str, again: str, lab: Labs) -> None:
    """`.text()` never mixes the two: it goes on with what it gave, or it ends with a typed error."""
    answer = polled(output=said(OTHER))

    def second(request: Request) -> Script:
        made = answer(request)
        anew = script.responses(PARTS[0], script.message(again), PARTS[2])
        return anew if b"resp_other" in made.body else made

    running = lab(second, plan=Plan([cut(MID)]))
    seen, error = texts(loop, running)
    if again == TEXT:
        assert (seen, error) == (TEXT, None)
    else:
        assert isinstance(error, StreamDropped)
        assert seen == "The answer was told"
    assert posts(running) <= 3


def texts(loop: str, running: Lab) -> tuple[str, Exception | None]:
    """What `.text()` gives, and how it ends."""
    seen: list[str] = []
    options: dict[str, Any] = {"routes": [route_to(running)], "policy": AT_ONCE}

    def read() -> None:
        with Client(**options) as client, client.stream(**PLAIN) as stream:
            for piece in stream.text():
                seen.append(piece)  # noqa: PERF402  what came before an error counts

    async def aread() -> None:
        async with AsyncClient(**options).stream(**PLAIN) as stream:
            async for piece in stream.text():
                seen.append(piece)  # noqa: PERF401  as above

    try:
        read() if loop == "sync" else asyncio.run(aread())
    except StreamDropped as error:
        return "".join(seen), error
    return "".join(seen), None


@by_way
@pytest.mark.parametrize("output", [[], None, "absent"])
def test_a_polled_object_without_output_is_no_whole_answer(way: str, output: Any, lab: Labs) -> None:
    """`completed`, and half of what was streamed is in nobody's output: that is asked again, never short."""
    running = lab(polled(output=output), plan=Plan([cut(MID)]))
    whole(ask(way, running))
    assert posts(running) == 2


@by_way
@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_job_that_failed_is_asked_again(way: str, lab: Labs, status: str) -> None:
    """A response that ended badly has no rest: the ladder goes on below, and never comes back to it."""
    error = {"code": "server_error", "message": "The server had an error."} if status == "failed" else None
    running = lab(polled(status=status, error=error, output=[]), plan=Plan([cut(MID)]))
    reply = whole(ask(way, running))
    assert [row.rung for row in reply.attempts][:3] == ["send", "reconnect", "reconnect"]
    assert len(reply.attempts) == 4
    assert posts(running) == 2


@by_way
def test_a_job_that_keeps_failing_is_a_typed_error(way: str, lab: Labs) -> None:
    """If every job fails, the provider's own error comes out, with the partial."""
    job = Background(TEXT, status="failed", stream_gone=GONE)
    running = lab(job, plan=Plan([cut(8), None, None] * 4))
    outcome = ask(way, running, PLAIN, policy=Policy(backoff=Backoff(0.0, 0.0, 0.0)))
    assert isinstance(outcome.error, ServerError)
    assert outcome.error.reply is not None
    assert TEXT.startswith(outcome.error.reply.text)
    assert posts(running) <= 4


@by_way
def test_a_polled_incomplete_answer_is_incomplete(way: str, lab: Labs) -> None:
    """A job that hit its limit is what it is, with what it said, and asked no further."""
    job = Background(TEXT, status="incomplete", stream_gone=GONE, polls=1)
    running = lab(job, plan=Plan([cut(7)]))
    outcome = ask(way, running, PLAIN)
    assert outcome.error is None
    assert outcome.reply is not None
    assert (outcome.reply.status, outcome.reply.finish_reason) == ("incomplete", "length")
    assert outcome.reply.text == TEXT
    if outcome.view is not None:
        assert outcome.view.texts(1) == (TEXT,)
    assert posts(running) == 1


@by_way
def test_half_a_call_in_a_polled_object_is_no_call(way: str, lab: Labs) -> None:
    """A call that the limit cut in two is left out of an incomplete answer, and named."""
    output = object_of()["output"]
    torn = output[2] | {"arguments": '{"river":"Gl', "status": "incomplete"}
    fields = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    running = lab(polled(output=[*output[:2], torn], **fields), plan=Plan([cut(MID)]))
    outcome = ask(way, running)
    assert outcome.reply is not None
    assert (outcome.reply.status, outcome.reply.tool_calls) == ("incomplete", ())
    if outcome.view is not None:
        assert outcome.view.calls == []
        assert outcome.view.texts(1) == (TEXT,)


# The provider no longer has it.


@by_way
@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("stage", ["resume", "poll"])
def test_a_job_that_is_gone_is_asked_again(way: str, lab: Labs, status: int, stage: str) -> None:
    """404 and 410 mean that there is nothing to wait for: at once, and without asking for it again."""
    job = Background(ANSWER)

    def answer(request: Request) -> Script:
        made = job(request)
        if request.method == "POST":
            return made
        return script.problem(*GONE) if stage == "poll" and job.polls == 0 else script.problem(status, "gone")

    running = lab(answer, plan=Plan([cut(MID)]))
    reply = whole(ask(way, running))
    expected = ["send", "reconnect", *(["reconnect"] if stage == "poll" else []), "restart"]
    assert [row.rung for row in reply.attempts] == expected
    assert posts(running) == 2


@by_way
def test_a_job_that_is_gone_is_continued_by_its_words(way: str, lab: Labs) -> None:
    """Where text can be continued, the next rung is the anchor: the partial is not thrown away."""
    from sidestream.lab import Continuing

    text = script.words(60)
    running = lab(Background(Continuing(text), gone=404), plan=Plan([cut(40)]))
    route = Route(running.url, "model-1", continuation="anchor")
    reply = whole(ask(way, running, PLAIN, routes=[route]), text, ())
    assert [row.rung for row in reply.attempts] == ["send", "reconnect", "anchor"]


@by_way
def test_a_restarted_job_has_a_cursor_of_its_own(way: str, lab: Labs) -> None:
    """After a restart it is the new response that is streamed on, whatever was closed for the old one."""
    job = Background(ANSWER)

    def answer(request: Request) -> Script:
        made = job(request)
        if JOB not in request.path:
            return made
        failed = object_of() | {"id": JOB, "status": "failed", "output": []}
        return script.problem(*GONE) if "stream=true" in request.path else script.json(failed)

    running = lab(answer, plan=Plan([cut(MID), None, None, cut(MID)]))
    reply = whole(ask(way, running))
    rungs = ["send", "reconnect", "reconnect", "restart", "reconnect"]
    assert [row.rung for row in reply.attempts] == rungs
    assert running.requests[-1].path.endswith(f"/resp_lab_1?stream=true&starting_after={MID - 1}")


@by_way
def test_no_network_error_cancels_the_job(way: str, lab: Labs) -> None:
    """The provider cannot be reached at all any more: the error says so, and the job is left to itself."""
    job = Background(ANSWER)
    running = lab(job, plan=Plan([cut(MID)], rest=(Fault.close(),)))
    outcome = ask(way, running)
    assert isinstance(outcome.error, StreamDropped)
    assert outcome.error.reply is not None
    assert (outcome.error.reply.id, outcome.error.reply.text) == (JOB, "The answer was told")
    assert not [r for r in running.requests if r.path.endswith("/cancel")]
    assert posts(running) == 1


@by_way
@pytest.mark.parametrize("at", [1, MID])
def test_a_deadline_while_polling_leaves_the_id(way: str, lab: Labs, at: int) -> None:
    """Time is up: the error has the partial and the id to come back with; the job is not cancelled."""
    job = Background(ANSWER, stream_gone=GONE, polls=1_000_000)
    running = lab(job, plan=Plan([cut(at)]))
    begun = time.monotonic()
    outcome = ask(way, running, timeout=0.5)
    seconds = time.monotonic() - begun
    assert isinstance(outcome.error, DeadlineExceeded)
    assert outcome.error.clock == "total"
    assert outcome.error.reply is not None
    assert outcome.error.reply.id == JOB
    assert outcome.error.reply.text == ("The answer was told" if at == MID else "")
    assert 0.5 <= seconds < 0.5 + STOP + SCHEDULING
    assert job.cancelled == ()
    assert posts(running) == 1


@by_way
def test_the_chat_wire_ignores_background(way: str, lab: Labs) -> None:
    """Chat has no such thing: the field is not sent and a break is cured as ever."""
    running = lab(script.chat_text(TEXT), plan=Plan([cut(4)]))
    reply = whole(ask(way, running, PLAIN, routes=[route_to(running, wire="chat")]), calls=())
    assert [row.rung for row in reply.attempts] == ["send", "restart"]
    assert all("background" not in r.fields() and r.method == "POST" for r in running.requests)


@by_way
def test_without_background_nothing_is_resumed(way: str, lab: Labs) -> None:
    """An answer that was not created in the background is gone with its connection: no GET is wasted."""
    running = lab(Background(ANSWER), plan=Plan([cut(MID)]))
    whole(ask(way, running, {"input": "hi", "tools": TOOLS}))
    assert [r.method for r in running.requests] == ["POST", "POST"]


# Where and how it asks.


def kept_under(name: str, polls: int = 1) -> Callable[[Request], Script]:
    """A provider that gives its response this very name, and knows it by no other."""
    stream = script.responses(*PARTS, response_id=name, background=True)
    left = [polls]

    def answer(request: Request) -> Script:
        path = request.path.partition("?")[0]
        if request.method == "POST" and path.endswith("/responses"):
            return stream
        if unquote(path.removesuffix("/cancel").rpartition("/responses/")[2]) != name:
            return script.problem(404, "not found")
        if "stream=true" in request.path:
            return script.problem(*GONE)
        left[0] -= 1
        working = object_of() | {"status": "in_progress", "output": []}
        return script.json(object_of(stream.events) if left[0] < 0 else working)

    return answer


@by_way
def test_ids_are_quoted_and_the_query_is_kept(way: str, lab: Labs) -> None:
    """Any id is one segment of the path, and a base URL's own query goes along, as Azure needs it."""
    running = lab(kept_under("resp/a b?c#d%41"), plan=Plan([cut(MID)]))
    url = running.url.replace("/v1", "/openai/v1?api-version=2025-04-01-preview")
    whole(ask(way, running, routes=[Route(url, "model-1", continuation="none")]))
    asked = [(r.method, r.path) for r in running.requests]
    below = "/openai/v1/responses/resp%2Fa%20b%3Fc%23d%2541?api-version=2025-04-01-preview"
    assert asked == [
        ("POST", "/openai/v1/responses?api-version=2025-04-01-preview"),
        ("GET", f"{below}&stream=true&starting_after={MID - 1}"),
        ("GET", below),
        ("GET", below),
    ]


@by_way
def test_credentials_and_headers_go_along(way: str, lab: Labs) -> None:
    """Resumes, polls and the cancel are made with what the POST was made with."""
    running = lab(Background(ANSWER, stream_gone=GONE, polls=1_000_000), plan=Plan([cut(MID)]))
    route = route_to(running, api_key=Secret("sk-lab-12345678"), headers={"X-Team": "blue"})
    token = Cancel()
    call = in_thread(way, running, ASK | {"cancel": token}, routes=[route])
    running.wait_request(3)
    token.cancel()
    assert isinstance(call.result(PATIENCE).error, Cancelled)
    last = running.requests[-1]
    assert (last.method, last.path) == ("POST", f"/v1/responses/{JOB}/cancel")
    assert len({(r.header("authorization"), r.header("x-team")) for r in running.requests}) == 1
    assert running.requests[0].header("authorization") is not None


@by_way
def test_a_redirect_is_not_followed(way: str, lab: Labs) -> None:
    """A resume and a poll that are sent elsewhere are refusals: no credential goes where it points."""
    elsewhere = lab(Background(ANSWER))
    job = Background(ANSWER)
    moved = Script((), 307, headers=(("Location", f"{elsewhere.url}/responses/{JOB}"),), framing="length")

    def answer(request: Request) -> Script:
        return moved if request.method == "GET" else job(request)

    running = lab(answer, plan=Plan([cut(MID)]))
    whole(ask(way, running))
    assert elsewhere.requests == ()
    assert posts(running) == 2


# Cancelling.


def in_thread(way: str, running: Lab, asked: dict[str, Any], **options: Any) -> Future[Outcome]:
    """A call that runs while the test goes on."""
    future: Future[Outcome] = Future()
    threading.Thread(target=lambda: future.set_result(ask(way, running, asked, **options))).start()
    return future


@dataclasses.dataclass(frozen=True)
class Stage:
    """Where a call gets stuck.

    Attributes:
        job: what the provider does.
        plan: what breaks.
        request: the request in which, or after which, it gets stuck; `events`: so many events into it.
        during: stuck inside that request, else after it.
        partial: the text by then.
        policy: of the client; `poll`: seconds before the first look at the job.
    """

    job: dict[str, Any]
    plan: Plan
    request: int
    events: int = 0
    during: bool = True
    partial: str = "The answer was told"
    policy: Policy = AT_ONCE
    poll: float = 0.001


FOR_EVER = {"stream_gone": GONE, "polls": 1_000_000}
STAGES: dict[str, Stage] = {
    "streaming": Stage({}, Plan([Fault.stall(after_event=MID)]), 0, MID),
    "backing off": Stage(
        {}, Plan([cut(MID)]), 0, during=False, policy=Policy(backoff=Backoff(1e6, 1e6, 1e6), longest_wait=1e6)
    ),
    "reconnecting": Stage({}, Plan([cut(MID), Fault.hang()]), 1),
    "in a resumed stream": Stage(
        {}, Plan([cut(MID), Fault.stall(after_event=2)]), 1, 2, partial="The answer was told once, in"
    ),
    "polling": Stage(FOR_EVER, Plan([cut(MID), None, Fault.hang()]), 2),
    "between polls": Stage(FOR_EVER, Plan([cut(MID)]), 2, during=False, poll=10.0),
}
by_stage = pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)


class Stuck:
    """A provider where calls come to that stage, and how to know that one is there."""

    def __init__(self, stage: Stage, lab: Labs, patch: pytest.MonkeyPatch) -> None:
        patch.setattr("sidestream.recovery.flow._FIRST_POLL", stage.poll)
        patch.setattr(Exchange, "feed", lambda exchange, chunk: self._feed(exchange, chunk))
        self.stage = stage
        self.job = Background(ANSWER, **stage.job)
        self.lab = lab(self.job, plan=stage.plan)
        self.options: dict[str, Any] = {"policy": stage.policy, "timeout": 5e6}
        self._read = threading.Event()
        self._recovers = threading.Event()

    def notify(self, _notice: Recovering) -> None:
        self._recovers.set()

    def _feed(self, exchange: Exchange, chunk: bytes) -> Any:
        events = FEED(exchange, chunk)
        if exchange.assembler.reply("dropped").text == self.stage.partial:
            self._read.set()
        return events

    def wait(self) -> float:
        """Until a call is stuck there, with all that was sent to it; when that was."""
        stage = self.stage
        if not stage.request and not stage.during:
            assert self._recovers.wait(PATIENCE)
        elif stage.during:
            self.lab.wait_request(stage.request)
        else:
            self.lab.wait_ended(stage.request)
        assert self._read.wait(PATIENCE)
        return time.monotonic()

    def check(self, begun: float, ended: float, late: float = 0.0) -> None:
        """The call ended at once, its socket closed just as fast, and the provider was told, once."""
        assert ended - begun <= STOP + SCHEDULING + late
        assert self.job.cancelled == (JOB,)
        told = [r for r in self.lab.requests if r.path.endswith("/cancel")]
        assert [(r.method, r.path) for r in told] == [("POST", f"/v1/responses/{JOB}/cancel")]
        if self.stage.during:
            closed = self.lab.wait_closed(self.stage.request).closed_at
            assert closed is not None
            assert closed - begun <= STOP + SCHEDULING + late
        assert posts(self.lab) == 1


@pytest.fixture
def stuck(stage: Stage, lab: Labs, monkeypatch: pytest.MonkeyPatch) -> Stuck:
    return Stuck(stage, lab, monkeypatch)


@by_stage
@by_way
@pytest.mark.parametrize("kind", ["cancel", "interrupt"])
def test_a_stop_cancels_the_job_in_every_phase(stuck: Stuck, way: str, kind: str) -> None:
    """From another thread: `Cancelled` with the partial, the socket closed at once, the provider told."""
    token = Cancel()
    asked = ASK | {"cancel": token, "notify": stuck.notify}
    call = in_thread(way, stuck.lab, asked, **stuck.options)
    begun = stuck.wait()
    token.cancel() if kind == "cancel" else token.interrupt()
    error = call.result(PATIENCE).error
    stuck.check(begun, time.monotonic())
    assert isinstance(error, Cancelled)
    assert error.kind == kind
    assert error.reply is not None
    assert (error.reply.id, error.reply.text) == (JOB, stuck.stage.partial)
    assert error.reply.status == "dropped"


@by_stage
def test_cancelling_the_task_cancels_the_job(stuck: Stuck) -> None:
    """`task.cancel()` is asyncio's own stop: CancelledError passes through once the provider was told."""

    async def main() -> tuple[float, float]:
        client = AsyncClient(routes=[route_to(stuck.lab)], **stuck.options)
        task = asyncio.create_task(client.complete(**ASK, notify=stuck.notify))
        begun = await asyncio.to_thread(stuck.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return begun, time.monotonic()

    stuck.check(*asyncio.run(main()))


@by_stage
def test_a_cancelled_scope_cancels_the_job(stuck: Stuck) -> None:
    """A scope of anyio cancels every further wait of its task, too: the provider is told all the same."""

    async def main() -> tuple[float, float]:
        client = AsyncClient(routes=[route_to(stuck.lab)], **stuck.options)
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: client.complete(**ASK, notify=stuck.notify))
            begun = await asyncio.to_thread(stuck.wait)
            told = len(stuck.lab.requests)
            group.cancel_scope.cancel()
        await asyncio.to_thread(stuck.lab.wait_ended, told)
        return begun, time.monotonic()

    stuck.check(*asyncio.run(main()))


@by_stage
@by_loop
def test_cancelling_the_stream_cancels_the_job(stuck: Stuck, loop: str) -> None:
    """`stream.cancel()`, from another thread, while the reader waits."""
    made: Future[Any] = Future()

    def read(client: Client) -> None:
        with client.stream(**ASK, notify=stuck.notify) as stream:
            made.set_result(stream)
            for _ in stream:
                pass

    async def aread() -> None:
        client = AsyncClient(routes=[route_to(stuck.lab)], **stuck.options)
        async with client.stream(**ASK, notify=stuck.notify) as stream:
            made.set_result(stream)
            async for _ in stream:
                pass

    def canceller() -> float:
        begun = stuck.wait()
        made.result(PATIENCE).cancel()
        return begun

    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        stopping = threads.submit(canceller)
        with pytest.raises(Cancelled), Client(routes=[route_to(stuck.lab)], **stuck.options) as client:
            read(client) if loop == "sync" else asyncio.run(aread())
        stuck.check(stopping.result(), time.monotonic())


@pytest.mark.parametrize("stage", [STAGES[n] for n in ("streaming", "polling", "between polls")])
def test_ctrl_c_cancels_the_job(stuck: Stuck) -> None:
    """A KeyboardInterrupt in a blocked call passes through once the provider was told."""

    def interrupt() -> float:
        begun = stuck.wait()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return begun

    with (
        concurrent.futures.ThreadPoolExecutor(1) as threads,
        Client(routes=[route_to(stuck.lab)], **stuck.options) as client,
    ):
        stopping = threads.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.complete(**ASK)
        stuck.check(
            stopping.result(), time.monotonic(), LOOK
        )  # the moment before a read is a signal's blind spot


def leave(loop: str, route: Route, at: Callable[[Any], bool], **more: Any) -> None:
    """Read a stream up to an event, and leave it there."""
    options: dict[str, Any] = {"routes": [route], "policy": AT_ONCE} | more

    def read() -> None:
        with Client(**options) as client, client.stream(**ASK) as stream:
            next(event for event in stream if at(event))

    async def aread() -> None:
        async with AsyncClient(**options).stream(**ASK) as stream:
            async for event in stream:
                if at(event):
                    break

    read() if loop == "sync" else asyncio.run(aread())


def is_told_text(event: Any) -> bool:
    return isinstance(event, TextDelta) and event.delta == " told"


@by_loop
@pytest.mark.parametrize(
    "at", [is_told_text, lambda event: isinstance(event, Recovering)], ids=["text", "notice"]
)
def test_leaving_a_stream_cancels_the_job(loop: str, at: Callable[[Any], bool], lab: Labs) -> None:
    """Leaving `with` early, over a piece of text or the notice of a recovery, is a stop like any other."""
    job = Background(ANSWER)
    running = lab(job, plan=Plan([cut(MID)]))
    leave(loop, route_to(running), at)
    assert job.cancelled == (JOB,)
    assert posts(running) == 1


@by_loop
def test_a_reader_who_was_slow_still_cancels_the_job(
    loop: str, lab: Labs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The time that telling may take begins with the telling, however long the reader had the stream."""
    monkeypatch.setattr("sidestream.drivers._DISMISS_SECONDS", 0.3)
    job = Background(Script(ANSWER.events, pace=0.03))
    running = lab(job, tls=True)
    (tmp_path / "ca.pem").write_bytes(running.ca_pem)

    def at(event: Any) -> bool:
        if isinstance(event, TextDelta):
            running.wait_sent(0, EVENTS)  # the rest of it takes longer than that
            return True
        return False

    leave(loop, route_to(running), at, cafile=str(tmp_path / "ca.pem"))
    assert job.cancelled == (JOB,)


@by_way
def test_before_the_id_is_known_there_is_nothing_to_cancel(way: str, lab: Labs) -> None:
    """A call that is stopped before the provider has named the job ends at once and tells nobody."""
    running, token = lab(Background(ANSWER), plan=Plan.always(Fault.hang())), Cancel()
    call = in_thread(way, running, ASK | {"cancel": token})
    running.wait_request(0)
    begun = time.monotonic()
    token.cancel()
    assert isinstance(call.result(PATIENCE).error, Cancelled)
    assert time.monotonic() - begun <= STOP + SCHEDULING
    assert len(running.requests) == 1


@by_way
def test_an_atomic_call_hears_no_interrupt(way: str, lab: Labs) -> None:
    """The job of an atomic call is cancelled by a cancel alone."""
    job, token = Background(ANSWER), Cancel()
    running = lab(job, plan=Plan([Fault.stall(after_event=MID, seconds=0.2)]))
    call = in_thread(way, running, ASK | {"cancel": token, "atomic": True})
    running.wait_sent(0, MID)
    token.interrupt()
    whole(call.result(PATIENCE))
    assert job.cancelled == ()


@by_way
def test_a_finished_response_is_not_cancelled(way: str, lab: Labs) -> None:
    """A stop after the end was read changes nothing at the provider."""
    job, token = Background(ANSWER), Cancel()
    running = lab(job)
    with calling(way, running) as call:
        whole(call(ASK | {"cancel": token}))
        token.cancel()
    assert job.cancelled == ()
    assert len(running.requests) == 1


@by_way
def test_the_job_is_cancelled_where_it_runs(way: str, lab: Labs) -> None:
    """Stopped on another route, a call cancels the job at the first one, and asks the second nothing."""
    job, token = Background(ANSWER), Cancel()
    first = lab(job, plan=Plan([cut(MID)], rest=(Fault.close(),)))
    second = lab(Background(TEXT), plan=Plan.always(Fault.hang()))
    call = in_thread(way, first, ASK | {"cancel": token}, routes=[route_to(first), route_to(second)])
    second.wait_request(0)
    token.cancel()
    error = call.result(PATIENCE).error
    assert isinstance(error, Cancelled)
    assert error.reply is not None
    assert error.reply.text == "The answer was told"
    assert job.cancelled == (JOB,)
    assert [r.method for r in second.requests] == ["POST"]


@by_way
def test_a_job_that_was_given_up_is_cancelled_with_the_call(way: str, lab: Labs) -> None:
    """A response that was not waited for any more may still be at work: a stop ends it, too."""
    job, token = Background(ANSWER), Cancel()

    def answer(request: Request) -> Script:
        return script.problem(405, "not here") if request.method == "GET" else job(request)

    running = lab(answer, plan=Plan([cut(MID), None, None, Fault.stall(after_event=MID)]))
    call = in_thread(way, running, ASK | {"cancel": token})
    running.wait_sent(3, MID)
    token.cancel()
    assert isinstance(call.result(PATIENCE).error, Cancelled)
    assert JOB in job.cancelled


# A provider that does not answer the cancel.


@contextlib.contextmanager
def deaf(trickle: bytes = b"") -> Iterator[tuple[str, threading.Event]]:
    """A provider that streams the opening of a job, and then answers no request any more, or only drips.

    The event is set when its socket was closed by the client.
    """
    over, closed = threading.Event(), threading.Event()
    opening = b"".join(ANSWER.events[:MID])
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError), server.accept()[0] as stream:
            stream.recv(65536)
            stream.sendall(head + opening)
            while stream.recv(65536):
                pass
            closed.set()
            with server.accept()[0] as cancel:
                cancel.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: " if trickle else b"")
                while not over.wait(0.02):
                    cancel.sendall(trickle)

    with listening(16) as server:
        server.settimeout(PATIENCE)
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/v1", closed
        finally:
            over.set()
            thread.join()


def test_telling_the_provider_takes_two_seconds_at_most() -> None:
    """That is the limit; the tests below make it shorter."""
    assert _DISMISS_SECONDS == 2.0


@pytest.mark.parametrize("trickle", [b"", b"H"], ids=["silent", "dripping"])
@by_way
def test_a_provider_that_hangs_does_not_hold_the_caller(
    way: str, trickle: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upstream socket is closed at once all the same, and the call ends within the limit."""
    monkeypatch.setattr("sidestream.drivers._DISMISS_SECONDS", 0.3)
    token = Cancel()
    with deaf(trickle) as (url, closed):
        future: Future[Outcome] = Future()
        read = threading.Event()

        def feed(exchange: Exchange, chunk: bytes) -> Any:
            read.set()
            return FEED(exchange, chunk)

        monkeypatch.setattr(Exchange, "feed", feed)
        client = functools.partial(asked_at, way, url, ASK | {"cancel": token})
        threading.Thread(target=lambda: future.set_result(client())).start()
        assert read.wait(PATIENCE)
        begun = time.monotonic()
        token.cancel()
        assert closed.wait(STOP + SCHEDULING)
        assert isinstance(future.result(PATIENCE).error, Cancelled)
        assert 0.3 <= time.monotonic() - begun <= 0.3 + STOP + SCHEDULING


def asked_at(way: str, url: str, asked: dict[str, Any]) -> Outcome:
    options: dict[str, Any] = {"routes": [Route(url, "model-1", continuation="none")], "policy": AT_ONCE}
    with contextlib.closing(asyncio.new_event_loop()) as loop, Client(**options) as client:
        return caller(way, lambda: client, lambda: AsyncClient(**options), loop)(asked)


@pytest.mark.parametrize("trickle", [b"", b"H"], ids=["silent", "dripping"])
@by_loop
def test_leaving_a_provider_that_hangs_takes_no_longer(
    loop: str, trickle: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same limit where the reader leaves, and the call's own clock stands still."""
    monkeypatch.setattr("sidestream.drivers._DISMISS_SECONDS", 0.3)
    with deaf(trickle) as (url, closed):
        begun: list[float] = []

        def at(event: Any) -> bool:
            begun.append(time.monotonic())
            return isinstance(event, TextDelta)

        leave(loop, Route(url, "model-1", continuation="none"), at)
        assert 0.3 <= time.monotonic() - begun[-1] <= 0.3 + STOP + SCHEDULING
        assert closed.is_set()


@by_way
def test_a_provider_that_is_gone_does_not_hold_the_caller(way: str, lab: Labs) -> None:
    """If the cancel cannot be delivered, the call ends as it would have."""
    running, token = lab(Background(ANSWER), plan=Plan([Fault.stall(after_event=MID)])), Cancel()
    call = in_thread(way, running, ASK | {"cancel": token})
    running.wait_sent(0, MID)
    running.refuse()
    token.cancel()
    assert isinstance(call.result(PATIENCE).error, Cancelled)
