"""What is told of a change: the types and payloads of notifications, as Glance's consumers know them. Nothing is sent
here; who changes something emits an event in the transaction of the change (`db.engine.Tx`).

A payload never has a location, nor what a task was given or brought: these may hold logins.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import uuid
from collections.abc import Mapping
from typing import Any, Final, Literal

from xloud_image.config.settings import NotificationSettings
from xloud_image.model import Image, Member, Namespace, Task, utcnow

Level = Literal["info", "error"]
Payload = Mapping[str, Any] | str

# Bytes of a payload. An image may have 8 MiB of properties, and no statement and no broker takes any length.
LONGEST: Final = 256 * 1024
_KEPT: Final = 255  # characters of a property's value that are left then


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `type`: as consumers know it, "image.create"; `payload`: what JSON can say, or a text of
    an error; `level`: what the topic of the message ends with. `id`: the message's, the same however often it is sent.

    `held_for`: the id of an image; it is not sent before `db.events.release`, because the change may be undone.
    """

    type: str
    payload: Payload = dataclasses.field(repr=False)
    level: Level = "info"
    held_for: str | None = None
    id: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    made_at: dt.datetime = dataclasses.field(default_factory=utcnow)

    @property
    def text(self) -> str:
        """The payload as JSON in ASCII, at most LONGEST bytes of it but for what is fixed in number."""
        found = json.dumps(self.payload)
        if len(found) > LONGEST and isinstance(self.payload, Mapping):
            properties = self.payload.get("properties") or {}
            cut = {name: value[:_KEPT] if isinstance(value, str) else value for name, value in properties.items()}
            found = json.dumps({**self.payload, "properties": cut})
        return found

    @property
    def row(self) -> dict[str, Any]:
        """As a table of events that are not sent yet has it."""
        return {
            "id": self.id,
            "type": self.type,
            "level": self.level,
            "payload": self.text,
            "made_at": self.made_at,
            "held_for": self.held_for,
        }


def is_wanted(wanted: NotificationSettings, kind: str) -> bool:
    """Whether events of this type are told."""
    off = wanted.disabled_notifications
    return bool(wanted.drivers) and kind not in off and kind.partition(".")[0] not in off


def instant(time: dt.datetime | None) -> str | None:
    """A time of ours as payloads have it."""
    return None if time is None else time.strftime("%Y-%m-%dT%H:%M:%SZ")


def of_image(image: Image, *, deleted_at: dt.datetime | None = None, store: str | None = None) -> dict[str, Any]:
    """image.create, .update, .prepare, .upload, .activate, .delete. `store`: where data are about to go."""
    gone = deleted_at is not None
    return {
        "id": image.id,
        "name": image.name,
        "status": "deleted" if gone else image.status,
        "created_at": instant(image.created_at),
        "updated_at": instant(image.updated_at),
        "min_disk": image.min_disk,
        "min_ram": image.min_ram,
        "protected": image.protected,
        "checksum": image.checksum,
        "owner": image.owner,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "size": image.size,
        "virtual_size": image.virtual_size,
        "is_public": image.visibility == "public",
        "visibility": image.visibility,
        "properties": dict(image.properties),
        "tags": list(image.tags),
        **_end(deleted_at),
        **({"backend": store} if store else {}),
    }


def of_member(member: Member, *, deleted_at: dt.datetime | None = None) -> dict[str, Any]:
    """image.member.create, .update, .delete."""
    return {
        "image_id": member.image_id,
        "member_id": member.member,
        "status": member.status,
        "created_at": instant(member.created_at),
        "updated_at": instant(member.updated_at),
        **_end(deleted_at),
    }


def of_task(task: Task, *, deleted_at: dt.datetime | None = None) -> dict[str, Any]:
    """task.create, .run, .processing, .success, .failure, .delete."""
    return {
        "id": task.id,
        "type": task.type,
        "status": task.status,
        "result": None,
        "owner": task.owner,
        "message": None,
        "expires_at": instant(task.expires_at),
        "created_at": instant(task.created_at),
        "updated_at": instant(task.updated_at),
        **_end(deleted_at),
    }


def of_namespace(
    namespace: Namespace, *, old: str | None = None, deleted_at: dt.datetime | None = None
) -> dict[str, Any]:
    """metadef_namespace.create, .update, .delete, .delete_objects, .delete_properties, .delete_tags. `old`: its name
    before."""
    return {
        "namespace": namespace.name,
        "namespace_old": old or namespace.name,
        "display_name": namespace.display_name,
        "protected": namespace.protected,
        "visibility": namespace.visibility,
        "owner": namespace.owner,
        "description": namespace.description,
        "created_at": instant(namespace.created_at),
        "updated_at": instant(namespace.updated_at),
        **_end(deleted_at),
    }


def of_definition(
    namespace: Namespace, name: str, *, old: str | None = None, deleted_at: dt.datetime | None = None
) -> dict[str, Any]:
    """What a namespace holds: metadef_object, metadef_property, metadef_tag and metadef_resource_type, .create, .update
    and .delete. `old`: its name before. What it says is for who asks."""
    return {"namespace": namespace.name, "name": name, "name_old": old or name, **_end(deleted_at)}


def of_download(image: Image, sent: int, *, user: str | None, project: str | None) -> dict[str, Any]:
    """image.send. `sent`: bytes; `user`, `project`: who got them."""
    return {
        "bytes_sent": sent,
        "image_id": image.id,
        "owner_id": image.owner,
        "receiver_tenant_id": project,
        "receiver_user_id": user,
    }


def _end(deleted_at: dt.datetime | None) -> dict[str, Any]:
    return {"deleted": deleted_at is not None, "deleted_at": instant(deleted_at)}
