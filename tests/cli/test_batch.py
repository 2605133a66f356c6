"""`xloud-image batch`: what a deployment asks of a container that is started once."""

import json
from typing import Any

from tests.cli.home import DOOR, STORE, Home, sentence


def batch(home: Home, *commands: dict[str, Any], **environment: str) -> list[dict[str, Any]]:
    done = home.run("batch", json.dumps(commands), env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    told: list[dict[str, Any]] = json.loads(done.stdout)
    return told


def test_each_is_as_if_it_were_alone(home: Home) -> None:
    home.configure()
    file = ("--config-file", str(home.file))
    commands = (
        ["db", "upgrade", *file],
        ["stores", "list", "--images", "--json", *file],
        ["swim"],
        ["stores", "ls", "tape", *file],
        ["db", "upgrade", *file],
    )
    first, listed, wrong, failed, again = batch(home, *({"words": words} for words in commands))
    assert first["rc"] == listed["rc"] == again["rc"] == 0
    assert "The database went from nothing to" in first["stdout"]
    assert json.loads(listed["stdout"])[0]["images"] == 0
    assert (wrong["rc"], wrong["stdout"]) == (2, "")
    assert "swim" in wrong["stderr"]
    assert failed["rc"] == 1
    alone = home.with_file("stores", "ls", "tape")
    assert (failed["rc"], failed["stdout"], failed["stderr"]) == (alone.returncode, alone.stdout, alone.stderr)
    assert "already" in again["stdout"]


def test_what_must_succeed_stops_the_rest(home: Home) -> None:
    home.configure(STORE + DOOR + "[keystone_authtoken]\nenforce_token_bind = required\n")
    file = ("--config-file", str(home.file))
    told = batch(home, {"words": ["config", "check", *file], "must": True}, {"words": ["db", "upgrade", *file]})
    assert [one["rc"] for one in told] == [1]
    assert "binding of tokens" in told[0]["stdout"]
    assert not (home.path / "db.sqlite").exists()


def test_an_environment_of_its_own(home: Home) -> None:
    """From a variable of another name, and for none of the others."""
    place = home.path / "etc"
    place.mkdir()
    home.configure()
    home.file.rename(place / "glance-api.conf")
    words = ["config", "check", "--json"]
    before, own, after = batch(
        home, {"words": words}, {"words": words, "environment": {"OS_GLANCE_CONFIG_DIR": "PLACE"}}, {"words": words},
        PLACE=str(place),
    )  # fmt: skip
    assert json.loads(own["stdout"])["files"] == [str(place / "glance-api.conf")]
    assert before["stdout"] == after["stdout"]
    assert str(place) not in before["stdout"]


def test_no_batch(home: Home) -> None:
    for text in ("", "{", '{"words": []}', '[{"must": true}]', '["db"]'):
        assert "a batch is a JSON list" in sentence(home.run("batch", text))
