"""What a run of the tests has done so far, written down as it goes, so that one that died can be told and gone on with.
A plugin of pytest; `python -m tests.journal DIRECTORY` prints the files that such a run still has left, one a line.

The journal lies in the cache directory of the run: a line for each file in the order of the run, each test that began,
each that failed, and after a file what it took of the processor, its servers included.
"""

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.servers.place import processor_seconds

_NAME = "journal"


class Journal:
    """Appends lines that survive the end of the process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", buffering=1)
        self.taken: dict[str, float] = {}  # seconds of the processor, by file

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for file in dict.fromkeys(item.nodeid.partition("::")[0] for item in session.items):
            self._file.write(f"file {file}\n")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._file.write(f"test {nodeid}\n")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        file = item.nodeid.partition("::")[0]
        if file not in self.taken:
            self.taken[file] = -processor_seconds()
        result = yield
        if nextitem is None or nextitem.nodeid.partition("::")[0] != file:
            self.taken[file] += processor_seconds()
            self._file.write(f"took {self.taken[file]:.1f} {file}\n")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._file.write(f"failed {report.nodeid}\n")

    def pytest_sessionfinish(self) -> None:
        self._file.write("end\n")


def pytest_configure(config: pytest.Config) -> None:
    """Only where the run has a cache of its own."""
    cache = getattr(config, "cache", None)
    if cache is not None:
        config.pluginmanager.register(Journal(Path(cache._cachedir) / _NAME), "the journal")


def left(text: str) -> tuple[str, list[str]]:
    """(the test that ran last, the files from its own on and those in which something had failed)."""
    files: list[str] = []
    failed: set[str] = set()
    last = ""
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "file":
            files.append(rest)
        elif kind == "test":
            last = rest
        elif kind == "failed":
            failed.add(rest.partition("::")[0])
    here = last.partition("::")[0]
    begun = files.index(here) if here in files else 0
    return last, [file for number, file in enumerate(files) if number >= begun or file in failed]


def main() -> int:
    """Prints the last test on the first line, then the files."""
    try:
        last, files = left((Path(sys.argv[1]) / _NAME).read_text())
    except OSError:
        return 1
    print(last, *files, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
