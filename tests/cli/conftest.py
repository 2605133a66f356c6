"""Fixtures of the tests of the command line."""

from pathlib import Path

import pytest

from tests.cli.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty directory."""
    return Home(tmp_path)
