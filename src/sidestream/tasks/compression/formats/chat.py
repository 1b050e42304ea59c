"""Chat messages: what Chat Completions takes, and Anthropic's blocks in the same shape.

`{"role", "content"}` with `tool_calls`, `tool` results by `tool_call_id`, the old `function_call`, or
`tool_use` and `tool_result` blocks. As a JSON array, an object with `messages`, or one message a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ....errors import UsageError
from ..conversation import Message, Part
from ..digest_text import is_digest, part_digest
from .base import Framed, object_hint, rewritten
from .blocks import call_part, content_parts, replace_results, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..conversation import Role
    from .base import Objects, Texts

__all__ = ["CHAT"]

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


class _Chat(Framed):
    name = "chat messages"

    def recognises(self, objects: Sequence[Mapping[str, Any]]) -> bool:
        return bool(objects) and all(isinstance(each.get("role"), str) for each in objects)

    def messages(self, objects: Objects, sources: Texts) -> list[Message]:
        return [
            _message(raw, source, number)
            for number, (raw, source) in enumerate(zip(objects, sources, strict=True), 1)
        ]

    def digest(self, text: str, role: str, before: Sequence[Message], after: Sequence[Message]) -> Message:  # noqa: ARG002
        raw = {"role": role, "content": text}
        return Message("user" if role == "user" else "assistant", (Part("text", text),), raw, digest=True)

    def shorten(self, message: Message, results: Sequence[str]) -> Message:
        content = message.raw.get("content")
        blocks = any(part.kind == "result" for part in content_parts(content))
        new = replace_results(content, results) if blocks else results[0]
        return rewritten(message, {**message.raw, "content": new}, parts=shortened(message.parts, results))

    def alternate(self, messages: Sequence[Message]) -> list[Message]:
        merged: list[Message] = []
        for message in messages:
            if merged and _mergeable(merged[-1], message):
                merged[-1] = self._merged(merged[-1], message)
            else:
                merged.append(message)
        return merged

    def separate(self, messages: Sequence[Message]) -> list[Message]:
        return [each for message in messages for each in self._parted(message)]

    def _merged(self, first: Message, second: Message) -> Message:
        # A user's own text is never searched for a digest, so one that joins it is a block of its own.
        blocks = first.role == "user" and (first.digest or second.digest)
        content = _joined(first.raw.get("content"), second.raw.get("content"), blocks=blocks)
        raw = {**first.raw, **second.raw, "content": content}
        return rewritten(first, raw, **_read(self.messages([raw], [None])[0]))

    def _parted(self, message: Message) -> list[Message]:
        if message.digest or message.role not in ("user", "assistant", "tool"):
            return [message]
        text, content = _digest_within(message.raw.get("content"))
        if not text or (message.role != "assistant" and isinstance(message.raw["content"], str)):
            return [message]
        raw = {**message.raw, "content": content}
        role = str(raw["role"])
        rest = rewritten(message, raw, **_read(self.messages([raw], [None])[0]))
        return [self.digest(text, role, (), ()), rest]


CHAT = _Chat()


def shortened(parts: Sequence[Part], results: Sequence[str]) -> tuple[Part, ...]:
    """The parts with the texts of the results replaced, in order."""
    waiting = iter(results)
    return tuple(Part("result", next(waiting), part.id) if part.kind == "result" else part for part in parts)


def _message(raw: Mapping[str, Any], source: str | None, number: int) -> Message:
    role = _ROLES.get(raw["role"])
    content = raw.get("content")
    if role is None:
        raise UsageError(f"message {number} has the unknown role {raw['role']!r}", hint=object_hint())
    if content is not None and not isinstance(content, str | list):
        what = type(content).__name__
        raise UsageError(
            f"message {number}: content is a {what}, expected text or blocks", hint=object_hint()
        )
    if role == "tool":
        return Message(
            role, (Part("result", text_of(content), str(raw.get("tool_call_id") or "")),), raw, source
        )
    parts = (*_reasoning(raw), *content_parts(content), *_calls(raw))
    kinds = {part.kind for part in parts}
    if role == "user" and "result" in kinds:
        return Message("tool", parts, raw, source, pinned="text" in kinds)
    ours = role != "system" and len(parts) == 1 and kinds == {"text"} and is_digest(parts[0].text)
    return Message(role, parts, raw, source, digest=ours)


def _read(message: Message) -> dict[str, Any]:
    """What a changed object means, for the message that holds it."""
    return {each: getattr(message, each) for each in ("role", "parts", "pinned", "digest")}


def _mergeable(first: Message, second: Message) -> bool:
    """Two neighbours of one speaker, the first of whom calls nothing."""
    role = first.raw.get("role")
    same = role == second.raw.get("role") and role in ("user", "assistant")
    return (
        same
        and first.raw.get("name") == second.raw.get("name")
        and not any(part.kind == "call" for part in first.parts)
    )


def _joined(first: Any, second: Any, *, blocks: bool) -> Any:
    if isinstance(first, str | None) and isinstance(second, str | None) and not blocks:
        return "\n\n".join(text for text in (first, second) if text)
    both = [*_blocks(first), *_blocks(second)]
    thinking = [block for block in both if isinstance(block, dict) and "thinking" in str(block.get("type"))]
    return [*thinking, *(block for block in both if block not in thinking)]


def _blocks(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def _digest_within(content: Any) -> tuple[str, Any]:
    """The digest that was merged into a message's content, and the content without it."""
    if isinstance(content, str):
        text, rest = part_digest(content)
        return text, rest or None
    for at, block in enumerate(content if isinstance(content, list) else ()):
        if isinstance(block, dict) and isinstance(block.get("text"), str) and is_digest(block["text"]):
            return block["text"], [*content[:at], *content[at + 1 :]]
    return "", content


def _reasoning(raw: Mapping[str, Any]) -> tuple[Part, ...]:
    for key in ("reasoning_content", "reasoning"):
        if isinstance(raw.get(key), str) and raw[key]:
            return (Part("thought", raw[key]),)
    return ()


def _calls(raw: Mapping[str, Any]) -> tuple[Part, ...]:
    found: list[Part] = []
    calls = raw.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            function = call.get("function") or call.get("custom")
            inner = function if isinstance(function, dict) else call
            found.append(
                call_part(inner.get("name"), inner.get("arguments", inner.get("input")), call.get("id"))
            )
    old = raw.get("function_call")
    if isinstance(old, dict):
        found.append(call_part(old.get("name"), old.get("arguments"), None))
    return tuple(found)
