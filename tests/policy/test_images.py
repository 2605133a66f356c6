"""Rights that need no image, and callers that the matrix does not know: anonymous, system, domain, older defaults."""

import pytest

from xloud_image.config.settings import PolicySettings
from xloud_image.errors import Forbidden, NotFound
from xloud_image.identity.base import ANONYMOUS
from xloud_image.identity.context import Context
from xloud_image.model import Image, Location, Member
from xloud_image.policy import Policy, images
from xloud_image.policy.rules import RULES

MEMBER = frozenset({"member", "reader"})
ADMIN = frozenset({"admin", "manager", "member", "reader"})
POLICY = Policy()


def caller(roles, project="mine", **more):
    return Context(user="u", project=project, roles=frozenset(roles), is_admin="admin" in roles, **more)


def outcome(call):
    try:
        call()
    except Forbidden:
        return "F"
    except NotFound:
        return "-"
    return "o"


#                                  admin  member  reader  service  none  member without a project
WITHOUT_IMAGE = {
    "list images":                "o      o       o       F        F     o",
    "create":                     "o      o       F       F        F     F",
    "create for another project": "o      F       F       F        F     F",
    "create public":              "o      F       F       F        F     F",
    "create community":           "o      o       F       F        F     F",
    "create without owner":       "F      F       F       F        F     F",
    "read the stores' details":   "o      F       F       o        F     F",
}  # fmt: skip


@pytest.mark.parametrize("action", WITHOUT_IMAGE)
def test_without_image(action):
    def act(ctx):
        own = Image(id="1", owner=ctx.project, visibility="shared")
        match action:
            case "list images":
                POLICY.require(ctx, "get_images")
            case "create":
                images.require_create(POLICY, ctx, own)
            case "create for another project":
                images.require_create(POLICY, ctx, own.replace(owner="other"))
            case "create public" | "create community":
                images.require_create(POLICY, ctx, own.replace(visibility=action.split()[1]))
            case "create without owner":
                images.require_create(POLICY, ctx, own.replace(owner=None))
            case "read the stores' details":
                POLICY.require(ctx, "stores_info_detail")

    callers = [caller(roles) for roles in (ADMIN, MEMBER, {"reader"}, {"service"}, set())]
    callers.append(caller(MEMBER, project=None))
    assert [outcome(lambda c=c: act(c)) for c in callers] == WITHOUT_IMAGE[action].split()


def test_a_foreign_owner_is_named():
    with pytest.raises(Forbidden, match="belong to the project 'other'"):
        images.require_create(POLICY, caller(MEMBER), Image(id="1", owner="other"))


@pytest.mark.parametrize("visibility", ["public", "community"])
def test_anonymous_reads_what_everybody_reads(visibility):
    image = Image(id="1", owner="other", visibility=visibility, status="active")
    images.require_see(POLICY, ANONYMOUS, image)
    images.require_download(POLICY, ANONYMOUS, image)
    POLICY.require(ANONYMOUS, "get_images")


@pytest.mark.parametrize("visibility", ["private", "shared"])
def test_anonymous_sees_nothing_else(visibility):
    with pytest.raises(NotFound):
        images.require_see(POLICY, ANONYMOUS, Image(id="1", owner="other", visibility=visibility))


def test_anonymous_changes_nothing_even_if_a_rule_says_so(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text("".join(f'"{rule.name}": "@"\n' for rule in RULES if not rule.base))
    policy = Policy(PolicySettings(policy_file=str(file)))
    image = Image(id="1", owner="other", visibility="public")
    for rule in (rule for rule in RULES if not rule.base):
        assert policy.allows(ANONYMOUS, rule.name, images.image_target(image)) == rule.reads, rule.name
    with pytest.raises(Forbidden, match="without a token you may only read"):
        images.require(policy, ANONYMOUS, "delete_image", image)
    with pytest.raises(Forbidden, match="You may not create an image: without a token"):
        images.require_create(policy, ANONYMOUS, image.replace(owner=None))


def test_nobody_without_a_project_owns_an_image_without_owner():
    policy = POLICY
    image = Image(id="1", owner=None, visibility="private")
    for rule in ("modify_image", "delete_image", "upload_image", "add_member", "set_image_location"):
        assert not policy.allows(caller(MEMBER, project=None), rule, images.image_target(image))


@pytest.mark.parametrize("scope", [{"system_scope": "all"}, {"domain": "d"}])
def test_tokens_for_more_than_a_project(scope):
    image = Image(id="1", owner="other", visibility="private")
    admin = caller(ADMIN, project=None, **scope)
    with pytest.raises(NotFound):
        images.require_see(POLICY, admin, image)
    with pytest.raises(NotFound):
        images.require_see(POLICY, caller(MEMBER, project=None, **scope), image)
    assert not POLICY.allows(admin, "get_images")
    open_policy = Policy(PolicySettings(enforce_scope=False))
    images.require_see(open_policy, admin, image)
    assert open_policy.allows(admin, "get_images")


def test_older_defaults_let_every_role_act_in_its_project_and_nobody_in_another():
    policy = Policy(PolicySettings(enforce_new_defaults=False))
    own, foreign = Image(id="1", owner="mine"), Image(id="2", owner="other", visibility="public")
    ctx = caller({"custom"})
    for rule in ("get_image", "modify_image", "delete_image", "upload_image", "deactivate", "add_member"):
        images.require(policy, ctx, rule, own)
    images.require_see(policy, ctx, foreign)
    for rule in ("modify_image", "delete_image", "upload_image", "deactivate", "add_member"):
        with pytest.raises(Forbidden):
            images.require(policy, ctx, rule, foreign)
    with pytest.raises(Forbidden):
        images.require_create(policy, ctx, foreign.replace(visibility="shared"))
    with pytest.raises(Forbidden):
        images.require(policy, ctx, "publicize_image", own)


def test_an_operator_can_keep_the_choice_of_a_store_to_administrators(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text('"choose_store": "rule:context_is_admin"\n')
    policy = Policy(PolicySettings(policy_file=str(file)))
    image = Image(id="1", owner="mine")
    images.require_upload(policy, caller(MEMBER), image)
    with pytest.raises(Forbidden, match="choose the store"):
        images.require_upload(policy, caller(MEMBER), image, chosen_store=True)
    images.require_upload(policy, caller(ADMIN), image, chosen_store=True)


def test_a_member_sees_its_own_row_and_the_owner_all():
    image = Image(id="1", owner="mine", visibility="shared")
    shared = image.replace(membership="pending")
    rows = [Member("1", "guest"), Member("1", "another")]
    assert [images.may_see_member(POLICY, caller(MEMBER), image, row) for row in rows] == [True, True]
    guest = caller(MEMBER, project="guest")
    assert [images.may_see_member(POLICY, guest, shared, row) for row in rows] == [True, False]


def test_locations_of_a_deactivated_image_are_for_administrators():
    places = (Location("file:///a"),)
    image = Image(id="1", owner="mine", status="active", locations=places)
    assert images.known_locations(caller(MEMBER), image) == places
    assert images.known_locations(caller(MEMBER), image.replace(status="deactivated")) == ()
    assert images.known_locations(caller(ADMIN, project="x"), image.replace(status="deactivated")) == places


def test_target_has_the_keys_of_rules():
    image = Image(id="1", owner="mine", visibility="shared", properties={"hw": "x", "owner": "never"})
    target = images.ImageTarget(image, "guest")
    assert (target["project_id"], target["owner"], target["member_id"], target["hw"]) == (
        "mine",
        "mine",
        "guest",
        "x",
    )
    assert dict(target)["image_id"] == "1"
    assert "nothing" not in target
    assert "project_id" not in images.ImageTarget(image.replace(owner=None))


def test_the_roles_of_a_service_token_count_for_locations():
    image = Image(id="1", owner="mine")
    user = caller(MEMBER, project="mine")
    with pytest.raises(Forbidden):
        images.require(POLICY, user, "fetch_image_location", image)
    for rule in ("add_image_location", "fetch_image_location", "register_private_address"):
        images.require(POLICY, caller(MEMBER, project="mine", service_roles=frozenset({"service"})), rule, image)
    assert not POLICY.allows(caller(MEMBER, project="mine", service_roles=frozenset({"reader"})), "service_api", {})
