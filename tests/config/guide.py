"""The operators' guide to backends as data: its fenced blocks, as they stand. Nothing is said about their meaning."""

import configparser
import re
from pathlib import Path
from typing import NamedTuple

_FENCE = re.compile(r'^( *)```(\w+) title="([^"]+)"[^\n]*\n(.*?)^ *```', re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block: its language, its title, its text without the indentation of the fence."""

    language: str
    title: str
    text: str


def blocks() -> list[Block]:
    """All of them, in the order of the guide."""
    guide = (Path(__file__).parents[1] / "data" / "image-storage-backends.md").read_text()
    return [
        Block(language, title, "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True)))
        for indent, language, title, body in _FENCE.findall(guide)
    ]


# the snippets of glance-api.conf, by what their title says after the dash
SNIPPETS = {block.title.rpartition(" — ")[2]: block.text for block in blocks() if block.language == "ini"}


def options(title: str) -> dict[str, str]:
    """The options of one snippet, all of [glance_store], as text."""
    parser = configparser.RawConfigParser()
    parser.read_string(SNIPPETS[title])
    assert parser.sections() == ["glance_store"]
    return dict(parser["glance_store"])
