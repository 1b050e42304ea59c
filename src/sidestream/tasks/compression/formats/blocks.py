"""Content blocks: what the fields of every wire mean to a reader.

Chat content parts, Responses content items and Anthropic blocks differ in names only, so one function
reads them all. Unknown blocks count as nothing readable; they stay in `raw`. A call's arguments are shown
as their leaves, not as escaped JSON, because the identifiers in them are worth keeping.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..conversation import Part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["call_part", "content_parts", "leaves", "replace_results", "text_of"]

_TEXT = ("text", "input_text", "output_text", "summary_text", "reasoning_text")
_THOUGHT = ("thinking", "reasoning")


def text_of(content: object) -> str:
    """The readable text of a content field: a string, or blocks of any wire."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [block if isinstance(block, str) else _block_text(block) for block in content]
    return "\n".join(text for text in texts if text)


def _block_text(block: object) -> str:
    if not isinstance(block, dict):
        return ""
    for key in ("text", "refusal", "output"):
        if isinstance(block.get(key), str):
            return str(block[key])
    return text_of(block.get("content"))


def content_parts(content: object) -> tuple[Part, ...]:
    """The parts of a content field, calls and results included."""
    if isinstance(content, str):
        return (Part("text", content),) if content else ()
    if not isinstance(content, list):
        return ()
    return tuple(part for block in content if isinstance(block, dict) for part in _block_parts(block))


def _block_parts(block: Mapping[str, Any]) -> tuple[Part, ...]:
    kind = block.get("type")
    if kind == "tool_use" or kind == "server_tool_use":
        return (call_part(block.get("name"), block.get("input"), block.get("id")),)
    if isinstance(kind, str) and kind.endswith("tool_result"):
        return (Part("result", text_of(block.get("content")), str(block.get("tool_use_id") or "")),)
    if kind in _THOUGHT:
        thought = block.get("thinking")
        return (Part("thought", thought),) if isinstance(thought, str) and thought else ()
    text = _block_text(block) if kind in _TEXT or kind in (None, "refusal") else ""
    return (Part("text", text),) if text else ()


def call_part(name: object, arguments: object, call_id: object) -> Part:
    """A call: its name and the leaves of its arguments, one a line."""
    if isinstance(arguments, str):
        with suppress(ValueError, RecursionError):  # a model's arguments may be anything: then as they are
            arguments = json.loads(arguments)
    lines = [name if isinstance(name, str) else "", *leaves(arguments)]
    return Part("call", "\n".join(line for line in lines if line), str(call_id or ""))


def leaves(value: object) -> list[str]:
    """Every string and number in a JSON value, in order; a short one keeps its key."""
    found: list[str] = []
    waiting: list[tuple[str, object]] = [("", value)]
    while waiting:
        key, each = waiting.pop()
        if isinstance(each, dict):
            waiting.extend((str(name), inner) for name, inner in reversed(each.items()))
        elif isinstance(each, list):
            waiting.extend((key, inner) for inner in reversed(each))
        elif isinstance(each, str):
            found.append(each)
        elif isinstance(each, int | float) and not isinstance(each, bool):
            found.append(f"{key} = {each}" if key else str(each))
    return found


def replace_results(content: object, texts: Sequence[str]) -> object:
    """A content field whose tool results say something shorter, in order."""
    if not isinstance(content, list):
        return content
    waiting = iter(texts)
    changed: list[object] = []
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        is_result = isinstance(kind, str) and kind.endswith("tool_result")
        changed.append({**block, "content": next(waiting)} if is_result else block)
    return changed
