"""What the tests of routes share: nobody's own provider files."""

from pathlib import Path

import pytest

from sidestream.routes.table import user_folder


@pytest.fixture(autouse=True)
def nobodys_providers(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder where a user's own provider files would lie; it is not there yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    return Path(user_folder())
