"""Digests of data that did not pass through us: registered locations are read once, beside requests.

A claim of kind "hash" says that it has still to be done; a process that dies leaves it to the reaper. While an image
waits for its data to be verified it is importing, with the expected digest in its row.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import structlog

from xloud_image.db import claims, images
from xloud_image.errors import BlobNotFound, NotFound, StoreUnavailable
from xloud_image.failpoints import reach
from xloud_image.identity.context import Context
from xloud_image.model import Claim, Image, Location
from xloud_image.services import foreign, owed
from xloud_image.services.service import Service
from xloud_image.streams import Flow, Summary

log = structlog.get_logger(__name__)


async def settle(service: Service, claim: Claim) -> None:
    """Read the data of a claim, compare or fill in its digests, end the claim. Failures leave it for later."""
    with service.holding(claim):
        await _settle(service, claim)


async def _settle(service: Service, claim: Claim) -> None:
    image = await service.db.read(lambda conn: images.get(conn, claim.image_id))
    if image is None or all(location.url != claim.url for location in image.locations):
        await service.db.write(lambda conn: claims.end(conn, claim.id))
        return
    try:
        summary = await _read(service, image, claim)
    except BlobNotFound as error:
        await _finish(service, claim, None, error.message)
    except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
        if image.status == "importing" and claim.attempts >= service.settings.exposure.http_retries:
            await _finish(service, claim, None, f"the data could not be read: {type(error).__name__}")
        else:
            await owed.postpone(service, claim, error)
    else:
        await reach("hash.read")
        await _finish(service, claim, summary, "the digest differs from the one announced")


async def _read(service: Service, image: Image, claim: Claim) -> Summary:
    assert claim.url is not None
    store = service.stores.of(Location(claim.url, {"store": claim.store}))
    if store is None:
        raise StoreUnavailable(f"the store '{claim.store}' is not configured now")
    location = next(location for location in image.locations if location.url == claim.url)
    algorithm = image.os_hash_algo or service.settings.hashing_algorithm
    names = ("md5", algorithm) if service.settings.legacy_md5 else (algorithm,)
    # with nobody's rights, and no further than whoever registered it may reach
    async with store.open(claim.url, caller=foreign.caller(Context(), location)) as reader:
        foreign.require_unchanged(store, location, reader, image.size)
        flow = Flow(
            _chunks(reader.chunks),
            declared=image.size,
            cap=service.settings.limits.image_size_cap,
            digests=tuple(dict.fromkeys(names)),
            inspection=None,
            pool=service.digest_pool,
        )
        async for _ in flow:
            pass
        return await flow.result()


async def _chunks(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in source:
        yield chunk


async def _finish(service: Service, claim: Claim, summary: Summary | None, why: str) -> None:
    def settled(current: Image) -> Image:
        algorithm = current.os_hash_algo or service.settings.hashing_algorithm
        value = summary.digests[algorithm] if summary else None
        if current.status == "importing":
            if value is None or value != (current.os_hash_value or "").lower():
                log.warning("a registered location was refused", image=current.id, reason=why)
                rest = tuple(item for item in current.locations if item.url != claim.url)
                return current.replace(
                    status="queued", size=None, os_hash_algo=None, os_hash_value=None, locations=rest
                )
            current = current.replace(status="active")
        if summary is None:
            return current
        return current.replace(
            checksum=summary.digests.get("md5", current.checksum), os_hash_algo=algorithm, os_hash_value=value
        )

    async def finish(conn: Any) -> None:
        if await claims.end(conn, claim.id, holder=service.holder):
            with contextlib.suppress(NotFound):
                await images.change(conn, claim.image_id, settled)

    await service.db.write(finish)
