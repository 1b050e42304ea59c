"""SDK clients that a test leaves open are closed behind it.

They are in cycles, so that their sockets may go before they do, and the warning of that would hit whichever
test the garbage collector happens to run in.
"""

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest


@pytest.fixture(autouse=True)
def closed_clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every blocking SDK client that is made during a test is closed after it."""
    made: list[Any] = []
    for sdk in (openai, anthropic):
        base: Any = sdk._base_client.SyncAPIClient

        def made_too(self: Any, *args: Any, _made: Any = base.__init__, **settings: Any) -> None:
            _made(self, *args, **settings)
            made.append(self)

        monkeypatch.setattr(base, "__init__", made_too)
    yield
    for client in made:
        client.close()
