"""Exactly once: what may still reach a live consumer. Pure.

Strategy: a `Gate` stands between one attempt and the consumer. On the first attempt everything passes. After
a restart it knows what the consumer already has (`Said`) and swallows the new stream for as long as it says
the same, channel by channel and character by character; once all of it was said again, the rest passes. The
moment the new stream says something else, the consumer is told with `Restarted` and gets the new answer from
its first character: never a mixture. A consumer who cannot be told (`strict`) gets nothing of it, and the
attempt has `diverged`. The comparison is checked, never assumed. Calls are compared without their ids, which
are new each time; the id that was delivered stays.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct, field
from msgspec.structs import replace

from ..assembler import Assembler
from ..wire.events import (
    CommentaryDelta,
    ReasoningDelta,
    RefusalDelta,
    Restarted,
    StreamEvent,
    TextDelta,
    ToolCall,
)

__all__ = ["Gate", "Said"]

_CHANNELS = {
    TextDelta: "text",
    CommentaryDelta: "commentary",
    ReasoningDelta: "reasoning",
    RefusalDelta: "refusal",
}


class Said(Struct, frozen=True):
    """What a consumer has been given: text by (channel, choice), and the calls."""

    channels: dict[tuple[str, int], str] = field(default_factory=dict)
    calls: tuple[ToolCall, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.channels or self.calls)


class Gate:
    """Lets the events of one attempt through to a consumer who already has `said`."""

    def __init__(self, said: Said, *, strict: bool = False) -> None:
        self._said = said
        self.strict = strict
        self._at: dict[tuple[str, int], int] = {}
        self._calls = 0
        self._held: list[StreamEvent] = []
        self.matching = bool(said)
        self.restarted = False
        self.diverged = ""

    def admit(self, events: Iterable[StreamEvent], assembler: Assembler) -> list[StreamEvent]:
        """Of these events, what the consumer gets now. Call only while `matching`.

        What is new waits until all that was said has been said again: before that, new reasoning beside old
        text could still turn out to be a mixture.
        """
        for event in events:
            rest = self._compare(event, assembler)
            if rest is None:
                return self.restart(assembler, "the new stream says something else")
            self._held += rest
        return self._release() if self._repeated() else []

    def restart(self, assembler: Assembler, reason: str) -> list[StreamEvent]:
        """Tell the consumer, and give the new answer from its beginning."""
        self._held = []
        if self.strict:
            self.diverged = reason
            return []
        self.matching = False
        self.restarted = True
        return [Restarted(reason), *assembler.replay()]

    def end(self, assembler: Assembler) -> list[StreamEvent]:
        """The attempt finished its answer: it must have said all that the consumer has."""
        if not self.matching or self.diverged:
            return []
        if self.covers(assembler):
            return self._release()
        return self.restart(assembler, "the new stream ended earlier")

    def covers(self, assembler: Assembler) -> bool:
        """Whether the attempt has said all that the consumer has: if it ended here, nothing would be void."""
        whole = assembler.channels()
        same = all(whole.get(key, "").startswith(text) for key, text in self._said.channels.items())
        return not self.matching or (same and self._calls >= len(self._said.calls))

    def said(self, assembler: Assembler) -> Said:
        """What the consumer has by now."""
        return self._said if self.matching else Said(assembler.channels(), assembler.calls())

    def _repeated(self) -> bool:
        """Whether every character and call that the consumer has was compared and found again."""
        again = all(self._at.get(key, 0) >= len(text) for key, text in self._said.channels.items())
        return again and self._calls >= len(self._said.calls)

    def _release(self) -> list[StreamEvent]:
        self.matching = False
        held, self._held = self._held, []
        return held

    def _compare(self, event: StreamEvent, assembler: Assembler) -> list[StreamEvent] | None:
        """What is new in the event, or None if it contradicts what was said."""
        if isinstance(event, ToolCall):
            number, self._calls = self._calls, self._calls + 1
            if number >= len(self._said.calls):
                return [event]
            known_call = self._said.calls[number]
            if replace(event, call_id=known_call.call_id) != known_call:
                return None
            assembler.rename_call(event, known_call.call_id)
            return []
        if not isinstance(event, (TextDelta, CommentaryDelta, ReasoningDelta, RefusalDelta)):
            return [event]
        key = (_CHANNELS[type(event)], assembler.choice_of(event.index))
        at = self._at.get(key, 0)
        self._at[key] = at + len(event.delta)
        known = self._said.channels.get(key, "")[at : at + len(event.delta)]
        if not event.delta.startswith(known):
            return None
        rest = event.delta[len(known) :]
        return [replace(event, delta=rest)] if rest else []
