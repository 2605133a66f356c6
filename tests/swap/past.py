"""What a Glance leaves behind after some years: made through its API where it can be, else by its own rows.

Images come in three layers: those made through the API, each of a kind of its own; their copies by SQL, in every
status, visibility and with every owner; what no API makes any more (properties without a value, rows that are marked
deleted).
"""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

from tests.load import quiet
from tests.servers.glance import place as here
from tests.swap.site import ADMIN, FRIEND, OWNER, WHO, Site

DATA: Final = {"Content-Type": "application/octet-stream"}
PATCH: Final = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
STATUSES: Final = (
    "active", "queued", "saving", "importing", "uploading", "active", "deactivated", "killed", "deleted",
    "pending_delete",
)  # fmt: skip
VISIBILITIES: Final = ("public", "private", "shared", "community")
OWNERS: Final = (WHO[OWNER].project, None, WHO[ADMIN].project)
MEMBERSHIPS: Final = ("pending", "accepted", "rejected", None)
SHIPPED: Final = (
    "compute-libvirt.json", "software-webservers.json", "cim-processor-allocation-setting-data.json",
    "compute-cpu-pinning.json", "image-signature-verification.json",
)  # fmt: skip
ODD: Final = (
    "ü☃ größe",
    'quote " and, comma',
    "per%cent%20 and+plus",
    "back\\slash'",
    "a\tb",
    "x" * 255,
    " both ",
    "in:a",
)
TAGS: Final = ("even", "third", "größe", "a b", "sl/ash", 'q"uote', "100%", "in:a")


@dataclasses.dataclass
class Past:
    """Ids. `made`: of the API's images, by what they are; `kinds`: of one image of each kind; `all`; `tasks`."""

    made: dict[str, str] = dataclasses.field(default_factory=dict)
    kinds: list[str] = dataclasses.field(default_factory=list)
    all: list[str] = dataclasses.field(default_factory=list)
    tasks: list[str] = dataclasses.field(default_factory=list)


def content(number: int) -> bytes:
    return random.Random(number).randbytes(1 + number * 97)


WEB: Final = content(9)  # of the file that a web server has


def image(site: Site, name: str | None, data: bytes | None = None, who: str = OWNER, **fields: Any) -> str:
    """A new image through the API; with `store` its data goes there."""
    store = fields.pop("store", None)
    given = {"disk_format": "raw", "container_format": "bare", "visibility": "private", "name": name, **fields}
    known = {key: one for key, one in given.items() if one is not None}
    made: str = site.done("POST", "/v2/images", who, json=known)["id"]
    if data is not None:
        more = {"X-Image-Meta-Store": store} if store else {}
        site.done("PUT", f"/v2/images/{made}/file", who, body=data, headers=DATA | more)
    return made


def patch(site: Site, image_id: str, *operations: dict[str, Any], who: str = OWNER) -> Any:
    return site.done("PATCH", f"/v2/images/{image_id}", who, body=json.dumps(operations).encode(), headers=PATCH)


def place(url: str, **metadata: Any) -> dict[str, Any]:
    """The operation of PATCH that adds a location."""
    return {"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": metadata}}


def until(site: Site, image_id: str, there: Callable[[dict[str, Any]], bool]) -> None:
    """Wait for what a process does beside requests."""
    end = time.monotonic() + quiet(60)
    while not there(shown := site.done("GET", f"/v2/images/{image_id}")):
        assert time.monotonic() < end, (shown, site.done("GET", f"/v2/images/{image_id}/tasks"))
        time.sleep(0.1)


def imported(site: Site, image_id: str, data: bytes) -> None:
    """By staging and `glance-direct`."""
    site.done("PUT", f"/v2/images/{image_id}/stage", OWNER, body=data, headers=DATA)
    site.done("POST", f"/v2/images/{image_id}/import", OWNER, json={"method": {"name": "glance-direct"}})
    until(site, image_id, lambda shown: shown["status"] == "active")


def images(site: Site) -> dict[str, str]:
    """One image of each kind, by its name."""
    friend = WHO[FRIEND].project
    made = {
        "file": image(site, "file", content(3), tags=list(TAGS[:3]), os_distro="debian", hw_disk_bus="scsi",
                      min_ram=512),
        "slow": image(site, "slow", content(40), store="slow", tags=["even"], os_distro="alpine", min_disk=3),
        "web": image(site, "web", visibility="public", who=ADMIN),
        "several": image(site, "several", WEB, tags=["third"], visibility="community"),
        "empty": image(site, None, disk_format=None, container_format=None),
        "formats": image(site, "formats", disk_format="iso", container_format="bare", os_distro="debian"),
        "odd": image(site, ODD[0], content(5), visibility="shared", tags=list(TAGS)),
        "shrunk": image(site, "shrunk", content(6), tags=["gone", "stays"], gone="1", stays="2", back="3"),
        "protected": image(site, "protected", content(7), protected=True, visibility="shared"),
        "deactivated": image(site, "deactivated", content(8), visibility="shared"),
        "deleted": image(site, "deleted", content(10)),
        "secret": image(site, "secret", content(11), who=ADMIN, visibility="public", secret_key="s", licence="free"),
        "imported": image(site, "imported"),
        "staged": image(site, "staged"),
        "copied": image(site, "copied", content(12), visibility="public", who=ADMIN, disk_format="qcow2",
                        container_format="ovf"),
        "registered": image(site, "registered", who=ADMIN, visibility="shared", owner=WHO[OWNER].project),
    }  # fmt: skip
    patch(site, made["web"], place(site.web, store="web", note="ü"), who=ADMIN)
    patch(site, made["several"], place(site.web, store="web"), who=ADMIN)
    for number, name in enumerate(ODD[1:]):
        made[f"odd {number}"] = image(site, name, **{f"key {name[:200]}": name, "empty": "", "~tilde/": "ä\n/~"})
    patch(site, made["shrunk"], {"op": "remove", "path": "/gone"}, {"op": "remove", "path": "/back"},
          {"op": "add", "path": "/later", "value": "x" * 5000},
          {"op": "replace", "path": "/tags", "value": ["stays"]})  # fmt: skip
    patch(site, made["shrunk"], {"op": "add", "path": "/back", "value": "again"})
    site.done("POST", f"/v2/images/{made['deactivated']}/actions/deactivate", OWNER)
    site.done("DELETE", f"/v2/images/{made['deleted']}", OWNER)
    imported(site, made["imported"], content(13))
    site.done("PUT", f"/v2/images/{made['staged']}/stage", OWNER, body=content(14), headers=DATA)
    site.done("POST", f"/v2/images/{made['registered']}/locations", json={"url": site.web})
    until(site, made["registered"], lambda shown: bool(shown["os_hash_value"]))
    copy = {"method": {"name": "copy-image"}, "stores": ["slow"]}
    site.done("POST", f"/v2/images/{made['copied']}/import", ADMIN, json=copy)
    answers = {"odd": "accepted", "protected": "rejected", "deactivated": "accepted", "registered": None}
    for name, answer in answers.items():
        for member in (friend, "d" * 32, "größe"):
            site.done("POST", f"/v2/images/{made[name]}/members", OWNER, json={"member": member})
        if answer:
            site.done("PUT", f"/v2/images/{made[name]}/members/{friend}", FRIEND, json={"status": answer})
        site.done("DELETE", f"/v2/images/{made[name]}/members/{'d' * 32}", OWNER)
    until(site, made["copied"], lambda shown: set(shown["stores"].split(",")) == {"fast", "slow"})
    return made


def copies(site: Site, made: dict[str, str], count: int) -> tuple[list[str], list[str]]:
    """`count` copies by SQL; (all of them, the first of each kind).

    A kind is what the image is (its status, visibility, owner, whether it is hidden) and the caller's share in it.
    """
    forms = ("file", "slow", "web", "several")
    rows, locations, seen, first, web = [], [], set(), [], site.web
    columns = (
        "name, size, virtual_size, checksum, os_hash_algo, os_hash_value, min_disk, min_ram, protected, disk_format,"
        " container_format"
    )
    for number in range(count):
        status = STATUSES[number % len(STATUSES)]
        visibility, owner = VISIBILITIES[number // 10 % 4], OWNERS[number // 40 % 3]
        hidden, form = number // 120 % 2 == 1, forms[number // 3 % 4]
        new = str(uuid.UUID(int=(0x1000 + number * 7919) << 96 | 0x4000 << 64 | 0x8000 << 48 | number))
        full = status in ("active", "deactivated", "deleted", "pending_delete")
        source = made[form if full else ("formats", "empty")[number % 2] if status == "queued" else "formats"]
        gone = status in ("deleted", "pending_delete")
        when = moment(site, number)
        kind = status, visibility, owner, hidden, number % 4 if visibility == "shared" else 0
        if kind not in seen:
            seen.add(kind)
            first.append(new)
        values = [
            text(site, new), text(site, status), text(site, visibility), text(site, owner), str(hidden).lower(),
            when, when if number % 3 else moment(site, number * 5 % count), str(gone).lower(), when if gone else "NULL",
        ]  # fmt: skip
        rows.append(
            "INSERT INTO images (id, status, visibility, owner, os_hidden, created_at, updated_at, deleted, deleted_at,"
            f" {columns}) SELECT {', '.join(values)}, {columns} FROM images WHERE id = '{source}'"
        )
        rows.append(f"INSERT INTO copies VALUES ('{new}', '{source}')")
        if full:
            urls = [web] if form == "web" else []
            if form != "web":
                store, of = ("slow" if form == "slow" else "fast"), made[form]
                site.has(store, of, new)
                urls.append(f"file://{site.store(store)}/{new}")
            if form == "several":
                urls.append(web)
            state = status if gone else "active"
            locations += [(new, url, "web" if url == web else store, state, gone, when) for url in urls]
    site.sql("CREATE TABLE copies (new char(36) PRIMARY KEY, old char(36))", *rows)
    sealed = site.sealed([one[1] for one in locations])
    site.sql(*[
        "INSERT INTO image_locations (image_id, value, meta_data, status, created_at, updated_at, deleted, deleted_at)"
        " VALUES"
        f" ('{new}', '{url}', '{{\"store\": \"{store}\"}}', '{state}', {when}, {when}, {str(gone).lower()},"
        f" {when if gone else 'NULL'})"
        for (new, _, store, state, gone, when), url in zip(locations, sealed, strict=True)
    ])  # fmt: skip
    site.sql(
        *[
            f"INSERT INTO {table} (image_id, {columns}, created_at, updated_at, deleted, deleted_at)"
            f" SELECT c.new, {columns}, r.created_at, r.updated_at, r.deleted, r.deleted_at"
            f" FROM {table} r JOIN copies c ON c.old = r.image_id"
            for table, columns in (("image_properties", "name, value"), ("image_tags", "value"))
        ],
        "DROP TABLE copies",
    )
    every = sorted(row.partition("'")[2].partition("'")[0] for row in rows[::2])
    return every, first


def moment(site: Site, number: int) -> str:
    """A time of a row: three images have the same; PostgreSQL has fractions of a second."""
    at = number // 3
    fraction = ".25" if site.postgresql and number % 2 else ""
    return f"'2026-03-{1 + at // 60 % 28:02} 10:{at % 60:02}:{at * 7 % 60:02}{fraction}'"


def text(site: Site, value: str | None) -> str:
    """As SQL has it."""
    if value is None:
        return "NULL"
    plain = value.replace("'", "''")
    return "'" + (plain if site.postgresql else plain.replace("\\", "\\\\")) + "'"


def extras(site: Site, ids: Sequence[str]) -> None:
    """What hangs on the copies: members of every kind, properties without a value, deleted and in flight."""
    friend, rows = WHO[FRIEND].project, []
    for number, one in enumerate(ids):
        when = moment(site, number)
        if number % 2:
            status = MEMBERSHIPS[number // 2 % 4]
            if status:
                rows.append(
                    "INSERT INTO image_members (image_id, member, can_share, status, created_at, updated_at, deleted)"
                    f" VALUES ('{one}', '{friend}', false, '{status}', {when}, {when}, false)"
                )
            rows.append(
                "INSERT INTO image_members (image_id, member, can_share, status, created_at, updated_at, deleted,"
                f" deleted_at) VALUES ('{one}', '{'e' * 32}', false, 'accepted', {when}, {when}, true, {when}),"
                f" ('{one}', '{'f' * 32}', false, 'pending', {when}, {when}, false, NULL)"
            )
        properties: list[tuple[str, str | None, bool]] = []
        if number % 5 == 0:
            properties += [("nothing", None, False), ("secret_word", "s3", False), ("was", "x", True)]
        if number % 7 == 0:
            properties += [("licence", "free", False), ("größe", "ü☃", False), ("hw_rng_model", "virtio", False)]
        rows += [
            "INSERT INTO image_properties (image_id, name, value, created_at, updated_at, deleted, deleted_at) VALUES"
            f" ('{one}', '{name}', {text(site, value)}, {when}, {when}, {str(gone).lower()},"
            f" {when if gone else 'NULL'})"
            for name, value, gone in properties
        ]
        if number % 11 == 0:
            rows.append(
                "INSERT INTO image_tags (image_id, value, created_at, updated_at, deleted)"
                f" VALUES ('{one}', 'copy', {when}, {when}, false)"
            )
    flight = "os_glance_importing_to_stores", "os_glance_import_task", "os_glance_stage_host", "os_glance_failed_import"
    for name in flight:
        rows.append(
            "INSERT INTO image_properties (image_id, name, value, created_at, updated_at, deleted) SELECT id, "
            f"'{name}', 'slow', created_at, created_at, false FROM images WHERE status IN ('importing', 'uploading')"
            " AND name = 'formats'"
        )
    site.sql(*rows)


def definitions(site: Site) -> None:
    """Metadata definitions: some of those that come with Glance, and those of projects."""
    (few := site.directory / "metadefs").mkdir()
    for name in SHIPPED:
        shutil.copy(here() / "etc" / "glance" / "metadefs" / name, few)
    site.manage("db", "load_metadefs", "--path", str(few))
    for number in range(6):
        namespace(site, number)
    when = moment(site, 0)
    site.sql(
        "INSERT INTO metadef_namespaces (namespace, owner, created_at) VALUES "
        f"('OS::Old::Nobody', 'admin', {when}), ('OS::Old::Owner', '{WHO[OWNER].project}', {when})",
        f"UPDATE metadef_namespaces SET visibility = 'private', protected = false, owner = '{WHO[OWNER].project}'"
        " WHERE namespace = 'OS::Swap::Number3'",
    )


def namespace(site: Site, number: int) -> str:
    """A namespace with all that one can have."""
    name = f"OS::Swap::Number{number}"
    site.done("POST", "/v2/metadefs/namespaces", json={
        "namespace": name, "display_name": f"Number {number} ü", "description": "x" * number,
        "visibility": ("public", "private")[number % 2], "protected": number % 5 == 0,
    })  # fmt: skip
    base = f"/v2/metadefs/namespaces/{name}"
    kind = ("OS::Glance::Image", "OS::Nova::Flavor")[number % 2]
    site.done("POST", f"{base}/resource_types", json={"name": kind, "prefix": f"p{number}_"})
    whole = {"name": "cores", "title": "Cores", "type": "integer", "minimum": 1, "maximum": 64, "default": 4}
    words = {"name": "bus", "title": "Bus", "type": "string", "enum": ["scsi", "virtio"], "description": "größe"}
    for one in (whole, words):
        site.done("POST", f"{base}/properties", json=one)
    properties = {"one": {"title": "One", "type": "boolean"}, "two": {"title": "Two", "type": "array"}}
    site.done("POST", f"{base}/objects", json={"name": "pair", "properties": properties, "required": ["one"]})
    for tag in ("small", "large"):
        site.done("POST", f"{base}/tags/{tag}")
    return name


def tasks(site: Site, made: dict[str, str]) -> list[str]:
    """In every state, of every type, of several projects; some have expired. Their ids."""
    rows, ids = [], []
    number = 0
    for status in ("pending", "processing", "success", "failure"):
        for kind in ("import", "api_image_import", "location_import"):
            for owner in (WHO[ADMIN].project, WHO[OWNER].project):
                for expires in ("NULL", "'2037-01-01 00:00:00'", "'2026-04-01 00:00:00'"):
                    number += 1
                    one = str(uuid.UUID(int=(0x2000 + number * 7907) << 96 | 0x4000 << 64 | 0x8000 << 48 | number))
                    ids.append(one)
                    when = moment(site, number)
                    user = "NULL" if number % 3 else "'owner'"
                    of = "NULL" if number % 4 == 0 else f"'{made['file']}'"
                    rows.append(
                        "INSERT INTO tasks (id, type, status, owner, expires_at, created_at, updated_at, deleted,"
                        " image_id, request_id, user_id) VALUES"
                        f" ('{one}', '{kind}', '{status}', '{owner}', {expires}, {when}, {when}, false, {of}, {user},"
                        f" {user})"
                    )
                    result = "NULL" if number % 2 else text(site, json.dumps({"image_id": made["file"]}))
                    message = text(site, "" if number % 5 else "größe 'x'")
                    given = text(site, json.dumps({"import_from": "http://x/", "image_properties": {"name": "ü\n"}}))
                    rows.append(
                        "INSERT INTO task_info (task_id, input, result, message)"
                        f" VALUES ('{one}', {given}, {result}, {message})"
                    )
    site.sql(*rows)
    return ids


def fill(site: Site, count: int) -> Past:
    """All of it; `count` images at least."""
    made = images(site)
    every, kinds = copies(site, made, count - len(made))
    extras(site, every)
    definitions(site)
    return Past(made, [*made.values(), *kinds], [*made.values(), *every], tasks(site, made))
