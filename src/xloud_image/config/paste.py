"""What a deployer's pipeline does that this service does not: filters of a paste file run inside of Glance, and none
of them is loaded here. Those whose work is done here in another way are known; the others are named to the operator.
"""

from __future__ import annotations

import configparser
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xloud_image.config.findings import Kind

if TYPE_CHECKING:
    from xloud_image.config.values import Values

FILE: Final = "glance-api-paste.ini"
_LARGEST: Final = 1 << 20  # bytes that are read of it
# packages of filters that Glance is shipped with
_SHIPPED: Final = frozenset({"glance", "keystonemiddleware", "oslo_middleware", "osprofiler"})
# filters and applications of Glance and of the libraries that it is shipped with
_KNOWN: Final = frozenset(
    {"cors", "healthcheck", "http_proxy_to_wsgi", "versionnegotiation", "osprofiler", "authtoken", "context",
     "unauthenticated-context", "cache", "cachemanage", "gzip", "sizelimit", "ssl", "request_id", "rootapp", "apiv2app",
     "apiversions"}
)  # fmt: skip
_WORDS: Final = {"audit": "audit records (CADF) are not written; notifications tell of every change"}


def tell(values: Values) -> None:
    """Warn of filters in the pipeline that Glance would run with this flavor.

    Code that does not come with OpenStack may keep callers out, which nobody here can know: with it the service starts
    only where [xloud] auth says how callers are let in here.
    """
    written = next(
        (line.value for line in values.lines if (line.group, line.name) == ("paste_deploy", "config_file")), ""
    )
    file = values.beside(written.strip() or FILE)
    if file is None:
        return
    parser = _read(file)
    flavor = (values.get("paste_deploy", "flavor") or "").strip()
    missing = [name for name in _filters(parser, flavor) if name not in _KNOWN]
    foreign = [f"{name} ({code})" for name in missing if (code := _code(parser, name)) and not _is_shipped(code)]
    if foreign and not values.get("xloud", "auth"):
        text = (
            f"{file} runs code that is not run here and may keep callers out: {', '.join(foreign)[:200]}; to do without"
            " it write [xloud] auth = keystone, which Glance does not read"
        )
        values.refuse(text, "paste_deploy", "flavor", Kind.UNSAFE)
    elif missing:
        why = "; ".join(_WORDS[name] for name in missing if name in _WORDS)
        text = f"{file} has filters that do nothing here: {', '.join(missing)[:200]}{f' ({why})' if why else ''}"
        values.guess(text, "paste_deploy", "flavor")


def _read(file: Path) -> configparser.RawConfigParser:
    """A paste file; nothing of one that cannot be read: nothing else reads it here."""
    # without values: the composites of Glance's own file have lines like `/: api`
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), default_section="\0", allow_no_value=True)
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            parser.read_string(lines.read(_LARGEST))
    except (OSError, configparser.Error):
        parser.clear()
    return parser


def _filters(parser: configparser.RawConfigParser, flavor: str) -> list[str]:
    """Names in the pipeline of a flavor, each once."""
    # `[pipeline:glance-api-FLAVOR] pipeline = …`, and since 2023 `[composite:api] FLAVOR = …`
    section = f"pipeline:glance-api{f'-{flavor}' if flavor else ''}"
    texts = (
        parser.get(section, "pipeline", fallback=""),
        parser.get("composite:api", flavor.lower() or "default", fallback=""),
    )
    return [*dict.fromkeys(itertools.chain.from_iterable(text.split() for text in filter(None, texts)))]


def _code(parser: configparser.RawConfigParser, name: str) -> str:
    """What a filter is made by: package.module:function, or egg:distribution#name; "" where nothing says so."""
    section = f"filter:{name}"
    for option in ("paste.filter_factory", "paste.filter_app_factory", "use"):
        if found := parser.get(section, option, fallback=""):
            return str(found).strip()
    return ""


def _is_shipped(code: str) -> bool:
    return re.split(r"[.:#]", code.removeprefix("egg:").replace("oslo.", "oslo_"), maxsplit=1)[0] in _SHIPPED
