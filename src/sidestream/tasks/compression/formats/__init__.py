"""The transcript formats, told apart by what is in them, never by a file's name.

A new format is one file here and one entry in `FORMATS`; the order is from the most particular to the
least.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from ....errors import UsageError
from ..conversation import Conversation, Frame
from .base import MAX_FILE, MAX_LINE, Format, object_hint, open_frame
from .chat import CHAT
from .claude_code import CLAUDE_CODE
from .codex_rollout import CODEX_ROLLOUT
from .responses import RESPONSES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Transcript: TypeAlias = bytes | Conversation | Sequence[Mapping[str, Any]]

__all__ = ["FORMATS", "MAX_FILE", "MAX_LINE", "Format", "detect", "from_objects", "load", "read"]

FORMATS: tuple[Format, ...] = (CODEX_ROLLOUT, CLAUDE_CODE, RESPONSES, CHAT)


def detect(objects: Sequence[Mapping[str, Any]]) -> Format:
    """The format of these objects, or `UsageError` saying what was found instead."""
    if not objects:
        raise UsageError("the conversation has no messages", hint=object_hint())
    for each in FORMATS:
        if each.recognises(objects):
            return each
    keys = ", ".join(sorted(map(str, objects[0]))[:6]) or "none"
    raise UsageError(f"no known transcript format; the first object has the keys: {keys}", hint=object_hint())


def load(transcript: Transcript) -> Conversation:
    """A conversation from a file's bytes, message dicts or items, in whichever format they are.

    Raises:
        UsageError: not a known format, damaged, too large; the message names the line.
    """
    if isinstance(transcript, Conversation):
        return transcript
    if isinstance(transcript, bytes | bytearray | memoryview):
        return read(bytes(transcript))
    if isinstance(transcript, list | tuple):
        return from_objects(transcript)
    hint = "Pass message dicts, Responses items, or a transcript file's bytes."
    raise UsageError(f"cannot compress a {type(transcript).__name__}", hint=hint)


def read(data: bytes) -> Conversation:
    """A conversation from a file's bytes, in whichever format it is."""
    frame, objects, sources = open_frame(data)
    known = detect(objects)
    return Conversation(tuple(known.messages(objects, sources)), known, frame)


def from_objects(objects: Sequence[Mapping[str, Any]]) -> Conversation:
    """A conversation from message dicts or items already in memory."""
    for number, each in enumerate(objects, 1):
        if not isinstance(each, dict):
            what = type(each).__name__
            raise UsageError(f"message {number} is a {what}, expected a dict", hint=object_hint())
    known = detect(objects)
    plain = [dict(each) if type(each) is not dict else each for each in objects]
    return Conversation(tuple(known.messages(plain, [None] * len(plain))), known, Frame())
