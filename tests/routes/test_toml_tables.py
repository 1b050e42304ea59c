"""Where things stand in a TOML text, and what is wrong with its tables."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from sidestream.routes.toml_tables import Document, keys_of, lines_of

TEXT = '''\
a.b."c d" = """
one
two"""          # a comment with [brackets] and "quotes"
list = [
  1, "x # y",
  { k = [true], 'l' = 2 }, # three
]
\t[ t . 'u.v' ]
when = 1979-05-27 07:32:00
x = \'\'\'
' = [''\'\'\'
[[rows]]
n = 1
[rows.more]
deep.er = {}
[[rows]]

n = """a\\"""" # ends in a quote
last = 1'''


def test_every_key_is_found_in_its_line() -> None:
    """Dotted keys, inline tables, arrays of tables and texts over several lines do not lead astray."""
    assert lines_of(TEXT) == {
        ("a",): 1, ("a", "b"): 1, ("a", "b", "c d"): 1,
        ("list",): 4, ("list", 0): 5, ("list", 1): 5, ("list", 2): 6,
        ("list", 2, "k"): 6, ("list", 2, "k", 0): 6, ("list", 2, "l"): 6,
        ("t",): 8, ("t", "u.v"): 8, ("t", "u.v", "when"): 9, ("t", "u.v", "x"): 10,
        ("rows",): 12, ("rows", 0): 12, ("rows", 0, "n"): 13, ("rows", 0, "more"): 14,
        ("rows", 0, "more", "deep"): 15, ("rows", 0, "more", "deep", "er"): 15,
        ("rows", 1): 16, ("rows", 1, "n"): 18, ("rows", 1, "last"): 19,
    }  # fmt: skip


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Every path of what tomllib read."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [paths_of(part, (*path, name)) | {(*path, name)} for name, part in inside]
    return set().union(*below)


def test_the_paths_are_those_of_tomllib() -> None:
    """What is found is what the parser reads: nothing more and nothing less."""
    assert set(lines_of(TEXT)) == paths_of(tomllib.loads(TEXT))


# Generated documents: pieces whose text and line breaks are known, put together at random.

SCALARS = st.sampled_from(
    [
        "1", "0x1F", "1.5e+3", "true", "inf", "1979-05-27", "07:32:00", "1979-05-27T00:00:00.5-07:00",
        '""', "''", '"]"', "'# \"'", '"a = 1 \\" , }"', '"""\n[x]\na = "1"\n\\"""."""', "'''\n# '' \n'''",
        '"""""x"""', "'''x'''''", '"""\\\n  y"""', "[]", "{}",
    ]
)  # fmt: skip
NAMES = st.sampled_from(["a", "b-1", "_", "3", "x.y", "", "é", 'q"', "n\nl", "true"])
BREAKS = st.sampled_from(["", " ", "\n", "\n # ] , }\n\t"])


def quoted(name: str) -> str:
    bare = name and name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return name if bare or name == "_" else f'"{escaped}"'


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.integers(0, 3 if depth else 1))
    if kind < 2:
        return draw(SCALARS)
    if kind == 2:
        parts = draw(st.lists(values(depth - 1), max_size=3))
        gap = draw(BREAKS)
        return "[" + gap + ",".join(f"{part}{gap}" for part in parts) + "]"
    names = draw(st.lists(NAMES, max_size=3, unique=True))
    return "{ " + ", ".join(f"{quoted(name)} = {draw(values(depth - 1))}" for name in names) + " }"


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[tuple[str, int], int]]:
    """A text, and the line of the key `at` that each statement begins with, by its place."""
    text, seen = "", {}
    for number in range(draw(st.integers(0, 6))):
        text += draw(st.sampled_from(["", "\n", "# [a]\n", "  \t\n"]))
        header = draw(st.sampled_from(["", "[t{0}]", "[[rows]]", "[ rows . t{0} ]", '["t{0}".x]']))
        if header == "[ rows . t{0} ]" and "[[rows]]" not in text:
            header = ""
        text += header.format(number) + ("\n" if header else "")
        seen["at", number] = text.count("\n") + 1
        dotted = draw(st.sampled_from(["", ".d", ' . "e.f" ']))
        text += f"at{number}{dotted}={draw(values())} #\n"
    return draw(st.sampled_from([text, text.rstrip("\n"), text.replace("\n", "\r\n")])), seen


@given(documents())
def test_generated_documents(document: tuple[str, dict[tuple[str, int], int]]) -> None:
    """Whatever tomllib reads, the same paths are found, and each statement in its line."""
    text, seen = document
    data = tomllib.loads(text)
    lines = lines_of(text)
    assert set(lines) == paths_of(data)
    for (_, number), line in seen.items():
        (path,) = [path for path in lines if path[-1] == f"at{number}"]
        assert lines[path] == line


@given(st.text(alphabet="[]{}=,.#\"'\n\\ab1 -", max_size=40))
def test_no_text_hangs_it(text: str) -> None:
    """Every text comes to an end: it is valid and all of it is found, or it is a problem with a line."""
    document = Document(text, "f.toml")
    assert document.problems or set(document.lines) == paths_of(document.data)


# Tables.


@dataclass(frozen=True)
class Inner:
    needed: float
    spare: float | None = None

    def __post_init__(self) -> None:
        if self.needed < 0:
            raise ValueError("needed is below 0")


@dataclass(frozen=True)
class Table:
    number: Annotated[float, Meta(gt=0, description="a number above 0")] | None = None
    words: Annotated[tuple[str, ...], Meta(description="a list of texts")] | None = None
    choice: Literal["red", "blue"] | None = None
    inner: Inner | None = None


def problems(text: str) -> list[tuple[str, str]]:
    document = Document(text, "f.toml")
    document.fields(Table, ("t",), {"colour": "it is called choice"}, also=("elsewhere",))
    return [tuple(problem) for problem in document.problems]  # type: ignore[misc]


def test_good_values_are_converted() -> None:
    """Whole numbers are numbers, and one text is a list of one."""
    document = Document('[t]\nnumber = 2\nwords = "one"\ninner.needed = 1\nelsewhere = 1', "f.toml")
    assert document.fields(Table, ("t",), also=("elsewhere",)) == {
        "number": 2.0,
        "words": ("one",),
        "inner": Inner(1),
    }
    assert not document.problems


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            "[t]\nnumbr = 1",
            "unknown key 'numbr' in [t], line 2 of f.toml; did you mean 'number'?",
            "known here",
        ),
        ("[t]\ncolour = 1", "unknown key 'colour' in [t], line 2 of f.toml", "it is called choice"),
        (
            "[t]\n\nnumber = 0",
            "number in [t] is not a number above 0, line 3 of f.toml",
            "there is no 'none'",
        ),
        ("[t]\nnumber = '1'", "number in [t] is not a number above 0, line 2 of f.toml", ""),
        ("t.number = true", "number in [t] is not a number above 0, line 1 of f.toml", ""),
        ("[t]\nnumber = nan", "number in [t] is not a number above 0, line 2 of f.toml", ""),
        ("[t]\nwords = [\n'a',\n1]", "words in [t] is not a list of texts, line 2 of f.toml", ""),
        ("[t]\nchoice='green'", 'choice in [t] is not one of "red", "blue", line 2 of f.toml', ""),
        ("[t]\n[t.inner]\nspare=1", "inner in [t] is not complete, line 2 of f.toml", "add needed"),
        ("[t]\ninner.needed=-1", "needed is below 0, line 2 of f.toml", ""),
        ("[t]\ninner=3", "t.inner is not a table, line 2 of f.toml", "write [t.inner]"),
        ("[t]\ninner={neded=1}", "unknown key 'neded' in [t.inner], line 2 of f.toml; did you mean", "known"),
        ("t = 1", "t is not a table, line 1 of f.toml", "write [t]"),
        ("[[t]]\nnumber=1", "t is not a table, line 1 of f.toml", "write [t]"),
        ("[t]\nnumber=", "f.toml is not valid TOML: Invalid value (at end of document)", "toml.io"),
        ("n = " + "9" * 5000, "f.toml is not valid TOML: a number is too long", ""),
        ("n = " + "[" * 100_000, "it is nested too deeply, f.toml", ""),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, message: str, hint: str) -> None:
    """A problem names the key, the table, the line and the file, and what to do."""
    ((said, advised),) = problems(text)
    assert said.startswith(message)
    assert hint in advised


def test_everything_that_is_wrong_is_said() -> None:
    """Not only the first problem of a table, and the good keys are still read."""
    document = Document("[t]\nnumber='x'\nchoice='red'\nwrods=1\nwords=1", "f.toml")
    assert document.fields(Table, ("t",)) == {"choice": "red"}
    assert [document.line(("t", key)) for key in ("number", "wrods", "words")] == [2, 4, 5]
    assert len(document.problems) == 3


def test_no_message_shows_a_value() -> None:
    """Somebody may have pasted a key: what stands behind the equals sign is not repeated."""
    canary = "sk-canary-0123456789"
    for key in ("number", "words", "choice", "inner", "colour", "inner.needed"):
        said = problems(f"[t]\n{key} = {{ x = '{canary}' }}") + problems(f"[t]\n{key} = '{canary}'")
        assert said or key == "words"
        assert canary not in repr(said)


def test_keys_are_described_by_the_class() -> None:
    """Names, order and kinds come from the dataclass."""
    assert {name: key.kind for name, key in keys_of(Table).items()} == {
        "number": "a number above 0",
        "words": "a list of texts",
        "choice": 'one of "red", "blue"',
        "inner": "a table",
    }
