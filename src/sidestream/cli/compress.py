"""`sidestream compress FILE`: a conversation, shorter, in its own format.

With a model configured it asks for a structured summary; without one it quotes (extractive). Output is
written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..client import Client
from ..errors import NoRoute, SidestreamError, UsageError
from ..tasks.compression import Budget, Compaction, Conversation, load
from ..tasks.compression import compress as run
from .files import read_bytes, write_whole
from .options import Endpoint, Number, endpoint_options, output_options
from .shapes import as_json, compaction_json
from .terminal import Story, write

__all__ = ["compress"]

_LONGEST = 64 * 1024 * 1024
_RATIO = 0.2


@click.command("compress", short_help="Shorten an agent's conversation, in its own format.")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write here instead of stdout.")
@click.option(
    "--ratio",
    type=Number("share", above=0, most=1),
    help=f"Target length as a share of the source.  [{_RATIO}]",
)
@click.option("--tokens", type=click.IntRange(1), metavar="N", help="Target length in tokens (estimated).")
@click.option("--extractive", is_flag=True, help="Quote only, even if a model is configured.")
@endpoint_options
@output_options
def compress(
    file: Path,
    output: Path | None,
    ratio: float | None,
    tokens: int | None,
    extractive: bool,
    endpoint: Endpoint,
    json: bool,
    quiet: bool,
) -> None:
    """Shorten an agent's conversation without losing what it cannot afford to lose.

    FILE is chat-message JSON or JSONL, Responses items, a Codex rollout or a Claude Code session; - is stdin.
    The output has the same format.
    """
    story = Story(quiet or json)
    if ratio is not None and tokens is not None:
        raise UsageError("--ratio and --tokens are two targets", hint="give one of them")
    budget = Budget(tokens=tokens) if tokens is not None else Budget(ratio=ratio or _RATIO)
    hint = "give a conversation file, for example chat messages as JSON"
    conversation = load(read_bytes(file, _LONGEST, hint))
    compaction = (
        run(conversation, budget=budget) if extractive else _summarised(conversation, budget, endpoint, story)
    )
    _deliver(compaction, output, json=json)
    story.say(_summary(compaction), "yellow" if compaction.kept else "green")
    if compaction.kept:
        story.say("hint: --extractive needs no model")
        raise SystemExit(6)


def _summarised(conversation: Conversation, budget: Budget, endpoint: Endpoint, story: Story) -> Compaction:
    """By a model if one is configured, by quoting otherwise."""
    try:
        with endpoint.client() as client:
            return run(conversation, budget=budget, complete=_asking(client, story))
    except NoRoute:
        if endpoint.chosen:
            raise
    story.say("no model is configured: quoting only (extractive)", "dim")
    return run(conversation, budget=budget)


def _asking(client: Client, story: Story) -> Callable[[list[dict[str, str]]], str]:
    def ask(prompt: list[dict[str, Any]]) -> str:
        try:
            with story.waiting(f"waiting for {client.routes[0].model} to summarise"):
                reply = client.complete(prompt, atomic=True, empty_is_failure=True, notify=story.recovering)
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
