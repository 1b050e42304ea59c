"""Faults that change the events themselves: lost or doubled terminal markers, line ends, a BOM, a huge event.

PURE. A `Rewriter` maps one event to the events that go out in its place; one is made per attempt, because
line ends and positions carry over from event to event.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, Protocol

from . import sse
from .faults import Fault, Kind, Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .faults import LineEnds, Marker

__all__ = ["Rewriter", "markers_of", "rewriters", "rewritten"]

_TERMINAL_TYPES: dict[str, Marker] = {
    "response.completed": "finish",
    "response.incomplete": "finish",
    "response.failed": "finish",
    "message_stop": "done",
}
_LINE_END = re.compile(rb"\r\n|\n|\r")
_CYCLE = {"lf": (b"\n",), "cr": (b"\r",), "crlf": (b"\r\n",), "mixed": (b"\n", b"\r\n", b"\r")}


class Rewriter(Protocol):
    """One event in, the events to send in its place out."""

    def __call__(self, event: bytes, /) -> Iterable[bytes]: ...


def markers_of(event: bytes) -> set[Marker]:
    """Which terminal markers an event of any wire carries.

    Of Messages, "finish" is a `message_delta` with a stop reason, "usage" one without, "done" `message_stop`.
    """
    payload = sse.decode(event)
    if payload == "[DONE]":
        return {"done"}
    if not isinstance(payload, dict):
        return set()
    kind = str(payload.get("type"))
    if kind in _TERMINAL_TYPES:
        return {_TERMINAL_TYPES[kind]}
    if kind == "message_delta":
        return {"finish"} if (payload.get("delta") or {}).get("stop_reason") else {"usage"}
    return _chat_markers(payload)


def _chat_markers(payload: dict[str, Any]) -> set[Marker]:
    choices = payload.get("choices")
    if isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("finish_reason") for choice in choices
    ):
        return {"finish"}
    return {"usage"} if choices == [] and payload.get("usage") else set()


def _repeat(fault: Fault, times: int) -> Rewriter:
    marked = set(fault.markers)
    return lambda event: [event] * (times if markers_of(event) & marked else 1)


def _line_ends(style: LineEnds) -> Rewriter:
    ends = itertools.cycle(_CYCLE[style])
    previous = b""

    def rewrite(event: bytes) -> list[bytes]:
        nonlocal previous
        lines = _LINE_END.split(event)
        out = bytearray()
        for line in lines[:-1]:
            end = next(ends)
            if not line and previous == b"\r" and end == b"\n":
                end = next(ends)  # CR + LF would be one line end, and the blank line gone
            out += line + end
            previous = end
        return [bytes(out + lines[-1])]

    return rewrite


def _bom() -> Rewriter:
    prefix = iter((b"\xef\xbb\xbf",))
    return lambda event: [next(prefix, b"") + event]


def _huge(fault: Fault) -> Rewriter:
    numbers = itertools.count()
    huge = sse.encode(
        {"type": "lab.padding", "object": "lab.padding", "choices": [], "padding": "x" * fault.size}
    )
    return lambda event: [huge, event] if next(numbers) == fault.after_event else [event]


_MAKERS: dict[Kind, Callable[[Fault], Rewriter]] = {
    Kind.DROP_TERMINAL: lambda fault: _repeat(fault, 0),
    Kind.REPEAT_TERMINAL: lambda fault: _repeat(fault, 2),
    Kind.LINE_ENDS: lambda fault: _line_ends(fault.style),
    Kind.BOM: lambda _: _bom(),
    Kind.HUGE_EVENT: _huge,
}


def rewriters(faults: Iterable[Fault]) -> list[Rewriter]:
    """A fresh rewriter for each fault that acts on every event, in the plan's order."""
    return [_MAKERS[fault.kind](fault) for fault in faults if fault.row.phase is Phase.EVENTS]


def rewritten(event: bytes, chain: list[Rewriter]) -> Iterator[bytes]:
    """The event after all rewriters, as the events that go out."""
    if not chain:
        yield event
        return
    for changed in chain[0](event):
        yield from rewritten(changed, chain[1:])
