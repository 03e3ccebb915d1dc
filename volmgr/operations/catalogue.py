# SPDX-License-Identifier: Apache-2.0
"""Volume types, QoS and quota limits: what an administrator offers, and how much of it a project may have.

Each verb is one transaction and touches no storage. A repeat of one finds what it wants and changes nothing.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sqlalchemy.engine import Connection

from volmgr import exception, types
from volmgr.context import RequestContext
from volmgr.db import listing, qos, quotas, reservations
from volmgr.db import types as volume_types
from volmgr.db.engine import Database
from volmgr.runtime import Clock

T = TypeVar("T")
Answer = dict[str, Any]


class Catalogue:
    """The verbs over types, QoS and quotas of one deployment.

    :param cache: this process's volume types, which forget what is changed here. :param defaults: quota limits by name.
    """

    def __init__(
        self, database: Database, cache: volume_types.Cache, clock: Clock, defaults: Mapping[str, int]
    ) -> None:
        self.database = database
        self.cache = cache
        self.clock = clock
        self.defaults = defaults

    def _change(self, write: Callable[[Connection], T]) -> T:
        """Do an administrator's change in one transaction."""

        def transaction() -> T:
            with self.database.writer() as conn:
                return write(conn)

        try:
            return self.database.retrying(transaction)
        finally:
            self.cache.forget()

    # --- types ----------------------------------------------------------------------------------------------------

    def type_create(self, context: RequestContext, type_id: str, name: str, **values: Any) -> Answer:
        """Make a volume type; returns it."""

        def write(conn: Connection) -> Answer:
            volume_types.create(conn, type_id, name, now=self.clock.now(), **values)
            return volume_types.shown(conn, type_id)

        return self._change(write)

    def type_update(self, context: RequestContext, type_id: str, changes: Mapping[str, Any]) -> Answer:
        """Change what is not None of name, description and is_public; returns the type."""

        def write(conn: Connection) -> Answer:
            volume_types.update(conn, type_id, **{key: item for key, item in changes.items() if item is not None})
            return volume_types.shown(conn, type_id)

        return self._change(write)

    def type_delete(self, context: RequestContext, type_id: str) -> Answer:
        """Remove a volume type that no volume has; one that is gone already is success."""

        def write(conn: Connection) -> Answer:
            return {"type_id": type_id, "unchanged": not volume_types.delete(conn, type_id)}

        return self._change(write)

    def type_set_specs(self, context: RequestContext, type_id: str, specs: Mapping[str, str | None]) -> Answer:
        """Merge extra specs into a type's; returns the type."""

        def write(conn: Connection) -> Answer:
            volume_types.set_specs(conn, type_id, specs)
            return volume_types.shown(conn, type_id)

        return self._change(write)

    def get_type(self, context: RequestContext, name_or_id: str) -> Answer:
        """Return a type; who is no administrator does not see what it is made of.

        :raises VolumeTypeNotFound: there is none, or it is not public.
        """
        with self.database.reader() as conn:
            return _seen(context, volume_types.shown(conn, name_or_id))

    def list_types(self, context: RequestContext, page: listing.Page) -> list[Answer]:
        """Return a page of types."""
        if context.scope is not None:
            page.filters["is_public"] = True
        with self.database.reader() as conn:
            return [_seen(context, view) for view in listing.types(conn, page)]

    # --- QoS ------------------------------------------------------------------------------------------------------

    def qos_create(
        self, context: RequestContext, qos_id: str, name: str, consumer: str, specs: Mapping[str, str | None]
    ) -> Answer:
        """Make a QoS; returns it."""

        def write(conn: Connection) -> Answer:
            kept = {key: value for key, value in specs.items() if value is not None}
            qos.create(conn, qos_id, name, consumer, kept, now=self.clock.now())
            return qos.shown(conn, qos_id)

        return self._change(write)

    def qos_update(self, context: RequestContext, qos_id: str, **changes: Any) -> Answer:
        """Change name, consumer and specs; what is None stays; returns the QoS."""

        def write(conn: Connection) -> Answer:
            qos.update(conn, qos_id, **changes)
            return qos.shown(conn, qos_id)

        return self._change(write)

    def qos_delete(self, context: RequestContext, qos_id: str, force: bool) -> Answer:
        """Remove a QoS; one that is gone already is success."""

        def write(conn: Connection) -> Answer:
            return {"qos_id": qos_id, "unchanged": not qos.delete(conn, qos_id, force=force)}

        return self._change(write)

    def qos_associate(self, context: RequestContext, qos_id: str, type_id: str) -> Answer:
        """Let volumes of a type have a QoS, in place of the one that they had; returns the type."""

        def write(conn: Connection) -> Answer:
            qos.hold(conn, qos_id)
            volume_types.set_qos(conn, type_id, qos_id)
            return volume_types.shown(conn, type_id)

        return self._change(write)

    def qos_disassociate(self, context: RequestContext, qos_id: str, type_id: str) -> Answer:
        """End an association; one that is not there is success; returns the type."""

        def write(conn: Connection) -> Answer:
            qos.hold(conn, qos_id)
            if volume_types.shown(conn, type_id)["qos_id"] == qos_id:
                volume_types.set_qos(conn, type_id, None)
            return volume_types.shown(conn, type_id)

        return self._change(write)

    def get_qos(self, context: RequestContext, name_or_id: str) -> Answer:
        """Return a QoS with the ids of its types."""
        with self.database.reader() as conn:
            return qos.shown(conn, name_or_id)

    def list_qos(self, context: RequestContext, page: listing.Page) -> list[Answer]:
        """Return a page of QoS."""
        with self.database.reader() as conn:
            return listing.qos(conn, page)

    # --- quotas ---------------------------------------------------------------------------------------------------

    def quota_set(
        self, context: RequestContext, project_id: str, limits: Mapping[str, int | None], volume_type: str | None
    ) -> Answer:
        """Set limits of a project or of one of its volume types; returns limits and use."""

        def write(conn: Connection) -> Answer:
            type_id = _type_id(conn, volume_type)
            quotas.set_limits(conn, project_id, limits, volume_type_id=type_id)
            return self._quota(conn, project_id, type_id)

        return self._change(write)

    def get_quota(self, context: RequestContext, project_id: str | None, volume_type: str | None) -> Answer:
        """Return limits and use of a project, the caller's own without one, or of one of its volume types."""
        owner = self._owner(context, project_id)
        with self.database.reader() as conn:
            return self._quota(conn, owner, _type_id(conn, volume_type))

    def list_quotas(
        self, context: RequestContext, project_id: str | None, marker: str | None, limit: int, *, descending: bool
    ) -> list[Answer]:
        """Return limits and use by project and volume type."""
        owner = project_id if context.scope is None else self._owner(context, project_id)
        with self.database.reader() as conn:
            return quotas.list_quotas(
                conn,
                project_id=owner,
                defaults=self.defaults,
                marker=marker,
                limit=limit,
                descending=descending,
            )

    def quota_reserve(
        self,
        context: RequestContext,
        reservation_id: str,
        amounts: Mapping[str, int],
        project_id: str | None,
        volume_type: str | None,
        expire: float,
    ) -> Answer:
        """Count quota for a request that is to come; its ``reservations`` names it. Returns when it expires.

        :param expire: seconds after which what nobody used is given back.
        """
        owner = self._owner(context, project_id)
        until = self.clock.now() + datetime.timedelta(seconds=expire)

        def transaction() -> None:
            with self.database.writer() as conn:
                kind = volume_types.find(conn, volume_type) if volume_type is not None else None
                if kind is not None and not volume_types.hold(conn, kind.id):
                    raise exception.VolumeTypeNotFound(id=volume_type)
                type_id = kind.id if kind else None
                reservations.make(
                    conn, reservation_id, owner, type_id, amounts, expires_at=until, defaults=self.defaults
                )

        self.database.retrying(transaction)
        return {"reservations": [reservation_id], "expires_at": until.replace(tzinfo=datetime.UTC).isoformat()}

    def quota_rollback(self, context: RequestContext, ids: list[str], project_id: str | None) -> Answer:
        """Give reservations back whose request will not come; returns how many were left."""
        owner = self._owner(context, project_id)

        def transaction() -> int:
            with self.database.writer() as conn:
                return reservations.take(conn, ids, owner)

        return {"released": self.database.retrying(transaction)}

    def _quota(self, conn: Connection, project_id: str, type_id: str | None) -> Answer:
        found = quotas.get(conn, project_id, volume_type_id=type_id, defaults=self.defaults)
        return {"project_id": project_id, "volume_type_id": type_id, **found}

    @staticmethod
    def _owner(context: RequestContext, project_id: str | None) -> str:
        if context.scope is not None and project_id not in (None, context.scope):
            raise exception.Forbidden("Only an administrator sees other projects' quotas", project_id=project_id)
        return project_id if project_id is not None else str(context.project_id or "")


def _type_id(conn: Connection, volume_type: str | None) -> str | None:
    return volume_types.find(conn, volume_type).id if volume_type is not None else None


def _seen(context: RequestContext, view: Answer) -> Answer:
    if context.scope is None:
        return view
    if not view["is_public"]:
        raise exception.VolumeTypeNotFound(id=view["id"])
    return {key: value for key, value in view.items() if key not in ("extra_specs", "qos_id")}


def usable(context: RequestContext, kind: types.VolumeType) -> types.VolumeType:
    """Return a volume type if the caller may use it.

    :raises VolumeTypeNotFound: it is not public.
    """
    if context.scope is not None and not kind.is_public:
        raise exception.VolumeTypeNotFound(id=kind.name)
    return kind
