"""What a failure of the model means for the conversation. Pure.

Two tables over the errors a call can end with: after some nothing came back, so what the messages say is
not the problem and every one of them stays; after others the model was reached and this conversation
cannot be summarised by it, where quoting still can (or, by policy, everything stays too). Each kind of
failure names the cooldown it earns in `policy.COOLDOWNS`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

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
)
from ...recovery.faults import FaultKind
from .plan import SummaryRejected
from .redact import redact

if TYPE_CHECKING:
    from .compaction import Compaction
    from .plan import Plan
    from .policy import Failure

__all__ = ["FAILURES", "KEEP", "KINDS", "QUOTE", "without_summary"]

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
FAILURES = (*KEEP, *QUOTE)

KINDS: dict[type[Exception], Failure] = {
    StreamDropped: "stream",
    RateLimited: "throttled",
    QuotaExceeded: "quota",
    AuthFailed: "auth",
    ServerError: "server",
    DeadlineExceeded: "timeout",
    BudgetExhausted: "other",
    NoRoute: "no-route",
}


def without_summary(plan: Plan, error: Exception, fallback: str = "digest") -> Compaction:
    """What becomes of the conversation when the model could not be had: all of it stays, or it is quoted."""
    kind, reason, lost = _judged(error)
    if lost or fallback == "keep":
        told = f"{reason} ({type(error).__name__}: {redact(str(error))})" if lost else reason.rstrip(".")
        done = plan.keep(told[:1].lower() + told[1:])
    else:
        done = plan.digest(reason)
    return replace(done, failure=kind, retry_at=getattr(error, "retry_at", None))


def _judged(error: Exception) -> tuple[Failure, str, bool]:
    """The kind of failure, the reason for people, and whether nothing came back."""
    if isinstance(error, SummaryRejected):
        text = str(error)
        return "other", f"{text[:1].upper()}{text[1:]}.", False
    if isinstance(error, StreamDropped) and error.fault.kind is FaultKind.EMPTY:
        return "other", QUOTE[SummaryRejected], False
    if isinstance(error, StreamDropped) and error.fault.kind is FaultKind.CONNECT:
        return "network", KEEP[StreamDropped], True
    for known, reason in KEEP.items():
        if isinstance(error, known):
            return KINDS[known], reason, True
    return "other", next(reason for known, reason in QUOTE.items() if isinstance(error, known)), False
