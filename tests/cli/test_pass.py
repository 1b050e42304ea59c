"""`sidestream pass`: a local address for any program, its story on stderr, its address on stdout."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from commands import CANARY, process, sidestream

from sidestream.lab import Continuing, Fault, Lab, Plan

pytest.importorskip("httpx2")
TEXT = "The quick brown fox jumps over the lazy dog."


@contextmanager
def passing(*options: object, **more: Any) -> Iterator[subprocess.Popen[str]]:
    child = process("pass", "--port", "0", *options, **more)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def post(url: str) -> bytes:
    address = urlsplit(url)
    assert address.hostname
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True})
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {CANARY}"}
    try:
        connection.request("POST", f"{address.path}/chat/completions", body, headers)
        return connection.getresponse().read()
    finally:
        connection.close()


def address_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    url: str = json.loads(child.stdout.readline())["url"]
    return url


def test_streams_finish_and_the_story_is_told() -> None:
    """A stream that is cut comes whole; stderr says where it listens and what was done, and shows no key."""
    with (
        Lab(Continuing(TEXT), plan=Plan([Fault.cut(after_event=5)])) as lab,
        passing("--to", lab.url) as child,
    ):
        assert child.stderr is not None
        first = child.stderr.readline()
        data = post(first.split()[2].rstrip(","))
        child.terminate()
        out, err = child.communicate(timeout=20)
    assert first.startswith("listening on http://127.0.0.1:")
    assert "/v1, for http://127.0.0.1:" in first
    assert data.endswith(b"data: [DONE]\n\n")
    assert b"lazy" in data
    assert (out, child.returncode) == ("", 0)
    assert [line[0] for line in err.splitlines()] == ["✂", "↻"]
    assert CANARY not in first + err


def test_json_is_the_address() -> None:
    """With --json the first line on stdout is the address, with the provider's path; stderr stays empty."""
    with Lab() as lab, passing("--to", lab.url, "--json") as child:
        assert urlsplit(address_of(child)).path == "/v1"
        child.terminate()
        assert child.communicate(timeout=20) == ("", "")


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_the_normal_end(number: int) -> None:
    """Ctrl-C and SIGTERM end it, an answer under way included: exit code 0 and not a word more."""
    with Lab(Continuing(TEXT), plan=Plan.always(Fault.stall(after_event=5))) as lab:
        with passing("--to", lab.url, "--json") as child:
            address = urlsplit(address_of(child))
            body = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": true}'
            head = (
                f"POST {address.path}/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            )
            with socket.create_connection((address.hostname, address.port), 20) as sock:
                sock.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
                assert sock.recv(12) == b"HTTP/1.1 200"
                child.send_signal(number)
                assert child.communicate(timeout=20) == ("", "")
        assert child.returncode == 0
        assert lab.wait_closed(0).ended_by == "client"


def test_a_request_that_fails_is_one_line() -> None:
    """What could not be brought back is told in one line, and the server goes on."""
    with Lab() as lab:
        gone = lab.url
    with passing("--to", gone) as child:
        assert child.stderr is not None
        url = child.stderr.readline().split()[2].rstrip(",")
        assert b"sidestream_error" in post(url)
        assert b"sidestream_error" in post(url)
        child.terminate()
        _, err = child.communicate(timeout=20)
    assert sum(line.startswith("✗ ") for line in err.splitlines()) == 2
    assert "Traceback" not in err


def test_another_address_is_warned_of() -> None:
    """Listening anywhere but on loopback is said to be open, --quiet or not."""
    with Lab() as lab, passing("--to", lab.url, "--host", "0.0.0.0", "--quiet") as child:  # noqa: S104
        assert child.stderr is not None
        assert "open to your network" in child.stderr.readline()


@pytest.mark.parametrize("address", ["api.openai.com/v1", f"https://me:{CANARY}@api.test/v1"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """What is no base URL ends with 2, one line and a hint, and is not repeated if it holds a password."""
    done = sidestream("pass", "--to", address)
    assert (done.code, done.out) == (2, "")
    assert [line.split(":")[0] for line in done.err.splitlines()] == ["error", "hint"]
    assert CANARY not in done.err


def test_a_port_that_is_taken_is_refused() -> None:
    """A port that cannot be had ends with 2 and says what to do."""
    with Lab() as lab:
        done = sidestream("pass", "--to", lab.url, "--port", lab.port)
    assert done.code == 2
    assert f"cannot listen on 127.0.0.1:{lab.port}" in done.err
    assert "--port 0" in done.err


def test_httpx2_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without httpx2 the command ends with 2 and names the extra that brings it."""
    monkeypatch.setitem(__import__("sys").modules, "httpx2", None)
    done = sidestream("pass", "--to", "http://127.0.0.1:1/v1")
    assert done.code == 2
    assert "pip install 'sidestream[pass]'" in done.err
