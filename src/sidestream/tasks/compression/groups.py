"""What must stay or go together.

A call and its results, the lines one wire message was split into, reasoning and what it led to, and a tool
message without an id with the message before it. Groups are sets of indices, not ranges, because a user
may speak between a call and its result. A group is broken when it holds a result without a call, or a call
that was never answered although the conversation went on; a broken group cannot be sent to a model again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .conversation import Message

__all__ = ["Group", "group", "unpaired"]


@dataclass(frozen=True, slots=True)
class Group:
    """Indices that stay or go together, in order."""

    indices: tuple[int, ...]
    broken: bool = False


class _Sets:
    """Union-find over message indices."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        self._parent[second] = first


def group(messages: Sequence[Message]) -> list[Group]:
    """The groups of a conversation, notes left out, ordered by their last message."""
    spoken = [index for index, message in enumerate(messages) if message.role != "note"]
    sets = _Sets(len(messages))
    _join_neighbours(messages, spoken, sets)
    orphans, unanswered = _join_calls(messages, spoken, sets)
    members: dict[int, list[int]] = {}
    for index in spoken:
        members.setdefault(sets.find(index), []).append(index)
    last = sets.find(spoken[-1]) if spoken else -1
    broken = {sets.find(index) for index in orphans}
    broken |= {root for root in map(sets.find, unanswered) if root != last}
    found = [Group(tuple(indices), root in broken) for root, indices in members.items()]
    return sorted(found, key=lambda each: each.indices[-1])


def _join_neighbours(messages: Sequence[Message], spoken: Sequence[int], sets: _Sets) -> None:
    bundles: dict[str, int] = {}
    for before, index in zip([-1, *spoken], spoken, strict=False):
        message = messages[index]
        if message.bundle:
            sets.join(bundles.setdefault(message.bundle, index), index)
        if before < 0 or messages[before].role in ("system", "user"):
            continue
        nameless = message.role == "tool" and not any(part.id for part in message.parts)
        led = messages[before].leads and message.role in ("assistant", "tool")
        if nameless or led:
            sets.join(before, index)


def _join_calls(messages: Sequence[Message], spoken: Sequence[int], sets: _Sets) -> tuple[set[int], set[int]]:
    """Join results to the newest call of their id; return (results without call, calls without result)."""
    results, calls = _pair(messages, spoken, sets.join)
    return {index for index, _ in results}, {index for index, _ in calls}


def unpaired(messages: Sequence[Message]) -> tuple[set[tuple[int, str]], set[tuple[int, str]]]:
    """Results without a call before them, and calls without a result behind them, as (index, id)."""
    spoken = [index for index, message in enumerate(messages) if message.role != "note"]
    return _pair(messages, spoken, lambda _call, _result: None)


def _pair(
    messages: Sequence[Message], spoken: Sequence[int], found: Callable[[int, int], None]
) -> tuple[set[tuple[int, str]], set[tuple[int, str]]]:
    calls: dict[str, int] = {}
    unanswered: dict[str, int] = {}
    orphans: set[tuple[int, str]] = set()
    waiting: set[tuple[int, str]] = set()
    for index in spoken:
        for part in messages[index].parts:
            if part.kind == "call" and part.id:
                if part.id in unanswered:
                    waiting.add((unanswered[part.id], part.id))
                calls[part.id] = unanswered[part.id] = index
            elif part.kind == "result" and part.id:
                unanswered.pop(part.id, None)
                if part.id in calls:
                    found(calls[part.id], index)
                else:
                    orphans.add((index, part.id))
    return orphans, waiting | {(index, id_) for id_, index in unanswered.items()}
