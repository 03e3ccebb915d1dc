# SPDX-License-Identifier: Apache-2.0
"""What is asked of the daemon so that each of its verbs is asked once, with a request that may be made.

Each story stands alone; what a verb does is proved elsewhere, here it is enough that it is answered.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.functional.surface.site import CONNECTOR, TIMEOUT, Site, new_id
from volmgr import exception, names
from volmgr.testing.waiting import wait_until
from volmgr.types import GiB

Story = Callable[[Site], None]
TYPES = ("gold", "silver")


def volumes(site: Site) -> None:
    volume_id, snapshot_id, clone, copy = (new_id() for _ in range(4))
    site.do("create_volume", volume_id, size=1, host="node@one")
    site.call("update_volume", volume_id, name="disk", metadata={"a": "b"})
    site.do("create_snapshot", volume_id, snapshot_id)
    site.do("create_volume", clone, source_volid=volume_id)
    site.do("create_volume", copy, snapshot_id=snapshot_id)
    site.do("revert_to_snapshot", volume_id, snapshot_id)
    site.do("extend_volume", clone, 2)
    assert site.call("get_volume", volume_id)["name"] == "disk"
    assert site.call("list_volumes")
    assert site.call("get_snapshot", snapshot_id)["volume_id"] == volume_id
    assert site.call("list_snapshots", filters={"volume_id": volume_id})
    assert site.call("secure_file_operations_enabled", volume_id) in (True, False)
    assert volume_id in site.call("why", volume_id)["text"]
    site.do("retype", copy, "silver")
    site.do("delete_snapshot", snapshot_id)
    for each in (clone, copy, volume_id):
        site.do("delete_volume", each)


def connections(site: Site) -> None:
    volume_id, snapshot_id, instance, attachment = site.volume("one"), new_id(), new_id(), new_id()
    site.do("create_snapshot", volume_id, snapshot_id)
    site.call("attachment_create", attachment, volume_id, instance)
    site.call("attachment_update", volume_id, CONNECTOR, attachment)
    site.call("attachment_complete", attachment)
    assert site.call("get_attachment", attachment)["status"] == "attached"
    assert site.call("list_attachments", filters={"volume_id": volume_id})
    told = site.api.call(site.context, "check_for_export", host="node@one", instance_id=instance)
    assert told["volumes"] == {volume_id: True}
    site.call("attachment_delete", volume_id, attachment)
    site.call("attach_volume", volume_id, host_name="compute", mountpoint="/dev/vdb", attachment_id=attachment)
    site.connect(volume_id)
    site.disconnect(volume_id)
    site.call("detach_volume", volume_id, attachment)
    assert site.call("remove_export", volume_id)["removed"]
    site.call("initialize_connection_snapshot", snapshot_id, CONNECTOR)
    site.call("terminate_connection_snapshot", snapshot_id, CONNECTOR)
    assert site.call("remove_export_snapshot", snapshot_id)["removed"]
    site.do("delete_volume", volume_id, cascade=True)


def images(site: Site) -> None:
    source = site.folder / "disk.raw"
    source.write_bytes(b"image" * 100_000)
    argv = [sys.executable, "-m", "volmgr.cmd.manage", "--config-file", str(site.daemon.config_file)]
    subprocess.run([*argv, "image", "import", "golden", str(source)], check=True, timeout=TIMEOUT)
    for backend in ("one", "array", "sim"):
        volume_id = site.volume(backend, image_id="golden")
        uploaded = {"id": f"from-{backend}", "disk_format": "raw"}
        site.do("copy_volume_to_image", volume_id, uploaded)
        site.do("delete_volume", volume_id)
    # A backend that can reach the image by itself, and one whose download breaks off.
    manifest = site.daemon.state / "images" / "store" / "golden.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(told | {"location": "sim://golden"}))
    site.volume("sim", image_id="golden")
    manifest.write_text(json.dumps(told | {"checksum": "0" * 64}))
    for backend in ("array", "pool"):
        with pytest.raises(exception.VolmgrError):
            site.volume(backend, image_id="golden")


def backups(site: Site) -> None:
    backup_id, second, restored = new_id(), new_id(), new_id()
    volume_id = site.volume("one")
    site.do("create_backup", backup_id, volume_id)
    site.do("create_backup", second, volume_id, incremental=True)
    assert site.call("get_backup", backup_id)["status"] == "available"
    assert len(site.call("list_backups", filters={"volume_id": volume_id})) == 2
    assert site.call("get_backup_device", backup_id)["backup_device"]["id"] == volume_id
    site.do("restore_backup", second, volume_id)
    site.do("create_volume", restored, size=1, backup_id=second, host="node@one")
    site.do("delete_backup", second)
    site.do("delete_backup", backup_id)


def groups(site: Site) -> None:
    grouped(site, "one")


def grouped(site: Site, backend: str) -> None:
    group_id, copied, from_set, cgsnapshot_id = (new_id() for _ in range(4))
    site.do("create_consistencygroup", group_id, name="db", host=f"node@{backend}")
    member, other = site.volume(backend, group_id=group_id), site.volume(backend)
    site.do("update_consistencygroup", group_id, add_volumes=[other], name="db2")
    site.do("create_cgsnapshot", cgsnapshot_id, group_id=group_id)
    site.do("create_consistencygroup_from_src", from_set, cgsnapshot_id=cgsnapshot_id)
    site.do("create_consistencygroup_from_src", copied, source_group_id=group_id)
    assert site.call("get_group", group_id)["volumes"] == sorted([member, other])
    assert site.call("list_groups") and site.call("list_cgsnapshots")
    assert site.call("get_cgsnapshot", cgsnapshot_id)["group_id"] == group_id
    site.do("delete_cgsnapshot", cgsnapshot_id)
    site.do("update_consistencygroup", group_id, remove_volumes=[other])
    for each in (group_id, copied, from_set):
        site.do("delete_consistencygroup", each, delete_volumes=True)


def other_owners(site: Site) -> None:
    volume_id, offer, second = site.volume("sim"), new_id(), new_id()
    site.call("transfer_create", offer, volume_id, name="gift")
    assert site.call("get_transfer", offer)["volume_id"] == volume_id
    assert site.call("list_transfers")
    site.call("transfer_delete", offer)
    key = site.call("transfer_create", second, volume_id)["auth_key"]
    site.do("transfer_accept", second, key)
    site.do("accept_transfer", volume_id, "somebody", "elsewhere")
    assert site.call("get_volume", volume_id)["project_id"] == "elsewhere"


def moves(site: Site) -> None:
    volume_id = site.volume("one")
    site.connect(volume_id)
    waiting = site.call("migrate_volume", volume_id, "node@two")["operation_id"]
    parked(site, waiting)
    site.call("operation_retry", waiting)
    parked(site, waiting)
    # It looks by itself, now and then, whether it can go on.
    wait_until(lambda: site.call("operation_abandon", waiting), TIMEOUT, "abandoned", retry_on=exception.Conflict)
    assert site.operation(waiting) == "failed"
    waiting = site.call("migrate_volume", volume_id, "node@two")["operation_id"]
    parked(site, waiting)
    site.call("operation_cancel", waiting)
    wait_until(lambda: site.operation(waiting) == "failed", TIMEOUT, "the move is given up")
    site.disconnect(volume_id)
    site.do("migrate_volume", volume_id, "node@two")
    gone = site.folder / "one"
    wait_until(lambda: not [item for item in gone.rglob("*") if volume_id in item.name], TIMEOUT, "the source is gone")
    site.do("update_migrated_volume", volume_id, new_id())
    new = site.volume("one")
    site.do("migrate_volume_completion", volume_id, new)
    assert site.call("get_volume", volume_id)["host"].startswith("node@one")


def parked(site: Site, operation_id: str) -> None:
    wait_until(lambda: site.operation(operation_id) == "parked", TIMEOUT, "what is in use waits to be let go")


def copied_by_hosts(site: Site) -> None:
    """A driver that moves by itself is asked first; before and after a copy through the host its hooks are called."""
    site.do("migrate_volume", site.volume("sim"), "node@one")
    site.do("migrate_volume", site.volume("array"), "node@one")


def managed(site: Site) -> None:
    folder, volume_id, snapshot_id = site.folder / "sim", new_id(), new_id()
    for name in ("base", "base@monday"):
        with (folder / name).open("wb") as file:
            file.truncate(GiB)
    host = "node@sim"
    assert site.call("get_manageable_volumes", host)
    assert site.call("get_manageable_snapshots", host)
    site.do("manage_existing", volume_id, {"source-name": "base"}, host=host)
    site.do("manage_existing_snapshot", snapshot_id, {"source-name": "base@monday"}, volume_id=volume_id)
    site.do("delete_snapshot", snapshot_id, unmanage_only=True)
    site.do("delete_volume", volume_id, unmanage_only=True)
    deleted = site.volume("sim")
    site.do("delete_volume", deleted)
    site.do("undelete_volume", deleted)
    assert site.status(deleted) == "available"


def replicas(site: Site) -> None:
    for backend in ("sim", "polled"):
        volume_id, host = site.volume(backend, volume_type="replicated"), f"node@{backend}"
        replicated(site, volume_id)
        site.do("create_volume", copy := new_id(), source_replica=volume_id)
        site.do("promote_replica", volume_id)
        site.do("reenable_replication", volume_id)
        replicated(site, volume_id)
        assert site.call("freeze_host", host) is True
        assert site.call("thaw_host", host) is True
        site.do("failover_host", host)
        site.do("failover_host", host, "default")
        site.call("service_enable", host)
        site.do("delete_volume", copy, force=True)


def replicated(site: Site, volume_id: str) -> None:
    def active() -> bool:
        return bool(site.call("get_volume", volume_id)["replication_status"] == "active")

    wait_until(active, TIMEOUT, "the replica follows")


def operators(site: Site) -> None:
    host, volume_id = "node@two", site.volume("two")
    site.call("service_disable", host, "the disks are replaced")
    site.call("service_drain", host)
    site.call("service_enable", host)
    site.call("reset_status", "volume", volume_id, "error")
    site.call("reset_status", "volume", volume_id, "available")
    orphan = site.folder / "two" / "volumes" / names.object_name("volume", new_id())
    orphan.write_bytes(b"somebody's")
    assert site.api.call(site.context, "audit", host=host)["findings"]
    (finding,) = site.call("list_findings", filters={"kind": "storage-orphan"})
    assert site.call("get_finding", finding["id"]) == finding
    orphan.unlink()
    assert site.call("get_service", host)["up"]
    assert site.call("get_backend", host)["up"]
    assert len(site.call("list_services")) == len(site.call("list_backends"))
    assert site.api.is_working(site.context, host=host)
    assert site.api.get_capabilities(site.context, True, host=host)["pools"]
    site.api.notification(site.context, "a disk was added", host=host)
    site.call("publish_service_capabilities")
    done = site.call("create_snapshot", volume_id, new_id())["operation_id"]
    assert site.call("wait_operation", done)["state"] == "done"
    assert site.call("get_operation", done)["verb"] == "create_snapshot"
    assert site.call("list_operations", limit=1)


def catalogue(site: Site) -> None:
    type_id, qos_id = new_id(), new_id()
    site.call("type_create", type_id, "bronze")
    site.call("type_update", type_id, description="slow")
    site.call("type_set_specs", type_id, {"media": "disk"})
    site.call("qos_create", qos_id, "calm", specs={"total_iops_sec": "100"})
    site.call("qos_update", qos_id, specs={"total_iops_sec": "200"})
    site.call("qos_associate", qos_id, type_id)
    assert site.call("get_type", type_id)["description"] == "slow"
    assert site.call("get_qos", qos_id) and site.call("list_qos") and site.call("list_types")
    site.call("qos_delete", qos_id, force=True)
    site.call("type_delete", type_id)
    site.call("quota_set", "elsewhere", {"volumes": 10})
    assert site.call("get_quota", "elsewhere") and site.call("list_quotas")
    assert site.call("explain_placement", {"size": 1})["backends"]


def fakes(site: Site) -> None:
    """Everything is said and nothing is done; where there are no bytes to read or write, that is the answer."""
    for backend in ("fake", "iser"):
        volume_id, snapshot_id = site.volume(backend), new_id()
        site.do("create_snapshot", volume_id, snapshot_id)
        copies = [site.volume(backend, snapshot_id=snapshot_id), site.volume(backend, source_volid=volume_id)]
        site.connect(volume_id)
        site.disconnect(volume_id)
        site.call("initialize_connection_snapshot", snapshot_id, CONNECTOR)
        site.call("terminate_connection_snapshot", snapshot_id, CONNECTOR)
        with pytest.raises(exception.VolmgrError):
            site.do("create_backup", new_id(), volume_id)
        for each in copies:
            site.do("delete_volume", each)
        site.do("delete_volume", volume_id, cascade=True, force=True)
        site.connect(site.volume(backend))  # stays until the next start


def storpool(site: Site) -> None:
    """No kernel, no devices: what reads or writes bytes begins, and says what is missing."""
    volume_id, snapshot_id = site.volume("pool"), new_id()
    site.do("create_snapshot", volume_id, snapshot_id)
    copies = [site.volume("pool", snapshot_id=snapshot_id), site.volume("pool", source_volid=volume_id)]
    site.connect(volume_id)
    site.disconnect(volume_id)
    site.do("extend_volume", volume_id, 2)
    site.do("retype", volume_id, "silver")
    for verb, values in (
        ("create_backup", (new_id(), volume_id)),
        ("copy_volume_to_image", (volume_id, {"id": "never", "disk_format": "raw"})),
    ):
        with pytest.raises(exception.VolmgrError):
            site.do(verb, *values)
    site.do("revert_to_snapshot", volume_id, snapshot_id)  # by another object, which can have the first one's name
    site.do("update_migrated_volume", volume_id, new_id())
    for each in copies:
        site.do("delete_volume", each)
    site.do("delete_volume", volume_id, cascade=True)
    site.connect(site.volume("pool"))  # stays until the next start


def storpool_before(site: Site) -> None:
    """What was there before becomes a volume and a snapshot, and is let go again; and groups."""
    volume_id, snapshot_id, host = new_id(), new_id(), "node@pool"
    site.storpool.request_change("VolumeCreate", "", {"name": "legacy", "size": GiB, "template": "hybrid"})
    site.storpool.request_change("VolumeSnapshot", "legacy", {"name": "legacy-monday"})
    assert site.call("get_manageable_volumes", host)
    assert site.call("get_manageable_snapshots", host)
    site.do("manage_existing", volume_id, {"source-name": "legacy"}, host=host)
    site.do("manage_existing_snapshot", snapshot_id, {"source-name": "legacy-monday"}, volume_id=volume_id)
    site.do("delete_snapshot", snapshot_id, unmanage_only=True)
    site.do("delete_volume", volume_id, unmanage_only=True)
    grouped(site, "pool")


def arrays(site: Site) -> None:
    """What is a target by itself: exports and hooks are asked for; the iSCSI one is read over the network."""
    for backend, form in (("array", "iscsi"), ("proxied", "iser"), ("fabric", "fibre_channel")):
        volume_id, attachment = site.volume(backend), new_id()
        clone = site.volume(backend, source_volid=volume_id)
        site.call("attach_volume", volume_id, host_name="compute", mountpoint="/dev/vdb", attachment_id=attachment)
        info = site.connect(volume_id)
        assert info["driver_volume_type"] == form
        site.disconnect(volume_id)
        site.call("detach_volume", volume_id, attachment)
        assert site.call("remove_export", volume_id)["removed"]
        site.do("extend_volume", clone, 2)
        site.do("delete_volume", clone)
        site.connect(volume_id)  # stays until the next start


def again(site: Site) -> None:
    """A start with what is there: volumes that an older volmgr placed without a pool, and exports that must be so."""
    site.sql("UPDATE volumes SET host = substr(host, 1, instr(host, '#') - 1) WHERE host LIKE '%#%'")
    site.client.api.close()
    site.daemon.stop(60)
    site.start()
    site.until_entered(
        "ArrayDriver update_provider_info", "ArrayDriver ensure_export", "StorPoolDriver ensure_export",
        "FakeISCSIDriver ensure_export", "StorPoolDriver get_pool", "FakeISCSIDriver get_pool",
    )


def prepared(site: Site) -> None:
    """What stories share: the types that they name."""
    for name in TYPES:
        site.call("type_create", new_id(), name)
    site.call("type_create", new_id(), "replicated", extra_specs={"replication": "<is> True"})


STORIES: tuple[Story, ...] = (
    prepared, volumes, connections, images, backups, groups, other_owners, moves, copied_by_hosts, managed, replicas,
    operators, catalogue, fakes, storpool, storpool_before, arrays, again,
)

