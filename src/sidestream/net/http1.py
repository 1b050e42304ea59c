"""HTTP/1.1 as a client speaks it: a request as bytes, and the bytes of its answer taken apart. No I/O.

Strategy: `httptools` (llhttp, the parser of Node.js) does the parsing. What was read at once is fed in at
once, and its body comes back as one piece, however many HTTP chunks it had: a burst costs one pass, not one
per event. An `Answer` belongs to one exchange; whether its connection can serve another is known in the end.

Limits: head, trailers and chunk headers may take `HEAD_LIMIT` bytes between two pieces of body.
Source: RFC 9112; https://llhttp.org.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import httptools

from .failures import LocalProtocolError, RemoteProtocolError

__all__ = ["HEAD_LIMIT", "Answer", "request"]

HEAD_LIMIT = 100 * 1024

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"[\x21-\x7e]+")
_VALUE = re.compile(r"[^\x00\r\n]*")


def request(method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    """The bytes of a request. Headers go out as given; a `Host` and the body's length are the caller's.

    Raises:
        LocalProtocolError: a name, a value or the target has a character that would end it early.
    """
    if not (_TOKEN.fullmatch(method) and _TARGET.fullmatch(target)):
        raise LocalProtocolError(f"no HTTP request can ask for {target[:100]!r}")
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in headers:
        if not (_TOKEN.fullmatch(name) and _VALUE.fullmatch(value)):
            raise LocalProtocolError(f"the header {name[:100]!r} has a character that HTTP forbids there")
        lines.append(f"{name}: {value.strip()}")
    try:
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    except UnicodeEncodeError:
        raise LocalProtocolError("a header has a character that HTTP cannot carry") from None


class Answer:
    """The answer to one request, as its bytes come in.

    Args:
        bodyless: to a HEAD or a CONNECT: its head is all of it.

    Attributes:
        status, headers: once `opened`; names in lower case.
        opened: the head is there.
        complete: so is the whole body.
        keeps: once complete: the connection can serve another request.
        broken: what came is no HTTP, or too many headers. The body before that counts.
    """

    __slots__ = (
        "_body",
        "_bodyless",
        "_idle",
        "_parser",
        "_seen",
        "broken",
        "complete",
        "headers",
        "keeps",
        "opened",
        "status",
    )

    def __init__(self, *, bodyless: bool = False) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.opened = self.complete = self.keeps = False
        self.broken: RemoteProtocolError | None = None
        self._bodyless = bodyless
        self._body: list[bytes] = []
        self._seen = 0  # bytes of body
        self._idle = 0  # bytes since the last of them
        self._parser: Any = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )

    def take(self, data: bytes) -> bytes:
        """What a read brought: `feed` it, or, if it is nothing, the connection has ended (`end`)."""
        if data:
            return self.feed(data)
        self.end()
        return b""

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; the part of the body that it brought, perhaps nothing. See `broken`."""
        if self._parser is None:
            self.keeps = False
            return b""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.keeps = False
            if not self._bodyless:
                self.broken = RemoteProtocolError("the server wants to speak another protocol")
        except httptools.HttpParserError as error:
            self.keeps = False  # what is wrong after the end makes the connection useless, not the answer
            if not self.complete:
                self.broken = RemoteProtocolError(f"the answer is not HTTP: {error}")
        if self.complete or self.broken:
            self._parser = None  # it holds on to us
        return self._taken(len(data))

    def _taken(self, size: int) -> bytes:
        if not self._body:
            self._idle += size
            if self._idle > HEAD_LIMIT and not self.complete:
                self.broken = RemoteProtocolError(f"more than {HEAD_LIMIT:,} bytes of headers")
            return b""
        piece = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        self._seen += len(piece)
        self._idle = 0
        return piece

    def end(self) -> None:
        """The server closed the connection.

        Raises:
            RemoteProtocolError: before the answer was whole.
        """
        if self.complete:
            return
        if not self.opened:
            raise RemoteProtocolError("the server disconnected without sending a response")
        torn = "peer closed connection without sending complete message body"
        headers = dict(self.headers)
        if "transfer-encoding" in headers:
            raise RemoteProtocolError(f"{torn} (incomplete chunked read)")
        if length := headers.get("content-length"):
            raise RemoteProtocolError(f"{torn} (received {self._seen} bytes, expected {length})")
        self.complete = True  # a body may end so
        self._parser = None

    # What the parser calls.

    def on_message_begin(self) -> None:
        self.keeps = False  # a second one is nobody's

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.opened:
            self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:  # it will say more
            self.headers = []
        elif not self.opened:
            self.status, self.opened, self.complete = status, True, self._bodyless

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self.opened and not self.complete:
            self.complete, self.keeps = True, self._parser.should_keep_alive()
