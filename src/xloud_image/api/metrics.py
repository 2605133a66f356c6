"""Numbers for Prometheus at /metrics, with `[xloud] metrics`: requests, and what the stores' layers count.

All processes of a service write into one folder of this host, and whichever is asked adds up what all have written. The
numbers name stores and tell how much is done, so they are for those who may see the stores in detail.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from xloud_image.api.state import context, runtime

PATH: Final = "/metrics"
REQUESTS: Final = Counter("xloud_image_requests_total", "Requests that were answered.", ("method", "status"))
_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # the library looks there when it is imported


async def show(request: web.Request) -> web.Response:
    """GET /metrics → 200, for administrators and services."""
    runtime(request).policy.require(context(request), "stores_info_detail")
    text = await asyncio.to_thread(_text)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _text() -> bytes:
    if not os.environ.get(_FOLDER):
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
