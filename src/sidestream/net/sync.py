"""Blocking connections that wait exactly as long as a call allows and can be severed from any thread.

Strategy: no watchdog. Before each blocking step the stream asks its call's `Watch` how long is left and lets
the kernel keep that time; when another thread stops the call, `Watch.stop` ends whatever the owner waits for:
it sets the event of a sleep and `shutdown()`s the socket of a handshake, write or read; lookups and connects
look every 20 ms. Only the owner closes. (A file descriptor closed under a blocked thread can be reused by
another file at once; that has written TLS records into databases.) A lock keeps sever and close apart.

An idle connection has no owner until the next call takes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol

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
from .failures import (
    ConnectError,
    ConnectTimeout,
    ProxyError,
    ReadError,
    ReadTimeout,
    WriteError,
    WriteTimeout,
)
from .http1 import Answer

if TYPE_CHECKING:
    import ssl  # loaded with the first TLS connection

__all__ = ["AnyLane", "AnyPool", "Lane", "Pool", "Watch"]

READ_BYTES = 64 * 1024
# A read looks at least so often (seconds) whether it has waited long enough. A Ctrl-C that comes in the very
# moment in which it begins to wait is not seen before that.
LOOK = 1.0
# How long a name lookup or a connect in progress may go without looking whether the call was stopped.
_SLICE = 0.02


class Watch:
    """How long the owner of a call may still wait, and the hand that ends it early."""

    def __init__(self, clock: CallClock) -> None:
        self.clock = clock
        self.meter: Meter | None = None
        self.stopped: Literal["cancel", "interrupt"] | None = None
        self.hurry: Callable[[], None] | None = None  # tells who else keeps the time that it is earlier
        self._bell = threading.Event()  # ends a sleep
        self._lock = threading.Lock()
        self._stream: Severable | None = None

    def stop(self, kind: Literal["cancel", "interrupt"]) -> None:
        """End the call, from any thread. The owner learns it at once, whatever it waits for."""
        with self._lock:
            self.stopped = self.stopped or kind
            stream = self._stream
        self._bell.set()
        if stream is not None:
            stream.sever()

    def attach(self, stream: Severable | None) -> None:
        """The connection the owner now waits on."""
        with self._lock:
            self._stream = stream
            stopped = self.stopped
        if stopped and stream is not None:
            stream.sever()

    def left(self) -> float:
        """Seconds the owner may still wait for this step.

        Raises:
            ReadTimeout: none are left.
            ReadError: the call was stopped.
        """
        self.check()
        if self.meter is None:
            raise RuntimeError("a call waits only under a meter")
        left = self.meter.due - self.clock.now()
        if left <= 0:
            raise ReadTimeout("no time is left")
        return left

    def rearm(self) -> None:
        """The meter's limit moved to an earlier instant."""
        if self.hurry is not None:
            self.hurry()

    def check(self) -> None:
        """Whether to go on.

        Raises:
            ReadError: the call was stopped, perhaps while the consumer had the stream.
        """
        if self.stopped:
            raise ReadError("the call was stopped")

    def sleep(self, seconds: float) -> None:
        """Wait, or until the call is stopped."""
        self._bell.wait(seconds)

    def wait(self, pending: Pending, seconds: float) -> None:
        """Wait until `pending` is ready, so many seconds at most, or until the call is stopped."""
        pending.when_ready(self._bell.set)
        self._bell.wait(seconds)
        with self._lock:
            if not self.stopped:
                self._bell = threading.Event()  # a late ring is for the old one

    def until(self, done: threading.Event) -> None:
        """Wait for `done` under the meter."""
        while not done.wait(min(_SLICE, self.left())):
            pass


class Stream:
    """A socket under a `Watch`."""

    def __init__(self, sock: socket.socket, watch: Watch) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._closed = False
        self._patience = 0.0  # the socket's timeout
        self.watch = watch

    def read(self) -> bytes:
        """What has arrived, at most READ_BYTES of it; nothing at the end of the connection."""
        patience = min(self.watch.left(), LOOK)
        if patience != self._patience:  # setting it costs a system call
            self._limit(patience)
        while True:
            try:
                return self._sock.recv(READ_BYTES)
            except TimeoutError:
                self._limit(min(self._left(), LOOK))
            except OSError as error:
                raise ReadError(_words(error)) from error

    def _left(self) -> float:
        try:
            return self.watch.left()
        except ReadTimeout:
            raise ReadTimeout("the provider was silent") from None

    def _limit(self, seconds: float) -> None:
        self._patience = seconds
        self._sock.settimeout(seconds)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._limit(self.watch.left())
            try:
                view = view[self._sock.send(view) :]
            except TimeoutError:
                raise WriteTimeout("the provider did not take the request") from None
            except OSError as error:
                raise WriteError(_words(error)) from error

    def handshake(self, context: ssl.SSLContext, host: str) -> None:
        """Start TLS on this connection."""
        with self._lock:
            self._sock = context.wrap_socket(self._sock, server_hostname=host, do_handshake_on_connect=False)
        self._limit(self.watch.left())
        try:
            self._sock.do_handshake()
        except TimeoutError:
            raise ConnectTimeout("the TLS handshake took too long") from None
        except OSError as error:
            raise ConnectError(f"TLS: {_words(error)}") from error

    def sever(self) -> None:
        """Make every read and write of the owner end now. Any thread may; only the owner closes."""
        with self._lock:
            if not self._closed:
                with contextlib.suppress(OSError):
                    # Not the method of SSLSocket, which would also drop the TLS state under its owner.
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._sock.close()

    def is_silent(self) -> bool:
        """Whether an idle connection has nothing to say, which could only be goodbye."""
        return not self._closed and not _is_readable(self._sock)


class Lane:
    """One connection to one origin, used by one call at a time."""

    def __init__(self, route: Route, stream: Stream, proxy: Proxy | None) -> None:
        self.origin = route.origin
        self._stream = stream
        self._proxy = proxy
        self._answer: Answer | None = None
        self._first = b""  # of the body: it came with the head
        self._expires = 0.0

    def send(self, route: Route, body: bytes, method: str = "POST", target: str = "") -> Opened:
        """Send the request (to the route's own target if not given), wait for the answer's headers."""
        request = http_request(route, body, self._proxy, method, target)
        with contextlib.suppress(WriteError):  # who refuses a request may answer before all of it is there
            self._stream.write(request)
        self._answer = Answer()
        self._first = _head(self._stream, self._answer)
        return Opened(self._answer.status, dict(self._answer.headers))

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives."""
        answer, read = self._answered(), self._stream.read
        piece, self._first = self._first, b""
        while True:
            if piece:
                yield piece
            if answer.broken:
                raise answer.broken
            if answer.complete:
                return
            piece = answer.take(read())

    def rest(self) -> bytes:
        """The body, at most BODY_LIMIT bytes of it."""
        held = b""
        for chunk in self.chunks():
            held += chunk
            if len(held) >= BODY_LIMIT:
                break
        return held[:BODY_LIMIT]

    def take(self, watch: Watch) -> None:
        """This call now owns the connection."""
        self._stream.watch = watch
        watch.attach(self._stream)

    def is_reusable(self) -> bool:
        return time.monotonic() < self._expires and self._stream.is_silent()

    def finish(self) -> bool:
        """The exchange is over. True if the connection can serve another."""
        answer, self._answer = self._answer, None
        self._expires = time.monotonic() + IDLE_SECONDS
        return answer is not None and answer.keeps

    def close(self) -> None:
        self._stream.close()

    def _answered(self) -> Answer:
        if self._answer is None:
            raise RuntimeError("nothing was sent on this connection")
        return self._answer


def _head(stream: Stream, answer: Answer) -> bytes:
    """Read until the answer's head is there; the part of its body that came with it."""
    while not answer.opened:
        piece = answer.take(stream.read())
        if answer.broken and not answer.opened:
            raise answer.broken
    return piece


class Pool:
    """Opens connections and keeps finished ones for the next call: at most 8 per origin, for 30 s."""

    def __init__(self, cafile: str | None = None) -> None:
        self._cafile = cafile
        self._context: ssl.SSLContext | None = None
        self._idle: dict[str, list[Lane]] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def open(self, route: Route, watch: Watch) -> Lane:
        """A connection for this route, kept or new, owned by the caller until `keep` or `close`."""
        lane = self._kept(route.origin)
        if lane is not None:
            lane.take(watch)
            return lane
        proxy = proxy_for(route)
        host, port = (proxy.host, proxy.port) if proxy else (route.host, route.port)
        stream = Stream(_connect(host, port, watch), watch)
        watch.attach(stream)
        try:
            if route.scheme == "https":
                if proxy:
                    _tunnel(proxy, route, stream)
                stream.handshake(self._tls(), route.host)
        except BaseException:
            stream.close()
            raise
        return Lane(route, stream, proxy)

    def keep(self, lane: Lane) -> None:
        """Give a finished connection back."""
        with self._lock:
            idle = self._idle.setdefault(lane.origin, [])
            idle.append(lane)
            surplus = idle.pop(0) if len(idle) > IDLE_PER_ORIGIN else None
        if surplus is not None:
            surplus.close()

    def close(self) -> None:
        """Close what is idle. Connections in use belong to their calls."""
        with self._lock:
            lanes = [lane for idle in self._idle.values() for lane in idle]
            self._idle.clear()
        for lane in lanes:
            lane.close()

    def _kept(self, origin: str) -> Lane | None:
        while True:
            with self._lock:
                if self._pid != os.getpid():  # a fork shares sockets with its parent: they are not ours
                    self._idle, self._pid = {}, os.getpid()
                idle = self._idle.get(origin)
                lane = idle.pop() if idle else None
            if lane is None or lane.is_reusable():
                return lane
            lane.close()

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = tls_context(self._cafile)
        return self._context


def _connect(host: str, port: int, watch: Watch) -> socket.socket:
    """A connected socket, the addresses tried one after the other, each with its share of the time."""
    addresses = _resolve(host, port, watch)
    problem: OSError = OSError("the name has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _await_connect(sock, address, watch.left() / (len(addresses) - number), watch)
        except OSError as error:
            sock.close()
            problem = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    if isinstance(problem, TimeoutError):
        raise ConnectTimeout(f"{host}:{port} does not answer")
    raise ConnectError(f"{host}:{port}: {_words(problem)}") from problem


def _await_connect(sock: socket.socket, address: Any, seconds: float, watch: Watch) -> None:
    code = sock.connect_ex(address)
    if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
        raise OSError(code, os.strerror(code))
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        waited = 0.0
        while not selector.select(_SLICE):
            waited += _SLICE
            if waited >= seconds:
                raise TimeoutError
            watch.left()
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _resolve(host: str, port: int, watch: Watch) -> list[Any]:
    """Addresses of a host. The lookup blocks in C and heeds nobody, so it gets a thread of its own."""
    if _is_address(host):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    found: list[Any] = []
    problem: list[Exception] = []
    done = threading.Event()

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            problem.append(error)
        finally:
            done.set()

    threading.Thread(target=look_up, name="sidestream-lookup", daemon=True).start()
    watch.until(done)
    if problem:
        raise ConnectError(f"cannot look up {host}: {_words(problem[0])}")
    return found


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, host)
            return True
    return False


class AnyLane(Protocol):
    """What a run needs of a connection, whoever made it."""

    def send(self, route: Route, body: bytes, method: str = ..., target: str = ...) -> Opened: ...
    def chunks(self) -> Iterator[bytes]: ...
    def rest(self) -> bytes: ...
    def finish(self) -> bool: ...
    def close(self) -> None: ...


class AnyPool(Protocol):
    """Where a run gets its connections."""

    def open(self, route: Route, watch: Watch, /) -> AnyLane: ...
    def keep(self, lane: Any, /) -> None: ...


def _tunnel(proxy: Proxy, route: Route, stream: Stream) -> None:
    stream.write(proxy.tunnel(route))
    answer = Answer(bodyless=True)
    _head(stream, answer)
    if not 200 <= answer.status < 300:
        raise ProxyError(f"the proxy {proxy.host}:{proxy.port} answered {answer.status}")


def _is_readable(sock: socket.socket) -> bool:
    """Whether an idle connection has something to say, which can only be goodbye."""
    with selectors.DefaultSelector() as selector:
        try:
            selector.register(sock, selectors.EVENT_READ)
        except (OSError, ValueError):
            return True
        return bool(selector.select(0))


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(
        error
    ).__name__
