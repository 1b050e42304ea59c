"""Responses items: messages, calls, outputs and reasoning as separate objects.

Any item with `call_id` that ends in `_call` is a call and any that ends in `_output` a result; reasoning
leads the item after it. Items a model cannot do without and we cannot read (`compaction`,
`item_reference`) are pinned. `codex_rollout` reads its payloads with `item`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ....errors import UsageError
from ..conversation import Message, Part
from ..digest_text import is_digest
from .base import Framed, clean_strings, object_hint, rewritten
from .blocks import call_part, content_parts, leaves, text_of
from .chat import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..conversation import Role
    from .base import Objects, Texts

__all__ = ["RESPONSES", "digest_item", "item", "shorten_item"]

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_PINNED = ("compaction", "compaction_summary", "context_compaction", "item_reference", "additional_tools")
_CONTENT = ("input_text", "output_text", "input_image", "input_file")


class _Responses(Framed):
    name = "Responses items"

    def recognises(self, objects: Sequence[Mapping[str, Any]]) -> bool:
        known = all(_is_item(each) for each in objects)
        return bool(objects) and known and any(_is_unlike_chat(each) for each in objects)

    def messages(self, objects: Objects, sources: Texts) -> list[Message]:
        return [
            item(raw, source, f"item {number}")
            for number, (raw, source) in enumerate(zip(objects, sources, strict=True), 1)
        ]

    def digest(self, text: str, role: str, before: Sequence[Message], after: Sequence[Message]) -> Message:  # noqa: ARG002
        speaker: Role = "user" if role == "user" else "assistant"
        return Message(speaker, (Part("text", text),), digest_item(text, role), digest=True)

    def shorten(self, message: Message, results: Sequence[str]) -> Message:
        raw = shorten_item(message.raw, results)
        return rewritten(message, raw, parts=shortened(message.parts, results))


RESPONSES = _Responses()


def _is_item(raw: Mapping[str, Any]) -> bool:
    kind = raw.get("type")
    return isinstance(raw.get("role"), str) if kind in (None, "message") else isinstance(kind, str)


def _is_unlike_chat(raw: Mapping[str, Any]) -> bool:
    kind = raw.get("type")
    if isinstance(kind, str) and ("payload" not in raw and "sessionId" not in raw and "uuid" not in raw):
        return kind == "message" or kind in ("reasoning", *_PINNED) or kind.endswith(("_call", "_output"))
    content = raw.get("content")
    blocks = content if isinstance(content, list) else ()
    return any(isinstance(block, dict) and block.get("type") in _CONTENT for block in blocks)


def item(
    raw: Mapping[str, Any], source: str | None, where: str, holder: Mapping[str, Any] | None = None
) -> Message:
    """One item as a message; `holder` is the line around it, when there is one."""
    kind = raw.get("type")
    kept = raw if holder is None else holder
    if kind in (None, "message"):
        return _spoken(raw, kept, source, where)
    if not isinstance(kind, str):
        raise UsageError(f"{where} has no type", hint=object_hint())
    if kind == "reasoning":
        texts = [text_of(raw.get("summary")), text_of(raw.get("content"))]
        parts = tuple(Part("thought", text) for text in texts if text)
        return Message("assistant", parts, kept, source, leads=True)
    if kind.endswith("_output"):
        return Message("tool", (Part("result", _output(raw), str(raw.get("call_id") or "")),), kept, source)
    if kind in _PINNED:
        return Message("assistant", (), kept, source, pinned=True)
    return _called(raw, kept, source, kind)


def _spoken(raw: Mapping[str, Any], kept: Mapping[str, Any], source: str | None, where: str) -> Message:
    role = _ROLES.get(str(raw.get("role")))
    if role is None:
        hint = 'Responses items have no role "tool": a result is a function_call_output item.'
        raise UsageError(f"{where} has the unknown role {raw.get('role')!r}", hint=hint)
    parts = content_parts(raw.get("content"))
    text = "\n".join(part.text for part in parts)
    return Message(role, parts, kept, source, digest=role != "system" and is_digest(text))


def _called(raw: Mapping[str, Any], kept: Mapping[str, Any], source: str | None, kind: str) -> Message:
    told = {
        key: raw[key] for key in ("action", "queries", "code", "operation", "output", "results") if key in raw
    }
    arguments = raw.get("arguments", raw.get("input", told))
    waits = raw.get("call_id") if kind.endswith("_call") else None
    part = call_part(raw.get("name") or kind, arguments, waits)
    output = raw.get("output") if "arguments" in raw else None
    results = (Part("result", output),) if isinstance(output, str) and output else ()
    return Message("assistant", (part, *results), kept, source)


def _output(raw: Mapping[str, Any]) -> str:
    output = raw.get("output")
    return text_of(output) if isinstance(output, str | list) else "\n".join(clean_strings(leaves(output)))


def digest_item(text: str, role: str) -> dict[str, Any]:
    """The long message form, which every server accepts."""
    kind = "input_text" if role == "user" else "output_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def shorten_item(raw: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    return {**raw, "output": results[0]}
