"""The two ways to run a task, so that every test of one is a test of both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sidestream import AsyncClient, Backoff, Client, Policy
from sidestream.lab import Lab, Request, Script, script

QUICK = Policy(backoff=Backoff(base=0, throttled_base=0))
both = pytest.mark.parametrize("way", ["sync", "async"])


def do(way: str, pair: tuple[Any, Any], *args: Any, client: dict[str, Any], **options: Any) -> Any:
    """Call the first of the pair with a `Client` made of these arguments, or the second with its twin."""
    settings = {"policy": QUICK, **client}
    if way == "sync":
        with Client(**settings) as made:
            return pair[0](made, *args, **options)

    async def call() -> Any:
        async with AsyncClient(**settings) as made:
            return await pair[1](made, *args, **options)

    return asyncio.run(call())


def at(lab: Lab, **more: Any) -> dict[str, Any]:
    """The arguments of a client for that lab."""
    return {"base_url": lab.url, "model": "lab-1", **more}


def saying(*answers: str) -> Callable[[Request], Script]:
    """Says one after the other, the last again and again."""

    def answer(request: Request) -> Script:
        return script.say(answers[min(request.attempt, len(answers) - 1)])(request)

    return answer
