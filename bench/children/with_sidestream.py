"""sidestream's own clients, with their defaults; only `first` and `idle` are the benchmark's.

Answers arrive whole or as an error that carries the partial. Here no route says how it is continued, so the
provider table's rule for an unknown endpoint counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _child import KEY, MODEL, Variant, serve

from sidestream import (
    AsyncClient,
    Client,
    Restarted,
    Route,
    Secret,
    SidestreamError,
    TextDelta,
    Timeouts,
)


class _Ours(Variant):
    wire = "responses"

    def _options(self, urls: list[str]) -> dict[str, Any]:
        routes = [Route(url, MODEL, self.wire, api_key=Secret(KEY)) for url in urls]
        return {"routes": routes, "timeout": Timeouts(first=self.seconds, idle=self.seconds), "observe": ()}

    def kept(self, error: BaseException) -> str:
        return error.reply.text if isinstance(error, SidestreamError) and error.reply else ""


class Complete(_Ours):
    """`Client.complete`; whole if the reply is complete."""

    def __init__(self, urls: list[str]) -> None:
        self._client = Client(**self._options(urls))

    def ask(self, prompt: str) -> tuple[str, bool]:
        reply = self._client.complete(prompt)
        return reply.text, reply.status == "complete"

    def read(self, seen: Callable[[], None]) -> None:
        self._client.complete("hi")
        seen()


class Stream(Complete):
    """`Client.stream`, read along: pieces joined, void ones dropped; whole if the reply is complete."""

    def ask(self, prompt: str) -> tuple[str, bool]:
        pieces: list[str] = []
        with self._client.stream(prompt) as stream:
            for event in stream:
                if isinstance(event, TextDelta):
                    pieces.append(event.delta)
                elif isinstance(event, Restarted):
                    pieces.clear()
        return "".join(pieces), stream.reply.status == "complete"

    def read(self, seen: Callable[[], None]) -> None:
        first = True
        with self._client.stream("hi") as stream:
            for event in stream:
                if first and isinstance(event, TextDelta):
                    first = False
                    seen()


class _OursAsync(_Ours):
    """`AsyncClient`, entered once as a program does that keeps it."""

    def __init__(self, urls: list[str]) -> None:
        self._client = AsyncClient(**self._options(urls))
        self._entered = False

    async def _kept(self) -> AsyncClient:
        if not self._entered:
            self._entered = True
            await self._client.__aenter__()
        return self._client


class CompleteAsync(_OursAsync):
    """`AsyncClient.complete`; whole if the reply is complete."""

    async def ask(self, prompt: str) -> tuple[str, bool]:
        reply = await (await self._kept()).complete(prompt)
        return reply.text, reply.status == "complete"

    async def read(self, seen: Callable[[], None]) -> None:
        await (await self._kept()).complete("hi")
        seen()


class StreamAsync(_OursAsync):
    """`AsyncClient.stream`, as `Stream`."""

    async def ask(self, prompt: str) -> tuple[str, bool]:
        pieces: list[str] = []
        async with (await self._kept()).stream(prompt) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    pieces.append(event.delta)
                elif isinstance(event, Restarted):
                    pieces.clear()
        return "".join(pieces), stream.reply.status == "complete"

    async def read(self, seen: Callable[[], None]) -> None:
        first = True
        async with (await self._kept()).stream("hi") as stream:
            async for event in stream:
                if first and isinstance(event, TextDelta):
                    first = False
                    seen()


class CompleteChat(Complete):
    wire = "chat"


class CompleteMessages(Complete):
    wire = "messages"


class StreamChat(Stream):
    wire = "chat"


class StreamMessages(Stream):
    wire = "messages"


class CompleteChatAsync(CompleteAsync):
    wire = "chat"


class StreamChatAsync(StreamAsync):
    wire = "chat"


if __name__ == "__main__":
    serve(
        {
            "complete": Complete,
            "complete.chat": CompleteChat,
            "complete.messages": CompleteMessages,
            "complete.async": CompleteAsync,
            "complete.chat.async": CompleteChatAsync,
            "stream": Stream,
            "stream.chat": StreamChat,
            "stream.messages": StreamMessages,
            "stream.async": StreamAsync,
            "stream.chat.async": StreamChatAsync,
        }
    )
