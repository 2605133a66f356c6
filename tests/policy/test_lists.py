"""What a rule says of a whole list leaves out no image that it allows; where it lets in more, it is asked for each."""

import itertools

import pytest

from xloud_image.config.settings import PolicySettings
from xloud_image.identity.context import Context
from xloud_image.model import VISIBILITIES, Image
from xloud_image.policy import Policy
from xloud_image.policy.images import image_target
from xloud_image.policy.lists import Equal, Several

RULES = (
    "", "!", "@", "role:reader", "not role:reader", "rule:context_is_admin or project_id:%(project_id)s",
    "project_id:%(member_id)s", "'public':%(visibility)s", "not 'public':%(visibility)s", "'open':%(shelf)s",
    "not 'open':%(shelf)s", "project_id:%(owner)s and 'active':%(status)s", "'None':%(name)s", "'x':%(name)s",
    "role:reader and (project_id:%(project_id)s or 'community':%(visibility)s or 'shared':%(visibility)s)",
    "user_id:%(maker)s", "project_id:mine", "'mine':mine", "not project_id:%(project_id)s", "system_scope:all",
    "(not 'shared':%(visibility)s) or 'x':%(name)s", "role:%(shelf)s", "'True':%(protected)s", "a.b:%(name)s",
)  # fmt: skip
CALLERS = (
    Context(user="u", project="mine", roles=frozenset({"reader", "member"})),
    Context(user="u", project="mine", roles=frozenset()),
    Context(user="a", project="ops", roles=frozenset({"admin", "reader"}), is_admin=True),
)


def holds(condition: object, image: Image) -> bool:
    match condition:
        case bool():
            return condition
        case Equal(column, value):
            return getattr(image, column) == value
        case Several("AND", parts):
            return all(holds(part, image) for part in parts)
        case Several(_, parts):
            return any(holds(part, image) for part in parts)
    raise AssertionError(condition)


@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_left_out_that_the_rule_allows(rule: str, tmp_path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(f'"get_image": "{rule}"\n')
    policy = Policy(PolicySettings(policy_file=str(file)))
    for ctx, visibility, whose in itertools.product(CALLERS, VISIBILITIES, ("all", "own", "member")):
        if whose == "member" and visibility != "shared":
            continue
        sight = policy.sight(ctx, "get_image", visibility, whose)
        for owner, status, name, shelf in itertools.product(
            ("mine", "other", None),
            ("active", "queued"),
            (None, "x", "None"),
            ({}, {"shelf": "open"}, {"shelf": "reader"}),
        ):
            if (whose == "own") != (owner == ctx.project) and whose != "all":
                continue
            image = Image(
                "i",
                status,
                name,
                owner,
                visibility,
                properties=shelf,
                membership="accepted" if whose == "member" else None,
            )
            allowed = policy.allows(ctx, "get_image", image_target(image, ctx))
            said = holds(sight.condition, image)
            assert said or not allowed, (ctx, visibility, whose, image)
            if sight.sure:
                assert said == allowed, (ctx, visibility, whose, image)


def test_the_default_rule_is_asked_for_no_image() -> None:
    """Lists cost what they did: a reader may read whatever lists show him."""
    for ctx in (CALLERS[0], CALLERS[2]):
        for visibility in VISIBILITIES:
            for whose in ("own", *(("member",) if visibility == "shared" else ())):
                sight = Policy().sight(ctx, "get_image", visibility, whose)
                assert (sight.condition, sight.sure) == (True, True)
    assert Policy().sight(CALLERS[0], "get_image", "public", "all").sure
    assert Policy().sight(CALLERS[0], "get_image", "community", "all").condition is True
