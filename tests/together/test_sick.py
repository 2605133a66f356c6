"""A sick store is alone in its sickness: what clients get while stores are down, hang, are full or refuse the login,
that nothing is lost or left behind, and that all works again without a restart.

Every server is made sick at once, so that the waiting is done once: the store of files beside them must not notice.
"""

import contextlib
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from tests.crash.points import wait_until
from tests.crash.proof import claims
from tests.load import quiet
from tests.servers.http import Answer
from tests.servers.nginx import Nginx
from tests.servers.service import Service
from tests.stores import mounts
from tests.together.everything import DATASTORE, TYPES, WRITABLE, Client, Everything
from xloud_image.stores.suite import noise

pytestmark = pytest.mark.timeout(900)

ANSWER: Final = 6  # seconds: store_timeout of the service under test
UPLOAD: Final = 100.0  # seconds within which an upload to a store that hangs is refused
SHORT: Final = {"store_timeout": ANSWER, "reaper_interval": 1, "lease_time": 5, "auth": "none"}
DATA: Final = noise(300_000)
SICK: Final = tuple(name for name in WRITABLE if name != "files")

# Each store and each sickness: the test here, or where else it is tested, or why there is no such thing.
HERE: Final = "here"
OWN: Final = "in the tests of this store alone"
CELLS: Final[Mapping[str, Mapping[str, str]]] = {
    "files": {
        "down": "tests/services/test_pending_deletions.py: the directory is away",
        "hangs": "tests/services/test_pending_deletions.py: the mount hangs",
        "wrong password": "a file system asks for none; missing permission: tests/stores/test_file.py",
        "full": HERE,
        "killed in an upload": HERE,
        "slow": "tests/stores/test_hung.py",
        "session ends": "a file system has no sessions",
    },
    **{
        name: {
            "down": HERE,
            "hangs": HERE,
            "wrong password": HERE,
            "full": HERE,
            "killed in an upload": HERE,
            "slow": OWN,
            "session ends": ends,
        }
        for name, ends in {
            "rbd": "a client of Ceph renews its tickets itself",
            "s3": "each request is signed by itself: there is no session",
            "swift": OWN,
            "vmware": HERE,
            "cinder": OWN,
        }.items()
    },
    "web": {
        "down": HERE,
        "hangs": HERE,
        "wrong password": "it has none",
        "full": "it takes no data",
        "killed in an upload": "it takes no data",
        "slow": OWN,
        "session ends": "there is no session",
    },
}


def test_no_cell_is_forgotten() -> None:
    assert set(CELLS) == set(TYPES)
    assert len({frozenset(cells) for cells in CELLS.values()}) == 1


@pytest.fixture(scope="module")
def patient(everything: Everything, running: Callable[..., Service]) -> Service:
    """A service whose stores have few seconds to answer; Ceph has 10 for one step instead of 30."""
    conf = everything.ceph.with_conf("impatient", "[client]\nrados_osd_op_timeout = 10\nrados_mon_op_timeout = 10\n")
    return running({"xloud": SHORT, "rbd": {"rbd_store_ceph_conf": conf}})


@pytest.fixture
def client(patient: Service) -> Client:
    return Client(patient)


@pytest.fixture(autouse=True)
def nothing_stays(everything: Everything, patient: Service) -> Iterator[None]:
    yield
    assert wait_until(lambda: not claims(patient), 120), patient.run("stores", "pending")
    assert wait_until(lambda: not any(everything.behind().values()), 60), everything.behind()


@contextlib.contextmanager
def hanging(everything: Everything) -> Iterator[None]:
    """They take connections and say nothing."""
    nginx = subprocess.run(["pgrep", "-P", str(everything.web.pid)], capture_output=True, text=True, check=True)
    workers = [everything.web.pid, *map(int, nginx.stdout.split())]
    everything.cinder.freeze("api")
    everything.swift.freeze()
    everything.rgw.freeze()
    everything.vsphere.freeze()
    everything.ceph.freeze("osd")
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        everything.ceph.thaw("osd")
        everything.vsphere.thaw()
        everything.rgw.thaw()
        everything.swift.thaw()
        everything.cinder.thaw("api")


@contextlib.contextmanager
def down(everything: Everything) -> Iterator[None]:
    """Nobody listens. The simulator of vSphere forgets its data when it ends."""
    everything.cinder.stop()
    everything.swift.stop()
    everything.rgw.stop()
    everything.vsphere.stop()
    everything.web.stop()
    everything.ceph.stop_daemon("osd")
    try:
        yield
    finally:
        everything.ceph.start_daemon("osd")
        everything.web.start()
        everything.vsphere.start()
        everything.rgw.start()
        everything.swift.start()
        everything.cinder.start()


def timed(call: Callable[[], Answer]) -> tuple[Answer, float]:
    begun = time.monotonic()
    answer = call()
    return answer, time.monotonic() - begun


def uploaded(client: Client, store: str) -> str:
    identity = client.create(name=store)
    done = client.put(identity, DATA, store)
    assert done.status == 204, (store, done.body)
    return identity


def registered(client: Client, everything: Everything, site: Path) -> str:
    (site / "there.raw").write_bytes(DATA)
    identity = client.create(name="web")
    answer = client.call("POST", f"/v2/images/{identity}/locations", {"url": f"{everything.web.url}/there.raw"})
    assert answer.status == 202, answer.body
    return identity


def no_secret(everything: Everything, text: str) -> None:
    for secret in (everything.rgw.secret, everything.vsphere.password, "servicepass"):
        assert secret not in text


@pytest.mark.parametrize("sickness", [hanging, down], ids=["hangs", "down"])
def test_no_answer(
    everything: Everything, client: Client, patient: Service, site: Path, sickness: Callable[[Everything], Any]
) -> None:
    with ThreadPoolExecutor(32) as pool:
        kept = dict(zip(SICK, pool.map(lambda store: uploaded(client, store), SICK), strict=True))
        doomed = dict(zip(SICK, pool.map(lambda store: uploaded(client, store), SICK), strict=True))
        kept["web"] = registered(client, everything, site)
        empty = {store: client.create() for store in SICK}
        with sickness(everything):
            # all at once: none waits for another
            uploads = {s: pool.submit(timed, lambda i=i, s=s: client.put(i, DATA, s)) for s, i in empty.items()}  # type: ignore[misc]
            reads = {s: pool.submit(timed, lambda i=i: client.get(i)) for s, i in kept.items()}  # type: ignore[misc]
            deletes = {s: pool.submit(timed, lambda i=i: client.delete(i)) for s, i in doomed.items()}  # type: ignore[misc]
            for _ in range(5):
                begun = time.monotonic()
                identity = uploaded(client, "files")
                assert client.get(identity).body == DATA
                assert client.delete(identity).status == 204
                assert time.monotonic() - begun < quiet(3), "the store of files waits for the others"
                time.sleep(0.5)
            for store, one in reads.items():
                answer, seconds = one.result()
                assert answer.status == 503, (store, answer)
                assert seconds < 2 * ANSWER + 5, (store, seconds)
                no_secret(everything, answer.body.decode())
            for store, one in deletes.items():
                answer, seconds = one.result()
                assert answer.status == 204, (store, answer)
                assert seconds < 2 * ANSWER + 5, (store, seconds)
            for store, one in uploads.items():
                answer, seconds = one.result()
                assert answer.status == 503, (store, answer)
                assert seconds < UPLOAD, (store, seconds)
                no_secret(everything, answer.body.decode())
                assert client.show(empty[store])["status"] in ("queued", "saving"), store
        # well again, without a restart; what was owed is paid
        assert wait_until(lambda: not claims(patient), 180), patient.run("stores", "pending")
        for store, identity in kept.items():
            if store == "vmware" and sickness is down:
                assert client.get(identity).status in (404, 503)
                continue
            assert wait_until(lambda i=identity: client.get(i).body == DATA, 60), store  # type: ignore[misc]
        for store, identity in empty.items():
            assert client.show(identity)["status"] == "queued"
            assert client.put(identity, DATA, store).status == 204, store
        ended = pool.map(client.delete, [*kept.values(), *empty.values()])
        assert {answer.status for answer in ended} == {204}
    no_secret(everything, patient.log)


def test_wrong_password(everything: Everything, tmp_path: Path) -> None:
    """Refused with a sentence that names the options; right after the file is corrected and read again."""
    everything.ceph.add_user(f"wrong-{everything.mark}", {"mon": "profile rbd", "osd": "profile rbd pool=volumes"})
    one = Service(everything.sections)
    one.configure({"xloud": SHORT})
    right = {name: dict(one.sections[name]) for name in SICK}
    one.configure(
        {
            "rbd": {"rbd_store_user": f"wrong-{everything.mark}"},
            "s3": {"s3_store_secret_key": "another/secret+of+the+same+kind"},
            "swift": {"swift_store_key": "not-the-password"},
            "vmware": {"vmware_server_password": "not-the-password"},
            "cinder": {"cinder_store_password": "not-the-password"},
        }
    )
    one.start(60)
    try:
        client = Client(one)
        with ThreadPoolExecutor(8) as pool:
            images = {store: client.create() for store in SICK}
            answers = dict(
                zip(
                    SICK,
                    pool.map(lambda store: timed(lambda: client.put(images[store], DATA, store)), SICK),
                    strict=True,
                )
            )
        for store, (answer, seconds) in answers.items():
            assert answer.status == 503, (store, answer)
            assert seconds < UPLOAD, (store, seconds)
            assert b"not-the-password" not in answer.body
            assert b"another/secret" not in answer.body
        identity = uploaded(client, "files")
        assert client.delete(identity).status == 204
        one.configure(right)
        os.kill(one.pid, signal.SIGHUP)
        for store, identity in images.items():
            assert wait_until(lambda i=identity, s=store: client.put(i, DATA, s).status == 204, 60), store  # type: ignore[misc]
            assert client.delete(identity).status == 204
        assert "not-the-password" not in one.log
        no_secret(everything, one.log)
    finally:
        one.stop(60)


def test_full(everything: Everything, client: Client, tmp_path: Path) -> None:
    """413, the image is queued again, and nothing of it is left; room again, works again."""
    big = tmp_path / "big"
    big.write_bytes(noise(24 << 20))
    room = 8 << 20
    for store in SICK:  # pools, buckets, containers and folders have to be there to be full
        assert client.delete(uploaded(client, store)).status == 204
    filler = client.create()
    assert client.put(filler, noise(room + 1), "rbd").status == 204
    project = everything.cinder.keystone.project_id("service")
    try:
        everything.ceph.admin("osd", "pool", "set-quota", everything.pool, "max_bytes", str(room))
        # the monitor counts now and then, and says so
        assert wait_until(lambda: "full_quota" in everything.ceph.admin("osd", "dump"), 60)
        everything.rgw.set_quota(everything.bucket, room)
        quota = {"X-Container-Meta-Quota-Bytes": str(room)}
        assert everything.swift.call("POST", everything.container, headers=quota).status == 204
        everything.vsphere.knobs(room={"/".join(reversed(DATASTORE)): room})
        everything.cinder.call("PUT", f"/os-quota-sets/{project}", {"quota_set": {"gigabytes": 0}})
        with ThreadPoolExecutor(8) as pool:
            images = {store: client.create() for store in SICK}
            done = pool.map(lambda store: client.put_file(images[store], big, store), SICK)
        for store, (status, said) in zip(SICK, done, strict=True):
            assert status == 413, (store, status, said)
            assert client.show(images[store])["status"] == "queued", store
        identity = uploaded(client, "files")
        assert client.delete(identity).status == 204
    finally:
        everything.ceph.admin("osd", "pool", "set-quota", everything.pool, "max_bytes", "0")
        everything.rgw.set_quota(everything.bucket, None)
        none = {"X-Container-Meta-Quota-Bytes": ""}
        assert everything.swift.call("POST", everything.container, headers=none).status == 204
        everything.vsphere.knobs()
        everything.cinder.call("PUT", f"/os-quota-sets/{project}", {"quota_set": {"gigabytes": -1}})
    assert wait_until(lambda: "full_quota" not in everything.ceph.admin("osd", "dump"), 60)
    assert client.delete(filler).status == 204
    for store, identity in images.items():
        assert wait_until(lambda i=identity, s=store: client.put(i, DATA, s).status == 204, 60), store  # type: ignore[misc]
        assert client.delete(identity).status == 204


def test_a_full_disk(everything: Everything, tmp_path: Path) -> None:
    with mounts.tmpfs(tmp_path / "disk", "8m") as disk:
        one = Service(everything.sections)
        one.configure({"xloud": SHORT, "files": {"filesystem_store_datadir": disk}})
        one.start(60)
        try:
            client = Client(one)
            big = tmp_path / "big"
            big.write_bytes(noise(24 << 20))
            for _ in range(2):
                identity = client.create()
                assert client.put_file(identity, big, "files")[0] == 413
                assert client.show(identity)["status"] == "queued"
                assert list(disk.iterdir()) == []
                assert client.put(identity, DATA, "files").status == 204
                assert client.delete(identity).status == 204
        finally:
            one.stop(60)


def test_killed_in_an_upload(everything: Everything) -> None:
    """kill -9 while every store is being written to: after a restart the images are queued and nothing is left."""
    one = Service(everything.sections)
    one.configure({"xloud": SHORT})
    one.start(60)
    try:
        client = Client(one)
        images = {store: client.create() for store in WRITABLE}

        def endless(store: str) -> None:
            def source() -> Iterator[bytes]:
                while True:
                    yield noise(1 << 20)
                    time.sleep(0.05)

            with contextlib.suppress(OSError, http.client.HTTPException):
                client.send(images[store], source(), store)

        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(endless, store) for store in WRITABLE]
            assert wait_until(lambda: all(client.show(i)["status"] == "saving" for i in images.values()), 60)
            time.sleep(8)
            workers = subprocess.run(["pgrep", "-P", str(one.pid)], capture_output=True, text=True, check=True)
            for pid in [one.pid, *map(int, workers.stdout.split())]:
                os.kill(pid, signal.SIGKILL)
            for each in running:
                each.result(60)
        assert any(everything.behind().values()), "nothing had been written yet: this proves nothing"
        assert wait_until(lambda: one.exit_code is not None, 10)
        one.start(60)
        assert wait_until(lambda: not claims(one), 120), one.run("stores", "pending")
        for identity in images.values():
            assert client.show(identity)["status"] == "queued"
        assert not any(everything.behind().values()), everything.behind()
        for store, identity in images.items():
            assert client.put(identity, DATA, store).status == 204, store
            assert client.delete(identity).status == 204
    finally:
        one.stop(60)


def test_sessions_that_end(everything: Everything, client: Client) -> None:
    """A vCenter forgets who is logged in: the next call logs in again."""
    identity = uploaded(client, "vmware")
    everything.vsphere.end_sessions()
    assert client.get(identity).body == DATA
    everything.vsphere.end_sessions()
    other = uploaded(client, "vmware")
    everything.vsphere.end_sessions()
    assert [client.delete(each).status for each in (identity, other)] == [204, 204]


def test_the_web_server_comes_back(everything: Everything, client: Client, web: Nginx, site: Path) -> None:
    (site / "gone.raw").write_bytes(DATA)
    identity = client.create()
    place = {"url": f"{web.url}/gone.raw"}
    assert client.call("POST", f"/v2/images/{identity}/locations", place).status == 202
    (site / "gone.raw").unlink()
    answer = client.get(identity)
    assert answer.status == 404
    (site / "gone.raw").write_bytes(DATA)
    assert wait_until(lambda: client.get(identity).status in (200, 503), 30)
    assert client.delete(identity).status == 204
