"""The command as people and scripts use it: exit codes, sentences, files. Each test starts the real command."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Sequence

import pytest

from tests.cli.home import DOOR, STORE, Home, sentence
from tests.servers.client import command as client_command
from tests.servers.place import free_port, program
from tests.servers.process import Process, answers
from tests.servers.service import installed

# help and usage

WORDS = (
    (),
    ("serve",),
    ("config",),
    ("config", "check"),
    ("config", "render"),
    ("keystone",),
    ("keystone", "check"),
    ("keystone", "register"),
    ("db",),
    ("db", "create"),
    ("db", "upgrade"),
    ("db", "version"),
    ("db", "check"),
    ("metadefs",),
    ("metadefs", "load"),
    ("stores",),
    ("stores", "list"),
    ("stores", "check"),
    ("stores", "ls"),
    ("stores", "scrub"),
    ("images", "create"),
    ("images", "export"),
    ("tasks",),
)


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_help(home: Home, words: Sequence[str]) -> None:
    done = home.run(*words, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "Usage: xloud-image" in done.stdout
    assert home.left() == []


@pytest.mark.parametrize(("words", "example"), [
    ((), "xloud-image config check --config-file /etc/glance/glance-api.conf"),
    (("serve",), "XLOUD_IMAGE_STATE=/srv/images PORT=9393 xloud-image serve"),
    (("config", "check"), "Exit code 1 when the service would not do what the files say"),
    (("db", "upgrade"), "xloud-image db upgrade --config-file /etc/glance/glance-api.conf"),
    (("stores", "check"), "xloud-image stores check --deep"),
])  # fmt: skip
def test_help_teaches(home: Home, words: Sequence[str], example: str) -> None:
    assert example in home.run(*words, "--help").stdout


def test_help_answers_at_once(home: Home) -> None:
    """Nothing heavy is imported for it: no library of the service."""
    done = home.run("--help", anew=True, env={"PYTHONPROFILEIMPORTTIME": "1"})
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert {"typer", "xloud_image.cli"} <= imported
    assert not imported & {
        "aiohttp",
        "alembic",
        "ansible",
        "gunicorn",
        "oslo_config",
        "oslo_policy",
        "sqlalchemy",
        "yaml",
    }


def test_the_version(home: Home) -> None:
    done = home.run("--version")
    assert re.fullmatch(r"xloud-image \d+\.\d+\.\d+\n", done.stdout)
    assert done.returncode == 0


@pytest.mark.parametrize(
    "words", [("swim",), ("config", "swim"), ("config", "check", "--swim"), ("stores", "check", "--timeout", "never")]
)
def test_wrong_usage(home: Home, words: Sequence[str]) -> None:
    assert sentence(home.run(*words), 2)


# config check


def test_config_check(home: Home) -> None:
    home.configure()
    done = home.with_file("config", "check")
    assert done.returncode == 0
    assert done.stderr == ""
    assert f"# read: {home.file}" in done.stdout
    store = done.stdout.partition("[files]\n")[2].partition("\n\n")[0].splitlines()
    assert {"store_description = The first", "# weight = 0"} < {*store}
    assert f"filesystem_store_datadir = {home.path}/images" in store
    assert "To be looked at:" in done.stdout
    assert "guess: [DEFAULT] bind_host: is not set" in done.stdout


def test_config_check_refuses(home: Home) -> None:
    home.configure(STORE + DOOR + "[keystone_authtoken]\nenforce_token_bind = required\n[DEFAULT]\nbind_hots = 1\n")
    done = home.with_file("config", "check")
    assert done.returncode == 1
    line = home.file.read_text().splitlines().index("enforce_token_bind = required") + 1
    refused = f"unsafe: {home.file}:{line}: [keystone_authtoken] enforce_token_bind: binding of tokens"
    assert f"# The service would not do what the configuration says:\n#   {refused}" in done.stdout
    assert f":{line + 2}: [DEFAULT] bind_hots: unknown, not read; is 'bind_host' meant?" in done.stdout


def test_config_check_for_machines(home: Home) -> None:
    home.configure(STORE + DOOR + "[database]\nconnection = mysql+pymysql://u:hunter2@h/d\n")
    done = home.with_file("config", "check", "--json")
    shown = json.loads(done.stdout)
    assert shown["ok"] is True
    assert shown["files"] == [str(home.file)]
    assert shown["configuration"]["database"]["connection"] == "mysql+pymysql://u:***@h/d"
    assert {"severity", "class", "about", "sentence", "file", "line"} == set(shown["findings"][0])
    assert "hunter2" not in done.stdout


def test_config_check_of_the_embedded_default(home: Home) -> None:
    done = home.run("config", "check", env={"XLOUD_IMAGE_STATE": str(home.path / "s")})
    assert done.returncode == 0
    assert "# read: no file: the embedded default" in done.stdout
    assert home.left() == []


def test_nothing_is_written_into_the_home_folder(home: Home) -> None:
    """A library would keep a list of plugins there."""
    login = "[paste_deploy]\nflavor = keystone\n[keystone_authtoken]\nauth_url = http://127.0.0.1:1\n"
    home.configure(STORE + login + "username = glance\npassword = x\nproject_name = service\n")
    house = home.path / "house"
    house.mkdir()
    done = home.with_file("config", "check", env={"HOME": str(house), "XDG_CACHE_HOME": None})
    assert done.returncode == 0, done.stdout
    assert list(house.iterdir()) == []


def test_config_check_reads_policy_users_and_directories(home: Home) -> None:
    """What the other rooms would refuse at the start is told here too."""
    (home.path / "rules.yaml").write_text('"get_images": "http://h/%(id)s"\n')
    home.configure(
        STORE
        + DOOR
        + "[oslo_policy]\npolicy_file = rules.yaml\n"
        + "[files]\nfilesystem_store_datadir=\nfilesystem_store_datadirs = /a:x\n"
    )
    shown = json.loads(home.with_file("config", "check", "--json").stdout)
    refusals = [one["sentence"] for one in shown["findings"] if one["severity"] == "error"]
    assert len(refusals) == 2
    assert any("rules.yaml" in text and "get_images" in text for text in refusals)
    assert any("filesystem_store_datadirs" in text for text in refusals)


BAD = [
    ("[DEFAULT\n", ".conf:1: Invalid section"),
    ("bind_port = 1\n", "before the first"),
    ("[DEFAULT]\nbind_port\n", ".conf:2: "),
]


@pytest.mark.parametrize(("text", "reason"), BAD)
@pytest.mark.parametrize(
    "words", [("config", "check"), ("serve",), ("db", "upgrade"), ("stores", "check")], ids=" ".join
)
def test_a_broken_file_is_one_sentence(home: Home, words: Sequence[str], text: str, reason: str) -> None:
    home.file.write_text(text)
    complaint = sentence(home.with_file(*words))
    assert complaint.startswith(f"xloud-image: {home.file}")
    assert reason in complaint
    assert "\n" not in complaint


def test_a_missing_file_is_one_sentence(home: Home) -> None:
    assert sentence(home.with_file("config", "check")).endswith("does not exist or is not a file")


def test_files_of_the_directory_in_the_environment(home: Home) -> None:
    (home.path / "etc").mkdir()
    (home.path / "etc" / "glance-api.conf").write_text(DOOR + "[DEFAULT]\nbind_port = 9377\n")
    done = home.run("config", "check", env={"OS_GLANCE_CONFIG_DIR": "etc"})
    assert "\nbind_port = 9377\n" in done.stdout


# serve: what keeps the port shut

HOUSE = STORE + DOOR
SHUT = {
    "unsafe": (HOUSE + "[DEFAULT]\nmetadata_encryption_key = hunter2\n", "[DEFAULT] metadata_encryption_key"),
    "nobody said who is let in": (STORE, "set flavor = keystone"),
    "no login for everybody": (HOUSE + "[DEFAULT]\nbind_host = 0.0.0.0\n", "loopback"),
    "no such type of store": (DOOR + "[glance_store]\ndefault_backend = swifd\n", "is 'swift' meant?"),
    "no policy file": (HOUSE + "[oslo_policy]\npolicy_file = /\n", "/ cannot be read"),
    "no log file": (HOUSE + "[DEFAULT]\nlog_file = /nowhere/x.log\n", "/nowhere/x.log cannot be written"),
    "no database directory": (HOUSE + "[database]\nconnection = sqlite:////nowhere/x.sqlite\n", "/nowhere"),
    "no tables": (HOUSE, "run: xloud-image db upgrade"),
}


@pytest.mark.parametrize("case", SHUT)
def test_serve_refuses_before_the_port_opens(home: Home, case: str) -> None:
    text, reason = SHUT[case]
    home.configure(text)
    complaint = sentence(home.with_file("serve"))
    assert reason in complaint
    assert "hunter2" not in complaint


def test_serve_names_every_refusal(home: Home) -> None:
    home.configure(
        STORE + "[keystone_authtoken]\nenforce_token_bind = required\n[DEFAULT]\nuser_storage_quota = lots\n"
    )
    complaint = sentence(home.with_file("serve"))
    for option in ("enforce_token_bind", "user_storage_quota", "[paste_deploy] flavor"):
        assert option in complaint


def test_serve_without_a_place_for_its_state(home: Home) -> None:
    complaint = sentence(home.run("serve", env={"XLOUD_IMAGE_STATE": str(home.path / "a" / "b")}))
    assert "the state directory" in complaint
    assert "XLOUD_IMAGE_STATE" in complaint
    (home.path / "file").touch()
    complaint = sentence(home.run("serve", env={"XLOUD_IMAGE_STATE": str(home.path / "file")}))
    assert "the state directory" in complaint
    assert home.left() == ["file"]


def test_serve_on_a_file_that_is_no_database(home: Home) -> None:
    (home.path / "s" / "images").mkdir(parents=True)
    (home.path / "s" / "xloud-image.sqlite").write_text("not a database, but long enough to look like one\n" * 50)
    complaint = sentence(home.run("serve", env={"XLOUD_IMAGE_STATE": str(home.path / "s")}))
    assert "is no SQLite database" in complaint


def test_serve_on_a_port_that_is_taken(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        complaint = sentence(home.run("serve", env={"XLOUD_IMAGE_STATE": "s", "PORT": str(port)}))
    assert complaint.endswith(f"cannot listen on 127.0.0.1 port {port}: Address already in use")


@pytest.mark.parametrize("retries", [0, 2])
def test_serve_waits_for_the_database_as_long_as_told(home: Home, retries: int) -> None:
    home.configure(
        HOUSE
        + "[database]\nconnection = postgresql://u:hunter2@127.0.0.1:1/x\n"
        + f"max_retries = {retries}\nretry_interval = 0\n"
    )
    done = home.with_file("serve")
    assert sentence(done)
    assert done.stderr.count("It is asked again") == retries
    assert "hunter2" not in done.stderr


# serve: the embedded default


def test_serve_prints_commands_that_work(home: Home) -> None:
    """What it prints is typed as it stands, by the openstack client and by curl."""
    image = home.path / "ubuntu.qcow2"
    subprocess.run([program("qemu-img", "qemu-utils"), "create", "-q", "-f", "qcow2", image, "8M"], check=True)
    port = free_port()
    served = Process(
        "xloud-image",
        [*installed(), "serve"],
        log=home.path / "log",
        directory=home.path,
        environment={"XLOUD_IMAGE_STATE": "state", "PORT": str(port), "PYTHONUNBUFFERED": "1"},
    )
    served.wait_for(lambda: answers(f"http://127.0.0.1:{port}/healthcheck", below=400), 30)
    said = served.output().replace("\\\n", "")
    commands = [line.strip() for line in said.splitlines() if line.startswith(("  openstack", "  curl"))]
    assert len(commands) == 10
    client = home.path / "bin" / "openstack"
    client.parent.mkdir()
    client.write_text(f'#!/bin/sh\nexec {shlex.join(client_command("openstack"))} "$@"\n')
    client.chmod(0o755)
    env = {"HOME": str(home.path), "PATH": f"{client.parent}:{os.environ['PATH']}", "no_proxy": "127.0.0.1"}
    id_ = ""
    for line in commands:
        done = subprocess.run(
            ["/bin/sh", "-ec", line.replace("curl ", "curl -sS --fail ").replace("ID", id_)],
            cwd=home.path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, line + done.stdout + done.stderr
        if "save" in line or "-o copy.qcow2" in line:
            assert (home.path / "copy.qcow2").read_bytes() == image.read_bytes()
            (home.path / "copy.qcow2").unlink()
        if "-X POST" in line:
            id_ = json.loads(done.stdout)["id"]
    assert served.stop(signal.SIGINT, 30) == 0
    assert "Traceback" not in served.output()


# db


def test_the_database_from_nothing(home: Home) -> None:
    home.configure()
    assert home.with_file("db", "version").returncode == 1
    assert "db upgrade" in home.with_file("db", "check").stdout
    first = home.with_file("db", "upgrade")
    assert re.fullmatch(r"The database went from nothing to \w+\.\n", first.stdout), first.stderr
    assert home.with_file("db", "upgrade").stdout.endswith("already.\n")
    done = home.with_file("db", "version", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["current"] is True
    checked = home.with_file("db", "check", "--json")
    assert json.loads(checked.stdout) == {"ok": True, "found": []}
    assert checked.returncode == 0


def test_the_database_does_not_care_for_other_sections(home: Home) -> None:
    home.configure(STORE + "[keystone_authtoken]\nenforce_token_bind = required\n")
    assert home.with_file("db", "upgrade").returncode == 0


def test_the_database_that_is_none(home: Home) -> None:
    home.configure(STORE + "[database]\nconnection = oracle://u:hunter2@h/x\n")
    complaint = sentence(home.with_file("db", "upgrade"))
    assert "[database] connection" in complaint
    assert "hunter2" not in complaint


def test_the_database_that_does_not_answer(home: Home) -> None:
    home.configure(STORE + "[database]\nconnection = postgresql://u:hunter2@127.0.0.1:1/x\n")
    assert "hunter2" not in sentence(home.with_file("db", "version"))
