# SPDX-License-Identifier: Apache-2.0
"""Many volumes at once in a rig, past all verbs, for tests and benchmarks of what is done in bulk."""

from __future__ import annotations

import uuid

import sqlalchemy as sa

from volmgr import names, types
from volmgr.db import models
from volmgr.testing.rig import PREFIX, Rig


def fill(rig: Rig, count: int) -> None:
    """Put ``count`` available volumes of 1 GiB into SQL, storage and target, every third one exported and granted."""
    now = rig.clock.now()
    ids = [str(uuid.uuid4()) for _ in range(count)]
    with rig.database.writer() as conn:
        conn.execute(sa.insert(models.volumes), [
            {"id": item, "size": 1, "status": "available", "host": "host@sim#pool", "object_id": item,
             "created_at": now, "project_id": "p"}
            for item in ids
        ])
        conn.execute(sa.insert(models.objects), [
            {"id": item, "kind": "volume", "resource_id": item, "role": "current", "host": "host@sim#pool",
             "serial": item, "size_bytes": types.GiB, "created_at": now}
            for item in ids
        ])
        conn.execute(sa.insert(models.exports), [
            {"resource_id": item, "kind": "volume", "host": "host@sim", "created_at": now,
             "target_name": names.target_name(PREFIX, "volume", item)}
            for item in ids[::3]
        ])
        conn.execute(sa.insert(models.grants), [
            {"id": str(uuid.uuid4()), "resource_id": item, "peer_key": "iqn:a", "initiator": "iqn.a", "created_at": now,
             "wwpns": None, "macs": None}
            for item in ids[::3]
        ])
        conn.execute(sa.insert(models.quotas), {"project_id": "p", "volume_type_id": "", "volumes": count,
                                                "gigabytes": count})
    for item in ids:
        rig.driver.store.create(names.object_name("volume", item), types.GiB)
    rig.exports.rebuild()
