# SPDX-License-Identifier: Apache-2.0
"""``volmgr host audit`` against a real kernel: what is stale goes and writes nothing, everything else stays."""

from __future__ import annotations

import contextlib
import io
import json
import os
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.lab.inside.test_client import Site, clear, host, properties, read_stored, site, volume
from volmgr import exception
from volmgr.cli.app import VolmgrApp
from volmgr.connector import HostConnector
from volmgr.initiator import sysfs
from volmgr.testing.lab import initiator, lio
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.loopgroup import read_device, write_device
from volmgr.testing.lab.multipath import multipathd
from volmgr.testing.waiting import wait_until
from volmgr.types import MiB

__all__ = ["host", "properties", "site", "volume"]
MATRIX_DRIVER = "file"
pytestmark = pytest.mark.extended_on("tgt")


def audit(site: Site, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the command in this process; returns its exit code and its rows."""
    out = io.StringIO()
    words = ["-q", "--config-file", str(site.daemon.config_file), "host", "audit", "--long", "-f", "json", *arguments]
    code = VolmgrApp(stdout=out).run(words)
    return code, json.loads(out.getvalue())


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Path]:
    """A disk from another's target that has a name like ours; nobody granted it."""
    image = tmp_path / "foreign"
    image.write_bytes(bytes(16 * MiB))
    loop = run("losetup", "--find", "--show", str(image)).strip()
    name = f"iqn.2010-10.org.openstack:volume-{uuid.uuid4()}"
    chap = lio.Chap("foreign", "a-foreign-password")
    try:
        with (
            lio.exported(Path(loop), name, initiator.initiator_name(), chap, uuid.uuid4().hex, port=3999) as export,
            initiator.logged_in(export, chap) as disk,
        ):
            yield disk
    finally:
        run("losetup", "--detach", loop)


def test_stale_goes_and_the_rest_stays(
    site: Site, host: HostConnector, volume: Callable[..., str], properties: dict[str, Any], foreign: Path
) -> None:
    kept, revoked, replaced = volume(), volume(), volume()
    infos = {item: site.api("initialize_connection", item, properties) for item in (kept, revoked, replaced)}
    disks = {item: Path(host.connect(info)) for item, info in infos.items()}
    assert audit(site) == (0, [])
    write_device(disks[kept], b"\x01" * MiB)
    # The host forgets two of them; one goes, and another comes under its name, with its LUN.
    site.api("terminate_connection", revoked, properties)
    site.api("terminate_connection", replaced, properties)
    site.client.do("delete_volume", replaced)
    again = partial(site.client.do, "create_volume", replaced, size=1)
    wait_until(again, 30, "a volume has the id again", retry_on=exception.AlreadyExists)
    infos[replaced] = site.api("initialize_connection", replaced, properties)

    code, rows = audit(site)
    expected = {infos[revoked]["data"]["target_iqn"]: "revoked", infos[replaced]["data"]["target_iqn"]: "stale-disk"}
    assert (code, {row["target"]: row["kind"] for row in rows}) == (1, expected)
    before = sysfs.read()
    with open(disks[revoked], "rb"):
        code, rows = audit(site, "--fix")
        told = {row["kind"]: row["result"] for row in rows}
        assert code == 1
        assert f"process {os.getpid()} has it open" in told["revoked"]
        assert told["stale-disk"].startswith("taken away")
        assert disks[revoked].exists()
    code, rows = audit(site, "--fix")
    assert (code, [row["kind"] for row in rows]) == (0, ["revoked"])
    assert audit(site) == (0, [])

    names = {item.name for item in sysfs.read().disks}
    assert names == {disks[kept].name, foreign.name}
    assert {item.name for item in before.disks} - names == {disks[revoked].name, disks[replaced].name}
    assert read_device(disks[kept], MiB) == b"\x01" * MiB
    assert read_device(foreign, MiB) == bytes(MiB)
    assert read_stored(site.stored(replaced), MiB, 0) == bytes(MiB), "a stale disk was written to the new volume"
    fresh = Path(host.connect(infos[replaced]))
    assert read_device(fresh, MiB) == bytes(MiB)
    for item in (kept, replaced):
        host.disconnect(infos[item])
        site.api("terminate_connection", item, properties)


@pytest.mark.extended
def test_a_map_goes_with_its_paths(
    site: Site, volume: Callable[..., str], properties: dict[str, Any], tmp_path: Path
) -> None:
    host = HostConnector(str(tmp_path / "locks"), multipath=True)
    with multipathd(), contextlib.ExitStack() as undo:
        undo.callback(clear)
        kept, revoked = volume(), volume()
        infos = {item: site.api("initialize_connection", item, properties) for item in (kept, revoked)}
        maps = {item: Path(host.connect(info)) for item, info in infos.items()}
        for device in maps.values():
            wait_until(lambda device=device: len(sysfs.serials(str(device))) == 2, 20, "both paths are there")
        site.api("terminate_connection", revoked, properties)
        code, rows = audit(site)
        assert (code, [row["kind"] for row in rows]) == (1, ["revoked", "revoked"])
        # Each session has one path; the map goes with the last.
        assert audit(site, "--fix")[0] == 0
        assert audit(site) == (0, [])
        view = sysfs.read()
        assert [item.device for item in view.maps] == [maps[kept].name]
        assert len(view.sessions) == 2
        write_device(maps[kept], b"\x03" * MiB)
        assert read_stored(site.stored(kept), MiB, 0) == b"\x03" * MiB
        host.disconnect(infos[kept])
        site.api("terminate_connection", kept, properties)
