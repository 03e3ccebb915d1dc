# SPDX-License-Identifier: Apache-2.0
"""The first schema. A published revision never changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# What the columns are in SQL, whatever becomes of the code's own types.
_JSON = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
_TIME = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


def upgrade() -> None:
    """Make every table, and the row that says which code may run on them."""
    op.create_table(
        "answered",
        sa.Column("request_key", sa.String(64), nullable=False),
        sa.Column("verb", sa.String(64), nullable=False),
        sa.Column("resource_id", sa.String(36), nullable=False),
        sa.Column("arrival_id", sa.String(36), nullable=False),
        sa.Column("answered_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("request_key", "verb", "resource_id", name="pk_answered"),
    )
    op.create_index("ix_answered_answered_at", "answered", ["answered_at"])
    op.create_table(
        "attachments",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("volume_id", sa.String(36), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("mode", sa.String(2), server_default="rw", nullable=False),
        sa.Column("instance_uuid", sa.String(36)),
        sa.Column("host_name", sa.String(255)),
        sa.Column("mountpoint", sa.String(255)),
        sa.Column("connector", _JSON),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("attached_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_attachments"),
    )
    op.create_index("ix_attachments_instance_uuid", "attachments", ["instance_uuid"])
    op.create_index("ix_attachments_volume_id", "attachments", ["volume_id"])

    op.create_table(
        "cluster_locks",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("service", sa.String(255), nullable=False),
        sa.Column("key", sa.String(512), nullable=False),
        sa.Column("member_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cluster_locks"),
    )
    op.create_index("ix_cluster_locks_member_id", "cluster_locks", ["member_id"])
    op.create_index("ix_cluster_locks_service", "cluster_locks", ["service"])
    op.create_table(
        "exports",
        sa.Column("resource_id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("target_name", sa.String(255), nullable=False),
        sa.Column("lun", sa.Integer(), server_default="1", nullable=False),
        sa.Column("shelf", sa.Integer()),
        sa.Column("blade", sa.Integer()),
        sa.Column("auth_username", sa.String(64)),
        sa.Column("auth_secret", sa.Text()),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("resource_id", name="pk_exports"),
        sa.UniqueConstraint("shelf", "blade", name="uq_exports_shelf_blade"),
    )
    op.create_index("ix_exports_host", "exports", ["host"])

    op.create_table(
        "findings",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("resource", sa.String(16), nullable=False),
        sa.Column("resource_id", sa.String(255), nullable=False),
        sa.Column("name", sa.String(1024), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("repair", sa.String(16), nullable=False),
        sa.Column("safe", sa.Boolean(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_findings"),
    )
    op.create_index("ix_findings_host", "findings", ["host"])
    op.create_index("ix_findings_resource_id", "findings", ["resource_id"])

    op.create_table(
        "grants",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("resource_id", sa.String(36), nullable=False),
        sa.Column("peer_key", sa.String(255), nullable=False),
        sa.Column("mode", sa.String(2), server_default="rw", nullable=False),
        sa.Column("initiator", sa.String(255)),
        sa.Column("wwpns", _JSON),
        sa.Column("macs", _JSON),
        sa.Column("host_name", sa.String(255)),
        sa.Column("ip", sa.String(64)),
        sa.Column("lun", sa.Integer(), server_default="1", nullable=False),
        sa.Column("attachment_id", sa.String(36), server_default="", nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_grants"),
        sa.UniqueConstraint(
            "resource_id", "peer_key", "attachment_id", name="uq_grants_resource_id_peer_key_attachment_id"
        ),
    )
    op.create_table(
        "initiator_data",
        sa.Column("initiator", sa.String(255), nullable=False),
        sa.Column("namespace", sa.String(64), nullable=False),
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("value", sa.Text()),
        sa.PrimaryKeyConstraint("initiator", "namespace", "key", name="pk_initiator_data"),
    )
    op.create_table(
        "keys",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("canary", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_keys"),
    )
    op.create_table(
        "initiators",
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("wwpn", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("host", "wwpn", name="pk_initiators"),
    )

    op.create_table(
        "luns",
        sa.Column("port", sa.String(16), nullable=False),
        sa.Column("initiator", sa.String(16), nullable=False),
        sa.Column("lun", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("resource_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("port", "initiator", "lun", name="pk_luns"),
        sa.UniqueConstraint("resource_id", "port", "initiator", name="uq_luns_resource_id_port_initiator"),
    )

    op.create_table(
        "members",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("service", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("machine", sa.String(64), nullable=False),
        sa.Column("boot", sa.String(64), nullable=False),
        sa.Column("lock_path", sa.String(1024), nullable=False),
        sa.Column("draining", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_members"),
    )
    op.create_index("ix_members_service", "members", ["service"])
    op.create_table(
        "objects",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("resource_id", sa.String(36), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("host", sa.String(255)),
        sa.Column("serial", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("trashed_at", _TIME),
        sa.Column("former", _JSON),
        sa.PrimaryKeyConstraint("id", name="pk_objects"),
    )
    op.create_index("ix_objects_host_role", "objects", ["host", "role"])
    op.create_index("ix_objects_resource_id", "objects", ["resource_id"])

    op.create_table(
        "operations",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("request_key", sa.String(64), nullable=False),
        sa.Column("verb", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("resource", sa.String(16), nullable=False),
        sa.Column("resource_id", sa.String(36), nullable=False),
        sa.Column("host", sa.String(255)),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("lane", sa.String(16), nullable=False),
        sa.Column("claimed", sa.Boolean(), nullable=False),
        sa.Column("claims", _JSON, nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("incarnation", sa.String(36)),
        sa.Column("deaths", sa.Integer(), server_default="0", nullable=False),
        sa.Column("step", sa.String(64)),
        sa.Column("pivoted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("cancel", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("progress", sa.Float()),
        sa.Column("parked_for", sa.String(32)),
        sa.Column("context", _JSON, nullable=False),
        sa.Column("args", _JSON, nullable=False),
        sa.Column("data", _JSON),
        sa.Column("result", _JSON),
        sa.Column("error", _JSON),
        sa.Column("project_id", sa.String(255)),
        sa.Column("not_before", _TIME),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME),
        sa.Column("updated_at", _TIME),
        sa.Column("finished_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_operations"),
        sa.UniqueConstraint("request_key", name="uq_operations_request_key"),
    )
    op.create_index("ix_operations_finished_at", "operations", ["finished_at"])
    op.create_index("ix_operations_host_state_not_before", "operations", ["host", "state", "not_before"])
    op.create_index("ix_operations_resource_id_created_at", "operations", ["resource_id", "created_at"])

    op.create_table(
        "qos",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("consumer", sa.String(16), nullable=False),
        sa.Column("specs", _JSON, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_qos"),
        sa.UniqueConstraint("name", name="uq_qos_name"),
    )
    op.create_table(
        "quotas",
        sa.Column("project_id", sa.String(255), nullable=False),
        sa.Column("volume_type_id", sa.String(36), server_default="", nullable=False),
        sa.Column("volumes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("snapshots", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("gigabytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("max_volumes", sa.BigInteger()),
        sa.Column("max_snapshots", sa.BigInteger()),
        sa.Column("max_gigabytes", sa.BigInteger()),
        sa.PrimaryKeyConstraint("project_id", "volume_type_id", name="pk_quotas"),
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("project_id", sa.String(255), nullable=False),
        sa.Column("volume_type_id", sa.String(36)),
        sa.Column("volumes", sa.BigInteger(), nullable=False),
        sa.Column("snapshots", sa.BigInteger(), nullable=False),
        sa.Column("gigabytes", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_reservations"),
    )
    op.create_index("ix_reservations_expires_at", "reservations", ["expires_at"])
    op.create_table(
        "schema_window",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("oldest_code", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_schema_window"),
    )
    op.create_table(
        "services",
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("topic", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("disabled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("disabled_reason", sa.String(255)),
        sa.Column("frozen", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("availability_zone", sa.String(255)),
        sa.Column("driver", sa.String(255)),
        sa.Column("incarnation", sa.String(36)),
        sa.Column("rpc_version", sa.String(16), nullable=False),
        sa.Column("active_backend_id", sa.String(255)),
        sa.Column("capabilities", _JSON),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("host", name="pk_services"),
    )
    op.create_table(
        "snapshots",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("project_id", sa.String(255)),
        sa.Column("user_id", sa.String(255)),
        sa.Column("display_name", sa.String(255)),
        sa.Column("display_description", sa.Text()),
        sa.Column("metadata", _JSON),
        sa.Column("host", sa.String(255)),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME),
        sa.Column("object_id", sa.String(36)),
        sa.Column("operation_id", sa.String(36)),
        sa.Column("use_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("provider_location", sa.String(1024)),
        sa.Column("provider_id", sa.String(255)),
        sa.Column("provider_auth", sa.Text()),
        sa.Column("volume_id", sa.String(36), nullable=False),
        sa.Column("volume_size", sa.Integer(), nullable=False, comment="GiB"),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("progress", sa.String(8), server_default="0%", nullable=False),
        sa.Column("cgsnapshot_id", sa.String(36)),
        sa.Column("volume_type_id", sa.String(36)),
        sa.PrimaryKeyConstraint("id", name="pk_snapshots"),
    )
    op.create_index("ix_snapshots_created_at_id", "snapshots", ["created_at", "id"])
    op.create_index("ix_snapshots_host", "snapshots", ["host"])
    op.create_index("ix_snapshots_project_id_created_at_id", "snapshots", ["project_id", "created_at", "id"])
    op.create_index("ix_snapshots_volume_id", "snapshots", ["volume_id"])

    op.create_table(
        "volume_types",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("is_public", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("extra_specs", _JSON),
        sa.Column("qos_id", sa.String(36)),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_volume_types"),
        sa.UniqueConstraint("name", name="uq_volume_types_name"),
    )
    op.create_table(
        "volumes",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("project_id", sa.String(255)),
        sa.Column("user_id", sa.String(255)),
        sa.Column("display_name", sa.String(255)),
        sa.Column("display_description", sa.Text()),
        sa.Column("metadata", _JSON),
        sa.Column("host", sa.String(255)),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME),
        sa.Column("object_id", sa.String(36)),
        sa.Column("operation_id", sa.String(36)),
        sa.Column("use_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("provider_location", sa.String(1024)),
        sa.Column("provider_id", sa.String(255)),
        sa.Column("provider_auth", sa.Text()),
        sa.Column("size", sa.Integer(), nullable=False, comment="GiB"),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("migration_status", sa.String(32)),
        sa.Column("availability_zone", sa.String(255)),
        sa.Column("bootable", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("readonly", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("multiattach", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("volume_type_id", sa.String(36)),
        sa.Column("snapshot_id", sa.String(36)),
        sa.Column("source_volid", sa.String(36)),
        sa.Column("image_id", sa.String(255)),
        sa.Column("group_id", sa.String(36)),
        sa.Column("replication_status", sa.String(32)),
        sa.Column("replication_extended_status", sa.String(255)),
        sa.Column("replication_driver_data", sa.Text()),
        sa.Column("driver_data", sa.Text()),
        sa.Column("launched_at", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_volumes"),
    )
    op.create_index("ix_volumes_created_at_id", "volumes", ["created_at", "id"])
    op.create_index("ix_volumes_host", "volumes", ["host"])
    op.create_index("ix_volumes_project_id_created_at_id", "volumes", ["project_id", "created_at", "id"])
    window = sa.table("schema_window", sa.column("id", sa.Integer), sa.column("oldest_code", sa.String))
    op.bulk_insert(window, [{"id": 1, "oldest_code": "0001"}])
