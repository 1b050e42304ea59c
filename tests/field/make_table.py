"""docs/field-cases.md, made of the case files, and docs/ancestor.md, made of ancestor.toml: after changing
one, `python tests/field/make_table.py`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
from fieldcase import Case, Strict, load

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE, ANCESTOR = DOCS / "field-cases.md", DOCS / "ancestor.md"
CLASSES = Path(__file__).parent / "ancestor.toml"

HEAD = """\
<!-- Made by tests/field/make_table.py out of tests/field/cases. Do not edit. -->

# Field cases

What real servers, proxies and hosts did to the LLM client of one agent in the field (*the ancestor*), taken
from its public issues, and what sidestream makes of the same bytes. Every row is a test on real sockets: the
lab plays the server, and the call is made with `Client` and `AsyncClient`, once waiting for the reply and
once reading along. Times are scaled down. How a case is written: [tests/field](../tests/field/README.md).

Run one with `python -m pytest tests/field -k 09-clean-end`; after changing a case, make this page again with
`python tests/field/make_table.py`. Gaps in the numbers are gaps in the list they come from. What the
ancestor's own tests prove, and where it is proved here: [its classes of tests](ancestor.md).
"""

ANCESTOR_HEAD = """\
<!-- Made by tests/field/make_table.py out of tests/field/ancestor.toml. Do not edit. -->

# The ancestor's tests, and ours

What the named tests of the ancestor's auxiliary client prove, class by class, and the tests here that prove
it, or why there is none. Its tests patch private names and return fake objects; ours play the server on a
real socket wherever bytes, sockets or time are the point. That every test named here exists is itself a test.
"""

CLASS_ROW = "| The ancestor's tests | prove | Here |\n| --- | --- | --- |"

SECTIONS = (
    (1, "Streams that break or end strangely"),
    (27, "Time"),
    (42, "In the process"),
    (54, "HTTP answers"),
)

ROW = "| Case | What the server does | The ancestor | sidestream | Test |\n| --- | --- | --- | --- | --- |"


def page() -> str:
    """The whole page."""
    cases = load()
    starts = [start for start, _ in SECTIONS] + [1000]
    parts = [HEAD]
    for (start, title), end in zip(SECTIONS, starts[1:], strict=True):
        rows = [row(name, case) for name, case in cases.items() if start <= case.number < end]
        parts.append("\n".join([f"## {title}", "", ROW, *rows]) + "\n")
    notes = [f"- {case.number}, {case.title}: {case.note}" for case in cases.values() if case.note]
    parts.append("\n".join(["## Remarks", "", *notes]) + "\n")
    return "\n".join(parts)


def row(name: str, case: Case) -> str:
    """One line of the table."""
    links = ", ".join(map(link, case.sources))
    title = f"**{case.number}** {case.title}" + (f" ({links})" if links else "")
    tests = ", ".join(f"`{test}`" for test in (case.test or name, *case.also))
    return cells(title, case.server, case.ancestor, case.sidestream, tests)


def cells(*texts: str) -> str:
    """A line of a table."""
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


class Class(Strict):
    """A group of the ancestor's test classes: what it proves, and which tests and field cases do so here.
    Without any, `none` says why."""

    names: tuple[str, ...]
    proves: str
    tests: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    none: str = ""
    note: str = ""


class Classes(Strict):
    """ancestor.toml."""

    group: tuple[Class, ...]


def classes() -> tuple[Class, ...]:
    """The ancestor's classes of tests."""
    return msgspec.convert(tomllib.loads(CLASSES.read_text(encoding="utf-8")), Classes).group


def ancestor_page() -> str:
    """The page of the ancestor's classes."""
    return "\n".join([ANCESTOR_HEAD, CLASS_ROW, *map(class_row, classes())]) + "\n"


def class_row(group: Class) -> str:
    """One line of its table."""
    here = [*(f"`{test}`" for test in group.tests), *(f"case `{name}`" for name in group.cases)]
    told = [f"none: {group.none}" if group.none else "", group.note]
    return cells(", ".join(group.names), group.proves, "<br>".join([*here, *filter(None, told)]))


def link(source: str) -> str:
    """A link to an issue or pull request, written owner/repository#number."""
    repository, _, number = source.partition("#")
    shown = f"#{number}" if repository == "NousResearch/hermes-agent" else source
    return f"[{shown}](https://github.com/{repository}/issues/{number})"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    ANCESTOR.write_text(ancestor_page(), encoding="utf-8")
