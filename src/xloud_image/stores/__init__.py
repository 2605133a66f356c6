"""The types of stores: the table that everybody asks who has to know one by its name. Each is described in `options` of
its package; configured stores are in `registry`."""

from typing import Final

from xloud_image.stores.cinder.options import CINDER
from xloud_image.stores.file.options import FILE
from xloud_image.stores.http.options import HTTP
from xloud_image.stores.rbd.options import RBD
from xloud_image.stores.s3.options import S3
from xloud_image.stores.store_type import StoreType
from xloud_image.stores.swift.options import SWIFT
from xloud_image.stores.vmware.options import VMWARE

# By name. The first of several that a deployment has takes its new images: those come first that all nodes see.
TYPES: Final[dict[str, StoreType]] = {one.name: one for one in (RBD, S3, SWIFT, VMWARE, CINDER, FILE, HTTP)}


def type_of(name: str) -> str | None:
    """The store type that a name in a file means: a type, or a URI scheme of one. None: no type has this name."""
    name = name.strip().lower()
    return next((one.name for one in TYPES.values() if name == one.name or name in one.schemes), None)
