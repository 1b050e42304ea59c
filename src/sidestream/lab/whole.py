"""A stream folded into the one JSON object that a request without `"stream": true` gets. PURE.

The wire is told by the first event. A stream that its wire would not call finished folds into nothing, and
neither does one that nobody could fold: then there is no such object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from . import sse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["folded"]

_RESPONSE_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})


def folded(events: Iterable[bytes]) -> dict[str, Any] | None:
    """The answer of a whole stream as one object, or None."""
    payloads = [payload for payload in map(sse.decode, events) if isinstance(payload, dict)]
    first = payloads[0] if payloads else {}
    try:
        return _fold_of(first)(payloads)
    except (
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        msgspec.DecodeError,
    ):  # a recording may be anything
        return None


def _fold_of(first: dict[str, Any]) -> Callable[[list[dict[str, Any]]], dict[str, Any] | None]:
    if first.get("object") == "chat.completion.chunk":
        return _chat
    return _message if first.get("type") == "message_start" else _response


def _response(payloads: list[dict[str, Any]]) -> dict[str, Any] | None:
    last = payloads[-1]
    return dict(last["response"]) if last.get("type") in _RESPONSE_ENDS else None


# Chat Completions.


def _chat(chunks: list[dict[str, Any]]) -> dict[str, Any] | None:
    choices: dict[int, dict[str, Any]] = {}
    for part in (part for chunk in chunks for part in chunk["choices"]):
        choice = choices.setdefault(part["index"], {"message": {}, "finish_reason": None})
        _speak(choice["message"], part["delta"])
        choice["finish_reason"] = part["finish_reason"] or choice["finish_reason"]
    if not choices or any(choice["finish_reason"] is None for choice in choices.values()):
        return None
    usage = [{"usage": chunk["usage"]} for chunk in chunks if chunk.get("usage")]
    spoken = [{"index": index, "logprobs": None} | choices[index] for index in sorted(choices)]
    head = {key: chunks[0][key] for key in ("id", "created", "model")}
    return {"object": "chat.completion", "choices": spoken} | head | (usage[-1] if usage else {})


def _speak(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            for piece in value:
                _call(message.setdefault("tool_calls", []), piece)
        elif isinstance(value, str) and name != "role":
            message[name] = (message.get(name) or "") + value
        else:
            message[name] = value
    if message.get("tool_calls") and not message.get("content"):
        message["content"] = None


def _call(calls: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    index, function = piece["index"], piece["function"]
    if index == len(calls):
        name, call_id = function["name"], piece["id"]
        calls.append({"id": call_id, "type": "function", "function": {"name": name, "arguments": ""}})
    calls[index]["function"]["arguments"] += function.get("arguments") or ""


# Messages.


def _message(payloads: list[dict[str, Any]]) -> dict[str, Any] | None:
    message: dict[str, Any] = dict(payloads[0]["message"])
    blocks: list[dict[str, Any]] = []
    for event in payloads:
        if event["type"] == "content_block_start":
            blocks.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            _grow(blocks[event["index"]], event["delta"])
        elif event["type"] == "message_delta":
            counts = (message.get("usage") or {}) | (event.get("usage") or {})
            message |= event["delta"] | ({"usage": counts} if counts else {})
    if message["stop_reason"] is None:
        return None
    return message | {"content": [_closed(block) for block in blocks]}


_GROWS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


def _grow(block: dict[str, Any], delta: dict[str, Any]) -> None:
    if delta["type"] == "signature_delta":
        block["signature"] = delta["signature"]
    else:
        name = _GROWS[delta["type"]]
        block[name] = block.get(name, "") + delta[name]


def _closed(block: dict[str, Any]) -> dict[str, Any]:
    written = block.pop("partial_json", "")
    return block | {"input": msgspec.json.decode(written)} if written else block
