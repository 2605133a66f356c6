"""Numbers for Prometheus at /metrics, with `[xloud] metrics`: of requests, the stores' layers and the image cache.

All processes of a service write into one folder of this host, and whichever is asked adds up what all have written. The
numbers name stores and tell how much is done, so they are for those who may see the stores in detail.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from xloud_image.api.state import context, runtime
from xloud_image.cache.directory import Directory
from xloud_image.errors import ImageServiceError
from xloud_image.services.runtime import Runtime

PATH: Final = "/metrics"
REQUESTS: Final = Counter("xloud_image_requests_total", "Requests that were answered.", ("method", "status"))
_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # the library looks there when it is imported


async def show(request: web.Request) -> web.Response:
    """GET /metrics → 200, for administrators and services."""
    runtime(request).policy.require(context(request), "stores_info_detail")
    text = await asyncio.to_thread(_text) + await _of_cache(runtime(request))
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _of_cache(runtime: Runtime) -> bytes:
    """What this node's image cache takes now; nothing without one."""
    if runtime.cache is None:
        return b""
    try:
        images, size = await runtime.cache.act(Directory.usage)
    except ImageServiceError:
        return b""
    registry = CollectorRegistry()
    Gauge("xloud_image_cache_images", "Images in the cache of this node.", registry=registry).set(images)
    Gauge("xloud_image_cache_taken_bytes", "Bytes of the disk that they take.", registry=registry).set(size)
    limit = runtime.cache.directory.limit
    Gauge("xloud_image_cache_limit_bytes", "Bytes that they may take.", registry=registry).set(limit)
    return generate_latest(registry)


def _text() -> bytes:
    if not os.environ.get(_FOLDER):
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
