# SPDX-License-Identifier: Apache-2.0
"""Whether an address and port can be listened on, and who does already.

tgtd goes on without a word when its portal is taken, and listens on 0.0.0.0:3260 instead; so this is asked beforehand.
It knows nothing of tgtd or volumes. Sources: proc(5), ``/proc/net/tcp``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

from volmgr import exception
from volmgr.types import Portal

_LISTEN = "0A"


def check(portal: Portal) -> None:
    """Return if we could listen there now.

    :raises BackendDown: the port is taken; the message names the process that has it, where /proc tells.
    :raises InvalidConfiguration: the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in portal.ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((portal.ip, portal.port))
            sock.listen(1)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise taken(portal) from error
        raise exception.InvalidConfiguration(
            f"Cannot listen on {portal}: {error}",
            hint="Set target_ip_address and target_port to an address of this machine and a free port",
            field="target_ip_address",
        ) from error


def taken(portal: Portal) -> exception.BackendDown:
    """Return the error that says who has the port."""
    holder = _holder(portal.port)
    return exception.BackendDown(
        f"{portal} is taken by {holder}",
        hint="End that process, or set target_port or target_ip_address to another one",
        portal=str(portal),
        holder=holder,
    )


def _holder(port: int) -> str:
    inodes = _listening_inodes(port)
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        # Processes end, and those of other users keep their descriptors to themselves: then we cannot say who it is.
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    link = os.readlink(descriptor)
                    if link.startswith("socket:[") and link[8:-1] in inodes:
                        return f"process {process.name} ({(process / 'comm').read_text().strip()})"
    return "a process that cannot be seen from here"


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        # The IPv6 table is missing on a kernel without IPv6.
        with contextlib.suppress(FileNotFoundError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    return inodes
