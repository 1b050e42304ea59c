"""Every spelling of a provider's error object is read by one reader."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream.wire.errorinfo import read_error
from sidestream.wire.events import ErrorInfo

FULL = {"message": "m", "type": "t", "param": "p", "code": "c"}

# name -> (body, what it says)
SHAPES: dict[str, tuple[Any, ErrorInfo]] = {
    "openai": ({"error": FULL}, ErrorInfo("c", "m", "t", "p")),
    "openai, null code": ({"error": {**FULL, "code": None, "param": None}}, ErrorInfo("", "m", "t")),
    "responses, flat": (
        {"type": "error", "code": "c", "message": "m", "param": "p", "sequence_number": 3},
        ErrorInfo("c", "m", "", "p"),
    ),
    "responses, flat with null code": ({"type": "error", "code": None, "message": "m"}, ErrorInfo("", "m")),
    "responses, nested": ({"type": "error", "error": FULL}, ErrorInfo("c", "m", "t", "p")),
    "responses, nested with status": (
        {"type": "error", "status": 400, "error": FULL},
        ErrorInfo("c", "m", "t", "p", 400),
    ),
    "codex usage limit in a stream": (
        {
            "type": "error",
            "error": {"type": "usage_limit_reached", "message": "m", "resets_in_seconds": 60},
            "status_code": 429,
            "headers": {"X-Codex-Primary-Used-Percent": "100"},
        },
        ErrorInfo(
            "",
            "m",
            "usage_limit_reached",
            "",
            429,
            {"x-codex-primary-used-percent": "100", "retry-after": "60"},
        ),
    ),
    "error.headers": (
        {"error": {"code": "slow_down", "message": "m", "headers": {"Retry-After": "7"}}},
        ErrorInfo("slow_down", "m", headers={"retry-after": "7"}),
    ),
    "open responses": ({"type": "response.error", "code": "c", "message": "m"}, ErrorInfo("c", "m")),
    "openrouter, numeric code": (
        {
            "id": "g",
            "choices": [],
            "error": {"code": 502, "message": "m", "metadata": {"provider_name": "x"}},
        },
        ErrorInfo("502", "m", status=502),
    ),
    "status in digits": ({"error": {"code": "429", "message": "m"}}, ErrorInfo("429", "m", status=429)),
    "vllm": (
        {"error": {"message": "m", "type": "BadRequestError", "param": None, "code": 400}},
        ErrorInfo("400", "m", "BadRequestError", status=400),
    ),
    "vllm, old": (
        {"object": "error", "message": "m", "type": "BadRequestError", "param": None, "code": 400},
        ErrorInfo("400", "m", "BadRequestError", status=400),
    ),
    "sglang": (
        {"error": {"object": "error", "message": "m", "code": 400}},
        ErrorInfo("400", "m", status=400),
    ),
    "llama.cpp": (
        {"error": {"code": 400, "message": "m", "type": "exceed_context_size_error", "n_ctx": 1}},
        ErrorInfo("400", "m", "exceed_context_size_error", status=400),
    ),
    "fastapi detail": (
        {"detail": "Instructions are required"},
        ErrorInfo(message="Instructions are required"),
    ),
    "fastapi detail list": ({"detail": [{"loc": ["body"], "msg": "m"}]}, ErrorInfo(message="m")),
    "fastapi detail with its place": (
        {"detail": [{"loc": ["body", "response_format", "type"], "msg": "str type expected"}]},
        ErrorInfo(message="response_format.type: str type expected"),
    ),
    "gemini array": (
        [{"error": {"code": 401, "message": "m", "status": "UNAUTHENTICATED"}}],
        ErrorInfo("401", "m", "UNAUTHENTICATED", status=401),
    ),
    "gemini, no code": (
        {"error": {"message": "m", "status": "UNAVAILABLE"}},
        ErrorInfo("UNAVAILABLE", "m", "UNAVAILABLE"),
    ),
    "groq string": ({"error": "over_capacity"}, ErrorInfo("over_capacity", "over_capacity")),
    "string with words": ({"error": "no more credits today"}, ErrorInfo("", "no more credits today")),
    "string beside a code": ({"error": "m m", "code": "c"}, ErrorInfo("c", "m m")),
    "dashscope": ({"code": "Throttling.RateQuota", "message": "m"}, ErrorInfo("Throttling.RateQuota", "m")),
    "anthropic with error_code": (
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "m",
                "details": {"error_code": "enforced_spend_limit_reached"},
            },
        },
        ErrorInfo("enforced_spend_limit_reached", "m", "rate_limit_error"),
    ),
    "message that is no text": ({"error": {"message": {"a": 1}}}, ErrorInfo(message="{'a': 1}")),
}


@pytest.mark.parametrize("name", SHAPES)
def test_known_shape_is_read(name: str) -> None:
    """Each spelling gives code, message, type, parameter, status and headers where it has them."""
    body, info = SHAPES[name]
    assert read_error(body) == info


@pytest.mark.parametrize(
    "body",
    [
        None,
        5,
        "text",
        [],
        {},
        {"error": None},
        {"error": {}},
        {"error": ""},
        {"error": 0},
        {"type": "response.created"},
        {"choices": [], "object": "chat.completion.chunk"},
        {"message": "m"},
        {"code": None, "message": "m"},
    ],
)
def test_what_is_no_error_is_none(body: Any) -> None:
    """An ordinary event, or nothing, is not taken for an error."""
    assert read_error(body) is None


def test_headers_of_the_answer_are_kept_below_those_of_the_error() -> None:
    """The error's own headers win over the answer's; the reset of a usage limit only fills a gap."""
    body = {"error": {"message": "m", "headers": {"Retry-After": "5"}, "resets_in_seconds": 9}}
    found = read_error(body, {"retry-after": "1", "date": "d"})
    assert found is not None
    assert found.headers == {"retry-after": "5", "date": "d"}


def test_a_limit_that_says_only_when_it_resets_is_a_date_to_come_back() -> None:
    """`resets_at` alone becomes a Retry-After of that moment; nonsense becomes none."""
    found = read_error({"error": {"type": "usage_limit_reached", "resets_at": 1_800_000_000}})
    assert found is not None
    assert found.headers == {"retry-after": "Fri, 15 Jan 2027 08:00:00 GMT"}
    for nonsense in (-1, 1 << 60, "soon", None):
        found = read_error({"error": {"type": "usage_limit_reached", "resets_at": nonsense}})
        assert found is not None
        assert found.headers == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["error", "code", "message", "type", "param", "status", "headers", "detail", "details", "object",
             "error_code", "resets_in_seconds", "msg", "status_code"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
def test_any_value_is_read_without_an_exception(value: Any) -> None:
    """Whatever JSON a provider sends, the reader answers with plain, bounded fields or None."""
    found = read_error(value)
    if found is not None:
        assert all(isinstance(text, str) for text in (found.code, found.message, found.type, found.param))
        assert len(found.message) <= 2000
        assert found.status is None or 100 <= found.status <= 599
        assert all(isinstance(text, str) for pair in found.headers.items() for text in pair)
