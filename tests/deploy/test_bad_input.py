"""What is wrong with globals is told with key, file and line, all of it in one run, and nothing is written then."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.conftest import ADDRESS, Desk, told, values
from tests.servers.place import environment
from tests.servers.service import command
from xavs import expressions, passwords, render
from xloud_image.errors import ConfigError

CEPH = 'glance_backend_ceph: "yes"\n'
# globals (line 1 is the address) → the error
TABLE = {
    "glance_backend_cehp: yes\n": "globals.yml:2: glance_backend_cehp: is no key that is known; "
    "is 'glance_backend_ceph' meant?",
    "glance_s3_store_bukcet: x\n": "globals.yml:2: glance_s3_store_bukcet: is no key that is known; "
    "is 'glance_s3_store_bucket' meant?",
    "database_adress: x\n": "globals.yml:2: database_adress: is no key that is known; is 'database_address' meant?",
    "glance_completely_different: x\n": "globals.yml:2: glance_completely_different: is no key that is known",
    "s3_store_bucket: x\n": "globals.yml:2: s3_store_bucket: is an option of a store; its key is "
    "'glance_s3_store_bucket'",
    "swift_store_contianer: x\n": "globals.yml:2: swift_store_contianer: is no key that is known; is "
    "'glance_swift_store_container' meant?",
    "glance_backend_file: perhaps\n": "globals.yml:2: glance_backend_file: 'perhaps' is not yes or no",
    "glance_api_port: 70000\n": "globals.yml:2: glance_api_port: '70000' is not a port number",
    "glance_api_workers: many\n": "globals.yml:2: glance_api_workers: 'many' is not a whole number",
    "keystone_internal_url: 10.0.0.1:5000\n": "globals.yml:2: keystone_internal_url: '10.0.0.1:5000' is not an "
    "http:// or https:// address",
    "glance_rbd_store_chunk_size: 0\n": "globals.yml:2: glance_rbd_store_chunk_size: '0' is not allowed: "
    "Should be greater than or equal to 1",
    "glance_s3_store_bucket_url_format: x\n": "globals.yml:2: glance_s3_store_bucket_url_format: 'x' is not allowed: "
    "Valid values are [auto, virtual, path], but found 'x'",
    "memcache_security_strategy: X\n": "globals.yml:2: memcache_security_strategy: 'X' is none of None, MAC, ENCRYPT",
    "glance_backend_file: 'no'\n": 'globals.yml:2: glance_backend_file: no store is on; set glance_backend_file: '
    '"yes", or another one',
    "glance_backend_file: yes\nglance_backend_file: no\n": "globals.yml:3: glance_backend_file: stands twice; "
    "first in line 2",
    "glance_s3_store_host: a\nglance_backend_s3_url: b\n": "globals.yml:3: glance_backend_s3_url: is another name for "
    "glance_s3_store_host (globals.yml:2) and has 'b', not 'a'; keep one",
    "glance_s3_store_secret_key: a\nglance_backend_s3_secret_key: b\n": "globals.yml:3: glance_backend_s3_secret_key: "
    "is another name for glance_s3_store_secret_key (globals.yml:2) and has another value; keep one",
    CEPH + "ceph_glance_keyring: ''\n": "globals.yml:3: ceph_glance_keyring: is empty, and Ceph asks for keys; name "
    'the file, or set external_ceph_cephx_enabled: "no"',
    "glance_default_backend: rbd\n": "globals.yml:2: glance_default_backend: 'rbd' is not enabled (the stores are: "
    'file); set glance_backend_ceph: "yes" in the globals',
    "glance_default_backend: fiel\n": "globals.yml:2: glance_default_backend: 'fiel' is no store (is 'file' meant?)",
    "glance_backend_s3: yes\nglance_s3_store_host: h\nglance_s3_store_access_key: a\nglance_s3_store_bucket: b\n"
    "glance_s3_store_secret_key:\n": "globals.yml:6: glance_s3_store_secret_key: is missing; the store 's3' "
    "(globals.yml:2 glance_backend_s3) cannot do without s3_store_secret_key",
    CEPH + "glance_ceph_backends: [{name: a, enabled: no}]\n": "globals.yml:3: glance_ceph_backends: "
    "glance_backend_ceph is on, but no entry of glance_ceph_backends is enabled",
    "glance_backend_ceph: no\nglance_ceph_backends: [{name: a, enabled: yes}]\n": "globals.yml:3: "
    "glance_ceph_backends: 'a' is enabled, but glance_backend_ceph is off (globals.yml:2 glance_backend_ceph)",
    CEPH + "glance_ceph_backends: [{name: a, pol: x}]\n": "globals.yml:3: glance_ceph_backends: entry 1 has an "
    "unknown 'pol'; is 'pool' meant?",
    "glance_backend_file: no\nglance_backends: [{name: file, type: file, enabled: yes}]\n": "globals.yml:3: "
    "glance_backends: says that 'file' is on, glance_backend_file (globals.yml:2 glance_backend_file) says the "
    "opposite; keep one",
    "glance_backend_http: yes\nglance_backends: [{name: file, type: file, enabled: yes}]\n": "globals.yml:2: "
    "glance_backend_http: is on, but glance_backends (globals.yml:3 glance_backends) has no store of type http",
    "glance_backends: [{name: a, type: floppy, enabled: yes}]\n": "globals.yml:2: glance_backends: 'floppy' is no "
    "type of store here; types are rbd, s3, swift, vmware, cinder, file, http",
    "glance_store_weights: {s3: 1}\n": "globals.yml:2: glance_store_weights: 's3' is no store that is on",
    "glance_enable_tls_backend: yes\n": "globals.yml:2: glance_enable_tls_backend: TLS is not served by this release: "
    "end it in the balancer",
    "enable_glance: no\n": "globals.yml:2: enable_glance: is off: there is nothing to render",
    "glance_api_port: '{{ nowhere }}'\n": "globals.yml:2: glance_api_port: refers to {{ nowhere }}, which is not given",
    "glance_api_port: '{{ a }}'\na: '{{ glance_api_port }}'\n": "globals.yml:2: glance_api_port: refers to "
    "{{ glance_api_port }}, which refers back to it",
    "database_address: \"{{ x | odd('y') }}\"\n": "globals.yml:2: database_address: uses the filter 'odd', which is "
    "not known here in this environment; Ansible's own are where ansible-core is installed (make deployer)",
    "database_address: \"{{ x + }}\"\n": "globals.yml:2: database_address: has an expression that cannot be read: "
    "unexpected 'end of print statement'",
    "glance_api_port: '{{ [1, 2] }}'\n": "globals.yml:2: glance_api_port: '['1', '2']' is not a port number",
    "glance_auth_method: none\n": "[xloud] auth: the service would not start: none lets every caller in as admin, so "
    "only a loopback address may be listened on; set bind_host to 127.0.0.1, or auth to keystone or http_basic",
    "glance_enable_property_protection: yes\n": "glance/property-protections-rules.conf: does not exist, and is "
    "asked for",
    "glance_policy_file: /nowhere/p.yaml\n": "globals.yml:2: glance_policy_file: /nowhere/p.yaml does not exist",
    "node_custom_config: /nowhere\n": "globals.yml:2: node_custom_config: '/nowhere' is no directory",
    "glance_backend_file: [yes\n": "globals.yml:3: is no YAML: while parsing a flow sequence expected ',' or ']', but "
    "got '<stream end>'",
    "glance_tag: x\n\tglance_tag: x\n": "globals.yml:3: is no YAML: while scanning for the next token "
    "found character '\\t' that cannot "
    "start any token",
}  # fmt: skip


@pytest.mark.parametrize("text", TABLE)
def test_an_error_names_key_file_and_line(desk: Desk, text: str) -> None:
    errors = [error.replace(f"{desk.path}/", "") for error in desk.refused(text)]
    assert TABLE[text] in errors


def test_everything_in_one_run(desk: Desk) -> None:
    desk.write("config/glance/glance-api.conf", "[DEFAULT\n")
    desk.write("globals.d/x.yml", "glance_api_port: x\nglance_api_port: y\n")
    desk.write("config/glance.conf", "[glance_store]\ndefault_backend = swift\n")
    errors = desk.refused("glance_backend_s3: maybe\nglanc_tag: x\n", "openstack_logging_debug=x")
    starts = [error.partition(": ")[0] for error in errors]
    assert starts == [
        "globals.d/x.yml:2",
        "globals.yml:3",
        "globals.yml:2",
        "-e",
        "globals.d/x.yml:1",
        "config/glance/glance-api.conf:1",
        "config/glance.conf:2",
    ] or set(starts) == {
        "globals.d/x.yml:2",
        "globals.yml:3",
        "globals.yml:2",
        "-e",
        "globals.d/x.yml:1",
        "config/glance/glance-api.conf:1",
        "config/glance.conf:2",
    }  # fmt: skip


def test_no_globals(desk: Desk) -> None:
    (error,) = desk.refused()
    assert error == "globals.yml: does not exist; `xavs-ansible` looks for it in its --configdir"


@pytest.mark.parametrize("name", ["xavs-ansible", "xloud-deploy"])
def test_the_command_has_two_names(name: str, tmp_path: Path) -> None:
    words = [environment(".venv-deploy", name), "prechecks", "--configdir", tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}: {tmp_path}/globals.yml does not exist")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"- a\n- b\n", "holds no `name: value` lines"),
        (b"$ANSIBLE_VAULT;1.1;AES256\n6162\n", "is encrypted by ansible-vault"),
        (b"glance-tag: x\n", "'glance-tag' is no name of a key; is 'glance_tag' meant?"),
        (b"glance_tag: &a [*a]\n", "is nested too deeply"),
        (b"glance_tag: &a [*a, *a]\n", "has too many values"),
        (b"glance_tag: " + b"[" * 30 + b"]" * 30, "is nested too deeply"),
        (
            b"a0: &a0 {x: y}\n"
            + b"".join(b"a%d: &a%d {<<: *a%d}\n" % (n + 1, n + 1, n) for n in range(3000))
            + b"<<: *a3000\n",
            "is nested too deeply",
        ),
    ],
)
def test_files_that_are_no_globals(desk: Desk, data: bytes, text: str) -> None:
    desk.globals.write_bytes(data)
    assert any(text in error for error in desk.refused())


LOCKED = "!vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  6162\n"
# lines of other services → what is noted of them; nothing of it keeps the image service from being deployed
OTHERS = {
    'enable_nova: "yes"\nenable_nova: "no"\n': "stands twice; the last counts: enable_nova (line 3)",
    "nova_x: {a: 1, a: 2}\n": "has a name twice; the last counts: nova_x (line 2)",
    "nova_x: {1: x, 1: y}\n": "has a name twice; the last counts: nova_x (line 2)",
    "nova_x: {[1, 2]: x}\n": "has a name that is no text: nova_x (line 2)",
    "[1, 2]: x\n": "is no plain name, so nothing can refer to it: ? (line 2)",
    "my-own-key: 1\n": "is no plain name, so nothing can refer to it: 'my-own-key' (line 2)",
    '"10.0.0.1": host\n': "is no plain name, so nothing can refer to it: '10.0.0.1' (line 2)",
    "1: x\n": "is no plain name, so nothing can refer to it: '1' (line 2)",
    "nova_x: " + "[" * 30 + "]" * 30 + "\n": "is nested too deeply: nova_x (line 2)",
    "nova_x: &a [*a]\n": "is nested too deeply: nova_x (line 2)",
    "nova_x: &a [*a, *a, *a]\n": "has too many values, by its aliases or those before it: nova_x (line 2)",
    "nova_a: &a [1,1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"nova_{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)):
        "has too many values, by its aliases or those before it: nova_e (line 6), nova_f (line 7)",
    f"nova_x: {LOCKED}": "is encrypted by ansible-vault; name the file with its password",
    f"nova_x:\n- a: {LOCKED}".replace("\n  ", "\n    "): "is encrypted by ansible-vault; name the file",
    'nova_x: !vault ""\n': "is encrypted by ansible-vault; it is empty: nova_x (line 2)",
    "nova_x: {<<: 5, a: 1}\n": "",
    "nova_x: 0x_\nglance_log_file: a\n": "",
}  # fmt: skip


@pytest.mark.parametrize("text", OTHERS)
def test_what_is_wrong_with_other_services_keys_is_a_note(desk: Desk, text: str) -> None:
    assert OTHERS[text] in told(desk.render(text), "note")


@pytest.mark.parametrize("text", ["nova_password: 1\nnova_password: 2\n", f"nova_password: {LOCKED}"])
def test_passwords_of_other_services(desk: Desk, text: str) -> None:
    file = desk.path / "passwords.yml"
    file.write_text(file.read_text() + text)
    assert "nova_password (line " in told(desk.render(""), "note")
    file.write_text(file.read_text() + text.replace("nova", "glance_database"))
    assert any("glance_database_password: stands twice; first in line 1" in error for error in desk.refused(""))


def test_other_services_keys_in_ours(desk: Desk) -> None:
    """What cannot be read counts where it is needed, and only there; of two the last, as for Ansible."""
    rendered = desk.render("nova_x: a\nnova_x: b\nglance_log_file: '/{{ nova_x }}'\n")
    assert values(rendered)["[DEFAULT] log_file"] == ["/b"]
    for text, reason in {f"nova_x: {LOCKED}": "is encrypted by ansible-vault; name",
                         "nova_x: &a [*a]\n": "is nested too deeply"}.items():  # fmt: skip
        desk.render(text + "glance_log_file: '{{ nova_x if false else \"/a\" }}'\n")
        (error,) = desk.refused(text + "glance_log_file: '/{{ nova_x }}'\n")
        assert f"glance_log_file: refers to a value that {reason}" in error


def test_mappings_that_are_merged(desk: Desk) -> None:
    text = "x: &x {glance_log_file: /x, glance_api_workers: 3}\ny: &y {glance_log_file: /y, glance_api_port: 1}\n"
    found = values(desk.render(text + "<<: [*x, *y]\nglance_api_port: 2\nnova_z:\n  <<: *x\n  q: 2\n"))
    assert [found[f"[DEFAULT] {name}"] for name in ("log_file", "workers", "bind_port")] == [["/x"], ["3"], ["2"]]
    assert values(desk.render("x: &x {<<: *x, a: /1}\nglance_log_file: '{{ x.a }}'\n"))["[DEFAULT] log_file"] == ["/1"]


# expressions

ITERATED = {
    "{{ ['a', 'b'] | map('upper') }}": ["A", "B"],
    "{{ ['a', 'b'] | select('equalto', 'b') }}": ["b"],
    "{{ {'a': 1}.keys() }}": ["a"],
    "{{ {'a': 1}.values() }}": ["1"],
    "{{ range(2) }}": ["0", "1"],
    "{{ ('a', 'b') }}": ["a", "b"],
    "{{ ['a', 2] }}": ["a", "2"],
    "{{ [['a', 'b'] | map('upper')] | first }}": ["A", "B"],
}


@pytest.mark.parametrize("text", ITERATED)
def test_what_is_walked_through_is_a_list(desk: Desk, text: str) -> None:
    rendered = desk.render(f'glance_extra_volumes: "{text}"\n')
    assert expressions.read(text, {}.__getitem__) == [int(one) if one.isdigit() else one for one in ITERATED[text]]
    assert "log_file" not in rendered.lines
    (error,) = desk.refused(f'glance_log_file: "{text}"\n')
    assert "glance_log_file: " in error
    assert "is not text" in error


def test_a_list_inside_a_text(desk: Desk) -> None:
    rendered = desk.render("glance_log_file: \"/{{ ['a'] | map('upper') }}-{{ {'k': 1}.keys() }}\"\n")
    assert values(rendered)["[DEFAULT] log_file"] == ["/['A']-['k']"]


# an expression → why it gives no value
FAILING = {
    "{{ 'a' | regex_replace('(', '') }}": "has an expression that fails: error: missing ), unterminated subpattern",
    "{{ 'a' is match('(') }}": "has an expression that fails: error: missing )",
    "{{ '[hunter2' | from_yaml }}": "has an expression that fails: ParserError: expected ',' or ']'",
    "{{ '{' | from_json }}": "has an expression that fails: JSONDecodeError",
    "{{ " + "(" * 4000 + "1" + ")" * 4000 + " }}": "has an expression that fails: RecursionError",
    "{{ '%s' | format(1, 2) }}": "has an expression that fails: TypeError",
    "{{ 'x' * 10 ** 15 }}": "has an expression that fails: MemoryError",
    "{{ 'a'.upper }}": "has an expression that gives a builtin_function_or_method, which is no value",
    "{{ cycler('a') }}": "has an expression that gives a Cycler, which is no value",
    "{{ (['a'] | map('upper')) | string }}": "shows an object of the program inside a text: end it with `| list`",
    "{{ {'a': 1}.keys() ~ '' }}": "shows an object of the program inside a text: end it with `| list`",
}


@pytest.mark.parametrize("text", FAILING, ids=lambda text: text[:40])
def test_an_expression_that_gives_no_value(desk: Desk, text: str) -> None:
    (error,) = desk.refused(f'glance_log_file: "{text}"\n')
    assert f"globals.yml:2: glance_log_file: {FAILING[text]}" in error or FAILING[text] in error
    assert "hunter2" not in error


def test_a_date(desk: Desk) -> None:
    rendered = desk.render("glance_log_file: \"{{ '2026-01-02' | from_yaml }}\"\n")
    assert values(rendered)["[DEFAULT] log_file"] == ["2026-01-02"]


def test_a_value_that_is_encrypted_and_empty(desk: Desk) -> None:
    for text in ('""', "' '"):
        (error,) = desk.refused(f"glance_log_file: !vault {text}\n")
        assert error == "globals.yml:2: glance_log_file: is encrypted by ansible-vault; it is empty"


def test_no_secret_stands_in_an_error(desk: Desk) -> None:
    errors = desk.refused(
        "glance_s3_store_secret_key: [hunter2]\nkeystone_admin_password: {a: hunter2}\n"
        "glance_vmware_server_password: hunter2\nvmware_vcenter_host_password: hunter3\n"
    )
    assert len(errors) == 3
    assert "hunter" not in str(errors)


# passwords


def test_passwords_are_made_once(desk: Desk) -> None:
    file = desk.path / "passwords.yml"
    file.unlink()
    rendered = desk.render("")
    assert not file.exists(), "rendering writes nothing"
    render.write(rendered, desk.path / "out")
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert [line.partition(":")[0] for line in text.splitlines()] == list(passwords.MADE)
    again = desk.render("")
    assert again.passwords.made == ()
    assert render.write(again, desk.path / "out") == []
    assert file.read_text() == text


def test_a_password_that_is_missing_is_added(desk: Desk) -> None:
    file = desk.write(
        "passwords.yml",
        "# kept\ndatabase_password: r00t\nglance_keystone_password:   # from the template\nnova_password: n\n",
    )
    render.write(desk.render("memcache_secret_key: x\n"), desk.path / "out")
    lines = file.read_text().splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "# kept",
        "database_password",
        "glance_keystone_password",
        "nova_password",
        "glance_database_password",
    ]
    assert lines[0:2] == ["# kept", "database_password: r00t"]
    assert len(lines[2].partition(": ")[2]) == 40


# writing


def test_what_is_rendered_no_more_is_removed(desk: Desk) -> None:
    out = desk.path / "out"
    out.mkdir()
    (out / "theirs.conf").write_text("x")
    render.write(desk.render("glance_backend_swift: yes\n"), out)
    assert (out / "glance-swift.conf").exists()
    changed = render.write(desk.render("glance_backend_file: yes\n"), out)
    assert sorted(path.name for path in changed) == ["deployment.json", "glance-api.conf", "glance-swift.conf"]
    assert sorted(path.name for path in out.iterdir()) == ["deployment.json", "glance-api.conf", "theirs.conf"]
    assert (out / "glance-api.conf").stat().st_mode & 0o777 == 0o600


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_leaves_the_old_files_whole(desk: Desk, tmp_path: Path) -> None:
    """A file system of its own, filled to the last block; the old file is there to the byte afterwards."""
    mount = tmp_path / "small"
    mount.mkdir()
    if os.geteuid() != 0:
        pytest.fail("only root can make a file system of 64 KiB: run as root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", mount], check=True)
    try:
        out = mount / "out"
        render.write(desk.render(""), out)
        old = {path.name: path.read_bytes() for path in out.iterdir()}
        fill(mount / "filler")
        with pytest.raises(ConfigError, match="No space left on device; what was there is as it was"):
            render.write(desk.render("glance_api_port: 19292\n"), out)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == old
    finally:
        subprocess.run(["umount", mount], check=True)


def test_a_directory_that_cannot_be_made(desk: Desk) -> None:
    with pytest.raises(ConfigError, match="cannot be made: Not a directory"):
        render.write(desk.render(""), desk.globals / "out")


# the command


def run(desk: Desk, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command(), "config", "render", *words],
        cwd=desk.path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command(desk: Desk) -> None:
    desk.globals.write_text("kolla_internal_vip_address: 127.0.0.9\nglance_backend_file: yes\nnova_console: novnc\n")
    first = run(desk, "--globals", "globals.yml", "--explain", "--output", "out")
    assert first.returncode == 0, first.stderr
    assert "default_backend = file" in first.stdout
    assert "globals.yml:2 glance_backend_file" in first.stdout
    assert "#   globals.yml:3 nova_console: concerns another service" in first.stdout
    assert "written: out/glance-api.conf" in first.stdout
    assert "d4tabase" not in first.stdout + first.stderr
    assert "k3ystone" not in first.stdout + first.stderr
    second = run(desk, "--globals", "globals.yml", "--output", "out")
    assert second.stdout == "out is as it should be already.\n"
    checked = subprocess.run(
        [*command(), "config", "check", "--config-dir", desk.path / "out"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout


def test_the_command_refuses_in_lines(desk: Desk) -> None:
    desk.globals.write_text("glance_api_port: x\nglance_tga: x\n")
    done = run(desk, "--globals", "globals.yml", "--output", "out", "-e", "junk")
    assert (done.returncode, done.stdout) == (1, "")
    assert "-e: is no name=value" in done.stderr
    done = run(desk, "--globals", "globals.yml", "--output", "out")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 3
    assert not (desk.path / "out").exists()


def test_the_command_within_a_limit_of_file_size(desk: Desk) -> None:
    """As a disk that is full, seen from the whole command: exit code 1, one sentence, the old files whole."""
    desk.globals.write_text(ADDRESS)
    assert run(desk, "--globals", "globals.yml", "--output", "out").returncode == 0
    old = (desk.path / "out" / "glance-api.conf").read_bytes()
    desk.globals.write_text(ADDRESS + "glance_api_port: 19292\n")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1200, 1200))

    done = subprocess.run(
        [sys.executable, "-B", "-m", "xloud_image", "config", "render", "--globals", "globals.yml", "--output", "out"],
        cwd=desk.path, capture_output=True, text=True, preexec_fn=limit, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert (desk.path / "out" / "glance-api.conf").read_bytes() == old
    assert sorted(path.name for path in (desk.path / "out").iterdir()) == ["deployment.json", "glance-api.conf"]
