"""Paths, queries and methods that lead nowhere."""

import pytest

from tests.api import raw
from tests.api.bad_input import CLOSE, new, upload
from tests.servers.service import Service

TRICKS = (
    "..", "../..", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f", "%00", "a%00b", "%0d%0aX:%20y", "%ff", "%zz",
    "'%20OR%201=1--", "00000000-0000-0000-0000-00000000000", "00000000-0000-0000-0000-0000000000000",
    "\u0660" * 8 + "-0000-0000-0000-000000000000",
    "x" * 5000, "~root", "$(id)", "{image_id}", ".", "%F0%9F%92%BF",
)  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS, ids=lambda text: ascii(text[:20]))
def test_tricks_in_ids_and_names_find_nothing(service: Service, trick: str) -> None:
    trick = "".join(char if char.isascii() else "".join(f"%{byte:02x}" for byte in char.encode()) for char in trick)
    image = new(service)
    here, nowhere = f"/v2/images/{image}", "00000000-0000-0000-0000-000000000000"
    calls = [
        ("GET", f"/v2/images/{trick}/members/a", {404}),
        ("GET", f"/v2/images/{trick}/file", {404}),
        ("DELETE", f"/v2/images/{trick}/tags/a", {404}),
        ("GET", f"{here}/members/{trick}", {404} if trick not in {".", ".."} else {200, 403, 404}),
        ("GET", f"/v2/schemas/{trick}", {404}),
        # 409 is the answer to the name of a store that does not exist
        ("DELETE", f"/v2/stores/{trick}/{nowhere}", {404, 409}),
        ("DELETE", f"/v2/stores/files/{trick}", {404}),
        ("GET", f"/{trick}", {404} if trick not in {".", ".."} else {300, 404}),
    ]
    for method, path, statuses in calls:
        got = raw.say(service.port, raw.head(method, path, CLOSE))
        # what is no UTF-8 is no name at all
        assert got.status in ({400} if trick == "%ff" else statuses), (method, path, got)
        assert got.received.count(b"HTTP/1.1") == 1
        assert "\0" not in got.text


def test_tricks_in_the_names_of_stores(service: Service) -> None:
    for trick in ("..%2f..", "%00", "a%2fb", "..%5c..", "x" * 5000):
        got = raw.say(
            service.port, raw.head("DELETE", f"/v2/stores/{trick}/{'0' * 8}-0000-0000-0000-{'0' * 12}", CLOSE)
        )
        assert got.status in {404, 409}
    image = new(service)
    for trick in ("../files", "small/../files", "nowhere", "", "\u00e9", "files,small", "x" * 5000):
        got = raw.say(
            service.port, upload(service, image, f"X-Image-Meta-Store: {trick}", "Content-Length: 4") + b"data"
        )
        assert got.status == 400, (trick, got)


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1", "limit=many", "limit=1e3", "limit=%00", "marker=nobody", "marker=%00", "marker=" + "x" * 3000,
        "sort=name:up", "sort=owner", "sort_key=name&sort_key=name", "sort=name&sort_key=name", "sort_dir=up",
        "visibility=secret", "member_status=maybe", "os_hidden=perhaps", "protected=TRUE", "status=gt:a",
        "id=in:%22a", "created_at=today", "created_at=xy:2020-01-01T00:00:00Z", "updated_at=gt:9999-99-99",
        "size_min=a", "min_ram_max=1.5", "size=" + "9" * 30, "changes-since=2020-01-01T00:00:00Z", "a=%00", "%00=a",
        "size_min=", "created_at=0001-01-01T00:00:00%2B23:59",
    ],
)  # fmt: skip
def test_questions_that_make_no_sense(service: Service, query: str) -> None:
    answer = service.request("GET", f"/v2/images?{query}", headers={"accept": "application/json"})
    assert answer.status == 400, answer
    assert answer.json()["message"]


@pytest.mark.parametrize(
    "query",
    ["name=%F0%9F%92%BF", "tag=%F0%9F%92%BF", "%F0%9F%92%BF=%F0%9F%92%BF", "name=%ff", "limit=99999999", "=", "&&&"],
)
def test_odd_questions_have_answers(service: Service, query: str) -> None:
    assert service.request("GET", f"/v2/images?{query}").status in {200, 400}


def test_methods_that_a_path_does_not_have(service: Service) -> None:
    image = new(service)
    for method, path, allowed in (
        ("PUT", "/v2/images", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("POST", f"/v2/images/{image}", {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH"}),
        ("PATCH", f"/v2/images/{image}/file", {"GET", "HEAD", "OPTIONS", "PUT"}),
        ("DELETE", "/versions", {"GET", "HEAD", "OPTIONS"}),
    ):
        answer = service.request(method, path)
        assert answer.status == 405, (method, path, answer)
        assert set(answer.headers["allow"].split(", ")) == allowed
    for method in ("TRACE", "LOCK", "BREW"):
        assert service.request(method, "/v2/images").status == 501


def test_options(service: Service) -> None:
    answer = service.request("OPTIONS", "/v2/images")
    assert answer.status == 204
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert service.request("OPTIONS", "/v2/nothing").status == 404


def test_what_is_off_says_so(service: Service) -> None:
    for path in ("/v2/cache", "/v2/cached_images"):
        answer = service.request("GET", path)
        assert answer.status == 404
        assert b"There is no image cache here" in answer.body
