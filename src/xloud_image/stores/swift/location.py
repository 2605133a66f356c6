"""The URLs of the swift store: what each form says. Whether the store knows that account is not decided here.

    swift+config://<reference>/<container>/<object>                        what we write in one account
    swift[+http|+https]://<project>:<user>:<key>@<Keystone>/<container>/<object>   old: its key is never used
    swift+http[s]://<storage host and path>/<container>/<object>           in the account of the uploader

In the middle form the user may be percent-encoded (`project%3Auser`); user and key may hold anything that is.
"""

from __future__ import annotations

import dataclasses
import re
from urllib.parse import unquote, urlsplit

from xloud_image.stores.swift.options import SWIFT


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """One of `reference`, `auth` (Keystone as `comparable` has it, with the project) and `storage` says the account."""

    container: str
    name: str
    reference: str | None = None
    auth: str | None = None
    project: str | None = None  # with `auth`; None: the URL does not say
    storage: str | None = None


def parse(url: str) -> Place | None:
    """None for what is no URL of Swift. Nothing in it is trusted."""
    scheme, mark, rest = url.partition("://")
    if scheme not in SWIFT.schemes or not mark or any(ord(letter) < 33 for letter in rest):
        return None
    # an old key may hold what a URL may not: the last @ before the last two parts ends the login
    where, _, name = rest.rpartition("/")
    where, _, container = where.rpartition("/")
    container, name = unquote(container), unquote(name)
    if not where or not _plain(container) or not _plain(name):
        return None
    if scheme == "swift+config":
        reference = unquote(where)
        return Place(container, name, reference=reference) if "/" not in where and "@" not in where else None
    login, at, host = where.rpartition("@")
    if not at:
        if scheme == "swift":
            scheme = "swift+https"
        return Place(container, name, storage=f"{scheme.removeprefix('swift+')}://{host.rstrip('/')}")
    project, user = _project(login)
    try:
        return Place(container, name, auth=comparable(host), project=project) if user else None
    except ValueError:  # a bracket that is no address
        return None


def _plain(part: str) -> bool:
    return part not in ("", ".", "..") and "/" not in part and part.isprintable()


def _project(login: str) -> tuple[str | None, str]:
    """(project, user) of the login in an old URL: `project%3Auser:key` or `project:user:key`."""
    parts = login.split(":")
    if len(parts) == 2 and "%3A" in parts[0].upper():
        parts = unquote(parts[0]).split(":", 1) + parts[1:]
    if len(parts) < 3:
        return None, unquote(parts[0])
    return unquote(parts[0]), unquote(parts[1])


def comparable(address: str) -> str:
    """Keystone's address so that two spellings of it are equal: host, port and path without scheme and version."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    path = re.sub(r"/v(2[.]0|3)\Z", "", parts.path.rstrip("/"))
    return f"{parts.netloc.rpartition('@')[2].lower()}{path}"


def storage_url(storage: str, container: str, name: str) -> str:
    """The URL of an object in the account of its uploader."""
    return f"swift+{storage}/{container}/{name}"
