"""What the operator's rules say, beside what the answers do."""

from pathlib import Path
from typing import Any

from tests.api.cloud import Cloud
from tests.faults.rows import Site, row


def cloud(site: Site, rules: dict[str, str], **sections: Any) -> Cloud:
    """Users of several projects under these rules."""
    folder: Path = site.directory()
    policy = folder / "policy.yaml"
    policy.write_text("".join(f'"{name}": "{check}"\n' for name, check in rules.items()))
    one = Cloud(folder, oslo_policy={"policy_file": policy}, **sections)
    site.closing(_Kill(one))
    one.service.start()
    return one


class _Kill:
    def __init__(self, one: Cloud) -> None:
        self.one = one

    def close(self) -> None:
        self.one.service.kill()


@row("a list shows no image that the rule get_image hides", "bob 0 404, ann 3 200, carl by property 1 404")
def lists(site: Site) -> str:
    own = cloud(site, {"get_image": "rule:context_is_admin or project_id:%(project_id)s"})
    images = [own.admin.new(visibility="public", owner="alpha") for _ in range(3)]
    path = f"/v2/images/{images[0]}"
    parts = [f"{who} {len(caller.listed('limit=100'))} {caller.ask('GET', path).status}" for who, caller in (
        ("bob", own.bob), ("ann", own.ann),
    )]  # fmt: skip
    by_property = cloud(site, {"get_image": "'open':%(shelf)s"})
    for number in range(250):
        by_property.admin.new(visibility="public", shelf="open" if number == 0 else "shut")
    shut = by_property.carl.listed("limit=1&shelf=shut")
    shown = by_property.carl.listed("limit=1")
    refused = by_property.carl.ask("GET", f"/v2/images/{by_property.ann.new()}").status
    parts.append(f"carl by property {len(shown) + len(shut)} {refused}")
    return ", ".join(parts)


@row("an administrator who may not read an image", "404 404")
def unread(site: Site) -> str:
    one = cloud(site, {"get_image": "!", "download_image": "!"})
    image = one.ann.create(disk_format="raw", container_format="bare").json()["id"]
    return " ".join(str(one.admin.ask("GET", f"/v2/images/{image}{end}").status) for end in ("", "/file"))


@row("a rule of an action stands alone", "ann 200 200 204 204 204, admin 200 200 204 204 204")
def alone(site: Site) -> str:
    names = ("download_image", "modify_image", "deactivate", "upload_image", "delete_image", "choose_store")
    one = cloud(site, {"get_image": "!", **dict.fromkeys(names, "")})
    found = []
    for who, caller in (("ann", one.ann), ("admin", one.admin)):
        image = one.ann.create(disk_format="raw", container_format="bare", owner="alpha").json()["id"]
        assert one.ann.upload(image, b"data").status == 204
        got = [
            caller.download(image),
            caller.patch(image, {"op": "add", "path": "/colour", "value": "red"}),
            caller.ask("PUT", f"/v2/images/{image}/tags/x"),
            caller.ask("POST", f"/v2/images/{image}/actions/deactivate"),
            caller.delete(image),
        ]
        found.append(f"{who} {' '.join(str(answer.status) for answer in got)}")
    return ", ".join(found)
