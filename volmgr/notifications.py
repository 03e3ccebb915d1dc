# SPDX-License-Identifier: Apache-2.0
"""Tells whoever listens what happens to resources: events of oslo.messaging's notifier, and never in a verb's way.

An event is ``<noun>.<action>.<start|end|error>``. It is sent once SQL says so, by a thread of its own from a bounded
queue: a broker that is away delays events, drops the oldest when the queue is full, and holds up nobody. A worker that
is killed between its commit and the sending sends no event; ``volmgr-manage usage-audit`` tells what there is.
"""

from __future__ import annotations

import datetime
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from volmgr import context as ctx
from volmgr import exception
from volmgr.db import claims, records

if TYPE_CHECKING:
    from volmgr.types import OperationRecord, Resource

LOG = logging.getLogger(__name__)

#: by journalled verb, the event without its last word.
EVENTS: dict[str, str] = {
    "create_volume": "volume.create",
    "delete_volume": "volume.delete",
    "undelete_volume": "volume.undelete",
    "extend_volume": "volume.resize",
    "revert_to_snapshot": "volume.revert",
    "retype": "volume.retype",
    "migrate_volume": "volume.migrate",
    "migrate_volume_completion": "volume.migrate_completion",
    "accept_transfer": "volume.transfer",
    "promote_replica": "volume.promote_replica",
    "reenable_replication": "volume.reenable_replication",
    "failover_host": "service.failover",
    "manage_existing": "volume.manage",
    "create_consistencygroup": "consistencygroup.create",
    "create_consistencygroup_from_src": "consistencygroup.create",
    "update_consistencygroup": "consistencygroup.update",
    "delete_consistencygroup": "consistencygroup.delete",
    "create_cgsnapshot": "cgsnapshot.create",
    "delete_cgsnapshot": "cgsnapshot.delete",
    "create_snapshot": "snapshot.create",
    "delete_snapshot": "snapshot.delete",
    "manage_existing_snapshot": "snapshot.manage",
    "create_backup": "backup.create",
    "delete_backup": "backup.delete",
    "restore_backup": "volume.restore",
    "copy_volume_to_image": "volume.upload",
}
#: journalled verbs that tell nobody: a part of another verb, or an operator's repair.
SILENT = frozenset({"wipe", "discard", "restore_storage", "receive_volume", "update_migrated_volume"})
#: by verb that is answered at once, the same.
ANSWERED: dict[str, str] = {
    "update_volume": "volume.update",
    "attach_volume": "volume.attach",
    "detach_volume": "volume.detach",
    "attachment_create": "attachment.create",
    "attachment_update": "attachment.update",
    "attachment_complete": "attachment.complete",
    "attachment_delete": "attachment.delete",
}
#: what a payload tells of a resource: by its key, the attribute of the record.
_FIELDS = {
    "tenant_id": "project_id",
    "user_id": "user_id",
    "display_name": "display_name",
    "status": "status",
    "host": "host",
    "availability_zone": "availability_zone",
    "size": "size",
    "volume_id": "volume_id",
    "volume_type": "volume_type_id",
    "snapshot_id": "snapshot_id",
    "source_volid": "source_volid",
    "image_id": "image_id",
    "group_id": "group_id",
    "cgsnapshot_id": "cgsnapshot_id",
    "parent_id": "parent_id",
    "replication_status": "replication_status",
    "created_at": "created_at",
    "launched_at": "launched_at",
}
QUEUE_LIMIT = 10_000
#: seconds that a stop waits for the queue to be sent.
FLUSH_TIMEOUT = 5.0


def payload_of(noun: str, resource: Resource) -> dict[str, Any]:
    """Return what an event tells of a resource: nothing that is secret, nothing of where it is stored."""
    told: dict[str, Any] = {}
    for key, name in _FIELDS.items():
        if hasattr(resource, name):
            value = getattr(resource, name)
            told[key] = records.moment(value) if isinstance(value, datetime.datetime) else value
    return {**told, f"{noun}_id": resource.id}


class Silence:
    """What a worker has that tells nobody anything."""

    enabled = False

    def operation(self, *_args: Any) -> None:
        """Tell nothing."""

    def answered(self, *_args: Any) -> None:
        """Tell nothing."""

    def close(self) -> None:
        """Nothing waits."""


class Notifications:
    """The events of one worker.

    :param send: sends one event: ``send(context, event type, payload, priority)``.
    :param reader: opens a reading transaction, as :meth:`volmgr.db.engine.Database.reader`.
    """

    enabled = True

    def __init__(self, send: Callable[[Any, str, dict[str, Any], str], None], reader: Callable[[], Any]) -> None:
        self._send = send
        self._reader = reader
        self._queue: deque[tuple[Any, str, dict[str, Any], str]] = deque()
        self._wanted = threading.Event()
        self._stopping = False
        self._dropped = 0
        self._thread = threading.Thread(target=self._loop, name="volmgr-notifications", daemon=True)
        self._thread.start()

    def operation(
        self, word: str, record: OperationRecord, known: Resource | None = None, error: Exception | None = None
    ) -> None:
        """Tell that an operation has begun, has ended or has failed.

        :param word: ``start``, ``end`` or ``error``. :param known: the resource as it was, should it be gone.
        """
        if (event := EVENTS.get(record.verb)) is None:
            return
        told = {"operation_id": record.id, "verb": record.verb}
        context = ctx.RequestContext.from_dict(record.context)
        self._tell(context, f"{event}.{word}", (record.resource, record.resource_id), known, told, error)

    def answered(self, context: Any, verb: str, arguments: dict[str, Any], error: Exception | None = None) -> None:
        """Tell that a verb without an operation has been done, or has failed."""
        if (event := ANSWERED.get(verb)) is None:
            return
        names = ("volume_id", "attachment_id", "instance_uuid", "host_name", "mountpoint", "mode")
        told = {name: arguments[name] for name in names if arguments.get(name) is not None} | {"verb": verb}
        about = ("volume", arguments["volume_id"]) if "volume_id" in arguments else None
        self._tell(context, f"{event}.{'error' if error else 'end'}", about, None, told, error)

    def _tell(
        self,
        context: Any,
        event: str,
        about: tuple[str, str] | None,
        known: Resource | None,
        told: dict[str, Any],
        error: Exception | None,
    ) -> None:
        """Put an event into the queue; that SQL cannot be read is no failure of the verb, which has been done."""
        if error is not None:
            told["error"] = exception.to_primitive(error)
        try:
            if about is not None:
                told = {**self._payload(*about, known), **told}
        except Exception as trouble:
            LOG.error("The event %s tells no more than the request, as SQL does not answer: %s", event, trouble)
        self._queue.append((context, event, told, "error" if error else "info"))
        if len(self._queue) > QUEUE_LIMIT:
            self._queue.popleft()
            self._dropped += 1
        self._wanted.set()

    def _payload(self, noun: str, resource_id: str, known: Resource | None) -> dict[str, Any]:
        if noun not in claims.TABLES:
            return {f"{noun}_id": resource_id}
        with self._reader() as conn:
            row = claims.row(conn, noun, resource_id)
        if row is not None:
            return payload_of(noun, records.OF[noun](row))
        return {**payload_of(noun, known), "status": "deleted"} if known is not None else {f"{noun}_id": resource_id}

    def _loop(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            while self._queue:
                context, event, told, priority = self._queue.popleft()
                try:
                    self._send(context, event, told, priority)
                except Exception:
                    # Nobody else would ever send the events behind it.
                    LOG.exception("The event %s could not be sent", event)
            if self._dropped:
                LOG.error("%d notifications were dropped: whoever takes them is slow or away", self._dropped)
                self._dropped = 0
            if self._stopping:
                return

    def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        self._stopping = True
        self._wanted.set()
        self._thread.join(FLUSH_TIMEOUT)
        if self._queue:
            LOG.error("%d notifications were not sent before the stop", len(self._queue))


def notifier_of(conf: Any, publisher: str) -> Any:
    """Return oslo.messaging's notifier as it is configured, or None where it is not.

    :param publisher: who the events are from, ``volume.host@backend``.
    """
    import oslo_messaging
    from oslo_messaging.notify import notifier

    from volmgr.rpc import transport
    from volmgr.rpc.serializer import Serializer

    conf.register_opts(notifier._notifier_opts, group="oslo_messaging_notifications")
    if not any(name != "noop" for name in conf.oslo_messaging_notifications.driver):
        return None
    return oslo_messaging.Notifier(
        transport.get_notification_transport(conf), publisher, serializer=Serializer()
    )


def open_notifications(conf: Any, host: str, reader: Callable[[], Any]) -> Notifications | Silence:
    """Return what tells the events of a worker; where no notification driver is configured it costs nothing.

    :param host: ``host@backend``.
    """
    notifier = notifier_of(conf, f"volume.{host}")
    if notifier is None:
        return Silence()

    def send(context: Any, event: str, payload: dict[str, Any], priority: str) -> None:
        getattr(notifier, priority)(context, event, payload)

    return Notifications(send, reader)
