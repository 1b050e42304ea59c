"""JSON as it comes off a wire: msgspec first, then what msgspec is too strict for.

Strategy: the hot path of each decoder reads a few fields straight into a Struct; whatever does not fit comes
here and is read as plain dicts. Anything that is not JSON, however broken, ends in `NotJSON` and nothing
else. The helpers below read a field of the expected kind or nothing: providers put anything anywhere.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["UNREADABLE", "NotJSON", "dumps", "integer", "loads", "mapping", "sequence", "string"]

# What msgspec raises for bytes it cannot hold; invalid UTF-8 in a field that is read is Python's own error.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class NotJSON(ValueError):
    """The bytes are not JSON that can be held."""


def loads(data: bytes | str) -> Any:
    """Parse JSON; invalid UTF-8 is replaced first, as server-sent events ask for."""
    try:
        return msgspec.json.decode(data)
    except UNREADABLE as error:
        if isinstance(data, bytes):
            try:
                return msgspec.json.decode(data.decode("utf-8", "replace"))
            except UNREADABLE:
                pass
        raise NotJSON(str(error)) from error


def dumps(value: object) -> bytes:
    return msgspec.json.encode(value)


def string(value: object) -> str:
    return value if isinstance(value, str) else ""


def integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
