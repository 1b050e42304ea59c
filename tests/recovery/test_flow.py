"""The story of a call, told by its actions: what was sent, waited, said, and how it ended."""

from typing import Any

import pytest
from hands import Play, Story, broke, chunked, clean_end, cut, drive, reject, stopped, whole

from sidestream import errors
from sidestream.recovery.clocks import Timeouts
from sidestream.recovery.faults import FaultKind
from sidestream.recovery.flow import Call, Rejected, Sleep, Tell, Woke, flow
from sidestream.recovery.policy import Backoff, Policy
from sidestream.route import Route
from sidestream.wire.events import Restarted, TextDelta
from sidestream.wire.prompt import Request
from sidestream.wire.sse import Limits
from streams import Stream, named, route, tool

K = FaultKind
CHAT, RESPONSES = named("chat/plain-text"), named("responses/plain-text")
TEXT = CHAT.expect["text"]
HALF = CHAT.data.index(b"[DONE]") // 2
USER = ({"role": "user", "content": "hi"},)
QUOTA = reject(429, {"error": {"code": "insufficient_quota", "message": "no money"}})


def call(*routes: Route, params: dict[str, Any] | None = None, tools: int = 0, **settings: Any) -> Call:
    request = Request(USER, tools=tuple(tool(f"f{n}") for n in range(tools)), params=params or {})
    return Call(request, routes or (route("chat"),), **settings)


TWO = (route("chat"), route("responses", "second"))


def told(story: Story) -> tuple[str, int]:
    """The text a live consumer ends with, and how often it was told to begin anew."""
    text, restarts = "", 0
    for _, seen in story.seen:
        for event in seen:
            if isinstance(event, Restarted):
                text, restarts = "", restarts + 1
            elif isinstance(event, TextDelta):
                text += event.delta
    return text, restarts


# name -> (call, what happens, the story, the ledger's endings)
STORIES: dict[str, tuple[Call, list[Play], list[str], list[str]]] = {
    "clean": (call(), [whole(CHAT)], ["send main"], ["complete"]),
    "cut, then whole": (
        call(),
        [cut(CHAT, HALF), whole(CHAT)],
        ["send main", "tell restart", "sleep 0.25", "send main"],
        ["dropped", "complete"],
    ),
    "clean end without the end, then whole": (
        call(),
        [clean_end(CHAT, HALF), whole(CHAT)],
        ["send main", "tell restart", "sleep 0.25", "send main"],
        ["dropped", "complete"],
    ),
    "cut after the last word": (call(), [cut(CHAT, CHAT.verdict["end"])], ["send main"], ["complete"]),
    "no progress twice, then the second route": (
        call(*TWO),
        [broke(K.CONNECT), broke(K.CONNECT), whole(RESPONSES)],
        ["send main", "tell restart", "sleep 0.25", "send main", "tell reroute", "send second"],
        ["connect", "connect", "complete"],
    ),
    "quota, then the second route at once": (
        call(*TWO),
        [QUOTA, whole(RESPONSES)],
        ["send main", "tell reroute", "send second"],
        ["quota", "complete"],
    ),
    "retry-after is waited for": (
        call(),
        [reject(429, retry_after="30"), whole(CHAT)],
        ["send main", "tell restart", "sleep 30.5", "send main"],
        ["throttled", "complete"],
    ),
    "a short retry-after is waited for although another route is there": (
        call(*TWO),
        [reject(429, retry_after="2"), whole(CHAT)],
        ["send main", "tell restart", "sleep 2.5", "send main"],
        ["throttled", "complete"],
    ),
    "another route is nearer than the wait": (
        call(*TWO),
        [reject(429, retry_after="30"), whole(RESPONSES)],
        ["send main", "tell reroute", "send second"],
        ["throttled", "complete"],
    ),
    "an overload is asked again": (
        call(),
        [reject(503), whole(CHAT)],
        ["send main", "tell restart", "sleep 0.25", "send main"],
        ["overloaded", "complete"],
    ),
    "an error in the stream is asked again": (
        call(),
        [whole(named("broken/chat-error-openai")), whole(CHAT)],
        ["send main", "tell restart", "sleep 0.25", "send main"],
        ["server", "complete"],
    ),
    "garbage is asked again": (
        call(),
        [chunked([b"data: nonsense\n\n"]), whole(CHAT)],
        ["send main", "tell restart", "sleep 0.25", "send main"],
        ["garbled", "complete"],
    ),
    "a flood goes to the second route": (
        call(*TWO, limits=Limits(line=4000)),
        [chunked([b"data: " + b"x" * 5000]), whole(RESPONSES)],
        ["send main", "tell reroute", "send second"],
        ["oversize", "complete"],
    ),
    "a stall is asked again": (
        call(),
        [cut(CHAT, HALF, K.STALLED), whole(CHAT)],
        ["send main", "tell restart", "sleep 0.25", "send main"],
        ["stalled", "complete"],
    ),
    "only the end marker is missing": (
        call(route("responses")),
        [clean_end(RESPONSES, RESPONSES.verdict["settle"][0])],
        ["send main"],
        ["settled"],
    ),
    "a call could still have followed": (
        call(route("responses"), tools=1),
        [clean_end(RESPONSES, RESPONSES.verdict["settle"][0]), whole(RESPONSES)],
        ["send main", "tell restart", "sleep 0.25", "send main"],
        ["dropped", "complete"],
    ),
    "an empty answer where that is a failure": (
        call(empty_is_failure=True),
        [whole(named("broken/chat-done-empty")), whole(CHAT)],
        ["send main", "tell restart", "sleep 0.25", "send main"],
        ["empty", "complete"],
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_story_of_a_call_that_succeeds(name: str) -> None:
    """The flow takes exactly these actions, ends with the whole answer, and books every attempt."""
    asked, plays, actions, endings = STORIES[name]
    story = drive(asked, plays)
    assert story.error is None
    assert story.reply is not None
    assert story.actions == actions
    assert [ended for _, _, ended in story.ledger] == endings
    assert story.reply.status == "complete"
    assert story.reply.text in (TEXT, RESPONSES.expect["text"])
    assert story.reply.settled is ("settled" in endings)


# name -> (call, what happens, the story, error, kind of fault)
FAILURES: dict[str, tuple[Call, list[Play], list[str], type[BaseException], FaultKind]] = {
    "a refusal is final": (
        call(*TWO),
        [whole(named("chat/refusal"))],
        ["send main"],
        errors.Refused,
        K.REFUSED,
    ),
    "a content filter is final": (
        call(*TWO),
        [whole(named("chat/content-filter"))],
        ["send main"],
        errors.Refused,
        K.REFUSED,
    ),
    "a bad request is final": (call(*TWO), [reject(422)], ["send main"], errors.BadRequest, K.BAD_REQUEST),
    "auth, and no other route": (call(), [reject(401)], ["send main"], errors.AuthFailed, K.AUTH),
    "context length, and no other route": (
        call(),
        [reject(413)],
        ["send main"],
        errors.ContextTooLong,
        K.CONTEXT_LENGTH,
    ),
    "a wait too long to be waited": (
        call(),
        [reject(429, retry_after="121")],
        ["send main"],
        errors.RateLimited,
        K.THROTTLED,
    ),
    "a wait longer than the time left": (
        call(timeouts=Timeouts(total=20)),
        [reject(429, retry_after="30")],
        ["send main"],
        errors.RateLimited,
        K.THROTTLED,
    ),
    "no progress twice": (
        call(),
        [broke(K.CONNECT)],
        ["send main", "tell restart", "sleep 0.25", "send main"],
        errors.StreamDropped,
        K.CONNECT,
    ),
    "the same fault at the same place twice": (
        call(),
        [cut(CHAT, HALF)],
        ["send main", "tell restart", "sleep 0.25", "send main"],
        errors.StreamDropped,
        K.DROPPED,
    ),
    "the same fault on every route": (
        call(*TWO),
        [reject(500)],
        ["send main", "tell restart", "sleep 0.25", "send main",
         "tell reroute", "send second", "tell restart", "sleep 0.25", "send second"],
        errors.ServerError,
        K.SERVER,
    ),
    "no recoveries means no further request": (
        call(*TWO, policy=Policy(recoveries=0)),
        [cut(CHAT, HALF)],
        ["send main"],
        errors.StreamDropped,
        K.DROPPED,
    ),
    "no recoveries, for a rejected parameter too": (
        call(policy=Policy(recoveries=0), params={"temperature": 0}),
        [reject(400, {"error": {"message": "m", "code": "unsupported_parameter", "param": "temperature"}})],
        ["send main"],
        errors.BadRequest,
        K.PARAMETER,
    ),
    "the deadline": (
        call(*TWO, timeouts=Timeouts(total=1)),
        [broke(K.DEADLINE, clock="total")],
        ["send main"],
        errors.DeadlineExceeded,
        K.DEADLINE,
    ),
    "a fault when no time is left": (
        call(*TWO, timeouts=Timeouts(total=1)),
        [broke(K.DROPPED)],
        ["send main"],
        errors.StreamDropped,
        K.DROPPED,
    ),
    "a stall on the only route": (
        call(policy=Policy(tries=1)),
        [broke(K.STALLED, clock="first")],
        ["send main"],
        errors.DeadlineExceeded,
        K.STALLED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_story_of_a_call_that_fails(name: str) -> None:
    """The flow takes exactly these actions and ends with this error, which carries what the caller needs."""
    asked, plays, actions, error, kind = FAILURES[name]
    story = drive(asked, plays)
    assert story.actions == actions
    assert type(story.error) is error
    assert isinstance(story.error, errors.CallFailed)
    assert story.error.fault.kind is kind
    assert story.error.reply is not None
    assert story.error.reply.status != "complete"
    assert story.error.reply.attempts == story.error.attempts
    assert len(story.error.attempts) == len(story.sends)
    assert story.error.hint
    assert story.error.attempts[-1].route in str(story.error)


def test_without_a_route_nothing_is_sent() -> None:
    """No route is a typed error before the first action."""
    story = drive(Call(Request(USER), ()), [whole(CHAT)])
    assert (story.actions, type(story.error)) == ([], errors.NoRoute)


# Parameters.


def rejects(param: str) -> Play:
    return reject(400, {"error": {"message": "m", "code": "unsupported_parameter", "param": param}})


def test_a_rejected_parameter_is_dropped_once_each() -> None:
    """Each parameter the provider names is left out, at once and on the same route, until it is content."""
    asked = call(params={"temperature": 0, "top_p": 1, "user": "u"})
    story = drive(asked, [rejects("temperature"), rejects("top_p"), whole(CHAT)])
    assert story.actions == ["send main"] * 3
    assert [set(body) & set(asked.request.params) for body in story.bodies] == [
        {"temperature", "top_p", "user"},
        {"top_p", "user"},
        {"user"},
    ]
    assert story.reply is not None


def test_a_parameter_that_was_not_sent_cannot_be_dropped() -> None:
    """The same complaint again, or one about a field we do not set, ends the call."""
    story = drive(call(params={"temperature": 0}), [rejects("temperature")])
    assert story.actions == ["send main"] * 2
    assert isinstance(story.error, errors.BadRequest)
    assert drive(call(), [rejects("messages")]).actions == ["send main"]


@pytest.mark.parametrize(
    ("wire", "given_name", "complaint"),
    [
        ("chat", "max_output_tokens", "max_tokens"),
        ("chat", "reasoning", "reasoning_effort"),
        ("chat", "response_format", "response_format"),
        ("responses", "response_format", "text.format"),
        ("responses", "max_tokens", "max_output_tokens"),
        ("responses", "reasoning_effort", "reasoning.effort"),
        ("responses", "reasoning", "reasoning[effort]"),
    ],
)
def test_a_rejected_parameter_is_known_by_the_name_of_its_wire(
    wire: str, given_name: str, complaint: str
) -> None:
    """The provider complains about the field as it was sent, whatever the caller called it."""
    stream = CHAT if wire == "chat" else RESPONSES
    asked = call(route(wire), params={given_name: {"effort": "low"}})
    story = drive(asked, [rejects(complaint), whole(stream)])
    assert story.reply is not None
    assert complaint.split(".")[0].split("[")[0] in story.bodies[0]
    assert set(story.bodies[1]) < set(story.bodies[0])


# Stops.


@pytest.mark.parametrize("kind", ["cancel", "interrupt"])
def test_a_stop_while_reading_ends_the_call(kind: str) -> None:
    """A stop in an attempt raises Cancelled with the partial and the ledger, and nothing is retried."""
    story = drive(call(), [stopped([CHAT.data[:HALF]], kind)])
    assert story.actions == ["send main"]
    assert isinstance(story.error, errors.Cancelled)
    assert story.error.kind == kind
    assert story.error.reply is not None
    assert story.error.reply.text
    assert TEXT.startswith(story.error.reply.text)
    assert story.ledger == [("main", "send", kind)]


@pytest.mark.parametrize(("where", "last"), [("sleep", "sleep 0.25"), ("tell", "tell restart")])
def test_a_stop_between_attempts_ends_the_call(where: str, last: str) -> None:
    """A stop during the notice or the wait is the end: no further request is made."""
    story = drive(call(), [cut(CHAT, HALF)], stop_in=where)
    assert story.actions[-1] == last
    assert isinstance(story.error, errors.Cancelled)
    assert story.error.reply is not None
    assert story.error.reply.text
    assert story.ledger == [("main", "send", "dropped")]


def test_a_stop_is_no_exception_that_a_retry_loop_could_swallow() -> None:
    """Cancelled is not an Exception."""
    assert not issubclass(errors.Cancelled, Exception)


# What is carried along.


def test_the_ledger_says_what_each_attempt_cost() -> None:
    """Route, rung, end, tokens kept and wasted, reported or estimated, seconds and status."""
    story = drive(call(), [cut(CHAT, HALF), whole(CHAT)])
    assert story.reply is not None
    first, second = story.reply.attempts
    partial = story.seen[0][0].assembler.reply("dropped").text
    assert (first.route, first.rung, first.ended, first.detail) == ("main", "send", "dropped", "cut")
    assert (first.confidence, first.kept, first.tokens) == ("estimated", 0, -(-len(partial) // 4))
    assert first.wasted == first.tokens
    assert first.tokens
    assert (second.rung, second.ended, second.confidence) == ("restart", "complete", "reported")
    assert (second.kept, second.wasted) == (CHAT.expect["usage"]["output_tokens"], 0)
    assert [attempt.seconds for attempt in (first, second)] == [1.0, 1.0]
    assert (first.status, second.status) == (200, 200)


def test_a_rejection_is_booked_with_its_status() -> None:
    """An answer that was no stream has its status and no tokens."""
    story = drive(call(*TWO), [reject(401), whole(RESPONSES)])
    assert story.reply is not None
    first = story.reply.attempts[0]
    assert (first.status, first.tokens, first.ended) == (401, 0, "auth")


def test_request_ids_are_kept() -> None:
    """The provider's id of each exchange is in its ledger line."""
    plays = [cut(CHAT, HALF), whole(CHAT)]

    def with_id(play: Play) -> Play:
        def played(exchange: Any, at: float) -> Any:
            result = play(exchange, at)
            exchange.opened({"x-request-id": f"req-{at:g}"})
            return result

        return played

    story = drive(call(), [with_id(play) for play in plays])
    assert story.reply is not None
    assert [attempt.request_id for attempt in story.reply.attempts] == ["req-1", "req-2.25"]


def test_an_error_says_when_to_come_back() -> None:
    """`retry_at` is the wall time of the failure plus what the provider asked for."""
    story = drive(call(), [reject(429, {"error": {"code": "slow_down", "message": "m"}}, retry_after="500")])
    error = story.error
    assert isinstance(error, errors.RateLimited)
    assert (error.status, error.code, error.retry_at) == (429, "slow_down", 1000.0 + 1.0 + 500.0)
    assert "500" in error.hint


def test_a_deadline_names_its_clock_and_setting() -> None:
    """The message and the fields say which clock ran out and which setting changes it."""
    asked = call(timeouts=Timeouts(idle=7), policy=Policy(tries=1, recoveries=0))
    error = drive(asked, [broke(K.STALLED, clock="idle")]).error
    assert isinstance(error, errors.DeadlineExceeded)
    assert (error.clock, error.setting) == ("idle", "timeout.idle")
    assert "timeout.idle = 7 s" in str(error)


def test_the_best_partial_is_handed_over() -> None:
    """When several attempts brought something, the error carries the longest."""
    story = drive(call(), [cut(CHAT, HALF), cut(CHAT, HALF // 2), broke(K.CONNECT)])
    assert isinstance(story.error, errors.StreamDropped)
    assert story.error.reply is not None
    best = max((ex.assembler.reply("dropped").text for ex, _ in story.seen), key=len)
    assert story.error.reply.text == best


def test_progress_renews_the_tries_but_not_the_recoveries() -> None:
    """Attempts that bring something may go on, eight recoveries long and no longer."""
    frames = [at for at in range(len(CHAT.data)) if CHAT.data.startswith(b"\n\n", at)]
    ends = [frames[2] + 2, frames[3] + 2] * 8
    story = drive(call(), [cut(CHAT, end) for end in ends])
    assert len(story.sends) == 9
    assert isinstance(story.error, errors.StreamDropped)
    assert "all 8 recoveries" in story.error.hint


def test_a_second_route_gets_its_own_request() -> None:
    """Another route is asked in its own wire, with its own model, and a share of the time was kept for it."""
    asked = call(*TWO, timeouts=Timeouts(total=100))
    story = drive(asked, [QUOTA, whole(RESPONSES)])
    first, second = story.sends
    assert (first.clocks.idle, second.clocks.idle) == (50.0, 60.0)
    assert "messages" in story.bodies[0]
    assert "input" in story.bodies[1]
    assert first.clocks.deadline == second.clocks.deadline == 100


def test_every_recovery_is_told() -> None:
    """A notice names the fault, the rung, both routes and the wait."""
    story = drive(call(*TWO), [reject(500), QUOTA, whole(RESPONSES)])
    assert [(n.fault, n.rung, n.route, n.next_route, n.delay) for n in story.notices] == [
        ("server", "restart", "main", "main", 0.25),
        ("quota", "reroute", "main", "second", 0.0),
    ]
    assert all(notice.detail for notice in story.notices)


# Live.


def test_a_live_consumer_gets_the_rest_only() -> None:
    """After a cut the same answer goes on where it stopped, without a word repeated."""
    story = drive(call(live=True), [cut(CHAT, HALF), whole(CHAT)])
    assert told(story) == (TEXT, 0)


def test_a_live_consumer_is_told_when_the_answer_begins_anew() -> None:
    """Another answer from another route is announced, and is whole."""
    story = drive(
        call(*TWO, live=True), [cut(CHAT, HALF), broke(K.QUOTA), whole(named("responses/keepalive"))]
    )
    assert told(story) == (named("responses/keepalive").expect["text"], 1)


def test_a_held_call_delivers_nothing() -> None:
    """Nothing partial leaks to a caller who waits for the reply."""
    story = drive(call(), [cut(CHAT, HALF), whole(CHAT)])
    assert all(not seen for _, seen in story.seen)


def shorter(stream: Stream, text: str) -> bytes:
    """A Responses stream with another text, cut right before its terminal event."""
    data = stream.data[: stream.verdict["settle"][0]]
    head, tail = data.split(b"event: response.output_text.delta", 1)[0], data[data.rindex(b"event: ") :]
    return head + tail.replace(stream.expect["text"].encode(), text.encode())


def test_a_live_answer_settles_only_if_it_covers_what_was_said() -> None:
    """A stream that ends whole but shorter than what the consumer has cannot settle: that were a mixture."""
    half = RESPONSES.data[: RESPONSES.data.index(b"response.output_text.done")]
    plays = [chunked([half]), chunked([shorter(RESPONSES, "Streams")]), whole(RESPONSES)]
    held = drive(call(route("responses")), plays)
    assert held.reply is not None
    assert (held.reply.text, held.reply.settled) == ("Streams", True)
    live = drive(call(route("responses"), live=True), plays)
    assert live.reply is not None
    assert told(live)[0] == live.reply.text == RESPONSES.expect["text"]


def test_a_policy_without_backoff_never_sleeps() -> None:
    """With all backoff times at zero there is no wait in the story."""
    asked = call(policy=Policy(backoff=Backoff(0, 0, 0)))
    story = drive(asked, [cut(CHAT, HALF), whole(CHAT)])
    assert story.actions == ["send main", "tell restart", "send main"]


def test_incomplete_is_a_reply() -> None:
    """An answer cut by its token limit is a reply with that status, not an error."""
    story = drive(call(), [whole(named("chat/length"))])
    assert story.reply is not None
    assert (story.reply.status, story.reply.finish_reason) == ("incomplete", "length")


def test_a_retry_after_date_counts_from_the_wall_clock() -> None:
    """A `Retry-After` date without a `Date` header is read against the time of the answer."""
    call = Call(
        Request(({"role": "user", "content": "hi"},)), (route("chat"),), policy=Policy(longest_wait=120)
    )
    story = flow(call, now=0.0, unix_time=0.0, random=lambda: 0.0)
    next(story)
    headers = {"retry-after": "Thu, 01 Jan 1970 00:00:31 GMT"}
    assert isinstance(story.send(Rejected(429, headers, b"{}", at=1.0)), Tell)
    assert story.send(Woke(at=1.0)) == Sleep(30.0)
    story.close()
