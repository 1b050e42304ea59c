"""Scripts: what the server says, before anything goes wrong."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_client import CHAT, MESSAGES, RESPONSES

from sidestream.errors import UsageError
from sidestream.lab import Script, script
from sidestream.lab.record import Request
from sidestream.lab.rewrite import markers_of
from sidestream.lab.sse import EventSplitter, decode, encode, split_events

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "naïve 数据 🙂 ends  here "
STREAMS = st.lists(
    st.sampled_from(
        [b"data: x", b"event: e", b"\n", b"\r", b"\r\n", b":", b"\xf0\x9f\x99\x82", b"\xef\xbb\xbf", b""]
    )
).map(b"".join)


def payloads(stream: Script) -> list[Any]:
    return [decode(event) for event in stream.events]


@pytest.mark.parametrize("tokens", [None, 1, 7])
def test_a_responses_stream_is_numbered_and_its_deltas_add_up(tokens: int | None) -> None:
    """A Responses script runs from created to completed, numbered from 0, and its deltas make the text."""
    events = payloads(script.responses_text(TEXT, tokens=tokens, response_id="resp_1"))
    deltas = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    assert [e["sequence_number"] for e in events] == list(range(len(events)))
    assert [events[0]["type"], events[-1]["type"]] == ["response.created", "response.completed"]
    assert "".join(deltas) == TEXT
    assert tokens is None or len(deltas) == tokens
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == TEXT
    assert events[-1]["response"]["usage"]["output_tokens"] == len(deltas)
    assert {e["response"]["id"] for e in events if "response" in e} == {"resp_1"}


def test_every_responses_event_names_its_type() -> None:
    """Each event's name line and JSON type agree, for every kind of item."""
    parts = (script.reasoning("Hm."), script.message("Hi"), script.call("f", "{}"), script.refusal("No."))
    for event in script.responses(*parts).events:
        assert event.startswith(f"event: {decode(event)['type']}\ndata: ".encode())
        assert event.endswith(b"\n\n")


def test_a_responses_stream_can_end_otherwise() -> None:
    """The terminal event can be incomplete, failed or missing, and the final object can be changed."""
    failed = script.responses(
        script.message("a"), ending="failed", details={"error": {"code": "server_error"}}
    )
    cut = script.responses(script.message("a"), ending="none")
    bare = script.responses(script.message("a"), details={"output": None}, usage=False)
    assert payloads(failed)[-1]["response"]["error"] == {"code": "server_error"}
    assert payloads(cut)[-1]["type"] == "response.output_item.done"
    assert payloads(bare)[-1]["response"]["output"] is None
    assert payloads(bare)[-1]["response"]["usage"] is None


def test_a_chat_stream_has_role_text_finish_usage_and_done() -> None:
    """A Chat text script is the role chunk, the text, the finish chunk, the usage chunk and [DONE]."""
    *chunks, done = payloads(script.chat_text(TEXT, tokens=5))
    role, *texts, finish, usage = chunks
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(c["choices"][0]["delta"]["content"] for c in texts) == TEXT
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 5
    assert done == "[DONE]"


def test_chat_markers_can_be_left_out() -> None:
    """Finish reason, usage and [DONE] can each be missing from a Chat script."""
    bare = script.chat_text("hi", usage=False, finish=None, done=False)
    assert [markers_of(event) for event in bare.events] == [set(), set()]
    assert [markers_of(e) for e in script.chat_text("hi").events[-3:]] == [{"finish"}, {"usage"}, {"done"}]


def test_a_chat_call_comes_in_fragments() -> None:
    """A Chat call names the function once and its argument fragments add up."""
    chunks = payloads(script.chat_call("get", '{"a":1}', tokens=3))[1:-3]
    calls = [c["choices"][0]["delta"]["tool_calls"][0] for c in chunks]
    assert calls[0]["function"]["name"] == "get"
    assert "".join(c["function"]["arguments"] for c in calls) == '{"a":1}'
    assert len(calls) == 4


def test_more_pieces_than_characters_is_a_usage_error() -> None:
    """Text cannot come in more deltas than it has characters."""
    with pytest.raises(UsageError, match="2 characters cannot come in 3 pieces"):
        script.chat_text("ab", tokens=3)


@given(STREAMS)
def test_splitting_a_recording_changes_no_byte(data: bytes) -> None:
    """The events of a recording, joined, are the recording."""
    assert script.from_sse(data).body == data


@given(STREAMS, st.data())
def test_events_do_not_depend_on_the_reads(data: bytes, draw: st.DataObject) -> None:
    """A stream fed in two arbitrary parts yields the same events as fed whole."""
    at = draw.draw(st.integers(0, len(data)))
    splitter = EventSplitter()
    events = [*splitter.feed(data[:at]), *splitter.feed(data[at:]), *splitter.rest()]
    assert tuple(events) == split_events(data)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_ends_an_event(end: bytes) -> None:
    """Two line ends of any kind close an event, and one CRLF is not two."""
    one, two = b"event: a" + end + b"data: 1" + end * 2, b"data: 2" + end * 2
    assert split_events(one + two) == (one, two)


def test_a_splitter_holds_back_no_more_than_its_limit() -> None:
    """An event that never ends is let go in pieces beyond the limit."""
    assert EventSplitter(limit=8).feed(b"data: 123456") == [b"data: 123456"]


def test_a_recording_can_be_a_file(tmp_path: Path) -> None:
    """A recorded stream is read from a path, too."""
    path = tmp_path / "a.sse"
    path.write_bytes(b"data: 1\n\ndata: 2")
    assert script.from_sse(path, pace=0.1) == Script((b"data: 1\n\n", b"data: 2"), pace=0.1)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [({"a": 1}, "application/json"), ("<html>", "text/html"), (b"no", "text/plain"), ("", "text/plain")],
)
def test_an_error_answer_has_the_type_of_its_body(body: Any, content_type: str) -> None:
    """A plain answer is JSON, HTML or text by its body, and keeps its headers."""
    answer = script.error(429, body, headers={"retry-after": "1"})
    assert (answer.status, answer.content_type, answer.headers) == (
        429,
        content_type,
        (("retry-after", "1"),),
    )


def test_a_resume_starts_after_the_cursor() -> None:
    """A resumed stream has the events after the cursor, with an overlap or a gap if asked."""
    full = script.responses_text("a b c")

    def first(**options: int) -> int:
        return int(decode(full.since(4, **options).events[0])["sequence_number"])

    assert (first(), first(overlap=2), first(overlap=-1)) == (5, 3, 6)
    assert full.since(10_000).events == ()


def test_editing_makes_a_new_script() -> None:
    """Taking, dropping, inserting and replacing events leave the original alone."""
    stream = Script((b"a", b"b", b"c"))
    assert stream.take(1).events == (b"a",)
    assert stream.without(b"b").events == (b"a", b"c")
    assert stream.insert(1, b"x").events == (b"a", b"x", b"b", b"c")
    assert stream.replaced(b"a", b"z").events == (b"z", b"b", b"c")
    assert stream.sent(pace=1.0).pace == 1.0
    assert stream.events == (b"a", b"b", b"c")


def test_a_script_refuses_what_it_cannot_send() -> None:
    """An unknown framing or a negative pace is a usage error."""
    with pytest.raises(UsageError, match="framing"):
        Script((), framing="smoke")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="pace"):
        Script((), pace=-1)


def asked(path: str, body: bytes) -> Request:
    return Request(0, 0, 0, "POST", path, (), body, 0.0)


KINDS = {RESPONSES: "response", CHAT: "chat.completion", MESSAGES: "message"}


@pytest.mark.parametrize("path", KINDS)
def test_say_answers_on_the_wire_it_is_asked_on(path: str) -> None:
    """`say` streams on every wire, and answers with one JSON object where no stream is wanted."""
    answer = script.say("Hello you")
    for stream in (b'{"stream":true}', b"{}", b"not json"):
        assert answer(asked(path, stream)).content_type == "text/event-stream"
    for whole in (b'{"stream":false}', b'{"model":"m"}'):
        told = msgspec.json.decode(answer(asked(path, whole)).body)
        assert "Hello you" in str(told)
        assert told.get("object", told.get("type")) == KINDS[path]


def test_a_whole_chat_has_its_calls_refusal_and_reasoning() -> None:
    """Everything that the deltas of a Chat stream say is in the one object, choice by choice."""
    called = whole(script.chat_call("get", '{"a":1}', tokens=3), CHAT)["choices"][0]
    function = {"name": "get", "arguments": '{"a":1}'}
    assert called["message"]["tool_calls"] == [{"id": "call_lab_0", "type": "function", "function": function}]
    assert (called["message"]["content"], called["finish_reason"]) == (None, "tool_calls")
    spoken = script.chat(
        {"reasoning_content": "H"}, {"reasoning_content": "m"}, {"refusal": "No."}, usage=False
    )
    message = whole(spoken, CHAT)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "", "reasoning_content": "Hm", "refusal": "No."}
    assert "usage" not in whole(spoken, CHAT)


@pytest.mark.parametrize(
    "stream",
    [
        script.responses_text("Hi").take(-1),
        script.chat_text("Hi", finish=None),
        script.messages_text("Hi", stop_reason=None),
        script.messages(script.call("f", '{"a"')),
        script.from_sse(b"data: [DONE]\n\n"),
        script.from_sse(b'data: {"object":"chat.completion.chunk","choices":[1]}\n\n'),
        script.from_sse(b'event: a\ndata: {"type":"message_start","message":{}}\n\n'),
        script.error(503, "busy"),
        script.json({"a": 1}),
    ],
)
def test_what_has_no_end_is_never_made_whole(stream: Script) -> None:
    """A stream without its end is sent as it is, and so is what was no stream before."""
    assert script.as_asked(stream, asked(CHAT, b'{"stream":false}')) is stream


def whole(stream: Script, path: str) -> Any:
    return msgspec.json.decode(script.as_asked(stream, asked(path, b'{"stream":false}')).body)


def test_words_are_the_same_every_time_and_countable() -> None:
    """Generated prose depends on count and seed only."""
    assert script.words(50) == script.words(50) != script.words(50, seed=1)
    assert len(re.findall(r"\S+", script.words(50))) == 50


def test_scripts_are_values() -> None:
    """A script is frozen and equal to another one with the same bytes."""
    assert script.chat_text("a") == script.chat_text("a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        script.chat_text("a").status = 1  # type: ignore[misc]


def test_encoding_keeps_text_outside_ascii_as_utf8() -> None:
    """Events carry raw UTF-8, so that a cut can fall inside a character."""
    assert "🙂".encode() in encode({"text": "🙂"})
