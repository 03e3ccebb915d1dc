# SPDX-License-Identifier: Apache-2.0
"""Groups of volumes in files: all members are copied while the target makes every initiator wait.

What makes files makes all of them or none. All are whole under their building names before the first gets its own, so a
repeat after a crash either goes on with the renames or makes the whole set anew. What ends files goes as far as it can
and tells for each member how far it came. Who belongs to a group is the caller's knowledge, not kept here.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from volmgr import exception, names
from volmgr.concurrency import offload
from volmgr.drivers import making, members
from volmgr.drivers import progress as reports
from volmgr.drivers.exporting import TargetVD
from volmgr.drivers.folder import Folder
from volmgr.drivers.interfaces import ConsistencyGroupVD, SnapshotVD, TrashVD
from volmgr.drivers.interfaces.groups import Updates
from volmgr.drivers.naming import missing
from volmgr.types import ModelUpdate, Snapshot, Volume

Resource = Volume | Snapshot
#: for how many seconds initiators may be made to wait, for a set and more for each of its members.
HOLD_SECONDS, HOLD_SECONDS_EACH = 10.0, 1.0
NO_HOLD = "Its target cannot make initiators wait; tgtadm with a tgtd of its own can"


class FileGroups(ConsistencyGroupVD, SnapshotVD, TrashVD, TargetVD, abstract=True):
    """Groups."""

    @property
    @abc.abstractmethod
    def _volumes(self) -> Folder:
        """Where the volumes are."""

    @property
    def can_hold(self) -> bool:
        """Whether all members of a group can be had at one instant: nobody is served, or everybody can be made wait."""
        return self.target_driver is None or self.target_driver.can_hold

    @property
    def lacks(self) -> Mapping[str, str]:
        if self.can_hold:
            return {}
        return dict.fromkeys(("create_cgsnapshot", "create_consistencygroup_from_src"), NO_HOLD)

    def create_consistencygroup(self, context: Any, group: Any) -> ModelUpdate:
        return None

    def update_consistencygroup(
        self,
        context: Any,
        group: Any,
        add_volumes: Sequence[Volume] | None = None,
        remove_volumes: Sequence[Volume] | None = None,
    ) -> tuple[ModelUpdate, Updates, Updates]:
        """Check that what is added is there."""
        for volume in add_volumes or ():
            if self._volumes.size(volume.name) is None:
                raise missing(volume)
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
        for snapshot in snapshots:
            if self._volumes.size(snapshot.volume_name) is None:
                raise exception.VolumeNotFound(id=snapshot.volume_id)
        self._copy_all([(snapshot, snapshot.volume_name) for snapshot in snapshots], live=True)
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
        """Make ``volumes`` from the sources, the first from the first, and so on."""
        pairs = members.paired(volumes, snapshots, source_vols)
        for _volume, source in pairs:
            if self._volumes.size(source.name) is None:
                raise missing(source)
        self._copy_all([(volume, source.name) for volume, source in pairs], live=not snapshots)
        return None, None

    # --- all or none --------------------------------------------------------------------------------------------

    def _copy_all(self, pairs: Sequence[tuple[Resource, str]], *, live: bool) -> None:
        """Make each resource from the file beside it, all of one instant.

        :param live: whether the sources may be written meanwhile.
        """
        folder = self._volumes
        for resource, source in pairs:
            if (folder.size(source) or 0) > resource.size_bytes:
                raise exception.Invalid(f"{resource.id} is smaller than its source", field="size")
        resources = [resource for resource, _source in pairs]
        if not self._begun(resources):
            try:
                self._build_all(pairs, live=live)
            except BaseException:
                for resource in resources:
                    offload(folder.remove, names.building_name(resource.name_id))
                raise
        for resource in resources:
            offload(folder.rename, names.building_name(resource.name_id), resource.name)

    def _begun(self, resources: Sequence[Resource]) -> bool:
        """Return whether an earlier try made the whole set and came at least as far as its first rename.

        :raises AlreadyExists: some members are there, but not of such a set.
        """
        folder = self._volumes
        present = [item for item in resources if folder.size(item.name) is not None]
        if not present:
            return False
        for item in present:
            making.expect(item.name, folder.mark_of(item.name), making.mark())
        for item in resources:
            size = folder.size(item.name)
            if size is None:
                size = folder.size(names.building_name(item.name_id))
            if size != item.size_bytes:
                raise exception.AlreadyExists(resource="object", id=present[0].name)
        return True

    def _build_all(self, pairs: Sequence[tuple[Resource, str]], *, live: bool) -> None:
        folder = self._volumes
        for _resource, source in pairs if live else ():
            offload(folder.flush, source)  # what sharing blocks would else have to write while everybody waits
        with self._held(len(pairs)) if live else contextlib.nullcontext():
            for resource, source in pairs:
                building = names.building_name(resource.name_id)
                if not (self.instant_clone and offload(folder.reflink, source, building)):
                    folder.copy_sparse(source, building, resource.size_bytes, reports.report, offload)
        for resource, _source in pairs:
            building = names.building_name(resource.name_id)
            offload(folder.resize, building, resource.size_bytes)
            folder.mark(building, making.mark())
            offload(folder.flush, building)

    @contextlib.contextmanager
    def _held(self, count: int) -> Iterator[None]:
        if self.target_driver is None:
            yield
            return
        with self.target_driver.hold(HOLD_SECONDS + count * HOLD_SECONDS_EACH):
            yield
