# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel on LIO's configfs: numbers, entries that stay, and the way out of every half-made state."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.targets.configfs_model import Model
from volmgr import exception, names
from volmgr.targets import zones
from volmgr.targets.base import TargetConfig
from volmgr.targets.lio import fc_tree
from volmgr.targets.lio.configfs import apply
from volmgr.targets.lio.fc import FcTarget
from volmgr.types import ExportSpec, Grant, Portal

PREFIX = "iqn.2010-10.org.openstack:"
PORTS = ("2000525400aa0001", "2000525400aa0003")
ONE, TWO = "2000525400aa0002", "2000525400aa0004"
CONNECTOR = {"wwpns": [ONE], "wwnns": ["1000525400aa0002"]}


class Rooted(Model):
    """A model that is at a place of the file system, as the kernel's is."""

    def __init__(self, root: Path) -> None:
        super().__init__({})
        self.root = str(root)


class Zones(zones.ZoneManager):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, list[str]]]] = []

    def add(self, initiator_target_map: zones.Map) -> None:
        self.told.append(("add", dict(initiator_target_map)))

    def remove(self, initiator_target_map: zones.Map) -> None:
        self.told.append(("remove", dict(initiator_target_map)))


Make = Callable[..., FcTarget]


@pytest.fixture
def tree(tmp_path: Path) -> Rooted:
    (tmp_path / "configfs" / "core").mkdir(parents=True)
    return Rooted(tmp_path / "configfs")


@pytest.fixture
def make(tmp_path: Path, tree: Rooted) -> Make:
    """Make a target over the tree; again for another life."""

    def build(**options: Any) -> FcTarget:
        hosts = tmp_path / "fc_host"
        for number, port in enumerate(PORTS):
            (hosts / f"host{number}").mkdir(parents=True, exist_ok=True)
            (hosts / f"host{number}" / "port_name").write_text(f"0x{port}\n")
        options = {"fc_target_wwpns": PORTS, "fc_hosts": str(hosts)} | options
        made = FcTarget(TargetConfig(PREFIX, (Portal("127.0.0.1", 3260),), str(tmp_path), timeout=20, options=options))
        made.tree = tree  # type: ignore[assignment]
        for port in made.ports:
            made._make_port(port)
        made._walk()
        return made

    return build


def make_spec(folder: Path, lun: int, *grants: Grant, **more: Any) -> ExportSpec:
    resource = str(uuid.uuid4())
    path = folder / resource
    path.write_bytes(bytes(4096))
    name = names.target_name(PREFIX, "volume", resource)
    fields = {"path": str(path), "serial": names.new_serial(), "lun": lun, "grants": grants} | more
    return ExportSpec("volume", resource, name, **fields)


def grant(initiator: str, lun: int, mode: str = "rw") -> Grant:
    return Grant(f"{initiator}-{lun}", mode=mode, wwpns=(initiator,), lun=lun)


def met(tree: Model, initiator: str, port: str = PORTS[0]) -> dict[str, tuple[str, bool]]:
    """Return (serial, read-only) of every unit that an initiator meets at a port, by its folder."""
    served = tree.served(fc_tree.group_path("fc", port), fc_tree.colons(initiator))
    return {lun: (serial, read_only) for lun, (_path, serial, read_only) in served.items()}


def test_a_unit_at_every_port_under_the_initiator_s_number(make: Make, tree: Rooted, tmp_path: Path) -> None:
    target = make()
    spec = make_spec(tmp_path, 77, grant(ONE, 5), grant(TWO, 9, mode="ro"))
    assert target.sync(spec) is True
    for port in PORTS:
        assert met(tree, ONE, port) == {"lun_5": (spec.serial, False)}
        assert met(tree, TWO, port) == {"lun_9": (spec.serial, True)}
    assert target.sync(spec) is False


def test_detach_leaves_the_entry(make: Make, tree: Rooted, tmp_path: Path) -> None:
    target = make()
    spec = make_spec(tmp_path, 1, grant(ONE, 1), grant(TWO, 1))
    target.sync(spec)
    assert target.sync(dataclasses.replace(spec, grants=spec.grants[1:])) is True
    assert (met(tree, ONE), met(tree, TWO)) == ({}, {"lun_1": (spec.serial, False)})
    assert tree.exists(fc_tree.entry_path("fc", PORTS[0], ONE))
    assert target.sync(dataclasses.replace(spec, wanted=False)) is True
    assert [name for name in tree.made if "lun_" in name or "core/" in name] == []
    assert tree.exists(fc_tree.entry_path("fc", PORTS[1], TWO))


def test_known_initiators_have_an_entry_before_anything_is_exported(make: Make, tree: Rooted) -> None:
    target = make()
    target.admit("20:00:52:54:00:AA:00:02")
    target.admit(ONE)
    assert all(tree.exists(fc_tree.entry_path("fc", port, ONE)) for port in PORTS)
    with pytest.raises(exception.InvalidConnector):
        target.admit("naa.1")


def test_two_exports_are_two_numbers(make: Make, tree: Rooted, tmp_path: Path) -> None:
    target = make()
    one, two = make_spec(tmp_path, 1, grant(ONE, 1)), make_spec(tmp_path, 2, grant(ONE, 2))
    target.sync(one)
    target.sync(two)
    assert met(tree, ONE) == {"lun_1": (one.serial, False), "lun_2": (two.serial, False)}
    target.sync(dataclasses.replace(one, wanted=False))
    assert met(tree, ONE) == {"lun_2": (two.serial, False)}


def test_a_number_that_is_another_s_now_is_taken_from_the_old(make: Make, tree: Rooted, tmp_path: Path) -> None:
    """SQL has given it to another before the target was told of the first one's end: in any order of the syncs."""
    target = make()
    old, heir = make_spec(tmp_path, 1, grant(ONE, 1)), make_spec(tmp_path, 2, grant(ONE, 1))
    target.sync(old)
    target.sync(heir)
    assert met(tree, ONE) == {"lun_1": (heir.serial, False)}
    target.sync(dataclasses.replace(old, grants=()))
    assert met(tree, ONE) == {"lun_1": (heir.serial, False)}


def test_turned_read_only_and_back(make: Make, tree: Rooted, tmp_path: Path) -> None:
    target = make()
    spec = make_spec(tmp_path, 1, grant(ONE, 1))
    target.sync(spec)
    assert target.sync(dataclasses.replace(spec, read_only=True)) is True
    assert met(tree, ONE) == {"lun_1": (spec.serial, True)}
    assert target.sync(spec) is True
    assert met(tree, ONE) == {"lun_1": (spec.serial, False)}


def test_other_storage_after_a_pivot(make: Make, tree: Rooted, tmp_path: Path) -> None:
    target = make()
    spec = make_spec(tmp_path, 1, grant(ONE, 1))
    target.sync(spec)
    other = make_spec(tmp_path, 1)
    target.sync(dataclasses.replace(spec, path=other.path, serial=other.serial))
    assert met(tree, ONE) == {"lun_1": (other.serial, False)}


def test_out_of_every_half_made_state(make: Make, tree: Rooted, tmp_path: Path) -> None:
    """A kill after any step, of the making or of the removal: the next life completes both."""
    for removal in (False, True):
        cut = 0
        while True:
            spec = make_spec(tmp_path, 10 + cut, grant(ONE, 1), grant(TWO, 2, mode="ro"))
            first = make()
            if removal:
                first.sync(spec)
            steps = first._plan(spec.target_name, None if removal else first._wanted(spec))
            for step in steps[:cut]:
                apply(tree, step)
            second = make()
            second.sync(spec)
            for port in PORTS:
                assert met(tree, ONE, port) == {"lun_1": (spec.serial, False)}, (removal, cut)
                assert met(tree, TWO, port) == {"lun_2": (spec.serial, True)}, (removal, cut)
            assert second.sync(spec) is False
            assert second.sync(dataclasses.replace(spec, wanted=False)) is True
            assert [name for name in tree.made if "lun_" in name or "core/" in name] == [], (removal, cut)
            if cut >= len(steps):
                break
            cut += 1
        assert cut > 5


def test_another_life_finds_and_changes_nothing(make: Make, tree: Rooted, tmp_path: Path) -> None:
    spec = make_spec(tmp_path, 3, grant(ONE, 4))
    make().sync(spec)
    again = make()
    assert again.sync(spec) is False
    (seen,) = again.observe()
    assert (seen.target_name, seen.serials, seen.initiators) == (spec.target_name, (spec.serial,), (ONE,))
    # A removal is told the name alone; the number is known from what is there.
    gone = ExportSpec("volume", spec.resource_id, spec.target_name, wanted=False)
    assert again.sync(gone) is True
    assert met(tree, ONE) == {}


def test_wiped_behind_our_back_is_rebuilt(make: Make, tree: Rooted, tmp_path: Path) -> None:
    target = make()
    spec = make_spec(tmp_path, 3, grant(ONE, 4))
    target.sync(spec)
    for step in target._plan(spec.target_name, None):
        apply(tree, step)
    assert target.sync(spec) is True
    assert met(tree, ONE) == {"lun_4": (spec.serial, False)}


def test_ports_that_somebody_took_away_are_targets_again(make: Make, tree: Rooted, tmp_path: Path) -> None:
    """All of LIO was cleared: whatever is synced next brings the ports back, with everybody who was known there."""
    target = make(fc_initiator_wwpns=[ONE])
    target.admit(TWO)
    spec = make_spec(tmp_path, 3, grant(ONE, 4))
    target.sync(spec)
    for kept in (tree.made, tree.given, tree.attributes, tree.symlinks):
        kept.clear()
    tree.made.add("core")
    assert target.sync(spec) is True
    for port in PORTS:
        assert met(tree, ONE, port) == {"lun_4": (spec.serial, False)}
        assert tree.exists(fc_tree.entry_path("fc", port, TWO))


def test_the_cost_does_not_grow_with_the_other_exports(make: Make, tree: Rooted, tmp_path: Path) -> None:
    target = make()
    folders = tree.folders

    def counted(path: str) -> tuple[str, ...]:
        assert not path.endswith(("/lun", "/acls")), "all exports are listed"
        return folders(path)

    for number in range(1, 20):
        target.sync(make_spec(tmp_path, number, grant(ONE, number)))
    tree.folders = counted  # type: ignore[method-assign]
    spec = make_spec(tmp_path, 30, grant(ONE, 30))
    target.sync(spec)
    target.sync(dataclasses.replace(spec, grants=()))
    target.sync(dataclasses.replace(spec, wanted=False))


def test_connection_has_the_form_that_clients_read(make: Make, tmp_path: Path) -> None:
    target = make()
    spec = make_spec(tmp_path, 3, grant(ONE, 4))
    data = target.connection(spec, spec.grants[0])
    assert data["target_discovered"] is True
    assert (data["target_lun"], data["target_wwn"], data["discard"]) == (4, list(PORTS), True)
    assert data["initiator_target_map"] == {ONE: list(PORTS)}
    alone = make(fc_target_wwpns=PORTS[:1])
    assert alone.connection(spec, spec.grants[0])["target_wwn"] == PORTS[0]


def test_zones_are_opened_before_and_closed_after(make: Make, tmp_path: Path) -> None:
    target = make()
    target.zones = noted = Zones()
    one, two = make_spec(tmp_path, 1, grant(ONE, 1)), make_spec(tmp_path, 2, grant(ONE, 2))
    everywhere = {ONE: list(PORTS)}
    target.sync(one)
    target.sync(two)
    target.sync(dataclasses.replace(one, grants=()))
    assert noted.told == [("add", everywhere), ("add", everywhere)]
    target.sync(dataclasses.replace(two, wanted=False))
    assert noted.told[2:] == [("remove", everywhere)]


@pytest.mark.parametrize("missing", ["wwpns", "wwnns"])
@pytest.mark.parametrize("value", [None, [], "2000525400aa0002"])
def test_connector_without_names_is_refused(make: Make, missing: str, value: Any) -> None:
    target = make()
    target.validate_connector(CONNECTOR)
    with pytest.raises(exception.InvalidConnector) as caught:
        target.validate_connector(CONNECTOR | {missing: value})
    assert caught.value.details["missing"] == missing
    assert "fc_host" in caught.value.hint


@pytest.mark.parametrize("bad", ["", "0" * 16, "2000525400aa000", "iqn.a:b", "../../../../x"])
def test_what_is_no_wwpn_is_refused(make: Make, bad: str) -> None:
    with pytest.raises(exception.InvalidConnector):
        make().validate_connector(CONNECTOR | {"wwpns": [bad]})


def test_number_0_is_refused(make: Make, tree: Rooted, tmp_path: Path) -> None:
    target = make()
    for spec in (make_spec(tmp_path, 0, grant(ONE, 1)), make_spec(tmp_path, 1, grant(ONE, 0))):
        with pytest.raises(exception.Invalid):
            target.sync(spec)
    assert met(tree, ONE) == {}


def test_no_port_in_target_mode(make: Make) -> None:
    target = make()
    target.ports = ("2000525400aa00ff",)
    with pytest.raises(exception.BackendDown) as caught:
        target.check()
    assert "qlini_mode=disabled" in caught.value.hint
    assert "create_vn2vn" in caught.value.hint


def test_wrong_options_say_what_to_set(make: Make) -> None:
    with pytest.raises(exception.InvalidConfiguration, match="fc_target_wwpns"):
        make(fc_target_wwpns=[]).start()
    for option in ("fc_target_wwpns", "fc_initiator_wwpns"):
        with pytest.raises(exception.InvalidConfiguration, match=option) as caught:
            make(**{option: ["eth0"]})
        assert option in caught.value.hint
    with pytest.raises(exception.InvalidConfiguration, match="fabric"):
        make(fc_fabric="nosuch")
    with pytest.raises(exception.InvalidConfiguration) as caught:
        make(fc_zone_manager="volmgr.no.such.Manager")
    assert "fc_zone_manager" in caught.value.hint
