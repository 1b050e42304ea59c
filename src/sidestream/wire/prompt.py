"""What a caller asks, in the field's own shapes, and the way between those shapes.

Strategy: callers write chat-style message dicts, Responses items or content blocks of the Messages wire, as
they come. `Request` keeps them as given; `to_items` and `to_messages` (and turns.py for the Messages wire)
translate for the wire a route speaks, so that a call can move to a route with another wire. A tool result
never becomes an item with a role (backends answer 400 to `role: tool` in a Responses input), and an assistant
turn is written in its long form (llama.cpp and Codex take no other). Bad shapes are reported by position,
before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct, field

from ._json import NotJSON, dumps, loads, mapping, sequence, string

__all__ = [
    "Request",
    "any_choice",
    "any_tool",
    "block_role",
    "check_input",
    "from_input",
    "has_images",
    "is_block",
    "one_meaning",
    "size",
    "system_text",
    "to_items",
    "to_messages",
]

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


class Request(Struct, frozen=True):
    """What the caller asked, independent of any route.

    `params` holds request fields by their Responses or Chat name (`temperature`, `max_output_tokens`,
    `tool_choice`, `response_format`, ...); each wire keeps, renames or drops them.
    """

    messages: tuple[dict[str, Any], ...]
    instructions: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def choices(self) -> int:
        count = self.params.get("n")
        return count if isinstance(count, int) and count > 0 else 1


def from_input(value: object) -> tuple[dict[str, Any], ...]:
    """Messages from what a caller passes: a string is one user message, a sequence is taken as it is.

    Raises:
        ValueError: with the position of the first entry that is neither a message nor an item.
    """
    if isinstance(value, str):
        return ({"role": "user", "content": value},)
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise ValueError(f"expected a string or a sequence of messages, got {type(value).__name__}")
    messages = tuple(dict(entry) if isinstance(entry, Mapping) else entry for entry in value)
    check_input(messages)
    return messages


def check_input(messages: tuple[Any, ...]) -> None:
    if not messages:
        raise ValueError("there are no messages")
    for position, entry in enumerate(messages):
        if not isinstance(entry, dict):
            raise ValueError(f"message {position} is a {type(entry).__name__}, not a dict")
        if "role" in entry:
            if not isinstance(entry["role"], str) or entry["role"] not in ROLES:
                raise ValueError(f"message {position} has the unknown role {entry['role']!r}")
        elif not isinstance(entry.get("type"), str):
            raise ValueError(f"message {position} has neither a role nor an item type")


def has_images(request: Request) -> bool:
    """Whether a model has to read an image, in whichever form of the field it is written."""
    return any(_shows(part) for entry in request.messages for part in (entry, *map(mapping, _inside(entry))))


def _inside(entry: dict[str, Any]) -> list[Any]:
    """The parts of an entry, those of a tool's result included."""
    parts = [*sequence(entry.get("content")), *sequence(entry.get("output"))]
    return [*parts, *(inner for part in parts for inner in sequence(mapping(part).get("content")))]


def _shows(part: dict[str, Any]) -> bool:
    return part.get("type") in ("image", "image_url", "input_image")


def size(request: Request, *, images: bool = True) -> int:
    """Characters of prompt, about: what a model has to read before its first token.

    Args:
        images: count the bytes of images and files that stand in the request, of which a model makes fewer
            tokens than of text.
    """
    data = dumps([request.instructions, request.messages, request.tools])
    return len(data if images else _DATA.sub(b"", data))


# Base64 in a data URL or a content block: a long word without an end.
_DATA = re.compile(rb"[A-Za-z0-9+/=_-]{2000,}")

# Request fields that mean the same, whichever wire they come from.
_SAME = (
    frozenset({"max_output_tokens", "max_completion_tokens", "max_tokens"}),
    frozenset({"reasoning", "reasoning_effort"}),
    frozenset({"stop", "stop_sequences"}),
    frozenset({"text", "response_format"}),
)


def one_meaning(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two layers of request fields as one: what `above` says wins, by whichever name `below` says it."""
    said = frozenset(above).union(*(names for names in _SAME if not names.isdisjoint(above)))
    return {**{name: value for name, value in below.items() if name not in said}, **above}


# From content blocks of the Messages wire.

_BLOCKS = frozenset(
    {"text", "image", "document", "search_result", "thinking", "redacted_thinking", "tool_use", "tool_result",
     "container_upload", "fallback"}
)  # fmt: skip
_OF_THE_USER = frozenset({"text", "image", "document", "search_result", "tool_result"})


def is_block(entry: dict[str, Any]) -> bool:
    """Whether this is a content block of the Messages wire, to go by its type."""
    kind = string(entry.get("type"))
    compaction = kind == "compaction" and "content" in entry
    return kind in _BLOCKS or compaction or kind.endswith(("_tool_use", "_tool_result"))


def any_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """The same tool; a function in the form of the Messages wire as Responses and Chat know it."""
    if "input_schema" not in tool or tool.get("type") not in (None, "custom"):
        return tool
    names = ("name", "description", "strict")
    return {
        "type": "function",
        **{name: value for name, value in tool.items() if name in names},
        "parameters": tool["input_schema"],
    }


def any_choice(choice: object) -> object:
    """The same choice of tools; in the form of the Messages wire as Responses knows it."""
    kind = mapping(choice).get("type")
    if kind == "tool":
        return {"type": "function", "name": mapping(choice).get("name")}
    if kind in ("auto", "none", "any"):
        return "required" if kind == "any" else kind
    return choice


def system_text(request: Request) -> str:
    """The instructions, and what stands in the Messages wire's field for them."""
    return "\n\n".join(filter(None, (request.instructions, plain_text(request.params.get("system")))))


def block_role(block: dict[str, Any]) -> str:
    """Who says such a block when it stands alone."""
    return "user" if block["type"] in _OF_THE_USER else "assistant"


def _unblocked(entries: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same conversation without content blocks that only the Messages wire has. Its reasoning is signed
    for that wire and left out."""
    for entry in entries:
        if "role" not in entry and is_block(entry):
            yield from _as_chat(block_role(entry), [entry])
        elif entry.get("type") == "reasoning" and "signature" in entry:
            continue
        elif any(is_block(part) and part["type"] != "text" for part in map(mapping, _parts(entry))):
            yield from _as_chat(entry["role"], _parts(entry))
        else:
            yield entry


def _parts(entry: dict[str, Any]) -> list[Any]:
    return sequence(entry.get("content")) if "role" in entry else []


def _as_chat(role: str, parts: Iterable[object]) -> Iterator[dict[str, Any]]:
    """A turn of content blocks as chat messages: first the results, which answer what came before."""
    rest: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for part in map(mapping, parts):
        kind = part.get("type")
        if kind == "tool_result":
            call_id, output = string(part.get("tool_use_id")), plain_text(part.get("content"))
            yield {"role": "tool", "tool_call_id": call_id, "content": output}
        elif kind == "tool_use":
            arguments = dumps(mapping(part.get("input"))).decode()
            function = {"name": string(part.get("name")), "arguments": arguments}
            calls.append({"id": string(part.get("id")), "type": "function", "function": function})
        elif kind == "image":
            rest.append({"type": "image_url", "image_url": {"url": _image_url(mapping(part.get("source")))}})
        elif kind == "text" or not is_block(part):
            rest.append(part)
    if role == "assistant" and (rest or calls):
        said = {"role": role, "content": plain_text(rest) or None}
        yield {**said, "tool_calls": calls} if calls else said
    elif rest:
        yield {"role": role, "content": rest}


def _image_url(source: dict[str, Any]) -> str:
    if source.get("type") == "base64":
        return f"data:{string(source.get('media_type'))};base64,{string(source.get('data'))}"
    return string(source.get("url"))


# Towards Responses items.


def to_items(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same conversation as Responses input items."""
    items: list[dict[str, Any]] = []
    for message in _unblocked(messages):
        if "role" not in message or message.get("type") == "message":
            items.append(message)
        elif message["role"] in ("tool", "function"):
            items.append(
                {
                    "type": "function_call_output",
                    "call_id": string(message.get("tool_call_id")) or string(message.get("name")),
                    "output": plain_text(message.get("content")),
                }
            )
        elif message["role"] == "assistant":
            items += _assistant_items(message)
        else:
            items.append({"role": message["role"], "content": _input_content(message.get("content"))})
    return items


def _assistant_items(message: dict[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    content = message.get("content")
    if content:
        parts: list[dict[str, Any]] = [
            {"type": "output_text", "text": plain_text(content), "annotations": []}
        ]
        items.append({"type": "message", "role": "assistant", "status": "completed", "content": parts})
    for call in sequence(message.get("tool_calls")):
        function = mapping(mapping(call).get("function"))
        items.append(
            {
                "type": "function_call",
                "call_id": string(mapping(call).get("id")),
                "name": string(function.get("name")),
                "arguments": string(function.get("arguments")) or "{}",
            }
        )
    return items


def _input_content(content: object) -> object:
    if not isinstance(content, list):
        return content if content is not None else ""
    return [_input_part(mapping(part)) for part in content]


def _input_part(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("type") == "text":
        return {"type": "input_text", "text": string(part.get("text"))}
    if part.get("type") == "image_url":
        image = part.get("image_url")
        url = image if isinstance(image, str) else string(mapping(image).get("url"))
        return {"type": "input_image", "image_url": url}
    return part


# Towards chat messages.


def to_messages(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same conversation as chat messages. Reasoning items have no place there and are left out."""
    messages: list[dict[str, Any]] = []
    for entry in _unblocked(entries):
        kind = entry.get("type")
        if "role" in entry and kind != "message":
            messages.append(entry)
        elif kind == "message":
            messages.append({"role": entry.get("role", "user"), "content": _chat_content(entry)})
        elif kind in ("function_call", "custom_tool_call"):
            _append_call(messages, entry)
        elif kind in ("function_call_output", "custom_tool_call_output"):
            messages.append(
                {
                    "role": "tool",
                    "tool_call_id": string(entry.get("call_id")),
                    "content": plain_text(entry.get("output")),
                }
            )
    return messages


def _append_call(messages: list[dict[str, Any]], item: dict[str, Any]) -> None:
    arguments = string(item.get("arguments")) or dumps({"input": item.get("input", "")}).decode()
    call = {
        "id": string(item.get("call_id")),
        "type": "function",
        "function": {"name": string(item.get("name")), "arguments": arguments},
    }
    last = messages[-1] if messages else {}
    if last.get("role") == "assistant":
        messages[-1] = {**last, "tool_calls": [*sequence(last.get("tool_calls")), call]}
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _chat_content(item: dict[str, Any]) -> object:
    content = item.get("content")
    if not isinstance(content, list):
        return content if content is not None else ""
    parts = [_chat_part(mapping(part)) for part in content]
    if all(part.get("type") == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _chat_part(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("type") in ("input_text", "output_text", "text"):
        return {"type": "text", "text": string(part.get("text"))}
    if part.get("type") == "refusal":
        return {"type": "text", "text": string(part.get("refusal"))}
    if part.get("type") == "input_image":
        return {"type": "image_url", "image_url": {"url": string(part.get("image_url"))}}
    return part


def plain_text(content: object) -> str:
    """The text of a content value, parts joined; other values as JSON."""
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    if isinstance(content, list):
        return "".join(string(mapping(part).get("text")) for part in content)
    return dumps(content).decode()


def is_json_object(text: str) -> bool:
    """Whether `text` is one whole JSON object: what the arguments of a finished call look like."""
    try:
        return isinstance(loads(text), dict)
    except NotJSON:
        return False
