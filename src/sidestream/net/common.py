"""What the sync and async halves share: call time, requests, answers, proxies.

`CallClock` is a clock that stops while the consumer has the stream. `FAILURES` are the exceptions a broken
exchange can end with; anything else is a bug of ours and is left to surface.
"""

from __future__ import annotations

import base64
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from ..errors import ConfigError
from ..route import Route
from ..wire._json import NotJSON
from ..wire.coding import BadCoding
from ..wire.sse import LimitExceeded
from . import http1
from .failures import NetworkFailure

if TYPE_CHECKING:
    import ssl  # loaded with the first TLS connection

__all__ = [
    "BODY_LIMIT",
    "FAILURES",
    "CallClock",
    "Errand",
    "Opened",
    "Pending",
    "Proxy",
    "Severable",
    "http_request",
    "proxy_for",
]

FAILURES = (NetworkFailure, OSError, NotJSON, BadCoding, LimitExceeded)

# Of an answer that is no stream (an error page, say), this much is read.
BODY_LIMIT = 64 * 1024
IDLE_SECONDS = 30.0
IDLE_PER_ORIGIN = 8


class CallClock:
    """Call time: monotonic seconds without the spans in which the consumer had the stream."""

    __slots__ = ("_clock", "_paused", "_since")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._paused = 0.0
        self._since: float | None = None

    def now(self) -> float:
        return (self._clock() if self._since is None else self._since) - self._paused

    def real(self) -> float:
        """The monotonic clock itself, which nothing stops."""
        return self._clock()

    def pause(self) -> None:
        self._since = self._clock()

    def resume(self) -> None:
        if self._since is not None:
            self._paused += self._clock() - self._since
            self._since = None

    @property
    def paused(self) -> bool:
        return self._since is not None


class Opened(NamedTuple):
    """Status and headers (names in lower case) of an answer."""

    status: int
    headers: Mapping[str, str]


class Pending(Protocol):
    """Something that becomes ready once; a driver waits for it."""

    def when_ready(self, callback: Callable[[], None]) -> None: ...


_T = TypeVar("_T")


class Errand(Generic[_T]):
    """A piece of blocking work in a thread of its own, which ends it even if nobody waits any more.

    Attributes:
        ready: it is over; then `value` is what came of it, or `error` what went wrong.
    """

    def __init__(self, work: Callable[[], _T]) -> None:
        self.ready = False
        self.value: _T | None = None
        self.error: BaseException | None = None
        self._work = work
        self._lock = threading.Lock()
        self._callback: Callable[[], None] | None = None
        threading.Thread(target=self._run, name="sidestream-errand").start()

    def when_ready(self, callback: Callable[[], None]) -> None:
        """Call this once when it is over, from its thread; at once if it is."""
        with self._lock:
            if not self.ready:
                self._callback = callback
                return
        callback()

    def _run(self) -> None:
        try:
            self.value = self._work()
        except BaseException as error:  # noqa: BLE001  (whoever waits for it decides what it means)
            self.error = error
        with self._lock:
            self.ready = True
            callback = self._callback
        if callback is not None:
            callback()


class Severable(Protocol):
    """A connection that can be ended under its owner, from anywhere."""

    def sever(self) -> None: ...


class Proxy(Struct, frozen=True):
    """An http proxy from the environment. `auth` is the Proxy-Authorization value, or ""."""

    host: str
    port: int
    auth: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"

    def tunnel(self, route: Route) -> bytes:
        """The CONNECT request for a route's origin."""
        place = f"{route.host}:{route.port}"
        return http1.request("CONNECT", place, [("Host", place), *self.headers().items()])

    def headers(self) -> dict[str, str]:
        return {"Proxy-Authorization": self.auth} if self.auth else {}


def proxy_for(route: Route) -> Proxy | None:
    """The proxy the environment names for this route (`https_proxy`, `no_proxy`, ...), or None.

    Raises:
        ConfigError: the proxy's URL makes no sense, or it is not an http proxy.
    """
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # heavy, and rarely needed

    found = getproxies()
    url = found.get(route.scheme) or found.get("all")
    if not url or proxy_bypass(route.host):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    hint = "unset the proxy variable, or add the host to no_proxy"
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError(f"the proxy for {route.host} is not an http:// proxy", hint=hint)
    try:
        port = parts.port or 80
    except ValueError as error:
        raise ConfigError(f"the proxy for {route.host} has no usable port: {error}", hint=hint) from None
    auth = ""
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        auth = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(parts.hostname, port, auth)


def http_request(route: Route, body: bytes, proxy: Proxy | None, method: str, target: str) -> bytes:
    """The request of one attempt. Through a proxy, plain http names the whole URL (RFC 9112, 3.2.2).

    Raises:
        LocalProtocolError: a header or the target cannot be said in HTTP.
    """
    headers = route.request_headers()
    if method == "GET":
        headers.pop("Content-Type", None)
    else:
        headers["Content-Length"] = str(len(body))
    target = target or route.target
    if proxy and route.scheme == "http":
        target = f"{route.origin}{target}"
        headers |= proxy.headers()
    return http1.request(method, target, headers.items(), body)


def tls_context(cafile: str | None) -> ssl.SSLContext:
    """Verifying TLS, 1.2 or newer, by the system's certificates or those in `cafile`.

    Raises:
        ConfigError: `cafile` cannot be read.
    """
    import ssl

    if cafile is None:
        context = _system_context()
    else:
        try:
            context = ssl.create_default_context(cafile=cafile)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"cannot use the certificates in {cafile}: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


# Where systems keep their certificates, for an OpenSSL that was built to look elsewhere.
_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def _system_context() -> ssl.SSLContext:
    """By `SSL_CERT_FILE` and `SSL_CERT_DIR`, else what the system trusts: on Windows and macOS its own store
    where `truststore` is installed."""
    import ssl

    if sys.platform in ("win32", "darwin") and not {"SSL_CERT_FILE", "SSL_CERT_DIR"} & set(os.environ):
        with contextlib.suppress(ImportError):
            import truststore

            return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    places = ssl.get_default_verify_paths()
    bundle = next(filter(os.path.isfile, _CERTIFICATES), None)
    if bundle and not (places.cafile or places.capath or context.get_ca_certs()):
        context.load_verify_locations(bundle)
    return context
