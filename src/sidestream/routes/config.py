"""The configuration: which files there are, and which of them wins.

Strategy: the user's file, the project's on top of it key by key, or the one file that $SIDESTREAM_CONFIG
names. A project's file belongs to whoever wrote the repository, so it may say less (`config_rules`). What can
be said is in `config_schema`. Nothing here makes a route: that is `plan`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError
from .config_rules import contradictions, layer, restrict, unknown_providers
from .config_schema import VARIABLE, Config, DefaultsConfig, Origin, RouteConfig, TaskConfig, merge
from .toml_tables import Document, Problem

__all__ = [
    "VARIABLE",
    "Config",
    "DefaultsConfig",
    "File",
    "Origin",
    "RouteConfig",
    "TaskConfig",
    "config_files",
    "examine",
    "load_config",
    "merge",
    "parse",
]

USER_FILE, PROJECT_FILE = "config.toml", "sidestream.toml"
_LARGEST = 1024 * 1024
# Which variables say what, where no file does.
_FROM_ENVIRONMENT = {
    "main": ("SIDESTREAM_MODEL", "OPENAI_MODEL"),
    "fallbacks": ("SIDESTREAM_FALLBACK_MODEL",),
}


class File(NamedTuple):
    """A file that is looked for.

    Attributes:
        project: whether it belongs to a project, which may say less.
        needed: whether it is an error that it is not there.
    """

    path: Path
    project: bool = False
    needed: bool = False


def load_config(
    environ: Mapping[str, str] | None = None, cwd: Path | None = None, user_dir: Path | None = None
) -> Config:
    """The user's configuration with the project's on top, or the one that $SIDESTREAM_CONFIG names.

    Args:
        environ: default: the process's environment.
        cwd: where to look for the project's file. Default: the working directory.
        user_dir: where the user's file is. Default: the platform's place for it.

    Raises:
        ConfigError: a file cannot be read, or something in it makes no sense; with the line.
    """
    config, problems = examine(environ, cwd, user_dir)
    _raise(problems)
    return config


def parse(text: str, name: str) -> Config:
    """The configuration in a text, as if it were the user's only file.

    Raises:
        ConfigError: something in it makes no sense; with the line.
    """
    document = Document(text, name)
    config = layer(document)
    _raise(document.problems or list(contradictions(config)))
    return config


def examine(
    environ: Mapping[str, str] | None = None, cwd: Path | None = None, user_dir: Path | None = None
) -> tuple[Config, list[Problem]]:
    """As `load_config`, but everything that is wrong is returned instead of the first of it raised."""
    env = os.environ if environ is None else environ
    config, problems = Config(), list[Problem]()
    for file in config_files(env, cwd, user_dir):
        try:
            text = _read(file)
        except ConfigError as error:
            problems.append(Problem(str(error), error.hint))
            continue
        if text is None:
            continue
        document = Document(text, str(file.path))
        above = layer(document)
        if file.project:
            restrict(document, above, config)
        problems += document.problems
        config = merge(config, above)
    problems = problems or [*contradictions(config), *_unknown_providers(config)]
    return _with_environment(config, env), problems


def _unknown_providers(config: Config) -> list[Problem]:
    from .providers import provider, providers  # the table is read when somebody asks

    try:
        names = [each.id for each in providers()]
        return list(unknown_providers(config, lambda name: provider(name) is not None, names))
    except ConfigError as error:
        return [Problem(str(error), error.hint)]


def _raise(problems: list[Problem]) -> None:
    if problems:
        (message, hint), *others = problems
        more = f" (and {len(others)} more: sidestream config check)" if others else ""
        raise ConfigError(f"{message}{more}", hint=hint)


def config_files(
    environ: Mapping[str, str] | None = None, cwd: Path | None = None, user_dir: Path | None = None
) -> tuple[File, ...]:
    """The files that are looked for, the lowest first, whether they are there or not."""
    env = os.environ if environ is None else environ
    named = env.get(VARIABLE)
    if named is not None:
        return (File(_expanded(named), needed=True),) if named else ()
    user = user_dir if user_dir is not None else _user_dir()
    own = File(user / USER_FILE)
    found = _project_file(cwd)
    return (own, File(found, project=True)) if found else (own,)


def _user_dir() -> Path:
    from .table import user_folder  # it lies beside the user's own providers

    return Path(user_folder()).parent


def _expanded(named: str) -> Path:
    try:
        return Path(named).expanduser()
    except RuntimeError:  # no such user: then it is not there either
        return Path(named)


def _project_file(start: Path | None) -> Path | None:
    """The nearest project file, no higher than the repository or the home directory one is in.

    Outside of both only the working directory itself counts: above it, anybody may have left one.
    """
    try:
        cwd, home = (start or Path.cwd()).absolute(), Path.home()
    except (OSError, RuntimeError):  # the working directory is gone, or nobody is at home
        return None
    places = [cwd, *cwd.parents]
    top = next((place for place in places if place == home or (place / ".git").exists()), cwd)
    for place in places[: places.index(top) + 1]:
        if (place / PROJECT_FILE).is_file():
            return place / PROJECT_FILE
    return None


def _read(file: File) -> str | None:
    """The text of a file; None if it is not there and need not be."""
    try:
        with file.path.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read(_LARGEST + 1)
    except FileNotFoundError:
        if not file.needed:
            return None
        raise ConfigError(f"{file.path} is not there", hint=f"check {VARIABLE}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {file.path}: {error.strerror}", hint="check the file") from None
    if os.name == "posix" and stat.S_ISREG(mode) and mode & stat.S_IWOTH:
        hint = f"it decides where your keys go: chmod o-w {file.path}"
        raise ConfigError(f"everybody can write {file.path}", hint=hint)
    if len(data) > _LARGEST:
        raise ConfigError(f"{file.path} is larger than {_LARGEST // 1024**2} MiB", hint="check the file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"line {line} of {file.path} is not UTF-8 text", hint="save it as UTF-8") from None


def _with_environment(config: Config, env: Mapping[str, str]) -> Config:
    """What no file says, the environment may: the place of it, for people."""
    origins = dict(config.origins)
    for path, names in _FROM_ENVIRONMENT.items():
        if getattr(config, path) is None and (name := next((n for n in names if env.get(n)), None)):
            origins[path] = Origin(f"env {name}")
    return replace(config, origins=origins)
