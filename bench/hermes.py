"""hermes-agent's own context compression where answers keep breaking: alone, and through sidestream.

    python bench/hermes.py --turns 40 --write     # also renews the table in docs/hosts.md
    python bench/hermes.py --smoke                # three turns of `host`; fails if one lost a message

The agent is the one of `requirements/hermes.txt`, installed into `.cache/hermes`. Its compressor compresses
one long conversation again and again, a new compressor every time, with its default settings but for a
small window and tail. A lab plays its model and answers with one and the same summary. Before each event of a
stream it is broken with a probability that breaks the given share of whole answers; continued streams run the
same risk for every event they have. An answer that is asked for without a stream breaks as often, after the
same share of its bytes. It breaks by a cut connection, or it ends there as if it were whole.

Three ways: "alone" is the agent as it is; "pass" has one line of its config.yaml point to `sidestream pass`;
"host" has the plugin of `recipes/hermes`, which answers these calls with `sidestream.host`. All meet the same
draws: they depend on the turn and on the number of the request in it. Rows run side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from hazard import _TOKEN, quantile, tokens_of
from sidestream.lab import Continuing, Fault, Lab, Plan, Request, Script

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "recipes"))
from check import install, interpreter  # noqa: E402  the recipes' way to make an environment

PAGE = ROOT / "docs" / "hosts.md"
MARKS = ("<!-- hermes -->\n", "<!-- /hermes -->")
TALKS = sorted((ROOT / "tests" / "tasks" / "conversations").glob("*.json"))
MODES = {"chat": "chat_completions", "responses": "codex_responses"}
WAYS = ("alone", "pass", "host")
AT_ONCE = 4  # rows; most of their time is the agent's waiting
BREAKS = {"cut": Fault.cut, "ended": Fault.end}
CONFIG = """\
model:
  default: lab-1
  provider: custom
plugins:
  enabled: [{plugins}]
"""
AUXILIARY = """\
auxiliary:
  compression:
    base_url: {url}
    api_key: lab-key-aux
    model: lab-1
    api_mode: {mode}
"""


# The conversation, and the summary the model has for it.


def conversation() -> tuple[list[dict[str, Any]], str]:
    """Seven tasks of one agent, one after the other; and a summary that lists their facts."""
    messages: list[dict[str, Any]] = []
    told = ["## Goal\nFinish the tasks below, one after the other.", "## Critical Context"]
    for path in TALKS:
        talk = json.loads(path.read_text(encoding="utf-8"))
        for message in talk["messages"]:
            if message["role"] != "system" or not messages:
                messages.append(renamed(message, path.stem))
        told.append(f"### {talk['name']}")
        told += [f"- {fact['fact']}" for fact in talk["facts"]]
    return messages, "\n".join(told) + "\n\n## Remaining Work\nNothing is left open."


def renamed(message: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The message with ids of tool calls that are its conversation's own."""
    copy = json.loads(json.dumps(message))
    for call in copy.get("tool_calls", ()):
        call["id"] = f"{prefix}_{call['id']}"
    if "tool_call_id" in copy:
        copy["tool_call_id"] = f"{prefix}_{copy['tool_call_id']}"
    return copy


# The lab's side.


class Model:
    """Says the summary, and counts what it says."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens = text, len(tokens_of(text))
        self._answer = Continuing(text, tokens_of=tokens_of)
        self._said: dict[int, list[int]] = {}

    def __call__(self, request: Request) -> Script:
        answer = self._answer(request).sent(burst=True)
        self._said[request.attempt] = [0, *accumulate(bool(_TOKEN.search(e)) for e in answer.events)]
        return answer

    def generated(self, request: Request) -> int:
        """Tokens that one request made the model say. Without a stream: by the share of bytes that came."""
        if not request.fields().get("stream"):
            size = len(json.dumps(self.text).encode())
            return min(self.tokens, self.tokens * request.bytes_sent // size)
        said = self._said[request.attempt]
        return said[min(request.events_sent + bool(request.fault), len(said) - 1)]


@dataclass(frozen=True, slots=True)
class PerTurn(Plan):
    """A hazard whose draws begin anew with every turn.

    Attributes:
        share: of whole answers, how many break.
        events: of a whole stream.
        whole: bytes of the answer where no stream is asked for, else 0.
        begun: the first attempt of each turn. Before there is one nothing breaks.
    """

    share: float = 0.0
    events: int = 0
    whole: int = 0
    begun: list[int] = field(default_factory=list)

    def at(self, attempt: int) -> tuple[Fault, ...]:
        if not self.begun or not self.share:
            return ()
        seed = self.seed * 1_000_003 + len(self.begun)
        drawn = Plan.hazard(1 - (1 - self.share) ** (1 / self.events), seed=seed)
        (fault,) = drawn.at(attempt - self.begun[-1])
        place = fault.after_event or 0
        if self.whole:
            return (
                (self.rest[0].at(at_byte=self.whole * place // self.events),) if place < self.events else ()
            )
        return (self.rest[0].at(after_event=place),)


# The agent's side.


@dataclass(frozen=True)
class Turn:
    """What came of one compression.

    Attributes:
        outcome: "whole" (the summary is), "kept" (no summary, every message is there), "lost" (messages gone
            for a digest without a model), "short" (messages gone for half a summary, taken for whole).
        dropped: messages that are gone for no or half a summary.
    """

    wire: str
    breaks: str
    share: float
    way: str
    turn: int
    outcome: str
    dropped: int
    seconds: float
    requests: int
    generated: int
    needed: int
    error: str


def outcome_of(told: dict[str, Any], text: str) -> str:
    if told["kept_all"]:
        return "kept"
    if told["digest"]:
        return "lost"
    return "whole" if text in told["summary"] else "short"


@contextlib.contextmanager
def agent(way: str, wire: str, url: str) -> Iterator[subprocess.Popen[str]]:
    """A process of the agent, set up for that way."""
    messages, _ = conversation()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        home = Path(folder)
        config = CONFIG.format(plugins="sidestream" if way == "host" else "")
        if way == "pass":
            config += AUXILIARY.format(url=stack.enter_context(passing(url)), mode=MODES[wire])
        (home / "config.yaml").write_text(config)
        if way == "host":
            shutil.copytree(ROOT / "recipes" / "hermes" / "sidestream", home / "plugins" / "sidestream")
        settings = {"base_url": url, "api_mode": MODES[wire], "messages": messages}
        (home / "settings.json").write_text(json.dumps(settings))
        kept = {
            n: v for n, v in os.environ.items() if not n.startswith(("OPENAI_", "SIDESTREAM_", "HERMES_"))
        }
        child = subprocess.Popen(
            [interpreter("hermes"), Path(__file__).with_name("hermes_child.py"), home / "settings.json"],
            env={**kept, "HERMES_HOME": folder, "HOME": folder},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("HERMES_LOUD") else subprocess.DEVNULL,
            text=True,
        )
        with child:
            try:
                answering = answer_of(child)
                assert answering == ("host" if way == "host" else "alone"), "the plugin was not loaded"
                yield child
            finally:
                child.kill()


@contextlib.contextmanager
def passing(url: str) -> Iterator[str]:
    """`sidestream pass` before the lab."""
    program = [sys.executable, "-c", "from sidestream.cli import main; main()"]
    command = [*program, "pass", "--to", url, "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None
        try:
            yield json.loads(child.stdout.readline())["url"]
        finally:
            child.terminate()


def compress_once(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    told: dict[str, Any] = answer_of(child)
    return told


def answer_of(child: subprocess.Popen[str]) -> Any:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError("the agent's process ended; HERMES_LOUD=1 shows what it says")
    return json.loads(line)


@dataclass(frozen=True)
class Row:
    wire: str
    breaks: str
    share: float
    way: str

    def plan(self, model: Model, seed: int) -> PerTurn:
        events = model.tokens + (4 if self.wire == "chat" else 8)
        streamed = self.wire == "responses" or self.way == "host"
        whole = 0 if streamed else len(json.dumps(model.text).encode())
        return PerTurn(rest=(BREAKS[self.breaks](),), seed=seed, share=self.share, events=events, whole=whole)


def measure(row: Row, turns: int, seed: int) -> list[Turn]:
    """One row: its turns one after the other, after one that nothing breaks."""
    model = Model(conversation()[1])
    plan = row.plan(model, seed)
    done: list[Turn] = []
    with Lab(model, plan=plan) as lab, agent(row.way, row.wire, lab.url) as child:
        compress_once(child)
        for turn in range(turns):
            before = len(lab.requests)
            plan.begun.append(sum(request.attempt >= 0 for request in lab.requests))
            told = compress_once(child)
            mine = [request for request in lab.requests[before:] if request.attempt >= 0]
            outcome = outcome_of(told, model.text)
            done.append(
                Turn(
                    **asdict(row),
                    turn=turn,
                    outcome=outcome,
                    dropped=told["dropped"] if outcome in ("lost", "short") else 0,
                    seconds=told["seconds"],
                    requests=len(mine),
                    generated=sum(map(model.generated, mine)),
                    needed=model.tokens,
                    error=told["error"],
                )
            )
    print(f"{row}: {[turn.outcome for turn in done]}", file=sys.stderr, flush=True)
    return done


# The table.

HEAD = (
    "| wire | an answer is | way | whole summary | kept every message | lost messages | half taken for whole "
    "| requests | generated / needed | seconds, mean | p95 |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def line(turns: Sequence[Turn]) -> str:
    first, n = turns[0], len(turns)
    count = {name: sum(turn.outcome == name for turn in turns) for name in ("whole", "kept", "lost", "short")}
    seconds = sorted(turn.seconds for turn in turns)
    return (
        f"| {first.wire} | {first.breaks} ({first.share:.0%}) | {first.way} "
        f"| {count['whole']} of {n} | {count['kept']} | {count['lost']} | {count['short']} "
        f"| {sum(turn.requests for turn in turns) / n:.2f} "
        f"| {sum(turn.generated for turn in turns) / sum(turn.needed for turn in turns):.2f} "
        f"| {statistics.mean(seconds):.1f} | {quantile(seconds, 0.95):.1f} |"
    )


def rows_of(shares: Sequence[float], ways: Sequence[str]) -> list[Row]:
    return [Row(w, b, share, way) for share in shares for w in MODES for b in BREAKS for way in ways]


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--shares", type=float, nargs="*", default=(0.5, 1.0))
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="three turns of host, checked")
    parser.add_argument("--write", action="store_true", help="renew docs/hosts.md")
    parser.add_argument("--json", type=Path, help="write every single turn here")
    args = parser.parse_args()
    if sys.version_info >= (3, 14):
        print("SKIPPED: hermes-agent is for Python 3.11 to 3.13", file=sys.stderr)
        return 0
    install("hermes")
    turns = 3 if args.smoke else args.turns
    rows = rows_of(args.shares, ("host",) if args.smoke else args.ways)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = list(pool.map(lambda row: measure(row, turns, args.seed), rows))
    about = (
        f"hermes-agent {version()}, {turns} compressions a row, seed {args.seed}, "
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}."
    )
    text = "\n".join([HEAD, *map(line, done), "", about, ""])
    print(text)
    if args.json:
        args.json.write_text(json.dumps([asdict(turn) for row in done for turn in row], indent=1) + "\n")
    if args.write:
        page = PAGE.read_text()
        before, rest = page.split(MARKS[0])
        PAGE.write_text(before + MARKS[0] + text + MARKS[1] + rest.split(MARKS[1])[1])
    lost = [turn for row in done for turn in row if turn.way == "host" and turn.outcome in ("lost", "short")]
    for turn in lost:
        print(f"WRONG: {turn}", file=sys.stderr)
    return 1 if lost else 0


def version() -> str:
    say = "from importlib.metadata import version; print(version('hermes-agent'))"
    return subprocess.run(
        [interpreter("hermes"), "-c", say], capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
