"""docs/hosts.md shows the plugin that `bench/hermes.py` measures, and names what the call takes."""

from __future__ import annotations

from pathlib import Path

from sidestream.host import Arguments

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")


def test_the_page_shows_the_plugin() -> None:
    """The plugin stands in the page as it is in its file."""
    plugin = (ROOT / "recipes" / "hermes" / "sidestream" / "__init__.py").read_text(encoding="utf-8")
    assert f"<!-- plugin -->\n```py\n{plugin}```\n<!-- /plugin -->" in PAGE


def test_the_page_maps_every_argument() -> None:
    """Each argument of the call is in the page's table."""
    table = PAGE.partition("## Their argument, ours")[2].partition("\n## ")[0]
    unnamed = {name for name in Arguments.__annotations__ if f"`{name}`" not in table}
    assert unnamed == {"stream_options"}, "it means nothing where `stream` is refused"
