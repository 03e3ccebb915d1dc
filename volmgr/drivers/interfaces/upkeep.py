# SPDX-License-Identifier: Apache-2.0
"""The mixins for what happens behind the verbs: deleted space, and the comparison of what is with what should be.

The rules for all of them stand in the package's docstring. This module knows no driver and no audit.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

from volmgr import exception
from volmgr.drivers.interfaces.capability import Interface, marked_default
from volmgr.types import ObservedObject, Snapshot, Volume

Progress = Callable[[float], None]


class TrashVD(Interface, interface=True):
    """Delete at once, free later: a deleted object is renamed, and wiped in the background.

    Trash is never exported, its space counts as used, and it can be restored until its wipe has begun.
    """

    @abc.abstractmethod
    def trash_volume(self, volume: Volume) -> None:
        """Rename the volume's object to ``names.trash_name(volume.name_id)``; absent is success.

        What an unfinished create left under the building name goes the same way.

        :raises VolumeIsBusy: something uses its storage.
        """

    @abc.abstractmethod
    def trash_snapshot(self, snapshot: Snapshot) -> None:
        """The same for a snapshot.

        :raises SnapshotIsBusy: something uses its storage.
        """

    @abc.abstractmethod
    def restore_volume(self, volume: Volume) -> None:
        """Rename the trash back; what has its own name already is success.

        :param volume: with the size that the object had.
        :raises VolumeNotFound: there is no such trash, or its wipe has begun.
        """

    @abc.abstractmethod
    def restore_snapshot(self, snapshot: Snapshot) -> None:
        """The same for a snapshot.

        :raises SnapshotNotFound: there is no such trash, or its wipe has begun.
        """

    @abc.abstractmethod
    def wipe(self, kind: str, object_id: str, progress: Progress) -> None:
        """Free a trashed object so that none of its bytes can be read again; absent is success.

        It may be broken off at any instant and run again: it goes on or begins again, and ends the same. How far it is
        may be kept by :func:`volmgr.drivers.progress.keep`.

        :param kind: ``volume`` or ``snapshot``.
        :param progress: called with a fraction from 0 to 1 at least every few seconds. What it raises (Cancelled,
            LeaseLost) stops the wipe and passes through.
        :raises Busy: something that is not trash still needs the object; it is to be wiped once that is gone.
        """


class ObserveVD(Interface, interface=True):
    """A backend that can say what it has."""

    @abc.abstractmethod
    def observe(self) -> Sequence[ObservedObject]:
        """Return every object under one of our names, in a constant number of processes or requests.

        ``state`` is current, building or trash. A building or trash name does not tell the kind: ``kind`` is then "".
        """

    @abc.abstractmethod
    def recognise(self, verb: str, resource: Volume | Snapshot) -> dict[str, Any] | None:
        """Tell after a crash whether ``verb`` has done its work on ``resource``, whole; nothing is changed.

        Creating verbs and restore: the object is there with its full size. ``extend_volume``: the object has at least
        ``resource.size``. Deleting and trashing verbs: nothing is left under the object's own or building name.

        :returns: what the verb would have returned.
        :raises NotFound: it is not done, or not known to be whole; the verb is to be run (again).
        """

    @abc.abstractmethod
    def discard(self, name: str, progress: Progress) -> None:
        """Free what :meth:`observe` shows under this very name, so that none of its bytes can be read again.

        For what belongs to nothing any more. Absent is success; it may be broken off and run again.

        :param progress: as for :meth:`TrashVD.wipe`. :raises Busy: something uses it, or something else stands on it.
        :raises Invalid: the name is none of ours.
        """

    @marked_default
    def resume(self, name: str) -> None:
        """Let what :meth:`observe` shows as suspended be read and written again; what is not suspended is success."""
        raise exception.Unsupported(verb="resume")
