"""A provider in memory: httpx2 transports that play bytes, for real SDK clients above them.

`Provider` says what is answered: each request gets the next `Answer`, and a callable among them is asked for
one with the request's JSON. `transport` and `async_transport` lead there. A body comes in the pieces of its
answer and then ends in one of four ways; every response has to be closed by who read it.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx2
from memory import PATIENT, Clock

from sidestream.drivers import System
from sidestream.lab import script
from sidestream.recovery.origins import Origins

Ending = Literal["clean", "protocol", "read", "timeout"]
ENDINGS: tuple[Ending, ...] = ("clean", "protocol", "read", "timeout")
_RAISED = {
    "protocol": httpx2.RemoteProtocolError("peer closed connection without sending complete message body"),
    "read": httpx2.ReadError("connection reset by peer"),
    "timeout": httpx2.ReadTimeout("timed out"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """The pieces in which a body arrives, and what comes after the last."""

    pieces: tuple[bytes, ...]
    ending: Ending = "clean"
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream"})


Says = Answer | Callable[[dict[str, Any]], Answer]


class Provider:
    """Who answers. `play` sets the answers of the next call; `requests` holds what was asked since."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.open = 0
        self._answers: deque[Says] = deque()

    def play(self, *answers: Says) -> None:
        self._answers = deque(answers)
        self.requests = []

    def respond(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        self.requests.append(body)
        if not self._answers:
            raise AssertionError("a request too many")
        says = self._answers.popleft()
        answer = says if isinstance(says, Answer) else says(body)
        return httpx2.Response(200, headers=answer.headers, stream=_Body(self, answer))

    @property
    def transport(self) -> httpx2.BaseTransport:
        return _Transport(self)

    @property
    def async_transport(self) -> httpx2.AsyncBaseTransport:
        return _AsyncTransport(self)


class _Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    def __init__(self, provider: Provider, answer: Answer) -> None:
        self._provider = provider
        self._answer = answer
        self._closed = False
        provider.open += 1

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.pieces
        if self._answer.ending != "clean":
            raise _RAISED[self._answer.ending].with_traceback(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self._provider.open -= not self._closed
        self._closed = True

    async def aclose(self) -> None:
        self.close()


class _Transport(httpx2.BaseTransport):
    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        return self._provider.respond(request)


class _AsyncTransport(httpx2.AsyncBaseTransport):
    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        return self._provider.respond(request)


def patient() -> System:
    """A world without jitter, in which a backoff takes no time, and whose origins are never given up."""
    clock = Clock()
    origins = Origins(clock, rules=PATIENT)
    return System(clock, lambda: 1_790_000_000.0, random=lambda: 0.0, origins=origins)


# Whoever goes on.

_ANCHOR = re.compile(r"^<(last_words(?:_\d+)?)>(.*?)</\1>$", re.MULTILINE | re.DOTALL)
_TEXT = {
    "responses": script.responses_text, "chat": script.chat_text, "messages": script.messages_text,
}  # fmt: skip


def goes_on(wire: str, text: str, whole: bytes) -> Callable[[dict[str, Any]], Answer]:
    """A model whose answer is `text`: asked to go on it repeats the last words and does, otherwise it says
    the `whole` again."""

    def says(body: dict[str, Any]) -> Answer:
        turns = body.get("messages") or body["input"]
        found = _ANCHOR.search(_words(turns[-1])) if len(turns) > 1 else None
        if found is None:
            return Answer((whole,))
        partial = _words(turns[-2])
        assert partial.endswith(found[2]), "the quoted words are not the last"
        assert text.startswith(partial), "the partial is not how the answer begins"
        return Answer(_TEXT[wire](found[2] + text[len(partial) :]).events)

    return says


def _words(turn: dict[str, Any]) -> str:
    content = turn["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
