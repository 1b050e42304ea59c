"""Many streams at once in one client process: memory of each, and how many it keeps up with on one core.

    python bench/streams.py [--size smoke|short|full] [--json FILE] [--only NAME ...]

Memory: a client reads a few answers, then opens streams that stay open after their first text; what its
private resident memory grew by, divided by the streams. Threads and their stacks count, so does everything a
library keeps. A fresh process every time, because a second turn would find the memory of the first.

Keeping up: the client has one core, the sender (`source`) another; streams of 50 events a second begin
together once all are open, evenly spread over the 20 ms. A client keeps up if all of them take less CPU time
than 90 % of the time they were sent in, and it reads the last events half a second after they were sent at
most. The number of streams is doubled until it does not, then narrowed down. No time is ever asserted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from cpu import described, of_uses
from peers import Child, Died, Hang, Peer
from ratios import markdown, spread
from sizes import Size, Target, parser, write
from source import Order, Source, cpu_of, pin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "streams"
PACE = 0.02  # seconds between two events of a stream
BUSY = 0.9  # of its core; a client that needs more does not keep up
BEHIND = 0.5  # seconds at the end, nor does one that is further behind
LIMIT = 60.0  # seconds of a job; a peer that needs more hangs
LEAST = 25  # streams; what does not keep up with these is left at 0
KIB = 1024
# Child and variants, in the order of the table.
READERS = {
    "raw": ("httpx2.async", "httpx2"),
    "raw_aiohttp": ("aiohttp",),
    "with_sidestream": ("stream.async", "stream"),
    "openai_sdk": ("responses.async", "responses"),
    "under_openai": ("responses.async", "responses"),
    "anthropic_sdk": ("messages.async", "messages.create"),
    "under_anthropic": ("messages.async", "messages.create"),
    "with_langchain": ("chat.async", "chat"),
    "with_pydantic_ai": ("responses",),
    "with_litellm": ("acompletion", "aresponses"),
}
SMOKED = ("raw", "with_sidestream")


@dataclass(frozen=True)
class Work:
    """How much is done.

    Attributes:
        open: streams that are held open.
        turns: processes in which they are.
        rungs: numbers of streams to keep up with, in turn, until one is too many.
        halvings: how often the last step is narrowed down.
        tokens: deltas of a stream; 50 are a second.
    """

    open: int
    turns: int
    rungs: tuple[int, ...]
    halvings: int
    tokens: int


WORK: dict[Size, Work] = {
    "smoke": Work(20, 1, (10,), 0, 10),
    "short": Work(300, 1, (50, 100, 200, 400), 0, 60),
    "full": Work(300, 2, (50, 100, 200, 400, 800), 1, 100),
}


def measure(size: Size, only: Iterable[str] = ()) -> dict[str, Any]:
    """Bytes per open stream, and for each number of streams the CPU they took and whether it was enough."""
    work = WORK[size]
    uses = {child: READERS[child][:1] for child in SMOKED} if size == "smoke" else READERS
    wanted = [peer for peer in of_uses(uses) if not only or peer.name in set(only)]
    peers = [peer for peer in wanted if peer.python.exists() and sys.platform == "linux"]
    record: dict[str, Any] = {
        "work": {**asdict(work), "pace": PACE, "busy": BUSY, "behind": BEHIND},
        "peers": {peer.name: described(peer) for peer in peers},
        "skipped": [peer.name for peer in wanted if peer not in peers],
        "memory": {peer.name: [] for peer in peers},
        "kept": {peer.name: [] for peer in peers},
    }
    with Source(events=work.tokens) as source:
        pin(source.pid, -1)
        for turn in range(work.turns):
            for peer in peers:
                say(f"memory, turn {turn + 1} of {work.turns}: {peer.name}")
                record["memory"][peer.name].append(held(peer, source, work.open))
        for peer in peers:
            for found in steps(peer, source, work):
                record["kept"][peer.name].append(found)
    return record


@contextmanager
def warm(peer: Peer, source: Source) -> Iterator[Child]:
    """A client that has read an answer."""
    source.send(Order("burst"))
    with Child(peer, [source.url]) as child:
        pin(child.pid, 0)
        child.do("read", streams=3, limit=LIMIT)
        yield child


def held(peer: Peer, source: Source, streams: int) -> dict[str, Any]:
    """Bytes and threads of a stream that is open, or what went wrong."""
    try:
        with warm(peer, source) as child:
            source.send(Order("held"))
            return child.do("hold", streams=streams, limit=LIMIT)
    except (Hang, Died) as error:
        return failed(peer, error)


def steps(peer: Peer, source: Source, work: Work) -> Iterator[dict[str, Any]]:
    """How a client did with more and more streams, and with numbers between enough and too many."""
    most, least = 0, 0
    try:
        with warm(peer, source) as child:
            for streams in work.rungs:
                yield (found := kept(child, source, streams))
                if not enough(found):
                    least = streams
                    break
                most = streams
            for _ in range(work.halvings):
                if not least or (streams := (most + least) // 2) < LEAST:
                    return
                yield (found := kept(child, source, streams))
                most, least = (streams, least) if enough(found) else (most, streams)
    except (Hang, Died) as error:
        yield failed(peer, error)


def failed(peer: Peer, error: Exception) -> dict[str, Any]:
    """What is noted of a peer that does not hold so many. Of ours, that ends the run."""
    if peer.ours:
        raise error
    return {"error": str(error)}


def kept(child: Child, source: Source, streams: int) -> dict[str, Any]:
    """So many streams at once, each to its end."""
    source.send(Order("paced", PACE, streams, child.pid))
    ends = child.do("keep", streams=streams, limit=LIMIT)["ends"]
    sent = source.report()
    found = {
        "streams": streams,
        "busy": (cpu_of(child.pid) - sent["cpu"]) / sent["wall"],
        "behind": median(b - a for a, b in zip(sorted(sent["sent"]), sorted(ends), strict=True)),
        "sender_late": sent["late"],
    }
    say(f"{child.peer.name}: {streams} streams, {found['busy']:.0%}, {found['behind']:.3f} s behind")
    return found


def enough(found: dict[str, Any], busy: float = BUSY, behind: float = BEHIND) -> bool:
    """Whether it kept up."""
    return "busy" in found and found["busy"] <= busy and found["behind"] <= behind


def say(text: str) -> None:
    print(f"{NAME}: {text}", file=sys.stderr, flush=True)


# What is made of a record.


def kib(record: dict[str, Any], name: str) -> list[float]:
    """KiB of a stream, of the turns that worked."""
    return [found["bytes"] / KIB for found in record["memory"][name] if "bytes" in found]


def most(record: dict[str, Any], name: str) -> int | None:
    """The highest number of streams it kept up with; None if it was never seen to."""
    enough = [
        f["streams"] for f in record["kept"][name] if "busy" in f and f["busy"] <= record["work"]["busy"]
    ]
    return max(enough, default=None)


def targets(record: dict[str, Any]) -> list[Target]:
    name = next(
        (n for n, its in record["peers"].items() if _use(its) == ("with_sidestream", "stream.async")), None
    )
    found = kib(record, name) if name else []
    return [Target("memory per open stream, `AsyncClient`, KiB", 30, median(found) if found else None)]


def _use(its: dict[str, Any]) -> tuple[str, str]:
    return its["child"], its["variant"]


def tables(record: dict[str, Any]) -> str:
    """A row for each client."""
    work = record["work"]
    rungs = [rung for rung in work["rungs"] if rung <= 400]
    heads = [
        "",
        "KiB per stream",
        "threads",
        *[f"CPU, {rung} streams" for rung in rungs],
        "most kept up with",
    ]
    table = markdown(heads, ([name, *_row(record, name, rungs)] for name in record["peers"]))
    words = _WORDS.format(rate=1 / work["pace"], **work)
    return "\n\n".join([words, table, *notes(record)])


_WORDS = """\
KiB: private resident memory per stream, {open} open at their first text; medians of {turns} fresh processes
(quartiles). Threads: per stream. CPU: seconds that the client needed for each second of the sender, with
streams of {rate:.0f} events a second. Most kept up with: with less than {busy:.0%} of a core, and at most
{behind} s behind at the end; ≥ if no more were tried."""


def _row(record: dict[str, Any], name: str, rungs: list[int]) -> list[str]:
    held_, busy = kib(record, name), {f["streams"]: f["busy"] for f in record["kept"][name] if "busy" in f}
    threads = [found["threads"] for found in record["memory"][name] if "bytes" in found]
    top = most(record, name)
    tried, whole = max(busy, default=0), all("busy" in found for found in record["kept"][name])
    return [
        spread(held_, ".0f") if held_ else "fails",
        f"{median(threads) / record['work']['open']:.0f}" if threads else "",
        *[f"{busy[rung]:.0%}" if rung in busy else "" for rung in rungs],
        f"≥ {top}" if top and top == tried and whole else f"{top or 'fewer'}",
    ]


def notes(record: dict[str, Any]) -> Iterator[str]:
    for name in record["peers"]:
        said = [
            found["error"] for found in (*record["memory"][name], *record["kept"][name]) if "error" in found
        ]
        if said:
            yield f"{name} failed {len(said)} times, first with: {said[0]}."
    late = max(
        (f["sender_late"] for found in record["kept"].values() for f in found if "busy" in f), default=0.0
    )
    yield f"The sender itself was never more than {1000 * late:.0f} ms late."
    if record["skipped"]:
        yield f"Not measured, no environment (or no Linux): {', '.join(record['skipped'])}."


def plots(record: dict[str, Any]) -> dict[str, Callable[[Axes], None]]:
    """Memory of a stream."""

    def bars(axes: Axes) -> None:
        found = {name: median(figures) for name in record["peers"] if (figures := kib(record, name))}
        names = sorted(found, key=lambda name: found[name])
        axes.barh(names, [found[name] for name in names], color="#3060a0")
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize=7)
        axes.set_xlabel("memory per open stream, KiB")

    return {"memory-per-stream": bars}


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--only", nargs="*", default=(), metavar="NAME", help="only these peers")
    given = options.parse_args()
    record = measure(given.size, given.only)
    if given.json:
        write(record, given.json)
    print(tables(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
