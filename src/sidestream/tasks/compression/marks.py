"""Finding the identifiers and cues of a line, by the tables.

A mark is a span with a key; two marks with the same key say the same thing, so covering one covers the
other (`src/app/relay.py` and `relay.py`, `15 s` and `15s`). The identifier patterns are tried where a word
or a sign begins, nowhere else, which keeps the scan linear and quick.
"""

# ruff: noqa: RUF001 -- punctuation of other scripts is meant
from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from .tables import CUE_WORDS, IDENTIFIERS, UNSPACED_CUES

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Cue", "Cues", "Mark", "find_marks"]

# A plain word before another plain word starts nothing; most of prose is skipped by this.
_START = re.compile(r"(?<![A-Za-z0-9_])(?:[^\s\w,;:)\]}]|(?![a-z]+[,;:.]?\ [^=\d])[A-Za-z0-9_])|[^\x00-\x7f]")
_PATTERN = re.compile("|".join(f"(?P<k{number}>{row[2]})" for number, row in enumerate(IDENTIFIERS)))
_KINDS = {f"k{number}": (row[0], row[1]) for number, row in enumerate(IDENTIFIERS)}
_WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)*")
_QUOTES = "`\"'«»„“”「」『』《》 "
_PHRASE = 4


@dataclass(frozen=True, slots=True)
class Mark:
    """An identifier at a place in a text."""

    start: int
    end: int
    key: str
    kind: str
    weight: float


@dataclass(frozen=True, slots=True)
class Cue:
    """A cue word or phrase at a place in a text."""

    start: int
    end: int
    category: str


def find_marks(text: str, start: int, end: int) -> list[Mark]:
    """The identifiers of a line, left to right, none inside another."""
    found: list[Mark] = []
    at = start
    while begin := _START.search(text, at, end):
        match = _PATTERN.match(text, begin.start(), end)
        if match is None or not match.lastgroup or match.end() == match.start():
            at = begin.end()
            continue
        kind, weight = _KINDS[match.lastgroup]
        found.append(Mark(match.start(), match.end(), _key(kind, match.group()), kind, weight))
        at = match.end()
    return found


def _key(kind: str, text: str) -> str:
    text = text.strip(_QUOTES).casefold()
    if kind in ("path", "file"):
        return text.rsplit("/", 1)[-1]
    if kind in ("call", "exception", "dotted"):
        text = text.removesuffix("()")
        return text.rsplit(".", 1)[-1] if kind == "exception" else text
    if kind == "error_code":
        return "".join(filter(str.isdigit, text)) if " " in text or "=" in text else text
    return "".join(text.split())


@dataclass(frozen=True, slots=True)
class _Lexicon:
    """The cue words in the form they are looked up in."""

    exact: dict[str, str]
    stems: dict[str, str]
    openers: frozenset[str]
    unspaced: re.Pattern[str]
    category: dict[str, str]


@cache
def _lexicon() -> _Lexicon:
    exact: dict[str, str] = {}
    stems: dict[str, str] = {}
    for category, languages in CUE_WORDS.items():
        for row in languages.values():
            for phrase in (each.strip().casefold() for each in row.split(",")):
                target = stems if phrase.endswith("*") else exact
                target.setdefault(phrase.rstrip("*"), category)
    openers = frozenset(phrase.split()[0] for phrase in exact if " " in phrase)
    unspaced = {word: category for category, row in UNSPACED_CUES.items() for word in row.split()}
    pattern = "|".join(map(re.escape, sorted(unspaced, key=lambda word: (-len(word), word))))
    return _Lexicon(exact, stems, openers, re.compile(pattern), unspaced)


class Cues:
    """Finds cues; remembers words it has seen, so one instance serves one conversation."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._lexicon = _lexicon()

    def find(self, text: str, start: int, end: int) -> list[Cue]:
        """Every cue in a line, in order."""
        found = list(self._spaced(text, start, end))
        if not text[start:end].isascii():
            matches = self._lexicon.unspaced.finditer(text, start, end)
            found += [Cue(each.start(), each.end(), self._lexicon.category[each.group()]) for each in matches]
            found.sort(key=lambda cue: (cue.start, cue.end))
        return found

    def _spaced(self, text: str, start: int, end: int) -> Iterator[Cue]:
        words = [
            (match.start(), match.end(), match.group().casefold())
            for match in _WORD.finditer(text, start, end)
        ]
        for index, (begin, stop, word) in enumerate(words):
            if word in self._lexicon.openers:
                for length in range(2, min(_PHRASE, len(words) - index) + 1):
                    phrase = " ".join(each[2] for each in words[index : index + length])
                    if category := self._lexicon.exact.get(phrase, ""):
                        yield Cue(begin, words[index + length - 1][1], category)
            if category := self._category(word):
                yield Cue(begin, stop, category)

    def _category(self, word: str) -> str:
        known = self._known.get(word)
        if known is None:
            plain = word.replace("’", "'")
            known = self._lexicon.exact.get(plain, "") or self._stem(plain)
            self._known[word] = known
        return known

    def _stem(self, word: str) -> str:
        for length in range(min(len(word), 12), 2, -1):
            if category := self._lexicon.stems.get(word[:length], ""):
                return category
        return ""
