"""How a digest and a summary are written into a conversation, and recognised again.

A fixed first line, the body, a fixed last line: the reader knows where quotation starts and ends, and the
next compression finds its own work and updates it instead of nesting. The labels are the only words in an
extractive digest that are not in the source.
"""

from __future__ import annotations

__all__ = ["CUT", "LEDGER", "LEDGER_JOIN", "OVERHEAD", "body_of", "is_digest", "wrap"]

_DIGEST = "[sidestream digest: earlier turns, quoted]"
_SUMMARY = "[sidestream summary of earlier turns, for reference]"
_END = "[end]"

LEDGER = "Also: "
LEDGER_JOIN = " · "
CUT = "[… shortened …]"


def wrap(body: str, *, summary: bool = False) -> str:
    """The message text that carries a digest, or with `summary` a model's summary."""
    return f"{_SUMMARY if summary else _DIGEST}\n{body}\n{_END}"


def is_digest(text: str) -> bool:
    """Whether a message's whole text is a digest or summary of ours."""
    return text.startswith((_DIGEST + "\n", _SUMMARY + "\n")) and text.endswith("\n" + _END)


def body_of(text: str) -> str:
    """What a digest or summary says, without its labels."""
    return text.split("\n", 1)[1].rsplit("\n", 1)[0] if is_digest(text) else text


OVERHEAD = len(wrap(""))
