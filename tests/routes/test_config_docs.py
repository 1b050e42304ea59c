"""docs/configuration.md says what the code does."""

from __future__ import annotations

import re

import pytest
from make_configuration import PAGE, TABLES, meanings, page

from sidestream import ConfigError
from sidestream.routes.config import parse
from sidestream.routes.config_rules import _KEYS_OF_THE_USER, _WHERE_IT_LEADS
from sidestream.routes.toml_tables import keys_of

TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_reference_is_made_of_the_schema() -> None:
    """Every key with its kind, meaning and default; `python tests/routes/make_configuration.py` writes it."""
    assert page() == TEXT


@pytest.mark.parametrize("table", [table for _, table in TABLES], ids=lambda table: table.__name__)
def test_every_key_has_a_meaning(table: type) -> None:
    """The docstring explains exactly the keys there are, and what is no key besides."""
    assert set(keys_of(table)) <= set(meanings(table))
    assert set(meanings(table)) <= {*keys_of(table), "files", "origins", "defaults", "routes", "tasks"}


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_make_sense(text: str) -> None:
    """Each example can be copied as it stands."""
    assert parse(text, "example.toml").routes


def test_the_readmes_example_makes_sense() -> None:
    """It, too, can be copied as it stands."""
    found = re.findall(
        r"^```toml\n(.*?)^```$", (PAGE.parent.parent / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert [parse(each, "README").main for each in found] == ["openai:gpt-5-mini"]


def test_there_are_examples() -> None:
    """An empty list would pass the test above."""
    assert len(EXAMPLES) >= 2


def test_the_messages_are_real() -> None:
    """The errors that the page shows are those of the code."""
    wrong = "[defaults]\n\n\ntimeout = 0\n" + "\n" * 6 + "[tasks.title]\nmodle = 'x'\n"
    name = "/home/me/.config/sidestream/config.toml"
    with pytest.raises(ConfigError) as caught:
        parse(wrong, name)
    assert f"error: {str(caught.value).partition(' (and')[0]}\nhint: {caught.value.hint}\n" in TEXT
    with pytest.raises(ConfigError) as caught:
        parse(wrong.replace("timeout = 0", ""), name)
    assert f"error: {caught.value}\n" in TEXT


def test_what_a_project_may_not_say_is_listed() -> None:
    """The page names every key that is refused there."""
    section = TEXT.split("## What a project may not say")[1].split("## Reference")[0]
    for name in (*_KEYS_OF_THE_USER, *_WHERE_IT_LEADS, "only", "discover", "max_cost", "params"):
        assert re.search(rf"`{name}\b", section), name
