"""HTTP/1.1 with one client: h11 over an asyncio stream. Which answer a request gets is not decided here.

Strategy: requests are read whole, within limits; answers are written as they come. While one is written the
link goes on reading, because the end of what the client sends means that it has left: FIN, reset, or a FIN
after its request alike. An answer that cannot be finished ends without the terminator that HTTP/1.1 has for
one, so that no client takes half of it for all. HTTP/1.0 has none, and is refused for that reason.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import h11
import msgspec

__all__ = ["ClientLeft", "Headers", "Incoming", "Limits", "Link", "Refused"]

Headers = Iterable[tuple[bytes, bytes]]

_CHUNK = 64 * 1024
_HEAD = 64 * 1024
# How long a client may take to read what it was sent last, before its connection is closed on it.
_FLUSH_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server will not exceed.

    Attributes:
        body: bytes of one request body.
        connections: open at a time; further ones are closed at once.
        idle: seconds that a connection may take for its next request, from the first byte to the last.
    """

    body: int = 64 * 1024 * 1024
    connections: int = 256
    idle: float = 75.0


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came, credentials included. Lives only while it is answered."""

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]  # names in small letters
    body: bytes

    def has(self, name: bytes) -> bool:
        """Whether it has a header of that name."""
        return any(name == given for given, _ in self.headers)


class ClientLeft(Exception):
    """There is nobody to answer any more."""


class Refused(Exception):
    """A request that gets this status and is the last of its connection."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Link:
    """One connection from a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits) -> None:
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD)
        self._bodiless = False  # the request wants the head of its answer only

    async def next(self) -> Incoming | None:
        """The next request; None if the client sends no more, or takes too long.

        Raises:
            Refused: it is not HTTP/1.1, or too much.
            ClientLeft: in the middle of it.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.idle):
                head = await self._event()
                return await self._whole(head) if isinstance(head, h11.Request) else None
        return None

    async def _whole(self, head: h11.Request) -> Incoming:
        if head.http_version < b"1.1":
            raise Refused(
                505, "HTTP/1.1 is needed: an older client cannot tell half an answer from a whole one"
            )
        said = next((int(value) for name, value in head.headers if name == b"content-length"), 0)
        body = bytearray()
        while said <= self._limits.body and isinstance(event := await self._event(), h11.Data):
            body += event.data
            said = max(said, len(body))
        if said > self._limits.body:
            raise Refused(413, f"the request body is larger than {self._limits.body} bytes")
        if not isinstance(event, h11.EndOfMessage):
            raise ClientLeft
        self._bodiless = head.method == b"HEAD"
        method, target = head.method.decode("ascii"), head.target.decode("ascii")
        return Incoming(method, target, tuple(head.headers), bytes(body))

    async def _event(self) -> object:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
                self._http.receive_data(await self._read())
        except h11.RemoteProtocolError as error:
            raise Refused(error.error_status_hint, f"this is not a request: {error}") from None
        return event

    async def left(self) -> None:
        """Wait until the client has left; what it sends meanwhile is its next request.

        Raises:
            ClientLeft: always.
        """
        held = 0
        while (data := await self._read()) and held <= _HEAD:
            self._http.receive_data(data)
            held += len(data)
        raise ClientLeft

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(_CHUNK)
        except OSError:
            raise ClientLeft from None

    # Answering. Each of these raises ClientLeft when that is so.

    async def begin(self, status: int, headers: Headers) -> None:
        """The head of an answer, without headers that belong to a connection."""
        await self._send(h11.Response(status_code=status, headers=list(headers)))

    async def send(self, data: bytes) -> None:
        """A piece of its body; waits while the client does not keep up."""
        if not self._bodiless:
            await self._send(h11.Data(data=data))

    async def end(self) -> bool:
        """Its end. True: the connection can take another request."""
        await self._send(h11.EndOfMessage())
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return True
        return False

    async def whole(self, status: int, value: object, headers: Headers = ()) -> bool:
        """An answer of ours, as JSON. As `end` otherwise."""
        data = msgspec.json.encode(value)
        length = str(len(data)).encode()
        await self.begin(
            status, [(b"content-type", b"application/json"), (b"content-length", length), *headers]
        )
        await self.send(data)
        return await self.end()

    async def _send(self, event: h11.Event) -> None:
        if (data := self._http.send(event)) is not None:
            await self._write(data)

    async def _write(self, data: bytes | None) -> None:
        if not data:
            return
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            raise ClientLeft from None

    async def close(self) -> None:
        """What is written goes out, then the connection ends: abruptly, if an answer was not finished."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                if self._http.their_state is not h11.DONE and self._writer.can_write_eof():
                    self._writer.write_eof()
                    while await self._reader.read(_CHUNK):  # a reset would take the answer from a client
                        pass  # that still sends
                self._writer.close()
                await self._writer.wait_closed()
        self._writer.transport.abort()

    def abort(self) -> None:
        """Close at once."""
        self._writer.transport.abort()
