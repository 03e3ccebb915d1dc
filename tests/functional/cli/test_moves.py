# SPDX-License-Identifier: Apache-2.0
"""Types, places, owners and replicas of volumes on the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Make = Callable[..., dict[str, Any]]


def test_a_volume_is_retyped_and_given_away(site: Any, volume: Make) -> None:
    row = volume("--size", "1")
    kind = site.volmgr("type", "create", "moved", "-f", "json").json
    retyped = site.volmgr("volume", "retype", row["id"], "moved", "--wait", "-f", "json").json
    assert retyped["volume_type"] == kind["id"]

    offer = site.volmgr("transfer", "create", row["id"], "--name", "gift", "--expires-in", "600", "-f", "json").json
    assert len(offer["auth_key"]) == 32
    assert site.volmgr("volume", "show", row["id"], "-f", "json").json["status"] == "awaiting-transfer"
    assert [item["id"] for item in site.volmgr("transfer", "list", "-f", "json").json] == [offer["id"]]
    assert "auth_key" not in site.volmgr("transfer", "show", offer["id"], "-f", "json").json
    wrong = site.volmgr("--project", "taker", "transfer", "accept", offer["id"], stdin="0" * 32)
    assert (wrong.code, "4 more may be tried" in wrong.err) == (1, True)
    taken = site.volmgr("--project", "taker", "transfer", "accept", offer["id"], stdin=offer["auth_key"] + "\n")
    assert taken.code == 0, taken.err
    assert site.volmgr("volume", "show", row["id"], "-f", "json").json["project_id"] == "taker"

    again = site.volmgr("transfer", "create", row["id"], "-f", "json").json
    assert site.volmgr("transfer", "delete", again["id"]).code == 0
    assert site.volmgr("volume", "show", row["id"], "-f", "json").json["status"] == "available"


def test_what_this_backend_cannot_do_is_said_with_a_way_out(site: Any, volume: Make) -> None:
    row = volume("--size", "1")
    nowhere = site.volmgr("volume", "migrate", row["id"], "node@nowhere", "--wait")
    assert (nowhere.code, "volmgr backend explain" in nowhere.err) == (1, True)
    for argv in (("volume", "promote", row["id"]), ("volume", "reenable-replication", row["id"])):
        refused = site.volmgr(*argv, "--wait")
        assert (refused.code, "does not support" in refused.err) == (1, True), refused.err
    failed = site.volmgr("volume", "complete-migration", row["id"], row["id"])
    assert (failed.code, "new_volume_id" in failed.err) == (1, True)


def test_a_backend_is_frozen_and_thawed(site: Any, volume: Make) -> None:
    row = volume("--size", "1")
    (service,) = site.volmgr("service", "list", "-f", "json").json
    assert site.volmgr("backend", "freeze", service["host"]).code == 0
    refused = site.volmgr("volume", "extend", row["id"], "2")
    assert (refused.code, f"hint: volmgr backend thaw {service['host']}" in refused.err) == (1, True)
    assert site.volmgr("backend", "failover", service["host"]).code == 1
    assert site.volmgr("backend", "thaw", service["host"]).code == 0
    assert site.volmgr("volume", "extend", row["id"], "2", "--wait", "-f", "json").json["size"] == 2
