"""Which routes a call takes: main first, then what the task and the configuration name, and nothing else.

Strategy: a `Planner` knows the configuration, or the routes it was given; a `Plan` is what one call gets,
frozen: its routes in order with today's keys, its clocks, limits and request fields, and what was left out
with why. The order is the call's own route, the task's, the task's fallbacks, the main route, the global
fallbacks. Keys that happen to lie in the environment are looked for only when nobody chose a main route, and
only if the configuration says so (`discover`); a task that is tied down (`only`) goes nowhere else. What
cannot serve the call is left out: a model that reads no images when there are some, one below the task's
quality, one whose window is known to be too small.

Argument beats task beats configuration beats environment, value by value.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from msgspec import Struct, structs

from ..errors import ConfigError, NoRoute, UsageError
from ..recovery.clocks import Timeouts
from ..recovery.policy import Policy
from ..route import Credential, Route, RouteClocks
from ..wire.prompt import Request, has_images, one_meaning, size
from .config_schema import Config, RouteConfig, TaskConfig, merged
from .environment import Environment
from .providers import (
    Provider,
    base_url_for,
    keys_for,
    named,
    nearest,
    provider,
    provider_of,
    providers,
    speaks,
    with_facts,
)

__all__ = ["BUILT_IN", "Choice", "Known", "Plan", "Planner"]

# What the tasks of this library ask for, where nobody says otherwise.
BUILT_IN: Mapping[str, TaskConfig] = {
    "compression": TaskConfig(timeout=600.0, atomic=True, empty_is_failure=True),
    "title": TaskConfig(timeout=30.0, empty_is_failure=True, params={"max_output_tokens": 2048}),
    "extract": TaskConfig(timeout=120.0, empty_is_failure=True),
    "vision": TaskConfig(timeout=120.0, empty_is_failure=True),
}
_NO_TASK = TaskConfig()
_NOTHING_SAID = RouteConfig()
_CHARS_PER_TOKEN = 4
_REMEMBERED = 256


class Choice(Struct, frozen=True):
    """What a call says itself. None: not said.

    Attributes:
        task: the side task it is for, "" for none.
        route: a route, its name, or "provider:model", instead of the main one.
        model: another model, on the route that would be asked first.
        main: the main route of this moment, instead of the configured one.
    """

    task: str = ""
    route: Route | str | None = None
    model: str | None = None
    main: Route | str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What one call gets.

    Attributes:
        routes: in the order they are asked, with their keys.
        skipped: what was left out, each with why, for people.
        task: what the task says, with everything below it filled in.
    """

    routes: tuple[Route, ...]
    skipped: tuple[str, ...] = ()
    task: TaskConfig = field(default_factory=TaskConfig)

    def policy(self, given: Policy) -> Policy:
        """The call's limits: the task's where it says some, else those given."""
        said = {name: getattr(self.task, name) for name in ("tries", "recoveries", "max_cost")}
        return replace(given, **{name: value for name, value in said.items() if value is not None})


class _Candidate(Struct, frozen=True):
    """A route that may be asked: without facts, and where its key and further headers come from."""

    given: Route
    owner: Provider | None = None
    credential: Credential | None = None
    said: RouteConfig = _NOTHING_SAID


class Known(Struct, frozen=True):
    """A route that is configured, or that a call may ask.

    Attributes:
        route: with all that is known of it, but without its key.
        ready: the same with today's key; None if it cannot be used, and `problem` says why.
        provider: whose endpoint it is, "" if nobody knows.
        credential: where its key comes from, None if it is part of the route or there is none.
        chosen: whether the configuration says its wire.
    """

    route: Route
    ready: Route | None
    problem: ConfigError | None
    provider: str
    credential: Credential | None
    chosen: bool


class Planner:
    """Makes plans. Reads no file and asks nobody once it is made, keys apart.

    Args:
        config: what the files say. None with `routes`: they are all there is.
        routes: the routes to use, in order, instead of any configuration.
        tasks: tasks of the program's own, below those of the configuration.
        model: another model on the main route, wherever that comes from.
        environ: default: the process's environment.

    Raises:
        ConfigError: a route makes no sense.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        routes: Iterable[Route] | None = None,
        tasks: Mapping[str, TaskConfig] | None = None,
        model: str | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._model = model
        self._environ = os.environ if environ is None else environ
        self._fixed = None if routes is None else tuple(routes)
        self.config = Config() if config is None else config
        self.main: Route | str | None = None
        self._why_none: NoRoute | None = None
        self._own_tasks = dict(tasks or {})
        self._tasks: dict[str, TaskConfig] = {}
        self._sign_ins: dict[str, Credential] = {}
        self._from_variables = Environment(self._environ)
        self._facts: dict[int, tuple[weakref.ref[Route], Route]] = {}
        self._candidates_of: dict[str, list[_Candidate]] = {}
        for name in self.config.routes:  # every one must make sense, whether a call needs it or not
            self._configured(name, self.config.routes[name])
        self._own = tuple(_Candidate(route, credential=route.credential) for route in self._fixed or ())

    @classmethod
    def load(cls, source: Config | str | os.PathLike[str] | None = None, **others: Any) -> Planner:
        """From a configuration, a file's path, or the files there are. Errors as of `load_config`."""
        if isinstance(source, Config):
            return cls(source, **others)
        from .config import load_config  # brings TOML, which a client of one route need not load

        environ = dict(others.get("environ") or os.environ)
        if source is not None:
            environ["SIDESTREAM_CONFIG"] = os.fspath(source)
        return cls(load_config(environ), **others)

    # Tasks.

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of all tasks."""
        return tuple({**BUILT_IN, **self._own_tasks, **self.config.tasks})

    def task(self, name: str) -> TaskConfig:
        """What a task says, the configuration over the program.

        Raises:
            UsageError: there is no such task.
        """
        if not name:
            return _NO_TASK
        if name in self._tasks:
            return self._tasks[name]
        if name not in self.tasks:
            near = nearest(name, self.tasks)
            hint = f"did you mean {near!r}?" if near else f"make a table [tasks.{name}], or pass tasks="
            raise UsageError(f"there is no task {name!r}", hint=hint)
        self._tasks[name] = merged(BUILT_IN.get(name, _NO_TASK), self._said_of(name))
        return self._tasks[name]

    def _said_of(self, name: str) -> TaskConfig:
        """What the program and the configuration say of a task."""
        return merged(self._own_tasks.get(name, _NO_TASK), self.config.tasks.get(name, _NO_TASK))

    def timeouts(self, said: Timeouts | float | None, task: str = "") -> Timeouts:
        """The clocks of a task's calls: those of [defaults], of this library's tasks, the program's own
        (`said`, a number is the total), and of what is said of the task. Later ones win."""
        clocks = _clocks(BUILT_IN.get(task, _NO_TASK), _clocks(self._low(), Timeouts()))
        if said is not None:
            clocks = said if isinstance(said, Timeouts) else replace(clocks, total=said)
        return _clocks(self._said_of(task), clocks)

    def policy(self) -> Policy:
        """The limits of [defaults]."""
        return Plan((), task=self._low()).policy(Policy())

    def _low(self) -> TaskConfig:
        low = self.config.defaults
        return TaskConfig(
            timeout=low.timeout, first=low.first, idle=low.idle, connect=low.connect, tries=low.tries,
            recoveries=low.recoveries, max_cost=low.max_cost,
        )  # fmt: skip

    # A plan.

    def plan(self, choice: Choice, request: Request | None = None) -> Plan:
        """What a call gets.

        Args:
            request: what it will ask, to leave out routes that cannot serve it.

        Raises:
            NoRoute: nothing is left to ask; the message says what was left out, and why.
            UsageError: there is no such task. ConfigError: a name leads nowhere.
        """
        task = self.task(choice.task)
        skipped: list[str] = []
        routes: list[Route] = []
        for candidate in self._chosen(choice, task):
            try:
                route = self._ready(candidate)
            except ConfigError as error:
                skipped.append(f"{candidate.given.name}: {error}")
                continue
            if all(route.part("route") != each.part("route") for each in routes):
                routes.append(route)
        kept = [route for route in routes if not _unfit(route, task, request, skipped)]
        if request is not None:
            kept = _large_enough(kept, task, request, skipped)
        if not kept:
            raise self._no_route(choice, skipped)
        return Plan(tuple(kept), tuple(dict.fromkeys(skipped)), task)

    def known(self, task: str | None = None) -> tuple[Known, ...]:
        """Every route that is configured, or that a call may ask, once each, in the order of calls.

        Args:
            task: only what the calls of this one may ask.

        Raises:
            ConfigError: a provider's file is damaged.
        """
        found: list[_Candidate] = []
        for name in ("", *self.tasks) if task is None else (task,):
            with suppress(ConfigError):  # a name that leads nowhere, which the plan of that task says
                found += self._chosen(Choice(name), self.task(name))
        for name, said in self.config.routes.items() if task is None else ():
            found += self._configured(name, said)
        once = [each for number, each in enumerate(found) if each not in found[:number]]
        return tuple(map(self._known, once))

    def _known(self, candidate: _Candidate) -> Known:
        route = self._with_facts(candidate)
        owner = candidate.owner or provider_of(route.base_url)
        ready, problem = None, None
        try:
            ready = self._ready(candidate)
        except ConfigError as error:
            problem = error
        chosen = candidate.said.wire is not None
        return Known(route, ready, problem, owner.name if owner else "", candidate.credential, chosen)

    def _chosen(self, choice: Choice, task: TaskConfig) -> list[_Candidate]:
        """Everything the call may ask, in order, the first with the model that the call wants."""
        found = list(self._candidates(choice, task))
        if not choice.model:
            return found
        first = _first(found)
        return [*self._with_another(first, choice.model), *found[len(first) :]]

    def _candidates(self, choice: Choice, task: TaskConfig) -> Iterator[_Candidate]:
        """The routes, as they are configured, in order."""
        if choice.route is not None:
            yield from self._named(choice.route, "route=")
            yield from self._fallbacks(task.fallbacks, f"tasks.{choice.task}.fallbacks")
            return
        main = self._main(choice)
        place = f"tasks.{choice.task}"
        if task.route is not None:
            yield from self._named(task.route, f"{place}.route")
        elif task.provider is not None and task.model is not None:
            yield from self._named(f"{task.provider}:{task.model}", f"{place}.model")
        elif task.model is not None:
            yield from self._with_another(_first(main), task.model)
        elif not task.only:
            yield from main
        yield from self._fallbacks(task.fallbacks, f"{place}.fallbacks")
        if task.only:
            return
        yield from main
        yield from self._global_fallbacks()
        if not main and self._fixed is None and self.config.discover:
            yield from self._discovered()

    def _main(self, choice: Choice) -> tuple[_Candidate, ...]:
        chosen = choice.main or self.main
        if chosen is not None:
            return tuple(self._named(chosen, "main="))
        if self._fixed is not None:
            return self._own
        if self.config.main is not None:
            found = tuple(self._named(self.config.main, "main"))
            return tuple(self._with_another(found, self._model)) if self._model else found
        said = self._model or self._environ.get("SIDESTREAM_MODEL") or ""
        moved = self._environ.get("SIDESTREAM_BASE_URL") or self._environ.get("OPENAI_BASE_URL")
        if not moved and ":" in said and provider(said.partition(":")[0]):
            return tuple(self._named(said, "SIDESTREAM_MODEL"))
        try:
            return (_Candidate(self._from_variables.main(self._model)),)
        except NoRoute as error:
            self._why_none = error.with_traceback(None)  # which would hold on to us
            return ()

    def _fallbacks(self, names: Iterable[str] | None, place: str) -> Iterator[_Candidate]:
        for name in names or ():
            yield from self._named(name, place)

    def _global_fallbacks(self) -> Iterator[_Candidate]:
        if self.config.fallbacks is not None:
            yield from self._fallbacks(self.config.fallbacks, "fallbacks")
        elif self._fixed is None:
            yield from map(_Candidate, self._from_variables.fallback())

    def _discovered(self) -> Iterator[_Candidate]:
        """Providers whose key lies in the environment, with the model their file names for side tasks."""
        for owner in providers():
            model, url = owner.default_model, owner.base_url
            if model and url and any(self._environ.get(name) for name in keys_for(owner, url, self._environ)):
                yield from self._configured(f"{owner.id}:{model}", RouteConfig(owner.id, model))

    def _named(self, name: Route | str, place: str) -> Iterator[_Candidate]:
        """What a name stands for: a configured route, or a provider's model."""
        if isinstance(name, Route):
            yield _Candidate(name, credential=name.credential)
        elif name in self.config.routes:
            yield from self._configured(name, self.config.routes[name])
        elif ":" in name:
            owner, _, model = name.partition(":")
            yield from self._configured(name, RouteConfig(owner, model))
        else:
            near = nearest(name, self.config.routes)
            hint = f"did you mean {near!r}?" if near else 'write "provider:model", or make a [routes] table'
            where = self.config.where(place)
            raise ConfigError(f"there is no route {name!r} ({place}, {where})", hint=hint)

    # A route.

    def _configured(self, name: str, said: RouteConfig) -> list[_Candidate]:
        """A configured route, once for each of its keys."""
        if name in self._candidates_of:
            return self._candidates_of[name]
        found = self._candidates_for(name, said)
        if len(self._candidates_of) < _REMEMBERED:
            self._candidates_of[name] = found
        return found

    def _candidates_for(self, name: str, said: RouteConfig) -> list[_Candidate]:
        owner = _owner(said)
        sign_in = said.sign_in or (owner.sign_in if owner and not _has_key(said) else None)
        given = self._given(name, said, owner)
        if sign_in:
            return [_Candidate(given, owner, self._sign_in(sign_in, given), said)]
        from .secrets import EnvKey, credentials_of  # only configured routes have keys elsewhere

        keys: tuple[Credential, ...] = credentials_of(said, self._environ)
        if not keys and owner is not None:
            names = keys_for(owner, given.base_url, self._environ)
            there = [each for each in names if self._environ.get(each)] or list(names[:1])
            keys = tuple(EnvKey(each, self._environ) for each in there[:1])
        if not keys:
            return [_Candidate(given, owner, said=said)]
        return [
            _Candidate(given if number == 1 else replace(given, name=f"{name}#{number}"), owner, key, said)
            for number, key in enumerate(keys, 1)
        ]

    def _given(self, name: str, said: RouteConfig, owner: Provider | None) -> Route:
        """The route as it is configured, without a key."""
        url = said.base_url or (base_url_for(owner, self._environ) if owner else None)
        clocks = RouteClocks(said.timeout, said.first, said.idle, said.connect)
        more: dict[str, Any] = {
            "name": name,
            "headers": said.headers,
            "insecure": bool(said.insecure),
            "continuation": said.continuation,
            "prices": said.prices,
            "window": said.window,
            "vision": said.vision,
            "quality": said.quality or 0,
            "concurrency": said.concurrency,
            "params": said.params,
            "rejects": said.rejects or frozenset(),
            "clocks": None if clocks == RouteClocks() else clocks,
        }
        model = said.model or ""
        if not url and owner is not None:
            raise ConfigError(
                f"route {name}: {owner.name} has no endpoint of its own", hint="say its base_url"
            )
        try:
            found = speaks(url or "", model, said.wire, of=owner)
            return Route(found.base_url, model, found.wire, guessed=not found.sure, **more)
        except ConfigError as error:
            raise ConfigError(f"route {name}: {error}", hint=error.hint) from None

    def _sign_in(self, kind: str, given: Route) -> Credential:
        """One sign-in for all routes of its kind and endpoint."""
        key = f"{kind} {given.base_url}"
        if key not in self._sign_ins:
            from .codex import CodexSignIn  # brings JSON and files, which few need

            self._sign_ins[key] = CodexSignIn(endpoints=(given.base_url,), environ=self._environ)
        return self._sign_ins[key]

    def _with_another(self, candidates: Iterable[_Candidate], model: str) -> Iterator[_Candidate]:
        """The same endpoint and keys with another model: nothing that was said of the old one holds."""
        for number, each in enumerate(candidates, 1):
            if each.said.model is None:
                given = replace(
                    each.given, model=model, name="", window=None, vision=None, quality=0, prices=None
                )
            else:
                said = replace(each.said, model=model, window=None, vision=None, quality=None, prices=None)
                given = self._given("", said, each.owner)
            name = given.name if number == 1 else f"{given.name}#{number}"
            yield structs.replace(each, given=replace(given, name=name))

    def _ready(self, candidate: _Candidate) -> Route:
        """The route with its facts and today's key. Raises ConfigError."""
        route = self._with_facts(candidate)
        if candidate.said.header_env:
            from .secrets import headers_of

            route = replace(route, headers={**route.headers, **headers_of(candidate.said, self._environ)})
        if candidate.credential is None:
            return route
        return candidate.credential.apply(replace(route, credential=candidate.credential))

    def _no_route(self, choice: Choice, skipped: list[str]) -> NoRoute:
        whose = f" for task {choice.task}" if choice.task else ""
        if skipped:
            told = "; ".join(dict.fromkeys(skipped))
            return NoRoute(f"no route{whose} can be asked: {told}", hint="sidestream doctor shows them all")
        if self._fixed is None and self.config.main is None:
            return self._why_none or NoRoute(
                "no model is chosen", hint="name a main route: sidestream config init"
            )
        return NoRoute(f"there is no route{whose}", hint="pass base_url= and model=, or name a main route")

    def _with_facts(self, candidate: _Candidate) -> Route:
        """Looked up once for each route, and forgotten with it: a caller's keys are not collected."""
        given, facts, key = candidate.given, self._facts, id(candidate.given)
        if (found := facts.get(key)) and found[0]() is given:
            return found[1]
        low = self.config.defaults
        params = one_meaning(low.params, given.params)
        usual = replace(given, params=params, concurrency=given.concurrency or low.concurrency)
        route = with_facts(usual, candidate.owner)
        facts[key] = weakref.ref(given, lambda _: facts.pop(key, None)), route
        return route


def _clocks(task: TaskConfig, usual: Timeouts) -> Timeouts:
    """The usual clocks, and what a task says of them."""
    said = {"total": task.timeout, "first": task.first, "idle": task.idle, "connect": task.connect}
    return replace(usual, **{name: value for name, value in said.items() if value is not None})


def _first(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """The route that is asked first, with each of its keys."""
    return [
        *takewhile(lambda each: each.given.part("model") == candidates[0].given.part("model"), candidates)
    ]


def _owner(said: RouteConfig) -> Provider | None:
    """The provider whose ways a configured route follows."""
    name = said.provider or said.sign_in
    return named(name) if name else None


def _has_key(said: RouteConfig) -> bool:
    return bool(said.api_key_env or said.api_key_file or said.api_key_keyring)


def _unfit(route: Route, task: TaskConfig, request: Request | None, skipped: list[str]) -> bool:
    """Whether a route cannot serve the call; says why."""
    if task.quality and route.quality < task.quality:
        skipped.append(f"{route.name}: its quality is {route.quality}, the task wants {task.quality}")
    elif request is not None and route.vision is False and has_images(request):
        skipped.append(f"{route.name}: the model reads no images")
    else:
        return False
    return True


def _large_enough(routes: list[Route], task: TaskConfig, request: Request, skipped: list[str]) -> list[Route]:
    """Those whose window is not known to be too small; if all are, the largest: it is only an estimate."""
    needed = max(task.min_window or 0, size(request, images=False) // _CHARS_PER_TOKEN)
    fits = [route for route in routes if route.window is None or route.window >= needed]
    if not fits and not task.min_window and routes:
        return [max(routes, key=lambda route: route.window or 0)]
    skipped += (
        f"{route.name}: its window of {route.window} tokens is smaller than {needed}"
        for route in routes
        if route not in fits
    )
    return fits
