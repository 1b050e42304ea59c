"""What holds for every conversation in every format: nothing lost, invented or left dangling."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transcripts import (
    alternates,
    blocks,
    chat,
    claude,
    codex,
    digest_of,
    jsonl,
    orphans,
    responses,
    user_texts,
)

from sidestream.tasks.compression import Budget, Compaction, Compactor, compress, load, prune, repair
from sidestream.tasks.compression.digest_text import LEDGER, LEDGER_JOIN
from sidestream.tasks.compression.groups import group
from sidestream.tasks.compression.redact import redact

_PLAIN = (
    "decided because ERROR src/app/relay.py 34.1 ms not must TODO E1021 because, password=hunter22 x_y_z so;"
)
_ODD = [
    "決定",
    "原因",
    "—",
    "\u202e",
    "Müller:",
    "12.04.",
    "«fin»",
    "a.b.c()",
    "->",
    "15",
    "→",
    "[end]",
    "·",
    "Also:",
]
WORDS = st.sampled_from([*_PLAIN.split(), *_ODD, "```", "\n", ".", "!", "。", "🙂", "\ud800"])
TEXTS = st.lists(WORDS, max_size=30).map(" ".join)


RESULTS = st.one_of(TEXTS, TEXTS.map(lambda text: f"{text}\n" * 9))
ARGUMENTS = st.one_of(
    TEXTS, st.dictionaries(st.sampled_from("abc"), TEXTS.map(lambda text: text * 9)).map(json.dumps)
)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Valid chats: any order of users, answers, calls with results, sometimes with a system message."""
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(TEXTS)})
    for turn in range(draw(st.integers(1, 9))):
        kind = draw(st.sampled_from(["user", "assistant", "calls"]))
        if kind != "calls":
            messages.append({"role": kind, "content": draw(TEXTS)})
            continue
        ids = [f"c{turn}_{number}" for number in range(draw(st.integers(1, 3)))]
        calls = [
            {"id": each, "type": "function", "function": {"name": "f", "arguments": draw(ARGUMENTS)}}
            for each in ids
        ]
        messages.append({"role": "assistant", "content": draw(TEXTS), "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": each, "content": draw(RESULTS)} for each in ids]
    return messages


BUDGETS = st.one_of(
    st.floats(0.01, 1.0).map(lambda ratio: Budget(ratio=ratio)),
    st.integers(1, 500).map(lambda tokens: Budget(tokens=tokens)),
)
FORMATS = {"chat": chat, "blocks": blocks, "responses": responses, "codex": codex, "claude": claude}


@given(conversations(), BUDGETS)
@settings(max_examples=150, deadline=None)
def test_a_chat_loses_no_user_word_and_leaves_no_call_alone(
    messages: list[dict[str, Any]], budget: Budget
) -> None:
    """User and system messages are the same objects; calls and results stay in pairs; nothing grows."""
    result = compress(messages, budget=budget)
    kept = [id(each) for each in result.messages]
    assert all(id(each) in kept for each in messages if each["role"] in ("user", "system"))
    assert not orphans(result)
    assert result.chars_after <= result.chars_before
    assert result.method == "none" or result.chars_after < result.chars_before or result.kept


@given(conversations(), BUDGETS)
@settings(max_examples=150, deadline=None)
def test_every_line_of_a_digest_is_from_the_source(messages: list[dict[str, Any]], budget: Budget) -> None:
    """Nothing is invented: each line is a piece of some message, each ledger entry too."""
    source = "\n".join(redact(part.text) for each in load(messages).messages for part in each.parts)
    for line in digest_of(compress(messages, budget=budget)).split("\n")[1:-1]:
        entries = line.removeprefix(LEDGER).split(LEDGER_JOIN) if line not in source else [line]
        assert all(entry in source for entry in entries), line


@given(conversations(), BUDGETS)
@settings(max_examples=60, deadline=None)
def test_the_same_input_gives_the_same_result(messages: list[dict[str, Any]], budget: Budget) -> None:
    """No clock, no chance, no order of a set."""
    assert compress(messages, budget=budget).messages == compress(messages, budget=budget).messages


@given(conversations(), BUDGETS, st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_file_comes_back_in_its_format_and_never_larger(
    messages: list[dict[str, Any]], budget: Budget, lines: bool
) -> None:
    """The output can be read again and is what the result says it is."""
    data = (
        b"\n".join(json.dumps(each).encode() for each in messages) if lines else json.dumps(messages).encode()
    )
    result = compress(data, budget=budget)
    again = load(result.to_bytes())
    assert len(result.to_bytes()) <= len(data)
    assert again.chars == result.chars_after
    assert user_texts(again) == user_texts(load(data))


@given(conversations(), BUDGETS)
@settings(max_examples=60, deadline=None)
def test_roles_alternate_where_that_is_asked_for(messages: list[dict[str, Any]], budget: Budget) -> None:
    """No two neighbours of one role, and still every word of the user, in order, and no lonely call."""
    result = compress(messages, budget=budget, alternate=True)
    assert not orphans(result)
    assert result.chars_after <= result.chars_before
    assert _words_in_order(messages, result.messages)
    if result.changed:
        assert alternates(result.messages)


@given(conversations(), BUDGETS, BUDGETS)
@settings(max_examples=60, deadline=None)
def test_a_merged_digest_is_found_and_updated(
    messages: list[dict[str, Any]], first: Budget, second: Budget
) -> None:
    """A digest that was merged into a neighbour stands by itself again before the next compression."""
    once = compress(messages, budget=first, alternate=True)
    twice = compress(once.messages, budget=second, alternate=True)
    assert json.dumps(twice.messages).count("[sidestream digest") <= 1
    assert _words_in_order(messages, twice.messages)
    assert not orphans(twice)


@given(conversations(), BUDGETS)
@settings(max_examples=60, deadline=None)
def test_what_is_small_enough_is_left_alone(messages: list[dict[str, Any]], budget: Budget) -> None:
    """A conversation within its budget is the same one after any number of compressions."""
    first = compress(messages, budget=Budget(chars=max(1, load(messages).chars)))
    assert first.method == "none"
    assert [id(each) for each in first.messages] == [id(each) for each in messages]
    done = compress(messages, budget=budget, alternate=True)
    again = compress(done.messages, budget=Budget(chars=max(1, done.chars_after)), alternate=True)
    assert again.messages == done.messages


@given(conversations(), st.integers(1, 2_000))
@settings(max_examples=60, deadline=None)
def test_pruning_touches_tools_only_and_once(messages: list[dict[str, Any]], tail: int) -> None:
    """As many messages as before, users and assistants word for word, arguments still JSON, nothing twice."""
    source = load(messages)
    done = prune(source, tail=tail)
    assert done.conversation.chars <= source.chars
    assert not orphans(done)
    for before, after in zip(messages, done.conversation.messages, strict=True):
        assert {**after.raw, "tool_calls": 0} == {**before, "tool_calls": 0} or before["role"] == "tool"
        for old, new in zip(before.get("tool_calls", ()), after.raw.get("tool_calls", ()), strict=True):
            assert _is_json(new["function"]["arguments"]) or not _is_json(old["function"]["arguments"])
    assert not prune(done.conversation, tail=tail).changed


@given(conversations(), st.data())
@settings(max_examples=60, deadline=None)
def test_any_damage_to_pairs_is_repaired(messages: list[dict[str, Any]], data: st.DataObject) -> None:
    """Whichever messages are missing: no orphan is left, no user's word is lost, and twice is once."""
    gone = data.draw(st.sets(st.integers(0, len(messages) - 1), max_size=4))
    left = [each for at, each in enumerate(messages) if at not in gone] or messages[:1]
    done = repair(load(left)).conversation
    broken = [each for each in group(done.messages) if each.broken]
    assert not broken
    assert _words_in_order(left, [each.raw for each in done.messages])
    assert not repair(done).changed


@given(conversations(), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_a_policy_loses_no_word_of_the_user_and_no_pair(messages: list[dict[str, Any]], window: int) -> None:
    """Whatever the window: what is committed alternates, is smaller, and holds every user's word."""
    compactor = Compactor(window=window * 25, clock=lambda: 0.0)
    done = compactor.compact(messages)
    after = compactor.commit(done, messages)
    assert load(after).chars <= load(messages).chars
    assert _words_in_order(messages, after)
    assert not orphans(load(after))
    if done.method == "extractive":
        assert alternates(after)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("ratio", [0.02, 0.1, 0.3, 0.6, 0.9])
def test_every_format_keeps_the_user_and_the_pairs(name: str, ratio: float) -> None:
    """The promises hold for items and session files as for chats."""
    data = jsonl(FORMATS[name]())
    result = compress(data, budget=Budget(ratio=ratio))
    assert result.method == "extractive"
    assert user_texts(result) == user_texts(load(data))
    assert not orphans(result)
    again = load(result.to_bytes())
    assert again.format is load(data).format
    assert sum(message.digest for message in again.messages) == 1


@pytest.mark.parametrize("name", FORMATS)
def test_untouched_lines_come_back_byte_for_byte(name: str) -> None:
    """What stays is written as it was read; only Claude Code's links may change."""
    before = jsonl(FORMATS[name]()).split(b"\n")
    after = compress(b"\n".join(before), budget=Budget(ratio=0.6)).to_bytes().split(b"\n")
    new = [line for line in after if line not in before]
    assert len(new) <= (3 if name == "claude" else 2)  # the digest, a shortened result, a new parent


@pytest.mark.parametrize("name", FORMATS)
def test_compressing_again_updates_the_digest_instead_of_nesting_it(name: str) -> None:
    """There is one digest after any number of compressions, and its labels are there once."""
    first = compress(jsonl(FORMATS[name]()), budget=Budget(ratio=0.5))
    second = compress(first.to_bytes(), budget=Budget(ratio=0.5))
    digests = [message.text for message in second.conversation.messages if message.digest]
    assert len(digests) == 1
    assert digests[0].count("[end]") == 1
    assert user_texts(second) == user_texts(first)


def test_a_result_within_the_budget_is_left_alone() -> None:
    """Compressing to a length that is met already changes nothing."""
    first = compress(chat(), budget=Budget(chars=900))
    second = compress(first.messages, budget=Budget(chars=900))
    assert first.method == "extractive"
    assert second.method == "none"
    assert second.messages == first.messages


def test_the_newest_turn_is_shortened_rather_than_lost() -> None:
    """A model that called a tool gets an answer, if a shorter one."""
    messages = chat()[:-1]
    result = compress(messages, budget=Budget(ratio=0.2))
    call, answer = result.messages[-2:]
    assert call == messages[-2]
    assert answer["tool_call_id"] == messages[-1]["tool_call_id"]
    assert 0 < len(answer["content"]) < len(messages[-1]["content"])


def test_user_words_beyond_the_budget_stay_and_the_result_says_so() -> None:
    """The budget gives way, never the user."""
    messages = [{"role": "user", "content": "important words " * 40}, *chat()[2:]]
    result = compress(messages, budget=Budget(chars=300))
    assert messages[0] in result.messages
    assert not result.met_budget
    assert "The budget was not met" in result.notice
    assert "653 characters" in result.notice


def test_a_digest_speaks_as_assistant_so_that_tools_do_not_speak_as_the_user() -> None:
    """Tool output must not gain the user's authority; only without any user does the digest take the role."""
    assert _digest_role(compress(chat(), budget=Budget(ratio=0.3))) == "assistant"
    without = [each for each in chat() if each["role"] != "user"]
    assert _digest_role(compress(without, budget=Budget(ratio=0.3))) == "user"


def test_broken_pairs_of_the_source_are_repaired() -> None:
    """A result without a call, or a call nobody answered, goes into the digest and not to the model."""
    messages = chat()
    del messages[2]
    del messages[-2]
    assert not orphans(compress(messages, budget=Budget(ratio=0.5)))


def test_prose_without_names_or_cues_is_quoted_too() -> None:
    """A language no table knows still gives its newest sentences."""
    said = "ธรรมดา วันนี้ อากาศ ดี มาก เรา เดิน เล่น ใน สวน"
    messages = [
        {"role": "user", "content": "go"},
        *({"role": "assistant", "content": said + str(n)} for n in range(30)),
    ]
    digest = digest_of(compress(messages, budget=Budget(ratio=0.5)))
    assert digest.count("อากาศ") > 5


def test_a_huge_result_is_quoted_from_its_ends_only() -> None:
    """One endless line of data costs no more than its limit allows, and both ends can still be quoted."""
    messages = chat()
    messages[3]["content"] = "ERROR E9001 first " + "x_1, " * 100_000 + " ERROR E9002 last"
    digest = digest_of(compress(messages, budget=Budget(chars=2_000)))
    assert "E9001" in digest
    assert "E9002" in digest


def test_secrets_do_not_enter_a_digest() -> None:
    """Keys are taken out of what is quoted; what stays in place is not rewritten."""
    messages = chat()
    messages[2]["content"] += (
        " ERROR E77 because api_key = sk-live-0123456789abcdef01 and Bearer abcdefgh12345678 failed."
    )
    digest = digest_of(compress(messages, budget=Budget(ratio=0.9)))
    assert "0123456789abcdef" not in digest
    assert "abcdefgh12345678" not in digest


def _words_in_order(before: list[dict[str, Any]], after: list[Any]) -> bool:
    """Whether every user's text of `before` is in the user's texts of `after`, in the same order."""
    if not after:
        return not any(each["role"] == "user" for each in before)
    texts = "\n\n".join(each.text for each in load(after).messages if each.role == "user")
    at = 0
    for each in before:
        if each["role"] == "user":
            at = texts.find(each["content"], at)
            if at < 0:
                return False
            at += len(each["content"])
    return True


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _digest_role(result: Compaction) -> str:
    return next(each.raw["role"] for each in result.conversation.messages if each.digest)
