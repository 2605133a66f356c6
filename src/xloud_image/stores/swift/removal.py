"""Deleting an object of any kind from Swift: a plain one, a static or a dynamic large one. Whose it is says `store`."""

from __future__ import annotations

import re
from urllib.parse import unquote

from xloud_image.errors import StoreUnavailable
from xloud_image.stores.swift.accounts import Access
from xloud_image.stores.swift.client import Client


async def remove_object(client: Client, access: Access, container: str, name: str) -> None:
    """With its segments; the name goes last, so whatever fails can be repeated. `BlobNotFound`, `StoreUnavailable`."""
    found = await client.ask("HEAD", access, container, name, headers={"X-Newest": "true"})
    if not found.ok:
        raise client.failure(found.status)
    query = None
    if found.headers.get("X-Static-Large-Object", "").lower() == "true":
        query = {"multipart-manifest": "delete"}
    elif manifest := found.headers.get("X-Object-Manifest"):
        await _remove_segments(client, access, name, unquote(manifest))
    answer = await client.ask("DELETE", access, container, name, query=query)
    if not answer.ok:
        raise client.failure(answer.status)
    if query and (result := answer.json()).get("Errors"):
        raise StoreUnavailable(f"store {client.name}: segments stay for now: {result['Response Status']}")


async def _remove_segments(client: Client, access: Access, name: str, manifest: str) -> None:
    """Of a dynamic large object: whatever begins as its manifest says; beside a `<name>-` only numbers."""
    container, _, prefix = manifest.partition("/")
    if not prefix:
        return
    rest = r"\d{5,}" if prefix == f"{name}-" else ".*"
    segment = re.compile(re.escape(prefix) + rest, re.DOTALL)
    names = [one async for one in client.names(access, container, prefix) if segment.fullmatch(one)]
    await client.remove(access, container, names)
