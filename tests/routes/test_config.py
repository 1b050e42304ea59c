"""What a configuration says, and what it must not say."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream import ConfigError, Prices
from sidestream.routes.config import Config, DefaultsConfig, RouteConfig, TaskConfig, merge, parse

WHOLE = """\
main = "openai:gpt-5-mini"
fallbacks = ["groq:llama-4", "local"]
discover = false

[defaults]
timeout = 600
first = 120.5
idle = 60
connect = 5
tries = 3
recoveries = 0
max_cost = 0.5
concurrency = 8
params = { temperature = 0.2 }

[routes.local]
model = "qwen3:8b"
base_url = "http://127.0.0.1:8080/v1"
wire = "chat"
api_key_env = "LOCAL_KEY"
api_key_file = ["/run/secrets/key", "~/.key"]
api_key_keyring = "sidestream/me"
headers = { X-Team = "search" }
header_env = { X-Org = "ORG_ID" }
insecure = true
continuation = "trailing"
window = 32_768
vision = false
quality = 2
concurrency = 1
params.top_p = 0.9
rejects = ["temperature"]
prices = { input = 0.25, output = 2 }
timeout = 30
first = 20
idle = 10
connect = 1

[routes.chatgpt]
model = "gpt-5-codex"
sign_in = "codex"
provider = "codex"

[tasks.title]
model = "llama-4"
provider = "groq"
fallbacks = ["local"]
only = true
quality = 1
min_window = 8000
timeout = 20
first = 10
idle = 5
connect = 2
concurrency = 2
empty_is_failure = true
atomic = true
tries = 1
recoveries = 2
max_cost = 0
instructions = "A title."
language = "en"

[tasks.title.params]
temperature = 0
max_output_tokens = 40

[tasks.title.options]
words = 5
nested = { anything = [1, "two"] }

[tasks.digest]
route = "local"
"""


def error(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, "/home/me/config.toml")
    return caught.value


def test_everything_that_can_be_said_is_read() -> None:
    """Every key of every table arrives as a plain value."""
    config = parse(WHOLE, "c.toml")
    assert (config.main, config.fallbacks) == ("openai:gpt-5-mini", ("groq:llama-4", "local"))
    assert config.discover is False
    assert config.defaults == DefaultsConfig(600.0, 120.5, 60, 5, 3, 0, 0.5, 8, {"temperature": 0.2})
    local, chatgpt = config.routes["local"], config.routes["chatgpt"]
    assert local.api_key_env == ("LOCAL_KEY",)
    assert local.api_key_file == ("/run/secrets/key", "~/.key")
    assert local.prices == Prices(0.25, 2.0)
    assert local.rejects == frozenset({"temperature"})
    assert (local.params, local.window, local.vision) == ({"top_p": 0.9}, 32768, False)
    title = config.tasks["title"]
    assert title.params == {"temperature": 0, "max_output_tokens": 40}
    assert title.options == {"words": 5, "nested": {"anything": [1, "two"]}}
    for table in (config.defaults, title, local):  # the text above leaves out what excludes each other
        silent = {f.name for f in fields(table) if getattr(table, f.name) in (None, {})}
        assert silent <= {"route", "provider", "sign_in"}
    assert chatgpt.sign_in == "codex"


def test_what_is_not_said_is_none() -> None:
    """An empty text says nothing, and an empty table nothing but its name."""
    assert parse("", "c.toml") == Config(files=("c.toml",))
    assert parse("[tasks.title]", "c.toml").tasks == {"title": TaskConfig()}
    assert all(getattr(TaskConfig(), f.name) in (None, {}) for f in fields(TaskConfig))
    assert all(getattr(RouteConfig(), f.name) in (None, {}) for f in fields(RouteConfig))


def test_every_value_knows_its_line() -> None:
    """`where` has file and line of what is said, and "default" for what is not."""
    config = parse(WHOLE, "/home/me/config.toml")
    assert config.where("main") == "/home/me/config.toml:1"
    assert config.where("defaults.timeout") == "/home/me/config.toml:6"
    assert config.where("routes.local.params.top_p") == "/home/me/config.toml:31"
    assert config.where("routes.local.prices.output") == "/home/me/config.toml:33"
    assert config.where("tasks.title.options.words") == "/home/me/config.toml:69"
    assert config.where("tasks.digest.timeout") == "default"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "[tasks.title]\n\nmodle = 'x'",
            "unknown key 'modle' in [tasks.title], line 3 of /home/me/config.toml; did you mean 'model'?",
            "known here",
        ),
        (
            "[task.title]",
            "unknown key 'task', line 1 of /home/me/config.toml; did you mean 'tasks'?",
            "known",
        ),
        ("[routes.a]\napi_key = 'x'", "unknown key 'api_key' in [routes.a], line 2", "api_key_env"),
        ("[tasks.a]\ntemperature = 0", "unknown key 'temperature'", "params = { temperature = … }"),
        ("[tasks.a]\nbase_url = 'x'", "unknown key 'base_url'", "an endpoint is a route"),
        ("[tasks.a]\nenabled = true", "unknown key 'enabled'", "options"),
        ("[tasks.a]\ntimeout = 0", "timeout in [tasks.a] is not a number of seconds above 0", "no 'none'"),
        (
            "[defaults]\ntimeout = 0.0",
            "timeout in [defaults] is not a number of seconds above 0",
            "no 'none'",
        ),
        ("[defaults]\ntimeout = -1", "timeout in [defaults] is not a number of seconds above 0", ""),
        ("[defaults]\ntimeout = inf", "timeout in [defaults] is not a number of seconds above 0", ""),
        ("[defaults]\ntries = 0", "tries in [defaults] is not a whole number from 1 to 100", ""),
        ("[defaults]\nmax_cost = -1", "max_cost in [defaults] is not a number from 0 on", ""),
        ("[defaults]\nparams.temperature = nan", "temperature is not a finite number, line 2", ""),
        ("[defaults]\nparams.x = [{ y = inf }]", "x is not a finite number, line 2", ""),
        ("[tasks.a.params]\nmodel = 'x'", "model is not a request field to set here, line 2", ""),
        ("[routes.a]\nmodel = 'auto'", '"auto" is not the name of a model, line 2', "leave model out"),
        ("[tasks.a]\nmodel = 'auto'", '"auto" is not the name of a model, line 2', "leave model out"),
        (
            "[tasks.a]\nprovider = 'auto'",
            '"auto" is not the name of a provider, line 2',
            "leave provider out",
        ),
        ("main = 'openai:auto'", "'openai:auto' is neither a route nor a provider with a model, line 1", ""),
        (
            "main = 'openai:'",
            "'openai:' is neither a route nor a provider with a model, line 1",
            "gpt-5-mini",
        ),
        ("main = 'auto'", "there is no route 'auto', line 1", "leave it out"),
        (
            "fallbacks = ['locl']\n[routes.local]\nprovider='x'\nmodel='m'",
            "there is no route 'locl'; did you",
            "",
        ),
        ("[tasks.a]\nroute = 'b'", "there is no route 'b', line 2", "[routes.b]"),
        ("[tasks.a]\nfallbacks = ['b']", "there is no route 'b', line 2", "[routes.b]"),
        ("[routes.a]\nprovider = 'openai'", "[routes.a] has no model, line 1", "model = …"),
        ("[routes.a]\nmodel = 'm'", "[routes.a] leads nowhere, line 1", "provider"),
        ("[routes.a]\nmodel='m'\nsign_in='codex'\napi_key_env='K'", "[routes.a] has a key and a sign-in", ""),
        ("[routes.a]\nmodel='m'\nsign_in='other'", 'sign_in in [routes.a] is not one of "codex"', ""),
        (
            "[routes.a]\nmodel='m'\nbase_url='http://far.test'\napi_key_env='K'",
            "[routes.a] would send a key over plain http",
            "insecure",
        ),
        ("[routes.a]\nbase_url='ftp://x'", "base_url in [routes.a] is not an http(s) address, line 2", ""),
        ("[routes.a]\nbase_url='https://x:99999'", "base_url in [routes.a] is not an http(s) address", ""),
        ("[routes.a]\nbase_url='https://x /'", "base_url in [routes.a] is not an http(s) address", ""),
        (
            "[routes.a]\napi_key_file='key.txt'",
            "api_key_file in [routes.a] is not a file's path",
            "full path",
        ),
        ("[routes.a]\napi_key_keyring='me'", 'api_key_keyring in [routes.a] is not "service/user"', ""),
        ("[routes.a]\napi_key_env=[]", "api_key_env in [routes.a] is not a variable's name", ""),
        ("[routes.a]\nheaders={'a b'='x'}", "'a b' is not a header's name", ""),
        ('[routes.a]\nheaders.x="a\\nb"', "header 'x' holds characters that cannot be sent", "header_env"),
        ("[routes.a]\nprices={input=1}", "prices in [routes.a] is not complete, line 2", "add output"),
        ("[routes.a]\nprices={input=-1,output=1}", "-1.0 is not a price, line 2", ""),
        ("[routes.'a.b']", "'a.b' is no name, line 1", "letters"),
        ("routes = 1", "routes is not a table, line 1", "[routes]"),
        (
            "[tasks.a]\nroute='b'\nmodel='m'\n[routes.b]\nprovider='x'\nmodel='m'",
            "[tasks.a] says both a route",
            "",
        ),
        ("[tasks.a]\nprovider = 'x'", "[tasks.a] says a provider and no model, line 1", "model = …"),
        ("[tasks.a]\nonly = true", "[tasks.a] allows only its own routes and has none, line 1", "route = …"),
        ("main = ", "/home/me/config.toml is not valid TOML", "toml.io"),
    ],
)
def test_what_makes_no_sense_is_an_error_with_its_line(text: str, message: str, hint: str) -> None:
    """Each mistake names the key, the line and the file, and what to do about it."""
    said = error(text)
    assert str(said).startswith(message)
    assert "/home/me/config.toml" in str(said)
    assert hint in said.hint


def test_a_header_is_wrong_once() -> None:
    """A name that is none is not looked at for anything else."""
    for table in ("headers", "header_env"):
        assert " more" not in str(
            error(f"[routes.a]\nprovider = 'openai'\nmodel = 'm'\n{table}={{'a b'='X'}}")
        )


def test_one_error_says_how_many_there_are() -> None:
    """The first problem is the message; that there are others is said, and where to see them."""
    assert str(error("mian = 1\n[defaults]\ntimeout = 0\ntries = 0")).endswith(
        "(and 2 more: sidestream config check)"
    )


CANARIES = ("sk-canary-0123456789", "gsk_canary0123456789abcdef", "hunter2canary0123456789")


@pytest.mark.parametrize("canary", CANARIES)
@pytest.mark.parametrize(
    "line",
    [
        "api_key = '{}'",
        "api_key_env = '{}'",
        "api_key_env = ['KEY', '{}']",
        "api_key_file = '{}'",
        "api_key_keyring = '{}'",
        "base_url = 'https://me:{}@far.test/v1'",
        "base_url = 'ftp://far.test/v1?key={}'",
        "base_url = 'https://far.test/v1?key={} '",
        'headers.Authorization = "Bearer {}\\n"',
        "header_env.Authorization = '{}'",
        "wire = '{}'",
        "prices = '{}'",
        "window = '{}'",
    ],
)
def test_a_key_in_the_wrong_place_is_not_repeated(line: str, canary: str) -> None:
    """Who pastes a key where its place belongs gets an error that does not show it."""
    said = error("[routes.a]\nmodel = 'm'\nprovider = 'x'\n" + line.format(canary))
    assert "line 4 of" in str(said)
    assert canary not in f"{said} {said.hint} {said!r}"


def test_headers_are_not_shown() -> None:
    """No header value is in a repr: many of them are credentials."""
    config = parse("[routes.a]\nmodel='m'\nprovider='x'\nheaders.X-Key='canary-value'", "c.toml")
    assert config.routes["a"].headers == {"X-Key": "canary-value"}
    assert "canary-value" not in repr(config)


# Merging.

LAYERS = [
    parse(text, f"{number}.toml")
    for number, text in enumerate(
        [
            "",
            "main = 'a:b'\nfallbacks = ['c:d']",
            "fallbacks = []\ndiscover = false",
            "[defaults]\ntimeout = 1\nparams = { a = 1, b = 2 }",
            "[defaults]\nidle = 2\nparams = { b = 3 }",
            "[routes.x]\nprovider = 'p'\nmodel = 'm'\nprices = { input = 1, output = 1, cached = 0 }",
            "[routes.x]\nprovider = 'q'\nmodel = 'n'\nprices = { input = 2, output = 2 }\nheaders.A = 'a'",
            "[tasks.t]\nquality = 0\nonly = false\n[tasks.t.options]\ndeep = { a = 1 }",
            "[tasks.t]\nquality = 3\n[tasks.t.options]\ndeep = { b = 1 }\n[tasks.u]",
        ]
    )
]
layers = st.sampled_from(LAYERS)


def test_what_is_on_top_wins_key_by_key() -> None:
    """Tables of request fields are put together, lists and prices are taken whole."""
    both = Config()
    for layer in LAYERS:
        both = merge(both, layer)
    assert (both.main, both.fallbacks, both.discover) == ("a:b", (), False)
    assert (both.defaults.timeout, both.defaults.idle) == (1, 2)
    assert both.defaults.params == {"a": 1, "b": 3}
    assert both.routes["x"].prices == Prices(2, 2)
    assert both.routes["x"].headers == {"A": "a"}
    assert both.tasks["t"].quality == 3
    assert both.tasks["t"].only is False
    assert both.tasks["t"].options == {"deep": {"b": 1}}
    assert list(both.tasks) == ["t", "u"]
    assert both.where("fallbacks") == "2.toml:1"
    assert both.where("main") == "1.toml:1"
    assert both.files == tuple(f"{number}.toml" for number in range(len(LAYERS)))


@given(layers, layers, layers)
def test_merging_is_plain_layering(a: Config, b: Config, c: Config) -> None:
    """How three layers are grouped does not matter, an empty one changes nothing, and none is altered."""
    before = repr((a, b, c))
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(Config(), a) == a == merge(a, Config())
    assert repr((a, b, c)) == before
