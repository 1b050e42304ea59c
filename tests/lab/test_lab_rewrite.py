"""Faults that act on every event, without a socket."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream.lab import Fault, Script, script
from sidestream.lab.rewrite import markers_of, rewriters, rewritten
from sidestream.lab.sse import decode, encode, split_events

RESPONSES = script.responses_text("one two")
CHAT = script.chat_text("one two")
MESSAGES = script.messages_text("one two")


def play(stream: Script, *faults: Fault) -> list[bytes]:
    chain = rewriters(faults)
    return [out for event in stream.events for out in rewritten(event, chain)]


@pytest.mark.parametrize("stream", [RESPONSES, CHAT, MESSAGES])
def test_dropping_terminal_markers_drops_nothing_else(stream: Script) -> None:
    """K19 leaves out every terminal marker of the wire and keeps all other bytes."""
    kept = play(stream, Fault.drop_terminal())
    assert not any(markers_of(event) for event in kept)
    assert kept == [event for event in stream.events if not markers_of(event)]


def test_a_single_marker_can_be_dropped() -> None:
    """K19 can leave out [DONE] alone."""
    assert play(CHAT, Fault.drop_terminal("done")) == list(CHAT.events[:-1])


@pytest.mark.parametrize("marker", ["finish", "done"])
def test_a_message_ends_with_two_markers(marker: str) -> None:
    """K19 can leave out the stop reason of a message or its `message_stop`, and keep the other."""
    kept = play(MESSAGES, Fault.drop_terminal(marker))  # type: ignore[arg-type]
    left = b"message_stop" if marker == "finish" else b"message_delta"
    assert [left in event for event in kept] == [False] * (len(kept) - 1) + [True]


@pytest.mark.parametrize("stream", [RESPONSES, CHAT, MESSAGES])
def test_terminal_markers_can_come_twice(stream: Script) -> None:
    """K20 sends each terminal marker twice in a row."""
    out = play(stream, Fault.repeat_terminal())
    twice = [event for event in stream.events if markers_of(event)]
    assert len(out) == len(stream.events) + len(twice)
    assert out[-1] == out[-2]


@given(st.lists(st.sampled_from([b"data: 1\n\n", b"event: a\ndata: 1\n\n", b": c\n\n"]), min_size=1))
def test_mixed_line_ends_keep_every_blank_line(events: list[bytes]) -> None:
    """K21 mixes all three line ends, yet each event still ends with a blank line."""
    out = play(Script(tuple(events)), Fault.line_ends("mixed"))
    assert split_events(b"".join(out)) == tuple(out)
    assert [re.sub(rb"\r\n|\r", b"\n", event) for event in out] == events


@pytest.mark.parametrize(("style", "end"), [("cr", b"\r"), ("crlf", b"\r\n"), ("lf", b"\n")])
def test_line_ends_can_all_be_the_same(style: str, end: bytes) -> None:
    """K21 can use one kind of line end throughout."""
    out = b"".join(play(CHAT, Fault.line_ends(style)))  # type: ignore[arg-type]
    assert set(re.findall(rb"\r\n|\r|\n", out)) == {end}


def test_the_byte_order_mark_comes_once_and_first() -> None:
    """K21 puts one BOM before the first event."""
    out = play(CHAT, Fault.bom(), Fault.line_ends("crlf"))
    assert b"".join(out).count(b"\xef\xbb\xbf") == 1
    assert out[0].startswith(b"\xef\xbb\xbf")


def test_the_huge_event_is_one_more_event_of_the_asked_size() -> None:
    """K22 adds one legal event of the given size and changes no other."""
    out = play(CHAT, Fault.huge_event(after_event=2, size=10_000))
    assert 10_000 < len(out[2]) < 10_200
    assert decode(out[2])["type"] == "lab.padding"
    assert [*out[:2], *out[3:]] == list(CHAT.events)


def test_tokens_alone_are_a_usage_marker() -> None:
    """A `message_delta` without a reason to stop carries the usage marker, whatever its delta looks like."""
    early = {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 1}}
    assert markers_of(encode(early)) == markers_of(encode(early | {"delta": None})) == {"usage"}
    assert markers_of(encode({"type": ["message_stop"]})) == set()
