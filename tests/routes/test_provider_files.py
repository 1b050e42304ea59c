"""The provider files: all are sound, mistakes are told by place, and a user's own take nothing of others."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_providers import PAGE

from sidestream import Client, ConfigError, Route
from sidestream.routes import table
from sidestream.routes.providers import facts_for, provider, provider_of, providers, route_for, speaks
from sidestream.routes.table import Provider, Rule, load, matches, overlap, user_folder

DATA = Path(table.__file__).parent / "data"
FILES = sorted(path for path in DATA.glob("*.toml") if not path.name.startswith("_"))
PACKAGED = [load(path.read_text(encoding="utf-8"), path.name) for path in FILES]

GOOD = """\
id = "here"
name = "Here"
aliases = ["here-ai"]
hosts = ["here.example", "*.here.example"]
base_url = "https://here.example/v1"
key_env = ["HERE_API_KEY"]
checked = 2026-11-22
source = "https://here.example"

[[speaks]]
wire = "messages"
path = "/claude"

[[row]]
family = "Claude up to 4.5"
continuation = "trailing"
sample = "claude-opus-4-1"

[[row]]
models = ["*"]
continuation = "anchor"
sample = "new-1"

[[model]]
models = ["New-*"]
window = 8_000
"""


# The packaged ones.


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_sound_and_called_as_its_id(path: Path) -> None:
    """Every packaged file passes the whole check; its name is its id, which is what it is found by."""
    text = path.read_text(encoding="utf-8")
    found = load(text, path.name)
    assert found.id == path.stem
    for host in found.hosts:
        assert table._Text(path.name, text).may_own(host.replace("*", "x"), found.port or 443)
    assert not table._Text(path.name, text).may_own("elsewhere.example", 443)
    assert found.base_url or found.hosts
    assert not found.note or found.note.endswith(".")


def test_no_two_claim_the_same() -> None:
    """Ids, aliases, key variables and variables of endpoints are each one provider's, and hosts do not
    overlap."""
    for one, other in combinations(PACKAGED, 2):
        names = {one.id, *one.aliases}, {other.id, *other.aliases}
        assert not names[0] & names[1]
        assert not set(one.key_env) & set(other.key_env)
        assert not set(one.base_url_env) & set(other.base_url_env)
        assert not any(overlap(mine, theirs) for mine in one.hosts for theirs in other.hosts)


def test_every_family_is_used() -> None:
    """A list of models that nobody names is none."""
    used = {entry.family for each in PACKAGED for entry in (*each.rows, *each.models)} - {""}
    assert used == set(table._families())


@pytest.mark.parametrize("each", PACKAGED, ids=lambda each: each.id)
def test_every_statement_has_a_source(each: Provider) -> None:
    """Who says it, and when somebody last looked."""
    links = (each.source, each.models_source, *(row.source for row in each.rows if row.source))
    assert all(link.startswith("https://") for link in links)
    assert each.checked.year >= 2026


# What a file says.


def test_a_file_is_read_in_order() -> None:
    """Rows keep their order, a family stands for its patterns, and what is left out has its default."""
    here = load(GOOD, "here.toml")
    old, new = here.rows
    assert (old.family, new.family, new.models) == ("Claude up to 4.5", "", ("*",))
    assert "*claude-opus-4[-.][15]*" in old.models
    assert (here.wire, here.auth, here.billing, here.port, here.sign_in) == (
        "chat",
        "wire",
        "unknown",
        None,
        None,
    )
    assert here.rules == (Rule("messages", "/claude"),)
    assert (here.models[0].models, here.models[0].window) == (("new-*",), 8000)
    assert here.models_source == here.source


@pytest.mark.parametrize(
    ("good", "bad", "places"),
    [
        (
            'continuation = "anchor"',
            'continuation = "prefill"',
            ["line 21", "prefill", "row[1].continuation"],
        ),
        ('sample = "new-1"', 'sample = "new-1"\nmodel = "m"', ["line 19", "`model`", "row[1]"]),
        ('sample = "new-1"', "", ["line 19", "`sample`", "row[1]"]),
        ('hosts = ["here', 'host = ["here', ["`host`"]),
        ('hosts = ["here.example", "*.here.example"]', "hosts = [1]", ["line 4", "hosts[0]"]),
        ('hosts = ["here.example", "*.here.example"]', 'hosts = ["*"]', ["line 4", "hosts[0]"]),
        ('hosts = ["here.example", "*.here.example"]', 'hosts = ["Here.example"]', ["line 4", "hosts[0]"]),
        ('hosts = ["here.example", "*.here.example"]', 'hosts = ["a.example"]', ["line 5", "base_url"]),
        ('"https://here.example/v1"', '"http://here.example/v1"', ["line 5", "https", "base_url"]),
        ('"https://here.example/v1"', '"https://here.example:port"', ["line 5", "base_url"]),
        ("checked = 2026-11-22", 'checked = "lately"', ["line 7", "checked"]),
        ('source = "https://here.example"', 'source = "hearsay"', ["line 8", "source"]),
        ('source = "https://here.example"', "", ["`source`"]),
        ('name = "Here"', "", ["`name`"]),
        ('id = "here"', 'id = "Here!"', ["line 1", "id"]),
        ('aliases = ["here-ai"]', 'aliases = ["Here AI"]', ["line 3", "aliases[0]"]),
        ('"HERE_API_KEY"', '"sk-something"', ["line 6", "key_env[0]"]),
        ('name = "Here"', 'name = "Here"\nbilling = "maybe"', ["line 3", "maybe", "billing"]),
        ('name = "Here"', 'name = "Here"\nbilling = "stops"', ["line 3", "billing_source"]),
        ('name = "Here"', 'name = "Here"\nport = 0', ["line 3", "port"]),
        ('name = "Here"', 'name = "Here"\nauth = "magic"', ["line 3", "auth"]),
        ('name = "Here"', 'name = "Here"\nwire = "smoke"', ["line 3", "wire"]),
        ('name = "Here"', 'name = "Here"\nsign_in = "magic"', ["line 3", "sign_in"]),
        ('name = "Here"', 'name = "Here"\nheaders = {Authorization = "k"}', ["line 3", "Authorization"]),
        ('name = "Here"', 'name = "Here"\nrejects = ["n"]\nrequires = {n = 1}', ["line 3", "rejected"]),
        ('models = ["*"]', 'models = ["*"]\nwires = ["smoke"]', ["line 21", "smoke", "row[1].wires[0]"]),
        ('models = ["*"]', 'models = ["*"]\nwires = []', ["line 21", "row[1].wires"]),
        ('models = ["*"]', 'models = ["*"]\npath = "beta/"', ["line 21", "row[1].path"]),
        ('models = ["*"]', 'models = ["*"]\ncursor = "from"', ["line 21", "from", "row[1].cursor"]),
        ('models = ["*"]', 'models = ["*"]\nfamily = "Claude up to 4.5"', ["models", "row[1]"]),
        ('models = ["*"]', "", ["models", "row[1]"]),
        ('family = "Claude up to 4.5"', 'family = "young"', ["line 15", "young", "row[0].family"]),
        ("window = 8_000", "window = 0", ["line 26", "model[0].window"]),
        ("window = 8_000", "", ["says nothing", "model[0]"]),
        ('path = "/claude"', 'path = "claude"', ["line 12", "speaks[0].path"]),
        ("[[row]]\nmodels", "[[rows]]\nmodels", ["rows"]),
        ("[[model]]", "[[model]", ["line 24"]),
        ('name = "Here"', "name = Here", ["line 2"]),
    ],
)
def test_a_bad_file_is_reported_by_place(good: str, bad: str, places: list[str]) -> None:
    """What a file does not say right is a ConfigError that names the file, the line and the key."""
    assert GOOD.count(good) == 1
    with pytest.raises(ConfigError) as caught:
        load(GOOD.replace(good, bad), "here.toml")
    message = str(caught.value)
    assert message.startswith("here.toml")
    assert all(place in message for place in places), message


@given(st.text("ab.*", max_size=8), st.text("ab.", max_size=8))
def test_a_pattern_is_what_the_shell_says(pattern: str, text: str) -> None:
    """`*` stands for any characters, also none."""
    from fnmatch import fnmatchcase

    assert matches(pattern, text) == fnmatchcase(text, pattern)


@given(st.text("ab*", max_size=5), st.text("ab*", max_size=5), st.text("ab", max_size=6))
def test_patterns_with_a_text_in_common_overlap(one: str, other: str, text: str) -> None:
    """Who finds a text that both stand for has shown it; and the order does not count."""
    if matches(one, text) and matches(other, text):
        assert overlap(one, other)
    assert overlap(one, other) == overlap(other, one)


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ("*.a.example", "b.a.example", True),
        ("*.a.example", "*.b.example", False),
        ("a.*", "*.example", True),
        ("a.example", "a.example.evil", False),
    ],
)
def test_when_patterns_overlap(one: str, other: str, common: bool) -> None:
    """Only if there is a host that both stand for."""
    assert overlap(one, other) is common


# A user's own.


@pytest.fixture
def own(nobodys_providers: Path) -> Path:
    """The folder of a user's own files."""
    nobodys_providers.mkdir(parents=True)
    return nobodys_providers


def test_the_folder_is_where_the_configuration_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is said quickly is what platformdirs says."""
    for value in (str(tmp_path), "", "relative", None):
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        if value is not None:
            monkeypatch.setenv("XDG_CONFIG_HOME", value)
        said = platformdirs.user_config_path("sidestream", appauthor=False) / "providers"
        assert Path(user_folder()) == said
    assert sys.platform != "linux" or ".config" in user_folder()


def test_a_file_of_the_documentation_adds_a_provider(own: Path) -> None:
    """The example of docs/providers.md, put in the folder, is a provider as any other."""
    text = PAGE.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    (own / "acme.toml").write_text(text)
    each = provider("Acme-AI")
    assert each is not None
    assert providers()[0] is each is provider_of("https://llm.acme.example/v1")
    route = route_for("acme", "acme-large-2", api_key="k")
    assert (route.window, route.rejects, route.wire) == (128_000, {"temperature"}, "chat")
    assert speaks("https://llm.acme.example/v1", "claude-1").wire == "messages"
    assert Client(routes=[route]).routes[0].continuation == "anchor"


def test_a_file_with_a_known_id_replaces_that_provider(own: Path) -> None:
    """Its hosts, names and keys are its own then, and of the packaged one nothing is left."""
    text = GOOD.replace('"here"', '"groq"').replace("here-ai", "groq-ai").replace("HERE_API", "GROQ_API")
    text = text.replace("here.example", "api.groq.com")
    (own / "mine.toml").write_text(text)
    each = provider("groq")
    assert each is not None
    assert (each.name, each.file) == ("Here", str(own / "mine.toml"))
    assert facts_for(Route("https://api.groq.com/v1", "new-1", "chat")).window == 8000
    assert sum(one.id == "groq" for one in providers()) == 1


def test_an_own_id_beats_a_packaged_alias(own: Path) -> None:
    """Who calls a provider "kimi" means that one."""
    (own / "kimi.toml").write_text(GOOD.replace('id = "here"', 'id = "kimi"'))
    found = provider("kimi")
    assert found is not None
    assert found.name == "Here"
    assert provider("moonshot") is not None


@pytest.mark.parametrize(
    ("good", "bad", "whose"),
    [
        ('"here.example", ', '"here.example", "api.openai.com", ', "OpenAI"),
        ('"here.example", ', '"here.example", "api.*.com", ', "Anthropic"),
        ('"here.example", ', '"here.example", "*.openai.azure.com", ', "Azure OpenAI"),
        ('"here.example", ', '"here.example", "127.0.0.1", ', "Ollama"),
        ('aliases = ["here-ai"]', 'aliases = ["openai"]', "OpenAI"),
        ('aliases = ["here-ai"]', 'aliases = ["claude"]', "Anthropic"),
        ('"HERE_API_KEY"', '"OPENAI_API_KEY"', "OpenAI"),
        ('"HERE_API_KEY"', '"HERE_API_KEY", "GITHUB_TOKEN"', "GitHub Copilot"),
    ],
)
def test_an_own_file_takes_nothing_of_another(own: Path, good: str, bad: str, whose: str) -> None:
    """Another's host, name or key variable is refused by file and owner: keys would go elsewhere."""
    assert GOOD.count(good) == 1
    (own / "here.toml").write_text(GOOD.replace(good, bad))
    with pytest.raises(ConfigError, match=whose) as caught:
        provider_of("https://api.openai.com/v1")
    assert str(own / "here.toml") in str(caught.value)


def test_own_files_do_not_take_from_each_other(own: Path) -> None:
    """Two of them are as strange to each other as to a packaged one."""
    (own / "a.toml").write_text(GOOD)
    (own / "b.toml").write_text(GOOD.replace('id = "here"', 'id = "there"'))
    with pytest.raises(ConfigError, match=r"b\.toml: the host here\.example is Here's"):
        providers()
    (own / "b.toml").write_text(GOOD)


def test_another_port_of_this_machine_is_free(own: Path) -> None:
    """A server of one's own beside Ollama needs its port."""
    text = GOOD.replace('hosts = ["here.example", "*.here.example"]', 'hosts = ["127.0.0.1"]\nport = 8080')
    (own / "mine.toml").write_text(text.replace("https://here.example/v1", "http://127.0.0.1:8080/v1"))
    found = provider_of("http://127.0.0.1:8080/v1")
    assert found is not None
    assert found.id == "here"
    assert provider_of("http://127.0.0.1:8081/v1") is None
    ollama = provider_of("http://127.0.0.1:11434/v1")
    assert ollama is not None
    assert ollama.id == "ollama"


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_text(GOOD.replace('wire = "messages"', 'wire = "smoke"')), "line 11"),
        (lambda path: path.write_bytes(b"id = '\xff'"), "not UTF-8"),
        (lambda path: path.write_text("#" * 300_000), "larger than"),
        (lambda path: (path.write_text(GOOD), path.chmod(0o666)), "everybody can write"),
        (lambda path: path.mkdir(), "cannot read"),
    ],
)
def test_a_bad_own_file_is_an_error_of_the_first_client(own: Path, write, words: str) -> None:
    """Whatever is wrong with it, in whichever table: it is named, and no client is made without it."""
    write(own / "here.toml")
    with pytest.raises(ConfigError, match=words) as caught:
        route_for("openai", "gpt-5")
    assert str(own / "here.toml") in str(caught.value)
    assert caught.value.hint


def test_other_files_of_the_folder_are_left_alone(own: Path) -> None:
    """Only what ends in .toml is a provider's."""
    (own / "README").write_text("no provider")
    (own / "old.toml.bak").write_text("no provider")
    assert len(providers()) == len(PACKAGED)
