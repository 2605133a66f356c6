"""Rights in a store follow those of the image: on a real Swift, seen there by the readers' own tokens."""

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from tests.servers.http import Answer, request
from tests.servers.keystone import Keystone
from tests.servers.service import Service
from tests.servers.swift import Swift
from tests.stores.swift_hooks import Behind
from xloud_image.stores.suite import noise

DATA = noise(3_000_000)


class Cloud:
    """A service whose images lie in the accounts of their uploaders."""

    def __init__(self, swift: Swift, service: Callable[..., Service]) -> None:
        keystone: Keystone = swift.keystone
        self.container = f"shared-{secrets.token_hex(4)}"
        self.service = service(
            {
                **keystone.sections(),
                "DEFAULT": {"enabled_backends": "objects:swift"},
                "glance_store": {"default_backend": "objects"},
                "objects": {
                    "swift_store_auth_address": keystone.url,
                    "swift_store_multi_tenant": "true",
                    "swift_store_container": self.container,
                    "swift_store_large_object_size": "1",
                    "swift_store_large_object_chunk_size": "1",
                },
            }
        )
        self.users = {name: Behind(swift, name) for name in ("demo", "alt", "admin")}

    def ask(self, user: str, method: str, path: str, **how: Any) -> Answer:
        headers = {"X-Auth-Token": self.users[user].token, **how.pop("headers", {})}
        return self.service.request(method, f"/v2/images{path}", headers=headers, **how)

    def new(self, **fields: Any) -> str:
        body = {"disk_format": "raw", "container_format": "bare", **fields}
        image: str = self.ask("demo", "POST", "", json=body).json()["id"]
        answer = self.ask(
            "demo", "PUT", f"/{image}/file", body=DATA, headers={"Content-Type": "application/octet-stream"}
        )
        assert answer.status == 204, answer
        return image

    def alt_reads_in_swift(self, image: str) -> bool:
        """By the storage's own URL, without our service."""
        url = f"{self.users['demo'].storage}/{self.container}_{image}/{image}"
        answer = request("GET", url, headers={"X-Auth-Token": self.users["alt"].token})
        assert answer.status in (200, 403), answer
        return answer.status == 200 and answer.body == DATA

    def set(self, image: str, visibility: str, user: str = "demo") -> None:
        answer = self.ask(
            user,
            "PATCH",
            f"/{image}",
            json=[{"op": "replace", "path": "/visibility", "value": visibility}],
            headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
        )
        assert answer.status == 200, answer


@pytest.fixture
def cloud(swift: Swift, service: Callable[..., Service]) -> Cloud:
    return Cloud(swift, service)


def test_members_and_visibility_are_followed(cloud: Cloud) -> None:
    image = cloud.new(visibility="shared")
    alt = cloud.users["alt"].project
    assert not cloud.alt_reads_in_swift(image)
    assert cloud.ask("alt", "GET", f"/{image}/file").status == 404
    assert cloud.ask("demo", "POST", f"/{image}/members", json={"member": alt}).status == 200
    assert cloud.alt_reads_in_swift(image)
    answer = cloud.ask("alt", "GET", f"/{image}/file", headers={"Range": "bytes=1023990-1024009"})
    assert (answer.status, answer.body) == (206, DATA[1023990:1024010])
    assert cloud.ask("demo", "DELETE", f"/{image}/members/{alt}").status == 204
    assert not cloud.alt_reads_in_swift(image)
    cloud.set(image, "community")
    assert cloud.alt_reads_in_swift(image)
    assert cloud.ask("alt", "GET", f"/{image}/file").body == DATA
    cloud.set(image, "private")
    assert not cloud.alt_reads_in_swift(image)
    assert cloud.ask("demo", "DELETE", f"/{image}").status == 204
    assert cloud.users["demo"].containers(cloud.container) == []


def test_an_image_that_is_for_all_from_the_start(cloud: Cloud) -> None:
    assert cloud.alt_reads_in_swift(cloud.new(visibility="community"))


def test_a_store_that_refuses_undoes_nothing(cloud: Cloud) -> None:
    image = cloud.new(visibility="private")
    # the administrator is nobody in the account of the owner
    cloud.set(image, "public", user="admin")
    assert not cloud.alt_reads_in_swift(image)
    assert "the store does not follow the rights of the image" in cloud.service.log
    cloud.set(image, "community")  # the cure
    assert cloud.alt_reads_in_swift(image)
