"""Random calls: whatever happens in whatever order, a call ends, within its limits, in one of two ways.

Either the reply is complete and equal to the reference, or a typed error of our tree carries a partial that
is a prefix of it. A live consumer has, at every moment, the beginning of one answer.
"""

import random
from dataclasses import dataclass
from typing import Any

import pytest
from hands import Play, Story, broke, chunked, clean_end, cut, drive, reject, stopped, whole
from hypothesis import given
from hypothesis import strategies as st

from sidestream.errors import Cancelled, NoRoute, SidestreamError
from sidestream.recovery.clocks import Timeouts
from sidestream.recovery.faults import FaultKind
from sidestream.recovery.flow import Call
from sidestream.recovery.policy import Policy
from sidestream.wire.events import Restarted, TextDelta
from sidestream.wire.prompt import Request
from streams import BROKEN, GOOD, Stream, pieces, route

K = FaultKind
# One choice, no tools asked for: these may answer the same call.
ANSWERS = [stream for stream in GOOD if stream.choices == 1 and not stream.verdict.get("tools")]
WAYS_TO_BREAK = [K.CONNECT, K.DROPPED, K.STALLED, K.GARBLED, K.SERVER]
REJECTIONS: list[tuple[int, Any, dict[str, str]]] = [
    (400, {"error": {"message": "m", "code": "unsupported_parameter", "param": "temperature"}}, {}),
    (400, {"detail": "Unsupported parameter: top_p"}, {}),
    (400, {"error": {"message": "m"}}, {}),
    (401, "", {}),
    (402, "", {}),
    (404, "", {}),
    (413, "", {}),
    (429, "", {}),
    (429, "", {"retry_after": "3"}),
    (429, "", {"retry_after": "60"}),
    (429, "", {"retry_after": "9999"}),
    (429, {"error": {"code": "insufficient_quota"}}, {}),
    (500, "", {"retry_after": "nan"}),
    (502, "<html>", {}),
    (503, {"error": {"code": "slow_down", "message": "try again in 7s"}}, {}),
    (307, "", {}),
]


@dataclass(frozen=True)
class Case:
    """A call, what will happen to it, and the streams that may answer it."""

    call: Call
    plays: tuple[Play, ...]
    streams: tuple[Stream, ...]
    words: tuple[str, ...]
    seed: int

    def __repr__(self) -> str:
        limits = (
            self.call.policy,
            self.call.timeouts,
            len(self.call.routes),
            "live" if self.call.live else "held",
        )
        return f"Case({self.words}, {limits}, seed={self.seed})"

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text(repr(self))


@st.composite
def cases(draw: st.DrawFn, *, one_answer: bool = True, live: bool | None = None) -> Case:
    """One answer: every stream is the same one or its broken half. Else any stream of the wire may come."""
    stream = draw(st.sampled_from(ANSWERS))
    others = [
        other for other in ANSWERS if other.wire == stream.wire and other.expect["status"] == "complete"
    ]
    seed = draw(st.integers(0, 2**32))
    rng = random.Random(seed)
    plays, words, streams = [], [], [stream]
    for _ in range(draw(st.integers(0, 12))):
        if not one_answer:
            stream = draw(st.sampled_from([stream, *others]))
            streams.append(stream)
        word, play = draw(outcomes(stream, rng, one_answer=one_answer))
        words.append(word)
        plays.append(play)
    routes = tuple(route(stream.wire, f"r{n}") for n in range(draw(st.integers(1, 3))))
    request = Request(({"role": "user", "content": "hi"},), params={"temperature": 0, "top_p": 1})
    call = Call(
        request,
        routes,
        Timeouts(total=draw(st.sampled_from([3.0, 30.0, 1800.0]))),
        Policy(tries=draw(st.integers(1, 3)), recoveries=draw(st.integers(0, 8))),
        live=draw(st.booleans()) if live is None else live,
    )
    words.append(f"whole {stream.name}")
    return Case(call, (*plays, whole(stream)), tuple(streams), tuple(words), seed)


@st.composite
def outcomes(draw: st.DrawFn, stream: Stream, rng: random.Random, *, one_answer: bool) -> tuple[str, Play]:
    kind = draw(
        st.sampled_from(["cut", "cut", "end", "broke", "reject", "garbage", "whole", "broken", "stop"])
    )
    at = draw(st.integers(0, len(stream.data)))
    if kind == "cut":
        how = draw(st.sampled_from([K.DROPPED, K.STALLED]))
        return f"{how.word} {stream.name} at {at}", cut(stream, at, how)
    if kind == "end":
        return f"end {stream.name} at {at}", clean_end(stream, at)
    if kind == "broke":
        how = draw(st.sampled_from(WAYS_TO_BREAK))
        return f"broke {how.word}", broke(how, clock="idle")
    if kind == "reject":
        status, body, headers = draw(st.sampled_from(REJECTIONS))
        return f"reject {status}", reject(status, body, **headers)
    if kind == "garbage":
        data = stream.data[:at] + rng.randbytes(20) + b"\n\ndata: {nonsense\n\n"
        return f"garbage in {stream.name} at {at}", chunked(pieces(data, rng))
    if kind == "broken" and not one_answer:
        bad = draw(
            st.sampled_from(
                [b for b in BROKEN if b.wire == stream.wire and b.choices == 1 and not b.verdict.get("tools")]
            )
        )
        return bad.name, chunked(pieces(bad.data, rng))
    if kind == "stop" and draw(st.integers(0, 9)) == 0:
        return "stop", stopped([stream.data[:at]])
    return f"whole {stream.name} in pieces", chunked(pieces(stream.data, rng))


def play(case: Case) -> Story:
    rng = random.Random(case.seed)
    return drive(case.call, case.plays, jitter=rng.random, seconds=lambda: rng.uniform(0, 2))


def check_limits(case: Case, story: Story) -> None:
    """It ended, and neither requests nor waiting went beyond what was allowed."""
    policy, total = case.call.policy, case.call.timeouts.total
    dropped = len(case.call.request.params) - min(len(body_params(body)) for body in story.bodies)
    recoveries = sum(1 for action in story.actions if action.startswith("tell"))
    assert recoveries <= policy.recoveries
    assert len(story.sends) == 1 + recoveries + dropped - unsent(story)
    assert dropped == 0 or policy.recoveries
    assert sum(story.sleeps) <= total
    assert all(at < total for at in story.sent_at[1:])
    assert all(0 <= wait <= policy.longest_wait + policy.backoff.cap for wait in story.sleeps)
    ended = story.reply or story.error
    assert isinstance(ended, NoRoute) or (ended is not None and len(ended.attempts) == len(story.sends))


def body_params(body: dict[str, Any]) -> set[str]:
    return {"temperature", "top_p"} & set(body)


def unsent(story: Story) -> int:
    """A recovery that was announced and then stopped."""
    return 1 if story.actions[-1].startswith(("tell", "sleep")) else 0


@given(cases())
def test_a_call_with_one_answer_ends_with_it_or_with_its_beginning(case: Case) -> None:
    """Complete means equal to the reference; everything else is a typed error with a prefix of it."""
    story = play(case)
    check_limits(case, story)
    reference = case.streams[0].expect
    if story.reply is not None:
        assert story.reply.status == reference["status"]
        assert story.reply.text == reference["text"]
        assert story.reply.refusal == reference["refusal"]
        assert story.reply.settled or story.reply.finish_reason == reference["finish_reason"]
        assert sum(1 for attempt in story.reply.attempts if attempt.kept) <= 1
        assert not any(attempt.kept for attempt in story.reply.attempts[:-1])
        return
    assert isinstance(story.error, (SidestreamError, Cancelled))
    partial = story.error.reply
    assert partial is not None
    assert partial.status != "complete"
    if case.streams[0].name != "responses/code-and-image":  # nothing of it is text until its item is done
        assert reference["text"].startswith(partial.text)
    assert reference["reasoning"].startswith(partial.reasoning)
    assert not partial.tool_calls


@given(cases(one_answer=False, live=True))
def test_a_live_consumer_has_one_answer_and_in_the_end_the_reply(case: Case) -> None:
    """At every moment a consumer's text is the beginning of one stream; in the end it is the reply's."""
    story = play(case)
    check_limits(case, story)
    answers = [s.expect["text"] for s in (*case.streams, *ANSWERS)] + [s.verdict["text"] for s in BROKEN]
    text = ""
    for _, seen in story.seen:
        for event in seen:
            if isinstance(event, Restarted):
                text = ""
            elif isinstance(event, TextDelta):
                text += event.delta
                assert any(answer.startswith(text) for answer in answers), text
    if story.reply is not None:
        assert text == story.reply.text
    else:
        assert isinstance(story.error, (SidestreamError, Cancelled))


@given(cases(one_answer=False, live=False))
def test_a_held_call_gives_one_whole_answer_and_delivers_nothing_before(case: Case) -> None:
    """A held reply is exactly the answer of one stream, and nothing leaks before it."""
    story = play(case)
    check_limits(case, story)
    assert not any(seen for _, seen in story.seen)
    if story.reply is not None:
        assert story.reply.text in {stream.expect["text"] for stream in case.streams}


@given(cases(one_answer=False))
def test_the_same_case_gives_the_same_story(case: Case) -> None:
    """Time and randomness come from outside: the same values tell the same story."""
    one, two = play(case), play(case)
    assert (one.actions, one.ledger, type(one.error)) == (two.actions, two.ledger, type(two.error))


@pytest.mark.parametrize("wanted", ["settled", "restart", "reroute"])
def test_random_calls_reach_every_rung(wanted: str, rng: random.Random) -> None:
    """The cases above are worth their time: every rung that a recorded stream can take happens among them.

    Those that go on with an answer need a provider that does: test_exactly_once has one.
    """
    for _ in range(400):
        stream = rng.choice([stream for stream in ANSWERS if stream.expect["status"] == "complete"])
        plays = [cut(stream, rng.randrange(len(stream.data))) for _ in range(3)]
        routes = (route(stream.wire, "r0"), route(stream.wire, "r1"))
        request = Request(({"role": "user", "content": "hi"},))
        story = drive(Call(request, routes), [*plays, broke(K.CONNECT), broke(K.CONNECT), whole(stream)])
        if any(wanted in (made, ended) for _, made, ended in story.ledger):
            return
    raise AssertionError(f"no random call reached {wanted}")
