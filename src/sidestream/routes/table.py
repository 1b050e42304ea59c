"""The provider files: what they may say, how they are checked and read.

Strategy: one TOML file for each provider, packaged in `data/`; a user's own lie in `providers/` of the user's
configuration folder. A file's head, what stands before its first table, says who that is: id, hosts,
endpoint, keys. The files are read on first use, by one thread; a head is parsed when it may be the one that
is looked for, the tables (`[[row]]`, `[[speaks]]`, `[[model]]`) when a route goes there. A user's files are
parsed whole at once, so that a mistake shows at the first client. It is reported with its line.

A user's file replaces the packaged one of the same id. It cannot claim another provider's hosts, names or
key variables: that would send keys elsewhere. What all of this means for a route is `providers`.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import threading
from collections.abc import Iterable, Mapping
from datetime import date
from fnmatch import fnmatchcase
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from msgspec import Meta, Struct, ValidationError, convert, structs

from ..errors import ConfigError
from ..route import Auth, Continuation, Wire, is_loopback

__all__ = [
    "Billing",
    "Catalogue",
    "Cursor",
    "ModelFacts",
    "Provider",
    "Row",
    "Rule",
    "SignIn",
    "catalogue",
    "load",
    "user_folder",
]

Billing = Literal["stops", "continues", "unknown"]
Cursor = Literal["starting_after"]
SignIn = Literal["codex"]
_LARGEST = 256 * 1024  # of a user's file
_MOST = 200  # of a user's files
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "x-api-key", "api-key", "cookie"})


class Row(Struct, frozen=True):
    """How an endpoint continues a partial answer, for some models and wires.

    Attributes:
        path: beginning of the base URL's path, "" for any.
        wires: the wires it is for.
        models: model patterns in small letters; family: the name of that list, if it has one.
        sample: a model that this row is for.
        continuation, prefill_thinking, cursor: see `providers.Facts`.
        note, source: of this row alone.
    """

    path: str
    wires: tuple[Wire, ...]
    models: tuple[str, ...]
    family: str
    sample: str
    continuation: Continuation
    prefill_thinking: bool
    cursor: Cursor | None
    note: str
    source: str

    def fits(self, path: str, wire: Wire, model: str) -> bool:
        """Whether this row speaks of that path (without a slash at its end), wire and model."""
        return (
            wire in self.wires and f"{path}/".startswith(f"{self.path}/") and _is_one_of(self.models, model)
        )


class Rule(Struct, frozen=True):
    """Which wire some base URLs or models of a provider speak.

    Attributes:
        path: end of the base URL's path; "/" for a host alone, "" for any.
        becomes: what stands in place of that end, None if it is right as it is.
        hosts, models: only those; none for any.
    """

    wire: Wire
    path: str = ""
    becomes: str | None = None
    hosts: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def fits(self, host: str, path: str, model: str) -> bool:
        """Whether it speaks of that base URL, its path without a slash at the end, and model."""
        ends = not path if self.path == "/" else path.endswith(self.path)
        return (
            ends
            and (not self.hosts or any(matches(pattern, host) for pattern in self.hosts))
            and (not self.models or _is_one_of(self.models, model))
        )


class ModelFacts(Struct, frozen=True):
    """What is known of some models of a provider. All entries that fit count; of a number, the first.

    Attributes:
        models: model patterns in small letters; family: the name of that list, if it has one.
        wires: the wires it is for.
        rejects, renames, window, vision: see `providers.Facts`.
    """

    models: tuple[str, ...]
    family: str
    wires: tuple[Wire, ...]
    rejects: frozenset[str]
    renames: Mapping[str, str]
    window: int | None
    vision: bool | None
    note: str
    source: str

    def fits(self, wire: Wire, model: str) -> bool:
        """Whether this speaks of that wire and model."""
        return wire in self.wires and _is_one_of(self.models, model)


class _Tables(Struct, frozen=True):
    rows: tuple[Row, ...]
    rules: tuple[Rule, ...]
    models: tuple[ModelFacts, ...]


class Provider(Struct, frozen=True, eq=False):
    """One provider: the head of its file, and its tables on demand.

    Attributes:
        id: the short word for it; aliases: other words. name: as people know it.
        hosts: host patterns in small letters; none for software that runs anywhere.
        port: only this one, None for any.
        base_url: its endpoint, None if everybody has one of their own.
        base_url_env, key_env: variables that may hold the endpoint and the key, the first that is set counts.
        auth: how its key is sent. wire: what it speaks where no rule says otherwise.
        sign_in: how one gets a key without having one.
        default_model: what side tasks are asked of when nobody chose a main route and its key is there.
        headers: sent with every request; no secrets.
        requires: request fields that it needs. rejects: request fields that are never sent there.
        billing, billing_source: see `providers.Facts`.
        checked: the day somebody last looked; source: a link. models_source: of its model entries.
        file: where this comes from.
    """

    id: str
    name: str
    aliases: tuple[str, ...]
    hosts: tuple[str, ...]
    port: int | None
    base_url: str | None
    base_url_env: tuple[str, ...]
    key_env: tuple[str, ...]
    auth: Auth
    wire: Wire
    sign_in: SignIn | None
    default_model: str | None
    headers: Mapping[str, str]
    requires: Mapping[str, Any]
    rejects: frozenset[str]
    billing: Billing
    billing_source: str
    checked: date
    source: str
    models_source: str
    note: str
    file: str
    text: str

    def __repr__(self) -> str:
        return f"Provider({self.id!r}, {self.file!r})"

    @property
    def rows(self) -> tuple[Row, ...]:
        """How answers are continued here; the first row that fits counts."""
        return _tables(self.file, self.text).rows

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What is spoken here, if not `wire`; the first rule that fits counts."""
        return _tables(self.file, self.text).rules

    @property
    def models(self) -> tuple[ModelFacts, ...]:
        """What is known of its models."""
        return _tables(self.file, self.text).models

    def owns(self, base_url: str) -> bool:
        """Whether that URL is on one of its hosts."""
        host = host_of(base_url)
        if not any(matches(pattern, host) for pattern in self.hosts):
            return False
        return self.port is None or self.port == port_of(base_url)


def matches(pattern: str, text: str) -> bool:
    """Whether a pattern whose only sign is `*` stands for that text. (No regular expression is made.)"""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middle, last = rest
    if not text.startswith(first) or not text.endswith(last):
        return False
    at = len(first)
    for part in middle:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return at <= len(text) - len(last)


def _is_one_of(patterns: tuple[str, ...], model: str) -> bool:
    model = model.lower()
    return any(pattern == "*" or fnmatchcase(model, pattern) for pattern in patterns)


class _Text(Struct, frozen=True):
    """A packaged file that has not been parsed. Its name is the provider's id."""

    file: str
    text: str

    @property
    def id(self) -> str:
        return self.file.removesuffix(".toml")

    def may_own(self, host: str, port: int | None) -> bool:
        """Whether the file's lines of hosts and port have those: quicker than to parse all the files."""
        found, only = _HOSTS.search(self.text), _PORT.search(self.text)
        if found is None or (only is not None and only[1] != str(port)):
            return False
        return any(matches(pattern, host) for pattern in _QUOTED.findall(found[0]))

    def read(self) -> Provider:
        return _packaged_head(self.file, self.text)


_HOSTS = re.compile(r"^hosts = \[[^\]]*\]$", re.MULTILINE)
_PORT = re.compile(r"^port = (\d+)$", re.MULTILINE)
_QUOTED = re.compile(r'"([^"]*)"')


@cache
def _packaged_head(file: str, text: str) -> Provider:
    with _READING:
        return _head(file, text)


class Catalogue:
    """All providers, by name and by host. A packaged file is parsed when it is needed.

    Raises:
        ConfigError: a user's file claims what is another's.
    """

    def __init__(self, own: tuple[Provider, ...], packaged: tuple[_Text, ...]) -> None:
        replaced = {provider.id for provider in own}
        self._own = own
        self._packaged = tuple(text for text in packaged if text.id not in replaced)
        for number, provider in enumerate(own):
            _check_claims(provider, own[:number] + self.providers[len(own) :])

    @cached_property
    def providers(self) -> tuple[Provider, ...]:
        """A user's own first, then the packaged ones by id."""
        return self._own + tuple(text.read() for text in self._packaged)

    def owner(self, base_url: str) -> Provider | None:
        """The provider whose host that is."""
        return _owner(self, base_url)

    def _owner(self, base_url: str) -> Provider | None:
        host, port = host_of(base_url), port_of(base_url)
        near = (text.read() for text in self._packaged if text.may_own(host, port))
        return next((each for each in (*self._own, *near) if each.owns(base_url)), None)

    def named(self, name: str) -> Provider | None:
        """The provider of that id or alias; case and blanks around it do not count."""
        return self._by_name.get(name.strip().lower())

    @property
    def names(self) -> tuple[str, ...]:
        """All ids and aliases."""
        return tuple(self._by_name)

    @cached_property
    def _by_name(self) -> dict[str, Provider]:
        by_alias = {alias: provider for provider in reversed(self.providers) for alias in provider.aliases}
        return by_alias | {provider.id: provider for provider in reversed(self.providers)}


@lru_cache(maxsize=1024)
def _owner(known: Catalogue, base_url: str) -> Provider | None:
    """A client asks for each call, and the answer does not change."""
    return known._owner(base_url)


def host_of(base_url: str) -> str:
    """The host of a URL in small letters and without a dot at its end; "" if it has none."""
    try:
        return (urlsplit(base_url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def port_of(base_url: str) -> int | None:
    """The port of a URL, said or not; None if it makes no sense."""
    try:
        url = urlsplit(base_url)
        return url.port or {"https": 443, "http": 80}.get(url.scheme)
    except ValueError:
        return None


# msgspec works out a Struct on its first use, and crashes the interpreter if two threads do that at once.
_READING = threading.RLock()


def catalogue() -> Catalogue:
    """The packaged providers and the user's. Each folder is read once in a process.

    Raises:
        ConfigError: a file is damaged, or claims what is another's.
    """
    with _READING:
        return _catalogue(user_folder())


@cache
def _catalogue(folder: str) -> Catalogue:
    return Catalogue(_own(folder), _packaged())


@cache
def _packaged() -> tuple[_Text, ...]:
    """The packaged files, in the order of their names."""
    found = (_Text(path.name, path.read_text(encoding="utf-8")) for path in sorted(_DATA.glob("*.toml")))
    return tuple(text for text in found if text.file != _FAMILIES)


# A path: importlib.resources would load tempfile and zipfile, and msgspec runs from no zip file either.
_DATA = Path(__file__).with_name("data")
_FAMILIES = "_families.toml"


def user_folder() -> str:
    """Where a user's own provider files lie, whether they are there or not.

    The same folder as the configuration's. On Linux that is quickly said; elsewhere platformdirs knows it,
    which costs milliseconds to import.
    """
    if _LINUX:
        home = os.environ.get("XDG_CONFIG_HOME", "").strip()
        return os.path.join(home if os.path.isabs(home) else os.path.expanduser("~/.config"), _FOLDER)  # noqa: PTH111, PTH117, PTH118
    import platformdirs

    return str(platformdirs.user_config_path("sidestream", appauthor=False) / "providers")


_LINUX = sys.platform == "linux"
_FOLDER = "sidestream/providers"


def _own(folder: str) -> tuple[Provider, ...]:
    try:
        with os.scandir(folder) as entries:
            paths = sorted(entry.path for entry in entries if entry.name.endswith(".toml"))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise ConfigError(f"cannot read {folder}: {error.strerror}", hint="check the folder") from None
    if len(paths) > _MOST:
        raise ConfigError(f"{folder} holds more than {_MOST} files", hint="remove what is not needed")
    return tuple(load(_read(path), path) for path in paths)


def _read(path: str) -> str:
    """A user's file. It decides where keys go: who else can write it could take them."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check the file") from None
    if os.name == "posix" and mode & stat.S_IWOTH:
        raise ConfigError(f"everybody can write {path}", hint=f"chmod o-w {path}")
    if len(data) > _LARGEST:
        raise ConfigError(f"{path} is larger than {_LARGEST // 1024} KiB", hint="check the file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from None


def _check_claims(provider: Provider, others: Iterable[Provider]) -> None:
    """That a user's provider takes nothing of another: hosts, names or key variables.

    Raises:
        ConfigError: it does.
    """
    for other in others:
        hint = f"to change {other.name} itself, give the file the id {other.id!r}"
        if provider.port in (None, other.port) or other.port is None:
            for host in provider.hosts:
                if any(overlap(host, theirs) for theirs in other.hosts):
                    port = "" if other.port is None else f" port {other.port}"
                    raise ConfigError(f"{provider.file}: the host {host}{port} is {other.name}'s", hint=hint)
        if provider.id == other.id:
            raise ConfigError(
                f"{provider.file}: {other.file} has the id {other.id!r}, too", hint="rename one"
            )
        for name in provider.aliases:
            if name == other.id or name in other.aliases:
                raise ConfigError(f"{provider.file}: the name {name!r} is {other.name}'s", hint=hint)
        for variable in provider.key_env:
            if variable in other.key_env:
                hint = "use a variable of its own, so that neither key goes to the other"
                raise ConfigError(f"{provider.file}: {variable} holds the key of {other.name}", hint=hint)


@cache
def overlap(one: str, other: str) -> bool:
    """Whether there is a text that both patterns stand for."""
    if not one or not other:
        return set(one + other) <= {"*"}
    if one[0] == "*":
        return overlap(one[1:], other) or overlap(one, other[1:])
    if other[0] == "*":
        return overlap(other, one)
    return one[0] == other[0] and overlap(one[1:], other[1:])


# The file, as it is written.

_Word = Annotated[str, Meta(min_length=1)]
_Words = tuple[_Word, ...]
_Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
_Host = Annotated[str, Meta(pattern=r"^[a-z0-9*.:-]*[a-z0-9][a-z0-9*.:-]*$")]
_Variable = Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9_]*$")]
_Link = Annotated[str, Meta(pattern="^https://")]
_Path = Annotated[str, Meta(pattern="^(/[^/]+)*$")]
_Wires = Annotated[tuple[Wire, ...], Meta(min_length=1)]
_Count = Annotated[int, Meta(ge=1)]


class _Head(Struct, frozen=True, forbid_unknown_fields=True):
    id: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    name: _Word
    checked: date
    source: _Link
    aliases: tuple[_Name, ...] = ()
    hosts: tuple[_Host, ...] = ()
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    base_url: _Word | None = None
    base_url_env: tuple[_Variable, ...] = ()
    key_env: tuple[_Variable, ...] = ()
    auth: Auth = "wire"
    wire: Wire = "chat"
    sign_in: SignIn | None = None
    default_model: _Word | None = None  # `model` is a table
    headers: dict[_Word, _Word] = {}
    requires: dict[_Word, Any] = {}
    rejects: frozenset[_Word] = frozenset()
    billing: Billing = "unknown"
    billing_source: str = ""
    models_source: _Link | None = None
    note: str = ""


class _Row(Struct, frozen=True, forbid_unknown_fields=True):
    continuation: Continuation
    sample: _Word
    models: _Words = ()
    family: str = ""
    wires: _Wires = get_args(Wire)
    path: _Path = ""
    prefill_thinking: bool = True
    cursor: Cursor | None = None
    note: str = ""
    source: _Link | None = None


class _Speaks(Struct, frozen=True, forbid_unknown_fields=True):
    wire: Wire
    path: Annotated[str, Meta(pattern="^(/|(/[^/]+)*)$")] = ""
    becomes: _Path | None = None
    hosts: tuple[_Host, ...] = ()
    models: _Words = ()
    source: _Link | None = None


class _Model(Struct, frozen=True, forbid_unknown_fields=True):
    models: _Words = ()
    family: str = ""
    wires: _Wires = get_args(Wire)
    rejects: frozenset[_Word] = frozenset()
    renames: dict[_Word, _Word] = {}
    window: _Count | None = None
    vision: bool | None = None
    note: str = ""
    source: _Link | None = None


class _Body(Struct, frozen=True, forbid_unknown_fields=True):
    row: Annotated[tuple[_Row, ...], Meta(min_length=1)]
    speaks: tuple[_Speaks, ...] = ()
    model: tuple[_Model, ...] = ()


_TABLES = frozenset(_Body.__struct_fields__)
_FIRST_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)
_S = TypeVar("_S", bound=Struct)


def load(text: str, file: str = "provider.toml") -> Provider:
    """A provider from the text of its file, all of it checked.

    Raises:
        ConfigError: it is no TOML, a key or value is unknown, or something is missing; with its place.
    """
    with _READING:
        provider = _head(file, text)
        _tables(file, text)
    return provider


def _head(file: str, text: str) -> Provider:
    """The provider of a file. Its tables are looked at when they are needed."""
    import tomllib

    found = _FIRST_TABLE.search(text)
    try:
        data = tomllib.loads(text[: found.start()] if found else text)
    except tomllib.TOMLDecodeError:  # wherever the mistake is: the whole text tells its true line
        data = {name: value for name, value in _parsed(file, text).items() if name not in _TABLES}
    head = _converted(file, text, data, _Head)
    try:
        _check_head(head)
    except ValueError as error:
        raise _damaged(file, text, error) from None
    fields = structs.asdict(head) | {"models_source": head.models_source or head.source}
    return Provider(**fields, file=file, text=text)


def _check_head(head: _Head) -> None:
    if (head.billing == "unknown") != (head.billing_source == ""):
        raise ValueError("what is known of billing needs its billing_source, and only that - at `$.billing`")
    for header in head.headers:
        if header.lower() in _SECRET_HEADERS:
            raise ValueError(f"{header} is for a key, and a key does not stand here - at `$.headers`")
    if both := head.rejects & set(head.requires):
        raise ValueError(f"{min(both)} is both required and rejected - at `$.rejects`")
    if head.base_url is not None:
        _check_url(head, head.base_url)


def _check_url(head: _Head, base_url: str) -> None:
    host, port = host_of(base_url), port_of(base_url)
    local = base_url.startswith("http://") and is_loopback(host)
    if not host or not port or not (base_url.startswith("https://") or local):
        raise ValueError("it is not an https URL - at `$.base_url`")
    if head.hosts and not (head.port in (None, port) and any(matches(one, host) for one in head.hosts)):
        raise ValueError("it is on none of the hosts - at `$.base_url`")


@cache
def _tables(file: str, text: str) -> _Tables:
    with _READING:
        data = {
            name: value for name, value in _parsed(file, text).items() if name not in _Head.__struct_fields__
        }
        body = _converted(file, text, data, _Body)
        try:
            return _Tables(
                tuple(_as_row(row, f"$.row[{number}]") for number, row in enumerate(body.row)),
                tuple(_as_rule(rule) for rule in body.speaks),
                tuple(_as_model(model, f"$.model[{number}]") for number, model in enumerate(body.model)),
            )
        except ValueError as error:
            raise _damaged(file, text, error) from None


def _as_row(row: _Row, place: str) -> Row:
    fields = structs.asdict(row) | {"models": _models(row, place), "source": row.source or ""}
    return Row(**fields)


def _as_rule(rule: _Speaks) -> Rule:
    return Rule(rule.wire, rule.path, rule.becomes, rule.hosts, _lower(rule.models))


def _as_model(model: _Model, place: str) -> ModelFacts:
    if not (model.rejects or model.renames or model.window or model.vision is not None):
        raise ValueError(f"it says nothing - at `{place}`")
    fields = structs.asdict(model) | {"models": _models(model, place), "source": model.source or ""}
    return ModelFacts(**fields)


def _models(entry: _Row | _Model, place: str) -> tuple[str, ...]:
    """The patterns of an entry: its own, or those of its family."""
    if bool(entry.models) == bool(entry.family):
        raise ValueError(f"either models or a family is needed - at `{place}`")
    if not entry.family:
        return _lower(entry.models)
    families = _families()
    if entry.family not in families:
        raise ValueError(f"unknown family '{entry.family}' - at `{place}.family`")
    return families[entry.family]


def _lower(patterns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(pattern.lower() for pattern in patterns)


@cache
def _families() -> dict[str, tuple[str, ...]]:
    """The lists of models that several providers have."""
    text = (_DATA / _FAMILIES).read_text(encoding="utf-8")
    found = convert(_parsed(_FAMILIES, text), dict[str, _Words])
    return {name: _lower(patterns) for name, patterns in found.items()}


def _parsed(file: str, text: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: {error}", hint=_hint(file)) from None


def _converted(file: str, text: str, data: dict[str, Any], kind: type[_S]) -> _S:
    try:
        return convert(data, kind)
    except ValidationError as error:
        raise _damaged(file, text, error) from None


_PLACE = re.compile(r"`\$([^`]*)`")


def _damaged(file: str, text: str, error: Exception) -> ConfigError:
    """The error, with the line that it speaks of."""
    from .toml_tables import lines_of

    _parsed(file, text)  # of a text that is no TOML, that is the thing to say
    lines = lines_of(text)
    found = _PLACE.search(str(error))
    steps = re.findall(r"\[(\d+)\]|([^.\[\]]+)", found[1]) if found else []
    path = tuple(int(number) if number else name for number, name in steps)
    while path and path not in lines:
        path = path[:-1]
    line = f", line {lines[path]}" if path else ""
    return ConfigError(f"{file}{line}: {error}", hint=_hint(file))


def _hint(file: str) -> str:
    own = os.path.dirname(file)  # noqa: PTH120
    return "correct the file, or remove it" if own else "it is part of sidestream: install that anew"
