"""Every recorded stream, cut at every byte: in threads and in asyncio, held and live, by every ending.

The world is in memory (memory.py) and everything above its sockets is real. The first attempt is cut; the
second is whole, or cut again, or another answer. The verdict of the corpus says what has to come out.

The world answers a request to go on with the whole answer, as an endpoint does that knows no such thing. Half
of the cuts are made on a route that is only asked again; on the other half a text that has begun is continued
by its last words, and the retelling has to be recognised. Sixteen offsets in a row are of one kind.

A cut is an offset, an `Ending` and one of `WAYS`; all of them together are 1.5 million calls. How many are
made is `SIDESTREAM_CUTS`:

- `turns` (default): every offset by one of the 16 pairs of ending and way, in turn, and the offsets around
  the ends of events (`Stream.seams`) by all 16.
- `every` (what CI does): every offset by every ending, the four ways in turn.
- `all`: every offset by all 16.

What a continuing endpoint does with every cut is in tests/recovery/test_every_seam.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from callers import WAYS, Ask, caller
from memory import ENDINGS, Answer, Ending, Loop, World, answer, async_client, client
from verdicts import Outcome, Stream, beginning_problems, failure_problems, problems, recorded

from sidestream import Attempt, DeadlineExceeded, Route, StreamDropped

STREAMS = recorded("responses", "chat", "messages")
CUTS = os.environ.get("SIDESTREAM_CUTS", "turns")
ALL = CUTS == "all"
# Of the calls that are cut twice or answered differently, one in so many offsets.
SAMPLE = 1 if ALL else 24

Play = Callable[..., Outcome]
Count = Callable[[str, int], None]


class Stage:
    """One stream, one way to ask for it, and the world that answers."""

    def __init__(self, stream: Stream, way: str) -> None:
        self.stream = stream
        self.number = WAYS.index(way)
        self.world = World()
        self.loop = Loop(self.world)
        again = replace(stream.route, continuation="none")
        self._calls = [self._caller(way, route) for route in (stream.route, again)]
        self.troubles: list[str] = []
        self.cases = 0
        self.continued = 0

    def _caller(self, way: str, route: Route) -> Callable[[Ask], Outcome]:
        sync, aio = (lambda: client(self.world, [route])), (lambda: async_client(self.world, [route]))
        return caller(way, sync, aio, self.loop)

    def play(self, *answers: Answer, continues: bool) -> Outcome:
        """One call, answered so, on a route whose answers can be continued or not."""
        self.world.play(*answers)
        self.cases += 1
        outcome = self._calls[not continues](self.stream.ask)
        rungs = {attempt.rung for attempt in ledger(outcome)}
        self.continued += "anchor" in rungs
        if not continues and rungs - {"send", "restart"}:
            self.troubles.append(f"asked again by {rungs}")
        return outcome

    def note(self, where: str, found: Iterator[str]) -> None:
        """Write down what was wrong."""
        self.troubles += [f"{where}: {trouble}" for trouble in found]

    def cuts(self, every: int = 1) -> Iterator[tuple[int, Ending]]:
        """The offsets and endings of this way: see above. With `every`, one offset in so many."""
        for at in range(len(self.stream.body) + 1):
            for number, ending in enumerate(ENDINGS):
                turn = at // every % 16 == 4 * self.number + number
                seam = every == 1 and at in self.stream.seams
                alternate = CUTS == "every" and every == 1 and (at + number) % 4 == self.number
                if ALL or seam or alternate or (at % every == 0 and turn):
                    yield at, ending

    def cut(self, at: int, ending: Ending) -> Answer:
        """The stream up to there; every fifth time event by event, else in one piece."""
        if at % 5:
            return answer(self.stream.body[:at], ending=ending)
        pieces, start = [], 0
        for event in self.stream.events:
            pieces.append(self.stream.body[start : min(at, start + len(event))])
            start += len(event)
        return answer(*filter(None, pieces[:-1]), pieces[-1], ending=ending)

    @property
    def whole(self) -> Answer:
        return answer(self.stream.body)


@pytest.fixture
def stage(stream: Stream, way: str, count: Count) -> Iterator[Stage]:
    stage = Stage(stream, way)
    yield stage
    stage.loop.close()
    count("cuts in memory", stage.cases)
    count("cuts in memory, continued", stage.continued)
    assert stage.world.open == 0, "a connection was left open"


by_way = pytest.mark.parametrize("way", WAYS)
by_stream = pytest.mark.parametrize("stream", STREAMS, ids=str)


def shown(troubles: list[str]) -> str:
    return "\n".join([f"{len(troubles)} troubles", *troubles[:8]])


def continued(at: int, every: int = 1) -> bool:
    """Whether the cut there is one of those whose answer may be continued."""
    return at // every // 16 % 2 == 0


def ledger(outcome: Outcome) -> tuple[Attempt, ...]:
    return getattr(outcome.error, "attempts", outcome.reply.attempts if outcome.reply else ())


def astray(outcome: Outcome) -> int:
    """How many continuations did not join and were paid for nothing."""
    return sum(attempt.rung == "anchor" and attempt.ended == "diverged" for attempt in ledger(outcome))


@by_stream
@by_way
def test_a_cut_stream_comes_back_whole(stage: Stage) -> None:
    """Wherever and however the first attempt breaks, the caller gets the whole answer exactly once."""
    stream = stage.stream
    for at, ending in stage.cuts():
        answers = stage.cut(at, ending), stage.whole, stage.whole
        outcome = stage.play(*answers, continues=continued(at))
        where = f"{ending} at {at}"
        stage.note(where, problems(stream, outcome))
        stage.note(where, request_problems(stage, outcome, at))
    assert not stage.troubles, shown(stage.troubles)


def request_problems(stage: Stage, outcome: Outcome, at: int) -> Iterator[str]:
    """What was spent: nothing twice that was there already."""
    stream, requests = stage.stream, len(stage.world.requests)
    reply = getattr(outcome.error, "reply", outcome.reply)
    whole, settles = at >= stream.end, stream.settles_at(at)
    lost = astray(outcome)
    if requests != (1 if whole or settles else 2) + lost:
        yield f"{requests} requests"
    if lost > stream.works_first:
        yield f"{lost} continuations did not join"
    if reply is None:
        return
    if reply.settled != settles:
        yield f"settled is {reply.settled}"
    if len(reply.attempts) != requests:
        yield f"the ledger has {len(reply.attempts)} attempts"
    if outcome.view is not None and outcome.view.void:
        yield "the same answer was announced as another one"


@by_stream
@by_way
def test_a_lost_end_is_never_taken_for_an_end(stage: Stage) -> None:
    """A stream that arrives whole but for its end is settled where that is sound, and else asked again."""
    stream = stage.stream
    outcome = stage.play(answer(stream.without_terminal), stage.whole, continues=stage.number % 2 == 0)
    settles = stream.settle is not None and not stream.tools
    stage.note("lost terminal", problems(stream, outcome))
    if len(stage.world.requests) != (1 if settles else 2):
        stage.note("lost terminal", iter([f"{len(stage.world.requests)} requests"]))
    assert not stage.troubles, shown(stage.troubles)


@by_stream
@by_way
def test_cut_at_the_same_place_again_is_an_error_with_the_partial(stage: Stage) -> None:
    """If every attempt breaks at the same place, the error is typed and its partial is a beginning.

    Asking again is given up after two requests. A continuation may have to be asked for twice, because white
    space at the end counts as no place, and one that did not join counts for nothing.
    """
    stream = stage.stream
    for at, ending in stage.cuts(every=SAMPLE):
        if at >= stream.end or stream.settles_at(at):
            continue
        continues = continued(at, SAMPLE)
        outcome = stage.play(*[stage.cut(at, ending)] * 4, continues=continues)
        where = f"{ending} again at {at}"
        stage.note(where, failure_problems(stream, outcome))
        expected = DeadlineExceeded if ending == "stall" else StreamDropped
        if type(outcome.error) is not expected:
            stage.note(where, iter([f"it ended with {outcome.error!r}"]))
        if not 2 <= len(stage.world.requests) <= (4 if continues and stream.works_first else 2 + continues):
            stage.note(where, iter([f"{len(stage.world.requests)} requests"]))
    assert not stage.troubles, shown(stage.troubles)


@pytest.mark.parametrize("stream", [stream for stream in STREAMS if stream.choices == 1], ids=str)
@by_way
def test_another_answer_after_the_cut_is_never_mixed_in(stage: Stage) -> None:
    """If what comes then is something else, the caller ends up with that answer and nothing else.

    A continuation that does not go on with the text is not delivered, and the question is asked again.
    """
    stream = stage.stream
    others = [o for o in STREAMS if o.wire == stream.wire and o is not stream and is_plain(o)]
    for at, ending in stage.cuts(every=SAMPLE):
        if at >= stream.end or stream.settles_at(at):
            continue
        other = others[at // SAMPLE % len(others)]
        asked_again = answer(other.body)
        outcome = stage.play(stage.cut(at, ending), asked_again, asked_again, continues=continued(at, SAMPLE))
        where = f"{ending} at {at}, then {other}"
        stage.note(where, problems(other, outcome))
        if len(stage.world.requests) != 2 + astray(outcome):
            stage.note(where, iter([f"{len(stage.world.requests)} requests"]))
        if outcome.view is not None:
            for void in outcome.view.void:
                stage.note(where, beginning_problems(stream, void))
            if len(outcome.view.void) > 1:
                stage.note(where, iter([f"announced {len(outcome.view.void)} times"]))
    assert not stage.troubles, shown(stage.troubles)


def is_plain(stream: Stream) -> bool:
    """Whether it is a complete answer of one text."""
    return stream.expect["status"] == "complete" and stream.choices == 1 and bool(stream.expect["text"])
