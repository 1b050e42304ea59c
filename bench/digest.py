"""Milliseconds of an extractive digest, and facts kept, per conversation file.

    python bench/digest.py [FILE ...] [--ratio 0.2] [--runs 20]

Without files: the bundled sample. A file may carry `facts` (as `sidestream evaluate` takes them); then those
still found in the compressed conversation are counted. With the extra `tokens` it also measures what counting
tokens costs. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from importlib.resources import files
from pathlib import Path

from sidestream.tasks.compression import Budget, compress


def score(document: dict[str, object], text: str) -> str:
    facts = document.get("facts")
    if not isinstance(facts, list):
        return "-"
    kept = sum(all(re.search(pattern, text, re.IGNORECASE) for pattern in fact["all_of"]) for fact in facts)
    return f"{kept}/{len(facts)}"


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--ratio", type=float, default=0.2)
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    sample = files("sidestream.tasks.compression") / "samples" / "agent-session.json"
    sources = [(path.name, path.read_bytes()) for path in args.files] or [("sample", sample.read_bytes())]
    print(f"{'conversation':34} {'chars':>8} {'after':>7} {'facts':>7} {'first ms':>9} {'median ms':>10}")
    for name, data in sources:
        document = json.loads(data)
        messages = document["messages"] if isinstance(document, dict) else document
        times = []
        for _ in range(args.runs):
            begun = time.perf_counter()
            done = compress(messages, budget=Budget(ratio=args.ratio))
            times.append(1000 * (time.perf_counter() - begun))
        text = "\n".join(message.text for message in done.conversation.messages)
        facts = score(document, text) if isinstance(document, dict) else "-"
        print(
            f"{name:34} {done.chars_before:8,} {done.chars_after:7,} {facts:>7} "
            f"{times[0]:9.1f} {statistics.median(times):10.1f}"
        )


if __name__ == "__main__":
    main()
