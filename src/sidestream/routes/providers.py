"""Providers as data: what is known of a route's endpoint and model, and which route a provider's name means.

Strategy: everything known stands in one file for each provider (`data/`, read by `table`), dated and with
its source. A route's host says whose it is; of that provider the first row that fits path, wire and model
says how a partial answer is continued, and every entry that fits the model adds what it says of it. Of an
endpoint nobody knows nothing good is assumed: it is continued by a user turn ("anchor"), which needs no
support. What a route says itself wins.

A new provider is a new file, not code. `docs/providers.md` shows them all. Pure but for reading the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from ..errors import ConfigError
from ..route import Auth, Continuation, Route, Secret, Wire
from .table import Billing, Catalogue, Cursor, Provider, Row, Rule, catalogue, host_of, port_of

__all__ = [
    "Facts",
    "Found",
    "Provider",
    "base_url_for",
    "facts_for",
    "keys_for",
    "named",
    "nearest",
    "provider",
    "provider_of",
    "providers",
    "route_for",
    "speaks",
    "with_facts",
]


class Facts(Struct, frozen=True):
    """What is known of an endpoint with a model. Without arguments: of one that nobody knows.

    Attributes:
        provider: its name, "" if unknown. id: the short word for it.
        continuation: how a partial answer is continued here.
        prefill_thinking: False where a trailing assistant turn is refused, or goes wrong, while the model
            reasons.
        cursor: how a stored stream is read again from an event, None if it cannot be.
        billing: what closing the connection does to the cost of the answer being written.
        billing_source: who says so, a link or a measurement.
        auth: how its key is sent. headers: sent with every request.
        requires: request fields that it needs, unless the call says otherwise.
        rejects: request fields that it refuses. renames: those that have another name here.
        window: the model's context window in tokens, None if unknown. vision: whether it reads images.
        checked: the day somebody last looked; source: a link.
        note: one or two sentences for people.
    """

    provider: str = ""
    id: str = ""
    continuation: Continuation = "anchor"
    prefill_thinking: bool = True
    cursor: Cursor | None = None
    billing: Billing = "unknown"
    billing_source: str = ""
    auth: Auth = "wire"
    headers: Mapping[str, str] = {}
    requires: Mapping[str, Any] = {}
    rejects: frozenset[str] = frozenset()
    renames: Mapping[str, str] = {}
    window: int | None = None
    vision: bool | None = None
    checked: date | None = None
    source: str = ""
    note: str = ""


class Found(Struct, frozen=True):
    """Which wire a base URL speaks, as far as that is known.

    Attributes:
        base_url: the endpoint, to which the wire's path is added.
        why: who says so, for people.
        sure: False if nobody does, so that asking it may bring more.
    """

    wire: Wire
    base_url: str
    why: str
    sure: bool = True


def providers() -> tuple[Provider, ...]:
    """All of them: a user's own first.

    Raises:
        ConfigError: a file is damaged, or claims what is another's.
    """
    return catalogue().providers


def provider(name: str) -> Provider | None:
    """The provider of that id or alias, whatever its case. Errors as of `providers`."""
    return catalogue().named(name)


def provider_of(base_url: str) -> Provider | None:
    """The provider whose host that is. Errors as of `providers`."""
    return catalogue().owner(base_url)


def facts_for(route: Route, of: Provider | None = None) -> Facts:
    """What is known of this route.

    A route to an endpoint that nobody knows but that says its own `continuation` gets the facts of the
    software that is known by that form. Else: `Facts()`.

    Args:
        of: whose endpoint it is, if its host does not tell.

    Raises:
        ConfigError: a provider's file is damaged.
    """
    return _facts_of(catalogue(), of, route.base_url, route.wire, route.model, route.continuation)


@lru_cache(maxsize=1024)
def _facts_of(
    known: Catalogue, of: Provider | None, base_url: str, wire: Wire, model: str, said: Continuation | None
) -> Facts:
    """A client asks for each call, and the answer does not change."""
    owner = of or known.owner(base_url)
    if owner is not None:
        path = _split(base_url).path.rstrip("/")
        return _facts(
            owner, next((row for row in owner.rows if row.fits(path, wire, model)), None), wire, model
        )
    if said is not None:
        for each in known.providers:
            for row in () if each.hosts else each.rows:
                if row.continuation == said and wire in row.wires:
                    return _facts(each, row, wire, model)
    return Facts()


def _facts(owner: Provider, row: Row | None, wire: Wire, model: str) -> Facts:
    entries = [entry for entry in owner.models if entry.fits(wire, model)]
    renames: dict[str, str] = {}
    for entry in entries:
        renames |= entry.renames
    return Facts(
        provider=owner.name,
        id=owner.id,
        continuation=row.continuation if row else "anchor",
        prefill_thinking=row.prefill_thinking if row else True,
        cursor=row.cursor if row else None,
        billing=owner.billing,
        billing_source=owner.billing_source,
        auth=owner.auth,
        headers=owner.headers,
        requires=owner.requires,
        rejects=owner.rejects.union(*(entry.rejects for entry in entries)),
        renames=renames,
        window=next((entry.window for entry in entries if entry.window is not None), None),
        vision=next((entry.vision for entry in entries if entry.vision is not None), None),
        checked=owner.checked,
        source=(row.source if row else "") or owner.source,
        note=(row.note if row else "") or owner.note,
    )


def with_facts(route: Route, of: Provider | None = None) -> Route:
    """The route, completed by what is known of it. What it says itself is kept.

    Args:
        of: whose endpoint it is, if its host does not tell.

    Raises:
        ConfigError: a provider's file is damaged.
    """
    facts = facts_for(route, of)
    said = {name.lower() for name in route.headers}
    more = {name: value for name, value in facts.headers.items() if name.lower() not in said}
    return replace(
        route,
        continuation=route.continuation or facts.continuation,
        prefill_thinking=route.prefill_thinking and facts.prefill_thinking,
        auth=facts.auth if route.auth == "wire" else route.auth,
        headers={**more, **route.headers},
        params={**facts.requires, **route.params},
        rejects=route.rejects | facts.rejects,
        renames={**facts.renames, **route.renames},
        window=facts.window if route.window is None else route.window,
        vision=facts.vision if route.vision is None else route.vision,
    )


def route_for(
    provider: str | Provider,
    model: str,
    *,
    base_url: str | None = None,
    wire: str | None = None,
    api_key: str | Secret | None = None,
    **fields: Any,
) -> Route:
    """A route to a model of a provider, completed by what is known of it.

    Args:
        provider: an id, an alias, or the provider itself.
        model: its name there.
        base_url: another endpoint that behaves as this provider does. Default: the provider's own.
        wire: default: as the base URL and the model say.
        api_key: the key for that endpoint. None is read from anywhere: see `keys_for`.
        fields: further fields of the `Route`.

    Raises:
        ConfigError: there is no such provider, it has no endpoint of its own and none is given, or a field
            makes no sense.
    """
    owner = provider if isinstance(provider, Provider) else named(provider)
    endpoint = base_url or owner.base_url
    if not endpoint:
        raise ConfigError(f"{owner.name} has no endpoint of its own", hint="say its base_url")
    found = speaks(endpoint, model, wire, of=owner)
    secret = Secret(api_key) if isinstance(api_key, str) and api_key else api_key or None
    route = Route(found.base_url, model, found.wire, secret, guessed=not found.sure, **fields)
    return with_facts(route, owner)


def named(name: str) -> Provider:
    """As `provider`.

    Raises:
        ConfigError: there is none; and as `providers`.
    """
    known = catalogue()
    found = known.named(name)
    if found is None:
        near = nearest(name.strip().lower(), known.names)
        hint = f"did you mean {near!r}?" if near else "docs/providers.md lists them; or say base_url"
        raise ConfigError(f"there is no provider {name!r}", hint=hint)
    return found


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, "" if none is near."""
    from difflib import get_close_matches  # only who mistypes pays for it

    return next(iter(get_close_matches(name, list(known), 1)), "")


# Endpoints and keys from variables.


def base_url_for(provider: Provider, environ: Mapping[str, str]) -> str | None:
    """The provider's endpoint: what a variable of its says, else its own."""
    said = (environ.get(name, "").strip() for name in provider.base_url_env)
    return next(filter(None, said), provider.base_url)


def keys_for(provider: Provider, base_url: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the variables whose keys may be sent to that base URL; none if it is somewhere else.

    Keys belong to the endpoint that the provider's variables name, and to no other; without such a variable
    to its hosts, or to the origin of its own base URL.
    """
    moved = next(filter(None, (environ.get(name, "").strip() for name in provider.base_url_env)), None)
    own = moved or provider.base_url
    here = bool(own) and _origin(own or "") == _origin(base_url) != _origin("")
    safe = here or (moved is None and base_url.startswith("https://") and provider.owns(base_url))
    return provider.key_env if safe else ()


def _origin(url: str) -> tuple[str, str, int | None]:
    return _split(url).scheme, host_of(url), port_of(url)


# Which wire.

# The end of a whole URL, as others want it.
_ENDS: tuple[tuple[str, Wire], ...] = (
    ("/responses", "responses"),
    ("/chat/completions", "chat"),
    ("/messages", "messages"),
)
# Wherever it is: these are the base URLs that Anthropic's own SDK wants.
_ANYWHERE = (
    ("everybody", Rule("messages", path="/anthropic", becomes="/anthropic/v1")),
    ("everybody", Rule("messages", path="/anthropic/v1")),
)


def speaks(base_url: str, model: str = "", wire: str | None = None, *, of: Provider | None = None) -> Found:
    """Which wire a base URL speaks with a model, by what is known. Nobody is asked.

    Args:
        wire: what was configured, which is not doubted.
        of: whose endpoint it is, if its host does not tell.

    Raises:
        ConfigError: a provider's file is damaged.
    """
    url = _split(base_url)
    path = url.path.rstrip("/")
    end, said = next(((end, said) for end, said in _ENDS if path.endswith(end)), ("", None))
    if end:
        path = path.removesuffix(end)
        base_url = _at(url, path)
        if said and wire in (None, said):
            return Found(said, base_url, f"the URL ends in {end}")
    owner = of or provider_of(base_url)
    own = [(owner.name, rule) for rule in owner.rules] if owner else []
    for who, rule in (*own, *_ANYWHERE):
        if wire in (None, rule.wire) and rule.fits(host_of(base_url), path, model):
            if rule.becomes is not None:
                base_url = _at(url, path.removesuffix(rule.path.rstrip("/")) + rule.becomes)
            return Found(rule.wire, base_url, _CONFIGURED if wire else _because(who, rule, model))
    if wire is not None:
        chosen: Any = wire  # Route checks the word
        return Found(chosen, base_url, _CONFIGURED)
    if owner is not None:
        return Found(owner.wire, base_url, f"{owner.name} speaks it")
    return Found("chat", base_url, "nothing is known of this endpoint", sure=False)


_CONFIGURED = "it is configured"


def _because(who: str, rule: Rule, model: str) -> str:
    under = f" under {rule.path}" if rule.path else ""
    return f"{who} speaks it{f' with {model}' if rule.models else ''}{under}"


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _at(url: SplitResult, path: str) -> str:
    return url._replace(path=path).geturl()
