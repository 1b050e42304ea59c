"""docs/sdks.md, made of real runs: `python tests/transport/make_sdks.py` runs the matrix and writes the page.

The newest SDKs are those of the environment this runs in; the oldest get one of their own in `.cache`, from
requirements/oldest.txt. What was counted is kept in sdks.json, so that the page can be checked without them.

    --check-oldest    run the matrix with the oldest SDKs, fail if a promise is broken or a count is not ours
    --page            write the page again from the counts there are
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sidestream.lab import KINDS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "sdks.md"
COUNTS = HERE / "sdks.json"
LOCK = ROOT / "requirements" / "oldest.txt"
OLDEST = ROOT / ".cache" / "oldest"

# mark -> sign and meaning, the worst last but for the last three
SIGNS = {
    "whole": ("✓", "the whole answer"),
    "error": ("✗", "an error of the SDK's own tree"),
    "short": ("✂", "no error, and the answer's end was never said: **cut off in silence**"),
    "half": ("½", "a tool call that never became whole was handed out"),
    "twice": ("⧉", "text or a call was handed out twice, or what the answer does not say"),
    "foreign": ("⚠", "an error of somebody else: httpx, `json`, `RuntimeError` …"),
    "hang": ("∞", "still waiting when the server gave up"),
}
GROUPS = {
    "looks like an end": ("end", "eof", "gzip_cut", "drop_terminal"),
    "torn": ("cut", "reset", "short", "no_close_notify", "headers_only"),
    "silence": ("stall", "keepalive", "hang"),
    "error inside": ("error_event", "splice"),
    "no answer": ("close", "refuse"),
    "odd, but whole": ("slicer", "drip", "line_ends", "bom", "huge_event", "repeat_terminal"),
}
WHO = {"bare": "bare", "wrapped": "wrapped, struck once", "always": "wrapped, struck every time"}

HEAD = """\
<!-- Made by tests/transport/make_sdks.py out of real runs. Do not edit. -->

# Under the SDKs

What a program gets from the OpenAI and Anthropic SDKs when a stream breaks: as they are, and after
`client = sidestream.wrap(client)`. Every number counts runs over real sockets: the [lab](lab.md) answers a
call, a fault strikes the first attempt, and what reached the program is compared with the answer. Sync and
async clients, an answer of text and one with a tool call, and a handful of places for each fault are added
up. The SDKs' own retries are on (two), only their waits are cut to nothing.

`python tests/transport/make_sdks.py` runs it all and writes this page; `tests/transport/matrix.py --cells`
says what came of every single run.
"""
TAIL = """\
## How it is counted

- A run counts once, as the worst that happened in it. A tool call of which pieces were handed out and that
  never became whole counts as ½ even if an error followed: the same rule for both sides. The wrapped client
  hands out no piece of a call before it has all of it.
- The end of an answer is what its wire says: `response.completed`, a finish reason, a stop reason. Text that
  came whole without it is ✂, because the program cannot know. `[DONE]` after a missing finish reason, and
  `message_stop` after a missing stop reason, are ends too.
- *Held* calls ask for no stream and are carried as one: `wrap(client, hold=True)`.
- Struck once, wrapped: the answer has to come whole. Struck every time: it ends in the SDK's own error, whose
  `__cause__` is ours with the partial, or with the provider's own error event, or comes whole because each
  attempt brings it further. The tests fail otherwise.
- Silence is 0.5 s here; the lab gives up after 3 s. The huge event has 1 MiB.
"""


def page() -> str:
    """The whole page."""
    counts = json.loads(COUNTS.read_text(encoding="utf-8"))
    signs = [f"{sign} {meaning}" for sign, meaning in SIGNS.values()]
    parts = [HEAD, "## In all\n\n" + table(totals(counts)), "\n".join([*(f"- {s}" for s in signs), ""])]
    parts += [f"## {title(run)}\n\n{table(by_call(run))}" for run in counts.values()]
    return "\n".join([*parts, "## By fault\n\n" + table(by_fault(counts)), TAIL])


def title(run: dict[str, Any]) -> str:
    return " and ".join(f"{name} {version}" for name, version in run["sdks"].items())


def totals(counts: dict[str, Any]) -> list[list[str]]:
    rows = [["SDKs", "", "runs", *(sign for sign, _ in SIGNS.values())]]
    for age, run in counts.items():
        for who, name in WHO.items():
            every = added(row.get(who, {}) for row in rows_of(run))
            numbers = [str(every[mark]) for mark in SIGNS]
            rows.append([age if who == "bare" else "", name, str(every.total()), *numbers])
    return rows


def rows_of(run: dict[str, Any], fault: str = "") -> Iterable[dict[str, dict[str, int]]]:
    """Who got what, for every call and colour and fault, or for one fault."""
    calls = (faults for colours in run["rows"].values() for faults in colours.values())
    return (row for faults in calls for kind, row in faults.items() if fault in ("", kind))


def by_call(run: dict[str, Any]) -> list[list[str]]:
    rows = [["call", "", *GROUPS]]
    for call, colours in run["rows"].items():
        for who in ("bare", "wrapped"):
            cells = [
                added(faults.get(kind, {}).get(who, {}) for faults in colours.values() for kind in group)
                for group in GROUPS.values()
            ]
            if any(cells):
                held = call.endswith("held")
                rows.append([f"`{call}`" if who == "bare" or held else "", who, *map(signed, cells)])
    return rows


def by_fault(counts: dict[str, Any]) -> list[list[str]]:
    rows = [["fault", "what happens", *(f"{age}, {who}" for age in counts for who in ("bare", "wrapped"))]]
    for kind, meaning in KINDS.items():
        cells = [
            added(row.get(who, {}) for row in rows_of(run, str(kind)))
            for run in counts.values()
            for who in ("bare", "wrapped")
        ]
        rows.append([f"`{kind}`", meaning.meaning, *map(signed, cells)])
    return rows


def added(counts: Iterable[dict[str, int]]) -> Counter[str]:
    """All marks together."""
    whole: Counter[str] = Counter()
    for marks in counts:
        whole.update(marks)
    return whole


def signed(marks: Counter[str]) -> str:
    """Counts with their signs."""
    return " ".join(f"{sign}{marks[mark]}" for mark, (sign, _) in SIGNS.items() if marks[mark]) or "-"


def table(rows: list[list[str]]) -> str:
    head, *rest = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *rest]) + "\n"


# Running.


def oldest() -> str:
    """The interpreter with the oldest SDKs, installed if it is not there or the lock has changed."""
    python = OLDEST / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    stamp = OLDEST / "sidestream-lock"
    if not (stamp.is_file() and stamp.read_bytes() == LOCK.read_bytes()):
        venv.EnvBuilder(clear=True, with_pip=True, symlinks=sys.platform != "win32").create(OLDEST)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        subprocess.run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(LOCK)], check=True)
        own = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
        subprocess.run([*pip, *own], check=True)
        stamp.write_bytes(LOCK.read_bytes())
    return str(python)


def counted_by(python: str) -> dict[str, Any]:
    """The matrix as that interpreter counts it; ends this run if a promise is broken."""
    command = [python, str(HERE / "matrix.py"), "--check"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, cwd=ROOT)
    if done.returncode:
        sys.exit("a wrapped client did not do as promised, see above")
    counts: dict[str, Any] = json.loads(done.stdout)
    return counts


def as_lines(counts: dict[str, Any]) -> str:
    """As JSON, one line for the runs of one fault."""
    text = json.dumps(counts, indent=1)
    return re.sub(r"\{(?:[^{}]|\{[^{}]*\})*\}", lambda row: " ".join(row[0].split()), text) + "\n"


def differences(found: dict[str, Any], kept: dict[str, Any]) -> list[str]:
    """Where two counts of the same SDKs differ, in words; but for silence, which a busy machine disturbs."""
    return [
        f"{call}, {colour}, {kind}: {row} is not {kept['rows'][call][colour].get(kind)}"
        for call, colours in found["rows"].items()
        for colour, faults in colours.items()
        for kind, row in faults.items()
        if row != kept["rows"][call][colour].get(kind) and kind not in GROUPS["silence"]
    ]


def main(arguments: list[str]) -> None:
    if arguments == ["--check-oldest"]:
        kept = json.loads(COUNTS.read_text(encoding="utf-8"))["oldest"]
        if different := differences(counted_by(oldest()), kept):
            sys.exit("\n".join(different))
        return
    if arguments != ["--page"]:
        counts = {"newest": counted_by(sys.executable), "oldest": counted_by(oldest())}
        COUNTS.write_text(as_lines(counts), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
