"""Rights inside stores follow those of the image, where a store has rights of its own (`Can.SHARE`).

Readers there are everyone for public and community images, the members, whatever they answered, for shared ones, and
nobody but the owner for private ones. The image's rights in the database are what counts: a store that refuses is
logged with what to do, the change stays.
"""

from __future__ import annotations

import structlog

from xloud_image.db import members as rows
from xloud_image.errors import ImageServiceError
from xloud_image.identity.context import Context
from xloud_image.model import Image
from xloud_image.services import external
from xloud_image.services.deletions import caller
from xloud_image.services.lookup import load
from xloud_image.services.runtime import Runtime
from xloud_image.stores.base import Can

log = structlog.get_logger(__name__)

_TURNS = 3  # a change that came while the stores were told is told as well


async def follow(runtime: Runtime, ctx: Context, image: Image) -> None:
    """Tell the stores of an image who may read it now. Call it after the commit; raises nothing of a store."""
    if not any(Can.SHARE in store.can for store in runtime.stores.public):
        return
    image_id = image.id
    told: object = None
    for _ in range(_TURNS):
        members = await runtime.db.read(lambda conn: rows.list_all(conn, image_id))
        readers = sorted(member.member for member in members) if image.visibility == "shared" else []
        public = image.visibility in ("public", "community")
        rights = (readers, public, tuple(location.url for location in image.locations))
        if rights == told:
            return
        for location in image.locations:
            store = runtime.stores.of(location)
            if not external.counts(location) or store is None or Can.SHARE not in store.can:
                continue
            try:
                await store.share(location.url, readers=readers, public=public, caller=caller(ctx))
            except ImageServiceError as error:
                log.warning(
                    "the store does not follow the rights of the image; change its visibility or members again",
                    image=image_id,
                    store=store.name,
                    reason=error.message,
                )
        told = rights
        try:
            image = await load(runtime, ctx, image_id)
        except ImageServiceError:  # deleted meanwhile, or not for this caller any more
            return
