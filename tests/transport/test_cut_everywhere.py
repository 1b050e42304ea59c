"""Every recorded stream, cut at every byte under the real SDKs: in threads and in asyncio, by every ending.

The provider is in memory (provider_in_memory.py); above it are our transport and the openai and anthropic
clients with nothing replaced. The first body is cut and ends in one of four ways; then the whole stream is
said again, or, to a request to go on, the rest of it. What the SDK's consumer has in the end is compared with
what the same SDK makes of the whole stream alone.

A cut is an offset, one of `ENDINGS` and a `Way`; there are 32 pairs of these two. How many are made is
`SIDESTREAM_CUTS`:

- `turns` (default): the ends of events and one byte before, and every 24th byte, by one pair in turn.
- `every` (what CI does): every byte by one pair in turn. The SDKs need milliseconds to read a stream, so what
  they would be given is read as bytes first, and they read each body (and its error) once.
- `all`: every byte by all 32, each under the SDK.
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
from consumers import (
    SDKS,
    STYLES,
    Seen,
    View,
    aconsume,
    arguments,
    asked,
    client_of,
    consume,
    incoherent,
    view,
)
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
        self._told: set[Any] = set()
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
        policy = sidestream.Policy()  # the SDKs here ask nothing again, but we do
        return sidestream.wrap(client, policy=policy, continuation=continuation, system=patient(), observe=())

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
        step = STEP if CUTS == "turns" else 1
        yield from (at for at in range(len(self.stream.data) + 1) if at in seams or at % step == 0)

    def is_new(self, way: Way, *answers: Says) -> bool:
        """Whether the SDK would be given something that this consumer has not had in another cut."""
        if CUTS != "every":
            return True
        self.provider.play(*answers)
        self.cases += 1
        client = self._clients(way.is_async, way.continues)._client
        url, body = f"http://provider.test{_PATHS[self.stream.wire]}", {**self._ask, "stream": True}
        found = (
            self._loop.run_until_complete(_araw(client, url, body))
            if way.is_async
            else (_raw(client, url, body))
        )
        key = way.style, way.is_async, *found
        new = key not in self._told
        self._told.add(key)
        return new

    def cut(self, at: int, ending: Ending) -> Answer:
        """The stream up to there, every other time event by event."""
        data = self.stream.data[:at]
        return Answer(split_events(data) if at % 2 else (data,), ending)

    @property
    def calls(self) -> list[tuple[str, Any]]:
        """The calls of the answer that are whole."""
        return [(call["name"], arguments(call["arguments"])) for call in self.stream.expect["tool_calls"]]

    @property
    def end(self) -> int:
        """From there on, or in what may be taken for the end of it, a cut takes nothing away."""
        settle = self.stream.verdict["settle"]
        return int(settle[0] if settle else self.stream.verdict["end"])

    @property
    def settles(self) -> bool:
        """Whether it is whole before its end, and is then taken for complete, whatever would have come."""
        return bool(self.stream.verdict["settle"])

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


_PATHS = {"responses": "/v1/responses", "chat": "/v1/chat/completions", "messages": "/v1/messages"}


def _raw(client: httpx2.Client, url: str, body: dict[str, Any]) -> tuple[bytes, type | None]:
    """What a body is, and how it ends."""
    told = b""
    try:
        with client.stream("POST", url, json=body) as response:
            for chunk in response.iter_raw():
                told += chunk
    except Exception as error:  # noqa: BLE001  the SDK will see the same
        return told, type(error)
    return told, None


async def _araw(client: httpx2.AsyncClient, url: str, body: dict[str, Any]) -> tuple[bytes, type | None]:
    """What a body is, and how it ends."""
    told = b""
    try:
        async with client.stream("POST", url, json=body) as response:
            async for chunk in response.aiter_raw():
                told += chunk
    except Exception as error:  # noqa: BLE001  the SDK will see the same
        return told, type(error)
    return told, None


@pytest.fixture
def stage(stream: Stream, record_property: Callable[[str, object], None]) -> Iterator[Stage]:
    stage = Stage(stream)
    yield stage
    stage.close()
    record_property("cases: cuts under the SDKs", stage.cases)
    record_property("cases: cuts under the SDKs, continued", stage.continued)


readable = [stream for stream in GOOD if any((stream.name, style) not in UNREADABLE for style in STYLES)]
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer")  # phases that openai does not know
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
        answers = stage.cut(at, ending), stage.again, stage.again
        if not stage.is_new(way, *answers):
            continue
        seen = stage.play(way, *answers)
        where = f"{ending} at {at}, {way}"
        stage.troubles += [
            f"{where}: {trouble}" for trouble in problems(stage, way, seen, torn=ending != "clean")
        ]
        stage.continued += any(
            len(body.get("messages") or body["input"]) > 1 for body in stage.provider.requests
        )
    assert not stage.troubles, shown(stage.troubles)


def problems(stage: Stage, way: Way, seen: Seen, *, torn: bool) -> Iterator[str]:
    """What is wrong with a call that should have brought the whole answer."""
    wire = stage.stream.wire
    whole, error, own = stage.whole(way.style)
    found = view(wire, seen)
    if type(seen.error) is not type(error) and not (seen.error is None and stage.settles):
        yield f"it ended with {seen.error!r} ({seen.error and seen.error.__cause__!r})"
        return
    for name in ("text", "refusal"):
        if getattr(found, name) != getattr(whole, name):
            yield f"{name} {getattr(found, name)!r}"
    if found.calls not in (whole.calls, stage.calls):
        yield f"calls {found.calls}"
    yield from _reasoning_problems(wire, found, whole)
    if not _ends_alike(stage, found, whole, torn=torn):
        yield f"it ended as {found.ends}"
    if not _final_alike(stage, found, whole):
        yield f"the final object says {found.final}, not {whole.final}"
    for trouble in set(incoherent(wire, seen)) - own:
        yield f"the stream is incoherent: {trouble}"


def _ends_alike(stage: Stage, found: View, whole: View, *, torn: bool) -> bool:
    """One end, and the one that was recorded; what is settled has been completed, whatever came later."""
    if not whole.ends:
        return len(found.ends) <= 1
    if stage.stream.wire == "messages":  # whether message_stop is added depends on how the body ended
        stops = found.ends[-1] == "message_stop", whole.ends[-1] == "message_stop"
        return (
            stops[0] >= (stops[1] and torn)
            and found.ends[: len(found.ends) - stops[0]][-1:]
            == (whole.ends[: len(whole.ends) - stops[1]][-1:])
        )
    end = "response.completed" if stage.settles else whole.ends[-1]
    return len(found.ends) <= len(whole.ends) and found.ends[-1] in (whole.ends[-1], end)


def _final_alike(stage: Stage, found: View, whole: View) -> bool:
    """The same final object, without its half calls. Where the recorded one lists less than was said, all
    that was said will do."""
    if found.final == whole.final or not whole.ends:
        return True
    told = stage.stream.expect
    if stage.stream.wire == "responses":
        said = "".join(told[name] for name in ("commentary", "text", "refusal"))
        thought = told["reasoning"] if "analysis" in stage.stream.name else ""  # a message to the SDK
        return found.final == ("completed", thought + said, stage.calls)
    if stage.stream.wire == "messages" and told["status"] == "incomplete":
        reason, content = whole.final
        whole_calls = [part for part in content if (part["name"], part["input"]) in stage.calls]
        kept = [part for part in content if part["type"] != "tool_use" or part in whole_calls]
        return found.final == (reason, kept)
    return False


def _reasoning_problems(wire: str, found: View, whole: View) -> Iterator[str]:
    """Reasoning is shown once; where it is signed it is whole, on the other wires a beginning of it."""
    whole_enough = found.reasoning == whole.reasoning or (
        wire != "messages" and whole.reasoning.startswith(found.reasoning)
    )
    if not whole_enough:
        yield f"reasoning {found.reasoning!r}"


@by_stream
def test_cut_at_the_same_place_again_is_the_sdks_own_error(stage: Stage) -> None:
    """If it breaks there each time, the SDK's user catches the SDK's connection error with ours as its cause,
    and has a beginning of the answer, with no call that is not whole."""
    for at, ending, way in stage.cuts(every=SAMPLE):
        if at >= stage.end:
            continue
        seen = stage.play(way, *[stage.cut(at, ending)] * 4)
        where = f"{ending} again at {at}, {way}"
        stage.troubles += [f"{where}: {trouble}" for trouble in failure_problems(stage, way, seen)]
    assert not stage.troubles, shown(stage.troubles)


_UNICODE = {"responses": "unicode-raw", "chat": "unicode", "messages": "unicode"}


@by_stream
def test_another_answer_after_the_cut_is_never_mixed_in(stage: Stage) -> None:
    """If the answer that comes then is another one, the consumer has that from its beginning, if it had none
    of the first yet, or else the error with what it has."""
    texts = {f"{stage.stream.wire}/plain-text", f"{stage.stream.wire}/{_UNICODE[stage.stream.wire]}"}
    other = next(o for o in GOOD if o.name in texts and o is not stage.stream)
    for at, ending, way in stage.cuts(every=SAMPLE):
        if at >= stage.end:
            continue
        told = Answer((other.data,))
        seen = stage.play(way, stage.cut(at, ending), *[told] * 4)
        where = f"{ending} at {at}, then another, {way}"
        if seen.error is None or not isinstance(seen.error, SDKS[stage.stream.wire].APIError):
            found = view(stage.stream.wire, seen)
            if "".join(found.text.values()) != other.expect["text"]:
                stage.troubles.append(f"{where}: text {found.text}")
            if found.calls:
                stage.troubles.append(f"{where}: calls {found.calls}")
        else:
            stage.troubles += [f"{where}: {trouble}" for trouble in failure_problems(stage, way, seen)]
    assert not stage.troubles, shown(stage.troubles)


def failure_problems(stage: Stage, way: Way, seen: Seen) -> Iterator[str]:
    """What is wrong with a call that could not bring the answer back."""
    wire, error = stage.stream.wire, seen.error
    if not isinstance(error, SDKS[wire].APIConnectionError):
        yield f"it ended with {error!r}"
    elif not isinstance(error.__cause__, SidestreamError):
        yield f"the cause is {error.__cause__!r}"
    elif error.__cause__.reply is None:
        yield "there is no partial"
    whole = stage.whole(way.style)[0]
    found = view(wire, seen)
    for number, text in found.text.items():
        if not whole.text.get(number, "").startswith(text):
            yield f"text {text!r}"
    if found.calls != whole.calls[: len(found.calls)] and found.calls != stage.calls[: len(found.calls)]:
        yield f"calls {found.calls}"
    if not whole.reasoning.startswith(found.reasoning) or not whole.refusal.startswith(found.refusal):
        yield f"reasoning {found.reasoning!r}, refusal {found.refusal!r}"
    if found.final is not None or sum(map(bool, found.ends)) >= stage.stream.choices:
        yield f"it is called finished: {found.ends}"


def shown(troubles: list[str]) -> str:
    return "\n".join([f"{len(troubles)} troubles", *troubles[:12]])
