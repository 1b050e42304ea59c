"""Compression: a shorter conversation that keeps what an agent cannot afford to lose.

System messages, every user message (word for word) and the newest turns stay; a tool call is never parted
from its result; the turns between are replaced by one message. Without a model that message is an
extractive digest: quotes and identifiers, nothing invented. With one it is a structured summary. A failure
of network, authentication, rate or quota leaves every message untouched and says so; a model that answered
but could not help (context too long, refused, empty) leads to the digest.

This file holds the two thin drivers of one compression; the decisions are in `prepare`, `plan` and `select`,
all pure, and each transcript format is one file under `formats`. A session that compresses again and again
has a `Compactor`, which knows when, remembers what failed and lets nothing late take effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .budget import Budget
from .compaction import Compaction
from .compactor import CompactionBusy, Compactor, StaleCompaction
from .conversation import Conversation, Message, estimate_tokens
from .failures import FAILURES, KEEP, QUOTE, without_summary
from .formats import load
from .plan import Plan, SummaryRejected
from .policy import CompressionPolicy, History, Override, Shape, Verdict
from .prepare import prepare
from .prune import Pruned, prune
from .repair import Repaired, repair
from .tokens import counter_for, remembering

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Literal

    from .formats import Transcript

__all__ = [
    "KEEP",
    "QUOTE",
    "Budget",
    "Compaction",
    "CompactionBusy",
    "Compactor",
    "CompressionPolicy",
    "Conversation",
    "History",
    "Message",
    "Override",
    "Plan",
    "Pruned",
    "Repaired",
    "Shape",
    "StaleCompaction",
    "SummaryRejected",
    "Verdict",
    "acompress",
    "compress",
    "counter_for",
    "load",
    "prepare",
    "prune",
    "repair",
]

_FITTINGS = 3  # times a digest is made shorter when the target model counts more tokens than expected …
_AIM = 0.98  # … and how far below the budget each time


def compress(
    transcript: Transcript,
    *,
    budget: Budget | int,
    complete: Callable[[list[dict[str, str]]], str] | None = None,
    focus: str = "",
    count: Callable[[str], int] = estimate_tokens,
    alternate: bool = False,
    fallback: Literal["digest", "keep"] = "digest",
) -> Compaction:
    """Compress a conversation to a budget.

    Args:
        transcript: message dicts, Responses items, a transcript file's bytes, or a `Conversation`.
        budget: the target for the whole result; an integer means tokens.
        complete: takes chat messages, returns the model's text; without it the digest is extractive.
        focus: a topic that the summary gives most of its room to.
        count: counts tokens as the target model does, see `counter_for`.
        alternate: merge neighbours of one role in chat formats, for servers that insist on it.
        fallback: what a model's own failure leads to: the "digest", or to "keep" every message.

    Raises:
        UsageError: the transcript or the budget makes no sense.
        Cancelled: passed through from `complete`; nothing is changed.
    """
    conversation, target = load(transcript), Budget.of(budget)
    plan = prepare(conversation, target, count=remembering(count), alternate=alternate)
    if complete is None or not plan.needed:
        return _fitted(plan, target)
    try:
        return plan.accept(complete(plan.prompt(focus)))
    except FAILURES as error:
        return without_summary(plan, error, fallback)


async def acompress(
    transcript: Transcript,
    *,
    budget: Budget | int,
    complete: Callable[[list[dict[str, str]]], Awaitable[str]] | None = None,
    focus: str = "",
    count: Callable[[str], int] = estimate_tokens,
    alternate: bool = False,
    fallback: Literal["digest", "keep"] = "digest",
) -> Compaction:
    """`compress` for an asynchronous `complete`."""
    conversation, target = load(transcript), Budget.of(budget)
    plan = prepare(conversation, target, count=remembering(count), alternate=alternate)
    if complete is None or not plan.needed:
        return _fitted(plan, target)
    try:
        return plan.accept(await complete(plan.prompt(focus)))
    except FAILURES as error:
        return without_summary(plan, error, fallback)


def _fitted(plan: Plan, budget: Budget) -> Compaction:
    """The digest, within the budget by the target model's count too: identifiers cost more than prose."""
    done = plan.digest()
    for _ in range(_FITTINGS):
        if budget.tokens is None or not done.changed or done.tokens_after <= budget.tokens:
            break
        chars = max(1, int(done.budget_chars * _AIM * budget.tokens / done.tokens_after))
        tighter = prepare(plan.source, Budget(chars=chars), count=plan.count, alternate=plan.alternate)
        again = tighter.digest()
        if not again.changed or again.tokens_after >= done.tokens_after:
            break
        done = again
    return done
