"""What went wrong, decided by one table: codes, phrases, statuses, exceptions, times to wait."""

import email.utils
import inspect
import json
import math
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream import errors
from sidestream.errors import CallFailed
from sidestream.net import failures
from sidestream.recovery.faults import (
    CODES,
    EXCEPTIONS,
    STATUSES,
    TYPES,
    Fault,
    FaultKind,
    from_error,
    from_exception,
    from_rejection,
    retry_after,
)
from sidestream.wire import _json, coding, sse
from sidestream.wire.errorinfo import read_error
from sidestream.wire.events import ErrorInfo

K = FaultKind


def in_stream(body: Any) -> Fault:
    found = read_error(body)
    assert found is not None
    return from_error(found)


def coded(code: str, message: str = "m") -> dict[str, Any]:
    return {"type": "response.failed", "error": {"code": code, "message": message}}


def typed(kind: str, message: str = "m") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


# In-stream errors: protocols B4, C4, D2, E3. (what it says, kind)
IN_STREAM: list[tuple[Any, FaultKind]] = [
    # OpenAI Responses, response.failed.error.code
    (coded("context_length_exceeded"), K.CONTEXT_LENGTH),
    (coded("insufficient_quota"), K.QUOTA),
    (coded("credit_balance_exhausted"), K.QUOTA),
    (coded("organization_spend_limit_exceeded"), K.QUOTA),
    (coded("project_spend_limit_exceeded"), K.QUOTA),
    (coded("organization_usage_limit_exceeded"), K.QUOTA),
    (coded("billing_hard_limit_reached"), K.QUOTA),
    (coded("usage_not_included"), K.QUOTA),
    (coded("cyber_policy"), K.REFUSED),
    (coded("bio_policy"), K.REFUSED),
    (coded("misalignment_policy_violation"), K.REFUSED),
    (coded("image_content_policy_violation"), K.REFUSED),
    (coded("invalid_prompt"), K.BAD_REQUEST),
    (coded("flex_unavailable"), K.BAD_REQUEST),
    (coded("server_is_overloaded"), K.OVERLOADED),
    (coded("rate_limit_exceeded"), K.THROTTLED),
    (coded("slow_down"), K.THROTTLED),
    (coded("server_error"), K.SERVER),
    (coded("vector_store_timeout"), K.SERVER),
    (coded("never_seen_before"), K.SERVER),
    (coded("model_not_found"), K.NOT_FOUND),
    (coded("unsupported_parameter"), K.PARAMETER),
    # Codex
    (
        {"type": "error", "error": {"type": "usage_limit_reached", "message": "m"}, "status_code": 429},
        K.QUOTA,
    ),
    ({"detail": "Unsupported parameter: max_output_tokens"}, K.PARAMETER),
    ({"detail": "Instructions are required"}, K.SERVER),
    # Anthropic
    (typed("invalid_request_error"), K.BAD_REQUEST),
    (typed("authentication_error"), K.AUTH),
    (typed("billing_error"), K.QUOTA),
    (typed("permission_error"), K.AUTH),
    (typed("not_found_error"), K.NOT_FOUND),
    (typed("request_too_large"), K.CONTEXT_LENGTH),
    (typed("rate_limit_error"), K.THROTTLED),
    (typed("timeout_error"), K.SERVER),
    (typed("api_error"), K.SERVER),
    (typed("overloaded_error"), K.OVERLOADED),
    (
        {"error": {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}},
        K.QUOTA,
    ),
    # chat servers
    ({"error": {"message": "m", "type": "server_error"}}, K.SERVER),
    ({"error": {"code": 429, "message": "m"}}, K.THROTTLED),
    ({"error": {"code": 502, "message": "Provider returned error"}}, K.SERVER),
    ({"error": {"code": 402, "message": "You can only afford 10 tokens"}}, K.QUOTA),
    ({"error": {"code": 403, "message": "m"}}, K.AUTH),
    ({"error": {"message": "m", "type": "BadRequestError", "code": 400}}, K.BAD_REQUEST),
    ({"object": "error", "message": "maximum context length is 5", "code": 400}, K.CONTEXT_LENGTH),
    ({"error": {"object": "error", "message": "m", "code": 400}}, K.BAD_REQUEST),
    ({"error": {"code": 400, "type": "exceed_context_size_error", "message": "m"}}, K.CONTEXT_LENGTH),
    ({"error": "over capacity: at capacity"}, K.OVERLOADED),
    ({"error": {"code": "insufficient_system_resource"}}, K.OVERLOADED),
    ({"code": "Throttling.AllocationQuota", "message": "m"}, K.THROTTLED),
    ({"error": {"code": "content_filter", "message": "m"}}, K.REFUSED),
    ({"error": {"code": 503, "status": "UNAVAILABLE", "message": "The model is overloaded"}}, K.OVERLOADED),
    ([{"error": {"code": 429, "message": "exceeded your current quota", "status": "X"}}], K.QUOTA),
    ({"error": {"message": "Incorrect API key provided"}}, K.AUTH),
    ({"error": {"message": "The model `x` does not exist"}}, K.NOT_FOUND),
    ({"error": {"message": "prompt is too long: 9 tokens"}}, K.CONTEXT_LENGTH),
    ({"error": {"message": "Rate limit reached for x"}}, K.THROTTLED),
    ({"error": {"message": "something"}}, K.SERVER),
    ({"error": {"code": "RESOURCE_EXHAUSTED", "message": "m"}}, K.QUOTA),
    ({"error": {"message": "Error code: 401 - no such token"}}, K.AUTH),
]


@pytest.mark.parametrize(
    ("body", "kind"), IN_STREAM, ids=lambda value: None if isinstance(value, FaultKind) else ""
)
def test_error_in_a_stream_has_its_kind(body: Any, kind: FaultKind) -> None:
    """Every error object in a stream means one kind of fault; an unknown one is the server's failure."""
    assert in_stream(body).kind is kind, body


# HTTP answers: (status, body, kind)
ANSWERS: list[tuple[int, Any, FaultKind]] = [
    (400, {"error": {"message": "m", "type": "invalid_request_error"}}, K.BAD_REQUEST),
    (400, {"error": {"message": "m", "code": "context_length_exceeded"}}, K.CONTEXT_LENGTH),
    (400, {"error": {"message": "m", "code": "cyber_policy"}}, K.REFUSED),
    (400, {"error": {"message": "Unknown parameter: 'foo'", "type": "invalid_request_error"}}, K.PARAMETER),
    (400, {"error": {"message": "m", "code": "unsupported_value", "param": "temperature"}}, K.PARAMETER),
    (400, {"detail": "Stream must be set to true"}, K.BAD_REQUEST),
    (400, {"detail": "Unsupported parameter: temperature"}, K.PARAMETER),
    (401, {"error": {"message": "m", "code": "invalid_api_key"}}, K.AUTH),
    (401, "", K.AUTH),
    (402, "", K.QUOTA),
    (403, {"error": {"message": "m"}}, K.AUTH),
    (404, {"error": {"message": "m"}}, K.NOT_FOUND),
    (404, {"error": {"message": "m", "code": "model_not_found"}}, K.NOT_FOUND),
    (405, "", K.NOT_FOUND),
    (408, "", K.SERVER),
    (409, "", K.SERVER),
    (413, "", K.CONTEXT_LENGTH),
    (415, "", K.BAD_REQUEST),
    (418, "", K.BAD_REQUEST),
    (422, {"detail": [{"msg": "field required"}]}, K.BAD_REQUEST),
    (425, "", K.SERVER),
    (429, "", K.THROTTLED),
    (429, {"error": {"message": "m", "type": "insufficient_quota"}}, K.QUOTA),
    (429, {"error": {"message": "m", "type": "usage_limit_reached"}}, K.QUOTA),
    (429, {"error": {"message": "m", "type": "tokens", "code": "rate_limit_exceeded"}}, K.THROTTLED),
    (429, {"error": {"message": "You exceeded your current quota"}}, K.QUOTA),
    (429, {"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}}, K.QUOTA),
    (401, {"error": {"code": 401, "message": "m", "type": "AuthenticationError"}}, K.AUTH),
    (403, {"code": "unauthenticated:bad-credentials", "error": "The OAuth2 token is not valid"}, K.AUTH),
    (400, {"error": {"code": "1210", "message": "API 调用参数有误"}}, K.PARAMETER),
    (429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}, K.QUOTA),
    (422, {"detail": [{"loc": ["body", "response_format"], "msg": "str type expected"}]}, K.PARAMETER),
    (422, {"detail": [{"loc": ["body", "messages", 0], "msg": "str type expected"}]}, K.BAD_REQUEST),
    (500, {"error": {"message": "m", "type": "server_error"}}, K.SERVER),
    (500, {"error": {"message": "m", "code": "rate_limit_exceeded"}}, K.THROTTLED),
    (502, "<html><title>502 Bad Gateway</title>", K.SERVER),
    (503, "", K.OVERLOADED),
    (503, {"error": {"message": "m", "code": "slow_down"}}, K.THROTTLED),
    (503, {"error": {"message": "m", "code": "insufficient_quota"}}, K.QUOTA),
    (504, "", K.SERVER),
    (524, "<html>", K.SERVER),
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, K.OVERLOADED),
    (403, "<html><head><title>403 Forbidden</title>", K.BLOCKED),
    (403, "<html><title>Just a moment...</title>Enable JavaScript and cookies to continue", K.BLOCKED),
    (503, "<html><title>Just a moment...</title>", K.BLOCKED),
    (401, "<html>", K.AUTH),
    (301, "", K.BAD_REQUEST),
    (307, {"error": {"code": "insufficient_quota"}}, K.BAD_REQUEST),
]


@pytest.mark.parametrize(("status", "body", "kind"), ANSWERS)
def test_answer_has_its_kind_and_the_body_beats_the_status(status: int, body: Any, kind: FaultKind) -> None:
    """An HTTP answer means what its body says; only a silent body leaves it to the status."""
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    fault = from_rejection(status, {}, data)
    assert (fault.kind, fault.status) == (kind, status)
    assert fault.detail


# What providers say in words alone: (status, message, kind). Most rows were found in an agent's issues.
SAID: list[tuple[int, str, FaultKind]] = [
    # money and plans
    (402, "This request requires more credits, or fewer max_tokens. You can only afford 7117", K.QUOTA),
    (403, "this model requires a subscription, upgrade for access", K.QUOTA),
    (403, "The model is not available on the free tier", K.QUOTA),
    (404, "This model isn't available on the free tier.", K.QUOTA),
    (429, "balance_depleted", K.QUOTA),
    (429, "Your prepaid credits are exhausted", K.QUOTA),
    (429, "You have no usable credits left", K.QUOTA),
    (429, "you (x) have reached your weekly usage limit", K.QUOTA),
    (429, "you have reached your session usage limit", K.QUOTA),
    (429, "You have exceeded your daily limit", K.QUOTA),
    (429, "Your daily quota is used up", K.QUOTA),
    (429, "Too many tokens per day", K.QUOTA),
    (429, "Resource has been exhausted (e.g. check quota).", K.QUOTA),
    (429, "You've hit your usage limit. Try again later.", K.QUOTA),
    (429, "Your account is not active, please check your billing details on our website.", K.QUOTA),
    # rates, which pass
    (429, "Quota exceeded for quota metric 'Requests' and limit 'Requests per minute'", K.THROTTLED),
    (429, "You exceeded your current quota. Please retry in 34.074824224s.", K.THROTTLED),
    (429, "Rate limit reached for x on tokens per min. Please try again in 2s", K.THROTTLED),
    # parameters
    (400, "Unsupported value: 'temperature' does not support 0.2 with this model.", K.PARAMETER),
    (400, "temperature is not supported with this model", K.PARAMETER),
    (400, "`top_p` is not allowed here", K.PARAMETER),
    (400, "Reasoning is mandatory for this endpoint and cannot be disabled.", K.PARAMETER),
    (400, "This model does not support reasoning_effort", K.PARAMETER),
    (400, "This response_format type is unavailable now", K.PARAMETER),
    (400, "litellm.BadRequestError: This response_format type is unavailable now", K.PARAMETER),
    (400, "this response_format requires constrained output, which is not there", K.PARAMETER),
    (400, "compile_grammar_error: guided_grammar is not valid", K.PARAMETER),
    (400, "Failed to compile the schema with xgrammar", K.PARAMETER),
    (400, "response_format: Extra inputs are not permitted", K.PARAMETER),
    (400, "output_config.format: Extra inputs are not permitted", K.PARAMETER),
    (400, "messages.0.content: Extra inputs are not permitted", K.BAD_REQUEST),
    # models
    (400, "invalid model format", K.NOT_FOUND),
    (400, "x/y is not a valid model ID", K.NOT_FOUND),
    (400, "unsupported model", K.NOT_FOUND),
    (400, "The 'x' model is not supported when using Codex with a ChatGPT account.", K.NOT_FOUND),
    (404, "model not found", K.NOT_FOUND),
    # keys
    (403, "bad-credentials: the token is expired", K.AUTH),
]


@pytest.mark.parametrize(("status", "message", "kind"), SAID)
def test_words_alone_have_their_kind(status: int, message: str, kind: FaultKind) -> None:
    """Where a provider gives no code, strict phrases say what it means."""
    fault = from_rejection(status, {}, json.dumps({"error": {"message": message}}).encode())
    assert fault.kind is kind, message


def test_words_of_an_ordinary_answer_match_nothing() -> None:
    """A complaint about the request that happens to use such words is the request's."""
    for message in (
        "messages.3: the tool result does not match a call about the daily report",
        "Invalid value for 'messages': the limit is 100 entries",
        "The image exceeds 5 MB",
    ):
        fault = from_rejection(400, {}, json.dumps({"error": {"message": message}}).encode())
        assert fault.kind is K.BAD_REQUEST, message


def test_a_challenge_for_browsers_is_not_about_the_key() -> None:
    """A web page on 403 is not the provider's word: another key is no use there, another endpoint is."""
    page = b"<html><title>Just a moment...</title>Enable JavaScript and cookies to continue</html>"
    fault = from_rejection(403, {}, page)
    assert (fault.kind.scope, fault.kind.again) == ("endpoint", False)
    assert fault.detail == "HTTP 403 with an HTML page: Just a moment..., a challenge for browsers"
    assert from_rejection(403, {"cf-mitigated": "challenge"}, b"<html>").kind is K.BLOCKED


def test_every_status_has_a_kind() -> None:
    """No HTTP status is left unclassified: 5xx are the server's, everything else the request's."""
    for status in range(300, 600):
        kind = from_rejection(status, {}, b"").kind
        assert kind is (STATUSES.get(status) or (K.SERVER if status >= 500 else K.BAD_REQUEST))


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("Unsupported parameter: max_output_tokens", "max_output_tokens"),
        ("Unsupported parameter: 'max_tokens' is not supported with this model.", "max_tokens"),
        ("Unknown parameter: 'reasoning.effort'.", "reasoning.effort"),
        ("Unrecognized request argument supplied: top_k", "top_k"),
        ("The parameter `temperature` is not supported by this model", "temperature"),
        ("Unsupported value: 'temperature' does not support 0.2 with this model.", "temperature"),
        ("This model does not support reasoning_effort", "reasoning_effort"),
        ("Reasoning is mandatory for this endpoint and cannot be disabled.", "reasoning"),
        ("compile_grammar_error: guided_grammar is not valid", "response_format"),
        ("response_format.type: str type expected", "response_format"),
        ("output_config.format: Extra inputs are not permitted", "output_config.format"),
    ],
)
def test_rejected_parameter_is_named(message: str, param: str) -> None:
    """Where the provider gives no `param`, its name is read from the message."""
    fault = from_rejection(400, {}, json.dumps({"error": {"message": message}}).encode())
    assert (fault.kind, fault.param) == (K.PARAMETER, param)


def test_a_code_that_means_one_field_names_it() -> None:
    """Z.AI says 1210 for an output limit that it does not take, without naming it."""
    body = json.dumps({"error": {"code": "1210", "message": "API 调用参数有误"}}).encode()
    assert from_rejection(400, {}, body).param == "max_tokens"


# The tables are whole.


def test_every_exception_of_the_network_layer_is_in_the_table() -> None:
    """Each exception class of our connections and of httpx's, and each of our decoders, has a kind."""
    network = set(failures.__all__)
    theirs = {cls.__name__ for cls in vars(httpx2).values() if is_exception(cls)}
    assert {name for name in theirs if issubclass(getattr(httpx2, name), httpx2.TransportError)} <= {
        *network,
        "TransportError",
        "CloseError",  # of a connection that nobody reads any more
        "SSEError",  # of a reader above the transport
    }
    own = {
        cls.__name__
        for module in (_json, sse, coding)
        for cls in vars(module).values()
        if is_exception(cls) and cls.__module__ == module.__name__
    }
    assert set(EXCEPTIONS) == network | own


def is_exception(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, BaseException)


@pytest.mark.parametrize("name", sorted(EXCEPTIONS))
def test_exception_of_the_network_layer_has_its_kind(name: str) -> None:
    """An exception and every subclass of it mean what the table says."""
    cls = getattr(failures, name, type(name, (Exception,), {}))
    assert from_exception(type("Sub", (cls,), {})("x")).kind is EXCEPTIONS[name]


def test_unknown_exceptions_count_as_a_drop() -> None:
    """An OSError that nobody listed broke the stream, and says so in one line."""
    fault = from_exception(ConnectionResetError(104, "Connection reset\nby peer"), clock="idle")
    assert (fault.kind, fault.detail) == (K.DROPPED, "[Errno 104] Connection reset by peer")
    assert from_exception(ValueError()).detail == "ValueError"


@pytest.mark.parametrize(
    ("clock", "kind"),
    [("connect", K.STALLED), ("first", K.STALLED), ("idle", K.STALLED), ("total", K.DEADLINE)],
)
def test_timeout_names_its_clock(clock: str, kind: FaultKind) -> None:
    """Only the clock of the whole call is the deadline; all others are a stall of this attempt."""
    fault = from_exception(failures.ReadTimeout("silent"), clock=clock)
    assert (fault.kind, fault.clock) == (kind, clock)


@pytest.mark.parametrize("kind", FaultKind)
def test_every_kind_names_an_existing_error(kind: FaultKind) -> None:
    """Whatever goes wrong, the caller gets a class of our tree that ends a call."""
    assert kind.error in errors.__all__
    assert issubclass(getattr(errors, kind.error), CallFailed)
    assert kind.word == kind.name.lower()
    assert kind.meaning


def test_kinds_are_distinct() -> None:
    """No two kinds are aliases of each other."""
    assert len({kind.word for kind in FaultKind}) == len(FaultKind.__members__)


def test_what_cannot_help_is_not_repeated() -> None:
    """Auth, quota, context length, policy and bad requests are never asked again on the same route."""
    fatal = {
        K.AUTH,
        K.QUOTA,
        K.CONTEXT_LENGTH,
        K.REFUSED,
        K.BAD_REQUEST,
        K.PARAMETER,
        K.NOT_FOUND,
        K.DEADLINE,
    }
    assert not any(kind.again for kind in fatal)
    assert not any(kind.elsewhere for kind in (K.REFUSED, K.BAD_REQUEST, K.DEADLINE))


@pytest.mark.parametrize("word", sorted({*CODES, *TYPES}))
def test_codes_are_listed_in_lower_case_and_read_in_any(word: str) -> None:
    """A code counts whatever its case."""
    assert word == word.lower()
    expected = CODES.get(word) or TYPES[word]
    field = "code" if word in CODES else "type"
    assert in_stream({"error": {field: word.upper(), "message": "-"}}).kind is expected


# How long to wait.

NOW = "Sun, 22 Nov 2026 18:00:00 GMT"
LATER = "Sun, 22 Nov 2026 18:01:30 GMT"


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({}, "", None),
        ({"retry-after": "5"}, "", 5.0),
        ({"retry-after": "0.5"}, "", 0.5),
        ({"retry-after": "0"}, "", 0.0),
        ({"retry-after": " 7 "}, "", 7.0),
        ({"retry-after-ms": "250"}, "", 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, "", 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, "", 9.0),
        ({"retry-after": LATER, "date": NOW}, "", 90.0),
        ({"retry-after": NOW, "date": LATER}, "", 0.0),
        ({"retry-after": LATER}, "", None),
        ({"retry-after": LATER, "date": "yesterday"}, "", None),
        ({"retry-after": "-1"}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "inf"}, "", None),
        ({"retry-after": "-inf"}, "", None),
        ({"retry-after": "1e999"}, "", None),
        ({"retry-after": ""}, "", None),
        ({"retry-after": "soon"}, "try again in 2s", 2.0),
        ({"retry-after": "3"}, "try again in 2s", 3.0),
        ({}, "Please try again in 11.054s. Visit", 11.054),
        ({}, "Please try again in 250ms.", 0.25),
        ({}, "try again in 3 seconds", 3.0),
        ({}, "Try again in 2 minutes", 120.0),
        ({}, "try again in 2m", 120.0),
        ({}, "Please try again in 6m0s.", 360.0),
        ({}, "Please try again in 7m14.4s", 434.4),
        ({}, "try again in 1h12m3s", 4323.0),
        ({}, "Please retry in 34.074824224s.", 34.074824224),
        ({}, "try again in", None),
        ({}, "try again in a moment", None),
        ({}, "try again in 5 hours", None),
        ({}, "try again in 99999999999s", None),
        ({"retry-after": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "date": NOW}, "", None),
        ({"retry-after": "Mon, 01 Jan 2026 00:00:00 +99999999999999", "date": NOW}, "", None),
    ],
)
def test_time_to_wait_is_read(headers: dict[str, str], message: str, seconds: float | None) -> None:
    """Milliseconds beat seconds beat dates beat words; nonsense is no time at all."""
    assert retry_after(headers, message) == (None if seconds is None else pytest.approx(seconds))


dates = st.datetimes().map(email.utils.format_datetime) | st.text(max_size=40)
numbers = st.floats().map(str) | st.integers().map(str)


@given(
    st.fixed_dictionaries(
        {}, optional={"retry-after": numbers | dates, "retry-after-ms": numbers | dates, "date": dates}
    ),
    st.text(max_size=20) | numbers.map(lambda n: f"try again in {n}s"),
)
def test_time_to_wait_is_never_nonsense(headers: dict[str, str], message: str) -> None:
    """Whatever the headers hold, the answer is None or a finite number of seconds, 0 or more."""
    seconds = retry_after(headers, message)
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)


def test_retry_after_in_all_its_places_reaches_the_fault() -> None:
    """Headers of the answer, headers inside the error, a reset time and the message all count."""
    assert from_rejection(429, {"retry-after": "5"}, b"").retry_after == 5
    assert from_rejection(503, {"retry-after": "5"}, b"<html>").retry_after == 5
    body = {"error": {"type": "usage_limit_reached", "message": "m", "resets_in_seconds": 60}}
    assert from_rejection(429, {}, json.dumps(body).encode()).retry_after == 60
    assert in_stream({"error": {"code": "slow_down", "headers": {"Retry-After": "7"}}}).retry_after == 7
    assert in_stream({"error": {"code": "slow_down", "message": "try again in 8s"}}).retry_after == 8


def test_retry_at_is_seen_from_the_moment_of_the_fault() -> None:
    """`retry_at` is that moment's wall time plus the wait; without a wait there is none."""
    assert Fault(K.THROTTLED, retry_after=5.0).at(1000.0).retry_at == 1005.0
    assert Fault(K.THROTTLED).at(1000.0).retry_at is None


# What people read.

KEYS = ("sk-proj-abcdefghijklmnop", "Bearer abcdefghijklmnop", "xoxb-123456789012", "ghp_abcdefghijklmnop")


@pytest.mark.parametrize("key", KEYS)
def test_no_detail_shows_a_key(key: str) -> None:
    """Whatever a provider echoes, nothing that looks like a credential reaches the detail."""
    secret = key.removeprefix("Bearer ")
    faults = [
        from_exception(RuntimeError(f"header {key} refused")),
        from_rejection(401, {}, json.dumps({"error": {"message": f"Incorrect API key: {key}."}}).encode()),
        from_rejection(500, {}, f"plain text {key}".encode()),
        from_rejection(500, {}, f"<html><title>{key}</title>".encode()),
        from_error(ErrorInfo(message=key)),
        from_error(ErrorInfo(code=key)),
        from_error(ErrorInfo(type=key)),
    ]
    for fault in faults:
        assert secret not in fault.detail
        assert secret not in str(fault)
        assert "[redacted]" in fault.detail


@given(st.text(max_size=3000), st.sampled_from(["plain", "json", "html"]))
def test_detail_is_one_printable_line(text: str, form: str) -> None:
    """However hostile the text, a detail is one line of at most 500 printable characters."""
    body = {
        "plain": text.encode("utf-8", "replace"),
        "json": json.dumps({"error": {"message": text}}).encode(),
        "html": f"<html><title>{text}</title>".encode("utf-8", "replace"),
    }[form]
    detail = from_rejection(500, {}, body).detail
    assert detail.isprintable()
    assert len(detail) <= 500


@given(
    st.integers(300, 599), st.binary(max_size=200), st.dictionaries(st.text(max_size=8), st.text(max_size=8))
)
def test_any_answer_is_a_fault(status: int, body: bytes, headers: dict[str, str]) -> None:
    """No status, header or body makes the classification raise."""
    assert isinstance(from_rejection(status, headers, body), Fault)


@pytest.mark.parametrize("depth", [10, 500, 900, 980, 990, 995, 1000, 5000])
def test_deep_json_is_a_fault_too(depth: int) -> None:
    """Nesting as deep as the interpreter bears, or deeper, is still only an error body."""
    body = b'{"error":{"message":' + b"[" * depth + b"]" * depth + b"}}"
    assert from_rejection(500, {}, body).kind is K.SERVER


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, K.BAD_REQUEST),
        (401, K.AUTH),
        (402, K.QUOTA),
        (404, K.NOT_FOUND),
        (429, K.THROTTLED),
        (500, K.SERVER),
    ],
)
def test_a_generic_type_says_less_than_a_clear_status(status: int, kind: FaultKind) -> None:
    """OpenAI itself answers 401 with the type "invalid_request_error" and no code."""
    body = b'{"error": {"message": "no", "type": "invalid_request_error", "param": null, "code": null}}'
    assert from_rejection(status, {}, body).kind is kind
