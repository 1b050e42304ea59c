"""The same promises over real sockets, plain and TLS: samples of streams and offsets, and every ending.

The lab plays the recorded streams and breaks the first attempt of each call; the second is whole. Offsets are
drawn by the run's seed, seams of UTF-8 sequences always among them. What the world in memory cannot show is
shown here: Content-Length and close-delimited bodies, TLS farewells, real FIN and RST, compressed bodies.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from callers import WAYS, caller
from places import timed
from verdicts import Outcome, Stream, problems, recorded

from sidestream import AsyncClient, Client, Route, StreamDropped
from sidestream.drivers import System
from sidestream.lab import Continuing, Fault, Lab, Plan, script
from sidestream.lab.continuing import FORMS

NAMES = ("unicode-raw", "unicode", "phases", "parallel-calls", "parallel-tools", "two-choices", "refusal")
STREAMS = [s for s in recorded("responses", "chat", "messages") if s.name.partition("-")[2] in NAMES]
ENDS = {
    "clean end": Fault.end,
    "FIN mid-chunk": Fault.cut,
    "RST": Fault.reset,
    "close-delimited EOF": Fault.eof,
    "short Content-Length": Fault.short,
    "gzip cut": Fault.gzip_cut,
}
SAMPLE = 4
WORDS = script.words(120)
HARMLESS = {
    "one byte per write": Fault.slicer(),
    "BOM": Fault.bom(),
    "CR": Fault.line_ends("cr"),
    "CRLF": Fault.line_ends("crlf"),
    "mixed line ends": Fault.line_ends("mixed"),
    "terminal twice": Fault.repeat_terminal(),
    "huge unknown event": Fault.huge_event(size=1 << 20),
}
INJECTED = {
    "HTML": Fault.splice("html"),
    "HTML, then FIN": Fault.splice("html", then="cut"),
    "JSON page": Fault.splice("json"),
    "a proxy's notice": Fault.splice("idle", then="cut"),
    "error": Fault.error_event("responses"),
    "nested error": Fault.error_event("responses_nested", then="cut"),
    "chat error": Fault.error_event("openai_chat"),
    "OpenRouter error": Fault.error_event("openrouter"),
    "llama.cpp error": Fault.error_event("llamacpp_field"),
}

Count = Callable[[str, int], None]
by_way = pytest.mark.parametrize("way", WAYS)
by_stream = pytest.mark.parametrize("stream", STREAMS, ids=str)


class Turns:
    """What a lab asks of a plan. The next attempt gets the fault that was set last, all others none."""

    faults: tuple[Fault, ...] = ()

    def __init__(self) -> None:
        self.next: tuple[Fault, ...] = ()

    def at(self, _attempt: int) -> tuple[Fault, ...]:
        turn, self.next = self.next, ()
        return turn


class Stage:
    """One stream, one way to ask for it, and a lab that breaks the first attempt of every call."""

    def __init__(self, stream: Stream, way: str, folder: Path, *, tls: bool = False) -> None:
        self.stream = stream
        self.loop = asyncio.new_event_loop()
        self.cases = 0
        self._turns = Turns()
        self.lab = Lab(script.from_sse(stream.body), plan=self._turns, tls=tls)  # type: ignore[arg-type]
        self.lab.start()
        options: dict[str, Any] = {"system": System(random=lambda: 0.0)}
        if tls:
            (folder / "ca.pem").write_bytes(self.lab.ca_pem)
            options["cafile"] = str(folder / "ca.pem")
        routes = [Route(self.lab.url, "model-1", stream.wire)]  # type: ignore[arg-type]
        self._call = caller(
            way,
            lambda: Client(routes=routes, **options),
            lambda: AsyncClient(routes=routes, **options),
            self.loop,
        )

    def play(self, fault: Fault) -> tuple[Outcome, int]:
        """One call, and how many requests it took."""
        before = len(self.lab.requests)
        self._turns.next = (fault,)
        self.cases += 1
        outcome = self._call(self.stream.ask)
        return outcome, len(self.lab.requests) - before

    def close(self) -> None:
        self.loop.close()
        self.lab.stop()


@pytest.fixture
def staged(tmp_path: Path, count: Count) -> Iterator[Callable[..., Stage]]:
    """Makes stages, and closes them."""
    made: list[Stage] = []

    def make(stream: Stream, way: str, **options: bool) -> Stage:
        made.append(Stage(stream, way, tmp_path, **options))
        return made[-1]

    yield make
    for stage in made:
        stage.close()
    count("calls over sockets", sum(stage.cases for stage in made))


def offsets(stream: Stream, rng: random.Random) -> list[int]:
    """Some offsets before the answer is over: seams of UTF-8 sequences, ends of events, anywhere."""
    inside = [at for at in range(stream.end) if stream.body[at] & 0xC0 == 0x80]
    pools = [inside, sorted(at for at in stream.seams if at < stream.end), range(stream.end)]
    return [at for pool in pools if pool for at in rng.sample(pool, min(SAMPLE, len(pool)))]


def expected_requests(stream: Stream, at: int) -> int:
    return 1 if at >= stream.end or stream.settles_at(at) else 2


@by_way
@by_stream
@pytest.mark.parametrize("end", ENDS)
def test_broken_bodies_come_back_whole(
    stream: Stream, way: str, end: str, staged: Callable[..., Stage], rng: random.Random
) -> None:
    """However a body really ends before its answer does, the caller gets the whole answer exactly once."""
    stage = staged(stream, way)
    for at in offsets(stream, rng):
        outcome, requests = stage.play(ENDS[end](at_byte=at))
        assert [*problems(stream, outcome)] == [], f"{end} at {at}"
        assert requests == expected_requests(stream, at), f"{end} at {at}"


@by_way
@pytest.mark.parametrize("form", [*FORMS, "prefix_echoed", "responses"])
def test_a_text_is_continued_in_every_form(
    form: str, way: str, lab: Callable[..., Lab], count: Count
) -> None:
    """Cut three times on its way, a text goes on where it was; nothing of the whole is generated twice."""
    wire = "responses" if form == "responses" else "chat"
    continuation: Any = "anchor" if form == "responses" else form
    plan = Plan([Fault.cut(after_event=20), Fault.end(after_event=15), Fault.reset(after_event=25)])
    running = lab(Continuing(WORDS, accepts=(continuation,)), plan=plan)
    route = Route(running.url, "model-1", wire, continuation=continuation)  # type: ignore[arg-type]
    options: dict[str, Any] = {"routes": [route], "system": System(random=lambda: 0.0)}
    outcome, _ = timed(way, {"input": "hi"}, **options)
    assert outcome.reply is not None, outcome.error
    assert outcome.reply.text == WORDS
    rung = "anchor" if continuation == "anchor" else "prefill"
    assert [attempt.rung for attempt in outcome.reply.attempts] == ["send", rung, rung, rung]
    if outcome.view is not None:
        assert outcome.view.texts(1) == (WORDS,)
        assert not outcome.view.void
    count("calls over sockets", 1)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_text_alone_ends_rather_than_begin_anew(way: str, lab: Callable[..., Lab]) -> None:
    """Who reads only text cannot be told that it is void: the call ends with what was said, as an error."""
    answers = [script.responses_text("The stream was cut here."), script.responses_text("Another answer.")]
    running = lab(answers, plan=Plan([Fault.cut(after_event=7)]))
    options: dict[str, Any] = {
        "routes": [Route(running.url, "model-1")],
        "system": System(random=lambda: 0.0),
    }
    pieces: list[str] = []

    def read() -> None:
        with Client(**options) as client, client.stream("hi") as stream:
            for piece in stream.text():
                pieces.append(piece)  # noqa: PERF402  what came before an error counts

    async def aread() -> None:
        async with AsyncClient(**options).stream("hi") as stream:
            async for piece in stream.text():
                pieces.append(piece)  # noqa: PERF401  as above

    with pytest.raises(StreamDropped) as caught:
        read() if way == "sync" else asyncio.run(aread())
    assert "".join(pieces) == "The stream was"
    assert caught.value.reply is not None
    assert caught.value.reply.text == "The stream was"
    assert [row.ended for row in caught.value.attempts].count("diverged") >= 1


@by_way
@pytest.mark.parametrize("stream", STREAMS[:2], ids=str)
@pytest.mark.parametrize("end", ["clean end", "FIN mid-chunk", "RST", "no close_notify"])
def test_broken_tls_bodies_come_back_whole(
    stream: Stream, way: str, end: str, staged: Callable[..., Stage], rng: random.Random
) -> None:
    """The same through TLS, the missing farewell included."""
    stage = staged(stream, way, tls=True)
    kinds = {**ENDS, "no close_notify": Fault.no_close_notify}
    for at in rng.sample(range(stream.end), SAMPLE):
        outcome, requests = stage.play(kinds[end](at_byte=at))
        assert [*problems(stream, outcome)] == [], f"{end} at {at}"
        assert requests == expected_requests(stream, at), f"{end} at {at}"


@by_way
@by_stream
@pytest.mark.parametrize("end", ["FIN mid-chunk", "short Content-Length", "close-delimited EOF"])
def test_a_break_after_the_end_costs_nothing(
    stream: Stream, way: str, end: str, staged: Callable[..., Stage]
) -> None:
    """Once the answer is over, nothing that happens to its connection makes anyone ask again."""
    outcome, requests = staged(stream, way).play(ENDS[end](at_byte=stream.end))
    assert [*problems(stream, outcome)] == []
    assert requests == 1


@by_way
@by_stream
@pytest.mark.parametrize("oddity", HARMLESS)
def test_oddities_of_form_are_no_faults(
    stream: Stream, way: str, oddity: str, staged: Callable[..., Stage]
) -> None:
    """What is only unusual is read as it stands, in one request."""
    outcome, requests = staged(stream, way).play(HARMLESS[oddity])
    assert [*problems(stream, outcome)] == []
    assert requests == 1


@by_way
@by_stream
@pytest.mark.parametrize("shape", INJECTED)
def test_injected_errors_and_pages_never_become_text(
    stream: Stream, way: str, shape: str, staged: Callable[..., Stage], rng: random.Random
) -> None:
    """A page or a passing error inside the stream is recovered from; not a character of it is delivered."""
    stage = staged(stream, way)
    last = next(n for n in range(len(stream.events)) if sum(map(len, stream.events[: n + 1])) >= stream.end)
    for event in sorted({0, rng.randint(0, last), last}):
        outcome, requests = stage.play(INJECTED[shape].at(after_event=event))
        at = sum(map(len, stream.events[:event]))
        assert [*problems(stream, outcome)] == [], f"{shape} after {event} events"
        assert requests in (expected_requests(stream, at), 2), f"{shape} after {event} events"


@by_way
def test_a_finished_connection_serves_the_next_call(way: str, staged: Callable[..., Stage]) -> None:
    """A blocking client keeps a connection that has served; an asyncio client does so only while entered."""
    stage = staged(STREAMS[0], way)
    for _ in range(4):
        stage.play(Fault.repeat_terminal("done"))
    assert stage.lab.accepted == (1 if way.startswith("sync") else 4)


def test_an_entered_asyncio_client_keeps_its_connection_until_it_is_left(lab: Callable[..., Lab]) -> None:
    """While an asyncio client is entered its calls share a connection, and leaving it closes that one."""
    running = lab(script.responses_text("Hello"))

    async def calls() -> None:
        async with AsyncClient(routes=[Route(running.url, "model-1")]) as client:
            for _ in range(4):
                await client.complete("hi")

    asyncio.run(calls())
    assert running.accepted == 1
    assert running.wait_closed(3).ended_by == "server"
