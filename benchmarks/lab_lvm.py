# SPDX-License-Identifier: Apache-2.0
"""What thin volumes cost through RPC, against the same LVM commands run bare: in one guest of the lab, in turns."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Scale, main, ratios, tell
from benchmarks.processes import Counter

GROUP = "thin volumes through RPC against the bare command (LVM, one guest)"
NAME = "bench"
#: Nothing in the background may run a program meanwhile.
ALONE = {"backend_stats_polling_interval": 86400, "reconcile_interval": 0}
#: what is measured, and how many times as long as its bare command it may take; the last one ends the bare volume.
VERBS = {"create": 1.25, "snapshot": 1.25, "from a cached image": 1.3, "delete": 1.25}
IMAGE, IMAGE_BYTES = "golden", 8 << 20


def command(*words: str) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def group(folder: Path, name: str = NAME, gib: int = 400) -> Iterator[None]:
    """Make a volume group on a sparse file; at the end remove it with all that is in it."""
    image = folder / f"{name}.img"
    image.touch()
    os.truncate(image, gib << 30)
    device = subprocess.check_output(["losetup", "--find", "--show", str(image)], text=True).strip()
    try:
        command("vgcreate", "-y", name, device)
        yield
    finally:
        command("udevadm", "settle")
        command("vgremove", "-f", "-y", name)
        command("losetup", "--detach", device)


def backend(name: str = NAME) -> dict[str, Any]:
    """Return the options of a backend on that group; nothing is wiped while it is measured."""
    return {
        "volume_driver": "lvm", "volume_group": name, "lvm_type": "thin", "target_helper": "lioadm",
        "target_ip_address": "127.0.0.1", "target_port": 3270, "trash_retention": 3600,
        "image_volume_cache_enabled": "true",
    }  # fmt: skip


class _Bare:
    """The commands that the driver runs, by themselves: one program, waited for."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.name = ""

    def create(self) -> None:
        self.name = f"bare-{uuid.uuid4()}"
        where = ("-n", self.name, "-V", f"{1 << 30}b", "--thinpool", f"{NAME}/{self.pool}")
        command("lvcreate", "--yes", "-kn", "--addtag", "a=b", *where)

    def snapshot(self) -> None:
        command("lvcreate", "--yes", "-s", "-kn", "-n", f"snap-{uuid.uuid4()}", f"{NAME}/{self.name}")

    def from_image(self) -> None:
        self.snapshot()

    def delete(self) -> None:
        command("lvrename", NAME, self.name, f"gone-{uuid.uuid4()}")


class _Remote:
    """The same by the daemon, each waited for until its operation has ended."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.origin = self.create()
        self.doomed: list[str] = []
        self.from_image()  # which fills the cache

    def create(self) -> str:
        volume_id = str(uuid.uuid4())
        self.client.do("create_volume", volume_id, size=1)
        return volume_id

    def snapshot(self) -> None:
        self.client.do("create_snapshot", self.origin, str(uuid.uuid4()))

    def from_image(self) -> None:
        self.client.do("create_volume", str(uuid.uuid4()), size=1, image_id=IMAGE)

    def delete(self) -> None:
        self.client.do("delete_volume", self.doomed.pop())


def put_image(state: Path) -> None:
    """Put an image into the daemon's own store."""
    from volmgr.images.base import ImageInfo
    from volmgr.images.directory import DirectoryStore

    store = DirectoryStore("local", str(state / "images" / "store"))
    upload = store.upload(ImageInfo(IMAGE, store.name, "raw", "1", virtual_size=IMAGE_BYTES))
    upload.write(os.urandom(IMAGE_BYTES))
    upload.commit()


def timed(work: Callable[[], object]) -> float:
    """Return how long some work takes, in ms."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def run(scale: Scale) -> list[Figure]:
    """Measure each verb in turns with its bare command, then count what each runs."""
    from volmgr.testing.daemon import Daemon

    times: dict[tuple[str, str], list[float]] = {(who, verb): [] for who in ("bare", "rpc") for verb in VERBS}
    programs: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="volmgr-bench-") as folder, group(Path(folder)):
        counter = Counter(Path(folder))
        daemon = Daemon(Path(folder) / "node", backend=backend(), options=ALONE, environment=counter.environment)
        try:
            daemon.start()
            put_image(daemon.state)
            with daemon.client() as client:
                _measure(scale, counter, client, times, programs)
        finally:
            daemon.stop()
    figures = []
    for verb, most in VERBS.items():
        bare, rpc = times["bare", verb], times["rpc", verb]
        figures += [
            Figure(f"{verb}: the request against the command", ratios(rpc, bare), "x", most, group=GROUP,
                   note=f"medians: {statistics.median(rpc):.0f} ms against {statistics.median(bare):.0f} ms"),
            Figure(f"{verb}: programs run", [len(programs[verb])], "", 1, group=GROUP, note=", ".join(programs[verb])),
        ]  # fmt: skip
    return figures


def _measure(
    scale: Scale,
    counter: Counter,
    client: Any,
    times: dict[tuple[str, str], list[float]],
    programs: dict[str, list[str]],
) -> None:
    pools = ["lvs", "--noheadings", "-o", "lv_name", "--select", "lv_attr=~^t", NAME]
    bare, remote = _Bare(subprocess.check_output(pools, text=True).strip()), _Remote(client)
    bare.create()  # the first of each is not counted
    for number in range(scale.rounds * scale.of(4, 1)):
        tell(f"lab_lvm: round {number + 1}")
        for verb in VERBS:
            if verb == "delete":
                remote.doomed.append(remote.create())
            both = [("bare", bare), ("rpc", remote)]
            for name, who in both if number % 2 else reversed(both):
                times[name, verb].append(timed(_method(who, verb)))
    remote.doomed.append(remote.create())
    for verb in VERBS:
        with counter.counted() as found:
            _method(remote, verb)()
        programs[verb] = found.names


def _method(who: Any, verb: str) -> Callable[[], object]:
    found: Callable[[], object] = getattr(who, "from_image" if "image" in verb else verb)
    return found


if __name__ == "__main__":
    main(run)
