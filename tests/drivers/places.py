"""Places on this machine where a call gets stuck, and calls that are timed.

The sockets here belong to the test: they accept nothing, or accept and say nothing, which the lab, being a
server, would not do.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from callers import caller
from verdicts import Outcome

from sidestream import AsyncClient, Client


@contextlib.contextmanager
def listening(backlog: int) -> Iterator[socket.socket]:
    """A socket that listens and never accepts: connections up to its backlog stand, and hear nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as server:
        yield server


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """A place where connecting never ends: a listening socket whose backlog is full."""
    with listening(0) as server, contextlib.ExitStack() as held:
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def mute() -> Iterator[str]:
    """A place where a connection stands and nothing is ever said: a TLS handshake hangs there."""
    with listening(16) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def endless_lookup(patch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Looking up a name never ends, before the block is left; the event tells that somebody tries."""
    real, over, asked = socket.getaddrinfo, threading.Event(), threading.Event()

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        if host != "nowhere.test":
            return real(host, *args, **options)
        asked.set()
        over.wait(10)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with patch.context() as patched:
        patched.setattr(socket, "getaddrinfo", look_up)
        try:
            yield asked
        finally:
            over.set()


def timed(way: str, ask: dict[str, Any], **options: Any) -> tuple[Outcome, float]:
    """One call with a client of its own, and its seconds."""
    loop = asyncio.new_event_loop()
    try:
        call = caller(way, lambda: Client(**options), lambda: AsyncClient(**options), loop)
        begun = time.monotonic()
        outcome = call(ask)
        return outcome, time.monotonic() - begun
    finally:
        loop.close()


Place = Callable[[], contextlib.AbstractContextManager[str]]
