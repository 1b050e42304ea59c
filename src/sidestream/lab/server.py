"""`Lab`: the server's life. Its loop has a thread of its own, so sync and async clients are tested alike.

This is the side that other threads use: start, stop, look at the records, wait for them. What runs on the
loop is in `house`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self

from ..errors import UsageError
from . import script
from .certs import Certificate
from .connection import Rules
from .faults import Kind
from .house import STOP_SECONDS, House, Limits, bound
from .plan import Plan
from .record import Log, Request
from .script import Script
from .service import Service, counts

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from .service import Answers

__all__ = ["Lab", "serve"]

_POLL_SECONDS = 0.1
_JOIN_SECONDS = 5.0


class Lab:
    """A server on a real socket that says what it is told and fails as planned.

    ::

        with Lab(script.responses_text("Hello"), plan=Plan([Fault.cut(after_event=3)])) as lab:
            ...  # point a client at lab.url
            lab.requests[0].fault  # "cut"

    Args:
        answers: one script for every attempt; or a sequence (the last repeats); or a function from
            `Request` to script. By default every wire gets a short greeting. A fixed script is sent as one
            JSON object where the request has no `"stream": true`; a function does that itself, with
            `script.as_asked`.
        plan: what goes wrong on which attempt.
        tls: serve HTTPS with a throw-away certificate (needs trustme); clients trust `ca_pem`.
        host: address to listen on. Anything but loopback is open to your network.
        port: TCP port; 0 picks a free one.
        upstream: base of a real server, such as `http://127.0.0.1:8080`: the lab becomes a proxy before it.
        models: ids in the answer to `GET …/models`.
        limits: what the lab will not exceed.

    Raises:
        UsageError: the arguments contradict each other.
        OSError: the port is taken.
    """

    def __init__(
        self,
        answers: Answers | None = None,
        *,
        plan: Plan | None = None,
        tls: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        upstream: str | None = None,
        models: tuple[str, ...] = ("lab-1",),
        limits: Limits | None = None,
    ) -> None:
        self._plan = plan or Plan()
        self._check(answers, tls=tls, upstream=upstream)
        self._answers = script.say("Hello from the lab.") if answers is None else answers
        self._host, self._port = host, port
        self._upstream = upstream or ""
        self._models = models
        self._limits = limits or Limits()
        self._certificate = Certificate(host) if tls else None
        self._log = Log(self._limits.records, self._limits.recorded)
        self._address: tuple[str, int] = (host, port)
        self._thread: threading.Thread | None = None
        self._working: House | None = None

    def _check(self, answers: Answers | None, *, tls: bool, upstream: str | None) -> None:
        if upstream and answers is not None:
            raise UsageError("answers and upstream exclude each other", hint="give one of them")
        if answers is not None and not isinstance(answers, Script) and not callable(answers) and not answers:
            raise UsageError("no answers given", hint="give at least one script")
        if not tls and any(fault.kind is Kind.NO_CLOSE_NOTIFY for fault in self._plan.faults):
            raise UsageError("no_close_notify is a fault of TLS", hint="Lab(..., tls=True)")

    def start(self) -> Self:
        """Listen. Returns itself. Raises OSError when the address cannot be used."""
        if self._thread is not None:
            raise UsageError("this lab is running already")
        sock = bound(self._host, self._port)
        self._address = sock.getsockname()[:2]
        ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._run, args=(sock, ready), name=f"sidestream-lab:{self._address[1]}", daemon=True
        )
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self._thread, self._working = None, None
            raise
        return self

    def _run(self, sock: socket.socket, ready: concurrent.futures.Future[None]) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._working = House(sock, self._limits)
            await self._working.run(self._rules(self._working), lambda: ready.set_result(None))

        try:
            asyncio.run(main())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    def _rules(self, house: House) -> Rules:
        service = Service(
            answers=self._answers,
            plan=self._plan,
            log=self._log,
            models=self._models,
            stall=self._limits.stall,
            upstream=self._upstream,
            refuse=house.refuse,
        )
        return Rules(
            answer=service.answer,
            counts=counts,
            log=self._log,
            max_body=self._limits.body,
            idle=self._limits.idle,
            context=self._certificate.context if self._certificate else None,
            closed=house.closed,
            broken=house.bugs.append,
        )

    def stop(self) -> None:
        """Close every socket and end the thread, within about a second. Stopping twice is fine."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._house.stop)
            self._thread.join(_JOIN_SECONDS)
            if self._thread.is_alive():
                raise RuntimeError("the lab does not end: an answer function keeps its loop busy")
            self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is None and self._house.bugs:
            raise self._house.bugs[0]

    @property
    def _house(self) -> House:
        if self._working is None:
            raise UsageError("this lab has not been started", hint="with Lab(...) as lab")
        return self._working

    # Where it is.

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self._address[0]

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._address[1]

    @property
    def url(self) -> str:
        """What a client takes as its base URL, such as `http://127.0.0.1:4242/v1`.

        Anthropic's SDK takes it without `/v1`.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self._certificate else 'http'}://{host}:{self.port}/v1"

    @property
    def ca_pem(self) -> bytes:
        """The certificate to trust, as PEM. Raises UsageError without `tls=True`."""
        if self._certificate is None:
            raise UsageError("this lab speaks no TLS", hint="Lab(..., tls=True)")
        return self._certificate.ca_pem

    # What it saw.

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests so far, oldest first; a snapshot."""
        return self._log.snapshot()

    @property
    def accepted(self) -> int:
        """How many connections have been accepted."""
        return self._house.accepted

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return self._house.open_connections

    def wait(self, n: int, until: Callable[[Request], bool], timeout: float = 5.0) -> Request:
        """Block until request `n` (from 0) has arrived and `until` holds for its record; returns it.

        Raises:
            TimeoutError: not within `timeout` seconds; the message says how far it got.
        """
        return self._log.wait(n, until, timeout, "such state")

    def wait_request(self, n: int, timeout: float = 5.0) -> Request:
        """Block until request `n` has arrived. Raises TimeoutError."""
        return self._log.wait(n, lambda _: True, timeout, "arrival")

    def wait_sent(self, n: int, events: int, timeout: float = 5.0) -> Request:
        """Block until request `n` was sent `events` whole events. Raises TimeoutError."""
        return self._log.wait(n, lambda r: r.events_sent >= events, timeout, f"{events} events sent")

    def wait_ended(self, n: int, timeout: float = 5.0) -> Request:
        """Block until the exchange of request `n` is over. Raises TimeoutError."""
        return self._log.wait(n, lambda r: r.ended_at is not None, timeout, "end")

    def wait_closed(self, n: int, timeout: float = 5.0) -> Request:
        """Block until the socket of request `n` is closed. Raises TimeoutError.

        After a clean end the connection stays open for another request: then it is the client that closes.
        """
        return self._log.wait(
            n, lambda r: r.ended_at is not None and r.closed_at is not None, timeout, "closed socket"
        )

    # What it does besides.

    def refuse(self) -> None:
        """Stop listening: new connections are refused, open ones go on."""
        self._on_loop(self._house.refuse, None)

    def accept(self) -> None:
        """Listen again, on the same port."""
        asyncio.run_coroutine_threadsafe(self._house.accept(), self._loop).result(STOP_SECONDS)

    def _on_loop(self, act: Callable[[float | None], None], argument: float | None) -> None:
        async def now() -> None:
            act(argument)

        asyncio.run_coroutine_threadsafe(now(), self._loop).result(STOP_SECONDS)


def serve(
    lab: Lab,
    *,
    started: Callable[[Lab], None],
    ended: Callable[[Request], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> None:
    """Run a lab in the foreground until Ctrl-C or until `stop` is set.

    Args:
        lab: a lab that has not been started.
        started: told once it listens.
        ended: told each request when its exchange is over, in the order of arrival.
        stop: ends it.
    """
    stopped = stop or threading.Event()
    told = 0
    with contextlib.suppress(KeyboardInterrupt), lab:
        started(lab)
        over = False
        while not over:
            over = stopped.wait(_POLL_SECONDS)
            for request in lab.requests:
                if request.index == told and request.ended_at is not None:
                    ended(request)
                    told += 1
