# SPDX-License-Identifier: Apache-2.0
"""Runs a program that sees its own ``/etc/storpool.conf`` and its own ``/dev``, and this machine nothing of them.

os-brick's StorPool connector knows these two places only. A mount namespace gives a test both; it needs root. It knows
no server.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TIMEOUT = 30.0
_NODES = ("null", "zero", "full", "random", "urandom", "tty", "loop-control")
_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}


def command(folder: Path, argv: Sequence[str]) -> list[str]:
    """Return the command that runs ``argv`` in a mount namespace of its own.

    :param folder: an empty folder, under which the private files are.
    """
    inside = [sys.executable, "-m", "volmgr.testing.storpool.namespace", str(folder)]
    return ["unshare", "--mount", "--propagation", "private", "--", *inside, *argv]


def missing() -> str | None:
    """Return why this cannot be done here, None if it can."""
    if os.geteuid() != 0:
        return "mount namespaces and loop devices need root"
    for program in ("unshare", "losetup", "mount"):
        if shutil.which(program) is None:
            return f"{program} is missing: install util-linux"
    return None if os.path.exists("/dev/loop-control") else "this kernel has no loop devices"


def enter(folder: Path) -> None:
    """Make ``/etc`` and ``/dev`` this namespace's own."""
    _mount("-t", "tmpfs", "tmpfs", str(folder))
    etc, old = folder / "etc", folder / "dev"
    shutil.copytree("/etc", etc, symlinks=True)
    _mount("--bind", str(etc), "/etc")
    old.mkdir()
    _mount("--rbind", "/dev", str(old))
    _mount("-t", "tmpfs", "tmpfs", "/dev")
    for name in (*_NODES, *(node.name for node in old.glob("loop[0-9]*"))):
        if (found := old / name).exists():
            os.mknod(f"/dev/{name}", found.stat().st_mode, found.stat().st_rdev)
    for name, target in _LINKS.items():
        os.symlink(target, f"/dev/{name}")
    Path("/dev/shm").mkdir(mode=0o1777)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, timeout=TIMEOUT)


if __name__ == "__main__":
    enter(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
