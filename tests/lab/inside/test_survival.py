# SPDX-License-Identifier: Apache-2.0
"""An attachment that is written and verified all the time, while what serves it dies and comes back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.inside.test_client import PORTALS, Site, host, properties, site, volume
from volmgr.connector import HostConnector
from volmgr.testing.lab import lio
from volmgr.testing.waiting import wait_until
from volmgr.tools.tgtd import Tgtd

__all__ = ["host", "properties", "site", "volume"]
MATRIX_DRIVER = "file"
pytestmark = [pytest.mark.extended, pytest.mark.timeout(900)]

DEATHS = 10
#: One pass: random blocks are written, read back and compared by their checksums, directly. A death is waited out over
#: one or two passes, and a guest needs a quarter of a minute for 4 MiB.
FIO = (
    "fio --name=attached --filename={disk} --rw=randwrite --bs=4k --size=2m --io_size=1m --direct=1 --ioengine=psync "
    "--verify=crc32c --verify_fatal=1 --do_verify=1 --randrepeat=0 --output={log} --eta=never"
)
LOOP = "while [ ! -e {stop} ]; do {fio} || exit 1; echo pass >> {passes}; done"


class Load:
    """fio again and again on a disk; counts its passes."""

    def __init__(self, disk: Path, folder: Path) -> None:
        self._stop, self._passes, self.log = folder / "stop", folder / "passes", folder / "fio.log"
        self._passes.touch()
        fio = FIO.format(disk=disk, log=self.log)
        script = LOOP.format(stop=self._stop, fio=fio, passes=self._passes)
        self._process = subprocess.Popen(["/bin/sh", "-c", script], cwd=folder, start_new_session=True)

    def passes(self) -> int:
        assert self._process.poll() is None, f"fio failed: {self.log.read_text()}"
        return len(self._passes.read_text().splitlines())

    def goes_on(self) -> None:
        """Wait until one more pass has begun and ended from now on."""
        before = self.passes()
        wait_until(lambda: self.passes() > before + 1, 120, "fio goes on")

    def end(self) -> None:
        """Let the pass end; it must not have met an error."""
        self._stop.touch()
        assert self._process.wait(120) == 0, self.log.read_text()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def load(
    site: Site, host: HostConnector, volume: Callable[..., str], properties: dict[str, Any], tmp_path: Path
) -> Iterator[Load]:
    volume_id = volume()
    info = site.api("initialize_connection", volume_id, properties)
    made = Load(Path(host.connect(info)), tmp_path)
    try:
        yield made
    finally:
        made.kill()
        host.disconnect(info)
        site.api("terminate_connection", volume_id, properties)


def test_the_daemon_dies_ten_times(site: Site, load: Load) -> None:
    load.goes_on()
    for _ in range(DEATHS):
        site.daemon.kill()
        load.goes_on()
        site.daemon.start()
    load.goes_on()
    load.end()


def test_the_target_is_lost_while_the_daemon_is_away(site: Site, load: Load) -> None:
    load.goes_on()
    site.daemon.kill()
    if site.target == "lio":
        lio.wipe()
    else:
        Tgtd(str(site.daemon.state / "b" / "target"), PORTALS).stop()
    site.daemon.start()
    load.goes_on()
    load.end()
