"""What a Codex document says: modes, tokens, claims, and when a token has to be renewed."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream import ConfigError, Secret
from sidestream.routes.codex_auth import TOKENS, account_of, renewed, understood
from sidestream.routes.vault import Document

NOW = 1_800_000_000.0
DAY = 86_400.0


def jwt(**claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


def about(**fields: Any) -> dict[str, Any]:
    return {"https://api.openai.com/auth": fields}


def chatgpt(access: str = "opaque", **fields: Any) -> Document:
    tokens = {"access_token": access, "refresh_token": "r", **fields.pop("tokens", {})}
    return Document({"OPENAI_API_KEY": None, "tokens": tokens, **fields})


@pytest.mark.parametrize(
    ("fields", "kind", "key"),
    [
        ({"OPENAI_API_KEY": "sk-1"}, "apikey", "sk-1"),
        ({"OPENAI_API_KEY": "sk-1", "tokens": {"access_token": "a"}}, "apikey", "sk-1"),
        ({"OPENAI_API_KEY": None, "tokens": {"access_token": "a"}}, "chatgpt", "a"),
        ({"auth_mode": "apikey", "OPENAI_API_KEY": "sk-1"}, "apikey", "sk-1"),
        ({"auth_mode": "chatgpt", "OPENAI_API_KEY": "sk-1", "tokens": {"access_token": "a"}}, "chatgpt", "a"),
        ({"auth_mode": "chatgptAuthTokens", "tokens": {"access_token": "a"}}, "chatgpt", "a"),
    ],
)
def test_the_mode_decides_which_key_it_is(fields: Any, kind: str, key: str) -> None:
    """The mode that is named, else the API key if there is one, else ChatGPT."""
    mine = understood(Document(fields), "here")
    assert (mine.kind, mine.key) == (kind, Secret(key))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "here holds no access token"),
        ({"tokens": None}, "here holds no access token"),
        ({"tokens": {"access_token": 7}}, "here holds no access token"),
        ({"tokens": {"refresh_token": "canary"}}, "here holds no access token"),
        ({"auth_mode": "apikey", "OPENAI_API_KEY": None}, "here holds no OPENAI_API_KEY"),
        ({"auth_mode": "agentIdentity"}, "here says auth_mode 'agentIdentity', which is not supported"),
    ],
)
def test_a_document_without_a_usable_key_is_a_config_error(fields: Any, words: str) -> None:
    """It says what is missing and how to sign in, and shows nothing of what is there."""
    with pytest.raises(ConfigError) as caught:
        understood(Document(fields), "here")
    assert str(caught.value) == words
    assert caught.value.hint == "sign in with `codex login`"


def test_the_account_is_the_documents_or_else_a_claim() -> None:
    """`tokens.account_id` first, then the access token's claim, then the id token's."""
    access, other = jwt(**about(chatgpt_account_id="from-access")), jwt(**about(chatgpt_account_id="from-id"))
    named = understood(chatgpt(access, tokens={"account_id": "named", "id_token": other}), "here")
    assert named.account == "named"
    assert understood(chatgpt(access, tokens={"id_token": other}), "here").account == "from-access"
    assert understood(chatgpt(tokens={"id_token": other}), "here").account == "from-id"
    assert account_of(Secret(access)) == "from-access"
    assert account_of(None) == ""


@pytest.mark.parametrize(
    ("claims", "residency"),
    [
        ({"chatgpt_data_residency": "eu", "chatgpt_compute_residency": "us"}, "eu"),
        ({"chatgpt_compute_residency": "us"}, "us"),
        ({"chatgpt_data_residency": "e\nu"}, ""),
        ({"chatgpt_data_residency": 7}, ""),
        ({}, ""),
    ],
)
def test_the_residency_is_that_of_data_or_of_compute(claims: dict[str, Any], residency: str) -> None:
    """Where the account's data live, else where it computes; nothing that cannot be a header."""
    assert understood(chatgpt(jwt(**about(**claims))), "here").residency == residency


@pytest.mark.parametrize(
    "token", ["", "x", "a.b.c", "a.!!!.c", "a.e30.c", "e30.bnVsbA.x", "e30.W10.x", "é.é.é"]
)
def test_a_malformed_token_says_nothing_and_breaks_nothing(token: str) -> None:
    """What is no JWT has no account, no residency and no end."""
    mine = understood(chatgpt(token or "t"), "here")
    assert (mine.account, mine.residency, mine.expires) == ("", "", None)


@pytest.mark.parametrize(
    ("claims", "expires"),
    [
        ({"exp": NOW}, NOW - 300),
        ({"exp": NOW, "iat": NOW - 10 * DAY}, NOW - 300),
        ({"exp": NOW, "iat": NOW - 600}, NOW - 60),
        ({"exp": NOW, "iat": NOW + 5}, NOW - 300),
        ({"exp": True}, None),
        ({"exp": "soon"}, None),
        ({"exp": 1e30}, None),
        ({}, None),
    ],
)
def test_a_token_is_renewed_a_little_before_its_end(claims: dict[str, Any], expires: float | None) -> None:
    """Five minutes before, or a tenth of its life if that is less; nonsense is no end."""
    assert understood(chatgpt(jwt(**claims)), "here").expires == expires


@pytest.mark.parametrize(
    ("last", "expires"),
    [
        ("2027-01-15T08:00:00Z", NOW + 8 * DAY),
        ("2027-01-15T08:00:00.123456789Z", NOW + 8 * DAY + 0.123456),
        ("2027-01-15T09:00:00+01:00", NOW + 8 * DAY),
        ("2027-01-15T08:00:00", NOW + 8 * DAY),
        ("yesterday", None),
        (None, None),
    ],
)
def test_a_token_without_an_end_is_renewed_eight_days_after_the_last_time(
    last: str | None, expires: float | None
) -> None:
    """As Codex itself does; a token that says its end is not renewed for its age."""
    assert understood(chatgpt(last_refresh=last), "here").expires == expires
    assert understood(chatgpt(jwt(exp=NOW), last_refresh=last), "here").expires == NOW - 300


def test_renewing_keeps_every_field_it_does_not_know() -> None:
    """Tokens that came replace the old ones; whatever else stands in the document stays as it was."""
    fields = {
        "auth_mode": "chatgpt",
        "x": [1, {"y": None}],
        "tokens": {"access_token": "a", "id_token": "i", "z": 1},
    }
    new = renewed(Document(fields), {"access_token": "b", "refresh_token": "s", "expires_in": 5}, NOW)
    assert new is not None
    assert new.reveal() == {
        "auth_mode": "chatgpt",
        "x": [1, {"y": None}],
        "tokens": {"access_token": "b", "id_token": "i", "z": 1, "refresh_token": "s"},
        "last_refresh": "2027-01-15T08:00:00Z",
    }
    assert fields["tokens"] == {"access_token": "a", "id_token": "i", "z": 1}


@given(st.sets(st.sampled_from(TOKENS)), st.sampled_from(["", None, 7]))
def test_each_token_of_an_answer_is_optional(given: set[str], empty: object) -> None:
    """Any of the three may be missing or empty: the old one stays. Without all there is nothing to write."""
    old = {name: f"old {name}" for name in TOKENS}
    answer = {name: f"new {name}" if name in given else empty for name in TOKENS}
    new = renewed(Document({"tokens": old}), answer, NOW)
    if not given:
        assert new is None
        return
    assert new is not None
    assert new.reveal()["tokens"] == {n: f"{'new' if n in given else 'old'} {n}" for n in TOKENS}
