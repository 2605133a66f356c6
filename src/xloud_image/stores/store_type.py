"""What a type of store is, for those who must know it without its code: its options, its URLs, its keys in globals.

The configuration and the deployer read files by it, on hosts where no store can be opened. So nothing here, and nothing
in a type's `options`, imports more than `errors` and `oslo_config`; the class of the store is only named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from oslo_config import cfg


class Globals(Protocol):
    """The deployer's globals, as a default may ask them."""

    def get(self, name: str) -> Any:
        """The typed value of a key, None when there is none."""
        ...


Default = Callable[[Globals], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """What the key of an option in globals has of its own. `default`: a value, or a function of the globals; `why`: its
    reason. `also`: other names of the same thing; `last`: names that count when neither is given."""

    default: Any = None
    why: str = "default"
    also: tuple[str, ...] = ()
    last: tuple[str, ...] = ()


def same(name: str, why: str = "") -> Key:
    """An option that has the value of another key, when it is not told one of its own."""
    return Key(lambda g: g.get(name), why or name)


def _keystone_v3(g: Globals) -> str:
    url = str(g.get("keystone_internal_url")).rstrip("/")
    return url if url.endswith("/v3") else f"{url}/v3"


KEYSTONE: Final = Key(_keystone_v3, "keystone_internal_url")


class Section(Protocol):
    """One store of the type while a file is read."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The values of the type's options, by name."""
        ...

    @property
    def url_filters(self) -> Any:
        """Which URLs of web servers may be registered."""
        ...

    def is_set(self, name: str, *, own: bool = False) -> bool:
        """Whether the files say this option for the store; `own`: in its own section."""
        ...

    def elsewhere(self, group: str, name: str) -> Any:
        """The value of an option of the service."""
        ...

    def guess(self, text: str, name: str) -> None:
        """Tell what is made of this option."""
        ...

    def refuse(self, text: str, name: str) -> None:
        """Tell why the service cannot start with this option."""
        ...


@dataclasses.dataclass(frozen=True)
class StoreType:
    """A type of store. One that keeps data in directories of the node, or has to look at its options together when they
    are read, is a class of its own below this one."""

    name: str
    store: str  # module:class, imported when a store of the type is configured
    options: tuple[cfg.Opt, ...] = ()
    schemes: tuple[str, ...] = ()  # of its URLs; old files have them where a type is meant
    closed_schemes: tuple[str, ...] = ()  # never taken from clients: they name files of the node or configured logins
    takes_data: bool = True
    cloned: bool = False  # services that see where an image lies clone it
    place: tuple[str, ...] = ()  # the options by which two stores of the type are in one place
    directory_options: tuple[str, ...] = ()  # those that name directories of the node
    switch: str = ""  # the key in globals that switches a store of the type on; "": globals cannot
    keys: Mapping[str, Key | None] = dataclasses.field(default_factory=dict)  # by option; None: globals have no key
    more_keys: tuple[str, ...] = ()  # keys in globals of the type that are none of its options

    def settle(self, section: Section) -> Mapping[str, Any]:
        """Options to change once all are read; what they mean together is told to `section`."""
        return {}

    def directories(self, options: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """Option and path, as it is written, of each directory in which a store of these options keeps data."""
        return ()

    def directory(self, option: str, entry: str) -> str:
        """The path that an entry of one of `directory_options` names."""
        return entry

    def with_directories(self, paths: Sequence[str]) -> Mapping[str, Any]:
        """The options that name these directories and no others."""
        return {}
