"""`sidestream evaluate`: ways of compressing beside each other, by facts kept."""

from __future__ import annotations

import json
from pathlib import Path

from commands import CANARY, SAMPLE, sidestream

from sidestream.cli.shapes import SCORE
from sidestream.lab import Fault, Lab, Plan, script


def test_it_works_on_a_fresh_clone() -> None:
    """Without arguments: the bundled conversation, its facts, every strategy that needs no model."""
    done = sidestream("evaluate")
    assert done.code == 0
    head, *rows = done.out.splitlines()
    assert head.split() == ["strategy", "facts", "share", "characters", "length", "missing"]
    assert [row.split()[0] for row in rows] == ["extractive", "prune", "random"]
    assert rows[0].split()[1] == "19/21"
    assert done.err.startswith("extractive: Quoted 24 of 34 messages.")


def test_facts_of_ones_own(tmp_path: Path) -> None:
    """A file with one fact a line, alternatives parted by a bar; the missing ones are named."""
    facts = tmp_path / "facts.txt"
    facts.write_text("MemoryError | out of memory\nexit code 137 | 137\nsomething that nobody said\n")
    done = sidestream("evaluate", SAMPLE, "--facts", facts, "-s", "extractive", "--ratio", "0.3")
    assert done.out.splitlines()[1].split()[:2] == ["extractive", "2/3"]
    assert done.out.splitlines()[1].endswith("something that nobody said")


def test_json_has_a_stable_schema() -> None:
    """One line, a list with exactly the documented names, nothing on stderr."""
    done = sidestream("evaluate", "--json", "-s", "random", "-s", "extractive", "-s", "random")
    scores = json.loads(done.out)
    assert done.err == ""
    assert [each["strategy"] for each in scores] == ["random", "extractive"]
    assert all(tuple(each) == SCORE for each in scores)


def test_a_model_is_scored_when_one_is_named() -> None:
    """The summary strategy asks the configured model; a named one joins the default strategies."""
    with Lab(script.chat_text("## Goal\nMemoryError, exit code 137, fonts.py leaks.")) as lab:
        env = {"SIDESTREAM_BASE_URL": lab.url, "SIDESTREAM_MODEL": "m", "SIDESTREAM_API_KEY": CANARY}
        done = sidestream("evaluate", "-s", "summary", "--json", env=env)
        named = sidestream("evaluate", "--base-url", lab.url, "--model", "m", "--json")
    (score,) = json.loads(done.out)
    assert (score["method"], score["facts"]) == ("summary", 21)
    assert 3 <= score["kept"] < 21
    assert json.loads(named.out)[-1]["strategy"] == "summary"
    assert CANARY not in done.out + done.err


def test_the_clocks_of_the_command_line_win() -> None:
    """--timeout bounds each summary, whatever the task's own clock is."""
    with Lab(plan=Plan.always(Fault.hang())) as lab:
        chosen = ("--base-url", lab.url, "--model", "m")
        done = sidestream("evaluate", "-s", "summary", *chosen, "--timeout", "0.1")
    assert done.code == 0
    assert "timeout.total = 0.1 s" in done.err


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """A conversation without facts, no model for a summary, a file that is none: exit code 2 and a hint."""
    broken = tmp_path / "facts.json"
    broken.write_text("[1]")
    for arguments in (
        (SAMPLE,),
        ("-s", "summary"),
        ("-s", "magic"),
        ("--facts", broken),
        ("--facts", tmp_path / "no"),
        (tmp_path / "no", "--facts", broken),
    ):
        done = sidestream("evaluate", *arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert "hint: " in done.err
