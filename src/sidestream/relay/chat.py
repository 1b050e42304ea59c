"""Relaying the Chat Completions wire. Pure.

Strategy: chat has one id and no items, so what goes on after a break is more chunks under the first id. Tool
calls are delivered whole, one chunk each, with the next free index. Reasoning that was shown is not shown a
second time. At the end each choice gets its finish reason, then come usage, if the request asked for it, and
`[DONE]`. Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..assembler import Assembler
from ..reply import Reply, Usage
from ..wire._json import dumps, integer, mapping, sequence, string
from ..wire.events import Event, ReasoningDelta, RefusalDelta, StreamEvent, TextDelta, ToolCall
from ..wire.sse import ServerSentEvent
from .base import Relay, frame

__all__ = ["ChatRelay"]

_DONE = b"data: [DONE]\n\n"
# What a chunk or a completion says besides its choices.
_AROUND = ("id", "created", "model", "system_fingerprint", "service_tier", "provider")


class ChatRelay(Relay):
    """One call's stream of chunks."""

    ignores = frozenset({"reasoning"})

    def __init__(self, body: Mapping[str, Any], *, live: bool = True, sums: bool = True) -> None:
        super().__init__(body, live=live, sums=sums)
        self._shown: dict[str, Any] = {}  # the answer as the consumer knows it
        self._seen: dict[str, Any] = {}  # as this exchange names it
        self._finish: dict[int, str] = {}
        self._usage: dict[str, Any] = {}
        self._roles: set[int] = set()  # choices that have begun
        self._over: set[int] = set()  # choices whose end was delivered
        self._reasoned = False
        self._mute = False  # reasoning was shown by an exchange before
        self._calls: dict[int, int] = {}

    def begun(self, *, goes_on: bool) -> None:
        del goes_on  # chat has no items to find again
        self._seen, self._finish, self._usage = {}, {}, {}
        self._mute = self._reasoned

    def note(self, body: Mapping[str, Any], events: Sequence[Event]) -> None:
        # The first piece of reasoning comes with its item, so it is never a plain delta.
        self._reasoned = self._reasoned or any(isinstance(event, ReasoningDelta) for event in events)
        self._shown = {**_around(body), **self._shown}
        for choice in map(mapping, sequence(body.get("choices"))):
            number = integer(choice.get("index")) or 0
            self._roles.add(number)
            if choice.get("finish_reason"):
                self._over.add(number)

    def glimpse(self, body: Mapping[str, Any]) -> None:
        self._seen = {**_around(body), **self._seen}
        self._usage = mapping(body.get("usage")) or self._usage
        for choice in map(mapping, sequence(body.get("choices"))):
            if reason := string(choice.get("finish_reason")):
                self._finish[integer(choice.get("index")) or 0] = reason

    # Writing.

    def spell(self, event: StreamEvent, assembler: Assembler) -> bytes:
        if isinstance(event, ToolCall):
            number = self._calls.get(event.choice, 0)
            self._calls[event.choice] = number + 1
            return self._chunk(event.choice, {"tool_calls": [{"index": number, **_call(event)}]})
        if isinstance(event, ReasoningDelta):
            if self._mute:
                return b""
            self._reasoned = True
            return self._chunk(assembler.choice_of(event.index), {"reasoning_content": event.delta})
        if isinstance(event, TextDelta | RefusalDelta):
            field = "content" if isinstance(event, TextDelta) else "refusal"
            return self._chunk(assembler.choice_of(event.index), {field: event.delta})
        return b""

    def _chunk(self, choice: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        if choice not in self._roles:
            self._roles.add(choice)
            delta = {"role": "assistant", **delta}
        choices = [{"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}]
        return frame({**self._head("chat.completion.chunk"), "choices": choices})

    def _head(self, kind: str) -> dict[str, Any]:
        self._shown = self._shown or self._seen
        blank = {"id": "chatcmpl-sidestream", "created": 0, "model": string(self.body.get("model"))}
        return {**blank, **self._shown, "object": kind}

    # The end.

    def close(self, reply: Reply, assembler: Assembler) -> bytes:
        frames = [
            self._chunk(choice, {}, self._reason(choice, reply, assembler))
            for choice in self._choices(reply)
            if choice not in self._over
        ]
        options = mapping(self.body.get("stream_options"))
        if options.get("include_usage") and (counts := self._counts(self.tokens(reply))):
            frames.append(frame({**self._head("chat.completion.chunk"), "choices": [], "usage": counts}))
        return b"".join((*frames, _DONE))

    def last_frame(self, sent: Sequence[ServerSentEvent]) -> bytes:
        return b"" if any(frame.data == b"[DONE]" for frame in sent) else _DONE

    def whole(self, reply: Reply, assembler: Assembler) -> bytes:
        said, calls = assembler.channels(), assembler.calls()
        choices: list[dict[str, Any]] = []
        for choice in self._choices(reply):
            own = [_call(call) for call in calls if call.choice == choice]
            text = said.get(("text", choice))
            refusal = said.get(("refusal", choice))
            message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": refusal}
            if thought := said.get(("reasoning", choice)):
                message["reasoning_content"] = thought
            if own:
                message["tool_calls"] = own
            elif text is None and refusal is None:
                message["content"] = ""
            reason = self._reason(choice, reply, assembler)
            choices.append({"index": choice, "message": message, "logprobs": None, "finish_reason": reason})
        counts = self._counts(self.tokens(reply))
        return dumps(
            {**self._head("chat.completion"), "choices": choices, **({"usage": counts} if counts else {})}
        )

    @staticmethod
    def _choices(reply: Reply) -> range:
        return range(max(1, len(reply.texts)))

    def _reason(self, choice: int, reply: Reply, assembler: Assembler) -> str:
        if choice in self._finish:
            return self._finish[choice]
        if any(call.choice == choice for call in assembler.calls()):
            return "tool_calls"
        return reply.finish_reason or "stop"

    def count(self, body: dict[str, Any], usage: Usage) -> bool:
        if not mapping(body.get("usage")):
            return False
        self._usage = mapping(body["usage"])
        body["usage"] = self._counts(usage)
        return True

    def _counts(self, usage: Usage | None) -> dict[str, Any] | None:
        if usage is None or usage.input_tokens is None or usage.output_tokens is None:
            return self._usage or None
        counts = {
            **self._usage,
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
        }
        details = {"cached_tokens": usage.cached_tokens, "reasoning_tokens": usage.reasoning_tokens}
        for field, name in (
            ("prompt_tokens_details", "cached_tokens"), ("completion_tokens_details", "reasoning_tokens")
        ):  # fmt: skip
            if details[name] is not None:
                counts[field] = {**mapping(self._usage.get(field)), name: details[name]}
        return counts


def _around(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in _AROUND if body.get(name)}  # azure's first chunk has them empty


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.call_id, "type": "function", "function": function}
