"""The decision what stays and what goes. Pure.

What always stays: system messages, every user message word for word, and what is pinned. The newest groups
stay as far as their share of the room goes; the very newest is kept with shortened results rather than
lost, because a model that called a tool waits for its answer; a call that still waits stays whole. A user
message right before the tail belongs to it. Everything else is the middle. The tail stops at an earlier
digest and at a broken group: those are always rewritten.

A `Budget` says how long the whole may be; a `Shape` (from a policy) how much of which part stays, in tokens
of the target model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .conversation import estimate_tokens
from .digest_text import cut
from .formats.edits import without_images
from .groups import group, unpaired
from .plan import Plan
from .policy import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from .budget import Budget
    from .conversation import Conversation, Message
    from .groups import Group

__all__ = ["prepare"]

_TAIL_SHARE = 0.25  # of what the user's words leave of the budget
_NEWEST_SHARE = 0.4  # the newest group may take this much before its results are shortened
_LEAST_SHARE = 0.05  # of the source: what a digest gets even when the user's words fill the budget
_LEAST = 200
_RESULT_LEAST = 60


def prepare(
    conversation: Conversation,
    budget: Budget | Shape,
    *,
    count: Callable[[str], int] = estimate_tokens,
    alternate: bool = False,
) -> Plan:
    """Decide what stays and what goes.

    Args:
        budget: the length of the whole, or the shape of what stays.
        count: counts tokens as the target model does.
        alternate: whether neighbours of one role are to be merged in the result.
    """
    parted = conversation.with_messages(conversation.format.separate(conversation.messages))
    groups = group(parted.messages)
    if isinstance(budget, Shape):
        stays = _by_shape(parted, groups, budget, count)
        room = _digest_room(parted, _middle(parted, stays), budget, count)
        limit = sum(message.chars for message in stays.values()) + room
    else:
        stays, limit, room = _by_budget(parted, groups, budget, count)
    middle = _middle(parted, stays)
    stays |= _notes(parted.messages, set(middle))
    return Plan(conversation, parted, limit, stays, middle, _start_of_tail(middle), room, count, alternate)


def _middle(conversation: Conversation, stays: Collection[int]) -> tuple[int, ...]:
    """The indices of what goes."""
    return tuple(
        index
        for index, message in enumerate(conversation.messages)
        if message.role != "note" and index not in stays
    )


def _by_budget(
    conversation: Conversation, groups: Sequence[Group], budget: Budget, count: Callable[[str], int]
) -> tuple[dict[int, Message], int, int]:
    """What stays when the whole has a length: (messages, limit, room for the digest) in characters."""
    messages = conversation.messages
    limit = budget.characters(conversation, count)
    fixed = _fixed(messages, groups)
    rest = limit - sum(messages[index].chars for index in fixed)
    rest = max(rest, _LEAST, min(int(conversation.chars * _LEAST_SHARE), limit // 4))
    tail = _tail(conversation, groups, fixed, rest)
    room = rest - sum(message.chars for message in tail.values())
    return {index: messages[index] for index in fixed} | tail, limit, room


def _fixed(messages: Sequence[Message], groups: Sequence[Group]) -> set[int]:
    """System messages, the user's words, what is pinned, and a call that waits for its answer."""
    fixed: set[int] = set(groups[-1].indices if _waits(messages, groups) else ())
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
            tail.update(
                members if fits else _shortened(conversation, members, room, int(rest * _NEWEST_SHARE))
            )
            break
        if size > room:
            break
        tail.update(members)
        room -= size
    return tail


def _shortened(
    conversation: Conversation, members: Mapping[int, Message], room: int, most: int
) -> dict[int, Message]:
    """A group with its results cut to the room, or nothing when its own words take more than `most`."""
    results = [len(part.text) for each in members.values() for part in each.parts if part.kind == "result"]
    words = sum(message.chars for message in members.values()) - sum(results)
    if not results or words + _RESULT_LEAST * len(results) > most:
        return {}
    limit = max(_RESULT_LEAST, (room - words) // len(results))
    shorter: dict[int, Message] = {}
    for index, message in members.items():
        texts = [part.text for part in message.parts if part.kind == "result"]
        cuts = [cut(text, limit) for text in texts]
        shorter[index] = message if cuts == texts else conversation.format.shorten(message, cuts)
    return shorter


def _by_shape(
    conversation: Conversation, groups: Sequence[Group], shape: Shape, count: Callable[[str], int]
) -> dict[int, Message]:
    """What stays of a conversation by a policy's shape."""
    messages = conversation.messages
    tail_room = int(shape.tail * _rate(conversation, count))
    most = int(tail_room * shape.overshoot)
    fixed = _fixed(messages, groups)
    fixed |= _head(messages, groups, shape.head, tail_room)
    tail = _shaped_tail(conversation, groups, fixed, shape, tail_room)
    reply = _last_reply(messages, groups)
    if sum(messages[index].chars for index in reply) <= most:
        fixed |= reply - set(tail)
    stays = {index: messages[index] for index in fixed} | tail
    newest = min(tail, default=len(messages))
    return {
        index: message if index >= newest or message.role == "note" else _imageless(conversation, message)
        for index, message in stays.items()
    }


def _rate(conversation: Conversation, count: Callable[[str], int]) -> float:
    """Characters to a token of this conversation."""
    return conversation.chars / max(1, conversation.count(count))


def _digest_room(
    conversation: Conversation, middle: Sequence[int], shape: Shape, count: Callable[[str], int]
) -> int:
    gone = sum(conversation.messages[index].chars for index in middle)
    rate = _rate(conversation, count)
    share = int(gone * shape.digest_share)
    return max(int(shape.digest_least * rate), min(share, int(shape.digest_most * rate)))


def _head(messages: Sequence[Message], groups: Sequence[Group], most: int, room: int) -> set[int]:
    """The groups of the first messages after the system's, unless one is larger than the tail may be."""
    spoken = [at for at, message in enumerate(messages) if message.role not in ("note", "system")][:most]
    head: set[int] = set()
    for each in groups:
        size = sum(messages[index].chars for index in each.indices)
        usable = not each.broken and not any(messages[index].digest for index in each.indices)
        if usable and size <= room and not set(spoken).isdisjoint(each.indices):
            head.update(each.indices)
    return head


def _shaped_tail(
    conversation: Conversation, groups: Sequence[Group], fixed: Collection[int], shape: Shape, room: int
) -> dict[int, Message]:
    """The newest groups: what fits, the one that crosses the end, and at least some messages."""
    messages = conversation.messages
    tail: dict[int, Message] = {}
    most, used = int(room * shape.overshoot), 0
    for each in reversed(groups):
        members = {index: messages[index] for index in each.indices if index not in fixed}
        if not members:
            continue
        if each.broken or any(message.digest for message in members.values()):
            break
        size = sum(message.chars for message in members.values())
        if used >= room and len(tail) >= shape.least:
            break
        if used + size > most:
            if len(tail) >= shape.least:
                break
            members = _shortened(conversation, members, max(0, most - used), most)
            if not members:
                break
            size = sum(message.chars for message in members.values())
        tail.update(members)
        used += size
    return tail


def _last_reply(messages: Sequence[Message], groups: Sequence[Group]) -> set[int]:
    """The group of the last words that the assistant said to the user."""
    for each in reversed(groups):
        if any(_speaks(messages[index]) for index in each.indices) and not each.broken:
            return set(each.indices)
    return set()


def _speaks(message: Message) -> bool:
    if message.role != "assistant" or message.digest:
        return False
    return any(part.kind == "text" and part.text.strip() for part in message.parts)


def _imageless(conversation: Conversation, message: Message) -> Message:
    return conversation.format.edited(message, without_images) or message


def _waits(messages: Sequence[Message], groups: Sequence[Group]) -> bool:
    """Whether the conversation ends in a call that has no answer yet."""
    if not groups or groups[-1].broken:
        return False
    _, calls = unpaired(messages)
    return any(index in groups[-1].indices for index, _ in calls)


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
