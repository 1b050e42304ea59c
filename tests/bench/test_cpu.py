"""What the CPU benchmark rests on: a sender that sends every event by itself, and ratios within a round."""

from __future__ import annotations

import http.client
import importlib
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))


def fetched(url: str, path: str) -> bytes:
    connection = http.client.HTTPConnection(url.removeprefix("http://").removesuffix("/v1"), timeout=30)
    try:
        connection.request("POST", f"/v1{path}", b"{}")
        return connection.getresponse().read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/responses", "/chat/completions", "/messages"])
def test_every_way_of_sending_gives_the_same_answer(path: str) -> None:
    """Paced, burst and with a length: the same bytes, and as many events as the source says."""
    source = importlib.import_module("source")
    wire = {"/chat/completions": "chat"}.get(path, path[1:])
    with source.Source(events=5) as sender:
        got = set()
        for order in (source.Order("paced", 0.001), source.Order("burst"), source.Order("length")):
            sender.send(order)
            got.add(fetched(sender.url, path))
            assert len(sender.report()["sent"]) == 1
    assert len(got) == 1
    assert got.pop().count(b"data: ") == sender.events[wire]


@pytest.mark.parametrize("path", ["/responses", "/chat/completions", "/messages"])
def test_paced_every_event_is_one_write(path: str) -> None:
    """Paced, each piece after the head is one HTTP chunk with one event in it."""
    source = importlib.import_module("source")
    head, *pieces = source.answers(5)[path, "paced"]
    assert head.endswith(b"chunked\r\n\r\n")
    assert [piece.count(b"data: ") for piece in pieces] == [1] * len(pieces)


def record(**us: list[float]) -> dict[str, Any]:
    """A record of three peers; the same figures in every way."""
    peers = {
        "raw": {"child": "raw", "variant": "httpx2"},
        "ours": {"child": "with_sidestream", "variant": "stream"},
        "sdk": {"child": "openai_sdk", "variant": "responses"},
    }
    more = {"wire": "responses", "is_async": False, "settings": "-", "ours": False}
    figures = {name: {"us": us[name], "waits": [1.0] * len(us[name])} for name in peers}
    return {
        "work": {"rounds": 2, "tokens": 400, "pace": 0.002},
        "peers": {name: its | more for name, its in peers.items()},
        "skipped": ["litellm"],
        "failed": {},
        "ways": dict.fromkeys(("paced", "burst", "length"), figures),
    }


def test_ratios_are_taken_within_a_round() -> None:
    """A round in which everything took ten times as long changes no ratio."""
    cpu = importlib.import_module("cpu")
    found = cpu.targets(record(raw=[10.0, 100.0], ours=[9.0, 90.0], sdk=[36.0, 360.0]))
    measured = {target.what: (target.measured, target.met) for target in found}
    assert measured["CPU/event, paced: `Client.stream` ÷ raw httpx2"] == (pytest.approx(0.9), True)
    assert measured["CPU/event, paced: openai SDK, Responses ÷ `Client.stream`"] == (pytest.approx(4), True)
    assert measured["CPU/event, burst: openai SDK, Responses ÷ `Client.stream`"] == (pytest.approx(4), False)
    assert measured["CPU/event, burst: litellm `acompletion` ÷ `Client.stream`"] == (None, None)


def test_a_peer_that_found_several_events_at_once_is_marked() -> None:
    """Paced, fewer sleeps than events are starred and explained; who was left out is named."""
    cpu = importlib.import_module("cpu")
    made = record(raw=[10.0], ours=[9.0], sdk=[36.0])
    assert "\\* found several" not in cpu.tables(made)
    made["ways"]["paced"]["sdk"]["waits"] = [0.3]
    assert "0.30 *" in cpu.tables(made)
    assert "\\* found several" in cpu.tables(made)
    assert "missing: litellm" in cpu.tables(made)
