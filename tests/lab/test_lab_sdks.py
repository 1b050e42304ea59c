"""The providers' own SDKs read what the lab says: streams, whole answers, errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sidestream.lab import Fault, Plan, Script, script

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidestream.lab import Lab

USER = [{"role": "user", "content": "Hi"}]
WEATHER = script.call("get_weather", '{"city": "Paris"}', tokens=5)
CASES: dict[str, tuple[tuple[script.Item, ...], str, list[dict[str, Any]]]] = {
    "text": ((script.message("Hello you."),), "end_turn", [{"type": "text", "text": "Hello you."}]),
    "thinking": (
        (script.reasoning("Hm, so.", encrypted="c2ln"), script.message("Hi.")),
        "end_turn",
        [{"type": "thinking", "thinking": "Hm, so.", "signature": "c2ln"}, {"type": "text", "text": "Hi."}],
    ),
    "call": (
        (WEATHER,),
        "tool_use",
        [{"type": "tool_use", "name": "get_weather", "input": {"city": "Paris"}}],
    ),
    "calls": (
        (script.message("Let me look."), WEATHER, script.call("now", "")),
        "tool_use",
        [
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "toolu_lab_1", "input": {"city": "Paris"}},
            {"type": "tool_use", "id": "toolu_lab_2", "input": {}},
        ],
    ),
    "refusal": ((script.refusal("I cannot."),), "refusal", []),
}


def _claude(lab: Lab) -> Any:
    anthropic = pytest.importorskip("anthropic")
    return anthropic.Anthropic(base_url=lab.url.removesuffix("/v1"), api_key="lab", max_retries=0)


def _gpt(lab: Lab) -> Any:
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=lab.url, api_key="lab", max_retries=0)


@pytest.mark.parametrize("name", CASES)
def test_anthropic_reads_messages(lab: Callable[..., Lab], name: str) -> None:
    """Streamed or whole, the SDK has the same content, stop reason, usage and request id."""
    items, reason, content = CASES[name]
    with _claude(lab(script.messages(*items, spent=(7, 9)))) as client:
        asked = {"model": "lab-1", "max_tokens": 99, "messages": USER}
        with client.messages.stream(**asked) as stream:
            told = stream.get_final_message()
            assert stream.request_id == "req_lab"
        whole = client.messages.create(**asked)
    assert whole._request_id == "req_lab"
    for message in (told, whole):
        assert (message.stop_reason, len(message.content)) == (reason, len(content))
        assert all(b.to_dict().items() >= c.items() for b, c in zip(message.content, content, strict=True))
        assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 9)
        assert getattr(message.stop_details, "explanation", None) == (None if content else "I cannot.")


def test_anthropic_reads_the_rest_of_the_service(lab: Callable[..., Lab]) -> None:
    """Its model list and token count work, an error is typed, and one in the stream is raised."""
    anthropic = pytest.importorskip("anthropic")
    asked = {"model": "lab-1", "max_tokens": 99, "messages": USER}
    busy, stream = script.messages_problem(529, "Overloaded"), script.messages_text("Hello you.")
    running = lab([busy, stream], plan=Plan([None, Fault.error_event(after_event=4)]))
    with _claude(running) as client:
        assert [model.id for model in client.models.list()] == ["lab-1"]
        assert client.messages.count_tokens(model="lab-1", messages=USER).input_tokens > 0
        with pytest.raises(anthropic.APIStatusError, match="Overloaded") as caught:
            client.messages.create(**asked)
        assert (caught.value.type, caught.value.request_id) == ("overloaded_error", "req_lab")
        with (
            pytest.raises(anthropic.APIStatusError, match="Overloaded"),
            client.messages.stream(**asked) as broken,
        ):
            broken.until_done()


def test_openai_reads_whole_responses(lab: Callable[..., Lab]) -> None:
    """Without a stream the SDK has text, calls, refusal and usage of a response."""
    answer = script.responses(script.reasoning("Hm."), script.message("Hello you."), WEATHER)
    with _gpt(lab([answer, script.responses(script.refusal("I cannot."))])) as client:
        told = client.responses.create(model="lab-1", input="Hi")
        refused = client.responses.create(model="lab-1", input="Hi", stream=False)
    assert (told.status, told.output_text, told.usage.output_tokens) == ("completed", "Hello you.", 8)
    assert (told.output[2].name, told.output[2].arguments) == ("get_weather", '{"city": "Paris"}')
    assert refused.output[0].content[0].refusal == "I cannot."


@pytest.mark.parametrize(
    ("answer", "said", "call", "finish"),
    [
        (script.chat_text("Hello you."), "Hello you.", None, "stop"),
        (script.chat_call("now", '{"a": 1}', tokens=3), None, ("now", '{"a": 1}'), "tool_calls"),
    ],
)
def test_openai_reads_whole_completions(
    lab: Callable[..., Lab], answer: Script, said: str | None, call: tuple[str, str] | None, finish: str
) -> None:
    """Without a stream the SDK has text or calls, finish reason and usage of a completion."""
    with _gpt(lab(answer)) as client:
        told = client.chat.completions.create(model="lab-1", messages=USER)
    spoken = told.choices[0].message
    calls = [(made.function.name, made.function.arguments) for made in spoken.tool_calls or ()]
    assert (spoken.content, calls, told.choices[0].finish_reason) == (said, [call] if call else [], finish)
    assert told.usage.prompt_tokens == 10
