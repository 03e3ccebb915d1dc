# SPDX-License-Identifier: Apache-2.0
"""What a driver that answers connections itself remembers of an initiator comes back to it, and is kept secret."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.db import initiators, models
from volmgr.drivers.fake import FakeISCSIDriver
from volmgr.drivers.options import Configuration
from volmgr.exports import Exports
from volmgr.operations import volumes
from volmgr.operations.attachments import Attachments
from volmgr.testing.rig import Rig

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
OTHER = {"initiator": "iqn.1993-08.org.debian:01:b", "ip": "127.0.0.2", "host": "other"}
ACCOUNT = {"user": "compute", "secret": "a word that nobody knows"}


class Remembering(FakeISCSIDriver):
    """Makes an account for each initiator at its first connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.handed: list[dict[str, Any] | None] = []
        self.updates: dict[str, Any] | None = {"set_values": ACCOUNT}

    def initialize_connection(  # type: ignore[override]
        self, volume: Any, connector: Mapping[str, Any], initiator_data: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        self.handed.append(None if initiator_data is None else dict(initiator_data))
        answer = super().initialize_connection(volume, connector)
        return answer | ({"initiator_updates": self.updates} if self.updates is not None else {})


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def attached(rig: Rig, driver: Any) -> tuple[Attachments, str]:
    volume_id = str(uuid.uuid4())
    rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    exports = Exports(rig.database, driver, None, settings=rig.settings, cipher=rig.cipher, clock=rig.clock)
    return Attachments(rig.database, exports, rig.clock), volume_id


def test_it_comes_back_to_the_same_initiator_alone(rig: Rig) -> None:
    driver = Remembering()
    verbs, volume_id = attached(rig, driver)
    answer = verbs.initialize("volume", volume_id, CONNECTOR)
    assert set(answer) == {"driver_volume_type", "data"}
    driver.updates = None
    verbs.initialize("volume", volume_id, CONNECTOR)
    verbs.initialize("volume", volume_id, OTHER)
    again = Remembering()
    attached(rig, again)[0].initialize("volume", volume_id, CONNECTOR)
    assert driver.handed == [None, ACCOUNT, None]
    assert again.handed == [ACCOUNT], "another life of the worker has forgotten it"
    elsewhere = Remembering(configuration=Configuration({"volume_backend_name": "x" * 100}))
    attached(rig, elsewhere)[0].initialize("volume", volume_id, CONNECTOR)
    attached(rig, elsewhere)[0].initialize("volume", volume_id, CONNECTOR)
    assert elsewhere.handed == [None, ACCOUNT], "two backends must not share what they know"


def test_it_is_changed_and_forgotten(rig: Rig) -> None:
    driver = Remembering()
    verbs, volume_id = attached(rig, driver)
    verbs.initialize("volume", volume_id, CONNECTOR)
    driver.updates = {"set_values": {"user": "other"}, "remove_values": ["secret", "never there"]}
    verbs.initialize("volume", volume_id, CONNECTOR)
    driver.updates = {"remove_values": ["user"]}
    verbs.initialize("volume", volume_id, CONNECTOR)
    verbs.initialize("volume", volume_id, CONNECTOR)
    assert driver.handed == [None, ACCOUNT, {"user": "other"}, None]
    assert rig.rows(models.initiator_data) == []


def test_no_value_is_legible_in_the_database_or_valid_in_another_row(rig: Rig) -> None:
    verbs, volume_id = attached(rig, Remembering())
    verbs.initialize("volume", volume_id, CONNECTOR)
    found = rig.rows(models.initiator_data)
    assert {row["key"] for row in found} == set(ACCOUNT)
    assert not any(value in str(row["value"]) for row in found for value in ACCOUNT.values())
    with rig.database.writer() as conn:
        conn.execute(models.initiator_data.update().values(key="x").where(models.initiator_data.c.key == "user"))
    with pytest.raises(exception.Inconsistent), rig.database.reader() as conn:
        initiators.get(conn, rig.cipher, found[0]["initiator"], found[0]["namespace"])


@pytest.mark.parametrize("values", [{"k": 5}, {"k" * 129: "v"}, {5: "v"}])
def test_what_cannot_be_kept_is_refused(rig: Rig, values: dict[Any, Any]) -> None:
    driver = Remembering()
    driver.updates = {"set_values": values}
    verbs, volume_id = attached(rig, driver)
    with pytest.raises(exception.Inconsistent):
        verbs.initialize("volume", volume_id, CONNECTOR)
    assert rig.rows(models.initiator_data) == []
