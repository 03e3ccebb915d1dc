# SPDX-License-Identifier: Apache-2.0
"""The mixin for groups of volumes whose snapshots are of one instant. It knows no driver."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

from volmgr import exception
from volmgr.drivers.interfaces.capability import Interface, marked_default
from volmgr.drivers.interfaces.storage import SnapshotVD
from volmgr.types import ModelUpdate, Snapshot, Volume

Updates = Sequence[dict[str, Any]] | None


class ConsistencyGroupVD(Interface, interface=True):
    """Groups. A model update is {'status': …}; updates of members are lists of {'id': …, 'status': …}.

    A member with status ``error`` or ``error_deleting`` makes the group so too; None, None is success for all. What is
    deleted goes to the trash where the driver has one (TrashVD), as by trash_volume and trash_snapshot.
    """

    REQUIRES: ClassVar[tuple[type[Interface], ...]] = (SnapshotVD,)

    @abc.abstractmethod
    def create_consistencygroup(self, context: Any, group: Any) -> ModelUpdate:
        """Make an empty group; returns a model update or None."""

    @abc.abstractmethod
    def delete_consistencygroup(
        self, context: Any, group: Any, volumes: Sequence[Volume]
    ) -> tuple[ModelUpdate, Updates]:
        """Delete the group and its volumes; returns (model update, updates of volumes)."""

    @abc.abstractmethod
    def create_cgsnapshot(
        self, context: Any, cgsnapshot: Any, snapshots: Sequence[Snapshot]
    ) -> tuple[ModelUpdate, Updates]:
        """Make all ``snapshots`` at one instant, or none; returns (model update, updates of snapshots)."""

    @abc.abstractmethod
    def delete_cgsnapshot(
        self, context: Any, cgsnapshot: Any, snapshots: Sequence[Snapshot]
    ) -> tuple[ModelUpdate, Updates]:
        """Delete all ``snapshots``; returns (model update, updates of snapshots)."""

    @marked_default
    def update_consistencygroup(
        self,
        context: Any,
        group: Any,
        add_volumes: Sequence[Volume] | None = None,
        remove_volumes: Sequence[Volume] | None = None,
    ) -> tuple[ModelUpdate, Updates, Updates]:
        """Add and remove volumes; returns (model update, updates of added, updates of removed)."""
        raise exception.Unsupported(verb="update_consistencygroup")

    @marked_default
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
        """Make ``volumes`` from a group snapshot or another group; returns (model update, updates of volumes)."""
        raise exception.Unsupported(verb="create_consistencygroup_from_src")
