"""Each fault, on the wire: the bytes that arrive and the way the connection ends."""

from __future__ import annotations

import gzip
import socket
import zlib
from typing import TYPE_CHECKING

import pytest
from raw_client import CHAT, MESSAGES, RESPONSES, Heard, ask, connect, listen, read_until, request

from sidestream.errors import UsageError
from sidestream.lab import Fault, Lab, Limits, Plan, Script, script

if TYPE_CHECKING:
    from collections.abc import Callable

STREAM = script.responses_text("naïve 数据 🙂 and so on", tokens=8)
EVENTS = STREAM.events
BODY = STREAM.body


def heard(lab: Callable[..., Lab], *faults: Fault, stream: Script = STREAM) -> tuple[Heard, Lab]:
    running = lab(stream, plan=Plan.always(*faults))
    return ask(running), running


def test_without_a_fault_every_event_has_its_own_chunk(lab: Callable[..., Lab]) -> None:
    """A clean answer is one event per chunk, then the zero chunk, and is logged as such."""
    answer, running = heard(lab)
    record = running.wait_closed(0)
    assert answer.chunks == (list(EVENTS), b"", True)
    assert answer.header("content-type") == "text/event-stream"
    assert (record.events_sent, record.bytes_sent) == (len(EVENTS), len(BODY))
    assert (record.fault, record.ended_by) == ("", "server")


@pytest.mark.parametrize("after", [0, 3, len(EVENTS)])
def test_k1_ends_early_but_legally(lab: Callable[..., Lab], after: int) -> None:
    """K1 sends the zero chunk after k events."""
    answer, running = heard(lab, Fault.end(after_event=after))
    assert answer.chunks == (list(EVENTS[:after]), b"", True)
    assert running.wait_ended(0).events_sent == after


def test_k1_matches_a_content_length(lab: Callable[..., Lab]) -> None:
    """K1 in an answer with a length announces exactly what it sends."""
    answer, _ = heard(lab, Fault.end(at_byte=100), stream=STREAM.sent(framing="length"))
    assert (answer.header("content-length"), answer.body) == ("100", BODY[:100])


def test_k2_leaves_an_unfinished_chunk(lab: Callable[..., Lab]) -> None:
    """K2 announces a chunk and sends FIN in the middle of it."""
    answer, running = heard(lab, Fault.cut(after_event=3))
    chunks, rest, finished = answer.chunks
    size, _, part = rest.partition(b"\r\n")
    assert (chunks, answer.ending, finished) == (list(EVENTS[:3]), "fin", False)
    assert int(size, 16) == len(EVENTS[3])
    assert part == EVENTS[3][: len(EVENTS[3]) // 2]
    assert running.wait_closed(0).fault == "cut"


def test_k2_can_fall_between_two_chunks(lab: Callable[..., Lab]) -> None:
    """K2 with no tail sends FIN where the next chunk would begin."""
    answer, _ = heard(lab, Fault.cut(after_event=3, tail=0))
    assert answer.chunks == (list(EVENTS[:3]), b"", False)


def test_k2_after_the_last_event_takes_the_place_of_the_end(lab: Callable[..., Lab]) -> None:
    """K2 without a position sends everything but the zero chunk."""
    answer, _ = heard(lab, Fault.cut())
    assert answer.chunks == (list(EVENTS), b"", False)


def test_a_cut_can_fall_on_every_byte(lab: Callable[..., Lab]) -> None:
    """`at_byte=b` lets exactly b bytes of the body out, inside UTF-8 sequences, too."""
    start = BODY.index("🙂".encode()) - 2
    positions = [0, 1, *range(start, start + 8), len(BODY) - 1, len(BODY)]
    running = lab(STREAM, plan=Plan([Fault.cut(at_byte=at) for at in positions]))
    for index, at in enumerate(positions):
        chunks, rest, finished = ask(running).chunks
        assert b"".join(chunks) + rest.partition(b"\r\n")[2] == BODY[:at]
        assert not finished
        assert running.wait_closed(index).bytes_sent == at


def test_a_position_past_the_end_never_strikes(lab: Callable[..., Lab]) -> None:
    """A fault after more events than there are leaves the answer clean and the record without a fault."""
    answer, running = heard(lab, Fault.cut(after_event=len(EVENTS) + 1))
    assert answer.chunks[2]
    assert running.wait_ended(0).fault == ""


@pytest.mark.parametrize("fault", [Fault.reset(after_event=3), Fault.reset(at_byte=500)])
def test_k3_resets_after_what_was_sent(lab: Callable[..., Lab], fault: Fault) -> None:
    """K3 is ECONNRESET for a client that first reads everything sent before it."""
    answer, _ = heard(lab, fault)
    sent = b"".join(answer.chunks[0]) + answer.chunks[1].partition(b"\r\n")[2]
    assert answer.ending == "reset"
    assert sent == (BODY[:500] if fault.at_byte else b"".join(EVENTS[:3]))


@pytest.mark.parametrize("after", [None, 2])
def test_k4_has_neither_length_nor_chunks(lab: Callable[..., Lab], after: int | None) -> None:
    """K4 sends bare bytes that end with the connection."""
    answer, _ = heard(lab, Fault.eof(after_event=after))
    assert (answer.header("transfer-encoding"), answer.header("content-length")) == (None, None)
    assert (answer.body, answer.ending) == (b"".join(EVENTS[:after]), "fin")


@pytest.mark.parametrize(("after", "missing"), [(None, 1), (2, sum(map(len, EVENTS[2:])))])
def test_k5_sends_less_than_it_announced(lab: Callable[..., Lab], after: int | None, missing: int) -> None:
    """K5 announces a Content-Length and sends fewer bytes."""
    answer, _ = heard(lab, Fault.short(after_event=after))
    assert answer.body == b"".join(EVENTS[:after])
    assert int(answer.header("content-length") or 0) - len(answer.body) == missing


def test_k6_is_silent_until_the_client_leaves(lab: Callable[..., Lab]) -> None:
    """K6 keeps the socket open without a byte; the record says that the client ended it."""
    running = lab(STREAM, plan=Plan.always(Fault.stall(after_event=2)))
    with connect(running, timeout=0.1) as sock:
        sock.sendall(request())
        answer = listen(sock)
    record = running.wait_closed(0)
    assert (answer.ending, answer.chunks[0]) == ("silence", list(EVENTS[:2]))
    assert (record.ended_by, record.events_sent, record.fault) == ("client", 2, "stall")


def test_k6_has_a_hard_limit(lab: Callable[..., Lab]) -> None:
    """An endless stall is ended by the lab's own limit, without a legal end."""
    running = lab(STREAM, plan=Plan.always(Fault.stall(after_event=2)), limits=Limits(stall=0.05))
    assert ask(running).chunks == (list(EVENTS[:2]), b"", False)


@pytest.mark.parametrize("fault", [Fault.stall(after_event=2, seconds=0.05), Fault.hang(seconds=0.05)])
def test_a_pause_ends_and_the_answer_goes_on(lab: Callable[..., Lab], fault: Fault) -> None:
    """A stall or hang of some seconds delays the answer and loses nothing."""
    answer, running = heard(lab, fault)
    record = running.wait_ended(0)
    assert answer.chunks == (list(EVENTS), b"", True)
    assert record.ended_at is not None
    assert record.ended_at - record.received_at >= 0.05


@pytest.mark.parametrize(
    ("form", "expected"),
    [("comment", b": keep-alive\n\n"), ("event", b'"sequence_number":3'), (b": mine\n\n", b": mine\n\n")],
)
def test_k7_sends_keepalives_and_no_progress(
    lab: Callable[..., Lab], form: str | bytes, expected: bytes
) -> None:
    """K7 sends its keep-alives again and again until the client leaves."""
    fault = Fault.keepalive(form, after_event=2, interval=0.01)
    running = lab(STREAM, plan=Plan.always(fault))
    with connect(running) as sock:
        sock.sendall(request())
        read_until(sock, expected)
    record = running.wait_closed(0)
    assert (record.events_sent, record.ended_by) == (2, "client")
    assert record.bytes_sent > sum(map(len, EVENTS[:2]))


@pytest.mark.parametrize(
    ("path", "keepalive", "error"),
    [
        (RESPONSES, b": keep-alive\n\n", b"server_is_overloaded"),
        (CHAT, b": keep-alive\n\n", b"server_error"),
        (MESSAGES, b'event: ping\ndata: {"type":"ping"}\n\n', b"overloaded_error"),
    ],
)
def test_k7_and_k10_speak_the_wire_that_is_asked(
    lab: Callable[..., Lab], path: str, keepalive: bytes, error: bytes
) -> None:
    """Where no form is named, keep-alives and errors are those of the wire, after an error, too."""
    kept, failed = Fault.keepalive(after_event=0), Fault.error_event(after_event=0, then="pings")
    running = lab(script.say("Hi"), plan=Plan([kept, failed]), limits=Limits(stall=0.06))
    assert set(ask(running, request(path)).chunks[0]) == {keepalive}
    first, *rest = ask(running, request(path)).chunks[0]
    assert error in first
    assert set(rest) == {keepalive}


def test_k7_for_a_while_only_delays(lab: Callable[..., Lab]) -> None:
    """K7 with a duration sends keep-alives, then the rest of the stream."""
    answer, _ = heard(lab, Fault.keepalive(after_event=2, interval=0.01, seconds=0.03))
    chunks, _, finished = answer.chunks
    assert [c for c in chunks if c != b": keep-alive\n\n"] == list(EVENTS)
    assert finished
    assert chunks[2] == b": keep-alive\n\n"


def test_k8_ends_tls_without_a_farewell(lab: Callable[..., Lab]) -> None:
    """K8 is an unexpected EOF for TLS, where a proper end is not."""
    running = lab(
        STREAM, tls=True, plan=Plan([Fault.no_close_notify(after_event=2), Fault.cut(after_event=2)])
    )
    ragged, proper = ask(running), ask(running)
    assert (ragged.ending, proper.ending) == ("ragged", "fin")
    assert ragged.chunks == (list(EVENTS[:2]), b"", False)


def test_k8_needs_tls() -> None:
    """A plan with K8 for a lab without TLS is a usage error."""
    with pytest.raises(UsageError, match="TLS"):
        Lab(STREAM, plan=Plan.always(Fault.no_close_notify()))


def test_k10_sends_an_error_in_the_stream(lab: Callable[..., Lab]) -> None:
    """K10 sends the error event of the shape, and then what was asked for."""
    clean, cut, on = (Fault.error_event("vllm", after_event=2, then=t) for t in ("end", "cut", "continue"))
    running = lab(STREAM, plan=Plan([clean, cut, on]))
    first, second, third = (ask(running).chunks for _ in range(3))
    assert first == ([*EVENTS[:2], clean.data], b"", True)
    assert second == ([*EVENTS[:2], clean.data], b"", False)
    assert third == ([*EVENTS[:2], clean.data, *EVENTS[2:]], b"", True)


@pytest.mark.parametrize("then", ["stall", "pings"])
def test_k10_can_leave_the_connection_open(lab: Callable[..., Lab], then: str) -> None:
    """K10 can go on with silence or pings until the client leaves."""
    running = lab(STREAM, plan=Plan.always(Fault.error_event(after_event=2, then=then)))  # type: ignore[arg-type]
    with connect(running) as sock:
        sock.sendall(request())
        read_until(sock, b"server_is_overloaded" if then == "stall" else b": keep-alive")
    assert running.wait_closed(0).ended_by == "client"


def test_k10_can_be_followed_by_a_reset(lab: Callable[..., Lab]) -> None:
    """K10 then reset is an error event and ECONNRESET."""
    answer, _ = heard(lab, Fault.error_event(b"data: {}\n\n", after_event=0, then="reset"))
    assert (answer.chunks[0], answer.ending) == ([b"data: {}\n\n"], "reset")


def test_k11_splices_a_page_into_the_stream(lab: Callable[..., Lab]) -> None:
    """K11 puts a page between two bytes of an event."""
    answer, _ = heard(lab, Fault.splice("html", at_byte=10))
    chunks, _, finished = answer.chunks
    assert chunks[0] == BODY[:10]
    assert chunks[1].startswith(b"<html>")
    assert (len(chunks), finished) == (2, True)


def test_k12_cuts_a_gzip_body_inside_a_legal_http_body(lab: Callable[..., Lab]) -> None:
    """K12 is legal HTTP whose gzip stream yields the first events and misses its end."""
    answer, _ = heard(lab, Fault.gzip_cut(after_event=3))
    chunks, _, finished = answer.chunks
    packed = b"".join(chunks)
    assert (answer.header("content-encoding"), finished) == ("gzip", True)
    assert zlib.decompressobj(wbits=31).decompress(packed) == b"".join(EVENTS[:3])
    with pytest.raises(EOFError):
        gzip.decompress(packed)


def test_k13_slices_the_response_and_changes_nothing(lab: Callable[..., Lab]) -> None:
    """K13 delivers the same bytes as a whole answer does."""
    plain, _ = heard(lab, stream=script.chat_text("hi"))
    sliced, running = heard(lab, Fault.slicer(), stream=script.chat_text("hi"))
    assert (sliced.head, sliced.body) == (plain.head, plain.body)
    assert running.wait_ended(0).fault == "slicer"


def test_k23_drips_and_composes_with_a_cut(lab: Callable[..., Lab]) -> None:
    """K23 gives a waiting client a few bytes at a time, up to the position of a cut."""
    running = lab(STREAM, plan=Plan.always(Fault.drip(interval=0.005), Fault.cut(at_byte=5)))
    with connect(running) as sock:
        sock.sendall(request())
        assert len(sock.recv(65536)) < 10
        assert listen(sock).body.endswith(EVENTS[0][:5])
    assert running.wait_closed(0).fault == "drip+cut"


def test_k19_and_k20_lose_and_repeat_the_end(lab: Callable[..., Lab]) -> None:
    """K19 drops the terminal event before a clean end, K20 doubles it."""
    running = lab(STREAM, plan=Plan([Fault.drop_terminal(), Fault.repeat_terminal()]))
    assert ask(running).chunks == (list(EVENTS[:-1]), b"", True)
    assert ask(running).chunks == ([*EVENTS, EVENTS[-1]], b"", True)


def test_k21_rewrites_line_ends_and_composes_with_a_cut(lab: Callable[..., Lab]) -> None:
    """K21 changes the bytes that positions then count."""
    answer, _ = heard(lab, Fault.bom(), Fault.line_ends("crlf"), Fault.end(after_event=2))
    expected = b"\xef\xbb\xbf" + b"".join(EVENTS[:2]).replace(b"\n", b"\r\n")
    assert b"".join(answer.chunks[0]) == expected


def test_k22_sends_ten_mebibytes_in_one_event(lab: Callable[..., Lab]) -> None:
    """K22 sends a huge event and the rest of the stream."""
    answer, _ = heard(lab, Fault.huge_event())
    chunks, _, finished = answer.chunks
    assert len(chunks[1]) > 10 * 1024 * 1024
    assert ([chunks[0], *chunks[2:]], finished) == (list(EVENTS), True)


def test_k24_accepts_and_says_nothing(lab: Callable[..., Lab]) -> None:
    """K24 sends no byte until the client leaves."""
    running = lab(STREAM, plan=Plan.always(Fault.hang()))
    assert ask(running, timeout=0.1) == Heard(b"", b"", "silence")
    record = running.wait_closed(0)
    assert (record.first_byte_at, record.ended_by, record.fault) == (None, "client", "hang")


def test_k24_has_a_hard_limit(lab: Callable[..., Lab]) -> None:
    """A hang ends with the lab's own limit."""
    running = lab(STREAM, plan=Plan.always(Fault.hang()), limits=Limits(stall=0.05))
    assert ask(running) == Heard(b"", b"", "fin")


def test_close_is_fin_in_place_of_a_response(lab: Callable[..., Lab]) -> None:
    """`close` sends nothing and closes."""
    answer, running = heard(lab, Fault.close())
    assert answer == Heard(b"", b"", "fin")
    assert running.wait_closed(0).ended_by == "server"


def test_headers_only_is_a_head_and_fin(lab: Callable[..., Lab]) -> None:
    """`headers_only` sends the head and closes."""
    answer, _ = heard(lab, Fault.headers_only())
    assert (answer.status, answer.body, answer.ending) == (200, b"", "fin")


def test_refuse_resets_and_stops_listening_for_a_while(lab: Callable[..., Lab]) -> None:
    """`refuse` resets this connection, refuses the next ones, and listens again on the same port."""
    running = lab(STREAM, plan=Plan([Fault.refuse()]))
    assert ask(running).ending == "reset"
    with pytest.raises(ConnectionRefusedError):
        connect(running)
    running.accept()
    assert ask(running).status == 200


def test_refuse_for_some_time_ends_by_itself(lab: Callable[..., Lab]) -> None:
    """`refuse(seconds=)` listens again afterwards."""
    running = lab(STREAM, plan=Plan([Fault.refuse(seconds=0.02)]))
    assert ask(running).ending == "reset"
    for _ in range(5000):
        try:
            assert ask(running).status == 200
            break
        except ConnectionRefusedError:
            continue
    else:
        pytest.fail("it never listened again")


def test_a_burst_is_the_whole_answer_in_one_write(lab: Callable[..., Lab]) -> None:
    """A burst delivers head and body to the first read of a client that waits for it."""
    running = lab(script.chat_text("hi").sent(burst=True))
    with connect(running) as sock:
        sock.sendall(request(CHAT))
        assert sock.recv(65536).endswith(b"0\r\n\r\n")


def test_a_burst_lets_go_of_everything_before_a_stall(lab: Callable[..., Lab]) -> None:
    """A burst that stalls has sent what came before."""
    running = lab(STREAM.sent(burst=True), plan=Plan.always(Fault.stall(after_event=2)))
    with connect(running) as sock:
        sock.sendall(request())
        read_until(sock, EVENTS[1])


@pytest.mark.parametrize("framing", ["length", "close"])
def test_framings_carry_the_same_body(lab: Callable[..., Lab], framing: str) -> None:
    """Content-Length and close-delimited answers have the body unchanged."""
    answer, _ = heard(lab, stream=STREAM.sent(framing=framing))
    assert answer.body == BODY
    assert answer.header("content-length") == (str(len(BODY)) if framing == "length" else None)


def test_a_spliced_answer_with_a_length_announces_it_all(lab: Callable[..., Lab]) -> None:
    """K11 that ends legally announces prefix and page; one that goes on, everything."""
    stream = STREAM.sent(framing="length")
    plan = Plan([Fault.splice(b"?", at_byte=4), Fault.splice(b"?", at_byte=4, then="continue")])
    running = lab(stream, plan=plan)
    assert ask(running).body == BODY[:4] + b"?"
    assert ask(running).body == BODY[:4] + b"?" + BODY[4:]


def test_a_hazard_strikes_the_same_events_again(lab: Callable[..., Lab]) -> None:
    """Two labs with the same seed cut the same attempts after the same events."""

    def run() -> list[tuple[int, str]]:
        running = lab(STREAM, plan=Plan.hazard(0.05, seed=3))
        for _ in range(12):
            ask(running)
        return [(r.events_sent, r.fault) for r in running.requests]

    first = run()
    assert first == run()
    assert {fault for _, fault in first} == {"cut", ""}


def test_small_segments_are_not_held_back(lab: Callable[..., Lab]) -> None:
    """The lab sends without Nagle's delay: paced events arrive one by one."""
    running = lab(STREAM.sent(pace=0.02))
    with connect(running) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(request())
        seen = read_until(sock, EVENTS[0])
        assert EVENTS[2] not in seen
