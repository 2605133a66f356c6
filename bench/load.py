"""Fills a database with images by statements that run inside MariaDB: a million takes about two minutes.

The rows are the same for the same count and owner, whatever service the tables belong to.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.servers.mariadb import MariaDB

# another number when the rows change: databases that stay are then filled anew
VERSION = 4
BATCH = 100_000

# Image n is made from md5(n). Three images share each second. Of ten images one belongs to the given owner, the
# others to 997 projects; of twenty one is public, one community, two private, the rest shared. The owner accepted
# twenty shared ones among the first thousand, and then one of each five thousand.
_OWNER = "if(seq % 10 = 0, '{owner}', md5(concat('project', seq % 997)))"
_VISIBILITY = (
    "case seq % 20 when 1 then 'public' when 2 then 'community' when 3 then 'private' "
    "when 10 then 'private' else 'shared' end"
)

# rows go in by their ids, as otherwise each of them reads and writes another page of each index
_IDS = (
    "create table bench_ids (n int primary key auto_increment, seq int, id char(36) character set utf8mb3, t datetime) "
    "select seq, concat_ws('-', substr(h, 1, 8), substr(h, 9, 4), substr(h, 13, 4), substr(h, 17, 4), "
    "substr(h, 21, 12)) as id, timestamp('2024-01-01') + interval (seq div 3) * 40 second as t "
    "from (select seq, md5(seq) as h from seq_1_to_{count}) hashed order by id"
)
_STATEMENTS = (
    "insert into images (id, name, disk_format, container_format, size, virtual_size, status, visibility, "
    "checksum, os_hash_algo, os_hash_value, min_disk, min_ram, owner, protected, os_hidden, created_at, "
    "updated_at, deleted) "
    "select id, concat('image-', seq), if(seq % 4, 'qcow2', 'raw'), 'bare', 1073741824, 10737418240, "
    f"'active', {_VISIBILITY}, md5(id), 'sha512', sha2(id, 512), 0, 0, {_OWNER}, 0, 0, t, t, 0 "
    "from bench_ids where {batch} order by n",
    "insert into image_properties (image_id, name, value, created_at, updated_at, deleted) "
    "select id, p.name, case p.name when 'os_distro' then elt(1 + seq % 5, 'debian', 'ubuntu', 'rocky', "
    "'suse', 'windows') when 'build' then concat('b', seq % 100) else 'virtio' end, t, t, 0 "
    "from bench_ids join (select 'os_distro' as name union select 'build' union select 'hw_disk_bus') p "
    "where {batch} order by n",
    "insert into image_tags (image_id, value, created_at, updated_at, deleted) "
    "select id, if(g.k, 'bench', concat('t', seq % 50)), t, t, 0 "
    "from bench_ids join (select 0 as k union select 1) g where {batch} order by n",
    "insert into image_locations (image_id, value, meta_data, status, created_at, updated_at, deleted) "
    "select id, concat('file:///nowhere/', id), '{{\"store\": \"store1\"}}', 'active', t, t, 0 "
    "from bench_ids where {batch} order by n",
    "insert into image_members (image_id, member, can_share, status, created_at, updated_at, deleted) "
    "select id, '{owner}', 0, 'accepted', t, t, 0 "
    # as many memberships in a small table as in a large one: a project pays for its own number, not the table's
    "from bench_ids where {batch} and seq % 50 = 7 and seq < 1000 order by n",
)
_TABLES = ("images", "image_properties", "image_tags", "image_locations", "image_members")


def fill(mariadb: MariaDB, database: str, count: int, owner: str) -> None:
    """Add `count` images, every tenth of them the project `owner`'s, and let MariaDB look at them."""
    before = "set session unique_checks = 0, foreign_key_checks = 0; "
    mariadb.sql("drop table if exists bench_ids", database)
    mariadb.sql(_IDS.format(count=count), database)
    try:
        for statement in _STATEMENTS:
            for first in range(1, count + 1, BATCH):
                batch = f"n between {first} and {first + BATCH - 1}"
                mariadb.sql(before + statement.format(owner=owner, batch=batch), database)
    finally:
        mariadb.sql("drop table bench_ids", database)
    mariadb.sql("analyze table " + ", ".join(_TABLES), database)


def queued(mariadb: MariaDB, database: str, images: Iterable[str], owner: str) -> None:
    """Add queued images with these ids, ready for an upload."""
    rows = ", ".join(
        f"('{image}', 'bench', 'raw', 'bare', 'queued', 'private', '{owner}', 0, 0, 0, 0, now(), now(), 0)"
        for image in images
    )
    mariadb.sql(
        "insert into images (id, name, disk_format, container_format, status, visibility, owner, min_disk, "
        f"min_ram, protected, os_hidden, created_at, updated_at, deleted) values {rows}",
        database,
    )


def image_id(number: int) -> str:
    """The id of image `number`."""
    return str(uuid.UUID(hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()))
