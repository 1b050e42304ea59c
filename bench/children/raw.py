"""The floor: a loop that reads a stream's lines, parses each event's JSON and knows nothing of its meaning.

The lines, as an HTTP library hands them out best: httpx2 by `iter_lines`, http.client by `read1` and a split.
No retries, no limits on connections, no opinion on whether an answer is whole: there is no `ask`.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx2
from _child import KEY, MODEL, Variant, serve

_PATHS = {"responses": "responses", "chat": "chat/completions", "messages": "messages"}
_MANY = httpx2.Limits(max_connections=None, max_keepalive_connections=None)


class _Raw(Variant):
    wire = "responses"

    def __init__(self, urls: list[str]) -> None:
        self._url = f"{urls[0]}/{_PATHS[self.wire]}"
        self._headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        asked: dict[str, Any] = {"model": MODEL, "stream": True}
        if self.wire == "responses":
            asked |= {"input": "hi"}
        else:
            asked |= {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4096}
        self._body = json.dumps(asked).encode()
        self._open()

    def _open(self) -> None:
        raise NotImplementedError


class Httpx2(_Raw):
    """`Client.stream`, `iter_lines`, `json.loads`."""

    def _open(self) -> None:
        self._client = httpx2.Client(timeout=self.seconds, limits=_MANY)

    def read(self, seen: Callable[[], None]) -> None:
        first = True
        with self._client.stream("POST", self._url, content=self._body, headers=self._headers) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    if first and has_text(event):
                        first = False
                        seen()


class Httpx2Chat(Httpx2):
    wire = "chat"


class Httpx2Messages(Httpx2):
    wire = "messages"


class AsyncHttpx2(_Raw):
    """`AsyncClient.stream`, `aiter_lines`, `json.loads`."""

    def _open(self) -> None:
        self._client = httpx2.AsyncClient(timeout=self.seconds, limits=_MANY)

    async def read(self, seen: Callable[[], None]) -> None:
        first = True
        stream = self._client.stream("POST", self._url, content=self._body, headers=self._headers)
        async with stream as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    if first and has_text(event):
                        first = False
                        seen()


class AsyncHttpx2Chat(AsyncHttpx2):
    wire = "chat"


class AsyncHttpx2Messages(AsyncHttpx2):
    wire = "messages"


class HttpClient(_Raw):
    """The standard library: one connection, `read1`, `split`, `json.loads`."""

    def _open(self) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(self._url).netloc, timeout=self.seconds)

    def read(self, seen: Callable[[], None]) -> None:
        first = True
        self._connection.request("POST", urlsplit(self._url).path, self._body, self._headers)
        response, rest = self._connection.getresponse(), b""
        while got := response.read1():
            *lines, rest = (rest + got).split(b"\n")
            for line in lines:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    if first and has_text(event):
                        first = False
                        seen()
        response.read()  # its own note that this was the end


def has_text(event: dict[str, Any]) -> bool:
    """Whether an event of any wire carries text."""
    if "choices" in event:
        return any(choice["delta"].get("content") for choice in event["choices"])
    return event["type"] in ("response.output_text.delta", "content_block_delta")


if __name__ == "__main__":
    serve(
        {
            "httpx2": Httpx2,
            "httpx2.chat": Httpx2Chat,
            "httpx2.messages": Httpx2Messages,
            "httpx2.async": AsyncHttpx2,
            "httpx2.chat.async": AsyncHttpx2Chat,
            "httpx2.messages.async": AsyncHttpx2Messages,
            "http.client": HttpClient,
        }
    )
