"""Ends what died half-way: takes claims whose lease has run out, and only those; other rows are never touched.

Each process runs one; a claim is taken by one of them. Work of processes that died on this very node is taken at
once, everything else when its lease runs out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import claims, images, quotas
from xloud_image.db.engine import Tx
from xloud_image.errors import StoreUnavailable
from xloud_image.failpoints import reach
from xloud_image.model import Claim
from xloud_image.services import data, deletions, hashing, relay, scrubbing, uploads
from xloud_image.services.expired import Expired
from xloud_image.services.holder import is_dead
from xloud_image.services.runtime import Runtime
from xloud_image.stores.base import Caller

log = structlog.get_logger(__name__)

_RENEWED: Final = 1000  # claims in one statement
_BOUND: Final = 600.0  # seconds between two looks at how many events wait
_LATE: Final = 2  # times `store_timeout`: a server that gave no answer does what it was asked until then, or not at all
LATE: Final = "the store was sick; what it may have done late is looked for once more"
_KINDS: Final = ("write", "part", "delete")  # of claims that are settled here


async def run(runtime: Runtime) -> None:
    """Until cancelled: renew the leases of what this process works on, take expired ones. Survives a lost database.

    Renewing waits for no store: a store that hangs must not cost the uploads into the others their leases. Stores are
    worked off side by side, each claim after claim: one that hangs, or has much to do, holds up no other's.
    """
    lease = runtime.settings.lease_time
    working: dict[str, asyncio.Task[None]] = {}
    seen = Expired(lease / 2)
    scrub: asyncio.Task[int] | None = None

    async def look() -> None:
        nonlocal scrub
        for store, left in (await _left(runtime, seen)).items():
            if store not in working or working[store].done():
                working[store] = runtime.spawn(_settle_all(runtime, left), "settle what was left")
        await hashing.look(runtime)
        if runtime.settings.deletion.delayed_delete and (scrub is None or scrub.done()):
            scrub = runtime.spawn(scrubbing.once(runtime), "scrub deleted images")
        await uploads.sweep(runtime)

    async with asyncio.TaskGroup() as group:
        group.create_task(_every(lease / 3, lambda: renew(runtime)))
        group.create_task(_every(runtime.settings.reaper_interval, look))
        group.create_task(_every(_BOUND, lambda: relay.bound(runtime)))


async def _every(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the next turn may succeed
            log.warning("the reaper could not work", error=str(error))
        await asyncio.sleep(seconds)


async def renew(runtime: Runtime) -> None:
    """All claims that this process works on live on."""
    held, lease = runtime.held, runtime.settings.lease_time
    for at in range(0, len(held), _RENEWED):  # a statement takes so many values, and not any number
        some = held[at : at + _RENEWED]
        await runtime.db.write(lambda conn, some=some: claims.renew_all(conn, runtime.holder, some, lease=lease))  # type: ignore[misc]


async def once(runtime: Runtime) -> None:
    """Settle or postpone every claim that is nobody's any more."""
    await asyncio.gather(*(_settle_all(runtime, left) for left in (await _left(runtime, Expired(0))).values()))
    await uploads.sweep(runtime)


async def now(runtime: Runtime, *, most: int = 10_000) -> tuple[int, int]:
    """Try every deletion that waits, whenever its next attempt would be, once; how many there were and how many still
    wait. What somebody works on is left to him. most: deletions that are looked at."""
    waiting = await runtime.db.read(lambda conn: claims.list_all(conn, kind="delete", limit=most))
    tried = await _settle_idle(runtime, [claim for claim in waiting if claim.holder is None])
    left = await runtime.db.read(lambda conn: claims.list_all(conn, kind="delete", limit=most))
    return len(tried), sum(claim.id in tried for claim in left)


async def late(runtime: Runtime) -> None:
    """Look now for what sick stores may have done late, and not when its time has come."""
    waiting = await runtime.db.read(claims.list_all)
    await _settle_idle(runtime, [claim for claim in waiting if claim.holder is None and claim.error == LATE])


async def _settle_idle(runtime: Runtime, some: Sequence[Claim]) -> set[str]:
    """Settle claims that wait for their next attempt now, stores side by side; the ids of all."""
    by_store: dict[str, list[Claim]] = {}
    for claim in some:
        by_store.setdefault(claim.store, []).append(claim)
    await asyncio.gather(*(_settle_all(runtime, left, idle=True) for left in by_store.values()))
    return {claim.id for claim in some}


async def _left(runtime: Runtime, seen: Expired) -> dict[str, list[Claim]]:
    """Claims that are nobody's any more, by store. What this process works on is its own, whatever the clock says; what
    waits to be digested has a queue of its own."""
    found = seen.lasting(await runtime.db.read(lambda conn: claims.expired(conn, _KINDS)))
    held = await runtime.db.read(claims.held)
    dead = [claim for claim in held if claim.holder is not None and is_dead(claim.holder)]
    for claim in dead:
        if claim.kind == "hash":  # back into its queue
            await runtime.db.write(lambda conn, claim=claim: claims.give_back(conn, claim.id, claim.holder or ""))  # type: ignore[misc]
    mine = frozenset(runtime.held)
    by_store: dict[str, list[Claim]] = {}
    for claim in {claim.id: claim for claim in (*found, *dead)}.values():
        if claim.id not in mine and claim.kind in _KINDS:
            by_store.setdefault(claim.store, []).append(claim)
    return by_store


async def _settle_all(runtime: Runtime, left: list[Claim], *, idle: bool = False) -> None:
    for claim in left:
        mine = await _take(runtime, claim, idle=idle)
        if mine is not None:
            await reach("reaper.taken")
            with runtime.holding(mine):
                await _settle(runtime, mine)


async def _take(runtime: Runtime, claim: Claim, *, idle: bool) -> Claim | None:
    was = claim.holder if claim.holder is not None and is_dead(claim.holder) else None
    lease = runtime.settings.lease_time
    return await runtime.db.write(
        lambda conn: claims.take(conn, claim.id, runtime.holder, lease=lease, was=was, idle=idle)
    )


async def _settle(runtime: Runtime, claim: Claim) -> None:
    log.info("settling what was left", kind=claim.kind, image=claim.image_id, store=claim.store)
    try:
        if claim.kind == "delete":
            await _finish_delete(runtime, claim)
        else:
            await _undo_write(runtime, claim)
    except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
        await deletions.postpone(runtime, claim, error)


async def _undo_write(runtime: Runtime, claim: Claim) -> None:
    """The claim exists, so neither a location nor a part was committed: its bytes belong to nobody."""
    store = runtime.stores.reserved(claim.store) or runtime.stores.get(claim.store)
    if store is None:
        await data.requeue(runtime, claim)
        raise LookupError(f"the store '{claim.store}' is not configured now")
    image = await runtime.db.read(lambda conn: images.get(conn, claim.image_id, hidden=True))
    if image is not None and claim.attempts and claim.key == image.id and image.status != "queued":
        # queued by us then, and taken up by a Glance on the same database, which has the same name for its data
        if any((found := runtime.stores.of(one)) and found.name == claim.store for one in image.locations):
            await data.release(runtime, claim)
            return
        if image.status != "active":
            raise StoreUnavailable("another service on this database gives the image data under the same name")
    try:
        # nobody's token is at hand, but whose account it is may matter to the store
        await store.discard(claim.key, caller=Caller(project=image.owner if image else None))
    except Exception:
        await data.requeue(runtime, claim)
        raise
    await reach("reaper.bytes_gone")
    if claim.attempts and claim.error != LATE:
        await data.requeue(runtime, claim)
        seconds = _LATE * runtime.settings.store_timeout

        async def later(conn: AsyncConnection) -> None:
            await claims.postpone(conn, claim.id, runtime.holder, seconds=seconds, error=LATE, failed=False)
            await quotas.enlarge(conn, [claim.id], 0)  # nothing is known to be there

        await runtime.db.write(later)
        return
    await data.release(runtime, claim)


async def _deleted(tx: Tx, image_id: str) -> None:
    await deletions.finish_delete(tx, image_id)
    await deletions.certain(tx, image_id)


async def _finish_delete(runtime: Runtime, claim: Claim) -> None:
    if claim.scope == "image":
        await runtime.db.write(lambda tx: _deleted(tx, claim.image_id))
    await deletions.remove(runtime, claim)
    await reach("reaper.bytes_gone")
    await runtime.db.write(lambda conn: claims.end(conn, claim.id, holder=runtime.holder))
