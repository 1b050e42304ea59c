"""Every recorded stream, cut at every byte under the real SDKs: in threads and in asyncio, by every ending.

The provider is in memory (provider_in_memory.py); above it are our transport and the openai and anthropic
clients with nothing replaced. The first body is cut and ends in one of four ways; then the whole stream is
said again, or, to a request to go on, the rest of it. What the SDK's consumer has in the end is compared with
what the same SDK makes of the whole stream alone.

A cut is an offset, one of `ENDINGS` and a `Way`; 32 pairs of these two. How many are made is `SIDESTREAM_CUTS`:

- `turns` (default): the ends of events and one byte before, and every 24th byte, by one pair in turn.
- `every` (what CI does): every byte by one pair in turn. Inside one huge delta all bytes are alike: one in 16.
- `all`: every byte by all 32.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, product
from typing import Any

import httpx2
import pytest
from consumers import SDKS, STYLES, Seen, View, aconsume, arguments, asked, client_of, consume, incoherent, view
from provider_in_memory import ENDINGS, Answer, Ending, Provider, Says, goes_on, patient

import sidestream
from sidestream import SidestreamError
from sidestream.lab.sse import split_events
from streams import GOOD, Stream

CUTS = os.environ.get("SIDESTREAM_CUTS", "turns")
STEP = 24  # between two cuts by turns
SAMPLE = 1 if CUTS == "all" else 16  # of the calls that are cut again, or answered differently

# Streams that our decoders read and these consumers do not, with or without us. (The openai SDK wants data in
# every event, and its helper every item announced; the anthropic SDK wants the names of events.)
UNREADABLE = {
    ("chat/missing-index", "stream"),
    ("chat/odd-framing", "create"),
    ("chat/odd-framing", "stream"),
    ("messages/no-start", "stream"),
    ("messages/pings", "create"),
    ("messages/pings", "stream"),
    ("responses/call-by-deltas", "stream"),
    ("responses/codex-backend", "stream"),
    ("responses/deltas-only", "stream"),
    ("responses/huge-delta", "stream"),
    ("responses/rotating-ids", "stream"),
}
# Texts in several blocks with others between them: no continuation says that.
BLOCKS = {"messages/fallback", "messages/text-blocks", "messages/unknown-things", "responses/code-and-image"}


@dataclass(frozen=True)
class Way:
    """Who reads, in which colour, and whether the answer can be continued or is asked for again."""

    style: str
    is_async: bool
    continues: bool

    def __str__(self) -> str:
        colour = "async" if self.is_async else "sync"
        return f"{colour} {self.style}, {'continued' if self.continues else 'asked again'}"


WAYS = [Way(*way) for way in product(STYLES, (False, True), (False, True))]


class Stage:
    """One stream, its provider, and the clients that read it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.provider = Provider()
        self.ways = [way for way in WAYS if (stream.name, way.style) not in UNREADABLE]
        self.cases = 0
        self.lost = 0
        self.continued = 0
        self.troubles: list[str] = []
        self._ask = asked(stream)
        self._loop = asyncio.new_event_loop()
        self._clients = cache(self._client)
        self.whole = cache(self._whole)

    def close(self) -> None:
        self._loop.close()

    def _client(self, is_async: bool, continues: bool | None) -> Any:
        """The SDK's client over the provider, with us between them unless `continues` is None."""
        provider = self.provider
        http: Any = (
            httpx2.AsyncClient(transport=provider.async_transport)
            if is_async
            else httpx2.Client(transport=provider.transport)
        )
        client = client_of(self.stream.wire, http)
        if continues is None:
            return client
        continuation: Any = "anchor" if continues else "none"
        return sidestream.wrap(client, continuation=continuation, system=patient(), observe=())

    def _consume(self, style: str, is_async: bool, continues: bool | None) -> Seen:
        client = self._clients(is_async, continues)
        if not is_async:
            return consume(client, self.stream.wire, style, self._ask)
        return self._loop.run_until_complete(aconsume(client, self.stream.wire, style, self._ask))

    def _whole(self, style: str) -> tuple[View, BaseException | None, set[str]]:
        """What the bare SDK makes of the whole stream; a helper may end with an error of its own."""
        self.provider.play(Answer((self.stream.data,)))
        seen = self._consume(style, False, None)
        return view(self.stream.wire, seen), seen.error, set(incoherent(self.stream.wire, seen))

    def play(self, way: Way, *answers: Says) -> Seen:
        self.provider.play(*answers)
        self.cases += 1
        seen = self._consume(way.style, way.is_async, way.continues)
        if self.provider.open:
            self.troubles.append(f"{way}: {self.provider.open} responses were left open")
            self.provider.open = 0
        return seen

    def cuts(self, every: int = 1) -> Iterator[tuple[int, Ending, Way]]:
        """The cuts of this stream: see above. With `every`, one offset in so many."""
        pairs = list(product(ENDINGS, self.ways))
        turn = sum(self.stream.name.encode())  # not all streams begin alike
        for number, at in enumerate(self._offsets()):
            if number % every:
                continue
            turn += 1
            for ending, way in pairs if CUTS == "all" else [pairs[turn * 5 % len(pairs)]]:
                yield at, ending, way

    def _offsets(self) -> Iterator[int]:
        seams = {0, *accumulate(map(len, split_events(self.stream.data)))}
        seams |= {end - 1 for end in seams if end}
        step = STEP if CUTS == "turns" else 16 if self.stream.name.endswith("huge-delta") else 1
        yield from (at for at in range(len(self.stream.data) + 1) if at in seams or at % step == 0)

    def cut(self, at: int, ending: Ending) -> Answer:
        """The stream up to there, every other time event by event."""
        data = self.stream.data[:at]
        return Answer(split_events(data) if at % 2 else (data,), ending)

    @property
    def calls(self) -> list[tuple[str, Any]]:
        """The calls of the answer that are whole."""
        return [(call["name"], arguments(call["arguments"])) for call in self.stream.expect["tool_calls"]]

    @cached_property
    def again(self) -> Says:
        """The whole stream; if it is nothing but text, the rest of it to who asks to go on."""
        stream, whole = self.stream, Answer((self.stream.data,))
        told = stream.expect
        plain = told["status"] == "complete" and stream.choices == 1 and told["text"]
        more = stream.verdict.get("tools") or told["tool_calls"] or told["commentary"] or told["reasoning"]
        if not plain or more or stream.name in BLOCKS:
            return whole
        return goes_on(stream.wire, told["text"], stream.data)


@pytest.fixture
def stage(stream: Stream, record_property: Callable[[str, object], None]) -> Iterator[Stage]:
    stage = Stage(stream)
    yield stage
    stage.close()
    record_property("cases: cuts under the SDKs", stage.cases)
    record_property("cases: cuts under the SDKs, continued", stage.continued)


readable = [stream for stream in GOOD if any((stream.name, style) not in UNREADABLE for style in STYLES)]
by_stream = pytest.mark.parametrize("stream", readable, ids=lambda stream: stream.name)


@pytest.mark.parametrize("stream", GOOD, ids=lambda stream: stream.name)
def test_what_the_bare_sdk_makes_of_a_whole_stream(stage: Stage) -> None:
    """What the cuts are compared with is the answer itself, or the consumer cannot read such a stream."""
    stream = stage.stream
    for style in STYLES:
        found, error, _ = stage.whole(style)
        if (stream.name, style) in UNREADABLE:
            assert error is not None or not any(found.text.values())
            continue
        told = stream.expect.get("texts", [stream.expect["commentary"] + stream.expect["text"]])
        assert "".join(found.text.values()) == "".join(told)


@by_stream
def test_a_cut_stream_comes_back_whole(stage: Stage) -> None:
    """Wherever and however the first body breaks, the SDK's consumer has the whole answer exactly once."""
    for at, ending, way in stage.cuts():
        seen = stage.play(way, stage.cut(at, ending), stage.again, stage.again)
        where = f"{ending} at {at}, {way}"
        stage.troubles += [f"{where}: {trouble}" for trouble in problems(stage, way, seen)]
        stage.continued += any(len(body.get("messages") or body["input"]) > 1 for body in stage.provider.requests)
    assert not stage.troubles, shown(stage.troubles)


def problems(stage: Stage, way: Way, seen: Seen) -> Iterator[str]:
    """What is wrong with a call that should have brought the whole answer."""
    wire = stage.stream.wire
    whole, error, own = stage.whole(way.style)
    found = view(wire, seen)
    if type(seen.error) is not type(error):
        yield f"it ended with {seen.error!r} ({seen.error and seen.error.__cause__!r})"
        return
    for name in ("text", "refusal"):
        if getattr(found, name) != getattr(whole, name):
            yield f"{name} {getattr(found, name)!r}"
    if found.calls not in (whole.calls, stage.calls):
        yield f"calls {found.calls}"
    yield from _reasoning_problems(wire, found, whole)
    if not _ends_alike(stage, found, whole):
        yield f"it ended as {found.ends}"
    if not _final_alike(stage, found, whole):
        yield f"the final object says {found.final}, not {whole.final}"
    for trouble in set(incoherent(wire, seen)) - own:
        yield f"the stream is incoherent: {trouble}"


def _ends_alike(stage: Stage, found: View, whole: View) -> bool:
    """One end, and the one that was recorded; what is settled has been completed, whatever came later."""
    if not whole.ends:
        return len(found.ends) <= 1
    end = "response.completed" if stage.stream.verdict["settle"] else whole.ends[-1]
    return len(found.ends) <= len(whole.ends) and found.ends[-1] in (whole.ends[-1], end)


def _final_alike(stage: Stage, found: View, whole: View) -> bool:
    """The same final object. Where the recorded one lists less than was said, all that was said will do."""
    if found.final == whole.final or not whole.ends:
        return True
    if stage.stream.wire == "responses":
        text = stage.stream.expect["commentary"] + stage.stream.expect["text"] + stage.stream.expect["refusal"]
        return found.final == ("completed", text, stage.calls) and whole.final is None or whole.final[1:] != found.final[1:]
    return False


def _reasoning_problems(wire: str, found: View, whole: View) -> Iterator[str]:
    """Reasoning is shown once; on the wire where it is signed it is whole, on the others a beginning of it."""
    whole_enough = found.reasoning == whole.reasoning or (
        wire != "messages" and whole.reasoning.startswith(found.reasoning)
    )
    if not whole_enough:
        yield f"reasoning {found.reasoning!r}"


def shown(troubles: list[str]) -> str:
    return "\n".join([f"{len(troubles)} troubles", *troubles[:12]])
