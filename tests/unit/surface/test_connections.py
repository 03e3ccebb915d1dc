# SPDX-License-Identifier: Apache-2.0
"""What a host is told of a connection has the promised form for each protocol, and what it tells of itself is kept."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.surface import rows
from volmgr import exception, types, validate
from volmgr.db import models
from volmgr.drivers.file import FileDriver
from volmgr.drivers.options import Configuration
from volmgr.exports import Exports
from volmgr.operations import volumes
from volmgr.operations.attachments import Attachments
from volmgr.targets.aoe import AoeTarget
from volmgr.targets.base import TargetConfig
from volmgr.targets.fake import FakeTarget
from volmgr.targets.lio.fc import FcTarget
from volmgr.targets.lio.iser import IserTarget
from volmgr.testing.rig import HOST, PREFIX, Rig

FORMS = rows.named("connection_info form")
CONNECTOR = {
    "ip": "127.0.0.1", "host": "host", "initiator": "iqn.1993-08.org.debian:01:a", "wwpns": ["5001438001321446"],
    "wwnns": ["5001438001321447"], "multipath": True, "os_type": "linux", "platform": "x86_64",
    "nqn": "nqn.2014-08.org.nvmexpress:uuid:5a8c0000-0000-4000-8000-000000000001",
    "uuid": "5a8c0000-0000-4000-8000-000000000001", "aoe_macs": ["525400123456"],
}
ONE = (types.Portal("10.0.0.1", 3260),)
TWO = (*ONE, types.Portal("10.0.1.1", 3260))
OPTIONS = {"fc_target_wwpns": ["5001438001321448", "5001438001321449"], "aoe_eth_dev": "lo"}
TARGETS: dict[str, Callable[[TargetConfig], Any]] = {
    "iscsi": FakeTarget, "iscsi multipath": FakeTarget, "iser": IserTarget, "fibre_channel": FcTarget, "aoe": AoeTarget,
}
#: what every connection has, whatever the protocol: it is added to what target or driver say.
ADDED = {"volume_id", "access_mode", "encrypted", "qos_specs", "discard", "serial"}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("form", TARGETS)
def test_a_target_tells_this(form: str, tmp_path: Path) -> None:
    portals = TWO if "multipath" in form else ONE
    target = TARGETS[form](TargetConfig(PREFIX, portals, str(tmp_path), options=OPTIONS))
    grant = types.Grant(id="g", mode="rw", initiator=CONNECTOR["initiator"], wwpns=("5001438001321446",), lun=3)
    spec = types.ExportSpec(
        kind="volume", resource_id=str(uuid.uuid4()), target_name=f"{PREFIX}volume-1", path="/dev/null", serial="s",
        size_bytes=types.GiB, auth=types.Chap("user", types.Secret("secret")), grants=(grant,), shelf=1, blade=2,
    )
    assert target.protocol == form.partition(" ")[0]
    assert set(FORMS[form]["data"]) <= set(target.connection(spec, grant)) | ADDED


def test_every_form_is_told_by_something() -> None:
    told_by_drivers = {"storpool": "tests.conformance.storpool.test_driver", "local": __name__}
    assert set(FORMS) == set(TARGETS) | set(told_by_drivers)


def test_storpool_tells_this() -> None:
    source = Path(importlib.import_module("volmgr.drivers.storpool").__file__ or "").read_text(encoding="utf-8")
    assert all(f'"{key}"' in source for key in FORMS["storpool"]["data"])


def test_without_a_target_the_host_itself_gets_the_path(rig: Rig, tmp_path: Path) -> None:
    folder = tmp_path / "volumes"
    folder.mkdir()
    driver = FileDriver(configuration=Configuration({"file_store_path": str(folder)}), host=HOST)
    volume_id = str(uuid.uuid4())
    rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    exports = Exports(rig.database, driver, None, settings=rig.settings, cipher=rig.cipher, clock=rig.clock)
    verbs = Attachments(rig.database, exports, rig.clock)
    answer = verbs.initialize("volume", volume_id, CONNECTOR)
    assert answer["driver_volume_type"] == "local"
    assert set(FORMS["local"]["data"]) | ADDED == set(answer["data"])
    assert answer["data"]["device_path"].endswith(f"volume-{volume_id}")
    assert verbs.terminate("volume", volume_id, CONNECTOR, False)["disconnected"]
    with pytest.raises(exception.InvalidConnector):
        verbs.initialize("volume", volume_id, {**CONNECTOR, "host": "another"})
    assert rig.rows(models.grants) == []


def test_what_a_host_tells_of_itself_is_known_by_name() -> None:
    (row,) = rows.of("connector")
    assert set(row["keys"]) == set(CONNECTOR)
    assert set(validate.connector("connector", CONNECTOR)) == set(row["keys"])
    without = {key: value for key, value in CONNECTOR.items() if key != "initiator"}
    assert validate.connector("connector", {**without, "initiator": None})["initiator"] is None


def test_what_a_driver_remembers_has_a_table() -> None:
    """That it is stored and handed back is tested in tests/unit/operations/test_initiator_data.py."""
    (row,) = rows.of("store")
    assert row["name"] in models.metadata.tables
    source = Path(importlib.import_module("volmgr.db.initiators").__file__ or "").read_text(encoding="utf-8")
    assert all(f'"{key}"' in source for key in row["keys"])
