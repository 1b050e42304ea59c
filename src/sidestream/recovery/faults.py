"""What went wrong, decided in one place.

Strategy: whatever breaks a call (an exception of the network layer, a status with a body, an error inside a
stream, a clock, our own checks) is looked up here once and becomes a `Fault` of one `FaultKind`. The kinds
are rows: may the same route be asked again, what exactly failed, and which error the caller sees in the end.
The body beats the status: codes first, then strict phrases, then types, then the number.

Every table is data and tested to be complete. Not here: what to do about it (rungs.py).
Sources: https://platform.openai.com/docs/guides/error-codes, https://openrouter.ai/docs/api/reference/errors
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from ..route import Scope
from ..wire._json import NotJSON, loads
from ..wire.errorinfo import read_error
from ..wire.events import ErrorInfo, Finished

__all__ = [
    "Fault",
    "FaultKind",
    "from_ending",
    "from_error",
    "from_exception",
    "from_rejection",
    "one_line",
    "retry_after",
]


class FaultKind(enum.Enum):
    """name = (word, same route again?, what failed, error the caller sees, meaning).

    What failed is a `Scope`: routes that share it need not be asked for this call any more.
    """

    CONNECT = "connect", True, "endpoint", "StreamDropped", "no connection"
    DROPPED = "dropped", True, "model", "StreamDropped", "the stream ended before the answer did"
    STALLED = "stalled", True, "model", "DeadlineExceeded", "the provider sent no output for too long"
    DEADLINE = "deadline", False, "request", "DeadlineExceeded", "the call's total time is used up"
    GARBLED = "garbled", True, "model", "StreamDropped", "what arrived breaks the format"
    DIVERGED = "diverged", True, "model", "StreamDropped", "the new stream does not go on with this answer"
    OVERSIZE = "oversize", False, "model", "StreamDropped", "the stream is larger than its limit"
    EMPTY = "empty", True, "model", "StreamDropped", "the answer is complete and empty"
    SERVER = "server", True, "model", "ServerError", "the provider failed"
    OVERLOADED = "overloaded", True, "model", "ServerError", "the provider is overloaded"
    THROTTLED = "throttled", True, "route", "RateLimited", "too many requests for now"
    QUOTA = "quota", False, "credential", "QuotaExceeded", "the account's quota or money is used up"
    AUTH = "auth", False, "credential", "AuthFailed", "the credential was not accepted"
    BLOCKED = "blocked", False, "endpoint", "ServerError", "something in front of the provider turns us away"
    NOT_FOUND = "not_found", False, "model", "BadRequest", "no such model or endpoint"
    CONTEXT_LENGTH = "context_length", False, "model", "ContextTooLong", "the request does not fit the model"
    REFUSED = "refused", False, "request", "Refused", "the model or a filter declined"
    PARAMETER = "parameter", False, "model", "BadRequest", "the provider rejects a parameter"
    BAD_REQUEST = "bad_request", False, "request", "BadRequest", "the provider rejects the request"
    WITHHELD = "withheld", False, "model", "BudgetExhausted", "no further attempt is allowed now"

    def __init__(self, word: str, again: bool, scope: Scope, error: str, meaning: str) -> None:
        self.word = word
        self.again = again
        self.scope = scope
        self.elsewhere = scope != "request"
        self.error = error
        self.meaning = meaning


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that went wrong.

    Attributes:
        kind: what it means.
        detail: one line for people, at most 500 characters, never a credential.
        status: HTTP status, if an answer carried it.
        code: the provider's own code, or "".
        param: the request field it complains about, or "".
        clock: for STALLED and DEADLINE, which clock ran out.
        retry_after: seconds the provider asks to wait, or None.
        retry_at: the same as Unix time, set by the flow.
        request_id: the provider's id of the exchange, or "".
        again: the provider's own word on whether to ask again (`x-should-retry`), or None.
        retried: how often something between us and the model has retried already, as far as it says.
        about: what failed, where the kind alone does not tell.
    """

    kind: FaultKind
    detail: str = ""
    status: int | None = None
    code: str = ""
    param: str = ""
    clock: str = ""
    retry_after: float | None = None
    retry_at: float | None = None
    request_id: str = ""
    again: bool | None = None
    retried: int = 0
    about: Scope | None = None

    @property
    def scope(self) -> Scope:
        """What failed. Where no connection came about in time, that is the endpoint, as if it had refused."""
        return self.about or ("endpoint" if self.clock == "connect" else self.kind.scope)

    @property
    def elsewhere(self) -> bool:
        """Whether another route can help."""
        return self.scope != "request"

    def __str__(self) -> str:
        return f"{self.kind.meaning} ({self.detail})" if self.detail else self.kind.meaning

    @property
    def may_ask_again(self) -> bool:
        """Whether asking the same route again can help: by the provider's word, else by the kind."""
        return self.kind.again if self.again is None else self.again

    def at(self, unix_time: float) -> Fault:
        """The same fault, seen at that moment."""
        if self.retry_after is None:
            return self
        return replace(self, retry_at=unix_time + self.retry_after)


K = FaultKind

# Exception classes of the network layer and of our decoders, by name: a pure module imports no network.
EXCEPTIONS: dict[str, FaultKind] = {
    "ConnectError": K.CONNECT,
    "ConnectTimeout": K.STALLED,
    "ProxyError": K.CONNECT,
    "UnsupportedProtocol": K.BAD_REQUEST,
    "ReadError": K.DROPPED,
    "ReadTimeout": K.STALLED,
    "WriteError": K.DROPPED,
    "WriteTimeout": K.STALLED,
    "NetworkError": K.DROPPED,
    "TimeoutException": K.STALLED,
    "PoolTimeout": K.STALLED,
    "RemoteProtocolError": K.DROPPED,
    "LocalProtocolError": K.BAD_REQUEST,
    "ProtocolError": K.DROPPED,
    "NetworkFailure": K.DROPPED,
    "NotJSON": K.GARBLED,
    "BadCoding": K.GARBLED,
    "LimitExceeded": K.OVERSIZE,
}

# Codes and types of every wire, lower case. A code decides before anything else does.
CODES: dict[str, FaultKind] = {
    **dict.fromkeys(
        (
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_hard_limit_reached",
            "billing_not_active",
            "billing_error",
            "usage_limit_reached",
            "usage_not_included",
            "enforced_spend_limit_reached",
            "contract_spend_limit_reached",
            "organization_on_hold",
            "quota_exceeded",
            "insufficient_balance",
            "balance_depleted",
            "1113",  # Z.AI: no balance, no resource package
        ),
        K.QUOTA,
    ),
    **dict.fromkeys(
        (
            "rate_limit_exceeded",
            "rate_limit_error",
            "slow_down",
            "too_many_requests",
            "throttling",
            "throttling.allocationquota",
            "throttling.ratequota",
            "ramp_limit_exceeded",
            "requests_limit_exceeded",
            "tokens_limit_exceeded",
            "ratelimiterror",
        ),
        K.THROTTLED,
    ),
    **dict.fromkeys(
        (
            "server_is_overloaded",
            "overloaded_error",
            "service_unavailable_error",
            "insufficient_system_resource",
            "service_unavailable",
            "unavailable",
        ),
        K.OVERLOADED,
    ),
    **dict.fromkeys(
        (
            "server_error",
            "internal_server_error",
            "internal_error",
            "api_error",
            "model_error",
            "timeout_error",
        ),
        K.SERVER,
    ),
    **dict.fromkeys(("error", "abort", "cancelled", "vector_store_timeout"), K.SERVER),
    **dict.fromkeys(
        (
            "invalid_api_key",
            "authentication_error",
            "invalid_authentication",
            "unauthenticated",
            "permission_error",
            "permission_denied",
            "token_expired",
            "authenticationerror",
            "account_deactivated",
        ),
        K.AUTH,
    ),
    **dict.fromkeys(
        (
            "model_not_found",
            "model_not_supported",
            "unsupported_model",
            "not_found_error",
            "deployment_not_found",
        ),
        K.NOT_FOUND,
    ),
    **dict.fromkeys(
        (
            "context_length_exceeded",
            "exceed_context_size_error",
            "request_too_large",
            "string_above_max_length",
            "model_context_window_exceeded",
        ),
        K.CONTEXT_LENGTH,
    ),
    **dict.fromkeys(
        (
            "content_filter",
            "content_filter_error",
            "content_policy_violation",
            "responsibleaipolicyviolation",
            "cyber_policy",
            "bio_policy",
            "misalignment_policy_violation",
            "image_content_policy_violation",
        ),
        K.REFUSED,
    ),
    **dict.fromkeys(
        (
            "unsupported_parameter",
            "unknown_parameter",
            "unsupported_value",
            "invalid_parameter",
            "compile_grammar_error",
            "1210",  # Z.AI: see _PARAMS
        ),
        K.PARAMETER,
    ),
    **dict.fromkeys(
        ("invalid_prompt", "invalid_json", "flex_unavailable", "unsupported_content_type"), K.BAD_REQUEST
    ),
}

# Generic types say little and decide only after the phrases.
TYPES: dict[str, FaultKind] = {
    "invalid_request_error": K.BAD_REQUEST,
    "invalid_request": K.BAD_REQUEST,
    "badrequesterror": K.BAD_REQUEST,
    "tokens": K.THROTTLED,
    "requests": K.THROTTLED,
}

# Request fields that models and servers reject by name, other than what every request has.
_FIELD = (
    r"(?:temperature|top_[pk]|min_p|(?:frequency|presence|repetition)_penalty|max_\w*tokens|logit_bias|seed|stop"
    r"|response_format|output_config|text\.format|reasoning\w*|thinking|verbosity|tool_choice|stream_options"
    r"|parallel_tool_calls|(?:top_)?logprobs|service_tier|store|metadata|prompt_cache_\w+)"
)
# A field that a server does not know at all.
_EXTRA = r"^(?!messages|input|system|instructions|tools|model)([a-z_]\w*(?:\.\w+)*): extra inputs are not"
# What says that a schema for the answer is the trouble.
_SCHEMA = (
    r"guided_(?:grammar|json)|xgrammar|compile_grammar"
    r"|response_format .{0,60}(?:unavailable|constrained output)"
)

# Phrases, for providers that give no code. Strict on purpose: a wrong match here costs money or an answer.
_PHRASES: tuple[tuple[FaultKind, tuple[str, ...]], ...] = (
    (
        K.CONTEXT_LENGTH,
        (
            r"maximum context length",
            r"context (length|window|size) .{0,40}exceed",
            r"exceeds? .{0,60}context (length|window|size)",
            r"prompt is too long",
            r"exceed context limit",
        ),
    ),
    # A quota that is back within a minute is a rate.
    (
        K.THROTTLED,
        (r"(requests?|tokens?|queries|quota|limit)s?( limit)? per[ _]minute", r"retry in \d{1,2}(\.\d+)?s"),
    ),
    (
        K.QUOTA,
        (
            r"insufficient (funds|balance|credits?)",
            r"can only afford",
            r"out of (funds|credits)",
            r"(requires?|needs?) more credits",
            r"credits? .{0,20}(exhausted|depleted|used up)",
            r"balance[ _](is )?depleted",
            r"payment required",
            r"check your (plan and )?billing",
            r"requires a (paid )?subscription",
            r"upgrade (for|to get) (access|higher limits)",
            r"(not|isn['\u2019]t) available (on|in|for) (the|your) free (tier|plan)",
            r"(daily|weekly|session|monthly|hour) (usage |request |token )?(limit|quota)",
            r"(hit|reached|exceeded) your usage limit",
            r"(requests|tokens) per day",
            r"quota[ _]exceeded|exceeded your current quota",
            r"resource[ _-]?(has been )?exhausted",
            r"no usable credits",
            r"credit balance is too low",
            r"reached your specified (api )?usage limits",
        ),
    ),
    (K.THROTTLED, (r"rate[ _-]?limit", r"too many requests", r"try again in \d")),
    (K.OVERLOADED, (r"overloaded", r"at capacity", r"temporarily unavailable")),
    (
        K.PARAMETER,
        (
            r"(unsupported|unknown|unrecognized|invalid) (request )?(parameter|argument)s?\b",
            r"(parameter|argument) .{0,60}(not supported|unsupported)",
            rf"does not support .{{0,40}}\b{_FIELD}",
            rf"['\"`]{_FIELD}['\"`]? (does not support|is not supported|is unsupported|is not allowed)",
            rf"^{_FIELD} (is|are) (not supported|unsupported|not allowed)",
            _EXTRA,
            r"^(response_format|output_config)(\.\w+)*: ",
            r"^`\w+` is deprecated for this model",
            r"reasoning is mandatory",
            _SCHEMA,
        ),
    ),
    (
        K.NOT_FOUND,
        (
            r"(model|deployment) .{0,80}(does not exist|not found|is not supported)",
            r"no such model|(unknown|unsupported) model",
            r"(is not a valid|invalid) model( id| name| format)?\b",
        ),
    ),
    (
        K.AUTH,
        (r"(incorrect|invalid) api key", r"bad-credentials", r"invalid (access )?token", r"error code: 401"),
    ),
)

STATUSES: dict[int, FaultKind] = {
    400: K.BAD_REQUEST,
    401: K.AUTH,
    402: K.QUOTA,
    403: K.AUTH,
    404: K.NOT_FOUND,
    405: K.NOT_FOUND,
    408: K.SERVER,
    409: K.SERVER,
    413: K.CONTEXT_LENGTH,
    415: K.BAD_REQUEST,
    422: K.BAD_REQUEST,
    425: K.SERVER,
    429: K.THROTTLED,
    503: K.OVERLOADED,
    529: K.OVERLOADED,
}

_LONGEST = 500
_TEN_YEARS = 10 * 365 * 86400.0
_KEYISH = re.compile(r"(?i)\b(sk|pk|rk|key|ghp|gho|xox[a-z])[-_][\w.\-]{8,}|bearer\s+\S{8,}")
# These, too, are compiled when they are needed, and kept by `re`.
_TRY_AGAIN = (
    r"(?i)(?:try again|retry) in (?:(\d{1,3})h)?(?:(\d{1,4})\s*m(?:inutes?)?(?![a-z]))?"
    r"(?:(\d{1,6}(?:\.\d{1,12})?)\s*(ms|s|seconds?))?(?![a-z])"
)
_PARAMETER = (
    r"(?i)(?:parameter|argument)s?(?: supplied)?:?\s*['\"`]?([a-z_]\w*(?:\.\w+)*)['\"`]?"
    r"|['\"`]([a-z_]\w*(?:\.\w+)*)['\"`].{0,40}(?:not supported|unsupported|deprecated for this model)"
    rf"|{_EXTRA}"
    rf"|\b({_FIELD})\b"
)
# Codes that mean one field and do not name it.
_PARAMS = {"1210": "max_tokens"}
# What says that this model reads no images: another may.
_BLIND = (
    r"(?i)(?:does not|doesn['\u2019]t|do not|not) support .{0,20}(?:image|vision|multi-?modal)"
    r"|(?:image|vision|multi-?modal)\w*(?: \w+)? (?:is|are) (?:not|only) supported|support image input"
    r"|unknown variant `(?:image_url|input_image)`"
)
# What a web application firewall says to something it takes for a bot.
_CHALLENGE = r"(?i)enable javascript and cookies|cf-chl|challenge-platform|just a moment"
# What routers put in place of an answer, as an answer: exactly this and nothing else.
NOTICES = re.compile(
    r"(connect|connection|request|read) time(d )?out,? please try again( later)?\.?", re.IGNORECASE
)


def from_exception(error: BaseException, *, clock: str = "") -> Fault:
    """The fault an exception of the network layer or a decoder means; unknown ones count as a drop."""
    kind = next((EXCEPTIONS[c.__name__] for c in type(error).__mro__ if c.__name__ in EXCEPTIONS), K.DROPPED)
    if kind is K.STALLED and clock == "total":
        kind = K.DEADLINE
    return Fault(kind, one_line(str(error) or type(error).__name__), clock=clock)


def from_error(error: ErrorInfo, *, status: int | None = None) -> Fault:
    """The fault a provider's error object means, wherever it stood."""
    status = status if status is not None and status >= 400 else error.status
    kind = _by_body(error) or _by_type(error, status) or _by_status(status)
    return Fault(
        kind,
        one_line(error.message or error.code or error.type),
        status=status,
        code=one_line(error.code or error.type)[:100],
        param=_param(error) if kind is K.PARAMETER else error.param,
        retry_after=retry_after(error.headers, error.message),
        request_id=error.headers.get("request-id", ""),
        about="model" if kind is K.BAD_REQUEST and re.search(_BLIND, error.message) else None,
    )


# finish reason of an answer that is whole and no answer -> what it means
DECLINED: dict[str, str] = {
    "content_filter": "a content filter ended the answer",
    "refusal": "the model declined",
}


def from_ending(finished: Finished) -> Fault | None:
    """The fault that the end of a whole answer means, if it says that there is none to be had."""
    reason = finished.reason or ""
    if reason not in DECLINED:
        return None
    error = finished.error or ErrorInfo()
    words = [error.message or DECLINED[reason], f"({error.code})" if error.code else ""]
    return Fault(K.REFUSED, one_line(" ".join(words)), code=one_line(error.code or reason))


# Headers in which SDK-aware backends and gateways say what they think of retries, and did themselves.
SHOULD_RETRY = "x-should-retry"
RETRIED: tuple[tuple[str, int], ...] = (  # header -> what it counts from
    ("x-sidestream-attempts", 1),
    ("x-litellm-attempted-retries", 0),
    ("x-portkey-retry-attempt-count", 0),
    ("x-envoy-attempt-count", 1),
)


def from_rejection(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """The fault an HTTP answer other than 2xx means. Header names are lower case."""
    again = {"true": True, "false": False}.get(headers.get(SHOULD_RETRY, "").strip().lower())
    counts = [int(headers[name]) - base for name, base in RETRIED if headers.get(name, "").isdecimal()]
    return replace(_rejection(status, headers, body), again=again, retried=max([0, *counts]))


def _rejection(status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    text = body.decode("utf-8", "replace").strip()
    if 300 <= status < 400:
        return Fault(
            K.BAD_REQUEST, f"the endpoint redirects (HTTP {status}); redirects are not followed", status
        )
    if text[:1] == "<":
        return _page(status, headers, text)
    try:
        error = read_error(loads(body), dict(headers))
    except NotJSON:
        error = None
    if error is None:
        error = ErrorInfo(
            message=f"HTTP {status}: {text[:200]}" if text else f"HTTP {status}", headers=dict(headers)
        )
    return from_error(error, status=status)


def _page(status: int, headers: Mapping[str, str], text: str) -> Fault:
    """A web page in place of an answer: it is not the provider's word, so it says nothing about the key."""
    challenged = headers.get("cf-mitigated") == "challenge" or re.search(_CHALLENGE, text)
    detail = one_line(f"HTTP {status} with an HTML page{_title(text)}")
    if challenged:
        detail += ", a challenge for browsers"
    kind = K.BLOCKED if challenged or status == 403 else _by_status(status)
    return Fault(kind, detail, status=status, retry_after=retry_after(headers))


@cache
def _phrases() -> tuple[tuple[re.Pattern[str], FaultKind], ...]:
    """The phrases as patterns: compiled for the first error, for that takes longer than importing us."""
    return tuple((re.compile("|".join(words), re.IGNORECASE), kind) for kind, words in _PHRASES)


def _by_body(error: ErrorInfo) -> FaultKind | None:
    for word in (error.code, error.type):
        if kind := CODES.get(word.lower()):
            return kind
    for pattern, kind in _phrases():
        if any(map(pattern.search, (error.message, error.code, error.type))):
            return kind
    return None


def _by_type(error: ErrorInfo, status: int | None) -> FaultKind | None:
    """What a generic type says, where the status says nothing clearer: 401 and 500 with the type
    "invalid_request_error" are seen."""
    clear = status is not None and _by_status(status) is not K.BAD_REQUEST
    return None if clear else TYPES.get(error.type.lower())


def _by_status(status: int | None) -> FaultKind:
    if status is None:
        return K.SERVER
    return STATUSES.get(status) or (K.SERVER if status >= 500 else K.BAD_REQUEST)


def _param(error: ErrorInfo) -> str:
    if error.param:
        return error.param
    if error.code in _PARAMS:
        return _PARAMS[error.code]
    if re.search(_SCHEMA, f"{error.message} {error.code}", re.IGNORECASE):
        return "response_format"
    found = re.search(_PARAMETER, error.message)
    if found is None:
        return ""
    return (found[4] or "").lower() or next(filter(None, found.groups()))  # [4]: begins a sentence, perhaps


def retry_after(headers: Mapping[str, str], message: str = "") -> float | None:
    """Seconds a provider asks to wait: `retry-after-ms`, `retry-after` (seconds or a date against the
    answer's own `date`), or a strict "try again in N s" in the message. None if it did not, or nonsense."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        if name in headers and (seconds := _seconds(headers[name], scale)) is not None:
            return seconds
    if (
        "retry-after" in headers
        and (seconds := _until(headers["retry-after"], headers.get("date", ""))) is not None
    ):
        return seconds
    found = re.search(_TRY_AGAIN, message)
    if found is None or not any(found.groups()):
        return None
    hours, minutes, rest, unit = found.groups()
    scale = 0.001 if unit and unit.lower() == "ms" else 1.0
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(rest or 0) * scale


def _seconds(text: str, scale: float) -> float | None:
    try:
        value = float(text) / scale
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= _TEN_YEARS else None


def _until(date: str, now: str) -> float | None:
    from email.utils import parsedate_to_datetime  # heavy, and rarely needed

    try:
        seconds = (parsedate_to_datetime(date) - parsedate_to_datetime(now)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, seconds)


def _title(html: str) -> str:
    found = re.search(r"<title>\s*(.{1,80}?)\s*</title>", html[:4000], re.IGNORECASE | re.DOTALL)
    return f": {found.group(1)}" if found else ""


def one_line(text: str) -> str:
    """One printable line, bounded, with anything that looks like a key taken out."""
    plain = "".join(c if c.isprintable() else " " for c in text[: 4 * _LONGEST])
    return _KEYISH.sub("[redacted]", " ".join(plain.split()))[:_LONGEST]
