"""What is shipped beside the playbook: unit files and the balancer's configuration, judged by their own programs.

No systemd runs in the tests: units are verified offline, and said to be.
"""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.servers.place import ROOT, program

DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "xloud-image.service"


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, timeout=60, env={"PATH": "/usr/bin"}
    )


def test_the_unit_is_well_formed(tmp_path: Path) -> None:
    """With the service's program where the unit looks for it, there is nothing to complain about."""
    verify = program("systemd-analyze", "systemd")
    there = tmp_path / "xloud-image"
    there.write_text("#!/bin/sh\n")
    there.chmod(0o755)
    unit = tmp_path / "xloud-image.service"
    unit.write_text(UNIT.read_text().replace("/opt/xloud-image/bin/xloud-image", str(there)))
    done = run(verify, "verify", "--man=no", unit)
    complaints = [line for line in done.stderr.splitlines() if "xloud-image" in line]
    assert not complaints


def test_the_unit_is_hardened() -> None:
    done = run(program("systemd-analyze", "systemd"), "security", "--offline=true", "--no-pager", UNIT)
    found = re.search(r"exposure level for xloud-image.service: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= 1.5


def test_the_unit_waits_for_the_drain() -> None:
    text = UNIT.read_text()
    assert "ExecReload=/bin/kill -HUP $MAINPID" in text
    found = re.search(r"TimeoutStopSec=(\d+)", text)
    assert found
    assert int(found[1]) > 60, "[xloud] graceful_timeout"


def test_the_balancer_understands_its_file(tmp_path: Path) -> None:
    base = tmp_path / "base.cfg"
    base.write_text(
        "global\n  log stdout format raw local0\n"
        "defaults\n  log global\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n"
    )
    done = run(program("haproxy", "haproxy"), "-c", "-f", base, "-f", DEPLOY / "haproxy" / "glance.cfg")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.yml")), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_only_builtin_and_our_own_modules(path: Path) -> None:
    ours = {file.stem for file in (DEPLOY / "roles" / "glance" / "library").glob("*.py")}
    words = {"name", "when", "register", "loop", "vars", "tags", "delegate_to", "run_once", "no_log", "failed_when",
             "changed_when", "check_mode", "become", "throttle", "diff", "hosts", "gather_facts", "gather_subset",
             "any_errors_fatal", "serial", "tasks"}  # fmt: skip
    for task in yaml.safe_load(path.read_text()):
        if not isinstance(task, dict):
            continue
        for part in (task, *task.get("tasks", ())):
            modules = set(part) - words
            assert all(name in ours or name.startswith("ansible.builtin.") for name in modules), modules
