"""A session's compressions: when, one at a time, and never late.

A `Compactor` holds a policy, a history and a way to ask a model. `check` says whether it is time; `compact`
(or `acompact`) makes a compaction and changes nothing; `commit` puts it in place of the messages it was made
from, with whatever arrived meanwhile behind it. Between the two lies the fence: only the newest compaction
can be committed, only once, and only onto the very messages it was made from. One that was abandoned,
cancelled or overtaken is refused with `StaleCompaction`; a second one at the same time with
`CompactionBusy`. Any thread may call; the lock is never held while a model is asked.
"""

from __future__ import annotations

import inspect
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ...errors import SidestreamError, UsageError
from .compaction import Compaction, measure
from .failures import FAILURES, without_summary
from .formats import load
from .groups import unpaired
from .plan import Plan
from .policy import COOLDOWNS, CompressionPolicy, History
from .prepare import prepare
from .prune import prune
from .tokens import counter_for, remembering

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .conversation import Conversation
    from .formats import Transcript
    from .policy import Shape, Verdict

__all__ = ["CompactionBusy", "Compactor", "StaleCompaction"]


class CompactionBusy(SidestreamError):
    """This session is being compressed already; its result will do."""


class StaleCompaction(SidestreamError):
    """The compaction may not take effect any more; the messages stay as they are."""


@dataclass(slots=True)
class _State:
    """What the lock guards."""

    history: History
    ticket: int = 0
    running: bool = False
    made: Compaction | None = None
    source: tuple[Mapping[str, Any], ...] = ()


class Compactor:
    """Compresses one session again and again, by a policy.

    Args:
        complete: takes chat messages and returns the model's text, for `acompact` an awaitable of it; None
            quotes instead of asking.
        window: the context window of the session's model, in tokens.
        policy: the numbers.
        history: what the session remembers, from `History.from_dict`; a new session has none.
        model, route: the session's model and route by name: for the policy's overrides, and to count tokens.
        reserved: tokens of the window that an answer may take.
        count: counts tokens; None for `counter_for(model)`.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        complete: Callable[[list[dict[str, str]]], Any] | None = None,
        *,
        window: int,
        policy: CompressionPolicy | None = None,
        history: History | None = None,
        model: str = "",
        route: str = "",
        reserved: int = 0,
        count: Callable[[str], int] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ask: Any = complete  # None: everything is done without a model
        self._policy = policy or CompressionPolicy()
        self._window = window
        self._names = {"model": model, "route": route, "reserved": reserved}
        self._count = count or counter_for(model)
        self._clock = clock
        self._lock = threading.Lock()
        self._state = _State(history or History())
        self.threshold  # noqa: B018 -- a window without room is an error now, not later

    @property
    def threshold(self) -> int:
        """Tokens from which compression is due."""
        return self._policy.threshold(self._window, **self._names)  # type: ignore[arg-type]  # by name

    @property
    def history(self) -> History:
        """What the session remembers; keep `history.to_dict()` beside its messages."""
        with self._lock:
            return self._state.history

    def check(self, tokens: int, *, estimated: bool = False) -> Verdict:
        """Whether to compress now. Call it after every turn, with the prompt tokens the provider reported.

        Args:
            estimated: the number is not the provider's; it triggers less easily and proves nothing.
        """
        with self._lock:
            if not estimated:
                self._state.history = self._state.history.measured(tokens, self.threshold)
            return self._policy.should_compress(
                tokens,
                self._window,
                now=self._clock(),
                history=self._state.history,
                estimated=estimated,
                **self._names,  # type: ignore[arg-type]  # by name
            )

    def compact(
        self,
        transcript: Transcript,
        *,
        tokens: int | None = None,
        focus: str = "",
        manual: bool = False,
        due: bool = False,
    ) -> Compaction:
        """Make a compaction. Nothing takes effect before `commit`.

        Args:
            transcript: the whole conversation, as chat messages or Responses items.
            tokens: its size as the provider counted it; None counts the messages.
            focus: a topic that the summary gives most of its room to.
            manual: somebody asked for it: cooldowns and strikes are forgotten.
            due: do nothing below the threshold. (Otherwise `check` decides, beforehand.)

        Raises:
            CompactionBusy: another one is being made.
            UsageError: the messages make no sense.
            Cancelled: passed through from `complete`.
        """
        ticket = self._begin(manual)
        try:
            source = load(transcript)
            work = self._prepared(source, tokens, due=due)
            done = work if isinstance(work, Compaction) else self._asked(work, focus)
            return self._end(ticket, source, done)
        finally:
            self._leave(ticket)

    async def acompact(
        self,
        transcript: Transcript,
        *,
        tokens: int | None = None,
        focus: str = "",
        manual: bool = False,
        due: bool = False,
    ) -> Compaction:
        """`compact` for an asynchronous `complete`."""
        ticket = self._begin(manual)
        try:
            source = load(transcript)
            work = self._prepared(source, tokens, due=due)
            done = work if isinstance(work, Compaction) else await self._awaited(work, focus)
            return self._end(ticket, source, done)
        finally:
            self._leave(ticket)

    def abandon(self) -> None:
        """Whatever is being made, or is made and not committed, can take effect no more.

        It does not stop the model; cancel the call for that. The next `compact` may start at once.
        """
        with self._lock:
            state = self._state
            state.ticket, state.running, state.made = state.ticket + 1, False, None

    def commit(
        self, compaction: Compaction, messages: Sequence[Mapping[str, Any]]
    ) -> list[Mapping[str, Any]]:
        """The messages to go on with: the compacted ones, then what arrived since.

        Args:
            compaction: from `compact`. One that changed nothing gives the messages back as they are.
            messages: the conversation as it is now.

        Raises:
            StaleCompaction: it was abandoned or overtaken, was committed before, or the conversation is not
                the one it was made from. The messages stay as they are.
        """
        if not compaction.changed:
            return list(messages)
        with self._lock:
            state = self._state
            if state.made is not compaction:
                raise StaleCompaction(
                    "the compaction was abandoned, overtaken or committed before", hint="Make a new one."
                )
            joined = _joined(compaction, state.source, messages, alternate=self._policy.alternate)
            state.history = _after(state.history, compaction)
            state.made, state.source = None, ()
            return joined

    def _begin(self, manual: bool) -> int:
        with self._lock:
            state = self._state
            if state.running:
                raise CompactionBusy(
                    "this session is being compressed already", hint="Wait for it, or abandon() it."
                )
            if manual:
                state.history = state.history.cleared()
            state.ticket, state.running, state.made = state.ticket + 1, True, None
            return state.ticket

    def _end(self, ticket: int, source: Conversation, done: Compaction) -> Compaction:
        """Book the outcome, unless nobody waits for it any more."""
        with self._lock:
            state = self._state
            if ticket != state.ticket:
                return done
            if done.changed:
                state.made, state.source = done, tuple(each.raw for each in source.messages)
            elif not done.failure:
                state.history = state.history.futile()
            elif done.failure in COOLDOWNS:
                now = self._clock()
                state.history = state.history.failed(done.failure, now, done.notice, done.retry_at)
            return done

    def _leave(self, ticket: int) -> None:
        with self._lock:
            if ticket == self._state.ticket:
                self._state.running = False

    def _prepared(self, source: Conversation, tokens: int | None, *, due: bool) -> Compaction | Plan:
        """What can be done without a model, or the plan to ask one about."""
        history, threshold, count = self.history, self.threshold, remembering(self._count)
        total = source.count(count) if tokens is None else tokens
        shape = self._policy.shape(threshold, self._window, history)
        plan = prepare(source, shape, count=count, alternate=self._policy.alternate)
        if due and total < threshold:
            notice = f"{total:,} tokens are below the threshold of {threshold:,}."
            done = measure(source, source, "none", notice, limit=plan.limit, count=count)
            return replace(done, failure="below")
        blocked = self._policy.blocked(history, self._clock(), threshold)
        if blocked is not None:
            return replace(plan.keep(blocked.reason.rstrip(".")), failure="blocked")
        pruned = self._pruned(source, shape, plan, total)
        if pruned is not None:
            return pruned
        return plan.digest() if self._ask is None or not plan.needed else plan

    def _pruned(self, source: Conversation, shape: Shape, plan: Plan, total: int) -> Compaction | None:
        """Tool output shortened, if that is enough or all there is to do."""
        policy, count = self._policy, plan.count
        if not policy.prune:
            return None
        tail = int(shape.tail * source.chars / max(1, source.count(count)))
        done = prune(source, tail=tail, least=shape.least, overshoot=shape.overshoot, count=count)
        left = total - done.tokens
        enough = done.tokens >= policy.prune_least and left <= self.threshold * policy.prune_enough
        made = done.compaction(plan.limit, count)
        return made if made.changed and (enough or not plan.needed) else None

    def _asked(self, plan: Plan, focus: str) -> Compaction:
        try:
            text = self._ask(plan.prompt(focus, self._today()))
            if inspect.isawaitable(text):
                raise UsageError("complete is asynchronous", hint="Use acompact().")
            return plan.accept(text)
        except FAILURES as error:
            return without_summary(plan, error, self._policy.fallback)

    async def _awaited(self, plan: Plan, focus: str) -> Compaction:
        try:
            text = self._ask(plan.prompt(focus, self._today()))
            return plan.accept(await text if inspect.isawaitable(text) else text)
        except FAILURES as error:
            return without_summary(plan, error, self._policy.fallback)

    def _today(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).date().isoformat()


def _after(history: History, committed: Compaction) -> History:
    if committed.method == "pruned":
        return history.pruned()
    return history.committed(digest=committed.method == "extractive" and bool(committed.failure))


def _joined(
    compaction: Compaction,
    source: Sequence[Mapping[str, Any]],
    messages: Sequence[Mapping[str, Any]],
    *,
    alternate: bool,
) -> list[Mapping[str, Any]]:
    """The compacted messages with the new ones behind them."""
    before, new = messages[: len(source)], messages[len(source) :]
    same = len(before) == len(source) and all(a is b or a == b for a, b in zip(before, source, strict=True))
    if not same:
        raise StaleCompaction(
            "the conversation is not the one the compaction was made from", hint="Make a new one."
        )
    if not new:
        return compaction.messages
    known = compaction.conversation.format
    late = load([*source, *new]).messages[-len(new) :]
    first = compaction.conversation.messages
    seam = known.alternate([first[-1], late[0]]) if alternate and first else [*first[-1:], late[0]]
    joined = [*first[:-1], *seam, *late[1:]]
    if len(unpaired(joined)[0]) > len(unpaired(load(list(messages)).messages)[0]):
        raise StaleCompaction("a result arrived for a call that was summarised", hint="Make a new one.")
    return [message.raw for message in joined]
