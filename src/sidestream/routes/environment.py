"""Routes from explicit arguments and the usual environment variables.

Strategy: an argument beats `SIDESTREAM_*`, which beats `OPENAI_*`. A key from the environment belongs to the
endpoint the environment names (or to the provider's own host): it is never sent to an endpoint that came
from somewhere else. The wire is what the end of the URL says, or what the provider is known to speak there
(`providers.speaks`). `SIDESTREAM_FALLBACK_*` is a second route.

The table `VARIABLES` is what the documentation lists; a test compares the two.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..errors import ConfigError, NoRoute
from ..route import Route, Secret
from .providers import speaks

__all__ = [
    "ANTHROPIC",
    "OPENAI",
    "VARIABLES",
    "Environment",
    "main_from_environment",
    "origin_of",
    "routes_from_environment",
    "source_of",
    "without_query",
]

OPENAI = "https://api.openai.com/v1"
ANTHROPIC = "https://api.anthropic.com/v1"

VARIABLES: dict[str, str] = {
    "SIDESTREAM_CONFIG": "configuration file to read instead of your own and the project's; empty: none",
    "SIDESTREAM_BASE_URL": "endpoint, for example http://127.0.0.1:8080/v1",
    "SIDESTREAM_API_KEY": "credential for that endpoint",
    "SIDESTREAM_API_KEY_FILE": "file that holds the credential",
    "SIDESTREAM_MODEL": "model name",
    "SIDESTREAM_WIRE": "responses, chat or messages",
    "SIDESTREAM_CONTINUATION": "how a broken answer is continued there; default: the provider table",
    "SIDESTREAM_FALLBACK_BASE_URL": "second route: endpoint",
    "SIDESTREAM_FALLBACK_API_KEY": "second route: credential",
    "SIDESTREAM_FALLBACK_API_KEY_FILE": "second route: file that holds the credential",
    "SIDESTREAM_FALLBACK_MODEL": "second route: model name",
    "SIDESTREAM_FALLBACK_WIRE": "second route: responses, chat or messages",
    "SIDESTREAM_FALLBACK_CONTINUATION": "second route: how a broken answer is continued there",
    "OPENAI_BASE_URL": "endpoint, if SIDESTREAM_BASE_URL is not set",
    "OPENAI_API_KEY": "credential for OPENAI_BASE_URL or OpenAI itself",
    "OPENAI_MODEL": "model name, if SIDESTREAM_MODEL is not set",
    "ANTHROPIC_API_KEY": "credential for ANTHROPIC_BASE_URL or Anthropic itself",
    "ANTHROPIC_BASE_URL": "where ANTHROPIC_API_KEY belongs, if it is not Anthropic itself",
}

_LONGEST_KEY = 16 * 1024


class _Said(NamedTuple):
    """What is said of a route. Equal words make equal routes."""

    base_url: str
    key: Secret | None
    model: str
    wire: str | None
    continuation: str | None
    insecure: bool

    def route(self) -> Route:
        found = speaks(self.base_url, self.model, self.wire)
        form: Any = self.continuation  # Route checks the word
        return Route(
            found.base_url,
            self.model,
            found.wire,
            self.key,
            insecure=self.insecure,
            continuation=form,
            guessed=not found.sure,
        )


class Environment:
    """The routes that variables name. They are read for each call; a route stays the same while they do."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._made: dict[str, tuple[_Said, Route]] = {}

    def main(self, model: str | None = None) -> Route:
        """As `main_from_environment`."""
        return self._same("main", _main(self._environ, model=model))

    def fallback(self) -> tuple[Route, ...]:
        """The route that `SIDESTREAM_FALLBACK_*` names, whatever the main one is; none without them.

        Raises:
            ConfigError: as `routes_from_environment`.
        """
        said = _fallback(self._environ)
        return (self._same("fallback", said),) if said else ()

    def _same(self, which: str, said: _Said) -> Route:
        before, route = self._made.get(which, (None, None))
        if route is None or before != said:
            route = said.route()
            self._made[which] = said, route
        return route


def routes_from_environment(
    base_url: str | None = None,
    api_key: str | None = None,
    model: str | None = None,
    wire: str | None = None,
    *,
    continuation: str | None = None,
    insecure: bool = False,
    environ: Mapping[str, str] | None = None,
) -> tuple[Route, ...]:
    """The main route and, if the environment names one, its fallback.

    Raises:
        NoRoute: there is no model or nothing to send it to.
        ConfigError: a value makes no sense, or a key file cannot be read.
    """
    env = os.environ if environ is None else environ
    main = _main(env, base_url, api_key, model, wire, continuation, insecure=insecure)
    spare = _fallback(env, insecure=insecure)
    return tuple(said.route() for said in (main, spare) if said)


def main_from_environment(
    base_url: str | None = None,
    api_key: str | None = None,
    model: str | None = None,
    wire: str | None = None,
    *,
    continuation: str | None = None,
    insecure: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Route:
    """As `routes_from_environment`, without the fallback, of which nothing is looked at."""
    env = os.environ if environ is None else environ
    return _main(env, base_url, api_key, model, wire, continuation, insecure=insecure).route()


def _main(
    env: Mapping[str, str],
    base_url: str | None = None,
    api_key: str | None = None,
    model: str | None = None,
    wire: str | None = None,
    continuation: str | None = None,
    *,
    insecure: bool = False,
) -> _Said:
    endpoint = base_url or env.get("SIDESTREAM_BASE_URL") or env.get("OPENAI_BASE_URL") or OPENAI
    key = api_key if api_key is not None else _environment_key(env, endpoint)
    model = model or env.get("SIDESTREAM_MODEL") or env.get("OPENAI_MODEL")
    if not model:
        raise NoRoute(
            "no model is chosen",
            hint="pass model=, or set SIDESTREAM_MODEL (and SIDESTREAM_BASE_URL unless it is OpenAI's)",
        )
    if endpoint == OPENAI and not key:
        raise NoRoute("OpenAI needs a key and there is none", hint="pass api_key=, or set OPENAI_API_KEY")
    wire = wire or env.get("SIDESTREAM_WIRE") or None
    continuation = continuation or env.get("SIDESTREAM_CONTINUATION") or None
    return _Said(endpoint, Secret(key) if key else None, model, wire, continuation, insecure)


def _environment_key(env: Mapping[str, str], endpoint: str) -> str | None:
    """The environment's key for this endpoint: each key belongs to one origin and goes nowhere else."""
    openai = env.get("OPENAI_BASE_URL") or OPENAI
    own = origin_of(endpoint) == origin_of(env.get("SIDESTREAM_BASE_URL") or openai)
    if own and (key := _key(env, "SIDESTREAM_API_KEY")):
        return key
    if origin_of(endpoint) == origin_of(openai):
        return env.get("OPENAI_API_KEY") or None
    anthropic = env.get("ANTHROPIC_BASE_URL") or ANTHROPIC
    return env.get("ANTHROPIC_API_KEY") or None if origin_of(endpoint) == origin_of(anthropic) else None


def _fallback(env: Mapping[str, str], *, insecure: bool = False) -> _Said | None:
    base_url, model = env.get("SIDESTREAM_FALLBACK_BASE_URL"), env.get("SIDESTREAM_FALLBACK_MODEL")
    if not base_url and not model:
        return None
    if not base_url or not model:
        raise ConfigError(
            "the fallback route is half configured",
            hint="set both SIDESTREAM_FALLBACK_BASE_URL and SIDESTREAM_FALLBACK_MODEL, or neither",
        )
    key = _key(env, "SIDESTREAM_FALLBACK_API_KEY")
    wire = env.get("SIDESTREAM_FALLBACK_WIRE") or None
    continuation = env.get("SIDESTREAM_FALLBACK_CONTINUATION") or None
    return _Said(base_url, Secret(key) if key else None, model, wire, continuation, insecure)


_KEY_FILES = ("SIDESTREAM_API_KEY", "SIDESTREAM_FALLBACK_API_KEY")


def source_of(key: Secret, environ: Mapping[str, str]) -> str:
    """Where this key stands, such as "env OPENAI_API_KEY"; "" if it is in no variable and no file of one."""
    for name in (*_KEY_FILES, "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        if environ.get(name, "").strip() == key.reveal():
            return f"env {name}"
    for name in _KEY_FILES:
        with suppress(ConfigError):  # a file that cannot be read holds no key
            if _key(environ, name) == key.reveal():
                return f"file of env {name}_FILE"
    return ""


def _key(env: Mapping[str, str], name: str) -> str | None:
    if value := env.get(name):
        return value.strip()
    path = env.get(f"{name}_FILE")
    if not path:
        return None
    try:
        with Path(path).expanduser().open("rb") as file:
            text = file.read(_LONGEST_KEY).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"cannot read the key file {path}: {reason}", hint=f"check {name}_FILE") from None
    if not text:
        raise ConfigError(f"the key file {path} is empty", hint=f"check {name}_FILE")
    return text


def without_query(url: str) -> str:
    """The address alone: keys have been seen behind it."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of a URL; what is none is equal to itself alone."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        host = None
    if not host:
        return "", url, None
    return parts.scheme, host, port or {"https": 443, "http": 80}.get(parts.scheme)
