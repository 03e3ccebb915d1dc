# SPDX-License-Identifier: Apache-2.0
"""What an administrator asks of volmgr, as a table of contents: types, QoS, quotas, placement.

A part of :class:`volmgr.manager.VolumeManager`; the verbs themselves are in :mod:`volmgr.operations.catalogue`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volmgr import qos, validate
from volmgr.db import listing
from volmgr.operations.placing import scheduler_hints
from volmgr.rpc.endpoint import answered
from volmgr.validate import boolean, optional, uuid

if TYPE_CHECKING:
    from volmgr.context import RequestContext
    from volmgr.service import Worker

_word = validate.text(255, 1)
_project = validate.text(255)
_text = optional(validate.description)
_consumer = validate.one_of(*qos.CONSUMERS)
_limits = validate.counts(-1, "volumes", "snapshots", "gigabytes", unset=True)
_amount = validate.integer(0, 2**53)
_EXPIRE = 86400.0


_PLACEMENT: dict[str, validate.Check] = {
    "size": validate.size,
    "volume_type": optional(_word),
    "availability_zone": optional(validate.name),
    "host": optional(validate.host),
    "scheduler_hints": optional(scheduler_hints),
    "multiattach": boolean,
}


def placement_request(field: str, value: Any) -> dict[str, Any]:
    """What is to be placed: known keys with values of their kind, ``size`` at least."""
    checked: dict[str, Any] = validate.filters(_PLACEMENT)(field, value)
    if "size" not in checked:
        raise validate.invalid(f"{field}.size", "is missing")
    return checked


def _paged(filters: dict[str, validate.Check], *keys: str) -> dict[str, validate.Check]:
    return {
        "filters": optional(validate.filters(filters)),
        "marker": optional(_word),
        "limit": optional(validate.integer(1, validate.MAX_LIMIT)),
        "sort_keys": optional(validate.sort_list(*keys)),
        "sort_dirs": optional(validate.sort_list("asc", "desc")),
    }


def _page(
    filters: dict[str, Any] | None, marker: str | None, limit: int | None, sort_keys: Any, sort_dirs: Any
) -> listing.Page:
    return listing.Page(
        filters=dict(filters or {}),
        marker=marker,
        limit=limit or listing.DEFAULT_LIMIT,
        sort_keys=sort_keys or ["name"],
        sort_dirs=sort_dirs or ["asc"],
        project_id=None,
    )


class Administration:
    """The administrator's verbs."""

    worker: Worker

    # --- types ----------------------------------------------------------------------------------------------------

    @answered(
        type_id=uuid, name=_word, description=_text, is_public=boolean, extra_specs=optional(validate.specs),
    )
    def type_create(
        self, context: RequestContext, type_id: str, name: str, description: str | None = None, is_public: bool = True,
        extra_specs: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make a volume type."""
        kept = {key: value for key, value in (extra_specs or {}).items() if value is not None}
        return self.worker.catalogue.type_create(
            context, type_id, name, description=description, is_public=is_public, extra_specs=kept
        )

    @answered(type_id=uuid, name=optional(_word), description=_text, is_public=optional(boolean))
    def type_update(
        self, context: RequestContext, type_id: str, name: str | None = None, description: str | None = None,
        is_public: bool | None = None,
    ) -> dict[str, Any]:
        """Change a volume type; what is None stays."""
        changes = {"name": name, "description": description, "is_public": is_public}
        return self.worker.catalogue.type_update(context, type_id, changes)

    @answered(type_id=uuid)
    def type_delete(self, context: RequestContext, type_id: str) -> dict[str, Any]:
        """Remove a volume type that no volume has."""
        return self.worker.catalogue.type_delete(context, type_id)

    @answered(type_id=uuid, extra_specs=validate.specs)
    def type_set_specs(
        self, context: RequestContext, type_id: str, extra_specs: dict[str, str | None]
    ) -> dict[str, Any]:
        """Merge extra specs into a type's; one that is None is removed."""
        return self.worker.catalogue.type_set_specs(context, type_id, extra_specs)

    @answered(type_id=_word)
    def get_type(self, context: RequestContext, type_id: str) -> dict[str, Any]:
        """Return a volume type, by its id or its name."""
        return self.worker.catalogue.get_type(context, type_id)

    @answered(**_paged({"name": _word, "is_public": boolean, "qos_id": uuid}, "name", "created_at", "id"))
    def list_types(
        self, context: RequestContext, filters: Any = None, marker: Any = None, limit: Any = None,
        sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[dict[str, Any]]:
        """Return a page of volume types."""
        return self.worker.catalogue.list_types(context, _page(filters, marker, limit, sort_keys, sort_dirs))

    # --- QoS ------------------------------------------------------------------------------------------------------

    @answered(qos_id=uuid, name=_word, consumer=_consumer, specs=optional(qos.check_specs))
    def qos_create(
        self, context: RequestContext, qos_id: str, name: str, consumer: str = qos.BACK_END,
        specs: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make a QoS; ``consumer`` is front-end, back-end or both."""
        return self.worker.catalogue.qos_create(context, qos_id, name, consumer, specs or {})

    @answered(qos_id=uuid, name=optional(_word), consumer=optional(_consumer), specs=optional(qos.check_specs))
    def qos_update(
        self, context: RequestContext, qos_id: str, name: str | None = None, consumer: str | None = None,
        specs: dict[str, str | None] | None = None,
    ) -> dict[str, Any]:
        """Change a QoS; specs are merged, one that is None is removed."""
        return self.worker.catalogue.qos_update(context, qos_id, name=name, consumer=consumer, specs=specs)

    @answered(qos_id=uuid, force=boolean)
    def qos_delete(self, context: RequestContext, qos_id: str, force: bool = False) -> dict[str, Any]:
        """Remove a QoS; ``force`` ends its associations."""
        return self.worker.catalogue.qos_delete(context, qos_id, force)

    @answered(qos_id=uuid, type_id=uuid)
    def qos_associate(self, context: RequestContext, qos_id: str, type_id: str) -> dict[str, Any]:
        """Let volumes of a type have a QoS."""
        return self.worker.catalogue.qos_associate(context, qos_id, type_id)

    @answered(qos_id=uuid, type_id=uuid)
    def qos_disassociate(self, context: RequestContext, qos_id: str, type_id: str) -> dict[str, Any]:
        """End an association."""
        return self.worker.catalogue.qos_disassociate(context, qos_id, type_id)

    @answered(qos_id=_word)
    def get_qos(self, context: RequestContext, qos_id: str) -> dict[str, Any]:
        """Return a QoS, by its id or its name, with its types."""
        return self.worker.catalogue.get_qos(context, qos_id)

    @answered(**_paged({"name": _word, "consumer": _consumer}, "name", "created_at", "id"))
    def list_qos(
        self, context: RequestContext, filters: Any = None, marker: Any = None, limit: Any = None,
        sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[dict[str, Any]]:
        """Return a page of QoS."""
        return self.worker.catalogue.list_qos(context, _page(filters, marker, limit, sort_keys, sort_dirs))

    # --- quotas ---------------------------------------------------------------------------------------------------

    @answered(project_id=_project, limits=_limits, volume_type=optional(_word))
    def quota_set(
        self, context: RequestContext, project_id: str, limits: dict[str, int | None], volume_type: str | None = None
    ) -> dict[str, Any]:
        """Set limits of a project, or of one of its volume types: -1 is none, None the default again."""
        return self.worker.catalogue.quota_set(context, project_id, limits, volume_type)

    @answered(project_id=optional(_project), volume_type=optional(_word))
    def get_quota(
        self, context: RequestContext, project_id: str | None = None, volume_type: str | None = None
    ) -> dict[str, Any]:
        """Return limits and use of a project, or of one of its volume types."""
        return self.worker.catalogue.get_quota(context, project_id, volume_type)

    @answered(**_paged({"project_id": _project}, "project_id"))
    def list_quotas(
        self, context: RequestContext, filters: Any = None, marker: Any = None, limit: Any = None,
        sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[dict[str, Any]]:
        """Return limits and use by project and volume type; the marker is a row's ``id``."""
        project_id, down = (filters or {}).get("project_id"), (sort_dirs or ["asc"])[0] == "desc"
        return self.worker.catalogue.list_quotas(
            context, project_id, marker, limit or listing.DEFAULT_LIMIT, descending=down
        )

    @answered(
        reservation_id=uuid, volumes=_amount, snapshots=_amount, gigabytes=_amount, project_id=optional(_project),
        volume_type=optional(_word), expire=validate.seconds,
    )
    def quota_reserve(
        self, context: RequestContext, reservation_id: str, volumes: int = 0, snapshots: int = 0, gigabytes: int = 0,
        project_id: str | None = None, volume_type: str | None = None, expire: float = _EXPIRE,
    ) -> dict[str, Any]:
        """Count quota for a request to come; ``reservations`` of the answer is that request's argument."""
        amounts = {"volumes": volumes, "snapshots": snapshots, "gigabytes": gigabytes}
        return self.worker.catalogue.quota_reserve(context, reservation_id, amounts, project_id, volume_type, expire)

    @answered(reservations=validate.uuids, project_id=optional(_project))
    def quota_rollback(
        self, context: RequestContext, reservations: list[str], project_id: str | None = None
    ) -> dict[str, Any]:
        """Give reservations back whose request will not come."""
        return self.worker.catalogue.quota_rollback(context, reservations, project_id)

    # --- placement ------------------------------------------------------------------------------------------------

    @answered(request=placement_request)
    def explain_placement(self, context: RequestContext, request: dict[str, Any]) -> dict[str, Any]:
        """Return every pool with each check's verdict and numbers for a volume, and where it would go.

        ``request``: size (GiB), volume_type, availability_zone, host, scheduler_hints, multiattach.
        """
        return self.worker.explain_placement(context, request)

    @answered()
    def ring(self, context: RequestContext) -> None:
        """A doorbell: this worker's journal has something new."""
        self.worker.dispatcher.ring()
