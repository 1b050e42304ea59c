"""Who is measured, in which environment and how configured; and the handle on a peer's process."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / "recipes"))
from check import interpreter  # noqa: E402  the recipes' way to name an environment's interpreter

Wire = Literal["responses", "chat", "messages"]
START_SECONDS = 90.0  # to import a library on a cold machine


@dataclass(frozen=True)
class Peer:
    """One way to use one library.

    Attributes:
        name: as it stands in tables; unique.
        child, variant: which file of `children`, and what it is told to be.
        wire: what it speaks to the model.
        settings: its best documented configuration, in its own words. Printed with the tables.
        environment: the lock file in `requirements` it is installed from; "" is `.venv` itself.
        packages: whose versions are printed.
        is_async: whether many streams share a loop.
        fallbacks: how many routes besides the first it is given.
        ours: sidestream is in it.
    """

    name: str
    child: str
    variant: str
    wire: Wire
    settings: str
    environment: str = ""
    packages: tuple[str, ...] = ()
    is_async: bool = False
    fallbacks: int = 0
    ours: bool = False

    @property
    def python(self) -> Path:
        return interpreter(self.environment) if self.environment else Path(sys.executable)


PEERS = (
    Peer(
        "openai responses",
        "openai_sdk",
        "responses",
        "responses",
        "OpenAI(timeout=20), its 2 retries",
        packages=("openai", "httpx2"),
    ),
)


class Hang(Exception):
    """The peer did not answer in time. Its process is gone."""


class Died(Exception):
    """The peer's process ended by itself."""


class Child:
    """A peer's process, which does one thing after the other."""

    def __init__(self, peer: Peer, urls: list[str], *, log: Path | None = None) -> None:
        self.peer = peer
        self._log = Path(log or os.devnull).open("ab")  # noqa: SIM115  it lives as long as the process
        self._process = subprocess.Popen(
            [peer.python, HERE / "children" / f"{peer.child}.py", peer.variant, *urls],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=surroundings(),
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._out, selectors.EVENT_READ)
        self.ready = self._answer(START_SECONDS)

    def do(self, job: str, *, limit: float, **arguments: Any) -> dict[str, Any]:
        """Have the peer do something; the line it answers with.

        Raises:
            Hang: there was none within `limit` seconds.
            Died: there will be none.
        """
        if self._process.stdin is None:
            raise RuntimeError("a child has a stdin")
        self._process.stdin.write(json.dumps({"do": job, **arguments}).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer(limit)

    def _answer(self, limit: float) -> dict[str, Any]:
        if not self._selector.select(limit):
            self.close()
            raise Hang(f"{self.peer.name}: no answer within {limit:.0f} s")
        line = self._out.readline()
        if not line:
            self.close()
            raise Died(f"{self.peer.name} ended with code {self._process.returncode}")
        found: dict[str, Any] = json.loads(line)
        return found

    @property
    def _out(self) -> Any:
        return self._process.stdout

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def surroundings() -> dict[str, str]:
    """What a peer knows of the world: no keys, no proxies, nothing it could fetch."""
    passed = {key: os.environ[key] for key in ("PATH", "HOME", "SYSTEMROOT", "TEMP") if key in os.environ}
    return {
        **passed,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LANGSMITH_TRACING": "false",
        "PYTHONUNBUFFERED": "1",
    }
