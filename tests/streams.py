"""The corpus as values, and one attempt driven by hand: what the tests of wire, recovery and fuzz share.

`GOOD` are streams that end as the wire says they should, `BROKEN` those that must never be called complete;
each has the verdict of its `.json`. `attempt` does to an exchange what a driver does, without a socket.
"""

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sidestream.recovery.exchange import Exchange
from sidestream.recovery.faults import from_exception
from sidestream.recovery.flow import Broke, Call, Ended, Outcome
from sidestream.route import Route
from sidestream.wire import chat, messages, responses
from sidestream.wire._json import NotJSON
from sidestream.wire.coding import BadCoding
from sidestream.wire.events import StreamEvent
from sidestream.wire.prompt import Request
from sidestream.wire.sse import LimitExceeded

CORPUS = Path(__file__).parent / "corpus"
WIRES = {"chat": chat, "responses": responses, "messages": messages}
FAILURES = (NotJSON, BadCoding, LimitExceeded)


@dataclass(frozen=True)
class Stream:
    """One recorded stream: its bytes and its verdict."""

    name: str
    data: bytes
    verdict: dict[str, Any]

    @property
    def wire(self) -> str:
        return self.verdict["wire"]

    @property
    def expect(self) -> dict[str, Any]:
        return self.verdict["expect"]

    @property
    def choices(self) -> int:
        return self.verdict.get("choices", 1)

    @cached_property
    def request(self) -> Request:
        """The request that such a stream answers."""
        needing = self.verdict.get("required_args", ())
        tools = tuple(tool(name, "x" if name in needing else "") for name in self.verdict.get("tools", ()))
        params = {"n": self.choices} if self.choices > 1 else {}
        return Request(({"role": "user", "content": "hi"},), tools=tools, params=params)

    def call(self, **settings: Any) -> Call:
        return Call(self.request, (route(self.wire),), **settings)


def tool(name: str, required: str = "") -> dict[str, Any]:
    parameters = {"type": "object", "required": [required]} if required else {}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def route(wire: str, name: str = "main") -> Route:
    return Route(f"http://{name}.localhost:1/v1", "m", wire, name=name)  # type: ignore[arg-type]


def _load(path: Path) -> Stream:
    name = f"{path.parent.name}/{path.stem}"
    return Stream(name, path.read_bytes(), json.loads(path.with_suffix(".json").read_bytes()))


ALL = tuple(_load(path) for path in sorted(CORPUS.glob("*/*.sse")))
GOOD = tuple(stream for stream in ALL if "status" in stream.expect)
BROKEN = tuple(stream for stream in ALL if "fault" in stream.expect)


def named(name: str) -> Stream:
    return next(stream for stream in ALL if stream.name == name)


# Ways to cut bytes.


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def halves(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every way to cut in two, the empty half included."""
    for at in range(len(data) + 1):
        yield data[:at], data[at:]


def pieces(data: bytes, rng: random.Random) -> list[bytes]:
    """A random cut into any number of pieces."""
    cuts = sorted(rng.choices(range(len(data) + 1), k=rng.randrange(1, 12)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


# One attempt.


def attempt(
    exchange: Exchange, chunks: Iterable[bytes], at: float = 1.0, outcome: Outcome | None = None
) -> tuple[list[StreamEvent], Outcome]:
    """What a consumer gets of these chunks, and how the attempt came out.

    `outcome` is what happens after the last chunk; the default is a clean end of the body.
    """
    exchange.opened({})
    seen: list[StreamEvent] = []
    outcome = outcome or Ended(at)
    try:
        for chunk in chunks:
            seen += exchange.feed(chunk)
            if exchange.over and exchange.done:
                outcome = Ended(at)
                break
    except FAILURES as error:
        outcome = Broke(from_exception(error), at)
    try:
        seen += exchange.close()
    except FAILURES as error:
        if isinstance(outcome, Ended):
            outcome = Broke(from_exception(error), at)
    return seen, outcome
