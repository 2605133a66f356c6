"""The query of `GET /v2/images` as a `Query`. Only reads text; who sees what is decided where the rows are.

Source: Image API reference, section "List".
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any, Final

from multidict import MultiMapping

from xloud_image.config.settings import Limits
from xloud_image.db.filters import COMPARE
from xloud_image.db.query import COLUMNS, LISTED, NUMBERS, SORT_KEYS, TIMES, Direction, Query
from xloud_image.errors import BadRequest
from xloud_image.identity.context import Context
from xloud_image.model import MEMBER_STATUSES, VISIBILITIES

_PLAIN: Final = re.compile(r'[^"\\]*')  # in quotation marks, what stands for itself
_ESCAPED: Final = {'""': '"', '\\"': '"', "\\\\": "\\"}
_OPERATORS: Final = frozenset({"in", *COMPARE})
_CONTROL: Final = frozenset(
    {"limit", "marker", "sort", "sort_key", "sort_dir", "visibility", "member_status", "deleted"}
)
_MOST: Final = 2**63 - 1
FILTERS: Final = 128  # in one request
VALUES: Final = 1000  # in one in:…


def parse(query: MultiMapping[str], ctx: Context, limits: Limits) -> Query:
    """The question asked. `BadRequest` names the parameter that makes no sense."""
    values: dict[str, Any] = {
        "equals": {}, "one_of": {}, "times": [], "at_least": {}, "at_most": {}, "tags": [], "properties": {},
    }  # fmt: skip
    asked = [(name, text) for name, text in query.items() if name not in _CONTROL]
    if len(asked) > FILTERS:
        raise BadRequest(f"A list takes up to {FILTERS} filters; these are {len(asked)}.")
    for name, text in asked:
        _filter(name, text, values)
    hidden = values["equals"].pop("os_hidden", False)
    return Query(
        project=ctx.project,
        is_admin=ctx.is_admin,
        visibility=_one_of("visibility", query.get("visibility"), (*VISIBILITIES, "all")),
        member_status=_one_of("member_status", query.get("member_status"), (*MEMBER_STATUSES, "all")) or "accepted",
        os_hidden=hidden,
        sort=_sort(query),
        marker=_marker(query.get("marker")),
        limit=_limit(query.get("limit"), limits),
        **values,
    )


def _limit(text: str | None, limits: Limits) -> int:
    if text is None:
        return min(limits.limit_param_default, limits.api_limit_max)
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise BadRequest("'limit' is a number, 0 or more.")
    return min(int(text), limits.api_limit_max)


def _marker(text: str | None) -> str | None:
    if text is not None and (len(text) > 36 or not text.isprintable() or not text.isascii()):
        raise BadRequest("'marker' is the id of an image.")
    return text.lower() if text is not None else None


def _one_of(name: str, text: str | None, allowed: tuple[str, ...]) -> str | None:
    if text is not None and text not in allowed:
        raise BadRequest(f"'{name}' must be one of {', '.join(allowed)}.")
    return text


def _sort(query: MultiMapping[str]) -> list[tuple[str, Direction]]:
    keys, dirs = query.getall("sort_key", []), query.getall("sort_dir", [])
    text = query.get("sort")
    if text is not None:
        if keys or dirs:
            raise BadRequest("Use either 'sort' or 'sort_key' and 'sort_dir', not both.")
        pairs = [part.strip().partition(":") for part in text.split(",")]
        return _checked([(key, direction or "desc") for key, _, direction in pairs])
    if len(dirs) > 1 and len(dirs) != len(keys):
        raise BadRequest("Give one 'sort_dir', or as many as there are 'sort_key'.")
    if dirs and not keys:
        keys = ["created_at"]
    return _checked(list(zip(keys, dirs if len(dirs) == len(keys) else (dirs or ["desc"]) * len(keys), strict=True)))


def _checked(pairs: list[tuple[str, str]]) -> list[tuple[str, Direction]]:
    result: list[tuple[str, Direction]] = []
    for key, direction in pairs:
        if key not in SORT_KEYS:
            raise BadRequest(f"Images cannot be sorted by '{key[:40]}'; the keys are {', '.join(SORT_KEYS)}.")
        if direction == "asc":
            result.append((key, "asc"))
        elif direction == "desc":
            result.append((key, "desc"))
        else:
            raise BadRequest(f"'{direction[:20]}' is no direction: asc or desc.")
    if len({key for key, _ in result}) != len(result):
        raise BadRequest("A sort key can be given only once.")
    return result


def _filter(name: str, text: str, values: dict[str, Any]) -> None:
    if "\0" in name or "\0" in text:
        raise BadRequest("A filter cannot hold a NUL character.")
    if name == "changes-since":
        raise BadRequest("'changes-since' is not part of this API; use updated_at=gte:TIME.")
    if name == "tag":
        values["tags"].append(text)
    elif name in TIMES:
        values["times"].append((name, *_time(name, text)))
    elif name in LISTED:
        _listed(name, text, values)
    elif name == "os_hidden":
        values["equals"][name] = _bool(name, text.lower())
    elif name == "protected":
        values["equals"][name] = _bool(name, text)
    elif name in NUMBERS:
        values["equals"][name] = _number(name, text)
    elif name[-4:] in ("_min", "_max") and name[:-4] in NUMBERS:
        values["at_least" if name.endswith("_min") else "at_most"][name[:-4]] = _number(name, text)
    elif name in COLUMNS:
        values["equals"][name] = text
    else:
        values["properties"][name] = text


def _listed(name: str, text: str, values: dict[str, Any]) -> None:
    operator, colon, rest = text.partition(":")
    plain: Callable[[str], str] = str.lower if name == "id" else str
    if not colon or operator not in _OPERATORS:
        values["equals"][name] = plain(text)
    elif operator == "eq":
        values["equals"][name] = plain(rest)
    elif operator == "in":
        values["one_of"][name] = [plain(item) for item in _items(name, rest)]
    else:
        raise BadRequest(f"'{name}' can be compared with 'in:' or plainly, not with '{operator}:'.")


def _items(name: str, text: str) -> list[str]:
    """Values with commas between them. One in quotation marks may hold commas; in it a backslash stands before a
    quotation mark or a backslash of the value (a quotation mark may be doubled instead).
    """
    found: list[str] = []
    at = 0
    while text:
        if text[at : at + 1] == '"':
            value, at = _quoted(name, text, at + 1)
        else:
            end = text.find(",", at)
            value, at = (text[at:], len(text)) if end < 0 else (text[at:end], end)
        found.append(value)
        if len(found) > VALUES:
            raise BadRequest(f"'{name}=in:…' takes up to {VALUES} values.")
        if at == len(text):
            break
        if text[at] != ",":
            raise BadRequest(f"'{name}=in:…' needs a comma after a quotation mark that ends a value.")
        at += 1
    return found


def _quoted(name: str, text: str, at: int) -> tuple[str, int]:
    """The value whose opening quotation mark is before `at`, and where its closing one ends."""
    parts = []
    while at < len(text):
        match = _PLAIN.match(text, at)
        assert match is not None
        parts.append(match[0])
        at = match.end()
        pair = text[at : at + 2]
        if pair in _ESCAPED:
            parts.append(_ESCAPED[pair])
            at += 2
        elif pair.startswith('"'):
            return "".join(parts), at + 1
        elif pair:
            parts.append("\\")
            at += 1
    raise BadRequest(f"'{name}=in:…' has an open quotation mark.")


def _time(name: str, text: str) -> tuple[str, dt.datetime]:
    operator, colon, rest = text.partition(":")
    if not colon or operator not in COMPARE:
        operator, rest = "eq", text
    try:
        value = dt.datetime.fromisoformat(rest.strip().replace(" ", "+"))
    except ValueError:
        raise BadRequest(
            f"'{name}' is a time like 2030-01-31T12:00:00Z, with gt: gte: lt: lte: eq: neq: in front."
        ) from None
    if value.tzinfo is not None:
        try:
            value = value.astimezone(dt.UTC).replace(tzinfo=None)
        except OverflowError:
            raise BadRequest(f"'{name}' lies outside of time.") from None
    return operator, value


def _bool(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise BadRequest(f"'{name}' is true or false.")
    return text == "true"


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,19}", text) or abs(int(text)) > _MOST:
        raise BadRequest(f"'{name}' is a whole number between -{_MOST} and {_MOST}.")
    return int(text)
