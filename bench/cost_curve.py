"""What an answer costs as it grows and as cuts become frequent: measured points on the closed forms.

    python bench/cost_curve.py --runs 200 --write     # also renews docs/cost.md and docs/cost.svg

Real clients and sockets, the lab's model and hazard (see `hazard`). With L tokens of answer, P of prompt, a
prompt token at c times the price of an output token, and on average a cuts per full length (hazard a/L):

    restart    e^a Pc + (e^a - 1) L/a        every attempt begins anew
    continue   Pc + L + a (P + L/2) c        every cut re-reads the prompt and half of L on average
    cursor     Pc + L                        the provider keeps the response

Costs are in output tokens. The policy is not the default one: waits are 0 and budgets as large as they can
be, since a restart at three mean cuts takes 20 attempts; a call that still ends without its answer is made
again, and that is counted as one. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from hazard import Run, Setting, measure
from sidestream import Backoff, Policy

DOCS = Path(__file__).parent.parent / "docs"
MARKS = ("<!-- cost -->\n", "<!-- /cost -->")
PROMPT = 1000
PRICE = 0.2  # of a prompt token, in output tokens
BETWEEN = 500  # tokens between two cuts on average, where the answer grows
CUTS = (0.1, 0.5, 1.0, 2.0, 3.0)
GROWING = [(round(cuts * BETWEEN), cuts) for cuts in CUTS]
AT_500 = [(BETWEEN, cuts) for cuts in CUTS if cuts != 1.0]
POLICY = Policy(tries=100, recoveries=100, backoff=Backoff(0, 0, 0), extra_output=10_000)
BACKS = ("restart", "anchor", "prefill", "cursor")


def restart(tokens: float, cuts: float, prompt: float = PROMPT) -> float:
    """Mean cost when every attempt begins anew."""
    return math.exp(cuts) * prompt * PRICE + (math.exp(cuts) - 1) * tokens / cuts


def going_on(tokens: float, cuts: float, prompt: float = PROMPT) -> float:
    """Mean cost when every attempt goes on with what there is."""
    return prompt * PRICE + tokens + cuts * (prompt + tokens / 2) * PRICE


def cursor(tokens: float, _cuts: float, prompt: float = PROMPT) -> float:
    """Cost when nothing is generated or read twice."""
    return prompt * PRICE + tokens


FORMS: dict[str, Callable[[float, float], float]] = {
    "restart": restart,
    "anchor": going_on,
    "prefill": going_on,
    "cursor": cursor,
}


@dataclass(frozen=True)
class Point:
    """One measured mean: `margin` is half of its 95 % confidence interval."""

    back: str
    tokens: int
    cuts: float
    mean: float
    margin: float
    runs: int


def point(back: str, tokens: int, cuts: float, runs: int, seed: int) -> Point:
    setting = Setting(
        back, 1 - math.exp(-cuts), runs, seed, tokens, policy=POLICY, until_whole=True,
        question="word " * (PROMPT * 4 // 5),
    )  # fmt: skip
    costs = [cost(run) for run in measure(setting)]
    spread = statistics.stdev(costs) if runs > 1 else math.nan
    return Point(back, tokens, cuts, statistics.mean(costs), 1.96 * spread / math.sqrt(runs), runs)


def cost(run: Run) -> float:
    """What a call cost, in output tokens."""
    return (run.read + run.reread) * PRICE + run.generated


# The table.


def table(points: Sequence[Point]) -> str:
    """Rows of tokens and mean cuts; each cell is measured, its interval, and the closed form."""
    found = {(p.tokens, p.cuts, p.back): p for p in points}
    lines = [
        f"| tokens | mean cuts | {' | '.join(BACKS)} | restart / cursor | anchor / cursor |",
        "|---|---|" + "---|" * (len(BACKS) + 2),
    ]
    for tokens, cuts in sorted({(p.tokens, p.cuts) for p in points}):
        row = [found[tokens, cuts, back] for back in BACKS]
        cells = [f"{p.mean:,.0f} ± {p.margin:,.0f} ({FORMS[p.back](tokens, cuts):,.0f})" for p in row]
        ratios = [f"{p.mean / row[-1].mean:.2f}" for p in row[:2]]
        lines.append(f"| {tokens:,} | {cuts:g} | {' | '.join(cells + ratios)} |")
    return "\n".join(lines) + "\n"


def written(points: Sequence[Point], command: str) -> str:
    """What stands between the markers of docs/cost.md."""
    tools = ", ".join(f"{name} {version(name)}" for name in ("sidestream", "httpcore2", "h11", "msgspec"))
    said = (
        f"Measured {datetime.now(UTC):%Y-%m-%d} by `{command}`: {points[0].runs} calls a cell, CPython "
        f"{platform.python_version()}, {tools}.\n"
    )
    return f"{table(points)}\n{said}"


# The plot: measured points on the closed forms, readable on light and on dark paper.

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 720, 420, 70, 50, 20, 20
COLOURS = {"restart": "#d1495b", "anchor": "#d98e04", "prefill": "#2a9d8f", "cursor": "#4f7df3"}
STYLE = (
    "text{font:13px sans-serif;fill:#333}.axis{stroke:#777}.grid{stroke:#7773}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}}"
)


def svg(points: Sequence[Point]) -> str:
    """Cost over the length of the answer, at one hazard."""
    shown = [p for p in points if (p.tokens, p.cuts) in GROWING]
    most_x, most_y = 1600, 2000 * math.ceil(1.04 * max(p.mean + p.margin for p in shown) / 2000)

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = x / most_x * (WIDTH - LEFT - RIGHT), y / most_y * (HEIGHT - TOP - BOTTOM)
        return round(LEFT + across, 1), round(HEIGHT - BOTTOM - up, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>Cost of an answer over its length: exponential by restart, linear by continuing</title>",
        f"<style>{STYLE}</style>",
    ]
    parts += axes(at, most_x, most_y)
    for back, form in FORMS.items():
        if back != "anchor":  # the same line as prefill
            line = [at(x, form(x, x / BETWEEN)) for x in range(10, most_x + 1, 10)]
            path = " ".join(f"{x},{y}" for x, y in line if y >= TOP)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{COLOURS[back]}" stroke-width="1.5"/>'
            )
    for p in shown:
        x, y = at(p.tokens, p.mean)
        low, high = at(0, p.mean - p.margin)[1], at(0, p.mean + p.margin)[1]
        parts.append(
            f'<path d="M{x} {low}V{high}" stroke="{COLOURS[p.back]}" stroke-width="3" opacity=".5"/>'
        )
        parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{COLOURS[p.back]}"/>')
    parts += legend()
    return "\n".join([*parts, "</svg>"]) + "\n"


def axes(at: Callable[[float, float], tuple[float, float]], most_x: int, most_y: int) -> list[str]:
    right, (left, base) = at(most_x, 0)[0], at(0, 0)
    parts = []
    for y in range(0, most_y + 1, 2000):
        height = at(0, y)[1]
        parts.append(f'<path class="grid" d="M{left} {height}H{right}"/>')
        parts.append(f'<text x="{left - 8}" y="{height + 4}" text-anchor="end">{y:,}</text>')
    parts += [
        f'<text x="{at(x, 0)[0]}" y="{base + 18}" text-anchor="middle">{x:,}</text>'
        for x in range(0, most_x + 1, 250)
    ]
    parts.append(f'<path class="axis" d="M{left} {TOP}V{base}H{right}" fill="none"/>')
    parts.append(f'<text x="{right}" y="{base + 38}" text-anchor="end">tokens of the answer</text>')
    parts.append(f'<text x="{left + 8}" y="{TOP + 12}">cost, in output tokens</text>')
    return parts


def legend() -> list[str]:
    meaning = {
        "restart": "restart: (eᵃ - 1)/λ and the prompt eᵃ times",
        "anchor": "continue, by anchor",
        "prefill": "continue, by prefill: Pc + L + a(P + L/2)c",
        "cursor": "cursor: Pc + L",
    }
    parts = []
    for number, (back, words) in enumerate(meaning.items()):
        y = TOP + 40 + 22 * number
        parts.append(f'<circle cx="{LEFT + 18}" cy="{y}" r="4" fill="{COLOURS[back]}"/>')
        parts.append(f'<text x="{LEFT + 30}" y="{y + 4}">{words}</text>')
    y = TOP + 40 + 22 * len(meaning)
    parts.append(f'<text x="{LEFT + 14}" y="{y + 4}">lines: closed forms; points: measured, with 95 %</text>')
    return parts


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--runs", type=int, default=200, help="calls per point")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most-cuts", type=float, default=max(CUTS), help="leave out points beyond")
    parser.add_argument("--write", action="store_true", help="renew docs/cost.md and docs/cost.svg")
    parser.add_argument("--json", type=Path, help="write every point here")
    args = parser.parse_args()
    wanted = [(tokens, cuts) for tokens, cuts in [*GROWING, *AT_500] if cuts <= args.most_cuts]
    points, begun = [], time.monotonic()
    for tokens, cuts in wanted:
        points += [point(back, tokens, cuts, args.runs, args.seed) for back in BACKS]
        print(
            f"{tokens} tokens, {cuts:g} cuts: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True
        )
    print(table(points), end="")
    if args.write:
        page = DOCS / "cost.md"
        before, rest = page.read_text(encoding="utf-8").split(MARKS[0])
        command = f"bench/cost_curve.py --runs {args.runs} --seed {args.seed}"
        after = rest.split(MARKS[1])[1]
        page.write_text(before + MARKS[0] + written(points, command) + MARKS[1] + after, encoding="utf-8")
        (DOCS / "cost.svg").write_text(svg(points), encoding="utf-8")
    if args.json:
        args.json.write_text(json.dumps([vars(p) for p in points], indent=1) + "\n")


if __name__ == "__main__":
    main()
