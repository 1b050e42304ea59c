"""hermes-agent's auxiliary client: `call_llm`, with its two retries on the same provider.

It asks chat endpoints without a stream and Codex-style Responses with one. What it returns is whole if its
finish reason is "stop"; its hosts read no more than that.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIG = "model:\n  default: lab-1\n  provider: custom\n"

home = Path(tempfile.mkdtemp(prefix="bench-hermes-"))
(home / "config.yaml").write_text(CONFIG)
os.environ["HERMES_HOME"] = os.environ["HOME"] = str(home)  # nothing of the person's own agent

from _child import KEY, MODEL, Variant, serve  # noqa: E402
from agent.auxiliary_client import async_call_llm, call_llm  # noqa: E402

logging.disable(logging.CRITICAL)


def asking(mode: str, url: str, prompt: str, seconds: float) -> dict[str, Any]:
    return {
        "provider": "custom",
        "model": MODEL,
        "base_url": url,
        "api_key": KEY,
        "main_runtime": {"api_mode": mode},
        "messages": [{"role": "user", "content": prompt}],
        "timeout": seconds,
    }


def read_off(response: Any) -> tuple[str, bool]:
    choice = response.choices[0]
    return choice.message.content or "", choice.finish_reason == "stop"


class Chat(Variant):
    """`call_llm` over Chat Completions."""

    mode = "chat_completions"

    def __init__(self, urls: list[str]) -> None:
        self._url = urls[0]

    def _call(self, prompt: str) -> Any:
        return call_llm(**asking(self.mode, self._url, prompt, self.seconds), api_mode=self.mode)

    def ask(self, prompt: str) -> tuple[str, bool]:
        return read_off(self._call(prompt))

    def read(self, seen: Callable[[], None]) -> None:
        self._call("hi")
        seen()


class Responses(Chat):
    """`call_llm` over Responses, as for Codex."""

    mode = "codex_responses"


class ChatAsync(Variant):
    """`async_call_llm` over Chat Completions."""

    def __init__(self, urls: list[str]) -> None:
        self._url = urls[0]

    async def _call(self, prompt: str) -> Any:
        return await async_call_llm(**asking("chat_completions", self._url, prompt, self.seconds))

    async def ask(self, prompt: str) -> tuple[str, bool]:
        return read_off(await self._call(prompt))

    async def read(self, seen: Callable[[], None]) -> None:
        await self._call("hi")
        seen()


VARIANTS: dict[str, type[Variant]] = {"chat": Chat, "responses": Responses, "chat.async": ChatAsync}

if __name__ == "__main__":
    serve(VARIANTS)
