"""Which URLs of web servers may be registered or imported, by the operator's lists. Where they lead: the http store."""

from __future__ import annotations

import dataclasses

from xloud_image.errors import BadRequest
from xloud_image.services.runtime import Runtime
from xloud_image.stores.kit import answers
from xloud_image.stores.kit.addresses import Filters


def require_allowed(runtime: Runtime, url: str) -> None:
    """`BadRequest` when [import_filtering_opts] refuses an http or https URL; others are not judged here."""
    parsed = answers.parsed(url)
    if parsed is not None:
        Filters(runtime.settings.url_filters).require(parsed)


def require_importable(runtime: Runtime, url: str) -> None:
    """`BadRequest` for a URL that nothing is imported from; here the lists count with their defaults as well."""
    parsed = answers.parsed(url)
    if parsed is None:
        raise BadRequest("'uri' is no http or https URL.")
    Filters(dataclasses.replace(runtime.settings.url_filters, chosen=True)).require(parsed)
