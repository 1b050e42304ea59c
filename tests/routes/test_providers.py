"""Which endpoint and model continue a partial answer, and in which form: the provider table and its use."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, get_args

import pytest
from make_providers import PAGE, page

from sidestream import AsyncClient, Client, ConfigError, Route, UsageError
from sidestream.route import Continuation, Wire
from sidestream.routes.environment import routes_from_environment
from sidestream.routes.providers import Facts, Row, facts_for, load, table, with_facts

UNKNOWN = "https://llm.example/v1"
HOSTED = [row for row in table() if row.hosts]
ANYWHERE = [row for row in table() if not row.hosts]


def named(row: Row) -> str:
    return f"{row.facts.provider}-{row.sample}-{row.facts.continuation}"


def endpoint(row: Row, host: str) -> str:
    """A base URL on one of the row's hosts."""
    shown = f"[{host}]" if ":" in host else host.replace("*", "x")
    return f"https://{shown}{f':{row.port}' if row.port else ''}{row.path}"


# The rows.


@pytest.mark.parametrize("row", HOSTED, ids=named)
def test_every_row_is_the_first_for_its_sample(row: Row) -> None:
    """A row's sample model, on each of its hosts and wires, meets that row and none before it."""
    for host in row.hosts:
        for wire in row.wires:
            route = Route(endpoint(row, host), row.sample, wire)
            assert next(other for other in table() if other.fits(route)) is row
            assert facts_for(route) == row.facts


@pytest.mark.parametrize("row", HOSTED, ids=named)
def test_every_host_answers_for_every_model_and_wire(row: Row) -> None:
    """A provider's rows leave no gap: a model nobody has seen yet is somebody's too, and is continued by a
    form that its wire has."""
    for wire in get_args(Wire):
        route = Route(endpoint(row, row.hosts[0]).removesuffix(row.path), "a-model-of-tomorrow", wire)
        assert facts_for(route).provider == row.facts.provider


@pytest.mark.parametrize("row", ANYWHERE, ids=named)
def test_software_without_hosts_is_known_by_its_form(row: Row) -> None:
    """Such a row fits no route by itself, and serves one that says its form."""
    route = Route(UNKNOWN, row.sample, row.wires[0])
    assert not row.fits(route)
    assert facts_for(route) == Facts()
    said = facts_for(Route(UNKNOWN, row.sample, row.wires[0], continuation=row.facts.continuation))
    assert said.continuation == row.facts.continuation
    assert said.prefill_thinking == row.facts.prefill_thinking


def test_every_form_has_a_provider() -> None:
    """Each form of a continuation is some provider's; not to continue at all is only ever said by hand."""
    assert {row.facts.continuation for row in table()} == set(get_args(Continuation)) - {"none"}


def test_a_cursor_is_for_the_responses_wire() -> None:
    """Only stored Responses streams are read again by cursor."""
    kept = [row for row in table() if row.facts.cursor]
    assert [(row.facts.provider, row.wires) for row in kept] == [("OpenAI", ("responses",))]


def test_a_prefilled_turn_on_the_responses_wire_is_the_exception() -> None:
    """The dialects are Chat's; on Responses only llama.cpp was seen to go on with a trailing turn."""
    known = {row.facts.provider for row in table() if "responses" in row.wires and is_prefill(row)}
    assert known == {"llama.cpp"}


def is_prefill(row: Row) -> bool:
    return row.facts.continuation not in ("anchor", "none")


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
        Route(UNKNOWN, "m", "chat", continuation="none"),
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
        call = of._call("hi", "", (), model, None, False, {}, live=False)
        return call.routes[0].continuation

    assert form(client, None) == "trailing"
    assert form(client, "claude-opus-4-6") == "anchor"
    said = Client(UNKNOWN, model="a", wire="chat", continuation="trailing")
    assert form(said, "b") == "trailing"


# The table itself.

GOOD = """
[families]
old = ["*old*"]

[[provider]]
name = "Here"
hosts = ["here.example"]
checked = 2026-11-22
source = "https://here.example"

  [[provider.row]]
  family = "old"
  continuation = "trailing"
  sample = "old-1"

  [[provider.row]]
  models = ["*"]
  continuation = "anchor"
  sample = "new-1"
"""


def test_a_table_is_read_in_order() -> None:
    """Rows keep their order, a family stands for its patterns, and what is left out has its default."""
    old, new = load(GOOD)
    assert (old.models, old.family, new.models, new.family) == (("*old*",), "old", ("*",), "")
    assert old.wires == new.wires == get_args(Wire)
    assert (old.facts.provider, old.facts.billing, old.facts.cursor) == ("Here", "unknown", None)


@pytest.mark.parametrize(
    ("good", "bad", "places"),
    [
        ('continuation = "anchor"', 'continuation = "prefill"', ["Here", "prefill", "row[1].continuation"]),
        ('sample = "new-1"', 'sample = "new-1"\n  model = "m"', ["Here", "`model`", "row[1]"]),
        ('sample = "new-1"', "", ["Here", "`sample`", "row[1]"]),
        ('hosts = ["here.example"]', 'host = "here.example"', ["Here", "`host`"]),
        ('hosts = ["here.example"]', "hosts = [1]", ["Here", "hosts[0]"]),
        ("checked = 2026-11-22", 'checked = "lately"', ["Here", "checked"]),
        ('source = "https://here.example"', 'source = "hearsay"', ["Here", "source"]),
        ('source = "https://here.example"', "", ["Here", "`source`"]),
        ('name = "Here"', "", ["provider 1", "`name`"]),
        ('name = "Here"', 'name = "Here"\nbilling = "maybe"', ["Here", "maybe", "billing"]),
        ('name = "Here"', 'name = "Here"\nbilling = "stops"', ["Here", "billing_source"]),
        ('name = "Here"', 'name = "Here"\nport = 0', ["Here", "port"]),
        ('models = ["*"]', 'models = ["*"]\n  wires = ["smoke"]', ["Here", "smoke", "row[1].wires[0]"]),
        ('models = ["*"]', 'models = ["*"]\n  wires = []', ["Here", "row[1].wires"]),
        ('models = ["*"]', 'models = ["*"]\n  path = "beta/"', ["Here", "row[1].path"]),
        ('models = ["*"]', 'models = ["*"]\n  cursor = "from"', ["Here", "from", "row[1].cursor"]),
        ('models = ["*"]', 'models = ["*"]\n  family = "old"', ["Here", "models", "row[1]"]),
        ('models = ["*"]', "", ["Here", "models", "row[1]"]),
        ('family = "old"', 'family = "young"', ["Here", "young", "row[0].family"]),
        ("[families]", "[relatives]", ["relatives"]),
        ("[families]", "[families", ["line 2"]),
    ],
)
def test_a_bad_table_is_reported_by_place(good: str, bad: str, places: list[str]) -> None:
    """What a table does not say right is a ConfigError that names the provider, the row and the key."""
    assert GOOD.count(good) == 1
    with pytest.raises(ConfigError) as caught:
        load(GOOD.replace(good, bad))
    message = str(caught.value)
    assert message.startswith("providers.toml: ")
    assert all(place in message for place in places), message


def test_importing_reads_no_table() -> None:
    """Neither the package nor its clients read the table before a client is made."""
    code = (
        "import sys, sidestream; sidestream.Client; sidestream.AsyncClient\n"
        "from sidestream.routes import providers\n"
        "assert 'tomllib' not in sys.modules and not providers._packaged.cache_info().currsize\n"
        "sidestream.Client('http://127.0.0.1:1/v1', model='m')\n"
        "assert providers._packaged.cache_info().currsize == 1\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_is_current() -> None:
    """docs/providers.md shows the table as it is: `python tests/routes/make_providers.py` makes it so."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_first_clients_of_several_threads_do_not_race() -> None:
    """Twelve threads that make the process's first clients at once all get one: the table is read by one."""
    code = (
        "import sys, threading; sys.setswitchinterval(1e-6); from sidestream import Client, Route\n"
        "gate, made = threading.Barrier(12), []\n"
        "route = Route('http://127.0.0.1:9/v1', 'm', 'chat')\n"
        "def make(): gate.wait(); made.append(Client(routes=[route]))\n"
        "threads = [threading.Thread(target=make) for _ in range(12)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]; print(len(made))\n"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "12\n"), done.stderr
