"""The story of a call, told by its actions: what was sent, waited, said, and how it ended."""

from dataclasses import replace
from typing import Any

import pytest
from hands import Play, Story, broke, chunked, clean_end, cut, drive, reject, stopped, whole

from sidestream import errors
from sidestream.recovery.clocks import Timeouts
from sidestream.recovery.faults import FaultKind
from sidestream.recovery.flow import Call, Queue, Rejected, Sleep, Tell, Woke, flow
from sidestream.recovery.origins import Origins
from sidestream.recovery.policy import Backoff, Policy
from sidestream.recovery.queues import LONGEST, Place, Queues
from sidestream.route import Route, RouteClocks, Secret
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
        ["send main", "tell restart", "sleep 0.5", "send main"],  # nobody else is there: it gets a moment
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


# With which key.


class Keys:
    """A credential; what comes of renewing it is told by the test."""

    label = "keys of the test"

    def apply(self, route: Route) -> Route:
        return route

    def renew(self, route: Route, seconds: float) -> Route | None:  # noqa: ARG002
        raise AssertionError("a pure room renews nothing")


def signed(name: str = "main", key: str = "key-one", **fields: Any) -> Route:
    given = route("chat", name)
    return replace(given, api_key=Secret(key), credential=Keys(), **fields)


def renewed(key: str = "key-two") -> Any:
    return lambda action: replace(action.route, api_key=Secret(key), expires=None)


def keys_of(story: Story) -> list[str]:
    return [send.route.api_key.reveal() if send.route.api_key else "" for send in story.sends]


def test_a_rejected_key_is_renewed_once() -> None:
    """401, another key, the same request at once; the ledger says why."""
    story = drive(call(signed()), [reject(401), whole(CHAT)], renew=renewed())
    assert story.actions == ["send main", "renew main 30", "send main"]
    assert keys_of(story) == ["key-one", "key-two"]
    assert story.bodies[0] == story.bodies[1]
    assert story.reply is not None
    assert story.reply.attempts[1].why == ("the key was renewed",)


def test_a_renewed_key_that_is_rejected_too_is_the_end_of_its_route() -> None:
    """No second renewal; the next route is asked."""
    asked = call(signed(), route("responses", "second"))
    story = drive(asked, [reject(401), reject(401), whole(RESPONSES)], renew=renewed())
    assert story.actions == ["send main", "renew main 30", "send main", "tell reroute", "send second"]


def test_why_there_is_no_other_key_is_told() -> None:
    """In the error, beside what the provider said."""
    story = drive(call(signed()), [reject(401, "who?")], renew=lambda _: "the sign-in is over: codex login")
    assert story.actions == ["send main", "renew main 30"]
    assert isinstance(story.error, errors.AuthFailed)
    assert "who?; the sign-in is over: codex login" in str(story.error)


def test_a_key_that_ran_out_is_renewed_before_it_is_used() -> None:
    """The wall clock says when; the old key is not sent."""
    story = drive(call(signed(expires=1000.0)), [whole(CHAT)], renew=renewed())
    assert story.actions == ["renew main 30", "send main"]
    assert keys_of(story) == ["key-two"]
    assert drive(call(signed(expires=1000.1)), [whole(CHAT)]).actions == ["send main"]


def test_a_key_that_ran_out_and_cannot_be_renewed_is_tried_all_the_same() -> None:
    """Clocks go wrong. If it is rejected, the error says why there is no other; nobody is asked twice."""
    story = drive(call(signed(expires=1.0)), [reject(401, "who?")], renew=lambda _: "no network")
    assert story.actions == ["renew main 30", "send main"]
    assert "who?; no network" in str(story.error)


def test_a_renewal_takes_no_more_than_its_share() -> None:
    """Of the call's time with no other route, of this route's share with one."""
    one = call(signed(expires=1.0), timeouts=Timeouts(total=10))
    assert drive(one, [whole(CHAT)], renew=renewed()).actions[0] == "renew main 10"
    two = call(signed(expires=1.0), route("responses", "second"), timeouts=Timeouts(total=10))
    assert drive(two, [whole(CHAT)], renew=renewed()).actions[0] == "renew main 5"


@pytest.mark.parametrize("status", [402, 403, 429, 500])
def test_only_a_rejected_key_is_renewed(status: int) -> None:
    """Money, rates and failures are not the key's."""
    story = drive(call(signed()), [reject(status)], renew=renewed())
    renewals = [action for action in story.actions if action.startswith("renew")]
    assert len(renewals) == (status == 403)


def test_a_stop_while_a_key_is_renewed_ends_the_call() -> None:
    """Nothing more is sent."""
    story = drive(call(signed()), [reject(401)], stop_in="renew")
    assert story.actions == ["send main", "renew main 30"]
    assert isinstance(story.error, errors.Cancelled)
    assert story.ledger == [("main", "send", "auth")]


def test_a_renewal_is_no_try() -> None:
    """After it the route has all its tries, and still one renewal."""
    plays = [reject(401), broke(K.DROPPED), whole(CHAT)]
    story = drive(call(signed()), plays, renew=renewed())
    assert story.actions == [
        "send main", "renew main 30", "send main", "tell restart", "sleep 0.5", "send main",
    ]  # fmt: skip


def test_a_rejected_parameter_is_no_try() -> None:
    """Two fields dropped, and the route may still fail once."""
    asked = call(params={"temperature": 0, "top_p": 1})
    story = drive(asked, [rejects("temperature"), rejects("top_p"), broke(K.DROPPED), whole(CHAT)])
    assert story.actions == ["send main"] * 3 + ["tell restart", "sleep 0.5", "send main"]


# A way back that is asked for something else keeps its way.


def continuable(**fields: Any) -> Route:
    return replace(signed(**fields), continuation="trailing")


def test_a_continuation_goes_on_with_a_renewed_key() -> None:
    """The rest is asked for again, not the whole answer."""
    story = drive(call(continuable()), [cut(CHAT, HALF), reject(401), whole(CHAT)], renew=renewed())
    assert [body["messages"][-1]["role"] for body in story.bodies][:3] == ["user", "assistant", "assistant"]
    assert [rung for _, rung, _ in story.ledger][:3] == ["send", "prefill", "prefill"]


def test_a_continuation_goes_on_without_a_rejected_parameter() -> None:
    """Elsewhere a field of the call may be unknown: it goes, the continuation stays."""
    asked = call(route("chat"), replace(route("chat", "second"), continuation="trailing"), params={"seed": 1})
    story = drive(asked, [cut(CHAT, HALF), QUOTA, rejects("seed"), whole(CHAT)])
    assert [send.route.name for send in story.sends][2:4] == ["second", "second"]
    assert [body["messages"][-1]["role"] for body in story.bodies[2:4]] == ["assistant", "assistant"]
    assert [body.get("seed") for body in story.bodies[2:4]] == [1, None]


def test_a_background_job_goes_on_with_a_renewed_key() -> None:
    """The provider's own response is asked for again: the job is neither lost nor begun anew."""
    asked = call(
        replace(route("responses"), api_key=Secret("key-one"), credential=Keys()), params={"background": True}
    )
    at = RESPONSES.data.index(b"response.output_text.done")
    story = drive(asked, [cut(RESPONSES, at), reject(401), broke(K.DROPPED)], renew=renewed())
    targets = [send.target.partition("?")[0] for send in story.sends[:3]]
    assert targets[0] == ""
    assert targets[1] == targets[2] != ""
    assert keys_of(story)[:3] == ["key-one", "key-one", "key-two"]


# Turns.


def place_in(queues: Queues, name: str, limit: int = 1, priority: int = 0) -> Place:
    place = queues.enter(name, limit, priority)
    assert place is not None
    return place


def route_queue(busy: Route) -> str:
    return " ".join(busy.part("route"))


def test_a_call_waits_for_its_turn_among_its_task() -> None:
    """As long as the call has time; then it goes, and leaves its place at the end."""
    queues = Queues()
    before = place_in(queues, "task title")
    asked = call(task="title", concurrency=1, timeouts=Timeouts(total=50))

    def turn(_: Any) -> float:
        before.leave()
        return 3.0

    story = drive(asked, [whole(CHAT)], queues=queues, turn=turn)
    assert story.actions == ["queue 50", "send main"]
    assert story.sends[0].clocks.deadline == 50
    assert queues._queues == {}


def test_a_call_without_a_turn_says_so() -> None:
    """When its time is over: which queue, and what to do. Another route would not help."""
    queues = Queues()
    place_in(queues, "task title")
    asked = call(*TWO, task="title", concurrency=1, timeouts=Timeouts(total=50))
    story = drive(asked, [whole(CHAT)], queues=queues)
    assert story.actions == ["queue 50"]
    assert isinstance(story.error, errors.BudgetExhausted)
    assert story.error.budget == "queue"
    assert "task title" in str(story.error)
    assert queues.waiting("task title") == (1, 0)


def test_a_queue_that_is_full_turns_the_call_away_at_once() -> None:
    """No route is tried for nothing."""
    queues = Queues()
    for _ in range(LONGEST + 1):
        place_in(queues, "task title")
    story = drive(call(*TWO, task="title", concurrency=1), [whole(CHAT)], queues=queues)
    assert story.actions == []
    assert isinstance(story.error, errors.BudgetExhausted)
    assert queues.waiting("task title") == (1, LONGEST)


def test_a_busy_route_is_waited_for_within_its_share() -> None:
    """Then the next one is asked, and the ledger says why."""
    queues, busy = Queues(), replace(route("chat"), concurrency=1)
    place_in(queues, route_queue(busy))
    asked = call(busy, route("responses", "second"), timeouts=Timeouts(total=50))
    story = drive(asked, [whole(RESPONSES)], queues=queues)
    assert story.actions == ["queue 25", "tell reroute", "send second"]
    assert story.reply is not None
    assert "no turn came up at main" in story.reply.attempts[0].why[0]
    assert queues.waiting(route_queue(busy)) == (1, 0)


def test_another_key_has_a_queue_of_its_own() -> None:
    """A key that is busy says nothing of its sibling."""
    queues = Queues()
    pool = [replace(each, concurrency=1) for each in POOL]
    place_in(queues, route_queue(pool[0]))
    story = drive(call(*pool, timeouts=Timeouts(total=50)), [whole(CHAT)], queues=queues)
    assert story.actions == ["queue 25", "tell reroute", "send pool#2"]


def test_a_place_is_kept_while_a_route_is_asked_again_and_left_with_it() -> None:
    """One place for all attempts on a route; the next route has its own."""
    queues = Queues()
    first, second = (replace(each, concurrency=1) for each in TWO)
    seen: list[tuple[int, int]] = []

    def see(_: Any) -> None:
        seen.append((queues.waiting(route_queue(first))[0], queues.waiting(route_queue(second))[0]))

    plays = [broke(K.CONNECT), broke(K.CONNECT), whole(RESPONSES)]
    assert drive(call(first, second), plays, queues=queues, see=see).reply is not None
    assert seen == [(1, 0), (1, 0), (0, 1)]
    assert queues._queues == {}


@pytest.mark.parametrize("stop_in", ["queue", "sleep", "tell"])
def test_a_stop_leaves_every_place(stop_in: str) -> None:
    """Waiting or ready."""
    queues, busy = Queues(), replace(route("chat"), concurrency=1)
    before = place_in(queues, route_queue(busy)) if stop_in == "queue" else None
    asked = call(busy, task="title", concurrency=2)
    story = drive(asked, [broke(K.CONNECT)], queues=queues, stop_in=stop_in)
    assert isinstance(story.error, errors.Cancelled)
    if before is not None:
        before.leave()
    assert queues._queues == {}


def test_a_story_that_is_dropped_leaves_its_places() -> None:
    """A driver that goes away closes the generator."""
    queues = Queues()
    asked = call(replace(route("chat"), concurrency=1), task="title", concurrency=1)
    story = flow(asked, now=0.0, unix_time=0.0, random=lambda: 0.0, queues=queues)
    next(story)
    assert len(queues._queues) == 2
    story.close()
    assert queues._queues == {}


def test_the_priority_of_a_call_is_its_places() -> None:
    """The user's turn goes before the side task that came first."""
    queues, busy = Queues(), replace(route("chat"), concurrency=1)
    before = place_in(queues, route_queue(busy))
    side = flow(call(busy, priority=1), now=0.0, unix_time=0.0, random=lambda: 0.0, queues=queues)
    main = flow(call(busy, priority=0), now=0.0, unix_time=0.0, random=lambda: 0.0, queues=queues)
    waits = [next(side), next(main)]
    before.leave()
    assert [wait.place.ready for wait in waits if isinstance(wait, Queue)] == [False, True]


# What is passed over is told.


def broken(origins: Origins, of: Route) -> None:
    for _ in range(5):
        origins.began(of).ended("nothing")


def test_a_route_with_an_open_breaker_is_skipped_visibly() -> None:
    """The attempt on the next route says why the first was not asked; and so does the notice."""
    origins = Origins(lambda: 0.0)
    broken(origins, TWO[0])
    story = drive(call(*TWO), [whole(RESPONSES)], origins=origins)
    assert story.actions == ["tell reroute", "send second"]
    assert story.reply is not None
    (attempt,) = story.reply.attempts
    assert attempt.rung == "reroute"
    assert "the breaker of m at http://main.localhost:1 is open" in attempt.why[0]
    assert "breaker" in story.notices[0].detail


def test_a_breaker_on_the_only_route_is_the_error() -> None:
    """Fail fast, and say when to come back."""
    origins = Origins(lambda: 0.0)
    broken(origins, TWO[0])
    error = drive(call(), [whole(CHAT)], origins=origins).error
    assert isinstance(error, errors.BudgetExhausted)
    assert (error.budget, error.retry_at, error.attempts) == ("breaker", 1004.0, ())


def test_other_keys_do_not_help_against_a_breaker() -> None:
    """It is the model's: a further key is not asked, and what waiting there is, is waited."""
    origins = Origins(lambda: 0.0)
    pool = (signed("one", "key-one"), replace(signed("one", "key-two"), name="two"))
    broken(origins, pool[0])
    assert drive(call(*pool), [whole(CHAT)], origins=origins).actions == []


def test_a_recovery_waits_for_its_place_although_there_is_another_key() -> None:
    """Where the endpoint is busy, its other keys are as well: patience, as with one key."""
    origins = Origins(lambda: 0.0)
    pool = (signed("one", "key-one"), replace(signed("one", "key-two"), name="two"))
    permits = [origins.recover(pool[0]) for _ in range(3)]
    story = drive(call(*pool), [broke(K.DROPPED), whole(CHAT)], origins=origins)
    assert story.actions[:4] == ["send one", "tell restart", "sleep 0.5", "sleep 1"]
    assert len(permits) == 3


def test_a_parked_route_is_asked_last_and_the_ledger_says_why() -> None:
    """A key without quota stands behind the others for a while."""
    origins = Origins(lambda: 0.0)
    drive(call(), [QUOTA], origins=origins)
    story = drive(call(*TWO), [whole(RESPONSES)], origins=origins)
    assert story.actions == ["send second"]
    assert story.reply is not None
    assert "main is parked: the account's quota or money is used up" in story.reply.attempts[0].why[0]
    assert drive(call(), [whole(CHAT)], origins=origins).reply is not None, "alone, it is asked"


# Keys of one endpoint.

POOL = tuple(replace(signed("pool", f"key-{n}"), name=f"pool#{n}", credential=None) for n in (1, 2))


@pytest.mark.parametrize("status", [401, 402])
def test_a_dead_key_leads_to_the_next_and_is_booked(status: int) -> None:
    """At once; the next call begins with the key that works."""
    origins = Origins(lambda: 0.0)
    story = drive(call(*POOL), [reject(status), whole(CHAT)], origins=origins)
    assert story.actions == ["send pool#1", "tell reroute", "send pool#2"]
    assert [origins.parked(each) is not None for each in POOL] == [True, False]
    assert drive(call(*POOL), [whole(CHAT)], origins=origins).actions == ["send pool#2"]


@pytest.mark.parametrize(
    ("wait", "actions"),
    [
        ("5", ["send pool#1", "tell restart", "sleep 5.5", "send pool#1", "tell reroute", "send pool#2"]),
        ("30", ["send pool#1", "tell reroute", "send pool#2"]),
        ("500", ["send pool#1", "tell reroute", "send pool#2"]),
    ],
)
def test_a_rate_limit_is_waited_for_if_that_is_short(wait: str, actions: list[str]) -> None:
    """Once on the same key; then, or if the wait is long, the next key is nearer."""
    throttled = reject(429, retry_after=wait)
    plays = [throttled, throttled, whole(CHAT)] if wait == "5" else [throttled, whole(CHAT)]
    assert drive(call(*POOL), plays).actions == actions


def test_an_error_of_the_server_is_no_reason_for_another_key() -> None:
    """Both tries on the first key; then another model or endpoint, if there is one."""
    story = drive(call(*POOL, route("responses", "second")), [reject(500), reject(500), whole(RESPONSES)])
    assert [send.route.name for send in story.sends] == ["pool#1", "pool#1", "second"]


def test_a_refused_connection_skips_the_endpoint() -> None:
    """Neither its keys nor its other models are asked."""
    other = replace(POOL[0], model="n", name="n")
    asked = call(*POOL, other, route("responses", "second"))
    story = drive(asked, [broke(K.CONNECT), broke(K.CONNECT), whole(RESPONSES)])
    assert [send.route.name for send in story.sends] == ["pool#1", "pool#1", "second"]


# A route's own words and clocks.


def test_a_cut_of_what_can_be_afforded_parks_nothing_in_the_end() -> None:
    """402 with a number: asked again for less, and the answer clears the key."""
    origins = Origins(lambda: 0.0)
    afford = reject(402, {"error": {"message": "You can only afford 2000 tokens", "code": 402}})
    story = drive(call(params={"max_tokens": 9000}), [afford, whole(CHAT)], origins=origins)
    assert [body["max_tokens"] for body in story.bodies] == [9000, 1936]
    assert origins.parked(route("chat")) is None


def test_a_routes_own_time_ends_it_and_not_the_call() -> None:
    """The clock is named `route`, and the next one is asked."""
    own = replace(route("chat"), clocks=RouteClocks(total=20))
    asked = call(own, route("responses", "second"), timeouts=Timeouts(total=100))
    late = broke(K.DEADLINE, clock="total")
    story = drive(asked, [late, whole(RESPONSES)], seconds=lambda: 20.0)
    assert story.sends[0].clocks.deadline == 20
    assert story.actions == ["send main", "tell reroute", "send second"]
    assert story.ledger[0] == ("main", "send", "stalled")
    error = drive(call(own, timeouts=Timeouts(total=100)), [late], seconds=lambda: 20.0).error
    assert isinstance(error, errors.DeadlineExceeded)
    assert error.clock == "route"


def test_a_guessed_wire_is_corrected_within_the_call() -> None:
    """Two paths that are not there, then the third is; a retry later knows."""
    origins = Origins(lambda: 0.0)
    guess = replace(route("chat"), guessed=True)
    nothing = reject(404, "404 page not found")
    story = drive(call(guess), [nothing, nothing, whole(RESPONSES)], origins=origins)
    assert [send.route.wire for send in story.sends] == ["chat", "messages", "responses"]
    assert story.reply is not None
    again = drive(call(guess), [whole(RESPONSES)], origins=origins)
    assert [send.route.wire for send in again.sends] == ["responses"]


def test_no_credential_of_the_route_is_in_an_error() -> None:
    """Quoted whole, in a code, in an id, or torn at the end of what is kept."""
    key = "f00dfacecafef00dfacecafe"
    plain = replace(signed(), api_key=Secret(key), credential=None)
    for body in (
        {"error": {"message": f"bad key {key}", "code": key, "param": key, "type": key}},
        "x" * 480 + key,
        "y" * 190 + key,
    ):
        error = drive(call(plain), [reject(401, body)]).error
        assert isinstance(error, errors.AuthFailed)
        shown = f"{error!r} {error} {error.fault} {error.fault!r} {error.attempts!r} {error.hint}"
        assert key not in shown
        assert key[:8] not in shown, body
