"""The Codex CLI: one `codex exec` for each question, with a configuration and a home of its own.

Whole if it exits with 0, which is what it tells those who run it. Its own retries are its defaults (four of a
request, five of a stream); the idle limit of a stream is the benchmark's.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from _child import KEY, MODEL, Variant, serve

CONFIG = """\
model = "{model}"
model_provider = "lab"
check_for_update_on_startup = false

[model_providers.lab]
name = "lab"
base_url = "{url}"
env_key = "LAB_KEY"
wire_api = "responses"
stream_idle_timeout_ms = {idle}
"""


class Failed(Exception):
    """It ended with another exit code than 0."""


class Exec(Variant):
    """`codex exec`; the program is the one that BENCH_CODEX names."""

    def __init__(self, urls: list[str]) -> None:
        self._codex = os.environ["BENCH_CODEX"]
        self._config = CONFIG.format(model=MODEL, url=urls[0], idle=round(1000 * self.seconds))
        self._last = ""

    def ask(self, prompt: str) -> tuple[str, bool]:
        with tempfile.TemporaryDirectory(prefix="bench-codex-") as folder:
            home, work, last = Path(folder, "home"), Path(folder, "work"), Path(folder, "last")
            home.mkdir()
            work.mkdir()
            (home / "config.toml").write_text(self._config)
            command = [
                self._codex, "exec", "--json", "--ephemeral", "--skip-git-repo-check",
                "--sandbox", "read-only", "--cd", str(work), "--output-last-message", str(last), prompt,
            ]  # fmt: skip
            environment = {**os.environ, "CODEX_HOME": str(home), "LAB_KEY": KEY}
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            self._last = last.read_text() if last.exists() else ""
        if done.returncode:
            raise Failed(f"exit code {done.returncode}: {done.stdout.strip().splitlines()[-1:]}")
        return self._last, True

    def kept(self, error: BaseException) -> str:  # noqa: ARG002
        return self._last

    def read(self, seen: Callable[[], None]) -> None:
        self.ask("hi")
        seen()


if __name__ == "__main__":
    serve({"exec": Exec})
