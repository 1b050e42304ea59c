"""What a model thinks aloud within its answer, in tags of its own. Pure.

A side task has no use for it: neither a title nor a summary may hold it. Reasoning that the wire tells apart
from the answer never gets here.
"""

from __future__ import annotations

import re

__all__ = ["without_thoughts"]

_THOUGHT = re.compile(
    r"<(think(?:ing)?|reasoning(?:_scratchpad)?|thought)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE
)


def without_thoughts(text: str) -> str:
    """The answer without them. A thought that does not end goes on to the end of the text."""
    return _THOUGHT.sub("", text).strip()
