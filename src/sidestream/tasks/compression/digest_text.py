"""How a digest and a summary are written into a conversation, and recognised again.

A fixed first line, the body, a fixed last line: the reader knows where quotation starts and ends, and the
next compression finds its own work and updates it instead of nesting. The labels are the only words in an
extractive digest that are not in the source.
"""

from __future__ import annotations

import re

__all__ = ["CUT", "LEDGER", "LEDGER_JOIN", "OVERHEAD", "body_of", "cut", "is_digest", "part_digest", "wrap"]

_DIGEST = "[sidestream digest: earlier turns, quoted]"
_SUMMARY = "[sidestream summary of earlier turns, for reference]"
_END = "[end]"

LEDGER = "Also: "
LEDGER_JOIN = " · "
CUT = "[… shortened …]"

# A line that would end the message's text before its end.
_ENDS = re.compile(rf"(?m)^{re.escape(_END)}$\n?")
_MERGED = re.compile(
    rf"(?:\A|\n\n)((?:{re.escape(_DIGEST)}|{re.escape(_SUMMARY)})\n[\s\S]*?\n{re.escape(_END)})(?:\n\n|\Z)"
)


def wrap(body: str, *, summary: bool = False) -> str:
    """The message text that carries a digest, or with `summary` a model's summary."""
    return f"{_SUMMARY if summary else _DIGEST}\n{_ENDS.sub('', body)}\n{_END}"


def is_digest(text: str) -> bool:
    """Whether a message's whole text is a digest or summary of ours."""
    return text.startswith((_DIGEST + "\n", _SUMMARY + "\n")) and text.endswith("\n" + _END)


def body_of(text: str) -> str:
    """What a digest or summary says, without its labels."""
    return text.split("\n", 1)[1].rsplit("\n", 1)[0] if is_digest(text) else text


def part_digest(text: str) -> tuple[str, str]:
    """The digest that was merged into a text, and the text without it; ("", text) when there is none."""
    match = _MERGED.search(text)
    if match is None:
        return "", text
    rest = [each for each in (text[: match.start()], text[match.end() :]) if each]
    return match[1], "\n\n".join(rest)


def cut(text: str, limit: int) -> str:
    """The start and the end of a text, with the gap said."""
    if len(text) <= limit:
        return text
    words = limit - len(CUT) - 2
    head = max(0, words * 2 // 3)
    return f"{text[:head]}\n{CUT}\n{text[len(text) - max(0, words - head) :]}"


OVERHEAD = len(wrap(""))
