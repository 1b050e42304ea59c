"""`sidestream compress FILE`: a conversation, shorter, in its own format.

With a model configured it asks for a structured summary; without one it quotes (extractive). `--window` lets
the policy decide whether it is time and what stays, as a session would. Output is written whole or not at
all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import click

from ..client import Client
from ..errors import NoRoute, SidestreamError, UsageError
from ..tasks.compression import (
    Budget,
    Compaction,
    Compactor,
    CompressionPolicy,
    Conversation,
    counter_for,
    load,
    prune,
)
from ..tasks.compression import compress as run
from .files import read_bytes, write_whole
from .options import Endpoint, Number, endpoint_options, output_options
from .shapes import as_json, compaction_json
from .terminal import Story, write

__all__ = ["asking", "compress"]

Ask: TypeAlias = Callable[[list[dict[str, str]]], str]

_LONGEST = 64 * 1024 * 1024
_RATIO = 0.2
_TASK = "compression"


@click.command("compress", short_help="Shorten an agent's conversation, in its own format.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write here instead of stdout.")
@click.option(
    "--ratio",
    type=Number("share", above=0, most=1),
    help=f"Target length as a share of the source.  [{_RATIO}]",
)
@click.option(
    "--tokens", type=click.IntRange(1), metavar="N", help="Target length in tokens; see --count-as."
)
@click.option(
    "--window", type=click.IntRange(1), metavar="N", help="Let the policy decide for this context window."
)
@click.option(
    "--count-as", metavar="MODEL", default="", help="Count tokens as this model does, if it is known."
)
@click.option("--focus", metavar="TOPIC", default="", help="What a summary gives most of its room to.")
@click.option("--extractive", is_flag=True, help="Quote only, even if a model is configured.")
@click.option("--prune-only", is_flag=True, help="Only shorten old tool output; no digest, no model.")
@click.option("--alternate", is_flag=True, help="Merge neighbours of one role (chat formats).")
@endpoint_options
@output_options
def compress(
    file: Path,
    output: Path | None,
    ratio: float | None,
    tokens: int | None,
    window: int | None,
    count_as: str,
    focus: str,
    extractive: bool,
    prune_only: bool,
    alternate: bool,
    endpoint: Endpoint,
    json: bool,
    quiet: bool,
) -> None:
    """Shorten an agent's conversation without losing what it cannot afford to lose.

    FILE is chat-message JSON or JSONL, Responses items, a Codex rollout or a Claude Code session; - is stdin.
    The output has the same format.
    """
    story = Story(quiet or json)
    targets = {"--ratio": ratio, "--tokens": tokens, "--window": window}
    given = [name for name, value in targets.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are different targets", hint="give one of them")
    budget = Budget(tokens=tokens) if tokens is not None else Budget(ratio=ratio or _RATIO)
    hint = "give a conversation file, for example chat messages as JSON"
    conversation = load(read_bytes(file, _LONGEST, hint))
    target = _Target(budget, window, count_as or endpoint.model or "", focus, alternate)
    if prune_only:
        compaction = target.prune(conversation)
    elif extractive:
        compaction = target.run(conversation)
    else:
        compaction = _summarised(conversation, target, endpoint, story)
    _deliver(compaction, output, json=json)
    story.say(_summary(compaction), "yellow" if compaction.kept else "green")
    if compaction.kept:
        story.say("hint: --extractive needs no model")
        raise SystemExit(6)


@dataclass(frozen=True, slots=True)
class _Target:
    """How long, and how: what the options say."""

    budget: Budget
    window: int | None
    model: str
    focus: str
    alternate: bool

    def run(self, conversation: Conversation, ask: Ask | None = None) -> Compaction:
        if self.window is not None:
            return self._by_policy(conversation, ask, self.window)
        return run(
            conversation,
            budget=self.budget,
            complete=ask,
            focus=self.focus,
            count=counter_for(self.model),
            alternate=self.alternate,
        )

    def prune(self, conversation: Conversation) -> Compaction:
        count = counter_for(self.model)
        limit = self.budget.characters(conversation, count)
        return prune(conversation, tail=limit, count=count).compaction(limit, count)

    def _by_policy(self, conversation: Conversation, ask: Ask | None, window: int) -> Compaction:
        policy = CompressionPolicy(alternate=self.alternate)
        compactor = Compactor(ask, window=window, policy=policy, model=self.model)
        return compactor.compact(conversation, focus=self.focus, due=True)


def _summarised(conversation: Conversation, target: _Target, endpoint: Endpoint, story: Story) -> Compaction:
    """By a model if one is configured, by quoting otherwise."""
    try:
        with endpoint.client() as client:
            return target.run(conversation, asking(client, endpoint, story))
    except NoRoute as error:
        if endpoint.chosen:
            raise
        story.say(f"{error}: quoting only (extractive)", "dim")
    return target.run(conversation)


def asking(client: Client, endpoint: Endpoint, story: Story) -> Ask:
    """What asks a client's model for a summary, with the story told on stderr.

    Raises:
        NoRoute: there is no model to ask.
    """
    model = client.plan(_TASK).routes[0].model
    timeouts = endpoint.timeouts(client, _TASK)

    def ask(prompt: list[dict[str, Any]]) -> str:
        try:
            with story.waiting(f"waiting for {model} to summarise"):
                reply = client.complete(prompt, task=_TASK, timeout=timeouts, notify=story.recovering)
        except SidestreamError as error:
            story.ledger(error.attempts)
            raise
        story.ledger(reply.attempts)
        return reply.text

    return ask


def _deliver(compaction: Compaction, output: Path | None, *, json: bool) -> None:
    data = compaction.to_bytes()
    if output is not None:
        write_whole(output, data)
    if json:
        report = compaction_json(compaction)
        write(as_json(report if output else report | {"output": data.decode("utf-8", "replace")}))
    elif output is None:
        write(data)


def _summary(c: Compaction) -> str:
    share = 100 * c.chars_after / max(1, c.chars_before)
    messages = f"{c.messages_before} → {c.messages_after} messages"
    characters = f"{c.chars_before:,} → {c.chars_after:,} characters ({share:.0f} %)"
    return f"{c.method}: {messages}, {characters}. {c.notice}".rstrip()
