"""Shortening tool output without a model. Pure.

What a tool printed long ago is the cheapest thing to lose: of identical results the newest stays, an older
result becomes one line that says what ran, how much it printed and what failed, long arguments are cut leaf
by leaf so that JSON stays JSON, and an old image becomes a line of text. The newest turns are left alone
unless they alone are too large; then their results go in steps, the very newest last. No message
disappears, no word of a user or an assistant changes, and nothing is done twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .compaction import heavier, measure
from .conversation import estimate_tokens
from .digest_text import cut
from .formats.edits import count_images, cut_arguments, without_images
from .groups import group
from .marks import Cues
from .redact import redact
from .units import lines

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from .compaction import Compaction
    from .conversation import Conversation, Message

__all__ = ["IMAGE_TOKENS", "Pruned", "prune"]

IMAGE_TOKENS = 1_000  # what an image is taken to cost; providers charge between 85 and 1,600
_RESULT_LEAST = 200  # shorter results, and cut leaves, are not worth a note
_ARGUMENTS_LEAST = 500
_NOTE = 190  # below _RESULT_LEAST, so that a note is never taken for a result to shorten
_SAME = "[the same as a later result]"
_SCANNED = 20_000  # characters at each end of a result searched for what failed


@dataclass(frozen=True, slots=True)
class Pruned:
    """A conversation with its tool output shortened.

    Attributes:
        source: the conversation given.
        conversation: the result; the same one when nothing was to be done.
        results, calls, images: how many of each were shortened or left out.
        tokens: how many tokens fewer, images at `IMAGE_TOKENS` each.
    """

    source: Conversation
    conversation: Conversation
    results: int = 0
    calls: int = 0
    images: int = 0
    tokens: int = 0

    @property
    def changed(self) -> bool:
        return bool(self.results or self.calls or self.images)

    @property
    def notice(self) -> str:
        """What was done, for a person."""
        if not self.changed:
            return "There was no old tool output to shorten."
        kinds = ((self.results, "tool result"), (self.calls, "tool call"), (self.images, "image"))
        told = [f"{count} {name}{'s' if count > 1 else ''}" for count, name in kinds if count]
        return f"Shortened {', '.join(told)}; no model was asked."

    def compaction(self, limit: int, count: Callable[[str], int] = estimate_tokens) -> Compaction:
        """The result in the form of every compression; `limit` is the budget in characters."""
        useful = self.changed and self.tokens > 0 and not heavier(self.conversation, self.source)
        if useful:
            return measure(self.source, self.conversation, "pruned", self.notice, limit=limit, count=count)
        notice = "There was no old tool output to shorten."
        return measure(self.source, self.source, "none", notice, limit=limit, count=count)


def prune(
    conversation: Conversation,
    *,
    tail: int,
    least: int = 3,
    overshoot: float = 1.5,
    count: Callable[[str], int] = estimate_tokens,
) -> Pruned:
    """Shorten what tools printed.

    Args:
        tail: characters of the newest turns that are left alone.
        least: messages that are left alone at least …
        overshoot: … unless the newest turns exceed `tail` by this factor.
        count: counts tokens, for what was freed.
    """
    newest = _newest(conversation, tail, least)
    work = _Work(conversation)
    work.same_results()
    work.old_results(index for index in range(len(work.messages)) if index not in newest)
    work.pressure(newest, int(tail * overshoot), least)
    results = sum(a is not b for a, b in zip(conversation.messages, work.messages, strict=True))
    calls, images = _edit_old(conversation, work.messages, newest)
    if not results and not calls and not images:
        return Pruned(conversation, conversation)
    pruned = conversation.with_messages(work.messages)
    freed = conversation.count(count) - pruned.count(count) + IMAGE_TOKENS * images
    return Pruned(conversation, pruned, results, calls, images, freed)


def _newest(conversation: Conversation, tail: int, least: int) -> set[int]:
    """The indices of the newest groups: at least so many messages, and all that fit."""
    newest: set[int] = set()
    for each in reversed(group(conversation.messages)):
        size = sum(conversation.messages[index].chars for index in each.indices)
        if size > tail and len(newest) >= least:
            break
        newest.update(each.indices)
        tail -= size
    return newest


def _edit_old(
    conversation: Conversation, messages: list[Message], newest: Collection[int]
) -> tuple[int, int]:
    """Cut arguments and leave images out before the newest turns; return how many of each."""
    known, calls, images = conversation.format, 0, 0
    for index, message in enumerate(messages):
        if message.role == "note" or index in newest:
            continue
        changed = known.edited(message, lambda inner: cut_arguments(inner, _ARGUMENTS_LEAST, _RESULT_LEAST))
        if changed is not None and changed.chars < message.chars:
            calls, message = calls + 1, changed  # noqa: PLW2901 -- the next edit goes on top
        shown = count_images(known.inner(message.raw))
        without = known.edited(message, without_images) if shown else None
        messages[index] = message if without is None else without
        images += shown
    return calls, images


class _Work:
    """The messages while their results are shortened; an untouched message stays the same object."""

    def __init__(self, conversation: Conversation) -> None:
        self.messages = list(conversation.messages)
        self._format = conversation.format
        self._calls = {
            part.id: part.text
            for message in conversation.messages
            for part in message.parts
            if part.kind == "call" and part.id
        }
        self._cues = Cues()

    def same_results(self) -> None:
        """Of identical results the newest stays."""
        seen: set[str] = set()
        for index in range(len(self.messages) - 1, -1, -1):
            texts = self._results(index)
            new = [_SAME if len(text) >= _RESULT_LEAST and text in seen else text for text in texts]
            seen.update(texts)
            self._put(index, texts, new)

    def old_results(self, indices: Iterable[int]) -> None:
        """Each long result becomes one line."""
        for index in indices:
            texts = self._results(index)
            ids = [part.id for part in self.messages[index].parts if part.kind == "result"]
            new = [
                self._line(self._calls.get(id_, ""), text) if len(text) > _RESULT_LEAST else text
                for id_, text in zip(ids, texts, strict=True)
            ]
            self._put(index, texts, new)

    def pressure(self, newest: Collection[int], most: int, least: int) -> None:
        """Results of the newest turns go too while those exceed `most`: the last ones last."""
        order = sorted(newest)
        holders = [index for index in order if self._results(index)]
        for going in (order[:-least], holders[:-1]):
            if self._size(newest) > most:
                self.old_results(going)
        over = self._size(newest) - most
        if over <= 0 or not holders:
            return
        texts = self._results(holders[-1])
        longest = max(range(len(texts)), key=lambda at: len(texts[at]))
        limit = max(_RESULT_LEAST, len(texts[longest]) - over)
        new = [cut(text, limit) if at == longest else text for at, text in enumerate(texts)]
        self._put(holders[-1], texts, new)

    def _size(self, indices: Iterable[int]) -> int:
        return sum(self.messages[index].chars for index in indices)

    def _results(self, index: int) -> list[str]:
        message = self.messages[index]
        if message.role != "tool":
            return []
        return [part.text for part in message.parts if part.kind == "result"]

    def _put(self, index: int, texts: list[str], new: list[str]) -> None:
        if new != texts and sum(map(len, new)) < sum(map(len, texts)):
            self.messages[index] = self._format.shorten(self.messages[index], new)

    def _line(self, call: str, text: str) -> str:
        """What ran, how much it printed, how it begins and what failed; quotes only, secrets out."""
        ran = redact(" ".join(call.split("\n", 2)[:2])).strip()
        size = f"{len(text):,} characters left out"
        said = [redact(each) for each in self._telling(text)]
        pieces = [_clip(ran, 60), size, *(f"“{_clip(each, 50)}”" for each in said)]
        note = "; ".join(piece for piece in pieces if piece)
        return f"[{_clip(note, _NOTE - 2)}]"

    def _telling(self, text: str) -> list[str]:
        """The first line, and the first that reports a failure."""
        ends = text if len(text) <= 2 * _SCANNED else f"{text[:_SCANNED]}\n{text[-_SCANNED:]}"
        places = list(lines(ends))
        failed = (
            (start, end)
            for start, end in places
            if any(cue.category == "failure" for cue in self._cues.find(ends, start, end))
        )
        found = dict.fromkeys([*places[:1], *([place] if (place := next(failed, None)) else [])])
        return [ends[start:end] for start, end in found]


def _clip(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
