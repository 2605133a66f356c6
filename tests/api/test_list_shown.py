"""What the API shows is found by the very value that it shows, on all three databases."""

import urllib.parse
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from multidict import MultiDict

from tests.servers.http import Answer
from tests.servers.service import Service
from xloud_image.api import listing
from xloud_image.config.settings import Limits
from xloud_image.errors import BadRequest
from xloud_image.identity.context import Context

OCTETS = {"Content-Type": "application/octet-stream"}
# a utf8 database of MariaDB holds characters of up to three bytes
NAMES = (
    "plain", 'e"f', '"', '""', "it's", "back\\slash", "\\", '\\"', "a,b", ",", '"a","b"', "a:b", "100%", "a_b", "%",
    "_", "ä€中", "a b", " a", "a+b", "a&b=c", "a;b", "a#b?", "{}", "<b>", "in:x", "eq:x", "tab\there", "new\nline",
    "e\u0301", "0", "-1", "true", "null", "2030-01-01T00:00:00Z",
)  # fmt: skip


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def shown(request: pytest.FixtureRequest) -> Iterator[Service]:
    sections: dict[str, dict[str, Any]] = {}
    if request.param != "sqlite":
        server = request.getfixturevalue(request.param)
        sections["database"] = {"connection": server.create_database()}
    one = Service(sections)
    one.start()
    yield one
    one.stop()


def ask(service: Service, **query: str | list[str]) -> Answer:
    return service.request("GET", f"/v2/images?{urllib.parse.urlencode(query, doseq=True)}")


def found(service: Service, **query: str | list[str]) -> list[str]:
    answer = ask(service, **query)
    assert answer.status == 200, answer.body
    return [image["id"] for image in answer.json()["images"]]


@pytest.fixture(scope="module")
def image(shown: Service) -> Any:
    """An active image, as it is shown."""
    fields = {"name": "one", "disk_format": "raw", "container_format": "bare", "min_disk": 3, "min_ram": 512}
    made = shown.request(
        "POST", "/v2/images", json={**fields, "protected": True, "os_hidden": True, "tags": ["t"]}
    ).json()
    assert shown.request("PUT", f"/v2/images/{made['id']}/file", body=b"12345", headers=OCTETS).status == 204
    return shown.request("GET", f"/v2/images/{made['id']}").json()


def test_each_attribute(shown: Service, image: Any) -> None:
    known = {"self", "file", "schema", "tags", "virtual_size", "direct_url", "locations", "stores"}
    for name in set(image) - known:
        value = image[name]
        text = str(value).lower() if isinstance(value, bool) else str(value)
        assert found(shown, **{"os_hidden": "true", "id": image["id"], name: text}) == [image["id"]], name
    for name in ("size", "min_disk", "min_ram"):
        for sign in ("min", "max"):
            assert found(shown, os_hidden="true", id=image["id"], **{f"{name}_{sign}": str(image[name])}), name
    assert found(shown, os_hidden="true", tag="t") == [image["id"]]


@pytest.mark.parametrize("column", ["created_at", "updated_at"])
def test_times_are_compared_as_they_are_shown(shown: Service, image: Any, column: str) -> None:
    time = image[column]
    expected = {"": 1, "eq:": 1, "neq:": 0, "lt:": 0, "lte:": 1, "gt:": 0, "gte:": 1}
    for sign, count in expected.items():
        for spelled in (time, time.replace("Z", "+00:00"), time.replace("Z", ""), time.replace("Z", ".000000")):
            got = found(shown, os_hidden="true", id=image["id"], **{column: sign + spelled})
            assert len(got) == count, (sign, spelled)
    # between this second and the next one lies nothing
    later = time.replace("Z", ".5Z")
    expected = {"": 0, "neq:": 1, "lt:": 1, "lte:": 1, "gt:": 0, "gte:": 0}
    for sign, count in expected.items():
        assert len(found(shown, os_hidden="true", id=image["id"], **{column: sign + later})) == count, sign
    for edge, count in (
        ("lte:9999-12-31T23:59:59Z", 1),
        ("gt:9999-12-31T23:59:59Z", 0),
        ("gt:9999-12-31T23:59:59.9Z", 0),
    ):
        assert len(found(shown, os_hidden="true", id=image["id"], **{column: edge})) == count


@pytest.mark.parametrize("name", NAMES)
def test_names_tags_and_properties(shown: Service, name: str) -> None:
    mark = uuid.uuid4().hex
    body = {"name": name, "tags": [name], "colour": name, f"k {name}": mark, "mark": mark}
    made = shown.request("POST", "/v2/images", json=body)
    assert made.status == 201, made.body
    image = shown.request("GET", f"/v2/images/{made.json()['id']}").json()
    assert image["name"] == name
    here = [image["id"]]
    if not name.startswith(("in:", "eq:")):  # these are operators
        assert found(shown, mark=mark, name=name) == here
    assert found(shown, mark=mark, name=f"eq:{name}") == here
    backslashes = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    doubled = '"' + name.replace("\\", "\\\\").replace('"', '""') + '"'
    for quoted in (backslashes, doubled):
        assert found(shown, mark=mark, name=f"in:{quoted}") == here
        assert found(shown, mark=mark, name=f"in:nobody,{quoted},else") == here
    assert found(shown, mark=mark, tag=name) == here
    assert found(shown, mark=mark, colour=name) == here
    assert found(shown, **{f"k {name}": mark}) == here


@pytest.mark.parametrize("number", [2**31 - 1, 2**31, 2**62, 2**63 - 1, -(2**63) + 1])
def test_numbers_that_no_image_has(shown: Service, image: Any, number: int) -> None:
    """The same on every database, whatever type its columns have."""
    for name in ("min_disk", "min_ram", "size", "virtual_size"):
        assert found(shown, os_hidden="true", **{name: str(number)}) == []
        assert found(shown, os_hidden="true", **{f"{name}_min": str(abs(number))}) == []
    assert found(shown, os_hidden="true", min_disk_max=str(abs(number))) == [image["id"]]
    assert ask(shown, size=str(2**63)).status == 400


def test_the_most_filters(shown: Service, image: Any) -> None:
    for count, status in ((128, 200), (129, 400), (1001, 400)):
        answer = ask(shown, tag=[f"t{n}" for n in range(count)], marker=image["id"])
        assert answer.status == status, answer.body
        answer = ask(shown, **{f"k{n}": "v" for n in range(count)})
        assert answer.status == status, answer.body
    assert b"up to 128 filters" in answer.body
    for count, status in ((1000, 200), (1001, 400)):
        assert ask(shown, name="in:" + ",".join(str(n) for n in range(count))).status == status
    both = [("created_at", "gt:2000-01-01T00:00:00Z")] * 128
    assert shown.request("GET", "/v2/images?" + urllib.parse.urlencode(both)).status == 200


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("in:a,b", ["a", "b"]), ('in:"a,b",c', ["a,b", "c"]), ('in:"e\\"f"', ['e"f']), ('in:"e""f"', ['e"f']),
        ('in:"a\\\\",b', ["a\\", "b"]), ('in:"a\\b"', ["a\\b"]), ("in:a\\b", ["a\\b"]), ('in:a"b', ['a"b']),
        ("in:a,,b", ["a", "", "b"]), ("in:a,", ["a", ""]), ("in:", []), ('in:"open', None), ('in:"a"b', None),
        ('in:"a\\"', None), ('in:"', None), ('in:"a",', ["a", ""]),
    ],
)  # fmt: skip
def test_lists_of_values(value: str, names: list[str] | None) -> None:
    if names is None:
        with pytest.raises(BadRequest, match="quotation mark"):
            listing.parse(MultiDict(name=value), Context(), Limits())
    else:
        assert listing.parse(MultiDict(name=value), Context(), Limits()).one_of == {"name": names}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/images?name=%FF"),
        ("GET", "/v2/images?%C3=1"),
        ("GET", "/v2/images?name=%ED%A0%80"),
        ("PUT", "/v2/images/{id}/tags/%FF"),
        ("DELETE", "/v2/images/{id}/tags/a%80b"),
        ("GET", "/v2/images/%FF"),
        ("GET", "/v2/images/{id}/members/%fe"),
    ],
)
def test_what_is_no_utf_8(shown: Service, method: str, path: str) -> None:
    one = shown
    made = one.request("POST", "/v2/images", json={}).json()["id"]
    answer = one.request(method, path.replace("{id}", made))
    assert answer.status == 400, answer.body
    assert b"UTF-8" in answer.body
    assert one.request("PUT", f"/v2/images/{made}/tags/%C3%A4").status == 204
    assert one.request("GET", f"/v2/images/{made}").json()["tags"] == ["ä"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "PATCH", "POST"])
@pytest.mark.parametrize("prefix", ["/v2", "/v2.7"])
def test_an_image_without_an_id_is_not_found(shown: Service, method: str, prefix: str) -> None:
    assert shown.request(method, f"{prefix}/images/").status == 404


def test_a_walk_goes_on_behind_an_image_that_was_deleted(shown: Service) -> None:
    """Whoever deletes the images of each page goes on with `next` all the same."""
    mark = uuid.uuid4().hex
    made = [shown.request("POST", "/v2/images", json={"tags": [mark]}).json()["id"] for _ in range(5)]
    path: str | None = f"/v2/images?tag={mark}&limit=2"
    walked = []
    while path:
        page = shown.request("GET", path).json()
        for one in page["images"]:
            walked.append(one["id"])
            assert shown.request("DELETE", f"/v2/images/{one['id']}").status == 204
        path = page.get("next")
    assert sorted(walked) == sorted(made)
    assert ask(shown, marker=str(uuid.uuid4())).status == 400
