# SPDX-License-Identifier: Apache-2.0
"""Groups of StorPool volumes: one call of the API makes the snapshots of all members at one instant, or none.

StorPool itself holds off writers for that instant, so no client waits for anything of ours. A group made from another
one goes through such snapshots, one for each of its volumes, which are removed once all volumes are there. Who belongs
to a group is the caller's knowledge, not kept here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from volmgr import exception
from volmgr.drivers import making
from volmgr.drivers.interfaces.groups import Updates
from volmgr.drivers.members import end_each, paired
from volmgr.drivers.storpool_copy import marked, work_of
from volmgr.drivers.storpool_volumes import StorPoolVolumes
from volmgr.types import ModelUpdate, Snapshot, Volume

PATH = "/ctrl/1.0/MultiCluster/VolumesGroupSnapshot"


class StorPoolGroups(StorPoolVolumes, abstract=True):
    """Groups."""

    def create_consistencygroup(self, context: Any, group: Any) -> ModelUpdate:
        """Do nothing: StorPool keeps no groups."""
        return None

    def update_consistencygroup(
        self,
        context: Any,
        group: Any,
        add_volumes: Sequence[Volume] | None = None,
        remove_volumes: Sequence[Volume] | None = None,
    ) -> tuple[ModelUpdate, Updates, Updates]:
        """Check that what is added is there.

        :raises VolumeNotFound: it is not.
        """
        self._need(add_volumes or ())
        return None, None, None

    def delete_consistencygroup(
        self, context: Any, group: Any, volumes: Sequence[Volume]
    ) -> tuple[ModelUpdate, Updates]:
        return end_each(volumes, self.delete_volume)

    def delete_cgsnapshot(
        self, context: Any, cgsnapshot: Any, snapshots: Sequence[Snapshot]
    ) -> tuple[ModelUpdate, Updates]:
        return end_each(snapshots, self.delete_snapshot)

    def create_cgsnapshot(
        self, context: Any, cgsnapshot: Any, snapshots: Sequence[Snapshot]
    ) -> tuple[ModelUpdate, Updates]:
        """Make all snapshots by one call.

        :raises VolumeNotFound: one of the volumes is not there; no snapshot was made.
        """
        pairs = [(self._origin(snapshot), self.storpool_name(snapshot)) for snapshot in snapshots]
        try:
            self._snap_all(pairs)
        except exception.NotFound as error:
            for snapshot in snapshots:
                if self.api.volume(self._origin(snapshot)) is None:
                    raise exception.VolumeNotFound(id=snapshot.volume_id) from error
            raise
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
        """Make ``volumes`` from the sources, the first from the first, and so on.

        A failure leaves what was made by then to the caller, who takes it back by delete_consistencygroup.
        """
        paired(volumes, snapshots, source_vols)
        if snapshots:
            for volume, snapshot in zip(volumes, snapshots, strict=True):
                self.create_volume_from_snapshot(volume, snapshot)
        elif source_vols:
            self._copy_all(volumes, source_vols)
        return None, None

    # --- all at once --------------------------------------------------------------------------------------------

    def _origin(self, snapshot: Snapshot) -> str:
        """Return StorPool's name of the volume that a snapshot is to be of."""
        return self._name("volume", snapshot.volume.name_id if snapshot.volume is not None else snapshot.volume_id)

    def _need(self, volumes: Sequence[Volume]) -> None:
        for volume in volumes:
            if self.api.volume(self.storpool_name(volume)) is None:
                raise exception.VolumeNotFound(id=volume.id)

    def _snap_all(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Make snapshots of several volumes at one instant, unless this work has made them already.

        :param pairs: (StorPool's name of a volume, name of its snapshot). :raises NotFound: a volume is not there.
        :raises ObjectExists: a name is taken by what this work has not made. :raises AlreadyExists: only a part of the
            set is there, and what would be made now would be of another instant.
        """
        work = making.mark()
        entries = [{"volume": volume, "name": name} for volume, name in pairs]

        def are_made() -> bool:
            there = []
            for _volume, name in pairs:
                if (present := self.api.snapshot(name)) is not None:
                    making.expect(name, work_of(present), work)
                    there.append(name)
            if there and len(there) < len(pairs):
                raise exception.AlreadyExists(resource="object", id=there[0])
            return bool(there)

        # os-brick's client has no method for it.
        self.api.change(
            f"VolumesGroupSnapshot {pairs[0][1]} and {len(pairs) - 1} more",
            lambda client: client._api_call("POST", PATH, {"volumes": entries, "tags": marked(work)}),
            are_made,
        )

    def _copy_all(self, volumes: Sequence[Volume], sources: Sequence[Volume]) -> None:
        """Make volumes of one instant of their sources, by way of snapshots.

        :raises VolumeNotFound: a source is not there. :raises AlreadyExists: a part is there, of an earlier instant.
        """
        betweens = [self._name("clone", volume.name_id) for volume in volumes]
        work = making.mark()
        made = [self._is_made(volume, work) for volume in volumes]
        if any(made):
            left = [name for name, done in zip(betweens, made, strict=True) if not done]
            if any(self.api.snapshot(name) is None for name in left):
                raise exception.AlreadyExists(resource="object", id=volumes[made.index(True)].name)
        else:
            pairs = [(self.storpool_name(source), name) for source, name in zip(sources, betweens, strict=True)]
            try:
                self._snap_all(pairs)
            except exception.NotFound:
                self._need(sources)
                raise
        for volume, name, done in zip(volumes, betweens, made, strict=True):
            if not done:
                self._create_through(volume, name)
        for name in betweens:
            self._delete_snapshot(name)

    def _create_through(self, volume: Volume, between: str) -> None:
        """Make a volume from a snapshot, which takes the volume's template before it has a child."""
        template = self._template_of(volume.volume_type)
        present = self.api.snapshot(between)
        if present is not None and template not in (None, present["templateName"]):
            self._update_snapshot(between, {"template": template})
        self._create(volume, {"parent": between})
