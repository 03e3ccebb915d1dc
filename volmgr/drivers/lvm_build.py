# SPDX-License-Identifier: Apache-2.0
"""How logical volumes come to be: empty ones, snapshots, copies. They get their name when they are whole.

It knows no target and no database.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from volmgr import exception, killpoints, names
from volmgr.drivers import lvm_copy, making
from volmgr.drivers import progress as reports
from volmgr.drivers.lvm_grow import LVMGrowing, snapshot_space
from volmgr.drivers.lvm_points import FOLLOWS, stance_tag
from volmgr.drivers.lvm_setup import silent
from volmgr.drivers.naming import missing
from volmgr.drivers.replicating import wants_replica
from volmgr.tools import lvm_dm
from volmgr.tools import lvm_errors as lvm
from volmgr.types import ModelUpdate, Snapshot, Volume

_BETWEEN = uuid.UUID("2c0a9f5e-53b1-4b9c-8f0e-0d0f5f7a6b11")


class LVMBuilding(LVMGrowing, abstract=True):
    """Creating, copying, deleting."""

    # --- create -------------------------------------------------------------------------------------------------

    def create_volume(self, volume: Volume) -> ModelUpdate:
        tags = tags_of(volume)

        def create() -> None:
            if self.thin:
                self._thin_pool.admit()
                self.vg.create_thin(volume.name, volume.size_bytes, self.pool, tags)
            else:
                self.vg.create_thick(volume.name, volume.size_bytes, tags, self.mirrors)

        if self.thin or self._clean:
            return self._at_once(volume, tags, create)
        return self._build(volume, tags, lambda building: self._make_thick(building, volume, tags))

    def _at_once(
        self, resource: Volume | Snapshot, tags: Sequence[str], create: Callable[[], None]
    ) -> ModelUpdate:
        """Make an object with ``tags`` by one command, under its final name."""
        self._drop_building(resource)
        try:
            create()
        except lvm.LvExists:
            self._expect(resource, tags)
        return None

    def _build(self, resource: Volume, tags: Sequence[str], fill: Callable[[str], None]) -> ModelUpdate:
        """Make an object under its building name by ``fill``, then give it its own name as the last act."""
        if self._has_node(resource.name):
            self._expect(resource, tags)
            self._drop_building(resource)
            return None
        building = names.building_name(resource.name_id)
        self._drop_building(resource)
        try:
            self._fill_and_name(building, resource.name, fill)
        except lvm.LvExists:
            # The building name was taken by something inactive, or the final one is.
            self._erase(building, silent)
            if resource.name in self._look().volumes:
                self._expect(resource, tags)
            else:
                self._fill_and_name(building, resource.name, fill)
        return None

    def _fill_and_name(self, building: str, name: str, fill: Callable[[str], None]) -> None:
        try:
            fill(building)
            self.vg.rename(building, name)
        except lvm.LvExists:
            raise
        except BaseException:
            # Tried, not promised: whatever stays under the building name is removed by the next create or delete.
            self._try_erasing(building)
            raise

    def _make_thick(self, building: str, volume: Volume, tags: Sequence[str]) -> None:
        self.vg.create_thick(building, volume.size_bytes, tags, self.mirrors)
        killpoints.reach("lvm/create/allocated")
        if not self._clean:
            lvm_copy.zero(self.vg.path(building), reports.report, pace=self._pace())

    def _expect(self, resource: Volume | Snapshot, tags: Sequence[str]) -> None:
        """Check that what bears the resource's name is of this work, has its size, and can be used.

        :raises ObjectExists: it was there before. :raises AlreadyExists: it has another size.
        """
        found = self._look()
        present = found.volumes.get(resource.name)
        if present is None:
            raise exception.Inconsistent(f"{resource.name} was there a moment ago and is not any more")
        making.expect(resource.name, names.lv_work(present.tags), str(names.lv_work(tags)))
        if present.size_bytes != found.rounded(resource.size_bytes):
            raise exception.AlreadyExists(resource="object", id=resource.name)
        if not present.active:
            self.vg.activate(present.name)

    # --- snapshots and copies -----------------------------------------------------------------------------------

    def create_snapshot(self, snapshot: Snapshot) -> ModelUpdate:
        try:
            return self._snap(snapshot, snapshot.volume_name, tags_of(snapshot))
        except lvm.LvNotFound as error:
            raise missing(snapshot.volume or Volume(id=snapshot.volume_id, size=snapshot.volume_size)) from error

    def _snap(self, resource: Volume | Snapshot, origin: str, tags: Sequence[str]) -> ModelUpdate:
        """Make a snapshot of ``origin`` under the resource's name; one whose making failed is never kept."""
        if self._has_node(resource.name):
            self._expect(resource, tags)
            self._drop_building(resource)
            return None
        space = None
        if self._is_thin(origin):
            self._thin_pool.admit()
        else:
            # Such a snapshot never overflows.
            space = snapshot_space(resource.size_bytes)

        def create() -> None:
            try:
                self.vg.snapshot(resource.name, origin, tags, space)
            except (lvm.LvmFailed, lvm.PoolBroken, exception.Timeout):
                self._try_erasing(resource.name, tags)
                raise

        return self._at_once(resource, tags, create)

    def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> ModelUpdate:
        return self._copy(volume, snapshot.name, snapshot, snapshot.size_bytes)

    def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> ModelUpdate:
        if self._has_node(volume.name) or self._is_thin(src_vref.name):
            return self._copy(volume, src_vref.name, src_vref, src_vref.size_bytes)
        _refuse_smaller(volume, src_vref.size_bytes)
        # The copy is of one moment: that of a snapshot, whose id follows from the volume's, so that whoever takes the
        # volume away after a crash finds it.
        between = Snapshot(
            id=between_id(volume.name_id), volume_id=src_vref.id, volume_size=src_vref.size, volume=src_vref
        )
        self.delete_snapshot(between)
        self.create_snapshot(between)
        try:
            return self.create_volume_from_snapshot(volume, between)
        finally:
            self.delete_snapshot(between)

    def _copy(self, volume: Volume, source: str, resource: Volume | Snapshot, size_bytes: int) -> ModelUpdate:
        """Make ``volume`` with the bytes of the logical volume ``source``, which is that of ``resource``."""
        _refuse_smaller(volume, size_bytes)
        tags = tags_of(volume)
        try:
            if not self._is_thin(source):
                return self._build(volume, tags, lambda name: self._fill(name, volume, source, size_bytes, tags))
            if volume.size_bytes == size_bytes:
                return self._snap(volume, source, tags)
            return self._build(volume, tags, lambda name: self._grown_clone(name, volume, source, tags))
        except lvm.LvNotFound as error:
            raise missing(resource) from error

    def _grown_clone(self, building: str, volume: Volume, source: str, tags: Sequence[str]) -> None:
        self._thin_pool.admit()
        self.vg.snapshot(building, source, tags)
        self.vg.extend(building, volume.size_bytes)

    def _fill(self, building: str, volume: Volume, source: str, size_bytes: int, tags: Sequence[str]) -> None:
        self._need_node(source)
        if (table := lvm_dm.table(self.vg.name, source)) is not None and table[0] == "snapshot" and "/" not in table[1]:
            # In place of its numbers the kernel says Invalid or Overflow.
            raise lvm.SnapshotOverflowed(
                command="lvs", group=self.vg.name, reason=f"{source} has overflowed, its bytes are lost"
            )
        self._fill_from(building, volume, self.vg.path(source), size_bytes, tags)

    def _fill_from(self, building: str, volume: Volume, source: str, size_bytes: int, tags: Sequence[str]) -> None:
        """Make a volume with the bytes of the device ``source`` and zeros behind them."""
        path = self.vg.path(building)
        if self.thin:
            self._thin_pool.admit()
            self.vg.create_thin(building, volume.size_bytes, self.pool, tags)
        else:
            self.vg.create_thick(building, volume.size_bytes, tags, self.mirrors)
        sparse = self.thin or self._clean or lvm_copy.unmap(path, silent)
        chunk = lvm_copy.block(self.configuration.volume_dd_blocksize)
        lvm_copy.copy(source, path, size_bytes, reports.report, sparse=sparse, pace=self._pace(), chunk=chunk)
        if not sparse:
            lvm_copy.zero(path, lambda _fraction: reports.report(1.0), start=size_bytes, end=volume.size_bytes)

    # --- delete -------------------------------------------------------------------------------------------------

    def delete_volume(self, volume: Volume) -> None:
        self._delete(volume)
        between = names.object_name("snapshot", between_id(volume.name_id))
        if self._has_node(between):
            self._erase(between, reports.report)

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        self._delete(snapshot)


def tags_of(resource: Volume | Snapshot) -> tuple[str, ...]:
    """Return the tags of an object that is made now: what it embodies, by which work, and if it is to be replicated."""
    kind = "snapshot" if isinstance(resource, Snapshot) else "volume"
    tags = (*names.lv_tags(resource.name_id, kind, resource.id), names.lv_work_tag(making.mark()))
    return (*tags, stance_tag(FOLLOWS)) if isinstance(resource, Volume) and wants_replica(resource) else tags


def between_id(object_id: str) -> str:
    """Return the id of the snapshot through which the object is made as a clone."""
    return str(uuid.uuid5(_BETWEEN, object_id))


def _refuse_smaller(volume: Volume, source_bytes: int) -> None:
    if volume.size_bytes < source_bytes:
        raise exception.Invalid("It is smaller than its source", field="size")
