"""`sidestream compress FILE`: a conversation, shorter, in its own format.

With a model configured it asks for a structured summary; without one it quotes (extractive). Output is
written whole or not at all.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError, NoRoute, UsageError
from ..tasks.compression import Budget, Compaction, load
from ..tasks.compression import compress as run
from .options import endpoint_options, open_client, output_options, timeouts
from .terminal import Story, as_json, write

__all__ = ["compress"]

_LONGEST = 64 * 1024 * 1024


@click.command("compress")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write here instead of stdout.")
@click.option("--ratio", type=float, help="Target length as a share of the source.  [default: 0.2]")
@click.option("--tokens", type=int, help="Target length in tokens (estimated).")
@click.option("--extractive", is_flag=True, help="Quote only, even if a model is configured.")
@endpoint_options
@output_options
def compress(
    file: Path,
    output: Path | None,
    ratio: float | None,
    tokens: int | None,
    extractive: bool,
    model: str | None,
    base_url: str | None,
    wire: str | None,
    timeout: float | None,
    json: bool,
    quiet: bool,
) -> None:
    """Shorten an agent's conversation without losing what it cannot afford to lose.

    FILE is chat-message JSON or JSONL, Responses items, a Codex rollout or a Claude Code session; - is stdin.
    The output has the same format.
    """
    story = Story(quiet or json)
    if ratio is not None and tokens is not None:
        raise UsageError("give --ratio or --tokens, not both")
    budget = Budget(tokens=tokens) if tokens is not None else Budget(ratio=0.2 if ratio is None else ratio)
    conversation = load(_read(file))
    if extractive:
        compaction = run(conversation, budget=budget)
    else:
        try:
            with open_client(
                story, base_url=base_url, model=model, wire=wire, clocks=timeouts(timeout, None)
            ) as client:
                compaction = run(conversation, budget=budget, complete=_asking(client, story))
        except NoRoute:
            if model or base_url:
                raise
            story.say("no model is configured: quoting only (extractive)", "dim")
            compaction = run(conversation, budget=budget)
    _deliver(compaction, output, json=json)
    story.say(_summary(compaction), "green" if not compaction.kept else "yellow")
    if compaction.kept:
        raise SystemExit(6)


def _asking(client: Any, story: Story) -> Any:
    def ask(prompt: list[dict[str, str]]) -> str:
        reply = client.complete(prompt, atomic=True, empty_is_failure=True, notify=story.recovering)
        story.ledger(reply.attempts)
        return str(reply.text)

    return ask


def _read(file: Path) -> bytes:
    hint = "give a conversation file, for example a chat-message JSON"
    try:
        data = sys.stdin.buffer.read(_LONGEST + 1) if str(file) == "-" else _read_file(file)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror or error}", hint=hint) from None
    if len(data) > _LONGEST:
        raise UsageError(f"{file} is larger than {_LONGEST // 1024**2} MiB", hint="split it")
    return data


def _read_file(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(_LONGEST + 1)


def _deliver(compaction: Compaction, output: Path | None, *, json: bool) -> None:
    data = compaction.to_bytes()
    if output is not None:
        _write_whole(output, data)
    if json:
        report = _report(compaction)
        write(as_json(report if output else report | {"output": data.decode("utf-8", "replace")}))
    elif output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()


def _write_whole(output: Path, data: bytes) -> None:
    """The file appears complete or not at all."""
    try:
        descriptor, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(name).replace(output)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror or error}") from None


def _report(c: Compaction) -> dict[str, Any]:
    names = (
        "method", "notice", "met_budget", "budget_chars", "chars_before", "chars_after", "digest_chars",
        "tokens_before", "tokens_after", "messages_before", "messages_after",
    )  # fmt: skip
    return {name: getattr(c, name) for name in names}


def _summary(c: Compaction) -> str:
    share = 100 * c.chars_after / max(1, c.chars_before)
    messages = f"{c.messages_before} → {c.messages_after} messages"
    characters = f"{c.chars_before:,} → {c.chars_after:,} characters ({share:.0f} %)"
    return f"{c.method}: {messages}, {characters}. {c.notice}".rstrip()
