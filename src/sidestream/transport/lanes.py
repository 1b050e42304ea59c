"""An httpx transport as the connections that a run uses.

Strategy: a lane sends one request through the transport under us and gives its body chunk by chunk, with the
exceptions our drivers know. How long it may take is still the call's meter: httpx gets what is left as its
read timeout until the headers are there, then the watchdog (or, in asyncio, the call's alarm) sees to it. The
client's own timeouts stay in force where they are shorter. Connections, proxies, TLS and HTTP/2 are the
transport's business, as the user configured them.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from types import ModuleType
from typing import Any

from ..net import failures, sync
from ..net.common import FAILURES, CallClock, Opened
from ..route import Route
from .watchdog import WATCHDOG

__all__ = ["AsyncLane", "AsyncLanes", "Lane", "Lanes"]

# Of an answer that is a rejection this much is kept, to be handed on as it is.
_REJECTION_LIMIT = 1024 * 1024
_NOT_AGAIN = frozenset({"content-length", "transfer-encoding", "accept-encoding"})


class _Common:
    """What both kinds share: making requests, remembering the answers that matter."""

    def __init__(self, http: ModuleType, inner: Any, request: Any) -> None:
        self._http = http
        self._inner = inner
        self._request = request
        self.opened: Any = None  # the first answer with 2xx
        self.rejected: tuple[Any, bytes] | None = None  # the last answer without, and its body

    def keep(self, lane: object) -> None:
        """The transport under us keeps its connections itself."""

    def make(self, route: Route, body: bytes, method: str, target: str, left: float | None) -> Any:
        """The client's own request with another body or target."""
        headers = [(n, v) for n, v in self._request.headers.raw if n.lower().decode() not in _NOT_AGAIN]
        url = self._request.url if not target else f"{route.origin}{target}"
        timeouts = dict(self._request.extensions.get("timeout") or {})
        if left is not None:
            timeouts["read"] = left if timeouts.get("read") is None else min(timeouts["read"], left)
        extensions = {**self._request.extensions, "timeout": timeouts}
        return self._http.Request(
            method,
            url,
            headers=[*headers, (b"Accept-Encoding", b"identity")],
            content=None if method == "GET" else body,
            extensions=extensions,
        )

    def answered(self, response: Any) -> Opened:
        if self.opened is None and 200 <= response.status_code < 300:
            self.opened = response
        return Opened(response.status_code, {n.lower(): v for n, v in response.headers.items()})

    @contextlib.contextmanager
    def failures(self) -> Iterator[None]:
        """httpx's exceptions as those of the same name that our drivers expect."""
        try:
            yield
        except self._http.TransportError as error:
            names = (kind.__name__ for kind in type(error).__mro__)
            same = next((name for name in names if name in failures.__all__), "ReadError")
            raise getattr(failures, same)(str(error) or type(error).__name__) from error


class _Socket:
    """The socket under a response, if it serves nothing else."""

    def __init__(self, response: Any) -> None:
        stream = response.extensions.get("network_stream")
        shared = response.extensions.get("http_version", b"").startswith(b"HTTP/2")
        found = None if stream is None or shared else stream.get_extra_info("socket")
        self._socket = found if isinstance(found, socket.socket) else None

    def sever(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # Not the method of SSLSocket, which would also drop the TLS state under its owner.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class Lanes(_Common):
    """Lanes over one request of a blocking client."""

    def open(self, route: Route, watch: sync.Watch, /) -> Lane:
        del route  # the transport under us connects when it has the request
        watch.check()
        return Lane(self, watch)

    def perform(self, request: Any) -> Any:
        with self.failures():
            return self._inner.handle_request(request)


class Lane:
    """One exchange through the transport under us."""

    def __init__(self, lanes: Lanes, watch: sync.Watch) -> None:
        self._lanes = lanes
        self._watch = watch
        self._response: Any = None

    def send(self, route: Route, body: bytes, method: str = "POST", target: str = "") -> Opened:
        request = self._lanes.make(route, body, method, target, self._watch.left())
        self._response = self._lanes.perform(request)
        return self._lanes.answered(self._response)

    def chunks(self) -> Generator[bytes, None, None]:
        stream, watch = _Socket(self._response), self._watch
        watch.attach(stream)
        now, meter = watch.clock.now, watch.meter
        with WATCHDOG.guard(watch, stream) as entry:
            try:
                with self._lanes.failures():
                    for chunk in self._response.stream:
                        yield chunk
                        if watch.stopped or meter is None or meter.due <= now():
                            watch.left()
            except (failures.NetworkError, failures.ProtocolError):
                if entry.rang:
                    raise failures.ReadTimeout("the provider was silent") from None
                raise
            if entry.rang:
                raise failures.ReadTimeout("the provider was silent")

    def rest(self) -> bytes:
        held = b""
        with contextlib.closing(self.chunks()) as chunks:
            for chunk in chunks:
                held += chunk
                if len(held) >= _REJECTION_LIMIT:
                    break
        self._lanes.rejected = self._response, held
        return held

    def finish(self) -> bool:
        self.close()
        return False

    def close(self) -> None:
        if self._response is not None:
            with contextlib.suppress(*FAILURES), self._lanes.failures():
                self._response.close()


class AsyncLanes(_Common):
    """Lanes over one request of an asyncio client."""

    def __init__(self, http: ModuleType, inner: Any, request: Any) -> None:
        super().__init__(http, inner, request)
        import asyncio

        from ..net import aio  # brings asyncio, which a sync program need not load

        self._alarm: Callable[[CallClock], aio.Alarm] = aio.Alarm
        self._time = asyncio.get_running_loop().time

    def alarm(self) -> Any:
        return self._alarm(CallClock(self._time))

    async def open(self, route: Route, alarm: Any, /) -> AsyncLane:
        del route
        alarm.check()
        return AsyncLane(self, alarm)

    async def perform(self, request: Any) -> Any:
        with self.failures():
            return await self._inner.handle_async_request(request)


class AsyncLane:
    """One exchange through the transport under us. The call's alarm keeps the time."""

    def __init__(self, lanes: AsyncLanes, alarm: Any) -> None:
        self._lanes = lanes
        self._alarm = alarm
        self._response: Any = None

    async def send(self, route: Route, body: bytes, method: str = "POST", target: str = "") -> Opened:
        request = self._lanes.make(route, body, method, target, None)
        self._response = await self._lanes.perform(request)
        return self._lanes.answered(self._response)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        self._alarm.attach(_Socket(self._response))
        with self._lanes.failures():
            async for chunk in self._response.stream:
                yield chunk

    async def rest(self) -> bytes:
        held = b""
        async with contextlib.aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                held += chunk
                if len(held) >= _REJECTION_LIMIT:
                    break
        self._lanes.rejected = self._response, held
        return held

    async def finish(self) -> bool:
        await self.aclose()
        return False

    async def aclose(self) -> None:
        if self._response is not None:
            with contextlib.suppress(*FAILURES), self._lanes.failures():
                await self._response.aclose()
