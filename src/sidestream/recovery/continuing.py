"""How a model is asked to go on with an answer that broke off. Pure.

Strategy: a continuation is the caller's own request with the partial answer added as the assistant's turn.
`prefill` leaves it at that, marked in the dialect of the endpoint; `anchor` adds a user turn. That turn
speaks as the user whose connection dropped, because that is what happened: models refuse "transport notices"
and instructions in a system voice. It says that tools are still there, because models read a request to
continue as a change of what they may do; it adds no system message, forces no tool, and quotes the last
words, because an anchor that was asked for can be checked and white space that was not asked for gets lost.

The output limit shrinks by what has arrived. `ways` says which of the two an answer, its request and a route
allow; `continued` makes the request and the `Splice` that its stream goes through. A live consumer has seen
the last white space and half word, so they stay; of a held answer they are cut off and written again.
 Sources: https://docs.mistral.ai/capabilities/completion/,
https://api-docs.deepseek.com/guides/chat_prefix_completion, https://platform.kimi.ai/docs/guide/use-partial-mode-feature-of-kimi-api,
https://platform.claude.com/docs/en/build-with-claude/streaming (error recovery)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from ..assembler import Assembler, Loose
from ..route import Route
from ..wire._json import mapping
from ..wire.prompt import Request
from .rungs import Ways
from .seam import Anchor, AnchorSeam, PrefillSeam, find_anchor, whole_words, without_end
from .splice import Splice

__all__ = [
    "CHAT_ONLY",
    "OUTPUT_LIMITS",
    "PREFILLS",
    "anchored",
    "continued",
    "hindrance",
    "prefilled",
    "reasons_first",
    "ways",
]

# continuation form of a route -> what marks the assistant's turn, and what the request needs besides
PREFILLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "trailing": ({}, {}),
    "prefix": ({"prefix": True}, {}),
    "prefix_echoed": ({"prefix": True}, {}),
    "partial": ({"partial": True}, {}),
    "continue_final_message": ({}, {"continue_final_message": True, "add_generation_prompt": False}),
}

# Those of them whose mark stands on a chat message, which no other wire can carry.
CHAT_ONLY = frozenset(form for form, (marks, _) in PREFILLS.items() if marks)

# How servers of open models spell "only text of this shape": the rest alone never has it.
GRAMMARS = frozenset(
    {
        "format",
        "grammar",
        "guided_choice",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "json_schema",
        "structured_outputs",
    }
)

OUTPUT_LIMITS = ("max_output_tokens", "max_completion_tokens", "max_tokens")
# A continuation always gets this many output tokens; some endpoints take no smaller limit.
_LEAST_OUTPUT = 16

_WORDS = """\
My connection dropped while your last message was arriving. The last words that reached me are these:

{quote}

Please carry on from there. Start by repeating exactly those last words, without the tags, and then simply \
write the rest of the same message, as if nothing had happened. No greeting, no comment and nothing else \
before them, please; if that is in the middle of a word, a table or a block of code, go on in the middle of \
it.{tools}"""
_TOOLS = " Nothing else has changed: the tools are still there for you, and none has run in the meantime."


def prefilled(request: Request, loose: Loose, sent: str, form: str) -> Request:
    """The request that ends with the assistant's turn so far. `form` is one of PREFILLS."""
    marks, needed = PREFILLS[form]
    turn = {"role": "assistant", "content": sent, **marks}
    return _with(request, (*loose.before, turn), needed, loose)


def anchored(request: Request, loose: Loose, anchor: Anchor) -> Request:
    """The request in which the user asks for the rest."""
    partial = loose.message[: len(loose.message) - len(anchor.after)]
    ask = _WORDS.format(quote=_quoted(anchor.text), tools=_TOOLS if request.tools else "")
    turns = (*loose.before, _assistant(partial, loose.phase), {"role": "user", "content": ask})
    return _with(request, turns, {}, loose, anchor.text)


def _assistant(text: str, phase: str) -> dict[str, Any]:
    """An assistant turn; Responses has a field for whether it is the answer or commentary."""
    if not phase:
        return {"role": "assistant", "content": text}
    parts = [{"type": "output_text", "text": text, "annotations": []}]
    return {
        "type": "message", "role": "assistant", "status": "completed", "phase": phase, "content": parts,
    }  # fmt: skip


def _quoted(text: str) -> str:
    tag, number = "last_words", 1
    while f"</{tag}>" in text:
        number += 1
        tag = f"last_words_{number}"
    return f"<{tag}>{text}</{tag}>"


def _with(
    request: Request,
    turns: tuple[dict[str, Any], ...],
    needed: dict[str, Any],
    loose: Loose,
    again: str = "",
) -> Request:
    budget = mapping(request.params.get("thinking")).get("budget_tokens")
    least = _LEAST_OUTPUT + (budget if isinstance(budget, int) else 0)  # a limit has to be above the budget
    params = {
        name: _remaining(value, loose, again, least) if name in OUTPUT_LIMITS else value
        for name, value in request.params.items()
    }
    return Request((*request.messages, *turns), request.instructions, request.tools, {**params, **needed})


def _remaining(limit: object, loose: Loose, again: str, least: int) -> object:
    """An output limit without what has arrived, and with room for what is said `again`; not below `least`.

    A token is taken to be a delta, and at most six characters. Too few would cut off an answer that was
    whole, too many cost a little: so this errs upwards.
    """
    if not isinstance(limit, int) or isinstance(limit, bool):
        return limit
    arrived = max(loose.deltas, len(loose.message) // 6)
    return min(limit, max(least, limit - arrived) + len(again) // 2)


def hindrance(request: Request) -> str:
    """Why an answer to this request cannot be continued, or ""."""
    params = request.params
    if request.choices > 1:
        return "several answers were asked for"
    layouts = (
        mapping(params.get("response_format")),
        mapping(mapping(params.get("text")).get("format")),
        mapping(mapping(params.get("output_config")).get("format")),
        mapping(params.get("output_format")),
    )
    if any(layout.get("type") not in (None, "text") for layout in layouts) or params.keys() & GRAMMARS:
        return "structured output was asked for"
    choice = params.get("tool_choice")
    demanded = mapping(choice).get("type", "auto") if isinstance(choice, dict) else choice
    return "" if demanded in (None, "auto", "none") else "a tool call was demanded"


def reasons_first(request: Request) -> bool:
    """Whether the request asks the model to reason."""
    params = request.params
    effort = params.get("reasoning_effort") or mapping(params.get("reasoning")).get("effort")
    said = mapping(params.get("thinking")).get("type")
    thinking = (said and said != "disabled") or params.get("enable_thinking")
    template = mapping(params.get("chat_template_kwargs")).get("enable_thinking")
    return bool((effort and effort != "none") or thinking or template)


def ways(
    trunk: Assembler | None, request: Request, route: Route, closed: Mapping[str, str], *, live: bool
) -> Ways:
    """How the answer so far could be continued on a route.

    Args:
        closed: rung -> why it is closed, for those that this call or this process has found to be.
    """
    form = route.continuation or "none"
    if form == "none":
        return Ways()
    loose = trunk.loose() if trunk else "nothing of the answer has arrived"
    never = hindrance(request) or (loose if isinstance(loose, str) else "")
    if never or isinstance(loose, str):
        return Ways(never, never)
    quoted = find_anchor(loose.text)
    anchor = closed["anchor"] or (quoted if isinstance(quoted, str) else "")
    prefill = closed["prefill"]
    if form not in PREFILLS or (form in CHAT_ONLY and route.wire != "chat"):
        prefill = "this route takes no prefilled turn"
    elif not route.prefill_thinking and reasons_first(request):
        prefill = "this route takes no prefilled turn while the model reasons"
    elif not _kept(loose.text, "prefill", live=live):
        prefill = "not one whole word has arrived"
    return Ways(prefill, anchor)


def continued(
    trunk: Assembler, request: Request, route: Route, how: str, *, live: bool
) -> tuple[Request, Splice]:
    """The request for the rest of an answer and the splice that joins it; `how` is what `ways` left open."""
    loose = trunk.loose()
    if isinstance(loose, str):
        raise RuntimeError(f"a rung was taken that is not open: {loose}")
    kept = _kept(loose.text, how, live=live)
    sent = loose.text[:kept]
    if not live:
        trunk.shorten(loose, kept)
        loose = replace(loose, text=sent, message=_up_to(loose, sent))
    trunk.hand_over()
    if how == "prefill":
        form = route.continuation or ""
        seam = PrefillSeam(loose.text, sent, echoed=form == "prefix_echoed")
        turn = _up_to(loose, sent)
        return prefilled(request, loose, turn, form), Splice(trunk, loose, seam, turn)
    anchor = find_anchor(loose.text)
    if isinstance(anchor, str):
        raise RuntimeError(f"a rung was taken that is not open: {anchor}")
    return anchored(request, loose, anchor), Splice(trunk, loose, AnchorSeam(loose.text, anchor))


def _kept(text: str, how: str, *, live: bool) -> int:
    """How much of a partial the request carries: for a held answer the rest is thrown away."""
    return len(whole_words(text) if how == "prefill" and not live else without_end(text))


def _up_to(loose: Loose, sent: str) -> str:
    """The whole message so far, if `sent` is what its last part is."""
    return loose.message[: len(loose.message) - len(loose.text)] + sent
