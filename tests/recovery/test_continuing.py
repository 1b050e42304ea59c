"""How a model is asked to go on: the request that is sent, and when none is."""

import re
from typing import Any, get_args

import pytest
from hands import broke, cut, drive, whole
from hypothesis import given
from hypothesis import strategies as st

from sidestream.assembler import Assembler, Loose
from sidestream.recovery.continuing import (
    CHAT_ONLY,
    OUTPUT_LIMITS,
    PREFILLS,
    anchored,
    continued,
    hindrance,
    prefilled,
    reasons_first,
    ways,
)
from sidestream.recovery.exchange import WIRES
from sidestream.recovery.faults import FaultKind
from sidestream.recovery.flow import Call
from sidestream.recovery.rungs import Ways
from sidestream.recovery.seam import Anchor
from sidestream.route import Continuation, Route
from sidestream.wire.events import ItemDone, ItemStarted, TextDelta
from sidestream.wire.prompt import Request
from streams import named, tool

SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "What of the lamp?"}
PARTIAL = "The lamp was lit at dusk and the wind came from the we"
ANCHOR = Anchor("and the wind came from the we", "")
OPEN = Loose(0, 0, PARTIAL, PARTIAL, (), (), "")
WIRE_NAMES = ("chat", "responses", "messages")
# wire -> where its turns stand, and its output limit
FIELDS = {
    "chat": ("messages", "max_tokens"),
    "responses": ("input", "max_output_tokens"),
    "messages": ("messages", "max_tokens"),
}


def request(*tools: dict[str, Any], **params: Any) -> Request:
    return Request((SYSTEM, QUESTION), instructions="You keep a light.", tools=tools, params=params)


def body(asked: Request, wire: str) -> dict[str, Any]:
    encoded: dict[str, Any] = WIRES[wire].encode(asked, "m")
    return encoded


def turns(asked: Request, wire: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = body(asked, wire)[FIELDS[wire][0]]
    return found


def words(turn: dict[str, Any]) -> str:
    content = turn["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


# Prefill.

# form -> what stands on the last turn, and in the body
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "trailing": ({}, {}),
    "prefix": ({"prefix": True}, {}),
    "prefix_echoed": ({"prefix": True}, {}),
    "partial": ({"partial": True}, {}),
    "continue_final_message": ({}, {"continue_final_message": True, "add_generation_prompt": False}),
}


def test_every_form_of_a_route_is_known() -> None:
    """What a route may say about continuing is a prefill in this table, an anchor, or nothing."""
    assert set(get_args(Continuation)) == {*FORMS, "anchor", "none"}
    assert set(PREFILLS) == set(FORMS)
    assert {"prefix", "prefix_echoed", "partial"} == CHAT_ONLY


@pytest.mark.parametrize("form", FORMS)
def test_a_prefill_ends_with_the_marked_partial(form: str) -> None:
    """The caller's request, and behind it the answer so far as the assistant's turn, marked by the form."""
    marks, needed = FORMS[form]
    asked = prefilled(request(temperature=0), OPEN, PARTIAL, form)
    assert turns(asked, "chat")[:-1] == turns(request(), "chat")
    assert turns(asked, "chat")[-1] == {"role": "assistant", "content": PARTIAL, **marks}
    before, after = body(request(temperature=0), "chat"), body(asked, "chat")
    assert {name: after[name] for name in after if name != "messages"} == {
        **{name: before[name] for name in before if name != "messages"},
        **needed,
    }


@pytest.mark.parametrize("form", sorted(set(FORMS) - CHAT_ONLY))
def test_a_prefill_on_the_responses_wire(form: str) -> None:
    """There the assistant's turn is an item in its long form, without an id."""
    asked = prefilled(request(), OPEN, PARTIAL, form)
    *_, last = turns(asked, "responses")
    text = {"type": "output_text", "text": PARTIAL, "annotations": []}
    assert last == {"type": "message", "role": "assistant", "status": "completed", "content": [text]}
    assert body(asked, "responses").items() >= FORMS[form][1].items()


def test_a_prefill_on_the_messages_wire() -> None:
    """There it is the assistant's turn as it was said, and nothing else changes."""
    asked = prefilled(request(temperature=0), OPEN, PARTIAL, "trailing")
    before, after = body(request(temperature=0), "messages"), body(asked, "messages")
    turn = {"role": "assistant", "content": PARTIAL}
    assert after == {**before, "messages": [*before["messages"], turn]}


@pytest.mark.parametrize("live", [True, False])
def test_a_prefill_never_ends_in_white_space(live: bool) -> None:
    """An endpoint of the Messages wire refuses that: what was said at the end is compared, not sent."""
    asked, _ = continued(
        broken("The lamp was lit. \n\n"), request(), route("trailing", "messages"), "prefill", live=live
    )
    assert turns(asked, "messages")[-1]["content"] == "The lamp was lit."


def test_blocks_that_were_finished_stand_before_the_open_one() -> None:
    """Text blocks of one answer are one turn, the last of which goes on."""
    assembler = Assembler()
    for event in (
        ItemStarted(0, {"type": "message", "role": "assistant"}), TextDelta("The lamp was lit. ", 0),
        ItemDone(0, {"type": "message", "content": [{"type": "output_text", "text": "The lamp was lit. "}]}),
        ItemStarted(1, {"type": "message", "role": "assistant"}), TextDelta("The wind ro", 1),
    ):  # fmt: skip
        assembler.push(event)
    asked, _ = continued(assembler, request(), route("trailing", "messages"), "prefill", live=True)
    (question, answer) = turns(asked, "messages")
    assert [part["text"] for part in answer["content"]] == ["The lamp was lit. ", "The wind ro"]
    assert (question["role"], answer["role"]) == ("user", "assistant")


# Anchor.

# What models take for an attack, or for a change of what they may do.
FORBIDDEN = (
    "transport", "notice", "system", "instruct", "override", "ignore", "disregard", "prompt", "assistant",
    "developer", "policy", "must", "important", "warning", "error", "token", "api", "comply", "cut off",
)  # fmt: skip


@pytest.mark.parametrize("wire", WIRE_NAMES)
@pytest.mark.parametrize("tools", [(), (tool("look"),)], ids=["no tools", "tools"])
def test_the_user_asks_for_the_rest(wire: str, tools: tuple[dict[str, Any], ...]) -> None:
    """The partial and a user's turn that quotes its last words are added, and nothing else changes."""
    before, asked = request(*tools, temperature=0), anchored(request(*tools, temperature=0), OPEN, ANCHOR)
    *earlier, partial, ask = turns(asked, wire)
    assert earlier == turns(before, wire)
    assert (partial["role"], words(partial)) == ("assistant", PARTIAL)
    assert ask["role"] == "user"
    assert [line for line in words(ask).splitlines() if ANCHOR.text in line] == [
        f"<last_words>{ANCHOR.text}</last_words>"
    ]
    name, _ = FIELDS[wire]
    assert {**body(asked, wire), name: 0} == {**body(before, wire), name: 0}
    assert ("tools are still there" in words(ask)) is bool(tools)


def test_the_request_for_the_rest_reads_like_a_user() -> None:
    """It has no word that models take for an attack or for a new rule."""
    ask = words(anchored(request(tool("look")), OPEN, ANCHOR).messages[-1]).lower()
    assert not [word for word in FORBIDDEN if re.search(rf"\b{word}", ask)]


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("the last words", "last_words"),
        ("  two spaces, {braces} and\na line \\n", "last_words"),
        ("<last_words> opened only", "last_words"),
        ("closed </last_words> here", "last_words_2"),
        ("</last_words></last_words_2> and <last_words_3>", "last_words_3"),
        ("ends with </last_words", "last_words"),
    ],
)
def test_the_quotation_is_exact_and_ends_where_it_should(text: str, tag: str) -> None:
    """Whatever the words hold, the first closing tag is the quotation's own, and they stand alone."""
    ask = words(anchored(request(), OPEN, Anchor(text, "")).messages[-1])
    assert ask.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0] == text
    assert ask.count("\n\n") >= 2


def test_white_space_at_the_end_is_not_sent() -> None:
    """The partial ends with the quoted words; the white space after them is compared, not asked for."""
    loose = Loose(0, 0, PARTIAL + " \n", "Before. " + PARTIAL + " \n", (), (), "")
    asked = anchored(request(), loose, Anchor(ANCHOR.text, " \n"))
    assert words(asked.messages[-2]) == "Before. " + PARTIAL


# Codex and other backends that keep nothing.


def codex(phase: str = "") -> Assembler:
    """An answer that broke off there: commentary that was finished, and a message that was not."""
    aside = {"id": "msg_0", "type": "message", "role": "assistant", "phase": "commentary"}
    part = {"type": "output_text", "text": "Let me look.", "annotations": []}
    opened = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        **({"phase": phase} if phase else {}),
    }
    assembler = Assembler()
    for event in (
        ItemStarted(0, {"id": "rs_0", "type": "reasoning", "summary": []}),
        ItemDone(0, {"id": "rs_0", "type": "reasoning", "summary": [], "encrypted_content": "x"}),
        ItemStarted(1, aside), TextDelta("Let me look.", 1), ItemDone(1, {**aside, "content": [part]}),
        ItemStarted(2, opened), TextDelta(PARTIAL, 2),
    ):  # fmt: skip
        assembler.push(event)
    return assembler


def route(form: Continuation | None, wire: str = "chat", **settings: Any) -> Route:
    return Route("http://127.0.0.1:1/v1", "m", wire, name="main", continuation=form, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", ["", "final_answer"])
def test_a_backend_that_stores_nothing_gets_all_it_needs(phase: str) -> None:
    """Instructions stay, nothing is stored, no item has an id or is reasoning, and phases are kept."""
    asked, _ = continued(
        codex(phase), request(tool("look")), route("anchor", "responses"), "anchor", live=True
    )
    sent = body(asked, "responses")
    assert (sent["instructions"], sent["store"], sent["stream"]) == ("You keep a light.", False, True)
    assert [entry["name"] for entry in sent["tools"]] == ["look"]
    assert not any("id" in entry or entry.get("type") == "reasoning" for entry in sent["input"])
    assert "previous_response_id" not in sent
    *_, aside, partial, ask = sent["input"]
    assert (aside["phase"], words(aside)) == ("commentary", "Let me look.")
    assert (partial.get("phase", ""), words(partial)) == (phase, PARTIAL)
    assert partial.keys() - {"phase"} == {"type", "role", "status", "content"}
    assert (ask["role"], ask.keys()) == ("user", {"role", "content"})


def test_the_same_answer_goes_on_over_chat() -> None:
    """A route with another wire gets the same turns in its own shape, without phases."""
    asked, _ = continued(codex("final_answer"), request(), route("anchor"), "anchor", live=True)
    *_, aside, partial, ask = turns(asked, "chat")
    assert [turn.keys() for turn in (aside, partial, ask)] == [{"role", "content"}] * 3
    assert (words(aside), words(partial)) == ("Let me look.", PARTIAL)


# What may be continued at all.

HINDRANCES: dict[str, tuple[Request, str]] = {
    "plain": (request(temperature=0, tool_choice="auto"), ""),
    "tools": (request(tool("look")), ""),
    "tool choice none": (request(tool("look"), tool_choice="none"), ""),
    "one answer": (request(n=1), ""),
    "text layout": (request(response_format={"type": "text"}, text={"format": {"type": "text"}}), ""),
    "verbosity": (request(text={"verbosity": "low"}), ""),
    "several answers": (request(n=2), "several answers were asked for"),
    "tool demanded": (request(tool("look"), tool_choice="required"), "a tool call was demanded"),
    "any tool demanded": (request(tool("look"), tool_choice="any"), "a tool call was demanded"),
    "this tool": (
        request(tool("look"), tool_choice={"type": "function", "function": {"name": "look"}}),
        "a tool call was demanded",
    ),
    "this tool, on the Messages wire": (
        request(tool("look"), tool_choice={"type": "tool", "name": "look"}),
        "a tool call was demanded",
    ),
    "any tool, on the Messages wire": (
        request(tool("look"), tool_choice={"type": "any"}),
        "a tool call was demanded",
    ),
    "automatic, on the Messages wire": (request(tool("look"), tool_choice={"type": "auto"}), ""),
    "no tool, on the Messages wire": (request(tool("look"), tool_choice={"type": "none"}), ""),
    "a schema, on the Messages wire": (
        request(output_config={"format": {"type": "json_schema", "schema": {}}}),
        "structured output was asked for",
    ),
    "effort, on the Messages wire": (request(output_config={"effort": "low"}), ""),
    "json": (request(response_format={"type": "json_object"}), "structured output was asked for"),
    "chat schema": (
        request(response_format={"type": "json_schema", "json_schema": {}}),
        "structured output was asked for",
    ),
    "responses schema": (
        request(text={"format": {"type": "json_schema", "schema": {}}}),
        "structured output was asked for",
    ),
    **{
        name: (request(**{name: {}}), "structured output was asked for")
        for name in (
            "guided_json",
            "guided_regex",
            "guided_grammar",
            "structured_outputs",
            "grammar",
            "format",
        )
    },
}


@pytest.mark.parametrize("name", HINDRANCES)
def test_what_a_request_stands_in_the_way_of(name: str) -> None:
    """Only free text has a rest that can be asked for: no schema, no demanded call, no second answer."""
    asked, why = HINDRANCES[name]
    assert hindrance(asked) == why
    for form in get_args(Continuation):
        found = ways(codex(), asked, route(form), {"anchor": "", "prefill": ""}, live=True)
        assert why in ("", found.anchor) or form == "none"
        assert why in ("", found.prefill) or form == "none"


@pytest.mark.parametrize(
    ("params", "reasons"),
    [
        ({}, False),
        ({"reasoning_effort": "high"}, True),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning": {"effort": "low"}}, True),
        ({"reasoning": {"effort": "none"}}, False),
        ({"thinking": {"type": "enabled"}}, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"thinking": {}}, False),
        ({"enable_thinking": True}, True),
        ({"enable_thinking": False}, False),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
    ],
)
def test_whether_a_request_asks_for_reasoning(params: dict[str, Any], reasons: bool) -> None:
    """Some endpoints take no prefill while the model reasons: then an anchor is asked for."""
    asked = request(**params)
    assert reasons_first(asked) is reasons
    found = ways(codex(), asked, route("trailing", prefill_thinking=False), CLOSED, live=True)
    why = "this route takes no prefilled turn while the model reasons" if reasons else ""
    assert found == Ways(why, "")


CLOSED = {"anchor": "", "prefill": ""}
NO_PREFILL = "this route takes no prefilled turn"


def broken(text: str) -> Assembler:
    assembler = Assembler()
    assembler.push(ItemStarted(0, {"type": "message", "role": "assistant"}))
    assembler.push(TextDelta(text))
    return assembler


@pytest.mark.parametrize(
    ("text", "form", "wire", "live", "prefill", "anchor"),
    [
        (PARTIAL, "prefix", "chat", True, "", ""),
        (PARTIAL, "trailing", "responses", True, "", ""),
        (PARTIAL, "prefix", "responses", True, NO_PREFILL, ""),
        (PARTIAL, "trailing", "messages", True, "", ""),
        (PARTIAL, "prefix", "messages", True, NO_PREFILL, ""),
        (PARTIAL, "anchor", "chat", True, NO_PREFILL, ""),
        (PARTIAL, "none", "chat", True, Ways().prefill, Ways().anchor),
        (PARTIAL, None, "chat", True, Ways().prefill, Ways().anchor),
        ("Wor", "prefix", "chat", True, "", "too little has arrived to quote"),
        (
            "\n\nWor",
            "prefix",
            "chat",
            False,
            "not one whole word has arrived",
            "too little has arrived to quote",
        ),
        (
            "\n\n",
            "prefix",
            "chat",
            True,
            "no text of the answer had begun",
            "no text of the answer had begun",
        ),
        ("ha " * 200, "prefix", "chat", True, "", "what arrived repeats itself: no last words stand out"),
    ],
)
def test_the_ways_to_go_on(text: str, form: Any, wire: str, live: bool, prefill: str, anchor: str) -> None:
    """The route says what it takes, and what arrived says whether that is enough."""
    assert ways(broken(text), request(), route(form, wire), CLOSED, live=live) == Ways(prefill, anchor)


def test_what_a_call_has_found_closed_stays_closed() -> None:
    """A way that was refused or did not join is not gone again; without an answer there is none."""
    closed = {"anchor": "it did not join", "prefill": "it was refused"}
    assert ways(broken(PARTIAL), request(), route("prefix"), closed, live=True) == Ways(
        "it was refused", "it did not join"
    )
    assert (
        ways(None, request(), route("prefix"), CLOSED, live=True).anchor
        == "nothing of the answer has arrived"
    )


@pytest.mark.parametrize(
    ("live", "how", "sent", "stays"),
    [
        (True, "prefill", "One two three fou", "One two three fou \n"),
        (False, "prefill", "One two three fou", "One two three fou"),
        (True, "anchor", "One two three fou", "One two three fou \n"),
        (False, "anchor", "One two three fou", "One two three fou"),
    ],
)
def test_what_a_consumer_has_seen_stays(live: bool, how: str, sent: str, stays: str) -> None:
    """White space that was delivered is not sent and not taken back; of a held answer it is written again."""
    assembler = broken("One two three fou \n")
    asked, _ = continued(assembler, request(), route("trailing"), how, live=live)
    assert words(asked.messages[-1 if how == "prefill" else -2]) == sent
    assert assembler.reply("dropped").text == stays


def test_half_a_word_that_nobody_has_seen_is_written_again() -> None:
    """A held partial is prefilled up to its last whole word, where a model goes on most naturally."""
    for live, sent in ((True, PARTIAL), (False, PARTIAL.removesuffix(" we"))):
        assembler = broken(PARTIAL)
        asked, _ = continued(assembler, request(), route("prefix"), "prefill", live=live)
        assert words(asked.messages[-1]) == assembler.reply("dropped").text == sent


# Output limits.


@pytest.mark.parametrize("name", OUTPUT_LIMITS)
@given(limit=st.integers(0, 10**6), characters=st.integers(1, 10**5), deltas=st.integers(1, 10**5))
def test_the_output_limit_shrinks_by_what_arrived(
    name: str, limit: int, characters: int, deltas: int
) -> None:
    """A continuation gets what is left of the limit, never more than that, and enough to say an end."""
    text = "x" * characters
    loose = Loose(0, 0, text, text, (), (), "", min(deltas, characters))
    arrived = max(loose.deltas, characters // 6)
    left = max(16, limit - arrived)
    asked = prefilled(request(**{name: limit}), loose, text, "prefix")
    assert asked.params[name] == min(limit, left)
    asked = anchored(request(**{name: limit}), loose, Anchor(text[-20:], ""))
    assert asked.params[name] == min(limit, left + len(text[-20:]) // 2)


@pytest.mark.parametrize("limit", [None, True, "100", 1.5])
def test_a_limit_that_is_no_number_of_tokens_is_left_alone(limit: object) -> None:
    """What cannot be counted down is sent as it was given, and nothing is added where none was given."""
    assert prefilled(request(max_tokens=limit), OPEN, PARTIAL, "prefix").params == {"max_tokens": limit}
    assert anchored(request(), OPEN, ANCHOR).params == {}


@given(limit=st.integers(2000, 10**5), characters=st.integers(1, 10**5))
def test_the_output_limit_stays_above_the_budget_for_thinking(limit: int, characters: int) -> None:
    """A request whose limit is not above that budget is refused."""
    text = "x" * characters
    loose = Loose(0, 0, text, text, (), (), "", 1)
    thinking = {"type": "enabled", "budget_tokens": 1024}
    asked = anchored(request(max_tokens=limit, thinking=thinking), loose, Anchor(text[-20:], ""))
    assert 1024 < asked.params["max_tokens"] <= limit


# In a whole call.


@pytest.mark.parametrize("wire", WIRE_NAMES)
def test_a_second_continuation_starts_from_the_callers_request(wire: str) -> None:
    """However often an answer breaks, the request has one partial, one ask, and a limit shrunk once."""
    stream = named(f"{wire}/plain-text")
    half = cut(stream, stream.verdict["end"] * (12 if wire == "messages" else 10) // 15)
    call = Call(request(max_tokens=5000), (route("anchor", wire),), live=True)
    story = drive(call, [half, broke(FaultKind.CONNECT), whole(stream)])
    assert [rung for _, rung, _ in story.ledger][1] == "anchor"
    for sent in story.bodies[1:3]:
        field, limit = FIELDS[wire]
        entries = sent[field]
        assert [entry["role"] for entry in entries[-3:]] == ["user", "assistant", "user"]
        assert 4000 < sent[limit] <= 5000
