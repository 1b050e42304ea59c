"""The ways to replace the middle of a conversation, and what came of it. Pure.

A plan (made by `prepare`) ends in one of three ways: `digest()` quotes the middle, `prompt()` and
`accept()` have a model summarise it, `keep(reason)` leaves every message as it was. Whatever comes out is
never longer than what went in. No I/O, no model and no exception of a provider is known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from ...errors import SidestreamError
from .digest_text import LEDGER, OVERHEAD, body_of, wrap
from .prompt import build_prompt, clean_summary
from .redact import redact
from .select import Source, select

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from .conversation import Conversation, Message

__all__ = ["Compaction", "Method", "Plan", "SummaryRejected"]

Method: TypeAlias = Literal["none", "extractive", "summary", "kept"]

MAX_QUOTED_END = 50_000  # characters at each end of one message part that a digest quotes from
_VOICES = {"assistant": 1.0, "digest": 1.2, "thought": 0.5, "call": 0.3, "result": 0.3}


class SummaryRejected(SidestreamError):
    """The model's summary cannot be used; `hint` says what happens instead."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """A compressed conversation and what was done to get it.

    Attributes:
        conversation: the result, in the input's format.
        method: "none" nothing to do, "extractive" quoted, "summary" by a model, "kept" untouched.
        notice: one or two sentences for a person.
        chars_before, chars_after: characters a model would read.
        tokens_before, tokens_after: estimates (a quarter of the characters, one per CJK character).
        digest_chars: characters of the digest or summary message alone.
        budget_chars: the budget, in characters.
        met_budget: whether the whole result, user messages included, is within it.
        messages_before, messages_after: numbers of messages, bookkeeping lines left out.
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

    @property
    def kept(self) -> bool:
        """Whether every message was left untouched although there was something to compress."""
        return self.method == "kept"

    @property
    def messages(self) -> list[Mapping[str, Any]]:
        """The resulting objects in the input's form; untouched ones are the very objects given."""
        return [message.raw for message in self.conversation.messages]

    def to_bytes(self) -> bytes:
        """The result in the input's format."""
        return self.conversation.to_bytes()


@dataclass(frozen=True, slots=True)
class Plan:
    """What stays, what goes, and how much room its replacement has.

    Attributes:
        conversation: the input.
        limit: the budget in characters.
        stays: the messages that stay by index, shortened where that was needed.
        middle: the indices of what goes.
        at: the digest goes before this index.
        room: characters for the digest message, its labels included.
    """

    conversation: Conversation
    limit: int
    stays: Mapping[int, Message]
    middle: tuple[int, ...]
    at: int
    room: int

    @property
    def needed(self) -> bool:
        """Whether there is anything to compress and a reason to."""
        return self.conversation.chars > self.limit and bool(self.middle)

    def digest(self, why: str = "") -> Compaction:
        """Quote the middle; needs no model. `why` opens the notice."""
        if not self.needed:
            return self._untouched("none", self._idle_notice())
        sources = _sources(self.conversation.messages, self.middle)
        known = [message.text for message in self.stays.values() if message.role != "note"]
        body = select(sources, known, max(0, self.room - OVERHEAD))
        return self._replaced(wrap(body) if body else "", "extractive", why)

    def prompt(self) -> list[dict[str, str]]:
        """Chat messages that ask a model for the summary."""
        middle = [self.conversation.messages[index] for index in self.middle]
        previous = "\n".join(body_of(each.text) for each in middle if each.digest)
        return build_prompt([each for each in middle if not each.digest], previous, self.room)

    def accept(self, summary: str) -> Compaction:
        """Put a model's summary in place of the middle; `SummaryRejected` when it says nothing."""
        if not self.needed:
            return self._untouched("none", self._idle_notice())
        body = clean_summary(summary or "")
        if not any(char.isalnum() for char in body):
            raise SummaryRejected(
                "the model's summary was empty", hint="An extractive digest needs no model."
            )
        return self._replaced(wrap(body, summary=True), "summary", "")

    def keep(self, reason: str) -> Compaction:
        """Leave every message as it was, and say why."""
        return self._untouched("kept", f"Nothing was compressed, every message is untouched: {reason}.")

    def _untouched(self, method: Method, notice: str) -> Compaction:
        return self._compaction(self.conversation, method, notice, 0)

    def _idle_notice(self) -> str:
        if self.conversation.chars <= self.limit:
            return "The conversation is within the budget already."
        return "The budget cannot be met: only messages that must stay are left. " + self._protected()

    def _replaced(self, text: str, method: Method, why: str) -> Compaction:
        source = self.conversation
        before = [self.stays[index] for index in sorted(self.stays) if index < self.at]
        after = [self.stays[index] for index in sorted(self.stays) if index >= self.at]
        note = source.format.digest(text, self._role(before, after), before, after) if text else None
        messages = [*before, *([note] if note else []), *after]
        result = source.with_messages(source.format.settle(messages, note))
        if result.chars >= source.chars or _heavier(result, source):
            return self.keep("the result would not have been smaller")
        told = (
            "A model summarised"
            if method == "summary"
            else "Quoted"
            if text
            else "There was no room to quote"
        )
        notice = f"{why} {told} {len(self.middle)} of {_spoken(source)} messages.".strip()
        if result.chars > self.limit:
            notice += " The budget was not met. " + self._protected()
        return self._compaction(result, method, notice, len(text))

    def _role(self, before: Sequence[Message], after: Sequence[Message]) -> str:
        """Assistant, so that no tool's words become the user's, unless a model could not answer then."""
        asked = any(message.role == "user" for message in before)
        followed = any(message.role != "note" for message in after)
        return "assistant" if asked and followed else "user"

    def _protected(self) -> str:
        roles = {"system": 0, "user": 0, "assistant": 0}
        for message in self.stays.values():
            if message.role != "note":
                roles["assistant" if message.role == "tool" else message.role] += message.chars
        return (
            f"User messages, which always stay word for word, take {roles['user']:,} characters, "
            f"system messages {roles['system']:,} and the newest turns {roles['assistant']:,}; "
            f"the budget is {self.limit:,}."
        )

    def _compaction(self, result: Conversation, method: Method, notice: str, digest: int) -> Compaction:
        source = self.conversation
        return Compaction(
            conversation=result,
            method=method,
            notice=notice,
            chars_before=source.chars,
            chars_after=result.chars,
            tokens_before=source.tokens,
            tokens_after=result.tokens,
            digest_chars=digest,
            budget_chars=self.limit,
            met_budget=result.chars <= self.limit,
            messages_before=_spoken(source),
            messages_after=_spoken(result),
        )


def _sources(messages: Sequence[Message], middle: Sequence[int]) -> list[Source]:
    """The texts of the middle, oldest first, secrets out."""
    sources: list[Source] = []
    for order, index in enumerate(middle):
        message = messages[index]
        age = (order + 1) / len(middle)
        for part in message.parts:
            kind = "digest" if message.digest else message.role if part.kind == "text" else part.kind
            text = redact(body_of(part.text).replace(f"\n{LEDGER}", "\n") if message.digest else part.text)
            code = part.kind in ("result", "call")
            sources += [Source(each, _VOICES.get(kind, 1.0), age, code) for each in _ends(text)]
    return sources


def _ends(text: str) -> list[str]:
    """The text, or its two ends: nobody reads the middle of a megabyte, and a digest need not either."""
    if len(text) <= 2 * MAX_QUOTED_END:
        return [text]
    return [text[:MAX_QUOTED_END], text[-MAX_QUOTED_END:]]


def _spoken(conversation: Conversation) -> int:
    return sum(message.role != "note" for message in conversation.messages)


def _heavier(result: Conversation, source: Conversation) -> bool:
    """Whether a file would grow: a digest's wrapping can weigh more than a few short messages."""
    if any(message.source is None for message in source.messages):
        return False
    return len(result.to_bytes()) > len(source.to_bytes())
