"""The four ways to make a call: threads or asyncio, held or live. All of it comes out as an `Outcome`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from verdicts import Outcome, View

from sidestream import AsyncClient, Client

Ask = Mapping[str, Any]
WAYS = ("sync-held", "sync-live", "async-held", "async-live")


def held(client: Client, ask: Ask) -> Outcome:
    """Wait for the reply."""
    try:
        return Outcome(client.complete(**ask))
    except BaseException as error:  # noqa: BLE001  whatever comes out is what the tests are about
        return Outcome(None, error)


def live(client: Client, ask: Ask) -> Outcome:
    """Read along."""
    view = View()
    with client.stream(**ask) as stream:
        try:
            for event in stream:
                view.see(event)
        except BaseException as error:  # noqa: BLE001  as above
            return Outcome(stream.reply, error, view)
        return Outcome(stream.reply, None, view)


async def aheld(client: AsyncClient, ask: Ask) -> Outcome:
    """Wait for the reply."""
    try:
        return Outcome(await client.complete(**ask))
    except BaseException as error:  # noqa: BLE001  as above
        return Outcome(None, error)


async def alive(client: AsyncClient, ask: Ask) -> Outcome:
    """Read along."""
    view = View()
    async with client.stream(**ask) as stream:
        try:
            async for event in stream:
                view.see(event)
        except BaseException as error:  # noqa: BLE001  as above
            return Outcome(stream.reply, error, view)
        return Outcome(stream.reply, None, view)


def caller(
    way: str, sync: Callable[[], Client], aio: Callable[[], AsyncClient], loop: asyncio.AbstractEventLoop
) -> Callable[[Ask], Outcome]:
    """One of `WAYS` as a plain function: with the client that `sync` or `aio` makes, on that loop."""
    if way.startswith("sync"):
        blocking, ask_blocking = sync(), live if way.endswith("live") else held
        return lambda ask: ask_blocking(blocking, ask)
    client, ask_async = aio(), alive if way.endswith("live") else aheld
    return lambda ask: loop.run_until_complete(ask_async(client, ask))
