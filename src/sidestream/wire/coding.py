"""Undoing a content coding that nobody asked for.

Requests say `Accept-Encoding: identity`, and some proxies compress all the same. One gzip or deflate layer is
undone as it streams; anything else is refused. One network read can grow by what deflate allows (about a
thousand times 64 KiB), and the body's limit counts the decoded bytes, so a bomb ends where any flood ends.
"""

from __future__ import annotations

import zlib

__all__ = ["BadCoding", "Inflater"]

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class BadCoding(ValueError):
    """The body is coded in a way that is not known, or not as its header says."""


class Inflater:
    """One streamed body's gzip or deflate layer.

    Raises:
        BadCoding: the coding is another one.
    """

    def __init__(self, coding: str) -> None:
        if coding not in _WINDOW_BITS:
            raise BadCoding(f"the body is coded as {coding[:40]!r}, which nobody asked for")
        self._coding = coding
        self._stream = zlib.decompressobj(_WINDOW_BITS[coding])

    def feed(self, chunk: bytes) -> bytes:
        """Take the next coded bytes, return what they decode to.

        Raises:
            BadCoding: they are not in this coding.
        """
        try:
            return self._stream.decompress(chunk)
        except zlib.error as error:
            raise BadCoding(f"the body is not {self._coding}: {error}") from None
