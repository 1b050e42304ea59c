"""The call agents already make, through both clients and the lab's sockets."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from sidestream import (
    AsyncClient,
    AuthFailed,
    Backoff,
    Cancel,
    Cancelled,
    Client,
    ConfigError,
    NoRoute,
    Policy,
    Route,
    Secret,
    SidestreamError,
    StreamDropped,
    UsageError,
)
from sidestream.host import Arguments, Completion, Host, extract_content_or_reasoning
from sidestream.lab import Continuing, Fault, Lab, Plan, fingerprint, script

TEXT = "Glomma runs through Norway. The Amazon carries more water. The Nile is long."
ASK = [{"role": "user", "content": "Three rivers?"}]
QUICK = Policy(backoff=Backoff(base=0, throttled_base=0))
Calls = Callable[..., Completion]


def answered(
    way: str, route: Route | None, *, host: dict[str, Any] | None = None, **arguments: Any
) -> Completion:
    """One call by a host of its own whose client has that one route, or none."""
    settings: dict[str, Any] = {"routes": (route,) if route else (), "policy": QUICK, "observe": ()}
    arguments = {"messages": ASK, **arguments}
    if way == "sync":
        with Client(**settings) as client:
            return Host(client, **(host or {})).call_llm(**arguments)

    async def call() -> Completion:
        async with AsyncClient(**settings) as client:
            return await Host(None, client, **(host or {})).async_call_llm(**arguments)

    return asyncio.run(call())


def at(lab: Lab, wire: Any = "chat", **more: Any) -> Route:
    return Route(lab.url, "lab-1", wire, **more)


both = pytest.mark.parametrize("way", ["sync", "async"])
wires = pytest.mark.parametrize("wire", ["chat", "responses", "messages"])


# The answer.


@both
@wires
def test_a_broken_answer_comes_back_whole_in_the_shape_of_a_completion(way: str, wire: str) -> None:
    """Text, finish reason, model and usage are where an agent looks for them; the ledger is there too."""
    with Lab(Continuing(TEXT), plan=Plan([Fault.cut(after_event=9)])) as lab:
        done = answered(way, at(lab, wire))
    (choice,) = done.choices
    assert (choice.index, choice.finish_reason) == (0, "stop")
    assert (choice.message.role, choice.message.content) == ("assistant", TEXT)
    assert choice.message.tool_calls is choice.message.reasoning is None
    assert done.model == "lab-1"
    assert done.usage is not None
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens > 0
    assert [attempt.ended for attempt in done.reply.attempts] == ["dropped", "complete"]


@both
@wires
def test_a_clean_end_before_the_end_is_no_stop(way: str, wire: str) -> None:
    """An answer that ends without its marker is brought back, and never half of it with "stop"."""
    with Lab(Continuing(TEXT), plan=Plan([Fault.end(after_event=9)])) as lab:
        assert answered(way, at(lab, wire)).choices[0].message.content == TEXT
        assert len(lab.requests) == 2


@both
@wires
def test_an_answer_at_its_limit_says_length(way: str, wire: str) -> None:
    """What a token limit ended is told as such, with its text."""
    with Lab(Continuing(TEXT, limited=True)) as lab:
        (choice,) = answered(way, at(lab, wire), max_tokens=3).choices
    assert choice.finish_reason == "length"
    assert TEXT.startswith(choice.message.content or "-")


@both
@pytest.mark.parametrize("wire", ["chat", "responses"])
def test_tool_calls_have_the_agents_shape(way: str, wire: str) -> None:
    """A finished call has id, type and function; content is None beside it."""
    arguments = json.dumps({"city": "Oslo"})
    chat = script.chat_call("get_weather", arguments)
    call = chat if wire == "chat" else script.responses(script.call("get_weather", arguments))
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    with Lab(call) as lab:
        (choice,) = answered(way, at(lab, wire), tools=[tool]).choices
        assert "get_weather" in json.dumps(lab.requests[0].fields()["tools"])
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    (made,) = choice.message.tool_calls
    assert (made.type, made.function.name, made.function.arguments) == ("function", "get_weather", arguments)
    assert made.id


@pytest.mark.parametrize(
    ("message", "limit", "text"),
    [
        ({"content": " plain "}, None, "plain"),
        ({"content": "<think>hm</think>\nyes"}, None, "yes"),
        ({"content": "<Thinking>hm", "reasoning": "r"}, None, "<Thinking>hm"),
        ({"content": "<think>only</think>", "reasoning": "because"}, None, "because"),
        ({"content": None, "reasoning": None, "reasoning_content": " why "}, None, "why"),
        ({"content": "", "reasoning": "0123456789"}, 3, "789"),
        ({"content": None}, None, ""),
    ],
)
def test_text_or_reasoning(message: dict[str, Any], limit: int | None, text: str) -> None:
    """Text without inline thoughts; reasoning only where there is no text; "" where there is neither."""
    response = SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(**message))])
    assert extract_content_or_reasoning(response, limit) == text


# The arguments.


def test_sync_and_async_take_the_same() -> None:
    """Both calls have one signature, and its arguments are those of the table."""
    sync, twin = (inspect.signature(method) for method in (Host.call_llm, Host.async_call_llm))
    assert sync.parameters == twin.parameters
    named = {"messages", "provider", "model", "base_url", "api_key", "temperature", "max_tokens", "tools"}
    assert named | {"timeout", "extra_body", "stream"} <= set(Arguments.__annotations__)


@both
@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        ({"temprature": 0}, "no argument temprature=", "did you mean temperature=?"),
        ({"top_p": 1}, "no argument top_p=", "extra_body="),
        ({"extra_headers": {}}, "no argument extra_headers=", "Route(headers"),
        ({"stream": True}, "no raw stream", "client.stream"),
        ({"messages": []}, "no messages", ""),
        ({"timeout": 0}, "timeout.total is 0", "above 0"),
        ({"base_url": "https://h.test/v1"}, "base_url= without a model", "model="),
        ({"api_key": "sk-0123456"}, "api_key= without base_url=", "endpoint"),
        ({"task": "compresion"}, "no task 'compresion'", "did you mean 'compression'"),
        ({"base_url": "https://h.test/v1", "model": "m", "api_mode": "pigeon"}, "pigeon", "chat_completions"),
        ({"extra_body": {"timeout": 3}}, "extra_body holds 'timeout'", "timeout="),
        ({"extra_body": {"stream": True}}, "stream= is not", ""),
    ],
)
def test_what_makes_no_sense_is_said(way: str, arguments: dict[str, Any], says: str, hint: str) -> None:
    """An argument that is unknown or makes no sense is a typed error with a hint, before any request."""
    with Lab(script.say(TEXT)) as lab, pytest.raises(UsageError, match=says) as caught:
        answered(way, at(lab), **{"model": None, **arguments})
    assert hint in caught.value.hint
    assert not lab.requests


def test_a_host_without_that_client_says_so() -> None:
    """A call whose client is missing is a usage error that shows how to have both."""
    with Client(routes=()) as client, pytest.raises(UsageError, match="async_call_llm") as caught:
        asyncio.run(Host(client).async_call_llm(messages=ASK))
    assert "AsyncClient" in caught.value.hint
    with pytest.raises(UsageError, match="call_llm has no client"):
        Host(None, AsyncClient(routes=())).call_llm(messages=ASK)


@both
def test_request_fields_arrive(way: str) -> None:
    """Temperature, output cap, reasoning and further fields are in the request; "auto" is no model."""
    with Lab(script.say(TEXT)) as lab:
        answered(
            way,
            at(lab),
            model="auto",
            provider="auto",
            temperature=0.0,
            max_tokens=7,
            extra_body={"seed": 3},
            reasoning_config={"enabled": True, "effort": "low"},
        )
        sent = lab.requests[0].fields()
    assert (sent["model"], sent["temperature"], sent["seed"]) == ("lab-1", 0.0, 3)
    assert (sent["max_tokens"], sent["reasoning_effort"]) == (7, "low")


@both
def test_what_is_none_is_not_sent(way: str) -> None:
    """None is the same as an argument that is not given."""
    none = dict.fromkeys(set(Arguments.__annotations__) - {"messages"})
    with Lab(script.say(TEXT)) as lab:
        answered(way, at(lab), **none)
        assert set(lab.requests[0].fields()) == {"model", "messages", "stream", "stream_options"}


@both
def test_an_empty_answer_to_a_task_is_a_failure(way: str) -> None:
    """A task's empty answer is asked for again; without a task it is an answer."""
    answers = [script.chat_text(""), script.chat_text(TEXT)]
    with Lab(answers) as lab:
        assert answered(way, at(lab), task="compression").choices[0].message.content == TEXT
    with Lab(answers) as lab:
        assert answered(way, at(lab)).choices[0].message.content == ""
    with Lab(answers) as lab:
        done = answered(way, at(lab), task="compression", empty_is_failure=False)
        assert done.choices[0].message.content == ""


# The agent's own route.


@both
def test_a_call_asks_the_agents_own_model(way: str) -> None:
    """`main_runtime` beats what the host was told, and a route in place beats both."""
    with Lab(script.say("told")) as told, Lab(script.say("own")) as own, Lab(script.say("here")) as here:
        host = {"main": at(told)}
        runtime = {"base_url": own.url, "model": "m", "api_key": "", "api_mode": "codex_responses"}
        assert answered(way, None, host=host).choices[0].message.content == "told"
        done = answered(way, None, host=host, main_runtime=runtime)
        assert done.choices[0].message.content == "own"
        assert own.requests[0].path == "/v1/responses"
        done = answered(way, None, host=host, main_runtime=runtime, base_url=here.url, model="other")
        assert done.choices[0].message.content == "here"
        assert here.requests[0].fields()["model"] == "other"
        done = answered(way, None, host=host, model="bigger")
        assert told.requests[1].fields()["model"] == "bigger"


@both
def test_a_provider_is_a_name_of_the_configuration(way: str) -> None:
    """A provider that nobody configured is an error that names it, and the agent's own model is not asked."""
    with Lab(script.say(TEXT)) as lab:
        for arguments in ({"provider": "elsewhere"}, {"provider": "elsewhere", "model": "m"}):
            with pytest.raises(ConfigError, match="elsewhere"):
                answered(way, at(lab), **arguments)
        assert not lab.requests


@both
def test_half_a_runtime_is_none(way: str) -> None:
    """A runtime without an endpoint or a model leaves the client's own route in place."""
    with Lab(script.say(TEXT)) as lab:
        for runtime in ({}, {"model": "m", "base_url": ""}, {"model": "auto", "base_url": lab.url}):
            assert answered(way, at(lab), main_runtime=runtime).model == "lab-1"


@both
def test_no_route_at_all_is_said(way: str) -> None:
    """Without any route the error says that there is none, and how to give one."""
    with pytest.raises(NoRoute):
        answered(way, None)


@both
def test_a_switch_of_the_model_is_for_the_next_call(way: str) -> None:
    """A call keeps the route it began with, its recovery too; the next call takes the new one."""
    with Lab(Continuing(TEXT), plan=Plan([Fault.cut(after_event=9)])) as old, Lab(script.say("new")) as new:
        settings: dict[str, Any] = {"routes": (), "policy": QUICK, "observe": ()}

        def switching(host: Host) -> dict[str, Any]:
            return {"messages": ASK, "notify": lambda _: host.set_main(at(new))}

        async def calls() -> list[Completion]:
            async with AsyncClient(**settings) as client:
                host = Host(None, client, main=at(old))
                first = await host.async_call_llm(**switching(host))
                return [first, await host.async_call_llm(messages=ASK)]

        if way == "async":
            done = asyncio.run(calls())
        else:
            with Client(**settings) as client:
                host = Host(client, main=at(old))
                done = [host.call_llm(**switching(host)), host.call_llm(messages=ASK)]
        assert [each.choices[0].message.content for each in done] == [TEXT, "new"]
        assert (len(old.requests), len(new.requests)) == (2, 1)


@both
def test_a_key_goes_to_its_own_origin_only(way: str) -> None:
    """A route in place gets the agent's own key at the same origin, and none at another."""
    key = Secret("sk-canary-0123456789")
    with Lab(script.say(TEXT)) as own, Lab(script.say(TEXT)) as far:
        host = {"main": at(own, api_key=key)}
        answered(way, None, host=host, base_url=f"{own.url}/", model="m")
        answered(way, None, host=host, base_url=far.url, model="m")
        answered(way, None, host=host, base_url=far.url, model="m", api_key="sk-another-0123")
        sent = [lab.header("authorization") for lab in (*own.requests, *far.requests)]
    assert sent == [fingerprint(f"Bearer {key.reveal()}"), None, fingerprint("Bearer sk-another-0123")]


@both
def test_a_key_may_be_a_function(way: str) -> None:
    """A key that is a function is asked for anew by every call."""
    keys = iter(["sk-first-012345", "sk-second-012345", "sk-checked-0123", "sk-third-012345"])
    with Lab(script.say(TEXT)) as lab:
        runtime = {"base_url": lab.url, "model": "m", "api_key": lambda: next(keys)}
        for _ in range(2):
            answered(way, None, main_runtime=runtime)
        answered(way, None, host={"main": runtime})  # which is also looked at when it is told
        sent = [request.header("authorization") for request in lab.requests]
    assert sent == [fingerprint(f"Bearer sk-{n}-012345") for n in ("first", "second", "third")]


# Failures.


@both
def test_failures_are_typed_and_carry_the_partial(way: str) -> None:
    """A call that cannot be brought back raises our error with what had arrived."""
    plan = Plan.always(Fault.cut(after_event=9))
    with Lab(Continuing(TEXT), plan=plan) as lab, pytest.raises(StreamDropped) as caught:
        answered(way, at(lab, continuation="none"), task="compression")
    assert caught.value.reply is not None
    assert TEXT.startswith(caught.value.reply.text)
    assert caught.value.reply.text


@both
def test_an_agent_gets_the_exception_it_knows(way: str) -> None:
    """`raises` makes the agent's own exception of ours, which stays its cause; or leaves ours as it is."""

    def raises(error: SidestreamError) -> Exception:
        return ConnectionError("the agent knows this") if isinstance(error, StreamDropped) else error

    with Lab(plan=Plan.always(Fault.close())) as lab, pytest.raises(ConnectionError) as caught:
        answered(way, at(lab), host={"raises": raises})
    assert isinstance(caught.value.__cause__, StreamDropped)
    with Lab(script.problem(401, "no", code="invalid_api_key")) as lab, pytest.raises(AuthFailed):
        answered(way, at(lab), host={"raises": raises})


@both
def test_a_cancel_stops_and_an_interrupt_does_not_stop_what_is_atomic(way: str) -> None:
    """`atomic` masks an interrupt; a cancel ends the call whatever it is, and is no Exception."""
    stop = Cancel()
    with Lab(Continuing(TEXT), plan=Plan([Fault.cut(after_event=9)])) as lab:
        done = answered(way, at(lab), cancel=stop, atomic=True, notify=lambda _: stop.interrupt())
        assert done.choices[0].message.content == TEXT
    with Lab(Continuing(TEXT), plan=Plan([Fault.cut(after_event=9)])) as lab:
        with pytest.raises(Cancelled):
            answered(way, at(lab), cancel=stop, atomic=True, notify=lambda _: stop.cancel())
        assert len(lab.requests) == 1
