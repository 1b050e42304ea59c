"""The lab before a real server: forwards a request and hands the answer on as head and events, unchanged.

The body of an event stream is cut into events as it arrives, so that faults can be placed between them;
any other body passes in the pieces it comes in. Leaving `forward` closes the upstream connection, so a
client that goes away takes the upstream's work with it. One upstream connection per request, never
reused.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..net import http1
from ..net.common import tls_context
from ..net.failures import NetworkFailure
from .script import Script
from .sse import EventSplitter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from .connection import Incoming

__all__ = ["UpstreamFailed", "forward"]

_CONNECT_SECONDS = 10.0
_READ_BYTES = 64 * 1024
# Of this connection, not of the message (RFC 9110 7.6.1), or set anew below.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "content-length",
        "content-type",
    }
)
_REQUEST_DROPS = (_HOP_BY_HOP - {"content-type"}) | {"host", "accept-encoding", "expect"}


class UpstreamFailed(Exception):
    """The real server could not be reached or broke off."""


@contextlib.asynccontextmanager
async def forward(upstream: str, incoming: Incoming) -> AsyncIterator[tuple[Script, AsyncIterator[bytes]]]:
    """The upstream's answer: a script with its head and no events, and its events as they arrive.

    Raises:
        UpstreamFailed: no answer at all; or, from the iterator, the answer broke off.
    """
    with _failing():
        reader, writer = await _connected(upstream)
    try:
        with _failing():
            writer.write(_request(upstream, incoming))
            answer, first = await _answer(reader, bodyless=incoming.method == "HEAD")
        async with contextlib.aclosing(_events(reader, answer, first)) as events:
            yield _head(answer), events
    finally:
        writer.transport.abort()


async def _connected(upstream: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(upstream)
    secure = url.scheme == "https"
    async with asyncio.timeout(_CONNECT_SECONDS):
        return await asyncio.open_connection(
            url.hostname, url.port or (443 if secure else 80), ssl=tls_context(None) if secure else None
        )


def _request(upstream: str, incoming: Incoming) -> bytes:
    url = urlsplit(upstream)
    kept = [(n, v) for n, v in incoming.headers if n.lower() not in _REQUEST_DROPS]
    if incoming.body:
        kept.append(("content-length", str(len(incoming.body))))
    headers = [("host", url.netloc.rpartition("@")[2]), *kept]
    return http1.request(incoming.method, url.path.rstrip("/") + incoming.target, headers, incoming.body)


async def _answer(reader: asyncio.StreamReader, *, bodyless: bool) -> tuple[http1.Answer, bytes]:
    """The upstream's answer once its head is there, and what came of its body with that."""
    answer = http1.Answer(bodyless=bodyless)
    while not answer.opened:
        first = answer.take(await reader.read(_READ_BYTES))
        if answer.broken:
            raise answer.broken
    return answer, first


def _head(answer: http1.Answer) -> Script:
    kind = dict(answer.headers).get("content-type", "application/octet-stream")
    kept = tuple((n, v) for n, v in answer.headers if n not in _HOP_BY_HOP)
    return Script((), answer.status, kind, kept)


async def _events(
    reader: asyncio.StreamReader, answer: http1.Answer, first: bytes
) -> AsyncGenerator[bytes, None]:
    kind = dict(answer.headers).get("content-type", "")
    splitter = EventSplitter() if kind.startswith("text/event-stream") else None
    with _failing():
        data = first
        while True:
            for event in splitter.feed(data) if splitter else filter(None, [data]):
                yield event
            if answer.broken:
                raise answer.broken
            if answer.complete:
                break
            data = answer.take(await reader.read(_READ_BYTES))
        for event in splitter.rest() if splitter else []:
            yield event


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except (NetworkFailure, OSError, TimeoutError) as error:
        raise UpstreamFailed(f"upstream: {error!r}") from error
