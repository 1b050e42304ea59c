"""What the decoders of all wires share: when nothing counts any more. Pure.

Strategy: a wire's decoder says what one frame means; this base feeds it the frames of a chunk, in order,
until one says that the answer is over or one is nonsense. What a frame means stands with its wire. Nearly all
frames are the next piece of the text before: `piece` reads such a one without making an event of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ._json import NotJSON
from .events import Event
from .sse import ServerSentEvent

__all__ = ["StreamDecoder"]


class StreamDecoder:
    """Events of one streamed answer.

    Attributes:
        over: the answer is complete or failed by the rules: what follows can add usage, nothing else.
        broken: set by the first event that is not JSON or breaks a rule of its wire: nothing after it counts.
    """

    def __init__(self) -> None:
        self.over = False
        self.broken: NotJSON | None = None

    @property
    def cursor(self) -> int | None:
        """Number of the last event, where the wire counts them."""
        return None

    def feed(self, frames: Iterable[ServerSentEvent]) -> list[Event]:
        """Decode complete server-sent events, up to the answer's last word or the first that is `broken`."""
        events: list[Event] = []
        try:
            self._feed(frames, events)
        except NotJSON as error:
            self.broken = error
        return events

    def piece(self, data: bytes) -> str | None:
        """The text in the data of a frame, if that is the next piece of the text or reasoning delta which the
        last event was, and says nothing else. Nothing: it was not taken, and `feed` is to be asked."""
        raise NotImplementedError

    def _feed(self, frames: Iterable[ServerSentEvent], events: list[Event]) -> None:
        raise NotImplementedError

    def close(self) -> list[Event]:
        """The body ended: the verdict, if there is one.

        Raises:
            NotJSON: there is none, because an event's data was not JSON.
        """
        raise NotImplementedError
