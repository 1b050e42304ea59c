"""The loop's side of a lab: listens, makes connections, and at the end closes everything.

While it refuses connections its port stays taken by a socket that is bound and does not listen, so nobody
who asks for a free port gets this one. Every limit of the lab is listed in `Limits`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from .connection import Rules

__all__ = ["House", "Limits", "bound"]

STOP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the lab will not exceed. Beyond it a request is refused, a connection closed, a record forgotten.

    Attributes:
        body: bytes of one request body.
        connections: open at a time; further ones are reset.
        stall: seconds until an endless stall or hang ends, or until a client that does not read is dropped.
        idle: seconds a connection may wait for its next request.
        records: requests kept in the log.
        recorded: bytes of request bodies kept in the log.
    """

    body: int = 16 * 1024 * 1024
    connections: int = 256
    stall: float = 60.0
    idle: float = 60.0
    records: int = 4096
    recorded: int = 64 * 1024 * 1024


# Turns of the loop from an accepted socket to its connection; asyncio takes three.
_ACCEPT_TURNS = 5


class House:
    """The loop's side of a lab. Every method runs on the loop."""

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self._socket = sock
        self._limits = limits
        self._server: asyncio.Server | None = None
        self._open: dict[int, Connection] = {}
        self._empty = asyncio.Event()
        self._stopping = asyncio.Event()
        self._later: set[asyncio.Task[None] | asyncio.TimerHandle] = set()
        self.accepted = 0
        self.bugs: list[Exception] = []

    async def run(self, rules: Rules, ready: Callable[[], None]) -> None:
        """Serve until `stop`."""
        self._rules = rules
        try:
            await self.accept()
            ready()
            await self._stopping.wait()
        finally:
            for later in self._later:
                later.cancel()
            await self._finish_accepting()
            if self._server is not None:
                self._server.close()
            self._socket.close()
        await self._close_all()

    def stop(self) -> None:
        self._stopping.set()

    async def accept(self) -> None:
        """Listen, if that is not the case already."""
        if self._server is None and not self._stopping.is_set():
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._connection, sock=self._socket, backlog=256)

    def refuse(self, seconds: float | None) -> None:
        """Stop listening, for that many seconds or until told."""
        if self._server is not None:
            address = self._socket.getsockname()
            self._server.close()
            self._server = None
            self._socket = bound(address[0], address[1])
        if seconds is not None:
            self._later.add(asyncio.get_running_loop().call_later(seconds, self._accept_soon))

    def _accept_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self.accept())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def _connection(self) -> asyncio.Protocol:
        number = self.accepted
        self.accepted += 1
        connection = Connection(number, self._rules)
        if len(self._open) >= self._limits.connections:
            return _Full()
        self._open[number] = connection
        return connection

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self._open.pop(connection.number, None)
        if not self._open:
            self._empty.set()

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    async def _finish_accepting(self) -> None:
        """Accept nothing new; let what was accepted just now become a connection, or asyncio leaks it."""
        with contextlib.suppress(NotImplementedError, ValueError):  # no readers on this loop, or no socket
            asyncio.get_running_loop().remove_reader(self._socket)
        for _ in range(_ACCEPT_TURNS):
            await asyncio.sleep(0)

    async def _close_all(self) -> None:
        for connection in tuple(self._open.values()):
            connection.abort()
        self._empty.clear()
        if self._open:
            async with asyncio.timeout(STOP_SECONDS):
                await self._empty.wait()


class _Full(asyncio.Protocol):
    """A connection beyond the limit: closed as soon as it is made."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def bound(host: str, port: int) -> socket.socket:
    """A socket that holds the port and does not listen yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
