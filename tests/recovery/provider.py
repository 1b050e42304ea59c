"""A provider that has known things to say, in every manner, and the ways in which it breaks.

`ANSWERS` is what it says, `truth` what a consumer has of that in the end, and `Model` says it on any
wire, anew or from where a partial answer broke off. A `Strike` is what happens to one exchange. The bytes
are the lab's, without its sockets. What calls it, and what is promised, is in `world`. Anthropic answers a
request that breaks its rules with 400; `refused_by_anthropic` knows them, and no request may get that far.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sidestream.lab import items, script, shapes, sse
from sidestream.lab.blocks import PING
from sidestream.lab.continuing import FORMS, REFUSALS, Continuing, _Refused, _text, _turns
from sidestream.lab.record import Request as Asked
from sidestream.lab.record import Wire
from sidestream.lab.script import Script
from sidestream.route import Continuation

__all__ = [
    "ANSWERS", "BREAKS", "ENDS", "ERRORS", "GARBAGE", "MANNERS", "OTHER", "OTHER_CALL", "REJECTIONS",
    "Answer", "Model", "Strike", "Truth", "refused_by_anthropic", "truth",
]  # fmt: skip


# What is said.


@dataclass(frozen=True)
class Answer:
    """What a model has to say: ("reasoning" | "commentary" | "text", words) and ("call", arguments, name).

    `short`: the token limit ends it in the middle of its last part; if that is a call, it is none.
    """

    name: str
    parts: tuple[tuple[str, ...], ...]
    short: bool = False

    @property
    def calls(self) -> tuple[tuple[str, str], ...]:
        whole = self.parts[:-1] if self.short else self.parts
        return tuple((part[2], part[1]) for part in whole if part[0] == "call")

    @property
    def tools(self) -> frozenset[str]:
        return frozenset(part[2] for part in self.parts if part[0] == "call")


@dataclass(frozen=True)
class Truth:
    """What a consumer has in the end, if an answer came on a wire."""

    channels: dict[str, str]
    calls: tuple[tuple[str, str], ...]
    short: bool


@cache
def truth(answer: Answer, wire: str) -> Truth:
    """Only Responses has commentary."""
    kinds = ("text", "reasoning", "commentary") if wire == "responses" else ("text", "reasoning")
    said = {kind: "".join(part[1] for part in answer.parts if part[0] == kind) for kind in kinds}
    return Truth({kind: text for kind, text in said.items() if text}, answer.calls, answer.short)


_PROSE = script.words(90, seed=1)
_TABLE = "".join(f"| {n} | row of the table | ok |\n" for n in range(14))
_CODE = "```python\ndef f(n):\n    return n\n```\n\nAnd then:\n\n```python\ndef g(n):\n    return f(n)\n```\n"
_EMOJI = "Zoë 👩‍👩‍👧‍👦 and 🇨🇭 say: naïve café, 数据流, e\u0301tude. " * 3 + "End 🙂"
_SUM = ('{"a": 1, "b": "ü"}', "sum")
_FIND = ('{"q": "where is 数据?", "n": 3}', "find")
ANSWERS: tuple[Answer, ...] = (
    Answer("a word", (("text", "Yes."),)),
    Answer("a sentence", (("text", "The stream ends where the wire says so, and nowhere else."),)),
    Answer("prose", (("text", _PROSE),)),
    Answer("long prose", (("text", script.words(240, seed=2)),)),
    Answer("emoji", (("text", _EMOJI),)),
    Answer("a table", (("text", _TABLE),)),
    Answer("code", (("text", _CODE),)),
    Answer("repeats itself", (("text", "tick tock " * 30 + "boom"),)),
    Answer(
        "white space", (("text", "First line.\n\n   Indented   here \n\n\n- one\n- two \n\nLast line.\n"),)
    ),
    Answer("thought first", (("reasoning", "Let me think about it."), ("text", script.words(40, seed=3)))),
    Answer("thought alone first", (("reasoning", script.words(50, seed=4)), ("text", "Forty-two it is."))),
    Answer(
        "commentary",
        (("commentary", "I am looking into it now. "), ("text", script.words(50, seed=5))),
    ),
    Answer(
        "two messages", (("text", script.words(30, seed=6)), ("text", " And: " + script.words(30, seed=7)))
    ),
    Answer(
        "a blank message first",
        (("reasoning", "Well."), ("text", "\n\n"), ("text", script.words(40, seed=11))),
    ),
    Answer("a call", (("call", *_SUM),)),
    Answer("parallel calls", (("call", *_SUM), ("call", *_FIND), ("call", "{}", "now"))),
    Answer("text, then a call", (("text", "I will add these two up for you: "), ("call", *_SUM))),
    Answer(
        "thought, text, calls",
        (("reasoning", "Two calls."), ("text", script.words(25, seed=8)), ("call", *_SUM), ("call", *_FIND)),
    ),
    Answer("cut short", (("text", script.words(60, seed=9)),), short=True),
    Answer(
        "cut short in a call",
        (("text", "One moment. "), ("call", *_SUM), ("call", _FIND[0][:20], "find")),
        short=True,
    ),
    Answer("cut short before a call's arguments", (("call", *_SUM), ("call", "", "now")), short=True),
)
OTHER = Answer(
    "another", (("reasoning", "Hm, or else."), ("text", "Something else: " + script.words(45, seed=10)))
)
OTHER_CALL = Answer("another call", (("text", "I prefer this: "), ("call", *_FIND)))


# What goes wrong.

BREAKS = (
    "none", "end", "drop", "stall", "garbage", "error", "503", "429", "refused", "lost", "twice", "html",
    "far", "quota", "parameter", "unreachable",
)  # fmt: skip
"""Ways in which one exchange can go: "lost" and "twice" are about its end marker, "far" is a 429 that asks
for a long wait, "unreachable" a connection that hangs."""

Rejection = tuple[int, dict[str, str], bytes]
_OPENAI: dict[str, Rejection] = {
    "503": (503, {}, b'{"error":{"message":"m","code":"service_unavailable"}}'),
    "429": (429, {"retry-after": "2"}, b"{}"),
    "far": (429, {"retry-after": "60"}, b"{}"),
    "quota": (429, {}, b'{"error":{"code":"insufficient_quota","message":"m"}}'),
    "parameter": (400, {}, b'{"error":{"code":"unsupported_parameter","param":"temperature","message":"m"}}'),
}
_ANTHROPIC: dict[str, Rejection] = {
    name: (answer.status, headers, answer.body)
    for name, headers, answer in (
        ("503", {}, script.messages_problem(529, "Overloaded")),
        ("429", {"retry-after": "2"}, script.messages_problem(429, "This request would exceed the limit.")),
        ("far", {"retry-after": "60"}, script.messages_problem(429, "This request would exceed the limit.")),
        ("quota", {}, script.messages_problem(400, "Your credit balance is too low to access the API.")),
        ("parameter", {}, script.messages_problem(400, "temperature: Extra inputs are not permitted")),
    )
}
REJECTIONS = {"responses": _OPENAI, "chat": _OPENAI, "messages": _ANTHROPIC}
ERRORS = {
    "responses": [shapes.ERRORS[name] for name in ("responses", "responses_nested", "responses_failed")],
    "chat": [shapes.ERRORS[name] for name in ("openai_chat", "vllm", "openrouter", "groq", "llamacpp_field")],
    "messages": [
        shapes.ERRORS[f"anthropic_{name}"] for name in ("overloaded", "api", "timeout", "rate_limit")
    ],
}
GARBAGE = (
    b"\n\ndata: {nonsense\n\n",
    b'\n\ndata: {"type":5}\n\ndata: }{\n\n',
    b"\n\ndata: \xff\xfe\x00\n\n",
)
MANNERS = ("obedient", "preamble", "no_anchor", "twice", "fenced", "restart", "other", "refuses", "ignores")
ENDS = re.compile(
    rb'"finish_reason":"|data: \[DONE\]\n\n|data: {"type":"response\.(completed|incomplete)"'
    rb'|^{.*"status":"(completed|incomplete)|"stop_reason":"|data: {"type":"message_stop"'
)


@dataclass(frozen=True)
class Strike:
    """What happens to one exchange.

    Attributes:
        kind: of BREAKS.
        where, offset: the event it strikes, as a share of all (negative: counted from the first), and where
            in that event.
        variant: which garbage, error or refusal; on Messages how it says nothing, and how often it pings.
        manner: how an anchor is taken. With "refuses" a prefill is a 400, too; with "ignores" it is taken
            for an earlier turn, and the answer comes anew.
        other: a new answer is another one.
        aside: a continuation thinks and chats first.
        grain: characters to a delta, 0 for words.
        pieces: how the bytes come: 0 event by event, -1 byte by byte, otherwise so many chunks.
        pace: seconds between chunks, on average.
        usage: tokens are reported.
    """

    kind: str = "none"
    where: float = 0.5
    offset: float = 0.0
    variant: int = 0
    manner: str = "obedient"
    other: bool = False
    aside: bool = False
    grain: int = 0
    pieces: int = 0
    pace: float = 0.1
    usage: bool = True

    def __repr__(self) -> str:
        plain = Strike()
        said = {name: getattr(self, name) for name in self.__dataclass_fields__}
        shown = (f"{name}={value!r}" for name, value in said.items() if value != getattr(plain, name))
        return f"Strike({', '.join(shown)})"


# Who says it.


class _Words(Continuing):
    """The lab's model, asked for its words alone."""

    def words(self, body: dict[str, Any], wire: Wire) -> tuple[str, str]:
        """What is repeated of the prompt, and what is generated."""
        return self._words(body, _turns(body), wire)


class Model:
    """Says the answer on any wire, anew or from where a partial one broke off, in the strike's manner."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.strike = Strike()
        self.number = 0
        self.form: Continuation = "none"
        self.asked_how = "fresh"

    def __call__(self, request: Asked) -> Script:
        body, wire = request.fields(), request.wire
        if wire == "messages":
            wrong = refused_by_anthropic(body)
            assert not wrong, f"Anthropic answers 400: {wrong}"
            body = body | {"messages": _block_by_block(body["messages"])}
        entries = [
            entry for entry in body.get("messages", body.get("input")) if entry.get("role") != "system"
        ]
        said = [_text(entry) for entry in entries[1:] if entry.get("role") == "assistant"]
        if not said:
            self.asked_how = "fresh"
            return self._say(wire, self._fresh().parts, self._fresh().short, bool(body.get("background")))
        self.asked_how = "prefill" if entries[-1]["role"] == "assistant" else "anchor"
        answer, last, text = self._place(wire, said)
        try:
            echoed, new = self._words(text).words(body, wire)
        except _Refused as refused:
            if self.strike.manner not in ("refuses", "ignores"):
                raise AssertionError(f"the partial was spliced wrongly: {refused}") from None
            return refused.on(wire)
        strays = self.asked_how == "anchor" and self.strike.manner == "other"
        rest = () if strays else answer.parts[last + 1 :]
        parts = (*self._asides(), ("text", new, echoed), *rest)
        return self._say(wire, parts, answer.short, bool(body.get("background")))

    def _fresh(self) -> Answer:
        if not self.strike.other:
            return self._answer
        return OTHER_CALL if self._answer.tools else OTHER

    def _place(self, wire: Wire, said: list[str]) -> tuple[Answer, int, str]:
        """Which answer the partial is of, the last of its parts that the open message holds, and its text."""
        for answer in (self._answer, OTHER, OTHER_CALL):
            if (found := _open_message(answer, said, whole=wire == "chat")) is not None:
                return answer, *found
        raise AssertionError(f"the partial is no beginning of any answer: {said}")

    def _words(self, text: str) -> _Words:
        strike = self.strike
        accepts = (
            () if strike.manner in ("refuses", "ignores") else (*(set(FORMS) - {"prefix"}), self._prefix())
        )
        manner: Any = _MANNERS.get(strike.manner, strike.manner)
        refusal = None if strike.manner == "ignores" else _REFUSED[strike.variant % len(_REFUSED)]
        return _Words(text, accepts=accepts, manner=manner, refusal=refusal)

    def _prefix(self) -> Any:
        return "prefix_echoed" if self.form == "prefix_echoed" else "prefix"

    def _asides(self) -> tuple[tuple[str, ...], ...]:
        if not self.strike.aside:
            return ()
        return (("reasoning", "Where was I?"), ("commentary", "Going on. "))

    # On the wire.

    def _deltas(self, text: str) -> list[str]:
        grain = max(self.strike.grain, len(text) // 60) if self.strike.grain else 0
        if not grain:
            return items.pieces(text)
        return [text[at : at + grain] for at in range(0, len(text), grain)]

    def _say(self, wire: str, parts: Sequence[tuple[str, ...]], short: bool, background: bool) -> Script:
        if wire == "chat":
            return self._chat(parts, short)
        if wire == "messages":
            return self._messages(parts, short)
        return self._responses(parts, short, background)

    def _responses(self, parts: Sequence[tuple[str, ...]], short: bool, background: bool) -> Script:
        return script.responses(
            *(
                self._item(part, number, cut=short and number == len(parts) - 1)
                for number, part in enumerate(parts)
            ),
            response_id=f"resp_{self.number}",
            usage=self.strike.usage,
            ending="incomplete" if short else "completed",
            details={"incomplete_details": {"reason": "max_output_tokens"}} if short else None,
            background=background,
        )

    def _item(self, part: tuple[str, ...], number: int, *, cut: bool) -> items.Item:
        kind, text = part[:2]
        if kind == "call":
            call_id = f"call_{self.number}_{number}"
            call = items.call(part[2], text, call_id=call_id, tokens=1 + len(text) // 9)
            return replace(call, done=call.done | {"status": "incomplete"}) if cut else call
        if kind == "reasoning":
            return items.reasoning(text)
        if kind == "commentary":
            return items.said(self._deltas(text), phase="commentary")
        said = items.said([*self._deltas("".join(part[2:])), *self._deltas(text)])
        return replace(said, done=said.done | {"status": "incomplete"}) if cut else said

    def _messages(self, parts: Sequence[tuple[str, ...]], short: bool) -> Script:
        """Without commentary. A text of nothing is no block, or an empty one."""
        silent = self.strike.variant % 2
        kept = [part for part in parts if part[0] != "commentary" and not (silent and not "".join(part[1:]))]
        said = script.messages(
            *(self._block(part, number) for number, part in enumerate(kept)),
            message_id=f"msg_{self.number}",
            usage=self.strike.usage,
            stop_reason="max_tokens" if short else "",
        )
        for at in range(3, len(said.events), 3) if self.strike.variant == _PINGS else ():
            said = said.insert(at, sse.encode(PING, "ping"))
        return said

    def _block(self, part: tuple[str, ...], number: int) -> items.Item:
        """The input of a call that needs none is not sent, or is `{}`."""
        if part[0] == "call" and part[1] == "{}" and self.strike.variant % 2:
            part = ("call", "", part[2])
        return self._item(part, number, cut=False)

    def _chat(self, parts: Sequence[tuple[str, ...]], short: bool) -> Script:
        deltas: list[dict[str, Any]] = []
        calls = 0
        for part in parts:
            if part[0] == "call":
                deltas += self._chat_call(part, calls)
                calls += 1
            elif part[0] != "commentary":
                name = "content" if part[0] == "text" else "reasoning_content"
                deltas += [{name: piece} for piece in self._deltas("".join(part[2:])) + self._deltas(part[1])]
        finish = "length" if short else "tool_calls" if calls else "stop"
        return script.chat(
            *deltas, completion_id=f"chatcmpl-{self.number}", finish=finish, usage=self.strike.usage
        )

    def _chat_call(self, part: tuple[str, ...], index: int) -> list[dict[str, Any]]:
        function = {"name": part[2], "arguments": ""}
        opening = {"index": index, "id": f"call_{self.number}_{index}", "function": function}
        fragments = items.pieces(part[1], 1 + len(part[1]) // 9) if part[1] else []
        rest = ({"index": index, "function": {"arguments": piece}} for piece in fragments)
        return [{"tool_calls": [piece]} for piece in (opening, *rest)]


# What Anthropic does not take. Source: https://platform.claude.com/docs/en/api/messages

_FIELDS = frozenset(
    {
        "max_tokens", "messages", "metadata", "model", "service_tier", "stop_sequences", "stream", "system",
        "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p",
    }
)  # fmt: skip


def refused_by_anthropic(body: dict[str, Any]) -> str:
    """What is wrong with a request on the Messages wire, or ""."""
    if unknown := body.keys() - _FIELDS:
        return f"{min(unknown)}: Extra inputs are not permitted"
    turns, limit = body["messages"], body.get("max_tokens")
    thinks = (body.get("thinking") or {}).get("budget_tokens", 0)
    if not isinstance(limit, int) or limit < 1 or limit <= thinks:
        return "max_tokens: must be at least 1, and greater than thinking.budget_tokens"
    if [turn["role"] for turn in turns] != [("user", "assistant")[n % 2] for n in range(len(turns))]:
        return "messages: roles must alternate, and the first is the user's"
    texts = [text for turn in turns for text in _texts(turn)]
    if not all(text.strip() for text in texts):
        return "messages: text content blocks must contain non-whitespace text"
    if turns[-1]["role"] == "assistant" and texts[-1] != texts[-1].rstrip():
        return "messages: final assistant content cannot end with trailing whitespace"
    if turns[-1]["role"] == "assistant" and thinks:
        return "messages: a prefilled turn does not go with thinking"
    return ""


def _texts(turn: dict[str, Any]) -> list[str]:
    content = turn["content"]
    return [content] if isinstance(content, str) else [part["text"] for part in content if "text" in part]


def _block_by_block(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each text as a turn of its own, as on the other wires."""
    return [{"role": turn["role"], "content": text} for turn in turns for text in _texts(turn)]


def _without_anchor(anchor: str, rest: str) -> str:
    """Only the rest; if the anchor comes again in it, nobody could tell that it was left out."""
    return anchor + rest if anchor in rest else rest


def _fenced(anchor: str, rest: str) -> str:
    """In a block of its own; where a block is open already, only a reader could tell the two apart."""
    return anchor + rest if "```" in rest else f"```\n{anchor}{rest}\n```"


_PINGS = 4  # the variant that pings all the time
_REFUSED = (*REFUSALS, "lab: no such thing here")
_MANNERS: dict[str, Any] = {
    "refuses": "obedient",
    "ignores": "obedient",
    "no_anchor": _without_anchor,
    "fenced": _fenced,
}


def _open_message(answer: Answer, said: list[str], *, whole: bool) -> tuple[int, str] | None:
    """The last part and the whole text of the message whose beginning the last of `said` is.

    Chat says all its text in one message: a partial from there may be the beginning of several. `whole`: the
    model that goes on speaks chat.
    """
    at, parts = 0, answer.parts
    for text in said[:-1]:
        found = _skip_to(parts, at, lambda part, text=text: part[1] == text)  # type: ignore[misc]
        if found is None:
            return None
        at = found + 1
    first = _skip_to(parts, at, lambda part: part[0] == "text" and _alike(part[1], said[-1]))
    if first is None:
        return None
    last, text = first, parts[first][1]
    for number in range(first + 1, len(parts)):
        if parts[number][0] == "call" or (not whole and text.startswith(said[-1])):
            break
        if parts[number][0] == "text":
            last, text = number, text + parts[number][1]
    return (last, text) if text.startswith(said[-1]) else None


def _alike(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _skip_to(
    parts: tuple[tuple[str, ...], ...], at: int, wanted: Callable[[tuple[str, ...]], bool]
) -> int | None:
    """The next part that is wanted; only what is no text, or blank, may be skipped."""
    for number in range(at, len(parts)):
        if wanted(parts[number]):
            return number
        kind, words = parts[number][:2]
        if kind == "call" or (kind == "text" and words.strip()):
            return None
    return None
