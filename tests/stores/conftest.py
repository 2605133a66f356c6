"""Fixtures of the tests of stores: mounts. What cannot be mounted here raises `Missing`."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.stores import mounts

T = TypeVar("T")


@pytest.fixture
def enter() -> Iterator[Callable[[AbstractContextManager[T]], T]]:
    """Enters a mount of `mounts` until the end of the test."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def hangable(tmp_path: Path) -> Iterator[mounts.Hangable]:
    """A mount at `tmp_path / "images"` that can be made to hang."""
    mount = mounts.Hangable(tmp_path / "behind", tmp_path / "images")
    yield mount
    mount.close()
