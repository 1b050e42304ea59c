"""The floors that peers are measured against: HTTP libraries without anything of a model's client above them.

They are no peers, because nobody says whether an answer is whole (`children/raw.py`).
"""

from __future__ import annotations

from peers import Peer

_LINES = "timeout=20, no limit on connections; `iter_lines`, `json.loads`"
_HTTPX2 = ("httpx2", "httpcore2", "h11")

FLOORS = (
    Peer("raw httpx2", "raw", "httpx2", "responses", f"Client({_LINES})", packages=_HTTPX2),
    Peer("raw httpx2 chat", "raw", "httpx2.chat", "chat", f"Client({_LINES})", packages=_HTTPX2),
    Peer("raw httpx2 messages", "raw", "httpx2.messages", "messages", f"Client({_LINES})", packages=_HTTPX2),
    Peer(
        "raw httpx2 async",
        "raw",
        "httpx2.async",
        "responses",
        f"AsyncClient({_LINES})",
        packages=_HTTPX2,
        is_async=True,
    ),
    Peer(
        "raw httpx2 chat async",
        "raw",
        "httpx2.chat.async",
        "chat",
        f"AsyncClient({_LINES})",
        packages=_HTTPX2,
        is_async=True,
    ),
    Peer(
        "raw httpx2 messages async",
        "raw",
        "httpx2.messages.async",
        "messages",
        f"AsyncClient({_LINES})",
        packages=_HTTPX2,
        is_async=True,
    ),
    Peer(
        "raw http.client", "raw", "http.client", "responses", "one connection; `read1`, split, `json.loads`"
    ),
    Peer(
        "raw aiohttp async",
        "raw_aiohttp",
        "aiohttp",
        "responses",
        "no limit on connections; `async for line in response.content`, `json.loads`",
        environment="litellm",
        packages=("aiohttp",),
        is_async=True,
    ),
)
