"""Whole calls with a Codex sign-in, sync and async, against the lab that plays backend and token endpoint."""

import asyncio
import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from codexhome import paths, read_auth, route, sign_in, write_auth

from sidestream import (
    AsyncClient,
    AuthFailed,
    BadRequest,
    Client,
    ConfigError,
    FaultKind,
    ProviderError,
    QuotaExceeded,
    Reply,
    Route,
    SidestreamError,
    Timeouts,
)
from sidestream.lab import Codex, Fault, Lab, Plan, script

# What the provider table says of the backend, for a route to the lab, which it does not know.
NEEDS = {"instructions": "You are a helpful assistant."}
REJECTS = frozenset({"temperature", "max_output_tokens", "top_p"})
ANSWER_SCRIPT = script.responses_text("From elsewhere.")
ANSWER = "The whole answer, nothing less than that."


def by_thread(routes: list[Route], **call: Any) -> Reply:
    return Client(routes=routes, timeout=Timeouts(total=30)).complete("Hi", **call)


def by_task(routes: list[Route], **call: Any) -> Reply:
    async def ask() -> Reply:
        async with AsyncClient(routes=routes, timeout=Timeouts(total=30)) as client:
            return await client.complete("Hi", **call)

    return asyncio.run(ask())


both = pytest.mark.parametrize("ask", [by_thread, by_task], ids=["sync", "async"])
Ask = Callable[..., Reply]


class World:
    """A lab that plays Codex, and a route that is signed in to it."""

    def __init__(
        self, lab: Callable[..., Lab], tmp_path: Path, plan: Plan | None = None, **settings: Any
    ) -> None:
        self.codex = Codex(ANSWER, **settings)
        self.lab = lab(self.codex, plan=plan)
        self.home = tmp_path / "codex"
        write_auth(self.home, self.codex.auth())
        self.signed = sign_in(self.home, self.lab)
        self.route = self.signed.apply(route(self.lab, params=NEEDS, rejects=REJECTS))


def meanwhile(codex: Codex, act: Callable[[], None]) -> None:
    """Have something happen as soon as the first answer begins."""
    told = codex._told

    def telling(request: Any) -> Any:
        if request.attempt == 0:
            act()
        return told(request)

    codex._told = telling  # type: ignore[method-assign]


@both
def test_a_call_is_as_the_backend_takes_it(lab: Callable[..., Lab], tmp_path: Path, ask: Ask) -> None:
    """Streamed, not stored, with instructions, without what it rejects, who asks in the headers; and its
    quirks do not matter: rate limits first, no output in response objects."""
    world = World(lab, tmp_path)
    reply = ask([world.route], temperature=0.3, max_output_tokens=50)
    assert (reply.text, reply.status) == (ANSWER, "complete")
    sent = world.lab.requests[0]
    fields = sent.fields()
    assert (fields["stream"], fields["store"], fields["instructions"]) == (True, False, NEEDS["instructions"])
    assert fields["prompt_cache_key"] == sent.header("session-id") == sent.header("thread-id")
    assert not REJECTS & fields.keys()


@both
def test_the_systems_words_are_instructions(lab: Callable[..., Lab], tmp_path: Path, ask: Ask) -> None:
    """This backend allows no system messages: the caller's words take the place of the default."""
    world = World(lab, tmp_path)
    assert ask([world.route], instructions="Be brief.").text == ANSWER
    assert world.lab.requests[0].fields()["instructions"] == "Be brief."


@both
def test_a_rejected_token_is_renewed_once(lab: Callable[..., Lab], tmp_path: Path, ask: Ask) -> None:
    """401: the token is renewed and the call goes on; the ledger has both attempts."""
    world = World(lab, tmp_path)
    world.codex.revoke()
    reply = ask([world.route])
    assert reply.text == ANSWER
    assert paths(world.lab) == ["responses", "token", "responses"]
    assert len(reply.attempts) == 2
    assert read_auth(world.home)["tokens"].items() >= world.codex.tokens.items()


@both
def test_a_token_that_is_rejected_again_is_given_up(
    lab: Callable[..., Lab], tmp_path: Path, ask: Ask
) -> None:
    """The new token is refused as well: one renewal, no loop, AuthFailed."""
    world = World(lab, tmp_path, residency="eu")
    signed = sign_in(world.home, world.lab)
    applied = signed.apply(world.route)
    bare = {name: v for name, v in applied.headers.items() if not name.startswith("x-openai")}
    signed._identity = lambda _: bare  # type: ignore[method-assign]  # a workspace that wants what we lack
    with pytest.raises(AuthFailed):
        ask([replace(applied, headers=bare)])
    assert paths(world.lab) == ["responses", "token", "responses"]


@both
def test_an_expired_token_is_renewed_before_the_first_request(
    lab: Callable[..., Lab], tmp_path: Path, ask: Ask
) -> None:
    """The route says when its token ends: it is renewed first, and the backend never sees the old one."""
    now = [time.time() - 11 * 86400]
    world = World(lab, tmp_path, clock=lambda: now[0])
    now[0] = time.time()
    reply = ask([world.route])
    assert reply.text == ANSWER
    assert paths(world.lab) == ["token", "responses"]
    assert len(reply.attempts) == 1


@both
def test_what_somebody_else_renewed_is_used(lab: Callable[..., Lab], tmp_path: Path, ask: Ask) -> None:
    """Each call begins with the token that is in the file by then."""
    world = World(lab, tmp_path)
    world.codex.login()
    write_auth(world.home, world.codex.auth())
    assert ask([world.route]).text == ANSWER
    assert paths(world.lab) == ["responses"]


@both
def test_what_somebody_else_renews_during_a_call_is_used(
    lab: Callable[..., Lab], tmp_path: Path, ask: Ask
) -> None:
    """Another process renews the token while the answer drops: its token is taken from the file after the
    401, and the token endpoint is not asked."""
    world = World(lab, tmp_path, Plan([Fault.cut(after_event=8)]))

    def renew_elsewhere() -> None:
        world.codex.login()
        write_auth(world.home, world.codex.auth())

    meanwhile(world.codex, renew_elsewhere)
    assert ask([world.route]).text == ANSWER
    assert paths(world.lab) == ["responses", "responses", "responses"]


@both
def test_a_refused_refresh_token_is_an_auth_failure_that_says_so(
    lab: Callable[..., Lab], tmp_path: Path, ask: Ask
) -> None:
    """The error names the token endpoint's reason and the command that helps."""
    world = World(lab, tmp_path, manners=["expired"])
    world.codex.revoke()
    with pytest.raises(AuthFailed) as caught:
        ask([world.route])
    assert "refresh_token_expired" in str(caught.value)
    assert "codex login" in str(caught.value) + caught.value.hint
    assert paths(world.lab) == ["responses", "token"]


@both
def test_a_sign_in_that_fails_leaves_the_next_route_its_turn(
    lab: Callable[..., Lab], tmp_path: Path, ask: Ask
) -> None:
    """The fallback answers where the token cannot be renewed."""
    world = World(lab, tmp_path, manners=["expired"])
    world.codex.revoke()
    other = lab(ANSWER_SCRIPT)
    reply = ask([world.route, Route(other.url, "m", "responses", name="other")])
    assert reply.text == "From elsewhere."
    assert world.codex.asked == 1


@both
@pytest.mark.parametrize("limit", ["usage_limit_reached", "usage_not_included"])
def test_a_usage_limit_is_quota_with_the_moment_it_resets(
    lab: Callable[..., Lab], tmp_path: Path, ask: Ask, limit: Any
) -> None:
    """QuotaExceeded, asked once, with `retry_at` where the backend says it; no token is renewed for it."""
    world = World(lab, tmp_path, limit=limit, resets_in=7200)
    before = time.time()
    with pytest.raises(QuotaExceeded) as caught:
        ask([world.route])
    assert paths(world.lab) == ["responses"]
    assert (caught.value.status, caught.value.code) == (429, limit)
    if limit == "usage_limit_reached":
        assert caught.value.retry_at is not None
        assert before + 7200 <= caught.value.retry_at <= time.time() + 7200
    else:
        assert caught.value.retry_at is None


@both
def test_the_challenge_is_an_error_of_its_own(lab: Callable[..., Lab], tmp_path: Path, ask: Ask) -> None:
    """Without the identity headers the page of the challenge comes: the error names it, its HTML is not
    shown, and no token is spent on it, for the key is not at fault."""
    world = World(lab, tmp_path)
    world.signed._identity = lambda _: {}  # type: ignore[method-assign]  # a client that does not say who it is
    with pytest.raises(ProviderError) as caught:
        ask([replace(world.route, headers={})])
    assert (caught.value.status, caught.value.fault.kind) == (403, FaultKind.BLOCKED)
    assert "Just a moment..." in str(caught.value)
    assert "<html" not in str(caught.value)
    assert paths(world.lab) == ["responses"]


@both
def test_a_stale_token_of_a_fallback_is_renewed_there(
    lab: Callable[..., Lab], tmp_path: Path, ask: Ask
) -> None:
    """The main route fails and the fallback's token was revoked: it is renewed, and the fallback answers."""
    world = World(lab, tmp_path)
    world.codex.revoke()
    main = lab(script.error(500, {"error": {"message": "no"}}))
    reply = ask([Route(main.url, "m", "responses", name="main"), world.route])
    assert reply.text == ANSWER
    assert paths(world.lab) == ["responses", "token", "responses"]


@both
def test_a_parameter_it_does_not_know_is_left_out(lab: Callable[..., Lab], tmp_path: Path, ask: Ask) -> None:
    """`{"detail": "Unsupported parameter: …"}` is understood: the field goes, the call goes on."""
    world = World(lab, tmp_path)
    assert ask([replace(world.route, rejects=frozenset())], temperature=0.3).text == ANSWER
    assert paths(world.lab) == ["responses", "responses"]
    assert "temperature" not in world.lab.requests[1].fields()


@both
def test_what_the_backend_requires_is_a_bad_request(
    lab: Callable[..., Lab], tmp_path: Path, ask: Ask
) -> None:
    """Instructions that nobody gave: the backend's own words, once."""
    world = World(lab, tmp_path)
    with pytest.raises(BadRequest, match="Instructions are required"):
        ask([replace(world.route, params={})])
    assert len(world.lab.requests) == 1


@both
def test_a_stream_that_drops_is_brought_back(lab: Callable[..., Lab], tmp_path: Path, ask: Ask) -> None:
    """The failure it all began with: the peer closes in the middle of a chunk. The answer comes back."""
    world = World(lab, tmp_path, Plan([Fault.cut(after_event=8)]))
    assert ask([world.route]).text == ANSWER
    assert len(world.lab.requests) == 2


@both
def test_a_token_that_is_revoked_in_the_middle_is_renewed_for_the_continuation(
    lab: Callable[..., Lab], tmp_path: Path, ask: Ask
) -> None:
    """Drop, then 401, then a new token: the call still ends with the whole answer."""
    world = World(lab, tmp_path, Plan([Fault.cut(after_event=8)]))
    meanwhile(world.codex, world.codex.revoke)
    assert ask([world.route]).text == ANSWER
    assert paths(world.lab) == ["responses", "responses", "token", "responses"]


def test_a_configured_route_signs_in_by_itself(
    lab: Callable[..., Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`provider = "codex"` in the configuration: the sign-in of $CODEX_HOME, what the table says the backend
    requires and rejects, and a renewal when it is needed."""
    world = World(lab, tmp_path)
    monkeypatch.setenv("CODEX_HOME", str(world.home))
    monkeypatch.delenv("CODEX_AUTH_HOME", raising=False)
    monkeypatch.setenv("CODEX_REFRESH_TOKEN_URL_OVERRIDE", Codex.token_url(world.lab))
    config = tmp_path / "config.toml"
    config.write_text(
        f'''main = "mine"
[routes.mine]
provider = "codex"
model = "gpt-5-codex"
base_url = "{Codex.base_url(world.lab)}"
'''
    )
    world.codex.revoke()
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    with Client(config=config) as client:
        assert client.complete(turns, temperature=0.3, max_output_tokens=50).text == ANSWER
        assert client.complete("Hi").text == ANSWER
    assert paths(world.lab) == ["responses", "token", "responses", "responses"]
    said = [request.fields().get("instructions") for request in world.lab.requests]
    assert said == ["Be brief.", None, "Be brief.", "You are a helpful assistant."]


# Canaries.


def shown(error: BaseException | None) -> str:
    """All that a crash reporter could show of an error: local variables of every frame but the test's own,
    and the same of the errors it came from."""
    if error is None:
        return ""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for frame in told.stack if frame.filename != __file__]
    own = f"{error!r} {error} {vars(error)!r} {[(frame.line, frame.locals) for frame in frames]}"
    return own + shown(error.__cause__) + shown(error.__context__)


FAILING: dict[str, dict[str, Any]] = {
    "renewed": {},
    "refused": {"manners": ["reused"]},
    "failing": {"manners": ["error"]},
    "redirected": {"manners": ["redirect"]},
    "lost": {"token_plan": [Fault.close()]},
    "cut": {"token_plan": [Fault.short(at_byte=900)]},
    "limited": {"limit": "usage_limit_reached"},
    "cut off": {"plan": Plan.always(Fault.cut(after_event=8))},
}


@both
@pytest.mark.parametrize("case", FAILING)
def test_no_token_is_shown_anywhere(
    lab: Callable[..., Lab], tmp_path: Path, ask: Ask, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Access, refresh and id token, old and new: in no log line, record of a call, error, local variable of
    its frames, repr, ledger, or record of the lab; and in no file but the document."""
    caplog.set_level(logging.DEBUG)
    world = World(lab, tmp_path, **FAILING[case])
    tokens = {*world.codex.tokens.values()}
    if case not in ("limited", "cut off"):
        world.codex.revoke()
    records: list[Any] = []
    text = [repr(world.signed), world.signed.label, repr(world.route)]
    try:
        client = Client(routes=[world.route], observe=records.append, timeout=Timeouts(total=20))
        reply = client.complete("Hi") if ask is by_thread else ask([world.route])
        text += [repr(reply), repr(reply.attempts)]
    except SidestreamError as error:
        text += [shown(error), error.hint, repr(error.attempts)]
    tokens |= {token for token in world.codex.tokens.values() if token}
    text += [repr(records), world.signed.problem, caplog.text, repr(world.lab.requests)]
    text += [p.read_text() for p in world.home.iterdir() if p.name != "auth.json"]
    whole = "\n".join(text)
    pieces = {piece for token in tokens for piece in (token, token[-40:])}
    assert not [piece for piece in pieces if piece in whole]


def test_no_token_is_shown_by_a_damaged_document_or_a_wrong_endpoint(
    lab: Callable[..., Lab], tmp_path: Path
) -> None:
    """Errors of the configuration show neither the document nor a piece of it."""
    world = World(lab, tmp_path)
    tokens = world.codex.tokens.values()
    document = (world.home / "auth.json").read_text()
    for content, target in ((document[:-9], world.route), (document, Route("https://a.test/v1", "m"))):
        write_auth(world.home, content)
        with pytest.raises(ConfigError) as caught:
            world.signed.apply(replace(target, api_key=None))
        assert not [token for token in tokens if token in shown(caught.value)]


def test_no_request_with_a_token_reaches_another_origin(lab: Callable[..., Lab], tmp_path: Path) -> None:
    """The token endpoint redirects to a trap, the backend drops and the call falls back to another origin:
    the trap is never asked, and the other origin gets neither token nor identity."""
    world = World(lab, tmp_path, Plan.always(Fault.close()), manners=["redirect"])
    other = lab(ANSWER_SCRIPT)
    assert world.signed.renew(world.route, 10) is None
    reply = by_thread([world.route, Route(other.url, "m", "responses", name="other")])
    assert reply.text == "From elsewhere."
    for request in other.requests:
        assert request.header("authorization") is None
        assert request.header("chatgpt-account-id") is None
        assert request.header("session-id") is None
    assert {request.path for request in world.lab.requests} == {
        "/oauth/token",
        "/backend-api/codex/responses",
    }
