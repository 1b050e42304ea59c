"""The transports: httpx's own interface above, an httpx transport below, a call's flow between them.

Strategy: one class per colour holds everything; `transport_over` gives it the base class of the httpx or
httpx2 that the wrapped transport comes from. A watched POST runs like a call of our own client, over lanes
through the wrapped transport, with a relay that makes the SDK's bytes. Its response is returned as soon as
the provider has answered with 2xx; what breaks later is mended inside the body. A final rejection is handed
on as the provider wrote it, marked so that the SDK does not ask again; other failures are raised as errors
that are both ours and httpx's.

A call that asks for no stream passes through, and its body is looked at: half a JSON document is a broken
connection. `hold` carries such calls as streams instead.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from types import ModuleType
from typing import Any

from ..drivers import AsyncRun, Notify, Orders, Run, System
from ..errors import CallFailed, Cancelled, DeadlineExceeded, SidestreamError, StreamDropped
from ..recovery.clocks import Timeouts
from ..recovery.ending import failed
from ..recovery.faults import Fault, FaultKind
from ..recovery.flow import Call
from ..recovery.policy import Policy
from ..relay import Relay, relay_for
from ..route import Continuation
from ..routes.providers import with_facts
from ..telemetry import Observer
from ..wire._json import NotJSON, loads
from ..wire.sse import LimitExceeded, Limits
from .lanes import AsyncLanes, Lanes
from .requests import Watched, watched, wire_of

__all__ = ["EXTENSION", "AnyRun", "Settings", "UnderAsync", "UnderSync", "http_of", "transport_over"]

EXTENSION = "sidestream"  # under this name a response carries its call
_ENCODED = frozenset({"content-encoding", "content-length", "transfer-encoding"})
AnyRun = Run | AsyncRun
# An error of ours and the request it ended -> what the client's user catches while reading a stream.
Translate = Callable[[SidestreamError, Any], Exception]


@dataclass(frozen=True)
class Settings:
    """How the calls of a transport are carried. See `wrap` for the meaning of each."""

    policy: Policy = field(default_factory=Policy)
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    continuation: Continuation | None = None
    hold: bool = False
    sums: bool = True
    observers: tuple[Observer, ...] = ()
    notify: Notify | None = None
    system: System = field(default_factory=System)
    translate: Translate | None = None
    translate_first: bool = False  # also before there is a response: the client would else send it again


class _Under:
    """What both colours share."""

    http: ModuleType

    def __init__(self, inner: Any, settings: Settings) -> None:
        self.inner = inner
        self.settings = settings
        self.latest: AnyRun | None = None

    def _watched(self, request: Any, data: bytes) -> Watched | None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        settings = self.settings
        found = watched(
            str(request.url), headers, data, continuation=settings.continuation, hold=settings.hold
        )
        return found if found and (found.streams or settings.hold) else None

    def _call(self, found: Watched) -> tuple[Call, Relay]:
        settings = self.settings
        relay = relay_for(found.route.wire, found.original.body, live=found.streams, sums=settings.sums)
        policy = settings.policy
        if found.retried:  # the client counts as well: two layers of retries add up, they do not multiply
            policy = replace(policy, tries=1)
        call = Call(
            found.request,
            (with_facts(found.route),),
            settings.timeouts,
            policy,
            live=found.streams,
            strict=True,
            original=found.original,
            relay=relay,
            limits=settings.limits,
        )
        return call, relay

    def _orders(self) -> Orders:
        return Orders(notify=self.settings.notify, observers=self.settings.observers)

    def _answer(
        self, run: AnyRun, response: Any, without: frozenset[str], *more: tuple[bytes, bytes], **body: Any
    ) -> Any:
        """What the provider answered, with another body, and without the headers that spoke of its own."""
        headers = [(n, v) for n, v in response.headers.raw if n.lower().decode() not in without]
        extensions = {**response.extensions, EXTENSION: run}
        return self.http.Response(
            response.status_code, headers=[*headers, *more], extensions=extensions, **body
        )

    def _whole(self, run: AnyRun, opened: Any, relay: Relay) -> Any:
        """The answer to a call that asked for no stream."""
        if run.reply is None or run.exchange is None:
            raise RuntimeError("a call ends with a reply or an error")
        data = relay.whole(run.reply, run.exchange.assembler)
        kind = (b"content-type", b"application/json")
        return self._answer(run, opened, _ENCODED | {"content-type"}, kind, content=data)

    def _rejection(self, run: AnyRun, rejected: tuple[Any, bytes]) -> Any:
        """The provider's no, as it was said; and asking again has been tried."""
        response, body = rejected
        length = (b"content-length", str(len(body)).encode())  # it may have been cut
        stream = self.http.ByteStream(body)
        return self._answer(run, response, _NOT_OF_REJECTION, length, _NOT_AGAIN, stream=stream)

    def raised(self, error: SidestreamError, request: Any, *, reading: bool) -> Exception:
        """The error as the client's user is to catch it."""
        translate = self.settings.translate
        if translate is not None and (reading or self.settings.translate_first):
            return translate(error, request)
        return both(self.http, error, request)

    def _broken(self, request: Any, fault: Fault) -> Exception:
        """The error of a call that passes through: there is no partial, and nothing is tried."""
        error = failed(fault, request.url.host, self.settings.timeouts, "", None, ())
        return both(self.http, error, request)

    def _checked(self, response: Any, data: bytes, request: Any) -> Any:
        """A passed-through answer that is whole, or the error that it is not."""
        try:
            loads(self._decoded(response, data))
        except (NotJSON, self.http.DecodingError) as error:
            fault = Fault(FaultKind.DROPPED, f"the body is not whole: {error}")
            raise self._broken(request, fault) from None
        response.stream = self.http.ByteStream(data)  # the same response: whoever made it may know it
        return response

    def _decoded(self, response: Any, data: bytes) -> bytes:
        """A body without its content coding."""
        if response.headers.get("content-encoding", "identity") == "identity":
            return data
        stream = self.http.ByteStream(data)
        plain: bytes = self.http.Response(200, headers=response.headers.raw, stream=stream).read()
        return plain

    @staticmethod
    def _is_checked(request: Any, response: Any) -> bool:
        """Whether it has to be a JSON document: any answer that says what it is, a proxy's page as well."""
        kind = response.headers.get("content-type", "")
        known = wire_of(request.method, str(request.url))
        return (
            bool(known and kind) and response.status_code == 200 and not kind.startswith("text/event-stream")
        )

    def _within(self, request: Any, began: float, size: int) -> None:
        """Raise if a body that passes through takes too long (blanks can keep it alive), or is too large."""
        settings = self.settings
        if size > settings.limits.total:
            fault = Fault(FaultKind.DROPPED, str(LimitExceeded("body", settings.limits.total)))
            raise self._broken(request, fault)
        if settings.system.clock() - began > settings.timeouts.total:
            fault = Fault(FaultKind.DEADLINE, "the answer was still on its way", clock="total")
            raise self._broken(request, fault)


_NOT_OF_REJECTION = frozenset({"transfer-encoding", "content-length", "x-should-retry"})
_NOT_AGAIN = (b"x-should-retry", b"false")


class UnderSync(_Under):
    """A blocking transport."""

    def handle_request(self, request: Any) -> Any:
        found = self._watched(request, request.read()) if _is_ours(request) else None
        if found is None:
            return self._passed(request)
        call, relay = self._call(found)
        lanes = Lanes(self.http, self.inner, request)
        run = Run(call, lanes, self.settings.system, self._orders())
        self.latest = run
        events = run.events()
        try:
            head = next(events, None)
        except SidestreamError as error:
            if lanes.rejected is not None and _is_rejection(error):
                return self._rejection(run, lanes.rejected)
            raised = self.raised(error, request, reading=False)
            raise raised from raised.__cause__
        if head is None:  # a call without a stream is over
            return self._whole(run, lanes.opened, relay)
        stream = _stream_class(self.http, is_async=False)(self, run, events, relay, request)
        return self._answer(run, lanes.opened, _ENCODED, stream=stream)

    def _passed(self, request: Any) -> Any:
        began = self.settings.system.clock()
        response = self.inner.handle_request(request)
        if not self._is_checked(request, response):
            return response
        body = response.stream
        held: list[bytes] = []
        size = 0
        try:
            for chunk in body:
                held.append(chunk)
                size += len(chunk)
                self._within(request, began, size)
        finally:
            body.close()
        return self._checked(response, b"".join(held), request)

    def close(self) -> None:
        self.inner.close()

    def __enter__(self) -> Any:
        self.inner.__enter__()
        return self

    def __exit__(self, *why: object) -> None:
        self.inner.__exit__(*why)


class SyncStream:
    """The body of a watched response."""

    def __init__(self, under: _Under, run: Run, events: Any, relay: Relay, request: Any) -> None:
        self._under = under
        self._run = run
        self._events = events
        self._relay = relay
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._events
            if rest := _end(self._run, self._relay):
                yield rest
        except SidestreamError as error:
            if words := _last_words(error, self._relay):
                yield words
                return
            raise self._under.raised(error, self._request, reading=True) from error
        except Cancelled as stopped:
            raise self._under.http.ReadError(str(stopped), request=self._request) from None

    def close(self) -> None:
        if self._events.gi_running:  # in another thread: that one closes
            self._run.stop()
        else:
            self._events.close()


class UnderAsync(_Under):
    """A transport for asyncio."""

    async def handle_async_request(self, request: Any) -> Any:
        found = self._watched(request, await request.aread()) if _is_ours(request) else None
        if found is None:
            return await self._passed(request)
        call, relay = self._call(found)
        lanes = AsyncLanes(self.http, self.inner, request)
        run = AsyncRun(call, lanes, self.settings.system, self._orders())
        self.latest = run
        events = run.events()
        try:
            head = await anext(events, None)
        except SidestreamError as error:
            if lanes.rejected is not None and _is_rejection(error):
                return self._rejection(run, lanes.rejected)
            raised = self.raised(error, request, reading=False)
            raise raised from raised.__cause__
        if head is None:  # a call without a stream is over
            return self._whole(run, lanes.opened, relay)
        stream = _stream_class(self.http, is_async=True)(self, run, events, relay, request)
        return self._answer(run, lanes.opened, _ENCODED, stream=stream)

    async def _passed(self, request: Any) -> Any:
        began = self.settings.system.clock()
        response = await self.inner.handle_async_request(request)
        if not self._is_checked(request, response):
            return response
        body = response.stream
        held: list[bytes] = []
        size = 0
        try:
            async for chunk in body:
                held.append(chunk)
                size += len(chunk)
                self._within(request, began, size)
        finally:
            await body.aclose()
        return self._checked(response, b"".join(held), request)

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def __aenter__(self) -> Any:
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *why: object) -> None:
        await self.inner.__aexit__(*why)


class AsyncStream:
    """The body of a watched response."""

    def __init__(self, under: _Under, run: AsyncRun, events: Any, relay: Relay, request: Any) -> None:
        self._under = under
        self._run = run
        self._events = events
        self._relay = relay
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._events:
                yield data
            if rest := _end(self._run, self._relay):
                yield rest
        except SidestreamError as error:
            if words := _last_words(error, self._relay):
                yield words
                return
            raise self._under.raised(error, self._request, reading=True) from error
        except Cancelled as stopped:
            raise self._under.http.ReadError(str(stopped), request=self._request) from None

    async def aclose(self) -> None:
        if self._events.ag_running:  # in another task: that one closes
            self._run.stop()
        else:
            await self._events.aclose()


# Parts of both.


def _is_ours(request: Any) -> bool:
    if not wire_of(request.method, str(request.url)):
        return False
    return "json" in request.headers.get("content-type", "")


def _end(run: AnyRun, relay: Relay) -> bytes:
    """The end of a stream, once the flow has its reply."""
    if run.reply is None or run.exchange is None:
        return b""
    return relay.end(run.reply, run.exchange.assembler, torn=run.torn)


def _is_rejection(error: SidestreamError) -> bool:
    """Whether the call ended because the provider said no in an HTTP answer."""
    return isinstance(error, CallFailed) and error.fault.status is not None


def _last_words(error: SidestreamError, relay: Relay) -> bytes:
    """What the provider itself said in the stream of why it failed: its client knows how to read that."""
    own = isinstance(error, CallFailed) and not isinstance(error, (StreamDropped, DeadlineExceeded))
    return relay.last_words() if own else b""


# Classes that depend on which httpx it is.


def http_of(thing: object) -> ModuleType | None:
    """httpx or httpx2, whichever a client or transport is made with. (Module names of classes say nothing:
    importing openai renames BaseTransport's to "openai".)"""
    for name in ("httpx2", "httpx"):
        http = sys.modules.get(name)
        if http is not None and isinstance(
            thing, http.Client | http.AsyncClient | http.BaseTransport | http.AsyncBaseTransport
        ):
            return http
    return None


@cache
def _class_over(http: ModuleType, *, is_async: bool) -> type[Any]:
    base = http.AsyncBaseTransport if is_async else http.BaseTransport
    kind = UnderAsync if is_async else UnderSync
    return type("AsyncTransport" if is_async else "Transport", (kind, base), {"http": http})


def transport_over(inner: Any, settings: Settings, *, is_async: bool) -> Any:
    """A transport that watches the calls which go through `inner`."""
    http = http_of(inner)
    if http is None:
        raise TypeError(f"{type(inner).__name__} is no transport of httpx or httpx2")
    return _class_over(http, is_async=is_async)(inner, settings)


@cache
def _stream_class(http: ModuleType, *, is_async: bool) -> type[Any]:
    kind, base = (AsyncStream, http.AsyncByteStream) if is_async else (SyncStream, http.SyncByteStream)
    return type(kind.__name__, (kind, base), {})


@cache
def _both(http: ModuleType, kind: Any, base: str) -> Any:
    names = {"__doc__": kind.__doc__, "__module__": kind.__module__}
    return type(kind.__name__, (kind, getattr(http, base)), names)


def both(http: ModuleType, error: SidestreamError, request: Any) -> Exception:
    """The same error, which also is the httpx error of its kind: clients of httpx catch it as that."""
    base = "ReadTimeout" if isinstance(error, DeadlineExceeded) else "ReadError"
    if isinstance(error, CallFailed) and error.fault.kind is FaultKind.CONNECT:
        base = "ConnectError"
    own: Any = type(error)
    kind = _both(http, own, base)
    again = kind.__new__(kind, *error.args)
    again.__dict__.update(error.__dict__)
    again._request = request  # what httpx's own errors carry
    result: Exception = again
    return result
