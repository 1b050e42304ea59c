"""What a relay writes is a stream of its wire: one beginning, one end, and the answer of the uncut stream.

Every recorded stream is cut at every frame, then said again; the bytes that come out are read with the wire's
own decoder and checked against its grammar. Sockets and SDKs have their tests in tests/transport.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream.assembler import Assembler
from sidestream.errors import CallFailed
from sidestream.recovery.exchange import WIRES
from sidestream.recovery.faults import Fault, FaultKind
from sidestream.recovery.flow import Broke, Call, Ended, Outcome, Rejected, Send, Sleep, Tell, Woke, flow
from sidestream.recovery.policy import Backoff, Policy
from sidestream.relay import Original, Relay, relay_for
from sidestream.reply import Reply
from sidestream.wire.sse import Decoder
from streams import GOOD, Stream, attempt, pieces, route

FIELDS = {"responses": "input", "chat": "messages", "messages": "messages"}
DROPPED = Fault(FaultKind.DROPPED, "cut")
Bodies = list[tuple[list[bytes], Outcome | None]]


class Played:
    """A call under a client, played with these bodies: what its consumer got."""

    def __init__(
        self,
        stream: Stream,
        bodies: list[tuple[list[bytes], Outcome | None]],
        *,
        live: bool = True,
        **body: Any,
    ) -> None:
        asked = {
            "model": "m",
            "stream": True,
            FIELDS[stream.wire]: [{"role": "user", "content": "hi"}],
            **body,
        }
        self.relay: Relay = relay_for(stream.wire, asked, live=live)
        original = Original(json.dumps(asked).encode(), asked, FIELDS[stream.wire])
        policy = Policy(tries=len(bodies) + 1, backoff=Backoff(0, 0, 0))
        call = Call(
            stream.request,
            (route(stream.wire),),
            policy=policy,
            live=live,
            strict=True,
            original=original,
            relay=self.relay,
        )
        story = flow(call, now=0, unix_time=0, random=lambda: 0.0)
        self.data = b""
        self.sent: list[bytes] = []
        self.reply: Reply | None = None
        self.error: CallFailed | None = None
        try:
            self._play(story, iter(bodies))
        except StopIteration as end:
            self.reply = end.value
            self.data += self.relay.end(end.value, self.assembler) if live else b""
        except CallFailed as error:
            self.error = error

    def _play(self, story: Any, bodies: Iterator[tuple[list[bytes], Outcome | None]]) -> None:
        action, last = next(story), ([b""], None)
        while True:
            if isinstance(action, Sleep | Tell):
                action = story.send(Woke(1.0))
                continue
            assert isinstance(action, Send)
            self.sent.append(action.body)
            chunks, outcome = last = next(bodies, last)
            if isinstance(outcome, Rejected):
                action = story.send(outcome)
                continue
            self.assembler = action.exchange.assembler
            seen, came = attempt(action.exchange, chunks, outcome=outcome)
            self.data += b"".join(seen)  # type: ignore[arg-type]
            action = story.send(came)


def read(wire: str, data: bytes, choices: int = 1) -> Assembler:
    """The answer in a whole body, by the wire's own rules."""
    decoder, assembler = WIRES[wire].Decoder(choices), Assembler()
    for event in [*decoder.feed(Decoder(error_field=True).feed(data)), *decoder.close()]:
        assembler.push(event)
    return assembler


def facts(assembler: Assembler, *, ids: bool = True) -> object:
    """What an answer says. Reasoning apart: it may have been shown in part before the break."""
    assert assembler.finished is not None
    reply = assembler.reply("complete")
    calls = [
        (call.call_id if ids else "", call.name, call.arguments, call.choice) for call in reply.tool_calls
    ]
    finish = assembler.finished.reason or "stop"
    return reply.texts, reply.commentary, reply.refusal, calls, finish, assembler.finished.status


def frames(data: bytes) -> list[dict[str, Any]]:
    found = [frame.data for frame in Decoder().feed(data)]
    return [json.loads(each) for each in found if each.strip() and each != b"[DONE]"]


def frame_ends(data: bytes) -> list[int]:
    """Where the frames of a body end: its natural places to be cut."""
    return [at + 2 for at in range(len(data)) if data[at : at + 2] == b"\n\n"]


def check_grammar(wire: str, data: bytes) -> None:
    """One coherent stream, as a strict client wants it."""
    {"responses": responses_grammar, "chat": chat_grammar, "messages": messages_grammar}[wire](frames(data))


def responses_grammar(bodies: list[dict[str, Any]]) -> None:
    kinds = [body.get("type", "") for body in bodies]
    ends = [kind for kind in kinds if kind in ("response.completed", "response.incomplete", "response.done")]
    assert len(ends) == 1
    assert kinds.count("response.created") <= 1
    ids = {body["response"]["id"] for body in bodies if (body.get("response") or {}).get("id")}
    assert len(ids) <= 1
    last = next(body for body in bodies if body["type"] == ends[0])
    added = [b for b in bodies if b.get("type") == "response.output_item.added" and b.get("item")]
    done = {b.get("output_index") for b in bodies if b.get("type") == "response.output_item.done"}
    final = {item.get("id") for item in last["response"].get("output") or []}
    for body in added:
        assert body.get("output_index") in done or body["item"].get("id") in final


def chat_grammar(bodies: list[dict[str, Any]]) -> None:
    assert len({body["id"] for body in bodies if body.get("id")}) <= 1
    finishes = [
        (choice.get("index"), choice["finish_reason"])
        for body in bodies
        for choice in body.get("choices") or []
        if choice.get("finish_reason")
    ]
    assert len({index for index, _ in finishes}) == len(finishes)


def messages_grammar(bodies: list[dict[str, Any]]) -> None:
    kinds = [body.get("type") for body in bodies]
    assert kinds.count("message_start") == 1
    assert kinds.count("message_stop") <= 1
    open_block: int | None = None
    number = -1
    for body in bodies:
        if body.get("type") == "content_block_start":
            assert open_block is None
            number += 1
            assert body["index"] == number
            open_block = number
        elif body.get("type") == "content_block_delta":
            assert body["index"] == open_block
        elif body.get("type") == "content_block_stop":
            assert body["index"] == open_block
            open_block = None
    assert open_block is None


def shown_arguments(wire: str, data: bytes) -> list[str]:
    """The arguments of every call that these frames began, as far as they tell them."""
    told: dict[object, str] = {}
    for body in frames(data):
        if wire == "chat":
            for choice in body.get("choices") or []:
                for call in (choice.get("delta") or {}).get("tool_calls") or []:
                    key = choice.get("index"), call.get("index"), call.get("id") and len(told)
                    key = next((k for k in told if k[:2] == key[:2]), key) if not call.get("id") else key
                    told[key] = told.get(key, "") + ((call.get("function") or {}).get("arguments") or "")
        elif wire == "messages":
            if (body.get("delta") or {}).get("type") == "input_json_delta":
                told[body["index"]] = told.get(body["index"], "") + body["delta"]["partial_json"]
        elif body.get("type") == "response.function_call_arguments.delta":
            key = body.get("output_index"), body.get("item_id")
            told[key] = told.get(key, "") + body["delta"]
    return list(told.values())


# Streams that keep to their own grammar, so that it can be asked of what comes out.
def _is_regular(stream: Stream) -> bool:
    try:
        check_grammar(stream.wire, stream.data)
    except (AssertionError, KeyError, TypeError, ValueError):
        return False
    return b"\r" not in stream.data


REGULAR = [stream for stream in GOOD if _is_regular(stream)]
regular = pytest.mark.parametrize("stream", REGULAR, ids=lambda stream: stream.name)


def test_most_recorded_streams_are_regular() -> None:
    """The cut tests below look at most of the corpus, and at every wire."""
    assert len(REGULAR) > len(GOOD) // 2
    assert {stream.wire for stream in REGULAR} == set(WIRES)


@pytest.mark.parametrize("stream", GOOD, ids=lambda stream: stream.name)
def test_an_unbroken_stream_passes_byte_for_byte(stream: Stream, rng: Any) -> None:
    """However it is cut into chunks, up to the end of its answer."""
    for chunks in ([stream.data], pieces(stream.data, rng)):
        played = Played(stream, [(chunks, None)])
        assert played.reply is not None
        assert stream.data.removeprefix(b"\xef\xbb\xbf").startswith(played.data)
        assert facts(read(stream.wire, played.data, stream.choices)) == facts(
            read(stream.wire, stream.data, stream.choices)
        )


@regular
def test_cut_at_every_frame_and_said_again(stream: Stream) -> None:
    """One stream comes out, of the grammar of its wire, that says what the uncut one says."""
    for cut in frame_ends(stream.data)[:-1]:
        played = Played(stream, [([stream.data[:cut]], Broke(DROPPED, 1.0)), ([stream.data], None)])
        assert played.error is None, cut
        check_same(stream, played)


def check_same(stream: Stream, played: Played) -> None:
    """What came out is one stream that says what the recorded one says; a settled one just ends."""
    assert played.reply is not None
    again = read(stream.wire, played.data, stream.choices)
    check_facts(again, stream, settled=played.reply.settled)
    check_grammar(stream.wire, played.data)


def check_facts(again: Assembler, stream: Stream, *, settled: bool) -> None:
    """The same answer; a settled one lacks its end, and what would have come after a finished message."""
    whole = read(stream.wire, stream.data, stream.choices)
    if settled:
        assert whole.reply("complete").text.startswith(again.reply("complete").text)
        assert not stream.request.tools
    else:
        assert facts(again, ids=False) == facts(whole, ids=False)


@given(st.data())
def test_cut_three_times_anywhere(data: st.DataObject) -> None:
    """Cuts inside frames, inside characters, before the first byte; the last attempt is whole.

    The same break at the same place twice is given up, as it should be; then nothing but the beginning of
    the answer was delivered.
    """
    stream = data.draw(st.sampled_from(REGULAR))
    cuts = data.draw(st.lists(st.integers(0, len(stream.data)), min_size=1, max_size=3))
    bodies: Bodies = [
        ([stream.data[:cut]], data.draw(st.sampled_from([Broke(DROPPED, 1.0), Ended(1.0)]))) for cut in cuts
    ]
    played = Played(stream, [*bodies, ([stream.data], None)])
    if played.error is None:
        check_same(stream, played)
    else:
        assert played.error.reply is not None
        whole = read(stream.wire, stream.data, stream.choices).reply("complete")
        assert whole.text.startswith(played.error.reply.text)
        assert stream.data.startswith(played.data) or len(set(cuts)) > 1


def _tells_its_calls_plainly(stream: Stream) -> bool:
    """Whether the pieces of a call can be put together by index: some servers leave it out, or change ids."""
    try:
        return all(json.loads(text or "{}") is not None for text in shown_arguments(stream.wire, stream.data))
    except ValueError:
        return False


@pytest.mark.parametrize(
    "stream", list(filter(_tells_its_calls_plainly, REGULAR)), ids=lambda stream: stream.name
)
def test_a_call_is_shown_whole_or_not_at_all(stream: Stream) -> None:
    """At every cut, whatever a consumer was shown of a call can be parsed; only a token limit tears one."""
    for cut in frame_ends(stream.data):
        played = Played(stream, [([stream.data[:cut]], Broke(DROPPED, 1.0))] * 2)
        if played.reply is None or played.reply.status != "incomplete":
            for arguments in shown_arguments(stream.wire, played.data):
                assert isinstance(json.loads(arguments or "{}"), dict), cut


@regular
def test_a_held_call_is_one_json_document(stream: Stream) -> None:
    """A client that waits gets the answer in the form that its wire has without streaming."""
    cut = frame_ends(stream.data)[len(frame_ends(stream.data)) // 2]
    bodies: Bodies = [
        ([stream.data[:cut]], Ended(1.0)),
        ([stream.data], None),
    ]
    played = Played(stream, bodies, live=False)
    assert played.data == b""
    assert played.reply is not None
    document = played.relay.whole(played.reply, played.assembler)
    assembler = Assembler()
    for event in WIRES[stream.wire].read_body(document):
        assembler.push(event)
    check_facts(assembler, stream, settled=played.reply.settled)


def test_a_restart_that_says_something_else_is_an_error() -> None:
    """What was delivered cannot be taken back: the consumer gets nothing of the other answer."""
    stream = next(each for each in REGULAR if each.wire == "chat" and b'content":"' in each.data)
    cut = frame_ends(stream.data)[4]
    other = stream.data.replace(b'"content":"', b'"content":"X')
    bodies: Bodies = [([stream.data[:cut]], Broke(DROPPED, 1.0))]
    played = Played(stream, [*bodies, *[([other], None)] * 4])
    assert played.error is not None
    assert stream.data.startswith(played.data)


def test_the_first_request_is_sent_as_it_was_written() -> None:
    """And so is every one that asks for the whole answer again."""
    stream = REGULAR[0]
    cut = frame_ends(stream.data)[0]
    played = Played(stream, [([stream.data[:cut]], Broke(DROPPED, 1.0)), ([stream.data], None)], seed=7)
    assert len(played.sent) == 2
    assert played.sent[0] == played.sent[1]
    assert json.loads(played.sent[0])["seed"] == 7
