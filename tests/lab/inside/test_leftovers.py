# SPDX-License-Identifier: Apache-2.0
"""What a failed test leaves is found and swept away, so that it does not fail the next module too."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

from volmgr.testing.lab import initiator, leftovers, lio
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.errors import LabError
from volmgr.testing.lab.hanging import HangingDevice, hanging_device
from volmgr.testing.lab.initiator import logged_in
from volmgr.testing.lab.lio import Chap, exported
from volmgr.testing.lab.loopgroup import loop_group
from volmgr.types import MiB


def test_a_session_on_storage_that_hangs_is_swept_with_all_that_is_below_it(tmp_path: Path) -> None:
    forgotten = contextlib.ExitStack()  # closed only when all is gone, as by a test that ended half-way
    device: HangingDevice = forgotten.enter_context(hanging_device(tmp_path, "forgotten", 16 * MiB))
    chap, iqn = Chap("lab", "a-forgotten-password"), f"iqn.2010-10.org.volmgr:{uuid.uuid4()}"
    export = forgotten.enter_context(exported(device.node, iqn, initiator.initiator_name(), chap, uuid.uuid4().hex))
    forgotten.enter_context(logged_in(export, chap))
    forgotten.enter_context(loop_group(tmp_path, "forgottengroup", size_mib=128, pool_mib=32))
    forgotten.enter_context(device.suspended(guard_seconds=3600))
    assert {"forgotten", "forgottengroup-pool"} <= set(leftovers.mapped())
    assert any(iqn in line for line in initiator.sessions())
    assert any(iqn in path for path in lio.leftovers())
    leftovers.sweep()
    assert leftovers.found() == []
    assert run("dmsetup", "ls").strip() == "No devices found"
    assert not [entry for entry in os.listdir("/sys/block") if entry.startswith("sd")]
    # Its own undoing finds nothing any more.
    with contextlib.suppress(LabError, OSError):
        forgotten.close()
