"""What an operator allows whoever fetches: where URLs may lead, and how much, how fast and how often. Data only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from xloud_image.stores.kit.filters import UrlFilters


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """`filters` count always, also those that stand in no file (upstream's: http and https, ports 80 and 443).
    `proxies` by the scheme of what is asked through them; `ca_file` wins over `insecure`."""

    filters: UrlFilters = dataclasses.field(default_factory=UrlFilters)
    ca_file: str | None = None
    insecure: bool = False
    proxies: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Memory of one resource that is read: `connections` times (`window` + 256 KiB), 33 MiB as it stands here."""

    size: int = 1 << 40  # bytes that a file may have at most (image_size_cap)
    connections: int = 4  # of one resource, where its server gives ranges
    window: int = 8 << 20  # bytes that a connection asks for at a time
    connect: float = 10.0  # seconds for a look-up, and again for a connection
    first_byte: float = 60.0  # seconds until the headers of an answer have come
    silence: float = 60.0  # seconds without a byte
    rate: int = 1024  # bytes a second that a connection has to bring, 0: any number; looked at over the next
    rate_seconds: float = 60.0
    retries: int = 5  # times that one window is asked for again, or an opening
    pause: float = 1.0  # seconds before the first of them; twice as long before each further one, half a minute at most
