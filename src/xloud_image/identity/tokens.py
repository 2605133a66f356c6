"""What a token says, as one value, and its form in a shared cache. Nobody is asked here whether it is valid."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from typing import Any, Final

import orjson


class Unreadable(ValueError):
    """The document is not what Keystone v3 sends for a token."""


_WORDS: Final = re.compile(r"\*\*|\*|\{[^{}]*\}|.", re.DOTALL)
_LONGEST: Final = 2048  # characters of a path; no call of the Image API has as many


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """A validated token. `roles` are lower-case; `expires` is a Unix time.

    `access_rules`: the only calls an application credential is good for, as (service type, method, path
    pattern); None: all.
    """

    expires: float
    user: str | None = None
    user_domain: str | None = None
    project: str | None = None
    project_domain: str | None = None
    domain: str | None = None
    system_scope: str | None = None
    roles: frozenset[str] = frozenset()
    access_rules: tuple[tuple[str, str, str], ...] | None = None
    user_name: str | None = None

    @classmethod
    def from_keystone(cls, body: bytes) -> Token:
        """The answer of `GET /v3/auth/tokens`. Raises Unreadable."""
        try:
            token: dict[str, Any] = orjson.loads(body)["token"]
            user, project = token["user"], token.get("project") or {}
            rules = (token.get("application_credential") or {}).get("access_rules")
            return cls(
                expires=dt.datetime.fromisoformat(token["expires_at"]).timestamp(),
                user=user["id"],
                user_domain=(user.get("domain") or {}).get("id"),
                project=project.get("id"),
                project_domain=(project.get("domain") or {}).get("id"),
                domain=(token.get("domain") or {}).get("id"),
                system_scope="all" if (token.get("system") or {}).get("all") else None,
                roles=frozenset(role["name"].lower() for role in token.get("roles") or ()),
                access_rules=None
                if rules is None
                else tuple((rule["service"], rule["method"], rule["path"]) for rule in rules),
                user_name=user.get("name"),
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            raise Unreadable("not a token document of Keystone v3") from None

    def allows_call(self, service_type: str, method: str | None, path: str | None) -> bool:
        """Whether the access rules of its application credential, if any, let the token be used for this
        call.
        """
        if self.access_rules is None:
            return True
        if method is None or path is None:
            return False
        return any(
            service == service_type and verb == method and _matches(pattern, path)
            for service, verb, pattern in self.access_rules
        )


def _matches(pattern: str, path: str) -> bool:
    """Keystone's patterns: `*` and `{name}` are one step of the path, `**` is any number of them.

    Whoever makes an application credential writes the pattern, whoever uses it the path: all ways to match are
    followed at once (bit n: the path so far fits the first n words), never one after the other.
    """
    if len(path) > _LONGEST:
        return False
    literal: dict[str, int] = {}
    one = several = count = 0
    for word in _WORDS.findall(pattern):
        bit = 1 << count
        if word == "**":
            if several << 1 & bit:
                continue  # twice any number is any number
            several |= bit
        elif word == "*" or len(word) > 1:
            one |= bit
        else:
            literal[word] = literal.get(word, 0) | bit
        count += 1
    at = 1 | (several & 1) << 1
    for char in path:
        after = (at & literal.get(char, 0)) << 1 | at & several
        if char != "/":
            step = at & one
            after |= step | step << 1
        at = after | (after & several) << 1
        if not at:
            return False
    return bool(at >> count & 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Known:
    """A token that was found valid, and until when (Unix time) that is taken for true without asking again."""

    token: Token
    fresh_until: float

    def pack(self) -> bytes:
        """As bytes for a shared cache."""
        document = dataclasses.asdict(self.token) | {
            "roles": sorted(self.token.roles),
            "fresh_until": self.fresh_until,
        }
        return orjson.dumps(document)

    @classmethod
    def unpack(cls, data: bytes) -> Known:
        """The reverse; raises Unreadable."""
        try:
            document = orjson.loads(data)
            fresh_until = float(document.pop("fresh_until"))
            rules = document["access_rules"]
            document["access_rules"] = None if rules is None else tuple((s, m, p) for s, m, p in rules)
            document["roles"] = frozenset(document["roles"])
            return cls(Token(**document), fresh_until)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise Unreadable("not an entry of this service") from None
