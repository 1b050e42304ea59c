"""What callers write, and the way between its two shapes: nothing lost, nothing a backend would refuse."""

import itertools
import json
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
from sidestream.wire.turns import to_turns

texts = st.text(max_size=20)
names = st.text(string.ascii_letters + "_", min_size=1, max_size=8)
call_ids = st.uuids().map(lambda value: f"call_{value.hex[:8]}")
arguments = st.dictionaries(names, st.integers() | texts, max_size=3).map(lambda value: json.dumps(value))
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


# Towards the Messages wire, and back.


def uses_of(turns: list[JSON]) -> list[tuple[str, str, str]]:
    return [
        (block["id"], block["name"], json.dumps(block["input"]))
        for turn in turns
        if turn["role"] == "assistant" and isinstance(turn["content"], list)
        for block in turn["content"]
        if block["type"] == "tool_use"
    ]


def answers_of(turns: list[JSON]) -> list[tuple[str, str]]:
    return [
        (block["tool_use_id"], block["content"])
        for turn in turns
        if turn["role"] == "user" and isinstance(turn["content"], list)
        for block in turn["content"]
        if block["type"] == "tool_result"
    ]


@given(conversations())
def test_turns_alternate_and_hold_no_blank_text(messages: list[JSON]) -> None:
    """User and assistant take turns, and only the two; a blank text is refused, so there is none."""
    _, turns = to_turns(messages)
    roles = [turn["role"] for turn in turns]
    assert set(roles) <= {"user", "assistant"}
    assert all(one != other for one, other in itertools.pairwise(roles))
    for turn in turns:
        assert turn.keys() == {"role", "content"}
        texts = [turn["content"]] if isinstance(turn["content"], str) else [
            block["text"] for block in turn["content"] if block["type"] == "text"
        ]  # fmt: skip
        assert turn["content"]
        assert all(text.strip() for text in texts)


@given(conversations())
def test_turns_keep_every_call_result_and_word(messages: list[JSON]) -> None:
    """Calls and results keep their ids, names and content; from items it is the same."""
    system, turns = to_turns(messages)
    assert uses_of(turns) == [(i, n, json.dumps(json.loads(a))) for i, n, a in calls_of(messages)]
    assert answers_of(turns) == results_of(messages)
    said = "".join(
        text for role, text in texts_of(messages) if role in ("user", "assistant") and text.strip()
    )
    assert "".join(said.split()) == "".join("".join(text_of(turn["content"]) for turn in turns).split())
    for role in ("system", "developer"):
        assert all(text in plain_text(system) for said, text in texts_of(messages) if said == role)
    again = to_turns(to_items(messages))
    assert (uses_of(again[1]), answers_of(again[1])) == (uses_of(turns), answers_of(turns))


def text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block["text"] for block in content if block["type"] == "text")


@given(conversations())
def test_what_has_the_form_of_the_messages_wire_passes_as_it_is(messages: list[JSON]) -> None:
    """Translating turns changes nothing more."""
    _, turns = to_turns(messages)
    assert to_turns(turns) == ("", turns)


@given(conversations())
def test_turns_travel_to_the_other_wires(messages: list[JSON]) -> None:
    """A conversation in the form of the Messages wire keeps its calls and results as chat and as items."""
    _, turns = to_turns(messages)
    there = to_messages(turns)
    assert [(i, n, json.loads(a)) for i, n, a in calls_of(there)] == [
        (i, n, json.loads(a)) for i, n, a in calls_of(messages)
    ]
    assert results_of(there) == results_of(messages)
    assert all(turn["role"] in ("user", "assistant", "tool") for turn in there)
    items = to_items(turns)
    assert [i["call_id"] for i in items if i.get("type") == "function_call"] == [
        c[0] for c in calls_of(messages)
    ]
    assert all(
        item.get("type") in (None, "message", "function_call", "function_call_output") for item in items
    )
    before = repr(turns)
    assert to_messages(to_items(turns)) is not turns
    assert repr(turns) == before


SHOT = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
LINKED = {"type": "image", "source": {"type": "url", "url": "https://ex.org/a.png"}}


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (IMAGE, SHOT),
        ({"type": "image_url", "image_url": "https://ex.org/a.png"}, LINKED),
        ({"type": "input_image", "image_url": IMAGE["image_url"]["url"]}, SHOT),
        ({"type": "input_text", "text": "a"}, {"type": "text", "text": "a"}),
        (SHOT, SHOT),
        ({"type": "document", "source": {}}, {"type": "document", "source": {}}),
    ],
)
def test_part_becomes_block(part: JSON, block: JSON) -> None:
    """Images keep their bytes or their link, text its words, and what is a block stays one."""
    assert to_turns([{"role": "user", "content": [part]}])[1] == [{"role": "user", "content": [block]}]
    result = {"type": "function_call_output", "call_id": "c", "output": [part]}
    assert to_turns([result])[1][0]["content"][0]["content"] == [block]


@pytest.mark.parametrize("block", [SHOT, LINKED])
def test_images_of_the_messages_wire_travel(block: JSON) -> None:
    """They become image parts of the other wires."""
    source = block["source"]
    url = source.get("url", "data:image/png;base64,AA==")
    turn = {"role": "user", "content": [{"type": "text", "text": "see"}, block]}
    assert to_messages([turn])[0]["content"][1] == {"type": "image_url", "image_url": {"url": url}}
    assert to_items([turn])[0]["content"][1] == {"type": "input_image", "image_url": url}


USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}
SEARCH = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
CITE = {"type": "web_search_result_location", "url": "u", "cited_text": "x"}


def test_an_answer_goes_back_as_the_turn_it_was() -> None:
    """The items of a reply of this wire become its blocks again: so a paused turn goes on."""
    items = [
        {
            "type": "reasoning",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "Hm."}],
            "signature": "s",
        },
        {"type": "reasoning", "summary": [], "encrypted_content": "sealed"},
        {
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {
                    "type": "output_text",
                    "text": "So",
                    "annotations": [{**CITE, "file_id": None}, {"type": "url_citation"}],
                }
            ],
        },
        SEARCH,
        FOUND,
        {"type": "function_call", "call_id": "toolu_1", "name": "f", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "toolu_1", "output": "7"},
    ]
    assert to_turns(items)[1] == [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "redacted_thinking", "data": "sealed"},
                {"type": "text", "text": "So", "citations": [CITE]},
                SEARCH,
                FOUND,
                USE,
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "7"}]},
    ]
    there = to_items(items)
    assert [item["type"] for item in there] == [
        "reasoning",
        "message",
        "function_call",
        "function_call_output",
    ]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAAAABo7c2lkZQ=="},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "compaction", "encrypted_content": "x"},
    ],
)
def test_what_other_wires_know_alone_is_left_out_of_turns(item: JSON) -> None:
    """Reasoning of another provider would be refused, and its hosted calls have no form here."""
    assert to_turns([{"role": "user", "content": "a"}, item])[1] == [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    ("entry", "block"),
    [
        ({"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "a\nb"}, {"input": "a\nb"}),
        ({"type": "function_call", "call_id": "c", "name": "patch", "arguments": ""}, {}),
        ({"type": "function_call", "call_id": "c", "name": "patch", "arguments": "a\nb"}, {"input": "a\nb"}),
    ],
)
def test_every_input_is_an_object_on_the_messages_wire(entry: JSON, block: JSON) -> None:
    """Free text is put into one."""
    (turn,) = to_turns([entry])[1]
    assert turn == {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "c", "name": "patch", "input": block}],
    }


def test_call_ids_are_written_as_the_messages_wire_takes_them() -> None:
    """A character that it refuses is replaced, in the call and in its result."""
    calls = [{"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    result = {"role": "tool", "tool_call_id": "functions.f:0", "content": "7"}
    _, turns = to_turns([{"role": "assistant", "content": None, "tool_calls": calls}, result])
    assert turns[0]["content"][0]["id"] == turns[1]["content"][0]["tool_use_id"] == "functions_f_0"


@pytest.mark.parametrize("text", ["ends with space ", "ends with lines\n\n", " begins so"])
def test_the_last_turn_is_not_trimmed(text: str) -> None:
    """Who continues an answer decides what white space is sent."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": text}]
    assert to_turns(messages)[1][-1] == {"role": "assistant", "content": text}


def test_results_come_before_words_on_the_other_wires() -> None:
    """A turn of the Messages wire may hold both; a tool message has to follow its call."""
    turn = {
        "role": "user",
        "content": [{"type": "text", "text": "and"}, {"type": "tool_result", "tool_use_id": "c"}],
    }
    assert [message["role"] for message in to_messages([turn])] == ["tool", "user"]


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
