"""What the doctor says of a client: plain values, without a secret. Pure.

Of a key they have its place, of a header its name, of an address no query. Their names are those of
`sidestream doctor --json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..recovery.clocks import Timeouts
from ..recovery.origins import BreakerState, Learned
from ..recovery.worst import Worst
from ..route import Continuation, RouteClocks, Wire

__all__ = ["Health", "Key", "Live", "Report", "RouteReport", "TaskReport"]


@dataclass(frozen=True, slots=True)
class Key:
    """Where a route's key comes from, and whether it is there.

    Attributes:
        source: for people, such as "env OPENAI_API_KEY"; "" if the route has none.
        state: "set", "signed in", "missing" (nothing is there), "unusable" (something is, and it is no key),
            or "none" (the route has no key and wants none).
        expires: Unix time in seconds from which it is renewed before it is used, None if it does not expire.
        remark: what people should know about that place.
    """

    source: str
    state: Literal["set", "signed in", "missing", "unusable", "none"]
    expires: float | None = None
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """What this process knows of a route, from the calls it has made.

    Attributes:
        breaker: the breaker of the model there; None before the first call.
        parked: why the route is asked after others for a while, "" if it is not; `parked_for`: seconds.
        learned: what was found out about it, such as fields that it rejects.
    """

    breaker: BreakerState | None = None
    parked: str = ""
    parked_for: float = 0.0
    learned: tuple[Learned, ...] = ()


@dataclass(frozen=True, slots=True)
class Live:
    """What came of a real call. Times are seconds.

    Attributes:
        ok: it was answered.
        attempts: HTTP exchanges it took.
        first: until the first output, None if there was none.
        status, model, input_tokens, output_tokens: as the provider reports them.
        error: the type of the error that ended it, "" for none; `message` and `hint` are its words.
        found: which wire the endpoint speaks, if it had to be asked.
    """

    ok: bool
    attempts: int
    seconds: float
    first: float | None = None
    status: str = ""
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    error: str = ""
    message: str = ""
    hint: str = ""
    found: str = ""


@dataclass(frozen=True, slots=True)
class RouteReport:
    """A route that is configured, or that a call may ask.

    Attributes:
        url: the endpoint, without a query.
        wire_source: who says that it speaks this wire.
        guessed: nobody does.
        provider: whose endpoint it is, "" if nobody knows.
        headers: names of further headers. params: names of fields that every request has.
        window, vision, quality, concurrency, clocks: as in `Route`.
        continuation: how a broken answer is continued here.
        resumes: whether the provider sends a stored stream again from an event.
        rejects: fields that are never sent here.
        problem: why it cannot be used, "" if it can; `hint`: what to do about it.
        live: what came of a real call, None if there was none.
    """

    name: str
    url: str
    wire: Wire
    wire_source: str
    guessed: bool
    model: str
    provider: str
    key: Key
    headers: tuple[str, ...]
    params: tuple[str, ...]
    rejects: tuple[str, ...]
    window: int | None
    vision: bool | None
    quality: int
    continuation: Continuation | None
    resumes: bool
    concurrency: int | None
    clocks: RouteClocks | None
    health: Health
    problem: str = ""
    hint: str = ""
    live: Live | None = None

    @property
    def usable(self) -> bool:
        """Whether a call can use it, as far as that was looked at."""
        return not self.problem and (self.live is None or self.live.ok)


@dataclass(frozen=True, slots=True)
class TaskReport:
    """What a call of a task gets.

    Attributes:
        name: "" for calls that are for no task.
        routes: names, in the order they are asked now.
        skipped: what is left out, each with why.
        timeouts: its clocks. worst: the time and the requests it takes at most. None if it has no route.
        concurrency: calls under way at once, None for any number.
        problem: why there is no route, "" if there is one; `hint`: what to do about it.
    """

    name: str
    routes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    timeouts: Timeouts | None = None
    worst: Worst | None = None
    concurrency: int | None = None
    atomic: bool = False
    problem: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything. `files`: the configuration files that were read; `at`: Unix time in seconds."""

    at: float
    files: tuple[str, ...]
    routes: tuple[RouteReport, ...]
    tasks: tuple[TaskReport, ...]

    @property
    def healthy(self) -> bool:
        """Whether every route can be used and every task has one."""
        return all(route.usable for route in self.routes) and not any(task.problem for task in self.tasks)
