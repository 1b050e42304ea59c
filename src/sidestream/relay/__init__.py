"""What a consumer who speaks a wire is given: the provider's own bytes while all is well, and after a break
frames in the same wire that make one coherent stream of it. Pure; one wire per file, what they share in
`base`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Original, Relay
from .chat import ChatRelay
from .messages import MessagesRelay
from .responses import ResponsesRelay

__all__ = ["RELAYS", "Original", "Relay", "relay_for"]

RELAYS: dict[str, type[Relay]] = {
    "responses": ResponsesRelay,
    "chat": ChatRelay,
    "messages": MessagesRelay,
}


def relay_for(wire: str, body: Mapping[str, Any], *, live: bool = True, sums: bool = True) -> Relay:
    """The relay for a request with this JSON body.

    Args:
        live: False if its consumer waits for the whole answer.
        sums: False if it is told only the answer's own tokens.
    """
    return RELAYS[wire](body, live=live, sums=sums)
