"""What the doctor says without asking anybody: it is what calls would get, and it holds no secret."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sidestream import AsyncClient, Client, NoRoute, Policy, Route, Secret, Timeouts, UsageError
from sidestream.doctor import Report, RouteReport, TaskReport, examine
from sidestream.doctor.examining import QUESTION
from sidestream.drivers import System
from sidestream.recovery.origins import Origins
from sidestream.recovery.worst import worst_of
from sidestream.routes.config import TaskConfig, parse
from sidestream.routes.plan import Choice

CANARY = "Canary0d41d8cd98f00b204"
CONFIG = """
main = "work"
fallbacks = ["local"]

[routes.work]
provider = "openai"
model = "gpt-5-mini"
api_key_env = ["WORK_KEY", "SPARE_KEY"]
header_env = {{ X-Org = "ORG" }}
headers = {{ X-Plain = "{canary}" }}
concurrency = 2
quality = 3

[routes.local]
base_url = "http://127.0.0.1:9/v1?key={canary}"
model = "llama3:8b"
timeout = 20

[routes.filed]
base_url = "https://far.test/v1"
wire = "messages"
model = "m"
api_key_file = "{file}"
vision = false

[routes.codex]
sign_in = "codex"
model = "gpt-5-codex"

[tasks.rank]
route = "codex"
only = true
concurrency = 1

[tasks.good]
quality = 2
timeout = 40
recoveries = 3

[tasks.vision]
route = "filed"
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys of our own, a home of our own, and nothing else."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL", "ANTHROPIC_API_KEY", "SPARE_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WORK_KEY", "ORG"):
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("CODEX_HOME", str(tmp_path / "codex"))
    monkeypatch.setenv("SIDESTREAM_CONFIG", "")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    key = tmp_path / "key"
    key.write_text(CANARY)
    key.chmod(0o644)
    text = CONFIG.format(canary=CANARY, file=key)
    with Client(config=parse(text, "c.toml"), policy=Policy(recoveries=5)) as made:
        yield made


def by_name(report: Report) -> dict[str, RouteReport]:
    return {route.name: route for route in report.routes}


def tasks(report: Report) -> dict[str, TaskReport]:
    return {task.name: task for task in report.tasks}


def test_every_route_is_there_once(client: Client) -> None:
    """All that is configured or would be asked has a row, a pool one for each key, whoever asks it."""
    assert list(by_name(examine(client))) == ["work", "work#2", "local", "filed", "codex"]


def test_a_route_says_what_is_known_of_it(client: Client) -> None:
    """Endpoint, wire and who says so, model facts, fields and limits are those that calls use."""
    routes = by_name(examine(client))
    work, local, filed = routes["work"], routes["local"], routes["filed"]
    assert (work.url, work.provider) == ("https://api.openai.com/v1", "OpenAI")
    assert (work.wire, work.wire_source, work.guessed) == ("responses", "OpenAI speaks it", False)
    assert work.headers == ("X-Org", "X-Plain")
    assert "temperature" in work.rejects
    assert (work.continuation, work.resumes, work.concurrency, work.quality) == ("anchor", True, 2, 3)
    assert work.window is not None
    assert work.window > 100_000
    assert (local.wire, local.guessed, local.url) == ("chat", True, "http://127.0.0.1:9/v1")
    assert local.wire_source == "nothing is known of this endpoint"
    assert local.clocks is not None
    assert local.clocks.total == 20
    assert (filed.wire, filed.wire_source, filed.vision) == ("messages", "it is configured", False)


def test_a_key_has_a_place_and_a_state(client: Client, tmp_path: Path) -> None:
    """Of each key the report says where it is and whether it is there."""
    routes = by_name(examine(client))
    keys = {name: (route.key.source, route.key.state, route.usable) for name, route in routes.items()}
    assert keys == {
        "work": ("env WORK_KEY", "set", True),
        "work#2": ("env SPARE_KEY", "missing", False),
        "local": ("", "none", True),
        "filed": (f"file {tmp_path / 'key'}", "set", True),
        "codex": (f"Codex sign-in in {tmp_path / 'codex'}", "missing", False),
    }
    assert "SPARE_KEY is not set" in routes["work#2"].problem
    assert "codex login" in routes["codex"].hint


def test_an_unusable_key_is_not_a_missing_one(client: Client, tmp_path: Path) -> None:
    """A key file that everybody can write is there, and refused."""
    (tmp_path / "key").chmod(0o666)
    filed = by_name(examine(client))["filed"]
    assert (filed.key.state, filed.usable) == ("unusable", False)
    assert "chmod 600" in filed.hint


def test_a_missing_header_is_not_a_missing_key(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A route that cannot be used for another reason still has its key."""
    monkeypatch.delenv("ORG")
    work = by_name(examine(client))["work"]
    assert (work.key.state, work.usable) == ("set", False)
    assert "ORG is not set" in work.problem


@dataclass(frozen=True)
class SignIn:
    """A credential of somebody's own."""

    label: str = "vault"
    remark: str = "it is open to others"

    def apply(self, route: Route) -> Route:
        return replace(route, api_key=Secret(CANARY), expires=5000.0)

    def renew(self, route: Route, seconds: float) -> Route | None:  # noqa: ARG002
        return None


def test_a_sign_in_says_when_it_expires() -> None:
    """A key that runs out is "signed in", with the moment from which it is renewed."""
    route = Route("https://h.test/v1", "m", "chat", credential=SignIn())
    with Client(routes=[route]) as client:
        (said,) = examine(client).routes
    assert (said.key.source, said.key.state, said.key.expires) == ("vault", "signed in", 5000.0)
    assert said.key.remark == "it is open to others"


def test_a_task_gets_what_its_calls_get(client: Client) -> None:
    """Order, clocks and bounds are those of the call a task would make; what is left out says why."""
    report = examine(client)
    rows = tasks(report)
    assert list(rows) == ["", "compression", "title", "extract", "vision", "rank", "good"]
    assert rows[""].routes == ("work", "local")
    assert rows[""].skipped == ("work#2: SPARE_KEY is not set",)
    assert rows["title"].timeouts == Timeouts(total=30)
    assert rows["compression"].atomic
    good = rows["good"]
    assert good.routes == ("work",)
    assert "local: its quality is 0, the task wants 2" in good.skipped
    assert good.worst is not None
    assert (good.worst.seconds, good.worst.attempts) == (40, 4)
    for name, row in rows.items():
        if row.worst is not None and name != "vision":
            call = client._call(QUESTION, "", (), Choice(name), None, None, {}, live=False)
            assert row.worst == worst_of(call)
            assert set(row.routes) == {route.name for route in call.routes}


def test_a_task_for_images_leaves_the_blind_out(client: Client) -> None:
    """The row of "vision" is that of a call with an image."""
    vision = tasks(examine(client))["vision"]
    assert vision.routes == ("work", "local")
    assert "filed: the model reads no images" in vision.skipped


def test_a_task_without_a_route_says_why(client: Client) -> None:
    """No route is a problem of the task; the report is there all the same, and not healthy."""
    report = examine(client)
    rank = tasks(report)["rank"]
    assert rank.routes == ()
    assert rank.worst is None
    assert "nobody is signed in" in rank.problem
    assert not report.healthy


def test_a_name_that_leads_nowhere_is_a_problem_of_its_task() -> None:
    """A program's task whose route does not exist does not keep the doctor from the others."""
    with Client("https://h.test/v1", model="m", tasks={"t": TaskConfig(route="nowhere")}) as client:
        report = examine(client)
    assert "no route 'nowhere'" in tasks(report)["t"].problem
    assert tasks(report)[""].routes == ("h.test/m",)
    assert not report.healthy


def test_one_task_can_be_looked_at(client: Client) -> None:
    """With a task named, the report has that and its routes, those that were left out included."""
    report = examine(client, task="good")
    assert [task.name for task in report.tasks] == ["good"]
    assert list(by_name(report)) == ["work", "work#2", "local"]
    assert list(by_name(examine(client, task="rank"))) == ["codex"]
    assert list(by_name(examine(client, task="vision"))) == ["filed", "work", "work#2", "local"]
    with pytest.raises(UsageError, match="no task 'rnak'"):
        examine(client, task="rnak")


def test_a_name_within_another_is_not_that_route() -> None:
    """The routes of a task are told by the plan, not by the words about what was left out."""
    text = "".join(
        f'[routes.{name}]\nbase_url = "https://{name}.test/v1"\nmodel = "m"\n{more}\n'
        for name, more in {"work": 'api_key_env = "SPARE_KEY"', "ork": ""}.items()
    )
    text = f'main = "ork"\n{text}[tasks.t]\nroute = "work"\nonly = true\n'
    with Client(config=parse(text, "c.toml")) as client:
        report = examine(client, task="t")
    assert list(by_name(report)) == ["work"]
    assert "SPARE_KEY is not set" in tasks(report)["t"].problem


def test_the_environment_alone_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a configuration the routes are the environment's, and their keys have a place, too."""
    key = tmp_path / "key"
    key.write_text(CANARY)
    for name, value in {
        "SIDESTREAM_MODEL": "m",
        "OPENAI_API_KEY": CANARY,
        "SIDESTREAM_FALLBACK_BASE_URL": "https://far.test/v1",
        "SIDESTREAM_FALLBACK_MODEL": "f",
        "SIDESTREAM_FALLBACK_API_KEY_FILE": str(key),
    }.items():
        monkeypatch.setenv(name, value)
    key.write_text(f"{CANARY}2")
    with Client() as client:
        report = examine(client)
    keys = {route.name: (route.key.source, route.key.state) for route in report.routes}
    assert keys == {
        "api.openai.com/m": ("env OPENAI_API_KEY", "set"),
        "far.test/f": ("file of env SIDESTREAM_FALLBACK_API_KEY_FILE", "set"),
    }
    assert report.healthy
    assert report.files == ()


def test_a_key_of_the_program_is_not_a_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A variable that names another key's file is not where an argument's key comes from."""
    (tmp_path / "key").write_text("another")
    monkeypatch.setenv("SIDESTREAM_API_KEY_FILE", str(tmp_path / "key"))
    with Client("https://far.test/v1", model="m", api_key=CANARY) as client:
        (said,) = examine(client).routes
    assert (said.key.source, said.key.state) == ("the program", "set")


def test_without_any_route_there_is_no_client_to_examine() -> None:
    """Nothing chosen and nothing found is said when the client is made."""
    with pytest.raises(NoRoute):
        Client()


def test_what_calls_have_learned_is_shown() -> None:
    """Parked routes stand last, breakers and learned facts have their reason; none of it is unhealthy."""
    now = [0.0]
    origins = Origins(lambda: now[0], lock=threading.RLock())
    first, second = (Route(f"https://{name}.test/v1", "m", "chat", Secret(CANARY)) for name in "ab")
    origins.park(first, "credential", 60, "no money")
    origins.learn(second, "no seed", "it does not like it")
    for _ in range(5):
        origins.began(second).ended("nothing")
    system = System(clock=time.monotonic, origins=origins)
    with Client(routes=[first, second], system=system) as client:
        report = examine(client)
    routes = by_name(report)
    assert tasks(report)[""].routes == ("b.test/m", "a.test/m")
    assert routes["a.test/m"].health.parked == "no money"
    assert routes["a.test/m"].health.parked_for == 60
    breaker = routes["b.test/m"].health.breaker
    assert breaker is not None
    assert (breaker.state, breaker.reason) == ("open", "5 attempts in a row brought nothing")
    assert [fact.what for fact in routes["b.test/m"].health.learned] == ["no seed"]
    assert report.healthy


def test_no_key_is_in_a_report(client: Client) -> None:
    """Keys in variables, files, headers and addresses are in no text form of the report."""
    report = examine(client)
    for text in (repr(report), str(report), msgspec.json.encode(report).decode()):
        assert CANARY not in text
        assert "work" in text


def test_both_clients_are_examined_alike(client: Client, tmp_path: Path) -> None:
    """The report of the async client is that of the sync one."""
    import asyncio

    async def other() -> Any:
        text = CONFIG.format(canary=CANARY, file=tmp_path / "key")
        async with AsyncClient(config=parse(text, "c.toml"), policy=Policy(recoveries=5)) as twin:
            return examine(twin)

    assert replace(asyncio.run(other()), at=0.0) == replace(examine(client), at=0.0)
