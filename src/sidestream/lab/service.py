"""Which answer a request gets: the model list, the next script, or the upstream's; and which faults go with
it.

Model endpoints (paths of the known wires) count as attempts and are what answers and plans go by; a GET that
resumes or polls a response is one, too. The model list and unknown paths are answered plainly, so that a
client's probing never shifts a plan; counting the tokens of a prompt is such a probe. Cancelling a response
is no attempt either: no fault meets it, and only an answer function can know the response, so it alone is
asked. The same goes for `POST /oauth/token`, if the answer function has tokens (`Codex`), but for faults, of
which it has a plan of its own.

A fixed script answers a request that wants no stream with the same answer as one JSON object; an answer
function decides that itself (`script.as_asked`).
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import script
from .play import Player
from .record import TOKEN_PATH, wire_of
from .script import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .connection import Connection, Incoming
    from .faults import Fault
    from .plan import Plan
    from .record import Log, Request

    Answers = Script | Sequence[Script] | Callable[[Request], Script]

__all__ = ["Service", "counts"]

_MODEL_WIRES = ("responses", "chat", "messages")
_CANCEL = re.compile(r"/responses/[^/?]+/cancel/?(?:\?|$)")
_COUNT = re.compile(r"/messages/count_tokens/?(?:\?|$)")


def counts(incoming: Incoming) -> bool:
    """Whether a request is an attempt at a model endpoint."""
    aside = _CANCEL.search(incoming.target) or _COUNT.search(incoming.target)
    return wire_of(incoming.target) in _MODEL_WIRES and not aside


@dataclass(frozen=True, slots=True)
class Service:
    """Answers requests on the lab's loop.

    Attributes:
        answers: what to say; None when there is an upstream.
        plan: what goes wrong.
        log: where it is noted.
        models: ids in the model list.
        stall: seconds until an endless stall ends.
        upstream: base of the real server, or "".
        refuse: stops listening, for seconds or until told.
    """

    answers: Answers | None
    plan: Plan
    log: Log
    models: tuple[str, ...]
    stall: float
    upstream: str
    refuse: Callable[[float | None], None]

    async def answer(self, incoming: Incoming, record: Request, link: Connection) -> bool:
        """Answer one request. True: the connection may be used again."""
        faults = self.plan.at(record.attempt) if record.attempt >= 0 else self._faults_aside(record)

        def player(answer: Script) -> Player:
            return Player(
                link,
                answer,
                faults,
                note=lambda **changes: self.log.update(record.index, **changes),
                limit=self.stall,
                http10=incoming.http10,
                wire=record.wire,
                refuse=self.refuse,
            )

        if self.upstream:
            return await self._forward(incoming, player) and incoming.keep_alive
        return await player(self._script(record)).play() and incoming.keep_alive

    async def _forward(self, incoming: Incoming, player: Callable[[Script], Player]) -> bool:
        from . import proxy

        async with contextlib.AsyncExitStack() as stack:
            try:
                head, events = await stack.enter_async_context(proxy.forward(self.upstream, incoming))
            except proxy.UpstreamFailed as failed:
                return await player(script.error(502, {"error": {"message": str(failed)}})).play()
            playing = player(head)
            try:
                return await playing.play(events)
            except proxy.UpstreamFailed:
                await playing.link.close()  # what broke upstream breaks here: no legal end
                return False

    def _faults_aside(self, record: Request) -> tuple[Fault, ...]:
        """What strikes a request that is no attempt: what a token endpoint has planned."""
        return self.answers.token_faults() if self._is_for_tokens(record) else ()  # type: ignore[union-attr]

    def _is_for_tokens(self, record: Request) -> bool:
        return hasattr(self.answers, "token_faults") and bool(TOKEN_PATH.search(record.path))

    def _script(self, record: Request) -> Script:
        knows = callable(self.answers) and (_CANCEL.search(record.path) or self._is_for_tokens(record))
        if record.attempt < 0 and not knows:
            return self._plain(record)
        if callable(self.answers):
            return self.answers(record)
        scripts = (self.answers,) if isinstance(self.answers, Script) else self.answers or ()
        return script.as_asked(scripts[min(record.attempt, len(scripts) - 1)], record)

    def _plain(self, record: Request) -> Script:
        if record.wire == "models":
            return script.json(_model_list(self.models, anthropic=bool(record.header("anthropic-version"))))
        if _COUNT.search(record.path):
            return script.json({"input_tokens": len(record.body) // 4})
        message = f"no such endpoint: {record.method} {record.path}"
        return script.error(404, {"error": {"message": message, "type": "invalid_request_error"}})


def _model_list(models: tuple[str, ...], *, anthropic: bool) -> dict[str, object]:
    if not anthropic:
        entries = [{"id": name, "object": "model", "created": 0, "owned_by": "lab"} for name in models]
        return {"object": "list", "data": entries}
    made = "1970-01-01T00:00:00Z"
    rows = [{"type": "model", "id": name, "display_name": name, "created_at": made} for name in models]
    ends = {"first_id": models[0], "last_id": models[-1]} if models else {"first_id": None, "last_id": None}
    return {"data": rows, "has_more": False, **ends}
