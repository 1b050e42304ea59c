"""The decision what stays and what goes. Pure.

What always stays: system messages, every user message word for word, and what is pinned. The newest groups
stay as far as their share of the room goes; the very newest is kept with shortened results rather than
lost, because a model that called a tool waits for its answer. A user message right before the tail belongs
to it. Everything else is the middle. The tail stops at an earlier digest and at a broken group: those are
always rewritten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .digest_text import CUT
from .groups import group
from .plan import Plan

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .budget import Budget
    from .conversation import Conversation, Message
    from .groups import Group

__all__ = ["prepare"]

_TAIL_SHARE = 0.25  # of what the user's words leave of the budget
_NEWEST_SHARE = 0.4  # the newest group may take this much before its results are shortened
_LEAST_SHARE = 0.05  # of the source: what a digest gets even when the user's words fill the budget
_LEAST = 200
_RESULT_LEAST = 60


def prepare(conversation: Conversation, budget: Budget) -> Plan:
    """Decide what stays and what goes."""
    messages = conversation.messages
    limit = budget.characters(conversation)
    groups = group(messages)
    fixed = _fixed(messages, groups)
    rest = limit - sum(messages[index].chars for index in fixed)
    rest = max(rest, _LEAST, min(int(conversation.chars * _LEAST_SHARE), limit // 4))
    tail = _tail(conversation, groups, fixed, rest)
    stays = {index: messages[index] for index in fixed} | tail
    middle = tuple(at for at, message in enumerate(messages) if message.role != "note" and at not in stays)
    room = rest - sum(message.chars for message in tail.values())
    stays |= _notes(messages, set(middle))
    return Plan(conversation, limit, stays, middle, _start_of_tail(middle), room)


def _fixed(messages: Sequence[Message], groups: Sequence[Group]) -> set[int]:
    """System messages, the user's words, and every group that holds something pinned."""
    fixed: set[int] = set()
    for each in groups:
        pinned = any(messages[index].pinned for index in each.indices)
        for index in each.indices:
            message = messages[index]
            if pinned or (message.role in ("system", "user") and not message.digest):
                fixed.add(index)
    return fixed


def _tail(
    conversation: Conversation, groups: Sequence[Group], fixed: Collection[int], rest: int
) -> dict[int, Message]:
    messages = conversation.messages
    tail: dict[int, Message] = {}
    room = int(rest * _TAIL_SHARE)
    for each in reversed(groups):
        members = {index: messages[index] for index in each.indices if index not in fixed}
        if not members:
            continue
        if each.broken or any(message.digest for message in members.values()):
            break
        size = sum(message.chars for message in members.values())
        if not tail and size > room:
            fits = size <= rest * _NEWEST_SHARE
            tail.update(members if fits else _shortened(conversation, members, room, rest))
            break
        if size > room:
            break
        tail.update(members)
        room -= size
    return tail


def _shortened(
    conversation: Conversation, members: Mapping[int, Message], room: int, rest: int
) -> dict[int, Message]:
    """A group with its results cut to the room, or nothing when its own words are too long already."""
    results = [len(part.text) for each in members.values() for part in each.parts if part.kind == "result"]
    words = sum(message.chars for message in members.values()) - sum(results)
    if not results or words + _RESULT_LEAST * len(results) > rest * _NEWEST_SHARE:
        return {}
    limit = max(_RESULT_LEAST, (room - words) // len(results))
    shorter: dict[int, Message] = {}
    for index, message in members.items():
        texts = [part.text for part in message.parts if part.kind == "result"]
        cut = [_cut(text, limit) for text in texts]
        shorter[index] = message if cut == texts else conversation.format.shorten(message, cut)
    return shorter


def _cut(text: str, limit: int) -> str:
    """The start and the end of a result, with the gap said."""
    if len(text) <= limit:
        return text
    words = limit - len(CUT) - 2
    head = max(0, words * 2 // 3)
    return f"{text[:head]}\n{CUT}\n{text[len(text) - max(0, words - head) :]}"


def _notes(messages: Sequence[Message], middle: Collection[int]) -> dict[int, Message]:
    """The bookkeeping lines that stay: all but those beside a message that goes."""
    spoken = [index for index, message in enumerate(messages) if message.role != "note"]
    notes: dict[int, Message] = {}
    position = 0
    for index, message in enumerate(messages):
        if message.role != "note":
            position += 1
            continue
        beside = spoken[max(0, position - 1) : position + 1]
        if message.pinned or not any(each in middle for each in beside):
            notes[index] = message
    return notes


def _start_of_tail(middle: Sequence[int]) -> int:
    """The digest comes after everything that stays before the last message that goes."""
    return middle[-1] + 1 if middle else 0
