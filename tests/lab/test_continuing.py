"""A model that goes on with a partial answer: every form, every manner, every wire, through real sockets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raw_client import CHAT, MESSAGES, RESPONSES, Heard, ask, request

from sidestream.errors import UsageError
from sidestream.lab import Continuing, Fault, Lab, Plan
from sidestream.lab.continuing import FORMS, REFUSALS, Form, Manner
from sidestream.lab.record import Request
from sidestream.lab.sse import decode, split_events

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = "Vi så 数据 🙂🙂 og  så\n\nnoe </last_words> helt annet, naïve café. "
QUESTION = {"role": "user", "content": "What did you see?"}
MARKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # per form: on the last turn, and in the body
    "trailing": ({}, {}),
    "prefix": ({"prefix": True}, {}),
    "prefix_echoed": ({"prefix": True}, {}),
    "partial": ({"partial": True}, {}),
    "continue_final_message": ({}, {"continue_final_message": True, "add_generation_prompt": False}),
}
PREFILLS = sorted(MARKS)


def assistant(path: str, text: str) -> dict[str, Any]:
    """An assistant turn as each wire writes it."""
    if path == CHAT:
        return {"role": "assistant", "content": text}
    if path == MESSAGES:
        return {"role": "assistant", "content": [{"type": "text", "text": text}] if text else ""}
    parts = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "role": "assistant", "status": "completed", "content": parts}


def body(path: str, turns: list[dict[str, Any]], **fields: Any) -> bytes:
    name = "input" if path == RESPONSES else "messages"
    return json.dumps({name: turns, "stream": True, **fields}).encode()


def prefill(path: str, form: str, partial: str, **fields: Any) -> bytes:
    on_turn, in_body = MARKS[form]
    return body(path, [QUESTION, assistant(path, partial) | on_turn], **in_body, **fields)


def anchored(path: str, partial: str, anchor: str, tag: str = "last_words", **fields: Any) -> bytes:
    quoting = f"You were cut off. Repeat these words, then go on:\n<{tag}>{anchor}</{tag}>\nTools stay."
    kind = "input_text" if path == RESPONSES else "text"
    content = quoting if path == CHAT else [{"type": kind, "text": quoting}]
    return body(path, [QUESTION, assistant(path, partial), {"role": "user", "content": content}], **fields)


def events(answer: Heard) -> list[Any]:
    assert answer.status == 200, answer.body
    return [decode(event) for event in split_events(b"".join(answer.chunks[0]))]


def deltas(answer: Heard) -> list[str]:
    """The text deltas of a stream of any wire."""
    found: list[str] = []
    for event in events(answer):
        if event == "[DONE]":
            continue
        if event.get("type") == "response.output_text.delta":
            found.append(event["delta"])
        if event.get("type") == "content_block_delta":
            found.append(event["delta"]["text"])
        found += [c["delta"]["content"] for c in event.get("choices", ()) if c["delta"].get("content")]
    return found


def usage(answer: Heard) -> tuple[int, int]:
    """Tokens of prompt and output, from any wire."""
    told = [event for event in events(answer) if event != "[DONE]"]
    if told[0].get("type") == "message_start":
        return told[0]["message"]["usage"]["input_tokens"], told[-2]["usage"]["output_tokens"]
    last = told[-1]
    counts = last.get("usage") or last["response"]["usage"]
    names = (
        ("prompt_tokens", "completion_tokens")
        if "prompt_tokens" in counts
        else ("input_tokens", "output_tokens")
    )
    return counts[names[0]], counts[names[1]]


def problem(answer: Heard) -> str:
    assert answer.status == 400, answer.body
    return str(json.loads(answer.body)["error"]["message"])


wires = pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])


@wires
@pytest.mark.parametrize("turns", [[QUESTION], [assistant(CHAT, "Hei."), QUESTION]])
def test_a_question_gets_the_whole_text_word_by_word(
    lab: Callable[..., Lab], path: str, turns: list[dict[str, Any]]
) -> None:
    """What asks for no continuation is answered from the start, one delta per word and the space before."""
    answer = ask(lab(Continuing("one two  three\nfour ")), request(path, body(path, turns)))
    assert deltas(answer) == ["one", " two", "  three", "\nfour", " "]


@wires
def test_a_body_that_is_not_json_is_a_question(lab: Callable[..., Lab], path: str) -> None:
    """A request nobody can read gets the text, as from any other script."""
    running = lab(Continuing(TEXT))
    assert "".join(deltas(ask(running, request(path, b"not json")))) == TEXT
    assert (
        "".join(deltas(ask(running, request(path, b'{"input": "Hi", "messages": "Hi", "stream": true}'))))
        == TEXT
    )


@wires
@pytest.mark.parametrize("form", PREFILLS)
def test_every_form_of_prefill_goes_on_after_the_partial(
    lab: Callable[..., Lab], path: str, form: Form
) -> None:
    """The reply is the rest of the text, whitespace included; the echoed form repeats the partial first."""
    running = lab(Continuing(TEXT, accepts=(form,)))
    whole = TEXT.rstrip() if path == MESSAGES else TEXT
    for partial in ("", "V", "Vi så", "Vi så 数据 🙂", TEXT.rstrip(), whole):
        said = "".join(deltas(ask(running, request(path, prefill(path, form, partial)))))
        assert said == (TEXT if form == "prefix_echoed" else TEXT[len(partial) :])


@wires
def test_any_prefill_can_be_echoed(lab: Callable[..., Lab], path: str) -> None:
    """With `echo` the partial is repeated whatever the form, and only what is new counts as generated."""
    running = lab(Continuing("one two three four", echo=True, limited=True))
    answer = ask(running, request(path, prefill(path, "trailing", "one two", max_output_tokens=1)))
    assert deltas(answer) == ["one", " two", " three"]
    assert usage(answer)[1] == 1


@wires
@pytest.mark.parametrize("form", PREFILLS)
@pytest.mark.parametrize("refusal", [*REFUSALS, "Prefill? Not here."])
def test_a_prefill_that_is_not_taken_is_a_400(
    lab: Callable[..., Lab], path: str, form: Form, refusal: str
) -> None:
    """A form outside `accepts` is refused in the words of a real provider, or in one's own."""
    others = tuple(known for known in FORMS if known not in (form, "prefix"))
    answer = ask(
        lab(Continuing(TEXT, accepts=others, refusal=refusal)), request(path, prefill(path, form, "Vi"))
    )
    known = REFUSALS.get(refusal)
    assert problem(answer) == (json.loads(known.body)["error"]["message"] if known else refusal)


def test_the_refusals_are_those_of_the_field() -> None:
    """Anthropic's and llama.cpp's words are exact: clients tell them by these."""
    said = {name: json.loads(refusal.body)["error"]["message"] for name, refusal in REFUSALS.items()}
    assert said == {
        "anthropic": "This model does not support assistant message prefill. "
        "The conversation must end with a user message.",
        "anthropic_short": "Prefilling assistant messages is not supported for this model.",
        "llamacpp": "Assistant response prefill is incompatible with enable_thinking.",
    }


@pytest.mark.parametrize("partial", ["Vi så ", "Vi så\n"])
@pytest.mark.parametrize("accepts", [("trailing",), ("anchor",)])
def test_a_prefill_of_messages_ends_in_no_whitespace(
    lab: Callable[..., Lab], accepts: tuple[Form, ...], partial: str
) -> None:
    """Anthropic refuses whitespace at the end of the last turn if it is the assistant's, and only there."""
    running = lab(Continuing(TEXT, accepts=accepts, refusal=None))
    refused = ask(running, request(MESSAGES, prefill(MESSAGES, "trailing", partial)))
    assert problem(refused) == "messages: final assistant content cannot end with trailing whitespace"
    history = [QUESTION, assistant(MESSAGES, partial), QUESTION]
    assert "".join(deltas(ask(running, request(MESSAGES, body(MESSAGES, history))))) == TEXT


@pytest.mark.parametrize("asked", [prefill(MESSAGES, "trailing", "Nei"), prefill(MESSAGES, "partial", "Vi")])
def test_refusals_on_messages_are_worded_as_anthropic_words_them(
    lab: Callable[..., Lab], asked: bytes
) -> None:
    """Every 400 on this wire has the error body and the request id that its SDK reads."""
    answer = ask(lab(Continuing(TEXT, accepts=("trailing",))), request(MESSAGES, asked))
    told = json.loads(answer.body)
    assert (answer.status, told["type"], told["error"]["type"]) == (400, "error", "invalid_request_error")
    assert told["request_id"] == answer.header("request-id") == "req_lab"


@wires
def test_a_prefill_can_be_taken_for_history(lab: Callable[..., Lab], path: str) -> None:
    """With no refusal the partial is an earlier turn, and the answer begins anew."""
    running = lab(Continuing(TEXT, accepts=("anchor",), refusal=None))
    assert "".join(deltas(ask(running, request(path, prefill(path, "trailing", "Vi så"))))) == TEXT


@pytest.mark.parametrize("fields", [{}, {"add_generation_prompt": True}])
def test_a_final_message_is_continued_only_without_a_generation_prompt(
    lab: Callable[..., Lab], fields: dict[str, Any]
) -> None:
    """`continue_final_message` needs `add_generation_prompt: false`, which is true by default."""
    asked = body(CHAT, [QUESTION, assistant(CHAT, "Vi")], continue_final_message=True, **fields)
    assert problem(ask(lab(Continuing(TEXT)), request(CHAT, asked))).startswith("Cannot set both")


@wires
@pytest.mark.parametrize(
    "make",
    [lambda path, text: prefill(path, "trailing", text), lambda path, text: anchored(path, text, text)],
)
def test_a_partial_that_is_not_the_beginning_is_a_400(
    lab: Callable[..., Lab], path: str, make: Callable[[str, str], bytes]
) -> None:
    """A wrongly spliced partial is told where it goes wrong, by prefill and by anchor."""
    running = lab(Continuing(TEXT))
    assert "at character 4 'a 数据' in place of 'å 数据" in problem(
        ask(running, request(path, make(path, "Vi sa 数据")))
    )
    assert f"at character {len(TEXT)} 'og mer'" in problem(
        ask(running, request(path, make(path, TEXT + "og mer")))
    )


@wires
@pytest.mark.parametrize("length", [1, 5, 40])
@pytest.mark.parametrize("at", [8, 12, 20, len(TEXT)])
def test_an_anchor_is_repeated_and_gone_on_from(
    lab: Callable[..., Lab], path: str, at: int, length: int
) -> None:
    """An obedient model says the anchor and all that follows it in the text, whatever the characters."""
    partial = TEXT[:at]
    anchor = partial[-length:]
    asked = anchored(path, partial, anchor, "last_words_2" if "</last_words>" in anchor else "last_words")
    assert "".join(deltas(ask(lab(Continuing(TEXT)), request(path, asked)))) == anchor + TEXT[at:]


@wires
def test_whitespace_behind_the_anchor_is_said_again(lab: Callable[..., Lab], path: str) -> None:
    """Whitespace at the end of the partial that was not quoted belongs to the reply."""
    asked = anchored(path, "one two \n ", "two")
    assert "".join(deltas(ask(lab(Continuing("one two \n three")), request(path, asked)))) == "two \n three"


@wires
def test_the_last_place_of_an_anchor_counts(lab: Callable[..., Lab], path: str) -> None:
    """Words that occur twice are continued from their last place in the partial."""
    asked = anchored(path, "so so", "so")
    assert "".join(deltas(ask(lab(Continuing("so so so on")), request(path, asked)))) == "so so on"


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([QUESTION, {"role": "user", "content": "<last_words>Vi</last_words>"}], "not the assistant's"),
        ([{"role": "user", "content": "<last_words>Vi</last_words>"}], "not the assistant's"),
        (
            [assistant(CHAT, "Vi"), {"role": "user", "content": "<last_words>du</last_words>"}],
            "does not have these last words: 'du'",
        ),
    ],
)
def test_an_anchor_without_its_partial_is_a_400(
    lab: Callable[..., Lab], turns: list[dict[str, Any]], said: str
) -> None:
    """The turn before must be the assistant's and contain the quoted words."""
    assert said in problem(ask(lab(Continuing(TEXT)), request(CHAT, body(CHAT, turns))))


def test_an_anchor_can_be_outside_what_is_accepted(lab: Callable[..., Lab]) -> None:
    """A model without anchors says so: a client that used one where it should not is found out."""
    running = lab(Continuing(TEXT, accepts=("trailing",)))
    assert "continues nothing" in problem(ask(running, request(CHAT, anchored(CHAT, "Vi", "Vi"))))


def test_tags_in_a_sentence_are_no_anchor(lab: Callable[..., Lab]) -> None:
    """Only a line that begins with the tag quotes last words."""
    asked = body(CHAT, [QUESTION | {"content": "What does <last_words>x</last_words> mean?"}])
    assert "".join(deltas(ask(lab(Continuing(TEXT)), request(CHAT, asked)))) == TEXT


def test_reasoning_between_the_turns_does_not_matter(lab: Callable[..., Lab]) -> None:
    """A reasoning item is part of no turn: the partial before it is still the turn before."""
    turns = json.loads(anchored(RESPONSES, "one two", "two"))["input"]
    turns.insert(2, {"type": "reasoning", "id": "rs_1", "summary": []})
    answer = ask(lab(Continuing("one two three")), request(RESPONSES, body(RESPONSES, turns)))
    assert "".join(deltas(answer)) == "two three"


@wires
@pytest.mark.parametrize("manner", get_args(Manner))
def test_a_model_can_be_disobedient(lab: Callable[..., Lab], path: str, manner: Manner) -> None:
    """Each named manner says what its name says, and the prefill is taken as ever."""
    running = lab(Continuing("one two three", manner=manner))
    said = "".join(deltas(ask(running, request(path, anchored(path, "one two", "two")))))
    assert (
        said
        == {
            "obedient": "two three",
            "preamble": "Sure, here is the rest:\n\ntwo three",
            "no_anchor": " three",
            "twice": "twotwo three",
            "fenced": "```\ntwo three\n```",
            "restart": "one two three",
            "other": "I would rather say something else, and here it is: forty-two.",
        }[manner]
    )
    assert deltas(ask(running, request(path, prefill(path, "trailing", "one two")))) == [" three"]


@wires
def test_disobedience_can_be_a_function(lab: Callable[..., Lab], path: str) -> None:
    """A function of anchor and rest decides what is said, be it a megabyte."""
    running = lab(Continuing(TEXT, manner=lambda anchor, rest: "é" * 2**20 + anchor.upper() + rest))
    said = "".join(deltas(ask(running, request(path, anchored(path, "Vi så", "så")))))
    assert said == "é" * 2**20 + "SÅ" + TEXT[5:]


@wires
def test_tokens_can_be_cut_otherwise(lab: Callable[..., Lab], path: str) -> None:
    """The splitter decides: with `list` every character is a delta and a token."""
    answer = ask(lab(Continuing("🙂 é数", tokens_of=list)), request(path, body(path, [QUESTION])))
    assert deltas(answer) == ["🙂", " ", "é", "数"]
    assert usage(answer)[1] == 4


@wires
def test_usage_counts_prompt_and_output(lab: Callable[..., Lab], path: str) -> None:
    """The prompt counts a quarter of its JSON's characters (not bytes), the output the tokens said."""
    running = lab(Continuing("one two three four"))
    short = ask(running, request(path, body(path, [{"role": "user", "content": "🙂" * 10}])))
    long = ask(running, request(path, body(path, [{"role": "user", "content": "🙂" * 410}])))
    assert usage(long)[0] - usage(short)[0] == 100
    assert usage(ask(running, request(path, prefill(path, "trailing", "one two"))))[1] == 2
    silent = ask(lab(Continuing("one", usage=False)), request(path, body(path, [QUESTION])))
    assert b'"output_tokens"' not in silent.body
    assert b'"completion_tokens"' not in silent.body


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_ends_a_chat_answer(lab: Callable[..., Lab], name: str) -> None:
    """With `limited` an answer beyond the limit ends with finish reason "length", a shorter one as ever."""
    running = lab(Continuing("one two three", limited=True))
    cut, whole = (ask(running, request(CHAT, body(CHAT, [QUESTION], **{name: n}))) for n in (2, 3))
    assert (deltas(cut), deltas(whole)) == (["one", " two"], ["one", " two", " three"])
    assert [e["choices"][0]["finish_reason"] for e in events(cut)[-3:-2]] == ["length"]
    assert [e["choices"][0]["finish_reason"] for e in events(whole)[-3:-2]] == ["stop"]


def test_a_limit_ends_a_response(lab: Callable[..., Lab]) -> None:
    """With `limited` a longer response is incomplete: the terminal event, its reason and the item say so."""
    running = lab(Continuing("one two three", limited=True))
    cut, whole = (
        ask(running, request(RESPONSES, body(RESPONSES, [QUESTION], max_output_tokens=n))) for n in (2, 3)
    )
    last = events(cut)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["output"][0]["status"] == "incomplete"
    assert last["response"]["output"][0]["content"][0]["text"] == "one two"
    assert events(whole)[-1]["type"] == "response.completed"


def test_a_limit_ends_a_message(lab: Callable[..., Lab]) -> None:
    """With `limited` a longer message stops at "max_tokens", a shorter one ends its turn."""
    running = lab(Continuing("one two three", limited=True))
    cut, whole = (ask(running, request(MESSAGES, body(MESSAGES, [QUESTION], max_tokens=n))) for n in (2, 3))
    assert (deltas(cut), deltas(whole)) == (["one", " two"], ["one", " two", " three"])
    assert [events(heard)[-2]["delta"]["stop_reason"] for heard in (cut, whole)] == ["max_tokens", "end_turn"]


@wires
def test_limits_are_ignored_unless_told(lab: Callable[..., Lab], path: str) -> None:
    """Without `limited` the whole text comes, whatever the limit."""
    asked = body(path, [QUESTION], max_tokens=1, max_output_tokens=1)
    assert "".join(deltas(ask(lab(Continuing(TEXT)), request(path, asked)))) == TEXT


@wires
def test_without_a_stream_it_is_one_object(lab: Callable[..., Lab], path: str) -> None:
    """`"stream": false` gets the continuation as JSON, with the same ending and usage."""
    asked = json.loads(prefill(path, "trailing", "one", max_tokens=1)) | {"stream": False}
    answer = ask(lab(Continuing("one two three", limited=True)), request(path, json.dumps(asked).encode()))
    whole = json.loads(answer.body)
    if path == CHAT:
        assert whole["choices"][0]["message"]["content"] == " two"
        assert (whole["choices"][0]["finish_reason"], whole["usage"]["completion_tokens"]) == ("length", 1)
    elif path == MESSAGES:
        assert whole["content"][0]["text"] == " two"
        assert (whole["stop_reason"], whole["usage"]["output_tokens"]) == ("max_tokens", 1)
    else:
        assert whole["output"][0]["content"][0]["text"] == " two"
        assert (whole["status"], whole["usage"]["output_tokens"]) == ("incomplete", 1)


@wires
def test_every_attempt_has_an_id_of_its_own(lab: Callable[..., Lab], path: str) -> None:
    """Two answers are two responses, as with a real provider; the model's name is as given."""
    running = lab(Continuing("one", model="m-2"))
    first, second = (events(ask(running, request(path, body(path, [QUESTION]))))[0] for _ in range(2))
    told = [event.get("message") or event.get("response") or event for event in (first, second)]
    assert len({answer["id"] for answer in told}) == 2
    assert {answer["model"] for answer in told} == {"m-2"}


def test_pace_is_the_time_between_events() -> None:
    """The script keeps the pace it is given."""
    asked = Request(0, 0, 0, "POST", CHAT, (), b"{}", 0.0)
    assert Continuing("one", pace=0.5)(asked).pace == 0.5


@wires
def test_an_answer_cut_twice_is_continued_to_its_end(lab: Callable[..., Lab], path: str) -> None:
    """Cut, continued by anchor, cut again and continued by prefill, the pieces are the text; the record says
    how much was generated."""
    running = lab(Continuing(TEXT, tokens_of=list), plan=Plan([Fault.cut(after_event=15, tail=0)] * 2))
    said = "".join(deltas(ask(running, request(path, body(path, [QUESTION])))))
    anchor = said[-4:]
    said += "".join(deltas(ask(running, request(path, anchored(path, said, anchor))))).removeprefix(anchor)
    said = said.rstrip()
    said += "".join(deltas(ask(running, request(path, prefill(path, "trailing", said)))))
    assert said == TEXT
    assert [r.events_sent for r in running.requests[:2]] == [15, 15]


@given(st.text(min_size=1), st.data())
def test_any_text_is_continued_anywhere(text: str, draw: st.DataObject) -> None:
    """For any text and place, prefill and anchor give exactly what is missing."""
    at = draw.draw(st.integers(0, len(text)))
    said = []
    for asked in (
        prefill(RESPONSES, "trailing", text[:at]),
        anchored(RESPONSES, text[:at], text[:at][-7:], "last_words_12"),
    ):
        stream = Continuing(text)(Request(0, 0, 0, "POST", RESPONSES, (), asked, 0.0))
        said.append("".join(e["delta"] for e in map(decode, stream.events) if "delta" in e))
    assert said == [text[at:], text[:at][-7:] + text[at:]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"accepts": ("suffix",)},
        {"accepts": "prefix"},
        {"accepts": ("prefix", "prefix_echoed")},
        {"manner": "rude"},
    ],
)
def test_contradictions_are_usage_errors(wrong: dict[str, Any]) -> None:
    """Unknown forms and manners, and two forms that look alike, are refused at once."""
    with pytest.raises(UsageError):
        Continuing(TEXT, **wrong)
