# SPDX-License-Identifier: Apache-2.0
"""Tells systemd how the daemon is: sd_notify(3) in a few lines, with the watchdog that oslo.service does not feed."""

from __future__ import annotations

import os
import socket
import time


def notify(**states: str | int) -> bool:
    """Send states such as ``READY=1``, ``STATUS=…``, ``WATCHDOG=1``; returns whether systemd listens.

    Nobody listens any more where the process above several workers has died: they drain all the same.

    :raises OSError: the socket that systemd named cannot be reached.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    name = "\0" + address[1:] if address.startswith("@") else address
    text = "\n".join(f"{key}={value}" for key, value in states.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(text.encode(), name)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


def reloading() -> dict[str, int]:
    """Return the states by which a process says that it reads its configuration again; READY=1 ends that."""
    return {"RELOADING": 1, "MONOTONIC_USEC": time.monotonic_ns() // 1000}


def watchdog_interval() -> float | None:
    """Return how often to feed the watchdog, in seconds (half its time), or None without one."""
    timeout = watchdog_timeout()
    return timeout / 2 if timeout is not None else None


def watchdog_timeout() -> float | None:
    """Return after how many seconds without food the watchdog bites, or None without one."""
    usec = os.environ.get("WATCHDOG_USEC")
    mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(usec) / 1e6 if usec and mine else None
