"""Which URLs of web servers may be registered, by the operator's lists. Where they may lead: the http store."""

from __future__ import annotations

from xloud_image.services.runtime import Runtime
from xloud_image.stores.kit import answers
from xloud_image.stores.kit.addresses import Filters


def require_allowed(runtime: Runtime, url: str) -> None:
    """`BadRequest` when [import_filtering_opts] refuses an http or https URL; others are not judged here."""
    parsed = answers.parsed(url)
    if parsed is not None:
        Filters(runtime.settings.url_filters).require(parsed)
