"""Sharing images with projects: who adds, sees, answers and removes."""

from typing import Any

import pytest

from tests.api.cloud import Caller, Cloud


@pytest.fixture
def shared(cloud: Cloud) -> str:
    """An image of alpha, shared with beta, which has not answered yet."""
    image_id = cloud.ann.new(b"data", visibility="shared")
    assert members(cloud.ann, "POST", image_id, json={"member": "beta"}).status == 200
    return image_id


def members(caller: Caller, method: str, image_id: str, member: str = "", **how: Any) -> Any:
    return caller.ask(method, f"/v2/images/{image_id}/members{'/' if member else ''}{member}", **how)


def test_the_life_of_a_membership(cloud: Cloud, shared: str) -> None:
    member = members(cloud.ann, "GET", shared, "beta").json()
    assert set(member) == {"member_id", "image_id", "status", "created_at", "updated_at", "schema"}
    expected = {"member_id": "beta", "image_id": shared, "status": "pending", "schema": "/v2/schemas/member"}
    assert {name: member[name] for name in expected} == expected
    assert members(cloud.ann, "GET", shared).json() == {"members": [member], "schema": "/v2/schemas/members"}
    # the data can be had before the answer is given; the list shows it afterwards
    assert cloud.bob.download(shared).body == b"data"
    for status, listed in (("accepted", True), ("rejected", False), ("pending", False), ("accepted", True)):
        assert members(cloud.bob, "PUT", shared, "beta", json={"status": status}).json()["status"] == status
        assert bool(cloud.bob.listed(f"id={shared}")) == listed
        assert cloud.bob.show(shared)["id"] == shared
    assert members(cloud.ann, "DELETE", shared, "beta").status == 204
    assert cloud.bob.ask("GET", f"/v2/images/{shared}").status == 404
    assert members(cloud.ann, "DELETE", shared, "beta").status == 404
    assert members(cloud.ann, "POST", shared, json={"member": "beta"}).json()["status"] == "pending"


@pytest.mark.parametrize(
    ("who", "method", "member", "body", "status"),
    [
        ("ann", "POST", "", {"member": "gamma"}, 200),
        ("admin", "POST", "", {"member": "gamma"}, 200),
        ("ann", "POST", "", {"member": "beta"}, 409),
        ("ann", "POST", "", {"member": ""}, 400),
        ("ann", "POST", "", {"member": "m" * 256}, 400),
        ("ann", "POST", "", {"member": 5}, 400),
        ("ann", "POST", "", {}, 400),
        ("ann", "POST", "", [], 400),
        ("rita", "POST", "", {"member": "gamma"}, 403),
        ("bob", "POST", "", {"member": "gamma"}, 403),
        ("carl", "POST", "", {"member": "gamma"}, 404),
        ("bob", "PUT", "beta", {"status": "accepted"}, 200),
        ("admin", "PUT", "beta", {"status": "accepted"}, 200),
        ("ann", "PUT", "beta", {"status": "accepted"}, 403),
        ("carl", "PUT", "beta", {"status": "accepted"}, 404),
        ("bob", "PUT", "beta", {"status": "perhaps"}, 400),
        ("bob", "PUT", "beta", {"status": None}, 400),
        ("bob", "PUT", "beta", {}, 400),
        ("bob", "PUT", "gamma", {"status": "accepted"}, 404),
        ("ann", "GET", "beta", None, 200),
        ("rita", "GET", "beta", None, 200),
        ("bob", "GET", "beta", None, 200),
        ("ann", "GET", "gamma", None, 404),
        ("carl", "GET", "beta", None, 404),
        ("bob", "GET", "", None, 200),
        ("carl", "GET", "", None, 404),
        ("ann", "DELETE", "gamma", None, 404),
        ("bob", "DELETE", "beta", None, 403),
        ("rita", "DELETE", "beta", None, 403),
        ("carl", "DELETE", "beta", None, 404),
        ("admin", "DELETE", "beta", None, 204),
    ],
)
def test_who_may_what(cloud: Cloud, shared: str, who: str, method: str, member: str, body: Any, status: int) -> None:
    how = {} if body is None else {"json": body}
    answer = members(getattr(cloud, who), method, shared, member, **how)
    assert answer.status == status, answer.body


def test_a_member_sees_its_own_row_only(cloud: Cloud, shared: str) -> None:
    assert members(cloud.ann, "POST", shared, json={"member": "gamma"}).status == 200
    seen = {
        name: {row["member_id"] for row in members(getattr(cloud, name), "GET", shared).json()["members"]}
        for name in ("ann", "admin", "bob", "carl")
    }
    assert seen == {"ann": {"beta", "gamma"}, "admin": {"beta", "gamma"}, "bob": {"beta"}, "carl": {"gamma"}}
    assert members(cloud.bob, "GET", shared, "gamma").status == 404


@pytest.mark.parametrize("visibility", ["private", "community", "public"])
def test_only_shared_images_have_members(cloud: Cloud, shared: str, visibility: str) -> None:
    """Rows that are there already stay, and have no effect until the image is shared again."""
    change = {"op": "replace", "path": "/visibility", "value": visibility}
    assert cloud.admin.patch(shared, change).status == 200
    assert members(cloud.ann, "POST", shared, json={"member": "gamma"}).status == 403
    assert members(cloud.ann, "GET", shared).status == 403
    assert members(cloud.ann, "GET", shared, "beta").status == 404
    assert members(cloud.ann, "DELETE", shared, "beta").status == 403
    sees = cloud.bob.ask("GET", f"/v2/images/{shared}").status
    assert sees == (404 if visibility == "private" else 200)
    assert cloud.admin.patch(shared, {"op": "replace", "path": "/visibility", "value": "shared"}).status == 200
    assert cloud.bob.show(shared)["id"] == shared


def test_128_members(cloud: Cloud) -> None:
    image_id = cloud.ann.new()
    statuses = [members(cloud.ann, "POST", image_id, json={"member": f"p{n}"}).status for n in range(129)]
    assert statuses == [200] * 128 + [413]
