"""One real call to every route: over the lab's sockets, sync and async."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from sidestream import AsyncClient, Backoff, Client, Policy, Route, Secret, UsageError
from sidestream.doctor import Report, acheck, check
from sidestream.lab import Fault, Lab, Plan, Request, Script, script

CANARY = "sk-Canary0d41d8cd98f00b204"
QUICK = Policy(backoff=Backoff(base=0, throttled_base=0))
both = pytest.mark.parametrize("way", ["sync", "async"])


def checked(way: str, routes: list[Route], **options: Any) -> Report:
    if way == "sync":
        with Client(routes=routes, policy=QUICK) as client:
            return check(client, **options)

    async def call() -> Report:
        async with AsyncClient(routes=routes, policy=QUICK) as client:
            return await acheck(client, **options)

    return asyncio.run(call())


@both
def test_every_route_is_called_once(way: str) -> None:
    """A route that answers shows time, model and tokens; the call asks for next to nothing."""
    with Lab(script.say("Hello.")) as one, Lab(script.say("Hello.", model="other")) as two:
        report = checked(way, [Route(one.url, "m", "chat", Secret(CANARY)), Route(two.url, "m", "responses")])
        assert len(one.requests) == len(two.requests) == 1
        assert one.requests[0].json()["max_tokens"] == 16
    assert report.healthy
    lives = [route.live for route in report.routes]
    assert all(live and live.ok and live.attempts == 1 and live.status == "complete" for live in lives)
    assert [live and live.model for live in lives] == ["lab-1", "other"]
    assert all(live and live.first is not None and 0 <= live.first <= live.seconds for live in lives)
    assert all(live and live.input_tokens == 10 for live in lives)


@both
def test_what_fails_is_a_typed_error_in_the_report(way: str) -> None:
    """A refused key, a dead endpoint and a stream that only breaks: each with the error a call gets."""
    refused = script.error(401, {"error": {"code": "invalid_api_key", "message": f"bad key {CANARY}"}})
    with Lab(refused) as locked, Lab(plan=Plan.always(Fault.cut(after_event=1))) as torn, Lab() as well:
        gone = Lab().start()
        gone.stop()
        routes = [Route(lab.url, "m", "chat", Secret(CANARY)) for lab in (locked, torn, gone, well)]
        report = checked(way, routes)
    errors = [route.live and route.live.error for route in report.routes]
    assert errors == ["AuthFailed", "StreamDropped", "StreamDropped", ""]
    assert [route.usable for route in report.routes] == [False, False, False, True]
    assert not report.healthy
    assert report.routes[0].live is not None
    assert "API key" in report.routes[0].live.hint
    assert CANARY not in msgspec.json.encode(report).decode()
    assert CANARY not in repr(report)


@both
def test_a_call_that_comes_back_is_well(way: str) -> None:
    """It is a call like any other: one that breaks and recovers is answered, and says how often it asked."""
    with Lab(plan=Plan([Fault.cut(after_event=2)])) as lab:
        report = checked(way, [Route(lab.url, "m", "chat")])
    live = report.routes[0].live
    assert live is not None
    assert (live.ok, live.attempts) == (True, 2)


@both
def test_a_guessed_wire_is_asked_for(way: str) -> None:
    """An endpoint of which nobody knows the wire is asked, and the answer stands in the report."""

    def only_messages(request: Request) -> Script:
        if request.wire != "messages":
            return script.problem(404, "Not Found")
        if "messages" not in request.fields():
            return script.messages_problem(400, "messages: Field required")
        return script.say("Hello.")(request)

    with Lab(only_messages) as lab:
        report = checked(way, [Route(lab.url, "m", "chat", guessed=True)])
    (route,) = report.routes
    assert route.live is not None
    assert route.live.ok, route.live.message
    assert route.live.found.startswith("asked: GET /models")
    assert (route.wire, route.guessed, route.wire_source) == ("messages", False, "found out earlier")


@both
def test_what_a_call_finds_out_is_in_the_report(way: str) -> None:
    """A field that the endpoint rejects is left out, and the route's health says so."""

    def picky(request: Request) -> Script:
        if "max_tokens" in request.fields():
            return script.problem(400, "Unsupported parameter: 'max_tokens'", code="unsupported_parameter")
        return script.say("Hello.")(request)

    with Lab(picky) as lab:
        (route,) = checked(way, [Route(lab.url, "m", "chat")]).routes
    assert route.usable
    assert [fact.what for fact in route.health.learned] == ["no max_output_tokens"]


@both
def test_only_so_many_calls_are_made_at_once(way: str) -> None:
    """The calls of a check are bounded; nonsense is refused."""
    slow = script.chat_text("One two three.", pace=0.005)
    with Lab(slow) as lab:
        routes = [Route(lab.url, f"m{number}", "chat") for number in range(6)]
        assert checked(way, routes, at_once=1).healthy
        requests = sorted(lab.requests, key=lambda request: request.received_at)
    assert len(requests) == 6
    for before, after in pairwise(requests):
        assert (before.ended_at or 0.0) <= after.received_at
    with pytest.raises(UsageError, match="at_once"):
        checked(way, routes, at_once=0)


@both
def test_a_silent_route_takes_no_longer_than_allowed(way: str) -> None:
    """The time of a call is bounded by `seconds`, and the error names the clock."""
    with Lab(plan=Plan.always(Fault.hang())) as lab:
        (route,) = checked(way, [Route(lab.url, "m", "chat")], seconds=0.1).routes
    assert route.live is not None
    assert (route.live.ok, route.live.error) == (False, "DeadlineExceeded")


@both
def test_the_question_for_the_wire_is_within_the_time_allowed(way: str) -> None:
    """What the probe of a silent endpoint takes is no longer there for its call."""
    with Lab(plan=Plan.always(Fault.hang())) as lab:
        (route,) = checked(way, [Route(lab.url, "m", "chat", guessed=True)], seconds=0.4).routes
    assert route.live is not None
    assert route.live.error == "DeadlineExceeded"
    allowed = re.search(r"timeout\.total = ([\d.]+) s", route.live.message)
    assert allowed is not None
    assert float(allowed[1]) <= 0.2


@both
def test_a_route_without_its_key_is_not_called(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be used anyway is not asked."""
    from sidestream.routes.secrets import EnvKey

    monkeypatch.delenv("NOBODY_SETS_THIS", raising=False)
    with Lab() as lab, Lab() as other:
        locked = Route(lab.url, "m", "chat", credential=EnvKey("NOBODY_SETS_THIS"))
        report = checked(way, [locked, Route(other.url, "m", "chat")])
        assert (len(lab.requests), len(other.requests)) == (0, 1)
    assert report.routes[0].live is None
    assert not report.routes[0].usable
