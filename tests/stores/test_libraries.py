"""Client libraries of single stores are optional: without one, everything else works, and a configuration that asks for
its store hears in one sentence what to install, before the port opens. Each case is a process that cannot import it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.servers.place import free_port
from tests.servers.service import command
from xloud_image.stores import TYPES

# type → (modules that are missing, the words that say what to install, options)
NEEDS = {
    "rbd": (("rbd", "rados"), "python3-rbd", ""),
    "vmware": (
        ("pyVmomi",),
        "pyvmomi",
        "vmware_server_host = h\nvmware_server_username = u\nvmware_server_password = p\nvmware_datastores = dc:ds:1\n",
    ),
    "cinder": (("os_brick",), "os-brick", "cinder_endpoint_template = http://h/v3/%(project_id)s\n"),
}
# these speak their protocol themselves, with what the service has anyway
NEED_NOTHING = {
    "file": "",
    "http": "",
    "s3": "s3_store_host = h\ns3_store_access_key = a\ns3_store_secret_key = s\ns3_store_bucket = b\n",
    "swift": "swift_store_auth_address = http://h/v3\nswift_store_user = p:u\nswift_store_key = k\n",
}
MISSING = tuple(name for modules, _, _ in NEEDS.values() for name in modules)

# imported by an interpreter before the command: it is without some modules
BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None

sys.meta_path.insert(0, Blocker())
"""


def run(words: list[str], directory: Path, missing: tuple[str, ...] = MISSING) -> subprocess.CompletedProcess[str]:
    (directory / "sitecustomize.py").write_text(BLOCKED.format(missing=missing))
    return subprocess.run(
        [*command(), *words],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def configure(directory: Path, kind: str, options: str, port: int = 9292) -> Path:
    file = directory / "glance-api.conf"
    file.write_text(
        f"[DEFAULT]\nbind_port = {port}\nenabled_backends = mine:{kind}\n[glance_store]\ndefault_backend = mine\n"
        f"[mine]\n{options}[xloud]\nauth = none\n[database]\nconnection = sqlite:///{directory}/x.sqlite\n"
    )
    return file


def test_every_type_is_here() -> None:
    assert {*NEEDS, *NEED_NOTHING} == set(TYPES)


@pytest.mark.parametrize("kind", NEEDS)
@pytest.mark.parametrize("words", [["config", "check"], ["serve"], ["stores", "check"]], ids=" ".join)
def test_a_missing_library_is_one_sentence(tmp_path: Path, kind: str, words: list[str]) -> None:
    _, install, options = NEEDS[kind]
    done = run([*words, "--config-file", str(configure(tmp_path, kind, options, free_port()))], tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    said = done.stdout if words == ["config", "check"] else done.stderr
    (line,) = (line for line in said.splitlines() if "missing here" in line and "level=error" not in line)
    assert line.partition("store mine")[1], line
    assert install in line
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("kind", NEED_NOTHING)
def test_the_others_need_none_of_them(tmp_path: Path, kind: str) -> None:
    done = run(["config", "check", "--config-file", str(configure(tmp_path, kind, NEED_NOTHING[kind]))], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", NEEDS)
def test_with_the_library_the_same_file_is_fine(tmp_path: Path, kind: str) -> None:
    done = run(["config", "check", "--config-file", str(configure(tmp_path, kind, NEEDS[kind][2]))], tmp_path, ())
    assert done.returncode == 0, done.stdout + done.stderr
