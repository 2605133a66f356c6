"""The rows of the table, by name: the only list of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import (
    caching,
    ceph,
    conversions,
    downloads,
    imports,
    interference,
    memory,
    metadata,
    million,
    paging,
    s3,
    swift,
    uploads,
    vsphere,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.runs import Run

ROWS: dict[str, Callable[[Run], None]] = {
    "upload": uploads.one,
    "uploads": uploads.many,
    "sha256": uploads.one_digest,
    "download": downloads.whole,
    "range": downloads.ranged,
    "show": metadata.show,
    "list": metadata.lists,
    "create": metadata.create,
    "patch": metadata.patch,
    "filter": metadata.filters,
    "metadefs": metadata.metadefs,
    "slow": interference.slow,
    "hashing": interference.hashing,
    "memory": memory.resident,
    "walk": paging.walk,
    "pages": paging.pages,
    "takeover": million.takeover,
    "metrics": million.metrics,
    "cache": caching.row,
    "copy": imports.copies,
    "import": imports.three,
    "queue": imports.queue,
    "convert": conversions.row,
    "busy": conversions.busy,
    "rbd": ceph.row,
    "rbd-api": ceph.services,
    "vsphere": vsphere.row,
    "s3": s3.row,
    "swift": swift.row,
}
# those that compare running services: what `--beside` can measure
_ALONE = {
    "sha256",
    "hashing",
    "takeover",
    "metrics",
    "cache",
    "copy",
    "import",
    "queue",
    "convert",
    "busy",
    "rbd",
    "vsphere",
    "s3",
    "swift",
}
BESIDE = [name for name in ROWS if name not in _ALONE]
