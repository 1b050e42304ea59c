"""A client that hides nothing: raw sockets, the raw bytes of an answer, and how the connection ended."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidestream.lab import Lab

RESPONSES = "/v1/responses"
CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"


@dataclass(frozen=True)
class Heard:
    """An answer: head, body as framed, and the ending "fin", "reset", "silence" or "ragged" (TLS)."""

    head: bytes
    body: bytes
    ending: str

    @property
    def status(self) -> int:
        return int(self.head.split()[1]) if self.head else 0

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key.lower() == name:
                return value
        return None

    @property
    def chunks(self) -> tuple[list[bytes], bytes, bool]:
        """The whole chunks, what was left of an unfinished one, and whether the zero chunk came."""
        chunks, rest = [], self.body
        while b"\r\n" in rest:
            size, _, after = rest.partition(b"\r\n")
            length = int(size, 16)
            if len(after) < length + 2:
                return chunks, rest, False
            if length == 0:
                return chunks, after[2:], True
            chunks.append(after[:length])
            rest = after[length + 2 :]
        return chunks, rest, False


def request(
    path: str = RESPONSES,
    body: bytes = b'{"stream":true}',
    *headers: str,
    method: str = "POST",
    close: bool = True,
    version: str = "1.1",
) -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: lab", f"Content-Length: {len(body)}", *headers]
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body


def connect(lab: Lab, timeout: float = 5.0) -> socket.socket:
    sock = socket.create_connection((lab.host, lab.port), timeout)
    if not lab.url.startswith("https"):
        return sock
    context = ssl.create_default_context(cadata=lab.ca_pem.decode())
    return context.wrap_socket(sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False)


def listen(sock: socket.socket) -> Heard:
    """Read until the connection ends or stays silent for longer than the socket's timeout."""
    raw = bytearray()
    ending = "fin"
    try:
        while data := sock.recv(65536):
            raw += data
    except ConnectionResetError:
        ending = "reset"
    except ssl.SSLEOFError:
        ending = "ragged"
    except TimeoutError:
        ending = "silence"
    head, _, body = bytes(raw).partition(b"\r\n\r\n")
    return Heard(head, body, ending)


def read_until(sock: socket.socket, needle: bytes) -> bytes:
    raw = b""
    while needle not in raw:
        data = sock.recv(65536)
        assert data, f"the connection ended before {needle!r}"
        raw += data
    return raw


def ask(lab: Lab, what: bytes | None = None, timeout: float = 5.0) -> Heard:
    with connect(lab, timeout) as sock:
        sock.sendall(request() if what is None else what)
        return listen(sock)
