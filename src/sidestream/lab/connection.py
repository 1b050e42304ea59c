"""One TCP connection: bytes in become requests, bytes out are whatever it is told, its end can be any end.

Requests are parsed by httptools. Responses are raw bytes: no HTTP library would send them broken. A FIN
or RST from the client counts as leaving: it is noted at once and cancels the task that is answering,
whatever that task is waiting for. A half-closed client (FIN after its request) has therefore left, too.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import httptools

from .certs import TlsLayer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .record import Log, Request

__all__ = ["ClientLeft", "Connection", "Incoming", "Refused", "RequestReader", "Rules"]

_HEAD_LIMIT = 64 * 1024
_FLUSH_LIMIT = 1.0
_RST_ON_CLOSE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class ClientLeft(Exception):
    """There is nobody to send to any more."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came, credentials included. Lives only while it is answered."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    http10: bool
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """What a connection needs from its lab.

    Attributes:
        answer: answers one request; True keeps the connection for another one.
        counts: whether a request is an attempt at a model endpoint.
        log: where requests are noted.
        max_body: bytes of a request body.
        idle: seconds a connection may wait for its next request.
        context: TLS settings, or None for plain TCP.
        closed: told when the connection is gone.
        broken: told of an error that is nobody's fault but ours or the caller's answer function's.
    """

    answer: Callable[[Incoming, Request, Connection], Awaitable[bool]]
    counts: Callable[[Incoming], bool]
    log: Log
    max_body: int
    idle: float
    context: ssl.SSLContext | None
    closed: Callable[[Connection], None]
    broken: Callable[[Exception], None]


class Refused(Exception):
    """What came is no request, or too large a one. `status` is the answer it deserves."""

    def __init__(self, status: int) -> None:
        super().__init__(f"refused with {status}")
        self.status = status


class RequestReader:
    """Bytes to requests, without I/O."""

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._ready: deque[Incoming] = deque()
        self._refused: Refused | None = None
        self._restart()

    def _restart(self) -> None:
        self._parser: Any = httptools.HttpRequestParser(self)
        self.on_message_begin()

    def feed(self, data: bytes) -> None:
        """More bytes from the client. What is wrong with them is said by `next`, in its turn."""
        if self._refused is not None:
            return
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as other:  # nothing here speaks another protocol
                data = data[other.args[0] :]
                self._restart()
                continue
            except httptools.HttpParserError:
                self._refuse(400)
            break
        self._head_size += len(data)
        if not self._headed and self._head_size > _HEAD_LIMIT:
            self._refuse(431)
        if sum(len(incoming.body) for incoming in self._ready) > self._max_body:
            self._refuse(413)

    @property
    def wants_continue(self) -> bool:
        """True once, when the client waits for `100 Continue` before its body."""
        wants = self._expects and self._headed and not (self._body or self._continued)
        self._continued |= wants
        return wants

    def next(self) -> Incoming | None:
        """The next complete request. Raises `Refused` for what is none."""
        if self._ready:
            return self._ready.popleft()
        if self._refused is not None:
            raise self._refused
        return None

    def _refuse(self, status: int) -> None:
        if self._refused is None:
            self._refused = Refused(status)

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._body = bytearray()
        self._headed = self._expects = self._continued = False
        self._head_size = 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self._headed = True
        named = dict(self._headers)
        self._expects = named.get("expect", "").lower() == "100-continue"
        if "host" not in named and self._parser.get_http_version() == "1.1":
            self._refuse(400)

    def on_body(self, body: bytes) -> None:
        if self._refused is None:
            self._body += body
        if len(self._body) > self._max_body:
            self._refuse(413)

    def on_message_complete(self) -> None:
        if self._refused is None:
            self._ready.append(self._complete())

    def _complete(self) -> Incoming:
        return Incoming(
            method=self._parser.get_method().decode("ascii"),
            target=self._target.decode("latin-1"),
            headers=tuple(self._headers),
            body=bytes(self._body),
            http10=self._parser.get_http_version() == "1.0",
            keep_alive=self._parser.should_keep_alive(),
        )


class Connection(asyncio.Protocol):
    """The asyncio side of one connection. Everything here runs on the lab's loop."""

    def __init__(self, number: int, rules: Rules) -> None:
        self.number = number
        self._rules = rules
        self._reader = RequestReader(rules.max_body)
        self._tls = TlsLayer(rules.context) if rules.context else None
        self._requests: list[int] = []
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = asyncio.Event()
        self._left_at: float | None = None
        self._ended = False

    # The client's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wait_idle()

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(self._plain(data))
            if self._task is None:
                self._take_next()
        except ssl.SSLError:
            self._leave()
            self._transport.abort()
        except Refused as refused:
            self._refuse(refused.status)
        if self._tls and self._tls.peer_left:
            self.eof_received()

    def eof_received(self) -> None:
        self._leave()
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None or not self._ended:
            self._leave()
        self._stop_idle()
        self._rules.log.close(self._requests, self._left_at or time.monotonic())
        self._lost.set()
        self._writable.set()
        self._rules.closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _plain(self, data: bytes) -> bytes:
        if self._tls is None:
            return data
        plain = self._tls.decrypt(data)
        if answer := self._tls.pending():
            self._transport.write(answer)
        return plain

    def _leave(self) -> None:
        if self._left_at is None and not self._ended:
            self._left_at = time.monotonic()
            self._rules.log.close(self._requests, self._left_at)
            if self._task is not None:
                self._task.cancel()

    def _refuse(self, status: int) -> None:
        """Not HTTP, or too much of it: say so and close."""
        if self._task is not None:
            self._task.cancel()
        self._ended = True
        self._write(f"HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        self._transport.close()

    # Answering.

    def _take_next(self) -> None:
        incoming = self._reader.next()
        if incoming is None:
            if self._reader.wants_continue:
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        self._stop_idle()
        record = self._rules.log.open(
            self.number,
            incoming.method,
            incoming.target,
            incoming.headers,
            incoming.body,
            counts=self._rules.counts(incoming),
        )
        self._requests.append(record.index)
        self._task = asyncio.get_running_loop().create_task(self._respond(incoming, record))

    async def _respond(self, incoming: Incoming, record: Request) -> None:
        try:
            again = await self._rules.answer(incoming, record, self)
        except ClientLeft:
            again = False
        except Exception as bug:  # noqa: BLE001  an answer function's or ours: raised when the lab is left
            self._rules.broken(bug)
            self.abort()
        finally:
            self._task = None
            self._rules.log.update(record.index, **self._ending())
        if not again or self._ended:
            await self.close()
            return
        self._wait_idle()
        try:
            self._take_next()
        except Refused as refused:
            self._refuse(refused.status)

    def _ending(self) -> dict[str, object]:
        by = "server" if self._left_at is None else "client"
        return {"ended_by": by, "ended_at": self._left_at or time.monotonic()}

    def _wait_idle(self) -> None:
        self._idle = asyncio.get_running_loop().call_later(self._rules.idle, self._transport.close)

    def _stop_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    # The server's side: what `play` may do.

    async def send(self, data: bytes) -> None:
        """Write, and wait while the client does not keep up. Raises ClientLeft."""
        if self._left_at is not None or self._lost.is_set():
            raise ClientLeft
        self._write(data)
        await self._writable.wait()

    async def close(self) -> None:
        """FIN, after close_notify on TLS."""
        await self._finish(self._tls.farewell() if self._tls else b"")

    async def vanish(self) -> None:
        """FIN, without close_notify."""
        await self._finish(b"")

    async def reset(self) -> None:
        """RST, once the client's kernel has what was written before."""
        self._ended = True
        until = time.monotonic() + _FLUSH_LIMIT
        while self._unsent() and time.monotonic() < until:  # noqa: ASYNC110  the kernel sends no event
            await asyncio.sleep(0.0005)
        if not self._lost.is_set():
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
            self._transport.abort()
            await self._lost.wait()

    def abort(self) -> None:
        """Close at once, whatever is going on."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()
        self._transport.abort()

    def _unsent(self) -> bool:
        if self._lost.is_set():
            return False
        return bool(self._transport.get_write_buffer_size() or _unacknowledged(self._socket))

    def _write(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(self._tls.encrypt(data) if self._tls else data)

    async def _finish(self, last: bytes) -> None:
        self._ended = True
        if last and not self._transport.is_closing():
            self._transport.write(last)
        self._transport.close()
        try:
            async with asyncio.timeout(self._rules.idle):
                await self._lost.wait()
        except TimeoutError:
            self._transport.abort()


def _unacknowledged(sock: socket.socket) -> int:
    """Bytes the client's kernel has not taken yet; 0 where the system does not tell."""
    try:
        import fcntl
        import termios

        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])
    except (ImportError, OSError, AttributeError):
        return 0
