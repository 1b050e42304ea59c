"""`sidestream config`: what is configured, by whom, and whether it makes sense.

It shows every value that is in force and the place it comes from. Of a secret it shows where it is and
whether it is there, never the value; it does not open the keyring, which might ask for a password. What files
there are and what they may say is in `sidestream.routes.config`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib.resources import files
from typing import Any, NamedTuple

import click

from ..errors import ConfigError, NoRoute, UsageError
from ..recovery.clocks import Timeouts
from ..recovery.policy import Policy
from ..route import Route
from ..routes.config import VARIABLE, Config, RouteConfig, config_files, examine, load_config
from ..routes.environment import Environment, without_query
from ..routes.secrets import EnvKey, Kept, KeyringKey, credentials_of, state_of
from ..routes.toml_tables import keys_of
from .options import output_options
from .shapes import as_json
from .terminal import Story, write

__all__ = ["config", "settings"]

HIDDEN = "***"
_WIDEST = 60
_KEYS = {"api_key_env": "env", "api_key_file": "file", "api_key_keyring": "keyring"}


class Setting(NamedTuple):
    """One value that is in force: its dotted path, the value, and where it comes from."""

    path: str
    value: Any
    where: str


@click.group("config", invoke_without_command=True, short_help="What is configured, and where that is said.")
@click.option("--path", "only_paths", is_flag=True, help="The same as `sidestream config path`.")
@output_options
@click.pass_context
def config(context: click.Context, only_paths: bool, json: bool, quiet: bool) -> None:
    """Show every value in force and where it comes from; of a secret only where it is.

    Your own file comes first, the project's sidestream.toml on top of it. SIDESTREAM_CONFIG names one file
    that is read instead of both.
    """
    if context.invoked_subcommand:
        if only_paths or json or quiet:
            hint = f"sidestream config {context.invoked_subcommand} --help"
            raise UsageError("options stand behind the last word of the command", hint=hint)
        return
    if only_paths:
        context.invoke(path, json=json, quiet=quiet)
        return
    read = load_config()
    shown = list(settings(read, os.environ))
    if json:
        write(as_json({"files": read.files, "values": [setting._asdict() for setting in shown]}))
    else:
        write(_table([Setting(row.path, _text(row.value), row.where) for row in shown]))
        if not read.files:
            Story(quiet).say("no file is there: sidestream config init writes one", "dim")


@config.command("path")
@output_options
def path(json: bool, quiet: bool) -> None:  # noqa: ARG001
    """The files that are looked for, and whether they are there."""
    found = [
        {"path": str(file.path), "project": file.project, "read": file.path.exists()}
        for file in config_files()
    ]
    if json:
        write(as_json(found))
    else:
        write("".join(f"{row['path']}{'' if row['read'] else '  (not there)'}\n" for row in found))


@config.command("check")
@output_options
def check(json: bool, quiet: bool) -> None:
    """Say everything that is wrong, each with its line. Exit code 2 if anything is."""
    story = Story(quiet or json)
    read, problems = examine()
    if json:
        found = [{"message": problem.message, "hint": problem.hint} for problem in problems]
        write(as_json({"files": read.files, "problems": found}))
    for problem in problems if not json else ():
        story.complain(problem.message, problem.hint)
    if problems:
        raise SystemExit(2)
    for remark in _remarks(read, os.environ):
        story.say(remark, "yellow")
    story.say(f"nothing wrong in {', '.join(read.files) or 'no file'}", "green")


@config.command("init")
@output_options
def init(json: bool, quiet: bool) -> None:
    """Write a commented file to begin with. An existing one is left alone."""
    target = next((file.path for file in config_files() if not file.project), None)
    if target is None:
        raise ConfigError(f"{VARIABLE} is empty: no file is read", hint=f"unset {VARIABLE}")
    text = (files("sidestream.routes") / "starter.toml").read_text(encoding="utf-8")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{target} is there already", hint="edit that; it is left as it is") from None
    except OSError as error:
        raise ConfigError(
            f"cannot write {target}: {error.strerror}", hint=f"or name another: {VARIABLE}"
        ) from None
    write(as_json({"path": str(target)}) if json else f"{target}\n")
    Story(quiet or json).say("everything in it is commented out: take what you need", "green")


def settings(read: Config, environ: Mapping[str, str]) -> Iterator[Setting]:
    """Every value in force, with its place."""
    yield Setting("main", _main(read, environ), read.where("main"))
    spare = Environment(environ).fallback() if read.fallbacks is None else ()
    fallbacks = [*map(_named, spare), *(read.fallbacks or ())]
    yield Setting("fallbacks", fallbacks, read.where("fallbacks"))
    yield Setting("discover", bool(read.discover), read.where("discover"))
    standard = _standard()
    for name in keys_of(type(read.defaults)):
        said = getattr(read.defaults, name)
        yield from _said(read, f"defaults.{name}", standard.get(name) if said is None else said)
    for name, route in read.routes.items():
        yield from _route(read, name, route, environ)
    for name, task in read.tasks.items():
        for key in keys_of(type(task)):
            if (value := getattr(task, key)) not in (None, {}):
                yield from _said(read, f"tasks.{name}.{key}", value)


def _standard() -> dict[str, Any]:
    """What holds where nobody says anything."""
    timeouts, policy = Timeouts(), Policy()
    clocks = {
        "timeout": timeouts.total,
        **{name: getattr(timeouts, name) for name in ("first", "idle", "connect")},
    }
    return clocks | {name: getattr(policy, name) for name in ("tries", "recoveries", "max_cost")}


def _said(read: Config, path: str, value: Any) -> Iterator[Setting]:
    """A value, or each value of a table."""
    if not isinstance(value, Mapping):
        yield Setting(path, list(value) if isinstance(value, tuple) else value, read.where(path))
        return
    for name, part in value.items():
        yield from _said(read, f"{path}.{name}", part)


def _route(read: Config, name: str, route: RouteConfig, environ: Mapping[str, str]) -> Iterator[Setting]:
    states = [(credential.label, _state(credential)) for credential in credentials_of(route, environ)]
    for key in keys_of(RouteConfig):
        value, path = getattr(route, key), f"routes.{name}.{key}"
        if value in (None, {}):
            continue
        if key in _KEYS:
            kind = f"{_KEYS[key]} "
            value = [f"{label} ({state})" for label, state in states if label.startswith(kind)]
        elif key == "headers":
            value = dict.fromkeys(value, HIDDEN)
        elif key == "header_env":
            value = {header: f"env {n} ({_state(EnvKey(n, environ))})" for header, n in value.items()}
        elif key == "base_url":
            value = f"{without_query(value)}?{HIDDEN}" if "?" in value else value
        elif key == "rejects":
            value = sorted(value)
        elif key == "prices":
            value = {
                f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) is not None
            }
        yield from _said(read, path, value)


def _state(credential: Kept) -> str:
    """Whether a key is there."""
    state = "not looked for" if isinstance(credential, KeyringKey) else state_of(credential)
    return f"{state}, {credential.remark}" if state == "set" and credential.remark else state


def _main(read: Config, environ: Mapping[str, str]) -> Any:
    """Where calls go first: as a file says it, or the environment's route."""
    if read.main:
        return read.main
    try:
        return _named(Environment(environ).main())
    except NoRoute:
        return None


def _named(route: Route) -> str:
    return f"{route.name} ({'with' if route.api_key else 'without'} a key)"


def _remarks(read: Config, environ: Mapping[str, str]) -> Iterator[str]:
    """What is not wrong in itself, but worth knowing."""
    for name, route in read.routes.items():
        for credential in credentials_of(route, environ):
            if isinstance(credential, KeyringKey):
                continue
            try:
                credential.read()
            except ConfigError as error:
                yield f"routes.{name}: {error}"
            if credential.remark:
                yield f"routes.{name}: {credential.label}: {credential.remark}"


def _table(rows: list[Setting]) -> str:
    """Three columns, the last as long as it likes."""
    head = Setting("setting", "value", "from")
    wide = [max(len(str(row[column])) for row in (head, *rows)) for column in (0, 1)]
    return "".join(f"{row[0]:<{wide[0]}}  {row[1]:<{wide[1]}}  {row[2]}\n" for row in (head, *rows))


def _text(value: Any) -> str:
    """A value for people, in one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "-"
    line = " ".join(str(value).split())
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 1]}…"
