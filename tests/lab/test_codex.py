"""The lab's Codex backend and token endpoint, asked with plain HTTP: what they refuse, tell and exchange."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any, get_args

import pytest

from sidestream.errors import UsageError
from sidestream.lab import Codex, Fault, Lab, script
from sidestream.lab.codex import CLAIM, UNSUPPORTED, Manner
from sidestream.lab.sse import decode, split_events
from sidestream.routes.codex_auth import understood
from sidestream.routes.vault import Document

if TYPE_CHECKING:
    from collections.abc import Callable

BODY = {
    "model": "m",
    "stream": True,
    "store": False,
    "instructions": "Be brief.",
    "input": [{"role": "user"}],
}


def post(lab: Lab, path: str, body: Any, headers: dict[str, str]) -> tuple[int, dict[str, str], str]:
    """Status, headers in small letters, text. A broken answer raises."""
    connection = http.client.HTTPConnection(lab.host, lab.port, timeout=5)
    try:
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        named = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, named, answer.read().decode()
    finally:
        connection.close()


def ask(lab: Lab, codex: Codex, headers: dict[str, str] | None = None, **body: Any) -> tuple[int, Any, str]:
    """A call as this backend takes it, but for what is said here; None leaves a field out."""
    given = {
        "Authorization": f"Bearer {codex.tokens['access_token']}",
        "originator": "test",
        "User-Agent": "test",
        "ChatGPT-Account-ID": "acct-lab",
    } | (headers or {})
    fields = {name: value for name, value in (BODY | body).items() if value is not None}
    return post(lab, "/backend-api/codex/responses", fields, {n: v for n, v in given.items() if v})


def exchange(lab: Lab, token: str) -> tuple[int, Any]:
    body = {"client_id": "app", "grant_type": "refresh_token", "refresh_token": token}
    status, _, text = post(lab, "/oauth/token", body, {})
    return status, json.loads(text) if text.startswith("{") else text


def test_it_tells_its_events_as_the_real_one_does(lab: Callable[..., Lab]) -> None:
    """Rate limits come first, responses have no output, the text is in the items; headers tell usage."""
    codex = Codex("One two three.")
    status, headers, text = ask(lab(codex), codex)
    events = [decode(event) for event in split_events(text.encode())]
    assert (status, headers["x-codex-primary-used-percent"]) == (200, "12")
    assert events[0]["type"] == "codex.rate_limits"
    assert events[-1]["type"] == "response.completed"
    assert [e["response"]["output"] for e in events if "response" in e] == [None, None, None]
    assert "".join(e["delta"] for e in events if e["type"].endswith("text.delta")) == "One two three."


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"stream": None}, "Stream must be set to true"),
        ({"stream": False}, "Stream must be set to true"),
        ({"store": True}, "Store must be set to false"),
        ({"store": None}, "Store must be set to false"),
        ({"instructions": None}, "Instructions are required"),
        ({"instructions": ""}, "Instructions are required"),
        ({"input": "Hi"}, "Input must be a list"),
        ({"input": [{"role": "system", "content": "x"}]}, "System messages are not allowed"),
        *(({name: 1}, f"Unsupported parameter: {name}") for name in UNSUPPORTED),
    ],
)
def test_what_it_does_not_take_is_refused_in_its_words(
    lab: Callable[..., Lab], body: dict[str, Any], detail: str
) -> None:
    """400 with `detail`, and no `error`."""
    codex = Codex()
    status, _, text = ask(lab(codex), codex, **body)
    assert (status, json.loads(text)) == (400, {"detail": detail})


@pytest.mark.parametrize("missing", ["originator", "User-Agent"])
def test_a_client_without_a_name_meets_the_challenge(lab: Callable[..., Lab], missing: str) -> None:
    """403 with an HTML page, before anything else is looked at."""
    codex = Codex(limit="usage_limit_reached")
    status, headers, text = ask(lab(codex), codex, {missing: ""}, stream=False)
    assert (status, headers["cf-mitigated"]) == (403, "challenge")
    assert "Enable JavaScript and cookies" in text


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Authorization": ""}, "token_invalidated"),
        ({"Authorization": "Bearer other"}, "token_invalidated"),
        ({"ChatGPT-Account-ID": "acct-other"}, "account_mismatch"),
        ({"ChatGPT-Account-ID": ""}, "account_mismatch"),
        ({"x-openai-internal-codex-residency": "us"}, "residency_mismatch"),
        ({}, "residency_mismatch"),
    ],
)
def test_a_stranger_is_refused(lab: Callable[..., Lab], headers: dict[str, str], code: str) -> None:
    """401 for another token, another account, or a workspace that lives elsewhere."""
    codex = Codex(residency="eu")
    status, _, text = ask(lab(codex), codex, headers)
    assert (status, json.loads(text)["error"]["code"]) == (401, code)
    assert ask(lab(codex), codex, {"x-openai-internal-codex-residency": "eu"})[0] == 200


def test_a_token_ends_with_its_time_and_when_it_is_revoked(lab: Callable[..., Lab]) -> None:
    """An access token is good until its end or until it is revoked; then only a new one is."""
    now = [1_800_000_000.0]
    codex = Codex(lifetime=60, clock=lambda: now[0])
    running = lab(codex)
    assert ask(running, codex)[0] == 200
    now[0] += 60
    status, _, text = ask(running, codex)
    assert (status, json.loads(text)["error"]["code"]) == (401, "token_expired")
    assert exchange(running, codex.tokens["refresh_token"])[0] == 200
    assert ask(running, codex)[0] == 200
    codex.revoke()
    assert ask(running, codex)[0] == 401


def test_a_refresh_token_is_good_once(lab: Callable[..., Lab]) -> None:
    """The first exchange gives three new tokens; the second one is told that the token was used."""
    codex = Codex()
    running, old = lab(codex), codex.tokens
    status, given = exchange(running, old["refresh_token"])
    assert (status, given) == (200, codex.tokens)
    assert all(given[name] != old[name] for name in old)
    status, refused = exchange(running, old["refresh_token"])
    assert (status, refused["error"]["code"]) == (401, "refresh_token_reused")
    assert (codex.asked, codex.rotated, codex.reused) == (2, 1, 1)


@pytest.mark.parametrize("manner", get_args(Manner))
def test_the_token_endpoint_answers_in_the_manner_it_is_told(lab: Callable[..., Lab], manner: Manner) -> None:
    """Each manner holds for one request; the next one rotates, if the token is still good."""
    codex = Codex(manners=[manner])
    running, old = lab(codex), codex.tokens["refresh_token"]
    status, answer = exchange(running, old)
    said = sorted(answer) if status == 200 else answer["error"]["code"] if status != 307 else ""
    assert (status, said) == {
        "rotate": (200, ["access_token", "id_token", "refresh_token"]),
        "keep": (200, ["access_token", "id_token"]),
        "no_access": (200, ["id_token", "refresh_token"]),
        "error": (500, "internal_error"),
        "redirect": (307, ""),
        "expired": (401, "refresh_token_expired"),
        "reused": (401, "refresh_token_reused"),
        "invalidated": (401, "refresh_token_invalidated"),
    }[manner]
    is_good = manner not in ("rotate", "no_access")
    assert (codex.tokens["refresh_token"] == old) is is_good
    assert exchange(running, old)[0] == (200 if is_good else 401)


def test_a_fault_at_the_token_endpoint_strikes_after_the_exchange(lab: Callable[..., Lab]) -> None:
    """The connection closes without an answer, and the old token is used up all the same; attempts of the
    plan are not touched by it."""
    codex = Codex(token_plan=[Fault.close()])
    running = lab(codex)
    old = codex.tokens["refresh_token"]
    with pytest.raises(http.client.RemoteDisconnected):
        exchange(running, old)
    assert (codex.rotated, codex.tokens["refresh_token"] != old) == (1, True)
    assert exchange(running, codex.tokens["refresh_token"])[0] == 200
    assert [request.attempt for request in running.requests] == [-1, -1]


@pytest.mark.parametrize("limit", ["usage_limit_reached", "usage_not_included"])
def test_a_limit_is_told_as_the_real_one_does(lab: Callable[..., Lab], limit: Any) -> None:
    """429 with a `type` and no `code`, and when it resets; until somebody lifts it."""
    codex = Codex(limit=limit, resets_in=60, clock=lambda: 1_800_000_000.0)
    running = lab(codex)
    status, headers, text = ask(running, codex)
    error = json.loads(text)["error"]
    assert (status, error["type"], "code" in error) == (429, limit, False)
    assert error.get("resets_at") == (1_800_000_060 if limit == "usage_limit_reached" else None)
    assert headers["x-codex-primary-used-percent"] == "100"
    codex.limit = None
    assert ask(running, codex)[0] == 200


def test_no_record_holds_a_token(lab: Callable[..., Lab]) -> None:
    """What was sent to either endpoint is recorded with fingerprints in place of tokens."""
    codex = Codex()
    running, old = lab(codex), codex.tokens
    ask(running, codex)
    exchange(running, old["refresh_token"])
    recorded = repr(running.requests)
    assert not [name for name, token in (old | codex.tokens).items() if token in recorded]
    assert running.requests[1].fields()["refresh_token"].startswith("sha256:")


def test_another_answer_function_has_no_token_endpoint(lab: Callable[..., Lab]) -> None:
    """Whoever plays no tokens is not asked for any."""
    assert exchange(lab(script.say("Hi")), "t")[0] == 404


def test_its_document_is_one_that_is_understood() -> None:
    """`auth()` is what a sign-in reads: tokens, account, residency, end."""
    codex = Codex(account="acct-1", residency="eu", lifetime=1000, clock=lambda: 1_800_000_000.0)
    mine = understood(Document(codex.auth()), "here")
    assert (mine.kind, mine.account, mine.residency) == ("chatgpt", "acct-1", "eu")
    assert mine.expires == 1_800_000_900.0
    assert CLAIM == "https://api.openai.com/auth"


def test_unknown_words_are_refused() -> None:
    """A manner or a limit that nobody knows is the caller's mistake."""
    with pytest.raises(UsageError, match="'rotten' is not known here"):
        Codex(manners=["rotten"])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="'sky' is not known here"):
        Codex(limit="sky")  # type: ignore[arg-type]
