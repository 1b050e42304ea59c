"""Claude Code session files: lines linked by `uuid` and `parentUuid`, with Anthropic messages inside.

One wire message is split over several lines with the same `message.id`. `isMeta` lines are the program's
words, not the user's. What precedes the last `compact_boundary`, and every side chain, is kept as it is
and not counted. The digest is one entry of the form Claude Code itself writes (`isCompactSummary`); after
it the chain of parents is linked again, so that no line points to one that went.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from ....errors import UsageError
from ..conversation import Message, Part
from ..digest_text import is_digest
from .base import Framed, object_hint, rewritten
from .blocks import content_parts, replace_results, text_of
from .chat import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .base import Objects, Texts

__all__ = ["CLAUDE_CODE"]

_COPIED = ("sessionId", "cwd", "version", "gitBranch", "userType", "entrypoint", "slug", "timestamp")
_SPACE = uuid.UUID("6f1d5b1e-7d0c-5f0a-9a55-7c1f6c0c5de7")


class _ClaudeCode(Framed):
    name = "Claude Code"

    def recognises(self, objects: Sequence[Mapping[str, Any]]) -> bool:
        return any("uuid" in each and "parentUuid" in each and "type" in each for each in objects)

    def messages(self, objects: Objects, sources: Texts) -> list[Message]:
        cuts = [at for at, raw in enumerate(objects) if raw.get("subtype") == "compact_boundary"]
        start = cuts[-1] if cuts else 0
        return [
            Message("note", (), raw, source, pinned=True) if at < start else _line(raw, source, at + 1)
            for at, (raw, source) in enumerate(zip(objects, sources, strict=True))
        ]

    def inner(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        inner = raw.get("message")
        return inner if isinstance(inner, dict) else {}

    def with_inner(self, raw: Mapping[str, Any], inner: Mapping[str, Any]) -> Mapping[str, Any]:
        changed = {**raw, "message": inner}
        changed.pop("toolUseResult", None)  # the screen's copy of the same result
        return changed

    def digest(self, text: str, role: str, before: Sequence[Message], after: Sequence[Message]) -> Message:  # noqa: ARG002
        beside = next((each.raw for each in (*reversed(before), *after) if "uuid" in each.raw), {})
        parent = next((each.raw["uuid"] for each in reversed(before) if _on_chain(each)), None)
        raw = {
            "parentUuid": parent,
            "isSidechain": False,
            **{key: beside[key] for key in _COPIED if key in beside},
            "type": "user",
            "message": {"role": "user", "content": text},
            "isCompactSummary": True,
            "uuid": str(uuid.uuid5(_SPACE, f"{parent}\n{text}".encode("utf-8", "replace").decode())),
        }
        return Message("user", (Part("text", text),), raw, digest=True)

    def shorten(self, message: Message, results: Sequence[str]) -> Message:
        inner = message.raw["message"]
        raw = self.with_inner(message.raw, {**inner, "content": replace_results(inner["content"], results)})
        return rewritten(message, raw, parts=shortened(message.parts, results))

    def settle(self, messages: Sequence[Message], digest: Message | None) -> list[Message]:
        present = {each.raw["uuid"] for each in messages if isinstance(each.raw.get("uuid"), str)}
        settled: list[Message] = []
        last: str | None = None
        fresh = False
        for each in messages:
            raw = dict(each.raw)
            if _on_chain(each):
                lost = raw.get("parentUuid") is not None and raw["parentUuid"] not in present
                if each is not digest and last is not None and (lost or fresh):
                    raw["parentUuid"] = last
                last, fresh = raw["uuid"], each is digest
            if digest is not None and raw.get("leafUuid") is not None and raw["leafUuid"] not in present:
                raw["leafUuid"] = digest.raw["uuid"]
            settled.append(each if raw == each.raw else rewritten(each, raw))
        return settled


CLAUDE_CODE = _ClaudeCode()


def _on_chain(message: Message) -> bool:
    raw = message.raw
    return isinstance(raw.get("uuid"), str) and not raw.get("isSidechain")


def _line(raw: Mapping[str, Any], source: str | None, number: int) -> Message:
    kind, inner = raw.get("type"), raw.get("message")
    if kind not in ("user", "assistant") or raw.get("isSidechain"):
        return Message("note", (), raw, source, pinned=kind != "progress")
    if not isinstance(inner, dict) or not isinstance(inner.get("content"), str | list):
        what = "message with content"
        raise UsageError(f"line {number} of the Claude Code session has no {what}", hint=object_hint())
    parts = content_parts(inner["content"])
    bundle = str(inner.get("id") or "")
    if kind == "assistant":
        return Message("assistant", parts, raw, source, bundle=bundle)
    kinds = {part.kind for part in parts}
    if "result" in kinds:
        return Message("tool", parts, raw, source, pinned="text" in kinds)
    ours = bool(raw.get("isCompactSummary")) and is_digest(text_of(inner["content"]))
    if raw.get("isMeta"):
        return Message("assistant", parts, raw, source)
    return Message("user", parts, raw, source, digest=ours)
