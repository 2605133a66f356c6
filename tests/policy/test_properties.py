"""Files of property protection: what each means, and the sentence for what cannot be meant."""

from pathlib import Path

import pytest

from xloud_image.config.settings import PolicySettings
from xloud_image.errors import ConfigError
from xloud_image.identity.context import Context
from xloud_image.policy import Policy

ALL = "create = @\nread = @\nupdate = @\ndelete = @\n"
ANN = Context(user="ann", project="p", roles=frozenset({"member", "reader"}))
ADMIN = Context(user="adm", project="p", roles=frozenset({"admin"}), is_admin=True)
NOVA = Context(user="ann", project="p", roles=frozenset({"member"}), service_roles=frozenset({"service"}))


def load(folder: Path, text: str | bytes, *, form: str = "roles", policy: str | None = None) -> Policy:
    file, rules = folder / "protection.conf", folder / "policy.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    if policy:
        rules.write_text(policy)
    return Policy(
        PolicySettings(
            policy_file=str(rules) if policy else None,
            property_protection_file=str(file),
            property_protection_rule_format=form,
        )
    )


def test_the_first_section_that_is_found_counts(tmp_path: Path) -> None:
    policy = load(tmp_path, f"[b]\ncreate = admin\nread = Member\nupdate = service\ndelete = !\n[^a.*]\n{ALL}")
    assert policy.may_touch(ADMIN, "create", "abc")
    assert not policy.may_touch(ANN, "create", "abc")
    assert policy.may_touch(ANN, "read", "abc")
    assert policy.may_touch(NOVA, "update", "abc")
    assert not policy.may_touch(ADMIN, "delete", "abc")
    assert policy.may_touch(ANN, "delete", "ac")
    assert not policy.may_touch(ADMIN, "read", "zzz")  # no section
    assert policy.may_touch(ANN, "read", "os_glance_import_task")


def test_rules_of_the_policy_file(tmp_path: Path) -> None:
    text = f"[^x]\ncreate = creators\nread = @\nupdate = context_is_admin\ndelete = !\n[.*]\n{ALL}"
    policy = load(tmp_path, text, form="policies", policy='creators: "role:member and not role:admin"\n')
    assert policy.may_touch(ANN, "create", "x")
    assert not policy.may_touch(ADMIN, "create", "x")
    assert policy.may_touch(ADMIN, "update", "x")
    assert not policy.may_touch(ADMIN, "delete", "x")


def test_what_is_to_be_looked_at_is_told(tmp_path: Path) -> None:
    policy = load(tmp_path, f"[os_glance_x]\n{ALL}[x]\ncreate =\nread = @\nupdate =\ndelete=\n")
    assert any("line 1: the section [os_glance_x] does not count" in told for told in policy.warnings)
    assert any("names nobody for create, update, delete: nobody may" in told for told in policy.warnings)
    assert not policy.may_touch(ADMIN, "update", "x")


def test_an_empty_file_protects_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "# nothing\n").may_touch(ANN, "delete", "x")


BAD = {
    f"[x-image-meta-property-img_signature.*]\n{ALL}": r"line 1: .* Write \[\^img_signature\.\*\], and last",
    f"[^X-Image-Meta-Property-a$]\n{ALL}": r"Write \[\^a\.\*\]",
    f"[(]\n{ALL}": "is no regular expression",
    f"[a**]\n{ALL}": "is no regular expression",
    f"[(a)\\1]\n{ALL}": "a reference to a group, which is not followed here",
    f"[x]\n{ALL.replace('create = @', 'create = @, !')}": "names both '@' .everybody. and '!'",
    "[x]\ncraete = @\n": "has an unknown 'craete'; is 'create' meant?",
    "[x]\ncreate = @\n": "says nothing of read, update, delete; write ! for nobody",
    "[x]\nowner = @\n": "has an unknown 'owner'; there are create",
    f"[x]\n{ALL}[x]\n{ALL}": "section 'x' already exists",
    "[x]\ncreate = @\ncreate = !\n": "option 'create' in section 'x' already exists",
    "create = @\n": "no section headers",
    "[x]\nwhat is this\n": "parsing errors",
    "[x\ncreate = @\n": "no section headers",
    b"[x]\ncreate = \xff\n": "is no text in UTF-8",
    b"\x00\x01\x02": "no section headers",
}


@pytest.mark.parametrize("text", BAD)
def test_what_cannot_be_meant(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(ConfigError, match=BAD[text]) as told:
        load(tmp_path, text)
    assert "property_protection_file" in str(told.value)
    assert "\n" not in str(told.value)


def test_rules_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 1: .*names the rule 'nobodys', which the policy file does not have"):
        load(tmp_path, "[x]\ncreate = nobodys\nread = @\nupdate = @\ndelete = @\n", form="policies")
    with pytest.raises(ConfigError, match="names several rules"):
        load(tmp_path, "[x]\ncreate = get_image, add_image\nread = @\nupdate = @\ndelete = @\n", form="policies")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Policy(PolicySettings(property_protection_file=str(tmp_path / "nothing")))
