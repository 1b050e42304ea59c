"""Exactly once: what a live consumer has is always the beginning of one answer, never of two.

A `Consumer` does what a program does: it appends, and forgets everything at `Restarted`. Answers are small
(an alphabet of two letters), so that new streams agree with old ones for a while and then do not.
"""

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream.recovery.delivery import Gate, Said
from sidestream.recovery.exchange import Exchange
from sidestream.wire.events import (
    CommentaryDelta,
    ReasoningDelta,
    RefusalDelta,
    Restarted,
    StreamEvent,
    TextDelta,
    ToolCall,
)

CHANNELS = {
    TextDelta: "text",
    CommentaryDelta: "commentary",
    ReasoningDelta: "reasoning",
    RefusalDelta: "refusal",
}
JSON = dict[str, Any]


class Consumer:
    """What a program that reads along has on its screen, by (channel, choice)."""

    def __init__(self) -> None:
        self.view: dict[tuple[str, int], str] = {}
        self.calls: list[ToolCall] = []
        self.restarts = 0

    def take(self, events: Iterable[StreamEvent], exchange: Exchange) -> None:
        for event in events:
            if isinstance(event, Restarted):
                self.view, self.calls = {}, []
                self.restarts += 1
            elif isinstance(event, ToolCall):
                self.calls.append(event)
            else:
                key = (CHANNELS[type(event)], exchange.assembler.choice_of(event.index))  # type: ignore[union-attr,index]
                self.view[key] = self.view.get(key, "") + event.delta  # type: ignore[union-attr]


@dataclass(frozen=True)
class Part:
    """One item of an answer. `done` is the text its finished item has; None leaves the item unfinished."""

    channel: str
    pieces: tuple[str, ...]
    done: str | None = None

    @property
    def text(self) -> str:
        return self.done or "".join(self.pieces)


@dataclass(frozen=True)
class Answer:
    """A Responses stream, as the frames it is made of."""

    parts: tuple[Part, ...]

    def frames(self) -> list[bytes]:
        events = [event for at, part in enumerate(self.parts) for event in said_by(at, part)]
        events.append({"type": "response.completed", "response": {"id": "r", "status": "completed"}})
        return [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]

    def channels(self) -> dict[tuple[str, int], str]:
        found: dict[tuple[str, int], str] = {}
        for part in self.parts:
            if part.channel != "call" and part.text:
                found[part.channel, 0] = found.get((part.channel, 0), "") + part.text
        return found

    def calls(self) -> list[str]:
        return [part.text for part in self.parts if part.channel == "call"]


def said_by(at: int, part: Part) -> list[JSON]:
    where = {"item_id": f"item_{at}", "output_index": at}
    if part.channel == "call":
        item = {
            "type": "custom_tool_call",
            "id": f"item_{at}",
            "call_id": f"c{at}",
            "name": "f",
            "input": part.text,
        }
        return [{"type": "response.output_item.done", "output_index": at, "item": item}]
    kinds = {"reasoning": "response.reasoning_summary_text.delta", "refusal": "response.refusal.delta"}
    kind = kinds.get(part.channel, "response.output_text.delta")
    item = {"type": "reasoning" if part.channel == "reasoning" else "message", "id": f"item_{at}"}
    if part.channel == "commentary":
        item["phase"] = "commentary"
    events: list[JSON] = [{"type": "response.output_item.added", "output_index": at, "item": item}]
    events += [{"type": kind, **where, "delta": piece} for piece in part.pieces]
    if part.done is not None:
        content = (
            {"type": "refusal", "refusal": part.done} if part.channel == "refusal" else {"text": part.done}
        )
        name = "summary" if part.channel == "reasoning" else "content"
        item = item | {"status": "completed", name: [content]}
        events.append({"type": "response.output_item.done", "output_index": at, "item": item})
    return events


words = st.text("ab", max_size=6)


def chunked(draw: st.DrawFn, text: str) -> tuple[str, ...]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return tuple(text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True))


@st.composite
def parts(draw: st.DrawFn) -> Part:
    channel = draw(st.sampled_from(["text", "text", "commentary", "reasoning", "refusal", "call"]))
    text = draw(words)
    if channel == "call":
        return Part("call", (), text)
    # The finished item says the same, more, something else, or never comes. Reasoning is what its deltas say.
    more = "" if channel == "reasoning" else draw(words)
    done = draw(st.sampled_from([None, text, text + more, more if channel != "reasoning" else text]))
    return Part(channel, chunked(draw, text), done)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    return Answer(tuple(draw(st.lists(parts(), max_size=4))))


@st.composite
def retellings(draw: st.DrawFn, answer: Answer) -> Answer:
    """Another stream: the same in other pieces, shorter, longer, diverging somewhere, or quite another."""
    kind = draw(st.sampled_from(["same", "shorter", "longer", "other part", "another"]))
    told = [Part(p.channel, chunked(draw, "".join(p.pieces)), p.done) for p in answer.parts]
    if kind == "another":
        return draw(answers())
    if kind == "shorter" and told:
        del told[draw(st.integers(0, len(told) - 1)) :]
    if kind == "longer":
        told += draw(st.lists(parts(), min_size=1, max_size=2))
    if kind == "other part" and told:
        told[draw(st.integers(0, len(told) - 1))] = draw(parts())
    return Answer(tuple(told))


@dataclass
class Attempts:
    """Streams one after the other into the same consumer, each cut somewhere but the last."""

    consumer: Consumer = field(default_factory=Consumer)
    said: Said = field(default_factory=Said)
    streams: list[Answer] = field(default_factory=list)

    def read(self, answer: Answer, chunks: Iterable[bytes]) -> Exchange:
        self.streams.append(answer)
        exchange = Exchange("responses", 1, Gate(self.said))
        for chunk in chunks:
            self.consumer.take(exchange.feed(chunk), exchange)
            self.check()
        self.consumer.take(exchange.close(), exchange)
        self.check()
        assert exchange.gate is not None
        self.said = exchange.gate.said(exchange.assembler)
        return exchange

    def check(self) -> None:
        """No channel holds what no single stream began with."""
        for (channel, _), text in self.consumer.view.items():
            beginnings = [begun for stream in self.streams for begun in told(stream, channel)]
            assert any(begun.startswith(text) for begun in beginnings), (channel, text)


def told(stream: Answer, channel: str) -> list[str]:
    """All that a channel of this stream may read at some time: each item's deltas, or its finished text."""
    found = [""]
    for part in stream.parts:
        if part.channel == channel:
            found = [said + text for said in found for text in {"".join(part.pieces), part.text}]
    return found


def cut(data: bytes, seed: int) -> list[bytes]:
    rng = random.Random(seed)
    cuts = sorted(rng.choices(range(len(data) + 1), k=rng.randrange(1, 20)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(st.data())
def test_consumer_ends_with_the_reply_and_never_with_a_mixture(data: st.DataObject) -> None:
    """After any number of cut streams and a whole one, each channel of the consumer is that of the reply."""
    attempts = Attempts()
    answer = data.draw(answers(), "first")
    for _ in range(data.draw(st.integers(1, 3), "cuts")):
        frames = answer.frames()
        kept = b"".join(frames[: data.draw(st.integers(0, len(frames) - 1), "frames before the cut")])
        attempts.read(answer, cut(kept, data.draw(st.integers(0, 2**32), "chunking")))
        answer = data.draw(retellings(answer), "next")
    whole = b"".join(answer.frames())
    exchange = attempts.read(answer, cut(whole, data.draw(st.integers(0, 2**32), "chunking")))
    consumer, assembler = attempts.consumer, exchange.assembler
    assert consumer.view == assembler.channels() == answer.channels()
    assert tuple(consumer.calls) == assembler.calls()
    assert [call.arguments for call in consumer.calls] == answer.calls()


@given(st.data())
def test_restarted_exactly_when_the_new_stream_differs(data: st.DataObject) -> None:
    """A consumer is told if and only if what it has is not how the new answer begins."""
    first, second = Attempts(), data.draw(answers(), "answer")
    plain = Answer(
        tuple(Part(p.channel, p.pieces or (p.text,), None if p.pieces else p.done) for p in second.parts)
    )
    frames = plain.frames()
    kept = b"".join(frames[: data.draw(st.integers(0, len(frames) - 1), "frames before the cut")])
    first.read(plain, [kept])
    has, calls = dict(first.consumer.view), list(first.consumer.calls)
    after = data.draw(retellings(plain), "next")
    after = Answer(tuple(Part(p.channel, (p.text,), p.done and p.text) for p in after.parts))
    first.read(after, cut(b"".join(after.frames()), data.draw(st.integers(0, 2**32), "chunking")))
    now = after.channels()
    same = all(now.get(key, "").startswith(text) for key, text in has.items())
    same = same and first.consumer.calls[: len(calls)] == calls
    if first.consumer.restarts == 0:
        assert same
    else:
        assert first.consumer.restarts == 1
        assert not same or differs_in_call(plain, after)


def differs_in_call(one: Answer, two: Answer) -> bool:
    """Whether the calls of two answers differ in anything, their place in the stream included."""
    return [(at, p) for at, p in enumerate(one.parts) if p.channel == "call"] != [
        (at, p) for at, p in enumerate(two.parts) if p.channel == "call"
    ]


BASE = Answer((Part("text", ("Hello ", "world")),))


def after_cut(second: Answer, delivered: int = 2) -> Consumer:
    """The consumer of `BASE` cut after so many deltas, and then of all of `second`."""
    attempts = Attempts()
    attempts.read(BASE, BASE.frames()[: 1 + delivered])
    attempts.read(second, second.frames())
    return attempts.consumer


@pytest.mark.parametrize("at", range(12))
def test_divergence_at_every_character_is_told(at: int) -> None:
    """Whichever character is another, the consumer is told and has the new answer whole."""
    text = "Hello world"
    other = text[:at] + "#" + text[at + 1 :] + "!"
    consumer = after_cut(Answer((Part("text", tuple(other)),)))
    assert consumer.view == {("text", 0): other}
    assert consumer.restarts == (1 if at < len(text) else 0)


@pytest.mark.parametrize(
    ("second", "restarts"),
    [
        (("Hello world",), 0),
        (("Hello world, and more",), 0),
        (("H", "e", "llo wor", "ld!"), 0),
        (("Hello",), 1),
        (("Hello worl",), 1),
        ((), 1),
    ],
)
def test_same_longer_and_shorter_streams(second: tuple[str, ...], restarts: int) -> None:
    """The same or a longer answer goes on unseen; a shorter one is told when it ends."""
    consumer = after_cut(Answer((Part("text", second),)))
    assert consumer.view.get(("text", 0), "") == "".join(second)
    assert consumer.restarts == restarts


def test_a_finished_item_that_revises_a_matching_stream_is_told() -> None:
    """A second stream that matched so far and then takes its words back does not leave the old ones there."""
    consumer = after_cut(Answer((Part("text", ("Hello world", "!"), "Hallo world, well"),)))
    assert consumer.view == {("text", 0): "Hallo world, well"}
    assert consumer.restarts == 1


def test_a_call_already_given_is_not_given_again() -> None:
    """The same call in the new stream is swallowed; another one is told."""
    call, other = Part("call", (), "x"), Part("call", (), "y")
    for second, restarts in (((call, other), 0), ((other,), 1), ((), 1)):
        attempts = Attempts()
        attempts.read(Answer((call,)), Answer((call,)).frames()[:1])
        attempts.read(Answer(second), Answer(second).frames())
        assert [made.arguments for made in attempts.consumer.calls] == [part.text for part in second]
        assert attempts.consumer.restarts == restarts


def chat_frame(choice: int, text: str) -> bytes:
    body = {"choices": [{"index": choice, "delta": {"content": text}, "finish_reason": None}]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


@given(st.lists(st.tuples(st.integers(0, 1), words), max_size=8), st.data())
def test_alternatives_are_compared_one_by_one(deltas: list[tuple[int, str]], data: st.DataObject) -> None:
    """With n = 2 the alternatives may come interleaved in another way, and nothing is repeated or mixed."""
    consumer, first = Consumer(), Exchange("chat", 2, Gate(Said()))
    for choice, text in deltas[: data.draw(st.integers(0, len(deltas)))]:
        consumer.take(first.feed(chat_frame(choice, text)), first)
    assert first.gate is not None
    second = Exchange("chat", 2, Gate(first.gate.said(first.assembler)))
    told_by = {choice: "".join(text for at, text in deltas if at == choice) for choice in (0, 1)}
    order = data.draw(st.permutations([(c, piece) for c in (0, 1) for piece in [told_by[c]] if piece]))
    for choice, text in order:
        consumer.take(second.feed(chat_frame(choice, text)), second)
    end = [{"index": choice, "delta": {}, "finish_reason": "stop"} for choice in (0, 1)]
    body = b"data: " + json.dumps({"choices": end}).encode() + b"\n\ndata: [DONE]\n\n"
    consumer.take(second.feed(body), second)
    assert consumer.view == {("text", choice): text for choice, text in told_by.items() if text}
    assert consumer.restarts == 0


def test_covers_tells_whether_an_answer_could_end_here() -> None:
    """An attempt covers what was said once it has repeated all of it, and not before."""
    exchange = Exchange("chat", 1, Gate(Said({("text", 0): "ab"})))
    assert exchange.gate is not None
    assert not exchange.gate.covers(exchange.assembler)
    exchange.feed(chat_frame(0, "a"))
    assert not exchange.gate.covers(exchange.assembler)
    exchange.feed(chat_frame(0, "bc"))
    assert exchange.gate.covers(exchange.assembler)
    assert Gate(Said()).covers(exchange.assembler)
