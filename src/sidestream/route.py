"""Where a call can go: endpoint, wire, model and credential, as one frozen value.

Strategy: a `Route` is checked when it is made, so nothing later has to. Its credential is a `Secret`, which
no repr, log or error shows, and which `headers()` hands out only as part of a request to the route's own
origin. Plain http with a credential is refused beyond this machine unless asked for. Pure; finding routes
in arguments and environment is `routes/`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from .errors import ConfigError

__all__ = [
    "Auth",
    "Continuation",
    "Credential",
    "Prices",
    "Route",
    "RouteClocks",
    "Scope",
    "Secret",
    "Wire",
    "is_loopback",
]

Wire = Literal["responses", "chat", "messages"]
# How a key is sent: as the wire's own provider wants it, or in the header of that name.
Auth = Literal["wire", "bearer", "x-api-key", "api-key"]
# How an endpoint continues a partial answer: by a trailing assistant turn in one of its dialects, by a user
# turn that asks for it ("anchor"), or not at all ("none").
Continuation = Literal[
    "trailing", "prefix", "prefix_echoed", "partial", "continue_final_message", "anchor", "none"
]
# What a failure can be about: this request, this key with this model, or all that share the one or the other.
Scope = Literal["request", "route", "credential", "model", "endpoint"]
_SHORTEST_SECRET = 6  # a shorter one would blank ordinary words
_PATHS: dict[str, str] = {
    "responses": "/responses",
    "chat": "/chat/completions",
    "messages": "/messages",
}
_ANTHROPIC_VERSION = "2023-06-01"
_KEY_NAMES = re.compile(r"(?i)authorization|cookie|key|secret|token")  # headers that hold a credential
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")  # RFC 9110, 5.6.2


class Secret:
    """A credential that does not show itself. `reveal` is for the one place that sends it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The credential itself."""
        return self._value

    def fingerprint(self, salt: str) -> str:
        """A short name of this credential that does not give it away."""
        import hashlib  # brings all of OpenSSL, which only who is asked needs

        return hashlib.blake2b(self._value.encode(), key=salt.encode()[:64], digest_size=8).hexdigest()

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not pickled")


@dataclass(frozen=True, slots=True)
class Prices:
    """What a model costs: money per million tokens, in whatever currency you count.

    Attributes:
        cached: of a cached prompt token; `input` if not given.

    Raises:
        ConfigError: a price is negative or not a finite number.
    """

    input: float
    output: float
    cached: float | None = None

    def __post_init__(self) -> None:
        for price in (self.input, self.output, 0.0 if self.cached is None else self.cached):
            if not math.isfinite(price) or price < 0:
                raise ConfigError(
                    f"{price!r} is not a price", hint="prices are per million tokens, 0 or more"
                )

    def cost(self, read: int, written: int, cached: int = 0) -> float:
        """Money for so many prompt tokens (`cached` of them cached) and output tokens."""
        cheap = self.input if self.cached is None else self.cached
        return ((read - cached) * self.input + cached * cheap + written * self.output) / 1e6


@dataclass(frozen=True, slots=True)
class RouteClocks:
    """Seconds that one route gets of a call, inside the call's own `Timeouts`; None: what those say.

    Attributes:
        total: all attempts on this route together.
        first, idle, connect: as in `Timeouts`.

    Raises:
        ConfigError: a value is not a finite number above 0.
    """

    total: float | None = None
    first: float | None = None
    idle: float | None = None
    connect: float | None = None

    def __post_init__(self) -> None:
        for name in ("total", "first", "idle", "connect"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value!r}", hint="a timeout is a number of seconds above 0")


class Credential(Protocol):
    """A key that can change while a program runs.

    Attributes:
        label: where it comes from, for people, such as "env OPENAI_API_KEY"; never the key.
    """

    @property
    def label(self) -> str: ...

    def apply(self, route: Route) -> Route:
        """The route with today's key. Cheap: it may read a variable or a small file.

        Raises:
            ConfigError: there is no key, or it cannot be read.
        """

    def renew(self, route: Route, seconds: float) -> Route | None:
        """The route with another key after this one was rejected or ran out; None if there is no other.

        Blocks for at most so many seconds. Runs in a thread of its own, to its end even if the call that
        wanted it is cancelled: a key that is handed out once must not be lost.

        Raises:
            ConfigError: why there is none; people see the text. Of any other exception they see only the
                name, because its text may quote a key.
        """


@dataclass(frozen=True)
class Route:
    """One endpoint with one wire, one model and one credential.

    Args:
        base_url: for example "https://api.openai.com/v1"; the wire's path is added.
        model: the model name as this endpoint knows it.
        wire: "responses", "chat" or "messages".
        api_key: the credential, sent as a Bearer token, on the Messages wire as `x-api-key`; None sends none.
        name: how messages and the ledger call this route; host and model if not given.
        headers: further request headers, which win over our own; their values are treated as secrets.
        insecure: allow plain http with a credential to another machine.
        continuation: how a broken answer can be continued here; None leaves it to the provider table.
        prefill_thinking: whether it takes a trailing assistant turn from a call that asks for reasoning.
        prices: for the ledger's cost and for `Policy.max_cost`.
        auth: how the key is sent: as the wire wants it, or in the header of that name.
        credential: where the key comes from, if it can change.
        expires: Unix time in seconds from which the key has to be renewed before it is used.
        window: the model's context window in tokens, None if unknown.
        vision: whether the model reads images, None if unknown.
        quality: how good the model is, on a scale of your own: a task may refuse what is below its floor.
        concurrency: calls that may be under way here at once, None for any number.
        params: request fields of every call here, unless the call says otherwise.
        rejects: request fields that are never sent here.
        clocks: this route's own clocks, inside those of the call.
        renames: request fields that have another name here.
        guessed: nobody says that it speaks this wire: if there is nothing at its path, another is tried.

    Raises:
        ConfigError: the URL, model, wire, a header or a number makes no sense.
    """

    base_url: str
    model: str
    wire: Wire = "responses"
    api_key: Secret | None = None
    name: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    insecure: bool = False
    continuation: Continuation | None = None
    prefill_thinking: bool = True
    prices: Prices | None = None
    auth: Auth = "wire"
    credential: Credential | None = field(default=None, repr=False, compare=False)
    expires: float | None = None
    window: int | None = None
    vision: bool | None = None
    quality: int = 0
    concurrency: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    rejects: frozenset[str] = frozenset()
    clocks: RouteClocks | None = None
    renames: Mapping[str, str] = field(default_factory=dict)
    guessed: bool = False

    def __post_init__(self) -> None:
        url = _split(self.base_url)
        for name, number in (("window", self.window), ("concurrency", self.concurrency)):
            if number is not None and number < 1:
                raise ConfigError(f"{name} is {number}", hint="it is a number from 1 on, or left out")
        if self.auth not in get_args(Auth):
            raise ConfigError(f"unknown auth {self.auth!r}", hint=f"use one of {', '.join(get_args(Auth))}")
        if self.wire not in get_args(Wire):
            raise ConfigError(f"unknown wire {self.wire!r}", hint=f"use one of {', '.join(get_args(Wire))}")
        if self.continuation not in (None, *get_args(Continuation)):
            raise ConfigError(
                f"unknown continuation {self.continuation!r}",
                hint=f"use one of {', '.join(get_args(Continuation))}",
            )
        if not self.model or not self.model.strip() or self.model == "auto":
            raise ConfigError(
                f"the route to {url.hostname} has no model", hint="name one: model=… or SIDESTREAM_MODEL"
            )
        if (
            url.scheme == "http"
            and (self.api_key or any(map(_KEY_NAMES.search, self.headers)))
            and not self.insecure
            and not is_loopback(url.hostname or "")
        ):
            raise ConfigError(
                f"refusing to send a credential to {url.hostname} over plain http",
                hint="use https, or say insecure=True if that network is yours",
            )
        for header, value in [*self.headers.items(), ("Authorization", self._bearer())]:
            if not _HEADER_NAME.fullmatch(header) or not _is_header_value(value):
                raise ConfigError(
                    f"header {header!r} holds characters that cannot be sent",
                    hint="check the credential for a line break or a character that is not ASCII",
                )
        if not self.name:
            object.__setattr__(self, "name", f"{url.netloc.rpartition('@')[2]}/{self.model}")

    @property
    def scheme(self) -> str:
        return urlsplit(self.base_url).scheme

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.base_url).port or (443 if self.scheme == "https" else 80)

    @property
    def origin(self) -> str:
        """Scheme, host and port: the only place this route's credential may go."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def target(self) -> str:
        """Path and query of a request."""
        url = urlsplit(self.base_url)
        path = url.path.rstrip("/") + _PATHS[self.wire]
        return f"{path}?{url.query}" if url.query else path

    def below(self, *names: str, **query: str) -> str:
        """Path and query of something below the endpoint, such as a response by its id."""
        url = urlsplit(self.base_url)
        parts = [url.path.rstrip("/") + _PATHS[self.wire], *(quote(name, safe="") for name in names if name)]
        asked = "&".join(filter(None, (url.query, urlencode(query))))
        return "/".join(parts) + (f"?{asked}" if asked else "")

    def request_headers(self) -> dict[str, str]:
        """The headers of a request, credential included: for the wire only."""
        port = "" if self.port == (443 if self.scheme == "https" else 80) else f":{self.port}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        headers = {
            "Host": host + port,
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "sidestream",
        }
        if self.wire == "messages":
            headers["anthropic-version"] = _ANTHROPIC_VERSION
        header = self._key_header
        if self.api_key:
            bearer = header == "Authorization"
            headers[header] = self._bearer() if bearer else self.api_key.reveal()
        given = {name.lower() for name in self.headers}
        return {**{name: headers[name] for name in headers if name.lower() not in given}, **self.headers}

    @property
    def account(self) -> str:
        """What tells this key at this endpoint from others, without showing it: of a route without one its
        headers, which may hold one; "" if there are none either."""
        key = self.api_key or Secret("\n".join(map(":".join, sorted(self.headers.items()))))
        return key.fingerprint(self.origin) if key.reveal() else ""

    def part(self, scope: Scope) -> tuple[str, ...]:
        """What of this route a failure of that scope is about: routes with an equal part share it."""
        if scope == "endpoint":
            return (scope, self.origin)
        if scope == "credential":
            return (scope, self.base_url, self.account)
        model = (scope, self.origin, self.target, self.model)
        return model if scope == "model" else (*model, self.account)

    def without_credentials(self, text: str) -> str:
        """The text with this route's credentials blanked: some providers quote them back."""
        values = [self.api_key.reveal()] if self.api_key else []
        for value in (*values, *self.headers.values()):
            if len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, "***")
                torn = next((n for n in range(len(value) - 1, 4, -1) if text.endswith(value[:n])), 0)
                text = f"{text[:-torn]}***" if torn else text  # a text that was cut short
        return text

    @property
    def _key_header(self) -> str:
        if self.auth == "wire":
            return "x-api-key" if self.wire == "messages" else "Authorization"
        return "Authorization" if self.auth == "bearer" else self.auth

    def _bearer(self) -> str:
        return f"Bearer {self.api_key.reveal()}" if self.api_key else ""


def _split(base_url: str) -> SplitResult:
    hint = "a base URL looks like https://api.openai.com/v1"
    try:
        url = urlsplit(base_url)
        port = url.port
    except (ValueError, AttributeError) as error:
        raise ConfigError(f"{base_url!r} is not a URL: {error}", hint=hint) from None
    if url.scheme not in ("http", "https") or not url.hostname or port == 0:
        raise ConfigError(f"{_shown(base_url)!r} is not an http(s) URL", hint=hint)
    if url.username or url.password:
        raise ConfigError("the base URL holds a user or password", hint="pass the credential as api_key")
    if not base_url.isascii() or any(character <= " " for character in base_url):
        raise ConfigError(f"{base_url!r} holds characters that do not belong in a URL", hint=hint)
    return url


def _shown(base_url: str) -> str:
    return base_url.rpartition("@")[2] if "@" in base_url else base_url


def _is_header_value(value: str) -> bool:
    return all(" " <= character <= "~" or character == "\t" for character in value)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    import ipaddress  # only for plain http

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
