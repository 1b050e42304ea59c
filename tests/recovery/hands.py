"""The flow driven by hand: outcomes as plain data in, the story of the call out.

An outcome is a function from an exchange and a time to an outcome; `whole`, `cut`, `reject` and the others
below make them. `drive` plays them one after the other and writes down what the flow asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidestream.errors import Cancelled, SidestreamError
from sidestream.recovery.exchange import Exchange
from sidestream.recovery.faults import Fault, FaultKind
from sidestream.recovery.flow import (
    Broke,
    Call,
    Dismiss,
    Outcome,
    Queue,
    Rejected,
    Renew,
    Renewed,
    Send,
    Sleep,
    Stopped,
    Tell,
    Woke,
    flow,
)
from sidestream.recovery.origins import Origins
from sidestream.recovery.queues import Queues
from sidestream.reply import Reply
from sidestream.route import Route
from sidestream.wire.events import Recovering, StreamEvent
from streams import Stream, attempt

Play = Callable[[Exchange, float], tuple[list[StreamEvent], Outcome]]


@dataclass
class Story:
    """What happened: the actions in one word each, their details, and how it ended."""

    actions: list[str] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    sleeps: list[float] = field(default_factory=list)
    notices: list[Recovering] = field(default_factory=list)
    seen: list[tuple[Exchange, list[StreamEvent]]] = field(default_factory=list)
    reply: Reply | None = None
    error: SidestreamError | Cancelled | None = None

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(send.body) for send in self.sends]

    @property
    def ledger(self) -> list[tuple[str, str, str]]:
        ended = self.reply or self.error
        assert ended is not None
        return [(attempt.route, attempt.rung, attempt.ended) for attempt in ended.attempts]


def drive(
    call: Call,
    plays: Sequence[Play],
    *,
    jitter: Callable[[], float] = lambda: 0.5,
    seconds: Callable[[], float] = lambda: 1.0,
    stop_in: str = "",
    unix_time: float = 1000.0,
    see: Callable[[Send], None] = lambda _: None,
    origins: Origins | None = None,
    queues: Queues | None = None,
    renew: Callable[[Renew], Route | str] = lambda _: "",
    turn: Callable[[Queue], float] = lambda action: action.seconds,
) -> Story:
    """Play `plays` in order, the last one again and again; each attempt takes `seconds()`.

    `stop_in` names the kind of action ("sleep", "tell", "queue", "renew") that is answered with a cancel;
    `see` is shown each request before it is played. `renew` says what comes of a renewal: a route, or why
    there is none; `turn` for how many seconds a turn is waited for, and may make it come up.
    """
    story, at, plan = Story(), 0.0, list(plays)
    going = flow(call, now=at, unix_time=unix_time, random=jitter, origins=origins, queues=queues)
    outcome: Outcome | None = None
    try:
        while True:
            action = going.send(outcome) if outcome else next(going)
            if isinstance(action, Send):
                story.actions.append(f"send {action.route.name}")
                story.sends.append(action)
                story.sent_at.append(at)
                at += seconds()
                see(action)
                play = plan.pop(0) if len(plan) > 1 else plan[0]
                seen, outcome = play(action.exchange, at)
                story.seen.append((action.exchange, seen))
                continue
            kind = type(action).__name__.lower()
            if isinstance(action, Dismiss):
                story.actions.append(f"dismiss {action.target}")
            elif isinstance(action, Sleep):
                story.actions.append(f"sleep {action.seconds:g}")
                story.sleeps.append(action.seconds)
                at += action.seconds
            elif isinstance(action, Queue):
                story.actions.append(f"queue {action.seconds:g}")
                at += turn(action)
            elif isinstance(action, Renew):
                story.actions.append(f"renew {action.route.name} {action.seconds:g}")
                if kind != stop_in:
                    found = renew(action)
                    at += seconds()
                    route, why = (None, found) if isinstance(found, str) else (found, "")
                    outcome = Renewed(route, why, at)
                    continue
            else:
                assert isinstance(action, Tell)
                story.actions.append(f"tell {action.notice.rung}")
                story.notices.append(action.notice)
            outcome = Stopped("cancel", at) if kind == stop_in else Woke(at)
    except StopIteration as end:
        story.reply = end.value
    except (SidestreamError, Cancelled) as error:
        story.error = error
    return story


# What may come of an attempt.


def whole(stream: Stream) -> Play:
    return lambda exchange, at: attempt(exchange, [stream.data], at)


def chunked(chunks: Iterable[bytes], outcome: Callable[[float], Outcome] | None = None) -> Play:
    kept = list(chunks)
    return lambda exchange, at: attempt(exchange, kept, at, outcome(at) if outcome else None)


def cut(stream: Stream, at_byte: int, kind: FaultKind = FaultKind.DROPPED) -> Play:
    """The stream breaks after so many bytes."""
    return chunked([stream.data[:at_byte]], lambda at: Broke(Fault(kind, "cut", clock="idle"), at))


def clean_end(stream: Stream, at_byte: int) -> Play:
    """The body ends there, as if all were well."""
    return chunked([stream.data[:at_byte]])


def broke(kind: FaultKind, **details: Any) -> Play:
    """Nothing arrives at all."""
    return chunked([], lambda at: Broke(Fault(kind, **details), at))


def reject(status: int, body: Any = "", **headers: str) -> Play:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _, at: ([], Rejected(status, named, data, at))


def stopped(chunks: Iterable[bytes] = (), kind: str = "cancel") -> Play:
    return chunked(chunks, lambda at: Stopped(kind, at))  # type: ignore[arg-type]
