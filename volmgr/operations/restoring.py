# SPDX-License-Identifier: Apache-2.0
"""What restoring into a volume that is there and making a volume from a backup have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volmgr import exception, types
from volmgr.backups.copying import BackupService
from volmgr.backups.store import BackupStore
from volmgr.db import claims, records
from volmgr.operations.base import Claim, Lane, Step

if TYPE_CHECKING:
    from volmgr.db.admission import Admitting
    from volmgr.tasks import Backend, Task

FILL = "fill"


def claim(backup_id: str) -> Claim:
    """Return the hold on a backup that is read back."""
    return Claim("backup", backup_id, "restore")


def size_of(backend: Backend, backup_id: str | None) -> int:
    """Return the size of a backup in GiB; 0 for one that is not there, which the transaction says."""
    if backup_id is None:
        return 0
    with backend.exports.database.reader() as conn:
        row = claims.row(conn, "backup", backup_id)
    return 0 if row is None else int(row.size)


def peek(tx: Admitting, backup_id: str) -> types.Backup:
    """Return a backup that the caller may see.

    :raises BackupNotFound: there is none.
    """
    found = tx.peek("backup", backup_id)
    assert isinstance(found, types.Backup)
    return found


def store_of(backend: Backend, backup: types.Backup) -> BackupStore:
    """Return the store that a backup is in.

    :raises Invalid: it is not configured here. :raises Inconsistent: what is in its place is another one.
    """
    store = backend.stores.get(backup.store)
    wanted = (backup.service_data or {}).get("store_id")
    if wanted is not None and store.identity() != wanted:
        raise exception.Inconsistent(
            f"What is configured as the backup store {backup.store} is not the store that {backup.id} was put into",
            hint="Mount the folder, or correct backup_store and [backup] stores, and restart",
        )
    return store


def fill_step(task: Task, backup_id: str, volume: types.Volume, *, blank: bool) -> Step:
    """Return the step that writes a backup to a volume; a repeat goes on behind what is safe on the volume.

    :param blank: the volume is new and reads as zeros.
    """

    def fill() -> dict[str, Any]:
        backup = task.backup(backup_id)
        service = BackupService(store_of(task.backend, backup), blank=blank, size_bytes=volume.size_bytes)
        task.driver.restore_backup(task.context, backup, volume, service)
        return {"backup_id": backup_id, "data_at": records.moment(backup.data_at)}

    return Step("fill", fill, lane=Lane.BULK)
