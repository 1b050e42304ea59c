"""The anthropic SDK as in `anthropic_sdk.py`, with sidestream under it, defaults of both."""

from __future__ import annotations

from typing import Any

import anthropic_sdk as bare
from _child import Variant, serve

import sidestream


class _Wrapped:
    """Before a bare variant: the same with sidestream under its client."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls)  # type: ignore[call-arg]
        clocks = sidestream.Timeouts(first=self.seconds, idle=self.seconds)  # type: ignore[attr-defined]
        self._client: Any = sidestream.wrap(self._client, timeout=clocks, observe=())

    def kept(self, error: BaseException) -> str:
        call = sidestream.last_call(error)
        return call.text if call else ""


class Stream(_Wrapped, bare.Stream):
    pass


class Create(_Wrapped, bare.Create):
    pass


class StreamAsync(_Wrapped, bare.StreamAsync):
    pass


VARIANTS: dict[str, type[Variant]] = {
    "messages.stream": Stream,
    "messages.create": Create,
    "messages.async": StreamAsync,
}

if __name__ == "__main__":
    serve(VARIANTS)
