"""How the small tasks put their questions, and what they share.

Strategy: a task is a generator of plain values: it yields a `Question`, is sent the `Reply`, and returns what
its caller wants or raises `InvalidAnswer`. It knows no client, so the sync and the async form of a task share
all of it but the loop; `run` and `arun` are the two loops. However often a task asks, its calls have the time
of one: a second question gets what the first has left. Routes, clocks and request fields come from the
configuration of the task, by way of `client.complete(task=…)`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from ..errors import InvalidAnswer, SidestreamError, UsageError
from ..reply import Attempt, Reply
from ..wire.prompt import Request, from_input, has_images, plain_text, to_messages
from .compression.redact import redact

if TYPE_CHECKING:
    from ..cancel import Cancel
    from ..client import AsyncClient, Client
    from ..drivers import Notify
    from ..recovery.clocks import Timeouts
    from ..route import Route

__all__ = ["Messages", "Options", "Question", "Talk", "arun", "check_whole", "invalid", "run", "told"]

Messages = str | Iterable[Mapping[str, Any]]
T = TypeVar("T")


class Options(TypedDict, total=False):
    """What every task passes on to the client's calls; see `Client.complete`.

    Attributes:
        route, main, model: where to ask, instead of what is configured for the task.
        timeout: total seconds of all its calls together, or `Timeouts`.
        cancel, atomic, notify: of its calls.
    """

    route: Route | str | None
    main: Route | str | None
    model: str | None
    timeout: Timeouts | float | None
    cancel: Cancel | None
    atomic: bool | None
    notify: Notify | None


@dataclass(frozen=True, slots=True)
class Question:
    """One call: what `Client.complete` is given besides the options; `because`: why it is asked again."""

    input: Messages
    instructions: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    because: str = ""


Talk = Generator[Question, Reply, T]


class _Course:
    """How far a task has come: the time it has left, and the ledger of its calls."""

    def __init__(self, timeouts: Timeouts, clock: Callable[[], float]) -> None:
        self._timeouts = timeouts
        self._clock = clock
        self._until = clock() + timeouts.total
        self._attempts: tuple[Attempt, ...] = ()

    def again(self, question: Question, reply: Reply) -> Timeouts:
        """What the next question may take, after this reply."""
        left = self._until - self._clock()
        if left <= 0:
            raise invalid(f"{question.because}, and no time is left to ask again", reply)
        self._attempts += reply.attempts
        return replace(self._timeouts, total=left)

    def told(self, error: SidestreamError) -> SidestreamError:
        """The error, with the attempts of the calls before the one it speaks of."""
        error.attempts = self._attempts + error.attempts
        return error


def run(
    client: Client, task: str, talk: Talk[T], options: Options, clock: Callable[[], float] = time.monotonic
) -> T:
    """Put a task's questions, until it has what it wants. Raises what the calls and the task raise."""
    course = _Course(client.timeouts(task, options.get("timeout")), clock)
    own = options.copy()
    try:
        question = next(talk)
        while True:
            said = {"instructions": question.instructions, **question.params}
            reply = client.complete(question.input, task=task, **said, **own)
            question = talk.send(reply)
            own["timeout"] = course.again(question, reply)
    except StopIteration as end:
        done: T = end.value
        return done
    except SidestreamError as error:
        raise course.told(error) from error.__cause__


async def arun(
    client: AsyncClient,
    task: str,
    talk: Talk[T],
    options: Options,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """As `run`."""
    course = _Course(client.timeouts(task, options.get("timeout")), clock)
    own = options.copy()
    try:
        question = next(talk)
        while True:
            said = {"instructions": question.instructions, **question.params}
            reply = await client.complete(question.input, task=task, **said, **own)
            question = talk.send(reply)
            own["timeout"] = course.again(question, reply)
    except StopIteration as end:
        done: T = end.value
        return done
    except SidestreamError as error:
        raise course.told(error) from error.__cause__


def invalid(problem: str, reply: Reply, hint: str = "") -> InvalidAnswer:
    """The error of an answer that is of no use."""
    return InvalidAnswer(
        f"the answer cannot be used: {problem}",
        problem=problem,
        hint=hint or "ask again, or let another model do it: model= of the task",
        reply=reply,
        attempts=reply.attempts,
    )


def check_whole(reply: Reply) -> None:
    """Half an answer is none.

    Raises:
        InvalidAnswer: a token limit ended it.
    """
    if reply.status == "incomplete":
        raise invalid("a token limit ended it", reply, "raise params.max_output_tokens of the task")


# A conversation as material.

_EACH, _ALL = 1_500, 8_000  # characters of a turn, and of all that is shown
_SEEN = 4 * _EACH  # of a turn: a secret that begins in what is shown ends in here
_GAP = "\n\n"
_SPEAKERS = {"user": "User", "assistant": "Assistant"}


def told(messages: Messages) -> str:
    """What user and assistant said, in `_ALL` characters: its beginning, and the user's last words.

    Secrets are out.

    Raises:
        UsageError: there is nothing in it, or it is no conversation.
    """
    try:
        entries = to_messages(from_input(messages))
    except ValueError as error:
        raise UsageError(f"the messages make no sense: {error}") from None
    turns = [line for entry in entries if (line := _line(entry))]
    if not turns:
        raise UsageError("nobody says anything in these messages")
    kept = _beginning(turns, _ALL)
    last = next((turn for turn in reversed(turns) if turn.startswith(_SPEAKERS["user"])), "")
    if not last or last in kept:
        return _GAP.join(kept)
    ending = ["[…]", last]
    return _GAP.join([*_beginning(turns, _ALL - sum(len(_GAP) + len(each) for each in ending)), *ending])


def _beginning(turns: list[str], room: int) -> list[str]:
    kept: list[str] = []
    room += len(_GAP)
    for turn in turns:
        room -= len(_GAP) + len(turn)
        if room < 0:
            break
        kept.append(turn)
    return kept


def _line(entry: dict[str, Any]) -> str:
    """A turn in one paragraph, "" for what is not said by user or assistant."""
    speaker = _SPEAKERS.get(str(entry.get("role")), "")
    text = plain_text(entry.get("content")).strip()
    if not text and has_images(Request((entry,))):
        text = "[an image]"
    if not speaker or not text:
        return ""
    text = redact(text[:_SEEN])
    return f"{speaker}: {text if len(text) <= _EACH else f'{text[:_EACH]} […]'}"
