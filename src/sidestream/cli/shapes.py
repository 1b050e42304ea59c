"""What `--json` prints: values of the library as plain objects with stable names.

The tuples are the names, taken from the values as they are; docs/cli.md lists them and a test compares.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import ProviderError, SidestreamError
from ..reply import Attempt, Reply
from .advice import advice

if TYPE_CHECKING:
    from ..lab import Request
    from ..tasks.compression import Compaction

__all__ = [
    "ATTEMPT",
    "CALL",
    "COMPACTION",
    "REPLY",
    "REQUEST",
    "as_json",
    "compaction_json",
    "error_json",
    "reply_json",
    "request_json",
]

REPLY = (
    "status", "text", "commentary", "reasoning", "refusal",
    "finish_reason", "settled", "id", "model", "usage",
)  # fmt: skip
CALL = ("call_id", "name", "arguments")
ATTEMPT = (
    "route", "rung", "ended", "detail", "status", "request_id",
    "events", "tokens", "kept", "wasted", "reported",
)  # fmt: skip
COMPACTION = (
    "method", "notice", "met_budget", "budget_chars", "chars_before", "chars_after", "digest_chars",
    "tokens_before", "tokens_after", "messages_before", "messages_after",
)  # fmt: skip
REQUEST = ("index", "method", "path", "events_sent", "bytes_sent", "fault", "ended_by")


def as_json(value: object) -> str:
    """One line of JSON."""
    return msgspec.json.encode(value).decode() + "\n"


def _of(value: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def reply_json(reply: Reply) -> dict[str, Any]:
    calls = [_of(call, CALL) for call in reply.tool_calls]
    return _of(reply, REPLY) | {"tool_calls": calls, "attempts": _attempts(reply.attempts)}


def _attempts(attempts: Iterable[Attempt]) -> list[dict[str, Any]]:
    return [_of(row, ATTEMPT) | {"seconds": round(row.seconds, 3)} for row in attempts]


def error_json(error: SidestreamError) -> dict[str, Any]:
    """An error, with everything that had arrived."""
    said = error if isinstance(error, ProviderError) else None
    return {
        "error": {
            "type": type(error).__name__,
            "message": str(error),
            "hint": advice(error),
            "status": said.status if said else None,
            "code": said.code if said else "",
            "retry_at": said.retry_at if said else None,
        },
        "reply": reply_json(error.reply) if error.reply else None,
        "attempts": _attempts(error.attempts),
    }


def compaction_json(compaction: Compaction) -> dict[str, Any]:
    return _of(compaction, COMPACTION)


def request_json(request: Request) -> dict[str, Any]:
    """A request the lab has seen to its end."""
    return _of(request, REQUEST)
