# SPDX-License-Identifier: Apache-2.0
"""The command line against the real daemon, each command as a process of its own."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

Make = Callable[..., dict[str, Any]]
CONNECTOR = {"host": "elsewhere", "ip": "127.0.0.1", "initiator": "iqn.1993-08.org.debian:01:cli"}


def test_a_volume_lives_and_dies(site: Any, volume: Make) -> None:
    volume_id = str(uuid.uuid4())
    name = f"life-{volume_id[:8]}"
    made = volume(name, "--size", "1", "--id", volume_id, "--property", "a=b", "--property", "c=d=e")
    assert (made["id"], made["name"], made["status"], made["size"]) == (volume_id, name, "available", 1)
    assert made["metadata"] == {"a": "b", "c": "d=e"}

    changes = ("--name", f"{name}2", "--unset", "a", "--property", "x=y", "-f", "json")
    changed = site.volmgr("volume", "set", name, *changes)
    assert (changed.json["name"], changed.json["metadata"]) == (f"{name}2", {"c": "d=e", "x": "y"})
    assert site.volmgr("volume", "extend", f"{name}2", "2", "--wait", "-f", "json").json["size"] == 2
    listed = site.volmgr("volume", "list", "--name", f"{name}2", "-f", "json").json
    assert [row["id"] for row in listed] == [volume_id]

    assert site.volmgr("volume", "delete", f"{name}2", "--wait").code == 0
    gone = site.volmgr("volume", "show", volume_id)
    assert (gone.code, gone.out) == (1, "")
    assert gone.err.startswith(f"volmgr: The volume {volume_id} could not be found\n")

    back = site.volmgr("volume", "undelete", volume_id, "-f", "json").json
    assert (back["status"], back["size"], back["metadata"]) == ("available", 2, {"c": "d=e", "x": "y"})


def test_snapshots_clone_and_revert(site: Any, volume: Make) -> None:
    row = volume("--size", "1")
    snapshot = site.volmgr("snapshot", "create", row["id"], "before", "--wait", "-f", "json").json
    assert (snapshot["status"], snapshot["volume_id"]) == ("available", row["id"])
    listed = site.volmgr("snapshot", "list", "--volume", row["id"], "-f", "json").json
    assert [item["id"] for item in listed] == [snapshot["id"]]

    refused = site.volmgr("volume", "delete", row["id"], "--wait")
    assert refused.code == 1
    assert "has 1 snapshots" in refused.err
    assert "hint: Delete its snapshots first, or delete it with --cascade" in refused.err

    clone = volume("--snapshot", snapshot["id"])
    assert (clone["size"], clone["snapshot_id"]) == (1, snapshot["id"])
    assert site.volmgr("volume", "revert", row["id"], snapshot["id"], "--wait", "-f", "json").json["id"] == row["id"]
    assert site.volmgr("snapshot", "delete", snapshot["id"], "--wait").code == 0
    assert site.volmgr("snapshot", "list", "--volume", row["id"], "-f", "json").json == []


def test_a_name_that_several_have_lists_the_candidates(site: Any, volume: Make) -> None:
    name = f"twin-{uuid.uuid4().hex[:8]}"
    ids = {volume(name, "--size", "1")["id"], volume(name, "--size", "1")["id"]}
    done = site.volmgr("volume", "show", name)
    assert done.code == 1
    assert f"2 volumes have the name '{name}'" in done.err
    assert all(item in done.err for item in ids)
    unknown = site.volmgr("volume", "show", "nobody-has-this")
    assert unknown.code == 1
    assert "hint: Run: volmgr volume list" in unknown.err


def test_attachments_step_by_step(site: Any, volume: Make) -> None:
    row = volume("--size", "1")
    asked = ("attachment", "create", row["id"], "--connector", "-", "-f", "json")
    made = site.volmgr(*asked, stdin=json.dumps(CONNECTOR)).json
    info = made["connection_info"]
    assert (made["status"], info["driver_volume_type"]) == ("attaching", "iscsi")
    assert info["data"]["auth_password"] == "***"
    shown = site.volmgr(*asked, "--id", made["id"], "--show-secrets", stdin=json.dumps(CONNECTOR)).json
    assert len(shown["connection_info"]["data"]["auth_password"]) >= 12

    assert site.volmgr("attachment", "complete", made["id"], "-f", "json").json["status"] == "attached"
    assert site.volmgr("volume", "show", row["id"], "-f", "json").json["status"] == "in-use"
    listed = site.volmgr("attachment", "list", "--volume", row["id"], "-f", "json").json
    assert [(item["id"], item["host_name"]) for item in listed] == [(made["id"], "elsewhere")]
    refused = site.volmgr("volume", "delete", row["id"])
    assert refused.code == 1
    assert site.volmgr("attachment", "delete", made["id"]).code == 0
    assert site.volmgr("volume", "show", row["id"], "-f", "json").json["status"] == "available"


def test_a_connector_must_be_json(site: Any) -> None:
    done = site.volmgr("attachment", "create", "x", "--connector", "-", stdin="{")
    assert done.code == 2
    assert "is not JSON" in done.err


def test_operations_are_listed_shown_and_waited_for(site: Any, volume: Make) -> None:
    row = volume("--size", "1")
    listed = site.volmgr("operation", "list", "--resource", row["id"], "-f", "json").json
    assert [(item["verb"], item["state"]) for item in listed] == [("create_volume", "done")]
    shown = site.volmgr("operation", "show", listed[0]["id"], "-f", "json").json
    assert (shown["resource_id"], shown["error"]) == (row["id"], None)
    assert site.volmgr("operation", "wait", listed[0]["id"], "--timeout", "5", "-f", "json").json["state"] == "done"
    unknown = site.volmgr("operation", "wait", str(uuid.uuid4()))
    assert unknown.code == 1
    assert "could not be found" in unknown.err


def test_a_failed_operation_ends_the_wait_with_its_error(site: Any, volume: Make) -> None:
    row = volume("--size", "2")
    done = site.volmgr("volume", "create", "--source", row["id"], "--size", "1", "--wait")
    assert done.code == 1
    assert "size" in done.err


def test_why_is_one_screen_of_text_or_json(site: Any, volume: Make) -> None:
    row = volume("--size", "1")
    said = site.volmgr("volume", "why", row["id"])
    assert said.code == 0
    assert f"volume {row['id']}: available" in said.out
    assert site.volmgr("volume", "why", row["id"], "--json").json["text"] in said.out


def test_lists_are_sorted_and_cut_into_pages_by_the_daemon(site: Any, volume: Make) -> None:
    name = f"page-{uuid.uuid4().hex[:8]}"
    ids = [volume(name, "--size", str(size))["id"] for size in (3, 1, 2)]
    asked = ("volume", "list", "--name", name, "--sort", "size:desc", "--limit", "2", "-f", "json")
    first = site.volmgr(*asked).json
    assert [row["size"] for row in first] == [3, 2]
    second = site.volmgr(*asked, "--marker", first[-1]["id"]).json
    assert [row["id"] for row in second] == [ids[1]]
    assert "created_at" not in first[0]
    assert "created_at" in site.volmgr(*asked, "--long").json[0]


def test_workers_and_backends(site: Any) -> None:
    (service,) = site.volmgr("service", "list", "-f", "json").json
    assert service["up"] is True
    (backend,) = site.volmgr("backend", "list", "-f", "json").json
    assert backend["host"] == service["host"]
    assert backend["free_gb"] > 0
    shown = site.volmgr("backend", "show", "embedded", "-f", "json").json
    assert shown["capabilities"]["storage_protocol"] == shown["protocol"]


def test_the_doctor_finds_the_daemon_and_its_schema(site: Any) -> None:
    done = site.volmgr("doctor", "-f", "json")
    found = {row["check"]: row for row in json.loads(done.out)}
    assert done.code == 0, done.out
    assert found["daemon"]["result"] == "ok"
    assert found["database schema"]["result"] == "ok"
    assert any(key.startswith("worker ") and row["result"] == "ok" for key, row in found.items())


def test_without_a_daemon_every_command_says_so(site: Any, tmp_path: Any) -> None:
    nobody = f"unix://{tmp_path}"
    done = site.volmgr("--transport-url", nobody, "volume", "list")
    assert (done.code, done.out) == (1, "")
    assert "volmgr: No server of volume listens" in done.err
    assert "hint: Start it" in done.err
    doctor = site.volmgr("--transport-url", nobody, "doctor", "-f", "json")
    assert doctor.code == 1
    assert {row["check"]: row["result"] for row in json.loads(doctor.out)}["daemon"] == "missing"


def test_a_project_sees_only_its_own(site: Any, volume: Make) -> None:
    row = volume("--size", "1")
    other = ("--project", "another", "volume")
    assert site.volmgr(*other, "list", "-f", "json").json == []
    assert site.volmgr(*other, "show", row["id"]).code == 1


def test_several_deletions_go_on_after_an_error(site: Any, volume: Make) -> None:
    first, second = volume("--size", "1")["id"], volume("--size", "1")["id"]
    done = site.volmgr("volume", "delete", "--wait", first, "nobody-has-this", second)
    assert done.code == 1
    assert "nobody-has-this" in done.err
    left = {row["id"] for row in site.volmgr("volume", "list", "-f", "json").json}
    assert left.isdisjoint({first, second})
