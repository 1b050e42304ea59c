"""What the tests of routes, renewals and queues share: calls in the four ways, keys, a credential."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from callers import aheld, alive, held, live
from verdicts import Outcome

from sidestream import AsyncClient, Client, Policy, Route, Secret
from sidestream.lab import Lab, Request, Script, fingerprint, script
from sidestream.recovery.policy import Backoff

TEXT = "The whole answer, nothing less than that."
AT_ONCE = Policy(backoff=Backoff(0, 0, 0))
Labs = Callable[..., Lab]


def asked(
    way: str, routes: Sequence[Route], *, calls: int = 1, client: Any = None, **ask: Any
) -> list[Outcome]:
    """So many calls, one after the other, with one client."""
    ask = {"input": "hi", **ask}
    options = {"routes": list(routes), "policy": AT_ONCE, **(client or {})}
    if way.startswith("sync"):
        with Client(**options) as blocking:
            return [(live if way.endswith("live") else held)(blocking, ask) for _ in range(calls)]

    async def run() -> list[Outcome]:
        async with AsyncClient(**options) as client:
            return [await (alive if way.endswith("live") else aheld)(client, ask) for _ in range(calls)]

    return asyncio.run(run())


def once(way: str, routes: Sequence[Route], **ask: Any) -> Outcome:
    (outcome,) = asked(way, routes, **ask)
    return outcome


def to(lab: Lab, key: str = "key-of-nobody", name: str = "", **fields: Any) -> Route:
    given = {"model": "lab-1", "wire": "chat", "api_key": Secret(key), "name": name or key}
    return Route(lab.url, **given | fields)


def pool(lab: Lab, *keys: str, **fields: Any) -> list[Route]:
    return [to(lab, key, **fields) for key in keys]


def keys_at(lab: Lab) -> list[str | None]:
    """The keys of the requests, as fingerprints."""
    return [request.header("authorization") for request in lab.requests]


def bearer(*keys: str) -> list[str]:
    return [fingerprint(f"Bearer {key}") for key in keys]


def by_key(**answers: Script) -> Callable[[Request], Script]:
    """An answer for each key (`_` stands for `-`), and the whole text for all others."""
    known = {fingerprint("Bearer " + key.replace("_", "-")): answer for key, answer in answers.items()}

    def answer(request: Request) -> Script:
        return known.get(request.header("authorization") or "") or script.say(TEXT)(request)

    return answer


def refusal(param: str) -> Script:
    body = {"message": f"Unsupported parameter: '{param}'", "code": "unsupported_parameter", "param": param}
    return script.error(400, {"error": body})


class Renewing:
    """A credential of the test's own: it counts, and does what it is told.

    Args:
        keys: what it has; each renewal goes on to the next one.
        slow: what a renewal waits for before it is done.
        fails: what a renewal raises.
    """

    def __init__(
        self, *keys: str, slow: threading.Event | None = None, fails: BaseException | None = None
    ) -> None:
        self._keys = list(keys)
        self._slow, self._fails = slow, fails
        self._lock = threading.Lock()
        self.began, self.done = threading.Event(), threading.Event()
        self.renewals = 0

    label = "keys of the test"

    def apply(self, route: Route) -> Route:
        with self._lock:
            return replace(route, api_key=Secret(self._keys[0]))

    def renew(self, route: Route, seconds: float) -> Route | None:  # noqa: ARG002
        self.renewals += 1
        self.began.set()
        try:
            if self._slow is not None:
                assert self._slow.wait(30)
            if self._fails is not None:
                raise self._fails
            with self._lock:
                if len(self._keys) < 2:
                    return None
                del self._keys[0]
            return self.apply(route)
        finally:
            self.done.set()
