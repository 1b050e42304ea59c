"""One client of the CPU benchmark, as a process of its own: read N streams, print CPU seconds and events.

Called by bench/cpu.py as `python clients.py VARIANT URL STREAMS`. Two streams are read first and not counted
(imports, first connection); then `time.process_time` covers everything the process does, all threads.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

BODY = {"model": "lab-1", "input": "hi", "stream": True}
HEADERS = {"Authorization": "Bearer bench"}


def httpx2_sync(url: str) -> Callable[[], int]:
    import httpx2

    client = httpx2.Client(timeout=30)

    def read() -> int:
        seen = 0
        with client.stream("POST", f"{url}/responses", json=BODY, headers=HEADERS) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    json.loads(line[6:])
                    seen += 1
        return seen

    return read


def httpx2_async(url: str) -> Callable[[], Awaitable[int]]:
    import httpx2

    client = httpx2.AsyncClient(timeout=30)

    async def read() -> int:
        seen = 0
        async with client.stream("POST", f"{url}/responses", json=BODY, headers=HEADERS) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    json.loads(line[6:])
                    seen += 1
        return seen

    return read


def sidestream_stream(url: str) -> Callable[[], int]:
    import sidestream

    client = sidestream.Client(url, api_key="bench", model="lab-1", wire="responses")

    def read() -> int:
        with client.stream("hi") as stream:
            for _ in stream:
                pass
        return stream.reply.attempts[0].events

    return read


def sidestream_complete(url: str) -> Callable[[], int]:
    import sidestream

    client = sidestream.Client(url, api_key="bench", model="lab-1", wire="responses")
    return lambda: client.complete("hi").attempts[0].events


def sidestream_async(url: str) -> Callable[[], Awaitable[int]]:
    import sidestream

    client = sidestream.AsyncClient(url, api_key="bench", model="lab-1", wire="responses")
    entered = False

    async def read() -> int:
        nonlocal entered
        if not entered:  # entered once, so that connections are kept, as the peers keep theirs
            await client.__aenter__()
            entered = True
        async with client.stream("hi") as stream:
            async for _ in stream:
                pass
        return stream.reply.attempts[0].events

    return read


def openai_sync(url: str) -> Callable[[], int]:
    import openai

    client = openai.OpenAI(base_url=url, api_key="bench")

    def read() -> int:
        return sum(1 for _ in client.responses.create(model="lab-1", input="hi", stream=True))

    return read


VARIANTS = {
    "httpx2-sync": httpx2_sync,
    "httpx2-async": httpx2_async,
    "sidestream-stream": sidestream_stream,
    "sidestream-complete": sidestream_complete,
    "sidestream-async": sidestream_async,
    "openai-sync": openai_sync,
}


def measure(variant: str, url: str, streams: int) -> dict[str, float]:
    read = VARIANTS[variant](url)
    loop = asyncio.new_event_loop()

    def once() -> int:
        got = read()
        return got if isinstance(got, int) else loop.run_until_complete(got)  # type: ignore[arg-type]

    for _ in range(2):
        once()
    begun = time.process_time()
    events = sum(once() for _ in range(streams))
    return {"cpu": time.process_time() - begun, "events": events}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
