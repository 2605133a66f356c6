"""Files of property protection: what each means, and the sentence for what cannot be meant."""

import time
from pathlib import Path

import pytest

from xloud_image.config.settings import PolicySettings
from xloud_image.errors import ConfigError
from xloud_image.identity.context import Context
from xloud_image.policy import Policy
from xloud_image.policy.properties import ACTIONS

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


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "\ufeff", "\n\n", "[DEFAULT]\n", f"[DEFAULT]\n{ALL}", f"[os_glance.*]\n{ALL}"]
)
def test_a_file_without_a_section_leaves_every_property_to_nobody(tmp_path: Path, text: str) -> None:
    """As Glance does since it adds a section of its own to each file."""
    policy = load(tmp_path, text)
    assert not any(policy.may_touch(ADMIN, action, "x") for action in ACTIONS)
    assert policy.may_touch(ANN, "read", "os_glance_import_task")
    assert any("has no section: nobody may read or write any property" in told for told in policy.warnings)


def reading(line: str) -> str:
    """A file with another line in the place of `read = @`."""
    return f"[x]\n{ALL}".replace("read = @", line)


# what Glance starts with too: the file, what is told of it, and who may read the property x
TAKEN = {
    "an operation too many": (f"[x]\n{ALL}craete = @\n", "has 'craete', which is none of create, read", "ann adm"),
    "an option of another file": (
        f"[DEFAULT]\ndebug = true\n[x]\n{ALL}",
        "[DEFAULT] has 'debug', which is none",
        "ann adm",
    ),
    "what all sections say": (f"[DEFAULT]\n{ALL}[x]\nread = admin\n", "", "adm"),
    "a comment behind": ("[x]\ncreate=@\nread = @ # all\nupdate=@\ndelete=@\n", "read: '@ # all' is taken as one", ""),
    "another comment behind": (
        reading("read = @ ; all"),
        "'@ ; all' is taken as one name",
        "",
    ),
    "everybody and nobody in one": (reading("read = @!"), "'@!' is taken as one name", ""),
    "a comma that is missing": (
        reading("read = member admin"),
        "'member admin' is taken",
        "",
    ),
    "a value of two lines": (reading("read = member,\n admin"), "", "ann adm"),
    "two lines without a comma": (reading("read = member\n admin"), "'member admin' is", ""),
    "commas and nothing": (reading("read = ,,"), "", ""),
    "capitals": (reading("READ : MEMBER"), "", "ann"),
    "a sign for percent": (reading("read = 100%%, member"), "", "ann"),
    "a line that only Unicode ends": (f"[y\u2028]\n{ALL}[x\x0b|x]\n{ALL}", "", "ann adm"),
    "a form feed in a role": (
        reading("read = a\x0cb, member"),
        "'a b' is taken as one",
        "ann",
    ),
    "line ends of Windows": (f"[x]\n{ALL}".replace("\n", "\r\n"), "", "ann adm"),
    "a mark of the byte order": (f"\ufeff[x]\n{ALL}", "", "ann adm"),
    "brackets in brackets": (f"[[wx]]\n{ALL}", "", "ann adm"),
    "a section after a section": ("[.*]\ncreate=!\nread=!\nupdate=!\ndelete=!\n" + f"[x]\n{ALL}", "", ""),
    "a name that looks at nothing": (f"[(?=y)x]\n{ALL}", "", ""),
    "every name": (f"[(?s).*]\n{ALL}", "", "ann adm"),
    "a name longer than any": (f"[^{'x' * 256}]\n{ALL}", "", ""),
}


@pytest.mark.parametrize("case", TAKEN)
def test_what_is_odd_and_taken_as_glance_takes_it(tmp_path: Path, case: str) -> None:
    text, told, readers = TAKEN[case]
    policy = load(tmp_path, text)
    assert any(told in warning for warning in policy.warnings) if told else not policy.warnings
    found = [name for name, ctx in (("ann", ANN), ("adm", ADMIN)) if policy.may_touch(ctx, "read", "x")]
    assert found == readers.split()


BAD = {
    f"[x-image-meta-property-img_signature.*]\n{ALL}": r"line 1: .* Write \[\^img_signature\.\*\], and last",
    f"[^X-Image-Meta-Property-a$]\n{ALL}": r"Write \[\^a\.\*\]",
    f"[(]\n{ALL}": "is no regular expression",
    f"[a**]\n{ALL}": "is no regular expression",
    f"[(a)\\1]\n{ALL}": "a reference to a group, which is not followed here",
    f"[x]\n{ALL.replace('create = @', 'create = @, !')}": "names both '@' .everybody. and '!'",
    "[x]\ncraete = @\n": "says nothing of create, .* .is 'create' meant by 'craete'.*; write ! for nobody",
    reading("read = 100%"): "has a single '%': write '%%'",
    reading("read = %(create)s"): "has a single '%': write '%%' for it; other values",
    f"[{'(' * 5000}{')' * 5000}]\n{ALL}": r"the section \[.{80}…\] is no regular expression",
    f"[{'(?:' * 90}a{')' * 90}]\n{ALL.replace('create = @', 'create = @, !')}": "names both",
    f"[x]\n{ALL}]{'x' * 5000}\n": "parsing errors",
    "[x]\ncreate = @\n": "says nothing of read, update, delete; write ! for nobody",
    "[x]\nowner = @\n": "says nothing of create, read, update, delete; write",
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
    assert len(str(told.value)) < 600


def test_a_large_file_is_read_and_asked_in_bounded_time(tmp_path: Path) -> None:
    """Ten thousand sections, and a name of a stranger's that each of them looks at for long."""
    before = time.process_time()
    policy = load(tmp_path, "".join(f"[(a+)+{number}$]\n{ALL}" for number in range(10_000)))
    assert time.process_time() - before < 20  # one look through all lines for each section took 39 s
    before = time.process_time()
    assert not policy.may_touch(ANN, "read", "a" * 255)
    assert not policy.may_touch(ANN, "read", "a" * 1_000_000)
    assert time.process_time() - before < 2  # 7 s when each section had its own bound
    assert policy.may_touch(ANN, "read", "aaa1234")


def test_warnings_are_bounded(tmp_path: Path) -> None:
    policy = load(tmp_path, "".join(f"[x{number}]\n{ALL}odd = 1\n" for number in range(500)))
    told = [warning for warning in policy.warnings if "property_protection_file" in warning]
    assert len(told) == 21
    assert "480 more of this kind" in told[-1]


def test_rules_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 1: .*names the rule 'nobodys', which the policy file does not have"):
        load(tmp_path, "[x]\ncreate = nobodys\nread = @\nupdate = @\ndelete = @\n", form="policies")
    with pytest.raises(ConfigError, match="names several rules"):
        load(tmp_path, "[x]\ncreate = get_image, add_image\nread = @\nupdate = @\ndelete = @\n", form="policies")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Policy(PolicySettings(property_protection_file=str(tmp_path / "nothing")))
