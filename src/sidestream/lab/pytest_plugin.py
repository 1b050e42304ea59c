"""The pytest fixture `lab`: call it with what `Lab` takes, get a running lab, forget about stopping it.

Installed as a plugin, so this file is imported by every pytest run: nothing of the lab loads before a
test asks for the fixture.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .server import Lab

__all__ = ["lab"]


@pytest.fixture
def lab() -> Iterator[Callable[..., Lab]]:
    """A factory of running labs: `lab(answers, plan=...)`. All are stopped when the test ends."""
    from .server import Lab

    with contextlib.ExitStack() as running:

        def start(*args: object, **options: object) -> Lab:
            return running.enter_context(Lab(*args, **options))  # type: ignore[arg-type]

        yield start
