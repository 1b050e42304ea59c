"""The rules of a client that retries without doing harm, one test each, in the order of docs/recovery.md.

A rule that has a whole file to itself is named in `ELSEWHERE`, and the file has to exist.
"""

import inspect
import random
from dataclasses import fields
from pathlib import Path

import pytest
from hands import broke, cut, drive, reject, stopped, whole

from sidestream import Client, errors
from sidestream.lab import script
from sidestream.recovery.clocks import Meter, Timeouts
from sidestream.recovery.faults import STATUSES, FaultKind
from sidestream.recovery.flow import Call
from sidestream.recovery.policy import Backoff, Policy
from sidestream.route import Prices, Route
from sidestream.wire.prompt import Request
from streams import Stream, named, route

K = FaultKind
CHAT = named("chat/plain-text")
TEXT = CHAT.expect["text"]
HALF = CHAT.data.index(b"[DONE]") // 2
LONG = Stream("long", script.chat_text(script.words(120)).body, {"wire": "chat", "expect": {}})
TESTS = Path(__file__).parents[1]

ELSEWHERE = {
    "recoveries of a process": "recovery/test_storm.py",
    "cancelling closes the connection": "drivers/test_cancel.py",
    "what was learned of an endpoint, and its breaker": "recovery/test_origins.py",
    "what the ledger's figures come to as metrics": "telemetry/test_otel.py",
}


def call(*routes: Route, limit: int = 0, **settings: object) -> Call:
    params = {"max_tokens": limit} if limit else {}
    asked = Request(({"role": "user", "content": "hi"},), params=params)
    return Call(asked, routes or (route("chat"),), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ELSEWHERE)
def test_a_rule_that_is_tested_elsewhere_is(rule: str) -> None:
    """Rules with a file of their own have that file."""
    assert (TESTS / ELSEWHERE[rule]).is_file()


@pytest.mark.parametrize("total", [0.5, 2.0, 3.5, 10.0])
def test_one_deadline_covers_every_attempt_and_wait(total: float) -> None:
    """No attempt starts after the deadline, and no wait leads past it."""
    story = drive(call(timeouts=Timeouts(total=total)), [broke(K.CONNECT)], seconds=lambda: 0.7)
    assert all(at < total for at in story.sent_at)
    assert sum(story.sleeps) <= total
    assert isinstance(story.error, errors.SidestreamError)


def test_attempts_without_progress_and_recoveries_are_two_budgets() -> None:
    """Two attempts in a row that bring nothing end a route; breaks with progress end with the recoveries."""
    assert len(drive(call(), [broke(K.CONNECT)]).sends) == 2
    growing = [cut(LONG, len(LONG.data) // 3 + 400 * number) for number in range(20)]
    assert len(drive(call(policy=Policy(recoveries=5)), growing).sends) == 6


def test_wasted_output_has_a_cap() -> None:
    """Restarts stop when they have thrown away as much as the call's output limit allows."""
    cuts = [cut(LONG, len(LONG.data) // 3 + 400 * number) for number in range(20)]
    story = drive(call(limit=60, policy=Policy(extra_output=1.0)), cuts)
    assert isinstance(story.error, errors.BudgetExhausted)
    assert story.error.budget == "cost"
    wasted = [attempt.wasted or 0 for attempt in story.error.attempts]
    assert 60 < sum(wasted) <= 60 + max(wasted)
    assert len(story.sends) < 9


def test_money_has_a_cap() -> None:
    """With prices, no further attempt is made once the call has cost what it may; the partial comes along."""
    priced = Route("http://127.0.0.1:1/main", "m", "chat", prices=Prices(input=1e6, output=1e6))
    story = drive(call(priced, policy=Policy(max_cost=1.0)), [cut(CHAT, HALF), whole(CHAT)])
    assert isinstance(story.error, errors.BudgetExhausted)
    assert len(story.sends) == 1
    assert story.error.reply is not None
    assert story.error.reply.text
    assert story.error.attempts[0].cost
    assert story.error.attempts[0].cost > 1.0


def test_the_providers_word_on_retrying_beats_the_table() -> None:
    """`x-should-retry: false` forbids another attempt on the route, `true` allows one."""
    assert len(drive(call(), [reject(503, x_should_retry="false"), whole(CHAT)]).sends) == 1
    assert len(drive(call(), [reject(422, x_should_retry="true"), whole(CHAT)]).sends) == 2


@pytest.mark.parametrize(
    "header", ["x-litellm-attempted-retries", "x-portkey-retry-attempt-count", "x-envoy-attempt-count"]
)
def test_retries_are_not_multiplied(header: str) -> None:
    """What a gateway has retried already is not retried again; a gateway that has not, is."""
    name = header.replace("-", "_")
    assert len(drive(call(), [reject(503, **{name: "3"}), whole(CHAT)]).sends) == 1
    untried = "1" if "envoy" in header else "0"
    assert len(drive(call(), [reject(503, **{name: untried}), whole(CHAT)]).sends) == 2


@pytest.mark.parametrize("status", sorted({*STATUSES, 500, 502, 504, 520, 524, 418}))
def test_before_the_first_byte_only_passing_trouble_is_retried(status: int) -> None:
    """408, 409, 425, 429 and 5xx are asked again, every other status is final on its route."""
    asked_again = len(drive(call(), [reject(status), whole(CHAT)]).sends) == 2
    assert asked_again == (status in (408, 409, 425, 429) or status >= 500)


def test_retry_after_is_a_floor_and_has_a_ceiling() -> None:
    """A wait that was asked for is kept, with jitter on top; above 120 s the error says when, at once."""
    waited = drive(call(), [reject(429, retry_after="7"), whole(CHAT)])
    assert waited.sleeps
    assert 7 <= waited.sleeps[0] <= 8
    refused = drive(call(), [reject(429, retry_after="900"), whole(CHAT)])
    assert isinstance(refused.error, errors.RateLimited)
    assert refused.error.retry_at == pytest.approx(1000 + 1 + 900)
    assert not refused.sleeps


def test_a_retry_after_beyond_the_deadline_fails_at_once() -> None:
    """There is no waiting for what cannot be reached; `retry_at` says when it could."""
    story = drive(call(timeouts=Timeouts(total=20)), [reject(429, retry_after="60"), whole(CHAT)])
    assert isinstance(story.error, errors.RateLimited)
    assert story.error.retry_at is not None
    assert not story.sleeps


def test_a_crowd_that_was_told_the_same_comes_back_spread(rng: random.Random) -> None:
    """Of 200 clients told to wait one second, the first and the last return more than half a second apart."""
    waits = [
        drive(call(), [reject(429, retry_after="1"), whole(CHAT)], jitter=rng.random).sleeps[0]
        for _ in range(200)
    ]
    assert max(waits) - min(waits) >= 0.5


def test_backoff_is_full_jitter(rng: random.Random) -> None:
    """Waits are uniform between nothing and 0.5 s, doubling to 8 s; 1 s after a rate limit."""
    fault, throttled = (drive(call(), [p]).error for p in (broke(K.CONNECT), reject(429)))
    assert isinstance(fault, errors.CallFailed)
    assert isinstance(throttled, errors.CallFailed)
    draws = [Backoff().delay(fault.fault, 0, rng.random) for _ in range(2000)]
    assert 0.23 < sum(draws) / len(draws) < 0.27
    assert max(draws) < 0.5
    assert min(draws) < 0.01
    assert Backoff().delay(fault.fault, 9, lambda: 1.0) == 8.0
    assert Backoff().delay(throttled.fault, 0, lambda: 1.0) == 1.0


@pytest.mark.parametrize(
    "kind", [K.AUTH, K.QUOTA, K.CONTEXT_LENGTH, K.REFUSED, K.BAD_REQUEST, K.OVERSIZE, K.NOT_FOUND]
)
def test_what_is_final_is_not_repeated(kind: FaultKind) -> None:
    """Auth, quota, context length, policy, a wrong request and a flood get one attempt."""
    assert len(drive(call(), [broke(kind), whole(CHAT)]).sends) == 1


def test_the_same_break_at_the_same_place_is_no_accident() -> None:
    """A stream that always dies at the same byte is asked for twice, not eight times."""
    assert len(drive(call(), [cut(CHAT, HALF)]).sends) == 2


def test_signs_of_life_do_not_pass_for_progress() -> None:
    """Only output re-arms the clock; with nothing but keep-alives it runs out."""
    clocks = Timeouts(total=900, first=30, idle=5).clocks(0.0, 900.0, 0)
    meter = Meter(clocks, 0.0)
    meter.connected(1.0)
    meter.progress(2.0)
    assert (meter.due, meter.clock) == (7.0, "idle")


def test_unknown_is_not_nothing() -> None:
    """A request that was sent and never answered has unknown tokens, and makes the sum unknown, not 0."""
    story = drive(call(), [lambda exchange, at: ([], broke(K.DROPPED)(exchange, at)[1]), whole(CHAT)])
    assert story.reply is not None
    assert story.reply.usage is not None
    lost = story.reply.attempts[0]
    assert (lost.tokens, lost.wasted, lost.confidence) == (None, None, "unknown")
    assert story.reply.usage.confidence == "unknown"
    assert story.reply.usage.output_tokens == story.reply.attempts[1].tokens


def test_a_stop_is_followed_by_nothing() -> None:
    """After a cancel there is no further attempt, wait or notice."""
    story = drive(call(), [stopped([CHAT.data[:HALF]])])
    assert isinstance(story.error, errors.Cancelled)
    assert story.actions == ["send main"]


def test_two_requests_are_never_made_for_one() -> None:
    """There is no hedging: attempts follow one another, and no setting changes that."""
    names = {field.name for field in fields(Policy)} | set(inspect.signature(Client.complete).parameters)
    assert not [name for name in names if "hedge" in name]


@pytest.mark.parametrize("settings", [{"tries": 101}, {"recoveries": 101}, {"longest_wait": float("inf")}])
def test_for_ever_cannot_be_configured(settings: dict[str, float]) -> None:
    """Every limit of a policy is finite."""
    with pytest.raises(errors.UsageError):
        Policy(**settings)  # type: ignore[arg-type]


def test_every_recovery_is_told() -> None:
    """Each way back is announced before it is taken, with what broke and where it goes."""
    story = drive(call(), [cut(CHAT, HALF), broke(K.CONNECT), whole(CHAT)])
    assert [(notice.fault, notice.rung) for notice in story.notices] == [
        ("dropped", "restart"),
        ("connect", "restart"),
    ]


def test_no_recoveries_means_detect_and_report() -> None:
    """With recoveries=0 there is one request, and its partial comes with the error."""
    story = drive(call(policy=Policy(recoveries=0)), [cut(CHAT, HALF), whole(CHAT)])
    assert len(story.sends) == 1
    assert isinstance(story.error, errors.StreamDropped)
    assert story.error.reply is not None
    assert TEXT.startswith(story.error.reply.text)
