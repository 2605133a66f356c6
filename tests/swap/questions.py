"""What is asked of a Glance and of this service on the same database, by four callers; nothing is changed by it."""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import http.client
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from tests.swap.past import STATUSES, TAGS, Past
from tests.swap.site import ADMIN, CALLERS, FRIEND, OWNER, READER, WHO, Site

THREADS: Final = 4
CUT: Final = 0  # the status of an answer that never began
HEADERS: Final = ("content-type", "content-md5", "content-range", "allow", "openstack-image-import-methods")
SORTS: Final = (
    "name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at",
)  # fmt: skip


class Question(NamedTuple):
    """`pages`: `next` is followed to the end, and what all pages say is the answer."""

    who: str
    path: str
    pages: bool = False
    range: str = ""

    def __str__(self) -> str:
        return f"{self.who} {'all of ' if self.pages else ''}{self.path}{' ' if self.range else ''}{self.range}"


class Answer(NamedTuple):
    """`body`: of JSON the value, of a list's pages theirs; of other data length and digest; of a refusal nothing."""

    status: int
    headers: dict[str, str]
    body: Any


def asked(site: Site, questions: Sequence[Question]) -> dict[Question, Answer]:
    """What whoever runs there says to each."""
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(questions, pool.map(functools.partial(_ask, site), questions), strict=True))


def _ask(site: Site, question: Question) -> Answer:
    how = {"headers": {"Range": question.range}} if question.range else {}
    try:
        answer = site.call("GET", question.path, question.who, **how)
    except http.client.RemoteDisconnected:
        return Answer(CUT, {}, None)
    headers = {name: answer.headers[name] for name in HEADERS if name in answer.headers}
    if answer.status >= 300:  # the words of errors are each one's own
        return Answer(answer.status, {}, None)
    if not headers.get("content-type", "").startswith("application/json"):
        return Answer(answer.status, headers, (len(answer.body), hashlib.sha256(answer.body).hexdigest()))
    body = json.loads(answer.body)
    if not question.pages:
        return Answer(answer.status, headers, body)
    found = [body]
    while (path := found[-1].get("next")) is not None:
        assert len(found) < 1000
        page = site.call("GET", path, question.who)
        if page.status >= 300:
            return Answer(page.status, {}, found)
        found.append(page.json())
    return Answer(answer.status, headers, found)


def questions(past: Past, *, share: int = 1, first: int = 0, everybody: bool = False) -> list[Question]:
    """What is asked. Every kind of question is asked by every caller, and of each image something by somebody.
    everybody: each question by each caller. share: of those of which there are many, one of so many, from `first`
    on."""
    callers = Callers(everybody, share, first)
    of_images = [*_images(past, callers), *_lists(past, callers)]
    return list(dict.fromkeys([*of_images, *_of_metadefs(callers), *_of_tasks(past, callers), *_others(callers)]))


def every_byte(past: Past) -> list[Question]:
    """All of the images in `kinds`, by an administrator."""
    parts = ("", "/file", "/members", "/locations")
    return [Question(ADMIN, f"/v2/images/{image}{part}") for image in past.kinds for part in parts]


class Callers:
    """They take turns, or ask all."""

    def __init__(self, everybody: bool, share: int, first: int) -> None:
        self._everybody, self._share, self._first, self._turn = everybody, share, first, 0

    def skip(self) -> None:
        """The next one's turn."""
        self._turn += 1

    def ask(self, paths: Iterable[str], *, pages: bool = False, many: bool = True) -> Iterator[Question]:
        """Each of the paths, or some where they are many."""
        for path in paths:
            who = CALLERS if self._everybody else (CALLERS[self._turn % 4],)
            if not many or self._turn // 4 % self._share == self._first:
                yield from (Question(one, path, pages) for one in who)
            self._turn += 1

    def some(self, questions: Iterable[Question]) -> Iterator[Question]:
        """Some of them, several that lie side by side at a time."""
        for number, one in enumerate(questions):
            if number // 24 % self._share == self._first:
                yield one


def _images(past: Past, callers: Callers) -> Iterator[Question]:
    friend = WHO[FRIEND].project
    # of kinds that lie side by side the callers' share differs: each is asked for by another one
    kinds = [f"/v2/images/{image}" for image in past.kinds]
    parts = ("", "/file", "/members", "/locations", "/tasks", f"/members/{friend}", f"/members/{'f' * 32}")
    for number, part in enumerate(parts):
        yield from callers.ask(f"{image}{part}" for image in (kinds if number < 3 else kinds[number % 2 :: 2]))
        callers.skip()
    yield from callers.some(_of_made(past))


def _of_made(past: Past) -> Iterator[Question]:
    friend = WHO[FRIEND].project
    for name, image in past.made.items():
        for who in CALLERS:
            yield Question(who, f"/v2/images/{image}")
            of_friend, of_odd = f"members/{friend}", f"members/{quote('größe')}"
            parts = ("file", "members", "locations", "tasks", of_friend, of_odd, "members/x")
            if not name.startswith("odd "):
                yield from (Question(who, f"/v2/images/{image}/{part}") for part in parts)
        if name in ("file", "several", "formats", "deleted"):
            for part in ("bytes=0-9", "bytes=5-", "bytes=-7", "bytes=100000-"):
                yield Question(OWNER, f"/v2/images/{image}/file", range=part)


def _lists(past: Past, callers: Callers) -> Iterator[Question]:
    yield from callers.ask(f"/v2/images?{urlencode(query)}" for query in _filters(past))
    for who in CALLERS:
        for query in ("visibility=all", "os_hidden=true&visibility=all", "os_hidden=true&member_status=all"):
            yield Question(who, f"/v2/images?limit=1000&{query}")
    yield from callers.some(
        Question(who, f"/v2/images?{visibility}member_status={status}&limit=40")
        for who in CALLERS
        for visibility in ("visibility=shared&", "visibility=all&", "")
        for status in ("accepted", "pending", "rejected", "all")
    )
    ways = list(itertools.product(SORTS, ("asc", "desc")))
    yield from callers.ask(f"/v2/images?sort_key={key}&sort_dir={way}&limit=30&visibility=all" for key, way in ways)
    paged = [
        f"/v2/images?sort={key}:{way},{SORTS[number - 3]}:desc&limit=60" for number, (key, way) in enumerate(ways[::3])
    ]
    paged += [f"/v2/images?{query}" for query in (
        "limit=7&member_status=all&visibility=shared", "limit=20&tag=even&tag=third", "limit=40&os_hidden=true"
    )]  # fmt: skip
    yield from callers.ask(paged, pages=True)
    for query in _refused(past):
        yield Question(OWNER, f"/v2/images?{query}")


def _filters(past: Past) -> Iterator[list[tuple[str, str]]]:
    one, other = past.all[-1], past.made["file"]
    for visibility in ("public", "private", "community"):
        yield [("visibility", visibility)]
        yield [("visibility", visibility), ("os_hidden", "True"), ("member_status", "all")]
    for status in (*dict.fromkeys(STATUSES), "odd", "in:active,queued", 'in:"killed",saving'):
        yield [("status", status), ("visibility", "all")]
    for name, values in {
        "name": ("file", "odd", "in:file,slow", 'in:"quote "" and, comma"', "nothing", "in:a", "per%cent%20 and+plus"),
        "id": (one, f"in:{one},{other}", one.upper(), "nothing", past.made["deleted"]),
        "disk_format": ("raw", "iso", "in:iso,qcow2"), "container_format": ("bare", "ovf", "in:ovf,ami"),
        "owner": (WHO[OWNER].project, WHO[ADMIN].project, "nobody", ""), "protected": ("true", "false"),
        "os_hidden": ("true", "false", "TRUE"), "size": ("292", "0"), "size_min": ("500", "-1"), "size_max": ("500",),
        "min_ram": ("512", "0"), "min_disk": ("3",), "min_ram_min": ("1",), "min_disk_max": ("2",),
        "virtual_size": ("292",), "virtual_size_min": ("400",), "os_hash_algo": ("sha512",), "os_hash_value": ("a",),
        "checksum": ("d41d8cd98f00b204e9800998ecf8427e",),
        "created_at": ("2026-03-01T10:00:00Z", "gt:2026-03-01T10:03:00Z", "gte:2026-03-01T10:03:21Z",
                       "lt:2026-03-02T10:00:00Z", "lte:2026-03-01T10:03:21Z", "eq:2026-03-01T10:02:14Z",
                       "neq:2026-03-01T10:02:14Z", "lt:2026-03-01T12:30:00+02:30"),
        "updated_at": ("gt:2026-03-01T10:05:00Z", "lt:2026-03-01T10:05:00Z"),
        "os_distro": ("debian", "alpine", ""), "licence": ("free",), "größe": ("ü☃",), "nothing": ("",),
        "secret_key": ("s",), "secret_word": ("s3",), "was": ("x",), "gone": ("1",), "later": ("x" * 5000,),
        "os_glance_importing_to_stores": ("os_glance_importing_to_stores",), "os_glance_stage_host": ("x",),
        "hw_disk_bus": ("scsi",), "deleted": ("true",), "is_public": ("true",), "store": ("fast",), "stores": ("fast",),
    }.items():  # fmt: skip
        for value in values:
            yield [(name, value), ("visibility", "all")]
    for tag in TAGS:
        yield [("tag", tag)]
    yield [("tag", "even"), ("tag", "third")]
    yield [("tag", "nothing")]
    for number in (past.all[20], past.all[200], past.made["file"]):
        yield [("marker", number), ("limit", "5"), ("visibility", "all")]
    yield [
        ("id", f"in:{past.made['web']},{past.made['copied']}"),
        ("limit", "2"),
    ]  # a page that is full and the last one
    yield [("limit", "0")]
    yield [("limit", "3"), ("sort", "name:asc,size,id:desc")]
    yield [("sort_key", "name"), ("sort_key", "size"), ("sort_dir", "asc"), ("sort_dir", "desc")]
    yield [("sort_key", "status"), ("sort_key", "name"), ("sort_dir", "asc")]
    yield [("sort_dir", "asc")]


def _refused(past: Past) -> Iterator[str]:
    yield from (
        "limit=-1", "limit=x", "limit=", "marker=nothing", f"marker={'0' * 8}-0000-4000-8000-{'0' * 12}",
        f"marker={past.made['deleted']}", "sort=odd", "sort=name:up", "sort_key=odd", "sort_key=tags", "sort_dir=up",
        "sort=name:asc,name:desc", "member_status=", "sort=name&sort_key=name",
        "sort_key=name&sort_dir=asc&sort_dir=desc", "sort_key=name&sort_key=name",
        "visibility=odd", "visibility=", "member_status=odd", "os_hidden=odd", "os_hidden=", "protected=True",
        "protected=", "size_min=x", "size_max=", "min_ram_min=x", "created_at=odd",
        "created_at=odd:2026-01-01T00:00:00Z",
        "updated_at=", "changes-since=2026-01-01", "name=gt:a", "status=gt:a", "id=odd:a", "disk_format=eq:raw",
        "name=in:%22a", "size=x", "tag=", "unknown_min=x", "checksum=", "min_disk=x", "unknown_max=3",
        "deleted=true", "name=a:b",
    )  # fmt: skip


def _of_metadefs(callers: Callers) -> Iterator[Question]:
    base = "/v2/metadefs/namespaces"
    names = [f"OS::Swap::Number{number}" for number in range(8)]
    shipped = ("OS::Compute::Libvirt", "OS::Software::WebServers", "CIM::ProcessorAllocationSettingData")
    for who in CALLERS:
        for query in (
            "",
            "?visibility=private",
            "?limit=1000",
            "/OS::Swap::Number0",
            "/OS::Swap::Number3",
            "/OS::Old::Nobody",
        ):
            yield Question(who, base + query)
    yield from callers.ask(
        f"{base}/{name}{part}"
        for part in ("", "/objects", "/properties", "/tags", "/resource_types")
        for name in (*names, *shipped, "OS::Old::Nobody", "OS::Old::Owner", "OS::Swap::Renamed", "nothing")
    )
    yield from callers.ask(f"{base}/{names[0]}{part}" for part in (
        "?resource_type=OS::Glance::Image", "?resource_type=OS::Nova::Flavor", "?resource_type=odd", "/objects/pair",
        "/objects/nothing", "/properties/cores", "/properties/nothing", "/properties/p0_cores",
        "/properties/p0_cores?resource_type=OS::Glance::Image", "/tags/small", "/tags/nothing", "/tags?limit=1",
        "/tags?marker=small", "/tags?sort_key=name&sort_dir=asc", "/objects?limit=1", "/objects?visibility=public",
    ))  # fmt: skip
    yield from callers.ask(f"{base}?{query}" for query in (
        "visibility=public", "resource_types=OS::Glance::Image", "resource_types=OS::Nova::Flavor,OS::Glance::Image",
        "limit=0", "visibility=odd", "limit=-1", "marker=nothing", "sort_key=odd", "sort_dir=up",
        "marker=OS::Swap::Number0&limit=3",
    ))  # fmt: skip
    yield from callers.ask(["/v2/metadefs/resource_types"])
    for key, way in itertools.product(("created_at", "updated_at", "namespace", "visibility"), ("asc", "desc")):
        yield Question(ADMIN, f"{base}?sort_key={key}&sort_dir={way}&limit=4", pages=True)
    yield from (Question(ADMIN, f"{base}/OS::Swap::Number6{part}") for part in ("", "/properties"))
    yield Question(READER, f"{base}?limit=5", pages=True)


def _of_tasks(past: Past, callers: Callers) -> Iterator[Question]:
    for who in (ADMIN, OWNER):
        yield Question(who, "/v2/tasks")
        yield Question(who, f"/v2/tasks/{past.tasks[0]}")
    for query in (
        "limit=1000", "status=success", "status=failure&type=import", "type=import", "limit=0", "type=api_image_import",
        "type=odd", "status=odd", "marker=nothing", "limit=-1", "limit=x", "sort_key=odd", "sort_dir=up",
        f"marker={'0' * 8}-0000-4000-8000-{'0' * 12}", f"owner={WHO[OWNER].project}",
    ):  # fmt: skip
        yield Question(ADMIN, f"/v2/tasks?{query}")
    keys = ("created_at", "updated_at", "type", "status", "expires_at", "id")
    for number, (key, way) in enumerate(itertools.product(keys, ("asc", "desc"))):
        yield Question(ADMIN, f"/v2/tasks?sort_key={key}&sort_dir={way}&limit={11 + 9 * number}", pages=True)
    yield from callers.some(Question(ADMIN, f"/v2/tasks/{task}") for task in (*past.tasks, "nothing"))
    yield from callers.ask(f"/v2/tasks/{task}" for task in past.tasks[:8])


def _others(callers: Callers) -> Iterator[Question]:
    names = ("image", "images", "member", "members", "task", "tasks", "nothing", *(
        f"metadefs/{one}" for one in ("namespace", "namespaces", "resource_type", "resource_types", "property",
                                      "properties", "object", "objects", "tag", "tags")
    ))  # fmt: skip
    yield from callers.ask(f"/v2/schemas/{one}" for one in names)
    for who in CALLERS:
        yield from (Question(who, f"/v2/info/{one}") for one in ("stores", "stores/detail", "import", "usage"))
        yield Question(who, "/v2/cache")
    yield from callers.ask(("/versions", "/v2/nothing", "/v2/images/nothing", "/v2/images/", "/v2/images/nothing/file"))


def several(answers: Iterable[Answer]) -> dict[int, int]:
    """How many of each status, for whoever reads the output of a test."""
    found: dict[int, int] = {}
    for one in answers:
        found[one.status] = found.get(one.status, 0) + 1
    return dict(sorted(found.items()))
