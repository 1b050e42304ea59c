"""Events to a Reply: what has arrived so far, at any moment. Pure.

Strategy: one `_Slot` per output item collects its pieces. `push` takes an event and returns what a live
consumer should see of it; for a text delta that is the event itself. An item the provider finished replaces
its pieces; if it says more than the pieces did, the difference is delivered, and if it says something else
the slot is `revised` and the consumer has to be told. Calls come out only when they are finished.

The terminal `output` is never read: it may be null, empty or absent. Not here: which wire it was, what a
fault means, whether to try again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from .reply import Reply, Status
from .wire.events import (
    ArgumentsDelta,
    CommentaryDelta,
    Event,
    Finished,
    ItemDone,
    ItemStarted,
    Other,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    TextDone,
    TokenCounts,
    ToolCall,
    UsageReport,
)
from .wire.prompt import is_json_object

__all__ = ["ASIDES", "Assembler", "Loose"]

_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
_RELIEVED = "fallback"  # the item that says that another model goes on (Anthropic Messages)
_NONE: tuple[StreamEvent, ...] = ()
# phase of a message that is not the answer -> where its text goes
ASIDES = {"commentary": "commentary", "analysis": "reasoning"}
_DELTA_OF: dict[str, Callable[[str, int, int], StreamEvent]] = {
    "text": TextDelta,
    "commentary": CommentaryDelta,
    "reasoning": ReasoningDelta,
    "refusal": RefusalDelta,
}


class Loose(Struct, frozen=True):
    """An answer's last message, still open: where a continuation goes on.

    Attributes:
        index, part: its item and its last content part.
        text: the text of that part.
        message: the text of all its parts.
        parts: the parts before the last, as content.
        before: the messages before it, as input items.
        deltas: in how many pieces it arrived.
        phase: what the provider calls it: "final_answer", or "".
    """

    index: int
    part: int
    text: str
    message: str
    parts: tuple[dict[str, Any], ...]
    before: tuple[dict[str, Any], ...]
    phase: str
    deltas: int = 1


class _Slot:
    """One output item being put together. `channel` is where its text belongs."""

    __slots__ = ("channel", "choice", "done", "item", "pieces", "refusal")

    def __init__(self, item: dict[str, Any], choice: int = 0) -> None:
        self.item = item
        self.choice = choice
        self.channel = _channel(item)
        self.pieces: dict[int, list[str]] = {}
        self.refusal: list[str] = []
        self.done = False

    @property
    def kind(self) -> str:
        kind = self.item.get("type")
        return kind if isinstance(kind, str) else ""

    @property
    def text(self) -> str:
        return "".join("".join(pieces) for pieces in self.pieces.values())


class Assembler:
    """The state of one answer. `needs_arguments` names the tools that cannot be called without any."""

    def __init__(self, needs_arguments: frozenset[str] = frozenset()) -> None:
        self._needs_arguments = needs_arguments
        self._slots: dict[int, _Slot] = {}
        self._id: str | None = None
        self.id: str | None = None  # of the response under way, if it has said so
        self._model: str | None = None
        self.counts: TokenCounts | None = None
        self.finished: Finished | None = None
        self.revised = False
        self.fixed = False  # what was delivered stays: the consumer cannot be told of a revision
        self.progressed = False
        self._push: dict[type, Callable[[Any], Iterable[StreamEvent]]] = {
            TextDelta: self._text,
            ReasoningDelta: self._reasoning,
            RefusalDelta: self._refusal,
            ArgumentsDelta: self._arguments,
            TextDone: self._text_done,
            ItemStarted: self._started_item,
            ItemDone: self._done_item,
            Started: self._named,
            UsageReport: self._reported,
            Finished: self._finish,
            Other: self._other,
        }

    def push(self, event: Event) -> Iterable[StreamEvent]:
        """Take one event, return what a live consumer should see of it, in order."""
        return self._push[type(event)](event)

    # Deltas.

    def _text(self, event: TextDelta) -> Iterable[StreamEvent]:
        delta = event.delta
        if not delta:
            return _NONE
        slot = self._slots.get(event.index) or self._open(event.index, "message")
        pieces = slot.pieces.get(event.part)
        if pieces is None:
            pieces = slot.pieces[event.part] = []
        pieces.append(delta)
        self.progressed = True
        if slot.channel == "text":
            return (event,)
        return (_DELTA_OF[slot.channel](delta, event.index, event.part),) if slot.channel else _NONE

    def _reasoning(self, event: ReasoningDelta) -> Iterable[StreamEvent]:
        if not event.delta:
            return _NONE
        slot = self._slots.get(event.index) or self._open(event.index, "reasoning")
        slot.pieces.setdefault(event.part, []).append(event.delta)
        self.progressed = True
        return (event,)

    def _refusal(self, event: RefusalDelta) -> Iterable[StreamEvent]:
        if not event.delta:
            return _NONE
        slot = self._slots.get(event.index) or self._open(event.index, "message")
        slot.refusal.append(event.delta)
        self.progressed = True
        return (event,)

    def _arguments(self, event: ArgumentsDelta) -> Iterable[StreamEvent]:
        if event.delta:
            slot = self._slots.get(event.index) or self._open(event.index, "function_call")
            slot.pieces.setdefault(0, []).append(event.delta)
            self.progressed = True
        return _NONE

    def open_text(self, delta: TextDelta | ReasoningDelta) -> tuple[list[str], Callable[..., Any]] | None:
        """Where the next pieces of a text belong of which `delta` was one, and what a live consumer sees of
        each; None if that is not so simple."""
        slot = self._slots.get(delta.index)
        pieces = slot.pieces.get(delta.part) if slot else None
        if slot is None or not pieces or not slot.channel:
            return None
        return pieces, _DELTA_OF[slot.channel] if type(delta) is TextDelta else ReasoningDelta

    def _open(self, index: int, kind: str) -> _Slot:
        slot = self._slots[index] = _Slot({"type": kind})
        return slot

    # Items.

    def _started_item(self, event: ItemStarted) -> Iterable[StreamEvent]:
        self._slots[event.index] = _Slot(event.item, event.choice)
        if self._slots[event.index].kind in _CALLS:
            self.progressed = True
        return _NONE

    def _text_done(self, event: TextDone) -> Iterable[StreamEvent]:
        slot = self._slots.get(event.index)
        if slot is None or slot.done:
            return _NONE
        if event.kind == "arguments":
            slot.pieces = {0: [event.text]} if event.text else slot.pieces
            return _NONE
        if event.kind == "refusal":
            return self._catch_up("refusal", slot.refusal, event.text, event.index, event.part)
        pieces = slot.pieces.setdefault(event.part, [])
        return self._catch_up(slot.channel, pieces, event.text, event.index, event.part)

    def _done_item(self, event: ItemDone) -> Iterable[StreamEvent]:
        slot = self._slots.get(event.index) or self._open(event.index, str(event.item.get("type", "")))
        if slot.done or self._is_blank_call(event.item):
            return _NONE
        self.progressed = True
        seen: list[StreamEvent] = []
        if slot.kind == "message":
            seen = self._settle_message(slot, event)
        elif slot.kind == "reasoning":
            seen = [*self._reasoned(slot, event)]
        slot.item = event.item
        slot.done = True
        call = self._call(slot)
        return [*seen, call] if call else seen

    def _is_blank_call(self, item: dict[str, Any]) -> bool:
        """A call without the arguments its tool cannot do without is no finished call."""
        return (
            item.get("type") == "function_call"
            and str(item.get("name", "")) in self._needs_arguments
            and not str(item.get("arguments") or "").strip()
        )

    def _settle_message(self, slot: _Slot, event: ItemDone) -> list[StreamEvent]:
        channel = _channel(event.item)
        if channel != slot.channel:
            self.revised = self.revised or bool(slot.pieces)
            if self.fixed and slot.pieces:
                return []
            slot.channel = channel
        seen: list[StreamEvent] = []
        for number, part in enumerate(_parts(event.item)):
            if isinstance(text := part.get("text"), str):
                pieces = slot.pieces.setdefault(number, [])
                seen += self._catch_up(channel, pieces, text, event.index, number)
            elif isinstance(text := part.get("refusal"), str):
                seen += self._catch_up("refusal", slot.refusal, text, event.index, number)
        return seen

    def _reasoned(self, slot: _Slot, event: ItemDone) -> Iterable[StreamEvent]:
        """The rest of a reasoning item, if it goes on with what was said of it; it may hold two versions."""
        said = slot.text
        summary, content = (_joined(event.item.get(name)) for name in ("summary", "content"))
        versions = (summary, content, summary + content) if said else (summary + content,)
        whole = next((text for text in versions if text.startswith(said)), said)
        if len(slot.pieces) > 1:
            return _NONE
        part = next(iter(slot.pieces), 0)
        return self._catch_up("reasoning", slot.pieces.setdefault(part, []), whole, event.index, part)

    def _catch_up(
        self, channel: str, pieces: list[str], whole: str, index: int, part: int
    ) -> Iterable[StreamEvent]:
        """The provider gave the whole text of a part: deliver what the deltas had not said."""
        said = "".join(pieces)
        if whole == said or not whole:
            return _NONE
        if not whole.startswith(said):
            self.revised = True
            if not self.fixed:
                pieces[:] = [whole]
            return _NONE
        pieces[:] = [whole]
        self.progressed = True
        return (_DELTA_OF[channel](whole[len(said) :], index, part),)

    # Everything else.

    def _named(self, event: Started) -> Iterable[StreamEvent]:
        self._id = self.id = event.id or self._id
        self._model = event.model or self._model
        return _NONE

    def _reported(self, event: UsageReport) -> Iterable[StreamEvent]:
        self.counts = event.usage
        return _NONE

    def _other(self, event: Other) -> Iterable[StreamEvent]:
        self.progressed = self.progressed or event.progress
        return _NONE

    def _finish(self, event: Finished) -> Iterable[StreamEvent]:
        if self.finished is not None:
            return _NONE
        self.finished = event
        if event.status != "completed":
            return _NONE
        return [call for slot in self._slots.values() if (call := self._confirm(slot))]

    def _confirm(self, slot: _Slot) -> ToolCall | None:
        """A call announced and never finished, in an answer that is complete: its pieces are the call."""
        if slot.kind not in _CALLS or slot.done:
            return None
        arguments, name = (
            slot.text or str(slot.item.get(_CALLS[slot.kind]) or ""),
            str(slot.item.get("name", "")),
        )
        if slot.kind == "function_call":
            arguments = arguments if arguments.strip() or name in self._needs_arguments else "{}"
            if not name or not is_json_object(arguments):
                return None
        elif not slot.pieces:
            return None
        slot.item = {**slot.item, _CALLS[slot.kind]: arguments}
        slot.done = True
        return self._call(slot)

    def _call(self, slot: _Slot) -> ToolCall | None:
        if slot.kind not in _CALLS:
            return None
        item = slot.item
        arguments = item.get(_CALLS[slot.kind])
        text = arguments if isinstance(arguments, str) else ""
        name = str(item.get("name", ""))
        if slot.kind == "function_call" and not text.strip() and name not in self._needs_arguments:
            text = "{}"
        call_id = str(item.get("call_id") or item.get("id") or "")
        return ToolCall(call_id, name, text, slot.kind == "custom_tool_call", slot.choice)

    # Going on after a break.

    @property
    def next_index(self) -> int:
        """The first item number that is free."""
        return max(self._slots, default=-1) + 1

    def loose(self) -> Loose | str:
        """The open message that a continuation could go on with, or why there is none."""
        if not self._slots:
            return "nothing of the answer has arrived"
        for slot in self._slots.values():
            if slot.kind in _CALLS:
                return "a tool call had been finished" if slot.done else "a tool call had begun"
            if slot.kind not in ("message", "reasoning") and not slot.done:
                return "a hosted tool was at work"
            if slot.refusal or slot.choice:
                return "a refusal had begun" if slot.refusal else "several answers were under way"
        messages = [(index, slot) for index, slot in self._slots.items() if slot.kind == "message"]
        if not messages:
            return "no text of the answer had begun"
        index, slot = messages[-1]
        if slot.channel != "text" or not slot.pieces or not slot.text.strip():
            return "no text of the answer had begun"
        if slot.done:
            return "the message was finished: what follows it is no text"
        *earlier, part = slot.pieces
        before = tuple(_turn(message) for _, message in messages[:-1] if message.text)
        return Loose(
            index=index,
            part=part,
            text="".join(slot.pieces[part]),
            message=slot.text,
            parts=tuple(_output_text("".join(slot.pieces[number])) for number in earlier),
            before=before,
            phase=str(slot.item.get("phase") or ""),
            deltas=sum(map(len, slot.pieces.values())),
        )

    def reopen(self) -> None:
        """Another exchange goes on with this answer: what only the last one said of it is forgotten."""
        self.finished = None
        self.revised = False
        self.progressed = False
        self.counts = None

    def hand_over(self) -> None:
        """Another response goes on with this answer."""
        self.reopen()
        self.id = None

    def shorten(self, loose: Loose, length: int) -> None:
        """Keep only `length` characters of the open part's text: for answers nobody has seen yet."""
        pieces = self._slots[loose.index].pieces[loose.part]
        surplus = len(loose.text) - length
        while pieces and surplus >= len(pieces[-1]):
            surplus -= len(pieces.pop())
        if surplus:
            pieces[-1] = pieces[-1][:-surplus]

    def rename_call(self, event: ToolCall, call_id: str) -> None:
        """A repeated call gets the id under which it was delivered first."""
        for slot in self._slots.values():
            if slot.done and self._call(slot) == event:
                slot.item = {**slot.item, "call_id": call_id}
                return

    def size(self) -> int:
        """Characters of output so far, of every kind."""
        texts = sum(map(len, self.channels().values()))
        calls = (slot for slot in self._slots.values() if slot.kind in _CALLS)
        return texts + sum(
            max(len(slot.text), len(str(slot.item.get(_CALLS[slot.kind]) or ""))) for slot in calls
        )

    # What there is.

    def choice_of(self, index: int) -> int:
        """The alternative answer that an item belongs to."""
        slot = self._slots.get(index)
        return slot.choice if slot else 0

    def replay(self) -> list[StreamEvent]:
        """Everything deliverable so far, as if it arrived now."""
        events: list[StreamEvent] = []
        for index, slot in self._slots.items():
            if slot.channel:
                events += [
                    _DELTA_OF[slot.channel]("".join(pieces), index, part)
                    for part, pieces in slot.pieces.items()
                    if pieces
                ]
                if slot.refusal:
                    events.append(RefusalDelta("".join(slot.refusal), index))
            elif slot.done and (call := self._call(slot)):
                events.append(call)
        return events

    @property
    def unconfirmed(self) -> tuple[str, ...]:
        """Names of announced calls that never finished."""
        return tuple(
            str(slot.item.get("name", ""))
            for slot in self._slots.values()
            if slot.kind in _CALLS and not slot.done
        )

    @property
    def owed(self) -> tuple[str, ...]:
        """Of those names the ones that a whole answer cannot be without: a model that declined in the middle
        of a call and was relieved by another left it behind."""
        slots = list(self._slots.values())
        relieved = max((n for n, slot in enumerate(slots) if slot.kind == _RELIEVED), default=0)
        return tuple(
            str(slot.item.get("name", ""))
            for slot in slots[relieved:]
            if slot.kind in _CALLS and not slot.done
        )

    @property
    def could_settle(self) -> bool:
        """Whether every announced item is done, and the last of them is a final message with text."""
        slots = list(self._slots.values())
        last = slots[-1] if slots else None
        final = last is not None and last.kind == "message" and last.channel == "text" and bool(last.text)
        return final and all(slot.done and slot.item.get("status") != "incomplete" for slot in slots)

    @property
    def has_final_answer(self) -> bool:
        """Whether the provider finished a message it marked as the final answer."""
        return any(
            slot.done and slot.item.get("phase") == "final_answer" and slot.item.get("status") == "completed"
            for slot in self._slots.values()
        )

    def calls(self) -> tuple[ToolCall, ...]:
        found = [self._call(slot) for slot in self._slots.values() if slot.done]
        return tuple(call for call in found if call)

    def channels(self) -> dict[tuple[str, int], str]:
        """Everything sayable so far by (channel, choice): what a live consumer may have been shown."""
        said: dict[tuple[str, int], str] = {}
        for slot in self._slots.values():
            if not slot.channel:
                continue
            if text := slot.text:
                key = (slot.channel, slot.choice)
                said[key] = said.get(key, "") + text
            if slot.refusal:
                key = ("refusal", slot.choice)
                said[key] = said.get(key, "") + "".join(slot.refusal)
        return said

    def reply(self, status: Status, *, settled: bool = False) -> Reply:
        """The answer as it stands, called `status`."""
        said = self.channels()
        calls = self.calls()
        choices = max((slot.choice for slot in self._slots.values()), default=0) + 1
        return Reply(
            status=status,
            text=said.get(("text", 0), ""),
            texts=tuple(said.get(("text", choice), "") for choice in range(choices)),
            commentary="".join(text for (name, _), text in said.items() if name == "commentary"),
            reasoning=said.get(("reasoning", 0), ""),
            refusal=said.get(("refusal", 0), ""),
            tool_calls=calls,
            items=tuple(item for _, item in self.listing()),
            id=self._id,
            model=self._model,
            finish_reason=self._finish_reason(status, bool(calls)),
            settled=settled,
            dropped_calls=self.unconfirmed,
        )

    def _finish_reason(self, status: Status, has_calls: bool) -> str | None:
        if self.finished is not None and self.finished.reason:
            return self.finished.reason
        if self.finished is None:
            return "stop" if status == "complete" else None
        if self.finished.status != "completed" or not self.finished.confirmed:
            return "stop" if status == "complete" and self.finished.confirmed else None
        return "tool_calls" if has_calls else "stop"

    def listing(self) -> Iterable[tuple[int, dict[str, Any]]]:
        """The items worth showing, with their numbers: what is done, and open messages as they stand."""
        for index, slot in self._slots.items():
            if slot.done:
                yield index, slot.item
            elif slot.kind == "message" and (slot.pieces or slot.refusal):
                content = [_output_text("".join(pieces)) for pieces in slot.pieces.values()]
                if slot.refusal:
                    content.append({"type": "refusal", "refusal": "".join(slot.refusal)})
                whole = "completed" if self.finished and self.finished.status == "completed" else "incomplete"
                yield index, {**slot.item, "role": "assistant", "status": whole, "content": content}

    def done_items(self) -> list[tuple[int, dict[str, Any]]]:
        """The items that are done, with their numbers."""
        return [(index, slot.item) for index, slot in self._slots.items() if slot.done]

    def numbered(self) -> list[tuple[int, str]]:
        """Every item that has begun: its number and type, in their order."""
        return [(index, slot.kind) for index, slot in self._slots.items()]

    def item(self, index: int) -> dict[str, Any]:
        """What was said of an item when it was announced, or when it was done."""
        slot = self._slots.get(index)
        return slot.item if slot else {}


def _turn(slot: _Slot) -> dict[str, Any]:
    """A message as an input item: without its id, which a provider that stores nothing would not know."""
    turn = {"type": "message", "role": "assistant", "status": "completed"}
    phase = {"phase": slot.item["phase"]} if slot.item.get("phase") else {}
    return {**turn, **phase, "content": [_output_text(slot.text)]}


def _output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def _channel(item: dict[str, Any]) -> str:
    """Where the text of an item belongs; "" for items whose pieces are no text."""
    if item.get("type") == "message":
        return ASIDES.get(str(item.get("phase", "")), "text")
    return "reasoning" if item.get("type") == "reasoning" else ""


def _parts(item: dict[str, Any]) -> list[dict[str, Any]]:
    content = item.get("content")
    if isinstance(content, str):
        return [{"text": content}]
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _joined(parts: object) -> str:
    found = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "".join(part["text"] for part in found if isinstance(part.get("text"), str))
