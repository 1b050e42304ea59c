"""What a call has produced so far, and what it cost: values, nothing else.

Strategy: `Reply` is a snapshot; the assembler makes one whenever asked, the flow attaches the ledger. The
text of the answer, what the model said besides it, its reasoning and its refusal are kept apart. Tool calls
are finished ones only. `Usage` adds the ledger up. What nobody knows is None and makes the sum `unknown`; it
is never counted as 0. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .wire.events import ToolCall

__all__ = ["Attempt", "Confidence", "Reply", "Status", "ToolCall", "Usage"]

Status = Literal["complete", "incomplete", "refused", "failed", "dropped"]
Confidence = Literal["reported", "estimated", "unknown"]
_WEAKEST: tuple[Confidence, ...] = ("unknown", "estimated", "reported")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One HTTP exchange of a call: a line of its ledger.

    Attributes:
        route: name of the route, which never holds a credential.
        rung: why this exchange was made: "send" first, then the rung that was taken.
        ended: "complete", "incomplete", or the kind of fault that ended it.
        detail: one line for people.
        status: HTTP status, None if no answer came.
        request_id: the provider's id of the exchange, or "".
        seconds: from sending to its end.
        first: seconds to its first output, None if there was none.
        events: decoded events received.
        tokens: output tokens of this exchange; None if nobody can know.
        kept: of those, how many the final reply uses.
        wasted: the rest; None if unknown.
        input_tokens: prompt tokens it read, an earlier part of the answer included; None if unknown.
        cached_tokens: of those, how many the provider reported as cached; None if it did not say.
        reread: prompt tokens read only because an earlier exchange had broken off: all of them, the partial
            answer and the request to go on included; 0 for the first exchange and for a cursor.
        confidence: "reported" if `tokens` is the provider's own figure, "estimated" from the text (four
            characters to a token), "unknown".
        cost: money, if the route has prices and the tokens are known.
        why: why the rungs above this one were not taken, one reason each.
        dropped_calls: names of calls that had begun here and were left out.
    """

    route: str
    rung: str
    ended: str
    detail: str = ""
    status: int | None = None
    request_id: str = ""
    seconds: float = 0.0
    first: float | None = None
    events: int = 0
    tokens: int | None = 0
    kept: int = 0
    input_tokens: int | None = None
    cached_tokens: int | None = None
    reread: int | None = 0
    confidence: Confidence = "estimated"
    cost: float | None = None
    why: tuple[str, ...] = ()
    dropped_calls: tuple[str, ...] = ()

    @property
    def wasted(self) -> int | None:
        return None if self.tokens is None else max(0, self.tokens - self.kept)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a whole call took: all its exchanges added up. Tokens; None where no exchange is known.

    With confidence "unknown" at least one exchange could not be counted, and the sums are lower bounds.

    Attributes:
        input_tokens, output_tokens: read and generated, waste included.
        cached_tokens, reasoning_tokens: parts of those, as far as providers report them.
        kept_tokens: output tokens the reply uses.
        wasted_tokens: output tokens generated and thrown away.
        reread_tokens: prompt tokens read only because an exchange before had broken off.
        cost: money, None unless every exchange has a price.
        confidence: the weakest of the exchanges.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    kept_tokens: int | None = None
    wasted_tokens: int | None = None
    reread_tokens: int | None = None
    cost: float | None = None
    confidence: Confidence = "unknown"

    @property
    def total_tokens(self) -> int | None:
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens

    @classmethod
    def of(cls, attempts: Iterable[Attempt], reasoning_tokens: int | None = None) -> Usage:
        """The sum of a ledger."""
        rows = tuple(attempts)
        costs = [row.cost for row in rows]
        return cls(
            input_tokens=_sum(row.input_tokens for row in rows),
            output_tokens=_sum(row.tokens for row in rows),
            cached_tokens=_sum(row.cached_tokens for row in rows),
            reasoning_tokens=reasoning_tokens,
            kept_tokens=_sum(row.kept if row.tokens is not None else None for row in rows),
            wasted_tokens=_sum(row.wasted for row in rows),
            reread_tokens=_sum(row.reread for row in rows),
            cost=sum(cost for cost in costs if cost is not None) if costs and None not in costs else None,
            confidence=min((row.confidence for row in rows), key=_WEAKEST.index, default="unknown"),
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer as it stands.

    Attributes:
        status: "complete" only if the wire said so by its own rules (or `settled` says otherwise);
            "incomplete" when a token limit ended it; "refused", "failed" and "dropped" come with an error.
        text: the final answer, commentary excluded; of choice 0 where there are several.
        texts: the text of every choice.
        commentary, reasoning, refusal: what else was said, "" if nothing.
        tool_calls: finished calls, in order.
        items: output items in Responses form, as the provider gave them where it did; unfinished calls
            are left out. A continued message is one item.
        usage: tokens of all exchanges of the call together, None before the first has ended.
        finish_reason: stop, length, tool_calls, content_filter, the provider's own word, or None.
        settled: the end marker was missing, and nothing more could have followed.
        dropped_calls: names of calls that had begun and were left out.
        attempts: the ledger.
    """

    status: Status
    text: str = ""
    texts: tuple[str, ...] = ()
    commentary: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    items: tuple[dict[str, Any], ...] = ()
    usage: Usage | None = None
    id: str | None = None
    model: str | None = None
    finish_reason: str | None = None
    settled: bool = False
    dropped_calls: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = field(default=(), repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether it holds nothing a caller could use: no text, no refusal, no call."""
        return not (self.refusal or self.tool_calls or any(text.strip() for text in (self.text, *self.texts)))

    def with_attempts(self, attempts: tuple[Attempt, ...], reasoning_tokens: int | None = None) -> Reply:
        """The same reply with this ledger and its sum."""
        usage = Usage.of(attempts, reasoning_tokens) if attempts else self.usage
        return replace(self, attempts=attempts, usage=usage)


def _sum(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
