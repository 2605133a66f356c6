"""Names of the wider deployment that may stand in the same globals: accepted, told as not used. Data only."""

from __future__ import annotations

import re
from typing import Final

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
_ONE: Final = frozenset(
    """
    admin_protocol internal_protocol public_protocol workaround_ansible_issue_8743 nova_compute_virt_type
    timezone config_strategy config_owner_user config_owner_group project_name project_services base_distro
    base_distro_version distro_python_version distro_python_version_map node_templates virtualenv
    virtualenv_site_packages network_address_family api_address_family tunnel_interface
    storage_interface dns_interface swift_storage_interface bifrost_network_interface memcache_sasl_enabled
    ironic_interface network_interface api_interface kolla_same_external_internal_vip kolla_base_distro
    multiple_regions_names config_owner_group control_plane_host disable_firewall install_type selinux_state
    external_ceph_cephx_enabled copy_certs enable_central_logging central_logging dns_interface dns_address_family
    user_config_directory container_config_directory default_container_dimensions enable_container_healthchecks
    default_container_healthcheck_interval default_container_healthcheck_retries
    default_container_healthcheck_start_period default_container_healthcheck_timeout public_interface
    internal_interface external_interface node_custom_config enable_core_services prechecks_enable_host_os_checks
    """.split()
)
_BEGINS: Final = re.compile(rf"(?:enable_)?(?:{'|'.join(sorted(map(re.escape, SERVICES)))})(?:_|\Z)")
_OURS: Final = re.compile(r"(?:enable_)?(?:ceph_)?glance")


def belongs_elsewhere(name: str) -> bool:
    """Whether a key is known to concern other services. What begins like a key of ours never does."""
    if _OURS.match(name):
        return False
    return name in _ONE or _BEGINS.match(name) is not None
