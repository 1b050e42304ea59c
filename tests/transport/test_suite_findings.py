"""What the SDKs' own test suites found in us, each as a promise of its own. See `sdk_suites.py`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from provider_in_memory import Answer, Provider, patient

import sidestream
from sidestream.lab import script

ASK: list[Any] = [{"role": "user", "content": "hi"}]
TOOL: Any = {"name": "lookup", "input_schema": {"type": "object"}}
WHOLE = script.responses_text("All of the answer.").events
DONE = b"data: [DONE]\n\n"


def openai_events(provider: Provider, *, is_async: bool) -> list[Any]:
    """The events of a Responses stream that reached the user."""
    if is_async:

        async def read() -> list[Any]:
            http = httpx2.AsyncClient(transport=provider.async_transport)
            async with openai.AsyncOpenAI(api_key="x", http_client=http) as client:
                sidestream.wrap(client, system=patient())
                stream = await client.responses.create(model="m", input="hi", stream=True)
                return [event async for event in stream]

        return asyncio.run(read())
    with openai.OpenAI(api_key="x", http_client=httpx2.Client(transport=provider.transport)) as client:
        sidestream.wrap(client, system=patient())
        return list(client.responses.create(model="m", input="hi", stream=True))


def message(*blocks: tuple[dict[str, Any], str], stop: str) -> Answer:
    """A Messages stream of blocks, each with the input that was streamed for it."""
    frames: list[dict[str, Any]] = []
    usage = {"input_tokens": 3, "output_tokens": 5}
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": []}
    frames.append({"type": "message_start", "message": {**start, "stop_reason": None, "usage": usage}})
    for index, (block, said) in enumerate(blocks):
        frames.append({"type": "content_block_start", "index": index, "content_block": block})
        if said:
            delta = {"type": "input_json_delta", "partial_json": said}
            frames.append({"type": "content_block_delta", "index": index, "delta": delta})
        frames.append({"type": "content_block_stop", "index": index})
    frames.append({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": usage})
    frames.append({"type": "message_stop"})
    return Answer(tuple(f"event: {f['type']}\ndata: {json.dumps(f)}\n\n".encode() for f in frames))


def call(key: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{key}", "name": "lookup", "input": {}}


def anthropic_kinds(provider: Provider) -> list[str]:
    with anthropic.Anthropic(api_key="x", http_client=httpx2.Client(transport=provider.transport)) as client:
        sidestream.wrap(client, system=patient())
        stream = client.messages.create(model="m", max_tokens=9, messages=ASK, tools=[TOOL], stream=True)
        return [event.type for event in stream]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("in_one", [False, True], ids=["piece by piece", "in one piece"])
def test_done_without_an_end_is_no_silent_truncation(*, is_async: bool, in_one: bool) -> None:
    """A client stops reading at `[DONE]`: it gets that only after the answer was found whole."""
    cut = (*WHOLE[:5], DONE)
    pieces = (b"".join(cut),) if in_one else cut
    provider = Provider()
    provider.play(*[Answer(pieces)] * 9)
    with pytest.raises(openai.APIConnectionError):
        openai_events(provider, is_async=is_async)
    assert len(provider.requests) > 1


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_stream_cut_before_done_still_comes_whole(*, is_async: bool) -> None:
    """The next answer goes on where the first one claimed to be done."""
    provider = Provider()
    provider.play(Answer((*WHOLE[:5], DONE)), *[Answer(WHOLE)] * 4)
    events = openai_events(provider, is_async=is_async)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == "All of the answer."
    assert [event.type for event in events].count("response.completed") == 1


def test_done_after_a_whole_answer_changes_nothing() -> None:
    """Servers that send it after the terminal event are asked once."""
    provider = Provider()
    provider.play(Answer((*WHOLE, DONE)))
    events = openai_events(provider, is_async=False)
    assert events[-1].type == "response.completed"


def test_a_refusal_in_the_middle_of_a_call_is_an_answer() -> None:
    """The model declined: it is not asked again for the rest of the call."""
    provider = Provider()
    provider.play(message((call("a"), '{"key": "a"}'), (call("b"), '{"key": "b"'), stop="refusal"))
    assert anthropic_kinds(provider)[-1] == "message_stop"


def test_a_model_that_takes_over_leaves_the_half_call_of_the_other_behind() -> None:
    """A `fallback` block after half a call: the answer is whole without that call."""
    takes_over = {"type": "fallback", "from": {"model": "m"}, "to": {"model": "n"}}
    provider = Provider()
    provider.play(
        message((call("a"), '{"key": "a"}'), (call("b"), '{"key": "b"'), (takes_over, ""), stop="end_turn")
    )
    assert anthropic_kinds(provider)[-1] == "message_stop"


def test_half_a_call_that_nobody_takes_over_is_asked_for_again() -> None:
    """The same without the block is a broken answer still."""
    provider = Provider()
    whole = message((call("b"), '{"key": "b"}'), stop="tool_use")
    provider.play(message((call("b"), '{"key": "b"'), stop="end_turn"), whole, whole)
    assert anthropic_kinds(provider)[-1] == "message_stop"
    assert len(provider.requests) > 1


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/json"}], ids=["no type", "json"])
def test_what_passes_through_is_the_response_of_the_transport_below(headers: dict[str, str]) -> None:
    """Whoever made the response finds the request on it; an empty one without a type is not judged."""
    made: list[httpx2.Response] = []

    def answer(_: httpx2.Request) -> httpx2.Response:
        made.append(httpx2.Response(200, headers=headers, content=b"{}" if headers else b""))
        return made[0]

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http:
        sidestream.wrap(http)
        assert http.post("https://api.example/v1/responses", json={"input": "hi"}).status_code == 200
    assert made[0].request.method == "POST"
