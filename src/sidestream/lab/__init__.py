"""A server that misbehaves on purpose: streams cut, stalled, garbled or dropped exactly where you say.

`Lab` listens on a real socket (TCP must be cut anywhere, so nothing here is a mock), plays a `Script` on the
OpenAI Responses, Chat Completions or Anthropic Messages wire, or sits as a proxy before a real server,
applies the `Plan` of `Fault`s, and keeps a record of every request: what arrived, what was sent, who ended it
and when the socket closed. Point any client at `lab.url`, Anthropic's SDK at the same without its `/v1`.

The names load on first use, so that importing the pytest plugin costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import cases, script
    from .background import Background
    from .codex import Codex
    from .continuing import Continuing
    from .faults import KINDS, Fault, Kind, Phase, Row
    from .house import Limits
    from .plan import Plan
    from .record import Request, fingerprint
    from .script import Script
    from .server import Lab, serve

__all__ = [
    "KINDS",
    "Background",
    "Codex",
    "Continuing",
    "Fault",
    "Kind",
    "Lab",
    "Limits",
    "Phase",
    "Plan",
    "Request",
    "Row",
    "Script",
    "cases",
    "fingerprint",
    "script",
    "serve",
]

_HOME = {
    "KINDS": "faults",
    "Background": "background",
    "Codex": "codex",
    "Continuing": "continuing",
    "Fault": "faults",
    "Kind": "faults",
    "Lab": "server",
    "Limits": "house",
    "Phase": "faults",
    "Plan": "plan",
    "Request": "record",
    "Row": "faults",
    "Script": "script",
    "fingerprint": "record",
    "serve": "server",
}


def __getattr__(name: str) -> Any:
    if name in ("cases", "script"):
        return importlib.import_module(f".{name}", __name__)
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
