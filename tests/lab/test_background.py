"""Responses in the background: streamed, resumed by cursor, polled and cancelled, through real sockets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from raw_client import CHAT, MESSAGES, RESPONSES, Heard, ask, request

from sidestream.errors import UsageError
from sidestream.lab import Background, Continuing, Fault, Lab, Plan, Script, script
from sidestream.lab.background import Status
from sidestream.lab.sse import decode, split_events

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = "naïve 数据 🙂 flows  on"


def events(answer: Heard) -> list[Any]:
    assert answer.status == 200, answer.body
    return [decode(event) for event in split_events(b"".join(answer.chunks[0]))]


def numbers(answer: Heard) -> list[int]:
    return [event["sequence_number"] for event in events(answer)]


def deltas(answer: Heard) -> str:
    return "".join(e["delta"] for e in events(answer) if e["type"] == "response.output_text.delta")


def create(lab: Lab, **fields: Any) -> Heard:
    asked = {"input": "Hi", "background": True, "stream": True} | fields
    return ask(lab, request(RESPONSES, json.dumps(asked).encode()))


def get(lab: Lab, job: str = "resp_lab_0", **query: object) -> Heard:
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    return ask(lab, request(f"{RESPONSES}/{job}?{asked}", b"", method="GET"))


def resume(lab: Lab, after: object, job: str = "resp_lab_0") -> Heard:
    return get(lab, job, stream="true", starting_after=after)


def poll(lab: Lab, job: str = "resp_lab_0") -> Any:
    answer = get(lab, job)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def cancel(lab: Lab, job: str = "resp_lab_0") -> Heard:
    return ask(lab, request(f"{RESPONSES}/{job}/cancel", b""))


def problem(answer: Heard) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["error"]["message"]


def test_a_background_stream_is_queued_and_numbered(lab: Callable[..., Lab]) -> None:
    """The stream of a new job is numbered from 0, queued before it starts, and names one response."""
    told = events(create(lab(Background(TEXT))))
    assert [e["sequence_number"] for e in told] == list(range(len(told)))
    kinds = [event["type"].removeprefix("response.") for event in told]
    assert kinds[:3] == ["created", "queued", "in_progress"]
    assert kinds[-1] == "completed"
    shown = [e["response"] for e in told if "response" in e]
    assert [r["status"] for r in shown] == ["queued", "queued", "in_progress", "completed"]
    assert {(r["id"], r["background"]) for r in shown} == {("resp_lab_0", True)}


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
@pytest.mark.parametrize("fields", [{}, {"background": False}])
def test_without_background_it_is_a_plain_stream(
    lab: Callable[..., Lab], path: str, fields: dict[str, Any]
) -> None:
    """Other requests get the plain answer on their wire, and nothing is kept of it."""
    running = lab(Background(TEXT))
    answer = ask(running, request(path, json.dumps(fields | {"stream": True}).encode()))
    assert "数据" in b"".join(answer.chunks[0]).decode()
    assert b"response.queued" not in answer.body
    assert problem(resume(running, 0, "resp_lab")) == (404, "Response with id 'resp_lab' not found.")


def test_a_cut_stream_resumes_after_its_cursor(lab: Callable[..., Lab]) -> None:
    """A resume has exactly the events after the cursor, as often as asked; together they are the text."""
    running = lab(Background(TEXT), plan=Plan([Fault.cut(after_event=7, tail=0)]))
    first = create(running)
    rest = resume(running, numbers(first)[-1])
    assert numbers(first) + numbers(rest) == list(range(len(numbers(rest)) + 7))
    assert deltas(first) + deltas(rest) == TEXT
    assert rest.chunks == resume(running, numbers(first)[-1]).chunks


def test_a_resume_without_cursor_begins_at_the_start(lab: Callable[..., Lab]) -> None:
    """Without `starting_after` all events come; after the last one none, in a stream that ends cleanly."""
    running = lab(Background(TEXT))
    whole = create(running)
    assert get(running, stream="true").chunks == whole.chunks
    assert resume(running, numbers(whole)[-1]).chunks == ([], b"", True)


@pytest.mark.parametrize(
    ("knob", "first"), [({}, 6), ({"overlap": 2}, 4), ({"overlap": 99}, 0), ({"gap": 2}, 8)]
)
def test_a_resume_can_overlap_or_leave_a_gap(
    lab: Callable[..., Lab], knob: dict[str, int], first: int
) -> None:
    """`overlap` sends events before the cursor again, `gap` leaves events after it out."""
    running = lab(Background(TEXT, **knob))
    create(running)
    assert numbers(resume(running, 5))[0] == first


def test_resumes_and_polls_meet_the_plan_and_a_cancel_does_not(lab: Callable[..., Lab]) -> None:
    """Each GET is an attempt with its own fault; cancelling in between is no attempt and meets none."""
    faults = [
        Fault.cut(after_event=5, tail=0),
        Fault.reset(after_event=1),
        Fault.close(),
        Fault.hang(seconds=0),
    ]
    job = Background(TEXT)
    running = lab(job, plan=Plan(faults))
    create(running)
    assert resume(running, 4).ending == "reset"
    assert cancel(running).status == 200
    assert get(running).status == 0
    assert poll(running)["status"] == "cancelled"
    assert [(r.attempt, r.fault) for r in running.requests] == [
        (0, "cut"),
        (1, "reset"),
        (-1, ""),
        (2, "close"),
        (3, "hang"),
    ]
    assert (job.polls, job.resumes) == (2, 1)


@pytest.mark.parametrize("answers", [script.responses_text("a"), [script.responses_text("a")]])
def test_only_an_answer_function_knows_what_to_cancel(lab: Callable[..., Lab], answers: Any) -> None:
    """Where scripts are the answers, cancelling is 404 and shifts neither them nor the plan."""
    running = lab(answers, plan=Plan([Fault.close()]))
    assert cancel(running, "resp_lab").status == 404
    assert ask(running).status == 0


@pytest.mark.parametrize("polls", [0, 1, 3])
def test_polls_see_it_in_progress_and_then_the_end(lab: Callable[..., Lab], polls: int) -> None:
    """The first `polls` polls show no output; every later one shows the whole response."""
    job = Background(TEXT, polls=polls)
    running = lab(job)
    create(running)
    seen = [poll(running) for _ in range(polls + 2)]
    assert [s["status"] for s in seen] == ["in_progress"] * polls + ["completed"] * 2
    assert all(s["output"] == [] and s["usage"] is None for s in seen[:polls])
    assert seen[-1]["output"][0]["content"][0]["text"] == TEXT
    assert seen[-1]["usage"]["output_tokens"] == 5
    assert {(s["id"], s["object"], s["background"]) for s in seen} == {("resp_lab_0", "response", True)}
    assert (job.polls, job.resumes) == (polls + 2, 0)


@pytest.mark.parametrize("status", ["failed", "incomplete", "cancelled"])
def test_a_job_can_end_otherwise(lab: Callable[..., Lab], status: Status) -> None:
    """Stream and polls agree on how it ended; a cancelled stream has no terminal event, for there is none."""
    running = lab(Background(TEXT, status=status))
    last = events(create(running))[-1]
    final = poll(running)
    assert final["status"] == status
    if status == "cancelled":
        assert last["type"] == "response.output_item.done"
        assert final["output"] == []
    else:
        assert last["type"] == f"response.{status}"
        assert last["response"] == final
    assert bool(final["error"]) == (status == "failed")
    assert bool(final["incomplete_details"]) == (status == "incomplete")


def test_a_cancelled_job_shows_it(lab: Callable[..., Lab]) -> None:
    """A cancel answers with the cancelled response, twice if asked; later polls and streams agree."""
    job = Background(TEXT, polls=5)
    running = lab(job, plan=Plan([Fault.cut(after_event=7, tail=0)]))
    create(running)
    first, second = (json.loads(cancel(running).body) for _ in range(2))
    assert first == second == poll(running)
    assert (first["status"], first["output"]) == ("cancelled", [])
    assert [e["response"]["status"] for e in events(get(running, stream="true"))] == ["cancelled"] * 3
    assert resume(running, 6).chunks == ([], b"", True)
    assert job.cancelled == ("resp_lab_0",)


def test_what_has_ended_is_not_cancelled(lab: Callable[..., Lab]) -> None:
    """A cancel after the end was seen returns the final response and cancels nothing."""
    job = Background(TEXT)
    running = lab(job)
    create(running)
    final = poll(running)
    assert json.loads(cancel(running).body) == final
    assert job.cancelled == ()


def test_a_stream_can_be_gone_while_the_job_goes_on(lab: Callable[..., Lab]) -> None:
    """From the chosen resume on, streams are refused in OpenAI's words; polling still finds the answer."""
    job = Background(TEXT, stream_gone=Background.TOO_OLD, resumes=2)
    running = lab(job)
    create(running)
    assert [resume(running, 3).status for _ in range(3)] == [200, 200, 400]
    assert problem(resume(running, 3)) == (
        400,
        "This response can no longer be streamed because it is more than 5 minutes old.",
    )
    assert poll(running)["status"] == "completed"
    assert (job.resumes, job.polls) == (4, 1)


@pytest.mark.parametrize("status", [404, 410])
def test_a_stream_can_be_gone_at_once(lab: Callable[..., Lab], status: int) -> None:
    """Any status and words can refuse a resume, by default the first."""
    running = lab(Background(TEXT, stream_gone=(status, "no more")))
    create(running)
    assert problem(resume(running, 0)) == (status, "no more")


def test_a_job_can_be_gone_altogether(lab: Callable[..., Lab]) -> None:
    """With `gone` neither stream nor poll nor cancel finds the job; the counters still count."""
    job = Background(TEXT, gone=410)
    running = lab(job)
    create(running)
    for answer in (resume(running, 0), get(running), cancel(running)):
        assert problem(answer) == (410, "Response with id 'resp_lab_0' not found.")
    assert (job.resumes, job.polls, job.cancelled) == (1, 1, ())


def test_an_unknown_job_is_404(lab: Callable[..., Lab]) -> None:
    """An id nobody gave out is not found, whatever is asked of it."""
    running = lab(Background(TEXT))
    for answer in (resume(running, 0, "resp_x"), get(running, "resp_x"), cancel(running, "resp_x")):
        assert problem(answer) == (404, "Response with id 'resp_x' not found.")


def test_jobs_are_kept_apart_and_in_bounds(lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job has its own id and its own polls; beyond the limit the oldest is forgotten."""
    monkeypatch.setattr("sidestream.lab.background._JOBS", 2)
    running = lab(Background(TEXT, polls=1))
    ids = [events(create(running))[0]["response"]["id"] for _ in range(3)]
    assert ids == ["resp_lab_0", "resp_lab_1", "resp_lab_2"]
    assert [poll(running, ids[1])["status"] for _ in range(2)] == ["in_progress", "completed"]
    assert poll(running, ids[2])["status"] == "in_progress"
    assert get(running, ids[0]).status == 404


def test_a_job_without_a_stream_is_only_polled(lab: Callable[..., Lab]) -> None:
    """Created with `"stream": false`, it is answered with the queued response and cannot be streamed."""
    running = lab(Background(TEXT))
    started = json.loads(create(running, stream=False).body)
    assert (started["id"], started["status"], started["output"]) == ("resp_lab_0", "queued", [])
    assert resume(running, 0).status == 400
    assert poll(running)["output"][0]["content"][0]["text"] == TEXT


def test_a_script_says_itself_how_it_ends(lab: Callable[..., Lab]) -> None:
    """A script is played as it is but for its id; its terminal event is what polls see."""
    played = script.responses(
        script.reasoning("Hm 🙂"), script.message("ok"), ending="incomplete", response_id="r"
    )
    running = lab(Background(played))
    told = events(create(running))
    assert [e["type"] for e in told] == [decode(event)["type"] for event in played.events]
    assert told[-1]["response"]["id"] == poll(running, "r_0")["id"] == "r_0"
    assert poll(running, "r_0")["status"] == "incomplete"


def test_a_script_without_an_end_is_in_progress_for_ever(lab: Callable[..., Lab]) -> None:
    """No terminal event, no final response: only a cancel ends it."""
    running = lab(Background(script.responses(script.message("ok"), ending="none")))
    create(running)
    assert {poll(running)["status"] for _ in range(3)} == {"in_progress"}
    assert json.loads(cancel(running).body)["status"] == "cancelled"


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_function_can_answer(lab: Callable[..., Lab], stream: bool) -> None:
    """A model that continues can work in the background, too: each job is what it said to that request."""
    running = lab(Background(Continuing("one two three")))
    partial = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "one"}]}
    create(running, input=[partial], stream=stream)
    assert poll(running, "resp_lab_0_0")["output"][0]["content"][0]["text"] == " two three"


@pytest.mark.parametrize("answer", [script.error(429, {"error": {}}), Script(()), script.chat_text("a")])
def test_an_error_makes_no_job(lab: Callable[..., Lab], answer: Script) -> None:
    """What is no Responses stream is passed on as it is."""
    assert create(lab(Background(answer))).status == answer.status


def test_odd_requests_are_refused(lab: Callable[..., Lab]) -> None:
    """A cursor that is no number and a method that is not played get a clear error."""
    running = lab(Background(TEXT))
    create(running)
    assert problem(resume(running, "x")) == (400, "lab: starting_after is not a number: 'x'")
    assert ask(running, request(f"{RESPONSES}/resp_lab_0", b"", method="DELETE")).status == 405


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "asleep"},
        {"overlap": 1, "gap": 1},
        {"polls": -1},
        {"resumes": 1},
        {"answer": script.responses_text("a"), "status": "failed"},
    ],
)
def test_contradictions_are_usage_errors(wrong: dict[str, Any]) -> None:
    """Arguments that contradict each other are refused at once."""
    with pytest.raises(UsageError):
        Background(**{"answer": TEXT} | wrong)
