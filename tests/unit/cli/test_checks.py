# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks, on folders and programs made for them."""

from __future__ import annotations

import os
import platform
import types
from pathlib import Path
from typing import Any

import pytest

from volmgr import connector, exception
from volmgr.cli import checks
from volmgr.cli.checks import Needs, Result


def _backend(name: str, driver: str, helper: str, **options: Any) -> Any:
    return types.SimpleNamespace(config_group=name, volume_driver=driver, target_helper=helper, **options)


def _kernel(root: Path, *, loaded: tuple[str, ...] = (), listed: tuple[str, ...] = ()) -> str:
    for name in loaded:
        (root / "sys/module" / name).mkdir(parents=True)
    folder = root / "lib/modules" / platform.release()
    folder.mkdir(parents=True)
    lines = [f"kernel/drivers/x/{name}.ko.xz: kernel/other.ko\n" for name in listed]
    (folder / "modules.dep").write_text("".join(lines), encoding="utf-8")
    (folder / "modules.builtin").write_text("kernel/fs/built-in-one.ko\n", encoding="utf-8")
    return str(root)


def test_states_of_kernel_modules(tmp_path: Path) -> None:
    root = _kernel(tmp_path, loaded=("dm_mod",), listed=("iscsi_tcp", "dm-thin-pool"))
    names = ("dm-mod", "iscsi_tcp", "dm_thin_pool", "built_in_one", "other", "target_core_mod")
    wanted = ("loaded", "available", "available", "loaded", "missing", "missing")
    assert tuple(connector.module_state(name, root) for name in names) == wanted


def test_a_kernel_without_modules_has_none(tmp_path: Path) -> None:
    assert connector.module_state("iscsi_tcp", str(tmp_path)) == "missing"


def test_a_missing_initiator_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(exception.BackendDown, match="no iscsi initiator") as caught:
        connector.require_kernel("iscsi", str(tmp_path))
    assert "open-iscsi" in caught.value.hint
    connector.require_kernel("iscsi", _kernel(tmp_path, listed=("iscsi_tcp",)))
    connector.require_kernel("local", str(tmp_path))
    with pytest.raises(exception.Unsupported):
        connector.require_kernel("carrier_pigeon", str(tmp_path))


def test_ethernet_addresses_leave_the_loopback_out(tmp_path: Path) -> None:
    for name, kind, address in (("lo", "772", "00:00:00:00:00:00"), ("eth0", "1", "02:00:00:00:00:01")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "type").write_text(f"{kind}\n", encoding="ascii")
        (tmp_path / name / "address").write_text(f"{address}\n", encoding="ascii")
    assert connector.ethernet_addresses(str(tmp_path)) == ["02:00:00:00:00:01"]
    assert connector.ethernet_addresses(str(tmp_path / "none")) == []
    # With hardware, what belongs to virtual machines and containers does not count: it comes and goes.
    hardware = tmp_path / "enp1s0"
    (hardware / "device").mkdir(parents=True)
    (hardware / "type").write_text("1\n")
    (hardware / "address").write_text("52:54:00:00:00:09\n")
    assert connector.ethernet_addresses(str(tmp_path)) == ["52:54:00:00:00:09"]


def test_needs_follow_from_driver_and_target() -> None:
    found = checks.needs(
        [
            _backend("one", "volmgr.drivers.lvm.LVMVolumeDriver", "lioadm", lvm_type="thin"),
            _backend("two", "file", "tgtadm"),
            _backend("three", "lvm", "fcadm", lvm_type="default"),
        ]
    )
    assert found.tools == {"lvm": ["one", "three"], "thin_check": ["one"], "tgtd": ["two"]}
    assert found.modules["dm_mod"] == ["one", "three"]
    assert found.modules["target_core_mod"] == ["one", "three"]
    assert found.modules["iscsi_target_mod"] == ["one"]
    assert found.fibre_channel == ["three"]


def test_a_program_is_missing_only_if_a_backend_needs_it(tmp_path: Path) -> None:
    script = tmp_path / "tgtd"
    script.write_text("#!/bin/sh\necho 1.0.85 >&2\n", encoding="ascii")
    script.chmod(0o755)
    found = {item.check: item for item in checks.check_tools({"tgtd": ["a"], "lvm": ["a", "b"]}, str(tmp_path))}
    assert (found["program tgtd (a)"].result, found["program tgtd (a)"].found) == (Result.OK, "1.0.85")
    lvm = found["program lvm (a, b)"]
    assert (lvm.result, lvm.remedy) == (Result.MISSING, "apt-get install lvm2")
    assert found["program vblade"].result is Result.WARNING


def test_modules_are_missing_only_if_a_backend_needs_them(tmp_path: Path) -> None:
    root = _kernel(tmp_path, loaded=("dm_mod",))
    needed = Needs(modules={"dm_mod": ["a"], "iscsi_target_mod": ["a"]}, fibre_channel=["c"])
    found = {item.check: item.result for item in checks.check_modules(needed, root)}
    assert found["kernel module dm_mod (a)"] is Result.OK
    assert found["kernel module iscsi_target_mod (a)"] is Result.MISSING
    assert found["kernel module iscsi_tcp (volmgr attach by iSCSI)"] is Result.WARNING
    assert found["a Fibre Channel target module (c)"] is Result.MISSING


@pytest.mark.parametrize(
    ("mode", "result", "remedy"),
    [(0o700, Result.OK, ""), (0o755, Result.WARNING, "chmod o-rx"), (0o777, Result.MISSING, "chmod o-w")],
)
def test_the_state_folder_is_closed_to_others(tmp_path: Path, mode: int, result: Result, remedy: str) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)
    finding, space = checks.check_state_path(str(folder))
    assert (finding.result, finding.remedy.startswith(remedy)) == (result, True)
    assert "GiB free" in space.found


def test_a_state_folder_that_is_not_there_yet_is_no_failure(tmp_path: Path) -> None:
    (finding,) = checks.check_state_path(str(tmp_path / "none"))
    assert finding.result is Result.WARNING
    assert "systemctl start" in finding.remedy


def test_the_socket_folder_is_looked_at_where_there_is_one(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o700)
    assert [item.result for item in checks.check_socket(f"unix://{tmp_path}")] == [Result.OK]
    assert [item.result for item in checks.check_socket(f"unix://{tmp_path}/none")] == [Result.WARNING]
    (broker,) = checks.check_socket("rabbit://user:geheim@broker/x")
    assert broker.result is Result.OK
    assert "geheim" not in str(broker)
