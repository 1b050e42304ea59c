"""The command as a whole: exit codes, help, advice, and what it costs to start."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import CANARY, PROGRAM, ROOT, SAMPLE, environment, process, sidestream

import sidestream.errors as errors
from sidestream.cli import EXIT_CODES, shapes
from sidestream.cli.advice import ADVICE, CLOCKS, WORDS, advice
from sidestream.cli.app import CODES, COMMANDS, exit_code
from sidestream.lab import Fault, Lab, Plan, script
from sidestream.recovery import faults
from sidestream.recovery.clocks import Timeouts
from sidestream.recovery.faults import FaultKind

PAGES = ((), *((name,) for name in COMMANDS), ("lab", "serve"), ("lab", "faults"))


def asked(answer: object, *options: str, plan: Plan | None = None) -> int:
    with Lab(answer, plan=plan) as lab:  # type: ignore[arg-type]
        env = {"SIDESTREAM_BASE_URL": lab.url, "SIDESTREAM_MODEL": "m", "SIDESTREAM_API_KEY": CANARY}
        others: dict[str, tuple[object, ...]] = {
            "compress": ("compress", SAMPLE),
            "doctor": ("doctor", "--live"),
        }
        command = next((others[word] for word in options if word in others), ("ask", "hi", *options))
        return sidestream(*command, env=env).code


def left_by_its_reader() -> int:
    with process("lab", "faults", stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.close()
        child.wait(30)
    return child.returncode


REASONS: dict[int, Callable[[], int]] = {
    0: lambda: asked(script.say("yes")),
    1: lambda: asked(script.error(404, "no")),
    2: lambda: sidestream("ask", "hi").code,
    3: lambda: asked(script.chat_text("yes and", finish="length")),
    4: lambda: asked(script.say("yes"), "--timeout", "0.1", plan=Plan.always(Fault.hang())),
    5: lambda: asked(script.error(401, "no")),
    6: lambda: asked(script.error(401, "no"), "compress"),
    7: lambda: asked(script.error(401, "no"), "doctor"),
    141: left_by_its_reader,
}
ELSEWHERE = {130: "test_ctrl_c_while_waiting", 143: "test_sigterm_closes_the_connection"}


@pytest.mark.parametrize("code", REASONS)
def test_exit_code(code: int) -> None:
    """Each exit code has its reason."""
    if code == 141 and sys.platform == "win32":
        pytest.skip("closed pipes are another error there")
    assert REASONS[code]() == code


def test_every_exit_code_is_tested() -> None:
    """The table holds exactly the codes that are tested; --help prints every row of it."""
    terminal = (Path(__file__).parent / "test_terminal.py").read_text()
    assert all(name in terminal for name in ELSEWHERE.values())
    assert set(REASONS) | set(ELSEWHERE) == set(EXIT_CODES)
    page = " ".join(sidestream("--help").out.split())
    assert all(f"{code} {' '.join(meaning.split())}" in page for code, meaning in EXIT_CODES.items())


def test_every_error_has_an_exit_code() -> None:
    """Each public error ends in a code of the table, and the table of classes names only such codes."""
    kinds = [getattr(errors, name) for name in errors.__all__ if name != "Cancelled"]
    assert {exit_code(kind.__new__(kind)) for kind in kinds} == {1, 2, 4, 5}
    assert {code for _, code in CODES} <= set(EXIT_CODES)


@pytest.mark.parametrize("page", PAGES, ids=" ".join)
def test_help(page: tuple[str, ...]) -> None:
    """-h and --help print the same page on stdout, at most 80 columns wide, and end with 0."""
    long, short = sidestream(*page, "--help"), sidestream(*page, "-h")
    assert long == short
    assert (long.code, long.err) == (0, "")
    assert long.out.startswith(f"Usage: {' '.join(['sidestream', *page])}")
    assert max(map(len, long.out.splitlines())) <= 80
    assert "..." not in long.out.replace("[ARGS]...", "")


def test_help_fits_a_narrow_terminal() -> None:
    """COLUMNS makes the pages narrower."""
    page = sidestream("ask", "--help", env={"COLUMNS": "50"}).out
    assert max(map(len, page.splitlines())) <= 50


@pytest.mark.parametrize("page", [(), ("lab",)], ids=" ".join)
def test_no_command_shows_help(page: tuple[str, ...]) -> None:
    """Without a command the help is on stderr and the exit code is 2."""
    done = sidestream(*page)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Usage: ")


def test_version() -> None:
    """--version prints name and number."""
    assert re.fullmatch(r"sidestream \d+\.\d+\S*\n", sidestream("--version").out)


def test_help_into_a_closed_pipe() -> None:
    """`--help | head -1` is quiet."""
    shell = f"{sys.executable} -c '{PROGRAM[-1]}' --help | head -1"
    done = subprocess.run(["sh", "-c", shell], env=environment(), capture_output=True, text=True, timeout=30)
    assert (done.stdout[:6], done.stderr) == ("Usage:", "")


def test_a_command_loads_only_what_it_needs() -> None:
    """`ask` loads neither lab nor compression nor embedded model; the entry point loads no library."""
    code = (
        "import sys, sidestream.cli.ask; others = 'sidestream.lab', 'sidestream.tasks', 'sidestream.local'; "
        "print([name for name in sys.modules if name.startswith(others)])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    bare = "import sys, sidestream.cli; print('click' in sys.modules, 'rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", bare], env=environment(), capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


# Advice.


def test_every_fault_and_clock_has_advice() -> None:
    """What to do is said for each kind of fault and each clock, and every option it names exists."""
    assert set(ADVICE) == set(FaultKind)
    assert set(CLOCKS) == set(Timeouts.__dataclass_fields__)
    page = sidestream("ask", "--help").out
    for text in [*ADVICE.values(), *CLOCKS.values()]:
        assert all(option in page for option in re.findall(r"--[a-z-]+", text))
    assert [kind for kind, text in ADVICE.items() if not text] == [FaultKind.STALLED, FaultKind.DEADLINE]


def test_translated_words_are_the_librarys() -> None:
    """Each phrase that is translated still stands in the library's hints."""
    source = "".join(path.read_text() for path in (ROOT / "src" / "sidestream").glob("*.py"))
    source += (ROOT / "src" / "sidestream" / "routes" / "environment.py").read_text()
    assert [theirs for theirs, _ in WORDS if theirs not in source] == []


@pytest.mark.parametrize("environ", [{}, {"OPENAI_MODEL": "m"}])
def test_hints_speak_of_options(environ: dict[str, str]) -> None:
    """A hint on the command line names options and variables, never Python arguments."""
    done = sidestream("ask", "hi", env=environ)
    assert done.code == 2
    assert not re.search(r"\b(model|api_key|insecure|base_url)=", done.err)


def test_an_error_of_the_library_keeps_its_hint() -> None:
    """A hint that needs no translation is passed on."""
    assert advice(errors.UsageError("no", hint="do this")) == "do this"


@pytest.mark.parametrize("budget", ["origin", "busy", "breaker", "cost"])
def test_a_limit_on_recoveries_has_advice_and_a_time(budget: str) -> None:
    """What a limit forbade has advice without Python arguments, and --json says when to come back."""
    fault = faults.Fault(FaultKind.DROPPED)
    error = errors.BudgetExhausted("no more", budget=budget, fault=fault, retry_at=1_790_000_000.0)
    said = shapes.error_json(error)["error"]
    assert said["retry_at"] == 1_790_000_000.0
    assert said["hint"] == advice(error) != ADVICE[FaultKind.DROPPED]
    assert "SIDESTREAM_FALLBACK_MODEL" in said["hint"]
    assert "Policy" not in said["hint"]


# docs/cli.md


PAGE = (ROOT / "docs" / "cli.md").read_text()


def test_exit_codes_are_documented_in_the_same_words() -> None:
    """The page's table of exit codes is the code's."""
    said = re.findall(r"^\| `(\d+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert {int(code): meaning.replace("\\|", "|") for code, meaning in said} == EXIT_CODES


@pytest.mark.parametrize(
    ("object_", "names"),
    [
        ("reply", [*shapes.REPLY, "tool_calls", "attempts"]),
        ("usage", [*shapes.USAGE]),
        ("attempt", [*shapes.ATTEMPT, "seconds"]),
        ("tool call", [*shapes.CALL]),
        ("compaction", [*shapes.COMPACTION]),
        ("score", [*shapes.SCORE]),
        ("request", [*shapes.REQUEST]),
    ],
)
def test_json_names_are_documented(object_: str, names: list[str]) -> None:
    """The page lists exactly the names that --json prints."""
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {object_} |"))
    assert re.findall(r"`([a-z_]+)`", row.split("|")[3].split(", and without")[0]) == names


def test_every_option_on_the_page_exists() -> None:
    """Each option that the page speaks of is an option of some command."""
    pages = "".join(sidestream(*page, "--help").out for page in PAGES)
    assert not [
        option for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE)) if option not in pages
    ]
