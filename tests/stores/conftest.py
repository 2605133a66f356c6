"""Fixtures of the tests of stores: mounts."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.conftest import _not_there
from tests.servers import Missing
from tests.stores import mounts

T = TypeVar("T")


@pytest.fixture
def enter(pytestconfig: pytest.Config) -> Iterator[Callable[[AbstractContextManager[T]], T]]:
    """Enters a mount of `mounts` until the end of the test; one that cannot be had skips, or fails in the CI."""
    with contextlib.ExitStack() as stack:

        def enter_one(mount: AbstractContextManager[T]) -> T:
            try:
                return stack.enter_context(mount)
            except Missing as error:
                _not_there(pytestconfig, error)
                raise

        yield enter_one


@pytest.fixture
def hangable(pytestconfig: pytest.Config, tmp_path: Path) -> Iterator[mounts.Hangable]:
    """A mount at `tmp_path / "images"` that can be made to hang."""
    try:
        mount = mounts.Hangable(tmp_path / "behind", tmp_path / "images")
    except Missing as error:
        _not_there(pytestconfig, error)
        raise
    yield mount
    mount.close()
