"""The table of globals: what is written, and which lines it becomes. The service's loader reads every rendering."""

import json

import pytest

from tests.deploy.conftest import Desk, told, values
from xavs import passwords, render, variables
from xavs.variables import Type
from xloud_image.stores import TYPES

# what a deployment without any key of ours gets
ALWAYS = {
    "[DEFAULT] debug": "False",
    "[DEFAULT] bind_host": "10.0.1.71",
    "[DEFAULT] bind_port": "9292",
    "[DEFAULT] worker_self_reference_url": "http://10.0.1.71:9292",
    "[DEFAULT] enabled_backends": "file:file",
    "[xloud] graceful_timeout": "60",
    "[xloud] shutdown_delay": "5",
    "[database] connection": "mysql+pymysql://glance:d4tabase@10.0.1.71:3306/glance",
    "[database] connection_recycle_time": "10",
    "[database] max_retries": "-1",
    "[keystone_authtoken] service_type": "image",
    "[keystone_authtoken] www_authenticate_uri": "http://10.0.1.71:5000",
    "[keystone_authtoken] auth_url": "http://10.0.1.71:5000",
    "[keystone_authtoken] auth_type": "password",
    "[keystone_authtoken] project_domain_id": "default",
    "[keystone_authtoken] user_domain_id": "default",
    "[keystone_authtoken] project_name": "service",
    "[keystone_authtoken] username": "glance",
    "[keystone_authtoken] password": "k3ystone",
    "[keystone_authtoken] region_name": "RegionOne",
    "[paste_deploy] flavor": "keystone",
    "[glance_store] default_backend": "file",
    "[file] filesystem_store_datadir": "/var/lib/glance/images/",
    "[os_glance_tasks_store] filesystem_store_datadir": "/var/lib/glance/tasks_work_dir",
    "[os_glance_staging_store] filesystem_store_datadir": "/var/lib/glance/staging",
    "[oslo_middleware] enable_proxy_headers_parsing": "True",
}
S3 = """
glance_backend_s3: "yes"
glance_s3_store_host: "https://s3.example.com"
glance_s3_store_access_key: "<access-key>"
glance_s3_store_secret_key: "<secret-key>"
glance_s3_store_bucket: "glance-images"
"""
VMWARE = """
glance_backend_vmware: yes
glance_vmware_server_host: 10.0.10.20
glance_vmware_server_username: administrator@vsphere.local
glance_vmware_server_password: pa$$word
glance_vmware_datastores: ["DatacenterName:DatastoreName:100"]
"""
CEPH = 'glance_backend_ceph: "yes"\n'
RBD = {
    "[DEFAULT] enabled_backends": "rbd:rbd",
    "[DEFAULT] show_image_direct_url": "True",
    "[glance_store] default_backend": "rbd",
    "[rbd] rbd_store_user": "glance",
    "[rbd] rbd_store_pool": "images",
    "[rbd] rbd_store_ceph_conf": "/etc/ceph/ceph.conf",
    "[file] filesystem_store_datadir": None,
}

# globals → lines that must stand there; None: no such line
TABLE: dict[str, tuple[str, dict[str, str | None]]] = {
    "nothing": ("", {}),
    "the document's file store": ('glance_backend_file: "yes"\nglance_file_datadir_volume: glance\n', {}),
    "the document's Ceph": (
        'glance_backend_ceph: "yes"\nglance_backend_file: "no"\nceph_glance_keyring: ceph.client.glance.keyring\n'
        "ceph_glance_pool_name: images\n",
        RBD,
    ),
    "the document's Swift": (
        'glance_backend_swift: "yes"\nglance_backend_file: "no"\nglance_swift_store_container: glance\n'
        'glance_swift_store_create_container_on_put: "true"\n',
        {
            "[DEFAULT] enabled_backends": "swift:swift",
            "[glance_store] default_backend": "swift",
            "[swift] swift_store_container": "glance",
            "[swift] swift_store_create_container_on_put": "True",
            "[swift] swift_store_multi_tenant": "False",
            "[swift] swift_store_region": "RegionOne",
            "[swift] swift_store_config_file": "/etc/glance/glance-swift.conf",
            "[swift] default_swift_reference": "swift",
            "[swift] swift_store_user": None,
            "[swift] swift_store_key": None,
            "[swift] swift_store_auth_insecure": None,
            "[file] filesystem_store_datadir": None,
        },
    ),
    "the document's S3": (
        S3 + 'glance_backend_file: "no"\n',
        {
            "[DEFAULT] enabled_backends": "s3:s3",
            "[DEFAULT] show_image_direct_url": None,
            "[glance_store] default_backend": "s3",
            "[s3] s3_store_host": "https://s3.example.com",
            "[s3] s3_store_access_key": "<access-key>",
            "[s3] s3_store_secret_key": "<secret-key>",
            "[s3] s3_store_bucket": "glance-images",
        },
    ),
    "S3 by its upstream names": (
        "glance_backend_s3: yes\nglance_backend_s3_url: http://10.0.0.9:7480\nglance_backend_s3_access_key: a\n"
        "glance_backend_s3_secret_key: b\nglance_backend_s3_bucket: c\n",
        {"[s3] s3_store_host": "http://10.0.0.9:7480", "[s3] s3_store_bucket": "c", "[s3] s3_store_access_key": "a"},
    ),
    "S3 by the names shared with backups": (
        "glance_backend_s3: yes\ns3_url: http://10.0.0.9\ns3_access_key: a\ns3_secret_key: b\ns3_bucket: c\n",
        {"[s3] s3_store_host": "http://10.0.0.9", "[s3] s3_store_bucket": "c"},
    ),
    "both names of S3 with the same value": (
        S3 + 'glance_backend_s3_url: "https://s3.example.com"\n',
        {"[s3] s3_store_host": "https://s3.example.com"},
    ),
    "VMware by keys of its own": (
        VMWARE,
        {
            "[DEFAULT] enabled_backends": "vmware:vmware",
            "[glance_store] default_backend": "vmware",
            "[vmware] vmware_server_host": "10.0.10.20",
            "[vmware] vmware_server_username": "administrator@vsphere.local",
            "[vmware] vmware_server_password": "pa$$$$word",
            "[vmware] vmware_datastores": "DatacenterName:DatastoreName:100",
            "[vmware] vmware_insecure": None,
        },
    ),
    "VMware by its upstream names": (
        "glance_backend_vmware: yes\nvmware_vcenter_host_ip: 10.0.10.20\nvmware_vcenter_host_username: u\n"
        "vmware_vcenter_host_password: p\nvmware_vcenter_name: DC\nvmware_datastore_name: ds1\n",
        {"[vmware] vmware_server_host": "10.0.10.20", "[vmware] vmware_datastores": "DC:ds1"},
    ),
    "Cinder": (
        "glance_backend_cinder: yes\nglance_cinder_volume_type: image-store\n",
        {
            "[DEFAULT] enabled_backends": "cinder:cinder",
            "[DEFAULT] show_image_direct_url": "True",
            "[glance_store] default_backend": "cinder",
            "[cinder] cinder_catalog_info": "block-storage::internalURL",
            "[cinder] cinder_store_auth_address": "http://10.0.1.71:5000/v3",
            "[cinder] cinder_store_user_name": "glance",
            "[cinder] cinder_store_password": "k3ystone",
            "[cinder] cinder_store_project_name": "service",
            "[cinder] cinder_volume_type": "image-store",
        },
    ),
    "HTTP beside the file store": (
        "glance_backend_http: yes\nglance_https_ca_certificates_file: /etc/ssl/ca.pem\n",
        {
            "[DEFAULT] enabled_backends": "file:file, http:http",
            "[glance_store] default_backend": "file",
            "[http] https_ca_certificates_file": "/etc/ssl/ca.pem",
        },
    ),
    "HTTP alone": (
        'glance_backend_http: yes\nglance_backend_file: "no"\n',
        {"[DEFAULT] enabled_backends": "http:http", "[glance_store] default_backend": "http"},
    ),
    "everything at once": (
        CEPH + S3 + VMWARE + "glance_backend_swift: yes\nglance_backend_cinder: yes\nglance_backend_http: yes\n"
        "glance_backend_file: yes\nglance_store_weights: {rbd: 10, s3: 5}\nglance_store_descriptions: {s3: Far away}\n"
        "glance_store_import_formats: {rbd: raw, s3: as_is}\n",
        {
            "[DEFAULT] enabled_backends": "rbd:rbd, s3:s3, swift:swift, vmware:vmware, cinder:cinder, file:file, "
            "http:http",
            "[glance_store] default_backend": "rbd",
            "[rbd] weight": "10",
            "[rbd] import_format": "raw",
            "[s3] import_format": "as_is",
            "[s3] weight": "5",
            "[s3] store_description": "Far away",
        },
    ),
    "a default by name": (
        CEPH + "glance_backend_file: yes\nglance_default_backend: file\n",
        {"[DEFAULT] enabled_backends": "rbd:rbd, file:file", "[glance_store] default_backend": "file"},
    ),
    "a default by scheme": (
        VMWARE + "glance_backend_file: yes\nglance_default_backend: vsphere\n",
        {"[glance_store] default_backend": "vmware"},
    ),
    "several Ceph pools": (
        CEPH + "glance_ceph_backends:\n  - {name: fast, type: rbd, pool: nvme, enabled: yes}\n"
        "  - {name: far, type: rbd, cluster: remote, pool: images, user: glance2, enabled: 'true'}\n"
        "  - {name: old, type: rbd, pool: sas, enabled: no}\n",
        {
            "[DEFAULT] enabled_backends": "fast:rbd, far:rbd",
            "[glance_store] default_backend": "fast",
            "[fast] rbd_store_pool": "nvme",
            "[fast] rbd_store_user": "glance",
            "[fast] rbd_store_ceph_conf": "/etc/ceph/ceph.conf",
            "[far] rbd_store_pool": "images",
            "[far] rbd_store_user": "glance2",
            "[far] rbd_store_ceph_conf": "/etc/ceph/remote.conf",
        },
    ),
    "stores as a list": (
        "glance_backends:\n  - {name: here, type: file, enabled: yes}\n  - {name: web, type: http, enabled: yes}\n",
        {"[DEFAULT] enabled_backends": "here:file, web:http", "[here] filesystem_store_datadir":
            "/var/lib/glance/images/"},
    ),
    "exactly these stores": (
        CEPH + "glance_store_backends: [{name: rbd, type: rbd}, {name: file, type: file}]\n",
        {"[DEFAULT] enabled_backends": "rbd:rbd, file:file"},
    ),
    "an option of a store": (
        CEPH + "glance_rbd_store_chunk_size: 4\nglance_rbd_thin_provisioning: yes\n",
        {"[rbd] rbd_store_chunk_size": "4", "[rbd] rbd_thin_provisioning": "True"},
    ),
    "several directories": (
        "glance_filesystem_store_datadirs: [/srv/a:10, /srv/b:20]\n",
        {"[file] filesystem_store_datadirs": "/srv/a:10", "[file] filesystem_store_datadir": None},
    ),
    "no clones": (CEPH + "glance_show_image_direct_url: no\n", {"[DEFAULT] show_image_direct_url": "False"}),
    "ports, names and workers": (
        "glance_api_port: 19292\nopenstack_service_workers: 3\nopenstack_logging_debug: yes\n"
        "glance_public_endpoint: https://images.example.com\napi_interface_address: 10.0.1.5\n"
        "glance_graceful_timeout: 300\n",
        {
            "[DEFAULT] bind_port": "19292",
            "[DEFAULT] bind_host": "10.0.1.5",
            "[DEFAULT] workers": "3",
            "[DEFAULT] debug": "True",
            "[DEFAULT] public_endpoint": "https://images.example.com",
            "[xloud] graceful_timeout": "300",
        },
    ),
    "an address of version 6": (
        'kolla_internal_vip_address: "fd00::1"\n',
        {
            "[DEFAULT] bind_host": "fd00::1",
            "[DEFAULT] worker_self_reference_url": "http://[fd00::1]:9292",
            "[database] connection": "mysql+pymysql://glance:d4tabase@[fd00::1]:3306/glance",
            "[keystone_authtoken] auth_url": "http://[fd00::1]:5000",
        },
    ),
    "a database elsewhere": (
        "glance_database_address: db.example.com:3307\nglance_database_user: g\nglance_database_name: img\n"
        "database_enable_tls_internal: yes\nopenstack_cacert: /etc/ssl/ca.pem\n",
        {
            "[database] connection": "mysql+pymysql://g:d4tabase@db.example.com:3307/img?ssl_ca=/etc/ssl/ca.pem",
            "[keystone_authtoken] cafile": "/etc/ssl/ca.pem",
        },
    ),
    "PostgreSQL": (
        "glance_database_connection: postgresql://g:x@10.0.0.1/glance\n",
        {"[database] connection": "postgresql://g:x@10.0.0.1/glance", "[database] max_retries": None},
    ),
    "Keystone elsewhere": (
        "keystone_internal_url: https://k.example.com/identity\nkeystone_public_url: https://k.example.org\n",
        {
            "[keystone_authtoken] auth_url": "https://k.example.com/identity",
            "[keystone_authtoken] www_authenticate_uri": "https://k.example.org",
        },
    ),
    "TLS at the balancer": (
        "kolla_enable_tls_internal: yes\n",
        {"[keystone_authtoken] auth_url": "https://10.0.1.71:5000", "[DEFAULT] worker_self_reference_url":
            "http://10.0.1.71:9292"},
    ),
    "memcached": (
        "memcached_servers: [10.0.1.11:11211, 10.0.1.12:11211]\n",
        {
            "[keystone_authtoken] memcached_servers": "10.0.1.11:11211,10.0.1.12:11211",
            "[keystone_authtoken] memcache_security_strategy": "ENCRYPT",
            "[keystone_authtoken] memcache_secret_key": "m3mcache",
        },
    ),
    "the image cache": (
        "enable_keystone: yes\nglance_enable_image_cache: yes\nglance_cache_max_size: 1000\n",
        {
            "[DEFAULT] image_cache_dir": "/var/lib/glance/image-cache",
            "[DEFAULT] image_cache_max_size": "1000",
            "[paste_deploy] flavor": "keystone+cachemanagement",
        },
    ),
    "the dashboard": (
        "horizon_public_endpoint: http://10.0.1.10\n",
        {"[cors] allowed_origin": "http://10.0.1.10"},
    ),
    "no login on loopback": (
        "glance_auth_method: none\nglance_api_bind_host: 127.0.0.1\n",
        {"[xloud] auth": "none", "[keystone_authtoken] auth_url": None, "[paste_deploy] flavor": None},
    ),
    "references between keys": (
        "glance_api_port: 19292\nbase: 10.0.0.8\ndatabase_address: '{{ base }}'\n"
        "glance_public_endpoint: 'http://{{ database_address }}:{{ glance_api_port }}'\n",
        {"[DEFAULT] public_endpoint": "http://10.0.0.8:19292"},
    ),
    "the message bus": (
        "rpc_transport_url: rabbit://a:b@c\n",
        {
            "[DEFAULT] transport_url": "rabbit://a:b@c",
            "[oslo_messaging_rabbit] rabbit_quorum_queue": "True",
            "[oslo_messaging_notifications] driver": None,
        },
    ),
    "notifications": (
        "rpc_transport_url: rabbit://a:b@c\nnotify_transport_url: rabbit://d:e@f\nenable_ceilometer: yes\n"
        "glance_notification_topics:\n  - name: notifications\n    enabled: '{{ enable_ceilometer | bool }}'\n"
        "  - {name: versioned, enabled: no}\n  - {name: audit}\n"
        "om_enable_rabbitmq_tls: yes\nom_rabbitmq_cacert: /etc/ssl/bus.pem\nom_enable_rabbitmq_quorum_queues: no\n",
        {
            "[oslo_messaging_notifications] driver": "messagingv2",
            "[oslo_messaging_notifications] topics": "notifications,audit",
            "[oslo_messaging_notifications] transport_url": "rabbit://d:e@f",
            "[oslo_messaging_rabbit] ssl": "True",
            "[oslo_messaging_rabbit] ssl_ca_file": "/etc/ssl/bus.pem",
            "[oslo_messaging_rabbit] rabbit_quorum_queue": None,
        },
    ),
    "topics that are off": (
        "rpc_transport_url: rabbit://a:b@c\nglance_notification_topics: [{name: notifications, enabled: no}]\n",
        {"[oslo_messaging_notifications] driver": None},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_globals_become_lines(desk: Desk, case: str) -> None:
    text, expected = TABLE[case]
    if "kolla_internal_vip_address" in text:
        desk.globals.write_text(text)
        found = values(desk.render())
    else:
        found = values(desk.render(text))
    shown = {line: found.get(line, [None])[0] for line in expected}
    assert shown == expected
    if not expected:
        assert {line: texts[0] for line, texts in found.items()} == ALWAYS


def test_the_account_of_swift_has_a_file_of_its_own(desk: Desk) -> None:
    rendered = desk.render("glance_backend_swift: yes\n")
    assert values(rendered, "glance-swift.conf") == {
        "[swift] auth_version": ["3"],
        "[swift] auth_address": ["http://10.0.1.71:5000/v3"],
        "[swift] user": ["service:glance"],
        "[swift] key": ["k3ystone"],
        "[swift] project_domain_id": ["default"],
        "[swift] user_domain_id": ["default"],
    }
    assert rendered.files["glance-swift.conf"][1] == 0o600


def test_every_option_of_every_store_has_a_key() -> None:
    made_of_others = {"rbd_store_pool", "rbd_store_user", "rbd_store_ceph_conf", "swift_store_config_file",
                      "default_swift_reference", "rootwrap_config"}  # fmt: skip
    for type_, one in TYPES.items():
        for opt in one.options:
            key = variables.names().get(f"glance_{opt.dest}")
            if opt.dest not in made_of_others:
                assert key is not None, (type_, opt.dest)
                assert (key.option, key.store) == (opt, type_)


@pytest.mark.parametrize("name", [key.name for key in variables.table().values() if key.type is not Type.ANY])
def test_every_key_refuses_a_mapping_of_mappings(desk: Desk, name: str) -> None:
    """Every key has a type, and a value that cannot be of it names key and line."""
    wrong = "text" if variables.table()[name].type in (Type.MAP, Type.ENTRIES) else "{a: {b: c}}"
    if name in passwords.MADE:
        desk.write("passwords.yml", "")  # it would win
    errors = desk.refused(f"{name}: {wrong}\n")
    assert any(error.startswith(f"globals.yml:2: {name}: ") for error in errors), errors


def test_where_values_come_from(desk: Desk) -> None:
    """Files of globals.d by name, then passwords, then -e."""
    desk.write("globals.d/10-port.yml", "glance_api_port: 2\nglance_graceful_timeout: 2\n")
    desk.write("globals.d/20-port.yaml", "glance_graceful_timeout: 3\n")
    rendered = desk.render("glance_api_port: 1\nglance_graceful_timeout: 1\n", "openstack_logging_debug=true",
                           '{"glance_api_workers": 7}')  # fmt: skip
    found = values(rendered)
    assert found["[DEFAULT] bind_port"] == ["2"]
    assert found["[xloud] graceful_timeout"] == ["3"]
    assert (found["[DEFAULT] debug"], found["[DEFAULT] workers"]) == (["True"], ["7"])
    origins = {line.name: str(line.origin).replace(f"{desk.path}/", "") for line in rendered.lines[render.MAIN]}
    assert origins["bind_port"] == "default of glance_api_listen_port: glance_api_port"
    assert origins["graceful_timeout"] == "globals.d/20-port.yaml:1 glance_graceful_timeout"
    assert origins["workers"] == "-e:1 glance_api_workers"
    assert origins["password"] == "passwords.yml:2 glance_keystone_password"


def test_what_is_not_used_is_listed(desk: Desk) -> None:
    rendered = desk.render(
        "nova_console: novnc\nenable_cinder: yes\nneutron_plugin_agent: ovn\nglance_dev_mode: no\n"
        "glance_database_shard_id: 1\nkolla_base_distro: debian\nprometheus_port: 9090\nnetwork_interface: eth0\n"
    )
    assert {name: why for name, _, why in rendered.unused} == {
        "nova_console": "concerns another service",
        "enable_cinder": "concerns another service",
        "neutron_plugin_agent": "concerns another service",
        "glance_dev_mode": "no source is mounted",
        "glance_database_shard_id": "no ProxySQL is used",
        "kolla_base_distro": "concerns another service",
        "prometheus_port": "concerns another service",
        "network_interface": "concerns another service",
    }


def test_clones_are_explained(desk: Desk) -> None:
    assert "only raw images are cloned" in told(desk.render(CEPH), "note")
    assert "they will copy each one" in told(desk.render(CEPH + "glance_show_image_direct_url: no\n"), "warning")


def test_http_alone_is_a_warning(desk: Desk) -> None:
    rendered = desk.render('glance_backend_http: yes\nglance_backend_file: "no"\n')
    assert "every upload that names no other store gets 410" in told(rendered, "warning")


def test_the_keyring_is_installed_where_ceph_looks(desk: Desk) -> None:
    missing = desk.render(CEPH).facts["missing"]
    assert [line.replace(f"{desk.path}/", "").partition(":")[0] for line in missing] == [
        "glance/ceph.conf",
        "glance/ceph.client.glance.keyring",
    ]
    desk.write("config/glance/ceph.conf", "[global]\n\tfsid = 1\n")
    desk.write("config/glance/other.keyring", "[client.glance]\n\tkey = s3cret\n")
    rendered = desk.render(CEPH + "ceph_glance_keyring: other.keyring\n")
    assert rendered.facts["missing"] == []
    assert rendered.files["ceph/ceph.client.glance.keyring"] == (b"[client.glance]\n\tkey = s3cret\n", 0o600)
    assert rendered.files["ceph/ceph.conf"][0] == b"[global]\n\tfsid = 1\n"
    assert "is installed under that name" in told(rendered, "warning")
    desk.write("config/glance/glance-api/ceph.conf", "[global]\n mon host = 10.0.0.1\n")
    merged = desk.render(CEPH).files["ceph/ceph.conf"][0].decode()
    assert "fsid = 1\nmon_host = 10.0.0.1\n" in merged


def test_no_secret_stands_in_the_facts(desk: Desk) -> None:
    rendered = desk.render(CEPH + S3 + VMWARE + "glance_backend_swift: yes\nkeystone_admin_password: adm1n\n"
                           "database_password: r00t\n")  # fmt: skip
    text = rendered.files[render.FACTS][0].decode() + repr(rendered)
    for secret in ("d4tabase", "k3ystone", "<secret-key>", "pa$$word", "adm1n", "r00t"):
        assert secret not in text
    assert json.loads(rendered.files[render.FACTS][0])["container"]["name"] == "glance_api"


IMAGES = {
    "": "localhost/xloud-image:0.1.0",
    "glance_tag: '5'\n": "localhost/xloud-image:5",
    "docker_registry: r:5000\ndocker_namespace: xloud\n": "r:5000/xloud/xloud-image:0.1.0",
    "glance_api_image: r/i\nglance_api_tag: x\n": "r/i:x",
    "glance_api_image_full: r/i:y\n": "r/i:y",
}


@pytest.mark.parametrize("text", IMAGES)
def test_the_image_of_the_container(desk: Desk, text: str) -> None:
    assert desk.render(text).facts["container"]["image"] == IMAGES[text]


VOLUMES = {
    "": ["glance:/var/lib/glance/"],
    "glance_file_datadir_volume: /srv/glance\n": ["/srv/glance:/var/lib/glance/"],
    "glance_extra_volumes: ['/mnt/a:/mnt/a']\n": ["glance:/var/lib/glance/", "/mnt/a:/mnt/a"],
    "glance_filesystem_store_datadir: /mnt/x/\n": ["glance:/var/lib/glance/", "/mnt/x:/mnt/x"],
    "glance_filesystem_store_datadir: /mnt/x\nglance_extra_volumes: ['/mnt/x:/mnt/x']\n":
        ["glance:/var/lib/glance/", "/mnt/x:/mnt/x"],
}  # fmt: skip


@pytest.mark.parametrize("text", VOLUMES)
def test_mounts_of_the_container(desk: Desk, text: str) -> None:
    container = desk.render(text).facts["container"]
    assert container["volumes"] == VOLUMES[text]
    assert container["privileged"] is False


def test_only_attached_volumes_need_privileges(desk: Desk) -> None:
    text = "glance_backend_cinder: yes\n"
    container = desk.render(text).facts["container"]
    assert (container["privileged"], container["user"]) == (False, "42415:42415")
    container = desk.render(text + "enable_cinder_backend_privileged: yes\n").facts["container"]
    assert (container["privileged"], container["user"]) == (True, "0:0")
    assert "/dev:/dev" in container["volumes"]


def test_globals_of_imports(desk: Desk) -> None:
    rendered = desk.render(
        'glance_enabled_import_methods: "web-download,glance-direct"\nglance_staging_store_uri: file:///var/lib/glance/in\n'
        "glance_staging_store: file\n"
        "glance_job_workers: 2\nglance_image_import_plugins: [image_conversion, image_decompression]\n"
    )
    lines = {f"[{line.group}] {line.name}": line.value for line in rendered.lines["glance-api.conf"]}
    assert lines["[DEFAULT] enabled_import_methods"] == "web-download,glance-direct"
    assert lines["[DEFAULT] node_staging_uri"] == "file:///var/lib/glance/in"
    assert lines["[xloud] job_workers"] == "2"
    assert lines["[xloud] staging_store"] == "file"
    assert lines["[image_import_opts] image_import_plugins"] == "[image_conversion,image_decompression]"
    assert "[os_glance_staging_store] filesystem_store_datadir" not in lines


def test_globals_of_metrics(desk: Desk) -> None:
    lines = {f"[{line.group}] {line.name}": line.value for line in desk.render("").lines["glance-api.conf"]}
    assert "[xloud] metrics_port" not in lines
    rendered = desk.render("glance_metrics_port: 9293\nglance_metrics_compat: yes\n").lines["glance-api.conf"]
    lines = {f"[{line.group}] {line.name}": line.value for line in rendered}
    assert lines["[xloud] metrics_port"] == "9293"
    assert lines["[xloud] metrics_host"] == lines["[DEFAULT] bind_host"]
    assert lines["[xloud] metrics_compat"].lower() == "true"


def test_globals_of_rights(desk: Desk) -> None:
    desk.write("config/glance/property-protections.conf", "[.*]\ncreate = @\nread = @\nupdate = @\ndelete = @\n")
    rendered = desk.render(
        "glance_enable_property_protection: yes\nglance_use_keystone_limits: yes\nglance_user_storage_quota: 5GB\n"
        "glance_delayed_delete: yes\nglance_scrub_time: 60\n"
    )
    lines = {f"[{line.group}] {line.name}": line.value for line in rendered.lines["glance-api.conf"]}
    assert lines["[DEFAULT] property_protection_file"] == "/etc/glance/property-protections-rules.conf"
    assert b"[.*]" in rendered.files["property-protections-rules.conf"][0]
    assert lines["[DEFAULT] use_keystone_limits"] == "True"
    assert lines["[DEFAULT] user_storage_quota"] == "5GB"
    assert (lines["[DEFAULT] delayed_delete"], lines["[DEFAULT] scrub_time"]) == ("True", "60")
