# SPDX-License-Identifier: Apache-2.0
"""What an administrator reads of grants: enough to compare a host with it, and no secret."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from volmgr.db import listing
from volmgr.operations import volumes
from volmgr.testing.rig import Rig


def page(rig: Rig, **filters: str) -> list[dict[str, object]]:
    wanted = listing.Page(
        filters=filters, marker=None, limit=10, sort_keys=["created_at"], sort_dirs=["asc"], project_id=None
    )
    with rig.database.reader() as conn:
        return listing.grants(conn, wanted)


def test_a_grant_has_target_lun_and_serial_of_what_it_is_for(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    infos = {}
    for name in ("one", "two"):
        volume_id = str(uuid.uuid4())
        rig.submit(volumes.CreateVolume, volume_id=volume_id, size=1)
        rig.run()
        connector = {"initiator": f"iqn.1993-08.org.debian:01:{name}", "ip": "127.0.0.1", "host": name}
        infos[volume_id] = rig.attachments.initialize("volume", volume_id, connector)["data"]
    rows = page(rig)
    assert [row["resource_id"] for row in rows] == list(infos)
    for row in rows:
        info = infos[str(row["resource_id"])]
        said = (info["target_iqn"], info["target_lun"], info["serial"])
        assert (row["target_name"], row["lun"], row["serial"]) == said
        assert info["auth_password"] not in json.dumps(row)
    assert [row["host_name"] for row in page(rig, initiator="iqn.1993-08.org.debian:01:two")] == ["two"]
    assert page(rig, initiator="iqn.1993-08.org.debian:01:none") == []
    rig.close()
