"""A real model's answer, cut by the lab in between and continued: the text is that of an uncut run.

At temperature 0 the embedded model says the same thing every time, so a continuation by prefill can be held
against the answer of an uncut run, character by character. Each event carries one token. The cuts are shared
out among wires and ways of delivery; all cuts of longer answers are measured in docs/continuing.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sidestream import Backoff, Client, ConfigError, Policy
from sidestream.lab import Fault, Lab, Plan
from sidestream.local import LocalModel, fetch_weights
from sidestream.local.weights import Weights
from sidestream.reply import Reply
from sidestream.route import Continuation, Route, Secret, Wire
from sidestream.wire.events import Recovering, Restarted, TextDelta
from sidestream.wire.prompt import plain_text

pytestmark = [pytest.mark.local, pytest.mark.xdist_group("local")]

PROMPTS: dict[Wire, str] = {
    "chat": "In one sentence, what is a lighthouse?",
    "responses": "In two sentences, what is rain?",
}
BEFORE_TEXT: dict[Wire, int] = {"chat": 1, "responses": 4}  # events before the first piece of text
WAYS: list[tuple[Wire, str]] = [(wire, delivery) for wire in PROMPTS for delivery in ("held", "live")]
EAGER = Policy(recoveries=30, backoff=Backoff(base=0))


@dataclass(frozen=True)
class Told:
    """What came of one call: `pieces` is what a consumer was given, `first` before anything went wrong."""

    reply: Reply
    requests: tuple[dict[str, Any], ...]
    pieces: tuple[str, ...] = ()
    first: str = ""
    restarts: int = 0

    @property
    def rungs(self) -> list[str]:
        return [attempt.rung for attempt in self.reply.attempts]

    @property
    def sent(self) -> str:
        """The assistant's turn that the second request ends with."""
        request = self.requests[1]
        last = (request.get("messages") or request["input"])[-1]
        assert last["role"] == "assistant"
        return plain_text(last["content"])


@pytest.fixture(scope="module")
def model() -> Iterator[LocalModel]:
    def only_what_is_cached(_weights: Weights, _folder: object) -> None:
        raise ConfigError("the model file is not cached (python3 run.py test fetches it)")

    running = LocalModel()
    try:
        fetch_weights(download=only_what_is_cached)
        running.start()
    except ConfigError as error:
        pytest.skip(str(error))
    with running:
        yield running


@pytest.fixture(scope="module")
def uncut(model: LocalModel) -> dict[Wire, tuple[str, ...]]:
    """The answers, as the pieces they come in."""
    return {wire: ask(model, wire, "live", Plan()).pieces for wire in PROMPTS}


def ask(
    model: LocalModel, wire: Wire, delivery: str, plan: Plan, continuation: Continuation = "trailing"
) -> Told:
    """One call through the lab, which stands before the model and breaks streams as planned."""
    call: dict[str, Any] = {"input": PROMPTS[wire], "max_output_tokens": 64, "temperature": 0, "seed": 1}
    with Lab(upstream=model.url.removesuffix("/v1"), plan=plan) as lab:
        route = Route(lab.url, model.model, wire, Secret(model.api_key), continuation=continuation)
        with Client(routes=[route], policy=EAGER) as client:
            told = read(client, call) if delivery == "live" else Told(client.complete(**call), ())
        requests = tuple(request.json() for request in lab.requests)
    return Told(told.reply, requests, told.pieces, told.first, told.restarts)


def read(client: Client, call: dict[str, Any]) -> Told:
    pieces: list[str] = []
    first: str | None = None
    restarts = 0
    with client.stream(**call) as stream:
        for event in stream:
            if isinstance(event, TextDelta):
                pieces.append(event.delta)
            elif isinstance(event, Recovering) and first is None:
                first = "".join(pieces)
            restarts += isinstance(event, Restarted)
        return Told(stream.reply, (), tuple(pieces), first or "", restarts)


def after(wire: Wire, pieces: int) -> Fault:
    """A clean end after so many pieces of text: what other clients take for success."""
    return Fault.end(after_event=BEFORE_TEXT[wire] + pieces)


def word_ends(pieces: tuple[str, ...]) -> list[int]:
    """After how many pieces the text so far ends with a whole word, and more is to come."""
    return [number for number in range(1, len(pieces)) if pieces[number][:1].isspace()]


def cuts(pieces: tuple[str, ...], way: int) -> list[int]:
    """A share of an answer's word ends: every third, begun elsewhere for each way."""
    return word_ends(pieces)[way % 3 :: 3]


def test_there_are_enough_cuts(uncut: dict[Wire, tuple[str, ...]]) -> None:
    """At least 25 cuts at word ends are tried one by one below."""
    assert sum(len(cuts(uncut[wire], way)) for way, (wire, _) in enumerate(WAYS)) >= 25


@pytest.mark.parametrize(("way", "wire", "delivery"), [(n, *way) for n, way in enumerate(WAYS)])
def test_a_cut_at_a_word_end_does_not_change_the_answer(
    model: LocalModel, uncut: dict[Wire, tuple[str, ...]], way: int, wire: Wire, delivery: str
) -> None:
    """Cut after a whole word, the answer goes on by prefill and is that of an uncut run, to the character."""
    pieces = uncut[wire]
    for at in cuts(pieces, way):
        told = ask(model, wire, delivery, Plan([after(wire, at)]))
        assert (told.reply.text, told.reply.status) == ("".join(pieces), "complete")
        assert (told.rungs, told.restarts) == (["send", "prefill"], 0)
        if delivery == "live":
            assert told.first == "".join(pieces[:at])
            assert "".join(told.pieces) == told.reply.text


@pytest.mark.parametrize(("wire", "delivery"), WAYS)
def test_an_answer_that_breaks_again_and_again_comes_out_whole(
    model: LocalModel, uncut: dict[Wire, tuple[str, ...]], wire: Wire, delivery: str
) -> None:
    """Every stream is cut after five tokens, wherever that is in a word: the text is still the uncut one."""
    told = ask(model, wire, delivery, Plan.always(after(wire, 5)))
    assert (told.reply.text, told.reply.status) == ("".join(uncut[wire]), "complete")
    assert len(told.rungs) >= 5
    assert set(told.rungs[1:]) == {"prefill"}
    assert told.restarts == 0
    if delivery == "live":
        assert "".join(told.pieces) == told.reply.text


@pytest.mark.parametrize("delivery", ["held", "live"])
def test_what_is_sent_back_to_the_model(
    model: LocalModel, uncut: dict[Wire, tuple[str, ...]], delivery: str
) -> None:
    """Held, the last word is left out, for it may be half a word; live, all that was delivered goes back."""
    pieces = uncut["chat"]
    at = word_ends(pieces)[-1]
    told = ask(model, "chat", delivery, Plan([after("chat", at)]))
    arrived = "".join(pieces[:at])
    assert told.sent == (arrived if delivery == "live" else arrived.rpartition(" ")[0])


@pytest.mark.parametrize(("delivery", "share"), [("held", 1 / 2), ("live", 3 / 4)])
def test_asked_to_repeat_its_last_words_it_joins_or_begins_anew(
    model: LocalModel, uncut: dict[Wire, tuple[str, ...]], delivery: str, share: float
) -> None:
    """By anchor, which asks more of a model than this one has, nothing is doubled, mixed or lost either."""
    pieces = uncut["chat"]
    at = int(len(pieces) * share)
    given = "".join(pieces[:at])
    told = ask(model, "chat", delivery, Plan([after("chat", at)]), "anchor")
    assert told.reply.status in ("complete", "incomplete")
    assert told.rungs[1] == "anchor"
    if told.rungs[-1] == "anchor":
        assert told.reply.text.startswith(given.rstrip())
        assert told.reply.text.count(given[-24:].strip()) == 1
    else:
        assert told.reply.text == "".join(pieces)
    if delivery == "live":
        assert (told.first, told.restarts) == (given, 0)
        assert "".join(told.pieces) == told.reply.text
