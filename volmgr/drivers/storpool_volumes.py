# SPDX-License-Identifier: Apache-2.0
"""StorPool volumes and snapshots: made, copied, changed in size, reverted, removed. It knows no connection.

Every create is one call, so nothing is ever half made under its own name. Whether a call whose answer was lost has done
its work is looked up.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from volmgr import exception
from volmgr.drivers import making
from volmgr.drivers.naming import missing
from volmgr.drivers.storpool_copy import StorPoolCopying, global_name, marked, work_of
from volmgr.drivers.storpool_move import StorPoolMoving
from volmgr.types import GiB, ModelUpdate, Snapshot, Volume

LOG = logging.getLogger(__name__)


class StorPoolVolumes(StorPoolMoving, StorPoolCopying, abstract=True):
    """The verbs over single volumes and snapshots."""

    # --- volumes ------------------------------------------------------------------------------------------------

    def create_volume(self, volume: Volume) -> ModelUpdate:
        template = self._template_of(volume.volume_type)
        try:
            self._create(volume, self._policy(template))
        except exception.NotFound as error:
            raise _no_template(template) from error
        return None

    def _create(self, volume: Volume, source: Mapping[str, Any]) -> None:
        """Make a volume by one call, unless this work has made it already.

        :param source: where its settings and its bytes come from. :raises ObjectExists, AlreadyExists: as _is_made.
        """
        name, work = self.storpool_name(volume), making.mark()
        data = {"name": name, "size": volume.size_bytes, "tags": marked(work), **source}
        self.api.change(
            f"VolumeCreate {name}", lambda client: client.volume_create(data), lambda: self._is_made(volume, work)
        )

    def _is_made(self, volume: Volume, work: str) -> bool:
        """Return whether a volume is there.

        :raises ObjectExists: one that ``work`` has not made. :raises AlreadyExists: it has another size.
        """
        present = self.api.volume(self.storpool_name(volume))
        if present is None:
            return False
        making.expect(volume.name, work_of(present), work)
        if present["size"] != volume.size_bytes:
            raise exception.AlreadyExists(resource="object", id=volume.name)
        return True

    def delete_volume(self, volume: Volume) -> None:
        name = self.storpool_name(volume)
        present = self.api.volume(name)
        if present is not None and not making.spared(work_of(present)):
            itself = global_name(present)
            try:
                self._detach_all("volume", itself)
                self.api.change(f"VolumeDelete {name}", lambda client: client.volume_delete(itself))
            except exception.Busy as error:
                raise volume_busy(name, error) from error
            except exception.NotFound:
                LOG.info("The volume %s was gone before it was deleted", name)
        self._delete_snapshot(self._name("clone", volume.name_id))

    def extend_volume(self, volume: Volume, new_size: int) -> None:
        name, wanted = self.storpool_name(volume), new_size * GiB

        def settled() -> bool:
            present = self.api.volume(name)
            if present is None:
                raise exception.VolumeNotFound(id=volume.id)
            if present["size"] > wanted:
                raise exception.Invalid("A volume cannot shrink", field="new_size")
            return bool(present["size"] == wanted)

        self.api.change(f"VolumeUpdate {name}", lambda client: client.volume_update(name, {"size": wanted}), settled)

    # --- snapshots and copies -----------------------------------------------------------------------------------

    def create_snapshot(self, snapshot: Snapshot) -> ModelUpdate:
        volume_id = snapshot.volume.name_id if snapshot.volume is not None else snapshot.volume_id
        try:
            self._snap(self._name("volume", volume_id), self.storpool_name(snapshot))
        except exception.NotFound as error:
            raise exception.VolumeNotFound(id=snapshot.volume_id) from error
        return None

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        name = self.storpool_name(snapshot)
        try:
            self._delete_snapshot(name)
        except exception.Busy as error:
            raise exception.SnapshotIsBusy(
                f"The snapshot {name} is attached: {error.message}",
                hint=f"See who has it: storpool attach list | grep {name}",
                snapshot_name=name,
            ) from error

    def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> ModelUpdate:
        refuse_smaller(volume, snapshot.size_bytes)
        try:
            self._create(volume, {"parent": self.storpool_name(snapshot)})
        except exception.NotFound as error:
            raise missing(snapshot) from error
        self._retemplate(volume)
        return None

    def _retemplate(self, volume: Volume) -> None:
        """Give a volume that has its settings from its parent the template of its own type."""
        template = self._template_of(volume.volume_type)
        present = self.api.volume(self.storpool_name(volume))
        if present is None:
            raise exception.VolumeNotFound(id=volume.id)
        if template is not None and present["templateName"] != template:
            self._update_policy(volume, {"template": template})

    def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> ModelUpdate:
        refuse_smaller(volume, src_vref.size_bytes)
        source = self.storpool_name(src_vref)
        present = self.api.volume(source)
        if present is None and not self._is_made(volume, making.mark()):
            raise exception.VolumeNotFound(id=src_vref.id)
        template = self._template_of(volume.volume_type)
        if present is None or template in (None, present["templateName"]):
            self._create(volume, {"baseOn": source})
        else:
            self._clone_across(volume, source, str(template))
        return None

    def _clone_across(self, volume: Volume, source: str, template: str) -> None:
        """Clone into another template: by way of a snapshot, which takes the new template before it has a child."""
        between = self._name("clone", volume.name_id)
        # One that an earlier try has left is of another moment.
        self._delete_snapshot(between)
        if self._is_made(volume, making.mark()):
            return
        try:
            self._snap(source, between)
            self._update_snapshot(between, {"template": template})
            self._create(volume, {"parent": between})
        finally:
            self._delete_snapshot(between)

    def _update_snapshot(self, name: str, data: Mapping[str, Any]) -> None:
        try:
            self.api.change(f"SnapshotUpdate {name}", lambda client: client.snapshot_update(name, data))
        except exception.NotFound as error:
            raise _no_template(data.get("template")) from error

    def revert_to_snapshot(self, context: Any, volume: Volume, snapshot: Snapshot) -> None:
        name, source = self.storpool_name(volume), self.storpool_name(snapshot)
        try:
            self._detach_all("volume", name)
            self.api.change(f"VolumeRevert {name}", lambda client: client.volume_revert(name, {"toSnapshot": source}))
        except exception.Busy as error:
            raise volume_busy(name, error) from error
        except exception.NotFound as error:
            raise missing(volume if self.api.volume(name) is None else snapshot) from error
        present = self.api.volume(name)
        if present is not None and present["size"] < volume.size_bytes:
            # Clusters differ in whether a revert takes the size back as well.
            self.extend_volume(volume, volume.size)


def refuse_smaller(volume: Volume, source_bytes: int) -> None:
    """Return if a volume has room for what it is to be made from.

    :raises Invalid: it has not.
    """
    if volume.size_bytes < source_bytes:
        raise exception.Invalid("It is smaller than its source", field="size")


def _no_template(template: Any) -> exception.VolmgrError:
    return exception.Invalid(
        f"StorPool has no template {template}", hint="See: storpool template list", field="volume_type"
    )


def volume_busy(name: str, error: exception.Busy) -> exception.VolumeIsBusy:
    """Return the error that says that a host has a volume of StorPool open."""
    return exception.VolumeIsBusy(
        f"The volume {name} is attached: {error.message}",
        hint=f"See who has it: storpool attach list | grep {name}",
        volume_name=name,
    )
