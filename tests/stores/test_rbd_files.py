"""What stands in ceph.conf and in the keyrings: Ceph's library ends its process for some of it; ours goes on, says why,
and serves from its other stores."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ServiceFactory
from tests.load import quiet
from tests.servers.ceph import Ceph
from tests.servers.process import Stuck
from tests.stores.pool import Pool
from tests.stores.test_rbd import administrator, rbd_options
from xloud_image.errors import StoreUnavailable
from xloud_image.stores.rbd import trial
from xloud_image.stores.rbd.store import RbdStore

__all__ = ["administrator"]
Write = Callable[..., Path]


@pytest.fixture
def write(ceph: Ceph) -> Iterator[Write]:
    """Makes a ceph.conf: `write(before=b"", after=b"")` around a small one that works."""
    made: list[Path] = []

    def make(*, before: bytes = b"", after: bytes = b"", keyring: bytes | None = None) -> Path:
        path = ceph.directory / f"odd-{len(made)}.conf"
        lines = [
            b"[global]",
            *(line for line in ceph.conf.read_bytes().splitlines() if line.startswith((b"fsid", b"mon_host"))),
            b"[client]",
        ]
        where = ceph.keyring("glance")
        if keyring is not None:
            where = path.with_suffix(".keyring")
            where.write_bytes(keyring)
        lines.append(b"keyring = " + str(where).encode())
        path.write_bytes(before + b"\n".join(lines) + b"\n" + after)
        made.append(path)
        return path

    yield make
    for path in made:
        path.unlink()


def rbd(conf: Path, **more: Any) -> dict[str, Any]:
    return {"rbd_store_ceph_conf": conf, "rbd_store_user": "glance", "rbd_store_pool": "images", **more}


DEADLY = {
    "a value": ({"after": "crush_location = host=zürich\n".encode()}, r"line 6 of .* outside ASCII \(byte 0xc3\)"),
    "a name": ({"after": "zürich = 1\n".encode()}, "line 6"),
    "a section": ({"after": "[zü]\n".encode()}, "line 6"),
    "a byte order mark": ({"before": b"\xef\xbb\xbf"}, "byte order mark: save it without"),
    "a comment that goes on": ({"after": "# x \\\n  zü = 1\n".encode()}, "line 7"),
}


@pytest.mark.parametrize("case", DEADLY)
async def test_what_ends_the_library_is_refused_with_its_place(write: Write, ceph: Ceph, case: str) -> None:
    how, says = DEADLY[case]
    conf = write(**how)
    store = RbdStore("fast", rbd_options(ceph, rbd_store_ceph_conf=str(conf)))
    assert any("does not survive" in note for note in store.notes())
    await store.start()
    with pytest.raises(StoreUnavailable, match=says):
        await store.check()
    with pytest.raises(StoreUnavailable, match="does not work now") as refused:
        await store.stat(f"rbd://{ceph.fsid}/images/x/snap")
    assert str(conf) not in refused.value.message
    # mended: it is looked at again, by itself
    conf.write_bytes(conf.read_bytes().decode("ascii", "ignore").encode())
    for _ in range(2):
        with contextlib.suppress(StoreUnavailable):  # a failure is told to others for a second
            await store.check()
            break
        import asyncio

        await asyncio.sleep(1.1)
    assert (await store.check()).detail == "ok"
    await store.aclose()


async def test_a_keyring_is_looked_at_too(write: Write, ceph: Ceph) -> None:
    good = ceph.keyring("glance").read_bytes()
    conf = write(keyring=good + '\n\tcaps ü = "allow *"\n'.encode())
    store = RbdStore("fast", rbd_options(ceph, rbd_store_ceph_conf=str(conf)))
    assert any("outside ASCII" in note for note in store.notes())
    with pytest.raises(StoreUnavailable, match=r"keyring has a character outside ASCII"):
        await store.check()
    await store.aclose()


async def test_bytes_that_the_library_takes_are_taken(write: Write, ceph: Ceph) -> None:
    conf = write(before="# Zürich\n".encode(), after='crush_location = "host=zürich"\n; ü\n'.encode())
    store = RbdStore("fast", rbd_options(ceph, rbd_store_ceph_conf=str(conf)))
    assert store.notes() == []
    assert (await store.check()).detail == "ok"
    await store.aclose()


async def test_what_the_library_does_not_understand_is_not_called_missing(write: Write, ceph: Ceph) -> None:
    conf = write(after=b"crush_location = a\x80b\n[\n")
    store = RbdStore("fast", rbd_options(ceph, rbd_store_ceph_conf=str(conf)))
    with pytest.raises(StoreUnavailable, match=r"does not (understand|survive)"):
        await store.check()
    await store.aclose()


async def test_the_files_are_tried_once_and_not_with_each_connection(
    write: Write, ceph: Ceph, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = subprocess.run

    def counted(*words: Any, **how: Any) -> Any:
        calls.append(1)
        return real(*words, **how)

    monkeypatch.setattr(trial.subprocess, "run", counted)
    conf = write()
    store = RbdStore("fast", rbd_options(ceph, rbd_store_ceph_conf=str(conf)))
    for _ in range(3):
        await store.check()
        store._cluster.close()
        store._cluster._closed = False
    assert len(calls) == 1
    conf.write_bytes(conf.read_bytes() + b"# other\n")
    await store.check()
    assert len(calls) == 2
    await store.aclose()


async def test_one_death_alone_is_not_believed(
    write: Write, ceph: Ceph, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A trial that the machine ended is tried again; two deaths count for a minute, not until the file changes."""
    monkeypatch.setattr(trial, "_REMEMBERED", 1.0)
    deaths = tmp_path / "deaths"
    dying = f"""\
import os, pathlib
left = pathlib.Path({str(deaths)!r})
if number := int(left.read_text()):
    left.write_text(str(number - 1))
    os.abort()
"""
    monkeypatch.setattr(trial, "_CHILD", dying + trial._CHILD)
    conf = write()
    tried = RbdStore("fast", rbd_options(ceph, rbd_store_ceph_conf=str(conf)))._cluster.trial
    deaths.write_text("1")
    assert tried.wrong() is None
    tried._known.clear()
    deaths.write_text("2")
    assert "SIGABRT" in str(tried.wrong())
    assert "SIGABRT" in str(tried.wrong())  # as remembered
    time.sleep(1.1)
    assert tried.wrong() is None


def test_what_waits_for_files_alone_waits_a_few_seconds(
    write: Write, ceph: Ceph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the process that looks after all others, at a reload."""
    monkeypatch.setattr(trial, "_AT_HAND", 1)
    monkeypatch.setattr(trial, "_CHILD", "import time; time.sleep(60)")
    store = RbdStore("fast", rbd_options(ceph, rbd_store_ceph_conf=str(write())))
    begun = time.monotonic()
    assert any("does not come to an end within 1 seconds" in note for note in store.notes())
    assert time.monotonic() - begun < quiet(15)


def test_the_service_serves_from_its_other_stores(write: Write, service: ServiceFactory) -> None:
    conf = write(after="crush_location = host=zürich\n".encode())
    one = service(
        {"DEFAULT": {"enabled_backends": "files:file, fast:rbd", "workers": 2}, "fast": rbd(conf)}, start=False
    )
    one.prepare()
    checked = one.run("config", "check")
    assert "does not survive" in checked
    assert "byte 0xc3" in checked
    with pytest.raises(Stuck) as failed:
        one.run("stores", "check", "--json")
    assert "byte 0xc3" in str(failed.value)
    one.start()
    body = {"disk_format": "raw", "container_format": "bare"}
    octets = {"Content-Type": "application/octet-stream"}
    for store, status in (("fast", 503), ("files", 204)):
        image = one.request("POST", "/v2/images", json=body).json()["id"]
        headers = {**octets, "X-Image-Meta-Store": store}
        assert one.request("PUT", f"/v2/images/{image}/file", body=b"data", headers=headers).status == status
    assert "byte 0xc3" in one.log
    assert "SIGABRT after" not in one.log


def test_nothing_stays_in_the_folder_for_temporary_files(write: Write, service: ServiceFactory, tmp_path: Path) -> None:
    """A process that has Ceph's library ends at once, without what Python does at an end."""
    one = service(
        {
            "DEFAULT": {"enabled_backends": "files:file, fast:rbd"},
            "fast": rbd(write()),
            "xloud": {"metrics": True},
        },
        environment={"TMPDIR": str(tmp_path)},
    )
    assert one.request("GET", "/metrics").status == 200
    assert list(tmp_path.glob("xloud-image-metrics-*"))
    assert one.stop() == 0
    assert list(tmp_path.glob("xloud-image-metrics-*")) == []


@pytest.mark.parametrize(
    ("more", "keyring", "fine"),
    [
        ({}, "[client.cinder]\n\tkey = x\n", True),
        ({}, "# Zürich\n[client.cinder]\n\tkey = x\n", False),
        ({"name": "volumes/völume"}, "", False),
        ({"hosts": ["ä"]}, "", False),
        ({"keyring": "# Zürich\n[client.cinder]\n\tkey = x\n"}, "", False),
        ({"keyring": "[client.cinder]\n\tkey = x\n"}, "# Zürich: not read then\n", True),
    ],
)
def test_what_os_brick_would_write_into_a_ceph_conf_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], keyring: str, *, fine: bool
) -> None:
    """A volume of Cinder in Ceph is opened by os-brick, by a ceph.conf that it makes of these."""
    from xloud_image.stores.cinder import devices

    monkeypatch.setattr(devices, "_KEYRINGS", tmp_path)
    (tmp_path / "ceph.client.cinder.keyring").write_text(keyring)
    brick = devices.Brick(base=tmp_path, locks=tmp_path, multipath=False, enforce=False)
    said = {"cluster_name": "ceph", "auth_username": "cinder", "hosts": ["127.0.0.1"], "name": "volumes/volume"} | more
    with contextlib.nullcontext() if fine else pytest.raises(StoreUnavailable, match="outside ASCII"):
        brick._spare(said)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rbd_store_user": "client.glance"}, "leave 'client.' away in rbd_store_user (rbd_store_user = glance)"),
        ({"rbd_store_pool": "images/mine"}, "namespaces of a pool (POOL/NAMESPACE) are not used"),
    ],
)
async def test_names_that_mean_something_else(ceph: Ceph, options: dict[str, str], says: str) -> None:
    store = RbdStore("fast", rbd_options(ceph, **options))
    assert any(says in note for note in store.notes())
    result = await _checked(store)
    assert says in result
    assert "osd pool create" not in result
    await store.aclose()


async def test_a_deep_check_names_the_cure_and_not_itself(ceph: Ceph, administrator: Pool) -> None:
    administrator.empty()
    ceph.add_user("reader", {"mon": "profile rbd", "osd": "profile rbd-read-only pool=images"})
    store = RbdStore("fast", rbd_options(ceph, rbd_store_user="reader"))
    result = await _checked(store)
    assert "ceph auth caps client.reader" in result
    assert "stores check" not in result
    assert administrator.objects == []


async def test_a_data_pool_without_rights_is_named(ceph: Ceph, administrator: Pool) -> None:
    administrator.empty()
    ceph.admin("osd", "pool", "create", "bytes", "4", "4")
    try:
        conf = ceph.with_conf("data-pool", "[client]\nrbd_default_data_pool = bytes\n")
        store = RbdStore("fast", rbd_options(ceph, rbd_store_ceph_conf=str(conf)))
        result = await _checked(store)
        assert "rbd_default_data_pool" in result
        assert "profile rbd pool=images, profile rbd pool=bytes" in result
        ceph.add_user("both", {"mon": "profile rbd", "osd": "profile rbd pool=images, profile rbd pool=bytes"})
        store = RbdStore("fast", rbd_options(ceph, rbd_store_ceph_conf=str(conf), rbd_store_user="both"))
        assert (await _checked(store)).startswith("ok")
    finally:
        ceph.admin("osd", "pool", "rm", "bytes", "bytes", "--yes-i-really-really-mean-it")
    store = RbdStore("fast", rbd_options(ceph, rbd_store_ceph_conf=str(conf), rbd_store_user="both"))
    assert "does not exist" in (result := await _checked(store)), result
    assert "rbd_default_data_pool" in result


async def _checked(store: RbdStore) -> str:
    from xloud_image.services.store_check import check_one

    result = await check_one(store, "fast", "rbd", deep=True, timeout=60)
    await store.aclose()
    return json.loads(json.dumps(result.detail))
