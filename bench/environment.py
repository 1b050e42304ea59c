"""Where and with what a benchmark was run: machine, versions in every environment, date, commit, load.

Everything here goes into the record of a part (`record["run"]`), so that a table on the page can say where it
comes from, also when one part was run again later or elsewhere.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from check import interpreter
from floors import FLOORS
from peers import PEERS

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 60.0  # that asking an interpreter or git may take
ALWAYS = ("sidestream", "httptools", "msgspec", "h11", "httpcore2", "httpx2", "openai", "anthropic")
_ASK = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def surroundings() -> dict[str, Any]:
    """What does not change while the parts run."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": machine(),
        "versions": versions(),
    }


def machine() -> dict[str, Any]:
    return {"model": model(), "cores": os.cpu_count(), "system": platform.platform(terse=True)}


def model() -> str:
    """The processor, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        return named[0].partition(":")[2].strip() if named else platform.machine()
    if sys.platform == "darwin":
        return told(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.machine()
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit that was run; "+" if the library or the benchmarks differ from it. "" outside of git."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        return ""
    git = ["git", "-C", str(ROOT)]
    changed = told([*git, "status", "--porcelain", "--", "src", "bench/*.py", "bench/children"])
    return told([*git, "rev-parse", "--short=10", "HEAD"]) + "+" * bool(changed)


def versions() -> dict[str, dict[str, str]]:
    """What is installed, by environment; those that are missing are left out. "" is `.venv` itself."""
    wanted: dict[str, set[str]] = {"": set(ALWAYS)}
    for peer in (*PEERS, *FLOORS):
        wanted.setdefault(peer.environment, set()).update(peer.packages)
    found = {}
    for environment, names in wanted.items():
        python = interpreter(environment) if environment else Path(sys.executable)
        if python.exists():
            found[environment] = json.loads(told([str(python), "-c", _ASK, *sorted(names)]) or "{}")
    return found


def load() -> float | None:
    """The load average of the last minute; None where there is none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def told(command: list[str]) -> str:
    """What a command says; "" if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
