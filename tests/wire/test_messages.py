"""What the recorded streams leave out of the Messages wire: its fields one by one, and what breaks them."""

import json
from typing import Any

import pytest

from sidestream.assembler import Assembler
from sidestream.errors import Refused
from sidestream.recovery.faults import FaultKind, from_rejection
from sidestream.recovery.flow import Send, flow
from sidestream.recovery.policy import Policy
from sidestream.reply import Reply
from sidestream.wire._json import NotJSON
from sidestream.wire.events import (
    ArgumentsDelta,
    ErrorInfo,
    Event,
    Finished,
    ItemDone,
    ItemStarted,
    Other,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenCounts,
    UsageReport,
)
from sidestream.wire.messages import Decoder, read_body
from sidestream.wire.sse import Decoder as Frames
from sidestream.wire.sse import ServerSentEvent
from streams import attempt, named

JSON = dict[str, Any]
ODD: tuple[Any, ...] = (None, True, -1, 2**70, 1.5, "x", [], ["x"], {}, {"type": []})


def say(kind: str, **fields: Any) -> ServerSentEvent:
    return ServerSentEvent("message", json.dumps({"type": kind, **fields}).encode(), b"")


def begin(block: Any, index: Any = 0) -> ServerSentEvent:
    return say("content_block_start", index=index, content_block=block)


def delta(kind: str, index: Any = 0, **fields: Any) -> ServerSentEvent:
    return say("content_block_delta", index=index, delta={"type": kind, **fields})


def text(words: Any, index: Any = 0) -> ServerSentEvent:
    return delta("text_delta", index, text=words)


def shut(index: Any = 0) -> ServerSentEvent:
    return say("content_block_stop", index=index)


def stop(reason: Any = "end_turn", **fields: Any) -> ServerSentEvent:
    return say("message_delta", delta={"stop_reason": reason, **fields})


TEXT: JSON = {"type": "text", "text": ""}
TOOL: JSON = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
END = say("message_stop")


def events(*frames: ServerSentEvent) -> list[Event]:
    decoder = Decoder()
    return [*decoder.feed(frames), *decoder.close()]


def reply(found: list[Event]) -> Reply:
    assembler = Assembler()
    for event in found:
        assembler.push(event)
    return assembler.reply("complete")


def done(found: list[Event]) -> list[JSON]:
    return [event.item for event in found if isinstance(event, ItemDone)]


# Items.


def test_a_text_block_is_a_message_with_its_citations() -> None:
    """Words of the start count, pieces follow, and citations are kept as they were given."""
    cite = {"type": "char_location", "cited_text": "So", "file_id": None}
    found = events(
        begin({"type": "text", "text": "So", "citations": [cite]}),
        text(" far"),
        delta("citations_delta", citation={**cite, "cited_text": "far"}),
        shut(),
        stop(),
    )
    assert found[:4] == [
        ItemStarted(0, {"type": "message", "role": "assistant"}),
        TextDelta("So", 0),
        TextDelta(" far", 0),
        Other("citations_delta", progress=True),
    ]
    part = {"type": "output_text", "text": "So far", "annotations": [cite, {**cite, "cited_text": "far"}]}
    item = {"type": "message", "role": "assistant", "status": "completed", "content": [part]}
    assert found[4:] == [ItemDone(0, item), Finished("completed", "stop")]


def test_thinking_is_reasoning_with_the_last_signature() -> None:
    """A later signature replaces an earlier one; a block without one has none."""
    block = {"type": "thinking", "thinking": "", "signature": ""}
    signed = (delta("signature_delta", signature="a"), delta("signature_delta", signature="b"))
    found = events(begin(block), delta("thinking_delta", thinking="Hm."), *signed, shut())
    item = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}
    assert ReasoningDelta("Hm.", 0) in found
    assert done(found) == [{**item, "signature": "b"}]
    assert done(events(begin(block), delta("thinking_delta", thinking="Hm."), shut())) == [item]


def test_sealed_thinking_keeps_its_data() -> None:
    """Nothing of it can be read, and it may be sent back."""
    found = events(begin({"type": "redacted_thinking", "data": "sealed"}), shut())
    assert done(found) == [{"type": "reasoning", "summary": [], "encrypted_content": "sealed"}]


def test_a_call_is_whole_when_its_block_stops() -> None:
    """Its input is one JSON object, and nothing more has to be said."""
    pieces = [delta("input_json_delta", partial_json=piece) for piece in ("", '{"a"', ":1}")]
    found = events(begin(TOOL), *pieces, shut())
    assert found[0] == ItemStarted(0, {"type": "function_call", "call_id": "toolu_1", "name": "f"})
    assert ArgumentsDelta('{"a"', 0) in found
    assert done(found) == [
        {"type": "function_call", "call_id": "toolu_1", "name": "f", "arguments": '{"a":1}'}
    ]


@pytest.mark.parametrize("pieces", ['{"a":', '["a"]', "null", '{"a":1}}'])
def test_a_torn_call_is_none(pieces: str) -> None:
    """What is no whole JSON object never becomes a call, whatever the message says."""
    frames = (begin(TOOL), delta("input_json_delta", partial_json=pieces), shut(), stop("tool_use"), END)
    assert done(events(*frames)) == []
    assert reply(events(*frames)).tool_calls == ()


def test_a_call_without_input_waits_for_what_follows() -> None:
    """The limit cuts a call before its first argument in the same way: only then it is none."""
    empty = (begin(TOOL), shut())
    assert done(events(*empty)) == []
    for after in ((begin(TEXT, 1),), (stop("tool_use"),), (stop(),), (END,)):
        assert [item["arguments"] for item in done(events(*empty, *after))][:1] == ["{}"]
    for reason in ("max_tokens", "model_context_window_exceeded"):
        assert done(events(*empty, stop(reason), END)) == []


def test_the_limit_cuts_only_what_came_last() -> None:
    """Blocks before the last one are whole, and a text that was cut says so."""
    found = done(events(begin(TOOL), shut(), begin(TEXT, 1), text("So", 1), shut(1), stop("max_tokens")))
    assert [item.get("arguments", item.get("status")) for item in found] == ["{}", "incomplete"]


def test_text_is_not_done_before_its_end_is_known() -> None:
    """A text that the limit cut stops like any other: without a stop reason nobody takes it for whole."""
    assembler = Assembler()
    for event in events(begin(TEXT), text("So"), shut()):
        assembler.push(event)
    assert not assembler.could_settle


def test_text_before_another_block_settles_nothing() -> None:
    """A block of another type may have been followed by more text: only a final message can be the end."""
    assembler = Assembler()
    for event in events(begin(TEXT), text("So"), shut(), begin({"type": "fallback"}, 1), shut(1)):
        assembler.push(event)
    assert not assembler.could_settle


def test_other_blocks_are_items_as_they_are() -> None:
    """A hosted tool's input is put where it belongs; what arrives whole stays as it came."""
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    result = {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "u"}]}
    found = events(
        begin(search), delta("input_json_delta", partial_json='{"q":1}'), shut(), begin(result, 1), shut(1)
    )
    assert found == [
        ItemStarted(0, search),
        Other("server_tool_use", progress=True),
        ItemDone(0, {**search, "input": {"q": 1}}),
        ItemStarted(1, result),
        ItemDone(1, result),
    ]
    assert reply(found).tool_calls == ()


def test_a_compaction_is_kept() -> None:
    """Its summary comes as one delta."""
    summary = {"content": "It was long.", "encrypted_content": None}
    found = events(
        begin({"type": "compaction", "content": None}), delta("compaction_delta", **summary), shut()
    )
    assert done(found) == [{"type": "compaction", **summary}]


# Numbers.


@pytest.mark.parametrize("index", ODD, ids=str)
def test_text_counts_whatever_its_number_is(index: Any) -> None:
    """A missing, negative, absurd or unreadable block number loses no word."""
    for announced in ((begin(TEXT, index),), ()):
        found = events(*announced, text("So", index), text(" far", index), shut(index), stop(), END)
        assert reply(found).text == "So far"
        assert found[-1] == Finished("completed", "stop")


def test_a_number_that_comes_again_is_another_block() -> None:
    """The newest block of a number gets its pieces, and none is lost."""
    found = events(begin(TEXT), text("So"), shut(), begin(TEXT), text(" far"), shut(), stop())
    assert [item["content"][0]["text"] for item in done(found)] == ["So", " far"]


def test_a_piece_of_another_kind_opens_a_block_of_its_own() -> None:
    """Text inside a tool's block does not become an argument, and the call is not whole by that."""
    found = events(begin(TOOL), text("So"), shut(), END)
    assert reply(found).text == "So"
    assert not any(isinstance(event, ArgumentsDelta) for event in found)


@pytest.mark.parametrize("value", ODD, ids=str)
@pytest.mark.parametrize(
    "kind", ["text_delta", "thinking_delta", "input_json_delta", "signature_delta", "citations_delta", "x"]
)
def test_a_delta_without_what_it_should_have_is_harmless(kind: str, value: Any) -> None:
    """Fields of any kind end in no exception, and no break."""
    names = ("text", "thinking", "partial_json", "signature", "citation")
    decoder = Decoder()
    decoder.feed(
        [begin(TEXT), delta(kind, **dict.fromkeys(names, value)), say("content_block_delta", delta=value)]
    )
    decoder.feed(
        [begin(value), begin({"type": value, "text": value, "id": value, "input": value}), shut(), END]
    )
    assert decoder.broken is None
    assert decoder.over


# The message.


def test_the_prompt_is_counted_whole() -> None:
    """Cached tokens are prompt tokens too; what was written is known at the end, field by field."""
    usage = {"input_tokens": 5, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 7}
    found = events(
        say("message_start", message={"id": "m", "model": "c", "usage": {**usage, "output_tokens": 1}}),
        say("message_delta", delta={"stop_reason": None}, usage={"output_tokens": 4}),
        say(
            "message_delta",
            delta={"stop_reason": "end_turn"},
            usage={"output_tokens": 9, "input_tokens": None, "output_tokens_details": {"thinking_tokens": 3}},
        ),
    )
    reports = [event.usage for event in found if isinstance(event, UsageReport)]
    assert found[0] == Started("m", "c")
    assert reports[0] == reports[1] == TokenCounts(input_tokens=42, cached_tokens=30)
    assert reports[2] == TokenCounts(42, 9, 51, 30, 3)


@pytest.mark.parametrize(
    ("said", "ends"),
    [
        ("end_turn", Finished("completed", "stop")),
        ("stop_sequence", Finished("completed", "stop")),
        ("tool_use", Finished("completed", "tool_calls")),
        ("max_tokens", Finished("incomplete", "length")),
        ("model_context_window_exceeded", Finished("incomplete", "length")),
        ("pause_turn", Finished("incomplete", "pause_turn")),
        ("compaction", Finished("completed", "compaction")),
        ("something_new", Finished("completed", "something_new")),
        (None, Finished("completed", None, confirmed=False)),
        (["end_turn"], Finished("completed", None, confirmed=False)),
    ],
)
def test_why_it_ended(said: Any, ends: Finished) -> None:
    """Every stop reason has its place; without one message_stop is enough, and nobody knows why."""
    assert events(begin(TEXT), text("So"), shut(), stop(said), END)[-1] == ends


def test_an_end_needs_its_stop_reason_and_every_block() -> None:
    """A body that ends before that is no answer; behind it the end of the body is enough."""
    body = (begin(TEXT), text("So"), shut())
    assert not any(isinstance(event, Finished) for event in events(*body, stop(None)))
    assert not any(isinstance(event, Finished) for event in events(begin(TEXT), text("So"), stop()))
    decoder = Decoder()
    decoder.feed([begin(TEXT), text("So"), stop()])
    assert not decoder.over
    decoder.feed([shut()])
    assert decoder.over
    assert decoder.close() == [Finished("completed", "stop")]
    assert decoder.close() == []


def test_nothing_hurts_an_answer_that_is_all_there() -> None:
    """After its last word neither nonsense nor an error nor more text counts, and usage still does."""
    decoder = Decoder()
    decoder.feed([begin(TEXT), text("So"), shut(), stop()])
    late = [text("MORE"), begin(TEXT), say("error", error={"type": "api_error"})]
    assert decoder.feed(late) == []
    usage = say("message_delta", delta={}, usage={"output_tokens": 5})
    assert decoder.feed([usage]) == [UsageReport(TokenCounts(output_tokens=5))]
    decoder.feed([ServerSentEvent("message", b"{nonsense", b"")])
    assert decoder.close() == [Finished("completed", "stop")]


def test_what_nobody_knows_is_a_sign_of_life() -> None:
    """A ping and an unknown event are no progress; an unknown delta carries output."""
    found = events(say("ping"), say("hint", x=1), say("hint", detail="x"), begin(TEXT), delta("glow", heat=3))
    assert [event for event in found if isinstance(event, Other)] == [
        Other("ping"),
        Other("hint"),
        Other("hint"),
        Other("glow", progress=True),
    ]


# Errors.


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (
            say("error", error={"type": "overloaded_error", "message": "m"}, request_id="req_1"),
            ErrorInfo("", "m", "overloaded_error", headers={"request-id": "req_1"}),
        ),
        (
            say("error", error={"type": "rate_limit_error", "message": "m", "details": {"error_code": "c"}}),
            ErrorInfo("c", "m", "rate_limit_error"),
        ),
        (say("error"), ErrorInfo()),
        (ServerSentEvent("error", b"gone", b""), ErrorInfo(message="gone")),
        (
            ServerSentEvent("error", b'{"type":"api_error","message":"m"}', b""),
            ErrorInfo("", "m", "api_error"),
        ),
        (ServerSentEvent("error", b"[]", b""), ErrorInfo(message="an error without a message")),
        (ServerSentEvent("message", b'{"error":{"message":"m"}}', b""), ErrorInfo(message="m")),
    ],
    ids=["whole", "details", "bare", "text", "flat", "list", "unnamed"],
)
def test_an_error_event_ends_the_stream(frame: ServerSentEvent, error: ErrorInfo) -> None:
    """However it is spelled: the answer has failed, and nothing after it counts."""
    decoder = Decoder()
    found = decoder.feed([begin(TEXT), text("So"), frame, text("MORE"), stop(), END])
    assert found[2:] == [Finished("failed", error=error)]
    assert decoder.over
    assert decoder.close() == []


@pytest.mark.parametrize("kind", ["message", "content_block_delta", "message_stop"])
def test_nonsense_breaks_the_stream(kind: str) -> None:
    """Data that is no JSON ends it, unless it belongs to an event nobody needs."""
    decoder = Decoder()
    assert (
        len(decoder.feed([begin(TEXT), text("So"), ServerSentEvent(kind, b"{nonsense", b""), text("x")])) == 2
    )
    assert isinstance(decoder.broken, NotJSON)
    with pytest.raises(NotJSON):
        decoder.close()
    assert Decoder().feed([ServerSentEvent("ping", b"nonsense", b"")]) == [Other("ping")]


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (529, {"type": "overloaded_error", "message": "Overloaded"}, FaultKind.OVERLOADED),
        (500, {"type": "api_error", "message": "Internal server error"}, FaultKind.SERVER),
        (504, {"type": "timeout_error", "message": "m"}, FaultKind.SERVER),
        (409, {"type": "conflict_error", "message": "m"}, FaultKind.SERVER),
        (429, {"type": "rate_limit_error", "message": "m"}, FaultKind.THROTTLED),
        (
            429,
            {"type": "rate_limit_error", "details": {"error_code": "ramp_limit_exceeded"}},
            FaultKind.THROTTLED,
        ),
        (
            429,
            {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}},
            FaultKind.QUOTA,
        ),
        (402, {"type": "billing_error", "message": "m"}, FaultKind.QUOTA),
        (
            400,
            {"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."},
            FaultKind.QUOTA,
        ),
        (
            400,
            {"type": "invalid_request_error", "message": "You have reached your specified API usage limits."},
            FaultKind.QUOTA,
        ),
        (
            403,
            {"type": "permission_error", "details": {"error_code": "organization_on_hold"}},
            FaultKind.QUOTA,
        ),
        (401, {"type": "authentication_error", "message": "invalid x-api-key"}, FaultKind.AUTH),
        (404, {"type": "not_found_error", "message": "model: claude-9"}, FaultKind.NOT_FOUND),
        (413, {"type": "request_too_large", "message": "m"}, FaultKind.CONTEXT_LENGTH),
        (
            400,
            {
                "type": "invalid_request_error",
                "message": "prompt is too long: 210000 tokens > 200000 maximum",
            },
            FaultKind.CONTEXT_LENGTH,
        ),
        (
            400,
            {
                "type": "invalid_request_error",
                "message": "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
            },
            FaultKind.CONTEXT_LENGTH,
        ),
        (
            400,
            {"type": "invalid_request_error", "message": "messages: roles must alternate"},
            FaultKind.BAD_REQUEST,
        ),
    ],
)
def test_what_an_error_of_anthropic_means(status: int, error: JSON, kind: FaultKind) -> None:
    """Details come first, then the type, and money is never taken for a rate."""
    body = json.dumps({"type": "error", "error": error, "request_id": "req_1"}).encode()
    fault = from_rejection(status, {}, body)
    assert (fault.kind, fault.request_id) == (kind, "req_1")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("temperature: Extra inputs are not permitted", "temperature"),
        ("`temperature` is deprecated for this model.", "temperature"),
        ("messages.0.content.0.text.x: Extra inputs are not permitted", ""),
    ],
)
def test_a_parameter_that_is_refused_is_named(message: str, param: str) -> None:
    """So that it can be left out; what is wrong inside a message is the caller's."""
    error = {"type": "invalid_request_error", "message": message}
    fault = from_rejection(400, {}, json.dumps({"type": "error", "error": error}).encode())
    assert (fault.kind, fault.param) == (FaultKind.PARAMETER if param else FaultKind.BAD_REQUEST, param)


# A refusal.


@pytest.mark.parametrize(
    ("details", "detail", "code"),
    [
        ({"category": "bio", "explanation": "Not this one."}, "Not this one. (bio)", "bio"),
        ({"category": None, "explanation": None}, "the model declined", "refusal"),
        (None, "the model declined", "refusal"),
        (["x"], "the model declined", "refusal"),
    ],
)
@pytest.mark.parametrize("words", ["First you", ""])
def test_a_refusal_says_why_and_keeps_what_was_said(details: Any, detail: str, code: str, words: str) -> None:
    """A call that the model declines ends as refused, and is not asked again."""
    call = named("messages/plain-text").call(live=True, policy=Policy())
    story = flow(call, now=0, unix_time=0, random=lambda: 0.0)
    send = next(story)
    assert isinstance(send, Send)
    frames = (begin(TEXT), text(words), shut(), stop("refusal", stop_details=details), END)
    data = b"".join(b"data: " + frame.data + b"\n\n" for frame in frames)
    _, outcome = attempt(send.exchange, [data])
    with pytest.raises(Refused) as caught:
        story.send(outcome)
    assert (caught.value.fault.detail, caught.value.fault.code) == (detail, code)
    partial = caught.value.reply
    assert partial is not None
    assert (partial.text, partial.status, partial.finish_reason) == (words, "refused", "refusal")


# Whole bodies.


@pytest.mark.parametrize(
    "name", ["tool-use", "parallel-tools", "thinking", "web-search", "max-tokens", "redacted-thinking"]
)
def test_a_whole_body_is_read_like_its_stream(name: str) -> None:
    """What a server that ignores `stream` answers has the same items, calls, words and tokens."""
    stream = named(f"messages/{name}")
    streamed = Decoder().feed(Frames().feed(stream.data))
    whole = read_body(json.dumps(body_of(stream.data)).encode())
    assert done(whole) == done(streamed)
    assert reply(whole) == reply(streamed)
    assert whole[-1] == streamed[-1]
    assert [event for event in whole if isinstance(event, UsageReport)][-1] == [
        event for event in streamed if isinstance(event, UsageReport)
    ][-1]


def body_of(data: bytes) -> JSON:
    """The message that a recorded stream tells, put together by hand."""
    message: JSON = {}
    for said in (json.loads(frame.data) for frame in Frames().feed(data)):
        if said["type"] == "message_start":
            message = said["message"]
        elif said["type"] == "content_block_start":
            message["content"].append({**said["content_block"]})
        elif said["type"] == "content_block_delta":
            block, piece = message["content"][said["index"]], said["delta"]
            if piece["type"] == "input_json_delta":
                block["json"] = block.get("json", "") + piece["partial_json"]
            elif piece["type"] == "citations_delta":
                block["citations"].append(piece["citation"])
            else:
                field = piece["type"].removesuffix("_delta")
                block[field] = block.get(field, "") + piece[field]
        elif said["type"] == "content_block_stop" and "json" in message["content"][said["index"]]:
            block = message["content"][said["index"]]
            block["input"] = json.loads(block.pop("json"))
        elif said["type"] == "message_delta":
            message |= {**said["delta"], "usage": message["usage"] | said["usage"]}
    return message


def test_an_error_body_is_a_failure() -> None:
    """A whole body may hold an error, with a status of 200."""
    body = {"type": "error", "error": {"type": "api_error", "message": "m"}}
    assert read_body(json.dumps(body).encode()) == [Finished("failed", error=ErrorInfo("", "m", "api_error"))]
