"""Which URLs of web servers may be registered or imported, by the operator's lists. Where they lead: the http store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from xloud_image.errors import BadRequest
from xloud_image.fetching.checksums import Expected, published
from xloud_image.fetching.fetcher import Fetcher
from xloud_image.fetching.rules import Limits, Rules
from xloud_image.services.runtime import Runtime
from xloud_image.stores.kit import answers
from xloud_image.stores.kit.addresses import Filters

_RATE: Final = 16 * 1024  # bytes a second that each connection has to bring: places for imports are few


def require_allowed(runtime: Runtime, url: str) -> None:
    """`BadRequest` when [import_filtering_opts] refuses an http or https URL; others are not judged here."""
    parsed = answers.parsed(url)
    if parsed is not None:
        Filters(runtime.settings.url_filters).require(parsed)


def fetcher(runtime: Runtime, *, ca_file: str | None = None, insecure: bool = False) -> Fetcher:
    """The way to URLs that data is imported from; enter it."""
    limits = Limits(size=runtime.settings.limits.image_size_cap, rate=_RATE)
    return Fetcher(Rules(filters=runtime.settings.url_filters, ca_file=ca_file, insecure=insecure), limits)


def require_importable(runtime: Runtime, details: Mapping[str, Any], *, trusted: bool) -> None:
    """`BadRequest` for what nothing can be imported from: its URL, or a checksum that none can have."""
    way = fetcher(runtime)
    for name in ("uri", "checksums_uri", "signature_uri"):
        if name in details:
            way.require(details[name], trusted=trusted)
    if ("os_hash_algo" in details) != ("os_hash_value" in details):
        raise BadRequest("'os_hash_algo' and 'os_hash_value' belong together.")
    if "os_hash_algo" in details:
        Expected(details["os_hash_algo"], details["os_hash_value"])
    if "signature_uri" in details and "checksums_uri" not in details:
        raise BadRequest("'signature_uri' is of the file at 'checksums_uri', which is not named.")


async def require_reachable(runtime: Runtime, url: str, *, trusted: bool) -> None:
    """`BadRequest` for a URL that may not be asked, or whose host has no address now."""
    async with fetcher(runtime) as way:
        await way.look_up(url, trusted=trusted)


async def expected(runtime: Runtime, way: Fetcher, details: Mapping[str, Any], *, trusted: bool) -> list[Expected]:
    """The digests that the file at 'uri' must have: those that were given, and what its vendor published."""
    found = [Expected(details["os_hash_algo"], details["os_hash_value"])] if "os_hash_algo" in details else []
    if "checksums_uri" in details:
        keyring = runtime.settings.imports.checksums_keyring
        told = await published(
            way,
            details["checksums_uri"],
            of=details["uri"],
            trusted=trusted,
            signature=details.get("signature_uri"),
            keyring=Path(keyring) if keyring else None,
        )
        found.append(told)
    return found
