"""HTTP/1.1 without a socket: requests as bytes, and answers however they are cut."""

from __future__ import annotations

import itertools

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream.net.failures import LocalProtocolError, RemoteProtocolError
from sidestream.net.http1 import HEAD_LIMIT, Answer, request

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Name: v\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
HELLO = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"


def fed(*parts: bytes, bodyless: bool = False) -> tuple[Answer, bytes]:
    """An answer after these reads, and its body so far."""
    answer = Answer(bodyless=bodyless)
    return answer, b"".join(answer.feed(part) for part in parts)


def at(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


# Requests.


def test_a_request_is_what_the_standard_says() -> None:
    """Request line, headers as given, an empty line, the body."""
    made = request("POST", "/v1/x?y=1", [("Host", "h:8"), ("X-Name", " v ")], b"{}")
    assert made == b"POST /v1/x?y=1 HTTP/1.1\r\nHost: h:8\r\nX-Name: v\r\n\r\n{}"


@pytest.mark.parametrize(
    ("target", "header"),
    [
        ("/a b", ("X", "v")),
        ("/a\r\nX: y", ("X", "v")),
        ("/", ("X y", "v")),
        ("/", ("", "v")),
        ("/", ("X", "a\r\nY: b")),
        ("/", ("X", "a\nb")),
        ("/", ("X", "a\0b")),
        ("/", ("X", "snow \u2603")),
    ],
)
def test_what_could_smuggle_is_not_sent(target: str, header: tuple[str, str]) -> None:
    """A line break, a NUL or a space where none may be is the caller's mistake, told before it is sent."""
    with pytest.raises(LocalProtocolError):
        request("POST", target, [("Host", "h"), header])


def test_a_refused_header_value_is_not_quoted() -> None:
    """It may be a key."""
    with pytest.raises(LocalProtocolError) as refused:
        request("POST", "/", [("Authorization", "Bearer sk-secret\n")])
    assert "sk-secret" not in str(refused.value)


# Answers.


@given(cuts=st.lists(st.integers(0, 10_000), max_size=12))
@pytest.mark.parametrize("data", [CHUNKED + HELLO, SIZED + b"hello world"], ids=["chunked", "sized"])
def test_however_it_is_cut_it_is_the_same_answer(data: bytes, cuts: list[int]) -> None:
    """Status, headers, body, end, and that the connection can be used again."""
    answer, body = fed(*at(data, cuts))
    assert (answer.status, body, answer.complete, answer.keeps) == (200, b"hello world", True, True)
    assert answer.broken is None
    answer.end()


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
    end=st.integers(0, 10_000),
)
def test_what_arrived_of_a_torn_body_is_what_h11_says(pieces: list[bytes], cuts: list[int], end: int) -> None:
    """Cut anywhere: the same bytes come out as of the parser used before, and the same verdict."""
    whole = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
    torn = whole[: end % (len(whole) + 1)]
    answer, body = fed(*at(torn, cuts))
    assert (body, answer.complete) == by_h11(torn)
    if not answer.complete:
        with pytest.raises(RemoteProtocolError):
            answer.end()


def by_h11(data: bytes) -> tuple[bytes, bool]:
    """The body that h11 finds, and whether it is whole."""
    theirs = h11.Connection(h11.CLIENT)
    theirs.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    theirs.send(h11.EndOfMessage())
    if data:  # nothing would mean the end of the connection
        theirs.receive_data(data)
    body = b""
    while (event := theirs.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
        if isinstance(event, h11.EndOfMessage):
            return body, True
        body += event.data if isinstance(event, h11.Data) else b""
    return body, False


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    """It is whole, and the connection is none any more."""
    answer, body = fed(CLOSING, b"hello", b" you")
    assert not answer.complete
    answer.end()
    assert (body, answer.complete, answer.keeps) == (b"hello you", True, False)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "without sending a response"),
        (b"HTTP/1.1 20", "without sending a response"),
        (CHUNKED + b"5\r\nhel", "incomplete chunked read"),
        (CHUNKED + b"5\r\nhello\r\n0\r\n", "incomplete chunked read"),
        (SIZED + b"hello", "received 5 bytes, expected 11"),
    ],
)
def test_an_end_too_early_says_what_is_missing(data: bytes, words: str) -> None:
    """In the words that httpx has for it."""
    answer, _ = fed(data)
    with pytest.raises(RemoteProtocolError, match=words):
        answer.end()


def test_interim_answers_are_passed_over() -> None:
    """100 and 103 come before the answer; their headers are not its headers."""
    answer, body = fed(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + SIZED + b"hello world")
    assert (answer.status, dict(answer.headers), body) == (200, {"content-length": "11"}, b"hello world")


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: ws\r\nConnection: upgrade\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"ffffffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * HEAD_LIMIT,
        CHUNKED + b"0\r\n" + b"X: a\r\n" * HEAD_LIMIT,
    ],
    ids=["ssh", "upgrade", "size", "overflow", "both", "lengths", "head", "trailers"],
)
def test_what_is_no_answer_breaks(data: bytes) -> None:
    """No HTTP, another protocol, contradictions, headers without end."""
    answer, _ = fed(*at(data, list(range(0, len(data), 1000))))
    assert isinstance(answer.broken, RemoteProtocolError)
    assert not answer.keeps


def test_what_arrived_before_nonsense_counts() -> None:
    """The body before a chunk header that is none is delivered with the news of it."""
    answer, body = fed(CHUNKED + b"5\r\nhello\r\nzz\r\n")
    assert (body, answer.complete) == (b"hello", False)
    assert answer.broken is not None


@pytest.mark.parametrize("surplus", [b"GARBAGE", CHUNKED, SIZED + b"hello world"])
@pytest.mark.parametrize("apart", [True, False])
def test_more_than_one_answer_spoils_the_connection_only(surplus: bytes, apart: bool) -> None:
    """The answer stands; nobody is given a connection that says more than it was asked."""
    data = CHUNKED + HELLO
    answer, body = fed(data, surplus) if apart else fed(data + surplus)
    assert (body, answer.complete, answer.keeps, answer.broken) == (b"hello world", True, False, None)


def test_a_connection_that_will_close_is_not_kept() -> None:
    """HTTP/1.0, or `Connection: close`."""
    for head in (b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\r\nConnection: close\r\n"):
        answer, body = fed(head + b"Content-Length: 2\r\n\r\nok")
        assert (body, answer.complete, answer.keeps) == (b"ok", True, False)


def test_the_head_is_all_of_a_tunnels_answer() -> None:
    """And of one to HEAD, whatever length it names."""
    for head in (b"HTTP/1.1 200 Connection established\r\n\r\n", SIZED):
        answer, body = fed(head, bodyless=True)
        assert (body, answer.complete, answer.broken) == (b"", True, None)
