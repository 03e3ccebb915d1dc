# SPDX-License-Identifier: Apache-2.0
"""The mixin for volumes with a replica. It knows no driver."""

from __future__ import annotations

import abc
from typing import Any

from volmgr.drivers.interfaces.capability import Interface
from volmgr.types import ModelUpdate, Volume


class ReplicaVD(Interface, interface=True):
    """Replication of single volumes.

    Model updates hold ``replication_status`` (``error``; ``copying``: not consistent yet; ``active``: consistent and
    copying; ``active-stopped``: consistent, on hold; ``inactive``: not consistent, on hold),
    ``replication_extended_status`` and ``replication_driver_data``.
    """

    @abc.abstractmethod
    def reenable_replication(self, context: Any, volume: Volume) -> ModelUpdate:
        """Start replication again after a promotion or an error."""

    @abc.abstractmethod
    def get_replication_status(self, context: Any, volume: Volume) -> ModelUpdate:
        """Ask the backend how the replication of ``volume`` stands."""

    @abc.abstractmethod
    def promote_replica(self, context: Any, volume: Volume) -> ModelUpdate:
        """Make the replica the volume; replication between the two ends and the status becomes ``inactive``."""

    @abc.abstractmethod
    def create_replica_test_volume(self, volume: Volume, src_vref: Volume) -> ModelUpdate:
        """Make ``volume`` a clone of the replica of ``src_vref``."""
