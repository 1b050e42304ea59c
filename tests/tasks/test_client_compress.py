"""Compression through the clients, over the lab's sockets: what the first side task must survive."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from transcripts import sample_bytes

from sidestream import (
    AsyncClient,
    Backoff,
    Cancel,
    Cancelled,
    Client,
    Compaction,
    Policy,
    Route,
    Timeouts,
)
from sidestream.lab import Fault, Lab, Plan, script
from sidestream.tasks.compression import Compactor, CompressionPolicy

MESSAGES: list[dict[str, Any]] = json.loads(sample_bytes())["messages"]
SUMMARY = "Goal: fix the relay. Decided: SQLite journal, no Redis. Open: Dana's review."
QUICK = Policy(backoff=Backoff(base=0, throttled_base=0))


def compress(lab: Lab, way: str, **options: Any) -> Compaction:
    settings = {"model": "lab-1", "policy": QUICK}
    if way == "sync":
        with Client(lab.url, **settings) as client:
            return client.compress(MESSAGES, budget=900, **options)

    async def call() -> Compaction:
        async with AsyncClient(lab.url, **settings) as client:
            return await client.compress(MESSAGES, budget=900, **options)

    return asyncio.run(call())


both = pytest.mark.parametrize("way", ["sync", "async"])


@both
def test_a_summary_survives_a_cut(way: str) -> None:
    """A summary whose stream is cut comes back whole and is used once."""
    with Lab(script.say(SUMMARY), plan=Plan([Fault.cut(after_event=5)])) as lab:
        done = compress(lab, way)
        assert len(lab.requests) == 2
    assert done.method == "summary"
    assert json.dumps(done.messages).count("Dana's review") == 1


@both
@pytest.mark.parametrize(
    ("answer", "plan"),
    [
        (script.say(SUMMARY), Plan.always(Fault.cut(after_event=5))),
        (script.error(401, b'{"error":{"code":"invalid_api_key","message":"no"}}'), Plan()),
        (script.error(429, b'{"error":{"code":"insufficient_quota","message":"no money"}}'), Plan()),
        (script.error(503, b"<html>busy</html>", content_type="text/html"), Plan()),
    ],
    ids=["network", "auth", "quota", "overload"],
)
def test_a_failure_keeps_every_message(way: str, answer: Any, plan: Plan) -> None:
    """When the model cannot be reached the conversation is untouched, and the notice says why."""
    with Lab(answer, plan=plan) as lab:
        done = compress(lab, way)
    assert done.kept
    assert done.messages == MESSAGES
    assert "untouched" in done.notice


@both
def test_an_empty_summary_is_quoted_instead(way: str) -> None:
    """A model that answers nothing is asked once more, and then nothing of its silence is stored."""
    with Lab(script.chat({"content": " "})) as lab:
        done = compress(lab, way)
        assert len(lab.requests) == 2
    assert done.method == "extractive"
    assert all(message in done.messages for message in MESSAGES if message["role"] == "user")


@both
def test_a_cancel_ends_it_and_an_interrupt_does_not(way: str) -> None:
    """Compression is atomic: an interrupt is ignored, a cancel passes through."""
    stop = Cancel()
    stop.interrupt()
    with Lab(script.say(SUMMARY)) as lab:
        assert compress(lab, way, cancel=stop).method == "summary"
        stop.cancel()
        with pytest.raises(Cancelled):
            compress(lab, way, cancel=stop)


# A session's compactor on top of a client: the field cases, over sockets.

SMALL = CompressionPolicy(floor=0, digest_least=50, prune=False)


def session(
    way: str, labs: list[Lab], tokens: int = 3_000, **settings: Any
) -> tuple[Compaction, Compactor, list[Any]]:
    """One compaction of the sample by a compactor whose model is the labs, in order; then its commit."""
    routes = [Route(each.url, f"lab-{number}", name=f"lab-{number}") for number, each in enumerate(labs)]
    options: dict[str, Any] = {"routes": routes, "policy": QUICK, **settings}
    ready: dict[str, Any] = {"window": 2_000, "policy": SMALL, "clock": lambda: 1_790_000_000.0}
    if way == "sync":
        with Client(**options) as client:
            compactor = Compactor(lambda prompt: client.complete(prompt, task="compression").text, **ready)
            assert compactor.check(tokens)
            done = compactor.compact(MESSAGES, tokens=tokens)
            return done, compactor, compactor.commit(done, MESSAGES)

    async def call() -> tuple[Compaction, Compactor, list[Any]]:
        async with AsyncClient(**options) as client:

            async def ask(prompt: list[dict[str, str]]) -> str:
                return (await client.complete(prompt, task="compression")).text

            compactor = Compactor(ask, **ready)
            assert compactor.check(tokens)
            done = await compactor.acompact(MESSAGES, tokens=tokens)
            return done, compactor, compactor.commit(done, MESSAGES)

    return asyncio.run(call())


@both
@pytest.mark.parametrize("fault", [Fault.refuse(), Fault.cut(after_event=2)], ids=["refused", "cut"])
def test_case_73_a_network_blip_keeps_every_message_and_rests(way: str, fault: Fault) -> None:
    """The connection fails on every attempt: nothing is lost, and there is a rest."""
    with Lab(script.say(SUMMARY), plan=Plan.always(fault)) as lab:
        done, compactor, after = session(way, [lab])
        asked = len(lab.requests)
        assert compactor.compact(MESSAGES).kept
        assert len(lab.requests) == asked
    assert after == MESSAGES
    assert "every message is untouched" in done.notice
    assert compactor.check(3_000).why == "cooldown"
    assert compactor.history.cooldown_until in (1_790_000_030.0, 1_790_000_060.0)


@both
def test_cases_37_and_38_a_stalled_route_leaves_its_fallback_time_and_no_cooldown(way: str) -> None:
    """The first route is silent: the second has a clock of its own, its summary is used, nothing rests."""
    clocks = Timeouts(total=20, first=0.2, idle=0.2)
    with Lab(script.say("never"), plan=Plan.always(Fault.hang())) as silent, Lab(script.say(SUMMARY)) as lab:
        done, compactor, after = session(way, [silent, lab], timeout=clocks)
        assert len(lab.requests) == 1
    assert done.method == "summary"
    assert "Dana's review" in json.dumps(after)
    assert compactor.history.cooldown_until == 0
    assert compactor.history.compactions == 1


@both
def test_cases_35_and_36_the_call_ends_before_its_host_and_says_timeout(way: str) -> None:
    """Everything is silent: the call's own clock ends it, booked as a timeout."""
    clocks = Timeouts(total=0.4, first=0.2, idle=0.2)
    with Lab(script.say("never"), plan=Plan.always(Fault.hang())) as silent:
        done, compactor, after = session(way, [silent], timeout=clocks)
    assert after == MESSAGES
    assert done.failure == "timeout"
    assert compactor.history.failures == {"timeout": 1}
    assert compactor.history.cooldown_until == 1_790_000_060.0


@both
def test_case_61_an_empty_summary_goes_to_the_next_route(way: str) -> None:
    """Content without a word is a failure of the route, not a summary."""
    with Lab(script.chat({"content": ""})) as empty, Lab(script.say(SUMMARY)) as lab:
        done, _, after = session(way, [empty, lab])
    assert done.method == "summary"
    assert "Dana's review" in json.dumps(after)
