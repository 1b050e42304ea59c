"""The tables of docs/providers.md, made of the provider table: after changing it, run this file.

Only what stands between the markers is made; the words around it are written by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from sidestream.route import Wire
from sidestream.routes.providers import Row, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "providers.md"
BEGIN, END = "<!-- providers -->\n", "<!-- /providers -->\n"

HOSTED = ("provider", "models", "continuation", "wires", "while reasoning", "remarks")
ENDPOINTS = ("provider", "hosts", "closing the connection", "cursor", "checked", "sources")
PREFILLED = frozenset({"trailing", "prefix", "prefix_echoed", "partial", "continue_final_message"})


def made() -> str:
    """What belongs between the markers."""
    hosted = [as_row(row) for row in table() if row.hosts]
    anywhere = [as_row(row) for row in table() if not row.hosts]
    endpoints = [as_endpoint(rows) for rows in by_provider()]
    parts = (
        ("Recognised by their host", HOSTED, hosted),
        ("Say it yourself", HOSTED, anywhere),
        ("Hosts, cost and sources", ENDPOINTS, endpoints),
    )
    return "\n".join(
        "\n".join([f"## {title}", "", line(*head), line(*["---"] * len(head)), *rows]) + "\n"
        for title, head, rows in parts
    )


def page() -> str:
    """The whole page as it should be."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}{made()}{END}{rest.split(END)[1]}"


def as_row(row: Row) -> str:
    """One line for one row."""
    models = row.family or ("all" if row.models == ("*",) else code(row.models))
    if row.path:
        models += f" under `{row.path}`"
    wires = "all" if set(row.wires) == set(get_args(Wire)) else ", ".join(row.wires)
    prefilled = row.facts.continuation in PREFILLED
    reasoning = "by anchor" if prefilled and not row.facts.prefill_thinking else "the same"
    return line(row.facts.provider, models, f"`{row.facts.continuation}`", wires, reasoning, row.facts.note)


def as_endpoint(rows: list[Row]) -> str:
    """One line for all rows of a provider."""
    first = rows[0]
    hosts = code(first.hosts) + (f" port {first.port}" if first.port else "")
    billing = {"stops": "stops the cost", "continues": "stops nothing", "unknown": "unknown"}
    said = first.facts.billing_source
    closing = billing[first.facts.billing] + (f" ({link(said)})" if said else "")
    cursors = code(tuple(dict.fromkeys(row.facts.cursor for row in rows if row.facts.cursor))) or "none"
    sources = ", ".join(link(source) for source in dict.fromkeys(row.facts.source for row in rows))
    return line(first.facts.provider, hosts or "any", closing, cursors, str(first.facts.checked), sources)


def by_provider() -> list[list[Row]]:
    """The rows of each provider, in order."""
    names = dict.fromkeys(row.facts.provider for row in table())
    return [[row for row in table() if row.facts.provider == name] for name in names]


def code(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def link(source: str) -> str:
    """A source as a link named by its host, or repository, or as the words it is."""
    if not source.startswith("https://"):
        return source
    _, _, host, *path = source.split("/")
    return f"[{'/'.join(path[:2]) if host == 'github.com' else host}]({source})"


def line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
