"""Override files over globals: the document's snippets as they stand, merging, and what no override can do."""

import pytest

from tests.config.guide import SNIPPETS as BLOCKS
from tests.deploy.conftest import Desk, told, values
from xavs import render
from xloud_image.config import loader

SWITCH = {
    "custom directory": 'glance_backend_file: "yes"\n',
    "Swift backend": 'glance_backend_swift: "yes"\nglance_backend_file: "no"\n',
    "S3 backend": 'glance_backend_s3: "yes"\nglance_backend_file: "no"\n',
    "VMware datastore backend": 'glance_backend_vmware: "yes"\n',
    "Cinder backend": 'glance_backend_cinder: "yes"\n',
    "HTTP backend": 'glance_backend_http: "yes"\n',
}
TYPE = {
    "custom directory": "file",
    "Swift backend": "swift",
    "S3 backend": "s3",
    "VMware datastore backend": "vmware",
    "Cinder backend": "cinder",
    "HTTP backend": "http",
}
# snippet → options of the store as the service reads them
READ = {
    "custom directory": {"filesystem_store_datadir": "/mnt/glance_images/"},
    "Swift backend": {
        "swift_store_user": "service:glance",
        "swift_store_key": "<glance-service-password>",
        "swift_store_config_file": None,
        "swift_store_auth_address": "http://10.0.1.71:5000/v3",
    },
    "S3 backend": {"s3_store_host": "https://s3.example.com", "s3_store_create_bucket_on_put": True},
    "VMware datastore backend": {"vmware_server_host": "10.0.10.20", "vmware_task_poll_interval": 5},
    "Cinder backend": {
        "cinder_catalog_info": "volumev3::internalURL",
        "cinder_volume_type": "image-store",
        "cinder_store_password": "k3ystone",
    },
    "HTTP backend": {},
}


def test_every_snippet_is_here() -> None:
    assert set(BLOCKS) == set(SWITCH) == set(READ)


def served(desk: Desk, rendered: render.Rendered) -> loader.Loaded:
    render.write(rendered, desk.path / "out")
    return loader.load([], [desk.path / "out"], env={})


@pytest.mark.parametrize("title", SWITCH)
def test_a_snippet_of_the_document_as_override(desk: Desk, title: str) -> None:
    desk.write("config/glance/glance-api.conf", BLOCKS[title])
    loaded = served(desk, desk.render(SWITCH[title]))
    assert not loaded.refusals
    assert loaded.settings.default_store == TYPE[title]
    store = next(one for one in loaded.settings.stores if one.id == TYPE[title])
    assert {name: store.options[name] for name in READ[title]} == READ[title]


@pytest.mark.parametrize("title", [title for title in SWITCH if title != "custom directory"])
def test_a_snippet_without_its_switch_names_the_switch(desk: Desk, title: str) -> None:
    desk.write("config/glance/glance-api.conf", BLOCKS[title])
    (error,) = desk.refused('glance_backend_file: "yes"\n')
    key = SWITCH[title].partition(":")[0]
    assert error.startswith("config/glance/glance-api.conf:2: [glance_store] default_backend: ")
    assert error.endswith(f'is not enabled (the stores are: file); set {key}: "yes" in the globals')


def test_the_custom_directory_is_mounted(desk: Desk) -> None:
    desk.write("config/glance/glance-api.conf", BLOCKS["custom directory"])
    rendered = desk.render(SWITCH["custom directory"])
    assert rendered.facts["directories"] == [{"path": "/mnt/glance_images", "mount": None}]
    assert "/mnt/glance_images:/mnt/glance_images" in rendered.facts["container"]["volumes"]
    text = rendered.files[render.MAIN][0].decode()
    assert "[glance_store]\ndefault_backend = file\nfilesystem_store_datadir = /mnt/glance_images/\n" in text
    assert "/var/lib/glance/images" not in text


def test_a_persons_line_wins_over_a_rendered_one(desk: Desk) -> None:
    """Also when the globals say something else about the same option."""
    desk.write("config/glance/glance-api.conf", "[glance_store]\ns3_store_bucket = theirs\n")
    rendered = desk.render(
        "glance_backend_s3: yes\nglance_s3_store_host: h\nglance_s3_store_access_key: a\n"
        "glance_s3_store_secret_key: b\nglance_s3_store_bucket: ours\n"
    )
    store = next(one for one in served(desk, rendered).settings.stores if one.id == "s3")
    assert store.options["s3_store_bucket"] == "theirs"


def test_an_old_name_of_an_option_wins_as_well(desk: Desk) -> None:
    desk.write("config/glance/glance-api.conf", "[glance_store]\nvmware_api_insecure = true\n")
    rendered = desk.render(
        "glance_backend_vmware: yes\nglance_vmware_server_host: h\nglance_vmware_server_username: u\n"
        "glance_vmware_server_password: p\nglance_vmware_datastores: a:b\nglance_vmware_insecure: no\n"
    )
    store = next(one for one in served(desk, rendered).settings.stores if one.id == "vmware")
    assert store.options["vmware_insecure"] is True


def test_the_order_of_files(desk: Desk) -> None:
    for number, name in enumerate(
        ["global.conf", "glance.conf", "glance/glance-api.conf", "glance/node1/glance-api.conf"], 1
    ):
        desk.write(f"config/{name}", f"[DEFAULT]\nworkers = {number}\nlimit_param_default = 1{number}\n")
    desk.write("config/glance/node2/glance-api.conf", "[DEFAULT]\nworkers = 99\n")
    assert values(desk.render("", host="node1"))["[DEFAULT] workers"] == ["4"]
    assert values(desk.render("", host="node3"))["[DEFAULT] workers"] == ["3"]
    rendered = desk.render("", host="node2")
    assert values(rendered)["[DEFAULT] workers"] == ["99"]
    assert values(rendered)["[DEFAULT] limit_param_default"] == ["13"]
    text = rendered.files[render.MAIN][0].decode()
    assert text.count("[DEFAULT]") == 1, "a section stands once"


def test_repeated_lines_are_a_list(desk: Desk) -> None:
    """Within one file; a later file replaces them all."""
    desk.write("config/glance.conf", "[file]\nfilesystem_store_datadirs = /a:1\nfilesystem_store_datadirs = /b:2\n")
    loaded = served(desk, desk.render(""))
    store = next(one for one in loaded.settings.stores if one.id == "file")
    assert store.options["filesystem_store_datadirs"] == ["/a:1", "/b:2"]
    desk.write("config/glance/glance-api.conf", "[file]\nfilesystem_store_datadirs = /c:1\n")
    rendered = desk.render("")
    assert values(rendered)["[file] filesystem_store_datadirs"] == ["/c:1"]
    assert [one["path"] for one in rendered.facts["directories"]] == ["/c"]


def test_sections_in_another_case_are_the_same(desk: Desk) -> None:
    desk.write("config/glance.conf", "[Database]\nmax-retries = 3\n")
    assert values(desk.render(""))["[database] max_retries"] == ["3"]


def test_references_to_globals(desk: Desk) -> None:
    desk.write("config/glance.conf", "[DEFAULT]\npublic_endpoint = http://{{ site }}:{{ glance_api_port }}\n")
    assert values(desk.render("site: images.example.com\n"))["[DEFAULT] public_endpoint"] == [
        "http://images.example.com:9292"
    ]
    desk.write("config/glance.conf", "[DEFAULT]\n\npublic_endpoint = {{ a | b }}\nworkers = {% if x %}1\n")
    errors = desk.refused("")
    assert [error.partition(": ")[0] for error in errors[:2]] == ["config/glance.conf:3", "config/glance.conf:4"]


def test_a_policy_is_taken_along(desk: Desk) -> None:
    desk.write("config/glance/policy.yaml", '"get_images": "role:reader"\n')
    rendered = desk.render("")
    assert rendered.files["policy.yaml"] == (b'"get_images": "role:reader"\n', 0o640)
    loaded = served(desk, rendered)
    assert loaded.settings.policy.policy_file == str(desk.path / "out" / "policy.yaml")


def test_certificates_are_taken_along(desk: Desk) -> None:
    """A store's CA lies in the container where its option says; one that is missing stops the deployment, by name."""
    text = SWITCH["S3 backend"] + (
        "glance_s3_store_host: https://h\nglance_s3_store_access_key: a\nglance_s3_store_secret_key: b\n"
        "glance_s3_store_bucket: c\nglance_s3_store_cacert: /etc/glance/certificates/s3.crt\n"
    )
    (missing,) = desk.render(text).facts["missing"]
    assert missing == (
        "/etc/glance/certificates/s3.crt, which [s3] s3_store_cacert names: put it into the override directory as "
        "glance/certificates/s3.crt (the name ends in .crt or .pem)"
    )
    desk.write("config/glance/certificates/s3.crt", "a certificate")
    desk.write("config/glance/certificates/s3.key", "not this")
    rendered = desk.render(text)
    assert rendered.facts["missing"] == []
    assert rendered.files["certificates/s3.crt"] == (b"a certificate", 0o640)
    assert "certificates/s3.key" not in rendered.files


def test_the_key_of_cinders_user_is_taken_along(desk: Desk) -> None:
    """os-brick looks for it in /etc/ceph; only a Cinder store needs it."""
    desk.write("config/glance/ceph.client.cinder.keyring", "[client.cinder]\n")
    assert "ceph/ceph.client.cinder.keyring" not in desk.render("").files
    rendered = desk.render(SWITCH["Cinder backend"] + "glance_cinder_volume_type: x\n")
    assert rendered.files["ceph/ceph.client.cinder.keyring"] == (b"[client.cinder]\n", 0o600)


def test_options_for_a_store_that_is_off_are_told(desk: Desk) -> None:
    desk.write("config/glance/glance-api.conf", "[s3]\ns3_store_host = h\n[glance_store]\ncinder_volume_type = x\n")
    said = told(desk.render(""), "warning")
    assert 'set glance_backend_s3: "yes"' in said
    assert 'set glance_backend_cinder: "yes"' in said


def test_an_override_that_the_service_refuses(desk: Desk) -> None:
    desk.write(
        "config/glance/glance-api.conf",
        "[keystone_authtoken]\nenforce_token_bind = required\n[DEFAULT]\nbind_port = no\n",
    )
    errors = desk.refused("")
    assert any("[keystone_authtoken] enforce_token_bind: the service would not start" in error for error in errors)
    assert any("[DEFAULT] bind_port" in error for error in errors)


BROKEN = {
    "[DEFAULT\nx = 1\n": ":1: Invalid section (must end with ])",
    "x = 1\n": ":1: an option stands before the first [section]",
    "[DEFAULT]\nx\n": ":2: No ':' or '=' found in assignment",
    "[DEFAULT]\n  x = 1\n": ":2: Unexpected continuation line",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_override(desk: Desk, text: str) -> None:
    path = desk.overrides / "glance.conf"
    path.parent.mkdir()
    path.write_text(text)
    assert f"config/glance.conf{BROKEN[text]}" in desk.refused("")
