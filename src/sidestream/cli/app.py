"""The commands put together, and what an error that ends one is worth as an exit code.

Commands are loaded when they are asked for. A new one is a file that defines a click command of the same
name (with an underscore behind it if Python has another use for the word), and a word in `COMMANDS`.
"""

from __future__ import annotations

import contextlib
import keyword
import os
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from types import FrameType

import click

from .. import __version__
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
from . import EXIT_CODES
from .terminal import Story, printable

__all__ = ["CODES", "COMMANDS", "app", "exit_code", "run"]

COMMANDS = ("ask", "compress", "config", "demo", "doctor", "evaluate", "lab", "pass")

# The exit code of an error that ends a command; every other error is 1.
CODES: tuple[tuple[type[BaseException], int], ...] = (
    (UsageError, 2),
    (ConfigError, 2),
    (NoRoute, 2),
    (DeadlineExceeded, 4),
    (AuthFailed, 5),
    (QuotaExceeded, 5),
)


class _Terminated(KeyboardInterrupt):
    """SIGTERM: cleans up as Ctrl-C does."""


class _Commands(click.Group):
    """A group that imports a command when somebody wants it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        command: click.Command = getattr(import_module(f".{name}", __package__), name)
        return command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES.items()])


@click.command(
    cls=_Commands,
    help="LLM streams that finish.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def app() -> None:
    """The group that holds the commands."""


def exit_code(error: BaseException) -> int:
    """The exit code for an error that ends a command."""
    return next((code for kind, code in CODES if isinstance(error, kind)), 1)


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code. Errors end on stderr, never as a traceback."""
    _open_standard_streams()
    story = Story()
    try:
        with _terminable():
            result = app.main(arguments, prog_name="sidestream", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        story.complain(error.format_message(), f"{context.command_path if context else 'sidestream'} --help")
        return 2
    except SidestreamError as error:
        story.error(error)
        return exit_code(error)
    except (Cancelled, KeyboardInterrupt, click.Abort) as stop:
        story.say("stopped")
        return 143 if _Terminated in (type(stop), type(stop.__cause__)) else 130
    except OSError as error:
        where = f"{printable(str(error.filename))}: " if error.filename else ""
        story.complain(f"{where}{error.strerror or error}", "check the files and the output")
        return 2


def _open_standard_streams() -> None:
    """A stream that was closed before we started (`>&-`) is read or written as nothing."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM unwinds the command, so that no child process and no half a file stays behind."""

    def terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise _Terminated

    if sys.platform == "win32":
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
