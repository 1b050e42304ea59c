"""What an attempt came to, by the rules of its wire: whole, or the fault that it is not. Pure.

Strategy: the connection's own end counts only where the wire has not said how the answer ended. What a fault
means stands in the table of `faults`; what is done about it, in `rungs`.
"""

from __future__ import annotations

from typing import Literal

from ..assembler import Assembler
from ..reply import Reply
from ..wire.events import Finished
from .actions import Broke, Outcome, Rejected
from .exchange import Exchange
from .faults import NOTICES, Fault, FaultKind, from_ending, from_error, from_rejection, one_line

__all__ = ["fault_of", "partial_status", "status_of"]


def fault_of(
    exchange: Exchange, outcome: Outcome, *, date: float, refuses: bool, empty_is_failure: bool
) -> Fault | None:
    """None if the answer is whole by the rules of its wire, whatever happened to the connection.

    Args:
        date: Unix time in seconds of the outcome, for a Retry-After that is a date.
        refuses: a refusal is a fault; otherwise it is an answer like any other.
        empty_is_failure: so is a complete answer without content.
    """
    if isinstance(outcome, Rejected):
        from email.utils import formatdate  # heavy, and rarely needed

        headers = {"date": formatdate(date, usegmt=True), **outcome.headers}
        return from_rejection(outcome.status, headers, outcome.body)
    if exchange.astray:
        return Fault(FaultKind.DIVERGED, exchange.astray)
    if exchange.pending:
        return Fault(FaultKind.DEADLINE, "the response was still at work", clock="total")
    assembler = exchange.assembler
    finished = assembler.finished
    if finished is None:
        if isinstance(outcome, Broke):
            return outcome.fault
        return Fault(FaultKind.DROPPED, "the body ended without the end of the answer")
    if finished.status == "failed":
        return from_error(finished.error) if finished.error else Fault(FaultKind.SERVER)
    partial = assembler.reply("complete")
    if declined := _declined(finished, partial, assembler):
        return declined if refuses else None
    if finished.status == "completed" and assembler.owed:
        return Fault(FaultKind.GARBLED, f"the call of {assembler.owed[0]!r} was announced and never finished")
    if partial.is_empty and (empty_is_failure or not finished.confirmed):
        return Fault(FaultKind.EMPTY)
    return _notice(partial, assembler)


def _notice(partial: Reply, assembler: Assembler) -> Fault | None:
    """A router's own words in the place of an answer: by its own count, nothing was generated."""
    text = partial.text[:80].strip()
    generated = assembler.counts is not None and assembler.counts.output_tokens
    if generated or partial.tool_calls or not NOTICES.fullmatch(text):
        return None
    return Fault(FaultKind.EMPTY, f"a notice in place of an answer: {text}")


def _declined(finished: Finished, partial: Reply, assembler: Assembler) -> Fault | None:
    """The fault of an answer that is whole, and a refusal."""
    if (fault := from_ending(finished)) and not assembler.has_final_answer:
        return fault
    if partial.refusal and not partial.text:
        return Fault(FaultKind.REFUSED, one_line(partial.refusal)[:200])
    return None


def status_of(exchange: Exchange) -> Literal["complete", "incomplete"]:
    """The status of a reply whose answer is whole."""
    finished = exchange.assembler.finished
    if finished is None or finished.status != "incomplete":
        return "complete"
    said_whole = finished.reason in (None, "content_filter") and exchange.assembler.has_final_answer
    return "complete" if said_whole else "incomplete"


def partial_status(fault: Fault) -> Literal["refused", "failed", "dropped"]:
    """The status of what had arrived when a fault ended it."""
    if fault.kind is FaultKind.REFUSED:
        return "refused"
    return "dropped" if fault.kind.error in ("StreamDropped", "DeadlineExceeded") else "failed"
