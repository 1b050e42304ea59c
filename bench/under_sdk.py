"""What sidestream adds under the SDKs: CPU per event, and latency per event. No socket, one process.

    python bench/under_sdk.py [--rounds 9] [--streams 20] [--tokens 400]

An httpx2 transport in memory plays a text stream of the lab, event by event. The openai and anthropic SDKs
read it, alone and wrapped, in alternating streams of the same round. CPU is the process's own, divided by
events; a round's figure is that of its least disturbed stream, the ratio is taken per round, and medians are
printed. Latency is the time from the chunk leaving the transport below until whoever reads bytes above has it
(the SDK's own work comes after that), less the median of the same without us. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai

import sidestream
from sidestream.lab import script

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
        self._ask = {"input": _USER} if wire == "responses" else {"messages": _USER}
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
        self.transport.sent, got = [], []
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


def measured(
    wire: str, events: tuple[bytes, ...], args: argparse.Namespace, *, is_async: bool
) -> dict[str, Any]:
    """CPU of both, per event and round, and latencies."""
    alone, wrapped = (Reader(wire, events, is_async=is_async, wrapped=under) for under in (False, True))
    cpu: dict[str, list[float]] = {"alone": [], "wrapped": []}
    late: dict[str, list[float]] = {"alone": [], "wrapped": []}
    alone.read()
    wrapped.read()
    for _ in range(args.rounds):
        pairs = [(alone.cpu(), wrapped.cpu()) for _ in range(args.streams)]
        for name, found in zip(cpu, zip(*pairs, strict=True), strict=True):
            cpu[name].append(1e6 * min(found) / len(events))
        gc.collect()
        late["alone"] += alone.latency()
        late["wrapped"] += wrapped.latency()
    return {"cpu": cpu, "latency": {name: [1e6 * s for s in found] for name, found in late.items()}}


def percentile(found: list[float], share: float) -> float:
    return sorted(found)[min(len(found) - 1, int(len(found) * share))]


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--streams", type=int, default=20, help="streams of each kind in a round")
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--json", type=Path, help="write every single figure here")
    args = parser.parse_args()
    text = "word " * args.tokens
    figures: dict[str, Any] = {}
    print(f"{'':16} {'SDK alone':>10} {'wrapped':>9} {'added':>7} {'latency p50':>12} {'p99':>7}   us/event")
    for wire, make in _TEXTS.items():
        events = make(text, tokens=args.tokens).events
        for is_async in (False, True):
            name = f"{wire} {'async' if is_async else 'sync'}"
            figures[name] = found = measured(wire, events, args, is_async=is_async)
            cpu, late = found["cpu"], found["latency"]
            ratio = statistics.median(w / a for a, w in zip(cpu["alone"], cpu["wrapped"], strict=True))
            base = statistics.median(late["alone"])
            print(
                f"{name:16} {statistics.median(cpu['alone']):10.1f} {statistics.median(cpu['wrapped']):9.1f}"
                f" {ratio - 1:7.1%} {percentile(late['wrapped'], 0.5) - base:12.1f}"
                f" {percentile(late['wrapped'], 0.99) - base:7.1f}"
            )
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
