# SPDX-License-Identifier: Apache-2.0
"""A compute host's whole way: os-brick in the guest's kernel with what the daemon answered, on LIO and on tgt."""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.targets.initiators import Disk, inquire
from volmgr import exception
from volmgr.connector import HostConnector
from volmgr.initiator import sysfs
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.lab import initiator, leftovers, lio
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.errors import CommandFailed
from volmgr.testing.lab.loopgroup import read_device, write_device
from volmgr.testing.lab.multipath import multipathd
from volmgr.testing.waiting import wait_until
from volmgr.tools.tgtd import Tgtd
from volmgr.types import GiB, MiB, Portal

PORTALS = (Portal("127.0.0.1", 3270), Portal("127.0.0.2", 3270))
MATRIX_DRIVER = "file"
OTHER = "iqn.1994-05.com.example:other"
HELPERS = {"lio": "lioadm", "tgt": "tgtadm"}


@dataclass
class Site:
    """A daemon, a client of it, and this guest as a compute host."""

    daemon: Daemon
    client: Client
    target: str

    def api(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.client.api, verb)(self.client.context, *args, **kwargs)

    def volume(self, **properties: Any) -> str:
        volume_id = str(uuid.uuid4())
        self.client.do("create_volume", volume_id, **{"size": 1, **properties})
        return volume_id

    def stored(self, volume_id: str) -> Path:
        return self.daemon.state / "file" / "volumes" / f"volume-{volume_id}"


@pytest.fixture(scope="module", params=sorted(HELPERS))
def site(
    nothing_left: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A daemon that stores volumes in files and serves them at two portals."""
    backend = {
        "volume_driver": "file",
        "target_helper": HELPERS[request.param],
        "target_ip_address": PORTALS[0].ip,
        "target_secondary_ip_addresses": PORTALS[1].ip,
        "target_port": PORTALS[0].port,
    }
    daemon = Daemon(tmp_path_factory.mktemp(request.param), backend=backend, forked=True)
    try:
        daemon.start()
        with daemon.client() as client:
            yield Site(daemon, client, request.param)
    finally:
        daemon.stop()
        Tgtd(str(daemon.state / "b" / "target"), PORTALS).stop()


@pytest.fixture
def volume(site: Site) -> Iterator[Callable[..., str]]:
    """Return a function that makes a volume; at the end nobody has access to it and it is deleted."""
    made: list[str] = []

    def make(**properties: Any) -> str:
        made.append(site.volume(**properties))
        return made[-1]

    try:
        yield make
    finally:
        for volume_id in made:
            with contextlib.suppress(exception.NotFound):
                site.client.do("delete_volume", volume_id, force=True)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[HostConnector]:
    """This guest with one path to each volume; at the end no session is left."""
    yield HostConnector(str(tmp_path / "locks"))
    clear()


@pytest.fixture(scope="module")
def properties(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a connector of this guest is."""
    return HostConnector(str(tmp_path_factory.mktemp("locks"))).properties()


def clear() -> None:
    """End the sessions that a failed test left; the volumes go afterwards."""
    if initiator.sessions():
        run("iscsiadm", "-m", "node", "--logoutall=all")


def read_stored(path: Path, length: int, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def whole_way(site: Site, host: HostConnector, volume_id: str, paths: int) -> None:
    """From the properties to the end of the connection, and bytes in between."""
    properties = host.properties()
    assert properties["initiator"] == initiator.initiator_name()
    info = site.api("initialize_connection", volume_id, properties)
    assert site.api("initialize_connection", volume_id, properties) == info, "a repeat joins"
    device = Path(host.connect(info))
    try:
        assert len(initiator.sessions()) == paths
        wait_until(lambda: len(sysfs.serials(str(device))) == paths, 20, "every path is there")
        assert set(sysfs.serials(str(device)).values()) == {info["data"]["serial"]}
        data = os.urandom(MiB)
        write_device(device, data, offset=7 * MiB)
        assert read_stored(site.stored(volume_id), MiB, 7 * MiB) == data
        if site.target == "lio":
            site.client.do("extend_volume", volume_id, 2)
            assert host.extend(info) == 2 * GiB
            write_device(device, data, offset=2 * GiB - MiB)
            assert read_stored(site.stored(volume_id), MiB, 2 * GiB - MiB) == data
        else:
            with pytest.raises(exception.Unsupported):
                site.client.do("extend_volume", volume_id, 2)
        assert read_device(device, MiB, offset=7 * MiB) == data
    finally:
        host.disconnect(info)
    host.disconnect(info)  # a repeat finds nothing
    assert not device.exists()
    assert sysfs.read() == sysfs.View()
    site.api("terminate_connection", volume_id, properties)
    with pytest.raises(PermissionError):
        inquire(info["data"], properties["initiator"], chap=account(info))


def account(info: dict[str, Any]) -> tuple[str, str]:
    return info["data"]["auth_username"], info["data"]["auth_password"]


def test_one_path(site: Site, host: HostConnector, volume: Callable[..., str]) -> None:
    whole_way(site, host, volume(), 1)


@pytest.mark.extended_on("tgt")
def test_two_paths(site: Site, host: HostConnector, volume: Callable[..., str], tmp_path: Path) -> None:
    with multipathd():
        try:
            whole_way(site, HostConnector(str(tmp_path / "locks"), multipath=True), volume(), 2)
        finally:
            clear()


def test_who_is_not_granted_is_refused(
    site: Site, host: HostConnector, volume: Callable[..., str], properties: dict[str, Any]
) -> None:
    volume_id = volume()
    info = site.api("initialize_connection", volume_id, properties)
    right = info["data"]
    # By iscsiadm: os-brick's own patience with a refusal is more than a minute.
    export = lio.Export(right["target_iqn"], right["target_lun"], PORTALS[0].ip, PORTALS[0].port)
    for user, password in (("another", right["auth_password"]), (right["auth_username"], "another-password")):
        with pytest.raises(CommandFailed) as refused, initiator.logged_in(export, lio.Chap(user, password)):
            pytest.fail("the target let somebody in")
        assert refused.value.status == initiator.AUTH_FAILED
    assert initiator.sessions() == []
    with pytest.raises(PermissionError):
        inquire(right, OTHER, chap=account(info))
    assert "DIRECT_ACCESS" in inquire(right, properties["initiator"], chap=account(info))
    site.api("terminate_connection", volume_id, properties)


@pytest.mark.extended_on("tgt")
def test_read_only_attachment(
    site: Site, host: HostConnector, volume: Callable[..., str], properties: dict[str, Any]
) -> None:
    volume_id, attachment_id = volume(), str(uuid.uuid4())
    site.api("attachment_create", attachment_id, volume_id, mode="ro")
    info = site.api("attachment_update", volume_id, properties, attachment_id)
    assert info["data"]["access_mode"] == "ro"
    device = Path(host.connect(info))
    assert run("blockdev", "--getro", str(device)).strip() == "1"
    # The kernel believes what it was told; sent all the same, the target refuses it.
    run("blockdev", "--setrw", str(device))
    with pytest.raises(OSError):
        write_device(device, b"\x08" * MiB)
    assert read_device(device, MiB) == bytes(MiB)
    host.disconnect(info)
    site.api("attachment_delete", volume_id, attachment_id)


@pytest.mark.extended_on("tgt")
def test_two_initiators_at_once(
    site: Site, host: HostConnector, volume: Callable[..., str], properties: dict[str, Any], tmp_path: Path
) -> None:
    volume_id = volume(multiattach=True)
    other = {"initiator": OTHER, "ip": "127.0.0.1", "host": "elsewhere"}
    infos = []
    for connector in (properties, other):
        attachment_id = str(uuid.uuid4())
        site.api("attachment_create", attachment_id, volume_id, instance_uuid=str(uuid.uuid4()))
        infos.append((attachment_id, site.api("attachment_update", volume_id, connector, attachment_id)))
        site.api("attachment_complete", attachment_id)
    (mine, info), (theirs, their_info) = infos
    device = Path(host.connect(info))
    with Disk(their_info["data"], OTHER, tmp_path) as disk:
        assert "failed" not in disk.write(5, MiB, MiB)
        assert read_device(device, MiB, offset=MiB) == b"\x05" * MiB
        write_device(device, b"\x06" * MiB, offset=MiB)
        assert "failed" not in disk.read(6, MiB, MiB)
        # Taken away from one, the other goes on.
        host.disconnect(info)
        site.api("attachment_delete", volume_id, mine)
        assert "failed" not in disk.write(7, MiB, MiB)
    site.api("attachment_delete", volume_id, theirs)
    assert read_stored(site.stored(volume_id), MiB, MiB) == b"\x07" * MiB


@pytest.mark.extended_on("tgt")
def test_a_stale_disk_is_not_taken_for_the_volume_that_has_its_place(
    site: Site, host: HostConnector, volume: Callable[..., str], properties: dict[str, Any]
) -> None:
    volume_id = volume()
    before = site.api("initialize_connection", volume_id, properties)
    write_device(Path(host.connect(before)), b"\x01" * MiB)
    # The host forgets to disconnect, and everybody else forgets the volume.
    site.api("terminate_connection", volume_id, properties)
    site.client.do("delete_volume", volume_id)
    # The id is free when the old object's space is.
    again = partial(site.client.do, "create_volume", volume_id, size=1)
    wait_until(again, 30, "a volume has the id again", retry_on=exception.AlreadyExists)
    info = site.api("initialize_connection", volume_id, properties)
    keys = ("target_iqn", "target_lun", "target_portal")
    assert [info["data"][key] for key in keys] == [before["data"][key] for key in keys]
    assert info["data"]["serial"] != before["data"]["serial"]
    with pytest.raises(exception.VolmgrError) as refused:
        host.connect(info)
    assert isinstance(refused.value, exception.Inconsistent), refused.value
    assert "host audit --fix" in refused.value.hint
    assert read_stored(site.stored(volume_id), MiB, 0) == bytes(MiB)
    clear()
    device = Path(host.connect(info))
    assert read_device(device, MiB) == bytes(MiB)
    host.disconnect(info)
    site.api("terminate_connection", volume_id, properties)


def test_nothing_is_left(site: Site) -> None:
    assert [item for item in leftovers.found() if socket.gethostname() in item or "session" in item] == []
    assert sysfs.read() == sysfs.View()
