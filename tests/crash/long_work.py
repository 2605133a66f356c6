"""A service that does every kind of long work, what clients ask of it, and what has to be there and must not when the
work is done, whatever died meanwhile."""

import contextlib
import fcntl
import gzip
import hashlib
import http.client
import os
import random
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.api.cloud import Caller
from tests.cache.origin import Origin
from tests.crash.points import Armed, workers
from tests.crash.proof import files, rows
from tests.imports.conftest import await_that, begin, set_back, stage, task
from tests.load import quiet
from tests.servers.http import Answer
from tests.servers.keystone import Keystone
from tests.servers.place import private_address, program
from tests.servers.service import Service
from tests.uploads.conftest import Sender, digest

GONE = (OSError, http.client.HTTPException)
LEASE = 5
DATA = random.Random(13).randbytes(600_000)
HALF = len(DATA) // 2
REGION = "RegionOfTheTable"
STORES = ("fast", "slow", "packed")
QEMU_IMG = program("qemu-img", "qemu-utils")


class Scene:
    """The service, with one process for the API and one for long work; another region's; a web server with data."""

    def __init__(self, folder: Path, keystone: Keystone, **more: Mapping[str, Any]) -> None:
        """`more`: further options, by their section."""
        self.folder, self.keystone = folder, keystone
        self.armed = Armed(folder / "failpoints")
        self.origin = Origin()
        self.far = Service({"DEFAULT": {"bind_host": "0.0.0.0"}, **keystone.sections()})
        methods = "[glance-direct,web-download,glance-download,copy-image]"
        directories = {name: {"filesystem_store_datadir": folder / name} for name in STORES}
        directories["packed"]["import_format"] = "qcow2"
        self.service = Service(
            {
                "DEFAULT": {
                    "enabled_backends": "fast:file, slow:file, packed:file, web:http",
                    "enabled_import_methods": methods,
                    "image_cache_dir": folder / "cache",
                    "worker_self_reference_url": "http://node1:9292",
                    "show_multiple_locations": True,
                },
                "glance_store": {"default_backend": "fast"},
                "files": {"filesystem_store_datadir": None},
                **directories,
                "os_glance_staging_store": {"filesystem_store_datadir": folder / "staging"},
                "import_filtering_opts": {"allowed_ports": f"{self.far.port},{self.origin.port}"},
                "image_import_opts": {"image_import_plugins": "[image_conversion,image_decompression]"},
                "image_conversion": {"output_format": "raw"},
                "task": {"work_dir": folder / "work"},
                "xloud": {"job_workers": 1, "lease_time": LEASE, "reaper_interval": 1, "auth": None},
                **keystone.sections(),
                "paste_deploy": {"flavor": "keystone+caching"},
            },
            environment=self.armed.environment,
        )
        self.service.configure(more)
        self.ann, self.there = Caller(self.service, None), Caller(self.far, None)
        self.disk = folder / "disk.raw"
        with self.disk.open("wb") as file:
            file.truncate(2 << 20)
            file.seek(700_001)
            file.write(DATA)
        packed = folder / "disk.qcow2"
        words = [QEMU_IMG, "convert", "-f", "raw", "-O", "qcow2", str(self.disk), str(packed)]
        subprocess.run(words, check=True, capture_output=True)
        self.origin.data = {"disk.raw": DATA, "disk.qcow2": packed.read_bytes()}

    def start(self) -> None:
        self.far.start()
        admin = self.keystone.token()
        self.keystone.call("POST", "/regions", {"region": {"id": REGION}}, admin)
        listed, _ = self.keystone.call("GET", "/services?type=image", token=admin)
        place = {
            "service_id": listed["services"][0]["id"],
            "interface": "public",
            "url": f"http://{private_address()}:{self.far.port}/v2",
            "region_id": REGION,
        }
        made, _ = self.keystone.call("POST", "/endpoints", {"endpoint": place}, admin)
        self._endpoint = made["endpoint"]["id"]
        self.ann.headers = self.there.headers = {"X-Auth-Token": self.keystone.token()}
        self.elsewhere = self.there.new(DATA)
        self.service.start()
        await_that(lambda: self.ann.ask("GET", "/v2/info/import").json()["import-methods"]["value"])

    def close(self) -> None:
        self.service.kill()
        self.far.kill()
        self.origin.close()
        with contextlib.suppress(AttributeError):  # it did not start
            admin = self.keystone.token()
            self.keystone.call("DELETE", f"/endpoints/{self._endpoint}", token=admin)
            self.keystone.call("DELETE", f"/regions/{REGION}", token=admin)

    # processes

    @property
    def long_worker(self) -> int:
        """The process for long work, the newest."""
        line = [one for one in self.service.log.splitlines() if "ready for long work" in one][-1]
        return int(line.rpartition("pid=")[2].split()[0])

    def processes(self) -> dict[str, int]:
        """By the letter of the table, once both are there."""
        await_that(lambda: len(workers(self.service)) == 2 and self.long_worker in workers(self.service))
        (api,) = workers(self.service) - {self.long_worker}
        await_that(self.answers)
        return {"A": api, "W": self.long_worker}

    def answers(self) -> bool:
        with contextlib.suppress(*GONE):
            return self.service.request("GET", "/healthcheck").status == 200
        return False

    def dead(self, before: dict[str, int]) -> set[str]:
        """The letters of those that are not there any more."""
        return {who for who, pid in before.items() if pid not in workers(self.service)}

    # what is there

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        return rows(self.service, statement)

    def stored(self, image: str) -> list[Path]:
        """The files of an image, the store that is read first in front."""
        return [path for store in STORES for path in (self.folder / store).glob(f"{image}*")]

    def left(self) -> list[str]:
        """What nobody wants any more, in words; empty when all is well."""
        wrong = [f"staged: {name}" for name in files(self.folder / "staging")]
        places = self.query("SELECT value FROM image_locations WHERE NOT deleted AND value LIKE 'file:%'")
        named = {value.removeprefix("file://") for (value,) in places}
        there = {str(self.folder / store / name) for store in STORES for name in files(self.folder / store)}
        wrong += [f"an object without a location: {name}" for name in there - named]
        wrong += [f"a location without an object: {name}" for name in named - there]
        # reservations count as long as their claims are there, and go with the project's next one
        for table in ("xloud_claims", "xloud_jobs", "xloud_upload_parts"):
            wrong += [f"{table}: {row}" for row in self.query(f"SELECT * FROM {table}")]
        # what is over stays for a while, so that a client that lost the answer can ask
        wrong += [f"xloud_uploads: {row}" for row in self.query("SELECT * FROM xloud_uploads WHERE state <> 'over'")]
        kept = self.query(
            "SELECT image_id, name, value FROM image_properties WHERE NOT deleted AND name LIKE 'os_glance_%'"
        )
        wrong += [f"a property: {row}" for row in kept if row[1] == "os_glance_import_task" or row[2]]
        stuck = self.query("SELECT id, status FROM images WHERE NOT deleted AND status NOT IN ('active', 'queued')")
        wrong += [f"an image: {row}" for row in stuck]
        wrong += [f"for work under way: {path}" for path in (self.folder / "work").glob("xloud-work-*") if _idle(path)]
        return wrong + [f"the cache: {path}" for path in (self.folder / "cache" / "incomplete").glob("*")]


def _idle(place: Path) -> bool:
    """Whether a directory for work under way has a file, or belongs to no process that runs."""
    if any(place.rglob("*")):
        return True
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


class Work:
    """One kind of long work. `prepare` is what has to be there before, `ask` what is asked of the service then: calls
    that may break, of which the last leads to what the process for long work does. `end` asks again for what was not
    done, until all is; it raises `AssertionError` when it is not what it has to be."""

    FIRST = "job.half"  # the death that leaves something to the reaper

    def __init__(self, scene: Scene, point: str = "") -> None:
        """`point`: where a process will die."""
        self.scene, self.ann, self.point = scene, scene.ann, point
        self.image = ""

    def prepare(self) -> None:
        self.image = self.ann.new()

    def ask(self) -> Sequence[Callable[[], object]]:
        raise NotImplementedError

    def ask_wrongly(self) -> None:
        """What is refused, so that the service puts back what came."""
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    def show(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ann.show(self.image)
        return found

    def has(self, *stores: str, data: bytes = DATA, form: str = "raw") -> None:
        """The image is active with these data, in these stores."""
        shown = self.show()
        assert (shown["status"], shown["disk_format"], shown["size"]) == ("active", form, len(data)), shown
        assert shown["os_hash_value"] == hashlib.sha512(data).hexdigest()
        assert shown["container_format"] == "bare"
        assert set(shown["stores"].split(",")) == set(stores)
        found = self.scene.stored(self.image)
        assert [path.parent.name for path in found] == [store for store in STORES if store in stores]
        assert all(path.read_bytes() == data for path in found)


def until(done: Callable[[], bool], seconds: float = 2 * LEASE) -> None:
    """Ask until it is done; a connection may break meanwhile."""
    begun = time.monotonic()
    while True:
        with contextlib.suppress(*GONE):
            if done():
                return
        assert time.monotonic() - begun < quiet(seconds), "it does not come to an end"
        time.sleep(0.05)


class Import(Work):
    """`stores`: None, the one by default."""

    METHOD = "glance-direct"
    DETAILS: Mapping[str, Any] = MappingProxyType({})
    STORES = ("fast",)
    FORMAT = "raw"
    SOURCE = DATA
    WAITS = "queued"  # status of an image before the import

    def ask(self) -> Sequence[Callable[[], object]]:
        return [self.begin]

    def begin(self) -> Answer:
        method = self.DETAILS
        return begin(self.ann, self.image, self.METHOD, method=method, stores=list(self.STORES))

    def end(self) -> None:
        until(self.is_done)
        assert task(self.ann, self.image)["status"] == "success"
        self.check()

    def is_done(self) -> bool:
        tasks = self.ann.ask("GET", f"/v2/images/{self.image}/tasks").json()["tasks"]
        if not tasks:
            answer = self.begin()
            assert answer.status == 202, answer.body
            return False
        assert tasks[0]["status"] != "failure", tasks[0]
        return str(tasks[0]["status"]) == "success"

    def check(self) -> None:
        self.has(*self.STORES)


class Direct(Import):
    """Staged by one request, and imported into two stores."""

    STORES = ("fast", "slow")

    def stage(self) -> Answer:
        return stage(self.ann, self.image, self.SOURCE)

    def ask(self) -> Sequence[Callable[[], object]]:
        return [self.stage, self.begin]

    def ask_wrongly(self) -> None:
        stage(self.ann, self.image, iter([DATA]), x_openstack_image_size=str(len(DATA) + 1))

    def is_done(self) -> bool:
        if self.show()["status"] == "queued":
            answer = self.stage()
            assert answer.status in (204, 409), answer.body  # 409: what the dead process left is being removed
            return False
        if self.show()["status"] == "uploading" and not self.scene.query(
            f"SELECT id FROM xloud_claims WHERE image_id = '{self.image}' AND kind = 'stage'"
        ):
            return False  # until the reaper has seen that nobody is at it
        return super().is_done()


class FromWeb(Import):
    METHOD = "web-download"

    def begin(self) -> Answer:
        uri = self.scene.origin.url(f"disk.{self.FORMAT}")
        return begin(self.ann, self.image, self.METHOD, method={"uri": uri, **self.DETAILS}, stores=list(self.STORES))


class Copy(Import):
    METHOD = "copy-image"
    STORES = ("slow", "packed")

    def prepare(self) -> None:
        self.image = self.ann.new(DATA)

    def check(self) -> None:
        self.has("fast", "slow", "packed")


class FromFar(Import):
    """From another region."""

    METHOD = "glance-download"

    def begin(self) -> Answer:
        method = {"glance_region": REGION, "glance_image_id": self.scene.elsewhere}
        return begin(self.ann, self.image, self.METHOD, method=method, stores=list(self.STORES))


class ToRaw(FromWeb):
    """A qcow2 that is kept whole before it is read, because it has to have a digest."""

    FORMAT = "qcow2"

    def prepare(self) -> None:
        self.image = self.ann.new(disk_format="qcow2")
        value = hashlib.sha256(self.scene.origin.data["disk.qcow2"]).hexdigest()
        self.DETAILS = {"os_hash_algo": "sha256", "os_hash_value": value}

    def check(self) -> None:
        self.has("fast", data=self.scene.disk.read_bytes())


class ToQcow2(Direct):
    """Made as a file before it goes into the store."""

    STORES = ("packed",)

    def prepare(self) -> None:
        self.image = self.ann.new()
        self.SOURCE = self.scene.disk.read_bytes()

    def check(self) -> None:
        (made,) = self.scene.stored(self.image)
        self.has("packed", data=made.read_bytes(), form="qcow2")
        words = [QEMU_IMG, "compare", "-f", "qcow2", "-F", "raw", str(made), str(self.scene.disk)]
        subprocess.run(words, check=True, capture_output=True)


class Unpack(Direct):
    STORES = ("fast",)
    SOURCE = gzip.compress(DATA, 1)


class Move(Import):
    STORES = ("slow",)

    def prepare(self) -> None:
        self.image = self.ann.new(DATA)

    def begin(self) -> Answer:
        return self.ann.ask("POST", f"/v2/images/{self.image}/actions/move", json={"from": "fast", "to": "slow"})

    def check(self) -> None:
        # who reads it there has an hour to end
        kept = self.scene.query(f"SELECT kind, store FROM xloud_claims WHERE image_id = '{self.image}'")
        assert kept == [("delete", "fast")]
        self.hour_later()
        await_that(lambda: len(self.scene.stored(self.image)) == 1)
        self.has("slow")

    def hour_later(self) -> None:
        set_back(self.scene.service, f"UPDATE xloud_claims SET lease_until = NULL WHERE image_id = '{self.image}'")


class Delete(Work):
    """Of an image in two stores."""

    FIRST = "delete.marked"

    def prepare(self) -> None:
        self.image = self.ann.new(DATA)
        assert begin(self.ann, self.image, "copy-image", stores=["slow"]).status == 202
        await_that(lambda: task(self.ann, self.image)["status"] == "success")

    def ask(self) -> Sequence[Callable[[], object]]:
        return [lambda: self.ann.delete(self.image)]

    def end(self) -> None:
        until(lambda: self.ann.delete(self.image).status in (204, 404))
        assert self.ann.ask("GET", f"/v2/images/{self.image}").status == 404
        await_that(lambda: not self.scene.stored(self.image))


class Hash(Work):
    """The digest of data that lie where somebody else keeps them."""

    def prepare(self) -> None:
        self.image = self.ann.new()
        self.name = uuid.uuid4().hex
        self.scene.origin.data[self.name] = DATA

    def register(self) -> Answer:
        check = {"os_hash_algo": "sha512", "os_hash_value": hashlib.sha512(DATA).hexdigest()}
        body = {"url": self.scene.origin.url(self.name), "validation_data": check}
        return self.ann.ask("POST", f"/v2/images/{self.image}/locations", json=body)

    def ask(self) -> Sequence[Callable[[], object]]:
        return [self.register]

    def end(self) -> None:
        until(self.is_done)
        shown = self.show()
        assert (shown["size"], shown["os_hash_value"]) == (len(DATA), hashlib.sha512(DATA).hexdigest())

    def is_done(self) -> bool:
        status = self.show()["status"]
        if status == "queued":
            assert self.register().status == 202
        return bool(status == "active")


class Cache(Hash):
    """An image of a web server is kept on the node by whoever reads it first."""

    def prepare(self) -> None:
        super().prepare()
        super().end()

    def ask(self) -> Sequence[Callable[[], object]]:
        return [lambda: self.ann.download(self.image)]

    def end(self) -> None:
        until(lambda: self.ann.download(self.image).body == DATA)
        (kept,) = self._kept()
        assert kept.read_bytes()[: len(DATA)] == DATA

    def _kept(self) -> list[Path]:
        await_that(lambda: list((self.scene.folder / "cache").glob(f"{self.image}.*")))
        return list((self.scene.folder / "cache").glob(f"{self.image}.*"))


# bytes of an upload in several requests that are durable when a process has died there; elsewhere none
_DURABLE = {"part.kept": HALF, "parts.finishing": len(DATA), "parts.written": len(DATA), "parts.staged": len(DATA)}


class Upload(Work):
    """In several requests."""

    KIND = "file"
    FIRST = "part.written"

    def prepare(self) -> None:
        self.sender, self.sent = Sender(self.ann, kind=self.KIND), set[int]()
        self.image = self.sender.image

    def ask(self) -> Sequence[Callable[[], object]]:
        return [
            lambda: self.sender.begin(DATA[:HALF], Repr_Digest=digest(DATA)),
            lambda: self.sender.last(HALF, DATA[HALF:]),
        ]

    def ask_wrongly(self) -> None:
        self.sender.begin(DATA[:HALF], Content_Digest=digest(DATA))

    def end(self) -> None:
        until(self.is_done)
        self.has("fast")

    def is_done(self) -> bool:
        if self.show()["status"] == "active":
            return True
        self.bring()
        return False

    def bring(self) -> bool:
        """Whether all data is there; else more of it is sent."""
        if not self.sender.path:
            assert self.sender.begin().status in (201, 409)
        head = self.sender.head()
        if head.status == 404:  # it was never begun, or ended: what was sent wrongly
            self.sender.path = ""
            return False
        if head.headers["upload-complete"] == "?1":
            return True
        offset = int(head.headers["upload-offset"])
        assert offset == _DURABLE.get(self.point, 0) or offset in self.sent
        self.sent.add(len(DATA))
        answer = self.sender.last(offset, DATA[offset:])
        assert answer.status in (204, 409, 503), answer.body
        return answer.status == 204


class Stage(Upload, Import):
    """In several requests, and imported."""

    KIND = "stage"
    STORES = ("fast",)

    def ask(self) -> Sequence[Callable[[], object]]:
        return [*super().ask(), self.begin]

    def end(self) -> None:
        Import.end(self)

    def is_done(self) -> bool:
        if self.show()["status"] in ("queued", "uploading") and not self.bring():
            return False
        return Import.is_done(self)


WORK: dict[str, type[Work]] = {
    "direct": Direct,
    "web": FromWeb,
    "copy": Copy,
    "far": FromFar,
    "raw": ToRaw,
    "qcow2": ToQcow2,
    "unpack": Unpack,
    "move": Move,
    "delete": Delete,
    "cache": Cache,
    "hash": Hash,
    "upload": Upload,
    "stage": Stage,
}
