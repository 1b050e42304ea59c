"""A peer at a lab of its own, where every stream runs the same risk per event: what came of each call.

Draws depend on the seed, the number of the call and the number of the request in the call, and on nothing
else: every peer meets the same ones, and so does every share, so that curves differ by what the peers do.
A route to fall back on is the same lab, at the same risk. Figures are the lab's own.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from hazard import BACKS, Model, events_of, read
from peers import Child, Died, Hang, Peer
from sidestream.lab import Fault, Lab, Limits, Plan, Request, Script

Way = Literal["cut", "end"]
Came = Literal["exact", "short", "wrong", "kept", "lost", "hang"]

FAULTS = {"cut": Fault.cut(), "end": Fault.end()}
COUNTS = {"responses": "anchor", "chat": "prefill", "messages": "messages"}  # a way back on each wire
PROMPT = "word " * 800  # about 1,000 tokens
LONGEST = 180.0  # seconds of one ask; a hang beyond
MOST_ASKS = 400
LIMITS = Limits(records=100_000, recorded=1 << 30)


@dataclass(frozen=True)
class Cell:
    """What is asked, and what goes wrong.

    Attributes:
        way: how a stream breaks: FIN inside a chunk, or a clean early end.
        per_event: the probability of it before each event.
        tokens: of the answer.
    """

    way: Way
    per_event: float
    tokens: int


@dataclass(frozen=True)
class Call:
    """What came of a call.

    Attributes:
        came: exact: whole by its own account, and it is; short: called whole, but it is only how the answer
            begins; wrong: called whole, but another text; kept: not called whole, and what arrived is in
            hand; lost: neither; hang.
        asks: how often the user asked; 1, or as often as it took.
        generated: tokens the model said.
        requests: that the model was sent.
        reread: tokens of prompt of all requests but the first.
    """

    came: Came
    asks: int
    generated: int
    requests: int
    reread: int


def risk(share: float, wire: str, tokens: int) -> float:
    """The probability per event that drops this share of whole streams."""
    return 1 - math.exp(math.log1p(-share) / events_of(COUNTS[wire], tokens))


@dataclass
class _Now:
    """What the lab has to know of the call that is made."""

    seed: int = 0
    per_event: float = 0.0
    fault: Fault = FAULTS["cut"]
    first: int = 0  # the number of its first attempt


@dataclass(frozen=True, slots=True)
class _PerCall(Plan):
    """A hazard whose draws begin anew with every call."""

    now: _Now = field(default_factory=_Now)

    def at(self, attempt: int) -> tuple[Fault, ...]:
        now = self.now
        if not now.per_event:
            return ()
        drawn = Plan.hazard(now.per_event, seed=now.seed, fault=now.fault)
        return drawn.at(attempt - now.first)


class Stand:
    """The lab and the peer's process. One thread uses it."""

    def __init__(self, peer: Peer, *, seed: int) -> None:
        self._peer, self._seed = peer, seed
        self._now = _Now()
        self._models: dict[int, Model] = {}
        self._model = self._model_of(1)
        plan = _PerCall(rest=tuple(FAULTS.values())[:1], now=self._now)
        self._lab = Lab(self._answer, plan=plan, limits=LIMITS)
        self._child: Child | None = None
        self._seen = 0  # requests of calls that are done
        self._attempts = 0

    def __enter__(self) -> Self:
        self._lab.start()
        self._child = self._born()
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.close()
        self._lab.stop()

    def call(self, cell: Cell, number: int, *, until_whole: bool = False) -> Call:
        """One call; with `until_whole` the user asks again until the answer is there, and that is one."""
        self._model = self._model_of(cell.tokens)
        self._now.seed = self._seed * 1_000_003 + number
        self._now.per_event, self._now.fault = cell.per_event, FAULTS[cell.way]
        self._now.first = self._attempts
        asks, came = 1, self._ask(number)
        while until_whole and came != "exact" and asks < MOST_ASKS:
            asks, came = asks + 1, self._ask(number)
        return self._counted(came, asks)

    def _ask(self, number: int) -> Came:
        if self._child is None:
            self._child = self._born()
        try:
            answer = self._child.do("ask", limit=LONGEST, prompt=f"Call {number}. {PROMPT}")
        except (Hang, Died) as error:
            self._child = None
            if isinstance(error, Died):
                raise
            return "hang"
        return judged(answer, self._model.text)

    def _counted(self, came: Came, asks: int) -> Call:
        fresh = self._lab.requests[self._seen :]
        for request in fresh:  # the client may have the last event before the lab has noted it
            with contextlib.suppress(TimeoutError):
                self._lab.wait_ended(request.index)
        mine = [request for request in self._lab.requests[self._seen :] if request.attempt >= 0]
        self._seen += len(fresh)
        self._attempts += len(mine)
        return Call(
            came,
            asks,
            generated=sum(map(self._model.generated, mine)),
            requests=len(mine),
            reread=sum(map(read, mine[1:])),
        )

    def _answer(self, request: Request) -> Script:
        if not request.fields().get("stream"):
            raise RuntimeError(f"{self._peer.name} asks for no stream, and only what is streamed is counted")
        return self._model(request)

    def _model_of(self, tokens: int) -> Model:
        if tokens not in self._models:
            self._models[tokens] = Model(BACKS["anchor"], tokens)
        return self._models[tokens]

    def _born(self) -> Child:
        return Child(self._peer, [self._lab.url] * (1 + self._peer.fallbacks))


def judged(answer: dict[str, Any], text: str) -> Came:
    """What a peer's answer is worth, if `text` is the whole one."""
    if not answer["whole"]:
        return "kept" if answer["text"] or answer["kept"] else "lost"
    if answer["text"] == text:
        return "exact"
    return "short" if text.startswith(answer["text"]) else "wrong"
