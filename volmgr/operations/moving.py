# SPDX-License-Identifier: Apache-2.0
"""What moving a volume to another backend and giving it another type have in common: the plan, the steps, the pivot.

The source's worker owns the whole. The destination's worker makes an object there by an operation of its own,
:class:`volmgr.operations.receiving.ReceiveVolume`, and keeps it until the source's has come to its pivot or has failed;
the two speak through the journal alone, so either may die at any moment. Before the pivot the old object is the volume,
from it on the new one; there is no moment with two or none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception, names, states, types
from volmgr.db import exports, models, operations, quotas
from volmgr.db import types as volume_types
from volmgr.db.admission import Admitting
from volmgr.db.closing import Closing
from volmgr.drivers.lvm_copy import Pace
from volmgr.operations import members
from volmgr.operations.base import Lane, Operation, Step
from volmgr.operations.placing import of_type
from volmgr.operations.receiving import ReceiveVolume
from volmgr.operations.trash import discard_step, wipe_row, with_object
from volmgr.scheduler import Request
from volmgr.tools import blockcopy

if TYPE_CHECKING:
    from volmgr.tasks import Backend, Task

#: how often a volume in use is copied before it is waited for, at most, and how little a pass writes that is the last.
PASSES, SMALL_BYTES = 3, 64 * types.MiB
IN_PLACE, MOVE, MOVED = "in-place", "move", "moved"
#: what the old backend said of its storage, which means nothing to the new one.
_FORGOTTEN = dict.fromkeys((
    "provider_location", "provider_id", "provider_auth", "driver_data", "replication_status",
    "replication_extended_status", "replication_driver_data",
))


def here(backend: Backend, volume: types.Volume) -> None:
    """Return if a volume is this worker's.

    :raises Moved: it is another's.
    """
    if volume.host is not None and names.service_of(volume.host) != backend.settings.host:
        raise exception.Moved(host=volume.host)


def request_for(volume: types.Volume, kind: types.VolumeType | None, host: str | None = None) -> Request:
    """Return the request for a place that a volume of a type makes."""
    said = {
        "id": volume.id,
        "name": volume.display_name or "",
        "volume_type": kind.name if kind else "",
        "volume_type_id": kind.id if kind else "",
        "project_id": volume.project_id or "",
        "user_id": volume.user_id or "",
        "availability_zone": volume.availability_zone or "",
        "multiattach": volume.multiattach,
    }
    return Request(size=volume.size, host=host, volume=said, **of_type(kind))


def plan_move(
    backend: Backend, volume: types.Volume, kind: types.VolumeType | None, host: str | None, *, assisted: bool = False
) -> dict[str, Any]:
    """Return where a volume goes, as the journal keeps it.

    :param host: the worker or pool that it is to go to, None for the best one. :param assisted: the driver may do it.
    :raises Invalid: it is there already. :raises NoValidBackend: nothing takes it. :raises Conflict: it cannot move.
    """
    own = backend.settings.host
    if host is not None and names.service_of(host) == own:
        raise exception.Invalid(f"The volume {volume.id} is on {own} already", field="host")
    assert backend.placement is not None
    live = check_movable(backend, volume)
    tried = frozenset(pool.host for pool in backend.placement.pools() if pool.service == own)
    place = backend.placement.choose(dataclasses.replace(request_for(volume, kind, host), tried=tried))
    assisted = assisted and not live
    plan = {"way": MOVE, "host": place.host, "zone": place.zone, "assisted": assisted, "live": live}
    if names.parse_host(place.host).host != names.parse_host(own).host:
        plan["far"] = True
        if not (assisted and backend.driver.supports("migrate_volume")):
            plan["initiator"] = way_to(backend, place.host)
    return plan


def way_to(backend: Backend, host: str) -> str:
    """Return how this machine attaches what a pool of another one exports, see :mod:`volmgr.initiator.writing`.

    :raises Unsupported: it cannot, or what is here has no path. :raises BackendDown: it lacks something.
    """
    hint = "Attach the volume and a new one there to one host, copy, then: volmgr volume complete-migration"
    pools = backend.placement.pools() if backend.placement is not None else []
    protocol = next((str(pool.capabilities.get("storage_protocol")) for pool in pools if pool.host == host), "")
    if backend.initiators is None or not backend.driver.supports("local_path"):
        raise exception.Unsupported(
            f"{host} is another machine's, and what is here cannot be read on this one", hint=hint,
            verb="migrate_volume",
        )
    return str(backend.initiators.choose(protocol))


def check_movable(backend: Backend, volume: types.Volume) -> bool:
    """Return whether a volume is in use, if nothing that belongs to it would be left behind.

    :raises Conflict: saying what is in the way: what is in use can move only where its bytes of a moment can be read.
    """
    assert backend.placement is not None
    children = models.snapshots
    with backend.placement.database.reader() as conn:
        snapshots = _count(conn, children.c.volume_id == volume.id)
        used = users(conn, volume.id)
    if snapshots:
        raise exception.VolumeHasSnapshots(
            f"The volume {volume.id} has {snapshots} snapshots, which cannot go with it",
            hint=f"Delete them first: volmgr snapshot list --volume {volume.id}", id=volume.id, count=snapshots,
        )
    members.need_alone(volume, "which is of one backend")
    if used and not all(backend.driver.supports(verb) for verb in ("create_snapshot", "local_path")):
        raise exception.VolumeAttached(
            f"The volume {volume.id} is in use, and its backend takes no snapshots to copy from",
            hint="Detach it first; or let the compute service copy it to a new volume on the other backend and swap "
            f"them: volmgr volume complete-migration {volume.id} NEW",
            id=volume.id, status=volume.status,
        )
    return bool(used)


def users(conn: Connection, volume_id: str) -> int:
    """Return by how many attachments and grants a volume is in use."""
    attached = _count(conn, models.attachments.c.volume_id == volume_id)
    return attached + _count(conn, models.grants.c.resource_id == volume_id)


def _count(conn: Connection, where: Any) -> int:
    return int(conn.execute(sa.select(sa.func.count()).where(where)).scalar_one())


class Moving(Operation[Any]):
    """An operation that may move a volume, give it another type, or both.

    Its journal row has ``plan``, the way and the destination, and ``types``, the old one's id and the new one's, if
    they differ.

    :cvar beginning: the volume's migration_status from the beginning on.
    """

    beginning: ClassVar[str | None] = "starting"

    resource = "volume"
    lane = Lane.BULK
    asks = True

    @property
    def resource_id(self) -> str:
        return str(self.a.volume_id)

    @property
    def new_type(self) -> str | None:
        """The id or name of the new type."""
        return getattr(self.a, "new_type_id", None)

    def admit(self, tx: Admitting) -> None:
        tx.data["plan"] = tx.prepared

    def claimed(self, tx: Admitting) -> None:
        volume = tx.volume(self.a.volume_id)
        tx.data["old"] = volume.name_id
        table = models.volumes
        if self.new_type is not None:
            kind = volume_types.find(tx.conn, self.new_type)
            tx.hold_type(kind)
            if kind.id != volume.volume_type_id:
                members.keep_type(tx.conn, volume, kind.id)
                tx.data["types"] = [volume.volume_type_id, kind.id]
                tx.charge_type(volume.project_id, kind.id, volumes=1, gigabytes=volume.size)
        tx.use_reservations(list(self.reserved), volume.project_id)
        if self.beginning is not None:
            tx.conn.execute(sa.update(table).where(table.c.id == volume.id).values(migration_status=self.beginning))


    # --- steps ----------------------------------------------------------------------------------------------------

    def move_steps(self, task: Task) -> Sequence[Step]:
        """Return the steps of a move; none of them does anything while the plan is another one."""
        old = with_object(task.volume(self.a.volume_id), task.data["old"])
        discard = discard_step(task, old)

        def discard_old() -> None:
            if self._moving(task):
                task.backend.ring(names.service_of(task.data["plan"]["host"]))
                discard.do()

        return (
            Step("place", lambda: self._place(task)),
            Step(
                "copy",
                lambda: self._copy(task),
                lambda: self._let_go(task),
                pivot=lambda tx: self._switch(task, tx),
            ),
            Step("discard", discard_old),
            Step("settle", lambda: self._settle(task)),
        )

    @staticmethod
    def _moving(task: Task) -> bool:
        return bool(task.data["plan"]["way"] == MOVE)

    def type_for(self, task: Task) -> types.VolumeType | None:
        """Return the type that the volume is to have."""
        volume = task.volume(self.a.volume_id)
        return task.backend.types(task.data["types"][1]) if task.data.get("types") else volume.volume_type

    def _place(self, task: Task) -> dict[str, Any] | None:
        """Have the destination make an object, and wait until it has; returns what it said."""
        if not self._moving(task):
            return None
        task.check()
        volume, plan = task.volume(self.a.volume_id), task.data["plan"]
        if "child" not in task.data:
            if not check_movable(task.backend, volume):
                self._withdraw(task)
            connector = self._connector(task)
            task.data |= {"child": str(uuid.uuid4()), "new": str(uuid.uuid4())}
            task.database.repeating(lambda: self._enlist(task, volume, connector))
            task.backend.ring(names.service_of(plan["host"]))
        found = self._child(task)
        if found is None:
            task.wait(
                lambda conn: _made(operations.get(conn, task.data["child"])) is not None,
                f"{plan['host']} makes room for the volume {volume.id}",
            )
            found = self._child(task)
        return found

    def _withdraw(self, task: Task) -> None:
        task.backend.exports.withdraw("volume", self.a.volume_id)

    @staticmethod
    def _connector(task: Task) -> dict[str, Any] | None:
        """Return as what this machine connects to the destination's object; None if that is at a path of its own."""
        plan = task.data["plan"]
        if not plan.get("far"):
            return None
        if "initiator" not in plan:  # the driver was to do it, and could not
            plan["initiator"] = way_to(task.backend, plan["host"])
        found: dict[str, Any] = task.backend.initiators.get(plan["initiator"]).properties()
        return found

    def _enlist(self, task: Task, volume: types.Volume, connector: dict[str, Any] | None) -> None:
        """Write the object and the operation that is to make it, with this operation's note of both."""
        now, host, kind = task.clock.now(), task.data["plan"]["host"], self.type_for(task)
        with task.database.writer() as conn:
            operations.note(conn, task.id, task.epoch, now, data=task.data)
            if operations.get(conn, task.data["child"]) is not None:
                return  # an earlier try came as far as the commit
            table = models.objects
            serial = conn.execute(sa.select(table.c.serial).where(table.c.id == volume.name_id)).scalar_one()
            conn.execute(sa.insert(table).values(
                id=task.data["new"], kind="volume", resource_id=volume.id, role="building", host=host,
                serial=serial, size_bytes=volume.size_bytes, created_at=now,
            ))
            operations.insert(conn, ReceiveVolume.row(
                task.data["child"], names.service_of(host), now, project_id=task.operation.project_id,
                volume_id=volume.id, object_id=task.data["new"], parent_id=task.id, host=host,
                volume_type_id=kind.id if kind else None, connector=connector,
            ))
            mine = models.volumes.c.id == volume.id
            conn.execute(sa.update(models.volumes).where(mine).values(migration_status="migrating"))

    def _child(self, task: Task) -> dict[str, Any] | None:
        """Return what the destination has made, None as long as it has not.

        :raises VolmgrError: it could not.
        """
        with task.database.reader() as conn:
            return _made(operations.get(conn, task.data["child"]))

    def _copy(self, task: Task) -> dict[str, Any] | None:
        """Copy what is in the volume; whoever goes on after a death goes on where the last flush was."""
        if not self._moving(task):
            return None
        volume = task.volume(self.a.volume_id)
        source = with_object(volume, task.data["old"])
        target = dataclasses.replace(with_object(volume, task.data["new"]), host=task.data["plan"]["host"])
        task.driver.before_volume_copy(task.context, source, target)
        live = task.data["plan"]["live"]
        with self._writable(task) as place:
            if live:
                self._follow(task, source, place)
            done = blockcopy.copy(
                task.driver.local_path(source), place, volume.size_bytes,
                start=0 if live else int(task.checkpoints.get("copied", 0)), progress=task.progress,
                keep=lambda position: task.keep(copied=position), spend=_pace(task), compare=live,
            )
        task.driver.after_volume_copy(task.context, source, target)
        return {"bytes": done, "passes": task.data.get("passes", [])}

    @contextlib.contextmanager
    def _writable(self, task: Task) -> Iterator[str | blockcopy.Disk]:
        """Give the destination's object, by its path or attached for as long as the ``with`` lasts."""
        made, plan = task.results["place"], task.data["plan"]
        if plan.get("far"):
            with task.backend.initiators.get(plan["initiator"]).attached(self._connection(task)) as disk:
                yield disk
            return
        if made["path"] is None or not task.driver.supports("local_path"):
            raise exception.Unsupported(
                "Both backends must have the volume's bytes under a path of this machine", verb="migrate_volume"
            )
        yield made["path"]

    def _connection(self, task: Task) -> dict[str, Any]:
        """Return the whole connection_info of the destination's object: the journal has it without its secret."""
        info = task.results["place"]["connection"]
        with task.database.reader() as conn:
            found = exports.wanted(conn, names.INCOMING, task.data["new"])
        if found is None or found.export is None:
            raise exception.Inconsistent(
                "The destination has ended the export of its object",
                hint=f"See: volmgr operation show {task.data['child']}, then try again",
            )
        chap = found.export.chap(task.backend.cipher, task.data["new"])
        secret = {} if chap is None else {"auth_password": chap.password.reveal()}
        return {**info, "data": {**info["data"], **secret}}

    def _let_go(self, task: Task) -> None:
        """Undo the copy: nothing of it stays attached here."""
        self._drop_moment(task)
        plan, made = task.data["plan"], task.results.get("place")
        if plan.get("far") and made is not None:
            # Whatever becomes of its bytes; no secret is needed to leave.
            task.backend.initiators.get(plan["initiator"]).forget(made["connection"])

    # --- a volume in use ------------------------------------------------------------------------------------------

    def _follow(self, task: Task, source: types.Volume, place: str | blockcopy.Disk) -> None:
        """Copy moments of a volume that is in use, each time what differs, and wait until nobody uses it any more.

        :raises Waiting: somebody does; whoever goes on finds nearly all there.
        """
        passes: list[int] = task.data.setdefault("passes", [])
        while len(passes) < PASSES and (not passes or passes[-1] > SMALL_BYTES):
            moment = self._moment(task, source)
            task.checkpoint()  # who audits is to know whose the snapshot is
            task.driver.delete_snapshot(moment)
            task.driver.create_snapshot(moment)
            written = blockcopy.copy(
                task.driver.local_path(moment), place, source.size_bytes,
                progress=task.progress, spend=_pace(task), compare=bool(passes),
            )
            self._drop_moment(task)
            passes.append(written)
        task.wait(
            lambda conn: not users(conn, self.a.volume_id),
            f"what is in the volume {self.a.volume_id} is there; the rest follows once it is detached",
        )
        self._withdraw(task)

    def _moment(self, task: Task, source: types.Volume) -> types.Snapshot:
        """Return the snapshot that a pass is copied from; it exists for that long."""
        moment_id = task.data.setdefault("moment", str(uuid.uuid4()))
        return types.Snapshot(
            id=moment_id, volume_id=source.id, volume_size=source.size, object_id=moment_id, volume=source
        )

    def _drop_moment(self, task: Task) -> None:
        if "moment" in task.data:
            source = with_object(task.volume(self.a.volume_id), task.data["old"])
            task.driver.delete_snapshot(self._moment(task, source))

    # --- the pivot ------------------------------------------------------------------------------------------------

    def _switch(self, task: Task, tx: Closing) -> bool:
        """Let the volume be the new object, on the new backend and of the new type; False if it is not to move."""
        if not self._moving(task):
            return False
        self._release_child(task, tx)
        update = tx.model_update("volume", self.a.volume_id, task.results["place"]["update"])
        self.settle_on(task, tx, object_id=task.data["new"], **_FORGOTTEN | update)
        tx.set_role(task.data["new"], "current")
        tx.trash(task.data["old"], None)
        return True

    def _release_child(self, task: Task, tx: Closing) -> None:
        """Tell the destination's operation that its object is the volume from now on.

        :raises Inconsistent: it has failed, or was cancelled, and takes its object away.
        """
        table = models.operations
        holds = (table.c.state.in_(("running", "parked"))) & (table.c.step == "hold") & table.c.error.is_(None)
        mine = (table.c.id == task.data["child"]) & holds & ~table.c.cancel
        if not tx.conn.execute(sa.update(table).where(mine).values(pivoted=True, not_before=tx.now)).rowcount:
            raise exception.Inconsistent(
                "The destination has given its object up",
                hint=f"See: volmgr operation show {task.data['child']}, then try again",
            )

    def settle_on(self, task: Task, tx: Closing, **columns: Any) -> None:
        """Write where the volume is and of which type, with the quota of both types."""
        volume, plan = task.volume(self.a.volume_id), task.data["plan"]
        values: dict[str, Any] = {"updated_at": tx.now, **columns}
        if plan["way"] != IN_PLACE:
            values |= {"host": plan["host"], "availability_zone": plan["zone"], "migration_status": "completing"}
            exports.delete(tx.conn, volume.id)  # an address of the place before
        change = task.data.get("types")
        if change:
            if not volume_types.hold(tx.conn, change[1]):
                raise exception.VolumeTypeNotFound(id=change[1])
            values |= {"volume_type_id": change[1], **self.flags(task, volume)}
        table = models.volumes
        held = (table.c.id == volume.id) & (table.c.operation_id == task.id)
        if not tx.conn.execute(sa.update(table).where(held).values(values)).rowcount:
            raise exception.LeaseLost(id=task.id)
        if change:
            quotas.release(
                tx.conn, volume.project_id or "", change[0], volumes=1, gigabytes=volume.size, of_type_only=True
            )

    def flags(self, task: Task, volume: types.Volume) -> dict[str, Any]:
        """Return the columns that follow from the new type."""
        return {}

    def _settle(self, task: Task) -> None:
        """Keep the volume until the destination has ended the export of its object: it may serve it only once."""
        if not self._moving(task) or not task.data["plan"].get("far"):
            return
        table = models.operations
        child = sa.select(table.c.state).where(table.c.id == task.data["child"])
        task.wait(
            lambda conn: conn.execute(child).scalar() not in states.UNFINISHED,
            f"{task.data['plan']['host']} takes the volume {self.a.volume_id} over",
        )

    # --- ends -----------------------------------------------------------------------------------------------------

    def commit(self, task: Task, tx: Closing) -> Any:
        plan = task.data["plan"]
        moved = plan["way"] != IN_PLACE
        tx.release("volume", self.a.volume_id, **({"migration_status": "success"} if moved else {}))
        if plan["way"] == MOVE:
            if task.driver.supports("trash_volume"):
                tx.enqueue(wipe_row(task, "volume", task.data["old"], tx.now, 0))
            else:
                tx.forget_object(task.data["old"])
        where = {"host": plan["host"]} if moved else {}
        return {"volume_id": self.a.volume_id, "moved": moved, **where}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if "old" not in task.data:
            tx.give_reservations_back(list(self.reserved), task.operation.project_id)
            return
        if task.pivoted:
            # Given up by an operator: the volume has moved, what may be left of the old object is the audit's.
            moved = {"migration_status": "success"} if task.data["plan"]["way"] != IN_PLACE else {}
            tx.release("volume", self.a.volume_id, **moved)
            return
        volume, table = task.volume(self.a.volume_id), models.operations
        if "child" in task.data:
            # It sees that this one has failed, and takes its object away.
            mine = (table.c.id == task.data["child"]) & (table.c.state == "parked") & (table.c.parked_for == "worker")
            tx.conn.execute(sa.update(table).where(mine).values(not_before=tx.now))
        if (change := task.data.get("types")) and volume_types.hold(tx.conn, change[1]):
            tx.uncharge_type(volume.project_id, change[1], volumes=1, gigabytes=volume.size)
        if task.operation.claims:
            moved = task.data["plan"]["way"] != IN_PLACE
            tx.release("volume", volume.id, **({"migration_status": "error"} if moved else {}))


def _pace(task: Task) -> Callable[[int], None]:
    """Return what keeps a copy below the backend's limit of bytes per second."""
    return Pace(int(task.driver.configuration.safe_get("volume_copy_bps_limit") or 0)).spend


def _made(child: types.OperationRecord | None) -> dict[str, Any] | None:
    """Return what the destination's operation has made, None if it is not there yet.

    :raises VolmgrError: what it failed with.
    """
    if child is None:
        raise exception.Inconsistent("The journal has lost the destination's part of the migration")
    if child.error is not None:
        raise exception.from_primitive(child.error)
    if child.step != "hold":
        return None
    found: Mapping[str, Any] = (child.data or {}).get("results") or {}
    return {**found["build"], "connection": found.get("offer")}
