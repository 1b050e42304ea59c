"""What a configuration can say: the tables and their values, and one layer on top of another.

Strategy: the dataclasses are the schema. Their annotations say what a value may be, their docstrings what it
is for; reading, `sidestream config` and the reference in docs/configuration.md all come from there. None
always means "not said", and every value keeps the place it comes from. Reading files is `config`, what else
a value must be is `config_rules`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from msgspec import Meta

from ..route import Continuation, Prices, Wire

__all__ = [
    "VARIABLE",
    "Config",
    "DefaultsConfig",
    "Origin",
    "RouteConfig",
    "Table",
    "TaskConfig",
    "merge",
    "merged",
]

VARIABLE = "SIDESTREAM_CONFIG"

# The kinds of values. The description completes "… is not".
Seconds = Annotated[float, Meta(gt=0, le=1e7, description="a number of seconds above 0")]
Tries = Annotated[int, Meta(ge=1, le=100, description="a whole number from 1 to 100")]
Recoveries = Annotated[int, Meta(ge=0, le=100, description="a whole number from 0 to 100")]
Count = Annotated[int, Meta(ge=1, le=10**9, description="a whole number from 1 on")]
Rank = Annotated[int, Meta(ge=0, le=10**9, description="a whole number from 0 on")]
Money = Annotated[float, Meta(ge=0, le=1e12, description="a number from 0 on")]
Flag = Annotated[bool, Meta(description="true or false")]
Text = Annotated[str, Meta(min_length=1, description="a text in quotes")]
Texts = Annotated[tuple[Text, ...], Meta(description="a list of texts")]
Variables = Annotated[
    tuple[Text, ...], Meta(min_length=1, description="a variable's name, or a list of them")
]
Files = Annotated[tuple[Text, ...], Meta(min_length=1, description="a file's path, or a list of them")]
Places = Annotated[tuple[Text, ...], Meta(min_length=1, description='"service/user", or a list of them')]
Fields = Annotated[frozenset[Text], Meta(description="a list of request fields")]
Params = Annotated[Mapping[str, Any], Meta(description="a table of request fields")]
Strings = Annotated[Mapping[str, str], Meta(description="a table of texts")]
Options = Annotated[Mapping[str, Any], Meta(description="a table")]


@dataclass(frozen=True, slots=True)
class DefaultsConfig:
    """[defaults]: what every call starts from. None: not said.

    Attributes:
        timeout: the whole call: every attempt, wait and continuation.
        first: silence before the first output of an attempt.
        idle: silence between two outputs of an attempt.
        connect: until a connection stands.
        tries: attempts in a row without progress on one route.
        recoveries: recoveries of one call in all.
        max_cost: money that recoveries of one call may take; needs `prices`.
        concurrency: calls under way at once on one route.
        params: request fields of every call.
    """

    timeout: Seconds | None = None
    first: Seconds | None = None
    idle: Seconds | None = None
    connect: Seconds | None = None
    tries: Tries | None = None
    recoveries: Recoveries | None = None
    max_cost: Money | None = None
    concurrency: Count | None = None
    params: Params = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """[routes.NAME]: an endpoint with a model and a credential. None: not said.

    Attributes:
        provider: a known provider, which gives the endpoint, the wire and its quirks.
        model: the model's name as that endpoint knows it; needed.
        base_url: the endpoint, if it is not the provider's own.
        wire: the wire format, if the endpoint does not tell it.
        api_key_env: variables that hold a key; several are a pool.
        api_key_file: files that hold a key, as a full path or from `~`; several are a pool.
        api_key_keyring: entries of the system's keyring; several are a pool.
        sign_in: use that program's sign-in instead of a key.
        headers: further request headers.
        header_env: headers whose values stand in variables: header name to variable.
        insecure: allow plain http with a credential to another machine.
        continuation: how a broken answer is continued, if the table does not tell it.
        window: the model's context window in tokens.
        vision: whether the model reads images.
        quality: how good the model is, on a scale of your own.
        concurrency: calls under way at once here.
        params: request fields of every call here.
        rejects: request fields that are never sent here.
        prices: money per million tokens: `input`, `output` and, if given, `cached`.
        timeout: all attempts on this route together.
        first: as in [defaults], for this route.
        idle: as in [defaults], for this route.
        connect: as in [defaults], for this route.
    """

    provider: Text | None = None
    model: Text | None = None
    base_url: Text | None = None
    wire: Wire | None = None
    api_key_env: Variables | None = None
    api_key_file: Files | None = None
    api_key_keyring: Places | None = None
    sign_in: Literal["codex"] | None = None
    headers: Strings = field(default_factory=dict, repr=False)
    header_env: Strings = field(default_factory=dict)
    insecure: Flag | None = None
    continuation: Continuation | None = None
    window: Count | None = None
    vision: Flag | None = None
    quality: Rank | None = None
    concurrency: Count | None = None
    params: Params = field(default_factory=dict)
    rejects: Fields | None = None
    prices: Prices | None = None
    timeout: Seconds | None = None
    first: Seconds | None = None
    idle: Seconds | None = None
    connect: Seconds | None = None


@dataclass(frozen=True, slots=True)
class TaskConfig:
    """[tasks.NAME]: what the calls of one task do otherwise. None: not said.

    Attributes:
        route: where to ask first: a route's name, or "provider:model".
        model: instead of `route`: a model of `provider`, or of the main route.
        provider: whose model it is.
        fallbacks: where to ask next, in order, before the global fallbacks.
        only: fail rather than ask anything but `route` and `fallbacks`.
        quality: refuse routes whose `quality` is lower.
        min_window: refuse routes whose context window is known to be smaller.
        timeout: the whole call.
        first: as in [defaults], for this task.
        idle: as in [defaults], for this task.
        connect: as in [defaults], for this task.
        params: request fields of every call of this task.
        concurrency: calls of this task under way at once.
        empty_is_failure: take a complete but empty answer for a fault.
        atomic: ignore interrupts; cancels and deadlines still count.
        tries: as in [defaults], for this task.
        recoveries: as in [defaults], for this task.
        max_cost: as in [defaults], for this task.
        instructions: a system message in place of the task's own.
        language: the language to answer in.
        options: whatever else the task knows; handed over as it is.
    """

    route: Text | None = None
    model: Text | None = None
    provider: Text | None = None
    fallbacks: Texts | None = None
    only: Flag | None = None
    quality: Rank | None = None
    min_window: Count | None = None
    timeout: Seconds | None = None
    first: Seconds | None = None
    idle: Seconds | None = None
    connect: Seconds | None = None
    params: Params = field(default_factory=dict)
    concurrency: Count | None = None
    empty_is_failure: Flag | None = None
    atomic: Flag | None = None
    tries: Tries | None = None
    recoveries: Recoveries | None = None
    max_cost: Money | None = None
    instructions: Text | None = None
    language: Text | None = None
    options: Options = field(default_factory=dict)


class Origin(NamedTuple):
    """Where a value comes from. Its text is "FILE:LINE"."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"

    @property
    def place(self) -> str:
        """The same within a sentence."""
        return self.file if self.line is None else f"line {self.line} of {self.file}"


@dataclass(frozen=True, slots=True)
class Config:
    """All that the files say. None and empty tables: not said.

    Attributes:
        main: where to ask first: a route's name, or "provider:model".
        fallbacks: where to ask next, in order: names of routes, or `provider:model`.
        discover: without `main`: ask providers whose key is in the environment, with the model that their
            file names for side tasks. Default: no, for that is a model you did not choose.
        files: the files it was read from, the lowest first.
        origins: the place of every value by its dotted path.
    """

    main: Text | None = None
    fallbacks: Texts | None = None
    discover: Flag | None = None
    defaults: DefaultsConfig = field(default_factory=DefaultsConfig, metadata={"apart": True})
    routes: Mapping[str, RouteConfig] = field(default_factory=dict, metadata={"apart": True})
    tasks: Mapping[str, TaskConfig] = field(default_factory=dict, metadata={"apart": True})
    files: tuple[str, ...] = field(default=(), metadata={"apart": True})
    origins: Mapping[str, Origin] = field(
        default_factory=dict, repr=False, compare=False, metadata={"apart": True}
    )

    def where(self, path: str) -> str:
        """Where a value comes from: "FILE:LINE", "env NAME", or "default" if nobody says it.

        Args:
            path: such as "main" or "tasks.title.timeout".
        """
        return str(self.origins.get(path, "default"))


# Merging.

Table = TypeVar("Table", DefaultsConfig, RouteConfig, TaskConfig)


def merge(below: Config, above: Config) -> Config:
    """Two layers as one: what `above` says wins, key by key; lists and prices are taken whole."""
    said = {name: getattr(above, name) for name in _names(Config) if getattr(above, name) is not None}
    return replace(
        below,
        **said,
        defaults=merged(below.defaults, above.defaults),
        routes=_each(below.routes, above.routes),
        tasks=_each(below.tasks, above.tasks),
        files=below.files + above.files,
        origins={**below.origins, **above.origins},
    )


def _each(below: Mapping[str, Table], above: Mapping[str, Table]) -> dict[str, Table]:
    both = {name: merged(below[name], above[name]) for name in below if name in above}
    return {**below, **above, **both}


def merged(below: Table, above: Table) -> Table:
    """Two layers of one table: what `above` says wins, tables in it key by key."""
    said: dict[str, Any] = {}
    for name in _names(type(above)):
        under, over = getattr(below, name), getattr(above, name)
        if isinstance(over, Mapping):
            said[name] = {**under, **over}
        elif over is not None:
            said[name] = over
    return replace(below, **said)


def _names(table: type) -> list[str]:
    """The keys that a table has; what stands in tables of its own is none."""
    return [each.name for each in fields(table) if not each.metadata.get("apart")]
