"""What the recorded streams leave out of the two wires: odd fields, broken events, what follows the end."""

import json
from typing import Any

import pytest

from sidestream.assembler import Assembler
from sidestream.reply import Reply
from sidestream.wire import chat, messages, responses
from sidestream.wire._json import NotJSON
from sidestream.wire.events import Event, Finished, Other, TextDelta
from sidestream.wire.sse import ServerSentEvent


def frame(value: Any, kind: str = "message") -> ServerSentEvent:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return ServerSentEvent(kind, data, b"")


def chunk(text: str = "", **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, **choice}]}


def delta(text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "delta": text, **fields}


COMPLETED = {"type": "response.completed", "response": {"id": "r"}}


def reply_of(events: list[Event]) -> Reply:
    assembler = Assembler()
    for event in events:
        assembler.push(event)
    return assembler.reply("dropped")


# Responses.


@pytest.mark.parametrize(
    "fields",
    [
        {"content_index": None},
        {"content_index": "0"},
        {"output_index": "0"},
        {"output_index": 0.5},
        {"item_id": 5},
        {"item_id": {"a": 1}, "content_index": []},
    ],
    ids=str,
)
def test_text_counts_whatever_its_other_fields_hold(fields: dict[str, Any]) -> None:
    """A delta with a field of an unexpected kind is still the next piece of the answer."""
    decoder = responses.Decoder()
    events = decoder.feed([frame(delta("So", **fields)), frame(delta(" far", **fields)), frame(COMPLETED)])
    assert reply_of(events).text == "So far"


def test_type_may_come_from_the_event_line_alone() -> None:
    """Without a `type` in the data, the event's name says what it is."""
    decoder = responses.Decoder()
    frames = [
        frame({"delta": "So"}, "response.output_text.delta"),
        frame({"response": {}}, "response.completed"),
    ]
    assert reply_of(decoder.feed(frames)).text == "So"
    assert decoder.over


@pytest.mark.parametrize(
    "fields", [{}, {"delta": None}, {"delta": 5}, {"delta": ["x"]}, {"delta": ""}], ids=str
)
def test_a_delta_without_text_says_nothing(fields: dict[str, Any]) -> None:
    """What has no text is no progress, and no failure either."""
    decoder = responses.Decoder()
    events = decoder.feed([frame({"type": "response.output_text.delta", **fields})])
    assert reply_of(events).text == ""
    assert not decoder.broken


def test_unknown_events_are_signs_of_life() -> None:
    """A type nobody knows is neither an error nor progress."""
    events = responses.Decoder().feed(
        [frame({"type": "response.new_thing", "delta": 1}), frame({"type": "ping"})]
    )
    assert events == [Other("response.new_thing"), Other("ping")]


# Chat.


@pytest.mark.parametrize(
    ("index", "fits"), [(0, True), (127, True), (128, False), (-1, False), (2**63, False)]
)
def test_a_choice_has_a_sensible_number(index: int, fits: bool) -> None:
    """A number beyond any server's is a broken format, not a million empty alternatives."""
    decoder = chat.Decoder()
    events = decoder.feed([frame(chunk("x", index=index))])
    assert (decoder.broken is None) is fits
    assert any(isinstance(event, TextDelta) for event in events) is fits


# Both.


@pytest.mark.parametrize(
    ("decoder", "text", "end"),
    [
        (chat.Decoder(), chunk("So"), b"[DONE]"),
        (responses.Decoder(), delta("So"), COMPLETED),
    ],
    ids=["chat", "responses"],
)
def test_what_came_before_a_broken_event_counts(decoder: Any, text: Any, end: Any) -> None:
    """Events of the same read are kept, nothing after the broken one is, and the end of the body says so."""
    events = decoder.feed([frame(text), frame(b"{nonsense"), frame(text), frame(end)])
    assert reply_of(events).text == "So"
    assert isinstance(decoder.broken, NotJSON)
    assert decoder.feed([frame(text)]) == []
    with pytest.raises(NotJSON):
        decoder.close()


def test_nonsense_after_a_finish_reason_does_not_undo_the_answer() -> None:
    """When every choice has ended, a broken usage chunk costs the usage and not the answer."""
    decoder = chat.Decoder()
    decoder.feed([frame(chunk("So", finish_reason="stop")), frame(b"{nonsense")])
    assert decoder.close() == [Finished("completed", reason="stop")]


@pytest.mark.parametrize("data", [b'"text"', b"[1]", b"5", b"null", b"true"], ids=bytes.decode)
def test_a_chunk_that_is_no_object_is_broken(data: bytes) -> None:
    """Chat chunks are objects; JSON of another kind breaks the stream."""
    decoder = chat.Decoder()
    decoder.feed([frame(data)])
    assert decoder.broken


@pytest.mark.parametrize("wire", [chat, responses, messages])
@pytest.mark.parametrize("data", [b"", b" ", b"\n"])
def test_an_empty_event_says_nothing(wire: Any, data: bytes) -> None:
    """Data of white space only is a keep-alive."""
    decoder = wire.Decoder()
    assert decoder.feed([frame(data)]) == []
    assert not decoder.broken
