"""The reference in docs/configuration.md, made of the schema: after changing that, run this file.

Only what stands between the markers is made; the words around it are written by hand.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from sidestream.recovery.clocks import Timeouts
from sidestream.recovery.policy import Policy
from sidestream.routes.config import Config, DefaultsConfig, RouteConfig, TaskConfig
from sidestream.routes.toml_tables import keys_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
BEGIN, END = "<!-- reference -->\n", "<!-- /reference -->\n"
TABLES: tuple[tuple[str, type], ...] = (
    ("Above all tables", Config),
    ("[defaults]", DefaultsConfig),
    ("[routes.NAME]", RouteConfig),
    ("[tasks.NAME]", TaskConfig),
)


def made() -> str:
    """What belongs between the markers."""
    return "\n".join(f"### {title}\n\n{reference(table)}" for title, table in TABLES)


def page() -> str:
    """The whole page as it should be."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}{made()}{END}{rest.split(END)[1]}"


def reference(table: type) -> str:
    """One line for each key that may stand in it."""
    means, standard = meanings(table), defaults() if table is DefaultsConfig else {}
    rows = [line("key", "value", "meaning"), line("---", "---", "---")]
    for key in keys_of(table).values():
        held = f" [{standard[key.name]}]" if key.name in standard else ""
        rows.append(line(f"`{key.name}`", key.kind, means[key.name] + held))
    return "\n".join(rows) + "\n"


def meanings(table: type) -> dict[str, str]:
    """What each attribute is for, from the docstring."""
    text = inspect.cleandoc(table.__doc__ or "").split("Attributes:\n")[1]
    found = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", text, re.MULTILINE)
    return {name: " ".join(said.split()).removesuffix(".") for name, said in found}


def defaults() -> dict[str, Any]:
    """What holds where nobody says anything."""
    clocks, policy = Timeouts(), Policy()
    numbers = {
        "timeout": clocks.total,
        "idle": clocks.idle,
        "connect": clocks.connect,
        "tries": policy.tries,
        "recoveries": policy.recoveries,
    }
    return {name: f"{value:g}" for name, value in numbers.items()} | {"first": "90, more for long prompts"}


def line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
