"""Ends what died half-way: takes claims whose lease has run out, and only those; other rows are never touched.

Each process runs one; a claim is taken by one of them. Work of processes that died on this very node is taken at
once, everything else when its lease runs out.
"""

from __future__ import annotations

import asyncio

import structlog

from xloud_image.db import claims, images
from xloud_image.failpoints import reach
from xloud_image.model import Claim
from xloud_image.services import data, digests, owed
from xloud_image.services.service import Service, is_dead

log = structlog.get_logger(__name__)


async def run(service: Service) -> None:
    """Until cancelled: renew our own leases, take expired ones. A database that is away is waited for."""
    settings = service.settings
    every = max(0.2, min(settings.reaper_interval, settings.lease_time / 3))
    next_look = 0.0
    loop = asyncio.get_running_loop()
    while True:
        try:
            await renew(service)
            if loop.time() >= next_look:
                next_look = loop.time() + settings.reaper_interval
                await once(service)
        except Exception as error:  # noqa: BLE001 - the next turn may succeed
            log.warning("the reaper could not work", error=str(error))
        await asyncio.sleep(every)


async def renew(service: Service) -> None:
    """All claims that this process works on live on."""
    lease = service.settings.lease_time
    await service.db.write(lambda conn: claims.renew_all(conn, service.holder, lease=lease))


async def once(service: Service) -> int:
    """Settle every claim that is nobody's any more; the number of claims settled or postponed."""
    done = 0
    found = await service.db.read(claims.expired)
    held = await service.db.read(claims.list_all)
    dead = [claim for claim in held if claim.holder is not None and is_dead(claim.holder)]
    for claim in {claim.id: claim for claim in (*found, *dead)}.values():
        mine = await _take(service, claim)
        if mine is None:
            continue
        await reach("reaper.taken")
        await _settle(service, mine)
        done += 1
    return done


async def _take(service: Service, claim: Claim) -> Claim | None:
    was = claim.holder if claim.holder is not None and is_dead(claim.holder) else None
    lease = service.settings.lease_time
    return await service.db.write(lambda conn: claims.take(conn, claim.id, service.holder, lease=lease, was=was))


async def _settle(service: Service, claim: Claim) -> None:
    log.info("settling what was left", kind=claim.kind, image=claim.image_id, store=claim.store)
    try:
        if claim.kind == "write":
            await _undo_write(service, claim)
        elif claim.kind == "hash":
            await digests.settle(service, claim)
        else:
            await _finish_delete(service, claim)
    except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
        await owed.postpone(service, claim, error)


async def _undo_write(service: Service, claim: Claim) -> None:
    """The claim exists, so no location was committed: its bytes belong to nobody."""
    store = service.stores.get(claim.store)
    if store is None:
        await data.requeue(service, claim)
        raise LookupError(f"the store '{claim.store}' is not configured now")
    try:
        await store.discard(claim.image_id)
    except Exception:
        await data.requeue(service, claim)
        raise
    await reach("reaper.bytes_gone")
    await data.release(service, claim)


async def _finish_delete(service: Service, claim: Claim) -> None:
    if claim.scope == "image":
        await service.db.write(lambda conn: images.finish_delete(conn, claim.image_id))
    await owed.pay(service, claim)
    await reach("reaper.bytes_gone")
    await service.db.write(lambda conn: claims.end(conn, claim.id))
