# SPDX-License-Identifier: Apache-2.0
"""Volume types, QoS and quotas through the real daemon, by RPC and by the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from typing import Any

import pytest

from volmgr import exception
from volmgr.context import MEMBER, RequestContext
from volmgr.testing.daemon import Client, Daemon

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}


def new_id() -> str:
    return str(uuid.uuid4())


def test_a_type_with_its_qos_reaches_the_host(client: Client) -> None:
    api, context = client.api, client.context
    type_id, qos_id, volume_id = new_id(), new_id(), new_id()
    made = api.type_create(context, type_id, "gold", description="fast", extra_specs={"multiattach": "<is> True"})
    assert api.type_create(context, type_id, "gold", description="fast", extra_specs=made["extra_specs"]) == made
    api.qos_create(context, qos_id, "fast", consumer="front-end", specs={"total_iops_sec_per_gb": 100})
    assert api.qos_associate(context, qos_id, type_id)["qos_id"] == qos_id
    client.do("create_volume", volume_id, size=3, volume_type="gold")
    assert api.get_volume(context, volume_id)["volume_type"] == type_id
    data = api.initialize_connection(context, volume_id, CONNECTOR)["data"]
    assert data["qos_specs"] == {"total_iops_sec": "300"}
    api.terminate_connection(context, volume_id, CONNECTOR)
    with pytest.raises(exception.Conflict):
        api.type_delete(context, type_id)
    with pytest.raises(exception.Conflict):
        api.qos_delete(context, qos_id)
    assert api.type_set_specs(context, type_id, {"multiattach": None, "a": "1"})["extra_specs"] == {"a": "1"}
    assert api.type_update(context, type_id, name="silver")["name"] == "silver"
    assert [item["name"] for item in api.list_types(context)] == ["silver"]
    assert api.get_qos(context, "fast")["volume_types"] == [type_id]
    assert [item["id"] for item in api.list_qos(context, filters={"consumer": "front-end"})] == [qos_id]
    client.do("delete_volume", volume_id)
    assert api.qos_update(context, qos_id, specs={"a": "b"})["specs"]["a"] == "b"
    assert api.qos_disassociate(context, qos_id, type_id)["qos_id"] is None
    assert not api.qos_delete(context, qos_id)["unchanged"]
    assert not api.type_delete(context, type_id)["unchanged"]
    assert api.type_delete(context, type_id)["unchanged"]


def test_quota_limits_and_reservations(client: Client) -> None:
    api, context = client.api, client.context
    api.quota_set(context, "project", {"volumes": 2, "gigabytes": 10})
    reservation_id, volume_id = new_id(), new_id()
    answer = api.quota_reserve(context, reservation_id, volumes=2, gigabytes=4)
    assert api.get_quota(context)["volumes"] == {"limit": 2, "in_use": 2}
    with pytest.raises(exception.QuotaExceeded) as refused:
        client.do("create_volume", new_id(), size=1)
    assert "volmgr quota set project" in refused.value.hint
    client.do("create_volume", volume_id, size=1, reservations=answer["reservations"])
    assert api.get_quota(context, "project")["volumes"]["in_use"] == 1
    answer = api.quota_reserve(context, new_id(), gigabytes=4)
    client.do("extend_volume", volume_id, 5, reservations=answer["reservations"])
    assert api.get_quota(context, "project")["gigabytes"] == {"limit": 10, "in_use": 5}
    answer = api.quota_reserve(context, new_id(), gigabytes=4)
    assert api.quota_rollback(context, answer["reservations"]) == {"released": 1}
    (row,) = api.list_quotas(context, filters={"project_id": "project"})
    assert (row["volumes"]["in_use"], row["gigabytes"]["in_use"]) == (1, 5)
    member = RequestContext(project_id="project", user_id="u", roles=[MEMBER], overwrite=False)
    assert api.get_quota(member)["volumes"]["in_use"] == 1
    with pytest.raises(exception.Forbidden):
        api.quota_set(member, "project", {"volumes": -1})


def volmgr(daemon: Daemon, *argv: str) -> Any:
    """Run one command of the command line; return its JSON."""
    command = [sys.executable, "-m", "volmgr.cli.app", "--config-file", str(daemon.config_file), *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None


def test_the_command_line(daemon: Daemon) -> None:
    made = volmgr(daemon, "type", "create", "gold", "--property", "a=1", "--property", "b=2", "-f", "json")
    changed = volmgr(daemon, "type", "set", "gold", "--unset", "a", "--name", "silver", "--private", "-f", "json")
    assert (changed["id"], changed["is_public"], changed["extra_specs"]) == (made["id"], False, {"b": "2"})
    qos = ("qos", "create", "fast", "--consumer", "both", "--property", "total_iops_sec=5", "-f", "json")
    assert volmgr(daemon, *qos)["specs"] == {"total_iops_sec": "5"}
    assert volmgr(daemon, "qos", "associate", "fast", "silver", "-f", "json")["qos_id"] is not None
    assert volmgr(daemon, "qos", "show", "fast", "-f", "json")["volume_types"] == [made["id"]]
    limits = ("quota", "set", "p", "--type", "silver", "--volumes", "3", "--gigabytes", "default", "-f", "json")
    assert volmgr(daemon, *limits)["volumes"] == {"limit": 3, "in_use": 0}
    (row,) = volmgr(daemon, "quota", "list", "-f", "json")
    assert (row["volume_type"], row["volumes"], row["gigabytes"]) == (made["id"], "0 of 3", "0 of any")
    volmgr(daemon, "qos", "delete", "fast", "--force")
    volmgr(daemon, "type", "delete", "silver")
    assert volmgr(daemon, "type", "list", "-f", "json") == volmgr(daemon, "qos", "list", "-f", "json") == []
