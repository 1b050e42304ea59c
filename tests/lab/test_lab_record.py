"""What the lab saw: records, clocks and who left first."""

from __future__ import annotations

import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest
from raw_client import CHAT, RESPONSES, ask, connect, read_until, request

from sidestream.lab import Fault, Limits, Plan, fingerprint, script
from sidestream.lab.record import wire_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidestream.lab import Lab

STREAM = script.responses_text("one two three")
PROMPT = 0.25  # seconds; a few milliseconds on a quiet machine
ENDLESS = [
    Fault.hang(),
    Fault.stall(after_event=2),
    Fault.keepalive(after_event=2, interval=10.0),
    Fault.drip(interval=0.2),
]


def test_a_request_is_recorded_as_it_came(lab: Callable[..., Lab]) -> None:
    """Method, path, headers and body are kept; names are lower case."""
    running = lab(STREAM)
    ask(running, request(RESPONSES + "?a=1", b'{"model":"m"}', "X-Some: Thing"))
    record = running.wait_closed(0)
    assert (record.method, record.path, record.wire) == ("POST", RESPONSES + "?a=1", "responses")
    assert record.header("X-Some") == "Thing"
    assert record.header("nope") is None
    assert record.json() == {"model": "m"}
    assert (record.index, record.attempt, record.connection) == (0, 0, 0)


def test_credentials_never_enter_a_record(lab: Callable[..., Lab]) -> None:
    """Of a credential only a fingerprint is kept, the same for the same value, in headers and query."""
    running = lab(STREAM)
    secret = "sk-canary-123"
    names = ("Authorization", "X-API-Key", "Api-Key", "Cookie", "Proxy-Authorization")
    ask(running, request(f"{RESPONSES}?api_key={secret}&a=1", b"{}", *(f"{n}: {secret}" for n in names)))
    record = running.wait_closed(0)
    assert secret not in repr(record)
    assert {record.header(name) for name in names} == {fingerprint(secret)}
    assert record.path == f"{RESPONSES}?api_key={fingerprint(secret)}&a=1"


def test_the_clock_runs_in_order(lab: Callable[..., Lab]) -> None:
    """Received, first byte, end and close follow each other on the clock of `time.monotonic`."""
    before = time.monotonic()
    running = lab(STREAM)
    ask(running)
    record = running.wait_closed(0)
    instants = (before, record.received_at, record.first_byte_at, record.ended_at, time.monotonic())
    assert all(instant is not None for instant in instants)
    assert list(instants) == sorted(instants)  # type: ignore[type-var]
    assert record.closed_at is not None


@pytest.mark.parametrize("fault", ENDLESS, ids=lambda fault: fault.kind)
@pytest.mark.parametrize("way", ["close", "shutdown", "reset"])
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_a_leaving_client_is_noticed_at_once(
    lab: Callable[..., Lab], fault: Fault, way: str, tls: bool
) -> None:
    """FIN, shutdown or RST: the client's leaving is on record at once, whatever the lab was doing."""
    running = lab(STREAM, plan=Plan.always(fault), tls=tls)
    sock = connect(running)
    sock.sendall(request())
    running.wait_request(0)
    if way == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    left_at = time.monotonic()
    if way == "shutdown":
        sock.shutdown(socket.SHUT_RDWR)
    else:
        sock.close()
    record = running.wait_closed(0)
    sock.close()
    assert record.ended_by == "client"
    assert record.closed_at is not None
    assert record.closed_at == record.ended_at
    assert -0.001 < record.closed_at - left_at < PROMPT


def test_a_client_that_stops_reading_and_leaves_is_noticed(lab: Callable[..., Lab]) -> None:
    """Leaving is noticed while the lab waits for a full socket buffer."""
    running = lab(STREAM, plan=Plan.always(Fault.huge_event(after_event=0, size=16 * 1024 * 1024)))
    with connect(running) as sock:
        sock.sendall(request())
        read_until(sock, b"lab.padding")
    record = running.wait_closed(0)
    assert (record.ended_by, record.events_sent) == ("client", 0)


def test_waiting_for_progress_returns_when_it_is_made(lab: Callable[..., Lab]) -> None:
    """`wait_sent` returns once that many events are out, while the answer goes on."""
    running = lab(STREAM.sent(pace=0.01))
    with connect(running) as sock:
        sock.sendall(request())
        record = running.wait_sent(0, 3)
        assert record.events_sent >= 3
        assert record.ended_at is None
        assert running.wait(0, lambda r: r.bytes_sent > 0).bytes_sent > 0


def test_waiting_in_vain_says_how_far_it_got(lab: Callable[..., Lab]) -> None:
    """A wait that fails is a TimeoutError that names the request and its state."""
    running = lab(STREAM)
    with pytest.raises(TimeoutError, match=r"request 0: no arrival within .* so far it has not arrived"):
        running.wait_request(0, timeout=0.01)
    ask(running)
    running.wait_ended(0)
    with pytest.raises(TimeoutError, match="no 99 events sent"):
        running.wait_sent(0, 99, timeout=0.01)


def test_waiting_works_from_several_threads(lab: Callable[..., Lab]) -> None:
    """Every waiter is woken by the request it waits for."""
    running = lab(STREAM)
    seen: list[int] = []
    waiters = [
        threading.Thread(target=lambda n=n: seen.append(running.wait_closed(n).index)) for n in range(3)
    ]
    for waiter in waiters:
        waiter.start()
    for _ in waiters:
        ask(running)
    for waiter in waiters:
        waiter.join(5)
    assert sorted(seen) == [0, 1, 2]


def test_the_log_is_bounded_in_records(lab: Callable[..., Lab]) -> None:
    """Beyond the limit the oldest records go, and waiting for one of them says so."""
    running = lab(STREAM, limits=Limits(records=2))
    for _ in range(4):
        ask(running)
    running.wait_closed(3)
    assert [record.index for record in running.requests] == [2, 3]
    with pytest.raises(LookupError, match="no longer kept"):
        running.wait_closed(0)


def test_the_log_is_bounded_in_bytes(lab: Callable[..., Lab]) -> None:
    """Beyond the limit on bodies the oldest records go."""
    running = lab(STREAM, limits=Limits(recorded=100))
    for _ in range(3):
        ask(running, request(body=b"x" * 45))
    running.wait_closed(2)
    assert [record.index for record in running.requests] == [1, 2]


@pytest.mark.parametrize(
    ("path", "wire"),
    [
        (RESPONSES, "responses"),
        (RESPONSES + "/resp_1?starting_after=3", "responses"),
        (CHAT, "chat"),
        ("/v1/messages", "messages"),
        ("/backend/models?x=/responses", "models"),
        ("/v1/responsesx", ""),
    ],
)
def test_the_path_tells_the_wire(path: str, wire: str) -> None:
    """The wire is known by path segments, not by substrings or the query."""
    assert wire_of(path) == wire
