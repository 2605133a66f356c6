"""What the documents name is there: files, headings, commands, targets of make."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.place import ROOT
from tests.servers.service import command
from xloud_image.stores import TYPES

PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "bench" / "README.md", *(ROOT / "docs").rglob("*.md")]
)
PLACES = ("src/", "tests/", "docs/", "deploy/", "bench/", "requirements/")
# what stands for a name of the reader's, or is made by a run
STANDS_FOR = re.compile(r"NAME|\bTYPE\b|\*|<|…|\bID\b")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


def _code(page: Path) -> Iterator[str]:
    """Whatever a page shows as code."""
    text = page.read_text()
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    yield from re.findall(r"^(?: {4}|\t)(.+)$", text, re.MULTILINE)
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in _anchors(there)):
            wrong.append(target)
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_paths_are_there(page: Path) -> None:
    words = {word.strip(".,:;()") for line in _code(page) for word in line.split()}
    wrong = {
        word
        for word in words
        if word.startswith(PLACES) and not STANDS_FOR.search(word) and not (ROOT / word.partition("::")[0]).exists()
    }
    assert not wrong


def test_each_page_is_reached_from_the_readme() -> None:
    found, open_pages = set(), [ROOT / "README.md"]
    while open_pages:
        page = open_pages.pop()
        if page in found or page.suffix != ".md" or not page.exists():
            continue
        found.add(page)
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
        open_pages += [(page.parent / target).resolve() for target in links if "://" not in target]
    assert not [_name(page) for page in PAGES if page not in found]


@pytest.mark.parametrize("name", TYPES)
def test_each_type_of_store_has_its_sections(name: str) -> None:
    pages = ROOT / "docs"
    assert name in _anchors(pages / "stores.md")
    assert f"| [{name}](#{name}) |" in (pages / "stores.md").read_text()
    assert f"<!-- options: {name} -->" in (pages / "operating" / "image-storage-backends.md").read_text()


def test_targets_of_make_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    known = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    asked = {
        word
        for page in PAGES
        for line in _code(page)
        for word in re.findall(r"(?:^|[;&|] *)make ([a-z-]+)", line.strip())
    }
    assert len(asked) > 5
    assert not asked - known


def test_commands_are_there() -> None:
    """Each `xloud-image WORD WORD` of a page is a command, with the options that stand there."""
    asked: dict[tuple[str, ...], set[str]] = {}
    for page in PAGES:
        for line in _code(page):
            for match in re.finditer(r"xloud-image((?: [a-z][a-z-]+){1,2})((?:[ =][^|;&#`]*)?)", line):
                words = tuple(match[1].split())
                asked.setdefault(words, set()).update(re.findall(r"(?<=[ \[])--[a-z][a-z-]+", match[2]))
    assert len(asked) > 5
    helps: dict[tuple[str, ...], str] = {}
    for words, options in asked.items():
        for end in (2, 1):
            done = subprocess.run(
                [*command(), *words[:end], "--help"], capture_output=True, text=True, timeout=60, check=False
            )
            group = len(words) > end and "COMMAND" in done.stdout
            if done.returncode == 0 and not group:
                helps[words] = re.sub(r"\s+", " ", done.stdout)
                break
        else:
            raise AssertionError(f"no command: {' '.join(words)}")
        wrong = {option for option in options if option not in helps[words]}
        assert not wrong, f"{' '.join(words)} has no {wrong}"
