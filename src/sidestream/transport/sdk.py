"""`wrap`: sidestream under a client you already have; `last_call`: what came of a call of such a client.

Strategy: an SDK's client holds an httpx client, and that holds transports. Those are replaced in place by
ones that watch, so that the client stays the same object of the same class with the same settings; whatever
shares its httpx client, such as a copy with other options, is watched as well. Which errors the SDK's users
catch is read off its module.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any, Literal, TypeVar

from ..drivers import AsyncRun, Notify, Run, System
from ..errors import DeadlineExceeded, SidestreamError, UsageError
from ..recovery.clocks import Timeouts
from ..recovery.policy import Policy
from ..reply import Reply
from ..route import Continuation
from ..telemetry import Observer, observers_of
from ..wire.sse import Limits
from .under import EXTENSION, AnyRun, Settings, Translate, UnderAsync, UnderSync, http_of, transport_over

__all__ = ["last_call", "wrap"]

Client = TypeVar("Client")
_SDKS = ("openai", "anthropic")


def wrap(
    client: Client,
    *,
    timeout: Timeouts | float | None = None,
    policy: Policy | None = None,
    limits: Limits | None = None,
    continuation: Continuation | None = None,
    hold: bool = False,
    usage: Literal["all", "answer"] = "all",
    observe: Observer | Iterable[Observer] | None = None,
    notify: Notify | None = None,
    system: System | None = None,
) -> Client:
    """Put recovery under a client: `client = sidestream.wrap(OpenAI())`.

    The client is changed in place and returned; wrapping it again changes the settings. Streams of the
    Responses, Chat Completions and Messages wires are watched: they come whole, or end in the SDK's own
    connection error, whose `__cause__` is a `SidestreamError` with what arrived. A tool call appears when it
    is whole. Everything else passes through.

    Args:
        client: an OpenAI, AsyncOpenAI, Anthropic, AsyncAnthropic or Azure client, an httpx or httpx2 client,
            or a transport of either (which is returned wrapped, not changed).
        timeout: total seconds of a call, or `Timeouts`; the client's own count where they are shorter.
        policy: how often and how long to recover. Default: as many attempts in a row without output as the
            client's own `max_retries` allows.
        limits: sizes in bytes above which an answer is given up.
        continuation: how a broken answer is continued there. Default: by the provider table.
        hold: carry calls that ask for no stream as streams, and return them when they are whole.
        usage: the tokens that the SDK reports of a recovered call: of "all" exchanges, which is what is paid,
            or of the "answer" as if it had come in one, for programs that read the size of their context off
            it (agents that compact by it would do so too early). The ledger has both.
        observe: called with a `CallRecord` when a call has ended in any way. Default: the log "sidestream".
        notify: called with a `Recovering` each time a fault is recovered from.
        system: clock and randomness, for tests.

    Raises:
        UsageError: it is nothing that can be wrapped, or a setting makes no sense.
    """
    if usage not in ("all", "answer"):
        raise UsageError(f"usage={usage!r} is not known", hint='it is "all" or "answer"')
    settings = Settings(
        policy=policy or _policy_of(client),
        timeouts=Timeouts.of(timeout),
        limits=limits or Limits(),
        continuation=continuation,
        hold=hold,
        sums=usage == "all",
        observers=observers_of(observe),
        notify=notify,
        system=system or System(),
    )
    http = http_of(client)
    if http is not None and isinstance(client, http.BaseTransport | http.AsyncBaseTransport):
        wrapped: Client = _over(client, settings, is_async=isinstance(client, http.AsyncBaseTransport))
        return wrapped
    inside = _http_client(client)
    if inside is None:
        raise UsageError(
            f"a {type(client).__name__} cannot be wrapped",
            hint="pass an OpenAI or Anthropic client, an httpx or httpx2 client, or a transport of either",
        )
    sdk = _sdk_of(client)
    if sdk is not None:
        first = sdk.__name__ == "openai" and int(str(sdk.__version__).partition(".")[0]) >= 3
        settings = replace(settings, translate=_translation(sdk), translate_first=first)
    _put_under(inside, settings)
    return client


def _policy_of(client: object) -> Policy:
    """Ours in the place of the client's own retries."""
    retries = getattr(client, "max_retries", None)
    return Policy(tries=min(max(retries, 0) + 1, 100)) if isinstance(retries, int) else Policy()


def _put_under(inside: Any, settings: Settings) -> None:
    """Our transports in place of those of an httpx or httpx2 client."""
    http = http_of(inside)
    is_async = http is not None and isinstance(inside, http.AsyncClient)
    inside._transport = _over(inside._transport, settings, is_async=is_async)
    for pattern, transport in list(inside._mounts.items()):
        if transport is not None:
            inside._mounts[pattern] = _over(transport, settings, is_async=is_async)


def last_call(source: object) -> Reply | None:
    """The reply of a watched call as it stands, with its ledger (`attempts`, `usage`); None if none was seen.

    Args:
        source: a stream of the SDK or its response, an error that it or a framework raised, or what was
            wrapped (whose most recent call it is then, from whichever thread).
    """
    for thing in _chain(source) if isinstance(source, BaseException) else (source,):
        if isinstance(thing, SidestreamError):
            return thing.reply
        if run := _run_of(thing):
            return run.so_far
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it; some frameworks raise theirs while handling it, without `from`."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _run_of(source: object) -> AnyRun | None:
    """The watched call that an object of an SDK, or of httpx, belongs to."""
    for name in ("", "response", "_response", "http_response", "_raw_stream"):
        thing = getattr(source, name, None) if name else source
        extensions = getattr(thing, "extensions", None) or getattr(
            getattr(thing, "response", None), "extensions", None
        )
        if isinstance(extensions, dict) and isinstance(run := extensions.get(EXTENSION), Run | AsyncRun):
            return run
    client = _http_client(source)
    transport = source if client is None else client._transport
    return transport.latest if isinstance(transport, UnderSync | UnderAsync) else None


def _over(inner: Any, settings: Settings, *, is_async: bool) -> Any:
    if isinstance(inner, UnderSync | UnderAsync):
        inner = inner.inner
    return transport_over(inner, settings, is_async=is_async)


def _http_client(client: object) -> Any:
    """The httpx client inside an SDK's, or the client itself if it is one; else None."""
    for thing in (client, getattr(client, "_client", None)):
        http = http_of(thing)
        if http is not None and isinstance(thing, http.Client | http.AsyncClient):
            return thing
    return None


def _sdk_of(client: object) -> ModuleType | None:
    names = (kind.__module__.partition(".")[0] for kind in type(client).__mro__)
    return next((sys.modules[name] for name in names if name in _SDKS), None)


def _translation(sdk: ModuleType) -> Translate:
    """Errors of ours as the SDK's own."""

    def translate(error: SidestreamError, request: Any) -> Exception:
        theirs: Exception
        if isinstance(error, DeadlineExceeded):
            theirs = sdk.APITimeoutError(request=request)
        else:
            theirs = sdk.APIConnectionError(message=str(error), request=request)
        theirs.__cause__ = error
        return theirs

    return translate
