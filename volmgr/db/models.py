# SPDX-License-Identifier: Apache-2.0
"""The schema: SQL holds what should be.

Tables are SQLAlchemy Core tables: the hot path runs prepared Core statements, and no ORM object could leave the
database room by accident. Sizes are GiB where the column says so, else bytes. Times are UTC. Text that is secret is
ciphertext (see :mod:`volmgr.crypto`), bound to its row. This module knows no verb and no driver.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_LONG_TEXT = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


class Json(sa.types.TypeDecorator[Any]):
    """A JSON value kept as text, the same on every database."""

    impl = _LONG_TEXT
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else json.dumps(value, separators=(",", ":"), sort_keys=True)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else json.loads(value)


def _time() -> sa.types.TypeEngine[Any]:
    return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def _id(name: str = "id", **kwargs: Any) -> sa.Column[str]:
    return sa.Column(name, sa.String(36), **kwargs)


def _storage() -> list[sa.Column[Any]]:
    """What every resource with storage of its own has: its object, and the operation that holds it."""
    return [
        sa.Column("object_id", sa.String(36), nullable=True),
        sa.Column("operation_id", sa.String(36), nullable=True),
        sa.Column("use_count", sa.Integer, nullable=False, server_default="0"),
        sa.Column("provider_location", sa.String(1024), nullable=True),
        sa.Column("provider_id", sa.String(255), nullable=True),
        sa.Column("provider_auth", sa.Text, nullable=True),
    ]


def _ownership() -> list[sa.Column[Any]]:
    return [
        sa.Column("project_id", sa.String(255), nullable=True),
        sa.Column("user_id", sa.String(255), nullable=True),
        sa.Column("display_name", sa.String(255), nullable=True),
        sa.Column("display_description", sa.Text, nullable=True),
        sa.Column("metadata", Json, nullable=True),
        sa.Column("host", sa.String(255), nullable=True),
        sa.Column("created_at", _time(), nullable=False),
        sa.Column("updated_at", _time(), nullable=True),
    ]


volumes = sa.Table(
    "volumes",
    metadata,
    _id(primary_key=True),
    *_ownership(),
    *_storage(),
    sa.Column("size", sa.Integer, nullable=False, comment="GiB"),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("migration_status", sa.String(32), nullable=True),
    sa.Column("availability_zone", sa.String(255), nullable=True),
    sa.Column("bootable", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("readonly", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("multiattach", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("volume_type_id", sa.String(36), nullable=True),
    sa.Column("snapshot_id", sa.String(36), nullable=True),
    sa.Column("source_volid", sa.String(36), nullable=True),
    sa.Column("image_id", sa.String(255), nullable=True),
    sa.Column("group_id", sa.String(36), nullable=True),
    sa.Column("replication_status", sa.String(32), nullable=True),
    sa.Column("replication_extended_status", sa.String(255), nullable=True),
    sa.Column("replication_driver_data", sa.Text, nullable=True),
    sa.Column("driver_data", sa.Text, nullable=True),
    sa.Column("launched_at", _time(), nullable=True),
    sa.Index(None, "host"),
    sa.Index(None, "group_id"),
    sa.Index(None, "project_id", "created_at", "id"),
    sa.Index(None, "created_at", "id"),
)

snapshots = sa.Table(
    "snapshots",
    metadata,
    _id(primary_key=True),
    *_ownership(),
    *_storage(),
    sa.Column("volume_id", sa.String(36), nullable=False),
    sa.Column("volume_size", sa.Integer, nullable=False, comment="GiB"),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("progress", sa.String(8), nullable=False, server_default="0%"),
    sa.Column("cgsnapshot_id", sa.String(36), nullable=True),
    sa.Column("volume_type_id", sa.String(36), nullable=True),
    sa.Index(None, "volume_id"),
    sa.Index(None, "cgsnapshot_id"),
    sa.Index(None, "host"),
    sa.Index(None, "project_id", "created_at", "id"),
    sa.Index(None, "created_at", "id"),
)

attachments = sa.Table(
    "attachments",
    metadata,
    _id(primary_key=True),
    _id("volume_id", nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("mode", sa.String(2), nullable=False, server_default="rw"),
    sa.Column("instance_uuid", sa.String(36), nullable=True),
    sa.Column("host_name", sa.String(255), nullable=True),
    sa.Column("mountpoint", sa.String(255), nullable=True),
    sa.Column("connector", Json, nullable=True),
    sa.Column("created_at", _time(), nullable=False),
    sa.Column("attached_at", _time(), nullable=True),
    sa.Index(None, "volume_id"),
    sa.Index(None, "instance_uuid"),
)

# A piece of storage that embodies a resource. ``former`` keeps the resource's row while the object is in the trash.
objects = sa.Table(
    "objects",
    metadata,
    _id(primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    _id("resource_id", nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("host", sa.String(255), nullable=True),
    sa.Column("serial", sa.String(64), nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", _time(), nullable=False),
    sa.Column("trashed_at", _time(), nullable=True),
    sa.Column("former", Json, nullable=True),
    sa.Index(None, "resource_id"),
    sa.Index(None, "host", "role"),
)

# One row for each resource that should be exported. ``shelf`` and ``blade`` are its ATA over Ethernet address.
exports = sa.Table(
    "exports",
    metadata,
    _id("resource_id", primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("target_name", sa.String(255), nullable=False),
    sa.Column("lun", sa.Integer, nullable=False, server_default="1"),
    sa.Column("shelf", sa.Integer, nullable=True),
    sa.Column("blade", sa.Integer, nullable=True),
    sa.Column("auth_username", sa.String(64), nullable=True),
    sa.Column("auth_secret", sa.Text, nullable=True),
    sa.Column("created_at", _time(), nullable=False),
    sa.UniqueConstraint("shelf", "blade"),
    sa.Index(None, "host"),
)

# The numbers of exports that share a target: by the target's port and the initiator, which is empty for the port's own.
luns = sa.Table(
    "luns",
    metadata,
    sa.Column("port", sa.String(16), primary_key=True),
    sa.Column("initiator", sa.String(16), primary_key=True),
    sa.Column("lun", sa.Integer, primary_key=True, autoincrement=False),
    _id("resource_id", nullable=False),
    sa.UniqueConstraint("resource_id", "port", "initiator"),
)

# The Fibre Channel ports of hosts that were ever let in, or named: they must be known before they log in.
initiators = sa.Table(
    "initiators",
    metadata,
    sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("wwpn", sa.String(16), primary_key=True),
)

# Who may connect to an export. ``peer_key`` is the canonical form of the connector: one grant for each.
grants = sa.Table(
    "grants",
    metadata,
    _id(primary_key=True),
    _id("resource_id", nullable=False),
    sa.Column("peer_key", sa.String(255), nullable=False),
    sa.Column("mode", sa.String(2), nullable=False, server_default="rw"),
    sa.Column("initiator", sa.String(255), nullable=True),
    sa.Column("wwpns", Json, nullable=True),
    sa.Column("macs", Json, nullable=True),
    sa.Column("host_name", sa.String(255), nullable=True),
    sa.Column("ip", sa.String(64), nullable=True),
    sa.Column("lun", sa.Integer, nullable=False, server_default="1"),
    _id("attachment_id", nullable=False, server_default=""),
    sa.Column("created_at", _time(), nullable=False),
    sa.UniqueConstraint("resource_id", "peer_key", "attachment_id"),
)

# The journal. ``claims`` names what the operation holds, so that Conflict can say who is in the way.
operations = sa.Table(
    "operations",
    metadata,
    _id(primary_key=True),
    sa.Column("request_key", sa.String(64), nullable=False),
    sa.Column("verb", sa.String(64), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("resource", sa.String(16), nullable=False),
    _id("resource_id", nullable=False),
    sa.Column("host", sa.String(255), nullable=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("lane", sa.String(16), nullable=False),
    sa.Column("claimed", sa.Boolean, nullable=False),
    sa.Column("claims", Json, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False, server_default="0"),
    sa.Column("incarnation", sa.String(36), nullable=True),
    sa.Column("deaths", sa.Integer, nullable=False, server_default="0"),
    sa.Column("step", sa.String(64), nullable=True),
    sa.Column("pivoted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("cancel", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("progress", sa.Float, nullable=True),
    sa.Column("parked_for", sa.String(32), nullable=True),
    sa.Column("context", Json, nullable=False),
    sa.Column("args", Json, nullable=False),
    sa.Column("data", Json, nullable=True),
    sa.Column("result", Json, nullable=True),
    sa.Column("error", Json, nullable=True),
    sa.Column("project_id", sa.String(255), nullable=True),
    sa.Column("not_before", _time(), nullable=True),
    sa.Column("created_at", _time(), nullable=False),
    sa.Column("started_at", _time(), nullable=True),
    sa.Column("updated_at", _time(), nullable=True),
    sa.Column("finished_at", _time(), nullable=True),
    sa.UniqueConstraint("request_key"),
    sa.Index(None, "host", "state", "not_before"),
    sa.Index(None, "resource_id", "created_at"),
    sa.Index(None, "finished_at"),
)

# Requests that were answered and are no operation, so that a late copy is told from a new one.
answered = sa.Table(
    "answered",
    metadata,
    sa.Column("request_key", sa.String(64), primary_key=True),
    sa.Column("verb", sa.String(64), primary_key=True),
    _id("resource_id", primary_key=True),
    _id("arrival_id", nullable=False),
    sa.Column("answered_at", _time(), nullable=False),
    sa.Index(None, "answered_at"),
)


def _held() -> list[sa.Column[Any]]:
    """What a resource without storage of its own has: the operation that holds it, and how many share it."""
    return [
        sa.Column("operation_id", sa.String(36), nullable=True),
        sa.Column("use_count", sa.Integer, nullable=False, server_default="0"),
    ]


# Consistency groups: volumes whose snapshots are taken at one instant. A member has the group's id in its own row.
groups = sa.Table(
    "groups",
    metadata,
    _id(primary_key=True),
    *_ownership(),
    *_held(),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("volume_types", Json, nullable=True),
    sa.Column("availability_zone", sa.String(255), nullable=True),
    sa.Column("cgsnapshot_id", sa.String(36), nullable=True),
    sa.Column("source_group_id", sa.String(36), nullable=True),
    sa.Index(None, "host"),
    sa.Index(None, "project_id", "created_at", "id"),
)

# Snapshots of groups. A member snapshot has the cgsnapshot's id in its own row.
cgsnapshots = sa.Table(
    "cgsnapshots",
    metadata,
    _id(primary_key=True),
    *_ownership(),
    *_held(),
    sa.Column("group_id", sa.String(36), nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Index(None, "group_id"),
    sa.Index(None, "host"),
    sa.Index(None, "project_id", "created_at", "id"),
)

# Copies of volumes in a store. ``parent_id`` is the backup that an incremental one builds on; ``service_data`` is the
# store's own. ``host`` is empty where every worker reaches the store.
backups = sa.Table(
    "backups",
    metadata,
    _id(primary_key=True),
    *_ownership(),
    *_held(),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("volume_id", sa.String(36), nullable=False),
    sa.Column("snapshot_id", sa.String(36), nullable=True),
    sa.Column("parent_id", sa.String(36), nullable=True),
    sa.Column("store", sa.String(64), nullable=False),
    sa.Column("container", sa.String(255), nullable=True),
    sa.Column("size", sa.Integer, nullable=False, comment="GiB"),
    sa.Column("object_count", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("stored_bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("service_data", Json, nullable=True),
    sa.Column("data_at", _time(), nullable=True),
    sa.Index(None, "volume_id"),
    sa.Index(None, "parent_id"),
    sa.Index(None, "project_id", "created_at", "id"),
)

# Offers of a volume to another project. The key itself is never stored, only its salted hash.
transfers = sa.Table(
    "transfers",
    metadata,
    _id(primary_key=True),
    _id("volume_id", nullable=False),
    sa.Column("display_name", sa.String(255), nullable=True),
    sa.Column("project_id", sa.String(255), nullable=True),
    sa.Column("user_id", sa.String(255), nullable=True),
    sa.Column("salt", sa.String(64), nullable=False),
    sa.Column("key_hash", sa.String(128), nullable=False),
    sa.Column("created_at", _time(), nullable=False),
    sa.Column("expires_at", _time(), nullable=True),
    sa.UniqueConstraint("volume_id"),
    sa.Index(None, "project_id", "created_at", "id"),
)

# Images that a backend keeps as objects of its own, to clone volumes from; the least recently used goes first.
# ``version`` tells whether the image in the store is still the one that was kept.
image_cache = sa.Table(
    "image_cache",
    metadata,
    sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("image_id", sa.String(255), primary_key=True),
    _id("volume_id", nullable=False),
    sa.Column("version", sa.String(255), nullable=True),
    sa.Column("size", sa.Integer, nullable=False, comment="GiB"),
    sa.Column("created_at", _time(), nullable=False),
    sa.Column("used_at", _time(), nullable=False),
    sa.UniqueConstraint("volume_id"),
)

# Where is and should be differ, as the last audit of each worker saw it; ``created_at`` is when it was first seen.
findings = sa.Table(
    "findings",
    metadata,
    _id(primary_key=True),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("resource", sa.String(16), nullable=False),
    sa.Column("resource_id", sa.String(255), nullable=False),
    sa.Column("name", sa.String(1024), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("repair", sa.String(16), nullable=False),
    sa.Column("safe", sa.Boolean, nullable=False),
    sa.Column("created_at", _time(), nullable=False),
    sa.Column("seen_at", _time(), nullable=False),
    sa.Index(None, "host"),
    sa.Index(None, "resource_id"),
)

# Usage and limit in one row, so that one statement checks and counts. A NULL limit means the configured default.
quotas = sa.Table(
    "quotas",
    metadata,
    sa.Column("project_id", sa.String(255), primary_key=True),
    sa.Column("volume_type_id", sa.String(36), primary_key=True, server_default=""),
    sa.Column("volumes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("snapshots", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("gigabytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("max_volumes", sa.BigInteger, nullable=True),
    sa.Column("max_snapshots", sa.BigInteger, nullable=True),
    sa.Column("max_gigabytes", sa.BigInteger, nullable=True),
)

# Quota that is counted already for a request that is still to come.
reservations = sa.Table(
    "reservations",
    metadata,
    _id(primary_key=True),
    sa.Column("project_id", sa.String(255), nullable=False),
    sa.Column("volume_type_id", sa.String(36), nullable=True),
    sa.Column("volumes", sa.BigInteger, nullable=False),
    sa.Column("snapshots", sa.BigInteger, nullable=False),
    sa.Column("gigabytes", sa.BigInteger, nullable=False),
    sa.Column("expires_at", _time(), nullable=False),
    sa.Index(None, "expires_at"),
)

services = sa.Table(
    "services",
    metadata,
    sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("topic", sa.String(64), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=True),
    sa.Column("disabled", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("disabled_reason", sa.String(255), nullable=True),
    sa.Column("frozen", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("availability_zone", sa.String(255), nullable=True),
    sa.Column("driver", sa.String(255), nullable=True),
    sa.Column("incarnation", sa.String(36), nullable=True),
    sa.Column("rpc_version", sa.String(16), nullable=False),
    sa.Column("active_backend_id", sa.String(255), nullable=True),
    sa.Column("capabilities", Json, nullable=True),
    sa.Column("created_at", _time(), nullable=False),
    sa.Column("updated_at", _time(), nullable=False),
)

# The lives of the workers of clusters: who has a row may still be at work. See :mod:`volmgr.cluster`.
members = sa.Table(
    "members",
    metadata,
    _id(primary_key=True),
    sa.Column("service", sa.String(255), nullable=False),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("machine", sa.String(64), nullable=False),
    sa.Column("boot", sa.String(64), nullable=False),
    sa.Column("lock_path", sa.String(1024), nullable=False),
    sa.Column("draining", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("expires_at", _time(), nullable=False),
    sa.Column("created_at", _time(), nullable=False),
    sa.Index(None, "service"),
)

# What a member of a cluster is just about to make the target follow; ``id`` is made from service and key.
cluster_locks = sa.Table(
    "cluster_locks",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("service", sa.String(255), nullable=False),
    sa.Column("key", sa.String(512), nullable=False),
    _id("member_id", nullable=False),
    sa.Index(None, "service"),
    sa.Index(None, "member_id"),
)

volume_types = sa.Table(
    "volume_types",
    metadata,
    _id(primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", sa.Text, nullable=True),
    sa.Column("is_public", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("extra_specs", Json, nullable=True),
    sa.Column("qos_id", sa.String(36), nullable=True),
    sa.Column("created_at", _time(), nullable=False),
    sa.UniqueConstraint("name"),
)

# Limits of speed: ``consumer`` says who keeps them, front-end, back-end or both.
qos = sa.Table(
    "qos",
    metadata,
    _id(primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("consumer", sa.String(16), nullable=False),
    sa.Column("specs", Json, nullable=False),
    sa.Column("created_at", _time(), nullable=False),
    sa.UniqueConstraint("name"),
)

# The canary: a known text under the deployment's key proves on every host that the key file is the right one.
keys = sa.Table(
    "keys",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("canary", sa.Text, nullable=False),
    sa.Column("created_at", _time(), nullable=False),
)

# What a driver wants to remember of an initiator between two calls.
initiator_data = sa.Table(
    "initiator_data",
    metadata,
    sa.Column("initiator", sa.String(255), primary_key=True),
    sa.Column("namespace", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(128), primary_key=True),
    sa.Column("value", sa.Text, nullable=True),
)

# Which schema the data has, beside alembic's own table: the oldest code that may still run on it.
schema_window = sa.Table(
    "schema_window",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("oldest_code", sa.String(32), nullable=False),
)
