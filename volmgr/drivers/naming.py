# SPDX-License-Identifier: Apache-2.0
"""What drivers with flat names share: which object a name stands for, and which verbs make or end one.

It knows :mod:`volmgr.names` and no storage.
"""

from __future__ import annotations

from volmgr import exception, names
from volmgr.types import ObservedObject, Snapshot, Volume

#: Verbs after which the object is there, whole, with the size of its resource.
CREATING = frozenset(
    {
        "create_volume",
        "create_cloned_volume",
        "create_volume_from_snapshot",
        "create_snapshot",
        "restore_volume",
        "restore_snapshot",
    }
)
#: Verbs after which nothing is left under the object's own or building name.
DELETING = frozenset({"delete_volume", "delete_snapshot", "trash_volume", "trash_snapshot"})


def describe(name: str, size_bytes: int) -> ObservedObject | None:
    """Return what a backend name stands for, None if it is not ours."""
    parsed = names.parse_object_name(name)
    if parsed is not None:
        return ObservedObject(name, parsed.object_id, parsed.kind, "current", size_bytes)
    object_id = names.parse_trash_name(name)
    if object_id is not None:
        return ObservedObject(name, object_id, "", "trash", size_bytes)
    object_id = names.parse_building_name(name)
    if object_id is not None:
        return ObservedObject(name, object_id, "", "building", size_bytes)
    return None


def missing(resource: Volume | Snapshot) -> exception.NotFound:
    """Return the error that says that the object of ``resource`` is not there."""
    snapshot = isinstance(resource, Snapshot)
    noun = "snapshot" if snapshot else "volume"
    return (exception.SnapshotNotFound if snapshot else exception.VolumeNotFound)(
        f"The storage of {noun} {resource.id} is not there",
        hint=f"If it is gone for good: volmgr {noun} delete {resource.id}",
        id=resource.id,
    )


def own_name(name: str) -> ObservedObject:
    """Return what a backend name stands for, its size unknown.

    :raises Invalid: it is not ours.
    """
    found = describe(name, 0)
    if found is None:
        raise exception.Invalid(f"{name[:100]!r} is no name of ours", field="name")
    return found
