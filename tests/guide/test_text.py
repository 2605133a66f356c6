"""What a reader stumbles over without any server: links that lead nowhere, tables that are older than the options."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guide.blocks import GUIDE
from tests.servers.place import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """The headings of a page as others link to them."""
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if ":" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_the_tables_of_keys_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs" / "tables.py", "--check"], check=False)
    assert done.returncode == 0, "type: make docs"


def test_older_guides_are_answered() -> None:
    """What operators bring from elsewhere is said where it comes up."""
    text = " ".join(GUIDE.read_text().split())
    for old in ("--location", "/dev/zero", "42424", "enabled_backends", "= vsphere", "leave out", "= http"):
        assert old in text, old
