"""What may differ between a Glance's answers and ours on the same database: a list, each line with its reason. All else
is a fault.

docs/swap.md says the same to operators. A rule that no answer needs any more is to be removed: the test fails then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import unquote

from tests.swap.questions import CUT, Answer, Question
from tests.swap.site import ADMIN

Database = Literal["mariadb", "postgresql"]


class Difference(NamedTuple):
    """Where an answer differs: `place` is a path within its body, "status" or "headers/NAME"; what one of both has not
    is `...`. Where lists do not hold the same in the same order, the place ends with "/*", and these are the names.
    `image`: the row of the image that the question is about, if it is about one."""

    question: Question
    place: str
    theirs: Any
    ours: Any
    image: Mapping[str, Any]

    @property
    def path(self) -> str:
        return self.question.path

    @property
    def statuses(self) -> tuple[int, int] | None:
        return (self.theirs, self.ours) if self.place == "status" else None

    def under(self, *starts: str) -> bool:
        return self.path.startswith(starts)

    def at(self, *ends: str) -> bool:
        return self.place.endswith(ends)


class Rule(NamedTuple):
    """`where`: the database on which it is so, if not on both."""

    reason: str
    holds: Callable[[Difference], bool]
    where: Database | None = None


METADEFS: Final = "/v2/metadefs/namespaces"
GIVES_LESS: Final = (
    Rule(
        "nobody finds images by a property whose value is kept from him",
        lambda d: (
            "secret_" in d.path and d.question.who != ADMIN and d.at("/images/*", "/next") and d.ours in ([], ...)
        ),
    ),
    Rule(
        "a private image without an owner is not there but for administrators; Glance says 403 of its members and data",
        lambda d: (
            d.statuses == (403, 404) and (d.image.get("owner", ""), d.image.get("visibility")) == (None, "private")
        ),
    ),
    Rule(
        "a sort key that is named twice, and a visibility that is none, are refused",
        lambda d: (
            d.path.endswith(("name:asc,name:desc", "sort_key=name&sort_key=name", "visibility="))
            and d.statuses == (200, 400)
        ),
    ),
    Rule("tasks are gone when they have expired", lambda d: d.under("/v2/tasks/") and d.statuses == (200, 404)),
)
PLAINER: Final = (
    Rule(
        "tasks have all of their fields, with null for what is unknown, in lists too",
        lambda d: (
            d.under("/v2/tasks") and d.at("/expires_at", "/image_id", "/request_id", "/user_id") and d.theirs is ...
        ),
    ),
    Rule(
        "tasks can be asked for by each type that they have",
        lambda d: d.path == "/v2/tasks?type=api_image_import" and d.statuses == (400, 200),
    ),
    Rule(
        "a list of tasks has no filter `owner`",
        lambda d: d.under("/v2/tasks?owner=") and d.place.startswith(("/tasks/*", "/next")),
    ),
    Rule(
        "there is no `next` after the last page",
        lambda d: d.at("/next") and d.ours is ... and isinstance(d.theirs, str),
    ),
    Rule(
        "what a property is by default is shown as it was given; Glance makes a text of it",
        lambda d: d.under(METADEFS) and d.at("/default") and d.theirs == str(d.ours),
    ),
    Rule(
        "the list of objects names its schema with a slash, as all others do",
        lambda d: d.under(METADEFS) and d.at("/schema") and d.ours == f"/{d.theirs}",
    ),
    Rule(
        "the md5 of the whole data is no header of a part of it",
        lambda d: d.place == "headers/content-md5" and bool(d.question.range) and d.ours is ...,
    ),
    Rule(
        "a property without a value is found as what it is shown as, the empty text",
        lambda d: "nothing=&" in d.path and d.at("/images/*", "/next"),
    ),
    Rule(
        "in a list of values a quotation mark may be doubled",
        lambda d: 'in:"quote ""' in unquote(d.path.replace("+", " ")) and d.statuses == (400, 200),
    ),
    Rule(
        "a value with a colon is looked for as it is, where what stands before it is no operator",
        lambda d: d.path in ("/v2/images?name=a:b", "/v2/images?id=odd:a") and d.statuses == (400, 200),
    ),
    Rule(
        "a page may begin behind an image that was deleted meanwhile",
        lambda d: d.under("/v2/images?marker=") and d.statuses == (400, 200),
    ),
    Rule(
        "schemas name fields that are there, and that Glance's leave out",
        lambda d: d.under("/v2/schemas/") and d.theirs is ...,
    ),
    Rule(
        "the schema of a property has no word for one that must be there: it is the object that says so",
        lambda d: d.under("/v2/schemas/metadefs/propert") and d.place == "/required" and d.ours is ...,
    ),
    Rule(
        "what we noted of a location that somebody registered stays in its metadata, where Glance shows it",
        lambda d: d.at("/metadata/xloud") and d.ours is ...,
    ),
    Rule(
        "the http store says more of itself",
        lambda d: d.under("/v2/info/stores/detail") and d.at("/proxy_for", "/verifies_tls") and d.theirs is ...,
    ),
)
FAULTS_OF_GLANCE: Final = (
    Rule(
        "of a parameter that is there several times its links keep the last one",
        lambda d: d.at("/first", "/next") and _repeated(d.path) and isinstance(d.ours, str),
    ),
    Rule(
        "its server gets names in paths that are not ASCII in another encoding",
        lambda d: d.at("status") and "gr%C3%B6%C3%9Fe" in d.path and d.theirs == 404,
    ),
    Rule("numbers that are none are compared with numbers",
         lambda d: d.path in ("/v2/images?size=x", "/v2/images?min_disk=x") and d.statuses in ((200, 400), (500, 400))),
    Rule("numbers break it on PostgreSQL, where they are compared as texts",
         lambda d: d.under(*(f"/v2/images?{name}=" for name in NUMBERS)) and d.statuses == (500, 200), "postgresql"),
    Rule("a range of a property breaks it, or is refused",
         lambda d: d.under("/v2/images?unknown_m") and d.statuses in ((500, 200), (400, 200))),
    Rule("PostgreSQL: an empty visibility breaks it",
         lambda d: d.path == "/v2/images?visibility=" and d.statuses == (500, 400), "postgresql"),
    Rule("a sort key that is none breaks it", lambda d: d.under(METADEFS) and d.statuses == (500, 400)),
    Rule("a range of an image without data breaks it", lambda d: d.statuses == (CUT, 204) and bool(d.question.range)),
)  # fmt: skip
NUMBERS: Final = ("size", "virtual_size", "min_ram", "min_disk")
NULLABLE: Final = ("name", "container_format", "disk_format", "size")


def _by_nullable(path: str) -> bool:
    if path.startswith(METADEFS):
        return "sort_key=updated_at" in path  # null, where a file brought it
    return path.startswith("/v2/images?") and any(
        f"sort{way}{key}" in path or f",{key}:" in path for key in NULLABLE for way in ("_key=", "=")
    )


ORDER: Final = (
    Rule(
        "on PostgreSQL Glance has no fixed order of an image's locations, where their stores have the same weight",
        lambda d: _of_locations(d),
        "postgresql",
    ),
    Rule(
        "PostgreSQL: where nothing is known stands first in descending order, as on the other databases",
        lambda d: _by_nullable(d.path) and _same(d),
        "postgresql",
    ),
    Rule(
        "PostgreSQL keeps fractions of seconds: a time without them means the whole second, as it is shown",
        lambda d: d.under("/v2/images?created_at=", "/v2/images?updated_at=") and d.at("/images/*", "/next"),
        "postgresql",
    ),
    Rule(
        "tasks are sorted by their id where that is asked for, and by the end of their time, those without one last",
        lambda d: d.under("/v2/tasks?sort_key=id", "/v2/tasks?sort_key=expires_at") and _same(d),
    ),
)


def _of_locations(difference: Difference) -> bool:
    """The same ones in another order."""
    theirs, ours = difference.theirs, difference.ours
    if difference.at("/direct_url"):
        return isinstance(theirs, str) and isinstance(ours, str)
    if difference.at("/stores"):
        return sorted(str(theirs).split(",")) == sorted(str(ours).split(","))
    whole = difference.place == "/*" and difference.path.endswith("/locations")
    return (whole or difference.at("/locations/*")) and sorted(theirs) == sorted(ours)


def _same(difference: Difference) -> bool:
    """A list of the same things; a page of others may hold any. Glance loses some, where a page ends at a null."""
    if not difference.at("/*"):
        return "/next" in difference.place or "/sizes" in difference.place
    whole = difference.question.pages
    return not whole or set(difference.theirs) <= set(difference.ours)


RULES: Final = GIVES_LESS + PLAINER + ORDER + FAULTS_OF_GLANCE


def _repeated(path: str) -> bool:
    names = [one.partition("=")[0] for one in path.partition("?")[2].split("&")]
    return len(set(names)) < len(names)


def found(
    theirs: Mapping[Question, Answer], ours: Mapping[Question, Answer], images: Mapping[str, Mapping[str, Any]]
) -> Iterator[Difference]:
    """All differences, but for those of form: see `alike`. images: their rows by id."""
    assert theirs.keys() == ours.keys()
    for question, answer in theirs.items():
        other = ours[question]
        image = images.get(question.path.removeprefix("/v2/images/").partition("/")[0], {})
        if answer.status != other.status:
            yield Difference(question, "status", answer.status, other.status, image)
            continue
        for place, one, two in _values(answer.headers, other.headers, "headers"):
            yield Difference(question, place, one, two, image)
        if answer.body != other.body:
            for place, one, two in _values(alike(question, answer.body), alike(question, other.body), ""):
                yield Difference(question, place, one, two, image)


def unexplained(differences: list[Difference]) -> list[Difference]:
    """Those for which there is no rule."""
    return [one for one in differences if not any(rule.holds(one) for rule in RULES)]


def _names(values: list[Any]) -> list[str]:
    """What tells the elements of a list apart."""
    keys = ("id", "namespace", "member_id", "name", "url")
    return [str(next((one[key] for key in keys if key in one), "")) for one in values if isinstance(one, dict)]


def _values(one: Any, two: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, dict) and isinstance(two, dict):
        for name in sorted(one.keys() | two.keys()):
            if name not in one or name not in two:
                yield f"{place}/{name}", one.get(name, ...), two.get(name, ...)
            else:
                yield from _values(one[name], two[name], f"{place}/{name}")
    elif isinstance(one, list) and isinstance(two, list) and (names := _names(one)) != (others := _names(two)):
        yield f"{place}/*", names, others
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        for number, pair in enumerate(zip(one, two, strict=True)):
            yield from _values(*pair, f"{place}/{number}")
    elif one != two:
        yield place, one, two


def alike(question: Question, body: Any) -> Any:
    """An answer without what is only form, and has no meaning for a client:

    * tags, members, resource types and objects have no order; links may be written with escapes or without;
    * an empty page after the last one is none;
    * schemas have the same fields, and images' fields the same values and rights: words and bounds are each one's own;
    * the document of versions has no order;
    * namespaces without a visibility are private with us: where lists go by it, only the others are compared;
    * the tasks of an image have no order in Glance, and their times another form there than everywhere else.
    """
    if question.path.startswith("/v2/schemas/"):
        return _schema(body)
    if question.path.startswith(METADEFS) and (
        "visibility=private" in question.path or "sort_key=visibility" in question.path
    ):
        pages = body if question.pages else [body]
        return [
            _form(one) for page in pages for one in page["namespaces"] if not one["namespace"].startswith("OS::Old::")
        ]
    if question.path == "/versions":
        return sorted(body["versions"], key=lambda one: str(one["id"]))
    if question.path.endswith("/tasks") and isinstance(body, dict) and question.path.startswith("/v2/images/"):
        times = ("created_at", "updated_at", "expires_at")
        tasks = [{**one, **{name: (one[name] or "")[:19] for name in times}} for one in body["tasks"]]
        return sorted(tasks, key=lambda one: str(one["id"]))
    if question.pages and len(body) > 1 and not any(body[-1].get(name) for name in ("images", "namespaces", "tasks")):
        last = {name: one for name, one in body[-2].items() if name != "next"}
        body = [*body[:-2], last]
    if question.pages:
        (name,) = {"images", "namespaces", "tasks"} & body[0].keys()
        pages = [_form(page) for page in body]
        return {
            name: [one for page in pages for one in page[name]], "sizes": [len(page[name]) for page in pages],
            "first": pages[0]["first"], "next": [page.get("next") for page in pages],
        }  # fmt: skip
    return _form(body)


def _form(value: Any) -> Any:
    if isinstance(value, list):
        return [_form(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {name: _form(one) for name, one in value.items()}
    if isinstance(tags := found.get("tags"), list) and all(isinstance(one, str) for one in tags):
        found["tags"] = sorted(tags)
    for name in ("resource_type_associations", "resource_types", "objects", "members"):
        if name in found:
            found[name] = sorted(found[name], key=lambda one: str(one["member_id" if name == "members" else "name"]))
    for name in ("first", "next", "self"):
        if isinstance(found.get(name), str):
            found[name] = unquote(found[name])
    return found


def _schema(body: Any) -> Any:
    """The fields; of an image's what is of use to a client."""
    if "properties" not in body:
        return body
    fields = body["properties"]
    if body["name"] == "images":
        fields = fields["images"]["items"]["properties"]
    if body["name"] not in ("image", "images"):
        return dict.fromkeys(fields)
    return {
        name: {"type": one.get("type"), "readOnly": one.get("readOnly"), "enum": sorted(map(str, one.get("enum", [])))}
        for name, one in fields.items()
    }


@dataclasses.dataclass
class Used:
    """Which rules were needed."""

    on: Database
    rules: set[str] = dataclasses.field(default_factory=set)

    def __call__(self, differences: list[Difference]) -> None:
        self.rules |= {rule.reason for one in differences for rule in RULES if rule.holds(one)}


def idle(needed: Mapping[Database, Collection[str]]) -> list[str]:
    """The rules that no database needed, or not the one for which they are."""
    return [
        one.reason
        for one in RULES
        if not any(one.reason in needed[where] for where in needed if one.where in (None, where))
    ]
