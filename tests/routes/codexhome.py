"""A Codex folder signed in to a lab, and what the tests of the sign-in ask of it."""

import json
from pathlib import Path
from typing import Any

from sidestream import Route
from sidestream.lab import Codex, Lab
from sidestream.routes.codex import CodexSignIn

MODEL = "gpt-5-codex"


def write_auth(home: Path, auth: Any) -> Path:
    """The document as `codex login` leaves it: pretty, and for its user only."""
    home.mkdir(exist_ok=True)
    file = home / "auth.json"
    file.write_text(auth if isinstance(auth, str) else json.dumps(auth, indent=2), encoding="utf-8")
    file.chmod(0o600)
    return file


def read_auth(home: Path) -> Any:
    return json.loads((home / "auth.json").read_bytes())


def sign_in(home: Path, lab: Lab | None = None, **settings: Any) -> CodexSignIn:
    """A sign-in whose endpoints are those of the lab, or nowhere."""
    base = Codex.base_url(lab) if lab else "http://127.0.0.1:1/backend-api/codex"
    url = Codex.token_url(lab) if lab else "http://127.0.0.1:1/oauth/token"
    pauses = {"sleep": lambda _: None}
    return CodexSignIn(home, **{"endpoints": [base], "token_url": url, "environ": {}} | pauses | settings)


def route(lab: Lab | None = None, **settings: Any) -> Route:
    base = Codex.base_url(lab) if lab else "http://127.0.0.1:1/backend-api/codex"
    return Route(**{"base_url": base, "model": MODEL, "wire": "responses"} | settings)


def paths(lab: Lab) -> list[str]:
    """What the lab was asked for, in order: "responses" or "token"."""
    return [request.path.rsplit("/", 1)[1] for request in lab.requests]
