# SPDX-License-Identifier: Apache-2.0
"""What the verbs over groups share: their members are held with them, and answered for one by one.

A driver's verb over a group returns a model update of the whole and lists of updates of members, as documented with
:class:`volmgr.drivers.interfaces.groups.ConsistencyGroupVD`. One member that is in error puts the whole in error, and
then the statuses of the others are what the driver says. This module knows no verb.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception, states, types
from volmgr.db import claims, groups, models, records
from volmgr.db.admission import Admitting, Blocked
from volmgr.db.closing import Closing
from volmgr.operations.base import Claim
from volmgr.tasks import Task

if TYPE_CHECKING:
    from volmgr.context import RequestContext
    from volmgr.operations.placing import Placing
    from volmgr.tasks import Backend

LOG = logging.getLogger(__name__)

BAD = ("error", "error_deleting")
Updates = Sequence[Mapping[str, Any]] | None


# --- holding members --------------------------------------------------------------------------------------------------


def take(tx: Admitting, wanted: Iterable[Claim]) -> None:
    """Take claims that depend on rows.

    :raises Blocked: one cannot be taken.
    """
    for claim in wanted:
        if (blocked := tx.take((claim,))) is not None:
            raise Blocked(blocked)


def status_before(backend: Backend, resource: str, resource_id: str) -> str | None:
    """Return the status that a group or cgsnapshot has before a request, for a request that is cancelled."""
    if backend.placement is None:
        return None
    with backend.placement.database.reader() as conn:
        row = claims.row(conn, resource, resource_id)
    return None if row is None or row.operation_id is not None else str(row.status)


def was_asked(task: Task, step: str) -> bool:
    """Return whether the driver may have done anything of a step."""
    return task.abandoned or step in task.data.get("times", {})


# --- what a driver says -----------------------------------------------------------------------------------------------


def judge(task: Task, ids: Sequence[str], whole: Mapping[str, Any] | None, *updates: Updates) -> dict[str, Any]:
    """Return what a driver has told of each member, by id, if all went well.

    :param ids: of the members that were asked for.
    :raises GroupIncomplete: the whole or a member is in error; what was told of the members is kept in the task.
    :raises Inconsistent: the driver tells of something that it was not asked for.
    """
    told: dict[str, dict[str, Any]] = {}
    for item in (item for each in updates for item in each or ()):
        if item.get("id") not in ids:
            raise exception.Inconsistent(
                f"The driver answered {task.operation.verb} with an update of {item.get('id')}, which is no member"
            )
        told[str(item["id"])] = {key: value for key, value in item.items() if key != "id"}
    status = str((whole or {}).get("status", ""))
    if status in BAD or any(item.get("status") in BAD for item in told.values()):
        kept = {key: str(item["status"]) for key, item in told.items() if item.get("status")}
        task.data["told"] = kept
        raise exception.GroupIncomplete(
            hint=f"volmgr operation show {task.id}, and the log of the worker", verb=task.operation.verb, members=kept
        )
    return told


def told_status(task: Task, member_id: str) -> str:
    """Return the status of a member after a failure: what the driver said of it, else error."""
    return str((task.data.get("told") or {}).get(member_id, "error"))


def columns_of(tx: Closing, resource: str, member_id: str, told: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a driver's update of a member as columns, without its status."""
    update = {key: value for key, value in (told or {}).items() if key != "status"}
    return tx.model_update(resource, member_id, update)


def settle(tx: Closing, resource: str, member_id: str, status: str) -> None:
    """Give a member's exclusive hold back in the status that a driver told."""
    machine = states.VOLUME if resource == "volume" else states.SNAPSHOT
    if status not in machine.stable or status == "deleted":
        status = "error"
    idle = resource == "volume" and status in states.IDLE
    tx.release(resource, member_id, None if idle else status)


def disown(task: Task, tx: Closing, member: types.Volume | types.Snapshot) -> None:
    """Separate a member that could not be made from its object's name: what bears it is not its own."""
    if not task.abandoned and told_status(task, member.id) in BAD:
        tx.exchange_object("volume" if isinstance(member, types.Volume) else "snapshot", member.id, member.name_id)


def write(tx: Closing, volume_id: str, told: Mapping[str, Any] | None) -> None:
    """Write a driver's update of a volume that is shared: an idle status follows from its attachments, as ever."""
    columns = columns_of(tx, "volume", volume_id, told)
    status = (told or {}).get("status")
    if status in BAD:
        columns["status"] = status
    if columns:
        table = models.volumes
        free = (table.c.id == volume_id) & table.c.operation_id.is_(None)
        tx.conn.execute(sa.update(table).where(free).values(**columns, updated_at=tx.now))


def unmake(task: Task, kind: str, made: Sequence[types.Volume | types.Snapshot], whole: Callable[[], Any]) -> None:
    """Take back what was made of some members, also half of it, also nothing; not to the trash.

    :param whole: asks the driver to delete the whole with these members.
    """
    if not task.driver.supports(f"trash_{kind}"):
        whole()
        return
    for member in made:
        getattr(task.driver, f"delete_{kind}")(member)


def bring_back(task: Task, kind: str, gone: Sequence[types.Volume | types.Snapshot]) -> Callable[[], None] | None:
    """Return what undoes the deletion of members: from the trash come those of which the driver did not say deleted.

    None where the driver has no trash to bring anything back from.
    """
    restore = f"restore_{kind}"
    if not (task.driver.supports(f"trash_{kind}") and task.driver.supports(restore)):
        return None

    def undo() -> None:
        told = task.data.get("told") or {}
        for member in gone:
            if told.get(member.id) == "deleted":
                continue
            try:
                getattr(task.driver, restore)(member)
            except exception.NotFound:
                LOG.warning("The %s %s had no storage that could be brought back", kind, member.id)

    return undo


_SOURCES = (("snapshot", "snapshot_id"), ("volume", "source_volid"), ("volume", "source_replica"))


# --- volumes in groups ------------------------------------------------------------------------------------------------


def place_in_group(
    backend: Backend,
    context: RequestContext,
    made: Placing,
    values: Mapping[str, Any],
) -> None:
    """Let a volume that is created in a group be placed where the group is.

    :param values: the arguments of create_volume.
    :raises Invalid: another host was asked for, or its source is elsewhere.
    """
    if backend.placement is None:
        return
    with backend.placement.database.reader() as conn:
        row = claims.row(conn, "group", values["group_id"])
        kept = next(
            (claims.row(conn, noun, values[name]) for noun, name in _SOURCES if values.get(name) is not None), None
        )
    if row is None or context.scope not in (None, row.project_id):
        return  # the claim on it says so, unless the request is a repeat
    host, source = str(row.host), kept.host if kept is not None else None
    if source is not None and source != host:
        raise exception.Invalid(f"The group is on {host}, the source of the volume on {source}", field="group_id")
    asked = values.get("host")
    if asked is not None and asked not in (host, host.partition("#")[0]):
        raise exception.Invalid(f"The group is on {host}, {asked} was asked for", field="host")
    made.request = dataclasses.replace(made.request, host=host, patient=host.partition("#")[0])


def check_member(group: types.Group, volume: types.Volume, field: str) -> None:
    """Return if a volume may be a member of a group.

    :raises Invalid: it is another project's, elsewhere, or of a type that the group does not have.
    """
    if volume.project_id != group.project_id:
        raise exception.Invalid(f"The volume {volume.id} is of another project than the group", field=field)
    if volume.host != group.host:
        raise exception.Invalid(
            f"The volume {volume.id} is on {volume.host}, the group on {group.host}",
            hint="Only volumes of one pool can be snapshotted at one instant",
            field=field,
        )
    if group.volume_types and volume.volume_type_id not in group.volume_types:
        raise exception.Invalid(
            f"The volume {volume.id} has the type {volume.volume_type_id or 'none'}, which the group does not have",
            hint=f"Its types: {', '.join(group.volume_types)}",
            field=field,
        )


def need_alone(volume: Any, why: str) -> None:
    """Return if a volume is in no group.

    :param volume: a record or a row of one. :param why: what a group cannot follow, in words.
    :raises Conflict: it is; the hint says how to take it out.
    """
    if volume.group_id is not None:
        raise exception.Conflict(
            f"The volume {volume.id} is in the group {volume.group_id}, {why}",
            hint=f"Take it out first: volmgr group update --remove {volume.id} {volume.group_id}",
            resource="volume", id=volume.id, status=volume.status,
        )


def keep_type(conn: Connection, volume: types.Volume, type_id: str) -> None:
    """Return if a volume may have another type: if it is in no group, or in one that has that type.

    :raises Conflict: its group has other types only.
    """
    if volume.group_id is None:
        return
    row = claims.row(conn, "group", volume.group_id)
    kept = records.group(row).volume_types if row is not None else ()
    if kept and type_id not in kept:
        need_alone(volume, f"which has only volumes of the types {', '.join(kept)}")


def keep_whole(tx: Admitting, snapshot_id: str) -> None:
    """Return if a snapshot may be deleted by itself.

    :raises Conflict: it is a part of a cgsnapshot.
    """
    if (whole := tx.snapshot(snapshot_id).cgsnapshot_id) is not None:
        raise _part(f"The snapshot {snapshot_id} is a part of the cgsnapshot {whole}", "snapshot", snapshot_id, whole)


def keep_snapshots(tx: Admitting, volume_id: str) -> None:
    """Return if a volume may be deleted with its snapshots.

    :raises Conflict: one is a part of a cgsnapshot.
    """
    if (whole := groups.cgsnapshot_over(tx.conn, volume_id)) is not None:
        raise _part(f"The volume {volume_id} has a part of the cgsnapshot {whole}", "volume", volume_id, whole)


def _part(message: str, resource: str, resource_id: str, whole: str) -> exception.Conflict:
    hint = f"Delete all of it: volmgr cgsnapshot delete {whole}"
    return exception.Conflict(message, hint=hint, resource=resource, id=resource_id, cgsnapshot_id=whole)
