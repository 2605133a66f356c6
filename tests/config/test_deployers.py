"""Directories as the usual deployers of Glance leave them are served as they are: nothing in them is refused, and what
has no effect here is named.

The options and values are those that each of them writes for its usual choices; secrets and addresses are ours.
"""

import dataclasses
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from xloud_image.config import loader

SECRET = "s3cr3t"
KEYSTONE = """
    [keystone_authtoken]
    www_authenticate_uri = http://10.0.1.10:5000
    auth_url = http://10.0.1.10:5000
    auth_type = password
    project_domain_name = Default
    user_domain_name = Default
    project_name = service
    username = glance
    password = s3cr3t
"""


@dataclasses.dataclass(frozen=True)
class Site:
    """`files`: by their names below /etc/glance, in the order in which Glance is given those of them that end with
    .conf and stand in `given`. `stores`: what comes of them. `default`: where new images go."""

    files: Mapping[str, str]
    stores: Mapping[str, str]
    default: str
    given: tuple[str, ...] = ()


def _kolla(more: str = "", **changes: str) -> str:
    """As kolla-ansible renders glance-api.conf from 2023.1 on; `changes`: the lines that differ with its switches."""
    stores = changes.get("stores", "file:file")
    text = f"""
        [DEFAULT]
        debug = False
        log_file = /var/log/kolla/glance/glance-api.log
        worker_self_reference_url = http://10.0.1.11:9292
        bind_host = 10.0.1.11
        bind_port = {changes.get("port", "9292")}
        workers = 5
        enabled_backends = {stores}
        transport_url = rabbit://openstack:s3cr3t@10.0.1.11:5672//
        [database]
        connection = mysql+pymysql://glance:s3cr3t@10.0.1.10:3306/glance{changes.get("tls", "")}
        connection_recycle_time = 10
        max_pool_size = 1
        max_retries = -1
        {KEYSTONE}
        service_type = image
        cafile = /etc/ssl/certs/ca-certificates.crt
        region_name = RegionOne
        memcache_security_strategy = ENCRYPT
        memcache_secret_key = s3cr3t
        memcached_servers = 10.0.1.11:11211
        [paste_deploy]
        flavor = {changes.get("flavor", "keystone")}
        [glance_store]
        default_backend = "{changes.get("default", stores.partition(":")[0])}"
        [os_glance_tasks_store]
        filesystem_store_datadir = /var/lib/glance/tasks_work_dir
        [os_glance_staging_store]
        filesystem_store_datadir = /var/lib/glance/staging
        [oslo_middleware]
        enable_proxy_headers_parsing = True
        [oslo_concurrency]
        lock_path = /var/lib/glance/tmp
        [oslo_messaging_notifications]
        transport_url = rabbit://openstack:s3cr3t@10.0.1.11:5672//
        driver = noop
    """
    return text + more


FILE = "\n[file]\nfilesystem_store_datadir = /var/lib/glance/images/\n"
CEPH = """
    [rbd]
    rbd_store_user = glance
    rbd_store_pool = images
    rbd_store_chunk_size = 8
    rbd_store_ceph_conf = /etc/ceph/ceph.conf
"""
SWIFT = """
    [swift]
    swift_store_container = glance
    swift_store_multiple_containers_seed = 0
    swift_store_multi_tenant = False
    swift_store_create_container_on_put = True
    swift_store_region = RegionOne
    default_swift_reference = swift
    swift_store_config_file = /etc/glance/glance-swift.conf
    swift_store_auth_insecure = True
"""
REFERENCE = """
    [swift]
    auth_address = http://10.0.1.10:5000
    auth_version = 3
    user = service:glance
    key = s3cr3t
    project_domain_id = default
    user_domain_id = default
"""
S3 = """
    [s3]
    s3_store_host = http://10.0.1.10:6780
    s3_store_access_key = access
    s3_store_secret_key = s3cr3t
    s3_store_bucket = glance
    s3_store_create_bucket_on_put = true
"""

SITES: dict[str, Site] = {
    "kolla-ansible, files": Site({"glance-api.conf": _kolla(FILE)}, {"file": "file"}, "file"),
    "kolla-ansible, Ceph and files, 2023.1": Site(
        {
            "glance-api.conf": _kolla(
                CEPH
                + FILE
                + """
                [oslo_messaging_rabbit]
                amqp_durable_queues = true
                rabbit_ha_queues = true
                heartbeat_in_pthread = true
                [barbican]
                auth_endpoint = http://10.0.1.10:5000
                [cinder]
                os_region_name = RegionOne
                """,
                stores="file:file, rbd:rbd",
                default="rbd",
            ).replace("workers = 5", "workers = 5\nshow_image_direct_url = True\nshow_multiple_locations = True")
        },
        {"file": "file", "rbd": "rbd"},
        "rbd",
    ),
    "kolla-ansible, Swift, TLS to the database, cache, import": Site(
        {
            "glance-api.conf": _kolla(
                SWIFT,
                stores="swift:swift, http:http",
                default="swift",
                flavor="keystone+cachemanagement",
                tls="?ssl_ca=/etc/ssl/certs/ca-certificates.crt",
            ).replace(
                "workers = 5",
                "workers = 5\nimage_cache_max_size = 10737418240\nimage_cache_dir = /var/lib/glance/image-cache",
            ),
            "glance-swift.conf": REFERENCE,
            "glance-cache.conf": """
                [DEFAULT]
                log_file = /var/log/kolla/glance/glance-cache.log
                image_cache_max_size = 10737418240
                image_cache_dir = /var/lib/glance/image-cache
                [glance_store]
                filesystem_store_datadir = /var/lib/glance/images/
            """,
            "glance.conf.d/glance-image-import.conf": """
                [image_import_opts]
                image_import_plugins = [image_conversion]
                [taskflow_executor]
                conversion_format = raw
            """,
        },
        {"swift": "swift", "http": "http"},
        "swift",
        ("glance-api.conf", "glance.conf.d/glance-image-import.conf"),
    ),
    "kolla-ansible, S3, 2024.2": Site(
        {"glance-api.conf": _kolla(S3, stores="s3:s3", default="s3")}, {"s3": "s3"}, "s3"
    ),
    "kolla-ansible, quotas of Keystone": Site(
        {
            "glance-api.conf": _kolla(
                FILE
                + """
                [oslo_limit]
                auth_url = http://10.0.1.10:5000
                auth_type = password
                username = glance
                password = s3cr3t
                user_domain_name = Default
                system_scope = all
                endpoint_id = 0123456789abcdef0123456789abcdef
                """
            ).replace("workers = 5", "workers = 5\nuse_keystone_limits = true")
        },
        {"file": "file"},
        "file",
    ),
    "DevStack, one store": Site(
        {
            "glance-api.conf": f"""
                [DEFAULT]
                debug = True
                use_syslog = False
                image_cache_dir = /opt/stack/data/glance/cache/
                use_keystone_limits = True
                public_endpoint = http://10.0.1.10/image
                graceful_shutdown_timeout = 5
                transport_url = rabbit://stackrabbit:s3cr3t@10.0.1.10:5672/
                worker_self_reference_url = http://127.0.0.1:60999
                logging_exception_prefix = ERROR %(name)s %(instance)s
                logging_default_format_string = %(color)s%(levelname)s %(name)s [-%(color)s] %(message)s
                logging_context_format_string = %(color)s%(levelname)s %(name)s [%(request_id)s] %(message)s
                logging_debug_format_suffix = {{{{(pid=%(process)d) %(funcName)s %(pathname)s:%(lineno)d}}}}
                [database]
                connection = mysql+pymysql://root:s3cr3t@127.0.0.1/glance?charset=utf8&plugin=dbcounter
                [oslo_concurrency]
                lock_path = /opt/stack/data/glance/locks
                [paste_deploy]
                flavor = keystone+cachemanagement
                {KEYSTONE}
                interface = public
                memcached_servers = localhost:11211
                cafile = /opt/stack/data/ca-bundle.pem
                identity_uri = http://10.0.1.10/identity
                [oslo_messaging_notifications]
                driver = messagingv2
                transport_url = rabbit://stackrabbit:s3cr3t@10.0.1.10:5672/
                [glance_store]
                filesystem_store_datadir = /opt/stack/data/glance/images/
                [cors]
                allowed_origin = http://10.0.1.10
                [oslo_limit]
                user_domain_name = Default
                password = s3cr3t
                username = glance
                auth_type = password
                auth_url = http://10.0.1.10/identity
                system_scope = 'all'
                endpoint_id = 0123456789abcdef0123456789abcdef
                [oslo_policy]
                enforce_scope = false
                enforce_new_defaults = false
            """,
            "glance-cache.conf": """
                [DEFAULT]
                debug = True
                use_syslog = False
                image_cache_dir = /opt/stack/data/glance/cache/
                auth_url = http://10.0.1.10/identity
                admin_tenant_name = service
                admin_user = glance
                admin_password = s3cr3t
            """,
            "glance-image-import.conf": "[image_import_opts]\nimage_import_plugins = []\n",
            "glance-uwsgi.ini": "[uwsgi]\nsocket = /var/run/uwsgi/glance-wsgi-api.socket\nprocesses = 2\n",
        },
        {"file": "file", "http": "http"},  # as Glance's default of `stores`
        "file",
    ),
    "DevStack, several stores of files": Site(
        {
            "glance-api.conf": f"""
                [DEFAULT]
                enabled_backends = fast:file,cheap:file
                public_endpoint = http://10.0.1.10/image
                [database]
                connection = mysql+pymysql://root:s3cr3t@127.0.0.1/glance?charset=utf8
                [paste_deploy]
                flavor = keystone+cachemanagement
                {KEYSTONE}
                [glance_store]
                default_backend = fast
                [fast]
                filesystem_store_datadir = /opt/stack/data/glance/fast/
                [cheap]
                filesystem_store_datadir = /opt/stack/data/glance/cheap/
                [os_glance_staging_store]
                filesystem_store_datadir = /opt/stack/data/glance/os_glance_staging_store/
                [os_glance_tasks_store]
                filesystem_store_datadir = /opt/stack/data/glance/os_glance_tasks_store/
            """
        },
        {"fast": "file", "cheap": "file"},
        "fast",
    ),
    "Debian": Site(
        {
            "glance-api.conf": f"""
                [DEFAULT]
                #bind_host = 0.0.0.0
                transport_url = rabbit://guest:s3cr3t@localhost
                enabled_backends = file:file,http:http
                [database]
                connection = mysql+pymysql://glance-common:s3cr3t@localhost:3306/glancedb
                [glance_store]
                default_backend = file
                [file]
                filesystem_store_datadir = /var/lib/glance/images/
                [oslo_policy]
                policy_file = /etc/glance/policy.d/00_default_policy.yaml
                policy_dirs = /etc/glance/policy.d
                [paste_deploy]
                flavor = keystone
                {KEYSTONE}
            """,
            "policy.d/00_default_policy.yaml": '#"default": ""\n',
        },
        {"file": "file", "http": "http"},
        "file",
    ),
    "openstack-helm, Swift": Site(
        {
            "glance-api.conf": f"""
                [DEFAULT]
                bind_port = 9292
                enable_v1_api = false
                log_config_append = /etc/glance/logging.conf
                transport_url = rabbit://glance:s3cr3t@rabbitmq.openstack.svc.cluster.local:5672/glance
                workers = 1
                enabled_backends = swift:swift
                [cors]
                [database]
                connection = mysql+pymysql://glance:s3cr3t@mariadb.openstack.svc.cluster.local:3306/glance
                max_retries = -1
                [glance_store]
                default_backend = swift
                cinder_catalog_info = volumev3::internalURL
                default_swift_reference = ref1
                filesystem_store_datadir = /var/lib/glance/images
                rbd_store_ceph_conf = /etc/ceph/ceph.conf
                rbd_store_chunk_size = 8
                rbd_store_crush_rule = replicated_rule
                rbd_store_pool = glance.images
                rbd_store_replication = 3
                rbd_store_user = glance
                swift_store_config_file = /etc/glance/swift-store.conf
                swift_store_container = glance
                swift_store_create_container_on_put = true
                swift_store_endpoint_type = internalURL
                [swift]
                default_swift_reference = ref1
                swift_store_config_file = /etc/glance/swift-store.conf
                swift_store_container = glance
                swift_store_create_container_on_put = true
                swift_store_endpoint_type = internalURL
                {KEYSTONE}
                auth_version = v3
                memcache_secret_key = s3cr3t
                memcache_security_strategy = ENCRYPT
                memcached_servers = memcached.openstack.svc.cluster.local:11211
                region_name = RegionOne
                service_token_roles = service
                service_token_roles_required = true
                service_type = image
                [os_glance_staging_store]
                filesystem_store_datadir = /var/lib/glance/tmp/os_glance_staging_store
                [os_glance_tasks_store]
                filesystem_store_datadir = /var/lib/glance/tmp/os_glance_tasks_store
                [oslo_concurrency]
                lock_path = /var/lib/glance/tmp
                [oslo_messaging_notifications]
                driver = messagingv2
                [oslo_messaging_rabbit]
                rabbit_ha_queues = true
                [oslo_middleware]
                enable_proxy_headers_parsing = true
                [oslo_policy]
                policy_file = /etc/glance/policy.yaml
                [paste_deploy]
                flavor = keystone
            """,
            "swift-store.conf": """
                [ref1]
                user = service:glance
                key = s3cr3t
                auth_address = http://keystone-api.openstack.svc.cluster.local:5000/v3
                user_domain_name = service
                project_domain_name = service
                auth_version = 3
                project_domain_id =
                user_domain_id =
            """,
            "policy.yaml": "{}\n",
            "logging.conf": """
                [loggers]
                keys = root
                [handlers]
                keys = null
                [formatters]
                keys =
                [logger_root]
                level = WARNING
                handlers = null
                [handler_null]
                class = logging.NullHandler
                args = ()
            """,
            "glance-api-paste.ini": "[pipeline:glance-api-keystone]\npipeline = cors authtoken audit context rootapp\n",
        },
        {"swift": "swift"},
        "swift",
    ),
}


@pytest.mark.parametrize("name", SITES)
def test_a_deployers_directory_is_served_as_it_is(name: str, tmp_path: Path) -> None:
    site = SITES[name]
    for file, text in site.files.items():
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(_flat(text)).replace("/etc/glance", str(tmp_path)))
    loaded = loader.load([tmp_path / one for one in site.given or ("glance-api.conf",)], env={})
    assert not loaded.refusals, [str(one) for one in loaded.refusals]
    told = {store.id: store.type for store in loaded.settings.stores if not store.reserved}
    assert told == dict(site.stores)
    assert loaded.settings.server.bind_host in ("10.0.1.11", "0.0.0.0"), "as by Glance"
    assert loaded.settings.default_store == site.default
    assert SECRET not in repr(loaded) + " ".join(map(str, loaded.findings))


def _flat(text: str) -> str:
    """Lines without the indentation that they have here; a value of several lines is not among them."""
    return "\n".join(line.strip() for line in text.splitlines())


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("[pipeline:glance-api-keystone]\npipeline = cors authtoken audit context ratelimit rootapp\n",
         ["ratelimit"]),
        ("[composite:api]\nkeystone = cors authtoken mine context rootapp\ncaching = other\n[composite:rootapp]\n"
         "/v2: apiv2app\n", ["mine"]),
        ("[pipeline:glance-api-keystone]\npipeline = cors healthcheck http_proxy_to_wsgi versionnegotiation osprofiler"
         " authtoken context rootapp\n", []),
        ("[pipeline:glance-api]\npipeline = mine rootapp\n", []),
        ("no ini file", []),
        ("\0[pipeline:glance-api-keystone\n" * 1000, []),
    ],
)  # fmt: skip
def test_filters_that_do_nothing_here_are_named(text: str, missing: list[str], tmp_path: Path) -> None:
    (tmp_path / "glance-api.conf").write_text(_flat(_kolla(FILE)))
    (tmp_path / "glance-api-paste.ini").write_text(text)
    loaded = loader.load([tmp_path / "glance-api.conf"], env={})
    assert not loaded.refusals
    told = [one.sentence for one in loaded.findings if "has filters that do nothing here" in one.sentence]
    assert [all(name in one for name in missing) for one in told] == [True] * bool(missing)
    assert bool(told) is bool(missing)


@pytest.mark.parametrize("name", ["authtoken", "context", "cors", "audit", "egg:gatekeeper#gate"])
def test_such_code_under_a_known_name_is_noticed(name: str, tmp_path: Path) -> None:
    (tmp_path / "glance-api-paste.ini").write_text(
        f"[composite:api]\nkeystone = cors {name} rootapp\n"
        f"[filter:{name}]\n" + ("paste.filter_factory = gatekeeper.gate:factory\n" if ":" not in name else "")
    )
    (tmp_path / "glance-api.conf").write_text(_flat(_kolla(FILE)))
    loaded = loader.load([tmp_path / "glance-api.conf"], env={})
    assert [one.about for one in loaded.refusals] == ["[paste_deploy] flavor"]
    assert "gatekeeper" in loaded.refusals[0].sentence
    assert not loaded.settings.audit.drivers


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("paste.filter_factory = keystonemiddleware.ec2_token:filter_factory", False),
        ("use = egg:oslo.middleware#sizelimit", False),
        ("paste.filter_factory = rate_limit.middleware:factory", True),
        ("use = egg:watcher-middleware#watcher", True),
    ],
)
def test_code_that_may_keep_callers_out_is_not_left_out_unasked(code: str, refused: bool, tmp_path: Path) -> None:
    """In Glance's own form of the file; Glance runs it, and nobody can tell what it does."""
    paste = (
        "[composite:glance-api-keystone]\npaste.composite_factory = glance.api:root_app_factory\n/: api\n"
        f"[composite:api]\nkeystone = cors authtoken extra context rootapp\n[filter:extra]\n{code}\n"
    )
    (tmp_path / "other.ini").write_text(paste)
    own = _flat(_kolla(FILE)) + f"\n[paste_deploy]\nconfig_file = {tmp_path / 'other.ini'}\n"
    (tmp_path / "glance-api.conf").write_text(own)
    loaded = loader.load([tmp_path / "glance-api.conf"], env={})
    assert [one.about for one in loaded.refusals] == ["[paste_deploy] flavor"] * refused
    assert any("extra" in one.sentence for one in loaded.findings)
    (tmp_path / "glance-api.conf").write_text(own + "[xloud]\nauth = keystone\n")
    loaded = loader.load([tmp_path / "glance-api.conf"], env={})
    assert not loaded.refusals
    assert any("filters that do nothing here: extra" in one.sentence for one in loaded.findings)
