"""What a list of images can be asked for, and what comes of it. No statement here: see `listing`."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from xloud_image.db.images import ROW
from xloud_image.model import Image
from xloud_image.policy.lists import Sight

Direction = Literal["asc", "desc"]

SORT_KEYS: Final = (
    "name",
    "status",
    "container_format",
    "disk_format",
    "size",
    "id",
    "created_at",
    "updated_at",
)
NUMBERS: Final = frozenset({"size", "virtual_size", "min_disk", "min_ram"})
FLAGS: Final = frozenset({"protected", "os_hidden"})
TIMES: Final = frozenset({"created_at", "updated_at"})
COLUMNS: Final = frozenset(ROW) - {"visibility"}
LISTED: Final = frozenset({"id", "name", "status", "container_format", "disk_format"})


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """What to list. Values have the column's type: int, bool, str, or a UTC time without zone.

    `project` and `is_admin` say who asks; a caller without project sees what is public. `visibility`: None is the
    default list, "all", or one visibility. `member_status`: of the caller's memberships, or "all". `equals`: column →
    value; `one_of`: column of LISTED → values; `times`: (column, key of COMPARE, time); `at_least`, `at_most`: column
    of NUMBERS → number; `tags` must all be there; `properties` must all be equal. `sort`: (key of SORT_KEYS, "asc" or
    "desc"); created_at and id are appended. `marker`: the id after which the page begins. `sight`: what the rule
    `get_image` says of images by visibility and whose they are (see `policy.lists`); None: all may be listed.
    """

    project: str | None = None
    is_admin: bool = False
    visibility: str | None = None
    member_status: str = "accepted"
    os_hidden: bool = False
    equals: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    one_of: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    times: Sequence[tuple[str, str, dt.datetime]] = ()
    at_least: Mapping[str, int] = dataclasses.field(default_factory=dict)
    at_most: Mapping[str, int] = dataclasses.field(default_factory=dict)
    tags: Sequence[str] = ()
    properties: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sort: Sequence[tuple[str, Direction]] = ()
    marker: str | None = None
    limit: int = 25
    sight: Callable[[str, str], Sight] | None = None

    def order(self) -> tuple[tuple[str, Direction], ...]:
        """The whole order: `sort`, then created_at and id in the direction that all keys have, else descending."""
        directions = {direction for _, direction in self.sort}
        rest: Direction = self.sort[0][1] if len(directions) == 1 else "desc"
        named = {key for key, _ in self.sort}
        return (*self.sort, *((key, rest) for key in ("created_at", "id") if key not in named))


class Page(list[Image]):
    """Images in order, and whether others may come after the last one. `end`: the id after which they come. `sizes`:
    of those that were just read, their bytes by id, about. `most`: bytes of JSON that they make at the most, where
    that is known."""

    def __init__(
        self,
        images: Iterable[Image] = (),
        *,
        more: bool = False,
        end: str | None = None,
        sizes: Mapping[str, int] | None = None,
        most: int | None = None,
    ) -> None:
        super().__init__(images)
        self.sizes = sizes or {}
        self.most = most
        self.more = more
        self.end = end if end is not None or not self else self[-1].id
