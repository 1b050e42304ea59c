"""`sidestream lab`: the fault-injecting server, for any client in any language.

This file turns options into a `Plan` and answers, checks what can be checked before the first request, and
prints what became of each. How faults happen is in `sidestream.lab`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import click

from ..errors import UsageError
from ..lab import KINDS, Background, Continuing, Fault, Lab, Plan, Request, Script, script, serve
from .files import read_bytes, write_whole
from .options import Number, output_options
from .shapes import as_json, request_json
from .terminal import Story, write

__all__ = ["lab"]

_LONGEST = 64 * 1024 * 1024
_CONNECT_SECONDS = 2.0
_FAULT_HELP = (
    "What happens to the next attempt, for example cut:after_event=9; repeat for later attempts; "
    "none leaves one alone. `sidestream lab faults` lists them."
)


@click.group("lab")
def lab() -> None:
    """A server that breaks streams on purpose."""


@lab.command("serve", short_help="Serve the OpenAI and Anthropic wires, and break them as told.")
@click.option("--fault", "-f", "faults", multiple=True, metavar="FAULT", help=_FAULT_HELP)
@click.option("--always", is_flag=True, help="Every further attempt meets the last --fault again.")
@click.option(
    "--hazard", type=Number("probability", least=0, most=1), help="Chance of a cut before each event."
)
@click.option("--seed", type=int, metavar="N", default=0, help="Seed of the hazard.")
@click.option(
    "--text", default="The quick brown fox jumps over the lazy dog.", help="What the model answers."
)
@click.option("--replay", type=click.Path(path_type=Path), help="Answer with this recorded .sse file.")
@click.option("--continues", is_flag=True, help="Continue a partial --text when asked (prefill, anchor).")
@click.option("--background", is_flag=True, help="Keep background responses: resume, poll, cancel.")
@click.option("--upstream", metavar="URL", help="Be a proxy before this server (http://127.0.0.1:8080).")
@click.option("--pace", type=Number("seconds", least=0), default=0.02, help="Between two events.  [0.02]")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8377,
    show_default=True,
    help="0: a free one.",
)
@click.option("--tls", type=click.Path(path_type=Path), help="Serve TLS; the certificate to trust goes here.")
@output_options
def serve_command(
    faults: tuple[str, ...],
    always: bool,
    hazard: float | None,
    seed: int,
    text: str,
    replay: Path | None,
    continues: bool,
    background: bool,
    upstream: str | None,
    pace: float,
    host: str,
    port: int,
    tls: Path | None,
    json: bool,
    quiet: bool,
) -> None:
    """Serve /v1/responses, /v1/chat/completions and /v1/messages, and break them as told, until Ctrl-C."""
    plan = _plan(faults, always=always, hazard=hazard, seed=seed)
    sources = {"--upstream": upstream, "--replay": replay, "--continues": continues}
    if len(given := [name for name, value in sources.items() if value]) > 1:
        raise UsageError(f"{' and '.join(given)} are two sources of answers", hint="give one of them")
    if upstream and background:
        raise UsageError("--background is played by the lab, not by --upstream", hint="give one of them")
    if upstream:
        _check_reachable(upstream)
    answers = None if upstream else _answers(text, replay, pace, continues=continues)
    if background and answers is not None:
        answers = Background(answers)
    server = Lab(answers, plan=plan, host=host, port=port, tls=tls is not None, upstream=upstream)
    if tls is not None:
        write_whole(tls, server.ca_pem)
    try:
        _serve(server, Story(quiet or json), json=json)
    except OSError as error:
        hint = "--port 0 takes a free one; --host takes an address of this machine"
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}", hint=hint) from None


def _serve(server: Lab, story: Story, *, json: bool) -> None:
    def started(running: Lab) -> None:
        story.say(f"listening on {running.url} (Ctrl-C ends it)", "green")
        if json:
            write(as_json({"url": running.url}))

    def ended(request: Request) -> None:
        if json:
            write(as_json(request_json(request)))
        story.say(
            f"{request.index:4} {request.path}: {request.fault or 'no fault'}, {request.events_sent} events, "
            f"{request.bytes_sent} bytes, ended by the {request.ended_by or 'end of the lab'}"
        )

    serve(server, started=started, ended=ended)


@lab.command("faults")
@click.option("--json", "json", is_flag=True, help="Print JSON on stdout instead of text.")
def faults_command(json: bool) -> None:
    """List the faults that --fault knows."""
    rows = [(str(kind), row.number, row.meaning, Fault.arguments(kind)) for kind, row in KINDS.items()]
    if json:
        names = ("name", "number", "meaning", "arguments")
        write(as_json([dict(zip(names, row, strict=True)) for row in rows]))
        return
    for name, number, meaning, arguments in rows:
        takes = f"  ({', '.join(arguments)})" if arguments else ""
        write(f"{name:15} {number:3} {meaning}{takes}\n")


def _plan(faults: tuple[str, ...], *, always: bool, hazard: float | None, seed: int) -> Plan:
    entries = [None if text == "none" else Fault.parse(text) for text in faults]
    if hazard is not None:
        if entries:
            raise UsageError("--hazard and --fault exclude each other", hint="give one of them")
        return Plan.hazard(hazard, seed=seed)
    if always and not entries:
        raise UsageError("--always repeats the last --fault, and there is none", hint="add --fault cut")
    last = entries[-1] if entries and always else None
    return Plan(entries, rest=(last,) if last else ())


def _answers(
    text: str, replay: Path | None, pace: float, *, continues: bool
) -> Script | Callable[[Request], Script]:
    if replay is not None:
        recorded = script.from_sse(read_bytes(replay, _LONGEST, "give a recorded .sse file")).sent(pace=pace)
        if not recorded.events:
            raise UsageError(f"{replay} holds no events", hint="give a recorded .sse file")
        return recorded
    if continues:
        return Continuing(text, pace=pace)
    return script.say(text, pace=pace)


def _check_reachable(upstream: str) -> None:
    """A proxy before nothing is a typing error: said now, not with the first request."""
    hint = "give a running server's address without /v1, for example http://127.0.0.1:8080"
    try:
        url = urlsplit(upstream)
        port = url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        url, port = urlsplit(""), 0
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(f"{upstream!r} is not an http(s) URL", hint=hint)
    try:
        socket.create_connection((url.hostname, port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise UsageError(f"nothing answers at {upstream}: {error.strerror or error}", hint=hint) from None
