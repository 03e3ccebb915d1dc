# SPDX-License-Identifier: Apache-2.0
"""Groups, cgsnapshots, backups, transfers and cached images. Nothing that was there changes, so older code goes on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_JSON = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
_TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def _held() -> list[sa.Column[object]]:
    """What groups, cgsnapshots and backups begin with."""
    return [
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("project_id", sa.String(255)),
        sa.Column("user_id", sa.String(255)),
        sa.Column("display_name", sa.String(255)),
        sa.Column("display_description", sa.Text()),
        sa.Column("metadata", _JSON),
        sa.Column("host", sa.String(255)),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME),
        sa.Column("operation_id", sa.String(36)),
        sa.Column("use_count", sa.Integer(), server_default="0", nullable=False),
    ]


def _paged(table: str, *columns: str) -> None:
    """Index a table for pages of a project's rows, and by single columns."""
    for column in columns:
        op.create_index(f"ix_{table}_{column}", table, [column])
    op.create_index(f"ix_{table}_project_id_created_at_id", table, ["project_id", "created_at", "id"])


def _groups() -> None:
    op.create_table(
        "groups",
        *_held(),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("volume_types", _JSON),
        sa.Column("availability_zone", sa.String(255)),
        sa.Column("cgsnapshot_id", sa.String(36)),
        sa.Column("source_group_id", sa.String(36)),
        sa.PrimaryKeyConstraint("id", name="pk_groups"),
    )
    _paged("groups", "host")
    op.create_table(
        "cgsnapshots",
        *_held(),
        sa.Column("group_id", sa.String(36), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cgsnapshots"),
    )
    _paged("cgsnapshots", "group_id", "host")
    op.create_index("ix_volumes_group_id", "volumes", ["group_id"])
    op.create_index("ix_snapshots_cgsnapshot_id", "snapshots", ["cgsnapshot_id"])


def _backups() -> None:
    op.create_table(
        "backups",
        *_held(),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("volume_id", sa.String(36), nullable=False),
        sa.Column("snapshot_id", sa.String(36)),
        sa.Column("parent_id", sa.String(36)),
        sa.Column("store", sa.String(64), nullable=False),
        sa.Column("container", sa.String(255)),
        sa.Column("size", sa.Integer(), nullable=False, comment="GiB"),
        sa.Column("object_count", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("stored_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("service_data", _JSON),
        sa.Column("data_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_backups"),
    )
    _paged("backups", "parent_id", "volume_id")


def upgrade() -> None:
    """Make the tables."""
    _groups()
    _backups()
    op.create_table(
        "transfers",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("volume_id", sa.String(36), nullable=False),
        sa.Column("display_name", sa.String(255)),
        sa.Column("project_id", sa.String(255)),
        sa.Column("user_id", sa.String(255)),
        sa.Column("salt", sa.String(64), nullable=False),
        sa.Column("key_hash", sa.String(128), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_transfers"),
        sa.UniqueConstraint("volume_id", name="uq_transfers_volume_id"),
    )
    _paged("transfers")
    op.create_table(
        "image_cache",
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("image_id", sa.String(255), nullable=False),
        sa.Column("volume_id", sa.String(36), nullable=False),
        sa.Column("version", sa.String(255)),
        sa.Column("size", sa.Integer(), nullable=False, comment="GiB"),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("used_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("host", "image_id", name="pk_image_cache"),
        sa.UniqueConstraint("volume_id", name="uq_image_cache_volume_id"),
    )
