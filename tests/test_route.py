"""A route is checked when it is made, and never shows its credential."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from sidestream import ConfigError, Route, RouteClocks, Secret


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


@pytest.mark.parametrize(
    "name", ["Authorization", "X-Api-Key", "api-key", "Cookie", "X-Org-Token", "client-secret"]
)
def test_a_credential_in_a_header_does_not_travel_in_the_clear_either(name: str) -> None:
    """A key is a key, wherever it stands; a header that holds none may go."""
    with pytest.raises(ConfigError, match="plain http"):
        Route("http://example.com/v1", "m", headers={name: "k"})
    assert Route("http://example.com/v1", "m", headers={name: "k"}, insecure=True).headers
    assert Route("http://127.0.0.1/v1", "m", headers={name: "k"}).headers
    assert Route("http://example.com/v1", "m", headers={"X-Title": "app"}).headers


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


def test_a_credential_that_is_cut_is_blanked_too() -> None:
    """What is kept of a provider's words may end within it; shorter than five characters it is a word."""
    key, header = "f00dfacecafe", "another-token"
    route = Route("https://host/v1", "m", api_key=Secret(key), headers={"X-Token": header})
    for secret in (key, header):
        for length in range(len(secret) + 1):
            told = route.without_credentials(f"bad key {secret[:length]}")
            assert told == ("bad key ***" if length > 4 else f"bad key {secret[:length]}")
    assert route.without_credentials(f"{key} and {header}, {key}") == "*** and ***, ***"
    assert route.without_credentials("nothing at all") == "nothing at all"


def test_what_routes_share() -> None:
    """The part that a failure of each scope is about: equal where it is shared."""
    here = Route("https://host/v1", "m", api_key=Secret("key-one"))
    others = {
        "model": Route("https://host/v1", "n", api_key=Secret("key-one")),
        "key": Route("https://host/v1", "m", api_key=Secret("key-two")),
        "wire": Route("https://host/v1", "m", "chat", api_key=Secret("key-one")),
        "path": Route("https://host/v2", "m", api_key=Secret("key-one")),
        "host": Route("https://other/v1", "m", api_key=Secret("key-one")),
    }
    shared = {
        scope: [name for name, other in others.items() if other.part(scope) == here.part(scope)]
        for scope in ("route", "credential", "model", "endpoint")
    }
    assert shared == {
        "route": [],
        "credential": ["model", "wire"],
        "model": ["key"],
        "endpoint": ["model", "key", "wire", "path"],
    }


def test_an_account_is_told_without_its_key() -> None:
    """By the key, else by the headers, which may hold one; the same key elsewhere is another account."""
    one = Route("https://host/v1", "m", api_key=Secret("key-one"), headers={"X-Title": "a"})
    assert one.account == Route("https://host/v1", "n", api_key=Secret("key-one")).account != ""
    assert one.account != Route("https://other/v1", "m", api_key=Secret("key-one")).account
    first, second = (Route("https://host/v1", "m", headers={"X-Token": value}) for value in ("one", "two"))
    assert first.account != second.account
    assert Route("https://host/v1", "m").account == ""
    assert "key-one" not in one.account


@pytest.mark.parametrize(
    "fields", [{"window": 0}, {"window": -1}, {"concurrency": 0}, {"auth": "basic"}, {"continuation": "hope"}]
)
def test_a_number_or_word_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    """With what would."""
    with pytest.raises(ConfigError) as caught:
        Route("https://host/v1", "m", **fields)
    assert caught.value.hint


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("clock", ["total", "first", "idle", "connect"])
def test_a_routes_clock_is_a_time(clock: str, value: float) -> None:
    """Finite and above 0; None is what the call says."""
    with pytest.raises(ConfigError, match=clock):
        RouteClocks(**{clock: value})
    assert getattr(RouteClocks(**{clock: None}), clock) is None


@pytest.mark.parametrize(
    ("auth", "wire", "header", "value"),
    [
        ("wire", "chat", "Authorization", "Bearer k"),
        ("wire", "messages", "x-api-key", "k"),
        ("bearer", "messages", "Authorization", "Bearer k"),
        ("x-api-key", "chat", "x-api-key", "k"),
        ("api-key", "responses", "api-key", "k"),
    ],
)
def test_how_a_key_is_sent(auth: Any, wire: Any, header: str, value: str) -> None:
    """In one header, and in no other."""
    headers = Route("https://host/v1", "m", wire, Secret("k"), auth=auth).request_headers()
    assert {name: headers[name] for name in headers if name in ("Authorization", "x-api-key", "api-key")} == {
        header: value
    }
