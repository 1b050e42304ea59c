"""A title for a conversation: what is asked, what is left of the answer, and what is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ways import at, both, do

from sidestream import Cancel, Cancelled, InvalidAnswer, Reply, StreamDropped, UsageError
from sidestream.lab import Fault, Lab, Plan, script
from sidestream.routes.config import TaskConfig
from sidestream.tasks import atitle, title
from sidestream.tasks.asking import told
from sidestream.tasks.title import _cut, _read, _talk

PAIR = (title, atitle)
KEY = "sk-canary0123456789abcdef"
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "You are an agent."},
    {"role": "user", "content": "Warum bricht das Relay den Stream ab?"},
    {"role": "assistant", "content": "Ich sehe nach.", "tool_calls": []},
    {"role": "tool", "tool_call_id": "c", "content": "a long log"},
    {"role": "assistant", "content": "chunk_timeout ist zu kurz."},
    {"role": "user", "content": f"Erhöhe es auf 120 s, der Schlüssel ist {KEY}"},
]


@both
def test_a_title_is_asked_for_and_cleaned(way: str) -> None:
    """The conversation goes along, without system, tools and secrets; its quotes are taken off."""
    with Lab(script.say('Title: "Relay bricht Streams ab."')) as lab:
        assert do(way, PAIR, TALK, client=at(lab)) == "Relay bricht Streams ab"
        (request,) = lab.requests
    body = request.body.decode()
    assert "the language the user writes in" in body
    assert "Warum bricht das Relay" in body
    assert "chunk_timeout" in body
    assert "Erhöhe es auf 120 s" in body
    for left_out in ("You are an agent", "a long log", KEY):
        assert left_out not in body


@both
def test_a_title_survives_a_cut(way: str) -> None:
    """A title whose stream is cut comes back whole."""
    with Lab(script.say("Why the relay drops streams"), plan=Plan([Fault.cut(after_event=3)])) as lab:
        assert do(way, PAIR, TALK, client=at(lab)) == "Why the relay drops streams"
        assert len(lab.requests) == 2


@both
def test_a_failed_title_is_an_error(way: str) -> None:
    """No title is made up: an endpoint that only breaks is the call's own error, with its ledger."""
    with (
        Lab(plan=Plan.always(Fault.cut(after_event=1))) as lab,
        pytest.raises(StreamDropped) as caught,
    ):
        do(way, PAIR, TALK, client=at(lab))
    assert len(caught.value.attempts) == 2


@both
def test_the_configuration_of_the_task_counts(way: str) -> None:
    """Model, fields, language and instructions of the task are used; arguments beat them."""
    said = TaskConfig(
        model="small", language="German", instructions="Name it in one word.", params={"temperature": 0}
    )
    with Lab(script.say("Relay")) as lab:
        do(way, PAIR, TALK, client=at(lab, tasks={"title": said}))
        do(
            way,
            PAIR,
            TALK,
            client=at(lab, tasks={"names": said}),
            task="names",
            language="Spanish",
            model="big",
        )
        first, second = (request.json() for request in lab.requests)
    assert (first["model"], second["model"]) == ("small", "big")
    assert first["temperature"] == 0
    assert first["messages"][0]["content"] == "Name it in one word.\nWrite it in German."
    assert second["messages"][0]["content"].endswith("Write it in Spanish.")


@both
def test_a_title_can_be_stopped(way: str) -> None:
    """A cancel ends it, as it ends every call."""
    stop = Cancel()
    stop.cancel()
    with Lab() as lab, pytest.raises(Cancelled):
        do(way, PAIR, TALK, client=at(lab), cancel=stop)


@both
def test_half_a_title_is_none(way: str) -> None:
    """What a token limit ended is an error that says which setting to raise."""
    with (
        Lab(script.chat({"content": "Why the relay"}, finish="length")) as lab,
        pytest.raises(InvalidAnswer, match="token limit") as caught,
    ):
        do(way, PAIR, TALK, client=at(lab))
    assert "max_output_tokens" in caught.value.hint
    assert caught.value.reply is not None
    assert len(caught.value.attempts) == len(lab.requests)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Fixing the relay", "Fixing the relay"),
        ("  \n\n# **Fixing the relay**\n\nThis title says …", "Fixing the relay"),
        ("<think>The user wants\na title.</think>\nFixing the relay.", "Fixing the relay"),
        ("「リレーの修正」", "リレーの修正"),
        ("标题：修复中继。", "修复中继"),  # noqa: RUF001
        ("Titel: „Das Relay reparieren“", "Das Relay reparieren"),
        ("```\nFixing the relay\n```", "Fixing the relay"),
        ("Why does it drop?", "Why does it drop?"),
        ("To be continued...", "To be continued..."),
        ("a\x1b[31mb\u202ec", "a [31mb c"),
        (f"The key {KEY}", "The key [REDACTED]"),
    ],
)
def test_what_models_put_around_a_title_is_taken_off(answer: str, expected: str) -> None:
    """Quotes, headings, labels, fences, thoughts and what terminals obey are no part of a title."""
    assert _read(Reply("complete", answer), 80) == expected


@pytest.mark.parametrize("answer", ["", "***", '""', "<think>I wonder", "---\n```"])
def test_what_holds_no_title_is_an_error(answer: str) -> None:
    """An answer without a word is no title."""
    with pytest.raises(InvalidAnswer, match="no title"):
        _read(Reply("complete", answer), 80)


@given(st.text(max_size=300), st.integers(1, 100))
def test_a_title_fits(answer: str, length: int) -> None:
    """Whatever is answered, a title is one printable line of at most that length, or there is none."""
    try:
        found = _read(Reply("complete", answer), length)
    except InvalidAnswer:
        return
    assert 0 < len(found) <= length
    assert len(found.splitlines()) == 1
    assert found == found.strip()


def test_a_long_title_ends_between_words() -> None:
    """What is cut off is marked, and no word is torn if there is a gap near the end."""
    assert _cut("one two three four", 12) == "one two…"
    assert _cut("x" * 30, 10) == "x" * 9 + "…"
    assert len(_cut("数据" * 30, 10)) == 10


def test_a_long_conversation_is_shown_by_its_beginning_and_its_last_words() -> None:
    """The prompt is bounded however long the conversation is, and holds what the user said last."""
    long = [{"role": "user", "content": f"turn {n} " + "x" * 5_000} for n in range(200)]
    question = next(_talk(TaskConfig(), [*long, {"role": "user", "content": "the last words"}], "", 80))
    assert "turn 0" in question.input
    assert "the last words" in question.input
    assert len(question.input) <= 8_000 + len("<conversation>\n\n</conversation>")


@pytest.mark.parametrize("size", [1, 990, 1_400, 1_495, 5_000])
@pytest.mark.parametrize("count", [1, 5, 6, 9])
def test_a_conversation_is_shown_in_so_many_characters(count: int, size: int) -> None:
    """8,000 characters, labels and the last words included; what fits is whole."""
    turns = [{"role": role, "content": f"{n}" * size} for n in range(count) for role in ("user", "assistant")]
    shown = told(turns)
    assert len(shown) <= 8_000
    assert f"User: {count - 1}" in shown
    if count * (size + 12) * 2 < 8_000:
        assert "[…]" not in shown


@pytest.mark.parametrize("before", range(1_480, 1_500))
def test_a_secret_at_the_cut_is_out(before: int) -> None:
    """What is cut off does not leave the beginning of a secret that is known by its whole."""
    secret = "sk-" + "Canary0d41d8cd98f00b204"
    assert "Canary" not in told("x" * before + " " + secret)


def test_an_image_without_words_is_mentioned() -> None:
    """A conversation that begins with a picture has a beginning, and no picture travels for its title."""
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    question = next(_talk(TaskConfig(), [{"role": "user", "content": [part]}], "", 80))
    assert "User: [an image]" in question.input
    assert "base64" not in question.input


def test_a_title_of_no_length_is_the_callers_mistake() -> None:
    """A length below one is refused."""
    with pytest.raises(UsageError, match="0 characters"):
        next(_talk(TaskConfig(), TALK, "", 0))


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": ""}], [{"role": "nobody"}], 7])
def test_nothing_to_name_is_the_callers_mistake(messages: Any) -> None:
    """Without a word of anybody, or with nonsense, nothing is asked."""
    with pytest.raises(UsageError):
        next(_talk(TaskConfig(), messages, "", 80))
