"""A vCenter for tests: the simulator of `vcsim/main.go`, built once with Debian's Go, behind TLS.

The program is kept in `.cache/vcsim`, by the hash of its source; `python -m tests.servers.vsphere` builds it.
The datastores are folders of plain files, gone when the server stops.
"""

import hashlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers.certificates import authority
from tests.servers.place import HOST, ROOT, Missing, free_port, new_directory, program
from tests.servers.process import Process

SOURCE = Path(__file__).parent / "vcsim" / "main.go"
LIBRARY = Path("/usr/share/gocode/src/github.com/vmware/govmomi/simulator")
CACHE = ROOT / ".cache" / "vcsim"


def built() -> Path:
    """The simulator, built when it is not there yet (one to three minutes); raises `Missing` where it cannot be."""
    path = CACHE / hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    if path.exists():
        return path
    go = program("go", "golang-go")
    if not LIBRARY.exists():
        raise Missing("govmomi is not installed (Debian package golang-github-vmware-govmomi-dev; `make packages`)")
    CACHE.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    environment = {
        **os.environ,
        "GOPATH": "/usr/share/gocode",
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOCACHE": str(CACHE / "go"),
    }
    subprocess.run([go, "build", "-ldflags=-s -w", "-o", draft, SOURCE], env=environment, check=True)
    draft.rename(path)
    for old in CACHE.iterdir():
        if old.is_file() and old.name != path.name and not old.name.startswith("."):
            old.unlink()
    return path


class Vsphere:
    """`folders`: how many of the datacenters lie in a folder (F0/DC1). `idle`: after so long an unused session ends,
    such as "2s"; "0" never. Its certificate is one of the authority of this run."""

    user = "administrator@vsphere.local"
    password = "Vcsim-Passw0rd!"

    def __init__(
        self, *, datacenters: int = 2, datastores: int = 2, folders: int = 0, idle: str = "0", port: int | None = None
    ) -> None:
        self.port = port or free_port()
        self._numbers = (datacenters, datastores, folders)
        self._idle = idle
        self._process: Process | None = None
        self._directory: Path | None = None

    @property
    def host(self) -> str:
        """host:port, as in `vmware_server_host`."""
        return f"{HOST}:{self.port}"

    @property
    def ca_file(self) -> Path:
        return authority().ca

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, with empty datastores."""
        vcsim = built()
        if self._directory is None:
            self._directory = new_directory("vsphere")
            self._certificate = authority().issue()
        data = self._directory / "data"
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        datacenters, datastores, folders = self._numbers
        self._process = Process(
            "vcsim",
            [
                vcsim,
                *("-listen", self.host, "-user", self.user, "-idle", self._idle),
                *("-cert", self._certificate.certificate, "-key", self._certificate.key),
                *("-datacenters", str(datacenters), "-datastores", str(datastores), "-folders", str(folders)),
            ],
            log=self._directory / "log",
            directory=self._directory,
            environment={"TMPDIR": str(data), "VCSIM_PASSWORD": self.password},
        )
        self._process.wait_for(self._ready)

    def _ready(self) -> bool:
        try:
            self._control("GET")
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Stop it; the datastores are gone."""
        if self._process is not None:
            self.thaw()
            self._process.stop()
            self._process = None

    close = stop

    def freeze(self) -> None:
        """It accepts connections and answers nothing any more."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def directory(self, datastore: str = "LocalDS_0", datacenter: str = "DC0") -> Path:
        """The folder that is a datastore."""
        assert self._directory is not None
        (found,) = (self._directory / "data").glob(f"govcsim-{datacenter}-{datastore}-*")
        return found

    def log(self) -> list[str]:
        """One line for each request to /folder, of all its lives."""
        assert self._process is not None
        return self._process.output().splitlines()

    def _control(self, method: str, body: Any = None, query: str = "") -> bytes:
        request = urllib.request.Request(
            f"https://{self.host}/control{query}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
        )
        trusted = ssl.create_default_context(cafile=str(self.ca_file))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted)
        )
        with opener.open(request, timeout=10) as answer:
            found: bytes = answer.read()
            return found

    def knobs(self, *, told: bool = True, **knobs: Any) -> None:
        """What goes wrong from now on, see `knobs` in main.go; none: nothing. `told` False: the summaries of the
        datastores change only when somebody refreshes them."""
        self._control("PUT", knobs, "" if told else "?tell=no")

    @contextmanager
    def wrong(self, *, told: bool = True, **knobs: Any) -> Iterator[None]:
        """`knobs` while entered."""
        self.knobs(told=told, **knobs)
        try:
            yield
        finally:
            self.knobs()

    def end_sessions(self) -> None:
        """What an administrator or the idle time does: nobody is logged in any more."""
        self._control("DELETE")

    def count(self, what: str) -> int:
        """`sessions` now; `polls`: looks at tasks since the knobs were set."""
        number: int = json.loads(self._control("GET"))[what]
        return number


if __name__ == "__main__":
    try:
        built()
    except Missing as error:
        sys.exit(f"the vCenter simulator is not built: {error}")
