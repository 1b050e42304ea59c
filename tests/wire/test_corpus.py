"""Every recorded stream gives its verdict, whatever the cut.

Whole streams and single bytes go through the flow itself; two-way splits go through the two decoders, which
is where a cut could matter.
"""

import importlib.util
from types import ModuleType
from typing import Any

import pytest
from msgspec.structs import replace

from sidestream.assembler import Assembler
from sidestream.errors import CallFailed, Refused
from sidestream.recovery.flow import Send, flow
from sidestream.recovery.policy import Policy
from sidestream.reply import Reply
from sidestream.wire.events import Event, ReasoningDelta, Restarted, StreamEvent, TextDelta
from sidestream.wire.sse import Decoder, ServerSentEvent
from streams import ALL, BROKEN, CORPUS, GOOD, WIRES, Stream, attempt, halves, one_by_one

ids = {"ids": lambda stream: stream.name}
cuts = pytest.mark.parametrize("cut", [lambda data: [data], one_by_one], ids=["whole", "bytes"])


def play(stream: Stream, chunks: list[bytes]) -> tuple[Reply | CallFailed, list[StreamEvent], Assembler]:
    """One attempt and no recovery: the reply or the error, what a live consumer saw, and the assembler."""
    story = flow(stream.call(live=True, policy=Policy(recoveries=0)), now=0, unix_time=0, random=lambda: 0.0)
    send = next(story)
    assert isinstance(send, Send)
    seen, outcome = attempt(send.exchange, chunks)
    try:
        story.send(outcome)
    except StopIteration as end:
        return end.value, seen, send.exchange.assembler
    except CallFailed as error:
        return error, seen, send.exchange.assembler
    raise AssertionError("an attempt without recovery is the last action")


def facts(reply: Reply) -> dict[str, Any]:
    """A reply in the words of a verdict."""
    names = ("status", "text", "commentary", "reasoning", "refusal", "id", "model", "finish_reason")
    usage, counts = reply.usage, ("input_tokens", "output_tokens", "total_tokens")
    is_reported = usage is not None and usage.confidence == "reported"
    reported = {name: getattr(usage, name) for name in counts} if is_reported else None
    return {name: getattr(reply, name) for name in names} | {
        "tool_calls": [
            {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}
            for call in reply.tool_calls
        ],
        "usage": reported,
        "texts": list(reply.texts),
    }


@cuts
@pytest.mark.parametrize("stream", GOOD, **ids)
def test_good_stream_gives_its_reply(stream: Stream, cut: Any) -> None:
    """A stream that ends as it should gives the reply of its verdict, and so do its single bytes."""
    ended, seen, assembler = play(stream, cut(stream.data))
    reply = ended.reply if isinstance(ended, Refused) else ended
    assert isinstance(reply, Reply)
    assert facts(reply) == {"texts": [stream.expect["text"]]} | stream.expect
    said = [e.delta for e in seen if isinstance(e, TextDelta) and assembler.choice_of(e.index) == 0]
    assert "".join(said) == stream.expect["text"]
    assert not any(isinstance(event, Restarted) for event in seen)


@pytest.mark.parametrize("stream", GOOD, **ids)
def test_good_stream_is_over_exactly_where_its_verdict_says(stream: Stream) -> None:
    """The wire has said its end at the verdict's byte and not one byte before."""
    for at, over in ((stream.verdict["end"] - 1, False), (stream.verdict["end"], True)):
        decoder = WIRES[stream.wire].Decoder(stream.choices)
        decoder.feed(Decoder().feed(stream.data[:at]))
        assert decoder.over is over


@cuts
@pytest.mark.parametrize("stream", BROKEN, **ids)
def test_broken_stream_gives_its_fault(stream: Stream, cut: Any) -> None:
    """A broken stream is never complete: it gives the fault, the code and the partial text of its verdict."""
    error, _, _ = play(stream, cut(stream.data))
    assert isinstance(error, CallFailed)
    assert (error.fault.kind.word, error.fault.code) == (stream.expect["fault"], stream.expect["code"])
    assert error.reply is not None
    assert error.reply.text == stream.verdict["text"]
    assert error.reply.status != "complete"
    assert not error.reply.tool_calls


@pytest.mark.parametrize("stream", ALL, **ids)
def test_every_two_way_split_decodes_to_the_same_events(stream: Stream) -> None:
    """Cut at any byte, both decoders together give the events of the whole stream.

    The first decoder is run for every cut; the second for every way in which a cut parts the frames.
    """
    if stream.name in ("broken/chat-json-error", "broken/chat-html"):
        return  # no server-sent events at all: these never reach a decoder of frames
    whole = Decoder(error_field=True).feed(stream.data)
    parted: set[int] = set()
    for first, second in halves(stream.data):
        decoder = Decoder(error_field=True)
        before = decoder.feed(first)
        assert before + decoder.feed(second) == whole
        parted.add(len(before))
    expected = events(stream, [whole])
    for count in parted:
        assert events(stream, [whole[:count], whole[count:]]) == expected


@pytest.mark.parametrize("stream", ALL, **ids)
def test_the_next_piece_of_a_text_says_what_its_event_says(stream: Stream) -> None:
    """Text that is read without making an event of it leaves the decoder as the event would."""
    if stream.name in ("broken/chat-json-error", "broken/chat-html"):
        return
    plain, quick = (WIRES[stream.wire].Decoder(stream.choices) for _ in range(2))
    last: Event | None = None
    for frame in Decoder(error_field=True, blanks=True).feed(stream.data):
        expected, found = plain.feed([frame]), []
        goes_on = isinstance(last, (TextDelta, ReasoningDelta)) and not quick.over
        if goes_on and frame.type != "error" and (text := quick.piece(frame.data)):
            found = [replace(last, delta=text)]
        else:
            found = quick.feed([frame])
        assert found == expected
        assert (quick.over, quick.cursor, str(quick.broken)) == (plain.over, plain.cursor, str(plain.broken))
        last = found[-1] if found else last


def events(stream: Stream, batches: list[list[ServerSentEvent]]) -> tuple[list[Event], str]:
    """What the wire's decoder makes of these batches of frames, and the exception that ended it, if any."""
    decoder = WIRES[stream.wire].Decoder(stream.choices)
    found: list[Event] = []
    try:
        for batch in batches:
            for frame in batch:
                found += decoder.feed([frame])
        found += decoder.close()
    except ValueError as error:
        return found, type(error).__name__
    return found, ""


@pytest.mark.parametrize("stream", GOOD, **ids)
def test_nothing_counts_after_the_last_word(stream: Stream) -> None:
    """Whether more frames come in the same read as the end or later, the reply is the same."""
    tail = {
        "chat": b'data: {"choices":[{"index":0,"delta":{"content":"MORE"},"finish_reason":null}]}\n\n',
        "responses": b'data: {"type":"response.output_text.delta","delta":"MORE"}\n\n',
        "messages": b'data: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"MORE"}}\n\n',
    }
    done = b"data: [DONE]\n\n" if stream.wire == "chat" else b""
    plain, _, _ = play(stream, [stream.data])
    together, _, _ = play(stream, [stream.data + done + tail[stream.wire] * 2])
    reply = [ended.reply if isinstance(ended, Refused) else ended for ended in (plain, together)]
    assert facts(reply[0]) == facts(reply[1])


def test_corpus_is_what_its_maker_makes() -> None:
    """make.py reproduces every file byte for byte, and there is no other."""
    there = {
        str(path.relative_to(CORPUS)): path.read_bytes()
        for path in CORPUS.glob("*/*.*")
        if path.suffix in (".sse", ".json")
    }
    assert there == maker().build()


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("corpus_make", CORPUS / "make.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
