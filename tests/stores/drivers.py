"""The stores of this package behind the hooks of the suite; the test modules give them a place and layers."""

import contextlib
import secrets
from pathlib import Path
from typing import Any, ClassVar

from tests.memory import MemoryStore
from xloud_image.stores.base import Can, Store
from xloud_image.stores.file.store import FileStore
from xloud_image.stores.layers import Layer, wrap
from xloud_image.stores.suite import StoreSuite, Suite


def file_options(directory: Path | str, **given: Any) -> dict[str, Any]:
    """Every option of the file store: the defaults, and what is given by its name without `filesystem_`."""
    options = {option.name: option.default for option in FileStore.TYPE.options}
    options["filesystem_store_datadir"] = str(directory)
    for name, value in given.items():
        assert f"filesystem_{name}" in options
        options[f"filesystem_{name}"] = value
    return options


NOTHING_DEPENDS = {"test_what_is_in_use_is_not_harmed": "nothing can depend on a blob of this backend"}
CANNOT_HANG = {"test_a_hanging_store_answers_in_time": "a local disk and memory cannot be made to hang"}
IN_ONE_PROCESS = dict.fromkeys(
    (
        "test_outlives_the_process",
        "test_discard_takes_what_a_killed_process_left",
        "test_discard_against_a_writer_of_another_process",
    ),
    "this store is the memory of one process",
)


# what a store answers to readers, whatever its options of writing are
READING = (
    "test_owns_nothing_else",
    "test_every_range",
    "test_past_the_end_is_a_bad_range_at_entry",
    "test_leaving_early_closes",
    "test_many_readers_at_once",
    "test_a_file_can_be_sent",
)
# what is refused before anything is asked of a server
BY_ITSELF = ("test_the_flag", "test_owns_nothing_else", "test_a_key_that_is_no_name")


def tried_above(*names: str) -> dict[str, str]:
    """NOT_APPLICABLE of a variant, for tests in which it cannot differ from the class before it."""
    return dict.fromkeys(names, "the same code and the same answers as in the class before")


def all_but(suite: type[Suite], *names: str) -> dict[str, str]:
    """NOT_APPLICABLE of a variant that differs in these tests alone."""
    assert all(hasattr(suite, name) for name in names)
    return tried_above(*(name for name in dir(suite) if name.startswith("test_") and name not in names))


# The layers are the same over every store: the whole suite goes through them on files and in memory, elsewhere this.
THROUGH_LAYERS = "test_outlives_the_process"


class FileHooks(StoreSuite):
    """A file store in `self.directories()`; WRAPPED: with all layers."""

    WRAPPED: ClassVar[bool] = False
    COPIES: ClassVar[bool] = True
    OPTIONS: ClassVar[dict[str, Any]] = {}
    NOT_APPLICABLE: ClassVar[dict[str, str]] = NOTHING_DEPENDS

    def directories(self) -> list[Path]:
        return [self.tmp / "images"]

    def options(self) -> dict[str, Any]:
        paths = self.directories()
        options = file_options(paths[0], **self.OPTIONS)
        if len(paths) > 1:
            several = [f"{path}:{number}" for number, path in enumerate(reversed(paths))]
            options["filesystem_store_datadirs"] = several
        return options

    async def make(self) -> Store:
        store = FileStore("fast", self.options())
        return wrap(store) if self.WRAPPED else store

    async def peek(self, key: str) -> bytes | None:
        found = [path / key for path in self.directories() if (path / key).exists()]
        assert len(found) <= 1
        return found[0].read_bytes() if found else None

    async def put_behind(self, key: str, data: bytes) -> str:
        file = self.directories()[-1] / key
        file.write_bytes(data)
        return f"file://{file}"

    async def leftovers(self) -> list[str]:
        return [file.name for path in self.directories() for file in path.iterdir() if file.name.startswith(".")]

    async def leave_behind(self, key: str) -> bool:
        for path in self.directories():
            (path / f".{key}.{secrets.token_hex(8)}.part").write_bytes(b"half")
        # killed after the final name was given and before the other one was taken away
        draft = self.directories()[0] / f".{key}.0123456789abcdef.part"
        draft.write_bytes(b"whole")
        with contextlib.suppress(OSError):  # no hard links there
            (self.directories()[0] / key).hardlink_to(draft)
        return True


class MemoryHooks(Suite):
    """A memory store; what lies behind its back is its dictionary."""

    WRAPPED: ClassVar[bool] = False
    WRITABLE: ClassVar[bool] = True

    @property
    def memory(self) -> MemoryStore:
        store = self.store
        while isinstance(store, Layer):
            store = store.inner
        assert isinstance(store, MemoryStore)
        return store

    async def make(self) -> Store:
        store = MemoryStore("ram", {}, writable=self.WRITABLE)
        assert (Can.WRITE in store.can) == self.WRITABLE
        return wrap(store) if self.WRAPPED else store

    async def peek(self, key: str) -> bytes | None:
        return self.memory.blobs.get(key)

    async def put_behind(self, key: str, data: bytes) -> str:
        self.memory.blobs[key] = data
        return f"memory://ram/{key}"

    async def leftovers(self) -> list[str]:
        return list(self.memory.running.values())

    async def leave_behind(self, key: str) -> bool:
        return False
