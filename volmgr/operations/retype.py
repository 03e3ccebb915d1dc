# SPDX-License-Identifier: Apache-2.0
"""Giving a volume another type: where it is if the backend can keep what the type promises, else elsewhere.

Snapshots keep the type under which they were taken: their storage is what it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from volmgr import exception, qos, types, validate
from volmgr.db import models
from volmgr.db.admission import Admitting
from volmgr.db.closing import Closing
from volmgr.operations.base import Args, Claim, Step, arg
from volmgr.operations.catalogue import usable
from volmgr.operations.moving import IN_PLACE, Moving, here, plan_move, request_for
from volmgr.operations.placing import plain
from volmgr.operations.registry import register
from volmgr.scheduler import Pool, checks
from volmgr.scheduler.specs import met
from volmgr.tasks import Backend, Task

if TYPE_CHECKING:
    from volmgr.context import RequestContext

ON_DEMAND, NEVER = "on-demand", "never"
Diff = dict[str, dict[str, tuple[Any, Any]]]
#: extra specs that say how storage is made: no other worker than a driver can change it.
_OF_STORAGE = ("replication", "capabilities:replication", "provisioning:type")


def difference(old: types.VolumeType | None, new: types.VolumeType | None) -> Diff:
    """Return {key: (old, new)} of what differs, by ``encryption``, ``qos_specs`` and ``extra_specs``."""
    specs = [dict(kind.extra_specs) if kind else {} for kind in (old, new)]
    limits = []
    for kind in (old, new):
        found = kind.qos_specs if kind else None
        limits.append({"consumer": found["consumer"], **found["specs"]} if found else {})
    return {"encryption": {}, "qos_specs": _differing(*limits), "extra_specs": _differing(*specs)}


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = sorted({*old, *new})
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def changes_storage(diff: Diff, old: types.VolumeType | None, new: types.VolumeType | None) -> bool:
    """Return whether a change of type means work on storage, for a driver that cannot do any."""
    if any(key in diff["extra_specs"] for key in _OF_STORAGE) or diff["encryption"]:
        return True
    kept = [kind.qos_specs for kind in (old, new) if kind is not None and kind.qos_specs]
    return bool(diff["qos_specs"]) and any(found["consumer"] != qos.FRONT_END for found in kept)


def unfit(volume: types.Volume, kind: types.VolumeType, pools: Sequence[Pool]) -> str:
    """Return why the pool that a volume is in does not suit a type, empty if it does.

    How full it is does not matter, as the volume is there already.
    """
    pool = next((item for item in pools if item.host == volume.host), None)
    if pool is None:
        return ""
    request = request_for(volume, kind)
    wanted = kind.extra_specs.get(checks.PROVISIONING)
    if wanted in ("thin", "thick") and not pool.capabilities.get(f"{wanted}_provisioning_support"):
        return f"the type wants {wanted} volumes, {pool.host} makes none"
    verdicts = (check(request, pool) for check in (checks.capabilities, checks.filter_function))
    return "; ".join(verdict.why for verdict in verdicts if verdict.why)


@dataclass(frozen=True)
class RetypeArgs(Args):
    """Arguments of retype. ``new_type_id`` is an id or a name; ``host`` is where it may go, if it has to move."""

    volume_id: str = arg(validate.uuid)
    new_type_id: str = arg(validate.name)
    host: str | None = arg(validate.optional(validate.host), default=None)
    migration_policy: str = arg(validate.one_of(NEVER, ON_DEMAND), default=NEVER)
    reservations: list[str] | None = arg(validate.optional(validate.uuids), default=None)
    old_reservations: list[str] | None = arg(validate.optional(validate.uuids), default=None)


@register
class Retype(Moving):
    """Give a volume another type; with the policy ``on-demand`` it moves where its backend does not suit the type."""

    verb = "retype"
    args = RetypeArgs
    a: RetypeArgs
    beginning = None

    @property
    def reserved(self) -> Sequence[str]:
        return [*(self.a.reservations or ()), *(self.a.old_reservations or ())]

    def prepare(
        self, backend: Backend, context: RequestContext, volume: Callable[[str], types.Volume]
    ) -> dict[str, Any]:
        found = volume(self.a.volume_id)
        here(backend, found)
        kind = usable(context, backend.find_type(self.a.new_type_id))
        assert backend.placement is not None
        place = found.host
        why = unfit(found, kind, backend.placement.pools())
        if why and (beside := _beside(backend, found, kind)) is not None:
            place, why = beside, ""
        if not why:
            old = backend.types(found.volume_type_id)
            if not backend.driver.supports("retype") and changes_storage(difference(old, kind), old, kind):
                why = f"its driver, {type(backend.driver).__name__}, cannot change what differs"
        if not why:
            return {"way": IN_PLACE, "host": place, "zone": found.availability_zone}
        return self._elsewhere(backend, found, kind, why)

    def _elsewhere(self, backend: Backend, volume: types.Volume, kind: types.VolumeType, why: str) -> dict[str, Any]:
        if self.a.migration_policy == NEVER:
            raise exception.Conflict(
                f"The volume {volume.id} cannot have the type {kind.name} on {volume.host}: {why}",
                hint=f"Let it move: volmgr volume retype --migration-policy on-demand {volume.id} {kind.name}",
                resource="volume", id=volume.id, status=volume.status,
            )
        return plan_move(backend, volume, kind, self.a.host)

    def claims(self) -> Sequence[Claim]:
        return (Claim("volume", self.a.volume_id, "retype"),)

    def claimed(self, tx: Admitting) -> None:
        super().claimed(tx)
        change = tx.data.get("types")
        if change and not multiattach(tx.type_of(change[1])):
            before = multiattach(tx.type_of(change[0])) if change[0] else False
            users, volume = models.attachments, tx.volume(self.a.volume_id)
            rows = tx.conn.execute(users.select().where(users.c.volume_id == volume.id)).all()
            if before and len(rows) > 1:
                raise exception.VolumeAttached(
                    f"The volume {volume.id} has {len(rows)} attachments, and the new type allows one",
                    id=volume.id, status=volume.status,
                )

    def steps(self, task: Task) -> Sequence[Step]:
        return (
            Step(
                "retype",
                lambda: self._retype(task),
                lambda: self._back(task),
                pivot=lambda tx: self._retyped(task, tx),
            ),
            *self.move_steps(task),
        )

    def _ask(self, task: Task, *, back: bool = False) -> tuple[bool, types.ModelUpdate]:
        """Ask the driver to give the volume its new type, or the old one back."""
        volume = task.volume(self.a.volume_id)
        kinds = [task.backend.types(item) if item else None for item in task.data["types"]]
        old, new = reversed(kinds) if back else kinds
        diff = difference(old, new)
        if not task.driver.supports("retype"):
            return not changes_storage(diff, old, new), None
        asked = dataclasses.replace(volume, volume_type=old)
        answer = task.driver.retype(task.context, asked, new or types.VolumeType("", ""), diff, {"host": volume.host})
        done, update = answer if isinstance(answer, tuple) else (answer, None)
        return bool(done), update

    def _retype(self, task: Task) -> dict[str, Any] | None:
        if task.data["plan"]["way"] != IN_PLACE or not task.data.get("types"):
            return None
        done, update = self._ask(task)
        if not done:
            kind, volume = self.type_for(task), task.volume(self.a.volume_id)
            assert kind is not None
            task.data["plan"] = self._elsewhere(task.backend, volume, kind, "its driver cannot change what differs")
        return dict(update) if update else None

    def _back(self, task: Task) -> None:
        if task.data["plan"]["way"] == IN_PLACE and task.data.get("types"):
            self._ask(task, back=True)

    def _retyped(self, task: Task, tx: Closing) -> bool:
        if task.data["plan"]["way"] != IN_PLACE:
            return False
        update = tx.model_update("volume", self.a.volume_id, task.results["retype"])
        self.settle_on(task, tx, **{"host": task.data["plan"]["host"], **update})
        return True

    def flags(self, task: Task, volume: types.Volume) -> dict[str, Any]:
        old, new = (task.backend.types(item) if item else None for item in task.data["types"])
        if multiattach(new) != multiattach(old):
            return {"multiattach": multiattach(new)}
        return {}


def _beside(backend: Backend, volume: types.Volume, kind: types.VolumeType) -> str | None:
    """Return another pool of the same backend that suits a type, if the driver may bring a volume there by itself."""
    assert backend.placement is not None
    pools = backend.placement.pools()
    if volume.group_id is not None or not backend.driver.supports("retype"):
        return None
    own = (pool.host for pool in pools if pool.service == backend.settings.host and pool.host != volume.host)
    return next((host for host in sorted(own) if not unfit(dataclasses.replace(volume, host=host), kind, pools)), None)


def multiattach(kind: types.VolumeType | None) -> bool:
    """Return whether a type makes every volume of it attachable several times."""
    return kind is not None and met("<is> True", plain(kind.extra_specs.get("multiattach")))
