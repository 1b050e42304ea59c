"""What a call has produced so far, and what it cost: values, nothing else.

Strategy: `Reply` is a snapshot; the assembler makes one whenever asked, the flow attaches the ledger. The
text of the answer, what the model said besides it, its reasoning and its refusal are kept apart. Tool calls
are finished ones only. Pure: no I/O, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .wire.events import ToolCall, Usage

__all__ = ["Attempt", "Reply", "Status", "ToolCall", "Usage"]

Status = Literal["complete", "incomplete", "refused", "failed", "dropped"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One HTTP exchange of a call: a line of its ledger.

    Attributes:
        route: name of the route, which never holds a credential.
        rung: why this exchange was made: "send" first, then "restart" or "reroute".
        ended: "complete", "incomplete", or the kind of fault that ended it.
        detail: one line for people.
        status: HTTP status, None if no answer came.
        request_id: the provider's id of the exchange, or "".
        seconds: from sending to its end.
        events: decoded events received.
        tokens: output tokens received in this exchange.
        kept: of those, how many the final reply uses.
        wasted: the rest.
        reported: True if `tokens` is the provider's own figure, False if estimated from the text
            (four characters to a token).
    """

    route: str
    rung: str
    ended: str
    detail: str = ""
    status: int | None = None
    request_id: str = ""
    seconds: float = 0.0
    events: int = 0
    tokens: int = 0
    kept: int = 0
    reported: bool = False

    @property
    def wasted(self) -> int:
        return self.tokens - self.kept


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
            are left out.
        usage: tokens of the exchange that completed the reply, None if it reported none.
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

    def with_attempts(self, attempts: tuple[Attempt, ...]) -> Reply:
        """The same reply with this ledger."""
        return replace(self, attempts=attempts)
