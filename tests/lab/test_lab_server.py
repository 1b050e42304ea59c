"""The server's life: connections, answers that are no streams, limits, starting and stopping."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from raw_client import CHAT, MESSAGES, RESPONSES, Heard, ask, connect, listen, read_until, request

import sidestream.lab
from sidestream.errors import UsageError
from sidestream.lab import Fault, Lab, Limits, Plan, Request, Script, script, serve

if TYPE_CHECKING:
    from collections.abc import Callable

STREAM = script.responses_text("one two three")


def open_files() -> int:
    """How many file descriptors this process has; 0 where the system does not tell."""
    fds = Path("/proc/self/fd")
    return len(list(fds.iterdir())) if fds.exists() else 0


def test_answers_go_by_attempt_and_the_last_repeats(lab: Callable[..., Lab]) -> None:
    """With a sequence, attempt i gets answer i, and later ones the last."""
    running = lab([script.error(503, "busy"), STREAM])
    assert [ask(running).status for _ in range(3)] == [503, 200, 200]


def test_an_answer_can_be_chosen_by_the_request(lab: Callable[..., Lab]) -> None:
    """A function sees the recorded request and returns the script."""

    def choose(record: Request) -> Script:
        return script.json({"wire": record.wire, "body": record.json(), "attempt": record.attempt})

    running = lab(choose)
    ask(running, request(RESPONSES, b"1"))
    answer = msgspec.json.decode(ask(running, request(CHAT, b"2")).body)
    assert answer == {"wire": "chat", "body": 2, "attempt": 1}


def test_without_answers_the_lab_greets_on_every_wire(lab: Callable[..., Lab]) -> None:
    """`Lab()` alone is a working server."""
    running = lab()
    assert b"message_stop" in ask(running, request(MESSAGES)).body
    assert b"response.completed" in ask(running).body
    assert b"[DONE]" in ask(running, request(CHAT)).body


def test_the_model_list_is_no_attempt(lab: Callable[..., Lab]) -> None:
    """A probe of the models gets its list and shifts neither plan nor answers."""
    running = lab(STREAM, plan=Plan([Fault.close()]), models=("a", "b"))
    listed = msgspec.json.decode(ask(running, request("/v1/models", b"", method="GET")).body)
    assert [entry["id"] for entry in listed["data"]] == ["a", "b"]
    assert ask(running).status == 0
    assert [(r.attempt, r.fault) for r in running.requests] == [(-1, ""), (0, "close")]


def test_the_model_list_is_that_of_who_asks(lab: Callable[..., Lab]) -> None:
    """A client that names a version of Anthropic's API gets a list in its shape, be it empty."""
    asked = request("/v1/models", b"", "anthropic-version: 2023-06-01", method="GET")
    listed = msgspec.json.decode(ask(lab(models=("a", "b")), asked).body)
    assert [(entry["type"], entry["id"]) for entry in listed["data"]] == [("model", "a"), ("model", "b")]
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("a", "b", False)
    assert msgspec.json.decode(ask(lab(models=()), asked).body)["data"] == []


def test_counting_tokens_is_no_attempt(lab: Callable[..., Lab]) -> None:
    """A client that counts a prompt's tokens first gets a number and shifts neither plan nor answers."""
    running = lab(STREAM, plan=Plan([Fault.close()]))
    answer = ask(running, request(MESSAGES + "/count_tokens?beta=true", b'{"messages":[]}'))
    assert msgspec.json.decode(answer.body)["input_tokens"] > 0
    assert ask(running, request(MESSAGES)).status == 0
    assert [r.attempt for r in running.requests] == [-1, 0]


@pytest.mark.parametrize("asked", [b'{"stream":false}', b'{"input":"Hi"}'])
def test_without_a_stream_a_script_is_one_object(lab: Callable[..., Lab], asked: bytes) -> None:
    """A fixed stream answers a request that wants none as JSON; a function's answer goes out as it is."""
    whole = ask(lab([STREAM]), request(body=asked))
    assert whole.header("content-type") == "application/json"
    assert msgspec.json.decode(whole.body)["status"] == "completed"
    assert ask(lab(lambda _: STREAM), request(body=asked)).header("content-type") == "text/event-stream"


def test_an_unknown_path_is_404(lab: Callable[..., Lab]) -> None:
    """Anything but a model endpoint or the model list is not found."""
    answer = ask(lab(STREAM), request("/v1/embeddings"))
    assert (answer.status, answer.header("content-type")) == (404, "application/json")


def test_a_plain_answer_has_its_length_and_headers(lab: Callable[..., Lab]) -> None:
    """An error answer arrives with status, headers and body as written."""
    running = lab(script.error(429, {"error": {"message": "slow"}}, headers={"retry-after": "7"}))
    answer = ask(running)
    assert (answer.status, answer.header("retry-after")) == (429, "7")
    assert answer.body == b'{"error":{"message":"slow"}}'


def test_a_connection_serves_several_requests(lab: Callable[..., Lab]) -> None:
    """After a clean end the connection stays open; its close time is noted for every request on it."""
    running = lab(STREAM)
    with connect(running) as sock:
        for _ in range(3):
            sock.sendall(request(close=False))
            read_until(sock, b"0\r\n\r\n")
    records = [running.wait_closed(n) for n in range(3)]
    assert {r.connection for r in records} == {0}
    assert {r.ended_by for r in records} == {"server"}
    assert len({r.closed_at for r in records}) == 1
    assert running.accepted == 1


def test_pipelined_requests_are_answered_in_order(lab: Callable[..., Lab]) -> None:
    """Two requests in one write get two answers."""
    running = lab([script.json(1), script.json(2)])
    with connect(running) as sock:
        sock.sendall(request(close=False) + request())
        assert listen(sock).body.startswith(b"1HTTP/1.1 200")


def test_http_1_0_gets_no_chunks(lab: Callable[..., Lab]) -> None:
    """A client of HTTP/1.0 gets a body that ends with the connection."""
    answer = ask(lab(STREAM), request(version="1.0", close=False))
    assert (answer.header("transfer-encoding"), answer.body) == (None, STREAM.body)


def test_expect_continue_is_answered(lab: Callable[..., Lab]) -> None:
    """A client that waits for 100 Continue gets it and then its answer."""
    running = lab(STREAM)
    head, _, body = request(RESPONSES, b"12345", "Expect: 100-continue").partition(b"\r\n\r\n")
    with connect(running) as sock:
        sock.sendall(head + b"\r\n\r\n")
        read_until(sock, b"100 Continue\r\n\r\n")
        sock.sendall(body)
        assert listen(sock).status == 200
    assert running.requests[0].body == b"12345"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (request(body=b"x" * 2000), 413),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 66_000, 431),
    ],
)
def test_what_is_no_request_or_too_big_is_refused(lab: Callable[..., Lab], sent: bytes, status: int) -> None:
    """Garbage and requests beyond the limits get an error and a closed connection."""
    running = lab(STREAM, limits=Limits(body=1000))
    with connect(running) as sock:
        sock.sendall(sent)
        raw = sock.recv(4096)
    assert int(raw.split()[1]) == status
    assert running.requests == ()


def test_connections_are_limited(lab: Callable[..., Lab]) -> None:
    """A connection beyond the limit is closed; when one is free again, the next is served."""
    running = lab(STREAM, limits=Limits(connections=1))
    with connect(running) as first:
        first.sendall(request(close=False))
        read_until(first, b"0\r\n\r\n")
        with connect(running) as second:
            assert listen(second) == Heard(b"", b"", "fin")
    running.wait_closed(0)
    assert ask(running).status == 200


def test_an_idle_connection_is_closed(lab: Callable[..., Lab]) -> None:
    """A connection without a request ends after the limit."""
    running = lab(STREAM, limits=Limits(idle=0.05))
    with connect(running) as sock:
        assert listen(sock) == Heard(b"", b"", "fin")


def test_tls_serves_a_client_that_trusts_the_pem(lab: Callable[..., Lab]) -> None:
    """With `tls=True` the URL is https and a client that trusts `ca_pem` gets its answer."""
    running = lab(STREAM, tls=True)
    answer = ask(running)
    assert running.url.startswith("https://127.0.0.1:")
    assert (b"".join(answer.chunks[0]), answer.ending) == (STREAM.body, "fin")


def test_tls_survives_clients_that_speak_none(lab: Callable[..., Lab]) -> None:
    """Plain HTTP to a TLS port is dropped, and the next client is served."""
    running = lab(STREAM, tls=True)
    with socket.create_connection((running.host, running.port), 5) as sock:
        sock.sendall(request())
        listen(sock)
    assert ask(running).status == 200


def test_stopping_closes_everything_within_a_second() -> None:
    """Stop ends streaming, stalling, hanging and idle connections, the thread and every file descriptor."""
    before = (threading.active_count(), open_files())
    plan = Plan([Fault.hang(), Fault.stall(after_event=1), Fault.keepalive(interval=9), None])
    running = Lab(STREAM.sent(pace=0.5), plan=plan).start()
    socks = [connect(running) for _ in range(5)]
    for n, sock in enumerate(socks[:4]):
        sock.sendall(request())
        running.wait_request(n)
    began = time.monotonic()
    running.stop()
    assert time.monotonic() - began < 1.0
    assert [listen(sock).ending for sock in socks] == ["fin"] * 5
    assert all(r.ended_by == "server" and r.closed_at for r in running.requests)
    for sock in socks:
        sock.close()
    assert (threading.active_count(), open_files()) == before


def test_stopping_twice_or_before_the_start_is_fine() -> None:
    """`stop` may be called at any time; `start` only once at a time."""
    running = Lab(STREAM)
    running.stop()
    with pytest.raises(UsageError, match="not been started"):
        running.refuse()
    running.start()
    with pytest.raises(UsageError, match="running already"):
        running.start()
    running.stop()
    running.stop()
    with running:
        assert ask(running).status == 200


def test_refusing_keeps_the_port_and_open_connections(lab: Callable[..., Lab]) -> None:
    """`refuse` rejects new connections while open ones go on; `accept` listens on the same port again."""
    running = lab(STREAM)
    with connect(running) as sock:
        sock.sendall(request(close=False))
        read_until(sock, b"0\r\n\r\n")
        running.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(running)
        sock.sendall(request())
        assert listen(sock).status == 200
    running.accept()
    running.accept()
    assert ask(running).status == 200


def test_a_broken_answer_function_is_reported() -> None:
    """What an answer function raises drops the connection and comes up when the lab is left."""

    def broken(_: Request) -> Script:
        raise KeyError("mine")

    running = Lab(broken).start()
    assert ask(running).status == 0
    assert running.wait_closed(0).ended_by == "server"
    with pytest.raises(KeyError, match="mine"):
        running.__exit__(None, None, None)


@pytest.mark.parametrize(
    "wrong", [lambda: Lab([]), lambda: Lab(STREAM, upstream="http://127.0.0.1:1"), lambda: Lab(STREAM).ca_pem]
)
def test_contradictions_are_usage_errors(wrong: Callable[[], object]) -> None:
    """Arguments that cannot be meant are refused with a hint."""
    with pytest.raises(UsageError) as caught:
        wrong()
    assert caught.value.hint


def test_a_missing_trustme_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS without trustme says what to install."""
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(UsageError, match="trustme") as caught:
        Lab(STREAM, tls=True)
    assert "sidestream[lab]" in caught.value.hint


def test_a_taken_port_is_an_error_at_the_start(lab: Callable[..., Lab]) -> None:
    """Starting on a port in use raises at once and harms nobody."""
    running = lab(STREAM)
    late = Lab(STREAM, port=running.port)
    with pytest.raises(OSError, match="in use"):
        late.start()
    late.stop()
    assert ask(running).status == 200


def test_serve_tells_what_happens_until_it_is_stopped() -> None:
    """`serve` reports the start and each finished request in order."""
    told: list[object] = []
    stop = threading.Event()

    def started(running: Lab) -> None:
        told.append("started")
        for _ in range(3):
            ask(running)
        running.wait_closed(2)
        stop.set()

    serve(Lab(STREAM), started=started, ended=lambda r: told.append(r.index), stop=stop)
    assert told == ["started", 0, 1, 2]


def test_ipv6_urls_have_brackets(lab: Callable[..., Lab]) -> None:
    """A lab on ::1 has a usable URL."""
    try:
        running = lab(STREAM, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    assert running.url == f"http://[::1]:{running.port}/v1"
    assert ask(running).status == 200


def test_the_package_exports_what_it_says() -> None:
    """Every public name loads, and an unknown one is an AttributeError."""
    for name in sidestream.lab.__all__:
        assert getattr(sidestream.lab, name) is not None
    assert dir(sidestream.lab) == sorted(sidestream.lab.__all__)
    with pytest.raises(AttributeError, match="nope"):
        sidestream.lab.nope  # noqa: B018


def test_importing_the_pytest_plugin_loads_nothing_of_the_lab() -> None:
    """The plugin is cheap: no server, no parser, no TLS before a test asks for the fixture."""
    code = (
        "import sys, sidestream.lab.pytest_plugin as _; "
        "print([m for m in sys.modules if m in ('httptools', 'httpcore2', 'trustme', 'msgspec') or "
        "m.startswith('sidestream.lab.') and not m.endswith('pytest_plugin')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_stopping_right_after_a_connection_leaks_nothing(recwarn: pytest.WarningsRecorder) -> None:
    """A connection accepted just as the lab stops is closed like any other."""
    for _ in range(20):
        with Lab() as running:
            for _ in range(3):
                socket.create_connection((running.host, running.port)).close()
        gc.collect()
    assert not [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)]
