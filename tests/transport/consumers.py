"""What people do with the openai and anthropic SDKs, and what such a consumer has in the end.

Each wire has two consumers, in threads and in asyncio: "create" reads the events of `create(stream=True)`,
"stream" those of the `.stream()` helper, and asks it for the final object. `Seen` is all they were given;
`view` adds it up, so that two runs can be compared whatever their deltas, ids and token counts were.
`incoherent` says what is wrong with a row of events as one stream of its wire.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import anthropic
import httpx2
import openai

from streams import Stream

STYLES = ("create", "stream")
SDKS = {"responses": openai, "chat": openai, "messages": anthropic}
_ASKED = [{"role": "user", "content": "go on"}]
_NONE: dict[str, Any] = {}


@dataclass
class Seen:
    """What a consumer was given, in its order, the final object if it asked for one, and how it ended."""

    events: list[Any] = field(default_factory=list)
    final: Any = None
    error: BaseException | None = None
    own: list[dict[str, Any]] | None = None  # the wire's events as JSON, see `wire_events`


@dataclass
class View:
    """What it has of that. `calls` are names and arguments: of the Responses wire those that were called
    done, of the others all that have begun. `pieces` are the arguments that came in deltas, by where they
    belong, `names` those of calls or the phases of items, `kinds` the types of content blocks. `ends` is how
    the answer ended, in the wire's words."""

    text: dict[int, str] = field(default_factory=dict)
    reasoning: str = ""
    refusal: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    pieces: dict[Any, str] = field(default_factory=dict)
    names: dict[Any, str] = field(default_factory=dict)
    kinds: dict[int, str] = field(default_factory=dict)
    ends: list[Any] = field(default_factory=list)
    final: Any = None


# The clients.


def client_of(wire: str, http: httpx2.Client | httpx2.AsyncClient, base_url: str = "") -> Any:
    """The SDK's client of a wire over an httpx2 client. It asks nothing again by itself."""
    is_async = isinstance(http, httpx2.AsyncClient)
    if wire == "messages":
        kind: Any = anthropic.AsyncAnthropic if is_async else anthropic.Anthropic
        url = base_url or "http://provider.test"
    else:
        kind = openai.AsyncOpenAI if is_async else openai.OpenAI
        url = base_url or "http://provider.test/v1"
    return kind(base_url=url, api_key="sk-test-123456", http_client=http, max_retries=0)


def asked(stream: Stream) -> dict[str, Any]:
    """The arguments of a call that gets this answer."""
    names = stream.verdict.get("tools", ())
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    if stream.wire == "messages":
        tools: list[dict[str, Any]] = [{"name": name, "input_schema": schema} for name in names]
        return {"model": "m", "max_tokens": 99, "messages": _ASKED, **({"tools": tools} if tools else {})}
    function = {"strict": True, "parameters": schema}
    if stream.wire == "responses":
        tools = [{"type": "function", "name": name, **function} for name in names]
        return {"model": "m", "input": _ASKED, **({"tools": tools} if tools else {})}
    tools = [{"type": "function", "function": {"name": name, **function}} for name in names]
    choices = {"n": stream.choices} if stream.choices > 1 else {}
    usage = {"stream_options": {"include_usage": True}}
    return {"model": "m", "messages": _ASKED, **choices, **usage, **({"tools": tools} if tools else {})}


# The consumers.


def _calls_of(client: Any, wire: str, style: str) -> tuple[Callable[..., Any], str]:
    home = {"responses": "responses", "chat": "chat.completions", "messages": "messages"}[wire]
    for name in home.split("."):
        client = getattr(client, name)
    final = {"responses": "response", "chat": "completion", "messages": "message"}[wire]
    return getattr(client, style), f"get_final_{final}"


def consume(client: Any, wire: str, style: str, ask: dict[str, Any]) -> Seen:
    """Read along to the end, or until it breaks."""
    seen = Seen()
    call, final = _calls_of(client, wire, style)
    try:
        if style == "create":
            for event in call(**ask, stream=True):
                seen.events.append(event)
        else:
            with call(**ask) as stream:
                for event in stream:
                    seen.events.append(event)
                seen.final = getattr(stream, final)()
    except Exception as error:  # noqa: BLE001  whatever comes out is what the tests are about
        seen.error = error
    return seen


async def aconsume(client: Any, wire: str, style: str, ask: dict[str, Any]) -> Seen:
    """Read along to the end, or until it breaks."""
    seen = Seen()
    call, final = _calls_of(client, wire, style)
    try:
        if style == "create":
            async for event in await call(**ask, stream=True):
                seen.events.append(event)
        else:
            async with call(**ask) as stream:
                async for event in stream:
                    seen.events.append(event)
                seen.final = await getattr(stream, final)()
    except Exception as error:  # noqa: BLE001  as above
        seen.error = error
    return seen


# What they have.


def view(wire: str, seen: Seen) -> View:
    """What the consumer of this wire has."""
    found = View()
    for event in wire_events(wire, seen):
        _VIEWS[wire](found, event)
    if wire != "responses":
        found.calls = [(name, arguments(found.pieces.get(place, ""))) for place, name in found.names.items()]
    if seen.final is not None:
        found.final = _FINALS[wire](seen.final.to_dict(mode="json", warnings=False))
    return found


def wire_events(wire: str, seen: Seen) -> list[dict[str, Any]]:
    """The wire's own events, without those that a helper adds."""
    if seen.own is None:
        seen.own = list(_wire_events(wire, seen))
    return seen.own


def _wire_events(wire: str, seen: Seen) -> Iterator[dict[str, Any]]:
    for event in seen.events:
        if wire == "chat":
            chunk = event if not hasattr(event, "type") else getattr(event, "chunk", None)
            if chunk is not None:
                yield chunk.to_dict(warnings=False)
        elif wire == "messages":
            if event.type in _MESSAGE_EVENTS:
                yield event.to_dict(warnings=False)
        else:
            yield event.to_dict(warnings=False)


_MESSAGE_EVENTS = frozenset(
    {"message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
     "message_stop"}
)  # fmt: skip


def _responses(found: View, event: dict[str, Any]) -> None:
    kind = event.get("type") or ""
    delta, place = event.get("delta"), event.get("item_id") or event.get("output_index")
    if kind == "response.output_item.added":
        found.names[event["output_index"]] = event["item"].get("phase") or ""
    elif kind == "response.output_text.delta":
        if found.names.get(event["output_index"]) == "analysis":
            found.reasoning += delta
        else:
            found.text[0] = found.text.get(0, "") + delta
    elif kind == "response.refusal.delta":
        found.refusal += delta
    elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
        found.reasoning += delta
    elif kind in ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta"):
        found.pieces[place] = found.pieces.get(place, "") + delta
    elif kind == "response.output_item.done" and event["item"]["type"] in _CALLS:
        found.calls.append(_call(event["item"]))
    elif kind in ("response.completed", "response.incomplete", "response.failed", "error"):
        found.ends.append(kind)


_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}


def _call(item: dict[str, Any]) -> tuple[str, Any]:
    return item["name"], arguments(item[_CALLS[item["type"]]])


def _final_response(response: dict[str, Any]) -> Any:
    items = response.get("output") or []
    parts = [part for item in items if item["type"] == "message" for part in item["content"]]
    said = "".join(part.get("text") or part.get("refusal") or "" for part in parts)
    return response.get("status"), said, [_call(item) for item in items if item["type"] in _CALLS]


def _chat(found: View, chunk: dict[str, Any]) -> None:
    for choice in chunk.get("choices") or []:
        number, delta = choice.get("index", 0), choice.get("delta") or _NONE
        if delta.get("content"):
            found.text[number] = found.text.get(number, "") + delta["content"]
        found.refusal += delta.get("refusal") or ""
        found.reasoning += delta.get("reasoning_content") or delta.get("reasoning") or ""
        for call in delta.get("tool_calls") or []:
            index, function = call.get("index"), call.get("function") or _NONE
            place = (number, call.get("id") if index is None else index)
            found.pieces[place] = found.pieces.get(place, "") + (function.get("arguments") or "")
            if function.get("name"):
                found.names.setdefault(place, function["name"])
        if choice.get("finish_reason"):
            found.ends.append((number, choice["finish_reason"]))


def _final_completion(completion: dict[str, Any]) -> Any:
    def told(choice: dict[str, Any]) -> Any:
        message = choice["message"]
        calls = [call["function"] for call in message.get("tool_calls") or []]
        called = [(call["name"], arguments(call["arguments"])) for call in calls]
        return choice["finish_reason"], message.get("content"), message.get("refusal"), called

    return [told(choice) for choice in completion["choices"]]


def _messages(found: View, event: dict[str, Any]) -> None:
    kind, delta = event["type"], event.get("delta") or _NONE
    if kind == "content_block_start":
        block = event["content_block"]
        found.kinds[event["index"]] = block["type"]
        if "name" in block:
            found.names[event["index"]] = block["name"]
            found.pieces[event["index"]] = json.dumps(block["input"]) if block.get("input") else ""
        if block["type"] == "text":
            found.text[0] = found.text.get(0, "") + block["text"]
    elif delta.get("type") == "text_delta" and found.kinds.get(event["index"]) == "text":
        found.text[0] = found.text.get(0, "") + delta["text"]
    elif delta.get("type") == "thinking_delta":
        found.reasoning += delta["thinking"]
    elif delta.get("type") == "input_json_delta":
        found.pieces[event["index"]] += delta["partial_json"]
    elif kind == "message_delta":
        found.ends.append(delta.get("stop_reason"))
    elif kind == "message_stop":
        found.ends.append(kind)


def arguments(text: str) -> Any:
    """As the value they are; what is not whole is left as it is."""
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text


def _final_message(message: dict[str, Any]) -> Any:
    shown = ("type", "text", "thinking", "signature", "data", "name", "input")
    content = [{name: block.get(name) for name in shown} for block in message["content"]]
    return message.get("stop_reason"), content


_VIEWS = {"responses": _responses, "chat": _chat, "messages": _messages}
_FINALS = {"responses": _final_response, "chat": _final_completion, "messages": _final_message}


# One coherent stream.


def incoherent(wire: str, seen: Seen) -> Iterator[str]:
    """What is wrong with these events as one stream. What a recorded stream does itself is no fault."""
    return _GRAMMARS[wire](wire_events(wire, seen))


def _one_response(events: Sequence[dict[str, Any]]) -> Iterator[str]:
    kinds = Counter(event.get("type") for event in events)
    for kind in ("response.created", "response.in_progress"):
        if kinds[kind] > 1:
            yield f"more than one {kind}"
    ids = {event["response"].get("id") for event in events if event.get("response")}
    if len(ids) > 1:
        yield "more than one response id"
    numbers = [event["sequence_number"] for event in events if event.get("sequence_number") is not None]
    if any(b <= a for a, b in pairwise(numbers)):
        yield "sequence numbers do not rise"
    for name in ("response.output_item.added", "response.output_item.done"):
        places = [event.get("output_index") for event in events if event.get("type") == name]
        if len(places) != len(set(places)):
            yield f"{name} twice for one place"
    yield from _items_announced(events)


def _items_announced(events: Sequence[dict[str, Any]]) -> Iterator[str]:
    open_items: dict[Any, Any] = {}
    for event in events:
        kind, place = event.get("type") or "", event.get("output_index")
        if kind == "response.output_item.added":
            open_items[place] = event["item"].get("id")
        elif place is not None and place not in open_items:
            yield "an item was not announced"
        elif "item_id" in event and event["item_id"] != open_items.get(place):
            yield "an item is called by another id"
        if kind == "response.output_item.done":
            open_items.pop(place, None)


def _one_completion(events: Sequence[dict[str, Any]]) -> Iterator[str]:
    if len({chunk.get("id") for chunk in events}) > 1:
        yield "more than one id"
    if len({chunk.get("created") for chunk in events}) > 1:
        yield "more than one time"
    ended: set[int] = set()
    for chunk in events:
        for choice in chunk.get("choices") or []:
            number, delta = choice.get("index", 0), choice.get("delta") or _NONE
            if number in ended and any(delta.get(name) for name in ("content", "refusal", "tool_calls")):
                yield "more after the finish reason"
            if choice.get("finish_reason"):
                if number in ended:
                    yield "finished twice"
                ended.add(number)
    if sum(bool(chunk.get("usage")) and not chunk.get("choices") for chunk in events) > 1:
        yield "usage twice"


def _one_message(events: Sequence[dict[str, Any]]) -> Iterator[str]:
    kinds = Counter(event["type"] for event in events)
    for kind in ("message_start", "message_delta", "message_stop"):
        if kinds[kind] > 1:
            yield f"more than one {kind}"
    if events and events[0]["type"] != "message_start":
        yield "no message_start"
    following, now = 0, None
    for event in events:
        kind, place = event["type"], event.get("index")
        if kind == "content_block_start":
            if now is not None or place != following:
                yield "a block begins out of turn"
            now, following = place, following + 1
        elif place is not None and place != now:
            yield "a delta or end without its block"
        if kind == "content_block_stop":
            now = None
        if kind in ("message_delta", "message_stop") and now is not None:
            yield "a block is still open"


_GRAMMARS = {"responses": _one_response, "chat": _one_completion, "messages": _one_message}
