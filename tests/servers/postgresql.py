"""A PostgreSQL server for tests."""

import os
import pwd
import shutil
import signal
import tempfile
import uuid
from pathlib import Path

from tests.servers.certificates import Certificate
from tests.servers.place import HOST, free_port, new_directory, program, reachable_by_others
from tests.servers.process import Process, Stuck, run

USER = "image"
PASSWORD = "database-secret"


class PostgreSQL:
    """`durable`: write as in production (measurements); otherwise nothing is flushed, for speed. `tls`: its
    certificate; without, it speaks no TLS."""

    def __init__(self, port: int | None = None, *, durable: bool = False, tls: Certificate | None = None) -> None:
        self.port = port or free_port()
        self._tls = tls
        self.durable = durable
        self._process: Process | None = None
        self._directory: Path | None = None
        self._outside: Path | None = None
        # the newest of the versions that Debian keeps side by side
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
        self._places = [str(path) for path in reversed(versions)]

    def _program(self, name: str) -> str:
        return program(name, "postgresql", *self._places)

    def start(self) -> None:
        """Make the cluster (the first time) and start it; some seconds."""
        server = self._program("postgres")
        user = _other_user()
        if self._directory is None:
            self._directory = self._make(user)
        relaxed = ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "logging_collector": "off",
        }
        if self._tls is not None:
            for name, file in (("server.crt", self._tls.certificate), ("server.key", self._tls.key)):
                copy = self._directory / name
                shutil.copyfile(file, copy)
                copy.chmod(0o600)
                if user is not None:
                    shutil.chown(copy, user)
            settings |= {"ssl": "on", "ssl_cert_file": str(self._directory / "server.crt"),
                         "ssl_key_file": str(self._directory / "server.key")}  # fmt: skip
        self._process = Process(
            "postgresql",
            [
                server,
                "-D",
                self._directory / "data",
                *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
                *([] if self.durable else relaxed),
            ],
            log=self._directory / "log",
            directory=self._directory,
            user=user,
            # at once: it ends its children itself
            at_death="QUIT",
        )
        self._process.wait_for(self._ready)

    def _make(self, user: str | None) -> Path:
        directory = new_directory("postgresql")
        if user is not None and not reachable_by_others(directory):
            directory = self._outside = Path(tempfile.mkdtemp(prefix="xloud-image-postgresql-"))
        secret = directory / "secret"
        secret.write_text(PASSWORD)
        if user is not None:
            for path in (directory, secret):
                shutil.chown(path, user)
        run(
            [
                self._program("initdb"),
                *("-D", directory / "data"),
                *("-U", USER),
                *("--auth", "scram-sha-256"),
                *("--pwfile", secret),
                *("--encoding", "UTF8"),
                *("--locale", "C.UTF-8"),
                "--no-sync",
            ],
            user=user,
            directory=directory,
        )
        return directory

    def _ready(self) -> bool:
        try:
            return self.sql("select 1").strip() == "1"
        except Stuck:
            return False

    def stop(self) -> None:
        """Stop it; the data stays for another `start()` of the same object."""
        if self._process is not None:
            # "fast": sessions are ended
            self._process.stop(signal.SIGINT)
            self._process = None

    def close(self) -> None:
        """Stop it and forget its data."""
        self.stop()
        for directory in (self._directory, self._outside):
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)
        self._directory = self._outside = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, database: str) -> str:
        """The address of a database as an operator writes it in `[database] connection`."""
        return f"postgresql://{USER}:{PASSWORD}@{HOST}:{self.port}/{database}"

    def create_database(self, name: str | None = None) -> str:
        """Make an empty database (with a new name unless one is given) and return its address."""
        name = name or f"image_{uuid.uuid4().hex[:12]}"
        self.sql(f'create database "{name}"')
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove the database of an address, whoever is still connected."""
        name = url.rpartition("/")[2].partition("?")[0]
        self.sql(f'drop database if exists "{name}" with (force)')

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run one statement; rows as lines, columns separated by a tab."""
        return run(
            [
                self._program("psql"),
                *("-h", HOST, "-p", str(self.port), "-U", USER, "-d", database),
                *("-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1"),
                *("-c", statement),
            ],
            environment={"PGPASSWORD": PASSWORD, "PGCONNECT_TIMEOUT": "5"},
            directory=Path("/"),
        )


def _other_user() -> str | None:
    """PostgreSQL refuses to run as root: whom to become then."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"
