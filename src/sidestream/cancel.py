"""Stopping calls from outside: a token that any thread or task may pull.

A *cancel* ends every call the token was given to, in whatever phase it is. An *interrupt* is the polite
form ("the host got busy"): calls made with `atomic=True` ignore it, all others stop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

__all__ = ["Cancel"]

Kind = Literal["cancel", "interrupt"]


class Cancel:
    """Pass as `cancel=` to one or many calls; then `cancel()` or `interrupt()` from anywhere.

    A cancelled token stays cancelled. An interrupt passes: it stops what runs now, not what comes later.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._listeners: dict[int, Callable[[Kind], None]] = {}
        self._next = 0

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """Stop every call of this token, now and later."""
        with self._lock:
            self._cancelled = True
        self._tell("cancel")

    def interrupt(self) -> None:
        """Stop the running calls of this token that are not atomic."""
        self._tell("interrupt")

    def subscribe(self, listener: Callable[[Kind], None]) -> Callable[[], None]:
        """Have `listener` called on a stop (at once if it already came); returns what ends that."""
        with self._lock:
            number = self._next = self._next + 1
            self._listeners[number] = listener
            cancelled = self._cancelled
        if cancelled:
            listener("cancel")
        return lambda: self._forget(number)

    def _forget(self, number: int) -> None:
        with self._lock:
            self._listeners.pop(number, None)

    def _tell(self, kind: Kind) -> None:
        with self._lock:
            listeners = list(self._listeners.values())
        for listener in listeners:
            listener(kind)
