# SPDX-License-Identifier: Apache-2.0
"""One short story for each way through each verb: what there is before, what is asked, what goes wrong on the way.

A verb that is registered and has no story here fails the run, and so does a step that no story passes.
"""

from __future__ import annotations

from volmgr.testing.chaos.group_scenarios import OF_GROUPS
from volmgr.testing.chaos.move_scenarios import OF_MOVES
from volmgr.testing.chaos.story import (
    CONNECTED,
    CONNECTOR,
    IMAGE,
    MARK,
    MARKED,
    MEND,
    PUT,
    RENAME,
    SNAPSHOT,
    VOLUME,
    WITH_SNAPSHOT,
    Call,
    Scenario,
    create,
    fails,
)

SHOWN = Call("initialize_connection_snapshot", {"snapshot_id": "@s", "connector": CONNECTOR})
BACKUP = Call("create_backup", {"backup_id": "@b", "volume_id": "@v"})
WITH_BACKUP = (*MARKED, BACKUP, Call(MARK, {"volume": "@v", "text": "second"}))
RESTORE = Call("restore_backup", {"backup_id": "@b", "volume_id": "@v"})
DELETE = Call("delete_volume", {"volume_id": "@v"})
REVERT = Call("revert_to_snapshot", {"volume_id": "@v", "snapshot_id": "@s"})
EXTEND = Call("extend_volume", {"volume_id": "@v", "new_size": 2})
UNDELETE = Call("undelete_volume", {"volume_id": "@v"})
KEPT = (("trash_retention", 3600),)


LET_GO = Call("delete_volume", {"volume_id": "@v", "unmanage_only": True})
SNAPSHOT_LET_GO = (*MARKED, SNAPSHOT, Call("delete_snapshot", {"snapshot_id": "@s", "unmanage_only": True}))
MANAGE_SNAPSHOT = Call(
    "manage_existing_snapshot",
    {"snapshot_id": "@c", "volume_id": "@v", "ref": {"source-name": "unmanaged-snapshot-@s"}},
)

STORED = Call(IMAGE, {"image_id": "@k", "text": "image"})
DAMAGED = Call(IMAGE, {"image_id": "@k", "text": "image", "damaged": True})
FROM_IMAGE = create("@v", image_id="@k", size=2)
UPLOAD = Call("copy_volume_to_image", {"volume_id": "@v", "image_meta": {"id": "@k", "disk_format": "qcow2"}})
CACHED = (("image_volume_cache_enabled", "true"),)

SCENARIOS: tuple[Scenario, ...] = (
    *OF_GROUPS,
    Scenario("create", "create_volume", (), VOLUME, inside=(("create_volume", "building"), ("create_volume", "after"))),
    Scenario(
        "create-from-snapshot",
        "create_volume",
        WITH_SNAPSHOT,
        create("@c", snapshot_id="@s", size=2),
        inside=(("create_volume_from_snapshot", "building"), ("create_volume_from_snapshot", "after")),
    ),
    Scenario(
        "create-clone",
        "create_volume",
        MARKED,
        create("@c", source_volid="@v"),
        inside=(("create_cloned_volume", "building"),),
    ),
    Scenario("create-fails", "create_volume", (), VOLUME, faults=(fails("create_volume", "@v"),)),
    Scenario(
        "create-fails-and-its-undoing-too",
        "create_volume",
        (),
        VOLUME,
        faults=(
            fails("create_volume", "@v"),
            fails("delete_volume", "@v", "before", "volmgr.backend_down"),
        ),
        since="create_volume/-/parked",
    ),
    Scenario("delete", "delete_volume", MARKED, DELETE, inside=(("trash_volume", "before"), ("trash_volume", "after"))),
    Scenario(
        "delete-cascade",
        "delete_volume",
        (*WITH_SNAPSHOT, CONNECTED, SHOWN, Call("terminate_connection", {"volume_id": "@v", "connector": CONNECTOR})),
        Call("delete_volume", {"volume_id": "@v", "cascade": True}),
    ),
    Scenario("unmanage", "delete_volume", MARKED, Call("delete_volume", {"volume_id": "@v", "unmanage_only": True})),
    Scenario("delete-fails", "delete_volume", MARKED, DELETE, faults=(fails("trash_volume", "@v", "before"),)),
    Scenario("wipe", "wipe", MARKED, DELETE, inside=(("wipe", "building"), ("wipe", "after"))),
    Scenario("undelete", "undelete_volume", (*MARKED, DELETE), UNDELETE, options=KEPT),
    Scenario(
        "undelete-fails",
        "undelete_volume",
        (*MARKED, DELETE),
        UNDELETE,
        faults=(fails("restore_volume", "@v"),),
        options=KEPT,
    ),
    Scenario("extend", "extend_volume", MARKED, EXTEND, inside=(("extend_volume", "after"),)),
    Scenario("extend-connected", "extend_volume", (*MARKED, CONNECTED), EXTEND),
    Scenario("extend-fails", "extend_volume", MARKED, EXTEND, faults=(fails("extend_volume", "@v", "before"),)),
    Scenario(
        "extend-waits",
        "extend_volume",
        MARKED,
        EXTEND,
        beside=SNAPSHOT,
        faults=({"verb": "create_snapshot", "action": "delay", "match": "@s", "seconds": 0.3, "times": 1},),
    ),
    Scenario(
        "snapshot",
        "create_snapshot",
        MARKED,
        SNAPSHOT,
        inside=(("create_snapshot", "building"), ("create_snapshot", "after")),
    ),
    Scenario("snapshot-fails", "create_snapshot", MARKED, SNAPSHOT, faults=(fails("create_snapshot", "@s"),)),
    Scenario("delete-snapshot", "delete_snapshot", WITH_SNAPSHOT, Call("delete_snapshot", {"snapshot_id": "@s"})),
    Scenario(
        "delete-snapshot-shown",
        "delete_snapshot",
        (*WITH_SNAPSHOT, SHOWN),
        Call("delete_snapshot", {"snapshot_id": "@s"}),
    ),
    Scenario(
        "unmanage-snapshot",
        "delete_snapshot",
        WITH_SNAPSHOT,
        Call("delete_snapshot", {"snapshot_id": "@s", "unmanage_only": True}),
    ),
    Scenario(
        "revert",
        "revert_to_snapshot",
        WITH_SNAPSHOT,
        REVERT,
        inside=(("create_volume_from_snapshot", "building"), ("trash_volume", "before")),
    ),
    Scenario(
        "revert-fails",
        "revert_to_snapshot",
        WITH_SNAPSHOT,
        REVERT,
        faults=(fails("create_volume_from_snapshot", "@v"),),
    ),
    Scenario(
        "revert-waits-behind-its-pivot",
        "revert_to_snapshot",
        WITH_SNAPSHOT,
        REVERT,
        faults=(fails("trash_volume", "@v", "before", "volmgr.backend_down"),),
        since="revert_to_snapshot/-/parked",
    ),
    Scenario(
        "manage",
        "manage_existing",
        (*MARKED, LET_GO),
        Call("manage_existing", {"volume_id": "@c", "ref": {"source-name": "unmanaged-volume-@v"}}),
        inside=(("manage_existing", "building"), ("manage_existing", "after")),
    ),
    Scenario(
        "manage-fails",
        "manage_existing",
        (*MARKED, LET_GO),
        Call("manage_existing", {"volume_id": "@c", "ref": {"source-name": "unmanaged-volume-@v"}}),
        faults=(fails("manage_existing", "@c"),),
    ),
    Scenario("manage-snapshot", "manage_existing_snapshot", SNAPSHOT_LET_GO, MANAGE_SNAPSHOT),
    Scenario(
        "manage-snapshot-fails",
        "manage_existing_snapshot",
        SNAPSHOT_LET_GO,
        MANAGE_SNAPSHOT,
        faults=(fails("manage_existing_snapshot", "@c"),),
    ),
    Scenario(
        "mend-an-orphan",
        "discard",
        (Call(PUT, {"name": "volume-@v"}),),
        Call(MEND),
    ),
    Scenario(
        "mend-what-is-in-the-trash",
        "restore_storage",
        (*MARKED, Call(RENAME, {"name": "volume-@v", "to": "_trash-@v"})),
        Call(MEND),
    ),
    Scenario(
        "backup",
        "create_backup",
        MARKED,
        BACKUP,
        inside=(("backup_volume", "building"),),
        lean=True,
    ),
    Scenario("backup-fails", "create_backup", MARKED, BACKUP, faults=(fails("backup_volume", "@b"),), lean=True),
    Scenario(
        "restore",
        "restore_backup",
        WITH_BACKUP,
        RESTORE,
        inside=(("restore_backup", "building"),),
        lean=True,
    ),
    Scenario(
        "restore-fails", "restore_backup", WITH_BACKUP, RESTORE, faults=(fails("restore_backup", "@v"),), lean=True
    ),
    Scenario(
        "create-from-backup",
        "create_volume",
        WITH_BACKUP,
        create("@c", backup_id="@b"),
        inside=(("restore_backup", "building"),),
        lean=True,
    ),
    Scenario("delete-backup", "delete_backup", WITH_BACKUP, Call("delete_backup", {"backup_id": "@b"}), lean=True),
    Scenario(
        "create-from-an-image",
        "create_volume",
        (STORED,),
        FROM_IMAGE,
        since="create_volume/download/before",
        lean=True,
    ),
    Scenario(
        "create-from-a-damaged-image",
        "create_volume",
        (DAMAGED,),
        FROM_IMAGE,
        since="create_volume/download/undo",
        lean=True,
    ),
    Scenario(
        "create-into-the-image-cache",
        "create_volume",
        (STORED,),
        FROM_IMAGE,
        since="create_volume/keep/before",
        options=CACHED,
        lean=True,
    ),
    Scenario(
        "create-into-the-image-cache-fails",
        "create_volume",
        (STORED,),
        FROM_IMAGE,
        faults=(fails("create_cloned_volume", "@v"),),
        since="create_volume/keep/undo",
        options=CACHED,
        lean=True,
    ),
    Scenario(
        "create-from-the-image-cache",
        "create_volume",
        (STORED, FROM_IMAGE),
        create("@c", image_id="@k", size=3),
        inside=(("create_cloned_volume", "building"),),
        options=CACHED,
        lean=True,
    ),
    Scenario(
        "create-from-the-image-cache-fails",
        "create_volume",
        (STORED, FROM_IMAGE),
        create("@c", image_id="@k", size=3),
        faults=(fails("create_cloned_volume", "@c"),),
        since="create_volume/clone/undo",
        options=CACHED,
        lean=True,
    ),
    Scenario(
        "upload",
        "copy_volume_to_image",
        MARKED,
        UPLOAD,
        inside=(("create_cloned_volume", "building"), ("delete_volume", "after")),
    ),
    Scenario(
        "upload-fails",
        "copy_volume_to_image",
        MARKED,
        UPLOAD,
        faults=({**fails("delete_volume", "@v", "before"), "times": 1},),
        since="copy_volume_to_image/upload/undo",
        lean=True,
    ),
    Scenario("connect", "connect", MARKED, CONNECTED),
    Scenario("disconnect", "disconnect", (*MARKED, CONNECTED), Call("terminate_connection", CONNECTED.arguments)),
    Scenario(
        "remove-export",
        "remove_export",
        (*MARKED, CONNECTED, Call("terminate_connection", CONNECTED.arguments)),
        Call("remove_export", {"volume_id": "@v"}),
    ),
    *OF_MOVES,
)

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
