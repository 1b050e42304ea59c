"""The floor of asyncio: aiohttp's lines, each event's JSON parsed. See `raw`."""

from __future__ import annotations

import json
from collections.abc import Callable

import aiohttp
from _child import KEY, MODEL, Variant, serve


class Aiohttp(Variant):
    """`ClientSession.post`, `async for line in response.content`, `json.loads`; no limit on connections."""

    def __init__(self, urls: list[str]) -> None:
        self._url = f"{urls[0]}/responses"
        self._headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        self._body = json.dumps({"model": MODEL, "input": "hi", "stream": True}).encode()
        self._session: aiohttp.ClientSession | None = None

    async def read(self, seen: Callable[[], None]) -> None:
        if self._session is None:  # it has to be made within the loop
            connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(sock_read=self.seconds)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._headers)
        first = True
        async with self._session.post(self._url, data=self._body) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    if first and event["type"] == "response.output_text.delta":
                        first = False
                        seen()


if __name__ == "__main__":
    serve({"aiohttp": Aiohttp})
