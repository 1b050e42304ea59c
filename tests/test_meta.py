"""The house itself: who may import whom, what is pure, documented, public and alike."""

import ast
import copy
import importlib
import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sidestream
from sidestream import AsyncClient, AsyncReplyStream, Client, ReplyStream, Route, Secret, doctor, tasks

TESTS = Path(__file__).parent
SRC = TESTS.parent / "src" / "sidestream"
MODULES = sorted(SRC.rglob("*.py"))
TEST_FILES = sorted(TESTS.rglob("test_*.py"))

# From the bottom to the top. A room imports from its own floor and from those below.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("wire", "reply", "route", "errors", "cancel"),
    ("assembler",),
    ("relay",),
    ("recovery",),
    ("net",),
    ("routes",),
    ("telemetry",),
    ("drivers", "client", "otel", "transport"),
    ("tasks",),
    ("host", "doctor"),
    ("gateway",),
    ("lab", "local"),
    ("cli",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# The one door upwards: a client offers the task that is built on it.
DOORS = {("client", "tasks")}
# Rooms that no other room of the library imports, with who may.
APART: dict[str, set[str]] = {"lab": {"cli"}, "local": {"cli"}, "otel": set(), "gateway": {"cli"}}

PURE = ("wire", "relay", "recovery", "assembler", "reply", "route")
WORLD = frozenset(
    {
        "httpcore2", "httpx2", "httpx", "asyncio", "anyio", "time", "random", "socket", "ssl", "threading",
        "os", "select", "selectors", "subprocess", "pathlib", "logging", "multiprocessing", "concurrent",
        "secrets", "sys", "signal", "tempfile", "shutil", "io", "queue", "sched", "urllib.request", "http",
    }
)  # fmt: skip


class Import(NamedTuple):
    """One import of a module: who, what (absolute), and in which line."""

    room: str
    target: str
    line: int
    inside_function: bool


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts)


def room_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_of(path: Path) -> Iterator[Import]:
    """Every import that is executed: those under TYPE_CHECKING are not."""
    package = ["sidestream", *path.relative_to(SRC).parts[:-1]]

    def walk(node: ast.AST, *, inside: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    yield from walk(other, inside=inside)
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(room_of(path), alias.name, child.lineno, inside)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                source = ".".join([*base, *((child.module or "").split(".") if child.module else [])])
                for alias in child.names:
                    yield Import(room_of(path), f"{source}.{alias.name}", child.lineno, inside)
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from walk(child, inside=inside or function)

    return walk(tree_of(path), inside=False)


def target_room(target: str) -> str | None:
    parts = target.split(".")
    return parts[1] if parts[0] == "sidestream" and len(parts) > 1 else None


modules = pytest.mark.parametrize("path", MODULES, ids=name_of)


@modules
def test_imports_run_one_way(path: Path) -> None:
    """A room imports from its own floor and those below; the one door upwards opens inside a function."""
    if path == SRC / "__init__.py":
        return
    assert room_of(path) in FLOOR, f"{room_of(path)} has no floor yet"
    for made in imports_of(path):
        room = target_room(made.target)
        if room is None or room == made.room:
            continue
        where = f"{path.name}:{made.line} imports {made.target}"
        if room not in FLOOR:  # a name of the package itself, taken through its lazy table
            assert made.room in ("cli", "lab", "local"), (
                f"{where}: the library does not import its own front door"
            )
            continue
        if (made.room, room) in DOORS:
            assert made.inside_function, f"{where} at load time"
            continue
        assert FLOOR[room] <= FLOOR[made.room], f"{where}: upwards"
        if room in APART:
            assert made.room in APART[room], f"{where}: {room} is for {APART[room]} and tests"


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) in PURE], ids=name_of)
def test_pure_rooms_import_nothing_of_the_world(path: Path) -> None:
    """No input or output, no clock, no randomness, no threads: time and jitter arrive as data."""
    for made in imports_of(path):
        names = {made.target.split(".")[0], ".".join(made.target.split(".")[:2])}
        assert not names & WORLD, f"{path.name}:{made.line} imports {made.target}"
    for node in ast.walk(tree_of(path)):
        called = node.func if isinstance(node, ast.Call) else None
        assert not (isinstance(called, ast.Name) and called.id in {"open", "print", "input", "__import__"})


# The public names.


def test_public_names_are_those_of_the_lazy_table() -> None:
    """`__all__` is sorted, has no name twice, and is the lazy table plus the version."""
    table = {name for names in sidestream._NAMES.values() for name in names}
    assert set(sidestream.__all__) == table | {"__version__"}
    assert len(set(sidestream.__all__)) == len(sidestream.__all__)
    assert dir(sidestream) == sorted(sidestream.__all__)


@pytest.mark.parametrize("name", sidestream.__all__)
def test_every_public_name_resolves_to_its_home(name: str) -> None:
    """Each name is there, is its module's own, and is public there too."""
    value = getattr(sidestream, name)
    if name == "__version__":
        return
    home = importlib.import_module(f"sidestream.{sidestream._HOME[name]}")
    assert getattr(home, name) is value
    assert name in getattr(home, "__all__", [name])


def test_unknown_names_are_an_attribute_error() -> None:
    """Asking for a name that is not there fails as it does for any module."""
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = sidestream.no_such_name


def test_type_checkers_see_the_same_names() -> None:
    """The imports for type checkers are exactly the lazy table."""
    block = next(node for node in tree_of(SRC / "__init__.py").body if isinstance(node, ast.If))
    seen = {
        (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {(module, name) for module, names in sidestream._NAMES.items() for name in names}


@pytest.mark.parametrize(
    "name", [name for name in sidestream.__all__ if inspect.isclass(getattr(sidestream, name))]
)
def test_every_public_class_and_its_methods_are_documented(name: str) -> None:
    """Each public class has a docstring of its own, and so has each public method."""
    cls = getattr(sidestream, name)
    assert cls.__doc__
    assert not cls.__doc__.startswith(f"{name}("), "a generated signature is no docstring"
    for method, value in vars(cls).items():
        if inspect.isfunction(value) and not method.startswith("_"):
            assert value.__doc__, f"{name}.{method}"


@pytest.mark.parametrize(
    "name", [n for n in sidestream.__all__ if inspect.isfunction(getattr(sidestream, n))]
)
def test_every_public_function_is_documented(name: str) -> None:
    """Each public function says what it does."""
    assert inspect.getdoc(getattr(sidestream, name))


@modules
def test_all_of_a_module_exists(path: Path) -> None:
    """What a module lists as public is defined or imported in it."""
    if path == SRC / "__init__.py":
        return
    tree = tree_of(path)
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    text = path.read_text(encoding="utf-8")
    for name in (name for names in listed for name in names):
        assert text.count(name) > 1, f"{path.name} lists {name} and has no such thing"


# What no call of a plain client needs, and what would be most of its start.
HEAVY = {"anyio", "asyncio", "email", "h11", "httpx", "httpx2", "importlib.metadata", "rich", "tomllib"}


def test_a_client_of_one_route_loads_only_what_its_calls_need(tmp_path: Path) -> None:
    """No event loop, no configuration files, nothing for SDKs, tasks or the command line."""
    code = "import sys, sidestream; sidestream.Client('https://h.test/v1', model='m'); print(*sys.modules)"
    env = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    loaded = set(done.stdout.split())
    assert "sidestream.client" in loaded
    assert not loaded & HEAVY
    rooms = {name.split(".")[1] for name in loaded if name.startswith("sidestream.")}
    assert not rooms & {"relay", "transport", "tasks", "host", "doctor", "gateway", "lab", "local", "cli"}


# Files and functions.


@modules
def test_every_module_opens_with_its_strategy(path: Path) -> None:
    """A module says in more than one line what lives in it; a package without code may take one."""
    text = ast.get_docstring(tree_of(path))
    assert text, "no docstring"
    has_code = len(tree_of(path).body) > 1
    assert len(text.splitlines()) >= 2 or not has_code


@modules
def test_no_function_is_long(path: Path) -> None:
    """No function has more than 70 lines, its docstring and signature included."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 70, f"{node.name} in line {node.lineno} has {lines}"


@modules
def test_catching_everything_is_explained(path: Path) -> None:
    """Whoever catches everything says why in that line; `except BaseException` may pass it on instead."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = ast.unparse(node.type) if node.type else ""
        passes_on = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
        if caught in ("", "Exception") or (caught == "BaseException" and not passes_on):
            reason = lines[node.lineno - 1].partition("#")[2].replace("noqa: BLE001", "").strip(" ()")
            assert reason, f"line {node.lineno}"


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_every_test_says_what_it_requires(path: Path) -> None:
    """Each test function has a docstring: one sentence of what is required."""
    silent = [
        node.name
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


# Sync and async.


def signatures(cls: type) -> dict[str, list[tuple[str, Any, Any]]]:
    """Public methods with their parameters: name, kind, default. Annotations may differ."""
    return {
        name: [(p.name, p.kind, p.default) for p in inspect.signature(value).parameters.values()]
        for name, value in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(("sync", "twin"), [(Client, AsyncClient), (ReplyStream, AsyncReplyStream)])
def test_sync_and_async_have_the_same_methods(sync: type, twin: type) -> None:
    """The twins offer the same methods with the same parameters, and the same properties."""
    assert signatures(sync) == signatures(twin)
    assert properties(sync) == properties(twin)
    if sync is Client:
        assert inspect.signature(sync) == inspect.signature(twin)


@pytest.mark.parametrize("name", ["title", "extract", "describe", "check", "compress"])
def test_a_function_and_its_async_twin_take_the_same(name: str) -> None:
    """What a task, the doctor and compression take is the same for both clients."""
    home: Any = tasks if name in tasks.__all__ else doctor if name in doctor.__all__ else sidestream
    pair = [inspect.signature(getattr(home, which)).parameters.values() for which in (name, f"a{name}")]
    one, other = ([(p.name, p.kind, p.default) for p in parameters] for parameters in pair)
    assert one == other


def properties(cls: type) -> set[str]:
    return {name for name, value in inspect.getmembers(cls) if isinstance(value, property)}


@pytest.mark.parametrize(
    ("sync", "twin"), [("__enter__", "__aenter__"), ("__exit__", "__aexit__"), ("__iter__", "__aiter__")]
)
def test_sync_and_async_have_the_same_protocol(sync: str, twin: str) -> None:
    """What is entered, left and iterated on one side is so on the other."""
    assert hasattr(Client, sync) == hasattr(AsyncClient, twin)
    assert hasattr(ReplyStream, sync)
    assert hasattr(AsyncReplyStream, twin)


# Secrets.

KEY = "sk-canary-0123456789"


def test_a_secret_shows_itself_nowhere() -> None:
    """No text form of a Secret, or of a route that holds one, contains it; it is not pickled either."""
    secret = Secret(KEY)
    route = Route("https://h.test/v1", "m", api_key=secret, headers={"X-Key": f"{KEY}-header"})
    for value in (secret, route, [secret], {"a": route}):
        for text in (repr(value), str(value), f"{value}", f"{value!s:>40}", "%s %r" % (value, value)):  # noqa: UP031
            assert KEY not in text
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        pickle.dumps(route)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)
    assert not hasattr(secret, "__dict__")
    assert secret == Secret(KEY) != Secret("other")
    assert secret.reveal() == KEY


def test_a_route_shows_no_header_value() -> None:
    """A route's repr names endpoint and model, and no value of a header."""
    route = Route("https://h.test/v1", "m", headers={"X-Secret": "canary-value"})
    assert "canary-value" not in repr(route)
    assert "https://h.test/v1" in repr(route)
    assert route.request_headers()["X-Secret"] == "canary-value"


def test_a_route_is_refused_without_showing_its_key() -> None:
    """The error about a credential that cannot be sent does not contain it."""
    for settings in (
        {"base_url": "http://far.test/v1", "api_key": Secret(KEY)},
        {"base_url": "https://far.test/v1", "api_key": Secret(f"{KEY}\n")},
        {"base_url": "https://far.test/v1", "headers": {"X-Key": f"{KEY}\r\n"}},
        {"base_url": f"https://user:{KEY}@far.test/v1"},
        {"base_url": f"ftp://user:{KEY}@far.test/v1"},
    ):
        with pytest.raises(sidestream.ConfigError) as caught:
            Route(model="m", **settings)  # type: ignore[arg-type]
        assert KEY not in str(caught.value)
        assert KEY not in caught.value.hint
