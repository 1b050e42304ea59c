#!/usr/bin/env python3
"""What a user of each library has in hand after each kind of fault: the outcome matrix.

    python bench/outcomes.py --size full --json outcomes.json

Every cell is one call by a client of its own, against a lab of its own: no call knows of another. The model
there says one text of 40 tokens and goes on with a partial if it is asked to; its first answer (or every one)
breaks in one way. A cell is judged by what the library handed out and by what it says of it, never
by how long it took; the lab counts requests and what its model said. Nothing is asserted here.

Not here: who is measured and how it is configured (`peers`), and how each is asked (`children`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from hazard import text_of
from hermes import Model
from peers import PEERS, ROOT, Child, Died, Hang, Peer
from sidestream.lab import Fault, Lab, Phase, Plan, Request, Script, script
from sizes import Size, run_alone

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "outcomes"
TOKENS = 40
TEXT = text_of(TOKENS)
PROMPT = "Tell me all of it."
EVENT = 24  # half of a stream, on each wire, is within the text
BYTES = {"responses": 420, "chat": 230, "messages": 230}  # of a JSON answer; all within the text
PATIENCE = 20.0  # seconds: the libraries' own timeouts
SHORT = 2.0  # the same where the fault is silence
LIMIT = 15.0  # seconds after which a call of the first set hangs
LONG = 60.0  # of the second: there are more attempts to make, and waits between them
WARM = 240.0  # seconds of a process's first call, which builds much that later ones use
AT_ONCE = 6  # peers; most of their time is waiting

# The matrix leaves out twins that only the other parts need.
LEFT_OUT = {
    "openai async",
    "openai chat async",
    "anthropic async",
    "sidestream chat async",
    "sidestream openai async",
    "sidestream openai chat async",
    "sidestream anthropic async",
}
UNSTREAMED = {"openai no stream", "hermes chat"}
SMOKE = ("openai responses", "anthropic", "sidestream responses")

Class = Literal["whole", "unmarked", "partial", "kept", "error", "hang", "short", "wrong"]


@dataclass(frozen=True)
class Column:
    """One way to break an answer.

    Attributes:
        name: of the column.
        number: its K-number, or "".
        fault: what the lab does, in the middle of the text if it has a place; None: nothing.
        status: of an error answer that comes in place of the stream.
        silent: the libraries' timeouts are set short.
        harmless: nothing is broken; only the form is unusual.
    """

    name: str
    number: str = ""
    fault: Fault | None = None
    status: int = 0
    silent: bool = False
    harmless: bool = False


COLUMNS = (
    Column("no fault", harmless=True),
    Column("end", "K1", Fault.end()),
    Column("cut", "K2", Fault.cut()),
    Column("reset", "K3", Fault.reset()),
    Column("eof", "K4", Fault.eof()),
    Column("short", "K5", Fault.short()),
    Column("stall", "K6", Fault.stall(), silent=True),
    Column("keepalive", "K7", Fault.keepalive(), silent=True),
    Column("error event", "K10", Fault.error_event()),
    Column("html", "K11", Fault.splice("html")),
    Column("gzip cut", "K12", Fault.gzip_cut()),
    Column("no terminal", "K19", Fault.drop_terminal()),
    Column("hang", "K24", Fault.hang(), silent=True),
    Column("close", "", Fault.close()),
    Column("headers only", "", Fault.headers_only()),
    Column("refuse", "", Fault.refuse(seconds=0.3)),
    Column("429", status=429),
    Column("503", status=503),
    Column("sliced", "K13", Fault.slicer(), harmless=True),
    Column("CRLF", "K21", Fault.line_ends("crlf"), harmless=True),
    Column("BOM", "K21", Fault.bom(), harmless=True),
)
ALWAYS = ("end", "cut", "error event", "close")
_GO_ON = "Continue exactly where it stopped"  # LiteLLM's words
OF_SMOKE = ("no fault", "end", "cut")
BY_NAME = {column.name: column for column in COLUMNS}


@dataclass(frozen=True)
class Cell:
    """What came of one call.

    Attributes:
        always: every answer was broken, not the first alone.
        outcome: see `judged`.
        characters: of text in the user's hands, on an error what it carries.
        requests: to the model.
        generated: tokens that the model said.
        seconds: wall.
        error: type and words.
        applies: False where the fault could not be shown to this client (it asks for no gzip).
    """

    peer: str
    column: str
    always: bool
    outcome: Class
    characters: int
    requests: int
    generated: int
    seconds: float
    error: str = ""
    applies: bool = True


def judged(answer: dict[str, Any], text: str) -> Class:
    """What an answer is worth to whoever asked for `text`.

    "whole": all of it, and said to be; "unmarked": all of it, not said to be. "short" and "wrong": a part, or
    something else, said to be whole, and "wrong" also if it is not said to be. "partial": a part, without an
    error, not said to be whole. "kept" and "error": an error with and without the part that had come.
    """
    if answer.get("hang"):
        return "hang"
    if answer["error"]:
        return "kept" if answer.get("kept") else "error"
    said, whole = answer["text"], answer["whole"]
    if said == text:
        return "whole" if whole else "unmarked"
    if not text.startswith(said):
        return "wrong"
    return "short" if whole else "partial"


# Measuring.


def measure(size: Size) -> dict[str, Any]:
    """Every cell of the matrix."""
    wanted = [peer for peer in PEERS if peer.name not in LEFT_OUT]
    if size == "smoke":
        wanted = [peer for peer in wanted if peer.name in SMOKE]
    here = [peer for peer in wanted if is_here(peer)]
    first = OF_SMOKE if size == "smoke" else tuple(BY_NAME)
    cases = [(BY_NAME[name], False) for name in first]
    if size != "smoke":
        cases += [(BY_NAME[name], True) for name in ALWAYS]
    say = _Progress(len(here) * len(cases))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        queue = slowest_first(here)
        rows = dict(zip(queue, pool.map(lambda peer: row(peer, cases, say), queue), strict=True))
    failed = {peer.name: told for peer, told in rows.items() if isinstance(told, str)}
    here = [peer for peer in here if peer.name not in failed]
    return {
        "size": size,
        "tokens": TOKENS,
        "characters": len(TEXT),
        "columns": list(first),
        "always": [] if size == "smoke" else list(ALWAYS),
        "peers": {peer.name: described(peer) for peer in here},
        "skipped": [peer.name for peer in wanted if not is_here(peer)],
        "failed": failed,
        "cells": [cell for peer in here for cell in rows[peer]],
    }


def described(peer: Peer) -> dict[str, Any]:
    return {"settings": peer.settings, "wire": peer.wire, "ours": peer.ours, "environment": peer.environment}


def is_here(peer: Peer) -> bool:
    """Whether its environment is installed."""
    return peer.python.exists() and (peer.child != "with_codex" or codex() is not None)


def codex() -> str | None:
    """The Codex CLI, if there is one."""
    installed = ROOT / ".cache" / "codex" / "node_modules" / ".bin" / "codex"
    return shutil.which("codex") or (str(installed) if installed.exists() else None)


def slowest_first(peers: Sequence[Peer]) -> list[Peer]:
    """So that no long row is left alone in the end: those that import most, and then ours."""
    return sorted(peers, key=lambda peer: (peer.ours, not peer.environment, peer.child != "with_codex"))


def row(peer: Peer, cases: Sequence[tuple[Column, bool]], say: _Progress) -> list[dict[str, Any]] | str:
    """All cells of a peer, one after the other; or why there are none."""
    cells = []
    try:
        with _Asked(peer) as asked:
            for column, always in cases:
                cell = meet(asked, column, always=always)
                cells.append(asdict(cell))
                say(cell)
    except (Hang, Died) as error:
        print(f"{peer.name} is left out: {error}", file=sys.stderr, flush=True)
        return str(error)
    return cells


class _Asked:
    """A peer's process, and another one after a call that hung.

    The labs stay until the end: no two calls have the same address, by which libraries remember an endpoint.
    """

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._labs = contextlib.ExitStack()
        self._child: Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.close()
        self._labs.close()

    def lab(self, answers: Callable[[Request], Script], plan: Plan) -> Lab:
        return self._labs.enter_context(Lab(answers, plan=plan))

    def ask(self, lab: Lab, *, seconds: float, limit: float) -> dict[str, Any]:
        """One call of a new client; it hangs if it takes longer than `limit`."""
        self._child = child = self._child or self._born()
        begun = time.perf_counter()
        try:
            return child.do("fresh", limit=limit, prompt=PROMPT, urls=urls(self.peer, lab), seconds=seconds)
        except Hang:
            self._child = None
            return {"hang": True, "seconds": time.perf_counter() - begun}

    def _born(self) -> Child:
        """A process that has made its first call."""
        lab = self.lab(_Model(TEXT), Plan())
        child = Child(self.peer, urls(self.peer, lab), more={"BENCH_CODEX": codex() or ""})
        child.do("ask", limit=WARM, prompt=PROMPT)
        return child


def urls(peer: Peer, lab: Lab) -> list[str]:
    """A route, and one to fall back to: the same lab under another name."""
    return [lab.url, *[lab.url.replace(lab.host, "localhost")] * peer.fallbacks]


def meet(asked: _Asked, column: Column, *, always: bool) -> Cell:
    """One call against one fault."""
    peer = asked.peer
    answers = _Statuses(_Model(TEXT), column.status, always=always)
    lab = asked.lab(answers, planned(peer, column, always=always))
    seconds, limit = SHORT if column.silent else PATIENCE, LONG if always else LIMIT
    answer = asked.ask(lab, seconds=seconds, limit=limit)
    for request in lab.requests:
        with contextlib.suppress(TimeoutError):  # who asked may be told of an end before the lab has noted it
            lab.wait_ended(request.index, timeout=2.0)
    mine = [request for request in lab.requests if request.attempt >= 0]
    return Cell(
        peer=peer.name,
        column=column.name,
        always=always,
        outcome=judged(answer, TEXT),
        characters=len(answer.get("text") or answer.get("kept") or ""),
        requests=len(mine),
        generated=sum(answers.generated(request) for request in mine),
        seconds=round(answer["seconds"], 3),
        error=answer.get("error", ""),
        applies=column.name != "gzip cut" or any("gzip" in (r.header("accept-encoding") or "") for r in mine),
    )


def planned(peer: Peer, column: Column, *, always: bool) -> Plan:
    """What goes wrong at the lab of a cell."""
    fault = column.fault
    if fault is None:
        return Plan()
    if fault.row.phase is Phase.AT and fault.after_event is None:
        byte = BYTES[peer.wire] if peer.name in UNSTREAMED else None
        fault = fault.at(at_byte=byte, after_event=EVENT if byte is None else None)
    return Plan.always(fault) if always else Plan([fault])


class _Model(Model):
    """The model, which also does as LiteLLM tells it over Responses: it goes on after the partial."""

    def __call__(self, request: Request) -> Script:
        turns = request.fields().get("input")
        if isinstance(turns, list) and _GO_ON in json.dumps(turns[-1]) and turns[-2]["role"] == "assistant":
            partial = "".join(part["text"] for part in turns[-2]["content"])
            if self.text.startswith(partial):
                fields = {**request.fields(), "input": turns[:-1]}  # which is a prefill, and means the same
                request = dataclasses.replace(request, body=json.dumps(fields).encode())
        return super().__call__(request)


class _Statuses:
    """The model, but for an error answer in place of the first one, or of all."""

    def __init__(self, model: _Model, status: int, *, always: bool) -> None:
        self._model, self._status, self._always = model, status, always

    def __call__(self, request: Request) -> Script:
        if not self._is_refused(request):
            return self._model(request)
        worded = script.messages_problem if request.wire == "messages" else script.problem
        return worded(self._status, "The lab is busy.")

    def generated(self, request: Request) -> int:
        """Tokens that one request made the model say."""
        return 0 if self._is_refused(request) else self._model.generated(request)

    def _is_refused(self, request: Request) -> bool:
        return bool(self._status) and (self._always or request.attempt == 0)


class _Progress:
    """Lines on stderr."""

    def __init__(self, cells: int) -> None:
        self._left, self._lock = cells, threading.Lock()

    def __call__(self, cell: Cell) -> None:
        with self._lock:
            self._left -= 1
            way = f"{cell.column}{' always' * cell.always}"
            told = f"{cell.peer}: {way}: {cell.outcome}, {cell.requests} requests, {cell.seconds:.1f} s"
            print(f"{told} ({self._left} left)", file=sys.stderr, flush=True)


# Telling.

SYMBOLS: dict[Class, str] = {
    "whole": "✓",
    "unmarked": "✓?",
    "partial": "½",
    "kept": "E½",
    "error": "E",
    "hang": "∞",
    "short": "**½!**",
    "wrong": "**≠!**",
}
MEANINGS: dict[Class, str] = {
    "whole": "the whole answer, said to be whole",
    "unmarked": "the whole text, not said to be whole",
    "partial": "**half an answer and no error**; only who looks for the end's mark finds it missing",
    "kept": "an error that carries the text that had come",
    "error": "an error without it",
    "hang": "nothing after {limit:.0f} s ({long:.0f} s where every answer breaks)",
    "short": "**half an answer, said to be whole**",
    "wrong": "**text that the model never said so**",
}
NOTES = """\
- A number says how many requests it took, if more than one. An empty cell: the fault cannot be shown to this
  client, because it asks for no gzip.
- "Said to be whole" is what a library documents: a status "completed" or "complete", a finish reason "stop",
  a stop reason "end_turn", an exit code 0.
- A break is after event {event} of about 46; without a stream after half of the JSON document. In the columns
  stall, keepalive and hang each library's own timeouts are {short:.0f} s, else {patience:.0f} s.
- Generated / needed is what the model said in all cells; who fails early makes it say less.
- Who reads along has what was read in any case; E½ says that the exception itself carries it.
- In the column refuse the server is away for 0.3 s. Whether the next attempt comes too early is drawn with
  the wait before it, so that this cell may be another one in another run.
- No library is given a limit for the whole call. pydantic-ai (`request_timeout`), LiteLLM (an environment
  variable) and sidestream (`total`) have one; it would make an error of a hang.
- Unfair to the peers: the lab's model always goes on exactly where it is asked to, in sidestream's words and
  in LiteLLM's, and only these two ask.
- Unfair to sidestream: LiteLLM is given a second model that takes a prefill (its Router needs one), while
  sidestream continues on the same one. Fallbacks are the same lab by another name, and never fail alone.
"""


def tables(record: dict[str, Any]) -> str:
    """The matrix, what it adds up to, who was asked how."""
    once = matrix(record, record["columns"], always=False)
    parts = ["The first answer breaks, all others are fine:", once]
    if record["always"]:
        parts += ["Every answer breaks:", matrix(record, record["always"], always=True)]
    parts += [
        legend(),
        "All cells of both tables together:" if record["always"] else "Together:",
        totals(record),
    ]
    parts += [NOTES.format(event=EVENT, short=SHORT, patience=PATIENCE) + skipped(record), settings(record)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def of(record: dict[str, Any], peer: str, *, always: bool | None = None) -> list[dict[str, Any]]:
    return [c for c in record["cells"] if c["peer"] == peer and always in (None, c["always"])]


def matrix(record: dict[str, Any], columns: Sequence[str], *, always: bool) -> str:
    heads = [f"{name} {BY_NAME[name].number}".strip() for name in columns]
    rows = [f"| peer | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for peer in record["peers"]:
        cells = {cell["column"]: cell for cell in of(record, peer, always=always)}
        rows.append(f"| {peer} | {' | '.join(symbol(cells[name]) for name in columns)} |")
    return "\n".join(rows)


def symbol(cell: dict[str, Any]) -> str:
    if not cell["applies"]:
        return ""
    return SYMBOLS[cell["outcome"]] + (f" {cell['requests']}" if cell["requests"] > 1 else "")


def legend() -> str:
    told = (f"{SYMBOLS[name]} {MEANINGS[name].format(limit=LIMIT, long=LONG)}" for name in SYMBOLS)
    return " · ".join(told)


def totals(record: dict[str, Any]) -> str:
    """One line for each peer: its cells by outcome, and what they cost."""
    heads = [
        *(SYMBOLS[name] for name in SYMBOLS),
        "requests a call",
        "generated / needed",
        "seconds p50",
        "most",
    ]
    rows = [f"| peer | {' | '.join(heads)} |", "|---" + "|--:" * len(heads) + "|"]
    rows += [f"| {peer} | {' | '.join(total(record, peer))} |" for peer in record["peers"]]
    return "\n".join(rows)


def total(record: dict[str, Any], peer: str) -> list[str]:
    cells = [cell for cell in of(record, peer) if cell["applies"]]
    count = Counter(cell["outcome"] for cell in cells)
    seconds = [cell["seconds"] for cell in cells]
    return [
        *(str(count[name] or "") for name in SYMBOLS),
        f"{statistics.fmean(cell['requests'] for cell in cells):.2f}",
        f"{sum(cell['generated'] for cell in cells) / (len(cells) * record['tokens']):.2f}",
        f"{statistics.median(seconds):.2f}",
        f"{max(seconds):.1f}",
    ]


def skipped(record: dict[str, Any]) -> str:
    names = ", ".join(record["skipped"])
    told = [f"- Not installed here and left out: {names}.\n"] if names else []
    return "".join([*told, *(f"- Left out, it did not run: {why}.\n" for why in record["failed"].values())])


def settings(record: dict[str, Any]) -> str:
    rows = ["| peer | wire | as |", "|---|---|---|"]
    rows += [f"| {name} | {its['wire']} | `{its['settings']}` |" for name, its in record["peers"].items()]
    return "\n".join(rows)


# Drawing.

COLOURS: dict[Class, str] = {
    "whole": "#2b8a3e",
    "unmarked": "#94d3a2",
    "kept": "#f2c14e",
    "error": "#e8923a",
    "hang": "#8d8d8d",
    "partial": "#d9604c",
    "short": "#8f1d1d",
    "wrong": "#3d0c0c",
}
NAMES: dict[Class, str] = {
    "whole": "whole",
    "unmarked": "whole text, no mark",
    "kept": "error with the partial",
    "error": "error",
    "hang": "hang",
    "partial": "half, no error",
    "short": "half, called whole",
    "wrong": "wrong text",
}


def plots(record: dict[str, Any]) -> dict[str, Callable[[Axes], None]]:
    return {"outcomes": lambda axes: draw(record, axes)}


def draw(record: dict[str, Any], axes: Axes) -> None:
    """A bar for each peer: the share of its calls by outcome, harmless ones left out."""
    peers = list(record["peers"])
    shares = {peer: shares_of(record, peer) for peer in peers}
    left = [0.0] * len(peers)
    for name, colour in COLOURS.items():
        widths = [100 * shares[peer].get(name, 0.0) for peer in peers]
        if any(widths):
            axes.barh(peers, widths, left=left, color=colour, label=NAMES[name], height=0.8)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the calls that met a fault")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.08), ncols=4)


def shares_of(record: dict[str, Any], peer: str) -> dict[str, float]:
    cells = [c for c in of(record, peer) if c["applies"] and not BY_NAME[c["column"]].harmless]
    return {name: count / len(cells) for name, count in Counter(c["outcome"] for c in cells).items()}


if __name__ == "__main__":
    sys.exit(run_alone(__name__))
