"""The recorded streams, what a consumer saw of one, and what is wrong with that.

`Stream` is a case of `tests/corpus`: its bytes, its verdict, and where in it the answer is over. `View` is a
live consumer: it adds up what it is given and starts again when told. `Outcome` is how a call ended;
`problems` compares it with the verdict and returns sentences, none if all is well. A reply is compared field
by field with texts written by hand in the corpus, never with another run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from sidestream import Reply, Route, SidestreamError, ToolCall
from sidestream.errors import Refused
from sidestream.lab import Fault
from sidestream.lab.rewrite import rewriters, rewritten
from sidestream.lab.sse import split_events
from sidestream.wire.events import (
    CommentaryDelta,
    ReasoningDelta,
    Recovering,
    RefusalDelta,
    Restarted,
    StreamEvent,
    TextDelta,
)

CORPUS = Path(__file__).parent.parent / "corpus"
_CALL_ITEMS = ("function_call", "custom_tool_call")


@dataclass(frozen=True)
class Stream:
    """A recorded stream that ends as its wire says it should."""

    name: str
    wire: str
    body: bytes
    expect: dict[str, Any]
    end: int
    settle: tuple[int, int] | None
    tools: tuple[str, ...]
    choices: int

    def __str__(self) -> str:
        return self.name

    @cached_property
    def events(self) -> tuple[bytes, ...]:
        """The body, event by event."""
        return split_events(self.body)

    @cached_property
    def without_terminal(self) -> bytes:
        """The whole stream but for what says that it is whole."""
        chain = rewriters((Fault.drop_terminal(),))
        return b"".join(out for event in self.events for out in rewritten(event, chain))

    @cached_property
    def seams(self) -> frozenset[int]:
        """Offsets at the ends of events and one byte before, and at the beginning of the body."""
        ends = set(accumulate(map(len, self.events)))
        return frozenset({0} | ends | {end - 1 for end in ends})

    @property
    def ask(self) -> dict[str, Any]:
        """The arguments of a call that gets this answer."""
        tools = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in self.tools]
        return {"input": "go on", "tools": tools, **({"n": self.choices} if self.choices > 1 else {})}

    @property
    def route(self) -> Route:
        return Route(f"http://{self.wire}.test/v1", "model-1", self.wire)  # type: ignore[arg-type]

    @property
    def works_first(self) -> bool:
        """Whether a hosted tool is at work before the text: told anew, it begins with no text to join."""
        return b'"web_search_call"' in self.body

    @property
    def refused(self) -> bool:
        return bool(self.expect["status"] == "refused")

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The finished calls, without what a verdict does not say of them."""
        return tuple(ToolCall(c["call_id"], c["name"], c["arguments"]) for c in self.expect["tool_calls"])

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(self.expect.get("texts", (self.expect["text"],)))

    def settles_at(self, offset: int) -> bool:
        """Whether the answer is all there after so many bytes, and only its end is missing."""
        return self.settle is not None and self.settle[0] <= offset < self.settle[1] and not self.tools


@cache
def recorded(*folders: str) -> tuple[Stream, ...]:
    """The streams of these folders of the corpus, by name."""
    return tuple(_load(path) for folder in folders for path in sorted((CORPUS / folder).glob("*.json")))


def _load(path: Path) -> Stream:
    verdict = json.loads(path.read_text(encoding="utf-8"))
    return Stream(
        name=f"{verdict['wire']}-{path.stem}",
        wire=verdict["wire"],
        body=path.with_suffix(".sse").read_bytes(),
        expect=verdict["expect"],
        end=verdict["end"],
        settle=tuple(verdict["settle"]) if verdict["settle"] else None,
        tools=tuple(verdict.get("tools", ())),
        choices=verdict.get("choices", 1),
    )


@dataclass
class View:
    """What a live consumer has on its screen."""

    text: dict[int, str] = field(default_factory=dict)
    commentary: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    void: list[View] = field(default_factory=list)  # what it had at each `Restarted`
    recoveries: int = 0

    def see(self, event: StreamEvent) -> None:
        if isinstance(event, TextDelta):
            self.text[event.index] = self.text.get(event.index, "") + event.delta
        elif isinstance(event, CommentaryDelta):
            self.commentary += event.delta
        elif isinstance(event, ReasoningDelta):
            self.reasoning += event.delta
        elif isinstance(event, RefusalDelta):
            self.refusal += event.delta
        elif isinstance(event, ToolCall):
            self.calls.append(ToolCall(event.call_id, event.name, event.arguments))
        elif isinstance(event, Recovering):
            self.recoveries += 1
        elif isinstance(event, Restarted):
            self.void.append(View(self.text, self.commentary, self.reasoning, self.refusal, self.calls))
            self.text, self.calls = {}, []
            self.commentary = self.reasoning = self.refusal = ""

    def texts(self, choices: int) -> tuple[str, ...]:
        """The text of every choice; with one choice, of all its messages together."""
        pieces = [self.text[index] for index in sorted(self.text)]
        return tuple(pieces) if choices > 1 else ("".join(pieces),)


@dataclass(frozen=True)
class Outcome:
    """How a call ended. A live one has a `view`, and its `reply` is there whatever happened."""

    reply: Reply | None
    error: BaseException | None = None
    view: View | None = None


def problems(stream: Stream, outcome: Outcome) -> Iterator[str]:
    """What is wrong with a call that should have brought the whole answer."""
    reply = outcome.reply
    if stream.refused:
        if not isinstance(outcome.error, Refused):
            yield f"a refusal ended with {outcome.error!r}"
            return
        reply = outcome.error.reply
    elif outcome.error is not None:
        yield f"it failed: {outcome.error!r}"
        return
    if reply is None:
        yield "there is no reply"
        return
    if reply.status != stream.expect["status"]:
        yield f"the reply is {reply.status}"
    yield from _differences(stream, reply)
    if outcome.view is not None:
        yield from _view_problems(stream, outcome.view)


def _differences(stream: Stream, reply: Reply) -> Iterator[str]:
    if reply.texts != stream.texts and any(stream.texts + reply.texts):
        yield f"texts {reply.texts!r}"
    for name in ("text", "commentary", "reasoning", "refusal"):
        if getattr(reply, name) != stream.expect[name]:
            yield f"{name} {getattr(reply, name)!r}"
    if _plain(reply.tool_calls) != stream.calls:
        yield f"calls {reply.tool_calls}"
    yield from _item_problems(stream, reply)


def _view_problems(stream: Stream, view: View) -> Iterator[str]:
    seen = view.texts(stream.choices)
    if seen != stream.texts and any(stream.texts + seen):
        yield f"the consumer has texts {seen!r}"
    for name in ("commentary", "reasoning", "refusal"):
        if getattr(view, name) != stream.expect[name]:
            yield f"the consumer has {name} {getattr(view, name)!r}"
    if tuple(view.calls) != stream.calls:
        yield f"the consumer has calls {view.calls}"


def failure_problems(stream: Stream, outcome: Outcome) -> Iterator[str]:
    """What is wrong with a call that could not bring the answer back: its partial has to be a beginning."""
    error = outcome.error
    if not isinstance(error, SidestreamError):
        yield f"it ended with {error!r}"
        return
    reply = error.reply
    if reply is None or reply.status != "dropped":
        yield f"the partial is {reply and reply.status}"
        return
    if outcome.reply is not None and outcome.reply.status != "dropped":
        yield f"the stream calls its reply {outcome.reply.status}"
    for name in ("text", "commentary", "reasoning", "refusal"):
        if not stream.expect[name].startswith(getattr(reply, name)):
            yield f"the partial's {name} {getattr(reply, name)!r}"
    calls = _plain(reply.tool_calls)
    if calls != stream.calls[: len(calls)]:
        yield f"the partial's calls {calls}"
    yield from _item_problems(stream, reply)
    if outcome.view is not None:
        yield from beginning_problems(stream, outcome.view)
        yield from _partial_problems(stream, outcome.view, reply)


def beginning_problems(stream: Stream, view: View) -> Iterator[str]:
    """What a consumer has of an answer that is not whole has to be a beginning of it, in every channel."""
    for seen, whole in zip(view.texts(stream.choices), stream.texts, strict=False):
        if not whole.startswith(seen):
            yield f"the consumer has text {seen!r}"
    for name in ("commentary", "reasoning", "refusal"):
        if not stream.expect[name].startswith(getattr(view, name)):
            yield f"the consumer has {name} {getattr(view, name)!r}"
    if tuple(view.calls) != stream.calls[: len(view.calls)]:
        yield f"the consumer has calls {view.calls}"


def _partial_problems(stream: Stream, view: View, reply: Reply) -> Iterator[str]:
    """The partial of an error is what the consumer has."""
    if any(view.texts(stream.choices)) and view.texts(stream.choices) != reply.texts[: len(view.text)]:
        yield f"the consumer has texts {view.text}, the partial {reply.texts}"
    for name in ("commentary", "reasoning", "refusal"):
        if getattr(view, name) != getattr(reply, name):
            yield f"the consumer has {name} {getattr(view, name)!r}, the partial {getattr(reply, name)!r}"
    if tuple(view.calls) != _plain(reply.tool_calls):
        yield f"the consumer has calls {view.calls}, the partial {reply.tool_calls}"


def _item_problems(stream: Stream, reply: Reply) -> Iterator[str]:
    whole = {call.arguments for call in stream.calls}
    for item in reply.items:
        if item.get("type") in _CALL_ITEMS and item.get("arguments", item.get("input")) not in whole:
            yield f"an unfinished call among the items: {item}"


def _plain(calls: Iterable[ToolCall]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(call.call_id, call.name, call.arguments) for call in calls)
