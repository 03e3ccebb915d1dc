# SPDX-License-Identifier: Apache-2.0
"""The daemon on files with tgt without a single right, as its unit file has it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable

import pytest

from volmgr.testing import privileges
from volmgr.testing.daemon import Daemon, free_port, tgtds

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:b", "ip": "127.0.0.1", "host": "compute"}


def test_a_volume_s_life_without_any_right(make_daemon: Callable[..., Daemon], require: Callable[..., str]) -> None:
    require("tgtd", "tgt")
    require("setpriv", "util-linux")
    if os.geteuid() != 0:
        pytest.skip("does not apply: this user has no rights anyway")
    # The user stays the one whose interpreter this is; what root may do beyond that is taken away.
    backend = {"volume_driver": "file", "target_helper": "tgtadm", "target_ip_address": "127.0.0.1",
               "target_port": free_port()}  # fmt: skip
    daemon = make_daemon(backend=backend, under=privileges.setpriv([privileges.UNIT])).start()
    assert privileges.of_process(daemon.pid) == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0)
    volume_id, snapshot_id = str(uuid.uuid4()), str(uuid.uuid4())
    with daemon.client() as client:
        client.do("create_volume", volume_id, size=1)
        info = client.api.initialize_connection(client.context, volume_id, CONNECTOR)
        assert info["data"]["auth_password"]
        (tgtd,) = tgtds(daemon)
        assert privileges.of_process(tgtd)["CapEff"] == 0
        client.do("create_snapshot", volume_id, snapshot_id, force=True)
        daemon.kill()
        daemon.start()
        assert client.api.initialize_connection(client.context, volume_id, CONNECTOR) == info
        client.api.terminate_connection(client.context, volume_id, CONNECTOR)
        client.do("extend_volume", volume_id, 2)
        client.do("delete_snapshot", snapshot_id)
        client.do("delete_volume", volume_id)
        assert client.api.audit(client.context)["findings"] == []
    assert daemon.stop() == 0
