"""`xloud-image stores …` as people and scripts use it. Each test starts the real command."""

import json
import re

import pytest

from tests.cli.home import DOOR, STORE, Home, sentence

RESERVED = "[os_glance_staging_store]\nfilesystem_store_datadir = {0}/staging\n"


def test_stores_list(home: Home) -> None:
    home.configure()
    done = home.with_file("stores", "list", "--json")
    assert json.loads(done.stdout) == [
        {
            "store": "files",
            "type": "file",
            "default": True,
            "reserved": False,
            "read_only": False,
            "weight": 0,
            "description": "The first",
        }
    ]
    table = home.with_file("stores", "list").stdout
    assert re.search(r"files +file +default +0 +The first", table)


@pytest.mark.parametrize("deep", [False, True])
def test_stores_check(home: Home, deep: bool) -> None:
    home.configure()
    words = ("stores", "check", *["--deep"] * deep)
    done = home.with_file(*words, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = json.loads(done.stdout)
    assert (result["store"], result["type"], result["ok"]) == ("files", "file", True)
    assert result["free"] > 0
    assert set(result["timings"]) == {"start", "check", *(["write", "read", "delete"] if deep else [])}
    assert home.left() == ["images", "x.conf"], "nothing is left"
    table = home.with_file(*words)
    assert table.returncode == 0
    assert re.search(r"files +file +yes +yes +yes +yes +[\d.]+ GiB", table.stdout)


@pytest.mark.parametrize("deep", [False, True])
def test_stores_check_of_a_store_that_cannot_work(home: Home, deep: bool) -> None:
    (home.path / "gone").touch()
    other = "[DEFAULT]\nenabled_backends = files:file, gone:file\n[gone]\nfilesystem_store_datadir = {0}/gone/images\n"
    home.configure(STORE + DOOR + other)
    done = home.with_file("stores", "check", "--json", *["--deep"] * deep)
    assert done.returncode == 1
    good, bad = json.loads(done.stdout)
    assert good["ok"]
    assert not bad["ok"]
    assert "gone/images" in bad["detail"]
    assert "NO" in home.with_file("stores", "check").stdout


def test_stores_check_of_a_configuration_without_a_store(home: Home) -> None:
    home.configure("[DEFAULT]\nenabled_backends = a:tape\n" + DOOR)
    assert "'tape' is no type of store" in sentence(home.with_file("stores", "check"))


def test_stores_check_shows_the_services_own_apart(home: Home) -> None:
    home.configure(STORE + DOOR + RESERVED)
    done = home.with_file("stores", "check")
    assert done.returncode == 0
    shown, _, own = done.stdout.partition("The service's own:")
    assert "files" in shown
    assert "staging" not in shown
    assert re.search(r"os_glance_staging_store +file +yes", own)
    results = json.loads(home.with_file("stores", "check", "--json").stdout)
    assert {result["store"]: result["reserved"] for result in results} == {
        "files": False,
        "os_glance_staging_store": True,
    }
    # one that cannot work counts as well
    (home.path / "staging").rmdir()
    (home.path / "staging").touch()
    assert home.with_file("stores", "check").returncode == 1


def test_what_lies_in_a_store(home: Home) -> None:
    home.configure()
    done = home.with_file("stores", "ls", "files")
    assert (done.returncode, done.stdout) == (0, "")
    for name in ("c", "a", "b", ".draft"):
        (home.path / "images" / name).touch()
    (home.path / "images" / "folder").mkdir()
    assert home.with_file("stores", "ls", "files").stdout == "a\nb\nc\n"
    done = home.with_file("stores", "ls", "files", "--limit", "2", "--json")
    assert json.loads(done.stdout) == ["a", "b"]
    assert "there is no store 'tape'; the stores are files" in sentence(home.with_file("stores", "ls", "tape"))
    (home.path / "images").rename(home.path / "away")
    (home.path / "images").touch()
    assert "is not a directory" in sentence(home.with_file("stores", "ls", "files"))
