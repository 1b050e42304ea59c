"""A world in memory for the real drivers: servers that play bytes, and clocks that jump instead of waiting.

Everything above the socket is the product: httpcore2 and h11 parse the bytes, `net` maps what happens to the
connection, the drivers run the flow. Below it, `World` answers request after request with an `Answer`: raw
HTTP/1.1 bytes in the pieces in which they arrive, and what the connection does after them.

`client` (threads) opens its connections on a `_Socket`, whose waits move the clock. `async_client` needs a
`Loop`: an asyncio loop whose time is the world's and which makes connections to the world.
"""

from __future__ import annotations

import asyncio
import re
import selectors
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sidestream import AsyncClient, Client, Route
from sidestream.drivers import System
from sidestream.net import sync
from sidestream.recovery.origins import Origins, StormRules

# Thousands of calls break here on purpose, at one origin: storm control has tests of its own.
PATIENT = StormRules(tokens=10**6, in_a_row=10**6, window_least=10**6, window_most=10**6)

Ending = Literal["clean", "fin", "rst", "stall"]
ENDINGS: tuple[Ending, ...] = ("clean", "fin", "rst", "stall")

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)\r\n")


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes of one response as they arrive, and then: FIN, RST, or nothing any more.

    `clean` is nothing, too: the body said its own end, and the connection stays.
    """

    reads: tuple[bytes, ...]
    ending: Ending = "clean"


def answer(*pieces: bytes, ending: Ending = "clean", head: bytes = _HEAD) -> Answer:
    """A chunked response, one chunk per piece, each arriving on its own; the head comes with the first.

    It ends cleanly after the last piece, or inside the last chunk, of which one byte more was announced.
    """
    if ending == "clean":
        framed = [*(_chunk(piece) for piece in pieces if piece), b"0\r\n\r\n"]
    else:
        framed = [*(_chunk(piece) for piece in pieces[:-1] if piece), _torn(pieces[-1])]
    return Answer((head + framed[0], *framed[1:]), ending)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _torn(data: bytes) -> bytes:
    return b"%x\r\n%b" % (len(data) + 1, data)


class Clock:
    """Seconds that pass only when somebody waits for them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class World:
    """Who answers. `play` sets the answers of the next call; `requests` holds what was asked since."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.requests: list[bytes] = []
        self.open = 0
        self._answers: deque[Answer] = deque()

    def play(self, *answers: Answer) -> None:
        self._answers = deque(answers)
        self.requests = []

    def respond(self, request: bytes) -> Answer:
        self.requests.append(request)
        if not self._answers:
            raise AssertionError("a request too many")
        return self._answers.popleft()

    @property
    def system(self) -> System:
        """Its time, and no jitter: a backoff takes no time."""
        origins = Origins(self.clock, rules=PATIENT)
        return System(self.clock, lambda: 1_790_000_000.0, random=lambda: 0.0, origins=origins)


class _Peer:
    """The server's side of a connection: collects a request, says what to answer."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._received = b""

    def hear(self, data: bytes) -> Answer | None:
        """Take bytes; the answer once the request is complete."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + end)
        if not end or length is None or len(body) < int(length.group(1)):
            return None
        request, self._received = self._received, b""
        return self._world.respond(request)


# Threads.


class _Socket:
    """What `net.sync.Stream` uses of a socket."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._peer = _Peer(world)
        self._reads: deque[bytes] = deque()
        self._ending: Ending = "clean"
        self._patience: float | None = None
        self.closed = False
        world.open += 1

    def settimeout(self, seconds: float) -> None:
        self._patience = seconds

    def send(self, data: memoryview) -> int:
        if said := self._peer.hear(bytes(data)):
            self._reads.extend(said.reads)
            self._ending = said.ending
        return len(data)

    def recv(self, size: int) -> bytes:
        assert all(len(piece) <= size for piece in self._reads), "an answer is larger than a read"
        if self._reads:
            return self._reads.popleft()
        if self._ending == "fin":
            return b""
        if self._ending == "rst":
            raise ConnectionResetError(104, "Connection reset by peer")
        self._world.clock.advance(self._patience or 0.0)
        raise TimeoutError

    def close(self) -> None:
        self._world.open -= not self.closed
        self.closed = True


class _Pool(sync.Pool):
    """A pool that connects to a world."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def open(self, route: Route, watch: sync.Watch) -> sync.Lane:
        stream = sync.Stream(_Socket(self._world), watch)  # type: ignore[arg-type]
        watch.attach(stream)
        return sync.Lane(route, stream, None)

    def keep(self, lane: sync.Lane) -> None:
        lane.close()


class _Client(Client):
    """A client whose connections lead into a world."""

    def __init__(self, world: World, **options: Any) -> None:
        self._world = world
        super().__init__(system=world.system, **options)

    def _open_pool(self) -> None:
        self._pool = _Pool(self._world)


# asyncio.


class _Transport(asyncio.Transport):
    """A connection of a `Loop`. Bytes arrive one piece per turn of the loop, so a reader sees each."""

    def __init__(self, loop: Loop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._peer = _Peer(loop.world)
        self._protocol = protocol
        self._closing = False
        loop.world.open += 1
        protocol.connection_made(self)

    def write(self, data: bytes) -> None:
        if said := self._peer.hear(bytes(data)):
            self._loop.call_soon(self._deliver, deque(said.reads), said.ending)

    def _deliver(self, reads: deque[bytes], ending: Ending) -> None:
        if self._closing:
            return
        if reads:
            self._protocol.data_received(reads.popleft())
            self._loop.call_soon(self._deliver, reads, ending)
        elif ending == "fin":
            self._protocol.eof_received()
            self._lose(None)
        elif ending == "rst":
            self._lose(ConnectionResetError(104, "Connection reset by peer"))

    def _lose(self, error: Exception | None) -> None:
        self._loop.world.open -= not self._closing
        self._closing = True
        self._loop.call_soon(self._protocol.connection_lost, error)

    def abort(self) -> None:
        if not self._closing:
            self._lose(None)

    close = abort

    def is_closing(self) -> bool:
        return self._closing

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        raise AssertionError("an answer is larger than a reader's buffer")


class _Selector(selectors.BaseSelector):
    """Moves the clock where another selector would wait."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if not ready:
            if timeout is None:
                raise AssertionError("everybody waits and nothing will ever happen")
            self._clock.advance(timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class Loop(asyncio.SelectorEventLoop):
    """An event loop in a world: its time is virtual, and whatever is connected to is the world."""

    def __init__(self, world: World) -> None:
        self.world = world
        super().__init__(_Selector(world.clock))

    def time(self) -> float:
        return self.world.clock()

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], *_where: Any, **_options: Any
    ) -> tuple[_Transport, asyncio.Protocol]:
        protocol = protocol_factory()
        return _Transport(self, protocol), protocol


# Clients.


def client(world: World, routes: Sequence[Route], **options: Any) -> Client:
    """A blocking client in this world."""
    return _Client(world, routes=routes, **options)


def async_client(world: World, routes: Sequence[Route], **options: Any) -> AsyncClient:
    """An asyncio client for calls on a `Loop` of this world."""
    return AsyncClient(routes=routes, system=world.system, **options)
