"""Calls and results that have lost each other. Pure.

No provider takes a result without its call, or a call that was never answered while the conversation went
on. Such parts are taken out, with what stands beside them kept; a message of which nothing is left goes. A
call at the very end still waits for its answer and stays. A compaction quotes broken groups in its digest,
so there this step only finds what the digest could not take.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .formats.edits import without_parts
from .groups import group, unpaired

if TYPE_CHECKING:
    from .conversation import Conversation, Message

__all__ = ["Repaired", "repair"]


@dataclass(frozen=True, slots=True)
class Repaired:
    """A conversation every provider takes.

    Attributes:
        conversation: the result; the very one given when nothing was broken.
        calls: calls without a result that were taken out.
        results: results without a call that were taken out.
    """

    conversation: Conversation
    calls: int = 0
    results: int = 0

    @property
    def changed(self) -> bool:
        return bool(self.calls or self.results)

    @property
    def notice(self) -> str:
        """What was done, for a person."""
        return (
            f"Took out {self.calls} calls without a result and {self.results} results without a call."
            if self.changed
            else ""
        )


def repair(conversation: Conversation) -> Repaired:
    """Take out calls without a result and results without a call."""
    messages = conversation.messages
    results, calls = unpaired(messages)
    pending = _last(messages)
    calls = {(index, id_) for index, id_ in calls if index not in pending}
    if not results and not calls:
        return Repaired(conversation)
    gone: dict[int, tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for index, id_ in calls:
        gone[index][0].add(id_)
    for index, id_ in results:
        gone[index][1].add(id_)
    kept: list[Message] = []
    for index, message in enumerate(messages):
        whole = _without(conversation, message, *gone[index]) if index in gone else message
        if whole is not None:
            kept.append(whole)
        else:
            _drop_lead(kept)
    settled = conversation.format.settle(kept, None)
    return Repaired(conversation.with_messages(settled), len(calls), len(results))


def _without(
    conversation: Conversation, message: Message, calls: set[str], results: set[str]
) -> Message | None:
    changed = conversation.format.edited(message, lambda inner: without_parts(inner, calls, results))
    return None if changed is None else replace(changed, pinned=changed.pinned or message.pinned)


def _drop_lead(kept: list[Message]) -> None:
    """Reasoning that led to what went goes with it."""
    while kept and kept[-1].leads:
        kept.pop()


def _last(messages: tuple[Message, ...]) -> set[int]:
    groups = group(messages)
    return set(groups[-1].indices) if groups else set()
