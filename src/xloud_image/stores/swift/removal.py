"""Deleting an object of any kind from Swift: a plain one, a static or a dynamic large one. Whose it is says `store`."""

from __future__ import annotations

import re
from urllib.parse import unquote

from xloud_image.errors import StoreUnavailable
from xloud_image.stores.swift.client import Container


async def remove_object(container: Container, name: str) -> None:
    """With its segments; the name goes last, so whatever fails can be repeated. `BlobNotFound`, `StoreUnavailable`."""
    found = await container.done("HEAD", name, headers={"X-Newest": "true"})
    query = None
    if found.headers.get("X-Static-Large-Object", "").lower() == "true":
        query = {"multipart-manifest": "delete"}
    elif manifest := found.headers.get("X-Object-Manifest"):
        await _remove_segments(container, name, unquote(manifest))
    answer = await container.done("DELETE", name, query=query)
    if query and (result := answer.json()).get("Errors"):
        raise StoreUnavailable(f"segments stay for now: {result['Response Status']}")


async def _remove_segments(container: Container, name: str, manifest: str) -> None:
    """Of a dynamic large object: whatever begins as its manifest says; beside a `<name>-` only numbers."""
    where, _, prefix = manifest.partition("/")
    if not prefix:
        return
    rest = r"\d{5,}" if prefix == f"{name}-" else ".*"
    segment = re.compile(re.escape(prefix) + rest, re.DOTALL)
    there = container.beside(where)
    await there.remove([one async for one in there.names(prefix) if segment.fullmatch(one)])
