"""What a configuration must not say, beyond the types of its values.

Strategy: three looks. `layer` reads one file and notes what makes no sense in it; `restrict` notes what a
project's file may not say on top of the user's; `contradictions` tells what makes no sense once all files are
put together. Nothing is raised here: problems are collected, each with its line. Pure.

A project's file arrives with a cloned repository, so it chooses among what the user has, and no more: it may
not name another host, a credential or a header, nor lead a route of the user's elsewhere, nor loosen what the
user has tied down (`only`, `discover`, `max_cost`), nor hand a model nested request fields, which can name
servers of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ..errors import ConfigError
from ..route import Route, is_loopback
from .config_schema import VARIABLE, Config, DefaultsConfig, Origin, RouteConfig, Table, TaskConfig
from .toml_tables import Document, KeyPath, Problem, keys_of

__all__ = ["contradictions", "layer", "restrict", "unknown_providers"]

_KEY_LENGTH = 16  # from which on a name with small letters and digits is taken for a key
_OWN_ENDPOINT = "docs/providers.md lists them; for an endpoint of your own say base_url in a route"
_MOVE_IT = f"move it to your own file (sidestream config path), or name this file in {VARIABLE} to trust it"

# One file.

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NO_KEY_HERE = (
    "a key does not stand in this file: name where it is with api_key_env, api_key_file or api_key_keyring"
)
_IN_PARAMS = "request fields stand in a table of their own: params = {{ {0} = … }}"
_ROUTE_HINTS = {
    **dict.fromkeys(("api_key", "key", "token", "secret"), _NO_KEY_HERE),
    **{name: _IN_PARAMS.format(name) for name in ("temperature", "max_output_tokens", "reasoning_effort")},
    **{name: _IN_PARAMS.format(name) for name in ("max_tokens", "top_p", "seed", "response_format")},
}
_TASK_HINTS = {
    **_ROUTE_HINTS,
    **dict.fromkeys(("base_url", "headers"), "an endpoint is a route: make one and name it with route"),
    **dict.fromkeys(("enabled",), "what is the task's own stands in a table of its own: options"),
}
# Request fields that a call says itself.
_NO_PARAMS = {"input", "messages", "model", "stream", "tools", "instructions", "system", "prompt"}


def layer(document: Document) -> Config:
    """What one file says. What is wrong in it is noted there and left out here."""
    top = document.fields(Config, (), also=("defaults", "routes", "tasks"))
    defaults = DefaultsConfig(**document.fields(DefaultsConfig, ("defaults",), _ROUTE_HINTS))
    routes = _named(document, "routes", RouteConfig, _ROUTE_HINTS)
    tasks = _named(document, "tasks", TaskConfig, _TASK_HINTS)
    config = Config(**top, defaults=defaults, routes=routes, tasks=tasks, files=(document.name,))
    _inspect(document, config)
    origins = {".".join(map(str, path)): Origin(document.name, line) for path, line in document.lines.items()}
    return replace(config, origins=origins)


def _named(document: Document, kind: str, table: type[Table], hints: Mapping[str, str]) -> dict[str, Table]:
    """The tables below [routes] or [tasks]."""
    found: dict[str, Table] = {}
    for name in document.table((kind,)):
        if not _NAME.fullmatch(name):
            document.problem((kind, name), f"{name!r} is no name", "names are letters, digits, - and _")
        else:
            found[name] = table(**document.fields(table, (kind, name), hints))
    return found


def _inspect(document: Document, config: Config) -> None:
    """What a value must be beyond its type."""
    _inspect_params(document, config.defaults.params, ("defaults", "params"))
    for name, task in config.tasks.items():
        _inspect_params(document, task.params, ("tasks", name, "params"))
        _inspect_auto(document, task, ("tasks", name))
    for name, route in config.routes.items():
        path = ("routes", name)
        _inspect_params(document, route.params, (*path, "params"))
        _inspect_auto(document, route, path)
        _inspect_endpoint(document, route, path)
        _inspect_credential(document, route, path)


def _inspect_params(document: Document, params: Mapping[str, Any], path: KeyPath) -> None:
    for name, value in params.items():
        if name in _NO_PARAMS:
            document.problem((*path, name), f"{name} is not a request field to set here", "a call says it")
        elif not all(math.isfinite(number) for number in _floats(value)):
            document.problem((*path, name), f"{name} is not a finite number")


def _floats(value: object) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list):
        for element in value.values() if isinstance(value, dict) else value:
            yield from _floats(element)


def _inspect_auto(document: Document, table: RouteConfig | TaskConfig, path: KeyPath) -> None:
    for name in ("model", "provider"):
        if getattr(table, name) == "auto":
            hint = f"leave {name} out: then the order of the routes decides"
            document.problem((*path, name), f'"auto" is not the name of a {name}', hint)


def _inspect_endpoint(document: Document, route: RouteConfig, path: KeyPath) -> None:
    url = _url(route.base_url) if route.base_url else None
    if route.base_url and url is None:
        hint = "it looks like https://api.openai.com/v1; user and password do not belong there"
        document.problem((*path, "base_url"), f"base_url{_of(path)} is not an http(s) address", hint)
    for name in {**route.headers, **route.header_env}:
        if not _HEADER.fullmatch(name):
            table = "headers" if name in route.headers else "header_env"
            document.problem((*path, table, name), f"{name!r} is not a header's name")
            continue
        try:
            Route("https://localhost", "any", headers={name: route.headers.get(name, "")})
        except ConfigError as error:
            document.problem((*path, "headers", name), str(error), "use header_env for a secret")


def _url(text: str) -> SplitResult | None:
    """The parts of an endpoint's address; None if it is none."""
    try:
        url = urlsplit(text)
        good = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        return None
    plain = text.isascii() and all(" " < character <= "~" for character in text)
    return url if good and plain and "@" not in url.netloc else None


def _inspect_credential(document: Document, route: RouteConfig, path: KeyPath) -> None:
    """Where a key is must not be the key itself; if it is, the message does not repeat it."""
    for name, texts, test, hint in (
        ("api_key_env", route.api_key_env, _is_variable, "name the variable, not its value"),
        ("api_key_file", route.api_key_file, _is_full_path, "give the full path, or one from ~"),
        ("api_key_keyring", route.api_key_keyring, _is_keyring_place, 'write it as "service/user"'),
    ):
        if not all(test(text) for text in texts or ()):
            kind = keys_of(RouteConfig)[name].kind
            document.problem((*path, name), f"{name}{_of(path)} is not {kind}", hint)
    for header, variable in route.header_env.items():
        if not _is_variable(variable):
            document.problem(
                (*path, "header_env", header),
                f"header_env.{header}{_of(path)} is not a variable's name",
                "name the variable, not its value",
            )


def _is_variable(text: str) -> bool:
    """A name, and not what looks like a key: those have small letters and digits, and are long."""
    looks_like_a_key = len(text) >= _KEY_LENGTH and bool(
        re.search("[a-z]", text) and re.search("[0-9]", text)
    )
    return bool(_VARIABLE_NAME.fullmatch(text)) and not looks_like_a_key


def _is_full_path(text: str) -> bool:
    return text.startswith("~") or Path(text).is_absolute()


def _is_keyring_place(text: str) -> bool:
    service, _, user = text.rpartition("/")
    return bool(service and user)


def _of(path: KeyPath) -> str:
    return f" in [{'.'.join(map(str, path))}]"


# What a project's file may not say.

_KEYS_OF_THE_USER = ("api_key_env", "api_key_file", "api_key_keyring", "headers", "header_env", "insecure")
_WHERE_IT_LEADS = ("provider", "base_url", "wire", "sign_in")
_WHOM_A_TASK_ASKS = ("route", "model", "provider", "fallbacks", "only")


def restrict(document: Document, above: Config, below: Config) -> None:
    """Note what a project's file may not say on top of the user's."""
    for name, route in above.routes.items():
        _restrict_route(document, name, route, own=name not in below.routes)
    for name, task in above.tasks.items():
        if below.tasks.get(name, TaskConfig()).only:
            _forbid(document, task, ("tasks", name), _WHOM_A_TASK_ASKS, "on a task that you tied down (only)")
    if above.discover and not below.discover:
        _forbid(document, above, (), ("discover",), "where you have not")
    cap = below.defaults.max_cost
    _restrict_cost(document, above.defaults.max_cost, cap, ("defaults",))
    for name, task in above.tasks.items():
        own = below.tasks.get(name, TaskConfig()).max_cost
        _restrict_cost(document, task.max_cost, cap if own is None else own, ("tasks", name))
    _restrict_params(document, above)


def _restrict_route(document: Document, name: str, route: RouteConfig, *, own: bool) -> None:
    path = ("routes", name)
    _forbid(document, route, path, _KEYS_OF_THE_USER, "")
    if not own:
        _forbid(document, route, path, _WHERE_IT_LEADS, "on a route of yours")
    elif route.base_url and (route.provider or route.sign_in):
        _forbid(document, route, path, ("base_url",), "together with a provider, whose key it would get")
    elif route.base_url and (url := _url(route.base_url)) and not is_loopback(url.hostname or ""):
        _forbid(document, route, path, ("base_url",), "of another machine")


def _forbid(document: Document, table: object, path: KeyPath, names: Iterable[str], why: str) -> None:
    for name in names:
        if getattr(table, name) not in (None, {}):
            message = f"a project's file may not say {name}{f' {why}' if why else ''}"
            document.problem((*path, name), message, _MOVE_IT)


def _restrict_cost(document: Document, said: float | None, cap: float | None, path: KeyPath) -> None:
    if said is not None and cap is not None and said > cap:
        document.problem((*path, "max_cost"), "a project's file may not raise max_cost above yours", _MOVE_IT)


def _restrict_params(document: Document, above: Config) -> None:
    """Plain values only: a nested one can name servers that the model would call."""
    tables: list[tuple[KeyPath, Mapping[str, Any]]] = [(("defaults",), above.defaults.params)]
    tables += [(("routes", name), route.params) for name, route in above.routes.items()]
    tables += [(("tasks", name), task.params) for name, task in above.tasks.items()]
    for path, params in tables:
        for name, value in params.items():
            if isinstance(value, dict | list):
                message = f"a project's file may set {name} to a text, a number, true or false only"
                document.problem((*path, "params", name), message, _MOVE_IT)


# What the files say together.


def contradictions(config: Config) -> Iterator[Problem]:
    """What makes no sense once all files are read."""
    for path, target in _targets(config):
        if said := _no_target(target, config):
            yield _told(config, path, *said)
    for name, route in config.routes.items():
        if message := _half_a_route(route):
            yield _told(config, f"routes.{name}", f"[routes.{name}] {message[0]}", message[1])
    for name, task in config.tasks.items():
        if message := _half_a_task(task):
            yield _told(config, f"tasks.{name}", f"[tasks.{name}] {message[0]}", message[1])


def _told(config: Config, path: str, message: str, hint: str) -> Problem:
    origin = config.origins.get(path)
    return Problem(f"{message}, {origin.place}" if origin else message, hint)


def _targets(config: Config) -> Iterator[tuple[str, str]]:
    """Every mention of a route, with its path."""
    if config.main:
        yield "main", config.main
    yield from (("fallbacks", target) for target in config.fallbacks or ())
    for name, task in config.tasks.items():
        if task.route:
            yield f"tasks.{name}.route", task.route
        yield from ((f"tasks.{name}.fallbacks", target) for target in task.fallbacks or ())


def _no_target(target: str, config: Config) -> tuple[str, str] | None:
    """What is wrong with the mention of a route, and what to do; None if nothing is."""
    provider, colon, model = target.partition(":")
    if not colon:
        if target in config.routes:
            return None
        near = get_close_matches(target, config.routes, n=1)
        meant = f"; did you mean '{near[0]}'?" if near else ""
        hint = f'make a table [routes.{target}], or write "provider:model"'
        if target == "auto":
            hint = "leave it out: then the order of the routes decides"
        return f"there is no route '{target}'{meant}", hint
    if not provider or not model or model == "auto":
        return f"'{target}' is neither a route nor a provider with a model", "for example openai:gpt-5-mini"
    return None


def unknown_providers(
    config: Config, known: Callable[[str], bool], names: Iterable[str]
) -> Iterator[Problem]:
    """Every mention of a provider that nobody knows.

    Args:
        known: whether a name or an alias is one.
        names: what to suggest.
    """
    said = [(path, target.partition(":")[0]) for path, target in _targets(config) if ":" in target]
    for kind, tables in (("routes", config.routes), ("tasks", config.tasks)):
        said += [
            (f"{kind}.{name}.provider", table.provider) for name, table in tables.items() if table.provider
        ]
    for path, provider in said:
        if not known(provider):
            near = get_close_matches(provider, names, n=1)
            meant = f"; did you mean '{near[0]}'?" if near else ""
            yield _told(config, path, f"there is no provider '{provider}'{meant}", _OWN_ENDPOINT)


def _half_a_route(route: RouteConfig) -> tuple[str, str] | None:
    """What is wrong with a route, and what to do; None if nothing is."""
    if not route.model:
        return "has no model", "name it: model = …"
    if not (route.provider or route.base_url or route.sign_in):
        return "leads nowhere", "say its provider or its base_url"
    keys = route.api_key_env or route.api_key_file or route.api_key_keyring
    if route.sign_in and keys:
        return "has a key and a sign-in", "leave out one of the two"
    url = _url(route.base_url or "")
    plain = url is not None and url.scheme == "http" and not is_loopback(url.hostname or "")
    if plain and keys and not route.insecure:
        return "would send a key over plain http", "use https, or insecure = true if that network is yours"
    return None


def _half_a_task(task: TaskConfig) -> tuple[str, str] | None:
    """What is wrong with a task, and what to do; None if nothing is."""
    if task.route and (task.model or task.provider):
        return "says both a route and a model", "leave out one of the two"
    if task.provider and not task.model:
        return "says a provider and no model", "add model = …"
    if task.only and not (task.route or task.model or task.fallbacks):
        return "allows only its own routes and has none", "add route = …"
    return None
