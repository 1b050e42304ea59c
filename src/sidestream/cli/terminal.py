"""What a person sees: the story on stderr, the answer on stdout.

Strategy: `Story` writes to stderr only, in plain words with a little colour where there is a terminal; text
that came from a provider is shown with its control characters removed, because a terminal obeys them. The
ledger is a table. With `quiet` it says nothing but errors.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import SidestreamError
from ..reply import Attempt, Reply
from ..wire.events import Recovering

__all__ = ["Story", "as_json", "error_json", "printable", "reply_json", "write"]

# Left-to-right marks and overrides, which can make text read as what it is not.
_BIDI = {0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def printable(text: str) -> str:
    """The text without what a terminal would obey: control characters, escapes, direction overrides."""
    return "".join(
        c for c in text if c in "\n\t" or (ord(c) >= 32 and not 0x7F <= ord(c) < 0xA0 and ord(c) not in _BIDI)
    )


def write(text: str) -> None:
    """Put data on stdout at once; as it is into a file or pipe, printable on a terminal."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


class Story:
    """Tells on stderr what happens."""

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._quiet = quiet

    def say(self, text: str, style: str = "") -> None:
        if not self._quiet:
            self._console.print(Text(printable(text), style=style))

    def recovering(self, notice: Recovering) -> None:
        """A stream broke and is on its way back."""
        where = "" if notice.next_route == notice.route else f" on {notice.next_route}"
        wait = f" in {notice.delay:.1f} s" if notice.delay >= 0.05 else ""
        self.say(f"\n✂ {notice.route}: {notice.detail}", "yellow")
        self.say(f"↻ {notice.rung}{where}{wait}", "cyan")

    def ledger(self, attempts: Iterable[Attempt]) -> None:
        """What the call took: one line per HTTP exchange."""
        rows = list(attempts)
        if self._quiet or not rows:
            return
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for name in ("attempt", "route", "rung", "ended"):
            table.add_column(name, overflow="fold")
        for name in ("tokens", "kept", "wasted", "seconds"):
            table.add_column(name, justify="right")
        for number, row in enumerate(rows, 1):
            about = "" if row.reported else "~"
            counts = [f"{about}{n}" for n in (row.tokens, row.kept, row.wasted)]
            cells = [str(number), row.route, row.rung, row.ended, *counts, f"{row.seconds:.2f}"]
            table.add_row(*(Text(printable(cell)) for cell in cells))
        self._console.print(table)
        if any(not row.reported for row in rows):
            self._console.print(Text("~ estimated from the text, four characters to a token", style="dim"))

    def error(self, error: SidestreamError) -> None:
        """What went wrong and what to do about it; never silent."""
        self._console.print(Text(f"error: {printable(str(error))}", style="red"))
        if error.hint:
            self._console.print(Text(f"\nhint: {printable(error.hint)}"))


def reply_json(reply: Reply) -> dict[str, Any]:
    """A reply for machines. Stable names; see the documentation."""
    return {
        "status": reply.status,
        "text": reply.text,
        "commentary": reply.commentary,
        "reasoning": reply.reasoning,
        "refusal": reply.refusal,
        "tool_calls": [
            {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}
            for call in reply.tool_calls
        ],
        "finish_reason": reply.finish_reason,
        "settled": reply.settled,
        "id": reply.id,
        "model": reply.model,
        "usage": reply.usage,
        "attempts": [attempt_json(attempt) for attempt in reply.attempts],
    }


def attempt_json(attempt: Attempt) -> dict[str, Any]:
    names = (
        "route",
        "rung",
        "ended",
        "detail",
        "status",
        "request_id",
        "events",
        "tokens",
        "kept",
        "wasted",
        "reported",
    )
    return {name: getattr(attempt, name) for name in names} | {"seconds": round(attempt.seconds, 3)}


def error_json(error: SidestreamError) -> dict[str, Any]:
    """An error for machines, with everything that had arrived."""
    return {
        "error": {"type": type(error).__name__, "message": str(error), "hint": error.hint},
        "reply": reply_json(error.reply) if error.reply else None,
        "attempts": [attempt_json(attempt) for attempt in error.attempts],
    }


def as_json(value: object) -> str:
    """One line of JSON."""
    import msgspec

    return msgspec.json.encode(value).decode() + "\n"
