# SPDX-License-Identifier: Apache-2.0
"""The client's side of :mod:`volmgr.administration`: types, QoS, quotas, placement.

A part of :class:`volmgr.rpc.client.VolumeAPI`. These verbs answer with their result; none is an operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volmgr.context import RequestContext

Answer = dict[str, Any]


class AdministrationAPI:
    """The administrator's verbs. Arguments that are None are left out."""

    def call(self, context: RequestContext, method: str, **args: Any) -> Any:
        """Send a request and return its answer."""
        raise NotImplementedError

    def _ask(self, context: RequestContext, method: str, **args: Any) -> Any:
        return self.call(context, method, **{name: value for name, value in args.items() if value is not None})

    # --- types ----------------------------------------------------------------------------------------------------

    def type_create(self, context: RequestContext, type_id: str, name: str, **properties: Any) -> Answer:
        """Make a volume type. ``properties``: description, is_public, extra_specs."""
        answer: Answer = self._ask(context, "type_create", type_id=type_id, name=name, **properties)
        return answer

    def type_update(self, context: RequestContext, type_id: str, **changes: Any) -> Answer:
        """Change name, description or is_public."""
        answer: Answer = self._ask(context, "type_update", type_id=type_id, **changes)
        return answer

    def type_delete(self, context: RequestContext, type_id: str) -> Answer:
        """Remove a volume type that no volume has."""
        answer: Answer = self._ask(context, "type_delete", type_id=type_id)
        return answer

    def type_set_specs(self, context: RequestContext, type_id: str, extra_specs: dict[str, str | None]) -> Answer:
        """Merge extra specs into a type's; one that is None is removed."""
        answer: Answer = self._ask(context, "type_set_specs", type_id=type_id, extra_specs=extra_specs)
        return answer

    def get_type(self, context: RequestContext, type_id: str) -> Answer:
        """Return a volume type, by its id or its name."""
        answer: Answer = self._ask(context, "get_type", type_id=type_id)
        return answer

    def list_types(self, context: RequestContext, **page: Any) -> list[Answer]:
        """Return a page of volume types. ``page``: filters, marker, limit, sort_keys, sort_dirs."""
        answer: list[Answer] = self._ask(context, "list_types", **page)
        return answer

    # --- QoS ------------------------------------------------------------------------------------------------------

    def qos_create(self, context: RequestContext, qos_id: str, name: str, **properties: Any) -> Answer:
        """Make a QoS. ``properties``: consumer (front-end, back-end or both), specs."""
        answer: Answer = self._ask(context, "qos_create", qos_id=qos_id, name=name, **properties)
        return answer

    def qos_update(self, context: RequestContext, qos_id: str, **changes: Any) -> Answer:
        """Change name, consumer or specs, which are merged; a spec that is None is removed."""
        answer: Answer = self._ask(context, "qos_update", qos_id=qos_id, **changes)
        return answer

    def qos_delete(self, context: RequestContext, qos_id: str, force: bool = False) -> Answer:
        """Remove a QoS; ``force`` ends its associations."""
        answer: Answer = self._ask(context, "qos_delete", qos_id=qos_id, force=force)
        return answer

    def qos_associate(self, context: RequestContext, qos_id: str, type_id: str) -> Answer:
        """Let volumes of a type have a QoS."""
        answer: Answer = self._ask(context, "qos_associate", qos_id=qos_id, type_id=type_id)
        return answer

    def qos_disassociate(self, context: RequestContext, qos_id: str, type_id: str) -> Answer:
        """End an association."""
        answer: Answer = self._ask(context, "qos_disassociate", qos_id=qos_id, type_id=type_id)
        return answer

    def get_qos(self, context: RequestContext, qos_id: str) -> Answer:
        """Return a QoS, by its id or its name, with its types."""
        answer: Answer = self._ask(context, "get_qos", qos_id=qos_id)
        return answer

    def list_qos(self, context: RequestContext, **page: Any) -> list[Answer]:
        """Return a page of QoS. ``page``: filters, marker, limit, sort_keys, sort_dirs."""
        answer: list[Answer] = self._ask(context, "list_qos", **page)
        return answer

    # --- quotas ---------------------------------------------------------------------------------------------------

    def quota_set(
        self, context: RequestContext, project_id: str, limits: dict[str, int | None], volume_type: str | None = None
    ) -> Answer:
        """Set limits (volumes, snapshots, gigabytes): -1 is none, None the default again."""
        answer: Answer = self._ask(
            context, "quota_set", project_id=project_id, limits=limits, volume_type=volume_type
        )
        return answer

    def get_quota(
        self, context: RequestContext, project_id: str | None = None, volume_type: str | None = None
    ) -> Answer:
        """Return limits and use of a project, the caller's own without one."""
        answer: Answer = self._ask(context, "get_quota", project_id=project_id, volume_type=volume_type)
        return answer

    def list_quotas(self, context: RequestContext, **page: Any) -> list[Answer]:
        """Return limits and use by project and volume type. ``page``: filters, marker, limit, sort_keys, sort_dirs."""
        answer: list[Answer] = self._ask(context, "list_quotas", **page)
        return answer

    def quota_reserve(self, context: RequestContext, reservation_id: str, **amounts: Any) -> Answer:
        """Count quota for a request to come, which is then given the answer's ``reservations``.

        ``amounts``: volumes, snapshots, gigabytes, project_id, volume_type, expire (seconds).
        """
        answer: Answer = self._ask(context, "quota_reserve", reservation_id=reservation_id, **amounts)
        return answer

    def quota_rollback(
        self, context: RequestContext, reservations: list[str], project_id: str | None = None
    ) -> Answer:
        """Give reservations back whose request will not come."""
        answer: Answer = self._ask(context, "quota_rollback", reservations=reservations, project_id=project_id)
        return answer

    # --- placement ------------------------------------------------------------------------------------------------

    def explain_placement(self, context: RequestContext, request: dict[str, Any]) -> Answer:
        """Return every pool with each check's verdict and numbers, and where the volume would go.

        ``request``: size (GiB), volume_type, availability_zone, host, scheduler_hints, multiattach.
        """
        answer: Answer = self._ask(context, "explain_placement", request=request)
        return answer
