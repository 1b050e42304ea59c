"""Facts that must survive a compression, and how many did.

A fact is a string, a list of alternatives, or `{"fact": name, "all_of": [pattern, …]}` where every regular
expression has to be found. Case and the width of white space do not matter. Facts come as JSON (a list, or
an object with `facts`) or as text, one a line, alternatives parted by `|`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Fact", "kept", "read_facts"]

MAX_FACTS = 10_000
_HINT = 'A fact is "text", ["one way", "another way"] or {"fact": "name", "all_of": ["regular expression"]}.'


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing a reader must still be able to learn.

    Attributes:
        name: for people.
        patterns: all of them have to be found.
    """

    name: str
    patterns: tuple[re.Pattern[str], ...]

    @classmethod
    def of(cls, value: object) -> Fact:
        """A fact in any of the forms a file may have.

        Raises:
            UsageError: it has none of them.
        """
        if isinstance(value, Fact):
            return value
        if isinstance(value, str) and value.strip():
            return cls(value.strip(), (_literal([value]),))
        if (
            isinstance(value, list)
            and value
            and all(isinstance(each, str) and each.strip() for each in value)
        ):
            return cls(value[0].strip(), (_literal(value),))
        if isinstance(value, dict) and isinstance(value.get("all_of"), list) and value["all_of"]:
            patterns = tuple(_pattern(each) for each in value["all_of"])
            return cls(str(value.get("fact") or patterns[0].pattern), patterns)
        raise UsageError(f"this is not a fact: {json.dumps(value, default=str)[:80]}", hint=_HINT)

    def within(self, text: str) -> bool:
        """Whether a text still tells it."""
        return all(pattern.search(text) for pattern in self.patterns)


def kept(facts: Iterable[Fact], text: str) -> list[Fact]:
    """The facts a text still tells."""
    return [fact for fact in facts if fact.within(text)]


def read_facts(data: bytes) -> list[Fact]:
    """The facts of a file.

    Raises:
        UsageError: it holds none, or something that is no fact.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError("the facts are not UTF-8 text", hint=_HINT) from None
    rows = _json_rows(text) if text.lstrip()[:1] in ("{", "[") else _text_rows(text)
    if not 0 < len(rows) <= MAX_FACTS:
        raise UsageError(f"the file has {len(rows)} facts, expected 1 to {MAX_FACTS:,}", hint=_HINT)
    return [Fact.of(row) for row in rows]


def _json_rows(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the facts are not valid JSON ({error})", hint=_HINT) from None
    rows = value.get("facts") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise UsageError('the JSON has no list of facts and no "facts"', hint=_HINT)
    return rows


def _text_rows(text: str) -> list[Any]:
    lines = [line.strip() for line in text.splitlines()]
    return [
        [each.strip() for each in line.split("|") if each.strip()]
        for line in lines
        if line.strip("| ") and not line.startswith("#")
    ]


def _literal(ways: list[str]) -> re.Pattern[str]:
    """Any of the texts; between words any white space."""
    return re.compile("|".join(r"\s+".join(map(re.escape, way.split())) for way in ways), re.IGNORECASE)


def _pattern(value: object) -> re.Pattern[str]:
    if not isinstance(value, str):
        raise UsageError(f"a pattern of a fact is a {type(value).__name__}, expected text", hint=_HINT)
    try:
        return re.compile(value, re.IGNORECASE)
    except re.error as error:
        raise UsageError(f"{value!r} is not a regular expression ({error})", hint=_HINT) from None
