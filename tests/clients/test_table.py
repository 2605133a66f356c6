"""The table of docs/clients.md: its releases are those of the lock files, its tests are there."""

import re
from typing import NamedTuple

from tests.servers.place import ROOT

# by client as the table calls it: the package, and the lock files that may pin it
LOCKS = {
    "openstacksdk": ("openstacksdk", ("test",)),
    "python-openstackclient": ("python-openstackclient", ("client",)),
    "python-glanceclient": ("python-glanceclient", ("client", "client-2022")),
    "Cinder": ("cinder", ("cinder",)),
    "Horizon": ("horizon", ("horizon",)),
    "Tempest": ("tempest", ("tempest",)),
}


class Row(NamedTuple):
    client: str
    release: str
    did: str
    test: str


def rows() -> list[Row]:
    lines = (ROOT / "docs" / "clients.md").read_text().splitlines()
    table = [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines if line.startswith("| ")]
    assert table[0] == ("Client", "Release", "What it did", "Test")
    return table[1:]


def pinned(package: str, locks: tuple[str, ...]) -> set[str]:
    found = set()
    for lock in locks:
        text = (ROOT / "requirements" / f"{lock}.txt").read_text()
        found |= set(re.findall(rf"^{re.escape(package)}==([0-9.]+)", text, re.MULTILINE))
    assert len(found) == len(locks)
    return found


def test_the_releases_are_those_that_run() -> None:
    told: dict[str, set[str]] = {}
    for row in rows():
        if row.release.startswith("replayed"):
            by, _, releases = row.release.partition(", by ")[2].partition(" ")
            if by:
                assert set(re.findall(r"[0-9.]+", releases)) <= pinned(*LOCKS[by]), row
        else:
            told.setdefault(row.client, set()).add(row.release)
    assert told == {client: pinned(*lock) for client, lock in LOCKS.items()}


def test_the_tests_are_there() -> None:
    assert [row.test for row in rows() if not (ROOT / row.test).exists()] == []
    assert all(row.did for row in rows())
