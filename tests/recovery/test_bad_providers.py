"""Providers that answer a recovery with something else than the rest: as a table, in every delivery.

Each case is a provider that breaks a first answer off and then misbehaves. Required of all: nothing is ever
doubled, and the call ends with the whole answer by these rungs, or with this typed error and what arrived.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hands import Story, drive

from sidestream import errors
from sidestream.lab import script, shapes
from sidestream.lab.background import Background
from sidestream.lab.continuing import Continuing, Form
from sidestream.lab.record import Request as Asked
from sidestream.lab.script import Script
from sidestream.recovery.clocks import Timeouts
from sidestream.recovery.exchange import Exchange
from sidestream.recovery.faults import Fault, FaultKind, from_exception
from sidestream.recovery.flow import Broke, Call, Ended, Outcome, Rejected, Send
from sidestream.route import Continuation, Route
from sidestream.wire.events import Restarted, StreamEvent, TextDelta
from sidestream.wire.prompt import Request
from streams import FAILURES

TEXT = script.words(150, seed=21)
OTHER = script.words(80, seed=22)
FILLER = "and so on and on, as it were; " * 35_000  # about 1 MB
DELIVERIES = ("held", "live", "strict")

Answer = Callable[[Asked], Script]


@dataclass
class Provider:
    """The first request is cut in the middle of its answer; `answer` says what comes of every later one."""

    first: Answer
    answer: Answer
    cut: int = 60  # events of the first answer that arrive
    requests: int = 0
    fed: list[int] = field(default_factory=list)  # bytes taken of each answer
    send: Send | None = None

    def see(self, send: Send) -> None:
        self.send = send

    def play(self, exchange: Exchange, at: float) -> tuple[list[StreamEvent], Outcome]:
        assert self.send is not None
        number, self.requests = self.requests, self.requests + 1
        send = self.send
        method, path = ("GET", send.target) if send.target else ("POST", send.route.target)
        asked = Asked(number, number, 0, method, path, (), send.body, at)
        said = (self.answer if number else self.first)(asked)
        self.fed.append(0)
        if said.status != 200:
            return [], Rejected(said.status, {}, said.body, at)
        if number:
            return self._read(exchange, said.events, Ended(at))
        return self._read(exchange, said.events[: self.cut], Broke(Fault(FaultKind.DROPPED, "cut"), at))

    def _read(
        self, exchange: Exchange, events: tuple[bytes, ...], outcome: Outcome
    ) -> tuple[list[StreamEvent], Outcome]:
        exchange.opened({})
        seen: list[StreamEvent] = []
        try:
            for event in events:
                self.fed[-1] += len(event)
                seen += exchange.feed(event)
                if exchange.done:
                    outcome = Ended(outcome.at)
                    break
            seen += exchange.close()
        except FAILURES as error:
            if isinstance(outcome, Ended):
                outcome = Broke(from_exception(error), outcome.at)
        return seen, outcome


@dataclass(frozen=True)
class Case:
    """`make` makes the provider; `rungs` are those of the ledger; `error` ends it, None if the answer does.

    `restarts` is how often a live consumer is told to begin anew, and `ends_with` is the answer if it is
    another one; a strict consumer then gets `strict_error`, or the old answer by `strict_rungs`.
    """

    make: Callable[[], Provider]
    rungs: str
    error: type[errors.SidestreamError] | None = None
    wire: Any = "chat"
    continuation: Continuation = "anchor"
    job: bool = False
    restarts: int = 0
    strict_error: type[errors.SidestreamError] | None = None
    strict_rungs: str = ""
    ends_with: str = TEXT
    timeouts: Timeouts = field(default_factory=Timeouts)


# What a provider does.


def anchored(say: Callable[[str, str], str], **settings: Any) -> Callable[[], Provider]:
    """Takes an anchor its own way; asked anew, it answers as before."""
    return lambda: Provider(Continuing(TEXT), Continuing(TEXT, manner=say, **settings))


def pages(text: str) -> list[str]:
    return [text[at : at + 500] for at in range(0, len(text), 500)]


def ignoring(**settings: Any) -> Callable[[], Provider]:
    """Takes a prefill for an earlier turn and answers from the start."""
    return lambda: Provider(Continuing(TEXT), Continuing(TEXT, accepts=("anchor",), refusal=None, **settings))


def ends_twice() -> Provider:
    def twice(asked: Asked) -> Script:
        said = Continuing(TEXT)(asked)
        return replace(said, events=said.events + said.events[-3:])

    return Provider(twice, twice)


def other_anew(asked: Asked) -> Script:
    """Continues nothing, and says something else each time it is asked."""
    return Continuing(OTHER, accepts=())(replace(asked, body=_question(asked)))


def _question(asked: Asked) -> bytes:
    return asked.body if b"last_words" not in asked.body else b"{}"


def kept(**settings: Any) -> Callable[[], Provider]:
    """Keeps the response, in its own way."""

    def make() -> Provider:
        house = Background(Continuing(TEXT), **settings)
        return Provider(house, house)

    return make


def polled(body: Any) -> Callable[[], Provider]:
    """Streams it no more, and a poll gets this."""

    def make() -> Provider:
        house = Background(Continuing(TEXT), stream_gone=Background.TOO_OLD)

        def answer(asked: Asked) -> Script:
            about = asked.method == "GET" and "stream=true" not in asked.path
            return (body if isinstance(body, Script) else script.json(body)) if about else house(asked)

        return Provider(house, answer)

    return make


def resumed(change: Callable[[Script], Script]) -> Callable[[], Provider]:
    """Changes every resumed stream."""

    def make() -> Provider:
        house = Background(Continuing(TEXT))

        def answer(asked: Asked) -> Script:
            said = house(asked)
            return change(said) if "stream=true" in asked.path else said

        return Provider(house, answer)

    return make


def _finished(text: str, status: str = "completed", **details: Any) -> dict[str, Any]:
    item = {"type": "message", "id": "msg_lab_0", "role": "assistant", "status": "completed"}
    parts = [{"type": "output_text", "text": text, "annotations": []}]
    output = [{**item, "content": parts}] if text else []
    return {"object": "response", "id": "resp_lab_0_0", "status": status, "output": output, **details}


_PREFIX: tuple[Form, ...] = ("anchor", "prefix")
_SOON = Timeouts(total=60)
_JOB: dict[str, Any] = {"wire": "responses", "job": True}
_NONSENSE: dict[str, Any] = {
    "a list": [],
    "another object": {"object": "list", "data": []},
    "an unknown status": {"object": "response", "status": "dreaming"},
    "no status": {"object": "response", "output": []},
    "half of it": script.error(200, b'{"object":"response","status":"comp', content_type="application/json"),
    "nothing": script.error(200, b""),
    "a page": script.error(200, shapes.PAGES["html"]),
}
_FAILED = {"code": "server_error", "message": "The server had an error."}

CASES: dict[str, Case] = {
    # Anchors.
    "repeats the whole answer": Case(anchored(lambda _a, _r: TEXT), "send anchor"),
    "loops over the last words": Case(anchored(lambda a, _: f"{a} " * 400), "send anchor restart"),
    "loops over the answer": Case(anchored(lambda a, r: (a + r) * 3), "send anchor", ends_with="loops"),
    "says something else": Case(anchored(lambda *_: OTHER), "send anchor restart"),
    "says nothing": Case(anchored(lambda *_: ""), "send anchor restart"),
    "stops before the last words end": Case(anchored(lambda a, _: a[:-3]), "send anchor restart"),
    "says the last words and nothing else": Case(anchored(lambda a, _: a), "send anchor restart"),
    "chats for 1 MB first": Case(
        anchored(lambda a, r: FILLER + a + r, tokens_of=pages), "send anchor restart"
    ),
    "repeats the answer with a change": Case(
        anchored(lambda _a, _r: TEXT.replace("stream", "STREAM", 1)), "send anchor restart"
    ),
    "quotes the last words": Case(anchored(lambda a, r: f'"{a}" {r}'), "send anchor restart"),
    "puts it all into a block": Case(anchored(lambda a, r: f"```\n{a}{r}\n```"), "send anchor restart"),
    "ends twice": Case(ends_twice, "send anchor"),
    "ends twice, on the other wire": Case(ends_twice, "send anchor", wire="responses"),
    "another answer every time": Case(
        lambda: Provider(Continuing(TEXT), other_anew),
        "send anchor restart", restarts=1, ends_with=OTHER, strict_error=errors.StreamDropped,
    ),
    # Prefills.
    "begins anew after a prefill": Case(ignoring(), "send prefill anchor", continuation="prefix"),
    "begins anew, and chats before an anchor": Case(
        ignoring(manner="preamble"), "send prefill anchor", continuation="partial"
    ),
    "promised an echo and sends none": Case(
        lambda: Provider(Continuing(TEXT), Continuing(TEXT, accepts=_PREFIX)),
        "send prefill anchor", continuation="prefix_echoed",
    ),
    "echoes and did not say so": Case(
        lambda: Provider(Continuing(TEXT), Continuing(TEXT, echo=True)),
        "send prefill anchor", continuation="trailing",
    ),
    # Cursors.
    "resumes with an overlap": Case(kept(overlap=7), "send reconnect", **_JOB),
    "resumes from the first event": Case(kept(overlap=10_000), "send reconnect", **_JOB),
    "resumes with a gap": Case(kept(gap=3), "send reconnect reconnect", **_JOB),
    "has lost the response": Case(kept(gone=404), "send reconnect anchor", **_JOB),
    "has dropped the response": Case(kept(gone=410), "send reconnect anchor", **_JOB),
    "takes no cursor": Case(
        kept(stream_gone=(400, "starting_after is not supported")), "send reconnect reconnect", **_JOB
    ),
    "takes no cursor, and is at work for a while": Case(
        kept(stream_gone=Background.TOO_OLD, polls=5), "send reconnect reconnect", **_JOB
    ),
    "resumes twice at once": Case(
        resumed(lambda said: replace(said, events=said.events * 2)), "send reconnect", **_JOB
    ),
    "resumes backwards": Case(
        resumed(lambda said: replace(said, events=said.events[::-1])), "send reconnect reconnect", **_JOB
    ),
    "resumes with a page": Case(
        resumed(lambda _: script.error(200, shapes.PAGES["html"])), "send reconnect reconnect", **_JOB
    ),
    # Polls.
    "polls for ever": Case(
        kept(stream_gone=Background.TOO_OLD, polls=10**9), "send reconnect reconnect",
        errors.DeadlineExceeded, timeouts=_SOON, **_JOB,
    ),
    "ended otherwise": Case(
        polled(_finished(OTHER)), "send reconnect reconnect",
        restarts=1, ends_with=OTHER, strict_rungs="send reconnect reconnect restart", **_JOB,
    ),
    "failed in the end": Case(
        polled(_finished("", "failed", error=_FAILED)), "send reconnect reconnect anchor", **_JOB
    ),
    "was cancelled by somebody": Case(
        polled(_finished("", "cancelled")), "send reconnect reconnect anchor", **_JOB
    ),
}  # fmt: skip


def run(case: Case, delivery: str) -> tuple[Story, Provider]:
    provider = case.make()
    url = "http://127.0.0.1:1/bad"
    route = Route(url, "m", case.wire, name="bad", continuation=case.continuation)
    params = {"background": True} if case.job else {}
    call = Call(
        Request(({"role": "user", "content": "hi"},), params=params),
        (route,), case.timeouts, live=delivery != "held", strict=delivery == "strict",
    )  # fmt: skip
    return drive(call, [provider.play], see=provider.see), provider


def delivered(story: Story) -> tuple[str, int]:
    """The text of a live consumer, and how often it began anew."""
    text, restarts = "", 0
    for _, seen in story.seen:
        for event in seen:
            if isinstance(event, Restarted):
                text, restarts = "", restarts + 1
            elif isinstance(event, TextDelta):
                text += event.delta
    return text, restarts


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("name", CASES)
def test_a_bad_provider_costs_a_rung_and_no_character(name: str, delivery: str) -> None:
    """It ends by these rungs in the whole answer, or in this error; what was delivered is never doubled."""
    case = CASES[name]
    if delivery == "strict" and case.strict_rungs:
        case = replace(case, restarts=0, ends_with=TEXT, rungs=case.strict_rungs)
    story, _ = run(case, delivery)
    text, restarts = delivered(story)
    wanted = (case.strict_error if delivery == "strict" else None) or case.error
    if wanted is None:
        assert story.error is None, story.error
        assert story.reply is not None
        assert [rung for _, rung, _ in story.ledger] == case.rungs.split()
        assert story.reply.text == _expected(case, story.reply.text)
        assert (text, restarts) == ((story.reply.text, case.restarts) if delivery != "held" else ("", 0))
    else:
        assert type(story.error) is wanted
        assert isinstance(story.error, errors.SidestreamError)
        assert story.error.reply is not None
        assert TEXT.startswith(story.error.reply.text)
        assert story.error.reply.text
        assert restarts == 0
        assert text == (story.error.reply.text if delivery != "held" else "")
    assert not any(action.startswith("dismiss") for action in story.actions)


def _expected(case: Case, text: str) -> str:
    """The text that the call has to end with; of a model that went on for ever, the beginning of it."""
    if case.ends_with == "loops":
        assert text.startswith(TEXT)
        return text
    return case.ends_with


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("name", _NONSENSE)
def test_a_poll_that_answers_nonsense_is_given_up(name: str, delivery: str) -> None:
    """What is no response object is no end of it: the answer comes another way, or a typed error does."""
    story, _ = run(Case(polled(_NONSENSE[name]), "", **_JOB), delivery)
    text, restarts = delivered(story)
    assert restarts == 0
    assert len(story.sends) <= 10
    if story.reply is not None:
        assert story.reply.text == TEXT
        assert text in ("", TEXT)
        return
    assert isinstance(story.error, errors.CallFailed)
    assert story.error.reply is not None
    assert story.error.reply.text
    assert TEXT.startswith(story.error.reply.text)


def test_a_megabyte_before_the_last_words_is_not_waited_for() -> None:
    """A continuation that does not come to the point is left after a page of it."""
    _, provider = run(CASES["chats for 1 MB first"], "held")
    assert provider.fed[1] < 200_000
    _, provider = run(CASES["loops over the last words"], "live")
    assert provider.fed[1] < 100_000


def test_polling_for_ever_ends_with_the_deadline() -> None:
    """A response that stays at work is looked at less and less often, and never after the deadline."""
    story, _ = run(CASES["polls for ever"], "held")
    assert sum(story.sleeps) <= 60
    assert max(story.sleeps) <= 10
    assert all(at <= 60 for at in story.sent_at)
    assert len(story.sends) < 25
    assert isinstance(story.error, errors.DeadlineExceeded)
    assert story.error.clock == "total"
