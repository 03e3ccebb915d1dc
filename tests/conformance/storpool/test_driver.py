# SPDX-License-Identifier: Apache-2.0
"""The StorPool driver: what it has beside what the conformance suite proves of every driver."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from volmgr import exception, names
from volmgr.drivers.interfaces import supports
from volmgr.drivers.storpool import StorPoolDriver
from volmgr.scheduler import Request, pools_of, rank
from volmgr.testing.storpool.world import DISKS
from volmgr.types import GiB, Volume, VolumeType

from .conftest import Bench

DATA = b"bytes of a tenant"
CONNECTOR = {"host": "compute", "ip": "127.0.0.1"}
#: The surface that callers of this driver know: method, arguments.
SURFACE = {
    "get_pool": "volume",
    "create_volume": "volume",
    "validate_connector": "connector",
    "initialize_connection": "volume connector",
    "terminate_connection": "volume connector",
    "create_snapshot": "snapshot",
    "create_volume_from_snapshot": "volume snapshot",
    "create_cloned_volume": "volume src_vref",
    "create_export": "context volume connector",
    "remove_export": "context volume",
    "delete_volume": "volume",
    "delete_snapshot": "snapshot",
    "check_for_setup_error": "",
    "get_volume_stats": "refresh",
    "backup_volume": "context backup backup_service",
    "copy_volume_to_image": "context volume image_service image_meta",
    "copy_image_to_volume": "context volume image_service image_id",
    "extend_volume": "volume new_size",
    "ensure_export": "context volume",
    "retype": "context volume new_type diff host",
    "migrate_volume": "context volume host",
    "revert_to_snapshot": "context volume snapshot",
    "update_migrated_volume": "context volume new_volume original_volume_status",
}


@pytest.mark.parametrize("verb", sorted(SURFACE))
def test_the_surface_is_whole(verb: str) -> None:
    parameters = inspect.signature(getattr(StorPoolDriver, verb)).parameters.values()
    named = [item.name for item in parameters if item.kind is item.POSITIONAL_OR_KEYWORD and item.name != "self"]
    assert " ".join(named) == SURFACE[verb]
    assert StorPoolDriver.supports(verb)


# --- creating -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_work")
class TestTemplates:
    def test_the_type_s_template_comes_first_then_the_option_then_copies(self, bench: Bench) -> None:
        plain, typed = bench.created(), bench.created(template="fast")
        assert [(bench.shown(v)["templateName"], bench.shown(v)["replication"]) for v in (plain, typed)] == [
            ("", 3),
            ("fast", 2),
        ]
        bench.driver = bench.make(storpool_template="hybrid", storpool_replication=1)
        plain, typed = bench.created(), bench.created(template="fast")
        assert [bench.shown(v)["templateName"] for v in (plain, typed)] == ["hybrid", "fast"]
        bench.driver = bench.make(storpool_replication=1)
        assert bench.shown(bench.created())["replication"] == 1
        assert [bench.driver.get_pool(v) for v in (plain, typed)] == ["default", "template_fast"]

    def test_a_template_that_is_not_there_is_named(self, bench: Bench) -> None:
        volume = bench.volume(template="none")
        with pytest.raises(exception.Invalid, match="none") as caught:
            bench.driver.create_volume(volume)
        assert caught.value.details["field"] == "volume_type"
        assert bench.server.names() == set()
        with pytest.raises(exception.InvalidConfiguration, match="hybrid, fast, plain"):
            bench.make(storpool_template="none").check_for_setup_error()

    def test_creating_is_one_call(self, bench: Bench) -> None:
        bench.server.forget_calls()
        volume = bench.created()
        bench.snapped(volume)
        bench.driver.extend_volume(volume, 2)
        assert bench.calls() == ["VolumeCreate", "VolumeSnapshot", "VolumeUpdate"]

    def test_a_clone_in_its_template_is_one_call_and_a_look(self, bench: Bench) -> None:
        source = bench.created(template="fast", data=DATA)
        bench.server.forget_calls()
        made = bench.volume(2, "fast")
        bench.driver.create_cloned_volume(made, source)
        assert bench.calls() == ["Volume", "VolumeCreate"]
        assert bench.read(made, len(DATA)) == DATA
        assert bench.shown(made)["templateName"] == "fast"

    def test_a_clone_into_another_template_leaves_nothing_between(self, bench: Bench) -> None:
        source = bench.created(template="fast", data=DATA)
        made = bench.volume(1, "hybrid")
        for _ in range(2):
            bench.driver.create_cloned_volume(made, source)
            assert bench.shown(made)["templateName"] == "hybrid"
            assert bench.read(made, len(DATA)) == DATA
            bench.write(source, b"another moment")
        assert {item.object_id for item in bench.driver.observe()} == {source.id, made.id}
        missing = bench.volume(1, "none")
        with pytest.raises(exception.Invalid, match="none"):
            bench.driver.create_cloned_volume(missing, source)
        assert {item.object_id for item in bench.driver.observe()} == {source.id, made.id}

    def test_what_a_clone_left_between_is_seen_and_goes_with_the_volume(self, bench: Bench) -> None:
        source, made = bench.created(template="fast", data=DATA), bench.volume(1, "hybrid")
        between = names.storpool_name("os", "clone", made.id)
        bench.driver._snap(bench.name(source), between)
        bench.write(source, b"another moment")
        (building,) = [item for item in bench.driver.observe() if item.state == "building"]
        assert (building.name, building.object_id) == (names.building_name(made.id), made.id)
        with pytest.raises(exception.NotFound):
            bench.driver.recognise("delete_volume", made)
        bench.driver.create_cloned_volume(made, source)
        # It was of an earlier moment: the clone is of this one.
        assert bench.read(made, 7) == b"another"
        bench.driver._snap(bench.name(source), between)
        bench.driver.delete_volume(made)
        assert {item.object_id for item in bench.driver.observe()} == {source.id}

    def test_a_volume_from_a_snapshot_gets_its_own_type_s_template(self, bench: Bench) -> None:
        snapshot = bench.snapped(bench.created(template="fast", data=DATA))
        made = bench.volume(2, "hybrid")
        for _ in range(2):
            bench.driver.create_volume_from_snapshot(made, snapshot)
        assert (bench.shown(made)["templateName"], bench.shown(made)["size"]) == ("hybrid", 2 * GiB)
        assert bench.read(made, len(DATA)) == DATA

    def test_one_whose_template_is_not_yet_right_is_not_whole(self, bench: Bench) -> None:
        snapshot = bench.snapped(bench.created(template="fast"))
        made = bench.volume(1, "hybrid")
        bench.server.faults({"call": "VolumeUpdate", "kind": "error", "name": "other"})
        with pytest.raises(exception.BackendDown):
            bench.driver.create_volume_from_snapshot(made, snapshot)
        with pytest.raises(exception.NotFound):
            bench.driver.recognise("create_volume_from_snapshot", made)
        bench.driver.create_volume_from_snapshot(made, snapshot)
        bench.driver.recognise("create_volume_from_snapshot", made)


# --- who uses it ----------------------------------------------------------------------------------------------------


def _attach(bench: Bench, name: str, client: int = 2, kind: str = "volume", rights: str = "rw") -> None:
    wish = {"reassign": [{kind: name, rights: [client]}]}
    bench.driver.api.change("attach", lambda client: client.volumes_reassign_wait(wish))


class TestConnections:
    def test_the_connection_info_is_what_os_brick_s_connector_takes(self, bench: Bench) -> None:
        volume = bench.created()
        info = bench.driver.initialize_connection(volume, CONNECTOR)
        assert info == {
            "driver_volume_type": "storpool",
            "data": {"client_id": 2, "volume": volume.id, "access_mode": "rw"},
        }
        assert bench.driver.create_export(None, volume, CONNECTOR) is None
        assert bench.driver.ensure_export(None, volume) is None
        assert bench.driver.remove_export(None, volume) is None

    def test_a_volume_with_another_object_is_connected_by_the_object(self, bench: Bench) -> None:
        volume = bench.volume(object_id="11111111-2222-3333-4444-555555555555", readonly=True)
        bench.driver.create_volume(volume)
        data = bench.driver.initialize_connection(volume, CONNECTOR)["data"]
        assert names.storpool_name("os", "volume", data["volume"]) == bench.name(volume)
        assert data["access_mode"] == "ro"

    def test_an_unknown_host_cannot_connect_and_can_always_go(self, bench: Bench) -> None:
        volume, unknown = bench.created(), {"host": "nobody"}
        for verb in (bench.driver.validate_connector, lambda it: bench.driver.initialize_connection(volume, it)):
            with pytest.raises(exception.Invalid, match="nobody"):
                verb(unknown)
            with pytest.raises(exception.InvalidConnector):
                verb({})
        bench.driver.terminate_connection(volume, unknown)
        assert bench.driver.retype(None, volume, {}, {}, {}) is True

    def test_a_host_that_is_added_later_is_found(self, bench: Bench) -> None:
        volume = bench.created()
        bench.server.write_conf(bench.conf, hosts={"late": 3})
        assert bench.driver.initialize_connection(volume, {"host": "late"})["data"]["client_id"] == 3

    def test_the_own_host_is_known_by_the_machine_s_name(self, bench: Bench) -> None:
        volume = bench.created()
        bench.server.write_conf(bench.conf, hosts={bench.driver.config.node: 3})
        for host in ("node", "node@storpool", bench.driver.config.node):
            assert bench.driver.initialize_connection(volume, {"host": host})["data"]["client_id"] == 3

    def test_ending_all_connections_detaches_everywhere(self, bench: Bench) -> None:
        volume = bench.created()
        name = bench.name(volume)
        _attach(bench, name)
        # What is of no client detaches nobody.
        for connector in ({"host": "nobody"}, {}, None):
            bench.driver.terminate_connection(volume, connector)
            assert bench.server.attached()[name] == {"2": "rw"}
        bench.server.open(name, 2)
        with pytest.raises(exception.VolumeIsBusy, match="open"):
            bench.driver.terminate_connection(volume, None, force=True)
        bench.server.open(name, 2, False)
        bench.driver.terminate_connection(volume, None, force=True)
        assert bench.server.attached()[name] == {}
        bench.driver.terminate_connection(bench.volume(), None, force=True)

    def test_a_host_that_did_not_detach_is_detached_and_no_other(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        volume = bench.created()
        name = bench.name(volume)
        for client in (1, 2):
            _attach(bench, name, client)
        bench.server.open(name, 2)
        bench.driver.terminate_connection(volume, CONNECTOR)
        assert bench.server.attached()[name] == {"1": "rw", "2": "rw"}
        assert "stays attached" in caplog.text
        bench.server.open(name, 2, False)
        for _ in range(2):
            bench.driver.terminate_connection(volume, CONNECTOR)
            assert bench.server.attached()[name] == {"1": "rw"}
        bench.driver.terminate_connection(bench.volume(), CONNECTOR)
        # One that the cluster does not know any more.
        bench.server.write_conf(bench.conf, hosts={"compute": 9})
        bench.driver.terminate_connection(volume, CONNECTOR)


class TestInUse:
    def test_what_a_host_has_left_attached_is_detached_and_deleted(self, bench: Bench) -> None:
        volume = bench.created()
        snapshot = bench.snapped(volume)
        _attach(bench, bench.name(volume))
        _attach(bench, bench.name(snapshot), kind="snapshot", rights="ro")
        bench.driver.delete_snapshot(snapshot)
        bench.driver.delete_volume(volume)
        assert bench.driver.observe() == []

    def test_what_a_host_has_open_is_not_deleted(self, bench: Bench) -> None:
        volume = bench.created(data=DATA)
        name = bench.name(volume)
        snapshot = bench.snapped(volume)
        _attach(bench, name)
        bench.server.open(name, 2)
        with pytest.raises(exception.VolumeIsBusy, match="client 2"):
            bench.driver.delete_volume(volume)
        with pytest.raises(exception.VolumeIsBusy):
            bench.driver.revert_to_snapshot(None, volume, snapshot)
        assert bench.read(volume, len(DATA)) == DATA
        assert bench.server.attached()[name] == {"2": "rw"}

    def test_an_open_snapshot_is_not_deleted(self, bench: Bench) -> None:
        snapshot = bench.snapped(bench.created())
        name = bench.name(snapshot)
        _attach(bench, name, kind="snapshot", rights="ro")
        bench.server.open(name, 2, kind="snapshot")
        with pytest.raises(exception.SnapshotIsBusy):
            bench.driver.delete_snapshot(snapshot)
        assert name in bench.server.names()


# --- moving ---------------------------------------------------------------------------------------------------------


def _diff(old: str | None, new: str | None, **more: Any) -> dict[str, Any]:
    return {"encryption": {}, "qos_specs": {}, "extra_specs": {"storpool_template": (old, new), **more}}


class TestRetype:
    def test_the_template_changes_in_place(self, bench: Bench, made_type: Callable[[str], VolumeType]) -> None:
        volume = bench.created(template="fast", data=DATA)
        here = {"host": "node@storpool#template_hybrid"}
        for _ in range(2):
            assert bench.driver.retype(None, volume, made_type("hybrid"), _diff("fast", "hybrid"), here) is True
            assert bench.shown(volume)["templateName"] == "hybrid"
        assert bench.read(volume, len(DATA)) == DATA

    def test_without_a_template_the_option_counts_then_the_number_of_copies(self, bench: Bench) -> None:
        volume = bench.created(template="fast")
        driver = bench.make(storpool_replication=1)
        assert driver.retype(None, volume, {}, _diff("fast", None), {"host": "node@storpool"}) is True
        assert bench.shown(volume)["replication"] == 1
        driver = bench.make(storpool_template="hybrid")
        assert driver.retype(None, volume, {}, _diff("fast", None), {}) is True
        assert bench.shown(volume)["templateName"] == "hybrid"

    @pytest.mark.parametrize(
        ("diff", "host"),
        [
            (_diff("fast", "hybrid") | {"encryption": {"cipher": (None, "aes")}}, "node@storpool"),
            (_diff("fast", "hybrid", volume_backend_name=("a", "b")), "node@storpool"),
            (_diff("fast", "hybrid"), "node@other"),
        ],
    )
    def test_what_needs_a_move_is_left_to_the_caller(self, bench: Bench, diff: dict[str, Any], host: str) -> None:
        volume = bench.created(template="fast")
        assert bench.driver.retype(None, volume, {}, diff, {"host": host}) is False
        assert bench.shown(volume)["templateName"] == "fast"

    def test_equal_values_are_no_difference(self, bench: Bench) -> None:
        volume = bench.created(template="fast")
        bench.server.forget_calls()
        diff = _diff("fast", "fast", volume_backend_name=("a", "a")) | {"encryption": {"cipher": (None, None)}}
        assert bench.driver.retype(None, volume, {}, diff, {"host": "node@storpool"}) is True
        assert bench.calls() == []

    def test_what_is_not_there_is_named(self, bench: Bench) -> None:
        with pytest.raises(exception.VolumeNotFound):
            bench.driver.retype(None, bench.volume(), {}, _diff(None, "fast"), {})
        with pytest.raises(exception.Invalid, match="no template none"):
            bench.driver.retype(None, bench.created(), {}, _diff(None, "none"), {})


class TestMigrate:
    def test_a_move_within_the_cluster_changes_the_template_only(self, bench: Bench) -> None:
        other = bench.make("other@storpool")
        volume = bench.created(template="fast", data=DATA)
        capabilities = other.get_volume_stats(refresh=True)
        host = {"host": "other@storpool#template_hybrid", "capabilities": capabilities}
        assert bench.driver.migrate_volume(None, volume, host) == (True, None)
        assert bench.shown(volume)["templateName"] == "hybrid"
        host["host"] = "other@storpool#default"
        assert bench.driver.migrate_volume(None, volume, host) == (True, None)
        assert bench.shown(volume)["templateName"] == "hybrid"
        assert bench.read(volume, len(DATA)) == DATA

    def test_another_prefix_is_another_place(self, bench: Bench) -> None:
        volume = bench.created()
        bench.server.write_conf(bench.conf, prefix="other")
        capabilities = bench.make("other@storpool").get_volume_stats(refresh=True)
        host = {"host": "other@storpool#default", "capabilities": capabilities}
        assert bench.driver.migrate_volume(None, volume, host) == (False, None)


class TestNamesAfterAMigration:
    def _both(self, bench: Bench) -> tuple[Volume, Volume]:
        original, copy = bench.created(data=b"original"), bench.created(data=b"the copy")
        return original, copy

    def _finish(self, bench: Bench, original: Volume, copy: Volume) -> Any:
        return bench.driver.update_migrated_volume(None, original, copy, "available")

    def test_the_two_exchange_their_names(self, bench: Bench) -> None:
        original, copy = self._both(bench)
        for _ in range(3):
            # Only the first time: a repeat after a crash must not exchange them back.
            assert self._finish(bench, original, copy) == {"_name_id": None}
            assert (bench.read(original, 8), bench.read(copy, 8)) == (b"the copy", b"original")
        assert bench.server.names() == {bench.name(original), bench.name(copy)}

    def test_an_original_elsewhere_leaves_its_name_to_the_copy(self, bench: Bench) -> None:
        original, copy = bench.volume(), bench.created(data=b"the copy")
        for _ in range(2):
            assert self._finish(bench, original, copy) == {"_name_id": None}
            assert bench.server.names() == {bench.name(original)}
        assert bench.read(original, 8) == b"the copy"

    def test_without_a_copy_nothing_happens(self, bench: Bench) -> None:
        original = bench.created(data=b"original")
        with pytest.raises(exception.VolumeNotFound):
            self._finish(bench, original, bench.volume())
        assert bench.read(original, 8) == b"original"

    def test_it_can_be_migrated_again(self, bench: Bench) -> None:
        original, copy = self._both(bench)
        self._finish(bench, original, copy)
        bench.driver.delete_volume(copy)
        again = bench.created(data=b"again   ")
        assert self._finish(bench, original, again) == {"_name_id": None}
        assert (bench.read(original, 8), bench.read(again, 8)) == (b"again   ", b"the copy")

    @pytest.mark.parametrize("refused", [0, 1])
    def test_a_renaming_that_is_refused_leaves_both_as_they_were(self, bench: Bench, refused: int) -> None:
        original, copy = self._both(bench)
        fault = {"call": "VolumeUpdate", "kind": "error", "name": "busy", "skip": refused}
        bench.server.faults(fault)
        assert self._finish(bench, original, copy) == {"_name_id": copy.id}
        assert (bench.read(original, 8), bench.read(copy, 8)) == (b"original", b"the copy")
        assert self._finish(bench, original, copy) == {"_name_id": None}

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize(("broken", "looks"), [(0, 3), (1, 4), (2, 6)])
    def test_broken_off_anywhere_it_goes_on(self, bench: Bench, broken: int, looks: int, when: str) -> None:
        original, copy = self._both(bench)
        bench.server.faults(
            {"call": "VolumeUpdate", "kind": "reset", "skip": broken, "when": when},
            {"call": "Volume", "kind": "reset", "skip": looks, "times": 100},
        )
        with pytest.raises(exception.BackendDown):
            self._finish(bench, original, copy)
        bench.server.faults()
        assert self._finish(bench, original, copy) == {"_name_id": None}
        assert (bench.read(original, 8), bench.read(copy, 8)) == (b"the copy", b"original")
        assert bench.server.names() == {bench.name(original), bench.name(copy)}


# --- statistics -----------------------------------------------------------------------------------------------------


class TestStatistics:
    def test_pools_are_templates_and_capacities_follow_the_copies(self, bench: Bench) -> None:
        bench.created(3)
        bench.created(2, "fast")
        stats = bench.driver.get_volume_stats(refresh=True)
        assert {key: stats[key] for key in ("clone_across_pools", "sparse_volume_copy", "sparse_copy_volume")} == {
            "clone_across_pools": True,
            "sparse_volume_copy": True,
            "sparse_copy_volume": True,
        }
        assert stats["storage_protocol"] == "storpool"
        pools = {pool["pool_name"]: pool for pool in stats["pools"]}
        assert set(pools) == {"default", "template_hybrid", "template_fast", "template_plain"}
        working = [disk for disk in DISKS if disk["generationLeft"] == -1]
        assert len(working) == 3
        data = 0.5 * 4096 / 4224
        total = sum(disk["agCount"] for disk in working) * data
        free = sum(disk["agFree"] for disk in working) * data
        for name, copies in {"default": 3, "template_hybrid": 3, "template_fast": 2, "template_plain": 3}.items():
            assert pools[name]["total_capacity_gb"] == pytest.approx(total / copies)
            assert pools[name]["free_capacity_gb"] == pytest.approx(free / copies)
            assert pools[name]["multiattach"] is True
        assert pools["default"]["provisioned_capacity_gb"] == 3
        assert pools["template_fast"]["provisioned_capacity_gb"] == 2
        assert pools["template_fast"]["storpool_template"] == "fast"
        kept = {name: pool.get("reserved_for") for name, pool in pools.items()}
        template = {name: {"storpool_template": name} for name in ("hybrid", "fast", "plain")}
        assert kept == {"default": None, **{f"template_{name}": template[name] for name in template}}
        pools = bench.make(storpool_template="hybrid").get_volume_stats(refresh=True)["pools"]
        kept = {pool["pool_name"]: pool.get("reserved_for") for pool in pools}
        nobody = {"storpool_template": ""}
        told = {"template_fast": template["fast"], "template_plain": template["plain"]}
        assert kept == {"default": nobody, "template_hybrid": None, **told}
        bench.server.forget_calls()
        assert bench.driver.get_volume_stats() is stats
        assert bench.calls() == []

    @pytest.mark.parametrize("option", ["", "hybrid"])
    def test_a_volume_is_placed_in_the_pool_of_its_template_and_in_no_other(self, bench: Bench, option: str) -> None:
        """A type of another backend, and none at all, name no template; pools of fewer copies have more room."""
        driver = bench.make(storpool_template=option)
        pools = pools_of({"host": "node@b", "capabilities": driver.get_volume_stats(refresh=True)})
        for template in (None, "", "hybrid", "fast", "plain"):
            volume = bench.volume(1, template)
            specs = {"storpool_template": template} if template else {}
            places = [judged.pool.host for judged in rank(Request(1, specs), pools)]
            assert places == [f"node@b#{driver.get_pool(volume)}"], template

    def test_observing_costs_two_calls_whatever_there_is(self, bench: Bench) -> None:
        volume = bench.created()
        for _ in range(5):
            bench.snapped(volume)
        gone = bench.snapped(volume)
        bench.driver.create_volume_from_snapshot(bench.volume(), gone)
        bench.driver.delete_snapshot(gone)
        bench.server.forget_calls()
        assert len(bench.driver.observe()) == 7
        assert bench.calls() == ["VolumesList", "SnapshotsList"]

    def test_others_volumes_are_not_ours(self, bench: Bench) -> None:
        bench.created()
        bench.server.write_conf(bench.conf, prefix="other")
        assert bench.make().observe() == []

    def test_what_bears_our_names_and_not_our_mark_is_told_apart(self, bench: Bench) -> None:
        ours, foreign = bench.created(), bench.volume()
        bench.snapped(ours)
        bench.server.request_change("VolumeCreate", "", {"name": bench.name(foreign), "size": GiB, "replication": 3})
        marked = {item.object_id: item.marked for item in bench.driver.observe() if item.kind == "volume"}
        assert marked == {ours.id: True, foreign.id: False}
        assert all(item.marked for item in bench.driver.observe() if item.kind == "snapshot")

    def test_what_belongs_to_nothing_is_freed_by_its_name(self, bench: Bench) -> None:
        volume, source = bench.created(), bench.created(template="fast")
        snapshot, made = bench.snapped(volume), bench.volume(1, "hybrid")
        bench.driver._snap(bench.name(source), names.storpool_name("os", "clone", made.id))
        _attach(bench, bench.name(volume))
        told: list[float] = []
        for item in bench.driver.observe():
            if item.object_id != source.id:
                bench.driver.discard(item.name, told.append)
                bench.driver.discard(item.name, told.append)
        assert {item.object_id for item in bench.driver.observe()} == {source.id}
        assert bench.name(snapshot) not in bench.server.names()
        assert set(told) == {1.0}
        with pytest.raises(exception.Invalid):
            bench.driver.discard("somebody's", told.append)

    @pytest.mark.parametrize("kind", ["clone", "image", "backup"])
    def test_what_a_copy_left_is_seen_and_freed(self, bench: Bench, kind: str) -> None:
        source, owner = bench.created(), bench.volume()
        between = names.storpool_name("os", kind, owner.id)
        bench.driver._snap(bench.name(source), between)
        _attach(bench, between, client=1, kind="snapshot", rights="ro")
        (left,) = [item for item in bench.driver.observe() if item.object_id == owner.id]
        assert (left.state, left.name, left.marked) == ("building", names.building_name(owner.id), True)
        bench.driver.discard(left.name, lambda _fraction: None)
        assert {item.object_id for item in bench.driver.observe()} == {source.id}
        assert between not in bench.server.names()

    def test_a_wrong_token_is_told_as_such(self, bench: Bench) -> None:
        bench.conf.write_text(bench.conf.read_text().replace("SP_AUTH_TOKEN=contract", "SP_AUTH_TOKEN=wrong"))
        with pytest.raises(exception.BackendDown) as caught:
            bench.make().check_for_setup_error()
        assert "SP_AUTH_TOKEN" in caught.value.hint
        assert "wrong" not in str(caught.value)
        bench.server.forget_calls()

    def test_what_it_cannot_do_is_not_claimed(self) -> None:
        for verb in ("local_path", "trash_volume", "clone_image", "initialize_connection_snapshot"):
            assert not StorPoolDriver.supports(verb), verb
        assert supports(StorPoolDriver(), "retype")
