"""`sidestream config`: what is in force, where it comes from, and nothing secret."""

from __future__ import annotations

import json
import re
import stat
import sys
from pathlib import Path

import pytest
from commands import CANARY, Done, sidestream

from sidestream.routes.config import load_config, parse

TEXT = """\
main = "work"

[routes.work]
provider = "openai"
model = "gpt-5"
api_key_env = ["WORK_KEY", "SPARE_KEY"]
api_key_file = "~/key"
headers = {{ X-Plain = "{canary}" }}
header_env = {{ X-Org = "ORG" }}
params.temperature = 0
prices = {{ input = 0.25, output = 2 }}

[routes.far]
base_url = "https://far.test/v1?key={canary}"
model = "m"
api_key_keyring = "sidestream/me"

[tasks.title]
timeout = 20
atomic = true
fallbacks = ["far"]
instructions = "A title.\\n{long}"
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of our own, in which the command also runs."""
    home = tmp_path / "home"
    (home / "repo" / ".git").mkdir(parents=True)
    monkeypatch.chdir(home / "repo")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    for name in ("XDG_CONFIG_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(home / "settings"))
    return home


def config(*arguments: str, env: dict[str, str] | None = None) -> Done:
    done = sidestream("config", *arguments, env={"SIDESTREAM_CONFIG": None, **(env or {})})
    assert CANARY not in done.out + done.err
    return done


def user_file(text: str) -> Path:
    path = Path(config("path").out.split("  ")[0].strip())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def whole(home: Path) -> Path:
    key = home / "key"
    key.write_text(CANARY)
    key.chmod(0o600)
    return user_file(TEXT.format(canary=CANARY, long="x" * 100))


ENV = {"WORK_KEY": CANARY, "ORG": CANARY}


def rows(done: Done) -> dict[str, tuple[str, str]]:
    """The table by setting: value and place."""
    lines = [re.split(r"  +", line) for line in done.out.splitlines()]
    assert lines[0] == ["setting", "value", "from"]
    return {path: (value, where) for path, value, where in lines[1:]}


def test_every_value_is_shown_with_its_place(home: Path) -> None:
    """Said values name file and line, the others are the defaults of the code."""
    path = whole(home)
    shown = rows(config(env=ENV))
    assert shown["main"] == ("work", f"{path}:1")
    assert shown["discover"] == ("false", "default")
    assert shown["defaults.timeout"] == ("1800", "default")
    assert shown["defaults.first"] == ("-", "default")
    assert shown["defaults.tries"] == ("2", "default")
    assert shown["routes.work.params.temperature"] == ("0", f"{path}:10")
    assert shown["routes.work.prices.output"] == ("2", f"{path}:11")
    assert shown["tasks.title.timeout"] == ("20", f"{path}:19")
    assert shown["tasks.title.fallbacks"] == ("far", f"{path}:21")
    assert shown["tasks.title.atomic"] == ("true", f"{path}:20")
    assert shown["tasks.title.instructions"][0].endswith("xx…")


def test_of_a_secret_only_its_place_is_shown(home: Path) -> None:
    """Variables and files are "set" or "missing"; the keyring stays closed, headers and queries hidden."""
    whole(home)
    shown = rows(config(env=ENV))
    assert shown["routes.work.api_key_env"][0] == "env WORK_KEY (set), env SPARE_KEY (missing)"
    assert shown["routes.work.api_key_file"][0] == "file ~/key (set)"
    assert shown["routes.work.headers.X-Plain"][0] == "***"
    assert shown["routes.work.header_env.X-Org"][0] == "env ORG (set)"
    assert shown["routes.far.base_url"][0] == "https://far.test/v1?***"
    assert shown["routes.far.api_key_keyring"][0] == "keyring sidestream/me (not looked for)"
    (home / "key").unlink()
    assert rows(config(env=ENV))["routes.work.api_key_file"][0] == "file ~/key (missing)"
    (home / "key").write_text(f"{CANARY}\n{CANARY}")
    assert rows(config(env=ENV))["routes.work.api_key_file"][0] == "file ~/key (unusable)"


def test_json_has_the_same(home: Path) -> None:
    """One object: the files, and every value with its path and place."""
    path = whole(home)
    done = config("--json", env=ENV)
    said = json.loads(done.out)
    assert said["files"] == [str(path)]
    assert {"path": "tasks.title.timeout", "value": 20.0, "where": f"{path}:19"} in said["values"]
    assert {row["path"] for row in said["values"]} == set(rows(config(env=ENV)))
    assert done.err == ""


def test_the_environment_is_the_lowest_layer() -> None:
    """Without a file, the model of the environment is the main route; with one, it is not."""
    env = {
        "SIDESTREAM_BASE_URL": "http://127.0.0.1:9/v1",
        "SIDESTREAM_MODEL": "m",
        "SIDESTREAM_API_KEY": CANARY,
        "SIDESTREAM_FALLBACK_BASE_URL": "http://127.0.0.1:8/v1",
        "SIDESTREAM_FALLBACK_MODEL": "n",
    }
    shown = rows(config(env=env))
    assert shown["main"] == ("127.0.0.1:9/m (with a key)", "env SIDESTREAM_MODEL")
    assert shown["fallbacks"] == ("127.0.0.1:8/n (without a key)", "env SIDESTREAM_FALLBACK_MODEL")
    user_file("main = 'openai:gpt-5'")
    assert rows(config(env=env))["main"][0] == "openai:gpt-5"


def test_path_names_the_files(home: Path) -> None:
    """Whether they are there or not; `--path` is the same."""
    done = config("path")
    assert done.out.endswith("config.toml  (not there)\n")
    own = user_file("")
    (home / "repo" / "sidestream.toml").write_text("")
    assert config("path").out == f"{own}\n{home / 'repo' / 'sidestream.toml'}\n"
    assert config("--path").out == config("path").out
    said = json.loads(config("path", "--json").out)
    assert said[1] == {"path": str(home / "repo" / "sidestream.toml"), "project": True, "read": True}
    assert config("path", env={"SIDESTREAM_CONFIG": ""}).out == ""


def test_check_finds_everything(home: Path) -> None:
    """Every problem of every file, each with its line, and exit code 2."""
    own = user_file(f"mian = '{CANARY}'\n[defaults]\ntimeout = 0")
    project = home / "repo" / "sidestream.toml"
    project.write_text(f"[routes.x]\nheaders.X = '{CANARY}'")
    done = config("check")
    assert done.code == 2
    assert done.out == ""
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert errors == [
        f"error: unknown key 'mian', line 1 of {own}; did you mean 'main'?",
        f"error: timeout in [defaults] is not a number of seconds above 0, line 3 of {own}",
        f"error: a project's file may not say headers, line 2 of {project}",
    ]
    as_json = config("check", "--json")
    assert (as_json.code, as_json.err) == (2, "")
    assert len(json.loads(as_json.out)["problems"]) == 3
    plain = config()
    assert plain.code == 2
    assert "(and 2 more: sidestream config check)" in plain.err


def test_check_says_what_is_worth_knowing(home: Path) -> None:
    """A missing key is no mistake of the file, but nobody wants to find out later."""
    whole(home)
    if sys.platform != "win32":
        (home / "key").chmod(0o644)
    done = config("check", env=ENV)
    assert done.code == 0
    assert "routes.work: SPARE_KEY is not set" in done.err
    assert "WORK_KEY" not in done.err
    if sys.platform != "win32":
        assert "routes.work: file ~/key: everybody can read it" in done.err
    assert "nothing wrong in" in done.err
    assert config("check", "--quiet", env=ENV).err == ""


def test_init_writes_a_file_to_begin_with() -> None:
    """A commented file of the owner's alone; its path is printed, and what is there is never overwritten."""
    done = config("init")
    path = Path(done.out.strip())
    assert done.code == 0
    assert path == Path(config("path").out.strip())
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert config("check").code == 0
    assert load_config({}, path.parent, path.parent).routes == {}
    path.write_text("main = 'a:b'")
    again = config("init")
    assert again.code == 2
    assert "is there already" in again.err
    assert path.read_text() == "main = 'a:b'"


def test_init_writes_the_file_that_is_read(home: Path) -> None:
    """With SIDESTREAM_CONFIG that one; and none if that is empty."""
    named = home / "new" / "mine.toml"
    assert json.loads(config("init", "--json", env={"SIDESTREAM_CONFIG": str(named)}).out) == {
        "path": str(named)
    }
    assert named.exists()
    assert config("init", env={"SIDESTREAM_CONFIG": ""}).code == 2


def test_every_line_of_the_first_file_can_be_taken() -> None:
    """With the comment signs gone from its settings, it is a configuration that makes sense."""
    text = Path(config("init").out.strip()).read_text(encoding="utf-8")
    taken = parse(re.sub(r"^# (\[|\w+ = )", r"\1", text, flags=re.MULTILINE), "starter.toml")
    assert (taken.main, list(taken.routes), list(taken.tasks)) == (
        "openai:gpt-5-mini",
        ["local", "work"],
        ["title", "compression"],
    )
    assert taken.defaults.timeout == 600


def test_options_before_the_last_word_are_refused() -> None:
    """Rather than silently ignored."""
    done = config("--json", "path")
    assert done.code == 2
    assert "stand behind" in done.err
