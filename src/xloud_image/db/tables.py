"""The tables: those of a running Glance exactly, ours beside them, and our removable indexes. No query is made here.

`glance` holds what Glance 2024.1 and later has (its migration head is GLANCE_HEAD); `own` holds what only we read.
Reads are written as text (`sql.py`) and writes with these tables.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

GLANCE_HEAD: Final = "2024_1_contract01"
VERSION_TABLE: Final = "xloud_alembic_version"

glance = sa.MetaData()
own = sa.MetaData()

_GLANCE: Final[dict[str, Any]] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb3"}
_OWN: Final[dict[str, Any]] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Instant = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")  # ours keep microseconds
Flag = sa.Boolean(create_constraint=False)
Visibility = sa.Enum(
    "private",
    "public",
    "shared",
    "community",
    name="image_visibility",
    metadata=glance,
    create_constraint=False,
)


def _times(deleted: bool = False) -> list[sa.Column[Any]]:
    columns: list[sa.Column[Any]] = [
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime),
    ]
    if deleted:
        columns += [sa.Column("deleted_at", sa.DateTime), sa.Column("deleted", Flag, nullable=False)]
    return columns


def _image_id() -> sa.Column[str]:
    return sa.Column("image_id", sa.String(36), sa.ForeignKey("images.id"), nullable=False)


images = sa.Table(
    "images",
    glance,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(255)),
    sa.Column("size", Big),
    sa.Column("status", sa.String(30), nullable=False),
    *_times(deleted=True),
    sa.Column("disk_format", sa.String(20)),
    sa.Column("container_format", sa.String(20)),
    sa.Column("checksum", sa.String(32)),
    sa.Column("owner", sa.String(255)),
    sa.Column("min_disk", sa.Integer, nullable=False),
    sa.Column("min_ram", sa.Integer, nullable=False),
    sa.Column("protected", Flag, nullable=False, server_default=sa.false()),
    sa.Column("virtual_size", Big),
    sa.Column("visibility", Visibility, nullable=False, server_default="shared"),
    sa.Column("os_hidden", Flag, nullable=False, server_default=sa.false()),
    sa.Column("os_hash_algo", sa.String(64)),
    sa.Column("os_hash_value", sa.String(128)),
    sa.Index("checksum_image_idx", "checksum"),
    sa.Index("visibility_image_idx", "visibility"),
    sa.Index("ix_images_deleted", "deleted"),
    sa.Index("owner_image_idx", "owner"),
    sa.Index("created_at_image_idx", "created_at"),
    sa.Index("updated_at_image_idx", "updated_at"),
    sa.Index("os_hidden_image_idx", "os_hidden"),
    sa.Index("os_hash_value_image_idx", "os_hash_value"),
    **_GLANCE,
)

image_properties = sa.Table(
    "image_properties",
    glance,
    sa.Column("id", sa.Integer, primary_key=True),
    _image_id(),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("value", sa.Text),
    *_times(deleted=True),
    sa.UniqueConstraint("image_id", "name", name="ix_image_properties_image_id_name"),
    sa.Index("ix_image_properties_image_id", "image_id"),
    sa.Index("ix_image_properties_deleted", "deleted"),
    **_GLANCE,
)

image_tags = sa.Table(
    "image_tags",
    glance,
    sa.Column("id", sa.Integer, primary_key=True),
    _image_id(),
    sa.Column("value", sa.String(255), nullable=False),
    *_times(deleted=True),
    sa.Index("ix_image_tags_image_id", "image_id"),
    sa.Index("ix_image_tags_image_id_tag_value", "image_id", "value"),
    **_GLANCE,
)

image_locations = sa.Table(
    "image_locations",
    glance,
    sa.Column("id", sa.Integer, primary_key=True),
    _image_id(),
    sa.Column("value", sa.Text, nullable=False),
    *_times(deleted=True),
    sa.Column("meta_data", sa.Text),
    sa.Column("status", sa.String(30), nullable=False, server_default="active"),
    sa.Index("ix_image_locations_image_id", "image_id"),
    sa.Index("ix_image_locations_deleted", "deleted"),
    **_GLANCE,
)

image_members = sa.Table(
    "image_members",
    glance,
    sa.Column("id", sa.Integer, primary_key=True),
    _image_id(),
    sa.Column("member", sa.String(255), nullable=False),
    sa.Column("can_share", Flag, nullable=False),
    *_times(deleted=True),
    sa.Column("status", sa.String(20), nullable=False, server_default="pending"),
    sa.UniqueConstraint("image_id", "member", "deleted_at", name="image_members_image_id_member_deleted_at_key"),
    sa.Index("ix_image_members_deleted", "deleted"),
    sa.Index("ix_image_members_image_id", "image_id"),
    sa.Index("ix_image_members_image_id_member", "image_id", "member"),
    **_GLANCE,
)

tasks = sa.Table(
    "tasks",
    glance,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("type", sa.String(30), nullable=False),
    sa.Column("status", sa.String(30), nullable=False),
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("expires_at", sa.DateTime),
    *_times(deleted=True),
    sa.Column("image_id", sa.String(36)),
    sa.Column("request_id", sa.String(64)),
    sa.Column("user_id", sa.String(64)),
    sa.Index("ix_tasks_type", "type"),
    sa.Index("ix_tasks_status", "status"),
    sa.Index("ix_tasks_owner", "owner"),
    sa.Index("ix_tasks_deleted", "deleted"),
    sa.Index("ix_tasks_image_id", "image_id"),
    sa.Index("ix_tasks_updated_at", "updated_at"),
    **_GLANCE,
)

task_info = sa.Table(
    "task_info",
    glance,
    sa.Column("task_id", sa.String(36), sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("input", sa.Text),
    sa.Column("result", sa.Text),
    sa.Column("message", sa.Text),
    **_GLANCE,
)

node_reference = sa.Table(
    "node_reference",
    glance,
    sa.Column("node_reference_id", Big, primary_key=True, autoincrement=True),
    sa.Column("node_reference_url", sa.String(255), nullable=False),
    sa.UniqueConstraint("node_reference_url", name="uq_node_reference_node_reference_url"),
    **_GLANCE,
)

cached_images = sa.Table(
    "cached_images",
    glance,
    sa.Column("id", Big, primary_key=True, autoincrement=True),
    sa.Column("image_id", sa.String(36), nullable=False),
    sa.Column("last_accessed", sa.DateTime, nullable=False),
    sa.Column("last_modified", sa.DateTime, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("hits", sa.Integer, nullable=False),
    sa.Column("checksum", sa.String(32)),
    sa.Column("node_reference_id", Big, sa.ForeignKey("node_reference.node_reference_id"), nullable=False),
    sa.UniqueConstraint("image_id", "node_reference_id", name="ix_cached_images_image_id_node_reference_id"),
    **_GLANCE,
)

metadef_namespaces = sa.Table(
    "metadef_namespaces",
    glance,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("namespace", sa.String(80), nullable=False),
    sa.Column("display_name", sa.String(80)),
    sa.Column("description", sa.Text),
    sa.Column("visibility", sa.String(32)),
    sa.Column("protected", Flag),
    sa.Column("owner", sa.String(255), nullable=False),
    *_times(),
    sa.UniqueConstraint("namespace", name="uq_metadef_namespaces_namespace"),
    sa.Index("ix_metadef_namespaces_owner", "owner"),
    **_GLANCE,
)


def _in_namespace(name: str, *columns: sa.Column[Any]) -> sa.Table:
    return sa.Table(
        f"metadef_{name}",
        glance,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("namespace_id", sa.Integer, sa.ForeignKey("metadef_namespaces.id"), nullable=False),
        sa.Column("name", sa.String(80), nullable=False),
        *columns,
        *_times(),
        sa.UniqueConstraint("namespace_id", "name", name=f"uq_metadef_{name}_namespace_id_name"),
        sa.Index(f"ix_metadef_{name}_name", "name"),
        **_GLANCE,
    )


metadef_objects = _in_namespace(
    "objects",
    sa.Column("description", sa.Text),
    sa.Column("required", sa.Text),
    sa.Column("json_schema", sa.Text, nullable=False),
)
metadef_properties = _in_namespace("properties", sa.Column("json_schema", sa.Text, nullable=False))
metadef_tags = _in_namespace("tags")

metadef_resource_types = sa.Table(
    "metadef_resource_types",
    glance,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(80), nullable=False),
    sa.Column("protected", Flag, nullable=False),
    *_times(),
    sa.UniqueConstraint("name", name="uq_metadef_resource_types_name"),
    **_GLANCE,
)

metadef_namespace_resource_types = sa.Table(
    "metadef_namespace_resource_types",
    glance,
    sa.Column(
        "resource_type_id",
        sa.Integer,
        sa.ForeignKey("metadef_resource_types.id"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column(
        "namespace_id",
        sa.Integer,
        sa.ForeignKey("metadef_namespaces.id"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("properties_target", sa.String(80)),
    sa.Column("prefix", sa.String(80)),
    *_times(),
    sa.Index("ix_metadef_ns_res_types_namespace_id", "namespace_id"),
    **_GLANCE,
)

# One row for bytes that we answer for although no location shows them (model.Claim). `slot` makes a write unique per
# image and store, and a delete per URL, on engines with and without partial indexes: "write", or the URL's sha256.
claims = sa.Table(
    "xloud_claims",
    own,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("image_id", sa.String(36), nullable=False),
    sa.Column("store", sa.String(255), nullable=False),
    sa.Column("slot", sa.String(64), nullable=False),
    sa.Column("url", sa.Text),
    sa.Column("scope", sa.String(16), nullable=False),
    sa.Column("holder", sa.String(255)),
    sa.Column("lease_until", Instant),
    sa.Column("begun_at", Instant, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("error", sa.Text),
    sa.UniqueConstraint("image_id", "store", "slot", name="xloud_uq_claims_slot"),
    sa.Index("xloud_ix_claims_lease", "lease_until"),
    **_OWN,
)

# One row for work that must be done whatever dies (model.Job). Its end is the end of the row; what clients see of it
# stays in Glance's `tasks`.
Long: Final = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
jobs = sa.Table(
    "xloud_jobs",
    own,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("image_id", sa.String(36), nullable=False),
    sa.Column("owner", sa.String(255)),
    sa.Column("slot", sa.String(64), nullable=False),
    sa.Column("request", Long, nullable=False),
    sa.Column("holder", sa.String(255)),
    sa.Column("lease_until", Instant),
    sa.Column("begun_at", Instant, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("cancelled", Flag, nullable=False),
    sa.Column("progress", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("turn", sa.Integer, nullable=False, server_default="0"),
    sa.Column("deaths", sa.Integer, nullable=False, server_default="0"),
    sa.UniqueConstraint("slot", name="xloud_uq_jobs_slot"),
    sa.Index("xloud_ix_jobs_image", "image_id"),
    **_OWN,
)

# One row for each process that works on jobs, for as long as it renews it.
workers = sa.Table(
    "xloud_workers",
    own,
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("lease_until", Instant, nullable=False),
    sa.Column("begun_at", Instant, nullable=False),
    **_OWN,
)


def _outbox(name: str) -> sa.Table:
    """Events (events.Event) that are not sent yet, one a row."""
    return sa.Table(
        f"xloud_{name}",
        own,
        sa.Column("number", Big, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("level", sa.String(8), nullable=False),
        sa.Column("payload", Long, nullable=False),
        sa.Column("made_at", Instant, nullable=False),
        sa.Column("held_for", sa.String(36)),
        sa.Index(f"xloud_ix_{name}_held", "held_for"),
        sa.Index(f"xloud_ix_{name}_made", "made_at"),
        **_OWN,
    )


# What was committed with its change; and the calls that were told apart from changes (audit.Call).
events = _outbox("events")
audit = _outbox("audit")

# One row for each work that one process at a time does for all of them, and its lease; the migrations write them.
turns = sa.Table(
    "xloud_turns",
    own,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("holder", sa.String(255)),
    sa.Column("lease_until", Instant),
    **_OWN,
)


# One row for each project that ever had a quota: changed first by every transaction that counts what the project has,
# so that they come one after the other, on whichever node of a cluster.
quotas = sa.Table(
    "xloud_quotas",
    own,
    sa.Column("owner", sa.String(255), primary_key=True),
    sa.Column("turn", sa.BigInteger, nullable=False),
    **_OWN,
)

# Bytes that a claim may still bring, or that wait for an import. A row counts as long as its claim is there.
reservations = sa.Table(
    "xloud_reservations",
    own,
    sa.Column("claim_id", sa.String(36), primary_key=True),
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Index("xloud_ix_reservations_owner", "owner"),
    **_OWN,
)

# One row for data of an image that comes in several requests (model.Upload). `slot`: the image while more data may
# come, so that an image has one such upload; its own id after that.
uploads = sa.Table(
    "xloud_uploads",
    own,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("image_id", sa.String(36), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("slot", sa.String(36), nullable=False),
    sa.Column("owner", sa.String(255)),
    sa.Column("store", sa.String(255)),
    sa.Column("size", Big),
    sa.Column("digest", sa.String(160)),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("received", Big, nullable=False),
    sa.Column("parts", sa.Integer, nullable=False),
    sa.Column("holder", sa.String(255)),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("begun_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
    sa.UniqueConstraint("slot", name="xloud_uq_uploads_slot"),
    sa.Index("xloud_ix_uploads_image", "image_id"),
    sa.Index("xloud_ix_uploads_expires", "expires_at"),
    **_OWN,
)

# One row for each object that has a part of that data.
upload_parts = sa.Table(
    "xloud_upload_parts",
    own,
    sa.Column("upload_id", sa.String(36), primary_key=True),
    sa.Column("begins", Big, primary_key=True, autoincrement=False),
    sa.Column("size", Big, nullable=False),
    sa.Column("store", sa.String(255), nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    **_OWN,
)


TURNS: Final = ("events", "audit")


def make_turns(bind: sa.Connection, *names: str) -> None:
    """The rows in which processes take turns (of `turns`), where they are missing."""
    there = set(bind.execute(sa.select(turns.c.id)).scalars())
    for name in names:
        if name not in there:
            bind.execute(turns.insert(), {"id": name})


def glance_version(bind: sa.Connection) -> str | None:
    """Glance's own migration heads, None when no Glance (nor we in its place) finished making its tables."""
    if not sa.inspect(bind).has_table("alembic_version"):
        return None
    return ",".join(sorted(bind.execute(sa.text("SELECT version_num FROM alembic_version")).scalars())) or None


def create_as_glance(bind: sa.Connection) -> None:
    """Make Glance's tables, and stamp them last as Glance's own migrations would, so that it takes them as its own."""
    glance.create_all(bind)
    version = sa.Table(
        "alembic_version",
        sa.MetaData(),
        sa.Column("version_num", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
        **_GLANCE,
    )
    version.create(bind, checkfirst=True)
    bind.execute(version.insert(), {"version_num": GLANCE_HEAD})
