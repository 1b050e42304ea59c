"""Which wire an endpoint speaks, found out by asking it: once, with nothing that costs anything.

Strategy: what is configured is not doubted, and what URL and model say (`providers.speaks`) needs no
question. Of any other endpoint a few requests tell. `probe` is a generator like the flow: it yields
questions, is sent answers and returns what they mean, so that it is tested with plain values. The list of
models has the look of its wire; an empty request to the path of a wire is refused as malformed where that
path exists, and is not found where it does not. Nothing else counts as a sign: a login page or a busy server
proves nothing. Then it is Chat, with the reason why nobody knows better.

`detect` and `adetect` put the questions by an `ask` they are given. All go to the route's own origin, and a
redirect is an answer, not a way. What a server answered is remembered for its endpoint (`Origins`); that it
was busy or could not be reached is not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args
from urllib.parse import urlsplit

from ..net.common import FAILURES
from ..recovery.origins import Origins
from ..recovery.routing import wire_key
from ..route import Route, Wire
from ..wire._json import NotJSON, loads, mapping, sequence, string
from .providers import Found

__all__ = [
    "SECONDS",
    "Answer",
    "Ask",
    "AsyncAsk",
    "Question",
    "adetect",
    "as_found",
    "detect",
    "probe",
    "remembered",
]

SECONDS = 10.0  # for all questions together

# Status, headers with names in lower case, and the beginning of the body.
Answer = tuple[int, Mapping[str, str], bytes]
# Sends a request as the route does: route, method, target, body. It follows no redirect.
Ask = Callable[[Route, str, str, bytes], Answer]
AsyncAsk = Callable[[Route, str, str, bytes], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Question:
    """One request. `route` says how its key is sent, and where to; `target` is path and query."""

    route: Route
    method: str
    target: str
    body: bytes


Asking = Generator[Question, Answer | None, tuple[Found, bool]]


def remembered(route: Route, origins: Origins) -> Found | None:
    """What this process found out about the route's endpoint and model, whatever wire the route has."""
    place = wire_key(route)
    for added in _ADDED:
        wire: Any = origins.learned(place, f"wire{added}")
        if wire in get_args(Wire):
            return Found(wire, _with_path(route.base_url, added), "found out earlier")
    why = origins.learned(place, _UNKNOWN)
    return Found("chat", route.base_url, why, sure=False) if why else None


def detect(
    route: Route, ask: Ask, origins: Origins, *, clock: Callable[[], float], seconds: float = SECONDS
) -> Found:
    """Which wire the route's endpoint speaks: from memory, or asked and remembered.

    Args:
        route: on whichever wire. Its key goes with every question, and to its own origin only.
        clock: monotonic seconds. No question is put after `seconds`; how long one may take is for `ask`.
    """
    if found := remembered(route, origins):
        return found
    asking = _within(probe(route), clock, seconds)
    try:
        question = next(asking)
        while True:
            question = asking.send(ask(question.route, question.method, question.target, question.body))
    except StopIteration as end:
        return _remember(route, end.value, origins)
    except FAILURES as error:
        return _unreachable(route, error)


async def adetect(
    route: Route, ask: AsyncAsk, origins: Origins, *, clock: Callable[[], float], seconds: float = SECONDS
) -> Found:
    """As `detect`."""
    if found := remembered(route, origins):
        return found
    asking = _within(probe(route), clock, seconds)
    try:
        question = next(asking)
        while True:
            question = asking.send(await ask(question.route, question.method, question.target, question.body))
    except StopIteration as end:
        return _remember(route, end.value, origins)
    except FAILURES as error:
        return _unreachable(route, error)


def _within(asking: Asking, clock: Callable[[], float], seconds: float) -> Asking:
    """The same questions, as long as there is time for them."""
    until = clock() + seconds
    try:
        question = next(asking)
        while True:
            question = asking.send((yield question) if clock() < until else None)
    except StopIteration as end:
        found: tuple[Found, bool] = end.value
        return found


def as_found(route: Route, found: Found) -> Route:
    """The route with the wire and the endpoint that were found."""
    return replace(route, wire=found.wire, base_url=found.base_url, guessed=not found.sure)


_UNKNOWN = "wire unknown"
_ADDED = ("", "/v1")  # what the endpoint needs behind its base URL


def _remember(route: Route, outcome: tuple[Found, bool], origins: Origins) -> Found:
    """Under the fact "wire", which a call reads that has to guess, and writes when its guess was right."""
    found, lasting = outcome
    if lasting and not found.sure:
        origins.learn(wire_key(route), _UNKNOWN, found.why)
    elif lasting:
        added = "" if found.base_url == route.base_url else _ADDED[-1]
        origins.learn(wire_key(route), f"wire{added}", found.wire)
        origins.learn(wire_key(as_found(route, found)), "wire", found.wire)
    return found


def _unreachable(route: Route, error: Exception) -> Found:
    why = f"nothing is known of this endpoint, and asking it failed: {type(error).__name__}"
    return Found("chat", route.base_url, why, sure=False)


def _with_path(base_url: str, added: str) -> str:
    url = urlsplit(base_url)
    return url._replace(path=url.path.rstrip("/") + added).geturl() if added else base_url


# The questions, and what the answers mean.

_GONE = frozenset({404, 405, 410, 501})  # there is no such path
_THERE = frozenset({400, 401, 403, 411, 413, 415, 422})  # there is, and it wants more than nothing
# Chat first: nearly everybody speaks it. Anthropic's base URLs come with and without a version.
_ORDER: tuple[tuple[Wire, str], ...] = (
    ("chat", ""),
    ("messages", ""),
    ("messages", "/v1"),
    ("responses", ""),
)


def probe(route: Route) -> Asking:
    """The questions, at most five; None for an answer means that there is no time left.

    Returns:
        what the endpoint speaks (not sure, and Chat, if its answers do not tell), and whether that will last:
        a server that is busy may answer otherwise soon.
    """
    heard: list[str] = []
    lasting = True
    order = _ORDER
    answer = yield Question(route, "GET", _target(route, "/models"), b"")
    if answer is not None:
        heard.append(f"GET /models {answer[0]}")
        if _look(answer) == "messages":
            order = (*_ORDER[1:3], _ORDER[0], _ORDER[3])
    for wire, added in order:
        asked = replace(route, wire=wire, base_url=_with_path(route.base_url, added))
        answer = None if answer is None else (yield Question(asked, "POST", asked.target, b"{}"))
        if answer is None:
            lasting = False
            break
        heard.append(f"POST {added}{_PATHS[wire]} {answer[0]}")
        lasting = lasting and answer[0] < 500 and answer[0] not in (408, 429)
        if _is_there(answer, wire):
            return Found(wire, asked.base_url, f"asked: {', '.join(heard)}"), True
    told = f"nothing is known of this endpoint; asked: {', '.join(heard) or 'nothing, there was no time'}"
    return Found("chat", route.base_url, told, sure=False), lasting


_PATHS: dict[Wire, str] = {"chat": "/chat/completions", "messages": "/messages", "responses": "/responses"}


def _target(route: Route, path: str) -> str:
    url = urlsplit(route.base_url)
    target = url.path.rstrip("/") + path
    return f"{target}?{url.query}" if url.query else target


def _is_there(answer: Answer, wire: Wire) -> bool:
    """Whether the path of a wire exists: an empty request was understood well enough to be refused.

    A server may ask for the key before it looks at the path. Then only the words in which it does tell.
    """
    status, headers, _ = answer
    if "html" in headers.get("content-type", "").lower():
        return False
    look = _look(answer)
    if status in (401, 403):
        return (look == "messages") is (wire == "messages") and (look is not None or wire == "chat")
    if status in _GONE or (status not in _THERE and not 200 <= status < 300):
        return False
    return look is None or (look == "messages") is (wire == "messages")


def _look(answer: Answer) -> Wire | None:
    """Whose words an answer is in, "chat" for all that look as OpenAI's; None if it could be anybody's."""
    _, headers, body = answer
    try:
        said = mapping(loads(body))
    except NotJSON:
        return None
    first = mapping(next(iter(sequence(said.get("data"))), None))
    if first.get("type") == "model" or "first_id" in said:
        return "messages"
    if said.get("type") == "error" and string(mapping(said.get("error")).get("type")):
        return "messages"
    if any(name.startswith("anthropic-") for name in headers):
        return "messages"
    error = mapping(said.get("error"))
    if (
        said.get("object") == "list"
        or first.get("object") == "model"
        or ("type" in error and "code" in error)
    ):
        return "chat"
    return None
