# SPDX-License-Identifier: Apache-2.0
"""What every driver has: options, capabilities, the clone through a snapshot, and how it is loaded."""

import os
import pathlib
import subprocess
import sys
import uuid

import pytest
from oslo_config import cfg

import volmgr
from volmgr import exception
from volmgr.drivers import loader, progress
from volmgr.drivers.base import BaseVD
from volmgr.drivers.options import Configuration
from volmgr.drivers.sim import MemoryStore, SimDriver
from volmgr.types import Volume

ROOT = pathlib.Path(volmgr.__file__).parents[1]


class Roundabout(SimDriver):
    """A driver without a clone of its own."""

    create_cloned_volume = BaseVD.create_cloned_volume


def test_options_have_types_and_defaults_without_files() -> None:
    options = Configuration({"volume_backend_name": "a"}, [cfg.IntOpt("answer", default=42)], group="g")
    assert (options.volume_backend_name, options.answer, options.reserved_percentage) == ("a", 42, 0)
    assert options.max_over_subscription_ratio == 20.0
    assert options.safe_get("nowhere") is None
    with pytest.raises(AttributeError, match="nowhere"):
        options.nowhere  # noqa: B018


def test_options_of_a_group_come_before_those_of_all(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "volmgr.conf"
    file.write_text("[DEFAULT]\nsim_latency = 7\nreserved_percentage = 3\n[fast]\nsim_latency = 0.5\n")
    conf = cfg.ConfigOpts()
    conf(["--config-file", str(file)], project="volmgr", default_config_files=[])
    conf.register_opt(cfg.IntOpt("reserved_percentage", default=0))
    conf.register_opt(cfg.FloatOpt("sim_latency", default=0.0))
    driver = SimDriver(configuration=Configuration.from_group(conf, "fast"), store=MemoryStore())
    assert driver.configuration.sim_latency == 0.5
    assert driver.configuration.reserved_percentage == 3
    assert driver.configuration.max_over_subscription_ratio == 20.0
    assert driver.backend_name == "fast"


def test_a_foreign_definition_of_an_option_stands() -> None:
    conf = cfg.ConfigOpts()
    conf([], project="volmgr", default_config_files=[])
    conf.register_opt(cfg.StrOpt("sim_store", default="theirs"), group="g")
    assert Configuration.from_group(conf, "g", SimDriver.get_driver_options()).sim_store in ("theirs", None)


def test_arguments_of_other_drivers_are_accepted() -> None:
    driver = SimDriver(
        "positional",
        execute=print,
        host="h@b",
        active_backend_id="second",
        store=MemoryStore(),
        db=None,
        cluster_name="c",
    )
    assert (driver.host, driver.active_backend_id, driver.initialized) == ("h@b", "second", False)
    driver.set_initialized()
    assert driver.initialized


def test_functions_come_from_the_option_then_from_the_driver() -> None:
    class Choosy(SimDriver):
        def get_default_filter_function(self) -> str:
            return "volume.size < 10"

    assert Choosy(store=MemoryStore()).get_filter_function() == "volume.size < 10"
    set_ = Choosy(configuration=Configuration({"filter_function": "volume.size < 5"}), store=MemoryStore())
    assert set_.get_filter_function() == "volume.size < 5"
    assert set_.get_goodness_function() is None
    assert set_.get_volume_stats()["pools"][0]["filter_function"] == "volume.size < 5"


def test_vendor_properties_need_their_prefix() -> None:
    class Vendor(SimDriver):
        def _init_vendor_properties(self) -> tuple[dict[str, object], str]:
            return {"acme:tier": {"type": "string"}, "tier": {"type": "string"}}, "acme"

    driver = Vendor(store=MemoryStore())
    assert driver.get_prefixed_property("tier") is None
    driver.init_capabilities()
    assert driver.get_prefixed_property("tier") == "acme:tier"
    assert "acme:tier" in driver.capabilities["properties"]
    assert "tier" not in driver.capabilities["properties"]


def test_a_clone_through_a_snapshot_leaves_no_snapshot() -> None:
    driver = Roundabout(store=MemoryStore())
    source, made = (Volume(id=str(uuid.uuid4()), size=1) for _ in range(2))
    driver.create_volume(source)
    driver.write_bytes(source, 0, b"bytes")
    driver.create_cloned_volume(made, source)
    assert driver.read_bytes(made, 0, 5) == b"bytes"
    assert {item.object_id for item in driver.observe()} == {source.id, made.id}


def test_a_clone_through_a_snapshot_repeats_after_a_crash() -> None:
    driver = Roundabout(store=MemoryStore())
    source, made = (Volume(id=str(uuid.uuid4()), size=1) for _ in range(2))
    driver.create_volume(source)

    def die() -> None:
        # What a killed process leaves: the snapshot is not deleted either.
        driver.faults.fail("delete_snapshot", KeyboardInterrupt)
        raise KeyboardInterrupt

    driver.faults.kill("create_volume_from_snapshot", when="building", hook=die)
    with pytest.raises(KeyboardInterrupt):
        driver.create_cloned_volume(made, source)
    assert sorted(item.state for item in driver.observe()) == ["building", "current", "current"]
    driver.write_bytes(source, 0, b"later")
    driver.create_cloned_volume(made, source)
    assert driver.read_bytes(made, 0, 5) == b"later"
    assert {(item.object_id, item.state) for item in driver.observe()} == {
        (source.id, "current"),
        (made.id, "current"),
    }


def test_progress_goes_to_the_receiver_of_this_call_only() -> None:
    seen: list[float] = []
    progress.report(0.1)
    with progress.reporting(seen.append):
        progress.report(0.5)
    progress.report(0.9)
    assert seen == [0.5]


def test_dotted_names_are_loaded() -> None:
    assert loader.load("volmgr.drivers.sim.SimDriver") is SimDriver


@pytest.mark.parametrize(
    "name", ["nowhere", "volmgr.drivers.nowhere.Driver", "volmgr.drivers.sim.Nothing", "os.path.join"]
)
def test_wrong_names_are_refused(name: str) -> None:
    with pytest.raises(exception.InvalidConfiguration, match=f"driver '{name}' cannot be loaded") as caught:
        loader.load(name)
    assert "dotted path of a class" in caught.value.hint
    with pytest.raises(exception.InvalidConfiguration, match="target"):
        loader.load_target(name)


def test_entry_points_are_loaded_and_listed(tmp_path: pathlib.Path) -> None:
    dist = tmp_path / "acme-1.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    (dist / "entry_points.txt").write_text(
        "[volmgr.drivers]\nacme = volmgr.drivers.sim:SimDriver\nbroken = volmgr.nowhere:Driver\n"
    )
    code = (
        "from volmgr import exception\nfrom volmgr.drivers import loader\n"
        "print(loader.load('acme').__name__)\n"
        "for name in ('acmee', 'broken'):\n"
        "    try: loader.load(name)\n"
        "    except exception.InvalidConfiguration as error: print(error)\n"
    )
    paths = os.pathsep.join([str(tmp_path), *(item for item in sys.path if item), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "SimDriver"
    assert "'acmee' cannot be loaded" in lines[1]
    assert "acme, broken" in lines[1]
    assert "'broken' cannot be loaded" in lines[2]
    assert "volmgr.nowhere" in lines[2]
