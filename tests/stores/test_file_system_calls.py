"""The file store when system calls fail that no file system at hand fails: strace makes them fail for real."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.place import ROOT, program

SUITE = ["-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-p", "no:logging"]
TARGET = "tests/stores/test_conformance.py"

WRITE_ONE = """
import asyncio, sys
from tests.stores.drivers import file_options
from xloud_image.stores.file.store import FileStore

async def source():
    for _ in range(3):
        yield bytes(700_000)

async def main():
    store = FileStore("fast", file_options(sys.argv[1]))
    await store.start()
    try:
        print((await store.write("key", source(), size=2_100_000)).url)
    except Exception as error:
        print(type(error).__name__, error)
    await store.aclose()

asyncio.run(main())
"""


def traced(*words: str) -> list[str]:
    return [program("strace", "strace"), "-f", "-qq", "--seccomp-bpf", *words, sys.executable]


@pytest.mark.parametrize(
    "inject",
    [["linkat:error=EPERM"], ["linkat:error=EOPNOTSUPP", "renameat2:error=EINVAL"], ["fallocate:error=EOPNOTSUPP"]],
    ids=["no hard links", "no hard links, no exclusive rename", "no preallocation"],
)
def test_the_suite_where_a_call_is_missing(tmp_path: Path, inject: list[str]) -> None:
    injects = [word for one in inject for word in ("-e", f"inject={one}")]
    calls = ",".join(one.partition(":")[0] for one in inject)
    log = tmp_path / "calls"
    command = traced("-o", str(log), "-e", f"trace={calls}", *injects)
    targets = [f"{TARGET}::TestFileInSeveralDirectories", "-k", "writes or discard or winner or taken or cancelled"]
    done = subprocess.run(
        [*command, *SUITE, "--basetemp", tmp_path / "nested", *targets],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert "INJECTED" in log.read_text()


def write_one(tmp_path: Path, *words: str) -> tuple[str, str]:
    """(what the writer said, the calls) of one write into tmp_path/images."""
    log = tmp_path / "calls"
    command = traced("-o", str(log), *words)
    done = subprocess.run(
        [*command, "-c", WRITE_ONE, str(tmp_path / "images")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout, log.read_text()


def test_durable_before_visible_and_before_the_answer(tmp_path: Path) -> None:
    said, calls = write_one(tmp_path, "-y", "-e", "trace=pwritev2,fsync,linkat,unlinkat,write")
    assert said.startswith("file://")
    steps = [
        line
        for line in calls.splitlines()
        if re.search(r"(pwritev2|fsync|linkat|unlinkat)\(.*/images|write\(1<.*file://", line)
    ]
    order = "".join(
        {"pwritev2": "w", "fsync": "d" if "/images>" in line else "f", "linkat": "l", "unlinkat": "u", "write": "!"}[
            re.search(r"(pwritev2|fsync|unlinkat|linkat|write)\(", line)[1]  # type: ignore[index]
        ]
        for line in steps
    )
    assert re.fullmatch(r"w+flud!", order), order


@pytest.mark.parametrize(
    ("inject", "error"),
    [
        ("pwritev2:error=ENOSPC:when=2", "StoreFull"),
        ("pwritev2:error=EDQUOT:when=2", "StoreFull"),
        ("pwritev2:error=EFBIG:when=1", "StoreFull"),
        ("pwritev2:error=EIO:when=2", "StoreUnavailable"),
        ("fsync:error=EIO:when=1", "StoreUnavailable"),
        ("fsync:error=ENOSPC:when=1", "StoreFull"),
        ("fsync:error=EIO:when=2", "StoreUnavailable"),
        ("linkat:error=EACCES", "WriteDenied"),
        ("linkat:error=ENOSPC", "StoreFull"),
    ],
)
def test_nothing_stays_of_a_write_that_fails(tmp_path: Path, inject: str, error: str) -> None:
    call = inject.partition(":")[0]
    said, calls = write_one(tmp_path, "-e", f"trace={call}", "-e", f"inject={inject}")
    assert "INJECTED" in calls
    assert said.startswith(error), said
    assert "/images" not in said
    assert list((tmp_path / "images").iterdir()) == []


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EOPNOTSUPP", "EIO"])
def test_room_that_cannot_be_had_beforehand_is_no_failure(tmp_path: Path, error: str) -> None:
    """The write itself says whether the bytes have room."""
    said, calls = write_one(tmp_path, "-e", "trace=fallocate", "-e", f"inject=fallocate:error={error}")
    assert said.startswith("file://")
    assert calls.count("INJECTED") == 1, "it is not tried again and again"
    assert (tmp_path / "images" / "key").read_bytes() == bytes(2_100_000)


def test_a_short_write_is_continued(tmp_path: Path) -> None:
    said, calls = write_one(tmp_path, "-e", "trace=pwritev2,pwrite64", "-e", "inject=pwritev2:retval=0")
    assert said.startswith("file://")
    assert "INJECTED" in calls
    assert (tmp_path / "images" / "key").read_bytes() == bytes(2_100_000)
