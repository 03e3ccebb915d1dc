# SPDX-License-Identifier: Apache-2.0
"""Random kills of a daemon on Fibre Channel and on iSER, under a host that writes by its disks: no byte is lost.

Few, as each life of a daemon takes long in an emulated machine, and not in the usual run. Those over Ethernet (AoE) are
in ``tests/chaos``, as they need no kernel but the usual one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fabric.inside.transports import ADDRESS, INITIATOR, FibreChannel, Iser, text, wwpn
from volmgr.testing.chaos import lvm_lio
from volmgr.testing.chaos.lio_fabrics import Host, PortsOutside
from volmgr.testing.chaos.outside import Outside
from volmgr.testing.chaos.raids import Raiders
from volmgr.testing.chaos.stage import Stage
from volmgr.testing.daemon import Daemon

KILLS = int(os.environ.get("VOLMGR_CHAOS_KILLS", "3"))
SEED = int(os.environ.get("VOLMGR_CHAOS_SEED", "1"))
#: How many kill points are passed at most before one strikes.
POINTS = 15
PORT = 3270


def staged(
    folder: Path, connector: dict[str, Any], backend: dict[str, Any], outside: Callable[..., Outside]
) -> Iterator[Stage]:
    """Yield a stage with a host on it; at the end nothing is exported any more."""
    # The files are sparse and hardly written: the machine's memory, in which they are, is promised many times.
    storage = {"volume_driver": "file", "max_over_subscription_ratio": 1000}
    made = Stage(folder / "stage", backend={**storage, **backend}, outside=outside)
    made.connector = {"ip": ADDRESS, "host": "host", **connector}
    made.write = Host(folder / "locks").write
    try:
        yield made.start()
        with made.daemon.client() as client:
            for volume in client.api.list_volumes(client.context):
                client.do("delete_volume", volume["id"], cascade=True, force=True)
        made.outside.wait_idle()
        assert made.outside.targets() == []
    finally:
        made.close()


@pytest.fixture
def by_fibre_channel(fibre_channel: FibreChannel, tmp_path: Path) -> Iterator[Stage]:
    """A daemon at the port to which this machine's initiators are logged in."""
    ports, host = fibre_channel.target.ports, wwpn("fc1")
    backend = {
        "target_protocol": "fc", "target_helper": "fcadm", "fc_target_wwpns": ",".join(ports),
        "fc_initiator_wwpns": host,
    }  # fmt: skip

    def outside(daemon: Daemon, url: str | None = None) -> PortsOutside:
        return PortsOutside(daemon, ports=ports, url=url)

    yield from staged(tmp_path, {"wwpns": [host], "wwnns": [host]}, backend, outside)


@pytest.fixture
def by_iser(iser: Iser, tmp_path: Path) -> Iterator[Stage]:
    """A daemon at the address of the RDMA device."""
    assert text(Path("/sys/class/infiniband/rxe0/node_type"))
    backend = {"target_protocol": "iser", "iser_ip_address": ADDRESS, "iser_port": PORT}

    def outside(daemon: Daemon, url: str | None = None) -> Outside:
        return Outside(daemon, targets=lvm_lio.exports, url=url)

    yield from staged(tmp_path, {"initiator": INITIATOR}, backend, outside)


@pytest.mark.extended
@pytest.mark.timeout(600 + 300 * KILLS)
@pytest.mark.parametrize("transport", ["fibre_channel", "iser"])
def test_random_kills(request: pytest.FixtureRequest, transport: str) -> None:
    stage: Stage = request.getfixturevalue(f"by_{transport}")
    raiders = Raiders(stage, SEED, by_target=True, tenants=1, vandals=1, points=POINTS, tell=print)
    # The first death comes while a volume is connected that its host has written to.
    (tenant,) = raiders.tenants
    tenant.create()
    (volume,) = tenant.volumes.values()
    tenant.connect(volume)
    while not tenant.acknowledged:
        tenant.write(volume)
    raid = raiders.run(KILLS)
    assert raid.violations == []
    assert len(raid.kills) == KILLS
