"""Quotas: what a project may have in images, bytes and staged bytes, by Keystone's limits or the operator's own.

Exact, however many ask at once: whoever adds something counts under the project's lock (`db.quotas`), in the
transaction that stores it. Bytes under way are reserved beside their claim before they come: all of them where their
number is announced, else in steps. What is asked of Keystone is asked before the transaction. Without quotas nothing
here makes a statement.

Images count for the project that owns them. Source: Image API reference, section "Tags, members, actions, stores".
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import quotas as rows
from xloud_image.db.quotas import Kind, Usage
from xloud_image.errors import Conflict, DatabaseUnavailable, QuotaExceeded
from xloud_image.identity.context import Context
from xloud_image.model import Claim, Image
from xloud_image.services.runtime import Runtime
from xloud_image.streams.stages import Stage

MIB: Final = 1 << 20
# bytes that are reserved at a time when their number is unknown: half of what has come, within these
_LEAST: Final = MIB
_MOST: Final = 1 << 30
_PAUSES: Final = (1.0, 2.0, 4.0, 8.0)  # seconds between tries to reserve more
_NAMES: Final = {
    "size": "image_size_total",
    "stage": "image_stage_total",
    "count": "image_count_total",
    "uploading": "image_count_uploading",
}
_WORDS: Final = {
    "size": "in images and uploads",
    "stage": "staged for imports",
    "count": "images",
    "uploading": "uploads and imports under way",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Quota:
    """What one project may have: bytes, bytes, images, images; None: any number. `cure`: who can change it."""

    owner: str
    size: int | None = None
    stage: int | None = None
    count: int | None = None
    uploading: int | None = None
    cure: str = ""

    def left(self, kind: Kind, used: Usage) -> int | None:
        """Bytes of this kind that may still come."""
        limit: int | None = getattr(self, kind)
        return None if limit is None else max(limit - int(getattr(used, kind)), 0)

    def require(self, used: Usage, **more: int) -> None:
        """`QuotaExceeded` when the project would have more than it may with so much more (by names of `Usage`)."""
        for name, wanted in more.items():
            limit, have = getattr(self, name), getattr(used, name)
            if limit is not None and have + wanted > limit:
                raise QuotaExceeded(self._refusal(name, limit, have, wanted))

    def _refusal(self, name: str, limit: int, have: int, wanted: int) -> str:
        left = max(limit - have, 0)
        if name in ("size", "stage"):
            amounts = f"{_bytes(have)} of {_bytes(limit)} {_WORDS[name]}, {_bytes(left)} are left"
            asked = f", and {_bytes(wanted)} more are asked for" if wanted else ""
        else:
            amounts, asked = f"{have} of {limit} {_WORDS[name]}, {left} are left", ""
        if limit == 0:
            amounts = f"no {'room' if name in ('size', 'stage') else 'place'}: it may have 0 {_WORDS[name]}"
        return f"The project has {amounts}{asked} ({_NAMES[name]}). {self.cure}"


def _bytes(number: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", MIB), ("KiB", 1 << 10)):
        if number >= size:
            return f"{number / size:.2f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{number} bytes"


async def of(runtime: Runtime, owner: str | None) -> Quota | None:
    """What this project may have now; None: there are no quotas. `IdentityUnavailable`: only Keystone knows."""
    settings = runtime.settings.quotas
    if owner is None:
        return None
    if settings.use_keystone_limits:
        limits = await runtime.limits.of(owner)
        units = {"size": MIB, "stage": MIB, "count": 1, "uploading": 1}
        found = {field: _limit(limits[name], units[field]) for field, name in _NAMES.items()}
        return Quota(owner, **found, cure="An administrator of the cloud can raise the project's limit in Keystone.")
    if settings.user_storage_quota:
        return Quota(
            owner,
            size=settings.user_storage_quota,
            cure="The operator can raise what each project may have (user_storage_quota).",
        )
    return None


def _limit(number: int, unit: int) -> int | None:
    return None if number < 0 else number * unit


async def admit(conn: AsyncConnection, quota: Quota | None, **more: int) -> Usage | None:
    """The transaction's first step: from here to its end nobody else adds to what the project has. `more`: what the
    transaction adds, by names of `Usage`; what there is of them is counted where they have a limit. None: nothing of it
    is limited. `QuotaExceeded`."""
    limited = [name for name in more if quota is not None and getattr(quota, name) is not None]
    if quota is None or not limited:
        return None
    await rows.lock(conn, quota.owner)
    used = await rows.usage(conn, quota.owner, limited)
    quota.require(used, **more)
    return used


def require_owner(quota: Quota | None, image: Image) -> None:
    """`Conflict` when the image is another project's by now."""
    if quota is not None and image.owner != quota.owner:
        raise Conflict("The image was given to another project meanwhile; try again.")


class Room:
    """Room for bytes under way, of which each of one or more claims brings the same number. Also a stage, for bytes
    whose number is not known: it reserves more as they come, and lets none pass for which there is no room.

    expected: bytes that will come, whose number another stage sees to; None unknown.
    """

    def __init__(self, runtime: Runtime, quota: Quota | None, kind: Kind, expected: int | None) -> None:
        self._runtime, self._quota, self._kind = runtime, quota, kind
        self._reserved = expected or 0
        self.stages: list[Stage] = [self] if quota is not None and expected is None else []
        self._claims: list[str] = []
        self._passed = 0

    async def admit(self, conn: AsyncConnection, *, uploading: int = 0) -> None:
        """The first step of the transaction that begins a claim; `uploading`: images that are under way from then on.
        `QuotaExceeded`."""
        used = await admit(conn, self._quota, uploading=uploading, **{self._kind: self._reserved})
        if used is not None and self._quota is not None and self._quota.left(self._kind, used) == 0:
            self._quota.require(used, **{self._kind: 1})  # it is full: nothing can come

    async def take(self, conn: AsyncConnection, claim: Claim) -> None:
        """In that transaction, once the claim is stored."""
        if self._quota is not None:
            await rows.reserve(conn, claim.id, self._quota.owner, self._kind, self._reserved)

    async def keep(self, conn: AsyncConnection, claim: Claim, size: int) -> None:
        """In the transaction that ends the claim of this room: another one holds its bytes, of which so many came."""
        if self._quota is not None:
            await rows.reserve(conn, claim.id, self._quota.owner, self._kind, size)

    def holds(self, *claims: Claim) -> None:
        """The transaction is stored."""
        self._claims += [claim.id for claim in claims]

    def require_owner(self, image: Image) -> None:
        """`Conflict` when the image is another project's by now."""
        require_owner(self._quota, image)

    async def __call__(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in source:
            self._passed += len(chunk)
            if self._passed > self._reserved:
                await self._grow()
            yield chunk

    async def _grow(self) -> None:
        quota, many = self._quota, len(self._claims)
        assert quota is not None

        async def grow(conn: AsyncConnection) -> int:
            await rows.lock(conn, quota.owner)
            used = await rows.usage(conn, quota.owner, (self._kind,))
            needed = self._passed - self._reserved
            quota.require(used, **{self._kind: needed * many})
            step = max(needed, _LEAST, min(self._passed // 2, _MOST))
            left = quota.left(self._kind, used)
            step = step if left is None else min(step, max(left // many, needed))
            await rows.enlarge(conn, self._claims, self._reserved + step)
            return self._reserved + step

        for pause in (*_PAUSES, None):  # a database that is away for a moment must not end an upload of hours
            try:
                self._reserved = await self._runtime.db.write(grow)
                return
            except DatabaseUnavailable:
                if pause is None:
                    raise
            await asyncio.sleep(pause)


async def room(runtime: Runtime, image: Image, kind: Kind, expected: int | None) -> Room:
    """Room for data of this image. `IdentityUnavailable`."""
    return Room(runtime, await of(runtime, image.owner), kind, expected)


async def told(runtime: Runtime, ctx: Context) -> dict[str, dict[str, int]]:
    """What the caller's project has and may have, by Keystone's names and in its units; {} without quotas."""
    quota = await of(runtime, ctx.project)
    if quota is None:
        return {}
    used = await runtime.db.read(lambda conn: rows.usage(conn, quota.owner))
    found = {}
    for field, name in _NAMES.items():
        unit = MIB if field in ("size", "stage") else 1
        limit = getattr(quota, field)
        if limit is None and not runtime.settings.quotas.use_keystone_limits:
            continue  # nothing was ever said of it
        found[name] = {"usage": getattr(used, field) // unit, "limit": -1 if limit is None else limit // unit}
    return found
