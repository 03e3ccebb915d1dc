# SPDX-License-Identifier: Apache-2.0
"""The volume manager: what can be asked of volmgr, as a table of contents.

Each method says which operation answers it; the operations are in :mod:`volmgr.operations`. A changing verb answers
``{"operation_id", "state"}`` as soon as its intent is stored; ``wait_operation`` waits for its end. Row ids are UUIDs
chosen by the caller, arguments are JSON, ``context`` comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import oslo_messaging

from volmgr import exception, validate, why
from volmgr.administration import Administration
from volmgr.archive import Archive
from volmgr.group_verbs import GroupVerbs
from volmgr.image_verbs import ImageVerbs
from volmgr.moves import Moves
from volmgr.operations import manage_existing as managing
from volmgr.operations import snapshots, undelete, volumes
from volmgr.operations.resets import MACHINES as RESETTABLE
from volmgr.policy.guard import Guard
from volmgr.readers import Readers
from volmgr.readers import listed as _listed
from volmgr.rpc.endpoint import answered, connects, journalled
from volmgr.validate import boolean, optional, uuid

if TYPE_CHECKING:
    from volmgr.context import RequestContext
    from volmgr.service import Worker

RPC_VERSION = "1.0"

_connector = optional(validate.connector)
_mode = validate.one_of("rw", "ro")
_name = optional(validate.name)
_manageable: dict[str, validate.Check] = {
    "host": optional(validate.host),
    "marker": optional(validate.name),
    "limit": optional(validate.integer(1, validate.MAX_LIMIT)),
    "offset": optional(validate.integer(0, 2**31 - 1)),
    "sort_keys": optional(validate.sort_list("size", "reference")),
    "sort_dirs": optional(validate.sort_list("asc", "desc")),
}


class Manager:
    """An RPC endpoint."""

    target = oslo_messaging.Target(version=RPC_VERSION)


class SchedulerDependentManager(Manager):
    """A manager that tells the placement what its backend can do."""

    def __init__(self) -> None:
        self.last_capabilities: dict[str, Any] | None = None

    def update_service_capabilities(self, capabilities: dict[str, Any]) -> None:
        """Remember what to publish."""
        self.last_capabilities = capabilities


class VolumeManager(Administration, Archive, GroupVerbs, ImageVerbs, Moves, SchedulerDependentManager):
    """Makes it so: volumes, snapshots, attachments and connections of one backend.

    :param volume_driver: a driver instead of the configured one. :param worker: what serves the backend.
    """

    def __init__(self, volume_driver: Any = None, *args: Any, worker: Worker, **kwargs: Any) -> None:
        super().__init__()
        self.worker = worker
        self.driver = volume_driver if volume_driver is not None else worker.driver
        self.readers = Readers(worker)
        self.guard = Guard(worker.conf)

    # --- life -----------------------------------------------------------------------------------------------------

    def init_host(self) -> None:
        """Set the backend up and take over what an earlier incarnation left."""
        self.worker.init_host()

    def init_host_with_rpc(self) -> None:
        """What is done once requests are served: exports are rebuilt in the background."""
        self.worker.init_host_with_rpc()

    @answered()
    def is_working(self, context: RequestContext) -> bool:
        """Return whether the backend is set up."""
        return self.worker.is_working()

    def ready(self) -> None:
        """Return if requests can be served.

        :raises BackendDown: the backend is not set up; the reason says why.
        """
        self.worker.ready()

    def authorise(self, context: RequestContext, verb: str, arguments: dict[str, Any]) -> RequestContext:
        """Return the context that a request goes on with, if the policy allows the request.

        :raises Forbidden: it does not; the hint names the rule.
        """
        return self.guard.authorise(context, verb, arguments)

    def visible(self, context: RequestContext, arguments: dict[str, Any]) -> None:
        """Return if the caller may see the resource that a request names.

        :raises NotFound: it is another project's.
        """
        if context.scope is not None:
            self.readers.visible(context, arguments)

    def ended(
        self, context: RequestContext, verb: str, arguments: dict[str, Any], began: float,
        error: Exception | None = None,
    ) -> None:
        """Let whoever watches know that a request has been answered; ``began`` is when, by ``time.monotonic()``.

        Listeners hear nothing of one that was refused before it began, or that another worker is to answer.

        :param arguments: empty if they, or the caller, were refused.
        """
        if self.worker.metrics.enabled:
            self.worker.metrics.request(verb, began, error)
        if arguments and not isinstance(error, exception.Moved) and self.worker.notifications.enabled:
            self.worker.notifications.answered(context, verb, arguments, error)

    # --- volumes --------------------------------------------------------------------------------------------------

    @journalled
    def create_volume(
        self, context: RequestContext, volume_id: str, snapshot_id: str | None = None, reservations: Any = None,
        **properties: Any,
    ) -> dict[str, Any]:
        """Make a volume: empty, from a snapshot, another volume or its replica, a backup or an image."""
        arguments = {
            "volume_id": volume_id, "snapshot_id": snapshot_id, "reservations": reservations, **properties
        }
        return self.worker.submit(context, volumes.CreateVolume, arguments)

    @journalled
    def delete_volume(
        self, context: RequestContext, volume_id: str, unmanage_only: bool = False, cascade: bool = False,
        force: bool = False,
    ) -> dict[str, Any]:
        """Take a volume away; one that is gone already is success."""
        arguments = {"volume_id": volume_id, "unmanage_only": unmanage_only, "cascade": cascade, "force": force}
        return self.worker.submit(context, volumes.DeleteVolume, arguments)

    @journalled
    def undelete_volume(self, context: RequestContext, volume_id: str) -> dict[str, Any]:
        """Bring a deleted volume back from the trash."""
        return self.worker.submit(context, undelete.UndeleteVolume, {"volume_id": volume_id})

    @journalled
    def extend_volume(
        self, context: RequestContext, volume_id: str, new_size: int, reservations: Any = None
    ) -> dict[str, Any]:
        """Make a volume larger, to ``new_size`` GiB."""
        arguments = {"volume_id": volume_id, "new_size": new_size, "reservations": reservations}
        return self.worker.submit(context, volumes.ExtendVolume, arguments)

    @answered(
        volume_id=uuid, name=_name, description=optional(validate.description), metadata=optional(validate.metadata),
        readonly=optional(boolean), bootable=optional(boolean),
    )
    def update_volume(
        self, context: RequestContext, volume_id: str, name: str | None = None, description: str | None = None,
        metadata: dict[str, str] | None = None, readonly: bool | None = None, bootable: bool | None = None,
    ) -> dict[str, Any]:
        """Change what a volume is called and how it may be used; what is None stays."""
        changes = {"display_name": name, "display_description": description, "metadata": metadata,
                   "readonly": readonly, "bootable": bootable}
        return self.worker.properties.update(context, volume_id, changes)

    # --- snapshots ------------------------------------------------------------------------------------------------

    @journalled
    def create_snapshot(
        self, context: RequestContext, volume_id: str, snapshot_id: str, name: str | None = None,
        description: str | None = None, metadata: dict[str, str] | None = None, force: bool = False,
    ) -> dict[str, Any]:
        """Keep a volume's bytes as they are now."""
        arguments = {"volume_id": volume_id, "snapshot_id": snapshot_id, "name": name, "description": description,
                     "metadata": metadata, "force": force}
        return self.worker.submit(context, snapshots.CreateSnapshot, arguments)

    @journalled
    def delete_snapshot(
        self, context: RequestContext, snapshot_id: str, unmanage_only: bool = False
    ) -> dict[str, Any]:
        """Take a snapshot away; one that is gone already is success."""
        arguments = {"snapshot_id": snapshot_id, "unmanage_only": unmanage_only}
        return self.worker.submit(context, snapshots.DeleteSnapshot, arguments)

    @journalled
    def revert_to_snapshot(self, context: RequestContext, volume_id: str, snapshot_id: str) -> dict[str, Any]:
        """Take a volume back to one of its snapshots."""
        arguments = {"volume_id": volume_id, "snapshot_id": snapshot_id}
        return self.worker.submit(context, snapshots.RevertToSnapshot, arguments)

    # --- storage that was there before ----------------------------------------------------------------------------

    @journalled
    def manage_existing(
        self, context: RequestContext, volume_id: str, ref: dict[str, str], **properties: Any
    ) -> dict[str, Any]:
        """Make existing storage, as the backend names it, a volume."""
        return self.worker.submit(context, managing.ManageExisting, {"volume_id": volume_id, "ref": ref, **properties})

    @journalled
    def manage_existing_snapshot(
        self, context: RequestContext, snapshot_id: str, ref: dict[str, str], **properties: Any
    ) -> dict[str, Any]:
        """Make existing storage, as the backend names it, a snapshot of a volume."""
        arguments = {"snapshot_id": snapshot_id, "ref": ref, **properties}
        return self.worker.submit(context, managing.ManageExistingSnapshot, arguments)

    @answered(**_manageable)
    def get_manageable_volumes(
        self, context: RequestContext, host: str | None = None, marker: str | None = None, limit: int | None = None,
        offset: int | None = None, sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[dict[str, Any]]:
        """Return a page of what the backend has and whether it could be managed."""
        return self.readers.manageable("volume", context, host, marker, limit, offset, sort_keys, sort_dirs)

    @answered(**_manageable)
    def get_manageable_snapshots(
        self, context: RequestContext, host: str | None = None, marker: str | None = None, limit: int | None = None,
        offset: int | None = None, sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[dict[str, Any]]:
        """Return a page of the snapshots that the backend has and whether they could be managed."""
        return self.readers.manageable("snapshot", context, host, marker, limit, offset, sort_keys, sort_dirs)

    # --- attachments ----------------------------------------------------------------------------------------------

    @connects(
        volume_id=uuid, instance_uuid=optional(uuid), host_name=_name, mountpoint=_name, mode=_mode,
        attachment_id=optional(uuid),
    )
    def attach_volume(
        self, context: RequestContext, volume_id: str, instance_uuid: str | None = None, host_name: str | None = None,
        mountpoint: str | None = None, mode: str = "rw", attachment_id: str | None = None,
    ) -> dict[str, Any]:
        """Record that an instance or a host uses a volume."""
        key = attachment_id or self.worker.derived_id(context, volume_id, instance_uuid, host_name)
        return self.worker.attachments.attach(volume_id, instance_uuid, host_name, mountpoint, mode, key)

    @connects(volume_id=uuid, attachment_id=optional(uuid), force=boolean)
    def detach_volume(
        self, context: RequestContext, volume_id: str, attachment_id: str | None = None, force: bool = False
    ) -> dict[str, Any]:
        """Record that a volume is not used any more."""
        return self.worker.attachments.detach(volume_id, attachment_id, force)

    @connects(attachment_id=uuid, volume_id=uuid, instance_uuid=optional(uuid), mode=_mode)
    def attachment_create(
        self, context: RequestContext, attachment_id: str, volume_id: str, instance_uuid: str | None = None,
        mode: str = "rw",
    ) -> dict[str, Any]:
        """Keep a volume for an instance."""
        return self.worker.attachments.reserve(attachment_id, volume_id, instance_uuid, mode)

    @connects(volume_id=uuid, connector=validate.connector, attachment_id=uuid)
    def attachment_update(
        self, context: RequestContext, volume_id: str, connector: dict[str, Any], attachment_id: str
    ) -> dict[str, Any]:
        """Grant an attachment's host access; answers connection_info."""
        return self.worker.attachments.connect(attachment_id, volume_id, connector)

    @connects(attachment_id=uuid)
    def attachment_complete(self, context: RequestContext, attachment_id: str) -> dict[str, Any]:
        """Record that the attachment's instance uses the volume."""
        return self.worker.attachments.complete(attachment_id)

    @connects(volume_id=uuid, attachment_id=uuid)
    def attachment_delete(self, context: RequestContext, volume_id: str, attachment_id: str) -> dict[str, Any]:
        """Take an attachment and its access away."""
        return self.worker.attachments.delete(volume_id, attachment_id)

    # --- connections ----------------------------------------------------------------------------------------------

    @connects(volume_id=uuid, connector=validate.connector)
    def initialize_connection(
        self, context: RequestContext, volume_id: str, connector: dict[str, Any]
    ) -> dict[str, Any]:
        """Grant a connector access to a volume; answers connection_info."""
        return self.worker.attachments.initialize("volume", volume_id, connector)

    @connects(volume_id=uuid, connector=_connector, force=boolean)
    def terminate_connection(
        self, context: RequestContext, volume_id: str, connector: dict[str, Any] | None, force: bool = False
    ) -> dict[str, Any]:
        """Take a connector's access away; None, with force only, means everybody's."""
        return self.worker.attachments.terminate("volume", volume_id, connector, force)

    @connects(snapshot_id=uuid, connector=validate.connector)
    def initialize_connection_snapshot(
        self, context: RequestContext, snapshot_id: str, connector: dict[str, Any]
    ) -> dict[str, Any]:
        """Grant a connector read-only access to a snapshot; answers connection_info."""
        return self.worker.attachments.initialize("snapshot", snapshot_id, connector)

    @connects(snapshot_id=uuid, connector=_connector, force=boolean)
    def terminate_connection_snapshot(
        self, context: RequestContext, snapshot_id: str, connector: dict[str, Any] | None, force: bool = False
    ) -> dict[str, Any]:
        """Take a connector's access to a snapshot away."""
        return self.worker.attachments.terminate("snapshot", snapshot_id, connector, force)

    @connects(instance_id=uuid)
    def check_for_export(self, context: RequestContext, instance_id: str) -> dict[str, Any]:
        """Make every volume of an instance truly exported."""
        return self.worker.attachments.check_for_export(instance_id)

    @connects(wwpn=validate.wwpn)
    def initiator_add(self, context: RequestContext, wwpn: str) -> dict[str, Any]:
        """Know a host's Fibre Channel port for ever, so that it may log in before it attaches anything."""
        self.worker.exports.admit(wwpn)
        return {"wwpn": wwpn}

    @connects(volume_id=uuid)
    def remove_export(self, context: RequestContext, volume_id: str) -> dict[str, Any]:
        """Remove a volume's export; refused while anybody is granted access."""
        return {"volume_id": volume_id, "removed": self.worker.exports.remove("volume", volume_id)}

    @connects(snapshot_id=uuid)
    def remove_export_snapshot(self, context: RequestContext, snapshot_id: str) -> dict[str, Any]:
        """Remove a snapshot's export; refused while anybody is granted access."""
        return {"snapshot_id": snapshot_id, "removed": self.worker.exports.remove("snapshot", snapshot_id)}

    # --- readers --------------------------------------------------------------------------------------------------

    @answered(volume_id=uuid)
    def get_volume(self, context: RequestContext, volume_id: str) -> dict[str, Any]:
        """Return a volume with its attachments."""
        return self.readers.volume(context, volume_id)

    @answered(**_listed("volume"))
    def list_volumes(
        self, context: RequestContext, filters: Any = None, marker: Any = None, limit: Any = None,
        sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[dict[str, Any]]:
        """Return a page of volumes with their attachments."""
        return self.readers.page("volume", context, filters, marker, limit, sort_keys, sort_dirs)

    @answered(snapshot_id=uuid)
    def get_snapshot(self, context: RequestContext, snapshot_id: str) -> dict[str, Any]:
        """Return a snapshot."""
        return self.readers.snapshot(context, snapshot_id)

    @answered(**_listed("snapshot"))
    def list_snapshots(
        self, context: RequestContext, filters: Any = None, marker: Any = None, limit: Any = None,
        sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[dict[str, Any]]:
        """Return a page of snapshots."""
        return self.readers.page("snapshot", context, filters, marker, limit, sort_keys, sort_dirs)

    @answered(attachment_id=uuid)
    def get_attachment(self, context: RequestContext, attachment_id: str) -> dict[str, Any]:
        """Return an attachment."""
        return self.readers.attachment(context, attachment_id)

    @answered(**_listed("attachment"))
    def list_attachments(
        self, context: RequestContext, filters: Any = None, marker: Any = None, limit: Any = None,
        sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[dict[str, Any]]:
        """Return a page of attachments."""
        return self.readers.page("attachment", context, filters, marker, limit, sort_keys, sort_dirs)

    @answered(operation_id=uuid)
    def get_operation(self, context: RequestContext, operation_id: str) -> dict[str, Any]:
        """Return an operation."""
        return self.readers.operation(context, operation_id)

    @answered(**_listed("operation"))
    def list_operations(
        self, context: RequestContext, filters: Any = None, marker: Any = None, limit: Any = None,
        sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[dict[str, Any]]:
        """Return a page of operations."""
        return self.readers.page("operation", context, filters, marker, limit, sort_keys, sort_dirs)

    @answered(**_listed("service"))
    def list_services(
        self, context: RequestContext, filters: Any = None, marker: Any = None, limit: Any = None,
        sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[dict[str, Any]]:
        """Return a page of the workers, and which of them are up; ``marker`` is a worker's name."""
        return self.readers.services(filters, marker, limit, sort_keys, sort_dirs)

    @answered(service=validate.host)
    def get_service(self, context: RequestContext, service: str) -> dict[str, Any]:
        """Return one worker, and whether it is up."""
        return self.readers.service(service)

    @answered(**_listed("backend"))
    def list_backends(
        self, context: RequestContext, filters: Any = None, marker: Any = None, limit: Any = None,
        sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[dict[str, Any]]:
        """Return a page of the backends with their capabilities; ``marker`` is a backend's name."""
        return self.readers.backends(filters, marker, limit, sort_keys, sort_dirs)

    @answered(host=validate.host)
    def get_backend(self, context: RequestContext, host: str) -> dict[str, Any]:
        """Return one backend with its capabilities."""
        return self.readers.backend(host)

    @answered(resource_id=uuid)
    def why(self, context: RequestContext, resource_id: str) -> dict[str, Any]:
        """Return what SQL wants of a resource, what is there, who holds it, and the next safe command."""
        return why.why(self.worker, context, resource_id)

    @answered(**_listed("finding"))
    def list_findings(
        self, context: RequestContext, filters: Any = None, marker: Any = None, limit: Any = None,
        sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[dict[str, Any]]:
        """Return a page of what the last audits have found; for administrators."""
        return self.readers.page("finding", context, filters, marker, limit, sort_keys, sort_dirs)

    @answered(finding_id=uuid)
    def get_finding(self, context: RequestContext, finding_id: str) -> dict[str, Any]:
        """Return one of what the last audits have found; for administrators."""
        return self.readers.finding(finding_id)

    @answered(**_listed("grant"))
    def list_grants(
        self, context: RequestContext, filters: Any = None, marker: Any = None, limit: Any = None,
        sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[dict[str, Any]]:
        """Return a page of who may connect to what, without secrets; for administrators."""
        return self.readers.page("grant", context, filters, marker, limit, sort_keys, sort_dirs)

    # --- the operator's verbs -------------------------------------------------------------------------------------

    @answered(fix=boolean, findings=optional(validate.uuids))
    def audit(
        self, context: RequestContext, fix: bool = False, findings: list[str] | None = None
    ) -> dict[str, Any]:
        """Compare SQL, storage and target of this worker; with ``fix`` mend what is safe, or exactly ``findings``."""
        self.ready()
        return self.worker.auditor.run(fix=fix, only=findings or ()).to_json()

    @answered(resource=validate.one_of(*RESETTABLE), id=uuid, status=validate.text(32, 1), dry=boolean)
    def reset_status(
        self, context: RequestContext, resource: str, id: str, status: str, dry: bool = False
    ) -> dict[str, Any]:
        """Give a resource another status by hand; answers what that breaks, and what an audit then finds about it."""
        answer = self.worker.resets.reset(context, resource, id, status, dry)
        found = [] if dry else self.worker.findings_about(id)
        return {**answer, "findings": found}

    @answered(service=optional(validate.host), reason=_name)
    def service_disable(
        self, context: RequestContext, service: str | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        """Let nothing new be placed on a worker; what is there is served on."""
        return self.worker.switches.switch(service, disabled=True, reason=reason)

    @answered(service=optional(validate.host))
    def service_enable(self, context: RequestContext, service: str | None = None) -> dict[str, Any]:
        """Let new volumes be placed on a worker again."""
        return self.worker.switches.switch(service, disabled=False, reason=None)

    @answered(service=optional(validate.host), reason=_name, timeout=validate.seconds)
    def service_drain(
        self, context: RequestContext, service: str | None = None, reason: str | None = None, timeout: float = 0
    ) -> dict[str, Any]:
        """Let nothing new be placed on a worker and say what it is still at; ``timeout`` seconds wait for the end."""
        return self.worker.switches.drain(service, reason, timeout)

    # --- operations -----------------------------------------------------------------------------------------------

    @answered(operation_id=uuid, timeout=validate.seconds)
    def wait_operation(self, context: RequestContext, operation_id: str, timeout: float) -> dict[str, Any]:
        """Return an operation once it has ended, or as it is after ``timeout`` seconds; may be repeated."""
        return self.readers.wait(context, operation_id, timeout)

    @answered(operation_id=uuid)
    def operation_cancel(self, context: RequestContext, operation_id: str) -> dict[str, Any]:
        """Ask an operation to stop at its next safe point and to undo what it began."""
        return self.readers.steer(context, "cancel", operation_id)

    @answered(operation_id=uuid)
    def operation_retry(self, context: RequestContext, operation_id: str) -> dict[str, Any]:
        """Try a parked operation again now."""
        return self.readers.steer(context, "retry", operation_id)

    @answered(operation_id=uuid)
    def operation_abandon(self, context: RequestContext, operation_id: str) -> dict[str, Any]:
        """Give a parked operation up."""
        return self.readers.steer(context, "abandon", operation_id)

    # --- capabilities ---------------------------------------------------------------------------------------------

    @answered(discover=boolean)
    def get_capabilities(self, context: RequestContext, discover: bool = False) -> dict[str, Any]:
        """Return what the backend can do and how full it is; ``discover`` asks it anew."""
        return self.worker.capabilities(discover)

    @answered()
    def publish_service_capabilities(self, context: RequestContext) -> None:
        """Ask the backend for its state and record it (a fanout)."""
        self.update_service_capabilities(self.worker.publish())

    @answered(event=validate.text(1024))
    def notification(self, context: RequestContext, event: str) -> None:
        """An event on the host or the backend: what is known of it is asked for anew and published."""
        self.publish_service_capabilities(context)
