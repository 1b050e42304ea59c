"""Keys that stand somewhere else: in a variable, a file, the system's keyring.

Strategy: a credential says where its key is and reads it when a call is about to use it, so that a key that
was replaced there is used by the next call. After a rejection it looks again: another key than the rejected
one is worth a try, the same one is not. The keyring may ask its owner for a password, so it is read once and
then only after a rejection, which happens in a thread of its own.

A value is held as a `Secret` or not at all; no repr, error or pickle has one. A key file that others can read
is used, because that is how containers hand them over, but `remark` says so; one that others can write is
refused, because then they decide whose account your conversations go to.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ..errors import ConfigError
from ..route import Route, Secret
from .config_schema import RouteConfig

__all__ = [
    "EnvKey",
    "FileKey",
    "FixedKey",
    "Kept",
    "KeyringKey",
    "credentials_of",
    "headers_of",
    "state_of",
]

LONGEST = 16 * 1024


@dataclass(frozen=True, slots=True)
class EnvKey:
    """The key in an environment variable.

    Args:
        name: the variable.
        environ: where to look instead of the process's environment.
    """

    name: str
    environ: Mapping[str, str] | None = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str:
        """Where the key comes from."""
        return f"env {self.name}"

    @property
    def remark(self) -> str:
        """What people should know about that place, or ""."""
        return ""

    @property
    def there(self) -> bool:
        """Whether something is there, be it a key or not."""
        return bool((os.environ if self.environ is None else self.environ).get(self.name))

    def read(self) -> Secret:
        """The key as it is there now.

        Raises:
            ConfigError: it is not set, or is no key.
        """
        value = (os.environ if self.environ is None else self.environ).get(self.name)
        if not value:
            raise ConfigError(f"{self.name} is not set", hint=f"put the key there: export {self.name}=…")
        return _key(value, self.name, f"check what {self.name} is set to")

    def apply(self, route: Route) -> Route:
        """The route with the key that is there now."""
        return _with_key(route, self.read())

    def renew(self, route: Route, seconds: float) -> Route | None:  # noqa: ARG002
        """The route with the key that is there now, if it is another one."""
        return _with_another(route, self.read)

    def __reduce__(self) -> tuple[object, ...]:
        return EnvKey, (self.name,)


@dataclass(frozen=True, slots=True)
class FileKey:
    """The key in a file of its own, with or without a line break behind it.

    Args:
        path: the file; "~" is the home directory.
    """

    path: str

    @property
    def label(self) -> str:
        """Where the key comes from."""
        return f"file {self.path}"

    @property
    def remark(self) -> str:
        """What people should know about that place, or ""."""
        try:
            mode = Path(self.path).expanduser().stat().st_mode
        except (OSError, RuntimeError):
            return ""
        return "everybody can read it" if os.name == "posix" and mode & stat.S_IROTH else ""

    @property
    def there(self) -> bool:
        """Whether something is there, be it a key or not."""
        try:
            return Path(self.path).expanduser().exists()
        except (OSError, RuntimeError):
            return False

    def read(self) -> Secret:
        """The key as it is there now.

        Raises:
            ConfigError: the file cannot be read or is no key file, or everybody can write it.
        """
        try:
            data = self._bytes()
            return _key(data.decode("ascii"), f"the key file {self.path}", "a key file has one line: the key")
        except OSError as error:
            reason = error.strerror or type(error).__name__
        except UnicodeDecodeError:
            reason = "it is not plain text"
        except RuntimeError:
            reason = "there is no home directory"
        raise ConfigError(f"cannot read the key file {self.path}: {reason}", hint="check api_key_file")

    def _bytes(self) -> bytes:
        waits = getattr(os, "O_NONBLOCK", 0)  # a pipe would keep the call waiting
        descriptor = os.open(Path(self.path).expanduser(), os.O_RDONLY | waits)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(
                    f"the key file {self.path} is not a regular file", hint="check api_key_file"
                )
            if os.name == "posix" and mode & stat.S_IWOTH:
                hint = f"chmod 600 {self.path}"
                raise ConfigError(f"everybody can write the key file {self.path}", hint=hint)
            data = file.read(LONGEST + 1)
        if len(data) > LONGEST:
            hint = "a key file has one line: the key"
            raise ConfigError(f"the key file {self.path} is larger than {LONGEST // 1024} KiB", hint=hint)
        return data

    def apply(self, route: Route) -> Route:
        """The route with the key that is there now."""
        return _with_key(route, self.read())

    def renew(self, route: Route, seconds: float) -> Route | None:  # noqa: ARG002
        """The route with the key that is there now, if it is another one."""
        return _with_another(route, self.read)


class KeyringKey:
    """The key in the system's keyring: Keychain, Credential Locker, Secret Service.

    Args:
        service: under which service the key is kept there.
        user: and under which name.
    """

    __slots__ = ("_kept", "_lock", "service", "user")

    def __init__(self, service: str, user: str) -> None:
        self.service = service
        self.user = user
        self._kept: Secret | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"KeyringKey({self.service!r}, {self.user!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyringKey) and (other.service, other.user) == (self.service, self.user)

    def __hash__(self) -> int:
        return hash((KeyringKey, self.service, self.user))

    def __reduce__(self) -> tuple[object, ...]:
        return KeyringKey, (self.service, self.user)

    @property
    def label(self) -> str:
        """Where the key comes from."""
        return f"keyring {self.service}/{self.user}"

    @property
    def remark(self) -> str:
        """What people should know about that place, or ""."""
        return ""

    def read(self) -> Secret:
        """The key as it is there now. May wait for its owner to unlock the keyring.

        Raises:
            ConfigError: there is no keyring, or no such key in it.
        """
        place = f"{self.service}/{self.user}"
        try:
            import keyring  # only who keeps keys there has it
            from keyring.errors import KeyringError
        except ImportError:
            hint = "pip install 'sidestream[keyring]', or keep the key in a variable or a file"
            raise ConfigError(
                f"the key {place} is in the keyring, and keyring is not there", hint=hint
            ) from None
        try:
            value = keyring.get_password(self.service, self.user)
        except KeyringError as error:
            hint = "unlock it, or keep the key in a variable or a file"
            raise ConfigError(f"the keyring cannot be read: {type(error).__name__}", hint=hint) from None
        if not value:
            hint = f"put it there: keyring set {self.service} {self.user}"
            raise ConfigError(f"the keyring has no key {place}", hint=hint)
        with self._lock:
            self._kept = _key(value, f"the key {place} of the keyring", "set it again")
            return self._kept

    def apply(self, route: Route) -> Route:
        """The route with the key that was there when it was last looked for."""
        with self._lock:
            kept = self._kept
        return _with_key(route, kept or self.read())

    def renew(self, route: Route, seconds: float) -> Route | None:  # noqa: ARG002
        """The route with the key that is there now, if it is another one."""
        return _with_another(route, self.read)


@dataclass(frozen=True, slots=True)
class FixedKey:
    """A key that was handed over and does not change.

    Args:
        key: the key.
        label: where it comes from, for people.
    """

    key: Secret
    label: str = "argument"

    @property
    def remark(self) -> str:
        """What people should know about that place, or ""."""
        return ""

    @property
    def there(self) -> bool:
        """Whether something is there, be it a key or not."""
        return True

    def read(self) -> Secret:
        """The key."""
        return self.key

    def apply(self, route: Route) -> Route:
        """The route with that key."""
        return _with_key(route, self.key)

    def renew(self, route: Route, seconds: float) -> Route | None:  # noqa: ARG002
        """The route with that key, if it was not the one that failed."""
        return _with_another(route, self.read)


Kept = EnvKey | FileKey | KeyringKey | FixedKey


def credentials_of(route: RouteConfig, environ: Mapping[str, str] | None = None) -> tuple[Kept, ...]:
    """Where the keys of a configured route are: variables, files, then the keyring. Several are a pool."""
    variables = [EnvKey(name, environ) for name in route.api_key_env or ()]
    files = [FileKey(path) for path in route.api_key_file or ()]
    rings = [KeyringKey(*place.rsplit("/", 1)) for place in route.api_key_keyring or ()]
    return (*variables, *files, *rings)


def state_of(credential: Kept) -> Literal["set", "missing", "unusable"]:
    """Whether the key is there, or something that is none. A keyring may ask its owner for a password."""
    try:
        credential.read()
    except ConfigError:
        return "unusable" if getattr(credential, "there", True) else "missing"
    return "set"


def headers_of(route: RouteConfig, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The further headers of a configured route, those from variables included: for the wire only.

    Raises:
        ConfigError: a variable is not set, or holds what cannot be sent.
    """
    from_variables = {
        header: EnvKey(name, environ).read().reveal() for header, name in route.header_env.items()
    }
    return {**route.headers, **from_variables}


def _key(value: str, what: str, hint: str) -> Secret:
    value = value.strip()
    if not value:
        raise ConfigError(f"{what} is empty", hint=hint)
    if not all(" " <= character <= "~" for character in value):
        raise ConfigError(f"{what} holds characters that cannot be sent", hint=hint)
    return Secret(value)


def _with_key(route: Route, key: Secret) -> Route:
    return route if route.api_key == key else replace(route, api_key=key)


def _with_another(route: Route, read: Callable[[], Secret]) -> Route | None:
    try:
        key = read()
    except ConfigError:  # it is gone: the rejection says more than that
        return None
    return None if key == route.api_key else replace(route, api_key=key)
