"""Codex rollout files: lines of `{timestamp, type, payload}`, where `response_item` payloads are Responses
items.

`session_meta` and the newest `turn_context` stay. Events repeat the conversation for the screen; they go
with the items beside them, except the user's own. What precedes the last `compacted` line is out of the
model's context already: it is kept as it is and not counted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ....errors import UsageError
from ..conversation import Message, Part
from .base import Framed, object_hint, rewritten
from .blocks import text_of
from .chat import shortened
from .responses import digest_item, item, shorten_item

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..conversation import Role
    from .base import Objects, Texts

__all__ = ["CODEX_ROLLOUT"]

_TYPES = ("session_meta", "response_item", "event_msg", "turn_context", "compacted")


class _CodexRollout(Framed):
    name = "Codex rollout"

    def recognises(self, objects: Sequence[Mapping[str, Any]]) -> bool:
        return any(each.get("type") in _TYPES and "payload" in each for each in objects)

    def messages(self, objects: Objects, sources: Texts) -> list[Message]:
        kinds = [raw.get("type") for raw in objects]
        start = len(kinds) - 1 - kinds[::-1].index("compacted") if "compacted" in kinds else 0
        newest = len(kinds) - 1 - kinds[::-1].index("turn_context") if "turn_context" in kinds else -1
        found = [
            _line(raw, source, number)
            for number, (raw, source) in enumerate(zip(objects, sources, strict=True), 1)
        ]
        return [
            Message("note", (), each.raw, each.source, pinned=True) if at < start or at == newest else each
            for at, each in enumerate(found)
        ]

    def inner(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        return raw["payload"] if raw.get("type") == "response_item" else {}

    def with_inner(self, raw: Mapping[str, Any], inner: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**raw, "payload": inner}

    def digest(self, text: str, role: str, before: Sequence[Message], after: Sequence[Message]) -> Message:
        beside = next((each.raw for each in (*reversed(before), *after)), {})
        raw = {
            "timestamp": beside.get("timestamp", ""),
            "type": "response_item",
            "payload": digest_item(text, role),
        }
        speaker: Role = "user" if role == "user" else "assistant"
        return Message(speaker, (Part("text", text),), raw, digest=True)

    def shorten(self, message: Message, results: Sequence[str]) -> Message:
        payload = shorten_item(message.raw["payload"], results)
        return rewritten(
            message, {**message.raw, "payload": payload}, parts=shortened(message.parts, results)
        )


CODEX_ROLLOUT = _CodexRollout()


def _line(raw: Mapping[str, Any], source: str | None, number: int) -> Message:
    kind, payload = raw.get("type"), raw.get("payload")
    if not isinstance(payload, dict):
        raise UsageError(f"line {number} of the Codex rollout has no payload object", hint=object_hint())
    if kind == "response_item":
        return item(payload, source, f"line {number}", holder=raw)
    if kind == "compacted":
        return _compacted(raw, payload, source)
    kept = kind != "turn_context" and (kind != "event_msg" or payload.get("type") == "user_message")
    return Message("note", (), raw, source, pinned=kept)


def _compacted(raw: Mapping[str, Any], payload: Mapping[str, Any], source: str | None) -> Message:
    """What Codex itself compacted: the model's memory of everything above, so it counts and stays."""
    history = payload.get("replacement_history")
    texts = [text_of(each.get("content")) for each in history or () if isinstance(each, dict)]
    texts = texts or [str(payload.get("message") or "")]
    parts = tuple(Part("text", text) for text in texts if text)
    return replace(Message("system", parts, raw, source), pinned=True)
