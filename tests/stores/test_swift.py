"""What the swift store does besides the contract, on a real Swift: large objects of others, tokens, rights, locations,
and what it says when something is wrong. The contract: `test_swift_suite`."""

import asyncio
import contextlib
import secrets
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.load import quiet
from tests.servers.place import ROOT, new_directory
from tests.servers.process import Process
from tests.servers.swift import Swift
from tests.stores.cutting import cutter
from tests.stores.meddler import Meddler
from tests.stores.swift_hooks import PATIENCE, Behind, swift_options
from xloud_image.errors import (
    AlreadyExists,
    BlobNotFound,
    ConfigError,
    ImageServiceError,
    StoreFull,
    StoreUnavailable,
    Unsupported,
    WriteDenied,
)
from xloud_image.stores.base import Caller, Store
from xloud_image.stores.suite import SIZE, collect, feed, noise
from xloud_image.stores.swift.store import UNIT, SwiftStore

SMALL = {"swift_store_large_object_size": 1, "swift_store_large_object_chunk_size": 1}
IMAGE = "6b1f1d2c-0f5e-4b8a-9a57-2f4c3de0a1b2"


class Place:
    """A container name of the test, the account of the service behind the store's back, and stores for it."""

    def __init__(self, swift: Swift) -> None:
        self.swift = swift
        self.container = f"test-{secrets.token_hex(4)}"
        self.behind = Behind(swift)

    @contextlib.asynccontextmanager
    async def store(self, **given: Any) -> AsyncIterator[SwiftStore]:
        base = {**self.swift.options(swift_store_container=self.container), **SMALL}
        if "swift_store_config_file" in given or given.get("swift_store_multi_tenant"):
            base = {name: value for name, value in base.items() if name not in ("swift_store_user", "swift_store_key")}
        store = SwiftStore("objects", swift_options(**{**base, **given}), patience=PATIENCE)
        await store.start()
        try:
            yield store
        finally:
            await store.aclose()

    def endpoint(self, url: str) -> str:
        return f"{url}/v1/AUTH_{self.behind.project}"


@pytest.fixture
def place(swift: Swift) -> Place:
    return Place(swift)


async def read(store: Store, url: str, **where: Any) -> bytes:
    async with store.open(url, **where) as reader:
        return await collect(reader)


# large objects of others


async def test_dynamic_large_objects_of_the_peer(place: Place) -> None:
    data, container = noise(3_000_000), place.container
    for number in range(3):
        place.behind.put(f"{container}/{IMAGE}-{number + 1:05}", data[number * 1_000_000 :][:1_000_000])
    place.behind.put(f"{container}/{IMAGE}", b"", X_Object_Manifest=f"{container}/{IMAGE}-")
    place.behind.put(f"{container}/{IMAGE}.x", b"somebody else's")
    url = f"swift+config://ref1/{container}/{IMAGE}"
    async with place.store() as store:
        assert (await store.stat(url)).size == len(data)
        assert await read(store, url) == data
        assert await read(store, url, offset=999_990, length=20) == data[999_990:1_000_010]
        assert await read(store, url, offset=2_999_999) == data[-1:]
        place.behind.put(f"{container}/{IMAGE}-1", b"somebody else's")
        await store.delete(url)
        assert place.behind.names(container) == [f"{IMAGE}-1", f"{IMAGE}.x"]
        with pytest.raises(BlobNotFound):
            await store.delete(url)


@pytest.mark.parametrize("kind", ["--use-slo", ""])
async def test_large_objects_of_the_client(place: Place, tmp_path: Path, kind: str) -> None:
    file, data = tmp_path / "file", noise(3_000_000)
    file.write_bytes(data)
    words = ["upload", place.container, file, "--object-name", IMAGE, "--segment-size", "1000000"]
    place.swift.client(*words, *([kind] if kind else []))
    url = f"swift+config://ref1/{place.container}/{IMAGE}"
    async with place.store() as store:
        assert await read(store, url) == data
        assert await read(store, url, offset=999_999, length=1_000_002) == data[999_999:2_000_001]
        await store.delete(url)
    assert place.behind.names(place.container) == []
    assert place.behind.names(f"{place.container}_segments") == []


async def test_the_client_reads_and_deletes_ours(place: Place, tmp_path: Path) -> None:
    data = noise(SIZE)
    async with place.store() as store:
        blob = await store.write(IMAGE, feed(data), size=None)
        assert blob.url == f"swift+config://ref1/{place.container}/{IMAGE}"
        assert blob.version == (await store.stat(blob.url)).version
    place.swift.client("download", place.container, IMAGE, "--output", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == data
    assert len(place.behind.names(place.container)) == 1 + -(-SIZE // UNIT)
    place.swift.client("delete", place.container, IMAGE)
    assert place.behind.names(place.container) == []


async def test_what_lies_there(place: Place) -> None:
    for name in ("a", "a-00001", "a-00002", "a-1", "b-00001", "c/0123456789abcdef/00001"):
        place.behind.put(f"{place.container}/{name}", b"x")
    async with place.store() as store:
        await store.write("d", feed(noise(SIZE)), size=SIZE)
        assert await store.keys(100) == ["a", "a-1", "b-00001", "d"]
        assert await store.keys(2) == ["a", "a-1"]
    async with place.store(swift_store_multiple_containers_seed=1) as store:
        for key in ("x1", "x2", "y1"):
            await store.write(key, feed(b"x"), size=1)
        assert await store.keys(100) == ["x1", "x2", "y1"]
    async with place.store(swift_store_multi_tenant=True) as store:
        with pytest.raises(Unsupported):
            await store.keys(1)


async def test_one_object_below_the_large_size(place: Place) -> None:
    async with place.store(swift_store_large_object_size=100) as store:
        await store.write(IMAGE, feed(noise(SIZE)), size=SIZE)
    assert place.behind.names(place.container) == [IMAGE]


async def test_containers_by_the_first_characters(place: Place) -> None:
    async with place.store(swift_store_multiple_containers_seed=4) as store:
        blob = await store.write(IMAGE, feed(b"x"), size=1)
        assert blob.url == f"swift+config://ref1/{place.container}_6b1f/{IMAGE}"
        assert store.owns(blob.url)
        await store.check()
    async with place.store() as store:  # the seed may change: what is there is still read
        assert await read(store, blob.url) == b"x"
        assert not store.owns(blob.url.replace("_6b1f", "_7b1f"))


# transfers that break


@pytest.mark.parametrize("size", [SIZE, None])
@pytest.mark.parametrize("large", [1, 100], ids=["segments", "one object"])
async def test_a_cut_upload_leaves_nothing(place: Place, size: int | None, large: int) -> None:
    async with (
        cutter(place.swift.url) as way,
        place.store(swift_store_endpoint=place.endpoint(way.url), swift_store_large_object_size=large) as store,
    ):
        way.up = 600_000
        with pytest.raises(StoreUnavailable):
            await store.write(IMAGE, feed(noise(SIZE)), size=size)
        assert way.cuts == 1
        assert place.behind.names(place.container) == []
        await store.write(IMAGE, feed(noise(SIZE)), size=size)
    assert place.behind.get(f"{place.container}/{IMAGE}") == noise(SIZE)


@pytest.mark.parametrize("size", [SIZE, None])
async def test_segments_kept_on_disk_are_sent_again(place: Place, tmp_path: Path, size: int | None) -> None:
    async with (
        cutter(place.swift.url) as way,
        place.store(
            swift_store_endpoint=place.endpoint(way.url),
            swift_buffer_on_upload=True,
            swift_upload_buffer_dir=str(tmp_path),
        ) as store,
    ):
        way.up, way.times = 600_000, 2
        blob = await store.write(IMAGE, feed(noise(SIZE)), size=size)
        assert way.cuts == 2
        assert await read(store, blob.url) == noise(SIZE)
        way.cuts, way.times = 0, 1_000
        with pytest.raises(StoreUnavailable):
            await store.write("other", feed(noise(SIZE)), size=size)
    assert not [name for name in place.behind.names(place.container) if name.startswith("other")]
    async with place.store(swift_buffer_on_upload=True, swift_upload_buffer_dir="/nowhere") as store:
        with pytest.raises(StoreUnavailable, match="swift_upload_buffer_dir"):
            await store.write("other", feed(noise(SIZE)), size=size)
    assert not place.behind.unfinished(place.container)


async def test_a_cut_download_is_taken_up_again(place: Place) -> None:
    data = noise(SIZE)
    place.behind.put(f"{place.container}/{IMAGE}", data)
    url = f"swift+config://ref1/{place.container}/{IMAGE}"
    async with cutter(place.swift.url) as way:
        endpoint = place.endpoint(way.url)
        async with place.store(swift_store_endpoint=endpoint) as store:
            way.down = 1_000_000
            with pytest.raises(StoreUnavailable):
                await read(store, url)
        async with place.store(swift_store_endpoint=endpoint, swift_store_retry_get_count=3) as store:
            way.cuts, way.times = 0, 3
            assert await read(store, url, offset=5) == data[5:]
            assert way.cuts == 3
            way.cuts, way.times, way.down = 0, 4, 500_000
            with pytest.raises(StoreUnavailable):
                await read(store, url)
        # another object by now
        async with place.store(swift_store_endpoint=endpoint, swift_store_retry_get_count=3) as store:
            way.cuts, way.times = 0, 1
            async with store.open(url) as reader:
                place.behind.put(f"{place.container}/{IMAGE}", noise(SIZE, 1))
                with pytest.raises(StoreUnavailable, match="changed"):
                    await collect(reader)


async def test_a_token_that_ends_in_the_middle(place: Place) -> None:
    data = noise(SIZE)

    async def source() -> AsyncIterator[bytes]:
        async for chunk in feed(data[: 2 * UNIT]):
            yield chunk
        grant = store._accounts["ref1"]._grant
        assert grant is not None
        assert grant.token is not None
        place.swift.keystone.revoke(grant.token)
        revoked.append(grant.token)
        await asyncio.sleep(2)  # Swift believes in a token for a second
        async for chunk in feed(data[2 * UNIT :]):
            yield chunk

    revoked: list[str] = []
    async with place.store() as store:
        for size in (SIZE, None):
            blob = await store.write(IMAGE, source(), size=size)
            assert await read(store, blob.url) == data
            await store.delete(blob.url)
        grant = store._accounts["ref1"]._grant
        assert grant is not None
        assert len({*revoked, grant.token}) == 3
    assert place.behind.names(place.container) == []


async def test_a_callers_token_that_ends_in_the_middle(place: Place) -> None:
    demo = Behind(place.swift, "demo")

    async def source() -> AsyncIterator[bytes]:
        yield noise(2 * UNIT)
        place.swift.keystone.revoke(demo.token)
        await asyncio.sleep(2)
        yield noise(2 * UNIT)

    async with place.store(swift_store_multi_tenant=True) as store:
        with pytest.raises(StoreUnavailable, match="lifetime of tokens") as raised:
            await store.write(IMAGE, source(), size=4 * UNIT, caller=Caller(project=demo.project, token=demo.token))
        assert not raised.value.temporary


async def test_a_token_is_renewed_before_it_ends(place: Place) -> None:
    place.behind.put(f"{place.container}/{IMAGE}", b"x")
    async with place.store(swift_store_expire_soon_interval=1_000_000) as store:
        tokens = set()
        for _ in range(2):
            await store.stat(f"swift+config://ref1/{place.container}/{IMAGE}")
            tokens.add(store._accounts["ref1"]._grant)
        assert len(tokens) == 2


async def test_killed_in_the_middle_then_discarded(place: Place) -> None:
    program = textwrap.dedent(
        f"""
        import asyncio, sys
        sys.path[:0] = {[str(ROOT), str(ROOT / "src")]!r}
        from xloud_image.stores.swift.store import SwiftStore
        async def source():
            for _ in range(3):
                yield bytes(1_000_000)
            print("here", flush=True)
            await asyncio.sleep(600)
            yield b""
        options = {swift_options(**place.swift.options(swift_store_container=place.container, **SMALL))!r}
        async def main():
            store = SwiftStore("objects", options)
            await store.start()
            await store.write({IMAGE!r}, source(), size=None)
        asyncio.run(main())
        """
    )
    directory = new_directory("killed")
    process = Process("an upload", [sys.executable, "-c", program], log=directory / "log", directory=directory)
    # a note and two segments
    process.wait_for(lambda: "here" in process.output() and len(place.behind.unfinished(place.container)) == 3)
    process.kill()
    await asyncio.sleep(0.5)
    assert len(place.behind.unfinished(place.container)) == 3
    async with place.store() as store:
        await store.discard(IMAGE)
        assert place.behind.names(place.container) == []
        await store.write(IMAGE, feed(b"again"), size=5)


async def test_swift_that_stops_in_the_middle(place: Place) -> None:
    """Both ways in time, and all is well without a restart of anything of ours."""
    data = noise(8 * UNIT)
    async with place.store() as store:
        url = (await store.write("there", feed(data), size=len(data))).url

        async def source() -> AsyncIterator[bytes]:
            yield data[: 2 * UNIT]
            place.swift.freeze()
            for start in range(2 * UNIT, len(data), 262144):
                yield data[start : start + 262144]

        begun = asyncio.get_running_loop().time()
        try:
            with pytest.raises(StoreUnavailable):
                await store.write(IMAGE, source(), size=len(data))
            with pytest.raises(StoreUnavailable):
                await store.check()
        finally:
            place.swift.thaw()
        assert asyncio.get_running_loop().time() - begun < quiet(6 * PATIENCE)
        await asyncio.sleep(0.5)
        await store.discard(IMAGE)  # as the service does when it could not clean
        try:
            async with store.open(url) as reader:
                await anext(reader.chunks)
                place.swift.freeze()
                with pytest.raises(StoreUnavailable):
                    await collect(reader)
        finally:
            place.swift.thaw()
        assert await read(store, url) == data
        await store.write(IMAGE, feed(data), size=None)
        await store.delete(url)
    assert place.behind.unfinished(place.container) == []


# what it says


async def test_a_wrong_password_names_the_options(place: Place, tmp_path: Path) -> None:
    url = f"swift+config://ref1/{place.container}/{IMAGE}"
    async with place.store(swift_store_key="wrong") as store:
        for call in (store.check(), store.stat(url), store.write(IMAGE, feed(b"x"), size=1), store.discard(IMAGE)):
            with pytest.raises(StoreUnavailable, match="swift_store_user and swift_store_key") as raised:
                await call
            assert not raised.value.temporary
            assert "wrong" not in raised.value.message
    file = tmp_path / "references"
    file.write_text(f"[ref1]\nauth_address = {place.swift.keystone.url}\nuser = service:glance\nkey = wrong\n")
    async with place.store(swift_store_config_file=str(file)) as store:
        with pytest.raises(StoreUnavailable, match=r"user in section \[ref1\] of .*references"):
            await store.check()


async def test_an_identity_service_that_is_down(place: Place) -> None:
    async with (
        cutter(place.swift.keystone.url) as way,
        place.store(swift_store_auth_address=f"{way.url}/v3", swift_store_expire_soon_interval=1_000_000) as store,
    ):
        blob = await store.write(IMAGE, feed(b"x"), size=1)
        await way.close()
        for call in (store.check(), store.stat(blob.url), store.write("other", feed(b"x"), size=1)):
            with pytest.raises(StoreUnavailable, match="identity service does not answer") as raised:
                await call
            assert raised.value.temporary
        await way.open()
        assert await read(store, blob.url) == b"x"


async def test_a_missing_container(place: Place) -> None:
    async with place.store(swift_store_create_container_on_put=False) as store:
        for call in (store.check(), store.write(IMAGE, feed(b"x"), size=1), store.write(IMAGE, feed(b"x"), size=None)):
            with pytest.raises(WriteDenied, match=f"{place.container} is missing.*create_container_on_put"):
                await call
        await store.discard(IMAGE)
        place.behind.call("PUT", place.container)
        await store.check()
        await store.write(IMAGE, feed(b"x"), size=1)


async def test_a_quota(place: Place) -> None:
    place.behind.call("PUT", place.container, headers={"X-Container-Meta-Quota-Bytes": str(2 * UNIT)})
    async with place.store() as store:
        assert (await store.check()).free == 2 * UNIT
        for size in (SIZE, None):
            with pytest.raises(StoreFull, match="quota"):
                await store.write(IMAGE, feed(noise(SIZE)), size=size)
            assert place.behind.names(place.container) == []
        await store.write(IMAGE, feed(noise(UNIT)), size=UNIT)
        assert (await store.check()).free in range(UNIT - 1000, UNIT + 1)


async def test_two_writers_on_two_nodes(place: Place) -> None:
    async with place.store() as one, place.store() as two:
        for size in (UNIT // 2, None):
            for turn in range(6):
                data = [noise(UNIT // 2, seed) for seed in (1, 2)]
                ends = await asyncio.gather(
                    *(
                        store.write(f"{size}-{turn}", feed(part), size=size)
                        for store, part in zip((one, two), data, strict=True)
                    ),
                    return_exceptions=True,
                )
                lost = [end for end in ends if isinstance(end, AlreadyExists)]
                assert len(lost) == 1, ends
                won = ends.index(next(end for end in ends if end not in lost))
                assert place.behind.get(f"{place.container}/{size}-{turn}") == data[won]
    assert place.behind.unfinished(place.container) == []


# locations


@contextlib.asynccontextmanager
async def named(**given: Any) -> AsyncIterator[SwiftStore]:
    """A store of a server that nobody asks."""
    base = {
        "swift_store_auth_address": "https://keystone.example:5000/v3",
        "swift_store_user": "service:glance",
        "swift_store_key": "secret",
    }
    store = SwiftStore("any-id", swift_options(**{**base, **given}))
    await store.start()
    yield store
    await store.aclose()


OURS = [
    f"swift+config://ref1/glance/{IMAGE}",
    f"swift+config://ref1/glance_6b1f1/{IMAGE}",
    f"swift+https://service%3Aglance:secret@keystone.example:5000/v3/glance/{IMAGE}",
    f"swift+https://service:glance:secret@keystone.example:5000/v3/glance/{IMAGE}",
    f"swift+https://service%3aglance:s%2Fe%40c%3Aret@keystone.example:5000/v3/glance/{IMAGE}",
    f"swift+https://service:glance:an/old@key@keystone.example:5000/v3/glance/{IMAGE}",
    f"swift+http://service%3Aother-user:old@KEYSTONE.example:5000/v2.0/glance/{IMAGE}",
    f"swift://service:glance:secret@keystone.example:5000/glance/{IMAGE}",
    f"swift://service%3Aglance:secret@keystone.example:5000/v3/glance/{IMAGE}",
]
FOREIGN = [
    f"swift+config://ref2/glance/{IMAGE}",
    f"swift+config://ref1/other/{IMAGE}",
    f"swift+config://ref1/glance_7/{IMAGE}",
    f"swift+config://ref1/glance/a/{IMAGE}",
    "swift+config://ref1/glance/%2e%2e",
    "swift+config://ref1/glance/a%2Fb",
    f"swift+config://user@ref1/glance/{IMAGE}",
    "swift+config://ref1/glance/",
    f"swift+https://demo%3Aglance:secret@keystone.example:5000/v3/glance/{IMAGE}",
    f"swift+https://service%3Aglance:secret@other.example:5000/v3/glance/{IMAGE}",
    f"swift+https://service%3Aglance:secret@keystone.example:5000/v3/other/{IMAGE}",
    f"swift+https://swift.example/v1/AUTH_x/glance/{IMAGE}",
    f"https://keystone.example:5000/v3/glance/{IMAGE}",
    f"swift+config:///glance/{IMAGE}",
    "swift+config://ref1",
]


async def test_every_form_of_location(tmp_path: Path) -> None:
    async with named() as store:
        assert [url for url in OURS if not store.owns(url)] == []
        assert [url for url in FOREIGN if store.owns(url)] == []
    async with named(default_swift_reference="ref2") as store:
        assert store.owns(f"swift+config://ref2/glance/{IMAGE}")
        assert not store.owns(f"swift+config://ref1/glance/{IMAGE}")
    file = tmp_path / "references"
    sections = [f"[{name}]\nauth_address = https://{name}.example\nuser = a:b\nkey = 'c'\n" for name in ("ref1", "old")]
    file.write_text("".join(sections))
    async with named(swift_store_config_file=str(file)) as store:
        for reference in ("ref1", "old"):
            assert store.owns(f"swift+config://{reference}/glance/{IMAGE}")
            assert store.owns(f"swift+https://a%3Ab:other-key@{reference}.example/v3/glance/{IMAGE}")
        assert not store.owns(f"swift+config://ref3/glance/{IMAGE}")


async def test_old_locations_are_read_with_our_own_key(place: Place) -> None:
    place.behind.put(f"{place.container}/{IMAGE}", b"old")
    address = place.swift.keystone.url.removeprefix("http://")
    async with place.store() as store:
        for login in ("service%3Aglance:long-gone", "service:glance:long-gone"):
            url = f"swift+http://{login}@{address}/{place.container}/{IMAGE}"
            assert store.owns(url)
            assert await read(store, url) == b"old"
        await store.delete(url)
    assert place.behind.names(place.container) == []


async def test_contradictions_are_refused(tmp_path: Path) -> None:
    def made(**given: Any) -> SwiftStore:
        return SwiftStore("objects", swift_options(**given))

    account = {"swift_store_auth_address": "http://k", "swift_store_user": "a:b", "swift_store_key": "c"}
    for given, words in (
        ({}, "the account is missing"),
        ({**account, "swift_store_user": "b"}, "project:user"),
        ({**account, "swift_store_key": None}, "swift_store_key is missing"),
        ({**account, "swift_store_auth_address": None}, "swift_store_auth_address is missing"),
        ({**account, "swift_buffer_on_upload": True}, "swift_upload_buffer_dir"),
        ({"swift_store_multi_tenant": True}, "needs swift_store_auth_address"),
        ({"swift_store_multi_tenant": True, "swift_store_config_file": "/x"}, "exclude each other"),
    ):
        with pytest.raises(ConfigError, match=words):
            made(**given)
    file = tmp_path / "references"
    for text, words in (
        ("[other]\nauth_address = http://k\nuser = a:b\nkey = c\n", "default_swift_reference ref1 is no section"),
        ("[ref1]\nauth_address = http://k\nuser = a:b\n", r"key in section \[ref1\]"),
        ("nothing", "no INI file"),
        (None, "No such file"),
    ):
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        store = made(swift_store_config_file=str(file))
        await store.start()
        for call in (store.check(), store.stat(f"swift+config://ref1/glance/{IMAGE}")):
            with pytest.raises(StoreUnavailable, match=words):
                await call
        await store.aclose()


async def test_an_application_credential(place: Place) -> None:
    """Instead of user and key; Keystone gives it out once."""
    keystone = place.swift.keystone
    token, said = keystone.login("glance")
    path = f"/users/{said['user']['id']}/application_credentials"
    made, _ = keystone.call("POST", path, {"application_credential": {"name": place.container}}, token)
    credential = made["application_credential"]
    async with place.store(
        swift_store_user=None,
        swift_store_key=None,
        swift_store_application_credential_id=credential["id"],
        swift_store_application_credential_secret=credential["secret"],
    ) as store:
        blob = await store.write(IMAGE, feed(b"x"), size=1)
        assert await read(store, blob.url) == b"x"
        keystone.call("DELETE", f"{path}/{credential['id']}", token=token)
        await asyncio.sleep(2)
        with pytest.raises(StoreUnavailable, match="application_credential_id"):
            await store.stat(blob.url)


# the uploaders' accounts


async def test_rights_follow(place: Place) -> None:
    demo, alt = Behind(place.swift, "demo"), Behind(place.swift, "alt")
    owner, other = (Caller(project=one.project, token=one.token) for one in (demo, alt))
    async with place.store(swift_store_multi_tenant=True) as store:
        url = (await store.write(IMAGE, feed(noise(SIZE)), size=SIZE, caller=owner)).url
        assert url == f"swift+{demo.storage}/{place.container}_{IMAGE}/{IMAGE}"
        assert demo.token not in url

        async def alt_reads() -> bool:
            try:
                return await read(store, url, caller=other) == noise(SIZE)
            except StoreUnavailable as error:
                if error.temporary:
                    raise
                return False

        assert not await alt_reads()
        await store.share(url, readers=[alt.project], caller=owner)
        assert await alt_reads()
        await store.share(url, readers=[place.behind.project], caller=owner)
        assert not await alt_reads()
        await store.share(url, readers=[], public=True, caller=owner)
        assert await alt_reads()
        for call in (store.delete(url, caller=other), store.share(url, readers=[alt.project], caller=other)):
            with pytest.raises(ImageServiceError):
                await call
        await store.share(url, readers=[], caller=owner)
        assert not await alt_reads()
        with pytest.raises(StoreUnavailable, match="service account"):
            await store.delete(url)
        await store.delete(url, caller=owner)
        assert demo.containers(place.container) == []


async def test_a_service_account_cleans_for_the_uploaders(place: Place) -> None:
    demo = Behind(place.swift, "demo")
    service = {"swift_store_user": "service:glance", "swift_store_key": "servicepass"}
    async with place.store(
        swift_store_multi_tenant=True, swift_store_admin_tenants=[place.behind.project], **service
    ) as store:
        owner = Caller(project=demo.project, token=demo.token)
        url = (await store.write(IMAGE, feed(noise(SIZE)), size=SIZE, caller=owner)).url
        assert await read(store, url) == noise(SIZE)
        await store.delete(url)
        assert demo.names(f"{place.container}_{IMAGE}") == []
        url = (await store.write(IMAGE, feed(noise(SIZE)), size=SIZE, caller=owner)).url
        await store.discard(IMAGE, caller=Caller(project=demo.project))
        assert demo.names(f"{place.container}_{IMAGE}") == []
        await store.check()


async def test_what_was_stored_before_the_uploaders_had_their_own(place: Place) -> None:
    place.behind.put(f"{place.container}/{IMAGE}", b"old")
    account = {"swift_store_user": "service:glance", "swift_store_key": "servicepass"}
    async with place.store(swift_store_multi_tenant=True, **account) as store:
        url = f"swift+config://ref1/{place.container}/{IMAGE}"
        assert store.owns(url)
        assert await read(store, url) == b"old"
        await store.delete(url)
    assert place.behind.call("HEAD", place.container).status == 204  # it is not the container of one image


async def test_no_token_goes_to_another_server(place: Place) -> None:
    demo = Behind(place.swift, "demo")
    seen: list[bytes] = []

    async def spy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(spy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    storage = demo.storage.replace(str(place.swift.port), str(port))
    url = f"swift+{storage}/{place.container}_{IMAGE}/{IMAGE}"
    async with place.store(swift_store_multi_tenant=True) as store:
        for _ in range(2):
            with pytest.raises(BlobNotFound):
                await store.stat(url, caller=Caller(project=demo.project, token=demo.token))
        assert not store.owns(url)
    server.close()
    assert not seen


# servers, and what stands before them, that do not do all that Swift does


@pytest.mark.parametrize("fate", ["whole", "part", "called200"])
async def test_ranges_that_are_not_looked_at(place: Place, fate: str) -> None:
    async with Meddler(place.swift.port) as meddler:
        options = {"swift_store_endpoint": place.endpoint(meddler.url), "swift_store_create_container_on_put": True}
        async with place.store(**options) as store:
            url = (await store.write(IMAGE, feed(noise(SIZE)), size=SIZE)).url
            asked: list[str] = []

            def once(number: int, line: str) -> str:
                asked.append(line)
                return fate if len(asked) == 1 else "pass"

            meddler.fate = once
            assert await read(store, url, offset=1000, length=5000) == noise(SIZE)[1000:6000]
            assert await read(store, url) == noise(SIZE)


async def test_a_part_of_nobody_knows_what_is_never_taken_for_the_whole(place: Place) -> None:
    async with (
        Meddler(place.swift.port) as meddler,
        place.store(swift_store_endpoint=place.endpoint(meddler.url)) as store,
    ):
        url = (await store.write(IMAGE, feed(noise(SIZE)), size=SIZE)).url
        meddler.fate = lambda number, line: "part"
        for where in ({}, {"offset": 1000}):
            with pytest.raises(StoreUnavailable, match="a part of the data"):
                await read(store, url, **where)
        meddler.fate = lambda number, line: "called200"
        for offset in (1, 1000, SIZE - 1):
            assert await read(store, url, offset=offset) == noise(SIZE)[offset:]


@pytest.mark.parametrize("fate", ["status:503", "status:403", "refuse"])
@pytest.mark.parametrize("large", [False, True], ids=["one object", "segments"])
async def test_a_finished_upload_that_nobody_can_look_at_is_acknowledged(place: Place, large: bool, fate: str) -> None:
    """Swift goes away right after the object was put: what is not known undoes nothing."""
    size = 3 * UNIT if large else SIZE
    async with (
        Meddler(place.swift.port) as meddler,
        place.store(
            swift_store_endpoint=place.endpoint(meddler.url), swift_store_large_object_size=1 if large else 100
        ) as store,
    ):
        there: list[str] = []

        def away(number: int, line: str) -> str:
            method, path, _ = line.split(" ")
            if there:
                return fate
            if method == "PUT" and path.partition("?")[0].endswith(f"/{IMAGE}"):
                there.append(line)
            return "pass"

        meddler.fate = away
        url = (await store.write(IMAGE, feed(noise(size)), size=size)).url
        assert there
        meddler.fate = lambda number, line: "pass"
        assert await read(store, url) == noise(size)


@pytest.mark.parametrize("large", [False, True], ids=["one object", "segments"])
async def test_an_object_whose_answer_was_lost_keeps_its_segments(place: Place, large: bool) -> None:
    """Put, the answer lost, and nobody tells whether it is there: its segments are not removed from under it."""
    size = 3 * UNIT if large else SIZE
    async with (
        Meddler(place.swift.port) as meddler,
        place.store(
            swift_store_endpoint=place.endpoint(meddler.url), swift_store_large_object_size=1 if large else 100
        ) as store,
    ):
        there: list[str] = []

        def away(number: int, line: str) -> str:
            method, path, _ = line.split(" ")
            if method == "PUT" and path.partition("?")[0].endswith(f"/{IMAGE}"):
                there.append(line)
                return "lose"
            return "status:503" if there and method == "HEAD" else "pass"

        meddler.fate = away
        with pytest.raises(StoreUnavailable):
            await store.write(IMAGE, feed(noise(size)), size=size)
        meddler.fate = lambda number, line: "pass"
        url = f"swift+config://ref1/{place.container}/{IMAGE}"
        end = time.monotonic() + quiet(10)
        while True:
            try:  # Swift may still be at what it was asked
                assert await read(store, url) == noise(size)
                break
            except BlobNotFound:
                assert time.monotonic() < end
                await asyncio.sleep(0.1)
        await store.discard(IMAGE)
        assert place.behind.names(place.container) == []


@pytest.mark.parametrize("large", [False, True], ids=["one object", "segments"])
async def test_a_finished_upload_is_not_undone_by_its_tidying(place: Place, large: bool) -> None:
    """Notes that cannot be taken away, once or ever, are tried again and left."""
    size = 3 * UNIT if large else SIZE
    async with Meddler(place.swift.port) as meddler:
        options = {"swift_store_endpoint": place.endpoint(meddler.url), "swift_store_create_container_on_put": True}
        async with place.store(**options) as store:
            for key, most in (("once", 1), ("ever", 1000)):
                refused: list[str] = []

                def refuse(number: int, line: str, refused: list[str] = refused, most: int = most) -> str:
                    if line.startswith("DELETE") and len(refused) < most:
                        refused.append(line)
                        return "status:503"
                    return "pass"

                meddler.fate = refuse
                url = (await store.write(key, feed(noise(size)), size=size)).url
                assert refused
                meddler.fate = lambda number, line: "pass"
                assert await read(store, url) == noise(size)
                await store.discard(key)
                assert place.behind.names(place.container) == []


@pytest.mark.parametrize("status", [405, 501, 400])
async def test_what_is_never_done_is_not_called_temporary(place: Place, status: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        meddler = await stack.enter_async_context(Meddler(place.swift.port))
        store = await stack.enter_async_context(place.store(swift_store_endpoint=place.endpoint(meddler.url)))
        meddler.fate = lambda number, line: f"status:{status}"
        with pytest.raises(StoreUnavailable, match="asking again cannot help") as caught:
            await store.stat(f"swift+config://ref1/{place.container}/{IMAGE}")
        assert not caught.value.temporary
