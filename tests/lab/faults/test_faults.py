# SPDX-License-Identifier: Apache-2.0
"""Ways in which a guest can end badly; the harness's tests choose one of them by name."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def test_panic() -> None:
    Path("/proc/sys/kernel/panic").write_text("1", encoding="ascii")
    Path("/proc/sysrq-trigger").write_text("c", encoding="ascii")


def test_hang() -> None:
    # Past pytest's capture, which a killed guest would never show.
    Path("/dev/tty1").write_text("the test has begun\n", encoding="ascii")
    signal.pause()


def test_vanish() -> None:
    Path("/proc/sysrq-trigger").write_text("o", encoding="ascii")
    signal.pause()


def test_fail() -> None:
    raise AssertionError(f"as asked, in guest {os.environ['VOLMGR_LAB_GUEST']}")
