"""One question to a token endpoint: JSON there, JSON back, nothing followed, nothing shown.

Strategy: the same connections as any call, on a route that has no credential: what is secret is in the body.
It goes to https or to this machine, never anywhere else. A failure comes back as a sentence and not as an
exception, because the frames of an exception hold the body. Whose tokens they are is not here.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..net import sync
from ..net.common import FAILURES, CallClock
from ..recovery.clocks import Meter
from ..recovery.faults import one_line
from ..route import Route, Secret
from ..wire._json import mapping, string
from .vault import Document, parse

__all__ = ["Answer", "TokenEndpoint"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a token endpoint said: status and fields."""

    status: int
    document: Document

    @property
    def code(self) -> str:
        """Its error code, wherever it stands; ""."""
        fields = self.document.reveal()
        error = fields.get("error")
        found = string(mapping(error).get("code")) or string(error) or string(fields.get("code"))
        return one_line(found)[:100]


class TokenEndpoint:
    """Where tokens are renewed.

    Raises:
        ConfigError: the URL makes no sense, or would take a token over plain http to another machine.
    """

    def __init__(self, url: str, cafile: str | None = None) -> None:
        self._route = _checked(url)
        parts = urlsplit(url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._pool = sync.Pool(cafile)
        self.host = self._route.host

    def __repr__(self) -> str:
        return f"TokenEndpoint({self._route.origin})"

    def ask(self, question: Document, seconds: float) -> Answer | str:
        """The answer, or in words why there is none. Blocks for so many seconds at most."""
        watch = sync.Watch(CallClock(time.monotonic))
        watch.meter = Meter.of(seconds, watch.clock.now())
        try:
            with contextlib.closing(self._pool.open(self._route, watch)) as lane:
                opened = lane.send(self._route, question.text().encode(), target=self._target)
                return Answer(opened.status, parse(lane.rest()) or Document({}))
        except (*FAILURES, ConfigError) as error:  # a ConfigError is about the proxy or the certificates
            return one_line(str(error) or type(error).__name__)


def _checked(url: str) -> Route:
    parts = urlsplit(url)
    headers = {"Accept": "application/json"}
    # A route with a key refuses plain http to other machines, and so must whoever sends a token in a body.
    route = Route(f"{parts.scheme}://{parts.netloc}", "token", "responses", Secret("-"), headers=headers)
    return replace(route, api_key=None)
