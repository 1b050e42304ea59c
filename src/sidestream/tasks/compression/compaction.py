"""The result of a compression: the conversation, and what was done to get it. Pure.

Every way to shorten a conversation ends in `measure`, so that lengths, tokens and the budget are reported in
one way. A result that would weigh more than its source is never made: `heavier` says so beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from .conversation import estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .conversation import Conversation

__all__ = ["Compaction", "Method", "heavier", "measure", "spoken"]

Method: TypeAlias = Literal["none", "pruned", "extractive", "summary", "kept"]


@dataclass(frozen=True, slots=True)
class Compaction:
    """A compressed conversation and what was done to get it.

    Attributes:
        conversation: the result, in the input's format.
        method: "none" nothing to do, "pruned" old tool output shortened, "extractive" quoted, "summary" by a
            model, "kept" untouched.
        notice: one or two sentences for a person.
        chars_before, chars_after: characters a model would read.
        tokens_before, tokens_after: as the target model counts them, where its tokenizer was given; else
            estimates (a quarter of the characters, one per CJK character).
        digest_chars: characters of the digest or summary message alone.
        budget_chars: the budget, in characters.
        met_budget: whether the whole result, user messages included, is within it.
        messages_before, messages_after: numbers of messages, bookkeeping lines left out.
        failure: what kind of failure of the model led to "kept" or to a digest (a key of
            `policy.COOLDOWNS`); "blocked" or "below" when a policy forbade the attempt; else "".
        retry_at: Unix time at which its provider said to come back, or None.
    """

    conversation: Conversation
    method: Method
    notice: str
    chars_before: int
    chars_after: int
    tokens_before: int
    tokens_after: int
    digest_chars: int
    budget_chars: int
    met_budget: bool
    messages_before: int
    messages_after: int
    failure: str = ""
    retry_at: float | None = None

    @property
    def kept(self) -> bool:
        """Whether every message was left untouched although there was something to compress."""
        return self.method == "kept"

    @property
    def changed(self) -> bool:
        """Whether the result differs from the source."""
        return self.method not in ("none", "kept")

    @property
    def messages(self) -> list[Mapping[str, Any]]:
        """The resulting objects in the input's form; untouched ones are the very objects given."""
        return [message.raw for message in self.conversation.messages]

    def to_bytes(self) -> bytes:
        """The result in the input's format."""
        return self.conversation.to_bytes()


def measure(
    source: Conversation,
    result: Conversation,
    method: Method,
    notice: str,
    *,
    limit: int,
    digest: int = 0,
    count: Callable[[str], int] = estimate_tokens,
) -> Compaction:
    """Say what became of `source`; `limit` is the budget in characters, `digest` the digest's length."""
    return Compaction(
        conversation=result,
        method=method,
        notice=notice,
        chars_before=source.chars,
        chars_after=result.chars,
        tokens_before=source.count(count),
        tokens_after=result.count(count),
        digest_chars=digest,
        budget_chars=limit,
        met_budget=result.chars <= limit,
        messages_before=spoken(source),
        messages_after=spoken(result),
    )


def spoken(conversation: Conversation) -> int:
    """Messages without bookkeeping lines."""
    return sum(message.role != "note" for message in conversation.messages)


def heavier(result: Conversation, source: Conversation) -> bool:
    """Whether a file would grow: a digest's wrapping can weigh more than a few short messages."""
    if any(message.source is None for message in source.messages):
        return False
    return len(result.to_bytes()) > len(source.to_bytes())
