# SPDX-License-Identifier: Apache-2.0
"""Drivers that are targets by themselves: asked for exports, told of attachments, handed back what they said."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.db import models
from volmgr.drivers.options import Configuration
from volmgr.operations import volumes
from volmgr.testing.array import VENDOR, ArrayDriver
from volmgr.testing.rig import Rig

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}


def new_id() -> str:
    return str(uuid.uuid4())


class Array(ArrayDriver):
    """Served to nobody: it has no port. It remembers what it was asked."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked: list[str] = []
        self.refuses = ""

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if what == self.refuses:
            raise exception.Inconsistent("no")

    def create_export(self, context: Any, volume: Any, connector: Any) -> Any:
        self._ask("create_export")
        return super().create_export(context, volume, connector)

    def ensure_export(self, context: Any, volume: Any) -> Any:
        self._ask(f"ensure_export {volume.provider_auth.reveal().split()[1]}")
        return super().ensure_export(context, volume)

    def remove_export(self, context: Any, volume: Any) -> None:
        self._ask("remove_export")
        super().remove_export(context, volume)

    def attach_volume(self, context: Any, volume: Any, *who: Any) -> None:
        super().attach_volume(context, volume, *who)
        self._ask("attach_volume")

    def detach_volume(self, context: Any, volume: Any, attachment: Any = None) -> None:
        self._ask("detach_volume")
        super().detach_volume(context, volume, attachment)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    def make(host: str, _target: Any) -> Array:
        driver = Array(configuration=Configuration({"array_folder": str(tmp_path / "array")}), host=host)
        driver.do_setup(None)
        return driver

    made = Rig(tmp_path, make_driver=make)
    made.exports.target = None
    yield made
    made.close()


def volume(rig: Rig) -> str:
    volume_id = new_id()
    done = rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    assert done is not None and done.state == "done"
    return volume_id


def test_what_the_driver_says_of_an_export_is_kept_and_told(rig: Rig) -> None:
    volume_id = volume(rig)
    first = rig.attachments.initialize("volume", volume_id, CONNECTOR)
    data = first["data"]
    assert (data["target_portal"], data["auth_username"]) == ("127.0.0.1:3260", VENDOR)
    assert volume_id in data["target_iqn"]
    (row,) = rig.rows(models.volumes, id=volume_id)
    assert row["provider_location"].endswith(f"{data['target_iqn']} {data['target_lun']}")
    assert data["auth_password"] not in row["provider_auth"], "the secret stands in the database"
    # The same account again: it was handed back.
    assert rig.attachments.initialize("volume", volume_id, CONNECTOR) == first
    rig.exports.rebuild()
    assert rig.driver.asked[-1] == f"ensure_export {VENDOR}"
    rig.attachments.terminate("volume", volume_id, CONNECTOR, False)
    assert "remove_export" not in rig.driver.asked, "an export stays for the next who connects"
    assert rig.exports.remove("volume", volume_id)
    assert rig.driver.asked[-1] == "remove_export"
    rig.attachments.initialize("volume", volume_id, CONNECTOR)
    rig.attachments.terminate("volume", volume_id, CONNECTOR, False)
    done = rig.do(volumes.DeleteVolume, volume_id=volume_id)
    assert done is not None and done.state == "done"
    assert rig.driver.asked[-1] == "remove_export", "a deleted volume is exported still"


def test_a_driver_that_wants_to_know_is_told_who_attaches(rig: Rig) -> None:
    volume_id, attachment_id = volume(rig), new_id()
    rig.attachments.attach(volume_id, None, "compute", "/dev/vdb", "rw", attachment_id)
    assert rig.driver.mounted == {volume_id: "/dev/vdb"}
    rig.attachments.attach(volume_id, None, "compute", "/dev/vdb", "rw", attachment_id)
    assert rig.driver.asked == ["attach_volume"] * 2, "a repeat after a death tells it again"
    rig.attachments.detach(volume_id, attachment_id, False)
    assert rig.driver.mounted == {}
    rig.attachments.reserve(attachment_id, volume_id, new_id(), "rw")
    rig.attachments.connect(attachment_id, volume_id, CONNECTOR)
    rig.attachments.complete(attachment_id)
    assert volume_id in rig.driver.mounted
    rig.attachments.delete(volume_id, attachment_id)
    assert rig.driver.mounted == {}
    rig.attachments.delete(new_id(), new_id())  # a volume that is gone is attached to nobody


def test_an_attachment_that_the_driver_refuses_was_never_there(rig: Rig) -> None:
    volume_id, attachment_id = volume(rig), new_id()
    rig.driver.refuses = "attach_volume"
    with pytest.raises(exception.Inconsistent):
        rig.attachments.attach(volume_id, None, "compute", None, "rw", attachment_id)
    assert rig.rows(models.attachments) == []
    assert rig.rows(models.volumes, id=volume_id)[0]["status"] == "available"
    rig.attachments.reserve(attachment_id, volume_id, new_id(), "rw")
    rig.attachments.connect(attachment_id, volume_id, CONNECTOR)
    with pytest.raises(exception.Inconsistent):
        rig.attachments.complete(attachment_id)
    assert rig.rows(models.attachments)[0]["status"] == "attaching"


def test_a_driver_may_say_of_an_export_only_what_is_of_an_export(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    volume_id = volume(rig)
    monkeypatch.setattr(Array, "create_export", lambda *_: {"size": 5})
    with pytest.raises(exception.Inconsistent, match="size"):
        rig.attachments.initialize("volume", volume_id, CONNECTOR)


def test_whose_volume_it_is_comes_before_what_this_worker_s_transport_needs(tmp_path: Path, rig: Rig) -> None:
    volume_id, by_name = volume(rig), {"host": "compute", "ip": "127.0.0.1"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "keys.json").symlink_to(tmp_path / "keys.json")
    other = Rig(tmp_path / "other", database=rig.database, host="other@sim")
    with pytest.raises(exception.Moved):
        other.attachments.initialize("volume", volume_id, by_name)
    with pytest.raises(exception.InvalidConnector):
        rig.attachments.initialize("volume", volume_id, by_name)
    with pytest.raises(exception.VolumeNotFound):
        other.attachments.initialize("volume", new_id(), by_name)
