"""A provider that keeps responses running in the background: streams resumed by cursor, polls, cancelling.

`Background` is an answer function with a memory. `POST …/responses` with `"background": true` makes a job
and streams it; `GET …/responses/{id}?stream=true&starting_after=N` streams what comes after event N;
`GET …/responses/{id}` polls; `POST …/responses/{id}/cancel` cancels. A job has no clock: a resume gets all
that is left, and the job is in progress for as many polls as it was told. What breaks on the way is the
plan's part: POST and GET are attempts like any other, cancelling is none (see `service`).

Everything here runs on the lab's loop; other threads read the counters.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args
from urllib.parse import parse_qs, urlsplit

import msgspec

from ..errors import UsageError
from . import items, script, sse
from .script import Script

if TYPE_CHECKING:
    from .record import Request

__all__ = ["Background", "Status"]

Status = Literal["completed", "failed", "incomplete", "cancelled"]

_JOBS = 1024  # kept
_OF_JOB = re.compile(r"/responses/(?P<id>[^/]+)(?P<cancel>/cancel)?/?$")
_FINAL = frozenset({"response.completed", "response.failed", "response.incomplete"})

# What the final response object of a job from text says, by its status.
_DETAILS: dict[Status, dict[str, Any]] = {
    "completed": {},
    "failed": {"error": {"code": "server_error", "message": "The server had an error. Please retry."}},
    "incomplete": {"incomplete_details": {"reason": "max_output_tokens"}},
    "cancelled": {},
}


@dataclass(slots=True)
class _Job:
    """One response in the background.

    Attributes:
        stream: all its events; once it is cancelled, what is left of them.
        early: the response object before there is output.
        final: the response object at the end; None when the script has no end.
        streamed: it was created with a stream, so that one can be resumed.
        polls: how often it was polled.
        over: it was cancelled, or its end was polled: nothing can cancel it any more.
    """

    stream: Script
    early: dict[str, Any]
    final: dict[str, Any] | None
    streamed: bool
    polls: int = 0
    over: bool = False


class Background:
    """An answer function: plays `answer`, and keeps it as a job where the request asks for that.

    ::

        with Lab(Background("The whole answer."), plan=Plan([Fault.cut(after_event=9)])) as lab: ...

    Job number n has the id that its script has, `_n` added. A job from text begins as real ones do, queued.
    Requests without `"background": true` get the plain answer. The newest 1024 jobs are known, the others
    and unknown ids are 404. A cancelled job keeps only its opening events, which then say so.

    Args:
        answer: a text, a script of the Responses wire, or an answer function.
        status: how a job from text ends: "completed", "failed", "incomplete", or "cancelled" by somebody
            else (its stream then ends without a terminal event: the wire has none for that). A script says
            itself how it ends; without a terminal event it is in progress for ever.
        polls: polls of each job that find it in progress, with no output, before they see the end.
        overlap: events before the cursor that a resumed stream sends again.
        gap: events after the cursor that a resumed stream leaves out.
        stream_gone: status and message for a resume, such as `TOO_OLD`; None: streams can be resumed.
        resumes: resumes, of all jobs together, that are served before `stream_gone` applies.
        gone: status, such as 404, of every later request about a job; None: jobs are kept.

    Attributes:
        cancelled: ids of the jobs that a client cancelled, in order.
        polls: how many polls have come. Those of unknown jobs, and those that a fault strikes, count, too.
        resumes: how many resumes have come, likewise.

    Raises:
        UsageError: the arguments contradict each other.
    """

    TOO_OLD: ClassVar[tuple[int, str]] = (
        400,
        "This response can no longer be streamed because it is more than 5 minutes old.",
    )

    def __init__(
        self,
        answer: str | Script | Callable[[Request], Script],
        *,
        status: Status = "completed",
        polls: int = 0,
        overlap: int = 0,
        gap: int = 0,
        stream_gone: tuple[int, str] | None = None,
        resumes: int = 0,
        gone: int | None = None,
    ) -> None:
        if status not in get_args(Status):
            raise UsageError(f"no status named {status!r}", hint=f"one of {', '.join(get_args(Status))}")
        if status != "completed" and not isinstance(answer, str):
            raise UsageError("a script says itself how it ends", hint="script.responses(..., ending=...)")
        if overlap and gap:
            raise UsageError("overlap and gap exclude each other", hint="give one of them")
        if min(polls, overlap, gap, resumes) < 0:
            raise UsageError("polls, overlap, gap and resumes cannot be negative")
        if resumes and stream_gone is None:
            raise UsageError("resumes= counts until stream_gone", hint="stream_gone=Background.TOO_OLD")
        self._answer = answer
        self._status: Status = status
        self._polls = polls
        self._overlap = overlap - gap
        self._stream_gone = stream_gone
        self._resumes = resumes
        self._gone = gone
        self._jobs: dict[str, _Job] = {}
        self._made = 0
        self.cancelled: tuple[str, ...] = ()
        self.polls = 0
        self.resumes = 0

    def __call__(self, request: Request) -> Script:
        """The answer to one request."""
        url = urlsplit(request.path)
        about = _OF_JOB.search(url.path)
        if about is not None:
            return self._about(request, about["id"], cancel=about["cancel"] is not None)
        body = request.fields()
        if request.wire == "responses" and body.get("background") is True:
            return self._create(request, body)
        return self._plain(request)

    def _plain(self, request: Request) -> Script:
        if isinstance(self._answer, str):
            return script.say(self._answer)(request)
        if isinstance(self._answer, Script):
            return script.as_asked(self._answer, request)
        return self._answer(request)

    # A job begins.

    def _create(self, request: Request, body: dict[str, Any]) -> Script:
        stream = self._job_stream(request, body)
        first = sse.decode(stream.events[0]) if stream.events else None
        if not isinstance(first, dict) or "id" not in (first.get("response") or ()):
            return stream  # an error, or nothing that could be found again: no job comes of it
        given = first["response"]["id"]
        job_id = f"{given}_{self._made}"
        self._made += 1
        stream = stream.replaced(msgspec.json.encode(given), msgspec.json.encode(job_id))
        early = first["response"] | {"id": job_id, "background": True}
        job = _Job(stream, early, self._final(stream, early), streamed=body.get("stream") is True)
        self._jobs[job_id] = job
        while len(self._jobs) > _JOBS:
            del self._jobs[next(iter(self._jobs))]
        return stream if job.streamed else script.json(early)

    def _job_stream(self, request: Request, body: dict[str, Any]) -> Script:
        if isinstance(self._answer, str):
            ending: items.Ending = "none" if self._status == "cancelled" else self._status
            message, details = script.message(self._answer), _DETAILS[self._status]
            return script.responses(message, background=True, ending=ending, details=details)
        streamed = msgspec.json.encode(body | {"stream": True})
        return self._plain(dataclasses.replace(request, body=streamed))

    def _final(self, stream: Script, early: dict[str, Any]) -> dict[str, Any] | None:
        if self._status == "cancelled":
            return early | {"status": "cancelled"}
        for event in reversed(stream.events):
            payload = sse.decode(event)
            if isinstance(payload, dict) and payload.get("type") in _FINAL:
                return dict(payload["response"]) | {"background": True}
        return None

    # A job is asked about.

    def _about(self, request: Request, job_id: str, *, cancel: bool) -> Script:
        query = parse_qs(urlsplit(request.path).query)
        streams = query.get("stream") == ["true"]
        if request.method == "GET" and not cancel:
            self.resumes += streams
            self.polls += not streams
        job = self._jobs.get(job_id)
        if job is None or self._gone is not None:
            return script.problem(self._gone or 404, f"Response with id '{job_id}' not found.")
        if (request.method, cancel) == ("POST", True):
            return self._cancel(job_id, job)
        if (request.method, cancel) != ("GET", False):
            return script.problem(405, f"lab: {request.method} is not played here")
        return self._resume(job, query.get("starting_after", ["-1"])[0]) if streams else self._poll(job)

    def _resume(self, job: _Job, cursor: str) -> Script:
        if self._stream_gone is not None and self.resumes > self._resumes:
            return script.problem(*self._stream_gone)
        if not job.streamed:
            return script.problem(400, "lab: this response was not created with a stream")
        if not re.fullmatch(r"-?\d+", cursor):
            return script.problem(400, f"lab: starting_after is not a number: {cursor!r}")
        return job.stream.since(int(cursor), overlap=self._overlap)

    def _poll(self, job: _Job) -> Script:
        job.polls += 1
        job.over |= job.polls > self._polls and job.final is not None
        return script.json(job.final if job.over else job.early | {"status": "in_progress"})

    def _cancel(self, job_id: str, job: _Job) -> Script:
        if not job.over:
            job.over = True
            job.final = job.early | {"status": "cancelled"}
            job.stream = _lifecycle(job.stream, job.final)
            self.cancelled += (job_id,)
        return script.json(job.final)


def _lifecycle(stream: Script, response: dict[str, Any]) -> Script:
    """What is left of the stream of a cancelled job: its opening events, showing it cancelled, and no end."""
    kept: list[bytes] = []
    for event in stream.events:
        payload = sse.decode(event)
        if not isinstance(payload, dict) or "response" not in payload:
            break
        kept.append(sse.encode(payload | {"response": response}, payload["type"]))
    return dataclasses.replace(stream, events=tuple(kept))
