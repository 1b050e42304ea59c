"""Strategies side by side: the same conversation, the same length, facts counted.

A strategy is a row in `STRATEGIES`: it takes a conversation and a length and gives texts, of which the facts
are counted; more than one text (random lines) gives the mean. Random lines beside the user's words are the
bar that every other strategy has to be above.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Final, TypeAlias

from ...errors import NoRoute, UsageError
from . import Budget, compress
from .conversation import Conversation
from .facts import Fact, kept
from .prune import prune

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Complete: TypeAlias = Callable[[list[dict[str, str]]], str]
    # the method, a notice, and texts with how many characters a model would read of each
    Outcome: TypeAlias = tuple[str, str, list[tuple[str, int]]]

__all__ = ["STRATEGIES", "Score", "evaluate", "random_lines"]

_SEEDS = 30


@dataclass(frozen=True, slots=True)
class Score:
    """What a strategy kept.

    Attributes:
        strategy: its name.
        method: what became of the conversation, see `Compaction.method`; "random" for random lines.
        kept: facts still told; a mean for random lines.
        facts: facts there were.
        missing: names of those no longer told; for random lines of those never told.
        chars_before, chars_after: characters a model would read.
        notice: for people.
    """

    strategy: str
    method: str
    kept: float
    facts: int
    missing: tuple[str, ...]
    chars_before: int
    chars_after: int
    notice: str


def evaluate(
    conversation: Conversation,
    facts: Sequence[Fact],
    strategy: str,
    *,
    ratio: float,
    complete: Complete | None = None,
) -> Score:
    """Score one strategy at a share of the conversation's length.

    Args:
        strategy: one of `STRATEGIES`.
        complete: asks a model; "summary" needs it.

    Raises:
        UsageError: no such strategy.
        NoRoute: "summary" without a model.
    """
    if strategy not in STRATEGIES:
        raise UsageError(f"there is no strategy {strategy!r}", hint=f"Known: {', '.join(STRATEGIES)}.")
    method, notice, texts = STRATEGIES[strategy](conversation, ratio, complete)
    told = [kept(facts, text) for text, _ in texts]
    ever = {fact.name for each in told for fact in each}
    return Score(
        strategy=strategy,
        method=method,
        kept=round(mean(map(len, told)), 1),
        facts=len(facts),
        missing=tuple(fact.name for fact in facts if fact.name not in ever),
        chars_before=conversation.chars,
        chars_after=round(mean(chars for _, chars in texts)),
        notice=notice,
    )


def random_lines(conversation: Conversation, ratio: float, seed: int) -> str:
    """User and system messages, and as many random lines of the others as fit the length."""
    always = [each.text for each in conversation.messages if each.role in ("user", "system")]
    room = int(ratio * conversation.chars) - sum(map(len, always))
    lines = list(_lines(conversation))
    random.Random(seed).shuffle(lines)
    for line in lines:
        if len(line) < room:
            always.append(line)
            room -= len(line) + 1
    return "\n".join(always)


def _lines(conversation: Conversation) -> Iterator[str]:
    for message in conversation.messages:
        if message.role not in ("user", "system", "note"):
            yield from message.text.split("\n")


def _extractive(conversation: Conversation, ratio: float, _: Complete | None) -> Outcome:
    done = compress(conversation, budget=Budget(ratio=ratio))
    return done.method, done.notice, [(done.conversation.text, done.conversation.chars)]


def _summary(conversation: Conversation, ratio: float, ask: Complete | None) -> Outcome:
    if ask is None:
        raise NoRoute("the summary needs a model", hint="Name one, or leave this strategy out.")
    done = compress(conversation, budget=Budget(ratio=ratio), complete=ask)
    return done.method, done.notice, [(done.conversation.text, done.conversation.chars)]


def _prune(conversation: Conversation, ratio: float, _: Complete | None) -> Outcome:
    done = prune(conversation, tail=int(ratio * conversation.chars))
    method = "pruned" if done.changed else "none"
    return (
        method,
        f"{done.notice} Pruning has no target length.",
        [(done.conversation.text, done.conversation.chars)],
    )


def _random(conversation: Conversation, ratio: float, _: Complete | None) -> Outcome:
    texts = [random_lines(conversation, ratio, seed) for seed in range(_SEEDS)]
    return "random", f"The mean of {_SEEDS} draws of lines.", [(text, len(text)) for text in texts]


STRATEGIES: Final[dict[str, Callable[[Conversation, float, Complete | None], Outcome]]] = {
    "extractive": _extractive,
    "prune": _prune,
    "summary": _summary,
    "random": _random,
}
