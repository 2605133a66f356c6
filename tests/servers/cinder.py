"""A real Cinder for tests: api, scheduler and volume as three processes, with RabbitMQ; Keystone, MariaDB and Ceph are
given. Volumes can be attached to this host: by librbd, and as files of a share.

The first start makes a database and keeps it beside the virtual environment; later starts load it. Volume types:
image-store (RBD, pool `volumes`), image-store-multi (the same, multiattach), image-store-nfs (files).

os-brick looks for a keyring in /etc/ceph and nowhere else: there a link lies while this runs, under a user of its own.
This kernel may have no NFS: `nfs_environment` puts a `mount` first on PATH that shows a folder of this machine by FUSE
under the share's name. Driver and os-brick are the real ones, the transport is not.
"""

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any, Final

from tests.servers.ceph import CAPS, Ceph
from tests.servers.http import Answer, request
from tests.servers.keystone import USERS, Keystone
from tests.servers.mariadb import MariaDB
from tests.servers.place import HOST, ROOT, Missing, environment, free_port, new_directory, program
from tests.servers.process import Process, Stuck, answers, run
from tests.servers.rabbitmq import RabbitMQ

ENVIRONMENT = ".venv-cinder"
HOST_NAME = "volumes"
TYPES: Final[dict[str, dict[str, str]]] = {
    "image-store": {"volume_backend_name": "rbd"},
    "image-store-multi": {"volume_backend_name": "rbd", "multiattach": "<is> True"},
    "image-store-nfs": {"volume_backend_name": "nfs"},
}
MICROVERSION = {"OpenStack-API-Version": "volume 3.71"}

_CONFIGURATION = """\
[DEFAULT]
host = {host_name}
my_ip = {host}
transport_url = {broker}
auth_strategy = keystone
api_paste_config = {etc}/api-paste.ini
resource_query_filters_file = {etc}/resource_filters.json
rootwrap_config = {etc}/rootwrap.conf
osapi_volume_listen = {host}
osapi_volume_listen_port = {port}
state_path = {directory}/state
log_dir = {directory}
image_conversion_dir = {directory}/conversion
enabled_backends = rbd,nfs
default_volume_type = image-store
quota_volumes = -1
quota_snapshots = -1
quota_gigabytes = -1
quota_backups = -1
glance_api_servers = {image_url}
glance_api_version = 2
report_interval = 5
periodic_interval = 10
periodic_fuzzy_delay = 0
rpc_response_timeout = 60
{more}
[database]
connection = {database}
max_pool_size = 5
[oslo_concurrency]
lock_path = {directory}/lock
[coordination]
backend_url = file://{directory}/state
[oslo_messaging_notifications]
driver = noop
[oslo_messaging_rabbit]
heartbeat_in_pthread = false
[key_manager]
backend = cinder.keymgr.conf_key_mgr.ConfKeyManager
fixed_key = 0000000000000000000000000000000000000000000000000000000000000000
[keystone_authtoken]
{authtoken}
service_token_roles = service
service_token_roles_required = true
[service_user]
send_service_user_token = true
{account}
[glance]
# asks for an image's locations as the service it is
{account}
[cinder_sys_admin]
helper_command = {helper} --config-file {etc}/cinder.conf
[privsep_osbrick]
helper_command = {helper} --config-file {etc}/cinder.conf
[rbd]
volume_driver = cinder.volume.drivers.rbd.RBDDriver
volume_backend_name = rbd
rbd_pool = volumes
rbd_user = {ceph_user}
rbd_ceph_conf = {ceph_conf}
rbd_secret_uuid = 00000000-0000-4000-8000-000000000001
rbd_flatten_volume_from_snapshot = false
rados_connect_timeout = 10
[nfs]
volume_driver = cinder.volume.drivers.nfs.NfsDriver
volume_backend_name = nfs
nfs_shares_config = {etc}/nfs_shares
nfs_mount_point_base = {directory}/mnt
nfs_sparsed_volumes = true
nfs_qcow2_volumes = false
nas_secure_file_operations = false
nas_secure_file_permissions = false
nfs_snapshot_support = true
"""

_APPLICATION = '''\
"""Cinder's API for gunicorn."""
import sys

# Cinder would read the arguments of gunicorn
sys.argv = ["cinder-api", "--config-file", "{etc}/cinder.conf", "--log-file", "{directory}/api.log"]

from cinder.wsgi.api import application  # noqa: E402,F401
'''

_MOUNT = """\
#!/bin/sh
# mount -t nfs [-o options] {host}:/folder /where: the folder itself, by FUSE; anything else: the real mount
if [ "$1" != -t ] || [ "$2" != nfs ]; then exec {mount} "$@"; fi
shift 2
while [ $# -gt 2 ]; do shift; done
case $1 in {host}:/*) folder=${{1#*:}} ;; *) echo "mount: $1: only {host}" >&2; exit 32 ;; esac
[ -d "$folder" ] || {{ echo "mount: $1: access denied by server" >&2; exit 32; }}
exec {bindfs} -o "fsname=$1,allow_other" --realistic-permissions "$folder" "$2"
"""


class Cinder:
    """`image_url`: the image service that Cinder asks. `more`: lines for its [DEFAULT]. Not started by it: Keystone,
    MariaDB, Ceph; they must run."""

    def __init__(
        self,
        keystone: Keystone,
        mariadb: MariaDB,
        ceph: Ceph,
        *,
        image_url: str = "http://127.0.0.1:9292",
        more: str = "",
    ) -> None:
        self.port = free_port()
        self.keystone, self._mariadb, self.ceph = keystone, mariadb, ceph
        self.image_url = image_url
        self._more = more
        self._broker = RabbitMQ()
        self._directory: Path | None = None
        self._database: str | None = None
        self._token: str | None = None
        self._processes: dict[str, Process] = {}
        self.ceph_user = f"cinder-{os.getpid()}-{self.port}"

    # its life

    def start(self) -> None:
        """Start it, at the same address and with the same data as before if it was stopped; about 20 seconds."""
        environment(ENVIRONMENT, "cinder-volume")
        program("bindfs", "bindfs")
        program("qemu-img", "qemu-utils")
        if self._directory is None:
            self._directory = new_directory("cinder")
            self._prepare(self._directory)
        self._broker.start()
        self._configure(self.directory)
        for name in ("scheduler", "volume", "api"):
            self._launch(name)
        self._processes["api"].wait_for(lambda: answers(f"http://{HOST}:{self.port}/"), 120)
        self.keystone.place_service("volumev3", "cinder", f"{self.url}/%(project_id)s")
        self.keystone.place_service("block-storage", "cinder", f"{self.url}/%(project_id)s")
        self._token = None
        self._make_types()
        self._await_services()

    def stop(self) -> None:
        """Stop it; the data stays for another `start()` of the same object."""
        for name in ("api", "volume", "scheduler"):
            self._end(name)
        self._broker.stop()
        self._unmount()

    def close(self) -> None:
        """Stop it and forget its data; volumes in Ceph stay there."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
            process.kill()
        self._processes.clear()
        self._broker.close()
        self._unmount()
        self._keyring.unlink(missing_ok=True)
        if self._database is not None:
            self._mariadb.drop_database(self._database)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = self._database = None

    def freeze(self, name: str) -> None:
        """Make "api", "scheduler" or "volume" stand still (SIGSTOP), its children too; `thaw` before the test ends."""
        os.killpg(self._processes[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let it go on."""
        os.killpg(self._processes[name].pid, signal.SIGCONT)

    def use_images_at(self, url: str) -> None:
        """Let Cinder ask another image service: its services start again, the volumes stay."""
        self.image_url = url
        self.keystone.set_image_url(url)
        for name in ("api", "volume"):
            self._end(name)
        self._configure(self.directory)
        for name in ("volume", "api"):
            self._launch(name)
        self._processes["api"].wait_for(lambda: answers(f"http://{HOST}:{self.port}/"), 120)
        self._await_services()

    # what tests and clients need of it

    @property
    def directory(self) -> Path:
        assert self._directory is not None, "it was not started"
        return self._directory

    @property
    def url(self) -> str:
        """The address without a project."""
        return f"http://{HOST}:{self.port}/v3"

    @property
    def share(self) -> Path:
        """The folder in which volumes of type image-store-nfs are files, `volume-<id>`."""
        return self.directory / "share"

    @property
    def nfs_environment(self) -> dict[str, str]:
        """For a process that shall mount the share, as PATH."""
        return {"PATH": f"{self.directory / 'bin'}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}

    @property
    def bindings(self) -> Path:
        """A folder with Debian's rados and rbd modules, for the import path of a process that attaches volumes."""
        return self.directory / "bindings"

    def ask(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Answer:
        """One request to /v3/<project of token>PATH, as the service account `glance` (an administrator) or another."""
        if token is None:
            if self._token is None:
                self._token = self.keystone.token("glance")
            token = self._token
        return request(
            method, f"{self.url}{path}", json=body, headers={**MICROVERSION, "X-Auth-Token": token}, seconds=90
        )

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Any:
        """The same; the decoded body. Raises `Stuck` for statuses from 400."""
        answer = self.ask(method, path, body, token=token)
        if answer.status >= 400:
            raise Stuck(f"cinder: {method} {path}: {answer.status}: {answer.body.decode(errors='replace')}")
        return answer.json() if answer.body else None

    def volumes(self) -> list[dict[str, Any]]:
        """All volumes of every project, with their details."""
        found: list[dict[str, Any]] = self.call("GET", "/volumes/detail?all_tenants=1")["volumes"]
        return found

    def volume(self, identity: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/volumes/{identity}")["volume"]
        return found

    def await_status(self, identity: str, *statuses: str, seconds: float = 60) -> str:
        """Wait until a volume has one of these statuses; "gone" is one."""
        end = time.monotonic() + seconds
        while True:
            answer = self.ask("GET", f"/volumes/{identity}")
            status: str = "gone" if answer.status == 404 else answer.json()["volume"]["status"]
            if status in statuses:
                return status
            if time.monotonic() > end or (status.startswith("error") and status not in statuses):
                raise Stuck(f"cinder: volume {identity} is {status}, not {statuses}")
            time.sleep(0.1)

    def store_options(self, volume_type: str = "image-store", **more: Any) -> dict[str, Any]:
        """The options of an image store on it that differ from the defaults: a service account's."""
        account = USERS["glance"]
        return {
            "cinder_store_auth_address": self.keystone.url,
            "cinder_store_user_name": account.name,
            "cinder_store_password": account.password,
            "cinder_store_project_name": account.project,
            "cinder_volume_type": volume_type,
            **more,
        }

    # how

    @property
    def _keyring(self) -> Path:
        return Path(f"/etc/ceph/ceph.client.{self.ceph_user}.keyring")

    def _launch(self, name: str) -> None:
        directory = self.directory
        if name == "api":
            command = [
                str(environment(ENVIRONMENT, "gunicorn")),
                *("--bind", f"{HOST}:{self.port}", "--workers", "1", "--threads", "8", "--worker-class", "gthread"),
                *("--timeout", "0", "--no-control-socket", "--pythonpath", str(directory / "etc")),
                "cinder_application:application",
            ]
        else:
            program_path = str(environment(ENVIRONMENT, f"cinder-{name}"))
            configuration = str(directory / "etc/cinder.conf")
            command = [program_path, "--config-file", configuration, "--log-file", f"{directory}/{name}.log"]
        self._processes[name] = Process(
            f"cinder-{name}",
            command,
            log=directory / f"{name}.out",
            directory=directory,
            environment={
                **self.nfs_environment,
                "PATH": f"{ROOT / ENVIRONMENT / 'bin'}:{self.nfs_environment['PATH']}",
                "PYTHONPATH": str(self.bindings),
                "PYTHONWARNINGS": "ignore",
                "CEPH_ARGS": "",
            },
        )

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
            with contextlib.suppress(Stuck):
                process.stop(seconds=10)
            process.kill()

    def _prepare(self, directory: Path) -> None:
        """Folders, scripts and the database, once for each object."""
        for name in ("etc", "state", "lock", "conversion", "share", "mnt", "bin", "bindings"):
            (directory / name).mkdir()
        theirs = ROOT / ENVIRONMENT / "etc/cinder"
        for name in ("api-paste.ini", "resource_filters.json", "rootwrap.conf"):
            shutil.copy(theirs / name, directory / "etc" / name)
        shutil.copytree(theirs / "rootwrap.d", directory / "etc/rootwrap.d")
        for module in ("rados", "rbd"):
            found = list(Path("/usr/lib/python3/dist-packages").glob(f"{module}.cpython-*.so"))
            if not found:
                raise Missing(f"Python's {module} is not installed (Debian package python3-{module})")
            for file in found:
                (directory / "bindings" / file.name).symlink_to(file)
        mount = directory / "bin/mount"
        mount.write_text(_MOUNT.format(host=HOST, mount=program("mount", "mount"), bindfs=program("bindfs", "bindfs")))
        mount.chmod(0o755)
        # Cinder only asks whether it is there
        (directory / "bin/mount.nfs").symlink_to(mount)
        (directory / "etc/nfs_shares").write_text(f"{HOST}:{self.share}\n")
        self.ceph.add_user(self.ceph_user, CAPS["client.cinder"])
        self._link_keyring()
        self._database = self._mariadb.create_database()
        name = self._database.rpartition("/")[2].partition("?")[0]
        self._configure(directory)
        dump = ROOT / ENVIRONMENT / "template.sql"
        if dump.exists():
            self._mariadb.sql(f"source {dump}", name)
        else:
            words = [environment(ENVIRONMENT, "cinder-manage"), "--config-file", directory / "etc/cinder.conf"]
            run([*words, "db", "sync"], directory=directory, environment={"PYTHONWARNINGS": "ignore"}, seconds=300)
            made = self._mariadb.dump(name)
            new = dump.with_suffix(f".{os.getpid()}")
            new.write_text(made)
            new.rename(dump)

    def _link_keyring(self) -> None:
        place = self._keyring
        if os.geteuid() != 0:
            raise Missing("a volume can be attached by root only")
        place.parent.mkdir(exist_ok=True)
        for old in place.parent.glob("ceph.client.cinder-*-*.keyring"):
            if old.is_symlink() and not old.exists():  # of tests that were killed
                old.unlink(missing_ok=True)
        place.symlink_to(self.ceph.keyring(self.ceph_user))

    def _configure(self, directory: Path) -> None:
        assert self._database is not None
        account = self.keystone.authtoken(memcached_servers=self.keystone.memcached.address)
        (directory / "etc/cinder.conf").write_text(
            _CONFIGURATION.format(
                host=HOST,
                host_name=HOST_NAME,
                port=self.port,
                broker=self._broker.url,
                etc=directory / "etc",
                directory=directory,
                image_url=self.image_url,
                more=self._more,
                database=self._database,
                authtoken="\n".join(f"{name} = {value}" for name, value in account.items()),
                account="\n".join(
                    f"{name} = {value}"
                    for name, value in account.items()
                    if name not in {"www_authenticate_uri", "memcached_servers"}
                ),
                helper=ROOT / ENVIRONMENT / "bin/privsep-helper",
                ceph_user=self.ceph_user,
                ceph_conf=self.ceph.conf,
            )
        )
        (directory / "etc/cinder_application.py").write_text(
            _APPLICATION.format(etc=directory / "etc", directory=directory)
        )

    def _make_types(self) -> None:
        have = {found["name"] for found in self.call("GET", "/types?is_public=None")["volume_types"]}
        for name, specs in TYPES.items():
            if name not in have:
                made = self.call("POST", "/types", {"volume_type": {"name": name}})["volume_type"]
                self.call("POST", f"/types/{made['id']}/extra_specs", {"extra_specs": specs})

    def _await_services(self) -> None:
        """Until the scheduler knows what both backends have."""
        expected = {f"{HOST_NAME}@rbd", f"{HOST_NAME}@nfs"}
        end = time.monotonic() + 90
        while True:
            pools = self.call("GET", "/scheduler-stats/get_pools?detail=true")["pools"]
            known = {pool["name"].partition("#")[0] for pool in pools}
            if expected <= known:
                return
            for name, process in self._processes.items():
                if process.exit_code is not None:
                    raise Stuck(f"cinder-{name} ended with {process.exit_code}:\n{process.output(40)}")
            if time.monotonic() > end:
                raise Stuck(f"cinder: {expected - known} not up:\n{self._processes['volume'].output(40)}")
            time.sleep(0.25)

    def _unmount(self) -> None:
        """The mounts of the share in our folder, and with them their FUSE processes."""
        if self._directory is None:
            return
        for line in Path("/proc/mounts").read_text().splitlines():
            where = line.split()[1]
            if where.startswith(f"{self._directory}/"):
                run([program("umount", "mount"), "-l", where])
