"""`tests/run` on a small project of its own: runs that die, that fail once, and what they leave behind."""

import os
import shutil
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

from tests.journal import left
from tests.servers.place import ROOT, Missing, mounts

FOLDERS = (
    "stores",
    "services",
    "deploy",
    "guide",
    "together",
    "faults",
    "api",
    "db",
    "clients",
    "cli",
    "tempest",
    "swap",
    "messaging",
    "others",
)
CONFTEST = """
from tests.servers import place
pytest_plugins = ["tests.journal"]
def pytest_configure(config):
    place.run_directory()
"""


class Project:
    """A folder with `tests/run` and what it needs; each area has one test that passes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for folder in FOLDERS:
            (path / "tests" / folder).mkdir(parents=True)
            self.write(f"{folder}/test_of_{folder}.py", "def test_fine(): pass")
        for name in ("stores/test_cinder.py", "services/test_volumes.py", "services/test_snippets_live.py"):
            self.write(name, "def test_fine(): pass")
        self.write("deploy/test_two_nodes.py", "def test_fine(): pass")
        (path / ".venv-test").symlink_to(ROOT / ".venv-test")
        (path / "tests/servers").mkdir()
        for name in ("run", "journal.py", "servers/place.py", "servers/__main__.py"):
            shutil.copy(ROOT / "tests" / name, path / "tests" / name)
        for name in ("__init__.py", "servers/__init__.py"):
            (path / "tests" / name).write_text("")
        (path / "pytest.ini").write_text("[pytest]\n")
        (path / "tests/conftest.py").write_text(CONFTEST)

    def write(self, name: str, text: str) -> None:
        (self.path / "tests" / name).write_text(textwrap.dedent(text))

    def run(self) -> tuple[int, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("XLOUD", "PYTEST"))}
        done = subprocess.run(
            ["tests/run", "-q"],
            cwd=self.path,
            env={**environment, "PYTHONPATH": str(self.path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


ONCE = """
    import os, pathlib, signal
    mark = pathlib.Path(__file__).with_suffix(".mark")
    def test_before(): pass
    def test_it():
        if not mark.exists():
            mark.touch()
            {0}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def test_a_run_in_which_all_passes(project: Project) -> None:
    code, said = project.run()
    assert code == 0, said
    assert not any(word in said for word in ("DIED", "UNSTEADY", "once more"))


def test_what_fails_once_is_unsteady(project: Project) -> None:
    project.write("stores/test_odd.py", ONCE.format("raise AssertionError"))
    code, said = project.run()
    assert code == 0, said
    assert "UNSTEADY" in said


@pytest.mark.parametrize(
    ("how", "name", "code"), [("os.abort()", "SIGABRT", 1), ("os.kill(os.getpid(), 9)", "SIGKILL", 0)]
)
def test_a_run_that_died_is_told_and_goes_on(project: Project, how: str, name: str, code: int) -> None:
    project.write("stores/test_odd.py", ONCE.format(how))
    project.write("stores/test_rest.py", "def test_rest(): print('the rest was run')\ntest_rest.__doc__ = ''")
    found, said = project.run()
    assert found == code, said
    assert f"DIED: the run of stores, by {name}, in tests/stores/test_odd.py::test_it" in said
    assert ("UNSTEADY" in said) is (code == 0)
    again = said.partition("it goes on from there")[2]
    assert "5 passed" in again, again  # both of test_odd, and the files after it


def test_a_run_that_dies_twice_fails(project: Project) -> None:
    project.write("others/test_odd.py", "import os\ndef test_it(): os.kill(os.getpid(), 9)")
    code, said = project.run()
    assert code == 1
    assert "DIED once more: others, by SIGKILL" in said


def test_servers_of_a_run_that_died_do_not_outlive_it(project: Project) -> None:
    """Neither processes that left its session, nor mounts."""
    if os.geteuid() != 0:
        raise Missing("mounting needs root")
    project.write(
        "stores/test_odd.py",
        ONCE.format("""
            from tests.servers import place
            folder = place.new_directory("server")
            import subprocess
            subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], check=True)
            one = subprocess.Popen(["sleep", "1000"], start_new_session=True)
            pathlib.Path("left").write_text(f"{one.pid} {folder}")
            os.kill(os.getpid(), 9)""").replace("\n            ", "\n" + 12 * " "),
    )
    _, said = project.run()
    pid, folder = (project.path / "left").read_text().split()
    assert f"killed {pid}: sleep 1000" in said
    assert f"unmounted {folder}" in said
    assert _state(int(pid)) in ("", "Z")
    assert mounts(Path(folder).parent) == []


def test_the_next_run_ends_what_an_ended_one_left_and_spares_the_others(project: Project) -> None:
    start = "import subprocess, time\nfrom tests.servers import place\nplace.run_directory()\n"
    start += "one = subprocess.Popen(['sleep', '1000'], start_new_session=True, stdout=subprocess.DEVNULL)\n"
    start += "print(one.pid, flush=True)\ntime.sleep(1000)"
    runs = []
    for _ in range(2):
        words = [project.path / ".venv-test/bin/python", "-c", start]
        runs.append(subprocess.Popen(words, cwd=project.path, stdout=subprocess.PIPE, text=True))
    pids = [int(run.stdout.readline()) for run in runs if run.stdout]
    try:
        runs[0].kill()
        runs[0].wait()
        code, said = project.run()
        assert code == 0, said
        assert f"killed {pids[0]}: sleep 1000" in said
        assert str(pids[1]) not in said
        assert _state(pids[1]) == "S"
    finally:
        for run in runs:
            run.kill()
            run.communicate()
        for pid in pids:
            if _state(pid) == "S":
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_what_a_run_that_died_has_left() -> None:
    text = "file a\nfile b\nfile c\ntest a::one\nfailed a::one\ntest b::one\ntest b::two\n"
    assert left(text) == ("b::two", ["a", "b", "c"])
    assert left(text.replace("failed a::one\n", "")) == ("b::two", ["b", "c"])
    assert left("") == ("", [])
