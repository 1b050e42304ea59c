"""Field cases: what real servers did to real clients, each as answers and a plan, ready to play.

`CASES` is the table: per row the wire, what happens on it, and what a good client makes of it. Times are
scaled: a minute in the field is a fraction of a second here, and what lasted for ever lasts until the client
leaves. Faults hit the first attempt only, unless the row says "always"; later attempts answer cleanly.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from . import script
from .faults import Fault
from .items import call, message, reasoning, refusal
from .plan import Plan
from .script import Script
from .sse import DONE, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .record import Request

__all__ = ["CASES", "TEXT", "Case"]

TEXT = "The stream that was cut came back whole."
_RESPONSES = script.responses_text(TEXT)
_CHAT = script.chat_text(TEXT)
_MID = 8  # events of _RESPONSES: created, in_progress, item and part added, four deltas
_EARLY = 3  # events of _CHAT: the role and two pieces of text
_MESSAGES = script.messages_text(TEXT)
_HALF = 7  # events of _MESSAGES: start, ping, block start, four deltas


@dataclass(frozen=True, slots=True)
class Case:
    """One field case.

    Attributes:
        name: its name in the table.
        wire: "responses", "chat" or "messages".
        what: what the server does.
        expect: what a good client makes of it.
        answers: for `Lab(answers)`.
        plan: for `Lab(plan=)`.
    """

    name: str
    wire: str
    what: str
    expect: str
    answers: Script | Sequence[Script] | Callable[[Request], Script]
    plan: Plan = field(default_factory=Plan)


def _on_responses(
    name: str, what: str, expect: str, answers: Script | Sequence[Script] = _RESPONSES, *first: Fault
) -> Case:
    return Case(name, "responses", what, expect, answers, Plan([first]))


def _on_chat(
    name: str,
    what: str,
    expect: str,
    answers: Script | Sequence[Script] | Callable[[Request], Script] = _CHAT,
    *first: Fault,
) -> Case:
    return Case(name, "chat", what, expect, answers, Plan([first]))


def _on_messages(
    name: str, what: str, expect: str, answers: Script | Sequence[Script] = _MESSAGES, *first: Fault
) -> Case:
    return Case(f"messages-{name}", "messages", what, expect, answers, Plan([first]))


def _final(**details: Any) -> Script:
    """The text, with the final response object changed."""
    return script.responses(message(TEXT), details=details)


def _failed(code: str) -> Script:
    problem = {"error": {"code": code, "message": f"lab: {code}"}, "output": []}
    return script.responses(message(TEXT), ending="failed", details=problem)


def _incomplete(reason: str | None) -> Script:
    details = {"incomplete_details": {"reason": reason} if reason else None}
    return script.responses(message(TEXT, phase="final_answer"), ending="incomplete", details=details)


def _no(status: int, body: Any, **headers: str) -> tuple[Script, Script]:
    """A refusal on the first attempt, the answer on the next."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return script.error(status, body, headers=named), _CHAT


def _problem(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message} | more}


_CALL = call("get_weather", '{"city":"Paris"}')


def _delta_twice(stream: Script) -> Script:
    """Two `message_delta`: one with tokens only, then one with the reason to stop."""
    early = encode(
        {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 3}},
        "message_delta",
    )
    return stream.insert(-2, early)


def _rotated(stream: Script) -> Script:
    """The done item carries another id than its announcement."""
    old, new = b'"item":{"id":"fc_lab_0"', b'"item":{"id":"fc_lab_0_done"'
    last = next(i for i, e in enumerate(stream.events) if b"output_item.done" in e)
    events = [e.replace(old, new) if i >= last else e for i, e in enumerate(stream.events)]
    return dataclasses.replace(stream, events=tuple(events))


def _rejects_parameters(request: Request) -> Script:
    """400 for one parameter after the other, as long as the request still carries one of them."""
    body = msgspec.json.decode(request.body)
    for name in ("temperature", "max_tokens", "reasoning_effort"):
        if name in body:
            text = f"Unsupported parameter: '{name}' is not supported with this model."
            return script.error(400, _problem(text, param=name, code="unsupported_parameter"))
    return _CHAT


_RATE_LIMITS = encode(
    {
        "type": "codex.rate_limits",
        "plan_type": "plus",
        "rate_limits": {"allowed": True, "limit_reached": False, "primary": {"used_percent": 12}},
    },
    "codex.rate_limits",
)
_SLOW = script.responses_text(script.words(600)).sent(pace=0.05)
_EMPTY_CALL = dataclasses.replace(call("get_weather", ""), events=())
_PAGE = b"<html><body>502 Bad Gateway</body></html>"

_ROWS = (
    # Streams that break.
    _on_responses("cut", "FIN inside a chunk", "recovered", _RESPONSES, Fault.cut(after_event=_MID)),
    _on_responses("reset", "RST mid-text", "recovered", _RESPONSES, Fault.reset(after_event=_MID)),
    _on_responses("headers-only", "FIN after the head", "recovered", _RESPONSES, Fault.headers_only()),
    _on_responses("no-answer", "FIN in place of an answer", "recovered", _RESPONSES, Fault.close()),
    _on_responses(
        "cut-after-terminal", "FIN in place of the last chunk", "one request", _RESPONSES, Fault.cut()
    ),
    _on_responses("clean-end", "a clean end mid-text", "recovered", _RESPONSES, Fault.end(after_event=_MID)),
    _on_responses(
        "reasoning-only",
        "reasoning, then a clean end",
        "recovered",
        (script.responses(reasoning("Let me think."), ending="none"), _RESPONSES),
    ),
    _on_responses(
        "no-terminal",
        "a clean end after the last item is done",
        "settled or recovered",
        _RESPONSES,
        Fault.drop_terminal(),
    ),
    _on_chat("chat-cut", "FIN inside a chunk", "recovered", _CHAT, Fault.cut(after_event=_EARLY)),
    _on_chat("chat-clean-end", "no finish reason, no [DONE]", "recovered", _CHAT, Fault.drop_terminal()),
    # Streams that end strangely.
    _on_responses("output-null", "the final output is null", "the text", _final(output=None)),
    _on_responses("output-empty", "the final output is []", "the text", _final(output=[])),
    _on_responses(
        "output-absent", "no output in the end", "the text", _RESPONSES.replaced(b'"output":[{', b'"lab":[{')
    ),
    _on_responses(
        "deltas-only",
        "deltas, no done item, empty output",
        "the text",
        _final(output=[]).without(b"event: response.output_item.done"),
    ),
    *(
        _on_responses(f"failed-{code}", f"response.failed: {code}", "a typed error", _failed(code))
        for code in ("rate_limit_exceeded", "server_error", "context_length_exceeded", "insufficient_quota")
    ),
    _on_responses(
        "max-output", "incomplete: budget", "incomplete, with text", _incomplete("max_output_tokens")
    ),
    _on_responses("content-filter", "incomplete: filter", "refused", _incomplete("content_filter")),
    _on_responses("incomplete-final", "incomplete, yet a final answer", "the text", _incomplete(None)),
    *(
        _on_responses(
            f"error-{shape}-{then}",
            f"an error event, {shape} shape, then {then}",
            "recovered",
            _RESPONSES,
            Fault.error_event(shape, after_event=6, then=then),
        )
        for shape in ("responses", "responses_nested")
        for then in ("end", "cut", "pings")
    ),
    *(
        _on_chat(
            f"chat-error-{shape}",
            f"an error in the stream, as {shape} sends it",
            "a typed error or recovered, never text",
            _CHAT,
            Fault.error_event(shape, after_event=_EARLY),
        )
        for shape in ("openai_chat", "openrouter", "vllm", "sglang", "llamacpp_field", "groq", "dashscope")
    ),
    _on_chat("page", "an HTML page in the stream", "recovered", _CHAT, Fault.splice(after_event=_EARLY)),
    _on_responses(
        "no-created", "no response.created", "the text", _RESPONSES.without(b"event: response.created")
    ),
    _on_responses("prelude", "a foreign first event", "the text", _RESPONSES.insert(0, _RATE_LIMITS)),
    _on_responses(
        "call-never-done",
        "arguments in deltas, no done events",
        "one call",
        script.responses(_CALL, details={"output": []})
        .without(b"event: response.function_call_arguments.done")
        .without(b"event: response.output_item.done"),
    ),
    _on_responses(
        "call-without-arguments",
        "a call announced and never filled",
        "an error, not {}",
        script.responses(_EMPTY_CALL, details={"output": []}).without(b"event: response.output_item.done"),
    ),
    _on_responses(
        "rotating-ids", "the done item has a new id", "one call", _rotated(script.responses(_CALL))
    ),
    _on_responses(
        "commentary",
        "commentary, then the final answer",
        "the final answer only",
        script.responses(message("Let me look.", phase="commentary"), message(TEXT, phase="final_answer")),
    ),
    _on_responses(
        "refusal", "only a refusal", "refused", script.responses(refusal("I cannot help with that."))
    ),
    _on_responses(
        "empty",
        "completed with empty text",
        "complete, empty",
        script.responses(message("", phase="final_answer")),
    ),
    _on_chat("usage-last", "usage in a chunk of its own", "the text, with usage"),
    _on_chat(
        "done-only", "[DONE], no finish reason", "the text", script.chat({"content": TEXT}, finish=None)
    ),
    _on_chat("no-done", "a finish reason, no [DONE]", "the text", _CHAT.without(b"[DONE]")),
    _on_chat("empty-chat", "200 and no text", "complete, empty", script.chat({"content": ""})),
    _on_chat(
        "done-unterminated", "[DONE] without its blank line", "the text", _CHAT.take(-1).insert(99, DONE[:-1])
    ),
    # Messages.
    _on_messages("cut", "FIN inside a chunk", "recovered", _MESSAGES, Fault.cut(after_event=_HALF)),
    _on_messages("reset", "RST mid-text", "recovered", _MESSAGES, Fault.reset(after_event=_HALF)),
    _on_messages("clean-end", "a clean end mid-text", "recovered", _MESSAGES, Fault.end(after_event=_HALF)),
    _on_messages(
        "no-terminal",
        "a clean end after the last block is done",
        "settled or recovered",
        _MESSAGES,
        Fault.drop_terminal(),
    ),
    _on_messages(
        "no-stop", "a stop reason, no message_stop", "the text", _MESSAGES, Fault.drop_terminal("done")
    ),
    _on_messages(
        "no-reason",
        "message_stop, no stop reason",
        "the text",
        _MESSAGES,
        Fault.drop_terminal("finish"),
    ),
    _on_messages(
        "thinking-only",
        "thinking, then a clean end",
        "recovered",
        (script.messages(reasoning("Let me think."), stop_reason=None, stop=False), _MESSAGES),
    ),
    _on_messages(
        "call-cut",
        "a clean end inside the input of a call",
        "recovered, never half a call",
        script.messages(message("Let me look."), call("get_weather", '{"city":"Paris"}', tokens=6)),
        Fault.end(after_event=13),
    ),
    _on_messages("call-empty", "a call without input", "one call, {}", script.messages(call("now", ""))),
    _on_messages(
        "calls", "text, then two calls", "both calls", script.messages(message("Hm."), _CALL, _CALL)
    ),
    _on_messages(
        "thinking-hidden",
        "a thinking block with nothing but its signature",
        "the text",
        script.messages(reasoning(""), message(TEXT)),
    ),
    _on_messages("two-deltas", "two message_delta", "the text, with usage", _delta_twice(_MESSAGES)),
    *(
        _on_messages(
            f"error-{kind}",
            f"an error event: {kind}",
            "a typed error" if kind == "spend_limit" else "recovered",
            _MESSAGES,
            Fault.error_event(f"anthropic_{kind}", after_event=_HALF),
        )
        for kind in ("overloaded", "api", "timeout", "rate_limit", "spend_limit")
    ),
    *(
        _on_messages(
            f"error-{then}",
            f"an error event, then {then}",
            "recovered",
            _MESSAGES,
            Fault.error_event(after_event=_HALF, then=then),
        )
        for then in ("cut", "pings")
    ),
    _on_messages(
        "max-tokens",
        "stopped by the limit",
        "incomplete, with text",
        script.messages(message(TEXT), stop_reason="max_tokens"),
    ),
    _on_messages(
        "context",
        "stopped by the context window",
        "incomplete, with text",
        script.messages(message(TEXT), stop_reason="model_context_window_exceeded"),
    ),
    _on_messages(
        "stop-sequence",
        "stopped by a sequence",
        "the text",
        script.messages(message(TEXT), stop_reason="stop_sequence"),
    ),
    _on_messages(
        "pause",
        "a turn that pauses",
        "the text; the caller goes on",
        script.messages(message(TEXT), stop_reason="pause_turn"),
    ),
    _on_messages(
        "refusal", "only a refusal", "refused", script.messages(refusal("I cannot help with that."))
    ),
    _on_messages(
        "refusal-late",
        "some text, then a refusal",
        "refused, with the text",
        script.messages(message(TEXT), refusal("I cannot help with that.")),
    ),
    _on_messages("empty", "no block at all", "complete, empty", script.messages()),
    _on_messages("no-usage", "no usage anywhere", "the text", script.messages(message(TEXT), usage=False)),
    _on_messages(
        "ping-zombie",
        "pings, for ever",
        "recovered by the idle clock",
        _MESSAGES,
        Fault.keepalive(after_event=_HALF, interval=0.02),
    ),
    _on_messages(
        "stall", "silence mid-text", "recovered by the idle clock", _MESSAGES, Fault.stall(after_event=_HALF)
    ),
    _on_messages(
        "page", "an HTML page in the stream", "recovered", _MESSAGES, Fault.splice(after_event=_HALF)
    ),
    *(
        _on_messages(
            f"status-{status}",
            f"{status}, then the answer",
            "recovered",
            (script.messages_problem(status, "lab: not now"), _MESSAGES),
        )
        for status in (429, 500, 504, 529)
    ),
    *(
        _on_messages(f"status-{status}", f"{status}, always", expect, script.messages_problem(status, said))
        for status, said, expect in (
            (400, "prompt is too long: 208310 tokens > 200000 maximum", "context length"),
            (401, "invalid x-api-key", "an auth error"),
            (402, "Your credit balance is too low to access the API.", "quota, no retry"),
            (413, "Request exceeds the maximum size", "context length"),
        )
    ),
    # Time.
    _on_responses("hang", "no head, for ever", "recovered by the first clock", _RESPONSES, Fault.hang()),
    _on_responses(
        "zombie",
        "keep-alive events, for ever",
        "recovered by the idle clock",
        _RESPONSES,
        Fault.keepalive("in_progress", after_event=2, interval=0.02),
    ),
    _on_responses(
        "ping-zombie",
        "comments, for ever",
        "recovered by the idle clock",
        _RESPONSES,
        Fault.keepalive(after_event=2, interval=0.02),
    ),
    _on_responses(
        "stall", "silence mid-text", "recovered by the idle clock", _RESPONSES, Fault.stall(after_event=_MID)
    ),
    _on_responses(
        "stall-notice",
        "a proxy's notice, then the end",
        "recovered",
        _RESPONSES,
        Fault.splice("idle", after_event=_MID, then="cut"),
    ),
    _on_responses(
        "slow-first",
        "a long wait, then the answer",
        "the text",
        _RESPONSES,
        Fault.stall(after_event=2, seconds=0.3),
    ),
    _on_responses("long", "text for a long time", "the text; a cancel closes the socket", _SLOW),
    Case("always-hang", "responses", "hangs, always", "the deadline", _RESPONSES, Plan.always(Fault.hang())),
    # HTTP answers.
    *(
        _on_chat(
            f"status-{status}", f"{status}, then the answer", "recovered", _no(status, _problem("overloaded"))
        )
        for status in (500, 503, 524, 529)
    ),
    _on_chat("status-502", "an HTML 502", "recovered", _no(502, _PAGE)),
    _on_chat(
        "status-429", "429 with Retry-After", "recovered", _no(429, _problem("slow down"), retry_after="0")
    ),
    _on_chat(
        "afford",
        "402, can only afford less",
        "one smaller try, or quota",
        _no(402, _problem("You requested up to 65536 tokens, but can only afford 7117.", code=402)),
    ),
    _on_chat(
        "quota-429",
        "429 that means money",
        "quota, no retry",
        _no(429, _problem("You exceeded your current quota.", code="insufficient_quota"))[0],
    ),
    _on_chat(
        "quota-403",
        "403 that means money",
        "quota",
        _no(403, _problem("This model requires a subscription."))[0],
    ),
    _on_chat(
        "unauthorized", "401", "an auth error", _no(401, _problem("Invalid key", code="invalid_api_key"))[0]
    ),
    _on_chat(
        "html-as-json",
        "a page with a JSON content type",
        "recovered",
        (script.error(200, _PAGE, content_type="application/json"), _CHAT),
    ),
    _on_chat(
        "challenge",
        "403, a browser challenge",
        "a typed error",
        script.error(403, b"<html>Enable JavaScript and cookies to continue</html>"),
    ),
    _on_chat("rejects-parameters", "400 for one parameter after the other", "the text", _rejects_parameters),
    _on_chat("wrong-wire", "404 on this path", "a typed error", script.error(404, _problem("Not Found"))),
)

CASES: dict[str, Case] = {row.name: row for row in _ROWS}
