"""What to do next, in the words of the command line.

The library's hints speak of Python arguments; a person at a prompt has options and variables. `ADVICE` has a
row for every kind of fault, `CLOCKS` for every clock, and `WORDS` turns the rest. Pure.
"""

from __future__ import annotations

from ..errors import BudgetExhausted, CallFailed, DeadlineExceeded, NoRoute, ProviderError, SidestreamError
from ..recovery.faults import FaultKind as K
from ..recovery.rungs import LADDER

__all__ = ["ADVICE", "CLOCKS", "WORDS", "advice", "refusals"]

_SECOND_ROUTE = "a second route helps: set SIDESTREAM_FALLBACK_BASE_URL and SIDESTREAM_FALLBACK_MODEL"
_ADDRESS = "check the base URL (most end in /v1) and --wire"

ADVICE: dict[K, str] = {
    K.CONNECT: "check the base URL and the network; is the server running?",
    K.DROPPED: f"try again; {_SECOND_ROUTE}",
    K.STALLED: "",
    K.DEADLINE: "",
    K.GARBLED: _ADDRESS,
    K.DIVERGED: f"try again, or read it --held, where an answer may begin anew; {_SECOND_ROUTE}",
    K.OVERSIZE: _ADDRESS,
    K.EMPTY: f"try again or ask differently; {_SECOND_ROUTE}",
    K.SERVER: f"try again later; {_SECOND_ROUTE}",
    K.OVERLOADED: f"try again later; {_SECOND_ROUTE}",
    K.THROTTLED: f"try again later; {_SECOND_ROUTE}",
    K.QUOTA: f"raise the quota, or wait for its reset; {_SECOND_ROUTE}",
    K.AUTH: "check SIDESTREAM_API_KEY or OPENAI_API_KEY, and that the key belongs to this endpoint",
    K.BLOCKED: f"the key is not at fault: check the network, the proxy and the base URL; {_SECOND_ROUTE}",
    K.NOT_FOUND: "check --model, the base URL (most end in /v1) and --wire",
    K.CONTEXT_LENGTH: "send less, or shorten the conversation first: sidestream compress",
    K.REFUSED: "ask something else, or another model",
    K.PARAMETER: "leave out the option it names, or choose another model",
    K.BAD_REQUEST: "the message above says what the endpoint did not like; check --base-url, --model, --wire",
    K.WITHHELD: f"too much failed there lately: try again in a minute; {_SECOND_ROUTE}",
}

# The option that gives a clock more time; connecting has none.
CLOCKS: dict[str, str] = {
    "total": "allow more with --timeout SECONDS",
    "first": "allow more with --first SECONDS",
    "idle": "allow more with --idle SECONDS",
    "connect": ADVICE[K.CONNECT],
}

# Phrases of the library's hints, and what they are called here.
WORDS: tuple[tuple[str, str], ...] = (
    ("pass model=, or set", "give --model or set"),
    ("name one: model=… or", "give --model or set"),
    ("pass api_key=, or set", "set"),
    ("pass the credential as api_key", "set SIDESTREAM_API_KEY instead"),
    ("use https, or say insecure=True if that network is yours", "use https, or no key"),
)


def advice(error: SidestreamError) -> str:
    """One line on what to do about an error."""
    if isinstance(error, DeadlineExceeded):
        return CLOCKS.get(error.clock, "")
    if isinstance(error, ProviderError) and error.fault.retry_after:
        return f"the provider asks to wait {error.fault.retry_after:.0f} s; {_SECOND_ROUTE}"
    if isinstance(error, BudgetExhausted) and error.budget == "cost":
        return f"too much of its output was thrown away: try again; {_SECOND_ROUTE}"
    if isinstance(error, BudgetExhausted):
        return ADVICE[K.WITHHELD]
    if isinstance(error, CallFailed):
        return ADVICE[error.fault.kind]
    hint = error.hint
    for theirs, ours in WORDS:
        hint = hint.replace(theirs, ours)
    return f"{hint}; without any: sidestream ask --local" if isinstance(error, NoRoute) else hint


def refusals(error: SidestreamError) -> str:
    """Why no rung of the ladder was open, if the error says so."""
    first = f"{LADDER[0].__name__}: "
    return error.hint if isinstance(error, CallFailed) and error.hint.startswith(first) else ""
