"""Compression: a shorter conversation that keeps what an agent cannot afford to lose.

System messages, every user message (word for word) and the newest turns stay; a tool call is never parted
from its result; the turns between are replaced by one message. Without a model that message is an
extractive digest: quotes and identifiers, nothing invented. With one it is a structured summary. A failure
of network, authentication, rate or quota leaves every message untouched and says so; a model that answered
but could not help (context too long, refused, empty) leads to the digest.

This file holds the two thin drivers; the decisions are in `prepare`, `plan` and `select`, all pure, and
each transcript format is one file under `formats`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from ...errors import (
    AuthFailed,
    BadRequest,
    BudgetExhausted,
    ContextTooLong,
    DeadlineExceeded,
    NoRoute,
    QuotaExceeded,
    RateLimited,
    Refused,
    ServerError,
    StreamDropped,
    UsageError,
)
from ...recovery.faults import FaultKind
from .budget import Budget
from .conversation import Conversation, Message
from .formats import from_objects, read
from .plan import Compaction, Plan, SummaryRejected
from .prepare import prepare
from .redact import redact

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    Transcript: TypeAlias = bytes | Conversation | Sequence[Mapping[str, Any]]

__all__ = [
    "Budget",
    "Compaction",
    "Conversation",
    "Message",
    "Plan",
    "SummaryRejected",
    "acompress",
    "compress",
    "load",
    "prepare",
]

# Nothing came back: what the messages say is not the problem, so they stay for the next try.
KEEP: dict[type[Exception], str] = {
    StreamDropped: "the connection to the model broke",
    RateLimited: "the model's provider is throttling",
    QuotaExceeded: "the provider's quota is used up",
    AuthFailed: "the provider did not accept the credential",
    ServerError: "the provider failed",
    DeadlineExceeded: "the model did not answer in time",
    BudgetExhausted: "a limit on recoveries forbade another attempt",
    NoRoute: "no model could be reached",
}
# The model was reached and this conversation cannot be summarised by it: quoting still can.
QUOTE: dict[type[Exception], str] = {
    ContextTooLong: "The conversation is too long for the model.",
    BadRequest: "The provider rejected the summary request.",
    Refused: "The model declined to summarise.",
    SummaryRejected: "The model's summary was empty.",
}
_FAILURES = (*KEEP, *QUOTE)


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


def compress(
    transcript: Transcript,
    *,
    budget: Budget | int,
    complete: Callable[[list[dict[str, str]]], str] | None = None,
) -> Compaction:
    """Compress a conversation to a budget.

    Args:
        transcript: message dicts, Responses items, a transcript file's bytes, or a `Conversation`.
        budget: the target for the whole result; an integer means estimated tokens.
        complete: takes chat messages, returns the model's text; without it the digest is extractive.

    Raises:
        UsageError: the transcript or the budget makes no sense.
        Cancelled: passed through from `complete`; nothing is changed.
    """
    plan = prepare(load(transcript), Budget.of(budget))
    if complete is None or not plan.needed:
        return plan.digest()
    try:
        return plan.accept(complete(plan.prompt()))
    except _FAILURES as error:
        return _without(plan, error)


async def acompress(
    transcript: Transcript,
    *,
    budget: Budget | int,
    complete: Callable[[list[dict[str, str]]], Awaitable[str]] | None = None,
) -> Compaction:
    """`compress` for an asynchronous `complete`."""
    plan = prepare(load(transcript), Budget.of(budget))
    if complete is None or not plan.needed:
        return plan.digest()
    try:
        return plan.accept(await complete(plan.prompt()))
    except _FAILURES as error:
        return _without(plan, error)


def _without(plan: Plan, error: Exception) -> Compaction:
    """What to do when the model could not be had: keep everything, or quote."""
    if isinstance(error, StreamDropped) and error.fault.kind is FaultKind.EMPTY:
        return plan.digest(QUOTE[SummaryRejected])
    for kind, reason in KEEP.items():
        if isinstance(error, kind):
            return plan.keep(f"{reason} ({type(error).__name__}: {redact(str(error))})")
    kind = next(kind for kind in QUOTE if isinstance(error, kind))
    return plan.digest(QUOTE[kind])
