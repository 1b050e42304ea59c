"""The `sidestream` command: one command per file, put together in `app`.

Data goes to stdout, everything else to stderr; an error is one line and a hint; exit codes are in
`EXIT_CODES`, which `sidestream --help` prints and docs/cli.md lists. This file imports nothing slow, so that
a Ctrl-C during the imports ends as quietly as any other.
"""

from __future__ import annotations

import sys

__all__ = ["EXIT_CODES", "main"]

EXIT_CODES: dict[int, str] = {
    0: "the whole answer, or the work is done",
    1: "the call failed: the stream dropped for good, or the provider said no",
    2: "the command, its input, its output or its configuration cannot be used",
    3: "the answer is incomplete: a token limit ended it",
    4: "a deadline ran out",
    5: "the credential was refused or its quota is used up",
    6: "compression kept every message: the model could not be reached",
    7: "doctor: a route cannot be used, or a task has none",
    130: "stopped by Ctrl-C",
    141: "the reader of the output left, as in `… | head -1`",
    143: "stopped by SIGTERM",
}


def main() -> None:
    """Run the command line; never a traceback for what a user can do something about."""
    try:
        from .app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
