"""Compression through the clients, over the lab's sockets: what the first side task must survive."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from transcripts import sample_bytes

from sidestream import AsyncClient, Backoff, Cancel, Cancelled, Client, Compaction, Policy
from sidestream.lab import Fault, Lab, Plan, script

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
