"""What a call has taken so far, exchange by exchange. Pure.

Strategy: every exchange becomes a row with the provider's own token counts where it gave them, an estimate
where its output can be counted (four characters to a token), and None where nobody can know: a request that
was sent and never answered may have been billed, and None is not 0. How much of a row was worth its money is
decided at the end, when it is known which answer the reply was made of: `rows` takes that answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from msgspec import Struct, structs

from ..assembler import Assembler
from ..reply import Attempt, Confidence
from ..route import Prices, Route
from ..wire.events import TokenCounts
from .exchange import Exchange
from .faults import Fault, FaultKind

__all__ = ["Bill", "output_limit"]

_CHARS_PER_TOKEN = 4
# A call without an output limit of its own may waste as much as if it had this one.
_OUTPUT_LIMIT = 32_000


class _Row(Struct, frozen=True):
    attempt: Attempt
    answer: Assembler
    share: float  # of its output, what went into the answer


class Bill:
    """The rows of one call, oldest first."""

    def __init__(self) -> None:
        self._rows: list[_Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def book(
        self, route: Route, exchange: Exchange, draft: Attempt, *, asked: int, fault: Fault | None
    ) -> None:
        """Add an exchange that is over.

        Args:
            draft: the row without its counts.
            asked: characters of prompt that were sent; 0 for a cursor, which re-reads nothing.
            fault: what ended it, None for a proper end.
        """
        counts = exchange.assembler.counts
        tokens, confidence = _output(exchange, fault, asked)
        read = 0 if _was_refused(exchange, fault) else -(-asked // _CHARS_PER_TOKEN)
        if counts and counts.input_tokens is not None and asked:
            read = counts.input_tokens
        cached = counts.cached_tokens if counts else None
        prices = route.prices
        row = replace(
            draft,
            tokens=tokens,
            confidence=confidence,
            input_tokens=read,
            cached_tokens=cached,
            reread=read if any(row.attempt.status == 200 for row in self._rows) else 0,
            cost=prices.cost(read, tokens, cached or 0) if prices and tokens is not None else None,
        )
        share = min(1.0, exchange.gained / exchange.arrived) if exchange.arrived else 1.0
        self._rows.append(_Row(row, exchange.assembler, share))
        if counts and not asked:
            self._share_out(counts, prices)

    def _share_out(self, counts: TokenCounts, prices: Prices | None) -> None:
        """A resumed response reports itself as a whole: its earlier exchanges have had their part of that."""
        first = max(number for number, row in enumerate(self._rows) if row.attempt.rung != "reconnect")
        left, cached = counts.output_tokens, counts.cached_tokens
        for number in range(first, len(self._rows)):
            row = self._rows[number].attempt
            read = row.input_tokens or 0
            if number == first and counts.input_tokens is not None:
                read = counts.input_tokens
            if left is not None:
                part = left if number == len(self._rows) - 1 else min(left, row.tokens or 0)
                row, left = replace(row, tokens=part, confidence="reported"), left - part
            row = replace(row, input_tokens=read, reread=read if row.reread else 0, cached_tokens=cached)
            if prices and row.tokens is not None:
                row = replace(row, cost=prices.cost(read, row.tokens, cached or 0))
            cached = cached and 0
            self._rows[number] = structs.replace(self._rows[number], attempt=row)

    def settle(self) -> None:
        """The last exchange brought a whole answer after all."""
        last = self._rows[-1]
        self._rows[-1] = structs.replace(last, attempt=replace(last.attempt, ended="settled"))

    def rows(self, answer: Assembler | None) -> tuple[Attempt, ...]:
        """The ledger, if the reply is made of `answer`."""
        return tuple(
            replace(row.attempt, kept=round((row.attempt.tokens or 0) * row.share))
            if row.answer is answer
            else row.attempt
            for row in self._rows
        )

    def wasted(self, answer: Assembler | None) -> int:
        """Output tokens thrown away so far, as far as is known."""
        return sum(row.wasted or 0 for row in self.rows(answer))

    @property
    def cost(self) -> float:
        """Money so far, as far as is known."""
        return sum(row.attempt.cost or 0.0 for row in self._rows)


def output_limit(limits: Iterable[object]) -> int:
    """The most output tokens a call asked for."""
    given = [limit for limit in limits if isinstance(limit, int) and not isinstance(limit, bool)]
    return max(given, default=_OUTPUT_LIMIT)


def _output(exchange: Exchange, fault: Fault | None, asked: int) -> tuple[int | None, Confidence]:
    counts = exchange.assembler.counts
    if counts and counts.output_tokens is not None:
        return counts.output_tokens, "reported"
    if exchange.arrived or fault is None or not asked or _was_refused(exchange, fault):
        return -(-exchange.arrived // _CHARS_PER_TOKEN), "estimated"
    return None, "unknown"


def _was_refused(exchange: Exchange, fault: Fault | None) -> bool:
    """Whether the model never saw the request: nothing was connected, or the answer was a plain no."""
    if fault is None or exchange.answered:
        return False
    unconnected = fault.kind is FaultKind.CONNECT or fault.clock == "connect"
    return unconnected or fault.status is not None
