"""The documentation is executed: every `python` and `sh` block of README.md and docs/*.md, as it stands.

Python blocks run in a process of their own whose environment names a lab as the model. Shell blocks run with
`bash -eu` in the checkout; those that use `.venv/bin` get the running interpreter's environment instead. The
two commands of the README that set up an environment are executed by `.ci/run`, which a test here checks.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sidestream.cli import EXIT_CODES
from sidestream.lab import Lab, script
from sidestream.recovery.faults import FaultKind
from sidestream.routes.environment import VARIABLES

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[object]:
    found = []
    for page in PAGES:
        for number, match in enumerate(FENCE.finditer(page.read_text(encoding="utf-8"))):
            if match[1] == language:
                found.append(pytest.param(match[2], id=f"{page.relative_to(ROOT)}-{number}"))
    return found


def environment(**extra: str) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "SIDESTREAM_"))
    }
    cache = os.environ.get("SIDESTREAM_CACHE_DIR", str(ROOT / ".cache"))
    own = {"PYTHONPATH": str(ROOT / "src"), "SIDESTREAM_CACHE_DIR": cache, "SIDESTREAM_CONFIG": ""}
    return {**kept, **own, **extra}


@pytest.mark.parametrize("code", blocks("python"))
def test_python_block_runs(code: str) -> None:
    """A Python block of the documentation runs as it stands."""
    with Lab(script.say("Glomma, Amazon, Nile.")) as lab:
        env = environment(
            SIDESTREAM_BASE_URL=lab.url,
            SIDESTREAM_MODEL="lab-1",
            OPENAI_BASE_URL=lab.url,
            OPENAI_API_KEY="docs-key",
            ANTHROPIC_BASE_URL=lab.url.removesuffix("/v1"),
            ANTHROPIC_API_KEY="docs-key",
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            env=env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr


@pytest.mark.local
@pytest.mark.xdist_group("local")
@pytest.mark.parametrize("code", blocks("sh"))
def test_shell_block_runs(code: str) -> None:
    """A shell block of the documentation runs as it stands, or `.ci/run` runs it."""
    ci = (ROOT / ".ci" / "run").read_text()
    if any(line.startswith("python3 run.py") for line in code.splitlines()):
        assert all(line in ci for line in code.splitlines() if line)
        return
    if not (ROOT / ".venv" / "bin" / "sidestream").exists():
        pytest.skip("needs the environment that `python3 run.py` makes")
    done = subprocess.run(
        ["bash", "-eu", "-c", code], env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_something_to_run() -> None:
    """The documentation has blocks of both kinds: an empty list would pass every test above."""
    assert len(blocks("python")) >= 8
    assert len(blocks("sh")) >= 4


def test_result_is_shown_early() -> None:
    """The README shows a command and its result within 30 lines."""
    head = (ROOT / "README.md").read_text().splitlines()[:30]
    assert "python3 run.py demo" in head
    assert any("the text is the same: yes" in line for line in head)


def test_fault_table_matches_code() -> None:
    """docs/recovery.md lists every fault as the code has it."""
    page = (ROOT / "docs" / "recovery.md").read_text()
    said = page.split("<!-- faults -->\n")[1].split("<!-- /faults -->")[0].splitlines()[2:]
    yes = {True: "yes", False: "no"}
    assert said == [
        f"| `{kind.word}` | {kind.meaning} | {yes[kind.again]} | {kind.scope} | `{kind.error}` |"
        for kind in FaultKind
    ]


def test_every_variable_is_documented() -> None:
    """docs/client.md lists every environment variable with the words of the code."""
    page = (ROOT / "docs" / "client.md").read_text()
    missing = [name for name, meaning in VARIABLES.items() if f"| `{name}` | {meaning} |" not in page]
    assert not missing


def test_every_exit_code_is_documented() -> None:
    """docs/cli.md lists every exit code."""
    page = (ROOT / "docs" / "cli.md").read_text()
    assert not [code for code in EXIT_CODES if not re.search(rf"^\| `?{code}`? \|", page, re.MULTILINE)]


def test_links_lead_somewhere() -> None:
    """Relative links in the documentation name files that exist."""
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
