"""A local HTTP server that forwards to one provider, through the transport that lets streams finish.

Strategy: a request goes to the provider as it came, its path and query after the provider's origin, without
the headers that belong to a connection; the answer's bytes go back as they come. All recovery is in
`sidestream.transport`; what it cannot bring back ends the client's connection without a legal end, and what
fails before an answer is a 502 that says why. A client that leaves takes its upstream request with it.

The client's credentials pass through and stay nowhere. There is one origin to reach, whatever a request says.
httpx2 is imported only when a transport is made: it comes with `sidestream[pass]`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from ..drivers import Notify
from ..errors import ConfigError, DeadlineExceeded, SidestreamError, UsageError
from ..transport import wrap
from .link import ClientLeft, Headers, Incoming, Limits, Link, Refused

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Passthrough", "upstream_transport"]

# What belongs to a connection and not to the message (RFC 9110 7.6.1), and what is written anew.
_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection",
        b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
_OURS = frozenset({b"host", b"content-length", b"expect"})
_CONNECT_SECONDS = 30.0


def upstream_transport(*, limits: Limits | None = None, notify: Notify | None = None) -> Any:
    """An httpx2 transport for asyncio, wrapped.

    Args:
        limits: no more connections than these to the provider.
        notify: called with a `Recovering` each time a fault is recovered from.

    Raises:
        ConfigError: httpx2 is not installed.
    """
    try:
        import httpx2
    except ImportError:
        hint = "pip install 'sidestream[pass]'"
        raise ConfigError("a passthrough needs httpx2, which is not installed", hint=hint) from None
    most = httpx2.Limits(max_connections=(limits or Limits()).connections, max_keepalive_connections=20)
    # Agents read the size of their context off the usage, and compact by it: they get that of the answer.
    return wrap(httpx2.AsyncHTTPTransport(limits=most), notify=notify, usage="answer")


class Passthrough:
    """A server on this machine before one provider.

    ::

        async with Passthrough("https://api.openai.com/v1") as local:
            ...  # point a client at local.url

    Args:
        upstream: the provider's base URL, as a client takes it. Other paths of its origin are reached, too.
        transport: a wrapped transport for asyncio, by default `upstream_transport()`. Closed with the server.
        host: address to listen on. Anything but loopback is open to your network.
        port: TCP port; 0 picks a free one.
        limits: what the server will not exceed.
        failed: told what ended a request that could not be brought back.

    Raises:
        UsageError: `upstream` is no base URL.
        ConfigError: httpx2 is not installed.
        OSError: on entering: the port is taken.
    """

    def __init__(
        self,
        upstream: str,
        *,
        transport: Any = None,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: Limits | None = None,
        failed: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._origin, self._path = _checked(upstream)
        self._limits = limits or Limits()
        self._transport = transport or upstream_transport(limits=self._limits)
        self._httpx: Any = self._transport.http
        self._address = host, port
        self._failed = failed
        self._links: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """What a client takes as its base URL in place of the provider's."""
        host, port = self._address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{self._path}"

    # Its life.

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._transport.aclose)
            self._server = await asyncio.start_server(self._connected, *self._address)
            self._address = self._server.sockets[0].getsockname()[:2]
            undo.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Answers under way are broken off, their upstream connections closed."""
        self._server.close()
        for task in self._links:
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)
        await self._transport.aclose()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(reader, writer, self._limits)
        if len(self._links) >= self._limits.connections:
            link.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(link))
        self._links.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._links.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            task.get_loop().call_exception_handler({"message": "a passthrough's bug", "exception": bug})

    # One client.

    async def _serve(self, link: Link) -> None:
        try:
            while (incoming := await link.next()) is not None:
                if not await self._while_there(link, incoming):
                    break
            await link.close()
        except Refused as refused:
            await self._refuse(link, refused)
        except ClientLeft:
            pass
        finally:
            link.abort()

    async def _refuse(self, link: Link, refused: Refused) -> None:
        try:
            await link.whole(refused.status, _said(refused), [(b"connection", b"close")])
            await link.close()
        except ClientLeft:
            pass

    async def _while_there(self, link: Link, incoming: Incoming) -> bool:
        """Answer a request, as long as its client is there. True: the connection can take another one."""
        again = False
        try:
            async with asyncio.TaskGroup() as group:
                left = group.create_task(link.left())
                again = await self._answer(link, incoming)
                left.cancel()
        except* ClientLeft:
            link.abort()
        return again

    async def _answer(self, link: Link, incoming: Incoming) -> bool:
        if incoming.has(b"upgrade"):
            # What the Codex CLI takes as: use HTTP from now on.
            refused = Refused(426, "a WebSocket is not passed on; use HTTP")
            return await link.whole(refused.status, _said(refused), [(b"upgrade", b"HTTP/1.1")])
        try:
            request = self._request(incoming)
            response = await self._transport.handle_async_request(request)
        except self._httpx.InvalidURL as error:
            return await link.whole(400, _said(error))
        except (SidestreamError, self._httpx.TransportError) as error:
            self._failed(error)
            return await link.whole(*self._failure(error))
        try:
            await link.begin(response.status_code, _kept(response.headers.raw))
            async for chunk in response.stream:
                await link.send(chunk)
        except (SidestreamError, self._httpx.TransportError) as error:
            self._failed(error)
            return False
        finally:
            await response.aclose()
        return await link.end()

    def _request(self, incoming: Incoming) -> Any:
        if not incoming.target.startswith("/"):
            raise self._httpx.InvalidURL("a request names a path here, not a server")
        patience = {"connect": _CONNECT_SECONDS, "pool": _CONNECT_SECONDS, "read": None, "write": None}
        return self._httpx.Request(
            incoming.method,
            self._httpx.URL(self._origin).copy_with(raw_path=incoming.target.encode()),
            headers=[(name, value) for name, value in _kept(incoming.headers) if name not in _OURS],
            content=incoming.body or None,
            extensions={"timeout": patience},
        )

    def _failure(self, error: Exception) -> tuple[int, object, Headers]:
        """The answer to a request that got none."""
        late = isinstance(error, (DeadlineExceeded, self._httpx.TimeoutException))
        ours = isinstance(error, SidestreamError)
        again = [(b"x-should-retry", b"false")] if ours else []  # what could be tried has been tried
        message = str(error) if ours else f"{self._origin}: {str(error) or type(error).__name__}"
        return 504 if late else 502, _said(error, message), again


def _checked(upstream: str) -> tuple[str, str]:
    """Origin and path of a base URL."""
    hint = "give what a client takes as its base URL, such as https://api.openai.com/v1"
    try:
        parts = urlsplit(upstream)
        named = parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        parts, named = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not named:
        raise UsageError("the provider's address is not an http(s) URL", hint=hint)
    if parts.username is not None or parts.query or parts.fragment:
        hint = "the credential comes with each request"
        raise UsageError("the provider's address has more than a host and a path", hint=hint)
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")


def _kept(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers of a message, without those of its connection."""
    listed = [(name.lower(), name, value) for name, value in headers]
    named = {
        word.strip().lower() for low, _, value in listed if low == b"connection" for word in value.split(b",")
    }
    return [(name, value) for low, name, value in listed if low not in _HOP and low not in named]


def _said(error: Exception, message: str = "") -> dict[str, object]:
    """An error as both OpenAI's and Anthropic's clients read it."""
    about = {"type": "sidestream_error", "code": type(error).__name__, "message": message or str(error)}
    return {"type": "error", "error": about}
