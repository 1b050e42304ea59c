"""The grammar of the Messages wire: output items as content blocks, from `message_start` to `message_stop`.

PURE. The items are those of `items`: a message is a text block, reasoning a thinking block, a call a
tool_use block, one delta for one delta. A refusal is no block: it is why the message stops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .items import CALL_ID, PROMPT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .items import Item

__all__ = ["PING", "messages_events"]

PING = {"type": "ping"}


def messages_events(
    items: Sequence[Item],
    *,
    model: str,
    message_id: str,
    usage: bool,
    stop_reason: str | None,
    details: dict[str, Any] | None,
    spent: tuple[int, int] | None,
) -> list[dict[str, Any]]:
    """Every event but `message_stop`; without `message_delta`, too, where `stop_reason` is None.

    An empty `stop_reason` is the one these items call for. `spent`: tokens of prompt and output, by default
    10 and one per delta.
    """
    prompt, output = spent or (PROMPT, sum(item.tokens for item in items))
    events = [_start(model, message_id, prompt if usage else None), PING]
    kept = [item for item in items if _refused(item) is None]
    for index, item in enumerate(kept):
        events += _block_events(_BLOCKS[item.done["type"]](item, index), index)
    if stop_reason is None:
        return events
    delta = {"stop_reason": stop_reason or _reason(items), "stop_sequence": None, **_why(items)}
    ending: dict[str, Any] = {"type": "message_delta", "delta": delta | (details or {})}
    return [*events, ending | ({"usage": {"output_tokens": output}} if usage else {})]


def _start(model: str, message_id: str, prompt: int | None) -> dict[str, Any]:
    message: dict[str, Any] = {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }
    if prompt is None:
        return {"type": "message_start", "message": message}
    counts = {
        "input_tokens": prompt,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 1,
        "service_tier": "standard",
    }
    return {"type": "message_start", "message": message | {"usage": counts}}


Block = tuple[dict[str, Any], list[dict[str, Any]]]
"""A block as it is announced, and its deltas."""


def _block_events(block: Block, index: int) -> Iterator[dict[str, Any]]:
    announced, deltas = block
    yield {"type": "content_block_start", "index": index, "content_block": announced}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _text(item: Item, _index: int) -> Block:
    return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in _pieces(item)]


def _thinking(item: Item, _index: int) -> Block:
    """The signature comes last, in one delta; thinking that is not shown has no other."""
    said = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(item)]
    signed = {"type": "signature_delta", "signature": item.done["encrypted_content"]}
    return {"type": "thinking", "thinking": "", "signature": ""}, [*said, signed]


def _tool_use(item: Item, index: int) -> Block:
    """As the real ones, a call opens with an empty piece; a call without arguments has no other."""
    given = item.done["call_id"]
    call_id = f"toolu_lab_{index}" if given == CALL_ID else given
    pieces = ["", *_pieces(item)]
    announced = {"type": "tool_use", "id": call_id, "name": item.done["name"], "input": {}}
    return announced, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]


_BLOCKS: dict[str, Callable[[Item, int], Block]] = {
    "message": _text,
    "reasoning": _thinking,
    "function_call": _tool_use,
}


def _pieces(item: Item) -> Iterator[str]:
    return (event["delta"] for event in item.events if event["type"].endswith(".delta"))


def _refused(item: Item) -> str | None:
    parts = item.done.get("content") or ()
    return next((part["refusal"] for part in parts if part["type"] == "refusal"), None)


def _reason(items: Sequence[Item]) -> str:
    if _why(items):
        return "refusal"
    return "tool_use" if any(item.done["type"] == "function_call" for item in items) else "end_turn"


def _why(items: Sequence[Item]) -> dict[str, Any]:
    said = [words for item in items if (words := _refused(item)) is not None]
    if not said:
        return {}
    return {"stop_details": {"type": "refusal", "category": None, "explanation": " ".join(said)}}
