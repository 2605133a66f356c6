"""Globals of a whole cloud: every name, expressions, secrets; and that nothing is taken for done that does nothing."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.deploy.conftest import ADDRESS, Desk, told, values
from tests.servers.place import ROOT, environment
from xavs import foreign_names, no_effect, render, variables, vaults
from xloud_image.errors import ConfigError

KOLLA = json.loads((ROOT / "src/xavs/kolla.json").read_text())


def test_the_table_is_of_these_releases() -> None:
    assert {"2023.1", "2023.2", "2024.1", "2024.2", "2025.1", "2025.2", "2026.1"} <= set(KOLLA["releases"])
    assert len(KOLLA["names"]) > 5000


def test_every_name_of_kolla_may_stand_there(desk: Desk) -> None:
    """Whatever does not concern us has any value; what does, its default."""
    ours = set(variables.names()) | variables.shared() | set(no_effect.WITHOUT_MEANING)
    foreign = [name for name in KOLLA["names"] if name not in ours and not foreign_names.looks_like_ours(name)]
    assert len(foreign) > 5000
    rendered = desk.render("".join(f"{name}: some value\n" for name in foreign))
    assert not told(rendered, "warning")
    assert not told(rendered, "note")


# keys that the platform's form writes and nobody else has, or of releases that are not out yet
FORM = (
    "enable_kms enable_host_ha enable_dynamic_cluster_optimization enable_db_backup_utility enable_disk_encryption "
    "vast_port"
)


def test_other_strangers_are_told_and_stop_nothing(desk: Desk) -> None:
    rendered = desk.render("".join(f'{name}: "yes"\n' for name in FORM.split()) + "completely_different: [1, {a: b}]\n")
    assert told(rendered, "note").startswith("not known here, and taken as other services' own: completely_different")


EXPRESSIONS: dict[str, tuple[str, dict[str, str | None]]] = {
    "a flag in a list": (
        "glance_backend_ceph: yes\nglance_ceph_backends:\n  - name: rbd\n    type: rbd\n"
        '    enabled: "{{ glance_backend_ceph | bool }}"\n',
        {"[DEFAULT] enabled_backends": "rbd:rbd"},
    ),
    "workers of every service": (
        'openstack_service_workers: 3\nglance_api_workers: "{{ openstack_service_workers }}"\n',
        {"[DEFAULT] workers": "3"},
    ),
    "the same without a number": (
        'glance_api_workers: "{{ openstack_service_workers }}"\n', {"[DEFAULT] workers": None}),
    "a choice": (
        "enable_x: yes\nglance_api_port: \"{{ 19292 if enable_x | bool else 9292 }}\"\n",
        {"[DEFAULT] bind_port": "19292"},
    ),
    "several lines": (
        "base: 10.0.0.8\ndatabase_address: >-\n  {%- if base is defined -%}\n  {{ base }}\n  {%- else -%}\n  none\n"
        "  {%- endif -%}\n",
        {"[database] connection": "mysql+pymysql://glance:d4tabase@10.0.0.8:3306/glance"},
    ),
    "a default of what is not there": (
        "database_address: \"{{ nowhere | default('db') }}\"\n",
        {"[database] connection": "mysql+pymysql://glance:d4tabase@db:3306/glance"},
    ),
    "one through another": (
        'a: "{{ b }}1"\nb: "{{ c | int + 1 }}"\nc: "7"\nglance_api_port: "{{ a }}"\n', {"[DEFAULT] bind_port": "81"}),
    "stores computed": (
        "glance_backends:\n  - {name: file, type: file, enabled: true}\n  - {name: http, type: http, enabled: false}\n"
        "glance_store_backends: \"{{ glance_backends | selectattr('enabled', 'equalto', true) | list }}\"\n",
        {"[DEFAULT] enabled_backends": "file:file"},
    ),
    "a switch by the others": (
        "glance_backend_s3: no\n"
        'glance_backend_file: "{{ not (glance_backend_ceph | bool or glance_backend_s3 | bool) }}"\n',
        {"[DEFAULT] enabled_backends": "file:file"},
    ),
    "what kolla has as its default": (
        'glance_backend_swift: "{{ enable_swift | bool }}"\nenable_glance: "{{ enable_openstack_core | bool }}"\n',
        {"[DEFAULT] enabled_backends": "file:file"},
    ),
    "what only a node knows, as kolla says it": (
        "api_interface_address: \"{{ 'api' | kolla_address }}\"\n"
        'openstack_service_workers: "{{ [ansible_facts.processor_vcpus, 5] | min }}"\n',
        {"[DEFAULT] bind_host": "10.0.1.71", "[DEFAULT] workers": None},
    ),
    "braces that are none": (
        "glance_database_user: !unsafe 'a{{b}}c'\nx: \"{{ glance_database_user }}\"\nglance_keystone_user: '{{ x }}'\n",
        {"[keystone_authtoken] username": "a{{b}}c"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", EXPRESSIONS)
def test_expressions(desk: Desk, case: str) -> None:
    text, expected = EXPRESSIONS[case]
    found = values(desk.render(text))
    assert {line: found.get(line, [None])[0] for line in expected} == expected


def control_host(desk: Desk, *words: str) -> subprocess.CompletedProcess[str]:
    """The command as the deployer has it, with Ansible's own templar."""
    return subprocess.run(
        [environment(".venv-deploy", "xloud-image"), "config", "render", "--globals", desk.globals, "--output",
         desk.path / "out", *words],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_ansibles_own_templar_reads_the_same(desk: Desk) -> None:
    """All of them at once, and what only Ansible has: filters and lookups."""
    texts = [text for name, (text, _) in EXPRESSIONS.items() if name in ("several lines", "workers of every service",
             "what only a node knows, as kolla says it", "a switch by the others")]  # fmt: skip
    seen = "".join(texts).replace('openstack_service_workers: "{{ [ansible_facts.processor_vcpus, 5] | min }}"\n', "")
    desk.globals.write_text(
        ADDRESS + seen + "glance_keystone_user: !unsafe 'a{{b}}c'\n"
        "glance_tag: \"{{ lookup('ansible.builtin.env', 'TAG_OF_TEST') | default('none', true) }}\"\n"
        "glance_api_port: \"{{ '9' ~ ('x' | ansible.builtin.hash('sha1') | regex_replace('[^0-9]', ''))[:3] }}\"\n"
    )
    done = control_host(desk)
    assert done.returncode == 0, done.stderr
    text = (desk.path / "out" / "glance-api.conf").read_text()
    assert "workers = 3\n" in text
    assert "@10.0.0.8:3306/glance\n" in text
    assert "username = a{{b}}c\n" in text
    assert "bind_port = 9116\n" in text  # of 11f6ad8ec52a…
    facts = json.loads((desk.path / "out" / "deployment.json").read_text())
    assert facts["container"]["image"].endswith(":none")
    desk.globals.write_text(ADDRESS + 'glance_api_port: "{{ nowhere }}"\nglance_tag: "{{ 1 | nofilter }}"\n')
    done = control_host(desk)
    assert "glance_api_port: refers to {{ nowhere }}, which is not given" in done.stderr
    assert "glance_tag: uses the filter 'nofilter', which is not known here" in done.stderr


def encrypted(desk: Desk, text: str, *, name: str = "") -> str:
    """By ansible-vault itself."""
    password = desk.path / "vault"
    password.write_text("open sesame\n")
    words = ["encrypt_string", "--stdin-name", name] if name else ["encrypt", "--output", "-"]
    done = subprocess.run(
        [environment(".venv-deploy", "ansible-vault"), *words, "--vault-password-file", password],
        input=text, capture_output=True, text=True, check=True,
        env={**os.environ, "ANSIBLE_HOME": str(desk.path / "ansible")},
    )  # fmt: skip
    return done.stdout + "\n"


def test_secrets_that_are_encrypted(desk: Desk) -> None:
    value = encrypted(desk, "s3{{cr}}et", name="glance_s3_store_secret_key")
    more = "glance_backend_s3: yes\nglance_s3_store_host: h\nglance_s3_store_access_key: a\nglance_s3_store_bucket: b\n"
    errors = desk.refused(more + value)
    assert errors[0] == (
        "globals.yml:6: glance_s3_store_secret_key: is encrypted by ansible-vault; name the file with its password: "
        "--vault-password-file FILE, or ANSIBLE_VAULT_PASSWORD_FILE"
    )
    desk.globals.write_text(ADDRESS + more + value)
    vault = vaults.of_file(desk.path / "vault")
    rendered = render.render(render.Inputs(desk.globals, vault=vault))
    assert values(rendered)["[s3] s3_store_secret_key"] == ["s3{{cr}}et"]
    # a whole file, and a program that tells the password
    desk.write("passwords.yml", "").write_text(
        encrypted(desk, ("glance_database_password: one\nglance_keystone_password: two\nmemcache_secret_key: three\n"))
    )
    program = desk.write("tell", "#!/bin/sh\necho open sesame\n")
    program.chmod(0o755)
    rendered = render.render(render.Inputs(desk.globals, vault=vaults.of_file(program)))
    assert values(rendered)["[keystone_authtoken] password"] == ["two"]
    assert any("passwords.yml: is encrypted by ansible-vault" in error for error in desk.refused())
    desk.write("vault", "another\n")
    with pytest.raises(ConfigError, match=r"the password in .*vault is not its own"):
        render.render(render.Inputs(desk.globals, vault=vaults.of_file(desk.path / "vault")))


def test_a_database_of_somebody_else(desk: Desk) -> None:
    rendered = desk.render("use_preconfigured_databases: yes\nuse_common_mariadb_user: 'no'\ndatabase_address: db\n")
    assert rendered.facts["database"] == {"create": False}
    assert values(rendered)["[database] connection"] == ["mysql+pymysql://glance:d4tabase@db:3306/glance"]
    desk.write("passwords.yml", "database_password: r00t\nglance_keystone_password: k\nmemcache_secret_key: m\n")
    rendered = desk.render("use_preconfigured_databases: yes\nuse_common_mariadb_user: yes\ndatabase_user: shared\n")
    assert values(rendered)["[database] connection"] == ["mysql+pymysql://shared:r00t@10.0.1.71:3306/glance"]
    assert rendered.passwords.made == ()
    assert "has no effect without" in told(desk.render("use_common_mariadb_user: yes\n"), "warning")


# globals → the line about what does nothing; "": no line
NOTHING = {
    'enable_glance_image_cache: "no"\n': "",
    'glance_enable_image_cache: "yes"\nglance_cache_max_size: 99\n': "",
    "glance_cache_max_size: 99\n": "glance_cache_max_size: has no effect without glance_enable_image_cache",
    "haproxy_glance_api_client_timeout: 12h\n": "deploy/haproxy/glance.cfg says 6h, change it there",
    "haproxy_client_body_timeout: 300s\n": "413 comes from image_size_cap or a full store",
    "glance_cache_staleness_seconds: 86400\n": "the data of an image never changes",
    "glance_cache_prefetcher_delay: 300\n": "fetched within seconds",
    'glance_audit_events: "all"\n': "nobody has such a setting",
    'nova_verify_glance_signatures: "yes"\n': "it is an option of Nova",
    "glance_dev_mode: yes\n": "no source is mounted",
}  # fmt: skip


@pytest.mark.parametrize("text", NOTHING)
def test_what_does_nothing_is_said(desk: Desk, text: str) -> None:
    said = told(desk.render(text), "warning")
    assert (NOTHING[text] in said) if NOTHING[text] else not said


def test_a_cache_by_two_names(desk: Desk) -> None:
    errors = desk.refused('enable_glance_image_cache: "no"\nglance_enable_image_cache: "yes"\n')
    assert "is another name for glance_enable_image_cache" in errors[0]


def test_what_an_override_says_of_stores(desk: Desk) -> None:
    desk.write("config/glance/glance-api.conf", "[glance_store]\nstores = file, http\ndefault_store = file\n")
    rendered = desk.render("glance_backend_ceph: yes\nglance_backend_file: yes\nglance_backend_http: yes\n")
    assert values(rendered)["[glance_store] default_backend"] == ["file"]
    assert "[glance_store] default_store" not in values(rendered)
    assert "taken as default_backend" in told(rendered, "warning")
    assert "stores: is not used: the globals say which stores there are" in told(rendered, "warning")
    desk.write("config/glance/glance-api.conf", "[glance_store]\nstores = swift\ndefault_store = swift\n")
    errors = desk.refused("glance_backend_file: yes\n")
    assert len(errors) == 2
    assert all('set glance_backend_swift: "yes" in the globals' in error for error in errors)


def test_what_an_override_asks_that_is_not_built(desk: Desk) -> None:
    desk.write("config/glance/glance-api.conf", "[DEFAULT]\nimage_cache_dir = /var/cache/images\n")
    assert "would switch the image cache on" in told(desk.render(""), "warning")


def test_files_at_another_place(desk: Desk) -> None:
    desk.write("glance/policy.yaml", '"get_image": "!"\n')
    desk.write("glance/property-protections.conf", "[.*]\n")
    said = told(desk.render(""), "warning").replace(f"{desk.path}/", "")
    assert "glance/policy.yaml: is not read; overrides lie in config: move it to config/glance/policy.yaml" in said
    assert "move it to config/glance/property-protections-rules.conf" in said
    # the same folder named as that of the overrides
    rendered = desk.render(f"node_custom_config: {desk.path}\n")
    assert "policy.yaml" in rendered.files
    assert not told(rendered, "warning")


# the inventory


def deployer(configdir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [environment(".venv-deploy", "xavs-ansible"), "genconfig", "--configdir", configdir, *words],
        env={**os.environ, "ANSIBLE_HOME": str(configdir / "ansible"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_platforms_inventory_is_used(desk: Desk) -> None:
    desk.globals.write_text("kolla_internal_vip_address: 127.0.0.9\n")
    nodes = desk.write("nodes", "[control]\nelsewhere ansible_connection=local\n[glance-api:children]\ncontrol\n")
    done = deployer(desk.path)
    assert f"inventory: {nodes}" in done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert (desk.path / ".rendered" / "elsewhere" / "glance-api.conf").is_file()
    nodes.write_text("[control]\nelsewhere ansible_connection=local\n")
    done = deployer(desk.path)
    assert done.returncode == 1
    assert "has no host in the group glance-api, so nothing would be done" in done.stderr
    done = deployer(desk.path, "-i", "all-in-one")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (desk.path / ".rendered" / "localhost").is_dir()


def test_what_is_encrypted_beside_the_inventory(desk: Desk) -> None:
    """Where the hosts are counted, as in the run, with the same password."""
    desk.globals.write_text("kolla_internal_vip_address: 127.0.0.9\n")
    desk.write("nodes", "[glance-api]\nelsewhere ansible_connection=local\n")
    desk.write("group_vars/all.yml", encrypted(desk, "nova_x: hush\n"))
    done = deployer(desk.path)
    assert done.returncode == 1
    assert "cannot be read" in done.stderr
    done = deployer(desk.path, "--vault-password-file", str(desk.path / "vault"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (desk.path / ".rendered" / "elsewhere" / "glance-api.conf").is_file()
