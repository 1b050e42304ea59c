"""With no fault a client with us under it is given the same as without: objects, errors and bytes.

Every recorded stream is read by the SDKs' own consumers, alone and wrapped, from the same provider in memory.
What they yield has to be equal field by field, also fields that the SDK's models do not know. Streams that
end in an error of the provider raise the same exception, with the same body.

Bytes: below the SDKs, httpx2's `iter_raw()` gives exactly the provider's, comments and keep-alives included,
but for four things that no reader of such a stream can miss: a byte order mark (with which the openai SDK
loses the first event), what has no blank line at the end of the body, and if they come in a chunk of their
own: the LF of the last CRLF, and `[DONE]` after the terminal event of a response.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections.abc import Sequence
from typing import Any

import httpx2
import pydantic
import pytest
from consumers import STYLES, Seen, aconsume, asked, client_of, consume
from provider_in_memory import Answer, Provider, patient

import sidestream
from sidestream.lab.sse import split_events
from streams import BROKEN, GOOD, Stream, one_by_one, pieces

CHUNKED = ("whole", "events", "random")
_BYTEWISE = {
    f"{wire}/{name}" for wire in ("responses", "chat", "messages") for name in ("plain-text", "unicode")
}
_URLS = {"responses": "/v1/responses", "chat": "/v1/chat/completions", "messages": "/v1/messages"}
# Their last events are an error of the provider that does not pass if one asks again.
_LASTING = ("auth", "bad_request", "context_length", "quota", "refused")
FAILED = [s for s in BROKEN if s.expect["fault"] in _LASTING and s.data[:1] != b"{"]
_BOM = b"\xef\xbb\xbf"

by_stream = pytest.mark.parametrize("stream", GOOD, ids=lambda stream: stream.name)


def chunks(stream: Stream, how: str) -> Sequence[bytes]:
    if how == "random":
        return pieces(stream.data, random.Random(stream.name))
    return {"whole": [stream.data], "events": split_events(stream.data)}[how]


def http(provider: Provider, *, is_async: bool) -> Any:
    if is_async:
        return httpx2.AsyncClient(transport=provider.async_transport)
    return httpx2.Client(transport=provider.transport)


def read(stream: Stream, body: Sequence[bytes], style: str, *, is_async: bool, wrapped: bool) -> Seen:
    """What a consumer is given of this body."""
    provider = Provider()
    provider.play(*[Answer(tuple(body))] * 4)
    client = client_of(stream.wire, http(provider, is_async=is_async))
    if wrapped:
        client = sidestream.wrap(client, system=patient(), observe=())
    if is_async:
        return asyncio.run(aconsume(client, stream.wire, style, asked(stream)))
    return consume(client, stream.wire, style, asked(stream))


def same(alone: Seen, wrapped: Seen) -> None:
    """Events, final object and error are equal, field by field."""
    assert [type(event) for event in wrapped.events] == [type(event) for event in alone.events]
    for ours, theirs in zip(wrapped.events, alone.events, strict=True):
        assert fields(ours) == fields(theirs)
    assert fields(wrapped.final) == fields(alone.final)
    assert (type(wrapped.error), str(wrapped.error)) == (type(alone.error), str(alone.error))
    assert getattr(wrapped.error, "body", None) == getattr(alone.error, "body", None)


def fields(thing: Any) -> Any:
    """All that an object holds, its class included."""
    if isinstance(thing, pydantic.BaseModel):
        extra = thing.__pydantic_extra__ or {}
        return (
            type(thing),
            thing.model_fields_set,
            {k: fields(v) for k, v in {**thing.__dict__, **extra}.items()},
        )
    if isinstance(thing, list):
        return [fields(item) for item in thing]
    return {k: fields(v) for k, v in thing.items()} if isinstance(thing, dict) else thing


@by_stream
@pytest.mark.parametrize("style", STYLES)
def test_the_sdk_yields_equal_objects(stream: Stream, style: str) -> None:
    """However the bytes come, in threads and in asyncio."""
    alone = read(stream, [stream.data.removeprefix(_BOM)], style, is_async=False, wrapped=False)
    for how, is_async in itertools.product(CHUNKED, (False, True)):
        same(alone, read(stream, chunks(stream, how), style, is_async=is_async, wrapped=True))
    if stream.name in _BYTEWISE:
        same(alone, read(stream, one_by_one(stream.data), style, is_async=False, wrapped=True))


@pytest.mark.parametrize("stream", FAILED, ids=lambda stream: stream.name)
@pytest.mark.parametrize("style", STYLES)
def test_an_error_of_the_provider_in_the_stream_is_raised_as_before(stream: Stream, style: str) -> None:
    """An error that asking again does not help: the same class, message and body, after the same events."""
    for is_async in (False, True):
        alone = read(stream, [stream.data], style, is_async=is_async, wrapped=False)
        wrapped = read(stream, [stream.data], style, is_async=is_async, wrapped=True)
        same(alone, wrapped)


@by_stream
def test_httpx2_reads_the_same_bytes(stream: Stream) -> None:
    """`iter_raw` gives the provider's bytes, whole, by events and byte by byte."""
    ways = [chunks(stream, how) for how in CHUNKED]
    ways += [one_by_one(stream.data)] if stream.name in _BYTEWISE else []
    for body in ways:
        told = raw(stream, body)
        assert told == asyncio.run(araw(stream, body))
        assert told in passed(stream.data)


def passed(data: bytes) -> set[bytes]:
    """What of a body is passed on: see above."""
    ends = [end.end() for end in re.finditer(rb"\r\n\r\n|\n\n|\r\r", data)]
    whole = data[: ends[-1]].removeprefix(_BOM)
    shorter = whole[:-1] if whole.endswith(b"\r\n") else whole
    return {whole, shorter.removesuffix(b"data: [DONE]\n\n") if b"response.completed" in data else shorter}


def raw(stream: Stream, body: Sequence[bytes]) -> bytes:
    provider = Provider()
    provider.play(Answer(tuple(body)))
    client = sidestream.wrap(http(provider, is_async=False), system=patient(), observe=())
    ask = {**asked(stream), "stream": True}
    with client.stream("POST", f"http://x.test{_URLS[stream.wire]}", json=ask) as response:
        return b"".join(response.iter_raw())


async def araw(stream: Stream, body: Sequence[bytes]) -> bytes:
    provider = Provider()
    provider.play(Answer(tuple(body)))
    client = sidestream.wrap(http(provider, is_async=True), system=patient(), observe=())
    ask = {**asked(stream), "stream": True}
    async with client.stream("POST", f"http://x.test{_URLS[stream.wire]}", json=ask) as response:
        return b"".join([chunk async for chunk in response.aiter_raw()])
