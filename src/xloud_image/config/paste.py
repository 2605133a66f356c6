"""What a deployer's pipeline does: filters of a paste file run inside of Glance, and none of them is loaded here. Those
whose work is done here in another way are known; the others are named to the operator. The options of one that is
switched on by its place in the pipeline are read by whoever does its work.
"""

from __future__ import annotations

import configparser
import dataclasses
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xloud_image.config.findings import Kind

if TYPE_CHECKING:
    from xloud_image.config.values import Values

FILE: Final = "glance-api-paste.ini"
AUDIT: Final = "audit"
_LARGEST: Final = 1 << 20  # bytes that are read of it
_AUDIT_CODE: Final = "keystonemiddleware.audit"
_AUDIT_EGG: Final = "egg:keystonemiddleware#audit"
# packages of filters that Glance is shipped with
_SHIPPED: Final = frozenset({"glance", "keystonemiddleware", "oslo_middleware", "osprofiler"})
# filters and applications of Glance and of the libraries that it is shipped with
_KNOWN: Final = frozenset(
    {"cors", "healthcheck", "http_proxy_to_wsgi", "versionnegotiation", "osprofiler", "authtoken", "context",
     "unauthenticated-context", "cache", "cachemanage", "gzip", "sizelimit", "ssl", "request_id", "rootapp", "apiv2app",
     "apiversions"}
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Filter:
    """A filter in the pipeline, and what its section says to it."""

    file: Path
    name: str
    options: Mapping[str, str]

    @property
    def is_audit(self) -> bool:
        """Whether it is keystonemiddleware's, under whichever name."""
        if self.code.startswith((_AUDIT_CODE, _AUDIT_EGG)):
            return True
        return self.name == AUDIT and self.is_shipped

    @property
    def code(self) -> str:
        """What it is made by: package.module:function, or egg:distribution#name, which may stand in the pipeline
        itself; "" where nothing says so."""
        found = (self.options.get(name, "") for name in ("paste.filter_factory", "paste.filter_app_factory", "use"))
        return next((code for code in found if code), self.name if self.name.startswith(("egg:", "config:")) else "")

    @property
    def is_shipped(self) -> bool:
        """Whether its code comes with Glance."""
        package = re.split(r"[.:#]", self.code.removeprefix("egg:").replace("oslo.", "oslo_"), maxsplit=1)[0]
        return not self.code or package in _SHIPPED


def tell(values: Values) -> tuple[Filter, ...]:
    """The filters that Glance would run with this flavor. Warns of those that do nothing here.

    Code that does not come with OpenStack may keep callers out, which nobody here can know: with it the service starts
    only where [xloud] auth says how callers are let in here.
    """
    written = next(
        (line.value for line in values.lines if (line.group, line.name) == ("paste_deploy", "config_file")), ""
    )
    file = values.beside(written.strip() or FILE)
    if file is None:
        return ()
    flavor = (values.get("paste_deploy", "flavor") or "").strip()
    found = _filters(file, flavor)
    foreign = [f"{one.name} ({one.code})" for one in found if not one.is_shipped]
    missing = [one for one in found if not one.is_shipped or (one.name not in _KNOWN and not one.is_audit)]
    if foreign and not values.get("xloud", "auth"):
        text = (
            f"{file} runs code that is not run here and may keep callers out: {', '.join(foreign)[:200]}; to do without"
            " it write [xloud] auth = keystone, which Glance does not read"
        )
        values.refuse(text, "paste_deploy", "flavor", Kind.UNSAFE)
    elif missing:
        text = f"{file} has filters that do nothing here: {', '.join(one.name for one in missing)[:200]}"
        values.guess(text, "paste_deploy", "flavor")
    return found


def _filters(file: Path, flavor: str) -> tuple[Filter, ...]:
    """The pipeline of a flavor, each once; nothing of a file that cannot be read: nothing else reads it here."""
    # places of applications are written `/v2: NAME`, and flavors may have colons
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), default_section="\0", allow_no_value=True)
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            parser.read_string(lines.read(_LARGEST))
    except (OSError, configparser.Error):
        return ()
    # `[pipeline:glance-api-FLAVOR] pipeline = …`, and since 2023 `[composite:api] FLAVOR = …`
    section = f"pipeline:glance-api{f'-{flavor}' if flavor else ''}"
    texts = (
        parser.get(section, "pipeline", fallback="") or "",
        parser.get("composite:api", flavor.lower() or "default", fallback="") or "",
    )
    names = dict.fromkeys(itertools.chain.from_iterable(text.split() for text in texts))
    return tuple(Filter(file, name, _options(parser, file, name)) for name in names)


def _options(parser: configparser.RawConfigParser, file: Path, name: str) -> dict[str, str]:
    """What is said to all, and to this one; paste knows %(here)s, the directory of the file."""
    said = {**_section(parser, "DEFAULT"), **_section(parser, f"filter:{name}")}
    return {key: value.replace("%(here)s", str(file.parent.absolute())).strip() for key, value in said.items()}


def _section(parser: configparser.RawConfigParser, name: str) -> dict[str, str]:
    return {key: value or "" for key, value in parser.items(name)} if parser.has_section(name) else {}
