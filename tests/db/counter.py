"""One of several processes that count in the same image: URL IMAGE PROPERTY TIMES."""

import asyncio
import sys

from tests.db.test_races import adds
from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import images
from xloud_image.db.engine import Database


async def main(url: str, image_id: str, name: str, times: str) -> None:
    db = Database(DatabaseSettings(connection=url))
    await db.start()
    for _ in range(int(times)):
        await db.write(lambda conn: images.change(conn, image_id, adds(name)))
    await db.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
