"""What every format is read into: messages made of parts, inside a frame.

A `Message` keeps the object it was read from (`raw`) and, when it came from a file, its exact characters
(`source`), so that an untouched message is written back byte for byte. Roles are the least that
compression needs: `note` is bookkeeping that no model reads (rollout events, titles). Lengths count the
characters a model would read: texts, reasoning, calls and results. Tokens are estimates and are called so.
No format and no policy lives here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .formats.base import Format

__all__ = ["Conversation", "Frame", "Message", "Part", "estimate_tokens"]

Role: TypeAlias = Literal["system", "user", "assistant", "tool", "note"]
PartKind: TypeAlias = Literal["text", "call", "result", "thought"]

# From here on (CJK, kana, hangul, wide forms) one character is about one token, not a quarter.
_WIDE = "\u2e80"


@dataclass(frozen=True, slots=True)
class Part:
    """One readable piece of a message; `id` joins a call to its result."""

    kind: PartKind
    text: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message, item or line.

    Attributes:
        role: who speaks; `note` is never shown to a model.
        parts: what a model would read.
        raw: the object as it was read.
        source: its exact characters in the file, or None when it came as an object.
        pinned: stays, whatever the budget.
        leads: belongs to the message after it (reasoning before its call).
        bundle: messages with the same non-empty bundle were one message on the wire.
        digest: an earlier compression wrote it.
    """

    role: Role
    parts: tuple[Part, ...]
    raw: Mapping[str, Any]
    source: str | None = None
    pinned: bool = False
    leads: bool = False
    bundle: str = ""
    digest: bool = False

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.parts if part.text)

    @property
    def chars(self) -> int:
        return sum(len(part.text) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Frame:
    """The characters around and between the messages of a file."""

    head: str = "["
    separator: str = ", "
    tail: str = "]"


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order, and how to write them back."""

    messages: tuple[Message, ...]
    format: Format
    frame: Frame = Frame()

    @property
    def chars(self) -> int:
        """Characters a model would read."""
        return sum(message.chars for message in self.messages)

    @property
    def tokens(self) -> int:
        """Estimated tokens, see `estimate_tokens`."""
        return self.count(estimate_tokens)

    def count(self, counter: Callable[[str], int]) -> int:
        """Tokens by a counter, such as `tokens.counter_for` gives."""
        return sum(counter(part.text) for message in self.messages for part in message.parts if part.text)

    @property
    def text(self) -> str:
        """Everything a model would read, one part per paragraph."""
        return "\n".join(message.text for message in self.messages if message.role != "note")

    def with_messages(self, messages: Iterable[Message]) -> Conversation:
        return replace(self, messages=tuple(messages))

    def to_bytes(self) -> bytes:
        """The conversation in the format it was read from."""
        return self.format.write(self)


def estimate_tokens(text: str) -> int:
    """A quarter token per character, one per CJK character. An estimate, never a count."""
    if text.isascii():
        return -(-len(text) // 4)
    wide = sum(char >= _WIDE for char in text)
    return wide + -(-(len(text) - wide) // 4)
