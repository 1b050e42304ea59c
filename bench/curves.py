"""Success and cost against the share of streams that break, peer by peer; cost against the answer's length.

    python bench/curves.py --size short --json curves.json

Before each event a stream breaks with a probability that drops the given share of whole streams; whatever a
peer asks again runs the same risk. It breaks in one of two ways: FIN inside a chunk, which every HTTP library
notices, or a clean early end, which only the wire's own marker tells from a whole answer. `stand` makes the
calls and says what is counted. Cost is what the model generated over what was needed.

The second half is one constant risk per event, and answers that grow: a user's own loop around the openai
SDK, which asks again until the answer is whole, beside clients that go on; with the closed forms.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from statistics import fmean
from typing import Any, get_args

from intervals import bootstrap, wilson
from peers import PEERS, Peer
from sizes import Size, run_alone
from stand import PROMPT, Call, Cell, Stand, Way, risk

Axes = Any  # matplotlib's, which is not in this environment

NAME = "curves"
SEED = 1
TOKENS = 200
BETWEEN = 800  # events between two breaks on average, where the answer grows
WAYS: tuple[Way, ...] = get_args(Way)
WORKERS = 8  # at once: many peers wait between attempts, and waiting needs no core

# Who, and in how many processes: those that wait long between attempts in more of them.
CURVES = {
    "openai responses": 1,
    "openai chat": 1,
    "anthropic": 1,
    "litellm router 5": 2,
    "pydantic-ai fallback": 2,
    "langchain retry": 6,
    "langchain fallbacks": 2,
    "sidestream responses": 2,
    "sidestream chat": 2,
    "sidestream openai": 2,
    "sidestream anthropic": 2,
}
# LiteLLM goes on as often as it has groups to fall back on, and takes five.
SPARES = {"litellm router 5": ("litellm router", 5)}
# The lines of cost growth, and who draws them.
LINES = {
    "restart": "openai responses",
    "anchor": "sidestream responses",
    "prefill": "sidestream chat",
}


@dataclass(frozen=True)
class Extent:
    """How much is measured: `lengths` and `growths` are the answers of cost growth, and calls for each."""

    shares: tuple[float, ...]
    calls: int
    lengths: tuple[int, ...]
    growths: int
    peers: tuple[str, ...] = tuple(CURVES)


EXTENTS = {
    "smoke": Extent((0.3, 0.65), 4, (100, 200), 2, ("openai responses", "sidestream responses")),
    "short": Extent((0.0, 0.3, 0.65), 12, (100, 400), 8),
    "full": Extent((0.0, 0.1, 0.2, 0.3, 0.5, 0.65, 0.8), 60, (100, 200, 400, 800, 1600), 40),
}

# Measuring.

Key = tuple[str, str, float]  # a peer, a way to break, a share; or a line, "growth", a length
Record = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What one process does, at a stand of its own."""

    peer: Peer
    cells: dict[Key, Cell]
    numbers: range
    until_whole: bool = False


def measure(size: Size) -> Record:
    """Every call of every point."""
    extent = EXTENTS[size]
    here = {name: peer for name in extent.peers if (peer := peer_of(name)).python.exists()}
    calls = made([*growing(extent, here), *breaking(extent, here)])
    return {
        "seed": SEED,
        "tokens": TOKENS,
        "prompt": len(PROMPT) // 4,
        "between": BETWEEN,
        "settings": {name: peer.settings for name, peer in here.items()},
        "skipped": [name for name in extent.peers if name not in here],
        "points": [
            {"name": name, "way": way, "x": x, **columns(calls[name, way, x])}
            for name, way, x in sorted(calls)
        ],
    }


def peer_of(name: str) -> Peer:
    """A peer by its name here."""
    found = {peer.name: peer for peer in PEERS}
    if name not in SPARES:
        return found[name]
    origin, fallbacks = SPARES[name]
    settings = f"as {origin}, with {fallbacks} groups to fall back on"
    return replace(found[origin], name=name, fallbacks=fallbacks, settings=settings)


def breaking(extent: Extent, here: dict[str, Peer]) -> list[Task]:
    """The tasks of the hazard curves: each process makes some of the calls of every point of its peer."""
    tasks = []
    for name, peer in here.items():
        cells: dict[Key, Cell] = {
            (name, way, share): Cell(way, risk(share, peer.wire, TOKENS), TOKENS)
            for way in WAYS
            for share in extent.shares
            if share or way == "cut"  # nothing breaks: once is enough
        }
        tasks += [Task(peer, cells, numbers) for numbers in split(extent.calls, CURVES[name])]
    return tasks


def growing(extent: Extent, here: dict[str, Peer]) -> list[Task]:
    """The tasks of cost growth."""
    hazard = -math.expm1(-1 / BETWEEN)
    tasks = []
    for line, name in LINES.items():
        if name in here:
            cells = {
                (line, "growth", float(tokens)): Cell("cut", hazard, tokens) for tokens in extent.lengths
            }
            tasks += [Task(here[name], cells, some, until_whole=True) for some in split(extent.growths, 2)]
    return tasks


def split(calls: int, parts: int) -> list[range]:
    """The numbers of the calls for each of so many processes; no process for fewer than four."""
    parts = max(1, min(parts, calls // 4))
    return [range(first, calls, parts) for first in range(parts)]


def made(tasks: Sequence[Task]) -> dict[Key, list[Call]]:
    """Have all tasks done, many at once; calls in the order of their numbers."""
    found: dict[Key, dict[int, Call]] = {}
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(played, task): task for task in tasks}
        try:
            for done, future in enumerate(as_completed(running), 1):
                for key, number, call in future.result():
                    found.setdefault(key, {})[number] = call
                told = f"curves: {running[future].peer.name}, {done} of {len(tasks)} tasks"
                print(told, file=sys.stderr, flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # a record lacks no peer
            raise
    return {key: [calls[number] for number in sorted(calls)] for key, calls in found.items()}


def played(task: Task) -> list[tuple[Key, int, Call]]:
    """Do a task: its calls one after the other."""
    with Stand(task.peer, seed=SEED) as stand:
        return [
            (key, number, stand.call(cell, number, until_whole=task.until_whole))
            for key, cell in task.cells.items()
            for number in task.numbers
        ]


def columns(calls: Sequence[Call]) -> dict[str, list[Any]]:
    """What was noted of each call, as a record keeps it: one list for each figure."""
    rows = [asdict(call) for call in calls]
    return {name: [row[name] for row in rows] for name in rows[0]}


# The figures of a point, from its calls. Each comes with its 95 % interval.


@dataclass(frozen=True)
class Estimate:
    value: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        if not math.isfinite(self.value):
            return "none"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]".replace("inf", "∞")


def share_of(point: Record, *came: str) -> Estimate:
    """The share of calls that came to this, in per cent."""
    n, hits = len(point["came"]), sum(one in came for one in point["came"])
    low, high = wilson(hits, n)
    return Estimate(100 * hits / n, 100 * low, 100 * high)


def cost(point: Record, tokens: float) -> Estimate:
    """Generated over needed, of all calls, whatever came of them."""
    ratios = [generated / tokens for generated in point["generated"]]
    return Estimate(fmean(ratios), *bootstrap(ratios, fmean))


def cost_of_whole(point: Record, tokens: float) -> Estimate:
    """Generated over needed for each answer that came whole: derived, as if failures were asked again."""

    def ratio(calls: Iterable[tuple[float, bool]]) -> float:
        generated, whole = (sum(column) for column in zip(*calls, strict=True))
        return generated / (tokens * whole) if whole else math.inf

    calls = [(g, came == "exact") for g, came in zip(point["generated"], point["came"], strict=True)]
    return Estimate(ratio(calls), *bootstrap(calls, ratio))


def mean_of(point: Record, column: str) -> float:
    return fmean(point[column])


# Tables.

BREAKS = {"cut": "cut inside a chunk", "end": "ended early and cleanly"}


def tables(record: Record) -> str:
    """All of it as Markdown."""
    parts = [f"{calls_of(record, 'cut')} calls a point, 95 % intervals in brackets."]
    for way in WAYS:
        told = f"streams {BREAKS[way]}"
        parts += [
            f"**Whole and exact, % of calls: {told}**",
            grid(record, way, lambda point: f"{share_of(point, 'exact'):.0f}"),
        ]
        if way == "end":
            parts += [f"**Called whole, and not the answer, % of calls: {told}**"]
            parts += [grid(record, way, called_whole)]
        parts += [
            f"**Generated / needed, all calls: {told}**",
            grid(record, way, lambda point: f"{cost(point, record['tokens']):.3f}"),
            f"**Generated / needed for each whole answer, if failures are asked again (derived): {told}**",
            grid(record, way, lambda point: f"{cost_of_whole(point, record['tokens']):.3f}"),
            f"**Requests a call; tokens of prompt read again a call: {told}**",
            grid(record, way, again),
        ]
    if of_way(record, "growth"):
        growing = (
            f"{calls_of(record, 'growth')} calls a point, one cut per {record['between']} events on average"
        )
        parts += [f"**Cost growth: {growing}**", growth_table(record)]
    return "\n\n".join([*parts, configured(record), notes(record)])


def calls_of(record: Record, way: str) -> int:
    """How many calls each point has."""
    return len(next(iter(of_way(record, way).values()))["came"])


def configured(record: Record) -> str:
    rows = [f"| {name} | {told} |" for name, told in record["settings"].items()]
    return "\n".join(["| peer | as it is used here |", "|---|---|", *rows])


def of_way(record: Record, way: str) -> dict[tuple[str, float], Record]:
    return {(point["name"], point["x"]): point for point in record["points"] if point["way"] == way}


def grid(record: Record, way: Way, cell: Callable[[Record], str]) -> str:
    """A row for each peer, a column for each share."""
    points = of_way(record, way)
    shares = sorted({share for _, share in points})
    lines = [
        f"| peer | {' | '.join(f'{share:.0%} dropped' for share in shares)} |",
        "|---|" + "---|" * len(shares),
    ]
    for name in record["settings"]:
        cells = " | ".join(cell(points[name, share]) for share in shares)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def called_whole(point: Record) -> str:
    garbled = sum(came == "wrong" for came in point["came"])
    said = f"{share_of(point, 'short', 'wrong'):.0f}"
    return f"{said}; {garbled} garbled" if garbled else said


def again(point: Record) -> str:
    return f"{mean_of(point, 'requests'):.2f}; {mean_of(point, 'reread'):,.0f}"


def restart_form(tokens: float, between: float) -> float:
    """Generated over needed if every break begins anew: (e^a - 1) / a with a breaks per whole answer."""
    breaks = tokens / between
    return math.expm1(breaks) / breaks


def growth_table(record: Record) -> str:
    """A row for each length: each line's cost, requests and tokens read again."""
    points = of_way(record, "growth")
    lines = [line for line in LINES if any(name == line for name, _ in points)]
    rows = [
        "| tokens | closed form of a restart | " + " | ".join(lines) + " |",
        "|---|---|" + "---|" * len(lines),
    ]
    for tokens in sorted({tokens for _, tokens in points}):
        cells = [growth_cell(points[line, tokens], tokens) for line in lines]
        form = restart_form(tokens, record["between"])
        rows.append(f"| {tokens:,.0f} | {form:.3f} | {' | '.join(cells)} |")
    return "\n".join(rows)


def growth_cell(point: Record, tokens: float) -> str:
    return f"{cost(point, tokens):.3f}; {again(point)}"


NOTES = """\
- {tokens} tokens of answer, about {prompt:,} of prompt. All events of an attempt are written at once, each in
  its own HTTP chunk. Each process makes one call after the other.
- Draws depend on the seed ({seed}), the number of the call and the number of the request in it alone: every
  peer and every share meets the same ones. Points of one curve are therefore not independent; each interval
  is of its point alone.
- A peer that needs another route to recover gets the same endpoint as its other route, at the same risk.
  LiteLLM goes on once for each group to fall back on, if it lists their model as taking a prefill, and tries
  five groups at most: here it has five, of such a model.
- Where a peer gives up, its cost is low because there is no answer; the derived figure says what an answer
  costs. It supposes a user who sees that an answer is short. Where a library calls a short answer whole, that
  user knows more than the library says.
- Unfair to the peers: the lab's model has one answer, and the plain SDKs promise no recovery once a stream
  has begun. Unfair to sidestream: after a clean early end those SDKs and LangChain raise nothing, and their
  user here looks for the wire's own marker; one who does not has every short answer as a whole one.
- Cost growth: cost, then requests and tokens of prompt read again for each answer. A restart is the user's
  own loop around `{restart}`; the others are asked again, too, should they ever give up. An answer has some
  events besides its tokens, which break as well and are not in the closed form.
"""


def notes(record: Record) -> str:
    """What to know when reading the tables."""
    said = NOTES.format(**record, restart=LINES["restart"])
    skipped = ", ".join(record["skipped"])
    return said + (f"- Not installed here and left out: {skipped}.\n" if skipped else "")


# Plots.

MARKS = "osD^vPX*<>hp"


def plots(record: Record) -> dict[str, Callable[[Axes], None]]:
    """What is drawn, by the stem of its file."""

    def exact(point: Record) -> Estimate:
        return share_of(point, "exact")

    def halves(point: Record) -> Estimate:
        return share_of(point, "short", "wrong")

    def whole_cost(point: Record) -> Estimate:
        return cost_of_whole(point, record["tokens"])

    success, ratio = "whole and exact, % of calls", "generated / needed, each whole answer"
    return {
        "curves-success-cut": lambda ax: curves(ax, record, "cut", exact, success),
        "curves-success-end": lambda ax: curves(ax, record, "end", exact, success),
        "curves-short-end": lambda ax: curves(ax, record, "end", halves, "called whole and not, % of calls"),
        "curves-cost-cut": lambda ax: curves(ax, record, "cut", whole_cost, ratio, log=True),
        "curves-cost-end": lambda ax: curves(ax, record, "end", whole_cost, ratio, log=True),
    } | ({"curves-growth": lambda ax: growth_plot(ax, record)} if of_way(record, "growth") else {})


def curves(
    ax: Axes, record: Record, way: Way, figure: Callable[[Record], Estimate], label: str, *, log: bool = False
) -> None:
    """A line with error bars for each peer; points of one share stand a little apart."""
    points, names = of_way(record, way), list(record["settings"])
    for number, name in enumerate(names):
        shares = sorted(share for other, share in points if other == name)
        apart = 0.3 * (number - (len(names) - 1) / 2)
        estimates = [figure(points[name, share]) for share in shares]
        style = "-" if name.startswith("sidestream") else "--"
        bars(ax, [100 * share + apart for share in shares], estimates, name, number, style)
    ax.set_xlabel(f"whole streams dropped, %: {BREAKS[way]}")
    ax.set_ylabel(label)
    if log:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
    else:
        ax.set_ylim(-3, 103)
    ax.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))


def bars(
    ax: Axes, xs: Sequence[float], estimates: Sequence[Estimate], name: str, number: int, style: str
) -> None:
    shown = [(x, e) for x, e in zip(xs, estimates, strict=True) if math.isfinite(e.high)]
    below = [max(0.0, e.value - e.low) for _, e in shown]
    above = [max(0.0, e.high - e.value) for _, e in shown]
    ax.errorbar(
        [x for x, _ in shown],
        [e.value for _, e in shown],
        yerr=[below, above],
        label=name,
        marker=MARKS[number % len(MARKS)],
        markersize=4,
        capsize=2,
        elinewidth=1,
        color=f"C{number % 10}",
        linestyle=style,
        linewidth=2 if style == "-" else 1,
    )


def growth_plot(ax: Axes, record: Record) -> None:
    """Measured points on the closed forms."""
    points, between = of_way(record, "growth"), record["between"]
    for number, line in enumerate(LINES):
        lengths = sorted(tokens for name, tokens in points if name == line)
        bars(ax, lengths, [cost(points[line, tokens], tokens) for tokens in lengths], line, number, "")
    longest = max(tokens for _, tokens in points)
    xs = [longest * step / 100 for step in range(1, 101)]
    ax.plot(xs, [restart_form(x, between) for x in xs], color="C0", label="restart: (e^a - 1) / a, a = L λ")
    ax.plot(xs, [1.0] * len(xs), color="C7", label="continue: 1")
    ax.set_xlabel(f"tokens of the answer, one cut per {between} events")
    ax.set_ylabel("generated / needed")
    ax.legend(fontsize="small")


if __name__ == "__main__":
    sys.exit(run_alone(__name__))
