"""How much an import adds to a bare interpreter: wall milliseconds, medians of interleaved runs.

    python bench/imports.py [--runs 15]

Run once before measuring so that bytecode exists. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

STATEMENTS = {
    "(bare)": "pass",
    "import sidestream": "import sidestream",
    "sidestream.Client": "import sidestream; sidestream.Client",
    "Client made": "import sidestream; sidestream.Client('http://127.0.0.1:1/v1', model='m')",
}


def once(statement: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return 1000 * (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for number in range(runs + 1):
        for name, statement in STATEMENTS.items():
            took = once(statement)
            if number:  # the first round writes bytecode
                times[name].append(took)
    print(f"{'statement':22} {'median ms':>10} {'min ms':>8} {'net ms':>8}")
    bare = statistics.median(times["(bare)"])
    for name, took in times.items():
        print(
            f"{name:22} {statistics.median(took):10.1f} {min(took):8.1f} "
            f"{statistics.median(took) - bare:8.1f}"
        )


if __name__ == "__main__":
    main()
