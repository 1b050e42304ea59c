"""LiteLLM: `acompletion`, `aresponses`, and the Router with retries, fallbacks and mid-stream continuation.

A chat stream is whole if a finish reason "stop" came, a Responses stream if `response.completed` did. The
Router's second group is a model that LiteLLM knows to take a prefill, which its continuation needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import litellm
from _child import KEY, MODEL, Variant, serve

RETRIES = 2
PREFILLED = "deepseek/deepseek-chat"
STREAMED = "openai/gpt-4.1"  # of models it does not know LiteLLM asks no stream over Responses
# A Responses model that it does not know is asked without a stream, and its answer replayed as one.
litellm.register_model({f"openai/{MODEL}": {"litellm_provider": "openai", "supports_native_streaming": True}})


class _Chat(Variant):
    async def _stream(self, prompt: str) -> Any:
        raise NotImplementedError

    async def ask(self, prompt: str) -> tuple[str, bool]:
        text, whole = "", False
        async for chunk in await self._stream(prompt):
            for choice in chunk.choices if chunk else ():
                text += choice.delta.content or ""
                whole = whole or choice.finish_reason == "stop"
        return text, whole

    async def read(self, seen: Callable[[], None]) -> None:
        first = True
        async for chunk in await self._stream("hi"):
            if first and chunk.choices and chunk.choices[0].delta.content:
                first = False
                seen()


class _Responses(Variant):
    async def _stream(self, prompt: str) -> Any:
        raise NotImplementedError

    async def ask(self, prompt: str) -> tuple[str, bool]:
        text, whole = "", False
        async for event in await self._stream(prompt):
            if event.type == "response.output_text.delta":
                text += event.delta
            whole = whole or event.type == "response.completed"
        return text, whole

    async def read(self, seen: Callable[[], None]) -> None:
        first = True
        async for event in await self._stream("hi"):
            if first and event.type == "response.output_text.delta":
                first = False
                seen()


class Completion(_Chat):
    """`acompletion(stream=True, num_retries=2)`."""

    def __init__(self, urls: list[str]) -> None:
        self._url = urls[0]

    async def _stream(self, prompt: str) -> Any:
        return await litellm.acompletion(
            model=f"openai/{MODEL}",
            messages=[{"role": "user", "content": prompt}],
            api_base=self._url,
            api_key=KEY,
            stream=True,
            num_retries=RETRIES,
            timeout=self.seconds,
            stream_timeout=self.seconds,
        )


class Responses(_Responses):
    """`aresponses(stream=True, num_retries=2)`."""

    def __init__(self, urls: list[str]) -> None:
        self._url = urls[0]

    async def _stream(self, prompt: str) -> Any:
        return await litellm.aresponses(
            model=STREAMED,
            input=prompt,
            api_base=self._url,
            api_key=KEY,
            stream=True,
            num_retries=RETRIES,
            timeout=self.seconds,
        )


class _Routed(Variant):
    """A Router over the first URL, which falls back to the others."""

    main, spare = f"openai/{MODEL}", PREFILLED

    def __init__(self, urls: list[str]) -> None:
        models = [self.main, *[self.spare for _ in urls[1:]]]
        groups = [f"group-{number}" for number in range(len(urls))]
        self._router = litellm.Router(
            model_list=[
                {
                    "model_name": group,
                    "litellm_params": {"model": model, "api_base": url, "api_key": KEY},
                }
                for group, model, url in zip(groups, models, urls, strict=True)
            ],
            fallbacks=[{groups[0]: groups[1:]}] if groups[1:] else [],
            num_retries=RETRIES,
            timeout=self.seconds,
            stream_timeout=self.seconds,
            enable_mid_stream_fallback_continuation=True,
        )
        self._group = groups[0]


class RouterChat(_Routed, _Chat):
    """`Router.acompletion(stream=True)`."""

    async def _stream(self, prompt: str) -> Any:
        turns = [{"role": "user", "content": prompt}]
        return await self._router.acompletion(model=self._group, messages=turns, stream=True)


class RouterResponses(_Routed, _Responses):
    """`Router.aresponses(stream=True)`, whose continuation needs no flag."""

    main = spare = STREAMED

    async def _stream(self, prompt: str) -> Any:
        return await self._router.aresponses(model=self._group, input=prompt, stream=True)


VARIANTS: dict[str, type[Variant]] = {
    "acompletion": Completion,
    "aresponses": Responses,
    "router": RouterChat,
    "router.aresponses": RouterResponses,
}

if __name__ == "__main__":
    serve(VARIANTS)
