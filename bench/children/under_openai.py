"""The openai SDK as in `openai_sdk.py`, with sidestream under it: `wrap(OpenAI())`, defaults of both."""

from __future__ import annotations

from typing import Any

import openai_sdk as bare
from _child import Variant, serve

import sidestream


class _Wrapped:
    """Before a bare variant: the same with sidestream under its client."""

    hold = False

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls)  # type: ignore[call-arg]
        clocks = sidestream.Timeouts(first=self.seconds, idle=self.seconds)  # type: ignore[attr-defined]
        self._client: Any = sidestream.wrap(self._client, timeout=clocks, hold=self.hold, observe=())

    def kept(self, error: BaseException) -> str:
        call = sidestream.last_call(error)
        return call.text if call else ""


class ResponsesCreate(_Wrapped, bare.ResponsesCreate):
    pass


class ResponsesStream(_Wrapped, bare.ResponsesStream):
    pass


class ResponsesWhole(_Wrapped, bare.ResponsesWhole):
    """`hold` carries a call that asks for no stream as one, and returns it when it is whole."""

    hold = True


class Chat(_Wrapped, bare.Chat):
    pass


class ResponsesAsync(_Wrapped, bare.ResponsesAsync):
    pass


class ChatAsync(_Wrapped, bare.ChatAsync):
    pass


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
