"""A route is checked when it is made, and never shows its credential."""

from __future__ import annotations

import copy
import pickle

import pytest

from sidestream import ConfigError, Route, Secret


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "ftp://host/v1",
        "http://",
        "https://host:port/v1",
        "http://host:0/v1",
        "http://ho st/v1",
        "https://user:pass@host/v1",
        "http://[::1/v1",
    ],
)
def test_a_url_that_makes_no_sense_is_refused(url: str) -> None:
    """A base URL is an http(s) URL without credentials, or a ConfigError with a hint and without them."""
    with pytest.raises(ConfigError) as caught:
        Route(url, "m")
    assert caught.value.hint
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize("model", ["", " ", "auto"])
def test_a_model_is_named(model: str) -> None:
    """A route has a model, and `auto` is none."""
    with pytest.raises(ConfigError, match="model"):
        Route("https://host/v1", model)


def test_an_unknown_wire_is_refused() -> None:
    """Only wires that exist can be chosen."""
    with pytest.raises(ConfigError, match="wire"):
        Route("https://host/v1", "m", "carrier-pigeon")  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["example.com", "192.168.0.7", "[2001:db8::1]"])
def test_a_credential_does_not_travel_in_the_clear(host: str) -> None:
    """Plain http with a key to another machine is refused unless asked for."""
    with pytest.raises(ConfigError, match="plain http"):
        Route(f"http://{host}/v1", "m", api_key=Secret("k"))
    assert Route(f"http://{host}/v1", "m", api_key=Secret("k"), insecure=True).api_key


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "model.localhost"])
def test_this_machine_may_be_asked_in_the_clear(host: str) -> None:
    """Loopback needs no TLS."""
    assert Route(f"http://{host}:8080/v1", "m", api_key=Secret("k")).host in host


@pytest.mark.parametrize("value", ["two\r\nlines", "na\u00efve", "nul\0"])
def test_what_cannot_be_sent_is_refused(value: str) -> None:
    """Keys and header values that would break a request are refused, and not shown."""
    for options in ({"api_key": Secret(value)}, {"headers": {"X-Team": value}}):
        with pytest.raises(ConfigError) as caught:
            Route("https://host/v1", "m", **options)
        assert value not in str(caught.value)


def test_a_secret_shows_itself_nowhere() -> None:
    """Neither repr nor str nor format nor pickle nor copy gives a credential away."""
    secret = Secret("canary-credential")
    route = Route("https://host/v1", "m", api_key=secret, headers={"X-Key": "canary-header"})
    shown = (repr(route), str(route), f"{route}", repr(secret), f"{secret}")
    assert not [text for text in shown if "canary" in text]
    for give in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            give(secret)


def test_the_messages_wire_has_headers_of_its_own() -> None:
    """The key goes as `x-api-key` and never as a Bearer token too; what the caller gives wins."""
    route = Route("https://host/v1", "m", "messages", Secret("canary-credential"))
    headers = route.request_headers()
    assert (headers["x-api-key"], headers["anthropic-version"]) == ("canary-credential", "2023-06-01")
    assert "Authorization" not in headers
    assert route.target == "/v1/messages"
    assert route.without_credentials("bad key canary-credential") == "bad key ***"
    given = {"X-Api-Key": "mine", "Anthropic-Version": "2026-10-21"}
    headers = Route("https://host/v1", "m", "messages", Secret("k"), headers=given).request_headers()
    assert {
        name: value for name, value in headers.items() if name.lower() in ("x-api-key", "anthropic-version")
    } == given
    assert not {"x-api-key", "Authorization"} & set(
        Route("https://host/v1", "m", "messages").request_headers()
    )


def test_a_header_of_the_callers_is_sent_once() -> None:
    """Names of headers are the same in any case."""
    headers = Route(
        "https://host/v1", "m", api_key=Secret("k"), headers={"authorization": "mine"}
    ).request_headers()
    assert [value for name, value in headers.items() if name.lower() == "authorization"] == ["mine"]


def test_the_request_carries_host_and_key() -> None:
    """The Host header names the port unless it is the usual one, and the key goes as a Bearer token."""
    headers = Route("https://host:8443/v1", "m", api_key=Secret("k")).request_headers()
    assert headers["Host"] == "host:8443"
    assert headers["Authorization"] == "Bearer k"
    assert Route("https://host/v1", "m").request_headers()["Host"] == "host"
    assert Route("http://[::1]:80/v1", "m").request_headers()["Host"] == "[::1]"
    assert Route("https://host/v1", "m").origin == "https://host:443"
