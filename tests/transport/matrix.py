"""What the user of an SDK gets when a stream breaks: every call, every fault of the lab, bare and wrapped.

A cell is one call over one socket: the lab answers it, strikes once (or every time), and what reached the
program is compared with what should have. The same file runs under any interpreter that has the two SDKs and
sidestream; the newest are those of the test environment, the oldest have one of their own.

    python tests/transport/matrix.py            the marks, counted, as JSON
    python tests/transport/matrix.py --check    fails if a wrapped cell is not as promised
    python tests/transport/matrix.py --cells    every cell in words

The SDKs' own retries stay on; only their waits are cut to nothing. Clocks are short where silence is the
fault and long elsewhere. A program hangs if it still waits when the lab has stopped waiting for it.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import itertools
import json
import re
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from operator import attrgetter
from typing import Any

import anthropic
import openai

import sidestream
from sidestream import SidestreamError
from sidestream.drivers import System
from sidestream.lab import KINDS, Continuing, Fault, Kind, Lab, Limits, Plan, Request, Script, script
from sidestream.recovery.origins import Origins
from sidestream.recovery.policy import Backoff, Policy

SDKS: dict[str, Any] = {"openai": openai, "anthropic": anthropic}

# What a run comes to.
WHOLE, ERROR, SHORT, HALF, TWICE, FOREIGN, HANG = (
    "whole", "error", "short", "half", "twice", "foreign", "hang",
)  # fmt: skip
MARKS = (WHOLE, ERROR, SHORT, HALF, TWICE, FOREIGN, HANG)

TEXT = (
    "The Nile, le fleuve à l'est, runs north for about 6,650 km 🙂 and feeds (数据) eleven countries; "
    "it ends, naïvely said, where the sea begins, and nobody has to say it twice."
)
BEFORE, NAME = "Let me look that up for you.", "get_weather"
ARGUMENTS = {"city": "Paris", "unit": "celsius", "days": 3, "why": "déjà vu"}

SILENCES = frozenset({Kind.STALL, Kind.KEEPALIVE, Kind.HANG})


@dataclass(frozen=True)
class Shape:
    """A kind of call. `how`: its events are read, or those of a helper, or the whole answer."""

    name: str
    sdk: str
    wire: str
    path: str
    how: str
    hold: bool = False

    @property
    def streams(self) -> bool:
        """Whether the lab is asked for a stream (of a bare client, if `hold` is off)."""
        return self.how != "whole" or self.hold


SHAPES = (
    Shape("responses.create(stream=True)", "openai", "responses", "responses.create", "events"),
    Shape("responses.stream()", "openai", "responses", "responses.stream", "helper"),
    Shape("responses.create()", "openai", "responses", "responses.create", "whole"),
    Shape("responses.create(), held", "openai", "responses", "responses.create", "whole", hold=True),
    Shape("chat.completions.create(stream=True)", "openai", "chat", "chat.completions.create", "events"),
    Shape("chat.completions.create()", "openai", "chat", "chat.completions.create", "whole"),
    Shape("chat.completions.create(), held", "openai", "chat", "chat.completions.create", "whole", hold=True),
    Shape("messages.stream()", "anthropic", "messages", "messages.stream", "helper"),
    Shape("messages.create(stream=True)", "anthropic", "messages", "messages.create", "events"),
    Shape("messages.create()", "anthropic", "messages", "messages.create", "whole"),
    Shape("messages.create(), held", "anthropic", "messages", "messages.create", "whole", hold=True),
)
COLOURS = ("sync", "async")
ANSWERS = ("text", "call")


@dataclass(frozen=True)
class Strike:
    """A fault at a place. `open_ended`: the body has neither length nor chunks."""

    fault: Fault
    where: str
    open_ended: bool = False

    @property
    def is_silence(self) -> bool:
        return self.fault.kind in SILENCES


@dataclass(frozen=True)
class Cell:
    """One run. `always`: every attempt is struck, not only the first."""

    shape: Shape
    colour: str
    answer: str
    strike: Strike
    wrapped: bool
    always: bool = False

    def __str__(self) -> str:
        who = "wrapped" if self.wrapped else "bare"
        times = " every time" if self.always else ""
        fault = f"{self.strike.fault.kind} {self.strike.where}{times}"
        return f"{self.shape.name} {self.colour} {self.answer}, {fault}, {who}"


@dataclass
class Seen:
    """What reached the program."""

    text: str = ""
    calls: dict[int, list[str]] = field(default_factory=dict)  # number -> name, arguments so far
    ended: bool = False  # the end of the answer was said
    told: bool = False  # an error was said, as an event
    opened: int = 0
    closed: int = 0
    final: tuple[str, list[Any]] | None = None  # the answer that a helper put together
    source: Any = None  # the stream, for `last_call`
    error: Exception | None = None


@dataclass(frozen=True)
class Result:
    """A cell, its mark, and what is wrong with it apart from that."""

    cell: Cell
    mark: str
    remark: str = ""

    def __str__(self) -> str:
        return f"{self.cell}: {self.mark}" + (f" ({self.remark})" if self.remark else "")


# Reading.


def read_responses(seen: Seen, event: Any) -> None:
    kind = event.type
    if kind == "response.created":
        seen.opened += 1
    elif kind == "response.output_text.delta":
        seen.text += event.delta
    elif kind == "response.output_item.added" and event.item.type == "function_call":
        seen.calls[event.output_index] = [event.item.name, event.item.arguments or ""]
    elif kind == "response.function_call_arguments.delta":
        seen.calls[event.output_index][1] += event.delta
    elif kind == "response.completed":
        seen.closed += 1
        seen.ended = True
        seen.final = whole_responses(event.response)[:2]
    elif kind in ("error", "response.failed"):
        seen.told = True


def whole_responses(answer: Any) -> tuple[str, list[Any], bool]:
    calls = [[item.name, item.arguments] for item in answer.output if item.type == "function_call"]
    return answer.output_text, calls, answer.status == "completed"


def read_chat(seen: Seen, chunk: Any) -> None:
    seen.opened = 1
    for choice in chunk.choices:
        seen.text += choice.delta.content or ""
        for call in choice.delta.tool_calls or ():
            known = seen.calls.setdefault(call.index, ["", ""])
            known[0] += call.function.name or ""
            known[1] += call.function.arguments or ""
        if choice.finish_reason is not None:
            seen.ended = True
            seen.closed += 1


def whole_chat(answer: Any) -> tuple[str, list[Any], bool]:
    choice = answer.choices[0]
    calls = [[call.function.name, call.function.arguments] for call in choice.message.tool_calls or ()]
    return choice.message.content or "", calls, choice.finish_reason is not None


def read_messages(seen: Seen, event: Any) -> None:
    if event.type == "message_start":
        seen.opened += 1
    elif event.type == "content_block_start" and event.content_block.type == "tool_use":
        seen.calls[event.index] = [event.content_block.name, ""]
    elif event.type == "content_block_delta":
        seen.text += getattr(event.delta, "text", "")
        if event.delta.type == "input_json_delta":
            seen.calls[event.index][1] += event.delta.partial_json
    elif event.type == "message_delta":
        seen.ended = seen.ended or event.delta.stop_reason is not None
    elif event.type == "message_stop":
        seen.ended = True
        seen.closed += 1


def whole_messages(answer: Any) -> tuple[str, list[Any], bool]:
    text = "".join(block.text for block in answer.content if block.type == "text")
    calls = [[block.name, block.input] for block in answer.content if block.type == "tool_use"]
    return text, calls, answer.stop_reason is not None


READ = {"responses": read_responses, "chat": read_chat, "messages": read_messages}
WHOLES = {"responses": whole_responses, "chat": whole_chat, "messages": whole_messages}
FINAL = {"responses": "get_final_response", "messages": "get_final_message"}


def take_whole(shape: Shape, seen: Seen, answer: Any) -> None:
    text, calls, seen.ended = WHOLES[shape.wire](answer)
    seen.text, seen.calls = text, dict(enumerate(calls))
    seen.opened = seen.closed = 1


def consume(shape: Shape, client: Any, asked: dict[str, Any], seen: Seen) -> None:
    """Call, and read all there is, as programs do."""
    made = attrgetter(shape.path)(client)(**asked)
    if shape.how == "whole":
        take_whole(shape, seen, made)
        return
    with made as stream:
        seen.source = stream
        for event in stream:
            READ[shape.wire](seen, event)
        if shape.how == "helper" and not seen.told:
            seen.final = WHOLES[shape.wire](getattr(stream, FINAL[shape.wire])())[:2]


async def aconsume(shape: Shape, client: Any, asked: dict[str, Any], seen: Seen) -> None:
    """The same in asyncio."""
    made = attrgetter(shape.path)(client)(**asked)
    if inspect.isawaitable(made):
        made = await made
    if shape.how == "whole":
        take_whole(shape, seen, made)
        return
    async with made as stream:
        seen.source = stream
        async for event in stream:
            READ[shape.wire](seen, event)
        if shape.how == "helper" and not seen.told:
            seen.final = WHOLES[shape.wire](await getattr(stream, FINAL[shape.wire])())[:2]


# Judging.


def parsed(arguments: Any) -> Any:
    """The arguments as a value; None if they are not whole."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return None


def mark(cell: Cell, seen: Seen, *, hung: bool) -> str:
    """The worst that happened."""
    text = TEXT if cell.answer == "text" else BEFORE
    calls = [] if cell.answer == "text" else [[NAME, ARGUMENTS]]
    got = [[name, parsed(arguments)] for name, arguments in seen.calls.values()]
    if hung:
        return HANG
    if any(call not in calls for call in got):
        return HALF
    if not text.startswith(seen.text) or len(got) > len(calls):
        return TWICE
    if seen.error is not None:
        root = cell_sdk(cell).OpenAIError if cell.shape.sdk == "openai" else cell_sdk(cell).AnthropicError
        return ERROR if isinstance(seen.error, root) else FOREIGN
    if seen.told:
        return ERROR
    final = None if seen.final is None else (seen.final[0], [[n, parsed(a)] for n, a in seen.final[1]])
    all_there = seen.text == text and got == calls and final in (None, (text, calls))
    return WHOLE if all_there and (seen.ended or _ends_unseen(cell)) else SHORT


def _ends_unseen(cell: Cell) -> bool:
    """Chat without its finish reason still ends with `[DONE]`, which the SDK keeps to itself."""
    fault = cell.strike.fault
    return cell.shape.wire == "chat" and fault.kind is Kind.DROP_TERMINAL and fault.markers == ("finish",)


def remark(cell: Cell, seen: Seen, client: Any) -> str:
    """What else a wrapped client promises: an account, the cause of an error with the partial, one stream."""
    if not cell.wrapped or not cell.shape.streams:
        return ""
    reply = sidestream.last_call(seen.source) if seen.source is not None else None
    reply = reply or sidestream.last_call(client)
    if reply is None:
        return "last_call() knows nothing of it"
    twice = cell.strike.fault.kind is Kind.REPEAT_TERMINAL  # the provider's doing, and harmless
    is_one = seen.opened == 1 and seen.closed <= 1
    if not is_one and not twice and seen.error is None and not seen.told:
        return f"{seen.opened} beginnings and {seen.closed} ends"
    if seen.error is None:
        return ""
    cause = seen.error.__cause__
    if isinstance(cause, SidestreamError) and cause.reply is not None:
        reply = cause.reply
    elif not isinstance(seen.error, cell_sdk(cell).APIError) or not _is_providers(cell):
        return f"the cause of {seen.error!r} is {cause!r}"
    if not reply.text.startswith(seen.text):
        return f"{seen.text!r} was delivered, and {reply.text!r} is the partial"
    return ""


def _is_providers(cell: Cell) -> bool:
    """Whether the error is what the provider itself said in the stream."""
    return cell.strike.fault.kind is Kind.ERROR_EVENT


def cell_sdk(cell: Cell) -> Any:
    return SDKS[cell.shape.sdk]


# The answers, and where they are struck.


def said(answer: str) -> Callable[[Request], Script]:
    """The answer function of the lab."""
    return Continuing(TEXT, tokens_of=phrases) if answer == "text" else calling


def phrases(text: str) -> list[str]:
    """Three words to a delta."""
    return re.findall(r"(?:\s*\S+){1,3}|\s+$", text)


def calling(request: Request) -> Script:
    arguments = json.dumps(ARGUMENTS, ensure_ascii=False)
    if request.wire == "chat":
        opening = {"index": 0, "id": "call_lab_0", "type": "function"}
        opening["function"] = {"name": NAME, "arguments": ""}
        size = len(arguments) // 6
        pieces = [arguments[at : at + size] for at in range(0, len(arguments), size)]
        rest = ({"index": 0, "function": {"arguments": piece}} for piece in pieces)
        calls = ({"tool_calls": [part]} for part in (opening, *rest))
        stream = script.chat({"content": BEFORE}, *calls, finish="tool_calls")
    else:
        make = script.messages if request.wire == "messages" else script.responses
        stream = make(script.message(BEFORE), script.call(NAME, arguments, tokens=6))
    return script.as_asked(stream, request)


PATHS = {"responses": "/v1/responses", "chat": "/v1/chat/completions", "messages": "/v1/messages"}
TEXTS = {"responses": b"output_text.delta", "chat": b'"content":', "messages": b'"text_delta"'}
PARTS = {"responses": b"arguments.delta", "chat": b'"tool_calls":[', "messages": b'"input_json_delta"'}


@cache
def events_of(wire: str, answer: str, *, streams: bool) -> tuple[bytes, ...]:
    """The pieces of the first answer, by which positions count."""
    fields = {"stream": streams, "input": "x", "messages": [{"role": "user", "content": "x"}]}
    asked = Request(0, 0, 0, "POST", PATHS[wire], (), json.dumps(fields).encode(), 0.0)
    return said(answer)(asked).events


@cache
def places(wire: str, answer: str, *, streams: bool) -> dict[str, dict[str, int]]:
    """Where to strike, in words -> as arguments of a fault."""
    events = events_of(wire, answer, streams=streams)
    if not streams:
        (body,) = events
        half = next(n for n in range(len(body) // 2, len(body)) if body[n - 1] < 128)
        inside = next(n for n in range(1, len(body)) if body[n] & 0xC0 == 0x80)
        return {
            "before it": {"after_event": 0},
            "in the middle": {"at_byte": half},
            "in a letter": {"at_byte": inside},
            "before its last byte": {"at_byte": len(body) - 1},
        }
    texts = [n for n, event in enumerate(events) if TEXTS[wire] in event]
    last = {"before the last event": {"after_event": len(events) - 1}}
    if answer == "text":
        many = len(texts)
        late = texts[many * 3 // 4]
        offset = sum(map(len, events[: texts[many // 2]]))
        rest = b"".join(events[texts[many // 2] :])
        inside = offset + next(n for n in range(1, len(rest)) if rest[n] & 0xC0 == 0x80)
        return {
            "before it": {"after_event": 0},
            "after the first event": {"after_event": 1},
            "early in the text": {"after_event": texts[2]},
            "late in the text": {"after_event": late},
            "in a letter": {"at_byte": inside},
            "after the text": {"after_event": texts[-1] + 1},
            "as it ends": {"after_event": len(events) - 2},
            **last,
        }
    parts = [n for n, event in enumerate(events) if PARTS[wire] in event]
    return {
        "before the call": {"after_event": parts[0]},
        "as the call begins": {"after_event": parts[0] + 1},
        "in the call": {"after_event": parts[len(parts) // 2]},
        "after the arguments": {"after_event": parts[-1] + 1},
        **last,
    }


AT: dict[Kind, Callable[..., Fault]] = {
    Kind.END: Fault.end,
    Kind.CUT: Fault.cut,
    Kind.RESET: Fault.reset,
    Kind.EOF: Fault.eof,
    Kind.SHORT: Fault.short,
    Kind.GZIP_CUT: Fault.gzip_cut,
    Kind.STALL: Fault.stall,
    Kind.KEEPALIVE: Fault.keepalive,
    Kind.ERROR_EVENT: Fault.error_event,
    Kind.SPLICE: Fault.splice,
    Kind.NO_CLOSE_NOTIFY: Fault.no_close_notify,
}
# These strike at every place, the others at some; TLS, which takes longest to set up, inside only.
THOROUGH = frozenset({Kind.END, Kind.CUT})
INSIDE = frozenset({"late in the text", "in the call", "in the middle"})
SELECTED = INSIDE | {"before it", "after the text", "before the last event", "before its last byte"}
# What can be done to every answer, wherever.
EVERYWHERE = (
    Strike(Fault.headers_only(), "after the head"),
    Strike(Fault.hang(), "before it"),
    Strike(Fault.close(), "before it"),
    Strike(Fault.refuse(), "before it"),
    Strike(Fault.slicer(), "throughout"),
    Strike(Fault.drip(interval=0.0005, size=64), "throughout"),
    Strike(Fault.bom(), "at its start"),
)
# What can be done to a stream.
TO_STREAMS = (
    Strike(Fault.drop_terminal(), "all"),
    Strike(Fault.drop_terminal("finish"), "finish"),
    Strike(Fault.drop_terminal("done"), "done"),
    Strike(Fault.repeat_terminal(), "all"),
    Strike(Fault.line_ends("cr"), "cr"),
    Strike(Fault.line_ends("crlf"), "crlf"),
    Strike(Fault.line_ends("mixed"), "mixed"),
    Strike(Fault.huge_event(size=1024 * 1024), "after the first event"),
)
# Faults after which the answer is whole all the same: striking every time, they change nothing.
HARMLESS = frozenset(
    {Kind.SLICER, Kind.DRIP, Kind.BOM, Kind.LINE_ENDS, Kind.HUGE_EVENT, Kind.REPEAT_TERMINAL}
)


def strikes(shape: Shape, answer: str, *, streams: bool) -> Iterator[Strike]:
    """Every fault at every place that makes sense for it."""
    # Blank lines are what some providers send while a whole answer is made.
    makers = AT if streams else {**AT, Kind.KEEPALIVE: _blanks}
    for kind, make in makers.items():
        some = INSIDE if kind is Kind.NO_CLOSE_NOTIFY else SELECTED
        for where, at in places(shape.wire, answer, streams=streams).items():
            if kind in THOROUGH or where in some:
                yield Strike(make(**at), where)
            if kind is Kind.SPLICE and where in INSIDE:
                yield Strike(make("json", **at), f"{where}, JSON")
                yield Strike(make(**at, then="cut"), f"{where}, and torn")
            if kind is Kind.NO_CLOSE_NOTIFY and where in INSIDE:
                yield Strike(make(**at), f"{where}, no length", open_ended=True)
    yield from EVERYWHERE
    if streams:
        yield from TO_STREAMS


def _blanks(**at: int) -> Fault:
    return Fault.keepalive("blank", **at)


def cells(shape: Shape, colour: str) -> Iterator[Cell]:
    """Every run of one kind of call."""
    sides = (True,) if shape.hold else (False, True)
    for answer in ANSWERS:
        for strike in strikes(shape, answer, streams=shape.streams):
            for wrapped in sides:
                yield Cell(shape, colour, answer, strike, wrapped)
            lasting = strike.where in INSIDE or strike.where in ("before it", "all", "after the head")
            if strike.fault.kind not in HARMLESS and lasting:
                yield Cell(shape, colour, answer, strike, wrapped=True, always=True)


# Running.

CLOCK = 0.5  # seconds of silence that are too many, where silence is the fault
PATIENCE = 3.0  # seconds after which the lab stops keeping silence
AMPLE = 20.0
POLICY = Policy(backoff=Backoff(base=0, throttled_base=0))
PATIENT = replace(POLICY, tries=4)  # short clocks may ring on a busy machine although the server is well
TOOLS = {
    "responses": {"type": "function", "name": NAME, "parameters": {"type": "object"}, "strict": False},
    "chat": {"type": "function", "function": {"name": NAME, "parameters": {"type": "object"}}},
    "messages": {"name": NAME, "input_schema": {"type": "object"}},
}


def asked_of(cell: Cell) -> dict[str, Any]:
    """The arguments of the call."""
    shape = cell.shape
    turn = [{"role": "user", "content": "How long is the Nile?"}]
    asked: dict[str, Any] = {"model": "lab-1", "input" if shape.wire == "responses" else "messages": turn}
    if shape.wire == "messages":
        asked["max_tokens"] = 4096
    if cell.answer == "call":
        asked["tools"] = [TOOLS[shape.wire]]
    if shape.how == "events":
        asked["stream"] = True
        if shape.wire == "chat":
            asked["stream_options"] = {"include_usage": True}
    return asked


def labs(cell: Cell) -> Lab:
    """The server of one run."""
    strike = cell.strike
    answers = said(cell.answer)
    fault = strike.fault
    return Lab(
        (lambda request: answers(request).sent(framing="close")) if strike.open_ended else answers,
        plan=Plan.always(fault) if cell.always else Plan([fault]),
        tls=fault.kind is Kind.NO_CLOSE_NOTIFY,
        limits=Limits(stall=PATIENCE),
    )


def clients(cell: Cell, lab: Lab) -> Any:
    """The SDK's client of one run."""
    shape, sdk = cell.shape, cell_sdk(cell)
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if cell.strike.fault.kind is Kind.NO_CLOSE_NOTIFY:
        trust.load_verify_locations(cadata=lab.ca_pem.decode())
    is_async = cell.colour == "async"
    http = (sdk.DefaultAsyncHttpxClient if is_async else sdk.DefaultHttpxClient)(verify=trust)
    names = {"openai": ("OpenAI", "AsyncOpenAI"), "anthropic": ("Anthropic", "AsyncAnthropic")}
    ours = cell.wrapped and shape.streams
    client = getattr(sdk, names[shape.sdk][is_async])(
        api_key="lab",
        base_url=lab.url if shape.sdk == "openai" else lab.url.removesuffix("/v1"),
        http_client=http,
        timeout=CLOCK if cell.strike.is_silence and not ours else AMPLE,
    )

    def back() -> None:
        """Between two attempts: a server that went away is there again, unless it always does."""
        if cell.strike.fault.kind is Kind.REFUSE:
            lab.accept()

    def at_once(*_args: Any, **_options: Any) -> float:
        back()
        return 0.0

    client._calculate_retry_timeout = at_once
    if not cell.wrapped:
        return client
    clock = CLOCK if cell.strike.is_silence else AMPLE
    total = CLOCK if cell.strike.is_silence and not shape.streams else AMPLE
    return sidestream.wrap(
        client,
        timeout=sidestream.Timeouts(total=total, first=clock, idle=clock),
        policy=PATIENT if cell.strike.is_silence and not cell.always else POLICY,
        hold=shape.hold,
        observe=(),
        notify=lambda _: back(),
        system=System(origins=Origins(time.monotonic)),
    )


def run(cell: Cell) -> Result:
    """One run."""
    seen = Seen()
    with labs(cell) as lab:
        client = clients(cell, lab)
        if cell.colour == "sync":
            with client:
                try:
                    consume(cell.shape, client, asked_of(cell), seen)
                except Exception as error:  # noqa: BLE001  whatever a program would get is what is looked at
                    seen.error = error
        else:
            asyncio.run(_run(cell, client, seen))
        struck = lab.wait_ended(0)
        hung = cell.strike.is_silence and struck.ended_by == "server"
        return Result(cell, mark(cell, seen, hung=hung), remark(cell, seen, client))


async def _run(cell: Cell, client: Any, seen: Seen) -> None:
    async with client:
        try:
            await aconsume(cell.shape, client, asked_of(cell), seen)
        except Exception as error:  # noqa: BLE001  as above
            seen.error = error


def run_all(which: Iterable[Cell]) -> list[Result]:
    """Runs that wait do so together, beside the others; what loads on first use is loaded before."""
    every = list(which)
    for cell in every[:1]:
        run(replace(cell, strike=EVERYWHERE[-1], wrapped=True, always=False))
    waiting = [cell for cell in every if cell.strike.is_silence]
    with ThreadPoolExecutor(8) as pool:
        waited = [pool.submit(run, cell) for cell in waiting]
        results = [run(cell) for cell in every if not cell.strike.is_silence]
        return [*results, *(result.result() for result in waited)]


def matrix(shape: Shape, colour: str) -> list[Result]:
    """Every run of one kind of call."""
    return run_all(cells(shape, colour))


# Counting and checking.

Counts = dict[str, dict[str, dict[str, int]]]  # fault -> who -> mark -> runs


def counted(results: Iterable[Result]) -> Counts:
    """The marks of one kind of call, by fault and by who was struck."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    for result in results:
        cell = result.cell
        who = "always" if cell.always else "wrapped" if cell.wrapped else "bare"
        counts.setdefault(str(cell.strike.fault.kind), {}).setdefault(who, Counter())[result.mark] += 1
    return {
        str(kind): {who: {m: n[m] for m in MARKS if n[m]} for who, n in sorted(counts[str(kind)].items())}
        for kind in KINDS
        if str(kind) in counts
    }


def steady(counts: Counts) -> Counts:
    """Without the faults whose marks a busy machine can change: what a bare client makes of silence."""
    return {kind: row for kind, row in counts.items() if Kind(kind) not in SILENCES}


def broken_promises(results: Iterable[Result]) -> list[str]:
    """The wrapped runs that are not as promised, in words."""
    return [str(result) for result in results if result.cell.wrapped and not is_kept(result)]


def is_kept(result: Result) -> bool:
    """Struck once, the answer comes whole; struck every time, it may end in the SDK's own error."""
    allowed = (WHOLE, ERROR) if result.cell.always else (WHOLE,)
    return result.mark in allowed and not result.remark


def versions() -> dict[str, str]:
    return {name: sdk.__version__ for name, sdk in SDKS.items()}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail if a wrapped cell is not as promised")
    parser.add_argument("--cells", action="store_true", help="every cell in words, in place of the counts")
    parser.add_argument("--only", default="", help="kinds of calls whose name contains this")
    options = parser.parse_args(arguments)
    parts = [part for part in itertools.product(SHAPES, COLOURS) if options.only in part[0].name]
    with ProcessPoolExecutor(2) as pool:
        results = list(pool.map(matrix, *zip(*parts, strict=True)))
    if options.cells:
        for result in itertools.chain.from_iterable(results):
            print(result)  # noqa: T201
    else:
        rows: dict[str, dict[str, Counts]] = {}
        for (shape, colour), found in zip(parts, results, strict=True):
            rows.setdefault(shape.name, {})[colour] = counted(found)
        print(json.dumps({"sdks": versions(), "rows": rows}, indent=1))  # noqa: T201
    broken = [line for found in results for line in broken_promises(found)] if options.check else []
    for line in broken:
        print(line, file=sys.stderr)  # noqa: T201
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
