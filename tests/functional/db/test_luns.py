# SPDX-License-Identifier: Apache-2.0
"""Numbers of volumes that share a target: one for each port and initiator, given once, given back after the target."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from volmgr import types
from volmgr.db import luns, models
from volmgr.db.engine import Database
from volmgr.operations.volumes import CreateVolume, DeleteVolume
from volmgr.targets.base import TargetConfig
from volmgr.targets.fake import FakeTarget
from volmgr.testing.rig import PREFIX, Rig

PORTS = ("2000525400aa0001", "2000525400aa0003")
ONE, TWO = "2000525400aa0002", "2000525400aa0004"


class FakePorts(FakeTarget):
    """A fake target whose exports share two ports."""

    protocol: ClassVar[str] = "fibre_channel"
    ports = PORTS

    def validate_connector(self, connector: dict[str, Any]) -> None:
        """Take any."""


@pytest.fixture
def rig(database: Database, tmp_path: Path) -> Rig:
    target = FakePorts(TargetConfig(PREFIX, (types.Portal("127.0.0.1", 3260),), str(tmp_path)))
    return Rig(tmp_path, database=database, target=target)


def make(rig: Rig) -> str:
    volume_id = str(uuid.uuid4())
    rig.do(CreateVolume, volume_id=volume_id, size=1)
    return volume_id


def connector(*wwpns: str) -> dict[str, Any]:
    return {"wwpns": list(wwpns), "wwnns": ["1000525400aa0002"], "host": "compute"}


def granted(rig: Rig, volume_id: str) -> dict[str, int]:
    """Return the numbers that the target was told, by initiator."""
    target = rig.target
    assert isinstance(target, FakePorts)
    specs = [spec for name, spec in target.exports.items() if volume_id in name]
    return {wwpn: grant.lun for spec in specs for grant in spec.grants for wwpn in grant.wwpns}


def test_an_initiator_has_each_number_once(rig: Rig) -> None:
    ids = [make(rig) for _ in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: rig.attachments.initialize("volume", one, connector(ONE, TWO)), ids))
    numbers = [granted(rig, volume_id) for volume_id in ids]
    assert all(set(told) == {ONE, TWO} and told[ONE] == told[TWO] for told in numbers)
    assert len({told[ONE] for told in numbers}) == len(ids)
    assert all(1 <= told[ONE] <= luns.SIMPLE_MAX for told in numbers)
    exported = [row["lun"] for row in rig.rows(models.exports)]
    assert len(set(exported)) == len(ids)
    assert 0 not in exported


def test_a_repeat_keeps_its_number(rig: Rig) -> None:
    volume_id = make(rig)
    rig.attachments.initialize("volume", volume_id, connector(ONE))
    before = granted(rig, volume_id)
    rig.attachments.initialize("volume", volume_id, connector(ONE))
    # The host got another adapter: the same volume has one number for both.
    rig.attachments.initialize("volume", volume_id, connector(ONE, TWO))
    assert granted(rig, volume_id) == before | {TWO: before[ONE]}


def test_numbers_are_given_back(rig: Rig) -> None:
    volume_id = make(rig)
    rig.attachments.initialize("volume", volume_id, connector(ONE))
    rig.attachments.initialize("volume", volume_id, connector(TWO) | {"host": "other"})
    rig.attachments.terminate("volume", volume_id, connector(ONE), False)
    assert {row["initiator"] for row in rig.rows(models.luns)} == {luns.SELF, TWO}
    rig.do(DeleteVolume, volume_id=volume_id, force=True)
    assert rig.rows(models.luns) == []


def test_when_simple_numbers_are_out_longer_ones_are_given(rig: Rig) -> None:
    with rig.database.writer() as conn:
        conn.execute(
            models.luns.insert(),
            [
                {"port": PORTS[0], "initiator": ONE, "lun": number, "resource_id": str(uuid.uuid4())}
                for number in range(1, luns.SIMPLE_MAX + 1)
                if number != 77
            ],
        )
    first, second = make(rig), make(rig)
    rig.attachments.initialize("volume", first, connector(ONE))
    assert granted(rig, first) == {ONE: 77}
    rig.attachments.initialize("volume", second, connector(ONE))
    assert granted(rig, second)[ONE] > luns.SIMPLE_MAX


def test_ports_that_were_let_in_or_named_are_known_after_a_restart(rig: Rig) -> None:
    admitted: list[str] = []
    rig.target.admit = admitted.append  # type: ignore[method-assign]
    rig.exports.admit(TWO)
    rig.exports.admit(TWO)
    rig.attachments.initialize("volume", make(rig), connector(ONE))
    assert admitted == [TWO, TWO]
    admitted.clear()
    rig.exports.admit_known()
    assert sorted(admitted) == [ONE, TWO]
