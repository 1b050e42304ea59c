"""`sidestream ask`: one question, the answer on stdout.

On a terminal the answer is shown as it arrives (live); into a pipe or file it is written once it is whole
(held), so that nothing partial is ever taken for an answer.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from ..client import Client
from ..errors import SidestreamError, UsageError
from ..reply import Reply
from ..wire.events import Recovering, Restarted, TextDelta
from .options import endpoint_options, open_client, output_options, timeouts
from .terminal import Story, as_json, error_json, reply_json, write

__all__ = ["ask"]

_LONGEST = 4 * 1024 * 1024


@click.command("ask")
@click.argument("prompt", default="-")
@click.option("--system", "-s", default="", metavar="TEXT", help="Instructions for the model.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer, in tokens.")
@click.option("--temperature", type=click.FloatRange(min=0), help="0 is the calmest.")
@click.option("--held/--live", default=None, help="Wait for the whole answer, or show it as it comes.")
@click.option("--idle", type=float, metavar="SECONDS", help="Silence that is taken for a stall.")
@click.option("--local", is_flag=True, help="Use the small embedded model; needs no key.")
@endpoint_options
@output_options
def ask(
    prompt: str,
    system: str,
    max_tokens: int | None,
    temperature: float | None,
    held: bool | None,
    idle: float | None,
    local: bool,
    model: str | None,
    base_url: str | None,
    wire: str | None,
    timeout: float | None,
    json: bool,
    quiet: bool,
) -> None:
    """Ask a model; the answer arrives whole even if its stream breaks.

    PROMPT is the question; - or nothing reads it from stdin.
    """
    story = Story(quiet or json)
    text = _read(prompt)
    params: dict[str, Any] = {"max_output_tokens": max_tokens, "temperature": temperature}
    wait = (json or not sys.stdout.isatty()) if held is None else held
    clocks = timeouts(timeout, idle)
    with open_client(story, local=local, base_url=base_url, model=model, wire=wire, clocks=clocks) as client:
        try:
            if wait or json:
                reply = client.complete(text, instructions=system, notify=story.recovering, **params)
            else:
                reply = _live(client, story, text, system, params)
        except SidestreamError as error:
            _failed(story, error, json=json, shown=not wait)
            raise
    if json:
        write(as_json(reply_json(reply)))
    elif wait:
        write(reply.text if reply.text.endswith("\n") else reply.text + "\n")
    story.ledger(reply.attempts)
    if reply.status == "incomplete":
        story.say("the answer is incomplete: a token limit ended it", "yellow")
        raise SystemExit(3)


def _read(prompt: str) -> str:
    if prompt == "-" and sys.stdin.isatty():
        raise UsageError("there is nothing to ask", hint='sidestream ask "Why is the sky blue?"')
    text = sys.stdin.read(_LONGEST + 1) if prompt == "-" else prompt
    if len(text) > _LONGEST:
        raise UsageError(f"the prompt is longer than {_LONGEST:,} characters")
    if not text.strip():
        raise UsageError("the prompt is empty", hint='sidestream ask "Why is the sky blue?"')
    return text


def _live(client: Client, story: Story, text: str, system: str, params: dict[str, Any]) -> Reply:
    with client.stream(text, instructions=system, **params) as stream:
        for event in stream:
            if isinstance(event, TextDelta):
                write(event.delta)
            elif isinstance(event, Recovering):
                story.recovering(event)
            elif isinstance(event, Restarted):
                write("\n")
                story.say(f"what stands above is void ({event.reason}); the answer begins anew:", "yellow")
        write("\n")
        return stream.reply


def _failed(story: Story, error: SidestreamError, *, json: bool, shown: bool) -> None:
    """Hand over what arrived before the error is reported."""
    if json:
        write(as_json(error_json(error)))
        return
    if shown:
        write("\n")
    elif error.reply is not None and error.reply.text:
        story.say(
            f"what arrived, {len(error.reply.text)} characters, not the whole answer:\n{error.reply.text}\n"
        )
    story.ledger(error.attempts)
