"""`sidestream doctor`: what it shows, what it never shows, and its exit codes."""

from __future__ import annotations

import json
import re
import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from commands import CANARY, ROOT, Done, process, sidestream

from sidestream.cli.doctor import _health, _key
from sidestream.doctor import Health, Key, Live, Report, RouteReport, TaskReport
from sidestream.lab import Fault, Lab, Plan, Request, Script, script
from sidestream.recovery.origins import BreakerState, Learned
from sidestream.recovery.worst import Worst

CONFIG = """
main = "work"
fallbacks = ["spare"]

[routes.work]
base_url = "{url}"
wire = "chat"
model = "m"
api_key_env = "WORK_KEY"
header_env = {{ X-Org = "WORK_KEY" }}
window = 1000
concurrency = 2

[routes.spare]
base_url = "{url}?key={canary}"
wire = "chat"
model = "m2"
api_key_file = "{file}"

[tasks.title]
timeout = 20
concurrency = 1
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of our own, in which the command also runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "USERPROFILE", "XDG_CONFIG_HOME", "LOCALAPPDATA", "CODEX_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


def doctor(
    *arguments: str, url: str = "http://127.0.0.1:9/v1", key: str = CANARY, more: str = "", **variables: str
) -> Done:
    """The command with that configuration; whatever it says, it says no key."""
    Path("key").write_text(key)
    Path("key").chmod(0o600)
    Path("c.toml").write_text(CONFIG.format(url=url, canary=CANARY, file=Path("key").absolute()) + more)
    env = {"SIDESTREAM_CONFIG": str(Path("c.toml").absolute()), "WORK_KEY": key, **variables}
    done = sidestream("doctor", *arguments, env=env)
    assert CANARY not in done.out + done.err
    return done


def test_routes_and_tasks_are_shown() -> None:
    """Every route with its rows, every task with its order and its bounds; nothing wrong is exit code 0."""
    done = doctor()
    assert done.code == 0
    assert done.out.startswith(
        "work\n  endpoint   http://127.0.0.1:9/v1\n  wire       chat (it is configured)\n"
    )
    assert "  key        env WORK_KEY (set)\n" in done.out
    assert "  model      m · window 1,000 · images unknown\n" in done.out
    assert re.search(r"^title +work, spare +20 s +9 \(\+\d+\) +1$", done.out, re.MULTILINE)
    assert re.search(r"^\(no task\) +work, spare +1800 s +9 \(\+\d+\) +any$", done.out, re.MULTILINE)
    assert "nothing wrong" in done.err


def test_what_is_wrong_is_said_and_ends_with_its_code() -> None:
    """A missing key: the route is marked, left out where it would be asked, and the exit code is 7."""
    done = doctor(WORK_KEY="")
    assert done.code == 7
    assert "work  ✗\n" in done.out
    assert "✗          WORK_KEY is not set (put the key there: export WORK_KEY=…)" in done.out
    assert "left out: work: WORK_KEY is not set\n" in done.out
    assert "cannot be used: work" in done.err


def test_a_task_without_a_route_is_said() -> None:
    """A task that is tied to a route without a key has none: that is said below the table, with code 7."""
    text = '\n[routes.mine]\nsign_in = "codex"\nmodel = "g"\n[tasks.rank]\nroute = "mine"\nonly = true\n'
    done = doctor(more=text)
    assert done.code == 7
    assert re.search(r"^rank +✗ nothing +- +- +-$", done.out, re.MULTILINE)
    assert "✗ rank: no route for task rank can be asked: mine: nobody is signed in" in done.out
    assert "without a route: rank" in done.err


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "has expired: the next call renews it"),
        (59, "is renewed in 0 min"),
        (3_700, "is renewed in 1 h 1 min"),
        (200_000, "is renewed in 2 d 7 h"),
    ],
)
def test_when_a_key_expires_is_said_in_words(seconds: float, said: str) -> None:
    """The moment of renewal is a span from now."""
    assert _key(Key("vault", "signed in", 1000.0 + seconds, "open to others"), 1000.0) == (
        f"vault (signed in, {said}; open to others)"
    )


def test_health_is_said_in_words() -> None:
    """An open breaker, a parked key and what was learned are one line; without any of them there is none."""
    breaker = BreakerState("m", "open", "5 attempts in a row brought nothing", 4.0)
    learned = (Learned("m", "no seed", "rejected"),)
    assert _health(Health(breaker, "no money", 60.0, learned)) == (
        "the breaker is open: 5 attempts in a row brought nothing; asked last for 60 s: no money; "
        "learned: no seed (rejected)"
    )
    assert _health(Health(BreakerState("m", "closed", "", 0.0))) == ""


def test_live_calls_every_route() -> None:
    """With --live each route is called once: what came of it is a row of its own."""
    with Lab(script.say("Hello.")) as lab:
        done = doctor("--live", url=lab.url)
        assert len(lab.requests) == 2
    assert done.code == 0
    assert (
        len(re.findall(r"✓ live +first output after \d+\.\d\d s, .* · lab-1 · 10 \+ \d+ tokens", done.out))
        == 2
    )


def test_live_failures_are_typed_errors() -> None:
    """A provider that says no and quotes the key: its error is shown without it, the exit code is 7."""

    def answer(request: Request) -> Script:
        if request.json()["model"] == "m":
            return script.error(401, {"error": {"code": "invalid_api_key", "message": f"no {CANARY}"}})
        return script.say("Hello.")(request)

    with Lab(answer) as lab:
        done = doctor("--live", url=lab.url)
    assert done.code == 7
    assert "✗ live     AuthFailed: work: " in done.out
    assert done.out.count("✓ live") == 1


def test_one_task_and_a_time_can_be_chosen() -> None:
    """--task looks at one task only; --timeout bounds each call."""
    with Lab(plan=Plan.always(Fault.hang())) as lab:
        done = doctor("--task", "title", "--live", "--timeout", "0.2", url=lab.url)
    assert done.code == 7
    assert done.out.count("DeadlineExceeded") == 2
    assert "compression" not in done.out
    assert doctor("--task", "titel").code == 2


def test_nothing_configured_is_the_configurations_fault() -> None:
    """Without any route the exit code is 2 and the hint says what to do."""
    done = sidestream("doctor", env={"SIDESTREAM_CONFIG": ""})
    assert done.code == 2
    assert "hint: " in done.err


def test_the_environment_is_enough() -> None:
    """Without a configuration the environment's route is examined."""
    env = {"SIDESTREAM_CONFIG": "", "SIDESTREAM_BASE_URL": "https://h.test/v1", "SIDESTREAM_MODEL": "m"}
    done = sidestream("doctor", env={**env, "SIDESTREAM_API_KEY": CANARY})
    assert done.code == 0
    assert "h.test/m\n" in done.out
    assert "key        env SIDESTREAM_API_KEY (set)" in done.out
    assert CANARY not in done.out + done.err


def test_json_is_the_report() -> None:
    """--json is one line: the report as the library has it, and nothing on stderr."""
    with Lab(script.say("Hello.")) as lab:
        done = doctor("--live", "--json", url=lab.url)
    said = json.loads(done.out)
    assert done.out.count("\n") == 1
    assert done.err == ""
    assert said["healthy"] is True
    assert [route["name"] for route in said["routes"]] == ["work", "spare"]
    assert said["routes"][0]["key"] == {
        "source": "env WORK_KEY",
        "state": "set",
        "expires": None,
        "remark": "",
    }
    title = next(task for task in said["tasks"] if task["name"] == "title")
    assert title["worst"]["seconds"] == 20
    assert title["worst"]["requests"] == title["worst"]["attempts"] + title["worst"]["mending"]
    names = {name for name, _ in walk(said)}
    page = (ROOT / "docs" / "cli.md").read_text()
    assert not [name for name in names if f"`{name}`" not in page and name not in _OF_OTHERS]


# Values of the library with names of their own: clocks, a breaker, a learned fact.
_OF_OTHERS = {
    "total",
    "idle",
    "connect",
    "reason",
    "retry_in",
    "state",
    "what",
    "timeouts",
    "breaker",
    "learned",
}


def walk(value: Any) -> list[tuple[str, Any]]:
    """Every name in a JSON value, with what it stands for."""
    if isinstance(value, dict):
        return [*value.items(), *(pair for inner in value.values() for pair in walk(inner))]
    return [pair for inner in value for pair in walk(inner)] if isinstance(value, list) else []


@pytest.mark.parametrize(
    ("object_", "names"),
    [
        ("report", ["healthy", *(f.name for f in fields(Report))]),
        ("route", [*(f.name for f in fields(RouteReport)), "usable"]),
        ("key", [f.name for f in fields(Key)]),
        ("health", [f.name for f in fields(Health)]),
        ("live call", [f.name for f in fields(Live)]),
        ("task", [f.name for f in fields(TaskReport)]),
        ("worst case", [*(f.name for f in fields(Worst)), "requests"]),
    ],
)
def test_json_names_are_documented(object_: str, names: list[str]) -> None:
    """docs/cli.md lists exactly the names that --json prints."""
    page = (ROOT / "docs" / "cli.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith(f"| {object_} |"))
    assert sorted(re.findall(r"`([a-z_]+)`", row.split("|")[3])) == sorted(names)


def test_a_terminal_obeys_nothing_of_it() -> None:
    """Control characters in what a provider says do not reach the terminal."""
    with Lab(script.error(404, "\x1b[2Jgone")) as lab:
        done = doctor("--live", url=lab.url)
    assert done.code == 7
    assert "\x1b" not in done.out


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is sent another way there")
def test_ctrl_c_ends_every_call() -> None:
    """Stopped while several routes are silent, the command closes all its connections and ends with 130."""
    with Lab(plan=Plan.always(Fault.hang())) as lab:
        env = {"SIDESTREAM_CONFIG": "", "SIDESTREAM_BASE_URL": lab.url, "SIDESTREAM_MODEL": "m"}
        spare = {"SIDESTREAM_FALLBACK_BASE_URL": lab.url, "SIDESTREAM_FALLBACK_MODEL": "f"}
        wires = {"SIDESTREAM_WIRE": "chat", "SIDESTREAM_FALLBACK_WIRE": "chat"}
        with process("doctor", "--live", "--timeout", "600", env={**env, **spare, **wires}) as child:
            lab.wait_request(1, 30)
            child.send_signal(signal.SIGINT)
            _, err = child.communicate(timeout=30)
        assert child.returncode == 130
        assert err.split() == ["stopped"]
        for number in range(2):
            assert lab.wait_closed(number).ended_by == "client"
