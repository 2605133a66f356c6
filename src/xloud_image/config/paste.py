"""What a deployer's pipeline does that this service does not: filters of a paste file run inside of Glance, and none
of them is loaded here. Those whose work is done here in another way are known; the others are named to the operator.
"""

from __future__ import annotations

import configparser
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from xloud_image.config.values import Values

FILE: Final = "glance-api-paste.ini"
_LARGEST: Final = 1 << 20  # bytes that are read of it
# filters and applications of Glance and of the libraries that it is shipped with
_KNOWN: Final = frozenset(
    {"cors", "healthcheck", "http_proxy_to_wsgi", "versionnegotiation", "osprofiler", "authtoken", "context",
     "unauthenticated-context", "cache", "cachemanage", "gzip", "sizelimit", "ssl", "request_id", "rootapp", "apiv2app",
     "apiversions"}
)  # fmt: skip
_WORDS: Final = {"audit": "audit records (CADF) are not written; notifications tell of every change"}


def tell(values: Values) -> None:
    """Warn of filters in the pipeline that Glance would run with this flavor."""
    written = next(
        (line.value for line in values.lines if (line.group, line.name) == ("paste_deploy", "config_file")), ""
    )
    file = values.beside(written.strip() or FILE)
    if file is None:
        return
    flavor = (values.get("paste_deploy", "flavor") or "").strip()
    missing = [name for name in _filters(file, flavor) if name not in _KNOWN]
    if missing:
        why = "; ".join(_WORDS[name] for name in missing if name in _WORDS)
        text = f"{file} has filters that do nothing here: {', '.join(missing)[:200]}{f' ({why})' if why else ''}"
        values.guess(text, "paste_deploy", "flavor")


def _filters(file: Path, flavor: str) -> list[str]:
    """Names in the pipeline of a flavor, each once; none of a file that cannot be read: nothing else reads it here."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), default_section="\0")
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            parser.read_string(lines.read(_LARGEST))
    except (OSError, configparser.Error):
        return []
    # `[pipeline:glance-api-FLAVOR] pipeline = …`, and since 2023 `[composite:api] FLAVOR = …`
    section = f"pipeline:glance-api{f'-{flavor}' if flavor else ''}"
    texts = (
        parser.get(section, "pipeline", fallback=""),
        parser.get("composite:api", flavor.lower() or "default", fallback=""),
    )
    return [*dict.fromkeys(itertools.chain.from_iterable(text.split() for text in texts))]
