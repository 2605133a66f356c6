"""What a row is, and what it may ask for. No row stands here."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.servers.place import new_directory
from tests.servers.service import Sections, Service

_PACKAGE = Path(__file__).parent


class Usual:
    """Services as they are by default, one for each kind of database, for rows that ask and leave no trace that another
    row could meet."""

    def __init__(self) -> None:
        self._made: dict[str, Service] = {}

    def get(self, database: str, server: Callable[[str], Any]) -> Service:
        """The one on "sqlite", "postgresql" or "mariadb"; a new one when a row has ended it."""
        one = self._made.get(database)
        if one is None or one.exit_code is not None:
            known = {} if database == "sqlite" else {"database": {"connection": server(database).create_database()}}
            one = self._made[database] = Service(known)
            one.start()
        return one

    def close(self) -> None:
        """End them."""
        for one in self._made.values():
            one.kill()


class Site:
    """Where one row runs: services and files of its own, and servers that all rows share.

    server: gives a shared server by the name of its fixture (ceph, rgw, swift, keystone, mariadb, postgresql, …).
    quick: whether less time is to be spent (fewer attempts, smaller bodies); the answer must be the same.
    """

    def __init__(self, server: Callable[[str], Any], usual: Usual, *, quick: bool) -> None:
        self.server = server
        self._usual = usual
        self.quick = quick
        self._stack = contextlib.ExitStack()

    def service(self, sections: Sections | None = None, *, start: bool = True, **how: Any) -> Service:
        """A fresh service with these sections over the default ones; it ends with the row. See `Service`."""
        one = Service(sections, **how)
        self._stack.callback(one.kill)
        if start:
            one.start()
        return one

    def usual(self, database: str = "sqlite") -> Service:
        """One with no sections of its own, which other rows use too: whatever it holds may be there already."""
        return self._usual.get(database, self.server)

    def directory(self) -> Path:
        """A new, empty folder."""
        return new_directory("faults")

    def closing(self, one: Any) -> Any:
        """`one`, whose `close()` is called at the end of the row."""
        self._stack.callback(one.close)
        return one

    def close(self) -> None:
        """End what the row started."""
        self._stack.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """name: short and unique («formats change while the upload begins»). want: what `run` must return: the very text,
    or a pattern that matches all of it."""

    name: str
    want: str | re.Pattern[str]
    run: Callable[[Site], str]

    def is_right(self, got: str) -> bool:
        """Whether that is the answer it should be."""
        if isinstance(self.want, re.Pattern):
            return self.want.fullmatch(got) is not None
        return got == self.want

    @property
    def wanted(self) -> str:
        """What it should be, as text."""
        return self.want.pattern if isinstance(self.want, re.Pattern) else self.want


_rows: list[Row] = []


def row(name: str, want: str | re.Pattern[str]) -> Callable[[Callable[[Site], str]], Callable[[Site], str]]:
    """Make a function a row: it attacks, and returns in a few words what came («415 queued»)."""

    def register(run: Callable[[Site], str]) -> Callable[[Site], str]:
        assert all(other.name != name for other in _rows), f"two rows are called {name}"
        _rows.append(Row(name, want, run))
        return run

    return register


def everything() -> list[Row]:
    """All rows, module by module."""
    for module in sorted(found.name for found in pkgutil.iter_modules([str(_PACKAGE)])):
        if module not in ("rows", "__main__") and not module.startswith("test_"):
            importlib.import_module(f"tests.faults.{module}")
    return list(_rows)


def run(one: Row, server: Callable[[str], Any], usual: Usual, *, quick: bool) -> str:
    """What a row answers now."""
    with contextlib.closing(Site(server, usual, quick=quick)) as site:
        return one.run(site)


@contextlib.contextmanager
def shared_servers() -> Iterator[Callable[[str], Any]]:
    """Servers by the name of their fixture, started at the first call, stopped at the end: for runs without pytest."""
    from tests import conftest

    made: dict[str, Any] = {}
    needs = {"rgw": ("ceph",), "swift": ("keystone",), "cinder": ("keystone", "mariadb", "ceph")}
    classes = {
        "postgresql": conftest.PostgreSQL,
        "mariadb": conftest.MariaDB,
        "memcached": conftest.Memcached,
        "keystone": conftest.Keystone,
        "ceph": conftest.Ceph,
        "rgw": conftest.Rgw,
        "swift": conftest.Swift,
        "vsphere": conftest.Vsphere,
        "cinder": conftest.Cinder,
    }
    with contextlib.ExitStack() as stack:

        def server(name: str) -> Any:
            if name not in made:
                one = classes[name](*(server(other) for other in needs.get(name, ())))
                stack.callback(one.close)
                one.start()
                made[name] = one
            return made[name]

        yield server
