# SPDX-License-Identifier: Apache-2.0
"""multipathd inside a guest: every disk of an iSCSI target becomes a path of a map.

It knows nothing of who serves the disks.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from volmgr.testing.lab.commands import run, wait_until
from volmgr.testing.lab.errors import CommandFailed

CONFIGURATION = """defaults {
    find_multipaths no
    user_friendly_names no
    no_path_retry fail
    polling_interval 2
}
blacklist {
    devnode "^(ubd|loop|ram|dm-)"
}
"""


@contextlib.contextmanager
def multipathd() -> Iterator[None]:
    """Run multipathd; at the end no map is left."""
    Path("/etc/multipath.conf").write_text(CONFIGURATION, encoding="ascii")
    Path("/etc/multipath").mkdir(exist_ok=True)
    with subprocess.Popen(["multipathd", "-d", "-s", "-v1"], stdin=subprocess.DEVNULL) as daemon:
        try:
            wait_until(_answers, "multipathd answers")
            yield
        finally:
            run("multipath", "-F")
            daemon.terminate()


def _answers() -> bool:
    try:
        return bool(run("multipathd", "show", "status"))
    except CommandFailed:
        return False
