# SPDX-License-Identifier: Apache-2.0
"""What ``test_storpool.py`` runs where ``/etc/storpool.conf`` and ``/dev`` are its own: kills while a daemon reads or
writes StorPool's devices, for backups and images. What it has attached to its host must be let go by its next life.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from volmgr.testing.chaos.scenarios import BACKUP, FROM_IMAGE, RESTORE, STORED, WITH_BACKUP
from volmgr.testing.chaos.stage import Stage
from volmgr.testing.chaos.storpool import stage as make_stage
from volmgr.testing.chaos.story import MARKED, Call, Scenario, create
from volmgr.testing.chaos.strikes import record, strike
from volmgr.testing.storpool.process import StorPoolServer

UPLOAD = Call("copy_volume_to_image", {"volume_id": "@v", "image_meta": {"id": "@k", "disk_format": "raw"}})
STORIES = {
    "backup": Scenario("backup", "create_backup", MARKED, BACKUP, lean=True),
    "restore": Scenario("restore", "restore_backup", WITH_BACKUP, RESTORE, lean=True),
    "create-from-backup": Scenario(
        "create-from-backup", "create_volume", WITH_BACKUP, create("@c", backup_id="@b"), lean=True
    ),
    "create-from-an-image": Scenario("create-from-an-image", "create_volume", (STORED,), FROM_IMAGE, lean=True),
    "upload": Scenario("upload", "copy_volume_to_image", MARKED, UPLOAD, lean=True),
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    arguments = ["--devices", "/dev", "--device-client", "1"]
    with StorPoolServer(tmp_path_factory.mktemp("storpool"), arguments) as server:
        made = make_stage(server, tmp_path_factory.mktemp("stage"))
        made.start()
        yield made
        made.close()
        assert server.refused() == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", STORIES)
def test_a_kill_at_every_step(stage: Stage, name: str) -> None:
    recorded = record(stage, dataclasses.replace(STORIES[name], inside=()))
    kills = [kill for kill in recorded.strikes() if not kill.again and "/-/" not in kill.point]
    assert {"before", "after"} <= {kill.point.rpartition("/")[2] for kill in kills}
    assert {str(kill): found for kill in kills if (found := strike(stage, recorded, kill))} == {}
