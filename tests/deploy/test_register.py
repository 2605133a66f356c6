"""Database and catalogue entries: made once, found the second time, and refusals that name the key to set."""

import json
import os
from pathlib import Path

import pytest

from tests.servers.keystone import USERS, Keystone
from tests.servers.mariadb import MariaDB
from tests.servers.process import Stuck
from tests.servers.service import Service

SECRET = "XLOUD_IMAGE_ADMIN_PASSWORD"
NAME = f"made_{os.getpid()}"
URL = "http://10.0.0.1:9292"


@pytest.fixture
def made(mariadb: MariaDB, keystone: Keystone, tmp_path: Path) -> Service:
    """A configuration whose database, user and account do not exist."""
    sections = keystone.sections(username=NAME, password="p'a\"s\\s")
    one = Service({"database": {"connection": f"mysql+pymysql://{NAME}:it%27s%25@127.0.0.1:{mariadb.port}/{NAME}",
                                "max_retries": 0}, **sections})  # fmt: skip
    facts = {"endpoints": {"internal": URL, "public": URL}, "region": "RegionMade", "role": "admin",
             "service": {"name": NAME, "type": "made"}}  # fmt: skip
    (tmp_path / "deployment.json").write_text(json.dumps({"keystone": facts}))
    return one


def test_the_database_is_made_once(made: Service, mariadb: MariaDB) -> None:
    made.environment = {SECRET: "wrong"}
    with pytest.raises(Stuck, match="refuses its administrator 'root'; set database_user and database_password"):
        made.run("db", "create")
    made.environment = {}
    try:
        first = made.run("db", "create")
        assert f"changed: made the database {NAME}" in first
        assert made.run("db", "create") == "Everything was there.\n"
        assert "went from nothing" in made.run("db", "upgrade")
        assert made.run("db", "create") == "Everything was there.\n"
    finally:
        mariadb.sql(f"drop database if exists `{NAME}`")


def test_the_service_is_registered_once(made: Service, keystone: Keystone, tmp_path: Path) -> None:
    words = ("keystone", "register", "--facts", str(tmp_path / "deployment.json"))
    with pytest.raises(Stuck, match="set keystone_admin_password in"):
        made.run(*words)
    with pytest.raises(Stuck, match="Keystone refuses the service's account"):
        made.run("keystone", "check")
    made.environment = {SECRET: "wrong"}
    with pytest.raises(Stuck, match="Keystone refuses its administrator 'admin'"):
        made.run(*words)
    made.environment = {SECRET: USERS["admin"].password}
    first = made.run(*words).splitlines()
    assert all(line.startswith("changed: made the ") or "gave" in line for line in first)
    assert f"changed: made the public endpoint {URL}" in first
    assert made.run(*words) == "Everything was there.\n"
    assert "knows" in made.run("keystone", "check")
    made.configure({"keystone_authtoken": {"password": "another"}})
    assert made.run(*words) == f"changed: set the password of {NAME}\n"
    facts = json.loads((tmp_path / "deployment.json").read_text())
    facts["keystone"]["endpoints"]["public"] = "http://10.0.0.2:9292"
    (tmp_path / "deployment.json").write_text(json.dumps(facts))
    assert made.run(*words) == f"changed: moved the public endpoint from {URL} to http://10.0.0.2:9292\n"
    made.environment = {}
    assert "without an administrator's password" in made.run(*words)
