"""The http store as a type: its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from oslo_config import cfg

from xloud_image.stores.store_type import Section, StoreType


class _Http(StoreType):
    def settle(self, section: Section) -> Mapping[str, Any]:
        if not section.is_set("https_insecure"):
            text = "is not set: certificates are verified (Glance does not verify them unless told to)"
            section.guess(text, "https_insecure")
        return {"url_filters": section.url_filters}


HTTP: Final = _Http(
    name="http",
    store="xloud_image.stores.http.store:HttpStore",
    schemes=("http", "https"),
    takes_data=False,
    options=(
        # Upstream's default is True: TLS not verified. Ours verifies, and the loader says so.
        cfg.BoolOpt("https_insecure", default=False, help="Do not verify TLS."),
        cfg.StrOpt("https_ca_certificates_file", help="CA file; wins over https_insecure."),
        # secret: a proxy's name and password may be in it
        cfg.DictOpt("http_proxy_information", default={}, secret=True, help="scheme:proxy pairs."),
    ),
    switch="glance_backend_http",
)
