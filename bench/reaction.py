"""How fast a broken stream goes on, by each way back; and how fast a cancel stops a call, in each phase.

    python bench/reaction.py [--size smoke|short|full] [--json FILE]

A call reads an answer whose events come one by one; the stream is cut inside a chunk, each time elsewhere.
The lab notes the instant before the FIN leaves and the instant the next request is complete; the client, when
the first character behind the cut is in the caller's hands. Once without a backoff, which shows what
sidestream itself takes, and once with the default one, which is what a user waits. Client and lab are threads
of one process on plain HTTP. Cancels are in stopping.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from openai import AsyncOpenAI, OpenAI

import sidestream
import stopping
from hazard import BACKS, text_of, tokens_of
from sidestream import AsyncClient, Backoff, Client, Policy, Route, TextDelta
from sidestream.drivers import System
from sidestream.lab import Background, Continuing, Fault, Lab, Plan, Request, Script
from sidestream.recovery.origins import Origins
from sizes import Size, Target, run_alone

NAME = "reaction"
CALLS: dict[Size, int] = {"smoke": 1, "short": 20, "full": 100}
WAITING: dict[Size, int] = {"smoke": 1, "short": 10, "full": 20}  # calls with the default backoff
RUNGS = {
    "reconnect": BACKS["cursor"],
    "prefill": BACKS["prefill"],
    "anchor": BACKS["anchor"],
    "restart": BACKS["restart"],
    "reroute": BACKS["anchor"],
}
TOKENS, FIRST, LAST, PACE = 30, 12, 22, 0.001  # of an answer: length, where it may break, seconds an event
PATIENCE = 5.0
POLICIES = {"none": Policy(backoff=Backoff(0.0, 0.0, 0.0)), "default": Policy()}
QUESTION = "Tell me all of it."


@dataclass
class Asking:
    """One call: where and how, and what the caller had when."""

    routes: list[Route]
    policy: Policy
    background: bool
    held: bool
    seen: list[tuple[float, str]] = field(default_factory=list)

    def see(self, text: str) -> None:
        self.seen.append((time.monotonic(), text))

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.seen)

    @property
    def client(self) -> dict[str, Any]:
        system = System(origins=Origins(time.monotonic, lock=threading.RLock()))
        return {"routes": self.routes, "policy": self.policy, "observe": (), "system": system}

    @property
    def call(self) -> dict[str, Any]:
        return {"input": QUESTION, **({"background": True} if self.background else {})}

    @property
    def wrapping(self) -> dict[str, Any]:
        return {"policy": self.policy, "continuation": "anchor", "observe": ()}


# The callers.


def ask(asking: Asking) -> None:
    """`Client`."""
    with Client(**asking.client) as client:
        if asking.held:
            asking.see(client.complete(**asking.call).text)
            return
        with client.stream(**asking.call) as stream:
            for event in stream:
                if isinstance(event, TextDelta):
                    asking.see(event.delta)


async def aask(asking: Asking) -> None:
    """`AsyncClient`."""
    async with AsyncClient(**asking.client) as client:
        if asking.held:
            asking.see((await client.complete(**asking.call)).text)
            return
        async with client.stream(**asking.call) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    asking.see(event.delta)


def ask_openai(asking: Asking) -> None:
    """`wrap(OpenAI())`."""
    with OpenAI(base_url=asking.routes[0].base_url, api_key="k") as bare:
        client = sidestream.wrap(bare, **asking.wrapping)
        for event in client.responses.create(model="lab-1", input=QUESTION, stream=True):
            if event.type == "response.output_text.delta":
                asking.see(event.delta)


async def aask_openai(asking: Asking) -> None:
    """`wrap(AsyncOpenAI())`."""
    async with AsyncOpenAI(base_url=asking.routes[0].base_url, api_key="k") as bare:
        client = sidestream.wrap(bare, **asking.wrapping)
        async for event in await client.responses.create(model="lab-1", input=QUESTION, stream=True):
            if event.type == "response.output_text.delta":
                asking.see(event.delta)


CALLERS: dict[str, tuple[Callable[[Asking], None], tuple[str, ...]]] = {
    "Client": (ask, tuple(RUNGS)),
    "AsyncClient": (lambda asking: asyncio.run(aask(asking)), tuple(RUNGS)),
    "wrap(OpenAI)": (ask_openai, ("anchor",)),
    "wrap(AsyncOpenAI)": (lambda asking: asyncio.run(aask_openai(asking)), ("anchor",)),
}


# One call, and what it took.


@dataclass(frozen=True)
class Took:
    """Milliseconds from the fault until the next request was at the lab, and until its first character was
    in the caller's hands; None if nothing is handed out before the end."""

    request: float
    first: float | None


def took(caller: str, rung: str, policy: Policy, seed: int) -> Took:
    """Make a call that breaks once.

    Raises:
        RuntimeError: it did not go as it should, so that its times would mean nothing.
    """
    with labs(rung, seed) as (here, there):
        asking = Asking(
            [_route(lab, rung) for lab in dict.fromkeys((here, there))],
            policy,
            background=RUNGS[rung].background,
            held=rung == "restart",
        )
        CALLERS[caller][0](asking)
        broken, fresh = _requests(here, there)
    if asking.text != text_of(TOKENS) or broken.closed_at is None:
        raise RuntimeError(f"{caller}, {rung}: the answer is not the answer: {asking.text!r}")
    after = [at for at, _ in asking.seen if at >= fresh.received_at]
    first = None if asking.held else 1000 * (after[0] - broken.closed_at)
    return Took(1000 * (fresh.received_at - broken.closed_at), first)


@contextlib.contextmanager
def labs(rung: str, seed: int) -> Iterator[tuple[Lab, Lab]]:
    """The lab that breaks the stream, and the one where it goes on: the same, or that of the next route."""
    cut = Fault.cut(after_event=random.Random(seed).randint(FIRST, LAST))
    if rung != "reroute":
        with Lab(_model(rung), plan=Plan([cut])) as lab:
            yield lab, lab
        return
    plan = Plan([cut], rest=(Fault.close(),))  # what goes on there finds it dead
    with Lab(_model(rung), plan=plan) as here, Lab(_model(rung)) as there:
        yield here, there


def _model(rung: str) -> Callable[[Request], Script]:
    continuing = Continuing(text_of(TOKENS), tokens_of=tokens_of)
    answer = Background(continuing) if RUNGS[rung].background else continuing
    return lambda request: answer(request).sent(pace=PACE)


def _route(lab: Lab, rung: str) -> Route:
    return Route(lab.url, "lab-1", RUNGS[rung].wire, continuation=RUNGS[rung].continuation)


def _requests(here: Lab, there: Lab) -> tuple[Request, Request]:
    """The last that broke, and the one that went on."""
    made = here.requests
    if here is there:
        if len(made) != 2:
            raise RuntimeError(f"{len(made)} requests, not 2")
        return here.wait_closed(0, PATIENCE), made[1]
    return here.wait_closed(made[-1].index, PATIENCE), there.wait_request(0, PATIENCE)


# The part.


def measure(size: Size) -> dict[str, Any]:
    """Milliseconds of each call, by caller, rung and backoff; and what `stopping` measures."""
    recovery = []
    for backoff, calls in (("none", CALLS[size]), ("default", WAITING[size])):
        for caller, (_, rungs) in CALLERS.items():
            if backoff == "default" and caller != "Client":
                continue  # the waits are the same
            for rung in rungs:
                print(f"reaction: {caller}, {rung}, backoff {backoff}", file=sys.stderr)
                if size != "smoke":  # what is loaded with the first call is not counted
                    took(caller, rung, POLICIES["none"], seed=0)
                recovery.append(_row(caller, rung, backoff, calls))
    return {"pace_ms": 1000 * PACE, "recovery": recovery, "stops": stopping.measure(size)}


def _row(caller: str, rung: str, backoff: str, calls: int) -> dict[str, Any]:
    made = [took(caller, rung, POLICIES[backoff], seed) for seed in range(1, calls + 1)]
    return {
        "caller": caller,
        "rung": rung,
        "backoff": backoff,
        "request_ms": [round(each.request, 3) for each in made],
        "first_ms": [round(each.first, 3) for each in made if each.first is not None],
    }


def _rows(record: dict[str, Any], backoff: str) -> list[dict[str, Any]]:
    return [row for row in record["recovery"] if row["backoff"] == backoff]


def targets(record: dict[str, Any]) -> list[Target]:
    """What the house promises of recovery and of a cancel."""
    ours = [statistics.median(row["request_ms"]) for row in _rows(record, "none")]
    return [
        Target("fault to new request sent, no backoff, ms: worst median of all ways back", 5.0, max(ours)),
        *stopping.targets(record["stops"]),
    ]


def tables(record: dict[str, Any]) -> str:
    """Recovery without a backoff and with the default one, then cancelling."""
    return f"""\
Milliseconds from the FIN that breaks a stream until the next request is complete at the lab, and until the
first character behind the cut is in the caller's hands, the new connection included. No backoff: what
sidestream takes by itself.

{_table(record, "none")}

With the default backoff, a draw between nothing and half a second (its most doubles with each further attempt
that brings nothing), a user waits:

{_table(record, "default")}

The lab sends an event every {record["pace_ms"]:.0f} ms. An anchor is repeated by the model before anything
new can be shown, and those events are in its second figure. A held restart hands out nothing before its end.
A reroute counts from the last fault of the first route, which after the cut drops every connection. A
provider adds its TLS handshake and its time to the first token.

""" + stopping.tables(record["stops"])


def _table(record: dict[str, Any], backoff: str) -> str:
    titles = ("caller", "way back", "calls", "to request: median", "p95", "to next character: median", "p95")
    rows = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    return "\n".join([*rows, *(_line(row) for row in _rows(record, backoff))])


def _line(row: dict[str, Any]) -> str:
    request, first = row["request_ms"], row["first_ms"]
    cells = [f"`{row['caller']}`", row["rung"], str(len(request)), *_spread(request), *_spread(first)]
    return f"| {' | '.join(cells)} |"


def _spread(values: list[float]) -> tuple[str, str]:
    if not values:
        return "", ""
    return f"{statistics.median(values):.1f}", f"{stopping.quantile(values, 0.95):.1f}"


def plots(record: dict[str, Any]) -> dict[str, Callable[[Any], None]]:
    """Every single call, fault to new request."""

    def recovery(axes: Any) -> None:
        rows = _rows(record, "none")
        for number, row in enumerate(reversed(rows)):
            height = [number + (place % 9 - 4) / 16 for place in range(len(row["request_ms"]))]
            axes.plot(row["request_ms"], height, ".", markersize=3, color="#1f77b4", alpha=0.5)
        axes.axvline(5.0, color="#d62728", linewidth=1, linestyle="--")
        axes.set_yticks(range(len(rows)), [f"{row['caller']}, {row['rung']}" for row in reversed(rows)])
        axes.set_xscale("log")
        axes.set_xlabel("ms from the fault to the new request at the lab, no backoff; each dot is a call")

    return {"recovery": recovery}


if __name__ == "__main__":
    sys.exit(run_alone(__name__))
