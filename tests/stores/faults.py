"""Stores with one planted fault each, and the test of the suite that has to catch it. Run by `test_suite_bites`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from tests.memory import MemoryStore
from tests.stores.drivers import CANNOT_HANG, NOTHING_DEPENDS, FileHooks, MemoryHooks
from xloud_image.errors import BadRange, BlobNotFound, StoreUnavailable, Unsupported
from xloud_image.stores.base import Blob, Can, Reader, Store
from xloud_image.stores.file import syscalls
from xloud_image.stores.file import upload as draft_module
from xloud_image.stores.file.store import FileStore
from xloud_image.stores.suite import ReadOnlySuite, StoreSuite, feed


class Planted(FileHooks):
    FAULTY: ClassVar[type[FileStore]] = FileStore
    CAUGHT_BY: ClassVar[str] = ""

    async def make(self) -> Store:
        return self.FAULTY("fast", self.options())


class FinalNameAtOnce(FileStore):
    async def write(self, key: str, source: Any, *, size: int | None, caller: Any = None) -> Blob:
        path = f"{self.paths[0]}/{key}"
        with open(path, "xb") as file:
            async for chunk in source:
                file.write(chunk)
        return Blob(f"file://{path}", file.tell() if not file.closed else size or 0)


class TestFinalNameAtOnce(Planted):
    FAULTY = FinalNameAtOnce
    CAUGHT_BY = "test_an_error_of_the_source_passes_through[ConnectionResetError-262144]"


class CleansAfterErrorsOnly(FileStore):
    @contextlib.asynccontextmanager
    async def _all_or_nothing(self, steps: Any) -> AsyncIterator[None]:
        try:
            yield
        except Exception:
            await self._abandon(steps)
            raise


class TestCleansAfterErrorsOnly(Planted):
    FAULTY = CleansAfterErrorsOnly
    CAUGHT_BY = "test_cancelled_at_any_moment_leaves_nothing"


class TestCleansAfterErrorsOnlySlowly(TestCleansAfterErrorsOnly):
    SLOW = True


class LeaksHandles(FileStore):
    def __init__(self, name: str, options: Any) -> None:
        super().__init__(name, options)

        async def leak(close: Any) -> None:
            pass

        self._threads.close = leak  # type: ignore[method-assign]


class TestLeaksHandles(Planted):
    FAULTY = LeaksHandles
    CAUGHT_BY = "test_leaving_early_closes"


class ClosesLater(FileStore):
    def __init__(self, name: str, options: Any) -> None:
        super().__init__(name, options)

        async def later(close: Any) -> None:
            asyncio.get_running_loop().call_later(0.05, close)

        self._threads.close = later  # type: ignore[method-assign]


class TestClosesLater(Planted):
    FAULTY = ClosesLater
    CAUGHT_BY = "test_leaving_early_closes"


class FlagWithoutMethod(FileStore):
    async def delete(self, url: str, *, caller: Any = None) -> None:
        raise Unsupported("no")


class TestFlagWithoutMethod(Planted):
    FAULTY = FlagWithoutMethod
    CAUGHT_BY = "test_delete"


class NoRangeError(FileStore):
    @contextlib.asynccontextmanager
    async def open(self, url: str, *, offset: int = 0, length: Any = None, caller: Any = None) -> AsyncIterator[Reader]:
        size = (await self.stat(url)).size
        async with super().open(url, offset=0 if offset < 0 or offset >= size else offset, length=length) as reader:
            yield reader


class TestNoRangeError(Planted):
    FAULTY = NoRangeError
    CAUGHT_BY = "test_past_the_end_is_a_bad_range_at_entry"


class IgnoresTheOffset(FileStore):
    @contextlib.asynccontextmanager
    async def open(self, url: str, *, offset: int = 0, length: Any = None, caller: Any = None) -> AsyncIterator[Reader]:
        if offset < 0 or offset >= max(1, (await self.stat(url)).size):
            raise BadRange("past the end")
        async with super().open(url, length=length) as reader:
            yield reader


class TestIgnoresTheOffset(Planted):
    FAULTY = IgnoresTheOffset
    CAUGHT_BY = "test_every_range"


class TestIgnoresTheOffsetSlowly(TestIgnoresTheOffset):
    SLOW = True


class MissingInMidStream(FileStore):
    @contextlib.asynccontextmanager
    async def open(self, url: str, *, offset: int = 0, length: Any = None, caller: Any = None) -> AsyncIterator[Reader]:
        async def late() -> AsyncIterator[bytes]:
            raise BlobNotFound("missing")
            yield b""

        try:
            async with super().open(url, offset=offset, length=length) as reader:
                yield reader
        except BlobNotFound:
            yield Reader(0, late())


class TestMissingInMidStream(Planted):
    FAULTY = MissingInMidStream
    CAUGHT_BY = "test_missing_is_not_found_at_entry"


class LostWrite(FileStore):
    async def write(self, key: str, source: Any, *, size: int | None, caller: Any = None) -> Blob:
        kept = [chunk async for chunk in source][:-1]
        return await super().write(key, feed(b"".join(kept)), size=None)


class TestLostWrite(Planted):
    FAULTY = LostWrite
    CAUGHT_BY = "test_writes_what_it_is_given"


class TestLostWriteSlowly(TestLostWrite):
    SLOW = True


class ReturnsTooEarly(FileStore):
    async def write(self, key: str, source: Any, *, size: int | None, caller: Any = None) -> Blob:
        data = [chunk async for chunk in source]

        async def again() -> AsyncIterator[bytes]:
            for chunk in data:
                yield chunk

        self.later = asyncio.ensure_future(super().write(key, again(), size=size))
        return Blob(f"file://{self.paths[0]}/{key}", sum(map(len, data)))


class TestReturnsTooEarly(Planted):
    FAULTY = ReturnsTooEarly
    CAUGHT_BY = "test_writes_what_it_is_given"


class SizeOfTheLastCall(FileStore):
    remembered: int | None = None

    async def write(self, key: str, source: Any, *, size: int | None, caller: Any = None) -> Blob:
        self.remembered = size if size is not None else self.remembered
        return await super().write(key, source, size=self.remembered)


class TestSizeOfTheLastCall(Planted):
    FAULTY = SizeOfTheLastCall
    CAUGHT_BY = "test_an_error_of_the_source_passes_through[ConnectionResetError-262144]"


class AnnouncedSizeIgnored(FileStore):
    async def write(self, key: str, source: Any, *, size: int | None, caller: Any = None) -> Blob:
        return await super().write(key, source, size=None)


class TestAnnouncedSizeIgnored(Planted):
    FAULTY = AnnouncedSizeIgnored
    CAUGHT_BY = "test_another_size_than_announced"


class ZeroIsUnknown(FileStore):
    async def write(self, key: str, source: Any, *, size: int | None, caller: Any = None) -> Blob:
        return await super().write(key, source, size=size or None)


class TestZeroIsUnknown(Planted):
    FAULTY = ZeroIsUnknown
    CAUGHT_BY = "test_another_size_than_announced"


class Overwrites(FileStore):
    async def write(self, key: str, source: Any, *, size: int | None, caller: Any = None) -> Blob:
        with contextlib.suppress(BlobNotFound):
            await self.delete(f"file://{self.paths[0]}/{key}")
        return await super().write(key, source, size=size)


class TestOverwrites(Planted):
    FAULTY = Overwrites
    CAUGHT_BY = "test_a_taken_key_stays"


class TranslatesSourceErrors(FileStore):
    async def write(self, key: str, source: Any, *, size: int | None, caller: Any = None) -> Blob:
        try:
            return await super().write(key, source, size=size)
        except OSError as error:
            raise StoreUnavailable("reset") from error


class TestTranslatesSourceErrors(Planted):
    FAULTY = TranslatesSourceErrors
    CAUGHT_BY = "test_an_error_of_the_source_passes_through[ConnectionResetError-262144]"


class DiscardIgnoresDrafts(FileStore):
    async def discard(self, key: str, *, caller: Any = None) -> None:
        with contextlib.suppress(BlobNotFound):
            await self.delete(f"file://{self.paths[0]}/{key}")


class TestDiscardIgnoresDrafts(Planted):
    FAULTY = DiscardIgnoresDrafts
    CAUGHT_BY = "test_discard_takes_what_a_killed_process_left"


class TestDiscardIgnoresRunningWriters(Planted):
    FAULTY = DiscardIgnoresDrafts
    CAUGHT_BY = "test_discard_against_a_running_writer"


class DiscardTakesNeighbours(FileStore):
    async def discard(self, key: str, *, caller: Any = None) -> None:
        await super().discard(key)
        for near in ("2", ".x", "-1"):
            await self._threads.run(syscalls.discard, self.paths[0], key + near)


class TestDiscardTakesNeighbours(Planted):
    FAULTY = DiscardTakesNeighbours
    CAUGHT_BY = "test_discard_takes_all_and_may_be_repeated"


class DiscardOnce(FileStore):
    async def discard(self, key: str, *, caller: Any = None) -> None:
        await self.delete(f"file://{self.paths[0]}/{key}")


class TestDiscardOnce(Planted):
    FAULTY = DiscardOnce
    CAUGHT_BY = "test_discard_takes_all_and_may_be_repeated"


class SecretInTheURL(FileStore):
    async def write(self, key: str, source: Any, *, size: int | None, caller: Any = None) -> Blob:
        blob = await super().write(key, source, size=size)
        return Blob(blob.url.replace("file://", "file://user:s3cret@"), blob.size)


class TestSecretInTheURL(Planted):
    FAULTY = SecretInTheURL
    CAUGHT_BY = "test_no_secret_in_a_url"


class AnyKey(FileStore):
    async def discard(self, key: str, *, caller: Any = None) -> None:
        with contextlib.suppress(ValueError):
            await self._threads.run(syscalls.discard, self.paths[0], key)


class TestAnyKey(Planted):
    FAULTY = AnyKey
    CAUGHT_BY = "test_a_key_that_is_no_name"


class OwnsEverything(FileStore):
    def owns(self, url: str) -> bool:
        return url.startswith("file://")


class TestOwnsEverything(Planted):
    FAULTY = OwnsEverything
    CAUGHT_BY = "test_owns_nothing_else"


class DeletesWhatIsMissing(FileStore):
    async def delete(self, url: str, *, caller: Any = None) -> None:
        with contextlib.suppress(BlobNotFound):
            await super().delete(url)


class TestDeletesWhatIsMissing(Planted):
    FAULTY = DeletesWhatIsMissing
    CAUGHT_BY = "test_delete"


class HolesInTheWrongPlace(FileStore):
    def __init__(self, name: str, options: Any) -> None:
        super().__init__(name, options | {"filesystem_thin_provisioning": True})


class TestHolesInTheWrongPlace(Planted):
    FAULTY = HolesInTheWrongPlace
    CAUGHT_BY = "test_writes_what_it_is_given"

    async def make(self) -> Store:
        def misplaced(pieces: Any, at: int, *, least: int) -> Any:
            return ((start, run[:1]) for start, run in self.right(pieces, at, least=least))

        self.right = getattr(self, "right", draft_module.runs)
        draft_module.runs = misplaced
        return await super().make()

    async def leftovers(self) -> list[str]:
        draft_module.runs = self.right
        return await super().leftovers()


class SecondProcessSeesNothing(MemoryHooks, StoreSuite):
    pass


class TestMemoryThatClaimsToBeShared(SecondProcessSeesNothing):
    CAUGHT_BY = "test_outlives_the_process"


class MethodWithoutFlag(MemoryStore):
    def __init__(self, name: str, options: Any) -> None:
        super().__init__(name, options)
        self.can = Can(0)

    def _require_write(self) -> None:
        pass


class TestMethodWithoutFlag(MemoryHooks, ReadOnlySuite):
    CAUGHT_BY = "test_takes_no_data"

    async def make(self) -> Store:
        return MethodWithoutFlag("ram", {})


class TestFlagOfAReadOnlyStore(MemoryHooks, ReadOnlySuite):
    CAUGHT_BY = "test_takes_no_data"


class TestNoFault(Planted):
    CAUGHT_BY = ""
    NOT_APPLICABLE: ClassVar[dict[str, str]] = {**NOTHING_DEPENDS, **CANNOT_HANG}
