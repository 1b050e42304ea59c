"""langchain-openai: `ChatOpenAI` with two retries of the SDK under it, and LangChain's own two wrappers.

An answer is whole if its metadata has the finish reason "stop" (chat) or the status "completed" (Responses).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _child import KEY, MODEL, Variant, serve
from langchain_openai import ChatOpenAI

RETRIES = 2
TRIES = 3  # of `with_retry`


def whole(message: Any) -> bool:
    found = message.response_metadata
    return bool(found.get("finish_reason") == "stop" or found.get("status") == "completed")


class Chat(Variant):
    """`stream()` of `ChatOpenAI`."""

    responses = False
    streaming = False

    def __init__(self, urls: list[str]) -> None:
        self._llm: Any = self._model(urls[0])

    def _model(self, url: str) -> ChatOpenAI:
        return ChatOpenAI(
            model=MODEL,
            base_url=url,
            api_key=KEY,
            timeout=self.seconds,
            stream_chunk_timeout=self.seconds,
            max_retries=RETRIES,
            use_responses_api=self.responses,
            **({"streaming": True} if self.streaming else {}),  # False would turn `stream()` off
        )

    def ask(self, prompt: str) -> tuple[str, bool]:
        answer: Any = None
        for chunk in self._llm.stream(prompt):
            answer = chunk if answer is None else answer + chunk
        return (answer.text, whole(answer)) if answer is not None else ("", False)

    def read(self, seen: Callable[[], None]) -> None:
        first = True
        for chunk in self._llm.stream("hi"):
            if first and chunk.text:
                first = False
                seen()


class Responses(Chat):
    """The same over Responses."""

    responses = True


class ChatAsync(Chat):
    """`astream()`, which has a limit on the time between two chunks."""

    async def ask(self, prompt: str) -> tuple[str, bool]:
        answer: Any = None
        async for chunk in self._llm.astream(prompt):
            answer = chunk if answer is None else answer + chunk
        return (answer.text, whole(answer)) if answer is not None else ("", False)

    async def read(self, seen: Callable[[], None]) -> None:
        first = True
        async for chunk in self._llm.astream("hi"):
            if first and chunk.text:
                first = False
                seen()


class Retry(Chat):
    """`with_retry`, which repeats no stream that is read along: so `invoke`, streaming underneath."""

    streaming = True

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls)
        self._llm = self._llm.with_retry(stop_after_attempt=TRIES)

    def ask(self, prompt: str) -> tuple[str, bool]:
        answer = self._llm.invoke(prompt)
        return answer.text, whole(answer)

    def read(self, seen: Callable[[], None]) -> None:
        self._llm.invoke("hi")
        seen()


class Fallbacks(Chat):
    """`with_fallbacks`, read along."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls)
        self._llm = self._llm.with_fallbacks([self._model(url) for url in urls[1:]])


class FallbacksInvoke(Retry):
    """`with_retry` on each, and `with_fallbacks` around them: `invoke`, streaming underneath."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls)
        spares = [self._model(url).with_retry(stop_after_attempt=TRIES) for url in urls[1:]]
        self._llm = self._llm.with_fallbacks(spares)


VARIANTS: dict[str, type[Variant]] = {
    "chat": Chat,
    "chat.async": ChatAsync,
    "responses": Responses,
    "with_retry": Retry,
    "with_fallbacks": Fallbacks,
    "with_fallbacks.invoke": FallbacksInvoke,
}

if __name__ == "__main__":
    serve(VARIANTS)
