"""Microseconds per event of decoding, assembling and gating alone: no socket, no HTTP, one process.

    python bench/pipeline.py [--runs 60] [--tokens 400]

Every event is fed as a chunk of its own, as it would arrive; the best run is printed, which is the one that
was disturbed least. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import time

from sidestream.lab import script
from sidestream.recovery.delivery import Gate, Said
from sidestream.recovery.exchange import Exchange


def once(events: tuple[bytes, ...], wire: str) -> float:
    exchange = Exchange(wire, 1, Gate(Said()))
    exchange.opened({})
    begun = time.perf_counter()
    for event in events:
        exchange.feed(event)
        exchange.has_progressed()
    return time.perf_counter() - begun


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=400)
    args = parser.parse_args()
    text = "word " * args.tokens
    streams = {
        "responses": script.responses_text(text, tokens=args.tokens).events,
        "chat": script.chat_text(text, tokens=args.tokens).events,
    }
    for wire, events in streams.items():
        best = min(once(events, wire) for _ in range(args.runs))
        print(f"{wire:10} {1e6 * best / len(events):6.2f} us/event, best of {args.runs}")


if __name__ == "__main__":
    main()
