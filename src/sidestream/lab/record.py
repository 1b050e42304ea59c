"""What the lab saw: one frozen `Request` per request, and the `Log` that keeps and updates them.

Credentials never enter a record: their values are replaced by a fingerprint at the door, so that a test
can compare two without seeing either. All instants are `time.monotonic()`. The log is bounded in records
and bytes; the oldest go first. Tests wait on it instead of sleeping.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["EndedBy", "Log", "Request", "Wire", "fingerprint", "masked", "wire_of"]

EndedBy = Literal["server", "client", ""]
Wire = Literal["responses", "chat", "messages", "models", ""]

_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"}
)
_SECRET_QUERY = re.compile(r"(?<=[?&])((?:api[-_]?key|key|access_token|token)=)([^&#]+)", re.IGNORECASE)
# What a token endpoint is sent; such a body is small, and everything else about it is kept.
_SECRET_FIELDS = re.compile(rb'("(?:refresh|access|id)_token"\s*:\s*")([^"]{1,65536})(?=")')
TOKEN_PATH = re.compile(r"/oauth/token/?(?:\?|$)")
_WIRES: dict[str, Wire] = {
    "/chat/completions": "chat",
    "/responses": "responses",
    "/messages": "messages",
    "/models": "models",
}


def fingerprint(value: str) -> str:
    """What a record shows in place of a credential: `sha256:` and 12 hex digits."""
    return f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:12]}"


def masked(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Headers with lower-case names and with fingerprints for credentials."""
    lowered = ((name.lower(), value) for name, value in headers)
    return tuple((n, fingerprint(v)) if n in _SECRET_HEADERS else (n, v) for n, v in lowered)


def unsigned(path: str, body: bytes) -> bytes:
    """A request body with fingerprints for the tokens that go to a token endpoint."""
    if not TOKEN_PATH.search(path):
        return body
    return _SECRET_FIELDS.sub(lambda found: found[1] + fingerprint(found[2].decode("latin-1")).encode(), body)


def wire_of(path: str) -> Wire:
    """The wire a path belongs to; "" for any other."""
    bare = path.partition("?")[0].rstrip("/") + "/"
    return next((wire for part, wire in _WIRES.items() if f"{part}/" in bare), "")


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as far as it has got. Instants are `time.monotonic()` seconds, None while still to come.

    Attributes:
        index: number of the request, from 0.
        attempt: number among the requests to a model endpoint, from 0; answers and plans go by it. -1: none.
        connection: number of the TCP connection, from 0.
        method: HTTP method.
        path: path and query, credentials in the query masked.
        headers: names in lower case, credentials as fingerprints.
        body: the request body.
        received_at: the request was complete.
        first_byte_at: the first byte of the response was written.
        events_sent: whole events sent.
        bytes_sent: bytes of the body sent, before framing and compression.
        fault: names of the faults that struck, joined by "+".
        ended_by: who ended the exchange.
        ended_at: the exchange ended: the last byte was sent, or the client left.
        closed_at: the socket closed, or the client's FIN or RST arrived.
    """

    index: int
    attempt: int
    connection: int
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    received_at: float
    first_byte_at: float | None = None
    events_sent: int = 0
    bytes_sent: int = 0
    fault: str = ""
    ended_by: EndedBy = ""
    ended_at: float | None = None
    closed_at: float | None = None

    @property
    def wire(self) -> Wire:
        """The wire this request speaks, from its path."""
        return wire_of(self.path)

    def header(self, name: str) -> str | None:
        """The first value of a header, credentials as fingerprints."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    def json(self) -> Any:
        """The body as JSON. Raises `msgspec.DecodeError` when it is not."""
        return msgspec.json.decode(self.body)

    def fields(self) -> dict[str, Any]:
        """The fields of the body; none where it is not a JSON object."""
        try:
            body = self.json()
        except msgspec.DecodeError:
            return {}
        return body if isinstance(body, dict) else {}


class Log:
    """The requests of one lab. Any thread may read and wait; the server's thread writes."""

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._bytes = 0
        self._count = 0
        self._attempts = 0
        self._records: dict[int, Request] = {}
        self._changed = threading.Condition()

    def open(
        self,
        connection: int,
        method: str,
        path: str,
        headers: Iterable[tuple[str, str]],
        body: bytes,
        *,
        counts: bool,
    ) -> Request:
        """A request has arrived; `counts`: it is an attempt at a model endpoint."""
        with self._changed:
            record = Request(
                index=self._count,
                attempt=self._attempts if counts else -1,
                connection=connection,
                method=method,
                path=_SECRET_QUERY.sub(lambda found: found[1] + fingerprint(found[2]), path),
                headers=masked(headers),
                body=unsigned(path, body),
                received_at=time.monotonic(),
            )
            self._records[record.index] = record
            self._count += 1
            self._attempts += counts
            self._bytes += len(body)
            while len(self._records) > self._max_records or self._bytes > self._max_bytes:
                self._bytes -= len(self._records.pop(next(iter(self._records))).body)
            self._changed.notify_all()
            return record

    def update(self, index: int, **changes: Any) -> None:
        """Note what has become of a request."""
        with self._changed:
            if index in self._records:
                self._records[index] = dataclasses.replace(self._records[index], **changes)
                self._changed.notify_all()

    def close(self, indexes: Iterable[int], at: float) -> None:
        """The connection of these requests has closed."""
        with self._changed:
            for index in indexes:
                record = self._records.get(index)
                if record is not None and record.closed_at is None:
                    self._records[index] = dataclasses.replace(record, closed_at=at)
            self._changed.notify_all()

    @property
    def count(self) -> int:
        """How many requests have arrived, those no longer kept included."""
        with self._changed:
            return self._count

    def snapshot(self) -> tuple[Request, ...]:
        """The requests kept, oldest first."""
        with self._changed:
            return tuple(self._records.values())

    def wait(
        self, index: int, until: Callable[[Request], bool], timeout: float, wanted: str = "that"
    ) -> Request:
        """Block until request `index` exists and `until` holds for it.

        Raises:
            TimeoutError: not within `timeout` seconds.
            LookupError: the record is no longer kept.
        """

        def reached() -> bool:
            gone = index < self._count and index not in self._records
            return gone or (index in self._records and until(self._records[index]))

        with self._changed:
            if not self._changed.wait_for(reached, timeout):
                state = self._records.get(index)
                raise TimeoutError(f"request {index}: no {wanted} within {timeout} s; so far {_brief(state)}")
            if index not in self._records:
                raise LookupError(f"request {index} is no longer kept, see Limits.records")
            return self._records[index]


def _brief(record: Request | None) -> str:
    if record is None:
        return "it has not arrived"
    return (
        f"{record.events_sent} events and {record.bytes_sent} bytes sent, fault {record.fault!r}, "
        f"ended by {record.ended_by!r}"
    )
