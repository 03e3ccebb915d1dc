# SPDX-License-Identifier: Apache-2.0
"""What a driver can do is which of these mixins it inherits; there is no other list of capabilities.

Rules that hold for every method of every mixin, and that the conformance suite checks:

* **Idempotent.** To create what is there already with the same size is success; to delete, trash or unexport what is
  absent is success; to extend to the present size is success.
* **Whole or absent.** What takes more than one act is built under ``names.building_name(object_id)``, made durable, and
  renamed to its final name as the very last act. An object under its final name is whole. A half-made building object
  of an earlier try is removed first, so that every create may be run again at any time.
* **Refused before changed.** A verb that is not supported raises :class:`volmgr.exception.Unsupported` and has then
  changed nothing.
* **Zeros.** Whatever of a new volume was never written reads as zeros.

Drivers get frozen :class:`volmgr.types.Volume` and :class:`volmgr.types.Snapshot` records: ``name`` is the backend
name, ``name_id`` the id of the object, ``size`` is in GiB. The mixins know no driver, target or database.
"""

from volmgr.drivers.interfaces.capability import (
    VERBS,
    Interface,
    ProxyVD,
    general_solution,
    marked_default,
    supports,
)
from volmgr.drivers.interfaces.groups import ConsistencyGroupVD
from volmgr.drivers.interfaces.management import (
    ManageableSnapshotsVD,
    ManageableVD,
    MigrateVD,
    RetypeVD,
    TransferVD,
)
from volmgr.drivers.interfaces.replication import ReplicaVD
from volmgr.drivers.interfaces.storage import CloneableImageVD, ExtendVD, LocalVD, SnapshotVD
from volmgr.drivers.interfaces.upkeep import ObserveVD, TrashVD

__all__ = [
    "VERBS",
    "CloneableImageVD",
    "ConsistencyGroupVD",
    "ExtendVD",
    "Interface",
    "LocalVD",
    "ManageableSnapshotsVD",
    "ManageableVD",
    "MigrateVD",
    "ObserveVD",
    "ProxyVD",
    "ReplicaVD",
    "RetypeVD",
    "SnapshotVD",
    "TransferVD",
    "TrashVD",
    "general_solution",
    "marked_default",
    "supports",
]
