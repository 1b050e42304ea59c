"""Which wire a base URL speaks: by what is known, else by asking, once, and never anybody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from sidestream import Route, Secret
from sidestream.lab import Lab, script
from sidestream.lab.record import Request
from sidestream.lab.script import Script
from sidestream.net import sync
from sidestream.net.common import CallClock
from sidestream.net.failures import ConnectError
from sidestream.recovery.origins import Origins
from sidestream.routes.detect import Answer, Question, adetect, as_found, detect, probe, remembered
from sidestream.routes.providers import Found, provider, speaks

# By what is known.

# The ancestor's table of 16, and ours behind it: URL, model, wire, and the endpoint if it is another.
URLS = [
    ("https://api.kimi.com/coding", "m", "messages", "https://api.kimi.com/coding/v1"),
    ("https://api.kimi.com/coding/", "m", "messages", "https://api.kimi.com/coding/v1"),
    ("https://api.kimi.com/coding/v1", "m", "chat", None),
    ("https://api.kimi.com/coding/v1/", "m", "chat", None),
    ("https://api.moonshot.ai/v1", "m", "chat", None),
    ("https://api.minimax.io/anthropic", "m", "messages", "https://api.minimax.io/anthropic/v1"),
    ("https://litellm.example.com/v1/anthropic", "m", "messages", "https://litellm.example.com/v1/anthropic/v1"),
    ("https://litellm.example.com/anthropic/v1", "m", "messages", None),
    ("https://litellm.example.com/anthropic/v1/models", "m", "chat", None),
    ("https://api.anthropic.com", "m", "messages", "https://api.anthropic.com/v1"),
    ("https://api.anthropic.com/v1", "m", "messages", None),
    ("https://openrouter.ai/api/v1", "m", "chat", None),
    ("https://api.openai.com/v1", "m", "responses", None),
    ("https://inference-api.nousresearch.com/v1", "m", "chat", None),
    ("", "m", "chat", None),
    ("https://[", "m", "chat", None),
    # By model.
    ("https://api.openai.com/v1", "gpt-5-codex", "responses", None),
    ("https://api.githubcopilot.com", "gpt-5.4", "responses", None),
    ("https://api.githubcopilot.com", "GPT-6-sol", "responses", None),
    ("https://api.githubcopilot.com", "gpt-5-mini", "chat", None),
    ("https://api.githubcopilot.com", "claude-sonnet-4.6", "chat", None),
    ("https://api.business.githubcopilot.com", "gpt-5.5", "responses", None),
    ("https://mine.openai.azure.com/openai/v1", "gpt-5", "chat", None),
    ("https://mine.openai.azure.com/openai/v1", "gpt-5-codex", "responses", None),
    ("https://bedrock-mantle.us-east-1.api.aws/openai/v1", "openai.gpt-5.4", "responses", None),
    ("https://bedrock-mantle.us-east-1.api.aws/openai/v1", "openai.gpt-oss-120b", "chat", None),
    ("https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1", "openai.gpt-5.4", "chat", None),
    ("https://api.x.ai/v1", "grok-4.20-multi-agent", "responses", None),
    ("https://api.x.ai/v1", "grok-4.5", "chat", None),
    # By host and path.
    ("https://chatgpt.com/backend-api/codex", "gpt-5-codex", "responses", None),
    ("https://mine.services.ai.azure.com/anthropic/", "m", "messages", "https://mine.services.ai.azure.com/anthropic/v1"),
    ("https://api.deepseek.com/anthropic", "m", "messages", "https://api.deepseek.com/anthropic/v1"),
    ("https://api.z.ai/api/anthropic", "m", "messages", "https://api.z.ai/api/anthropic/v1"),
    ("https://api.z.ai/api/paas/v4", "m", "chat", None),
    (
        "https://generativelanguage.googleapis.com/v1beta",
        "m",
        "chat",
        "https://generativelanguage.googleapis.com/v1beta/openai",
    ),
    ("https://generativelanguage.googleapis.com/v1beta/openai", "m", "chat", None),
    ("http://127.0.0.1:11434/v1", "m", "chat", None),
    ("https://api.anthropic.com./v1", "m", "messages", None),
    ("https://api.anthropic.com.evil.example/v1", "m", "chat", None),
    ("https://evil.example/api.anthropic.com", "m", "chat", None),
    # A whole URL.
    ("https://h.example/v1/responses", "m", "responses", "https://h.example/v1"),
    ("https://h.example/v1/chat/completions/", "m", "chat", "https://h.example/v1"),
    ("https://h.example/v1/messages?beta=true", "m", "messages", "https://h.example/v1?beta=true"),
    ("https://api.minimax.io/anthropic/v1/messages", "m", "messages", "https://api.minimax.io/anthropic/v1"),
    ("https://api.anthropic.com/v1/chat/completions", "m", "chat", "https://api.anthropic.com/v1"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "model", "wire", "at"), URLS)
def test_what_a_url_speaks(url: str, model: str, wire: str, at: str | None) -> None:
    """By the end of the URL, the provider's rules for path and model, or its usual wire; else Chat."""
    found = speaks(url, model)
    assert (found.wire, found.base_url) == (wire, url if at is None else at)
    assert found.why


@pytest.mark.parametrize(
    ("url", "wire", "at"),
    [
        ("https://api.openai.com/v1", "chat", None),
        ("https://api.minimax.io/anthropic", "chat", "https://api.minimax.io/v1"),
        ("https://api.minimax.io/anthropic", "messages", "https://api.minimax.io/anthropic/v1"),
        ("https://api.z.ai/api/anthropic", "chat", "https://api.z.ai/api/coding/paas/v4"),
        ("https://other.example/anthropic", "chat", None),
        ("https://api.kimi.com/coding", "chat", "https://api.kimi.com/coding/v1"),
        ("https://h.example/v1/messages", "chat", "https://h.example/v1"),
        ("https://h.example/v1", "responses", None),
    ],
)
def test_what_is_configured_is_not_doubted(url: str, wire: str, at: str | None) -> None:
    """A wire that was said beats every rule; only the endpoint is put right for it where that is known."""
    found = speaks(url, "gpt-5-codex", wire)
    assert (found.wire, found.base_url, found.sure) == (wire, at or url, True)


@pytest.mark.parametrize(
    ("url", "sure"),
    [
        ("https://openrouter.ai/api/v1", True),
        ("https://h.example/v1", False),
        ("https://h.example/anthropic", True),
    ],
)
def test_a_guess_says_that_it_is_one(url: str, sure: bool) -> None:
    """Chat because nobody knows better is told apart from Chat because somebody says so."""
    assert speaks(url, "m").sure is sure


def test_a_named_provider_says_it_wherever_it_is() -> None:
    """A provider's rules and wire hold for a base URL that is said to be its."""
    assert speaks("https://proxy.example/v1", "m", of=provider("anthropic")).wire == "messages"
    assert speaks("https://proxy.example/v1", "gpt-5.5", of=provider("copilot")).wire == "responses"


# By asking: what the answers mean.

BASE = "https://h.example/v1"
OPENAI_LIST = b'{"object":"list","data":[{"id":"m","object":"model"}]}'
ANTHROPIC_LIST = b'{"data":[{"type":"model","id":"m"}],"has_more":false,"first_id":"m","last_id":"m"}'
OPENAI_ERROR = b'{"error":{"message":"no","type":"invalid_request_error","code":null,"param":null}}'
ANTHROPIC_ERROR = b'{"type":"error","error":{"type":"invalid_request_error","message":"no"}}'
LOCKED = b'{"type":"error","error":{"type":"authentication_error","message":"no"}}'
HTML = {"content-type": "text/html"}
NOTHING = (404, {}, b"not found")


def asked(answers: Mapping[str, Answer], base: str = BASE) -> tuple[Found, bool, list[Question]]:
    """What a server that gives these answers (404 else) is taken for, and what it was asked."""
    asking, questions = probe(Route(base, "m", "chat", Secret("sk-canary"))), []
    try:
        question = next(asking)
        while True:
            questions.append(question)
            question = asking.send(answers.get(f"{question.method} {question.target}", NOTHING))
    except StopIteration as end:
        return *end.value, questions


@pytest.mark.parametrize(
    ("answers", "wire", "at"),
    [
        ({"POST /v1/chat/completions": (400, {}, OPENAI_ERROR)}, "chat", BASE),
        ({"POST /v1/chat/completions": (422, {}, b'{"detail":[]}')}, "chat", BASE),
        ({"POST /v1/chat/completions": (401, {}, b"who are you?")}, "chat", BASE),
        ({"POST /v1/chat/completions": (200, {}, b"{}")}, "chat", BASE),
        ({"POST /v1/messages": (400, {}, ANTHROPIC_ERROR)}, "messages", BASE),
        ({"POST /v1/messages": (401, {}, LOCKED)}, "messages", BASE),
        ({"POST /v1/messages": (400, {}, b"{}")}, "messages", BASE),
        ({"POST /v1/responses": (400, {}, OPENAI_ERROR)}, "responses", BASE),
        ({"POST /v1/responses": (401, {}, OPENAI_ERROR)}, "responses", BASE),
        (
            {"GET /v1/models": (200, {}, ANTHROPIC_LIST), "POST /v1/messages": (400, {}, ANTHROPIC_ERROR)},
            "messages",
            BASE,
        ),
        # It asks for the key before it looks at the path: its words tell.
        (
            {
                "GET /v1/models": (401, {}, LOCKED),
                "POST /v1/chat/completions": (401, {}, LOCKED),
                "POST /v1/messages": (401, {}, LOCKED),
            },
            "messages",
            BASE,
        ),
        (
            {
                "GET /v1/models": (401, {}, OPENAI_ERROR),
                "POST /v1/chat/completions": (401, {}, OPENAI_ERROR),
                "POST /v1/messages": (401, {}, OPENAI_ERROR),
            },
            "chat",
            BASE,
        ),
        # A gateway that answers every path in the words of its wire.
        (
            {
                "POST /v1/chat/completions": (400, {}, ANTHROPIC_ERROR),
                "POST /v1/messages": (400, {}, ANTHROPIC_ERROR),
            },
            "messages",
            BASE,
        ),
        # A web page on every path proves nothing.
        (
            {
                "POST /v1/chat/completions": (200, HTML, b"<html>"),
                "POST /v1/messages": (400, {}, ANTHROPIC_ERROR),
            },
            "messages",
            BASE,
        ),
    ],
)  # fmt: skip
def test_what_answers_mean(answers: Mapping[str, Answer], wire: str, at: str) -> None:
    """A path that refuses an empty request is there, one that is not found is not, and words beat both."""
    found, lasting, questions = asked(answers)
    assert (found.wire, found.base_url, found.sure, lasting) == (wire, at, True, True)
    assert found.why.startswith("asked: GET /models")
    assert len(questions) <= 5


def test_a_base_url_without_its_version_is_found_too() -> None:
    """Anthropic's own base URLs end before /v1: the endpoint is then the one with it."""
    answers = {"POST /claude/v1/messages": (400, {}, ANTHROPIC_ERROR)}
    found, _, _ = asked(answers, "https://h.example/claude")
    assert (found.wire, found.base_url) == ("messages", "https://h.example/claude/v1")
    route = as_found(Route("https://h.example/claude", "m", "chat", guessed=True), found)
    assert (route.target, route.guessed) == ("/claude/v1/messages", False)


@pytest.mark.parametrize(
    ("answers", "lasting"),
    [
        ({}, True),
        ({"GET /v1/models": (200, {}, OPENAI_LIST)}, True),
        ({"POST /v1/chat/completions": (302, {"location": "https://evil.example"}, b"")}, True),
        ({"POST /v1/chat/completions": (200, HTML, b"<html>")}, True),
        ({"POST /v1/chat/completions": (503, {}, b"")}, False),
        ({"POST /v1/messages": (429, {}, b"")}, False),
    ],
)
def test_answers_that_prove_nothing_mean_chat(answers: Mapping[str, Answer], lasting: bool) -> None:
    """Then it is Chat as before, with what was asked as the reason; a busy server may be asked again."""
    found, remember, questions = asked(answers)
    assert (found.wire, found.base_url, found.sure, remember) == ("chat", BASE, False, lasting)
    assert "GET /models" in found.why
    assert "/responses" in found.why
    assert len(questions) == 5


def test_every_question_goes_to_the_routes_own_origin() -> None:
    """With its key, as its wire sends it, and with nothing to answer: an empty request costs nothing."""
    _, _, questions = asked({}, "https://h.example:8443/v1?tenant=a")
    assert {question.route.origin for question in questions} == {"https://h.example:8443"}
    assert {question.body for question in questions} == {b"", b"{}"}
    assert all(question.target.endswith("?tenant=a") for question in questions)
    sent = [question.route.request_headers() for question in questions]
    assert all("sk-canary" in str(headers) for headers in sent)
    assert "x-api-key" in sent[2]
    assert "Authorization" in sent[1]


def test_there_is_an_end_to_asking() -> None:
    """When the time is up no further question is put; what was not heard is not remembered."""
    origins, now = Origins(lambda: 0.0), iter(range(100))
    asked: list[str] = []

    def ask(route: Route, method: str, target: str, body: bytes) -> Answer:
        asked.append(target)
        return NOTHING

    route = Route(BASE, "m", "chat")
    found = detect(route, ask, origins, clock=lambda: next(now) * 4.0, seconds=10.0)
    assert asked == ["/v1/models", "/v1/chat/completions"]
    assert (found.wire, found.sure) == ("chat", False)
    assert remembered(route, origins) is None


def test_who_cannot_be_reached_is_asked_again() -> None:
    """A failed connection is Chat for now, and no memory; the reason names the failure and no key."""
    origins = Origins(lambda: 0.0)

    def ask(route: Route, method: str, target: str, body: bytes) -> Answer:
        raise ConnectError(f"no way to {target} with {route.api_key}")

    route = Route(BASE, "m", "chat", Secret("sk-canary"))
    found = detect(route, ask, origins, clock=lambda: 0.0)
    assert (found.wire, found.sure) == ("chat", False)
    assert "ConnectError" in found.why
    assert "canary" not in found.why
    assert remembered(route, origins) is None


# By asking: over sockets.

KEY = "sk-canary-1234567890"


def only(*wires: str) -> Any:
    """A server that has the paths of these wires only, and refuses empty requests there."""

    def answer(request: Request) -> Script:
        if request.wire not in wires:
            return script.problem(404, f"no such endpoint: {request.path}")
        if request.body == b"{}":
            refuse = script.messages_problem if request.wire == "messages" else script.problem
            return refuse(400, "messages: field required")
        return script.as_asked(script.say("hello")(request), request)

    return answer


@contextmanager
def asking(lab: Lab) -> Iterator[Any]:
    """An `ask` over our own blocking connections."""
    pool, clock = sync.Pool(), CallClock(lambda: 0.0)

    def ask(route: Route, method: str, target: str, body: bytes) -> Answer:
        watch = sync.Watch(clock)
        watch.meter = Patience()
        lane = pool.open(route, watch)
        try:
            opened = lane.send(route, body, method, target)
            return opened.status, opened.headers, lane.rest()
        finally:
            lane.close()

    yield ask
    pool.close()


class Patience:
    """A meter that lets a test wait a minute at most."""

    due = 60.0


@pytest.mark.parametrize(
    "wires", [("chat",), ("messages",), ("responses",), ("chat", "messages", "responses")]
)
def test_a_server_is_taken_for_what_it_is(wires: tuple[str, ...]) -> None:
    """Case 69: a base URL that only speaks Messages, given as Chat, is found out; and so are the others."""
    origins = Origins(lambda: 0.0)
    with Lab(only(*wires)) as lab, asking(lab) as ask:
        route = Route(lab.url, "lab-1", "chat", Secret(KEY), guessed=True)
        found = detect(route, ask, origins, clock=lambda: 0.0)
        assert (found.wire, found.base_url, found.sure) == (wires[0], lab.url, True)
        seen = len(lab.requests)
        assert 2 <= seen <= 5
        assert detect(route, ask, origins, clock=lambda: 0.0).wire == wires[0]
        assert len(lab.requests) == seen, "asked once per process and endpoint"
        assert as_found(route, found).wire == wires[0]
        sent = [request.header("authorization") or request.header("x-api-key") for request in lab.requests]
        assert all(sent)


def test_sync_and_async_ask_the_same() -> None:
    """The same questions in the same order, and the same verdict."""
    seen = []
    for twin in (False, True):
        with Lab(only("messages")) as lab, asking(lab) as ask:
            route, origins = Route(lab.url, "lab-1", "chat", Secret(KEY)), Origins(lambda: 0.0)

            async def later(*question: Any, ask: Any = ask) -> Answer:
                return await asyncio.to_thread(ask, *question)

            found = (
                asyncio.run(adetect(route, later, origins, clock=lambda: 0.0))
                if twin
                else detect(route, ask, origins, clock=lambda: 0.0)
            )
            asked = [(request.method, request.path, request.body) for request in lab.requests]
            seen.append((found.wire, found.why, asked))
    assert seen[0] == seen[1]


def test_a_redirect_takes_no_key_along() -> None:
    """A redirect is an answer like another: the server it names hears nothing."""
    with Lab() as other:
        moved = script.error(307, {}).sent(headers=(("Location", f"{other.url}/chat/completions"),))
        with Lab(lambda _: moved) as lab, asking(lab) as ask:
            found = detect(
                Route(lab.url, "m", "chat", Secret(KEY)), ask, Origins(lambda: 0.0), clock=lambda: 0.0
            )
            assert (found.wire, found.sure) == ("chat", False)
            assert other.requests == ()


def test_a_call_learns_from_what_was_asked() -> None:
    """What asking found out is the same memory that a call has which must guess."""
    origins = Origins(lambda: 0.0, lock=threading.RLock())
    with Lab(only("messages")) as lab, asking(lab) as ask:
        route = Route(lab.url, "m", "chat", guessed=True)
        detect(route, ask, origins, clock=lambda: 0.0)
        assert origins.learned(route, "wire") == "messages"
        origins = Origins(lambda: 0.0)
        origins.learn(route, "wire", "responses")  # as a call does that guessed right
        assert detect(route, ask, origins, clock=lambda: 0.0).wire == "responses"
