"""A real Ceph for tests: one monitor, one manager, one OSD (bluestore on a file), all on loopback.

The first start makes a cluster with pools, users and caps and keeps it in `.cache`, for each release of Ceph and each
text of this module; later starts copy it and give it new ports. All copies have one fsid. Pools: images, volumes (for
RBD) and those of an object gateway. Users: admin; glance and cinder as operators make them; rgw for a gateway.
"""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Final

from tests.servers.place import HOST, ROOT, free_port, new_directory, program
from tests.servers.process import Process, Stuck, run

DAEMONS: Final = ("mon", "mgr", "osd")
POOLS: Final = {"images": "rbd", "volumes": "rbd"}
GATEWAY_POOLS: Final = (
    ".rgw.root",
    *(f"default.rgw.{name}" for name in ("log", "control", "meta", "buckets.index", "buckets.data", "buckets.non-ec")),
)
# What each user may do. A Glance and a Cinder get these from their operators.
CAPS: Final[dict[str, dict[str, str]]] = {
    "mon.": {"mon": "allow *"},
    "mgr.x": {"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *", "mds": "allow *"},
    "client.rgw": {"mon": "allow rw", "osd": "allow rwx", "mgr": "allow rw"},
    "client.glance": {"mon": "profile rbd", "osd": "profile rbd pool=images", "mgr": "profile rbd pool=images"},
    "client.cinder": {
        "mon": "profile rbd",
        "osd": "profile rbd pool=volumes, profile rbd-read-only pool=images",
        "mgr": "profile rbd pool=volumes",
    },
}
GIB: Final = 1 << 30

# log files, sockets and keyrings stand in the daemons' sections only: clients read this file too
_CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = [v2:{host}:{port}/0,v1:{host}:{old_port}/0]
public_addr = {host}
cluster_addr = {host}
ms_bind_ipv6 = false
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
mon_warn_on_insecure_global_id_reclaim = false
run_dir = {directory}
crash_dir = {directory}/crash
log_to_syslog = false
err_to_syslog = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 500
# the monitor watches the file system it lies on, which is not its own
mon_data_avail_warn = 2
mon_data_avail_crit = 1
mon_cluster_log_file = {directory}/cluster.log
mgr_initial_modules =
mgr_pool = false

[mon]
mon_data = {directory}/mon
keyring = {directory}/mon/keyring
log_file = {directory}/mon.log
admin_socket = {directory}/mon.asok
# a test need not wait for a better one
paxos_propose_interval = 0.1

[mgr]
mgr_data = {directory}/mgr
keyring = {directory}/mgr/keyring
log_file = {directory}/mgr.log
admin_socket = {directory}/mgr.asok
mgr_stats_period = 1
mgr/devicehealth/enable_monitoring = false

[osd]
osd_data = {directory}/osd
keyring = {directory}/osd/keyring
log_file = {directory}/osd.log
admin_socket = {directory}/osd.asok
osd_objectstore = bluestore
bluestore_block_create = true
bluestore_block_size = {size}
bluestore_fsck_on_mkfs = false
osd_memory_target = 1073741824
osd_class_update_on_start = true
# nobody else could tell the monitor that the only OSD went away
osd_fast_shutdown_notify_mon = true
osd_scrub_load_threshold = 0.01
# A disk that tests froze for minutes goes on as if nothing had been. It would end itself after 150 s; and of the leases
# for reading (16 s by default) one that ran out meanwhile may never be renewed where no other disk is there: its
# placement group stays "laggy" and answers nobody.
osd_op_thread_suicide_timeout = 0
osd_pool_default_read_lease_ratio = 100
# when a client died its images are held open so long; 30 by default
osd_client_watch_timeout = 10
mgr_stats_period = 1

[client]
keyring = {directory}/ceph.$name.keyring
"""


class Ceph:
    """`gib`: the size of its only disk, a file with holes. `extra`: text added to ceph.conf.

    `conf` is the path of ceph.conf: with it and a user's name every client finds its keyring. A frozen or stopped
    daemon of a shared cluster must run again when the test ends: `close` is not enough.
    """

    def __init__(self, *, gib: int = 20, extra: str = "") -> None:
        self.gib = gib
        self._extra = extra
        self._ports = (free_port(), free_port())
        self._directory: Path | None = None
        self._processes: dict[str, Process] = {}

    # its life

    def start(self) -> None:
        """Start it, at the same address and with the same data as before if it was stopped; some seconds."""
        for name, package in (("ceph-mon", "ceph-mon"), ("ceph-mgr", "ceph-mgr"), ("ceph-osd", "ceph-osd")):
            program(name, package)
        if self._directory is None:
            seed = _seed(self.gib)
            self._directory = new_directory("ceph")
            # keeps the holes of the disk
            run(["cp", "-a", "--sparse=always", f"{seed}/.", self._directory])
            self._configure(self._directory)
            self._move_monitor()
        for name in DAEMONS:
            self._launch(name)
        for name in DAEMONS:
            self._await(name)

    def stop(self) -> None:
        """Stop it; the data stays for another `start()` of the same object."""
        for name in reversed(DAEMONS):
            self.stop_daemon(name)

    def close(self) -> None:
        """Stop it and forget its data."""
        for name in list(self._processes):
            self._processes.pop(name).kill()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = None

    def stop_daemon(self, name: str) -> None:
        """Stop "mon", "mgr" or "osd"; nothing when it does not run."""
        process = self._processes.pop(name, None)
        if process is not None:
            if process.exit_code is None:
                os.kill(process.pid, signal.SIGCONT)  # a frozen one could not hear
            process.stop()

    def start_daemon(self, name: str) -> None:
        """Start a stopped one again and wait until it works; the others go on."""
        self._launch(name)
        self._await(name)

    def freeze(self, name: str) -> None:
        """Make a daemon stand still (SIGSTOP): connections stay open, nobody answers."""
        os.kill(self._processes[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let it go on."""
        os.kill(self._processes[name].pid, signal.SIGCONT)

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    # what tests and clients need of it

    @property
    def directory(self) -> Path:
        assert self._directory is not None, "it was not started"
        return self._directory

    @property
    def conf(self) -> Path:
        """The path of ceph.conf."""
        return self.directory / "ceph.conf"

    @property
    def fsid(self) -> str:
        return (self.directory / "fsid").read_text()

    def keyring(self, user: str) -> Path:
        """The keyring of a user, named without `client.`."""
        return self.directory / f"ceph.client.{user}.keyring"

    def key(self, user: str) -> str:
        """The secret key of a user."""
        return self.keyring(user).read_text().rpartition("=")[0].partition("= ")[2] + "="

    def with_conf(self, name: str, text: str) -> Path:
        """Another configuration file beside ceph.conf: that one with `text` (sections) added; its path."""
        path = self.directory / f"{name}.conf"
        path.write_text(self.conf.read_text() + text)
        return path

    def admin(self, *words: str | Path, seconds: float = 60, stdin: str | None = None) -> str:
        """Run `ceph …` or, with "rbd", "rados" or another tool as the first word, that one, as the administrator."""
        tools = ("ceph", "rbd", "rados", "radosgw-admin")
        tool, rest = (str(words[0]), words[1:]) if words[0] in tools else ("ceph", words)
        return run(
            [program(tool, "ceph-common"), "-c", self.conf, "-n", "client.admin", *rest],
            environment=_surroundings(),
            stdin=stdin,
            seconds=seconds,
        )

    def add_user(self, name: str, caps: dict[str, str]) -> None:
        """Make a user, or give one other caps; its keyring is found like the others'."""
        words = [word for service in caps for word in (service, caps[service])]
        known = self.keyring(name).exists()
        self.admin("auth", "caps" if known else "get-or-create", f"client.{name}", *words)
        self.keyring(name).write_text(self.admin("auth", "get-or-create", f"client.{name}"))

    def ask(self, daemon: str, command: str) -> Any:
        """Ask a daemon through its admin socket, e.g. ("osd", "status")."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.directory / f"{daemon}.asok"))
            sock.sendall(json.dumps({"prefix": command}).encode() + b"\0")
            answer = b"".join(iter(functools.partial(sock.recv, 65536), b""))
        return json.loads(answer[4:])

    # how

    def _launch(self, name: str) -> None:
        assert name not in self._processes, f"{name} runs already"
        (self.directory / f"{name}.asok").unlink(missing_ok=True)
        identity = {"mon": "a", "mgr": "x", "osd": "0"}[name]
        self._processes[name] = Process(
            name,
            [program(f"ceph-{name}", f"ceph-{name}"), "-f", "-c", self.conf, "-i", identity],
            log=self.directory / f"{name}.out",
            directory=self.directory,
            environment=_surroundings(),
            at_death="KILL",
        )

    def _await(self, name: str) -> None:
        self._processes[name].wait_for(functools.partial(self._works, name), 120)

    def _works(self, name: str) -> bool:
        try:
            if name == "mon":
                return bool(self.ask("mon", "mon_status")["state"] == "leader")
            if name == "osd":
                return bool(self.ask("osd", "status")["state"] == "active")
            return (self.directory / "mgr.asok").exists()
        except (OSError, ValueError, KeyError):
            return False

    def _configure(self, directory: Path) -> None:
        (directory / "crash").mkdir(exist_ok=True)
        (directory / "ceph.conf").write_text(
            _CONFIGURATION.format(
                directory=directory,
                fsid=(directory / "fsid").read_text(),
                host=HOST,
                port=self._ports[0],
                old_port=self._ports[1],
                size=self.gib * GIB,
            )
            + self._extra
        )

    def _monitor_map(self) -> Path:
        """A map of monitors with our ports."""
        path = self.directory / "monmap"
        run(
            [
                program("monmaptool", "ceph-common"),
                *("--create", "--clobber", "--fsid", self.fsid),
                *("--set-min-mon-release", "16", "--enable-all-features"),
                *("--addv", "a", f"[v2:{HOST}:{self._ports[0]},v1:{HOST}:{self._ports[1]}]"),
                path,
            ],
            environment=_surroundings(),
        )
        return path

    def _monitor(self, *words: str | Path) -> None:
        """Run the monitor's program for one task."""
        run([program("ceph-mon", "ceph-mon"), "-c", self.conf, "-i", "a", *words], environment=_surroundings())

    def _move_monitor(self) -> None:
        self._monitor("--inject-monmap", self._monitor_map())

    # a new cluster

    def _make(self, directory: Path) -> None:
        """A new cluster in `directory`, stopped, with pools and users."""
        self._directory = directory
        (directory / "fsid").write_text(str(uuid.uuid4()))
        for name in ("mon", "mgr", "osd"):
            (directory / name).mkdir()
        self._configure(directory)
        keys = _make_keys(directory)
        self._monitor("--mkfs", "--monmap", self._monitor_map(), "--keyring", keys)
        try:
            self._launch("mon")
            self._await("mon")
            self._make_disk(directory)
            for name in ("mgr", "osd"):
                self._launch(name)
            self._await("osd")
            for name in POOLS:
                self.admin("osd", "pool", "create", name, "16", "16")
                self.admin("rbd", "pool", "init", name)
            for name in GATEWAY_POOLS:
                self.admin("osd", "pool", "create", name, "4", "4")
                self.admin("osd", "pool", "application", "enable", name, "rgw")
            self._await_health()
        finally:
            self.stop()

    def _make_disk(self, directory: Path) -> None:
        identity, secret = str(uuid.uuid4()), _new_key()
        self.admin("osd", "new", identity, "0", "-i", "-", stdin=json.dumps({"cephx_secret": secret}))
        (directory / "osd/keyring").write_text(f"[osd.0]\n\tkey = {secret}\n")
        run(
            [
                program("ceph-osd", "ceph-osd"),
                *("-c", self.conf, "-i", "0", "--mkfs", "--osd-uuid", identity),
            ],
            environment=_surroundings(),
        )

    def _await_health(self) -> None:
        end = time.monotonic() + 60
        while "HEALTH_OK" not in (found := self.admin("health", "detail")):
            if time.monotonic() > end:
                raise Stuck(f"Ceph is not well: {found}")
            time.sleep(0.5)


def _surroundings() -> dict[str, str]:
    """Debian's programs only: the manager embeds Python and finds its library by the `python3` on PATH."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C",
        "CEPH_ARGS": "",
        "CEPH_CONF": "",
        "VIRTUAL_ENV": "",
    }


def _new_key() -> str:
    words = [program("ceph-authtool", "ceph-common"), "--gen-print-key"]
    return run(words, environment=_surroundings()).strip()


def _make_keys(directory: Path) -> Path:
    """The keyring of all users with their caps, for a new monitor; the keyring of each user, where it is looked for."""
    lines = []
    for name, caps in CAPS.items():
        key = _new_key()
        lines += [f"[{name}]", f"\tkey = {key}", *(f'\tcaps {where} = "{what}"' for where, what in caps.items())]
        path = directory / ("mgr/keyring" if name.startswith("mgr.") else f"ceph.{name}.keyring")
        if name != "mon.":
            path.write_text(f"[{name}]\n\tkey = {key}\n")
            path.chmod(0o600)
    keys = directory / "keys"
    keys.write_text("\n".join(lines) + "\n")
    keys.chmod(0o600)
    return keys


def _seed(gib: int) -> Path:
    """The folder of a stopped cluster that others are copied from."""
    release = subprocess.run(["ceph-mon", "--version"], capture_output=True, env=os.environ, check=True).stdout
    mark = hashlib.sha256(release + Path(__file__).read_bytes()).hexdigest()[:12]
    seed = ROOT / ".cache" / f"ceph-{gib}-{mark}"
    if not seed.exists():
        seed.parent.mkdir(exist_ok=True)
        for old in seed.parent.glob(f"ceph-{gib}-*"):
            shutil.rmtree(old, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix="new-ceph-", dir=seed.parent))
        cluster = Ceph(gib=gib)
        try:
            cluster._make(made)
            for path in (*made.glob("*.log"), *made.glob("*.out"), *made.glob("*.asok")):
                path.unlink()
            # another run may have been quicker; its result is as good
            with contextlib.suppress(OSError):
                made.rename(seed)
        finally:
            cluster.close()
            shutil.rmtree(made, ignore_errors=True)
    return seed
