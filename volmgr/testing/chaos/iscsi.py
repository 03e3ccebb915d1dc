# SPDX-License-Identifier: Apache-2.0
"""Writes to a volume the way a guest would: over iSCSI, with what initialize_connection answered. Needs qemu-io."""

from __future__ import annotations

import logging
import subprocess
import tempfile
from typing import Any

from volmgr.testing.chaos.story import INITIATOR

LOG = logging.getLogger(__name__)
SECONDS = 30


def write(info: dict[str, Any], offset: int, block: bytes) -> bool:
    """Write a block; returns whether the target acknowledged it.

    :param info: connection_info.
    """
    data = info["data"]
    options = f"driver=iscsi,transport=tcp,portal={data['target_portal']},target={data['target_iqn']}"
    options += f",lun={data['target_lun']},initiator-name={INITIATOR},user={data['auth_username']},password-secret=chap"
    with tempfile.NamedTemporaryFile("w") as secret, tempfile.NamedTemporaryFile() as pattern:
        secret.write(data["auth_password"])
        secret.flush()
        pattern.write(block)
        pattern.flush()
        argv = ["qemu-io", "-t", "writethrough", "--object", f"secret,id=chap,file={secret.name}"]
        command = f"write -s {pattern.name} {offset} {len(block)}"
        done = subprocess.run(
            [*argv, "--image-opts", options, "-c", command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False,
        )
    written = done.returncode == 0 and f"wrote {len(block)}/{len(block)} bytes" in done.stdout
    if not written:
        LOG.warning("qemu-io to %s: %s%s", data["target_iqn"], done.stdout, done.stderr)
    return written
