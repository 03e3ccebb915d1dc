# SPDX-License-Identifier: Apache-2.0
"""What clients read: resources, pages of them, operations, services, and why something is as it is.

A caller sees its own project's resources, an administrator everybody's. Nothing here changes anything but
:meth:`Readers.steer`, which speaks to the journal.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from volmgr import exception, names, validate
from volmgr.db import findings, groups, listing, records, services

if TYPE_CHECKING:
    from volmgr.context import RequestContext
    from volmgr.service import Worker

_words = validate.text(64, 1)
_sort = ("created_at", "id")
#: by noun: the filters with their checks, and the keys that a page can be sorted by.
FILTERS: dict[str, tuple[dict[str, validate.Check], tuple[str, ...]]] = {
    "volume": (
        {
            "status": _words,
            "display_name": validate.name,
            "host": validate.host,
            "project_id": validate.name,
            "volume_type_id": _words,
            "snapshot_id": validate.uuid,
            "source_volid": validate.uuid,
            "group_id": validate.uuid,
            "id": validate.uuid,
        },
        (*_sort, "display_name", "size", "status", "host", "updated_at"),
    ),
    "snapshot": (
        {
            "status": _words,
            "display_name": validate.name,
            "volume_id": validate.uuid,
            "cgsnapshot_id": validate.uuid,
            "project_id": validate.name,
            "host": validate.host,
            "id": validate.uuid,
        },
        (*_sort, "display_name", "volume_size", "status", "volume_id"),
    ),
    "group": (
        {
            "status": _words,
            "display_name": validate.name,
            "project_id": validate.name,
            "host": validate.host,
            "id": validate.uuid,
        },
        (*_sort, "display_name", "status", "host", "updated_at"),
    ),
    "cgsnapshot": (
        {
            "status": _words,
            "display_name": validate.name,
            "project_id": validate.name,
            "group_id": validate.uuid,
            "host": validate.host,
            "id": validate.uuid,
        },
        (*_sort, "display_name", "status", "group_id", "updated_at"),
    ),
    "attachment": (
        {
            "status": _words,
            "volume_id": validate.uuid,
            "instance_uuid": validate.uuid,
            "host_name": validate.name,
        },
        (*_sort, "status", "volume_id"),
    ),
    "backup": (
        {
            "status": _words,
            "display_name": validate.name,
            "volume_id": validate.uuid,
            "snapshot_id": validate.uuid,
            "parent_id": validate.uuid,
            "store": _words,
            "project_id": validate.name,
            "id": validate.uuid,
        },
        (*_sort, "display_name", "size", "status", "volume_id", "data_at"),
    ),
    "operation": (
        {
            "state": validate.one_of("queued", "running", "undoing", "parked", "done", "failed"),
            "verb": _words,
            "resource": _words,
            "resource_id": validate.uuid,
            "host": validate.host,
        },
        (*_sort, "verb", "state", "finished_at"),
    ),
    "transfer": (
        {"volume_id": validate.uuid, "display_name": validate.name, "project_id": validate.name},
        (*_sort, "display_name", "volume_id", "expires_at"),
    ),
    "finding": (
        {
            "kind": _words,
            "resource": _words,
            "resource_id": validate.text(255, 1),
            "repair": _words,
            "host": validate.host,
        },
        (*_sort, "kind", "resource_id", "host", "seen_at"),
    ),
    "service": (
        {
            "host": validate.host,
            "state": _words,
            "up": validate.boolean,
            "disabled": validate.boolean,
            "frozen": validate.boolean,
            "availability_zone": validate.name,
        },
        ("host", "state", "availability_zone", "created_at", "updated_at"),
    ),
    "backend": (
        {"host": validate.host, "state": _words, "up": validate.boolean, "driver": validate.name},
        ("host", "state", "driver"),
    ),
    "grant": (
        {
            "initiator": validate.text(255, 1),
            "host_name": validate.name,
            "resource_id": validate.uuid,
        },
        (*_sort, "resource_id"),
    ),
}
_page: dict[str, validate.Check] = {
    "marker": validate.optional(validate.uuid),
    "limit": validate.optional(validate.integer(1, validate.MAX_LIMIT)),
    "sort_dirs": validate.optional(validate.sort_list("asc", "desc")),
}


def listed(noun: str) -> dict[str, validate.Check]:
    """Return the checks of a list verb's arguments."""
    allowed, keys = FILTERS[noun]
    return {
        **_page,
        "filters": validate.optional(validate.filters(allowed)),
        "sort_keys": validate.optional(validate.sort_list(*keys)),
        "marker": validate.optional(validate.host if noun in ("service", "backend") else validate.uuid),
    }


_PAGES = {
    "volume": listing.volumes,
    "snapshot": listing.snapshots,
    "group": groups.groups,
    "cgsnapshot": groups.cgsnapshots,
    "attachment": listing.attachments,
    "backup": listing.backups,
    "operation": listing.operations,
    "transfer": listing.transfers,
    "finding": listing.findings,
    "grant": listing.grants,
}
#: the longest that one request waits for an operation; the client asks again.
WAIT_SLICE = 5.0


class Readers:
    """The reading verbs of one worker."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        # Waiting requests must not take every thread from the others: beyond these the answer is the present state.
        self._waiters = threading.BoundedSemaphore(max(1, worker.settings_of("control_threads")))

    def visible(self, context: RequestContext, arguments: dict[str, Any]) -> None:
        """Return if the caller may see the volume, snapshot or attachment among a request's arguments.

        A changing verb's own admission decides about what it makes and what it takes.
        """
        with self.worker.database.reader() as conn:
            for name, read in (
                ("volume_id", listing.volume), ("snapshot_id", listing.snapshot), ("attachment_id", listing.attachment)
            ):
                if arguments.get(name) is not None:
                    read(conn, arguments[name], context.scope)
                    return

    def volume(self, context: RequestContext, volume_id: str) -> dict[str, Any]:
        """Return a volume with its attachments."""
        with self.worker.database.reader() as conn:
            return listing.volume(conn, volume_id, context.scope)

    def snapshot(self, context: RequestContext, snapshot_id: str) -> dict[str, Any]:
        """Return a snapshot."""
        with self.worker.database.reader() as conn:
            return listing.snapshot(conn, snapshot_id, context.scope)

    def attachment(self, context: RequestContext, attachment_id: str) -> dict[str, Any]:
        """Return an attachment."""
        with self.worker.database.reader() as conn:
            return listing.attachment(conn, attachment_id, context.scope)

    def transfer(self, context: RequestContext, transfer_id: str) -> dict[str, Any]:
        """Return the offer of a volume."""
        with self.worker.database.reader() as conn:
            return listing.transfer(conn, transfer_id, context.scope)

    def page(
        self,
        noun: str,
        context: RequestContext,
        filters: dict[str, Any] | None,
        marker: str | None,
        limit: int | None,
        sort_keys: list[str] | None,
        sort_dirs: list[str] | None,
    ) -> list[dict[str, Any]]:
        """Return a page of one noun, newest first unless asked otherwise."""
        page = listing.Page(
            filters=filters or {},
            marker=marker,
            limit=limit or listing.DEFAULT_LIMIT,
            sort_keys=sort_keys or ["created_at"],
            sort_dirs=sort_dirs or ["desc"],
            project_id=context.scope,
        )
        with self.worker.database.reader() as conn:
            return _PAGES[noun](conn, page)

    def operation(self, context: RequestContext, operation_id: str) -> dict[str, Any]:
        """Return an operation."""
        record = self.worker.dispatcher.get(operation_id)
        self._own(context, record.project_id, operation_id)
        return records.operation_view(record)

    def wait(self, context: RequestContext, operation_id: str, timeout: float) -> dict[str, Any]:
        """Return an operation once it has ended, or as it is after a while."""
        if not self._waiters.acquire(blocking=False):
            return self.operation(context, operation_id)
        try:
            record = self.worker.dispatcher.wait(operation_id, min(timeout, WAIT_SLICE))
        finally:
            self._waiters.release()
        self._own(context, record.project_id, operation_id)
        return records.operation_view(record)

    def steer(self, context: RequestContext, action: str, operation_id: str) -> dict[str, Any]:
        """Cancel, retry or abandon an operation."""
        dispatcher = self.worker.dispatcher
        record = dispatcher.get(operation_id)
        self._own(context, record.project_id, operation_id)
        if record.host is not None and record.host != self.worker.host:
            raise exception.Moved(host=record.host)
        actions = {"cancel": dispatcher.cancel, "retry": dispatcher.retry, "abandon": dispatcher.abandon}
        return records.operation_view(actions[action](operation_id))

    @staticmethod
    def _own(context: RequestContext, project_id: str | None, operation_id: str) -> None:
        wanted = context.scope
        if wanted is not None and project_id != wanted:
            raise exception.OperationNotFound(id=operation_id)

    def _workers(self) -> list[dict[str, Any]]:
        with self.worker.database.reader() as conn:
            return services.list_services(conn, self.worker.settings_of("service_down_time"))

    def services(
        self,
        filters: dict[str, Any] | None = None,
        marker: str | None = None,
        limit: int | None = None,
        sort_keys: list[str] | None = None,
        sort_dirs: list[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Return a page of the workers, by name unless asked otherwise."""
        found = [{key: value for key, value in item.items() if key != "capabilities"} for item in self._workers()]
        return services.page(found, filters, marker, limit, sort_keys, sort_dirs)

    def service(self, host: str) -> dict[str, Any]:
        """Return one worker.

        :raises NotFound: no worker of that name was ever here.
        """
        with self.worker.database.reader() as conn:
            found = services.get(conn, host, self.worker.settings_of("service_down_time"))
        return {key: value for key, value in found.items() if key != "capabilities"}

    def backends(
        self,
        filters: dict[str, Any] | None = None,
        marker: str | None = None,
        limit: int | None = None,
        sort_keys: list[str] | None = None,
        sort_dirs: list[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Return a page of the workers' backends with what they can do, by name unless asked otherwise."""
        told = ("host", "state", "reason", "up", "driver", "capabilities")
        found = [{key: item[key] for key in told} for item in self._workers()]
        return services.page(found, filters, marker, limit, sort_keys, sort_dirs)

    def backend(self, host: str) -> dict[str, Any]:
        """Return one backend.

        :raises NotFound: no worker of that name was ever here.
        """
        for item in self.backends({"host": host}):
            return item
        raise exception.NotFound(resource="backend", id=host)

    def finding(self, finding_id: str) -> dict[str, Any]:
        """Return one finding of the last audits.

        :raises NotFound: the last audit of its worker has not found it any more.
        """
        with self.worker.database.reader() as conn:
            return findings.get(conn, finding_id)

    def manageable(
        self,
        noun: str,
        context: RequestContext,
        host: str | None,
        marker: str | None,
        limit: int | None,
        offset: int | None,
        sort_keys: list[str] | None,
        sort_dirs: list[str] | None,
    ) -> list[dict[str, Any]]:
        """Return a page of what the backend has of a noun, each with whether it could be managed.

        :raises Moved: ``host`` is another worker's.
        :raises Unsupported: the driver cannot list it.
        """
        if host is not None and names.service_of(host) != self.worker.host:
            raise exception.Moved(host=names.service_of(host))
        driver, verb = self.worker.driver, f"get_manageable_{noun}s"
        if not driver.supports(verb):
            raise exception.Unsupported(verb=verb, hint=f"The driver {type(driver).__name__} cannot")
        self.worker.ready()
        with self.worker.database.reader() as conn:
            known = listing.of_worker(conn, noun, self.worker.host)
        found: list[dict[str, Any]] = getattr(driver, verb)(known, marker, limit, offset, sort_keys, sort_dirs)
        return found
