"""Shortening without a model, orphan repair and images: what changes, and above all what does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transcripts import blocks, chat, claude, codex, jsonl, orphans, responses, user_texts

from sidestream.tasks.compression import load, prune, repair
from sidestream.tasks.compression.formats.edits import IMAGE_NOTE
from sidestream.tasks.compression.prune import IMAGE_TOKENS

FORMATS = {"chat": chat, "blocks": blocks, "responses": responses, "codex": codex, "claude": claude}
PIXEL = "data:image/png;base64," + "iVBORw0KGgo" * 40


def called(number: int, result: str, arguments: str = "{}") -> list[dict[str, Any]]:
    function = {"name": "read_file", "arguments": arguments}
    return [
        {"role": "assistant", "content": None, "tool_calls": [{"id": f"c{number}", "function": function}]},
        {"role": "tool", "tool_call_id": f"c{number}", "content": result},
    ]


def pruned(messages: list[dict[str, Any]], **options: Any) -> list[Any]:
    done = prune(load(messages), **{"tail": 0, "least": 0, **options})
    return [each.raw for each in done.conversation.messages]


def test_of_identical_results_the_newest_stays() -> None:
    """A file that was read three times is told once, where it was read last."""
    text = "the same line\n" * 30
    messages = [{"role": "user", "content": "go"}]
    messages += [each for number in range(3) for each in called(number, text)]
    after = [each["content"] for each in pruned(messages, tail=10_000) if each["role"] == "tool"]
    assert after == ["[the same as a later result]"] * 2 + [text]


def test_an_old_result_becomes_one_line_that_says_what_happened() -> None:
    """What ran, how much it printed, how that began and what failed: quotes, at most 190 characters."""
    text = (
        "collected 12 items\n" + "row ok\n" * 80 + "ERROR E1021 in test_import: no such table\n" + "ok\n" * 9
    )
    messages = [*called(1, text, json.dumps({"path": "src/app/relay.py"})), *called(2, "short")]
    after = pruned(messages, tail=100)
    line = after[1]["content"]
    assert line.startswith("[read_file src/app/relay.py; ")
    assert f"{len(text):,} characters left out" in line
    assert "“collected 12 items”" in line
    assert "E1021" in line
    assert "\n" not in line
    assert len(line) <= 190
    assert after[2:] == messages[2:]


def test_a_secret_does_not_enter_the_line() -> None:
    """What a tool printed stays away from the note as from a digest."""
    text = "password = hunter2hunter2\n" + "row\n" * 100
    assert "hunter2" not in str(pruned([*called(1, text), *called(2, "short")], tail=50))


def test_long_arguments_are_cut_leaf_by_leaf_and_stay_json() -> None:
    """Short leaves, numbers and keys are as they were; every string has at most 200 characters."""
    arguments = {"path": "a.py", "edits": [{"text": "x" * 900, "line": 7}], "note": "é" * 300}
    messages = [*called(1, "ok", json.dumps(arguments)), *called(2, "short")]
    cut = json.loads(pruned(messages, tail=20)[0]["tool_calls"][0]["function"]["arguments"])
    assert cut["path"] == "a.py"
    assert cut["edits"][0]["line"] == 7
    assert cut["edits"][0]["text"].endswith("… [900 characters, cut]")
    assert len(cut["edits"][0]["text"]) == len(cut["note"]) == 200


@pytest.mark.parametrize(
    "arguments", ["not JSON " * 100, '{"a": ' + "1" * 600 + "}", json.dumps({"a": "x" * 400})]
)
def test_arguments_that_are_no_json_or_short_stay(arguments: str) -> None:
    """What a model wrote wrongly is not made worse, and 500 characters are not much."""
    messages = [*called(1, "ok", arguments), *called(2, "short")]
    assert pruned(messages, tail=20)[0] == messages[0]


def test_the_newest_turns_stay_unless_they_alone_are_too_large() -> None:
    """Three messages are left alone; beyond one and a half times the room results go, the newest last."""
    big = "row of data\n" * 100
    messages = [each for number in range(4) for each in called(number, f"{number} {big}")]
    calm = pruned(messages, tail=3_000, least=3)
    assert [len(each["content"]) > 1_000 for each in calm if each["role"] == "tool"] == [
        False,
        False,
        True,
        True,
    ]
    tight = pruned(messages, tail=1_000, least=3)
    assert [len(each["content"]) > 1_000 for each in tight if each["role"] == "tool"] == [
        False,
        False,
        False,
        True,
    ]
    tightest = [each["content"] for each in pruned(messages, tail=400, least=3) if each["role"] == "tool"]
    assert len(tightest[-1]) < 700
    assert "[… shortened …]" in tightest[-1]


def test_old_images_become_text_and_the_newest_stays() -> None:
    """In words of the user, in results and in items; the words beside them stay."""
    image = {"type": "image_url", "image_url": {"url": PIXEL}}
    said = {"role": "user", "content": [{"type": "text", "text": "See the button."}, image]}
    shot = {"type": "image", "source": {"type": "base64", "data": PIXEL}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "ok"}, shot]}
    call = {"type": "tool_use", "id": "t1", "name": "screen", "input": {}}
    messages = [said, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    messages += [{"role": "assistant", "content": "I see. " * 20}, said]
    done = prune(load(messages), tail=1, least=1)
    after = [each.raw for each in done.conversation.messages]
    assert after[0]["content"] == [
        {"type": "text", "text": "See the button."},
        {"type": "text", "text": IMAGE_NOTE},
    ]
    assert after[2]["content"][0]["content"][1] == {"type": "text", "text": IMAGE_NOTE}
    assert after[-1] is messages[-1]
    assert done.images == 2
    assert done.tokens > 1.9 * IMAGE_TOKENS
    item = {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": PIXEL}]}
    assert pruned([item, *responses(1)], tail=1)[0]["content"] == [{"type": "input_text", "text": IMAGE_NOTE}]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_pruned_in_its_own_form(name: str) -> None:
    """Tool output shrinks; users, pairs and the number of lines are as before; a second time does nothing."""
    data = jsonl(FORMATS[name]())
    source = load(data)
    done = prune(source, tail=200)
    again = load(done.conversation.to_bytes())
    assert done.tokens > 0.4 * source.tokens
    assert again.format is source.format
    assert len(again.messages) == len(source.messages)
    assert user_texts(again) == user_texts(source)
    assert not orphans(again)
    assert not prune(again, tail=200).changed


def test_what_is_untouched_is_the_same_object() -> None:
    """Hosts recognise their messages."""
    messages = chat()
    after = pruned(messages, tail=500)
    assert all(
        one is two for one, two in zip(messages, after, strict=True) if one["role"] in ("user", "system")
    )
    assert prune(load(messages), tail=10**6).conversation.messages == load(messages).messages


# Repair


@pytest.mark.parametrize("name", FORMATS)
def test_a_missing_call_takes_its_result_along(name: str) -> None:
    """In every format: the object with the call is gone, so its result is taken out."""
    objects = FORMATS[name]()
    at = next(at for at, each in enumerate(objects) if "step_3" in str(each) or "run 3" in str(each))
    done = repair(load(jsonl([*objects[:at], *objects[at + 1 :]])))
    assert (done.calls, done.results) == (0, 1)
    assert not orphans(done)
    assert "1 results without a call" in done.notice


@pytest.mark.parametrize("name", FORMATS)
def test_a_call_that_was_never_answered_goes_and_its_words_stay(name: str) -> None:
    """What the assistant said beside the call is kept."""
    objects = FORMATS[name]()
    at = next(at for at, each in enumerate(objects) if "ERROR E1030" in str(each))
    done = repair(load(jsonl([*objects[:at], *objects[at + 1 :]])))
    assert (done.calls, done.results) == (1, 0)
    assert not orphans(done)
    assert "part_3.py" in done.conversation.text
    assert user_texts(done) == user_texts(load(jsonl(objects)))
    load(done.conversation.to_bytes())


def test_reasoning_goes_with_the_call_it_led_to() -> None:
    """A reasoning item alone is refused by the provider."""
    items = [each for each in responses() if each.get("call_id") != "c2" or each["type"] == "function_call"]
    after = [each.raw for each in repair(load(items)).conversation.messages]
    assert not any(each.get("call_id") == "c2" or each.get("id") == "rs_2" for each in after)
    assert any(each.get("id") == "rs_3" for each in after)


def test_a_call_at_the_end_still_waits() -> None:
    """The answer is on its way."""
    messages = chat()[:-2]
    assert messages[-1]["tool_calls"]
    assert not repair(load(messages)).changed


def test_parts_of_a_message_go_and_the_rest_of_it_stays() -> None:
    """One of two calls, one of two results, and a user's words beside a lonely result."""
    two = [{"type": "tool_use", "id": each, "name": "f", "input": {}} for each in "ab"]
    results = [{"type": "tool_result", "tool_use_id": each, "content": "ok"} for each in "bx"]
    messages = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": two},
        {"role": "user", "content": [*results, {"type": "text", "text": "And be quick."}]},
        {"role": "assistant", "content": "Done."},
    ]
    done = repair(load(messages))
    after = [each.raw["content"] for each in done.conversation.messages]
    assert (done.calls, done.results) == (1, 1)
    assert after == ["go", two[1:], [results[0], {"type": "text", "text": "And be quick."}], "Done."]


def test_what_is_whole_is_the_very_conversation() -> None:
    """Nothing to repair, nothing changed."""
    conversation = load(chat())
    assert repair(conversation).conversation is conversation
