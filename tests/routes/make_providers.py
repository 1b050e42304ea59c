"""The tables of docs/providers.md, made of the provider files: after changing one, run this file.

Only what stands between the markers is made; the words around it are written by hand.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import get_args

from sidestream.route import Wire
from sidestream.routes.providers import Provider, providers
from sidestream.routes.table import ModelFacts, Row, Rule

PAGE = Path(__file__).resolve().parents[2] / "docs" / "providers.md"
BEGIN, END = "<!-- providers -->\n", "<!-- /providers -->\n"

NAMES = ("id", "provider", "also called", "endpoint", "key from", "speaks", "for side tasks")
HOSTED = ("provider", "models", "continuation", "wires", "while reasoning", "remarks")
LEFT_OUT = ("provider", "models", "wires", "never sent", "sent as", "sent besides")
MODELS = ("provider", "models", "window", "reads images")
ENDPOINTS = ("provider", "hosts", "closing the connection", "cursor", "checked", "sources")
PREFILLED = frozenset({"trailing", "prefix", "prefix_echoed", "partial", "continue_final_message"})


def made() -> str:
    """What belongs between the markers."""
    known = sorted(providers(), key=lambda each: each.name.lower())
    hosted = [as_row(each, row) for each in known if each.hosts for row in each.rows]
    anywhere = [as_row(each, row) for each in known if not each.hosts for row in each.rows]
    parts = (
        ("Names, endpoints and keys", NAMES, [as_name(each) for each in known]),
        ("Continued, recognised by the host", HOSTED, hosted),
        ("Continued, if you say whose software it is", HOSTED, anywhere),
        ("What is left out, and what is added", LEFT_OUT, [row for each in known for row in left_out(each)]),
        ("Windows", MODELS, [row for each in known for row in windows(each)]),
        ("Hosts, cost and sources", ENDPOINTS, [as_endpoint(each) for each in known]),
    )
    return "\n".join(
        "\n".join([f"## {title}", "", line(*head), line(*["---"] * len(head)), *rows]) + "\n"
        for title, head, rows in parts
    )


def page() -> str:
    """The whole page as it should be."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}{made()}{END}{rest.split(END)[1]}"


def as_name(each: Provider) -> str:
    """One line for a provider: how it is called, where it is, and what it speaks."""
    speaks = ", ".join([each.wire, *(as_rule(rule) for rule in each.rules)])
    keys = code(each.key_env) or (f"sign-in `{each.sign_in}`" if each.sign_in else "")
    sent = {"wire": "", "bearer": " as Bearer"}.get(each.auth, f" as `{each.auth}`") if keys else ""
    url = f"`{each.base_url}`" if each.base_url else "yours"
    model = f"`{each.default_model}`" if each.default_model else ""
    moved = f", or {code(each.base_url_env)}" if each.base_url_env else ""
    return line(f"`{each.id}`", each.name, code(each.aliases), url + moved, keys + sent, speaks, model)


def as_rule(rule: Rule) -> str:
    path = "the bare host" if rule.path == "/" else f"…`{rule.path}`"
    places = [code(rule.models), path if rule.path else "", code(rule.hosts)]
    becomes = f" (as …`{rule.becomes}`)" if rule.becomes else ""
    return f"{rule.wire} for {' at '.join(filter(None, places))}{becomes}"


def as_row(each: Provider, row: Row) -> str:
    """One line for one row."""
    models = patterns(row)
    if row.path:
        models += f" under `{row.path}`"
    prefilled = row.continuation in PREFILLED
    reasoning = "by anchor" if prefilled and not row.prefill_thinking else "the same"
    return line(each.name, models, f"`{row.continuation}`", wires(row), reasoning, row.note or each.note)


def left_out(each: Provider) -> list[str]:
    """Lines for what a provider refuses, renames and needs."""
    added = ", ".join(f"`{name}`: {value}" for name, value in (each.headers | each.requires).items())
    rows = []
    if each.rejects or added:
        rows.append(line(each.name, "all", "all", code(tuple(sorted(each.rejects))), "", added))
    for entry in each.models:
        if entry.rejects or entry.renames:
            renamed = ", ".join(f"`{old}` as `{new}`" for old, new in entry.renames.items())
            rejected = code(tuple(sorted(entry.rejects)))
            rows.append(line(each.name, patterns(entry), wires(entry), rejected, renamed, ""))
    return rows


def windows(each: Provider) -> list[str]:
    """Lines for what is known of a provider's models."""
    words = {True: "yes", False: "no", None: "unknown"}
    return [
        line(
            each.name,
            patterns(entry),
            f"{entry.window:,}" if entry.window else "unknown",
            words[entry.vision],
        )
        for entry in each.models
        if entry.window or entry.vision is not None
    ]


def as_endpoint(each: Provider) -> str:
    """One line for where a provider is, and who says all this."""
    hosts = code(each.hosts) + (f" port {each.port}" if each.port else "")
    billing = {"stops": "stops the cost", "continues": "stops nothing", "unknown": "unknown"}
    closing = billing[each.billing] + (f" ({link(each.billing_source)})" if each.billing_source else "")
    cursors = code(tuple(dict.fromkeys(row.cursor for row in each.rows if row.cursor))) or "none"
    said = [each.source, *(row.source for row in each.rows), *(entry.source for entry in each.models)]
    if any(entry.window or entry.vision is not None for entry in each.models):
        said.append(each.models_source)
    sources = ", ".join(link(source) for source in dict.fromkeys(filter(None, said)))
    return line(each.name, hosts or "any", closing, cursors, str(each.checked), sources)


def patterns(entry: Row | ModelFacts) -> str:
    return entry.family or ("all" if entry.models == ("*",) else code(entry.models))


def wires(entry: Row | ModelFacts) -> str:
    return "all" if set(entry.wires) == set(get_args(Wire)) else ", ".join(entry.wires)


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
    with tempfile.TemporaryDirectory() as empty:
        os.environ["XDG_CONFIG_HOME"] = empty  # nobody's own providers belong on the page
        PAGE.write_text(page(), encoding="utf-8")
