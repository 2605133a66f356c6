"""The servers that the other tests stand on do what their users rely on."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers.ceph import Ceph
from tests.servers.http import request
from tests.servers.keystone import USERS, Keystone, Refused
from tests.servers.mariadb import MariaDB
from tests.servers.memcached import Memcached
from tests.servers.nginx import Nginx
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Stuck
from tests.servers.service import Service, command


def test_postgresql_keeps_databases_apart(postgresql: PostgreSQL) -> None:
    one, two = postgresql.create_database(), postgresql.create_database()
    postgresql.sql("create table only_here (a int)", one.rpartition("/")[2])
    assert postgresql.sql("select count(*) from only_here", one.rpartition("/")[2]).strip() == "0"
    with pytest.raises(Stuck, match="does not exist"):
        postgresql.sql("select count(*) from only_here", two.rpartition("/")[2])
    postgresql.drop_database(one)
    postgresql.drop_database(two)


def test_mariadb_utf8_holds_three_bytes_a_character(mariadb: MariaDB) -> None:
    url = mariadb.create_database(charset="utf8")
    name = url.rpartition("/")[2].partition("?")[0]
    mariadb.sql("create table t (a varchar(10))", name)
    mariadb.sql("insert into t values ('\N{EURO SIGN}')", name)
    with pytest.raises(Stuck, match="Incorrect string value"):
        mariadb.sql("set sql_mode=TRADITIONAL; insert into t values ('\N{GRINNING FACE}')", name)
    mariadb.drop_database(url)


def test_memcached_answers(memcached: Memcached) -> None:
    assert memcached.command("flush_all") == "OK\r\n"


def test_nginx_serves_files_and_stands_in_front(nginx: Callable[..., Nginx], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    files = nginx(files=tmp_path)
    front = nginx(upstream=files.url)
    part = request("GET", f"{front.url}/file", headers={"Range": "bytes=2-4"})
    assert (part.status, part.body) == (206, b"234")
    files.stop()
    assert request("GET", f"{front.url}/file").status == 502


@pytest.mark.parametrize("name", sorted(USERS))
def test_keystone_knows_its_users(keystone: Keystone, name: str) -> None:
    _, said = keystone.login(name)
    assert {role["name"] for role in said["roles"]} >= set(USERS[name].roles)
    assert said["project"]["name"] == USERS[name].project
    assert {service["type"] for service in said["catalog"]} >= {"identity", "image"}


def test_keystone_refuses_a_revoked_token_at_once(keystone: Keystone) -> None:
    token, glance = keystone.token("demo"), keystone.token("glance")
    keystone.call("GET", "/auth/tokens", token=glance, **{"X-Subject-Token": token})
    keystone.revoke(token)
    with pytest.raises(Refused, match="404"):
        keystone.call("GET", "/auth/tokens", token=glance, **{"X-Subject-Token": token})


def test_ceph_knows_its_users_and_comes_back(ceph: Ceph) -> None:
    for user, pool in (("glance", "images"), ("cinder", "volumes")):
        ceph.admin("rbd", "-n", f"client.{user}", "create", f"{pool}/of-{user}", "--size", "1M")
        assert f"of-{user}" in ceph.admin("rbd", "-n", f"client.{user}", "ls", pool).split()
    ceph.freeze("osd")
    ceph.stop_daemon("osd")
    ceph.start_daemon("osd")
    for user, pool in (("glance", "images"), ("cinder", "volumes")):
        ceph.admin("rbd", "rm", f"{pool}/of-{user}")


def test_a_command_that_is_forked_is_the_program(tmp_path: Path) -> None:
    """Folder, environment, streams and code are the caller's."""
    words = [*command(), "config", "check", "--config-file", "none.conf"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "none.conf" in done.stderr
    fails = {**os.environ, "XLOUD_FAILPOINTS": "nowhere=kill"}
    done = subprocess.run([*command(), "serve"], cwd=tmp_path, env=fails, capture_output=True, text=True, check=False)
    assert "XLOUD_FAILPOINTS: 'nowhere=kill' is no failpoint" in done.stderr
    assert done.returncode == 1


def test_a_forked_command_ends_with_its_caller(service: Callable[..., Service]) -> None:
    """And the others go on, those of callers that have gone in the middle of asking too."""
    other = service()
    callers = [subprocess.Popen([*command(), "serve", "--config-file", other.configuration]) for _ in range(3)]
    for one in callers:
        one.kill()
        one.wait()
    one = service()
    assert one.request("GET", "/healthcheck").status == 200
    one.kill()
    assert one.exit_code == -signal.SIGKILL
    assert other.request("GET", "/healthcheck").status == 200
