"""What callers write, and the way between its two shapes: nothing lost, nothing a backend would refuse."""

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream.wire.prompt import (
    ROLES,
    Request,
    check_input,
    from_input,
    is_json_object,
    plain_text,
    size,
    to_items,
    to_messages,
)

texts = st.text(max_size=20)
names = st.text(string.ascii_letters + "_", min_size=1, max_size=8)
call_ids = st.uuids().map(lambda value: f"call_{value.hex[:8]}")
arguments = st.dictionaries(names, st.integers() | texts, max_size=3).map(
    lambda value: __import__("json").dumps(value)
)
JSON = dict[str, Any]


@st.composite
def conversations(draw: st.DrawFn) -> list[JSON]:
    """Chat-style messages as an agent has them: turns, calls, and a result for every call."""
    messages: list[JSON] = []
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["user", "system", "developer", "assistant", "calls"]))
        if kind != "calls":
            content = draw(
                texts | st.lists(texts.map(lambda t: {"type": "text", "text": t}), min_size=1, max_size=3)
            )
            messages.append({"role": kind, "content": content})
            continue
        calls = [
            {
                "id": call_id,
                "type": "function",
                "function": {"name": draw(names), "arguments": draw(arguments)},
            }
            for call_id in draw(st.lists(call_ids, min_size=1, max_size=3, unique=True))
        ]
        messages.append({"role": "assistant", "content": draw(texts | st.none()), "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": draw(texts)} for call in calls]
    return messages


def calls_of(messages: list[JSON]) -> list[tuple[str, str, str]]:
    return [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for message in messages
        for call in message.get("tool_calls", ())
    ]


def results_of(messages: list[JSON]) -> list[tuple[str, str]]:
    return [(m["tool_call_id"], plain_text(m["content"])) for m in messages if m["role"] == "tool"]


def texts_of(messages: list[JSON]) -> list[tuple[str, str]]:
    found = [(m["role"], plain_text(m.get("content"))) for m in messages if m["role"] != "tool"]
    return [(role, text) for role, text in found if text]


@given(conversations())
def test_items_never_hold_a_tool_role(messages: list[JSON]) -> None:
    """Backends answer 400 to `role: tool` in a Responses input: no item has it."""
    for item in to_items(messages):
        assert item.get("role") not in ("tool", "function")
        assert item.get("role") or item.get("type")


@given(conversations())
def test_items_keep_every_call_and_result(messages: list[JSON]) -> None:
    """Calls and results keep their ids, names and content, in order."""
    items = to_items(messages)
    calls = [(i["call_id"], i["name"], i["arguments"]) for i in items if i.get("type") == "function_call"]
    results = [(i["call_id"], i["output"]) for i in items if i.get("type") == "function_call_output"]
    assert calls == calls_of(messages)
    assert results == results_of(messages)


@given(conversations())
def test_messages_survive_the_way_there_and_back(messages: list[JSON]) -> None:
    """To items and back: the same roles, texts, calls and results."""
    back = to_messages(to_items(messages))
    assert calls_of(back) == calls_of(messages)
    assert results_of(back) == results_of(messages)
    assert texts_of(back) == texts_of(messages)


@given(conversations())
def test_translating_twice_changes_nothing_more(messages: list[JSON]) -> None:
    """What is already in a wire's shape stays as it is."""
    items = to_items(messages)
    assert to_items(items) == items
    assert to_messages(messages) == messages


@given(conversations(), conversations())
def test_mixed_input_translates_piece_by_piece(one: list[JSON], two: list[JSON]) -> None:
    """Messages and items may be mixed as they come."""
    assert to_items([*one, *to_items(two)]) == to_items([*one, *two])


@given(conversations())
def test_translating_leaves_the_input_alone(messages: list[JSON]) -> None:
    """No translation writes into what the caller passed."""
    before = repr(messages)
    to_messages(to_items(messages))
    assert repr(messages) == before


def test_assistant_turns_are_written_in_their_long_form() -> None:
    """llama.cpp and Codex take assistant items only with type, status and typed content."""
    assert to_items([{"role": "assistant", "content": "hi"}]) == [
        {
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "hi", "annotations": []}],
        }
    ]


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def test_images_are_translated_both_ways() -> None:
    """An image part keeps its URL on both wires."""
    message = {"role": "user", "content": [{"type": "text", "text": "see"}, IMAGE]}
    (item,) = to_items([message])
    assert item["content"] == [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": IMAGE["image_url"]["url"]},
    ]
    assert to_messages([{"type": "message", **item}]) == [message]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
            {"role": "assistant", "content": "a"},
        ),
        (
            {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "assistant", "content": "no"},
        ),
        ({"type": "message", "role": "user", "content": "a"}, {"role": "user", "content": "a"}),
        (
            {"type": "function_call_output", "call_id": "c", "output": {"a": 1}},
            {"role": "tool", "tool_call_id": "c", "content": '{"a":1}'},
        ),
        (
            {"type": "custom_tool_call_output", "call_id": "c", "output": "x"},
            {"role": "tool", "tool_call_id": "c", "content": "x"},
        ),
    ],
)
def test_item_becomes_message(entry: JSON, message: JSON) -> None:
    """Each kind of item has its chat message."""
    assert to_messages([entry]) == [message]


def test_reasoning_items_have_no_place_in_chat() -> None:
    """Reasoning is left out of chat messages and kept in items."""
    entries = [{"type": "reasoning", "summary": []}, {"role": "user", "content": "a"}]
    assert to_messages(entries) == [{"role": "user", "content": "a"}]
    assert to_items(entries) == entries


def test_custom_tool_input_stays_readable_in_chat() -> None:
    """Free-form input is no JSON: chat gets it inside an object."""
    (message,) = to_messages([{"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "a\nb"}])
    assert message["tool_calls"][0]["function"] == {"name": "patch", "arguments": '{"input":"a\\nb"}'}


def test_parallel_calls_join_one_assistant_turn() -> None:
    """Calls that follow text or each other belong to one assistant message."""
    entries = [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
    ]
    (message,) = to_messages(entries)
    assert (message["content"], [call["id"] for call in message["tool_calls"]]) == ("a", ["1", "2"])


# What callers pass.


def test_a_string_is_one_user_message() -> None:
    """The shortest input is a string."""
    assert from_input("hi") == ({"role": "user", "content": "hi"},)


def test_any_iterable_of_mappings_is_taken() -> None:
    """Tuples and generators of mappings are messages like any other."""
    assert from_input(iter([{"role": "user", "content": "a"}])) == ({"role": "user", "content": "a"},)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "there are no messages"),
        (5, "got int"),
        (None, "got NoneType"),
        ({"role": "user"}, "got dict"),
        ([{"role": "user", "content": "a"}, "b"], "message 1 is a str"),
        ([{"role": "user", "content": "a"}, {"role": "robot"}], "message 1 has the unknown role 'robot'"),
        ([{"content": "a"}], "message 0 has neither"),
        ([{"type": 5}], "message 0 has neither"),
        ([{"role": None}], "message 0 has the unknown role None"),
        ([{"role": ["user"]}], "message 0 has the unknown role"),
        (b"bytes", "message 0 is a int"),
    ],
)
def test_bad_input_is_reported_by_position(value: object, words: str) -> None:
    """What makes no sense is a ValueError that says where, before anything is sent."""
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        from_input(value)


@given(st.lists(st.sampled_from(sorted(ROLES)), min_size=1, max_size=5))
def test_every_known_role_is_taken(roles: list[str]) -> None:
    """All roles of the field pass the check."""
    check_input(tuple({"role": role, "content": ""} for role in roles))


# Odds and ends.


@given(conversations())
def test_size_grows_with_the_prompt(messages: list[JSON]) -> None:
    """The size of a prompt is never less than its text."""
    request = Request(tuple(messages), "be brief")
    assert size(request) >= sum(len(text) for _, text in texts_of(messages)) + len("be brief")


def test_without_drops_one_parameter_only() -> None:
    """A request without a parameter is the same request otherwise, and the original stays."""
    request = Request(({"role": "user", "content": "a"},), "i", ({"type": "x"},), {"a": 1, "b": 2})
    assert request.without("a") == Request(request.messages, "i", request.tools, {"b": 2})
    assert request.params == {"a": 1, "b": 2}


@pytest.mark.parametrize(("count", "choices"), [(None, 1), (1, 1), (3, 3), (0, 1), (-2, 1), ("2", 1)])
def test_choices_are_what_n_says(count: object, choices: int) -> None:
    """`n` counts only if it is a number above zero."""
    assert Request((), params={} if count is None else {"n": count}).choices == choices


@pytest.mark.parametrize(
    ("text", "whole"),
    [("{}", True), ('{"a":[1,{"b":2}]}', True), ("", False), ("{", False), ('{"a":1}}', False), ("[]", False),
     ("null", False), ('{"a":1', False), ('{"a":"}', False)],
)  # fmt: skip
def test_only_a_whole_object_counts_as_arguments(text: str, whole: bool) -> None:
    """The arguments of a finished call are one whole JSON object."""
    assert is_json_object(text) is whole
