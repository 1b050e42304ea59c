"""Every text of corpus/seams, cut at every character, continued in every form, held and live, on all wires.

A scripted model stands on the other side of the real flow: it reads the request as an endpoint would, refuses
what is not the beginning of its text, and goes on obediently. What comes out has to be the uncut text to the
character, and it has to be joined, not asked for anew: a seam that always refuses would pass everything else.

A way is a form, a wire, and held or live. How many cuts are made is `SIDESTREAM_CUTS`:

- `turns` (default): every second character by one of the 18 ways on OpenAI's wires, in turn an anchor and a
  prefill, and every seventh by one of the 4 on Messages; the seams alone are tested at every character in
  test_seam.py.
- `every` (what CI does): every character by an anchor and a prefill, and every third by a way on Messages.
- `all`: every character by every way.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json
from provider import refused_by_anthropic
from seams import COINCIDENCES, CUTS, GOES_ON, MODELS, TEXTS, Asked

from sidestream.errors import CallFailed
from sidestream.recovery.continuing import CHAT_ONLY, PREFILLS
from sidestream.recovery.faults import Fault, FaultKind
from sidestream.recovery.flow import Broke, Call, Outcome, Send, Woke, flow
from sidestream.recovery.seam import Anchor
from sidestream.reply import Reply
from sidestream.route import Route
from sidestream.wire.events import Restarted, StreamEvent, TextDelta
from sidestream.wire.prompt import Request
from streams import attempt

# What has to be joined of the cuts beyond the first characters: by a prefill, by an anchor. An anchor needs
# last words that stand out, which the other two kinds of text do not have everywhere.
EARLY = 30
FLOORS: dict[str, tuple[float, float]] = {
    "ordinary": (1.0, 0.9),
    "blank": (1.0, 0.8),
    "repeating": (0.2, 0.5),
}

QUESTION = {"role": "user", "content": "Go."}
BROKE = Broke(Fault(FaultKind.DROPPED, "cut"), 1.0)
ANCHOR = re.compile(r"^<(last_words(?:_\d+)?)>(.*?)</\1>$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Way:
    """One way to ask and to be answered."""

    form: str
    wire: Literal["chat", "responses", "messages"]
    live: bool

    def __str__(self) -> str:
        return f"{self.form} {self.wire} {'live' if self.live else 'held'}"

    @property
    def rung(self) -> str:
        return "anchor" if self.form == "anchor" else "prefill"

    @cached_property
    def call(self) -> Call:
        route = Route("http://127.0.0.1:1/v1", "m", self.wire, name="main", continuation=self.form)  # type: ignore[arg-type]
        return Call(Request((QUESTION,)), (route,), live=self.live)


OPENAI = [
    Way(form, wire, live)
    for form in ("anchor", *PREFILLS)
    for wire in ("chat", "responses")
    for live in (False, True)
    if wire == "chat" or form not in CHAT_ONLY
]
# Claude up to 4.5 takes a prefill, later ones an anchor.
ANTHROPIC = [Way(form, "messages", live) for form in ("trailing", "anchor") for live in (False, True)]
WAYS = OPENAI + ANTHROPIC
ANCHORED = [way for way in OPENAI if way.rung == "anchor"]
PREFILLED = [way for way in OPENAI if way.rung == "prefill"]


def ways(cut: int) -> list[Way]:
    """The ways in which a text is cut there."""
    if CUTS == "all":
        return WAYS
    if CUTS == "every":
        return [ways[cut % len(ways)] for ways in (ANCHORED, PREFILLED)] + in_turn(ANTHROPIC, cut, 3)
    return in_turn(ANCHORED, cut, 4) + in_turn(PREFILLED, cut - 2, 4) + in_turn(ANTHROPIC, cut, 7)


def in_turn(ways: list[Way], cut: int, step: int) -> list[Way]:
    """One of the ways at every cut that is a whole step, each time the next."""
    turn, between = divmod(cut, step)
    return [] if between else [ways[turn % len(ways)]]


# The other side.

Model = Callable[[Asked], str]
obedient = MODELS["obedient"]


def said(body: dict[str, Any], text: str, form: str, model: Model) -> str:
    """What a model says to this request, whose answer is `text`; to a prefill, as the form wants it."""
    assert "max_tokens" not in body or not (wrong := refused_by_anthropic(body)), f"400: {wrong}"
    turns = body.get("messages") or body["input"]
    last = turns[-1]
    if len(turns) == 1:
        return text
    if last["role"] == "user":
        found = ANCHOR.search(last["content"])
        assert found, "no last words are quoted"
        partial = content(turns[-2])
        assert partial.endswith(found[2]), "the quoted words are not the last"
        assert text.startswith(partial), "the partial is not how the answer begins"
        return model(Asked(text, partial, Anchor(found[2], "")))
    marks, needed = PREFILLS[form]
    partial = content(last)
    assert last.items() >= marks.items()
    assert body.items() >= needed.items()
    assert text.startswith(partial), "the partial is not how the answer begins"
    assert partial == partial.rstrip(), "a prefill ends with white space"
    return text if form == "prefix_echoed" or model is not obedient else text[len(partial) :]


def content(turn: dict[str, Any]) -> str:
    assert turn["role"] == "assistant"
    given = turn["content"]
    return given if isinstance(given, str) else "".join(part["text"] for part in given)


def event(value: Any) -> bytes:
    return b"data: " + json.encode(value) + b"\n\n"


def chat(deltas: list[str]) -> Iterator[bytes]:
    for delta in deltas:
        yield event({"id": "c", "choices": [{"index": 0, "delta": {"content": delta}}]})
    yield event({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    yield b"data: [DONE]\n\n"


def responses(deltas: list[str]) -> Iterator[bytes]:
    item = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    yield event({"type": "response.output_item.added", "output_index": 0, "item": item})
    for delta in deltas:
        yield event({"type": "response.output_text.delta", "delta": delta, **place})
    text = {"type": "output_text", "text": "".join(deltas)}
    yield event({"type": "response.output_text.done", "text": text["text"], **place})
    done = {**item, "status": "completed", "content": [text]}
    yield event({"type": "response.output_item.done", "output_index": 0, "item": done})
    yield event({"type": "response.completed", "response": {"id": "r", "status": "completed"}})


def messages(deltas: list[str]) -> Iterator[bytes]:
    yield event({"type": "message_start", "message": {"id": "m", "role": "assistant", "content": []}})
    block = {"type": "text", "text": ""}
    yield event({"type": "content_block_start", "index": 0, "content_block": block})
    for delta in deltas:
        piece = {"type": "text_delta", "text": delta}
        yield event({"type": "content_block_delta", "index": 0, "delta": piece})
    yield event({"type": "content_block_stop", "index": 0})
    yield event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}})
    yield event({"type": "message_stop"})


STREAM = {"chat": chat, "responses": responses, "messages": messages}
SIZES = (0, 13, 0, 40, 0, 5, 0, 1)


def pieces(text: str, number: int) -> list[str]:
    """The text in pieces of a length that the number decides; 0 is all of it."""
    size = SIZES[number % len(SIZES)] or max(1, len(text))
    return [text[at : at + size] for at in range(0, len(text), size)]


# A call.


@dataclass
class Played:
    """What came of a call: the reply, or the error's partial, and what a consumer saw on the way."""

    reply: Reply | None
    seen: list[StreamEvent]
    rungs: list[str]

    @property
    def delivered(self) -> str:
        """The text since the last time that everything before was void."""
        text = ""
        for event in self.seen:
            if isinstance(event, Restarted):
                text = ""
            elif isinstance(event, TextDelta):
                text += event.delta
        return text


def played(way: Way, text: str, *cuts: int, model: Model = obedient) -> Played:
    """A call whose answers break off after so many characters each; the next one is whole."""
    going = flow(way.call, now=0.0, unix_time=0.0, random=lambda: 0.5)
    seen: list[StreamEvent] = []
    outcome: Outcome | None = None
    left = list(cuts)
    try:
        while True:
            action = going.send(outcome) if outcome else next(going)
            outcome = Woke(1.0)
            if isinstance(action, Send):
                new = said(json.decode(action.body), text, way.form, model)
                stop = left.pop(0) if left else None
                events = list(STREAM[way.wire](pieces(new[:stop], cuts[0] + len(left))))
                if stop is not None:
                    events = events[: -2 if way.wire == "chat" else -3]
                got, outcome = attempt(
                    action.exchange, [b"".join(events)], outcome=BROKE if stop is not None else None
                )
                seen += got
    except StopIteration as end:
        reply: Reply = end.value
        return Played(reply, seen, [row.rung for row in reply.attempts])
    except CallFailed as error:
        return Played(error.reply, seen, [row.rung for row in error.attempts])


def troubles(way: Way, text: str, call: Played) -> Iterator[str]:
    if call.reply is None or (call.reply.text, call.reply.status) != (text, "complete"):
        yield f"the reply is {call.reply}"
    if any(isinstance(event, Restarted) for event in call.seen):
        yield "the same answer was announced as another one"
    if call.delivered != (text if way.live else ""):
        yield f"delivered was {call.delivered!r}"


def shown(found: list[str]) -> str:
    return "\n".join([f"{len(found)} troubles", *found[:5]])


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_cut_anywhere_comes_back_to_the_character(name: str) -> None:
    """The reply and what was delivered are the uncut text, and most cuts cost only what was missing."""
    text, found = TEXTS[name], list[str]()
    asked, joined = Counter[str](), Counter[str]()
    for cut in range(len(text) + 1):
        for way in ways(cut):
            call = played(way, text, cut)
            found += (f"{way} at {cut}: {trouble}" for trouble in troubles(way, text, call))
            if cut > EARLY:
                asked[way.rung] += 1
                joined[way.rung] += call.rungs[-1] == way.rung
    assert not found, shown(found)
    for rung, floor in zip(("prefill", "anchor"), FLOORS[name.split("/")[0]], strict=True):
        assert joined[rung] >= floor * asked[rung], f"{rung}: {joined[rung]} of {asked[rung]} joined"


@pytest.mark.parametrize("name", TEXTS)
def test_a_model_that_does_not_obey_costs_a_restart_and_nothing_else(name: str) -> None:
    """Refused where it leaves a doubt, a model that quotes, repeats, wanders or begins anew does no harm."""
    text, found = TEXTS[name], list[str]()
    for turn, cut in enumerate(range(0, len(text) + 1, 1 if CUTS == "all" else 9)):
        way = WAYS[turn % len(WAYS)]
        model = list(MODELS)[turn % len(MODELS)]
        if name.startswith("repeating/") and model in COINCIDENCES:
            continue
        call = played(way, text, cut, model=MODELS[model])
        found += (f"{model}, {way} at {cut}: {trouble}" for trouble in troubles(way, text, call))
    assert not found, shown(found)


@given(st.data())
def test_a_text_cut_again_and_again_comes_back_to_the_character(data: st.DataObject) -> None:
    """However often it and its continuations break, it is the whole text, or an error with its beginning."""
    text = data.draw(st.sampled_from(list(TEXTS.values())))
    way = data.draw(st.sampled_from(WAYS))
    model = MODELS[data.draw(st.sampled_from([*GOES_ON, "twice", "something else", "all in quotes"]))]
    cuts = data.draw(st.lists(st.integers(0, len(text) + 50), min_size=1, max_size=6))
    call = played(way, text, *cuts, model=model)
    assert call.reply is not None
    if call.reply.status != "complete":
        assert text.startswith(call.reply.text)
        assert text.startswith(call.delivered)
    else:
        assert not list(troubles(way, text, call))
