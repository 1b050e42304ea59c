"""The anthropic SDK, with its own defaults (two retries before the first byte)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _child import KEY, MODEL, Variant, serve
from anthropic import Anthropic, AsyncAnthropic

WHOLE = "end_turn"
MAX_TOKENS = 8192


def asking(prompt: str) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": prompt}]}


class _Anthropic(Variant):
    def __init__(self, urls: list[str]) -> None:
        base = urls[0].removesuffix("/v1")
        self._client = Anthropic(base_url=base, api_key=KEY, timeout=self.seconds)


class Stream(_Anthropic):
    """`messages.stream()` and its final message; whole if that has the stop reason "end_turn"."""

    def ask(self, prompt: str) -> tuple[str, bool]:
        with self._client.messages.stream(**asking(prompt)) as stream:
            message = stream.get_final_message()
        return "".join(block.text for block in message.content), message.stop_reason == WHOLE

    def read(self, seen: Callable[[], None]) -> None:
        first = True
        with self._client.messages.stream(**asking("hi")) as stream:
            for event in stream:
                if first and event.type == "content_block_delta":
                    first = False
                    seen()


class Create(_Anthropic):
    """`messages.create(stream=True)`: deltas joined; whole if the stop reason "end_turn" came."""

    def ask(self, prompt: str) -> tuple[str, bool]:
        text, whole = "", False
        for event in self._client.messages.create(**asking(prompt), stream=True):
            if event.type == "content_block_delta":
                text += event.delta.text
            whole = whole or (event.type == "message_delta" and event.delta.stop_reason == WHOLE)
        return text, whole

    def read(self, seen: Callable[[], None]) -> None:
        first = True
        for event in self._client.messages.create(**asking("hi"), stream=True):
            if first and event.type == "content_block_delta":
                first = False
                seen()


class StreamAsync(Variant):
    """`Stream` with asyncio."""

    def __init__(self, urls: list[str]) -> None:
        base = urls[0].removesuffix("/v1")
        self._client = AsyncAnthropic(base_url=base, api_key=KEY, timeout=self.seconds)

    async def ask(self, prompt: str) -> tuple[str, bool]:
        async with self._client.messages.stream(**asking(prompt)) as stream:
            message = await stream.get_final_message()
        return "".join(block.text for block in message.content), message.stop_reason == WHOLE

    async def read(self, seen: Callable[[], None]) -> None:
        first = True
        async with self._client.messages.stream(**asking("hi")) as stream:
            async for event in stream:
                if first and event.type == "content_block_delta":
                    first = False
                    seen()


VARIANTS: dict[str, type[Variant]] = {
    "messages.stream": Stream,
    "messages.create": Create,
    "messages.async": StreamAsync,
}

if __name__ == "__main__":
    serve(VARIANTS)
