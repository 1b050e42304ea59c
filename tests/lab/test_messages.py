"""The Messages wire: content blocks from items, in the order and with the pieces that the provider sends."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from raw_client import MESSAGES

from sidestream.lab import Script, script
from sidestream.lab.record import Request
from sidestream.lab.sse import decode

TEXT = "naïve 数据 🙂 ends  here "
EVERYTHING = (
    script.reasoning("Let me think.", encrypted="c2ln"),
    script.message(TEXT),
    script.call("get_weather", '{"city": "Paris"}', tokens=4),
    script.call("now", "", call_id="toolu_mine"),
)


def payloads(stream: Script) -> list[Any]:
    return [decode(event) for event in stream.events]


def deltas(stream: Script, index: int) -> list[dict[str, Any]]:
    events = (e for e in payloads(stream) if e["type"] == "content_block_delta")
    return [event["delta"] for event in events if event["index"] == index]


def whole(stream: Script) -> dict[str, Any]:
    asked = Request(0, 0, 0, "POST", MESSAGES, (), b'{"stream":false}', 0.0)
    told: dict[str, Any] = msgspec.json.decode(script.as_asked(stream, asked).body)
    return told


@pytest.mark.parametrize("tokens", [None, 1, 7])
def test_a_text_is_one_block_whose_deltas_add_up(tokens: int | None) -> None:
    """A text script runs from message_start to message_stop in the documented order."""
    stream = script.messages_text(TEXT, tokens=tokens, message_id="msg_1", model="m")
    kinds = [event["type"] for event in payloads(stream)]
    count = len(deltas(stream, 0))
    assert kinds[:3] == ["message_start", "ping", "content_block_start"]
    assert kinds[3:-3] == ["content_block_delta"] * count
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert "".join(delta["text"] for delta in deltas(stream, 0)) == TEXT
    assert tokens in (None, count)
    started = payloads(stream)[0]["message"]
    assert (started["id"], started["model"], started["content"]) == ("msg_1", "m", [])
    assert payloads(stream)[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


def test_every_event_names_its_type() -> None:
    """Each event's name line and JSON type agree, for every kind of item."""
    for event in script.messages(*EVERYTHING, script.refusal("No.")).events:
        assert event.startswith(f"event: {decode(event)['type']}\ndata: ".encode())
        assert event.endswith(b"\n\n")


def test_blocks_follow_one_another() -> None:
    """Every block is started, filled and stopped under its own index before the next one starts."""
    told = [(e["index"], e["type"]) for e in payloads(script.messages(*EVERYTHING)) if "index" in e]
    assert [index for index, kind in told if kind == "content_block_start"] == [0, 1, 2, 3]
    assert [index for index, _ in told] == sorted(index for index, _ in told)


def test_thinking_ends_with_its_signature() -> None:
    """A thinking block has thinking deltas and, at its end, one signature; hidden thinking has only that."""
    *said, signed = deltas(script.messages(*EVERYTHING), 0)
    assert "".join(delta["thinking"] for delta in said) == "Let me think."
    assert signed == {"type": "signature_delta", "signature": "c2ln"}
    assert deltas(script.messages(script.reasoning("")), 0) == [signed | {"signature": "bGFi"}]


def test_the_input_of_a_call_comes_in_pieces() -> None:
    """A call is announced with an empty input; its pieces, the first one empty, add up to the JSON text."""
    stream = script.messages(*EVERYTHING)
    announced = [e["content_block"] for e in payloads(stream) if e["type"] == "content_block_start"][2:]
    assert [(block["id"], block["input"]) for block in announced] == [("toolu_lab_2", {}), ("toolu_mine", {})]
    pieces = [delta["partial_json"] for delta in deltas(stream, 2)]
    assert (pieces[0], len(pieces), "".join(pieces)) == ("", 5, '{"city": "Paris"}')
    assert [delta["partial_json"] for delta in deltas(stream, 3)] == [""]


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ((), "end_turn"),
        ((script.message("Hi"),), "end_turn"),
        ((script.message("Hi"), script.call("f", "{}")), "tool_use"),
        ((script.message("Hi"), script.refusal("No.")), "refusal"),
    ],
)
def test_the_items_say_why_it_stops(items: tuple[script.Item, ...], reason: str) -> None:
    """The stop reason follows from the items unless it is given; a refusal is explained and no block."""
    delta = payloads(script.messages(*items))[-2]["delta"]
    assert delta["stop_reason"] == reason
    if reason == "refusal":
        assert delta["stop_details"] == {"type": "refusal", "category": None, "explanation": "No."}
    given = script.messages(*items, stop_reason="stop_sequence", details={"stop_sequence": "END"})
    assert (
        payloads(given)[-2]["delta"].items()
        >= {"stop_reason": "stop_sequence", "stop_sequence": "END"}.items()
    )


def test_usage_comes_in_two_parts() -> None:
    """The prompt's tokens are told at the start, the output's at the end; both can be missing."""
    first, *_, last, _ = payloads(script.messages(*EVERYTHING, spent=(120, 30)))
    assert (first["message"]["usage"]["input_tokens"], last["usage"]) == (120, {"output_tokens": 30})
    assert payloads(script.messages_text("a b c"))[-2]["usage"] == {"output_tokens": 3}
    assert b"usage" not in script.messages_text("a", usage=False).body


def test_terminal_events_can_be_left_out() -> None:
    """The stop reason and message_stop can each be missing."""
    assert payloads(script.messages_text("a", stop=False))[-1]["type"] == "message_delta"
    kinds = [event["type"] for event in payloads(script.messages_text("a", stop_reason=None))]
    assert kinds[-2:] == ["content_block_stop", "message_stop"]


def test_answers_carry_a_request_id() -> None:
    """The header that SDKs show in their errors is on streams, on whole messages and on errors."""
    stream = script.messages_text("a")
    asked = Request(0, 0, 0, "POST", MESSAGES, (), b'{"stream":false}', 0.0)
    for answer in (stream, script.as_asked(stream, asked), script.messages_problem(500, "no")):
        assert dict(answer.headers)["request-id"] == "req_lab"


def test_a_whole_message_says_what_its_stream_says() -> None:
    """Folded, the blocks are whole, the input is an object, and the usage is that of the end."""
    told = whole(script.messages(*EVERYTHING))
    thinking, text, weather, now = told["content"]
    assert thinking == {"type": "thinking", "thinking": "Let me think.", "signature": "c2ln"}
    assert text == {"type": "text", "text": TEXT}
    assert (weather["input"], now["input"]) == ({"city": "Paris"}, {})
    assert (told["type"], told["stop_reason"]) == ("message", "tool_use")
    assert (told["usage"]["input_tokens"], told["usage"]["output_tokens"]) == (10, 13)
    assert whole(script.messages(script.refusal("No.")))["stop_details"]["explanation"] == "No."
    assert "usage" not in whole(script.messages_text("a", usage=False))


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (529, "overloaded_error"), (503, "api_error")]
)
def test_errors_are_worded_as_anthropic_words_them(status: int, kind: str) -> None:
    """The type of an error follows its status unless it is given."""
    answer = script.messages_problem(status, "lab", headers=(("retry-after", "1"),))
    expected = {"type": "error", "error": {"type": kind, "message": "lab"}, "request_id": "req_lab"}
    assert (answer.status, msgspec.json.decode(answer.body)) == (status, expected)
    assert dict(answer.headers)["retry-after"] == "1"
    named = msgspec.json.decode(script.messages_problem(status, "lab", kind="billing_error").body)
    assert named["error"]["type"] == "billing_error"
