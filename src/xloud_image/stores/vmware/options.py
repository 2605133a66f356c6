"""The vmware store as a type: its options, and what globals say about it."""

from __future__ import annotations

from typing import Final

from oslo_config import cfg

from xloud_image.stores.store_type import Globals, Key, StoreType


def _datastores(g: Globals) -> list[str] | None:
    """`<datacenter>:<datastore>` of the two older keys."""
    center, store = g.get("vmware_vcenter_name"), g.get("vmware_datastore_name")
    return [f"{center}:{store}"] if center and store else None


VMWARE: Final = StoreType(
    name="vmware",
    store="xloud_image.stores.vmware.store:VmwareStore",
    schemes=("vsphere",),
    place=("vmware_server_host", "vmware_store_image_dir"),
    options=(
        cfg.StrOpt("vmware_server_host", required=True, help="Name or address of vCenter or ESXi."),
        cfg.StrOpt("vmware_server_username", required=True, help="User."),
        cfg.StrOpt("vmware_server_password", secret=True, required=True, help="Password."),
        cfg.MultiStrOpt("vmware_datastores", required=True, help="datacenter path:datastore:weight, one or more."),
        cfg.StrOpt("vmware_store_image_dir", default="/openstack_glance", help="Folder in the datastore."),
        cfg.BoolOpt("vmware_insecure", default=False, deprecated_name="vmware_api_insecure", help="Do not verify TLS."),
        cfg.StrOpt("vmware_ca_file", help="CA file; wins over vmware_insecure."),
        cfg.IntOpt("vmware_api_retry_count", default=10, min=0, help="How often a call is tried again."),
        cfg.IntOpt("vmware_task_poll_interval", default=5, min=1, help="Seconds between two looks at a task."),
    ),
    switch="glance_backend_vmware",
    keys={
        "vmware_server_host": Key(also=("vmware_vcenter_host_ip",)),
        "vmware_server_username": Key(also=("vmware_vcenter_host_username",)),
        "vmware_server_password": Key(also=("vmware_vcenter_host_password",)),
        "vmware_datastores": Key(_datastores, "vmware_vcenter_name and vmware_datastore_name"),
        "vmware_insecure": Key(also=("glance_vmware_api_insecure",)),
    },
    more_keys=("vmware_vcenter_name", "vmware_datastore_name"),
)
