"""Changes to one wire object that keep it valid, whichever format it is in.

A chat message, an Anthropic message and a Responses item differ in where they hold calls, results and
images; each function here takes such an object and returns it, or a changed copy. What a session file
wraps around the object is the format's business (`inner`, `with_inner`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

__all__ = ["Edit", "count_images", "cut_arguments", "without_images", "without_parts"]

Object: TypeAlias = "Mapping[str, Any]"
Edit: TypeAlias = "Callable[[Object], Object | None]"

IMAGE_NOTE = "[image left out]"
_IMAGES = {"image_url": "text", "image": "text", "input_image": "input_text"}
_DEPTH = 8  # content within results within content; deeper is nobody's message


def without_images(inner: Object) -> Object:
    """Images become a line of text."""
    changed = dict(inner)
    for key in ("content", "output"):
        if isinstance(inner.get(key), list):
            changed[key] = [_imageless(block, _DEPTH) for block in inner[key]]
    return changed if changed != inner else inner


def count_images(inner: Object) -> int:
    """How many images an object shows to a model."""
    return sum(_images(inner.get(key), _DEPTH) for key in ("content", "output"))


def _images(value: object, depth: int) -> int:
    if isinstance(value, list) and depth:
        return sum(_images(each, depth - 1) for each in value)
    if not isinstance(value, dict):
        return 0
    return 1 if value.get("type") in _IMAGES else _images(value.get("content"), depth)


def _imageless(block: object, depth: int) -> object:
    if not isinstance(block, dict):
        return block
    if block.get("type") in _IMAGES:
        return {"type": _IMAGES[block["type"]], "text": IMAGE_NOTE}
    if isinstance(block.get("content"), list) and depth:
        return {**block, "content": [_imageless(each, depth - 1) for each in block["content"]]}
    return block


def cut_arguments(inner: Object, longest: int, leaf: int) -> Object:
    """Arguments above `longest` characters with every string in them cut to `leaf`; JSON stays JSON."""

    def function(call: Any) -> Any:
        if not isinstance(call, dict):
            return call
        for key in ("function", "custom"):
            if isinstance(call.get(key), dict):
                return {**call, key: function(call[key])}
        call = dict(call)
        for key in ("arguments", "input"):
            if key in call:
                call[key] = _cut(call[key], longest, leaf, json_text=key == "arguments")
        return call

    changed = dict(inner)
    if isinstance(inner.get("tool_calls"), list):
        changed["tool_calls"] = [function(call) for call in inner["tool_calls"]]
    if isinstance(inner.get("function_call"), dict):
        changed["function_call"] = function(inner["function_call"])
    if isinstance(inner.get("content"), list):
        changed["content"] = [
            function(block) if isinstance(block, dict) and block.get("type") == "tool_use" else block
            for block in inner["content"]
        ]
    if str(inner.get("type")).endswith("_call"):
        changed = function(changed)
    return changed if changed != inner else inner


def _cut(value: Any, longest: int, leaf: int, *, json_text: bool) -> Any:
    """Cut arguments; text that should be JSON and is not stays as it is."""
    if not isinstance(value, str):
        return _leaves(value, leaf) if len(json.dumps(value)) > longest else value
    if len(value) <= longest:
        return value
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return value if json_text else _short(value, leaf)
    cut = _leaves(parsed, leaf)
    return value if cut == parsed else json.dumps(cut, ensure_ascii=value.isascii())


def _leaves(value: Any, leaf: int) -> Any:
    if isinstance(value, dict):
        return {key: _leaves(each, leaf) for key, each in value.items()}
    if isinstance(value, list):
        return [_leaves(each, leaf) for each in value]
    return _short(value, leaf) if isinstance(value, str) else value


def _short(text: str, leaf: int) -> str:
    """At most `leaf` characters, so that nothing is cut twice."""
    if len(text) <= leaf:
        return text
    note = f"… [{len(text):,} characters, cut]"
    return text[: leaf - len(note)] + note


def without_parts(inner: Object, calls: Collection[str], results: Collection[str]) -> Object | None:
    """The object without these calls and results; None when nothing is left of it."""
    if inner.get("role") in ("tool", "function"):
        return None if inner.get("tool_call_id") in results else inner
    if "call_id" in inner:
        taken = results if str(inner.get("type")).endswith("_output") else calls
        return None if inner["call_id"] in taken else inner
    changed = dict(inner)
    if isinstance(inner.get("tool_calls"), list):
        kept = [
            call for call in inner["tool_calls"] if not (isinstance(call, dict) and call.get("id") in calls)
        ]
        changed["tool_calls"] = kept
        if not kept:
            del changed["tool_calls"]
    if isinstance(inner.get("content"), list):
        changed["content"] = [block for block in inner["content"] if not _goes(block, calls, results)]
    if changed == inner:
        return inner
    return changed if changed.get("content") or changed.get("tool_calls") else None


def _goes(block: object, calls: Collection[str], results: Collection[str]) -> bool:
    if not isinstance(block, dict):
        return False
    kind = str(block.get("type"))
    if kind.endswith("tool_result"):
        return block.get("tool_use_id") in results
    return kind.endswith("tool_use") and block.get("id") in calls
