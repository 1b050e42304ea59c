"""Which files are read, which of them wins, and what a project's file may say."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sidestream import ConfigError
from sidestream.routes.config import Config, config_files, examine, load_config

Write = Callable[[str, str], Path]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a repository in it, and nothing of the real one."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "home" / "repo" / ".git").mkdir(parents=True)
    (tmp_path / "home" / "repo" / "src" / "deep").mkdir(parents=True)
    return tmp_path / "home"


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load(place: Path, user: str = "", project: str = "", env: dict[str, str] | None = None) -> Config:
    """What a program in the repository gets from these two files."""
    if user:
        written(place / "user" / "config.toml", user)
    if project:
        written(place / "repo" / "sidestream.toml", project)
    return load_config(env or {}, place / "repo" / "src" / "deep", place / "user")


def refused(place: Path, user: str, project: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(place, user, project)
    return caught.value


def test_without_a_file_nothing_is_said(place: Path) -> None:
    """No file is no error: everything is as it was before there were files."""
    assert load(place) == Config()


def test_the_project_is_on_top_of_the_user(place: Path) -> None:
    """Key by key, and every value knows which of the two said it."""
    config = load(
        place,
        "main = 'openai:gpt-5'\n[tasks.title]\ntimeout = 20\nparams = { temperature = 0 }",
        "[tasks.title]\ntimeout = 5\nparams = { seed = 7 }\n",
    )
    assert config.main == "openai:gpt-5"
    assert config.tasks["title"].timeout == 5
    assert config.tasks["title"].params == {"temperature": 0, "seed": 7}
    assert config.where("tasks.title.timeout") == f"{place / 'repo' / 'sidestream.toml'}:2"
    assert config.where("tasks.title.params.temperature") == f"{place / 'user' / 'config.toml'}:4"
    assert config.files == (str(place / "user" / "config.toml"), str(place / "repo" / "sidestream.toml"))


def test_a_named_file_is_read_instead_of_both(place: Path) -> None:
    """SIDESTREAM_CONFIG names the only file, trusted like one's own; empty it means none."""
    named = written(
        place / "named.toml", "[routes.a]\nmodel='m'\nbase_url='https://far.test'\napi_key_env='K'"
    )
    config = load(place, "main = 'openai:b'", "discover = false", {"SIDESTREAM_CONFIG": str(named)})
    assert (config.main, config.discover, list(config.routes)) == (None, None, ["a"])
    assert load(place, env={"SIDESTREAM_CONFIG": "~/named.toml"}).files == (str(named),)
    assert load(place, env={"SIDESTREAM_CONFIG": ""}) == Config()


def test_the_environment_says_what_no_file_says(place: Path) -> None:
    """It is the lowest of all: it is named as the place only where no file says anything."""
    env = {"OPENAI_MODEL": "gpt-5", "SIDESTREAM_FALLBACK_MODEL": "m"}
    assert load(place, env=env).where("main") == "env OPENAI_MODEL"
    assert load(place, env=env | {"SIDESTREAM_MODEL": "x"}).where("main") == "env SIDESTREAM_MODEL"
    assert load(place, env=env).where("fallbacks") == "env SIDESTREAM_FALLBACK_MODEL"
    assert load(place).where("main") == "default"
    config = load(place, "main = 'openai:b'\nfallbacks = []", env=env)
    assert config.where("main").endswith("config.toml:1")
    assert config.where("fallbacks").endswith("config.toml:2")


# How far up a project's file is looked for.


def found(cwd: Path) -> str | None:
    files = [file.path for file in config_files({}, cwd, Path("user")) if file.project]
    return str(files[0]) if files else None


def test_the_nearest_file_counts(place: Path) -> None:
    """The nearest one at or above the working directory, as far as the repository goes."""
    top = written(place / "repo" / "sidestream.toml", "")
    assert found(place / "repo" / "src" / "deep") == str(top)
    near = written(place / "repo" / "src" / "sidestream.toml", "")
    assert found(place / "repo" / "src" / "deep") == str(near)
    assert found(place / "repo") == str(top)


def test_it_is_not_looked_for_above_the_repository(place: Path) -> None:
    """What lies outside of the repository belongs to somebody else."""
    written(place / "sidestream.toml", "")
    assert found(place / "repo" / "src") is None
    assert found(place / "elsewhere") == str(place / "sidestream.toml")


def test_it_is_not_looked_for_above_the_home(place: Path, tmp_path: Path) -> None:
    """Nor above the home directory; and outside of both only where one is: anybody can write to /tmp."""
    written(tmp_path / "sidestream.toml", "")
    (place / "plain").mkdir()
    assert found(place / "plain") is None
    (tmp_path / "shared" / "work").mkdir(parents=True)
    assert found(tmp_path / "shared" / "work") is None
    here = written(tmp_path / "shared" / "work" / "sidestream.toml", "")
    assert found(tmp_path / "shared" / "work") == str(here)


# What a project's file may say.

USER = """
discover = false
main = "work"
[defaults]
max_cost = 1.0
[routes.work]
provider = "openai"
model = "gpt-5"
api_key_env = "WORK_KEY"
[tasks.memory]
route = "work"
only = true
max_cost = 0.1
"""


def test_a_project_chooses_among_what_there_is(place: Path) -> None:
    """Known providers, the user's routes, models, tasks, numbers, and a keyless server on this machine."""
    config = load(
        place,
        USER,
        """
        main = "anthropic:claude-sonnet-4-6"
        fallbacks = ["work", "here"]
        [defaults]
        timeout = 30
        max_cost = 0.5
        params = { temperature = 0, seed = 1, parallel_tool_calls = false, reasoning_effort = "low" }
        [routes.work]
        model = "gpt-5-mini"
        concurrency = 2
        [routes.here]
        base_url = "http://localhost:8080/v1"
        model = "qwen3"
        wire = "chat"
        [routes.groq]
        provider = "groq"
        model = "llama-4"
        [tasks.memory]
        timeout = 5
        max_cost = 0.05
        [tasks.title]
        route = "here"
        only = true
        """,
    )
    assert config.routes["work"].model == "gpt-5-mini"
    assert config.routes["work"].api_key_env == ("WORK_KEY",)
    assert config.tasks["memory"].route == "work"
    assert config.defaults.max_cost == 0.5


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("[routes.x]\nbase_url = 'https://evil.test/v1'\nmodel = 'm'", "base_url of another machine"),
        (
            "[routes.x]\nbase_url = 'http://localhost.evil.test/v1'\nmodel = 'm'",
            "base_url of another machine",
        ),
        ("[routes.x]\nbase_url = 'http://127.0.0.1.nip.io/v1'\nmodel = 'm'", "base_url of another machine"),
        ("[routes.x]\nbase_url = 'http://0.0.0.0/v1'\nmodel = 'm'", "base_url of another machine"),
        ("[routes.x]\nprovider='openai'\nmodel='m'\nbase_url='http://[::1]:1/v1'", "base_url together with"),
        (
            "[routes.x]\nsign_in='codex'\nmodel='m'\nbase_url='http://127.0.0.1:1/v1'",
            "base_url together with",
        ),
        ("[routes.x]\nprovider='groq'\nmodel='m'\napi_key_env = 'AWS_SECRET_ACCESS_KEY'", "api_key_env"),
        ("[routes.x]\nprovider='groq'\nmodel='m'\napi_key_file = '~/.ssh/id_rsa'", "api_key_file"),
        ("[routes.x]\nprovider='groq'\nmodel='m'\napi_key_keyring = 'a/b'", "api_key_keyring"),
        ("[routes.x]\nprovider='groq'\nmodel='m'\nheaders.X = 'a'", "headers"),
        ("[routes.x]\nprovider='groq'\nmodel='m'\nheader_env.X = 'HOME'", "header_env"),
        ("[routes.x]\nprovider='groq'\nmodel='m'\ninsecure = true", "insecure"),
        ("[routes.work]\nbase_url = 'http://127.0.0.1:1/v1'", "base_url on a route of yours"),
        ("[routes.work]\nprovider = 'mistral'", "provider on a route of yours"),
        ("[routes.work]\nsign_in = 'codex'", "sign_in on a route of yours"),
        ("[routes.work]\nwire = 'chat'", "wire on a route of yours"),
        ("[tasks.memory]\nonly = false", "only on a task that you tied down"),
        ("[tasks.memory]\nroute = 'openai:gpt-5'", "route on a task that you tied down"),
        ("[tasks.memory]\nfallbacks = ['openai:gpt-5']", "fallbacks on a task that you tied down"),
        ("[tasks.memory]\nmax_cost = 0.2", "max_cost above yours"),
        ("[tasks.title]\nmax_cost = 2", "max_cost above yours"),
        ("[defaults]\nmax_cost = 2", "max_cost above yours"),
        ("discover = true", "discover where you have not"),
        ("[defaults.params]\nweb_search = [{ server_url = 'https://evil.test' }]", "web_search to a text"),
        ("[tasks.title.params]\nprovider = { order = ['x'] }", "provider to a text"),
        ("[routes.work.params]\nmodels = ['x']", "models to a text"),
    ],
)
def test_a_project_may_not_lead_keys_or_calls_elsewhere(place: Path, line: str, word: str) -> None:
    """A cloned repository could send a key to another host; the error has the line and a way out."""
    said = refused(place, USER, line)
    number = line.count("\n", 0, line.index(word.split()[0])) + 1
    assert word in str(said)
    assert f"line {number} of {place / 'repo' / 'sidestream.toml'}" in str(said)
    assert "SIDESTREAM_CONFIG" in said.hint


def test_what_the_user_has_not_tied_down_is_free(place: Path) -> None:
    """Without a word of the user's on it, a project may name a price, and turn off what it does not want."""
    assert load(place, "discover = true", "discover = false\n[defaults]\nmax_cost = 2").defaults.max_cost == 2


def test_a_project_may_name_the_routes_of_the_user(place: Path) -> None:
    """Names are looked up once both files are read."""
    said = refused(place, USER, "[tasks.title]\nroute = 'wrok'")
    assert "there is no route 'wrok'; did you mean 'work'?, line 2 of" in str(said)


@pytest.mark.parametrize(
    "text",
    ["main = 'opnai:m'", "fallbacks = ['opnai:m']", "[routes.r]\nmodel='m'\nprovider='opnai'",
     "[tasks.t]\nmodel='m'\nprovider='opnai'", "[tasks.t]\nfallbacks=['opnai:m']"],
)  # fmt: skip
def test_a_provider_that_nobody_knows_is_an_error_with_its_line(place: Path, text: str) -> None:
    """Wherever it is named, and with the name that was probably meant."""
    said = refused(place, "", text)
    assert str(said).startswith("there is no provider 'opnai'; did you mean 'openai'?, line ")
    assert "docs/providers.md" in said.hint
    written(place / "repo" / "sidestream.toml", text.replace("opnai", "openai"))
    assert load(place).files


# Files that cannot be used.


def test_without_a_home_or_a_working_directory_there_is_no_project(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is an error: there is just nothing to look at."""

    def gone(*_: object) -> Path:
        raise FileNotFoundError

    written(place / "repo" / "sidestream.toml", "discover = false")
    monkeypatch.chdir(place / "repo")
    assert load_config({}, user_dir=place / "user").discover is False
    monkeypatch.setattr(Path, "cwd", gone)
    assert load_config({}, user_dir=place / "user") == Config()
    with pytest.raises(ConfigError, match="is not there"):
        load_config({"SIDESTREAM_CONFIG": "~nobody-of-this-name/x.toml"})


def test_everything_that_is_wrong_in_both_files_is_found(place: Path) -> None:
    """`examine` goes on after the first problem and the first file."""
    written(place / "user" / "config.toml", "mian = 1\n[defaults]\ntimeout = 0")
    written(place / "repo" / "sidestream.toml", "[routes.x]\ninsecure = true\ntimeout = 0")
    config, problems = examine({}, place / "repo", place / "user")
    assert len(problems) == 4
    assert len(config.files) == 2


def test_a_named_file_must_be_there(place: Path) -> None:
    """A typo in SIDESTREAM_CONFIG is not silently nothing."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml is not there") as caught:
        load(place, env={"SIDESTREAM_CONFIG": str(place / "nowhere.toml")})
    assert "SIDESTREAM_CONFIG" in caught.value.hint


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"main = 'openai:b'\n\xff", "line 2 of .* is not UTF-8 text"),
        (b"#" * (1024 * 1024 + 1), "is larger than 1 MiB"),
    ],
)
def test_a_file_that_is_no_text_is_an_error(place: Path, data: bytes, message: str) -> None:
    """Too large or not UTF-8: said with the file."""
    written(place / "user" / "config.toml", "").write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        load(place)


def test_a_byte_order_mark_and_crlf_are_fine(place: Path) -> None:
    """Editors on Windows write both."""
    written(place / "user" / "config.toml", "").write_bytes(b"\xef\xbb\xbf[defaults]\r\n\r\ntimeout = 3\r\n")
    assert load(place).where("defaults.timeout").endswith(":3")


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are another thing there")
def test_a_file_that_everybody_can_write_is_refused(place: Path) -> None:
    """Whoever writes it decides where keys go."""
    written(place / "user" / "config.toml", "main = 'openai:b'").chmod(0o666)
    with pytest.raises(ConfigError, match="everybody can write") as caught:
        load(place)
    assert "chmod o-w" in caught.value.hint


@pytest.mark.skipif(sys.platform == "win32", reason="a folder opens differently there")
def test_a_folder_in_its_place_is_an_error(place: Path) -> None:
    """What cannot be read is named."""
    (place / "user" / "config.toml").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot read"):
        load(place)


def test_a_pipe_can_be_named(place: Path) -> None:
    """`SIDESTREAM_CONFIG=<(…)` and /dev/null are fine: only what is read matters."""
    if sys.platform == "win32":
        pytest.skip("no such files there")
    assert load(place, env={"SIDESTREAM_CONFIG": os.devnull}) == Config(files=(os.devnull,))
