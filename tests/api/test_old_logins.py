"""Rows of a peer's database hold logins in the URLs of S3 and Swift. Nobody is shown them, whatever is exposed, and
what clients send back as it was shown to them changes no URL."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.servers.service import Service
from xloud_image.model import shown_url

ID = "6f0e2c5a-53c0-4dc1-b7b9-0a5c0e4f8a11"
SECRETS = ("hunter2", "AKSECRET", "glance:", "service%3Aglance")
ROWS = [
    f"s3+https://AKSECRET:hunter2/b+c@127.0.0.1:1/images/{ID}",
    f"swift+http://service%3Aglance:hunter2@127.0.0.1:1/v3/glance/{ID}",
    "https://glance:hunter2@web.example.com/image",
]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (ROWS[0], f"s3+https://127.0.0.1:1/images/{ID}"),
        (f"s3://AKSECRET:hun@ter/2@h:7480/b/{ID}", f"s3://h:7480/b/{ID}"),
        (ROWS[1], f"swift+http://***@127.0.0.1:1/v3/glance/{ID}"),
        (f"swift+https://service:glance:hunter2/@h/v3/c/{ID}", f"swift+https://***@h/v3/c/{ID}"),
        (ROWS[2], "https://***@web.example.com/image"),
        ("http://web.example.com/a@b?c=@d#@", "http://web.example.com/a@b?c=@d#@"),
        (f"swift+config://ref1/a@b/{ID}", f"swift+config://ref1/a@b/{ID}"),
        (f"file:///srv/a@b/{ID}", f"file:///srv/a@b/{ID}"),
        (f"rbd://fsid/pool@x/{ID}/snap", f"rbd://fsid/pool@x/{ID}/snap"),
        ("", ""),
    ],
)
def test_what_is_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown
    assert shown_url(shown) == shown


def rows(service: Service) -> list[tuple[str, str]]:
    with sqlite3.connect(service.directory / "xloud-image.sqlite") as db:
        return db.execute("SELECT value, meta_data FROM image_locations WHERE NOT deleted ORDER BY id").fetchall()


def test_no_login_leaves_the_service(service: Callable[..., Service]) -> None:
    shown: dict[str, Any] = {"show_multiple_locations": True, "show_image_direct_url": True}
    one = service(
        {
            "DEFAULT": {"enabled_backends": "files:file, cold:s3, objects:swift, web:http", **shown},
            "cold": {
                "s3_store_host": "https://127.0.0.1:1",
                "s3_store_bucket": "images",
                "s3_store_access_key": "a",
                "s3_store_secret_key": "b",
            },
            "objects": {
                "swift_store_auth_address": "http://127.0.0.1:1/v3",
                "swift_store_user": "service:glance",
                "swift_store_key": "key",
            },
        }
    )
    headers = {"content-type": "application/octet-stream"}
    image = one.request("POST", "/v2/images", json={"disk_format": "raw", "container_format": "bare"}).json()["id"]
    assert one.request("PUT", f"/v2/images/{image}/file", body=b"x" * 600, headers=headers).status == 204
    with sqlite3.connect(Path(one.directory) / "xloud-image.sqlite") as db:
        for url in ROWS:
            db.execute(
                "INSERT INTO image_locations (image_id, value, meta_data, status, created_at, deleted)"
                " VALUES (?, ?, '{}', 'active', CURRENT_TIMESTAMP, 0)",
                (image, url),
            )
    seen = [
        one.request("GET", f"/v2/images/{image}"),
        one.request("GET", "/v2/images"),
        one.request("GET", f"/v2/images/{image}/locations"),
        one.request("GET", f"/v2/images/{image}/file?prefer=cold"),
    ]
    for answer in seen:
        assert answer.status == 200
        assert not [secret for secret in SECRETS if secret.encode() in answer.body], answer.body
    places = seen[0].json()["locations"]
    assert len(places) == 1 + len(ROWS)
    # as they were shown, in another order and with new metadata
    changed = [{"url": place["url"], "metadata": {"rack": str(at)}} for at, place in enumerate(reversed(places))]
    answer = one.request(
        "PATCH",
        f"/v2/images/{image}",
        json=[{"op": "replace", "path": "/locations", "value": changed}],
        headers={"content-type": "application/openstack-images-v2.1-json-patch"},
    )
    assert answer.status == 200, answer.body
    assert not [secret for secret in SECRETS if secret.encode() in answer.body]
    assert all("rack" in metadata for _, metadata in rows(one))
    assert {url for url, _ in rows(one)} >= set(ROWS)
    assert not [secret for secret in SECRETS if secret in one.log]
