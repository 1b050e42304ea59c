"""Milliseconds of an extractive digest, and facts kept, per conversation file.

    python bench/digest.py [FILE ...] [--ratio 0.2] [--runs 20]

Without files: the bundled sample. A file may carry `facts` (as `sidestream evaluate` takes them); then those
still found in the compressed conversation are counted. With the extra `tokens` it also measures what counting
tokens costs. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from sidestream.tasks.compression import Budget, Conversation, compress, counter_for, load, prune
from sidestream.tasks.compression.facts import kept, read_facts

_SAMPLES = files("sidestream.tasks.compression") / "samples"


def facts_of(data: bytes, listed: bytes | None, text: str) -> str:
    if listed is None:
        document = json.loads(data)
        if not isinstance(document, dict) or "facts" not in document:
            return "-"
    facts = read_facts(listed or data)
    return f"{len(kept(facts, text))}/{len(facts)}"


def timed(work: Callable[[], object], runs: int) -> tuple[float, float]:
    """The first time and the median, in milliseconds."""
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - begun))
    return times[0], statistics.median(times)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--ratio", type=float, default=0.2)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--model", default="gpt-5", help="whose tokens are counted")
    args = parser.parse_args()
    sample = (
        (_SAMPLES / "agent-session.json").read_bytes(),
        (_SAMPLES / "agent-session.facts.json").read_bytes(),
    )
    sources: list[tuple[str, bytes, bytes | None]] = [
        (path.name, path.read_bytes(), None) for path in args.files
    ]
    print(f"{'conversation':34} {'chars':>8} {'after':>7} {'facts':>7} {'first ms':>9} {'median ms':>10}")
    loaded = []
    for name, data, listed in sources or [("sample", *sample)]:
        conversation = load(data)
        first, median = timed(lambda: compress(conversation, budget=Budget(ratio=args.ratio)), args.runs)  # noqa: B023
        done = compress(conversation, budget=Budget(ratio=args.ratio))
        facts = facts_of(data, listed, done.conversation.text)
        row = f"{name:34} {done.chars_before:8,} {done.chars_after:7,} {facts:>7}"
        print(f"{row} {first:9.1f} {median:10.1f}")
        loaded.append((name, conversation))
    print(f"\n{'conversation':34} {'estimate':>9} {args.model:>9} {'first ms':>9} {'median ms':>10} prune ms")
    for name, conversation in loaded:
        print(_tokens(name, conversation, args.model, args.runs))


def _tokens(name: str, conversation: Conversation, model: str, runs: int) -> str:
    count = counter_for(model)
    first, median = timed(lambda: conversation.count(count), runs)
    _, pruning = timed(lambda: prune(conversation, tail=1_000), runs)
    counted = conversation.count(count)
    return f"{name:34} {conversation.tokens:9,} {counted:9,} {first:9.1f} {median:10.1f} {pruning:8.1f}"


if __name__ == "__main__":
    main()
