"""Options that several commands share, and the client made of them.

Credentials have no option: a command line is visible to every user of a machine. They come from the
environment or from a file it names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from ..client import Client
from ..recovery.clocks import Timeouts
from .terminal import Story

__all__ = ["endpoint_options", "open_client", "output_options", "timeouts"]

F = TypeVar("F", bound=Callable[..., Any])


def endpoint_options(command: F) -> F:
    """Which model to ask, and how long to wait for it."""
    for option in (
        click.option("--timeout", type=float, metavar="SECONDS", help="For the whole call."),
        click.option("--wire", metavar="NAME", help="responses or chat.  [env: SIDESTREAM_WIRE]"),
        click.option("--base-url", metavar="URL", help="Endpoint.  [env: SIDESTREAM_BASE_URL]"),
        click.option("--model", "-m", metavar="NAME", help="Model name.  [env: SIDESTREAM_MODEL]"),
    ):
        command = option(command)
    return command


def output_options(command: F) -> F:
    """How to print."""
    command = click.option("--quiet", "-q", is_flag=True, help="Nothing on stderr but errors.")(command)
    return click.option("--json", "json", is_flag=True, help="Print one JSON object instead of text.")(
        command
    )


def timeouts(total: float | None, idle: float | None) -> Timeouts:
    given = {"total": total, "idle": idle}
    return Timeouts(**{name: value for name, value in given.items() if value is not None})


@contextlib.contextmanager
def open_client(
    story: Story,
    *,
    local: bool = False,
    base_url: str | None,
    model: str | None,
    wire: str | None,
    clocks: Timeouts,
) -> Iterator[Client]:
    """The client that the options and the environment ask for."""
    if not local:
        with Client(base_url, model=model, wire=wire, timeout=clocks) as client:
            yield client
        return
    from ..local import LocalModel  # only who asks for it pays for it

    with LocalModel(progress=story.say) as running:
        story.say(f"a real model on this machine: {running.model}", "dim")
        key, url = running.api_key, running.url
        with Client(url, api_key=key, model=running.model, wire=wire or "chat", timeout=clocks) as client:
            yield client
