"""Policy files: what overrides what, and what stops the start with one sentence."""

import re

import pytest

from xloud_image.config.settings import PolicySettings
from xloud_image.errors import ConfigError, Forbidden
from xloud_image.identity.context import Context
from xloud_image.policy import Policy

READER = Context(user="u", project="mine", roles=frozenset({"reader"}))
MEMBER = Context(user="u", project="mine", roles=frozenset({"reader", "member"}))
ADMIN = Context(user="a", project="admin", roles=frozenset({"reader", "member", "admin"}), is_admin=True)


def policy(path, **more):
    return Policy(PolicySettings(policy_file=str(path), **more))


def written(tmp_path, text, name="policy.yaml"):
    file = tmp_path / name
    file.write_text(text)
    return file


def test_a_yaml_file_overrides_a_default(tmp_path):
    file = written(tmp_path, '# only administrators list\n"get_images": "rule:context_is_admin"\n')
    assert Policy().allows(READER, "get_images")
    with pytest.raises(Forbidden, match=r"may not list images \(rule get_images\)"):
        policy(file).require(READER, "get_images")


@pytest.mark.parametrize(
    "text", ['{"get_images": "role:admin or\\n role:x"}', '{"get_images": [["role:admin"], ["role:x"]]}']
)
def test_json_and_the_list_form_are_read_too(tmp_path, text):
    file = written(tmp_path, text, "policy.json")
    assert not policy(file).allows(READER, "get_images")
    assert policy(file).allows(Context(roles=frozenset({"x"})), "get_images")


def test_files_of_a_directory_win_in_the_order_of_their_names(tmp_path):
    file = written(tmp_path, '"get_images": "!"\n"get_image": "!"\n')
    folder = tmp_path / "policy.d"
    folder.mkdir()
    written(folder, '"get_images": "@"\n', "20.yaml")
    written(folder, '"get_images": "!"\n', "10.yaml")
    written(folder, "]broken", ".hidden")
    loaded = policy(file, policy_dirs=(str(folder), str(tmp_path / "absent")))
    assert loaded.allows(READER, "get_images")
    assert not loaded.allows(READER, "get_image", {"project_id": "mine"})


def test_an_empty_file_changes_nothing(tmp_path):
    assert policy(written(tmp_path, "# nothing\n")).allows(READER, "get_images")


def test_who_is_admin_can_be_said_otherwise(tmp_path):
    loaded = policy(written(tmp_path, '"context_is_admin": "role:image_admin"\n'))
    assert loaded.is_admin({"image_admin"})
    assert not loaded.is_admin({"admin"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('"get_images": true\n', "line 1: .*must be a text in quotes"),
        ('"get_images":\n', "line 1: .*must be a text in quotes"),
        ('"a": "rule:b"\n"b": "rule:a"\n', "in a circle"),
        ('"get_images": "http://127.0.0.1/%(id)s"\n', "kind that this service does not run"),
        ('"get_images": "role:reader\n', "line 2 cannot be read"),
        ("- role:reader\n", "must hold lines like"),
        ("just words\n", "must hold lines like"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path, text, reason):
    file = written(tmp_path, text)
    with pytest.raises(ConfigError, match=reason) as caught:
        policy(file)
    assert str(file) in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("check", "lets_in"),
    [
        ("role:reader and and", False),
        ("(role:reader", False),
        ("nonsense", False),
        ("[[1]]", False),
        ("not nonsense", False),
        ("role:member or not nonsense", False),
        ("not rule:odd", False),
        ("role:reader or nonsense", True),
    ],
)
def test_what_cannot_be_read_lets_nobody_in_and_is_named(tmp_path, check, lets_in):
    """Where Glance starts with a line in its log; but nothing that is not understood is right under a `not`."""
    quoted = check if check.startswith("[") else f'"{check}"'
    file = written(tmp_path, f'"get_image": "role:a"\n"get_images": {quoted}\n"odd": "nonsense"\n')
    loaded = policy(file)
    assert loaded.allows(READER, "get_images") is lets_in
    wrong = "line 3: the rule 'odd'" if "odd" in check else "line 2: the rule 'get_images'"
    assert any(f"{wrong} cannot be understood" in line for line in loaded.warnings)


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read: No such file"):
        policy(tmp_path / "none.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="no UTF-8 text"):
        policy(tmp_path / "binary")


def test_rules_that_nothing_asks_for_are_named(tmp_path):
    text = '"delete_imagee": "!"\n"helper": "role:x"\n"get_images": "rule:helper"\n"get_images": "rule:helper"\n'
    warnings = policy(written(tmp_path, text)).warnings
    assert len(warnings) == 2
    assert any("line 4: the rule 'get_images' stands twice" in line for line in warnings)
    assert any(
        "line 1: nothing asks for the rule 'delete_imagee'" in line and "'delete_image' meant" in line
        for line in warnings
    )


@pytest.mark.parametrize(
    ("text", "admin", "member"),
    [
        ('"delete_image": "rule:image_owner or role:admin"\n', True, False),
        ('"delete_image": "rule:image_owner"\n', False, False),
        ('"delete_image": "not rule:image_owner"\n', False, False),
        ('"delete_image": "not rule:odd"\n"odd": "rule:more or role:x"\n"more": "rule:image_owner"\n', False, False),
        ('"delete_image": "@ and not (role:x or rule:image_owner)"\n', False, False),
    ],
)
def test_a_rule_that_does_not_exist_lets_nobody_in(tmp_path, text, admin, member):
    """As the reference stands and turned round, in a rule itself and behind another; the warning names all."""
    loaded = policy(written(tmp_path, text))
    found = [one for one in loaded.warnings if "'rule:image_owner' refers to a rule that does not exist" in one]
    assert len(found) == 1
    assert re.search(r"policy\.yaml, line \d: in the rule '", found[0])
    assert loaded.allows(ADMIN, "delete_image") is admin
    assert loaded.allows(MEMBER, "delete_image") is member
    assert loaded.sight(ADMIN, "delete_image", "private", "all").condition is admin


def test_reload_takes_the_new_rules_or_keeps_the_old(tmp_path):
    file = written(tmp_path, '"get_images": "!"\n')
    loaded = policy(file)
    file.write_text('"get_images": "@"\n')
    assert not loaded.allows(READER, "get_images")
    loaded.reload()
    assert loaded.allows(READER, "get_images")
    file.write_text("]")
    with pytest.raises(ConfigError):
        loaded.reload()
    assert loaded.allows(READER, "get_images")


def test_describe_tells_check_default_and_source(tmp_path):
    file = written(tmp_path, '"helper": "role:x"\n"get_images": "rule:helper"\n')
    rows = {row.name: row for row in policy(file).describe()}
    assert rows["get_images"].check == "rule:helper"
    assert "role:reader" in rows["get_images"].default
    assert rows["get_images"].source == f"{file}, line 2"
    assert rows["delete_image"].source is None
    assert rows["delete_image"].calls == ("DELETE /v2/images/{image_id}",)
    assert rows["helper"].check == "role:x"
    assert "choose_store" in rows
    assert "administrators" in rows["choose_store"].description
