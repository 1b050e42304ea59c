"""Relaying the Anthropic Messages wire. Pure.

Strategy: a message is a row of content blocks, one open at a time, numbered without gaps. What an answer
says after a break goes on in the block that was open, or in new ones. A tool's block, and every other block
that is neither text nor thinking, waits until it is whole. A signature is passed on with exactly the thinking
it signs: thinking that was cut goes on only if it is said again word for word.
Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..assembler import Assembler
from ..reply import Reply, Usage
from ..wire._json import NotJSON, dumps, loads, mapping, sequence, string
from ..wire.events import Event, ItemStarted, ReasoningDelta, StreamEvent, TextDelta
from ..wire.sse import ServerSentEvent
from .base import Relay, frame, payload

__all__ = ["MessagesRelay"]

# The type of an item -> the type of its content block, where they differ.
_SORTS = {"message": "text", "reasoning": "thinking", "function_call": "tool_use"}
_STOPS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "content_filter": "refusal"}


class _Block(Struct, eq=False):
    """A content block as it was delivered."""

    number: int
    kind: str
    open: bool = True
    signature: str = ""


class MessagesRelay(Relay):
    """One call's stream of message events."""

    def __init__(self, body: Mapping[str, Any], *, live: bool = True, sums: bool = True) -> None:
        super().__init__(body, live=live, sums=sums)
        self._blocks: list[_Block] = []
        self._places: dict[int, _Block] = {}
        self._shown: dict[str, Any] = {}  # the message as the consumer knows it
        self._begins: dict[str, Any] = {}  # as this exchange began it
        self._ends: dict[str, Any] = {}  # `delta` and `usage` of its end

    def begun(self, *, goes_on: bool) -> None:
        self._begins, self._ends = {}, {}
        if not goes_on:
            self._places = {}

    def is_call(self, kind: str) -> bool:
        return kind not in ("message", "reasoning")

    def note(self, body: Mapping[str, Any], events: Sequence[Event]) -> None:
        kind = string(body.get("type"))
        if kind == "message_start":
            self._shown = self._shown or mapping(body.get("message"))
        elif kind == "content_block_start":
            block = _Block(len(self._blocks), string(mapping(body.get("content_block")).get("type")))
            self._blocks.append(block)
            for event in events:
                if isinstance(event, ItemStarted):
                    self._places[event.index] = block
        elif kind == "content_block_delta":
            delta = mapping(body.get("delta"))
            if delta.get("type") == "signature_delta" and self._blocks:
                self._blocks[-1].signature = string(delta.get("signature"))
        elif kind == "content_block_stop" and self._blocks:
            self._blocks[-1].open = False

    def glimpse(self, body: Mapping[str, Any]) -> None:
        kind = string(body.get("type"))
        if kind == "message_start":
            self._begins = mapping(body.get("message"))
        elif kind == "message":
            names = ("stop_reason", "stop_sequence", "stop_details", "container")
            self._begins = {name: value for name, value in body.items() if name not in names}
            self._ends = {name: body[name] for name in (*names, "usage") if body.get(name) is not None}
        elif kind == "message_delta":
            self._ends = {**mapping(body.get("delta")), "usage": mapping(body.get("usage"))}

    # Writing.

    def spell(self, event: StreamEvent, assembler: Assembler) -> bytes:
        if isinstance(event, TextDelta):
            return self._delta(event.index, "text", {"type": "text_delta", "text": event.delta}, assembler)
        if isinstance(event, ReasoningDelta):
            delta = {"type": "thinking_delta", "thinking": event.delta}
            return self._delta(event.index, "thinking", delta, assembler)
        return self._finished(assembler)

    def _delta(self, index: int, kind: str, delta: dict[str, Any], assembler: Assembler) -> bytes:
        head = b""
        if index not in self._places:
            self._recognise(assembler)
        block = self._places.get(index)
        if block is None or not block.open:
            head = self._finished(assembler) + self._close_last(assembler)
            blank = {"text": ""} if kind == "text" else {"thinking": "", "signature": ""}
            head += self._start(index, {"type": kind, **blank})
            block = self._places[index]
        return head + _event("content_block_delta", {"index": block.number, "delta": delta})

    def _start(self, index: int, content: dict[str, Any]) -> bytes:
        block = _Block(len(self._blocks), string(content.get("type")))
        self._blocks.append(block)
        self._places[index] = block
        body = {"index": block.number, "content_block": content}
        return self._head() + _event("content_block_start", body)

    def _recognise(self, assembler: Assembler) -> None:
        """What an answer says again stands where it was delivered: the first text there, and so on."""
        ranks: Counter[str] = Counter()
        for index, kind in assembler.numbered():
            sort = _SORTS.get(kind, kind)
            if sort == "thinking" and "encrypted_content" in assembler.item(index):
                sort = "redacted_thinking"
            rank = ranks[sort]
            ranks[sort] += 1
            if index not in self._places:
                delivered = [block for block in self._blocks if block.kind == sort]
                if rank < len(delivered) and delivered[rank] not in self._places.values():
                    self._places[index] = delivered[rank]

    def _finished(self, assembler: Assembler) -> bytes:
        """The items that are done and not wholly delivered yet, in their order."""
        self._recognise(assembler)
        frames: list[bytes] = []
        for index, item in assembler.done_items():
            if index not in self._places and item.get("type") != "message":
                frames += [self._close_last(assembler), self._whole_block(index, _block(item))]
            place = self._places.get(index)
            if place is not None and place.open and place.kind == "thinking":
                frames.append(self._close_last(assembler))
        return b"".join(frames)

    def _whole_block(self, index: int, content: dict[str, Any]) -> bytes:
        arguments = content.get("input")
        told = {**content, "input": {}} if content.get("type") == "tool_use" else content
        frames = [self._start(index, told)]
        block = self._places[index]
        if content.get("type") == "tool_use":
            delta = {"type": "input_json_delta", "partial_json": dumps(arguments).decode()}
            frames.append(_event("content_block_delta", {"index": block.number, "delta": delta}))
        block.open = False
        return b"".join((*frames, _event("content_block_stop", {"index": block.number})))

    def _close_last(self, assembler: Assembler) -> bytes:
        """Tell the end of the block that is open."""
        block = self._blocks[-1] if self._blocks else None
        if block is None or not block.open:
            return b""
        frames: list[bytes] = []
        index = next((index for index, place in self._places.items() if place is block), None)
        item = assembler.item(index) if index is not None else {}
        signature = string(item.get("signature"))
        if block.kind == "thinking" and signature and signature != block.signature:
            delta = {"type": "signature_delta", "signature": signature}
            frames.append(_event("content_block_delta", {"index": block.number, "delta": delta}))
        block.open = False
        return b"".join((*frames, _event("content_block_stop", {"index": block.number})))

    def _head(self) -> bytes:
        """The beginning of the message, if the consumer has not had it."""
        if self._shown:
            return b""
        blank = {"id": "msg_sidestream", "type": "message", "role": "assistant", "model": ""}
        self._shown = {**blank, **self._begins, "content": [], "stop_reason": None, "stop_sequence": None}
        self._shown.setdefault("usage", {"input_tokens": 0, "output_tokens": 0})
        return _event("message_start", {"message": self._shown})

    # The end.

    def close(self, reply: Reply, assembler: Assembler) -> bytes:
        frames = [self._head(), self._finished(assembler), self._close_last(assembler)]
        delta = {"stop_reason": self._reason(reply), "stop_sequence": None}
        delta |= {name: value for name, value in self._ends.items() if name != "usage"}
        body = {"delta": delta, "usage": self._counts(self.tokens(reply), mapping(self._ends.get("usage")))}
        return b"".join((*frames, _event("message_delta", body), _event("message_stop", {})))

    def last_frame(self, sent: Sequence[ServerSentEvent]) -> bytes:
        told = any(payload(frame).get("type") == "message_stop" for frame in sent)
        return b"" if told else _event("message_stop", {})

    def whole(self, reply: Reply, assembler: Assembler) -> bytes:
        blank = {"id": reply.id, "type": "message", "role": "assistant", "model": reply.model}
        ends = {"stop_reason": self._reason(reply), "stop_sequence": None, **self._ends}
        content = [_block(item) for _, item in assembler.listing()]
        usage = self._counts(
            self.tokens(reply), {**mapping(self._begins.get("usage")), **mapping(ends.get("usage"))}
        )
        return dumps({**blank, **self._begins, **ends, "content": content, "usage": usage})

    @staticmethod
    def _reason(reply: Reply) -> str:
        return _STOPS.get(reply.finish_reason or "stop", reply.finish_reason or "end_turn")

    def count(self, body: dict[str, Any], usage: Usage) -> bool:
        if body.get("type") != "message_delta" or not mapping(body.get("usage")):
            return False
        body["usage"] = self._counts(usage, mapping(body["usage"]))
        return True

    @staticmethod
    def _counts(usage: Usage | None, said: Mapping[str, Any]) -> dict[str, Any]:
        if usage is None or usage.input_tokens is None or usage.output_tokens is None:
            return {"output_tokens": 0, **said}
        cached = usage.cached_tokens or 0
        read = {"cache_read_input_tokens": cached} if cached else {}
        counts = {"input_tokens": max(0, usage.input_tokens - cached), "output_tokens": usage.output_tokens}
        return {**said, **read, **counts}


def _event(kind: str, body: dict[str, Any]) -> bytes:
    return frame({"type": kind, **body}, kind)


def _block(item: dict[str, Any]) -> dict[str, Any]:
    """An item as the content block it was."""
    kind = item.get("type")
    if kind == "function_call":
        try:
            arguments = mapping(loads(string(item.get("arguments")) or "{}"))
        except NotJSON:
            arguments = {}
        return {
            "type": "tool_use", "id": item.get("call_id"), "name": item.get("name"), "input": arguments,
        }  # fmt: skip
    parts = [mapping(part) for part in sequence(item.get("content"))]
    text = "".join(string(part.get("text")) for part in parts)
    if kind == "reasoning":
        if "encrypted_content" in item:
            return {"type": "redacted_thinking", "data": item["encrypted_content"]}
        return {"type": "thinking", "thinking": text, "signature": string(item.get("signature"))}
    if kind == "message":
        notes = [note for part in parts for note in sequence(part.get("annotations"))]
        return {"type": "text", "text": text, "citations": notes or None}
    return item
