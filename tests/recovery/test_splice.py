"""What of a new stream goes into the old answer: events in, the reply out."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream.assembler import Assembler, Loose
from sidestream.recovery.seam import Anchor, AnchorSeam, PrefillSeam, find_anchor
from sidestream.recovery.splice import Splice
from sidestream.wire.events import (
    ArgumentsDelta,
    ErrorInfo,
    Event,
    Finished,
    ItemDone,
    ItemStarted,
    Other,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    TextDone,
    TokenCounts,
    ToolCall,
    UsageReport,
)

GIVEN = "The lamp was lit at dusk and the wind"
REST = " came from the west."
ANCHOR = "was lit at dusk and the wind"
WHOLE = GIVEN + REST
MESSAGE: dict[str, Any] = {"type": "message", "role": "assistant"}
DONE = Finished("completed", "stop")


def message(index: int = 0, **fields: Any) -> ItemStarted:
    return ItemStarted(index, {**MESSAGE, **fields})


def done(text: str, index: int = 0, notes: Sequence[dict[str, Any]] = (), **fields: Any) -> ItemDone:
    part = {"type": "output_text", "text": text, "annotations": list(notes)}
    return ItemDone(index, {**MESSAGE, "id": "msg_new", "status": "completed", "content": [part], **fields})


def call(index: int) -> list[Event]:
    item = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": ""}
    return [
        ItemStarted(index, item),
        ArgumentsDelta('{"at": "sea"}', index),
        ItemDone(index, {**item, "arguments": '{"at": "sea"}'}),
    ]


LOOK = ToolCall("call_1", "look", '{"at": "sea"}')


@dataclass
class Joined:
    """An old answer that broke off, and what a new stream made of it."""

    old: Sequence[Event] = (message(), TextDelta(GIVEN))
    prefill: bool = False
    assembler: Assembler = field(default_factory=Assembler)
    passed: list[Event] = field(default_factory=list)
    seen: list[StreamEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        for event in self.old:
            self.assembler.push(event)
        loose = self.assembler.loose()
        assert isinstance(loose, Loose)
        anchor = find_anchor(loose.text)
        assert isinstance(anchor, Anchor)
        self.assembler.hand_over()
        seam = (
            PrefillSeam(loose.text, loose.text, echoed=False)
            if self.prefill
            else AnchorSeam(loose.text, anchor)
        )
        self.splice = Splice(self.assembler, loose, seam)

    def push(self, *events: Event) -> "Joined":
        for event in self.splice.push(events):
            self.passed.append(event)
            self.seen += self.assembler.push(event)
        return self

    @property
    def text(self) -> str:
        return self.assembler.reply("complete").text

    @property
    def delivered(self) -> str:
        return "".join(event.delta for event in self.seen if isinstance(event, TextDelta))


def said(text: str, index: int = 0) -> list[Event]:
    """A message that says this, word by word."""
    words = text.split(" ")
    return [message(index), *(TextDelta(f" {w}" if n else w, index) for n, w in enumerate(words))]


# What belongs to the answer.


def test_the_new_message_is_the_rest_of_the_open_one() -> None:
    """The text goes on in the old item, and a consumer sees only what is new."""
    joined = Joined().push(*said(ANCHOR + REST), DONE)
    assert (joined.text, joined.delivered, joined.splice.failed) == (WHOLE, REST, "")
    assert {event.index for event in joined.passed if isinstance(event, TextDelta)} == {0}
    assert len(joined.assembler.reply("complete").items) == 1


def test_after_a_prefill_the_new_message_is_the_rest() -> None:
    """Without an anchor, every character counts."""
    joined = Joined(prefill=True).push(*said(REST), DONE)
    assert (joined.text, joined.delivered) == (WHOLE, REST)


def test_thinking_and_talking_before_the_rest_are_left_out() -> None:
    """Reasoning and commentary on the way are no part of the answer; they count as output that arrived."""
    joined = Joined().push(
        ItemStarted(0, {"type": "reasoning"}),
        ReasoningDelta("Where was I?", 0),
        ItemDone(0, {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Where was I?"}]}),
        message(1, phase="commentary"),
        TextDelta("Let me go on.", 1),
        TextDone("Let me go on.", "text", 1),
        done("Let me go on.", 1, phase="commentary"),
    )
    assert (joined.passed, joined.splice.progressed) == ([], True)
    assert joined.splice.seen == len("Where was I?") + len("Let me go on.")
    reply = joined.push(*said(ANCHOR + REST, 2), DONE).assembler.reply("complete")
    assert (reply.text, reply.reasoning, reply.commentary) == (WHOLE, "", "")


def test_what_follows_the_joined_message_is_kept() -> None:
    """Calls, reasoning and another message get the next free numbers and reach the reply."""
    old = (ItemStarted(0, {"type": "reasoning"}), ReasoningDelta("Hm.", 0), message(3), TextDelta(GIVEN, 3))
    joined = Joined(old).push(
        *said(ANCHOR + REST), done(ANCHOR + REST),
        ItemStarted(1, {"type": "reasoning"}), ReasoningDelta("And now?", 1),
        *said("One more thing.", 2), TextDone("One more thing.", "text", 2), done("One more thing.", 2),
        *call(7), DONE,
    )  # fmt: skip
    reply = joined.assembler.reply("complete")
    assert (reply.text, reply.reasoning, reply.tool_calls) == (
        WHOLE + "One more thing.",
        "Hm.And now?",
        (LOOK,),
    )
    assert [item["type"] for item in reply.items if item["type"] != "reasoning"] == [
        "message", "message", "function_call",
    ]  # fmt: skip
    assert [event.index for event in joined.passed if isinstance(event, ItemStarted)] == [4, 5, 6]
    assert joined.seen[-1] == LOOK


@pytest.mark.parametrize("last", ["", ".", REST])
def test_a_call_right_behind_the_last_words_is_kept(last: str) -> None:
    """A call ends the text before it, and with it all doubt about what is behind the anchor."""
    joined = Joined().push(*said(ANCHOR + last), *call(1), Finished("completed", "tool_calls"))
    reply = joined.assembler.reply("complete")
    assert (joined.splice.failed, reply.text, reply.tool_calls) == ("", GIVEN + last, (LOOK,))


def test_a_reply_without_deltas_is_joined() -> None:
    """A server that sends the whole message at once, or a whole body, says the same."""
    for events in ([done(ANCHOR + REST)], [TextDone(ANCHOR + REST, "text"), done(ANCHOR + REST)]):
        joined = Joined().push(message(), *events, DONE)
        assert (joined.text, joined.delivered) == (WHOLE, REST)


@pytest.mark.parametrize("count", range(1, 12))
def test_a_done_text_that_says_more_is_caught_up_with(count: int) -> None:
    """What the deltas had not said before the text was done is said then, whether it had joined or not."""
    some = said(ANCHOR + REST)[:count]
    for ending in ([TextDone(ANCHOR + REST, "text")], [done(ANCHOR + REST)]):
        joined = Joined().push(*some, *ending, DONE)
        assert (joined.text, joined.delivered, joined.assembler.revised) == (WHOLE, REST, False)


def test_a_revised_text_replaces_what_was_said() -> None:
    """A provider that changes its mind about the rest changes the rest, and the consumer is to be told."""
    for ending in (TextDone(ANCHOR + " fell.", "text"), done(ANCHOR + " fell.")):
        joined = Joined().push(*said(ANCHOR + REST), ending)
        assert (joined.text, joined.assembler.revised) == (GIVEN + " fell.", True)


def test_a_done_message_is_the_whole_answer() -> None:
    """The finished item holds the old text and the new, its own id, and annotations where they now belong."""
    start, end = 34, 38
    note = {"type": "url_citation", "start_index": start, "end_index": end, "url": "https://x", "title": "t"}
    old = (message(phase="final_answer"), TextDelta("First. ", 0, 0), TextDelta(GIVEN, 0, 1))
    joined = Joined(old).push(*said(ANCHOR + REST), done(ANCHOR + REST, notes=[note]), DONE)
    (item,) = joined.assembler.reply("complete").items
    first, last = item["content"]
    assert (item["id"], item["status"], first["text"], last["text"]) == (
        "msg_new",
        "completed",
        "First. ",
        WHOLE,
    )
    (moved,) = last["annotations"]
    assert (ANCHOR + REST)[start:end] == last["text"][moved["start_index"] : moved["end_index"]] == "from"
    assert (moved["url"], joined.text, joined.assembler.revised) == ("https://x", "First. " + WHOLE, False)


@pytest.mark.parametrize(
    ("finished", "status", "reason"),
    [
        (DONE, "complete", "stop"),
        (Finished("incomplete", "length"), "incomplete", "length"),
        (Finished("incomplete", "content_filter"), "incomplete", "content_filter"),
    ],
)
def test_the_end_of_the_new_stream_is_the_end_of_the_answer(
    finished: Finished, status: Any, reason: str
) -> None:
    """Why the new stream ended is why the answer ended, and what was undecided is decided."""
    joined = Joined().push(message(), TextDelta(f"{ANCHOR} c"), finished)
    reply = joined.assembler.reply(status)
    assert (reply.text, reply.finish_reason) == (GIVEN + " c", reason)


def test_names_and_tokens_are_those_of_the_new_stream() -> None:
    """The reply has the id and model of the stream that finished it, whose tokens are its own."""
    counts = TokenCounts(input_tokens=50, output_tokens=5)
    old = (Started("old", "m1"), UsageReport(TokenCounts(output_tokens=99)), message(), TextDelta(GIVEN))
    joined = Joined(old)
    joined.push(Started("new", "m2"), *said(ANCHOR + REST), Other("still at it"))
    silent = joined.assembler.counts
    joined.push(UsageReport(counts), DONE)
    reply = joined.assembler.reply("complete")
    assert (reply.id, reply.model, silent, joined.assembler.counts) == ("new", "m2", None, counts)


# What does not join.

REFUSAL = RefusalDelta("I cannot go on with that.")
FAILS: dict[str, list[Event]] = {
    "something else": [*said("I would rather talk about ships and harbours today."), done("I would"), DONE],
    "no text at all": [DONE],
    "an empty message": [message(), done(""), DONE],
    "only thoughts": [ItemStarted(0, {"type": "reasoning"}), ReasoningDelta("Hm."), DONE],
    "half of the last words": [message(), TextDelta(ANCHOR[:9]), DONE],
    "a call at once": [*call(0), DONE],
    "a call before the last words": [message(), TextDelta("Well."), *call(1), DONE],
    "a hosted tool": [ItemStarted(0, {"type": "web_search_call"}), *said(ANCHOR + REST, 1), DONE],
    "a refusal": [message(), REFUSAL, *said(ANCHOR + REST, 1)[1:], DONE],
    "a text that contradicts itself": [message(), TextDelta("The la"), TextDone("A lamp", "text"), DONE],
    "other talk than was said": [
        *said(f"Here: {ANCHOR}{REST} {'Quiet. ' * 80}"), TextDone(f"There: {ANCHOR}{REST}", "text"), DONE,
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", FAILS)
def test_a_stream_that_does_not_go_on_fails_and_leaves_no_trace(name: str) -> None:
    """It says why, and nothing else of the stream counts; text that had joined is never taken back."""
    joined = Joined().push(*FAILS[name])
    assert joined.splice.failed
    kept = [event for event in joined.passed if not isinstance(event, TextDelta)]
    assert kept == []
    assert joined.text.startswith(GIVEN)
    assert joined.text == GIVEN or name == "other talk than was said"
    assert joined.push(*said(ANCHOR + REST, 9)).splice.failed
    assert joined.assembler.finished is None


def test_a_refusal_behind_the_last_words_is_the_answers_own() -> None:
    """A model that goes on and then declines has declined."""
    joined = Joined().push(*said(ANCHOR + REST), REFUSAL, DONE)
    reply = joined.assembler.reply("complete")
    assert (reply.text, reply.refusal) == (WHOLE, "I cannot go on with that.")


def test_a_stream_that_breaks_before_it_joined_leaves_no_trace() -> None:
    """What was undecided when the stream broke is forgotten, and the answer can be continued once more."""
    joined = Joined().push(message(), TextDelta(f"Of course, here it is:\n\n{ANCHOR}{REST}"))
    assert (joined.text, joined.passed) == (GIVEN, [])
    loose = joined.assembler.loose()
    assert isinstance(loose, Loose)
    assert loose.text == GIVEN


def test_an_error_of_the_provider_is_passed_on() -> None:
    """A failed stream is the provider's failure and not a text that did not join."""
    failed = Finished("failed", error=ErrorInfo(code="server_error"))
    joined = Joined().push(message(), TextDelta(ANCHOR), failed)
    assert (joined.splice.failed, joined.text) == ("", GIVEN)
    assert joined.assembler.finished == failed


def test_another_message_before_the_rest_is_over_is_not_mixed_in() -> None:
    """The first message is the rest; one beside it, before the last words were found, is left out."""
    joined = Joined().push(message(0), message(1), TextDelta("Beside. ", 1), *said(ANCHOR + REST)[1:], DONE)
    assert joined.text == WHOLE


@given(st.integers(0, 2**32))
def test_pieces_make_no_difference(seed: int) -> None:
    """However the new text comes in deltas and whatever stands between them, the answer is the same."""
    rng = random.Random(seed)
    new = rng.choice(["", "Of course:\n\n", GIVEN[:9]]) + ANCHOR + REST
    cuts = sorted(rng.choices(range(len(new) + 1), k=rng.randrange(9)))
    events: list[Event] = [message()]
    for a, b in zip([0, *cuts], [*cuts, len(new)], strict=True):
        between: tuple[Event, ...] = (Other("ping"), Started("new"))
        events += [TextDelta(new[a:b]), rng.choice(between)]
    events += rng.choice([[], [TextDone(new, "text")], [TextDone(new, "text"), done(new)]])
    joined = Joined().push(*events, DONE)
    assert (joined.text, joined.delivered, joined.assembler.revised) == (WHOLE, REST, False)
