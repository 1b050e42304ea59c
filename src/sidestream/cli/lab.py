"""`sidestream lab`: the fault-injecting server, for any client in any language."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from ..errors import UsageError
from ..lab import KINDS, Fault, Lab, Plan, Request, Script, script, serve
from .options import output_options
from .terminal import Story, as_json, write

__all__ = ["lab"]

_FAULT_HELP = (
    "What happens to the next attempt, for example cut:after_event=9; repeat for later attempts; "
    "none leaves one alone. `sidestream lab faults` lists them."
)


@click.group("lab")
def lab() -> None:
    """A server that breaks streams on purpose."""


@lab.command("serve")
@click.option("--fault", "-f", "fault", multiple=True, metavar="FAULT", help=_FAULT_HELP)
@click.option("--always", is_flag=True, help="Every further attempt meets the last --fault again.")
@click.option("--hazard", type=float, help="Cut before each event with this probability.")
@click.option("--seed", type=int, default=0, help="Seed of the hazard.")
@click.option(
    "--text", default="The quick brown fox jumps over the lazy dog.", help="What the model answers."
)
@click.option("--replay", type=click.Path(path_type=Path), help="Answer with this recorded .sse file.")
@click.option("--upstream", metavar="URL", help="Be a proxy before this server (http://127.0.0.1:8080).")
@click.option("--pace", type=click.FloatRange(min=0), default=0.02, help="Seconds between two events.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8377, show_default=True, help="0: a free one.")
@click.option("--tls", is_flag=True, help="Serve TLS with a certificate of its own.")
@output_options
def serve_command(
    fault: tuple[str, ...],
    always: bool,
    hazard: float | None,
    seed: int,
    text: str,
    replay: Path | None,
    upstream: str | None,
    pace: float,
    host: str,
    port: int,
    tls: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Serve /v1/responses and /v1/chat/completions, and break them as told, until Ctrl-C."""
    story = Story(quiet or json)
    plan = _plan(list(fault), always=always, hazard=hazard, seed=seed)
    answers = None if upstream else _answers(text, replay, pace)
    server = Lab(answers, plan=plan, host=host, port=port, tls=tls, upstream=upstream)

    def started(running: Lab) -> None:
        story.say(f"listening on {running.url} (Ctrl-C ends it)", "green")
        if json:
            write(as_json({"url": running.url}))

    def ended(request: Request) -> None:
        if json:
            write(as_json(_row(request)))
        story.say(
            f"{request.index:4} {request.path}  {request.events_sent} events, {request.bytes_sent} bytes, "
            f"{request.fault or 'no fault'}, ended by {request.ended_by or 'nobody'}"
        )

    serve(server, started=started, ended=ended)


@lab.command("faults")
def faults() -> None:
    """List the faults that --fault knows."""
    for kind, row in KINDS.items():
        write(f"{kind:16} {row.number:4} {row.meaning}\n")


def _plan(faults: list[str], *, always: bool, hazard: float | None, seed: int) -> Plan:
    entries = [None if text == "none" else Fault.parse(text) for text in faults]
    if hazard is not None:
        if entries:
            raise UsageError("--hazard and --fault exclude each other")
        return Plan.hazard(hazard, seed=seed)
    last = entries[-1] if entries and always else None
    return Plan(entries, rest=(last,) if last else ())


def _answers(text: str, replay: Path | None, pace: float) -> Script | Callable[[Request], Script]:
    if replay is not None:
        try:
            return script.from_sse(replay.read_bytes()).sent(pace=pace)
        except OSError as error:
            raise UsageError(f"cannot read {replay}: {error.strerror or error}") from None

    def answer(request: Request) -> Script:
        make = script.chat_text if request.path.endswith("/chat/completions") else script.responses_text
        return make(text).sent(pace=pace)

    return answer


def _row(request: Request) -> dict[str, object]:
    names = ("index", "method", "path", "events_sent", "bytes_sent", "fault", "ended_by")
    return {name: getattr(request, name) for name in names}
