"""A model that goes on with a partial answer, as real ones do: after a prefill, or after a quoted anchor.

`Continuing` looks at how the conversation ends. A last assistant turn is a prefill, in one of the forms that
providers have for it (`Form`). A last user turn with a line `<last_words>…</last_words>` (numbered when the
words contain the closing tag: `<last_words_2>`) is an anchor: the model says these words again and goes on
behind them, or does what its `manner` is. Anything else is a question, answered from the start.

The answer is a fixed text, so a continuation can be checked to the character: what is asked to be continued
and is not how the text begins is a 400, because then the client under test has spliced wrongly. Nothing
here breaks a stream; that is the plan's part. On the Messages wire errors are worded as Anthropic does, and a
prefill must not end in whitespace.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from ..errors import UsageError
from . import items, script
from .script import Script

if TYPE_CHECKING:
    from .record import Request, Wire

__all__ = ["FORMS", "REFUSALS", "Continuing", "Form", "Manner"]

Form = Literal["anchor", "trailing", "prefix", "prefix_echoed", "partial", "continue_final_message"]
Manner = Literal["obedient", "preamble", "no_anchor", "twice", "fenced", "restart", "other"]

FORMS: tuple[Form, ...] = ("anchor", "trailing", "prefix", "partial", "continue_final_message")
"""Every form but "prefix_echoed", whose request is the same as that of "prefix"."""

# What is said for (whole text, anchor, text after the anchor).
_MANNERS: dict[str, Callable[[str, str, str], str]] = {
    "obedient": lambda _, anchor, rest: anchor + rest,
    "preamble": lambda _, anchor, rest: f"Sure, here is the rest:\n\n{anchor}{rest}",
    "no_anchor": lambda _text, _anchor, rest: rest,
    "twice": lambda _, anchor, rest: anchor + anchor + rest,
    "fenced": lambda _, anchor, rest: f"```\n{anchor}{rest}\n```",
    "restart": lambda text, _anchor, _rest: text,
    "other": lambda *_: "I would rather say something else, and here it is: forty-two.",
}


REFUSALS: dict[str, Script] = {
    "anthropic": script.messages_problem(
        400,
        "This model does not support assistant message prefill. "
        "The conversation must end with a user message.",
    ),
    "anthropic_short": script.messages_problem(
        400, "Prefilling assistant messages is not supported for this model."
    ),
    "llamacpp": script.problem(
        400, "Assistant response prefill is incompatible with enable_thinking.", code=400
    ),
}
"""The 400 for a prefill that is not taken, by name."""

_ANCHOR = re.compile(r"^<(last_words(?:_\d+)?)>(?P<anchor>.*?)</\1>", re.MULTILINE | re.DOTALL)
_WHITESPACE = "messages: final assistant content cannot end with trailing whitespace"
_LIMITS = ("max_output_tokens", "max_completion_tokens", "max_tokens")


class _Refused(Exception):
    """The request gets this answer."""

    def __init__(self, answer: Script | str) -> None:
        super().__init__(answer)
        self._answer = answer

    def on(self, wire: Wire) -> Script:
        """The 400 in the words of this wire, unless the answer is a whole one already."""
        if not isinstance(self._answer, str):
            return self._answer
        worded = script.messages_problem if wire == "messages" else script.problem
        return worded(400, self._answer)


@dataclass(frozen=True, slots=True)
class Continuing:
    """An answer function: says `text` on the wire it is asked on, and continues a partial `text` if asked to.

    ::

        Lab(Continuing(text, accepts=("prefix",)), plan=Plan([Fault.cut(after_event=9)]))

    Attributes:
        text: the whole answer.
        accepts: the forms it continues. Another prefill gets the `refusal`, another anchor a plain 400.
        manner: how it takes an anchor: a name, or a function from the anchor and the text after it to what is
            said.
        refusal: a name from `REFUSALS`, or the message itself. None: no refusal; the partial counts as an
            earlier turn and the answer comes anew, from the start.
        echo: every prefill is repeated before it goes on, not only that of the form "prefix_echoed".
        limited: `max_tokens`, `max_completion_tokens` and `max_output_tokens` of the request end the answer
            (finish reason "length", an incomplete response, or stop reason "max_tokens") when it is longer.
            An echo costs nothing.
        tokens_of: cuts what is said into tokens, one per delta; joined they are the same text. By default
            words with the space before them; `list` makes every character a token.
        usage: whether tokens are reported: a quarter of the characters of the JSON of `messages` or `input`,
            and the tokens generated.
        pace: seconds between two events.
        model: the model's name in the answer.

    Raises:
        UsageError: no such form or manner, or both "prefix" and "prefix_echoed", which cannot be told apart.
    """

    text: str
    _: KW_ONLY
    accepts: Collection[Form] = FORMS
    manner: Manner | Callable[[str, str], str] = "obedient"
    refusal: str | None = "anthropic"
    echo: bool = False
    limited: bool = False
    tokens_of: Callable[[str], Sequence[str]] = items.pieces
    usage: bool = True
    pace: float = 0.0
    model: str = "lab-1"

    def __post_init__(self) -> None:
        if unknown := [form for form in self.accepts if form not in get_args(Form)]:
            raise UsageError(f"no form named {unknown[0]!r}", hint=f"some of {', '.join(get_args(Form))}")
        if {"prefix", "prefix_echoed"} <= set(self.accepts):
            raise UsageError("prefix and prefix_echoed are the same request", hint="accept one of them")
        if not callable(self.manner) and self.manner not in _MANNERS:
            raise UsageError(f"no manner named {self.manner!r}", hint=f"one of {', '.join(_MANNERS)}")

    def __call__(self, request: Request) -> Script:
        """The answer to one request."""
        body = request.fields()
        try:
            echoed, said = self._words(body, _turns(body), request.wire)
        except _Refused as refused:
            return refused.on(request.wire)
        tokens = list(self.tokens_of(said))
        kept = tokens[: _limit(body)] if self.limited else tokens
        deltas = [*self.tokens_of(echoed), *kept]
        make = {"chat": self._chat, "messages": self._message}.get(request.wire, self._response)
        stream = make(deltas, request.attempt, spent=(_prompt_tokens(body), len(kept)), short=kept != tokens)
        return script.as_asked(stream.sent(pace=self.pace), request)

    # What is said.

    def _words(self, body: dict[str, Any], turns: list[dict[str, Any]], wire: Wire) -> tuple[str, str]:
        """What is repeated of the prompt, and what is generated."""
        last = turns[-1] if turns else {}
        if last.get("role") == "assistant":
            return self._prefilled(body, last, wire)
        if last.get("role") == "user" and (quoted := _ANCHOR.search(_text(last))):
            return "", self._anchored(quoted["anchor"], turns[:-1])
        return "", self.text

    def _prefilled(self, body: dict[str, Any], last: dict[str, Any], wire: Wire) -> tuple[str, str]:
        form, partial = self._form(body, last), _text(last)
        if form not in self.accepts and self.refusal is not None:
            raise _Refused(REFUSALS.get(self.refusal, self.refusal))
        if wire == "messages" and partial != partial.rstrip():
            raise _Refused(_WHITESPACE)
        if form not in self.accepts:
            return "", self.text
        self._begins(partial)
        return partial if self.echo or form == "prefix_echoed" else "", self.text[len(partial) :]

    def _form(self, body: dict[str, Any], last: dict[str, Any]) -> Form:
        if body.get("continue_final_message") is True:
            if body.get("add_generation_prompt") is not False:  # it is true where it is left out
                both = "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
                raise _Refused(both)
            return "continue_final_message"
        if last.get("prefix") is True:
            return "prefix_echoed" if "prefix_echoed" in self.accepts else "prefix"
        return "partial" if last.get("partial") is True else "trailing"

    def _anchored(self, anchor: str, earlier: list[dict[str, Any]]) -> str:
        if "anchor" not in self.accepts:
            raise _Refused("lab: this model continues nothing by its last words")
        before = earlier[-1] if earlier else {}
        if before.get("role") != "assistant":
            raise _Refused("lab: the turn before the last words is not the assistant's")
        partial = self._begins(_text(before))
        start = partial.rfind(anchor)
        if start < 0:
            raise _Refused(f"lab: the assistant turn does not have these last words: {anchor!r}")
        rest = self.text[start + len(anchor) :]
        if callable(self.manner):
            return self.manner(anchor, rest)
        return _MANNERS[self.manner](self.text, anchor, rest)

    def _begins(self, partial: str) -> str:
        if self.text.startswith(partial):
            return partial
        same = next((n for n, (a, b) in enumerate(zip(partial, self.text, strict=False)) if a != b), None)
        at = len(self.text) if same is None else same
        seen = f"{partial[at : at + 20]!r} in place of {self.text[at : at + 20]!r}"
        raise _Refused(f"lab: the partial is not how the answer begins: at character {at} {seen}")

    # How it is said.

    def _chat(self, deltas: list[str], attempt: int, *, spent: tuple[int, int], short: bool) -> Script:
        return script.chat(
            *({"content": delta} for delta in deltas),
            model=self.model,
            usage=self.usage,
            completion_id=f"chatcmpl-lab-{attempt}",
            finish="length" if short else "stop",
            spent=spent,
        )

    def _message(self, deltas: list[str], attempt: int, *, spent: tuple[int, int], short: bool) -> Script:
        return script.messages(
            items.said(deltas),
            model=self.model,
            usage=self.usage,
            message_id=f"msg_lab_{attempt}",
            stop_reason="max_tokens" if short else "end_turn",
            spent=spent,
            headers=(("request-id", f"req_lab_{attempt}"),),
        )

    def _response(self, deltas: list[str], attempt: int, *, spent: tuple[int, int], short: bool) -> Script:
        item = items.said(deltas)
        if short:
            item = dataclasses.replace(item, done=item.done | {"status": "incomplete"})
        return script.responses(
            item,
            model=self.model,
            usage=self.usage,
            response_id=f"resp_lab_{attempt}",
            ending="incomplete" if short else "completed",
            details={"incomplete_details": {"reason": "max_output_tokens"}} if short else None,
            spent=spent,
        )


def _turns(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Messages or items in order, without reasoning, which is part of no turn."""
    entries = _entries(body)
    if not isinstance(entries, list):
        return [{"role": "user", "content": entries}]
    return [entry for entry in entries if isinstance(entry, dict) and entry.get("type") != "reasoning"]


def _entries(body: dict[str, Any]) -> Any:
    return body.get("messages", body.get("input"))


def _text(turn: dict[str, Any]) -> str:
    content = turn.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _limit(body: dict[str, Any]) -> int | None:
    given = (body.get(name) for name in _LIMITS)
    return next((limit for limit in given if isinstance(limit, int) and limit >= 0), None)


def _prompt_tokens(body: dict[str, Any]) -> int:
    return len(msgspec.json.encode(_entries(body)).decode()) // 4
