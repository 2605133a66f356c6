"""The invariants after a crash, proved behind the service's back: its database and its store's directory.

No acknowledged image is lost or changed, no acknowledged deletion undone; each request that was not answered was done
or was not done, nothing between; no bytes without a location, no location without bytes, no claim, no stuck status.
"""

import hashlib
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.crash.client import Client, NoAnswer
from tests.crash.ledger import Ledger, Record
from tests.load import quiet
from tests.servers.service import Service

SETTLED = 30  # seconds that a restarted service may take to clean up; its leases are short


def rows(service: Service, statement: str) -> list[tuple[Any, ...]]:
    """From the database file itself."""
    file = service.sections["database"]["connection"].removeprefix("sqlite:///")
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def claims(service: Service) -> list[tuple[Any, ...]]:
    return rows(service, "SELECT kind, image_id, store, holder, attempts, error FROM xloud_claims")


def wait_until_settled(service: Service, seconds: float = SETTLED) -> list[tuple[Any, ...]]:
    """Until no claim is left; those that are."""
    begun = time.monotonic()
    while (left := claims(service)) and time.monotonic() - begun < quiet(seconds):
        time.sleep(0.05)
    return left


def files(directory: Path) -> dict[str, int]:
    """Everything below the store's directory, temporary names included: name → bytes."""
    return {str(path.relative_to(directory)): path.stat().st_size for path in directory.rglob("*") if path.is_file()}


def prove(service: Service, ledger: Ledger, *, only: Sequence[Record] | None = None, again: bool = True) -> list[str]:
    """What is wrong, in sentences; empty when all holds. What was unknown in the ledger is known afterwards.

    `only`: the images to ask for (behind the service's back all are looked at). `again`: images that are queued get
    their data now, as a client would try again.
    """
    wrong = [f"a claim is left after {SETTLED} s: {claim}" for claim in wait_until_settled(service)]
    for record in ledger.records if only is None else only:
        wrong += [f"image {record.id}: {what}" for what in _check(service, record)]
    wrong += _behind(service, ledger)
    if again and not wrong:
        wrong += _upload_again(service, ledger)
    return wrong


def _check(service: Service, record: Record) -> list[str]:
    answer = service.request("GET", f"/v2/images/{record.id}")
    if answer.status == 404:
        if record.created and not (record.deleted or record.maybe_deleted):
            return ["was acknowledged and is lost"]
        record.deleted, record.maybe_deleted = True, False
        return []
    if answer.status != 200:
        return [f"cannot be shown: {answer.status} {answer.body!r}"]
    if record.deleted:
        return ["was deleted and is back"]
    record.created, record.maybe_deleted = True, False
    image = answer.json()
    return [*_check_marks(record, image), *_check_data(service, record, image), *_check_members(service, record)]


def _check_marks(record: Record, image: dict[str, Any]) -> list[str]:
    found = image.get("mark_one"), image.get("mark_two")
    allowed = {record.mark, record.maybe_mark if record.maybe_mark is not None else record.mark}
    if found not in {(str(mark), str(mark)) if mark else (None, None) for mark in allowed}:
        return [f"has the marks {found}; both must be one of {allowed}"]
    record.mark, record.maybe_mark = int(found[0] or 0), None
    return []


def _check_data(service: Service, record: Record, image: dict[str, Any]) -> list[str]:
    if image["status"] == "queued":
        if record.data is not None:
            return ["lost its data"]
        record.maybe_data = None
        kept = {name: image[name] for name in ("size", "checksum", "os_hash_value", "stores") if image.get(name)}
        return [f"is queued and has {kept}"] if kept else []
    if image["status"] != "active":
        return [f"is stuck in {image['status']}"]
    answer = service.request("GET", f"/v2/images/{record.id}/file")
    digest = hashlib.sha256(answer.body).hexdigest()
    expected = {data.sha256: data for data in record.may_hold()}
    if answer.status not in (200, 204) or digest not in expected:
        return [f"has other data: {answer.status}, {len(answer.body)} bytes, sha256 {digest}"]
    record.data, record.maybe_data = expected[digest], None
    if image["size"] != record.data.size or image["checksum"] != hashlib.md5(answer.body).hexdigest():
        return [f"says it has {image['size']} bytes and md5 {image['checksum']}"]
    return []


def _check_members(service: Service, record: Record) -> list[str]:
    answer = service.request("GET", f"/v2/images/{record.id}/members")
    found = frozenset(member["member_id"] for member in answer.json()["members"])
    if not record.members <= found <= record.members | record.maybe_members:
        return [f"has the members {found}"]
    record.members, record.maybe_members = found, frozenset()
    return []


def _behind(service: Service, ledger: Ledger) -> list[str]:
    wrong = []
    stuck = rows(service, "SELECT id, status FROM images WHERE NOT deleted AND status NOT IN ('queued', 'active')")
    wrong += [f"image {image} is stuck in {status}" for image, status in stuck]
    half = rows(service, "SELECT id, status FROM images WHERE deleted <> (status = 'deleted')")
    wrong += [f"image {image} is half deleted: {status}" for image, status in half]
    for table in ("image_locations", "image_properties", "image_tags", "image_members"):
        kept = rows(
            service,
            f"SELECT image_id FROM {table} WHERE NOT deleted AND image_id IN (SELECT id FROM images WHERE deleted)",
        )
        wrong += [f"{table} still has a row of the deleted image {image}" for (image,) in kept]
    places = rows(service, "SELECT image_id, value FROM image_locations WHERE NOT deleted AND value LIKE 'file:%'")
    named = {Path(value.removeprefix("file://")).name: image for image, value in places}
    found = files(service.images)
    wrong += [f"bytes without a location: {name}" for name in found.keys() - named.keys()]
    wrong += [f"image {named[name]} has a location without bytes" for name in named.keys() - found.keys()]
    full = {record.id: record.data for record in ledger.records if record.data is not None and not record.deleted}
    wrong += [f"image {image} has no location" for image in full.keys() - {image for image, _ in places}]
    wrong += [
        f"the bytes of image {image} changed"
        for name, image in named.items()
        if image in full and name in found
        if hashlib.sha256((service.images / name).read_bytes()).hexdigest() != full[image].sha256
    ]
    wrong += [f"image {image} has two locations" for image, _ in places if [one for one, _ in places].count(image) > 1]
    return wrong


def _upload_again(service: Service, ledger: Ledger) -> list[str]:
    wrong = []
    client = Client(service.url, ledger, "again")
    for record in ledger.records:
        if record.created and not record.deleted and record.data is None:
            try:
                if (status := client.upload(record, 70_000)) != 204:
                    wrong.append(f"image {record.id} is queued and takes no data again: {status}")
            except NoAnswer as error:
                wrong.append(f"image {record.id} is queued and takes no data again: {error}")
    return wrong + client.surprises
