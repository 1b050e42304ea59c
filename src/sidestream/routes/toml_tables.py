"""TOML into typed values, with the line of everything: what the standard parser and msgspec leave out.

Strategy: `tomllib` reads the text and decides what is valid. It tells no positions, and no kept library does,
so `lines_of` walks over the same text once more: a small scanner that may rely on the text being valid, and
that a test holds against tomllib on generated documents. `fields_of` turns one table into the fields of a
dataclass: its annotations are the schema, msgspec checks each value against them. Everything that is wrong is
collected, not only the first of it, and no message shows a value: somebody may have pasted a key there.

What the tables mean is not known here. Pure.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from msgspec import Meta, Struct, ValidationError, convert

__all__ = ["Document", "Key", "KeyPath", "Problem", "keys_of", "lines_of"]

KeyPath = tuple[str | int, ...]


class Problem(NamedTuple):
    """One thing that is wrong: what, where, and what to do about it."""

    message: str
    hint: str = ""


class Key(Struct, frozen=True):
    """One key that a table may have.

    Attributes:
        schema: what a value is converted to.
        kind: the values it takes, in words, such as "a number of seconds above 0".
    """

    name: str
    schema: Any
    kind: str


def _keys_of(table: type) -> dict[str, Key]:
    """The keys that a dataclass describes, in order."""
    hints = get_type_hints(table, include_extras=True)
    found = {}
    for field in fields(table):
        if not field.metadata.get("apart"):
            schema = _said(hints[field.name])
            found[field.name] = Key(field.name, schema, _kind(schema))
    return found


keys_of: Callable[[type], dict[str, Key]] = cache(_keys_of)  # annotations are slow to work out


def _said(hint: Any) -> Any:
    """The type of a value that is said: without the None of one that is not."""
    options = [option for option in get_args(hint) if option is not type(None)]
    return options[0] if type(None) in get_args(hint) and len(options) == 1 else hint


def _kind(schema: Any) -> str:
    for meta in getattr(schema, "__metadata__", ()):
        if isinstance(meta, Meta) and meta.description:
            return meta.description
    if get_origin(schema) is Literal:
        return "one of " + ", ".join(f'"{word}"' for word in get_args(schema))
    return "a table" if is_dataclass(schema) else "a value of another kind"


class Document:
    """A TOML text that has been read, and what was found wrong in it.

    Attributes:
        name: how messages call it, usually a path.
        data: its tables.
        lines: where everything stands, see `lines_of`.
        problems: what is wrong, in the order in which it was looked at.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.data: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self.lines: dict[KeyPath, int] = {}
        try:
            self.data = tomllib.loads(text)
            self.lines = lines_of(text)
        except RecursionError:
            self.problem((), "it is nested too deeply")
        except ValueError as error:  # TOMLDecodeError is one, and so is an integer of too many digits
            said = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "a number is too long"
            self.problems.append(Problem(f"{name} is not valid TOML: {said}", "TOML is explained at toml.io"))

    def line(self, path: KeyPath) -> int | None:
        """The line in which something stands, or the nearest thing around it; None if nothing is known."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def problem(self, path: KeyPath, message: str, hint: str = "", more: str = "") -> None:
        """Note that something at this path is wrong; `more` stands behind the place."""
        line = self.line(path)
        place = self.name if line is None else f"line {line} of {self.name}"
        self.problems.append(Problem(f"{message}, {place}{f'; {more}' if more else ''}", hint))

    def table(self, path: KeyPath) -> Mapping[str, Any]:
        """The table at a path; an empty one if there is none, or if something else stands there."""
        value: Any = self.data
        for name in path:
            value = value.get(name, {}) if isinstance(value, dict) else None
        if isinstance(value, dict):
            return value
        self.problem(path, f"{_dotted(path)} is not a table", f"write [{_dotted(path)}]")
        return {}

    def fields(
        self, table: type, path: KeyPath, hints: Mapping[str, str] = {}, also: Iterable[str] = ()
    ) -> dict[str, Any]:
        """The fields of a dataclass from the table at a path; what is wrong is noted and left out.

        Args:
            hints: what to do about keys that people write although they are none.
            also: keys that are read by somebody else.
        """
        known = keys_of(table)
        found = {}
        for name, value in self.table(path).items():
            if name in also:
                continue
            if name not in known:
                self._unknown(name, path, [*known, *also], hints)
            elif (converted := self._converted(known[name], value, (*path, name))) is not None:
                found[name] = converted
        return found

    def _unknown(self, name: str, path: KeyPath, known: list[str], hints: Mapping[str, str]) -> None:
        near = get_close_matches(name, known, n=1)
        more = f"did you mean '{near[0]}'?" if near and name not in hints else ""
        self.problem(
            (*path, name),
            f"unknown key '{name}'{_inside(path)}",
            hints.get(name, f"known here: {', '.join(known)}"),
            more,
        )

    def _converted(self, key: Key, value: Any, path: KeyPath) -> Any:
        if is_dataclass(key.schema):
            return self._nested(key, path)
        if isinstance(value, str) and _is_list(key.schema):
            value = [value]  # one is a list of one
        try:
            return convert(value, key.schema)
        except ValidationError:
            self.problem(path, f"{key.name}{_inside(path[:-1])} is not {key.kind}", _zero(key, value))
            return None

    def _nested(self, key: Key, path: KeyPath) -> Any:
        before = len(self.problems)
        found = self.fields(key.schema, path)
        if len(self.problems) > before:
            return None
        try:
            return key.schema(**found)
        except TypeError:
            needed = ", ".join(
                f.name for f in fields(key.schema) if f.default is MISSING and f.name not in found
            )
            self.problem(path, f"{key.name}{_inside(path[:-1])} is not complete", f"add {needed}")
        except ValueError as error:
            self.problem(path, str(error), getattr(error, "hint", ""))
        return None


def _is_list(schema: Any) -> bool:
    bare = get_args(schema)[0] if hasattr(schema, "__metadata__") else schema
    return get_origin(bare) in (tuple, frozenset)


def _zero(key: Key, value: object) -> str:
    """People write 0 for "no limit"; there is no such thing."""
    zero = value == 0 and not isinstance(value, bool) and "above 0" in key.kind
    return "there is no 'none': leave it out for the default" if zero else ""


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


def _inside(path: KeyPath) -> str:
    return f" in [{_dotted(path)}]" if path else ""


# Where things stand.

_TOKEN = re.compile(
    r'''(?P<text>"""(?:[^\\]|\\.)*?""""{0,2}|\'\'\'.*?\'\'\'\'{0,2}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')'''
    r"|(?P<skip>[ \t\r]+|\#[^\n]*)|(?P<end>\n)|(?P<mark>[\[\]{}=,.])|(?P<bare>[^\s\[\]{}=,.\"'\#]+)",
    re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "skip":
            yield _Token(match.lastgroup or "", match[0], line)
        line += match[0].count("\n")


def lines_of(text: str) -> dict[KeyPath, int]:
    """The line of every key, table and array element of a valid TOML text, numbered from 1.

    A path has the names of keys and the indices of array elements. A table has the line of its header, or of
    the first key that makes it.
    """
    return _Scanner(text).lines


class _Scanner:
    """One walk over the tokens of a valid text. What is a key and what a value is all it tells apart."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._counts: dict[KeyPath, int] = {}  # of arrays of tables: how many there are so far
        self._rest = list(_tokens(text))
        self._at = 0
        inside: KeyPath = ()
        while self._more():
            if self._peek().kind == "end":
                self._at += 1
            elif self._skip("["):
                inside = self._header()
            else:
                self._pair(inside)

    def _more(self) -> bool:
        return self._at < len(self._rest)

    def _peek(self) -> _Token:
        return self._rest[self._at] if self._more() else _Token("end", "", 0)

    def _skip(self, mark: str) -> bool:
        here = self._peek()
        found = here.kind == "mark" and here.text == mark
        self._at += found
        return found

    def _header(self) -> KeyPath:
        array = self._skip("[")
        line = self._peek().line
        path: KeyPath = ()
        names = self._key()
        for name in names[:-1]:
            path = self._latest((*path, name))
            self.lines.setdefault(path, line)
        path = (*path, names[-1])
        if array:
            self._counts[path] = self._counts.get(path, 0) + 1
            self.lines.setdefault(path, line)
            path = self._latest(path)
        self.lines.setdefault(path, line)
        while self._peek().kind != "end":
            self._at += 1
        return path

    def _latest(self, path: KeyPath) -> KeyPath:
        """A header that goes through an array of tables means the last of them."""
        return (*path, self._counts[path] - 1) if path in self._counts else path

    def _key(self) -> tuple[str, ...]:
        names = [self._name()]
        while self._skip("."):
            names.append(self._name())
        return tuple(names)

    def _name(self) -> str:
        token = self._peek()
        self._at += 1
        if token.kind == "bare":
            return token.text
        (name,) = tomllib.loads(f"{token.text} = 0")  # quoted, with its escapes
        return name

    def _pair(self, inside: KeyPath) -> None:
        line = self._peek().line
        path = inside
        for name in self._key():
            path = (*path, name)
            self.lines.setdefault(path, line)
        self._skip("=")
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        if self._skip("["):
            self._elements(path)
        elif self._skip("{"):
            self._pairs(path)
        else:
            self._scalar()

    def _pairs(self, path: KeyPath) -> None:
        while self._more() and not self._skip("}"):
            if self._peek().kind == "end":
                self._at += 1
            elif not self._skip(","):
                self._pair(path)

    def _elements(self, path: KeyPath) -> None:
        index = 0
        while self._more() and not self._skip("]"):
            if self._peek().kind == "end":
                self._at += 1
            elif self._skip(","):
                index += 1
            else:
                self.lines[(*path, index)] = self._peek().line
                self._value((*path, index))

    def _scalar(self) -> None:
        """A number or date may be several tokens; it ends where no value goes on."""
        while self._peek().kind != "end" and self._peek().text not in (",", "]", "}"):
            self._at += 1
