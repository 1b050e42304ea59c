"""Which routes a call takes: their order, what each setting comes from, and what is left out and why."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidestream import (
    Client,
    ConfigError,
    NoRoute,
    Policy,
    Prices,
    Route,
    Secret,
    TaskConfig,
    Timeouts,
    UsageError,
)
from sidestream.routes.config import parse
from sidestream.routes.plan import BUILT_IN, Choice, Plan, Planner
from sidestream.wire.prompt import Request

KEYS = {f"KEY_{name}": f"key-of-{name}" for name in ("MAIN", "SECOND", "THIRD", "CHEAP", "SIDE", "POOL")}
SIX = """\
main = "main"
fallbacks = ["second", "third"]
"""


def table(name: str, **more: Any) -> str:
    lines = [f"[routes.{name}]", f'base_url = "https://{name}.test/v1"', 'wire = "chat"']
    if "model" not in more:
        lines.append(f'model = "m-{name}"')
    if "api_key_env" not in more:
        lines.append(f'api_key_env = "KEY_{name.upper()}"')
    for field, value in more.items():
        lines.append(f"{field} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + " }"
    return str(value) if isinstance(value, int | float | list) else f'"{value}"'


ROUTES = "".join(map(table, ("main", "second", "third", "cheap", "side")))


def planner(text: str = "", environ: dict[str, str] | None = None, **more: Any) -> Planner:
    return Planner(parse(text, "config.toml"), environ={**KEYS, **(environ or {})}, **more)


def names(plan: Plan) -> list[str]:
    return [route.name for route in plan.routes]


def ask(text: str = "hi", **params: Any) -> Request:
    return Request(({"role": "user", "content": text},), params=params)


# The order.


@pytest.mark.parametrize(
    ("task", "order"),
    [
        ("", ["main", "second", "third"]),
        ("[tasks.t]\n", ["main", "second", "third"]),
        ('[tasks.t]\nroute = "cheap"\n', ["cheap", "main", "second", "third"]),
        ('[tasks.t]\nfallbacks = ["side"]\n', ["main", "side", "second", "third"]),
        (
            '[tasks.t]\nroute = "cheap"\nfallbacks = ["side", "third"]\n',
            ["cheap", "side", "third", "main", "second"],
        ),
        ('[tasks.t]\nroute = "cheap"\nonly = true\n', ["cheap"]),
        ('[tasks.t]\nroute = "cheap"\nfallbacks = ["side"]\nonly = true\n', ["cheap", "side"]),
        ('[tasks.t]\nfallbacks = ["side"]\nonly = true\n', ["side"]),
        ('[tasks.t]\nmodel = "other"\n', ["main.test/other", "main", "second", "third"]),
        ('[tasks.t]\nmodel = "other"\nonly = true\n', ["main.test/other"]),
    ],
)
def test_order(task: str, order: list[str]) -> None:
    """The task's own, its fallbacks, the main route, the global fallbacks; tied down, the first two."""
    assert names(planner(SIX + ROUTES + task).plan(Choice("t" if task else ""))) == order


def test_a_calls_own_route_goes_before_all() -> None:
    """Then only the task's own fallbacks: an explicit choice is not exchanged for the main route."""
    made = planner(SIX + ROUTES + '[tasks.t]\nroute = "cheap"\nfallbacks = ["third"]\n')
    assert names(made.plan(Choice(route="side"))) == ["side"]
    assert names(made.plan(Choice("t", route="side"))) == ["side", "third"]
    own = Route("https://own.test/v1", "m", name="own")
    assert names(made.plan(Choice(route=own))) == ["own"]


def test_one_route_is_asked_once() -> None:
    """However often it is named, by whatever name."""
    twin = table("twin", base_url="https://main.test/v1", model="m-main", api_key_env="KEY_MAIN")
    twin = twin.replace('base_url = "https://twin.test/v1"\n', "", 1)
    made = planner('main = "main"\nfallbacks = ["twin", "second", "main", "second"]\n' + ROUTES + twin)
    assert names(made.plan(Choice())) == ["main", "second"]


def test_a_provider_with_a_model_is_a_route() -> None:
    """Named "provider:model", a model with colons of its own included."""
    made = planner('main = "groq:llama-4"\nfallbacks = ["ollama:qwen3:8b"]\n', {"GROQ_API_KEY": "gsk"})
    first, second = made.plan(Choice()).routes
    assert (first.origin, first.model, first.api_key) == (
        "https://api.groq.com:443",
        "llama-4",
        Secret("gsk"),
    )
    assert second.model == "qwen3:8b"


def test_routes_that_were_given_are_all_there_is() -> None:
    """In their order; what lies in the environment is nobody's business."""
    routes = [Route("https://a.test/v1", "m", name="a"), Route("https://b.test/v1", "m", name="b")]
    environ = {"OPENAI_API_KEY": "sk", "OPENAI_MODEL": "gpt", "SIDESTREAM_FALLBACK_MODEL": "f"}
    made = Planner(routes=routes, environ=environ)
    assert names(made.plan(Choice())) == names(made.plan(Choice("title"))) == ["a", "b"]


# The environment, and silent spend (field cases 39, 72).

LEFT_OVER = {"OPENROUTER_API_KEY": "sk-or", "ANTHROPIC_API_KEY": "sk-ant", "OPENAI_API_KEY": "sk-oa"}


def test_a_left_over_key_is_never_used() -> None:
    """Field case 72: with a main route chosen, no other provider is asked, whatever keys lie about."""
    for more in ("", "discover = true\n"):
        made = planner('main = "main"\n' + more + ROUTES, LEFT_OVER)
        assert names(made.plan(Choice())) == ["main"]
        assert names(made.plan(Choice("title"))) == ["main"]


def test_without_a_main_route_nothing_is_discovered_unless_asked_for() -> None:
    """Then it is: providers whose key is there, with the model that their file names."""
    with pytest.raises(NoRoute, match="no model is chosen"):
        planner("", LEFT_OVER).plan(Choice())
    found = planner("discover = true\n", LEFT_OVER).plan(Choice()).routes
    assert {route.host for route in found} >= {"api.openai.com", "api.anthropic.com"}
    for route in found:
        assert route.api_key is not None
    assert (
        not planner("discover = true\n[tasks.t]\nonly = true\nroute = 'cheap'\n" + ROUTES, LEFT_OVER)
        .plan(Choice("t"))
        .routes[1:]
    )


def test_a_main_route_without_its_key_is_not_replaced() -> None:
    """It was chosen: its absence is an error that names the variable, not somebody else's bill."""
    made = planner('main = "main"\ndiscover = true\n' + ROUTES, LEFT_OVER | {"KEY_MAIN": ""})
    with pytest.raises(NoRoute, match="KEY_MAIN is not set"):
        made.plan(Choice())


def test_a_route_without_its_key_is_left_out_and_told() -> None:
    """The others are asked, and the plan says what is missing."""
    plan = planner(SIX + ROUTES, {"KEY_SECOND": ""}).plan(Choice())
    assert names(plan) == ["main", "third"]
    assert plan.skipped == ("second: KEY_SECOND is not set",)


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "'fast'", "true"])
def test_a_timeout_of_nothing_is_refused(timeout: str) -> None:
    """Field case 39: it is no time, and it is said when the file is read."""
    for place in ("[defaults]", "[tasks.title]", '[routes.x]\nmodel = "m"\nbase_url = "https://x.test/v1"'):
        with pytest.raises(ConfigError, match="timeout"):
            parse(f"{place}\ntimeout = {timeout}\n", "config.toml")
    with pytest.raises(UsageError):
        Timeouts(total=float(timeout) if timeout[0] in "0-ni" else timeout)  # type: ignore[arg-type]


ENVIRONMENT = {
    "SIDESTREAM_BASE_URL": "https://env.test/v1",
    "SIDESTREAM_MODEL": "m-env",
    "SIDESTREAM_API_KEY": "key-of-env",
}
FALLBACK = {
    "SIDESTREAM_FALLBACK_BASE_URL": "https://plan-b.test/v1",
    "SIDESTREAM_FALLBACK_MODEL": "m-b",
    "SIDESTREAM_FALLBACK_API_KEY": "key-of-b",
}


def test_half_a_fallback_of_the_environment_is_nobodys_with_configured_ones() -> None:
    """What the configuration says of fallbacks takes the place of the environment's, whatever that is."""
    half = {"SIDESTREAM_BASE_URL": "https://env.test/v1", "SIDESTREAM_MODEL": "m"}
    half["SIDESTREAM_FALLBACK_MODEL"] = "f"
    routes = planner(f'fallbacks = ["second"]\n{ROUTES}', half).plan(Choice()).routes
    assert [route.name for route in routes] == ["env.test/m", "second"]
    with pytest.raises(ConfigError, match="half configured"):
        planner("", half).plan(Choice())


def test_a_client_of_one_endpoint_beside_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint is the main one; of a fallback in variables nothing is looked at."""
    monkeypatch.setenv("SIDESTREAM_FALLBACK_MODEL", "f")
    monkeypatch.setenv("KEY_SECOND", "k")
    with Client(
        "https://own.test/v1", model="m", config=parse(f'fallbacks = ["second"]\n{ROUTES}', "c")
    ) as client:
        assert [route.name for route in client.routes] == ["own.test/m", "second"]


def test_the_environment_is_read_for_every_call() -> None:
    """What a variable says now counts now, though what follows from it is kept."""
    environ = {"SIDESTREAM_BASE_URL": "https://env.test/v1", "SIDESTREAM_MODEL": "m"}
    environ["SIDESTREAM_API_KEY"] = "1"
    made = Planner(environ=environ)
    first = made.plan(Choice()).routes
    assert made.plan(Choice()).routes[0] is first[0]
    environ["SIDESTREAM_API_KEY"] = "2"
    assert [route.api_key for route in made.plan(Choice()).routes] == [Secret("2")]
    environ["SIDESTREAM_FALLBACK_BASE_URL"] = "https://spare.test/v1"
    environ["SIDESTREAM_FALLBACK_MODEL"] = "s"
    assert [route.name for route in made.plan(Choice()).routes] == ["env.test/m", "spare.test/s"]


def test_a_route_that_a_call_brings_is_not_kept() -> None:
    """A planner holds on to no key but those of its own routes."""
    made = Planner(routes=[])
    given = Route("https://own.test/v1", "m", "chat", Secret("key"))
    made.plan(Choice(route=given))
    gone = weakref.ref(given)
    del given
    gc.collect()
    assert gone() is None


def test_the_environment_is_the_lowest_layer_of_each_setting() -> None:
    """A main route and a fallback in variables, each unless the configuration says it."""
    assert names(planner("", ENVIRONMENT).plan(Choice())) == ["env.test/m-env"]
    both = ENVIRONMENT | FALLBACK
    assert names(planner("", both).plan(Choice())) == ["env.test/m-env", "plan-b.test/m-b"]
    assert names(planner('main = "main"\n' + ROUTES, both).plan(Choice())) == ["main", "plan-b.test/m-b"]
    assert names(planner('main = "main"\n' + ROUTES, FALLBACK).plan(Choice())) == ["main", "plan-b.test/m-b"]
    assert names(planner('fallbacks = ["third"]\n' + ROUTES, both).plan(Choice())) == [
        "env.test/m-env", "third",
    ]  # fmt: skip
    assert names(planner("fallbacks = []\n", both).plan(Choice())) == ["env.test/m-env"]


def test_what_every_call_starts_from_holds_for_every_route() -> None:
    """[defaults] are no matter of where a route was found, nor of by which name a field is said."""
    low = "[defaults]\nconcurrency = 3\nparams = { temperature = 0.5, max_output_tokens = 9 }\n"
    own = Route("https://own.test/v1", "m", params={"max_tokens": 5}, concurrency=1)
    for choice, text, environ in (
        (Choice(), "", ENVIRONMENT),
        (Choice(), 'main = "main"\n', {}),
        (Choice(route="groq:llama-4"), "", {"GROQ_API_KEY": "gsk"}),
        (Choice(route=own), "", {}),
    ):
        (route, *_) = planner(text + low + ROUTES, environ).plan(choice).routes
        assert route.params["temperature"] == 0.5
        if choice.route is own:
            assert (route.concurrency, route.params["max_tokens"]) == (1, 5)
            assert "max_output_tokens" not in route.params
        else:
            assert (route.concurrency, route.params["max_output_tokens"]) == (3, 9)


# Argument beats task beats configuration beats environment, setting by setting.


def client(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Client:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "config.toml"
    file.write_text(text)
    return Client(config=file, **more)


def made(client: Client, task: str = "", **arguments: Any) -> Any:
    """The call that these arguments make, as `complete` makes it."""
    timeout, empty = arguments.pop("timeout", None), arguments.pop("empty_is_failure", None)
    choice = Choice(task, arguments.pop("route", None), arguments.pop("model", None))
    words = arguments.pop("instructions", "")
    return client._call("hi", words, (), choice, timeout, empty, arguments, live=False)


CLOCKS = ("total", "first", "idle", "connect")


@pytest.mark.parametrize("clock", CLOCKS)
def test_clocks_by_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: str) -> None:
    """Argument, task, program, [defaults], the library's own; each alone and all together."""
    word = "timeout" if clock == "total" else clock
    low, task = f"[defaults]\n{word} = 11\n", f"[tasks.t]\n{word} = 12\n"
    plain = 'main = "main"\n'
    usual = getattr(Timeouts(), clock)

    def value(text: str, task: str = "", program: Any = None, **arguments: Any) -> Any:
        with client(tmp_path, plain + text + ROUTES, monkeypatch, timeout=program) as asked:
            return getattr(made(asked, task, **arguments).timeouts, clock)

    own = Timeouts(**{clock: 13.0})
    said = Timeouts(**{clock: 14.0})
    assert value("[tasks.t]\n", "t") == usual
    assert value(low + "[tasks.t]\n", "t") == 11
    assert value(low, "", own) == 13
    assert value(low + task, "t", own) == 12
    assert value(low + task, "", own) == 13
    assert value(low + task, "t", own, timeout=said) == 14
    if clock == "total":
        assert value(low + task, "t", own, timeout=15) == 15
    else:
        assert value(low + task, "t", own, timeout=15) == 12, "a number is the total alone"


@pytest.mark.parametrize(
    ("limit", "values"), [("tries", (3, 4, 5)), ("recoveries", (3, 4, 5)), ("max_cost", (0.5, 0.25, 2.0))]
)
def test_limits_by_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, values: tuple[float, ...]
) -> None:
    """Task, program, [defaults], the library's own."""
    low, high, program = values
    text = f'main = "main"\n[defaults]\n{limit} = {low}\n[tasks.t]\n{limit} = {high}\n[tasks.u]\n' + ROUTES
    with client(tmp_path, text, monkeypatch) as asked:
        assert [getattr(made(asked, task).policy, limit) for task in ("", "u", "t")] == [low, low, high]
    with client(tmp_path, text, monkeypatch, policy=Policy(**{limit: program})) as asked:
        assert [getattr(made(asked, task).policy, limit) for task in ("", "t")] == [program, high]


@pytest.mark.parametrize("name", ["max_tokens", "max_output_tokens", "max_completion_tokens"])
def test_fields_by_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Argument, task, route, [defaults]: one field by three names is one field."""
    route = table("main", params={"max_tokens": 2})
    low = "[defaults]\nparams = { max_output_tokens = 1, seed = 7 }\n"
    text = f'main = "main"\n{low}{route}[tasks.t]\nparams.{name} = 3\n[tasks.u]\n'
    with client(tmp_path, text, monkeypatch) as asked:

        def sent(task: str, **params: Any) -> dict[str, Any]:
            from sidestream.recovery.origins import Origins
            from sidestream.recovery.routing import Routing

            call = made(asked, task, **params)
            return Routing(call.routes, call.request, Origins(lambda: 0.0), 0.0, 9.0).request().params

        assert sent("u") == {"seed": 7, "max_tokens": 2}
        assert sent("t") == {"seed": 7, name: 3}
        assert sent("t", max_tokens=4) == {"seed": 7, "max_tokens": 4}
        assert sent("t", seed=None) == {"seed": 7, name: 3}
        assert sent("u", max_completion_tokens=5, seed=1) == {"seed": 1, "max_completion_tokens": 5}


def test_the_built_in_limit_of_a_task_gives_way() -> None:
    """A title has 256 tokens unless somebody says otherwise, by any name."""
    with Client(routes=[Route("https://a.test/v1", "m")]) as asked:
        assert made(asked, "title").request.params == {"max_output_tokens": 2048}
        assert made(asked, "title", max_tokens=9).request.params == {"max_tokens": 9}


@pytest.mark.parametrize("setting", ["empty_is_failure", "instructions", "concurrency", "atomic"])
def test_what_a_task_says_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    """The configuration over the program's own task, key by key, and an argument over both."""
    values: dict[str, tuple[Any, Any, Any]] = {
        "empty_is_failure": (True, False, True),
        "instructions": ("of the program", "of the file", "of the call"),
        "concurrency": (2, 5, None),
        "atomic": (True, False, None),
    }
    program, file, call = values[setting]
    text = f'main = "main"\n{ROUTES}[tasks.t]\n{setting} = {_toml(file)}\n[tasks.u]\ntimeout = 5\n'
    tasks = {name: TaskConfig(**{setting: program}) for name in ("t", "u")}
    with client(tmp_path, text, monkeypatch, tasks=tasks) as asked:
        assert getattr(asked.task("t"), setting) == file
        assert getattr(asked.task("u"), setting) == program
        assert asked.task("u").timeout == 5
        if setting == "instructions":
            assert made(asked, "t").request.instructions == file
            assert made(asked, "t", instructions=call).request.instructions == call
        elif setting == "empty_is_failure":
            assert made(asked, "t").empty_is_failure is file
            assert made(asked, "t", empty_is_failure=call).empty_is_failure is call
        elif setting == "concurrency":
            assert made(asked, "t").concurrency == file
        else:
            assert asked._orders("t", None, None, None).atomic is file
            assert asked._orders("t", None, True, None).atomic is True


def test_the_users_own_turn_goes_before_side_tasks() -> None:
    """A call for a task stands behind one for none."""
    with Client(routes=[Route("https://a.test/v1", "m")]) as asked:
        assert made(asked).priority < made(asked, "title").priority


def test_built_in_tasks_are_there_without_a_configuration() -> None:
    """Those that this library has itself, and an unknown one is an error with a suggestion."""
    assert set(planner().tasks) >= {"compression", "title", "extract", "vision"} == set(BUILT_IN)
    with pytest.raises(UsageError) as caught:
        planner().task("titel")
    assert caught.value.hint == "did you mean 'title'?"
    with pytest.raises(UsageError) as caught:
        planner().task("quux")
    assert "[tasks.quux]" in caught.value.hint


# A model never travels (field case 70).


def test_another_model_is_for_the_route_that_is_asked_first() -> None:
    """Field case 70: the fallbacks keep their own, and what was said of the old model does not hold."""
    text = table(
        "main", window=9000, vision=True, quality=5, prices={"input": 1, "output": 2}, timeout=30
    ) + "".join(map(table, ("second", "third")))
    plan = planner(SIX + text).plan(Choice(model="other"))
    assert [route.model for route in plan.routes] == ["other", "m-second", "m-third"]
    first = plan.routes[0]
    assert (first.window, first.vision, first.quality, first.prices) == (None, None, 0, None)
    assert (first.api_key, first.clocks and first.clocks.total) == (Secret("key-of-MAIN"), 30)


@given(
    fallbacks=st.lists(st.sampled_from(["main", "second", "third", "cheap", "side"]), unique=True),
    by_task=st.booleans(),
)
def test_no_fallback_is_ever_asked_for_a_model_that_is_not_its_own(
    fallbacks: list[str], *, by_task: bool
) -> None:
    """Whatever is configured: each host gets its own model, but for the first."""
    where = f"fallbacks = {fallbacks}\n"
    text = (
        'main = "main"\n' + ("" if by_task else where) + ROUTES + "[tasks.t]\n" + (where if by_task else "")
    )
    plan = planner(text).plan(Choice("t", model="travelling"))
    assert plan.routes[0].model == "travelling"
    for route in plan.routes[1:]:
        assert route.model == f"m-{route.host.removesuffix('.test')}"


def test_what_is_known_of_the_old_model_is_not_said_of_the_new() -> None:
    """A provider's models differ in what they reject: the facts are looked up anew."""
    environ = {"OPENAI_API_KEY": "sk"}
    reasoning = planner('main = "openai:o3"\n', environ).plan(Choice()).routes[0]
    plain = planner('main = "openai:gpt-4.1"\n', environ).plan(Choice()).routes[0]
    assert reasoning.rejects != plain.rejects
    other = planner('main = "openai:o3"\n', environ).plan(Choice(model="gpt-4.1")).routes[0]
    assert (other.rejects, other.renames, other.window) == (plain.rejects, plain.renames, plain.window)
    back = planner('main = "openai:gpt-4.1"\n', environ, model="o3").plan(Choice()).routes[0]
    assert (back.rejects, back.renames, back.window) == (
        reasoning.rejects,
        reasoning.renames,
        reasoning.window,
    )


@pytest.mark.parametrize("model", ["auto", " ", ""])
def test_auto_is_no_model(model: str) -> None:
    """It is never on the wire: as an argument it is an error, not a reason to ask another route."""
    asked = planner(SIX + ROUTES)
    if not model:
        assert names(asked.plan(Choice(model=model))) == ["main", "second", "third"]
        return
    with pytest.raises(ConfigError, match="model"):
        asked.plan(Choice(model=model))
    with pytest.raises(ConfigError):
        asked.plan(Choice(route=f"groq:{model}"))


@pytest.mark.parametrize(
    "text",
    [
        'main = "auto"\n',
        'main = "openai:auto"\n',
        '[tasks.t]\nroute = "auto"\n',
        '[tasks.t]\nmodel = "auto"\n',
        '[routes.x]\nbase_url = "https://x.test/v1"\nmodel = "auto"\n',
    ],
)
def test_auto_in_a_configuration_is_refused(text: str) -> None:
    """When it is read, or when it is asked for."""
    with pytest.raises(ConfigError):
        planner(text + "\n" + ROUTES, ENVIRONMENT).plan(Choice("t" if "tasks" in text else ""))


# Pools.

POOL = table("main", api_key_env=["KEY_MAIN", "KEY_POOL"]) + table("second")
KEYS_OF_POOL = [Secret("key-of-MAIN"), Secret("key-of-POOL")]


def test_a_route_with_several_keys_is_several_routes() -> None:
    """One after the other, at the same endpoint with the same model."""
    plan = planner('main = "main"\nfallbacks = ["second"]\n' + POOL).plan(Choice())
    assert names(plan) == ["main", "main#2", "second"]
    assert [route.api_key for route in plan.routes[:2]] == KEYS_OF_POOL
    assert plan.routes[0].part("model") == plan.routes[1].part("model")


@pytest.mark.parametrize("how", ["argument", "task", "program"])
def test_another_model_is_asked_with_every_key(how: str) -> None:
    """A pool stays a pool."""
    text = 'main = "main"\nfallbacks = ["second"]\n' + POOL + "[tasks.t]\n"
    if how == "argument":
        routes = planner(text).plan(Choice(model="other")).routes
    elif how == "program":
        routes = planner(text, model="other").plan(Choice()).routes
    else:
        routes = planner(text + 'model = "other"\n').plan(Choice("t")).routes
    assert [(route.model, route.api_key) for route in routes[:2]] == [("other", key) for key in KEYS_OF_POOL]
    assert len({route.name for route in routes}) == len(routes)


def test_a_key_of_a_pool_that_is_missing_is_left_out() -> None:
    """The other one is asked."""
    plan = planner('main = "main"\n' + POOL, {"KEY_MAIN": ""}).plan(Choice())
    assert names(plan) == ["main#2"]
    assert plan.skipped == ("main: KEY_MAIN is not set",)


def test_a_key_that_is_there_twice_is_one() -> None:
    """Two variables with the same value."""
    assert names(planner('main = "main"\n' + POOL, {"KEY_POOL": "key-of-MAIN"}).plan(Choice())) == ["main"]


def test_a_key_that_was_replaced_is_used_by_the_next_call() -> None:
    """It is read for each plan."""
    environ = dict(KEYS)
    asked = Planner(parse('main = "main"\n' + ROUTES, "c"), environ=environ)
    assert asked.plan(Choice()).routes[0].api_key == Secret("key-of-MAIN")
    environ["KEY_MAIN"] = "key-of-tomorrow"
    assert asked.plan(Choice()).routes[0].api_key == Secret("key-of-tomorrow")


def test_headers_from_variables_are_read_for_each_plan() -> None:
    """As keys are; one that is missing leaves its route out."""
    text = (
        'main = "main"\nfallbacks = ["second"]\n'
        + table("main", header_env={"X-Org": "ORG"})
        + table("second")
    )
    environ = {**KEYS, "ORG": "org-one"}
    asked = Planner(parse(text, "c"), environ=environ)
    assert asked.plan(Choice()).routes[0].headers["X-Org"] == "org-one"
    environ["ORG"] = "org-two"
    assert asked.plan(Choice()).routes[0].headers["X-Org"] == "org-two"
    assert asked.plan(Choice(model="other")).routes[0].headers["X-Org"] == "org-two"
    del environ["ORG"]
    assert asked.plan(Choice()).skipped == ("main: ORG is not set",)


# What cannot serve the call.

IMAGE = Request(
    (
        {"role": "user", "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0KGgo" * 20_000}},
        ]},
    )
)  # fmt: skip


def test_who_cannot_see_is_not_shown_images() -> None:
    """A text model is left out for a request with one, and asked for others; who may see is asked."""
    text = table("main", vision=False) + table("second", vision=True) + table("third")
    asked = planner(SIX + text)
    plan = asked.plan(Choice(), IMAGE)
    assert names(plan) == ["second", "third"]
    assert plan.skipped == ("main: the model reads no images",)
    assert names(asked.plan(Choice(), ask())) == ["main", "second", "third"]


def test_an_image_is_not_read_as_text() -> None:
    """220,000 characters of base64 are no 55,000 tokens: a window of 32,000 holds them."""
    text = table("main", window=32_000) + table("second", window=1_000_000)
    asked = planner('main = "main"\nfallbacks = ["second"]\n' + text)
    assert names(asked.plan(Choice(), IMAGE)) == ["main", "second"]


def test_a_task_may_refuse_weaker_models() -> None:
    """Below its floor nothing is asked, and an unknown quality is 0."""
    text = table("main", quality=2) + table("second", quality=3) + table("third")
    asked = planner(SIX + text + "[tasks.t]\nquality = 3\n[tasks.u]\nquality = 9\n[tasks.v]\n")
    plan = asked.plan(Choice("t"))
    assert names(plan) == ["second"]
    assert plan.skipped == (
        "main: its quality is 2, the task wants 3",
        "third: its quality is 0, the task wants 3",
    )
    assert names(asked.plan(Choice("v"))) == ["main", "second", "third"]
    with pytest.raises(NoRoute, match="no route for task u can be asked: main: its quality is 2"):
        asked.plan(Choice("u"))


WINDOWS = SIX + table("main", window=8_000) + table("second", window=1_000_000) + table("third")


def test_a_small_window_is_passed_over_for_a_large_prompt() -> None:
    """Field case 71: 8K first and 1M next; what is not known may be enough."""
    plan = planner(WINDOWS).plan(Choice(), ask("word " * 20_000))
    assert names(plan) == ["second", "third"]
    assert "main: its window of 8000 tokens is smaller than" in plan.skipped[0]
    assert names(planner(WINDOWS).plan(Choice(), ask())) == ["main", "second", "third"]
    assert names(planner(WINDOWS).plan(Choice())) == ["main", "second", "third"]


def test_if_all_windows_are_too_small_the_largest_is_tried() -> None:
    """It is an estimate: the provider decides. A floor that the task sets is none."""
    text = (
        'main = "main"\nfallbacks = ["second"]\n'
        + table("main", window=2_000)
        + table("second", window=4_000)
    )
    big = ask("word " * 20_000)
    assert names(planner(text).plan(Choice(), big)) == ["second"]
    with pytest.raises(NoRoute, match="window"):
        planner(text + "[tasks.t]\nmin_window = 5000\n").plan(Choice("t"), ask())
    assert names(planner(WINDOWS + "[tasks.t]\nmin_window = 64000\n").plan(Choice("t"), ask())) == [
        "second",
        "third",
    ]


# Names that lead nowhere.


@pytest.mark.parametrize(
    ("choice", "hint"),
    [
        (Choice(route="secnd"), "did you mean 'second'?"),
        (Choice(route="zzz"), "provider:model"),
        (Choice(route="opnai:gpt"), "did you mean 'openai'?"),
        (Choice(route="nobody-at-all:gpt"), "base_url"),
        (Choice(main="secnd"), "did you mean 'second'?"),
    ],
)
def test_an_unknown_name_is_an_error_with_a_suggestion(choice: Choice, hint: str) -> None:
    """It is never taken for something else."""
    with pytest.raises(ConfigError) as caught:
        planner(SIX + ROUTES).plan(choice)
    assert hint in caught.value.hint


def test_an_empty_plan_says_what_was_left_out() -> None:
    """All of it, and no key."""
    with pytest.raises(NoRoute) as caught:
        planner(SIX + ROUTES, dict.fromkeys(KEYS, "")).plan(Choice())
    for name in ("KEY_MAIN", "KEY_SECOND", "KEY_THIRD"):
        assert f"{name} is not set" in str(caught.value)


# The main route of the moment.


def test_a_live_main_route_counts_from_the_next_call_on() -> None:
    """A plan is frozen; the task's own route still goes first, and the fallbacks stay."""
    asked = planner(SIX + ROUTES + '[tasks.t]\nroute = "cheap"\n')
    before = asked.plan(Choice())
    live = Route("https://live.test/v1", "m-live", api_key=Secret("key-of-live"), name="live")
    asked.main = live
    assert names(asked.plan(Choice())) == ["live", "second", "third"]
    assert names(asked.plan(Choice("t"))) == ["cheap", "live", "second", "third"]
    assert names(before) == ["main", "second", "third"]
    assert names(asked.plan(Choice(main="side"))) == ["side", "second", "third"], "the call's own"
    asked.main = "third"
    assert names(asked.plan(Choice())) == ["third", "second"]
    asked.main = None
    assert names(asked.plan(Choice())) == ["main", "second", "third"]


def test_the_live_main_route_gets_a_tasks_model() -> None:
    """A task that names only a model means one of whoever is main now."""
    asked = planner(SIX + ROUTES + '[tasks.t]\nmodel = "small"\nonly = true\n')
    asked.main = Route("https://live.test/v1", "m-live", api_key=Secret("key-of-live"), name="live")
    (route,) = asked.plan(Choice("t")).routes
    assert (route.origin, route.model, route.api_key) == (
        "https://live.test:443", "small", Secret("key-of-live"),
    )  # fmt: skip


def test_a_client_checks_its_main_route_and_can_forget_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads nowhere is refused, and the old one stays; None is always allowed."""
    with client(tmp_path, SIX + ROUTES, monkeypatch) as asked:
        asked.main = "side"
        with pytest.raises(ConfigError):
            asked.main = "sied"
        assert asked.main == "side"
        assert asked.routes[0].name == "side"
        asked.main = None
        assert asked.routes[0].name == "main"
    monkeypatch.setenv("SIDESTREAM_CONFIG", "")
    for name in ("SIDESTREAM_MODEL", "OPENAI_MODEL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with Client(routes=()) as bare:
        bare.main = Route("https://live.test/v1", "m-live")
        bare.main = None
        assert bare.routes == ()


# What a plan shows.


def test_a_plan_shows_no_key() -> None:
    """Neither its text nor what was left out."""
    asked = planner(SIX + ROUTES, {"KEY_SECOND": "key-of\nSECOND"})
    plan = asked.plan(Choice())
    shown = f"{plan!r} {plan.skipped} {asked!r}"
    assert "key-of" not in shown
    assert plan.skipped == ("second: KEY_SECOND holds characters that cannot be sent",)


def test_prices_of_a_route_are_its_own() -> None:
    """They follow it into the plan."""
    text = table("main", prices={"input": 1, "output": 2})
    assert planner('main = "main"\n' + text).plan(Choice()).routes[0].prices == Prices(1, 2)


def test_a_programs_own_clock_beats_this_librarys_and_gives_way_to_the_tasks() -> None:
    """Whoever says `Client(timeout=30)` means side tasks, too, unless somebody speaks of the task itself."""
    assert planner().timeouts(None, "compression").total == BUILT_IN["compression"].timeout
    assert planner().timeouts(30, "compression").total == 30
    assert planner("[tasks.compression]\ntimeout = 45\n").timeouts(30, "compression").total == 45
    assert planner(tasks={"compression": TaskConfig(timeout=50)}).timeouts(30, "compression").total == 50


def test_a_program_adds_to_a_task_of_this_library() -> None:
    """What it says wins; what it leaves open stays as it was."""
    task = planner(tasks={"title": TaskConfig(timeout=5)}).task("title")
    assert (task.timeout, task.empty_is_failure) == (5, True)
