"""A conversation as the Messages wire wants it: turns of content blocks, and the system's words apart.

Strategy: every entry, a chat message, a Responses item or a message in this wire's own form, becomes content
of the user or of the assistant, and what one of them says in a row is one turn. Calls, results and images
change their form; content that has this form already, and blocks of an answer that come back as items, pass
as they are. Blank text is left out, because it is refused; nothing else is trimmed.

Reasoning goes back only with the signature (or as the sealed block) it came with. What has no place here,
hosted calls of Responses above all, is left out.
Source: https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ._json import NotJSON, loads, mapping, sequence, string
from .prompt import block_role, is_block, plain_text

__all__ = ["to_turns"]

Blocks = list[dict[str, Any]]
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.+-]+)*;base64,(.*)", re.DOTALL)
_NOT_IN_AN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_SEALED_BY_OPENAI = "gAAAA"  # a Fernet token


def to_turns(
    entries: Iterable[dict[str, Any]], instructions: str = "", given: object = None
) -> tuple[str | Blocks, list[dict[str, Any]]]:
    """The system's words and the turns; the former are text if they came as text.

    Args:
        given: the system's words in this wire's own form, which come after the instructions.
    """
    system: list[object] = [instructions, given]
    turns: list[dict[str, Any]] = []
    for entry in entries:
        role = entry.get("role")
        if role in ("system", "developer"):
            system.append(entry.get("content"))
            continue
        role, content = _said(entry)
        if content:
            _append(turns, role, content)
    return _system(system), turns


def _system(parts: Iterable[object]) -> str | Blocks:
    said = [part for part in parts if part]
    if all(isinstance(part, str) for part in said):
        return "\n\n".join(string(part) for part in said)
    return [block for part in said for block in _blocks(part)]


def _append(turns: list[dict[str, Any]], role: str, content: str | Blocks) -> None:
    """The same speaker goes on, or the other one begins."""
    last = turns[-1] if turns else {}
    if last.get("role") == role:
        turns[-1] = {"role": role, "content": [*_blocks(last["content"]), *_blocks(content)]}
    else:
        turns.append({"role": role, "content": content})


def _said(entry: dict[str, Any]) -> tuple[str, str | Blocks]:
    """Who says it, and what."""
    role, kind = entry.get("role"), string(entry.get("type"))
    if role in ("tool", "function"):
        call_id = string(entry.get("tool_call_id")) or string(entry.get("name"))
        return "user", [_result(call_id, entry.get("content"))]
    if role is not None or kind == "message":
        return _message(entry, "assistant" if role == "assistant" else "user")
    if kind in ("function_call", "custom_tool_call"):
        custom = {"input": entry.get("input", "")} if kind == "custom_tool_call" else None
        return "assistant", [_call(entry, entry.get("call_id"), custom)]
    if kind in ("function_call_output", "custom_tool_call_output"):
        return "user", [_result(string(entry.get("call_id")), entry.get("output"))]
    if kind == "reasoning":
        return "assistant", _thinking(entry)
    if is_block(entry):
        return block_role(entry), [entry]
    return "assistant", []


def _message(entry: dict[str, Any], role: str) -> tuple[str, str | Blocks]:
    content = entry.get("content")
    calls = [mapping(call) for call in sequence(entry.get("tool_calls"))]
    if isinstance(content, str) and content.strip() and not calls:
        return role, content
    blocks = _blocks(content)
    for call in calls:
        blocks.append(_call(mapping(call.get("function")) or mapping(call.get("custom")), call.get("id")))
    return role, blocks


def _blocks(content: object) -> Blocks:
    """Content of any form as blocks, without blank text."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    parts = [_block(mapping(part)) for part in sequence(content)]
    return [part for part in parts if part and not _is_blank(part)]


def _is_blank(part: dict[str, Any]) -> bool:
    return part.get("type") == "text" and not string(part.get("text")).strip()


def _block(part: dict[str, Any]) -> dict[str, Any]:
    kind = part.get("type")
    if kind in ("input_text", "output_text"):
        notes = filter(None, map(_citation, map(mapping, sequence(part.get("annotations")))))
        cited = {"citations": found} if (found := list(notes)) else {}
        return {"type": "text", "text": string(part.get("text")), **cited}
    if kind == "refusal":
        return {"type": "text", "text": string(part.get("refusal"))}
    if kind in ("image_url", "input_image"):
        image = part.get("image_url")
        return _image(image if isinstance(image, str) else string(mapping(image).get("url")))
    return part


def _citation(note: dict[str, Any]) -> dict[str, Any]:
    """A citation as it may be sent back; {} for another wire's."""
    ours = string(note.get("type")).endswith("_location")
    return {name: note[name] for name in note if name != "file_id"} if ours else {}


def _image(url: str) -> dict[str, Any]:
    if found := _DATA_URL.fullmatch(url):
        source = {"type": "base64", "media_type": found.group(1), "data": found.group(2)}
    else:
        source = {"type": "url", "url": url}
    return {"type": "image", "source": source}


def _call(call: dict[str, Any], call_id: object, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """A call: its input is an object, so free text is put into one."""
    if given is None:
        text = string(call.get("arguments")) or string(call.get("input"))
        try:
            given = mapping(loads(text)) if text.strip() else {}
        except NotJSON:
            given = {"input": text}
    name = string(call.get("name"))
    return {"type": "tool_use", "id": _id(call_id), "name": name, "input": given}


def _result(call_id: str, output: object) -> dict[str, Any]:
    blocks = _blocks(output) if isinstance(output, list) else []
    content: str | Blocks = blocks or plain_text(output)
    return {"type": "tool_result", "tool_use_id": _id(call_id), "content": content}


def _id(call_id: object) -> str:
    """A call's id in the characters that an id may have here."""
    return _NOT_IN_AN_ID.sub("_", string(call_id)) or "call"


def _thinking(item: dict[str, Any]) -> Blocks:
    """Reasoning that came over this wire, as the block it was; another wire's has no place here."""
    sealed = string(item.get("encrypted_content"))
    if signature := string(item.get("signature")):
        parts = (mapping(part) for part in sequence(item.get("content")))
        text = "".join(string(part.get("text")) for part in parts)
        return [{"type": "thinking", "thinking": text, "signature": signature}]
    named = any(item.get(name) for name in ("id", "summary", "content"))
    if sealed and not named and not sealed.startswith(_SEALED_BY_OPENAI):
        return [{"type": "redacted_thinking", "data": sealed}]
    return []
