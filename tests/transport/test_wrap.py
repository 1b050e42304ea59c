"""`wrap`: the same client, and what its user sees. Everything over the lab's sockets with the real SDKs."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

import sidestream
from sidestream import Backoff, DeadlineExceeded, Policy, StreamDropped, Timeouts, last_call
from sidestream.drivers import System
from sidestream.lab import Fault, Lab, Plan, script
from sidestream.lab.continuing import Continuing
from sidestream.telemetry import CallRecord
from sidestream.transport.requests import watched, wire_of

TEXT = " ".join(f"word{number}" for number in range(120)) + "."
ASK: list[Any] = [{"role": "user", "content": "hi"}]
AT_ONCE = Policy(backoff=Backoff(0, 0, 0))
KEY = "sk-canary-0123456789abcdef"


def openai_at(lab: Lab, **settings: Any) -> openai.OpenAI:
    client = openai.OpenAI(base_url=lab.url, api_key=KEY)
    return sidestream.wrap(client, policy=settings.pop("policy", AT_ONCE), **settings)


def anthropic_at(lab: Lab, **settings: Any) -> anthropic.Anthropic:
    client = anthropic.Anthropic(base_url=lab.url.removesuffix("/v1"), api_key=KEY)
    return sidestream.wrap(client, policy=AT_ONCE, **settings)


def chat(client: openai.OpenAI) -> str:
    stream = client.chat.completions.create(model="m", messages=ASK, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def cuts(*after: int) -> Plan:
    return Plan([Fault.cut(after_event=event) for event in after])


# The client stays what it was.


def test_wrap_returns_the_same_object_and_its_copies_are_watched_too() -> None:
    """Same object, same class; `with_options` shares the transport; wrapping again does not wrap twice."""
    client = openai.OpenAI(api_key=KEY)
    assert sidestream.wrap(client) is client
    inner = client._client._transport.inner
    assert sidestream.wrap(client, hold=True) is client
    assert client._client._transport.inner is inner
    assert client._client._transport.settings.hold
    assert client.with_options(timeout=3)._client._transport is client._client._transport


def test_every_transport_of_a_client_is_wrapped() -> None:
    """Those for some hosts only, and those behind a proxy, as well."""
    mounts = {"https://other.example": httpx2.HTTPTransport()}
    with httpx2.Client(mounts=mounts) as client:
        sidestream.wrap(client)
        kinds = {type(transport).__name__ for transport in [client._transport, *client._mounts.values()]}
        assert kinds == {"Transport"}


@pytest.mark.parametrize("thing", [object(), "client", None, 5])
def test_what_cannot_be_wrapped_is_a_usage_error(thing: object) -> None:
    """The error names what it got and what it takes."""
    with pytest.raises(sidestream.UsageError, match="cannot be wrapped") as caught:
        sidestream.wrap(thing)
    assert "OpenAI" in caught.value.hint


@pytest.mark.parametrize("http", [httpx, httpx2])
def test_a_bare_transport_of_either_httpx(http: Any) -> None:
    """Whatever takes an httpx client takes recovery with it."""
    with Lab(Continuing(TEXT), plan=cuts(30)) as lab:
        transport = sidestream.wrap(http.HTTPTransport(), policy=AT_ONCE)
        assert isinstance(transport, http.BaseTransport)
        body = {"model": "m", "messages": ASK, "stream": True}
        with http.Client(transport=transport) as client:
            response = client.post(f"{lab.url}/chat/completions", json=body)
        assert response.text.endswith("data: [DONE]\n\n")
        assert len(lab.requests) == 2
        called = last_call(response)
        assert called is not None
        assert called.text == TEXT


@pytest.mark.parametrize("http", [httpx, httpx2])
def test_a_bare_async_transport_of_either_httpx(http: Any) -> None:
    """As above, in asyncio."""

    async def run(lab: Lab) -> str:
        transport = sidestream.wrap(http.AsyncHTTPTransport(), policy=AT_ONCE)
        body = {"model": "m", "input": "hi", "stream": True}
        async with http.AsyncClient(transport=transport) as client:
            response = await client.post(f"{lab.url}/responses", json=body)
        called = last_call(response)
        return called.text if called else ""

    with Lab(Continuing(TEXT), plan=cuts(30, 40)) as lab:
        assert asyncio.run(run(lab)) == TEXT


def test_azure_paths_are_watched() -> None:
    """Deployments in the path, the API version in the query: both go along with every attempt."""
    with Lab(Continuing(TEXT), plan=cuts(30)) as lab:
        client = openai.AzureOpenAI(
            azure_endpoint=lab.url.removesuffix("/v1"), api_key=KEY, api_version="2026-01-01"
        )
        assert chat(sidestream.wrap(client, policy=AT_ONCE)) == TEXT  # type: ignore[arg-type]
        paths = {request.path for request in lab.requests}
        assert paths == {"/openai/deployments/m/chat/completions?api-version=2026-01-01"}


# What comes of a call.


def test_a_stream_that_breaks_twice_comes_whole_and_has_a_ledger() -> None:
    """Exact text, summed usage, three exchanges; found from the stream and from the client."""
    with Lab(Continuing(TEXT), plan=cuts(30, 40)) as lab:
        client = openai_at(lab)
        with client.responses.stream(model="m", input="hi") as stream:
            final = stream.get_final_response()
        assert final.output_text == TEXT
        reply = last_call(stream)
        assert reply is not None
        assert [row.rung for row in reply.attempts] == ["send", "anchor", "anchor"]
        assert reply == last_call(client)
        assert reply.usage is not None
        assert final.usage is not None
        assert final.usage.output_tokens == reply.usage.output_tokens


def test_usage_can_be_that_of_the_answer_alone() -> None:
    """For agents that read the size of their context off it: one prompt, and the tokens that were kept."""
    with Lab(Continuing(TEXT), plan=cuts(30, 40)) as lab:
        client = openai_at(lab, usage="answer")
        with client.responses.stream(model="m", input="hi") as stream:
            told = stream.get_final_response().usage
        reply = last_call(stream)
        assert reply is not None
        assert reply.usage is not None
        assert told is not None
        assert told.output_tokens == reply.usage.kept_tokens
        assert told.input_tokens == reply.attempts[0].input_tokens
        assert told.input_tokens < (reply.usage.input_tokens or 0)


def test_a_large_rejection_is_cut_and_says_so() -> None:
    """Its length is that of what is handed on: whoever reads it is not left waiting."""
    with Lab(script.problem(400, "x" * 2_000_000)) as lab, pytest.raises(openai.BadRequestError) as caught:
        chat(openai_at(lab))
    assert len(caught.value.response.content) == int(caught.value.response.headers["content-length"])


def test_a_call_that_never_finishes_is_the_sdks_own_error_with_the_partial() -> None:
    """`__cause__` is ours and holds what the consumer was given, no more and no less."""
    with Lab(script.chat_text(TEXT), plan=Plan([Fault.cut(after_event=9)] * 40)) as lab:
        client = openai_at(lab, continuation="none", policy=Policy(tries=2, backoff=Backoff(0, 0, 0)))
        seen: list[str] = []
        stream = client.chat.completions.create(model="m", messages=ASK, stream=True)
        with pytest.raises(openai.APIConnectionError) as caught:
            seen.extend(chunk.choices[0].delta.content or "" for chunk in stream)
        cause = caught.value.__cause__
        assert isinstance(cause, StreamDropped)
        assert cause.reply is not None
        assert seen
        assert cause.reply.text == "".join(seen)
        assert last_call(caught.value) == cause.reply


def test_the_anthropic_sdk_gets_its_own_connection_error_in_mid_stream() -> None:
    """Where it leaks the transport's error without us."""
    with Lab(script.messages_text(TEXT), plan=Plan([Fault.cut(after_event=9)] * 40)) as lab:
        client = anthropic_at(lab, continuation="none")
        with (
            pytest.raises(anthropic.APIConnectionError) as caught,
            client.messages.stream(model="m", max_tokens=900, messages=ASK) as stream,
        ):
            stream.get_final_message()
        assert isinstance(caught.value.__cause__, StreamDropped)


def test_a_stall_behind_keep_alives_is_a_stall() -> None:
    """Bytes arrive, output does not: the idle clock rings, and the answer goes on."""
    plan = Plan([Fault.keepalive("comment", after_event=20, interval=0.02)])
    with Lab(Continuing(TEXT), plan=plan) as lab:
        client = openai_at(lab, timeout=Timeouts(idle=0.2))
        assert chat(client) == TEXT
        reply = last_call(client)
        assert reply is not None
        assert [row.ended for row in reply.attempts] == ["stalled", "complete"]


def test_a_stall_after_the_first_output_is_not_waited_for_as_long_as_the_first() -> None:
    """The watchdog, which was to come for the first output, comes earlier once that is there."""
    plan = Plan([Fault.stall(after_event=8)])
    with Lab(Continuing(TEXT), plan=plan) as lab:
        client = openai_at(lab, timeout=Timeouts(total=1e5, first=9e4, idle=0.2))
        assert chat(client) == TEXT
    reply = last_call(client)
    assert reply is not None
    assert [row.ended for row in reply.attempts] == ["stalled", "complete"]


def test_a_deadline_is_the_sdks_timeout() -> None:
    """When nothing came in time, and asking again brought nothing either."""
    with Lab(script.chat_text(TEXT), plan=Plan([Fault.stall(after_event=0)] * 9)) as lab:
        client = openai_at(lab, timeout=Timeouts(first=0.1, idle=0.1))
        with pytest.raises(openai.APITimeoutError) as caught:
            chat(client)
        assert isinstance(caught.value.__cause__, DeadlineExceeded)


def test_a_rejection_is_handed_on_and_not_multiplied() -> None:
    """The provider's status and words, after our own tries and none of the SDK's."""
    with Lab(script.problem(429, "slow down, please", code="rate_limit_exceeded")) as lab:
        with pytest.raises(openai.RateLimitError, match="slow down, please") as caught:
            chat(openai_at(lab))
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert len(lab.requests) == AT_ONCE.tries


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_the_clients_own_retries_are_the_number_of_ours(retries: int) -> None:
    """Without a policy: as many attempts as the bare client would make, and none for `max_retries=0`."""
    with Lab(script.problem(503, "not now", code="overloaded_error")) as lab:
        client = openai.OpenAI(base_url=lab.url, api_key=KEY, max_retries=retries)
        sidestream.wrap(client, system=System(random=lambda: 0.0))
        with pytest.raises(openai.InternalServerError, match="not now"):
            chat(client)
        assert len(lab.requests) == retries + 1


def test_no_retries_is_no_word_against_bringing_an_answer_back() -> None:
    """An answer that had begun is brought back even then: `max_retries` never spoke of streams."""
    with Lab(Continuing(TEXT), plan=cuts(9)) as lab:
        client = openai.OpenAI(base_url=lab.url, api_key=KEY, max_retries=0)
        sidestream.wrap(client, continuation="trailing", system=System(random=lambda: 0.0))
        assert chat(client) == TEXT
        assert len(lab.requests) == 2


def test_a_provider_that_cannot_be_reached_is_a_connection_error_at_once() -> None:
    """Two attempts of ours; the openai SDK does not add its own."""
    with Lab(script.chat_text("x")) as lab:
        gone = lab.url
    client = openai.OpenAI(base_url=gone, api_key=KEY)
    records: list[CallRecord] = []
    sidestream.wrap(client, policy=AT_ONCE, observe=records.append)
    with pytest.raises(openai.APIConnectionError) as caught:
        chat(client)
    assert isinstance(caught.value.__cause__, StreamDropped)
    assert [len(record.attempts) for record in records] == [AT_ONCE.tries]


def test_retries_of_the_sdk_add_up_instead_of_multiplying() -> None:
    """The anthropic SDK asks twice more; each time there is one attempt, not as many as the policy allows."""
    with Lab(script.messages_text("x")) as lab:
        gone = lab.url.removesuffix("/v1")
    client = anthropic.Anthropic(base_url=gone, api_key=KEY, max_retries=1)
    client._calculate_retry_timeout = lambda *_, **__: 0.0  # type: ignore[method-assign,assignment]
    records: list[CallRecord] = []
    sidestream.wrap(client, policy=AT_ONCE, observe=records.append)
    with pytest.raises(anthropic.APIConnectionError):
        client.messages.create(model="m", max_tokens=9, messages=ASK, stream=True)
    assert [len(record.attempts) for record in records] == [AT_ONCE.tries, 1]


def test_an_error_inside_the_stream_that_stays_is_the_providers_own() -> None:
    """The SDK reads the provider's frame and raises what it always raises; ours is in the ledger."""
    with Lab(script.chat_text(TEXT), plan=Plan([Fault.error_event(after_event=5)] * 40)) as lab:
        client = openai_at(lab, continuation="none")
        with pytest.raises(openai.APIError, match="error") as caught:
            chat(client)
        assert not isinstance(caught.value, openai.APIConnectionError)


def test_a_refusal_reaches_the_sdk_as_it_was_said() -> None:
    """It is a whole answer on the wire, so nothing is tried again."""
    with Lab(script.messages(script.refusal("I would rather not."))) as lab:
        with anthropic_at(lab).messages.stream(model="m", max_tokens=9, messages=ASK) as stream:
            assert stream.get_final_message().stop_reason == "refusal"
        assert len(lab.requests) == 1


# Calls that ask for no stream.


@pytest.mark.parametrize("framing", ["length", "close"])
def test_half_a_json_body_is_a_connection_error(framing: Any) -> None:
    """Whatever the transport says of its end. The SDK retries that by its own rules."""
    answer = script.json({"id": "x", "object": "chat.completion", "choices": []}).sent(framing=framing)
    half = answer.replaced(b"}", b"")
    with Lab(half) as lab:
        client = openai_at(lab).with_options(max_retries=0)
        with pytest.raises(openai.APIConnectionError) as caught:
            client.chat.completions.create(model="m", messages=ASK)
        assert isinstance(caught.value.__cause__, StreamDropped)


def test_a_web_page_is_no_answer() -> None:
    """Where the bare SDK returns its text as if it were the object asked for."""
    page = script.json({}).sent(content_type="text/html").replaced(b"{}", b"<html>Sign in</html>")
    with Lab(page) as lab:
        client = openai_at(lab).with_options(max_retries=0)
        with pytest.raises(openai.APIConnectionError):
            client.chat.completions.create(model="m", messages=ASK)


def test_a_call_without_a_stream_can_be_carried_as_one() -> None:
    """`hold`: three cuts in the stream upstream, one JSON document for the SDK."""
    for ask in (
        lambda lab: openai_at(lab, hold=True).responses.create(model="m", input="hi").output_text,
        lambda lab: (
            openai_at(lab, hold=True)
            .chat.completions.create(model="m", messages=ASK)
            .choices[0]
            .message.content
        ),
        lambda lab: (
            anthropic_at(lab, hold=True)
            .messages.create(model="m", max_tokens=900, messages=ASK)
            .content[0]
            .text  # type: ignore[union-attr]
        ),
    ):
        with Lab(Continuing(TEXT), plan=cuts(20, 30, 40)) as lab:
            assert ask(lab) == TEXT  # type: ignore[no-untyped-call]
            assert len(lab.requests) == 4


def test_everything_else_passes_through() -> None:
    """Other paths and other methods are not looked at."""
    with Lab(Continuing(TEXT)) as lab:
        client = openai_at(lab)
        assert client.models.list().data
        assert last_call(client) is None


# Stopping, and what must not show.


def test_leaving_a_stream_closes_its_connection() -> None:
    """The provider sees it go while it still had much to say."""
    with Lab(script.chat_text(TEXT).sent(pace=0.01)) as lab:
        client = openai_at(lab)
        with client.chat.completions.create(model="m", messages=ASK, stream=True) as stream:
            next(iter(stream))
        assert lab.wait_closed(0).ended_by == "client"
        reply = last_call(stream)
        assert reply is not None
        assert reply.status == "dropped"


def test_closing_from_another_thread_ends_the_reader() -> None:
    """It waits in a read when it happens, and gets the SDK's connection error or a plain end."""
    with Lab(script.chat_text(TEXT), plan=Plan([Fault.stall(after_event=6)])) as lab:
        stream = openai_at(lab).chat.completions.create(model="m", messages=ASK, stream=True)
        reading = threading.Event()
        ended: list[str] = []

        def read() -> None:
            try:
                for number, _ in enumerate(stream):
                    if number == 3:
                        reading.set()
            except openai.APIConnectionError as error:
                ended.append(type(error).__name__)
            else:
                ended.append("end")

        thread = threading.Thread(target=read)
        thread.start()
        assert reading.wait(10)
        stream.close()
        thread.join(10)
        assert not thread.is_alive()
        assert ended


def test_cancelling_the_task_that_reads_leaves_nothing_behind() -> None:
    """asyncio: the cancellation comes out as it is, and the call is over."""

    async def run(lab: Lab) -> str:
        client = sidestream.wrap(openai.AsyncOpenAI(base_url=lab.url, api_key=KEY), policy=AT_ONCE)
        stream = await client.chat.completions.create(model="m", messages=ASK, stream=True)
        reading = asyncio.Event()

        async def read() -> None:
            async for _ in stream:
                reading.set()

        task = asyncio.create_task(read())
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stream.close()
        reply = last_call(stream)
        await client.close()
        return reply.status if reply else ""

    with Lab(script.chat_text(TEXT), plan=Plan([Fault.stall(after_event=6)])) as lab:
        assert asyncio.run(run(lab)) == "dropped"


def test_no_credential_shows_in_an_error() -> None:
    """Not even when the provider quotes it back."""
    with Lab(script.chat_text(TEXT), plan=Plan([Fault.error_event(after_event=5)] * 40)) as lab:
        client = openai_at(lab, continuation="none")
        with pytest.raises(openai.APIError) as caught:
            chat(client)
        assert KEY not in repr(caught.value)
    found = watched("https://x.example/v1/responses", {"authorization": f"Bearer {KEY}"}, b'{"input":"hi"}')
    assert found is not None
    assert KEY not in repr(found)
    assert found.route.without_credentials(f"wrong key {KEY}") == "wrong key ***"


# What is watched.


@pytest.mark.parametrize(
    ("method", "url", "wire"),
    [
        ("POST", "https://api.openai.com/v1/responses", "responses"),
        ("POST", "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=1", "chat"),
        ("POST", "https://api.anthropic.com/v1/messages?beta=true", "messages"),
        ("GET", "https://api.openai.com/v1/responses", ""),
        ("POST", "https://api.openai.com/v1/responses/resp_1/cancel", ""),
        ("POST", "https://api.openai.com/v1/embeddings", ""),
        ("POST", "https://api.anthropic.com/v1/messages/count_tokens", ""),
        ("POST", "https://api.anthropic.com/v1/messages/batches", ""),
    ],
)
def test_the_wire_is_read_off_method_and_path(method: str, url: str, wire: str) -> None:
    """Only the POST that asks for an answer; nothing that lies below it."""
    assert wire_of(method, url) == wire


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"5", b'{"model":"m"}', b'{"messages":[]}', b'{"messages":[5]}', b'{"messages":"hi"}'],
)
def test_a_body_that_is_no_call_is_left_alone(data: bytes) -> None:
    """It passes through, and the provider says what is wrong with it."""
    found = watched("https://api.anthropic.com/v1/messages", {}, data)
    assert found is None


def test_rate_limits_that_pass_are_waited_for() -> None:
    """The flow's own rules hold here as well: 429, then the answer."""
    limited = script.problem(429, "slow down", code="rate_limit_exceeded")
    with Lab([limited, script.chat_text(TEXT)]) as lab:
        client = openai_at(lab)
        assert chat(client) == TEXT
        reply = last_call(client)
        assert reply is not None
        assert [row.ended for row in reply.attempts] == ["throttled", "complete"]
