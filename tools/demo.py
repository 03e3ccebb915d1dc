#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The demonstration: a daemon, a volume, an attachment and a crash, each step with its time and its proof.

It does what a compute service would do, with the real daemon on its embedded defaults (files served by tgt) and a real
iSCSI initiator. It ends with an error if any proof fails, and leaves neither process nor file behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import demo_lib as lib

from volmgr import concurrency, context, exception, types

PICTURE_BYTES = 64 * lib.MIB
PROGRAMS = {
    "tgtd": "tgt",
    "qemu-img": "qemu-utils",
    "iscsi-ls": "libiscsi-bin",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
}
ISCSI_PLUGIN = "qemu-block-extra"
CLONES_AT_CRASH = 3
INSTANCE = str(uuid.uuid4())


@dataclass
class Demo:
    """What the steps share.

    :ivar disk: the connection of the volume, while it is attached.
    """

    folder: Path
    daemon: lib.Daemon
    api: Any = None
    volume: str = field(default_factory=lambda: str(uuid.uuid4()))
    snapshot: str = field(default_factory=lambda: str(uuid.uuid4()))
    clones: list[str] = field(default_factory=list)
    attachments: dict[str, str] = field(default_factory=dict)
    disk: lib.Disk | None = None
    old: str = ""
    new: str = ""

    # --- requests ---------------------------------------------------------------------------------------------------

    def ask(self, verb: str, **arguments: Any) -> Any:
        """Send one request."""
        return getattr(self.api, verb)(context.admin(), **arguments)

    def do(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Send a changing request and wait for its end; returns the operation."""
        answer = self.ask(verb, **arguments)
        done: dict[str, Any] = self.ask("wait_operation", operation_id=answer["operation_id"], timeout=lib.DEADLINE)
        return done

    def connector(self) -> dict[str, Any]:
        """Return what the host of the instance says of itself."""
        return {"host": "demo", "ip": "127.0.0.1", "initiator": lib.INITIATOR, "multipath": False}

    def attach(self, volume_id: str) -> lib.Disk:
        """Reserve, connect, complete: the three calls of a compute service."""
        attachment_id = str(uuid.uuid4())
        self.ask("attachment_create", attachment_id=attachment_id, volume_id=volume_id, instance_uuid=INSTANCE)
        info = self.ask(
            "attachment_update", volume_id=volume_id, connector=self.connector(), attachment_id=attachment_id
        )
        self.attachments[volume_id] = attachment_id
        self.ask("attachment_complete", attachment_id=attachment_id)
        return lib.Disk(info)

    def detach(self, volume_id: str) -> None:
        """End an attachment; a volume without one stays as it is."""
        if (attachment_id := self.attachments.pop(volume_id, None)) is not None:
            self.ask("attachment_delete", volume_id=volume_id, attachment_id=attachment_id)

    def attached(self) -> lib.Disk:
        """Return the volume's connection, attaching it if it is not attached."""
        if self.volume not in self.attachments:
            self.disk = self.attach(self.volume)
        assert self.disk is not None
        return self.disk

    def status(self, volume_id: str) -> str:
        return str(self.ask("get_volume", volume_id=volume_id)["status"])

    # --- pictures ---------------------------------------------------------------------------------------------------

    def picture(self, name: str) -> Path:
        return self.folder / f"{name}.ext4"

    def holds(self, disk: lib.Disk, name: str, wanted: str) -> Path:
        """Prove that a disk begins with the bytes of a picture; returns what was read."""
        read = self.picture(f"read-{name}")
        lib.prove(disk.read(read, PICTURE_BYTES) == wanted, f"{name} has other bytes than it should have")
        return read


# --- the steps: each returns what its line says ---------------------------------------------------------------------


def start(demo: Demo) -> str:
    demo.daemon.start()
    os.environ.update(demo.daemon.settings())
    from volmgr.rpc.client import VolumeAPI

    demo.api = VolumeAPI()
    wait_for_daemon(demo)
    return f"volmgr-volume {_pid(demo)} serves files through tgt on port {demo.daemon.port}, state in {demo.folder}"


def _pid(demo: Demo) -> int:
    assert demo.daemon.process is not None
    return demo.daemon.process.pid


def wait_for_daemon(demo: Demo) -> None:
    """Wait until the daemon answers and its backend is up."""

    def up() -> bool:
        if demo.daemon.died():
            raise lib.DemoFailed("the daemon ended")
        try:
            return any(item["state"] == "up" for item in demo.ask("list_services"))
        except exception.BackendDown:
            return False

    lib.wait_until(up, "the daemon answers")


def create(demo: Demo) -> str:
    demo.do("create_volume", volume_id=demo.volume, size=1, name="demo")
    lib.prove(demo.status(demo.volume) == "available", "the new volume is not available")
    lib.prove(lib.storage_files(demo.folder) == [f"volume-{demo.volume}"], "the volume has not one file")
    lib.prove(lib.rows(demo.folder)["volumes"] == 1, "the volume has not one row")
    return f"volume {demo.volume}, 1 GiB, is available"


def attach(demo: Demo) -> str:
    disk = demo.attached()
    lib.prove(demo.status(demo.volume) == "in-use", "the attached volume is not in use")
    lib.prove(disk.answers(), "the initiator cannot log in")
    lib.prove(len(lib.listed_targets(demo.daemon.port)) == 1, "discovery does not show one target")
    lib.prove(disk.refuses("not-the-password"), "the target takes a wrong password")
    return "attached by iSCSI; the right CHAP password logs in, a wrong one is refused"


def write(demo: Demo) -> str:
    tree = lib.sources(demo.folder / "tree")
    for name, source in (("old", tree), ("new", tree / "doc")):
        lib.file_system(demo.picture(name), source, f"volmgr-{name}", PICTURE_BYTES)
    demo.old, demo.new = lib.checksum(demo.picture("old")), lib.checksum(demo.picture("new"))
    disk = demo.attached()
    disk.write(demo.picture("old"))
    demo.holds(disk, "volume", demo.old)
    return f"an ext4 file system with this source tree is written and read back, sha256 {demo.old[:12]}"


def snapshot(demo: Demo) -> str:
    try:
        demo.do("create_snapshot", volume_id=demo.volume, snapshot_id=demo.snapshot, name="before")
        return "snapshot of the attached volume (the file system shares blocks)"
    except exception.Unsupported:
        # Without shared blocks a copy of a volume in use would not be of one moment, so it is refused.
        demo.do("delete_snapshot", snapshot_id=demo.snapshot)
    demo.detach(demo.volume)
    demo.snapshot = str(uuid.uuid4())
    demo.do("create_snapshot", volume_id=demo.volume, snapshot_id=demo.snapshot, name="before")
    return "snapshot; this file system cannot share blocks, so the connection was ended for it (refused otherwise)"


def overwrite(demo: Demo) -> str:
    disk = demo.attached()
    disk.write(demo.picture("new"))
    demo.holds(disk, "volume", demo.new)
    return f"the volume is overwritten with another file system, sha256 {demo.new[:12]}"


def clone(demo: Demo) -> str:
    demo.clones.append(str(uuid.uuid4()))
    demo.do("create_volume", volume_id=demo.clones[-1], snapshot_id=demo.snapshot, name="clone")
    connection = demo.ask(
        "initialize_connection_snapshot", snapshot_id=demo.snapshot, connector=demo.connector()
    )
    demo.holds(lib.Disk(connection), "snapshot", demo.old)
    demo.ask("terminate_connection_snapshot", snapshot_id=demo.snapshot, connector=demo.connector())
    read = demo.holds(demo.attach(demo.clones[-1]), "clone", demo.old)
    demo.detach(demo.clones[-1])
    demo.holds(demo.attached(), "volume", demo.new)
    lib.prove(lib.is_clean(read), "e2fsck finds errors in the clone")
    with (demo.folder / "tree/tools/demo.py").open(encoding="utf-8") as file:
        lib.prove(lib.content(read, "/tools/demo.py") == file.read(), "a file in the clone is not what it was")
    return "clone and snapshot hold the old bytes, the volume the new ones; e2fsck finds the clone clean"


def revert(demo: Demo) -> str:
    demo.detach(demo.volume)
    demo.do("revert_to_snapshot", volume_id=demo.volume, snapshot_id=demo.snapshot)
    demo.holds(demo.attached(), "volume", demo.old)
    return "the volume is back at its snapshot, byte for byte"


def extend(demo: Demo) -> str:
    said = "attached"
    try:
        demo.do("extend_volume", volume_id=demo.volume, new_size=2)
    except exception.Unsupported:
        # tgt cannot show a new size to a connected initiator.
        demo.detach(demo.volume)
        demo.do("extend_volume", volume_id=demo.volume, new_size=2)
        said = "detached for it, as tgt cannot show a new size to who is connected"
    disk = demo.attached()
    lib.prove(disk.size() == 2 * types.GiB, "the initiator does not see the new size")
    demo.holds(disk, "volume", demo.old)
    return f"extended to 2 GiB ({said}); the initiator sees the size, the bytes are the same"


def crash(demo: Demo) -> str:
    """Kill the daemon the moment it has admitted work, and find all of it done after a restart."""
    made = [str(uuid.uuid4()) for _ in range(CLONES_AT_CRASH)]
    answers = [demo.ask("create_volume", volume_id=item, snapshot_id=demo.snapshot, name="crash") for item in made]
    pid = demo.daemon.kill()
    demo.clones += made
    demo.daemon.start()
    wait_for_daemon(demo)
    ended = [demo.ask("wait_operation", operation_id=item["operation_id"], timeout=lib.DEADLINE) for item in answers]
    lib.prove(all(item["state"] == "done" for item in ended), "an admitted operation was lost")
    for volume_id in made:
        demo.holds(demo.attach(volume_id), "clone after the crash", demo.old)
        demo.detach(volume_id)
    disk = demo.attached()
    lib.wait_until(disk.answers, "the attached volume is served again")
    demo.holds(disk, "volume", demo.old)
    running = sum(item["deaths"] > 0 for item in ended)
    return (
        f"SIGKILL to {pid} with {len(made)} clones admitted ({running} of them running); after the restart all are "
        "there with the right bytes, and the old connection works with the same password"
    )


def detach(demo: Demo) -> str:
    assert demo.disk is not None
    disk = demo.disk
    demo.detach(demo.volume)
    lib.prove(not disk.answers(), "the detached volume can still be reached")
    lib.prove(demo.status(demo.volume) == "available", "the detached volume is not available")
    return "detached; the old password opens nothing any more"


def delete(demo: Demo) -> str:
    try:
        demo.do("delete_volume", volume_id=demo.volume)
    except exception.VolumeHasSnapshots as error:
        refusal = error.message
    else:
        raise lib.DemoFailed("a volume with a snapshot was deleted")
    for volume_id in demo.clones:
        demo.do("delete_volume", volume_id=volume_id)
    demo.do("delete_volume", volume_id=demo.volume, cascade=True)
    demo.do("delete_volume", volume_id=demo.volume)
    return f"without --cascade: {refusal!r}; with it all is deleted, and once more is success"


def nothing_left(demo: Demo) -> str:
    for noun in ("volumes", "snapshots", "attachments"):
        lib.prove(demo.ask(f"list_{noun}") == [], f"there are {noun} left")
    seen = lib.run(sys.executable, "-m", "volmgr.cli.app", "volume", "list", "-f", "json")
    lib.prove(json.loads(seen.stdout) == [], "volmgr volume list shows volumes")
    lib.wait_until(lambda: not lib.storage_files(demo.folder), "the trash is wiped")
    lib.wait_until(lambda: not any(lib.rows(demo.folder).values()), "the tables are empty")
    lib.prove(lib.listed_targets(demo.daemon.port) == [], "targets are left")
    return "no volume by RPC or CLI, no file, no target, no row"


def stop(demo: Demo) -> str:
    status = demo.daemon.stop()
    lib.prove(status == 0, f"volmgr-volume ended with {status}")
    served = len(demo.daemon.processes())
    demo.daemon.end_target()
    lib.wait_until(lambda: not demo.daemon.processes(), "every process ends")
    return f"SIGTERM: drained, exit status 0; tgtd ({served}) outlives it for its initiators and is ended too"


STEPS = (
    start, create, attach, write, snapshot, overwrite, clone, revert, extend, crash, detach, delete, nothing_left, stop,
)


# --- telling it -----------------------------------------------------------------------------------------------------


def missing() -> list[str]:
    """Return the Debian packages that the demonstration lacks."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    os.environ["PATH"] = path
    found = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if not any(Path("/usr/lib").glob("*/qemu/block-iscsi.so")):
        found.add(ISCSI_PLUGIN)
    return sorted(found)


@contextlib.contextmanager
def cleaning(demo: Demo) -> Iterator[None]:
    """Leave no process behind, whatever happens."""
    try:
        yield
    finally:
        with lib.undisturbed():
            if demo.api is not None:
                demo.api.close()
            if left := demo.daemon.sweep():
                print(f"killed at the end: {', '.join(map(str, left))}", file=sys.stderr)


def tell(demo: Demo) -> None:
    """Run every step and print its line."""
    for step in STEPS:
        begun = time.monotonic()
        said = step(demo)
        print(f"{time.monotonic() - begun:6.2f} s  {step.__name__.replace('_', ' '):<12}  {said}", flush=True)


def main() -> int:
    """Run the demonstration.

    :returns: 0 if every proof held, 1 if one failed, 2 if it cannot run here.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep the folder with the state and the log")
    parser.add_argument(
        "--state-path",
        type=Path,
        metavar="FOLDER",
        default=os.environ.get("VOLMGR_STATE_PATH", os.environ.get("TMPDIR", "/var/tmp")),
        help="where to make the demonstration's own state folder (default: VOLMGR_STATE_PATH, TMPDIR or /var/tmp); "
        "one on XFS or btrfs shows snapshots of an attached volume",
    )
    parsed = parser.parse_args()
    if lacking := missing():
        print(f"demo: missing; run: apt-get install {' '.join(lacking)}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("demo: run it as root, tgtd needs it", file=sys.stderr)
        return 2
    concurrency.setup("threading")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
    begun = time.monotonic()
    with lib.workshop(Path(parsed.state_path), parsed.keep) as folder:
        demo = Demo(folder, lib.Daemon(folder))
        with cleaning(demo):
            try:
                tell(demo)
            except (lib.DemoFailed, exception.VolmgrError, OSError) as error:
                print(f"demo: FAILED: {error}\n--- the daemon's log ends:\n{demo.daemon.tail()}", file=sys.stderr)
                return 1
    print(f"{time.monotonic() - begun:6.2f} s  every proof held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
