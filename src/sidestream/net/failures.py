"""What can go wrong on a connection. The names are those of httpx and httpcore, which everybody knows.

    NetworkFailure
    ├─ NetworkError           ConnectError · ReadError · WriteError
    ├─ TimeoutException       ConnectTimeout · ReadTimeout · WriteTimeout · PoolTimeout
    ├─ ProtocolError          LocalProtocolError · RemoteProtocolError · UnsupportedProtocol
    └─ ProxyError

PoolTimeout and UnsupportedProtocol come only from the transport of an SDK. What each means for a call is in
`recovery.faults`, which knows them by name.
"""

from __future__ import annotations

__all__ = [
    "ConnectError",
    "ConnectTimeout",
    "LocalProtocolError",
    "NetworkError",
    "NetworkFailure",
    "PoolTimeout",
    "ProtocolError",
    "ProxyError",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "TimeoutException",
    "UnsupportedProtocol",
    "WriteError",
    "WriteTimeout",
]


class NetworkFailure(Exception):
    """An exchange could not be ended as HTTP wants it."""


class NetworkError(NetworkFailure):
    """The connection failed."""


class ConnectError(NetworkError):
    """There is none: a name without address, a refusal, a certificate nobody vouches for."""


class ReadError(NetworkError):
    """It broke while the answer was read, or was severed."""


class WriteError(NetworkError):
    """It broke while the request was written."""


class TimeoutException(NetworkFailure):
    """A clock of the call ran out."""


class ConnectTimeout(TimeoutException):
    """Nobody took the connection in time."""


class ReadTimeout(TimeoutException):
    """The answer, or its next part, did not come in time."""


class WriteTimeout(TimeoutException):
    """The request was not taken in time."""


class PoolTimeout(TimeoutException):
    """No connection of a pool became free in time."""


class ProtocolError(NetworkFailure):
    """Somebody broke the rules of HTTP."""


class LocalProtocolError(ProtocolError):
    """The request cannot be said in HTTP: a header with a line break, say. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """What came is no HTTP, or ended before its end."""


class UnsupportedProtocol(ProtocolError):
    """The URL's scheme is none of HTTP."""


class ProxyError(NetworkFailure):
    """The proxy did not open a tunnel."""
