"""The conformance suite catches every planted fault of `faults`, and passes the store without one."""

import collections
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from tests.servers.place import ROOT
from tests.stores import faults

PLANTED = {name: kind.CAUGHT_BY for name, kind in vars(faults).items() if getattr(kind, "CAUGHT_BY", "")}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Outcomes ("failed", "passed") by class: of faulty ones of the test that has to catch the fault."""
    place = tmp_path_factory.mktemp("bites")
    nodes = [f"tests/stores/faults.py::{name}::{test}" for name, test in PLANTED.items()]
    # pictures of that many failures nobody looks at; with CI=true they would show every byte, for minutes
    options = [
        "-q",
        "--tb=no",
        "--assert=plain",
        "--noconftest",
        "-p",
        "no:cacheprovider",
        "--basetemp",
        place / "t",
        "--junitxml",
        place / "x",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *nodes, "tests/stores/faults.py::TestNoFault"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    found = collections.defaultdict(set)
    for case in ET.parse(place / "x").iter("testcase"):
        bad = case.find("failure") is not None or case.find("error") is not None
        found[case.attrib["classname"].rpartition(".")[2]].add("failed" if bad else "passed")
    return found


@pytest.mark.parametrize("name", PLANTED)
def test_the_fault_is_caught(outcomes: dict[str, set[str]], name: str) -> None:
    assert "failed" in outcomes[name]


def test_without_a_fault_all_pass(outcomes: dict[str, set[str]]) -> None:
    assert outcomes["TestNoFault"] == {"passed"}
