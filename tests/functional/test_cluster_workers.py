# SPDX-License-Identifier: Apache-2.0
"""Two workers of one cluster as they are in daemons, here in one process: any of them serves the cluster's name.

What a kill and a stop do is tested with daemons; the transport is oslo.messaging's own one in memory.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import conf as config
from volmgr import exception, local
from volmgr.context import RequestContext
from volmgr.db import members
from volmgr.rpc.client import VolumeAPI
from volmgr.rpc.transport import get_transport
from volmgr.service import Worker

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
CONTEXT = RequestContext(is_admin=True, project_id="p", user_id="u", overwrite=False)
WAIT = 300.0
# The lease is long: its end would end the tests.
CONFIG = """[DEFAULT]
state_path = {folder}/{name}
key_file = {folder}/keys.json
host = {name}
cluster = rack
cluster_lease = 3000
transport_url = {transport}
enabled_backends = b
report_interval = 1
[database]
connection = sqlite:///{folder}/volmgr.sqlite
[b]
volume_driver = sim
target_helper = {target}
sim_store_path = {folder}/sim
target_ip_address = 127.0.0.1
"""


def loaded(folder: Path, name: str, *, transport: str = "fake://", target: str = "fake") -> Any:
    file = folder / f"{name}.conf"
    file.write_text(CONFIG.format(folder=folder, name=name, transport=transport, target=target))
    return config.load(["--config-file", str(file)])


def made(conf: Any) -> Worker:
    (options,) = config.backends(conf)
    return Worker(conf, options)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[dict[str, Worker]]:
    found = {}
    for name in ("one", "two"):
        conf = loaded(tmp_path, name)
        worker = found[name] = made(conf)
        worker.open()
        worker.start(get_transport(conf, conf.transport_url))
    yield found
    for worker in found.values():
        if not worker.stopping.is_set():
            worker.stop(WAIT)


@pytest.fixture
def api(workers: dict[str, Worker], tmp_path: Path) -> Iterator[VolumeAPI]:
    client = VolumeAPI(conf=loaded(tmp_path, "client"), timeout=WAIT)
    yield client
    client.close()


def there(worker: Worker) -> set[str]:
    with worker.database.reader() as conn:
        return {item["name"] for item in members.listed(conn)}


def create(api: VolumeAPI) -> str:
    volume_id = str(uuid.uuid4())
    answer = api.create_volume(CONTEXT, volume_id, size=1)
    api.wait_operation(CONTEXT, answer["operation_id"], WAIT)
    return volume_id


def test_any_member_serves_the_backend(workers: dict[str, Worker], api: VolumeAPI) -> None:
    volume_id = create(api)
    assert api.get_volume(CONTEXT, volume_id)["host"].startswith("rack@b#")
    assert [item["host"] for item in api.list_services(CONTEXT)] == ["rack@b"]
    for host in ("rack@b", "one@b", "two@b"):
        assert api.get_capabilities(CONTEXT, host=host)["volume_backend_name"] == "b"
        assert api.call(CONTEXT, "initialize_connection", host=host, volume_id=volume_id, connector=CONNECTOR)
    one, two = workers["one"], workers["two"]
    assert there(one) == {"one@b", "two@b"}
    with one.database.reader() as conn:
        assert members.held(conn, "rack@b") == []
    assert api.call(CONTEXT, "freeze_host", host="one@b")
    assert two.replicas.frozen
    assert api.call(CONTEXT, "thaw_host", host="two@b")
    assert not one.replicas.frozen
    with pytest.raises(exception.Unsupported, match="failover_host"):
        api.call(CONTEXT, "failover_host", host="one@b", secondary_backend_id="replica")

    # Who is stopped gives up its place; the other one goes on.
    assert two.stop(WAIT)
    assert there(one) == {"one@b"}
    assert create(api)


def test_what_cannot_be_shared_is_no_cluster(tmp_path: Path) -> None:
    for name, options, word in (
        ("rack", {}, "both named rack"),
        ("three", {"transport": f"unix://{tmp_path}/rpc"}, "transport"),
        ("four", {"target": "tgtadm"}, "of its own"),
    ):
        worker = made(loaded(tmp_path, name, **options))
        with pytest.raises(exception.InvalidConfiguration, match=word):
            worker.open()
        worker.incarnation.release()
        worker.database.close()
    with pytest.raises(exception.Conflict, match="cluster rack"), local.opened(loaded(tmp_path, "five")):
        raise AssertionError("a cluster's backend is used by one host alone")
