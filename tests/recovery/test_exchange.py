"""The bytes of one attempt: looked at before they are believed, and over when the last word is said."""

import gzip
import json
import re
import zlib
from typing import Any

import pytest

from sidestream.recovery.delivery import Gate, Said
from sidestream.recovery.exchange import Exchange
from sidestream.relay import relay_for
from sidestream.wire._json import NotJSON
from sidestream.wire.coding import BadCoding
from sidestream.wire.sse import LimitExceeded, Limits
from streams import ALL, Stream, named, one_by_one

CHAT, RESPONSES = named("chat/plain-text"), named("responses/plain-text")
MESSAGES = named("messages/plain-text")
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"So"}}]}\n\n'
BODIES: dict[str, dict[str, Any]] = {
    "chat": {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "So"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    },
    "responses": {
        "id": "c",
        "model": "m",
        "object": "response",
        "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "So"}]}],
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    },
    "messages": {
        "id": "c",
        "model": "m",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "So"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 2},
    },
}


@pytest.mark.parametrize("consumer", ["relay", "live", "held"])
@pytest.mark.parametrize("stream", ALL, ids=lambda stream: stream.name)
def test_text_that_goes_on_as_it_is_takes_a_shorter_way_to_the_same_place(
    stream: Stream, consumer: str
) -> None:
    """Frame by frame, and with every frame in two pieces: the same reply, output, figures and progress."""
    ends = [at + 2 for at in range(len(stream.data)) if stream.data[at : at + 2] == b"\n\n"]
    frames = [stream.data[a:b] for a, b in zip([0, *ends], [*ends, len(stream.data)], strict=True) if a < b]
    quick, plain = (exchange_for(stream, consumer) for _ in range(2))
    for frame in frames:
        try:
            assert not plain.feed(frame[:1])
            expected = list(plain.feed(frame[1:]))
        except NotJSON as error:
            with pytest.raises(NotJSON, match=re.escape(str(error))):
                quick.feed(frame)
            return
        assert list(quick.feed(frame)) == expected
        assert quick.has_progressed() == plain.has_progressed()
        assert (quick.over, quick.done, quick.events) == (plain.over, plain.done, plain.events)
        assert (quick.arrived, quick.cursor) == (plain.arrived, plain.cursor)
        assert quick.assembler.reply("dropped") == plain.assembler.reply("dropped")
        if quick.relay is not None and plain.relay is not None:
            assert quick.relay.last == plain.relay.last


def exchange_for(stream: Stream, consumer: str) -> Exchange:
    relay = relay_for(stream.wire, {"stream": True}) if consumer == "relay" else None
    return Exchange(stream.wire, stream.choices, Gate(Said()) if consumer == "live" else None, relay=relay)


@pytest.mark.parametrize("wire", BODIES)
@pytest.mark.parametrize("start", [b"", b"\n\n  ", b"\xef\xbb\xbf"], ids=["plain", "blank lines", "bom"])
def test_a_server_that_ignores_stream_is_understood(wire: str, start: bytes) -> None:
    """A whole JSON answer instead of a stream gives the same reply, in whatever pieces it comes."""
    data = start + json.dumps(BODIES[wire]).encode()
    for chunks in ([data], one_by_one(data)):
        exchange = Exchange(wire, 1, Gate(Said()))
        assert not any(exchange.feed(chunk) for chunk in chunks)
        assert [event.delta for event in exchange.close()] == ["So"]  # type: ignore[union-attr]
        reply = exchange.assembler.reply("complete")
        assert (reply.text, reply.id, reply.finish_reason) == ("So", "c", "stop")
        counts = exchange.assembler.counts
        assert counts
        assert (counts.input_tokens, counts.output_tokens, counts.total_tokens) == (1, 2, 3)


@pytest.mark.parametrize("wire", BODIES)
@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b'{"a":1}',
        b'{"choices":5}',
        b"{",
        b'{"object":"response","status":"queued"}',
        b'{"type":"message","content":"So"}',
        b'{"type":"message_batch","content":[]}',
    ],
)
def test_json_that_is_no_answer_is_no_answer(wire: str, body: bytes) -> None:
    """JSON of another kind, or half of it, is refused when the body ends."""
    exchange = Exchange(wire, 1, None)
    exchange.feed(body)
    with pytest.raises(NotJSON):
        exchange.close()


@pytest.mark.parametrize("data", [b"<html>", b"\n <!doctype html>", b"\xef\xbb\xbf<html>"])
def test_a_web_page_is_refused_at_once(data: bytes) -> None:
    """A page instead of a stream is told at its first character."""
    with pytest.raises(NotJSON, match="web page"):
        Exchange("chat", 1, None).feed(data)


def test_a_json_body_has_a_limit() -> None:
    """A whole body is bounded like an event."""
    exchange = Exchange("chat", 1, None, limits=Limits(event=100))
    exchange.feed(b"{" + b" " * 99)
    with pytest.raises(LimitExceeded):
        exchange.feed(b" ")


def test_over_and_done_tell_a_driver_when_to_stop() -> None:
    """Chat is over at its finish reason and done at its end marker, Messages at its stop reason and at
    message_stop; Responses is both at once."""
    exchange = Exchange("chat", 1, None)
    exchange.feed(CHAT.data[: CHAT.verdict["end"]])
    assert (exchange.over, exchange.done) == (True, False)
    exchange.feed(CHAT.data[CHAT.verdict["end"] :])
    assert (exchange.over, exchange.done) == (True, True)
    exchange = Exchange("messages", 1, None)
    exchange.feed(MESSAGES.data[: MESSAGES.verdict["end"]])
    assert (exchange.over, exchange.done) == (True, False)
    exchange.feed(MESSAGES.data[MESSAGES.verdict["end"] :])
    assert (exchange.over, exchange.done) == (True, True)
    exchange = Exchange("responses", 1, None)
    exchange.feed(RESPONSES.data[: RESPONSES.verdict["end"] - 1])
    assert (exchange.over, exchange.done) == (False, False)
    exchange.feed(RESPONSES.data[RESPONSES.verdict["end"] - 1 :])
    assert (exchange.over, exchange.done) == (True, True)


def test_a_broken_event_ends_the_reading_at_once() -> None:
    """What came before it in the same read is delivered, nothing is waited for, and the close says why."""
    exchange = Exchange("chat", 1, Gate(Said()))
    events = exchange.feed(TEXT + b"data: {nonsense\n\n" + TEXT)
    assert [event.delta for event in events] == ["So"]  # type: ignore[union-attr]
    assert (exchange.over, exchange.done) == (True, True)
    with pytest.raises(NotJSON):
        exchange.close()


def test_only_output_is_progress() -> None:
    """Keep-alives, lifecycle events and empty deltas do not count; text does, once."""
    exchange = Exchange("chat", 1, None)
    exchange.feed(b': ping\n\ndata: {"id":"x","choices":[{"index":0,"delta":{"content":""}}]}\n\n')
    assert not exchange.has_progressed()
    exchange.feed(TEXT)
    assert exchange.has_progressed()
    assert not exchange.has_progressed()
    exchange = Exchange("responses", 1, None)
    exchange.feed(
        b'data: {"type":"response.created","response":{"id":"r"}}\n\ndata: {"type":"keepalive"}\n\n'
    )
    assert not exchange.has_progressed()
    exchange = Exchange("messages", 1, None)
    exchange.feed(
        b'data: {"type":"message_start","message":{}}\n\ndata: {"type":"ping"}\n\n'
        b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
    )
    assert not exchange.has_progressed()


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({}, ""),
        ({"x-request-id": "a", "cf-ray": "b"}, "a"),
        ({"cf-ray": "b"}, "b"),
        ({"x-request-id": "x" * 500}, "x" * 200),
    ],
)
def test_the_request_id_is_the_providers(headers: dict[str, str], request_id: str) -> None:
    """The best known id header is kept, bounded."""
    exchange = Exchange("chat", 1, None)
    exchange.opened(headers)
    assert exchange.request_id == request_id


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compression_nobody_asked_for_is_undone(coding: str) -> None:
    """A stream that a proxy compressed is read as if it had not, in whatever pieces it comes."""
    data = gzip.compress(CHAT.data) if coding == "gzip" else zlib.compress(CHAT.data)
    for chunks in ([data], one_by_one(data)):
        exchange = Exchange("chat", 1, None)
        exchange.opened({"content-encoding": coding.upper()})
        for chunk in chunks:
            exchange.feed(chunk)
        assert exchange.assembler.reply("complete").text == CHAT.expect["text"]


def test_other_codings_are_refused() -> None:
    """An unknown coding, or bytes that are not in theirs, are a typed failure; identity is none."""
    with pytest.raises(BadCoding):
        Exchange("chat", 1, None).opened({"content-encoding": "br"})
    exchange = Exchange("chat", 1, None)
    exchange.opened({"content-encoding": "gzip"})
    with pytest.raises(BadCoding):
        exchange.feed(b"data: plain\n\n")
    Exchange("chat", 1, None).opened({"content-encoding": "identity"})
