"""Options that several commands share, and the client made of them.

Credentials have no option: a command line is visible to every user of a machine. They come from the
environment or from a file it names.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_args

import click

from ..client import Client
from ..recovery.clocks import Timeouts
from ..route import Route, Secret, Wire
from .terminal import Story

__all__ = ["Endpoint", "Number", "endpoint_options", "output_options"]

F = TypeVar("F", bound=Callable[..., Any])


class Number(click.ParamType[float]):
    """A finite number within limits: `above` is excluded, `least` and `most` are included."""

    def __init__(
        self, name: str, *, above: float | None = None, least: float = -math.inf, most: float = math.inf
    ) -> None:
        self.name = name
        self._above = above
        self._least = least
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        inside = self._least <= number <= self._most and (self._above is None or number > self._above)
        if not inside or not math.isfinite(number):
            self.fail(f"{value!r} is not a number {self._limits()}.", param, ctx)
        return number

    def _limits(self) -> str:
        low = f"of at least {self._least:g}" if self._above is None else f"above {self._above:g}"
        return low if math.isinf(self._most) else f"{low} and at most {self._most:g}"


SECONDS = Number("seconds", above=0)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Which model to ask, and how long to wait for it: what `endpoint_options` gather."""

    model: str | None
    base_url: str | None
    wire: str | None
    clocks: Mapping[str, float]

    @property
    def chosen(self) -> bool:
        """Whether the command line names one, whatever the environment says."""
        return bool(self.model or self.base_url)

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """A client for it. Raises NoRoute, ConfigError."""
        with Client(self.base_url, model=self.model, wire=self.wire) as client:
            yield client

    def timeouts(self, client: Client, task: str = "") -> Timeouts:
        """The clocks of a call: what the command line says is above all that is configured."""
        return replace(client.timeouts(task), **self.clocks)

    @contextlib.contextmanager
    def embedded(self, story: Story) -> Iterator[Client]:
        """A client for the embedded model and nothing else. Raises ConfigError."""
        from ..local import LocalModel  # only who asks for it pays for it

        with LocalModel(progress=story.say) as running:
            story.say(f"a real model on this machine: {running.model}", "dim")
            wire: Any = self.wire or "chat"
            key = Secret(running.api_key)
            route = Route(running.url, running.model, wire, key, name=running.model, continuation="trailing")
            with Client(routes=[route]) as client:
                yield client


def endpoint_options(command: F) -> F:
    """Gather the options that choose a model and its clocks into one `endpoint` argument."""

    @functools.wraps(command)
    def gathered(
        *args: Any,
        model: str | None,
        base_url: str | None,
        wire: str | None,
        timeout: float | None,
        first: float | None,
        idle: float | None,
        **others: Any,
    ) -> Any:
        clocks = {"total": timeout, "first": first, "idle": idle}
        said = {name: value for name, value in clocks.items() if value is not None}
        return command(*args, endpoint=Endpoint(model, base_url, wire, said), **others)

    wires = click.Choice(get_args(Wire))
    wrapped: Any = gathered
    for option in (
        click.option("--idle", type=SECONDS, help="Silence within an answer that is a stall.  [60]"),
        click.option("--first", type=SECONDS, help="Silence before an answer that is a stall.  [90 or more]"),
        click.option("--timeout", type=SECONDS, help="For the whole call.  [1800]"),
        click.option("--wire", type=wires, help="Wire format.  [env: SIDESTREAM_WIRE, or by the endpoint]"),
        click.option("--base-url", metavar="URL", help="Endpoint.  [env: SIDESTREAM_BASE_URL]"),
        click.option("--model", "-m", metavar="NAME", help="Model name.  [env: SIDESTREAM_MODEL]"),
    ):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]  # the same command with fewer arguments


def output_options(command: F) -> F:
    """How to print."""
    command = click.option("--quiet", "-q", is_flag=True, help="Nothing on stderr but errors.")(command)
    return click.option("--json", "json", is_flag=True, help="Print JSON on stdout instead of text.")(command)
