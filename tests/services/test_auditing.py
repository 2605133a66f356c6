"""The journal of calls while the database is away: nobody waits for longer than it takes to fail."""

import asyncio
import time

import pytest

from tests.servers.place import HOST, free_port
from xloud_image.audit import Caller
from xloud_image.config.settings import AuditSettings, DatabaseSettings
from xloud_image.db.engine import Database
from xloud_image.errors import DatabaseUnavailable
from xloud_image.services.auditing import Journal


async def test_calls_behind_many_that_wait_fail_as_well() -> None:
    url = f"postgresql://nobody@{HOST}:{free_port()}/nothing"
    database = Database(DatabaseSettings(connection=url, max_retries=0))

    async def catalogue() -> list[dict[str, object]]:
        return []

    journal = Journal(database, AuditSettings(drivers=("messagingv2",)), catalogue)
    journal.start()
    caller = Caller()
    for _ in range(700):
        assert await journal.begin("GET", "/v2/images", "", caller) is not None
    begun = time.monotonic()
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            async with asyncio.timeout(30):
                await journal.begin("POST", "/v2/images", "", caller)
    assert time.monotonic() - begun < 30
    await journal.aclose()
    await database.aclose()
