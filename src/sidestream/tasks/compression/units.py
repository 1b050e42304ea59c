"""Cutting text into the pieces a digest may quote.

A line is cut into sentences and a sentence into clauses; candidates are runs of neighbouring clauses, so
that a long sentence can give its useful half. Every candidate is a span of its line, which is what makes
an invented word impossible. The number of candidates grows linearly with the text.
"""

# ruff: noqa: RUF001 -- punctuation of other scripts is meant
from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .tables import ABBREVIATIONS, ADVERSATIVES, CONJUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MAX_SPAN", "lines", "spans"]

MAX_SPAN = 400
_RUN = 3
_LONGEST_LINE = 2_000
_SHORTEST = 14

_LINE = re.compile(r"[^\n]+")
_SENTENCE = re.compile(r"(?<=[.!?؟…])[\"')»”*_`]{0,3}\s+(?=[^\sa-zß-öø-ÿ])|(?<=[。！？])(?![」』”）)])")
_CLAUSE = re.compile(
    rf"(?:(?<=[,;:،؛])\s+|\s+[—–-]\s+)(?!(?:{ADVERSATIVES})\b)|(?<=[，；：、])(?![但却然而]|しかし|ただ)"
    rf"|\s+(?=\()|(?<=\))\s+(?!(?:{ADVERSATIVES})\b)|\s(?=(?:{CONJUNCTIONS})\s)"
)
_ABBREVIATIONS = frozenset(ABBREVIATIONS.split())
_DAY = re.compile(r"\D{0,2}\d{1,2}\.\s(?:Jan|Jän|Feb|Mär|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez)")
_BULLET = re.compile(r"\s*(?:[-*•·>#|]+\s+|\d{1,2}[.)]\s+)*")
_TAIL = re.compile(r"[\s,;:，；：、،—–-]+$")
_DECORATION = re.compile(r"^[\W_]*$")


def lines(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the lines that hold at least one letter or digit, without bullets and outer space."""
    for match in _LINE.finditer(text):
        line = match.group()
        if _DECORATION.match(line):
            continue
        bullet = _BULLET.match(line)
        start = match.start() + (bullet.end() if bullet else 0)
        yield from _windows(text, start, match.start() + len(line.rstrip()))


def _windows(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A line, or pieces of one that is longer than any prose: minified code, a data row."""
    while end - start > _LONGEST_LINE:
        cut = text.rfind(" ", start + _LONGEST_LINE // 2, start + _LONGEST_LINE)
        cut = cut if cut > start else start + _LONGEST_LINE
        yield start, cut
        start = cut
    yield start, end


def spans(text: str, start: int, end: int, *, whole: bool) -> Iterator[tuple[int, int]]:
    """Candidate spans of one line; with `whole` a line of code or log, cut only when it is long."""
    if whole and end - start <= MAX_SPAN // 2:
        yield start, end
        return
    for first, last in _sentences(text, start, end):
        yield from _runs(text, first, last)


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    begin = start
    for match in _SENTENCE.finditer(text, start, end):
        words = text[begin : match.start()].rsplit(None, 1)
        if (words and words[-1].casefold() in _ABBREVIATIONS) or _DAY.match(
            text, max(start, match.start() - 3), end
        ):
            continue
        yield begin, match.start() + len(match.group().rstrip())
        begin = match.end()
    if begin < end:
        yield begin, end


def _runs(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The sentence and every short run of its clauses, each span once."""
    pieces = _clauses(text, start, end)
    seen: set[tuple[int, int]] = set()
    if end - start <= MAX_SPAN:
        seen.add((start, end))
        yield start, end
    for index in range(len(pieces)):
        for other in range(index, min(len(pieces), index + _RUN)):
            begin, stop = pieces[index][0], pieces[other][1]
            tail = _TAIL.search(text, begin, stop)
            stop = tail.start() if tail else stop
            if (
                (begin, stop) not in seen
                and _width(text, begin, stop) >= _SHORTEST
                and stop - begin <= MAX_SPAN
            ):
                seen.add((begin, stop))
                yield begin, stop


def _width(text: str, start: int, end: int) -> int:
    """Length with CJK characters counted for two: they say more each."""
    piece = text[start:end]
    return len(piece) if piece.isascii() else len(piece) + sum(char >= "\u2e80" for char in piece)


def _clauses(text: str, start: int, end: int) -> list[tuple[int, int]]:
    pieces: list[tuple[int, int]] = []
    begin = start
    for match in _CLAUSE.finditer(text, start, end):
        if match.start() > begin:
            pieces.append((begin, match.start()))
            begin = match.end()
    pieces.append((begin, end))
    return [part for piece in pieces for part in _hard(text, *piece)]


def _hard(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A piece without any punctuation, cut at spaces, so that no line is too long to quote."""
    while end - start > MAX_SPAN // 2:
        cut = text.rfind(" ", start + MAX_SPAN // 4, start + MAX_SPAN // 2)
        cut = cut if cut > start else start + MAX_SPAN // 2
        yield start, cut
        start = cut + (text[cut : cut + 1] == " ")
    yield start, end
