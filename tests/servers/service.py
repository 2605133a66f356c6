"""Our own service as a child process, from a configuration file made for one test."""

import configparser
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.memory import PYTHONPATH
from tests.servers.http import Answer, request
from tests.servers.place import HOST, ROOT, free_port, new_directory
from tests.servers.process import Process, answers, run
from tests.servers.programs import Forked, Programs

Sections = Mapping[str, Mapping[str, Any]]


NAME = "xloud-image"


def _python() -> Path:
    """Of the environment that `make install` built, or this interpreter."""
    built = ROOT / ".venv"
    return built / "bin" / "python" if (built / ".installed").exists() else Path(sys.executable)


_PROGRAMS = Programs("service", _python)


def installed() -> list[str]:
    """The `xloud-image` command as it is installed, for tests of its start; `command()` is quicker."""
    script = _python().with_name(NAME)
    return [str(script)] if script.exists() else [str(_python()), "-m", "xloud_image"]


def command(name: str = NAME) -> list[str]:
    """The words that begin an `xloud-image` command, or one under another name of ours."""
    return _PROGRAMS.command(name)


class Service:
    """`sections`: the configuration file, by section and option, over a default of SQLite, one file store
    and no login; None removes an option. `environment`: more of it for the process (failpoints). `files`: how many open
    files it may have (as by `ulimit -n`); with them, and in `launch`, it is the installed program from its first line
    on, else a fork that has the libraries already."""

    _database: bytes | None = None  # a new one of SQLite, as `db upgrade` makes it: made once, a second each time

    def __init__(
        self,
        sections: Sections | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
        directory: Path | None = None,
        files: int | None = None,
    ) -> None:
        self.files = files
        self.port = port or free_port()
        self.directory = directory or new_directory("service")
        self.environment: dict[str, str] = dict(environment or {})
        self.configuration = self.directory / "xloud-image.conf"
        self._process: Process | None = None
        self._starts = 0
        self.sections: dict[str, dict[str, Any]] = {
            "DEFAULT": {
                "bind_host": HOST,
                "bind_port": self.port,
                "workers": 1,
                "enabled_backends": "files:file",
            },
            "database": {"connection": f"sqlite:///{self.directory / 'xloud-image.sqlite'}"},
            "glance_store": {"default_backend": "files"},
            "files": {"filesystem_store_datadir": self.images},
        }
        # long work has tests of its own, which ask for the process that does it
        self.sections["xloud"] = {"job_workers": 0}
        if "flavor" not in (sections or {}).get("paste_deploy", {}):
            self.sections["xloud"]["auth"] = "none"
        self.configure(sections or {})

    @property
    def images(self) -> Path:
        """Where the file store of the default configuration keeps its data."""
        return self.directory / "images"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> str:
        """What the process of the last start wrote."""
        return "" if self._process is None else self._process.output()

    @property
    def pid(self) -> int:
        """The process id of the one that was started (with several workers: their parent)."""
        assert self._process is not None
        return self._process.pid

    @property
    def started(self) -> bool:
        """Whether it was started at all."""
        return self._process is not None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        assert self._process is not None
        return self._process.exit_code

    def configure(self, sections: Sections) -> None:
        """Change options; they count from the next start."""
        for name, options in sections.items():
            self.sections.setdefault(name, {}).update(options)
        parser = configparser.RawConfigParser(default_section="\0", interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        for name, options in self.sections.items():
            kept = {key: str(value) for key, value in options.items() if value is not None}
            if kept:
                parser[name] = kept
        with self.configuration.open("w") as file:
            parser.write(file)

    def _environment(self) -> dict[str, str]:
        """With the memory store when the configuration names it: it is a type of the tests alone."""
        named = "memory" in str(self.sections["DEFAULT"].get("enabled_backends"))
        return {**({"PYTHONPATH": PYTHONPATH} if named else {}), **self.environment}

    def run(self, *words: str, seconds: float = 60) -> str:
        """`xloud-image <words> --config-file …` to its end; its output. Raises `Stuck` when it fails."""
        return run(
            [*command(), *words, "--config-file", self.configuration],
            environment=self._environment(),
            directory=self.directory,
            seconds=seconds,
        )

    def prepare(self) -> None:
        """Bring the database to the present version and make the folder of the file store."""
        self.images.mkdir(exist_ok=True)
        database = self.directory / "xloud-image.sqlite"
        connection = {"connection": f"sqlite:///{database}"}
        usual = self.sections["database"] == connection and not database.exists() and not self.environment
        if usual and Service._database is not None:
            database.write_bytes(Service._database)
            return
        self.run("db", "upgrade")
        if usual and not Path(f"{database}-wal").exists():
            Service._database = database.read_bytes()

    def launch(self, *, forked: bool = False) -> Process:
        """Start the process and return at once; for starts that are to fail."""
        assert self._process is None or self._process.exit_code is not None, "it runs already"
        self._starts += 1
        words: list[str | Path] = ["serve", "--config-file", self.configuration]
        log = self.directory / f"log-{self._starts}"
        environment = {"PYTHONUNBUFFERED": "1", **self._environment()}
        if forked:
            self._process = Forked(_PROGRAMS, NAME, words, log=log, directory=self.directory, environment=environment)
        else:
            self._process = Process(NAME, [*self._limits(), *installed(), *words], log=log, directory=self.directory,
                                    environment=environment)  # fmt: skip
        return self._process

    def _limits(self) -> list[str]:
        return [] if self.files is None else ["prlimit", f"--nofile={self.files}:{self.files}"]

    def start(self, seconds: float = 30) -> None:
        """Prepare (the first time), start, and wait until it answers at /healthcheck."""
        if not self._starts:
            self.prepare()
        self.launch(forked=self.files is None).wait_for(lambda: answers(f"{self.url}/healthcheck", below=400), seconds)

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM; the exit code. Raises `Stuck` when it does not end."""
        return 0 if self._process is None else self._process.stop(signal.SIGTERM, seconds)

    def kill(self) -> None:
        """kill -9 of the process and its workers."""
        if self._process is not None:
            self._process.kill()

    def wait(self, seconds: float = 30) -> int:
        """The exit code, once it has ended by itself (a failpoint, a refusal to start)."""
        assert self._process is not None
        return self._process.wait(seconds)

    def request(self, method: str, path: str, **how: Any) -> Answer:
        """One request; see `http.request`."""
        return request(method, self.url + path, **how)
