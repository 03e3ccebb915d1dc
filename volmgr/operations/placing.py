# SPDX-License-Identifier: Apache-2.0
"""How a creation finds its place: by the scheduler, beside its source, and again elsewhere after a failure.

The place is decided before the row is written, so no row ever waits without one: a creation for another worker is put
into that worker's journal, with its claim, in the admitting transaction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from volmgr import exception, names, qos, types, validate
from volmgr.db import exports, models
from volmgr.db.admission import Admitting
from volmgr.operations.catalogue import usable
from volmgr.operations.image_source import Found
from volmgr.placement import Place, Placement
from volmgr.scheduler import Request
from volmgr.scheduler.specs import met

if TYPE_CHECKING:
    from volmgr.context import RequestContext
    from volmgr.db.closing import Closing
    from volmgr.tasks import Backend, Task

#: errors that another backend would answer in the same way.
_SAME_EVERYWHERE = (
    exception.Invalid,
    exception.NotFound,
    exception.Conflict,
    exception.QuotaExceeded,
    exception.Forbidden,
    exception.Cancelled,
    exception.Moved,
    exception.LeaseLost,
)
HINTS = ("same_host", "different_host")


def scheduler_hints(field: str, value: Any) -> dict[str, list[str]]:
    """Affinity: ``same_host`` and ``different_host``, each a volume's id or a list of them."""
    if not isinstance(value, Mapping):
        raise validate.invalid(field, "must be a mapping", value)
    for key in value:
        if key not in HINTS:
            raise validate.invalid(field, f"knows only {', '.join(HINTS)}", key)
    return {
        key: validate.uuids(f"{field}.{key}", [item] if isinstance(item, str) else item) for key, item in value.items()
    }


@dataclass
class Placing:
    """What a creation knows before its transaction.

    :ivar place: where it goes; None as long as its source decides, or its size is not known.
    :ivar image: the image that it is made from.
    """

    placement: Placement | None
    kind: types.VolumeType | None
    request: Request
    place: Place | None = None
    image: Found | None = None

    def beside(self, tx: Admitting, source: types.Volume | types.Snapshot, size: int) -> None:
        """Take the source's pool as the place, or another of its backend where that copies from one to the other.

        :raises NoValidBackend: none suits the volume.
        """
        if self.kind is None and source.volume_type_id is not None:
            self.kind = tx.type_of(source.volume_type_id)
        own = tx.settings
        if self.placement is not None:
            wanted = dataclasses.replace(
                self.request, size=size, host=source.host or own.place, patient=own.host, **of_type(self.kind)
            )
            try:
                self.place = self.placement.choose(wanted, reread=False)
            except exception.NoValidBackend:
                beside = names.service_of(str(wanted.host))
                if wanted.host == beside or not self.placement.clones_across(str(wanted.host)):
                    raise
                self.place = self.placement.choose(dataclasses.replace(wanted, host=beside), reread=False)

    @property
    def multiattach(self) -> bool:
        """Whether the type makes every volume of it attachable several times."""
        return self.kind is not None and met("<is> True", plain(self.kind.extra_specs.get("multiattach")))


def plain(text: str | None) -> str:
    """Return the value that an extra spec demands, without the operator before it."""
    return str(text or "").replace("<is>", "").strip()


def of_type(kind: types.VolumeType | None) -> dict[str, Any]:
    """Return what a type adds to a request for a place."""
    if kind is None:
        return {"extra_specs": {}, "qos": {}}
    specs = kind.qos_specs["specs"] if kind.qos_specs and kind.qos_specs["consumer"] != qos.FRONT_END else {}
    return {"extra_specs": kind.extra_specs, "qos": specs}


def request_of(backend: Backend, context: RequestContext, values: Mapping[str, Any]) -> tuple[Any, Request]:
    """Return (volume type, request for a place) of a creation's arguments.

    :param values: size, volume_type, availability_zone, host, scheduler_hints, name, metadata…
    :raises VolumeTypeNotFound: there is no such type. :raises Invalid: a hint names a volume that is not there.
    """
    name = values.get("volume_type")
    kind = usable(context, backend.find_type(name)) if name is not None else None
    host = values.get("host")
    same, different = _hinted(backend, context, values.get("scheduler_hints") or {})
    request = Request(
        size=values.get("size") or 0,
        zone=values.get("availability_zone"),
        host=host,
        same=same,
        different=different,
        patient=names.service_of(host) if host is not None else None,
        volume={
            "id": values.get("volume_id") or "",
            "name": values.get("name") or "",
            "volume_type": kind.name if kind else "",
            "volume_type_id": kind.id if kind else "",
            "project_id": context.project_id or "",
            "user_id": context.user_id or "",
            "availability_zone": values.get("availability_zone") or "",
            "multiattach": bool(values.get("multiattach")),
        },
        **of_type(kind),
    )
    return kind, request


def _hinted(
    backend: Backend, context: RequestContext, hints: Mapping[str, list[str]]
) -> tuple[frozenset[str] | None, frozenset[str]]:
    """Return (hosts of which it must be on one, hosts that it must not be on), which are where other volumes are."""
    if not hints or backend.placement is None:
        return None, frozenset()
    table = models.volumes
    wanted = {item for ids in hints.values() for item in ids}
    query = sa.select(table.c.id, table.c.host, table.c.project_id).where(table.c.id.in_(wanted))
    with backend.placement.database.reader() as conn:
        rows = conn.execute(query).all()
    found = {row.id: row.host for row in rows if context.scope in (None, row.project_id)}
    if missing := sorted(wanted - set(found)):
        raise exception.Invalid(
            f"scheduler_hints name the volume {missing[0]}, which does not exist", field="scheduler_hints"
        )
    places = {key: frozenset(names.service_of(found[item]) for item in hints.get(key, ())) for key in HINTS}
    return places["same_host"] if "same_host" in hints else None, places["different_host"]


#: what ties a volume to the backend where its source or its group is.
_ROOTED = ("snapshot_id", "source_volid", "source_replica", "group_id")


def again(task: Task, values: Mapping[str, Any], error: exception.VolmgrError) -> Place | None:
    """Return where a creation that has failed is tried next, None if nowhere; the failure goes into its history."""
    placement, attempts = task.backend.placement, task.backend.settings.placement_attempts
    history = task.data.setdefault("history", [])
    if placement is None or not task.operation.claims or isinstance(error, _SAME_EVERYWHERE):
        return None
    volume = task.volume(values["volume_id"])
    here = str(volume.host)
    history.append({
        "host": here, "at": task.clock.now().isoformat(), "error": exception.to_primitive(error)
    })
    if len(history) >= attempts or any(values.get(key) for key in _ROOTED):
        _give_up(history, error)
        return None
    try:
        _kind, request = request_of(task.backend, task.context, values)
        request = dataclasses.replace(
            request, tried=frozenset(item["host"] for item in history), patient=None, size=volume.size
        )
        return placement.choose(request)
    except exception.VolmgrError as refusal:
        error.details.setdefault("no_other_place", refusal.message)
        _give_up(history, error)
        return None


def _give_up(history: list[dict[str, Any]], error: exception.VolmgrError) -> None:
    error.details["history"] = [
        {"host": item["host"], "code": item["error"]["code"], "message": item["error"]["message"]} for item in history
    ]


def move(task: Task, tx: Closing, volume_id: str, place: Place) -> None:
    """Write that a volume in the making is made elsewhere."""
    volume = task.volume(volume_id)
    mine = (models.volumes.c.id == volume_id) & (models.volumes.c.operation_id == task.id)
    values = {"host": place.host, "availability_zone": place.zone, "updated_at": tx.now}
    if not tx.conn.execute(sa.update(models.volumes).where(mine).values(values)).rowcount:
        raise exception.LeaseLost(id=task.id)
    stored = models.objects.c.id == volume.name_id
    tx.conn.execute(sa.update(models.objects).where(stored).values(host=place.host))
    exports.delete(tx.conn, volume_id)  # an address of the place before
