"""What sidestream adds under the SDKs: CPU per event, and latency per event. No socket, one process.

    python bench/under_sdk.py [--size smoke|short|full] [--rounds N] [--streams N] [--tokens N] [--json FILE]

An httpx2 transport in memory plays a text stream of the lab, event by event. The openai and anthropic SDKs
read it, alone and wrapped, in alternating streams of the same round. CPU is the process's own, divided by
events; a round's figure is that of its least disturbed stream, the ratio is taken per round, and medians are
printed. Latency is the time from the chunk leaving the transport below until whoever reads bytes above has it
(the SDK's own work comes after that), less the median of the same without us. Nothing is asserted.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from statistics import median
from typing import Any

import anthropic
import httpx2
import openai

import sidestream
from ratios import markdown, per_round, quantile
from sidestream.lab import script
from sizes import Size, Target, parser, write

NAME = "under_sdk"
_TEXTS = {"responses": script.responses_text, "chat": script.chat_text, "messages": script.messages_text}
_PATHS = {"responses": "/v1/responses", "chat": "/v1/chat/completions", "messages": "/v1/messages"}
_USER = [{"role": "user", "content": "hi"}]


class Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """Events, each a chunk of its own; notes when each was handed over, if asked to."""

    def __init__(self, events: tuple[bytes, ...], sent: list[float] | None) -> None:
        self._events = events
        self._sent = sent

    def __iter__(self) -> Iterator[bytes]:
        for event in self._events:
            if self._sent is not None:
                self._sent.append(time.perf_counter())
            yield event

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for event in self:
            yield event


class Transport(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Answers everything with the same events."""

    def __init__(self, events: tuple[bytes, ...]) -> None:
        self._events = events
        self.sent: list[float] | None = None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        return self._answer()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        return self._answer()

    def _answer(self) -> httpx2.Response:
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, stream=Body(self._events, self.sent))


class Reader:
    """One SDK client over such a transport."""

    def __init__(self, wire: str, events: tuple[bytes, ...], *, is_async: bool, wrapped: bool) -> None:
        self.wire = wire
        self.events = len(events)
        self.is_async = is_async
        self.transport = Transport(events)
        http: Any = (httpx2.AsyncClient if is_async else httpx2.Client)(transport=self.transport)
        if wire == "messages":
            kind: Any = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
            url = "http://provider.test"
        else:
            kind = openai.AsyncOpenAI if is_async else openai.OpenAI
            url = "http://provider.test/v1"
        client = kind(base_url=url, api_key="sk-bench-1234", http_client=http)
        self.client = sidestream.wrap(client, observe=()) if wrapped else client
        self._ask: dict[str, Any] = {"input": _USER} if wire == "responses" else {"messages": _USER}
        self._ask |= {"model": "m", "stream": True}
        if wire == "messages":
            self._ask["max_tokens"] = 4096

    def read(self) -> None:
        """One stream, to its end."""
        if self.is_async:
            asyncio.run(self._aread())
            return
        for _ in self._create():
            pass

    async def _aread(self) -> None:
        async for _ in await self._create():
            pass

    def _create(self) -> Any:
        calls = {"responses": "responses", "chat": "chat", "messages": "messages"}
        home = getattr(self.client, calls[self.wire])
        return (home.completions if self.wire == "chat" else home).create(**self._ask)

    def cpu(self) -> float:
        """CPU seconds of one stream."""
        begun = time.process_time()
        self.read()
        return time.process_time() - begun

    def latency(self) -> list[float]:
        """Seconds from each chunk's leaving until who reads bytes has it."""
        got: list[float] = []
        self.transport.sent = []
        url, body = f"http://provider.test{_PATHS[self.wire]}", self._ask
        if self.is_async:
            asyncio.run(self._agot(url, body, got))
        else:
            with self.client._client.stream("POST", url, json=body) as response:
                got += [time.perf_counter() for _ in response.iter_bytes()]
        sent, self.transport.sent = self.transport.sent, None
        return [b - a for a, b in zip(sent, got, strict=False)]

    async def _agot(self, url: str, body: dict[str, Any], got: list[float]) -> None:
        async with self.client._client.stream("POST", url, json=body) as response:
            got += [time.perf_counter() async for _ in response.aiter_bytes()]


@dataclass(frozen=True)
class Work:
    """How much is read: streams of each kind in a round, of so many tokens."""

    rounds: int
    streams: int
    tokens: int


WORK: dict[Size, Work] = {"smoke": Work(1, 2, 100), "short": Work(3, 8, 400), "full": Work(7, 15, 400)}


def measure(size: Size) -> dict[str, Any]:
    """Microseconds per event, of each wire, sync and async, alone and wrapped."""
    return measured(WORK[size])


def measured(work: Work) -> dict[str, Any]:
    kinds = {}
    for wire, make in _TEXTS.items():
        events = make("word " * work.tokens, tokens=work.tokens).events
        for is_async in (False, True):
            name = f"{wire} {'async' if is_async else 'sync'}"
            print(f"{NAME}: {name}", file=sys.stderr, flush=True)
            kinds[name] = compared(wire, events, work, is_async=is_async)
    return {"work": asdict(work), "kinds": kinds}


def compared(wire: str, events: tuple[bytes, ...], work: Work, *, is_async: bool) -> dict[str, Any]:
    """CPU of both, per event and round, and the rounds' latencies: median and 99th percentile."""
    readers = {
        name: Reader(wire, events, is_async=is_async, wrapped=name == "wrapped")
        for name in ("alone", "wrapped")
    }
    found: dict[str, Any] = {name: {"cpu": [], "p50": [], "p99": []} for name in readers}
    for reader in readers.values():
        reader.read()
    for _ in range(work.rounds):
        turns = [{name: reader.cpu() for name, reader in readers.items()} for _ in range(work.streams)]
        gc.collect()
        for name, reader in readers.items():
            found[name]["cpu"].append(1e6 * min(turn[name] for turn in turns) / len(events))
            late = reader.latency()
            found[name]["p50"].append(1e6 * median(late))
            found[name]["p99"].append(1e6 * quantile(late, 0.99))
    return found


def added(record: dict[str, Any], name: str) -> float:
    """The share of CPU that sidestream adds to a kind of client: the median of the rounds' own."""
    kind = record["kinds"][name]
    return per_round(kind["wrapped"]["cpu"], kind["alone"]["cpu"]) - 1


def targets(record: dict[str, Any]) -> list[Target]:
    """The aim is for the openai SDK."""
    return [
        Target(f"CPU added under the openai SDK, in memory, {name}: %", 10, 100 * added(record, name))
        for name in record["kinds"]
        if not name.startswith("messages")
    ]


def tables(record: dict[str, Any]) -> str:
    """A row for each kind of client."""
    heads = ["", "SDK alone", "wrapped", "added CPU", "added latency p50", "p99"]
    return "\n\n".join(
        [_WORDS.format_map(record["work"]), markdown(heads, map(_row, repeat(record), record["kinds"]))]
    )


_WORDS = """\
Microseconds per event: the least disturbed of {streams} streams, medians of {rounds} rounds, the ratio taken
per round. Latency: from the chunk leaving the transport below until the SDK's byte iterator has it, less the
median of the same without us."""


def _row(record: dict[str, Any], name: str) -> list[str]:
    alone, wrapped = record["kinds"][name]["alone"], record["kinds"][name]["wrapped"]
    late = (median(wrapped[share]) - median(alone["p50"]) for share in ("p50", "p99"))
    cpu = (f"{median(kind['cpu']):.1f}" for kind in (alone, wrapped))
    return [name, *cpu, f"{added(record, name):.1%}", *(f"{us:.1f}" for us in late)]


def main() -> int:
    options = parser(__doc__)
    for name in ("rounds", "streams", "tokens"):
        options.add_argument(f"--{name}", type=int, metavar="N", help="instead of the size's")
    given = options.parse_args()
    chosen = {name: value for name in ("rounds", "streams", "tokens") if (value := getattr(given, name))}
    record = measured(replace(WORK[given.size], **chosen))
    if given.json:
        write(record, given.json)
    print(tables(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
