"""`sidestream evaluate TRANSCRIPT --facts FACTS`: what each way of compressing keeps.

Without a transcript it is the bundled one. A strategy that needs a model uses the configured one; nothing is
written but the table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import click

from ..errors import UsageError
from ..tasks.compression import Conversation, load
from ..tasks.compression.evaluate import STRATEGIES, Score
from ..tasks.compression.evaluate import evaluate as run
from ..tasks.compression.facts import Fact, read_facts
from .compress import asking
from .files import read_bytes
from .options import Endpoint, Number, endpoint_options, output_options
from .shapes import as_json, score_json
from .terminal import Story, write

__all__ = ["evaluate"]

_LONGEST = 64 * 1024 * 1024
_DEFAULT = ("extractive", "prune", "random")
_NAMED = 3  # missing facts that the table names


@click.command("evaluate", short_help="Compare ways of compressing by the facts they keep.")
@click.argument("transcript", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option(
    "--facts",
    "facts_file",
    type=click.Path(path_type=Path),
    help="Facts that should survive: JSON, or text with one a line.",
)
@click.option(
    "--strategy",
    "-s",
    "strategies",
    type=click.Choice(list(STRATEGIES)),
    multiple=True,
    help=f"May be repeated.  [{', '.join(_DEFAULT)}; summary if a model is named]",
)
@click.option(
    "--ratio",
    type=Number("share", above=0, most=1),
    default=0.2,
    help="Length as a share of the source.  [0.2]",
)
@endpoint_options
@output_options
def evaluate(
    transcript: Path | None,
    facts_file: Path | None,
    strategies: tuple[str, ...],
    ratio: float,
    endpoint: Endpoint,
    json: bool,
    quiet: bool,
) -> None:
    """Compress a conversation in several ways and count the facts each of them keeps.

    TRANSCRIPT is a conversation as `compress` takes it; without one it is the bundled sample. FACTS is a list
    of texts, or of lists of alternatives, that should still be there afterwards.
    """
    story = Story(quiet or json)
    conversation, facts = _material(transcript, facts_file)
    chosen = strategies or (*_DEFAULT, *(["summary"] if endpoint.chosen else []))
    with _model(endpoint, story, needed="summary" in chosen) as ask:
        scores = [run(conversation, facts, each, ratio=ratio, complete=ask) for each in dict.fromkeys(chosen)]
    write(as_json([score_json(each) for each in scores]) if json else _table(scores))
    for each in scores:
        story.say(f"{each.strategy}: {each.notice}", "dim")


def _material(transcript: Path | None, facts: Path | None) -> tuple[Conversation, list[Fact]]:
    if transcript is not None and facts is None:
        raise UsageError("which facts should survive?", hint="give a file: --facts facts.txt, one a line")
    samples = files("sidestream.tasks.compression") / "samples"
    hint = "give a conversation file, for example chat messages as JSON"
    data = (
        (samples / "agent-session.json").read_bytes()
        if transcript is None
        else read_bytes(transcript, _LONGEST, hint)
    )
    listed = (
        (samples / "agent-session.facts.json").read_bytes()
        if facts is None
        else read_bytes(facts, _LONGEST, "give a file with facts")
    )
    return load(data), read_facts(listed)


@contextlib.contextmanager
def _model(
    endpoint: Endpoint, story: Story, *, needed: bool
) -> Iterator[Callable[[list[dict[str, str]]], str] | None]:
    if not needed:
        yield None
        return
    with endpoint.client() as client:
        yield asking(client, endpoint, story)


def _table(scores: list[Score]) -> str:
    rows = [("strategy", "facts", "share", "characters", "length", "missing")]
    for each in scores:
        share = f"{100 * each.kept / each.facts:.0f} %"
        length = f"{100 * each.chars_after / max(1, each.chars_before):.0f} %"
        told = f"{each.kept:g}/{each.facts}"
        rows.append((each.strategy, told, share, f"{each.chars_after:,}", length, _missing(each)))
    widths = [max(len(row[at]) for row in rows) for at in range(5)]
    return "".join(f"{_line(row, widths)}\n" for row in rows)


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    numbers = [cell.rjust(width) for cell, width in zip(row[1:5], widths[1:], strict=True)]
    return "  ".join([row[0].ljust(widths[0]), *numbers, row[5]]).rstrip()


def _missing(score: Score) -> str:
    named = "; ".join(score.missing[:_NAMED])
    more = len(score.missing) - _NAMED
    return f"{named}; {more} more" if more > 0 else named
