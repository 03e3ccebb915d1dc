# SPDX-License-Identifier: Apache-2.0
"""Groups of thin logical volumes: all members are snapshotted while the gates over them let nothing through.

A member is exported through its gate, so one that is connected when it joins has to be disconnected first. A snapshot
whose ``lvcreate`` did not say success may be of a later moment: it is removed and the whole set is made anew. Thick
volumes have no groups. It knows no target.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from volmgr import exception
from volmgr.drivers import members
from volmgr.drivers.interfaces.groups import Updates
from volmgr.drivers.lvm_build import LVMBuilding, tags_of
from volmgr.drivers.lvm_setup import silent
from volmgr.drivers.lvm_trash import LVMTrash
from volmgr.drivers.naming import missing
from volmgr.tools import lvm_dm
from volmgr.tools import lvm_errors as lvm
from volmgr.types import ModelUpdate, Snapshot, Volume

LOG = logging.getLogger(__name__)
Resource = Volume | Snapshot
#: for how many seconds members may be made to wait, for a set and more for each of them.
HOLD_SECONDS, HOLD_SECONDS_EACH = 10.0, 10.0
THIN_ONLY = "Only thin logical volumes can be snapshotted together: lvm_type = thin"


class LVMGroups(LVMBuilding, LVMTrash, abstract=True):
    """Groups."""

    @property
    def exports_members_apart(self) -> bool:
        return self.thin

    @property
    def lacks(self) -> Mapping[str, str]:
        if self.thin:
            return {}
        return dict.fromkeys(("create_cgsnapshot", "create_consistencygroup_from_src"), THIN_ONLY)

    def create_consistencygroup(self, context: Any, group: Any) -> ModelUpdate:
        return None

    def update_consistencygroup(
        self,
        context: Any,
        group: Any,
        add_volumes: Sequence[Volume] | None = None,
        remove_volumes: Sequence[Volume] | None = None,
    ) -> tuple[ModelUpdate, Updates, Updates]:
        """Check that what is added is there and used by nobody who would not wait.

        :raises VolumeIsBusy: it is in use, and not through a gate.
        """
        for volume in add_volumes or ():
            self._need_node(volume.name)
            self._refuse_past_gate(volume)
        return None, None, None

    def delete_consistencygroup(
        self, context: Any, group: Any, volumes: Sequence[Volume]
    ) -> tuple[ModelUpdate, Updates]:
        return members.end_each(volumes, self.trash_volume)

    def delete_cgsnapshot(
        self, context: Any, cgsnapshot: Any, snapshots: Sequence[Snapshot]
    ) -> tuple[ModelUpdate, Updates]:
        return members.end_each(snapshots, self.trash_snapshot)

    def create_cgsnapshot(
        self, context: Any, cgsnapshot: Any, snapshots: Sequence[Snapshot]
    ) -> tuple[ModelUpdate, Updates]:
        live = [snapshot.volume or Volume(id=snapshot.volume_id, size=snapshot.volume_size) for snapshot in snapshots]
        pairs = [(snapshot, snapshot.volume_name) for snapshot in snapshots]
        self._all_at_once(pairs, live)
        return None, None

    def create_consistencygroup_from_src(
        self,
        context: Any,
        group: Any,
        volumes: Sequence[Volume],
        cgsnapshot: Any = None,
        snapshots: Sequence[Snapshot] | None = None,
        source_cg: Any = None,
        source_vols: Sequence[Volume] | None = None,
    ) -> tuple[ModelUpdate, Updates]:
        """Make ``volumes`` from the sources, the first from the first, and so on; larger ones grow afterwards."""
        pairs = members.paired(volumes, snapshots, source_vols)
        self._all_at_once([(volume, source.name) for volume, source in pairs], source_vols or ())
        for volume, source in pairs:
            if volume.size_bytes > source.size_bytes:
                self.vg.extend(volume.name, volume.size_bytes)
        return None, None

    # --- all or none --------------------------------------------------------------------------------------------

    def _all_at_once(self, pairs: Sequence[tuple[Resource, str]], live: Sequence[Volume]) -> None:
        """Make each resource as a snapshot of the logical volume beside it, all of one instant.

        :param live: the volumes among the sources that may be written meanwhile.
        """
        if not self.thin:
            raise exception.Unsupported(verb="create_cgsnapshot", hint=THIN_ONLY)
        if not self._missing(pairs):
            return
        for resource, origin in pairs:
            try:
                self._need_node(origin)
            except lvm.LvNotFound as error:
                raise missing(_origin_of(resource, origin)) from error
        for volume in live:
            self._refuse_past_gate(volume)
        self._thin_pool.admit()
        made: list[tuple[Resource, tuple[str, ...]]] = []
        # A host may be its own initiator: then its SCSI disks wait as well, and LVM would wait for them.
        devices = [item.name for item in self._look().physical] if live else []
        gated = [volume.name_id for volume in live if self.gates.exists(volume.name_id)]
        try:
            seconds = HOLD_SECONDS + len(pairs) * HOLD_SECONDS_EACH
            if gated:
                with self.gates.held(gated, seconds):
                    self._snap_each(pairs, made, devices)
            else:
                self._snap_each(pairs, made, devices)
            self._check_pool()
        except BaseException:
            for resource, tags in made:
                self._try_erasing(resource.name, tags)
            raise

    def _missing(self, pairs: Sequence[tuple[Resource, str]]) -> bool:
        """Return whether the set has to be made; what an unfinished try of this very work has left is removed.

        :raises ObjectExists: something else bears the name of a member.
        """
        present = [resource for resource, _origin in pairs if self._has_node(resource.name)]
        for resource in present:
            self._expect(resource, tags_of(resource))
        if present and len(present) == len(pairs):
            return False
        for resource in present:
            self._erase(resource.name, silent)
        for resource, _origin in pairs:
            self._drop_building(resource)
        return True

    def _snap_each(
        self,
        pairs: Sequence[tuple[Resource, str]],
        made: list[tuple[Resource, tuple[str, ...]]],
        devices: Sequence[str],
    ) -> None:
        for resource, origin in pairs:
            tags = tags_of(resource)
            made.append((resource, tags))
            self.vg.snapshot(resource.name, origin, tags, devices=devices)

    def _check_pool(self) -> None:
        """Return if LVM and the kernel agree about the pool: then every snapshot that LVM knows is there.

        :raises PoolBroken: they do not.
        """
        status = lvm_dm.pool_status(self.vg.name, self.pool)
        known = self.vg.transaction_id(self.pool)
        if status is not None and status.transaction_id != known:
            raise lvm.PoolBroken(
                command="lvcreate",
                group=self.vg.name,
                reason=f"{self.pool} is at transaction {status.transaction_id} for the kernel, {known} for LVM",
            )

    # --- gates --------------------------------------------------------------------------------------------------

    def export_path(self, resource: Volume | Snapshot) -> str:
        """Return the node to serve: the gate over a member of a group, the logical volume of all others.

        A gate that is there is used as long as it is, also after the volume has left its group.
        """
        path = self.local_path(resource)
        if not self.thin or isinstance(resource, Snapshot):
            return path
        if self.gates.exists(resource.name_id):
            return self.gates.path(resource.name_id)
        if resource.group_id is None or not self._has_node(resource.name):
            return path
        return self.gates.make(resource.name_id, path, resource.size_bytes)

    def extend_volume(self, volume: Volume, new_size: int) -> None:
        super().extend_volume(volume, new_size)
        self.gates.grow(volume.name_id, self.local_path(volume), _size_of(self.local_path(volume)))

    def _refuse_past_gate(self, volume: Volume) -> None:
        """Refuse a volume that somebody uses who would not wait at a gate.

        :raises VolumeIsBusy: somebody does.
        """
        if not self.gates.exists(volume.name_id) and self._is_open(volume.name):
            raise exception.VolumeIsBusy(
                volume_name=volume.name,
                hint="It was connected before it joined its group: disconnect it, and remove its export, first",
            )


def _origin_of(resource: Resource, origin: str) -> Resource:
    """Return what a resource is made from, as far as an error about it needs it."""
    if isinstance(resource, Snapshot):
        return resource.volume or Volume(id=resource.volume_id, size=resource.volume_size)
    if resource.snapshot_id is not None:
        return Snapshot(id=resource.snapshot_id, volume_id="", volume_size=resource.size)
    return Volume(id=resource.source_volid or origin, size=resource.size)


def _size_of(path: str) -> int:
    """Return the size of a block device in bytes."""
    with open(path, "rb") as device:
        return device.seek(0, 2)


