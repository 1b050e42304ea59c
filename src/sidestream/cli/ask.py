"""`sidestream ask`: one question, the answer on stdout.

On a terminal the answer is shown as it arrives (live); into a pipe or file it is written once it is whole
(held), so that nothing partial is ever taken for an answer. A live answer that has to begin anew is announced
on a terminal; a pipe cannot take back what it got, so there it is an error.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import click

from ..client import Client
from ..errors import SidestreamError, UsageError
from ..reply import Reply
from ..wire.events import Recovering, Restarted, StreamEvent, TextDelta
from .files import STDIN, read_text
from .options import Endpoint, Number, endpoint_options, output_options
from .shapes import as_json, error_json, reply_json
from .terminal import Story, write

__all__ = ["ask"]

_LONGEST = 4 * 1024 * 1024
_EXAMPLE = 'sidestream ask "Why is the sky blue?"'


@click.command("ask")
@click.argument("prompt", default="-")
@click.option("--system", "-s", default="", metavar="TEXT", help="Instructions for the model.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Longest answer, in tokens.")
@click.option("--temperature", type=Number("number", least=0), help="0 is the calmest.")
@click.option(
    "--held/--live",
    default=None,
    help="Wait for the whole answer, or show it as it comes.  [live on a terminal]",
)
@click.option("--local", is_flag=True, help="Use the small embedded model; needs no key.")
@endpoint_options
@output_options
def ask(
    prompt: str,
    system: str,
    max_tokens: int | None,
    temperature: float | None,
    held: bool | None,
    local: bool,
    endpoint: Endpoint,
    json: bool,
    quiet: bool,
) -> None:
    """Ask a model; the answer arrives whole even if its stream breaks.

    PROMPT is the question; - or nothing reads it from stdin.
    """
    if json and held is False:
        raise UsageError("--json waits for the whole answer", hint="leave out --live or --json")
    if local and endpoint.chosen:
        raise UsageError("--local is a model of its own", hint="leave out --local, or --model and --base-url")
    story = Story(quiet or json)
    asked: dict[str, Any] = {
        "input": _prompt(prompt),
        "instructions": _text(system, "--system"),
        "max_output_tokens": max_tokens,
        "temperature": temperature,
    }
    live = sys.stdout.isatty() if held is None else not held
    ask_it = _live if live and not json else _held
    with endpoint.embedded(story) if local else endpoint.client() as client:
        asked["timeout"] = endpoint.timeouts(client)
        try:
            reply = ask_it(client, story, asked)
        except SidestreamError as error:
            _failed(story, error, json=json, shown=live and not json)
    if json:
        write(as_json(reply_json(reply)))
    elif not live:
        write(reply.text if reply.text.endswith("\n") else reply.text + "\n")
    _finish(story, reply)


def _prompt(prompt: str) -> str:
    if prompt == "-" and sys.stdin.isatty():
        raise UsageError("there is nothing to ask", hint=_EXAMPLE)
    text = read_text(STDIN, _LONGEST) if prompt == "-" else _text(prompt, "the prompt")
    if not text.strip():
        raise UsageError("the prompt is empty", hint=_EXAMPLE)
    return text


def _text(argument: str, name: str) -> str:
    """An argument of the command line, which may hold bytes that are no text."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{name} is not UTF-8 text", hint="check the terminal's encoding") from None
    return argument


def _held(client: Client, story: Story, asked: dict[str, Any]) -> Reply:
    with story.waiting(_waiting_for(client)):
        return client.complete(notify=story.recovering, **asked)


def _live(client: Client, story: Story, asked: dict[str, Any]) -> Reply:
    with client.stream(**asked) as stream, story.waiting(_waiting_for(client)) as begin:
        for event in stream:
            begin()
            _show(story, event, stream.reply)
        story.end_answer()
        return stream.reply


def _waiting_for(client: Client) -> str:
    """Raises NoRoute: there is nobody to wait for."""
    return f"waiting for {client.plan().routes[0].model}"


def _show(story: Story, event: StreamEvent, reply: Reply) -> None:
    if isinstance(event, TextDelta):
        story.answer(event.delta)
    elif isinstance(event, Recovering):
        story.recovering(event)
    elif isinstance(event, Restarted):
        if not sys.stdout.isatty():
            raise SidestreamError(
                f"the answer had to begin anew ({event.reason}), and what is written cannot be taken back",
                hint="leave out --live: then only a whole answer is written",
                reply=reply,
                attempts=reply.attempts,
            )
        story.restarted(event.reason)


def _failed(story: Story, error: SidestreamError, *, json: bool, shown: bool) -> NoReturn:
    """Hand over what arrived before the error is reported."""
    if json:
        write(as_json(error_json(error)))
    elif shown:
        story.end_answer()
    elif error.reply is not None and error.reply.text:
        story.say("what arrived, which is not the whole answer:", "yellow")
        story.say(error.reply.text)
    story.ledger(error.attempts)
    raise error


def _finish(story: Story, reply: Reply) -> None:
    """Whatever a reader of the answer should know about it, and what it took."""
    story.ledger(reply.attempts)
    if reply.settled:
        story.say("settled: the answer was all there, only its end marker never came", "yellow")
    if reply.status == "incomplete":
        story.say("the answer is incomplete: a token limit ended it", "yellow")
        raise SystemExit(3)
    if not reply.text:
        story.say(f"the answer has no text{': ' + reply.refusal if reply.refusal else ''}", "yellow")
