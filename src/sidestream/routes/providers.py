"""Providers as data: which endpoint and model continue a partial answer, and in which form.

Strategy: everything known stands in `providers.toml`, dated and with its source. The table is read once, on
first use, and checked strictly: what it does not say right is reported with its place. The first row that
fits a route's host, port, path, wire and model tells its facts. Of an endpoint nobody knows nothing good is
assumed: it is continued by a user turn ("anchor"), which needs no support. What a route says itself wins.

A new provider is a new entry in the table, not code. `docs/providers.md` shows the table.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from msgspec import Meta, Struct, ValidationError, convert

from ..errors import ConfigError
from ..route import Continuation, Route, Wire

__all__ = ["Billing", "Cursor", "Facts", "Row", "facts_for", "load", "table", "with_facts"]

Billing = Literal["stops", "continues", "unknown"]
Cursor = Literal["starting_after"]
_Words = tuple[Annotated[str, Meta(min_length=1)], ...]
_Link = Annotated[str, Meta(pattern="^https://")]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an endpoint with a model. Without arguments: of one that nobody knows.

    Attributes:
        provider: its name, "" if unknown.
        continuation: how a partial answer is continued here.
        prefill_thinking: False where a trailing assistant turn is refused, or goes wrong, while the model
            reasons.
        cursor: how a stored stream is read again from an event, None if it cannot be.
        billing: what closing the connection does to the cost of the answer being written.
        billing_source: who says so, a link or a measurement.
        checked: the day somebody last looked; source: a link.
        note: one or two sentences for people.
    """

    provider: str = ""
    continuation: Continuation = "anchor"
    prefill_thinking: bool = True
    cursor: Cursor | None = None
    billing: Billing = "unknown"
    billing_source: str = ""
    checked: date | None = None
    source: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: what it is for, and the facts.

    Attributes:
        hosts: host patterns in small letters; none for software that runs anywhere.
        port: only this one, None for any.
        path: beginning of the base URL's path, "" for any.
        wires: the wires it is for.
        models: model patterns in small letters; family: the name of that list, if it has one.
        sample: a model that this row is for.
    """

    hosts: tuple[str, ...]
    port: int | None
    path: str
    wires: tuple[Wire, ...]
    models: tuple[str, ...]
    family: str
    sample: str
    facts: Facts

    def fits(self, route: Route) -> bool:
        """Whether this row speaks of that route's endpoint, wire and model."""
        host, model = route.host.rstrip("."), route.model.lower()
        return (
            route.wire in self.wires
            and self.port in (None, route.port)
            and any(fnmatchcase(host, pattern) for pattern in self.hosts)
            and f"{urlsplit(route.base_url).path.rstrip('/')}/".startswith(f"{self.path}/")
            and any(fnmatchcase(model, pattern) for pattern in self.models)
        )


def facts_for(route: Route) -> Facts:
    """What the table knows of this route.

    The first row that fits. A route to an endpoint that no row knows but that says its own `continuation`
    gets the facts of the software that is known by that form. Else: `Facts()`.

    Raises:
        ConfigError: the table in the package is damaged.
    """
    for row in table():
        if row.fits(route):
            return row.facts
    for row in table():
        if not row.hosts and row.facts.continuation == route.continuation and route.wire in row.wires:
            return row.facts
    return Facts()


def with_facts(route: Route) -> Route:
    """The route, completed: its own `continuation` or the table's, and no prefill where reasoning forbids it.

    Raises:
        ConfigError: the table in the package is damaged.
    """
    facts = facts_for(route)
    return replace(
        route,
        continuation=route.continuation or facts.continuation,
        prefill_thinking=route.prefill_thinking and facts.prefill_thinking,
    )


def table() -> tuple[Row, ...]:
    """The rows of the packaged table, in order. Read once, by one thread.

    Raises:
        ConfigError: it is damaged.
    """
    with _READING:
        return _packaged()


# msgspec works out a Struct on its first use, and crashes the interpreter if two threads do that at once.
_READING = threading.Lock()


@cache
def _packaged() -> tuple[Row, ...]:
    from importlib.resources import files  # with TOML, a few milliseconds that only a client needs

    return load((files(__package__) / "providers.toml").read_text(encoding="utf-8"))


# The file, as it is written.


class _Row(Struct, frozen=True, forbid_unknown_fields=True):
    continuation: Continuation
    sample: Annotated[str, Meta(min_length=1)]
    models: _Words = ()
    family: str = ""
    wires: Annotated[tuple[Wire, ...], Meta(min_length=1)] = get_args(Wire)
    path: Annotated[str, Meta(pattern="^(/[^/]+)*$")] = ""
    prefill_thinking: bool = True
    cursor: Cursor | None = None
    note: str = ""
    source: _Link | None = None


class _Provider(Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1)]
    checked: date
    source: _Link
    row: Annotated[tuple[_Row, ...], Meta(min_length=1)]
    hosts: _Words = ()
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    billing: Billing = "unknown"
    billing_source: str = ""


class _Table(Struct, frozen=True, forbid_unknown_fields=True):
    provider: tuple[dict[str, Any], ...]
    families: dict[str, _Words] = {}


def load(text: str) -> tuple[Row, ...]:
    """The rows of a table in TOML.

    Raises:
        ConfigError: it is no TOML, a key or value is unknown, or something is missing; with its place.
    """
    import tomllib

    try:
        whole = convert(tomllib.loads(text), _Table)
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise _damaged("", error) from None
    rows: list[Row] = []
    for number, entry in enumerate(whole.provider, 1):
        place = str(entry.get("name") or f"provider {number}")
        try:
            rows += _rows(convert(entry, _Provider), whole.families)
        except ValueError as error:  # a ValidationError is one, too
            raise _damaged(f"{place}: ", error) from None
    return tuple(rows)


def _rows(provider: _Provider, families: dict[str, _Words]) -> list[Row]:
    if (provider.billing == "unknown") != (provider.billing_source == ""):
        raise ValueError("what is known of billing needs its billing_source, and only that")
    return [_as_row(provider, row, number, families) for number, row in enumerate(provider.row)]


def _as_row(provider: _Provider, row: _Row, number: int, families: dict[str, _Words]) -> Row:
    if bool(row.models) == bool(row.family):
        raise ValueError(f"either models or a family is needed - at `$.row[{number}]`")
    if row.family and row.family not in families:
        raise ValueError(f"unknown family '{row.family}' - at `$.row[{number}].family`")
    facts = Facts(
        provider=provider.name,
        continuation=row.continuation,
        prefill_thinking=row.prefill_thinking,
        cursor=row.cursor,
        billing=provider.billing,
        billing_source=provider.billing_source,
        checked=provider.checked,
        source=row.source or provider.source,
        note=row.note,
    )
    models = row.models or families[row.family]
    return Row(
        tuple(host.lower() for host in provider.hosts),
        provider.port,
        row.path,
        row.wires,
        tuple(model.lower() for model in models),
        row.family,
        row.sample,
        facts,
    )


def _damaged(place: str, error: Exception) -> ConfigError:
    return ConfigError(f"providers.toml: {place}{error}", hint="it is part of sidestream: install that anew")
