"""The lab before a real server, which here is another lab."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from raw_client import CHAT, ask, connect, read_until, request

from sidestream.lab import Fault, Plan, Request, Script, script
from sidestream.lab.record import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidestream.lab import Lab

STREAM = script.responses_text("naïve 数据 🙂 and so on")
ODD = Script((b"\xef\xbb\xbfdata: 1\r\n\r\n", b": c\n\n", b"data: \xff\n\n", b"data: unfinished"))


def base(running: Lab) -> str:
    return running.url.removesuffix("/v1")


@pytest.mark.parametrize("stream", [STREAM, ODD, STREAM.sent(burst=True), STREAM.sent(framing="close")])
def test_a_stream_passes_byte_for_byte(lab: Callable[..., Lab], stream: Script) -> None:
    """Without a fault the client gets the upstream's body unchanged, one event per chunk."""
    real = lab(stream)
    answer = ask(lab(upstream=base(real)))
    assert answer.chunks == (list(stream.events), b"", True)
    assert answer.header("content-type") == "text/event-stream"


def test_a_plain_answer_passes_with_status_and_headers(lab: Callable[..., Lab]) -> None:
    """Status, headers and body of an error come through."""
    real = lab(script.error(429, {"error": "slow"}, headers={"Retry-After": "9", "X-Request-Id": "r1"}))
    answer = ask(lab(upstream=base(real)))
    assert (answer.status, answer.header("retry-after"), answer.header("x-request-id")) == (429, "9", "r1")
    assert b"".join(answer.chunks[0]) == b'{"error":"slow"}'


def test_the_request_passes_with_its_credentials(lab: Callable[..., Lab]) -> None:
    """Method, path, body and headers reach the upstream, hop-by-hop ones and Accept-Encoding apart."""
    seen: list[Request] = []

    def note(record: Request) -> Script:
        seen.append(record)
        return script.chat_text("hi")

    real = lab(note)
    front = lab(upstream=base(real))
    headers = ("Authorization: Bearer sk-1", "Accept-Encoding: gzip", "X-Mine: yes", "TE: trailers")
    ask(front, request(CHAT + "?a=b", b'{"x":1}', *headers))
    record = seen[0]
    assert (record.method, record.path, record.body) == ("POST", CHAT + "?a=b", b'{"x":1}')
    assert record.header("authorization") == fingerprint("Bearer sk-1")
    assert record.header("x-mine") == "yes"
    assert (record.header("accept-encoding"), record.header("te")) == (None, None)
    assert "sk-1" not in repr(front.requests)


def test_a_fault_strikes_the_upstreams_stream(lab: Callable[..., Lab]) -> None:
    """A cut through the proxy falls after exactly that many events, and frees the upstream."""
    real = lab(STREAM.sent(pace=0.001))
    front = lab(upstream=base(real), plan=Plan([Fault.cut(after_event=4, tail=0)]))
    assert ask(front).chunks == (list(STREAM.events[:4]), b"", False)
    assert real.wait_closed(0).ended_by == "client"
    assert ask(front).chunks == (list(STREAM.events), b"", True)


def test_a_short_length_can_be_announced_without_knowing_the_length(lab: Callable[..., Lab]) -> None:
    """K5 through the proxy announces more than any stream has."""
    front = lab(upstream=base(lab(STREAM)), plan=Plan.always(Fault.short(after_event=2)))
    answer = ask(front)
    assert answer.body == b"".join(STREAM.events[:2])
    assert int(answer.header("content-length") or 0) > len(STREAM.body)


def test_every_path_is_forwarded(lab: Callable[..., Lab]) -> None:
    """The proxy has no model list of its own."""
    real = lab(STREAM, models=("real-model",))
    answer = ask(lab(upstream=base(real), models=("mine",)), request("/v1/models", b"", method="GET"))
    assert b"real-model" in b"".join(answer.chunks[0])


@pytest.mark.parametrize("fault", [Fault.stall(after_event=3), Fault.hang()])
def test_a_client_that_leaves_takes_the_upstream_with_it(lab: Callable[..., Lab], fault: Fault) -> None:
    """When the client goes away, the upstream connection is closed at once."""
    real = lab(STREAM, plan=Plan.always(fault))
    front = lab(upstream=base(real))
    with connect(front) as sock:
        sock.sendall(request())
        real.wait_request(0)
        if fault.after_event:
            read_until(sock, STREAM.events[2])
    left, closed = front.wait_closed(0), real.wait_closed(0)
    assert (left.ended_by, closed.ended_by) == ("client", "client")
    assert left.closed_at is not None
    assert closed.closed_at is not None
    assert closed.closed_at - left.closed_at < 0.25


@pytest.mark.parametrize("fault", [Fault.cut(after_event=3, tail=0), Fault.reset(after_event=3)])
def test_an_upstream_that_breaks_off_breaks_off_here(lab: Callable[..., Lab], fault: Fault) -> None:
    """What the upstream cuts is cut for the client, never ended legally."""
    real = lab(STREAM, plan=Plan.always(fault))
    chunks, _, finished = ask(lab(upstream=base(real))).chunks
    assert (chunks, finished) == (list(STREAM.events[:3]), False)


def test_an_upstream_that_is_not_there_is_502(lab: Callable[..., Lab]) -> None:
    """A refused upstream connection is a 502 that says so."""
    real = lab(STREAM)
    real.refuse()
    answer = ask(lab(upstream=base(real)))
    assert answer.status == 502
    assert b"upstream" in answer.body
