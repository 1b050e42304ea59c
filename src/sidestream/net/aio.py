"""asyncio connections: the twin of `sync`.

Strategy: the event loop keeps the time. An `Alarm` holds one timer per call, looks at the call's meter when
it goes off, and cancels the task's current wait if the time is really up; re-arming is lazy, so an event
costs no timer. A stop, from any task or thread, takes the same way. While the consumer has the stream the
alarm never cancels (that would hit the consumer's own await): it aborts the connection and is noticed next.

Connections are kept only while their client is entered (`async with`): an event loop that ends takes its
sockets with it, and a pool that outlives its loop leaks them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncGenerator, Iterator
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import httpcore2

from ..recovery.clocks import Meter
from ..route import Route
from .common import (
    BODY_LIMIT,
    IDLE_PER_ORIGIN,
    IDLE_SECONDS,
    CallClock,
    Opened,
    Pending,
    Proxy,
    Severable,
    http_request,
    lower_headers,
    origin_of,
    proxy_for,
    tls_context,
)

__all__ = ["Alarm", "AnyLane", "AnyPool", "Lane", "Pool"]


class Alarm:
    """Ends the waits of one call, which runs in one task, when a clock runs out or somebody stops it."""

    def __init__(self, clock: CallClock) -> None:
        self.clock = clock
        self.stopped: Literal["cancel", "interrupt"] | None = None
        self._rang = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._meter: Meter | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings = 0.0  # the instant of call time the timer is set to
        self._stream: Severable | None = None

    def stop(self, kind: Literal["cancel", "interrupt"]) -> None:
        """End the call, from any thread; from the loop's own at once, before it does another thing."""
        if threading.get_ident() == self._thread:
            self._stop(kind)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the call with it
            self._loop.call_soon_threadsafe(self._stop, kind)

    def _stop(self, kind: Literal["cancel", "interrupt"]) -> None:
        if self.stopped is None:
            self.stopped = kind
            if self._stream is not None:
                self._stream.sever()
            self._interrupt()

    async def sleep(self, seconds: float) -> None:
        """Wait; under `guard`, or until the call is stopped."""
        await asyncio.sleep(seconds)

    async def wait(self, pending: Pending, seconds: float) -> None:
        """Wait until `pending` is ready, so many seconds at most; under `guard`."""
        ready = asyncio.Event()

        def ring() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                self._loop.call_soon_threadsafe(ready.set)

        pending.when_ready(ring)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await ready.wait()

    def attach(self, stream: Severable | None) -> None:
        self._stream = stream
        if self.stopped and stream is not None:
            stream.sever()

    @contextlib.contextmanager
    def guard(self, meter: Meter | None) -> Iterator[None]:
        """Waits inside end with `httpcore2.ReadTimeout` when the meter is due, with `ReadError` on a stop."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a call runs in a task")
        self._own(task)
        self._meter, self._rang = meter, False
        try:
            self.check()
            self._arm()
            yield
        except asyncio.CancelledError:
            if self._rang and self._task is not None and self._task.uncancel() <= self._cancelling:
                if self.stopped:
                    raise httpcore2.ReadError("the call was stopped") from None
                raise httpcore2.ReadTimeout("the provider was silent") from None
            raise
        finally:
            self._task = self._meter = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _own(self, task: asyncio.Task[Any]) -> None:
        self._task, self._cancelling = task, task.cancelling()

    def pause(self) -> None:
        """The consumer has the stream."""
        self.clock.pause()

    def resume(self) -> None:
        """The consumer gave it back, perhaps in another task than before, perhaps after the timer rang."""
        self.clock.resume()
        if (task := asyncio.current_task()) is not None and self._task is not None:
            self._own(task)
            if self._timer is None:
                self._arm()

    def check(self) -> None:
        """Whether to go on.

        Raises:
            httpcore2.ReadError: the call was stopped, perhaps while the consumer had the stream.
        """
        if self.stopped:
            raise httpcore2.ReadError("the call was stopped")

    def rearm(self) -> None:
        """The meter's limit moved: an earlier one needs a new timer, a later one is noticed when it rings."""
        if self._meter is not None and self._meter.due < self._rings:
            if self._timer is not None:
                self._timer.cancel()
            self._arm()

    def _arm(self) -> None:
        if self._meter is not None:
            self._rings = self._meter.due
            left = max(0.001, self._rings - self.clock.now())
            self._timer = self._loop.call_later(left, self._check)

    def _check(self) -> None:
        self._timer = None
        if self._meter is None or self.clock.paused:
            return
        if self._meter.due <= self.clock.now():
            self._interrupt()
        else:
            self._arm()

    def _interrupt(self) -> None:
        if self._task is not None and not self.clock.paused and not self._rang:
            self._rang = True
            self._task.cancel()


class Stream(httpcore2.AsyncNetworkStream):
    """An asyncio connection. Timeouts are the alarm's business."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        try:
            return await self._reader.read(max_bytes)
        except OSError as error:
            raise httpcore2.ReadError(_words(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        try:
            self._writer.write(buffer)
            await self._writer.drain()
        except OSError as error:
            raise httpcore2.WriteError(_words(error)) from error

    async def handshake(self, context: ssl.SSLContext, host: str) -> None:
        try:
            await self._writer.start_tls(context, server_hostname=host)
        except OSError as error:
            raise httpcore2.ConnectError(f"TLS: {_words(error)}") from error

    def sever(self) -> None:
        """Close at once, without a goodbye that might wait."""
        self._writer.transport.abort()

    async def aclose(self) -> None:
        self.sever()

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return self._writer.transport.is_closing() or self._reader.at_eof() or bool(self._buffered())
        if info == "ssl_object":
            return self._writer.get_extra_info("ssl_object")
        return None

    def _buffered(self) -> int:
        return len(getattr(self._reader, "_buffer", b""))


class Lane:
    """One connection to one origin, used by one call at a time."""

    def __init__(self, route: Route, stream: Stream, proxy: Proxy | None) -> None:
        self.origin = route.origin
        self._stream = stream
        self._proxy = proxy
        self._http = httpcore2.AsyncHTTP11Connection(origin_of(route), stream, keepalive_expiry=IDLE_SECONDS)
        self._response: httpcore2.Response | None = None

    async def send(self, route: Route, body: bytes, method: str = "POST", target: str = "") -> Opened:
        """Send the request (to the route's own target if not given), wait for the answer's headers."""
        request = http_request(route, body, self._proxy, method, target)
        self._response = await self._http.handle_async_request(request)
        return Opened(self._response.status, lower_headers(self._response))

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives. To be closed: left to the collector, it would cost its loop a task."""
        return aiter(self._body().stream)  # type: ignore[arg-type]  # async by construction

    async def rest(self) -> bytes:
        """The body, at most BODY_LIMIT bytes of it."""
        held = b""
        async with contextlib.aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                held += chunk
                if len(held) >= BODY_LIMIT:
                    break
        return held[:BODY_LIMIT]

    def take(self, alarm: Alarm) -> None:
        """This call now owns the connection."""
        alarm.attach(self._stream)

    def is_reusable(self) -> bool:
        return self._http.is_available() and not self._http.has_expired()

    async def finish(self) -> bool:
        """The exchange is over. True if the connection can serve another."""
        if self._response is not None:
            await self._body().aclose()
            self._response = None
        return self._http.is_available()

    def close(self) -> None:
        self._stream.sever()

    async def aclose(self) -> None:
        self.close()

    def _body(self) -> httpcore2.Response:
        if self._response is None:
            raise RuntimeError("nothing was sent on this connection")
        return self._response


class Pool:
    """Opens connections; while entered, keeps finished ones: at most 8 per origin, for 30 s."""

    def __init__(self, cafile: str | None = None) -> None:
        self._cafile = cafile
        self._context: ssl.SSLContext | None = None
        self._idle: dict[str, list[Lane]] = {}
        self._keeping = 0

    async def __aenter__(self) -> Self:
        self._keeping += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeping -= 1
        if self._keeping == 0:
            self.close()
            await asyncio.sleep(0)  # lets the transports report that they are closed

    def alarm(self) -> Alarm:
        """What keeps the time of one call, on the running loop's clock."""
        return Alarm(CallClock(asyncio.get_running_loop().time))

    async def open(self, route: Route, alarm: Alarm) -> Lane:
        """A connection for this route, kept or new, owned by the caller until `keep` or `close`."""
        while idle := self._idle.get(route.origin):
            lane = idle.pop()
            if lane.is_reusable():
                lane.take(alarm)
                return lane
            lane.close()
        proxy = proxy_for(route)
        host, port = (proxy.host, proxy.port) if proxy else (route.host, route.port)
        direct = route.scheme == "https" and proxy is None
        try:
            reader, writer = await asyncio.open_connection(
                host, port, ssl=self._tls() if direct else None, server_hostname=host if direct else None
            )
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host}:{port}: {_words(error)}") from error
        stream = Stream(reader, writer)
        alarm.attach(stream)
        try:
            if proxy and route.scheme == "https":
                await _tunnel(proxy, route, stream)
                await stream.handshake(self._tls(), route.host)
        except BaseException:
            stream.sever()
            raise
        return Lane(route, stream, proxy)

    def keep(self, lane: Lane) -> None:
        """Give a finished connection back."""
        if not self._keeping:
            lane.close()
            return
        idle = self._idle.setdefault(lane.origin, [])
        idle.append(lane)
        if len(idle) > IDLE_PER_ORIGIN:
            idle.pop(0).close()

    def close(self) -> None:
        """Close what is idle. Connections in use belong to their calls."""
        lanes = [lane for idle in self._idle.values() for lane in idle]
        self._idle.clear()
        for lane in lanes:
            lane.close()

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = tls_context(self._cafile)
        return self._context


class AnyLane(Protocol):
    """What a run needs of a connection, whoever made it."""

    async def send(self, route: Route, body: bytes, method: str = ..., target: str = ...) -> Opened: ...
    def chunks(self) -> AsyncGenerator[bytes, None]: ...
    async def rest(self) -> bytes: ...
    async def finish(self) -> bool: ...
    async def aclose(self) -> None: ...


class AnyPool(Protocol):
    """Where a run gets its connections and its time."""

    def alarm(self) -> Alarm: ...
    async def open(self, route: Route, alarm: Alarm, /) -> AnyLane: ...
    def keep(self, lane: Any, /) -> None: ...


async def _tunnel(proxy: Proxy, route: Route, stream: Stream) -> None:
    origin = httpcore2.Origin(b"http", proxy.host.encode(), proxy.port)
    response = await httpcore2.AsyncHTTP11Connection(origin, stream).handle_async_request(proxy.tunnel(route))
    if not 200 <= response.status < 300:
        raise httpcore2.ProxyError(f"the proxy {proxy.host}:{proxy.port} answered {response.status}")


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(
        error
    ).__name__
