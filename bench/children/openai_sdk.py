"""The openai SDK, with its own defaults (two retries before the first byte)."""

from __future__ import annotations

from collections.abc import Callable

from _child import KEY, MODEL, SECONDS, Variant, serve
from openai import OpenAI


class _OpenAI(Variant):
    def __init__(self, urls: list[str]) -> None:
        self._client = OpenAI(base_url=urls[0], api_key=KEY, timeout=SECONDS)


class ResponsesCreate(_OpenAI):
    """`responses.create(stream=True)`: deltas joined; whole if `response.completed` came."""

    def ask(self, prompt: str) -> tuple[str, bool]:
        text, whole = "", False
        for event in self._client.responses.create(model=MODEL, input=prompt, stream=True):
            if event.type == "response.output_text.delta":
                text += event.delta
            whole = whole or event.type == "response.completed"
        return text, whole

    def read(self, seen: Callable[[], None]) -> None:
        for event in self._client.responses.create(model=MODEL, input="hi", stream=True):
            if event.type == "response.output_text.delta":
                seen()


if __name__ == "__main__":
    serve({"responses": ResponsesCreate})
