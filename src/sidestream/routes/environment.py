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
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError, NoRoute
from ..route import Route, Secret
from .providers import speaks

__all__ = ["ANTHROPIC", "OPENAI", "VARIABLES", "fallback_from_environment", "routes_from_environment"]

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
    from_env = env.get("SIDESTREAM_BASE_URL") or env.get("OPENAI_BASE_URL") or OPENAI
    endpoint = base_url or from_env
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
    main = _route(endpoint, key, model, wire, continuation, insecure)
    return (main, *fallback_from_environment(env, insecure=insecure))


def _environment_key(env: Mapping[str, str], endpoint: str) -> str | None:
    """The environment's key for this endpoint: each key belongs to one origin and goes nowhere else."""
    openai = env.get("OPENAI_BASE_URL") or OPENAI
    own = _origin(endpoint) == _origin(env.get("SIDESTREAM_BASE_URL") or openai)
    if own and (key := _key(env, "SIDESTREAM_API_KEY")):
        return key
    if _origin(endpoint) == _origin(openai):
        return env.get("OPENAI_API_KEY") or None
    anthropic = env.get("ANTHROPIC_BASE_URL") or ANTHROPIC
    return env.get("ANTHROPIC_API_KEY") or None if _origin(endpoint) == _origin(anthropic) else None


def fallback_from_environment(env: Mapping[str, str], *, insecure: bool = False) -> tuple[Route, ...]:
    """The route that `SIDESTREAM_FALLBACK_*` names, whatever the main one is; none without them.

    Raises:
        ConfigError: as `routes_from_environment`.
    """
    base_url, model = env.get("SIDESTREAM_FALLBACK_BASE_URL"), env.get("SIDESTREAM_FALLBACK_MODEL")
    if not base_url and not model:
        return ()
    if not base_url or not model:
        raise ConfigError(
            "the fallback route is half configured",
            hint="set both SIDESTREAM_FALLBACK_BASE_URL and SIDESTREAM_FALLBACK_MODEL, or neither",
        )
    key = _key(env, "SIDESTREAM_FALLBACK_API_KEY")
    wire = env.get("SIDESTREAM_FALLBACK_WIRE") or None
    continuation = env.get("SIDESTREAM_FALLBACK_CONTINUATION") or None
    return (_route(base_url, key, model, wire, continuation, insecure),)


def _route(
    base_url: str, key: str | None, model: str, wire: str | None, continuation: str | None, insecure: bool
) -> Route:
    found = speaks(base_url, model, wire)
    form: Any = continuation  # Route checks the word
    secret = Secret(key) if key else None
    return Route(
        found.base_url,
        model,
        found.wire,
        secret,
        insecure=insecure,
        continuation=form,
        guessed=not found.sure,
    )


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


def _origin(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "", url, None
    return parts.scheme, parts.hostname or "", port or {"https": 443, "http": 80}.get(parts.scheme)
