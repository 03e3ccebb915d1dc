# SPDX-License-Identifier: Apache-2.0
"""What of the promised names only LVM can reach, in a recorded run of the daemon over LVM and LIO.

``tests/functional/surface`` does the same for everything that needs no kernel; the rows that it leaves to this run are
data there. What the daemon does by the target alone is what a script with nothing but a driver asks for.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.functional.surface import reaching
from volmgr.drivers.options import Configuration
from volmgr.images.base import ImageInfo
from volmgr.images.directory import DirectoryStore
from volmgr.targets.base import TargetConfig
from volmgr.targets.lio import LioTarget
from volmgr.testing import recording
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.lab.commands import run
from volmgr.testing.waiting import wait_until
from volmgr.types import GiB, MiB, Portal, Secret, Volume

MATRIX_TARGET = "lio"
# The first test waits for all that is asked.
pytestmark = [pytest.mark.extended, pytest.mark.timeout(1500)]
TIMEOUT = 240.0
THIN, THICK = "surfacethin", "surfacethick"
PREFIX = "iqn.2010-10.org.openstack:"
CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
ROWS = sorted({name for name in reaching.METHODS if name.startswith("LVMVolumeDriver.")}
              | set(reaching.ELSEWHERE["lvm"]["rows"]))


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture(scope="module")
def groups(nothing_left: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two volume groups over sparse files; returns the folder."""
    folder = tmp_path_factory.mktemp("surface")
    with contextlib.ExitStack() as undo:
        for group in (THIN, THICK):
            image = folder / f"{group}.img"
            image.touch()
            os.truncate(image, 12 * GiB)
            device = run("losetup", "--find", "--show", str(image)).strip()
            undo.callback(run, "losetup", "--detach", device)
            run("vgcreate", "-q", "-y", "--addtag", "volmgr.clean", group, device)
            undo.callback(run, "vgremove", "-q", "-f", "-y", group)
        undo.callback(run, "udevadm", "settle")
        yield folder


def started(folder: Path, record: Path) -> Daemon:
    options = {
        "enabled_backends": "thin, thick", "report_interval": 2, "service_down_time": 60,
        "backend_stats_polling_interval": 86400, "reconcile_interval": 0,
    }
    driver = {"volume_driver": f"{recording.__name__}.LVMVolumeDriver", "target_helper": "lioadm",
              "target_ip_address": "127.0.0.1"}
    sections = {
        "thin": {**driver, "volume_group": THIN, "lvm_type": "thin", "target_port": 3281},
        "thick": {**driver, "volume_group": THICK, "lvm_type": "default", "target_port": 3282},
    }
    made = Daemon(folder / "node", options=options, sections=sections, environment={recording.RECORD: str(record)})
    made.start()
    return made


@pytest.fixture(scope="module")
def entered(groups: Path) -> set[recording.Entry]:
    record = groups / "record"
    daemon = started(groups, record)
    try:
        with daemon.client() as client:
            wait_until(lambda: both_up(client), TIMEOUT, "both backends take volumes", retry_on=Exception)
            tell(daemon, client)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(recording.RECORD, str(record))
            alone(groups)
    finally:
        daemon.stop(60)
    return recording.read(record)


def both_up(client: Client) -> bool:
    answer = client.api.call(client.context, "explain_placement", host="node@thin", request={"size": 1})
    return sum(item["passed"] for item in answer["backends"]) == 2


def tell(daemon: Daemon, client: Client) -> None:
    """Ask the daemon for all that it asks the LVM driver for."""

    def do(method: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return client.do(method, *args, timeout=TIMEOUT, **kwargs)

    def volume(backend: str = "thin", **properties: Any) -> str:
        volume_id = new_id()
        do("create_volume", volume_id, **{"size": 1, "host": f"node@{backend}", **properties})
        return volume_id

    api, context = client.api, client.context
    first, snapshot_id = volume(), new_id()
    do("create_snapshot", first, snapshot_id)
    volume(snapshot_id=snapshot_id)
    do("extend_volume", volume(source_volid=first), 2)
    api.type_create(context, new_id(), "silver")
    do("retype", first, "silver")
    # Groups.
    group_id, cgsnapshot_id, other = new_id(), new_id(), new_id()
    do("create_consistencygroup", group_id, host="node@thin")
    joining = volume()
    volume(group_id=group_id)
    do("update_consistencygroup", group_id, add_volumes=[joining])
    do("create_cgsnapshot", cgsnapshot_id, group_id=group_id)
    do("create_consistencygroup_from_src", other, cgsnapshot_id=cgsnapshot_id)
    do("delete_cgsnapshot", cgsnapshot_id)
    do("delete_consistencygroup", group_id, delete_volumes=True)
    # What was there before.
    taken, taken_snapshot = new_id(), new_id()
    run("lvcreate", "-q", "-y", "-n", "legacy", "-V", "1g", "--thinpool", f"{THIN}/{THIN}-pool")
    run("lvcreate", "-q", "-y", "-s", "-kn", "-n", "legacy-monday", f"{THIN}/legacy")
    assert api.get_manageable_volumes(context, "node@thin")
    do("manage_existing", taken, {"source-name": "legacy"}, host="node@thin")
    assert api.get_manageable_snapshots(context, "node@thin")
    do("manage_existing_snapshot", taken_snapshot, {"source-name": "legacy-monday"}, volume_id=taken)
    do("delete_snapshot", taken_snapshot, unmanage_only=True)
    do("delete_volume", taken, unmanage_only=True)
    # Images: downloaded, uploaded, and cloned from a volume of this group.
    store = DirectoryStore("local", str(daemon.state / "images" / "store"))
    upload = store.upload(ImageInfo("golden", "local", "raw", "1", virtual_size=MiB))
    upload.write(os.urandom(MiB))
    upload.commit()
    do("copy_volume_to_image", volume(image_id="golden"), {"id": "copy", "disk_format": "raw"})
    manifest = daemon.state / "images" / "store" / "golden.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"location": f"cinder://{first}"}))
    volume(image_id="golden")
    # A thick one goes back by a merge and is cloned through a snapshot; a thin one moves to the other group.
    thick, moment = volume("thick"), new_id()
    do("create_snapshot", thick, moment)
    do("revert_to_snapshot", thick, moment)
    volume("thick", source_volid=thick)
    do("migrate_volume", volume(), "node@thick")
    copied = volume()
    do("migrate_volume", copied, "node@thick", force_host_copy=True)

    def has_its_first_name() -> bool:
        # Not before the space of that name has been wiped.
        return bool(do("update_migrated_volume", copied, new_id())["result"]["name"] == f"volume-{copied}")

    wait_until(has_its_first_name, TIMEOUT, "what has arrived can have the first name again")


def alone(folder: Path) -> None:
    """Use the driver without a daemon."""
    cls = recording.LVMVolumeDriver
    target = LioTarget(TargetConfig(PREFIX, (Portal("127.0.0.1", 3283),), str(folder / "alone"), timeout=60))
    target.start()
    try:
        options = Configuration({"volume_group": THIN, "lvm_type": "thin"})
        driver = cls(configuration=options, host="host@alone", target=target)
        driver.do_setup(None)
        volume = Volume(id=new_id(), size=1, provider_auth=Secret("CHAP user 0123456789abcdef"))
        assert driver.get_pool(volume)
        driver.create_volume(volume)
        driver.create_export(None, volume, CONNECTOR)
        driver.ensure_export(None, volume)
        driver.validate_connector(CONNECTOR)
        assert driver.initialize_connection(volume, CONNECTOR)["driver_volume_type"] == "iscsi"
        driver.terminate_connection(volume, CONNECTOR)
        driver.remove_export(None, volume)
        driver.delete_volume(volume)
    finally:
        target.stop(and_exports=True)


@pytest.mark.parametrize("name", ROWS)
def test_the_method_is_entered(entered: set[recording.Entry], name: str) -> None:
    assert reaching.reached(reaching.METHODS[name], entered)
