# SPDX-License-Identifier: Apache-2.0
"""What clients are told: drivers that read the row, drivers that have a target, drivers that touch nothing."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from volmgr import exception
from volmgr.drivers.exporting import parse_auth
from volmgr.drivers.fake import FakeISCSIDriver, FakeISERDriver
from volmgr.drivers.fibre_channel import FibreChannelDriver
from volmgr.drivers.iscsi import ISCSIDriver, Location, parse_location
from volmgr.drivers.iser import ISERDriver
from volmgr.drivers.options import Configuration
from volmgr.drivers.sim import MemoryStore, SimDriver
from volmgr.targets.base import Target, TargetConfig
from volmgr.types import Chap, ExportSpec, Grant, ObservedExport, Portal, Secret, Snapshot, Volume

IQN = "iqn.2010-10.org.openstack:volume-1"


def volume(**fields: Any) -> Volume:
    return Volume(id=str(uuid.uuid4()), size=1, **fields)


@pytest.mark.parametrize(
    ("text", "location"),
    [
        (f"10.0.0.1:3260,1 {IQN} 1", Location(("10.0.0.1:3260",), IQN, 1)),
        (f"10.0.0.1:3260;10.0.1.1:3260,7 {IQN} 4", Location(("10.0.0.1:3260", "10.0.1.1:3260"), IQN, 4)),
        (f"[fd00::1]:3260,1 {IQN}", Location(("[fd00::1]:3260",), IQN, 1)),
    ],
)
def test_locations_are_parsed(text: str, location: Location) -> None:
    assert parse_location(text) == location


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1:3260", f"10.0.0.1:3260 {IQN} 1", f"10.0.0.1:3260,1 {IQN} one", "a b c d"]
)
def test_other_locations_are_inconsistent(text: str) -> None:
    with pytest.raises(exception.Inconsistent):
        parse_location(text)


def test_a_single_portal_has_the_single_form() -> None:
    found = volume(provider_location=f"10.0.0.1:3260,1 {IQN} 3")
    assert ISCSIDriver().initialize_connection(found, {"initiator": "iqn.x"}) == {
        "driver_volume_type": "iscsi",
        "data": {
            "target_discovered": False,
            "target_portal": "10.0.0.1:3260",
            "target_iqn": IQN,
            "target_lun": 3,
            "volume_id": found.id,
            "discard": False,
        },
    }


def test_several_portals_have_both_forms_and_chap() -> None:
    found = volume(
        provider_location=f"10.0.0.1:3260;10.0.1.1:3260,1 {IQN} 1", provider_auth=Secret("CHAP someone secret-text")
    )
    data = ISCSIDriver().initialize_connection(found, {"initiator": "iqn.x", "multipath": True})["data"]
    assert data["target_portal"] == "10.0.0.1:3260"
    assert data["target_portals"] == ["10.0.0.1:3260", "10.0.1.1:3260"]
    assert data["target_iqns"] == [IQN, IQN]
    assert data["target_luns"] == [1, 1]
    assert (data["auth_method"], data["auth_username"], data["auth_password"]) == ("CHAP", "someone", "secret-text")


def test_without_a_location_the_target_is_discovered() -> None:
    found = volume(host="storage-1@iscsi#pool")
    asked = []

    def execute(*argv: str, **options: Any) -> tuple[str, str]:
        asked.append(argv)
        return f"10.0.0.9:3260,1 iqn.other\n10.0.0.1:3260,1 iqn.2010-10.org.openstack:{found.name}\n", ""

    data = ISCSIDriver(execute=execute).initialize_connection(found, {"initiator": "iqn.x"})["data"]
    assert asked == [("iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", "storage-1")]
    assert data["target_discovered"] is True
    assert data["target_iqn"] == f"iqn.2010-10.org.openstack:{found.name}"
    with pytest.raises(exception.Inconsistent, match=r"no provider_location"):
        ISCSIDriver().initialize_connection(found, {"initiator": "iqn.x"})


def test_connectors_are_checked() -> None:
    for connector in ({}, {"initiator": None}, {"initiator": ""}):
        with pytest.raises(exception.InvalidConnector) as caught:
            ISCSIDriver().validate_connector(connector)
        assert caught.value.details["missing"] == "initiator"
    ISCSIDriver().validate_connector({"initiator": "iqn.x"})
    with pytest.raises(exception.InvalidConnector, match="wwnns"):
        FibreChannelDriver().validate_connector({"wwpns": ["1"], "wwnns": []})
    FibreChannelDriver().validate_connector({"wwpns": ["1"], "wwnns": ["2"]})


def test_iser_says_iser() -> None:
    found = volume(provider_location=f"10.0.0.1:3260,1 {IQN} 1")
    info = ISERDriver().initialize_connection(found, {"initiator": "iqn.x"})
    assert info["driver_volume_type"] == "iser"
    assert set(info["data"]) == {"target_discovered", "target_portal", "target_iqn", "target_lun", "volume_id"}
    assert ISERDriver().get_volume_stats()["storage_protocol"] == "iSER"


def test_a_wrong_secret_is_not_repeated() -> None:
    with pytest.raises(exception.Inconsistent) as caught:
        parse_auth(Secret("CHAP only-two"))
    assert "only-two" not in str(caught.value)
    assert parse_auth(None) is None
    assert parse_auth("CHAP a b") == Chap("a", Secret("b"))


@pytest.mark.parametrize(("cls", "kind"), [(FakeISCSIDriver, "iscsi"), (FakeISERDriver, "iser")])
def test_the_fakes_log_and_touch_nothing(cls: type[FakeISCSIDriver], kind: str, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    driver = cls(execute=None, configuration=Configuration({"volume_backend_name": "nothing"}))
    driver.check_for_setup_error()
    assert cls.fake_execute("lvcreate", "-n", "x", run_as_root=True) == (None, None)
    assert driver._execute("ls") == (None, None)
    assert "lvcreate -n x" in caplog.text
    found = volume()
    driver.create_volume(found)
    driver.delete_volume(found)
    assert found.name in caplog.text
    assert driver.create_export(None, found, None) == {}
    assert driver.initialize_connection(found, {})["driver_volume_type"] == kind
    stats = driver.get_volume_stats()
    assert stats["volume_backend_name"] == "nothing"
    assert stats["pools"][0]["total_capacity_gb"] == stats["pools"][0]["free_capacity_gb"] > 0


class TableTarget(Target):
    """A target that keeps its exports in a table: the whole contract, without a wire."""

    protocol = "iscsi"

    def __init__(self) -> None:
        super().__init__(TargetConfig("iqn.2010-10.org.openstack:", (Portal("10.0.0.1", 3260),), "/nonexistent"))
        self.exports: dict[str, ExportSpec] = {}

    def start(self) -> None: ...

    def stop(self, *, and_exports: bool = False) -> None: ...

    def check(self) -> None: ...

    def validate_connector(self, connector: Mapping[str, Any]) -> None:
        if not connector.get("initiator"):
            raise exception.InvalidConnector(missing="initiator")

    def sync(self, spec: ExportSpec) -> bool:
        before = self.exports.pop(spec.target_name, None)
        if spec.wanted:
            self.exports[spec.target_name] = spec
        return before != self.exports.get(spec.target_name)

    def connection(self, spec: ExportSpec, grant: Grant) -> dict[str, Any]:
        return {"target_iqn": spec.target_name, "target_lun": spec.lun, "access_mode": grant.mode}

    def observe(self) -> Sequence[ObservedExport]:
        return [ObservedExport(name) for name in self.exports]


def test_a_driver_alone_exports_through_its_target() -> None:
    target = TableTarget()
    driver = SimDriver(target=target, store=MemoryStore("alone"))
    found = volume(provider_auth=Secret("CHAP someone secret-text"))
    name = f"iqn.2010-10.org.openstack:volume-{found.id}"
    driver.create_volume(found)
    assert driver.create_export(None, found, None) == {"provider_location": f"10.0.0.1:3260,1 {name} 1"}
    assert target.exports[name].path == f"sim:alone/{found.name}"
    assert target.exports[name].auth == Chap("someone", Secret("secret-text"))
    assert target.exports[name].grants == ()
    info = driver.initialize_connection(found, {"initiator": "iqn.a", "host": "a"})
    assert info == {
        "driver_volume_type": "iscsi",
        "data": {"target_iqn": name, "target_lun": 1, "access_mode": "rw"},
    }
    driver.initialize_connection(found, {"initiator": "iqn.b"})
    driver.initialize_connection(found, {"initiator": "iqn.a"})
    assert sorted(grant.initiator for grant in target.exports[name].grants) == ["iqn.a", "iqn.b"]
    driver.terminate_connection(found, {"initiator": "iqn.a"})
    assert [grant.initiator for grant in target.exports[name].grants] == ["iqn.b"]
    driver.terminate_connection(found, None, force=True)
    assert target.exports[name].grants == ()
    driver.remove_export(None, found)
    driver.remove_export(None, found)
    assert target.exports == {}
    assert driver.get_volume_stats()["storage_protocol"] == "iscsi"
    with pytest.raises(exception.InvalidConnector):
        driver.initialize_connection(found, {"initiator": None})
    assert target.exports == {}


def test_snapshots_are_exported_read_only() -> None:
    target = TableTarget()
    driver = SimDriver(target=target, store=MemoryStore())
    found = volume()
    snapshot = Snapshot(id=str(uuid.uuid4()), volume_id=found.id, volume_size=1, volume=found)
    info = driver.initialize_connection_snapshot(snapshot, {"initiator": "iqn.a"})
    assert info["data"]["access_mode"] == "ro"
    assert [spec.read_only for spec in target.exports.values()] == [True]
    driver.terminate_connection_snapshot(snapshot, {"initiator": "iqn.a"})
    driver.remove_export_snapshot(None, snapshot)
    assert target.exports == {}


def test_without_a_target_nothing_can_be_exported() -> None:
    with pytest.raises(exception.InvalidConfiguration, match="no target"):
        SimDriver(store=MemoryStore()).create_export(None, volume(), None)
