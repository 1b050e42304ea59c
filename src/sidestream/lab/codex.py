"""The backend that `codex login` signs in to, and its token endpoint, with the quirks of both.

`Codex` is an answer function with a memory. `POST …/responses` wants the newest access token, the headers
that say who asks, and a request as this backend takes it: streamed, not stored, with instructions, without
the fields it does not know; what it refuses it refuses in its own words. `POST /oauth/token` exchanges a
refresh token, once. The events are those of the Responses wire, with one about rate limits before them, and
response objects have no output.

Tokens are told by their fingerprints, for records hold nothing else. What breaks on the way is the plan's
part; the token endpoint has a plan of its own. Everything here runs on the lab's loop; other threads read the
counters and change `limit`.
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from ..errors import UsageError
from . import script, sse
from .plan import Plan
from .record import TOKEN_PATH, fingerprint
from .script import Script

if TYPE_CHECKING:
    from .faults import Fault
    from .record import Request

__all__ = ["Codex", "Limit", "Manner"]

# How the token endpoint answers: with new tokens, without a new refresh token (the old one stays good),
# without an access token; or it fails, redirects, or refuses the refresh token for one of three reasons.
Manner = Literal["rotate", "keep", "no_access", "error", "redirect", "expired", "reused", "invalidated"]
Limit = Literal["usage_limit_reached", "usage_not_included"]

CLAIM = "https://api.openai.com/auth"
IDENTITY = ("originator", "user-agent")
UNSUPPORTED = (
    "max_output_tokens",
    "max_completion_tokens",
    "max_tokens",
    "temperature",
    "top_p",
    "metadata",
    "user",
    "background",
    "truncation",
    "safety_identifier",
)
_CHALLENGE = (
    "<!DOCTYPE html><html><head><title>Just a moment...</title></head>"
    "<body>Enable JavaScript and cookies to continue</body></html>"
)
_REFUSALS = ("expired", "reused", "invalidated")


class Codex:
    """An answer function: the ChatGPT Codex backend at `base_url`, and its token endpoint at `token_url`.

    ::

        codex = Codex("The answer.")
        with Lab(codex) as lab:
            ...  # write codex.auth() to auth.json, use Codex.base_url(lab) and Codex.token_url(lab)

    Args:
        answer: a text, a script of the Responses wire, or an answer function.
        token_plan: what goes wrong at the token endpoint, request by request. It strikes after the tokens
            were exchanged, as it does in life.
        manners: how the token endpoint answers, request by request; then it rotates.
        account: the account's id.
        residency: where the account's data live; a request has to say it. "": anywhere.
        lifetime: seconds that an access token is good for.
        limit: every attempt is refused with 429, until somebody sets it to None.
        resets_in: seconds until the limit resets.
        output: what stands for the output in response objects.
        clock: Unix time in seconds.

    Attributes:
        asked: requests to the token endpoint so far.
        rotated: exchanges so far: refresh tokens that are used up.
        reused: how often a refresh token came that was used up or unknown.

    Raises:
        UsageError: a manner or a limit of no known name.
    """

    def __init__(
        self,
        answer: str | Script | Callable[[Request], Script] = "Hello from Codex.",
        *,
        token_plan: Plan | Iterable[Fault | None] = (),
        manners: Iterable[Manner] = (),
        account: str = "acct-lab",
        residency: str = "",
        lifetime: float = 10 * 86400.0,
        limit: Limit | None = None,
        resets_in: int = 3600,
        output: list[Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._manners = tuple(manners)
        for name, known in ((limit, Limit), *((manner, Manner) for manner in self._manners)):
            if name is not None and name not in get_args(known):
                raise UsageError(f"{name!r} is not known here", hint=f"one of {', '.join(get_args(known))}")
        self._answer = script.say(answer) if isinstance(answer, str) else answer
        self._plan = token_plan if isinstance(token_plan, Plan) else Plan(list(token_plan))
        self._account, self._residency = account, residency
        self._lifetime = lifetime
        self.limit = limit
        self._resets_in = resets_in
        self._output = output
        self._clock = clock
        self._number = itertools.count()
        self.asked = self.rotated = self.reused = 0
        self._tokens: dict[str, str] = {}
        self._ends = 0.0
        self._rotate()

    @staticmethod
    def base_url(lab: Any) -> str:
        """What takes the place of `https://chatgpt.com/backend-api/codex`."""
        return str(lab.url).removesuffix("/v1") + "/backend-api/codex"

    @staticmethod
    def token_url(lab: Any) -> str:
        """What takes the place of `https://auth.openai.com/oauth/token`."""
        return str(lab.url).removesuffix("/v1") + "/oauth/token"

    @property
    def tokens(self) -> dict[str, str]:
        """The newest tokens: `id_token`, `access_token`, `refresh_token`."""
        return dict(self._tokens)

    def auth(self) -> dict[str, Any]:
        """What `codex login` would leave in `auth.json` now."""
        return {
            "auth_mode": "chatgpt",
            "OPENAI_API_KEY": None,
            "tokens": self.tokens | {"account_id": self._account},
            "last_refresh": "2026-11-22T12:00:00.123456789Z",
        }

    def login(self) -> None:
        """Somebody signs in anew: there are new tokens, and the old ones are refused."""
        self._rotate()

    def revoke(self) -> None:
        """From now on the access token is refused; the refresh token stays good."""
        self._tokens["access_token"] = ""

    # What the lab asks.

    def token_faults(self) -> tuple[Fault, ...]:
        """What strikes the next request to the token endpoint."""
        return self._plan.at(self.asked)

    def __call__(self, request: Request) -> Script:
        if TOKEN_PATH.search(request.path):
            return self._exchange(request)
        return self._refused(request) or self._told(request)

    # The token endpoint.

    def _exchange(self, request: Request) -> Script:
        manner = self._manners[self.asked] if self.asked < len(self._manners) else "rotate"
        self.asked += 1
        fields = request.fields()
        if request.method != "POST" or fields.get("grant_type") != "refresh_token":
            return script.error(400, {"error": "invalid_request"})
        if manner in _REFUSALS:
            return _token_problem(manner)
        if manner == "error":
            return script.error(500, {"error": {"code": "internal_error", "message": "try again"}})
        if manner == "redirect":
            return script.error(307, "", headers={"Location": "/elsewhere/oauth/token"})
        if fields.get("refresh_token") != fingerprint(self._tokens["refresh_token"]):
            self.reused += 1
            return _token_problem("reused")
        before = self._tokens["refresh_token"]
        self._rotate()
        given = self.tokens
        if manner == "keep":
            self._tokens["refresh_token"] = before
            del given["refresh_token"]
        elif manner == "no_access":
            del given["access_token"]
        self.rotated += manner != "keep"
        return script.json(given)

    def _rotate(self) -> None:
        number, now = next(self._number), int(self._clock())
        self._ends = now + self._lifetime
        about = {"chatgpt_account_id": self._account, "chatgpt_plan_type": "plus"}
        if self._residency:
            about["chatgpt_data_residency"] = self._residency
        claims: dict[str, Any] = {"iat": now, "exp": int(self._ends), "jti": number, CLAIM: about}
        self._tokens = {
            "id_token": _jwt(claims | {"aud": "id"}),
            "access_token": _jwt(claims | {"aud": "access"}),
            "refresh_token": f"rt-lab-{number}-{fingerprint(f'{self._account} {number}')[-12:]}",
        }

    # The backend.

    def _refused(self, request: Request) -> Script | None:
        if any(not request.header(name) for name in IDENTITY):
            headers = {"cf-mitigated": "challenge", "server": "cloudflare"}
            return script.error(403, _CHALLENGE, headers=headers)
        if problem := self._stranger(request):
            return problem
        if self.limit is not None:
            return self._limited(self.limit)
        words = _complaint(request.fields())
        return script.error(400, {"detail": words}) if words else None

    def _stranger(self, request: Request) -> Script | None:
        token = self._tokens["access_token"]
        if not token or request.header("authorization") != fingerprint(f"Bearer {token}"):
            return _unauthorized("token_invalidated", "Your authentication token has been invalidated.")
        if self._clock() >= self._ends:
            return _unauthorized("token_expired", "Provided authentication token is expired.")
        if request.header("chatgpt-account-id") != self._account:
            return _unauthorized("account_mismatch", "This token is of another account.")
        if self._residency and request.header("x-openai-internal-codex-residency") != self._residency:
            return _unauthorized("residency_mismatch", "This workspace lives elsewhere.")
        return None

    def _limited(self, limit: Limit) -> Script:
        error: dict[str, Any] = {"type": limit, "message": "The usage limit has been reached"}
        if limit == "usage_limit_reached":
            resets_at = int(self._clock()) + self._resets_in
            error |= {"plan_type": "plus", "resets_at": resets_at, "resets_in_seconds": self._resets_in}
        return script.error(429, {"error": error}, headers=self._headers(100))

    def _told(self, request: Request) -> Script:
        told = self._answer(request) if callable(self._answer) else self._answer
        if told.status != 200 or not told.content_type.startswith("text/event-stream"):
            return told
        events = (sse.encode(_FIRST, _FIRST["type"]), *map(self._without_output, told.events))
        return dataclasses.replace(told, events=events, headers=(*told.headers, *self._headers(12)))

    def _without_output(self, event: bytes) -> bytes:
        payload = sse.decode(event)
        if not isinstance(payload, dict) or not isinstance(payload.get("response"), dict):
            return event
        response = payload["response"] | {"output": self._output}
        return sse.encode(payload | {"response": response}, payload["type"])

    def _headers(self, used: int) -> tuple[tuple[str, str], ...]:
        return (
            ("x-codex-plan-type", "plus"),
            ("x-codex-primary-used-percent", str(used)),
            ("x-codex-primary-window-minutes", "300"),
            ("x-codex-primary-reset-after-seconds", str(self._resets_in)),
            ("x-codex-credits-has-credits", "False"),
            ("x-oai-request-id", "req_lab"),
        )


_FIRST: dict[str, Any] = {
    "type": "codex.rate_limits",
    "plan_type": "plus",
    "rate_limits": {
        "allowed": True,
        "limit_reached": False,
        "primary": {"used_percent": 12, "window_minutes": 300, "reset_after_seconds": 3600},
    },
}


def _complaint(fields: dict[str, Any]) -> str:
    """What this backend has against a request, in its words; "" if nothing."""
    unknown = [name for name in UNSUPPORTED if name in fields]
    items = fields.get("input")
    roles = [item.get("role") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    rules = (
        (fields.get("stream") is not True, "Stream must be set to true"),
        (fields.get("store") is not False, "Store must be set to false"),
        (not fields.get("instructions"), "Instructions are required"),
        (not isinstance(items, list), "Input must be a list"),
        ("system" in roles, "System messages are not allowed"),
        (bool(unknown), f"Unsupported parameter: {unknown[0] if unknown else ''}"),
    )
    return next((words for broken, words in rules if broken), "")


def _token_problem(manner: str) -> Script:
    words = {"expired": "has expired", "reused": "was already used", "invalidated": "was revoked"}[manner]
    error = {
        "code": f"refresh_token_{manner}",
        "message": f"Your refresh token {words}. Please log in again.",
    }
    return script.error(401, {"error": error | {"type": "invalid_request_error", "param": None}})


def _unauthorized(code: str, words: str) -> Script:
    error = {"message": f"{words} Please try signing in again.", "type": None, "code": code, "param": None}
    return script.error(401, {"error": error, "status": 401})


def _jwt(claims: dict[str, Any]) -> str:
    """A token that says this of itself and that nobody signed."""
    parts = (msgspec.json.encode({"alg": "none", "typ": "JWT"}), msgspec.json.encode(claims), b"lab")
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
