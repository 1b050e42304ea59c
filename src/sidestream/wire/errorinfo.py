"""One reader for every spelling of a provider's error object, in a body or in a stream.

Known shapes: OpenAI `{"error": {...}}`, flat `{"type": "error", "code", "message"}`, the same nested,
FastAPI `{"detail": ...}`, vLLM `{"object": "error", "message"}`, Gemini's array around it, Groq's string,
OpenRouter's numeric code. Not here: what an error means (recovery/faults.py).
"""

from __future__ import annotations

from typing import Any

from ._json import integer, mapping, string
from .events import ErrorInfo

__all__ = ["read_error"]

_LONGEST = 2000
_FAR = 1 << 33  # Unix time of a year that no limit lasts until


def read_error(value: object, headers: dict[str, str] | None = None) -> ErrorInfo | None:
    """The error in `value`, or None if it holds none."""
    if isinstance(value, list) and value:
        return read_error(value[0], headers)
    body = mapping(value)
    inner = body.get("error")
    if isinstance(inner, str) and inner:
        return ErrorInfo(code=string(body.get("code")) or _short(inner), message=inner[:_LONGEST])
    if isinstance(inner, dict) and inner:
        return _flat(inner, body, headers)
    if "detail" in body:
        return ErrorInfo(message=_placed(body["detail"]))
    if body.get("type") in ("error", "response.error") or body.get("object") == "error":
        return _flat(body, {}, headers)
    if string(body.get("code")) and "message" in body:
        return _flat(body, {}, headers)
    return None


def _flat(error: dict[str, Any], around: dict[str, Any], headers: dict[str, str] | None) -> ErrorInfo:
    code = error.get("code")
    kind = string(error.get("type"))
    status = next(
        (
            number
            for number in map(
                integer, (error.get("status"), around.get("status"), around.get("status_code"), code)
            )
            if number is not None and 100 <= number <= 599
        ),
        None,
    )
    if isinstance(code, str) and code.isdigit() and len(code) == 3:
        status = status or int(code)
    details = mapping(error.get("details"))
    found = {**(headers or {}), **_strings(around.get("headers")), **_strings(error.get("headers"))}
    if (seconds := integer(error.get("resets_in_seconds"))) is not None:
        found.setdefault("retry-after", str(seconds))
    elif 0 < (integer(error.get("resets_at")) or 0) < _FAR:
        from email.utils import formatdate  # heavy, and rarely needed

        found.setdefault("retry-after", formatdate(integer(error.get("resets_at")), usegmt=True))
    if request_id := string(around.get("request_id")):
        found.setdefault("request-id", request_id[:200])
    return ErrorInfo(
        code=string(details.get("error_code")) or _word(code) or string(error.get("status")),
        message=_text(error.get("message")),
        type=string(error.get("status")) if kind in ("", "error", "response.error") else kind,
        param=string(error.get("param")),
        status=status,
        headers={name.lower(): text for name, text in found.items()},
    )


def _word(code: object) -> str:
    return str(code) if isinstance(code, (str, int)) and not isinstance(code, bool) else ""


def _strings(value: object) -> dict[str, str]:
    return {str(name): str(text) for name, text in mapping(value).items()}


def _text(value: object) -> str:
    if isinstance(value, list) and value:
        value = mapping(value[0]).get("msg", value[0])
    return str(value)[:_LONGEST] if value is not None else ""


def _placed(value: object) -> str:
    """The text of a validation error behind the field it is about: "response_format.type: str expected"."""
    first = mapping(value[0]) if isinstance(value, list) and value else {}
    where = first.get("loc")
    names = [str(name) for name in where if name != "body"] if isinstance(where, list) else []
    return (f"{'.'.join(names)}: " if names else "") + _text(value)


def _short(text: str) -> str:
    return text if text.isascii() and " " not in text and len(text) < 64 else ""
