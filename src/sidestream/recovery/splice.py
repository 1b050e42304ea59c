"""A new stream that goes on where an old one broke off, event by event. Pure.

Strategy: the assembler of the old stream lives on, with its last message still open. A `Splice` stands
between the new stream's decoder and that assembler. The new stream's first message is the rest of the open
one: its text goes through a `Seam` and on to the old place. Reasoning and chatter before that belong to the
way, not to the answer, and are left out. Later items get the next free numbers. A stream that does
not join (no anchor, a call where text should go on, a refusal) fails the splice: nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from ..assembler import ASIDES, Assembler, Loose
from ..wire._json import mapping, sequence
from ..wire.events import (
    ArgumentsDelta,
    Event,
    Finished,
    ItemDone,
    ItemStarted,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TextDone,
)
from .seam import Seam

__all__ = ["Splice"]


class Splice:
    """Maps the events of a continuation to the assembler of the answer it continues.

    Attributes:
        failed: why the new stream does not join, or "".
        seen: characters of output that arrived, kept or not.
        progressed: output arrived that the assembler never sees.
    """

    def __init__(self, assembler: Assembler, loose: Loose, seam: Seam, prefilled: str = "") -> None:
        self.failed = ""
        self.seen = 0
        self.progressed = False
        self._assembler = assembler
        self._loose = loose
        self._seam = seam
        self._prefilled = prefilled  # the turn that the request ended with
        self._base = assembler.next_index
        self._message: int | None = None  # the new stream's number of the open message
        self._said: list[str] = []  # its text so far
        self._places: dict[int, int] = {}
        self._handle: dict[type, Callable[[Any], list[Event]]] = {
            TextDelta: self._text,
            ReasoningDelta: self._other_delta,
            RefusalDelta: self._refusal,
            ArgumentsDelta: self._other_delta,
            TextDone: self._text_done,
            ItemStarted: self._started,
            ItemDone: self._done,
            Finished: self._finished,
        }

    def push(self, events: Iterable[Event]) -> list[Event]:
        """The same events as the old stream's, as far as they belong to its answer."""
        out: list[Event] = []
        for event in events:
            if self.failed:
                break
            handle = self._handle.get(type(event))
            if handle is None:
                out.append(event)
            else:
                out += handle(event)
        return out

    @property
    def _joined(self) -> bool:
        return self._seam.state == "joined"

    def _fail(self, reason: str) -> list[Event]:
        self.failed = reason
        return []

    def _started(self, event: ItemStarted) -> list[Event]:
        kind = event.item.get("type")
        if self._message is None and kind == "message" and event.item.get("phase") not in ASIDES:
            self._message = event.index
            return []
        if kind in ("message", "reasoning") and (self._message is None or not self._joined):
            return []
        rest = [] if self._message is None else self._close()  # the text was over before this began
        if not self._joined:
            return self._fail(self.failed or "something else came where the text should go on")
        place = self._places[event.index] = self._base + len(self._places)
        return [*rest, ItemStarted(place, event.item, event.choice)]

    def _text(self, event: TextDelta) -> list[Event]:
        self.seen += len(event.delta)
        if event.index == self._message:
            return self._feed(event.delta)
        return self._other_delta(event, counted=True)

    def _feed(self, delta: str) -> list[Event]:
        self.progressed = self.progressed or bool(delta)
        self._said.append(delta)
        rest = self._seam.feed(delta)
        if self._seam.state == "failed":
            return self._fail(self._seam.reason)
        return [TextDelta(rest, self._loose.index, self._loose.part)] if rest else []

    def _other_delta(self, event: Any, *, counted: bool = False) -> list[Event]:
        self.progressed = self.progressed or bool(event.delta)
        if not counted:
            self.seen += len(event.delta)
        place = self._places.get(event.index)
        return [replace(event, index=place)] if place is not None else []

    def _refusal(self, event: RefusalDelta) -> list[Event]:
        if event.index != self._message:
            return self._other_delta(event)
        if not self._joined:
            return self._fail("the model declined to go on")
        self.seen += len(event.delta)
        return [replace(event, index=self._loose.index)]

    def _text_done(self, event: TextDone) -> list[Event]:
        if event.index != self._message:
            place = self._places.get(event.index)
            return [replace(event, index=place)] if place is not None else []
        return self._whole(self._own(event.text)) if event.kind == "text" and event.part == 0 else []

    def _own(self, text: str) -> str:
        """A whole text without the prefilled turn: llama.cpp's deltas leave that out, whole texts do not."""
        said = "".join(self._said)
        whole = self._prefilled + said
        echoed = text.startswith(whole) and (text == whole or not text.startswith(said))
        return text[len(self._prefilled) :] if echoed else text

    def _whole(self, text: str) -> list[Event]:
        """The whole text of the new message is known: what the deltas had not said is said now."""
        said = "".join(self._said)
        if not text.startswith(said):
            if not self._joined or not text.startswith(said[: self._seam.cut]):
                return self._fail("the continuation contradicts itself before it joined")
            return [TextDone(self._stitched(text), "text", self._loose.index, self._loose.part)]
        return self._feed(text[len(said) :]) if text != said else []

    def _stitched(self, text: str) -> str:
        """The whole text of the open part, of which `text` is the new message."""
        return self._loose.text + text[self._seam.cut :]

    def _done(self, event: ItemDone) -> list[Event]:
        if event.index != self._message:
            place = self._places.get(event.index)
            return [ItemDone(place, event.item, event.choice)] if place is not None else []
        parts = [mapping(part) for part in sequence(event.item.get("content"))]
        told = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
        text = self._own(told)
        events = self._whole(text) if text else []
        events += self._close()
        if self.failed:
            return []
        whole = self._stitched(text or "".join(self._said))
        offset = len(self._loose.text) - self._seam.cut - (len(told) - len(text))
        notes = [_moved(note, offset) for part in parts for note in _notes(part)]
        last = {"type": "output_text", "text": whole, "annotations": notes}
        item = {**event.item, "content": [*self._loose.parts, last]}
        return [*events, ItemDone(self._loose.index, item)]

    def _finished(self, event: Finished) -> list[Event]:
        if event.status == "failed":
            return [event]
        events = self._close()
        nothing = not self._places and not "".join(self._said)[self._seam.cut :].strip()
        if nothing and self._seam.goes_on and event.status == "completed":
            return self._fail("the continuation added nothing, and the answer ends in the middle")
        return [] if self.failed else [*events, event]

    def _close(self) -> list[Event]:
        """The new message is over: now or never it joins."""
        rest = self._seam.end()
        if self._seam.state == "failed":
            return self._fail(self._seam.reason)
        return [TextDelta(rest, self._loose.index, self._loose.part)] if rest else []


_OFFSETS = ("start_index", "end_index", "index")


def _notes(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [mapping(note) for note in sequence(part.get("annotations"))]


def _moved(note: dict[str, Any], by: int) -> dict[str, Any]:
    """An annotation whose character offsets follow its text."""
    return {
        name: value + by if name in _OFFSETS and isinstance(value, int) else value
        for name, value in note.items()
    }
