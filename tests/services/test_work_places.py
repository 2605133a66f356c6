"""Directories for work under way: that of a process which runs is kept, and what others left goes."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from xloud_image.services import converting


def prepare(root: Path) -> None:
    settings = SimpleNamespace(imports=SimpleNamespace(work_dir=str(root)))
    converting.prepare(cast(Any, SimpleNamespace(settings=settings)))


@pytest.mark.parametrize("beginning", [1, 3])
def test_a_place_is_kept_while_other_processes_begin(tmp_path: Path, beginning: int) -> None:
    """Each of them looks for what was left, also in the moment in which the place is made."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def begin() -> None:
        try:
            while not stop.is_set():
                prepare(tmp_path)
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    others = [threading.Thread(target=begin) for _ in range(beginning)]
    for other in others:
        other.start()
    try:
        made = [converting._place.__wrapped__(str(tmp_path)) for _ in range(100)]
    finally:
        stop.set()
        for other in others:
            other.join()
    assert not failed
    assert all(path.exists() for path in made)
    assert {path.stat().st_mode & 0o777 for path in made} == {0o711}
    assert set(tmp_path.iterdir()) == set(made)


def test_what_a_dead_process_left_goes(tmp_path: Path) -> None:
    left = tmp_path / "xloud-work-left"
    (left / "conversion-1").mkdir(parents=True)
    (left / "conversion-1" / "out").write_bytes(b"half")
    other = tmp_path / "of somebody else"
    other.mkdir()
    mine = converting._place.__wrapped__(str(tmp_path))
    (mine / "file").write_bytes(b"data")
    prepare(tmp_path)
    assert set(tmp_path.iterdir()) == {other, mine}
    assert os.listdir(mine) == ["file"]
