# SPDX-License-Identifier: Apache-2.0
"""Consistency groups through the real daemon, by RPC and by the command line."""

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


def new_id() -> str:
    return str(uuid.uuid4())


def volmgr(daemon: Daemon, *argv: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "volmgr.cli.app", "--config-file", str(daemon.config_file), *argv],
        capture_output=True, text=True, timeout=120, check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if "json" in argv else done.stdout


def test_a_group_from_its_making_to_its_end(client: Client) -> None:
    api, context = client.api, client.context
    group_id, other, cgsnapshot_id = new_id(), new_id(), new_id()
    type_id = new_id()
    api.type_create(context, type_id, "gold")
    client.do("create_consistencygroup", group_id, name="db", description="both", volume_types=["gold"])
    members = sorted(new_id() for _ in range(3))
    for volume_id in members:
        client.do("create_volume", volume_id, size=1, volume_type="gold", group_id=group_id)
    plain = new_id()
    client.do("create_volume", plain, size=1)
    with pytest.raises(exception.Invalid, match="does not have"):
        client.do("update_consistencygroup", group_id, add_volumes=[plain])
    with pytest.raises(exception.Invalid, match="does not have"):
        client.do("create_volume", new_id(), size=1, group_id=group_id)
    client.do("update_consistencygroup", group_id, remove_volumes=members[2], name="new")
    view = api.get_group(context, group_id)
    assert (view["name"], view["status"], view["volumes"]) == ("new", "available", members[:2])
    assert view["volume_types"] == [type_id]
    made = client.do("create_cgsnapshot", cgsnapshot_id, group_id=group_id, name="nightly")["result"]
    assert sorted(made["snapshots"]) == members[:2]
    view = api.get_cgsnapshot(context, cgsnapshot_id)
    assert view["snapshots"] == sorted(made["snapshots"].values())
    assert (view["group_id"], view["name"]) == (group_id, "nightly")
    assert api.get_group(context, group_id)["cgsnapshots"] == [cgsnapshot_id]
    for snapshot_id in made["snapshots"].values():
        assert api.get_snapshot(context, snapshot_id)["cgsnapshot_id"] == cgsnapshot_id
    with pytest.raises(exception.Conflict) as refused:
        client.do("delete_snapshot", snapshot_id)
    assert f"volmgr cgsnapshot delete {cgsnapshot_id}" in refused.value.hint
    result = client.do("create_consistencygroup_from_src", other, cgsnapshot_id=cgsnapshot_id)["result"]
    assert api.get_group(context, other)["volumes"] == sorted(result["volumes"].values())
    assert api.get_quota(context)["snapshots"]["in_use"] == 2
    client.do("delete_cgsnapshot", cgsnapshot_id)
    for each in (group_id, other):
        client.do("delete_consistencygroup", each, delete_volumes=True)
        assert api.delete_consistencygroup(context, each)["result"]["unchanged"]
    assert {item["id"] for item in api.list_volumes(context)} == {plain, members[2]}
    assert api.get_quota(context)["snapshots"]["in_use"] == 0
    with pytest.raises(exception.GroupNotFound):
        api.get_group(context, group_id)
    with pytest.raises(exception.CgSnapshotNotFound):
        api.get_cgsnapshot(context, cgsnapshot_id)


def test_lists_are_filtered_paged_and_of_ones_own_project(client: Client) -> None:
    api, context = client.api, client.context
    group_ids = [new_id() for _ in range(5)]
    for number, group_id in enumerate(group_ids):
        client.do("create_consistencygroup", group_id, name=f"g{number}")
    volume_id, cgsnapshot_id = new_id(), new_id()
    client.do("create_volume", volume_id, size=1, group_id=group_ids[0])
    client.do("create_cgsnapshot", cgsnapshot_id, group_id=group_ids[0])
    page = {"sort_keys": ["display_name"], "sort_dirs": ["asc"], "limit": 2}
    first = api.list_groups(context, **page)
    assert [item["name"] for item in first] == ["g0", "g1"]
    assert [item["name"] for item in api.list_groups(context, **page, marker=first[-1]["id"])] == ["g2", "g3"]
    assert first[0]["volumes"] == [volume_id]
    assert first[0]["cgsnapshots"] == [cgsnapshot_id]
    assert [item["id"] for item in api.list_groups(context, filters={"display_name": "g3"})] == [group_ids[3]]
    assert [item["id"] for item in api.list_cgsnapshots(context, filters={"group_id": group_ids[0]})] == [cgsnapshot_id]
    assert api.list_cgsnapshots(context, filters={"group_id": group_ids[1]}) == []
    assert [item["id"] for item in api.list_volumes(context, filters={"group_id": group_ids[0]})] == [volume_id]
    assert len(api.list_snapshots(context, filters={"cgsnapshot_id": cgsnapshot_id})) == 1
    member = RequestContext(project_id="other", user_id="x", roles=[MEMBER], overwrite=False)
    assert api.list_groups(member) == api.list_cgsnapshots(member) == []
    for read, resource_id in ((api.get_group, group_ids[0]), (api.get_cgsnapshot, cgsnapshot_id)):
        with pytest.raises(exception.NotFound):
            read(member, resource_id)
    with pytest.raises(exception.GroupNotFound):
        api.create_cgsnapshot(member, new_id(), group_id=group_ids[0])


BAD: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("create_consistencygroup", {"group_id": "x"}, "group_id"),
    ("create_consistencygroup", {"group_id": new_id(), "volume_types": [1]}, "volume_types"),
    ("create_consistencygroup", {"group_id": new_id(), "size": 1}, "size"),
    ("create_consistencygroup_from_src", {"group_id": new_id()}, "cgsnapshot_id"),
    ("update_consistencygroup", {"group_id": new_id(), "add_volumes": "x"}, "add_volumes"),
    ("delete_consistencygroup", {"group_id": new_id(), "delete_volumes": "perhaps"}, "delete_volumes"),
    ("create_cgsnapshot", {"cgsnapshot_id": new_id(), "group_id": None}, "group_id"),
    ("list_groups", {"filters": {"colour": "red"}}, "filters"),
)


def test_bad_input_is_named(client: Client) -> None:
    for method, arguments, field in BAD:
        with pytest.raises(exception.Invalid) as refused:
            client.api.call(client.context, method, **arguments)
        assert str(refused.value.details["field"]).startswith(field), method


def test_the_command_line(daemon: Daemon, client: Client) -> None:
    made = volmgr(daemon, "group", "create", "db", "--wait", "-f", "json")
    volmgr(daemon, "volume", "create", "data", "--size", "1", "--group", "db", "--wait")
    volmgr(daemon, "volume", "create", "log", "--size", "1", "--wait")
    shown = volmgr(daemon, "group", "update", "db", "--add", "log", "--wait", "-f", "json")
    assert len(shown["volumes"]) == 2
    volmgr(daemon, "cgsnapshot", "create", "db", "night", "--wait")
    assert [row["name"] for row in volmgr(daemon, "cgsnapshot", "list", "--group", "db", "-f", "json")] == ["night"]
    assert len(volmgr(daemon, "cgsnapshot", "show", "night", "-f", "json")["snapshots"]) == 2
    assert "2 snapshots of the group" in volmgr(daemon, "cgsnapshot", "why", "night")
    volmgr(daemon, "group", "create", "copy", "--cgsnapshot", "night", "--wait")
    assert {row["name"] for row in volmgr(daemon, "group", "list", "-f", "json")} == {"db", "copy"}
    assert "2 volumes on" in volmgr(daemon, "group", "why", made["id"])
    answer = client.api.reset_status(client.context, "group", made["id"], "error")
    assert any("members" in text for text in answer["breaks"])
    assert "volmgr group delete" in volmgr(daemon, "group", "why", made["id"])
    volmgr(daemon, "cgsnapshot", "delete", "night", "--wait")
    volmgr(daemon, "group", "delete", "db", "copy", "--volumes", "--wait")
    assert volmgr(daemon, "group", "list", "-f", "json") == []
    assert client.api.list_volumes(client.context) == []
