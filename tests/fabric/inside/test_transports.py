# SPDX-License-Identifier: Apache-2.0
"""Each test is a check of the matrix, for each transport: volmgr's target here, os-brick and the kernel there.

The bytes are those of a logical volume: what the initiator writes is read back from it, past all caches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fabric.inside.stages import Stage
from tests.fabric.inside.transports import Aoe, FibreChannel, Iser, grow, random_bytes, rdma_packets, size_of
from volmgr import exception, names
from volmgr.testing.lab.loopgroup import read_device, write_device
from volmgr.types import ExportSpec, MiB

PAGE = 4096


@pytest.fixture
def attached(stage: Stage) -> Iterator[tuple[ExportSpec, Path]]:
    """An export that this host is connected to; afterwards neither is there."""
    spec = stage.export()
    disk = stage.attach(spec)
    yield spec, disk
    stage.detach(spec)
    assert not disk.exists()


def test_login(stage: Stage, attached: tuple[ExportSpec, Path]) -> None:
    stage.check_login(*attached)


def test_bytes_at_the_initiator_are_the_volumes(stage: Stage, attached: tuple[ExportSpec, Path]) -> None:
    spec, disk = attached
    written = random_bytes()
    write_device(disk, written, offset=4 * MiB)
    assert read_device(Path(spec.path), len(written), offset=4 * MiB) == written
    assert read_device(disk, len(written), offset=4 * MiB) == written
    assert size_of(disk) == size_of(Path(spec.path))
    if isinstance(stage, Iser):
        assert rdma_packets() > len(written) // PAGE, "the data goes by RDMA"
    if not isinstance(stage, Aoe):
        assert spec.serial in Path(f"/sys/block/{disk.name}/device/vpd_pg80").read_bytes().decode(errors="replace")


def test_connector_as_the_client(stage: Stage) -> None:
    """os-brick's connector, and ours where it has none: connect, disconnect, connect again, beside another volume."""
    one, two = stage.export(), stage.export()
    stage.target.sync(one)
    protocol = stage.client.connector(stage.target.protocol)
    assert type(protocol).__module__.startswith("os_brick." if stage.has_os_brick else "volmgr.")
    data = [dict(stage.info(spec)["data"]) for spec in (one, two)]
    for _ in range(2):
        device = protocol.connect_volume(data[0])
        assert (device["type"], protocol.check_valid_device(device["path"])) == ("block", True)
        assert protocol.get_volume_paths(data[0])
        protocol.disconnect_volume(data[0], device)
        assert protocol.get_volume_paths(data[0]) == []
    device = protocol.connect_volume(data[0])
    stage.target.sync(two)
    later = protocol.connect_volume(data[1])
    for number, at in enumerate((device, later), 1):
        write_device(Path(at["path"]), bytes([number]) * MiB)
    for number, spec in enumerate((one, two), 1):
        assert read_device(Path(spec.path), MiB) == bytes([number]) * MiB
    protocol.disconnect_volume(data[0], device)
    assert read_device(Path(later["path"]), MiB) == b"\2" * MiB
    protocol.disconnect_volume(data[1], later)
    for spec in (one, two):
        stage.end(spec)


def test_export(stage: Stage) -> None:
    spec = stage.export()
    assert stage.target.sync(spec) is True
    assert stage.target.sync(spec) is False
    (seen,) = stage.target.observe()
    assert (seen.target_name, seen.paths) == (spec.target_name, (spec.path,))
    assert stage.target.present() == {spec.target_name}
    gone = ExportSpec("volume", spec.resource_id, spec.target_name, wanted=False)
    assert stage.target.sync(gone) is True
    assert list(stage.target.observe()) == []
    assert stage.target.sync(gone) is False
    stage.end(spec)


def test_grant(stage: Stage) -> None:
    """A host that is not let in gets nothing, whoever else is; then it is, and only to read."""
    spec = stage.export()
    stage.target.sync(dataclasses.replace(spec, grants=(stage.other_grant(),)))
    stage.check_refused(spec)
    read_only = dataclasses.replace(spec, grants=(dataclasses.replace(spec.grants[0], mode="ro"),))
    assert stage.target.sync(read_only) is True
    before = read_device(Path(spec.path), PAGE)
    disk = stage.connect(read_only)
    assert read_device(disk, PAGE) == before
    with pytest.raises(OSError):
        write_device(disk, b"\xee" * PAGE)
    assert read_device(Path(spec.path), PAGE) == before
    stage.detach(read_only)


def test_revoke(stage: Stage) -> None:
    """It may not come back, and if it keeps the disk open it reads an error, never zeros or another's bytes."""
    spec = stage.export()
    disk = stage.attach(spec)
    write_device(disk, b"\7" * MiB)
    assert stage.target.sync(dataclasses.replace(spec, grants=())) is True
    if isinstance(stage, FibreChannel):
        # The others' initiators wait for minutes whether the target comes back.
        with pytest.raises(OSError):
            read_device(disk, PAGE)
    stage.client.disconnect(stage.info(spec))
    stage.check_refused(spec)
    assert read_device(Path(spec.path), MiB) == b"\7" * MiB
    stage.end(spec)


def test_two_initiators(stage: Stage, attached: tuple[ExportSpec, Path]) -> None:
    spec, disk = attached
    both = dataclasses.replace(spec, grants=(*spec.grants, stage.other_grant()))
    stage.target.sync(both)
    with stage.other(both, both.grants[1]) as other:
        for number in (1, 2):
            write_device(disk, bytes([number]) * PAGE, offset=MiB)
            assert other.read(PAGE, MiB) == bytes([number]) * PAGE
    assert stage.target.sync(spec) is True, "the other one's access is taken away"
    write_device(disk, b"\3" * PAGE, offset=MiB)
    assert read_device(Path(spec.path), PAGE, offset=MiB) == b"\3" * PAGE
    (seen,) = stage.target.observe()
    assert len(seen.initiators) == 1


def test_grows_in_use(stage: Stage, attached: tuple[ExportSpec, Path]) -> None:
    spec, disk = attached
    write_device(disk, b"\4" * MiB)
    size = grow(spec.path)
    stage.target.sync(spec)
    assert stage.client.extend(stage.info(spec)) == size
    assert size_of(disk) == size
    write_device(disk, b"\5" * MiB, offset=size - MiB)
    assert read_device(Path(spec.path), MiB, offset=size - MiB) == b"\5" * MiB
    assert read_device(disk, MiB) == b"\4" * MiB


def test_wiped_state_is_rebuilt(stage: Stage) -> None:
    """As after a reboot of the server: another life finds nothing, makes all, and the host has its bytes again."""
    spec = stage.export()
    disk = stage.attach(spec)
    write_device(disk, b"\6" * MiB)
    stage.wipe()
    stage.restart()
    assert list(stage.target.observe()) == []
    assert stage.target.rebuild([spec]) == 1
    disk = stage.come_back(spec)
    assert read_device(disk, MiB) == b"\6" * MiB
    # And one that finds everything changes nothing.
    stage.restart()
    assert stage.target.rebuild([spec]) == 0
    stage.detach(spec)


def test_half_made_objects_of_a_kill(stage: Stage) -> None:
    """Whatever step a kill came after, of the making or of the removal: the next life completes both."""
    spec = stage.export()
    gone = ExportSpec("volume", spec.resource_id, spec.target_name, wanted=False)
    count = 0
    for count, left in enumerate(stage.half_made(spec), 1):
        stage.restart()
        assert stage.target.sync(spec) in (True, False)
        assert stage.target.sync(spec) is False, left
        (seen,) = stage.target.observe()
        assert (seen.target_name, seen.paths, len(seen.initiators)) == (spec.target_name, (spec.path,), 1), left
        if count == 5:
            disk = stage.connect(spec)
            assert read_device(disk, MiB) == read_device(Path(spec.path), MiB), left
            stage.client.disconnect(stage.info(spec))
        assert stage.target.sync(gone) is True, left
        assert list(stage.target.observe()) == [], left
    assert count > 5
    stage.end(spec)


def test_lun_safety(stage: Stage) -> None:
    """An address that is another volume's now: a host that still has the old disk never meets the new one by it."""
    old, new = stage.export(), stage.export()
    address = {"lun": old.lun, "shelf": old.shelf, "blade": old.blade, "grants": old.grants}
    if not isinstance(stage, Aoe):
        with pytest.raises(exception.Invalid):
            stage.target.sync(dataclasses.replace(old, lun=0))
    if isinstance(stage, Iser):
        # Each volume has a target of its own: only one that was made again under its name has its number.
        address["target_name"] = old.target_name
    new = dataclasses.replace(new, **address, serial=names.new_serial())
    write_device(Path(old.path), b"\x0a" * MiB)
    write_device(Path(new.path), b"\x0b" * MiB)
    grow(new.path)
    disk = stage.attach(old)
    assert read_device(disk, PAGE) == b"\x0a" * PAGE
    stage.target.sync(dataclasses.replace(old, wanted=False))
    stage.target.sync(new)
    try:
        disk = stage.connect(new)
    except exception.Inconsistent as error:
        # The kernel still believes in the old one: it is not handed out, and taken away it is found anew.
        assert f"/sys/block/{disk.name}/device/delete" in error.hint or "host audit" in error.hint
        stage.client.disconnect(stage.info(new))
        disk = stage.connect(new)
    if not isinstance(stage, Aoe):
        assert new.serial in Path(f"/sys/block/{disk.name}/device/vpd_pg80").read_bytes().decode(errors="replace")
    assert size_of(disk) == size_of(Path(new.path))
    assert read_device(disk, MiB) == b"\x0b" * MiB
    stage.detach(new)
    stage.end(old)


def test_foreign_objects_are_untouched(stage: Stage) -> None:
    """The last check: at its end nothing of ours is there, and all of the stranger's."""
    spec, path = stage.export(), stage.volumes.take()
    with stage.foreign(path) as told:
        before = told()
        stage.target.sync(spec)
        assert told() == before
        assert [seen.target_name for seen in stage.target.observe()] == [spec.target_name]
        stage.restart()
        assert [seen.target_name for seen in stage.target.observe()] == [spec.target_name]
        stage.target.stop(and_exports=True)
        assert list(stage.target.observe()) == []
        assert told() == before
    stage.volumes.give_back(path)
    stage.volumes.give_back(Path(spec.path))
