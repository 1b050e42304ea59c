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
import threading
from collections.abc import AsyncGenerator, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

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
    proxy_for,
    tls_context,
)
from .failures import ConnectError, ProxyError, ReadError, ReadTimeout
from .http1 import Answer

if TYPE_CHECKING:
    import ssl

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
        """Waits inside end with `ReadTimeout` when the meter is due, with `ReadError` on a stop."""
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
                    raise ReadError("the call was stopped") from None
                raise ReadTimeout("the provider was silent") from None
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
            ReadError: the call was stopped, perhaps while the consumer had the stream.
        """
        if self.stopped:
            raise ReadError("the call was stopped")

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


# A reader that leaves more than this unread lets the connection fill up.
_HELD_BYTES = 128 * 1024


class Stream(asyncio.Protocol):
    """An asyncio connection. Timeouts are the alarm's business.

    What arrives is held until it is read, also when the connection breaks behind it; a reader that is slow
    slows the provider down.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._held: list[bytes] = []
        self._size = 0
        self._paused = False
        self._ended = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """What has arrived; nothing at the end of the connection."""
        while not self._held:
            if self._error is not None:
                raise ReadError(_words(self._error)) from self._error
            if self._ended:
                return b""
            await self._arrival()
        data = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held = []
        self._size = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def _arrival(self) -> None:
        self._reader = self._loop.create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def write(self, data: bytes) -> None:
        """Have it sent. That it cannot be is learned by reading, which is all that comes after it."""
        self._transport.write(data)

    async def handshake(self, context: ssl.SSLContext, host: str) -> None:
        """Start TLS on this connection."""
        try:
            secured = await self._loop.start_tls(self._transport, self, context, server_hostname=host)
        except OSError as error:
            raise ConnectError(f"TLS: {_words(error)}") from error
        if secured is None:
            raise ConnectError("TLS: the connection was closed")
        self._transport = secured

    def sever(self) -> None:
        """Close at once, without a goodbye that might wait."""
        if self._transport is not None:
            self._transport.abort()

    def is_silent(self) -> bool:
        """Whether an idle connection has nothing to say, which could only be goodbye."""
        return not (self._held or self._ended or self._transport.is_closing())

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held.append(data)
        self._size += len(data)
        if self._size > _HELD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._error = exc
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class Lane:
    """One connection to one origin, used by one call at a time."""

    def __init__(self, route: Route, stream: Stream, proxy: Proxy | None) -> None:
        self.origin = route.origin
        self._stream = stream
        self._proxy = proxy
        self._answer: Answer | None = None
        self._first = b""  # of the body: it came with the head
        self._expires = 0.0

    async def send(self, route: Route, body: bytes, method: str = "POST", target: str = "") -> Opened:
        """Send the request (to the route's own target if not given), wait for the answer's headers."""
        self._stream.write(http_request(route, body, self._proxy, method, target))
        self._answer = Answer()
        self._first = await _head(self._stream, self._answer)
        return Opened(self._answer.status, dict(self._answer.headers))

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives. To be closed: left to the collector, it would cost its loop a task."""
        answer, read = self._answered(), self._stream.read
        piece, self._first = self._first, b""
        while True:
            if piece:
                yield piece
            if answer.broken:
                raise answer.broken
            if answer.complete:
                return
            piece = answer.take(await read())

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
        return asyncio.get_running_loop().time() < self._expires and self._stream.is_silent()

    async def finish(self) -> bool:
        """The exchange is over. True if the connection can serve another."""
        answer, self._answer = self._answer, None
        self._expires = asyncio.get_running_loop().time() + IDLE_SECONDS
        return answer is not None and answer.keeps

    def close(self) -> None:
        self._stream.sever()

    async def aclose(self) -> None:
        self.close()

    def _answered(self) -> Answer:
        if self._answer is None:
            raise RuntimeError("nothing was sent on this connection")
        return self._answer


async def _head(stream: Stream, answer: Answer) -> bytes:
    """Read until the answer's head is there; the part of its body that came with it."""
    while not answer.opened:
        piece = answer.take(await stream.read())
        if answer.broken and not answer.opened:
            raise answer.broken
    return piece


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
        loop = asyncio.get_running_loop()
        name = host if direct else None
        try:
            _, stream = await loop.create_connection(
                Stream, host, port, ssl=self._tls() if direct else None, server_hostname=name
            )
        except (OSError, UnicodeError) as error:
            raise ConnectError(f"{host}:{port}: {_words(error)}") from error
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
    stream.write(proxy.tunnel(route))
    answer = Answer(bodyless=True)
    await _head(stream, answer)
    if not 200 <= answer.status < 300:
        raise ProxyError(f"the proxy {proxy.host}:{proxy.port} answered {answer.status}")


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(
        error
    ).__name__
