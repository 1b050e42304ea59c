"""Server-sent events by WHATWG HTML 9.2.6, however the bytes are cut.

The vectors are those of web-platform-tests eventsource/format-* (from memory, as data) and our own for what
these leave out.
"""

import random
import time

import pytest

from sidestream.wire.sse import Decoder, LimitExceeded, Limits, ServerSentEvent
from streams import ALL, Stream, halves, one_by_one, pieces

BOM = b"\xef\xbb\xbf"
LONG = b"x" * 2048


def m(data: str | bytes, kind: str = "message", last_id: str = "") -> tuple[str, bytes, str]:
    return kind, data.encode() if isinstance(data, str) else data, last_id


# name -> (bytes, events as (type, data, last event id))
VECTORS: dict[str, tuple[bytes, list[tuple[str, bytes, str]]]] = {
    # web-platform-tests
    "bom": (BOM + b"data:1\n\n" + BOM + b"data:2\n\ndata:3\n\n", [m("1"), m("3")]),
    "bom-2": (BOM + BOM + b"data:1\n\ndata:2\n\ndata:3\n\n", [m("2"), m("3")]),
    "comments": (
        b"data:1\r:\0\n:\r\ndata:2\n:" + LONG + b"\rdata:3\n:data:fail\r:" + LONG + b"\ndata:4\n\n",
        [m("1\n2\n3\n4")],
    ),
    "data-before-final-empty-line": (b"retry:1000\ndata:test1\n\nid:test\ndata:test2", [m("test1")]),
    "field-data": (b"data:\n\ndata\ndata\n\ndata:test\n\n", [m(""), m("\n"), m("test")]),
    "field-event": (b"event:test\ndata:x\n\ndata:x\n\n", [m("x", "test"), m("x")]),
    "field-event-empty": (b"event: \ndata:data\n\n", [m("data")]),
    "field-id": (b"id: 1\ndata:a\n\ndata:b\n\n", [m("a", last_id="1"), m("b", last_id="1")]),
    "field-id-reset": (b"id:1\ndata:a\n\nid\ndata:b\n\ndata:c\n\n", [m("a", last_id="1"), m("b"), m("c")]),
    "field-id-null": (
        b"id:1\0\ndata:a\n\nid:2\ndata:b\n\nid:\0\ndata:c\n\n",
        [m("a"), m("b", last_id="2"), m("c", last_id="2")],
    ),
    "field-parsing": (
        (
            b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n"
            b" data:32\ndata:4\n\n"
        ),
        [m("\0\n 2\n1\n3\n\n4")],
    ),
    "field-retry": (b"retry:3000\ndata:x\n\n", [m("x")]),
    "field-retry-bogus": (b"retry:3000\nretry:1000x\ndata:x\n\n", [m("x")]),
    "field-retry-empty": (b"retry\ndata:test\n\n", [m("test")]),
    "field-unknown": (
        b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\n\n",
        [m("test\n")],
    ),
    "leading-space": (b"data:\ttest\rdata: \ndata:test\n\n", [m("\ttest\n\ntest")]),
    "newlines": (b"data:test\r\ndata\ndata:test\r\n\r\n", [m("test\n\ntest")]),
    "null-character": (b"data:\0\n\n\n\n", [m("\0")]),
    "utf-8": ("data:ok\u2026\n\n".encode(), [m("ok\u2026")]),
    # line ends
    "lone-cr": (b"data:1\r\rdata:2\r\rdata:3\n\n", [m("1"), m("2"), m("3")]),
    "crlf": (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [m("1"), m("2")]),
    "cr-after-lf": (b"data: 1\n\n\rdata: 2\n\r\n\r\r\ndata: 3\r\n\n", [m("1"), m("2"), m("3")]),
    "mixed-in-one-event": (b"event: e\rdata: 1\ndata: 2\r\ndata: 3\r\r", [m("1\n2\n3", "e")]),
    "late-cr": (b"data: 1\n\nevent: x\ndata: 2\r\n\r\ndata: 3\n\n", [m("1"), m("2", "x"), m("3")]),
    "many-blank-lines": (b"\n\n\n\r\r\n\r\ndata: 1\n\n\n\n\n\ndata: 2\n\n\n", [m("1"), m("2")]),
    "many-lf": (b"\n\n\ndata: 1\n\n\n\n\n\ndata: 2\n\n\n", [m("1"), m("2")]),
    "no-line-end-but-cr-lf": (
        "data: a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei\n\n".encode(),
        [m("a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei")],
    ),
    # fields
    "one-space-only": (b"data:  two\n\ndata: one\n\ndata:none\n\n", [m(" two"), m("one"), m("none")]),
    "colon-in-value": (b"data: a: b:c\n\n", [m("a: b:c")]),
    "leading-space-in-name": (b" data: no\n\ndata: yes\n\n", [m("yes")]),
    "upper-case-name": (b"DATA: no\nEvent: no\ndata: yes\n\n", [m("yes")]),
    "lone-colon-is-a-comment": (b":\n\n:\ndata: x\n:\n\n", [m("x")]),
    "comment-with-data": (b": data: no\n\n:ping\n\ndata: yes\n\n", [m("yes")]),
    "event-empty-with-space": (b"event: \ndata: x\n\n", [m("x")]),
    "event-empty": (b"event:\ndata: x\n\nevent\ndata: y\n\n", [m("x"), m("y")]),
    "event-last-wins": (b"event: a\nevent: b\ndata: x\n\n", [m("x", "b")]),
    "event-after-data": (b"data: x\nevent: late\n\n", [m("x", "late")]),
    "event-without-data-is-reset": (b"event: gone\n\ndata: x\n\n", [m("x")]),
    "event-with-two-spaces": (b"event:  a\ndata: x\n\n", [m("x", " a")]),
    "event-not-ascii": ("event: \u00fc\ndata: x\n\n".encode(), [m("x", "\u00fc")]),
    "data-alone": (b"data\n\n", [m("")]),
    "data-empty-lines": (b"data:\ndata:\n\n", [m("\n")]),
    "data-trailing-newline": (b"data: a\ndata:\n\n", [m("a\n")]),
    "fast-shape-with-third-line": (b"event: e\ndata: 1\ndata: 2\n\n", [m("1\n2", "e")]),
    "data-then-unknown": (b"data: 1\nfoo: bar\n\n", [m("1")]),
    "id-alone-does-not-dispatch": (b"id: 7\n\ndata: x\n\n", [m("x", last_id="7")]),
    "retry-alone-does-not-dispatch": (b"retry: 7\n\ndata: x\n\n", [m("x")]),
    "id-with-event": (
        b"id: 7\nevent: e\ndata: x\n\nevent: f\ndata: y\n\n",
        [m("x", "e", "7"), m("y", "f", "7")],
    ),
    # bytes
    "invalid-utf-8": (b"data: \xff\xc3(\n\n", [m(b"\xff\xc3(")]),
    "torn-utf-8": (b"data: \xe2\x82\n\ndata: x\n\n", [m(b"\xe2\x82"), m("x")]),
    "bom-inside-data": (b"data: " + BOM + b"\n\n", [m(BOM)]),
    "half-a-bom": (BOM[:2] + b"data: no\ndata: yes\n\n", [m("yes")]),
    "bom-then-cr": (BOM + b"\rdata: x\n\n", [m("x")]),
    "bom-alone": (BOM, []),
    "nothing": (b"", []),
    # the end of the body
    "torn-event": (b"data: 1\n\ndata: 2\n", [m("1")]),
    "torn-line": (b"data: 1\n\ndata: 2", [m("1")]),
    "torn-crlf": (b"data: 1\r\n\r\ndata: 2\r\n", [m("1")]),
    "cr-dispatches-before-its-lf": (b"data: 1\r\n\r", [m("1")]),
}


def decode(chunks: list[bytes] | tuple[bytes, ...], **options: bool) -> list[ServerSentEvent]:
    decoder = Decoder(**options)
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@pytest.mark.parametrize("name", VECTORS)
def test_vector_decodes_as_the_standard_says(name: str) -> None:
    """Each vector gives exactly the events the standard gives."""
    data, events = VECTORS[name]
    assert [(event.type, event.data, event.id) for event in decode([data])] == events


@pytest.mark.parametrize("name", VECTORS)
def test_cutting_a_vector_changes_nothing(name: str, rng: random.Random) -> None:
    """Every two-way split, single bytes and random pieces give the events of the whole, raw included."""
    assert_cutting_changes_nothing(VECTORS[name][0], rng)


@pytest.mark.parametrize("stream", ALL, ids=lambda stream: stream.name)
def test_cutting_a_recorded_stream_changes_nothing(stream: Stream, rng: random.Random) -> None:
    """Every recorded stream decodes to the same events however it is cut, raw bytes included."""
    assert_cutting_changes_nothing(stream.data, rng)


def at_sight(chunks: list[bytes]) -> list[ServerSentEvent]:
    """The same, as far as possible without looking for the end of an event."""
    decoder, found = Decoder(), []
    for chunk in chunks:
        data = decoder.alike(chunk)
        found += decoder.feed(chunk) if data is None else [decoder.event(data, chunk)]
    return found


def assert_cutting_changes_nothing(data: bytes, rng: random.Random) -> None:
    whole = decode([data])
    ends = [at + 2 for at in range(len(data)) if data[at : at + 2] == b"\n\n"]
    events = [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True) if a < b]
    assert at_sight(events) == whole
    assert all(at_sight(pieces(data, rng)) == whole for _ in range(20))
    assert decode(one_by_one(data)) == whole
    for cut in halves(data):
        assert decode(cut) == whole, f"cut at {len(cut[0])}"
    for _ in range(100):
        cut = pieces(data, rng)
        assert decode(cut) == whole, [len(piece) for piece in cut]


def test_random_soup_decodes_the_same_however_it_is_cut(rng: random.Random) -> None:
    """Random mixes of fields, line ends and marks never depend on where they were cut."""
    atoms = [
        b"\n",
        b"\r",
        b"\r\n",
        b"data: a",
        b"data",
        b":c",
        b"event: e",
        b"id: 1",
        b"\0",
        BOM,
        b" ",
        b"\xe2",
    ]
    for _ in range(1500):
        data = b"".join(rng.choices(atoms, k=rng.randrange(14)))
        whole = decode([data])
        assert decode(one_by_one(data)) == whole, data
        assert decode(pieces(data, rng)) == whole, data


@pytest.mark.parametrize("stream", ALL, ids=lambda stream: stream.name)
def test_raw_bytes_are_the_stream_itself(stream: Stream) -> None:
    """Raw bytes come in order, never overlap, and hold all that was dispatched: decoded again they say it."""
    events = decode([stream.data])
    at = 0
    for event in events:
        at = stream.data.index(event.raw, at) + len(event.raw)
    again = decode([b"".join(event.raw for event in events)])
    assert [(event.type, event.data, event.raw) for event in again] == [
        (event.type, event.data, event.raw) for event in events
    ]


def test_raw_of_a_plain_stream_leaves_no_byte_out() -> None:
    """In a stream with line feeds only and no lone comments, all raw bytes together are the stream."""
    data = b"event: a\ndata: 1\n\ndata: 2\n\nid: 3\ndata: 3\n\n: c\ndata: 4\ndata: 5\n\n"
    assert b"".join(event.raw for event in decode([data])) == data


def test_text_replaces_what_is_not_utf8() -> None:
    """Invalid bytes become U+FFFD in the text and stay as they were in the data."""
    (event,) = decode([b"data: a\xffb\xe2\x82\n\n"])
    assert (event.text, event.data) == ("a\ufffdb\ufffd", b"a\xffb\xe2\x82")


@pytest.mark.parametrize(
    ("field", "retry"),
    [
        (b"retry: 1000", 1000),
        (b"retry:0", 0),
        (b"retry", None),
        (b"retry: -5", None),
        (b"retry: 1e3", None),
        (b"retry: 10 ", None),
        ("retry: \u0661".encode(), None),
        (b"retry: 99999999999999999999", None),
    ],
)
def test_retry_takes_ascii_digits_only(field: bytes, retry: int | None) -> None:
    """`retry` counts only if all of it is ASCII digits, and no absurd number is kept."""
    decoder = Decoder()
    assert decoder.feed(field + b"\n\n") == []
    assert decoder.retry_ms == retry


def test_pending_tells_that_something_was_torn_off() -> None:
    """What came after the last event is told, and is empty after a whole one."""
    for end in (b"\n", b"\r\n", b"\r"):
        decoder = Decoder()
        decoder.feed(b"data: 1" + end + end)
        assert decoder.pending == b""
        decoder.feed(b"data: 2" + end + b"dat")
        assert decoder.pending == b"data: 2" + end + b"dat"


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["lf", "cr", "crlf"])
def test_error_field_is_an_event_only_when_asked_for(end: bytes) -> None:
    """llama.cpp's old `error:` line is an error event with the option, and nothing without it."""
    data = b'error: {"code":500}' + end + end + b"data: x" + end + end
    assert [(event.type, event.data) for event in decode([data])] == [("message", b"x")]
    for cut in ([data], one_by_one(data)):
        events = decode(cut, error_field=True)
        assert [(event.type, event.data) for event in events] == [
            ("error", b'{"code":500}'),
            ("message", b"x"),
        ]


# Limits.

LINE_ENDS = pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["lf", "cr", "crlf"])


def refuses(limits: Limits, data: bytes) -> set[str]:
    """What is too large when `data` comes whole, by bytes and in every two halves; "" if nothing."""
    said: set[str] = set()
    for chunks in ([data], one_by_one(data), *halves(data)):
        decoder = Decoder(limits)
        try:
            for chunk in chunks:
                decoder.feed(chunk)
            said.add("")
        except LimitExceeded as error:
            said.add(error.what)
    return said


@LINE_ENDS
def test_a_line_at_its_limit_passes_and_a_byte_more_does_not(end: bytes) -> None:
    """The line limit counts the line without its end, however the body is cut."""
    limits = Limits(line=20)
    assert refuses(limits, b"data: 12345678901234" + end + end) == {""}
    assert refuses(limits, b"data: 123456789012345" + end + end) == {"line"}
    assert refuses(limits, b":" + b"c" * 20 + end + b"data: x" + end + end) == {"line"}


@pytest.mark.parametrize("end", [b"\n", b"\r"], ids=["lf", "cr"])
def test_an_event_at_its_limit_passes_and_a_byte_more_does_not(end: bytes) -> None:
    """The event limit counts all bytes from its first line to its blank line, however the body is cut."""
    data = b"data: 1234" + end + b"data: 5678" + end + end
    assert refuses(Limits(event=len(data)), data + data) == {""}
    assert refuses(Limits(event=len(data) - 1), data + data) == {"event"}


def test_comments_without_end_are_too_large_in_the_end() -> None:
    """A flood of comment lines that never dispatches is given up at the event limit."""
    assert refuses(Limits(event=1000), b": keep-alive\n" * 200) == {"event"}


def test_a_body_at_its_limit_passes_and_a_byte_more_does_not() -> None:
    """The total counts every byte of the body, BOM and comments included."""
    data = BOM + b"data: x\n\n: c\n\n"
    assert refuses(Limits(total=len(data)), data) == {""}
    assert refuses(Limits(total=len(data) - 1), data) == {"body"}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_a_legal_15_mib_event_passes_in_linear_time(end: bytes) -> None:
    """A 15 MiB event in 16 KiB reads is legal and takes no more than a moment."""
    data = b"event: image" + end + b"data: " + b"x" * (15 * 1024 * 1024) + end + end
    started = time.process_time()
    events = decode([data[at : at + 16384] for at in range(0, len(data), 16384)])
    assert [len(event.data) for event in events] == [15 * 1024 * 1024]
    assert time.process_time() - started < 2


@LINE_ENDS
def test_an_event_of_very_many_lines_takes_linear_time(end: bytes) -> None:
    """An event of 400,000 short lines in small reads takes no more than a moment."""
    data = (b"data: x" + end) * 400_000 + end
    started = time.process_time()
    events = decode([data[at : at + 1024] for at in range(0, len(data), 1024)])
    assert [len(event.data) for event in events] == [799_999]
    assert time.process_time() - started < 4
