"""Imports as clients ask for them: the image becomes importing, and a job says what is to be done. The work itself is
`importing`. Source: Image API reference, section "Import".
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image import schemas
from xloud_image.db import images, jobs, tasks
from xloud_image.db import quotas as rows
from xloud_image.errors import BadRequest, Conflict, Duplicate, NotFound, QuotaExceeded
from xloud_image.failpoints import reach
from xloud_image.identity.context import Context
from xloud_image.model import Image, Job, Task, shown_url, utcnow
from xloud_image.policy import images as rights
from xloud_image.services import certificates, converting, data, fetching, quotas, regions, staging
from xloud_image.services.candidates import may_reach_all
from xloud_image.services.lookup import load
from xloud_image.services.runtime import Runtime
from xloud_image.services.unpacking import Unpacking
from xloud_image.streams import signatures

WAITING: Final = 1000  # unfinished jobs of one project
TO_STORES: Final = "os_glance_importing_to_stores"  # properties of the image, as Glance has them
FAILED: Final = "os_glance_failed_import"
LOCK: Final = "os_glance_import_task"
_LOCKED: Final = 3600.0  # seconds for which the lock of a Glance on the same database counts, unless it is renewed

_SHAPE: Final = schemas.Shape(schemas.new_import())
_MOVE: Final = schemas.Shape(schemas.new_move())
_PARTS: Final = schemas.new_import()["properties"]
# method → the status that the image must have
_FROM: Final[Mapping[str, str]] = {
    "glance-direct": "uploading",
    "web-download": "queued",
    "glance-download": "queued",
    "copy-image": "active",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asks for. stores: where the data shall be; must_all: without one of them none. leave: the store
    where it shall be no more then."""

    method: str
    stores: tuple[str, ...]
    must_all: bool
    chosen: bool
    details: Mapping[str, Any] = dataclasses.field(repr=False)
    leave: str | None = None


async def move(
    runtime: Runtime,
    ctx: Context,
    image_id: str,
    body: Mapping[str, Any],
    *,
    possible: Sequence[str],
    request_id: str | None = None,
) -> Task:
    """The data of an image goes from one store to another: as a copy, at whose end the image is in that one instead.
    What is in the other one already is read there and compared before the image leaves.

    As `begin`; `NotFound` when the image is not in the store that it shall leave.
    """
    _MOVE.require(body)
    if runtime.stores.get(body["from"]) is None:
        raise Conflict(
            f"There is no store '{body['from'][:80]}' here; the stores are {', '.join(runtime.stores.names)}."
        )
    copy = {"method": {"name": "copy-image"}, "stores": [body["to"]]}
    wanted = dataclasses.replace(_wanted(runtime, copy, None, possible), leave=body["from"])
    shown = {"move": {name: body[name] for name in ("from", "to")}}
    return await _begin(runtime, ctx, image_id, wanted, shown, request_id)


async def begin(
    runtime: Runtime,
    ctx: Context,
    image_id: str,
    body: Mapping[str, Any],
    *,
    possible: Sequence[str],
    store: str | None = None,
    request_id: str | None = None,
) -> Task:
    """The import is under way when this returns; its task tells how far it is.

    possible: methods that can work now. store: as `X-Image-Meta-Store` names it.
    `BadRequest`, `Conflict` (status, formats, unknown store, another import), `Forbidden`, `NotFound`, `QuotaExceeded`.
    """
    return await _begin(runtime, ctx, image_id, _wanted(runtime, body, store, possible), _shown(body), request_id)


async def begin_new(
    runtime: Runtime, ctx: Context, image: Image, url: str, asked: Mapping[str, Any], *, request_id: str | None
) -> Task:
    """As `begin` with web-download from this URL, into an image that is made with it, and goes when the import fails.

    asked: the request as it is kept. `Duplicate` when the image's id is or was in use.
    """
    wanted = Wanted("web-download", (data.writable(runtime, None).name,), True, False, {"uri": url})
    return await _begin(runtime, ctx, image.id, wanted, asked, request_id, new=image)


async def _begin(
    runtime: Runtime,
    ctx: Context,
    image_id: str,
    wanted: Wanted,
    shown: Mapping[str, Any],
    request_id: str | None,
    *,
    new: Image | None = None,
) -> Task:
    """`shown`: the request as it is kept. `new`: the image, when it is not there yet."""
    seen = new or await load(runtime, ctx, image_id)
    _require(runtime, ctx, seen, wanted)
    trusted = may_reach_all(runtime, ctx, seen)
    if wanted.method == "web-download":
        fetching.require_importable(runtime, wanted.details, trusted=trusted)
    service, why = None, ""
    if wanted.method == "glance-download":
        try:
            service = await regions.service(runtime, ctx, wanted.details)
        except BadRequest as error:  # the task fails, as with Glance, which looks for the region then
            why = error.message
    if wanted.method == "glance-direct":
        await staging.adopt(runtime, seen)
        if await staging.found(runtime, image_id) is None:
            raise Conflict("No data was staged for this image here; stage it with PUT /v2/images/ID/stage.")
    task = Task(
        id=str(uuid.uuid4()),
        type="api_image_import" if new is None else "import",
        owner=ctx.project or seen.owner or "",
        image_id=image_id,
        request_id=request_id,
        user_id=ctx.user,
        input=shown if new is not None else {"image_id": image_id, "import_req": shown, "backend": list(wanted.stores)},
    )
    quota = await quotas.of(runtime, seen.owner)
    seal = await certificates.signed(runtime, ctx, seen) if wanted.method != "copy-image" else None
    await reach("import.begin")

    async def begun(conn: AsyncConnection) -> Task:
        if quota is not None:
            await _require_room(runtime, conn, quota, seen, wanted)
        if new is not None:
            await quotas.admit(conn, quota, count=1)
            await images.create(conn, new)
        current = await images.locked(conn, image_id, project=ctx.project)
        _require(runtime, ctx, current, wanted)
        if trusted and not may_reach_all(runtime, ctx, current):
            raise Conflict("The image was changed meanwhile; try again.")
        await _require_unlocked(conn, current)
        if await jobs.count(conn, current.owner) >= WAITING:
            raise QuotaExceeded(
                f"{WAITING} imports of this project are under way already; begin more when some are done."
            )
        stores = _still_missing(runtime, current, wanted)
        job = Job(
            id=task.id,
            kind="import",
            image_id=image_id,
            owner=current.owner,
            slot=jobs.slot_of("import", image_id),
            request={
                "method": wanted.method,
                "stores": stores,
                "must_all": wanted.must_all,
                "details": dict(wanted.details),
                "leave": wanted.leave,
                "to": wanted.stores[0] if wanted.leave is not None else None,
                "ovf": ctx.is_admin,
                "new": new is not None,
                **(
                    {"service": service, "why": why, "token": regions.sealed(runtime, task.id, ctx.token)}
                    if wanted.method == "glance-download"
                    else {}
                ),
                "user": ctx.user,
                "project": ctx.project,
                "trusted": trusted,
                "roles": sorted(ctx.roles),
                "certificate": None if seal is None else {"id": seal.signature.certificate, "pem": seal.pem},
                "inject": wanted.method != "copy-image"
                and ctx.roles.isdisjoint(runtime.settings.imports.ignore_user_roles),
            },
        )
        await jobs.add(conn, job)
        stored = await tasks.add(conn, task)
        await images.change(conn, image_id, lambda now: _importing(now, task.id, wanted, stores), project=ctx.project)
        return stored

    try:
        stored = await runtime.db.write(begun)
    except Duplicate:
        if new is not None:
            raise
        raise Conflict("Another import of this image is under way.") from None
    await reach("import.stored")
    runtime.ring()
    return stored


def _shown(body: Mapping[str, Any]) -> dict[str, Any]:
    """The request as it is kept and shown: what is known of it, URLs without the logins that they may hold."""
    method = {name: body["method"][name] for name in _PARTS["method"]["properties"] if name in body["method"]}
    shown = {name: body[name] for name in _PARTS if name in body}
    return {**shown, "method": {name: shown_url(text) for name, text in method.items()}}


def _wanted(runtime: Runtime, body: Mapping[str, Any], header: str | None, possible: Sequence[str]) -> Wanted:
    """`BadRequest` and `Conflict` for what can be told from the request alone."""
    _SHAPE.require(body)
    method = body["method"]
    name = method["name"]
    if name not in possible:
        known = f"the methods are {', '.join(possible)}" if possible else "no method is possible now"
        raise BadRequest(f"'{name[:80]}' is no import method here; {known} (see GET /v2/info/import).")
    details = {key: method[key] for key in _PARTS["method"]["properties"] if key in method and key != "name"}
    if name == "web-download" and "uri" not in details:
        raise BadRequest("The method web-download needs 'uri'.")
    if name == "glance-download":
        regions.require(details)
    several = runtime.settings.multi_store
    every, must_all = body.get("all_stores", False), body.get("all_stores_must_succeed", True)
    named = body.get("stores")
    if header is not None and named not in (None, [header]):  # openstacksdk says a single one in both places
        raise BadRequest("The stores of the body are others than that of X-Image-Meta-Store.")
    if every and (header is not None or named is not None):
        raise BadRequest("'all_stores' excludes naming stores.")
    if not several and not must_all:
        raise BadRequest("'all_stores_must_succeed' needs several stores (enabled_backends).")
    chosen = [header] if header is not None else list(dict.fromkeys(named or ()))
    for store in chosen:
        if runtime.stores.get(store) is None:
            raise Conflict(f"There is no store '{store[:80]}' here; the stores are {', '.join(runtime.stores.names)}.")
        data.writable(runtime, store)
    if every and several:
        stores = [store for store in runtime.stores.names if runtime.stores.takes_images(store)]
    else:
        stores = chosen or [data.writable(runtime, None).name]
    return Wanted(name, tuple(stores), must_all, bool(chosen), details)


def _require(runtime: Runtime, ctx: Context, image: Image, wanted: Wanted) -> None:
    """Whether the caller may do it, and it can be done: asked before, and again of the image under its lock."""
    rule = "copy_image" if wanted.method == "copy-image" else "modify_image"
    rights.require(runtime.policy, ctx, rule, image)
    if wanted.leave is not None:
        rights.require(runtime.policy, ctx, "delete_image_location", image)
    if wanted.chosen:
        rights.require(runtime.policy, ctx, "choose_store", image)
    status = _FROM[wanted.method]
    if image.status != status:
        raise Conflict(f"The method {wanted.method} takes an image in status {status}; this one is {image.status}.")
    if image.container_format is None or image.disk_format is None:
        raise Conflict("Set container_format and disk_format before importing data.")
    if wanted.method != "copy-image" and signatures.stated(image.properties) is None:
        converting.target(runtime, Unpacking(runtime, image, trusted=False).becomes(image), wanted.stores)


async def _require_room(
    runtime: Runtime, conn: AsyncConnection, quota: quotas.Quota, image: Image, wanted: Wanted
) -> None:
    """`QuotaExceeded` for what can be told now; the bytes themselves are reserved when they are written."""
    if wanted.method == "glance-direct":
        await quotas.admit(conn, quota, size=len(wanted.stores) * await rows.staged(conn, image.id))
    elif wanted.method == "copy-image":
        size = len(_still_missing(runtime, image, wanted)) * (image.size or 0)
        await quotas.admit(conn, quota, size=size, uploading=1)
    else:
        await quotas.admit(conn, quota, size=1, uploading=1)


async def _require_unlocked(conn: AsyncConnection, image: Image) -> None:
    """`Conflict` while a Glance on the same database imports into the image; our own jobs are one an image anyway."""
    lock = image.properties.get(LOCK)
    if not lock:
        return
    task = await tasks.get(conn, lock)
    if task is None or task.status not in ("pending", "processing"):
        return
    if await jobs.get(conn, lock) is None and (utcnow() - task.updated_at).total_seconds() > _LOCKED:
        return
    raise Conflict("Another import of this image is under way.")


def _still_missing(runtime: Runtime, image: Image, wanted: Wanted) -> list[str]:
    """The stores that the data has to get to; none for a move to where it is. `BadRequest` for a copy to there."""
    if wanted.method != "copy-image":
        return list(wanted.stores)
    have = {store.name for location in image.locations if (store := runtime.stores.of(location)) is not None}
    if wanted.leave is not None and wanted.leave not in have:
        raise NotFound(f"The image {image.id} is not in the store '{wanted.leave}'.")
    missing = [store for store in wanted.stores if store not in have]
    if wanted.leave is not None and wanted.leave not in wanted.stores:
        return missing
    if wanted.chosen and len(missing) < len(wanted.stores):
        there = ", ".join(store for store in wanted.stores if store in have)
        raise BadRequest(f"The image is in the store {there} already.")
    if not missing:
        raise BadRequest("The image is in all of these stores already.")
    return missing


def _importing(image: Image, task_id: str, wanted: Wanted, stores: Sequence[str]) -> Image:
    properties = {**image.properties, LOCK: task_id, TO_STORES: ",".join(stores), FAILED: ""}
    status = image.status if wanted.method == "copy-image" else "importing"
    return image.replace(status=status, properties=properties)
