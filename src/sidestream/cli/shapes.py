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
    from ..tasks.compression.evaluate import Score

__all__ = [
    "ATTEMPT",
    "CALL",
    "COMPACTION",
    "REPLY",
    "REQUEST",
    "SCORE",
    "USAGE",
    "as_json",
    "compaction_json",
    "error_json",
    "reply_json",
    "request_json",
    "score_json",
]

REPLY = (
    "status", "text", "commentary", "reasoning", "refusal",
    "finish_reason", "settled", "id", "model", "usage",
)  # fmt: skip
USAGE = (
    "input_tokens", "output_tokens", "total_tokens", "cached_tokens", "reasoning_tokens",
    "kept_tokens", "wasted_tokens", "reread_tokens", "cost", "confidence",
)  # fmt: skip
CALL = ("call_id", "name", "arguments")
ATTEMPT = (
    "route", "rung", "ended", "detail", "status", "request_id",
    "first", "events", "tokens", "kept", "wasted", "input_tokens", "cached_tokens", "reread",
    "confidence", "cost", "why", "dropped_calls",
)  # fmt: skip
COMPACTION = (
    "method", "notice", "met_budget", "budget_chars", "chars_before", "chars_after", "digest_chars",
    "tokens_before", "tokens_after", "messages_before", "messages_after",
)  # fmt: skip
SCORE = ("strategy", "method", "kept", "facts", "missing", "chars_before", "chars_after", "notice")
REQUEST = ("index", "method", "path", "events_sent", "bytes_sent", "fault", "ended_by")


def as_json(value: object) -> str:
    """One line of JSON."""
    return msgspec.json.encode(value).decode() + "\n"


def _of(value: object, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def reply_json(reply: Reply) -> dict[str, Any]:
    calls = [_of(call, CALL) for call in reply.tool_calls]
    usage = _of(reply.usage, USAGE) if reply.usage else None
    return _of(reply, REPLY) | {"usage": usage, "tool_calls": calls, "attempts": _attempts(reply.attempts)}


def _attempts(attempts: Iterable[Attempt]) -> list[dict[str, Any]]:
    return [_of(row, ATTEMPT) | {"first": _ms(row.first), "seconds": _ms(row.seconds)} for row in attempts]


def _ms(seconds: float | None) -> float | None:
    """Seconds to the millisecond."""
    return None if seconds is None else round(seconds, 3)


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
            "retry_at": getattr(error, "retry_at", None),
        },
        "reply": reply_json(error.reply) if error.reply else None,
        "attempts": _attempts(error.attempts),
    }


def compaction_json(compaction: Compaction) -> dict[str, Any]:
    return _of(compaction, COMPACTION)


def score_json(score: Score) -> dict[str, Any]:
    return _of(score, SCORE)


def request_json(request: Request) -> dict[str, Any]:
    """A request the lab has seen to its end."""
    return _of(request, REQUEST)
