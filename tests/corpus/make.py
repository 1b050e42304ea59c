"""Recorded-style streams as data, and what a correct client must make of each of them.

Every case is written here as a short transcript; `build()` turns it into exact bytes (`*.sse`) and the
verdict next to them (`*.json`). `responses/`, `chat/` and `messages/` hold streams that end as the wire says
they should; `broken/` holds streams that must never be called complete.

The texts in a verdict are written by hand, so that no assembler checks itself. The offsets are computed, from
the list of frames: `end` (the wire has said that the answer is over), `usage_end` (the usage is known) and
`settle` (every announced item is done, no tool could follow, only the terminal event is missing). A frame
counts from the first byte that ends its blank line; with CRLF that is the CR, a line end whatever follows.
A fault's `code` is the error's code as a string, else its type, else "".

Streams are small because tests cut them at every byte. They keep the field's shape (ids, sequence numbers,
padding, null fields) and leave out what no client reads. Run this file to rewrite them. It decodes nothing.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

HERE = Path(__file__).parent
FAR = "So far"  # what every in-stream error of broken/ interrupts
JSON = dict[str, Any]
CREATED = 1_790_000_000
TERMINAL = ("response.completed", "response.incomplete", "response.failed")

# ZWJ emoji, a flag, RTL, CJK, combining marks, U+2028, U+0085, an inner BOM and an escaped control character.
UNICODE = (
    "Caf\u00e9 cafe\u0301 \U0001f468\u200d\U0001f469",
    "\u200d\U0001f467 \U0001f1e6\U0001f1fa \u05e9\u05dc\u05d5\u05b9\u05dd \u0645\u0631\u062d\u0628\u0627",
    " \u4f60\u597d\uff0c\u4e16\u754c \u0939\u093f\u0928\u094d\u0926\u0940\u2028next\u0085line",
    "\u0301 \x1b[1mbold\x1b[0m \U0001d54f \ufeffend.",
)
# Some 7.9 kB on the wire, in characters of one to four bytes.
HUGE = "".join(
    f"[{n:03}] na\u00efve \u65e5\u672c\u8a9e \u0441\u043b\u043e\u0432\u043e \U0001f9ea\n" for n in range(192)
)


# ---------------------------------------------------------------------------------------------- frames


class Frame(NamedTuple):
    """Some bytes of a stream, after how many of them they count, and what they say (None: nothing)."""

    raw: bytes
    counts_from: int
    says: Any


def quiet(raw: str) -> Frame:
    """Bytes that say nothing to a client: comments, lone fields, HTML."""
    return Frame(raw.encode(), len(raw.encode()), None)


def frame(says: Any, *, event: str = "", eol: str = "\n", ascii_only: bool = False) -> Frame:
    """One server-sent event."""
    text = says if isinstance(says, str) else compact(says, ascii_only=ascii_only)
    name = f"event: {event}{eol}" if event else ""
    return wire_frame(f"{name}data: {text}{eol}{eol}", says, eol)


def wire_frame(raw: str, says: Any, eol: str = "\n") -> Frame:
    """One event in the given bytes, which end with its blank line."""
    return Frame(raw.encode(), len(raw.encode()) - len(eol) + 1, says)


def compact(value: Any, *, ascii_only: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"))


def cut(frames: Sequence[Frame], spare: int) -> list[Frame]:
    """The same stream, without the last `spare` bytes of its last frame."""
    raw = frames[-1].raw[:-spare]
    return [*frames[:-1], Frame(raw, len(raw), None)]


def timeline(frames: Iterable[Frame]) -> Iterator[tuple[int, Any]]:
    """Each thing that is said, with the length of the shortest prefix that says it."""
    at = 0
    for one in frames:
        if one.says is not None:
            yield at + one.counts_from, one.says
        at += len(one.raw)


# ---------------------------------------------------------------------------------------------- verdicts


@dataclass(frozen=True)
class Case:
    """A stream that ends as it should."""

    name: str
    about: str
    frames: Sequence[Frame]
    expect: JSON
    tools: tuple[str, ...] = ()
    choices: int = 1


@dataclass(frozen=True)
class Broken:
    """A stream that must not be called complete."""

    name: str
    about: str
    why: str
    frames: Sequence[Frame]
    fault: str
    code: str = ""
    text: str = ""
    tools: tuple[str, ...] = ()
    required_args: tuple[str, ...] = ()
    choices: int = 1


def reply(text: str, answer: tuple[str, str], **more: Any) -> JSON:
    """The expected reply. `answer`: id, model. `usage`: input, output. `calls`: id, name, arguments each."""
    usage = more.pop("usage", None)
    calls = more.pop("calls", ())
    expect: JSON = {"status": "complete", "text": text, "commentary": "", "reasoning": "", "refusal": ""}
    expect["tool_calls"] = [{"call_id": c, "name": n, "arguments": a} for c, n, a in calls]
    expect["usage"] = usage and {
        "input_tokens": usage[0],
        "output_tokens": usage[1],
        "total_tokens": sum(usage),
    }
    expect |= {"id": answer[0], "model": answer[1], "finish_reason": "tool_calls" if calls else "stop"}
    return expect | more


def responses_marks(case: Case) -> JSON:
    said = list(timeline(case.frames))
    end = next(at for at, event in said if isinstance(event, dict) and event["type"] in TERMINAL)
    settle = None if case.tools else settled_from(said, end)
    return {
        "end": end,
        "usage_end": end if case.expect["usage"] else None,
        "settle": settle and [settle, end],
    }


def settled_from(said: Iterable[tuple[int, Any]], end: int) -> int | None:
    """Where the answer is all there, and stays so until `end`. An item cut short by the provider never is."""
    pending: set[int] = set()
    answered, since = False, None
    for at, event in said:
        if at >= end:
            break
        if event["type"] == "response.output_item.added":
            pending.add(event["output_index"])
        elif event["type"] == "response.output_item.done":
            if event["item"].get("status") == "incomplete":
                return None
            pending.discard(event["output_index"])
            answered = answered or is_answer(event["item"])
        since = (since or at) if answered and not pending else None
    return since


def is_answer(item: JSON) -> bool:
    """A message for the user that has text."""
    said = any(part.get("text") for part in item.get("content", ()))
    return item["type"] == "message" and item.get("phase") not in {"commentary", "analysis"} and said


def chat_marks(case: Case) -> JSON:
    ended: int | None = None
    finished: set[int] = set()
    usage: dict[str, int] = {}
    for at, says in timeline(case.frames):
        if says == "[DONE]":
            ended = ended or at
            continue
        finished |= {choice["index"] for choice in says["choices"] if choice["finish_reason"]}
        if len(finished) == case.choices:
            ended = ended or at
        found = says.get("usage") or says.get("x_groq", {}).get("usage")
        if found:
            usage.setdefault(compact(found), at)
    return {"end": ended, "usage_end": list(usage.values())[-1] if usage else None, "settle": None}


# ---------------------------------------------------------------------------------------------- Responses


class Responses:
    """Writes a Responses stream: one method per thing that happens, each numbering its events."""

    def __init__(self, tag: str, *, model: str = "gpt-5.6", named: bool = True, **style: Any) -> None:
        self.id, self.model = f"resp_68f0{tag}", model
        self.named = named
        self.obfuscate = style.get("obfuscate", False)
        self.ascii_only = style.get("ascii_only", False)
        self.frames: list[Frame] = []
        self.items: list[JSON] = []
        self.sequence = 0

    @property
    def answer(self) -> tuple[str, str]:
        return self.id, self.model

    def say(self, kind: str, **fields: Any) -> Self:
        event: JSON = {"type": kind, "sequence_number": self.sequence} | fields
        if self.obfuscate and kind.endswith(".delta"):
            event["obfuscation"] = "kQ7xW2pLr9"[: 3 + self.sequence % 7]
        self.sequence += 1
        self.frames.append(frame(event, event=kind if self.named else "", ascii_only=self.ascii_only))
        return self

    def raw(self, text: str) -> Self:
        self.frames.append(quiet(text))
        return self

    def response(self, status: str, **fields: Any) -> JSON:
        base: JSON = {
            "id": self.id,
            "object": "response",
            "created_at": CREATED,
            "status": status,
            "error": None,
        }
        rest: JSON = {"incomplete_details": None, "model": self.model, "output": [], "usage": None}
        return {key: value for key, value in (base | rest | fields).items() if value is not ...}

    def created(self, *, also_in_progress: bool = False) -> Self:
        self.say("response.created", response=self.response("in_progress"))
        if also_in_progress:
            self.say("response.in_progress", response=self.response("in_progress"))
        return self

    def end(self, status: str = "completed", usage: tuple[int, int] | None = None, **fields: Any) -> Self:
        """The terminal event. It repeats the done items unless `output` says otherwise (...: no such key)."""
        tokens = usage and {
            "input_tokens": usage[0],
            "output_tokens": usage[1],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": sum(usage),
        }
        fields = {"output": self.items, "usage": tokens} | fields
        return self.say(f"response.{status}", response=self.response(status, **fields))

    def fails(self, code: str, message: str) -> Self:
        return self.end("failed", error={"code": code, "message": message}, output=[])

    def add(self, at: int, item: JSON) -> Self:
        return self.say("response.output_item.added", output_index=at, item=item)

    def done(self, at: int, item: JSON) -> Self:
        self.items.append(item)
        return self.say("response.output_item.done", output_index=at, item=item)

    def open_message(self, at: int, item_id: str, phase: str = "") -> Self:
        item: JSON = {
            "id": item_id,
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        return self.add(at, item | ({"phase": phase} if phase else {}))

    def message(self, at: int, item_id: str, *pieces: str, brief: bool = True, **fields: Any) -> Self:
        """A whole message of one text part; `fields` go into the item. Brief: only the item gets a done."""
        text = "".join(pieces)
        where = {"item_id": item_id, "output_index": at, "content_index": 0}
        part: JSON = {"type": "output_text", "text": text, "annotations": []}
        self.open_message(at, item_id, fields.get("phase", ""))
        self.say("response.content_part.added", **where, part=part | {"text": ""})
        self.text(at, item_id, *pieces)
        if not brief:
            self.say("response.output_text.done", **where, text=text, logprobs=[])
            self.say("response.content_part.done", **where, part=part)
        item = {
            "id": item_id,
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [part],
        }
        return self.done(at, item | fields)

    def text(self, at: int, item_id: str, *pieces: str) -> Self:
        where = {"item_id": item_id, "output_index": at, "content_index": 0}
        for piece in pieces:
            self.say("response.output_text.delta", **where, delta=piece, logprobs=[])
        return self

    def summary(self, at: int, item_id: str, number: int, *pieces: str) -> Self:
        """One part of a reasoning summary."""
        where = {"item_id": item_id, "output_index": at, "summary_index": number}
        self.say("response.reasoning_summary_part.added", **where, part={"type": "summary_text", "text": ""})
        for piece in pieces:
            self.say("response.reasoning_summary_text.delta", **where, delta=piece)
        return self

    def open_call(self, at: int, item_id: str, call_id: str, name: str) -> Self:
        return self.add(at, function_call(item_id, call_id, name, "", "in_progress"))

    def arguments(self, at: int, item_id: str, *pieces: str) -> Self:
        for piece in pieces:
            self.say("response.function_call_arguments.delta", item_id=item_id, output_index=at, delta=piece)
        return self

    def call_done(self, at: int, item_id: str, call_id: str, name: str, arguments: str) -> Self:
        where = {"item_id": item_id, "output_index": at}
        self.say("response.function_call_arguments.done", **where, arguments=arguments)
        return self.done(at, function_call(item_id, call_id, name, arguments, "completed"))


def function_call(item_id: str, call_id: str, name: str, arguments: str, status: str) -> JSON:
    named = {"id": item_id, "type": "function_call", "status": status, "arguments": arguments}
    return named | {"call_id": call_id, "name": name}


def responses_texts() -> Iterator[Case]:
    s = Responses("a1", obfuscate=True).created(also_in_progress=True)
    s.message(0, "msg_68f0a101", "Streams", " that finish", ".", brief=False).end(usage=(11, 6))
    about = "Plain text with every lifecycle and part event and padded deltas."
    yield Case("plain-text", about, s.frames, reply("Streams that finish.", s.answer, usage=(11, 6)))

    about = "Hard text as raw UTF-8, with graphemes split over deltas, U+2028 and U+0085; no event lines."
    s = Responses("a2", named=False).created()
    s.message(0, "msg_68f0a201", *UNICODE).end(usage=(9, 61))
    yield Case("unicode-raw", about, s.frames, reply("".join(UNICODE), s.answer, usage=(9, 61)))

    s = Responses("a3", ascii_only=True).created()
    s.message(0, "msg_68f0a301", *UNICODE).end(usage=(9, 61), output=[])
    about = "The same hard text in JSON escapes with surrogate pairs, told with the fewest events."
    yield Case("unicode-escaped", about, s.frames, reply("".join(UNICODE), s.answer, usage=(9, 61)))

    s = Responses("a4").created().text(0, "msg_68f0a401", "A", "B").end(usage=(5, 2), output=[])
    about = "Text deltas only: no item events, and an empty output in the terminal event."
    yield Case("deltas-only", about, s.frames, reply("AB", s.answer, usage=(5, 2)))

    s = Responses("a5").created().message(0, "msg_68f0a501", "OK").end(usage=(5, 1), output=...)
    about = "The terminal response has no output key; the item came with its own done event."
    yield Case("no-output-key", about, s.frames, reply("OK", s.answer, usage=(5, 1)))

    s = Responses("a6").created()
    s.message(0, "msg_68f0a601", brief=False, phase="final_answer").end(usage=(8, 0))
    about = "Completed with a final answer that is empty: a success with no text, not a failure."
    yield Case("completed-empty", about, s.frames, reply("", s.answer, usage=(8, 0)))

    s = Responses("a7").created().text(0, "msg_68f0a701", HUGE).end(usage=(7, 3100), output=[])
    about = "One delta of 8 kB in characters of one to four bytes."
    yield Case("huge-delta", about, s.frames, reply(HUGE, s.answer, usage=(7, 3100)))


def responses_ends() -> Iterator[Case]:
    s = (
        Responses("b1")
        .created()
        .message(0, "msg_68f0b101", "One, two, ", "three, fo", brief=False, status="incomplete")
    )
    s.end("incomplete", usage=(10, 8), incomplete_details={"reason": "max_output_tokens"})
    expect = {"status": "incomplete", "finish_reason": "length", "usage": (10, 8)}
    about = "Cut by the output cap: the item and the response both say incomplete."
    yield Case("incomplete-length", about, s.frames, reply("One, two, three, fo", s.answer, **expect))

    s = Responses("b2").created().message(0, "msg_68f0b201", "First you", status="incomplete")
    s.end("incomplete", usage=(12, 3), incomplete_details={"reason": "content_filter"})
    expect = {"status": "refused", "finish_reason": "content_filter", "usage": (12, 3)}
    about = "Stopped by the content filter after some text."
    yield Case("content-filter", about, s.frames, reply("First you", s.answer, **expect))

    s = Responses("b3", model="gpt-5.4").created()
    s.message(0, "msg_68f0b301", "All ", "there.", phase="final_answer")
    s.end("incomplete", usage=(12, 4))
    about = (
        "Azure: the response says incomplete without a reason although its final answer item is completed."
    )
    yield Case("azure-incomplete", about, s.frames, reply("All there.", s.answer, usage=(12, 4)))

    s = Responses("b4").created().open_message(0, "msg_68f0b401")
    where = {"item_id": "msg_68f0b401", "output_index": 0, "content_index": 0}
    part = {"type": "refusal", "refusal": "I can't help with that."}
    s.say("response.content_part.added", **where, part={"type": "refusal", "refusal": ""})
    s.say("response.refusal.delta", **where, delta="I can't help")
    s.say("response.refusal.delta", **where, delta=" with that.")
    s.say("response.refusal.done", **where, refusal="I can't help with that.")
    s.say("response.content_part.done", **where, part=part)
    item = {"id": "msg_68f0b401", "type": "message", "status": "completed", "role": "assistant"}
    s.done(0, item | {"content": [part]}).end(usage=(14, 7))
    expect = {"status": "refused", "refusal": "I can't help with that.", "usage": (14, 7)}
    yield Case("refusal", "A refusal part and nothing else.", s.frames, reply("", s.answer, **expect))

    s = Responses("b5").created().raw(": ping\n\n").say("keepalive")
    s.message(0, "msg_68f0b501", "Still ", "here.")
    s.say("keepalive").raw(":\n\n: ping - 2026-11-22 17:44:03\n\n").end(usage=(6, 3))
    about = "Keep-alive events that use up sequence numbers, and comments, also between the item and the end."
    yield Case("keepalive", about, s.frames, reply("Still here.", s.answer, usage=(6, 3)))


def responses_items() -> Iterator[Case]:
    s = Responses("c1", named=False).created()
    s.add(0, {"id": "rs_68f0c101", "type": "reasoning", "summary": [], "encrypted_content": "gAAAAB"})
    s.summary(0, "rs_68f0c101", 0, "**Reading**").summary(0, "rs_68f0c101", 1, "Now answer.")
    parts = [{"type": "summary_text", "text": text} for text in ("**Reading**", "Now answer.")]
    s.done(
        0,
        {"id": "rs_68f0c101", "type": "reasoning", "summary": parts, "encrypted_content": "gAAAABo7c2lkZQ=="},
    )
    s.message(1, "msg_68f0c102", "Let me look.", phase="commentary")
    s.message(2, "msg_68f0c103", "4", "2", phase="final_answer").end(usage=(20, 31), output=[])
    expect = {"commentary": "Let me look.", "reasoning": "**Reading**Now answer.", "usage": (20, 31)}
    about = "Reasoning with two summary parts, a commentary message, then the final answer."
    yield Case("phases", about, s.frames, reply("42", s.answer, **expect))

    s = Responses("c2").created().message(0, "msg_68f0c201", "Weigh it.", phase="analysis")
    s.message(1, "msg_68f0c202", "Yes.", phase="final_answer").end(usage=(9, 5), output=[])
    expect = {"reasoning": "Weigh it.", "usage": (9, 5)}
    about = "A message in the analysis phase is reasoning, not answer."
    yield Case("analysis-phase", about, s.frames, reply("Yes.", s.answer, **expect))

    s = Responses("c3", model="gpt-oss-120b").created()
    where = {"item_id": "rs_68f0c301", "output_index": 0, "content_index": 0}
    item: JSON = {"id": "rs_68f0c301", "type": "reasoning", "summary": []}
    s.add(0, item | {"content": []})
    s.say("response.reasoning_text.delta", **where, delta="User greets; ")
    s.say("response.reasoning_text.delta", **where, delta="greet back.")
    text = "User greets; greet back."
    s.say("response.reasoning_text.done", **where, text=text)
    s.done(0, item | {"content": [{"type": "reasoning_text", "text": text}]})
    s.message(1, "msg_68f0c302", "Hello!").end(usage=(7, 9))
    s.frames.append(frame("[DONE]"))
    about = "An open model: readable reasoning text, then the answer, and [DONE] after the terminal event."
    yield Case("reasoning-text", about, s.frames, reply("Hello!", s.answer, reasoning=text, usage=(7, 9)))

    s = Responses("c4", model="gpt-5.6-codex", named=False)
    s.sequence = 2
    window = {"used_percent": 12, "window_minutes": 300, "reset_after_seconds": 9000, "reset_at": CREATED}
    limits = {"allowed": True, "limit_reached": False, "primary": window, "secondary": None}
    s.frames.append(
        frame({"type": "codex.rate_limits", "plan_type": "plus", "rate_limits": limits, "credits": None})
    )
    s.message(0, "msg_68f0c401", "Sum", "mary.", phase="final_answer")
    s.end(usage=(900, 4), output=None, end_turn=True)
    about = "The Codex backend: rate limits first, no response.created, a terminal output of null."
    yield Case("codex-backend", about, s.frames, reply("Summary.", s.answer, usage=(900, 4)))


def responses_calls() -> Iterator[Case]:
    paris, oslo = (
        ("call_c1", "get_weather", '{"city":"Paris"}'),
        ("call_c2", "get_time", '{"tz":"Europe/Oslo"}'),
    )
    s = Responses("d1", obfuscate=True, named=False).created()
    s.open_call(0, "fc_68f0d101", *paris[:2]).open_call(1, "fc_68f0d102", *oslo[:2])
    s.arguments(0, "fc_68f0d101", '{"city":').arguments(1, "fc_68f0d102", '{"tz":"Euro')
    s.arguments(0, "fc_68f0d101", '"Paris"}').call_done(0, "fc_68f0d101", *paris)
    s.arguments(1, "fc_68f0d102", 'pe/Oslo"}').call_done(1, "fc_68f0d102", *oslo).end(usage=(80, 40))
    about = "Two function calls whose argument deltas are interleaved by output index."
    expect = reply("", s.answer, calls=(paris, oslo), usage=(80, 40))
    yield Case("parallel-calls", about, s.frames, expect, tools=("get_weather", "get_time"))

    patch = "*** Begin Patch\n+\u00e9\n*** End Patch"
    s = Responses("d2").created()
    item = {"id": "ctc_68f0d201", "type": "custom_tool_call", "status": "in_progress", "call_id": "call_d21"}
    s.add(0, item | {"name": "apply_patch", "input": ""})
    for piece in (patch[:17], patch[17:]):
        s.say("response.custom_tool_call_input.delta", item_id="ctc_68f0d201", output_index=0, delta=piece)
    s.say("response.custom_tool_call_input.done", item_id="ctc_68f0d201", output_index=0, input=patch)
    s.done(0, item | {"status": "completed", "name": "apply_patch", "input": patch}).end(usage=(60, 22))
    expect = reply("", s.answer, calls=(("call_d21", "apply_patch", patch),), usage=(60, 22))
    about = "A custom tool call: its free-form input is not JSON."
    yield Case("custom-tool", about, s.frames, expect, tools=("apply_patch",))

    weather = ("call_d31", "get_weather", '{"city":"Oslo"}')
    s = Responses("d3", model="gpt-5.4").created().open_call(0, "fc_68f0d301", *weather[:2])
    s.arguments(0, "fc_68f0d301", '{"city":').arguments(0, "fc_68f0d302", '"Oslo"}')
    s.done(0, function_call("fc_68f0d303", *weather, status="completed"))
    s.end(usage=(44, 9), output=[function_call("fc_68f0d304", *weather, status="completed")])
    expect = reply("", s.answer, calls=(weather,), usage=(44, 9))
    about = "A gateway that gives one call a new item id in every event; call id and output index stay."
    yield Case("rotating-ids", about, s.frames, expect, tools=("get_weather",))

    weather = ("call_d41", "get_weather", '{"city":"Rome"}')
    s = Responses("d4").created().open_call(0, "fc_68f0d401", *weather[:2])
    s.arguments(0, "fc_68f0d401", '{"city"', ':"Rome"}').end(usage=(44, 9), output=[])
    expect = reply("", s.answer, calls=(weather,), usage=(44, 9))
    about = "A call that is announced and filled by deltas but never marked done, in a completed response."
    yield Case("call-by-deltas", about, s.frames, expect, tools=("get_weather",))


def responses_hosted_tools() -> Iterator[Case]:
    s = Responses("e1", named=False).created()
    search = {"id": "ws_68f0e101", "type": "web_search_call", "status": "in_progress"}
    s.add(0, search)
    for step in ("in_progress", "searching", "completed"):
        s.say(f"response.web_search_call.{step}", output_index=0, item_id="ws_68f0e101")
    s.done(0, search | {"status": "completed", "action": {"type": "search", "query": "tallest tower"}})
    text, where = "It is 828 m [1].", {"item_id": "msg_68f0e102", "output_index": 1, "content_index": 0}
    cite = {
        "type": "url_citation",
        "start_index": 12,
        "end_index": 15,
        "title": "Tower",
        "url": "https://ex.org/t",
    }
    part = {"type": "output_text", "text": text, "annotations": [cite]}
    s.open_message(1, "msg_68f0e102")
    s.say("response.content_part.added", **where, part=part | {"text": "", "annotations": []})
    s.text(1, "msg_68f0e102", "It is 828 m", " [1].")
    s.say("response.output_text.annotation.added", **where, annotation_index=0, annotation=cite)
    s.say("response.output_text.done", **where, text=text, logprobs=[])
    item = {
        "id": "msg_68f0e102",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }
    s.done(1, item).end(usage=(300, 18), output=[])
    about = "A hosted web search, then a message with a URL citation."
    expect = reply(text, s.answer, usage=(300, 18))
    yield Case("web-search", about, s.frames, expect, tools=("web_search",))

    s = Responses("e2", named=False).created()
    code = {"id": "ci_68f0e201", "type": "code_interpreter_call", "container_id": "cntr_68f0"}
    s.add(0, code | {"status": "in_progress", "code": "", "outputs": None})
    where = {"output_index": 0, "item_id": "ci_68f0e201"}
    s.say("response.code_interpreter_call_code.delta", **where, delta="print(6*7)")
    s.say("response.code_interpreter_call_code.done", **where, code="print(6*7)")
    s.say("response.code_interpreter_call.completed", **where)
    logs = [{"type": "logs", "logs": "42\n"}]
    s.done(0, code | {"status": "completed", "code": "print(6*7)", "outputs": logs})
    image = {"id": "ig_68f0e202", "type": "image_generation_call"}
    s.add(1, image | {"status": "in_progress", "result": None})
    s.say("response.image_generation_call.completed", output_index=1, item_id="ig_68f0e202")
    drawn = {"status": "completed", "output_format": "png", "size": "1x1", "result": "iVBORw0KGgo="}
    s.done(1, image | drawn).message(2, "msg_68f0e203", "Drawn: 42.").end(usage=(150, 30), output=[])
    about = "Code interpreter outputs and an image, which arrive only in the done items; then a message."
    expect = reply("Drawn: 42.", s.answer, usage=(150, 30))
    yield Case("code-and-image", about, s.frames, expect, tools=("code_interpreter", "image_generation"))

    s = Responses("e3", named=False).created()
    tools = {"id": "mcpl_68f0e301", "type": "mcp_list_tools", "server_label": "docs"}
    s.add(0, tools | {"tools": []}).say(
        "response.mcp_list_tools.completed", item_id="mcpl_68f0e301", output_index=0
    )
    listed = [{"name": "find", "input_schema": {"type": "object"}}]
    s.done(0, tools | {"tools": listed})
    call = {"id": "mcp_68f0e302", "type": "mcp_call", "server_label": "docs", "name": "find"}
    where = {"item_id": "mcp_68f0e302", "output_index": 1}
    s.add(1, call | {"status": "in_progress", "arguments": "", "output": None, "error": None})
    s.say("response.mcp_call_arguments.delta", **where, delta='{"q":"sse"}')
    s.say("response.mcp_call_arguments.done", **where, arguments='{"q":"sse"}')
    s.say("response.mcp_call.completed", **where)
    s.done(1, call | {"status": "completed", "arguments": '{"q":"sse"}', "output": "9.2.6", "error": None})
    s.message(2, "msg_68f0e303", "See 9.2.6.").end(usage=(210, 26), output=[])
    about = (
        "An MCP call that the provider ran itself: its arguments are streamed, yet the caller has no call."
    )
    yield Case("mcp-call", about, s.frames, reply("See 9.2.6.", s.answer, usage=(210, 26)), tools=("mcp",))


# ---------------------------------------------------------------------------------------------- Chat


class Chat:
    """Writes a chat completions stream in one server's manner: `top` goes into every chunk."""

    def __init__(self, chat_id: str, model: str, *, eol: str = "\n", plain: bool = False, **top: Any) -> None:
        self.answer = chat_id, model
        self.eol, self.plain, self.top = eol, plain, top
        self.frames: list[Frame] = []

    def chunk(self, choices: Sequence[JSON], **more: Any) -> Self:
        head = {
            "id": self.answer[0],
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": self.answer[1],
        }
        says = head | self.top | {"choices": list(choices)} | more
        self.frames.append(frame(says, eol=self.eol))
        return self

    def choice(self, delta: JSON, finish: str | None = None, index: int = 0, **more: Any) -> JSON:
        head: JSON = {"index": index, "delta": delta}
        return head | ({} if self.plain else {"logprobs": None}) | {"finish_reason": finish} | more

    def delta(self, *deltas: JSON, index: int = 0, **more: Any) -> Self:
        for one in deltas:
            self.chunk([self.choice(one, index=index)], **more)
        return self

    def role(self, **delta: Any) -> Self:
        return self.delta({"role": "assistant", "content": ""} | delta)

    def text(self, *pieces: str, index: int = 0) -> Self:
        return self.delta(*({"content": piece} for piece in pieces), index=index)

    def finish(self, reason: str = "stop", *, index: int = 0, **more: Any) -> Self:
        return self.chunk([self.choice({}, reason, index)], **more)

    def usage(self, prompt: int, completion: int) -> Self:
        return self.chunk([], usage=tokens(prompt, completion))

    def say(self, says: Any) -> Self:
        self.frames.append(frame(says, eol=self.eol))
        return self

    def done(self) -> Self:
        return self.say("[DONE]")

    def raw(self, text: str) -> Self:
        self.frames.append(quiet(text))
        return self


def tokens(prompt: int, completion: int) -> JSON:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def fragment(arguments: str, *, index: int | None = 0, call_id: str = "", name: str = "") -> JSON:
    """A piece of a tool call; the first one has the id and the name."""
    head: JSON = {} if index is None else {"index": index}
    known = {"id": call_id, "type": "function"} if call_id else {}
    function = ({"name": name} if name else {}) | {"arguments": arguments}
    return {"tool_calls": [head | known | {"function": function}]}


def openai(tag: str, **top: Any) -> Chat:
    return Chat(f"chatcmpl-Cx{tag}", "gpt-5.4-mini", system_fingerprint="fp_57db37749c", **top)


def chat_texts() -> Iterator[Case]:
    s = openai("a1", service_tier="default", usage=None)
    s.role(refusal=None).delta({"content": "Streams"}, obfuscation="x7Qm").delta(
        {"content": " that"}, obfuscation=""
    )
    s.delta({"content": " finish."}, obfuscation="Zk1").finish(obfuscation="pW9rT2").usage(11, 5).done()
    about = "Plain text: role chunk, padded deltas, finish, a chunk with only the usage, [DONE]."
    yield Case("plain-text", about, s.frames, reply("Streams that finish.", s.answer, usage=(11, 5)))

    s = openai("a2").role().text("No marker", " needed", ".").finish(usage=tokens(8, 4))
    about = "A server that sends no [DONE]; the usage is on the finish chunk."
    yield Case("no-done", about, s.frames, reply("No marker needed.", s.answer, usage=(8, 4)))

    s = Chat("chatcmpl-oc31", "gpt-5.6-luna").role().text("It", " is", " all", " here.").done()
    about = "A gateway that never gives a finish reason but does send [DONE]."
    yield Case("no-finish-reason", about, s.frames, reply("It is all here.", s.answer, finish_reason=None))

    s = openai("a4", usage=None).role(refusal=None).text(*UNICODE).finish().usage(9, 61).done()
    about = "Hard text as raw UTF-8, with graphemes split over chunks."
    yield Case("unicode", about, s.frames, reply("".join(UNICODE), s.answer, usage=(9, 61)))

    s = openai("a5").role().text("One, two,", " three, fo").finish("length").usage(10, 8).done()
    expect = {"status": "incomplete", "finish_reason": "length", "usage": (10, 8)}
    about = "Cut by the output cap."
    yield Case("length", about, s.frames, reply("One, two, three, fo", s.answer, **expect))

    s = openai("a6").role(content=None, refusal="").delta({"refusal": "I'm sorry, "}, {"refusal": "I can't."})
    s.finish().usage(14, 7).done()
    expect = {"status": "refused", "refusal": "I'm sorry, I can't.", "usage": (14, 7)}
    yield Case("refusal", "Refusal deltas and nothing else.", s.frames, reply("", s.answer, **expect))

    s = openai("a7").role().text("First", " you").finish("content_filter").done()
    expect = {"status": "refused", "finish_reason": "content_filter"}
    about = "Stopped by the content filter after some text."
    yield Case("content-filter", about, s.frames, reply("First you", s.answer, **expect))

    s = openai("a8").role().text("Pa").text("Ly", index=1).text("ris", index=0).text("on", index=1)
    s.finish(index=0).finish(index=1).usage(8, 6).done()
    expect = reply("Paris", s.answer, usage=(8, 6), texts=["Paris", "Lyon"])
    about = "Two choices, interleaved; the answer is over when both have finished."
    yield Case("two-choices", about, s.frames, expect, choices=2)

    s = openai("a9").text(HUGE).finish().done()
    about = "One delta of 8 kB in characters of one to four bytes."
    yield Case("huge-delta", about, s.frames, reply(HUGE, s.answer))


def chat_calls() -> Iterator[Case]:
    paris, oslo = (
        ("call_e1", "get_weather", '{"city":"Paris"}'),
        ("call_e2", "get_time", '{"tz":"Europe/Oslo"}'),
    )
    s = openai("b1").role(content=None)
    s.delta(fragment("", call_id=paris[0], name=paris[1]), fragment('{"ci'), fragment('ty":"Paris"}'))
    s.delta(fragment("", index=1, call_id=oslo[0], name=oslo[1]), fragment('{"tz":"Eur', index=1))
    s.delta(fragment('ope/Oslo"}', index=1)).finish("tool_calls").usage(80, 40).done()
    expect = reply("", s.answer, calls=(paris, oslo), usage=(80, 40))
    about = "Two tool calls in fragments, told apart by index."
    yield Case("parallel-tools", about, s.frames, expect, tools=("get_weather", "get_time"))

    call = ("call_m1", "get_weather", '{"city":"Rome"}')
    s = Chat("cmpl-71f0", "glm-4.6", plain=True).role()
    s.delta(
        *(fragment(part, index=None, call_id=call[0], name=call[1]) for part in ("", '{"city":', '"Rome"}'))
    )
    s.finish("tool_calls", usage=tokens(70, 12)).done()
    expect = reply("", s.answer, calls=(call,), usage=(70, 12))
    about = "Fragments without an index that repeat the call's id and name each time: one call."
    yield Case("missing-index", about, s.frames, expect, tools=("get_weather",))

    s = Chat("w81yaKq", "gemini-3.5-flash", plain=True)
    s.delta({"role": "assistant"} | fragment(paris[2], call_id=paris[0], name=paris[1]))
    s.delta({"role": "assistant"} | fragment(oslo[2], call_id=oslo[0], name=oslo[1]))
    s.finish("tool_calls", usage=tokens(64, 21)).done()
    expect = reply("", s.answer, calls=(paris, oslo), usage=(64, 21))
    about = "Two whole calls that both claim index 0; a new id is a new call."
    yield Case("same-index", about, s.frames, expect, tools=("get_weather", "get_time"))

    call = ("call_w1", "get_weather", '{"city":"Lima"}')
    s = Chat("chatcmpl-9f1c", "mistral-small", plain=True).role().text("Check", "ing.")
    whole = fragment(call[2], call_id=call[0], name=call[1]) | {"content": ""}
    s.chunk([s.choice(whole, "tool_calls")], usage=tokens(50, 14)).done()
    expect = reply("Checking.", s.answer, calls=(call,), usage=(50, 14))
    about = "Text, then a whole tool call in the chunk that also has the finish reason and the usage."
    yield Case("whole-call", about, s.frames, expect, tools=("get_weather",))


def chat_servers() -> Iterator[Case]:
    s = Chat("5f2e9c1a", "deepseek-reasoner", system_fingerprint="fp_ffc7281d48").raw(": keep-alive\n\n")
    s.delta({"role": "assistant", "content": None, "reasoning_content": ""})
    s.delta(
        {"content": None, "reasoning_content": "Two and"}, {"content": None, "reasoning_content": " two."}
    )
    s.delta({"content": "Four", "reasoning_content": None}, {"content": ".", "reasoning_content": None})
    s.finish(usage=tokens(9, 12)).done()
    about = (
        "DeepSeek: reasoning_content first, then content, nulls for the other one, usage on the finish chunk."
    )
    expect = reply("Four.", s.answer, reasoning="Two and two.", usage=(9, 12))
    yield Case("reasoning-content", about, s.frames, expect)

    s = Chat("chatcmpl-7b6e", "openai/gpt-oss-20b", system_fingerprint="fp_3d587a02fb")
    s.delta({"role": "assistant", "content": ""}, x_groq={"id": "req_01k8"})
    s.delta({"channel": "analysis", "reasoning": "Greet"}, {"channel": "analysis", "reasoning": " back."})
    s.text("Hel", "lo!").finish(
        x_groq={"id": "req_01k8", "usage": {"queue_time": 0.04} | tokens(72, 15)}
    ).done()
    about = "Groq: the reasoning is in `reasoning`, the usage in `x_groq`."
    expect = reply("Hello!", s.answer, reasoning="Greet back.", usage=(72, 15))
    yield Case("reasoning-field", about, s.frames, expect)

    s = Chat("chatcmpl-nTzK", "qwen3-0.6b", plain=True, system_fingerprint="b9478-1d0125b").raw(":\n\n")
    s.role(content=None).text("Lo", "cal", ".").finish()
    s.chunk([], usage=tokens(14, 4), timings={"prompt_n": 14, "predicted_n": 4, "predicted_ms": 31.9})
    s.raw("data: [DONE]\n")
    about = "llama.cpp: bare comments, timings, and a [DONE] whose blank line never comes."
    yield Case("llama-cpp", about, s.frames, reply("Local.", s.answer, usage=(14, 4)))

    s = Chat("gen-1790000000-Qm", "z-ai/glm-4.6", eol="\r\n", provider="Parasail")
    s.raw(": OPENROUTER PROCESSING\r\n\r\n").raw(": OPENROUTER PROCESSING\r\n\r\n")
    thought = {"type": "reasoning.text", "text": "Easy.", "format": "unknown", "index": 0}
    s.delta({"role": "assistant", "content": "", "reasoning": "Easy.", "reasoning_details": [thought]})
    s.delta({"role": "assistant", "content": "Yes"}, {"role": "assistant", "content": "."})
    last: JSON = {"role": "assistant", "content": ""}
    s.chunk([s.choice(last, "stop", native_finish_reason="stop")]).raw(": OPENROUTER PROCESSING\r\n\r\n")
    s.chunk([s.choice(last, native_finish_reason=None)], usage=tokens(10, 6) | {"cost": 1.2e-05}).done()
    about = (
        "OpenRouter: comments, CRLF, reasoning said twice in a chunk, a null finish reason with the usage."
    )
    yield Case("openrouter", about, s.frames, reply("Yes.", s.answer, reasoning="Easy.", usage=(10, 6)))

    s = openai("c5").role().text("Order", " marks.").finish().usage(6, 3).done()
    s.frames.insert(0, quiet("\ufeff"))
    about = "A byte order mark before the first data line."
    yield Case("bom", about, s.frames, reply("Order marks.", s.answer, usage=(6, 3)))

    yield azure()
    yield odd_framing()


def azure() -> Case:
    safe = {
        "hate": {"filtered": False, "severity": "safe"},
        "violence": {"filtered": False, "severity": "safe"},
    }
    s = Chat("chatcmpl-Az19", "gpt-4o-2024-11-20", system_fingerprint="fp_ee1d74bde0")
    nobody = {"id": "", "object": "", "created": 0, "model": ""}
    s.say(
        nobody
        | {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": safe}], "choices": []}
    )
    s.role(refusal=None).chunk([s.choice({"content": "Fine"}, content_filter_results=safe)]).text(" words.")
    offsets = {"check_offset": 44, "start_offset": 44, "end_offset": 55}
    late = {
        "index": 0,
        "finish_reason": None,
        "content_filter_results": safe,
        "content_filter_offsets": offsets,
    }
    s.say(nobody | {"choices": [late], "usage": None})
    s.finish().usage(12, 3).done()
    about = "Azure: filter results first, with an empty id and model, and once in a choice that has no delta."
    return Case("azure", about, s.frames, reply("Fine words.", s.answer, usage=(12, 3)))


def odd_framing() -> Case:
    """Lone CRs, ids, retry, several data lines, no space after the colon: all legal, rarely seen together."""
    plain = (
        Chat("chatcmpl-Odd1", "granite-4", plain=True)
        .role()
        .text("Still", " SSE.")
        .finish(usage=tokens(5, 3))
    )
    frames = [quiet("retry: 3000\r\r")]
    for number, one in enumerate(plain.frames):
        lines = compact(one.says).replace(',"choices"', '\rdata: ,"choices"').split("\r", 1)
        frames.append(
            wire_frame(f"id: {number}\revent: message\rdata:{lines[0]}\r{lines[1]}\r\r", one.says, "\r")
        )
        frames.append(quiet(": ping\r\r"))
    frames.append(frame("[DONE]", eol="\r"))
    about = "Legal but unusual framing: lone CR line ends, id and retry fields, one event in two data lines."
    return Case("odd-framing", about, frames, reply("Still SSE.", plain.answer, usage=(5, 3)))


# ---------------------------------------------------------------------------------------------- Messages


class Messages:
    """Writes a Messages stream: one method per thing that happens. Blocks are numbered as they begin."""

    def __init__(self, tag: str, *, model: str = "claude-sonnet-4-5", **style: Any) -> None:
        self.answer = f"msg_01{tag}", model
        self.named: bool = style.get("named", True)
        self.eol: str = style.get("eol", "\n")
        self.frames: list[Frame] = []
        self.at = -1

    def say(self, kind: str, **fields: Any) -> Self:
        says: JSON = {"type": kind} | fields
        self.frames.append(frame(says, event=kind if self.named else "", eol=self.eol))
        return self

    def raw(self, text: str) -> Self:
        self.frames.append(quiet(text))
        return self

    def ping(self) -> Self:
        return self.say("ping")

    def start(self, read: int = 0, **usage: Any) -> Self:
        counts: JSON = {"input_tokens": read, "output_tokens": 1, "service_tier": "standard"} | usage
        head = {"id": self.answer[0], "type": "message", "role": "assistant", "model": self.answer[1]}
        rest: JSON = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": counts}
        return self.say("message_start", message=head | rest)

    def open(self, kind: str, **fields: Any) -> Self:
        self.at += 1
        return self.say("content_block_start", index=self.at, content_block={"type": kind} | fields)

    def delta(self, kind: str, field: str, *pieces: Any, at: int | None = None) -> Self:
        for piece in pieces:
            index = self.at if at is None else at
            self.say("content_block_delta", index=index, delta={"type": kind, field: piece})
        return self

    def shut(self, at: int | None = None) -> Self:
        return self.say("content_block_stop", index=self.at if at is None else at)

    def words(self, *pieces: str) -> Self:
        """A text block that stays open."""
        return self.open("text", text="").delta("text_delta", "text", *pieces)

    def text(self, *pieces: str) -> Self:
        return self.words(*pieces).shut()

    def thoughts(self, *pieces: str) -> Self:
        """A thinking block that stays open."""
        return self.open("thinking", thinking="", signature="").delta("thinking_delta", "thinking", *pieces)

    def signed(self, *signatures: str) -> Self:
        return self.delta("signature_delta", "signature", *signatures).shut()

    def begun(self, call_id: str, name: str, *pieces: str) -> Self:
        """A tool's block that stays open."""
        self.open("tool_use", id=call_id, name=name, input={})
        return self.delta("input_json_delta", "partial_json", "", *pieces)

    def call(self, call_id: str, name: str, *pieces: str) -> Self:
        return self.begun(call_id, name, *pieces).shut()

    def stop(self, reason: str | None, written: int, *, usage: JSON | None = None, **delta: Any) -> Self:
        said: JSON = {"stop_reason": reason, "stop_sequence": None} | delta
        return self.say("message_delta", delta=said, usage={"output_tokens": written} | (usage or {}))

    def end(self, reason: str = "end_turn", written: int = 0, **delta: Any) -> Self:
        return self.stop(reason, written, **delta).say("message_stop")


def messages_marks(case: Case) -> JSON:
    opened: set[int] = set()
    ended, usage_end, stopped = None, None, False
    for at, event in timeline(case.frames):
        if event["type"] == "content_block_start":
            opened.add(event["index"])
        elif event["type"] == "content_block_stop":
            opened.discard(event["index"])
        elif event["type"] == "message_delta":
            stopped = stopped or bool(event["delta"]["stop_reason"])
            usage_end = at
        if stopped and not opened:
            ended = ended or at
    return {"end": ended, "usage_end": usage_end, "settle": None}


def messages_texts() -> Iterator[Case]:
    s = Messages("a1").start(4, cache_read_input_tokens=7, cache_creation_input_tokens=2)
    s.open("text", text="").ping().delta("text_delta", "text", "Streams", " that finish", ".").shut()
    about = "Plain text behind a partly cached prompt, whose parts add up."
    expect = reply("Streams that finish.", s.end(written=6).answer, usage=(13, 6))
    yield Case("plain-text", about, s.frames, expect)

    s = Messages("a2").start(9).text(*UNICODE).end(written=61)
    about = "Hard text as raw UTF-8, with graphemes split over deltas, U+2028 and U+0085."
    yield Case("unicode", about, s.frames, reply("".join(UNICODE), s.answer, usage=(9, 61)))

    s = Messages("a3").start(5).open("text", text="One,").delta("text_delta", "text", " two").shut()
    s.text(", ", "three").text(".").end(written=7)
    about = "Several text blocks are one text; the first begins with words of its own."
    yield Case("text-blocks", about, s.frames, reply("One, two, three.", s.answer, usage=(5, 7)))

    s = Messages("a4", named=False).ping().start(5).ping().open("text", text="").ping()
    s.delta("text_delta", "text", "Still ").raw(": keep-alive\n\n").ping()
    s.delta("text_delta", "text", "here.").shut().ping().stop("end_turn", 3).ping().say("message_stop")
    about = "Pings and a comment everywhere, and no event lines: the data says what it is."
    yield Case("pings", about, s.frames, reply("Still here.", s.answer, usage=(5, 3)))

    s = Messages("a5", eol="\r\n").start(5).text("A", "B").end(written=2)
    about = "Lines end with CR LF."
    yield Case("crlf", about, s.frames, reply("AB", s.answer, usage=(5, 2)))

    s = Messages("a6").text("A", "B").stop("end_turn", 2, usage={"input_tokens": 5})
    about = "A gateway without message_start."
    s.say("message_stop")
    yield Case("no-start", about, s.frames, reply("AB", (None, None), usage=(5, 2)))


def messages_ends() -> Iterator[Case]:
    s = Messages("b1").start(10).text("One, two, ", "three, fo").end("max_tokens", 8)
    expect = {"status": "incomplete", "finish_reason": "length", "usage": (10, 8)}
    about = "Cut by the output limit, which stops the block like any other end."
    yield Case("max-tokens", about, s.frames, reply("One, two, three, fo", s.answer, **expect))

    s = Messages("b2").start(10).text("And so").end("model_context_window_exceeded", 3)
    expect = {"status": "incomplete", "finish_reason": "length", "usage": (10, 3)}
    about = "Cut because the context window is full."
    yield Case("context-window", about, s.frames, reply("And so", s.answer, **expect))

    s = Messages("b3").start(6).text("Alpha").end("stop_sequence", 2, stop_sequence="Beta")
    about = "Ended by a stop sequence."
    yield Case("stop-sequence", about, s.frames, reply("Alpha", s.answer, usage=(6, 2)))

    s = Messages("b4").start(5).text("OK").stop("end_turn", 1)
    about = "No message_stop: the stop reason, with every block stopped, is enough."
    yield Case("no-message-stop", about, s.frames, reply("OK", s.answer, usage=(5, 1)))

    s = Messages("b5").start(5).stop(None, 2).text("Let us ", "see.").stop(None, 4)
    s.stop("end_turn", 5, usage={"input_tokens": 8}).say("message_stop")
    about = "Several message_delta: only the last has a stop reason, and its figures replace the others."
    yield Case("several-deltas", about, s.frames, reply("Let us see.", s.answer, usage=(8, 5)))

    s = Messages("b6").start(12).text("First you")
    s.end("refusal", 3, stop_details={"type": "refusal", "category": "bio", "explanation": "Not this one."})
    expect = {"status": "refused", "finish_reason": "refusal", "usage": (12, 3)}
    about = "The model declines after some text, and says why."
    yield Case("refusal", about, s.frames, reply("First you", s.answer, **expect))

    s = Messages("b7").start(30).text("Let me search.")
    s.open("server_tool_use", id="srvtoolu_b7", name="web_search", input={})
    s.delta("input_json_delta", "partial_json", '{"query":', '"sse"}').shut().end("pause_turn", 20)
    expect = {"status": "incomplete", "finish_reason": "pause_turn", "usage": (30, 20)}
    about = "A long turn pauses while a hosted tool is at work."
    case = reply("Let me search.", s.answer, **expect)
    yield Case("pause-turn", about, s.frames, case, tools=("web_search",))


def messages_thinking() -> Iterator[Case]:
    s = Messages("c1").start(20).thoughts("User greets; ", "greet back.").signed("EqQBCgIYAh").text("Hello!")
    about = "Thinking with its signature, then the answer."
    expect = {"reasoning": "User greets; greet back.", "usage": (20, 15)}
    yield Case("thinking", about, s.end(written=15).frames, reply("Hello!", s.answer, **expect))

    s = (
        Messages("c2", model="claude-opus-4-7")
        .start(20)
        .thoughts()
        .signed("old", "EqQBCgIYAw")
        .text("4", "2")
    )
    about = "Thinking that is not shown: nothing but a signature, of which the last one counts."
    yield Case("thinking-omitted", about, s.end(written=30).frames, reply("42", s.answer, usage=(20, 30)))

    s = Messages("c3").start(20).open("redacted_thinking", data="EmwKAhgBEgy3va3pzix").shut()
    s.thoughts("Now the rest.").signed("EqQBCgIYBA").text("Done.").end(written=25)
    about = "A sealed thinking block before a readable one."
    expect = {"reasoning": "Now the rest.", "usage": (20, 25)}
    yield Case("redacted-thinking", about, s.frames, reply("Done.", s.answer, **expect))


def messages_calls() -> Iterator[Case]:
    paris, oslo = (
        ("toolu_01a", "get_weather", '{"city":"Paris"}'),
        ("toolu_01b", "get_time", '{"tz":"Europe/Oslo"}'),
    )
    s = Messages("d1").start(80).call(*paris[:2], '{"city":', '"Par', 'is"}').end("tool_use", 30)
    expect = reply("", s.answer, calls=(paris,), usage=(80, 30))
    yield Case("tool-use", "One call.", s.frames, expect, tools=("get_weather",))

    s = Messages("d2").start(80).text("I'll look.").call(*paris[:2], '{"city":"Paris"}')
    s.call(*oslo[:2], '{"tz":"Euro', 'pe/Oslo"}').end("tool_use", 60)
    expect = reply("I'll look.", s.answer, calls=(paris, oslo), usage=(80, 60))
    about = "Text, then two calls."
    yield Case("parallel-tools", about, s.frames, expect, tools=("get_weather", "get_time"))

    s = Messages("d3").start(40).thoughts("A look.").signed("EqQBCgIYBQ").text("Listing.")
    s.call("toolu_01c", "list_files").end("tool_use", 20)
    expect = reply("Listing.", s.answer, calls=(("toolu_01c", "list_files", "{}"),), usage=(40, 20))
    about = "Thinking, text, and a call without input: that is an empty object."
    case = expect | {"reasoning": "A look."}
    yield Case("empty-input", about, s.frames, case, tools=("list_files",))

    s = Messages("d4").start(40).open("tool_use", id=paris[0], name=paris[1], input={"city": "Paris"}).shut()
    about = "A gateway that sends the whole input where the block begins."
    expect = reply("", s.end("tool_use", 20).answer, calls=(paris,), usage=(40, 20))
    yield Case("whole-input", about, s.frames, expect, tools=("get_weather",))

    s = Messages("d5").start(40).call(*paris[:2], '{"city":"Paris"}').call(*oslo[:2], '{"tz":"Eu')
    expect = reply("", s.end("max_tokens", 24).answer, calls=(paris,), usage=(40, 24))
    expect |= {"status": "incomplete", "finish_reason": "length"}
    about = "The output limit cuts the second call in two: only the first is one."
    yield Case("max-tokens-call", about, s.frames, expect, tools=("get_weather", "get_time"))

    s = Messages("d6").start(40).text("I'll list.").call("toolu_01d", "list_files").end("max_tokens", 12)
    expect = reply("I'll list.", s.answer, usage=(40, 12), status="incomplete", finish_reason="length")
    about = "The output limit cuts a call before its first argument: nobody knows that it has none."
    yield Case("max-tokens-empty-call", about, s.frames, expect, tools=("list_files",))


def messages_hosted() -> Iterator[Case]:
    s = Messages("e1").start(300).text("I'll search.")
    s.open("server_tool_use", id="srvtoolu_e1", name="web_search", input={})
    s.delta("input_json_delta", "partial_json", "", '{"query":"tallest', ' tower"}').shut()
    found = {"type": "web_search_result", "url": "https://ex.org/t", "title": "Tower", "page_age": None}
    result = [found | {"encrypted_content": "EqgfCioI"}]
    s.open("web_search_tool_result", tool_use_id="srvtoolu_e1", content=result).shut().text("It is ")
    cite = {"type": "web_search_result_location", "url": "https://ex.org/t", "title": "Tower"}
    s.open("text", text="", citations=[]).delta("text_delta", "text", "828 m")
    s.delta("citations_delta", "citation", cite | {"encrypted_index": "Eo8B", "cited_text": "828 m tall"})
    s.shut().text(" high.").end(written=80)
    about = "A hosted web search, then an answer whose middle block is cited."
    expect = reply("I'll search.It is 828 m high.", s.answer, usage=(300, 80))
    yield Case("web-search", about, s.frames, expect, tools=("web_search",))

    s = (
        Messages("e2")
        .start(20)
        .text("Well, ")
        .open(
            "fallback",
            **{"from": {"model": "claude-opus-5"}, "to": {"model": "claude-sonnet-4-6"}},
            trigger={"type": "refusal", "category": "cyber"},
        )
    )
    s.shut().text("here it is.").end(written=9)
    about = "Another model takes over in the middle: what it says belongs to the answer."
    yield Case("fallback", about, s.frames, reply("Well, here it is.", s.answer, usage=(20, 9)))

    s = Messages("e3").say("weather_report", sky="clear").start(20).open("hologram", shape="cube")
    s.delta("hologram_delta", "voxels", [1, 2]).delta("text_delta", "text", "not text").shut()
    s.words("So").delta("shimmer_delta", "glow", 3).delta("text_delta", "text", " it is.").shut()
    s.say("message_hint", hint="x").end("enlightenment", 6)
    about = "Events, deltas, a block and a stop reason that nobody knows."
    expect = reply("So it is.", s.answer, usage=(20, 6), finish_reason="enlightenment")
    yield Case("unknown-things", about, s.frames, expect)


# ---------------------------------------------------------------------------------------------- broken


def broken_responses() -> Iterator[Broken]:
    s = Responses("f1").created(also_in_progress=True)
    why = "Nothing but the lifecycle was said."
    about = "A clean end after response.in_progress."
    yield Broken("responses-created-only", about, why, s.frames, "dropped")

    s = partial("f2", "The first", " half", " of a", " summ", "ary")
    why = "The socket ended cleanly, the answer did not."
    text = "The first half of a summary"
    yield Broken("responses-clean-end", "A clean end after five deltas.", why, s.frames, "dropped", text=text)

    s = Responses("f3").created().add(0, {"id": "rs_68f0f301", "type": "reasoning", "summary": []})
    s.summary(0, "rs_68f0f301", 0, "Thinking", " about it")
    why = "Reasoning is not an answer and no terminal event came."
    yield Broken("responses-reasoning-only", "Ollama: a clean end after reasoning.", why, s.frames, "dropped")

    s = partial("f4", "Almost", " done").end(usage=(9, 3), output=[])
    why = "The terminal event lacks its blank line and half its JSON: no event was dispatched."
    about = "The bytes stop inside response.completed."
    yield Broken("responses-truncated-json", about, why, cut(s.frames, 60), "dropped", text="Almost done")

    s = Responses("f5").created().open_call(0, "fc_68f0f501", "call_f5", "get_weather")
    s.arguments(0, "fc_68f0f501", '{"city":', '"Pa')
    why = "Half a call must never reach a caller."
    about = "A clean end inside the arguments of a call."
    yield Broken("responses-half-call", about, why, s.frames, "dropped", tools=("get_weather",))

    s = Responses("f6").created().open_call(0, "fc_68f0f601", "call_f6", "get_weather")
    s.end(usage=(40, 6), output=[])
    why = "No arguments came at all, not even empty ones, and the tool requires some."
    about = "A call is announced, then the response is completed."
    name, tools = "responses-call-no-arguments", ("get_weather",)
    yield Broken(name, about, why, s.frames, "garbled", tools=tools, required_args=tools)


def broken_responses_failed() -> Iterator[Broken]:
    failures = {
        "server_error": ("server", "The server had an error while processing your request."),
        "rate_limit_exceeded": ("throttled", "Rate limit reached for gpt-5.6. Please try again in 1.898s."),
        "context_length_exceeded": ("context_length", "Your input exceeds the context window of this model."),
        "insufficient_quota": ("quota", "You exceeded your current quota, please check your plan."),
        "server_is_overloaded": ("overloaded", "Our servers are currently overloaded."),
        "cyber_policy": ("refused", "This request was flagged by our usage policies."),
        "invalid_prompt": ("bad_request", "The prompt could not be processed."),
    }
    for number, (code, (fault, message)) in enumerate(failures.items()):
        pieces = ("So", " far") if number % 2 else ()
        s = partial(f"g{number}", *pieces).fails(code, message)
        name = f"responses-failed-{code.replace('_', '-')}"
        about = f"response.failed with {code}, {'after' if pieces else 'before'} any text."
        why = "The provider says that it failed."
        yield Broken(name, about, why, s.frames, fault, code, "".join(pieces))

    s = partial("h1", "So", " far")
    message = "Our servers are currently overloaded. Please try again later."
    s.say("error", code="server_is_overloaded", message=message, param=None)
    why = "An error event ends the response whatever came before."
    about = "A top-level error event in the schema's flat form."
    yield Broken("responses-error-flat", about, why, s.frames, "overloaded", "server_is_overloaded", FAR)

    s = partial("h2", "So", " far")
    error = {"type": "rate_limit_error", "code": "rate_limit_exceeded", "message": "Try again in 2s."}
    s.say("error", error=error | {"param": None})
    about = "A top-level error event with its fields nested under error."
    yield Broken("responses-error-nested", about, why, s.frames, "throttled", "rate_limit_exceeded", FAR)

    s = Responses("h3", model="gpt-5.6-codex", named=False).created()
    error = {"type": "usage_limit_reached", "message": "The usage limit has been reached"}
    when = {"plan_type": "plus", "resets_at": CREATED + 3600, "resets_in_seconds": 3600}
    s.frames.append(frame({"type": "error", "error": error | when, "status_code": 429}))
    about = "The Codex backend's usage limit: told by type, without a code."
    yield Broken("responses-error-usage-limit", about, why, s.frames, "quota", "usage_limit_reached")


def partial(tag: str, *pieces: str) -> Responses:
    """A stream that has come as far as these pieces of text."""
    s = Responses(tag).created()
    return s.open_message(0, f"msg_68f0{tag}01").text(0, f"msg_68f0{tag}01", *pieces) if pieces else s


def so_far(tag: str) -> Chat:
    return openai(tag).role().text("So", " far")


def broken_chat() -> Iterator[Broken]:
    why = "Neither a finish reason nor [DONE] came."
    yield Broken("chat-clean-end", "A clean end after text.", why, so_far("f1").frames, "dropped", text=FAR)

    s = openai("f2").role().done()
    why = "A marker without any output: a server whose error was swallowed."
    yield Broken("chat-done-empty", "[DONE] right after the role chunk.", why, s.frames, "empty")

    s = openai("f3").text("Pa").text("Ly", index=1).finish(index=0)
    why = "Every choice that was seen must finish."
    about = "A clean end when one of two choices has finished."
    yield Broken("chat-one-of-two", about, why, s.frames, "dropped", text="Pa", choices=2)

    s = so_far("f4").finish()
    why = "The finish reason lacks its blank line and half its JSON: no event was dispatched."
    about = "The bytes stop inside the finish chunk."
    yield Broken("chat-truncated-json", about, why, cut(s.frames, 20), "dropped", text=FAR)

    half = (fragment("", call_id="call_f5", name="get_weather"), fragment('{"city":'), fragment('"Pa'))
    s, tools = openai("f5").role(content=None).delta(*half), ("get_weather",)
    why = "Half a call must never reach a caller."
    about = "A clean end inside the arguments of a tool call."
    yield Broken("chat-half-call", about, why, s.frames, "dropped", tools=tools)

    s = openai("f6").role(content=None).delta(*half).done()
    why = "The marker says over, the call says not: [DONE] alone does not vouch for half an object."
    about = "[DONE] without a finish reason inside the arguments of a tool call."
    yield Broken("chat-half-call-done", about, why, s.frames, "garbled", tools=tools)

    head, title = "<head><title>502 Bad Gateway</title></head>", "<center><h1>502 Bad Gateway</h1></center>"
    page = f"<html>\r\n{head}\r\n<body>\r\n{title}\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    why = "Not a stream at all."
    yield Broken("chat-html", "A proxy's HTML page with status 200.", why, [quiet(page)], "garbled")

    error = {"message": "You exceeded your current quota.", "type": "insufficient_quota", "param": None}
    body = [quiet(compact({"error": error | {"code": "insufficient_quota"}}))]
    why = "A JSON error where a stream was promised."
    about = "An error body with status 200."
    yield Broken("chat-json-error", about, why, body, "quota", "insufficient_quota")


def broken_chat_errors() -> Iterator[Broken]:
    why = "The server says that it failed; what follows, even [DONE], does not heal it."

    def errs(name: str, about: str, s: Chat, fault: str, code: str = "") -> Broken:
        return Broken(f"chat-error-{name}", about, why, s.frames, fault, code, FAR)

    error: JSON = {"message": "The server had an error.", "type": "server_error", "param": None, "code": None}
    s = so_far("g1").say({"error": error})
    yield errs("openai", "OpenAI: an error object, no code.", s, "server", "server_error")

    error = {"message": "Incorrect API key.", "type": "invalid_request_error", "code": "invalid_api_key"}
    s = so_far("g2").say({"error": error}).done()
    yield errs("auth", "A gateway whose own key was refused upstream.", s, "auth", "invalid_api_key")

    upstream = ((502, "server", "Provider disconnected"), (429, "throttled", "Rate limited upstream"))
    for status, fault, message in upstream:
        s = Chat("gen-1790000000-Er", "z-ai/glm-4.6", provider="Parasail").raw(": OPENROUTER PROCESSING\n\n")
        last = s.text("So", " far").choice({"content": ""}, "error")
        s.chunk([last], error={"code": status, "message": message})
        about = f"OpenRouter: a whole chunk with error {status} and finish reason error."
        yield errs(f"openrouter-{status}", about, s, fault, str(status))

    error = {"message": "EngineCore failed.", "type": "InternalServerError", "param": None, "code": 500}
    s = so_far("g5").say({"error": error}).done()
    yield errs("vllm", "vLLM, newer: an error object, then [DONE].", s, "server", "500")
    s = so_far("g6").say({"object": "error"} | error).done()
    yield errs("vllm-old", "vLLM, older: the error is the whole object, then [DONE].", s, "server", "500")

    error = {"object": "error", "message": "Unsupported sampling parameter: top_k", "code": 400}
    s = so_far("g7").say({"error": error})
    yield errs("sglang", "SGLang: an error object inside error.", s, "bad_request", "400")

    error = {"code": 500, "message": "Failed to decode the batch", "type": "server_error"}
    s = so_far("g8").say({"error": error}).raw("data: [DONE]\n")
    about = "llama.cpp: an error object, then [DONE] without its blank line."
    yield errs("llama-cpp", about, s, "server", "500")
    s = so_far("g9").raw(f"error: {compact(error)}\n\n").done()
    yield errs("llama-cpp-old", "llama.cpp until 2025: an `error:` field, then [DONE].", s, "server", "500")
    error = {"code": 400, "message": "the request exceeds the available context size"}
    kind = {"type": "exceed_context_size_error", "n_prompt_tokens": 9001, "n_ctx": 8192}
    s = so_far("h0").say({"error": error | kind})
    yield errs("llama-cpp-context", "llama.cpp: the context ran full.", s, "context_length", "400")

    s = so_far("h1").finish("stop", x_groq={"id": "req_01k9", "error": "Generation failed: internal error"})
    yield errs("groq", "Groq: a finish reason of stop, and x_groq.error.", s.done(), "server")

    s = so_far("h2").finish("insufficient_system_resource").done()
    about = "DeepSeek: cut for want of capacity, told by the finish reason."
    yield errs("deepseek", about, s, "overloaded", "insufficient_system_resource")

    code = "Throttling.AllocationQuota"
    flat = compact({"code": code, "message": "Allocated quota exceeded.", "request_id": "9d1c"})
    s = so_far("h3").raw(f"id:1\nevent:error\n:HTTP_STATUS/429\ndata:{flat}\n\n").finish("error_finish")
    about = "DashScope: a flat error event and a status in a comment."
    yield errs("throttling", about, s, "throttled", code)


def broken_messages() -> Iterator[Broken]:
    why = "Neither a stop reason nor message_stop came."
    s = Messages("f1").start(9).words("So", " far")
    yield Broken("messages-cut-text", "A clean end inside a text block.", why, s.frames, "dropped", text=FAR)

    s = Messages("f2").start(9).text("So", " far")
    why = "A block that stopped may have been cut by the limit: only the stop reason tells."
    about = "A clean end after the block, before the stop reason."
    yield Broken("messages-clean-end", about, why, s.frames, "dropped", text=FAR)

    s = Messages("f3").start(9).text("So", " far").stop("end_turn", 2)
    why = "The stop reason lacks its blank line and half its JSON: no event was dispatched."
    about = "The bytes stop inside message_delta."
    yield Broken("messages-truncated-json", about, why, cut(s.frames, 20), "dropped", text=FAR)

    s = Messages("f4").start(9).words("So", " far").stop("end_turn", 2)
    why = "A stop reason counts only when every block has stopped."
    about = "A stop reason beside an open block, then a clean end."
    yield Broken("messages-open-block", about, why, s.frames, "dropped", text=FAR)

    s = Messages("f5").start(9).thoughts("Thinking", " about it")
    why = "Thinking is no answer, and half of it has no signature."
    yield Broken("messages-cut-thinking", "A clean end inside thinking.", why, s.frames, "dropped")

    s, tools = Messages("f6").start(9).begun("toolu_01f", "get_weather", '{"city":', '"Pa'), ("get_weather",)
    why = "Half a call must never reach a caller."
    about = "A clean end inside the input of a tool."
    yield Broken("messages-half-call", about, why, s.frames, "dropped", tools=tools)

    s = Messages("f7").start(9).call("toolu_01f", "get_weather", '{"city":', '"Pa').end("tool_use", 9)
    why = "The message says that a tool is to be used, the call says not."
    about = "A whole message whose call has torn input."
    yield Broken("messages-torn-call", about, why, s.frames, "garbled", tools=tools)

    s = Messages("f8").start(9)
    yield Broken("messages-start-only", "A clean end after message_start.", "It began.", s.frames, "dropped")

    s = Messages("f9").start(9).say("message_stop")
    why = "A message without a word and without a reason."
    yield Broken("messages-stop-only", "message_stop right after the start.", why, s.frames, "empty")


def broken_messages_errors() -> Iterator[Broken]:
    why = "The provider says that it failed."
    rows: dict[str, tuple[str, str, JSON]] = {
        "overloaded": ("overloaded", "overloaded_error", {"message": "Overloaded"}),
        "api": ("server", "api_error", {"message": "Internal server error"}),
        "timeout": ("server", "timeout_error", {"message": "Request timed out"}),
        "rate-limit": ("throttled", "rate_limit_error", {"message": "This would exceed your rate limit."}),
        "too-long": (
            "context_length", "invalid_request_error", {"message": "prompt is too long: 9001 > 9000 maximum"},
        ),
    }  # fmt: skip
    for number, (name, (fault, kind, error)) in enumerate(rows.items()):
        s = Messages(f"g{number}").start(9).words("So", " far").say("error", error={"type": kind} | error)
        about = f"An error event with {kind}."
        yield Broken(f"messages-error-{name}", about, why, s.frames, fault, kind, FAR)

    code = "enforced_spend_limit_reached"
    error = {"type": "rate_limit_error", "message": "Limit reached.", "details": {"error_code": code}}
    s = Messages("h1").start(9).words("So", " far").say("error", error=error, request_id="req_011h1")
    about = "An error event whose details say that money is the matter, not the rate."
    yield Broken("messages-error-spend-limit", about, why, s.frames, "quota", code, FAR)

    s = Messages("h2").start(9).words("So", " far").raw("event: error\ndata: upstream gave up\n\n")
    about = "An error event that is no JSON."
    yield Broken("messages-error-text", about, why, s.frames, "server", "", FAR)


# ---------------------------------------------------------------------------------------------- files

GOOD = {
    "responses": (responses_texts, responses_ends, responses_items, responses_calls, responses_hosted_tools),
    "chat": (chat_texts, chat_calls, chat_servers),
    "messages": (messages_texts, messages_ends, messages_thinking, messages_calls, messages_hosted),
}
BAD = (
    broken_responses,
    broken_responses_failed,
    broken_chat,
    broken_chat_errors,
    broken_messages,
    broken_messages_errors,
)
MARKS = {"responses": responses_marks, "chat": chat_marks, "messages": messages_marks}


def good_verdict(wire: str, case: Case) -> JSON:
    verdict: JSON = {"wire": wire, "about": case.about}
    if case.choices != 1:
        verdict["choices"] = case.choices
    if case.tools:
        verdict["tools"] = case.tools
    return verdict | {"expect": case.expect} | MARKS[wire](case)


def broken_verdict(case: Broken) -> JSON:
    verdict: JSON = {"wire": case.name.split("-")[0], "about": case.about, "why": case.why}
    if case.choices != 1:
        verdict["choices"] = case.choices
    for key, value in (("tools", case.tools), ("required_args", case.required_args)):
        if value:
            verdict[key] = value
    return verdict | {"expect": {"fault": case.fault, "code": case.code}, "text": case.text}


def build() -> dict[str, bytes]:
    """Every file of the corpus: its path below this folder, and its bytes."""
    files: dict[str, bytes] = {}

    def add(path: str, frames: Iterable[Frame], verdict: JSON) -> None:
        files[f"{path}.sse"] = b"".join(one.raw for one in frames)
        files[f"{path}.json"] = (json.dumps(verdict, indent=2) + "\n").encode()

    for wire, groups in GOOD.items():
        for good in (case for group in groups for case in group()):
            add(f"{wire}/{good.name}", good.frames, good_verdict(wire, good))
    for bad in (case for group in BAD for case in group()):
        add(f"broken/{bad.name}", bad.frames, broken_verdict(bad))
    return files


def main() -> None:
    files = build()
    for stale in {*HERE.glob("*/*.sse"), *HERE.glob("*/*.json")} - {HERE / path for path in files}:
        stale.unlink()
    for path, content in files.items():
        target = HERE / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)


if __name__ == "__main__":
    main()
