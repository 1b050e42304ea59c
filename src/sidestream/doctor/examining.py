"""What a client's calls would get, without asking anybody.

Strategy: a task's row comes from the very call it would make (`Client._call`), a route's from what the
planner knows, from where its key is, and from what this process knows of its endpoint. So the doctor can be
wrong only where calls are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from ..client import AsyncClient, Client
from ..errors import ConfigError
from ..recovery.worst import worst_of
from ..route import Route
from ..routes.detect import remembered
from ..routes.environment import source_of, without_query
from ..routes.plan import Choice, Known
from ..routes.providers import facts_for, speaks
from ..routes.secrets import Kept, state_of
from .report import Health, Key, Report, RouteReport, TaskReport

__all__ = ["QUESTION", "AnyClient", "examine", "route_report", "task_report"]

AnyClient = Client | AsyncClient
QUESTION = "Answer with one word: hello."


def examine(client: AnyClient, *, task: str | None = None) -> Report:
    """What the client's calls would get. Nobody is asked; keys are looked for where calls look for them.

    Args:
        task: only this one, and the routes it asks.

    Raises:
        UsageError: there is no such task.
        ConfigError: a provider's file is damaged.
    """
    planner, now = client._planner, client._system.unix_time()
    tasks = tuple(task_report(client, name) for name in (("", *planner.tasks) if task is None else (task,)))
    known = planner.known(task)
    return Report(now, planner.config.files, tuple(route_report(client, each) for each in known), tasks)


# A task.

_SMALLEST_IMAGE = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAAC"


def task_report(client: AnyClient, name: str) -> TaskReport:
    said = client.task(name)
    asked: Any = QUESTION
    if name == "vision":
        picture = {"type": "image_url", "image_url": {"url": _SMALLEST_IMAGE}}
        asked = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, picture]}]
    report = TaskReport(name, concurrency=said.concurrency, atomic=bool(said.atomic))
    try:
        call = client._call(asked, "", (), Choice(name), None, None, {}, live=False)
    except ConfigError as error:
        return replace(report, problem=str(error), hint=error.hint)
    if call.nowhere is not None:
        return replace(report, problem=str(call.nowhere), hint=call.nowhere.hint)
    order = client._system.origins.in_order(call.routes)
    return replace(
        report,
        routes=tuple(route.name for route in order),
        skipped=call.skipped,
        timeouts=call.timeouts,
        worst=worst_of(call),
    )


# A route.


def route_report(client: AnyClient, known: Known) -> RouteReport:
    route = known.ready or known.route
    found = remembered(route, client._system.origins) if route.guessed else None
    facts = facts_for(route)
    return RouteReport(
        name=route.name,
        url=without_query(route.base_url),
        wire=found.wire if found else route.wire,
        wire_source=found.why if found else _who_says(known),
        guessed=route.guessed and not (found and found.sure),
        model=route.model,
        provider=known.provider,
        key=_key(known, client._planner._environ),
        headers=tuple(sorted(route.headers)),
        params=tuple(sorted(route.params)),
        rejects=tuple(sorted(route.rejects)),
        window=route.window,
        vision=route.vision,
        quality=route.quality,
        continuation=route.continuation or facts.continuation,
        resumes=facts.cursor is not None,
        concurrency=route.concurrency,
        clocks=route.clocks,
        health=_health(client, route),
        problem=str(known.problem or ""),
        hint=known.problem.hint if known.problem else "",
    )


def _who_says(known: Known) -> str:
    route = known.route
    found = speaks(route.base_url, route.model)
    if not known.chosen and found.wire == route.wire and found.sure:
        return found.why
    return found.why if route.guessed else "it is configured"


def _key(known: Known, environ: Any) -> Key:
    credential, route = known.credential, known.ready or known.route
    if credential is None:
        if route.api_key is None:
            return Key("", "none")
        return Key(source_of(route.api_key, environ) or "the program", "set")
    remark = getattr(credential, "remark", "")
    if known.ready is None:  # perhaps for another reason than its key
        kept = state_of(credential) if isinstance(credential, Kept) else "missing"
        return Key(credential.label, kept, remark=remark)
    state: Literal["set", "signed in"] = "set" if isinstance(credential, Kept) else "signed in"
    return Key(credential.label, state, route.expires, remark)


def _health(client: AnyClient, route: Route) -> Health:
    origins = client._system.origins
    state = next((each for each in origins.state() if each.origin == route.origin), None)
    if state is None:
        return Health()
    breaker = next((each for each in state.breakers if each.model == route.model), None)
    parked = origins.parked(route)
    learned = tuple(each for each in state.learned if each.model == route.model)
    return Health(breaker, parked.reason if parked else "", parked.retry_in if parked else 0.0, learned)
