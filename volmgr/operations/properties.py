# SPDX-License-Identifier: Apache-2.0
"""What a volume is called and how it may be used: one compare-and-swap, then the export follows; no journal."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from volmgr import exception
from volmgr.context import RequestContext
from volmgr.db import exports as export_rows
from volmgr.db import listing, models
from volmgr.db.engine import Database
from volmgr.exports import Exports
from volmgr.operations import meeting
from volmgr.runtime import Clock


class Properties:
    """Changes of rows that no storage follows."""

    def __init__(self, database: Database, exports: Exports, clock: Clock) -> None:
        self.database = database
        self.exports = exports
        self.clock = clock

    def update(self, context: RequestContext, volume_id: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Change the columns that are not None; returns the volume as it is now.

        :raises VolumeNotFound: there is none, or it is another project's.
        :raises Conflict: an operation that takes it away holds it.
        :raises VolumeAttached: it cannot become read-only while somebody may write to it.
        """
        values = {key: value for key, value in changes.items() if value is not None}

        def write() -> dict[str, Any]:
            with self.database.writer() as conn:
                view = listing.volume(conn, volume_id, context.scope)
                if view["operation_id"] is not None:
                    meeting.check_beside(conn, "volume", volume_id, "update")
                if values.get("readonly") and (
                    any(item["mode"] == "rw" for item in view["attachments"])
                    or export_rows.granted(conn, volume_id, mode="rw")
                ):
                    raise exception.VolumeAttached(id=volume_id, status=view["status"])
                if values:
                    table = models.volumes
                    statement = sa.update(table).where(table.c.id == volume_id)
                    conn.execute(statement.values(**values, updated_at=self.clock.now()))
                return listing.volume(conn, volume_id, context.scope)

        changed = self.database.repeating(write)
        if "readonly" in values:
            self.exports.sync("volume", volume_id)
        return changed
