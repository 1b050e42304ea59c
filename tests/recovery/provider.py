"""A provider that has known things to say, in every manner, and the ways in which it breaks.

`ANSWERS` is what it says, `truth` what a consumer has of that in the end, and `Model` says it on either
wire, anew or from where a partial answer broke off. A `Strike` is what happens to one exchange. The bytes
are the lab's, without its sockets. What calls it, and what is promised, is in `world`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sidestream.lab import items, script, shapes
from sidestream.lab.continuing import FORMS, REFUSALS, Continuing, _Refused, _text, _turns
from sidestream.lab.record import Request as Asked
from sidestream.lab.script import Script
from sidestream.route import Continuation

__all__ = [
    "ANSWERS", "BREAKS", "ENDS", "ERRORS", "GARBAGE", "MANNERS", "OTHER", "OTHER_CALL", "REJECTIONS",
    "Answer", "Model", "Strike", "Truth", "truth",
]  # fmt: skip


# What is said.


@dataclass(frozen=True)
class Answer:
    """What a model has to say: ("reasoning" | "commentary" | "text", words) and ("call", arguments, name)."""

    name: str
    parts: tuple[tuple[str, ...], ...]
    short: bool = False

    @property
    def calls(self) -> tuple[tuple[str, str], ...]:
        return tuple((part[2], part[1]) for part in self.parts if part[0] == "call")


@dataclass(frozen=True)
class Truth:
    """What a consumer has in the end, if an answer came on a wire."""

    channels: dict[str, str]
    calls: tuple[tuple[str, str], ...]
    short: bool


@cache
def truth(answer: Answer, wire: str) -> Truth:
    """Chat has no commentary."""
    kinds = ("text", "reasoning") if wire == "chat" else ("text", "reasoning", "commentary")
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
    Answer("a call", (("call", *_SUM),)),
    Answer("parallel calls", (("call", *_SUM), ("call", *_FIND), ("call", "{}", "now"))),
    Answer("text, then a call", (("text", "I will add these two up for you: "), ("call", *_SUM))),
    Answer(
        "thought, text, calls",
        (("reasoning", "Two calls."), ("text", script.words(25, seed=8)), ("call", *_SUM), ("call", *_FIND)),
    ),
    Answer("cut short", (("text", script.words(60, seed=9)),), short=True),
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

REJECTIONS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "503": (503, {}, b'{"error":{"message":"m","code":"service_unavailable"}}'),
    "429": (429, {"retry-after": "2"}, b"{}"),
    "far": (429, {"retry-after": "60"}, b"{}"),
    "quota": (429, {}, b'{"error":{"code":"insufficient_quota","message":"m"}}'),
    "parameter": (400, {}, b'{"error":{"code":"unsupported_parameter","param":"temperature","message":"m"}}'),
}
ERRORS = {
    "responses": [shapes.ERRORS[name] for name in ("responses", "responses_nested", "responses_failed")],
    "chat": [shapes.ERRORS[name] for name in ("openai_chat", "vllm", "openrouter", "groq", "llamacpp_field")],
}
GARBAGE = (
    b"\n\ndata: {nonsense\n\n",
    b'\n\ndata: {"type":5}\n\ndata: }{\n\n',
    b"\n\ndata: \xff\xfe\x00\n\n",
)
MANNERS = ("obedient", "preamble", "no_anchor", "twice", "fenced", "restart", "other", "refuses", "ignores")
ENDS = re.compile(
    rb'"finish_reason":"|data: \[DONE\]\n\n|data: {"type":"response\.(completed|incomplete)"'
    rb'|^{.*"status":"(completed|incomplete)'
)


@dataclass(frozen=True)
class Strike:
    """What happens to one exchange.

    Attributes:
        kind: of BREAKS.
        where, offset: the event it strikes, as a share of all (negative: counted from the first), and where
            in that event.
        variant: which garbage, error or refusal.
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

    def words(self, body: dict[str, Any]) -> tuple[str, str]:
        """What is repeated of the prompt, and what is generated."""
        return self._words(body, _turns(body))


class Model:
    """Says the answer on either wire, anew or from where a partial one broke off, in the strike's manner."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.strike = Strike()
        self.number = 0
        self.form: Continuation = "none"
        self.asked_how = "fresh"

    def __call__(self, request: Asked) -> Script:
        body, wire = request.fields(), request.wire
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
            echoed, new = self._words(text).words(body)
        except _Refused as refused:
            if self.strike.manner not in ("refuses", "ignores"):
                raise AssertionError(f"the partial was spliced wrongly: {refused}") from None
            return refused.answer
        strays = self.asked_how == "anchor" and self.strike.manner == "other"
        rest = () if strays else answer.parts[last + 1 :]
        parts = (*self._asides(), ("text", new, echoed), *rest)
        return self._say(wire, parts, answer.short, bool(body.get("background")))

    def _fresh(self) -> Answer:
        if not self.strike.other:
            return self._answer
        return OTHER_CALL if self._answer.calls else OTHER

    def _place(self, wire: str, said: list[str]) -> tuple[Answer, int, str]:
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
            return items.call(
                part[2], text, call_id=f"call_{self.number}_{number}", tokens=1 + len(text) // 9
            )
        if kind == "reasoning":
            return items.reasoning(text)
        if kind == "commentary":
            return items.said(self._deltas(text), phase="commentary")
        said = items.said([*self._deltas("".join(part[2:])), *self._deltas(text)])
        return replace(said, done=said.done | {"status": "incomplete"}) if cut else said

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
        fragments = items.pieces(part[1], 1 + len(part[1]) // 9)
        rest = ({"index": index, "function": {"arguments": piece}} for piece in fragments)
        return [{"tool_calls": [piece]} for piece in (opening, *rest)]


def _without_anchor(anchor: str, rest: str) -> str:
    """Only the rest; if the anchor comes again in it, nobody could tell that it was left out."""
    return anchor + rest if anchor in rest else rest


def _fenced(anchor: str, rest: str) -> str:
    """In a block of its own; where a block is open already, only a reader could tell the two apart."""
    return anchor + rest if "```" in rest else f"```\n{anchor}{rest}\n```"


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
    """The next part that is wanted; only what is no text may be skipped."""
    for number in range(at, len(parts)):
        if wanted(parts[number]):
            return number
        if parts[number][0] in ("text", "call"):
            return None
    return None
