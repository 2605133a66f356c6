"""The operators' guide to backends: each ini block in it is read as it stands. What this release cannot open is refused
by name; what the loader understands of it is looked at as well."""

import re
from pathlib import Path

import pytest

from tests.config.conftest import Read, told
from xloud_image.config import stores as loading
from xloud_image.config.store_options import OPTIONS

GUIDE = (Path(__file__).parents[1] / "data" / "image-storage-backends.md").read_text()
BLOCKS = {
    title: "".join(line.removeprefix("    ") for line in body.splitlines(keepends=True))
    for title, body in re.findall(
        r'^ *```ini title="glance-api\.conf — ([^"]+)".*?\n(.*?)^ *```', GUIDE, re.MULTILINE | re.DOTALL
    )
}

MEANING = {
    "custom directory": ("file", {"filesystem_store_datadir": "/mnt/glance_images/"}),
    "Swift backend": (
        "swift",
        {
            "swift_store_auth_address": "http://10.0.1.71:5000/v3",
            "swift_store_user": "service:glance",
            "swift_store_key": "<glance-service-password>",
            "swift_store_container": "glance",
            "swift_store_create_container_on_put": True,
            "swift_store_multi_tenant": False,
        },
    ),
    "S3 backend": (
        "s3",
        {
            "s3_store_host": "https://s3.example.com",
            "s3_store_access_key": "<access-key>",
            "s3_store_secret_key": "<secret-key>",
            "s3_store_bucket": "glance-images",
            "s3_store_create_bucket_on_put": True,
            "s3_store_large_object_size": 100,
            "s3_store_large_object_chunk_size": 10,
        },
    ),
    "VMware datastore backend": (
        "vmware",
        {
            "vmware_server_host": "10.0.10.20",
            "vmware_server_username": "administrator@vsphere.local",
            "vmware_server_password": "<password>",
            "vmware_datastores": ["DatacenterName:DatastoreName:100"],
            "vmware_store_image_dir": "/openstack_glance",
            "vmware_insecure": False,
            "vmware_task_poll_interval": 5,
        },
    ),
    "Cinder backend": (
        "cinder",
        {
            "cinder_catalog_info": "volumev3::internalURL",
            "cinder_volume_type": "image-store",
            "cinder_store_user_name": "glance",
            "cinder_store_auth_address": "http://10.0.1.71:5000/v3",
            "cinder_store_project_name": "service",
            "cinder_store_password": None,
        },
    ),
    "HTTP backend": ("http", {}),
}


def test_every_block_of_the_guide_is_here() -> None:
    assert set(BLOCKS) == set(MEANING)


@pytest.mark.parametrize("title", MEANING)
def test_what_this_release_does_with_it(read: Read, title: str) -> None:
    type_, _ = MEANING[title]
    loaded = read(BLOCKS[title])
    if type_ == "file":
        assert not loaded.refusals
    else:
        (note,) = loaded.refusals
        assert note.text.startswith(f"stores of type {type_} are not built in this release")
    assert not [note for note in loaded.notes if note.kind == "unknown"]


@pytest.mark.parametrize("title", MEANING)
def test_what_the_loader_understands(read: Read, title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "BUILT", frozenset(OPTIONS))
    type_, options = MEANING[title]
    loaded = read(BLOCKS[title])
    assert not loaded.refusals
    (store,) = loaded.settings.stores
    assert (store.id, store.type, loaded.settings.default_store) == (type_, type_, type_)
    assert {name: store.options[name] for name in options} == options
    guess = told(loaded, "[glance_store] default_backend", "warning")
    assert any("stands without enabled_backends" in line for line in guess), "the guide's style is a guess, and told"
    assert any("410" in line for line in guess) == (type_ == "http")
