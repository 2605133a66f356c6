"""A MariaDB server for tests."""

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.servers.place import HOST, free_port, new_directory, program
from tests.servers.process import Process, Stuck, run

USER = "image"
PASSWORD = "database-secret"


class MariaDB:
    """`durable`: write as in production (measurements); otherwise nothing is flushed, for speed.
    `directory`: where the data stays from one run to the next; a folder of this run unless given.
    `options`: further options of the server, as on its command line."""

    def __init__(
        self,
        port: int | None = None,
        *,
        durable: bool = False,
        directory: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.port = port or free_port()
        self.durable = durable
        self._options = tuple(options)
        self._process: Process | None = None
        self._directory = directory
        self._stays = directory is not None

    def start(self) -> None:
        """Make the data folder (the first time) and start it; some seconds."""
        server = program("mariadbd", "mariadb-server")
        as_root = ["--user=root"] if os.geteuid() == 0 else []
        if self._directory is None:
            self._directory = new_directory("mariadb")
        if not (self._directory / "users.sql").exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            run(
                [
                    program("mariadb-install-db", "mariadb-server"),
                    "--no-defaults",
                    f"--datadir={self._directory / 'data'}",
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                    *as_root,
                ]
            )
            (self._directory / "users.sql").write_text(
                f"create user if not exists '{USER}'@'%' identified by '{PASSWORD}';\n"
                f"grant all privileges on *.* to '{USER}'@'%' with grant option;\n"
            )
        relaxed = ["--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--sync-binlog=0"]
        self._process = Process(
            "mariadb",
            [
                server,
                "--no-defaults",
                f"--datadir={self._directory / 'data'}",
                f"--bind-address={HOST}",
                f"--port={self.port}",
                # inside the data folder: an absolute path may be too long for a socket
                "--socket=mariadb.sock",
                f"--pid-file={self._directory / 'pid'}",
                f"--init-file={self._directory / 'users.sql'}",
                "--skip-name-resolve",
                "--skip-log-bin",
                "--max-connections=300",
                "--innodb-buffer-pool-size=256M",
                *as_root,
                *([] if self.durable else relaxed),
                *self._options,
            ],
            log=self._directory / "log",
            directory=self._directory,
        )
        self._process.wait_for(self._ready)

    def _ready(self) -> bool:
        try:
            return self.sql("select 1").strip() == "1"
        except Stuck:
            return False

    def stop(self) -> None:
        """Stop it; the data stays for another `start()` of the same object."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def close(self) -> None:
        """Stop it and forget its data, unless its folder was given."""
        self.stop()
        if self._stays:
            return
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, database: str, charset: str = "utf8mb4") -> str:
        """The address of a database as an operator writes it in `[database] connection`."""
        return f"mysql+pymysql://{USER}:{PASSWORD}@{HOST}:{self.port}/{database}?charset={charset}"

    def create_database(self, name: str | None = None, charset: str = "utf8mb4") -> str:
        """Make an empty database (with a new name unless one is given) and return its address.

        `charset`: "utf8" is what a running Glance has (at most three bytes a character); the connection
        of the address uses the same.
        """
        name = name or f"image_{uuid.uuid4().hex[:12]}"
        self.sql(f"create database `{name}` character set {charset}")
        return self.url(name, charset)

    def drop_database(self, url: str) -> None:
        """Remove the database of an address."""
        name = url.rpartition("/")[2].partition("?")[0]
        self.sql(f"drop database if exists `{name}`")

    def sql(self, statement: str, database: str = "") -> str:
        """Run one statement; rows as lines, columns separated by a tab."""
        return run(
            [
                program("mariadb", "mariadb-client"),
                "--no-defaults",
                *("--protocol=TCP", "-h", HOST, "-P", str(self.port), "-u", USER),
                *("--default-character-set=utf8mb4", "--connect-timeout=5"),
                *("-N", "-B", "-e", statement),
                *([database] if database else []),
            ],
            environment={"MYSQL_PWD": PASSWORD},
            directory=Path("/"),
        )

    def dump(self, database: str) -> str:
        """The tables of a database and their rows, as statements."""
        return run(
            [
                program("mariadb-dump", "mariadb-client"),
                "--no-defaults",
                *("--protocol=TCP", "-h", HOST, "-P", str(self.port), "-u", USER),
                *("--default-character-set=utf8mb4", "--no-tablespaces", "--skip-comments", database),
            ],
            environment={"MYSQL_PWD": PASSWORD},
            directory=Path("/"),
        )
