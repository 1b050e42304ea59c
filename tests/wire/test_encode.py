"""A request in the JSON each wire wants."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream.wire import chat, messages, responses
from sidestream.wire._json import dumps, loads
from sidestream.wire.prompt import Request
from streams import WIRES

JSON = dict[str, Any]
USER = {"role": "user", "content": "hi"}
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}}
CHAT_TOOL = {"type": "function", "function": FUNCTION}
RESPONSES_TOOL = {"type": "function", **FUNCTION}
MESSAGES_TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
SCHEMA = {"name": "s", "schema": {"type": "object"}, "strict": True}
every = pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES)


def request(*, instructions: str = "", tools: tuple[JSON, ...] = (), **params: Any) -> Request:
    return Request((USER,), instructions, tools, params)


def test_smallest_bodies() -> None:
    """Without settings a body holds what the wire needs to stream, and nothing else."""
    assert responses.encode(request(), "m") == {"model": "m", "stream": True, "store": False, "input": [USER]}
    assert chat.encode(request(), "m") == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [USER],
    }
    assert messages.encode(request(), "m") == {
        "model": "m",
        "stream": True,
        "max_tokens": messages.DEFAULT_MAX_TOKENS,
        "messages": [USER],
    }


def test_instructions_go_where_the_wire_has_them() -> None:
    """Responses and Messages have a field for instructions, chat a first system message."""
    assert messages.encode(request(instructions="be brief"), "m")["system"] == "be brief"
    assert responses.encode(request(instructions="be brief"), "m")["instructions"] == "be brief"
    turns = chat.encode(request(instructions="be brief"), "m")["messages"]
    assert turns == [{"role": "system", "content": "be brief"}, USER]


@pytest.mark.parametrize(
    "tool", [CHAT_TOOL, RESPONSES_TOOL, MESSAGES_TOOL], ids=["chat", "responses", "messages"]
)
def test_tools_are_taken_in_any_form(tool: JSON) -> None:
    """A function tool is written in the form of the wire, whichever form it came in."""
    assert messages.encode(request(tools=(tool,)), "m")["tools"] == [MESSAGES_TOOL]
    assert responses.encode(request(tools=(tool,)), "m")["tools"] == [RESPONSES_TOOL]
    assert chat.encode(request(tools=(tool,)), "m")["tools"] == [CHAT_TOOL]


@every
def test_other_tools_pass_as_they_are(wire: Any) -> None:
    """Hosted and custom tools are the provider's business."""
    tool = {"type": "web_search", "filters": {}}
    assert wire.encode(request(tools=(tool,)), "m")["tools"] == [tool]


@pytest.mark.parametrize(
    ("given_format", "text"),
    [
        ({"type": "json_schema", "json_schema": SCHEMA}, {"format": {"type": "json_schema", **SCHEMA}}),
        ({"type": "json_object"}, {"format": {"type": "json_object"}}),
        ({"type": "text"}, {"format": {"type": "text"}}),
    ],
)
def test_response_format_becomes_text_format(given_format: JSON, text: JSON) -> None:
    """Chat's response_format is Responses' text.format; chat keeps it."""
    assert responses.encode(request(response_format=given_format), "m")["text"] == text
    assert chat.encode(request(response_format=given_format), "m")["response_format"] == given_format


@pytest.mark.parametrize("order", [("text", "response_format"), ("response_format", "text")])
def test_response_format_keeps_other_text_settings(order: tuple[str, str]) -> None:
    """`text` and `response_format` given together both count, in whichever order."""
    values = {"text": {"verbosity": "low"}, "response_format": {"type": "json_object"}}
    body = responses.encode(request(**{name: values[name] for name in order}), "m")
    assert body["text"] == {"verbosity": "low", "format": {"type": "json_object"}}
    assert "response_format" not in body


@pytest.mark.parametrize(
    ("choice", "there"),
    [
        ("auto", "auto"),
        ("required", "required"),
        ({"type": "function", "function": {"name": "f"}}, {"type": "function", "name": "f"}),
        ({"type": "function", "name": "f"}, {"type": "function", "name": "f"}),
        ({"type": "web_search"}, {"type": "web_search"}),
        ({"type": "tool", "name": "f"}, {"type": "function", "name": "f"}),
        ({"type": "any"}, "required"),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto"),
        ({"type": "none"}, "none"),
    ],
)
def test_tool_choice_of_chat_is_understood_by_responses(choice: object, there: object) -> None:
    """A forced function is written flat on the Responses wire."""
    assert responses.encode(request(tool_choice=choice), "m")["tool_choice"] == there


@pytest.mark.parametrize(
    ("choice", "there"),
    [
        ("auto", "auto"),
        ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "any"}, "required"),
    ],
)
def test_tool_choice_of_responses_is_understood_by_chat(choice: object, there: object) -> None:
    """A forced function is nested on the chat wire."""
    assert chat.encode(request(tool_choice=choice), "m")["tool_choice"] == there


@pytest.mark.parametrize(
    ("choice", "there"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ("any", {"type": "any"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
        ({"type": "function", "name": "f"}, {"type": "tool", "name": "f"}),
        ({"type": "custom", "custom": {"name": "f"}}, {"type": "tool", "name": "f"}),
        ({"type": "tool", "name": "f"}, {"type": "tool", "name": "f"}),
        ({"type": "any"}, {"type": "any"}),
    ],
)
def test_every_tool_choice_is_understood_by_messages(choice: object, there: object) -> None:
    """There it is an object, and one call at a time is part of it."""
    tools = (CHAT_TOOL,)
    assert messages.encode(request(tools=tools, tool_choice=choice), "m")["tool_choice"] == there
    body = messages.encode(request(tools=tools, tool_choice=choice, parallel_tool_calls=False), "m")
    alone = {} if there == {"type": "none"} else {"disable_parallel_tool_use": True}
    assert body["tool_choice"] == {**there, **alone}  # type: ignore[dict-item]
    assert "parallel_tool_calls" not in body


def test_a_tool_choice_without_tools_is_left_out_of_messages() -> None:
    """The wire refuses one; nor does it know how many calls come at a time without tools."""
    body = messages.encode(request(tool_choice="auto", parallel_tool_calls=True), "m")
    assert not {"tool_choice", "parallel_tool_calls", "tools"} & set(body)
    body = messages.encode(request(tools=(CHAT_TOOL,), parallel_tool_calls=False), "m")
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


@pytest.mark.parametrize("name", ["max_tokens", "max_output_tokens", "max_completion_tokens"])
def test_messages_always_have_an_output_limit(name: str) -> None:
    """By whatever name the caller gives it; without one, room for an answer behind the thinking."""
    body = messages.encode(request(**{name: 5}), "m")
    assert body["max_tokens"] == 5
    assert not {"max_output_tokens", "max_completion_tokens"} & set(body)
    assert messages.encode(request(**{name: None}), "m")["max_tokens"] == messages.DEFAULT_MAX_TOKENS
    thinking = {"type": "enabled", "budget_tokens": 10_000}
    body = messages.encode(request(thinking=thinking), "m")
    assert (body["max_tokens"], body["thinking"]) == (10_000 + messages.DEFAULT_MAX_TOKENS, thinking)


def test_messages_leave_out_what_the_wire_does_not_know() -> None:
    """Settings of other wires would be refused; its own pass."""
    foreign = {
        "n": 2, "seed": 1, "store": True, "include": ["x"], "background": True, "stream_options": {},
        "response_format": {"type": "json_object"}, "text": {"verbosity": "low"}, "truncation": "auto",
        "reasoning": {"effort": "low"}, "reasoning_effort": "low",
    }  # fmt: skip
    own = {
        "top_k": 5,
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
        "output_config": {"effort": "low"},
    }
    plain = messages.encode(request(), "m")
    assert messages.encode(request(**foreign, **own), "m") == {**plain, **own}


@pytest.mark.parametrize(("stop", "there"), [("x", ["x"]), (["x", "y"], ["x", "y"]), (None, None)])
def test_stop_is_a_list_of_sequences_on_messages(stop: object, there: object) -> None:
    """And on chat what chat calls it, whichever name it came by."""
    assert messages.encode(request(stop=stop), "m").get("stop_sequences") == there
    assert messages.encode(request(stop_sequences=stop), "m").get("stop_sequences") in (there, stop)
    assert chat.encode(request(stop_sequences=stop), "m")["stop"] == stop
    assert not {"stop", "stop_sequences"} & set(responses.encode(request(stop_sequences=stop), "m"))


CACHED = {"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}


def test_the_systems_words_come_together_on_messages() -> None:
    """Instructions, the wire's own field and system messages are one; blocks stay blocks."""
    asked = Request(
        ({"role": "system", "content": "a"}, USER, {"role": "developer", "content": "b"}),
        "i",
        (),
        {"system": "s"},
    )
    body = messages.encode(asked, "m")
    assert (body["system"], body["messages"]) == ("i\n\ns\n\na\n\nb", [USER])
    body = messages.encode(request(instructions="i", system=[CACHED]), "m")
    assert body["system"] == [{"type": "text", "text": "i"}, CACHED]
    assert "system" not in messages.encode(request(system=None), "m")


def test_the_messages_wires_own_system_field_travels() -> None:
    """A call that moves to another wire keeps it."""
    turns = chat.encode(request(instructions="i", system=[CACHED]), "m")
    assert turns["messages"][0] == {"role": "system", "content": "i\n\nbe brief"}
    assert responses.encode(request(system="s"), "m")["instructions"] == "s"
    assert "system" not in turns


def test_parameters_take_the_name_of_the_wire() -> None:
    """Chat knows max_tokens and reasoning_effort; what it does not know is left out."""
    body = chat.encode(
        request(
            max_output_tokens=5, reasoning={"effort": "low"}, store=True, include=["x"], truncation="auto"
        ),
        "m",
    )
    assert (body["max_tokens"], body["reasoning_effort"]) == (5, "low")
    assert not {"max_output_tokens", "reasoning", "store", "include", "truncation"} & set(body)
    body = responses.encode(
        request(max_output_tokens=5, reasoning={"effort": "low"}, n=2, stop="x", seed=1), "m"
    )
    assert (body["max_output_tokens"], body["reasoning"]) == (5, {"effort": "low"})
    assert not {"n", "stop", "seed"} & set(body)


def test_chat_parameters_take_the_name_of_the_responses_wire() -> None:
    """Responses knows max_output_tokens and reasoning.effort, whatever the caller called them."""
    body = responses.encode(request(max_tokens=5, reasoning_effort="low"), "m")
    assert (body["max_output_tokens"], body["reasoning"]) == (5, {"effort": "low"})
    assert not {"max_tokens", "reasoning_effort"} & set(body)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ({"verbosity": "low"}, {"verbosity": "low"}),
        ({"format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
        (
            {"format": {"type": "json_schema", **SCHEMA}},
            {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
        ),
    ],
)
def test_text_settings_of_responses_are_understood_by_chat(text: JSON, fields: JSON) -> None:
    """Responses' text.format is chat's response_format, and its verbosity a field of its own."""
    body = chat.encode(request(text=text), "m")
    assert {name: body[name] for name in fields} == fields
    assert "text" not in body


@every
def test_renamed_fields_are_known_by_their_parameters(wire: Any) -> None:
    """For each renamed field the table says which parameters make it: a rejected one can be dropped."""
    values = {"text": {"verbosity": "low", "format": {"type": "json_object"}}, "reasoning": {"effort": "low"}}
    for field, params in wire.RENAMED.items():
        for param in params:
            body = wire.encode(request(**{param: values.get(param, "low")}), "m")
            assert field in body
            assert param not in body


@every
@given(
    value=st.dictionaries(st.text(max_size=5), st.integers(-(2**53), 2**53) | st.text(max_size=5), max_size=3)
)
def test_unknown_parameters_pass_unchanged(wire: Any, value: JSON) -> None:
    """A field nobody here has heard of reaches the provider as it was given, as JSON."""
    body = wire.encode(request(new_field=value), "m")
    assert loads(dumps(body))["new_field"] == value


@every
def test_caller_may_overrule_the_defaults(wire: Any) -> None:
    """`store` and `stream_options` are the caller's where the wire has them."""
    body = wire.encode(request(metadata={"a": "b"}, temperature=0), "m")
    assert (body["metadata"], body["temperature"]) == ({"a": "b"}, 0)
    assert responses.encode(request(store=True), "m")["store"] is True
    assert chat.encode(request(stream_options={"x": 1}), "m")["stream_options"] == {"x": 1}


def test_a_route_that_needs_instructions_gets_them() -> None:
    """Where `instructions` is a field of the route, it stands in for none; the system speaks there only."""
    turns = ({"role": "system", "content": "a"}, USER, {"role": "developer", "content": [{"text": "b"}]})
    body = responses.encode(Request((USER,), "", (), {"instructions": "Answer."}), "m")
    assert (body["instructions"], body["input"]) == ("Answer.", [USER])
    body = responses.encode(Request(turns, "", (), {"instructions": "Answer."}), "m")
    assert (body["instructions"], body["input"]) == ("a\n\nb", [USER])
    body = responses.encode(Request(turns, "i", (), {"instructions": "Answer."}), "m")
    assert (body["instructions"], body["input"]) == ("i\n\na\n\nb", [USER])
    body = responses.encode(Request(turns[:1], "", (), {"instructions": "Answer."}), "m")
    assert (body["instructions"], body["input"]) == ("a", [{"role": "user", "content": ""}])
