"""The `sidestream` command: one command per file, put together here.

Data goes to stdout, everything else to stderr; errors end with a hint; exit codes are in `EXIT_CODES`, which
`sidestream --help` prints and the documentation lists. Not here: what a command does.
"""

from __future__ import annotations

import sys

import click

from ..errors import (
    AuthFailed,
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    NoRoute,
    QuotaExceeded,
    SidestreamError,
    UsageError,
)
from . import ask, compress, demo, lab
from .terminal import Story, printable

__all__ = ["EXIT_CODES", "app", "main"]

EXIT_CODES: dict[int, str] = {
    0: "the whole answer, or the work is done",
    1: "the call failed: the stream dropped for good, or the provider said no",
    2: "the command, its input or its configuration makes no sense",
    3: "the answer is incomplete: a token limit ended it",
    4: "a deadline ran out",
    5: "the credential was refused or its quota is used up",
    6: "compression kept every message, because the model could not be reached",
    130: "stopped by Ctrl-C",
}

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (UsageError, 2),
    (ConfigError, 2),
    (NoRoute, 2),
    (DeadlineExceeded, 4),
    (AuthFailed, 5),
    (QuotaExceeded, 5),
)


@click.group(
    help="LLM streams that finish.",
    epilog="Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + ".",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="sidestream")
def app() -> None:
    """The group that holds the commands."""


for command in (ask.ask, compress.compress, demo.demo, lab.lab):
    app.add_command(command)


def exit_code(error: BaseException) -> int:
    """The exit code for an error that ends a command."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), 1)


def main() -> None:
    """Run the command line; never a traceback for what a user can do something about."""
    try:
        sys.exit(app(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SidestreamError as error:
        Story().error(error)
        sys.exit(exit_code(error))
    except (Cancelled, KeyboardInterrupt, click.Abort):
        Story().say("stopped")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left: nobody to tell, and nothing to flush to
        sys.exit(1)
    except OSError as error:
        Story().say(f"error: {printable(error.filename or '')}: {error.strerror or error}")
        sys.exit(2)
