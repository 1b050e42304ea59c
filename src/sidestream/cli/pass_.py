"""`sidestream pass`: a local address before a provider, at which streams finish. For any program.

This file turns options into a `Passthrough` and tells what it recovers from. How that goes is in
`sidestream.transport`; how requests are forwarded is in `sidestream.gateway`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal

import click

from ..errors import UsageError
from ..gateway import Passthrough, upstream_transport
from .options import output_options
from .shapes import as_json
from .terminal import Story, write

__all__ = ["pass_"]


@click.command(
    "pass",
    short_help="A local address before a provider, at which streams finish.",
    epilog="Example: sidestream pass --to https://api.openai.com/v1",
)
@click.option("--to", "upstream", metavar="URL", required=True, help="The provider's base URL.")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=8378,
    show_default=True,
    help="0: a free one.",
)
@output_options
def pass_(upstream: str, host: str, port: int, json: bool, quiet: bool) -> None:
    """Forward requests to --to, and bring their streams back whole, until Ctrl-C.

    Your program keeps its key and takes the address printed here as its base URL. Streams of the Responses,
    Chat Completions and Messages APIs are watched; everything else passes through.
    """
    story = Story(quiet or json)
    if not _is_loopback(host):
        story.complain(f"{host} is open to your network", "it has no password of its own")
    local = Passthrough(
        upstream,
        transport=upstream_transport(notify=story.recovering),
        host=host,
        port=port,
        failed=lambda error: story.say(f"✗ {str(error) or type(error).__name__}", "red"),
    )
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(local, upstream, story, json=json))
    except OSError as error:
        hint = "--port 0 takes a free one; --host takes an address of this machine"
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}", hint=hint) from None


async def _serve(local: Passthrough, upstream: str, story: Story, *, json: bool) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C is a KeyboardInterrupt there
            loop.add_signal_handler(number, stopped.set)
    async with local:
        story.say(f"listening on {local.url}, for {upstream} (Ctrl-C ends it)", "green")
        if json:
            write(as_json({"url": local.url}))
        await stopped.wait()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
