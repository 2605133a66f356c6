"""What the service says when it starts about stores that cannot be used; none of them keeps it from starting."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.servers.service import Service


def said(service: Service, words: str, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while words not in service.log and time.monotonic() < end:
        time.sleep(0.05)
    return words in service.log


def test_a_store_that_cannot_be_used_is_told_at_the_start(service: Callable[..., Service], tmp_path: Path) -> None:
    (tmp_path / "images").touch()
    sections: dict[str, dict[str, Any]] = {
        "DEFAULT": {"enabled_backends": "files:file, other:file"},
        "other": {"filesystem_store_datadir": tmp_path / "images"},
    }
    one = service(sections)
    assert said(one, 'event="a store cannot be used now"')
    (line,) = (line for line in one.log.splitlines() if "a store cannot be used now" in line)
    assert "store=other" in line
    assert f"{tmp_path}/images is not a directory" in line
    assert one.request("GET", "/healthcheck").status == 200
