"""docs/field-cases.md, made of the case files: after changing one, `python tests/field/make_table.py`."""

from __future__ import annotations

from pathlib import Path

from fieldcase import Case, load

PAGE = Path(__file__).resolve().parents[2] / "docs" / "field-cases.md"

HEAD = """\
<!-- Made by tests/field/make_table.py out of tests/field/cases. Do not edit. -->

# Field cases

What real servers, proxies and hosts did to the LLM client of one agent in the field (*the ancestor*), taken
from its public issues, and what sidestream makes of the same bytes. Every row is a test on real sockets: the
lab plays the server, and the call is made with `Client` and `AsyncClient`, once waiting for the reply and
once reading along. Times are scaled down. How a case is written: [tests/field](../tests/field/README.md).

Run one with `python -m pytest tests/field -k 09-clean-end`; after changing a case, make this page again with
`python tests/field/make_table.py`. Gaps in the numbers are gaps in the list they come from.
"""

SECTIONS = (
    (1, "Streams that break or end strangely"),
    (27, "Time"),
    (42, "In the process"),
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
    cells = (title, case.server, case.ancestor, case.sidestream, f"`{case.test or name}`")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def link(source: str) -> str:
    """A link to an issue or pull request, written owner/repository#number."""
    repository, _, number = source.partition("#")
    shown = f"#{number}" if repository == "NousResearch/hermes-agent" else source
    return f"[{shown}](https://github.com/{repository}/issues/{number})"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
