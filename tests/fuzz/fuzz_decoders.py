"""Arbitrary bytes into every wire: only typed failures may come out, and cutting must not matter.

`fuzz(data)` is the target. Run this file for a while, with seeded mutations of the corpus or, where atheris
is installed, guided by coverage:

    python tests/fuzz/fuzz_decoders.py --seconds 60
    python tests/fuzz/fuzz_decoders.py --runs 100000 --seed 7
    python tests/fuzz/fuzz_decoders.py --atheris -max_total_time=60
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as a test, tests/ is on the path already
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src")]

from sidestream.errors import CallFailed
from sidestream.recovery.exchange import WIRES, Exchange
from sidestream.recovery.faults import from_exception, from_rejection
from sidestream.recovery.flow import Broke, Call, Ended, Outcome, Send, flow
from sidestream.recovery.policy import Policy
from sidestream.reply import Reply
from sidestream.route import Route
from sidestream.wire.events import Restarted, StreamEvent, TextDelta
from sidestream.wire.prompt import Request
from sidestream.wire.sse import Limits
from streams import ALL, FAILURES

LIMITS = Limits(line=50_000, event=60_000, total=200_000)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "required": ["x"]}}}


def fuzz(data: bytes) -> None:
    """Everything a body may be fed to: every wire, whole and in pieces, and the reader of error bodies."""
    for wire in WIRES:
        whole, said = play(wire, [data])
        check(whole, said)
        rng = random.Random(len(data))
        cuts = sorted(rng.choices(range(len(data) + 1), k=3))
        parted, _ = play(wire, [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)])
        if len(data) < LIMITS.line:  # at a limit, how much arrived before it depends on the reads
            assert facts(parted) == facts(whole), f"{wire}: cutting at {cuts} changes the outcome"
    from_rejection(500, {"retry-after": data[:40].decode("latin-1")}, data)


def play(wire: str, chunks: list[bytes]) -> tuple[Reply | CallFailed, str]:
    """One live attempt that a consumer reads along: how it ended, and the text of choice 0 it was given."""
    route = Route("http://127.0.0.1:1", "m", wire)  # type: ignore[arg-type]
    request = Request(({"role": "user", "content": "hi"},), tools=(TOOL,))
    story = flow(
        Call(request, (route,), policy=Policy(recoveries=0), live=True, limits=LIMITS),
        now=0,
        unix_time=0,
        random=lambda: 0.0,
    )
    send = next(story)
    assert isinstance(send, Send)
    text, outcome = read(send.exchange, chunks)
    try:
        story.send(outcome)
    except StopIteration as end:
        return end.value, text
    except CallFailed as error:
        return error, text
    raise AssertionError("without recoveries the first outcome is the last")


def read(exchange: Exchange, chunks: list[bytes]) -> tuple[str, Outcome]:
    text, outcome = "", Ended(1.0)
    parts: list[Callable[[], list[StreamEvent]]] = [
        lambda chunk=chunk: exchange.feed(chunk) for chunk in chunks
    ]  # type: ignore[misc]
    try:
        for part in parts:
            text = shown(text, part(), exchange)
            if exchange.over and exchange.done:
                break
    except FAILURES as error:
        outcome = Broke(from_exception(error), 1.0)  # type: ignore[assignment]
    try:
        text = shown(text, exchange.close(), exchange)
    except FAILURES as error:
        if isinstance(outcome, Ended):
            outcome = Broke(from_exception(error), 1.0)  # type: ignore[assignment]
    return text, outcome


def shown(text: str, events: list[StreamEvent], exchange: Exchange) -> str:
    for event in events:
        if isinstance(event, Restarted):
            text = ""
        elif isinstance(event, TextDelta) and exchange.assembler.choice_of(event.index) == 0:
            text += event.delta
    return text


def check(ended: Reply | CallFailed, shown_text: str) -> None:
    """What holds of every reply, whatever the bytes were."""
    reply = ended if isinstance(ended, Reply) else ended.reply
    assert reply is not None
    assert isinstance(ended, Reply) == (reply.status in ("complete", "incomplete"))
    assert sorted(shown_text) == sorted(reply.text), "a consumer has other text than the reply"
    for call in reply.tool_calls:
        assert isinstance(call.arguments, str)
        assert call.custom or call.name != "f" or call.arguments.strip(), "a call without its arguments"


def facts(ended: Reply | CallFailed) -> object:
    if isinstance(ended, CallFailed):
        assert ended.reply is not None
        return ended.fault.kind, ended.fault.code, ended.reply.text, ended.reply.tool_calls
    return ended.status, ended.texts, ended.reasoning, ended.refusal, ended.tool_calls, ended.finish_reason


# Mutations: of bytes, and of the JSON inside.

BITS = (
    b"\n", b"\r", b"\r\n", b"\n\n", b"data: ", b"event: error\n", b"error: {}\n\n", b"data: [DONE]\n\n",
    b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80", b"\0", b"{", b"}",
    b'"', b"[" * 200, b"null", b"1e999", b"9" * 400,
    b'"\\ud800"', b'"error":{"code":429}', b'"type":"error",', b'"finish_reason":"stop"',
    b"<html>", b"id: 1\n", b":\n\n",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 2**64, 1.5, "", "x", "\0", [], [[]], {}, {"type": []}, ["text"], {"text": 5},
    "error", "stop", "function_call", "message", "reasoning", "f", {"code": {}}, [None, 5, {"text": None}],
    "text", "thinking", "tool_use", "server_tool_use", "text_delta", "input_json_delta", "end_turn",
    "max_tokens", "message_stop", "content_block_stop", {"type": "text", "text": "x"}, {"input_tokens": "5"},
)  # fmt: skip


def mutate(rng: random.Random) -> bytes:
    """A stream of the corpus with a few things done to it."""
    data = rng.choice(ALL).data
    if len(data) > 6000:
        data = data[:3000]
    if rng.random() < 0.6:
        data = mutate_json(data, rng)
    for _ in range(rng.choice((0, 0, 1, 2, 4))):
        data = mutate_bytes(data, rng)
    return data


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    b = min(b, a + rng.choice((1, 8, 200)))
    kind = rng.randrange(5)
    if kind == 0:
        return data[:a] + rng.choice(BITS) + data[a:]
    if kind == 1:
        return data[:a] + data[b:]
    if kind == 2:
        return data[:b] + data[a:]
    if kind == 3:
        return data[:a] + rng.randbytes(b - a) + data[b:]
    return data[:a]


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Frames dropped, repeated or swapped, and values inside them replaced by values of another kind."""
    frames = data.split(b"\n\n")
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(frames))
        kind = rng.randrange(6)
        if kind == 0:
            frames[at] = b""
        elif kind == 1:
            frames.insert(at, frames[at])
        elif kind == 2:
            other = rng.randrange(len(frames))
            frames[at], frames[other] = frames[other], frames[at]
        else:
            head, mark, body = frames[at].partition(b"data: ")
            try:
                value = json.loads(body)
            except ValueError:
                continue
            frames[at] = head + mark + json.dumps(replaced(value, rng)).encode()
    return b"\n\n".join(frames)


def replaced(value: Any, rng: random.Random) -> Any:
    """The value with one thing somewhere inside it replaced, removed or added."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        if rng.random() < 0.1:
            return {key: inner for key, inner in value.items() if key != name}
        return {**value, name: replaced(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], replaced(value[at], rng), *value[at + 1 :]]
    return rng.choice(VALUES)


# As a program.


def loop(seed: int, *, runs: int | None = None, seconds: float | None = None) -> int:
    """Mutate and fuzz; returns the number of executions.

    Raises:
        AssertionError: with the seed, the run and the input that failed.
    """
    rng = random.Random(seed)
    until = time.monotonic() + seconds if seconds else None
    count = 0
    while (runs is None or count < runs) and (until is None or time.monotonic() < until):
        data = mutate(rng)
        try:
            fuzz(data)
        except Exception as error:  # whatever escapes is the finding
            raise AssertionError(f"seed {seed}, run {count}: {error!r} for\n{data!r}") from error
        count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the decoders with mutations of the corpus.")
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--runs", type=int, default=None)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument(
        "--atheris", action="store_true", help="let atheris choose the inputs; its options follow"
    )
    options, rest = parser.parse_known_args()
    if options.atheris:
        import atheris  # type: ignore[import-not-found]  # optional, and not for every Python

        atheris.instrument_all()
        atheris.Setup([sys.argv[0], *rest], fuzz)
        atheris.Fuzz()
        return
    if options.runs is None and options.seconds is None:
        options.seconds = 10.0
    print(f"seed {options.seed}", file=sys.stderr)  # noqa: T201
    print(f"{loop(options.seed, runs=options.runs, seconds=options.seconds)} executions, no finding")  # noqa: T201


if __name__ == "__main__":
    main()
