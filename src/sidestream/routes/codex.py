"""The sign-in of the Codex CLI as a credential: read from where Codex keeps it, renewed as Codex does.

Strategy: the document (`auth.json`, or the system's keyring) is the truth, shared with other processes and
the CLI itself. `apply` reads it. `renew` looks first whether somebody else has put a new token there; if not,
it takes the lock, looks again, asks the token endpoint and writes the answer down. A refresh token is good
for one use, so what happens after it was sent is done by a thread of its own, to its end, however soon the
caller leaves.

The access token goes to ChatGPT's Codex backend and to endpoints named in `endpoints`, nowhere else; the
refresh token to the token endpoint. What the document says is in codex_auth.py, files and locks are in
vault.py, the exchange is in oauth.py. Source: https://github.com/openai/codex (codex-rs/login)
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..route import Route, Secret
from .codex_auth import HINT, SignedIn, account_of, renewed, understood
from .environment import origin_of
from .oauth import Answer, TokenEndpoint
from .vault import Document, FileVault, KeyringVault, Pen, Vault, locked

__all__ = ["API_URL", "BASE_URL", "CodexSignIn"]

BASE_URL = "https://chatgpt.com/backend-api/codex"
API_URL = "https://api.openai.com/v1"
TOKEN_URL = "https://auth.openai.com/oauth/token"  # noqa: S105  an address
CLIENT_ID = "app_EMoamEEZ73f0CkXaXp7hrann"
ORIGINATOR = "sidestream_py"

_ASK_SECONDS = 30.0  # an answer of the token endpoint is waited for so long, whoever still wants it
# Pauses in seconds before the document is read again when another process may just have used our token.
_REREAD = (0.0, 0.1, 0.3, 0.6)


class _NoOther(Exception):
    """There is no other key, and why; with what to do about it."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(f"{why}: {hint}" if hint else why)


@dataclass(frozen=True, slots=True)
class _Unsaved:
    """An answer that could not be written down: the refresh token it replaces, and the document."""

    replaced: Secret | None
    document: Document


class CodexSignIn:
    """A `Credential`: the access token of `codex login`, renewed when it runs out or is rejected.

    One sign-in may serve many threads and routes; other processes may use the same folder.

    Args:
        home: Codex's folder. Default: `$CODEX_AUTH_HOME`, `$CODEX_HOME`, `~/.codex`.
        endpoints: further base URLs that get the token and the identity headers as `BASE_URL` does, such as a
            local gateway of yours.
        token_url: where tokens are renewed. Default: `$CODEX_REFRESH_TOKEN_URL_OVERRIDE`, or OpenAI's.
        originator: how we introduce ourselves, in the header of that name and as User-Agent.
        session: names this conversation to the backend's prompt cache. Default: a random one.
        cafile: file with the certificates to trust instead of the system's, for the token endpoint.
        environ: the environment, for tests; so are
        clock, sleep: Unix time in seconds, and the pause between two looks.

    Attributes:
        problem: why `renew` had no other key the last time, and what to do; "" if it had.

    Raises:
        ConfigError: the token endpoint makes no sense, or is another machine over plain http.
    """

    def __init__(
        self,
        home: str | Path | None = None,
        *,
        endpoints: Iterable[str] = (),
        token_url: str | None = None,
        originator: str = ORIGINATOR,
        session: str | None = None,
        cafile: str | None = None,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        env = os.environ if environ is None else environ
        found = home or env.get("CODEX_AUTH_HOME") or env.get("CODEX_HOME") or "~/.codex"
        self.home = Path(found).expanduser()
        self._endpoints = tuple(endpoints)
        url = token_url or env.get("CODEX_REFRESH_TOKEN_URL_OVERRIDE") or TOKEN_URL
        self._token_endpoint = TokenEndpoint(url, cafile)
        self._originator = originator
        self._session = session or str(uuid.uuid4())
        self._clock, self._sleep = clock, sleep
        self._file = FileVault(self.home / "auth.json", hint=HINT, sleep=sleep)
        self._warned = False
        self._refused: tuple[Secret, str] | None = None  # a refresh token of no more use, and why
        self._unsaved: _Unsaved | None = None
        self.problem = ""

    def __repr__(self) -> str:
        return f"CodexSignIn({str(self.home)!r})"

    @property
    def label(self) -> str:
        """Where the key comes from, for people."""
        return f"Codex sign-in in {self.home}"

    @property
    def remark(self) -> str:
        """What is not as it should be about the file, and what to do; "" if nothing is."""
        if not self._file.is_open_to_others():
            return ""
        return f"{self._file.where} is open to other users of this machine: chmod 600 it"

    @property
    def base_url(self) -> str:
        """The endpoint this sign-in is for: the ChatGPT backend, or OpenAI's API if Codex has an API key.

        Raises:
            ConfigError: as `apply`.
        """
        return BASE_URL if self._current(self._vault()).kind == "chatgpt" else API_URL

    def apply(self, route: Route) -> Route:
        """The route with today's token and, for ChatGPT, the headers that say who we are.

        Raises:
            ConfigError: nobody is signed in, the document is damaged, or the route leads elsewhere.
        """
        return self._on(route, self._current(self._vault()))

    def renew(self, route: Route, seconds: float) -> Route | None:
        """The route with another token than it has now; None if there is none, and `problem` says why.

        Blocks for so many seconds at most. A renewal that takes longer goes on in its own thread and is
        written down: the next call finds it.
        """
        done: Future[Route] = Future()
        self.problem = ""

        def work() -> None:
            try:
                done.set_result(self._renew(route, seconds))
            except BaseException as error:  # noqa: BLE001  it goes to whoever waits, as it is
                done.set_exception(error)

        threading.Thread(target=work, name="sidestream-renew").start()
        try:
            return done.result(seconds)
        except TimeoutError:
            self.problem = f"{self._token_endpoint.host} has not answered within {seconds:g} s"
        except _NoOther as no:
            self.problem = str(no)
        except ConfigError as error:
            self.problem = f"{error}: {error.hint}" if error.hint else str(error)
        return None

    # In the thread of a renewal.

    def _renew(self, route: Route, seconds: float) -> Route:
        vault = self._vault()
        if (found := self._newer(route, self._current(vault))) is not None:
            return found
        try:
            with locked(vault.lock, seconds, clock=time.monotonic, sleep=self._sleep) as held:
                if not held:
                    raise _NoOther(f"another process has been renewing it for {seconds:g} s")
                mine = self._current(vault)
                return self._newer(route, mine) or self._renewed(route, vault, mine)
        except OSError as error:
            raise _NoOther(f"{self.home} cannot be written: {error.strerror or error}") from None

    def _newer(self, route: Route, mine: SignedIn) -> Route | None:
        """The route with the token that is there, if that is not the one it has."""
        is_other = mine.key != route.api_key and not self._has_expired(mine)
        return self._on(route, mine) if is_other and _is_of(route, mine.account) else None

    def _renewed(self, route: Route, vault: Vault, mine: SignedIn) -> Route:
        """Ask for new tokens, write them down, use them. The lock is held."""
        refresh = self._usable(route, vault, mine)
        question = {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": refresh.reveal()}
        with vault.pen() as write:
            answer = self._token_endpoint.ask(Document(question), _ASK_SECONDS)
            if isinstance(answer, str):
                raise _NoOther(answer)
            if 200 <= answer.status < 300:
                return self._take(route, mine, answer, write)
        if answer.status != 401:
            raise _NoOther(self._words(answer))
        return self._after_refusal(route, vault, refresh, answer)

    def _usable(self, route: Route, vault: Vault, mine: SignedIn) -> Secret:
        if mine.kind == "apikey":
            raise _NoOther("an API key is not renewed", "put another key in its place with `codex login`")
        if not _is_of(route, mine.account):
            raise _NoOther(f"{vault.where} is of another account by now", "begin a new call")
        if mine.refresh is None:
            raise _NoOther(f"{vault.where} holds no refresh token", HINT)
        if self._refused and self._refused[0] == mine.refresh:
            raise _NoOther(self._refused[1], HINT)
        return mine.refresh

    def _take(self, route: Route, mine: SignedIn, answer: Answer, write: Pen) -> Route:
        document = renewed(mine.document, answer.document.reveal(), self._clock())
        if document is None:
            raise _NoOther(f"{self._token_endpoint.host} answered without a token")
        try:
            write(document)
            self._unsaved = None
        except OSError as error:
            self._unsaved = _Unsaved(mine.refresh, document)
            self.problem = f"the renewed token could not be saved: {error.strerror or error}"
        new = understood(document, self._file.where)
        if new.key == route.api_key:
            raise _NoOther(f"{self._token_endpoint.host} gave no other access token")
        return self._on(route, new)

    def _after_refusal(self, route: Route, vault: Vault, refresh: Secret, answer: Answer) -> Route:
        """The refresh token is of no more use, unless somebody else used it first and writes the new one."""
        for pause in _REREAD if answer.code == "refresh_token_reused" else _REREAD[:1]:
            self._sleep(pause)
            if (found := self._newer(route, self._current(vault))) is not None:
                return found
        self._refused = (refresh, self._words(answer))
        raise _NoOther(self._refused[1], HINT)

    def _words(self, answer: Answer) -> str:
        words = "a redirect, which is not followed" if 300 <= answer.status < 400 else answer.code
        said = f" ({words})" if words else ""
        return f"{self._token_endpoint.host} answered {answer.status}{said}"

    # Where the document is, and what it says.

    def _vault(self) -> Vault:
        """The file if there is one, else the keyring: Codex takes the file away when it uses that."""
        if os.path.lexists(self._file.path):
            if not self._warned and self.remark:
                self._warned = True
                logging.getLogger("sidestream").warning("%s", self.remark)
            return self._file
        canonical = os.path.realpath(self.home).encode(errors="replace")
        account = hashlib.sha256(canonical).hexdigest()[:16]
        return KeyringVault("Codex Auth", f"cli|{account}", self._file.lock, hint=HINT)

    def _current(self, vault: Vault) -> SignedIn:
        document = vault.read()
        if document is None:
            raise ConfigError(f"nobody is signed in: there is no {self._file.where}", hint=HINT)
        mine = understood(document, vault.where)
        if self._unsaved is not None and self._unsaved.replaced == mine.refresh:
            return understood(self._unsaved.document, vault.where)
        return mine

    def _has_expired(self, mine: SignedIn) -> bool:
        return mine.expires is not None and mine.expires <= self._clock()

    # What a route gets of it.

    def _on(self, route: Route, mine: SignedIn) -> Route:
        own, foreign = (BASE_URL, API_URL) if mine.kind == "chatgpt" else (API_URL, BASE_URL)
        named = any(_is_below(route.base_url, base) for base in (own, *self._endpoints))
        if not named or _is_below(route.base_url, foreign):
            raise ConfigError(
                f"the key of the Codex sign-in is for {own}, not for {route.origin}",
                hint="give the route that base URL, or name your own in endpoints=",
            )
        if mine.kind == "apikey":
            return replace(route, api_key=mine.key, credential=self, expires=None)
        if route.wire != "responses":
            raise ConfigError(f"the ChatGPT backend does not speak {route.wire!r}", hint='wire="responses"')
        ours = self._identity(mine)
        taken = {name.lower() for name in (*ours, "ChatGPT-Account-ID")}
        kept = {name: value for name, value in route.headers.items() if name.lower() not in taken}
        return replace(
            route,
            api_key=mine.key,
            headers={**kept, **ours},
            credential=self,
            expires=mine.expires,
            params={"prompt_cache_key": self._session, **route.params},
        )

    def _identity(self, mine: SignedIn) -> dict[str, str]:
        headers = {
            "originator": self._originator,
            "User-Agent": self._originator,
            "session-id": self._session,
            "thread-id": self._session,
            "ChatGPT-Account-ID": mine.account,
            "x-openai-internal-codex-residency": mine.residency,
        }
        return {name: value for name, value in headers.items() if value}


def _is_of(route: Route, account: str) -> bool:
    """Whether the route was made with this account's token, as far as both are known."""
    named = (value for name, value in route.headers.items() if name.lower() == "chatgpt-account-id")
    return not account or next(named, account_of(route.api_key)) in ("", account)


def _is_below(url: str, base: str) -> bool:
    """Whether a base URL is that one or below it, on the same origin, without tricks in its path."""
    if origin_of(url) != origin_of(base):
        return False
    here, there = urlsplit(url), urlsplit(base)
    path, top = here.path.rstrip("/") + "/", there.path.rstrip("/") + "/"
    is_plain = not re.search(r"%|\\|//|/\.\.?/", path)
    return path.startswith(top) and is_plain
