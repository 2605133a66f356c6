"""Ends what died half-way: takes claims whose lease has run out, and only those; other rows are never touched.

Each process runs one; a claim is taken by one of them. Work of processes that died on this very node is taken at
once, everything else when its lease runs out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from xloud_image.db import claims, images
from xloud_image.failpoints import reach
from xloud_image.model import Claim
from xloud_image.services import data, deletions, hashing
from xloud_image.services.service import Service, is_dead
from xloud_image.stores.base import Caller

log = structlog.get_logger(__name__)


async def run(service: Service) -> None:
    """Until cancelled: renew the leases of what this process works on, take expired ones. Survives a lost database.

    Renewing waits for no store: a store that hangs must not cost the uploads into the others their leases.
    """
    lease = service.settings.lease_time
    working: dict[str, asyncio.Task[None]] = {}
    seen = _Seen(lease / 2)

    async def look() -> None:
        for store, left in (await _left(service, seen)).items():
            if store not in working or working[store].done():
                working[store] = service.spawn(_settle_all(service, left), "settle what was left")
        await hashing.look(service)

    async with asyncio.TaskGroup() as group:
        group.create_task(_every(lease / 3, lambda: renew(service)))
        group.create_task(_every(service.settings.reaper_interval, look))


async def _every(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the next turn may succeed
            log.warning("the reaper could not work", error=str(error))
        await asyncio.sleep(seconds)


async def renew(service: Service) -> None:
    """All claims that this process works on live on."""
    held, lease = service.held, service.settings.lease_time
    if held:
        await service.db.write(lambda conn: claims.renew_all(conn, service.holder, held, lease=lease))


async def once(service: Service) -> None:
    """Settle or postpone every claim that is nobody's any more."""
    await asyncio.gather(*(_settle_all(service, left) for left in (await _left(service, _Seen(0))).values()))


class _Seen:
    """Leases that were found expired. The database's clock may have been set forward, and then every lease looks so:
    whoever lives renews his within a third of it. So one counts only when it is found again as it was, `wait` seconds
    later by the clock that nobody sets."""

    def __init__(self, wait: float) -> None:
        self._wait = wait
        self._first: dict[tuple[str, str | None, object], float] = {}

    def lasting(self, found: list[Claim]) -> list[Claim]:
        """Those that nobody holds, and those that were expired at an earlier look already."""
        now = time.monotonic()
        keys = {claim.id: (claim.id, claim.holder, claim.lease_until) for claim in found}
        self._first = {key: self._first.get(key, now) for key in keys.values()}
        return [c for c in found if c.holder is None or now - self._first[keys[c.id]] >= self._wait]


async def _left(service: Service, seen: _Seen) -> dict[str, list[Claim]]:
    """Claims that are nobody's any more, by store: one that hangs keeps no other waiting. What this process works on is
    its own, whatever the clock says; what waits to be digested has a queue of its own."""
    found = seen.lasting(await service.db.read(lambda conn: claims.expired(conn, but="hash")))
    held = await service.db.read(claims.held)
    dead = [claim for claim in held if claim.holder is not None and is_dead(claim.holder)]
    for claim in dead:
        if claim.kind == "hash":  # back into its queue
            await service.db.write(lambda conn, claim=claim: claims.give_back(conn, claim.id, claim.holder or ""))  # type: ignore[misc]
    mine = frozenset(service.held)
    by_store: dict[str, list[Claim]] = {}
    for claim in {claim.id: claim for claim in (*found, *dead)}.values():
        if claim.id not in mine and claim.kind != "hash":
            by_store.setdefault(claim.store, []).append(claim)
    return by_store


async def _settle_all(service: Service, left: list[Claim]) -> None:
    for claim in left:
        mine = await _take(service, claim)
        if mine is not None:
            await reach("reaper.taken")
            with service.holding(mine):
                await _settle(service, mine)


async def _take(service: Service, claim: Claim) -> Claim | None:
    was = claim.holder if claim.holder is not None and is_dead(claim.holder) else None
    lease = service.settings.lease_time
    return await service.db.write(lambda conn: claims.take(conn, claim.id, service.holder, lease=lease, was=was))


async def _settle(service: Service, claim: Claim) -> None:
    log.info("settling what was left", kind=claim.kind, image=claim.image_id, store=claim.store)
    try:
        if claim.kind == "write":
            await _undo_write(service, claim)
        else:
            await _finish_delete(service, claim)
    except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
        await deletions.postpone(service, claim, error)


async def _undo_write(service: Service, claim: Claim) -> None:
    """The claim exists, so no location was committed: its bytes belong to nobody."""
    store = service.stores.get(claim.store)
    if store is None:
        await data.requeue(service, claim)
        raise LookupError(f"the store '{claim.store}' is not configured now")
    image = await service.db.read(lambda conn: images.get(conn, claim.image_id, hidden=True))
    try:
        # nobody's token is at hand, but whose account it is may matter to the store
        await store.discard(claim.key, caller=Caller(project=image.owner if image else None))
    except Exception:
        await data.requeue(service, claim)
        raise
    await reach("reaper.bytes_gone")
    await data.release(service, claim)


async def _finish_delete(service: Service, claim: Claim) -> None:
    if claim.scope == "image":
        await service.db.write(lambda conn: deletions.finish_delete(conn, claim.image_id))
    await deletions.pay(service, claim)
    await reach("reaper.bytes_gone")
    await service.db.write(lambda conn: claims.end(conn, claim.id, holder=service.holder))
