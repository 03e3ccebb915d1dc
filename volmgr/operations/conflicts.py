# SPDX-License-Identifier: Apache-2.0
"""What happens when a verb meets another that holds the same resource: the table, as data.

Rows: the verb that holds the resource. Columns: the verb that comes. A cell is one of the letters below. Journalled
verbs that may not go on beside the holder wait in the journal for its end and then find the resource as it left it; a
verb that makes no sense after the holder is refused at once, naming it. Verbs that are no operations (update, attach,
connect, disconnect, detach) are answered at once, so they never wait.

``W`` wait in the journal · ``B`` both go on · ``S`` same result: join the holder · ``C`` Conflict
"""

from __future__ import annotations

from volmgr.operations.base import Policy

_LETTERS = {"W": Policy.WAIT, "B": Policy.BOTH, "S": Policy.SAME, "C": Policy.CONFLICT}

# What may be asked of a volume. ``clone`` is create_volume as it holds its source; ``attach`` stands for attach_volume,
# attachment_create and attachment_complete; ``detach`` for detach_volume and attachment_delete.
_VOLUME = """
holder            create  delete  extend  revert  snapshot  clone  update  attach  connect  disconnect  detach
create            S       W       W       W       W         W      B       C       C        B           B
delete            C       S       C       C       C         C      C       C       C        B           B
extend            C       W       W       W       W         W      B       B       B        B           B
revert            C       W       W       W       W         W      B       C       C        B           B
snapshot          C       W       W       W       B         B      B       B       B        B           B
clone             C       W       W       W       B         B      B       B       B        B           B
"""

_SNAPSHOT = """
holder            create  delete  revert  clone  connect  disconnect
create            S       W       W       W      C        B
delete            C       S       C       C      C        B
revert            C       W       W       W      C        B
clone             C       W       W       B      B        B
"""

# What may be asked of a group. ``change`` is update_consistencygroup, ``join`` is create_volume in it, ``snapshot`` and
# ``unsnapshot`` are create_cgsnapshot and delete_cgsnapshot, ``clone`` is a group made from it. Who copies a group
# waits for the members that are in the making, not for the group.
_GROUP = """
holder            create  delete  change  snapshot  unsnapshot  clone  join
create            S       W       W       W         W           W      W
delete            C       S       C       C         C           C      C
change            C       W       W       W         W           W      W
snapshot          C       W       W       B         B           B      B
unsnapshot        C       W       W       B         B           B      B
clone             C       W       W       B         B           B      B
join              C       W       W       W         B           W      B
"""

_CGSNAPSHOT = """
holder            create  delete  clone
create            S       W       W
delete            C       S       C
clone             C       W       B
"""


# ``chain`` is create_backup as it holds the backup that it is made against.
_BACKUP = """
holder            create  delete  restore  chain
create            S       W       W        W
delete            C       S       C        C
restore           C       W       W        W
chain             C       W       W        B
"""


def _parse(text: str) -> dict[tuple[str, str], Policy]:
    header, *rows = (line.split() for line in text.strip().splitlines())
    return {
        (row[0], column): _LETTERS[letter] for row in rows for column, letter in zip(header[1:], row[1:], strict=True)
    }


TABLE: dict[str, dict[tuple[str, str], Policy]] = {
    "volume": _parse(_VOLUME),
    "snapshot": _parse(_SNAPSHOT),
    "group": _parse(_GROUP),
    "cgsnapshot": _parse(_CGSNAPSHOT),
    "backup": _parse(_BACKUP),
}

#: how each journalled verb is called in the table, by the noun of the resource that it holds.
ALIASES: dict[str, dict[str, str]] = {
    "volume": {
        "create_volume": "clone",
        "delete_volume": "delete",
        "extend_volume": "extend",
        "copy_volume_to_image": "extend",
        "revert_to_snapshot": "revert",
        "create_snapshot": "snapshot",
        "delete_snapshot": "snapshot",
        "undelete_volume": "create",
        "manage_existing": "create",
        "manage_existing_snapshot": "snapshot",
        "update_volume": "update",
        "retype": "revert",
        "migrate_volume": "revert",
        "migrate_volume_completion": "revert",
        "update_migrated_volume": "revert",
        "accept_transfer": "revert",
        "promote_replica": "revert",
        "reenable_replication": "clone",
        "discard": "clone",
        "restore_storage": "clone",
        # A snapshot is what is read, so connections go on beside a backup; what is restored to is nobody's meanwhile.
        "create_backup": "extend",
        "restore_backup": "revert",
    },
    "snapshot": {
        "create_snapshot": "create",
        "manage_existing_snapshot": "create",
        "delete_snapshot": "delete",
        "revert_to_snapshot": "revert",
        "create_volume": "clone",
        "delete_volume": "delete",
        "accept_transfer": "revert",
        "discard": "clone",
        "restore_storage": "clone",
        "create_backup": "clone",
    },
    "backup": {
        "create_backup": "chain",
        "delete_backup": "delete",
        "restore_backup": "restore",
        "create_volume": "restore",
    },
}

ALIASES["group"] = {
    "create_consistencygroup": "create",
    "update_consistencygroup": "change",
    "delete_consistencygroup": "delete",
    "create_cgsnapshot": "snapshot",
    "delete_cgsnapshot": "unsnapshot",
    "create_consistencygroup_from_src": "clone",
    "create_volume": "join",
}
ALIASES["cgsnapshot"] = {
    "create_cgsnapshot": "create",
    "delete_cgsnapshot": "delete",
    "create_consistencygroup_from_src": "clone",
}
ALIASES["volume"] |= {
    "create_cgsnapshot": "snapshot",
    "update_consistencygroup": "snapshot",
    "create_consistencygroup_from_src": "clone",
    "delete_consistencygroup": "delete",
}
ALIASES["snapshot"] |= {
    "create_cgsnapshot": "create",
    "create_consistencygroup_from_src": "clone",
    "delete_cgsnapshot": "delete",
}
#: verbs that are called otherwise where they hold what they make than where they hold its source.
MAKERS = {
    ("volume", "create_volume"): "create",
    ("backup", "create_backup"): "create",
    ("volume", "create_consistencygroup_from_src"): "create",
    ("group", "create_consistencygroup_from_src"): "create",
}


def name_in_table(resource: str, verb: str, *, own: bool) -> str:
    """Return a verb's row or column.

    :param own: the resource is one that the operation is about, not its source: create_volume holds its own volume as
        ``create`` and its source as ``clone``.
    """
    if own and (name := MAKERS.get((resource, verb))) is not None:
        return name
    return ALIASES[resource].get(verb, verb)


def policy(resource: str, holder: str, comer: str) -> Policy:
    """Return what happens; pairs that the table does not know are refused."""
    return TABLE[resource].get((holder, comer), Policy.CONFLICT)
