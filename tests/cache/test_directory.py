"""The directory of a cache alone: its limit, its order, its locks, and what it does not touch."""

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cache.conftest import MIB
from tests.stores import mounts
from xloud_image.cache import directory, growing, locks
from xloud_image.cache.directory import Directory
from xloud_image.cache.draft import Found, Key
from xloud_image.errors import BlobChanged

LIMIT = 10 * MIB


@pytest.fixture
def where(tmp_path: Path) -> Directory:
    return Directory(str(tmp_path / "cache"), LIMIT, 100)


def key(size: int = MIB) -> Key:
    return Key(str(uuid.uuid4()), size, uuid.uuid4().hex)


def begin(where: Directory, wanted: Key) -> Found:
    found = where.enter(wanted, begin=True)
    assert found is not None
    assert found.draft is not None
    return found


def put(where: Directory, wanted: Key) -> None:
    found = begin(where, wanted)
    assert found.draft is not None
    found.draft.write([b"x" * wanted.size])
    assert found.draft.publish()
    found.close()


def names(where: Directory, below: str = "") -> set[str]:
    return {path.name for path in Path(where.path, below).iterdir() if path.is_file() and path.name[0] != "."}


@contextlib.contextmanager
def reading(where: Directory, wanted: Key) -> Iterator[None]:
    opened = where.find(wanted)
    assert opened is not None
    try:
        yield
    finally:
        opened.close()


def test_room_is_promised_before_a_byte_comes(where: Directory) -> None:
    first, second = begin(where, key(6 * MIB)), key(6 * MIB)
    assert where.enter(second, begin=True) is None
    first.close()
    begin(where, second).close()
    assert where.enter(key(LIMIT), begin=True) is None  # with its block for the hits it is more
    assert where.usage()[1] == 0


def test_nothing_goes_when_it_would_not_do(where: Directory) -> None:
    small, held = key(MIB), key(5 * MIB)
    put(where, small)
    put(where, held)
    with reading(where, held):
        assert where.enter(key(7 * MIB), begin=True) is None
        assert names(where) == {small.name, held.name}
    begin(where, key(7 * MIB)).close()
    assert names(where) == set()


def test_one_fills_and_the_others_follow(where: Directory) -> None:
    wanted = key()
    first = begin(where, wanted)
    second = where.enter(wanted, begin=True)
    assert second is not None
    assert second.growing
    assert second.draft is None
    other = Key(wanted.image_id, wanted.size, uuid.uuid4().hex)  # other data of the same image
    third = begin(where, other)
    for found in (first, second, third):
        found.close()
    assert names(where, "incomplete") == set()


def test_what_a_dead_process_left_is_filled_anew(where: Directory) -> None:
    wanted = key()
    first = begin(where, wanted)
    follower = where.enter(wanted, begin=False)
    assert follower is not None
    assert first.draft is not None
    os.close(first.draft._fd)  # as the kernel does
    first.draft._fd = -1
    assert names(where, "incomplete")
    assert where.enter(wanted, begin=False) is None
    assert names(where, "incomplete") == set()
    assert where.usage()[1] > MIB  # somebody reads it still
    begin(where, wanted).close()
    follower.close()
    first.close()
    where.clean()
    assert where.usage()[1] == 0


def test_what_is_removed_while_it_is_read_still_counts(where: Directory) -> None:
    wanted = key(6 * MIB)
    put(where, wanted)
    with reading(where, wanted):
        assert where.remove(wanted.image_id)
        assert where.find(wanted) is None
        assert where.entries() == []
        assert where.enter(key(6 * MIB), begin=True) is None
    begin(where, key(6 * MIB)).close()
    assert names(where, "removed") == set()
    assert not where.remove(wanted.image_id)


def test_a_removed_file_is_not_published(where: Directory) -> None:
    wanted = key()
    found = begin(where, wanted)
    assert found.draft is not None
    found.draft.write([b"x" * MIB])
    assert found.draft.is_wanted(readers=True)
    assert where.remove(wanted.image_id)
    assert not found.draft.is_wanted(readers=False)
    assert not found.draft.publish()
    found.close()
    where.clean()
    assert where.usage() == (0, 0)


def test_a_file_that_stands_still_is_given_up(where: Directory) -> None:
    found = begin(where, key())
    where.clean()
    assert names(where, "incomplete")
    where.stall = -1
    where.clean()
    assert not names(where, "incomplete")
    assert where.usage()[1] > 0  # it is open
    found.close()
    where.clean()
    assert where.usage()[1] == 0


def test_pruning_to_a_lower_limit(where: Directory) -> None:
    keys = [key(2 * MIB) for _ in range(4)]
    for one in keys:
        put(where, one)
    for one in reversed(keys):
        where.find(one).close()  # type: ignore[union-attr]
    where.limit = 5 * MIB
    assert where.prune() == (2, 4 * MIB)
    assert names(where) == {keys[0].name, keys[1].name}


def test_hits_and_times(where: Directory) -> None:
    wanted = key()
    put(where, wanted)
    for _ in range(3):
        where.find(wanted).close()  # type: ignore[union-attr]
    where.find(wanted, read=False).close()  # type: ignore[union-attr]
    (entry,) = where.entries()
    assert entry.hits == 3
    assert entry.last_accessed >= entry.last_modified
    where.remove(wanted.image_id)
    assert names(where, "hits") == set()


def test_other_files_are_not_touched(where: Directory) -> None:
    put(where, key())
    for name in ("notes.txt", str(uuid.uuid4()), f"{uuid.uuid4()}-1234abcd", "incomplete/x", "queue/y", "removed/z"):
        Path(where.path, name).write_text("mine")
    where.clean()
    where.clear()
    where.limit = 0
    where.prune()
    assert len(names(where)) == 3
    assert names(where, "incomplete") | names(where, "queue") | names(where, "removed") == {"x", "y", "z"}
    assert where.queued() == []


def test_what_glance_left_goes(where: Directory) -> None:
    kept, other = key(), str(uuid.uuid4())
    put(where, kept)
    Path(where.path, "invalid").mkdir()
    for name in (other, "cache.db", f"incomplete/{other}", f"invalid/{other}", "notes"):
        Path(where.path, name).write_text("x")
    where.clean()
    assert names(where) == {kept.name, "notes"}
    assert names(where, "incomplete") == set()
    assert not Path(where.path, "invalid").exists()


def test_ids_lead_nowhere_else(where: Directory) -> None:
    put(where, key())
    beside = Path(where.path).parent / "beside"
    beside.write_text("x")
    for name in ("../../beside", "..", "", "/etc/hostname"):
        assert not where.unqueue(name)
        assert not where.remove(name)
    assert beside.exists()


def test_who_keeps_the_lock_holds_up_nobody_for_long(where: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = key()
    put(where, wanted)
    monkeypatch.setattr(directory, "_PATIENCE", 0.05)
    fd = os.open(f"{where.path}/.lock", os.O_RDWR)
    try:
        assert locks.take(fd, locks.FILLING)
        with pytest.raises(OSError, match="locked"):
            where.enter(key(), begin=True)
        with reading(where, wanted):
            pass  # reads need no lock
    finally:
        os.close(fd)
    begin(where, key()).close()


def test_there_is_one_keeper(where: Directory) -> None:
    fd = where.keeper()
    assert fd is not None
    assert where.keeper() is None
    assert where.is_keeper(fd)
    os.unlink(f"{where.path}/.keeper")
    assert not where.is_keeper(fd)
    os.close(fd)


def test_a_disk_that_is_smaller_than_the_limit(tmp_path: Path) -> None:
    with mounts.tmpfs(tmp_path / "disk", "4m") as disk:
        where = Directory(str(disk), LIMIT, 100)
        old = key(2 * MIB)
        put(where, old)
        assert where.enter(key(5 * MIB), begin=True) is None
        assert names(where) == {old.name}
        found = begin(where, key(3 * MIB))
        assert names(where) == set()
        assert where.enter(key(2 * MIB), begin=True) is None  # that room is promised
        found.close()


# reading what grows


async def test_bytes_that_come(where: Directory) -> None:
    wanted = key(100)
    found = begin(where, wanted)
    assert found.draft is not None
    waiting = asyncio.create_task(growing.there(found.opened.fd, 0, 100))
    await asyncio.sleep(0)
    found.draft.write([b"x" * 40])
    assert await waiting == 40
    assert await growing.there(found.opened.fd, 30, 100) == 10
    found.draft.write([b"x" * 60])
    assert found.draft.publish()
    assert await growing.there(found.opened.fd, 40, 100) == 60
    found.close()


ENDS: dict[str, Callable[[Found], object]] = {
    "given up": lambda found: found.draft and found.draft.drop(),
    "wrong": lambda found: found.draft and found.draft.spoil(),
    "stands still": lambda found: None,
}


@pytest.mark.parametrize("how", ENDS)
async def test_bytes_that_do_not_come(where: Directory, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "PATIENCE", 0.05)
    found = begin(where, key(100))
    assert found.draft is not None
    found.draft.write([b"x" * 40])
    waiting = asyncio.create_task(growing.there(found.opened.fd, 40, 100))
    await asyncio.sleep(0)
    ENDS[how](found)
    if how == "wrong":
        with pytest.raises(BlobChanged):
            await waiting
    else:
        assert await waiting == 0
    found.close()


def test_times_are_of_whole_seconds(where: Directory) -> None:
    wanted = key()
    put(where, wanted)
    path = Path(where.path, wanted.name)
    assert path.stat().st_mtime_ns % 10**9 == 0
    assert abs(path.stat().st_mtime - time.time()) < 100
    path.touch()
    assert where.find(wanted) is None
    assert names(where) == set()
