"""What stands in the document of a Codex sign-in: an API key, or tokens and what they say of themselves.

Strategy: one pass from the document's fields to a frozen value. Tokens are JWTs that we read and do not
check: their signatures are for others. What is not understood is left out, and so is what no header can hold.
Where the document is kept and how tokens are renewed is in codex.py.
Source: https://github.com/openai/codex (codex-rs/login/src/auth/storage.rs, token_data.rs)
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from ..errors import ConfigError
from ..route import Secret
from ..wire._json import mapping, string
from .vault import Document, parse

__all__ = ["HINT", "TOKENS", "SignedIn", "account_of", "renewed", "understood"]

HINT = "sign in with `codex login`"
TOKENS = ("id_token", "access_token", "refresh_token")
_CLAIM = "https://api.openai.com/auth"
_MARGIN = 300.0  # seconds before its end from which a token counts as expired, or a tenth of its life
_DAYS = 8 * 86400.0  # after so long Codex renews a token that does not say when it ends
_PLAIN = re.compile(r"[!-~]{1,256}")


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What the document says.

    Attributes:
        kind: with ChatGPT, or with an API key.
        key: the access token, or the API key.
        refresh: the refresh token, None if there is none.
        account, residency: for the headers of that kind; "" if unknown.
        expires: Unix time in seconds from which the token is to be renewed, None if nothing says so.
        document: all of it.
    """

    kind: Literal["chatgpt", "apikey"]
    key: Secret
    refresh: Secret | None = None
    account: str = ""
    residency: str = ""
    expires: float | None = None
    document: Document = field(default_factory=lambda: Document({}), repr=False)


def understood(document: Document, where: str) -> SignedIn:
    """What the document says.

    Raises:
        ConfigError: it holds no key, or one of a kind that is not supported.
    """
    fields = document.reveal()
    api_key = string(fields.get("OPENAI_API_KEY"))
    mode = string(fields.get("auth_mode")) or ("apikey" if api_key else "chatgpt")
    if mode not in ("apikey", "chatgpt", "chatgptAuthTokens"):
        raise ConfigError(f"{where} says auth_mode {mode!r}, which is not supported", hint=HINT)
    tokens = mapping(fields.get("tokens"))
    key = api_key if mode == "apikey" else string(tokens.get("access_token"))
    if not key:
        missing = "OPENAI_API_KEY" if mode == "apikey" else "access token"
        raise ConfigError(f"{where} holds no {missing}", hint=HINT)
    if mode == "apikey":
        return SignedIn("apikey", Secret(key), document=document)
    refresh = string(tokens.get("refresh_token"))
    claims = _claims(key)
    said = {**mapping(_claims(string(tokens.get("id_token"))).get(_CLAIM)), **mapping(claims.get(_CLAIM))}
    return SignedIn(
        "chatgpt",
        Secret(key),
        Secret(refresh) if refresh else None,
        _plain(tokens.get("account_id")) or _plain(said.get("chatgpt_account_id")),
        _plain(said.get("chatgpt_data_residency")) or _plain(said.get("chatgpt_compute_residency")),
        _end(claims, string(fields.get("last_refresh"))),
        document,
    )


def renewed(document: Document, answer: Mapping[str, Any], now: float) -> Document | None:
    """The document with the tokens of that answer, every other field as it was; None if it holds none.

    A token that is not in the answer stays as it was.
    """
    given = {name: answer[name] for name in TOKENS if string(answer.get(name))}
    if not given:
        return None
    fields = document.reveal()
    at = datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z")
    return Document({**fields, "tokens": {**mapping(fields.get("tokens")), **given}, "last_refresh": at})


def account_of(token: Secret | None) -> str:
    """The account that a token says it is of; ""."""
    claims = _claims(token.reveal()) if token else {}
    return _plain(mapping(claims.get(_CLAIM)).get("chatgpt_account_id"))


def _claims(token: str) -> dict[str, Any]:
    """What a token says of itself; nothing if it is no JWT."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
    except ValueError:
        return {}
    found = parse(payload)
    return found.reveal() if found else {}


def _plain(value: object) -> str:
    """A text that may be sent as a header, or ""."""
    text = string(value)
    return text if _PLAIN.fullmatch(text) else ""


def _end(claims: Mapping[str, Any], last_refresh: str) -> float | None:
    ends, began = _time(claims.get("exp")), _time(claims.get("iat"))
    if ends:
        life = ends - began if 0 < began < ends else 10 * _MARGIN
        return ends - min(_MARGIN, life / 10)
    try:
        since = datetime.fromisoformat(last_refresh)
    except ValueError:
        return None
    return (since if since.tzinfo else since.replace(tzinfo=UTC)).timestamp() + _DAYS


def _time(value: object) -> float:
    """Unix time in seconds, or 0 for what is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < 1e11 else 0.0  # type: ignore[operator, arg-type]
