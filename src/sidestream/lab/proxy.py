"""The lab before a real server: forwards a request and hands the answer on as head and events, unchanged.

The body of an event stream is cut into events as it arrives, so that faults can be placed between them;
any other body passes in the pieces it comes in. Leaving `forward` closes the upstream connection, so a
client that goes away takes the upstream's work with it. One upstream connection per request, never
reused.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import httpcore2

from .script import Script
from .sse import EventSplitter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from .connection import Incoming

__all__ = ["UpstreamFailed", "forward"]

_CONNECT_SECONDS = 10.0
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
    headers = [(n, v) for n, v in incoming.headers if n.lower() not in _REQUEST_DROPS]
    if incoming.body:
        headers.append(("Content-Length", str(len(incoming.body))))
    async with contextlib.AsyncExitStack() as stack:
        with _failing():
            pool = await stack.enter_async_context(
                httpcore2.AsyncConnectionPool(max_connections=1, keepalive_expiry=0)
            )
            response = await stack.enter_async_context(
                pool.stream(
                    incoming.method,
                    upstream.rstrip("/") + incoming.target,
                    headers=headers,
                    content=incoming.body or None,
                    extensions={"timeout": {"connect": _CONNECT_SECONDS}},
                )
            )
        events = await stack.enter_async_context(contextlib.aclosing(_events(response)))
        yield _head(response), events


def _head(response: httpcore2.Response) -> Script:
    headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in response.headers]
    kind = next((v for n, v in headers if n.lower() == "content-type"), "application/octet-stream")
    kept = tuple((n, v) for n, v in headers if n.lower() not in _HOP_BY_HOP)
    return Script((), response.status, kind, kept)


async def _events(response: httpcore2.Response) -> AsyncGenerator[bytes, None]:
    kind = next((v for n, v in response.headers if n.lower() == b"content-type"), b"")
    splitter = EventSplitter() if kind.startswith(b"text/event-stream") else None
    with _failing():
        async for data in response.aiter_stream():
            for event in splitter.feed(data) if splitter else [data]:
                yield event
        for event in splitter.rest() if splitter else []:
            yield event


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as error:
        raise UpstreamFailed(f"upstream: {error!r}") from error
