# SPDX-License-Identifier: Apache-2.0
"""What an export on LIO costs through RPC, against the same configfs calls made bare; and whether it grows with others.

In one guest of the lab, in turns, on files. ``bare`` is this process doing with configfs what the target does, in the
same order and with nothing else.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import uuid
import zlib
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Scale, main, ratios, tell
from benchmarks.lab_lvm import ALONE, timed
from benchmarks.processes import Counter

GROUP = "attach and detach on LIO (files, one guest)"
ROOT = Path("/sys/kernel/config/target")
PORTAL = "127.0.0.1:3270"
EDGE = 10


def connector() -> dict[str, Any]:
    """Return a connector of an initiator that nobody knows yet."""
    return {"initiator": f"iqn.1993-08.org.debian:01:{uuid.uuid4().hex[:12]}", "ip": "127.0.0.1", "host": "compute"}


class Bare:
    """The calls of one export: made and taken away."""

    def __init__(self, file: Path) -> None:
        self.name = f"iqn.2010-10.org.volmgr:bare-{uuid.uuid4()}"
        self.file = file
        # An adapter for each export, as the target has it, with a number that it does not use.
        self.hba = ROOT / "core" / f"fileio_{zlib.crc32(self.name.encode()) & 0x3FFFFFFF}"
        self.group = ROOT / "iscsi" / self.name / "tpgt_1"
        self.acl = self.group / "acls" / "iqn.1993-08.org.debian:01:bare"

    @staticmethod
    def write(path: Path, value: str) -> None:
        descriptor = os.open(path, os.O_WRONLY)
        os.write(descriptor, value.encode())
        os.close(descriptor)

    def attach(self) -> None:
        store = self.hba / self.name
        self.hba.mkdir()
        store.mkdir()
        self.write(store / "udev_path", str(self.file))
        size = self.file.stat().st_size
        self.write(store / "control", f"fd_dev_name={self.file},fd_dev_size={size},fd_buffered_io=1")
        self.write(store / "enable", "1")
        self.write(store / "wwn/vpd_unit_serial", uuid.uuid4().hex)
        self.write(store / "attrib/emulate_tpu", "1")
        self.group.parent.mkdir()
        self.group.mkdir()
        for key, value in (("generate_node_acls", 0), ("demo_mode_discovery", 0), ("prod_mode_write_protect", 1)):
            self.write(self.group / "attrib" / key, str(value))
        (self.group / "lun/lun_1").mkdir()
        (self.group / "lun/lun_1/device").symlink_to(store)
        self.write(self.group / "attrib/authentication", "1")
        self.acl.mkdir()
        (self.acl / "lun_1").mkdir()
        (self.acl / "lun_1/mapped").symlink_to(self.group / "lun/lun_1")
        self.write(self.acl / "lun_1/write_protect", "0")
        self.write(self.acl / "auth/userid", "user")
        self.write(self.acl / "auth/password", "a-bare-password")
        self.write(self.group / "enable", "1")
        (self.group / "np" / PORTAL).mkdir()

    def revoke(self) -> None:
        self.write(self.acl / "auth/userid", "NULL")
        (self.acl / "lun_1/mapped").unlink()
        (self.acl / "lun_1").rmdir()
        self.acl.rmdir()

    def remove(self) -> None:
        self.write(self.group / "enable", "0")
        (self.group / "np" / PORTAL).rmdir()
        (self.group / "lun/lun_1/device").unlink()
        for folder in (self.group / "lun/lun_1", self.group, self.group.parent, self.hba / self.name, self.hba):
            folder.rmdir()


class _Remote:
    """Attaching and detaching by the daemon."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.used: list[tuple[str, dict[str, Any]]] = []

    def volume(self) -> str:
        volume_id = str(uuid.uuid4())
        self.client.do("create_volume", volume_id, size=1)
        return volume_id

    def attach(self, volume_id: str) -> None:
        who = connector()
        self.client.api.initialize_connection(self.client.context, volume_id, who)
        self.used.append((volume_id, who))

    def detach(self) -> None:
        self.client.api.terminate_connection(self.client.context, *self.used.pop())


def run(scale: Scale) -> list[Figure]:
    """Measure pairs in turns; then make many exports."""
    from volmgr.testing.daemon import Daemon

    # The files are sparse and nobody writes them: the guest's memory, in which they are, is promised many times.
    backend = {"volume_driver": "file", "target_helper": "lioadm", "target_ip_address": "127.0.0.1",
               "target_port": 3270, "max_over_subscription_ratio": 10000}  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="volmgr-bench-") as folder:
        counter = Counter(Path(folder))
        daemon = Daemon(Path(folder) / "node", backend=backend, options=ALONE, environment=counter.environment)
        try:
            daemon.start()
            with daemon.client() as client:
                remote = [*_pairs(scale, counter, client, Path(folder)), *_growth(scale, client)]
                return remote + _target(scale, Path(folder))
        finally:
            daemon.stop()


def _pairs(scale: Scale, counter: Counter, client: Any, folder: Path) -> list[Figure]:
    file = folder / "bare"
    file.write_bytes(b"")
    os.truncate(file, 1 << 30)
    remote, bare_times, rpc_times = _Remote(client), [], []
    for number in range(scale.rounds):
        tell(f"lab_lio: round {number + 1}")
        one, other = [], []
        for _ in range(scale.of(20, 3)):
            bare, volume_id = Bare(file), remote.volume()
            one.append(timed(bare.attach) + timed(bare.revoke))
            bare.remove()
            other.append(timed(lambda volume_id=volume_id: remote.attach(volume_id)) + timed(remote.detach))
        bare_times.append(statistics.median(one))
        rpc_times.append(statistics.median(other))
    volume_id = remote.volume()
    with counter.counted() as found:
        remote.attach(volume_id)
        remote.detach()
    note = f"medians: {statistics.median(rpc_times):.1f} ms against {statistics.median(bare_times):.1f} ms"
    return [
        Figure("attach and detach through RPC against bare", ratios(rpc_times, bare_times), "x", group=GROUP,
               note=note),
        Figure("attach and detach: programs run", [len(found.names)], "", 0, group=GROUP, note=", ".join(found.names)),
    ]  # fmt: skip


def _growth(scale: Scale, client: Any) -> list[Figure]:
    count = scale.of(500, 40)
    remote = _Remote(client)
    ids = [remote.volume() for _ in range(count)]
    tell(f"lab_lio: {count} exports")
    times = [timed(lambda volume_id=volume_id: remote.attach(volume_id)) for volume_id in ids]
    first, last = statistics.median(times[:EDGE]), statistics.median(times[-EDGE:])
    note = f"medians: {last:.1f} ms against {first:.1f} ms"
    name = f"exports {count - EDGE + 1} to {count} against 1 to {EDGE}"
    return [Figure(name, [last / first], "x", 1.2, group=GROUP, note=note)]


def _target(scale: Scale, folder: Path) -> list[Figure]:
    """The target alone, without the daemon, its database and its transport."""
    from volmgr import names
    from volmgr.targets.base import TargetConfig
    from volmgr.targets.lio import LioTarget
    from volmgr.types import Chap, ExportSpec, Grant, Portal, Secret

    prefix = "iqn.2010-10.org.volmgr:"
    target = LioTarget(TargetConfig(prefix, (Portal("127.0.0.1", 3270),), str(folder)))
    target.start()
    own, bare_times = [], []
    for _ in range(scale.rounds):
        for _ in range(scale.of(20, 3)):
            resource = str(uuid.uuid4())
            spec = ExportSpec(
                "volume", resource, names.target_name(prefix, "volume", resource), path=str(folder / "bare"),
                serial=names.new_serial(), lun=1, auth=Chap("user", Secret("a-bare-password")),
                grants=(Grant("1", initiator="iqn.1993-08.org.debian:01:x"),),
            )  # fmt: skip
            revoked = ExportSpec(**{**spec.__dict__, "grants": ()})
            bare = Bare(folder / "bare")
            bare_times.append(timed(bare.attach) + timed(bare.revoke))
            own.append(timed(lambda spec=spec: target.sync(spec)) + timed(lambda spec=revoked: target.sync(spec)))
            bare.remove()
            target.sync(ExportSpec(**{**spec.__dict__, "wanted": False}))
    ratio = statistics.median(own) / statistics.median(bare_times)
    note = f"medians: {statistics.median(own):.1f} ms against {statistics.median(bare_times):.1f} ms"
    return [Figure("attach and detach by the target against bare", [ratio], "x", 3, group=GROUP, note=note)]


if __name__ == "__main__":
    main(run)
