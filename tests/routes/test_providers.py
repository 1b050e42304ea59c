"""What is known of which endpoint and model, and what that makes of a route: the provider files in use."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import pytest
from make_providers import PAGE, page

from sidestream import AsyncClient, Client, ConfigError, Route, UsageError
from sidestream.route import Continuation, Secret, Wire
from sidestream.routes.environment import routes_from_environment
from sidestream.routes.providers import (
    Facts,
    base_url_for,
    facts_for,
    keys_for,
    provider,
    provider_of,
    providers,
    route_for,
    with_facts,
)
from sidestream.routes.table import Provider, Row

UNKNOWN = "https://llm.example/v1"
ROWS = [(each, row) for each in providers() for row in each.rows]
HOSTED = [(each, row) for each, row in ROWS if each.hosts]
ANYWHERE = [(each, row) for each, row in ROWS if not each.hosts]
rows = pytest.mark.parametrize(
    ("each", "row"), HOSTED, ids=[f"{each.id}-{row.sample}-{row.continuation}" for each, row in HOSTED]
)
every = pytest.mark.parametrize("each", providers(), ids=lambda each: each.id)


def endpoint(each: Provider, host: str, path: str = "") -> str:
    """A base URL on one of a provider's hosts."""
    shown = f"[{host}]" if ":" in host else host.replace("*", "x")
    return f"https://{shown}{f':{each.port}' if each.port else ''}{path}"


# The rows.


@rows
def test_every_row_is_the_first_for_its_sample(each: Provider, row: Row) -> None:
    """A row's sample model, on each host of its provider and each wire, meets that row and none before it."""
    for host in each.hosts:
        for wire in row.wires:
            url = endpoint(each, host, row.path)
            assert next(other for other in each.rows if other.fits(row.path, wire, row.sample)) is row
            facts = facts_for(Route(url, row.sample, wire))
            assert (facts.id, facts.continuation, facts.cursor) == (each.id, row.continuation, row.cursor)
            assert facts.prefill_thinking == row.prefill_thinking


@every
def test_every_host_answers_for_every_model_and_wire(each: Provider) -> None:
    """A provider's rows leave no gap: a model nobody has seen yet is somebody's too."""
    for host in each.hosts:
        for wire in get_args(Wire):
            route = Route(endpoint(each, host), "a-model-of-tomorrow", wire)
            assert facts_for(route).provider == each.name
            assert any(row.fits("", wire, "a-model-of-tomorrow") for row in each.rows)


@pytest.mark.parametrize(("each", "row"), ANYWHERE, ids=[each.id for each, _ in ANYWHERE])
def test_software_without_hosts_is_known_by_its_form(each: Provider, row: Row) -> None:
    """Nothing tells whose software a host runs; who says the form, or the name, gets what is known of it."""
    route = Route(UNKNOWN, row.sample, row.wires[0])
    assert facts_for(route) == Facts()
    said = facts_for(Route(UNKNOWN, row.sample, row.wires[0], continuation=row.continuation))
    assert (said.continuation, said.prefill_thinking) == (row.continuation, row.prefill_thinking)
    named = route_for(each.id, row.sample, base_url=UNKNOWN)
    assert (named.continuation, named.prefill_thinking) == (row.continuation, row.prefill_thinking)


def test_every_form_has_a_provider() -> None:
    """Each form of a continuation is some provider's; not to continue at all is only ever said by hand."""
    assert {row.continuation for _, row in ROWS} == set(get_args(Continuation)) - {"none"}


def test_a_cursor_is_for_the_responses_wire() -> None:
    """Only stored Responses streams are read again by cursor."""
    kept = [(each.name, row.wires) for each, row in ROWS if row.cursor]
    assert kept == [("OpenAI", ("responses",))]


def test_a_prefilled_turn_on_the_responses_wire_is_the_exception() -> None:
    """The dialects are Chat's; on Responses only llama.cpp was seen to go on with a trailing turn."""
    prefilled = [(each, row) for each, row in ROWS if row.continuation not in ("anchor", "none")]
    assert {each.name for each, row in prefilled if "responses" in row.wires} == {"llama.cpp"}


# What they say.

CASES = [
    ("https://api.openai.com/v1", "gpt-5-mini", "responses", "anchor"),
    ("https://api.openai.com/v1", "gpt-4o", "chat", "anchor"),
    ("https://eu.api.openai.com/v1", "gpt-4o", "chat", "anchor"),
    ("https://chatgpt.com/backend-api/codex", "gpt-5-codex", "responses", "anchor"),
    ("https://mine.openai.azure.com/openai/v1", "gpt-5", "responses", "anchor"),
    ("https://api.anthropic.com/v1", "claude-haiku-4-5-20251001", "chat", "trailing"),
    ("https://api.anthropic.com/v1", "claude-sonnet-4-5", "chat", "trailing"),
    ("https://api.anthropic.com/v1", "claude-opus-4-5", "chat", "trailing"),
    ("https://api.anthropic.com/v1", "claude-opus-4-20250514", "chat", "trailing"),
    ("https://api.anthropic.com/v1", "claude-sonnet-4-0", "chat", "trailing"),
    ("https://api.anthropic.com/v1", "claude-3-5-sonnet-latest", "chat", "trailing"),
    ("https://api.anthropic.com/v1", "Claude-3-Haiku-20240307", "chat", "trailing"),
    ("https://api.anthropic.com/v1", "claude-sonnet-4-6", "chat", "anchor"),
    ("https://api.anthropic.com/v1", "claude-opus-4-6-20260205", "chat", "anchor"),
    ("https://api.anthropic.com/v1", "claude-opus-4-7", "chat", "anchor"),
    ("https://api.anthropic.com/v1", "claude-opus-4-8", "chat", "anchor"),
    ("https://api.anthropic.com/v1", "claude-sonnet-5", "chat", "anchor"),
    ("https://api.anthropic.com/v1", "claude-sonnet-5-4", "chat", "anchor"),
    ("https://api.anthropic.com/v1", "claude-opus-5-5", "chat", "anchor"),
    ("https://api.anthropic.com/v1", "claude-haiku-5-5", "chat", "anchor"),
    ("https://api.anthropic.com/v1", "claude-fable-5-1", "chat", "anchor"),
    ("https://api.anthropic.com/v1", "claude-mythos", "chat", "anchor"),
    ("https://api.anthropic.com/v1", "claude-haiku-4-5-20251001", "messages", "trailing"),
    ("https://api.anthropic.com/v1", "claude-opus-4-1", "messages", "trailing"),
    ("https://api.anthropic.com/v1", "claude-sonnet-4-6", "messages", "anchor"),
    ("https://api.anthropic.com/v1", "claude-opus-5-5", "messages", "anchor"),
    ("https://openrouter.ai/api/v1", "anthropic/claude-sonnet-4.5", "messages", "anchor"),
    ("https://api.deepseek.com/anthropic/v1", "deepseek-chat", "messages", "anchor"),
    ("https://openrouter.ai/api/v1", "anthropic/claude-sonnet-4.5", "chat", "trailing"),
    ("https://openrouter.ai/api/v1", "anthropic/claude-4.5-sonnet-20250929", "chat", "trailing"),
    ("https://openrouter.ai/api/v1", "anthropic/claude-opus-4.1:beta", "chat", "trailing"),
    ("https://openrouter.ai/api/v1", "anthropic/claude-sonnet-4.5", "responses", "anchor"),
    ("https://openrouter.ai/api/v1", "anthropic/claude-4.6-sonnet-20260217", "chat", "anchor"),
    ("https://openrouter.ai/api/v1", "anthropic/claude-opus-4.6", "chat", "anchor"),
    ("https://openrouter.ai/api/v1", "deepseek/deepseek-chat", "chat", "anchor"),
    (
        "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1",
        "anthropic.claude-haiku-4-5-20251001-v1:0",
        "chat",
        "trailing",
    ),
    ("https://bedrock-mantle.us-east-1.api.aws/openai/v1", "openai.gpt-oss-120b", "responses", "anchor"),
    (
        "https://us-east5-aiplatform.googleapis.com/v1/x",
        "claude-sonnet-4-5@20250929",
        "chat",
        "trailing",
    ),
    ("https://aiplatform.googleapis.com/v1/x", "google/gemini-3.5-flash", "chat", "anchor"),
    ("https://mine.services.ai.azure.com/openai/v1", "claude-opus-4-1", "chat", "trailing"),
    (
        "https://dbc-1.cloud.databricks.com/serving-endpoints",
        "databricks-claude-sonnet-4",
        "chat",
        "trailing",
    ),
    ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-2.5-flash", "chat", "anchor"),
    ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-3.6-flash", "chat", "anchor"),
    ("https://api.x.ai/v1", "grok-4", "responses", "anchor"),
    ("https://api.deepseek.com/beta", "deepseek-chat", "chat", "prefix"),
    ("https://api.deepseek.com/beta/", "deepseek-reasoner", "chat", "prefix"),
    ("https://api.deepseek.com/beta/v1", "deepseek-chat", "chat", "prefix"),
    ("https://api.deepseek.com/betamax", "deepseek-chat", "chat", "anchor"),
    ("https://api.deepseek.com/v1", "deepseek-chat", "chat", "anchor"),
    ("https://api.deepseek.com", "deepseek-chat", "chat", "anchor"),
    ("https://api.mistral.ai/v1", "mistral-small-latest", "chat", "prefix_echoed"),
    ("https://codestral.mistral.ai/v1", "codestral-latest", "chat", "prefix_echoed"),
    ("https://api.moonshot.ai/v1", "kimi-k2.5", "chat", "partial"),
    ("https://api.moonshot.cn/v1", "moonshot-v1-8k", "chat", "partial"),
    ("https://dashscope.aliyuncs.com/compatible-mode/v1", "qwen-max", "chat", "partial"),
    ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "qwen3-coder-plus", "chat", "partial"),
    ("https://dashscope.aliyuncs.com/compatible-mode/v1", "qwq-plus", "chat", "anchor"),
    ("https://dashscope.aliyuncs.com/compatible-mode/v1", "kimi-k2.5", "chat", "anchor"),
    ("http://localhost:11434/v1", "llama3.1", "chat", "trailing"),
    ("http://127.0.0.1:11434/v1", "llama3.1", "chat", "trailing"),
    ("http://[::1]:11434/v1", "llama3.1", "chat", "trailing"),
    ("http://127.0.0.1:8080/v1", "llama3.1", "chat", "anchor"),
    ("http://gpu.example:11434/v1", "llama3.1", "chat", "anchor"),
    ("https://api.cohere.com/compatibility/v1", "command-a-03-2025", "chat", "anchor"),
    ("https://api.githubcopilot.com", "claude-sonnet-4.5", "chat", "anchor"),
    ("https://api.groq.com/openai/v1", "llama-3.3-70b-versatile", "chat", "anchor"),
    (UNKNOWN, "claude-sonnet-4-5", "chat", "anchor"),
]


@pytest.mark.parametrize(("url", "model", "wire", "form"), CASES)
def test_the_form_of_a_continuation(url: str, model: str, wire: Any, form: str) -> None:
    """This endpoint, with this model and wire, continues a partial answer in this form."""
    assert with_facts(Route(url, model, wire)).continuation == form


@pytest.mark.parametrize(
    "host", ["api.openai.com.example", "notapi.deepseek.com", "openai.azure.com", "dashscope.example"]
)
def test_a_host_that_looks_like_another_is_unknown(host: str) -> None:
    """A host name is compared whole."""
    assert facts_for(Route(f"https://{host}/beta", "qwen-plus", "chat")) == Facts()


def test_of_an_unknown_endpoint_nothing_is_assumed() -> None:
    """It is continued by a user turn, keeps nothing, and what closing costs is unknown."""
    facts = facts_for(Route(UNKNOWN, "m", "chat"))
    assert (facts.provider, facts.continuation, facts.cursor, facts.billing) == (
        "",
        "anchor",
        None,
        "unknown",
    )


@pytest.mark.parametrize(
    ("url", "model", "takes"),
    [
        ("https://api.anthropic.com/v1", "claude-sonnet-4-5", False),
        ("https://dashscope.aliyuncs.com/compatible-mode/v1", "qwen-plus", False),
        ("http://127.0.0.1:11434/v1", "qwen3", False),
        ("https://api.deepseek.com/beta", "deepseek-chat", True),
        ("https://api.mistral.ai/v1", "magistral-small-latest", True),
        ("https://api.moonshot.ai/v1", "kimi-k2.5", True),
    ],
)
def test_who_takes_a_prefilled_turn_while_reasoning(url: str, model: str, takes: bool) -> None:
    """Where a prefilled turn is refused while the model reasons, the route says so."""
    assert with_facts(Route(url, model, "chat")).prefill_thinking is takes
    assert not with_facts(Route(url, model, "chat", prefill_thinking=False)).prefill_thinking


@pytest.mark.parametrize("form", ["trailing", "continue_final_message"])
def test_a_server_of_your_own_is_not_prefilled_while_reasoning(form: Any) -> None:
    """Where the form says which software it is, what is known of that software counts."""
    assert not with_facts(Route(UNKNOWN, "qwen3", "chat", continuation=form)).prefill_thinking


# Who has the last word.


@pytest.mark.parametrize("form", get_args(Continuation))
def test_a_routes_own_word_wins(form: Any) -> None:
    """A continuation that a route says is never replaced, and completing it twice changes nothing."""
    for url in ("https://api.openai.com/v1", "https://api.mistral.ai/v1", UNKNOWN):
        once = with_facts(Route(url, "m", "chat", continuation=form))
        assert once.continuation == form
        assert with_facts(once) == once


def test_an_argument_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument, then environment, then table."""
    monkeypatch.delenv("SIDESTREAM_CONTINUATION", raising=False)
    url = "https://api.mistral.ai/v1"

    def form(**said: Any) -> str | None:
        return Client(url, model="m", wire="chat", **said).routes[0].continuation

    assert form() == "prefix_echoed"
    monkeypatch.setenv("SIDESTREAM_CONTINUATION", "anchor")
    assert form() == "anchor"
    assert form(continuation="none") == "none"


def test_the_environment_says_it_for_each_route() -> None:
    """The main route and the fallback have a variable each; an empty one says nothing."""
    env = {
        "SIDESTREAM_BASE_URL": UNKNOWN,
        "SIDESTREAM_MODEL": "m",
        "SIDESTREAM_CONTINUATION": "continue_final_message",
        "SIDESTREAM_FALLBACK_BASE_URL": UNKNOWN,
        "SIDESTREAM_FALLBACK_MODEL": "n",
    }
    main, spare = routes_from_environment(environ=env)
    assert (main.continuation, spare.continuation) == ("continue_final_message", None)
    env |= {"SIDESTREAM_CONTINUATION": "", "SIDESTREAM_FALLBACK_CONTINUATION": "trailing"}
    main, spare = routes_from_environment(environ=env)
    assert (main.continuation, spare.continuation) == (None, "trailing")


def test_a_form_that_does_not_exist_is_an_error() -> None:
    """A word that is no form is reported with those that are."""
    env = {"SIDESTREAM_BASE_URL": UNKNOWN, "SIDESTREAM_MODEL": "m", "SIDESTREAM_CONTINUATION": "prefill"}
    with pytest.raises(ConfigError, match="prefill") as caught:
        routes_from_environment(environ=env)
    assert "continue_final_message" in caught.value.hint


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_client_completes_every_route(client: type[Client | AsyncClient]) -> None:
    """Routes that were given ready-made are looked up too."""
    routes = [
        Route("https://api.mistral.ai/v1", "m", "chat"),
        Route(UNKNOWN, "m", "chat"),
        Route(UNKNOWN, "n", "chat", continuation="none"),
    ]
    assert [route.continuation for route in client(routes=routes).routes] == [
        "prefix_echoed",
        "anchor",
        "none",
    ]
    with pytest.raises(UsageError):
        client(routes=routes, continuation="anchor")


def test_another_model_for_one_call_is_looked_up_anew() -> None:
    """A model named for one call is continued as that model is, not as the route's own."""
    client = Client("https://api.anthropic.com/v1", api_key="k", model="claude-sonnet-4-5", wire="chat")

    def form(of: Client, model: str | None) -> str | None:
        return of.plan(model=model).routes[0].continuation

    assert form(client, None) == "trailing"
    assert form(client, "claude-opus-4-6") == "anchor"
    said = Client(UNKNOWN, model="a", wire="chat", continuation="trailing")
    assert form(said, "b") == "trailing"


# What a provider takes.

SAMPLING = {"temperature", "top_p"}


@pytest.mark.parametrize(
    ("name", "model", "wire", "never"),
    [
        ("codex", "gpt-5-codex", None, {"max_output_tokens", "max_tokens", "temperature", "top_p"}),
        ("openai", "gpt-5", "responses", SAMPLING),
        ("openai", "gpt-5-mini-2025-08-07", "chat", SAMPLING),
        ("openai", "o3", "chat", SAMPLING),
        ("openai", "o4-mini", "responses", SAMPLING),
        ("moonshot", "kimi-k2.6", None, {"temperature"}),
        ("kimi-code", "kimi-for-coding", None, {"temperature"}),
        ("anthropic", "claude-sonnet-5-5", None, SAMPLING | {"top_k"}),
        ("anthropic", "claude-opus-4-7", "chat", SAMPLING),
        ("azure", "gpt-5", "chat", SAMPLING),
    ],
)
def test_what_is_never_sent(name: str, model: str, wire: str | None, never: set[str]) -> None:
    """A field that a provider or model refuses is not sent there."""
    route = route_for(
        name, model, base_url="https://me.openai.azure.com/openai/v1" if name == "azure" else None, wire=wire
    )
    assert never <= route.rejects


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openai", "gpt-4o"), ("openai", "gpt-5-chat-latest"), ("openai", "gpt-5.1"), ("openai", "gpt-5.4"),
        ("moonshot", "moonshot-v1-8k"), ("anthropic", "claude-sonnet-4-6"), ("openrouter", "openai/gpt-5"),
        ("groq", "openai/gpt-oss-120b"),
    ],
)  # fmt: skip
def test_what_a_model_takes_is_sent(name: str, model: str) -> None:
    """A model that takes sampling parameters, or of which nothing is known, gets them."""
    assert not route_for(name, model).rejects & SAMPLING


@pytest.mark.parametrize(
    ("name", "model", "wire", "renamed"),
    [
        ("openai", "gpt-5", "chat", True),
        ("openai", "gpt-4o", "chat", True),
        ("openai", "gpt-5", "responses", False),
        ("copilot", "gpt-4.1", "chat", True),
        ("copilot", "claude-sonnet-4.6", "chat", False),
        ("deepseek", "deepseek-chat", "chat", False),
    ],
)
def test_the_output_limit_goes_by_the_providers_name(name: str, model: str, wire: str, renamed: bool) -> None:
    """`max_completion_tokens` where `max_tokens` is refused, and nowhere else."""
    renames = route_for(name, model, wire=wire).renames
    assert (
        renames.get("max_tokens") == renames.get("max_output_tokens") == "max_completion_tokens"
    ) is renamed


@pytest.mark.parametrize(
    ("name", "model", "window", "vision"),
    [
        ("openai", "gpt-5", 272_000, True),
        ("openai", "gpt-5.5-pro", 1_050_000, True),
        ("openai", "gpt-5.4-mini", 272_000, True),
        ("openai", "gpt-5-chat-latest", 128_000, True),
        ("openai", "gpt-6-sol", 922_000, True),
        ("openai", "o3-mini", 200_000, False),
        ("openai", "gpt-4o-audio-preview-2025-06-03", 128_000, False),
        ("openai", "gpt-7", None, None),
        ("anthropic", "claude-haiku-4-5", 200_000, True),
        ("anthropic", "claude-opus-4-6", 1_000_000, True),
        ("codex", "gpt-5.4", None, True),
        ("copilot", "gpt-5.5", 272_000, True),
        ("copilot", "claude-haiku-5.5", 128_000, True),
        ("moonshot", "kimi-k3", 1_048_576, True),
        ("moonshot", "moonshot-v1-8k-vision-preview", 8_192, True),
        ("zai", "glm-4.6", 200_000, None),
        ("zai", "glm-4.5v", 128_000, True),
        ("minimax", "MiniMax-M3", 1_000_000, True),
        ("gemini", "gemini-3.6-flash", 1_048_576, True),
        ("ollama", "llama3.1", None, None),
    ],
)
def test_what_a_model_reads(name: str, model: str, window: int | None, vision: bool | None) -> None:
    """Windows and vision as far as a source says so; a number of the caller's is kept."""
    route = route_for(name, model)
    assert (route.window, route.vision) == (window, vision)
    own = route_for(name, model, window=7, vision=False)
    assert (own.window, own.vision) == (7, False)


def test_codex_is_sent_what_it_needs() -> None:
    """Bearer, the beta header, no storing and some instructions; no secret stands in a file."""
    route = route_for("codex", "gpt-5-codex", api_key="k")
    assert route.params == {"instructions": "You are a helpful assistant.", "store": False}
    assert {"OpenAI-Beta", "originator"} <= set(route.headers)
    assert route.request_headers()["Authorization"] == "Bearer k"
    assert provider("codex").sign_in == "codex"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "url", "wire", "header"),
    [
        ("azure", "https://me.openai.azure.com/openai/v1", "chat", "api-key"),
        ("anthropic", None, None, "x-api-key"),
        ("anthropic", None, "chat", "Authorization"),
        ("openai", None, None, "Authorization"),
        ("minimax", None, None, "x-api-key"),
    ],
)
def test_how_a_key_is_sent(name: str, url: str | None, wire: str | None, header: str) -> None:
    """In the header the provider wants; what the route says itself is kept."""
    assert header in route_for(name, "m", base_url=url, wire=wire, api_key="k").request_headers()
    said = route_for(name, "m", base_url=url, wire=wire, api_key="k", auth="bearer")
    assert said.request_headers()["Authorization"] == "Bearer k"


def test_a_routes_own_headers_and_fields_win() -> None:
    """Whatever their case; and what is known is added beside them."""
    route = with_facts(
        Route(
            "https://chatgpt.com/backend-api/codex",
            "gpt-5-codex",
            headers={"Originator": "mine"},
            params={"instructions": "Mine."},
            rejects=frozenset({"tools"}),
        )
    )
    assert {name.lower(): value for name, value in route.headers.items()}["originator"] == "mine"
    assert len(route.headers) == 2
    assert route.params == {"instructions": "Mine.", "store": False}
    assert {"tools", "temperature"} <= route.rejects


@every
def test_completing_a_route_twice_changes_nothing(each: Provider) -> None:
    """A route that was completed is complete."""
    for row in each.rows:
        once = route_for(each, row.sample, base_url=UNKNOWN)
        assert with_facts(once, each) == once


# Names.


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("openai", "openai"), ("codex", "codex"), ("openai-codex", "codex"), ("google", "gemini"),
        ("claude", "anthropic"), ("kimi", "moonshot"), ("kimi-coding", "kimi-code"), ("glm", "zai"),
        ("z.ai", "zai"), ("zhipu", "zai"), ("github", "copilot"), ("github-copilot", "copilot"),
        ("grok", "xai"), ("x.ai", "xai"), ("dashscope", "qwen"), ("alibaba", "qwen"),
        ("lm-studio", "lmstudio"), ("nim", "nvidia"), ("llama.cpp", "llamacpp"), ("deep-seek", "deepseek"),
        ("aws", "bedrock"), ("foundry", "azure-foundry"),
    ],
)  # fmt: skip
def test_a_provider_has_several_names(name: str, id: str) -> None:
    """Ids and aliases, in any case and with blanks around them."""
    for spelled in (name, name.upper(), f" {name.title()} "):
        found = provider(spelled)
        assert found is not None
        assert found.id == id


@pytest.mark.parametrize(
    "id",
    [
        "openai", "codex", "azure", "anthropic", "openrouter", "nous", "gemini", "deepseek", "mistral",
        "moonshot", "qwen", "xai", "groq", "together", "vllm", "sglang", "llamacpp", "ollama", "lmstudio",
        "copilot", "azure-foundry", "bedrock", "vertex", "databricks", "cohere", "litellm", "zai",
        "kimi-code", "minimax", "nvidia",
    ],
)  # fmt: skip
def test_who_is_there(id: str) -> None:
    """Each makes a route of a model's name, and, if everybody has an endpoint of their own, of that too."""
    each = provider(id)
    assert each is not None
    url = None if each.base_url else UNKNOWN
    route = route_for(id, "m", base_url=url)
    assert with_facts(route, each) == route
    assert provider_of(each.base_url or "") in (each, None)


@pytest.mark.parametrize(("name", "hint"), [("opnai", "openai"), ("Antropic", "anthropic"), ("qqq", "docs/")])
def test_an_unknown_name_is_an_error_with_a_suggestion(name: str, hint: str) -> None:
    """No guessing: who misspells a provider is told what was probably meant."""
    with pytest.raises(ConfigError, match=name) as caught:
        route_for(name, "m")
    assert hint in caught.value.hint
    assert provider(name) is None


def test_who_has_no_endpoint_wants_one() -> None:
    """Azure without a base URL is an error; so is the model `auto`, which is never sent."""
    with pytest.raises(ConfigError, match="no endpoint of its own"):
        route_for("azure", "gpt-5")
    with pytest.raises(ConfigError, match="no model"):
        route_for("openai", "auto")


def test_another_endpoint_keeps_the_providers_ways() -> None:
    """A base URL beside a provider's name says where, not what: wire, auth and refusals stay."""
    route = route_for(
        "anthropic", "claude-sonnet-5", base_url="https://proxy.example/v1", api_key=Secret("k")
    )
    assert (route.wire, route.host) == ("messages", "proxy.example")
    assert "temperature" in route.rejects
    assert "x-api-key" in route.request_headers()


# Endpoints and keys of the environment.

PROXY = "https://proxy.example/v1"


@pytest.mark.parametrize(
    ("name", "environ", "url", "names"),
    [
        ("openai", {}, "https://api.openai.com/v1", ("OPENAI_API_KEY",)),
        ("openai", {}, "https://eu.api.openai.com/v1", ("OPENAI_API_KEY",)),
        ("openai", {}, "http://api.openai.com/v1", ()),
        ("openai", {}, PROXY, ()),
        ("openai", {"OPENAI_BASE_URL": PROXY}, PROXY, ("OPENAI_API_KEY",)),
        ("openai", {"OPENAI_BASE_URL": PROXY}, "https://proxy.example:443/other", ("OPENAI_API_KEY",)),
        ("openai", {"OPENAI_BASE_URL": PROXY}, "https://api.openai.com/v1", ()),
        ("openai", {"OPENAI_BASE_URL": " "}, "https://api.openai.com/v1", ("OPENAI_API_KEY",)),
        ("vllm", {}, "http://127.0.0.1:8000/v1", ("VLLM_API_KEY",)),
        ("vllm", {}, "http://127.0.0.1:8001/v1", ()),
        ("vllm", {}, PROXY, ()),
        ("azure", {}, "https://me.openai.azure.com/openai/v1", ("AZURE_OPENAI_API_KEY",)),
        ("azure", {}, "https://me.openai.azure.com.evil.example/openai/v1", ()),
        ("azure", {}, "", ()),
        ("azure", {}, "https://[", ()),
    ],
)
def test_a_variables_key_goes_to_its_own_endpoint(
    name: str, environ: dict[str, str], url: str, names: tuple[str, ...]
) -> None:
    """A key belongs to the endpoint that the variables name, else to the provider's own, and nowhere else."""
    each = provider(name)
    assert each is not None
    assert keys_for(each, url, environ) == names


def test_a_variable_moves_an_endpoint() -> None:
    """The first variable that is set counts; without one it is the provider's own."""
    openai, azure = provider("openai"), provider("azure")
    assert openai is not None
    assert azure is not None
    assert base_url_for(openai, {}) == "https://api.openai.com/v1"
    assert base_url_for(openai, {"OPENAI_BASE_URL": PROXY}) == PROXY
    assert base_url_for(openai, {"OPENAI_BASE_URL": ""}) == "https://api.openai.com/v1"
    assert base_url_for(azure, {}) is None


# Reading.


def test_importing_reads_no_files() -> None:
    """Neither the package nor its clients read provider files before a client is made; then it parses only
    that of the host it goes to."""
    code = (
        "import sidestream; sidestream.Client; sidestream.AsyncClient\n"
        "from sidestream.routes import table\n"
        "seen = lambda: (table._packaged.cache_info().currsize, table._packaged_head.cache_info().currsize)\n"
        "assert seen() == (0, 0)\n"
        "sidestream.Client('http://127.0.0.1:1/v1', model='m', wire='chat'); assert seen() == (1, 0)\n"
        "sidestream.Client('https://openrouter.ai/api/v1', model='m', api_key='k'); assert seen() == (1, 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_is_current() -> None:
    """docs/providers.md shows the files as they are: `python tests/routes/make_providers.py` makes it so."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_first_clients_of_several_threads_do_not_race() -> None:
    """Twelve threads that make the process's first clients at once all get one: the files are read by one."""
    code = (
        "import sys, threading; sys.setswitchinterval(1e-6); from sidestream import Client, Route\n"
        "gate, made = threading.Barrier(12), []\n"
        "route = Route('https://api.anthropic.com/v1', 'claude-sonnet-4-5', 'messages')\n"
        "def make(): gate.wait(); made.append(Client(routes=[route]))\n"
        "threads = [threading.Thread(target=make) for _ in range(12)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]; print(len(made))\n"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "12\n"), done.stderr
