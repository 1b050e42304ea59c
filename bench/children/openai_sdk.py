"""The openai SDK, with its own defaults (two retries before the first byte)."""

from __future__ import annotations

from collections.abc import Callable

from _child import KEY, MODEL, Variant, serve
from openai import AsyncOpenAI, OpenAI


class Told(Exception):
    """The SDK hands on an error of the stream as an event, and whoever reads it raises."""


class _OpenAI(Variant):
    def __init__(self, urls: list[str]) -> None:
        self._client = OpenAI(base_url=urls[0], api_key=KEY, timeout=self.seconds)


class ResponsesCreate(_OpenAI):
    """`responses.create(stream=True)`: deltas joined; whole if `response.completed` came."""

    def ask(self, prompt: str) -> tuple[str, bool]:
        text, whole = "", False
        for event in self._client.responses.create(model=MODEL, input=prompt, stream=True):
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type in ("error", "response.failed"):
                raise Told(event)
            whole = whole or event.type == "response.completed"
        return text, whole

    def read(self, seen: Callable[[], None]) -> None:
        first = True
        for event in self._client.responses.create(model=MODEL, input="hi", stream=True):
            if first and event.type == "response.output_text.delta":
                first = False
                seen()


class ResponsesStream(_OpenAI):
    """`responses.stream()` and its final response; whole if that is completed."""

    def ask(self, prompt: str) -> tuple[str, bool]:
        with self._client.responses.stream(model=MODEL, input=prompt) as stream:
            response = stream.get_final_response()
        return response.output_text, response.status == "completed"

    def read(self, seen: Callable[[], None]) -> None:
        first = True
        with self._client.responses.stream(model=MODEL, input="hi") as stream:
            for event in stream:
                if first and event.type == "response.output_text.delta":
                    first = False
                    seen()


class ResponsesWhole(_OpenAI):
    """`responses.create()` without a stream; whole if the response is completed."""

    def ask(self, prompt: str) -> tuple[str, bool]:
        response = self._client.responses.create(model=MODEL, input=prompt)
        return response.output_text, response.status == "completed"

    def read(self, seen: Callable[[], None]) -> None:
        self._client.responses.create(model=MODEL, input="hi")
        seen()


class Chat(_OpenAI):
    """`chat.completions.create(stream=True)`; whole if a finish reason "stop" came."""

    def ask(self, prompt: str) -> tuple[str, bool]:
        turns = [{"role": "user", "content": prompt}]
        text, whole = "", False
        for chunk in self._client.chat.completions.create(model=MODEL, messages=turns, stream=True):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                whole = whole or choice.finish_reason == "stop"
        return text, whole

    def read(self, seen: Callable[[], None]) -> None:
        first = True
        turns = [{"role": "user", "content": "hi"}]
        for chunk in self._client.chat.completions.create(model=MODEL, messages=turns, stream=True):
            if first and chunk.choices and chunk.choices[0].delta.content:
                first = False
                seen()


class _Async(Variant):
    def __init__(self, urls: list[str]) -> None:
        self._client = AsyncOpenAI(base_url=urls[0], api_key=KEY, timeout=self.seconds)


class ResponsesAsync(_Async):
    """`ResponsesCreate` with asyncio."""

    async def ask(self, prompt: str) -> tuple[str, bool]:
        text, whole = "", False
        async for event in await self._client.responses.create(model=MODEL, input=prompt, stream=True):
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type in ("error", "response.failed"):
                raise Told(event)
            whole = whole or event.type == "response.completed"
        return text, whole

    async def read(self, seen: Callable[[], None]) -> None:
        first = True
        async for event in await self._client.responses.create(model=MODEL, input="hi", stream=True):
            if first and event.type == "response.output_text.delta":
                first = False
                seen()


class ChatAsync(_Async):
    """`Chat` with asyncio."""

    async def ask(self, prompt: str) -> tuple[str, bool]:
        turns = [{"role": "user", "content": prompt}]
        text, whole = "", False
        async for chunk in await self._client.chat.completions.create(
            model=MODEL, messages=turns, stream=True
        ):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                whole = whole or choice.finish_reason == "stop"
        return text, whole

    async def read(self, seen: Callable[[], None]) -> None:
        first = True
        turns = [{"role": "user", "content": "hi"}]
        async for chunk in await self._client.chat.completions.create(
            model=MODEL, messages=turns, stream=True
        ):
            if first and chunk.choices and chunk.choices[0].delta.content:
                first = False
                seen()


VARIANTS: dict[str, type[Variant]] = {
    "responses": ResponsesCreate,
    "responses.stream": ResponsesStream,
    "responses.whole": ResponsesWhole,
    "chat": Chat,
    "responses.async": ResponsesAsync,
    "chat.async": ChatAsync,
}

if __name__ == "__main__":
    serve(VARIANTS)
