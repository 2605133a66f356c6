"""What `stores check` says of stores that lie, hang, fill up or break; whatever they do, nothing is left in them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from tests.memory import MemoryStore
from xloud_image.errors import (
    BlobError,
    BlobNotFound,
    Forbidden,
    ImageServiceError,
    StoreFull,
    StoreUnavailable,
    WriteDenied,
)
from xloud_image.services.store_check import Result, check_one
from xloud_image.stores.base import Blob, Health, Reader
from xloud_image.stores.layers import wrap


async def check(store: MemoryStore, *, deep: bool = True, timeout: float = 5) -> Result:
    return await check_one(store, "mine", "memory", deep=deep, timeout=timeout)


async def test_a_store_that_works() -> None:
    store = MemoryStore("mine", {})
    result = await check(store)
    assert (result.store, result.type, result.ok, result.free) == ("mine", "memory", True, 1 << 30)
    assert (result.reachable, result.authorised, result.writable) == (True, True, True)
    assert list(result.timings) == ["start", "check", "write", "read", "delete"]
    assert store.blobs == {}
    assert list((await check(store, deep=False)).timings) == ["start", "check"]


async def test_a_store_that_takes_no_data() -> None:
    result = await check(MemoryStore("mine", {}, writable=False))
    assert result.ok
    assert "takes no data" in result.detail
    assert (result.reachable, result.authorised, result.writable) == (True, True, False)


class Sick(MemoryStore):
    async def check(self) -> Health:
        raise StoreUnavailable("it does not answer")


class Broken(MemoryStore):
    async def check(self) -> Health:
        raise ZeroDivisionError("http://u:hunter2@h/")


class Hung(MemoryStore):
    async def write(self, key: str, source: AsyncIterator[bytes], **how: Any) -> Blob:
        await super().write(key, source, **how)
        await asyncio.sleep(60)
        raise AssertionError


class Forgetful(MemoryStore):
    def open(self, url: str, **how: Any) -> AbstractAsyncContextManager[Reader]:
        for key, data in self.blobs.items():
            self.blobs[key] = bytes(len(data))
        return super().open(url, **how)


class NoRange(MemoryStore):
    def open(self, url: str, **how: Any) -> AbstractAsyncContextManager[Reader]:
        return super().open(url)


class Keeps(MemoryStore):
    async def delete(self, url: str, **how: Any) -> None:
        pass


class Loses(MemoryStore):
    async def delete(self, url: str, **how: Any) -> None:
        raise BlobNotFound("it has no such data")


@pytest.mark.parametrize(
    ("store", "said"),
    [
        (Sick("mine", {}), "it does not answer"),
        (Broken("mine", {}), "unexpected: ZeroDivisionError: http://u:***@h/"),
        (Hung("mine", {}), "no answer within 0.5 s"),
        (Forgetful("mine", {}), "other bytes"),
        (NoRange("mine", {}), "other bytes"),
        (Keeps("mine", {}), "still has an object"),
        (Loses("mine", {}), "no such data"),
        (MemoryStore("mine", {}, capacity=1000), "no room"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_store_that_does_not_work(store: MemoryStore, said: str) -> None:
    result = await check(store, timeout=0.5)
    assert not result.ok
    assert said in result.detail
    assert store.blobs == {}
    assert store.running == {}


async def test_the_name_and_the_cure_are_said_once() -> None:
    class Cured(MemoryStore):
        async def check(self) -> Health:
            error = StoreUnavailable("it does not work now")
            error.cure = "/srv does not answer: see 'ls /srv'"
            raise error

    for store, said in (
        (Sick("mine", {}), "it does not answer"),
        (Cured("mine", {}), "/srv does not answer: see 'ls /srv'"),
    ):
        assert (await check_one(wrap(store), "mine", "memory", deep=True, timeout=5)).detail == f"store mine: {said}"


class Refused(StoreUnavailable):
    temporary = False


@pytest.mark.parametrize(
    ("error", "states"),
    [
        (StoreUnavailable, (False, None, None)),
        (Refused, (True, False, False)),
        (WriteDenied, (True, None, False)),
        (StoreFull, (True, True, False)),
        (BlobNotFound, (True, True, False)),  # the bucket or pool is not there
        (Forbidden, (True, None, False)),
        (BlobError, (True, None, False)),
    ],
)
async def test_what_an_error_tells(error: type[ImageServiceError], states: tuple[bool | None, ...]) -> None:
    class Failing(MemoryStore):
        async def check(self) -> Health:
            raise error("no")

    result = await check(Failing("mine", {}))
    assert not result.ok
    assert (result.reachable, result.authorised, result.writable) == states


async def test_a_store_that_only_cannot_be_written() -> None:
    result = await check(MemoryStore("mine", {}, capacity=1000))
    assert (result.reachable, result.authorised, result.writable, result.ok) == (True, True, False, False)
    assert result.free == 1000


async def test_a_store_that_does_not_even_start() -> None:
    class Hangs(MemoryStore):
        async def start(self) -> None:
            await asyncio.sleep(60)

    result = await check(Hangs("mine", {}), timeout=0.2)
    assert (result.ok, result.reachable, result.detail) == (False, False, "no answer within 0.2 s")
