"""`sidestream doctor`: every route and every task, what each call would get, and whether that works.

What is looked at is in `sidestream.doctor`; here it becomes text. Nobody is asked without `--live`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import msgspec

from .. import doctor as doctors
from ..client import Client
from ..doctor import Health, Key, Live, Report, RouteReport, TaskReport
from ..doctor.live import SECONDS
from .options import SECONDS as A_NUMBER
from .options import output_options
from .shapes import as_json
from .terminal import Story, printable, write

__all__ = ["doctor"]

UNHEALTHY = 7
_NAME = "(no task)"


@click.command(short_help="Check routes, keys and tasks; --live calls each route once.")
@click.option("--live", is_flag=True, help="Make one tiny real call to every route: a few tokens each.")
@click.option("--task", metavar="NAME", help="Only this task, and the routes it asks.")
@click.option("--timeout", type=A_NUMBER, default=SECONDS, help=f"For each real call.  [{SECONDS:g}]")
@output_options
def doctor(live: bool, task: str | None, timeout: float, json: bool, quiet: bool) -> None:
    """Show every route (endpoint, wire, key, limits, health) and what the calls of every task would get.

    Of a key only its place is shown. Exit code 7 if a route cannot be used, or a task has none.
    """
    story = Story(quiet or json)
    with Client() as client:
        if live:
            with story.waiting("calling every route"):
                report = doctors.check(client, task=task, seconds=timeout)
        else:
            report = doctors.examine(client, task=task)
    if json:
        write(as_json(_plain(report)))
    else:
        write(printable("\n".join(_lines(report))) + "\n")
        _conclude(story, report, live=live)
    if not report.healthy:
        raise SystemExit(UNHEALTHY)


def _plain(report: Report) -> dict[str, Any]:
    """The report as it is, and what follows from it."""
    plain: dict[str, Any] = msgspec.to_builtins(report)
    for route, said in zip(plain["routes"], report.routes, strict=True):
        route["usable"] = said.usable
    for task, row in zip(plain["tasks"], report.tasks, strict=True):
        if row.worst is not None:
            task["worst"]["requests"] = row.worst.requests
    return {"healthy": report.healthy, **plain}


def _conclude(story: Story, report: Report, *, live: bool) -> None:
    bad = [route.name for route in report.routes if not route.usable]
    without = [task.name or _NAME for task in report.tasks if task.problem]
    if bad:
        story.say(f"✗ cannot be used: {', '.join(bad)}", "red")
    if without:
        story.say(f"✗ without a route: {', '.join(without)}", "red")
    if report.healthy:
        story.say("✓ nothing wrong" + ("" if live else "; --live calls every route once"), "green")


# As text.


def _lines(report: Report) -> Iterator[str]:
    for route in report.routes:
        yield f"{route.name}  {'' if route.usable else '✗'}".rstrip()
        yield from (f"  {what:<10} {said}" for what, said in _route(route, report.at) if said)
        yield ""
    yield from _table(report.tasks)
    if any(task.worst and task.worst.requests > task.worst.attempts for task in report.tasks):
        yield "(+n): again at once, without a field that is rejected, with another key or on another wire"
    for task in report.tasks:
        if task.problem:
            hint = f" ({task.hint})" if task.hint and "doctor" not in task.hint else ""
            yield f"✗ {task.name or _NAME}: {task.problem}{hint}"
    for said in dict.fromkeys(said for task in report.tasks for said in task.skipped):
        of = [task.name or _NAME for task in report.tasks if said in task.skipped]
        yield f"left out: {said}" + ("" if len(of) == len(report.tasks) else f"  [{', '.join(of)}]")


def _route(route: RouteReport, now: float) -> Iterator[tuple[str, str]]:
    """A route's rows; those without anything to say are left out."""
    yield "endpoint", " · ".join(filter(None, (route.url, route.provider)))
    guess = "; a guess until it is asked" if route.guessed else ""
    yield "wire", f"{route.wire} ({route.wire_source}{guess})"
    yield "model", _model(route)
    yield "key", _key(route.key, now)
    if route.problem:
        yield "✗", f"{route.problem}{f' ({route.hint})' if route.hint else ''}"
    cursor = ", or read again from a cursor" if route.resumes else ""
    yield "continues", f"{_CONTINUES.get(route.continuation or '', route.continuation)}{cursor}"
    yield "headers", ", ".join(route.headers)
    yield "sends", ", ".join(route.params)
    yield "not sent", ", ".join(route.rejects)
    yield "limits", _limits(route)
    yield "health", _health(route.health)
    if route.live:
        yield from _live(route.live)


_CONTINUES = {"anchor": "by a turn that asks for the rest (anchor)", "none": "not at all: it is asked anew"}


def _model(route: RouteReport) -> str:
    window = f"window {route.window:,}" if route.window else "window unknown"
    sight = {True: "reads images", False: "reads no images", None: "images unknown"}[route.vision]
    quality = f"quality {route.quality}" if route.quality else ""
    return " · ".join(filter(None, (route.model, window, sight, quality)))


def _key(key: Key, now: float) -> str:
    if key.state == "none":
        return "none"
    until = "" if key.expires is None else f", {_expiry(key.expires - now)}"
    return f"{key.source} ({key.state}{until}{f'; {key.remark}' if key.remark else ''})"


def _expiry(seconds: float) -> str:
    if seconds <= 0:
        return "has expired: the next call renews it"
    hours, minutes = divmod(int(seconds) // 60, 60)
    days, hours = divmod(hours, 24)
    left = f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min"
    return f"is renewed in {left}"


def _limits(route: RouteReport) -> str:
    clocks = route.clocks
    said = [(name, getattr(clocks, name)) for name in ("total", "first", "idle", "connect")] if clocks else []
    at_once = f"{route.concurrency} at once" if route.concurrency else ""
    return " · ".join(filter(None, (at_once, *(f"{name} {value:g} s" for name, value in said if value))))


def _health(health: Health) -> str:
    breaker = health.breaker
    parts = [
        f"the breaker is {breaker.state}: {breaker.reason}" if breaker and breaker.reason else "",
        f"asked last for {health.parked_for:.0f} s: {health.parked}" if health.parked else "",
        *(f"learned: {fact.what} ({fact.reason})" for fact in health.learned),
    ]
    return "; ".join(filter(None, parts))


def _live(live: Live) -> Iterator[tuple[str, str]]:
    yield "probe", live.found
    if not live.ok:
        yield "✗ live", f"{live.error}: {live.message}{f' ({live.hint})' if live.hint else ''}"
        return
    first = "no output" if live.first is None else f"first output after {live.first:.2f} s"
    attempts = f", {live.attempts} attempts" if live.attempts > 1 else ""
    known = live.input_tokens is not None and live.output_tokens is not None
    tokens = f"{live.input_tokens} + {live.output_tokens} tokens" if known else "tokens unknown"
    model = live.model or "model unknown"
    yield "✓ live", f"{first}, {live.seconds:.2f} s in all{attempts} · {model} · {tokens}"


def _table(tasks: tuple[TaskReport, ...]) -> Iterator[str]:
    head = ("task", "asks in this order", "at most", "requests", "at once")
    rows = [head, *(_row(task) for task in tasks)]
    wide = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip()


def _row(task: TaskReport) -> tuple[str, str, str, str, str]:
    worst = task.worst
    if worst is None:
        return (task.name or _NAME, "✗ nothing", "-", "-", "-")
    more = worst.mending + worst.polls
    requests = f"{worst.attempts} (+{more})" if more else str(worst.attempts)
    at_once = str(task.concurrency or "any")
    return (task.name or _NAME, ", ".join(task.routes), f"{worst.seconds:g} s", requests, at_once)
