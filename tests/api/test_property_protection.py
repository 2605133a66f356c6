"""Property protection against a real service: what each caller may do, and that what he may not read is not there."""

from collections.abc import Iterator

import pytest

from tests.api.cloud import V20, Caller, Cloud

RULES = """
# the first section that is found counts
[^secret_]
create = admin, Member
read = admin
update = admin
delete = admin

[^blind$]
create = member
read = admin
update = member
delete = member

[^seal$]
create = @
read = @
update = !
delete =

[^svc_]
create = service
read = @
update = service
delete = service

[^(a+)+$]
create = !
read = !
update = !
delete = !

[.*]
create = @
read = @
update = @
delete = @
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "rules.conf").write_text(RULES)
    kept = {"delayed_delete": True, "scrub_time": 3600}  # the service serves the test of restoring too
    cloud = Cloud(folder, options={"property_protection_file": folder / "rules.conf", **kept})
    try:
        cloud.service.start()
        yield cloud
        assert cloud.service.stop() == 0
        assert "Traceback" not in cloud.service.log
    finally:
        cloud.service.kill()


def _op(op: str, name: str, value: str = "x") -> dict[str, str]:
    return {"op": op, "path": f"/{name}", **({} if op == "remove" else {"value": value})}


def test_create(guarded: Cloud) -> None:
    made = guarded.ann.create(name="x", secret_a="1", seal="2", other="3")
    assert made.status == 201
    assert "secret_a" not in made.json()
    assert (made.json()["seal"], made.json()["other"]) == ("2", "3")
    assert guarded.admin.show(made.json()["id"])["secret_a"] == "1"
    for caller, name in ((guarded.ann, "svc_x"), (guarded.admin, "aaa"), (guarded.admin, "svc_x")):
        refused = caller.create(**{name: "1"})
        assert refused.status == 403
        assert f"may not create the property '{name}'" in refused.body.decode()
    assert guarded.nova.create(svc_x="1").status == 201


def test_what_may_not_be_read_is_not_there(guarded: Cloud) -> None:
    ann = guarded.ann
    full, bare = ann.new(secret_a="1"), ann.new()
    for operation in (_op("replace", "secret_a"), _op("remove", "secret_a"), _op("add", "secret_a")):
        for dialect in ({}, {"dialect": V20}):
            old = {operation["op"]: operation["path"], "value": operation.get("value")} if dialect else operation
            answers = [ann.patch(image, old, **dialect) for image in (full, bare)]  # type: ignore[arg-type]
            one, other = ((answer.status, answer.body.decode().replace(full, "")) for answer in answers)
            assert one == other, operation
            assert one[0] == (403 if operation["op"] == "add" else 409)
    assert guarded.admin.show(full)["secret_a"] == "1"
    assert "secret_a" not in guarded.admin.show(bare)


def test_lists_and_filters(guarded: Cloud) -> None:
    image = guarded.ann.new(secret_b="y", other="mine")
    assert [one["id"] for one in guarded.ann.listed("other=mine")] == [image]
    assert "secret_b" not in guarded.ann.listed("other=mine")[0]
    for query in ("secret_b=y", "secret_b=", "secret_b=n", "other=mine&secret_b=y"):
        assert guarded.ann.listed(query) == []
    assert [one["id"] for one in guarded.admin.listed("secret_b=y")] == [image]
    assert guarded.ann.ask("GET", "/v2/images?sort_key=secret_b").status == 400


def test_who_may_write_and_not_read_overwrites_unseen(guarded: Cloud) -> None:
    image = guarded.ann.new(blind="old")
    for dialect, operation in ((None, _op("add", "blind", "new")), (V20, {"add": "/blind", "value": "newer"})):
        assert guarded.ann.patch(image, operation, **({"dialect": dialect} if dialect else {})).status == 200
    assert guarded.ann.patch(image, _op("remove", "blind")).status == 409
    assert guarded.admin.show(image)["blind"] == "newer"


def test_a_full_image_does_not_tell(guarded: Cloud) -> None:
    """Who sees 127 properties may add one, whatever else is there; who sees as many as there may be, none."""
    hidden = guarded.ann.new(blind="1", **{f"p{number}": "" for number in range(127)})
    none = guarded.ann.new(**{f"p{number}": "" for number in range(127)})
    full = guarded.ann.new(**{f"p{number}": "" for number in range(128)})
    for name in ("blind", "another"):
        answers = [guarded.ann.patch(each, _op("add", name)) for each in (hidden, none, full)]
        assert [answer.status for answer in answers] == [200, 200, 413]


def test_update_and_delete(guarded: Cloud) -> None:
    image = guarded.ann.new(seal="1", other="1")
    for caller in (guarded.ann, guarded.admin):
        assert caller.patch(image, _op("replace", "seal")).status == 403
        assert caller.patch(image, _op("add", "seal")).status == 403
        assert caller.patch(image, _op("remove", "seal")).status == 403
    assert guarded.ann.patch(image, _op("replace", "other"), _op("remove", "other")).status == 200
    assert guarded.ann.show(image)["seal"] == "1"


def test_names_that_take_a_pattern_long(guarded: Cloud) -> None:
    names = {"a" * (254 - number) + "b": "x" for number in range(120)}
    made = guarded.ann.create(**names)
    assert made.status == 201  # within the time that a turn of the loop may take: see tests/turns.py
    assert names.items() <= made.json().items()


def test_the_services_own_properties_are_outside(guarded: Cloud) -> None:
    assert guarded.admin.create(os_glance_x="1").status == 403


@pytest.mark.parametrize("who", ["ann", "rita", "bob"])
def test_readers(guarded: Cloud, who: str) -> None:
    image = guarded.admin.new(visibility="public", secret_c="1", seal="2")
    caller: Caller = getattr(guarded, who)
    assert "secret_c" not in caller.show(image)
    assert caller.show(image)["seal"] == "2"
    assert guarded.admin.patch(image, _op("remove", "secret_c")).status == 200


def test_restoring(guarded: Cloud) -> None:
    image = guarded.ann.new(b"data", secret_d="1", other="2")
    assert guarded.ann.delete(image).status == 204
    path = f"/v2/images/{image}/actions/restore"
    for caller, status in ((guarded.bob, 404), (guarded.ann, 403), (guarded.nobody, 401)):
        assert caller.ask("POST", path).status == status
    assert guarded.admin.ask("GET", f"/v2/images/{image}").status == 404
    answer = guarded.admin.ask("POST", path)
    assert (answer.status, answer.json()["status"], answer.json()["secret_d"]) == (200, "active", "1")
    assert guarded.ann.download(image).body == b"data"
    assert guarded.admin.ask("POST", path).status == 404  # it is there
    guarded.ann.delete(image)
    assert "is there again, active" in guarded.service.run("images", "restore", image)
    assert guarded.ann.show(image)["other"] == "2"
