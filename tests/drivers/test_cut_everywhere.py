"""Every recorded stream, cut at every byte: in threads and in asyncio, held and live, by every ending.

The world is in memory (memory.py) and everything above its sockets is real. The first attempt is cut; the
second is whole, or cut again, or another answer. The verdict of the corpus says what has to come out.

A cut is an offset, an `Ending` and one of `WAYS`; all of them together are 1.5 million calls. How many are
made is `SIDESTREAM_CUTS`:

- `turns` (default): every offset by one of the 16 pairs of ending and way, in turn, and the offsets around
  the ends of events (`Stream.seams`) by all 16.
- `every` (what CI does): every offset by every ending, in threads and in asyncio, held and live in turn.
- `all`: every offset by all 16.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from callers import WAYS, caller
from memory import ENDINGS, Answer, Ending, Loop, World, answer, async_client, client
from verdicts import Outcome, Stream, beginning_problems, failure_problems, problems, recorded

from sidestream import DeadlineExceeded, StreamDropped

STREAMS = recorded("responses", "chat")
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
        self._call = caller(
            way,
            lambda: client(self.world, [stream.route]),
            lambda: async_client(self.world, [stream.route]),
            self.loop,
        )
        self.troubles: list[str] = []
        self.cases = 0

    def play(self, *answers: Answer) -> Outcome:
        """One call, answered so."""
        self.world.play(*answers)
        self.cases += 1
        return self._call(self.stream.ask)

    def note(self, where: str, found: Iterator[str]) -> None:
        """Write down what was wrong."""
        self.troubles += [f"{where}: {trouble}" for trouble in found]

    def cuts(self, every: int = 1) -> Iterator[tuple[int, Ending]]:
        """The offsets and endings of this way: see above. With `every`, one offset in so many."""
        for at in range(len(self.stream.body) + 1):
            for number, ending in enumerate(ENDINGS):
                turn = at // every % 16 == 4 * self.number + number
                seam = every == 1 and at in self.stream.seams
                alternate = CUTS == "every" and every == 1 and (at + number) % 2 == self.number % 2
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
    assert stage.world.open == 0, "a connection was left open"


by_way = pytest.mark.parametrize("way", WAYS)
by_stream = pytest.mark.parametrize("stream", STREAMS, ids=str)


def shown(troubles: list[str]) -> str:
    return "\n".join([f"{len(troubles)} troubles", *troubles[:8]])


@by_stream
@by_way
def test_a_cut_stream_comes_back_whole(stage: Stage) -> None:
    """Wherever and however the first attempt breaks, the caller gets the whole answer exactly once."""
    stream = stage.stream
    for at, ending in stage.cuts():
        outcome = stage.play(stage.cut(at, ending), stage.whole)
        where = f"{ending} at {at}"
        stage.note(where, problems(stream, outcome))
        stage.note(where, request_problems(stage, outcome, at))
    assert not stage.troubles, shown(stage.troubles)


def request_problems(stage: Stage, outcome: Outcome, at: int) -> Iterator[str]:
    """What was spent: nothing twice that was there already."""
    stream, requests = stage.stream, len(stage.world.requests)
    reply = getattr(outcome.error, "reply", outcome.reply)
    whole, settles = at >= stream.end, stream.settles_at(at)
    if requests != (1 if whole or settles else 2):
        yield f"{requests} requests"
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
    outcome = stage.play(answer(stream.without_terminal), stage.whole)
    settles = stream.settle is not None and not stream.tools
    stage.note("lost terminal", problems(stream, outcome))
    if len(stage.world.requests) != (1 if settles else 2):
        stage.note("lost terminal", iter([f"{len(stage.world.requests)} requests"]))
    assert not stage.troubles, shown(stage.troubles)


@by_stream
@by_way
def test_cut_twice_at_the_same_place_is_an_error_with_the_partial(stage: Stage) -> None:
    """If the second attempt breaks at the same place, the error is typed and its partial is a beginning."""
    stream = stage.stream
    for at, ending in stage.cuts(every=SAMPLE):
        if at >= stream.end or stream.settles_at(at):
            continue
        outcome = stage.play(stage.cut(at, ending), stage.cut(at, ending))
        where = f"{ending} twice at {at}"
        stage.note(where, failure_problems(stream, outcome))
        expected = DeadlineExceeded if ending == "stall" else StreamDropped
        if type(outcome.error) is not expected:
            stage.note(where, iter([f"it ended with {outcome.error!r}"]))
        if len(stage.world.requests) != 2:
            stage.note(where, iter([f"{len(stage.world.requests)} requests"]))
    assert not stage.troubles, shown(stage.troubles)


@pytest.mark.parametrize("stream", [stream for stream in STREAMS if stream.choices == 1], ids=str)
@by_way
def test_another_answer_after_the_cut_is_never_mixed_in(stage: Stage) -> None:
    """If the second attempt answers something else, the caller ends up with that answer and nothing else."""
    stream = stage.stream
    others = [o for o in STREAMS if o.wire == stream.wire and o is not stream and is_plain(o)]
    for at, ending in stage.cuts(every=SAMPLE):
        if at >= stream.end or stream.settles_at(at):
            continue
        other = others[at // SAMPLE % len(others)]
        outcome = stage.play(stage.cut(at, ending), answer(other.body))
        where = f"{ending} at {at}, then {other}"
        stage.note(where, problems(other, outcome))
        if outcome.view is not None:
            for void in outcome.view.void:
                stage.note(where, beginning_problems(stream, void))
            if len(outcome.view.void) > 1:
                stage.note(where, iter([f"announced {len(outcome.view.void)} times"]))
    assert not stage.troubles, shown(stage.troubles)


def is_plain(stream: Stream) -> bool:
    """Whether it is a complete answer of one text."""
    return stream.expect["status"] == "complete" and stream.choices == 1 and bool(stream.expect["text"])
