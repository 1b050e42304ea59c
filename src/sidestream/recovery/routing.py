"""The routes of one call: which is asked, which are still open, and what each is sent. Pure.

Strategy: routes stand in the order they are asked; what is parked stands last. A fault has a scope, and
routes that share what failed are passed over: another key does not help an overloaded model, another model
does not help a key without quota. While further routes are open, silence on one may only use its share of
what is left of the call, so that the last always has its turn. Each route is asked in its own words: its own
fields beside the caller's, without those it rejects, whether the provider table, an earlier call or this one
found that out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from ..route import Route, Scope, Wire
from ..wire.prompt import Request, one_meaning
from .clocks import Clocks, Timeouts
from .continuing import OUTPUT_LIMITS
from .exchange import WIRES
from .faults import Fault, FaultKind, one_line
from .origins import Origins

__all__ = ["Routing"]

# A provider that says how many tokens the account still pays for gets a limit a little below, if that is
# worth an answer.
_CAN_AFFORD = re.compile(r"can only afford (\d{1,9})\b")
_SPARED, _LEAST_AFFORDED = 64, 512
# How long a part of a route is parked when the provider does not say, and at most.
_PARKED_FOR: dict[FaultKind, float] = {
    FaultKind.AUTH: 600.0,
    FaultKind.QUOTA: 600.0,
    FaultKind.THROTTLED: 30.0,
}
_LONGEST_PARK = 3600.0
# What an endpoint answers at a path that is not there, unless it speaks of a model.
_NOTHING_THERE = (404, 405)
_MODEL_CODES = frozenset(
    {"model_not_found", "model_not_supported", "unsupported_model", "deployment_not_found"}
)
_WIRES_BY_USE: tuple[Wire, ...] = ("chat", "messages", "responses")
# Fields that hold a part of the conversation: a request without them would be another one.
_NEEDED = frozenset({"conversation", "instructions", "previous_response_id", "prompt", "system"})


class Routing:
    """Where a call stands among its routes.

    Attributes:
        routes: in the order they are asked; a renewed key replaces its route.
        at: the number of the route that is asked.
    """

    def __init__(
        self,
        routes: tuple[Route, ...],
        request: Request,
        origins: Origins,
        now: float,
        deadline: float,
        *,
        verbatim: bool = False,
    ) -> None:
        self.routes = [_rewired(route, origins) for route in origins.in_order(routes)]
        self.at = 0
        self._origins = origins
        self._deadline = deadline
        self._failed: list[tuple[str, ...]] = []
        self._dropped: set[tuple[int, str]] = set()
        self._caps: dict[int, int] = {}
        self._wires: dict[int, list[Wire]] = {}  # route -> wires that are not there
        self._renewals: dict[int, str] = {}  # route -> why its key could not be renewed
        self._before: dict[int, Route] = {}  # route -> the same with the key that was renewed
        self._asked_for: dict[int, Request] = {}
        self._request = request
        self._verbatim = verbatim  # it is another client's request, and its own affair
        self.begin(now)

    @property
    def route(self) -> Route:
        return self.routes[self.at]

    # Which is next.

    def following(self, fault: Fault) -> tuple[int, ...]:
        """The numbers of the routes that are open after this fault, in order."""
        gone = self._parts(fault)
        return tuple(number for number in self._further() if not _shares(self.routes[number], gone))

    def _further(self) -> Iterator[int]:
        """The numbers of the routes that come after this one and share nothing that failed."""
        further = range(self.at + 1, len(self.routes))
        return (number for number in further if not _shares(self.routes[number], self._failed))

    def _parts(self, fault: Fault) -> list[tuple[str, ...]]:
        """What of the current route failed; with a key that was renewed, the one before it as well."""
        before = self._before.get(self.at)
        routes = (self.route, before) if before and fault.scope == "credential" else (self.route,)
        return [route.part(fault.scope) for route in routes]

    def move(self, fault: Fault, now: float) -> None:
        """Go to the next route that is open after this fault."""
        following = self.following(fault)
        self._failed += self._parts(fault)
        self.at = following[0]
        self.begin(now)

    # How long.

    def begin(self, now: float) -> None:
        """The current route gets its share of the remaining time, from now on."""
        own = self.route.clocks
        self._ends = now + own.total if own and own.total else math.inf
        self.share(now)

    def share(self, now: float) -> None:
        """The current route gave a sign of life: its share is measured anew."""
        models = {self.routes[number].part("model") for number in self._further()}
        left = len(models - {self.route.part("model")})  # silence is the model's: no other key helps
        self._until = now + max(0.0, self._deadline - now) / (left + 1) if left else math.inf

    def clocks(self, timeouts: Timeouts, now: float, prompt_chars: int) -> Clocks:
        """What an attempt on the current route gets."""
        deadline = min(self._deadline, self._ends)
        return timeouts.clocks(now, deadline, prompt_chars, self._until, self.route.clocks)

    def remaining(self, now: float) -> float:
        """Seconds until this route's share, and its own total, are used up."""
        return min(self._deadline, self._ends, self._until) - now

    def turn(self, now: float) -> float:
        """Seconds until something else is tried in place of a turn, or another key, here. Other than with
        silence, further keys of the same model may help."""
        further = sum(1 for _ in self._further())
        return max(0.0, min(self.remaining(now), (self._deadline - now) / (further + 1)))

    def is_own_end(self, fault: Fault, at: float) -> bool:
        """Whether a deadline that passed was this route's and not the call's."""
        return fault.kind is FaultKind.DEADLINE and self._ends < self._deadline and at < self._deadline

    # What it is sent.

    def request(self, number: int | None = None) -> Request:
        """What is asked of a route: the caller's request in its words."""
        number = self.at if number is None else number
        if number not in self._asked_for:
            self._asked_for[number] = self._in_words_of(number)
        return self._asked_for[number]

    def _in_words_of(self, number: int) -> Request:
        route, given = self.routes[number], self._request.params
        if self._verbatim:
            return self._request
        params = one_meaning(route.params, given)
        if (cap := self._caps.get(number)) is not None:
            params = one_meaning(params, {"max_output_tokens": cap})
        renamed = {route.renames.get(name, name): value for name, value in params.items()}
        kept = {name: value for name, value in renamed.items() if not self._is_rejected(number, name)}
        if kept == given:
            return self._request
        return Request(self._request.messages, self._request.instructions, self._request.tools, kept)

    def _is_rejected(self, number: int, name: str) -> bool:
        route = self.routes[number]
        return (number, name) in self._dropped or any(
            each in route.rejects or self._origins.learned(route, f"no {each}")
            for each in _same_field(name, route)
        )

    def drop(self, fault: Fault) -> bool:
        """Leave out what this fault complains about, on this route and from now on. False if it is nothing
        that was sent, or was left out already."""
        if self._verbatim:
            return False
        if fault.kind is FaultKind.QUOTA:
            return self._afford(fault)
        given = self._objected(fault)
        if not given:
            return False
        self._dropped.add((self.at, given))
        self._asked_for.pop(self.at, None)
        self._origins.learn(self.route, f"no {given}", fault.detail)
        return True

    def _objected(self, fault: Fault) -> str:
        """The field of the request that this fault complains about, "" if it is none that can go."""
        params = self.request().params
        names = _other_names(fault.param.split(".")[0].split("[")[0], self.route)
        given = next((name for name in names if name in params), "")
        return "" if fault.kind is not FaultKind.PARAMETER or given in _NEEDED else given

    def is_ours(self, fault: Fault) -> bool:
        """Whether it complains about what is asked there anyway, whichever way."""
        return not self._verbatim and bool(self._objected(fault))

    def _afford(self, fault: Fault) -> bool:
        """Ask for no more output than the account still pays for."""
        told = _CAN_AFFORD.search(fault.detail)
        cap = int(told[1]) - _SPARED if told else 0
        limits = [self.request().params.get(name) for name in OUTPUT_LIMITS]
        asked = [limit for limit in limits if isinstance(limit, int)]
        if self.at in self._caps or cap < _LEAST_AFFORDED or any(limit <= cap for limit in asked):
            return False
        self._caps[self.at] = cap
        self._asked_for.pop(self.at, None)
        return True

    # On which wire.

    def rewire(self, fault: Fault) -> bool:
        """Try another wire, if this one was a guess and there is nothing at its path."""
        missing = fault.kind is FaultKind.NOT_FOUND and fault.status in _NOTHING_THERE
        if self._verbatim or not (missing and self.route.guessed) or _speaks_of_a_model(fault):
            return False
        tried = self._wires.setdefault(self.at, [])
        tried.append(self.route.wire)
        wire = next((wire for wire in _WIRES_BY_USE if wire not in tried), None)
        self.routes[self.at] = replace(self.route, wire=wire or tried[0])  # the first again: all are wrong
        self._asked_for.pop(self.at, None)
        return wire is not None

    # With which key.

    def must_renew(self, unix_time: float) -> bool:
        """Whether the current route's key has to be renewed before it is used."""
        expires = self.route.expires
        return expires is not None and unix_time >= expires and self.may_renew()

    def may_renew(self) -> bool:
        """Whether there may be another key for the current route: asked once per call and route."""
        return self.route.credential is not None and self.at not in self._renewals

    def renewed(self, route: Route | None, why: str) -> None:
        """What came of it."""
        self._renewals[self.at] = "" if route else one_line(why) or "there is no other key"
        if route is not None:
            self._before[self.at] = self.route
            self.routes[self.at] = route
            self._asked_for.pop(self.at, None)

    def not_renewed(self) -> str:
        """Why the current route's key could not be renewed, "" if that was not tried or worked."""
        return self._renewals.get(self.at, "")

    def without_credentials(self, text: str) -> str:
        """The text with the credentials of all routes of this call blanked, replaced ones included."""
        for route in (*self.routes, *self._before.values()):
            text = route.without_credentials(text)
        return text

    # What the next calls should know.

    def remember(self, fault: Fault) -> None:
        """Park what this fault says is of no use for a while."""
        usual = _PARKED_FOR.get(fault.kind)
        if usual is not None:
            seconds = usual if fault.retry_after is None else min(fault.retry_after, _LONGEST_PARK)
            self._origins.park(self.route, fault.scope, seconds, str(fault))

    def worked(self) -> None:
        """The current route answered."""
        self._origins.unpark(self.route)
        if self.route.guessed:
            self._origins.learn(wire_key(self.route), "wire", self.route.wire)


def _rewired(route: Route, origins: Origins) -> Route:
    """The route on the wire that an earlier call found there."""
    found: Any = origins.learned(wire_key(route), "wire") if route.guessed else ""
    return replace(route, wire=found) if found and found != route.wire else route


def _other_names(name: str, route: Route) -> tuple[str, ...]:
    """What a field that an endpoint calls `name` may be called in a request: a router may speak of the field
    of another wire."""
    own = {new: old for old, new in route.renames.items()}.get(name, name)
    return (name, *_same_field(own, route))


def _same_field(name: str, route: Route) -> tuple[str, ...]:
    """What fills the same field on a route's wire, whichever wire's word it is."""
    renamed = WIRES[route.wire].RENAMED
    return (name, *renamed.get(name, ()), *(here for here, others in renamed.items() if name in others))


def wire_key(route: Route) -> Route:
    """Under what the wire of an endpoint and model is remembered, whichever it is."""
    return replace(route, wire="chat")


def _speaks_of_a_model(fault: Fault) -> bool:
    return fault.code in _MODEL_CODES or "model" in fault.detail.lower()


def _shares(route: Route, parts: Iterable[tuple[str, ...]]) -> bool:
    """Whether one of these is a part of this route, too."""
    return any(route.part(_scope(part)) == part for part in parts)


def _scope(part: tuple[str, ...]) -> Scope:
    scope: Scope = part[0]  # type: ignore[assignment]  # what `Route.part` puts first
    return scope
