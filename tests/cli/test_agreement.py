"""What `serve` refuses, `config check` and `config render` refuse with the same sentence, and the other way round."""

import dataclasses
import functools
import importlib
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.servers.place import HOST, free_port
from tests.servers.service import command
from xavs import render
from xloud_image.cli import ready
from xloud_image.config import loader
from xloud_image.errors import ConfigError, ImageServiceError

CIRCLE = '"delete_image": "rule:owners"\n"owners": "rule:delete_image"\n'
# lines over a configuration that works → what is refused, "": nothing. {d}: a directory of the test
HERE: dict[str, tuple[str, str]] = {
    "nothing is wrong": ("", ""),
    "rules in a circle": ("[oslo_policy]\npolicy_file = {d}/circle.yaml", "refer to each other in a circle"),
    "a policy file that is missing": ("[oslo_policy]\npolicy_file = {d}/none.yaml", ""),
    "a policy file that is a directory": ("[oslo_policy]\npolicy_file = {d}", "cannot be read: Is a directory"),
    "a policy file that is no YAML": ("[oslo_policy]\npolicy_file = {d}/broken.yaml", "the policy file"),
    "a database of another kind": ("[database]\nconnection = oracle://u:hush@h/d", "is no URL of a database"),
    "no URL": ("[database]\nconnection = mysql", "is no URL of a database"),
    "an argument that is unknown": (
        "[database]\nconnection = mysql+pymysql://u:hush@h/d?ssl_cafile=x", "unknown argument ssl_cafile"),
    "a CA file that is missing": (
        "[database]\nconnection = mysql://u:hush@h/d?ssl_ca=/none.pem", "ssl_ca=/none.pem cannot be read"),
    "a mode of TLS that is none": (
        "[database]\nconnection = postgresql://u:hush@h/d?sslmode=sometimes", "sslmode=sometimes"),
    "modes of SQL that are none": ("[database]\nmysql_sql_mode = A'B", "mysql_sql_mode: only names of modes"),
    "SQLite without a directory": ("[database]\nconnection = sqlite:////does/not/exist/x.sqlite", "does not exist"),
    "a file that is no database": ("[database]\nconnection = sqlite:///{d}/broken.yaml", "is no SQLite database"),
    "no htpasswd": ("[xloud]\nauth = http_basic\nhttp_basic_user_file = {d}/none\n"
                    "http_basic_projects_file = {d}/none", "{d}/none cannot be read"),
    "an htpasswd that is none": ("[xloud]\nauth = http_basic\nhttp_basic_user_file = {d}/broken.yaml\n"
                                 "http_basic_projects_file = {d}/broken.yaml", "broken.yaml"),
    "a log that cannot be written": ("[DEFAULT]\nlog_file = /does/not/exist/x.log", "log_file: /does/not/exist/x.log"),
    "levels that are none": ("[DEFAULT]\ndefault_log_levels = a=LOUD", "'a=LOUD' is no logger=LEVEL pair"),
    "an address of another machine": ("[DEFAULT]\nbind_host = 203.0.113.77", "cannot listen on 203.0.113.77"),
    "two stores in one directory": (
        "[DEFAULT]\nenabled_backends = files:file, more:file\n[more]\nfilesystem_store_datadir = {d}/images",
        "belongs to the store 'files' already"),
    "a store twice": ("[DEFAULT]\nenabled_backends = files:file, Files:file", "stands there twice"),
    "one directory twice": ("[files]\nfilesystem_store_datadir =\nfilesystem_store_datadirs = {d}/a:1\n"
                            "filesystem_store_datadirs = {d}/a:2", "a belongs to the store 'files' already"),
    "a priority that is none": (
        "[files]\nfilesystem_store_datadir =\nfilesystem_store_datadirs = {d}/a:high", "write path:priority"),
    "a mode that is none": ("[files]\nfilesystem_store_file_perm = 698", "write octal digits"),
    "a default that is no store": ("[glance_store]\ndefault_backend = nothing", "nothing"),
    "a flavor that is none": ("[paste_deploy]\nflavor = fernet", "no way to let callers in"),
    "an unsafe option": ("[keystone_authtoken]\nenforce_token_bind = required", "binding of tokens"),
    "a number that is none": ("[DEFAULT]\nworkers = many", "'many' is not allowed"),
    "a digest that is none": ("[DEFAULT]\nhashing_algorithm = shake_128", "is no digest"),
    "a health check for nobody": ("[healthcheck]\nallowed_source_ranges = 10.0.0.0/33", "is no network such as"),
    "a schema that is none": ("# schema", "cannot be used as image schema"),
    "both ways to a Swift account": (
        "[DEFAULT]\nenabled_backends = files:file, sw:swift\n[sw]\nswift_store_multi_tenant=true\n"
        "swift_store_config_file = {d}/x\nswift_store_auth_address=http://h", "exclude each other"),
}  # fmt: skip
# what is the same for a node that is somewhere else: lines of an override
THERE = [name for name in HERE if name not in {
    "nothing is wrong", "SQLite without a directory", "a file that is no database", "a CA file that is missing",
    "a log that cannot be written", "an address of another machine", "a schema that is none", "a store twice",
    "two stores in one directory", "a default that is no store", "both ways to a Swift account",
    "a policy file that is missing", "a policy file that is a directory",
}]  # fmt: skip


pytestmark = pytest.mark.usefixtures("own_logging")


def written(tmp_path: Path, case: str) -> Path:
    (tmp_path / "circle.yaml").write_text(CIRCLE)
    (tmp_path / "broken.yaml").write_text("a: [b\n")
    base, more = tmp_path / "glance-api.conf", tmp_path / "glance-api.conf.d" / "more.conf"
    more.parent.mkdir()
    base.write_text(
        f"[DEFAULT]\nbind_host = {HOST}\nbind_port = {free_port()}\nenabled_backends = files:file\n"
        f"[xloud]\nauth = none\n"
        f"[database]\nconnection = sqlite:///{tmp_path}/x.sqlite\n[glance_store]\ndefault_backend = files\n"
        f"[files]\nfilesystem_store_datadir = {tmp_path}/images\n"
    )
    more.write_text(textwrap.dedent(HERE[case][0]).replace("{d}", str(tmp_path)))
    if case == "a schema that is none":
        (tmp_path / "schema-image.json").write_text("[]")
    return tmp_path


def of_serve(directory: Path) -> str:
    """Why it refuses to start, but for the state of its database."""
    try:
        importlib.import_module("xloud_image.cli.serve").prepare(loader.load([], [directory], env={}))
    except ImageServiceError as error:
        return "" if "run: xloud-image db upgrade" in error.message else error.message
    return ""


def of_check(directory: Path) -> str:
    return "\n".join(map(str, ready.complete(loader.load([], [directory], env={})).refusals))


@pytest.mark.parametrize("case", HERE)
def test_serve_and_check_agree(tmp_path: Path, case: str) -> None:
    directory, sentence = written(tmp_path, case), HERE[case][1].replace("{d}", str(tmp_path))
    started, checked = of_serve(directory), of_check(directory)
    if not sentence:
        assert (started, checked) == ("", "")
        return
    assert sentence in checked
    assert sentence in started
    assert "hush" not in started + checked
    for line in checked.splitlines():
        assert line in started or case.startswith("a log"), (line, started)


def test_the_address_in_force_may_have_moved_away(tmp_path: Path) -> None:
    """A reload does not try it: the port is open. Any other address is tried."""
    loaded = loader.load([], [written(tmp_path, "an address of another machine")], env={})
    server = loaded.settings.server
    assert "cannot listen" in "\n".join(map(str, ready.complete(loaded).refusals))
    assert ready.complete(loaded, serving=server).refusals == ready.complete(loaded, here=False).refusals
    other = dataclasses.replace(server, bind_host=HOST)
    assert "cannot listen" in "\n".join(map(str, ready.complete(loaded, serving=other).refusals))


@pytest.mark.parametrize("case", THERE)
def test_render_agrees(tmp_path: Path, case: str) -> None:
    (tmp_path / "circle.yaml").write_text(CIRCLE)
    (tmp_path / "broken.yaml").write_text("a: [b\n")
    (tmp_path / "globals.yml").write_text("kolla_internal_vip_address: 10.0.1.71\nglance_auth_method: keystone\n")
    (tmp_path / "passwords.yml").write_text("glance_database_password: a\nglance_keystone_password: b\n")
    override = tmp_path / "config" / "glance" / "glance-api.conf"
    override.parent.mkdir(parents=True)
    lines, sentence = HERE[case]
    override.write_text(lines.replace("{d}", str(tmp_path)).replace("[files]", "[file]"))
    with pytest.raises(ConfigError) as caught:
        render.render(render.Inputs(tmp_path / "globals.yml"), functools.partial(ready.complete, here=False))
    wanted = sentence.replace("{d}", str(tmp_path)).replace("'files'", "'file'")
    assert wanted in caught.value.message
    assert "hush" not in caught.value.message


def test_the_policy_of_the_overrides_is_read_as_the_service_will(tmp_path: Path) -> None:
    """It lies in /etc/glance of the node and not of this machine."""
    (tmp_path / "globals.yml").write_text("kolla_internal_vip_address: 10.0.1.71\n")
    (tmp_path / "config" / "glance").mkdir(parents=True)
    policy = tmp_path / "config" / "glance" / "policy.yaml"
    policy.write_text('"get_image": "role:admin"\n')
    override = tmp_path / "config" / "glance" / "glance-api.conf"
    override.write_text("[oslo_policy]\npolicy_file = /etc/glance/policy.yaml\n")
    complete = functools.partial(ready.complete, here=False)
    inputs = render.Inputs(tmp_path / "globals.yml")
    render.render(inputs, complete)
    policy.write_text('"get_image": "rule:get_image"\n')
    with pytest.raises(ConfigError, match=r"/etc/glance/policy\.yaml, line 1: the rule 'get_image' cannot be used"):
        render.render(inputs, complete)


def test_a_library_that_only_the_node_has_stops_no_rendering(tmp_path: Path) -> None:
    (tmp_path / "globals.yml").write_text("kolla_internal_vip_address: 10.0.1.71\nglance_backend_ceph: yes\n"
                                          "glance_backend_cinder: yes\nglance_https_ca_certificates_file: /n/ca.pem\n"
                                          "glance_backend_http: yes\n")  # fmt: skip
    render.render(render.Inputs(tmp_path / "globals.yml"), functools.partial(ready.complete, here=False))


def test_the_words_end_alike(tmp_path: Path) -> None:
    """The very commands."""
    directory = written(tmp_path, "rules in a circle")
    for words in (["serve"], ["config", "check"]):
        done = subprocess.run([*command(), *words, "--config-dir", directory], capture_output=True, text=True,
                              timeout=60, check=False)  # fmt: skip
        assert done.returncode == 1
        assert "refer to each other in a circle" in done.stdout + done.stderr
    (tmp_path / "globals.yml").write_text("kolla_internal_vip_address: 10.0.1.71\n")
    (tmp_path / "config" / "glance").mkdir(parents=True)
    (tmp_path / "config" / "glance" / "policy.yaml").write_text((tmp_path / "circle.yaml").read_text())
    done = subprocess.run([*command(), "config", "render", "--globals", tmp_path / "globals.yml", "--output",
                           tmp_path / "out"], capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert done.returncode == 1
    assert "refer to each other in a circle" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_byte_order_mark_is_called_so(tmp_path: Path) -> None:
    file = tmp_path / "x.conf"
    file.write_bytes(b"\xef\xbb\xbf[DEFAULT]\nworkers = 1\n")
    with pytest.raises(ConfigError, match=r"begins with a byte order mark \(UTF-8\): save it as UTF-8 without one"):
        loader.load([file], env={})
