"""What a store that takes data promises besides."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from xloud_image.errors import (
    AlreadyExists,
    BadRequest,
    BlobNotFound,
    ImageServiceError,
    InUse,
)
from xloud_image.stores.base import Blob, Can, Store
from xloud_image.stores.suite.reading import EDGES, MIB, SIZE, Suite, cases, collect, feed, noise, patches, zeros

ERRORS = (LookupError("gone"), ConnectionResetError(104, "reset"), BadRequest("no"))


class StoreSuite(Suite):
    """What a store with `Can.WRITE` promises besides."""

    COPIES: ClassVar[bool] = False  # `copy` does, of what is in the same store
    MAY_NOT_COPY: ClassVar[bool] = False  # this server may lack what it takes

    async def peek(self, key: str) -> bytes | None:
        raise NotImplementedError

    async def leave_behind(self, key: str) -> bool:
        raise NotImplementedError

    def hold(self, url: str) -> contextlib.AbstractAsyncContextManager[None] | None:
        """While entered something depends on the blob (a clone, a snapshot). None: the backend has no such thing."""
        return None

    async def in_turn(self, calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
        """One after the other; four at once for a store that is SLOW, because then the time goes by in waiting."""
        together = 4 if self.SLOW else 1
        for first in range(0, len(calls), together):
            await asyncio.gather(*(call() for call in calls[first : first + together]))

    async def clean(self, key: str) -> None:
        """Nothing is there under `key`, and it can be written again."""
        assert await self.peek(key) is None
        assert not await self.leftovers()
        blob = await self.store.write(key, feed(b"again"), size=5)
        assert await self.peek(key) == b"again"
        await self.store.delete(blob.url)

    async def test_the_flag(self) -> None:
        assert Can.WRITE in self.store.can

    @pytest.mark.parametrize("known", [True, False], ids=["size known", "size unknown"])
    async def test_writes_what_it_is_given(self, known: bool) -> None:
        every = [(noise, size, 262144) for size in EDGES] + [(noise, 3000, 1), (noise, SIZE, 70001)]
        every += [(patches, SIZE, chunk) for chunk in (4096, 70001, 262144, 2 * MIB)]
        every += [(zeros, size, 262144) for size in (1, 65536, SIZE)]
        some = [(noise, 0, 1), (noise, 3000, 1), (noise, MIB, 262144), (patches, SIZE, 70001), (zeros, SIZE, 2 * MIB)]

        async def write(number: int, make: Callable[[int, int], bytes], size: int, chunk: int) -> None:
            data, key = make(size, number), f"blob-{number}"
            blob = await self.store.write(key, feed(data, chunk), size=size if known else None)
            assert isinstance(blob, Blob)
            assert blob.size == size
            assert await self.peek(key) == data
            assert self.store.owns(blob.url)
            assert await self.read(blob.url) == data
            await self.store.delete(blob.url)

        await self.in_turn([functools.partial(write, n, *case) for n, case in enumerate(self.pick(every, some))])

    async def test_empty_chunks_mean_nothing(self) -> None:
        async def source() -> AsyncIterator[bytes]:
            for chunk in (b"", b"a", b"", b"b", b""):
                yield chunk

        await self.store.write("key", source(), size=2)
        assert await self.peek("key") == b"ab"

    async def test_no_secret_in_a_url(self) -> None:
        url = (await self.store.write("key", feed(b"x"), size=1)).url
        assert "@" not in urlsplit(url).netloc
        assert not any(secret in url for secret in self.SECRETS)

    async def test_outlives_the_process(self) -> None:
        url = (await self.store.write("key", feed(noise(SIZE)), size=None)).url
        second = await self.make()
        await second.start()
        try:
            async with second.open(url) as reader:
                assert await collect(reader) == noise(SIZE)
            await second.delete(url)
        finally:
            await second.aclose()
        assert await self.peek("key") is None

    async def test_a_taken_key_stays(self) -> None:
        await self.put_behind("old", b"old bytes")
        await self.store.write("new", feed(b"new bytes"), size=9)
        for key, data in (("old", b"old bytes"), ("new", b"new bytes")):
            for size in (5, None):
                with pytest.raises(AlreadyExists):
                    await self.store.write(key, feed(b"other"), size=size)
            assert await self.peek(key) == data
            assert not await self.leftovers()

    async def test_one_key_at_once_has_one_winner(self) -> None:
        for turn in self.pick(range(10), range(2)):
            key, data = f"key-{turn}", [noise(MIB + 7, n) for n in range(4)]
            ends = await asyncio.gather(
                *(self.store.write(key, feed(one), size=len(one)) for one in data), return_exceptions=True
            )
            won = [number for number, end in enumerate(ends) if isinstance(end, Blob)]
            assert len(won) == 1, ends
            assert sum(isinstance(end, AlreadyExists) for end in ends) == 3, ends
            assert await self.peek(key) == data[won[0]]
            assert not await self.leftovers()

    async def test_several_at_once_and_big_then_small(self) -> None:
        sizes = self.pick([SIZE, 10, MIB, 0, 2 * MIB + 1, 1], [SIZE, 10, 0])
        for known in (True, False):
            for size in sizes[:2]:
                blob = await self.store.write("one", feed(noise(size)), size=size if known else None)
                assert await self.peek("one") == noise(size)
                await self.store.delete(blob.url)
            writes = (
                self.store.write(f"{known}-{n}", feed(noise(size, n)), size=size if known else None)
                for n, size in enumerate(sizes)
            )
            await asyncio.gather(*writes)
            for number, size in enumerate(sizes):
                assert await self.peek(f"{known}-{number}") == noise(size, number)

    @cases("announced", [0, 1, SIZE - 1, SIZE + 1, SIZE + MIB], slow=[0, SIZE - 1, SIZE + MIB])
    async def test_another_size_than_announced(self, announced: int) -> None:
        with pytest.raises(BadRequest):
            await self.store.write("key", feed(noise(SIZE)), size=announced)
        await self.clean("key")

    @cases(
        "error, after, sizes",
        [
            pytest.param(error, after, (SIZE, None), id=f"{type(error).__name__}-{after}")
            for after in (0, 1, 262144, MIB, SIZE)
            for error in ERRORS
        ],
        slow=[(ERRORS[0], 0, (None,)), (ERRORS[1], MIB, (SIZE,)), (ERRORS[2], SIZE, (None,))],
    )
    async def test_an_error_of_the_source_passes_through(
        self, error: Exception, after: int, sizes: Sequence[int | None]
    ) -> None:
        for size in sizes:
            with pytest.raises(type(error)) as raised:
                await self.store.write("key", feed(noise(after), error=error), size=size)
            assert raised.value is error
            await self.clean("key")

    async def test_cancelled_at_any_moment_leaves_nothing(self) -> None:
        data = noise(SIZE)
        begun = time.monotonic()
        await self.store.write("whole", feed(data), size=SIZE)
        whole = time.monotonic() - begun
        moments = [whole * step / 30 for step in range(32)]

        async def cancel(number: int) -> None:
            key, turns = f"key-{number}", number // 2
            task = asyncio.ensure_future(self.store.write(key, feed(data), size=(None, SIZE)[number % 2]))
            if number % 4 < 2:
                await asyncio.sleep(moments[turns])
            else:
                for _ in range(turns):
                    await asyncio.sleep(0)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                assert await self.peek(key) is None
                assert self.SLOW or not await self.leftovers()  # else others are being written
            else:
                assert await self.peek(key) == data

        await self.in_turn([functools.partial(cancel, number) for number in self.pick(range(64), range(0, 64, 5))])
        assert not await self.leftovers()
        await self.clean("another")

    async def test_discard_takes_all_and_may_be_repeated(self) -> None:
        await self.store.discard("never")
        await self.store.write("key", feed(b"x"), size=1)
        for near in ("key2", "key.x", "key-1"):
            await self.put_behind(near, b"near")
        for _ in range(2):
            await self.store.discard("key")
            assert await self.peek("key") is None
        for near in ("key2", "key.x", "key-1"):
            assert await self.peek(near) == b"near"
        await self.clean("key")

    async def test_discard_takes_what_a_killed_process_left(self) -> None:
        assert await self.leave_behind("key"), "leave something behind, or say in NOT_APPLICABLE why nothing stays"
        assert await self.leftovers()
        await self.store.discard("key")
        await self.clean("key")

    async def test_discard_against_a_running_writer(self) -> None:
        await self._discard_while_writing(self.store)

    async def test_discard_against_a_writer_of_another_process(self) -> None:
        store = await self.make()
        await store.start()
        await self._discard_while_writing(store)
        await store.aclose()

    async def _discard_while_writing(self, store: Store) -> None:
        go, here = asyncio.Event(), asyncio.Event()

        async def source() -> AsyncIterator[bytes]:
            yield noise(MIB)
            yield noise(MIB)
            here.set()
            await go.wait()
            yield noise(MIB)

        running = asyncio.ensure_future(self.store.write("key", source(), size=3 * MIB))
        near = asyncio.ensure_future(self.store.write("key.x", feed(noise(SIZE), pause=0.01), size=SIZE))
        await here.wait()
        await store.discard("key")
        go.set()
        with pytest.raises(ImageServiceError):
            await running
        await near
        assert await self.peek("key.x") == noise(SIZE)
        await self.clean("key")

    async def test_delete(self) -> None:
        url = (await self.store.write("key", feed(b"x"), size=1)).url
        await self.store.delete(url)
        assert await self.peek("key") is None
        with pytest.raises(BlobNotFound):
            await self.store.delete(url)
        with pytest.raises(BlobNotFound):
            await self.store.stat(url)

    async def test_what_is_in_use_is_not_harmed(self) -> None:
        url = (await self.store.write("key", feed(b"data"), size=4)).url
        held = self.hold(url)
        assert held is not None, "make something depend on the blob, or say in NOT_APPLICABLE why nothing can"
        async with held:
            with pytest.raises(InUse):
                await self.store.delete(url)
            assert await self.read(url) == b"data"
        await self.store.delete(url)

    async def test_a_copy_is_whole_or_nothing(self) -> None:
        """As far as the backend copies; else it says so and has done nothing."""
        if not self.COPIES:
            assert await self.store.copy("copy", self.store, "x", size=5) is None
            return
        for number, data in enumerate((b"", noise(3000), patches(SIZE))):
            key, size = f"copy-{number}", len(data)
            blob = await self.store.write(f"origin-{number}", feed(data), size=size)
            copy = await self.store.copy(key, self.store, blob.url, size=size)
            assert copy is not None or not size or self.MAY_NOT_COPY
            if copy is not None:
                assert (copy.size, await self.peek(key), self.store.owns(copy.url)) == (size, data, True)
                with pytest.raises(AlreadyExists):
                    await self.store.copy(key, self.store, blob.url, size=size)
                await self.store.delete(copy.url)
            assert await self.store.copy(key, self.store, blob.url, size=size + 1) is None, "it has another size"
            await self.clean(key)
            assert await self.peek(f"origin-{number}") == data
            await self.store.delete(blob.url)

    async def test_a_copy_that_is_cancelled_leaves_nothing(self) -> None:
        if not self.COPIES:
            return
        data = noise(SIZE)
        blob = await self.store.write("origin", feed(data), size=SIZE)
        for pause in (0, 0.001, 0.01):
            copying = asyncio.ensure_future(self.store.copy("copy", self.store, blob.url, size=SIZE))
            await asyncio.sleep(pause)
            copying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await copying
                await self.store.discard("copy")
            await self.clean("copy")
        await self.store.delete(blob.url)

    async def test_a_key_that_is_no_name(self) -> None:
        for key in ("", ".", "..", "../up", "a/b", "/abs", ".hidden", "a\0b", "a\nb", "x" * 300, "%2e"):
            calls = (self.store.write(key, feed(b"x"), size=1), self.store.discard(key))
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert [isinstance(end, BadRequest) for end in ends] == [True, True], (key, ends)
