"""Whose bytes a URL means: which URLs mean the same ones, which images have them, and who removes them in the end.

Bytes are removed with their image when the service wrote them, or a Glance before it: both name them after the image.
Registered ones belong to whoever made them and stay, with a note in the location's metadata. Two exceptions: what a
service registers (Nova's snapshots) and named after the image was made for the image, and bytes of ours that another
image names as well go with the last one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.db import images
from xloud_image.db import locations as rows
from xloud_image.errors import Conflict, Forbidden, NotFound
from xloud_image.identity.context import Context
from xloud_image.model import Claim, Image, Location
from xloud_image.services import external
from xloud_image.services.runtime import Runtime
from xloud_image.stores.base import Blob, Can, Store

log = structlog.get_logger(__name__)

_KEPT, _INHERITED = "kept", "inherited"  # notes: the bytes stay; they are ours although their name does not say so
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def place(runtime: Runtime, location: Location) -> str:
    """A text that two locations share when they mean the same bytes."""
    store = runtime.stores.of(location)
    return store.forms(location.url)[0] if store is not None and store.owns(location.url) else location.url


def same(runtime: Runtime, image: Image, location: Location) -> Location | None:
    """The location of the image that means the same bytes, in whatever spelling."""
    here = place(runtime, location)
    return next((other for other in image.locations if place(runtime, other) == here), None)


def _named_after(store: Store | None, url: str) -> list[str]:
    """The id of the image after which the bytes are named, if they are."""
    key = store.key(url) if store is not None and store.owns(url) else url.rpartition("/")[2]
    found = _ID.match((key or "").lower())
    return [found[0]] if found else []


def _forms(store: Store | None, url: str) -> Sequence[str]:
    return (url, *store.forms(url)) if store is not None and store.owns(url) else (url,)


def is_internal(store: Store) -> bool:
    """Whether the store's data are the service's own, and not what anybody's web server gives out."""
    return Can.CHANGE not in store.can


def require_may_name(runtime: Runtime, ctx: Context, store: Store) -> None:
    """`Forbidden` for a member who names data of a store of ours: they may be anybody's."""
    if not is_internal(store) or runtime.settings.exposure.users_register_store_urls:
        return
    if not (ctx.is_admin or runtime.policy.allows(ctx, "service_api", {})):
        raise Forbidden("Only other services may register locations that are not http or https URLs.")


async def require_free(runtime: Runtime, ctx: Context, conn: AsyncConnection, image: Image, location: Location) -> None:
    """In the transaction in which the image gets this location. `Conflict` while its bytes are on their way out,
    `Forbidden` when they belong to an image of another project: whoever may name them could read and keep them."""
    store = runtime.stores.of(location)
    forms, ids = _forms(store, location.url), _named_after(store, location.url)
    here = place(runtime, location)
    if any(place(runtime, other) == here for other in await rows.leaving(conn, forms, ids)):
        raise Conflict("The data at this URL is being removed; it was the data of an image that was deleted.")
    if ctx.is_admin or store is None or not is_internal(store):
        return
    for one in await rows.holders(conn, forms, ids):
        if one.image_id == image.id or one.owner in (ctx.project, image.owner):
            continue
        if one.image_id in ids or (one.location is not None and place(runtime, one.location) == here):
            raise Forbidden("The data at this URL belong to an image of another project.")


def notes_for(runtime: Runtime, ctx: Context, image_id: str, store: Store, blob: Blob) -> dict[str, Any]:
    """What to note of a location that `ctx` registers: the bytes stay when it goes, unless they were made for it, as
    their name says, or what the backend notes of them (volumes)."""
    if Can.WRITE not in store.can:
        return {}
    keystone = runtime.settings.auth.keystone
    roles = frozenset(keystone.service_token_roles if keystone is not None else ("service",))
    handed = runtime.settings.exposure.users_register_store_urls or not roles.isdisjoint(ctx.roles | ctx.service_roles)
    made_for = store.key(blob.url) or blob.made_for or ""
    return {} if handed and made_for.lower() == image_id else {_KEPT: True}


def are_ours(runtime: Runtime, image_id: str, location: Location) -> bool:
    """Whether the bytes go with this location of this image.

    Rows without notes are uploads, Glance's too: the name tells them from what a Glance let others register. Where the
    backend makes the names (volumes) it cannot, and they go.
    """
    notes = external.notes(location)
    if _KEPT in notes or _INHERITED in notes:
        return _KEPT not in notes
    store = runtime.stores.of(location)
    if store is not None and store.owns(location.url):
        return store.key(location.url) is None or image_id in _named_after(store, location.url)
    return image_id in location.url.lower() or location.url.startswith("cinder:")


async def bequeath(runtime: Runtime, claim: Claim) -> bool:
    """Whether an image that is there names the bytes of a "delete" as well: then they stay, and go with that one.

    `StoreUnavailable` while a store does not know its place: then it cannot tell which spellings mean these bytes.
    """
    assert claim.url is not None
    gone = Location(claim.url, {"store": claim.store})
    for known in (runtime.stores.get(claim.store), runtime.stores.of(gone)):
        if known is not None:
            await known.ready()
    store = runtime.stores.of(gone)
    here = place(runtime, gone)
    forms, ids = _forms(store, claim.url), _named_after(store, claim.url)
    for one in await runtime.db.read(lambda conn: rows.holders(conn, forms, ids)):
        if one.location is None:
            continue
        other = runtime.stores.of(one.location)
        if other is not None:
            await other.ready()
        if place(runtime, one.location) != here:
            continue
        if one.pending:  # it may be restored
            log.info("the data stays, an image that can be restored has it too", image=claim.image_id)
            return True
        try:
            await runtime.db.write(lambda conn, one=one: images.change(conn, one.image_id, _inherited(one.location)))  # type: ignore[misc]
        except NotFound:  # deleted meanwhile
            continue
        log.info("the data stays, another image has it too", image=claim.image_id, store=claim.store)
        return True
    return False


def _inherited(which: Location) -> Any:
    def step(current: Image) -> Image:
        if all(other.id != which.id for other in current.locations):
            raise NotFound("The location was removed meanwhile.")
        return current.replace(
            locations=tuple(
                external.with_notes(other, {**_without_kept(other), _INHERITED: True})
                if other.id == which.id
                else other
                for other in current.locations
            )
        )

    return step


def _without_kept(location: Location) -> dict[str, Any]:
    return {name: value for name, value in external.notes(location).items() if name != _KEPT}
