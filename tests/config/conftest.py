"""Configurations written for one test and read by the real loader."""

import itertools
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from xloud_image.config import loader

Read = Callable[..., loader.Loaded]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """`read(text, more text, …)`: each text is a file, later ones win. `open_door` adds a login of `none`."""
    numbers = itertools.count()

    def _read(*texts: str, open_door: bool = True) -> loader.Loaded:
        files = []
        for text in ("[xloud]\nauth = none\n",) * open_door + texts:
            file = tmp_path / f"{next(numbers)}.conf"
            file.write_text(textwrap.dedent(text))
            files.append(file)
        return loader.load(files, env={})

    return _read


def told(loaded: loader.Loaded, option: str, level: str | None = None) -> list[str]:
    """The texts of the notes about "[section] name"."""
    return [note.sentence for note in loaded.findings if note.about == option and level in (None, note.severity)]
