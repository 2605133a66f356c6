"""Who sees what in a list, as parts that never overlap. Rules: Image API reference, "Who sees what in a list".

Each part is one equality on visibility (and owner), so that an index gives it in the order of the default list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from xloud_image.db import indexes, sql
from xloud_image.model import VISIBILITIES
from xloud_image.policy.lists import Condition, Equal, Several, Sight

if TYPE_CHECKING:
    from xloud_image.db.query import Query


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Images of one visibility: "all", the caller's "own", or of others where the caller is a "member"."""

    visibility: str
    whose: str
    condition: Condition | None = None  # what the rule `get_image` asks besides
    sure: bool = True  # nothing but these conditions counts; else the rule is asked for each image

    def words(self, text: sql.Text, query: Query, many: bool) -> str:
        """The condition on a row `i` of images, by which the part is walked.

        Of a "member" part the rows come by the memberships, unless these are `many`.
        """
        words = self._walked(text, query, many)
        return words if self.condition is None else f"{words} AND {_put(text, self.condition)}"

    def _walked(self, text: sql.Text, query: Query, many: bool) -> str:
        rest = f"i.visibility = '{self.visibility}' AND {always(query)}"
        if self.whose == "all":
            return rest
        if self.whose == "own":
            return f"i.owner = {text.bind(query.project)} AND {rest}"
        of_others = f"(i.owner <> {text.bind(query.project)} OR i.owner IS NULL)"
        if many:
            return f"{rest} AND {of_others} AND {_is_member(text, query)}"
        # IS TRUE: PostgreSQL is not to cross the memberships with an index of all shared images
        return f"(i.visibility = 'shared') IS TRUE AND NOT i.deleted AND {of_others} AND {always(query)}"

    @property
    def index(self) -> str:
        """The index by which the part is walked in the order of creation."""
        return indexes.OWNED if self.whose == "own" else indexes.SEEN

    def test(self, text: sql.Text, query: Query) -> str:
        """The same as a test on a candidate, with no word that could draw the engine to another index."""
        words = self._tested(text, query)
        return words if self.condition is None else f"({words} AND {_put(text, self.condition)})"

    def _tested(self, text: sql.Text, query: Query) -> str:
        if self.whose == "all":
            return f"i.visibility = '{self.visibility}'"
        if self.whose == "own":
            return f"(i.visibility = '{self.visibility}' AND i.owner = {text.bind(query.project)})"
        return f"(i.visibility = 'shared' AND {_is_member(text, query)})"


def parts(query: Query) -> list[Part]:
    """The parts of what the caller asked for and may see; empty when that is nothing."""
    wanted = query.visibility
    found = []
    for name in VISIBILITIES if wanted in (None, "all") else (wanted,):
        if query.is_admin:
            whole = name != "community" or wanted is not None
        else:
            whole = name == "public" or (name == "community" and wanted is not None)
        if whole:
            found.append(Part(name, "all"))
        elif query.project is not None:
            found.append(Part(name, "own"))
            if name == "shared":
                found.append(Part(name, "member"))
    return found if query.sight is None else _allowed(found, query.sight)


def _allowed(found: list[Part], sight: Callable[[str, str], Sight]) -> list[Part]:
    """The parts of which the rule allows some image."""
    allowed = []
    for part in found:
        seen = sight(part.visibility, part.whose)
        if seen.condition is True:
            allowed.append(part if seen.sure else dataclasses.replace(part, sure=False))
        elif seen.condition is not False:
            allowed.append(dataclasses.replace(part, condition=seen.condition, sure=seen.sure))
    return allowed


def _put(text: sql.Text, condition: Condition) -> str:
    match condition:
        case Equal(column, value):
            return f"i.{column} = {text.bind(value)}"
        case Several(word, several):
            return f"({f' {word} '.join([_put(text, one) for one in several])})"


def always(query: Query) -> str:
    """What holds for every list: hidden ones apart, killed ones never."""
    return f"i.os_hidden = {'true' if query.os_hidden else 'false'} AND i.status <> 'killed'"


def memberships(text: sql.Text, query: Query) -> str:
    """A SELECT of the ids of images in which the caller is a member of the wanted status."""
    return f"SELECT m.image_id FROM image_members m WHERE {_membership(text, query)}"  # noqa: S608 - constants


def _is_member(text: sql.Text, query: Query) -> str:
    # not EXISTS, which an engine may turn round and start from; and PostgreSQL expects nearly all to pass IS NOT NULL,
    # but one in 200 to pass "= 1", for which it would rather sort all of them
    return (
        "(SELECT 1 FROM image_members m"  # noqa: S608 - constants
        f" WHERE m.image_id = i.id AND {_membership(text, query)} LIMIT 1) IS NOT NULL"
    )


def _membership(text: sql.Text, query: Query) -> str:
    words = f"m.member = {text.bind(query.project)} AND m.deleted = false"
    return words if query.member_status == "all" else f"{words} AND m.status = {text.bind(query.member_status)}"
