"""Choosing what to quote: budgeted coverage of identifiers and cues.

Every identifier is worth something once, more when the assistant said it than when a tool listed it, more
when several messages mention it, more when it is recent. A cue is worth something each time, but less and
less within its category. A greedy pick by gain per character over such a (submodular) worth is near the
best possible; gains only fall, so a heap with lazy updates finds it in near-linear time. What is still
missing at the end is named in one ledger line. Pure: same input, same digest.
"""

# ruff: noqa: RUF001 -- punctuation of other scripts is meant
from __future__ import annotations

import heapq
import re
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from math import log2
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from .digest_text import LEDGER, LEDGER_JOIN
from .marks import Cue, Cues, Mark, find_marks
from .tables import CUE_WEIGHTS, NAMED, NEGATIONS, NOISE, TELLING
from .units import lines, spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


__all__ = ["Source", "select"]

_Place = TypeVar("_Place", Mark, Cue)
_BEGIN = attrgetter("start")
_NOISE = re.compile(NOISE)
_NEGATION = re.compile(NEGATIONS)
_WORD_END = re.compile(r"[\s,;:，；：、。]|[.!?)\]]+(?:\s|$)")
_LETTERS = re.compile(r"[^\W\d_]+")
_DIGITS = re.compile(r"\d+")
_GAPS = re.compile(r"\s+")
_LINES_SHARE = 0.6  # of the room; the rest names what the quoted lines left out
_LINE_COST = 24  # a quote costs a line of its own and the reader's attention
_OLDEST, _RECENCY = 0.85, 0.3  # weight by age: later states replace earlier ones
_BARE = 0.6  # a line that is mostly one identifier says no more than the identifier: the ledger names it
_FADE = 0.75  # each further cue of a category is worth this much of the one before
_FADE_FLOOR = 0.25
_ANCHOR = 0.35  # a cue about something named is worth more than one about nothing
_TELLING_LEAST = 0.5  # an error code or commit is worth this even where a tool said it
_KEYLESS_LEAST = 30  # a cue with no name or number in it needs words around it
_TRIM_LEAST = 12
_TRIMMED_LEAST = 24
_FAILURE_LINE = 2.0  # what a tool's line that reports a failure is worth
_TABLE_ROW = 0.3  # what a row among look-alikes is worth
_NAME_COST = 24  # so that a long path is not dropped for three short flags
_LEDGER_LEAST = 0.5
_TOOL_CUES = frozenset(("failure",))


@dataclass(frozen=True, slots=True)
class Source:
    """A text that may be quoted.

    Attributes:
        text: the text, secrets already taken out.
        voice: what its words weigh: 1 for the assistant, less for tools.
        age: 0 for the oldest, 1 for the newest.
        code: lines are code or log, to be quoted whole.
    """

    text: str
    voice: float
    age: float
    code: bool


@dataclass(slots=True)
class _Concept:
    """An identifier over the whole conversation."""

    worth: float = 0.0
    places: int = 0
    last: int = -1
    surface: str = ""
    named: bool = False
    order: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class _Line:
    source: int
    start: int
    end: int
    weight: float
    marks: tuple[Mark, ...]
    cues: tuple[Cue, ...]
    row: bool


@dataclass(frozen=True, slots=True)
class _Unit:
    line: int
    start: int
    end: int
    keys: tuple[str, ...]
    cues: tuple[str, ...]


@dataclass(slots=True)
class _Worth:
    """What is covered so far, and what a unit would add."""

    concepts: dict[str, _Concept]
    lines: list[_Line]
    covered: set[str]
    used: dict[str, int] = field(default_factory=dict)

    def gain(self, unit: _Unit) -> float:
        line = self.lines[unit.line]
        fresh = sum(self.concepts[key].worth for key in unit.keys if key not in self.covered)
        cue = 0.0
        for category in unit.cues:
            cue = max(cue, CUE_WEIGHTS[category] * max(_FADE_FLOOR, _FADE ** self.used.get(category, 0)))
        return fresh + cue * line.weight * (1.0 if unit.keys else _ANCHOR)

    def take(self, unit: _Unit) -> None:
        self.covered.update(unit.keys)
        for category in set(unit.cues):
            self.used[category] = self.used.get(category, 0) + 1


def select(sources: Sequence[Source], known: Iterable[str], room: int) -> str:
    """The body of a digest, at most `room` characters; `known` texts stay and need no quoting."""
    table = _scan(sources)
    worth = _Worth(_concepts(sources, table), table, _known_keys(known))
    units = list(_units(sources, table))
    chosen: list[_Unit] = []
    left = _greedy(units, worth, int(room * _LINES_SHARE), chosen)
    ledger = _ledger(worth, room - int(room * _LINES_SHARE) + left)
    used = len(_render(sources, table, chosen)) + len(ledger) + 1
    left = _greedy(units, worth, room - used, chosen)
    _fill(sources, table, left, chosen)
    body = _render(sources, table, chosen)
    return "\n".join(part for part in (body, ledger) if part)


def _scan(sources: Sequence[Source]) -> list[_Line]:
    """Every line worth looking at, with its marks and cues."""
    cues, found = Cues(), []
    seen: set[str] = set()
    for number, source in enumerate(sources):
        places = list(lines(source.text))
        alike = _shapes(source.text, places) if source.code else [1] * len(places)
        for (start, end), twins in zip(places, alike, strict=True):
            line = source.text[start:end]
            if line in seen or (source.code and _NOISE.match(line)):
                continue
            seen.add(line)
            here = tuple(
                cue
                for cue in cues.find(source.text, start, end)
                if not source.code or cue.category in _TOOL_CUES
            )
            weight = source.voice * (_OLDEST + _RECENCY * source.age)
            row = twins > 2
            weight *= (_TABLE_ROW if row else 1.0) * (_FAILURE_LINE if source.code and here else 1.0)
            marks = tuple(find_marks(source.text, start, end))
            found.append(_Line(number, start, end, weight, marks, here, row))
    return found


def _shapes(text: str, places: Sequence[tuple[int, int]]) -> list[int]:
    """How many lines of the text look like each line, letters and digits aside."""
    shapes = [_GAPS.sub(" ", _DIGITS.sub("0", _LETTERS.sub("a", text[start:end]))) for start, end in places]
    counts = Counter(shapes)
    return [counts[shape] for shape in shapes]


def _concepts(sources: Sequence[Source], table: Sequence[_Line]) -> dict[str, _Concept]:
    """Identifiers by key: their best place, and how many messages mention them."""
    concepts: dict[str, _Concept] = {}
    for line in table:
        text = sources[line.source].text
        for mark in line.marks:
            concept = concepts.setdefault(mark.key, _Concept())
            if concept.last != line.source:
                concept.places, concept.last = concept.places + 1, line.source
            telling = mark.kind in TELLING and not line.row
            weight = max(line.weight, _TELLING_LEAST) if telling else line.weight
            value = mark.weight * weight
            if value > concept.worth:
                surface = text[mark.start : mark.end]
                concept.worth, concept.surface, concept.order = value, surface, (line.source, mark.start)
                concept.named = mark.kind in NAMED
    for concept in concepts.values():
        concept.worth *= log2(1 + min(concept.places, 4))
    return concepts


def _known_keys(texts: Iterable[str]) -> set[str]:
    return {mark.key for text in texts for start, end in lines(text) for mark in find_marks(text, start, end)}


def _units(sources: Sequence[Source], table: Sequence[_Line]) -> Iterable[_Unit]:
    for number, line in enumerate(table):
        source = sources[line.source]
        if not line.marks and not line.cues:
            continue
        if source.code and not line.cues and _is_bare(line):
            continue
        for start, end in _candidates(source, line):
            keys = tuple({mark.key: 0 for mark in _within(line.marks, start, end)})
            cues = tuple(cue.category for cue in _within(line.cues, start, end))
            if keys or (cues and end - start >= _KEYLESS_LEAST):
                yield _Unit(number, start, end, keys, cues)


def _within(places: Sequence[_Place], start: int, end: int) -> Sequence[_Place]:
    """The marks or cues inside a span; they are in order, so a long line costs no more than a short one."""
    first = bisect_left(places, start, key=_BEGIN)
    last = bisect_left(places, end, first, key=_BEGIN)
    while last > first and places[last - 1].end > end:
        last -= 1
    return places[first:last]


def _candidates(source: Source, line: _Line) -> Iterable[tuple[int, int]]:
    """The line's spans, and each cut down to what it says of marks and cues."""
    seen: set[tuple[int, int]] = set()
    for start, end in spans(source.text, line.start, line.end, whole=source.code):
        for span in ((start, end), _trimmed(source.text, start, end, line)):
            if span not in seen:
                seen.add(span)
                yield span


def _trimmed(text: str, start: int, end: int, line: _Line) -> tuple[int, int]:
    """The span from a word before its first mark or cue to the end of the word of its last mark.

    Only if that saves enough, and never where it would cut a negation off.
    """
    marks, cues = _within(line.marks, start, end), _within(line.cues, start, end)
    if not marks:
        return start, end
    first = min(marks[0].start, cues[0].start if cues else end)
    begin = start
    if (cut := text.rfind(" ", start, first)) >= 0:
        begin = text.rfind(" ", start, cut) + 1 or start
    last, stop = marks[-1].end, end
    if not cues or cues[-1].end <= last:  # after a cue comes what it is about
        space = _WORD_END.search(text, last, end)
        stop = space.start() if space else end
    saves = (end - start) - (stop - begin) >= _TRIM_LEAST and stop - begin >= _TRIMMED_LEAST
    if not saves or _NEGATION.search(text, start, begin) or _NEGATION.search(text, stop, end):
        return start, end
    return begin, stop


def _is_bare(line: _Line) -> bool:
    longest = max((mark.end - mark.start for mark in line.marks), default=0)
    return longest >= (line.end - line.start) * _BARE


def _greedy(units: Sequence[_Unit], worth: _Worth, room: int, chosen: list[_Unit]) -> int:
    """Add the best units that fit; return the room left."""
    heap = [(-_rate(unit, worth), number) for number, unit in enumerate(units)]
    heapq.heapify(heap)
    taken: dict[int, list[_Unit]] = {}
    for unit in chosen:
        taken.setdefault(unit.line, []).append(unit)
    while heap:
        _, number = heapq.heappop(heap)
        unit = units[number]
        if unit.end - unit.start + 1 > room or any(
            _overlap(unit, other) for other in taken.get(unit.line, ())
        ):
            continue
        now = -_rate(unit, worth)
        if heap and now > heap[0][0]:
            if now < 0:
                heapq.heappush(heap, (now, number))
            continue
        if now >= 0:
            break
        worth.take(unit)
        chosen.append(unit)
        taken.setdefault(unit.line, []).append(unit)
        room -= unit.end - unit.start + 1
    return room


def _fill(sources: Sequence[Source], table: Sequence[_Line], room: int, chosen: list[_Unit]) -> None:
    """Spend what is left on prose that no table knows, newest first: better a plain sentence than none."""
    quoted = {unit.line for unit in chosen}
    for number in range(len(table) - 1, -1, -1):
        line = table[number]
        source = sources[line.source]
        if room < _KEYLESS_LEAST:
            return
        if source.code or number in quoted:
            continue
        at = line.start
        for start, end in spans(source.text, line.start, line.end, whole=False):
            if at <= start and end - start < room:
                chosen.append(_Unit(number, start, end, (), ()))
                room, at = room - (end - start + 1), end


def _rate(unit: _Unit, worth: _Worth) -> float:
    return worth.gain(unit) / (unit.end - unit.start + _LINE_COST)


def _overlap(one: _Unit, other: _Unit) -> bool:
    return one.start < other.end and other.start < one.end


def _ledger(worth: _Worth, room: int) -> str:
    """One line naming the most valuable identifiers that no quoted line names."""
    missing = [
        (concept.worth / (len(concept.surface) + _NAME_COST), concept)
        for key, concept in worth.concepts.items()
        if key not in worth.covered and concept.named and concept.worth >= _LEDGER_LEAST
    ]
    missing.sort(key=lambda each: (-each[0], each[1].order))
    room -= len(LEDGER)
    named: list[_Concept] = []
    for _, concept in missing:
        cost = len(concept.surface) + len(LEDGER_JOIN)
        if cost <= room:
            named.append(concept)
            room -= cost
    covered = {concept.surface for concept in named}
    worth.covered.update(key for key, concept in worth.concepts.items() if concept.surface in covered)
    named.sort(key=lambda concept: concept.order)
    return LEDGER + LEDGER_JOIN.join(concept.surface for concept in named) if named else ""


def _render(sources: Sequence[Source], table: Sequence[_Line], chosen: Sequence[_Unit]) -> str:
    """The quotes in their original order, neighbours joined."""
    pieces: list[tuple[int, int, int]] = []
    for unit in sorted(chosen, key=lambda each: (each.line, each.start)):
        source = table[unit.line].source
        if pieces and pieces[-1][0] == source and unit.start - pieces[-1][2] <= 1:
            pieces[-1] = (source, pieces[-1][1], unit.end)
        else:
            pieces.append((source, unit.start, unit.end))
    return "\n".join(sources[source].text[start:end] for source, start, end in pieces)
