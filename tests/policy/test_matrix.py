"""Who may do what with which image: every role, project, visibility and action in one table.

One block for each action, one line for each role, one column for each visibility. The six letters of a cell are the
caller's project:

    1. the owner              4. shared with, pending
    2. another one            5. shared with, rejected
    3. shared with, accepted  6. no project at all

    o  allowed      F  Forbidden, 403      -  NotFound, 404: the image does not exist for him

"private-" and "shared-" are images whose owner is NULL: the first is administrators' alone, the second is read as a
public one is. Memberships of images that are not shared have no effect.
"""

import pytest

from xloud_image.errors import Forbidden, NotFound
from xloud_image.identity.context import Context
from xloud_image.model import Image, Member
from xloud_image.policy import Policy, images

TABLE = """
action, role   public   private  shared   community private- shared-
get
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       oooooo   o-----   o-ooo-   oooooo   ------   oooooo
  reader       oooooo   o-----   o-ooo-   oooooo   ------   oooooo
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
change, tag
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       oFFFFF   o-----   o-FFF-   oFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
make public
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       oFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
make community
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       oFFFFF   o-----   o-FFF-   oFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
change owner
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
delete
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       oFFFFF   o-----   o-FFF-   oFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
upload
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       oFFFFF   o-----   o-FFF-   oFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
upload, store chosen
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       oFFFFF   o-----   o-FFF-   oFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
download
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       oooooo   o-----   o-ooo-   oooooo   ------   oooooo
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
download, store chosen
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       oooooo   o-----   o-ooo-   oooooo   ------   oooooo
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
download, deactivated
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
deactivate
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       oFFFFF   o-----   o-FFF-   oFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
reactivate
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       oFFFFF   o-----   o-FFF-   oFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
list members
  admin        FFFFFF   FFFFFF   oooooo   FFFFFF   FFFFFF   oooooo
  member       FFFFFF   F-----   o-ooo-   FFFFFF   ------   oooooF
  reader       FFFFFF   F-----   o-ooo-   FFFFFF   ------   oooooF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
see another's row
  admin        FFFFFF   FFFFFF   oooooo   FFFFFF   FFFFFF   oooooo
  member       FFFFFF   F-----   o-----   FFFFFF   ------   ------
  reader       FFFFFF   F-----   o-----   FFFFFF   ------   ------
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
add, remove member
  admin        FFFFFF   FFFFFF   oooooo   FFFFFF   FFFFFF   oooooo
  member       FFFFFF   F-----   o-FFF-   FFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
answer for itself
  admin        FFFFFF   FFFFFF   oooooo   FFFFFF   FFFFFF   oooooo
  member       FFFFFF   F-----   o-ooo-   FFFFFF   ------   ooooo-
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFF-
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
answer for another
  admin        FFFFFF   FFFFFF   oooooo   FFFFFF   FFFFFF   oooooo
  member       FFFFFF   F-----   F-----   FFFFFF   ------   ------
  reader       FFFFFF   F-----   F-----   FFFFFF   ------   ------
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
see locations
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       oooooo   o-----   o-ooo-   oooooo   ------   oooooo
  reader       oooooo   o-----   o-ooo-   oooooo   ------   oooooo
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
set location
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       oFFFFF   o-----   o-FFF-   oFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
remove location
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
add location (2.17)
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       oFFFFF   o-----   o-FFF-   oFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      oooooo   o-----   o-ooo-   oooooo   ------   oooooo
  none         ------   ------   ------   ------   ------   ------
fetch locations (2.17)
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      oooooo   o-----   o-ooo-   oooooo   ------   oooooo
  none         ------   ------   ------   ------   ------   ------
copy to stores
  admin        oooooo   oooooo   oooooo   oooooo   oooooo   oooooo
  member       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  reader       FFFFFF   F-----   F-FFF-   FFFFFF   ------   FFFFFF
  service      ------   ------   ------   ------   ------   ------
  none         ------   ------   ------   ------   ------   ------
"""

ROLES = {
    "admin": {"admin", "manager", "member", "reader"},
    "member": {"member", "reader"},
    "reader": {"reader"},
    "service": {"service"},
    "none": set(),
}
PROJECTS = ("owner", "other", "accepted", "pending", "rejected", None)
VISIBILITIES = ("public", "private", "shared", "community", "private-", "shared-")

POLICY = Policy()


def show_locations(policy, ctx, image):
    images.require_see(policy, ctx, image)
    if not images.may_see_locations(policy, ctx, image):
        raise Forbidden("hidden")


ACTIONS = {
    "get": images.require_see,
    "change, tag": lambda p, c, i: images.require(p, c, "modify_image", i),
    "make public": lambda p, c, i: images.require_visibility(p, c, i, "public"),
    "make community": lambda p, c, i: images.require_visibility(p, c, i, "community"),
    "change owner": images.require_owner_change,
    "delete": lambda p, c, i: images.require(p, c, "delete_image", i),
    "upload": images.require_upload,
    "upload, store chosen": lambda p, c, i: images.require_upload(p, c, i, chosen_store=True),
    "download": images.require_download,
    "download, store chosen": lambda p, c, i: images.require_download(p, c, i, chosen_store=True),
    "download, deactivated": lambda p, c, i: images.require_download(p, c, i.replace(status="deactivated")),
    "deactivate": lambda p, c, i: images.require(p, c, "deactivate", i),
    "reactivate": lambda p, c, i: images.require(p, c, "reactivate", i),
    "list members": lambda p, c, i: images.require_members(p, c, "get_members", i),
    "see another's row": lambda p, c, i: images.require_member_seen(p, c, i, "someone", Member(i.id, "someone")),
    "add, remove member": lambda p, c, i: images.require_members(p, c, "add_member", i),
    "answer for itself": lambda p, c, i: images.require_answer(p, c, i, "x", Member(i.id, c.project or "someone")),
    "answer for another": lambda p, c, i: images.require_answer(p, c, i, "someone", Member(i.id, "someone")),
    "see locations": show_locations,
    "set location": lambda p, c, i: images.require(p, c, "set_image_location", i),
    "remove location": lambda p, c, i: images.require(p, c, "delete_image_location", i),
    "add location (2.17)": lambda p, c, i: images.require(p, c, "add_image_location", i),
    "fetch locations (2.17)": lambda p, c, i: images.require(p, c, "fetch_image_location", i),
    "copy to stores": lambda p, c, i: images.require(p, c, "copy_image", i),
}


def image_as(visibility, project):
    membership = project if project in ("accepted", "pending", "rejected") else None
    owner = None if visibility.endswith("-") else "owner"
    return Image(id="1", owner=owner, visibility=visibility.rstrip("-"), status="active", membership=membership)


def caller(role, project):
    roles = frozenset(ROLES[role])
    return Context(user="u", project=project, roles=roles, is_admin=POLICY.is_admin(roles))


def outcome(call):
    try:
        call()
    except NotFound:
        return "-"
    except Forbidden:
        return "F"
    return "o"


def line(action, role):
    cells = (
        "".join(outcome(lambda p=p, v=v: ACTIONS[action](POLICY, caller(role, p), image_as(v, p))) for p in PROJECTS)
        for v in VISIBILITIES
    )
    return "   ".join(cells)


def parse():
    rows, action = {}, None
    for text in TABLE.strip("\n").splitlines()[1:]:
        if not text.strip():
            continue
        if not text.startswith("  "):
            action = text.strip()
        else:
            role, *cells = text.split()
            rows[action, role] = "   ".join(cells)
    return rows


EXPECTED = parse()


def test_the_table_is_whole():
    assert set(EXPECTED) == {(action, role) for action in ACTIONS for role in ROLES}


@pytest.mark.parametrize(("action", "role"), [(action, role) for action in ACTIONS for role in ROLES])
def test_matrix(action, role):
    assert line(action, role) == EXPECTED[action, role]
