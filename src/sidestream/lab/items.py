"""The grammar of both OpenAI wires: output items and chunks as the plain dicts that go into events.

PURE. A Responses `Item` knows its events from `output_item.added` to `output_item.done`;
`responses_events` puts items in order, numbers everything and adds the lifecycle around them.
`chat_chunks` does the same for Chat Completions, `blocks` for Messages. Ids and times are constants, so a
script is the same bytes on every run.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "Ending",
    "Item",
    "call",
    "chat_chunks",
    "message",
    "pieces",
    "reasoning",
    "refusal",
    "responses_events",
    "said",
]

CREATED = 1_700_000_000
PROMPT = 10  # tokens of prompt that are reported where nobody counts them
CALL_ID = "call_lab_{i}"
Ending = Literal["completed", "incomplete", "failed", "none"]


def pieces(text: str, tokens: int | None = None) -> list[str]:
    """`text` in `tokens` pieces of about equal length, or in words. Joined they are `text`.

    Raises:
        UsageError: more pieces than characters.
    """
    if tokens is None:
        return re.findall(r"\s*\S+|\s+$", text)
    if not 1 <= tokens <= len(text):
        raise UsageError(
            f"{len(text)} characters cannot come in {tokens} pieces", hint="longer text: script.words(tokens)"
        )
    cuts = [round(i * len(text) / tokens) for i in range(tokens + 1)]
    return [text[a:b] for a, b in itertools.pairwise(cuts)]


@dataclass(frozen=True, slots=True)
class Item:
    """One output item: as announced, its events in between (without ids and numbers), and as done."""

    added: dict[str, Any]
    events: tuple[dict[str, Any], ...]
    done: dict[str, Any]
    tokens: int = 0


def message(text: str, *, tokens: int | None = None, phase: str | None = None) -> Item:
    """An assistant message with one text part; `tokens`: number of deltas (default: one per word)."""
    return said(pieces(text, tokens), phase=phase)


def said(deltas: Sequence[str], *, phase: str | None = None) -> Item:
    """An assistant message with one text part that comes in exactly these deltas."""
    text = "".join(deltas)
    final = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    events = (
        {"type": "response.content_part.added", "content_index": 0, "part": final | {"text": ""}},
        *(_text_delta(delta) for delta in deltas),
        {"type": "response.output_text.done", "content_index": 0, "text": text, "logprobs": []},
        {"type": "response.content_part.done", "content_index": 0, "part": final},
    )
    return _message(final, events, phase, len(deltas))


def _text_delta(delta: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "content_index": 0, "delta": delta, "logprobs": []}


def refusal(text: str) -> Item:
    """A message whose only part is a refusal."""
    deltas = pieces(text)
    final = {"type": "refusal", "refusal": text}
    events = (
        {"type": "response.content_part.added", "content_index": 0, "part": final | {"refusal": ""}},
        *({"type": "response.refusal.delta", "content_index": 0, "delta": delta} for delta in deltas),
        {"type": "response.refusal.done", "content_index": 0, "refusal": text},
        {"type": "response.content_part.done", "content_index": 0, "part": final},
    )
    return _message(final, events, None, len(deltas))


def _message(
    part: dict[str, Any], events: tuple[dict[str, Any], ...], phase: str | None, tokens: int
) -> Item:
    item = {"id": "msg_lab_{i}", "type": "message", "role": "assistant"}
    if phase is not None:
        item["phase"] = phase
    return Item(
        added=item | {"status": "in_progress", "content": []},
        events=events,
        done=item | {"status": "completed", "content": [part]},
        tokens=tokens,
    )


def reasoning(summary: str, *, encrypted: str = "bGFi") -> Item:
    """A reasoning item with one summary part; its encrypted content comes with the done event."""
    deltas = pieces(summary)
    part = {"type": "summary_text", "text": summary}
    kind = "response.reasoning_summary_text"
    item = {"id": "rs_lab_{i}", "type": "reasoning"}
    events = (
        {
            "type": "response.reasoning_summary_part.added",
            "summary_index": 0,
            "part": part | {"text": ""},
        },
        *({"type": f"{kind}.delta", "summary_index": 0, "delta": delta} for delta in deltas),
        {"type": f"{kind}.done", "summary_index": 0, "text": summary},
        {"type": "response.reasoning_summary_part.done", "summary_index": 0, "part": part},
    )
    done = item | {"summary": [part], "encrypted_content": encrypted}
    return Item(item | {"summary": []}, events, done, len(deltas))


def call(name: str, arguments: str, *, call_id: str = CALL_ID, tokens: int | None = None) -> Item:
    """A function call; `arguments` is its JSON text, `tokens` the number of argument deltas."""
    deltas = pieces(arguments, tokens) if arguments else []
    item = {"id": "fc_lab_{i}", "type": "function_call", "call_id": call_id, "name": name}
    kind = "response.function_call_arguments"
    events = (
        *({"type": f"{kind}.delta", "delta": delta} for delta in deltas),
        {"type": f"{kind}.done", "arguments": arguments},
    )
    return Item(
        added=item | {"arguments": "", "status": "in_progress"},
        events=events,
        done=item | {"arguments": arguments, "status": "completed"},
        tokens=len(deltas),
    )


def responses_events(
    items: Iterable[Item],
    *,
    model: str,
    response_id: str,
    usage: bool,
    ending: Ending,
    details: dict[str, Any] | None,
    background: bool,
    spent: tuple[int, int] | None,
) -> list[dict[str, Any]]:
    """Every event from `response.created` to the terminal one, numbered.

    `background`: the response waits in a queue first and says what it is. `spent`: tokens of prompt and
    output, by default 10 and one per delta.
    """
    items = tuple(items)
    base = _response(model, response_id) | ({"background": True} if background else {})
    events = _queued(base) if background else _opening(base)
    output: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        events += _item_events(item, index)
        output.append(_named(item.done, index))
    if ending != "none":
        tokens = spent or (PROMPT, sum(item.tokens for item in items))
        counts = _responses_usage(*tokens) if usage else None
        last = base | {"status": ending, "output": output, "usage": counts}
        events.append({"type": f"response.{ending}", "response": last | (details or {})})
    return [_numbered(event, number) for number, event in enumerate(events)]


def _opening(base: dict[str, Any]) -> list[dict[str, Any]]:
    return [_state("created", base), _state("in_progress", base)]


def _queued(base: dict[str, Any]) -> list[dict[str, Any]]:
    waiting = base | {"status": "queued"}
    return [_state("created", waiting), _state("queued", waiting), _state("in_progress", base)]


def _state(name: str, response: dict[str, Any]) -> dict[str, Any]:
    return {"type": f"response.{name}", "response": response}


def _item_events(item: Item, index: int) -> Iterator[dict[str, Any]]:
    added, done = _named(item.added, index), _named(item.done, index)
    yield {"type": "response.output_item.added", "output_index": index, "item": added}
    for event in item.events:
        yield event | {"item_id": added["id"], "output_index": index}
    yield {"type": "response.output_item.done", "output_index": index, "item": done}


def _named(item: dict[str, Any], index: int) -> dict[str, Any]:
    """The item with its place in the output written into its ids."""
    ids = {key: item[key].replace("{i}", str(index)) for key in ("id", "call_id") if key in item}
    return item | ids


def _numbered(event: dict[str, Any], number: int) -> dict[str, Any]:
    return {"type": event["type"], "sequence_number": number} | event


def _response(model: str, response_id: str) -> dict[str, Any]:
    return {
        "id": response_id,
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
    }


def _responses_usage(prompt: int, output: int) -> dict[str, Any]:
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + output,
    }


def chat_chunks(
    deltas: Sequence[dict[str, Any]],
    *,
    model: str,
    completion_id: str,
    usage: bool,
    finish: str | None,
    spent: tuple[int, int] | None,
) -> list[dict[str, Any]]:
    """The role chunk, one chunk per delta, the finish chunk (unless None) and the usage chunk.

    `spent`: tokens of prompt and output, by default 10 and one per delta.
    """
    base = {"id": completion_id, "object": "chat.completion.chunk", "created": CREATED, "model": model}

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return base | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    chunks = [chunk({"role": "assistant", "content": ""}), *(chunk(delta) for delta in deltas)]
    if finish is not None:
        chunks.append(chunk({}, finish))
    if usage:
        prompt, output = spent or (PROMPT, len(deltas))
        counts = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
        chunks.append(base | {"choices": [], "usage": counts})
    return chunks
