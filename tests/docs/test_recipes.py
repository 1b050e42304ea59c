"""The page of recipes shows the programs that `recipes/check.py` runs. Running them needs the frameworks."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.py") if path.name != "check.py")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_page_shows_recipe(recipe: Path) -> None:
    """A recipe stands in docs/recipes.md as it is in its file."""
    assert f"```py\n{recipe.read_text(encoding='utf-8')}```\n" in PAGE


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_short(recipe: Path) -> None:
    """A recipe has at most 25 lines that are not blank, and says in its first what it shows."""
    code = recipe.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(code))
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 25


def test_page_shows_nothing_else() -> None:
    """Every program on the page is a recipe."""
    assert len(re.findall(r"^```", PAGE, re.MULTILINE)) == 2 * len(RECIPES) == 22
