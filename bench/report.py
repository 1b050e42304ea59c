"""The page of the benchmarks and its figures, made from the records in `bench/results` and nothing else.

    python bench/report.py            # writes docs/benchmarks.md between its markers, and docs/figures
    python bench/report.py --check    # fails if the page is not what the records make, or a figure is older

Each part's module says how its record reads as tables, figures and targets. Figures are drawn by a process of
its own that finds matplotlib in `.cache/plots` (`bench/run` makes it); they are the same bytes for the same
record, and name its digest, so that they can be checked where there is no matplotlib.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sizes import Target

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
FIGURES = ROOT / "docs" / "figures"
PLOTS = ROOT / ".cache" / "plots"
DRAW_SECONDS = 300.0
# In the order they are run and stand on the page.
PARTS = ("outcomes", "curves", "cpu", "under_sdk", "streams", "cold", "reaction")
NOTHING = "No run is recorded."
STYLE = {
    "svg.hashsalt": "sidestream",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 9,
    "figure.facecolor": "white",  # a page may be dark
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
_DIGEST = re.compile(r"<!-- (\w+)\.json sha256:(\w+) -->")


@dataclass(frozen=True)
class Result:
    """What is known of a part: its module, its record, and which bytes that was read from."""

    name: str
    module: Any
    record: dict[str, Any]
    digest: str

    @property
    def run(self) -> dict[str, Any]:
        """Where and when; nothing for a record that `bench/run` did not make."""
        found: dict[str, Any] = self.record.get("run", {})
        return found

    def targets(self) -> list[Target]:
        return list(self.module.targets(self.record)) if hasattr(self.module, "targets") else []

    def plots(self) -> dict[str, Callable[[Any], None]]:
        return dict(self.module.plots(self.record)) if hasattr(self.module, "plots") else {}


def results(folder: Path) -> dict[str, Result]:
    """The parts that have a record in a folder."""
    found = {}
    for name in PARTS:
        path = folder / f"{name}.json"
        if path.exists():
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()[:16]
            found[name] = Result(name, importlib.import_module(name), json.loads(data), digest)
    return found


# The page.


def page(text: str, found: Mapping[str, Result]) -> str:
    """The page with these results in place of what stands between its markers."""
    text = between(text, "setting", setting(found.values()))
    text = between(text, "targets", targets(found.values()))
    for name in PARTS:
        text = between(text, name, section(found[name]) if name in found else f"{NOTHING}\n")
    return text


def between(text: str, name: str, content: str) -> str:
    """`content` in place of what is between the markers of that name."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise SystemExit(f"error: the page has no place for {name}\nhint: it needs {start.strip()} and {end}")
    return text.partition(start)[0] + start + content + end + text.partition(end)[2]


def section(result: Result) -> str:
    """A part: its tables, its figures, and where they are from."""
    made = result.module.tables(result.record).strip()
    missing = [stem for stem in result.plots() if f"figures/{stem}.svg" not in made]
    images = [f"![{stem.replace('_', ' ').replace('-', ' ')}](figures/{stem}.svg)" for stem in missing]
    return "\n\n".join([made, *images, source(result)]) + "\n"


def source(result: Result) -> str:
    """Where the figures of a part are from."""
    run = result.run
    link = f"[bench/results/{result.name}.json](../bench/results/{result.name}.json)"
    if not run:
        return f"From {link}."
    before, after = ("?" if load is None else f"{load:.1f}" for load in run["load"])
    took = f"{run['seconds'] / 60:.1f} minutes" if run["seconds"] >= 60 else f"{run['seconds']:.0f} seconds"
    commit = f", commit {run['commit']}" if run["commit"] else ""
    return (
        f"From {link}: `bench/run {result.name} --size {run['size']}`, {run['date']}, {took}, load average "
        f"{before} before and {after} after{commit}."
    )


def setting(found: Iterable[Result]) -> str:
    """With what it was run; several times, if the parts were not run alike."""
    alike: dict[str, list[Result]] = {}
    for result in found:
        if result.run:
            alike.setdefault(_with_what(result.run), []).append(result)
    if not alike:
        return f"{NOTHING}\n"
    if len(alike) == 1:
        return next(iter(alike)) + "\n"
    told = [f"{', '.join(result.name for result in runs)}: {words}" for words, runs in alike.items()]
    return "\n\n".join(told) + "\n"


def _with_what(run: Mapping[str, Any]) -> str:
    machine = run["machine"]
    told = [f"{machine['model']}, {machine['cores']} cores, {machine['system']}; {run['python']}."]
    for environment, versions in run["versions"].items():
        where = f"`.cache/{environment}`" if environment else "`.venv`"
        told.append(f"{where}: {', '.join(f'{name} {version}' for name, version in versions.items())}.")
    return "\n".join(told)


def targets(found: Iterable[Result]) -> str:
    """Each aim, and what came of it."""
    rows = ["| target | aim | measured | |", "|---|---|---|---|"]
    for result in found:
        for target in result.targets():
            sign = "≥" if target.at_least else "≤"
            measured = "" if target.measured is None else _figure(target.measured)
            rows.append(
                f"| {target.what} | {sign} {_figure(target.limit)} | {measured} | {verdict(target)} |"
            )
    return "\n".join(rows) + "\n"


def verdict(target: Target) -> str:
    return {True: "met", False: "**missed**", None: "not measured"}[target.met]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


# The figures.


def draw(folder: Path, figures: Path) -> list[Path]:
    """Draw every figure in a process of its own. Nothing, where the environment for it is missing."""
    if not PLOTS.exists():
        print("no figures: .cache/plots is missing, `bench/run` makes it", file=sys.stderr)
        return []
    command = [sys.executable, __file__, "--results", str(folder), "--figures", str(figures), "--draw"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=DRAW_SECONDS)
    return [Path(line) for line in done.stdout.splitlines()]


def drawn(found: Iterable[Result], figures: Path) -> Iterable[Path]:
    """Draw them here. Needs matplotlib, which is taken from `.cache/plots`."""
    sys.path += [
        str(path) for path in (*PLOTS.glob("lib/python3*/site-packages"), PLOTS / "Lib/site-packages")
    ]
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    matplotlib.rcParams.update(STYLE)
    figures.mkdir(parents=True, exist_ok=True)
    for result in found:
        for stem, plot in result.plots().items():
            figure, axes = pyplot.subplots(figsize=(7.5, 4.2), layout="constrained")
            plot(axes)
            if len(axes.get_yticks()) > 15:  # a row for each peer
                figure.set_figheight(1.0 + 0.2 * len(axes.get_yticks()))
            path = figures / f"{stem}.svg"
            figure.savefig(path, metadata={"Date": None, "Creator": None})
            pyplot.close(figure)
            _sign(path, result)
            yield path


def _sign(path: Path, result: Result) -> None:
    """Name the record in the figure."""
    text = path.read_text(encoding="utf-8").rstrip()
    lines = [line.rstrip() for line in text.splitlines()]
    path.write_text("\n".join([*lines, f"<!-- {result.name}.json sha256:{result.digest} -->", ""]))


def stale(found: Iterable[Result], figures: Path) -> list[str]:
    """Figures that are missing, or were drawn from another record."""
    wrong = []
    for result in found:
        for stem in result.plots():
            path = figures / f"{stem}.svg"
            signed = _DIGEST.findall(path.read_text(encoding="utf-8")) if path.exists() else []
            if signed != [(result.name, result.digest)]:
                wrong.append(path.name)
    return wrong


def check(found: Mapping[str, Result], at: Path, figures: Path) -> int:
    """Whether page and figures are those of the records: an exit code."""
    now = at.read_text(encoding="utf-8")
    wrong = [f"figure {name} is not drawn from its record" for name in stale(found.values(), figures)]
    if page(now, found) != now:
        wrong.append(f"{at.name} is not what its records make")
    for line in wrong:
        print(f"WRONG: {line}; python bench/report.py", file=sys.stderr)
    return 1 if wrong else 0


def write(folder: Path, at: Path, figures: Path) -> None:
    """Make page and figures from the records of a folder."""
    at.write_text(page(at.read_text(encoding="utf-8"), results(folder)), encoding="utf-8")
    draw(folder, figures)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the page of the benchmarks from their records.")
    path = functools.partial(parser.add_argument, type=Path, metavar="PATH")
    path("--results", default=RESULTS, help="folder of the records")
    path("--page", default=PAGE, help="the page")
    path("--figures", default=FIGURES, help="folder of the figures")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if something would change")
    parser.add_argument("--draw", action="store_true", help="only the figures, in this process")
    options = parser.parse_args()
    if options.draw:
        print(*drawn(results(options.results).values(), options.figures), sep="\n")
        return 0
    if options.check:
        return check(results(options.results), options.page, options.figures)
    write(options.results, options.page, options.figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
