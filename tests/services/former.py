"""A database that a Glance left, with rows as it writes them or as nobody should, and our service on it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import uuid
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.db.conftest import tables_of_glance
from tests.servers.process import run
from tests.servers.service import Service, command
from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import connect

ENGINES = ("sqlite", "postgresql", "mariadb")
AT = "'2025-03-01 10:00:00'"


class Former:
    """A database that a Glance filled, and our service on it."""

    def __init__(self, engine: str, connection: str, directory: Path, collation: str = "utf8mb3_general_ci") -> None:
        """`collation`: of the tables, on MariaDB."""
        self.engine = engine
        self.settings = DatabaseSettings(connection=connection, max_retries=0)
        self.service = Service({"database": {"connection": connection}}, directory=directory)
        self.service.images.mkdir()
        kept = f"CHARSET={collation.partition('_')[0]} COLLATE={collation}"
        usual = "CHARSET=utf8mb3 COLLATE=utf8mb3_general_ci"
        self.sql(*[statement.replace(usual, kept) for statement in tables_of_glance(engine)])

    def sql(self, *statements: str) -> list[Any]:
        async def run() -> list[Any]:
            engine = connect.engine(self.settings, poolclass=sa.NullPool)
            rows: list[Any] = []
            async with engine.connect() as conn:
                for statement in statements:
                    result = await conn.exec_driver_sql(statement)
                    rows = list(result.fetchall()) if result.returns_rows else []
            await engine.dispose()
            return rows

        return asyncio.run(run())

    def image(self, status: str = "active", *, size: int | None = 3, owner: str | None = "p", data: bool = True) -> str:
        """A row as Glance writes it, with its file."""
        image = str(uuid.uuid4())
        no = "false" if self.engine == "postgresql" else "0"
        who = f"'{owner}'" if owner else "NULL"
        self.sql(
            "INSERT INTO images (id, name, size, status, created_at, updated_at, deleted, disk_format,"
            " container_format, owner, min_disk, min_ram, protected, visibility, os_hidden) VALUES"
            f" ('{image}', 'one', {size or 'NULL'}, '{status}', {AT}, {AT}, {no}, 'raw', 'bare', {who}, 0, 0,"
            f" {no}, 'shared', {no})"
        )
        if data:
            (self.service.images / image).write_bytes(b"abc")
            self.location(image, f"file://{self.service.images / image}")
        return image

    def location(self, image: str, url: str, status: str = "active", metadata: str = '{"store": "files"}') -> None:
        no = "false" if self.engine == "postgresql" else "0"
        self.sql(
            "INSERT INTO image_locations (image_id, value, created_at, updated_at, deleted, meta_data, status) VALUES"
            f" ('{image}', '{url}', {AT}, {AT}, {no}, '{metadata}', '{status}')"
        )

    def property(self, image: str, name: str, value: str) -> None:
        no = "false" if self.engine == "postgresql" else "0"
        self.sql(
            "INSERT INTO image_properties (image_id, name, value, created_at, updated_at, deleted) VALUES"
            f" ('{image}', '{name}', '{value}', {AT}, {AT}, {no})"
        )

    def task(self, image: str) -> str:
        task = str(uuid.uuid4())
        no = "false" if self.engine == "postgresql" else "0"
        self.sql(
            "INSERT INTO tasks (id, type, status, owner, created_at, updated_at, deleted, image_id) VALUES"
            f" ('{task}', 'api_image_import', 'processing', 'p', {AT}, {AT}, {no}, '{image}')",
            f"INSERT INTO task_info (task_id, input, result, message) VALUES ('{task}', '{{}}', NULL, '')",
        )
        return task

    def status(self, image: str) -> str:
        return str(self.sql(f"SELECT status FROM images WHERE id = '{image}'")[0][0])

    def run_in_directory(self, *words: str) -> str:
        """`xloud-image <words> --config-dir …`; the configuration is a directory."""
        return run([*command(), *words, "--config-dir", self.service.configuration], seconds=60)

    def check(self, *, directory: bool = False) -> dict[str, Any]:
        """What `takeover check --json` says, whatever its exit code. `directory`: the configuration is one."""
        option = "--config-dir" if directory else "--config-file"
        words = [*command(), "takeover", "check", "--json", option, str(self.service.configuration)]
        done = subprocess.run(
            words, cwd=self.service.directory, capture_output=True, text=True, timeout=120, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        text = done.stdout
        assert text, done.stderr
        found: dict[str, Any] = json.loads(text[text.index("{") : text.rindex("}") + 1])
        return found

    def tables(self) -> set[str]:
        async def names() -> set[str]:
            engine = connect.engine(self.settings, poolclass=sa.NullPool)
            async with engine.connect() as conn:
                found = await conn.run_sync(lambda bind: set(sa.inspect(bind).get_table_names()))
            await engine.dispose()
            return found

        return asyncio.run(names())


def sentences(report: dict[str, Any], severity: str) -> str:
    return "\n".join(one["sentence"] for one in report["findings"] if one["severity"] == severity)
