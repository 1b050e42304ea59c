"""A short, seeded run of the fuzzer, and every input that ever made it find something."""

import json
import random

import pytest
from fuzz_decoders import fuzz, loop, mutate

RUNS = 3000


def chat(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def responses(kind: str, **fields: object) -> bytes:
    return b"data: " + json.dumps({"type": kind, **fields}).encode() + b"\n\n"


def messages(kind: str, **fields: object) -> bytes:
    return b"data: " + json.dumps({"type": kind, **fields}).encode() + b"\n\n"


STOP = messages("message_delta", delta={"stop_reason": "end_turn"}) + messages("message_stop")
DELTA = {"index": 0, "delta": {"content": "So"}}
COMPLETED = responses("response.completed", response={"id": "r"})

# what it once broke -> the bytes
FINDINGS: dict[str, bytes] = {
    "an item type that cannot be hashed": responses("response.output_item.added", item={"type": []}),
    "a tool name that cannot be hashed": responses(
        "response.output_item.done", item={"type": "function_call", "name": []}
    ),
    "a reasoning summary that is a number": responses(
        "response.output_item.done", item={"type": "reasoning", "summary": 5}
    )
    + COMPLETED,
    "a reasoning content that is an object": responses(
        "response.output_item.done", item={"type": "reasoning", "content": {"a": 1}}
    ),
    "invalid UTF-8 in a field": b'data: {"type":"response.output_text.delta","delta":"\xf5"}\n\n',
    "invalid UTF-8 in a chunk": b'data: {"id":"\xf5","choices":[]}\n\n',
    "a choice with an absurd number": chat(choices=[{**DELTA, "index": 2**63}]),
    "a choice below zero": chat(choices=[{**DELTA, "index": -1}]),
    "a delta whose index is text": responses("response.output_text.delta", delta="So", output_index="0")
    + COMPLETED,
    "a delta with a null content index": responses(
        "response.output_text.delta", delta="So", content_index=None
    )
    + COMPLETED,
    "a block type that cannot be hashed": messages("content_block_start", index=0, content_block={"type": {}})
    + STOP,
    "a block that is a list": messages("content_block_start", index=0, content_block=["text"]) + STOP,
    "a delta type that cannot be hashed": messages("content_block_delta", index=0, delta={"type": []}) + STOP,
    "a tool's name that cannot be hashed": messages(
        "content_block_start", index=0, content_block={"type": "tool_use", "id": [], "name": {}}
    )
    + STOP,
    "a stop reason that cannot be hashed": messages("message_delta", delta={"stop_reason": []}),
    "usage that is a list": messages("message_start", message={"usage": [1]}) + STOP,
    "a delta for a block that has stopped": messages("content_block_start", content_block={"type": "text"})
    + messages("content_block_stop")
    + messages("content_block_delta", delta={"type": "text_delta", "text": "So"})
    + STOP,
    "a block number beyond all numbers": messages(
        "content_block_delta", index=2**70, delta={"type": "text_delta", "text": "So"}
    )
    + STOP,
    "text after the last word": chat(choices=[{**DELTA, "finish_reason": "stop"}])
    + b"data: [DONE]\n\n"
    + chat(choices=[DELTA]),
    "garbage after the last word": COMPLETED + b"data: {nonsense\n\n",
    "garbage in the read that brought text": chat(choices=[DELTA]) + b"data: {nonsense\n\n",
    "an empty event name before data": b"event: \ndata: {}\n\n",
    "an error date beyond all numbers": b"Mon, 01 Jan 99999999999999999 00:00:00 GMT",
    "nesting as deep as the interpreter": b'data: {"error":' + b"[" * 990 + b"]" * 990 + b"}\n\n",
    "a number too large": b'data: {"usage":{"prompt_tokens":1e999},"choices":[]}\n\n',
    "a lone surrogate": b'data: {"choices":[{"delta":{"content":"\\ud800"}}]}\n\n',
    "an array of nothing": b"[]",
    "half a BOM": b"\xef\xbb",
    "nothing": b"",
}


@pytest.mark.parametrize("name", FINDINGS)
def test_what_once_broke_a_decoder_stays_harmless(name: str) -> None:
    """Every former finding ends in a reply or a typed error, however it is cut."""
    fuzz(FINDINGS[name])


def test_seeded_mutations_find_nothing(rng: random.Random) -> None:
    """A few thousand mutations of the corpus end in replies or typed errors only."""
    assert loop(rng.randrange(2**32), runs=RUNS) == RUNS


def test_mutations_reach_beyond_the_corpus() -> None:
    """The mutations are worth their name: they differ, and a seed repeats them."""
    one, two = ([mutate(random.Random(seed)) for seed in range(200)] for _ in range(2))
    assert one == two
    assert len(set(one)) > 150
