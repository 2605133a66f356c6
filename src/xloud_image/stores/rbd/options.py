"""The rbd store as a type: its options, and what globals say about it."""

from __future__ import annotations

from typing import Final

from oslo_config import cfg

from xloud_image.stores.store_type import StoreType

RBD: Final = StoreType(
    name="rbd",
    store="xloud_image.stores.rbd.store:RbdStore",
    schemes=("rbd",),
    cloned=True,
    place=("rbd_store_ceph_conf", "rbd_store_pool"),
    options=(
        cfg.StrOpt("rbd_store_pool", default="images", help="Pool."),
        cfg.StrOpt("rbd_store_user", help="Client name without 'client.'; unset: as ceph.conf says."),
        cfg.StrOpt("rbd_store_ceph_conf", default="", help="Path of ceph.conf; empty: where the library looks."),
        cfg.IntOpt("rbd_store_chunk_size", default=8, min=1, help="MiB of one object and of one write."),
        cfg.IntOpt("rados_connect_timeout", default=-1, help="Seconds; 0 or less: the library's default."),
        cfg.BoolOpt("rbd_thin_provisioning", default=False, help="Do not write parts that are all zeros."),
    ),
    switch="glance_backend_ceph",
    # rendered from those of the cluster
    keys=dict.fromkeys(("rbd_store_pool", "rbd_store_user", "rbd_store_ceph_conf")),
    more_keys=(
        "ceph_glance_pool_name",
        "ceph_glance_user",
        "ceph_glance_keyring",
        "ceph_cluster",
        "external_ceph_cephx_enabled",
        "glance_ceph_backends",
    ),
)
