"""Ceph's object gateway (RADOS Gateway) for tests: S3 over http and https, on a cluster of `Ceph`."""

import json
import os
import secrets
import signal
from pathlib import Path
from typing import Any

from tests.servers.ceph import Ceph
from tests.servers.certificates import authority
from tests.servers.place import HOST, free_port, new_directory, program
from tests.servers.process import Process, answers

# a bucket is also found as a part of the host name below this one
DOMAIN = "s3.test"

# deleted data is given back within the run
_CONFIGURATION = """
[client.rgw]
log_file = {directory}/rgw.log
admin_socket = {directory}/rgw.asok
rgw_data = {directory}/data
rgw_frontends = beast endpoint={host}:{port} ssl_endpoint={host}:{tls_port} ssl_certificate={certificate} \
ssl_private_key={key}
rgw_dns_name = {domain}
rgw_thread_pool_size = 64
rgw_gc_obj_min_wait = 5
rgw_gc_processor_period = 10
rgw_gc_processor_max_time = 10
rgw_enable_usage_log = false
{extra}
"""


class Rgw:
    """`url` and `tls_url` are its addresses, `ca` what clients of the second have to trust; `access` and `secret` are
    the keys of a user without limits. Stopped and started again it has the same addresses and data."""

    def __init__(self, ceph: Ceph, *, extra: str = "") -> None:
        self._ceph, self._extra = ceph, extra
        self.port, self.tls_port = free_port(), free_port()
        self.access, self.secret = f"AK{secrets.token_hex(8)}", f"{secrets.token_hex(10)}/+{secrets.token_hex(10)}"
        self._conf: Path | None = None
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"https://{HOST}:{self.tls_port}"

    @property
    def ca(self) -> Path:
        return authority().ca

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; some seconds."""
        gateway = program("radosgw", "radosgw")
        fresh = self._conf is None
        if self._conf is None:
            self._directory = new_directory("rgw")
            (self._directory / "data").mkdir()
            pair = authority().issue("localhost", HOST, DOMAIN, f"*.{DOMAIN}")
            self._conf = self._ceph.with_conf(
                self._directory.name,
                _CONFIGURATION.format(
                    directory=self._directory,
                    host=HOST,
                    port=self.port,
                    tls_port=self.tls_port,
                    certificate=pair.certificate,
                    key=pair.key,
                    domain=DOMAIN,
                    extra=self._extra,
                ),
            )
        self._process = Process(
            "radosgw",
            [gateway, "-f", "-c", self._conf, "-n", "client.rgw"],
            log=self._directory / "out",
            directory=self._directory,
            environment={"CEPH_ARGS": "", "CEPH_CONF": ""},
            at_death="KILL",
        )
        self._process.wait_for(lambda: answers(self.url), 120)
        if fresh:
            self.add_user(f"tests-{self.port}", self.access, self.secret)

    def stop(self) -> None:
        """Stop it; buckets and objects stay."""
        if self._process is not None:
            self.thaw()
            self._process.kill()
            self._process = None

    close = stop

    def freeze(self) -> None:
        """Make it stand still (SIGSTOP): connections stay open, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        if self._process.exit_code is None:
            os.kill(self.pid, signal.SIGCONT)

    def add_user(self, name: str, access: str, secret: str) -> None:
        """Another user, who may make any number of buckets."""
        self.admin(
            *("user", "create", "--uid", name, "--display-name", name, "--max-buckets", "0"),
            *("--access-key", access, "--secret-key", secret),
        )

    def set_quota(self, bucket: str, size: int | None) -> None:
        """The bytes that a bucket may hold from now on; None: any number."""
        bucket_of = ("--quota-scope", "bucket", "--bucket", bucket)
        if size is not None:
            self.admin("quota", "set", *bucket_of, "--max-size", str(size))
        self.admin("quota", "disable" if size is None else "enable", *bucket_of)

    def admin(self, *words: str) -> Any:
        """Run `radosgw-admin …`; its answer, mostly JSON."""
        text = self._ceph.admin("radosgw-admin", *words)
        try:
            return json.loads(text)
        except ValueError:
            return text
