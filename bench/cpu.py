"""CPU per event of whole client processes, side by side in one run.

    python bench/cpu.py                 # burst: a whole answer in one write
    python bench/cpu.py --paced         # every event its own write and segment

The lab serves the same 400-event Responses text stream to every client; each client is a process of its
own and reports its CPU time. Variants are interleaved inside a round, ratios are taken per round against raw
httpx2 (`iter_lines` + `json.loads`) of the same kind, and medians are printed. No time is ever asserted.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clients import VARIANTS
from sidestream.lab import Lab, script

HERE = Path(__file__).parent
BASE = {"httpx2-async": "httpx2-async", "sidestream-async": "httpx2-async"}


def child(variant: str, url: str, streams: int) -> float:
    command = [sys.executable, str(HERE / "clients.py"), variant, url, str(streams)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return 1e6 * found["cpu"] / found["events"]


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("httpcore2", "httpx2", "msgspec", "openai", "h11"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "-"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=30, help="streams per client and round")
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--paced", action="store_true")
    parser.add_argument("--framing", choices=("chunked", "length", "close"), default="chunked")
    parser.add_argument("--only", nargs="*", choices=sorted(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--json", type=Path, help="write every single figure here")
    args = parser.parse_args()
    answer = script.responses_text("word " * args.tokens, tokens=args.tokens)
    answer = answer.sent(burst=not args.paced, framing=args.framing)
    figures: dict[str, list[float]] = {name: [] for name in args.only}
    with Lab(answer) as lab:
        for _ in range(args.rounds):
            for name in args.only:
                figures[name].append(child(name, lab.url, args.streams))
    print(f"{'client':22} {'us/event':>9} {'min':>7} {'x raw httpx2':>13}")
    for name in args.only:
        base = figures.get(BASE.get(name, "httpx2-sync"))
        ratio = (
            statistics.median(a / b for a, b in zip(figures[name], base, strict=True))
            if base
            else float("nan")
        )
        print(f"{name:22} {statistics.median(figures[name]):9.2f} {min(figures[name]):7.2f} {ratio:13.2f}")
    if args.json:
        record = {
            "versions": versions(),
            "paced": args.paced,
            "framing": args.framing,
            "us_per_event": figures,
        }
        args.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
