"""How long the result may be, said in exactly one way.

A ratio is of the conversation's own characters, tokens are estimates, characters are exact. A token budget
becomes characters at the conversation's own rate, so that Chinese is not granted four times its room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from .conversation import estimate_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conversation import Conversation

__all__ = ["Budget"]

_HINT = "Give exactly one: Budget(ratio=0.2), Budget(tokens=8_000) or Budget(chars=32_000)."


@dataclass(frozen=True, slots=True)
class Budget:
    """The target length of a compressed conversation, user messages included.

    Attributes:
        ratio: of the source's characters, above 0 and at most 1.
        tokens: as they are counted for the target model: with its own vocabulary, else estimated.
        chars: characters.
    """

    ratio: float | None = None
    tokens: int | None = None
    chars: int | None = None

    def __post_init__(self) -> None:
        given: list[tuple[str, Any]] = [(name, getattr(self, name)) for name in ("ratio", "tokens", "chars")]
        given = [each for each in given if each[1] is not None]
        if len(given) != 1:
            raise UsageError(f"a budget needs one measure, got {len(given)}", hint=_HINT)
        name, value = given[0]
        kinds = (int, float) if name == "ratio" else int
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise UsageError(f"budget {name} must be a number, got {value!r}", hint=_HINT)
        if not 0 < value <= (1 if name == "ratio" else value):
            limits = "above 0 and at most 1" if name == "ratio" else "above 0"
            raise UsageError(f"budget {name} must be {limits}, got {value!r}", hint=_HINT)

    @classmethod
    def of(cls, value: object) -> Budget:
        """A budget as callers give it: a plain integer means tokens."""
        if isinstance(value, Budget):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(tokens=value)
        raise UsageError(f"budget must be a number of tokens or a Budget, got {value!r}", hint=_HINT)

    def characters(self, conversation: Conversation, count: Callable[[str], int] = estimate_tokens) -> int:
        """The budget in characters of this conversation, its tokens counted by `count`."""
        if self.chars is not None:
            return self.chars
        if self.ratio is not None:
            return int(self.ratio * conversation.chars)
        tokens = self.tokens or 0
        return tokens * conversation.chars // max(1, conversation.count(count))
