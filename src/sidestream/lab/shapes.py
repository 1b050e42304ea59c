"""Bytes seen in the field, by name: keep-alives, error events inside a 200 stream, error pages.

Data only. `{n}` in a keep-alive becomes the next sequence number, because OpenAI's own keep-alives use
one up. Every table takes exact bytes in place of a name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UsageError
from .sse import encode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .record import Wire

__all__ = ["ERRORS", "ERROR_OF", "KEEPALIVES", "KEEPALIVE_OF", "PAGES", "named"]

KEEPALIVES: dict[str, bytes] = {
    "comment": b": keep-alive\n\n",
    "colon": b":\n\n",
    "openrouter": b": OPENROUTER PROCESSING\n\n",
    "blank": b"\n",
    "event": b'event: keepalive\ndata: {"type":"keepalive","sequence_number":{n}}\n\n',
    "in_progress": b'event: response.in_progress\ndata: {"type":"response.in_progress","sequence_number":{n},'
    b'"response":{"id":"resp_lab","object":"response","status":"in_progress","output":[]}}\n\n',
    "responses_delta": b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
    b'"sequence_number":{n},"item_id":"msg_lab_0","output_index":0,"content_index":0,"delta":"","logprobs":[]}\n\n',
    "chat_delta": b'data: {"id":"chatcmpl-lab","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"lab-1","choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}\n\n',
    "ping": b'event: ping\ndata: {"type":"ping"}\n\n',
}

_COMMENT = KEEPALIVES["comment"]

KEEPALIVE_OF: dict[Wire, bytes] = {
    "responses": _COMMENT,
    "chat": _COMMENT,
    "messages": KEEPALIVES["ping"],
}
"""What a model's wire is kept alive with where nobody says how."""

_OVERLOADED = "Our servers are currently overloaded. Please try again later."


def _anthropic(kind: str, message: str, **more: object) -> bytes:
    error = {"type": kind, "message": message, **more}
    return encode({"type": "error", "error": error, "request_id": "req_lab"}, "error")


ERRORS: dict[str, bytes] = {
    # Responses: the flat form of the schema, the nested form, and the two terminal events.
    "responses": encode(
        {
            "type": "error",
            "code": "server_is_overloaded",
            "message": _OVERLOADED,
            "param": None,
            "sequence_number": 2,
        },
        "error",
    ),
    "responses_nested": encode(
        {
            "type": "error",
            "sequence_number": 2,
            "error": {
                "type": "service_unavailable_error",
                "code": "server_is_overloaded",
                "message": _OVERLOADED,
                "param": None,
            },
        },
        "error",
    ),
    "responses_failed": encode(
        {
            "type": "response.failed",
            "sequence_number": 2,
            "response": {
                "id": "resp_lab",
                "object": "response",
                "status": "failed",
                "output": [],
                "error": {"code": "server_error", "message": "The server had an error. Please retry."},
            },
        },
        "response.failed",
    ),
    "codex_usage_limit": encode(
        {
            "type": "error",
            "status_code": 429,
            "error": {
                "type": "usage_limit_reached",
                "message": "The usage limit has been reached",
                "plan_type": "free",
                "resets_in_seconds": 3600,
            },
        },
        "error",
    ),
    # Chat Completions, by server.
    "openai_chat": encode(
        {"error": {"message": "The server had an error.", "type": "server_error", "code": None}}
    ),
    "openrouter": encode(
        {
            "id": "gen-lab",
            "object": "chat.completion.chunk",
            "created": 1700000000,
            "model": "lab-1",
            "provider": "lab",
            "error": {"code": 502, "message": "Provider disconnected"},
            "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
        }
    ),
    "vllm": encode(
        {
            "error": {
                "message": "EngineCore died",
                "type": "InternalServerError",
                "param": None,
                "code": 500,
            }
        }
    ),
    "vllm_old": encode(
        {"object": "error", "message": "EngineCore died", "type": "InternalServerError", "code": 500}
    ),
    "sglang": encode({"error": {"object": "error", "message": "The request is aborted", "code": 400}}),
    "llamacpp": encode(
        {"error": {"code": 500, "message": "Compute error.", "type": "server_error"}},
    ),
    "llamacpp_field": b'error: {"code":500,"message":"Compute error.","type":"server_error"}\n\n'
    b"data: [DONE]\n\n",
    "groq": encode(
        {
            "id": "chatcmpl-lab",
            "object": "chat.completion.chunk",
            "created": 1700000000,
            "model": "lab-1",
            "choices": [],
            "x_groq": {"error": "over capacity"},
        }
    ),
    "dashscope": b"id:1\nevent:error\n:HTTP_STATUS/429\n"
    b'data:{"code":"Throttling.AllocationQuota","message":"Allocated quota exceeded","request_id":"lab"}\n\n',
    # Messages, by type.
    "anthropic_overloaded": _anthropic("overloaded_error", "Overloaded"),
    "anthropic_api": _anthropic("api_error", "Internal server error"),
    "anthropic_timeout": _anthropic("timeout_error", "The request timed out"),
    "anthropic_rate_limit": _anthropic(
        "rate_limit_error", "This request would exceed your account's rate limit. Please try again later."
    ),
    "anthropic_spend_limit": _anthropic(
        "rate_limit_error",
        "You have reached your specified API usage limits.",
        details={"error_code": "enforced_spend_limit_reached"},
    ),
    # Of no wire: a proxy in between.
    "bare_json": b'{"error":{"message":"upstream connect error","type":"server_error"}}\n',
}

ERROR_OF: dict[Wire, bytes] = {
    "responses": ERRORS["responses"],
    "chat": ERRORS["openai_chat"],
    "messages": ERRORS["anthropic_overloaded"],
}
"""The error event of a model's wire where nobody says which."""

PAGES: dict[str, bytes] = {
    "html": b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center>"
    b"<h1>502 Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n",
    "json": b'{"error":{"message":"Bad gateway","type":"server_error","code":502}}\n',
    "cloudflare": b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>"
    b"Enable JavaScript and cookies to continue</body></html>\n",
    "idle": b"upstream idle for 60000ms\n",
}


def named(table: Mapping[str, bytes], choice: str | bytes) -> bytes:
    """The bytes of that name, or `choice` itself if it is bytes already."""
    if isinstance(choice, bytes):
        return choice
    if choice not in table:
        raise UsageError(f"no shape named {choice!r}", hint=f"one of {', '.join(table)}, or exact bytes")
    return table[choice]
