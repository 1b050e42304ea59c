"""Calls over several routes: keys, models, endpoints, what is remembered; the same in all four ways."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from callers import WAYS
from roads import AT_ONCE, TEXT, Labs, asked, bearer, by_key, keys_at, once, pool, refusal, to

from sidestream import (
    AuthFailed,
    BadRequest,
    BudgetExhausted,
    Policy,
    QuotaExceeded,
    RateLimited,
    Route,
    ServerError,
    StreamDropped,
)
from sidestream.drivers import System
from sidestream.lab import Fault, Plan, script
from sidestream.recovery.origins import Origins
from sidestream.recovery.policy import Backoff

by_way = pytest.mark.parametrize("way", WAYS)


def system() -> dict[str, Any]:
    """A process of its own, with the usual rules."""
    return {"system": System(origins=Origins(time.monotonic, lock=threading.RLock()), random=lambda: 0.0)}


def no_money(status: int = 402) -> script.Script:
    return script.error(status, {"error": {"code": "insufficient_quota", "message": "no money"}})


# Keys of one endpoint.


@by_way
@pytest.mark.parametrize("status", [401, 402, 403])
def test_the_next_key_is_asked_and_the_dead_one_is_booked(lab: Labs, way: str, status: int) -> None:
    """Whose key was dead is known: the second call begins with the one that works."""
    here = lab(by_key(key_one=script.problem(status, "no")))
    first, second = asked(way, pool(here, "key-one", "key-two"), calls=2, client=system())
    assert first.reply is not None
    assert second.reply is not None
    assert first.reply.text == second.reply.text == TEXT
    assert keys_at(here) == bearer("key-one", "key-two", "key-two")
    assert [attempt.route for attempt in first.reply.attempts] == ["key-one", "key-two"]
    assert "key-one is parked" in second.reply.attempts[0].why[0]


@by_way
def test_a_quota_in_a_429_is_the_keys(lab: Labs, way: str) -> None:
    """The body beats the status: no wait, the next key at once."""
    here = lab(by_key(key_one=no_money(429)))
    outcome = once(way, pool(here, "key-one", "key-two"))
    assert outcome.error is None
    assert keys_at(here) == bearer("key-one", "key-two")


@by_way
def test_a_rate_limit_is_tried_once_more_and_then_leads_to_the_next_key(lab: Labs, way: str) -> None:
    """As long as nobody says how long it lasts."""
    here = lab(by_key(key_one=script.problem(429, "slow down")))
    outcome = once(way, pool(here, "key-one", "key-two"))
    assert outcome.error is None
    assert keys_at(here) == bearer("key-one", "key-one", "key-two")


@by_way
def test_a_long_wait_leads_to_the_next_key_at_once(lab: Labs, way: str) -> None:
    """Retry-After says 60 s, another key is nearer."""
    slow = script.error(429, {"error": {"message": "slow down"}}, headers={"Retry-After": "60"})
    here = lab(by_key(key_one=slow))
    outcome = once(way, pool(here, "key-one", "key-two"))
    assert outcome.error is None
    assert keys_at(here) == bearer("key-one", "key-two")


@by_way
def test_a_long_wait_without_another_key_is_an_error_that_says_when(lab: Labs, way: str) -> None:
    """Both keys are throttled for longer than anybody waits."""
    slow = script.error(429, {"error": {"message": "slow down"}}, headers={"Retry-After": "600"})
    here = lab(by_key(key_one=slow, key_two=slow))
    outcome = once(way, pool(here, "key-one", "key-two"))
    assert isinstance(outcome.error, RateLimited)
    assert outcome.error.retry_at is not None
    assert keys_at(here) == bearer("key-one", "key-two")


@by_way
def test_when_every_key_is_dead_the_error_is_the_last_ones(lab: Labs, way: str) -> None:
    """And the ledger has all of them; alone in the world, they are asked again by the next call."""
    here = lab(by_key(key_one=script.problem(401, "no"), key_two=no_money()))
    first, second = asked(way, pool(here, "key-one", "key-two"), calls=2, client=system())
    assert isinstance(first.error, QuotaExceeded)
    assert [attempt.ended for attempt in first.error.attempts] == ["auth", "quota"]
    assert isinstance(second.error, (QuotaExceeded, AuthFailed))
    assert keys_at(here)[2:] == bearer("key-one", "key-two")


@by_way
def test_a_server_error_is_not_asked_of_every_key(lab: Labs, way: str) -> None:
    """It is the model's: both tries with one key, then another endpoint."""
    here, other = lab(script.problem(500, "oh no")), lab(script.say(TEXT))
    outcome = once(way, [*pool(here, "key-one", "key-two"), to(other, "key-other")])
    assert outcome.error is None
    assert keys_at(here) == bearer("key-one", "key-one")
    assert keys_at(other) == bearer("key-other")


@by_way
def test_a_dead_endpoint_is_left_with_all_its_keys_and_models(lab: Labs, way: str) -> None:
    """A refused connection says it all."""
    gone, other = lab(script.say(TEXT)), lab(script.say(TEXT))
    routes = [*pool(gone, "key-one", "key-two"), to(gone, "key-one", "sibling", model="lab-2")]
    gone.stop()
    outcome = once(way, [*routes, to(other, "key-other")])
    assert outcome.reply is not None
    assert [attempt.route for attempt in outcome.reply.attempts] == ["key-one", "key-one", "key-other"]


@by_way
def test_a_sibling_model_on_the_same_key_is_asked(lab: Labs, way: str) -> None:
    """One model is overloaded, its neighbour is not."""

    def answer(request: Any) -> script.Script:
        busy = request.fields()["model"] == "lab-1"
        return script.problem(503, "overloaded") if busy else script.say(TEXT)(request)

    here = lab(answer)
    outcome = once(way, [to(here, "key-one"), to(here, "key-two"), to(here, "key-one", "n", model="lab-2")])
    assert outcome.error is None
    assert [request.fields()["model"] for request in here.requests] == ["lab-1", "lab-1", "lab-2"]
    assert keys_at(here) == bearer("key-one", "key-one", "key-one")


# What reaches the fallbacks.

REACHING: dict[str, tuple[script.Script | None, Plan | None, str]] = {
    "500": (script.problem(500, "oh no"), None, "server"),
    "503": (script.problem(503, "busy"), None, "overloaded"),
    "529": (script.problem(529, "busy"), None, "overloaded"),
    "408": (script.problem(408, "late"), None, "server"),
    "html": (script.error(502, "<html><title>Bad gateway</title></html>"), None, "server"),
    "empty": (script.chat_text(""), None, "empty"),
    "error event": (None, Plan.always(Fault.error_event(after_event=2)), "server"),
    "close": (None, Plan.always(Fault.close()), "dropped"),
    "headers only": (None, Plan.always(Fault.headers_only()), "dropped"),
    "no such model": (script.problem(404, "gone", code="model_not_found"), None, "not_found"),
    "too long": (script.problem(413, "too long"), None, "context_length"),
}  # fmt: skip


@by_way
@pytest.mark.parametrize("how", REACHING)
def test_every_failure_reaches_the_fallback(lab: Labs, way: str, how: str) -> None:
    """5xx, empty answers, errors in the stream: nothing is unclassified."""
    answer, plan, word = REACHING[how]
    here, other = lab(answer or script.say(TEXT), plan=plan), lab(script.say(TEXT))
    outcome = once(way, [to(here, "key-one"), to(other, "key-two")], empty_is_failure=True)
    assert outcome.reply is not None, outcome.error
    assert outcome.reply.text == TEXT
    assert outcome.reply.attempts[0].ended == word
    assert outcome.reply.attempts[-1].route == "key-two"
    assert len(here.requests) <= 2
    assert len(other.requests) == 1


@by_way
@pytest.mark.parametrize("status", [400, 422, 302, 307, 308])
def test_what_is_wrong_with_the_request_reaches_nobody_else(lab: Labs, way: str, status: int) -> None:
    """Another route would say the same; a redirect is not followed."""
    other = lab(script.say(TEXT))
    here = lab(script.error(status, "no", headers={"Location": f"{other.url}/chat/completions"}))
    outcome = once(way, [to(here, "key-one"), to(other, "key-two")])
    assert isinstance(outcome.error, BadRequest)
    assert (len(here.requests), len(other.requests)) == (1, 0)


# A route's own words.


@by_way
def test_rejected_fields_are_remembered(lab: Labs, way: str) -> None:
    """Three fields in the server's order: four requests for the first call, one for the second."""

    def answer(request: Any) -> script.Script:
        for name in ("top_p", "temperature", "response_format"):
            if name in request.fields():
                return refusal(name)
        return script.say(TEXT)(request)

    here = lab(answer)
    params = {"temperature": 0, "top_p": 1, "response_format": {"type": "json_object"}, "seed": 1}
    first, second = asked(way, [to(here, continuation="none")], calls=2, client=system(), **params)
    assert first.reply is not None
    assert second.reply is not None
    assert (len(first.reply.attempts), len(second.reply.attempts)) == (4, 1)
    assert here.requests[-1].fields().keys() & params.keys() == {"seed"}


@by_way
def test_what_one_model_rejects_another_is_told(lab: Labs, way: str) -> None:
    """Remembered for the model that said it."""

    def answer(request: Any) -> script.Script:
        fields = request.fields()
        picky = fields["model"] == "lab-1" and "temperature" in fields
        return refusal("temperature") if picky else script.say(TEXT)(request)

    here, process = lab(answer), system()
    for model, attempts in (("lab-1", 2), ("lab-2", 1), ("lab-1", 1)):
        (outcome,) = asked(way, [to(here, model=model)], client=process, temperature=1)
        assert outcome.reply is not None
        assert len(outcome.reply.attempts) == attempts
    assert "temperature" in here.requests[2].fields()


@by_way
def test_a_rejection_that_goes_on_is_an_error(lab: Labs, way: str) -> None:
    """The server complains about a field that is not there: no loop."""
    here = lab(refusal("temperature"))
    outcome = once(way, [to(here)], temperature=1)
    assert isinstance(outcome.error, BadRequest)
    assert len(here.requests) == 2


@by_way
def test_a_guessed_wire_is_found_and_remembered(lab: Labs, way: str) -> None:
    """Nothing at the first two paths: the third answers, and the next call goes there."""

    def answer(request: Any) -> script.Script:
        there = request.wire == "responses"
        return script.say(TEXT)(request) if there else script.error(404, "404 page not found")

    here = lab(answer)
    first, second = asked(way, [to(here, guessed=True)], calls=2, client=system())
    assert first.error is second.error is None
    assert [request.wire for request in here.requests] == ["chat", "messages", "responses", "responses"]


@by_way
def test_what_can_be_afforded_is_asked(lab: Labs, way: str) -> None:
    """402 with a number: once more, a little below it."""

    def answer(request: Any) -> script.Script:
        if request.fields().get("max_tokens", 9000) > 2000:
            return script.error(402, {"error": {"message": "You can only afford 2000 tokens", "code": 402}})
        return script.say(TEXT)(request)

    here = lab(answer)
    outcome = once(way, [to(here)], max_tokens=9000)
    assert outcome.error is None
    assert [request.fields()["max_tokens"] for request in here.requests] == [9000, 1936]


# Breakers.


@by_way
def test_a_route_whose_breaker_is_open_is_skipped_visibly(lab: Labs, way: str) -> None:
    """It is not asked, the next one is, and the ledger and the notice say why."""
    here, other = lab(script.say(TEXT), plan=Plan.always(Fault.close())), lab(script.say(TEXT))
    process = system()
    for _ in range(5):
        (outcome,) = asked(way, [to(here)], client=process | {"policy": Policy(recoveries=0)})
        assert isinstance(outcome.error, StreamDropped)
    notices: list[Any] = []
    (outcome,) = asked(
        way, [to(here, name="broken"), to(other, "key-two")], client=process, notify=notices.append
    )
    assert outcome.reply is not None
    assert (len(here.requests), len(other.requests)) == (5, 1)
    (attempt,) = outcome.reply.attempts
    assert attempt.route == "key-two"
    assert "the breaker of lab-1 at" in attempt.why[0]
    assert "5 attempts in a row brought nothing" in notices[0].detail
    (alone,) = asked(way, [to(here)], client=process)
    assert isinstance(alone.error, BudgetExhausted)
    assert "5 attempts in a row brought nothing" in str(alone.error)
    assert len(here.requests) == 5


# Both loops are one.

SCENES: dict[str, list[script.Script]] = {
    "keys": [script.problem(401, "no"), no_money(), script.problem(429, "slow"), script.problem(429, "slow")],
    "fields": [
        refusal("temperature"),
        script.problem(500, "oh no"),
        refusal("top_p"),
        script.problem(401, "no"),
    ],
    "servers": [script.problem(500, "oh no")] * 4,
    "all of it": [script.problem(429, "slow"), refusal("top_p"), script.problem(401, "no"), no_money()],
}


@pytest.mark.parametrize("scene", SCENES)
def test_all_four_ways_tell_the_same_story(lab: Labs, scene: str) -> None:
    """The same requests with the same keys and fields, the same ledger, whoever drives."""
    stories = []
    for way in WAYS:
        answers = iter(SCENES[scene])
        here = lab(lambda request, answers=answers: next(answers, None) or script.say(TEXT)(request))
        routes = pool(here, "key-one", "key-two", "key-three")
        (outcome,) = asked(way, routes, client=system(), temperature=1, top_p=1)
        ended = outcome.reply if outcome.error is None else outcome.error
        assert isinstance(ended.attempts, tuple)
        ledger = [(a.route, a.rung, a.ended, a.status, a.detail, a.why) for a in ended.attempts]
        asked_for = [(key, sorted(r.fields())) for key, r in zip(keys_at(here), here.requests, strict=True)]
        stories.append((type(outcome.error).__name__, ledger, asked_for))
    assert all(story == stories[0] for story in stories), stories


def test_no_policy_waits_between_routes() -> None:
    """The tests here never wait: a policy without backoff."""
    assert AT_ONCE.backoff == Backoff(0, 0, 0)


@by_way
def test_a_server_error_everywhere_is_the_last_routes(lab: Labs, way: str) -> None:
    """All routes fail: the error names the last one, the ledger all of them."""
    first, second = (lab(script.problem(500, "oh no")) for _ in range(2))
    routes: list[Route] = [to(first, "key-one"), replace(to(second, "key-two"), wire="responses")]
    outcome = once(way, routes)
    assert isinstance(outcome.error, ServerError)
    assert [attempt.route for attempt in outcome.error.attempts] == ["key-one"] * 2 + ["key-two"] * 2
