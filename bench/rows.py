"""The rows of the table, by name: the only list of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import downloads, interference, memory, metadata, paging, uploads

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.runs import Run

ROWS: dict[str, Callable[[Run], None]] = {
    "upload": uploads.one,
    "uploads": uploads.many,
    "download": downloads.whole,
    "range": downloads.ranged,
    "show": metadata.show,
    "list": metadata.lists,
    "create": metadata.create,
    "patch": metadata.patch,
    "filter": metadata.filters,
    "slow": interference.slow,
    "memory": memory.resident,
    "walk": paging.walk,
    "pages": paging.pages,
}
