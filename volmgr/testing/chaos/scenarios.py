# SPDX-License-Identifier: Apache-2.0
"""One short story for each way through each verb: what there is before, what is asked, what goes wrong on the way.

A verb that is registered and has no story here fails the run, and so does a step that no story passes. Names that begin
with ``@`` stand for ids, new ones for each telling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_ROLE = re.compile(r"@[vscghkb]\b")
INITIATOR = "iqn.1993-08.org.debian:01:chaos"
CONNECTOR = {"initiator": INITIATOR, "ip": "127.0.0.1", "host": "compute"}
#: a text that a volume's first block gets, so that copies can be told.
MARK = "mark"
#: a file that is put into the storage, or gets another name there, behind the daemon's back.
PUT, RENAME = "put", "rename"
#: an image that is put into the store.
IMAGE = "image"
#: an audit, and then the mending of what it found of this story's.
MEND = "mend"


@dataclass(frozen=True)
class Call:
    """A request, or one of :data:`MARK`, :data:`PUT`, :data:`RENAME`, :data:`IMAGE` and :data:`MEND`."""

    method: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """One story.

    :param verb: whose kill points are struck. :param before: what is done first, each request to its end.
    :param beside: a request that is sent and not waited for, so that the next one must wait for it.
    :param call: the request that is killed; the last of ``before`` is repeated where there is none.
    :param faults: of the simulator, while ``call`` runs; ``match`` may be an id.
    :param inside: (driver verb, when) at which the simulator dies in the middle of a step.
    :param since: the point from which on it is struck; what comes before is another story's.
    :param options: of the backend. :param lean: strike only at its steps; what every operation passes is the same code.
    :param pair: there are two workers; either is struck.
    """

    name: str
    verb: str
    before: tuple[Call, ...]
    call: Call
    beside: Call | None = None
    faults: tuple[dict[str, Any], ...] = ()
    inside: tuple[tuple[str, str], ...] = ()
    since: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    lean: bool = False
    pair: bool = False


def _create(role: str, **properties: Any) -> Call:
    return Call("create_volume", {"volume_id": role, **properties})


VOLUME = _create("@v", size=1)
MARKED = (VOLUME, Call(MARK, {"volume": "@v", "text": "first"}))
SNAPSHOT = Call("create_snapshot", {"volume_id": "@v", "snapshot_id": "@s"})
WITH_SNAPSHOT = (*MARKED, SNAPSHOT, Call(MARK, {"volume": "@v", "text": "second"}))
CONNECTED = Call("initialize_connection", {"volume_id": "@v", "connector": CONNECTOR})
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
FROM_IMAGE = _create("@v", image_id="@k", size=2)
UPLOAD = Call("copy_volume_to_image", {"volume_id": "@v", "image_meta": {"id": "@k", "disk_format": "qcow2"}})
CACHED = (("image_volume_cache_enabled", "true"),)


def _fails(verb: str, role: str, when: str = "after", error: str = "volmgr.inconsistent") -> dict[str, Any]:
    return {"verb": verb, "action": "fail", "when": when, "match": role, "error": error, "message": "ordered"}


GROUP = Call("create_consistencygroup", {"group_id": "@g"})
MEMBER = _create("@v", size=1, group_id="@g")
WITH_MEMBERS = (
    GROUP, MEMBER, _create("@c", size=1, group_id="@g"), Call(MARK, {"volume": "@v", "text": "first"})
)
SET = Call("create_cgsnapshot", {"cgsnapshot_id": "@k", "group_id": "@g"})
FROM_SET = Call("create_consistencygroup_from_src", {"group_id": "@h", "cgsnapshot_id": "@k"})

#: stories of groups; a failure is struck from the point on at which it differs from the success.
OF_GROUPS: tuple[Scenario, ...] = (
    Scenario("group-create", "create_consistencygroup", (), GROUP, lean=True),
    Scenario(
        "group-create-fails",
        "create_consistencygroup",
        (),
        GROUP,
        faults=(_fails("create_consistencygroup", "@g"),),
        since="create_consistencygroup/create/undo",
        lean=True,
    ),
    Scenario(
        "group-update",
        "update_consistencygroup",
        (*WITH_MEMBERS, _create("@s", size=1)),
        Call("update_consistencygroup", {"group_id": "@g", "add_volumes": ["@s"], "remove_volumes": ["@c"]}),
        lean=True,
    ),
    Scenario(
        "group-delete",
        "delete_consistencygroup",
        (*WITH_MEMBERS, CONNECTED, Call("terminate_connection", CONNECTED.arguments)),
        Call("delete_consistencygroup", {"group_id": "@g", "delete_volumes": True}),
        inside=(("delete_consistencygroup", "after"),),
        lean=True,
    ),
    Scenario(
        "group-delete-in-part",
        "delete_consistencygroup",
        WITH_MEMBERS,
        Call("delete_consistencygroup", {"group_id": "@g", "delete_volumes": True}),
        faults=(_fails("delete_consistencygroup", "@c", "before"),),
        since="delete_consistencygroup/delete/undo",
        lean=True,
    ),
    Scenario(
        "cgsnapshot",
        "create_cgsnapshot",
        WITH_MEMBERS,
        SET,
        inside=(("create_cgsnapshot", "building"),),
        lean=True,
    ),
    Scenario(
        "cgsnapshot-fails",
        "create_cgsnapshot",
        WITH_MEMBERS,
        SET,
        faults=(_fails("create_cgsnapshot", "@k"),),
        since="create_cgsnapshot/create/undo",
        lean=True,
    ),
    Scenario(
        "delete-cgsnapshot",
        "delete_cgsnapshot",
        (*WITH_MEMBERS, SET),
        Call("delete_cgsnapshot", {"cgsnapshot_id": "@k"}),
        lean=True,
    ),
    Scenario(
        "delete-cgsnapshot-fails",
        "delete_cgsnapshot",
        (*WITH_MEMBERS, SET),
        Call("delete_cgsnapshot", {"cgsnapshot_id": "@k"}),
        faults=(_fails("delete_cgsnapshot", "@k"),),
        since="delete_cgsnapshot/delete/undo",
        lean=True,
    ),
    Scenario(
        "group-from-cgsnapshot",
        "create_consistencygroup_from_src",
        (*WITH_MEMBERS, SET),
        FROM_SET,
        inside=(("create_consistencygroup_from_src", "building"),),
        lean=True,
    ),
    Scenario(
        "group-from-group-fails",
        "create_consistencygroup_from_src",
        WITH_MEMBERS,
        Call("create_consistencygroup_from_src", {"group_id": "@h", "source_group_id": "@g"}),
        faults=(_fails("create_consistencygroup_from_src", "@h"),),
        since="create_consistencygroup_from_src/create/undo",
        lean=True,
    ),
)

TYPE = Call("type_create", {"type_id": "@c", "name": "@c"})
REPLICATED = Call("type_create", {"type_id": "@c", "name": "@c", "extra_specs": {"replication": "<is> True"}})
RETYPE = Call("retype", {"volume_id": "@v", "new_type_id": "@c"})
#: a pair places what is made on its first worker.
AT_FIRST = MARKED
MIGRATE = Call("migrate_volume", {"volume_id": "@v", "host": "node@two"})
COPY = _create("@c", size=1, host="node@two")
COMPLETE = Call("migrate_volume_completion", {"volume_id": "@v", "new_volume_id": "@c"})
ACCEPT = Call("accept_transfer", {"volume_id": "@v", "new_user": "other", "new_project": "other"})
#: nobody asks by himself how the replicas are.
UNASKED = (("default", {"backend_stats_polling_interval": 3600}),)

#: stories of a volume's type, place, owner and replica.
OF_MOVES: tuple[Scenario, ...] = (
    Scenario("retype", "retype", (*MARKED, TYPE), RETYPE, lean=True, inside=(("retype", "before"),)),
    Scenario(
        "retype-fails",
        "retype",
        (*MARKED, TYPE),
        RETYPE,
        faults=({**_fails("retype", "@v", "before"), "times": 1},),
        since="retype/retype/undo",
        lean=True,
    ),
    Scenario("migrate", "migrate_volume", AT_FIRST, MIGRATE, pair=True, lean=True),
    Scenario(
        "migrate-by-the-driver", "migrate_volume", AT_FIRST, MIGRATE, pair=True, lean=True, options=(("shared", True),)
    ),
    Scenario(
        "migrate-fails-while-copying",
        "migrate_volume",
        AT_FIRST,
        MIGRATE,
        faults=({**_fails("before_volume_copy", "@v", "before"), "times": 1},),
        since="migrate_volume/copy/undo",
        pair=True,
        lean=True,
    ),
    Scenario("receive", "receive_volume", AT_FIRST, MIGRATE, pair=True),
    Scenario(
        "receive-fails",
        "receive_volume",
        AT_FIRST,
        MIGRATE,
        faults=({**_fails("create_volume", "@v"), "times": 1},),
        since="receive_volume/build/undo",
        pair=True,
    ),
    Scenario(
        "complete-migration",
        "migrate_volume_completion",
        (*AT_FIRST, COPY, Call(MARK, {"volume": "@c", "text": "copied"})),
        COMPLETE,
        pair=True,
        lean=True,
    ),
    Scenario(
        "complete-migration-with-an-error",
        "migrate_volume_completion",
        (*AT_FIRST, COPY),
        Call("migrate_volume_completion", {**COMPLETE.arguments, "error": True}),
        pair=True,
    ),
    Scenario(
        "update-migrated",
        "update_migrated_volume",
        MARKED,
        Call("update_migrated_volume", {"volume_id": "@v", "new_volume_id": "@c"}),
        lean=True,
    ),
    Scenario("accept-transfer", "accept_transfer", WITH_SNAPSHOT, ACCEPT, inside=(("accept_transfer", "before"),)),
    Scenario(
        "accept-transfer-fails",
        "accept_transfer",
        WITH_SNAPSHOT,
        ACCEPT,
        faults=({**_fails("accept_transfer", "@v", "before"), "times": 1},),
        since="accept_transfer/give/undo",
        lean=True,
    ),
    Scenario(
        "promote",
        "promote_replica",
        (REPLICATED, _create("@v", size=1, volume_type="@c"), Call(MARK, {"volume": "@v", "text": "first"})),
        Call("promote_replica", {"volume_id": "@v"}),
        inside=(("promote_replica", "building"), ("promote_replica", "after")),
        options=UNASKED,
        lean=True,
    ),
    Scenario(
        "reenable",
        "reenable_replication",
        (REPLICATED, _create("@v", size=1, volume_type="@c"), Call("promote_replica", {"volume_id": "@v"})),
        Call("reenable_replication", {"volume_id": "@v"}),
        options=UNASKED,
        lean=True,
    ),
    Scenario("failover", "failover_host", (), Call("failover_host"), inside=(("failover_host", "after"),)),
)

SCENARIOS: tuple[Scenario, ...] = (
    *OF_GROUPS,
    Scenario("create", "create_volume", (), VOLUME, inside=(("create_volume", "building"), ("create_volume", "after"))),
    Scenario(
        "create-from-snapshot",
        "create_volume",
        WITH_SNAPSHOT,
        _create("@c", snapshot_id="@s", size=2),
        inside=(("create_volume_from_snapshot", "building"), ("create_volume_from_snapshot", "after")),
    ),
    Scenario(
        "create-clone",
        "create_volume",
        MARKED,
        _create("@c", source_volid="@v"),
        inside=(("create_cloned_volume", "building"),),
    ),
    Scenario("create-fails", "create_volume", (), VOLUME, faults=(_fails("create_volume", "@v"),)),
    Scenario(
        "create-fails-and-its-undoing-too",
        "create_volume",
        (),
        VOLUME,
        faults=(
            _fails("create_volume", "@v"),
            _fails("delete_volume", "@v", "before", "volmgr.backend_down"),
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
    Scenario("delete-fails", "delete_volume", MARKED, DELETE, faults=(_fails("trash_volume", "@v", "before"),)),
    Scenario("wipe", "wipe", MARKED, DELETE, inside=(("wipe", "building"), ("wipe", "after"))),
    Scenario("undelete", "undelete_volume", (*MARKED, DELETE), UNDELETE, options=KEPT),
    Scenario(
        "undelete-fails",
        "undelete_volume",
        (*MARKED, DELETE),
        UNDELETE,
        faults=(_fails("restore_volume", "@v"),),
        options=KEPT,
    ),
    Scenario("extend", "extend_volume", MARKED, EXTEND, inside=(("extend_volume", "after"),)),
    Scenario("extend-connected", "extend_volume", (*MARKED, CONNECTED), EXTEND),
    Scenario("extend-fails", "extend_volume", MARKED, EXTEND, faults=(_fails("extend_volume", "@v", "before"),)),
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
    Scenario("snapshot-fails", "create_snapshot", MARKED, SNAPSHOT, faults=(_fails("create_snapshot", "@s"),)),
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
        faults=(_fails("create_volume_from_snapshot", "@v"),),
    ),
    Scenario(
        "revert-waits-behind-its-pivot",
        "revert_to_snapshot",
        WITH_SNAPSHOT,
        REVERT,
        faults=(_fails("trash_volume", "@v", "before", "volmgr.backend_down"),),
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
        faults=(_fails("manage_existing", "@c"),),
    ),
    Scenario("manage-snapshot", "manage_existing_snapshot", SNAPSHOT_LET_GO, MANAGE_SNAPSHOT),
    Scenario(
        "manage-snapshot-fails",
        "manage_existing_snapshot",
        SNAPSHOT_LET_GO,
        MANAGE_SNAPSHOT,
        faults=(_fails("manage_existing_snapshot", "@c"),),
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
    Scenario("backup-fails", "create_backup", MARKED, BACKUP, faults=(_fails("backup_volume", "@b"),), lean=True),
    Scenario(
        "restore",
        "restore_backup",
        WITH_BACKUP,
        RESTORE,
        inside=(("restore_backup", "building"),),
        lean=True,
    ),
    Scenario(
        "restore-fails", "restore_backup", WITH_BACKUP, RESTORE, faults=(_fails("restore_backup", "@v"),), lean=True
    ),
    Scenario(
        "create-from-backup",
        "create_volume",
        WITH_BACKUP,
        _create("@c", backup_id="@b"),
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
        faults=(_fails("create_cloned_volume", "@v"),),
        since="create_volume/keep/undo",
        options=CACHED,
        lean=True,
    ),
    Scenario(
        "create-from-the-image-cache",
        "create_volume",
        (STORED, FROM_IMAGE),
        _create("@c", image_id="@k", size=3),
        inside=(("create_cloned_volume", "building"),),
        options=CACHED,
        lean=True,
    ),
    Scenario(
        "create-from-the-image-cache-fails",
        "create_volume",
        (STORED, FROM_IMAGE),
        _create("@c", image_id="@k", size=3),
        faults=(_fails("create_cloned_volume", "@c"),),
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
        faults=({**_fails("delete_volume", "@v", "before"), "times": 1},),
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


def told(value: Any, ids: dict[str, str]) -> Any:
    """Return a value with its roles exchanged for ids."""
    if isinstance(value, str):
        return _ROLE.sub(lambda match: ids[match[0]], value)
    if isinstance(value, dict):
        return {key: told(item, ids) for key, item in value.items()}
    if isinstance(value, list):
        return [told(item, ids) for item in value]
    return value
