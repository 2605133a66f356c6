"""Names of the wider deployment that may stand in the same globals: accepted, told as not used. Data only.

`kolla.json` holds those of kolla-ansible, made by `make kolla-keys` from the releases that it names.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

# services and tools of a cloud that are deployed by others: `<name>_…` and `enable_<name>…`
SERVICES: Final = """
ansible aodh barbican bifrost blackbox blazar cadvisor ceilometer ceph cephadm chrony cinder cloudkitty collectd
computes_need coredns cron cyborg dashboards database designate dns docker dpdk elasticsearch elasticsearch_curator etcd
fernet fluentd freezer gnocchi grafana hacluster haproxy heat hnas horizon hostnqn influxdb ironic iscsi iscsid kafka
keepalived keystone kibana kolla kuryr letsencrypt libvirt loadbalancer logstash magnum manila mariadb masakari
memcached migrate mistral monasca mongodb multipathd murano mysql netdata neutron neutron_provider nfs nova octavia om
opendaylight opensearch openstack openvswitch ovn ovs ovsdpdk pacemaker placement prometheus proxysql qdrouterd qinling
rabbitmq radosgw rally redis rgw rpc notify s3 sahara searchlight selinux senlin skydive skyline solum storage swift
syslog tacker telegraf tempest tgtd trove tunnel valkey venus vitrage vmtp vmware watcher xavs xdeploy xen zfssa
zookeeper zun
""".split()
_BEGINS: Final = re.compile(rf"(?:enable_)?(?:{'|'.join(sorted(map(re.escape, SERVICES)))})(?:_|\Z)")
_OURS: Final = re.compile(r"(?:enable_)?(?:ceph_)?glance|haproxy_glance")


@functools.cache
def _kolla() -> Mapping[str, Any]:
    table: Mapping[str, Any] = json.loads(resources.files(__package__).joinpath("kolla.json").read_text("utf-8"))
    return table


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(_kolla()["names"])


def is_kollas(name: str) -> bool:
    """Whether a release of kolla-ansible has this key."""
    return name in _names()


def values() -> Mapping[str, str]:
    """The keys of its group_vars that have a plain value by default, as text."""
    found: Mapping[str, str] = _kolla()["values"]
    return found


def fingerprint(value: Any) -> str:
    """Of texts, lists and mappings of them; blanks do not count."""
    text = re.sub(r"\s+", "", json.dumps(value, sort_keys=True).replace("\\n", ""))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_default(name: str, value: Any) -> bool:
    """Whether a value is the very expression that kolla-ansible has as the default of a key."""
    return fingerprint(value) in _kolla()["defaults"].get(name, ())


def looks_like_ours(name: str) -> bool:
    """Whether a name begins like those of the image service."""
    return _OURS.match(name) is not None


def belongs_elsewhere(name: str) -> bool:
    """Whether a key is known to concern other services. What begins like a key of ours never does."""
    return not looks_like_ours(name) and (is_kollas(name) or _BEGINS.match(name) is not None)
