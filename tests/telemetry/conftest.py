"""Calls against a lab, made in each of the four ways, with what observers were told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from callers import Ask, caller
from verdicts import Outcome

from sidestream import AsyncClient, Backoff, Client, Policy
from sidestream.telemetry import CallRecord

AT_ONCE = Policy(backoff=Backoff(base=0.0))

Make = Callable[..., tuple[Outcome, CallRecord]]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop of the test's own."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def make(loop: asyncio.AbstractEventLoop) -> Make:
    """One call in one of `WAYS` to a URL or to `routes=`: how it came out, and the only record of it.

    Observers given by the test come first.
    """

    def make(way: str, url: str | None, ask: Ask | None = None, **options: Any) -> tuple[Outcome, CallRecord]:
        told: list[CallRecord] = []
        options["observe"] = [*options.pop("observe", ()), told.append]
        if url is not None:
            options |= {"base_url": url, "model": "m"}
        call = caller(
            way,
            lambda: Client(policy=AT_ONCE, **options),
            lambda: AsyncClient(policy=AT_ONCE, **options),
            loop,
        )
        outcome = call({"input": "hi", **(ask or {})})
        assert len(told) == 1
        return outcome, told[0]

    return make
