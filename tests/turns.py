"""Whether an event loop stood still: what the services and this process wrote about their turns (xloud_image.turns)."""

import json
import os
from pathlib import Path
from typing import Any

from xloud_image.turns import LIMIT, Watch

_read: dict[Path, int] = {}
_worst: dict[str, Any] = {"seconds": 0.0}
_directory: list[Path] = []


def begin(run: Path) -> None:
    """For this process and all that it starts."""
    directory = run / "turns"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o777)
    _directory.append(directory)
    os.environ["XLOUD_IMAGE_TURNS"] = str(directory)
    # the tests' own work in a loop is nobody's concern
    Watch(directory / "tests", ours_only=True).begin()


def new(*, meant: bool = False) -> list[str]:
    """The turns beyond the limit that were told since the last call, as text. `meant`: a test took them on purpose."""
    found = []
    for file in sorted(_directory[0].iterdir()):
        data = file.read_bytes()
        for line in data[_read.get(file, 0) :].splitlines():
            turn = json.loads(line)
            if turn["seconds"] > _worst["seconds"] and not meant:
                _worst.update(turn)
            if turn["seconds"] > LIMIT:
                found.append(_text(turn))
        _read[file] = len(data)
    return found


def worst() -> str | None:
    """A line about the longest turn of all."""
    new()
    if not _worst["seconds"]:
        return None
    return f"the longest turn of an event loop: {_text(_worst)}"


def _text(turn: dict[str, Any]) -> str:
    calls = [call for call in turn["calls"] if "/xloud_image/" in call and "/turns.py" not in call]
    where = " ← ".join(call.rpartition("/xloud_image/")[2] for call in calls[:3]) or turn["turn"]
    return f"{turn['seconds']:.3f} s of processor time in {where}"
