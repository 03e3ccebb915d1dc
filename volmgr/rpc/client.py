# SPDX-License-Identifier: Apache-2.0
"""The Python client: every verb of volmgr as a method.

A changing verb answers ``{"operation_id", "state", "result"}`` as soon as its intent is stored;
:meth:`VolumeAPI.wait_operation` waits for the end and raises what the operation failed with. Each request carries a
unique key, so one that is sent twice runs once. Errors are the classes of :mod:`volmgr.exception`.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

import oslo_messaging
from oslo_config import cfg

from volmgr import exception
from volmgr.context import RequestContext
from volmgr.rpc.administration import AdministrationAPI
from volmgr.rpc.archive import ArchiveAPI
from volmgr.rpc.groups import GroupsAPI
from volmgr.rpc.images import ImagesAPI
from volmgr.rpc.moves import MovesAPI
from volmgr.rpc.serializer import Serializer
from volmgr.rpc.transport import get_transport

RPC_VERSION = "1.0"
#: verbs, and arguments of verbs (``verb.argument``), that came after version 1.0: the version that has them. A request
#: goes out in the lowest version that serves it, so that older workers serve whatever they know.
SINCE: dict[str, str] = {}
MAX_MOVES = 3
#: requests in a row without an answer after which a client listens for answers elsewhere.
UNANSWERED = 2
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
Answer = dict[str, Any]
#: verbs that any worker answers and that have an argument ``host``; and all that have one.
ANYWHERE = frozenset({"create_volume", "create_consistencygroup", "get_backend", "migrate_volume", "retype"})
ABOUT_HOSTS = ANYWHERE | {"manage_existing", "get_manageable_volumes", "get_manageable_snapshots"}


def version_of(method: str, args: Mapping[str, Any]) -> str:
    """Return the lowest version of the interface that serves a request."""
    found = ["1.0", SINCE.get(method, "1.0"), *(SINCE.get(f"{method}.{name}", "1.0") for name in args)]
    return max(found, key=lambda text: tuple(map(int, text.split("."))))


class VolumeAPI(AdministrationAPI, ArchiveAPI, GroupsAPI, ImagesAPI, MovesAPI):
    """Talks to the workers of one deployment.

    :param transport_url: where they are; None means the embedded default of this machine.
    :param conf: a configuration that was loaded already. :param timeout: seconds to wait for an answer.
    """

    def __init__(
        self, transport_url: str | None = None, *, conf: cfg.ConfigOpts | None = None, timeout: float = 60.0
    ) -> None:
        if conf is None:
            from volmgr.conf import load

            conf = load([])
        self.timeout = timeout
        self._conf, self._url = conf, transport_url or conf.transport_url
        self._lock = threading.Lock()
        self._unanswered = 0
        self._retired: Any = None
        self._connect()

    def _connect(self) -> None:
        self._transport = get_transport(self._conf, self._url)
        target = oslo_messaging.Target(topic=self._conf.volume_topic, version=RPC_VERSION)
        cap = self._conf.upgrade_levels.volume or RPC_VERSION
        self._client = oslo_messaging.get_rpc_client(
            self._transport, target, serializer=Serializer(), version_cap=cap
        )

    @classmethod
    def from_conf(cls, conf: cfg.ConfigOpts) -> VolumeAPI:
        """Return a client for a loaded configuration."""
        return cls(conf=conf)

    def close(self) -> None:
        """Let go of the connections."""
        self._transport.cleanup()
        if self._retired is not None:
            self._retired.cleanup()

    def _heard(self, answered: bool) -> None:
        """Note whether a request was answered.

        A broker that was killed may never deliver to the queue in which this client awaits its answers, see
        :mod:`volmgr.rpc.rabbit`; a new one is made where nothing was heard several times.
        """
        with self._lock:
            self._unanswered = 0 if answered else self._unanswered + 1
            if self._unanswered < UNANSWERED or not str(self._url).startswith("rabbit"):
                return
            # Others may wait by the old one still; what was there before it was left long enough ago.
            before, self._retired, self._unanswered = self._retired, self._transport, 0
            self._connect()
        if before is not None:
            before.cleanup()

    def call(
        self,
        context: RequestContext,
        method: str,
        *,
        host: str | None = None,
        rpc_timeout: float | None = None,
        **args: Any,
    ) -> Any:
        """Send a request and return its answer; one that belongs to another worker is sent there.

        :param host: the worker, ``host@backend``; None lets any one answer. To verbs that have an argument of that name
            it is that argument. :param rpc_timeout: seconds.
        :raises ServiceUnavailable: nobody answers. :raises Timeout: no answer came in time.
        """
        if host is not None and method in ABOUT_HOSTS:
            args["host"] = host
            host = None if method in ANYWHERE else host.partition("#")[0]
        for _ in range(MAX_MOVES):
            prepared = self._client.prepare(
                server=host, timeout=rpc_timeout or self.timeout, version=version_of(method, args)
            )
            if not prepared.can_send_version():
                raise exception.Unsupported(
                    f"{method} is not sent: [upgrade_levels] volume is {self._conf.upgrade_levels.volume}",
                    hint="Raise it once every worker of the deployment is of the new release",
                    verb=method,
                )
            try:
                answer = prepared.call(context, method, **args)
                self._heard(answered=True)
                return answer
            except exception.Moved as moved:
                host = str(moved.details["host"]).partition("#")[0]
            except exception.VolmgrError as error:
                self._heard(answered=True)
                raise exception.from_primitive(exception.to_primitive(error)) from None
            except oslo_messaging.MessagingTimeout as error:
                self._heard(answered=False)
                raise exception.Timeout(f"{method} was not answered in {rpc_timeout or self.timeout:.0f} s") from error
            except oslo_messaging.MessageDeliveryFailure as error:
                raise exception.ServiceUnavailable(
                    str(error), hint="Start it: systemctl start volmgr-volume"
                ) from error
            except (oslo_messaging.RemoteError, oslo_messaging.MessagingException) as error:
                raise exception.VolmgrError(f"{method} failed: {error}") from error
        raise exception.BackendDown(f"{method} was sent on {MAX_MOVES} times", hint="See: volmgr service list")

    def change(self, context: RequestContext, method: str, **args: Any) -> Answer:
        """Send a changing request under a key of its own; arguments that are None are left out."""
        keyed = context.to_dict()
        keyed["request_key"] = context.request_key or str(uuid.uuid4())
        kept = {name: value for name, value in args.items() if value is not None}
        answer: Answer = self.call(RequestContext.from_dict(keyed), method, **kept)
        return answer

    # --- volumes --------------------------------------------------------------------------------------------------

    def create_volume(
        self, context: RequestContext, volume_id: str, snapshot_id: str | None = None, **properties: Any
    ) -> Answer:
        """Make a volume. ``properties``: size (GiB), source_volid, image_id, volume_type, name, metadata…"""
        return self.change(context, "create_volume", volume_id=volume_id, snapshot_id=snapshot_id, **properties)

    def delete_volume(
        self,
        context: RequestContext,
        volume_id: str,
        unmanage_only: bool = False,
        cascade: bool = False,
        force: bool = False,
    ) -> Answer:
        """Take a volume away; ``cascade`` takes its snapshots, ``force`` its attachments."""
        return self.change(
            context, "delete_volume", volume_id=volume_id, unmanage_only=unmanage_only, cascade=cascade, force=force
        )

    def undelete_volume(self, context: RequestContext, volume_id: str) -> Answer:
        """Bring a volume back from the trash."""
        return self.change(context, "undelete_volume", volume_id=volume_id)

    def extend_volume(
        self, context: RequestContext, volume_id: str, new_size: int, reservations: list[str] | None = None
    ) -> Answer:
        """Make a volume larger, to ``new_size`` GiB."""
        return self.change(
            context, "extend_volume", volume_id=volume_id, new_size=new_size, reservations=reservations
        )

    def update_volume(self, context: RequestContext, volume_id: str, **changes: Any) -> Answer:
        """Change name, description, metadata, readonly or bootable."""
        return self.change(context, "update_volume", volume_id=volume_id, **changes)

    # --- snapshots ------------------------------------------------------------------------------------------------

    def create_snapshot(self, context: RequestContext, volume_id: str, snapshot_id: str, **properties: Any) -> Answer:
        """Take a snapshot. ``properties``: name, description, metadata, force."""
        return self.change(context, "create_snapshot", volume_id=volume_id, snapshot_id=snapshot_id, **properties)

    def delete_snapshot(self, context: RequestContext, snapshot_id: str, unmanage_only: bool = False) -> Answer:
        """Take a snapshot away."""
        return self.change(context, "delete_snapshot", snapshot_id=snapshot_id, unmanage_only=unmanage_only)

    def revert_to_snapshot(self, context: RequestContext, volume_id: str, snapshot_id: str) -> Answer:
        """Take a volume back to a snapshot."""
        return self.change(context, "revert_to_snapshot", volume_id=volume_id, snapshot_id=snapshot_id)

    # --- storage that was there before ----------------------------------------------------------------------------

    def manage_existing(
        self, context: RequestContext, volume_id: str, ref: dict[str, str], **properties: Any
    ) -> Answer:
        """Make existing storage a volume. ``ref``: {"source-name": NAME}; ``properties``: host, name, volume_type…"""
        return self.change(context, "manage_existing", volume_id=volume_id, ref=ref, **properties)

    def manage_existing_snapshot(
        self, context: RequestContext, snapshot_id: str, ref: dict[str, str], *, volume_id: str, **properties: Any
    ) -> Answer:
        """Make existing storage a snapshot of a volume."""
        return self.change(
            context, "manage_existing_snapshot", snapshot_id=snapshot_id, ref=ref, volume_id=volume_id, **properties
        )

    def get_manageable_volumes(self, context: RequestContext, host: str, **page: Any) -> list[Answer]:
        """Return a page of what a backend has. ``page``: marker (a name), limit, offset, sort_keys, sort_dirs."""
        return self._page(context, "get_manageable_volumes", {"host": host, **page})

    def get_manageable_snapshots(self, context: RequestContext, host: str, **page: Any) -> list[Answer]:
        """Return a page of the snapshots that a backend has."""
        return self._page(context, "get_manageable_snapshots", {"host": host, **page})

    # --- attachments and connections ------------------------------------------------------------------------------

    def attach_volume(self, context: RequestContext, volume_id: str, **who: Any) -> Answer:
        """Record a use. ``who``: instance_uuid, host_name, mountpoint, mode, attachment_id."""
        return self.change(context, "attach_volume", volume_id=volume_id, **who)

    def detach_volume(
        self, context: RequestContext, volume_id: str, attachment_id: str | None = None, force: bool = False
    ) -> Answer:
        """Record the end of a use."""
        return self.change(context, "detach_volume", volume_id=volume_id, attachment_id=attachment_id, force=force)

    def attachment_create(
        self,
        context: RequestContext,
        attachment_id: str,
        volume_id: str,
        instance_uuid: str | None = None,
        mode: str = "rw",
    ) -> Answer:
        """Keep a volume for an instance."""
        return self.change(
            context,
            "attachment_create",
            attachment_id=attachment_id,
            volume_id=volume_id,
            instance_uuid=instance_uuid,
            mode=mode,
        )

    def attachment_update(
        self, context: RequestContext, volume_id: str, connector: dict[str, Any], attachment_id: str
    ) -> Answer:
        """Grant an attachment's host access; returns connection_info."""
        return self.change(
            context, "attachment_update", volume_id=volume_id, connector=connector, attachment_id=attachment_id
        )

    def attachment_complete(self, context: RequestContext, attachment_id: str) -> Answer:
        """Record that the instance uses the volume."""
        return self.change(context, "attachment_complete", attachment_id=attachment_id)

    def attachment_delete(self, context: RequestContext, volume_id: str, attachment_id: str) -> Answer:
        """Take an attachment and its access away."""
        return self.change(context, "attachment_delete", volume_id=volume_id, attachment_id=attachment_id)

    def initialize_connection(self, context: RequestContext, volume_id: str, connector: dict[str, Any]) -> Answer:
        """Grant a connector access; returns connection_info."""
        return self.change(context, "initialize_connection", volume_id=volume_id, connector=connector)

    def terminate_connection(
        self, context: RequestContext, volume_id: str, connector: dict[str, Any] | None, force: bool = False
    ) -> Answer:
        """Take a connector's access away; None, with force, means everybody's."""
        answer: Answer = self.call(
            context, "terminate_connection", volume_id=volume_id, connector=connector, force=force
        )
        return answer

    def initialize_connection_snapshot(
        self, context: RequestContext, snapshot_id: str, connector: dict[str, Any]
    ) -> Answer:
        """Grant a connector read-only access to a snapshot; returns connection_info."""
        return self.change(context, "initialize_connection_snapshot", snapshot_id=snapshot_id, connector=connector)

    def terminate_connection_snapshot(
        self, context: RequestContext, snapshot_id: str, connector: dict[str, Any] | None, force: bool = False
    ) -> Answer:
        """Take a connector's access to a snapshot away."""
        answer: Answer = self.call(
            context, "terminate_connection_snapshot", snapshot_id=snapshot_id, connector=connector, force=force
        )
        return answer

    def check_for_export(self, context: RequestContext, instance_id: str) -> Answer:
        """Make every volume of an instance truly exported."""
        return self.change(context, "check_for_export", instance_id=instance_id)

    def initiator_add(self, context: RequestContext, wwpn: str, host: str | None = None) -> Answer:
        """Make a host's Fibre Channel port known at a worker."""
        answer: Answer = self.call(context, "initiator_add", host=host, wwpn=wwpn)
        return answer

    def remove_export(self, context: RequestContext, volume_id: str) -> Answer:
        """Remove a volume's export."""
        return self.change(context, "remove_export", volume_id=volume_id)

    def remove_export_snapshot(self, context: RequestContext, snapshot_id: str) -> Answer:
        """Remove a snapshot's export."""
        return self.change(context, "remove_export_snapshot", snapshot_id=snapshot_id)

    # --- readers --------------------------------------------------------------------------------------------------

    def get_volume(self, context: RequestContext, volume_id: str) -> Answer:
        """Return a volume with its attachments."""
        return self._read(context, "get_volume", volume_id=volume_id)

    def get_snapshot(self, context: RequestContext, snapshot_id: str) -> Answer:
        """Return a snapshot."""
        return self._read(context, "get_snapshot", snapshot_id=snapshot_id)

    def get_attachment(self, context: RequestContext, attachment_id: str) -> Answer:
        """Return an attachment."""
        return self._read(context, "get_attachment", attachment_id=attachment_id)

    def get_operation(self, context: RequestContext, operation_id: str) -> Answer:
        """Return an operation."""
        return self._read(context, "get_operation", operation_id=operation_id)

    def get_backend(self, context: RequestContext, host: str) -> Answer:
        """Return a backend."""
        return self._read(context, "get_backend", host=host)

    def get_capabilities(self, context: RequestContext, discover: bool = False, *, host: str | None = None) -> Answer:
        """Return what a backend can do and how full it is."""
        answer: Answer = self.call(context, "get_capabilities", host=host, discover=discover)
        return answer

    def is_working(self, context: RequestContext, *, host: str | None = None) -> bool:
        """Return whether a backend is set up."""
        return bool(self.call(context, "is_working", host=host))

    def why(self, context: RequestContext, resource_id: str) -> Answer:
        """Return one screen about a resource, under ``text``."""
        return self._read(context, "why", resource_id=resource_id)

    def list_volumes(self, context: RequestContext, **page: Any) -> list[Answer]:
        """Return a page of volumes. ``page``: filters, marker, limit, sort_keys, sort_dirs."""
        return self._page(context, "list_volumes", page)

    def list_snapshots(self, context: RequestContext, **page: Any) -> list[Answer]:
        """Return a page of snapshots."""
        return self._page(context, "list_snapshots", page)

    def list_attachments(self, context: RequestContext, **page: Any) -> list[Answer]:
        """Return a page of attachments."""
        return self._page(context, "list_attachments", page)

    def list_operations(self, context: RequestContext, **page: Any) -> list[Answer]:
        """Return a page of operations."""
        return self._page(context, "list_operations", page)

    def list_services(self, context: RequestContext, **page: Any) -> list[Answer]:
        """Return a page of the workers; ``marker`` is a worker's name."""
        return self._page(context, "list_services", page)

    def get_service(self, context: RequestContext, service: str) -> Answer:
        """Return a worker."""
        return self._read(context, "get_service", service=service)

    def list_backends(self, context: RequestContext, **page: Any) -> list[Answer]:
        """Return a page of the backends; ``marker`` is a backend's name."""
        return self._page(context, "list_backends", page)

    def get_finding(self, context: RequestContext, finding_id: str) -> Answer:
        """Return one of what the last audits have found."""
        return self._read(context, "get_finding", finding_id=finding_id)

    def list_findings(self, context: RequestContext, **page: Any) -> list[Answer]:
        """Return a page of what the last audits have found."""
        return self._page(context, "list_findings", page)

    def list_grants(self, context: RequestContext, **page: Any) -> list[Answer]:
        """Return a page of who may connect to what: target, LUN and serial of each grant, no secrets."""
        return self._page(context, "list_grants", page)

    # --- the operator's verbs -------------------------------------------------------------------------------------

    def audit(
        self,
        context: RequestContext,
        fix: bool = False,
        findings: list[str] | None = None,
        *,
        host: str | None = None,
        rpc_timeout: float | None = None,
    ) -> Answer:
        """Compare SQL, storage and target of a worker; ``fix`` mends what is safe, or exactly ``findings``."""
        answer: Answer = self.call(
            context, "audit", host=host, rpc_timeout=rpc_timeout, fix=fix, findings=findings
        )
        return answer

    def reset_status(
        self, context: RequestContext, resource: str, id: str, status: str, dry: bool = False
    ) -> Answer:
        """Give a resource another status by hand; ``dry`` only says what that would break."""
        return self._read(context, "reset_status", resource=resource, id=id, status=status, dry=dry)

    def service_disable(self, context: RequestContext, service: str | None = None, reason: str | None = None) -> Answer:
        """Let nothing new be placed on a worker."""
        return self._read(context, "service_disable", service=service, reason=reason)

    def service_enable(self, context: RequestContext, service: str | None = None) -> Answer:
        """Let new volumes be placed on a worker again."""
        return self._read(context, "service_enable", service=service)

    def service_drain(
        self, context: RequestContext, service: str | None = None, reason: str | None = None, timeout: float = 0.0
    ) -> Answer:
        """Disable a worker and wait a while for the end of what it is at; ``unfinished`` says how many are left."""
        return self._read(context, "service_drain", service=service, reason=reason, timeout=timeout)

    def _read(self, context: RequestContext, method: str, **args: Any) -> Answer:
        answer: Answer = self.call(context, method, **args)
        return answer

    def _page(self, context: RequestContext, method: str, page: dict[str, Any]) -> list[Answer]:
        answer: list[Answer] = self.call(context, method, **page)
        return answer

    # --- operations -----------------------------------------------------------------------------------------------

    def wait_operation(
        self, context: RequestContext, operation_id: str | None, timeout: float = 600.0, *, check: bool = True
    ) -> Answer:
        """Return an operation once it has ended; None, from a request with nothing to do, has ended already.

        :param timeout: seconds. :param check: raise what a failed operation failed with.
        :raises Timeout: it has not ended; it goes on.
        """
        if operation_id is None:
            return {"id": None, "state": "done", "result": None, "error": None}
        deadline = time.monotonic() + timeout
        pause = FIRST_PAUSE
        while True:
            begun = time.monotonic()
            left = max(0.0, deadline - begun)
            slice_ = min(left, 5.0)
            found: Answer = self.call(
                context, "wait_operation", rpc_timeout=slice_ + self.timeout, operation_id=operation_id, timeout=slice_
            )
            if found["state"] == "failed" and check:
                raise exception.from_primitive(found["error"])
            if found["state"] in ("done", "failed"):
                return found
            if left <= 0:
                raise exception.Timeout(
                    f"The operation {operation_id} is still {found['state']} after {timeout:.0f} s",
                    hint=f"volmgr operation show {operation_id}",
                    operation_id=operation_id,
                )
            if time.monotonic() - begun < slice_ / 2:
                # The worker had no thread left to wait in; asking again at once would keep it from its work.
                time.sleep(min(pause, left))
                pause = min(pause * 2, LONGEST_PAUSE)

    def operation_cancel(self, context: RequestContext, operation_id: str) -> Answer:
        """Ask an operation to stop and undo."""
        return self.change(context, "operation_cancel", operation_id=operation_id)

    def operation_retry(self, context: RequestContext, operation_id: str) -> Answer:
        """Try a parked operation again."""
        return self.change(context, "operation_retry", operation_id=operation_id)

    def operation_abandon(self, context: RequestContext, operation_id: str) -> Answer:
        """Give a parked operation up."""
        return self.change(context, "operation_abandon", operation_id=operation_id)

    def publish_service_capabilities(self, context: RequestContext) -> None:
        """Ask every worker to record its backend's state (a fanout)."""
        self._client.prepare(fanout=True).cast(context, "publish_service_capabilities")

    def notification(self, context: RequestContext, event: str, *, host: str | None = None) -> None:
        """Tell a worker, or any one, of an event on its host or backend: it asks anew what it knows of it."""
        self.call(context, "notification", host=host, event=event)
