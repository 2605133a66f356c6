"""Our own operators' guide as data: its sections and their fenced blocks. Nothing is run here.

A yaml or ini block is a file: the line before it names the path. Below /etc/xavs, what an operator writes, whole; below
/etc/glance, lines that the service reads afterwards. A bash block is typed. A text block is what the bash block before
it prints, `…` standing for anything. `<!-- not run: REASON -->` before a fence keeps a block from being run.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

from tests.servers.place import ROOT

GUIDE: Final = ROOT / "docs" / "operating" / "image-storage-backends.md"
LANGUAGES: Final = ("bash", "yaml", "ini", "text")
_FENCE: Final = re.compile(r"```(\w*)(.*)")
_PATH: Final = re.compile(r"`(/[^`\s]+)`")
_NOT_RUN: Final = re.compile(r"<!-- not run: (.+) -->")


class Block(NamedTuple):
    """One fenced block. `line`: of its fence. `path`: of the file that it is. `not_run`: why not, or empty."""

    line: int
    language: str
    text: str
    path: str
    not_run: str


def sections(guide: Path = GUIDE) -> dict[str, list[Block]]:
    """The blocks below each heading of the second level, in the order of the guide."""
    found: dict[str, list[Block]] = {}
    heading, before = "", [""]
    lines = iter(enumerate(guide.read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        if line.startswith("## "):
            heading = line.removeprefix("## ")
            found[heading] = []
        elif fence := _FENCE.fullmatch(line):
            text = []
            for _, inside in lines:
                if inside == "```":
                    break
                text.append(inside)
            why = _NOT_RUN.fullmatch(before[-1])
            told = before[-2] if why and len(before) > 1 else before[-1]
            paths = _PATH.findall(told)
            language = fence[1] + fence[2]
            path = paths[-1] if paths and language in ("yaml", "ini") else ""
            found.setdefault(heading, []).append(
                Block(number, language, "\n".join(text) + "\n", path, why[1] if why else "")
            )
        if line.strip():
            before.append(line)
    return found
