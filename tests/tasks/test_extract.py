"""Facts in the shape that was asked for: over the lab's sockets, and the check by itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ways import at, both, do, saying

from sidestream import InvalidAnswer, StreamDropped, UsageError
from sidestream.lab import Fault, Lab, Plan, Request, Script, script
from sidestream.routes.config import TaskConfig
from sidestream.tasks import aextract, extract
from sidestream.tasks.asking import run
from sidestream.tasks.shape import found, shape_of

PAIR = (extract, aextract)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "year": {"type": ["integer", "null"]}},
    "required": ["name", "year"],
    "additionalProperties": False,
}
GOOD = '{"name": "Ada", "year": 1815}'
ADA = {"name": "Ada", "year": 1815}
TEXT = "Ada was born in 1815."


@both
@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        f"```json\n{GOOD}\n```",
        f"Here it is:\n```\n{GOOD}\n```\nAnything else?",
        f"Sure! {GOOD} That is all.",
        f'It is not {{this}}, nor {{"name": 7}}, but {GOOD}.',
    ],
    ids=["alone", "fence", "words around a fence", "words", "others before"],
)
def test_the_object_is_found_wherever_it_stands(way: str, answer: str) -> None:
    """JSON alone, in a code fence or among words is the answer, and asked for once."""
    with Lab(script.say(answer)) as lab:
        assert do(way, PAIR, TEXT, SCHEMA, client=at(lab)) == ADA
        (request,) = lab.requests
    body = request.json()
    wanted = body["response_format"]["json_schema"]
    assert wanted["schema"] == SCHEMA
    assert TEXT in body["messages"][-1]["content"]
    assert json.dumps(SCHEMA) in body["messages"][0]["content"]


@both
def test_a_wrong_shape_is_asked_for_once_more(way: str) -> None:
    """The model is told what is wrong, in the same conversation, and its second answer counts."""
    with Lab(saying('{"name": "Ada"}', GOOD)) as lab:
        assert do(way, PAIR, TEXT, SCHEMA, client=at(lab)) == ADA
        first, second = (request.json()["messages"] for request in lab.requests)
    assert second[: len(first)] == first
    assert second[-2] == {"role": "assistant", "content": '{"name": "Ada"}'}
    assert "has no 'year'" in second[-1]["content"]


@both
def test_a_shape_that_stays_wrong_is_an_error(way: str) -> None:
    """After the second wrong answer there is an error with what is wrong, the answer and both calls."""
    with (
        Lab(saying('{"name": 1, "year": 2}', "No.")) as lab,
        pytest.raises(InvalidAnswer, match="no JSON object") as caught,
    ):
        do(way, PAIR, TEXT, SCHEMA, client=at(lab))
    assert caught.value.reply is not None
    assert caught.value.reply.text == "No."
    assert len(caught.value.attempts) == len(lab.requests) == 2


@both
def test_a_failure_of_the_second_call_has_the_ledger_of_both(way: str) -> None:
    """Nothing of the first call is lost when the second one fails."""
    plan = Plan([None], rest=(Fault.cut(after_event=1),))
    with Lab(script.say("No."), plan=plan) as lab, pytest.raises(StreamDropped) as caught:
        do(way, PAIR, TEXT, SCHEMA, client=at(lab))
    assert len(caught.value.attempts) == len(lab.requests) == 3


@both
def test_both_calls_have_the_time_of_one(way: str) -> None:
    """The second call gets what the first has left; with nothing left it is not made."""
    late = iter([0.0, 99.0])

    def slow(client: Any, *args: Any, **options: Any) -> Any:
        from sidestream.tasks.asking import arun
        from sidestream.tasks.extract import _talk

        talk = _talk(client.task("extract"), TEXT, shape_of(SCHEMA), "")
        one = run if way == "sync" else arun
        return one(client, "extract", talk, {"timeout": 60}, clock=lambda: next(late))

    with Lab(script.say("No.")) as lab, pytest.raises(InvalidAnswer, match="no time is left") as caught:
        do(way, (slow, slow), client=at(lab))
    assert len(caught.value.attempts) == len(lab.requests) == 1


@both
@pytest.mark.parametrize("wire", ["chat", "responses"])
@pytest.mark.parametrize(
    "words",
    [
        "Unsupported parameter: 'response_format' is not supported with this model.",
        "This response_format type is unavailable now",
        "response_format.type: Input should be 'text' or 'json_object'",
    ],
)
def test_an_endpoint_without_schemas_is_asked_without(way: str, wire: str, words: str) -> None:
    """A rejected response_format is left out, at once and for the calls after this one."""
    refused = []

    def answer(request: Request) -> Script:
        if {"response_format", "text"} & set(request.fields()):
            refused.append(request.index)
            return script.problem(400, words)
        return script.say(GOOD)(request)

    def twice(client: Any, *args: Any) -> Any:
        return [extract(client, *args) for _ in range(2)]

    async def atwice(client: Any, *args: Any) -> Any:
        return [await aextract(client, *args) for _ in range(2)]

    with Lab(answer) as lab:
        assert do(way, (twice, atwice), TEXT, SCHEMA, client=at(lab, wire=wire)) == [ADA, ADA]
        assert len(lab.requests) == 3
    assert len(refused) == 1


@both
@pytest.mark.parametrize("wire", ["chat", "responses", "messages"])
def test_every_wire_gets_the_schema_in_its_form(way: str, wire: str) -> None:
    """Chat has response_format, Responses text.format, Messages the words alone."""
    with Lab(script.say(GOOD)) as lab:
        assert do(way, PAIR, TEXT, SCHEMA, client=at(lab, wire=wire)) == ADA
        body = lab.requests[0].json()
    schema = {
        "chat": lambda: body["response_format"]["json_schema"]["schema"],
        "responses": lambda: body["text"]["format"]["schema"],
        "messages": lambda: SCHEMA if not {"response_format", "text"} & set(body) else None,
    }[wire]()
    assert schema == SCHEMA


@both
def test_a_cut_answer_is_whole_in_the_end(way: str) -> None:
    """An answer that is cut in the middle is asked for anew, never read by half."""
    with Lab(script.say(GOOD), plan=Plan([Fault.cut(after_event=3)])) as lab:
        assert do(way, PAIR, TEXT, SCHEMA, client=at(lab)) == ADA
        assert len(lab.requests) == 2


@both
def test_a_conversation_is_shown_as_it_is(way: str) -> None:
    """Messages go along as they are, and the question comes last."""
    talk = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "Indeed."}]
    with Lab(script.say(GOOD)) as lab:
        do(way, PAIR, talk, SCHEMA, client=at(lab), instructions="Only people.")
        messages = lab.requests[0].json()["messages"]
    assert messages[1:3] == talk
    assert "JSON" in messages[-1]["content"]
    assert "Only people." in messages[0]["content"]


@both
def test_the_configuration_of_the_task_counts(way: str) -> None:
    """Its own response_format is not replaced, and its instructions stand in for ours."""
    said = TaskConfig(instructions="Find people.", params={"response_format": {"type": "json_object"}})
    with Lab(script.say(GOOD)) as lab:
        do(way, PAIR, TEXT, SCHEMA, client=at(lab, tasks={"people": said}), task="people")
        body = lab.requests[0].json()
    assert body["response_format"] == {"type": "json_object"}
    assert body["messages"][0]["content"].startswith("Find people.")


# Shapes.


@dataclass
class Person:
    name: str
    year: int | None = None


class Row(TypedDict):
    name: str
    year: int


class Tree(msgspec.Struct):
    name: str
    below: list[Tree] = []


class Model:
    """What a pydantic model looks like from outside."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return SCHEMA

    @classmethod
    def model_validate(cls, value: Any) -> Model:
        if set(value) != {"name", "year"}:
            raise ValueError("2 validation errors\n  for Model")
        return cls(**value)


def test_types_are_shapes() -> None:
    """A dataclass, a TypedDict, a Struct and a pydantic model give their schema and take their value."""
    assert shape_of(Person).fit(ADA) == Person("Ada", 1815)
    assert shape_of(Row).fit(ADA) == ADA
    tree = {"name": "a", "below": [{"name": "b", "below": []}]}
    assert shape_of(Tree).fit(tree).below[0].name == "b"
    assert shape_of(Tree).schema["$defs"]["Tree"]
    assert shape_of(Model).fit(ADA).values == ADA
    for kind in (Person, Row, Tree, Model):
        assert shape_of(kind).schema["type"] == "object"
        with pytest.raises(ValueError, match=r"."):
            shape_of(kind).fit({"below": 1})


@both
def test_a_type_is_what_comes_back(way: str) -> None:
    """Asked for a type, an instance of it is the answer."""
    with Lab(saying('{"name": null}', GOOD)) as lab:
        assert do(way, PAIR, TEXT, Person, client=at(lab)) == Person("Ada", 1815)
        assert "Expected `str`, got `null`" in lab.requests[1].json()["messages"][-1]["content"]


@pytest.mark.parametrize("wanted", [list[str], int, {"type": "array"}, {}, object(), "name", Lab])
def test_what_is_no_object_is_the_callers_mistake(wanted: Any) -> None:
    """Only objects are asked for: many endpoints take no other schema at the top."""
    with pytest.raises(UsageError) as caught:
        shape_of(wanted)
    assert "pydantic" in caught.value.hint


@pytest.mark.parametrize(
    ("schema", "value", "problem"),
    [
        ({"required": ["a"]}, {}, "the answer has no 'a'"),
        ({"properties": {"a": {"type": "integer"}}}, {"a": True}, "the answer.a is not of type integer"),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 2.0}, ""),
        ({"properties": {"a": {"enum": ["x", "y"]}}}, {"a": "z"}, 'the answer.a is none of ["x", "y"]'),
        ({"properties": {"a": {"const": 1}}}, {"a": 2}, "the answer.a is none of [1]"),
        ({"properties": {}, "additionalProperties": False}, {"b": 1}, "the answer.b must not be there"),
        ({"additionalProperties": {"type": "string"}}, {"b": 1}, "the answer.b is not of type string"),
        ({"properties": {"a": {"items": {"type": "null"}}}}, {"a": [None, 1]}, "the answer.a[1] is not of"),
        ({"properties": {"a": {"anyOf": [{"type": "null"}, {"const": 2}]}}}, {"a": 1}, "the answer.a fits"),
        ({"anyOf": [{}], "oneOf": [{"required": ["a"]}]}, {}, "the answer fits none of the 1 schemas"),
        ({"properties": {"a": {"enum": [1, 2], "const": 1}}}, {"a": 2}, "the answer.a is none of [1]"),
        ({"allOf": [{"required": ["a"]}]}, {}, "the answer has no 'a'"),
        ({"properties": {"a": {"$ref": "#/$defs/S"}}, "$defs": {"S": {"const": 2}}}, {"a": 1}, "the answer"),
        ({"properties": {"a": {"$ref": "elsewhere.json"}}}, {"a": 1}, ""),
        ({"$ref": "#"}, {}, ""),
        ({"properties": {"a": True}}, {"a": 1}, ""),
    ],
)  # fmt: skip
def test_a_schema_is_checked_lightly(schema: dict[str, Any], value: Any, problem: str) -> None:
    """Each keyword of the light check says where the value stands and what is wrong with it."""
    shape = shape_of({"type": "object", **schema})
    if not problem:
        assert shape.fit(value) == value
        return
    with pytest.raises(ValueError, match=r".") as caught:
        shape.fit(value)
    assert str(caught.value).startswith(problem)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(st.dictionaries(st.text(max_size=4), JSONS, max_size=4), st.text(alphabet="ab \n.", max_size=20))
def test_any_object_is_found_among_words(value: dict[str, Any], words: str) -> None:
    """Whatever the object and the words around it, it is the first one found."""
    for text in (
        json.dumps(value),
        f"{words}{json.dumps(value)}{words}",
        f"```json\n{json.dumps(value)}\n```",
    ):
        assert next(found(text)) == value


@pytest.mark.parametrize("text", ["```{}```" * 200, "{} " * 200, "```json\n{}\n```\n{} " * 200])
def test_an_answer_is_searched_in_so_many_places(text: str) -> None:
    """Fences and words alike count against one limit."""
    assert len(list(found(text))) <= 50


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "```" + "a" * 200_000,
        "``` " * 50_000,
        "{" * 100_000,
        "[" * 100_000 + "{",
        '{"a":' * 100_000,
        "{a: 1}",
    ],
)
def test_nonsense_holds_no_object(text: str) -> None:
    """However deep or broken: nothing is found, and nothing breaks."""
    assert list(found(text)) == []
