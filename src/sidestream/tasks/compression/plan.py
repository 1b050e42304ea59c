"""The ways to replace the middle of a conversation, and what came of it. Pure.

A plan (made by `prepare`) ends in one of three ways: `digest()` quotes the middle, `prompt()` and
`accept()` have a model summarise it, `keep(reason)` leaves every message as it was. Whatever comes out is
never longer than what went in, and holds no call or result that lost its other half. No I/O, no model and no
exception of a provider is known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import SidestreamError
from .compaction import heavier, measure, spoken
from .conversation import estimate_tokens
from .digest_text import LEDGER, OVERHEAD, body_of, wrap
from .prompt import Told, build_prompt, clean_summary, invented_user
from .redact import redact
from .repair import repair
from .select import Source, select

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .compaction import Compaction, Method
    from .conversation import Conversation, Message

__all__ = ["Plan", "SummaryRejected"]

MAX_QUOTED_END = 50_000  # characters at each end of one message part that a digest quotes from
_VOICES = {"assistant": 1.0, "digest": 1.2, "thought": 0.5, "call": 0.3, "result": 0.3}


class SummaryRejected(SidestreamError):
    """The model's summary cannot be used; `hint` says what happens instead."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What stays, what goes, and how much room its replacement has.

    Attributes:
        source: the input as it came.
        conversation: the input with merged digests by themselves; the indices below are of this one.
        limit: the budget in characters.
        stays: the messages that stay by index, shortened where that was needed.
        middle: the indices of what goes.
        at: the digest goes before this index.
        room: characters for the digest message, its labels included.
        count: counts tokens for the report.
        alternate: whether neighbours of one role are merged in the result.
    """

    source: Conversation
    conversation: Conversation
    limit: int
    stays: Mapping[int, Message]
    middle: tuple[int, ...]
    at: int
    room: int
    count: Callable[[str], int] = estimate_tokens
    alternate: bool = False

    @property
    def needed(self) -> bool:
        """Whether there is anything to compress and a reason to."""
        return self.source.chars > self.limit and bool(self.middle)

    def digest(self, why: str = "") -> Compaction:
        """Quote the middle; needs no model. `why` opens the notice."""
        if not self.needed:
            return self._untouched("none", self._idle_notice())
        sources = _sources(self.conversation.messages, self.middle)
        known = [message.text for message in self.stays.values() if message.role != "note"]
        body = select(sources, known, max(0, self.room - OVERHEAD))
        result, text = self._replaced(wrap(body) if body else "")
        if self._grew(result):
            return self.keep("the result would not have been smaller")
        return self._made(result, text, "extractive", "Quoted" if text else "There was no room to quote", why)

    def prompt(self, focus: str = "", today: str = "") -> list[dict[str, str]]:
        """Chat messages that ask a model for the summary.

        Args:
            focus: what deserves most of the room.
            today: the date, so that the model can say when things happened.
        """
        middle = [self.conversation.messages[index] for index in self.middle]
        previous = "\n".join(body_of(each.text) for each in middle if each.digest)
        told = Told(self._material(), previous, self.room, focus, today, user=self._has_user)
        return build_prompt(told)

    def accept(self, summary: str) -> Compaction:
        """Put a model's summary in place of the middle.

        Raises:
            SummaryRejected: it is empty, longer than what it replaces, or speaks of a user there was not.
        """
        if not self.needed:
            return self._untouched("none", self._idle_notice())
        body = clean_summary(summary or "")
        hint = "An extractive digest needs no model."
        if not any(char.isalnum() for char in body):
            raise SummaryRejected("the model's summary was empty", hint=hint)
        if not self._has_user and invented_user(body, self.source.text):
            raise SummaryRejected("the model's summary speaks of a user that there was not", hint=hint)
        result, text = self._replaced(wrap(body, summary=True))
        if self._grew(result):
            raise SummaryRejected("the model's summary was longer than what it replaces", hint=hint)
        return self._made(result, text, "summary", "A model summarised", "")

    def keep(self, reason: str) -> Compaction:
        """Leave every message as it was, and say why."""
        return self._untouched("kept", f"Nothing was compressed, every message is untouched: {reason}.")

    def _untouched(self, method: Method, notice: str) -> Compaction:
        return measure(self.source, self.source, method, notice, limit=self.limit, count=self.count)

    def _idle_notice(self) -> str:
        if self.source.chars <= self.limit:
            return "The conversation is within the budget already."
        return "The budget cannot be met: only messages that must stay are left. " + self._protected()

    @property
    def _has_user(self) -> bool:
        return any(each.role == "user" and not each.digest for each in self.conversation.messages)

    def _material(self) -> list[tuple[Message, bool]]:
        """What goes, with the user's words around it for orientation: (message, whether it goes)."""
        middle = set(self.middle)
        users = [
            index
            for index, message in enumerate(self.conversation.messages)
            if message.role == "user" and not message.digest and index < self.middle[-1]
        ]
        first = max((index for index in users if index < self.middle[0]), default=self.middle[0])
        shown = [index for index in sorted(middle | set(users)) if index >= first]
        told = [(self.conversation.messages[index], index in middle) for index in shown]
        return [(message, goes) for message, goes in told if not message.digest]

    def _replaced(self, text: str) -> tuple[Conversation, str]:
        """The conversation with `text` in place of the middle."""
        known = self.source.format
        before = [self.stays[index] for index in sorted(self.stays) if index < self.at]
        after = [self.stays[index] for index in sorted(self.stays) if index >= self.at]
        note = known.digest(text, self._role(before, after), before, after) if text else None
        messages = known.settle([*before, *([note] if note else []), *after], note)
        whole = repair(self.source.with_messages(messages)).conversation
        if self.alternate:
            whole = whole.with_messages(known.alternate(whole.messages))
        return whole, text

    def _grew(self, result: Conversation) -> bool:
        empty = not spoken(result)  # nobody can be asked with nothing
        return empty or result.chars >= self.source.chars or heavier(result, self.source)

    def _made(self, result: Conversation, text: str, method: Method, told: str, why: str) -> Compaction:
        notice = f"{why} {told} {len(self.middle)} of {spoken(self.source)} messages.".strip()
        if result.chars > self.limit:
            notice += " The budget was not met. " + self._protected()
        return measure(
            self.source, result, method, notice, limit=self.limit, digest=len(text), count=self.count
        )

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
