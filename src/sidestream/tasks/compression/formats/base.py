"""What a format is, and the file handling all formats share.

A file is a frame around JSON objects: an array, an object holding an array, or lines. The frame keeps the
exact characters between the objects, so `write(read(data)) == data` holds for every format without any of
them doing anything. A format only says what its objects mean, how it states a digest and how it shortens a
result. Every limit and every complaint about a file is raised here, with the line and a hint, never as a
JSON error.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ....errors import UsageError
from ..conversation import Conversation, Frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..conversation import Message
    from .edits import Edit

__all__ = ["MAX_FILE", "MAX_LINE", "Format", "dump", "object_hint", "open_frame"]

MAX_FILE = 64 * 2**20
MAX_LINE = 16 * 2**20

Objects: TypeAlias = "list[dict[str, Any]]"
Texts: TypeAlias = "list[str | None]"

_ARRAY_KEYS = ("messages", "input", "items", "output")
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_HINT = (
    'Known formats: chat messages (JSON array, {"messages": […]} or JSONL), Responses items, '
    "Codex rollout JSONL and Claude Code JSONL."
)


def object_hint() -> str:
    return _HINT


class Format(Protocol):
    """One transcript format."""

    name: str

    def recognises(self, objects: Sequence[Mapping[str, Any]]) -> bool:
        """Whether these objects are of this format; the first format that says yes is taken."""

    def messages(self, objects: Objects, sources: Texts) -> list[Message]:
        """What the objects mean. Raises `UsageError` for an object that breaks the format."""

    def digest(self, text: str, role: str, before: Sequence[Message], after: Sequence[Message]) -> Message:
        """The message that carries a digest between its neighbours."""

    def shorten(self, message: Message, results: Sequence[str]) -> Message:
        """The same message with the texts of its results replaced, in order."""

    def settle(self, messages: Sequence[Message], digest: Message | None) -> list[Message]:
        """Repair links between messages after some of them went."""

    def inner(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """The wire object within an object of this format."""

    def edited(self, message: Message, edit: Edit) -> Message | None:
        """The message with its wire object changed: itself when nothing did, None when nothing is left."""

    def alternate(self, messages: Sequence[Message]) -> list[Message]:
        """Neighbours of one role merged, where the format wants roles to alternate."""

    def separate(self, messages: Sequence[Message]) -> list[Message]:
        """The opposite for digests: one that was merged into a message stands by itself again."""

    def read(self, data: bytes) -> Conversation: ...

    def write(self, conversation: Conversation) -> bytes: ...


class Framed:
    """`read` and `write` for any format, and the hooks most formats leave alone."""

    name = ""

    def recognises(self, objects: Sequence[Mapping[str, Any]]) -> bool:
        raise NotImplementedError

    def messages(self, objects: Objects, sources: Texts) -> list[Message]:
        raise NotImplementedError

    def digest(self, text: str, role: str, before: Sequence[Message], after: Sequence[Message]) -> Message:
        raise NotImplementedError

    def shorten(self, message: Message, results: Sequence[str]) -> Message:
        raise NotImplementedError

    def settle(self, messages: Sequence[Message], digest: Message | None) -> list[Message]:  # noqa: ARG002
        return list(messages)

    def inner(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        return raw

    def with_inner(self, raw: Mapping[str, Any], inner: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002
        return inner

    def edited(self, message: Message, edit: Edit) -> Message | None:
        inner = self.inner(message.raw)
        changed = edit(inner)
        if changed is None or changed is inner:
            return None if changed is None else message
        raw = self.with_inner(message.raw, changed)
        read = self.messages([dict(raw)], [None])[0]
        return rewritten(message, raw, role=read.role, parts=read.parts, pinned=read.pinned)

    def alternate(self, messages: Sequence[Message]) -> list[Message]:
        return list(messages)

    def separate(self, messages: Sequence[Message]) -> list[Message]:
        return list(messages)

    def read(self, data: bytes) -> Conversation:
        """A conversation of this format; `UsageError` when the file holds something else."""
        frame, objects, sources = open_frame(data)
        if not self.recognises(objects):
            raise UsageError(f"this is not a {self.name} transcript", hint=_HINT)
        return Conversation(tuple(self.messages(objects, sources)), self, frame)

    def write(self, conversation: Conversation) -> bytes:
        frame = conversation.frame
        texts = [dump(each.raw) if each.source is None else each.source for each in conversation.messages]
        body = frame.separator.join(texts)
        return (frame.head + body + frame.tail).encode("utf-8")


def dump(value: object) -> str:
    """One line of JSON that encodes to UTF-8 whatever was in it."""
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can carry
        return json.dumps(value)
    return text


def rewritten(message: Message, raw: Mapping[str, Any], **changes: Any) -> Message:
    """The message with another object in it, and its source to match."""
    source = None if message.source is None else dump(raw)
    return replace(message, raw=raw, source=source, **changes)


def open_frame(data: bytes) -> tuple[Frame, Objects, Texts]:
    """The objects of a file, their exact characters and the frame around them."""
    text = _decode(data)
    if text.lstrip("\ufeff \t\r\n")[:1] == "[":
        return _array(text, text.index("["))
    lines = [line for line in text.split("\n") if line.strip("\ufeff \t\r")]
    if len(lines) == 1 or _is_document(text):
        return _document(text)
    return _lines(text)


def _decode(data: bytes) -> str:
    if len(data) > MAX_FILE:
        size = f"{len(data) / 2**20:.0f} MiB"
        raise UsageError(f"the file is {size}, the limit is 64 MiB", hint="Split it by session.")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UsageError("the file is UTF-16", hint="Save it as UTF-8 first (iconv -f UTF-16 -t UTF-8).")
    if b"\0" in data:
        raise UsageError("the file is binary, not JSON text", hint=_HINT)
    if not data.strip(b"\xef\xbb\xbf \t\r\n"):
        raise UsageError("the file is empty", hint=_HINT)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"line {line} is not UTF-8 text", hint="Save the file as UTF-8 first.") from None


def _is_document(text: str) -> bool:
    """Whether a text that starts with an object is one object over several lines."""
    first = text.lstrip("\ufeff \t\r\n").split("\n", 1)[0].strip()
    return not first.endswith("}")


def _parse(text: str, at: int, offset: int = 0) -> tuple[Any, int]:
    """One JSON value from a position, with this module's complaints. `offset` is lines before the text."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        line = text.count("\n", 0, min(error.pos, len(text))) + 1 + offset
        cut = error.pos >= len(text.rstrip()) or "Unterminated" in error.msg
        what = "is cut off" if cut else f"is not valid JSON ({error.msg})"
        hint = "The file may still be written, or was truncated: remove the line." if cut else _HINT
        raise UsageError(f"line {line} {what}", hint=hint) from None
    except RecursionError:
        raise UsageError(
            f"line {text.count(chr(10), 0, at) + 1 + offset} is nested too deeply",
            hint="A transcript nests a few levels; this looks damaged.",
        ) from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise UsageError(f"line {offset + 1} is not usable JSON ({error})", hint=_HINT) from None


def _array(text: str, start: int, end_of_file: bool = True) -> tuple[Frame, Objects, Texts]:
    """The elements of the array that opens at `start`."""
    objects: Objects = []
    spans: list[tuple[int, int]] = []
    at = _skip(text, start + 1)
    while text[at : at + 1] != "]":
        value, end = _parse(text, at)
        objects.append(_object(value, f"element {len(objects) + 1}"))
        spans.append((at, end))
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            _parse_failed(text, at)
    if end_of_file and text[at + 1 :].strip():
        _parse_failed(text, at + 1)
    return _frame(text, spans, start, at), objects, [text[begin:end] for begin, end in spans]


def _frame(text: str, spans: list[tuple[int, int]], start: int, close: int) -> Frame:
    if not spans:
        return Frame(text[: start + 1], ", ", text[close:])
    separator = text[spans[0][1] : spans[1][0]] if len(spans) > 1 else ", "
    return Frame(text[: spans[0][0]], separator, text[spans[-1][1] :])


def _document(text: str) -> tuple[Frame, Objects, Texts]:
    """An object that holds the messages, or a single message."""
    start = text.index("{") if "{" in text else 0
    value, end = _parse(text, _skip(text, 1 if text[:1] == "\ufeff" else 0))
    whole = _object(value, "the file")
    if text[end:].strip():
        _parse_failed(text, end)
    key = next((key for key in _ARRAY_KEYS if isinstance(whole.get(key), list)), "")
    if not key or "role" in whole or "payload" in whole or "message" in whole:
        return Frame(text[:start], "\n", text[end:]), [whole], [text[start:end]]
    return _array(text, _member(text, start, key), end_of_file=False)


def _member(text: str, start: int, key: str) -> int:
    """Where the value of a key begins in the object at `start`, which is known to be valid."""
    at, found = _skip(text, start + 1), -1
    while text[at] != "}":
        name, end = _DECODER.raw_decode(text, at)
        at = _skip(text, _skip(text, end) + 1)
        found = at if name == key else found
        at = _skip(text, _DECODER.raw_decode(text, at)[1])
        at = _skip(text, at + 1) if text[at] == "," else at
    return found


def _lines(text: str) -> tuple[Frame, Objects, Texts]:
    """One object a line; blank lines are dropped, `\\r\\n` is kept."""
    objects: Objects = []
    sources: Texts = []
    for number, line in enumerate(text.split("\n")):
        body = line.strip("\ufeff \t\r")
        if not body:
            continue
        if len(body) > MAX_LINE:
            raise UsageError(f"line {number + 1} is over 16 MiB", hint="Remove what it embeds.")
        value, end = _parse(body, 0, number)
        if body[end:].strip():
            raise UsageError(f"line {number + 1} holds more than one JSON value", hint=_HINT)
        objects.append(_object(value, f"line {number + 1}"))
        sources.append(body)
    separator = "\r\n" if "\r\n" in text else "\n"
    return Frame("", separator, separator if text.endswith("\n") else ""), objects, sources


def _object(value: object, where: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise UsageError(f"{where} is a {type(value).__name__}, expected an object", hint=_HINT)


def _parse_failed(text: str, at: int) -> None:
    line = text.count("\n", 0, at) + 1
    what = "is cut off" if not text[at:].strip() else f"has unexpected characters: {text[at : at + 20]!r}"
    raise UsageError(f"line {line} {what}", hint=_HINT)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def clean_strings(values: Iterable[object]) -> list[str]:
    """The non-empty strings among some values."""
    return [value for value in values if isinstance(value, str) and value]
