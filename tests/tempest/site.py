"""What Tempest is run against: a deployment that the service serves, or a real Glance, from the very same file."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.servers.glance import lay_out, manage, place, serving
from tests.servers.keystone import Keystone
from tests.servers.place import HOST, new_directory, private_address, program
from tests.servers.process import Process, answers
from tests.servers.service import Service

GLANCE, OURS = "Glance", "ours"


@contextlib.contextmanager
def web(folder: Path) -> Iterator[str]:
    """A web server with the images image.raw and image.qcow2; its URL. It has an address of this machine that is not
    loopback: no Glance follows a URL there."""
    files, host = folder / "web", private_address()
    files.mkdir()
    (files / "image.raw").write_bytes(os.urandom(1 << 20))
    qemu = program("qemu-img", "qemu-utils")
    subprocess.run([qemu, "create", "-q", "-f", "qcow2", files / "image.qcow2", "16M"], check=True)
    port = _free_port(host)
    words = [sys.executable, "-m", "http.server", str(port), "--bind", host, "--directory", str(files)]
    process = Process("web", words, log=folder / "web.log", directory=files)
    try:
        process.wait_for(lambda: answers(f"http://{host}:{port}/"))
        yield f"http://{host}:{port}"
    finally:
        process.kill()


def _free_port(host: str) -> int:
    with socket.socket() as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


class Site:
    """A directory with one glance-api.conf, which both read. `connection`: its database; unset: SQLite, for ours."""

    def __init__(self, keystone: Keystone, connection: str | None = None) -> None:
        self.directory = new_directory("tempest")
        self.keystone = keystone
        self.log = ""  # what whoever was stopped last has logged
        self._service = Service(self._sections(connection), directory=self.directory)
        self._service.configuration = self.directory / "glance-api.conf"
        self._glance: Process | None = None
        self._filled = False
        self._service.configure({"DEFAULT": {"worker_self_reference_url": self.url}})
        for name in ("more", "images", "staging", "tasks", "lock", "cache"):
            (self.directory / name).mkdir(exist_ok=True)
        lay_out(self.directory, self._service.port, workers=2, threads=8)

    @property
    def url(self) -> str:
        return self._service.url

    def _sections(self, connection: str | None) -> dict[str, dict[str, object]]:
        """Two stores to write and one to read, all ways of import (the other region is this one), a cache, everything
        shown, and data that need not be of the format that they claim: Tempest's are not."""
        inside = self.directory
        return {
            "DEFAULT": {
                "enabled_backends": "files:file,more:file,web:http",
                "show_multiple_locations": True,
                "show_image_direct_url": True,
                "enabled_import_methods": "[glance-direct,web-download,copy-image,glance-download]",
                "image_cache_dir": inside / "cache",
                "transport_url": "fake://",
                "workers": 2,
            },
            "image_format": {"require_image_format_match": False},
            "more": {"filesystem_store_datadir": inside / "more", "weight": 20},
            "files": {"filesystem_store_datadir": inside / "images", "weight": 10},
            "os_glance_staging_store": {"filesystem_store_datadir": inside / "staging"},
            "os_glance_tasks_store": {"filesystem_store_datadir": inside / "tasks"},
            "oslo_concurrency": {"lock_path": inside / "lock"},
            # what runs on this machine, on any port: Tempest starts servers of its own
            "import_filtering_opts": {"allowed_hosts": f"[{private_address()},{HOST}]", "allowed_ports": "[]"},
            "xloud": {"job_workers": 1},
            "oslo_messaging_notifications": {"driver": "noop"},
            **({} if connection is None else {"database": {"connection": connection}}),
            **self._keystone(),
        }

    def _keystone(self) -> dict[str, dict[str, object]]:
        sections = self.keystone.sections()
        paste = {"flavor": "keystone+cachemanagement", "config_file": self.directory / "glance-api-paste.ini"}
        return {**sections, "paste_deploy": paste}

    def start(self, who: str) -> None:
        """Serve it by GLANCE or OURS, whoever did before. The first time its tables are made and filled."""
        self.keystone.set_image_url(self.url)
        if who == GLANCE:
            self._start_glance()
        else:
            self._service.start()
            if not self._filled:
                self._service.run("metadefs", "load")
        self._filled = True

    def _start_glance(self) -> None:
        if not self._filled:
            manage(self._service.configuration, "db_sync")
            manage(self._service.configuration, "db_load_metadefs", str(place() / "etc" / "glance" / "metadefs"))
        words, given = serving(self.directory)
        self._glance = Process("glance", words, log=self.directory / "glance", directory=self.directory,
                               environment=given)  # fmt: skip
        self._glance.wait_for(lambda: answers(f"{self.url}/healthcheck", below=400), 60)

    def take_over(self) -> str:
        """`xloud-image takeover run`: ours goes on where Glance has stopped; what it says."""
        return self._service.run("takeover", "run", "--glance-is-stopped", seconds=120)

    def give_back(self) -> str:
        """`xloud-image takeover undo`: Glance can go on; what it says."""
        return self._service.run("takeover", "undo", seconds=120)

    def stop(self) -> str:
        """End whoever serves it; what was wrong with that, empty when nothing."""
        if self._glance is not None:
            self._glance.stop(seconds=60)
            self._glance = None
            self.log = (self.directory / "uwsgi.log").read_text(errors="replace")
            return ""
        code, self.log = self._service.stop(), self._service.log
        if code or "Traceback" in self.log:
            return f"the service ended with {code}{', and logged a traceback' if 'Traceback' in self.log else ''}"
        return ""

    def kill(self) -> None:
        """End everything at once."""
        if self._glance is not None:
            self._glance.kill()
        self._service.kill()
