"""Facts and how strategies are scored by them."""

from __future__ import annotations

import json

import pytest
from transcripts import case, chat, sample_bytes

from sidestream.errors import NoRoute, UsageError
from sidestream.tasks.compression import load
from sidestream.tasks.compression.evaluate import STRATEGIES, evaluate, random_lines
from sidestream.tasks.compression.facts import Fact, kept, read_facts


@pytest.mark.parametrize(
    ("fact", "text", "told"),
    [
        ("limit is 512 MB", "The LIMIT  is\n512 MB.", True),
        ("a.b", "axb", False),  # a text is no pattern
        (["no Redis", "without Redis"], "done without redis", True),
        (["no Redis", "without Redis"], "with Redis", False),
        ({"fact": "cause", "all_of": ["lru_cache", r"time\.time"]}, "lru_cache of time.time()", True),
        ({"fact": "cause", "all_of": ["lru_cache", r"time\.time"]}, "lru_cache", False),
    ],
)
def test_a_fact_is_told_or_not(fact: object, text: str, told: bool) -> None:
    """In its own words, in one of several ways, or by all of its patterns; case and space do not matter."""
    assert Fact.of(fact).within(text) is told
    assert bool(kept([Fact.of(fact)], text)) is told


@pytest.mark.parametrize(
    "data",
    [
        b'["one", ["two", "zwei"]]',
        b'{"facts": ["one", ["two", "zwei"]], "messages": []}',
        b"# what matters\none\n\n two | zwei |\n",
        b"\xef\xbb\xbfone\r\ntwo|zwei\r\n",
    ],
)
def test_facts_come_as_json_or_as_lines(data: bytes) -> None:
    """The same facts in every form."""
    facts = read_facts(data)
    assert [fact.name for fact in facts] == ["one", "two"]
    assert len(kept(facts, "One and zwei.")) == 2


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 facts"),
        (b"[]", "0 facts"),
        (b"[1]", "not a fact: 1"),
        (b'[["a", 1]]', "not a fact"),
        (b'[" "]', "not a fact"),
        (b'{"a": 1}', "no list of facts"),
        (b"[", "not valid JSON"),
        (b'[{"all_of": ["("]}]', "not a regular expression"),
        (b'[{"all_of": [1]}]', "expected text"),
        (b"f\xfcr", "not UTF-8"),
    ],
)
def test_bad_facts_are_explained(data: bytes, said: str) -> None:
    """The message says what is wrong, the hint what a fact looks like."""
    with pytest.raises(UsageError, match=said) as caught:
        read_facts(data)
    assert "all_of" in caught.value.hint


def test_strategies_are_scored_on_the_same_conversation() -> None:
    """Facts kept, those missing by name, the length: quoting beats random lines, pruning has no target."""
    given = case("agent-session")
    conversation = load(given.messages)
    scores = {
        each: evaluate(conversation, given.facts, each, ratio=0.2)
        for each in ("extractive", "prune", "random")
    }
    assert scores["extractive"].kept >= 19
    assert scores["extractive"].kept + len(scores["extractive"].missing) == scores["extractive"].facts == 21
    assert scores["extractive"].chars_after <= 0.2 * conversation.chars
    assert scores["random"].kept < 12
    assert scores["prune"].method == "pruned"


def test_a_summary_is_scored_by_what_the_model_said() -> None:
    """The model's words count, and no model is an error."""
    conversation, facts = load(chat(24)), read_facts(b"E1230\nNever touch prod\nnowhere\n")
    score = evaluate(conversation, facts, "summary", ratio=0.3, complete=lambda _: "Cause: E1230.")
    assert (score.method, score.kept, score.missing) == ("summary", 2, ("nowhere",))
    with pytest.raises(NoRoute):
        evaluate(conversation, facts, "summary", ratio=0.3)
    with pytest.raises(UsageError, match="magic"):
        evaluate(conversation, facts, "magic", ratio=0.3)


def test_random_lines_are_the_same_for_the_same_seed() -> None:
    """Repeatable, within the length, with every word of the user."""
    conversation = load(sample_bytes())
    text = random_lines(conversation, 0.3, 1)
    assert text == random_lines(conversation, 0.3, 1) != random_lines(conversation, 0.3, 2)
    assert len(text) <= 0.3 * conversation.chars + 50
    assert all(each.text in text for each in conversation.messages if each.role == "user")


def test_the_bundled_facts_are_all_in_the_bundled_sample() -> None:
    """Nothing can keep what was never there."""
    given = case("agent-session")
    assert len(kept(given.facts, load(given.messages).text)) == len(given.facts) == 21
    assert "facts" not in json.loads(sample_bytes())
    assert set(STRATEGIES) == {"extractive", "prune", "summary", "random"}
