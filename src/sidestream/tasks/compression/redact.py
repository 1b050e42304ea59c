"""Secrets never enter a digest, a prompt or a summary.

One table of patterns, each replaced by a fixed label; a named value (`password = …`) keeps its name.
Untouched messages are not rewritten: what stays in place was already in front of the model. Patterns are
narrow on purpose, because an identifier taken for a secret is a fact lost.
"""

# ruff: noqa: RUF001 -- punctuation of other scripts is meant
from __future__ import annotations

import re

__all__ = ["REDACTED", "redact"]

REDACTED = "[REDACTED]"

_TOKENS = (
    r"sk-[A-Za-z0-9_-]{16,}",
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,}",
    r"gh[opsru]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}",
    r"glpat-[A-Za-z0-9_-]{16,}",
    r"xox[abprs]-[A-Za-z0-9-]{10,}",
    r"hf_[A-Za-z0-9]{20,}|npm_[A-Za-z0-9]{20,}",
    r"(?:AKIA|ASIA)[A-Z0-9]{16}",
    r"AIza[A-Za-z0-9_-]{30,}",
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
)
_TOKEN = re.compile(r"(?<![A-Za-z0-9_-])(?:" + "|".join(_TOKENS) + ")")
_BEARER = re.compile(r"(?i)\b((?:bearer|basic)\s+)([A-Za-z0-9._~+/-]{12,}={0,2})")
_NAMED = re.compile(
    r"(?i)((?:pass(?:word|wd|phrase)|passwort|contraseña|mot de passe|密码|密碼|パスワード|secret"
    r"|api[_-]?key|access[_-]?key|auth[_-]?token|access[_-]?token|client[_-]?secret|private[_-]?key)"
    r"[A-Za-z0-9_]{0,16}[\"']?\s*[=:：]\s*[\"']?)"
    r"(?!(?i:none|null|true|false)\b|os\.|process\.|getenv|env\.|[<{$\[(])([^\s\"',;，。]{4,})"
)
_USERINFO = re.compile(r"(?<=://)([^/\s:@]{1,64}):([^/\s@]{1,128})@")


def redact(text: str) -> str:
    """The text with every recognised secret replaced by `[REDACTED]`. Applying it twice changes nothing."""
    text = _TOKEN.sub(REDACTED, text)
    text = _BEARER.sub(rf"\1{REDACTED}", text)
    text = _NAMED.sub(rf"\1{REDACTED}", text)
    return _USERINFO.sub(rf"\1:{REDACTED}@", text)
