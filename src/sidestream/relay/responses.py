"""Relaying the Responses wire. Pure.

Strategy: `_Out` is an output item as the consumer knows it: its number, its id, which parts were announced.
What an answer says after a break goes into the item that was open, or into new ones. The stream has one
response: the id, time and numbering of the first; the terminal event lists the items of the answer under the
ids they were delivered with, and counts the tokens of all exchanges. Reasoning and hosted tools of an answer
that is written come whole, when they are done: their pieces would contradict what was shown of the first.
Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from ..assembler import Assembler
from ..reply import Reply, Usage
from ..wire._json import dumps, integer, mapping, string
from ..wire.events import CommentaryDelta, Event, ItemStarted, RefusalDelta, StreamEvent, TextDelta, ToolCall
from .base import CALLS, Relay, frame, read

__all__ = ["ResponsesRelay"]

_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "response.done"})
_DELTAS = {TextDelta: "output_text", CommentaryDelta: "output_text", RefusalDelta: "refusal"}


class _Out(Struct, eq=False):
    """An output item as it was delivered."""

    number: int
    id: str
    kind: str
    item: dict[str, Any]  # as it was announced
    phase: str = ""
    parts: dict[int, str] = field(default_factory=dict)  # content index -> its type, once announced
    told: set[int] = field(default_factory=set)  # parts whose end was told
    done: bool = False


class ResponsesRelay(Relay):
    """One call's stream of response events."""

    ignores = frozenset({"reasoning"})

    def __init__(self, body: Mapping[str, Any], *, live: bool = True, sums: bool = True) -> None:
        super().__init__(body, live=live, sums=sums)
        self._outs: list[_Out] = []
        self._places: dict[int, _Out] = {}  # the answer's number of an item -> as it was delivered
        self._numbered = -1
        self._created: dict[str, Any] = {}  # the response as it was announced to the consumer
        self._unannounced = False  # it has no announcement, and yet its items have begun
        self._begins: dict[str, Any] = {}  # as this exchange announced it
        self._ends: dict[str, Any] = {}  # as this exchange ended it

    def begun(self, *, goes_on: bool) -> None:
        self._begins, self._ends = {}, {}
        if not goes_on:
            self._places = {}

    def note(self, body: Mapping[str, Any], events: Sequence[Event]) -> None:
        kind = string(body.get("type"))
        number = integer(body.get("sequence_number"))
        self._numbered = self._numbered if number is None else max(self._numbered, number)
        if "response" in body and not self._created and kind not in _TERMINAL:
            self._created = mapping(body["response"])
        started = next((event for event in events if isinstance(event, ItemStarted)), None)
        if started is not None:
            self._unannounced = not self._created
            number = integer(body.get("output_index"))
            item_id = string(started.item.get("id")) or string(body.get("item_id"))
            out = _Out(
                len(self._outs) if number is None else number,
                item_id,
                string(started.item.get("type")),
                started.item,
                string(started.item.get("phase")),
            )
            self._outs.append(out)
            self._places[started.index] = out
        place = self._out_of(body)
        if place is None:
            return
        part = integer(body.get("content_index"))
        if part is not None:
            place.parts.setdefault(part, "refusal" if ".refusal." in kind else "output_text")
            if kind == "response.content_part.added":
                place.parts[part] = string(mapping(body.get("part")).get("type")) or "output_text"
            elif kind == "response.content_part.done":
                place.told.add(part)
        if kind == "response.output_item.done":
            place.done = True
            place.id = string(mapping(body.get("item")).get("id")) or place.id

    def _out_of(self, body: Mapping[str, Any]) -> _Out | None:
        number, item_id = integer(body.get("output_index")), string(body.get("item_id"))
        found = (
            out for out in reversed(self._outs) if out.number == number or (item_id and out.id == item_id)
        )
        return next(found, None)

    def glimpse(self, body: Mapping[str, Any]) -> None:
        kind = string(body.get("type"))
        response = mapping(body.get("response"))
        if body.get("object") == "response":
            self._begins = self._ends = dict(body)
        elif kind in _TERMINAL:
            self._ends = response
        elif response and not self._begins:
            self._begins = response

    # Writing.

    def spell(self, event: StreamEvent, assembler: Assembler) -> bytes:
        if isinstance(event, ToolCall):
            return self._finished(assembler)
        sort = _DELTAS.get(type(event))
        if sort is None:
            return b""  # reasoning comes with its item
        head = self._message(event.index, assembler)  # type: ignore[union-attr]  # a delta
        out = self._places[event.index]  # type: ignore[union-attr]
        number = _number(out, event.part, sort)  # type: ignore[union-attr]
        part = self._part(out, number, sort)
        delta = {
            "item_id": out.id,
            "output_index": out.number,
            "content_index": number,
            "delta": event.delta,  # type: ignore[union-attr]
        }
        more: dict[str, Any] = {"logprobs": []} if sort == "output_text" else {}
        return head + part + self._frame(f"response.{sort}.delta", {**delta, **more})

    def _message(self, index: int, assembler: Assembler) -> bytes:
        """What has to be told before a message can go on."""
        if index not in self._places:
            self._recognise(assembler)
        if index in self._places and not self._places[index].done:
            return b""
        told = self._finished(assembler) + self._close_messages(assembler)
        item = assembler.item(index)
        out = self._new("message", string(item.get("id")), string(item.get("phase")))
        self._places[index] = out
        item = {**item, "id": out.id, "type": "message", "role": "assistant"}
        item |= {"status": "in_progress", "content": []}
        added = self._frame("response.output_item.added", {"output_index": out.number, "item": item})
        return told + added

    def _recognise(self, assembler: Assembler) -> None:
        """What an answer says again stands where it was delivered: the first message there, and so on."""
        ranks: Counter[tuple[str, str]] = Counter()
        for index, kind in assembler.numbered():
            if kind != "message" and kind not in CALLS:
                continue  # comes whole
            sort = kind, string(assembler.item(index).get("phase"))
            rank = ranks[sort]
            ranks[sort] += 1
            if index not in self._places:
                delivered = [out for out in self._outs if (out.kind, out.phase) == sort]
                if rank < len(delivered) and delivered[rank] not in self._places.values():
                    self._places[index] = delivered[rank]

    def _part(self, out: _Out, part: int, sort: str) -> bytes:
        if part in out.parts:
            return b""
        out.parts[part] = sort
        body = {"item_id": out.id, "output_index": out.number, "content_index": part, "part": _part(sort, "")}
        return self._frame("response.content_part.added", body)

    def _new(self, kind: str, item_id: str, phase: str = "") -> _Out:
        number = max((out.number for out in self._outs), default=-1) + 1
        taken = {out.id for out in self._outs}
        if not item_id or item_id in taken:
            item_id = f"{_PREFIX.get(kind, 'item')}_{string(self._shown().get('id'))}_{number}"
        out = _Out(number, item_id, kind, {}, phase)
        self._outs.append(out)
        return out

    def _finished(self, assembler: Assembler) -> bytes:
        """The items that are done and not delivered yet, messages apart: each whole."""
        self._recognise(assembler)
        frames: list[bytes] = []
        for index, item in assembler.done_items():
            kind = string(item.get("type"))
            if index in self._places or kind == "message":
                continue
            frames += [self._close_messages(assembler), self._item(index, kind, item)]
        return b"".join(frames)

    def _item(self, index: int, kind: str, item: dict[str, Any]) -> bytes:
        out = self._new(kind, string(item.get("id")))
        self._places[index] = out
        out.done = True
        item = {**item, "id": out.id}
        field_name = {"function_call": "arguments", "custom_tool_call": "input"}.get(kind)
        blank = {field_name: "", "status": "in_progress"} if field_name else {}
        frames = [
            self._frame("response.output_item.added", {"output_index": out.number, "item": {**item, **blank}})
        ]
        if field_name:
            text = string(item.get(field_name))
            where = {"item_id": out.id, "output_index": out.number}
            sort = f"response.{kind}_{field_name}"
            named = {"name": item.get("name")} if kind == "function_call" else {}
            frames += [
                self._frame(f"{sort}.delta", {**where, "delta": text}),
                self._frame(f"{sort}.done", {**where, **named, field_name: text}),
            ]
        done = {"output_index": out.number, "item": item}
        return b"".join((*frames, self._frame("response.output_item.done", done)))

    def _close_messages(self, assembler: Assembler) -> bytes:
        """Tell the end of every message that is still open for the consumer."""
        items = dict(assembler.listing())
        frames: list[bytes] = []
        for index, out in self._places.items():
            if out.kind != "message" or out.done or index not in items:
                continue
            out.done = True
            item = self._delivered(index, items[index])
            for place, content in enumerate(map(mapping, item["content"])):
                sort = string(content.get("type"))
                part = _number(out, place, sort)
                if part in out.told:
                    continue
                where = {"item_id": out.id, "output_index": out.number, "content_index": part}
                name = "text" if sort == "output_text" else "refusal"
                more: dict[str, Any] = {"logprobs": []} if sort == "output_text" else {}
                frames += [
                    self._part(out, part, sort),
                    self._frame(f"response.{sort}.done", {**where, name: content.get(name), **more}),
                    self._frame("response.content_part.done", {**where, "part": content}),
                ]
            frames.append(
                self._frame("response.output_item.done", {"output_index": out.number, "item": item})
            )
        return b"".join(frames)

    def _give_up(self) -> bytes:
        """Tell the end of what was announced and is no part of the answer: clients wait for it."""
        frames: list[bytes] = []
        for out in self._outs:
            if not out.done:
                out.done = True
                item = {**out.item, "id": out.id, "status": "incomplete"}
                body = {"output_index": out.number, "item": item}
                frames.append(self._frame("response.output_item.done", body))
        return b"".join(frames)

    def _delivered(self, index: int, item: dict[str, Any]) -> dict[str, Any]:
        """An item of the answer under the id the consumer knows."""
        out = self._places.get(index)
        if out is None or not out.id:
            return item
        if out.kind == "message":
            item = {"type": "message", "role": "assistant", "content": [], **item}
        if out.kind != "reasoning":
            item = {**item, "status": item.get("status") or "completed"}
        return {**item, "id": out.id}

    # The end.

    def last_words(self) -> bytes:
        words = super().last_words()
        # Readers of this wire take no event before the response is there.
        return self._head() + words if words else words

    def close(self, reply: Reply, assembler: Assembler) -> bytes:
        items = self._finished(assembler) + self._close_messages(assembler) + self._give_up()
        response = self._final(reply, assembler)
        return items + self._frame(f"response.{response['status']}", {"response": response})

    def whole(self, reply: Reply, assembler: Assembler) -> bytes:
        return dumps(self._final(reply, assembler))

    def _final(self, reply: Reply, assembler: Assembler) -> dict[str, Any]:
        cut = assembler.finished is not None and assembler.finished.status == "incomplete"
        first = self._shown()
        blank: dict[str, Any] = {"incomplete_details": None, "error": None}
        blank |= {"parallel_tool_calls": True, "tools": []}
        response = {"object": "response", "model": reply.model, **blank, **first, **self._ends}
        response["id"] = first.get("id") or reply.id
        response["created_at"] = first.get("created_at", 0)
        response["status"] = "incomplete" if cut else "completed"
        response["output"] = [self._delivered(index, item) for index, item in assembler.listing()]
        if (usage := self.tokens(reply)) is not None:
            response["usage"] = self._usage(usage, mapping(self._ends.get("usage")))
        return response

    def count(self, body: dict[str, Any], usage: Usage) -> bool:
        response = mapping(body.get("response"))
        if not response.get("usage"):
            return False
        response["usage"] = self._usage(usage, mapping(response["usage"]))
        return True

    @staticmethod
    def _usage(usage: Usage, said: Mapping[str, Any]) -> dict[str, Any] | None:
        if usage.input_tokens is None or usage.output_tokens is None:
            return dict(said) or None
        return {
            **said,
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {
                **mapping(said.get("input_tokens_details")), "cached_tokens": usage.cached_tokens or 0
            },
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {
                **mapping(said.get("output_tokens_details")), "reasoning_tokens": usage.reasoning_tokens or 0
            },
            "total_tokens": usage.total_tokens,
        }  # fmt: skip

    def _shown(self) -> dict[str, Any]:
        """The response as the consumer knows it."""
        return self._created or self._begins or self._ends

    def _head(self) -> bytes:
        """The announcement of the response, if the consumer has not had it."""
        if self._created:
            return b""
        self._created = {"object": "response", "output": [], **self._begins, "status": "in_progress"}
        self._created = {"id": "resp_sidestream", "created_at": 0, "model": "", **self._created}
        self._created |= {"output": [], "usage": None}
        if self._unannounced:
            return b""
        return self._frame("response.created", {"response": self._created})

    def _frame(self, kind: str, body: dict[str, Any]) -> bytes:
        if self.last is not None:
            self._numbered = max(self._numbered, integer(read(self.last).get("sequence_number")) or 0)
            self.last = None
        head = self._head()
        self._numbered += 1
        return head + frame({"type": kind, "sequence_number": self._numbered, **body}, kind)


_PREFIX = {"message": "msg", "function_call": "fc", "custom_tool_call": "ctc", "reasoning": "rs"}


def _number(out: _Out, part: int, sort: str) -> int:
    """Where a part of the answer stands in the item that was delivered: at its own number, unless a part of
    another sort was announced there."""
    if out.parts.get(part, sort) == sort:
        return part
    known = (number for number, found in out.parts.items() if found == sort and number > part)
    return next(known, max(out.parts) + 1)


def _part(sort: str, text: str) -> dict[str, Any]:
    if sort == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
