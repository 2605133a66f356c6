"""The nouns of the service as values, and the table of allowed status changes. No I/O, no rights, no JSON."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Mapping
from typing import Any, Final

VISIBILITIES: Final = ("public", "private", "shared", "community")
MEMBER_STATUSES: Final = ("pending", "accepted", "rejected")
TASK_STATUSES: Final = ("pending", "processing", "success", "failure")
TASK_TYPES: Final = ("import", "api_image_import", "location_import")

# Image API reference, section "Status": from → to. "deleted" is reached from every state but itself.
TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    "queued": frozenset({"saving", "uploading", "importing", "active", "deleted"}),
    "saving": frozenset({"active", "queued", "killed", "deleted"}),
    "uploading": frozenset({"importing", "queued", "deleted"}),
    "importing": frozenset({"active", "queued", "deleted"}),
    "active": frozenset({"deactivated", "pending_delete", "deleted"}),
    "deactivated": frozenset({"active", "deleted"}),
    "killed": frozenset({"deleted"}),
    "pending_delete": frozenset({"deleted", "active"}),
    "deleted": frozenset(),
}
STATUSES: Final = tuple(TRANSITIONS)


def utcnow() -> dt.datetime:
    """Now, in UTC, without a zone: the form in which the database keeps times."""
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


@dataclasses.dataclass(frozen=True, slots=True)
class Location:
    """Where the data of an image lies. `url` never leaves the service unless the operator exposes locations.

    `id` is the row's number, None until it is written. `metadata["store"]` names the store.
    """

    url: str = dataclasses.field(repr=False)
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    status: str = "active"
    id: int | None = None

    @property
    def store(self) -> str | None:
        """The store's id as the row has it; None for rows older than several stores."""
        store = self.metadata.get("store")
        return store if isinstance(store, str) else None


def shown_url(url: str) -> str:
    """A location's URL for those who may see locations: rows that older releases of the peer wrote for S3 and Swift
    hold logins. Of S3 the rest is what newer releases write; elsewhere stars stand for the login. Again is the same."""
    scheme, _, rest = url.partition("://")
    kind = scheme.lower().partition("+")[0]
    if kind in ("http", "https"):
        authority = re.split("[/?#]", rest, maxsplit=1)[0]
        start = authority.rfind("@") + 1
    elif kind in ("s3", "swift") and scheme != "swift+config":
        start = rest.rfind("@") + 1  # an old key may hold a slash or an @
    else:
        return url
    if not start:
        return url
    return f"{scheme}://{'' if kind == 's3' else '***@'}{rest[start:]}"


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """One image with its properties, tags and locations. Times are UTC without zone; sizes are bytes; None is unknown.

    `membership` is the status of the asking project's membership, None when it is no member.
    """

    id: str
    status: str = "queued"
    name: str | None = None
    owner: str | None = None
    visibility: str = "shared"
    protected: bool = False
    os_hidden: bool = False
    container_format: str | None = None
    disk_format: str | None = None
    min_disk: int = 0
    min_ram: int = 0
    size: int | None = None
    virtual_size: int | None = None
    checksum: str | None = None
    os_hash_algo: str | None = None
    os_hash_value: str | None = None
    created_at: dt.datetime = dataclasses.field(default_factory=utcnow)
    updated_at: dt.datetime = dataclasses.field(default_factory=utcnow)
    properties: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    tags: tuple[str, ...] = ()
    locations: tuple[Location, ...] = ()
    membership: str | None = None

    def replace(self, **changes: Any) -> Image:
        """The same image with other values."""
        return dataclasses.replace(self, **changes)

    def may_become(self, status: str) -> bool:
        """Whether the table of status changes allows this step."""
        return status in TRANSITIONS.get(self.status, ())


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """A project with which an image is shared; `status` is the answer of that project."""

    image_id: str
    member: str
    status: str = "pending"
    created_at: dt.datetime = dataclasses.field(default_factory=utcnow)
    updated_at: dt.datetime = dataclasses.field(default_factory=utcnow)


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """Bytes in a store for which we answer although no location row shows them: a durable row of our own.

    kind "write": written before the first byte; ended in the transaction that adds the location. `url` is the key in
    the store, None when that is the image's id; see `key`.
    kind "delete": written in the transaction that hides the image or location; ended when the bytes are gone.
    kind "stage": bytes under `url` that wait for an import of the image; ended by it, or with the image.
    kind "part": the key `url` of bytes that come in; ended in the transaction that makes them a part of an upload.
    Whoever holds the lease (`holder`, until `lease_until`) works on it; an expired claim is the reaper's.
    `scope` of a "delete" says what to finish: "image" (the whole image) or "location" (one of several); of a "hash"
    where their digests go: "image" (to be seen) or "location" (into our notes of it).
    """

    id: str
    kind: str
    image_id: str
    store: str
    url: str | None = dataclasses.field(default=None, repr=False)
    scope: str = "image"
    holder: str | None = None
    lease_until: dt.datetime | None = None
    begun_at: dt.datetime = dataclasses.field(default_factory=utcnow)
    attempts: int = 0
    error: str | None = None

    @property
    def key(self) -> str:
        """Of a "write" or "part": the name of the bytes in the store."""
        return self.url or self.image_id


@dataclasses.dataclass(frozen=True, slots=True)
class Upload:
    """Data of an image that comes in several requests: a durable row, begun with the image's change of status.

    kind: "file" or "stage", as the call that began it. `state`: "open" takes data; "finishing": all is there and is on
    its way into the store, under a claim; "staged": it waits for an import; "over": its data is the image's, or gone.
    `received`: bytes that are durable, in `parts` objects, from byte 0 on. `size`: of all, None while the client
    has not said. `digest`: "algorithm:hex" that all of it must have. `store`: that the client chose, None the default.
    Whoever is adding data is the `holder`; each that wants to is given the next `epoch`, and an earlier one changes
    nothing any more. lives: seconds until it is given up, when it was read.
    """

    id: str
    image_id: str
    kind: str
    owner: str | None = None
    store: str | None = None
    size: int | None = None
    digest: str | None = None
    state: str = "open"
    received: int = 0
    parts: int = 0
    holder: str | None = None
    epoch: int = 0
    lives: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Bytes of an upload that lie in a store as one object: `size` of them, from the byte `begins` on."""

    begins: int
    size: int
    store: str
    url: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """Work of minutes or hours beside requests: a durable row of our own, written in the transaction that begins it and
    ended in the one that stores its effect. `id` is also that of the task that clients see.

    kind: what is to be done (`services.jobs`); `request`: how, for that kind. `slot`: two unfinished jobs never have
    the same. Whoever holds the lease works on it; `epoch` counts the leases, so that a holder that was taken for dead
    changes nothing. attempts: leases so far that were not given back in order, but for those whose holders died, which
    are `deaths`. `progress`: `step`, `bytes`, `total`.
    """

    id: str
    kind: str
    image_id: str
    owner: str | None = None
    slot: str = ""
    request: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    holder: str | None = None
    lease_until: dt.datetime | None = None
    begun_at: dt.datetime = dataclasses.field(default_factory=utcnow)
    attempts: int = 0
    epoch: int = 0
    cancelled: bool = False
    progress: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    error: str | None = None
    deaths: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """What clients see of long work: a row of Glance's table. Times are UTC without zone; kept until `expires_at`."""

    id: str
    type: str
    owner: str
    status: str = "pending"
    image_id: str | None = None
    request_id: str | None = None
    user_id: str | None = None
    created_at: dt.datetime = dataclasses.field(default_factory=utcnow)
    updated_at: dt.datetime = dataclasses.field(default_factory=utcnow)
    expires_at: dt.datetime | None = None
    input: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    result: Mapping[str, Any] | None = None
    message: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Association:
    """A type of resources, as "OS::Glance::Image", that a namespace is about. Among the metadata of such a resource the
    names of the namespace's properties begin with `prefix`; `properties_target` says which metadata, where it has
    several."""

    name: str
    prefix: str | None = None
    properties_target: str | None = None
    created_at: dt.datetime = dataclasses.field(default_factory=utcnow)
    updated_at: dt.datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class MetadefObject:
    """Properties of a namespace that belong together: name → definition. `required`: the names of those that must be
    given."""

    name: str
    description: str | None = None
    required: tuple[str, ...] = ()
    properties: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    created_at: dt.datetime = dataclasses.field(default_factory=utcnow)
    updated_at: dt.datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class MetadefTag:
    """A word of a namespace."""

    name: str
    created_at: dt.datetime = dataclasses.field(default_factory=utcnow)
    updated_at: dt.datetime | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Namespace:
    """Metadata definitions that belong together. `id` is the row's number, 0 until it is written.

    `properties`: name → definition, a JSON schema of one value with a title. What it holds besides its own fields is
    there when it was asked for.
    """

    name: str
    owner: str
    id: int = 0
    display_name: str | None = None
    description: str | None = None
    visibility: str = "private"
    protected: bool = False
    created_at: dt.datetime = dataclasses.field(default_factory=utcnow)
    updated_at: dt.datetime | None = None
    associations: tuple[Association, ...] = ()
    properties: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    objects: tuple[MetadefObject, ...] = ()
    tags: tuple[MetadefTag, ...] = ()
