"""How a call ends without an answer: the fault that broke it becomes the error its caller sees. Pure.

Strategy: the fault table names the error; here it gets its message (route, clock, setting), its hint, what
had arrived and the ledger. Limits of our own have an error of their own, which still says what broke.
"""

from __future__ import annotations

from .. import errors
from ..reply import Attempt, Reply
from .clocks import Timeouts
from .faults import Fault, FaultKind

__all__ = ["exhausted", "failed"]


def failed(
    fault: Fault,
    name: str,
    timeouts: Timeouts,
    reasons: str,
    reply: Reply | None,
    attempts: tuple[Attempt, ...],
) -> errors.CallFailed:
    """The error of a call that `fault` ended; `name` is the route's, `reasons` say why no rung was open."""
    tried = f"; {len(attempts)} attempts" if len(attempts) > 1 else ""
    message = f"{name}: {fault}{tried}"
    hint = _HINTS.get(fault.kind, "") or reasons
    if fault.kind.error == "DeadlineExceeded":
        setting = f"timeout.{fault.clock}" if fault.clock != "route" else f"clocks.total of route {name}"
        value = getattr(timeouts, fault.clock, None)
        shown = f" = {value:g} s" if isinstance(value, (int, float)) else ""
        return errors.DeadlineExceeded(
            f"{message} ({setting}{shown})",
            clock=fault.clock,
            fault=fault,
            reply=reply,
            attempts=attempts,
            hint=f"raise {setting} if the provider needs longer",
        )
    cls: type[errors.CallFailed] = getattr(errors, fault.kind.error)
    return cls(message, fault=fault, hint=hint, reply=reply, attempts=attempts)


def exhausted(
    budget: str,
    why: str,
    name: str,
    fault: Fault,
    retry_at: float | None,
    reply: Reply | None,
    attempts: tuple[Attempt, ...],
) -> errors.BudgetExhausted:
    """The error of a call that one of our own limits ended, after `fault`."""
    after = f" after {fault}" if fault.kind is not FaultKind.WITHHELD else ""
    return errors.BudgetExhausted(
        f"{name}: {why}{after}",
        budget=budget,
        fault=fault,
        retry_at=retry_at,
        hint=_BUDGETS[budget],
        reply=reply,
        attempts=attempts,
    )


_BUDGETS: dict[str, str] = {
    "origin": "too much failed at this endpoint lately: try again at retry_at, or configure another route",
    "breaker": "the endpoint is taken for down: try again at retry_at, or configure another route",
    "busy": "too many calls recover at this endpoint at once: try again later",
    "queue": "allow more calls at once (concurrency), or give the call more time",
    "cost": "raise Policy.max_cost or Policy.extra_output",
}

_HINTS: dict[FaultKind, str] = {
    FaultKind.CONNECT: "check the base URL and the network",
    FaultKind.AUTH: "check the API key and that it belongs to this endpoint",
    FaultKind.QUOTA: "raise the quota or configure another route",
    FaultKind.BLOCKED: (
        "the key is not at fault: check the route's headers (User-Agent above all), the network and the proxy"
    ),
    FaultKind.NOT_FOUND: "check the model name, the base URL and the wire",
    FaultKind.CONTEXT_LENGTH: "send less, or compress the conversation first",
    FaultKind.REFUSED: "the words of the refusal are in reply.refusal",
}
