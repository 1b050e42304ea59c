"""What recovery costs where streams keep breaking: real clients, real sockets, a constant hazard per event.

    python bench/hazard.py                      # 10, 30, 50 and 80 % x five ways back
    python bench/hazard.py --everywhere         # the harder reading, see below
    python bench/hazard.py --one-origin         # all calls at one endpoint, storm control included

Every call asks a lab of its own for an answer of 400 tokens (four characters each). Before each event the
connection is cut inside a chunk with a probability that drops the given share of whole streams; continued
streams run the same risk for every event they have. With `--everywhere` every stream, however short, is
dropped with that probability, at a place that is anywhere in it alike. `generated` is what the lab's model
said, the event that the cut tore included; `needed` is the answer. Draws depend on the seed alone (but for
`--one-origin`, where calls race for them). The client's policy is the default. Nothing is asserted here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from sidestream import AsyncClient, Client, Policy, Reply, Route, SidestreamError
from sidestream.drivers import System
from sidestream.lab import Background, Continuing, Fault, Lab, Limits, Plan, Request, Script, script
from sidestream.recovery.origins import Origins
from sidestream.wire.events import Restarted, StreamEvent, TextDelta

CHARS_PER_TOKEN = 4
TOKENS = 400
SHARES = (0.1, 0.3, 0.5, 0.8)
CONCURRENT = 32


@dataclass(frozen=True)
class Back:
    """A way back: the wire, how the endpoint continues, and whether it keeps its responses."""

    wire: Any
    continuation: Any
    background: bool = False


BACKS = {
    "prefill": Back("chat", "trailing"),
    "anchor": Back("responses", "anchor"),
    "messages": Back("messages", "trailing"),
    "cursor": Back("responses", "none", background=True),
    "restart": Back("responses", "none"),
}


_TELLS = {"chat": script.chat_text, "responses": script.responses_text, "messages": script.messages_text}
# what the event of a token has, on one of the wires
_TOKEN = re.compile(rb'output_text\.delta|"delta":{"content"|"type":"text_delta"')


@cache
def text_of(tokens: int) -> str:
    """An answer of so many tokens that ends as a sentence does: one that does not may count as unfinished."""
    return script.words(tokens)[: tokens * CHARS_PER_TOKEN - 1] + "."


def tokens_of(said: str) -> list[str]:
    return re.findall(rf"(?s).{{1,{CHARS_PER_TOKEN}}}", said)


@cache
def events_of(name: str, tokens: int) -> int:
    """Events of a whole answer: one for each token, and those around them."""
    return len(_TELLS[BACKS[name].wire](text_of(tokens), tokens=tokens).events)


# The lab's side.


class Model:
    """An answer function that counts what it is asked to read and what it says, for each call of its lab."""

    def __init__(
        self, back: Back, tokens: int, shorten: Callable[[Script, int], Script] = lambda s, _: s
    ) -> None:
        self.text = text_of(tokens)
        continuing = Continuing(self.text, tokens_of=tokens_of)
        self._answer = Background(continuing) if back.background else continuing
        self._background = back.background
        self._same = back == BACKS["restart"]  # every request gets the same answer: made once
        self._whole: Script | None = None
        self._shorten = shorten
        self._said: dict[int, list[int]] = {}  # by attempt: tokens said after so many events

    def __call__(self, request: Request) -> Script:
        """The answer to one request."""
        said = self._whole or self._answer(request).sent(burst=True)
        self._whole = said if self._same else None
        deltas = (_TOKEN.search(event) is not None for event in said.events)
        self._said[request.attempt] = [0, *accumulate(deltas)]
        return self._shorten(said, request.attempt)

    def generated(self, request: Request) -> int:
        """Tokens that one request made the model say; a job in the background says everything, whoever
        listens, and says it once."""
        said = self._said[request.attempt]
        if self._background:
            return said[-1] if request.method == "POST" else 0
        torn = request.fault == "cut"  # a clean early end tears nothing
        return said[min(request.events_sent + torn, len(said) - 1)]


def read(request: Request) -> int:
    """Tokens of prompt that one request made the model read."""
    fields = request.fields()
    turns = fields.get("messages", fields.get("input"))
    return len(json.dumps(turns, ensure_ascii=False)) // CHARS_PER_TOKEN if turns else 0


@dataclass(frozen=True, slots=True)
class Everywhere(Plan):
    """Every stream is dropped with probability `share`, at a place that `taken` draws with it."""

    share: float = 0.0

    def at(self, attempt: int) -> tuple[Fault, ...]:
        return (Fault.cut(),) if self._drawn(attempt)[0] < self.share else ()

    def taken(self, whole: Script, attempt: int) -> Script:
        """What a stream comes to."""
        dropped, place = self._drawn(attempt)
        return whole.take(int(place * len(whole.events))) if dropped < self.share else whole

    def _drawn(self, attempt: int) -> tuple[float, float]:
        rng = random.Random(f"{self.seed}:{attempt}")
        return rng.random(), rng.random()


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        back: a name from BACKS.
        share: of whole streams, how many are dropped.
        everywhere: of all streams, however short.
        calls: how many calls.
        live: the caller reads along.
        threads: by blocking clients instead of asyncio.
        one_origin: all of them at one lab.
        concurrent: so many at a time.
        policy: the client's.
        question: what is asked; the prompt.
        until_whole: a call that failed is made again, and all that counts as one (asyncio only).
    """

    back: str
    share: float
    calls: int = 200
    seed: int = 1
    tokens: int = TOKENS
    everywhere: bool = False
    live: bool = False
    threads: bool = False
    one_origin: bool = False
    concurrent: int = CONCURRENT
    policy: Policy = field(default_factory=Policy)
    question: str = "Tell me all of it."
    until_whole: bool = False

    def plan(self, call: int) -> Plan:
        """What goes wrong at the lab of one call."""
        seed = self.seed * 1_000_003 + call
        if self.everywhere:
            return Everywhere(rest=(Fault.cut(),), seed=seed, share=self.share)
        return Plan.hazard(1 - (1 - self.share) ** (1 / events_of(self.back, self.tokens)), seed=seed)


# The client's side.


@dataclass(frozen=True)
class Run:
    """What came of one call.

    Attributes:
        error: the name of the error it ended with, or "".
        exact: the text is the answer; after an error: the partial is how the answer begins.
        attempts: HTTP exchanges.
        needed, generated: tokens of the answer, and what the model said.
        read, reread: prompt tokens of the first request, and of all that followed.
        seconds: from the first request to the end.
        ended: what ended each attempt, in order.
    """

    call: int
    error: str
    exact: bool
    attempts: int
    needed: int
    generated: int
    read: int
    reread: int
    seconds: float
    ended: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        return self.generated / self.needed


def measure(setting: Setting) -> list[Run]:
    """Make the calls, `concurrent` at a time; in the order of their numbers."""
    rng = random.Random(setting.seed)
    origins = Origins(time.monotonic, lock=threading.RLock())
    system = System(random=rng.random, origins=origins)
    with shared_lab(setting) as lab:
        if not setting.threads:
            return asyncio.run(gathered(setting, system, lab))
        with ThreadPoolExecutor(setting.concurrent) as pool:
            return list(pool.map(lambda call: blocking(setting, system, lab, call), range(setting.calls)))


@contextmanager
def shared_lab(setting: Setting) -> Iterator[tuple[Lab, Model] | None]:
    """The one lab of all calls, if they share one."""
    if not setting.one_origin:
        yield None
        return
    lab, model = made(setting, 0)
    with lab:
        yield lab, model


def made(setting: Setting, call: int) -> tuple[Lab, Model]:
    plan = setting.plan(call)
    shorten = plan.taken if isinstance(plan, Everywhere) else lambda whole, _: whole
    model = Model(BACKS[setting.back], setting.tokens, shorten)
    limits = Limits(records=100_000, recorded=1 << 30, connections=1024)
    return Lab(model, plan=plan, limits=limits), model


async def gathered(setting: Setting, system: System, lab: tuple[Lab, Model] | None) -> list[Run]:
    gate = asyncio.Semaphore(setting.concurrent)

    async def one(call: int) -> Run:
        async with gate:
            return await waiting(setting, system, lab, call)

    return await asyncio.gather(*(one(call) for call in range(setting.calls)))


async def waiting(setting: Setting, system: System, shared: tuple[Lab, Model] | None, call: int) -> Run:
    """One call by the asyncio client."""
    with ended_with(shared or made(setting, call), shared is None) as (lab, model):
        options, ask = asked(setting, system, lab, call)
        begun, view = time.monotonic(), View()
        async with AsyncClient(**options) as client:
            await view.ask(client, ask, live=setting.live)
            while view.error and setting.until_whole:
                await view.ask(client, ask, live=setting.live)
    return view.run(setting, lab, model, call, time.monotonic() - begun)


def blocking(setting: Setting, system: System, shared: tuple[Lab, Model] | None, call: int) -> Run:
    """One call by the blocking client."""
    with ended_with(shared or made(setting, call), shared is None) as (lab, model):
        options, ask = asked(setting, system, lab, call)
        begun, view = time.monotonic(), View()
        with Client(**options) as client:
            view.ask_blocking(client, ask, live=setting.live)
    return view.run(setting, lab, model, call, time.monotonic() - begun)


@contextmanager
def ended_with(pair: tuple[Lab, Model], own: bool) -> Iterator[tuple[Lab, Model]]:
    """A lab that is running, and stops afterwards if it is the call's own."""
    lab, _ = pair
    if own:
        with lab:
            yield pair
    else:
        yield pair


def asked(setting: Setting, system: System, lab: Lab, call: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """How the client is made, and what it is asked."""
    back = BACKS[setting.back]
    route = Route(lab.url, "lab-1", back.wire, continuation=back.continuation)
    params = {"background": True} if back.background else {}
    options = {"routes": [route], "system": system, "policy": setting.policy, "observe": ()}
    return options, {"input": f"Call {call}. {setting.question}", **params}


@dataclass
class View:
    """What the caller has in the end."""

    pieces: list[str] = field(default_factory=list)
    reply: Reply | None = None
    error: SidestreamError | None = None

    def see(self, event: StreamEvent) -> None:
        if isinstance(event, Restarted):
            self.pieces.clear()
        elif isinstance(event, TextDelta):
            self.pieces.append(event.delta)

    async def ask(self, client: AsyncClient, ask: dict[str, Any], *, live: bool) -> None:
        """Make the call, and keep what came of it."""
        self.error = None
        try:
            if not live:
                self.reply = await client.complete(**ask)
                return
            async with client.stream(**ask) as stream:
                async for event in stream:
                    self.see(event)
            self.reply = stream.reply
        except SidestreamError as error:
            self.error = error

    def ask_blocking(self, client: Client, ask: dict[str, Any], *, live: bool) -> None:
        """The same with the blocking client."""
        try:
            if not live:
                self.reply = client.complete(**ask)
                return
            with client.stream(**ask) as stream:
                for event in stream:
                    self.see(event)
            self.reply = stream.reply
        except SidestreamError as error:
            self.error = error

    def run(self, setting: Setting, lab: Lab, model: Model, call: int, seconds: float) -> Run:
        """What came of the call, by the lab's own records."""
        reply = self.reply or (self.error.reply if self.error else None)
        attempts = reply.attempts if reply else self.error.attempts if self.error else ()
        mine = [r for r in lab.requests if r.attempt >= 0 and (not setting.one_origin or is_of(r, call))]
        reads = [read(request) for request in mine]
        return Run(
            call=call,
            error=type(self.error).__name__ if self.error else "",
            exact=self._exact(model.text, reply, live=setting.live),
            attempts=len(attempts),
            needed=setting.tokens,
            generated=sum(map(model.generated, mine)),
            read=reads[0],
            reread=sum(reads[1:]),
            seconds=seconds,
            ended=tuple(attempt.ended for attempt in attempts),
        )

    def _exact(self, text: str, reply: Reply | None, *, live: bool) -> bool:
        got = reply.text if reply else ""
        if live and "".join(self.pieces) != got:
            return False
        return text.startswith(got) if self.error else got == text


def is_of(request: Request, call: int) -> bool:
    return f"Call {call}. ".encode() in request.body


# The table.


def row(setting: Setting, runs: Sequence[Run]) -> dict[str, Any]:
    """The figures of one line."""
    ratios, attempts = sorted(run.ratio for run in runs), [run.attempts for run in runs]
    return {
        "back": setting.back,
        "share": setting.share,
        "calls": len(runs),
        "whole": sum(not run.error for run in runs),
        "exact": sum(run.exact for run in runs),
        "ratio": sum(run.generated for run in runs) / sum(run.needed for run in runs),
        "p50": quantile(ratios, 0.5),
        "p99": quantile(ratios, 0.99),
        "attempts": sum(attempts) / len(runs),
        "most_attempts": max(attempts),
        "reread": sum(run.reread for run in runs) / len(runs),
        "seconds_p99": quantile(sorted(run.seconds for run in runs), 0.99),
    }


def quantile(ordered: Sequence[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


HEAD = (
    "| way back | dropped | whole | exact | generated / needed | p50 | p99 | attempts | most | re-read |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def line(figures: dict[str, Any]) -> str:
    f = figures
    return (
        f"| {f['back']} | {f['share']:.0%} | {f['whole']} of {f['calls']} | {f['exact']} of {f['calls']} "
        f"| {f['ratio']:.4f} | {f['p50']:.3f} | {f['p99']:.3f} | {f['attempts']:.2f} | {f['most_attempts']} "
        f"| {f['reread']:.0f} |"
    )


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--shares", type=float, nargs="*", default=SHARES)
    parser.add_argument("--backs", nargs="*", choices=BACKS, default=list(BACKS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--everywhere", action="store_true", help="drop every stream, however short")
    parser.add_argument("--one-origin", action="store_true", help="all calls at one endpoint")
    parser.add_argument("--live", action="store_true", help="read along")
    parser.add_argument("--threads", action="store_true", help="blocking clients")
    parser.add_argument("--concurrent", type=int, default=CONCURRENT)
    parser.add_argument("--json", type=Path, help="write every single call here")
    args = parser.parse_args()
    base = Setting(
        "", 0.0, args.calls, args.seed, args.tokens, args.everywhere, args.live, args.threads,
        args.one_origin, args.concurrent,
    )  # fmt: skip
    print(HEAD, flush=True)
    record: list[dict[str, Any]] = []
    for back in args.backs:
        for share in args.shares:
            setting = replace(base, back=back, share=share)
            runs = measure(setting)
            print(line(row(setting, runs)), flush=True)
            record.append({**row(setting, runs), "seed": args.seed, "runs": [asdict(run) for run in runs]})
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
