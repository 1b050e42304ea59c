"""The cursor of a Responses stream: what a resumed stream may say again, and what a poll adds to it.

Decoders are fed events by number, without sockets. A resume is the same decoder after `resume()`; a poll is a
response object. What comes out is compared as a reply: every event once, or an error that says why not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from sidestream.assembler import Assembler
from sidestream.lab import script
from sidestream.lab.sse import decode
from sidestream.reply import Reply
from sidestream.wire._json import NotJSON
from sidestream.wire.events import Event, Finished, ItemDone, ItemStarted
from sidestream.wire.responses import Decoder
from sidestream.wire.sse import ServerSentEvent

TEXT, THOUGHT, ARGUMENTS = "One two three four.", "Hm, let me see.", '{"city":"Oslo"}'
PARTS = (script.reasoning(THOUGHT), script.message(TEXT), script.call("look_up", ARGUMENTS))
EVENTS: list[dict[str, Any]] = [dict(decode(event)) for event in script.responses(*PARTS).events]
WHOLE: dict[str, Any] = EVENTS[-1]["response"]
LAST = len(EVENTS)
MID = next(n for n, event in enumerate(EVENTS) if event.get("delta") == " three")
every_cut = pytest.mark.parametrize("at", range(1, LAST))


class Reader:
    """A decoder with its assembler."""

    def __init__(self) -> None:
        self.decoder = Decoder()
        self.assembler = Assembler()
        self.events: list[Event] = []

    def feed(self, events: Iterable[dict[str, Any]]) -> Reader:
        frames = [ServerSentEvent(event["type"], json.dumps(event).encode(), b"") for event in events]
        return self._take(self.decoder.feed(frames))

    def resume(self, events: Iterable[dict[str, Any]] = ()) -> Reader:
        self.decoder.resume()
        self.assembler.reopen()
        return self.feed(events)

    def poll(self, response: object) -> Reader:
        self.resume()
        found = self.decoder.read_poll(json.dumps(response).encode())
        assert found is not None, "it is still at work"
        return self._take(found)

    def _take(self, events: list[Event]) -> Reader:
        self.events += events
        for event in events:
            self.assembler.push(event)
        return self

    @property
    def broken(self) -> str:
        with pytest.raises(NotJSON) as caught:
            self.decoder.close()
        return str(caught.value)

    @property
    def reply(self) -> Reply:
        return self.assembler.reply("complete")


def read(events: Iterable[dict[str, Any]]) -> Reader:
    return Reader().feed(events)


def is_whole(reader: Reader) -> None:
    """The answer, each of its parts once."""
    assert reader.decoder.close() == []
    reply = reader.reply
    assert (reply.text, reply.reasoning) == (TEXT, THOUGHT)
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("look_up", ARGUMENTS)]
    assert len(reply.items) == len(PARTS)
    assert [event.status for event in reader.events if isinstance(event, Finished)] == ["completed"]
    for kind in (ItemStarted, ItemDone):
        assert sum(isinstance(event, kind) for event in reader.events) == len(PARTS)


def renumbered(events: Iterable[dict[str, Any]], number: Any) -> list[dict[str, Any]]:
    return [event | {"sequence_number": number(n)} for n, event in enumerate(events)]


def unnumbered(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in e.items() if name != "sequence_number"} for e in events]


# Numbers.


@every_cut
def test_the_cursor_is_the_last_number(at: int) -> None:
    """After n events it is the number of the last one."""
    assert read(EVENTS[:at]).decoder.cursor == at - 1


def test_no_event_no_cursor() -> None:
    """Before the first event there is none: 0 would leave that one out."""
    assert Decoder().cursor is None


@every_cut
def test_a_resume_goes_on_after_the_cursor(at: int) -> None:
    """Cut anywhere, the two halves together are the whole, each event once."""
    is_whole(read(EVENTS[:at]).resume(EVENTS[at:]))


@every_cut
@pytest.mark.parametrize("overlap", [1, 2, 5, LAST])
def test_an_overlap_is_left_out(at: int, overlap: int) -> None:
    """What a resumed stream says again, up to all of it, is read once."""
    is_whole(read(EVENTS[:at]).resume(EVENTS[max(0, at - overlap) :]))


def test_every_event_may_be_a_stream_of_its_own() -> None:
    """Resumed after each single event, with some overlap, it is still the whole."""
    reader = read(EVENTS[:1])
    for at in range(1, LAST):
        reader.resume(EVENTS[max(0, at - 3) : at + 1])
    is_whole(reader)


def test_an_overlap_may_be_cut_again() -> None:
    """A resume that broke inside its overlap has moved nothing."""
    reader = read(EVENTS[:MID]).resume(EVENTS[: MID - 2])
    assert reader.decoder.cursor == MID - 1
    is_whole(reader.resume(EVENTS[MID - 1 :]))


@pytest.mark.parametrize("gap", [1, 2, 5])
def test_a_gap_is_an_error(gap: int) -> None:
    """A resumed stream that leaves events out is broken from its start, and nothing of it is read."""
    reader = read(EVENTS[:MID])
    before = len(reader.events)
    reader.resume(EVENTS[MID + gap :])
    assert reader.broken == f"the resumed stream leaves out events {MID} to {MID + gap - 1}"
    assert len(reader.events) == before
    assert reader.decoder.cursor == MID - 1
    is_whole(reader.resume(EVENTS[MID:]))


def test_numbers_may_skip_in_one_stream() -> None:
    """Keep-alives use numbers up: in one stream a step of more than one is no gap."""
    skipping = renumbered(EVENTS, lambda n: 3 * n)
    reader = read(skipping)
    assert reader.decoder.cursor == 3 * (LAST - 1)
    is_whole(reader)


@pytest.mark.parametrize("number", [lambda _: 0, lambda n: n // 2, lambda n: LAST - n])
def test_numbers_that_do_not_rise_are_no_cursor(number: Any) -> None:
    """A server that counts nothing, or twice, or down, has no cursor; every event of its stream is read."""
    reader = read(renumbered(EVENTS, number))
    assert reader.decoder.cursor is None
    is_whole(reader)


def test_without_numbers_there_is_no_cursor() -> None:
    """Events without numbers are read as they come, and cannot be resumed."""
    reader = read(unnumbered(EVENTS))
    assert reader.decoder.cursor is None
    is_whole(reader)


def test_a_resumed_stream_without_numbers_is_an_error() -> None:
    """Nobody could tell what of it is new: nothing of it is read."""
    reader = read(EVENTS[:MID]).resume(unnumbered(EVENTS[MID:]))
    assert reader.broken == "the resumed stream does not number its events"
    is_whole(reader.resume(EVENTS[MID:]))


def test_what_is_no_part_of_the_response_needs_no_number() -> None:
    """A ping, foreign events and `[DONE]` may come before the first event of a resumed stream."""
    reader = read(EVENTS[:MID]).resume([{"type": "ping"}, {"type": "codex.rate_limits"}, *EVENTS[MID:]])
    is_whole(reader)


def test_an_error_in_a_resumed_stream_is_read() -> None:
    """A resume that answers 200 and then says no is a failure, not a gap."""
    error = {"type": "error", "error": {"code": "server_error", "message": "no"}}
    reader = read(EVENTS[:MID]).resume([error])
    last = reader.events[-1]
    assert isinstance(last, Finished)
    assert last.status == "failed"


@pytest.mark.parametrize("overlap", [0, 3])
def test_a_number_may_be_a_string(overlap: int) -> None:
    """Digits in quotes count as well."""
    events = renumbered(EVENTS, str)
    reader = read(events[:MID])
    assert reader.decoder.cursor == MID - 1
    is_whole(reader.resume(events[MID - overlap :]))


@pytest.mark.parametrize("number", ["x", "", "-1", "9" * 20, None, True, {}])
def test_a_number_that_is_none_is_no_number(number: Any) -> None:
    """Nonsense there is no cursor and hurts nothing."""
    reader = read(renumbered(EVENTS, lambda _: number))
    assert reader.decoder.cursor is None
    is_whole(reader)


@pytest.mark.parametrize("odd", [{"content_index": None}, {"item_id": 5}, {"output_index": "1"}])
@pytest.mark.parametrize("overlap", [0, 1, 4])
def test_odd_events_are_counted_too(odd: dict[str, Any], overlap: int) -> None:
    """A delta whose other fields have unexpected kinds moves the cursor and is not read twice."""
    events = [e | odd if e["type"] == "response.output_text.delta" else e for e in EVENTS]
    reader = read(events[:MID])
    assert reader.decoder.cursor == MID - 1
    reader.resume(events[MID - overlap :])
    assert reader.reply.text.count("three") == 1
    assert reader.reply.text == TEXT


def test_garbage_in_a_resumed_stream_is_no_gap() -> None:
    """A page spliced into it is told as what it is, and the cursor stays."""
    reader = read(EVENTS[:MID])
    reader.decoder.resume()
    reader.decoder.feed([ServerSentEvent("message", b"<html>", b"")])
    assert "malformed" in reader.broken
    assert reader.decoder.cursor == MID - 1


# Polls.


@every_cut
def test_a_poll_adds_what_is_missing(at: int) -> None:
    """Whatever was streamed before, half items or whole ones, the object makes it whole, each part once."""
    is_whole(read(EVENTS[:at]).poll(WHOLE))


@every_cut
def test_a_poll_may_follow_a_stream_without_numbers(at: int) -> None:
    """It needs no cursor."""
    is_whole(read(unnumbered(EVENTS[:at])).poll(WHOLE))


@pytest.mark.parametrize("status", ["queued", "in_progress"])
def test_a_response_at_work_has_nothing_to_add(status: str) -> None:
    """None says: later. What it shows by then is not read, it may be half an item."""
    reader = read(EVENTS[:MID])
    assert reader.decoder.read_poll(json.dumps(WHOLE | {"status": status}).encode()) is None
    is_whole(reader.poll(WHOLE))


@every_cut
@pytest.mark.parametrize("names", ["rotated", "absent"])
@pytest.mark.parametrize("places", [True, False])
def test_items_are_known_by_their_place_where_ids_change(at: int, names: str, places: bool) -> None:
    """Some servers give an item another id in every event, or none: its place in the output tells."""
    streamed = [_named(event, names, number) for number, event in enumerate(EVENTS)]
    if not places:
        streamed = [{name: v for name, v in e.items() if name != "output_index"} for e in streamed]
    is_whole(read(streamed[:at]).poll(WHOLE))


def _named(event: dict[str, Any], names: str, number: int) -> dict[str, Any]:
    """The event with other ids in its item; those of calls' own stay."""
    event = {name: value for name, value in event.items() if name != "item_id"}
    if item := event.get("item"):
        plain = {name: value for name, value in item.items() if name != "id"}
        event["item"] = plain | ({"id": f"id_{number}"} if names == "rotated" else {})
    return event


def test_a_call_is_known_by_its_call_id() -> None:
    """Where a call's item has moved and changed its id, its call id still tells which one it is."""
    reasoning, message, call = WHOLE["output"]
    moved = [message, call | {"id": "fc_other"}, reasoning]
    reader = read(EVENTS[:-1]).poll(WHOLE | {"output": moved})
    assert len(reader.reply.tool_calls) == 1
    assert reader.reply.text == TEXT


def test_a_second_call_of_the_same_name_is_another_one() -> None:
    """Two calls that differ in their call id alone are two."""
    call = WHOLE["output"][2]
    second = call | {"id": "fc_2", "call_id": "call_2"}
    reader = read(EVENTS[:-1]).poll(WHOLE | {"output": [*WHOLE["output"], second]})
    assert [c.call_id for c in reader.reply.tool_calls] == [call["call_id"], "call_2"]


@pytest.mark.parametrize("output", [[], None, "absent", WHOLE["output"][:1]])
def test_a_completed_object_without_what_was_begun_is_an_error(output: Any) -> None:
    """Half a message was streamed, and the finished response does not have it: that is no whole answer."""
    reader = read(EVENTS[:MID])
    with pytest.raises(NotJSON, match="what was streamed of it is not"):
        reader.poll(WHOLE | {"output": output})


def test_a_completed_object_needs_no_output_for_what_was_finished() -> None:
    """Everything had arrived but the end: then the object only has to say that it is the end."""
    is_whole(read(EVENTS[:-1]).poll(WHOLE | {"output": []}))


def test_half_a_call_in_an_object_is_no_call() -> None:
    """The limit cut the call in two: its arguments are left out, and its name is kept among the dropped."""
    torn = WHOLE["output"][2] | {"arguments": '{"ci', "status": "incomplete"}
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    reader = read(EVENTS[:MID]).poll(WHOLE | cut | {"output": [*WHOLE["output"][:2], torn]})
    reply = reader.assembler.reply("incomplete")
    assert (reply.tool_calls, reply.dropped_calls, reply.text) == ((), ("look_up",), TEXT)
    assert reply.finish_reason == "length"


def test_half_a_call_in_a_stream_is_no_call_either() -> None:
    """The same in an `output_item.done` that says "incomplete"."""
    torn = EVENTS[-2] | {"item": EVENTS[-2]["item"] | {"arguments": '{"ci', "status": "incomplete"}}
    last = EVENTS[-1] | {"type": "response.incomplete"}
    assert torn["type"] == "response.output_item.done"
    reply = read([*EVENTS[:-2], torn, last]).assembler.reply("incomplete")
    assert (reply.tool_calls, reply.dropped_calls) == ((), ("look_up",))


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_an_object_that_failed_says_so(status: str) -> None:
    """It ends the answer as the event of that name does."""
    reader = read(EVENTS[:MID]).poll(WHOLE | {"status": status, "output": []})
    last = reader.events[-1]
    assert isinstance(last, Finished)
    assert last.status == "failed"
    assert last.error is not None
    assert last.error.code == status


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b"<html>", b'"completed"', b'{"status":"completed"}', b'{"object":"response"}'],
)
def test_what_is_no_response_object_is_an_error(body: bytes) -> None:
    """Pages, other JSON, unknown states: not an end, and not "still at work"."""
    with pytest.raises(NotJSON):
        read(EVENTS[:MID]).decoder.read_poll(body)


def test_odd_items_in_an_object_are_left_out() -> None:
    """What is no item, in a list that otherwise holds the answer."""
    is_whole(read(EVENTS[:MID]).poll(WHOLE | {"output": [*WHOLE["output"], None, 5, {}]}))
