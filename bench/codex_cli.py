"""The Codex CLI as a client where streams keep breaking: alone, and through `sidestream pass`.

    python bench/codex_cli.py --turns 40 --write     # also renews the table in docs/codex.md

Every turn is one `codex exec` with a configuration of its own and its own default retries, against a lab that
answers with 400 tokens, one an event. Before each event the connection is cut inside a chunk with a
probability that drops the given share of whole streams; continued streams run the same risk for every event
they have. Both ways meet the same draws: they depend on the turn and on the number of the request in it. A
row has one lab, and one passthrough process for all its turns. The two rows of a share run side by side.

`codex` is the one of `--codex`, or of the PATH, or is installed with npm into `.cache`. Where there is
neither, this says so and ends well. Nothing is asserted here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hazard import BACKS, TOKENS, Model, events_of, quantile
from sidestream.lab import Fault, Lab, Plan

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "codex.md"
MARKS = ("<!-- codex -->\n", "<!-- /codex -->")
SHARES = (0.5, 0.8)
WAYS = ("alone", "through sidestream")
LONGEST = 60.0
INSTALL_SECONDS = 300.0
CONFIG = """\
model = "lab-1"
model_provider = "lab"
check_for_update_on_startup = false

[model_providers.lab]
name = "lab"
base_url = "{url}"
env_key = "LAB_KEY"
wire_api = "responses"
"""


@dataclass(frozen=True, slots=True)
class PerTurn(Plan):
    """A hazard whose draws begin anew with every turn; `begun` has the first attempt of each."""

    per_event: float = 0.0
    begun: list[int] = field(default_factory=list)

    def at(self, attempt: int) -> tuple[Fault, ...]:
        turn = len(self.begun) - 1
        drawn = Plan.hazard(self.per_event, seed=self.seed * 1_000_003 + turn)
        return drawn.at(attempt - self.begun[turn])


@dataclass(frozen=True)
class Turn:
    """What came of one turn.

    Attributes:
        completed: Codex says so, by its exit code.
        exact: its last message is the answer.
        requests, generated: what the lab was asked, and how many tokens it said.
        retries: how often Codex itself began anew.
    """

    share: float
    way: str
    turn: int
    completed: bool
    exact: bool
    seconds: float
    requests: int
    generated: int
    retries: int


# The client.


def codex_of(given: Path | None) -> Path | None:
    """The `codex` to use, installed if need be; None where that cannot be."""
    found = given or shutil.which("codex")
    if found:
        return Path(found).absolute()
    npm = shutil.which("npm")
    if npm is None:
        return None
    folder = ROOT / ".cache" / "codex"
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), "@openai/codex@latest"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        print(done.stderr.strip(), file=sys.stderr)
    bin_file = folder / "node_modules" / ".bin" / "codex"
    return bin_file if bin_file.exists() else None


def version_of(codex: Path) -> str:
    return subprocess.run([codex, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def ask(codex: Path, url: str, question: str) -> tuple[int | None, str, str]:
    """One turn of Codex: its exit code (None: it took too long), its last message, its events."""
    with tempfile.TemporaryDirectory() as folder:
        home, work, last = Path(folder, "home"), Path(folder, "work"), Path(folder, "last")
        home.mkdir()
        work.mkdir()
        (home / "config.toml").write_text(CONFIG.format(url=url))
        command = [
            str(codex), "exec", "--json", "--ephemeral", "--skip-git-repo-check", "--sandbox", "read-only",
            "--cd", str(work), "--output-last-message", str(last), question,
        ]  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
        child = subprocess.Popen(
            command,
            env={**kept, "CODEX_HOME": str(home), "LAB_KEY": "lab"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            events, _ = child.communicate(timeout=LONGEST)
            code: int | None = child.returncode
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            events, _ = child.communicate()
            code = None
        return code, last.read_text() if last.exists() else "", events


# The measurement.


@contextlib.contextmanager
def address(way: str, lab: Lab) -> Iterator[str]:
    """Where Codex finds its model."""
    if way == "alone":
        yield lab.url
        return
    program = [sys.executable, "-c", "from sidestream.cli import main; main()"]
    command = [*program, "pass", "--to", lab.url, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield json.loads(child.stdout.readline())["url"]
        finally:
            child.terminate()


def measure(codex: Path, share: float, way: str, turns: int, seed: int) -> list[Turn]:
    """One row: its turns one after the other."""
    per_event = 1 - (1 - share) ** (1 / events_of("anchor", TOKENS))
    plan = PerTurn(rest=(Fault.cut(),), seed=seed, per_event=per_event)
    model = Model(BACKS["anchor"], TOKENS)
    done: list[Turn] = []
    with Lab(model, plan=plan) as lab, address(way, lab) as url:
        for turn in range(turns):
            before = len(lab.requests)
            plan.begun.append(sum(request.attempt >= 0 for request in lab.requests))
            begun = time.monotonic()
            code, said, events = ask(codex, url, f"Turn {turn}. Tell me all of it.")
            seconds = time.monotonic() - begun
            mine = [request for request in lab.requests[before:] if request.attempt >= 0]
            done.append(
                Turn(
                    share=share,
                    way=way,
                    turn=turn,
                    completed=code == 0,
                    exact=said == model.text,
                    seconds=seconds,
                    requests=len(mine),
                    generated=sum(map(model.generated, mine)),
                    retries=events.count("Reconnecting"),
                )
            )
            told = "whole" if done[-1].exact else f"NOT WHOLE (exit {code})"
            print(f"{share:.0%} {way}: turn {turn} {told}, {seconds:.1f} s", file=sys.stderr, flush=True)
    return done


HEAD = (
    "| dropped | way | turns completed | exact | requests a turn | Codex's own retries a turn "
    "| generated / needed | seconds p50 | p95 |\n|---|---|---|---|---|---|---|---|---|"
)


def line(turns: Sequence[Turn]) -> str:
    first, n = turns[0], len(turns)
    seconds = sorted(turn.seconds for turn in turns)
    completed, exact = sum(turn.completed for turn in turns), sum(turn.exact for turn in turns)
    return (
        f"| {first.share:.0%} | {first.way} | {completed} of {n} ({completed / n:.0%}) "
        f"| {exact} of {completed} "
        f"| {sum(turn.requests for turn in turns) / n:.2f} | {sum(turn.retries for turn in turns) / n:.2f} "
        f"| {sum(turn.generated for turn in turns) / (n * TOKENS):.2f} "
        f"| {quantile(seconds, 0.5):.1f} | {quantile(seconds, 0.95):.1f} |"
    )


def table(codex: Path, shares: Sequence[float], turns: int, seed: int) -> tuple[str, list[dict[str, Any]]]:
    """Both ways side by side for each share, as Markdown and as figures."""
    rows, record = [HEAD], []
    for share in shares:
        with ThreadPoolExecutor(len(WAYS)) as pool:
            for done in pool.map(lambda way: measure(codex, share, way, turns, seed), WAYS):  # noqa: B023
                rows.append(line(done))
                record += [asdict(turn) for turn in done]
    about = (
        f"{version_of(codex)}, {turns} turns a row, seed {seed}, {platform.python_implementation()} "
        f"{platform.python_version()}, {platform.system()} {platform.machine()}."
    )
    return "\n".join([*rows, "", about, ""]), record


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--shares", type=float, nargs="*", default=SHARES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--codex", type=Path, help="the program")
    parser.add_argument("--write", action="store_true", help="renew docs/codex.md")
    parser.add_argument("--json", type=Path, help="write every single turn here")
    args = parser.parse_args()
    codex = codex_of(args.codex)
    if codex is None:
        print("SKIPPED: there is no codex here, and npm cannot install it", file=sys.stderr)
        return
    text, record = table(codex, args.shares, args.turns, args.seed)
    print(text)
    if args.json:
        args.json.write_text(json.dumps(record, indent=1) + "\n")
    if args.write:
        page = PAGE.read_text()
        before, rest = page.split(MARKS[0])
        PAGE.write_text(before + MARKS[0] + text + MARKS[1] + rest.split(MARKS[1])[1])


if __name__ == "__main__":
    main()
