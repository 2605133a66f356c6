"""The file that the deployment tool of today's operators renders, whole."""

import pytest

from tests.config.conftest import Read, told

RENDERED = """
[DEFAULT]
debug = False
log_file = /var/log/kolla/glance/glance-api.log
worker_self_reference_url = http://10.0.1.11:9292
bind_host = 10.0.1.11
bind_port = 9292
workers = 5
enabled_backends = file:file
transport_url = rabbit://openstack:r4bbit@10.0.1.11:5672,openstack:r4bbit@10.0.1.12:5672//

[database]
connection = mysql+pymysql://glance:m4riadb@10.0.1.10:3306/glance
connection_recycle_time = 10
max_pool_size = 1
max_retries = -1

[keystone_authtoken]
service_type = image
www_authenticate_uri = http://10.0.1.10:5000
auth_url = http://10.0.1.10:5000
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = glance
password = k3ystone
cafile =
region_name = RegionOne
memcache_security_strategy = ENCRYPT
memcache_secret_key = m3mcache
memcached_servers = 10.0.1.11:11211,10.0.1.12:11211

[paste_deploy]
flavor = keystone

[glance_store]
default_backend = "file"

[file]
filesystem_store_datadir = /var/lib/glance/images/

[os_glance_tasks_store]
filesystem_store_datadir = /var/lib/glance/tasks_work_dir

[os_glance_staging_store]
filesystem_store_datadir = /var/lib/glance/staging

[oslo_middleware]
enable_proxy_headers_parsing = True

[oslo_concurrency]
lock_path = /var/lib/glance/tmp

[oslo_messaging_notifications]
transport_url = rabbit://openstack:r4bbit@10.0.1.11:5672//
driver = noop

[oslo_messaging_rabbit]
use_queue_manager = true
heartbeat_in_pthread = false
rabbit_quorum_queue = true
rabbit_transient_quorum_queue = true
rabbit_stream_fanout = true
rabbit_qos_prefetch_count = 1

[cors]
allowed_origin = http://10.0.1.10
"""
SECRETS = ("r4bbit", "m4riadb", "k3ystone", "m3mcache")


def test_it_is_served_as_written(read: Read) -> None:
    loaded = read(RENDERED, open_door=False)
    settings = loaded.require()
    server, database, auth = settings.server, settings.database, settings.auth
    assert (server.bind_host, server.bind_port, server.workers) == ("10.0.1.11", 9292, 5)
    assert server.enable_proxy_headers_parsing
    assert database.connection == "mysql+pymysql://glance:m4riadb@10.0.1.10:3306/glance"
    assert (database.connection_recycle_time, database.max_pool_size, database.max_retries) == (10, 1, -1)
    assert auth.method == "keystone"
    assert auth.keystone is not None
    assert auth.keystone.memcached_servers == ("10.0.1.11:11211", "10.0.1.12:11211")
    assert auth.keystone.cafile is None
    assert settings.default_store == "file"
    assert [(store.id, store.reserved, store.options["filesystem_store_datadir"]) for store in settings.stores] == [
        ("file", False, "/var/lib/glance/images/"),
        ("os_glance_staging_store", True, "/var/lib/glance/staging"),
        ("os_glance_tasks_store", True, "/var/lib/glance/tasks_work_dir"),
    ]
    assert settings.log_file == "/var/log/kolla/glance/glance-api.log"
    assert settings.cors.allowed_origin == ("http://10.0.1.10",)


def test_what_is_told_of_it(read: Read) -> None:
    loaded = read(RENDERED, open_door=False)
    assert [(note.severity, note.kind, note.about) for note in loaded.findings] == [
        ("note", "ignored", "[oslo_concurrency] lock_path"),
    ]


def test_no_secret_of_it_is_shown(read: Read) -> None:
    loaded = read(RENDERED, open_door=False)
    for text in (repr(loaded), str(loaded.resolved), " ".join(map(str, loaded.findings))):
        assert not [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize(
    ("more", "option"),
    [
        ("[DEFAULT]\nenabled_backends = file:tape\n", "[DEFAULT] enabled_backends"),
        ("[DEFAULT]\nproperty_protection_file = /etc/glance/rules.conf\n", "[DEFAULT] property_protection_file"),
    ],
)  # fmt: skip
def test_variants_that_this_release_refuses(read: Read, more: str, option: str) -> None:
    assert [note.about for note in read(RENDERED, more, open_door=False).refusals] == [option]


def test_the_variant_with_a_cache(read: Read) -> None:
    more = """\
        [DEFAULT]
        image_cache_max_size = 10737418240
        image_cache_dir = /var/lib/glance/image-cache
        [paste_deploy]
        flavor = keystone+cachemanagement
    """
    loaded = read(RENDERED, more, open_door=False)
    assert not loaded.refusals
    assert loaded.settings.cache.image_cache_dir == "/var/lib/glance/image-cache"
    assert not told(loaded, "[paste_deploy] flavor", "warning")
