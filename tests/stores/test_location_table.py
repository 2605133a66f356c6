"""Which store of a configuration with all types, and several of a type, each form of a location means: the forms that
this service and every release of its peer wrote, with credentials in them or without. No server is asked."""

from pathlib import Path
from typing import Final

import pytest

from xloud_image.config import loader
from xloud_image.model import Location
from xloud_image.stores import TYPES
from xloud_image.stores.layers import Layer
from xloud_image.stores.rbd.store import RbdStore
from xloud_image.stores.registry import Stores

ID: Final = "6f0e2c5a-53c0-4dc1-b7b9-0a5c0e4f8a11"
VOLUME: Final = "b1d9ff3e-0a57-4a53-9c58-6c5a1b7d6f20"
FSID: Final = "2f1e7a3c-9f0b-4c1d-8a66-0d6f5e4b3a21"
REMOTE: Final = "7d4c9b1e-2a6f-4e35-9c70-1b8e5f3a2d64"

# id → (type, options)
STORES: Final[dict[str, tuple[str, str]]] = {
    "disk": ("file", "filesystem_store_datadir = /srv/disk/"),
    "disks": ("file", "filesystem_store_datadirs = /srv/first:200, /srv/second:100"),
    "bucket": (
        "s3",
        "s3_store_host = https://s3.example.com\ns3_store_bucket = images\n"
        "s3_store_access_key = AK\ns3_store_secret_key = SK",
    ),
    "archive": (
        "s3",
        "s3_store_host = https://s3.example.com\ns3_store_bucket = archive\n"
        "s3_store_access_key = AK\ns3_store_secret_key = SK",
    ),
    "gateway": (
        "s3",
        "s3_store_host = 10.0.0.5:7480\ns3_store_bucket = images\ns3_store_access_key = AK\ns3_store_secret_key = SK",
    ),
    "objects": (
        "swift",
        "swift_store_auth_address = http://10.0.1.71:5000/v3\nswift_store_user = service:glance\n"
        "swift_store_key = key\nswift_store_container = glance",
    ),
    "spread": (
        "swift",
        "swift_store_auth_address = https://keystone.example.com/identity/v3\nswift_store_user = service:glance\n"
        "swift_store_key = key\nswift_store_container = images\nswift_store_multiple_containers_seed = 2",
    ),
    "owned": (
        "swift",
        "swift_store_auth_address = http://10.0.1.71:5000/v3\nswift_store_user = service:glance\n"
        "swift_store_key = key\nswift_store_container = tenants\nswift_store_multi_tenant = true",
    ),
    "vcenter": (
        "vmware",
        "vmware_server_host = 10.0.10.20\nvmware_server_username = u\nvmware_server_password = p\n"
        "vmware_datastores = Rack One/dc1:ds1:100\nvmware_datastores = Rack One/dc1:ds 2:50",
    ),
    "esxi": (
        "vmware",
        "vmware_server_host = [2001:db8::5]:8443\nvmware_server_username = u\nvmware_server_password = p\n"
        "vmware_datastores = ha-datacenter:local:100\nvmware_store_image_dir = /images",
    ),
    "fast": ("rbd", "rbd_store_pool = images"),
    "slow": ("rbd", "rbd_store_pool = images/slow"),
    "remote": ("rbd", "rbd_store_pool = images\nrbd_store_ceph_conf = /etc/ceph/remote.conf"),
    "volumes": (
        "cinder",
        "cinder_volume_type = image-store\ncinder_endpoint_template = http://10.0.1.71:8776/v3/%(project_id)s",
    ),
    "web": ("http", ""),
}

FORMS: Final = [
    # file
    (f"file:///srv/disk/{ID}", "disk"),
    (f"filesystem:///srv/disk/{ID}", "disk"),
    (f"file:///srv//disk//{ID}", "disk"),
    (f"file:///srv/first/{ID}", "disks"),
    (f"file:///srv/second/{ID}", "disks"),
    # s3, before and after the credentials were left out
    (f"s3+https://s3.example.com/images/{ID}", "bucket"),
    (f"s3+https://s3.example.com:443/images/{ID}", "bucket"),
    (f"s3+https://AK:SK@s3.example.com/images/{ID}", "bucket"),
    (f"s3+https://OLD:gone@s3.example.com/images/{ID}", "bucket"),
    (f"s3+https://AK:a/b+c=@s3.example.com/images/{ID}", "bucket"),
    (f"s3+https://AK:a%2Fb@s3.example.com/images/{ID}", "bucket"),
    (f"s3+https://AK:a@b/c@s3.example.com/images/{ID}", "bucket"),
    (f"s3://s3.example.com/images/{ID}", "bucket"),  # from the time before it spoke TLS
    (f"s3+http://AK:SK@s3.example.com:80/images/{ID}", "bucket"),
    (f"s3+https://s3.example.com/archive/{ID}", "archive"),
    (f"s3+https://AK:SK@s3.example.com/archive/{ID}", "archive"),
    (f"s3://10.0.0.5:7480/images/{ID}", "gateway"),
    (f"s3+http://10.0.0.5:7480/images/{ID}", "gateway"),
    (f"s3://AK:SK@10.0.0.5:7480/images/{ID}", "gateway"),
    # swift: in one account, by options in the ini file and by reference; in the account of the uploader
    (f"swift+http://service%3Aglance:key@10.0.1.71:5000/v3/glance/{ID}", "objects"),
    (f"swift+http://service:glance:key@10.0.1.71:5000/v3/glance/{ID}", "objects"),
    (f"swift+http://service%3Aglance:o%2Fld%40key@10.0.1.71:5000/v3/glance/{ID}", "objects"),
    (f"swift+config://ref1/glance/{ID}", "objects"),
    (f"swift+config://ref1/images_{ID[:2]}/{ID}", "spread"),
    (f"swift+https://service%3Aglance:key@keystone.example.com/identity/v3/images_{ID[:2]}/{ID}", "spread"),
    (f"swift+https://service%3Aglance:key@keystone.example.com/identity/v3/images/{ID}", "spread"),
    (f"swift://service%3Aglance:key@keystone.example.com/identity/v3/images/{ID}", "spread"),
    (f"swift+http://swift.example.com/v1/AUTH_abc/tenants_{ID}/{ID}", "owned"),
    (f"swift+https://swift.example.com:8080/swift/v1/AUTH_abc/tenants_{ID}/{ID}", "owned"),
    # vmware
    (f"vsphere://10.0.10.20/folder/openstack_glance/{ID}?dsName=ds1&dcPath=Rack+One%2Fdc1", "vcenter"),
    (f"vsphere://10.0.10.20/folder/openstack_glance/{ID}?dcPath=Rack%20One/dc1&dsName=ds1", "vcenter"),
    (f"vsphere://10.0.10.20/folder/openstack_glance/{ID}?dsName=ds+2&dcPath=Rack+One%2Fdc1", "vcenter"),
    (f"vsphere://10.0.10.20/folder/openstack_glance/{ID}?dsName=ds%202", "vcenter"),
    (f"vsphere://[2001:db8::5]:8443/folder/images/{ID}?dsName=local", "esxi"),
    (f"vsphere://[2001:db8::5]:8443/folder/images/{ID}?dcPath=ha-datacenter&dsName=local", "esxi"),
    # rbd; the oldest form has neither cluster nor pool: the first store takes it
    (f"rbd://{FSID}/images/{ID}/snap", "fast"),
    (f"rbd://{FSID}/images%2Fslow/{ID}/snap", "slow"),
    (f"rbd://{REMOTE}/images/{ID}/snap", "remote"),
    (f"rbd://{ID}", "fast"),
    # cinder; volumes of an older release name no store, later ones name it as it was called then
    (f"cinder://volumes/{VOLUME}", "volumes"),
    (f"cinder://{VOLUME}", "volumes"),
    (f"cinder://called-otherwise/{VOLUME}", "volumes"),
    # http
    ("http://example.com/images/ubuntu.qcow2", "web"),
    ("https://example.com:8443/a%20b?c=d", "web"),
    ("https://user:password@example.com/image", "web"),
]

NOBODYS: Final = [
    "",
    ID,
    f"/srv/disk/{ID}",
    f"file:///srv/other/{ID}",
    f"file:///srv/disk/below/{ID}",
    f"file:///srv/disk/../other/{ID}",
    "file:///srv/disk/../../etc/passwd",
    "file:///srv/disk/",
    f"file://srv/disk/{ID}",
    f"s3+https://s3.example.com/elsewhere/{ID}",
    f"s3+https://s3.other.com/images/{ID}",
    f"s3+https://s3.example.com/images/below/{ID}",
    f"s3+https://s3.example.com/{ID}",
    f"s3+https://s3.example.com@evil.example.com/images/{ID}",
    f"s3://10.0.0.5/images/{ID}",
    f"s3+ftp://s3.example.com/images/{ID}",
    f"swift+config://ref2/glance/{ID}",
    f"swift+config://ref1/other/{ID}",
    f"swift+http://service%3Aglance:key@10.0.1.72:5000/v3/glance/{ID}",
    f"swift+http://other%3Aglance:key@10.0.1.71:5000/v3/glance/{ID}",
    f"swift+http://service%3Aglance:key@10.0.1.71:5000/v3/other/{ID}",
    f"swift+http://swift.example.com/v1/AUTH_abc/others_{ID}/{ID}",
    f"vsphere://10.0.10.21/folder/openstack_glance/{ID}?dsName=ds1&dcPath=Rack+One%2Fdc1",
    f"vsphere://10.0.10.20/folder/other/{ID}?dsName=ds1&dcPath=Rack+One%2Fdc1",
    f"vsphere://10.0.10.20/folder/openstack_glance/{ID}?dsName=ds3&dcPath=Rack+One%2Fdc1",
    f"vsphere://10.0.10.20/folder/openstack_glance/{ID}?dsName=ds1&dcPath=dc2",
    f"vsphere://10.0.10.20/folder/openstack_glance/../{ID}?dsName=ds1",
    f"vsphere://10.0.10.20/folder/openstack_glance/{ID}",
    f"rbd://{FSID}/vms/{ID}/snap",
    f"rbd://{REMOTE}/images%2Fslow/{ID}/snap",
    f"rbd://{ID}/images/{ID}/snap",
    f"rbd://{FSID}/images/{ID}",
    f"rbd://{FSID}/images/{ID}/snap/more",
    "rbd://",
    "cinder://",
    f"cinder://volumes/below/{VOLUME}",
    "cinder://volumes/no-volume",
    "ftp://example.com/image",
    "http://",
    "https:///image",
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    file = tmp_path_factory.mktemp("config") / "glance-api.conf"
    pairs = ", ".join(f"{name}:{kind}" for name, (kind, _) in STORES.items())
    text = f"[DEFAULT]\nenabled_backends = {pairs}\n[glance_store]\ndefault_backend = disk\n[xloud]\nauth = none\n"
    text += "[os_glance_staging_store]\nfilesystem_store_datadir = /srv/staging\n"
    text += "".join(f"[{name}]\n{options}\n" for name, (_, options) in STORES.items())
    file.write_text(text)
    settings = loader.load([Path(file)], env={}).require()
    made = Stores(settings.stores, settings.default_store)
    for name in STORES:
        store = made[name]
        while isinstance(store, Layer):
            store = store.inner
        if isinstance(store, RbdStore):  # which cluster it is comes from ceph.conf, or from the cluster
            store._cluster.fsid = REMOTE if name == "remote" else FSID
    return made


def name_of(stores: Stores, url: str, metadata: dict[str, object]) -> str | None:
    found = stores.of(Location(url, metadata))
    return found.name if found is not None else None


@pytest.mark.parametrize(("url", "name"), FORMS)
def test_a_form_means_its_store(stores: Stores, url: str, name: str) -> None:
    """Whatever the row's metadata says: nothing, the id, one that is gone, one that means another store by now."""
    assert name_of(stores, url, {}) == name
    assert name_of(stores, url, {"store": name}) == name
    for stale in ("renamed-long-ago", "os_glance_staging_store", 7, "", None):
        assert name_of(stores, url, {"store": stale}) == name
    for other in stores.names:
        if not stores[other].owns(url):
            assert name_of(stores, url, {"store": other}) == name


@pytest.mark.parametrize(("url", "name"), FORMS)
def test_no_other_store_takes_it(stores: Stores, url: str, name: str) -> None:
    """But where the form itself says less than the configuration: the pool, the volume's store."""
    says_little = url in (f"rbd://{ID}", f"cinder://{VOLUME}", f"cinder://called-otherwise/{VOLUME}")
    owners = [other for other in stores.names if stores[other].owns(url)]
    assert owners == [name] or (says_little and name in owners)


@pytest.mark.parametrize(("url", "name"), FORMS)
def test_the_forms_of_a_url(stores: Stores, url: str, name: str) -> None:
    """They are its store's, mean the same data as it does, and hold no login."""
    store = stores[name]
    forms = store.forms(url)
    for form in (*forms[1:], url):
        assert store.owns(form)
        assert store.forms(form)[0] == forms[0]
        assert store.key(form) == store.key(url)
    assert all("@" not in form for form in forms if form != url)
    assert store.key(url) in (ID, f"{ID}-0a1b2c3d", None) or ID not in url
    assert (store.key(url) is None) is (name in ("web", "volumes"))


SAME: Final = [
    ("disk", f"file:///srv/disk/{ID}", f"filesystem:///srv//disk//{ID}"),
    ("fast", f"rbd://{FSID}/images/{ID}/snap", f"rbd://{ID}"),
    ("fast", f"rbd://{FSID}/images/{ID}/snap", f"rbd://{FSID}/images/{ID}/another"),
    ("fast", f"rbd://{FSID}/images/{ID}/snap", f"rbd://{FSID}/images/%36{ID[1:]}/snap"),
    ("bucket", f"s3+https://s3.example.com/images/{ID}", f"s3+https://AK:S/K@S3.Example.com:443/images/{ID}"),
    ("objects", f"swift+config://ref1/glance/{ID}", f"swift+http://service%3Aglance:key@10.0.1.71:5000/v3/glance/{ID}"),
    ("volumes", f"cinder://volumes/{VOLUME}", f"cinder://{VOLUME.upper()}"),
    ("vcenter", f"vsphere://10.0.10.20/folder/openstack_glance/{ID}?dsName=ds1&dcPath=Rack+One%2Fdc1",
     f"vsphere://10.0.10.20:443/folder/openstack_glance/{ID}?dcPath=Rack%20One%2Fdc1&dsName=ds1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "one", "other"), SAME)
def test_spellings_of_the_same_data(stores: Stores, name: str, one: str, other: str) -> None:
    store = stores[name]
    assert store.owns(one)
    assert store.owns(other)
    assert store.forms(one)[0] == store.forms(other)[0]


def test_other_data_are_no_spelling(stores: Stores) -> None:
    firsts = [(stores[name].forms(url)[0], url) for url, name in FORMS if name != "web"]
    other = "00000000-53c0-4dc1-b7b9-0a5c0e4f8a11"
    for url, name in FORMS:
        changed = url.replace(ID, other)
        if changed != url and stores[name].owns(changed):
            assert stores[name].forms(changed)[0] not in [first for first, _ in firsts]


@pytest.mark.parametrize("url", NOBODYS)
def test_what_is_nobodys(stores: Stores, url: str) -> None:
    assert [name for name in stores.names if stores[name].owns(url)] == []
    assert name_of(stores, url, {}) is None
    assert name_of(stores, url, {"store": "gone"}) is None


def test_every_type_is_here() -> None:
    assert {kind for kind, _ in STORES.values()} == set(TYPES)
    assert {name for _, name in FORMS} == set(STORES)


def test_reserved_stores_hold_no_locations(stores: Stores) -> None:
    assert name_of(stores, f"file:///srv/staging/{ID}", {}) is None
    assert name_of(stores, f"file:///srv/staging/{ID}", {"store": "os_glance_staging_store"}) is None


@pytest.mark.parametrize("url", [url for url, _ in FORMS])
def test_no_url_makes_a_store_stumble(stores: Stores, url: str) -> None:
    """Parts cut off, doubled or strange: an answer, never an error."""
    for at in range(len(url)):
        for strange in (
            url[:at],
            url[at:],
            url[:at] + "\0" + url[at:],
            url[:at] + "%zz" + url[at:],
            f"{url[:at]}[{url[at:]}",
        ):
            name_of(stores, strange, {})
