"""TLS for the lab: a throw-away authority, a certificate for the loopback names, and the TLS layer itself.

The layer is `ssl.SSLObject` over memory, not asyncio's TLS, because the lab must decide byte by byte what
goes on the wire: a proper farewell, or a FIN without close_notify (K8). `trustme` is imported only here
and only when TLS is asked for.
"""

from __future__ import annotations

import contextlib
import ssl

from ..errors import UsageError

__all__ = ["Certificate", "TlsLayer"]


class Certificate:
    """A certificate for localhost, 127.0.0.1 and ::1, signed by an authority of its own.

    Attributes:
        ca_pem: the authority's certificate, for clients to trust.
        context: the server's TLS settings.
    """

    def __init__(self, host: str) -> None:
        try:
            import trustme
        except ImportError as missing:
            raise UsageError(
                "the lab's TLS needs trustme, which is not installed",
                hint="pip install 'sidestream[lab]'",
            ) from missing
        authority = trustme.CA()
        names = dict.fromkeys(("localhost", "127.0.0.1", "::1", host))
        self.ca_pem: bytes = authority.cert_pem.bytes()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.set_alpn_protocols(["http/1.1"])
        authority.issue_cert(*names).configure_cert(self.context)


class TlsLayer:
    """The server's side of one TLS connection, without I/O: bytes in, bytes out."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._open = False
        self.peer_left = False

    def decrypt(self, data: bytes) -> bytes:
        """The plain bytes in what arrived. Fetch `pending()` afterwards: a handshake answers.

        Raises:
            ssl.SSLError: the client speaks no TLS or does not trust us.
        """
        self._incoming.write(data)
        plain = bytearray()
        try:
            if not self._open:
                self._ssl.do_handshake()
                self._open = True
            while part := self._ssl.read(65536):
                plain += part
            self.peer_left = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.peer_left = True
        return bytes(plain)

    def encrypt(self, data: bytes) -> bytes:
        """What to put on the wire for these plain bytes."""
        view = memoryview(data)
        while view:
            view = view[self._ssl.write(view) :]
        return self.pending()

    def farewell(self) -> bytes:
        """close_notify, if the handshake ever got that far."""
        if self._open:
            with contextlib.suppress(ssl.SSLError):  # it wants the client's farewell, too; ours is written
                self._ssl.unwrap()
        return self.pending()

    def pending(self) -> bytes:
        """Whatever TLS itself wants to send."""
        return self._outgoing.read()
