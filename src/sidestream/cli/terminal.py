"""What a person sees: the story on stderr, the answer on stdout.

Strategy: `Story` writes to stderr only, in plain words with a little colour where there is a terminal; text
that came from a provider is shown with its control characters removed, because a terminal obeys them. With
`quiet` it says nothing but errors and what would make stdout misleading. `write` is the only way to stdout:
it knows what to do when nobody reads any more or nothing fits.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.text import Text

from ..errors import ConfigError, SidestreamError
from ..reply import Attempt
from ..wire.events import Recovering
from .advice import advice, refusals
from .ledger import ledger

__all__ = ["Story", "printable", "write"]

# Left-to-right marks, embeddings and overrides, which can make text read as what it is not.
_BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_RUNGS = {
    "reconnect": "fetching the rest",
    "prefill": "going on from there",
    "anchor": "asking to go on from there",
    "restart": "asking again",
    "reroute": "asking the next route",
}


def printable(text: str) -> str:
    """The text without what a terminal would obey: control characters, escapes, direction overrides."""
    return "".join(c for c in text if c in "\n\t" or not _obeyed(ord(c)))


def _obeyed(code: int) -> bool:
    return code < 32 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or code in _BIDI


def write(data: str | bytes) -> None:
    """Put data on stdout at once: exactly as it is into a file or pipe, printable on a terminal.

    Raises:
        SystemExit: the reader has left (141).
        ConfigError: stdout cannot be written.
    """
    try:
        if sys.stdout.isatty():
            text = data if isinstance(data, str) else data.decode("utf-8", "replace")
            sys.stdout.write(printable(text).encode("utf-8", "replace").decode())
        else:
            sys.stdout.buffer.write(data if isinstance(data, bytes) else data.encode("utf-8", "replace"))
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        raise SystemExit(141) from None
    except OSError as error:
        _drop_stdout()
        hint = "make room, or send the output somewhere else"
        raise ConfigError(f"cannot write to stdout: {error.strerror or error}", hint=hint) from None


def _drop_stdout() -> None:
    """What is still buffered goes nowhere, so that the interpreter's last flush cannot fail again."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


class Story:
    """Tells on stderr what happens, and writes a live answer so that the two do not run into each other."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._quiet = quiet
        self._within_line = False  # where the cursor stands, if both streams are one terminal
        self._open_line = False  # whether the last line on stdout lacks its end

    def answer(self, text: str) -> None:
        """Write the next piece of a live answer."""
        write(text)
        if text:
            self._within_line = self._open_line = not text.endswith("\n")

    def end_answer(self) -> None:
        """The live answer is over: end its line."""
        if self._within_line or (self._open_line and not sys.stdout.isatty()):
            self.answer("\n")

    def say(self, text: str, style: str = "") -> None:
        if not self._quiet:
            self._print(text, style)

    def recovering(self, notice: Recovering) -> None:
        """A stream broke and is on its way back."""
        doing = _RUNGS.get(notice.rung, "")
        where = "" if notice.next_route == notice.route else f", {notice.next_route}"
        wait = f" in {notice.delay:.1f} s" if notice.delay >= 0.05 else ""
        self.say(f"✂ {notice.route}: {notice.detail}", "yellow")
        self.say(f"↻ {notice.rung}{f': {doing}' if doing else ''}{where}{wait}", "cyan")

    def restarted(self, reason: str) -> None:
        """What stands on the terminal is void. Said even when quiet: silence would be a mixture."""
        self.end_answer()
        self._print(f"━━━━ what stands above is void: {reason} ━━━━", "bold reverse yellow")
        self._print("━━━━ the answer begins anew:", "bold yellow")

    def ledger(self, attempts: Iterable[Attempt]) -> None:
        """What the call took: one line per HTTP exchange."""
        if self._quiet:
            return
        measured = self._console.is_terminal or "COLUMNS" in os.environ
        width = shutil.get_terminal_size().columns if measured else None
        for number, line in enumerate(ledger(attempts, width)):
            self._print(line, "" if number else "bold")

    def error(self, error: SidestreamError) -> None:
        """What went wrong and what to do about it; never silent."""
        if why := refusals(error):
            self.say(f"✗ no way back: {why}", "dim")
        self.complain(str(error), advice(error))

    def complain(self, message: str, hint: str = "") -> None:
        """One line that says what is wrong, one that says what to do."""
        self._print(f"error: {' '.join(message.split())}", "red")
        if hint:
            self._print(f"hint: {' '.join(hint.split())}")

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[Callable[[], None]]:
        """Show on a terminal that something is awaited; yields what ends it early."""
        if self._quiet or not self._console.is_terminal or self._console.is_dumb_terminal:
            yield lambda: None
            return
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        with Progress(*columns, console=self._console, transient=True) as progress:
            progress.add_task(printable(text), total=None)
            yield progress.stop

    def _print(self, text: str, style: str = "") -> None:
        if self._within_line:
            self._console.print()
            self._within_line = False
        with contextlib.suppress(OSError):  # nobody reads stderr: the work goes on
            self._console.print(Text(printable(text), style=style))
