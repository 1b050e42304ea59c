"""Which requests are watched, and what they ask: a POST of one of the three wires becomes a `Watched`.

Strategy: the path ends as the wire's does and the body is a JSON object with a conversation. Whatever does
not look exactly so is none of our business and passes through untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..relay import Original
from ..route import Continuation, Route, Secret, Wire
from ..wire._json import NotJSON, dumps, loads, sequence, string
from ..wire.prompt import Request, from_input

__all__ = ["RETRIES", "Watched", "watched", "wire_of"]

RETRIES = "x-stainless-retry-count"  # in every request of the generated SDKs: how often it was sent before

# end of the path -> the wire, and the field with the conversation
_WIRES: dict[str, tuple[Wire, str]] = {
    "/chat/completions": ("chat", "messages"),
    "/responses": ("responses", "input"),
    "/messages": ("messages", "messages"),
}
# Fields that a `Request` has a place of its own for.
_APART = frozenset({"model", "stream", "tools"})
_KEYS = ("authorization", "x-api-key", "api-key")
_SCHEMES = ("bearer ", "basic ")


@dataclass(frozen=True, slots=True)
class Watched:
    """A call under somebody else's client.

    Attributes:
        streams: the client reads a stream; otherwise it wants the whole answer.
        retried: how often the client has sent it before.
    """

    route: Route
    request: Request
    original: Original
    streams: bool
    retried: int


def wire_of(method: str, url: str) -> str:
    """The wire that a request speaks by its path, or ""."""
    if method != "POST":
        return ""
    end = _end_of(urlsplit(url).path)
    return _WIRES[end][0] if end else ""


def _end_of(path: str) -> str:
    return next((end for end in _WIRES if path.endswith(end)), "")


def watched(
    url: str,
    headers: Mapping[str, str],
    data: bytes,
    *,
    continuation: Continuation | None = None,
    hold: bool = False,
) -> Watched | None:
    """What a POST to `url` asks; None if it is no call that we know.

    Args:
        headers: with names in lower case.
        continuation: how an answer is continued there; None leaves it to the provider table.
        hold: send it as a stream even if it does not ask for one.
    """
    parts = urlsplit(url)
    end = _end_of(parts.path)
    if not end:
        return None
    wire, field = _WIRES[end]
    try:
        body = loads(data)
        if not isinstance(body, dict) or (wire == "messages" and "max_tokens" not in body):
            return None
        turns = from_input(body.get(field))
    except (NotJSON, ValueError):
        return None
    streams = body.get("stream") is True
    if hold and not streams:
        body = _streamed(body, wire)
        data = dumps(body)
    tools = tuple(tool for tool in sequence(body.get("tools")) if isinstance(tool, dict))
    params = {name: value for name, value in body.items() if name not in _APART and name != field}
    base = parts._replace(path=parts.path.removesuffix(end)).geturl()
    try:
        route = Route(
            base,
            string(body.get("model")).strip() or "unnamed",
            wire,
            api_key=_key(headers),
            insecure=True,  # where the client sends its key is the client's affair
            continuation=continuation,
        )
    except ConfigError:
        return None
    retried = headers.get(RETRIES, "0")
    return Watched(
        route,
        Request(turns, "", tools, params),
        Original(data, body, field),
        streams,
        int(retried) if retried.isdecimal() else 0,
    )


def _streamed(body: dict[str, Any], wire: str) -> dict[str, Any]:
    more = {"stream_options": {"include_usage": True}} if wire == "chat" else {}
    return {**body, "stream": True, **more}


def _key(headers: Mapping[str, str]) -> Secret | None:
    """The credential, so that no message of ours shows it."""
    value = next((headers[name] for name in _KEYS if name in headers), "")
    for scheme in _SCHEMES:
        if value.lower().startswith(scheme):
            value = value[len(scheme) :]
    return Secret(value) if value else None
