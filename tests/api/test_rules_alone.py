"""The rule of an action stands alone: `get_image` says who reads an image, not who may do the other things to it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.cloud import Caller, Cloud

ALL = (
    "download_image", "modify_image", "delete_image", "upload_image", "deactivate", "reactivate", "get_members",
    "add_member", "delete_member", "get_member", "modify_member", "choose_store", "get_images", "add_image",
)  # fmt: skip


def cloud_with(folder: Path, rules: dict[str, str]) -> Cloud:
    policy = folder / "policy.yaml"
    policy.write_text("".join(f'"{name}": "{check}"\n' for name, check in rules.items()))
    one = Cloud(folder, oslo_policy={"policy_file": policy})
    one.service.start()
    return one


@pytest.fixture(scope="module")
def unread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Nobody reads an image; everybody does everything else."""
    one = cloud_with(tmp_path_factory.mktemp("unread"), {"get_image": "!", **dict.fromkeys(ALL, "")})
    yield one
    one.service.stop()


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Nobody reads an image, or does anything to it."""
    rules = {name: "!" for name in ALL if name not in ("add_image", "get_images")}
    one = cloud_with(tmp_path_factory.mktemp("nothing"), {"get_image": "!", **rules})
    yield one
    one.service.stop()


ACTIONS: dict[str, tuple[Callable[[Caller, str], Any], int]] = {
    "download": (lambda who, i: who.download(i), 200),
    "part": (lambda who, i: who.download(i, Range="bytes=0-1"), 206),
    "change": (lambda who, i: who.patch(i, {"op": "add", "path": "/colour", "value": "red"}), 200),
    "tag": (lambda who, i: who.ask("PUT", f"/v2/images/{i}/tags/x"), 204),
    "untag": (lambda who, i: who.ask("DELETE", f"/v2/images/{i}/tags/there"), 204),
    "deactivate": (lambda who, i: who.ask("POST", f"/v2/images/{i}/actions/deactivate"), 204),
    "reactivate": (lambda who, i: who.ask("POST", f"/v2/images/{i}/actions/reactivate"), 204),
    "members": (lambda who, i: who.ask("GET", f"/v2/images/{i}/members"), 200),
    "share": (lambda who, i: who.ask("POST", f"/v2/images/{i}/members", json={"member": "gamma"}), 200),
    "answer": (lambda who, i: who.ask("PUT", f"/v2/images/{i}/members/beta", json={"status": "accepted"}), 200),
    "member": (lambda who, i: who.ask("GET", f"/v2/images/{i}/members/beta"), 200),
    "share no longer": (lambda who, i: who.ask("DELETE", f"/v2/images/{i}/members/beta"), 204),
    "upload": (lambda who, i: who.upload(who.new(), b"data"), 204),
    "delete": (lambda who, i: who.delete(i), 204),
}


def shared(cloud: Cloud) -> str:
    """The id of an active image of alpha that is shared with beta, made past the rules."""
    made = cloud.ann.create(disk_format="raw", container_format="bare", tags=["there"], visibility="shared")
    image_id: str = made.json()["id"]
    return image_id


@pytest.mark.parametrize("name", ACTIONS)
@pytest.mark.parametrize("who", ["ann", "admin"])
def test_an_action_needs_its_own_rule_only(unread: Cloud, name: str, who: str) -> None:
    image_id = shared(unread)
    assert unread.ann.upload(image_id, b"data").status == 204
    members = f"/v2/images/{image_id}/members"
    assert unread.ann.ask("POST", members, json={"member": "beta"}).status == 200
    act, status = ACTIONS[name]
    answer = act(getattr(unread, who), image_id)
    assert answer.status == status, answer.body
    assert getattr(unread, who).ask("GET", f"/v2/images/{image_id}").status == 404


@pytest.mark.parametrize("name", [name for name in ACTIONS if name != "upload"])
@pytest.mark.parametrize("who", ["ann", "admin", "bob"])
def test_what_may_not_be_read_is_not_there(nothing: Cloud, name: str, who: str) -> None:
    """Neither rule allows it: 404, for administrators too, and not a word about whether there is such an image."""
    image_id = shared(nothing)
    act, _ = ACTIONS[name]
    answer = act(getattr(nothing, who), image_id)
    unknown = "11111111-2222-4333-8444-555555555555"
    other = act(getattr(nothing, who), unknown)
    assert answer.status == other.status == 404
    assert answer.body.replace(image_id.encode(), b"") == other.body.replace(unknown.encode(), b"")
