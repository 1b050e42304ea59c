"""CPU per event of whole client processes, side by side in one run: no fault, one stream after the other.

    python bench/cpu.py [--size smoke|short|full] [--json FILE] [--only NAME ...]

Every peer reads the same text stream of its wire, 400 deltas, from a sender that is a process of its own
(`source`), in three ways: paced (each event its own write, segment and HTTP chunk, sent when the client waits
for it, as real APIs send), burst (the whole answer in one write, each event its own HTTP chunk) and length
(the same with a Content-Length). A client is a process too (`peers.Child`) and reports its own CPU time, all
threads. Peers take turns within a round, in another order each round; ratios are taken per round, and medians
are printed. How often a client slept is counted: paced, that has to be once an event, or else it
found several at once and looks cheaper than it is. No time is ever asserted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from floors import FLOORS
from peers import PEERS, Child, Died, Hang, Peer
from ratios import markdown, per_round, spread
from sizes import Size, Target, parser, write
from source import Order, Source, Way, pin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "cpu"
PACE = 0.002  # seconds; a client that needs longer for an event finds several at once, and is marked
LIMIT = 120.0  # seconds of one job; a peer that needs more hangs
WAITED = 0.9  # sleeps per event below which a paced client did not get each event by itself
WAYS: tuple[Way, ...] = ("paced", "burst", "length")
# Child and variants, in the order of the table.
READERS: dict[str, tuple[str, ...]] = {
    "raw": (
        "httpx2",
        "httpx2.chat",
        "httpx2.messages",
        "httpx2.async",
        "httpx2.chat.async",
        "httpx2.messages.async",
        "http.client",
    ),
    "raw_aiohttp": ("aiohttp",),
    "with_sidestream": (
        "stream",
        "stream.chat",
        "stream.messages",
        "complete",
        "stream.async",
        "stream.chat.async",
    ),
    "openai_sdk": ("responses", "responses.async", "chat", "chat.async"),
    "under_openai": ("responses", "responses.async", "chat", "chat.async"),
    "anthropic_sdk": ("messages.create", "messages.async"),
    "under_anthropic": ("messages.create", "messages.async"),
    "with_langchain": ("chat", "chat.async", "responses"),
    "with_pydantic_ai": ("chat", "responses"),
    "with_litellm": ("acompletion", "aresponses"),
}
SMOKED = ("raw", "with_sidestream", "openai_sdk", "under_openai")


@dataclass(frozen=True)
class Work:
    """How much is read.

    Attributes:
        rounds: of every way.
        streams: of a peer in a round, by way.
        tokens: deltas of a stream.
    """

    rounds: int
    streams: dict[Way, int]
    tokens: int = 400


WORK: dict[Size, Work] = {
    "smoke": Work(1, {"paced": 1, "burst": 1, "length": 1}, 100),
    "short": Work(3, {"paced": 1, "burst": 2, "length": 4}),
    "full": Work(7, {"paced": 1, "burst": 3, "length": 6}),
}


def measure(size: Size, only: Iterable[str] = ()) -> dict[str, Any]:
    """Every figure: microseconds of CPU and sleeps per event, by way, peer and round."""
    work = WORK[size]
    uses = {child: READERS[child][:1] for child in SMOKED} if size == "smoke" else READERS
    wanted = [peer for peer in of_uses(uses) if not only or peer.name in set(only)]
    peers = [peer for peer in wanted if peer.python.exists()]
    record: dict[str, Any] = {
        "work": {"rounds": work.rounds, "streams": work.streams, "tokens": work.tokens, "pace": PACE},
        "peers": {peer.name: described(peer) for peer in peers},
        "skipped": [peer.name for peer in wanted if peer not in peers],
        "failed": {},
        "ways": {way: {peer.name: {"us": [], "waits": []} for peer in peers} for way in WAYS},
    }
    with Source(events=work.tokens) as source, started(peers, source.url) as (children, failed):
        pin(source.pid, -1)
        for way in WAYS:
            source.send(Order(way, PACE if way == "paced" else 0.0))
            say(f"{way}: {work.rounds} rounds of {len(children)} clients")
            for number in range(work.rounds):
                for child in turned(children, number):
                    try:
                        took = read(child, source, work.streams[way])
                    except (Hang, Died) as error:
                        failed[child.peer.name] = str(error)
                        children.remove(child)
                        continue
                    for figure, value in took.items():
                        record["ways"][way][child.peer.name][figure].append(value)
    for name, words in failed.items():
        if record["peers"][name]["ours"]:
            raise RuntimeError(words)
        record["failed"][name] = words
        for found in (record["peers"], *record["ways"].values()):
            del found[name]
    return record


def read(child: Child, source: Source, streams: int) -> dict[str, float]:
    """So many streams, one after the other: microseconds of CPU and sleeps per event."""
    took = child.do("read", streams=streams, limit=LIMIT)
    events = streams * source.events[child.peer.wire]
    return {"us": 1e6 * took["cpu"] / events, "waits": took["waits"] / events}


def of_uses(uses: Mapping[str, Iterable[str]]) -> list[Peer]:
    """The peers with these children and variants, in this order."""
    by_use = {(peer.child, peer.variant): peer for peer in (*FLOORS, *PEERS) if not peer.fallbacks}
    return [by_use[child, variant] for child, variants in uses.items() for variant in variants]


def described(peer: Peer) -> dict[str, Any]:
    return {
        "child": peer.child,
        "variant": peer.variant,
        "wire": peer.wire,
        "is_async": peer.is_async,
        "settings": peer.settings,
        "ours": peer.ours,
    }


@contextmanager
def started(peers: list[Peer], url: str) -> Iterator[tuple[list[Child], dict[str, str]]]:
    """The peers' processes, each on the first core and warm; and what was wrong with the others."""
    children: list[Child] = []
    failed: dict[str, str] = {}

    def start(peer: Peer) -> None:
        try:
            children.append(child := Child(peer, [url]))
            child.do("read", streams=2, limit=LIMIT)  # imports, the connection, caches
        except (Hang, Died) as error:
            failed[peer.name] = str(error)

    say(f"starting {len(peers)} clients")
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(start, peers))
        warm = [child for child in children if child.peer.name not in failed]
        for child in warm:
            pin(child.pid, 0)
        yield sorted(warm, key=lambda child: peers.index(child.peer)), failed
    finally:
        for child in children:
            child.close()


def turned(children: list[Child], number: int) -> list[Child]:
    """Another one begins each round."""
    at = number * 7 % len(children)
    return children[at:] + children[:at]


def say(text: str) -> None:
    print(f"{NAME}: {text}", file=sys.stderr, flush=True)


# What is made of a record.


class Figures:
    """A record, asked for ratios."""

    def __init__(self, record: dict[str, Any]) -> None:
        self._record = record
        self.peers: dict[str, dict[str, Any]] = record["peers"]

    def us(self, way: str, name: str) -> list[float]:
        found: list[float] = self._record["ways"][way][name]["us"]
        return found

    def waits(self, name: str) -> float:
        """Sleeps per event, paced: the median round."""
        found: list[float] = self._record["ways"]["paced"][name]["waits"]
        return median(found)

    def kin(self, name: str, child: str, start: str) -> str | None:
        """The peer of that library that is used alike: same wire, both sync or both async."""
        peer = self.peers[name]
        alike = (
            other
            for other, its in self.peers.items()
            if its["child"] == child and its["variant"].startswith(start)
            if (its["wire"], its["is_async"]) == (peer["wire"], peer["is_async"])
        )
        return next(alike, None)

    def raw(self, name: str) -> str | None:
        return self.kin(name, "raw", "httpx2")

    def ours(self, name: str) -> str | None:
        return self.kin(name, "with_sidestream", "stream")

    def ratio(self, way: str, name: str, base: str | None) -> float | None:
        return per_round(self.us(way, name), self.us(way, base)) if base else None

    def over(self, way: str, use: tuple[str, str], base: tuple[str, str]) -> float | None:
        """What one peer costs, as a multiple of another."""
        name, other = self.name_of(*use), self.name_of(*base)
        return self.ratio(way, name, other) if name and other else None

    def name_of(self, child: str, variant: str) -> str | None:
        return next((name for name, its in self.peers.items() if _use(its) == (child, variant)), None)

    def ours_over_raw(self, way: str) -> float | None:
        name = self.name_of("with_sidestream", "stream")
        return self.ratio(way, name, self.raw(name)) if name else None

    def under(self, way: str, bare: str, above: str) -> float | None:
        """The most that a wrapped SDK costs, as a multiple of the SDK alone."""
        uses = {_use(its): name for name, its in self.peers.items()}
        ratios = [
            self.ratio(way, name, uses[bare, variant])
            for (child, variant), name in uses.items()
            if child == above and (bare, variant) in uses
        ]
        return max((ratio for ratio in ratios if ratio is not None), default=None)


def _use(its: dict[str, Any]) -> tuple[str, str]:
    return its["child"], its["variant"]


def targets(record: dict[str, Any]) -> list[Target]:
    """The ratios that were aimed at."""
    figures = Figures(record)
    made = []
    for way, openai, litellm in (("paced", 2.3, 6.0), ("burst", 6.0, 30.0)):
        made.append(
            Target(f"CPU/event, {way}: `Client.stream` ÷ raw httpx2", 1.1, figures.ours_over_raw(way))
        )
        for words, limit, child, variant, ours in (
            ("openai SDK, Responses", openai, "openai_sdk", "responses", "stream"),
            ("openai SDK, Chat", openai, "openai_sdk", "chat", "stream.chat"),
            ("litellm `acompletion`", litellm, "with_litellm", "acompletion", "stream.chat"),
            ("litellm `acompletion`", litellm, "with_litellm", "acompletion", "stream.chat.async"),
            ("litellm `aresponses`", litellm, "with_litellm", "aresponses", "stream"),
            ("litellm `aresponses`", litellm, "with_litellm", "aresponses", "stream.async"),
        ):
            ratio = figures.over(way, (child, variant), ("with_sidestream", ours))
            whose = "`AsyncClient.stream`" if ours.endswith("async") else "`Client.stream`"
            made.append(Target(f"CPU/event, {way}: {words} ÷ {whose}", limit, ratio, at_least=True))
        under = figures.under(way, "openai_sdk", "under_openai")
        made.append(Target(f"CPU/event, {way}: openai SDK wrapped ÷ alone, the worst", 1.1, under))
    return made


def tables(record: dict[str, Any]) -> str:
    """Every event by itself; then whole answers at once."""
    figures, names = Figures(record), list(record["peers"])
    paced = [[*_row(figures, "paced", name), _waits(figures, name)] for name in names]
    whole = [[*_row(figures, "burst", name), *_row(figures, "length", name)[2:]] for name in names]
    heads = ("µs (quartiles)", "÷ raw", "÷ ours")
    told = [
        *(words.format_map(record["work"]) for words in (_MEASURED, _PACED)),
        markdown(["", "wire", *heads, "sleeps per event"], paced),
        _WHOLE,
        markdown(["", "wire", *(f"burst: {h}" for h in heads), *(f"length: {h}" for h in heads)], whole),
        *notes(figures, record),
    ]
    return "\n\n".join(told)


_MEASURED = """\
Microseconds of CPU per event of the whole client process, no fault, a text stream of {tokens} deltas. Medians
of {rounds} interleaved rounds, ratios per round. ÷ raw: by raw httpx2 on the same wire, sync by sync, async
by async; ÷ ours: by `Client.stream` or `AsyncClient.stream`."""
_PACED = """\
Paced: every event its own write, TCP segment and HTTP chunk, {pace} seconds apart."""
_WHOLE = """\
Burst: the whole answer in one write, every event its own HTTP chunk. Length: with a Content-Length."""


def _row(figures: Figures, way: str, name: str) -> list[str]:
    ratios = (figures.ratio(way, name, base) for base in (figures.raw(name), figures.ours(name)))
    times = ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
    return [name, figures.peers[name]["wire"], spread(figures.us(way, name)), *times]


def _waits(figures: Figures, name: str) -> str:
    waits = figures.waits(name)
    return f"{waits:.2f}" if waits >= WAITED else f"{waits:.2f} *"


def notes(figures: Figures, record: dict[str, Any]) -> Iterator[str]:
    """What a reader has to know of these peers."""
    if any(figures.waits(name) < WAITED for name in figures.peers):
        yield (
            "\\* found several events at once, because one took longer than the pace, or the machine was "
            "busy: flattered."
        )
    if record["skipped"]:
        yield f"Not measured, because its environment is missing: {', '.join(record['skipped'])}."
    for words in record["failed"].values():
        yield f"Not measured: {words}."
    settings = (f"- {name}: {its['settings']}" for name, its in figures.peers.items())
    yield "How they are used:\n\n" + "\n".join(settings)


def plots(record: dict[str, Any]) -> dict[str, Callable[[Axes], None]]:
    """Paced and burst, on a log scale."""

    def bars(axes: Axes) -> None:
        figures = Figures(record)
        names = sorted(figures.peers, key=lambda name: median(figures.us("paced", name)))
        for at, (way, colour) in enumerate((("paced", "#3060a0"), ("burst", "#a0c0e8"))):
            places = [number + 0.4 * at for number in range(len(names))]
            axes.barh(places, [median(figures.us(way, n)) for n in names], 0.4, color=colour, label=way)
        axes.set_yticks([number + 0.2 for number in range(len(names))], names, fontsize=6)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlabel("CPU per event, µs")
        axes.legend()

    return {"cpu-per-event": bars}


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--only", nargs="*", default=(), metavar="NAME", help="only these peers")
    given = options.parse_args()
    record = measure(given.size, given.only)
    if given.json:
        write(record, given.json)
    print(tables(record))
    for target in targets(record):
        print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
