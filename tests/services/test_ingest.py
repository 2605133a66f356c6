"""One source into stores: all of those that are required have all of it, or nothing of what was under way is left."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.stores import mounts
from tests.stores.drivers import file_options
from xloud_image.errors import AlreadyExists, BadRequest, StoreFull, StoreUnavailable
from xloud_image.services.ingest import Target, ingest
from xloud_image.stores.base import Caller
from xloud_image.stores.file.store import FileStore
from xloud_image.stores.layers import Layer
from xloud_image.stores.suite import MIB, feed, noise
from xloud_image.streams.digest import Digest
from xloud_image.streams.stages import Limit
from xloud_image.streams.tee import WINDOW, Branch

T = TypeVar("T")

CHUNK = 262144
LIMIT = 1  # filesystem_store_timeout
SMALL = 2 * MIB  # of a directory that is soon full
BATCHES = 2 * MIB  # what a file store holds itself


class Source:
    """So many bytes in chunks. `given`: how many were asked for; `at`: calls when so many were given."""

    def __init__(self, size: int) -> None:
        self.data = noise(size)
        self.given = 0
        self.at: dict[int, Callable[[], Any]] = {}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in feed(self.data, CHUNK):
            if (call := self.at.get(self.given)) is not None:
                call()
            self.given += len(chunk)
            yield chunk


class Watched(Layer):
    """Notes at the end of a write how much of the source had been asked for by then, and what was handed to it."""

    def __init__(self, inner: FileStore, source: Source) -> None:
        super().__init__(inner)
        self.source = source
        self.given: int | None = None
        self.took: AsyncIterator[bytes] | None = None
        self.how: dict[str, Any] = {}

    async def write(self, key: str, source: AsyncIterator[bytes], **how: Any) -> Any:
        self.took, self.how = source, how
        return await super().write(key, source, **how)

    async def _call(self, operation: str, call: Callable[[int], Awaitable[T]], caller: Caller | None = None) -> T:
        try:
            return await call(0)
        finally:
            self.given = self.source.given


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., FileStore]]:
    """File stores, each in a directory of its name."""
    made: list[FileStore] = []

    def one(name: str) -> FileStore:
        (tmp_path / name).mkdir(exist_ok=True)
        made.append(FileStore(name, file_options(tmp_path / name, store_timeout=LIMIT)))
        return made[-1]

    yield one
    for store in made:
        while store._threads.busy:
            await asyncio.sleep(0.01)
        await store.aclose()


@pytest.fixture
def full(tmp_path: Path) -> Iterator[None]:
    """The directory `full` has room for SMALL bytes."""
    with ExitStack() as stack:
        stack.enter_context(mounts.tmpfs(tmp_path / "full", str(SMALL)))
        yield


@pytest.fixture
def hangable(tmp_path: Path) -> Iterator[mounts.Hangable]:
    """The directory `sick` can be made to hang."""
    mount = mounts.Hangable(tmp_path / "behind", tmp_path / "sick")
    yield mount
    mount.close()


def files(tmp_path: Path, *names: str) -> list[str]:
    """What lies in the directories of these stores, drafts too."""
    return sorted(f"{name}/{path.name}" for name in names for path in (tmp_path / name).iterdir())


@pytest.mark.parametrize("size", [0, 1, CHUNK, 20 * MIB + 7])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("a", "b", "c")])
async def test_each_store_has_all_of_it(
    make: Any, tmp_path: Path, size: int, known: bool, names: tuple[str, ...]
) -> None:
    source = Source(size)
    targets = [Target(make(name), f"key-{name}", required=name != "b") for name in names]
    with ThreadPoolExecutor(2) as pool:
        limit, digest = Limit(size, size), Digest(["sha512"], pool)
        blobs = await ingest(aiter(source), targets, [limit, digest], size=size if known else None)
        hexes = await digest.hexes()
    assert {name: (blob.url, blob.size) for name, blob in blobs.items()} == {
        name: (f"file://{tmp_path / name / f'key-{name}'}", size) for name in names
    }
    assert all((tmp_path / name / f"key-{name}").read_bytes() == source.data for name in names)
    assert (limit.size, hexes["sha512"]) == (size, hashlib.sha512(source.data).hexdigest())
    assert [target.error for target in targets] == [None] * len(names)


async def test_a_single_store_reads_the_stages_themselves(make: Any) -> None:
    """And every store is told how much will come, and for whom."""
    source, who = Source(MIB), Caller(project="p")
    stores = [Watched(make(name), source) for name in "abc"]
    chunks = aiter(source)
    await ingest(chunks, [Target(stores[0], "key", who)], [], size=MIB)
    assert stores[0].took is chunks
    await ingest(aiter(source), [Target(store, "key", who) for store in stores[1:]], [], size=MIB)
    assert isinstance(stores[1].took, Branch)
    assert [store.how for store in stores] == [{"size": MIB, "caller": who}] * 3


@pytest.mark.parametrize("first", [True, False])
async def test_a_required_store_that_becomes_full(full: None, make: Any, tmp_path: Path, first: bool) -> None:
    bad, good = Target(make("full"), "key"), Target(make("good"), "key", required=False)
    source = Source(64 * MIB)
    with pytest.raises(StoreFull) as caught:
        await ingest(aiter(source), [bad, good] if first else [good, bad], [], size=None)
    assert (bad.error, good.error) == (caught.value, None)
    assert source.given < 64 * MIB
    assert files(tmp_path, "full", "good") == []


async def test_a_store_that_becomes_full_and_may(full: None, make: Any, tmp_path: Path) -> None:
    bad, good = Target(make("full"), "key", required=False), Target(make("good"), "key")
    source = Source(24 * MIB)
    blobs = await ingest(aiter(source), [bad, good], [], size=None)
    assert list(blobs) == ["good"]
    assert isinstance(bad.error, StoreFull)
    assert good.error is None
    assert (tmp_path / "good" / "key").read_bytes() == source.data
    assert files(tmp_path, "full", "good") == ["good/key"]


@pytest.mark.parametrize("required", [True, False])
async def test_a_store_that_hangs(make: Any, hangable: mounts.Hangable, tmp_path: Path, required: bool) -> None:
    """While it hangs the others wait, in bounded memory; then it is done without, or nothing is left anywhere."""
    begun, size = 4 * MIB, 40 * MIB
    source = Source(size)
    source.at[begun] = hangable.stop
    sick = Watched(make("sick"), source)
    bad, good = Target(sick, "key", required=required), Target(make("good"), "key")
    work = ingest(aiter(source), [bad, good], [], size=size)
    if required:
        with pytest.raises(StoreUnavailable):
            await work
    else:
        assert list(await work) == ["good"]
        assert (tmp_path / "good" / "key").read_bytes() == source.data
    assert isinstance(bad.error, StoreUnavailable)
    assert sick.given is not None
    assert begun < sick.given <= begun + WINDOW + BATCHES + 2 * CHUNK < size
    hangable.go_on()
    while sick.inner._threads.busy:  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)
    assert files(tmp_path, "sick", "good") == ([] if required else ["good/key"])


@pytest.mark.parametrize("required", [True, False])
async def test_the_source_fails(make: Any, tmp_path: Path, required: bool) -> None:
    """Whoever needs the stores: its error is what is raised, as it is."""
    error = OSError("the client is gone")
    targets = [Target(make(name), "key", required=required) for name in "ab"]
    with pytest.raises(OSError, match="gone") as caught:
        await ingest(feed(noise(20 * MIB), CHUNK, error=error), targets, [], size=None)
    assert caught.value is error
    assert files(tmp_path, "a", "b") == []


async def test_a_stage_refuses(make: Any, tmp_path: Path) -> None:
    targets = [Target(make("a"), "key"), Target(make("b"), "key", required=False)]
    with pytest.raises(BadRequest, match="announced"):
        await ingest(feed(noise(3 * MIB)), targets, [Limit(4 * MIB, 4 * MIB)], size=None)
    assert files(tmp_path, "a", "b") == []


async def test_no_store_takes_it(full: None, make: Any, tmp_path: Path) -> None:
    """Although none of them is required: somebody has to have the bytes."""
    taken = make("taken")
    await taken.write("key", feed(b"before"), size=6)
    targets = [Target(taken, "key", required=False), Target(make("full"), "key", required=False)]
    with pytest.raises(StoreFull):
        await ingest(aiter(Source(16 * MIB)), targets, [], size=None)
    assert [type(target.error) for target in targets] == [AlreadyExists, StoreFull]
    assert files(tmp_path, "taken", "full") == ["taken/key"]
    assert (tmp_path / "taken" / "key").read_bytes() == b"before"


async def test_it_is_cancelled(make: Any, tmp_path: Path) -> None:
    source = Source(16 * MIB)
    targets = [Target(make(name), "key", required=name == "a") for name in "ab"]
    work = asyncio.ensure_future(ingest(aiter(source), targets, [], size=None))
    source.at[8 * MIB] = work.cancel
    with pytest.raises(asyncio.CancelledError):
        await work
    assert files(tmp_path, "a", "b") == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
