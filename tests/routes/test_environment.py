"""Which route the arguments and the environment choose, and which key may go where."""

from __future__ import annotations

import pytest

from sidestream import ConfigError, NoRoute, Route, Secret
from sidestream.routes.environment import OPENAI, routes_from_environment, source_of

LOCAL = "http://127.0.0.1:8080/v1"


def only(env: dict[str, str], *args: str | None) -> Route:
    (route,) = routes_from_environment(*args, environ=env)
    return route


def test_the_usual_variables_make_a_route_to_openai() -> None:
    """A key and a model in the OPENAI variables are enough: OpenAI, by its Responses wire."""
    route = only({"OPENAI_API_KEY": "sk-1", "OPENAI_MODEL": "gpt-5-mini"})
    assert (route.base_url, route.model, route.wire) == (OPENAI, "gpt-5-mini", "responses")
    assert route.api_key == Secret("sk-1")


def test_arguments_beat_own_variables_which_beat_openais() -> None:
    """An argument beats SIDESTREAM_*, which beats OPENAI_*."""
    env = {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1", "OPENAI_MODEL": "c"}
    own = {**env, "SIDESTREAM_BASE_URL": "http://127.0.0.1:2/v1", "SIDESTREAM_MODEL": "b"}
    assert (only(env).port, only(env).model) == (1, "c")
    assert (only(own).port, only(own).model) == (2, "b")
    given = only(own, LOCAL, None, "a", "responses")
    assert (given.port, given.model, given.wire) == (8080, "a", "responses")


@pytest.mark.parametrize(
    ("env", "endpoint", "key"),
    [
        ({"OPENAI_API_KEY": "k"}, "https://api.openai.com/v1", "k"),
        ({"OPENAI_API_KEY": "k"}, "https://api.openai.com:443/other", "k"),
        ({"OPENAI_API_KEY": "k"}, "https://api.openai.com.evil.example/v1", None),
        ({"OPENAI_API_KEY": "k"}, LOCAL, None),
        ({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": LOCAL}, LOCAL, "k"),
        ({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": LOCAL}, "https://api.openai.com/v1", None),
        ({"SIDESTREAM_API_KEY": "s", "SIDESTREAM_BASE_URL": LOCAL}, LOCAL, "s"),
        ({"SIDESTREAM_API_KEY": "s", "SIDESTREAM_BASE_URL": LOCAL}, "http://127.0.0.1:8081/v1", None),
        (
            {"SIDESTREAM_API_KEY": "s", "SIDESTREAM_BASE_URL": LOCAL, "OPENAI_API_KEY": "k"},
            "https://api.openai.com/v1",
            "k",
        ),
        ({"ANTHROPIC_API_KEY": "a"}, "https://api.anthropic.com/v1", "a"),
        ({"ANTHROPIC_API_KEY": "a"}, "https://api.anthropic.com:443", "a"),
        ({"ANTHROPIC_API_KEY": "a"}, "http://api.anthropic.com/v1", None),
        ({"ANTHROPIC_API_KEY": "a"}, "https://api.anthropic.com.evil.example/v1", None),
        ({"ANTHROPIC_API_KEY": "a"}, LOCAL, None),
        ({"ANTHROPIC_API_KEY": "a"}, "https://api.openai.com/v1", None),
        ({"ANTHROPIC_API_KEY": "a", "OPENAI_BASE_URL": LOCAL}, LOCAL, None),
        ({"OPENAI_API_KEY": "k"}, "https://api.anthropic.com/v1", None),
        (
            {
                "ANTHROPIC_API_KEY": "a",
                "SIDESTREAM_API_KEY": "s",
                "SIDESTREAM_BASE_URL": "https://api.anthropic.com",
            },
            "https://api.anthropic.com",
            "s",
        ),
    ],
)
def test_a_key_of_the_environment_goes_to_its_own_origin_only(
    env: dict[str, str], endpoint: str, key: str | None
) -> None:
    """An endpoint given by hand gets the environment's key only if the environment names that origin."""
    try:
        found = only(env, endpoint, None, "m").api_key
    except NoRoute:
        found = None
    assert found == (Secret(key) if key else None)


@pytest.mark.parametrize(
    ("url", "wire", "target"),
    [
        (LOCAL, "chat", "/v1/chat/completions"),
        (f"{LOCAL}/responses", "responses", "/v1/responses"),
        (f"{LOCAL}/chat/completions/", "chat", "/v1/chat/completions"),
        (f"{LOCAL}?api-version=2", "chat", "/v1/chat/completions?api-version=2"),
        (f"{LOCAL}/messages", "messages", "/v1/messages"),
        ("https://api.anthropic.com/v1", "messages", "/v1/messages"),
        ("https://api.anthropic.com", "messages", "/v1/messages"),
        ("https://api.anthropic.com/v1/messages", "messages", "/v1/messages"),
        ("https://api.anthropic.com/v1/chat/completions", "chat", "/v1/chat/completions"),
    ],
)
def test_the_end_of_the_url_says_the_wire(url: str, wire: str, target: str) -> None:
    """A full endpoint URL is understood, Anthropic speaks Messages, and everything else but OpenAI Chat."""
    route = only({}, url, None, "m")
    assert (route.wire, route.target) == (wire, target)


def test_a_fallback_is_the_second_route() -> None:
    """The fallback variables make a second route with its own key."""
    env = {
        "SIDESTREAM_FALLBACK_BASE_URL": "https://spare.example/v1",
        "SIDESTREAM_FALLBACK_MODEL": "spare",
        "SIDESTREAM_FALLBACK_API_KEY": "f",
        "SIDESTREAM_FALLBACK_WIRE": "responses",
    }
    main, spare = routes_from_environment(LOCAL, None, "m", environ=env)
    assert (main.api_key, spare.api_key, spare.wire) == (None, Secret("f"), "responses")


@pytest.mark.parametrize("missing", ["SIDESTREAM_FALLBACK_BASE_URL", "SIDESTREAM_FALLBACK_MODEL"])
def test_half_a_fallback_is_an_error(missing: str) -> None:
    """A fallback without endpoint or model is reported, not ignored."""
    env = {"SIDESTREAM_FALLBACK_BASE_URL": LOCAL, "SIDESTREAM_FALLBACK_MODEL": "m"}
    del env[missing]
    with pytest.raises(ConfigError, match="half configured"):
        routes_from_environment(LOCAL, None, "m", environ=env)


def test_a_key_file_is_read(tmp_path) -> None:
    """The key may be in a file; white space around it is no part of it."""
    (tmp_path / "key").write_text("  secret\n")
    env = {"SIDESTREAM_API_KEY_FILE": str(tmp_path / "key"), "SIDESTREAM_BASE_URL": LOCAL}
    assert only(env, None, None, "m").api_key == Secret("secret")


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00"])
def test_an_unusable_key_file_is_an_error(content: bytes | None, tmp_path) -> None:
    """A key file that is missing, empty or no text is named in the error."""
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    env = {"SIDESTREAM_API_KEY_FILE": str(path), "SIDESTREAM_BASE_URL": LOCAL}
    with pytest.raises(ConfigError, match=str(path)):
        only(env, None, None, "m")


def test_the_source_of_a_key_is_who_holds_it(tmp_path) -> None:
    """A variable or the file it names, if the same key is there; whatever else is set says nothing."""
    (tmp_path / "key").write_text(" in-file\n")
    env = {
        "SIDESTREAM_API_KEY_FILE": str(tmp_path / "key"),
        "SIDESTREAM_FALLBACK_API_KEY_FILE": str(tmp_path / "gone"),
        "OPENAI_API_KEY": "in-variable",
    }
    assert source_of(Secret("in-variable"), env) == "env OPENAI_API_KEY"
    assert source_of(Secret("in-file"), env) == "file of env SIDESTREAM_API_KEY_FILE"
    assert source_of(Secret("argument"), env) == ""
    assert source_of(Secret("in-file"), {**env, "SIDESTREAM_API_KEY": "x"}) == ""


def test_without_a_model_there_is_no_route() -> None:
    """No model, no route, and the hint says how to choose one."""
    with pytest.raises(NoRoute) as caught:
        routes_from_environment(LOCAL, environ={})
    assert "SIDESTREAM_MODEL" in caught.value.hint


def test_openai_without_a_key_is_no_route() -> None:
    """Nothing is sent to OpenAI without a key."""
    with pytest.raises(NoRoute, match="key"):
        routes_from_environment(model="m", environ={})
