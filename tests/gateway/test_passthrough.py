"""The passthrough, as its clients see it: a lab behind it, real sockets on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

httpx2 = pytest.importorskip("httpx2")

from raw_client import CHAT, MESSAGES, RESPONSES, Heard, listen, read_until, request  # noqa: E402

from sidestream.assembler import Assembler  # noqa: E402
from sidestream.errors import ConfigError, UsageError  # noqa: E402
from sidestream.gateway import Limits, Passthrough, upstream_transport  # noqa: E402
from sidestream.lab import Continuing, Fault, Lab, Plan, script  # noqa: E402
from sidestream.recovery.exchange import Exchange  # noqa: E402
from streams import attempt  # noqa: E402

TEXT = "The stream that was cut came back whole."
LONG = f"{script.words(100)}."
PATHS = {"responses": RESPONSES, "chat": CHAT, "messages": MESSAGES}
CANARY = "Canary0d41d8cd98f00b204"
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: here\r\n"


class Running:
    """A passthrough with a loop and a thread of its own; what it could not bring back is in `failed`."""

    def __init__(self, upstream: str, **options: Any) -> None:
        self.failed: list[Exception] = []
        self.bugs: list[Any] = []
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: self.bugs.append(context))
        self._stop = asyncio.Event()
        self._arguments = upstream, options
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        async def main() -> None:
            upstream, options = self._arguments
            async with Passthrough(upstream, failed=self.failed.append, **options) as local:
                self.url = local.url
                self.port = int(local.url.split(":")[2].split("/")[0])
                self._ready.set()
                await self._stop.wait()

        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(main())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 5)

    def ask(self, what: bytes | None = None) -> Heard:
        with self.connect() as sock:
            sock.sendall(request() if what is None else what)
            return listen(sock)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def before(upstream: Lab | str, **options: Any) -> Iterator[Running]:
    running = Running(upstream if isinstance(upstream, str) else upstream.url, **options)
    try:
        yield running
    finally:
        if not running._loop.is_closed():
            running.stop()
    assert running.bugs == []


def asking(wire: str, *headers: str, stream: bool = True, close: bool = True, **more: Any) -> bytes:
    turns = [{"role": "user", "content": "go on"}]
    field = "input" if wire == "responses" else "messages"
    body = {"model": "lab-1", field: turns, "stream": stream, "max_tokens": 4096, **more}
    kind = "Content-Type: application/json"
    return request(PATHS[wire], json.dumps(body).encode(), kind, *headers, close=close)


def body_of(heard: Heard) -> bytes:
    """The body of an answer that ended as one should."""
    if (length := heard.header("content-length")) is not None:
        assert len(heard.body) == int(length)
        return heard.body
    chunks, _, ended = heard.chunks
    assert ended
    return b"".join(chunks)


def read_as(wire: str, data: bytes) -> Assembler:
    exchange = Exchange(wire, 1, None)
    attempt(exchange, [data])
    return exchange.assembler


def said(heard: Heard) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body_of(heard))["error"]
    return found


by_wire = pytest.mark.parametrize("wire", PATHS)


@by_wire
def test_bytes_pass_as_they_are(wire: str) -> None:
    """Where nothing breaks, the client gets the provider's bytes, status and headers."""
    make = {"responses": script.responses_text, "chat": script.chat_text, "messages": script.messages_text}
    with Lab(make[wire](TEXT)) as lab, before(lab) as local:
        with socket.create_connection((lab.host, lab.port), 5) as sock:
            sock.sendall(asking(wire))
            direct = listen(sock)
        passed = local.ask(asking(wire))
    assert passed.status == 200
    assert passed.header("content-type") == direct.header("content-type")
    assert body_of(passed) == body_of(direct)


@by_wire
def test_a_cut_stream_comes_whole(wire: str) -> None:
    """Two cuts on the way, the second with a clean end: the client gets one stream and the whole text."""
    plan = Plan([Fault.cut(after_event=40), Fault.end(after_event=30)])
    with Lab(Continuing(LONG), plan=plan) as lab, before(lab) as local:
        answer = read_as(wire, body_of(local.ask(asking(wire))))
        assert len(lab.requests) == 3
    assert answer.finished is not None
    assert answer.reply("complete").text == LONG
    assert local.failed == []


def test_a_tool_call_comes_whole_or_not_at_all() -> None:
    """A call that is cut in its arguments is asked for again; no byte of the half is passed on."""
    call = script.chat_call("find", '{"place": "Oslo", "days": 3}', tokens=6)
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
    with Lab(call, plan=Plan([Fault.cut(after_event=4)])) as lab, before(lab) as local:
        data = body_of(local.ask(asking("chat", tools=[tool])))
        assert len(lab.requests) == 2
    assert data.count(b'"name":"find"') == 1
    (found,) = read_as("chat", data).calls()
    assert (found.name, json.loads(found.arguments)) == ("find", {"place": "Oslo", "days": 3})


def test_what_cannot_be_brought_back_has_no_legal_end() -> None:
    """A stream that keeps breaking ends like one: no terminator, and the reason is told."""
    with Lab(script.say(TEXT), plan=Plan.always(Fault.cut(after_event=6))) as lab, before(lab) as local:
        heard = local.ask(asking("responses"))
    chunks, _, ended = heard.chunks
    assert (heard.status, ended) == (200, False)
    assert b"The" in b"".join(chunks)
    assert [type(error).__name__ for error in local.failed] == ["StreamDropped"]


def test_a_rejection_is_passed_on() -> None:
    """The provider's no arrives in its own words, with the note that asking again was tried."""
    with Lab(script.problem(400, "no such parameter", code="bad")) as lab, before(lab) as local:
        heard = local.ask(asking("responses"))
    assert (heard.status, heard.header("x-should-retry")) == (400, "false")
    assert said(heard)["message"] == "no such parameter"


def test_an_answer_without_a_stream_is_passed_on() -> None:
    """A call that asks for no stream gets the JSON as it is, with its length."""
    with Lab(script.say(TEXT)) as lab, before(lab) as local:
        heard = local.ask(asking("chat", stream=False))
    assert heard.header("content-type") == "application/json"
    assert json.loads(body_of(heard))["choices"][0]["message"]["content"] == TEXT


def test_half_a_json_answer_is_no_answer() -> None:
    """A non-streaming answer that breaks off is a 502, never half a body with a good status."""
    with Lab(script.say(TEXT), plan=Plan.always(Fault.cut(at_byte=40))) as lab, before(lab) as local:
        heard = local.ask(asking("chat", stream=False))
    assert heard.status == 502
    assert said(heard)["type"] == "sidestream_error"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_everything_else_passes(method: str) -> None:
    """Other paths and methods pass: the model list, and its head alone."""
    with Lab() as lab, before(lab) as local:
        heard = local.ask(MODELS.replace(b"GET", method.encode()) + b"Connection: close\r\n\r\n")
        (seen,) = lab.requests
    assert (seen.method, seen.path, heard.status) == (method, "/v1/models", 200)
    assert (json.loads(heard.body)["data"][0]["id"] if method == "GET" else heard.body) in ("lab-1", b"")


def test_headers_of_a_connection_stay_there() -> None:
    """The provider is told its own name and the client's credential, and nothing about our connection."""
    wanted = ("Authorization: Bearer k", "X-Mine: 1", "X-Hop: 1", "TE: trailers", "Connection: X-Hop, close")
    with Lab() as lab, before(lab) as local:
        assert local.ask(request("/v1/models", b"", *wanted, method="GET", close=False)).status == 200
        (seen,) = lab.requests
        names = {name for name, _ in seen.headers}
        assert seen.header("host") == f"{lab.host}:{lab.port}"
    assert seen.header("authorization") == f"sha256:{hashlib.sha256(b'Bearer k').hexdigest()[:12]}"
    assert "x-mine" in names
    assert not names & {"x-hop", "te", "connection", "transfer-encoding", "upgrade"} - {"connection"}


# A client that leaves.


def test_a_client_that_leaves_takes_its_request_with_it() -> None:
    """Events arrive one by one; when the client goes, its upstream goes, and nothing is retried."""
    plan = Plan.always(Fault.stall(after_event=4))
    with Lab(script.say(TEXT), plan=plan) as lab, before(lab) as local:
        with local.connect() as sock:
            sock.sendall(asking("chat"))
            read_until(sock, b'"content"')
        assert lab.wait_closed(0).ended_by == "client"
        assert len(lab.requests) == 1
    assert local.failed == []


def test_a_client_may_leave_before_the_answer() -> None:
    """The same while the provider has not said a word."""
    with Lab(plan=Plan.always(Fault.hang())) as lab, before(lab) as local:
        with local.connect() as sock:
            sock.sendall(asking("responses"))
            lab.wait_request(0)
        assert lab.wait_closed(0).ended_by == "client"


def test_stopping_breaks_off_what_is_under_way() -> None:
    """When the server stops, the client's stream has no legal end and the upstream connection is closed."""
    plan = Plan.always(Fault.stall(after_event=4))
    with Lab(script.say(TEXT), plan=plan) as lab, before(lab) as local, local.connect() as sock:
        sock.sendall(asking("chat"))
        begun = read_until(sock, b'"content"')
        local.stop()
        rest = listen(sock)
        assert b"0\r\n\r\n" not in begun + rest.head + rest.body
        assert rest.ending in ("fin", "reset")
        assert lab.wait_closed(0).ended_by == "client"


# What is refused, and said so.


def test_a_provider_that_is_not_there() -> None:
    """A watched request gets a 502 that says why and that retrying was tried; no credential is in it."""
    lab = Lab()
    with lab:
        gone = lab.url
    with before(gone) as local:
        watched = local.ask(asking("chat", f"Authorization: Bearer {CANARY}"))
        other = local.ask(MODELS + b"Connection: close\r\n\r\n")
    assert (watched.status, watched.header("x-should-retry")) == (502, "false")
    assert (other.status, other.header("x-should-retry")) == (502, None)
    assert gone.removeprefix("http://").removesuffix("/v1") in said(other)["message"]
    assert CANARY not in str(said(watched)) + str(local.failed)
    assert len(local.failed) == 2


def test_a_provider_that_is_too_slow() -> None:
    """A call whose clock runs out before an answer gets a 504."""
    from sidestream import wrap

    slow = wrap(httpx2.AsyncHTTPTransport(), timeout=0.2)
    with Lab(plan=Plan.always(Fault.hang())) as lab, before(lab, transport=slow) as local:
        heard = local.ask(asking("chat"))
    assert (heard.status, said(heard)["code"]) == (504, "DeadlineExceeded")


@pytest.mark.parametrize(
    "what",
    [
        request(body=b"x" * 2000),
        request(body=b"", close=False).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        + b"400\r\n" + b"x" * 1024 + b"\r\n400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n",
    ],
    ids=["announced", "chunked"],
)  # fmt: skip
def test_a_request_that_is_too_large(what: bytes) -> None:
    """A body beyond the limit gets a 413, and the provider never hears of it."""
    with Lab() as lab, before(lab, limits=Limits(body=1500)) as local:
        heard = local.ask(what)
        assert lab.requests == ()
    assert (heard.status, heard.header("connection")) == (413, "close")
    assert "1500 bytes" in said(heard)["message"]


@pytest.mark.parametrize(
    ("what", "status", "why"),
    [
        (b"hello there\r\n\r\n", 400, "not a request"),
        (
            b"GET http://elsewhere.test/v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            400,
            "a path",
        ),
        (b"CONNECT elsewhere.test:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400, "a path"),
        (b"GET /v1/models HTTP/1.0\r\n\r\n", 505, "HTTP/1.1"),
        (request(RESPONSES, b"", f"X-Long: {'x' * 200_000}"), 431, "not a request"),
        (request(RESPONSES, b"", "Upgrade: websocket", method="GET"), 426, "use HTTP"),
    ],
    ids=["garbage", "another server", "a tunnel", "old", "head", "websocket"],
)
def test_requests_that_are_not_forwarded(what: bytes, status: int, why: str) -> None:
    """What is no HTTP/1.1 request for this provider is refused in words, and goes nowhere."""
    with Lab() as lab, before(lab) as local, local.connect() as sock:
        sock.sendall(what)
        heard = listen(sock)
        assert lab.requests == ()
    assert heard.status == status
    assert why in json.loads(heard.body)["error"]["message"]


def test_connections_have_a_limit() -> None:
    """A connection beyond the limit is closed at once; the others go on."""
    with Lab() as lab, before(lab, limits=Limits(connections=1)) as local, local.connect() as first:
        first.sendall(MODELS + b"\r\n")
        read_until(first, b"lab-1")
        assert local.ask(MODELS + b"\r\n").head == b""
        first.sendall(MODELS + b"\r\n")
        read_until(first, b"lab-1")


def test_a_connection_that_says_nothing_is_closed() -> None:
    """A connection without a request ends after the idle time."""
    with Lab() as lab, before(lab, limits=Limits(idle=0.05)) as local:
        assert local.ask(b"GET /v1") == Heard(b"", b"", "fin")


def test_a_client_that_keeps_talking_is_closed() -> None:
    """While it is answered a client may send its next request, and no more than that."""
    plan = Plan.always(Fault.stall(after_event=4))
    with Lab(script.say(TEXT), plan=plan) as lab, before(lab) as local, local.connect() as sock:
        sock.sendall(asking("chat", close=False))
        read_until(sock, b'"content"')
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"x" * 260_000)
        assert lab.wait_closed(0).ended_by == "client"
        assert listen(sock).ending in ("fin", "reset")


# HTTP's smaller promises.


def test_a_connection_serves_many_requests() -> None:
    """Requests follow each other on one connection, also if they are sent before they are asked for."""
    with Lab() as lab, before(lab) as local, local.connect() as sock:
        sock.sendall(MODELS + b"\r\n" + MODELS + b"\r\n")
        seen = b""
        while seen.count(b"lab-1") < 2:
            seen += sock.recv(65536)
        sock.sendall(MODELS + b"Connection: close\r\n\r\n")
        assert listen(sock).status == 200
        assert len(lab.requests) == 3


def test_a_client_may_wait_for_leave_to_send() -> None:
    """A client that says `Expect: 100-continue` is told to go on."""
    with Lab(script.say(TEXT)) as lab, before(lab) as local, local.connect() as sock:
        head, _, body = asking("chat", "Expect: 100-continue").partition(b"\r\n\r\n")
        sock.sendall(head + b"\r\n\r\n")
        assert read_until(sock, b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        sock.sendall(body)
        heard = listen(sock)
    assert read_as("chat", body_of(heard)).reply("complete").text == TEXT


# Its settings.


@pytest.mark.parametrize(
    "address",
    ["", "api.test/v1", "ftp://api.test", "http://", "http://a:b@api.test/v1", "http://api.test/v1?key=1",
     "http://api.test:99999", "http://api.test/#x"],
)  # fmt: skip
def test_an_upstream_is_a_base_url(address: str) -> None:
    """Anything else is refused before a request is made, without showing what it holds."""
    with pytest.raises(UsageError) as caught:
        Passthrough(address)
    assert "a:b" not in str(caught.value)


def test_httpx2_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without httpx2 the error says which extra brings it."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(ConfigError) as caught:
        upstream_transport()
    assert "sidestream[pass]" in caught.value.hint
