"""Token counts as both wires report them: the same figures under two sets of names.

Responses says input and output tokens, Chat prompt and completion tokens; details carry the same two names.
What a provider leaves out stays None: unknown is not zero.
"""

from __future__ import annotations

from ._json import integer, mapping
from .events import TokenCounts

__all__ = ["read_usage"]


def read_usage(value: object, read: str, written: str) -> TokenCounts | None:
    """The usage object of a wire that calls its tokens `read` and `written`, or None if there is none."""
    usage = mapping(value)
    if not usage:
        return None
    return TokenCounts(
        input_tokens=integer(usage.get(f"{read}_tokens")),
        output_tokens=integer(usage.get(f"{written}_tokens")),
        total_tokens=integer(usage.get("total_tokens")),
        cached_tokens=integer(mapping(usage.get(f"{read}_tokens_details")).get("cached_tokens")),
        reasoning_tokens=integer(mapping(usage.get(f"{written}_tokens_details")).get("reasoning_tokens")),
    )
