"""pydantic-ai: an Agent's `run_stream`, with the retrying http client of its documentation.

The SDK under it keeps its own two retries. An answer is whole if the response has the state "complete" and
the finish reason "stop". The limit for the first event spans the SDK's retries: four times that of one.
"""

from __future__ import annotations

from collections.abc import Callable

from _child import KEY, MODEL, Variant, serve
from httpx2 import HTTPStatusError, Response
from pydantic_ai import Agent, ModelSettings
from pydantic_ai.models import Model, create_async_httpx2_client
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.retries import AsyncHTTPX2TenacityTransport, RetryConfig, wait_retry_after
from tenacity import retry_if_exception_type, stop_after_attempt, wait_exponential


def _again(response: Response) -> None:
    if response.status_code in (429, 502, 503, 504):
        response.raise_for_status()


def provider(url: str) -> OpenAIProvider:
    config = RetryConfig(
        retry=retry_if_exception_type((HTTPStatusError, ConnectionError)),
        wait=wait_retry_after(fallback_strategy=wait_exponential(multiplier=1, max=60), max_wait=300),
        stop=stop_after_attempt(5),
        reraise=True,
    )
    transport = AsyncHTTPX2TenacityTransport(config, validate_response=_again)
    client = create_async_httpx2_client(transport=transport)
    return OpenAIProvider(base_url=url, api_key=KEY, http_client=client)


class Chat(Variant):
    """`OpenAIChatModel`."""

    def __init__(self, urls: list[str]) -> None:
        settings = ModelSettings(timeout=self.seconds, first_event_timeout=4 * self.seconds)
        self._agent = Agent(self._model(urls), model_settings=settings)

    def _model(self, urls: list[str]) -> Model:
        return OpenAIChatModel(MODEL, provider=provider(urls[0]))

    async def ask(self, prompt: str) -> tuple[str, bool]:
        text = ""
        async with self._agent.run_stream(prompt) as result:
            async for piece in result.stream_text(delta=True, debounce_by=None):
                text += piece
            response = result.response
        return text, response.state == "complete" and response.finish_reason == "stop"

    async def read(self, seen: Callable[[], None]) -> None:
        first = True
        async with self._agent.run_stream("hi") as result:
            async for _ in result.stream_text(delta=True, debounce_by=None):
                if first:
                    first = False
                    seen()


class Responses(Chat):
    """`OpenAIResponsesModel`."""

    def _model(self, urls: list[str]) -> Model:
        return OpenAIResponsesModel(MODEL, provider=provider(urls[0]))


class Fallback(Chat):
    """`FallbackModel` of two chat models."""

    def _model(self, urls: list[str]) -> Model:
        return FallbackModel(*(OpenAIChatModel(MODEL, provider=provider(url)) for url in urls))


class FallbackResponses(Chat):
    """`FallbackModel` of two Responses models."""

    def _model(self, urls: list[str]) -> Model:
        return FallbackModel(*(OpenAIResponsesModel(MODEL, provider=provider(url)) for url in urls))


VARIANTS: dict[str, type[Variant]] = {
    "chat": Chat,
    "responses": Responses,
    "fallback": Fallback,
    "fallback.responses": FallbackResponses,
}

if __name__ == "__main__":
    serve(VARIANTS)
